r"""Columns that follow from others: a total is quantity × price − discount, a delay arrival − plan.

A *relation* says that a column of numbers, its *child*, is an expression of other columns, its *parents*, in most rows,

.. math:: x_j = f_j(x_{pa}) = d + \sum_t k_t \prod_{i \in t} g_{ti}(x_i),

rounded to the lattice of the child; :math:`F_j` are the numbers that rounding leaves open (23). The functions g are
those of :data:`FORMS`: the number, its inverse, its logarithm, :math:`1 \pm x / 100`; of times also months, calendar
months, years and days. A parent may be text with digits, which is the number that these are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discrete_itd.encoders.column import Column, decimals_of_column, written
from discrete_itd.reading.frames import (
    DAY,
    MOST_DECIMALS,
    SECOND,
    PlainCells,
    restore_times,
    text_among,
)
from discrete_itd.reading.text import number_of

Floats, Bools = NDArray[np.float64], NDArray[np.bool_]

# How far beside the interval that rounding leaves open a lattice point still counts, in steps: an expression of cents
# has float errors, and a number between two points may have been rounded either way.
ON_LATTICE = 1e-4
# Share of the training rows that follow, from which a row that does not is anomalous. At .95 a table of OddBench in
# which 96 % follow lost 2.6 points of AUROC.
USUAL = 0.99
FLOAT_ERROR = 1e-12  # the same for large numbers, relative to them
FLOAT = 1e-9  # relative rounding error of an expression of floats
EPOCH_YEAR, MONTHS_A_YEAR, LONGEST_MONTH = 1970, 12, 31
MOST_DAYS = 1e7  # days since 1970 of the last time that has a month: its year has five digits
MOST_NANOSECOND_DAYS = 106_000.0  # from 1970 to a time that has nanoseconds in 64 bits
DIGITS = re.compile(r"\D*?(\d+(?:\.\d+)?)\D*")  # text with one number in it
LEAST_WITH_DIGITS = (
    0.95  # share of the levels of a column of text that have one number, where text is read so
)


def _months(x: Floats) -> Floats:
    """Months (N,) from January 1970 to times in days, the day of the month as a part of 31."""
    known = np.abs(x) < MOST_DAYS
    days = np.floor(np.where(known, x, 0.0))
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    day = (dates - months.astype("datetime64[D]")).astype(float) + x - days
    return np.where(known, months.astype(float) + day / LONGEST_MONTH, np.nan)


def _days(months: Floats) -> Floats:
    """The times (N,) in days of months since January 1970; a part of 31 that the month has not, is its last day."""
    known = np.abs(months) < MOST_DAYS / LONGEST_MONTH
    whole = np.floor(np.where(known, months, 0.0)).astype(int)
    first, after = (
        m.astype("datetime64[M]").astype("datetime64[D]").astype(float) for m in (whole, whole + 1)
    )
    return np.where(known, np.minimum(first + (months - whole) * LONGEST_MONTH, after - 1), np.nan)


FORMS: dict[str, Callable[[Floats], Floats]] = {
    "x": lambda x: x,
    "1/x": lambda x: 1 / x,
    "1+%": lambda x: 1 + x / 100,
    "1-%": lambda x: 1 - x / 100,
    "log": lambda x: np.log(np.where(x > 0, x, np.nan)),
    "months": _months,
    "month": lambda x: np.floor(_months(x)),
    "year": lambda x: np.floor(_months(x) / MONTHS_A_YEAR) + EPOCH_YEAR,
    "day": np.floor,
}
TIME_FORMS = ("months", "month", "year", "day")
# a number of which the form is the given one
INVERSES: dict[str, Callable[[Floats], Floats]] = {
    "x": lambda g: g,
    "1/x": lambda g: 1 / g,
    "1+%": lambda g: 100 * (g - 1),
    "1-%": lambda g: 100 * (1 - g),
    "log": np.exp,
    "months": _days,
    "month": _days,
    "year": lambda g: _days((g - EPOCH_YEAR) * MONTHS_A_YEAR),
    "day": np.floor,
}
TEXTS = {"1+%": "(1 + {} / 100)", "1-%": "(1 − {} / 100)"} | {
    f: f + "({})" for f in ("log", *TIME_FORMS)
}


@dataclass(frozen=True, order=True)
class ColumnTerm:
    """A function of one column: one of :data:`FORMS`."""

    column: int
    form: str = "x"

    def __post_init__(self) -> None:
        if self.column < 0 or self.form not in FORMS:
            raise ValueError(f"no factor of a relation: {self}")

    def of(self, x: Floats) -> Floats:
        """Its values (N,) in rows of numbers (N, C)."""
        return FORMS[self.form](x[:, self.column])


@dataclass(frozen=True)
class Term:
    """A product of factors and a coefficient."""

    coefficient: float
    factors: tuple[ColumnTerm, ...]

    def of(self, x: Floats) -> Floats:
        """Its values (N,) in rows of numbers (N, C)."""
        product = np.full(len(x), self.coefficient)
        for factor in self.factors:
            product = product * factor.of(x)
        return product


def value_of(terms: Sequence[Term], x: Floats) -> Floats:
    """The sum of terms (N,) in rows of numbers (N, C): NaN where one is missing, infinite or divided by zero."""
    with np.errstate(all="ignore"):
        total = sum((term.of(x) for term in terms), np.zeros(len(x)))
    return np.where(np.isfinite(total), total, np.nan)


def renumbered(terms: Sequence[Term], columns: Sequence[int]) -> tuple[Term, ...]:
    """Terms of rows that have these ``columns`` alone, in this order."""
    place = {column: k for k, column in enumerate(columns)}
    return tuple(
        replace(t, factors=tuple(replace(f, column=place[f.column]) for f in t.factors))
        for t in terms
    )


@dataclass(frozen=True)
class Relation:
    """A column that follows from others.

    Parameters
    ----------
    child : int
        Position of the column that follows.
    terms : tuple of Term
        Whose sum, with the ``constant``, is the child's number before it is rounded.
    constant : float
        d, in the unit of the child (times: days).
    step, origin : float
        Of the child's lattice.
    half : float
        Half of the length of the interval of numbers that rounding leaves open: 0, or half a step. Three quarters
        of one for a child off any lattice, whose step is that of float errors.
    parent_steps : tuple of float
        Steps of the parents, if the child follows from what these were before they were rounded; else empty.
    n_follow, n_rows : int
        Training rows in which the child follows, and those with a child and all parents.

    Examples
    --------
    >>> total = Relation(2, (Term(1.0, (ColumnTerm(0), ColumnTerm(1))),), 0.0, 0.01, 0.0, 0.005, (), 98, 100)
    >>> total.text(["quantity", "price", "total"])
    'total = quantity × price'
    >>> total.follows(np.array([[2, 6.2, 12.4], [2, 6.2, 11.4], [np.nan, 6.2, 12.4]]))
    array([ 1.,  0., nan])
    """

    child: int
    terms: tuple[Term, ...]
    constant: float
    step: float
    origin: float
    half: float
    parent_steps: tuple[float, ...]
    n_follow: int
    n_rows: int

    def __post_init__(self) -> None:
        if not self.terms or not all(term.factors for term in self.terms):
            raise ValueError("a relation has terms, and these have factors")
        if self.step <= 0 or not 0 <= self.n_follow <= self.n_rows:
            raise ValueError("step and counts of a relation must be positive")

    @property
    def parents(self) -> tuple[int, ...]:
        """Positions of the columns from which the child follows."""
        return tuple(dict.fromkeys(f.column for term in self.terms for f in term.factors))

    @property
    def columns(self) -> tuple[int, ...]:
        """Positions of the parents and of the child."""
        return (*self.parents, self.child)

    @property
    def share(self) -> float:
        """Posterior mean of the share of rows in which the child follows, under Jeffreys' prior."""
        return (self.n_follow + 0.5) / (self.n_rows + 1)

    def values(self, x: Floats) -> Floats:
        """The child's numbers (N,) by the parents, before rounding; NaN where a parent is missing."""
        return value_of(self.terms, x) + self.constant

    def open_half(self, x: Floats) -> Floats:
        """Half of the length (N,) of the interval in which the child follows."""
        half = np.full(len(x), self.half)
        for step, column in zip(self.parent_steps, self.parents, strict=False):
            if step:
                half += step / 2 * self._slope(x, column, step)
        return half

    def expected(self, x: Floats) -> tuple[Floats, Floats]:
        """The lattice points of the child that the parents leave open (23): their number and the middle one, (N,) each.

        Rows (N, C) of numbers, of which the child's are not read. Where a parent is missing, or no lattice point lies
        in the interval, the number is 0 and the middle NaN. Of an even number, the middle is the lower one.
        """
        first, last = self._open_places(x)
        n = np.nan_to_num(np.maximum(last - first + 1, 0.0))
        middle = self.origin + self.step * np.floor((first + last) / 2)
        return n, np.where(n > 0, middle, np.nan)

    def _open_places(self, x: Floats) -> tuple[Floats, Floats]:
        """Positions (N,) of the first and the last lattice point that rounding leaves open; NaN without parents."""
        with np.errstate(over="ignore", invalid="ignore"):  # beyond all places of the lattice
            middle = (self.values(x) - self.origin) / self.step
            return open_places(middle, self.open_half(x) / self.step)

    def share_alike(self, x: Floats, column: int, numbers: Floats, also: float) -> Floats:
        """The probability (N,) that a wrong cell of a column, any of its ``numbers``, follows in rows that do.

        Of the different numbers some follow. One that is wrong is none of the row's true ones, so another number has to
        follow, too; or, with a probability ``also``, a second cell is wrong alike.
        """
        distinct = np.unique(numbers[np.isfinite(numbers)])
        step = float(np.diff(distinct).min(initial=np.ptp(distinct)))
        width = 2 * self.open_half(x) + self.step / 2
        if column != self.child:
            slope = self._slope(x, column, step)
            width = np.divide(width, slope, out=np.full(len(x), math.inf), where=slope > 0)
        near = x[:, column]
        first = np.searchsorted(distinct, near - width / 2, "left")
        last = np.searchsorted(distinct, near + width / 2, "right")
        n, n_numbers = np.maximum(last - first, 1), len(distinct)
        return np.minimum(n / n_numbers, (n - 1) / max(1, n_numbers - 1) + also)

    @property
    def description(self) -> float:
        """Nats in which its constants are written, log 10 for each digit."""
        sizes = {abs(term.coefficient) for term in self.terms} | {abs(self.constant)}
        digits = [min(n_digits(v), n_digits(1 / v)) for v in sizes if v not in (0.0, 1.0)]
        return math.log(10) * sum(digits)

    def _slope(self, x: Floats, column: int, step: float) -> Floats:
        """Size of the derivative (N,) of the value by a column, by a step of it."""
        terms = [t for t in self.terms if any(f.column == column for f in t.factors)]
        inside = [*dict.fromkeys(f.column for term in terms for f in term.factors)]
        terms, near = renumbered(terms, inside), x[:, inside]
        value = value_of(terms, near)
        near[:, inside.index(column)] += step
        slope = np.abs(value_of(terms, near) - value) / step
        return np.nan_to_num(slope, nan=0.0, posinf=0.0)

    def follows(self, x: Floats) -> Floats:
        """1 where the child is one of the numbers that its parents leave open, 0 where not, NaN where unknown; (N,)."""
        with np.errstate(over="ignore"):
            place = np.rint((x[:, self.child] - self.origin) / self.step)
        first, last = self._open_places(x)
        known = np.isfinite(place) & np.isfinite(first)
        return np.where(known, (first <= place) & (place <= last), np.nan)

    def solved(self, x: Floats, column: int) -> Floats:
        """The numbers (N,) of one of its columns with which the child would follow; NaN where there is none."""
        if column == self.child:
            return self.values(x)
        inside = [t for t in self.terms if any(f.column == column for f in t.factors)]
        forms = [f.form for t in inside for f in t.factors if f.column == column]
        if len({*forms}) != 1 or len(forms) != len(inside):
            return np.full(len(x), np.nan)
        rest = value_of([t for t in self.terms if t not in inside], x)
        beside = [
            replace(t, factors=tuple(f for f in t.factors if f.column != column)) for t in inside
        ]
        with np.errstate(all="ignore"):
            out = (x[:, self.child] - self.constant - rest) / value_of(beside, x)
            out = INVERSES[forms[0]](out)
        return np.where(np.isfinite(out), out, np.nan)

    def text(self, names: Sequence[str]) -> str:
        """The relation as an equation of the names of columns."""
        return f"{names[self.child]} = {self.expression(names)}"

    @property
    def _is_floor(self) -> bool:
        """Whether the child is cut off rather than rounded."""
        return self.half > 0 and math.isclose(self.constant, -self.half)

    def expression(self, names: Sequence[str]) -> str:
        """The right side of the equation, of names or of numbers as text."""
        sizes = {abs(term.coefficient) for term in self.terms}
        shared = sizes.pop() if len(sizes) == 1 else 1.0
        constant = 0.0 if self._is_floor else self.constant
        text, is_sum = "", len(self.terms) > 1
        if constant > 0 and shared == 1 and all(term.coefficient < 0 for term in self.terms):
            text, constant = f"{constant:.10g}", 0.0
        for term in self.terms:
            sign = " − " if term.coefficient < 0 else " + " if text else ""
            body = _product_text(term.factors, names)
            text += sign + _scaled_text(abs(term.coefficient) / shared, body)
        text = text.removeprefix(" ")
        if shared != 1.0:
            text = _scaled_text(shared, f"({text})" if is_sum else text)
        if constant:
            text += f" {'−' if constant < 0 else '+'} {abs(constant):.10g}"
        return text + ", rounded down" * self._is_floor

    def worked_out(self, texts: Sequence[str], x: Floats, schema: Sequence[Column]) -> str:
        """The expression with the cells of a row, and what it makes of its numbers x (1, C); ``texts`` are times.

        That has the decimals of the child, but is no other number, whatever the child's range and categories; it has
        more where the child would seem to follow with these. Times have no fractions of a second unless the child has.
        """
        child, value, cells = schema[self.child], float(self.values(x)[0]), [*texts]
        if self._is_floor:
            places = (value + self.half - self.origin) / self.step
            value = self.origin + self.step * math.floor(places + ON_LATTICE)
        for j in self.parents:
            if schema[j].family == "number":
                cells[j] = _number_text(x[0, j], 12, schema[j])
        if child.family != "number":
            return f"{self.expression(cells)} = {_time_text(value, child)}"
        decimals = decimals_of_column(child)
        if decimals is not None and round(value, decimals) != x[0, self.child]:
            value = round(value, decimals)
        return f"{self.expression(cells)} = {_number_text(value, 10, child)}"


