r"""Slips of the pen, a kind of the channel (25): what a cell may have been meant to be if it was mistyped.

A text is one edit away from what was meant; a number has its decimal point moved; a time is off by a year. Of a text
that was never seen, a model has the probability of all such texts together, and a slip that of this very one. Both
sides of (25) need one measure: a right text that is new lies near a known one by chance, each of the K frequent ones as
probably, with the share h of these that lie near another. So where :math:`n_v` of them are near a new text v,

.. math:: \frac{P(v \mid \text{slip of } u)}{P(v \mid \text{new, right})} = \frac{K}{h\, n_v\, q(v)},

whatever the number of edits is, with the share q of known texts that have the pattern of v. Among codes, which are all
near each other, a slip has a pattern that none of them has. A text that was seen in few rows and is near a frequent one
is a slip, wherever it stands, with a probability that follows from how many rare and frequent texts are near others
(:func:`~discrete_itd.cells.spelling.misspellings`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from discrete_itd.cells.channel import NEAREST, OFTEN_MOVED, POINTS, SLIPS, WRONG_CELLS
from discrete_itd.cells.counts import OFTEN
from discrete_itd.cells.spelling import (
    CHARACTERS,
    FEWEST_LETTERS,
    MOST_LETTERS,
    NEAR,
    NEAR_SHORT,
    SHORT,
    are_codes,
    edits,
    misspellings,
)
from discrete_itd.cells.written import pattern
from discrete_itd.encoders import Column
from discrete_itd.encoders.relations import numbers_of
from discrete_itd.encoders.rows import Rows
from discrete_itd.reading.frames import DAY

Floats, Ints = NDArray[np.float64], NDArray[np.int64]

YEARS = np.array(
    [-366.0, -365.0, 365.0, 366.0]
)  # days by which a time is off if its year is by one
MOST_ASKED = 200  # frequent texts that are asked whether they are near another


class Slips(NamedTuple):
    """Values that cells may have been meant to be if they are slips, n pairs of a cell and a value, by rows.

    The positions of the cell, ``row`` and ``column``; the encoded value ``meant``; and ``log_ratio``, the
    log-probability that a slip of it is written as the cell is, less that of this writing of a right cell, nats.
    """

    row: Ints
    column: Ints
    meant: Floats
    log_ratio: Floats

    def within(self, low: int, high: int) -> Slips:
        """Those of the rows from ``low`` on, below ``high``, which is row 0 then."""
        first, last = np.searchsorted(self.row, [low, high])
        of_rows = slice(first, last)
        return Slips(
            self.row[of_rows] - low,
            self.column[of_rows],
            self.meant[of_rows],
            self.log_ratio[of_rows],
        )


NO_SLIPS = Slips(*(np.empty(0, kind) for kind in (np.int64, np.int64, float, float)))


class Vocabulary:
    """The texts of a column of levels, and of which of them a text may be a slip.

    ``counts`` (L,) say in how many training rows each level stands.
    """

    def __init__(self, column: Column, counts: Floats) -> None:
        texts, self._level, share = column.values()
        self._texts = [str(text) for text in texts]
        n = np.append(counts, 0.0)[np.minimum(self._level, len(counts))] * share
        self._counts = np.rint(n).astype(np.int64)
        self._often = np.flatnonzero(self._counts >= OFTEN)
        self._frequent = [self._texts[i] for i in self._often.tolist()]
        self._patterns = Counter(map(pattern, self._frequent))
        self._forms = [_letters(text) for text in self._frequent]
        self._place = {c: k for k, c in enumerate(sorted(set("".join(self._forms))))}
        bags = [self._bag(form) for form in self._forms]
        self._bags = np.array(bags).reshape(len(bags), len(self._place) + 1)

    def _bag(self, form: str) -> Ints:
        """How often each letter occurs; the last entry counts those that no frequent text has."""
        places = [self._place.get(c, len(self._place)) for c in form]
        return np.bincount(np.array(places, np.int64), minlength=len(self._place) + 1)

    def _near(self, text: str) -> list[int]:
        """Positions of other frequent texts that are near a text: by one edit, or by one in CHARACTERS letters."""
        form = _letters(text)
        most = max(1, len(form) // CHARACTERS)
        if not FEWEST_LETTERS <= len(form) <= MOST_LETTERS:
            return []
        tried = np.flatnonzero(np.abs(self._bags - self._bag(form)).sum(1) <= 2 * most).tolist()
        near = (i for i in tried if edits(form, self._forms[i]) <= most)
        return [i for i in near if self._frequent[i] != text]

    @cached_property
    def _chance(self) -> tuple[float, float]:
        """The share of long and of short frequent texts that are near another one."""
        asked = self._frequent[:: max(1, len(self._frequent) // MOST_ASKED)]
        shares = []
        for is_short, prior in ((False, NEAR), (True, NEAR_SHORT)):
            texts = [text for text in asked if (len(_letters(text)) < SHORT) == is_short]
            n_near = sum(bool(self._near(text)) for text in texts)
            shares.append((n_near + 2 * prior) / (len(texts) + 2))
        return shares[0], shares[1]

    def slips_of(self, text: str) -> tuple[Ints, float]:
        """Levels (n,) of which a text that was never seen may be a slip, and the ``log_ratio`` of :class:`Slips`."""
        near, n_alike = self._near(text), self._patterns[pattern(text)]
        if not near or (n_alike and are_codes(self._frequent)):
            return np.empty(0, np.int64), 0.0
        n, h = len(self._often), self._chance[int(len(_letters(text)) < SHORT)]
        log_p_right = math.log(h * len(near) / n) + math.log((n_alike + 0.5) / (n + 0.5))
        return self._level[self._often[near]], -log_p_right

    @cached_property
    def rare(self) -> dict[int, tuple[int, float]]:
        """Of levels that few rows have the level of which they may be slips, and the ``log_ratio``."""
        meant, p = misspellings(self._texts, self._counts)
        share = self._counts / max(1, self._counts.sum())
        return {
            int(self._level[i]): (
                int(self._level[meant[i]]),
                math.log(p[i] * share[i] / (WRONG_CELLS * SLIPS)),
            )
            for i in np.flatnonzero((meant >= 0) & (share > 0)).tolist()
        }


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum() or c in "<>=+%")


def slips_of(rows: Rows, vocabularies: Sequence[Vocabulary | None]) -> Slips:
    """The slips that cells of rows may be, with the :class:`Vocabulary` of each column of text."""
    parts: list[tuple] = [NO_SLIPS]
    for j, (column, vocabulary) in enumerate(zip(rows.encoder.schema, vocabularies, strict=True)):
        if vocabulary is not None:
            row, meant, log_ratio = _of_texts(rows, j, vocabulary)
        elif column.is_number:
            row, meant, log_ratio = _of_numbers(rows, j, column)
        else:
            continue
        parts.append((row, np.full(len(row), j), meant, log_ratio))
    every = [np.concatenate(values) for values in zip(*parts, strict=True)]
    order = np.argsort(every[0], kind="stable")
    return Slips(*(values[order] for values in every))


def _of_texts(rows: Rows, j: int, vocabulary: Vocabulary) -> tuple[Ints, Floats, Floats]:
    """Rows, values meant and log-ratios, (n,) each, of a column of text."""
    level, is_new = rows.cells[:, j], rows.is_outside[:, j]
    pairs = [
        (i, *vocabulary.rare[int(level[i])])
        for i in np.flatnonzero(np.isin(level, [*vocabulary.rare])).tolist()
    ]
    new = np.flatnonzero(is_new)
    texts = rows.given.iloc[new, j].astype(str).tolist()
    known = {text: vocabulary.slips_of(text) for text in {*texts}}
    for i, text in zip(new.tolist(), texts, strict=True):
        levels, log_ratio = known[text]
        pairs += [(i, u, log_ratio) for u in levels.tolist()]
    row, meant, log_ratio = np.array(pairs, float).reshape(-1, 3).T
    return row.astype(np.int64), meant, log_ratio


def _of_numbers(rows: Rows, j: int, column: Column) -> tuple[Ints, Floats, Floats]:
    """Rows, values meant and log-ratios, (n,) each, of numbers or times in their range and on their lattice."""
    codec, x = column.codec, rows.cells[:, j]
    log_ratio = np.zeros(len(rows))
    if codec.of_numbers and not hasattr(codec, "step"):  # a kind of somebody else's
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    if codec.of_numbers:
        values, step, origin = codec.decode(x), codec.step, getattr(codec, "origin", None)
        low, high = codec.low, codec.high
    else:
        values = numbers_of(rows.frame, rows.encoder.schema, [j])[:, j]
        levels = np.sort(np.array(column.categories, float))
        low, high, step, origin = levels[0], levels[-1], 1.0, None
        log_ratio -= np.where(rows.is_outside[:, j], codec.log_share_near, 0.0)
    with np.errstate(all="ignore"):
        meant, shares = values[:, None] * POINTS, OFTEN_MOVED
        if column.family != "number":
            meant = values[:, None] + YEARS * (DAY / column.step)
            shares = np.full(len(YEARS), 1 / len(YEARS))
        fits = (low <= meant) & (meant <= high) & (meant != values[:, None])
        if origin is not None:
            places = (meant - origin) / step
            fits &= np.abs(places - np.rint(places)) < NEAREST
    row, way = np.nonzero(fits)
    meant = meant[row, way]
    x = column.from_numbers(meant)
    log_ratio = log_ratio[row] + np.log(shares[way])
    if not codec.of_numbers:
        is_level = np.isclose(column.to_numbers(x), meant, rtol=NEAREST, atol=0)
        return row[is_level], x[is_level], log_ratio[is_level]
    if (
        origin is None and column.family == "number"
    ):  # the mass of a cell at v is that of POINTS cells at u
        log_ratio += np.log(POINTS[way])
    return row, x, log_ratio
