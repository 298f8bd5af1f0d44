r"""Columns of codes: text of which the first characters say what the other columns say, and the rest hardly anything.

A postcode, "01244-306", begins with the number of a region; which of its streets follows, no other column tells, and
new ones come all the time. As levels, each with a probability of its own, codes are too many for their counts, and a
new one is a value never seen. Cut into a prefix r and a rest s, a code has the probability

.. math:: P(r, s \mid \text{others}) = P(r \mid \text{others}) \; P(s \mid r),

the first factor the model's, with one level for each prefix, the second by counts: where n training rows have the
prefix, k of them a code that no other row has, a new rest has Good and Turing's share, :math:`(k + u) / (n + 1)` with u
the share of such rows in the column, and the rests that were seen have theirs of what is left. Where hardly any code
repeats, the rest is an identifier and no part of the row: probabilities are given it.

References
----------
Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders.categories import MOST_LEVELS, no_category
from discrete_itd.encoders.codec import Codec
from discrete_itd.encoders.gaps import evenly
from discrete_itd.reading.frames import PlainCells

MOST_ROWS = 4096  # by which a cut is chosen
ALIKE = 0.99  # least share of codes with the same kinds of characters up to a cut
MOST_SHAPES = 64  # a column of more shapes is no column of codes
MOST_CHARACTERS = 8  # of a prefix
# Rows' worth of the prefix's share in the column, where it is predicted.
STRENGTHS = (1.0, 4.0, 16.0, 64.0)
# Nats of a cell, and standard errors, by which the best of all prefixes and other columns must be predicted better than
# the whole code: the largest of some hundred means is rarely four errors above zero.
LEAST_TOLD, LEAST_ERRORS = 0.05, 4.0
FEWEST_OF_PREFIX = 4  # rows on average
RARELY_FALLS = 0.02  # numbers of documents fall in at most so many of the rows in which they change
YEARS, YEAR_DIGITS = ("1600", "2200"), 4
DISTINCT = 0.9  # codes with at least this many different values a cell are identifiers, but for their prefix
MOST_READ = 20_000  # codes of which the shapes are read
CHARACTERS = {"9": "0123456789", "A": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@dataclass(frozen=True)
class Codes(Codec):
    """A column of codes, with one level for each prefix.

    Parameters
    ----------
    cut : int
        Characters of the prefix; if negative, its runs of letters, of digits or of others.
    prefixes : tuple of str
        Those of training, in order.
    codes : tuple of str
        The codes of training, in order; of more than ``MOST_LEVELS`` the most frequent, and of each prefix one.
        None of a column whose rests are given.
    counts : tuple of int
        How often each of these occurred.
    new : tuple of float
        Of each prefix, the share of rests that are none of these: 1 where they are given.
    shapes : tuple of str
        Those of all codes, see :func:`shape_of`.
    pattern : str
        The most frequent kinds of characters: 9 of a digit, A of a letter, or the character itself.
    absent : bool
        Whether a level stands for missing cells.
    unseen_count : float
        Pseudo-count of prefixes never seen, the number of those seen once.

    Examples
    --------
    >>> codes = fit_codes(["01-7", "01-9", "02-7"], np.array([1, 1, 2]), 2)
    >>> codes.prefixes, codes.n_levels, codes.prefix_of("02-8")
    (('01', '02'), 2, '02')
    """

    cut: int
    prefixes: tuple[str, ...]
    codes: tuple[str, ...]
    counts: tuple[int, ...]
    new: tuple[float, ...]
    shapes: tuple[str, ...]
    pattern: str
    absent: bool = False
    unseen_count: float = 0.5

    kind: ClassVar[str] = "code"
    of_numbers: ClassVar[bool] = False
    is_ordered: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    open: ClassVar[bool] = True
    volume_is_scored: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.prefixes or len(self.new) != len(self.prefixes):
            raise ValueError("a column of codes has prefixes, each with a share of new rests")
        if len(self.counts) != len(self.codes) or min(self.counts, default=1) < 1:
            raise ValueError("counts must hold a positive count for each code")

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The codes of training; where rests are given the prefixes, as "01…"."""
        return self.codes or tuple(self.names)

    @cached_property
    def names(self) -> list[str]:
        """What people call each level."""
        return [f"{prefix}…" for prefix in self.prefixes]

    @property
    def has_volume(self) -> bool:
        return bool(self.codes)

    @property
    def described(self) -> str:
        """How codes are cut, for people."""
        n = abs(self.cut)
        what = "{}character{}" if self.cut > 0 else "{}run{} of letters or of digits"
        first = what.format(f"{n} " * (n > 1), "s" * (n > 1))
        rest = "by counts" if self.codes else "given, as identifiers are"
        return f"codes: the first {first}; the rest {rest}"

    def prefix_of(self, code: str) -> str | None:
        """The prefix of a code; None of text of another shape."""
        return prefix_of(code, self.cut) if shape_of(code) in self._shapes else None

    @cached_property
    def _shapes(self) -> frozenset[str]:
        return frozenset(self.shapes)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {code: k for k, code in enumerate(self.codes)}

    @cached_property
    def _levels(self) -> dict[str | None, int]:
        return {prefix: k for k, prefix in enumerate(self.prefixes)}

    @cached_property
    def _level_of(self) -> np.ndarray:
        """The level of each category."""
        if not self.codes:
            return np.arange(len(self.prefixes))
        levels = [self._levels[prefix_of(code, self.cut)] for code in self.codes]
        return np.array(levels, np.int64)

    @cached_property
    def _share(self) -> np.ndarray:
        """Of each category, its share of the probability of its level."""
        if not self.codes:
            return np.ones(len(self.prefixes))
        counts = np.array(self.counts, float)
        kept = np.bincount(self._level_of, counts, minlength=len(self.prefixes))
        return counts / kept[self._level_of] * (1 - np.array(self.new))[self._level_of]

    @property
    def n_levels(self) -> int:
        return len(self.prefixes) + self.absent

    @property
    def absent_level(self) -> float:
        return self.n_levels - 1.0 if self.absent else math.nan

    def with_absent(self) -> Codes:
        return replace(self, absent=True)

    @property
    def points(self) -> ColumnPoints:
        return ColumnPoints("simplex", self.n_levels, open=True)

    def is_outside(self, x: np.ndarray) -> np.ndarray:
        return x >= self.n_levels

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The categories, the level of each, and its share of the level's probability."""
        return pd.Index(list(self.categories), dtype=object), self._level_of, self._share

    def encode(self, name: Hashable, cells: PlainCells) -> tuple[np.ndarray, np.ndarray]:
        """Levels of the codes, float64, and the log of each one's share of its level."""
        try:
            where, distinct = pd.factorize(cells.values)
        except TypeError:  # a value without a hash
            raise no_category(name, cells.values) from None
        levels, log_shares = np.full(len(distinct), float(self.n_levels)), np.zeros(len(distinct))
        for i, code in enumerate(distinct):
            place = self._places.get(code)
            if place is not None:
                levels[i], log_shares[i] = self._level_of[place], math.log(self._share[place])
                continue
            level = self._levels.get(self.prefix_of(code)) if isinstance(code, str) else None
            if level is not None:
                levels[i], log_shares[i] = level, math.log(self.new[level])
        return levels[where], log_shares[where]

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Positions of categories: of each level the most frequent one, or with ``rng`` one drawn; -1 without one."""
        n_prefixes = len(self.prefixes)
        level = np.where(np.isnan(x), n_prefixes, x).astype(np.int64).clip(0, n_prefixes)
        position = np.full(n_prefixes + 1, -1)
        order = np.argsort(self.counts, kind="stable") if self.codes else self._level_of
        position[self._level_of[order]] = order
        drawn = position[level]
        if rng is None or not self.codes:
            return drawn
        for k in np.unique(level[drawn >= 0]):
            members, rows = np.flatnonzero(self._level_of == k), np.flatnonzero(level == k)
            share = self._share[members]
            drawn[rows] = rng.choice(members, len(rows), p=share / share.sum())
        return drawn

    def named(self, levels: np.ndarray) -> np.ndarray:
        names = np.array([*self.names, None], dtype=object)
        return names[levels.astype(np.int64).clip(max=len(self.names))]

    def cells(
        self, positions: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[Sequence[str], np.ndarray]:
        """Codes, and the places among them of ``positions`` (n,) of categories, -1 of none.

        Rests that are given have zeros and the first letter of the alphabet, or with ``rng`` are drawn evenly.
        """
        if self.codes:
            return self.codes, positions
        cells, where = list[str](), np.full(len(positions), -1)
        for i in np.flatnonzero(positions >= 0).tolist():
            prefix = self.prefixes[positions[i]]
            rest = self.pattern[len(prefix_of(self.pattern, self.cut) or "") :]
            for kind in rest:
                among = CHARACTERS.get(kind, kind)
                prefix += among[0 if rng is None else rng.integers(len(among))]
            where[i] = len(cells)
            cells.append(prefix)
        distinct, place = np.unique(np.array(cells, dtype=object), return_inverse=True)
        return distinct.tolist(), np.append(place, -1)[where]


def shape_of(code: str) -> str:
    """The runs of characters of a code, as "9-9" of "01244-306": digits as 9, letters as A, others as they are."""
    return re.sub(r"(9|A)\1+", r"\1", _kinds(code))


def _kinds(code: str) -> str:
    """The kind of each character of a code: 9 of a digit, A of a letter, or itself."""
    return re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "9", code))


def prefix_of(code: str, cut: int) -> str | None:
    """The first ``cut`` characters of a code, or runs, if it has more; else None."""
    if cut > 0:
        return code[:cut] if len(code) > cut else None
    runs = [run.end() for run in re.finditer(r"9+|A+|[^9A]+", _kinds(code))]
    return code[: runs[-cut - 1]] if len(runs) > -cut else None


def fit_codes(codes: Sequence[str], counts: np.ndarray, cut: int) -> Codes:
    """The codec of codes (K,), in order, that occurred ``counts`` (K,) times; those without a prefix are unseen.

    Rests of codes that hardly repeat are given.
    """
    found = np.array([prefix_of(code, cut) for code in codes], dtype=object)
    has_prefix = pd.notna(found) & (counts > 0)
    level_of, prefixes = pd.factorize(found[has_prefix], sort=True)
    texts, counts = np.array(codes, dtype=object)[has_prefix], counts[has_prefix]
    rows = np.bincount(level_of, counts)
    some = texts[evenly(len(texts), MOST_READ)]
    patterns = Counter(map(_kinds, some.tolist()))
    if len(counts) >= DISTINCT * counts.sum():
        kept, new = np.zeros(0, np.int64), np.ones(len(prefixes))
    else:
        often = np.argsort(-counts, kind="stable")
        first = np.unique(level_of[often], return_index=True)[1]  # one of each prefix
        kept = np.unique(np.append(often[:MOST_LEVELS], often[first]))
        is_kept = np.isin(np.arange(len(counts)), kept)
        n_new = np.bincount(level_of, np.where(is_kept, counts == 1, counts))
        new = (n_new + (n_new.sum() + 0.5) / (rows.sum() + 1)) / (rows + 1)
    return Codes(
        cut,
        tuple(prefixes.tolist()),
        tuple(texts[kept].tolist()),
        tuple(counts[kept].tolist()),
        tuple(new.tolist()),
        tuple(sorted({shape_of(code) for code in some})),
        patterns.most_common(1)[0][0],
        unseen_count=max(0.5, float((rows == 1).sum())),
    )


def cuts_of(codes: Sequence[str], counts: np.ndarray) -> list[int]:
    """Where different texts (K,) may be cut into prefix and rest; nowhere if they are no codes."""
    if not codes:
        return []
    step = -(-len(codes) // MOST_ROWS)
    codes, counts = codes[::step], counts[::step]
    kinds, n, cuts = [_kinds(code) for code in codes], counts.sum(), list[int]()
    has_digit = np.array(["9" in kind for kind in kinds])
    if counts @ has_digit < ALIKE * n or len({*map(shape_of, codes)}) > MOST_SHAPES:
        return []
    for p in range(1, MOST_CHARACTERS + 1):
        begins = Counter[str]()
        for kind, count in zip(kinds, counts.tolist(), strict=True):
            begins[kind[:p]] += count * (len(kind) > p)
        if max(begins.values()) < ALIKE * n:
            break
        cuts.append(p)
    for runs in (-1, -2, -3):
        prefixes = [prefix_of(code, runs) for code in codes]
        has_rest = counts @ np.array([prefix is not None for prefix in prefixes])
        if has_rest < ALIKE * n:
            break
        if len({len(prefix) for prefix in prefixes if prefix is not None}) > 1:
            cuts.append(runs)
    return cuts


def best_cut(
    codes: np.ndarray,
    cuts: Sequence[int],
    others: Mapping[Any, np.ndarray],
    *,
    has_levels: bool,
    is_asked: bool = False,
) -> int | None:
    """The cut by which another column says most of codes (N,), None where missing.

    None if it does not say more than of whole codes.

    ``others`` are groups (N,) of the values of other columns by name. Of whole codes that make no levels, as they are
    identifiers, no column says anything. With ``is_asked``, the best cut is taken whatever it gains.
    """
    known = np.array([isinstance(code, str) for code in codes])
    texts, groups = codes[known], [group[known] for group in others.values()]
    nothing = np.zeros(len(texts))
    best, most = cuts[min(1, len(cuts) - 1)] if is_asked else None, nothing
    for cut in cuts:
        prefixes = np.array([prefix_of(text, cut) or "" for text in texts], dtype=object)
        if not is_asked and FEWEST_OF_PREFIX * len(pd.unique(prefixes)) > len(prefixes):
            continue
        told = _most_told(prefixes, groups)
        if told.mean() > most.mean():
            best, most = cut, told
    if best is None or is_asked:
        return best
    gains = most - (_most_told(texts, groups) if has_levels else nothing)
    error = float(gains.std()) / math.sqrt(len(gains))
    return best if gains.mean() > max(LEAST_TOLD, LEAST_ERRORS * error) else None


def _most_told(texts: np.ndarray, groups: Iterable[np.ndarray]) -> np.ndarray:
    """Nats (N,) by which each text is more probable given its group, in the column whose ``groups`` (N,) say most.

    Every row is left out of its own prediction, and texts that occur once are one. 0 where no column says anything.
    """
    a = pd.factorize(texts)[0]
    a = pd.factorize(np.where(np.bincount(a)[a] == 1, -1, a), use_na_sentinel=False)[0]
    alone = (np.bincount(a)[a] - 0.5) / len(a)
    best = np.zeros(len(a))
    for group in groups:
        g = pd.factorize(group, use_na_sentinel=False)[0]
        pairs = pd.factorize(a * (g.max() + 1) + g)[0]
        n_pairs, n_given = np.bincount(pairs)[pairs] - 1, np.bincount(g)[g] - 1
        for strength in STRENGTHS:
            told = np.log((n_pairs + strength * alone) / (n_given + strength) / alone)
            best = max(best, told, key=np.mean)
    return best


def in_order(codes: np.ndarray) -> bool:
    """Whether texts (N,), or the years with which they begin, follow the order of the rows, as numbers of documents."""
    texts = [code for code in codes if isinstance(code, str)]
    begins = [text[:YEAR_DIGITS] for text in texts]
    are_years = all(b.isascii() and b.isdigit() and YEARS[0] <= b <= YEARS[1] for b in begins)
    for sequence in (texts, begins) if are_years else (texts,):
        rank = pd.factorize(np.array(sequence, dtype=object), sort=True)[0]
        steps = np.diff(rank)
        n_falls, n_rises = int((steps < 0).sum()), int((steps > 0).sum())
        if n_falls + n_rises > 1 and min(n_falls, n_rises) <= RARELY_FALLS * (n_falls + n_rises):
            return True
    return False
