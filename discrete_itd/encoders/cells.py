"""Cells of a pandas column <-> plain numpy values: the one place that knows dtypes.

Every dtype is read as one of a few plain arrays: bool, int64 or uint64, float64, datetime64, timedelta64, or
Python objects (text, and whatever else there is). Missing cells, however a dtype spells them, are left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, pandas_dtype

Scalar = str | int | float | bool

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # of one tick of each unit
STEPS = (86_400 * 10**9, 3_600 * 10**9, 60 * 10**9, 10**9, 10**6, 10**3, 1)  # a day, an hour, ...
YEARS_2_TO_9998 = (-62_104_060_800, 253_339_228_800)  # seconds; calendars end a year further out


class PlainCells(NamedTuple):
    """The cells of a column as plain numpy values.

    Attributes
    ----------
    values : ndarray, shape (P,)
        Values that occur; of a ``category`` dtype each once, otherwise one per present cell.
    where : ndarray of int64, shape (N,)
        Index in ``values`` of each cell, -1 where the cell is missing.
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


def read_cells(column: pd.Series) -> PlainCells:
    """The cells of a column of any dtype; numbers and times in object columns are found out."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy()
        used = np.unique(codes[codes >= 0])
        position = np.full(len(dtype.categories) + 1, -1)  # the last is that of code -1
        position[used] = np.arange(len(used))
        return PlainCells(read_cells(pd.Series(dtype.categories[used])).values, position[codes])
    if isinstance(dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
    if dtype.kind == "f":  # NaN may hide among the present cells of nullable and Arrow floats
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        present = ~np.isnan(numbers)
        values = numbers[present]
    else:
        present = column.notna().to_numpy()
        values = _plain_values(cast(pd.Series, column[present]))
    return PlainCells(values, np.where(present, np.cumsum(present) - 1, -1))


def _plain_values(column: pd.Series) -> np.ndarray:
    dtype: Any = column.dtype
    match dtype.kind:
        case "b":
            return column.to_numpy(dtype=bool)
        case "i" | "u":
            return column.to_numpy(dtype=np.int64 if dtype.kind == "i" else np.uint64)
        case "M" | "m":
            return _instants(column)
    cells = column.to_numpy(dtype=object)
    match infer_dtype(cells):
        case "boolean":
            return cells.astype(bool)
        case "floating":
            return cells.astype(float)
        case "integer":
            try:
                return cells.astype(np.int64)
            except OverflowError:
                return cells  # exact as Python's integers, whatever their size
        case "date":
            return _instants(pd.to_datetime(column))
        case "decimal":
            return cells.astype(float)
        case "datetime" | "datetime64" | "timedelta" | "timedelta64":
            found = column.infer_objects()
            return cells if found.dtype == object else _instants(found)  # mixed time zones stay
    return cells


def _instants(column: pd.Series) -> np.ndarray:
    """Times as numpy's own; those with a time zone in UTC."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        unit, zone = time_unit(dtype), getattr(dtype.pyarrow_dtype, "tz", None)
        kind = "timedelta64" if dtype.kind == "m" else "datetime64"
        column = column.astype(f"{kind}[{unit}, UTC]" if zone else f"{kind}[{unit}]")
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(None)
    return column.to_numpy()


def time_unit(dtype: Any) -> str:
    """The unit, "s" to "ns", of a dtype of times."""
    if isinstance(dtype, pd.ArrowDtype):
        return getattr(dtype.pyarrow_dtype, "unit", "s")  # dates have none
    return dtype.unit if isinstance(dtype, pd.DatetimeTZDtype) else np.datetime_data(dtype)[0]


def is_number(values: np.ndarray) -> bool:
    """Whether plain values are all numbers, truth values not counted."""
    if values.dtype.kind != "O":
        return values.dtype.kind in "iuf"
    return infer_dtype(values) in ("integer", "mixed-integer-float", "floating")


