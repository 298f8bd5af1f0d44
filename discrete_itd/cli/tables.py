"""Tables of any size: chunks of rows from CSV, Parquet or the standard input, and files written whole or not at all.

A cell of a CSV stays the text that it is: the columns of a model read it. Options say how a CSV is written, or the
beginning of the file does (``reading/dialects.py``).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO, cast

import pandas as pd

from discrete_itd.cli.command import put
from discrete_itd.cli.options import ENDINGS, PACKED, UserError
from discrete_itd.reading.dialects import Dialect, found_encoding, found_head
from discrete_itd.reading.frames import of_one_type
from discrete_itd.reading.text import as_text
from discrete_itd.statistics import count
from discrete_itd.storage.files import write_whole
from discrete_itd.validation import warn

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

STANDARD = "-"  # the standard input or output, in place of a file's name
SEPARATORS = {".csv": ",", ".tsv": "\t"}
CHUNK_CELLS, CHUNK_ROWS = 1 << 20, 1 << 16  # most cells and rows of a file in memory at once
HEAD_BYTES = 1 << 16  # bytes at the start of a CSV from which its dialect is detected
DAMAGED = (ValueError, EOFError, ImportError, zlib.error, zipfile.BadZipFile)


class EmptyTableError(UserError):
    """A table without rows."""


@dataclass(frozen=True)
class Source:
    """A table that is open for reading.

    ``take`` goes from a number of rows, and names of columns or None for all, to frames of that many rows, the last one
    maybe shorter, whose index numbers the rows from 0, as pandas does. Cells of a CSV are text, columns of Parquet have
    Arrow's types.
    """

    path: str
    kind: str
    names: list[str]
    take: Callable[[int, Sequence[str] | None], Iterator[pd.DataFrame]]
    dialect: Dialect = field(default_factory=Dialect)
    parquet: ParquetFile | None = None

    @property
    def schema(self) -> pa.Schema | None:
        """The types of a Parquet file."""
        return None if self.parquet is None else self.parquet.schema_arrow

    def chunks(
        self, names: Sequence[str] | None = None, n_rows: int | None = None
    ) -> Iterator[pd.DataFrame]:
        """The rows in frames of at most about a million cells, with the columns ``names``; at least one frame."""
        with damage_named(self.path, self.kind):
            yield from self.take(n_rows or self._most_rows, names)

    def as_stored(self) -> Iterator[Any]:
        """The rows in the types of the file: frames of text, or batches of Arrow, of which there may be none."""
        if self.parquet is None:
            yield from self.chunks()
            return
        with damage_named(self.path, self.kind):
            yield from self.parquet.iter_batches(self._most_rows)

    @property
    def _most_rows(self) -> int:
        return min(CHUNK_ROWS, max(1, CHUNK_CELLS // len(self.names)))


def ending(path: str) -> str:
    """The format of a table according to its name: ".csv", ".tsv" or ".parquet"."""
    endings = [s.lower() for s in Path(path).suffixes]
    kinds = (".csv", ".tsv", ".parquet")
    if endings and endings[-1] in PACKED:
        endings.pop()
        kinds = (".csv", ".tsv")
    if not endings or endings[-1] not in kinds:
        raise UserError(f"{path}: unsupported ending; a table's name ends in {ENDINGS}")
    if endings[-1] == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet needs pyarrow: pip install 'discrete-itd[parquet]'")
    return endings[-1]


# -- reading --------------------------------------------------------------------------------------


@contextmanager
def reading(path: str, dialect: Dialect) -> Iterator[Source]:
    """A table that is open within the block.

    A UserError names the file, if it cannot be read, has no columns, or two of its columns have one name.
    """
    with ExitStack() as stack:
        kind = ".csv" if path == STANDARD else ending(path)
        # a device or a pipe would be waited for
        if path != STANDARD and os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path}: not a regular file; the rows of a pipe are read from -")
        with damage_named(path, kind):
            if kind == ".parquet":
                source = _parquet(path, stack)
            else:
                source = _csv(path, kind, _opened(path, stack), dialect, stack)
        if not source.names:
            raise EmptyTableError(f"{path}: the table is empty")
        named = pd.Index([name for name in source.names if name])
        if not named.is_unique:
            twice = named[named.duplicated()][0]
            raise UserError(f"{path}: column {twice!r}: the name repeats")
        yield source


def _csv(
    path: str, kind: str, raw: io.BufferedReader, dialect: Dialect, stack: ExitStack
) -> Source:
    start = raw.peek()
    encoding = dialect.encoding or found_encoding(path, start)
    if encoding.lower() in ("utf-8", "utf8") and start.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    seen = codecs.getincrementaldecoder(encoding)("replace").decode(start)
    text = io.TextIOWrapper(raw, encoding, newline="")
    stack.callback(text.detach if path == STANDARD else text.close)
    head = _two_rows(text)
    found = found_head(
        max(head, seen[: seen.rfind("\n") + 1], key=len),
        dialect.sep or ("\t" if kind == ".tsv" else None),
    )
    if dialect.sep is None and kind == ".csv" and found.sep != ",":
        warn(f"{path}: read with {found.sep!r} between cells; --csv sep= says otherwise")
    for n, where in ((found.n_above, "above"), (found.n_below, "below")):
        if n:
            warn(f"{path}: {count(n, 'line')} {where} the header left out")
    if found.is_row:
        warn(
            f"{path}: the first row, taken as the header, is like others: a file needs names of columns"
        )
    while len(head) < len(found.head) and (line := text.readline()):
        head += line
    names = _names(path, found.header)
    newline = "\r\n" if found.head.endswith("\r\n") else "\n"
    dialect = replace(dialect, sep=found.sep, encoding=encoding, newline=newline, head=found.head)
    how: Any = {
        "sep": found.sep,
        "header": None,
        "na_values": ["", *dialect.na],
        "keep_default_na": False,
    }
    # a row of numbers in place of the header, so that the lines and cells of a row are counted
    header = found.sep.join(map(str, range(len(names)))) + "\n"
    header = "\n" * (found.n_above + found.n_below) + header
    whole = cast(Any, _Rejoined(header + head[len(found.head) :], text))
    reader: Any = names and pd.read_csv(whole, iterator=True, dtype=object, **how)

    def take(n_rows: int, wanted: Sequence[str] | None) -> Iterator[pd.DataFrame]:
        places = [i for i, name in enumerate(names) if wanted is None or name in wanted]
        columns = [names[i] for i in places]
        first, part = 0, reader.get_chunk(1)[:0]  # the header
        with suppress(StopIteration):
            while True:
                part = reader.get_chunk(n_rows)
                index = pd.RangeIndex(first, first + len(part))
                yield part[places].set_axis(columns, axis=1).set_axis(index)
                first += len(part)
        if first == 0:  # no rows
            yield part[places].set_axis(columns, axis=1).set_axis(pd.RangeIndex(0))

    return Source(path, kind, names, take, dialect)


class _Rejoined(io.TextIOBase):
    """A text whose head has been read."""

    def __init__(self, head: str, text: TextIO) -> None:
        self._head, self._text = head, text

    def read(self, size: int = -1, /) -> str:
        head, self._head = self._head, ""
        return head or self._text.read(size)


def _two_rows(text: TextIO) -> str:
    """The beginning of a CSV, at least two rows of it by their quotation marks."""
    head, n_rows = "", 0
    while n_rows < 2 and len(head) < HEAD_BYTES and (line := text.readline()):
        head += line
        n_rows += head.count('"') % 2 == 0 and bool(line.strip("\r\n"))
    return head


def _names(path: str, header: Sequence[str]) -> list[str]:
    """The names of the columns; a warning says how pandas calls those whose name repeats."""
    names, given = [], {*header}
    for i, name in enumerate(header):
        own, k = name or f"Unnamed: {i}", 0
        while own in names or (k and own in given):
            k += 1
            own = f"{name}.{k}"
        names.append(own)
        if k:
            warn(f"{path}: column {name!r}: the name repeats; column {i + 1} is called {own!r}")
    return names


def _parquet(path: str, stack: ExitStack) -> Source:
    from pyarrow.parquet import ParquetFile

    file = stack.enter_context(ParquetFile(path, buffer_size=1 << 20, pre_buffer=False))
    schema = file.schema_arrow

    def take(n_rows: int, wanted: Sequence[str] | None) -> Iterator[pd.DataFrame]:
        first, names = 0, [name for name in schema.names if wanted is None or name in wanted]
        none = [] if file.metadata.num_rows else [schema.empty_table().select(names)]
        for batch in chain(none, file.iter_batches(n_rows, columns=names)):
            # the types of the file, whatever stands in the part
            frame = batch.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
            yield frame.set_axis(pd.RangeIndex(first, first + len(frame)), axis=0)
            first += len(frame)

    return Source(path, ".parquet", schema.names, take, parquet=file)


def _opened(path: str, stack: ExitStack) -> io.BufferedReader:
    """What is in a file, packed or not, as a stream of bytes that the stack closes; or the standard input."""
    if path == STANDARD:
        if sys.stdin is None or sys.stdin.closed:
            raise UserError(f"{STANDARD}: the standard input is closed")
        return cast(io.BufferedReader, sys.stdin.buffer)
    raw = stack.enter_context(open(path, "rb"))  # noqa: SIM115
    return stack.enter_context(io.BufferedReader(_packed(path, raw, "r", stack), HEAD_BYTES))


def _packed(path: str, file: BinaryIO, mode: Literal["r", "w"], stack: ExitStack) -> Any:
    """A file of the bytes that are packed in another, as the name of the table says; ValueError for .zip of several."""
    match Path(path).suffix.lower():
        case ".gz":  # no time in it: equal tables are equal files
            packed: Any = gzip.GzipFile("", f"{mode}b", fileobj=file, mtime=0)
        case ".zip":
            archive = stack.enter_context(zipfile.ZipFile(file, mode, zipfile.ZIP_DEFLATED))
            names = archive.namelist() if mode == "r" else [Path(path).stem]
            if len(names) != 1:
                raise ValueError(f"{len(names)} files in the .zip, not one")
            packed = archive.open(names[0], mode, force_zip64=mode == "w")
        case _:
            return file
    return stack.enter_context(packed)


@contextmanager
def damage_named(path: str, kind: str) -> Iterator[None]:
    """Turn errors of reading a table of some kind, like ".csv", into a UserError."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeError as error:
        raise UserError(
            f"{path}: cannot be read as {kind} ({error}); say what it is, like --csv encoding=cp1252"
        ) from None
    except pd.errors.ParserError as error:
        raise UserError(f"{path}: {_explained(str(error), kind)}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as {kind} ({error})") from None


