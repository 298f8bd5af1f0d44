"""Tables of any kind as pandas frames: of other libraries, arrays, and iterables of frames.

Of what is larger than memory, one pass takes a uniform sample. Results come back in the form of the table. Below, the
cells of a column: every dtype is read as one of a few plain arrays: bool, int64 or uint64, float64, datetime64,
timedelta64, or Python objects (text and everything else). Missing cells, however a dtype represents them, are left out.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import InvalidOperation
from functools import wraps
from itertools import chain
from typing import (
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    Self,
    TypeGuard,
    TypeVar,
    cast,
    overload,
)

import narwhals
import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, pandas_dtype

from discrete_itd.validation import warn

SAMPLE_ROWS = 400_000  # most rows of a stream that are fitted to

P = ParamSpec("P")


class PolarsFrame(Protocol):
    """Methods that of all tables a frame of polars has: for type checkers, be polars installed or not."""

    def hstack(self, columns: Any, *, in_place: bool = ...) -> Any: ...

    def rechunk(self) -> Any: ...


Polars = TypeVar("Polars", bound=PolarsFrame)


class InKind(Protocol[P]):
    """A method that :func:`in_kind` made."""

    def __get__(self, instance: Any, owner: Any = None) -> Self: ...

    @overload
    def __call__(self, X: Polars, *args: Any, **kwargs: Any) -> Polars: ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame: ...


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
        reads = (
            "read it first, like pandas.read_parquet, or by batches of pyarrow.dataset for a fit"
        )
        raise TypeError(f"X must be a table or frames, got {X!r}: {reads}")
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


def as_stream(X: Any) -> Iterable[Any] | None:
    """The frames of an iterable of frames; None if X is a table in memory, or no table."""
    is_in_memory = isinstance(X, Mapping | str) or is_table(X) or hasattr(X, "__array__")
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

    def add(self, frame: pd.DataFrame) -> None:
        """Add the rows of a frame; ValueError if its columns differ from earlier ones."""
        keys = self._random.random(len(frame))
        near = np.flatnonzero(keys < self._bound)
        part = frame.take(near).reset_index(drop=True)
        if not self._parts:
            check_unique_names(part)
        names = self._parts[0].columns if self._parts else part.columns
        for name in names.symmetric_difference(part.columns, sort=False):
            raise ValueError(f"column {name!r}: not in every frame of the stream")
        self._parts.append(cast(pd.DataFrame, part[names]))
        self.n_rows, self._keys = self.n_rows + len(frame), np.append(self._keys, keys[near])
        if len(self._keys) > 1.25 * sample_size(len(names)):
            self.rows()

    def rows(self) -> pd.DataFrame:
        """The rows, in the order in which they were added; ValueError if there are none."""
        if not self._parts:
            raise too_few(0, 0)
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
    sample = Sample(seed)
    for i, table in enumerate(frames):
        part = as_frame(table)
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


def in_kind(method: Callable[Concatenate[Any, P], pd.DataFrame]) -> InKind[P]:
    """Decorate a method of a table X that returns a pandas frame: of a polars frame it returns one of polars."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, *args, **kwargs)
        X = args[0] if args else kwargs.get("X")
        return as_polars(found) if is_polars(X) and isinstance(found, pd.DataFrame) else found

    return cast(Any, call)


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

    return polars.from_pandas(of_one_type(table.rename(columns=str)), include_index=False)


def of_one_type(table: pd.DataFrame) -> pd.DataFrame:
    """A table with one type in each column, as Arrow has them: columns of several become text."""
    columns = {}
    for name, values in table.items():
        kind = infer_dtype(values) if values.dtype == object else ""
        is_mixed = kind.startswith("mixed")
        if kind == "date":  # of dates alone, or with times
            is_mixed = values.dropna().map(type).nunique() > 1
        elif kind == "integer":
            is_mixed = not values.dropna().between(-(2**63), 2**63 - 1).all()
        columns[name] = values.map(str, na_action="ignore") if is_mixed else values
    return pd.DataFrame(columns, index=table.index)


Family = Literal["boolean", "integer", "float", "datetime", "timedelta", "category", "other"]
TIMES = ("datetime", "timedelta")


def is_category(dtype: Any) -> TypeGuard[pd.CategoricalDtype]:
    """Whether it is pandas' ``category``."""
    return isinstance(dtype, pd.CategoricalDtype)


