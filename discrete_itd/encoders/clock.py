r"""Rows that come in time: the clock of a table, and its other times as differences to the clock.

New rows are later than those that a model was fitted to. The clock is the time by which rows are written. Its block, a
week where the table spans several, is no part of the row:

.. math:: P(x \mid \text{week of the clock}), \quad (24)

with the clock's weekday and time of day as parts of x, and other times of a row are counted from its clock, in their
own steps. So moving all times of a row by whole weeks changes no score, within :data:`FAR_DAYS` and the range of the
table. A clock beyond that has the mass of a weekday that was never seen; its row's other times, like those of a row
without a clock, are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.codec import Codec
from discrete_itd.encoders.numeric import Continuous
from discrete_itd.reading.frames import DAY, SECOND, is_number

WEEKDAYS = "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"
DAYS_OF_WEEK, DAY_SECONDS = len(WEEKDAYS), DAY // SECOND
MONDAY = 4 * DAY_SECONDS  # the first one, in seconds since 1970
# Weekdays are a part of rows if the table spans FEWEST_WEEKS weeks, times of day if it spans FEWEST_DAYS days.
FEWEST_WEEKS, FEWEST_DAYS = 4, 4
MONTH_DAYS = 27.0  # times that are never closer than a month are periods, without weekdays
FAR_DAYS = (
    3653.0  # beyond the range of the table by this and its length, a clock has never been seen
)
IN_ORDER = (
    0.9  # rank correlation of a column with the order of the rows, if they are written in its order
)
SHARPER = 0.5  # the spread of differences to the clock is at most this part of the spread of the times themselves
MOST_BLOCKS = 64  # blocks of training rows that are kept for draws
MOST_ROWS = 4096  # rows by which a clock is chosen
FEWEST_TIMES = 20  # times of a column that may be a clock
# Serial numbers grow with the clock: their rank correlation, the fewest of them, and rows of one number on average.
SERIAL, FEWEST_SERIAL, MOST_OF_ONE = 0.999, 100, 10
EPOCH = (
    6.3e8,
    2.2e9,
)  # seconds since 1970 of the years 1990 to 2039: such numbers in order are times
EPOCH_UNITS = 1.0, 1e-3  # seconds of one of them


@dataclass(frozen=True)
class Clock(Codec):
    """The clock of a table: its weekday, as levels, and its time of day, as a number, within a given block.

    Numbers of steps are ``block`` x length + weekday x ``day`` + time of day from ``start`` on.

    Parameters
    ----------
    start, length, day : float
        The beginning of block 0, and the lengths of a block and of a day, in steps.
    low, high : float
        The blocks of training, but for one in two hundred at each end.
    time_of_day : Continuous, optional
        Codec of the time of day in steps; None where this is no part of the row.

    Examples
    --------
    >>> days = np.arange(60.0)  # since a Thursday
    >>> clock = fit_clock(days, Unit(86_400.0, 0.0))
    >>> clock.encode(days[:4])[0][:, 0], clock.blocks(days[:5])
    (array([3., 4., 5., 6.]), array([-1., -1., -1., -1.,  0.]))
    """

    start: float
    length: float
    day: float
    low: float
    high: float
    time_of_day: Continuous | None = None

    of_numbers: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = False
    kind: ClassVar[str] = "clock"
    categories: ClassVar[tuple[()]] = ()
    open: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    step: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not (self.length > 0 and self.day > 0 and self.low <= self.high):
            raise ValueError("lengths must be positive, and blocks in order")

    @classmethod
    def fit(cls, values: np.ndarray, whole: bool, *, in_time: bool = False) -> Codec:
        """The scale of a time on which it is not yet known what its blocks are."""
        return Continuous.fit(values, whole, in_time=in_time)

    @property
    def n_levels(self) -> int:
        return DAYS_OF_WEEK if self.length > 1.5 * self.day else 1

    @property
    def points(self) -> ColumnPoints:
        return ColumnPoints("simplex", self.n_levels, open=True)

    @property
    def part(self) -> Codec | None:
        return self.time_of_day

    def is_outside(self, x: np.ndarray) -> np.ndarray:
        return x == self.n_levels

    def blocks(self, values: np.ndarray) -> np.ndarray:
        """The block of each number of steps."""
        return np.floor((values - self.start) / self.length)

    def is_far(self, values: np.ndarray) -> np.ndarray:
        """Whether numbers of steps lie beyond the range of training by ten years and its length: False for NaN."""
        far = max(FAR_DAYS * self.day, (self.high - self.low) * self.length) / self.length
        block = self.blocks(values)
        return (block < self.low - far) | (block > self.high + far)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels and log-volumes of numbers of steps, (n, 1); with the times of day, (n, 2)."""
        within = values - self.start - self.blocks(values) * self.length
        weekday = np.clip(np.floor(within / self.day), 0, self.n_levels - 1)
        x = np.where(self.is_far(values), self.n_levels, weekday)[:, None]
        if self.time_of_day is None:
            return x, np.zeros(x.shape)
        z, log_volume = self.time_of_day.encode(within - weekday * self.day)
        return np.column_stack([x, z]), np.column_stack([np.zeros(len(x)), log_volume])

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The first step of the weekday in block 0; NaN of a time never seen."""
        return np.where(x < self.n_levels, self.start + np.floor(x) * self.day, np.nan)

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The weekdays, their levels, and a share of one in each."""
        names = WEEKDAYS if self.n_levels > 1 else ("any day",)
        return pd.Index(names), np.arange(len(names)), np.ones(len(names))


