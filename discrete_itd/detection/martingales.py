r"""Online conformal p-values, and test martingales that bet against them.

Values :math:`S_1, S_2, \dots` of successive rows, higher for more typical ones, are exchangeable as long as nothing
changes. The value of row n has the smoothed p-value

.. math:: p_n = \frac{\#\{i \le n : S_i < S_n\} + U_n \#\{i \le n : S_i = S_n\}}{n}, \qquad (14)

with :math:`U_n` uniform on (0, 1]. Under exchangeability these are independent and uniform, exactly, with any ties.
This holds because each row is compared with all before it: p-values against a fixed set of calibration rows depend on
one another, and products of bets against them are no martingale.

A bet is a density f on [0, 1]; capital staked on it is multiplied by f(p), which has mean 1. The martingale starts
with a capital of 1 in reserve. Before row t, :math:`R_{t-1} - R_t` of it is staked in equal parts on the densities of
:func:`bets`, with

.. math:: R_t = \frac{1/2}{1 + \log_2(1 + (t - 1) / 1000)}, \quad R_0 = 1, \qquad (15)

and what is staked stays on its density: a mixture over the time of a change and its kind. So it never falls below
:math:`R_t`, and after a long time without a change, one must earn about :math:`2000 t (\log t)^2` rather than make up
for capital that was lost all that time. By Ville's inequality, under exchangeability,
:math:`P(\exists t: M_t \ge 1 / \alpha) \le \alpha`.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005: eq. (14), its independence (theorem 8.2), and
automata that wake up to bet.
Vovk, "Testing randomness online", Statistical Science 2021, arXiv:1906.09256.
Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman, "Retrain or not retrain: conformal test martingales for
change-point detection", COPA 2021, arXiv:2102.10439: the Simple Jumper, with which
``python -m tests.benchmarks.watch`` compares this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PENDING = 256  # most values of a column that are not yet sorted in; no result depends on it
COMPARED = 1 << 22  # simultaneous comparisons with them
FIRST_STAKE = 0.5  # before the first row: that all rows differ is the likeliest change
PACE = 1000.0  # rows, of eq. (15)
AT_ONCE = 256  # rows whose densities are computed at once
SMALLEST = 2.0**-53  # smaller p-values count as this
RARE = 0.1  # share of changed rows that the bet on rare extremes assumes
HUGE = 2.0**512


class Ranks:
    """Values seen so far, by column, among which new ones are ranked; they take 8 bytes each.

    ``values`` (n, C) are those of the rows seen so far, in any order.
    """

    def __init__(self, values: Floats) -> None:
        self._sorted = np.sort(np.ascontiguousarray(values.T), axis=1)  # (C, n)
        self._pending = np.empty((PENDING, values.shape[1]))
        self._n_pending = 0

    def __len__(self) -> int:
        return self._sorted.shape[1] + self._n_pending

    def p_values(self, new: Floats, uniform: Floats) -> Floats:
        """Eq. (14) for successive rows ``new`` (N, C), each then among those seen, with U (N, C) in (0, 1]."""
        p, start = np.empty(new.shape), 0
        most = max(1, COMPARED // (PENDING * max(1, new.shape[1])))
        while start < len(new):
            if self._n_pending == PENDING:
                self._sort_in()
            stop = min(len(new), start + min(most, PENDING - self._n_pending))
            below, equal, n = self._add(new[start:stop])
            p[start:stop] = (below + uniform[start:stop] * equal) / n[:, None]
            start = stop
        return p

    def ordered(self) -> Floats:
        """All values, each column in ascending order, shape (C, n)."""
        self._sort_in()
        return self._sorted

    def _add(self, new: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of values below and equal to each new one, (N, C), and of rows up to it, (N,)."""
        first, last = self._n_pending, self._n_pending + len(new)
        self._pending[first:last], self._n_pending = new, last
        n = self._sorted.shape[1] + 1 + np.arange(first, last)
        left, right = (
            np.stack([np.searchsorted(s, v, side=side) for s, v in zip(self._sorted, new.T, strict=True)], 1)
            for side in ("left", "right")
        )  # fmt: skip
        waiting, after = (
            self._pending[None, :last],
            np.arange(first, last)[:, None] < np.arange(last),
        )
        below = left + ((waiting < new[:, None]) & ~after[..., None]).sum(1)
        return below, right - left + ((waiting == new[:, None]) & ~after[..., None]).sum(1), n

    def _sort_in(self) -> None:
        waiting = np.sort(self._pending[: self._n_pending].T, axis=1)
        # a stable sort merges two sorted runs in linear time
        self._sorted = np.sort(
            np.concatenate([self._sorted, waiting], axis=1), axis=1, kind="stable"
        )
        self._n_pending = 0


