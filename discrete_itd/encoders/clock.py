r"""Rows that come in time: the clock of a table, and its other times as differences to the clock.

New rows are later than those that a model was fitted to. The clock is the time by which rows are written. Its block, a
week where the table spans several, is no part of the row:

.. math:: P(x \mid \text{week of the clock}), \quad (24)

with the clock's weekday and time of day as parts of x, and other times of a row are counted from its clock, in their
own steps, as numbers of years are from its year. A clock of years, or of other numbers, has no parts. So moving all
times of a row by whole weeks changes no score, within :data:`FAR_DAYS` and the range of the table. A clock beyond that
has the mass of a weekday that was never seen, spread over all blocks of the calendar; its row's other times, like those
of a row without a clock, are given. Weekday and time of day are those of the column's time zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.codec import Codec
from discrete_itd.encoders.gaps import evenly
from discrete_itd.encoders.numeric import Continuous
from discrete_itd.reading.frames import DAY, SECOND, is_number, time_zone

WEEKDAYS = "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"
DAYS_OF_WEEK, DAY_SECONDS = len(WEEKDAYS), DAY // SECOND
MONDAY = 4 * DAY_SECONDS  # the first one, in seconds since 1970
# Weekdays are a part of rows if the table spans FEWEST_WEEKS weeks, times of day if it spans FEWEST_DAYS days.
FEWEST_WEEKS, FEWEST_DAYS = 4, 4
MONTH_DAYS = 27.0  # times that are never closer than a month are periods, without weekdays
FAR_DAYS = (
    3653.0  # a clock farther than this and the table's length beyond its range was never seen
)
IN_ORDER = 0.9  # least rank correlation of a column with the rows that are written in its order
SHARPER = 0.8  # differences to the clock spread at most this part as widely as the times themselves
MOST_BLOCKS = 64  # blocks of training rows that are kept for draws
MOST_ROWS = 4096  # rows by which a clock is chosen
FEWEST_TIMES = 20  # times of a column that may be a clock
# A column moves with the clock if, in its order, at most this share of rows falls, and the correlation with the sorted
# values is 1 less this share: one row in 200 may have a typing error.
OUT_OF_STEP = 0.005
CALENDAR_DAYS = 3_652_059.0  # of the years 1 to 9999, over all of which far clocks are spread
# Seconds since 1970 of the years 1990 to 2039: numbers in this range, and in order, are times.
EPOCH = 6.3e8, 2.2e9
EPOCH_UNITS = 1.0, 1e-3  # seconds of one of them
# Whole numbers in this range that grow in the order of the rows are years: in 2 009 tables of R all 150 such columns of
# three years or more; in those of 100 rows all six of two (``tests/benchmarks/tomorrow.py --written``).
YEARS = 1600, 2200
YEAR = 31_556_952.0  # seconds of a mean year, and of a step of a declared clock that counts anything else


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
        return DAYS_OF_WEEK if self.length > 1.5 * self.day >= 1.5 else 1

    @property
    def points(self) -> ColumnPoints:
        return ColumnPoints("simplex", self.n_levels, open=True)

    @property
    def part(self) -> Codec | None:
        return self.time_of_day

    @property
    def given(self) -> str:
        """What of a clock is no part of its row: its week, its day, or its value."""
        if self.n_levels > 1:
            return "week"
        return "day" if self.length == self.day and self.time_of_day is not None else "value"

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

    def near(self, values: np.ndarray) -> np.ndarray:
        """Numbers of steps, NaN where they are far."""
        return np.where(self.is_far(values), np.nan, values)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels and log-volumes of numbers of steps, (n, 1); with the times of day, (n, 2)."""
        within = values - self.start - self.blocks(values) * self.length
        weekday = np.clip(np.floor(within / self.day), 0, self.n_levels - 1)
        is_far = self.is_far(values)
        x = np.where(is_far, self.n_levels, weekday)[:, None]
        log_volume = np.where(is_far, -np.log(CALENDAR_DAYS * self.day / self.length), 0.0)[:, None]
        if self.time_of_day is None:
            return x, log_volume
        z, log_volume_of_day = self.time_of_day.encode(within - weekday * self.day)
        return np.column_stack([x, z]), np.column_stack([log_volume, log_volume_of_day])

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The first step of the weekday in block 0; NaN of a time never seen."""
        return np.where(x < self.n_levels, self.start + np.floor(x) * self.day, np.nan)

    def times_of_day(self, z: np.ndarray, *, settled: bool = True) -> np.ndarray:
        """Steps (n,) since the beginning of a day of encoded times of day, as these are recorded if ``settled``."""
        part = cast(Continuous, self.time_of_day)
        steps = part.settled(part.decode(z)) if settled else part.decode(z)
        return np.clip(np.rint(steps), 0.0, np.ceil(self.day) - 1)

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
        Of one of the clock's numbers, if these are seconds since 1970, parts of them, or years; 0 if they are times,
        from which numbers are counted as years.
    """

    clock: int
    since: tuple[int, ...]
    blocks: tuple[float, ...]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.clock in self.since or not self.blocks:
            raise ValueError("the clock is not counted from itself, and some row has one")

    def unit(self, column: Any) -> Unit:
        """The unit of a column of times, or of years, of the schema."""
        return unit_of(column, self.seconds or YEAR)

    def steps_to(self, schema: Sequence[Any], j: int, clock: np.ndarray) -> np.ndarray:
        """The last steps of column j that are not after the clock's numbers (N,); NaN where these are."""
        column, own = schema[self.clock], self.unit(schema[j])
        unit = self.unit(column)
        if own.seconds == YEAR != unit.seconds:
            return years_at(column, clock)
        return np.floor((clock * unit.seconds + (unit.origin - own.origin)) / own.seconds)

    @cached_property
    def usual_block(self) -> float:
        return self.blocks[len(self.blocks) // 2]


def unit_of(column: Any, seconds: float) -> Unit:
    """The unit of a column of times, or of numbers that count so many seconds each, or are years."""
    if column.family == "number":
        return Unit(seconds, -1970 * YEAR if seconds == YEAR else 0.0)
    return Unit(column.step / SECOND, column.origin)


def years_at(column: Any, numbers: np.ndarray) -> np.ndarray:
    """The years (N,) of numbers of steps of a column of times, in its time zone; NaN far away."""
    times = local_times(numbers, unit_of(column, 0.0), time_zone(column.dtype))
    return times.year.to_numpy(float)


def fit_clock(values: np.ndarray, unit: Unit) -> Clock:
    """The clock of numbers of steps (N,), N > 0, in local time.

    A block is a week where the times span several and are no periods; else a day, where they span several and have
    times of day; else one step.
    """
    day = DAY_SECONDS / unit.seconds
    low, high = np.quantile(values, [0.005, 0.995], method="nearest")
    distinct = np.unique(values)
    start = (MONDAY - unit.origin) / unit.seconds
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

    ``numbers`` (N,) are those of the columns that may be times, by position, in the order of the rows; those of number
    columns are whole. The clock is the ``declared`` one; else the time to which most others are differences, or by
    which the rows are in order; else the first column of years that never fall, or never grow. None if there is none.
    """
    n_rows = max((len(values) for values in numbers.values()), default=0)
    some = evenly(n_rows, MOST_ROWS)
    at, seconds, years = dict[int, np.ndarray](), dict[int, float](), dict[int, np.ndarray]()
    for j, values in numbers.items():
        values = values[some]
        known = values[np.isfinite(values)]
        of_number = number_seconds(known) if schema[j].family == "number" else 0.0
        if schema[j].family == "number" and (of_number or YEAR) == YEAR:
            if of_number or j == declared:
                years[j] = values
        elif len(np.unique(known)) > 1 and (not of_number or j == declared or _in_order(values)):
            unit = unit_of(schema[j], of_number)
            at[j], seconds[j] = values * unit.seconds + unit.origin, of_number
    best, chosen = (0, False, 0.0), None
    for j in at if declared is None else [declared]:
        if j not in at:
            continue
        alike = [k for k in at if k != j and seconds[k] in (0.0, seconds[j])]
        since = tuple(k for k in alike if _is_sharp(at[k], at[j]))
        enough = np.isfinite(at[j]).sum() >= FEWEST_TIMES
        gain = sum(float(np.nanmean(at[k] >= at[j])) for k in since)
        rank = (len(since), enough and _in_order(at[j]), gain)
        if j == declared or (enough and rank[:2] > (0, False) and rank > best):
            best, chosen = rank, (j, since, seconds[j])
    for j in years if declared is None else [declared]:
        if chosen is None and j in years and (j == declared or are_in_order(years[j])):
            chosen = j, (), YEAR
    if chosen is None:
        return None
    clock, since, of_number = chosen
    moments = numbers[clock][some]
    if not of_number:
        moments = years_at(schema[clock], moments)
    elif of_number != YEAR:
        return chosen
    counted = tuple(j for j in years if j != clock and _is_sharp(years[j], moments))
    return clock, since + counted, of_number


def are_in_order(numbers: np.ndarray) -> bool:
    """Whether rows are in the order of numbers (N,), or the reverse, but for hardly any."""
    known = np.isfinite(numbers)
    values, rows = numbers[known], np.arange(known.sum())
    return len(values) >= FEWEST_TIMES and any(is_in_step(values, way * rows) for way in (1, -1))


def is_in_step(values: np.ndarray, clock: np.ndarray) -> bool:
    """Whether numbers (N,) hardly ever fall along a clock (N,), and lie nearly as if sorted; constants do not."""
    along = values[np.lexsort((values, clock))]
    if len(np.unique(values)) < 2 or np.mean(np.diff(along) < 0) > OUT_OF_STEP:
        return False
    return bool(np.corrcoef(along, np.sort(values))[0, 1] >= 1 - OUT_OF_STEP)


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
    """Whether differences of times to a clock spread much less than the times; a constant time must be the clock's."""
    both = np.isfinite(times) & np.isfinite(clock)
    if both.sum() < FEWEST_TIMES:
        return False
    spread = [
        np.subtract(*np.quantile(t, [0.9, 0.1])) for t in (times[both] - clock[both], times[both])
    ]
    is_same = spread[1] > 0 or np.median(np.abs(times[both] - clock[both])) < 1
    return bool(spread[0] <= SHARPER * spread[1] and is_same)


def number_seconds(values: np.ndarray) -> float:
    """Seconds of a unit of numbers that are times since 1970, or years, as their size says; 0 if they are neither."""
    if not len(values):
        return 0.0
    low, high = values.min(), values.max()
    for unit in EPOCH_UNITS:
        if EPOCH[0] <= low * unit and high * unit <= EPOCH[1]:
            return unit
    return YEAR if YEARS[0] <= low and high <= YEARS[1] else 0.0


def may_count(cells: np.ndarray, *, any_unit: bool = False) -> bool:
    """Whether plain values are whole numbers, of a size of years or times since 1970 unless of ``any_unit``."""
    if not is_number(cells) or not len(cells):
        return False
    values = cells.astype(float)
    is_whole = np.isfinite(values).all() and (values % 1 == 0).all()
    return bool(is_whole and (any_unit or number_seconds(values)))


def counts_seconds(cells: np.ndarray) -> bool:
    """Whether plain values in the order of the rows are seconds since 1970, or thousandths, that grow or fall."""
    if not may_count(cells):
        return False
    values = cells.astype(float)
    return number_seconds(values) in EPOCH_UNITS and _in_order(values)


def fitted_blocks(clock: Clock, values: np.ndarray) -> tuple[float, ...]:
    """Blocks of rows for :class:`Times`."""
    blocks = np.sort(clock.blocks(values[~clock.is_far(values)]))
    chosen = evenly(len(blocks), MOST_BLOCKS)
    return tuple(blocks[chosen].tolist())


def local_offsets(numbers: np.ndarray, unit: Unit, zone: Any) -> np.ndarray:
    """Steps (N,) by which local times of a zone are ahead of numbers of steps in UTC; 0 without a zone."""
    if zone is None:
        return np.zeros(len(numbers))
    return (
        _seconds_between(local_times(numbers, unit, zone), local_times(numbers, unit, None))
        / unit.seconds
    )


def local_times(numbers: np.ndarray, unit: Unit, zone: Any) -> pd.DatetimeIndex:
    """The local times (N,) of a zone at numbers of steps in UTC; in UTC without a zone, NaT far away."""
    seconds = numbers * unit.seconds + unit.origin
    utc = pd.DatetimeIndex(pd.to_datetime(seconds, unit="s", errors="coerce"))
    return utc if zone is None else utc.tz_localize("UTC").tz_convert(zone).tz_localize(None)


def utc_offsets(numbers: np.ndarray, unit: Unit, zone: Any) -> np.ndarray:
    """Steps (N,) by which local times of a zone, numbers of steps, are ahead of UTC; of a repeated hour the first."""
    if zone is None:
        return np.zeros(len(numbers))
    seconds = numbers * unit.seconds + unit.origin
    local = pd.DatetimeIndex(pd.to_datetime(seconds, unit="s", errors="coerce"))
    first = np.ones(len(numbers), bool)
    utc = local.tz_localize(zone, ambiguous=first, nonexistent="shift_forward").tz_convert("UTC")
    return _seconds_between(local, utc.tz_localize(None)) / unit.seconds


def _seconds_between(a: pd.DatetimeIndex, b: pd.DatetimeIndex) -> np.ndarray:
    """Seconds (N,) by which times are later than others; 0 where there is none."""
    return np.nan_to_num(cast(Any, a - b).total_seconds().to_numpy())
