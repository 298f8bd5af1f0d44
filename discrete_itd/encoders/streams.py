"""Tables larger than memory, as frames of bounded size: Parquet files, and any iterable of frames that starts again.

One pass, :func:`survey`, sees every column and takes a bounded uniform sample of the rows. Counts of categories are
exact. Scales and the grid of times follow from the sample, whose rows are those with the smallest hashes of their
positions: whatever the order in which parts are read, it is the same sample.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals

from discrete_itd.encoders.dtypes import is_category, plain, read_cells
from discrete_itd.encoders.frames import as_frame, check_unique_names, is_table, too_few
from discrete_itd.encoders.inference import ColumnSpec
from discrete_itd.encoders.observed import Observed

BATCH_CELLS, MOST_BATCH = 1 << 20, 1 << 16  # cells and rows that are read at once
Positions = NDArray[np.int64]
Hashes = NDArray[np.uint64]
PAGE_BUFFER = 1 << 20  # bytes; column chunks are read by pages, or a row group would be read whole


class StreamPart(NamedTuple):
    """Some rows of a stream, and where they are in it: a frame (B, C) and int64 (B,)."""

    frame: pd.DataFrame
    positions: Positions

    @classmethod
    def of(cls, frame: pd.DataFrame, start: int) -> StreamPart:
        """Consecutive rows from a position on."""
        return cls(frame.reset_index(drop=True), np.arange(start, start + len(frame)))

    def take(self, which: NDArray[np.bool_]) -> StreamPart:
        """The rows where a mask (B,) is true."""
        if which.all():
            return self
        return StreamPart(cast(pd.DataFrame, self.frame[which]), self.positions[which])


@runtime_checkable
class Stream(Protocol):
    """A table that is read several times, part by part, each row with the same position every time.

    ``text_dtypes`` has the dtype of columns of text that parts hold as categories, which are read faster.
    """

    text_dtypes: Mapping[Any, Any]

    def parts(self, rng: np.random.Generator | None = None) -> Iterator[StreamPart]:
        """All rows once; ``rng`` draws the order of the parts, as far as they can be read in another."""
        ...


class ParquetStream:
    """The rows of a Parquet file, or of all files below a folder in the order of their names.

    Row groups are read by ``pyarrow.parquet.ParquetFile.iter_batches``, in a random order if asked, and page by page:
    memory depends on the size neither of files nor of row groups.

    Parameters
    ----------
    path : path-like
        Files that begin with "." or "_" are left out.
    columns : sequence of str, optional
        The columns to read; by default all, without a stored index.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    OSError
        If there is no such file.
    ValueError
        If a file is no Parquet, a folder holds none, or files have different columns.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> None:
        if find_spec("pyarrow") is None:
            raise ImportError(f"{path}: Parquet needs pyarrow: pip install 'discrete-itd[parquet]'")
        self.path, self.files = Path(path), _parquet_files(Path(path))
        with _opened(self.files[0]) as parquet:
            schema = parquet.schema_arrow
        empty = schema.empty_table().to_pandas()
        self.columns = [str(c) for c in empty.columns] if columns is None else list(columns)
        self.text_dtypes: Mapping[Any, Any] = {
            c: empty[c].dtype
            for c in self.columns
            if c in empty and str(schema.field(c).type) in ("string", "large_string")
        }
        # row groups: file, number there, position of the first row
        self._groups: list[tuple[Path, int, int]] = []
        n, first = 0, set(schema.names)
        for file in self.files:
            with _opened(file) as parquet:
                names = set(parquet.schema_arrow.names)
                metadata = parquet.metadata
                for number in range(metadata.num_row_groups):
                    self._groups.append((file, number, n))
                    n += metadata.row_group(number).num_rows
            for name in sorted(first ^ names) + [c for c in self.columns if c not in names]:
                raise ValueError(f"column {name!r}: not in every file, like {file}")
        self._n_rows = n

    def __len__(self) -> int:
        """Number of rows."""
        return self._n_rows

    def parts(self, rng: np.random.Generator | None = None) -> Iterator[StreamPart]:
        n = max(1, min(MOST_BATCH, BATCH_CELLS // max(1, len(self.columns))))
        order = range(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        for file, own in groupby([self._groups[k] for k in order], key=lambda group: group[0]):
            with _opened(file, [*self.text_dtypes]) as parquet:
                for _, number, start in own:
                    for batch in parquet.iter_batches(n, row_groups=[number], columns=self.columns):
                        yield StreamPart.of(batch.to_pandas(), start)
                        start += batch.num_rows


class RemainingStream:
    """The rows of a stream whose positions have hashes, by a salt, above a bound."""

    def __init__(self, stream: Stream, salt: int, bound: int) -> None:
        self.stream, self.salt, self.bound = stream, salt, np.uint64(bound)
        self.text_dtypes = stream.text_dtypes

    def parts(self, rng: np.random.Generator | None = None) -> Iterator[StreamPart]:
        for part in self.stream.parts(rng):
            yield part.take(position_hashes(part.positions, self.salt) > self.bound)


class FrameStream:
    """The rows of frames that come one after another, in the same order at each ``iter``."""

    def __init__(self, frames: Iterable[Any]) -> None:
        self.frames = frames
        self.text_dtypes: Mapping[Any, Any] = {}

    def parts(self, rng: np.random.Generator | None = None) -> Iterator[StreamPart]:
        start = 0
        for i, table in enumerate(self.frames):
            frame = as_frame(table)
            if frame is None:
                raise TypeError(f"frame {i} of the stream is a {type(table).__name__}, not a table")
            yield StreamPart.of(frame, start)
            start += len(frame)


def as_stream(X: Any) -> Stream | None:
    """The stream of a Parquet path or an iterable of frames; None if X is a table in memory, or no table.

    TypeError if X is an iterator, which is used up after one pass.
    """
    if isinstance(X, str | os.PathLike):
        return ParquetStream(X)
    if isinstance(X, Stream) and not isinstance(X, pd.DataFrame):
        return X
    is_in_memory = isinstance(X, Mapping) or is_table(X) or hasattr(X, "__array__")
    if is_in_memory or hasattr(X, "shape") or not isinstance(X, Iterable):
        return None
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read once only, but a fit reads its rows several times; give a"
            " list of frames, or an object whose __iter__ starts again"
        )
    return FrameStream(X) if is_table(next(iter(X), None)) else None


def position_hashes(positions: Positions, salt: int) -> Hashes:
    """A number for each position, different for different ones: SplitMix64, see :mod:`discrete_itd.channel.noise`."""
    z = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64((salt + 1) * 0xD1342543DE82EF95 % 2**64)
    for bits, mix in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(bits))) * np.uint64(mix)
    return z ^ (z >> np.uint64(31))


