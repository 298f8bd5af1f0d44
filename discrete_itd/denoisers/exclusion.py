"""Detection of one-hot groups: binary columns of which hardly any row has more than one "on"."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook

ROWS = 20_000  # among which columns are looked for that exclude one another
FEWEST_ROWS = (
    32  # of which about every one has exactly one column "on", for a run of columns to be a group
)
TOLERANCE = 0.01  # share of rows that may have none or, relative to independent columns, two
SURPRISE = 10.0  # that a group must be worth: chance is then exp(-10)
MOST_STARTS = 128  # columns from each of which a group is grown, to take the best; of more, one


def exclusive_groups(codebook: Codebook, x: Tensor) -> list[tuple[tuple[int, ...], int]]:
    """Groups of columns of two categories, of which hardly a row has more than one "on".

    Parameters
    ----------
    codebook : Codebook
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.

    Returns
    -------
    list of pairs
        Columns, counted among those of few categories and increasing, and which category is on.

    Notes
    -----
    "On" is the second of a column's categories, and for columns that are in no group so, the first. First, runs of
    neighbours that are on in all rows but for a few. Then, among the other columns, groups that grow by the column
    whose never being on together with the group is the greatest surprise if columns were independent; each
    column of a group has to be worth having been sought among all.
    """
    two = torch.tensor([c.n_levels == 2 for c in codebook.levels.columns], dtype=torch.bool)
    columns = torch.nonzero(two).flatten()
    cells = x[:ROWS, codebook.finite[columns.to(x.device)]].cpu()
    groups: list[tuple[tuple[int, ...], int]] = []
    left = torch.ones(len(columns), dtype=torch.bool)
    for value in (1, 0):
        if int(left.sum()) < 2:
            break
        seen = _Exclusions(cells, value)
        for search in (_runs, _cliques):
            for group in search(seen, left):
                left[group] = False
                groups.append((tuple(sorted(columns[group].tolist())), value))
    return groups


class _Exclusions:
    """How often columns are on, and which of them not together; of each pair the rows that have both.

    Parameters
    ----------
    cells : Tensor, shape (N, C)
        NaN where missing.
    value : int
        That which counts as on.

    Attributes
    ----------
    share : Tensor, shape (C,)
        Of the rows that have the cell.
    never : Tensor of bool, shape (C, C)
        Pairs that are on together never, or in few of the rows where either is and few of those expected.
    surprise : Tensor, shape (C, C)
        For these, minus the logarithm of the probability that independent columns were so seldom, by Poisson's law.
    """

    def __init__(self, cells: Tensor, value: int) -> None:
        on, there = (cells == value).float(), (~cells.isnan()).float()
        together, both, first = (
            (on.T @ on).double(),
            (there.T @ there).double(),
            (on.T @ there).double(),
        )
        expected = first * first.T / both.clamp_min(1)
        self.n_rows = len(cells)
        self.share = together.diagonal() / both.diagonal().clamp_min(1)
        few = together <= (TOLERANCE * torch.minimum(first, first.T)).clamp_min(1)
        few &= 4 * together <= expected
        self.never = ((together == 0) | few) & (both > 0)
        self.never.fill_diagonal_(False)
        surprise = (
            expected - together + torch.special.xlogy(together, together / expected.clamp_min(1e-9))
        )
        self.surprise = torch.where(self.never, surprise, 0.0)


def _runs(seen: _Exclusions, left: Tensor) -> list[list[int]]:
    """Neighbouring columns of which about every row has exactly one."""
    runs: list[list[int]] = []
    if seen.n_rows < FEWEST_ROWS:
        return runs
    share, never = seen.share.tolist(), seen.never
    run: list[int] = []
    covered = 0.0  # share of the rows in which one of the run is on

    def keep() -> None:
        if len(run) > 1 and covered >= 1 - TOLERANCE:
            first = next(
                i for i, j in enumerate(run) if share[j] > 0 and covered - share[j] < 1 - 1e-9
            )
            runs.append(run[first:])

    for j in torch.nonzero(left).flatten().tolist():
        whole = covered >= 1 - TOLERANCE
        if whole and (
            covered >= 1 - 1e-9
            or covered + share[j] > 1 + TOLERANCE / 10
            or not never[j, run].all()
        ):
            keep()
            run, covered = [], 0.0
        # a run with its beginning is on in more rows than without
        while run and not bool(never[j, run].all()):
            covered -= share[run.pop(0)]
        run.append(j)
        covered += share[j]
    keep()
    return runs


def _cliques(seen: _Exclusions, left: Tensor) -> list[list[int]]:
    """Groups of columns of which no two are on together."""
    left = left.clone()
    price = math.log(max(2, int(left.sum())))  # of a choice among so many
    groups = []
    while bool(left.any()):
        total = (seen.surprise * left).sum(1).masked_fill(~left, 0.0)
        starts = torch.nonzero(total > SURPRISE).flatten()
        if len(starts) > MOST_STARTS:
            starts = total.argmax()[None]
        grown = [_clique(start, seen, left, price) for start in starts.tolist()]
        worth, best = max(grown, default=(0.0, []))
        if worth < SURPRISE:
            break
        groups.append(best)
        left[best] = False
    return groups


def _clique(start: int, seen: _Exclusions, left: Tensor, price: float) -> tuple[float, list[int]]:
    """The group that is grown from one column, and by how much its surprise exceeds its price."""
    group, worth = [start], -price
    gain, may = seen.surprise[start].clone(), left & seen.never[start]
    while bool(may.any()):
        score = gain.masked_fill(~may, -1.0)
        j = int(score.argmax())
        # the first pair may be any, of a large group it need not be surprising
        if score[j] < price and len(group) > 1:
            break
        group.append(j)
        worth += float(score[j]) - price
        may, gain = may & seen.never[j], gain + seen.surprise[j]
    return worth, group
