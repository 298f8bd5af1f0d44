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

from collections.abc import Sequence

import torch
from torch import Tensor

from discrete_itd.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers.base import ExactDenoiser
from discrete_itd.denoisers.counts import indicators
from discrete_itd.denoisers.exact import MarginalDenoiser, rest_log_prob, with_rest
from discrete_itd.posterior import CategoricalPosterior, Posterior
from discrete_itd.slots import KNOWN_NATS, Slots

ROWS = 20_000  # among which columns are looked for that exclude one another
FEWEST_ROWS = (
    32  # of which every one has exactly one column "on", for a run of columns to be a group
)
# columns that are never "on" together, though that often if they were independent: chance is then exp(-10)
EXPECTED = 10.0
MOST_STARTS = 128  # columns from each of which a group is grown, to take the best; of more, one
MOST_SLOTS = 6000  # of a table that is searched, for all pairs of columns are counted
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
        Which slots of the table each slot of the joined table says.
    member : Tensor, shape (C, G)
        Which columns of few categories are in which group.
    rest : Tensor of int64, shape (G,)
        The slot of each joined column for whatever else there may be.

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
        slots, device = codebook.slots, codebook.device
        self.table = codebook
        self.groups = tuple(tuple(map(int, g)) for g in groups)
        self.patterns = tuple(tuple(tuple(map(int, p)) for p in group) for group in patterns)
        among = [j for g in self.groups for j in g]
        if len(set(among)) < len(among) or not all(0 <= j < slots.n_columns for j in among):
            raise ValueError(f"groups must be of different columns, got {self.groups}")
        if len(self.patterns) != len(self.groups):
            raise ValueError("every group needs its patterns")
        sizes = slots.cardinalities
        for group, own in zip(self.groups, self.patterns, strict=True):
            fits = all(
                len(p) == len(group)
                and all(0 <= k < sizes[j] for j, k in zip(group, p, strict=True))
                for p in own
            )
            if not own or not fits or len(set(own)) < len(own):
                raise ValueError(f"the patterns of columns {group} do not fit them: {own}")
        self.others = tuple(j for j in range(slots.n_columns) if j not in set(among))
        columns = [ColumnPoints("simplex", len(own), open=True) for own in self.patterns]
        for j in self.others:
            points = slots.columns[j]
            columns.append(ColumnPoints("simplex", points.n_levels, open=points.open))
        self.codebook = joined = Codebook(columns).to(device, codebook.dtype)

        # which slots of the table make up each slot of the joined one
        here, there = _slot_numbers(slots), _slot_numbers(joined.slots)  # (K, C), (K, C')
        said = torch.zeros(slots.n_slots, joined.slots.n_slots, dtype=codebook.dtype)
        for i, (group, own) in enumerate(zip(self.groups, self.patterns, strict=True)):
            for p, pattern in enumerate(own):
                said[here[list(pattern), list(group)], there[p, i]] = 1.0
        for i, j in enumerate(self.others, len(self.groups)):
            said[here[: sizes[j], j], there[: sizes[j], i]] = 1.0
        member = torch.zeros(slots.n_columns, len(self.groups), dtype=codebook.dtype)
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
            code = torch.full((len(x),), float(len(own)), dtype=x.dtype, device=x.device)
            for p, pattern in enumerate(own):
                code[(cells == torch.tensor(pattern, device=x.device)).all(1)] = p
            out[:, i] = code.masked_fill(cells.isnan().any(1), torch.nan)
        out[:, len(self.groups) :] = x[:, list(self.others)]
        return out

    def marginals(self, marginals: MarginalDenoiser, x: Tensor) -> MarginalDenoiser:
        """Independent columns of the joined table of rows ``x`` (N, C), given those of the table.

        Of columns that are not joined they are the same.
        """
        counted = MarginalDenoiser.fit(self.codebook, self.encode(x)).log_probs.exp()
        same = self.codebook.slots.slot_column >= len(self.groups)
        probs = torch.where(same, marginals.log_probs.exp() @ self.said, counted)
        return MarginalDenoiser(self.codebook, probs)

    @classmethod
    def found(cls, codebook: Codebook, x: Tensor) -> Joining | None:
        """The joining of columns of rows ``x`` (N, C) that exclude one another; None if there are none."""
        if codebook.slots.n_slots > MOST_SLOTS:
            return None
        found = {}
        for group in exclusive_groups(codebook, x):
            cells = x[:, codebook.finite[list(group)]]
            seen = cells[~cells.isnan().any(1)].long().unique(dim=0)
            if len(patterns := seen[seen.sum(1) <= 1].tolist()):
                found[group] = patterns
        return cls(codebook, [*found], [*found.values()]) if found else None


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
        book, slots = self.codebook, self.codebook.slots
        evidence = slots.evidence(y[:, : slots.n_coords], snr[:, book.finite])
        _, logits = self.infer(evidence)
        return with_rest(book, CategoricalPosterior(slots, logits), self.rest, y, snr)

    def infer(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        slots = self.codebook.slots
        ell = slots.log_softmax(evidence)  # what is known has 0
        log_mass, logits = self.inner.infer(self._joined(ell))
        q = self.joining.codebook.slots.log_softmax(logits).exp()
        alone = slots.log_softmax(self.rest.log_probs + ell).exp()
        q = q @ self._said.T + slots.per_slot(q[:, self._rest] @ self._member.T) * alone
        log_mass = log_mass + slots.logsumexp(evidence).sum(1)
        return log_mass, q.clamp_min(torch.finfo(q.dtype).tiny).log()

    def _joined(self, evidence: Tensor) -> Tensor:
        """Evidence about the joined table: (B, T) to (B, T')."""
        told = evidence @ self._said
        told[:, self._rest] = (
            self.codebook.slots.logsumexp(self.rest.log_probs + evidence) @ self._member
        )
        return told

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats."""
        book = self.codebook
        may_be = indicators(book, x) + book.slots.per_slot(x[:, book.finite].isnan().to(book.dtype))
        log_mass, _ = self.inner.infer(self._joined(NOWHERE * (1 - may_be)))
        return log_mass + rest_log_prob(self.rest, x, book.finite)


def exclusive_groups(codebook: Codebook, x: Tensor) -> list[tuple[int, ...]]:
    """Groups of columns of two categories, of which in every row at most one has the second: "on".

    Parameters
    ----------
    codebook : Codebook
    x : Tensor of float64, shape (N, C)
        Rows; NaN where a cell is missing.

    Returns
    -------
    list of tuples of int
        Columns counted among those of few categories, increasing.

    Notes
    -----
    First, runs of neighbours of which every row has exactly one "on". Then, among the other columns, groups that
    grow by the column whose never being "on" together with the group is the greatest surprise.
    """
    two = torch.tensor([c.n_levels == 2 for c in codebook.slots.columns], dtype=torch.bool)
    columns = torch.nonzero(two).flatten()
    if len(columns) < 2:
        return []
    cells = x[:ROWS, codebook.finite.to(x.device)[columns.to(x.device)]].cpu()
    groups = _runs(cells[~cells.isnan().any(1)] == 1)
    left = torch.ones(len(columns), dtype=torch.bool)
    for group in groups:
        left[group] = False
    on = (cells == 1).to(torch.float32)
    together = (on.T @ on).double()
    count = together.diagonal()
    there = (~cells.isnan()).sum(0).clamp_min(1)
    expected = count[:, None] * count / there.double().clamp_min(1)
    never = (
        (together == 0)
        & (count > 0)
        & (count[:, None] > 0)
        & ~torch.eye(len(count), dtype=torch.bool)
    )
    groups += _cliques(never, expected, left)
    return [tuple(sorted(columns[group].tolist())) for group in groups]


def _runs(on: Tensor) -> list[list[int]]:
    """Neighbouring columns of which every row has exactly one: ``on`` (N, C) of bool."""
    runs: list[list[int]] = []
    first, n = 0, on.shape[1]
    while len(on) >= FEWEST_ROWS and first < n - 1:
        covered = on[:, first]
        for last in range(first + 1, n):
            if bool((covered & on[:, last]).any()) or bool(covered.all()):
                break
            covered = covered | on[:, last]
            if bool(covered.all()):
                runs.append(list(range(first, last + 1)))
                first = last
                break
        first += 1
    return runs


def _cliques(never: Tensor, expected: Tensor, left: Tensor) -> list[list[int]]:
    """Groups of columns of which no two occur together (``never``), though ``expected`` says how often they would."""
    surprise = torch.where(never, expected, 0.0)
    left = left.clone()
    groups = []
    while bool(left.any()):
        total = (surprise * left).sum(1).masked_fill(~left, 0.0)
        starts = torch.nonzero(total > EXPECTED).flatten()
        if len(starts) > MOST_STARTS:
            starts = total.argmax()[None]
        grown = [_clique(start, never, surprise, left) for start in starts.tolist()]
        if not grown or len(best := max(grown, key=lambda g: float(surprise[g][:, g].sum()))) < 2:
            break
        groups.append(best)
        left[best] = False
    return groups


def _clique(start: int, never: Tensor, surprise: Tensor, left: Tensor) -> list[int]:
    """The group that is grown from one column."""
    group, gain, may = [start], surprise[start].clone(), left & never[start]
    while bool(may.any()):
        score = gain.masked_fill(~may, 0.0)
        j = int(score.argmax())
        if score[j] < EXPECTED:
            break
        group.append(j)
        may, gain = may & never[j], gain + surprise[j]
    return group


def _slot_numbers(slots: Slots) -> Tensor:
    """The slot of every category of every column: (K, C), on the CPU; beyond a column's last, of no meaning."""
    codes = torch.arange(slots.widest, device=slots.known_snr.device)[:, None]
    return slots.slot_of(codes.expand(-1, slots.n_columns)).cpu()
