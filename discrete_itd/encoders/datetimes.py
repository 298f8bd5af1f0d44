"""Dates, times and durations: read from a column as numbers of steps on a regular grid, and restored from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.dtypes import family, has_time_zone, time_unit

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # of one tick of each unit
STEPS = (86_400 * 10**9, 3_600 * 10**9, 60 * 10**9, 10**9, 10**6, 10**3, 1)  # a day, an hour, ...
ORIGINS = 1024  # steps of which one is an origin
YEARS_2_TO_9998 = (-62_104_060_800, 253_339_228_800)  # seconds; calendars end a year further out


def read_times(column: pd.Series) -> np.ndarray:
    """A column of times as numpy's ``datetime64`` or ``timedelta64``; those with a time zone in UTC."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        kind = "timedelta64" if family(dtype) == "timedelta" else "datetime64"
        zone = ", UTC" if has_time_zone(dtype) else ""
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
    for step in STEPS:
        if step % tick == 0:
            phase = (origin * 10**9 // tick) % (step // tick)
            if (ticks % (step // tick) == phase).all():
                found = step
                break
    unit = max(found // 10**9, 1)
    return origin - origin // unit % ORIGINS * unit, found


def times_to_steps(values: np.ndarray, origin: int, step: int) -> np.ndarray:
    """Times as float64 numbers of steps (of ``step`` nanoseconds) since the origin (in seconds)."""
    ticks, tick = values.astype(np.int64), NANOSECONDS[time_unit(values.dtype)]
    per_second = 10**9 // tick
    # seconds and their parts one by one, or integers would overflow and floats lose the parts
    return (ticks // per_second - origin) * 1e9 / step + (ticks % per_second * tick) / step


def restore_times(numbers: np.ndarray, dtype: Any, origin: int, step: int) -> pd.Series:
    """Cells of a dtype of times from numbers of steps since the origin, rounded; NaN is a missing cell."""
    unit = time_unit(dtype)
    tick, missing = NANOSECONDS[unit], np.isnan(numbers)
    high = (2**63 - 4096) * tick // 10**9  # a float below 2^63
    low = -high
    if family(dtype) == "datetime":
        low, high = max(low, YEARS_2_TO_9998[0]), min(high, YEARS_2_TO_9998[1])
    steps = np.rint(np.where(missing, 0.0, numbers))
    ends = -((origin - low) * 10**9 // step), (high - origin) * 10**9 // step
    steps = np.clip(steps, float(ends[0]), float(ends[1])).astype(np.int64)
    ticks = steps * (step // tick) + origin * 10**9 // tick
    ticks[missing] = np.iinfo(np.int64).min  # NaT
    if family(dtype) == "timedelta":
        return pd.Series(ticks.view(f"timedelta64[{unit}]")).astype(dtype)
    cells = pd.Series(ticks.view(f"datetime64[{unit}]"))
    return (cells.dt.tz_localize("UTC") if has_time_zone(dtype) else cells).astype(dtype)


def time_intervals(edges: Sequence[float], dtype: Any, origin: int, step: int) -> pd.IntervalIndex:
    """The bins between edges in steps, and the two tails beyond them up to the ends of pandas' calendar."""
    nanoseconds = [round(e * step) + origin * 10**9 for e in np.array(edges)]
    if family(dtype) == "datetime":
        breaks: Any = pd.to_datetime(nanoseconds, utc=True)
        if getattr(dtype, "tz", None) is None:
            breaks = breaks.tz_localize(None)
        ends = [pd.Timestamp.min.ceil("D"), pd.Timestamp.max.floor("D")]
        ends = [t.tz_localize(breaks.tz) for t in ends]
    else:
        breaks = pd.to_timedelta(nanoseconds)
        ends = [pd.Timedelta.min.ceil("D"), pd.Timedelta.max.floor("D")]
    return pd.IntervalIndex.from_breaks([ends[0], *breaks, ends[1]], closed="left")
