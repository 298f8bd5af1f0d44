"""Tables of any size as streams: chunks of rows from a file or the standard input, and to a file or the output."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd

from discrete_itd.cli.bounded import opened
from discrete_itd.cli.dialect import PLAIN, SEPARATORS, Dialect, head_of, with_head, zstandard
from discrete_itd.cli.tables import (
    EmptyTableError,
    UserError,
    check_names,
    damage_told,
    ending,
    save_whole,
)

if TYPE_CHECKING:
    import pyarrow as pa

STANDARD = "-"  # the standard input or output, in place of a file's name
QUOTED = "\n\x00"  # for a carriage return, until the text is written
CHUNK_CELLS = 1 << 20  # of a table that are in memory at once
MOST_ROWS = 1 << 16
BUFFER = 1 << 20  # bytes


@dataclass(frozen=True)
class Table:
    """A file, some row groups of a Parquet file, or the standard input or output.

    Parameters
    ----------
    path : str
        ``-`` for the standard input or output.
    kind : str
        ".csv", ".tsv" or ".parquet".
    row_group : int, optional
        The only one to read.
    dialect : Dialect
        How a CSV is, or is to be, written.
    """

    path: str
    kind: str
    row_group: int | None = None
    dialect: Dialect = PLAIN

    @classmethod
    def named(cls, path: str, default: str, dialect: Dialect = PLAIN) -> Table:
        """The table of a name, whose ending tells the format; of ``-`` it is the ``default``, like "csv"."""
        kind = ending(path if path != STANDARD else f"{STANDARD}.{default}")
        return cls(path, kind, dialect=dialect)


@dataclass(frozen=True)
class Chunk:
    """Successive rows of a table.

    Parameters
    ----------
    first : int
        Number of the first row; the table's first one is 1.
    frame : DataFrame
        Cells of a CSV are text. Missing cells are missing.
    batch : pyarrow.Table, optional
        The same rows as Parquet has them.
    """

    first: int
    frame: pd.DataFrame
    batch: pa.Table | None = None


@dataclass(frozen=True)
class Source:
    """A table that is open for reading.

    Parameters
    ----------
    table : Table
        Its dialect is complete.
    names : list of str
        Of the columns.
    n_rows : int, optional
        If it is known.
    schema : pyarrow.Schema, optional
        Of a Parquet file.
    take : callable
        From a number of rows to an iterator over chunks of so many; the last one may be shorter. And from names of
        columns, or None for all: a Parquet file reads no others.
    """

    table: Table
    names: list[str]
    n_rows: int | None
    schema: pa.Schema | None
    take: Callable[[int, list[str] | None], Iterator[Chunk]]

    def nothing(self) -> Chunk:
        """A chunk without rows."""
        frame = pd.DataFrame({name: pd.Series([], dtype=object) for name in self.names})
        if self.schema is None:
            return Chunk(1, frame)
        batch = self.schema.empty_table()
        nullable = _nullable_types()
        return Chunk(1, batch.to_pandas(types_mapper=nullable.get, ignore_metadata=True), batch)

    def chunks(self, n_rows: int | None = None, names: list[str] | None = None) -> Iterator[Chunk]:
        """The rows in chunks of ``n_rows``, by default as many as have about a million cells.

        Columns without a name in ``names`` may be left out.

        Raises
        ------
        UserError
            Naming the file, if it cannot be read.
        """
        usual = min(MOST_ROWS, max(1, CHUNK_CELLS // len(self.names)))
        with damage_told(self.table.path, self.table.kind):
            yield from self.take(n_rows or usual, names)


# -- reading --------------------------------------------------------------------------------------


@contextmanager
def reading(table: Table) -> Iterator[Source]:
    """A table, open within the block.

    Raises
    ------
    UserError
        Naming the file, if it cannot be read, has no columns, or two of its columns have one name.
    """
    with ExitStack() as stack:
        with damage_told(table.path, table.kind):
            source = (_parquet if table.kind == ".parquet" else _csv)(table, stack)
        if not source.names:
            raise EmptyTableError(f"{table.path}: the table is empty")
        check_names(table.path, pd.Index([n for n in source.names if n]))
        yield source


def _csv(table: Table, stack: ExitStack) -> Source:
    """A CSV, all cells as text; the header is read as a row, since pandas would rename repeated names."""
    stream = None
    if table.path == STANDARD:
        head, stream = with_head(_standard_input())
    else:
        head = head_of(table.path)
    table = replace(table, dialect=table.dialect.found(table.path, table.kind, head))
    file, how = stack.enter_context(opened(table.path, table.dialect, stream))
    reader: Any = pd.read_csv(file, iterator=True, header=None, dtype=object, **how)
    stack.enter_context(reader)
    header = reader.get_chunk(1).iloc[0]
    names = [f"Unnamed: {i}" if pd.isna(n) else n for i, n in enumerate(header)]

    def take(n_rows: int, _: list[str] | None) -> Iterator[Chunk]:
        first = 1
        with suppress(StopIteration):
            while True:
                frame = reader.get_chunk(n_rows).set_axis(names, axis=1)
                yield Chunk(first, frame.set_axis(range(first, first + len(frame)), axis=0))
                first += len(frame)

    return Source(table, names, None, None, take)


def _parquet(table: Table, stack: ExitStack) -> Source:
    """A Parquet file, or one of its row groups."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    opened: Any = table.path
    if table.path == STANDARD:  # what describes the rows stands at the end of a file
        opened = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(_standard_input(), opened, BUFFER)
        opened.seek(0)
    file = stack.enter_context(ParquetFile(opened, buffer_size=BUFFER, pre_buffer=False))
    groups = range(file.num_row_groups) if table.row_group is None else [table.row_group]
    before = sum(file.metadata.row_group(i).num_rows for i in range(groups[0] if groups else 0))
    schema = file.schema_arrow
    nullable = _nullable_types()

    def take(n_rows: int, names: list[str] | None) -> Iterator[Chunk]:
        first, left = before + 1, schema.empty_table()
        if names is not None:
            left = left.select([name for name in schema.names if name in names])
            names = left.schema.names
        batches = file.iter_batches(batch_size=n_rows, row_groups=list(groups), columns=names)
        for batch in chain(batches, [None]):
            if batch is not None:
                left = pa.concat_tables([left, pa.Table.from_batches([batch])])
            while len(left) >= n_rows or (batch is None and len(left)):
                part, left = left.slice(0, n_rows), left.slice(n_rows)
                # without pandas' own metadata a column has one type in all chunks
                frame = part.to_pandas(types_mapper=nullable.get, ignore_metadata=True)
                yield Chunk(first, frame.set_axis(range(first, first + len(part)), axis=0), part)
                first += len(part)

    n_rows = sum(file.metadata.row_group(i).num_rows for i in groups)
    return Source(table, [str(n) for n in schema.names], n_rows, schema, take)


