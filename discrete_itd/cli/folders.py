"""Commands that turn the rows of tables into rows of other tables: one file, a pipe, or folders of files.

In a folder each file gives one of the output, which appears whole or not at all. A file beside them says by which model
and options they are made. What is newer than it and than its own table is complete: the same command after a kill makes
the other files only.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

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
from discrete_itd.storage.files import content_digest, locked

KEY = "_discrete_itd"  # the name of the file that says by what the others are made
MAKE_NO_DIFFERENCE = ("model", "table", "out")  # among options: what they name is in the key
Tally = Counter[str]  # sums over rows by name: "rows" is their number


class Job(Protocol):
    """The conversion of a table by a command."""

    reader: Reader
    copies: bool  # whether its output is the table itself, with some cells changed

    def outputs(
        self, source: Source, tally: Tally, name: str | None
    ) -> tuple[Any, Iterable[pd.DataFrame]]:
        """The Arrow schema of the output, or None for that of the first frame; and its frames.

        ``tally`` counts what has been made. ``name`` is that of a file in a folder.
        """
        ...


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


def run(args: argparse.Namespace, job: Job) -> Tally:
    """Do a job, and return what was counted."""
    if in_folder(args):
        return _folder_made(args, job)
    tally = Tally()
    with reading(args.table, job.reader.dialect) as source:
        job.reader.bar.total = source.n_rows
        _write(job, source, args.out, tally, None)
    return tally


def _write(job: Job, source: Source, out: str, tally: Tally, name: str | None) -> None:
    dialect = Dialect(for_spreadsheet=job.reader.dialect.for_spreadsheet)
    if job.copies and source.schema is None:
        of_csv = out == STANDARD or ending(out) == ".csv"
        dialect = source.dialect if of_csv else replace(source.dialect, sep=None)
    schema, frames = job.outputs(source, tally, name)
    write_table(out, frames, dialect, schema)


def _folder_made(args: argparse.Namespace, job: Job) -> Tally:
    """Make the files of a folder that are not complete; the sums over all."""
    sources = tables_of(args.table)
    if os.path.isdir(args.table):
        inner, outer = Path(args.table).resolve(), Path(args.out).resolve()
        if inner == outer or inner in outer.parents or outer in inner.parents:
            raise UserError(f"{args.out}: --out and the folder of tables must lie apart")
    for name in sources:
        ending(name)
        out = os.path.join(args.out, name)
        if same_file(out, args.model) or same_file(out, args.table):
            raise UserError(f"{out}: would be written over what is read")
    with _opened(args.out) as key_file:
        made_by = _key(args)
        if _read(key_file, len(made_by) + 1) != made_by:
            save_whole(key_file, lambda path: path.write_text(made_by))
        total, n_known, n_empty = Tally(rows=0), 0, 0
        for name, source in sources.items():
            out = _place(args.out, name)
            if _is_newer(out, source, key_file):
                n_known += 1
                continue
            try:
                with reading(source, job.reader.dialect) as opened:
                    _write(job, opened, out, total, name)
            except EmptyTableError as error:  # it has not even a header
                note(f"{error}: left out")
                Path(out).unlink(missing_ok=True)
                n_empty += 1
    if n_empty == len(sources):
        raise EmptyTableError(f"{args.table}: the tables are empty")
    known = f", {n_known} of them complete before" if n_known else ""
    say(args.out, f"{args.out}: {len(sources)} files{known}")
    return total


def _key(args: argparse.Namespace) -> str:
    """What the files of a folder depend on besides their tables: the model, the options and this release."""
    at = args.table if os.path.isdir(args.table) else os.path.dirname(args.table)
    options = {n: v for n, v in vars(args).items() if n not in MAKE_NO_DIFFERENCE}
    found = {
        "version": __version__,
        "model": content_digest(args.model),
        "in": os.path.realpath(at),
    }
    return json.dumps({**found, "options": options}, sort_keys=True) + "\n"


@contextmanager
def _opened(folder: str) -> Iterator[str]:
    """The path of the file with the key, in a folder in which nobody else writes within the block."""
    path = _place(folder, KEY)
    try:
        with locked(path):
            yield path
    except BlockingIOError:
        raise UserError(f"{folder}: another run writes in this folder") from None


def _place(folder: str, name: str) -> str:
    """The path of a file that is to be made, in a folder that is there; UserError if a link leads out of it."""
    path = os.path.join(folder, name)
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([inner, outer]) != outer:
        raise UserError(f"{path}: a link leads out of the folder {folder}")
    try:
        os.makedirs(os.path.dirname(inner), exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def _read(path: str, n: int) -> str:
    """At most so many characters of a regular file; none if there is no such file."""
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(n)


def _is_newer(path: str, source: str, key_file: str) -> bool:
    """Whether a file was written after what it is made of; a file that was moved there counts from then on."""
    try:
        before = os.stat(source)
        oldest = max(before.st_mtime_ns, before.st_ctime_ns, os.stat(key_file).st_mtime_ns)
        return os.path.isfile(path) and os.stat(path).st_mtime_ns > oldest
    except OSError:
        return False
