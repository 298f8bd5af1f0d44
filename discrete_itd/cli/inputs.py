"""Models from files, rows of tables as a model takes them, and commands that make a file, a pipe or a folder of these.

In a folder each file gives one of the output, which appears whole or not at all. A file beside them says by which model
and options they are made. What is newer than it, than the model and than its own table is complete: the same command
after a kill makes the other files only.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from discrete_itd import __version__
from discrete_itd.cli.command import note
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import (
    STANDARD,
    Dialect,
    EmptyTableError,
    Source,
    check_out,
    ending,
    reading,
    same_file,
    say,
    write_table,
)
from discrete_itd.detection.answers import density_of, detects
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Column, Rows
from discrete_itd.encoders.categories import WHOLE
from discrete_itd.encoders.column import SUSPICIOUS_ROWS
from discrete_itd.encoders.rows import ignored
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import stream_progress, tqdm
from discrete_itd.reading.numbers import NumberNotation
from discrete_itd.reading.text import collected
from discrete_itd.storage.files import locked, write_whole
from discrete_itd.storage.values import load_one_of
from discrete_itd.validation import warn

if TYPE_CHECKING:
    import pyarrow as pa

    from discrete_itd.detection.answers import Estimator

MADE_BY = "_discrete_itd"  # name of the file that records the model and options by which the other files were made
Tally = Counter[str]  # sums over rows by name: "rows" is their number
# from a table, the sums to add to and the name of a file in a folder: the frames of the output
Job = Callable[[Source, Tally, str | None], Iterable[pd.DataFrame]]


def load_model(path: str) -> Any:
    """The density or the detector in a file; OSError or ValueError if it holds neither."""
    try:
        return load_one_of(path, (DiffusionDensity, DiffusionOutlierDetector))
    except ValueError:
        if _is_table(path):
            raise UserError(
                f"{path}: is a table, not a model as fit writes it; MODEL comes before TABLE"
            ) from None
        raise


def check_detector(model: Estimator, path: str, what: str) -> None:
    """Raise a UserError if a model is no detector, which a command or an option needs."""
    if not detects(model):
        raise UserError(f"{what} needs a detector, as fit --detector makes; {path} is a density")


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
    """A reader with a bar; after the block, a warning of unreadable cells."""
    with stream_progress(args.command) as bar, collected() as words:
        yield Reader(model, args, bar)
    density_of(model).encoder_.tell_words(words)


class Reader:
    """Rows of tables, as a model takes them, which a bar counts."""

    def __init__(self, model: Estimator, args: argparse.Namespace, bar: tqdm) -> None:
        self.model, self.dialect, self.bar = density_of(model), Dialect.asked(args.csv), bar
        self._columns = self.model.encoder_.schema
        self.names = [str(column.name) for column in self._columns]

    def read_all(
        self, path: str, *, keep: Sequence[str] = ()
    ) -> Iterator[tuple[str, pd.DataFrame, Rows]]:
        """A table, or all in a folder, in chunks: its path, the chunk as it is, and encoded; an error if it is empty.

        In a folder, the labels of rows begin with their file.
        """
        in_folder = os.path.isdir(path)
        for name, table in tables_of(path).items():
            with reading(table, self.dialect) as source:
                kept = kept_names(table, source.names, keep)
                for chunk, rows in self.read(source, keep=kept):
                    if not len(chunk):
                        raise EmptyTableError(f"{table}: the table is empty")
                    if in_folder:
                        rows = rows.labelled([f"{name} {n}" for n in rows.index])
                    yield table, chunk, rows

    def whole(self, path: str) -> Rows:
        """The rows of a table, or of all in a folder."""
        return Rows.concat([rows for _, _, rows in self.read_all(path)])

    def read(
        self,
        source: Source,
        *,
        keep: Sequence[str] = (),
        all_used: bool = False,
        n_rows: int | None = None,
    ) -> Iterator[tuple[pd.DataFrame, Rows]]:
        """A table in chunks, as they are and encoded; the index of the rows are their numbers, from 0.

        Besides the columns of the model, the columns ``keep`` are read, or all; else a warning says which are ignored.
        A UserError names the file, and the column and value of a cell that the model cannot take.
        """
        if absent := [name for name in self.names if name not in source.names]:
            many = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            raise UserError(
                f"{source.path}: column {absent[0]!r}{many}: used by the model, but missing from the table"
            )
        known = {*keep, *map(str, self.model.encoder_.all_names)}
        extra = [] if all_used else [name for name in source.names if name not in known]
        names = None if all_used else [*self.names, *keep]
        for chunk in source.chunks(names, n_rows):
            with about(source.path):
                rows = self._encoded(chunk, source.kind != ".parquet")
                _check_notations(rows)
            if extra:
                warn(f"{source.path}: {ignored(extra, source.names)}")
                extra = []
            yield chunk, rows
            self.bar.update(len(rows))

    def _encoded(self, chunk: pd.DataFrame, is_text: bool) -> Rows:
        frame: Any = chunk[self.names].set_axis([c.name for c in self._columns], axis=1)
        if is_text:
            frame = pd.DataFrame({c.name: self._values(frame[c.name], c) for c in self._columns})
        return self.model.rows(frame)

    def _values(self, cells: pd.Series, column: Column) -> pd.Series:
        """Text with the numbers that have the decimal mark of the CSV, and not of the model, as such."""
        if (notation := self.notation(column)) is None:
            return cells
        # plain whole numbers stay exact
        texts = [text for text in cells.dropna().unique() if not WHOLE.fullmatch(text)]
        known = dict(zip(texts, notation.read(texts).tolist(), strict=True))
        values = [text if np.isnan(known.get(text, np.nan)) else known[text] for text in cells]
        return pd.Series(values, index=cells.index, dtype=object)

    def notation(self, column: Column) -> NumberNotation | None:
        """The notation of a column's numbers in the CSV, if it was given and the model does not know it."""
        own, mark = column.notation, self.dialect.decimal
        are_numbers = {*map(type, column.categories)} <= {int, float} and column.family == "number"
        own = own if isinstance(own, NumberNotation) else None
        if mark is None or not are_numbers or (own is not None and own.decimal == mark):
            return None
        return replace(own or NumberNotation(), decimal=mark, grouping="")