def _explained(error: str, kind: str) -> str:
    """An error of pandas' reader of CSV, with the line where it is."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error):
        return f"line {found[2]}: {found[3]} cells, but {found[1]} in the header"
    if found := re.search(r"EOF inside string starting at row (\d+)", error):
        return f"line {int(found[1]) + 1}: a quotation mark opens a cell that does not end"
    return f"cannot be read as {kind} ({error})"


# -- writing --------------------------------------------------------------------------------------


def write_table(
    path: str,
    frames: Iterable[pd.DataFrame],
    dialect: Dialect | None = None,
    schema: pa.Schema | None = None,
) -> None:
    """Write frames, all with the same columns, one after the other: a file completely or not at all.

    ``dialect`` is the format of the CSV of which this is a copy, ``schema`` the schema of a Parquet file, by default
    the first frame's, whose columns of several types become text. An OSError names a file that cannot be written;
    BrokenPipeError, if the reader of the output has gone.
    """
    if path == STANDARD:
        _write_csv(standard_output(), frames, dialect or Dialect(), ",")
        return

    def write(partial: Path) -> None:
        kind = ending(path)
        with open(partial, "wb") as file, ExitStack() as stack:
            if kind == ".parquet":
                _write_parquet(file, frames, schema)
            else:
                packed = _packed(path, file, "w", stack)
                _write_csv(packed, frames, dialect or Dialect(), SEPARATORS[kind])

    write_whole(path, write)


def _write_csv(file: Any, frames: Iterable[pd.DataFrame], dialect: Dialect, sep: str) -> None:
    encoder = codecs.getincrementalencoder(dialect.encoding or "utf-8")()  # one byte order mark
    for i, frame in enumerate(frames):
        lines: list[str] = []
        # with this end of a row, cells with either of its marks are quoted; the writer calls once for each row
        rows: Any = SimpleNamespace(write=lines.append)
        writer = csv.writer(rows, delimiter=dialect.sep or sep, lineterminator="\r\n")
        if i == 0 and not dialect.head:
            writer.writerow(map(str, frame.columns))
        writer.writerows(zip(*(as_text(values) for _, values in frame.items()), strict=True))
        head = dialect.head if i == 0 else ""
        file.write(encoder.encode(head + "".join(line[:-2] + dialect.newline for line in lines)))
        file.flush()  # the next program in a pipe begins at once


def _write_parquet(file: Any, frames: Iterable[pd.DataFrame], schema: pa.Schema | None) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    with ExitStack() as stack:
        writer = None
        for frame in frames:
            frame = of_one_type(frame) if schema is None else frame
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            if writer is None:
                # a column of gaps alone is text, as others may come
                types = [pa.string() if pa.types.is_null(t) else t for t in table.schema.types]
                fields = zip(table.schema.names, types, strict=True)
                schema = schema or pa.schema(list(fields), table.schema.metadata)
                writer = stack.enter_context(ParquetWriter(file, schema))
            writer.write_table(table.cast(schema))


def standard_output() -> BinaryIO:
    """Where bytes for the next program go; UserError if it is closed."""
    if sys.stdout is None:
        raise UserError("-: the standard output is closed")
    sys.stdout.flush()
    return sys.stdout.buffer


def check_out(out: str | None, *, is_table: bool = True, **sources: str | None) -> None:
    """Raise a UserError or OSError before the work, if a file is one of those to read or cannot be written."""
    if out in (None, STANDARD):
        return
    if is_table:
        ending(out)
    write_whole(out, None)
    for what, path in sources.items():
        if path is not None and same_file(out, path):
            raise UserError(f"{out}: would be written over the {what.replace('_', ' ')}")
    if not is_table and Path(out).suffix.lower() in (*SEPARATORS, ".parquet"):
        raise UserError(f"{out}: what is written is no table, and this is the name of one")


def same_file(a: str, b: str) -> bool:
    """Whether two paths are the same file, which need not exist."""
    return os.path.realpath(a) == os.path.realpath(b)


def shown(table: str) -> str:
    """The name of a table's file, or what stands for the standard input."""
    return "the standard input" if table == STANDARD else Path(table).name


def say(out: str | None, text: str) -> None:
    """Print a result: on stderr if ``out`` is the standard output, where the table goes."""
    put(text, sys.stderr if out == STANDARD else sys.stdout)
