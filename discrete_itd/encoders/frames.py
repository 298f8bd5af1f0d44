"""Tables of any kind as pandas frames: of other libraries, arrays, Parquet files, and iterables of frames.

Of what is larger than memory, one pass takes a uniform sample. Results come back in the form of the table.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import narwhals
import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from discrete_itd.encoders.dtypes import is_category
from discrete_itd.validation import warn

SAMPLE_ROWS = 400_000  # most rows of a stream that are fitted to

Answer = TypeVar("Answer", bound=Callable[..., Any])


def as_frame(X: Any) -> pd.DataFrame | None:
    """A pandas frame of any table that narwhals knows, collected if it is lazy; None if X is no table.

    Examples
    --------
    >>> as_frame([[1]]) is None, as_frame(pd.DataFrame({"a": [1]})).shape
    (True, (1, 1))
    """
    if isinstance(X, pd.DataFrame):
        return X
    kind = f"{type(X).__module__}.{type(X).__qualname__}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask is to move to a package of its own
            table = narwhals.from_native(X, pass_through=True)
            if isinstance(table, narwhals.LazyFrame):
                table = table.collect()
    except (AttributeError, ImportError, NotImplementedError) as error:  # of another release
        raise TypeError(
            f"X is a {kind}, which this release of narwhals does not read ({error}): convert it to pandas"
        ) from error
    if isinstance(table, narwhals.DataFrame):
        return table.to_pandas()
    frame = X.to_pandas() if hasattr(X, "to_pandas") else None  # record batches of Arrow
    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(type(X), "columns") or hasattr(X, "__dataframe__"):
        raise TypeError(f"X is a {kind}, a table that narwhals does not know: convert it to pandas")
    return None


def is_table(X: Any) -> bool:
    """Whether X has columns of names, be it in memory or lazy."""
    return hasattr(type(X), "columns") or hasattr(type(X), "to_pandas")


def check_unique_names(frame: pd.DataFrame) -> None:
    """ValueError if a column's name is missing, or occurs more than once."""
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"column {twice!r}: the name occurs more than once")
    for j, name in enumerate(frame.columns):
        if pd.api.types.is_scalar(name) and pd.isna(name):
            where = f"column {j} from the left, beginning with 0"
            raise ValueError(f"{where}: its name is missing, {name!r}")


def too_few(n_rows: int, n_columns: int) -> ValueError:
    """The error of a table without rows or columns, in scikit-learn's words."""
    return ValueError(
        f"Found array with {n_rows} sample(s) and {n_columns} feature(s) (shape=({n_rows}, {n_columns})) while a"
        " minimum of 1 is required."
    )


def read_rows(X: Any, estimator: Any, *, fewest: int = 1) -> tuple[pd.DataFrame, bool]:
    """The rows as a frame, and whether they came as one; only a pandas frame keeps its index.

    A ValueError or TypeError if there are less than ``fewest``, a column's name repeats, or X is no table at all.
    """
    if isinstance(X, str | os.PathLike) or callable(getattr(X, "parts", None)):
        reads = "only DiffusionDensity.fit reads others"
        raise TypeError(f"X must be a table in memory, got {X!r}: {reads}")
    frame = as_frame(X)
    if frame is None:
        from sklearn.utils import check_array

        check_array_like(X)
        how: Any = {"dtype": None, "ensure_all_finite": "allow-nan", "ensure_min_samples": fewest}
        return pd.DataFrame(check_array(X, estimator=estimator, input_name="X", **how)), False
    check_unique_names(frame)
    if frame.shape[0] < fewest or frame.shape[1] == 0:
        raise too_few(*frame.shape)
    return frame if frame is X else frame.reset_index(drop=True), True


def check_array_like(X: Any) -> None:
    """TypeError with the type of what is no array: scikit-learn would call it a scalar, or its rows numbers."""
    first = X[0] if isinstance(X, Sequence) and X else None
    if isinstance(first, Mapping) or is_table(first):
        what = f"a {type(X).__name__} of {type(first).__name__}"
        raise TypeError(f"X is {what}, not one table: make a frame of it, like pandas.DataFrame(X)")
    if isinstance(X, Sequence) or hasattr(X, "__array__"):
        return
    from scipy.sparse import issparse

    if not issparse(X):
        raise TypeError(f"X must be a table or an array, got {type(X).__name__}")


