r"""Which rows to hold out: copies of a record stay on one side of the split.

If a record occurs twice, or has a weight, and one copy is a training row and the other is held out, the held-out
log-likelihood is too high, and the more so the more the model overfits. But equal rows may also be different records:
new rows will contain frequent patterns as often, and a training set without such a pattern would be unlike them. The
two cases are told apart by the number of occurrences expected without copies. With m occurrences among N rows and a
model's probability P(x), equal rows are taken as copies if

.. math:: \Pr(\mathrm{Poisson}(f N P(x)) \ge m) < 0.01,

where f = 10 allows for errors of the model. The model is a Chow-Liu tree; where it would make more than one row in a
hundred a copy, a mixture of products with few classes must agree. There are two more rules:

* A pattern that makes up more than a fiftieth of the rows (and more than five rows) is never taken as copies.
* If k divides the number of occurrences of every row, and k is at most N / 200, each k equal rows are one record.

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

COMMON_SHARE = 0.02  # share of the rows above which a pattern is frequent
FEWEST_COMMON = 5  # so many equal rows are never a frequent pattern
SLACK = 10.0  # the factor f
SURE = 0.01  # probability of the occurrences without copies, below which they are copies
FEW_COPIES = 0.01  # share of the rows; fewer have little influence, and only the tree is fitted
FEWEST_BUNDLES = 200  # of k copies each
MOST_COLUMNS = 48  # modelled, those with the largest entropy
MOST_LEVELS = 64  # of a modelled column; other columns are taken as independent
MOST_TOTAL = 512  # levels of these columns together
TREE_ROWS, MIXTURE_ROWS = 10_000, 5000  # to which the models are fitted
MOST_CLASSES, CLASS_ROWS = 64, 50  # of the mixture: classes, and distinct rows for each

Ints = NDArray[np.int64]


def hold_out(records: Ints, n_held: int, seed: int) -> tuple[Ints, Ints]:
    """Divide rows at random into held-out and training rows, with all copies of a record on one side.

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
        Every record is equally likely to be held out, however many copies it has.
    """
    n = len(records)
    order = np.random.RandomState(seed).permutation(n)
    _, first, inverse = np.unique(records, return_index=True, return_inverse=True)
    if len(first) == 1:  # there would be no training row
        first, inverse = np.arange(n), np.arange(n)
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    # all copies come with the first: the place of a record must not depend on how many copies it has
    arrival = np.argsort(rank[first][inverse], kind="stable")
    ends = np.append(np.flatnonzero(np.diff(inverse[arrival])) + 1, n)
    held = np.zeros(n, dtype=bool)
    if n_held > 0 and len(ends) > 1:
        held[arrival[: ends[min(int(np.searchsorted(ends, n_held)), len(ends) - 2)]]] = True
    held = held[order]
    return order[held], order[~held]


def copies(codes: Ints) -> Ints:
    """The record of each row of ``codes`` (N, C) as a number, (N,): copies of one record have the same."""
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
    # the cheaper model first; the other is fitted only for repetitions that this one does not explain
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
        head = first[group] * n + place // k  # a number for each k of them
        out = np.where(bundled[group], 2 * n + head, out)
    return out


def _hash(codes: Ints) -> NDArray[np.uint64]:
    """64-bit hashes of the rows of ``codes`` (N, C)."""
    hashed = cast(Any, pd).util.hash_pandas_object(pd.DataFrame(codes), index=False)
    return hashed.to_numpy()


def equal_values(frame: pd.DataFrame) -> Ints:
    """Numbers for the values of a table, (N, C): the same for equal ones of a column, -1 for missing ones."""
    columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
    return np.stack([_numbered(column) for column in columns], axis=1)


def _numbered(values: pd.Series) -> Ints:
    try:
        return pd.factorize(values)[0].astype(np.int64)
    except TypeError:  # values that cannot be hashed: the fit raises an error later
        return np.arange(len(values))


def _tree(base: MarginalDenoiser, x: torch.Tensor) -> Denoiser:
    return TreeDenoiser.fit(base, x, pseudo_count=1.0)


def _mixture(base: MarginalDenoiser, x: torch.Tensor) -> Denoiser:
    """A mixture with so few classes that it cannot memorise single rows."""
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
    """Log-probability of ``rows`` (n, C) under a model of the columns with few values, fitted to ``codes``.

    Every other column is taken as independent, and the probability of a value is estimated from how many of the *other*
    ``distinct`` rows have it: for a real number none, however often its record was copied.
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
