"""One column of a table: its dtype, and the map of its values to numbers of the core and back."""

from __future__ import annotations

import math
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import pandas as pd

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.codec import Codec
from discrete_itd.reading.frames import (
    DAY,
    MINUTE,
    MOST_DECIMALS,
    SECOND,
    TIMES,
    PlainCells,
    Scalar,
    as_numbers,
    decimals_of,
    dtype_from_json,
    dtype_to_json,
    family,
    holds_text,
    is_category,
    is_number,
    numpy_name,
    plain,
    read_cells,
    restore_categories,
    restore_numbers,
    restore_times,
    text_among,
    time_zone,
)
from discrete_itd.reading.notation import Notation
from discrete_itd.reading.numbers import NumberNotation
from discrete_itd.reading.text import (
    TRUTHS,
    as_text,
    denotes_missing,
    number_of,
    quoted,
    read_plainly,
)

StoredDtype = Annotated[Any, (dtype_to_json, dtype_from_json)]
SIGNIFICANT = 4  # digits of numbers that have more than a person writes, as in a computed column
LONGEST = 12  # digits of numbers that are never rounded, as a person or a till wrote them
MOST_EXACT = 2.0**53  # up to it, all whole numbers are exact as floats
SMALL = 1e-4  # below, and beyond exact integers, a power of ten is easier to read than zeros
SUSPICIOUS_ROWS = 5  # this many unseen values and no known one are hardly chance