def open_places(middle: Floats, half: Floats) -> tuple[Floats, Floats]:
    """The first and the last whole number (N,) in intervals, to the errors of floats."""
    half = half + ON_LATTICE + FLOAT_ERROR * np.abs(middle)
    return np.ceil(middle - half), np.floor(middle + half)


def _number_text(value: float, n_significant: int, column: Column) -> str:
    """A number as a column writes it, of so many digits if it has many decimals, so that sums of it are right.

    Without a percent sign: expressions divide by 100 themselves.
    """
    if round(value, MOST_DECIMALS) != value:
        value = float(f"{value:.{n_significant}g}")
    return written(value, column).replace("%", "").strip()


def _time_text(days: float, column: Column) -> str:
    """A time or duration, in days, as a column writes it, and to the second; of any year."""
    if abs(days) > MOST_NANOSECOND_DAYS:
        seconds = np.datetime64(round(days * (DAY // SECOND)), "s")
        is_time = column.family == "datetime"
        return str(seconds).replace("T", " ") if is_time else f"{days:.12g} days"
    step = SECOND if column.step % SECOND == 0 else column.step
    steps = (days * (DAY // SECOND) - column.origin) * (SECOND / step)
    cells = restore_times(np.array([steps]), column.dtype, column.origin, step)
    return written(cells.iloc[0], column)


def n_digits(value: float) -> int:
    """Digits of a number, but for zeros at its ends."""
    return len(f"{abs(value):.12g}".split("e")[0].replace(".", "").strip("0"))


def _product_text(factors: Sequence[ColumnTerm], names: Sequence[str]) -> str:
    """Factors as text, those divided by last."""
    up = [TEXTS.get(f.form, "{}").format(names[f.column]) for f in factors if f.form != "1/x"]
    down = [f" / {names[f.column]}" for f in factors if f.form == "1/x"]
    return (" × ".join(up) or "1") + "".join(down)


def _scaled_text(c: float, body: str) -> str:
    """A positive multiple as text, as a quotient where that is shorter."""
    if c == 1:
        return body
    if (n_digits(1 / c), c) < (n_digits(c), 1):
        return f"{body} / {1 / c:.8g}"
    return f"{c:.8g} × {body}"


def numbers_of(
    frame: pd.DataFrame, schema: Sequence[Column], columns: Collection[int] | None = None
) -> Floats:
    """The cells of a table, text parsed, as numbers (N, C): times in days, text with digits as the number in it.

    NaN for gaps, and in columns without numbers, or that are none of those ``columns``, if these are given.
    """
    x = np.full((len(frame), len(schema)), np.nan)
    for j in range(len(schema)) if columns is None else columns:
        column = schema[j]
        if not has_numbers(column):
            continue
        cells, _ = column.readable(cast(pd.Series, frame[column.name]))
        x[:, j] = column_numbers(column, cells)
    return x


def column_numbers(column: Column, cells: PlainCells) -> Floats:
    """The cells (N,) of one column, as it reads them, as numbers of :func:`numbers_of`."""
    try:
        if not has_numbers(column):
            numbers = np.full(len(cells.values), np.nan)
        elif is_numeric(column):
            if text_among(cells.values).any():  # levels beside words
                texts = [number_of(v) if isinstance(v, str) else v for v in cells.values]
                cells = PlainCells(np.array(texts), cells.where)
            numbers = column.numbers(cells)
        else:
            numbers = np.array([number_in(text) for text in cells.values], dtype=float)
    except ValueError:  # levels that are no floats
        numbers = np.full(len(cells.values), np.nan)
    if column.family != "number":
        numbers = (numbers * (column.step / SECOND) + column.origin) * (SECOND / DAY)
    return np.append(numbers, np.nan)[cells.where]


def has_numbers(column: Column) -> bool:
    """Whether the cells of a column are numbers or times, or text with one number in nearly each level."""
    if column.are_truths:
        return False
    n_read = sum(not math.isnan(number_in(c)) for c in column.categories) if column.is_text else 0
    return is_numeric(column) or n_read > LEAST_WITH_DIGITS * len(column.categories)


def number_in(category: object) -> float:
    """The number that a category is, or that is written in it as its one run of digits; else NaN."""
    if not isinstance(category, str):
        return float(cast(float, category))
    match = DIGITS.fullmatch(category)
    return float(match[1]) if match else math.nan


def is_numeric(column: Column) -> bool:
    """Whether the cells of a column are numbers or times, with levels or without."""
    return column.codec.of_numbers or {*map(type, column.categories)} <= {int, float}