def family(dtype: Any) -> Family:
    """The kind of values of a dtype, be it numpy's, nullable, sparse or Arrow's."""
    if is_category(dtype):
        return "category"
    of_kind: dict[str, Family] = {
        "b": "boolean", "i": "integer", "u": "integer", "f": "float", "M": "datetime", "m": "timedelta",
    }  # fmt: skip
    return of_kind.get(dtype.kind, "other")


def is_dictionary(dtype: Any) -> bool:
    """Whether it is an Arrow dictionary, the categories of Arrow."""
    return isinstance(dtype, pd.ArrowDtype) and "dictionary" in str(dtype)


def is_decimal(dtype: Any) -> bool:
    """Whether it is an Arrow type of decimal numbers."""
    return isinstance(dtype, pd.ArrowDtype) and str(dtype).startswith("decimal")


def time_unit(dtype: Any) -> str:
    """The unit, "s" to "ns", of a dtype of times."""
    if isinstance(dtype, pd.ArrowDtype):
        return getattr(dtype.pyarrow_dtype, "unit", "s")  # dates have none
    return dtype.unit if isinstance(dtype, pd.DatetimeTZDtype) else np.datetime_data(dtype)[0]


def time_zone(dtype: Any) -> Any:
    """The time zone of times of the dtype, None without one."""
    zoned = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else dtype
    return getattr(zoned, "tz", None)


def numpy_name(dtype: Any) -> str:
    """The name of the numpy dtype of numbers of that size."""
    if isinstance(dtype, pd.SparseDtype):
        return str(dtype.subtype)
    return str(getattr(dtype, "numpy_dtype", dtype))


def holding_missing(dtype: Any, any_missing: bool) -> Any:
    """The dtype, or its nullable counterpart if a cell is missing and numpy's dtype cannot represent that."""
    if any_missing and isinstance(dtype, np.dtype) and dtype.kind in "biu":
        return pd.Series(dtype=dtype).convert_dtypes().dtype
    return dtype


def check_supported(name: Any, dtype: Any) -> None:
    """ValueError, naming the column, if values of the dtype cannot be read or the dtype cannot be saved."""
    if is_category(dtype):
        return
    with suppress(TypeError, ValueError, LookupError):
        is_other = dtype.kind == "c" or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype)
        if not is_other and dtype_from_json(dtype_to_json(dtype)) == dtype:
            return
    how = "make them numbers, times or text"
    raise ValueError(f"column {name!r}: values of dtype {dtype} are not supported; {how}")


def dtype_to_json(dtype: Any) -> str | dict[str, Any]:
    """Plain data from which :func:`dtype_from_json` makes the dtype; categories and codes are not included."""
    if is_category(dtype):
        categories = dtype_to_json(dtype.categories.dtype)
        return {"categories": categories, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype):
        return {"string": str(dtype.storage), "nan": dtype.na_value is not pd.NA}
    if isinstance(dtype, pd.ArrowDtype):
        return {"arrow": str(dtype.pyarrow_dtype)}
    return str(dtype)


def dtype_from_json(data: Any) -> Any:
    """The dtype written by :func:`dtype_to_json`, without categories.

    A TypeError, ValueError or LookupError if the data describe no dtype, or one of a package that is not installed.
    """
    if isinstance(data, str):
        return pandas_dtype(data)
    if "categories" in data:
        none = pd.Index([], dtype=dtype_from_json(data["categories"]))
        return pd.CategoricalDtype(none, ordered=data["ordered"])
    try:
        if "string" in data:
            return pd.StringDtype(data["string"], na_value=np.nan if data["nan"] else pd.NA)
        import pyarrow as pa

        if data["arrow"] in ("string", "date64[ms]"):  # pandas reads these names as something else
            arrow: Any = pa.type_for_alias(data["arrow"])
        else:
            arrow = cast(Any, pandas_dtype(f"{data['arrow']}[pyarrow]")).pyarrow_dtype
        return pd.ArrowDtype(arrow)
    except (ImportError, NotImplementedError) as error:
        raise ValueError(f"dtype {data!r}: {error}") from None


Scalar = str | int | float | bool
EXACT_BELOW = 2.0**52  # whole numbers below, and their halves, are exact as floats
MOST_DECIMALS = 6  # most decimals to which numbers are rounded when they are given back