@dataclass(frozen=True)
class Column:
    """Schema of one of the user's columns.

    Parameters
    ----------
    name : str, int, float or bool
        The column's name; its position in an array.
    dtype : dtype
        Of values that are given back.
    codec : Codec
        Map of values to the core's numbers and back.
    n_rows, n_missing : int
        Cells in training, and how many of them were missing.
    absent : bool
        Whether "absent" is a value: of a nominal column a level, of others an internal column of its own, which
        indicates whether there is a value.
    informative : bool
        Whether gaps that are summed out carry information: what a network learned beside them is not what it would
        have learned beside values.
    origin, step : int
        Seconds since 1970 (for durations, since 0) from which times count, and nanoseconds by which they count.
    decimals : int, optional
        Of its fractional numbers, which are given back with as many; None if they have more than six.
    notation : Notation, optional
        Of numbers or times that are text.
    text_dtype : dtype, optional
        Of the column in the training table, if it was such text: drawn and filled cells are text, too.
    na : tuple of str
        Text that is a missing cell.
    codes : tuple of float
        Numbers that are missing cells.
    notes : tuple of str
        What else was done to cells when the training table was read.

    Examples
    --------
    >>> from discrete_itd.encoders import Categories
    >>> column = Column("colour", np.dtype(object), Categories("nominal", ("blue", "red"), False), 2, 0)
    >>> column.encode(pd.Series(["red", None]))[0]
    array([ 1., nan])
    """

    name: Hashable
    dtype: StoredDtype
    codec: Codec
    n_rows: int
    n_missing: int
    absent: bool = False
    origin: int = 0
    step: int = 1
    decimals: int | None = None
    notation: Notation | None = None
    text_dtype: StoredDtype | None = None
    na: tuple[str, ...] = ()
    codes: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    informative: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.codec, Codec):
            raise TypeError(f"column {self.name!r}: {self.codec!r} is no kind of column")
        if not 0 <= self.n_missing <= self.n_rows or self.step < 1:
            raise ValueError("counts and step must be positive")
        if self.decimals not in (None, *range(MOST_DECIMALS + 1)):
            raise ValueError(f"decimals must be few, got {self.decimals!r}")
        if is_category(self.dtype) and not len(self.dtype.categories):  # a file has them once
            names = pd.Index(list(self.categories), dtype=self.dtype.categories.dtype)
            vars(self)["dtype"] = pd.CategoricalDtype(names, self.dtype.ordered)

    @property
    def indicator(self) -> bool:
        """Whether an internal column of its own says if the cell is missing."""
        return self.absent and math.isnan(self.absent_level)

    @property
    def absent_level(self) -> float:
        """The level of missing cells; NaN if they have none."""
        return self.codec.absent_level

    def with_absent(self) -> Column:
        """The column with "absent" as a value."""
        return replace(self, codec=self.codec.with_absent(), absent=True)

    @property
    def kind(self) -> str:
        return self.codec.kind

    @property
    def is_ordered(self) -> bool:
        """Whether the values have an order, and so medians and quantiles."""
        return self.codec.is_ordered

    @property
    def has_levels(self) -> bool:
        """Whether a cell is one of finitely many levels, with probabilities; else it has a density."""
        return self.codec.has_levels

    @property
    def has_masses(self) -> bool:
        """Whether cells have probabilities whatever the unit: categories, but no numbers and no times."""
        return self.has_levels and not self.codec.of_numbers

    @property
    def categories(self) -> tuple[Scalar, ...]:
        """The values, in order; empty where they are numbers or times."""
        return self.codec.categories

    @property
    def open(self) -> bool:
        """Whether a level stands for values that are none of the categories."""
        return self.codec.open

    @property
    def is_text(self) -> bool:
        """Whether the column has categories and all of them are text."""
        return bool(self.categories) and all(isinstance(c, str) for c in self.categories)

    @property
    def family(self) -> str:
        """Kind of the values if they are not categories: "number", "datetime" or "timedelta"."""
        found = family(self.dtype)
        return found if found in TIMES else "number"

    @property
    def has_days(self) -> bool:
        """Whether its times are dates: all lie at the beginning of a day, without a time zone."""
        is_date = self.family == "datetime" and not time_zone(self.dtype)
        return is_date and self.step % DAY == 0 and self.origin % (DAY // SECOND) == 0

    @cached_property
    def _takes_text(self) -> bool:
        """Whether text among its cells is parsed: as numbers or times, or as words for missing cells among numbers."""
        are_numbers = all(isinstance(c, int | float) for c in self.categories)
        return self.gives_numbers or (bool(self.categories) and are_numbers)

    @property
    def gives_numbers(self) -> bool:
        """Whether text of the column is numbers or times."""
        return self.notation is not None or self.codec.of_numbers

    @property
    def are_truths(self) -> bool:
        """Whether its values are True and False, which leave no level for another."""
        return self.codec.are_truths

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers or times, which have a median and a mean: all but codes and words."""
        numeric = {*map(type, self.categories)} <= {int, float}
        return self.is_ordered and (self.codec.of_numbers or numeric)

    def to_numbers(self, x: np.ndarray) -> np.ndarray:
        """The numbers, (n,), that encoded cells of a column of numbers stand for; times as counts of steps."""
        if not self.codec.of_numbers:
            return np.array(self.categories, float)[self.codec.decode(x)]
        return self.codec.settled(self.codec.decode(x))

    def from_numbers(self, values: np.ndarray) -> np.ndarray:
        """The encoded cells, (n,), of numbers; of levels, the nearest."""
        if not self.codec.of_numbers:
            levels = np.array(self.categories, float)[:, None]
            return np.abs(levels - values).argmin(0).astype(float)
        return self.codec.encode(values)[0]

    @property
    def has_volume(self) -> bool:
        """Whether log-volumes of cells differ from 0: a density, or categories that share a level."""
        return self.codec.has_volume

    @property
    def points(self) -> ColumnPoints:
        return self.codec.points

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The categories, the level of each, and its share of the level's probability.

        A continuous column has none: TypeError.
        """
        if not self.has_levels:
            raise TypeError(f"column {self.name!r}: {self.kind}, without categories")
        return self.codec.values()

    def readable(
        self, values: pd.Series | pd.Index | PlainCells
    ) -> tuple[PlainCells, np.ndarray | None]:
        """The plain values of cells, with text parsed in the column's notation, or as Python and ISO 8601 write it.

        Text among categories is kept, except for words for missing cells. A text in a column of numbers or times that
        is neither one of these nor a word for a missing cell is unreadable: the cell counts as missing, and the second
        result has the text, objects (N,), None elsewhere; it is None if there is no such cell.
        """
        cells = values if isinstance(values, PlainCells) else read_cells(values)
        is_text = text_among(cells.values) if self._takes_text or self.na else np.zeros(0, bool)
        if not is_text.any():
            return self._without_codes(cells), None
        found = texts = cells.values[is_text]
        is_bad, words = np.zeros(len(texts), dtype=bool), None
        if self.gives_numbers:
            found = pd.Series(self._read_texts(texts.tolist())).astype(object)
            is_bad = found.isna().to_numpy()
        elif self.are_truths:
            is_bad = np.array([text not in TRUTHS for text in texts])
        elif self._takes_text:  # among levels
            is_bad = np.array([math.isnan(number_of(text)) for text in texts])
        is_gap = np.isin(texts, [*self.na, *filter(denotes_missing, texts[is_bad])])
        is_bad = is_bad & ~is_gap
        if is_bad.any():
            wrong = np.full(len(is_text) + 1, None, dtype=object)
            wrong[np.flatnonzero(is_text)[is_bad]] = texts[is_bad]
            words = wrong[cells.where]
        merged = cells.values.copy()
        if not is_text.all():  # times with a zone are converted to UTC, as in text
            own = read_cells(pd.Series(merged[~is_text], dtype=object)).values
            merged[~is_text] = pd.Series(own).astype(object)
        merged[is_text] = pd.Series(found, dtype=object).mask(is_bad | is_gap, None)
        read = read_cells(pd.Series(merged, dtype=object))
        read = PlainCells(read.values, np.append(read.where, -1)[cells.where])
        return self._without_codes(read), words

    def _without_codes(self, cells: PlainCells) -> PlainCells:
        if not self.codes or not is_number(cells.values):
            return cells
        is_code = np.append(np.isin(cells.values.astype(float), self.codes), True)
        return PlainCells(cells.values, np.where(is_code[cells.where], -1, cells.where))

    def refusal(self, text: str) -> str:
        """The error of an unreadable text."""
        return f"column {self.name!r}: {self.expected}, got {quoted(text)}{self.hint(text)}"

    @property
    def expected(self) -> str:
        """Description of a valid cell of a column of numbers or times."""
        if self.notation is not None:
            return f"expected {self.notation.expected}"
        return (
            "expected "
            + {
                "number": "True or False" if self.are_truths else "numbers",
                "datetime": "ISO dates or times, like 2024-01-31",
                "timedelta": "durations, like 1 days 02:00:00",
            }[self.family]
        )

    def hint(self, text: str) -> str:
        """Explanation of an unreadable text that is a number in another notation; else empty."""
        if self.notation is not None or (self.family == "number" and not self.are_truths):
            return (self.notation or NumberNotation()).hint(text)
        return ""

    def _read_texts(self, texts: list[str]) -> np.ndarray:
        """Numbers or times, missing where a text is none."""
        notation, plain = self.notation, (texts, self.family, self.dtype)
        found = read_plainly(*plain) if notation is None else notation.read(texts)
        # float32 columns were encoded in float32: round text alike
        if numpy_name(self.dtype) in ("float16", "float32"):
            return found.astype(numpy_name(self.dtype)).astype(float)
        return found

    def read(self, values: pd.Series) -> pd.Series:
        """A column of a table, as numbers or times if it is text of these."""
        if not (self.gives_numbers and holds_text(values)):
            return values
        cells, _ = self.readable(values)
        typed = pd.Series(cells.values).reindex(cells.where).set_axis(values.index)
        typed = typed.rename(values.name)
        with suppress(TypeError, ValueError, OverflowError):  # not of the kind, or too far away
            if time_zone(self.dtype):
                typed = typed.dt.tz_localize("UTC")
            if family(self.dtype) != "integer" or (typed % 1 == 0).all():
                typed = typed.astype(self.dtype)
        return typed

    def is_written(self, values: pd.Series) -> bool:
        """Whether filled cells are text: if others are, or if all are gaps and the training table had text."""
        if self.notation is None and any(isinstance(c, str) for c in self.categories):
            return False
        was_text = self.notation is not None and self.text_dtype is not None
        return holds_text(values) or (was_text and bool(values.isna().all()))

    def as_text(self, values: pd.Series) -> pd.Series:
        """Numbers or times as text, in the column's notation or as Python and ISO 8601 write them."""
        if self.notation is not None:
            return self.notation.write(values)
        return as_text(values, days=self.has_days)

    def write(self, values: pd.Series) -> pd.Series:
        """Numbers or times as the training table wrote them, if that was text."""
        if self.notation is None or self.text_dtype is None:
            return values
        return self.notation.write(values).astype(self.text_dtype)

    @property
    def reading(self) -> str:
        """What was done to cells when the training table was read, for a line of a table; empty if nothing was."""
        gaps = [*map(quoted, self.na), *map(number, self.codes)]
        parts = [] if self.notation is None else [self.notation.described]
        parts += [f"{' and '.join(gaps)} taken as missing"] if gaps else []
        return "; ".join((*parts, *self.notes))

    def numbers(self, cells: PlainCells) -> np.ndarray:
        """The numbers of plain values of a column of numbers or times: float64, times as counts of steps.

        ValueError, naming the column, if a value is infinite or not of its kind.
        """
        return as_numbers(self.name, cells, self.family, self.origin, self.step)

    def encode(
        self, values: pd.Series | PlainCells, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The core's numbers and log-volumes, float64; where a cell is missing, its level or NaN, and 0.

        Of shape (N,); (N, 2) where the codec has a ``part``. Times are counted from the steps ``start`` (N,), if given,
        and missing where that is NaN.

        The third result is whether all of several values are unseen, so that the dtype is probably wrong. A ValueError
        or TypeError names the column, if a value is not of its kind, infinite, or unseen where that is refused.
        """
        cells, words = self.readable(values)
        if words is not None:
            raise ValueError(self.refusal(words[pd.notna(words)][0]))
        where = cells.where
        if not self.codec.of_numbers:
            x, log_volume = self.codec.encode(self.name, cells)
        else:
            numbers = self.numbers(cells)
            if start is not None:
                numbers = np.append(numbers, np.nan)[where] - start
                where = np.where(np.isnan(numbers), -1, np.arange(len(numbers)))
                numbers = np.where(where < 0, 0.0, numbers)
            x, log_volume = self.codec.encode(numbers)
            if self.family != "number":
                first = log_volume if log_volume.ndim == 1 else log_volume[:, 0]
                first -= math.log(self.step / 1e9)  # per second, not per step
        is_open = bool(self.categories) and self.open
        is_suspicious = is_open and bool((x == self.codec.n_levels).all())
        is_suspicious = is_suspicious and int((cells.where >= 0).sum()) >= SUSPICIOUS_ROWS
        # one more, for the missing: index -1
        x = np.concatenate((x + 0.0, np.full((1, *x.shape[1:]), self.absent_level)))
        log_volume = np.concatenate((log_volume, np.zeros((1, *x.shape[1:]))))
        return x[where], log_volume[where], is_suspicious

    def decode(
        self,
        x: np.ndarray,
        rng: np.random.Generator | None = None,
        *,
        settled: bool = False,
        start: np.ndarray | None = None,
    ) -> pd.Series:
        """The cells of the core's numbers, in the fitted dtype; ``settled`` ones as :meth:`Continuous.settled`.

        Times are counted from the steps ``start`` (N,), if given.
        """
        values = self.codec.decode(x, rng)
        if not self.codec.of_numbers:
            return restore_categories(*self.codec.cells(values, rng), self.dtype)
        if settled:
            values = self.codec.settled(values)
        if start is not None:
            values = values + start
        if self.family != "number":
            return restore_times(values, self.dtype, self.origin, self.step)
        whole = family(self.dtype) == "integer" or self.codec.whole
        return restore_numbers(values, self.dtype, whole, self.decimals)


def is_missing(value: Any) -> bool:
    """Whether a cell is missing."""
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def written(value: Any, column: Column | None = None) -> str:
    """A value as text, for people: "a missing cell" for a missing one.

    Parameters
    ----------
    value : scalar
        A cell of the table as the user has it, or as :meth:`Column.decode` gives it back.
    column : Column, optional
        Its numbers get as many decimals as they had in training, more only where the value itself has more; its times
        are as fine as they were. What was text is written as most of it was: "28.2.1999" becomes "28.02.1999".
        Categories stay as they are: digits of a nominal column are not grouped, as they may be a postal code.

    Examples
    --------
    >>> written(2361000.0), written(0.25), written(1999), written(None)
    ('2 361 000', '0.25', '1999', 'a missing cell')
    >>> written(pd.Timestamp("2024-01-31"))
    '2024-01-31'
    """
    value = plain(value)
    if is_missing(value):
        return "a missing cell"
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    is_text = isinstance(value, str | bool)
    if column is not None and column.notation is not None and not is_text:
        return str(_unrounded(column.notation, value).write(pd.Series([value])).iloc[0])
    step = 1 if column is None or column.family == "number" else column.step
    if isinstance(value, pd.Timestamp):
        return _time(value, step)
    if isinstance(value, pd.Timedelta | np.timedelta64):
        return str(pd.Timedelta(value)).removesuffix(" 00:00:00")
    if isinstance(value, str):  # what people would not see is in quotation marks
        return value if value and value.isprintable() and value == value.strip() else quoted(value)
    if is_text or not isinstance(value, int | float):
        return str(value)
    is_name = column is not None and not column.is_ordered
    return number(value, decimals_of_column(column), grouped=not is_name)


def number(value: float, decimals: int | None = 0, *, grouped: bool = True) -> str:
    """A number as text, with at least so many ``decimals``, and more where it has more.

    Numbers with more than six decimals and twelve digits, which were computed, are rounded to four significant digits.
    ``grouped`` sets digits in groups of three, from five digits before the decimal mark on.

    Examples
    --------
    >>> number(25.0, 2), number(0.123456789, None), number(10667, grouped=False), number(3e20)
    ('25.00', '0.123456789', '10667', '3e+20')
    >>> number(1 / 3), number(10**400), number(-0.0), number(np.longdouble(1) / 3)
    ('0.3333', '1e+400', '0', '0.3333')
    """
    try:
        if not math.isfinite(value):
            return str(value)
        if not isinstance(value, int):
            value = float(value) or 0.0  # of any precision, and without a sign of zero
            # an integer is a float beside a gap, and is to be written alike
            value = int(value) if abs(value) <= MOST_EXACT and value.is_integer() else value
    except OverflowError:  # an integer that no float holds
        return f"{Decimal(value).normalize():.{SIGNIFICANT}g}"
    if isinstance(value, float) and not SMALL <= abs(value) <= MOST_EXACT and value:
        digits = len(Decimal(repr(float(value))).normalize().as_tuple().digits)
        return f"{value:.{digits if digits <= LONGEST else SIGNIFICANT}g}"
    own = _own_decimals(value)
    if own is None:
        before = math.floor(math.log10(abs(value))) + 1 if value else 1  # digits before the mark
        text = f"{value:.{max(0, SIGNIFICANT - before)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        own = max(decimals or 0, own)
        text = str(value) if isinstance(value, int) and not own else f"{value:.{own}f}"
    whole, mark, fraction = text.partition(".")
    if grouped and len(whole.lstrip("-")) > 4:
        whole = f"{int(whole):,}".replace(",", " ")
    return f"{whole}{mark}{fraction}"


def _own_decimals(value: float) -> int | None:
    """The decimals of a number; None if it has more than were plausibly written."""
    parts = Decimal(repr(float(value))).normalize().as_tuple()
    own = max(0, -int(parts.exponent))
    return own if own <= MOST_DECIMALS or len(parts.digits) <= LONGEST else None


def _unrounded(notation: Notation, value: Any) -> Notation:
    """The notation with as many places as a value has, if these are more."""
    if not isinstance(notation, NumberNotation) or not math.isfinite(value):
        return notation
    own = _own_decimals(value)
    return notation if (own or 0) <= (notation.places or 0) else replace(notation, places=own)


def decimals_of_column(column: Column | None) -> int | None:
    """The decimals that numbers of a column are written with."""
    if column is None or not column.categories:
        return 0 if column is None or column.codec.whole else column.decimals
    numbers = [c for c in column.categories if isinstance(c, int | float)]
    return decimals_of(np.array(numbers, dtype=float), np.dtype(float)) if numbers else 0


def _time(value: pd.Timestamp, step: int) -> str:
    """A time, as fine as a column whose times lie on a grid of ``step`` nanoseconds, or as the time itself is."""
    if value == value.normalize() and (step == 1 or step >= DAY):
        return f"{value.date()}"
    for unit, digits in ((MINUTE, "minutes"), (SECOND, "seconds")):
        if step % unit == 0 and value.floor(f"{unit}ns") == value:
            return value.isoformat(sep=" ", timespec=digits)
    return str(value)
