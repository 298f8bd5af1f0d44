"""Averages of rows as the centres of a kernel density, so that it holds no row of the table.

Each centre is the average, cell by cell, of a few rows that lie near one another (microaggregation). A kernel density
of them has a centre for every few rows, costs as much less to ask, and ranks rows nearly as that of the rows themselves
does (``tests/benchmarks/RESULTS.md``, "Sixty tables of OddBench").

References
----------
Domingo-Ferrer, Mateo-Sanz, "Practical data-oriented microaggregation for statistical disclosure control", IEEE
Transactions on Knowledge and Data Engineering 14, 2002.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.denoisers.kernel_products import Kernels

SEEDS_AT_ONCE = 128  # rows whose kernels at all others are computed together


@torch.no_grad()
def averages(kernels: Kernels, size: int) -> Tensor:
    """The average of every ``size`` rows that lie near one another.

    Parameters
    ----------
    kernels : Kernels
        Around the rows to be averaged, which measure how near they lie.
    size : int
        At least 2; of the last rows up to ``2 * size - 1`` are averaged, and of fewer rows than that all.

    Returns
    -------
    Tensor of float64, shape (g, C)
        Means of continuous columns, medians of ordinal columns, most frequent categories; NaN where at least half of
        the rows miss the cell. A category is that of the row from which the others were sought if none is more
        frequent. A row that many rows equal may be their average.
    """
    cells = kernels.centres.cells
    members = neighbours(kernels, size).to(cells.device)
    missing = cells.new_full((1, cells.shape[1]), math.nan)
    # the last place stands for no row
    of_groups = torch.cat([cells, missing])[members]  # (g, 2 size - 1, C)
    present = (~of_groups.isnan()).sum(1)
    out = of_groups.nanmean(1)
    for j, column in enumerate(kernels.base.codebook.columns):
        if column.kind == "line":
            out[:, j] = of_groups[:, :, j].nanmedian(1).values
        elif column.kind != "real":
            own = of_groups[:, :, j]
            votes = (own[:, :, None] == own[:, None, :]).sum(2)
            out[:, j] = own.gather(1, votes.argmax(1, keepdim=True))[:, 0]
    n_rows = (members < len(cells)).sum(1, keepdim=True)
    return out.masked_fill(2 * present <= n_rows, math.nan)


def neighbours(kernels: Kernels, size: int) -> Tensor:
    """Groups of rows that lie near one another, each row in one: int64, (g, 2 size - 1).

    From the row that is the least probable in independent columns, and then from the next one that has no group yet,
    the nearest rows without a group are sought. The number of rows fills the places that a group has too many.
    """
    cells, n = kernels.centres.cells, len(kernels.centres)
    alone = kernels.marginals.expand(n).log_prob(cells).double().sum(1)
    order = torch.argsort(alone, stable=True).cpu()
    free = torch.ones(n, dtype=torch.bool)
    groups, at, left = [], 0, n
    while left >= 2 * size:
        upcoming = order[at:][free[order[at:]]][:SEEDS_AT_ONCE]
        near = kernels.log_kernels(cells[upcoming.to(cells.device)]).double().cpu()
        for seed, row in zip(upcoming.tolist(), near, strict=True):
            if not free[seed]:
                continue
            if left < 2 * size:
                break
            row.masked_fill_(~free, -math.inf)
            row[seed] = math.inf
            group = row.topk(size).indices
            free[group] = False
            groups.append(group)
            left -= size
        at = int((order == upcoming[-1]).nonzero()[0, 0]) + 1
    groups.append(torch.nonzero(free).flatten())
    out = torch.full((len(groups), 2 * size - 1), n)
    for i, group in enumerate(groups):
        out[i, : len(group)] = group
    return out
