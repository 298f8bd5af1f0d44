"""Folders of tables: each file, or row group of a Parquet file, gives one file in another folder.

A file of the output appears whole or not at all. The folder has a ledger with a line for each part that is complete:
what it was made of, and by which model and options. The same command after a kill makes the other parts only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from discrete_itd import __version__
from discrete_itd.cli.dialect import PLAIN, Dialect
from discrete_itd.cli.streams import STANDARD, Table, row_groups
from discrete_itd.cli.tables import UserError, ending
from discrete_itd.cli.tally import Tally
from discrete_itd.validation import warn

LEDGER = "_discrete_itd.jsonl"


@dataclass(frozen=True)
class Part:
    """What becomes one file in the folder of the output.

    Parameters
    ----------
    name : str
        Of the file, relative to the folder.
    file : str
        Name of the file it is made of, relative to the folder of the input.
    source, out : Table
    """

    name: str
    file: str
    source: Table
    out: Table


def is_folder(path: str) -> bool:
    """Whether an output is a folder, by its name or because it is there."""
    return path != STANDARD and (path.endswith(("/", os.sep)) or os.path.isdir(path))


def parts_of(path: str, out: str, kind: str | None, dialect: Dialect = PLAIN) -> list[Part]:
    """The parts that a table, or each table of a folder, gives.

    Parameters
    ----------
    path : str
        Folders are read with all folders in them; names that begin with a dot or an underscore are passed over.
    out : str
        The folder of the output. A Parquet file of several row groups becomes a folder of its name.
    kind : str, optional
        Format of all parts, like "parquet"; by default that of each input file.
    dialect : Dialect
        Of the input files.

    Raises
    ------
    UserError
        If a folder has no tables, or one folder lies in the other.
    """
    if os.path.isdir(path):
        inner, outer = Path(path).resolve(), Path(out).resolve()
        if inner == outer or inner in outer.parents or outer in inner.parents:
            raise UserError(f"{out}: --out and the folder of tables must lie apart")
        files = tables_in(path)
    else:
        files = [os.path.basename(path)]
        path = os.path.dirname(path)
    parts: list[Part] = []
    for file in files:
        parts += _parts_of_file(path, file, out, kind, dialect)
    twice = [name for name, n in Counter(part.name for part in parts).items() if n > 1]
    if twice:
        raise UserError(f"{os.path.join(out, twice[0])}: two tables would be written there")
    return parts


def tables_in(folder: str) -> list[str]:
    """Tables in a folder and the folders in it, by relative names in order; see :func:`parts_of`."""
    found, others = [], []
    for at, names in _folders_in(folder):
        for name in names:
            if name.startswith((".", "_")):
                continue
            relative = os.path.relpath(os.path.join(at, name), folder)
            try:
                ending(relative)
                found.append(relative)
            except UserError:
                others.append(relative)
    if not found:
        raise UserError(f"{folder}: no tables in this folder")
    if others:
        text = f"{folder}: ignoring {len(others)} files that are no tables, like {min(others)}"
        warn(text)
    return sorted(found)


def _folders_in(top: str) -> Iterator[tuple[str, list[str]]]:
    """A folder and all in it, each with the names of its files, once, however many links lead to it."""
    seen, waiting = set(), [top]
    while waiting:  # links are followed last: a folder is known by its own name if it lies within
        for at, folders, names in os.walk(waiting.pop(0)):
            found = os.stat(at)
            if (found.st_dev, found.st_ino) in seen:
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
            paths = [os.path.join(at, name) for name in folders]
            waiting += [path for path in paths if os.path.islink(path)]
            yield at, names


def _parts_of_file(
    folder: str, file: str, out: str, kind: str | None, dialect: Dialect
) -> list[Part]:
    path = os.path.join(folder, file)
    source = Table(path, ending(path), dialect=dialect)
    name = file
    if kind is not None and f".{kind}" != source.kind:
        name = f"{file[: file.lower().rindex(source.kind)]}.{kind}"
    n_groups = row_groups(path) if source.kind == ".parquet" else 1
    if n_groups < 2:
        return [Part(name, file, source, Table(os.path.join(out, name), ending(name)))]
    # as engines write them: the folder reads as one table
    parts = []
    for i in range(n_groups):
        inner = os.path.join(name, f"{i:05}{ending(name)}")
        table = Table(os.path.join(out, inner), ending(name))
        parts.append(Part(inner, file, Table(path, source.kind, i), table))
    return parts


# -- what is complete -----------------------------------------------------------------------------


class Ledger:
    """The parts of a folder that are complete.

    A ledger may come from anyone who can write in the folder: of its lines only those count that name a table in the
    folder, and nothing outside of the folder is ever removed or written.

    Parameters
    ----------
    folder : str
        Made if it is not there.
    key : str
        Of the model and the options; parts made by others count for nothing.

    Raises
    ------
    UserError
        If the folder cannot be made or written in, or its ledger is no regular file.
    """

    def __init__(self, folder: str, key: str) -> None:
        self._folder, self._key = folder, key
        self._lines: dict[str, dict[str, Any]] = {}
        path = os.path.join(folder, LEDGER)
        try:
            os.makedirs(folder, exist_ok=True)
            self._file = _open_regular(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        self._lock()
        content = self._file.read()
        for line in content.splitlines():
            entry = _entry(line)
            if entry is not None:
                self._lines[entry["part"]] = entry
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")

    def close(self) -> None:
        """Let others write in the folder."""
        self._file.close()

    def find(self, part: Part) -> Tally | None:
        """What was counted in a part that is complete; None if it must be made."""
        entry = self._lines.get(part.name, {})
        same = entry.get("key") == self._key and entry.get("source") == _stamps(part)
        if not same or entry.get("out") != stamp(part.out.path):
            return None
        return entry["tally"]

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
        """Make room for a part; the result is for :meth:`add`.

        Raises
        ------
        UserError
            If it cannot be written, or a link leads out of the folder.
        """
        path = Path(part.out.path)
        if not self._is_inside(path):
            raise UserError(f"{path}: a link leads out of the folder {self._folder}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        return {"part": part.name, "file": part.file, "source": _stamps(part), "key": self._key}

    def add(self, part: Part, begun: dict[str, Any], tally: Tally) -> None:
        """Note that a part is complete."""
        entry = {**begun, "out": stamp(part.out.path), "tally": tally}
        self._lines[part.name] = entry
        text = json.dumps({**entry, "tally": tally.to_json()})
        self._file.write(text.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def leave_out(self, part: Part) -> None:
        """Remove what an earlier run has made of a part that now gives none."""
        path = Path(part.out.path)
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
    """A line of a ledger, its tally made; None if a kill or somebody else has left it."""
    try:
        entry = json.loads(line)
        name, file = entry["part"], entry["file"]
        if not (_is_table_inside(name) and isinstance(file, str)):
            return None
        return {**entry, "tally": Tally.from_json(entry["tally"])}
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _is_table_inside(name: Any) -> bool:
    """Whether a name, relative to a folder, is that of a table in it, with no way out of it."""
    if not isinstance(name, str) or "\0" in name or os.path.isabs(name):
        return False
    parts = name.replace(os.sep, "/").split("/")
    with suppress(UserError):
        ending(name)
        return not {"", ".", ".."} & {*parts} and not os.path.splitdrive(name)[0]
    return False


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


def _stamps(part: Part) -> list[Any]:
    return [part.file, part.source.row_group, stamp(part.source.path)]