def _check_notations(rows: Rows) -> None:
    """Raise a ValueError if no cell of a column can be read, and the first is a number in another notation."""
    for j, column in enumerate(rows.encoder.schema):
        bad = np.flatnonzero(pd.notna(rows.unreadable[:, j]))
        if len(bad) >= SUSPICIOUS_ROWS and np.isnan(rows.cells[:, j]).all():
            text = rows.unreadable[bad[0], j]
            if column.hint(text):
                raise ValueError(f"row {rows.index[bad[0]]}: {column.refusal(text)}")


def tables_of(path: str) -> dict[str, str]:
    """The path of a table, or of those in a folder and the folders in it, by relative names in order.

    Names that begin with a dot or an underscore are passed over; links to folders are not followed.
    """
    if not os.path.isdir(path):
        return {os.path.basename(path): path}
    files = {}
    for at, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
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


def groups_of(frame: pd.DataFrame, path: str, name: str | None) -> pd.Series | None:
    """The column that ``--groups`` names; a UserError if the table has none, or a cell of it is missing."""
    if name is None:
        return None
    places = [i for i, own in enumerate(frame.columns) if str(own) == name]
    if not places:
        raise UserError(f"{path}: column {name!r}: named in --groups, but not there")
    groups = cast(pd.Series, frame.iloc[:, places[0]])
    if groups.isna().any():
        row = int(groups.isna().to_numpy().argmax())
        raise UserError(f"{path}: column {name!r}: named in --groups, but missing in row {row}")
    return groups


def kept_names(
    path: str,
    names: Sequence[str],
    asked: Sequence[str],
    answers: Sequence[str] = (),
    option: str = "--keep",
) -> list[str]:
    """The columns that an option asks for: each argument is the name of one, or names with commas between them.

    A UserError if the table has none of that name, it is named twice, or it is also one of the ``answers``.
    """
    kept = [name for word in asked for name in ([word] if word in names else word.split(","))]
    for name in kept:
        problem = "missing from the table" if name not in names else ""
        problem = "twice" if kept.count(name) > 1 else problem
        problem = "but also the name of an answer" if name in answers else problem
        if problem:
            raise UserError(f"{path}: column {name!r}: named in {option}, {problem}")
    return kept


