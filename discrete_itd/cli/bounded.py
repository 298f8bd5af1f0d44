"""A bound on the length of a row: a packed file of a few megabytes can be one cell of many gigabytes."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from discrete_itd.cli.dialect import Dialect, unpacked
from discrete_itd.cli.names import UserError

LONGEST_ROW = 1 << 24  # bytes of a row of a CSV, its cells with their line breaks
MOST_COLUMNS = 1 << 17  # of a CSV
BLOCK = 1 << 18  # bytes read at once
NEVER = re.compile(rb"(?!)")


@contextmanager
def opened(
    path: str, dialect: Dialect, stream: BinaryIO | None = None
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A CSV, unpacked and bounded, and the arguments with which ``pandas.read_csv`` reads it.

    Parameters
    ----------
    path : str
        Of the file; or the name of a ``stream``.
    dialect : Dialect
        Complete.
    stream : binary file, optional
        To read in place of the file.
    """
    how = dialect.as_options()
    with ExitStack() as stack:
        source: Any = unpacked(path, stack) if stream is None else stream
        read = getattr(source, "read1", source.read)
        if codecs.lookup(how["encoding"]).name.startswith(
            ("utf-16", "utf-32")
        ):  # several bytes each
            text = io.TextIOWrapper(source, how["encoding"], newline="")
            how["encoding"] = "utf-8"

            def read(n: int) -> bytes:
                return text.read(max(1, n // 4)).encode()

        raw = _Bounded(path, read, how["sep"].encode())
        yield io.BufferedReader(raw, BLOCK), how


class _Bounded(io.RawIOBase):
    """The bytes of a CSV as they come, and a UserError that names file and line where a row is too long."""

    def __init__(self, path: str, read: Callable[[int], bytes], sep: bytes) -> None:
        self._path, self._read, self._sep = path, read, sep
        # a cell in quotes; one that does not end runs to the end of what is there
        mark = re.escape(sep) if len(sep) == 1 else b""
        self._cell = re.compile(b'"(?<=[\\n\\r' + mark + b']")(?:[^"]++|"")*+"?') if mark else NEVER
        self._before = b"\n"  # what the next bytes come after, as far as it matters
        self._lines = 0  # before the row that is open
        self._length = self._open_lines = 0  # bytes and lines of that row
        self._n_seps = 0 if len(sep) == 1 else -1  # of the header; -1 when it has been read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(min(len(buffer), BLOCK))
        self._check(data)
        buffer[: len(data)] = data
        return len(data)

    def _check(self, data: bytes) -> None:
        """Look where rows end: at a line break outside of quotes."""
        if self._n_seps >= 0:  # in the header still
            head, ended, _ = data.partition(b"\n")
            self._n_seps += head.count(self._sep)
            if self._n_seps >= MOST_COLUMNS:
                raise UserError(f"{self._path}: line 1: more than {MOST_COLUMNS} columns")
            self._n_seps = -1 if ended else self._n_seps
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        n_lines = n_ended = data.count(b"\n")
        if b'"' in data or b'"' in self._before:
            text = self._before + data
            # quotes at the end may be doubled by what comes next
            text, quotes = text.rstrip(b'"'), text[len(text.rstrip(b'"')) :]
            outside = self._cell.sub(
                b"", text + b"\0"
            )  # a cell that is open takes the zero with it
            is_open = not outside.endswith(b"\0")
            if len(outside) <= len(text):  # the last row ends somewhere, if one does
                ends = b"\n" in outside[1:] or b"\r" in outside[1:]
                end = len(data) - 1 if ends else -1
                n_ended = outside[1:].count(b"\n") if is_open else n_lines
            self._before = (b'\n"' if is_open else outside[-2:-1]) + quotes
        elif data:
            self._before = data[-1:]
        if end < 0:
            self._length += len(data)
            self._open_lines += n_lines
        else:
            self._lines += self._open_lines + n_ended
            self._length, self._open_lines = len(data) - 1 - end, n_lines - n_ended
        if self._length > LONGEST_ROW:
            where = f"{self._path}: line {self._lines + 1}"
            raise UserError(
                f"{where}: a row of more than {LONGEST_ROW:,} bytes; is a quotation mark missing?"
            )