def _nullable_types() -> dict[Any, Any]:
    """Types of pandas for those of Arrow that numpy's cannot hold exactly beside missing cells."""
    import pyarrow as pa

    sizes = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    ours = {
        name: pd.api.types.pandas_dtype(name.replace("int", "Int").replace("uI", "UI"))
        for name in sizes
    }
    return {pa.type_for_alias(n): dtype for n, dtype in ours.items()} | {
        pa.bool_(): pd.BooleanDtype()
    }


def row_groups(path: str) -> int:
    """Number of row groups of a Parquet file."""
    from pyarrow.parquet import read_metadata

    with damage_told(path, ".parquet"):
        return read_metadata(path).num_row_groups


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise UserError(f"{STANDARD}: the standard input is closed")
    return sys.stdin.buffer


# -- writing --------------------------------------------------------------------------------------

Writer = Callable[[Any], None]  # of a frame or an Arrow table


def write_stream(table: Table, rows: Iterable[Any], schema: pa.Schema | None = None) -> None:
    """Write frames or Arrow tables, one after the other: a file completely or not at all.

    Parameters
    ----------
    table : Table
    rows : iterable of DataFrame or pyarrow.Table
        All with the same columns in the same types.
    schema : pyarrow.Schema, optional
        Of a Parquet file; by default that of the first frame.

    Raises
    ------
    UserError
        Naming the file, if it cannot be written.
    BrokenPipeError
        If the reader of the standard output has gone.
    """
    if table.path == STANDARD:
        _write(table, standard_output(), rows, schema)
    else:
        save_whole(table.path, lambda partial: _write_file(table, partial, rows, schema))


