r"""Drawn rows that are too near one real row, by how much less probable they are without it.

Rows are probable by a kernel density of the N real rows, relative to independent columns,

.. math:: \frac{P(x)}{\prod_j p_j(x_j)} = \frac1N \sum_i R_i(x), \qquad R_i(x) = \prod_j \big(\lambda + (1 - \lambda)
          \, k_j(x_j, x_{ij})\big),

where :math:`k_j` of a category is :math:`1[x_j = x_{ij}] / p_j(x_j)`, so that agreement on a rare one counts more; of a
number, mostly a Laplace kernel on the scale of ranks, and for a share the same as of a category. Without row i the sum
lacks its term: that is the leave-one-out density in closed form, of the same scales and shares.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp

from discrete_itd.reporting.fidelity import encoded_tables

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

# Scales are chosen among these, by the leave-one-out log-likelihood of PILOT_ROWS real rows among PILOT_TABLE others:
# the share of independence, and the reach of a number's kernel among ranks from 0 to 1.
INDEPENDENCE, REACH = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7), (0.01, 0.03, 0.1, 0.3)
PILOT_ROWS, PILOT_TABLE = 300, 3000
EQUAL = 0.1  # share of a number's kernel that is for equal numbers alone
MOST_STRANGERS = 2000  # real rows that are compared with the other ones
PAIRS = 1 << 22  # pairs of rows at once


def find_near_rows(real: Any, drawn: Any) -> pd.DataFrame:
    """How much each drawn row owes to one real row, and whether a stranger would owe as much.

    Parameters
    ----------
    real : DataFrame or array-like, shape (N, C)
        The rows that a model was fitted to, one of each person. At least 50.
    drawn : DataFrame or array-like, shape (M, C)
        Rows drawn from it, or made by any other means. Columns that it lacks, identifiers and free text do not count.

    Returns
    -------
    DataFrame, M lines
        With the index of ``drawn``, the row nearest to a real one first. ``row`` is the label of the real row without
        which the drawn one is least probable; ``nats_with`` and ``nats_without`` it are log-probabilities beyond
        independent columns, by a kernel density of the real rows, and ``nats`` their difference. ``p_value`` is the
        share of real rows that owe as much to another real row: of rows of strangers, 1 % have one of at most .01, so
        that more than these among drawn ones are too near.

    Raises
    ------
    ValueError, TypeError
        Naming the table that has too few rows, or the column that it lacks.

    Notes
    -----
    The density is that of the real rows, not of the model that drew: a neural one cannot be asked what it would be
    without a row, and the question is about the drawn row. A row that two persons have owes little to either. Where
    rows of ``real`` belong to the same person, they are strangers by mistake, and p-values are too large. That no row
    is near is no proof of privacy.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> people = pd.DataFrame(rng.integers(8, size=(300, 6)), columns=list("abcdef")).astype(str)
    >>> drawn = pd.DataFrame(rng.integers(8, size=(100, 6)), columns=list("abcdef")).astype(str)
    >>> drawn.iloc[7] = people.iloc[123]
    >>> find_near_rows(people, drawn)[["row", "p_value"]].head(1).round(2)
       row  p_value
    7  123     0.01
    """
    frames, x, nominal, _ = encoded_tables({"real": real, "drawn": drawn}, find_near_rows)
    n = len(frames["real"])
    known = RowKernel.fit(x[:n], nominal)
    nearest, with_all, without = known.nearest(x[n:], np.full(len(x) - n, -1))
    strangers = np.linspace(0, n - 1, min(n, MOST_STRANGERS)).astype(int)
    _, *of_strangers = known.nearest(x[strangers], strangers)
    nats, usual = with_all - without, np.sort(of_strangers[0] - of_strangers[1])
    n_as_near = len(usual) - np.searchsorted(usual, nats - 1e-9)  # but for rounding
    found = pd.DataFrame(
        {
            "row": frames["real"].index[nearest],
            "nats_with": with_all,
            "nats_without": without,
            "nats": nats,
            "p_value": (1 + n_as_near) / (1 + len(usual)),
        },
        index=frames["drawn"].index,
    )
    return found.iloc[np.argsort(-nats, kind="stable")]


class Scales(NamedTuple):
    """The share of independence of all columns, and the reach of numbers among ranks."""

    independence: float
    reach: float


class RowKernel:
    """The terms :math:`R_i` of real rows (N, C), NaN where missing; ``nominal`` (C,) are categories."""

    def __init__(self, rows: Floats, nominal: Bools, scales: Scales) -> None:
        self.rows, self.nominal, self.scales = rows, nominal, scales
        self._values, self._shares = [], []  # distinct cells of each column, and their shares
        for cells in rows.T:
            values, counts = np.unique(cells[~np.isnan(cells)], return_counts=True)
            self._values.append(values)
            self._shares.append(counts / len(rows))
        self._ranks = [self._rank(j, cells) for j, cells in enumerate(rows.T)]

    @classmethod
    def fit(cls, rows: Floats, nominal: Bools) -> RowKernel:
        """The kernel of the likeliest scales."""
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), PILOT_TABLE)).astype(int)]
        pilot = np.linspace(0, len(some) - 1, min(len(some), PILOT_ROWS)).astype(int)

        def log_likelihood(scales: Scales) -> float:
            terms = cls(some, nominal, scales).log_terms(some[pilot])
            terms[np.arange(len(pilot)), pilot] = -np.inf
            return float(np.asarray(logsumexp(terms, 1)).mean())

        reaches = REACH if not nominal.all() else REACH[:1]
        best = max((Scales(*both) for both in product(INDEPENDENCE, reaches)), key=log_likelihood)
        return cls(rows, nominal, best)

    def _rank(self, column: int, cells: Floats) -> Floats:
        """Ranks of cells among the known cells of a column, between 0 and 1; NaN where missing."""
        values, shares = self._values[column], self._shares[column]
        if self.nominal[column] or not len(values):
            return cells
        middles = np.cumsum(shares) - shares / 2
        return np.interp(cells, values, middles / shares.sum())

    def log_terms(self, rows: Floats) -> Floats:
        """Log of the terms of all real rows, (B, N), at rows (B, C)."""
        share, reach = self.scales
        out = np.zeros((len(rows), len(self.rows)))
        for j, cells in enumerate(rows.T):
            values, shares = self._values[j], self._shares[j]
            is_missing, has = np.isnan(cells), np.isnan(self.rows[:, j])
            place = np.minimum(np.searchsorted(values, cells), max(0, len(values) - 1))
            # a cell that no real row has is compared with none
            of_own = shares[place] if len(values) else np.ones(len(cells))
            of_own = np.where(is_missing, max(has.mean(), 1 / len(has)), of_own)
            same = (cells[:, None] == self.rows[:, j]) | (is_missing[:, None] & has)
            kernel = same / of_own[:, None]
            if not self.nominal[j] and len(values):
                u, v = self._rank(j, cells)[:, None], self._ranks[j]
                inside = 1 - (np.exp(-v / reach) + np.exp((v - 1) / reach)) / 2
                near = np.exp(-np.abs(u - v) / reach) / (2 * reach * inside) / shares.sum()
                near = np.where(np.isnan(near), 0.0, (1 - EQUAL) * near + EQUAL * kernel)
                kernel = np.where(is_missing[:, None], kernel, near)
            out += np.log(share + (1 - share) * kernel)
        return out

    def nearest(self, rows: Floats, own: Ints) -> tuple[Ints, Floats, Floats]:
        """The real row (B,) without which each row is least probable, and log P (B,) with and without it.

        ``own`` (B,) is the number of the real row that a row is itself, to be left out of all; -1 if none.
        """
        parts, step = [], max(1, PAIRS // len(self.rows))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            terms, is_itself = self.log_terms(rows[part]), own[part] >= 0
            terms[np.flatnonzero(is_itself), own[part][is_itself]] = -np.inf
            n = len(self.rows) - is_itself
            most = terms.argmax(1)
            with_all = logsumexp(terms, 1) - np.log(n)
            terms[np.arange(len(terms)), most] = -np.inf
            parts.append((most, with_all, logsumexp(terms, 1) - np.log(n - 1)))
        found = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return found[0], found[1], found[2]
