"""Columns that say when a row was written, beside the clock or in the place of one.

These are columns that grow with time, parts of its date, and the dates that a year, month and day make, or text and
numbers of days, months, quarters or weeks. In the order of such dates the next rows have others: what would tell which
weeks a row is of is no part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.encoders.clock import (
    DAY_SECONDS,
    FEWEST_TIMES,
    MONTH_DAYS,
    MOST_ROWS,
    OUT_OF_STEP,
    YEAR,
    YEARS,
    are_in_order,
    is_in_step,
)
from discrete_itd.encoders.gaps import evenly
from discrete_itd.reading.frames import is_number
from discrete_itd.reading.times import CENTURY, month_named

# parts of local times
PARTS: dict[str, Callable[[pd.DatetimeIndex], Any]] = {
    "year": lambda t: t.year,
    "quarter": lambda t: t.quarter,
    "month": lambda t: t.month,
    "week": lambda t: t.isocalendar().week,
    "day": lambda t: t.day,
    "day of the year": lambda t: t.day_of_year,
    "weekday": lambda t: t.day_of_week,
    "hour": lambda t: t.hour,
    "year and month": lambda t: 100 * t.year + t.month,
}
# Fewest rows, different values, and moments of a column that moves with the clock. In dated tables of R 31 columns had
# changed once, none of which had a new value in the last sixth of the rows; of 35 with three values or more 34 had.
FEWEST_IN_STEP, FEWEST_STEPS = 100, 3
SAME_PARTS = 0.97  # share of rows in which a part of a date is that of the clock's, which may be in another zone
RETURNED = 0.9  # share of rows whose part of a date was met in another year, too
FEWEST_MONTHS = 6  # that tell dates from an experiment by the days on which they begin
FIRST_DATED = 1700  # years of dates, which have nanoseconds in 64 bits
WRITTEN = 1900, 2100  # years of periods in one number or text
MOST_PERIODS = 10_000  # different texts of a column of periods


def moves_with(cells: np.ndarray, clock: np.ndarray) -> bool:
    """Whether plain values (N,) move on with a clock (N,), of which they are a part: a later row has another one.

    Numbers grow, or turn once, like a month within one year; text does not come back once it was left, like the name of
    a season. Rows of one moment may have any order. A single step is none: a rule that changed once is likely to stay,
    and a row of the old one to be wrong.
    """
    codes, values = pd.factorize(cells)
    n, n_values = len(codes), len(values)
    if n < FEWEST_IN_STEP or min(n_values, len(np.unique(clock))) < FEWEST_STEPS:
        return False
    if not is_number(cells):  # in the order of their median moments, if enough of them repeat
        moments = pd.Series(clock).groupby(codes).median().to_numpy()
        order = np.argsort(moments, kind="stable")
        return n - n_values >= FEWEST_IN_STEP and is_in_step(np.argsort(order)[codes], clock)
    ranks = np.unique(cells, return_inverse=True)[1]
    first = int(ranks[np.lexsort((ranks, clock))[0]])
    return any(is_in_step((ranks - start) % n_values, clock) for start in {0, first})


def is_part_of_date(cells: np.ndarray, local: pd.DatetimeIndex) -> bool:
    """Whether plain values (N,) are parts of local times that no later row has, or that were met in one year alone.

    These are the year, and quarter, month, week or day until nearly all of them have returned in another year: until
    then each says which weeks a row is of. Days of the month do so with the month; they may be those of another zone.
    """
    values = part_numbers(cells)
    if values is None or not len(values):
        return False
    if _are_alike(values, local.year):
        return True
    day = local.day.to_numpy(float)
    names = ["month", "quarter", "week", "day of the year"]
    if (values == values[0]).all():
        del names[1:]  # a constant is the first quarter more often by chance
    for name in names:
        if _are_alike(values, part := PARTS[name](local)):
            return not _has_returned(part.to_numpy(float), local)
    apart = np.abs(values - day)  # 1 in another zone, or from the last day to the first
    is_beside = (apart <= 1) | (apart >= MONTH_DAYS) & (apart < 31)
    is_beside &= min(len(np.unique(days)) for days in (values, day)) >= MONTH_DAYS
    is_day = _are_alike(values, local.day) or np.mean(is_beside) >= 1 - OUT_OF_STEP
    return bool(is_day) and not _has_returned(31.0 * local.month.to_numpy() + day, local)


def _has_returned(part: np.ndarray, local: pd.DatetimeIndex) -> bool:
    """Whether nearly all rows have a part (N,) of their local times that others of another year have."""
    codes = pd.factorize(part)[0]
    years: Any = pd.Series(local.year).groupby(codes)
    n_years = years.nunique().to_numpy()
    return bool(np.mean(n_years[codes] > 1) >= RETURNED)


def _are_alike(values: np.ndarray, part: pd.Index | pd.Series) -> bool:
    """Whether values (N,) are a part of times, but for some that are in another zone."""
    return bool(np.mean(values == part.to_numpy(float)) >= SAME_PARTS)


def part_numbers(cells: np.ndarray) -> np.ndarray | None:
    """Numbers (N,) of years, or parts of them, that plain values may be, months in words too; None if they cannot."""
    if is_number(cells):
        values = cells.astype(float)
    elif len(cells) and isinstance(cells[0], str) and month_named(cells[0]):
        codes, names = pd.factorize(cells)
        is_text = len(names) <= 12 and all(isinstance(name, str) for name in names)
        values = np.array([month_named(name) if is_text else 0 for name in names], float)[codes]
    else:
        return None
    low, high = (values.min(), values.max()) if len(values) else (0, 0)
    may_be = (low >= 1 and high <= 366) or (low >= YEARS[0] and high <= YEARS[1])
    return values if may_be and (values % 1 == 0).all() else None


def dates_of_parts(columns: Sequence[np.ndarray]) -> pd.DatetimeIndex | None:
    """Dates (N,) whose years, months and days are columns of their own, by which the rows are in order; or None.

    ``columns`` (N,) are :func:`part_numbers` of rows, NaN where missing. All rows but a few have such a date. Blocks of
    an experiment and their plots lie like months and days; but either most days of the month are met, or the months
    begin on different ones. A column of years may be lacking where months end as months do, and of days where years do.
    """
    whole = [values[np.isfinite(values)] for values in columns]
    days = [j for j, values in enumerate(whole) if len(values) and values.max() <= 31]
    years = [
        columns[j] for j, values in enumerate(whole)
        if len(values) and values.min() >= FIRST_DATED
    ]  # fmt: skip
    if not days or len(columns[0]) < FEWEST_TIMES:
        return None
    some = evenly(len(columns[0]), MOST_ROWS)
    months = [j for j in days if whole[j].max() <= 12]
    asked = [(year, m, True) for year in years for m in months]
    for m in months:  # without a year, of which the first or the last row has the first month
        for first in whole[m][[0, -1]]:
            leap = 2004.0 - (first > 2)  # so that there is a 29th of February
            asked.append((leap + (columns[m] < first), m, False))
    best, n_dates, had_years = None, 0, False
    for year, m, has_years in asked:
        steps = np.diff((12 * year + columns[m])[some])
        if had_years > has_years or min(np.mean(steps < 0), np.mean(steps > 0)) > OUT_OF_STEP:
            continue
        if has_years and _are_months(year, columns[m]):
            dates = _dates(year, columns[m], np.full(len(year), 15.0))
            best, n_dates, had_years = dates, dates.nunique(), True
        for d in set(days) - {m}:
            inner = np.diff(columns[d][some])[steps == 0]
            if not inner.any() or min(np.mean(inner < 0), np.mean(inner > 0)) > OUT_OF_STEP:
                continue
            dates = _dates(year[some], columns[m][some], columns[d][some])
            known = ~np.isnan((year + columns[m] + columns[d])[some])
            if dates[known].isna().mean() > OUT_OF_STEP or not are_in_order(days_of(dates)):
                continue
            dates = _dates(year, columns[m], columns[d])
            if dates.nunique() > n_dates and _lie_as_dates(dates, has_years=has_years):
                best, n_dates, had_years = dates, dates.nunique(), has_years
    return best


def _are_months(year: np.ndarray, month: np.ndarray) -> bool:
    """Whether numbers (N,) are months from January to December in all years but the first and the last."""
    known = pd.DataFrame({"year": year, "month": month}).dropna()
    months: Any = known.groupby("year")["month"]
    first, last = months.min().to_numpy(), months.max().to_numpy()
    return len(first) > 1 and bool((first[1:] == 1).all() and (last[:-1] == 12).all())


def dates_of_periods(cells: np.ndarray) -> pd.DatetimeIndex | None:
    """Dates (N,) in the periods that plain values write, by which the rows are in order; None if they write none.

    Whole numbers are days or months (20240131, 202401), text a year and a month, quarter or week ("2024-W05", "Q4
    2023", "Mai 2024", "FY24 Q1"), or the first of two years ("FY22/23", "2022/23").
    """
    first = cells[0] if len(cells) >= FEWEST_IN_STEP else None
    if not (first and first >= 100 * WRITTEN[0] if is_number(cells[:1]) else _period(first)):
        return None
    codes, values = pd.factorize(cells)
    if len(values) > MOST_PERIODS and not is_number(cells):
        return None
    if is_number(cells):
        numbers = np.asarray(values, float)
        digits = 1e4 if numbers.min() >= 1e4 * WRITTEN[0] else 1e2
        if numbers.min() < digits * WRITTEN[0] or numbers.max() >= digits * WRITTEN[1]:
            return None
        year, part = np.divmod(numbers, digits)
        month, day = np.divmod(part, 100) if digits == 1e4 else (part, np.full(len(part), 15.0))
        dates = _dates(year, month, day)
    else:
        periods = list[tuple[int, int]]()
        for text in values:
            if (period := _period(text)) is None:
                return None
            periods.append(period)
        year, part = np.array(periods, float).reshape(-1, 2).T
        if (part == (year + 1) % 100).all():  # seasons of two years
            part = np.ones(len(part))
        elif len(np.unique(part)) == 1 and month_named(re.sub(r"[\W\d_]", "", values[0])):
            return None  # names that begin like one month
        n_parts = next((n for n in (1, 4, 12, 53) if part.max(initial=1) <= n), math.inf)
        middle = (year - 1970 + (part - 0.5) / n_parts) * YEAR
        dates = pd.DatetimeIndex(pd.to_datetime(middle, unit="s", errors="coerce"))
    along = dates[codes]
    is_dated = along.isna().mean() <= OUT_OF_STEP
    return along if is_dated and are_in_order(days_of(along)) else None


def _period(text: Any) -> tuple[int, int] | None:
    """The year that a text writes, and the number of a part of it, or of the next year; None if it is no period."""
    if not isinstance(text, str):
        return None
    numbers, words = re.findall(r"\d+", text), re.findall(r"[^\W\d_]+", text)
    years = [int(n) for n in numbers if len(n) == 4 and WRITTEN[0] <= int(n) < WRITTEN[1]]
    parts = [int(n) for n in numbers if len(n) <= 2]
    if len(years) + len(parts) != len(numbers):
        return None
    if not years and len(parts) == 2 and words[:1] == ["FY"]:  # a year and the next, or a quarter
        return (1900 if parts[0] >= CENTURY else 2000) + parts[0], parts[1]
    months = [month_named(word) if len(word) > 2 else 0 for word in words]
    parts += [month for month in months if month]
    if any(len(word) > 2 and not month for word, month in zip(words, months, strict=True)):
        return None
    return (years[0], parts[0] if parts else 1) if len(years) == 1 and len(parts) <= 1 else None


def _dates(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> pd.DatetimeIndex:
    """The dates (N,) of numbers, NaT where there is none."""
    parts = pd.DataFrame({"year": year, "month": month, "day": day})
    return pd.DatetimeIndex(pd.to_datetime(parts, errors="coerce"))


def days_of(dates: pd.DatetimeIndex) -> np.ndarray:
    """Days (N,) since 1970, NaN where there is none."""
    return cast(Any, dates - pd.Timestamp(0)).total_seconds().to_numpy() / DAY_SECONDS


def _lie_as_dates(dates: pd.DatetimeIndex, *, has_years: bool) -> bool:
    """Whether dates (N,), NaT where there is none, have days as months do, and not as blocks have plots."""
    known: Any = dates.dropna()
    days: Any = pd.DataFrame({"day": known.day, "length": known.days_in_month})
    months = days.groupby(12 * known.year + known.month)
    first, last, length = months["day"].min(), months["day"].max(), months["length"].max()
    if days["day"].nunique() < MONTH_DAYS:
        is_apart = first.value_counts(normalize=True).max() <= 0.5
        return has_years and is_apart and FEWEST_MONTHS <= len(first) < known.nunique()
    is_whole = (last >= length.where(length > 29, 28)).iloc[1:-1]
    are_unlike = last.iloc[1:-1].nunique() > 1  # plots of blocks are as many
    return has_years or bool(are_unlike and is_whole.all())
