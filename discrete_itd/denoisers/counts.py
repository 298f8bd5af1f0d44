"""Counts of categories and of pairs of them, and what columns say of one another by these."""

from __future__ import annotations

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.devices import add_at
from discrete_itd.channel.levels import Levels

ROWS = 16384  # counted at once


def indicators(book: Codebook, x: Tensor) -> Tensor:
    """Which levels rows ``x`` (B, C) have: (B, T), none where a cell is missing."""
    cells = x[:, book.finite]
    level = book.levels.index_of(cells.nan_to_num(0.0).long())
    out = book.known_snr.new_zeros(len(x), book.levels.n_points)
    return out.scatter_(1, level, (~cells.isnan()).to(out))


def pair_counts(book: Codebook, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """How often every two levels occur together in rows ``x`` (N, C), of weights (N,): (T, T), float64."""
    n = book.levels.n_points
    counts = torch.zeros(n, n, dtype=torch.float64, device=x.device)
    for i, rows in enumerate(x.split(ROWS)):
        ones = indicators(book, rows)
        w = 1.0 if weight is None else weight[i * ROWS : (i + 1) * ROWS, None].to(ones)
        counts += ((ones * w).T @ ones).double()
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

    The table is symmetric. A column's entropy is that beside the other: where one is missing may depend on the other.
    """
    margin = sum_levels(joint, levels).T.contiguous()  # of a level, beside another column
    entropy = -sum_levels(torch.special.xlogy(margin, margin), levels)
    return entropy + entropy.T + sum_pairs(torch.special.xlogy(joint, joint), levels)
