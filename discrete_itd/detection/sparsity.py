r"""Sparse rows: tables of categories in which a score says little but how many cells are not what they usually are.

In a table of shopping baskets, or of which words occur, nearly every cell of a column has the same category, and the
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

OVERDISPERSED = 4.0  # variance of the number of unusual cells over its mean, by chance at most 1
NEARLY_ALL = 0.9  # of the variance of rows' nats in independent columns, that of this number
SPARSE = 0.2  # share of unusual cells, at most
STRATUM = 30  # rows, at least, of which a mean is estimated
MOST_ROWS = 5000  # more of them only cost time


@dataclass(frozen=True, eq=False)
class Sparsity:
    """What is expected of a row with a number of unusual cells.

    Parameters
    ----------
    usual : ndarray of float64, shape (C,)
        The most frequent category of each column, as it is encoded; NaN for a column that is not counted.
    added : ndarray of float64, shape (C + 1,)
        Nats that are added to those of a row if s = 0, 1, ... of its cells are unusual.
    """

    usual: np.ndarray
    added: np.ndarray

    @classmethod
    def of(cls, cells: np.ndarray, scores: np.ndarray, left_out: Collection[int] = ()) -> Sparsity:
        """Of the cells of encoded training rows, (n, C), and their scores, (n,); some columns are not counted."""
        usual = usual_cells(cells, left_out)
        mean, log_p = expected(unusual(cells, usual).sum(1), scores, cells.shape[1] + 1)
        return cls(usual, mean - scores.mean() - log_p)

    def nats(self, x: Tensor) -> np.ndarray:
        """What is added to the nats of encoded rows ``x`` (N, C'): (N, C), in equal parts.

        The parts are of the unusual cells; of all that are counted and not missing, if none is unusual.
        """
        cells = cells_of(x, len(self.usual))
        of = unusual(cells, self.usual)
        s = of.sum(1, keepdims=True)
        shared = np.where(s > 0, of, ~np.isnan(cells) & ~np.isnan(self.usual))
        return shared * (self.added[s] / np.maximum(1, shared.sum(1, keepdims=True)))

    # -- storage --------------------------------------------------------------------------------

    def to_tensors(self) -> dict[str, Tensor]:
        """Both arrays by name."""
        return {"sparsity.usual": torch.tensor(self.usual), "sparsity": torch.tensor(self.added)}

    @classmethod
    def from_tensors(cls, n_columns: int, tensors: Mapping[str, Tensor]) -> Sparsity:
        """What :meth:`to_tensors` wrote; ValueError or LookupError if it is malformed."""
        usual = tensors["sparsity.usual"].numpy().astype(float)
        added = tensors["sparsity"].numpy().astype(float)
        if usual.shape != (n_columns,) or added.shape != (n_columns + 1,):
            raise ValueError(f"its nats of sparse rows are malformed, of shape {added.shape}")
        if not np.isfinite(added).all() or np.isinf(usual).any():
            raise ValueError("its nats of sparse rows are not finite")
        return cls(usual, added)


def cells_of(x: Tensor, n_columns: int) -> np.ndarray:
    """The cells of encoded rows (N, C') themselves, (N, C), without what says that some are missing."""
    return x[:, :n_columns].cpu().numpy()


def usual_cells(cells: np.ndarray, left_out: Collection[int] = ()) -> np.ndarray:
    """The most frequent category of each column, (C,); NaN if it has none or is left out."""
    usual = np.full(cells.shape[1], np.nan)
    for j in set(range(cells.shape[1])) - set(left_out):
        values, counts = np.unique(cells[~np.isnan(cells[:, j]), j], return_counts=True)
        if len(values):
            usual[j] = values[counts.argmax()]
    return usual


def unusual(cells: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Which cells are counted, and neither missing nor usual: bool, (N, C)."""
    return (cells != usual) & ~np.isnan(cells) & ~np.isnan(usual)


def expected(s: np.ndarray, scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean score of rows with s = 0, ..., n - 1 unusual cells, and the log-probability of s, (n,) each.

    Where fewer than ``STRATUM`` rows have a number, those with the next numbers count, too: the mean is on the line
    through them, and beyond the last row on the last line.
    """
    rows, moments = np.bincount(s, minlength=n), np.zeros((4, n))
    for i, values in enumerate((s, scores, s * scores, s * s)):
        moments[i] = np.bincount(s, values, minlength=n)
    mean, log_p = np.empty(n), np.empty(n)
    for k in range(n):
        low, high, least = k, k + 1, min(STRATUM, len(s))
        while rows[low:high].sum() < least or (rows[low:high] > 0).sum() < min(2, (rows > 0).sum()):
            low, high = max(0, low - 1), min(n, high + 1)
        n_near = rows[low:high].sum()
        of_s, of_score, both, square = moments[:, low:high].sum(1) / n_near
        spread = square - of_s**2
        slope = (both - of_s * of_score) / spread if spread > 0 else 0.0
        alone = rows[k] >= least
        mean[k] = moments[1, k] / rows[k] if alone else of_score + slope * (k - of_s)
        log_p[k] = np.log((rows[k] if alone else n_near / (high - low)) / len(s))
    return mean, log_p


def is_uneven(cells: np.ndarray, left_out: Collection[int] = ()) -> bool:
    """Whether rows (n, C) have few unusual cells, and differ in their number by more than chance.

    In independent columns the variance of the number is at most its mean.
    """
    usual = usual_cells(cells, left_out)
    s, n_counted = unusual(cells, usual).sum(1), np.count_nonzero(~np.isnan(usual))
    if len(s) < STRATUM or s.mean() > SPARSE * n_counted:
        return False
    return bool(s.var() > OVERDISPERSED * s.mean())


def is_sparse(cells: np.ndarray, nats: np.ndarray, left_out: Collection[int] = ()) -> bool:
    """Whether, moreover, rows differ by their nats in independent columns, (n, C), in little else."""
    if not is_uneven(cells, left_out):
        return False
    usual = usual_cells(cells, left_out)
    s, total = unusual(cells, usual).sum(1), (nats * ~np.isnan(usual)).sum(1)
    mean, _ = expected(s, total, cells.shape[1] + 1)
    return bool(0 < (total - mean[s]).var() <= (1 - NEARLY_ALL) * total.var())
