"""Inputs of the commands: models from files, and rows of tables as a model takes them."""

from __future__ import annotations

import argparse
import os
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd.cli.messages import UserError
from discrete_itd.cli.tables import Dialect, EmptyTableError, Source, ending, reading
from discrete_itd.detection.answers import density_of, detects
from discrete_itd.encoders import Column, Notation, Rows
from discrete_itd.encoders.categories import WHOLE
from discrete_itd.encoders.column import SUSPICIOUS_ROWS
from discrete_itd.encoders.notation import TRUTHS, quoted
from discrete_itd.encoders.rows import ignored
from discrete_itd.encoders.table import warn_of_unseen
from discrete_itd.encoders.unreadable import collected
from discrete_itd.progress import stream_progress, tqdm
from discrete_itd.scale.batches import read_model
from discrete_itd.validation import warn

if TYPE_CHECKING:
    from discrete_itd.detection.answers import Estimator
    from discrete_itd.estimators import DiffusionDensity


def load_model(path: str) -> Any:
    """The density or the detector in a file; OSError or ValueError if it holds neither."""
    try:
        return read_model(path)
    except ValueError:
        if _is_table(path):
            raise UserError(
                f"{path}: is a table, not a model as fit writes it; MODEL comes before TABLE"
            ) from None
        raise


def load_detector(args: argparse.Namespace) -> Any:
    """The detector in the file of a command; UserError if it holds a density."""
    model = load_model(args.model)
    if not detects(model):
        raise UserError(
            f"{args.model}: {args.command} needs a detector, as fit --detector makes; it is a density"
        )
    return model


@contextmanager
def about(path: str) -> Iterator[None]:
    """Within the block, an error about a column or a row is reported with the table's path."""
    try:
        yield
    except (ValueError, TypeError) as error:
        is_of_table = str(error).startswith(("column ", "row ", "n_samples=", "at least two rows"))
        raise UserError(f"{path}: {error}" if is_of_table else str(error)) from error


@contextmanager
def reader_of(model: Estimator, args: argparse.Namespace) -> Iterator[Reader]:
    """A reader with a bar; after the block, warnings of columns of which no value was seen in training."""
    with stream_progress(args.command) as bar:
        reader = Reader(model, args, bar)
        yield reader
    reader.tell()


