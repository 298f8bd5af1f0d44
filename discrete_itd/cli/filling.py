"""``discrete-itd impute``: tables with their missing cells filled; and ``discrete-itd sample``: new rows."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd.cli.inputs import (
    Job,
    Reader,
    Tally,
    check_files,
    load_model,
    reader_of,
    run,
)
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import STANDARD, Source, check_out, ending, say, write_table
from discrete_itd.detection.answers import density_of
from discrete_itd.encoders import Column
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reading.frames import family, numpy_name, to_pandas
from discrete_itd.reading.text import as_text, quoted
from discrete_itd.statistics import count

if TYPE_CHECKING:
    import pyarrow as pa

DRAWN_ROWS = 4096  # rows drawn with one seed, so that draws do not depend on the memory available


def sample(args: argparse.Namespace) -> None:
    """Run the command."""
    out = STANDARD if args.out is None else args.out
    check_out(out, model=args.model)
    model = density_of(load_model(args.model))
    given = given_row(model, dict(args.given)) if args.given else None
    rows: Any = to_pandas(model.sample(args.n, random_state=args.seed, given=given))
    if out == STANDARD or ending(out) != ".parquet":
        for column in model.encoder_.schema:
            if column.has_days:
                rows[column.name] = as_text(rows[column.name], days=True)
    named = rows.set_axis([str(name) for name in rows.columns], axis=1)
    write_table(out, [named])


def given_row(model: DiffusionDensity, given: dict[str, str]) -> dict[Any, Any]:
    """The values of ``--given`` by column name; ValueError names an unknown column, UserError a missing value."""
    names = {str(name): name for name in model.encoder_.all_names}
    row = {names.get(name, name): text for name, text in given.items()}
    for name, text in row.items():
        column = model.encoder_.schema[model.encoder_.place_of(name, "--given")]
        x = column.encode(pd.Series([text]))[0]
        if np.isnan(x).any() or (x == column.absent_level).any():
            raise UserError(f"column {name!r}: {quoted(text)} in --given is a missing value")
    return row


def impute(args: argparse.Namespace) -> None:
    """Run the command."""
    check_files(args)
    model = density_of(load_model(args.model))
    with reader_of(model, args) as reader:
        types = partial(_types, {str(c.name): c for c in model.encoder_.schema})
        tally = run(args, reader, _filling(args, reader, types), filled=types)
    if tally:
        say(
            args.out,
            f"wrote {args.out}: {count(tally['rows'], 'row')}, {tally['filled']} cells filled",
        )


def _filling(
    args: argparse.Namespace, reader: Reader, types: Callable[[pa.Schema], pa.Schema]
) -> Job:
    """The job that fills the missing cells of one table, in chunks."""

    def filled(source: Source, tally: Tally, name: str | None) -> Iterator[pd.DataFrame]:
        schema = None if source.schema is None else types(source.schema)
        how: Any = {"method": args.method, "random_state": _random(args.seed, name)}
        n_rows = DRAWN_ROWS if args.method == "sample" else None
        for chunk, rows in reader.read(source, all_used=True, n_rows=n_rows):
            columns, empty = rows.encoder.schema, rows.is_missing
            complete: Any = reader.model.impute(rows, **how) if empty.any() else rows.given
            tally.update(rows=len(rows), filled=0)
            for j, column in enumerate(columns):
                name, values = str(column.name), complete[column.name]
                is_filled = empty[:, j] & values.notna().to_numpy()
                tally["filled"] += int(is_filled.sum())
                if schema is not None:
                    chunk[name] = _stored(values, schema.field(name), source.path)
                elif is_filled.any():
                    notation, values = reader.notation(column), values[is_filled]
                    texts = as_text(values, days=column.has_days)
                    if notation is not None:
                        texts = notation.write(column.read(values))
                    chunk.loc[is_filled, name] = texts.to_numpy()
            yield chunk

    return filled


def _types(known: Mapping[str, Column], own: pa.Schema) -> pa.Schema:
    """The schema of a Parquet file, with wider types where the present ones cannot hold imputed values."""
    import pyarrow as pa

    types = [_wider(f.type, known[f.name]) if f.name in known else f.type for f in own]
    fields = [f.with_type(t).with_nullable(True) for f, t in zip(own, types, strict=True)]
    metadata = dict(own.metadata or {})
    if types != own.types:
        metadata.pop(b"pandas", None)  # it would make pandas restore the former types
    return pa.schema(fields, metadata)


def _wider(own: pa.DataType, column: Column) -> pa.DataType:
    """The Parquet type, widened where it cannot hold the values of the model's column."""
    import pyarrow as pa

    if pa.types.is_integer(own) and str(own) != numpy_name(column.dtype):
        is_whole = family(column.dtype) == "integer" or column.codec.whole
        is_whole |= bool(column.categories) and all(type(c) is int for c in column.categories)
        return pa.int64() if is_whole else pa.float64()
    if pa.types.is_null(own):
        return pa.string() if column.is_text else pa.float64()
    return own


def _stored(values: pd.Series, field: pa.Field, path: str) -> pd.Series:
    """Values converted to a Parquet field's type; UserError, naming the column, if it cannot hold them."""
    import pyarrow as pa

    coded = pa.types.is_dictionary(field.type)
    plain = field.type.value_type if coded else field.type
    try:
        array = pa.array(values.astype(object), plain, from_pandas=True)
        array = array.dictionary_encode().cast(field.type) if coded else array
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{path}: column {field.name!r}: cannot be filled in {field.type} ({error}); a CSV can have it"
        ) from None
    return pd.Series(pd.arrays.ArrowExtensionArray(array), index=values.index)


def _random(seed: int | None, name: str | None) -> np.random.RandomState | None:
    """Random state of a table, keyed by seed and, within a folder, by the file's name."""
    if seed is None:
        return None
    return np.random.RandomState(seed if name is None else [seed, zlib.crc32(name.encode())])
