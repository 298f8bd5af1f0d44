"""Tables larger than memory: Parquet files, and any iterable of frames, of which one pass takes a uniform sample."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.encoders.frames import as_frame, check_unique_names, is_table, too_few
from discrete_itd.validation import warn

BATCH_CELLS, MOST_BATCH = 1 << 20, 1 << 16  # cells and rows that are read at once
PAGE_BUFFER = 1 << 20  # bytes; column chunks are read by pages, or a row group would be read whole
# rows of a stream that are fitted to; of a wide table as many as have SAMPLE_CELLS cells, or FEWEST_SAMPLED
SAMPLE_ROWS, SAMPLE_CELLS, FEWEST_SAMPLED = 400_000, 1 << 23, 15_000
SLACK = 1.25  # rows that are held for a moment, as a multiple of the sample


class ParquetStream:
    """The rows of a Parquet file, or of all files below a folder in the order of their names, as Arrow tables.

    They are read page by page: memory depends on the size neither of files nor of row groups.

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
        self.files, self._n_rows = _parquet_files(Path(path)), 0
        schemas = []
        for file in self.files:
            with _opened(file) as parquet:
                schemas.append(parquet.schema_arrow)
                self._n_rows += parquet.metadata.num_rows
        stored = schemas[0].empty_table().to_pandas().columns
        self.columns = [str(c) for c in stored] if columns is None else list(columns)
        for file, schema in zip(self.files, schemas, strict=True):
            names = {*schema.names}
            for name in sorted({*schemas[0].names} ^ names) + [
                c for c in self.columns if c not in names
            ]:
                raise ValueError(f"column {name!r}: not in every file, like {file}")

    def __len__(self) -> int:
        """Number of rows."""
        return self._n_rows

    def __iter__(self) -> Iterator[Any]:
        import pyarrow as pa

        n = max(1, min(MOST_BATCH, BATCH_CELLS // max(1, len(self.columns))))
        for file in self.files:
            with _opened(file) as parquet:
                for batch in parquet.iter_batches(n, columns=self.columns):
                    yield pa.Table.from_batches([batch])


def _opened(file: Path) -> Any:
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file, buffer_size=PAGE_BUFFER, pre_buffer=False)
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
    for part in files[0].relative_to(path).parts[:-1]:
        if "=" in part:
            raise ValueError(
                f"{path}: folders like {part!r} hold a column that is not in the files; write it into the files"
            )
    return files


def as_stream(X: Any) -> Iterable[Any] | None:
    """The frames of a Parquet path or an iterable of frames; None if X is a table in memory, or no table."""
    if isinstance(X, str | os.PathLike):
        return ParquetStream(X)
    if isinstance(X, ParquetStream):
        return X
    is_in_memory = isinstance(X, Mapping) or is_table(X) or hasattr(X, "__array__")
    if is_in_memory or hasattr(X, "shape") or not isinstance(X, Iterable):
        return None
    frames = iter(X)
    first = next(frames, None)
    return chain([first], frames) if is_table(first) else None


def sample_size(n_columns: int) -> int:
    """Rows of a stream that are kept in memory."""
    return min(SAMPLE_ROWS, max(FEWEST_SAMPLED, SAMPLE_CELLS // n_columns))


def in_memory(X: Any, seed: int, groups: Any = None) -> Any:
    """A table in memory as it is; of a stream, all rows, or a uniform sample of them with a warning that says so.

    A ValueError or TypeError names a frame of the stream that is no table, or a column that another one lacks; or
    there are ``groups``, one for every row, and a sample.
    """
    if (frames := as_stream(X)) is None:
        return X
    random, keys, parts = np.random.default_rng(seed), np.zeros(0), []
    n, most, names, bound = 0, 0, pd.Index([]), 1.0
    for i, table in enumerate(frames):
        if not isinstance(frames, ParquetStream):
            table = as_frame(own := table)
            if table is None:
                raise TypeError(f"frame {i} of the stream is a {type(own).__name__}, not a table")
        own_keys = random.random(len(table))
        near = np.flatnonzero(own_keys < bound)
        part = cast(pd.DataFrame, as_frame(table.take(near))).reset_index(drop=True)
        if not parts:
            check_unique_names(part)
            names, most = part.columns, sample_size(max(1, part.shape[1]))
        for name in names.symmetric_difference(part.columns, sort=False):
            raise ValueError(f"column {name!r}: not in every frame of the stream")
        n, keys = n + len(table), np.append(keys, own_keys[near])
        parts.append(cast(pd.DataFrame, part[names]))
        if len(keys) > SLACK * most:
            rows, keys, bound = _least(parts, keys, most)
            parts = [rows]
    if not n or not len(names):
        raise too_few(n, len(names))
    if n > most and groups is not None:
        raise ValueError("groups needs a table in memory; X is a stream")
    if n > most:
        warn(f"X is a stream of {n:,} rows: a uniform sample of {most:,} is fitted to")
    return _least(parts, keys, most)[0]


def _least(
    parts: list[pd.DataFrame], keys: np.ndarray, most: int
) -> tuple[pd.DataFrame, np.ndarray, float]:
    """The rows with the ``most`` least keys, in order, their keys, and the bound of these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of parts in which all cells are missing
        rows = pd.concat(parts, ignore_index=True)
    bound = 1.0 if len(keys) <= most else float(np.partition(keys, most)[most])
    near = keys < bound
    return cast(pd.DataFrame, rows[near]).reset_index(drop=True), keys[near], bound
