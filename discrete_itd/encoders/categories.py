"""Columns of categories: a level for each value, one for all rare values together, and one for unseen values."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.channel.rounded_numbers import LARGEST
from discrete_itd.encoders.codec import Codec
from discrete_itd.reading.frames import (
    MOST_DECIMALS,
    PlainCells,
    Scalar,
    decimals_of,
    log_anywhere,
    plain,
    rounding,
)
from discrete_itd.reading.text import LEADING_ZERO, TRUTHS, number_of, quoted, whole_of

# Most levels of a column, with the pooled and the unseen level. In a column of more categories the rarest share one
# level, and so do all that occur in fewer than POOLED_BELOW rows: nothing is known of them but that they are rare.
MOST_LEVELS, POOLED_BELOW = 4096, 2
WHOLE = re.compile(r"0|-?[1-9]\d*", re.ASCII)  # as Python writes it
# power with which the tail of unseen numbers beyond an ordinal column's falls; chosen among 1, 3, 4, 5 and 6 on numbers
# times ten of adult and loans, and hours of 400
FALL = 5.0
FINEST_GAP = 1e-3  # standard deviations; closer levels are spaced by rank


@dataclass(frozen=True)
class Categories(Codec):
    """A column whose cells are one of finitely many values.

    Levels: the categories that are not pooled, in order; one for all that are, if any; one for missing cells, if
    "absent" is a value; one for every other value, if the column is open. Where the categories are ordinal numbers, the
    other numbers share the probability of that level, far ones having less of it.

    Parameters
    ----------
    kind : {"nominal", "ordinal"}
    categories : tuple of str, int, float or bool
        All of them, in order. Empty if the column had no values in training: then every value is unseen.
    open : bool
        Whether the last level stands for values that are none of the categories.
    levels : tuple of float
        Points of an ordinal column's categories on the line.
    pooled : tuple of int
        Positions of the categories that share a level, the most frequent first.
    pooled_counts : tuple of int
        How often each of these occurred: its share of the level is proportional to this plus one half.
    unseen_count : float
        Pseudo-count of unseen values when the marginal is smoothed: the number of those seen exactly once, at least
        one half; one half where the categories are declared.
    absent : bool
        Whether a level stands for missing cells, of a nominal column only.
    unused : tuple of int
        Positions of the categories that a dtype lists but no cell had: values as unseen as any other.

    References
    ----------
    Good, "The population frequencies of species and the estimation of population parameters", Biometrika 1953:
    the probability of an unseen value is about the share of rows whose value is seen once.

    Examples
    --------
    >>> colours = Categories("nominal", ("blue", "red"), open=True)
    >>> colours.n_levels, colours.points.n_points
    (2, 3)
    """

    kind: Literal["nominal", "ordinal"]
    categories: tuple[Scalar, ...]
    open: bool
    levels: tuple[float, ...] = ()
    pooled: tuple[int, ...] = ()
    pooled_counts: tuple[int, ...] = ()
    unseen_count: float = 0.5
    absent: bool = False
    unused: tuple[int, ...] = ()

    of_numbers: ClassVar[bool] = False
    whole: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.kind not in ("nominal", "ordinal"):
            raise ValueError(f"categories are nominal or ordinal, got the kind {self.kind!r}")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories repeat")
        if len({*self.pooled, *self.unused}) < len(self.pooled + self.unused):
            raise ValueError("pooled and unused must hold different positions")
        if len(self.pooled) == 1 or (self.unused and not self.open):
            raise ValueError("one pooled category has a level, and so has an unused one if closed")
        if not all(0 <= k < len(self.categories) for k in self.pooled + self.unused):
            raise ValueError("pooled and unused must hold positions of categories")
        if len(self.pooled_counts) != len(self.pooled) or min(self.pooled_counts, default=0) < 0:
            raise ValueError("pooled_counts must hold a count for each pooled category")
        is_nominal = self.pooled or self.absent or self.unused or not self.categories
        if self.is_ordered and is_nominal:
            raise ValueError("an ordinal column has categories, none pooled, absent or unused")
        if len(self.levels) != (len(self.categories) if self.is_ordered else 0):
            raise ValueError("an ordinal column has one level for each category, a nominal none")
        if self.unseen_count <= 0:
            raise ValueError(f"unseen_count must be positive, got {self.unseen_count}")

    @cached_property
    def _places(self) -> dict[tuple[bool, Scalar], int]:
        """Positions by (is a boolean, value) of the categories, and of other values that stand for them."""
        found = {(isinstance(c, bool), c): k for k, c in enumerate(self.categories)}
        if self.are_truths:
            found |= {(False, int(c)): found[True, c] for c in self.categories}
        elif self._are_integers:
            texts = [str(c) for c in self.categories]
            found |= {(False, whole_of(t, number_of(t))): k for k, t in enumerate(texts)}
        for word, truth in TRUTHS.items():  # Python's own come first
            if self.are_truths and (True, truth) in found:
                found[False, word] = found[True, truth]
            elif (False, word) in found:
                found.setdefault((True, truth), found[False, word])
        return found

    @cached_property
    def are_truths(self) -> bool:
        """Whether they are True and False, which leave no level for another value."""
        return bool(self.categories) and all(isinstance(c, bool) for c in self.categories)

    @cached_property
    def _are_integers(self) -> bool:
        """Whether all categories are text of integers."""
        return all(isinstance(c, str) and WHOLE.fullmatch(c) for c in self.categories)

    @cached_property
    def _reads_numbers(self) -> bool:
        """Whether other text of a number is the number: some categories are numbers, or all are text of integers."""
        are_numbers = [type(c) in (int, float) for c in self.categories]
        return self._are_integers or any(are_numbers)

    @cached_property
    def _line(self) -> list[tuple[float, int]]:
        """The categories, increasing, with their positions, if all are floats; else none."""
        are_floats = all(isinstance(c, float) for c in self.categories)
        return sorted((float(c), k) for k, c in enumerate(self.categories)) if are_floats else []

    def _place(self, value: Any) -> int:
        """The position of a value among the categories, -1 if absent; TypeError if it has no hash.

        Equal numbers match whatever their types, and floats to within :func:`rounding`; so does text of a number that
        is a category, and where all categories are the text of integers, numbers do. Booleans match booleans, and among
        categories of text the words for them; other text matches text. If all categories are booleans, text is parsed
        as one, and so are 0 and 1.
        """
        k = self._places.get((isinstance(value, bool), value), -1)
        if k >= 0 or isinstance(value, bool):
            return k
        if isinstance(value, str):
            number = number_of(value) if self._reads_numbers else math.nan
            is_code = LEADING_ZERO.match(value) and any(isinstance(c, str) for c in self.categories)
            if not math.isfinite(number) or is_code:
                return -1
            value = whole_of(value, number)
            k = self._places.get((False, value), -1)
        if k < 0 and self._line and isinstance(value, int | float):
            i = bisect_left(self._line, (value, -1))
            near, k = min(self._line[max(0, i - 1) : i + 1], key=lambda c: abs(c[0] - value))
            k = k if abs(near - value) <= rounding(value) else -1
        return k

    @cached_property
    def _kept(self) -> np.ndarray:
        """Positions of the categories that have a level of their own."""
        without = np.array(self.pooled + self.unused, np.int64)
        return np.setdiff1d(np.arange(len(self.categories)), without)

    @cached_property
    def _level_of(self) -> np.ndarray:
        level_of = np.full(len(self.categories), len(self._kept))
        level_of[self._kept] = np.arange(len(self._kept))
        level_of[list(self.unused)] = self.n_levels
        return level_of

    @cached_property
    def _share(self) -> np.ndarray:
        """Of each category, its share of the probability of its level."""
        share = np.ones(len(self.categories))
        counts = np.array(self.pooled_counts) + 0.5
        share[list(self.pooled)] = counts / counts.sum()
        return share

    @property
    def is_ordered(self) -> bool:
        return self.kind == "ordinal"

    def with_absent(self) -> Categories:
        """The codec with a level for missing cells, of a nominal column; an ordinal one has none."""
        return self if self.is_ordered else replace(self, absent=True)

    def is_outside(self, level: np.ndarray) -> np.ndarray:
        """Whether each is the level of unseen values: bool, False for NaN."""
        return level >= self.n_levels

    @property
    def n_levels(self) -> int:
        """Number of levels, not counting the level of unseen values."""
        return max(1, len(self._kept) + bool(self.pooled)) + self.absent

    @property
    def absent_level(self) -> float:
        """The level of missing cells, or NaN."""
        return self.n_levels - 1.0 if self.absent else math.nan

    @property
    def points(self) -> ColumnPoints:
        if self.is_ordered:
            return ColumnPoints("line", self.n_levels, self.open, self.levels)
        return ColumnPoints("simplex", self.n_levels, self.open)

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The categories, the level of each, and its share of the level's probability."""
        return _index(self.categories), self._level_of, self._share

    def encode(self, name: Hashable, cells: PlainCells) -> tuple[np.ndarray, np.ndarray]:
        """Levels of the values, float64, and the log of each value's share of its level.

        ValueError if a value is infinite, or unseen and the column is closed; TypeError if it cannot be a category.
        """
        if cells.values.dtype == float and np.isinf(cells.values).any():
            raise ValueError(f"column {name!r}: contains infinity")
        try:
            position = self._find(cells.values)
        except TypeError:
            raise no_category(name, cells.values) from None
        unseen = position < 0
        if unseen.any() and not self.open:
            raise ValueError(f"column {name!r}: unseen category {quoted(cells.first(unseen))}")
        level, log_share = np.full(len(position), float(self.n_levels)), np.zeros(len(position))
        level[~unseen] = self._level_of[position[~unseen]]
        log_share[~unseen] = np.log(self._share[position[~unseen]])
        if unseen.any() and self._numbers is not None:
            log_share[unseen] = self._log_share_unseen(cells.values[unseen])
        return level, log_share

    @cached_property
    def _numbers(self) -> np.ndarray | None:
        """The categories (K,) of an ordinal column of numbers, increasing."""
        types = {type(c) for c in self.categories}
        is_numeric = self.is_ordered and types <= {int, float}
        return np.sort(np.array(self.categories, float)) if is_numeric else None

    @cached_property
    def _step(self) -> float:
        """The unit of the last digit of the numbers: 1 of whole ones."""
        assert self._numbers is not None
        for width in ("float64", "float32"):
            decimals = decimals_of(self._numbers, np.dtype(width))
            if decimals is not None:
                return 10.0**-decimals
        return float(np.diff(self._numbers).min(initial=10.0**-MOST_DECIMALS))

    def _log_share_unseen(self, values: np.ndarray) -> np.ndarray:
        """Log-shares of unseen numbers in the probability of their level: half of it between the categories.

        They add up to one over the numbers with as many digits as the categories, and fall beyond these with a power of
        the distance, :data:`FALL`; 0 of what is no number.
        """
        assert self._numbers is not None
        is_plain = values.dtype.kind in "iuf"
        x = values.astype(float) if is_plain else np.array([number_of(str(v)) for v in values])
        low, high = self._numbers[0] - self._step / 2, self._numbers[-1] + self._step / 2
        with np.errstate(over="ignore"):
            n_between = min((high - low) / self._step, LARGEST)
        free = max(round(n_between) - len(self._numbers), 0)
        # the share of the categories goes to the others between them, or beyond if there are none
        between, beyond = (math.log(n_between / free), 0.0) if free else (0.0, math.log(2))
        log_share = log_anywhere(x, low, high, self._step, FALL)
        log_share += np.where((low < x) & (x < high), between, beyond)
        return np.where(np.isnan(x), 0.0, log_share)

    @cached_property
    def log_share_near(self) -> float:
        """Least log-share of a number between an ordinal column's, or next to them, in the level of unseen values.

        0 if it has no numbers.
        """
        if self._numbers is None:
            return 0.0
        return float(self._log_share_unseen(self._numbers[-1] + [0.0, self._step]).min())

    def _find(self, values: np.ndarray) -> np.ndarray:
        """The position of each value; of text and numbers, each different one is looked up once."""
        if len(values) == 1 or (values.dtype == object and infer_dtype(values) != "string"):
            return np.array([self._place(plain(v)) for v in values], dtype=np.int64)
        codes, distinct = pd.factorize(values)  # among objects it would take True for 1
        return np.array([self._place(plain(v)) for v in distinct], dtype=np.int64)[codes]

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions of the categories, -1 where the level stands for unseen or missing values, or x is NaN.

        The pooled level gives a member drawn by its share, or, without ``rng``, the most frequent one.
        """
        level = np.where(np.isnan(x), -1, x).astype(np.int64).clip(-1, len(self._kept) + 1)
        first = self.pooled[:1] or (-1,)
        position = np.append(self._kept, [first[0], -1])[level]
        if self.pooled and rng is not None:
            pool = level == len(self._kept)
            below = self._share[list(self.pooled)].cumsum()
            drawn = np.searchsorted(below, rng.random(len(level))[pool], side="right")
            position[pool] = np.array(self.pooled)[drawn.clip(max=len(below) - 1)]
        return position


def _index(categories: Sequence[Scalar]) -> pd.Index:
    """Numbers of one type as such, all else as Python objects."""
    types, index = {type(c) for c in categories}, pd.Index(list(categories), dtype=object)
    try:
        return index.astype(types.pop()) if types in ({int}, {float}) else index
    except OverflowError:
        return index


def fit_categories(
    kind: Any,
    categories: Sequence[Scalar],
    counts: np.ndarray,
    *,
    is_open: bool,
    equally_spaced: bool,
    is_declared: bool = False,
) -> Categories:
    """The schema of categories (K, in order) that occurred ``counts`` (K,) times.

    Of more than ``MOST_LEVELS`` nominal ones the rarest are pooled, and those that occurred fewer than ``POOLED_BELOW``
    times; of those that occurred equally often, the last. Where they are declared, others than these are hardly
    expected; otherwise, in an open column, those that did not occur are unseen.
    """
    levels: tuple[float, ...] = ()
    if kind == "ordinal":
        numeric = not equally_spaced and all(isinstance(c, int | float) for c in categories)
        positions = np.array(categories, float) if numeric else np.arange(float(len(categories)))
        levels = line_levels(positions, counts)
    order, unused = np.argsort(-counts, kind="stable"), counts[:0]
    if kind == "nominal" and is_open and not is_declared and counts.any():
        order, unused = order[: np.count_nonzero(counts)], np.flatnonzero(counts == 0)
    n_kept = len(order)
    if n_kept + is_open > MOST_LEVELS:
        n_kept = min(int((counts >= POOLED_BELOW).sum()), MOST_LEVELS - 1 - is_open)
    rare = order[n_kept:] if kind == "nominal" and len(order) > n_kept + 1 else order[:0]
    return Categories(
        kind,
        tuple(categories),
        is_open,
        levels,
        tuple(rare.tolist()),
        tuple(counts[rare].tolist()),
        max(0.5, 0.0 if is_declared else float((counts == 1).sum())),
        unused=tuple(unused.tolist()),
    )


def line_levels(positions: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Points on the line of ordinal categories at increasing ``positions`` (K,), given their counts.

    Centred, with standard deviation one half; shrunk if two neighbours would otherwise be further apart than one. Ranks
    replace numbers so uneven that neighbours nearly touch.
    """
    if len(positions) == 1:
        return (0.0,)
    weights = (counts + 0.5) / (counts + 0.5).sum()

    def standardised(values: np.ndarray) -> np.ndarray:
        values = values / values[-1]  # or the squares of very large numbers are no floats
        centred = values - weights @ values
        return 0.5 * centred / np.sqrt(weights @ centred**2)

    ranks = np.arange(len(positions), dtype=float)
    spread = positions / 2 - positions[0] / 2
    if np.diff(spread).min() <= 0:  # integers beyond 2^53 may be one float
        spread = ranks
    levels = standardised(spread)
    if np.diff(levels).min() < FINEST_GAP:
        levels = standardised(ranks)
    return tuple((levels / max(1.0, np.diff(levels).min())).tolist())