def _opened(file: Path, as_categories: Sequence[str] = ()) -> Any:
    from pyarrow import parquet

    how = {"read_dictionary": list(as_categories), "buffer_size": PAGE_BUFFER, "pre_buffer": False}
    try:
        return parquet.ParquetFile(file, **how)
    except ValueError as error:
        raise ValueError(f"{file}: no Parquet ({error})") from None


def _parquet_files(path: Path) -> list[Path]:
    """The file, or the files below the folder."""
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        if not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path}: not a regular file")
        return [path]
    files = [f for f in sorted(path.rglob("*.parquet")) if not f.name.startswith((".", "_"))]
    if not files:
        raise ValueError(f"{path}: no .parquet file in the folder")
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file}: not a regular file")
    for part in files[0].relative_to(path).parts[:-1]:
        if "=" in part:
            raise ValueError(
                f"{path}: folders like {part!r} hold a column that is not in the files; write it into the files"
            )
    return files


SLACK = 1.25  # rows that are held for a moment, as a multiple of the sample
MOST_CATEGORIES = 1_000_000  # of a column of a stream: each is kept, with its count


class Sample:
    """The ``n`` rows of a stream with the smallest hashes, by a salt: the seed of the sample."""

    def __init__(self, n: int, salt: int) -> None:
        self._n, self._salt = n, salt
        self._parts: list[tuple[pd.DataFrame, Hashes]] = []
        self._largest = np.uint64(2**64 - 1)

    def add(self, part: StreamPart) -> None:
        """Add those of some rows that belong to the sample."""
        hashes = position_hashes(part.positions, self._salt)
        near = hashes <= self._largest
        self._parts.append((part.take(near).frame, hashes[near]))
        if sum(len(hashes) for _, hashes in self._parts) > SLACK * self._n:
            self._parts = [self.rows()]
            self._largest = self._parts[0][1].max()

    def rows(self) -> tuple[pd.DataFrame, Hashes]:
        """The rows and their hashes, in the order in which they were added."""
        hashes = np.concatenate([hashes for _, hashes in self._parts])
        near = np.ones(len(hashes), dtype=bool)
        if len(hashes) > self._n:
            near = hashes <= np.partition(hashes, self._n - 1)[self._n - 1]
        # one frame: thousands of small ones would take more memory than their rows
        names = self._parts[0][0].columns
        cells = {n: _joined([cast(pd.Series, frame[n]) for frame, _ in self._parts]) for n in names}
        frame = pd.DataFrame(cells, columns=names)
        return cast(pd.DataFrame, frame[near]).reset_index(drop=True), hashes[near]