class PlainCells(NamedTuple):
    """The cells of a column as plain numpy values.

    ``values`` (P,) are those that occur, of a ``category`` dtype each once, otherwise one per present cell; ``where``
    (N,) is the index in these of each cell, -1 where the cell is missing.
    """

    values: np.ndarray
    where: np.ndarray

    def first(self, is_wanted: np.ndarray) -> Any:
        """The first cell, from the top, whose value is wanted: a Python scalar."""
        rows = self.where[self.where >= 0]
        value = self.values[rows[int(np.argmax(is_wanted[rows]))]]
        return value if isinstance(value, np.datetime64 | np.timedelta64) else plain(value)


def plain(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def read_cells(column: pd.Series | pd.Index) -> PlainCells:
    """The cells of a column of any dtype; numbers and times in object columns are recognised."""
    dtype: Any = column.dtype
    if is_category(dtype):
        codes = cast(pd.Categorical, column.array).codes
        used = np.unique(codes[codes >= 0])
        position = np.full(len(dtype.categories) + 1, -1)  # the last one is for code -1
        position[used] = np.arange(len(used))
        return PlainCells(read_cells(dtype.categories[used]).values, position[codes])
    if isinstance(dtype, pd.SparseDtype):
        column = pd.Series(column).sparse.to_dense()
    if family(dtype) == "float":  # NaN may hide among the cells of nullable and Arrow floats
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        present = ~np.isnan(numbers)
        values = numbers[present]
    else:
        try:
            present = ~np.asarray(column.array.isna())
        except InvalidOperation:
            raise ValueError(f"column {column.name!r}: contains Decimal('sNaN')") from None
        # of one row, to select all cells would cost as much as the rest
        values = _plain_values(column if present.all() else cast(pd.Series, column[present]))
    return PlainCells(values, np.where(present, np.cumsum(present) - 1, -1))


def read_few(cells: np.ndarray) -> PlainCells | None:
    """:func:`read_cells` of a few objects, faster; None unless all are text, numbers or booleans of one type."""
    plain_dtypes: dict[type, Any] = {str: object, float: float, bool: bool, int: np.int64}
    dtype = plain_dtypes.get(type(cells[0])) if len({*map(type, cells)}) == 1 else None
    if dtype is None:
        return None
    try:
        values = cells.astype(dtype)
    except OverflowError:
        return None
    if dtype is float and np.isnan(values).any():
        return None
    return PlainCells(values, np.arange(len(values)))


def _plain_values(column: pd.Series | pd.Index) -> np.ndarray:
    dtype: Any = column.dtype
    match family(dtype):
        case "boolean":
            return column.to_numpy(dtype=bool)
        case "integer":
            return column.to_numpy(dtype=np.int64 if dtype.kind == "i" else np.uint64)
        case "datetime" | "timedelta":
            return read_times(pd.Series(column))
    cells = column.to_numpy(dtype=object)
    match infer_dtype(cells):
        case "boolean":
            return cells.astype(bool)
        case "floating" | "decimal":
            return cells.astype(float)
        case "integer":
            with suppress(OverflowError):  # exact as Python's integers, whatever their size
                return cells.astype(np.int64)
        case "date":
            return read_times(pd.to_datetime(pd.Series(column)))
        case "datetime" | "datetime64" | "timedelta" | "timedelta64":
            found = pd.Series(column).infer_objects()
            if found.dtype != object:  # mixed time zones stay
                return read_times(found)
    return cells


def holds_text(values: pd.Series) -> bool:
    """Whether cells of a column are strings, of any dtype, ``category`` among them."""
    dtype: Any = values.dtype
    if is_category(dtype):
        return holds_text(pd.Series(dtype.categories))
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return any(isinstance(v, str) for v in values)
    return is_dictionary(dtype) or pd.api.types.is_string_dtype(dtype)


def text_among(values: np.ndarray) -> np.ndarray:
    """Which plain values are text, bool (P,)."""
    if values.dtype != object or infer_dtype(values) == "string":
        return np.full(len(values), values.dtype == object)
    return np.array([isinstance(v, str) for v in values], dtype=bool)


def is_number(values: np.ndarray) -> bool:
    """Whether plain values are all numbers, truth values not counted."""
    if values.dtype != object:
        return family(values.dtype) in ("integer", "float")
    return infer_dtype(values) in ("integer", "mixed-integer-float", "floating")


def as_numbers(
    name: Hashable, cells: PlainCells, expected: str, origin: int = 0, step: int = 1
) -> np.ndarray:
    """Plain values as float64: numbers as they are, times as steps of ``step`` nanoseconds from a second ``origin``.

    ValueError, naming the column, if one is infinite or not as ``expected``: "number", "datetime" or "timedelta".
    """
    values = cells.values
    if not len(values):
        return np.zeros(0)
    if expected != "number":
        if family(values.dtype) != expected:
            first = cells.first(np.ones(len(values), bool))
            raise ValueError(f"column {name!r}: expected {expected}s, got {first!r}")
        return times_to_steps(values, origin, step)
    if not is_number(values):
        real = int | float | np.integer | np.floating
        wrong = np.array([isinstance(plain(v), bool) or not isinstance(v, real) for v in values])
        raise ValueError(f"column {name!r}: expected numbers, got {cells.first(wrong)!r}")
    try:
        numbers = values.astype(float)
    except OverflowError:
        raise ValueError(f"column {name!r}: contains an integer too large for a float") from None
    if np.isinf(numbers).any():
        raise ValueError(f"column {name!r}: contains infinity")
    return numbers


def restore_categories(values: Sequence[Scalar], codes: np.ndarray, dtype: Any) -> pd.Series:
    """Cells of a dtype from codes of categories; -1 is a missing cell."""
    if is_category(dtype):
        return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))
    dtype = holding_missing(dtype, bool((codes < 0).any()))
    cells = pd.Series(list(values), dtype=dtype).reindex(codes).reset_index(drop=True)
    return cells.where(cells.notna(), None) if dtype == np.dtype(object) else cells