def no_category(name: Hashable, values: Iterable[Any]) -> TypeError:
    """The error that names the first value that is neither a string nor a number."""
    wrong = next((v for v in map(plain, values) if not isinstance(v, Scalar)), None)
    # times that are no column of times have several time zones, or some have none
    how = " by pandas.to_datetime(..., utc=True)" if isinstance(wrong, datetime) else ""
    return TypeError(
        f"column {name!r}: argument must be a string or a number, got {quoted(wrong)} of type {type(wrong).__name__};"
        f" convert it first{how}"
    )


def count_values(name: Hashable, values: np.ndarray) -> tuple[list[Scalar], np.ndarray]:
    """The distinct values and how often each occurs; an error names the column, if one cannot be a category.

    An array of numbers has them in increasing order.
    """
    if values.dtype.kind in "iuf":
        numbers, counts = np.unique(values + 0, return_counts=True)  # 0 and -0 are one number
        if not np.isfinite(numbers).all():
            raise ValueError(f"column {name!r}: contains infinity")
        return numbers.tolist(), counts
    try:
        codes, distinct = pd.factorize(values)
    except TypeError:  # a value without a hash
        raise no_category(name, values) from None
    categories = [plain(c) for c in distinct]
    if not all(isinstance(c, Scalar) for c in categories):
        raise no_category(name, categories)
    check_finite(name, categories)
    if values.dtype == object and not all(isinstance(c, str) for c in categories):
        are_truths = {isinstance(v, bool | np.bool_) for v in values if not isinstance(v, str)}
        check_truths(name, are_truths)
    return categories, np.bincount(codes, minlength=len(categories))


def check_truths(name: Hashable, kinds: set[bool]) -> None:
    """ValueError if the values that are not text mix booleans with others."""
    if len(kinds) > 1:  # or True would be counted with 1
        raise ValueError(f"column {name!r}: mixes truth values and numbers; make them text")


def check_finite(name: Hashable, categories: Sequence[Scalar]) -> None:
    """ValueError if a category is infinite, or so large an integer that it might as well be."""
    for c in categories:
        if isinstance(c, float) and not math.isfinite(c):
            raise ValueError(f"column {name!r}: contains infinity")
        if isinstance(c, int) and abs(c) > 1e308:
            raise ValueError(f"column {name!r}: contains an integer too large for a float")
