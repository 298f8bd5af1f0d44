r"""Columns that exclude one another, joined into one: an exact denoiser of the table from one of the joined table.

A categorical column is often kept as one column of two values for each category, of which one is "on". Models whose
columns are independent but for a hidden class or a parent cannot say so, and are hopeless at it; of the table in which
such a group of columns is one column, whose categories are the group's patterns, they are good ones.

Evidence (2) carries over: that of a pattern is the sum of its cells'. One more category of the joined column stands for
whatever else there may be: given it, the cells of the group are independent. With q' the posterior of the joined
column,

.. math:: q_{jk} = \sum_{p:\, p_j = k} q'_p + q'_{other}\, m_{jk} e^{\ell_{jk}} \big/ \sum_l m_{jl} e^{\ell_{jl}},

for a marginal probability m. This is exact, and a normalised mass over all rows of the table.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.channel.levels import KNOWN_NATS, Levels
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import ExactDenoiser, row_product
from discrete_itd.denoisers.counts import indicators
from discrete_itd.denoisers.marginal import MarginalDenoiser, rest_log_prob, with_rest

ROWS = 20_000  # among which columns are looked for that exclude one another
FEWEST_ROWS = (
    32  # of which about every one has exactly one column "on", for a run of columns to be a group
)
TOLERANCE = 0.01  # share of rows that may have none or, relative to independent columns, two
SURPRISE = 10.0  # that a group must be worth: chance is then exp(-10)
MOST_STARTS = 128  # columns from each of which a group is grown, to take the best; of more, one
MOST_LEVELS = 6000  # of a table, before and after: numbers of a matrix have its square
NOWHERE = -4 * KNOWN_NATS  # evidence of a category that a cell does not have


class Joining:
    """Which columns of a table are joined, and the table that this makes.

    Parameters
    ----------
    codebook : Codebook
        Of the table.
    groups : sequence of sequences of int
        Columns that are joined, counted among those of few categories; no column twice.
    patterns : sequence of sequences of sequences of int
        For each group the patterns that are categories of the joined column: a code for each of the group's columns.

    Attributes
    ----------
    codebook : Codebook
        Of the joined table: the joined columns, then the other columns of few categories.
    said : Tensor, shape (T, T')
        Which levels of the table each level of the joined table says.
    member : Tensor, shape (C, G)
        Which columns of few categories are in which group.
    rest : Tensor of int64, shape (G,)
        The level of each joined column for whatever else there may be.

    Raises
    ------
    ValueError
        If groups overlap or patterns do not fit them.
    """

    def __init__(
        self,
        codebook: Codebook,
        groups: Sequence[Sequence[int]],
        patterns: Sequence[Sequence[Sequence[int]]],
    ) -> None:
        levels, device = codebook.levels, codebook.device
        self.table = codebook
        index = operator.index
        self.groups = tuple(tuple(map(index, g)) for g in groups)
        self.patterns = tuple(tuple(tuple(map(index, p)) for p in group) for group in patterns)
        among = [j for g in self.groups for j in g]
        if len(set(among)) < len(among) or not all(0 <= j < levels.n_columns for j in among):
            raise ValueError(f"groups must be of different columns, got {self.groups}")
        if len(self.patterns) != len(self.groups):
            raise ValueError("every group needs its patterns")
        sizes = levels.cardinalities
        for group, own in zip(self.groups, self.patterns, strict=True):
            fits = all(
                len(p) == len(group)
                and all(0 <= k < sizes[j] for j, k in zip(group, p, strict=True))
                for p in own
            )
            if not own or not fits or len(set(own)) < len(own):
                raise ValueError(f"the patterns of columns {group} do not fit them: {own}")
        self.others = tuple(j for j in range(levels.n_columns) if j not in set(among))
        columns = [ColumnPoints("simplex", len(own), open=True) for own in self.patterns]
        for j in self.others:
            points = levels.columns[j]
            columns.append(ColumnPoints("simplex", points.n_levels, open=points.open))
        self.codebook = joined = Codebook(columns).to(device, codebook.dtype)

        if max(levels.n_points, joined.levels.n_points) > MOST_LEVELS:
            raise ValueError(f"a joined table has at most {MOST_LEVELS} categories")
        # which levels of the table make up each level of the joined one
        here, there = _level_numbers(levels), _level_numbers(joined.levels)  # (K, C), (K, C')
        said = torch.zeros(levels.n_points, joined.levels.n_points, dtype=codebook.dtype)
        for i, (group, own) in enumerate(zip(self.groups, self.patterns, strict=True)):
            for p, pattern in enumerate(own):
                said[here[list(pattern), list(group)], there[p, i]] = 1.0
        for i, j in enumerate(self.others, len(self.groups)):
            said[here[: sizes[j], j], there[: sizes[j], i]] = 1.0
        member = torch.zeros(levels.n_columns, len(self.groups), dtype=codebook.dtype)
        for i, group in enumerate(self.groups):
            member[list(group), i] = 1.0
        rest = [int(there[len(own), i]) for i, own in enumerate(self.patterns)]
        self.said, self.member = said.to(device), member.to(device)
        self.rest = torch.tensor(rest, dtype=torch.int64, device=device)

    def encode(self, x: Tensor) -> Tensor:
        """Rows (N, C) as rows of the joined table (N, C'); NaN where a cell of a group is missing."""
        x = x[:, self.table.finite]
        out = x.new_empty(len(x), self.codebook.n_columns)
        for i, (group, own) in enumerate(zip(self.groups, self.patterns, strict=True)):
            cells = x[:, list(group)]
            out[:, i] = _which(cells.nan_to_num(0.0).long(), torch.tensor(own, device=x.device)).to(
                x
            )
            out[cells.isnan().any(1), i] = torch.nan
        out[:, len(self.groups) :] = x[:, list(self.others)]
        return out

    def marginals(self, marginals: MarginalDenoiser, x: Tensor) -> MarginalDenoiser:
        """Independent columns of rows ``x`` (N, C') of the joined table, given those of the table.

        Of columns that are not joined they are the same.
        """
        counted = MarginalDenoiser.fit(self.codebook, x).log_probs.exp()
        same = self.codebook.levels.level_column >= len(self.groups)
        probs = torch.where(same, marginals.log_probs.exp() @ self.said, counted)
        return MarginalDenoiser(self.codebook, probs)

    @classmethod
    def found(cls, codebook: Codebook, x: Tensor) -> Joining | None:
        """The joining of columns of rows ``x`` (N, C) that exclude one another; None if there are none."""
        if codebook.levels.n_points > MOST_LEVELS:
            return None
        groups, patterns = [], []
        for group, on in exclusive_groups(codebook, x):
            off = [1 - on] * len(group)
            ways = [[*off[:i], on, *off[i + 1 :]] for i in range(len(group))]
            cells = x[:, codebook.finite[list(group)]]
            if bool((cells == 1 - on).all(1).any()):
                ways.append(off)
            groups.append(group)
            patterns.append(ways)
        return cls(codebook, groups, patterns) if groups else None


class JoinedDenoiser(ExactDenoiser):
    """Exact for a table some of whose columns are joined, given an exact denoiser of the joined table.

    Parameters
    ----------
    joining : Joining
    inner : ExactDenoiser
        Of the codebook of the joined table.
    rest : MarginalDenoiser
        Independent columns of the table: for patterns that are no categories of a joined column, and for
        continuous columns and large vocabularies.
    """

    _said: Tensor
    _member: Tensor
    _rest: Tensor

    def __init__(self, joining: Joining, inner: ExactDenoiser, rest: MarginalDenoiser) -> None:
        super().__init__(rest.codebook)
        if inner.codebook.columns != joining.codebook.columns:
            raise ValueError("the inner denoiser must be of the joined table")
        self.joining, self.inner, self.rest = joining, inner, rest
        for name in ("said", "member", "rest"):
            self.register_buffer(f"_{name}", getattr(joining, name), persistent=False)

    @property
    def work(self) -> int:
        """Operations of a call for a row, as the inner denoiser counts them; 0 if it does not."""
        return getattr(self.inner, "work", 0)

    def blurred(self, sd: float) -> JoinedDenoiser:
        return JoinedDenoiser(self.joining, self.inner, self.rest.blurred(sd))

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        book, levels = self.codebook, self.codebook.levels
        evidence = levels.evidence(y[:, : levels.n_coords], snr[:, book.finite])
        _, logits = self.infer(evidence)
        return with_rest(book, CategoricalPosterior(levels, logits), self.rest, y, snr)

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.codebook.levels
        ell = levels.log_softmax(evidence)  # what is known has 0
        log_mass, logits = self.inner.infer(self._joined(ell))
        q = self.joining.codebook.levels.log_softmax(logits).exp()
        alone = levels.log_softmax(self.rest.log_probs + ell).exp()
        own = row_product(q[:, self._rest], self._member.T)
        q = row_product(q, self._said.T) + levels.per_level(own) * alone
        log_mass = log_mass + levels.logsumexp(evidence).sum(1)
        return log_mass, q.clamp_min(torch.finfo(q.dtype).tiny).log()

    def _joined(self, evidence: Tensor) -> Tensor:
        """Evidence about the joined table: (B, T) to (B, T')."""
        told = row_product(evidence, self._said)
        own = self.codebook.levels.logsumexp(self.rest.log_probs + evidence)
        told[:, self._rest] = row_product(own, self._member)
        return told

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        book = self.codebook
        may_be = indicators(book, x) + book.levels.per_level(
            x[:, book.finite].isnan().to(book.dtype)
        )
        log_mass, _ = self.inner.infer(self._joined(NOWHERE * (1 - may_be)))
        return log_mass + rest_log_prob(self.rest, x, book.finite)


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


def _which(cells: Tensor, patterns: Tensor) -> Tensor:
    """The number of the pattern (P, K) that each row of ``cells`` (N, K) is, or P: (N,)."""
    n = cells.shape[1]
    weight = torch.randint(2**62, (n,), generator=torch.Generator().manual_seed(n)).to(cells)
    keys, key = (patterns * weight).sum(1), (cells * weight).sum(1)  # integers, which wrap around
    order = keys.argsort()
    at = order[torch.searchsorted(keys[order], key).clamp_max(len(patterns) - 1)]
    return torch.where((patterns[at] == cells).all(1), at, len(patterns))


def _level_numbers(levels: Levels) -> Tensor:
    """The level of every category of every column: (K, C), on the CPU; beyond a column's last, of no meaning."""
    codes = torch.arange(levels.widest, device=levels.known_snr.device)[:, None]
    return levels.index_of(codes.expand(-1, levels.n_columns)).cpu()
