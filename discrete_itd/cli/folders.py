"""Commands that turn the rows of tables into rows of other tables: one file, a pipe, or folders of files.

In a folder each file gives one of the output, which appears whole or not at all. The folder has a ledger with a line
for each file that is complete: what it was made of, and by which model and options. The same command after a kill makes
the other files only.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

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
    write_table,
)

LEDGER = "_discrete_itd.jsonl"
Tally = Counter[str]  # sums over rows by name: "rows" is their number
SIGNED = ("nats",)  # sums that may be negative


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

    def options(self) -> Mapping[str, Any]:
        """Options that change the output, as plain data."""
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
    options = {"command": args.command, "dialect": vars(job.reader.dialect), **job.options()}
    total, n_known, any_made = Tally(rows=0), 0, False
    with closing(Ledger(args.out, key_of(args.model, options))) as ledger:
        for name, source in sources.items():
            tally = ledger.find(name, source)
            n_known += tally is not None
            tally = _made(job, name, source, ledger) if tally is None else tally
            any_made |= tally is not None
            total.update(tally or {})
    if not any_made:
        raise EmptyTableError(f"{args.table}: the tables are empty")
    known = f", {n_known} of them complete before" if n_known else ""
    say(args.out, f"{args.out}: {len(sources)} files{known}")
    return total


def _made(job: Job, name: str, source: str, ledger: Ledger) -> Tally | None:
    """The sums over a file; None if it is left out, as it has not even a header."""
    out, before, tally = ledger.place(name), stamp(source), Tally(rows=0)
    try:
        with reading(source, job.reader.dialect) as opened:
            _write(job, opened, out, tally, name)
    except EmptyTableError as error:
        note(f"{error}: left out")
        ledger.leave_out(name)
        return None
    ledger.add(name, before, tally)
    return tally


class Ledger:
    """The files of a folder that are complete, by the model and options of ``key``.

    A ledger may come from anyone who can write in the folder: it names no file that is written or removed. The folder
    is made if it is not there; a UserError if it cannot be written in, or its ledger is no regular file.
    """

    def __init__(self, folder: str, key: str) -> None:
        self._folder, self._key = folder, key
        path = os.path.join(folder, LEDGER)
        try:
            os.makedirs(folder, exist_ok=True)
            self._file = _open_regular(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        self._lock()
        content = self._file.read()
        self._entries = dict(filter(None, map(_entry, content.splitlines())))
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")

    def close(self) -> None:
        """Let others write in the folder."""
        self._file.close()

    def find(self, name: str, source: str) -> Tally | None:
        """The counts of a complete file; None if it must be made."""
        made, tally = self._entries.get(name, (None, None))
        return tally if made == [self._key, stamp(source), stamp(self._path(name))] else None

    def place(self, name: str) -> str:
        """The path of a file that is to be made, in a folder that is there; UserError if a link leads out of it."""
        path = self._path(name)
        inner, outer = os.path.realpath(os.path.dirname(path)), os.path.realpath(self._folder)
        if os.path.commonpath([inner, outer]) != outer:
            raise UserError(f"{path}: a link leads out of the folder {self._folder}")
        try:
            os.makedirs(inner, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        return path

    def add(self, name: str, source: list[int] | None, tally: Tally) -> None:
        """Note that a file is complete, made of one with this stamp."""
        made = [self._key, source, stamp(self._path(name))]
        self._entries[name] = made, tally
        line = json.dumps({"name": name, "made": made, "tally": tally})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def leave_out(self, name: str) -> None:
        """Remove what an earlier run has made of a table that now gives nothing."""
        if self._entries.pop(name, None) is not None:
            Path(self._path(name)).unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{self._folder}: another run writes in this folder") from None
        except OSError:  # nor in this file system
            return


def _open_regular(path: str) -> BinaryIO:
    """A regular file for reading from its beginning and appending; OSError for a link, a pipe or a device."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    flags |= sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    descriptor = os.open(path, flags, 0o666)
    found = os.fstat(descriptor)
    problem = "" if stat.S_ISREG(found.st_mode) else "not a regular file"
    if found.st_nlink > 1:  # a hard link: the other name may lie outside of the folder
        problem = "the file has another name too"
    if problem:
        os.close(descriptor)
        raise OSError(errno.EINVAL, problem, path)
    file = cast(BinaryIO, os.fdopen(descriptor, "a+b"))
    file.seek(0)
    return file


def _entry(line: bytes) -> tuple[str, tuple[Any, Tally]] | None:
    """A line of a ledger; None if a kill or somebody else has left it."""
    try:
        entry = json.loads(line)
        name, made, tally = entry["name"], entry["made"], entry["tally"]
        sums = [
            type(v) in (int, float) and math.isfinite(v) and (v >= 0 or what in SIGNED)
            for what, v in tally.items()
        ]
        is_sound = isinstance(name, str) and type(tally["rows"]) is int and all(sums)
        return (name, (made, Tally(tally))) if is_sound else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def key_of(model: str, options: Mapping[str, Any]) -> str:
    """A digest of a model's file, of the options that make a difference, and of this release."""
    with open(model, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps([__version__, content, dict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stamp(path: str) -> list[int] | None:
    """Size and time of the last change of a file; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
