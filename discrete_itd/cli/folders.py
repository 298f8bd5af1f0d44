"""Commands that turn the rows of tables into rows of other tables: one file, a pipe, or folders of files.

In a folder each file, or row group of a Parquet file, gives one file of the output, which appears whole or not at all.
The folder has a ledger with a line for each part that is complete: what it was made of, and by which model and options.
The same command after a kill makes the other parts only.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pandas as pd

from discrete_itd import __version__
from discrete_itd.cli.inputs import Reader, tables_in
from discrete_itd.cli.messages import STANDARD, UserError, note, say
from discrete_itd.cli.tables import (
    EmptyTableError,
    Source,
    check_out,
    ending,
    reading,
    row_groups,
    same_file,
    write_table,
)
from discrete_itd.progress import stream_progress

LEDGER = "_discrete_itd.jsonl"
Tally = Counter[str]  # sums over rows by name: "rows" is their number
SIGNED = ("nats",)  # sums that may be negative


class Job(Protocol):
    """The conversion of a table by a command."""

    reader: Reader
    copies: bool  # whether its output is the table itself, with some cells changed

    def outputs(
        self, source: Source, tally: Tally, part: str | None
    ) -> tuple[Any, Iterable[pd.DataFrame]]:
        """The Arrow schema of the output, or None for that of the first frame; and its frames.

        ``tally`` counts what has been made. ``part`` names the part of a folder.
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


def run(args: argparse.Namespace, make: Callable[[Callable[[int], object]], Job]) -> Tally:
    """Do the job that ``make`` gives for a function to call with numbers of rows done; what was counted."""
    with stream_progress(args.command) as bar:
        job = make(bar.update)
        if in_folder(args):
            tally = _parts_made(args, job)
        else:
            tally = Tally()
            with reading(args.table, job.reader.dialect) as source:
                bar.total = source.n_rows
                _write(job, source, args.out, tally, None)
    job.reader.tell()
    return tally


def _write(job: Job, source: Source, out: str, tally: Tally, part: str | None) -> None:
    dialect = None
    if job.copies and source.schema is None:
        of_csv = out == STANDARD or ending(out) == ".csv"
        dialect = source.dialect if of_csv else replace(source.dialect, sep=None)
    schema, frames = job.outputs(source, tally, part)
    write_table(out, frames, dialect, schema)


def _parts_made(args: argparse.Namespace, job: Job) -> Tally:
    """Make the parts of a folder that are not complete; the sums over all."""
    parts, total, n_known, any_made = parts_of(args.table, args.out), Tally(rows=0), 0, False
    for part in parts:
        if same_file(part.out, args.model) or same_file(part.out, args.table):
            raise UserError(f"{part.out}: would be written over what is read")
    dialect = job.reader.dialect
    options = {"command": args.command, "dialect": vars(dialect), **job.options()}
    with closing(Ledger(args.out, key_of(args.model, options))) as ledger:
        ledger.clear(parts)
        for part in parts:
            tally = ledger.find(part)
            n_known += tally is not None
            tally = _made(job, part, ledger) if tally is None else tally
            any_made |= tally is not None
            total.update(tally or {})
    if not any_made:
        raise EmptyTableError(f"{args.table}: the tables are empty")
    known = f", {n_known} of them complete before" if n_known else ""
    say(args.out, f"{args.out}: {len(parts)} files{known}")
    return total


def _made(job: Job, part: Part, ledger: Ledger) -> Tally | None:
    """The sums over a part; None if it is left out, as it has not even a header."""
    begun, tally = ledger.begin(part), Tally(rows=0)
    try:
        with reading(part.source, job.reader.dialect, part.row_group) as source:
            _write(job, source, part.out, tally, part.name)
    except EmptyTableError as error:
        note(f"{error}: left out")
        ledger.leave_out(part)
        return None
    ledger.add(part, begun, tally)
    return tally


# -- parts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The source of one file in the folder of the output."""

    name: str  # of the file, relative to the folder
    file: str  # it is made of, relative to the folder of the input
    source: str  # the paths of both
    out: str
    row_group: int | None = None  # the only one to read

    @property
    def stamps(self) -> list[Any]:
        """Stamps of the files that the part is made of."""
        return [self.file, self.row_group, stamp(self.source)]


