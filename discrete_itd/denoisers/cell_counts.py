"""Counts of categories."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook

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
