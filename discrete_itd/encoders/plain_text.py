"""Text of numbers, times and durations as Python and ISO 8601 write them, each cell read by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.dtypes import has_time_zone, time_unit

DATE = r"\d{4}-\d\d-\d\d"  # at the start of an ISO date or time
EXACT = 2.0**53  # floats below are exact as integers


def read_plainly(texts: Sequence[str], family: str, dtype: Any) -> np.ndarray:
    """What texts say in a column of a dtype: float64, datetime64 (of UTC) or timedelta64; missing where none.

    Parameters
    ----------
    texts : sequence of K str
    family : {"number", "datetime", "timedelta"}
    dtype : dtype
        Of the column: its times are read as finely.

    Examples
    --------
    >>> read_plainly(["121.2", "1e3", "1.234,50"], "number", np.dtype(float))
    array([ 121.2, 1000. ,    nan])
    """
    cells = np.array(texts, dtype=object)
    if family == "number":
        return floats_of(cells)
    if family == "timedelta":
        return durations_of(cells).to_numpy()
    times = times_of(cells, dtype)
    return (times.dt.tz_convert(None) if has_time_zone(times.dtype) else times).to_numpy()


def floats_of(cells: np.ndarray) -> np.ndarray:
    """The numbers that texts are; NaN where there is none."""
    together = "".join(cells)
    if together.isascii() and "_" not in together:
        try:
            return cells.astype(float)
        except ValueError:  # a word among them
            pass
    return np.array([number_of(text) for text in cells], dtype=float)


def number_of(text: str) -> float:
    """The number that a text is, correctly rounded; NaN if it is none."""
    if not text.isascii() or "_" in text:  # Python's own notation, not that of tables
        return np.nan
    try:
        return float(text)
    except ValueError:
        return np.nan


def whole_of(text: str, number: float) -> int | float:
    """The number as an integer if it is whole, exact even where floats are not."""
    if abs(number) < EXACT:
        return int(number) if number == int(number) else number
    try:
        return int(text)
    except ValueError:
        return number


def times_of(cells: np.ndarray, dtype: Any) -> pd.Series:
    """The ISO dates and times that texts are, with a time zone if the dtype has one (then UTC's); NaT for others."""
    texts = pd.Series(cells, dtype=object)
    dates = texts.where(texts.str.match(DATE))
    # microseconds hold every year; pandas would choose a unit for all cells together
    unit = "ns" if time_unit(dtype) == "ns" else "us"
    try:
        found = pd.to_datetime(dates, format="ISO8601", errors="coerce", utc=True).dt.as_unit(unit)
    except pd.errors.OutOfBoundsDatetime:
        found = pd.Series(pd.NaT, index=dates.index, dtype=f"datetime64[{unit}, UTC]")
    for i in np.flatnonzero((found.isna() & dates.notna()).to_numpy()):
        with suppress(ValueError, OverflowError):
            found.iloc[i] = pd.to_datetime(dates.iloc[i], format="ISO8601", utc=True).as_unit(unit)
    return found if has_time_zone(dtype) else found.dt.tz_localize(None)


def durations_of(cells: np.ndarray) -> pd.Series:
    """The durations, like "1 days 02:00:00", that texts are; NaT for others, numbers without a unit among them."""
    texts = pd.Series(cells, dtype=object)
    has_unit = [bool(np.isnan(number_of(text))) for text in cells]
    return pd.to_timedelta(texts.where(np.array(has_unit, dtype=bool)), errors="coerce")


def as_text(values: pd.Series, *, days: bool = False) -> pd.Series:
    """Cells as a CSV has them, each by itself; missing ones stay missing.

    Parameters
    ----------
    values : Series
    days : bool
        Whether times at the beginning of a day are written as dates.
    """
    present = values.notna().to_numpy()
    if (
        values.dtype.kind == "f"
    ):  # as Python's floats, small ones would have digits of their rounding
        numbers = values.to_numpy()
        is_float = numbers.dtype == np.dtype(float)
        cells = map(repr, numbers.tolist()) if is_float else numbers.astype(str).tolist()
    else:
        cells = map(str, values.astype(object).tolist())
    texts = [cell if known else None for cell, known in zip(cells, present, strict=True)]
    if days:
        texts = [t and t.removesuffix(" 00:00:00") for t in texts]
    return pd.Series(texts, index=values.index, dtype=object)