def _write_file(table: Table, partial: Path, rows: Iterable[Any], schema: pa.Schema | None) -> None:
    with open(partial, "wb") as file, _packed(table.path, file) as packed:
        _write(table, packed, rows, schema)


def _write(table: Table, file: BinaryIO, rows: Iterable[Any], schema: pa.Schema | None) -> None:
    if table.kind == ".parquet":
        _write_parquet(file, rows, schema)
        file.flush()
        return
    for i, frame in enumerate(rows):
        sep = table.dialect.sep or SEPARATORS[table.kind]
        # a byte order mark stands at the beginning only
        encoding = (table.dialect.encoding or "utf-8") if i == 0 else _without_mark(table.dialect)
        file.write(_csv_text(frame, i == 0, sep, table.dialect.newline).encode(encoding))
        file.flush()  # the next program in a pipe begins at once


def _without_mark(dialect: Dialect) -> str:
    """The encoding of what follows the beginning of a file."""
    order = "le" if sys.byteorder == "little" else "be"
    own = dialect.encoding or "utf-8"
    return {"utf-8-sig": "utf-8", "utf-16": f"utf-16-{order}", "utf-32": f"utf-32-{order}"}.get(
        own, own
    )


def _csv_text(frame: pd.DataFrame, header: bool, sep: str, newline: str) -> str:
    def text(frame: pd.DataFrame) -> str:
        return frame.to_csv(index=False, header=header, sep=sep, lineterminator=newline)

    out = text(frame)
    # a carriage return would end a row for readers, but is quoted only for a line feed beside it, or in `newline`
    if newline == "\n" and "\r" in out:
        out = text(frame.replace("\r", QUOTED, regex=True).rename(columns=_quoted))
        out = out.replace(QUOTED, "\r")
    return out


def _quoted(name: Any) -> Any:
    return name.replace("\r", QUOTED) if isinstance(name, str) else name


def _write_parquet(file: BinaryIO, rows: Iterable[Any], schema: pa.Schema | None) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    with ExitStack() as stack:
        writer = None
        for part in rows:
            if not isinstance(part, pa.Table):
                part = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
            schema = part.schema if schema is None else schema
            if writer is None:
                writer = stack.enter_context(ParquetWriter(file, schema))
            writer.write_table(part)


@contextmanager
def _packed(path: str, file: BinaryIO) -> Iterator[BinaryIO]:
    """A file that packs what is written to it, if the name of the table says so."""
    with ExitStack() as stack:
        match Path(path).suffix.lower():
            case ".gz":  # no time in it: equal tables are equal files
                packed: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0)
            case ".bz2":
                packed = bz2.BZ2File(file, "wb")
            case ".xz":
                packed = lzma.LZMAFile(file, "wb")  # noqa: SIM115
            case ".zip":
                archive = stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED))
                packed = archive.open(Path(path).stem, "w", force_zip64=True)
            case ".zst":
                packed = _zstandard(path, file)
            case _:
                packed = nullcontext(file)
        yield stack.enter_context(packed)


def _zstandard(path: str, file: BinaryIO) -> Any:
    try:
        return zstandard().open(file, "wb")
    except ImportError:
        raise UserError(f"{path}: .zst needs pip install 'pandas[compression]'") from None


def standard_output() -> BinaryIO:
    """Where bytes for the next program go; UserError if it is closed."""
    if sys.stdout is None:
        raise UserError("-: the standard output is closed")
    sys.stdout.flush()
    return sys.stdout.buffer