def bets(p: Floats) -> Floats:
    r"""Densities on [0, 1] at p-values, on the last axis of the result.

    For p-values that are small: :math:`\tfrac32 - p, 2(1-p), \tfrac12 p^{-1/2}, \tfrac14 p^{-3/4}`; large: the same at
    1 - p; either: :math:`1/(\pi\sqrt{p(1-p)})`; in the middle: :math:`6p(1-p)`; extremely small, or large, but in a few
    rows only: :math:`0.9 + 0.1 \cdot \tfrac14 p^{-3/4}`. Products and square roots are rounded alike in batches of any
    size.
    """
    p, q = np.maximum(p, SMALLEST), np.maximum(1 - p, SMALLEST)
    root_p, root_q = np.sqrt(p), np.sqrt(q)
    low, high = (0.25 / (root * np.sqrt(root)) for root in (root_p, root_q))
    rare = (1 - RARE + RARE * low, 1 - RARE + RARE * high)
    both = 1 / (math.pi * root_p * root_q), 6 * p * q
    linear, roots = (0.5 + q, 0.5 + p, 2 * q, 2 * p), (0.5 / root_p, 0.5 / root_q)
    return np.stack([*linear, *roots, low, high, *both, *rare], axis=-1)


N_BETS = bets(np.ones(1)).shape[-1]


@dataclass
class Martingales:
    """Test martingales, one for each column of p-values, after ``n_rows`` rows.

    ``capital`` (C, number of bets) is the stake on each density, divided by ``2 ** exponents`` (C,), multiples of 512
    from 0: capital may exceed the range of floats.
    """

    capital: Floats
    exponents: NDArray[np.int64]
    n_rows: int = 0

    @classmethod
    def start(cls, n_columns: int) -> Self:
        """Before the first row."""
        return cls(np.zeros((n_columns, N_BETS)), np.zeros(n_columns, dtype=np.int64))

    def update(self, p: Floats) -> Floats:
        """Logarithms to base 10 of each martingale after each of further rows of p-values: (N, C) to (N, C)."""
        densities = logs = np.empty(p.shape)
        scale = 2.0 ** -self.exponents.astype(float)
        for i in range(len(p)):
            if i % AT_ONCE == 0:
                densities = bets(p[i : i + AT_ONCE])
            kept = reserve(self.n_rows + 1)
            self.capital += ((reserve(self.n_rows) - kept) / N_BETS * scale)[:, None]
            self.capital *= densities[i % AT_ONCE]
            self.n_rows += 1
            total = self.capital.sum(1) + kept * scale
            np.log10(total, out=logs[i])
            if self.exponents.any():
                logs[i] += self.exponents * math.log10(2.0)
            if total.max() > HUGE or ((total < 1) & (self.exponents > 0)).any():
                self._rescale(total)
                scale = 2.0 ** -self.exponents.astype(float)
        return logs

    def _rescale(self, total: Floats) -> None:
        up, down = total > HUGE, (total < 1) & (self.exponents > 0)
        self.capital[up] /= HUGE
        self.capital[down] *= HUGE
        self.exponents += 512 * (up.astype(np.int64) - down)


def reserve(n_rows: int) -> float:
    """The capital that is not staked yet, eq. (15)."""
    return FIRST_STAKE / (1 + math.log2(1 + (n_rows - 1) / PACE)) if n_rows else 1.0
