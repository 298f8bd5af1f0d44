"""Averages of rows as the centres of a kernel density, so that none of its centres tells a single row of the table.

Each centre is the average, cell by cell, of a few records that lie near one another (microaggregation); cells by which
it would still be that of fewer records are left out of it (suppression). A kernel density of averages has a centre for
every few rows, costs as much less to ask, and ranks rows nearly as that of the rows themselves does
(``tests/benchmarks/RESULTS.md``, "What was tried on the score").

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
def averages(kernels: Kernels, size: int, records: Tensor | None = None) -> Tensor:
    """The average of every ``size`` records that lie near one another.

    Parameters
    ----------
    kernels : Kernels
        Around the rows to be averaged, which measure how near they lie.
    size : int
        At least 2. Up to ``size - 1`` records that are left, and their copies, are in no average.
    records : Tensor of int64, shape (n,), optional
        A number for each row, the same for copies of one record; by default each is one of its own.

    Returns
    -------
    Tensor of float64, shape (g, C)
        Means of continuous columns, medians of ordinal columns, and categories that most of the rows have, all of the
        rows that have the cell; NaN where at least half of them miss it, or no category is that of most. In the cells
        that are left, a centre is equal to no row or to those of at least ``size`` records. One centre without cells
        if there are fewer records than ``size``.
    """
    cells, n = kernels.centres.cells, len(kernels.centres)
    records = torch.arange(n) if records is None else records.cpu()
    members = neighbours(kernels, size, records).to(cells.device)
    if not len(members):
        return cells.new_full((1, cells.shape[1]), math.nan)
    of_groups = cells[members]  # (g, size, C)
    present = (~of_groups.isnan()).sum(1)
    out = of_groups.nanmean(1)
    for j, column in enumerate(kernels.base.codebook.columns):
        own = of_groups[:, :, j]
        if column.kind == "line":
            out[:, j] = own.nanmedian(1).values
        elif column.kind != "real":
            votes, at = (own[:, :, None] == own[:, None, :]).sum(2).max(1)
            most = own.gather(1, at[:, None])[:, 0]
            out[:, j] = most.masked_fill(2 * votes <= present[:, j], math.nan)
    out = out.masked_fill(2 * present <= size, math.nan)
    return suppressed(kernels, out, size, records)


def neighbours(kernels: Kernels, size: int, records: Tensor) -> Tensor:
    """Groups of rows of different records that lie near one another, each row in one at most: int64, (g, size).

    From the row that is the least probable in independent columns, and then from the next one that has no group yet,
    the nearest rows without a group are sought.
    """
    cells, n = kernels.centres.cells, len(kernels.centres)
    alone = kernels.marginals.expand(n).log_prob(cells).double().sum(1)
    order = torch.argsort(alone, stable=True).cpu()
    _, record, copies = torch.unique(records, return_inverse=True, return_counts=True)
    unique = bool((copies == 1).all())
    free, groups, at = torch.ones(n, dtype=torch.bool), [], 0
    while at < n:
        upcoming = order[at:][free[order[at:]]][:SEEDS_AT_ONCE]
        if not len(upcoming):
            break
        near = kernels.log_kernels(cells[upcoming.to(cells.device)]).double().cpu()
        for seed, row in zip(upcoming.tolist(), near, strict=True):
            if not free[seed]:
                continue
            row.masked_fill_(~free, -math.inf)
            group = [seed]
            for _ in range(size - 1):
                row[group[-1]] = -math.inf
                if not unique:
                    row[record == record[group[-1]]] = -math.inf
                group.append(int(row.argmax()))
            if row[group[-1]] == -math.inf:  # too few records are left
                continue
            free[group] = False
            groups.append(group)
        at = int((order == upcoming[-1]).nonzero()[0, 0]) + 1
    return torch.tensor(groups, dtype=torch.int64).reshape(-1, size)


def suppressed(kernels: Kernels, centres: Tensor, size: int, records: Tensor) -> Tensor:
    """Centres (g, C) without the least probable cells by which one is equal to rows of fewer than ``size`` records."""
    out = centres.clone()
    pending = torch.arange(len(out), device=out.device)
    for _ in range(out.shape[1]):
        n_equal = n_records(out[pending], kernels.centres.cells, records).to(out.device)
        pending = pending[(n_equal > 0) & (n_equal < size)]
        if not len(pending):
            break
        some = out[pending]
        nats = -kernels.marginals.expand(len(some)).log_prob(some).double()
        rarest = nats.masked_fill(some.isnan(), -math.inf).argmax(1)
        out[pending, rarest] = math.nan
    return out


def n_records(centres: Tensor, cells: Tensor, records: Tensor) -> Tensor:
    """Of how many records the rows ``cells`` (n, C) equal each centre (g, C) in all cells that it has: int64, (g,)."""
    # columns of many values first: they leave the fewest pairs to compare
    order = sorted(range(cells.shape[1]), key=lambda j: -len(cells[:, j].unique()))
    counts = []
    for some in centres.split(SEEDS_AT_ONCE):
        at = torch.ones(len(some), len(cells), dtype=torch.bool, device=cells.device)
        pairs = None
        for j in order:
            if pairs is None:
                at &= (some[:, j, None] == cells[None, :, j]) | some[:, j, None].isnan()
                if 4 * int(at.sum()) < at.numel():
                    pairs = at.nonzero()
            else:
                own = some[pairs[:, 0], j]
                pairs = pairs[(own == cells[pairs[:, 1], j]) | own.isnan()]
        pairs = (at.nonzero() if pairs is None else pairs).cpu()
        different = torch.stack([pairs[:, 0], records[pairs[:, 1]]], 1).unique(dim=0)
        counts.append(torch.bincount(different[:, 0], minlength=len(some)))
    return torch.cat(counts)
