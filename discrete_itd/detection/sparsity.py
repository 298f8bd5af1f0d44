r"""Sparse rows: tables of categories in which a score says little but how many cells are not what they usually are.

In a table of what was bought, or of which words occur, nearly every cell of a column has the same category, and the
log-probability of a row falls with the number s of cells that have another one. Where rows differ in s by much more
than chance, and s tells nearly all of what independent columns know of a row, it hides the rest of a score: which cells
those are. A row is then compared with rows that have as many of them:

.. math:: \log P(x) - \mathbb{E}[\log P(X) \mid s(X) = s(x)] + \log p(s(x)) \quad (12)

up to a constant, with the mean and p(s) estimated from training rows. This ranks rows; it is no code length.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

OVERDISPERSED = (
    2.0  # variance of this number over its mean, above which rows differ by more than chance
)
NEARLY_ALL = (
    0.9  # of the variance of rows' nats in independent columns, that this number must explain
)
STRATUM = 30  # rows, at least, of which a mean is estimated
MOST_ROWS = 5000  # more of them only cost time


@dataclass(frozen=True, eq=False)
class Sparsity:
    """What is expected of a row with a number of unusual cells.

    Parameters
    ----------
    usual : ndarray of float64, shape (C,)
        The most frequent category of each column, as it is encoded; NaN for a column that is not counted.
    added : ndarray of float64, shape (S, C)
        Nats that are added to those of a row's cells if s = 0, 1, ... of them are unusual, and of more than these the
        last.
    """

    usual: np.ndarray
    added: np.ndarray

    @classmethod
    def of(
        cls, x: Tensor, nats: np.ndarray, scores: np.ndarray, left_out: Collection[int] = ()
    ) -> Sparsity:
        """Of encoded training rows (n, C), their nats in independent columns, (n, C), and their scores, (n,).

        What the score expects of a row beside independent columns is shared equally by the columns that are counted.
        """
        usual = usual_cells(x, left_out)
        counted = ~np.isnan(usual)
        nats = nats * counted
        rest = -scores - nats.sum(1)
        mean, p = expected(unusual(x, usual), np.column_stack([nats, rest]))
        added = np.append(nats.mean(0), rest.mean()) - mean  # (S, C + 1)
        shared = (added[:, -1] - np.log(p))[:, None] / max(1, counted.sum())
        return cls(usual, (added[:, :-1] + shared) * counted)

    def nats(self, x: Tensor) -> np.ndarray:
        """What is added to the nats of the cells of encoded rows ``x`` (N, C): (N, C), 0 where one is missing."""
        s = unusual(x, self.usual).clip(max=len(self.added) - 1)
        return np.where(x.isnan().cpu().numpy(), 0.0, self.added[s])

    # -- storage --------------------------------------------------------------------------------

    def to_tensors(self) -> dict[str, Tensor]:
        return {"sparsity.usual": torch.tensor(self.usual), "sparsity": torch.tensor(self.added)}

    @classmethod
    def from_tensors(cls, n_columns: int, tensors: Mapping[str, Tensor]) -> Sparsity:
        """What :meth:`to_tensors` wrote; ValueError or LookupError if it is malformed."""
        usual = tensors["sparsity.usual"].numpy().astype(float)
        added = tensors["sparsity"].numpy().astype(float)
        if usual.shape != (n_columns,) or added.shape[1:] != (n_columns,) or not len(added):
            raise ValueError(f"its nats of sparse rows are malformed, of shape {added.shape}")
        if not np.isfinite(added).all():
            raise ValueError("its nats of sparse rows are not finite")
        return cls(usual, added)


def usual_cells(x: Tensor, left_out: Collection[int] = ()) -> np.ndarray:
    """The most frequent category of each column of encoded rows, (C,); NaN if it has none or is left out."""
    cells = x.cpu().numpy()
    usual = np.full(cells.shape[1], np.nan)
    for j in set(range(cells.shape[1])) - set(left_out):
        values, counts = np.unique(cells[~np.isnan(cells[:, j]), j], return_counts=True)
        if len(values):
            usual[j] = values[counts.argmax()]
    return usual


def unusual(x: Tensor, usual: np.ndarray) -> np.ndarray:
    """How many cells of each encoded row are neither missing nor usual: int64, (N,)."""
    cells = x.cpu().numpy()
    return ((cells != usual) & ~np.isnan(cells) & ~np.isnan(usual)).sum(1)


def expected(s: np.ndarray, nats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean nats (S, C) of rows with each number of unusual cells, and the probability of this number, (S,).

    Where fewer than ``STRATUM`` rows have a number, those with the next numbers, above and below, count too.
    """
    n = s.max() + 1
    rows = np.bincount(s, minlength=n)
    sums = np.zeros((n, nats.shape[1]))
    np.add.at(sums, s, nats)
    mean, p = np.empty_like(sums), np.empty(n)
    least = min(STRATUM, len(s))
    for k in range(n):
        width = 0
        while rows[max(0, k - width) : k + width + 1].sum() < least:
            width += 1
        near = slice(max(0, k - width), k + width + 1)
        mean[k] = sums[near].sum(0) / rows[near].sum()
        p[k] = rows[near].sum() / len(rows[near]) / len(s)
    return mean, p


def is_sparse(x: Tensor, nats: np.ndarray, left_out: Collection[int] = ()) -> bool:
    """Whether encoded rows (n, C) differ in their number of unusual cells, and by their nats (n, C) in little else.

    The nats are those in independent columns, under which the variance of the number is at most its mean.
    """
    usual = usual_cells(x, left_out)
    s, total = unusual(x, usual), (nats * ~np.isnan(usual)).sum(1)
    if s.var() <= OVERDISPERSED * s.mean():
        return False
    mean, _ = expected(s, total[:, None])
    return bool((total - mean[s, 0]).var() <= (1 - NEARLY_ALL) * total.var())
