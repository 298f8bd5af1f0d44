"""Counts of categories."""

from __future__ import annotations

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook

COUNTED = 16384  # rows that are counted at once


def level_counts(book: Codebook, x: Tensor) -> Tensor:
    """Cells of each level in rows ``x`` (N, C): float64, (T,), on the CPU."""
    codes = x.cpu()[:, book.finite.cpu()]
    level = book.levels.index_of(codes.nan_to_num(0.0).long().to(book.device)).cpu()
    return torch.bincount(level[~codes.isnan()], minlength=book.levels.n_points).double()


def indicators(book: Codebook, x: Tensor) -> Tensor:
    """One-hot levels of rows ``x`` (B, C): (B, T), zero where a cell is missing."""
    out = book.known_snr.new_zeros(len(x), book.levels.n_points + 1)
    return out.scatter_(1, book.level_of(x), 1.0)[:, :-1]