class Reader:
    """Rows of tables, as a model takes them, which a bar counts."""

    def __init__(self, model: Estimator, args: argparse.Namespace, bar: tqdm) -> None:
        self.model, self.dialect, self.bar = density_of(model), Dialect.asked(args), bar
        self._schema = self.model.encoder_.schema
        self._read = self.model.encoder_.read_columns
        self.names = [str(column.name) for column in self._read]
        self._n_levels = np.array(
            [c.codec.n_levels if c.open and c.categories else -np.inf for c in self._schema]
        )
        self._any_known = np.isinf(self._n_levels)
        self._n_present, self._dtypes = np.zeros(len(self._schema), np.int64), None
        self._words: dict[Any, Counter[str]] = {}  # of unreadable cells

    def check_all(self, path: str) -> None:
        """Raise a UserError if a table, or one in a folder, cannot be opened or lacks a column of the model."""
        for table in tables_of(path).values():
            with reading(table, self.dialect) as source:
                self.check(source)

    def read_all(
        self, path: str, *, all_used: bool = False, keep: Sequence[str] = ()
    ) -> Iterator[tuple[str, pd.DataFrame, Rows]]:
        """A table, or all in a folder, in chunks: its path, the chunk as it is, and encoded; an error if it is empty.

        In a folder, the labels of rows begin with their file.
        """
        in_folder = os.path.isdir(path)
        for name, table in tables_of(path).items():
            with reading(table, self.dialect) as source:
                self.check(source)
                kept = kept_names(table, source.names, keep)
                for chunk, rows in self.read(source, keep=kept, all_used=all_used):
                    if not len(chunk):
                        raise EmptyTableError(f"{table}: the table is empty")
                    if in_folder:
                        rows = rows.labelled([f"{name} {n}" for n in rows.index])
                    yield table, chunk, rows

    def check(self, source: Source) -> None:
        """Raise a UserError if a table lacks a column of the model."""
        absent = [name for name in self.names if name not in source.names]
        if absent:
            many = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            raise UserError(
                f"{source.path}: column {absent[0]!r}{many}: used by the model, but missing from the table"
            )

    def read(
        self,
        source: Source,
        *,
        keep: Sequence[str] = (),
        all_used: bool = False,
        n_rows: int | None = None,
    ) -> Iterator[tuple[pd.DataFrame, Rows]]:
        """A table in chunks, as they are and encoded; the index of the rows are their numbers, from 1.

        Besides the columns of the model, those of ``keep`` are read, or all; else a warning says which are ignored. A
        UserError names the file, and if a cell is wrong its row, column and value.
        """
        names = None if all_used else [*self.names, *keep]
        for i, chunk in enumerate(source.chunks(names, n_rows)):
            with about(source.path):
                rows = self._encoded(chunk, source.kind != ".parquet")
            self._check_notations(source.path, rows)
            if i == 0 and not all_used:
                known = {*keep, *(str(name) for name in self.model.encoder_.all_names)}
                if extra := [name for name in source.names if name not in known]:
                    warn(f"{source.path}: {ignored(extra, source.names)}")
            for _, name, text, _ in rows.unreadable_cells():
                self._words.setdefault(name, Counter())[text] += 1
            x = rows.cells[:, : len(self._schema)]
            self._dtypes = rows.given.dtypes.tolist() if self._dtypes is None else self._dtypes
            self._n_present += (~np.isnan(x)).sum(0)
            self._any_known |= (x < self._n_levels).any(0)
            yield chunk, rows
            self.bar.update(len(rows))

    def _check_notations(self, path: str, rows: Rows) -> None:
        """Raise a UserError if no cell of a column can be read, and the first is a number in another notation."""
        if rows.unreadable is None:
            return
        for j, column in enumerate(self._schema):
            bad = np.flatnonzero(pd.notna(rows.unreadable[:, j]))
            if len(bad) >= SUSPICIOUS_ROWS and np.isnan(rows.cells[:, j]).all():
                text = rows.unreadable[bad[0], j]
                if column.hint(text):
                    raise UserError(f"{path}: row {rows.index[bad[0]]}: {column.refusal(text)}")

    def tell(self) -> None:
        """Warn of unreadable cells, and of columns of which no value was seen in training, in no row that was read."""
        self.model.encoder_.tell_words(self._words)
        for j in np.flatnonzero(~self._any_known & (self._n_present >= SUSPICIOUS_ROWS)):
            warn_of_unseen(self._schema[j], self._dtypes and self._dtypes[j])

    def _encoded(self, chunk: pd.DataFrame, is_text: bool) -> Rows:
        frame: Any = chunk[self.names].set_axis([c.name for c in self._read], axis=1)
        if is_text:
            frame = pd.DataFrame({c.name: self._values(frame[c.name], c) for c in self._read})
        found = self._rows(frame)
        if isinstance(found, Exception):
            bad = bisect_left(
                range(len(frame)),
                True,
                key=lambda i: isinstance(self._rows(frame[: i + 1]), Exception),
            )
            alone = self._rows(frame[bad : bad + 1])
            row = f"row {frame.index[bad]}: " if isinstance(alone, Exception) else ""
            raise UserError(f"{row}{alone if row else found}") from found
        return found

    def _rows(self, frame: pd.DataFrame) -> Rows | Exception:
        """The rows, or the error of one of them."""
        with warnings.catch_warnings():
            # decided by all rows together, not by a few
            warnings.filterwarnings("ignore", "column .* no value was seen in training")
            try:
                with collected():
                    return self.model.rows(frame)
            except (ValueError, TypeError) as error:
                return error

    def _values(self, cells: pd.Series, column: Column) -> pd.Series:
        """Text as the category that it is written as, or as the number that it is with the decimal mark of the CSV."""
        known, notation = written_categories(column), self.notation(column)
        if notation is not None:  # plain whole numbers stay exact
            texts = [text for text in cells.dropna().unique() if not WHOLE.fullmatch(text)]
            numbers = dict(zip(texts, notation.read(texts).tolist(), strict=True))
            known |= {text: number for text, number in numbers.items() if not np.isnan(number)}
        if not known:
            return cells
        values = [known.get(text, text) for text in cells.tolist()]
        return pd.Series(values, index=cells.index, dtype=object)

    def notation(self, column: Column) -> Notation | None:
        """The notation of a column's numbers in the CSV, if it was given and the model does not know it."""
        own, mark = column.notation, self.dialect.decimal
        are_numbers = {*map(type, column.categories)} <= {int, float} and column.family == "number"
        if mark is None or not are_numbers or (own is not None and own.decimal == mark):
            return None
        return replace(own or Notation(), decimal=mark, grouping="")


