r"""Drawn rows that are too near one real row, by how much less probable they are without it.

Rows are probable by a kernel density of the N real rows, relative to independent columns,

.. math:: \frac{P(x)}{\prod_j p_j(x_j)} = \frac1N \sum_i R_i(x), \qquad R_i(x) = \prod_j \big(\lambda + (1 - \lambda)
          \, k_j(x_j, x_{ij})\big),

where :math:`k_j` of a category is :math:`1[x_j = x_{ij}] / p_j(x_j)`, so that agreement on a rare one counts more; of a
number, mostly a Laplace kernel on the scale of ranks, reflected at both ends, and for a share the same as of a
category. Without row i the sum lacks its term: that is the leave-one-out density in closed form, of the same scales and
shares.

P-values are conformal: drawn and real rows are treated alike. Shares and ranks of x are those among the real rows and x
itself, else a value that no real row has would be compared with none. And x is one more row to which real rows may owe.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        Any number of rows drawn from it, or made by any other means. Columns that it lacks, identifiers and free text
        do not count.

    Returns
    -------
    DataFrame, M lines
        With the index of ``drawn``, the row nearest to a real one first. ``row`` is the label of the real row without
        which the drawn one is least probable; ``nats_with`` and ``nats_without`` it are log-probabilities beyond
        independent columns, by a kernel density of the real rows, and ``nats`` their difference. ``p_value`` is the
        share of rows that owe as much to another one, among the real rows and the drawn one: of rows of strangers, at
        most 1 % have one of at most .01, so that if more drawn ones have, some are too near.

    Raises
    ------
    ValueError, TypeError
        Naming the table that has too few rows, or the column that it lacks.

    Notes
    -----
    The density is that of the real rows, not of the model that drew: a neural one cannot be asked what it would be
    without a row, and the question is about the drawn row. A row that two persons have owes little to either. A copy
    and its real row owe each other as much, so a copy's p-value is at least 2 / (N + 1): .01 needs 199 real rows. Where
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
    frames, x, nominal, _ = encoded_tables({"real": real, "drawn": drawn}, find_near_rows, 0)
    n = len(frames["real"])
    known = RowKernel.fit(x[:n], nominal)
    chosen = np.linspace(0, n - 1, min(n, MOST_STRANGERS)).astype(int)
    # of a real row as a stranger: its cells are counted once, or twice, as where the drawn row has the same ones
    once, twice = (
        TermSums.joined([TermSums.of(terms) for terms in known.blocks(x[chosen], chosen, also)])
        for also in (0, 1)
    )
    parts, n_as_near = [], []
    for terms in known.blocks(x[n:]):
        parts.append(TermSums.of(terms))
        term = terms[:, chosen]  # kernels are symmetric: that of the drawn row at the real one, too
        is_nearest = term > once.largest
        nats = np.where(is_nearest, twice.plus(term).nats, once.plus(term).nats)
        n_as_near.append((nats >= parts[-1].nats[:, None] - 1e-9).sum(1))  # but for rounding
    found = TermSums.joined(parts)
    with_all, without = found.total - np.log(n), found.rest - np.log(n - 1)
    table = pd.DataFrame(
        {
            "row": frames["real"].index[found.nearest],
            "nats_with": with_all,
            "nats_without": without,
            "nats": with_all - without,
            "p_value": (1 + np.concatenate(n_as_near)) / (1 + len(chosen)),
        },
        index=frames["drawn"].index,
    )
    return table.iloc[np.argsort(without - with_all, kind="stable")]


class TermSums(NamedTuple):
    """The real row of the largest term, its log term, and the log sums of all terms and of all but the largest."""

    nearest: Ints
    largest: Floats
    total: Floats
    rest: Floats

    @classmethod
    def of(cls, terms: Floats) -> TermSums:
        """Sums (B,) of log terms (B, N)."""
        nearest, rows = terms.argmax(1), np.arange(len(terms))
        others = terms.copy()
        others[rows, nearest] = -np.inf
        total, rest = (np.asarray(logsumexp(part, 1)) for part in (terms, others))
        return cls(nearest, terms[rows, nearest], total, rest)

    @classmethod
    def joined(cls, parts: list[TermSums]) -> TermSums:
        """The sums of all rows of some parts."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def plus(self, term: Floats) -> TermSums:
        """The sums with one more log term."""
        rest = np.where(term > self.largest, self.total, np.logaddexp(self.rest, term))
        most = np.maximum(term, self.largest)
        return TermSums(self.nearest, most, np.logaddexp(self.total, term), rest)

    @property
    def nats(self) -> Floats:
        """How much is owed to the largest term, but for a constant of the number of rows."""
        return self.total - self.rest


