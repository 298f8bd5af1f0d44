"""Detection of one-hot groups: binary columns of which hardly any row has more than one "on"."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook

ROWS = 20_000  # at most, in which groups are detected
FEWEST_ROWS = 32  # with fewer, a run of neighbours is not taken for a group
TOLERANCE = 0.01  # share of rows with no column of a group on; share with two on, relative to independent columns
SURPRISE = 10.0  # nats by which a group's surprisal must exceed its price: chance is then exp(-10)
# columns from each of which a group is grown, to take the best; with more, one start
MOST_STARTS = 128


def exclusive_groups(codebook: Codebook, x: Tensor) -> list[tuple[tuple[int, ...], int]]:
    """Groups of binary columns of which hardly any row has more than one "on".

    Parameters
    ----------
    codebook : Codebook
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.

    Returns
    -------
    list of pairs
        The columns of a group, increasing, counted among the low-cardinality ones; and which category is "on".

    Notes
    -----
    "On" is the second of a column's categories; for columns that are in no group then, the first. The search begins
    with runs of neighbouring columns of which exactly one is on in almost every row. Among the other columns, a group
    starts with one column and grows by the column that has the largest surprisal of never being on together with
    the group, if columns were independent. Every column after the second needs a surprisal above the logarithm of the
    number of columns, the price of a choice among them. The first pair is exempt, because in a large group a single
    pair need not be surprising; but the group as a whole must exceed the price of all its columns by
    ``SURPRISE`` nats.
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
    """How often columns are on, and which pairs are never on together, in the rows that have both cells.

    Parameters
    ----------
    cells : Tensor, shape (N, C)
        NaN where missing.
    value : int
        The category that counts as on.

    Attributes
    ----------
    share : Tensor, shape (C,)
        Share of rows with the column on, among those that have the cell.
    never : Tensor of bool, shape (C, C)
        Pairs that are never on together, or in few of the rows with either on and of the rows expected.
    surprise : Tensor, shape (C, C)
        For these, minus the logarithm of the Poisson probability of so few rows if columns were independent, nats.
    """

    def __init__(self, cells: Tensor, value: int) -> None:
        on, there = (cells == value).float(), (~cells.isnan()).float()
        pairs = (on, on), (there, there), (on, there)
        together, both, first = ((a.T @ b).double() for a, b in pairs)
        expected = first * first.T / both.clamp_min(1)
        self.n_rows = len(cells)
        self.share = together.diagonal() / both.diagonal().clamp_min(1)
        few = together <= (TOLERANCE * torch.minimum(first, first.T)).clamp_min(1)
        few &= 4 * together <= expected
        self.never = ((together == 0) | few) & (both > 0)
        self.never.fill_diagonal_(False)
        excess = torch.special.xlogy(together, together / expected.clamp_min(1e-9))
        surprise = expected - together + excess
        self.surprise = torch.where(self.never, surprise, 0.0)


def _runs(seen: _Exclusions, left: Tensor) -> list[list[int]]:
    """Runs of neighbouring columns of which exactly one is on in almost every row."""
    runs: list[list[int]] = []
    if seen.n_rows < FEWEST_ROWS:
        return runs
    share, never = seen.share.tolist(), seen.never
    run: list[int] = []
    covered = 0.0  # share of the rows in which a column of the run is on

    def keep() -> None:
        if len(run) > 1 and covered >= 1 - TOLERANCE:
            needed = [share[j] > 0 and covered - share[j] < 1 - 1e-9 for j in run]
            runs.append(run[needed.index(True) :])

    for j in torch.nonzero(left).flatten().tolist():
        whole = covered >= 1 - TOLERANCE
        full = covered >= 1 - 1e-9 or covered + share[j] > 1 + TOLERANCE / 10
        if whole and (full or not never[j, run].all()):
            keep()
            run, covered = [], 0.0
        while run and not bool(never[j, run].all()):
            covered -= share[run.pop(0)]
        run.append(j)
        covered += share[j]
    keep()
    return runs


def _cliques(seen: _Exclusions, left: Tensor) -> list[list[int]]:
    """Groups of columns of which no two are on together."""
    left = left.clone()
    price = math.log(max(2, int(left.sum())))  # nats of a choice among the columns
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
    """The group grown from one column, and the nats by which its surprisal exceeds its price."""
    group, worth = [start], -price
    gain, may = seen.surprise[start].clone(), left & seen.never[start]
    while bool(may.any()):
        score = gain.masked_fill(~may, -1.0)
        j = int(score.argmax())
        # the first pair is exempt: in a large group it need not be surprising
        if score[j] < price and len(group) > 1:
            break
        group.append(j)
        worth += float(score[j]) - price
        may, gain = may & seen.never[j], gain + seen.surprise[j]
    return worth, group