def _parquet_tables(path: Path) -> Iterator[Any]:
    """The rows of a Parquet file, or of all files below a folder in the order of their names, as Arrow tables.

    They are read page by page: memory depends on the size neither of files nor of row groups.
    """
    if find_spec("pyarrow") is None:
        raise ImportError(f"{path}: Parquet needs pyarrow: pip install 'discrete-itd[parquet]'")
    files, schemas = _parquet_files(path), []
    for file in files:
        with _opened(file) as parquet:
            schemas.append(parquet.schema_arrow)
        for name in sorted({*schemas[0].names} ^ {*schemas[-1].names}):
            raise ValueError(f"column {name!r}: not in every file, like {file}")
    # without a stored index
    columns = [str(c) for c in schemas[0].empty_table().to_pandas().columns]

    def tables() -> Iterator[Any]:
        import pyarrow as pa

        n = max(1, min(1 << 16, (1 << 20) // max(1, len(columns))))  # at most a million cells
        for file in files:
            with _opened(file) as parquet:
                for batch in parquet.iter_batches(n, columns=columns):
                    yield pa.Table.from_batches([batch])

    return tables()


def _opened(file: Path) -> Any:
    from pyarrow import parquet

    try:
        # column chunks by pages of a megabyte, or a row group would be read whole
        return parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
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
        return _parquet_tables(Path(X))
    is_in_memory = isinstance(X, Mapping) or is_table(X) or hasattr(X, "__array__")
    if is_in_memory or hasattr(X, "shape") or not isinstance(X, Iterable):
        return None
    frames = iter(X)
    first = next(frames, None)
    return chain([first], frames) if is_table(first) else None


def sample_size(n_columns: int) -> int:
    """Rows of a stream that are kept in memory: of a wide table as many as have eight million cells, or 15 000."""
    return min(SAMPLE_ROWS, max(15_000, (1 << 23) // max(1, n_columns)))


class Sample:
    """A uniform sample of rows that come in parts: all of them, if they are few."""

    def __init__(self, seed: int) -> None:
        self.n_rows, self._random = 0, np.random.default_rng(seed)
        self._parts: list[pd.DataFrame] = []
        self._keys, self._bound = np.zeros(0), 1.0  # rows with the least of random keys are kept

    def add(self, table: Any) -> None:
        """Add the rows of a frame, or of an Arrow table; ValueError if its columns differ from earlier ones."""
        keys = self._random.random(len(table))
        near = np.flatnonzero(keys < self._bound)
        part = cast(pd.DataFrame, as_frame(table.take(near))).reset_index(drop=True)
        if not self._parts:
            check_unique_names(part)
        names = self._parts[0].columns if self._parts else part.columns
        for name in names.symmetric_difference(part.columns, sort=False):
            raise ValueError(f"column {name!r}: not in every frame of the stream")
        self._parts.append(cast(pd.DataFrame, part[names]))
        self.n_rows, self._keys = self.n_rows + len(table), np.append(self._keys, keys[near])
        if len(self._keys) > 1.25 * sample_size(len(names)):
            self.rows()

    def rows(self) -> pd.DataFrame:
        """The rows, in the order in which they were added."""
        with warnings.catch_warnings():
            # of parts in which all cells are missing
            warnings.simplefilter("ignore", FutureWarning)
            # by column: truth values beside numbers stay what they are
            columns = {
                name: pd.concat([part[name] for part in self._parts], ignore_index=True)
                for name in self._parts[0]
            }
            rows = pd.DataFrame(columns)
        if not self.n_rows or not rows.shape[1]:
            raise too_few(self.n_rows, rows.shape[1])
        if len(rows) > (most := sample_size(rows.shape[1])):
            self._bound = float(np.partition(self._keys, most)[most])
            near = self._keys < self._bound
            rows = cast(pd.DataFrame, rows[near]).reset_index(drop=True)
            self._keys = self._keys[near]
        self._parts = [rows]
        return rows


def in_memory(X: Any, seed: int, groups: Any = None) -> Any:
    """A table in memory as it is; of a stream, all rows, or a uniform sample of them with a warning that says so.

    A ValueError or TypeError names a frame of the stream that is no table, or a column that another one lacks; or
    there are ``groups``, one for every row, and a sample.
    """
    if (frames := as_stream(X)) is None:
        return X
    sample, is_path = Sample(seed), isinstance(X, str | os.PathLike)
    for i, table in enumerate(frames):
        part = table if is_path else as_frame(table)
        if part is None:
            raise TypeError(f"frame {i} of the stream is a {type(table).__name__}, not a table")
        sample.add(part)
    rows = sample.rows()
    if len(rows) < sample.n_rows:
        if groups is not None:
            raise ValueError("groups needs a table in memory; X is a stream")
        warn(f"a uniform sample of {len(rows):,} of {sample.n_rows:,} rows is fitted to")
    return rows


def fill_cells(frame: pd.DataFrame, empty: np.ndarray, filled: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table (N, C) with its empty cells filled from the rows that have one, in their order."""
    columns = []
    for j in range(frame.shape[1]):
        column, mask = frame.iloc[:, j], empty[:, j]
        values = filled.iloc[:, j][mask[empty.any(1)]]
        columns.append(_filled(column, mask, values) if mask.any() else column)
    return pd.concat(columns, axis=1).set_axis(frame.columns, axis=1)


def _filled(column: pd.Series, mask: np.ndarray, values: pd.Series) -> pd.Series:
    """The column with ``values`` where the mask is true, in its own dtype if that can hold them."""
    out = column.copy()
    if is_category(column.dtype):
        new = pd.Index(values.dropna().unique()).difference(column.cat.categories, sort=False)
        out = column.cat.add_categories(list(new))
    try:
        out[mask] = values.to_numpy()
    except (TypeError, ValueError, NotImplementedError):  # the last of Arrow's type of nothing
        out = column.astype(object)
        out[mask] = values.to_numpy(dtype=object)
        out = out.infer_objects()
    return out


def in_kind(method: Answer) -> Answer:
    """Decorate a method of a table X that returns a pandas frame: of a polars frame it returns one of polars."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, *args, **kwargs)
        X = args[0] if args else kwargs.get("X")
        return as_polars(found) if is_polars(X) and isinstance(found, pd.DataFrame) else found

    return cast(Answer, call)


def is_polars(X: Any) -> bool:
    """Whether a table is a polars frame."""
    return type(X).__module__.partition(".")[0] == "polars"


def to_pandas(table: Any) -> pd.DataFrame:
    """A frame of any kind, or an array, as a pandas frame."""
    frame = as_frame(table)
    return pd.DataFrame(table) if frame is None else frame


def as_polars(table: pd.DataFrame) -> Any:
    """A table as a polars frame, without its index; values of several types in one column become text."""
    import polars

    cells = {}
    for name, values in table.items():
        is_mixed = values.dtype == object and infer_dtype(values).startswith("mixed")
        cells[str(name)] = values.map(str, na_action="ignore") if is_mixed else values
    return polars.from_pandas(pd.DataFrame(cells, index=table.index), include_index=False)
