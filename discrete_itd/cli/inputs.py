"""Inputs of the commands: models from files, and tables in the types that a model was fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import pandas as pd

from discrete_itd.cli.cells import typed
from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.streams import Chunk, Source
from discrete_itd.cli.tables import EmptyTableError, UserError
from discrete_itd.detection.answers import density_of
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Column, Rows, TableEncoder
from discrete_itd.encoders.column import SUSPICIOUS_ROWS
from discrete_itd.encoders.table import unseen_values
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.scoring import ignored
from discrete_itd.scale.loading import CLASSES
from discrete_itd.storage.persistent import load_one_of
from discrete_itd.validation import warn

Result = TypeVar("Result")


# -- models ---------------------------------------------------------------------------------------


def load_model(path: str, device: str) -> DiffusionDensity | DiffusionOutlierDetector:
    """The density or the detector in a file.

    Raises
    ------
    OSError, ValueError
        See the ``load`` methods.
    """
    return load_one_of(path, CLASSES, device=device)


def load_density(path: str, device: str) -> DiffusionDensity:
    """The density in a file, or that of the detector in the file."""
    return density_of(load_model(path, device))


# -- tables ---------------------------------------------------------------------------------------


class Reader:
    """Rows of tables, as a model takes them.

    Parameters
    ----------
    model : DiffusionDensity
    progress : callable
        Called with the number of rows done since the last call.
    """

    def __init__(self, model: DiffusionDensity, progress: Callable[[int], object]) -> None:
        self.model, self._progress = model, progress
        self._seen = [Seen(column) for column in model.encoder_.schema]

    def check(self, source: Source) -> None:
        """Raise a UserError if a table lacks a column of the model."""
        known, path = {str(c.name): c for c in self.model.encoder_.schema}, source.table.path
        absent = [name for name in known if name not in source.names]
        if absent:
            many = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            raise UserError(
                f"{path}: column {absent[0]!r}{many}: used by the model, but missing from the table"
            )

    def read(
        self,
        source: Source,
        n_rows: int | None = None,
        *,
        all_used: bool = False,
        keep: Collection[str] = (),
        may_be_empty: bool = False,
    ) -> Iterator[tuple[Chunk, Rows]]:
        """A table in chunks, encoded; the index of the rows are their numbers, from 1.

        Parameters
        ----------
        source : Source
        n_rows : int, optional
            Of a chunk; by default as many as have about a million cells.
        all_used : bool
            Whether columns that the model does not know are of use; else a warning says that they are ignored.
        keep : collection of str
            Columns to read besides those of the model.
        may_be_empty : bool
            Whether a table without rows gives a chunk without rows.

        Raises
        ------
        UserError
            Naming the file, and if a cell is wrong its row, column and value; or if there are no rows but must be.
        """
        path, any_rows = source.table.path, False
        names = None if all_used else [*(str(c.name) for c in self.model.encoder_.schema), *keep]
        for chunk in source.chunks(n_rows, names):
            rows = about(path, lambda c=chunk: self._encoded(c, source.table.dialect))
            if not (any_rows or all_used):
                self._tell_of_extra(source, keep)
            any_rows = True
            for j, seen in enumerate(self._seen):
                seen.look(rows, j)
            yield chunk, rows
            self._progress(len(rows))
        if any_rows:
            return
        if not may_be_empty:
            raise EmptyTableError(f"{path}: the table is empty")
        chunk = source.nothing()
        yield chunk, self._rows(chunk.frame, source.table.dialect)

    def tell(self) -> None:
        """Warn of columns of which no value was seen in training, in no row that was read."""
        for seen in self._seen:
            seen.tell()

    def _tell_of_extra(self, source: Source, keep: Collection[str]) -> None:
        known = {*keep, *(str(name) for name in self.model.encoder_.all_names)}
        extra = [name for name in source.names if name not in known]
        if extra:
            warn(f"{source.table.path}: {ignored(extra, source.names)}")

    def _encoded(self, chunk: Chunk, dialect: Dialect) -> Rows:
        try:
            return self._rows(chunk.frame, dialect)
        except (ValueError, TypeError):
            bad = _first_bad(chunk.frame, lambda frame: self._rows(frame, dialect))
            if bad is None:
                raise
            try:
                self._rows(chunk.frame.iloc[bad : bad + 1], dialect)
            except (ValueError, TypeError) as error:
                raise UserError(f"row {chunk.first + bad}: {error}") from error
            raise

    def _rows(self, frame: pd.DataFrame, dialect: Dialect) -> Rows:
        schema = self.model.encoder_.schema
        place = {str(name): i for i, name in enumerate(frame.columns)}
        cells = {c.name: typed(frame.iloc[:, place[str(c.name)]], c, dialect) for c in schema}
        with warnings.catch_warnings():
            # a few rows cannot tell; all together do
            warnings.filterwarnings("ignore", "column .* no value was seen in training")
            return self.model.rows(pd.DataFrame(cells))


class Seen:
    """Whether the values of an open column of categories were seen in training, over all rows.

    Parameters
    ----------
    column : Column
    """

    def __init__(self, column: Column) -> None:
        self._column = column
        self._n_present, self._any_known = 0, not (column.open and column.categories)
        self._dtype: Any = None

    def look(self, rows: Rows, j: int) -> None:
        """Look at some more rows, of which this is the column ``j``."""
        if self._any_known:
            return
        self._dtype = rows.frame.dtypes.iloc[j] if self._dtype is None else self._dtype
        x = rows.x[:, j]
        self._n_present += int((~x.isnan()).sum())
        self._any_known = bool((x < self._column.codec.n_levels).any())

    def tell(self) -> None:
        """Warn if there are several values and none is known."""
        if not self._any_known and self._n_present >= SUSPICIOUS_ROWS:
            warn(unseen_values(self._column, self._dtype))


def _first_bad(frame: pd.DataFrame, read: Callable[[pd.DataFrame], object]) -> int | None:
    """Position of the first row that cannot be read, by bisection; None if no beginning of the frame fails."""

    def fails(n: int) -> bool:
        try:
            read(frame.iloc[:n])
        except (ValueError, TypeError):
            return True
        return False

    low, high = 0, len(frame)  # the first `low` rows can be read
    if not fails(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return low


def given_row(model: DiffusionDensity, given: dict[str, str]) -> pd.DataFrame:
    """The values of ``--given`` in the fitted types, as a frame of one row."""
    check_given(given, model.encoder_)
    schema = {str(c.name): c for c in model.encoder_.schema}
    row = {}
    for name, text in given.items():
        column = schema[name]
        cell = typed(pd.Series([text], dtype=object), column)
        value = cell.iloc[0]
        if pd.isna(value):
            raise UserError(f"column {name!r}: {text!r} in --given is a missing value")
        if isinstance(value, str) and column.categories and not column.is_text:
            raise UserError(
                f"column {name!r}: expected a value like {column.categories[0]!r}, got {text!r}"
            )
        row[column.name] = cell
    return pd.DataFrame(row)


def check_given(given: Collection[str], encoder: TableEncoder) -> None:
    """Raise a UserError if the model has no column of a name in ``--given``."""
    names = {str(name): name for name in encoder.all_names}
    for name in given:
        try:
            encoder.place_of(names.get(name, name), "--given")
        except ValueError as error:
            raise UserError(str(error)) from None


def kept_names(
    path: str, names: Collection[str], asked: Sequence[str], answers: Collection[str] = ()
) -> list[str]:
    """The columns of a table that ``--keep`` asks for: each word is the name of one, or names with commas between them.

    Parameters
    ----------
    path : str
        Of the table.
    names : collection of str
        Of its columns.
    asked : sequence of str
    answers : collection of str
        Names of other columns of the output.

    Raises
    ------
    UserError
        Naming the column, if the table has none of that name, it is named twice, or it is also one of ``answers``.
    """
    kept = [name for word in asked for name in ([word] if word in names else word.split(","))]
    for name in kept:
        problem = "missing from the table" if name not in names else ""
        problem = "twice" if kept.count(name) > 1 else problem
        problem = "but also the name of an answer" if name in answers else problem
        if problem:
            raise UserError(f"{path}: column {name!r}: named in --keep, {problem}")
    return kept


def kept_cells(chunk: Chunk, names: Sequence[str]) -> pd.DataFrame:
    """Some columns of a chunk as they are: the text of a CSV, or the types of Parquet."""
    cells = {}
    for name in names:
        if chunk.batch is None:
            cells[name] = chunk.frame[name].astype("string")
        else:
            column = chunk.batch.column(name)
            values = pd.array(column, dtype=pd.ArrowDtype(column.type))
            cells[name] = pd.Series(values, index=chunk.frame.index)
    return pd.DataFrame(cells, index=chunk.frame.index)


def about(path: str, call: Callable[[], Result]) -> Result:
    """The result of ``call``; an error about a column, or a row, is reported with the table's path."""
    try:
        return call()
    except (ValueError, TypeError, UserError) as error:
        is_of_table = str(error).startswith(("column ", "row ", "n_samples=", "at least two rows"))
        raise UserError(f"{path}: {error}" if is_of_table else str(error)) from error