class Scales(NamedTuple):
    """The share of independence of all columns, and the reach of numbers among ranks."""

    independence: float
    reach: float


class RowKernel:
    """The terms :math:`R_i` of real rows (N, C), NaN where missing; ``nominal`` (C,) are categories."""

    def __init__(self, rows: Floats, nominal: Bools, scales: Scales) -> None:
        self.rows, self.nominal, self.scales = rows, nominal, scales
        self._known = [np.sort(cells[~np.isnan(cells)]) for cells in rows.T]

    @classmethod
    def fit(cls, rows: Floats, nominal: Bools) -> RowKernel:
        """The kernel of the likeliest scales."""
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), PILOT_TABLE)).astype(int)]
        pilot = np.linspace(0, len(some) - 1, min(len(some), PILOT_ROWS)).astype(int)

        def log_likelihood(scales: Scales) -> float:
            terms = cls(some, nominal, scales).log_terms(some[pilot], pilot, 0)
            return float(np.asarray(logsumexp(terms, 1)).mean())

        reaches = REACH if not nominal.all() else REACH[:1]
        best = max((Scales(*both) for both in product(INDEPENDENCE, reaches)), key=log_likelihood)
        return cls(rows, nominal, best)

    def blocks(self, rows: Floats, own: Ints | None = None, also: int = 1) -> Iterator[Floats]:
        """:meth:`log_terms` of some of the rows at a time."""
        step = max(1, PAIRS // len(self.rows))
        for start in range(0, max(1, len(rows)), step):
            part = slice(start, start + step)
            yield self.log_terms(rows[part], None if own is None else own[part], also)

    def log_terms(self, rows: Floats, own: Ints | None = None, also: int = 1) -> Floats:
        """Log of the terms (B, N) of all real rows at rows (B, C), new ones or the real rows ``own`` (B,).

        Shares and ranks of the cells of a row are those among the real rows and the row itself, ``also`` times. A real
        row has no term at itself.
        """
        share, reach = self.scales
        n, out = len(self.rows) + also, np.zeros((len(rows), len(self.rows)))
        for j, cells in enumerate(rows.T):
            x, y, known = cells[:, None], self.rows[:, j], self._known[j]
            is_missing, has_gap = np.isnan(x), np.isnan(y)
            same = (x == y) | (is_missing & has_gap)
            kernel = same * (n / (same.sum(1, keepdims=True) + also))
            if not self.nominal[j]:
                n_known = max(1, len(known) + also)
                u, v = (
                    (np.searchsorted(known, c) + np.searchsorted(known, c, "right")) / 2
                    for c in (x, y)
                )
                # cosh of the distances from 0 and from 1, of x, of rows below it and of rows above, whose ranks move
                (from_0, to_1), (below, _), (_, above) = (
                    (np.cosh(rank / n_known / reach), np.cosh((1 - rank / n_known) / reach))
                    for rank in (u + also / 2, v, v + also)
                )
                near = np.where(y > x, from_0 * above, to_1 * below)
                near = np.where(same, from_0 * to_1, near)
                near *= n / n_known / (reach * np.sinh(1 / reach))
                near = (1 - EQUAL) * near + EQUAL * kernel
                kernel = np.where(is_missing, kernel, np.where(has_gap, 0.0, near))
            out += np.log(share + (1 - share) * kernel)
        if own is not None:
            out[np.arange(len(rows)), own] = -np.inf
        return out