def written_categories(column: Column) -> dict[str, Any]:
    """The categories that are no text, by how a CSV writes them."""
    if column.is_text or not column.categories:
        return {}
    known: dict[str, Any] = {str(c): c for c in column.categories}
    return TRUTHS | known if all(isinstance(c, bool) for c in column.categories) else known


def tables_of(path: str) -> dict[str, str]:
    """The path of a table, or of those in a folder and the folders in it, by relative names in order.

    Names that begin with a dot or an underscore are passed over; links to folders are not followed.
    """
    if not os.path.isdir(path):
        return {os.path.basename(path): path}
    files = {}
    for at, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in folders:
            if os.path.islink(os.path.join(at, name)):
                warn(f"{os.path.join(at, name)}: a link to a folder is not followed")
        full = [os.path.join(at, name) for name in names if not name.startswith((".", "_"))]
        files |= {os.path.relpath(file, path): file for file in full}
    tables = {name: files[name] for name in sorted(files) if _is_table(name)}
    if not tables:
        raise UserError(f"{path}: no tables in this folder")
    if others := sorted(files.keys() - tables):
        warn(f"{path}: ignoring {len(others)} files that are no tables, like {others[0]}")
    return tables


def _is_table(path: str) -> bool:
    try:
        ending(path)
    except UserError:
        return False
    return True


def given_row(model: DiffusionDensity, given: dict[str, str]) -> dict[Any, Any]:
    """The values of ``--given`` by the model's columns."""
    check_given(given, model)
    row = {}
    for column in model.encoder_.schema:
        text = given.get(str(column.name))
        if text is None:
            continue
        value = written_categories(column).get(text, text)
        cell = pd.Series([value], dtype=object)
        if np.isnan(column.encode(cell)[0]).any():
            raise UserError(f"column {column.name!r}: {quoted(text)} in --given is a missing value")
        row[column.name] = value
    return row


def check_given(given: Sequence[str] | dict[str, str], model: DiffusionDensity) -> None:
    """Raise a ValueError if the model has no column of a name in ``--given``."""
    names = {str(name): name for name in model.encoder_.all_names}
    for name in given:
        model.encoder_.place_of(names.get(name, name), "--given")


def kept_names(
    path: str, names: Sequence[str], asked: Sequence[str], answers: Sequence[str] = ()
) -> list[str]:
    """The columns that ``--keep`` asks for: each argument is the name of one, or names with commas between them.

    A UserError if the table has none of that name, it is named twice, or it is also one of the ``answers``.
    """
    kept = [name for word in asked for name in ([word] if word in names else word.split(","))]
    for name in kept:
        problem = "missing from the table" if name not in names else ""
        problem = "twice" if kept.count(name) > 1 else problem
        problem = "but also the name of an answer" if name in answers else problem
        if problem:
            raise UserError(f"{path}: column {name!r}: named in --keep, {problem}")
    return kept