def decimals_of(values: np.ndarray, dtype: Any) -> int | None:
    """The fewest decimals, up to six, with which all numbers are written; None if they need more."""
    width = numpy_name(dtype) if numpy_name(dtype) in ("float16", "float32") else "float64"
    own = values.astype(width)
    for decimals in range(MOST_DECIMALS + 1):
        if bool((rounded(values, decimals).astype(width) == own).all()):
            return decimals
    return None


def rounding(values: Any) -> Any:
    """Distance (N,) within which a number counts as equal to each of the values: two float32 roundings, at most 1/4.

    0.1 + 0.2 is 0.3, and one file may have float32 where another has float64; integers stay distinct.
    """
    return np.minimum(np.abs(values) * 2.0**-23, 0.25)


def log_anywhere(
    values: np.ndarray, low: float, high: float, step: float, power: float = 1.0
) -> np.ndarray:
    """The logarithm of a mass for each of the values (N,) of a lattice: added up over all of it they are one.

    Even between ``low`` and ``high``, half a step beyond the range of other numbers, with probability one half; what
    lies farther from the middle of that range than a number beyond it falls with a ``power`` of the distance.
    """
    half = max(high / 2 - low / 2, step / 2)
    with np.errstate(over="ignore"):
        away = np.abs(values / 2 - (low / 4 + high / 4)) / (half / 2)
    cell = step / 2 / half
    near = np.clip(away - cell, 1.0, 1e150)
    beyond = np.log(-np.expm1(-power * np.log1p(2 * cell / near)) / 4) - power * np.log(near)
    return np.where(away < 1, np.log(cell / 2), beyond)


def rounded(numbers: np.ndarray, decimals: int) -> np.ndarray:
    """Numbers with as many decimals; those too large to have any stay as they are."""
    small = np.abs(numbers) < EXACT_BELOW / 10**decimals
    return np.where(small, np.round(np.where(small, numbers, 0.0), decimals), numbers)


