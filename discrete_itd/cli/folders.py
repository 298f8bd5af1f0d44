"""Commands that turn the rows of tables into rows of other tables: one file, a pipe, or folders of files.

In a folder each file gives one of the output, which appears whole or not at all. A file beside them says by which model
and options they are made. What is newer than it, than the model and than its own table is complete: the same command
after a kill makes the other files only.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from discrete_itd import __version__
from discrete_itd.cli.inputs import Reader, tables_of
from discrete_itd.cli.messages import STANDARD, UserError, note, say
from discrete_itd.cli.tables import (
    Dialect,
    EmptyTableError,
    Source,
    check_out,
    ending,
    reading,
    same_file,
    save_whole,
    write_table,
)
from discrete_itd.storage.files import locked

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "_discrete_itd"  # name of the file that records the model and options by which the other files were made
Tally = Counter[str]  # sums over rows by name: "rows" is their number
# from a table, the sums to add to and the name of a file in a folder: the frames of the output
Job = Callable[[Source, Tally, str | None], Iterable[pd.DataFrame]]


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
            if name is None:
                reader.bar.total = source.n_rows
            dialect, schema = Dialect(), None
            if filled and source.schema is not None:
                schema = filled(source.schema)
            elif filled:
                of_csv = out == STANDARD or ending(out) == ".csv"
                dialect = source.dialect if of_csv else replace(source.dialect, sep=None)
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
    key_file, n_known, n_empty = os.path.join(args.out, KEY), 0, 0
    _make_place(key_file)
    with locked(key_file):
        made_by = _key(args)
        if not os.path.isfile(key_file) or Path(key_file).read_bytes() != made_by:
            save_whole(key_file, lambda path: path.write_bytes(made_by))
        for name, source in sources.items():
            out = os.path.join(args.out, name)
            if _is_newer(out, source, args.model, key_file):
                n_known += 1
                continue
            _make_place(out)
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


def _make_place(path: str) -> None:
    """Make the folder of a file that is to be written."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _is_newer(path: str, *sources: str) -> bool:
    """Whether a file was written after what it is made of; a file that was moved there counts from then on."""
    try:
        stats = [os.stat(source) for source in sources]
        oldest = max(time for s in stats for time in (s.st_mtime_ns, s.st_ctime_ns))
        return os.path.isfile(path) and os.stat(path).st_mtime_ns > oldest
    except OSError:
        return False
