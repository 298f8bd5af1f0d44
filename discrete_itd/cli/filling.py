"""``discrete-itd impute``: tables with their missing cells filled, and everything else as it was."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import Reader, load_density
from discrete_itd.cli.jobs import Files, run
from discrete_itd.cli.messages import say
from discrete_itd.cli.streams import Chunk, Source, Table
from discrete_itd.cli.tables import UserError
from discrete_itd.cli.tally import Tally
from discrete_itd.encoders import Column, Rows
from discrete_itd.encoders.dtypes import family, has_time_zone, numpy_name, time_unit
from discrete_itd.encoders.plain_text import as_text
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.filling import fillings
from discrete_itd.validation import check_random_state

if TYPE_CHECKING:
    import pyarrow as pa

DRAWN_ROWS = 4096  # that share a seed, whatever else is in memory


def impute(args: argparse.Namespace) -> None:
    """Run the command."""
    files = Files.asked(args)
    model = load_density(args.model, args.device)
    tally = run(args, files, lambda progress: Filling(args, model, progress))
    n_filled = tally.counts["filled"]
    say(args.out, f"wrote {args.out}: {tally.n_rows} rows, {n_filled} cells filled")


@dataclass(frozen=True)
class Filled:
    """A column of a chunk, and what its missing cells are filled with.

    Attributes
    ----------
    column : Column
    values : Series, length N
        In the type of the model.
    is_gap : ndarray of bool, shape (N,)
        Where a cell is missing and known now.
    fills : Series
        The values of these cells, in the fitted dtype.
    """

    column: Column
    values: pd.Series
    is_gap: np.ndarray
    fills: pd.Series


class Filling:
    """The job of ``impute``.

    Parameters
    ----------
    args : Namespace
    model : DiffusionDensity
    progress : callable
        Told of the number of rows done.
    """

    copies = True

    def __init__(
        self,
        args: argparse.Namespace,
        model: DiffusionDensity,
        progress: Callable[[int], object],
    ) -> None:
        self.reader, self._args = Reader(model, progress), args

    def options(self) -> Mapping[str, Any]:
        """What makes a difference to the filled cells, apart from the model."""
        return {"draw": self._args.draw, "seed": self._args.seed}

    def outputs(
        self, source: Source, out: Table, tally: Tally, name: str | None
    ) -> tuple[pa.Schema | None, Iterator[Any]]:
        """See :class:`~discrete_itd.cli.jobs.Job`."""
        self.reader.check(source)
        chunks = self._filled(source, tally, name)
        if out.kind != ".parquet":
            dialect = source.table.dialect
            return None, (_as_text(chunk, filled, dialect) for chunk, filled in chunks)
        schema = _schema(source, self.reader.model)
        return schema, (_as_arrow(chunk, filled, schema, source) for chunk, filled in chunks)

    def _filled(
        self, source: Source, tally: Tally, name: str | None
    ) -> Iterator[tuple[Chunk, dict[str, Filled]]]:
        """Chunks, and by name the columns that the model knows."""
        model, draw = self.reader.model, self._args.draw
        random = _random(self._args.seed, name)
        n_rows = DRAWN_ROWS if draw else self._args.chunk_rows
        for chunk, rows in self.reader.read(source, n_rows, all_used=True, may_be_empty=True):
            seed = int(random.randint(2**31 - 1)) if draw else None
            filled = _columns(model, rows, seed)
            n_filled = sum(int(f.is_gap.sum()) for f in filled.values())
            tally.add(np.zeros(len(rows)), filled=n_filled)
            yield chunk, filled


def _random(seed: int | None, name: str | None) -> np.random.RandomState:
    """Random numbers of a table; of a part of a folder, the same in each run and unlike those of other parts."""
    if seed is None or name is None:
        return check_random_state(seed)
    return np.random.RandomState([seed, zlib.crc32(name.encode())])


def _columns(model: DiffusionDensity, rows: Rows, seed: int | None) -> dict[str, Filled]:
    empty, complete = fillings(model.model_, rows, seed)
    incomplete = empty.any(1)
    columns = {}
    for j, column in enumerate(rows.encoder.schema):
        fills = complete.iloc[:, j][empty[incomplete, j]]
        is_gap = empty[:, j].copy()
        is_gap[is_gap] = fills.notna().to_numpy()
        columns[str(column.name)] = Filled(column, rows.frame.iloc[:, j], is_gap, fills.dropna())
    return columns


# -- as text --------------------------------------------------------------------------------------


def _as_text(chunk: Chunk, filled: Mapping[str, Filled], dialect: Dialect) -> pd.DataFrame:
    """A chunk for a CSV: its own cells as they are written, or as Parquet has them, and filled ones."""
    columns = []
    for name, values in chunk.frame.items():
        known = filled.get(str(name))
        if known is not None or values.dtype.kind in "mM":
            days = known is not None and known.column.has_days
            values = as_text(values, days=days)
            if known is not None and len(known.fills):
                fills = as_text(known.fills, days=days)
                if known.column.notation is not None and dialect.decimal is None:
                    fills = known.column.notation.write(known.fills)
                elif known.fills.dtype.kind == "f":
                    fills = fills.map(dialect.number)  # swaps the marks, in either direction
                values[known.is_gap] = fills.to_numpy()
        columns.append(values)
    return pd.concat(columns, axis=1).set_axis(chunk.frame.columns, axis=1)


# -- as Parquet -----------------------------------------------------------------------------------


def _schema(source: Source, model: DiffusionDensity) -> pa.Schema:
    """The types of a Parquet file with filled cells: those of the table, or else of the model."""
    import pyarrow as pa

    known = {str(c.name): c for c in model.encoder_.schema}
    if source.schema is None:
        types = [_arrow_type(known[n]) if n in known else pa.string() for n in source.names]
        return pa.schema(list(zip(source.names, types, strict=True)))
    fields = []
    for name, field in zip(source.names, source.schema, strict=True):
        if name in known:
            field = field.with_type(_filled_type(field.type, known[name])).with_nullable(True)
        fields.append(field)
    metadata = dict(source.schema.metadata or {})
    types = [(f.type, own.type) for f, own in zip(fields, source.schema, strict=True)]
    if any(pa.types.is_integer(own) and new != own for new, own in types):
        metadata.pop(b"pandas", None)  # it would have pandas read the types that were
    return pa.schema(fields, metadata)


def _arrow_type(column: Column) -> pa.DataType:
    """The type of the values of a model's column."""
    import pyarrow as pa

    categories = column.categories
    if categories or column.kind in ("nominal", "ordinal"):
        types = {type(c) for c in categories}
        ours = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        return ours.get(types.pop(), pa.string()) if len(types) == 1 else pa.string()
    if column.family == "datetime":
        zone = str(getattr(column.dtype, "tz", "UTC")) if has_time_zone(column.dtype) else None
        return pa.timestamp(time_unit(column.dtype), zone)
    if column.family == "timedelta":
        return pa.duration(time_unit(column.dtype))
    return pa.int64() if family(column.dtype) == "integer" else pa.float64()


