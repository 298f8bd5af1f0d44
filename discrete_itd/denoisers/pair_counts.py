"""Category counts, pairwise counts, and the mutual information computed from them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import add_at
from discrete_itd.channel.levels import Levels

COUNTED = 16384  # rows that are counted at once


class CellCounts:
    """Counts of every level and category, added up over parts of a table.

    Attributes
    ----------
    n_rows : int
    levels : Tensor of float64, shape (T,)
        Cells of each level.
    reals : Tensor of int64, shape (R,)
        Cells of each continuous column that are not missing.
    """

    def __init__(self, book: Codebook) -> None:
        self._book, self.n_rows = book, 0
        self.levels = torch.zeros(book.levels.n_points, dtype=torch.float64)
        self.reals = torch.zeros(len(book.reals), dtype=torch.int64)

    def add(self, x: Tensor) -> CellCounts:
        """Add the cells of rows ``x`` (N, C)."""
        book, x = self._book, x.cpu()
        codes = x[:, book.finite.cpu()]
        level = book.levels.index_of(codes.nan_to_num(0.0).long().to(book.device)).cpu()
        n_points = book.levels.n_points
        self.levels += torch.bincount(level[~codes.isnan()], minlength=n_points)
        self.reals += (~x[:, book.reals.cpu()].isnan()).sum(0)
        self.n_rows += len(x)
        return self

    @classmethod
    def of(cls, book: Codebook, parts: Iterable[Tensor]) -> CellCounts:
        """The counts of all rows of several parts."""
        counts = cls(book)
        for x in parts:
            counts.add(x)
        return counts


def indicators(book: Codebook, x: Tensor) -> Tensor:
    """One-hot levels of rows ``x`` (B, C): (B, T), zero where a cell is missing."""
    out = book.known_snr.new_zeros(len(x), book.levels.n_points + 1)
    return out.scatter_(1, book.level_of(x), 1.0)[:, :-1]


def pair_counts(book: Codebook, x: Tensor) -> Tensor:
    """Number of rows ``x`` (N, C) with each pair of levels: (T, T), float64."""
    n = book.levels.n_points
    counts = torch.zeros(n, n, dtype=torch.float64, device=x.device)
    for rows in x.split(COUNTED):
        ones = indicators(book, rows)
        counts += (ones.T @ ones).double()
    return counts


def pair_counts_of(book: Codebook, parts: Iterable[Tensor]) -> Tensor:
    """The :func:`pair_counts` of all rows of several parts."""
    n, device = book.levels.n_points, book.device
    counts = torch.zeros(n, n, dtype=torch.float64, device=device)
    for x in parts:
        counts += pair_counts(book, x)
    return counts


def sum_levels(t: Tensor, levels: Levels) -> Tensor:
    """Sum the rows of t (T, ...) over the levels of each column: (C, ...)."""
    sums = t.new_zeros(levels.n_columns, *t.shape[1:])
    return add_at(sums, 0, levels.level_column, t)


def sum_pairs(t: Tensor, levels: Levels) -> Tensor:
    """Sum a table for each two columns, (T, T), over the levels of both: (C, C)."""
    return sum_levels(sum_levels(t, levels).T.contiguous(), levels).T


def mutual_information(joint: Tensor, levels: Levels) -> Tensor:
    """Mutual information of every two columns, (C, C) in nats, from a table of probabilities for each two, (T, T).

    The table is symmetric. A column's entropy is that in its table with the other, whose missing cells may depend on
    it.
    """
    margin = sum_levels(joint, levels).T.contiguous()  # of a level, beside another column
    entropy = -sum_levels(torch.special.xlogy(margin, margin), levels)
    return entropy + entropy.T + sum_pairs(torch.special.xlogy(joint, joint), levels)