def as_numbers(
    name: Hashable, cells: PlainCells, family: str, origin: int = 0, step: int = 1
) -> np.ndarray:
    """Plain values as float64: numbers as they are, times as steps from an origin.

    Parameters
    ----------
    name : hashable
        The column's name, for errors.
    cells : PlainCells, P values
    family : {"number", "datetime", "timedelta"}
        What the values must be.
    origin, step : int
        Of times: from which second to count, and in how many nanoseconds.

    Returns
    -------
    ndarray of float64, shape (P,)

    Raises
    ------
    ValueError
        If a value is infinite or of another family.
    """
    values = cells.values
    if not len(values):
        return np.zeros(0)
    if family == "number":
        if not is_number(values):
            odd = np.array([isinstance(plain(v), bool) or not _is_real(v) for v in values])
            raise ValueError(f"column {name!r}: expected numbers, got {cells.first(odd)!r}")
        try:
            numbers = values.astype(float)
        except OverflowError:
            raise ValueError(
                f"column {name!r}: contains an integer too large for a float"
            ) from None
        if np.isinf(numbers).any():
            raise ValueError(f"column {name!r}: contains infinity")
        return numbers
    if values.dtype.kind != ("M" if family == "datetime" else "m"):
        odd = np.ones(len(values), bool)
        raise ValueError(f"column {name!r}: expected {family}s, got {cells.first(odd)!r}")
    ticks, tick = values.astype(np.int64), NANOSECONDS[time_unit(values.dtype)]
    per_second = 10**9 // tick
    # seconds and their parts one by one, or integers would overflow and floats lose the parts
    return (ticks // per_second - origin) * 1e9 / step + (ticks % per_second * tick) / step


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


def time_grid(values: np.ndarray) -> tuple[int, int]:
    """Origin in seconds and step in nanoseconds of the coarsest regular grid on which times lie."""
    tick = NANOSECONDS[time_unit(values.dtype)]
    ticks = values.astype(np.int64)
    origin = int(ticks.min()) * tick // 10**9
    for step in STEPS:
        if step % tick == 0:
            phase = (origin * 10**9 // tick) % (step // tick)
            if (ticks % (step // tick) == phase).all():
                return origin, step
    return origin, tick


def restore_categories(values: Sequence[Scalar], codes: np.ndarray, dtype: Any) -> pd.Series:
    """Cells of a dtype from codes of categories; -1 is a missing cell."""
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))
    dtype = _holding_missing(dtype, bool((codes < 0).any()))
    cells = pd.Series(list(values), dtype=dtype).reindex(codes).reset_index(drop=True)
    return (
        cells.where(cells.notna(), None)
        if dtype.kind == "O" and isinstance(dtype, np.dtype)
        else cells
    )


def restore_numbers(numbers: np.ndarray, dtype: Any, whole: bool) -> pd.Series:
    """Cells of a dtype from float64 numbers; NaN is a missing cell.

    Whole numbers are rounded; what the dtype cannot hold becomes the nearest number that it can.
    """
    missing = np.isnan(numbers)
    numbers = np.where(missing, 0.0, np.rint(numbers) if whole else numbers)
    if dtype.kind in "iu":
        limits = np.iinfo(_numpy_name(dtype))
        low, high = float(limits.min), float(limits.max)
        if high > limits.max:  # the nearest float to 2^63 - 1 is 2^63
            high = np.nextafter(high, 0.0)
        cells = pd.Series(np.clip(numbers, low, high).astype(_numpy_name(dtype)))
        cells = cells.astype(_holding_missing(dtype, bool(missing.any())))
        return cells.where(~missing) if missing.any() else cells
    if dtype.kind == "f":
        if (width := _numpy_name(dtype)) in ("float16", "float32"):
            numbers = np.clip(numbers, np.finfo(width).min, np.finfo(width).max)
        cells = pd.Series(numbers).astype(dtype)
        return cells.where(~missing) if missing.any() else cells
    values = np.array([int(v) for v in numbers] if whole else numbers.tolist(), dtype=object)
    values[missing] = None
    return pd.Series(values, dtype=object).astype(dtype)


def restore_times(numbers: np.ndarray, dtype: Any, origin: int, step: int) -> pd.Series:
    """Cells of a dtype of times from numbers of steps since the origin, rounded; NaN is a missing cell."""
    unit = time_unit(dtype)
    tick, missing = NANOSECONDS[unit], np.isnan(numbers)
    high = (2**63 - 4096) * tick // 10**9  # a float below 2^63
    low = -high
    if dtype.kind == "M":
        low, high = max(low, YEARS_2_TO_9998[0]), min(high, YEARS_2_TO_9998[1])
    steps = np.rint(np.where(missing, 0.0, numbers))
    ends = -((origin - low) * 10**9 // step), (high - origin) * 10**9 // step
    steps = np.clip(steps, float(ends[0]), float(ends[1])).astype(np.int64)
    ticks = steps * (step // tick) + origin * 10**9 // tick
    ticks[missing] = np.iinfo(np.int64).min  # NaT
    if dtype.kind == "m":
        return pd.Series(ticks.view(f"timedelta64[{unit}]")).astype(dtype)
    cells = pd.Series(ticks.view(f"datetime64[{unit}]"))
    zoned = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else dtype
    return (cells.dt.tz_localize("UTC") if getattr(zoned, "tz", None) else cells).astype(dtype)


def _numpy_name(dtype: Any) -> str:
    """The name of the numpy dtype of numbers of that size."""
    if isinstance(dtype, pd.SparseDtype):
        return str(dtype.subtype)
    return str(getattr(dtype, "numpy_dtype", dtype))


def _holding_missing(dtype: Any, any_missing: bool) -> Any:
    """The dtype, or, where numpy's own cannot leave a cell out, the nullable one like it."""
    if any_missing and isinstance(dtype, np.dtype) and dtype.kind in "biu":
        name = dtype.newbyteorder("=").name
        return pandas_dtype(
            {"b": "boolean"}.get(dtype.kind) or name.replace("int", "Int").replace("uI", "UI")
        )
    return dtype


def dtype_to_json(dtype: Any) -> str | dict[str, Any]:
    """Plain data from which :func:`dtype_from_json` makes the dtype; the categories of one are not kept."""
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype_to_json(dtype.categories.dtype)
        return {"categories": categories, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype):
        return {"string": str(dtype.storage), "nan": dtype.na_value is not pd.NA}
    if isinstance(dtype, pd.ArrowDtype):
        arrow: Any = dtype.pyarrow_dtype
        if str(arrow).startswith("dictionary"):
            kinds = {"arrow": str(arrow.value_type), "index": str(arrow.index_type)}
            return {**kinds, "ordered": bool(arrow.ordered)}
        return {"arrow": str(arrow)}
    return str(dtype)


def dtype_from_json(data: Any, categories: Sequence[Scalar] = ()) -> Any:
    """The dtype that :func:`dtype_to_json` wrote.

    Raises
    ------
    TypeError, ValueError, LookupError
        If the data describe no dtype, or one of a package that is not installed.
    """
    if isinstance(data, str):
        return pandas_dtype(data)
    if "categories" in data:
        names = pd.Index(list(categories), dtype=dtype_from_json(data["categories"]))
        return pd.CategoricalDtype(names, ordered=data["ordered"])
    try:
        if "string" in data:
            missing = {"na_value": np.nan} if data["nan"] else {}
            return pd.StringDtype(data["string"], **missing)
        import pyarrow as pa

        if data["arrow"] in ("string", "date64[ms]"):  # pandas reads these names as something else
            arrow: Any = pa.type_for_alias(data["arrow"])
        else:
            arrow = cast(Any, pandas_dtype(f"{data['arrow']}[pyarrow]")).pyarrow_dtype
        if "index" in data:
            arrow = pa.dictionary(pa.type_for_alias(data["index"]), arrow, data["ordered"])
        return pd.ArrowDtype(arrow)
    except (ImportError, NotImplementedError) as error:
        raise ValueError(f"dtype {data!r}: {error}") from None
