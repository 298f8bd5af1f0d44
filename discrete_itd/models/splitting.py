r"""Which rows to hold out: copies of a record stay on one side of the split.

If a record occurs twice, or has a weight, a model fitted to one copy knows the other, and held-out rows flatter it, the
more the more it overfits. But rows may also be equal by nature: new rows will repeat frequent patterns as often, and a
model that never saw such a pattern misses it. What tells the two apart is how often a row would occur without having
been copied. With m occurrences among N rows and a model's probability P(x), rows are taken for copies if

.. math:: \Pr(\mathrm{Poisson}(f N P(x)) \ge m) < 0.01,

where f = 10 allows for what the model does not know. The model is a Chow-Liu tree; where it calls more than a hundredth
of the rows copies, a mixture of products with few classes must agree. Two rules are added:

* A pattern that makes up more than a fiftieth of the rows (and more than five of them) is never taken for copies.
* If every row occurs k times, or a multiple of it, and k is at most N / 200, k of them at a time are taken for copies.

References
----------
Chow, Liu, "Approximating discrete probability distributions with dependence trees", IEEE Trans. Inf. Theory 1968.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import (
    Denoiser,
    MarginalDenoiser,
    MixtureDenoiser,
    TreeDenoiser,
)

COMMON_SHARE = 0.02  # of the rows, above which a pattern is frequent
FEWEST_COMMON = 5  # rows that are never called frequent
SLACK = 10.0  # the factor f
SURE = 0.01  # how improbable an honest repetition must be
FEW_COPIES = 0.01  # of the rows: whether so few are copies matters little
FEWEST_BUNDLES = 200  # of k copies each
MOST_COLUMNS = 48  # that the models see, those of largest entropy
MOST_LEVELS = 64  # of a column that they see; other columns count by themselves
MOST_TOTAL = 512  # levels of these columns together
TREE_ROWS, MIXTURE_ROWS = 10_000, 5000  # to which they are fitted
MOST_CLASSES, CLASS_ROWS = 64, 50  # of the mixture, and different rows for each

Ints = NDArray[np.int64]


def hold_out(records: Ints, n_held: int, seed: int) -> tuple[Ints, Ints]:
    """Divide rows at random into held-out ones and the rest, with copies of a record on one side.

    Parameters
    ----------
    records : ndarray of int, shape (N,)
        The record of each row, as :func:`copies` numbers them.
    n_held : int
        Rows to hold out, below N; some more where the last of them has copies.
    seed : int

    Returns
    -------
    held, rest : ndarray of int64
        Positions, in random order. Without copies, or if all rows are copies of one, exactly ``n_held`` are held out.
        Every record is as likely to be held out, however many copies it has.
    """
    n = len(records)
    order = np.random.RandomState(seed).permutation(n)
    _, first, inverse = np.unique(records, return_index=True, return_inverse=True)
    if len(first) == 1:  # there is nothing else to fit to
        first, inverse = np.arange(n), np.arange(n)
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    # all copies come when one of them does, which one does not depend on how many they are
    arrival = np.argsort(rank[first][inverse], kind="stable")
    ends = np.append(np.flatnonzero(np.diff(inverse[arrival])) + 1, n)
    held = np.zeros(n, dtype=bool)
    if n_held > 0 and len(ends) > 1:
        held[arrival[: ends[min(int(np.searchsorted(ends, n_held)), len(ends) - 2)]]] = True
    held = held[order]
    return order[held], order[~held]


def copies(codes: Ints) -> Ints:
    """A number for each row, (N,), the same for those that are taken for copies of one record; ``codes`` (N, C)."""
    n = len(codes)
    key = _hash(codes)
    rows, first, group, m = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    alone = n + np.arange(n)
    if len(rows) == n:
        return alone
    common = m > max(COMMON_SHARE * n, FEWEST_COMMON)
    copied = np.zeros(len(rows), dtype=bool)
    rare = np.flatnonzero((m > 1) & ~common)
    # the cheaper model first; the other is asked of what it does not explain
    for fit in (_tree, _mixture):
        if len(rare) and (fit is _tree or m[rare].sum() > FEW_COPIES * n):
            expected = SLACK * n * np.exp(_log_prob(fit, codes, codes[first], codes[first[rare]]))
            rare = rare[stats.poisson.sf(m[rare] - 1, expected) < SURE]
    copied[rare] = True
    out = np.where(copied[group], group, alone)
    k = int(np.gcd.reduce(m))
    if 1 < k <= n / FEWEST_BUNDLES:
        by_group = np.argsort(group, kind="stable")
        place = np.empty(n, dtype=np.int64)  # of each row among its equals
        place[by_group] = np.arange(n) - np.repeat(np.cumsum(m) - m, m)
        bundled = ~common & ~copied
        head = first[group] * n + place // k  # a number of its own for each k of them
        out = np.where(bundled[group], 2 * n + head, out)
    return out


def _hash(codes: Ints) -> NDArray[np.uint64]:
    """64 bits for each row of ``codes`` (N, C); different ones for different rows, but for chance."""
    hashed = cast(Any, pd).util.hash_pandas_object(pd.DataFrame(codes), index=False)
    return hashed.to_numpy()


def equal_values(frame: pd.DataFrame) -> Ints:
    """Numbers for the values of a table, (N, C): the same for equal ones of a column, -1 for missing ones."""
    columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
    return np.stack([_numbered(column) for column in columns], axis=1)


def _numbered(values: pd.Series) -> Ints:
    try:
        return pd.factorize(values)[0].astype(np.int64)
    except TypeError:  # values that cannot be hashed, about which the fit will complain
        return np.arange(len(values))


def _tree(base: MarginalDenoiser, x: torch.Tensor) -> Denoiser:
    return TreeDenoiser.fit(base, x, pseudo_count=1.0)


def _mixture(base: MarginalDenoiser, x: torch.Tensor) -> Denoiser:
    """Of so few classes that it cannot learn single rows by heart."""
    n_classes = max(2, min(MOST_CLASSES, len(x.unique(dim=0)) // CLASS_ROWS))
    x, generator = x[:MIXTURE_ROWS], torch.Generator().manual_seed(0)
    return MixtureDenoiser.fit(
        base, x, n_components=n_classes, x_valid=x[::10], generator=generator
    )


@torch.no_grad()
def _log_prob(
    fit: Callable[[MarginalDenoiser, torch.Tensor], Denoiser],
    codes: Ints,
    distinct: Ints,
    rows: Ints,
) -> NDArray[np.float64]:
    """Log-probability of ``rows`` (n, C) under a model of the columns of few values, fitted to ``codes``.

    A value of another column counts by itself, by how many of the *other* ``distinct`` rows have it: of real numbers
    none, however often a record was copied.
    """
    some = codes[np.random.default_rng(0).permutation(len(codes))[:TREE_ROWS]]
    out, levels, few = np.zeros(len(rows)), [], []
    counted = [np.unique(column, return_counts=True) for column in some.T]
    for j in np.argsort([-stats.entropy(counts) for _, counts in counted], kind="stable"):
        values, counts = counted[j]
        n_levels = sum(map(len, levels)) + len(values)
        if len(values) > min(MOST_LEVELS, len(distinct) / 4):
            values, counts = np.unique(distinct[:, j], return_counts=True)
            others = counts[np.searchsorted(values, rows[:, j])] - 1
            out += np.log((others + 0.5) / len(distinct))
        elif len(few) < MOST_COLUMNS and n_levels <= MOST_TOTAL:
            levels.append(np.union1d(values, rows[:, j]))
            few.append(int(j))
    if not few:
        return out

    def encoded(table: Ints) -> torch.Tensor:
        columns = [np.searchsorted(v, table[:, j]) for v, j in zip(levels, few, strict=True)]
        return torch.from_numpy(np.stack(columns, 1).astype(float))

    book = Codebook([ColumnPoints("simplex", len(values)) for values in levels])
    x = encoded(some)
    return out + fit(MarginalDenoiser.fit(book, x), x).log_prob(encoded(rows)).double().numpy()
