"""Columns of categories: a level for each value, one for all rare values together, and one for unseen values."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, Literal

import numpy as np
import pandas as pd

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.cells import PlainCells, Scalar, plain, rounding
from discrete_itd.encoders.notation import TRUTHS, number_of, whole_of

MANY_CATEGORIES = 1000  # a column of more levels than this is embedded by a code, not one-hot
RARE = 5  # occurrences; rarer categories of a high-cardinality column are pooled
CODE = re.compile(r"[-+]?0\d", re.ASCII)  # at the start of text that is no number among others
WHOLE = re.compile(r"0|-?[1-9]\d*", re.ASCII)  # as Python writes it
FINEST_GAP = 1e-3  # in standard deviations; closer levels are spaced by rank


@dataclass(frozen=True)
class Categories:
    """A column whose cells are one of finitely many values.

    Levels: the categories that are not pooled, in order; then, if any are pooled, one for all of these; then,
    if the column is open, one for every other value.

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
        Positions of the categories that share a level evenly, the most frequent first.
    unseen_count : float
        Pseudo-count of unseen values when the marginal is smoothed: one half, or, in a high-cardinality column,
        the number of categories seen exactly once.

    References
    ----------
    Good, "The population frequencies of species and the estimation of population parameters", Biometrika 1953:
    the probability of an unseen value is about that of the values seen once together.

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
    unseen_count: float = 0.5

    def __post_init__(self) -> None:
        check_numbers("levels", self.levels)
        check_numbers("unseen_count", (self.unseen_count,))
        if self.kind not in ("nominal", "ordinal"):
            raise ValueError(f"kind must be 'nominal' or 'ordinal', got {self.kind!r}")
        if not isinstance(self.open, bool):
            raise TypeError(f"open must be a bool, got {self.open!r}")
        if not all(isinstance(c, Scalar) for c in self.categories):
            raise TypeError("categories must be strings or numbers")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories repeat")
        if not all(type(k) is int for k in self.pooled):
            raise TypeError("pooled must hold positions")
        if len(set(self.pooled)) < len(self.pooled) or len(self.pooled) == 1:
            raise ValueError("pooled must be none or several different positions")
        if not all(0 <= k < len(self.categories) for k in self.pooled):
            raise ValueError("pooled must hold positions of categories")
        if self.kind == "ordinal" and (self.pooled or not self.categories):
            raise ValueError("an ordinal column has categories, none of them pooled")
        if len(self.levels) != (len(self.categories) if self.kind == "ordinal" else 0):
            raise ValueError("an ordinal column has one level for each category, a nominal none")
        if self.unseen_count <= 0:
            raise ValueError(f"unseen_count must be positive, got {self.unseen_count}")

    @cached_property
    def _index(self) -> pd.Index:
        """The categories, to look positions up in: numbers of one type as such, all else as Python objects."""
        types = {type(c) for c in self.categories}
        if types == {float}:
            return self._objects.astype(float)
        try:
            return self._objects.astype(np.int64) if types == {int} else self._objects
        except OverflowError:
            return self._objects

    @cached_property
    def _objects(self) -> pd.Index:
        return pd.Index(list(self.categories), dtype=object)

    @cached_property
    def _positions(self) -> dict[Scalar, int]:
        """The position of each category."""
        return {c: k for k, c in enumerate(self.categories)}

    @cached_property
    def _is_truth(self) -> np.ndarray | None:
        """Which categories are truth values, and a last False; None if all are text, or all truth values."""
        truths = [isinstance(c, bool) for c in self.categories]
        if all(truths) or all(isinstance(c, str) for c in self.categories):
            return None
        return np.array([*truths, False])

    @cached_property
    def _twins(self) -> dict[Scalar, int]:
        """Positions of truth values by the words for them, or of such words by truth values: a CSV has words only."""
        if all(isinstance(c, bool) for c in self.categories):
            known = {w: self._positions.get(truth, -1) for w, truth in TRUTHS.items()}
            return {w: k for w, k in known.items() if k >= 0}
        words = [w for w in TRUTHS if w in self._positions]  # Python's own come first
        return {TRUTHS[w]: self._positions[w] for w in reversed(words)}

    @cached_property
    def _by_value(self) -> dict[int | float, int]:
        """Positions of categories by value, if all are numbers or the text of whole ones; else none.

        Readers differ in whether they make numbers of these.
        """
        found: dict[int | float, int] = {}
        for k, c in enumerate(self.categories):
            if isinstance(c, bool) or (isinstance(c, str) and not WHOLE.fullmatch(c)):
                return {}
            try:
                found.setdefault(int(c) if isinstance(c, str) else c, k)
            except ValueError:  # more digits than Python reads
                return {}
        return found

    def _twin(self, value: Any) -> int:
        """Position of a category that is another way to write a value; -1 if there is none."""
        if isinstance(value, bool):
            return self._twins.get(value, -1)
        if not isinstance(value, str):
            return self._by_value.get(value, -1)
        number = number_of(value)
        if not math.isfinite(number) or (CODE.match(value) and self._has_text):
            return self._twins.get(value, -1)
        return self._by_value.get(whole_of(value, number), -1)

    @cached_property
    def _has_text(self) -> bool:
        return any(isinstance(c, str) for c in self.categories)

    @cached_property
    def _kept(self) -> np.ndarray:
        """Positions of the categories that have a level of their own."""
        return np.setdiff1d(np.arange(len(self.categories)), np.array(self.pooled, np.int64))

    @cached_property
    def _level_of(self) -> np.ndarray:
        """The level of each category."""
        level_of = np.full(len(self.categories), len(self._kept))
        level_of[self._kept] = np.arange(len(self._kept))
        return level_of

    @property
    def n_levels(self) -> int:
        """Number of levels without that of unseen values."""
        return max(1, len(self._kept) + bool(self.pooled))

    @property
    def points(self) -> ColumnPoints:
        """The points of the levels."""
        if self.kind == "ordinal":
            return ColumnPoints("line", self.n_levels, self.open, self.levels)
        many = self.n_levels + self.open > MANY_CATEGORIES
        return ColumnPoints("code" if many else "simplex", self.n_levels, self.open)

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The categories, the level of each, and its share of the level's probability."""
        share = np.ones(len(self.categories))
        share[list(self.pooled)] = 1 / max(1, len(self.pooled))
        return self._index, self._level_of, share

    def encode(self, name: Hashable, cells: PlainCells) -> tuple[np.ndarray, np.ndarray]:
        """Levels of the values, float64, and the log of each value's share of its level.

        Raises
        ------
        ValueError
            If a value is infinite, or unseen and the column is closed.
        TypeError
            If a value cannot be a category, like a list.
        """
        if cells.values.dtype == float and np.isinf(cells.values).any():
            raise ValueError(f"column {name!r}: contains infinity")
        try:
            position = self._find(cells.values)
        except TypeError:
            raise no_category(name, cells.values) from None
        unseen = position < 0
        if unseen.any() and not self.open:
            raise ValueError(f"column {name!r}: unseen category {cells.first(unseen)!r}")
        if unseen.all():
            return np.full(len(position), float(self.n_levels)), np.zeros(len(position))
        level = np.where(unseen, self.n_levels, self._level_of[position])
        pooled = ~unseen & (level == len(self._kept))
        return level.astype(float), np.where(pooled, -math.log(len(self.pooled) or 1), 0.0)

    def _find(self, values: np.ndarray) -> np.ndarray:
        """Position of each value among the categories, -1 where there is none; TypeError if one has no hash.

        Equal numbers match whatever their types, to within :func:`rounding`, and where all categories are numbers or
        the text of whole ones, text of the number too. Truth values match truth values, and among categories of text
        the words for them; other text matches text. Among truth values alone, text is read as one, and 0 and 1 are.
        """
        index = self._index
        if index.dtype == np.int64 and values.dtype == float:
            # as integers, or neighbours beyond 2^53 would be one
            fits = (np.abs(values) < 2.0**63) & (values == np.floor(values))
            whole = np.where(fits, values, 0.0).astype(np.int64)
            return np.where(fits, index.get_indexer(pd.Index(whole)), -1)
        if index.dtype != object and values.dtype in (np.int64, float):
            return self._find_number(values)
        cells = values.astype(object)
        position = np.fromiter(map(self._positions.get, cells, repeat(-1)), np.int64, len(cells))
        if self._is_truth is not None:  # Python has True == 1
            is_truth = (isinstance(v, bool | np.bool_) for v in cells)
            differs = self._is_truth[position] != np.fromiter(is_truth, bool, len(cells))
            position[differs] = -1
        if self._twins or self._by_value:
            for i in np.flatnonzero(position < 0):
                position[i] = self._twin(plain(cells[i]))
        return position

    def _find_number(self, values: np.ndarray) -> np.ndarray:
        """Position of each number (N,) among categories that all are numbers, to within :func:`rounding`; else -1."""
        position = self._index.get_indexer(pd.Index(values))
        other = np.flatnonzero((position < 0) & ~np.isnan(values))
        if self._index.dtype == float and len(other):
            order = np.argsort(self._index.to_numpy())
            v, line = values[other].astype(float), self._index.to_numpy()[order]
            at = np.searchsorted(line[:-1] / 2 + line[1:] / 2, v)
            with np.errstate(over="ignore"):
                position[other] = np.where(np.abs(line[at] - v) <= rounding(v), order[at], -1)
        return position

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions of the categories, -1 where the level is that of unseen values or x is NaN.

        The pooled level gives a random member, or, without ``rng``, the most frequent one.
        """
        n_kept = len(self._kept)
        level = np.where(np.isnan(x), -1, x).astype(np.int64)
        position = np.full(len(level), -1)
        own = (level >= 0) & (level < n_kept)
        position[own] = self._kept[level[own]]
        if self.pooled:
            members, pool = np.array(self.pooled), level == n_kept
            drawn = np.zeros(len(level), np.int64)
            if rng is not None:
                drawn = rng.integers(len(members), size=len(level))
            position[pool] = members[drawn[pool]]
        return position


def fit_categories(
    kind: Literal["nominal", "ordinal"],
    categories: Sequence[Scalar],
    counts: np.ndarray,
    *,
    is_open: bool,
    equally_spaced: bool,
    min_count: int | None,
) -> Categories:
    """The schema of categories that occurred ``counts`` times.

    Parameters
    ----------
    kind : {"nominal", "ordinal"}
    categories : sequence of K scalars, in order
    counts : ndarray of int, shape (K,)
    is_open : bool
    equally_spaced : bool
        Whether ordinal categories are equally spaced even if they are numbers.
    min_count : int, optional
        Nominal categories with fewer occurrences are pooled; if None, 5 in a high-cardinality column, else none.
    """
    levels: tuple[float, ...] = ()
    if kind == "ordinal":
        numeric = not equally_spaced and all(isinstance(c, int | float) for c in categories)
        positions = np.array(categories, float) if numeric else np.arange(float(len(categories)))
        levels = line_levels(positions, counts)
    many = len(categories) > MANY_CATEGORIES
    if min_count is None:
        min_count = RARE if many else 0
    order = np.argsort(-counts, kind="stable")
    rare = order[counts[order] < min_count]
    return Categories(
        kind,
        tuple(categories),
        is_open,
        levels,
        tuple(rare.tolist()) if kind == "nominal" and len(rare) > 1 else (),
        max(0.5, float((counts == 1).sum())) if many else 0.5,
    )


def line_levels(positions: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Where ordinal categories lie on the line.

    Parameters
    ----------
    positions : ndarray, shape (K,)
        Increasing finite numbers.
    counts : ndarray, shape (K,)
        How often each occurs.

    Returns
    -------
    tuple of float
        The positions, centred, with standard deviation one half, as two equally likely categories at unit distance
        have; shrunk if two neighbours would otherwise be further apart than one. Numbers so uneven
        that neighbours nearly touch are replaced by their ranks.
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
    """The error that names the first of the values that is neither string nor number."""
    odd = next((v for v in map(plain, values) if not isinstance(v, Scalar)), None)
    return TypeError(
        f"column {name!r}: argument must be a string or a number, got {odd!r} of type {type(odd).__name__};"
        " convert it first"
    )


def count_values(name: Hashable, values: np.ndarray) -> tuple[list[Scalar], np.ndarray]:
    """The distinct values and how often each occurs.

    Raises
    ------
    TypeError
        If a value cannot be a category.
    ValueError
        If a value is infinite, or truth values are mixed with numbers.
    """
    try:
        codes, distinct = pd.factorize(values)
    except TypeError:  # a value without a hash
        raise no_category(name, values) from None
    categories = [plain(c) for c in distinct]
    if not all(isinstance(c, Scalar) for c in categories):
        raise no_category(name, categories)
    check_finite(name, categories)
    if values.dtype == object and any(isinstance(c, bool | int | float) for c in categories):
        check_truths(
            name, {isinstance(v, bool | np.bool_) for v in values if not isinstance(v, str)}
        )
    return categories, np.bincount(codes, minlength=len(categories))


def category_order(category: Scalar) -> tuple[bool, Scalar]:
    """By what categories are sorted: numbers before text."""
    return isinstance(category, str), category


def check_truths(name: Hashable, kinds: set[bool]) -> None:
    """ValueError if among the values that are no text some are truth values and others not."""
    if len(kinds) > 1:  # or True would be counted with 1
        raise ValueError(f"column {name!r}: mixes truth values and numbers; make them text")


def check_finite(name: Hashable, categories: Sequence[Scalar]) -> None:
    """ValueError if a category is infinite, or so large an integer that it might as well be."""
    for c in categories:
        if isinstance(c, float) and not math.isfinite(c):
            raise ValueError(f"column {name!r}: contains infinity")
        if isinstance(c, int) and abs(c) > 1e308:
            raise ValueError(f"column {name!r}: contains an integer too large for a float")


def check_numbers(name: str, values: Sequence[Any]) -> None:
    """TypeError or ValueError if a field read from a file is not made of finite numbers."""
    for v in values:
        if isinstance(v, bool) or not isinstance(v, int | float):
            raise TypeError(f"{name} must be numbers, got {v!r}")
        if isinstance(v, int) and abs(v) > 1 << 53:  # of which numpy makes objects
            raise ValueError(f"{name} must be floats, got an integer of {v.bit_length()} bits")
        if not math.isfinite(v):
            raise ValueError(f"{name} must be finite, got {v!r}")