class Unit(NamedTuple):
    """Seconds of a step of a column of times, and the second since 1970 from which it counts."""

    seconds: float
    origin: float


@dataclass(frozen=True)
class Times:
    """The clock of a schema, and the columns that are counted from it, by position.

    Parameters
    ----------
    clock : int
    since : tuple of int
        Columns of times that are encoded as differences to the clock, in their own steps.
    blocks : tuple of float
        Blocks of training rows, at equal distances in their order, which draws take.
    seconds : float
        Of one of the clock's numbers, if these are seconds since 1970 or parts of them; 0 if they are times.
    """

    clock: int
    since: tuple[int, ...]
    blocks: tuple[float, ...]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.clock in self.since or not self.blocks:
            raise ValueError("the clock is not counted from itself, and some row has one")

    def unit(self, column: Any) -> Unit:
        """The unit of a column of times of the schema."""
        return unit_of(column, self.seconds)

    def steps_to(self, schema: Sequence[Any], j: int, clock: np.ndarray) -> np.ndarray:
        """The last steps of column j that are not after the clock's numbers (N,); NaN where these are."""
        column, own = schema[self.clock], self.unit(schema[j])
        unit = self.unit(column)
        clock = np.where(column.codec.is_far(clock), np.nan, clock)
        return np.floor((clock * unit.seconds + (unit.origin - own.origin)) / own.seconds)

    @cached_property
    def usual_block(self) -> float:
        return self.blocks[len(self.blocks) // 2]


def unit_of(column: Any, seconds: float) -> Unit:
    """The unit of a column of times, or of numbers that count so many seconds each."""
    if column.family == "number":
        return Unit(seconds, 0.0)
    return Unit(column.step / SECOND, column.origin)


def fit_clock(values: np.ndarray, unit: Unit, offset: float = 0.0) -> Clock:
    """The clock of numbers of steps (N,), N > 0, local days of which begin ``offset`` seconds before those of UTC.

    A block is a week where the times span several and are no periods; else a day, where they span several and have
    times of day; else one step.
    """
    day = DAY_SECONDS / unit.seconds
    low, high = np.quantile(values, [0.005, 0.995], method="nearest")
    distinct = np.unique(values)
    start = (MONDAY - offset - unit.origin) / unit.seconds
    n_days, is_fine = (high - low) / day, day > 1
    apart = np.diff(distinct).min(initial=np.inf)
    if day >= 1 and n_days >= FEWEST_WEEKS * DAYS_OF_WEEK and apart < MONTH_DAYS * day:
        length = DAYS_OF_WEEK * day
    elif is_fine and n_days >= FEWEST_DAYS:
        length = day
    else:
        length, is_fine, start = 1.0, False, 0.0
    clock = Clock(start, length, day, *np.floor((np.array([low, high]) - start) / length))
    if not is_fine:
        return clock
    within = values - start - clock.blocks(values) * length
    return Clock(
        start, length, day, clock.low, clock.high,
        Continuous.fit(within - np.floor(within / day) * day, True, in_time=True),
    )  # fmt: skip


def times_of(
    schema: Sequence[Any], numbers: Mapping[int, np.ndarray], declared: int | None = None
) -> tuple[int, tuple[int, ...], float] | None:
    """The positions of the clock and of the columns counted from it, and the seconds of a clock of numbers.

    ``numbers`` (N,) are those of the columns of times that nobody has declared, by position, in the order of the rows.
    The clock is the ``declared`` one; else the time to which most others are differences, or by which the rows are in
    order. None if there is none.
    """
    n_rows = max((len(values) for values in numbers.values()), default=0)
    some = np.unique(np.linspace(0, n_rows - 1, min(n_rows, MOST_ROWS)).round().astype(int))
    at, seconds = dict[int, np.ndarray](), dict[int, float]()
    for j, values in numbers.items():
        values = values[some]
        known = values[np.isfinite(values)]
        of_number = epoch_seconds(known) if schema[j].family == "number" else 0.0
        if len(np.unique(known)) < 2 or (schema[j].family == "number" and not of_number):
            continue
        if schema[j].family == "number" and j != declared and not _in_order(values):
            continue
        unit = unit_of(schema[j], of_number)
        at[j], seconds[j] = values * unit.seconds + unit.origin, of_number
    candidates = [declared] if declared is not None else [*at]
    best, chosen = (0, False, 0.0), None
    for j in candidates:
        if j not in at:
            continue
        since = tuple(k for k in at if k != j and not seconds[k] and _is_sharp(at[k], at[j]))
        enough = np.isfinite(at[j]).sum() >= FEWEST_TIMES
        gain = sum(float(np.nanmean(at[k] >= at[j])) for k in since)
        rank = (len(since), enough and _in_order(at[j]), gain)
        if j == declared or (enough and rank[:2] > (0, False) and rank > best):
            best, chosen = rank, (j, since, seconds[j])
    return chosen


def _in_order(values: np.ndarray) -> bool:
    """Whether rows are in the order of the values, or the reverse."""
    known = np.isfinite(values)
    if known.sum() < FEWEST_TIMES or len(np.unique(values[known])) < 2:
        return False
    return abs(_rank_correlation(np.flatnonzero(known), values[known])) >= IN_ORDER


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two samples (N,)."""
    return float(cast(Any, spearmanr(a, b)).statistic)


def _is_sharp(times: np.ndarray, clock: np.ndarray) -> bool:
    """Whether differences of times to a clock spread much less than the times."""
    both = np.isfinite(times) & np.isfinite(clock)
    if both.sum() < FEWEST_TIMES:
        return False
    spread = [
        np.subtract(*np.quantile(t, [0.9, 0.1])) for t in (times[both] - clock[both], times[both])
    ]
    return bool(spread[0] <= SHARPER * spread[1] and spread[1] > 0)


def is_serial(numbers: np.ndarray, clock: np.ndarray) -> bool:
    """Whether whole numbers (N,) grow with the clock, as those of documents in the order in which they are written."""
    known = np.isfinite(numbers) & np.isfinite(clock)
    n_distinct = len(np.unique(numbers[known]))
    if known.sum() < FEWEST_SERIAL or n_distinct < known.sum() / MOST_OF_ONE:
        return False
    return _rank_correlation(numbers[known], clock[known]) >= SERIAL


def epoch_seconds(values: np.ndarray) -> float:
    """Seconds of a unit of numbers that are times since 1970, as their size says; 0 if they are none."""
    for unit in EPOCH_UNITS:
        if len(values) and EPOCH[0] <= values.min() * unit and values.max() * unit <= EPOCH[1]:
            return unit
    return 0.0


def counts_seconds(cells: np.ndarray) -> bool:
    """Whether plain values in the order of the rows are seconds since 1970, or thousandths, that grow or fall."""
    if not is_number(cells) or not len(cells):
        return False
    values = cells.astype(float)
    are_whole = np.isfinite(values).all() and (values % 1 == 0).all()
    return bool(are_whole and epoch_seconds(values) and _in_order(values))


def fitted_blocks(clock: Clock, values: np.ndarray) -> tuple[float, ...]:
    """Blocks of rows for :class:`Times`."""
    blocks = np.sort(clock.blocks(values[~clock.is_far(values)]))
    chosen = np.linspace(0, len(blocks) - 1, min(len(blocks), MOST_BLOCKS)).round().astype(int)
    return tuple(blocks[chosen].tolist())


def local_offset(values: Any, zone: Any) -> float:
    """Seconds by which most local times of a zone are ahead of UTC, of times (N,) in UTC; 0 without a zone."""
    if zone is None or not len(values):
        return 0.0
    local = pd.DatetimeIndex(values).tz_localize("UTC").tz_convert(zone)
    offsets = [t.utcoffset().total_seconds() for t in local[:: max(1, len(local) // 500)]]
    return float(pd.Series(offsets).mode().iloc[0]) if not math.isnan(sum(offsets)) else 0.0