def _filled_type(own: pa.DataType, column: Column) -> pa.DataType:
    """The type of a Parquet file's column, or a wider one if that cannot hold what cells are filled with."""
    import pyarrow as pa

    if pa.types.is_dictionary(own):  # its codes may have become too few
        return pa.dictionary(pa.int32(), own.value_type, own.ordered)
    wanted = _arrow_type(column)
    is_whole = pa.types.is_integer(wanted) or getattr(column.codec, "whole", False)
    if pa.types.is_integer(own):
        if not is_whole:
            return wanted
        return own if _holds(own, column) else pa.int64()
    kept = (
        pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_timestamp, pa.types.is_date, pa.types.is_duration,
    )  # fmt: skip
    return own if any(holds(own) for holds in kept) else wanted


def _holds(own: pa.DataType, column: Column) -> bool:
    """Whether an integer type holds the whole numbers of a model's column."""
    limits = np.iinfo(str(own))
    numbers = [c for c in column.categories if isinstance(c, int)]
    if not numbers:
        name = numpy_name(column.dtype)
        kind = np.iinfo(name) if family(column.dtype) == "integer" else np.iinfo(np.int64)
        numbers = [kind.min, kind.max]
    return limits.min <= min(numbers) and max(numbers) <= limits.max


def _as_arrow(
    chunk: Chunk, filled: Mapping[str, Filled], schema: pa.Schema, source: Source
) -> pa.Table:
    """A chunk for a Parquet file."""
    import pyarrow as pa

    arrays = []
    for i, field in enumerate(schema):
        own = None if chunk.batch is None else chunk.batch.column(i)
        known, name = filled.get(field.name), field.name
        try:
            if known is None:
                arrays.append(_array(chunk.frame.iloc[:, i], field.type) if own is None else own)
            else:
                arrays.append(_filled_array(own, known, field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            values = chunk.frame.iloc[:, i] if known is None else known.values
            row, value = _misfit(values, field.type)
            where = f"{source.table.path}: row {row}: " if row else f"{source.table.path}: "
            raise UserError(
                f"{where}column {name!r}: {value!r} is no {field.type}, the type of the model's column; a CSV can"
                " have it"
            ) from None
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: pd.Series, wanted: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(wanted) or pa.types.is_large_string(wanted):
        values = as_text(values)
    return pa.Array.from_pandas(values, type=wanted)


def _filled_array(own: pa.ChunkedArray | None, known: Filled, wanted: pa.DataType) -> pa.Array:
    import pyarrow as pa
    from pyarrow import compute

    plain = wanted.value_type if pa.types.is_dictionary(wanted) else wanted
    array = _array(known.values, plain) if own is None else own.cast(plain).combine_chunks()
    if len(known.fills):
        fills = known.fills
        if pa.types.is_date(plain) or pa.types.is_timestamp(plain):
            new = pa.Array.from_pandas(fills).cast(plain, safe=False)
        else:
            new = _array(fills, plain)
        array = cast(Any, compute).replace_with_mask(array, pa.array(known.is_gap), new)
    return array.dictionary_encode().cast(wanted) if plain is not wanted else array


def _misfit(values: pd.Series, wanted: pa.DataType) -> tuple[int, Any]:
    """The row number and value of the first cell that a type cannot hold."""
    import pyarrow as pa

    for row, value in values.items():
        try:
            _array(pd.Series([value], dtype=object), wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            return int(str(row)), value
    return 0, None