def restore_numbers(
    numbers: np.ndarray, dtype: Any, whole: bool, decimals: int | None = None
) -> pd.Series:
    """Cells of a dtype from float64 numbers; NaN is a missing cell.

    Integers are rounded, others to ``decimals``; numbers out of the range of the dtype are clipped to it.
    """
    missing, of, width = np.isnan(numbers), family(dtype), numpy_name(dtype)
    numbers = np.where(missing, 0.0, np.rint(numbers) if whole else numbers)
    if decimals is not None and not whole:
        numbers = rounded(numbers, decimals)
    numbers = numbers + 0.0  # no negative zero
    if of not in ("integer", "float"):
        values = np.array([int(v) for v in numbers] if whole else numbers.tolist(), dtype=object)
        values[missing] = None
        return pd.Series(values, dtype=object).astype(dtype)
    if of == "integer":
        limits = np.iinfo(width)
        low, high = float(limits.min), float(limits.max)
        if high > limits.max:  # the nearest float to 2^63 - 1 is 2^63
            high = np.nextafter(high, 0.0)
        numbers = np.clip(numbers, low, high).astype(width)
    elif width in ("float16", "float32"):
        numbers = np.clip(numbers, np.finfo(width).min, np.finfo(width).max)
    cells = pd.Series(numbers).astype(holding_missing(dtype, bool(missing.any())))
    return cells.where(~missing) if missing.any() else cells


NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # of one tick of each unit
DAY, HOUR, MINUTE, SECOND = 86_400 * 10**9, 3_600 * 10**9, 60 * 10**9, 10**9  # nanoseconds


def read_times(column: pd.Series) -> np.ndarray:
    """A column of times as numpy's ``datetime64`` or ``timedelta64``; those with a time zone in UTC."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        kind = "timedelta64" if family(dtype) == "timedelta" else "datetime64"
        zone = ", UTC" if time_zone(dtype) else ""
        column = column.astype(f"{kind}[{time_unit(dtype)}{zone}]")
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(None)
    return column.to_numpy()


def time_grid(values: np.ndarray) -> tuple[int, int]:
    """Origin in seconds and step in nanoseconds of the coarsest regular grid on which times lie.

    The origin lies up to 1024 steps, or seconds, before the earliest time, which may tell who it belongs to.
    """
    tick = NANOSECONDS[time_unit(values.dtype)]
    ticks = values.astype(np.int64)
    origin, found = int(ticks.min()) * tick // 10**9, tick
    for step in (DAY, HOUR, MINUTE, SECOND, 10**6, 10**3, 1):
        if step % tick == 0:
            phase = (origin * 10**9 // tick) % (step // tick)
            if (ticks % (step // tick) == phase).all():
                found = step
                break
    unit = max(found // SECOND, 1)
    return origin - origin // unit % 1024 * unit, found


def times_to_steps(values: np.ndarray, origin: int, step: int) -> np.ndarray:
    """Times as float64 numbers of steps (of ``step`` nanoseconds) since the origin (in seconds)."""
    ticks, tick = values.astype(np.int64), NANOSECONDS[time_unit(values.dtype)]
    per_second = 10**9 // tick
    # seconds and their parts one by one: floats of both lose the parts, and differences of integers may overflow
    seconds = (ticks // per_second).astype(float) - origin
    return seconds * 1e9 / step + (ticks % per_second * tick) / step


def restore_times(numbers: np.ndarray, dtype: Any, origin: int, step: int) -> pd.Series:
    """Cells of a dtype of times from numbers of steps since the origin, rounded; NaN is a missing cell."""
    unit = time_unit(dtype)
    tick, missing = NANOSECONDS[unit], np.isnan(numbers)
    high = (2**63 - 4096) * tick // 10**9  # a float below 2^63
    low = -high
    if family(dtype) == "datetime":
        # the years 2 to 9998: calendars end a year further out
        low, high = max(low, -62_104_060_800), min(high, 253_339_228_800)
    steps = np.rint(np.where(missing, 0.0, numbers))
    ends = -((origin - low) * 10**9 // step), (high - origin) * 10**9 // step
    steps = np.clip(steps, float(ends[0]), float(ends[1]))
    # The origin and the distance from it may have more than 64 bits, their sum has not: integers modulo 2^64 are exact.
    high_bits, low_bits = (part.astype(np.int64) for part in np.divmod(steps, 2.0**32))
    start = (origin * 10**9 // tick + 2**63) % 2**64 - 2**63
    ticks = ((high_bits << 32) + low_bits) * (step // tick) + start
    ticks[missing] = np.iinfo(np.int64).min  # NaT
    if family(dtype) == "timedelta":
        return pd.Series(ticks.view(f"timedelta64[{unit}]")).astype(dtype)
    cells = pd.Series(ticks.view(f"datetime64[{unit}]"))
    return (cells.dt.tz_localize("UTC") if time_zone(dtype) else cells).astype(dtype)