@dataclass(frozen=True, eq=False)
class Survey:
    """Results of one pass; the sample, and the hashes of its positions, are in the order of the stream."""

    n_rows: int
    columns: Mapping[Any, Observed]
    sample: pd.DataFrame
    hashes: Hashes

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the whole table."""
        return len(self.sample) == self.n_rows


def survey(
    stream: Stream,
    specs: Callable[[pd.Index], Mapping[Any, ColumnSpec]] | None,
    n_sample: Callable[[int], int],
    salt: int,
) -> Survey:
    """Read a stream once; a sample of ``n_sample`` (of the number of columns) rows, with the seed ``salt``.

    ``specs`` maps the names of the columns to their specifications; without it only the sample is taken. A ValueError
    or TypeError names the column, if parts do not fit together, or a column has too many categories; a ValueError if
    there are no rows.
    """
    columns: dict[Any, Observed] = {}
    sample, n, names, text = None, 0, pd.Index([]), stream.text_dtypes
    for part in stream.parts():
        if sample is None:
            names = part.frame.columns
            sample = Sample(n_sample(len(names)), salt)
            if specs is not None:
                own = specs(names)
                columns = {
                    k: Observed(plain(k), own[k].kind, text.get(k), own[k].na) for k in names
                }
        check_unique_names(part.frame)
        for name in names.symmetric_difference(part.frame.columns, sort=False):
            raise ValueError(f"column {name!r}: not in every frame of the stream")
        part = part._replace(frame=cast(pd.DataFrame, part.frame[list(names)]))
        for name, column in columns.items():
            column.add(cast(pd.Series, part.frame[name]))
            if column.n_categories > MOST_CATEGORIES:
                raise ValueError(
                    f"column {name!r}: more than {MOST_CATEGORIES} different values in a stream; drop the column,"
                    " or say what it is with column_types="
                )
        sample.add(part)
        n += len(part.frame)
    if sample is None or not n or not len(names):
        raise too_few(n, len(names))
    rows, hashes = sample.rows()
    for name, column in columns.items():
        column.keep(read_cells(cast(pd.Series, rows[name])))
    if len(rows) == n or specs is None:  # then the sample is a table of its own
        rows = rows.astype({name: dtype for name, dtype in text.items() if name in rows})
    return Survey(n, columns, rows, hashes)


def _joined(pieces: list[pd.Series]) -> pd.Series:
    """Parts of a column as one; categories that differ are united."""
    if len({p.dtype for p in pieces}) > 1 and all(is_category(p.dtype) for p in pieces):
        # where all are missing, the categories have a dtype of their own
        dtype = next((p.dtype for p in pieces if len(p.cat.categories)), pieces[0].dtype)
        pieces = [p if len(p.cat.categories) else p.astype(dtype) for p in pieces]
        return pd.Series(union_categoricals(pieces))
    return pd.concat(pieces, ignore_index=True)