# -- commands that turn the rows of tables into rows of other tables ----------------------------------


def check_files(args: argparse.Namespace) -> None:
    """Raise a UserError before the work, if files cannot be read or written as a command names them."""
    if not in_folder(args):
        check_out(args.out, model=args.model, table=args.table)
    elif args.table == STANDARD:
        raise UserError(f"{args.out}: --out is a folder, but the table is {STANDARD}")
    elif os.path.isfile(args.out) or args.out == STANDARD:
        raise UserError(f"{args.out}: --out must be a folder, as the table is one")


def in_folder(args: argparse.Namespace) -> bool:
    """Whether the output is a folder, by its name, because it is there, or because the table is one."""
    is_one = args.out.endswith(("/", os.sep)) or os.path.isdir(args.out)
    return os.path.isdir(args.table) or (is_one and args.out != STANDARD)


def run(
    args: argparse.Namespace,
    reader: Reader,
    job: Job,
    *,
    filled: Callable[[pa.Schema], pa.Schema] | None = None,
) -> Tally:
    """Do a job, and return what was counted: nothing, if all was complete before.

    With ``filled`` the output is the table itself, with some cells changed: a CSV in the same dialect, Parquet in the
    types that this makes of the table's.
    """
    tally = Tally()

    def write(table: str, out: str, name: str | None) -> None:
        with reading(table, reader.dialect) as source:
            if name is None and source.parquet is not None:
                reader.bar.total = source.parquet.metadata.num_rows
            dialect, schema = Dialect(), None
            if filled and source.schema is not None:
                schema = filled(source.schema)
            elif filled:
                of_csv = out == STANDARD or ending(out) == ".csv"
                dialect = source.dialect if of_csv else replace(source.dialect, sep=None, head="")
            write_table(out, job(source, tally, name), dialect, schema)

    if in_folder(args):
        try:
            _make_folder(args, write)
        except BlockingIOError:
            raise UserError(f"{args.out}: another run writes in this folder") from None
    else:
        write(args.table, args.out, None)
    return tally


def _make_folder(args: argparse.Namespace, write: Callable[[str, str, str], None]) -> None:
    """Make the files of a folder that are not complete."""
    sources = tables_of(args.table)
    inner, outer = Path(args.table).resolve(), Path(args.out).resolve()
    if inner.is_dir() and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        raise UserError(f"{args.out}: --out and the folder of tables must lie apart")
    for name in sources:
        ending(name)
        out = os.path.join(args.out, name)
        if same_file(out, args.model) or same_file(out, args.table):
            raise UserError(f"{out}: would be written over what is read")
    key_file, n_known, n_empty = os.path.join(args.out, MADE_BY), 0, 0
    os.makedirs(args.out, exist_ok=True)
    with locked(key_file):
        made_by = _key(args)
        if not os.path.isfile(key_file) or Path(key_file).read_bytes() != made_by:
            write_whole(key_file, lambda path: path.write_bytes(made_by))
        for name, source in sources.items():
            out = os.path.join(args.out, name)
            if _is_newer(out, source, args.model, key_file):
                n_known += 1
                continue
            os.makedirs(os.path.dirname(out), exist_ok=True)
            try:
                write(source, out, name)
            except EmptyTableError as error:  # it has not even a header
                note(f"{error}: left out")
                Path(out).unlink(missing_ok=True)
                n_empty += 1
    if n_empty == len(sources):
        raise EmptyTableError(f"{args.table}: the tables are empty")
    known = f", {n_known} of them complete before" if n_known else ""
    say(args.out, f"{args.out}: {len(sources)} files{known}")


def _key(args: argparse.Namespace) -> bytes:
    """What the files of a folder depend on besides their tables: where these and the model are, options and release."""
    found = {n: v for n, v in vars(args).items() if n != "out"} | {"version": __version__}
    found |= {name: os.path.realpath(found[name]) for name in ("model", "table")}
    return json.dumps(found, sort_keys=True).encode()


def _is_newer(path: str, *sources: str) -> bool:
    """Whether a file was written after what it is made of; a file that was moved there counts from then on."""
    stats = map(os.stat, sources)
    newest = max(time for s in stats for time in (s.st_mtime_ns, s.st_ctime_ns))
    return os.path.isfile(path) and os.stat(path).st_mtime_ns > newest
