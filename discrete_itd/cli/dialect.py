"""How a CSV is written: what separates its cells, its encoding, its decimal mark, and its words for a missing cell.

What the user does not say is read off the beginning of the file: a byte order mark tells UTF-8, UTF-16 and UTF-32, and
a header without a comma that another mark divides, and the second line with it, tells the separator.
"""

from __future__ import annotations

import argparse
import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from discrete_itd.cli.names import UserError
from discrete_itd.validation import warn

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SNIFFED = (";", "\t", "|")
HEAD_BYTES = 1 << 16
MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PACKED_MARKS = {
    b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"PK\3\4": ".zip", b"\x28\xb5\x2f\xfd": ".zst",
    b"PAR1": ".parquet",
}  # fmt: skip
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # bytes of no text
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, ImportError, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip
WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
SWAPPED = str.maketrans(",.", ".,")


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written.

    Parameters
    ----------
    sep, encoding : str, optional
        None if it is to be found, see :meth:`found`.
    decimal : {".", ","}, optional
        None if it is that of each column.
    na : tuple of str
        Cells that are missing, besides empty ones.
    newline : str
        What ends a row of a copy.
    """

    sep: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    na: tuple[str, ...] = ()
    newline: str = "\n"

    @classmethod
    def asked(cls, args: argparse.Namespace) -> Dialect:
        """That of the options of a command."""
        return cls(args.sep, args.encoding, args.decimal, tuple(args.na))

    def found(self, path: str, kind: str, head: bytes) -> Dialect:
        """This dialect, completed by what the first bytes of a file tell.

        Raises
        ------
        UserError
            If they are in UTF-16 without a byte order mark, packed, or no text.

        Warns
        -----
        UserWarning
            If the separator is not the usual one of the file's ending.
        """
        encoding = self.encoding or _encoding(path, head)
        text = head.decode(encoding, errors="replace").lstrip("\ufeff")
        sep = self.sep or SEPARATORS[kind]
        if self.sep is None and kind == ".csv":
            sep = _separator(text)
            if sep != ",":
                warn(
                    f"{path}: read with {sep!r} between cells, as the header has no comma; --sep says so, or otherwise"
                )
        return replace(self, sep=sep, encoding=encoding, newline=_newline(text, sep))

    def as_options(self) -> dict[str, Any]:
        """Arguments of ``pandas.read_csv``, of a dialect that is complete."""
        return {
            "sep": self.sep,
            "encoding": self.encoding,
            "keep_default_na": False,
            "na_values": ["", *self.na],
        }

    def number(self, text: str) -> str:
        """A number in Python's notation: points are no decimal marks where commas are."""
        return text.translate(SWAPPED) if self.decimal == "," else text

    def of_copy(self, kind: str) -> Dialect:
        """The dialect of a file, in another format maybe, to which cells of this one are copied."""
        return replace(self, sep=self.sep if kind == ".csv" else SEPARATORS.get(kind))


PLAIN = Dialect()


def has_decimal_comma(text: str) -> bool:
    """Whether a cell is a number with a decimal comma."""
    return WITH_COMMA.fullmatch(text) is not None


def _encoding(path: str, head: bytes) -> str:
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) > 3 and not any(head[first:64:2]):
            raise UserError(f"{path}: looks like UTF-16 and not UTF-8: give --encoding {name}")
    for mark, ending in PACKED_MARKS.items():
        if head.startswith(mark):
            raise UserError(
                f"{path}: is a {ending} file: unpack it, or give a name that ends in {ending}"
            )
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        if CONTROL.search(head):
            raise UserError(f"{path}: is no text, as a CSV is") from None
    return "utf-8"


def _separator(text: str) -> str:
    """The mark that divides the header, if a comma does not, and the second row too."""

    def parts(sep: str, n_rows: int) -> int:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=sep)
        with suppress(csv.Error):
            return min((len(row) for row in islice(rows, n_rows)), default=1)
        return 1

    if parts(",", 1) > 1:
        return ","
    best = max(SNIFFED, key=lambda sep: parts(sep, 2))
    return best if parts(best, 2) > 1 else ","


def _newline(text: str, sep: str) -> str:
    """What ends the header."""
    lines = io.StringIO(text, newline="")
    with suppress(csv.Error, TypeError):  # the separator may be a pattern
        next(csv.reader(lines, delimiter=sep), None)
    return "\r\n" if text[: lines.tell()].endswith("\r\n") else "\n"


# -- the beginning of a file ------------------------------------------------------------------------


def head_of(path: str) -> bytes:
    """The first bytes of what is in a file, unpacked; nothing if it cannot be read, which its reader reports."""
    with suppress(*UNREADABLE), ExitStack() as stack:
        return unpacked(path, stack).read(HEAD_BYTES)
    return b""


def unpacked(path: str, stack: ExitStack) -> Any:
    """What is in a file, as a stream of bytes that the stack closes; ValueError for a .zip of several files."""
    ending = Path(path).suffix.lower()
    if ending == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"{len(names)} files in the .zip, not one")
        return stack.enter_context(archive.open(names[0]))
    if ending == ".zst":
        return stack.enter_context(zstandard().open(path, "rb"))
    return stack.enter_context(OPENERS.get(ending, open)(path, "rb"))


def zstandard() -> Any:
    """The module for .zst that is installed, one of those of pandas' releases; ImportError if none is."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        with suppress(ImportError):
            return import_module(name)
    raise ImportError("no module for .zst")


def with_head(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first two rows of a stream, and a stream of all its bytes, these included."""
    head, n_rows = b"", 0
    while n_rows < 2 and len(head) < HEAD_BYTES and (line := stream.readline(HEAD_BYTES)):
        head += line
        n_rows += head.count(b'"') % 2 == 0  # no cell is open
    return head, cast(BinaryIO, io.BufferedReader(_Again(head, stream)))


class _Again(io.RawIOBase):
    """Bytes that were read, and then the rest of a stream, as it comes."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        some = self._head[: len(buffer)]
        if some:
            self._head = self._head[len(some) :]
        else:
            read = getattr(self._rest, "read1", self._rest.read)
            some = read(len(buffer))
        buffer[: len(some)] = some
        return len(some)
