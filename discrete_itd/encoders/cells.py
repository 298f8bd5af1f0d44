"""Cells of a pandas column <-> plain numpy values.

Every dtype is read as one of a few plain arrays: bool, int64 or uint64, float64, datetime64, timedelta64, or
Python objects (text and everything else). Missing cells, however the dtype represents them, are left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from discrete_itd.encoders.datetimes import read_times, times_to_steps
from discrete_itd.encoders.dtypes import (
    family,
    holding_missing,
    is_category,
    is_dictionary,
    numpy_name,
)

Scalar = str | int | float | bool
MOST_DECIMALS = 6  # of numbers that are given back rounded


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
    """A numpy scalar as Python's own.

    Examples
    --------
    >>> plain(np.int64(3))
    3
    """
    return value.item() if isinstance(value, np.generic) else value


def read_cells(column: pd.Series | pd.Index) -> PlainCells:
    """The cells of a column of any dtype; numbers and times in object columns are recognised."""
    dtype: Any = column.dtype
    if is_category(dtype):
        codes = cast(pd.Categorical, column.array).codes
        used = np.unique(codes[codes >= 0])
        position = np.full(len(dtype.categories) + 1, -1)  # the last is that of code -1
        position[used] = np.arange(len(used))
        return PlainCells(read_cells(dtype.categories[used]).values, position[codes])
    if isinstance(dtype, pd.SparseDtype):
        column = pd.Series(column).sparse.to_dense()
    if (
        family(dtype) == "float"
    ):  # NaN may hide among the present cells of nullable and Arrow floats
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        present = ~np.isnan(numbers)
        values = numbers[present]
    else:
        try:
            present = ~np.asarray(column.array.isna())
        except ArithmeticError:  # no other value refuses to be compared
            raise ValueError(f"column {column.name!r}: a decimal is a signalling NaN") from None
        # of one row, to select all cells would cost as much as the rest
        values = _plain_values(column if present.all() else cast(pd.Series, column[present]))
    return PlainCells(values, np.where(present, np.cumsum(present) - 1, -1))


def read_cell(value: Any) -> PlainCells | None:
    """What :func:`read_cells` makes of a column of one cell, if its value is one of Python's plain ones; else None."""
    kind = type(value)
    if kind is str:
        return PlainCells(np.array([value], dtype=object), np.array([0]))
    if kind is float and value != value:
        return PlainCells(np.zeros(0), np.array([-1]))
    if kind in (float, bool) or (kind is int and -(2**63) <= value < 2**63):
        return PlainCells(np.array([value]), np.array([0]))
    return None


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
        case "floating":
            return cells.astype(float)
        case "integer":
            try:
                return cells.astype(np.int64)
            except OverflowError:
                return cells  # exact as Python's integers, whatever their size
        case "date":
            return read_times(pd.to_datetime(pd.Series(column)))
        case "decimal":
            return cells.astype(float)
        case "datetime" | "datetime64" | "timedelta" | "timedelta64":
            found = pd.Series(column).infer_objects()
            return cells if found.dtype == object else read_times(found)  # mixed time zones stay
    return cells


def holds_text(values: pd.Series) -> bool:
    """Whether cells of a column are strings, of any dtype, ``category`` among them."""
    dtype: Any = values.dtype
    if is_category(dtype):
        return holds_text(pd.Series(dtype.categories))
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return any(isinstance(v, str) for v in values)
    return is_dictionary(dtype) or pd.api.types.is_string_dtype(dtype)


def is_number(values: np.ndarray) -> bool:
    """Whether plain values are all numbers, truth values not counted."""
    if values.dtype != object:
        return family(values.dtype) in ("integer", "float")
    return infer_dtype(values) in ("integer", "mixed-integer-float", "floating")


def as_numbers(
    name: Hashable, cells: PlainCells, expected: str, origin: int = 0, step: int = 1
) -> np.ndarray:
    """Plain values as float64: numbers as they are, times as steps from an origin.

    Parameters
    ----------
    name : hashable
        The column's name, for errors.
    cells : PlainCells, P values
    expected : {"number", "datetime", "timedelta"}
        What the values must be.
    origin, step : int
        Of times: the second from which steps count, and their length in nanoseconds.

    Returns
    -------
    ndarray of float64, shape (P,)

    Raises
    ------
    ValueError
        If a value is infinite or not what is expected.
    """
    values = cells.values
    if not len(values):
        return np.zeros(0)
    if expected == "number":
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
    if family(values.dtype) != expected:
        odd = np.ones(len(values), bool)
        raise ValueError(f"column {name!r}: expected {expected}s, got {cells.first(odd)!r}")
    return times_to_steps(values, origin, step)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


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
    """How far from each of the values (N,) another counts as the same number: two float32 roundings, at most 1/4.

    0.1 + 0.2 is 0.3, and a file may keep as float32 what another has as float64; whole numbers stay apart.
    """
    return np.minimum(np.abs(values) * 2.0**-23, 0.25)


def rounded(numbers: np.ndarray, decimals: int) -> np.ndarray:
    """Numbers with as many decimals; those too large to have any stay as they are."""
    small = np.abs(numbers) < 2.0**52 / 10**decimals
    return np.where(small, np.round(np.where(small, numbers, 0.0), decimals), numbers)


def restore_numbers(
    numbers: np.ndarray, dtype: Any, whole: bool, decimals: int | None = None
) -> pd.Series:
    """Cells of a dtype from float64 numbers; NaN is a missing cell.

    Whole numbers are rounded, others to as many decimals; what the dtype cannot hold becomes the nearest number that it
    can.
    """
    missing = np.isnan(numbers)
    numbers = np.where(missing, 0.0, np.rint(numbers) if whole else numbers)
    if decimals is not None and not whole:
        numbers = rounded(numbers, decimals)
    if family(dtype) == "integer":
        limits = np.iinfo(numpy_name(dtype))
        low, high = float(limits.min), float(limits.max)
        if high > limits.max:  # the nearest float to 2^63 - 1 is 2^63
            high = np.nextafter(high, 0.0)
        cells = pd.Series(np.clip(numbers, low, high).astype(numpy_name(dtype)))
        cells = cells.astype(holding_missing(dtype, bool(missing.any())))
        return cells.where(~missing) if missing.any() else cells
    if family(dtype) == "float":
        if (width := numpy_name(dtype)) in ("float16", "float32"):
            numbers = np.clip(numbers, np.finfo(width).min, np.finfo(width).max)
        cells = pd.Series(numbers).astype(dtype)
        return cells.where(~missing) if missing.any() else cells
    values = np.array([int(v) for v in numbers] if whole else numbers.tolist(), dtype=object)
    values[missing] = None
    return pd.Series(values, dtype=object).astype(dtype)