def parts_of(path: str, out: str) -> list[Part]:
    """The parts that a table, or each table of a folder, gives; UserError if one folder lies in the other.

    A Parquet file of several row groups becomes a folder of its name, as engines write them: it reads as one table.
    """
    files = [os.path.basename(path)]
    if os.path.isdir(path):
        inner, outer = Path(path).resolve(), Path(out).resolve()
        if inner == outer or inner in outer.parents or outer in inner.parents:
            raise UserError(f"{out}: --out and the folder of tables must lie apart")
        files = tables_in(path)
    else:
        path = os.path.dirname(path)
    parts = []
    for file in files:
        source = os.path.join(path, file)
        n_groups = row_groups(source) if ending(source) == ".parquet" else 1
        if n_groups < 2:
            parts.append(Part(file, file, source, os.path.join(out, file)))
            continue
        for i in range(n_groups):
            name = os.path.join(file, f"{i:05}.parquet")
            parts.append(Part(name, file, source, os.path.join(out, name), i))
    return parts


class Ledger:
    """The parts of a folder that are complete, by the model and options of ``key``.

    A ledger may come from anyone who can write in the folder: of its lines only those count that name a table in the
    folder, and nothing outside of the folder is ever removed or written. The folder is made if it is not there; a
    UserError if it cannot be written in, or its ledger is no regular file.
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
        entries = filter(None, map(_entry, content.splitlines()))
        self._lines = {entry["part"]: entry for entry in entries}
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")

    def close(self) -> None:
        """Let others write in the folder."""
        self._file.close()

    def find(self, part: Part) -> Tally | None:
        """The counts of a complete part; None if it must be made."""
        entry = self._lines.get(part.name, {})
        expected = (self._key, part.stamps, stamp(part.out))
        return entry["tally"] if expected == tuple(map(entry.get, ("key", "source", "out"))) else None  # fmt: skip

    def clear(self, parts: Sequence[Part]) -> None:
        """Remove what earlier runs have made of these input files if none of the parts is it."""
        names, files = {part.name for part in parts}, {part.file for part in parts}
        for name, entry in self._lines.items():
            path = Path(self._folder, name)
            stale = entry["file"] in files and name not in names
            if stale and path.is_file() and self._is_inside(path):
                path.unlink()
                if path.parent != Path(self._folder):
                    with suppress(OSError):  # it holds other parts
                        path.parent.rmdir()

    def begin(self, part: Part) -> dict[str, Any]:
        """Make room for a part; the result is for :meth:`add`. A UserError if a link leads out of the folder."""
        path = Path(part.out)
        if not self._is_inside(path):
            raise UserError(f"{path}: a link leads out of the folder {self._folder}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        return {"part": part.name, "file": part.file, "source": part.stamps, "key": self._key}

    def add(self, part: Part, begun: dict[str, Any], tally: Tally) -> None:
        """Note that a part is complete."""
        entry = {**begun, "out": stamp(part.out), "tally": tally}
        self._lines[part.name] = entry
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def leave_out(self, part: Part) -> None:
        """Remove what an earlier run has made of a part that now gives none."""
        path = Path(part.out)
        if self._lines.pop(part.name, None) is not None and self._is_inside(path):
            path.unlink(missing_ok=True)

    def _is_inside(self, path: Path) -> bool:
        """Whether a file is, or would be, in the folder, all links on the way to it followed."""
        inner, outer = os.path.realpath(path.parent), os.path.realpath(self._folder)
        return os.path.commonpath([inner, outer]) == outer

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


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of a ledger; None if a kill or somebody else has left it."""
    try:
        entry = json.loads(line)
        name, tally = entry["part"], entry["tally"]
        sums = [
            type(v) in (int, float) and math.isfinite(v) and (v >= 0 or what in SIGNED)
            for what, v in tally.items()
        ]
        is_sound = isinstance(entry["file"], str) and type(tally["rows"]) is int and all(sums)
        return {**entry, "tally": Tally(tally)} if is_sound and _is_table_inside(name) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _is_table_inside(name: Any) -> bool:
    """Whether a name, relative to a folder, is that of a table in it, with no way out of it."""
    if not isinstance(name, str) or "\0" in name or os.path.isabs(name):
        return False
    ending(name)
    parts = name.replace(os.sep, "/").split("/")
    return not {"", ".", ".."} & {*parts} and not os.path.splitdrive(name)[0]


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
