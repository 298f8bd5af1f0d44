r"""Which rows to hold out: copies of a record stay on one side of the split.

If a record occurs twice, or has a weight, a model fitted to one copy knows the other. Held-out rows then flatter the
model, the more the more it overfits. But rows may also be equal by nature: new rows will repeat frequent patterns as
often, and a model that never saw such a pattern misses it. What tells the two apart is how often the row would occur
without having been copied. With m occurrences among N rows, and P(x) from a Chow-Liu tree and from a mixture of
products with few classes, rows are taken for copies if under both models

.. math:: \Pr(\mathrm{Poisson}(f N P(x)) \ge m) < 0.01.

The factor f = 10 allows for what such models do not know. If all rows occur k times, or a multiple of it, k of them
at a time are taken for copies.

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

from discrete_itd.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import (
    ExactDenoiser,
    MarginalDenoiser,
    MixtureDenoiser,
    TreeDenoiser,
)

COMMON_SHARE, FEWEST_COMMON = (
    0.02,
    5,
)  # share and number of rows above which a row is a frequent pattern of the table
SLACK, SURE = 10.0, 0.01  # the factor f, and how improbable an honest repetition must be
MOST_LEVELS, MOST_SLOTS = (
    64,
    1024,
)  # of a column of the tree, and of all of them; others count by themselves
TREE_ROWS, MIXTURE_ROWS = 20_000, 5000  # to which models are fitted
MOST_CLASSES, CLASS_ROWS = 64, 50  # of the mixture, and different rows for each
FEW_COPIES = 0.01  # of the rows; whether so few are copies matters little

Ints = NDArray[np.int64]


def hold_out(codes: Ints, n_held: int, seed: int) -> tuple[Ints, Ints]:
    """Divide rows at random into held-out ones and the rest, with copies of a record on one side.

    Parameters
    ----------
    codes : ndarray of int, shape (N, C)
        Equal for equal values of a column; any number for a missing one.
    n_held : int
        Rows to hold out, below N; some more where the last of them has copies.
    seed : int

    Returns
    -------
    held, rest : ndarray of int64
        Positions, in random order. Without copies, or if all rows are copies of one, exactly ``n_held`` are held out.
    """
    order = np.random.RandomState(seed).permutation(len(codes))
    held = np.zeros(len(codes), dtype=bool)
    record = copies(codes)[order]
    if len(np.unique(record)) == 1:  # there is nothing else to fit to
        record = order
    _, first, inverse = np.unique(record, return_index=True, return_inverse=True)
    came = first[inverse]  # copies move up to the first of them
    arrival = np.argsort(came, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(came[arrival])) + 1, len(codes))
    if n_held > 0 and len(ends) > 1:
        cut = ends[min(int(np.searchsorted(ends, n_held)), len(ends) - 2)]
        held[arrival[:cut]] = True
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
    for fit in (
        _tree,
        _mixture,
    ):  # the cheaper first; the other is asked of what it does not explain
        if len(rare) and (fit is _tree or m[rare].sum() > FEW_COPIES * n):
            expected = SLACK * n * np.exp(_log_prob(fit, codes, codes[first[rare]]))
            rare = rare[stats.poisson.sf(m[rare] - 1, expected) < SURE]
    copied[rare] = True
    out = np.where(copied[group], group, alone)
    k = int(np.gcd.reduce(m))
    if k > 1:
        by_group = np.argsort(group, kind="stable")
        place = np.empty(n, dtype=np.int64)  # of each row among its equals
        place[by_group] = np.arange(n) - np.repeat(np.cumsum(m) - m, m)
        bundled = (~common | (m >= k * FEWEST_COMMON)) & ~copied
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


def _tree(base: MarginalDenoiser, x: torch.Tensor) -> ExactDenoiser:
    return TreeDenoiser.fit(base, x, pseudo_count=1.0)


def _mixture(base: MarginalDenoiser, x: torch.Tensor) -> ExactDenoiser:
    """Of so few classes that it cannot learn single rows by heart."""
    n_classes = max(2, min(MOST_CLASSES, len(x.unique(dim=0)) // CLASS_ROWS))
    x, generator = x[:MIXTURE_ROWS], torch.Generator().manual_seed(0)
    return MixtureDenoiser.fit(
        base, x, n_components=n_classes, x_valid=x[::10], generator=generator
    )


@torch.no_grad()
def _log_prob(
    fit: Callable[[MarginalDenoiser, torch.Tensor], ExactDenoiser], codes: Ints, rows: Ints
) -> NDArray[np.float64]:
    """Log-probability of ``rows`` (n, C) under a model of the columns of few values; the others count by themselves."""
    some = codes[np.random.default_rng(0).permutation(len(codes))[:TREE_ROWS]]
    out, levels, few = np.zeros(len(rows)), [], []
    for j in range(rows.shape[1]):
        values, counts = np.unique(some[:, j], return_counts=True)
        if len(values) <= MOST_LEVELS and sum(map(len, levels)) + len(values) <= MOST_SLOTS:
            levels.append(np.union1d(values, rows[:, j]))
            few.append(j)
        else:
            at = np.searchsorted(values, rows[:, j]).clip(max=len(values) - 1)
            out += np.log(np.where(values[at] == rows[:, j], counts[at], 1) / len(some))
    if not few:
        return out

    def encoded(table: Ints) -> torch.Tensor:
        columns = [np.searchsorted(v, table[:, j]) for v, j in zip(levels, few, strict=True)]
        return torch.from_numpy(np.stack(columns, 1).astype(float))

    book = Codebook([ColumnPoints("simplex", len(values)) for values in levels])
    x = encoded(some)
    return out + fit(MarginalDenoiser.fit(book, x), x).log_prob(encoded(rows)).double().numpy()
