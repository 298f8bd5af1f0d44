r"""Conditional distributions under a model that scores complete rows and has no other closed form.

A causal network, or a mixture of rows with one, cannot be marginalised in closed form. Its conditional distributions
follow from its scores all the same. Of one unknown cell by enumeration,

.. math:: P(x_j = v \mid x_{-j}) = P(v, x_{-j}) \Big/ \sum_u P(u, x_{-j}),    (13)

with an exact model Q of the same table for what several unknown cells are. The probability of the known cells of such a
row is estimated by importance sampling, with draws :math:`a \sim Q(a \mid b)` of the unknown ones,

.. math:: P(b) = E\Big[\frac{P(a, b)}{Q(a \mid b)}\Big],

unbiased, and exact where Q = P. Few values of levels are summed out exactly; of many, those drawn are summed, and only
the rest of Q's mass, which is known, is estimated.

References
----------
Owen, "Monte Carlo theory, methods and examples", 2013, chapter 9, for importance sampling with a share of draws from a
defensive distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import State
from discrete_itd.channel.gaussian import FARTHEST, chosen, log_linear
from discrete_itd.channel.noise import draw_salt, row_hashes
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
)
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.base import SCORED_AT_ONCE, Completing, Denoiser, filled, in_blocks
from discrete_itd.denoisers.following import FollowingDenoiser
from discrete_itd.denoisers.row_mixture import RowMixtureDenoiser
from discrete_itd.likelihood.path import Estimate, combine, equal_rows

SALT = 0x13  # seed of the draws: a row has the same ones in every call
COMPLETIONS = (
    16  # draws of the unknown cells in the score of a row; 4 left intervals of numbers at 90 %
)
SUMMED = (
    64  # unknown levels of a row are summed out exactly if they have at most this many joint values
)
# factor of the standard errors in :meth:`Completions.combine`; of 1, 2 and 3, the least that covered 93 % in rows of
# mushroom and adult with two and three gaps
UNMET = 2.0
ENUMERATED_LEVELS = 512  # all categories of a column are scored up to this many
# outer nodes of a number's density, at encoded values of either sign
FAR_NODES = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
PEAKS, ENCLOSED = 4, 8  # numbers whose neighbours are scored, and are nodes of a density
# New nodes in an interval that is divided: a number with a ratio of its own is soon enclosed.
SPLIT_AT = (1 / 8, 1 / 2, 7 / 8)
# A guide's density is at least exp(-FAR_NATS - abs(x)): its ratio to the scorer's is bounded where few points are.
FAR_NATS = 10.0
KEPT_COMPLETIONS = 1 << 15  # completed rows that are kept together
# Completions of equal weight that those of a drawn row must be worth, or there are more. In shoppers with 20, 50 and 70
# % of cells missing, the median of a cell's draws among 32 is at its quantile 50 ± .8, 1.3 and 1.6 %, ± 5 % with
# the proposal's draws (absolute error, mean over cells).
LEAST_EVEN = 4
NODES_AT_ONCE = 128  # nodes of a number for which the parts of its cells fit in a processor's cache


class Nodes(NamedTuple):
    """Resolution at which a cell's distribution is enumerated: nodes of a density, or levels.

    Each guide has ``dense`` points. The scorer is asked at ``guided`` of these, repeated ones first, at ``marginal``
    quantiles of the column's marginal and at ``far`` values on both sides; then, in each of ``stages`` refinements, at
    three nodes within each of ``split`` intervals. Its ratio to a guide is interpolated to the other points. Of a
    category the ``levels`` that are most probable under the guides, and the observed one.
    """

    dense: int
    guided: int
    marginal: int
    stages: int
    split: int
    far: tuple[float, ...] = FAR_NODES
    levels: int = ENUMERATED_LEVELS


FINE = Nodes(64, 32, 8, 4, 6)
SHORTLIST = Nodes(32, 10, 3, 1, 2, (3.0, 12.0), 16)  # some 24 scores a number, for reasons


class Enumerated(NamedTuple):
    """log P(v, the rest) of values v of cells in ``rows`` and ``columns``, (n,) each: ``log_joint`` (n, V), nats.

    The values are the ``nodes`` (n, V), or in the end all levels of one column, or the pieces of a ``density``.
    """

    rows: Tensor
    columns: Tensor
    nodes: Tensor
    log_joint: Tensor
    density: GaussianPosterior | None = None

    @property
    def distribution(self) -> tuple[Tensor, Tensor, Tensor | GaussianPosterior]:
        """Rows, columns and the normalised distribution of the cells, for :meth:`Posterior.with_cells`."""
        return self.rows, self.columns, self.density or torch.log_softmax(self.log_joint, 1)


class Beside(NamedTuple):
    """Log-probabilities (B, C) of rows without one cell each under an exact model, and the cells' posterior.

    The columns ``left_out`` are no part of these rows.
    """

    log_p: Tensor
    posterior: Posterior
    left_out: Tensor


class Completions(NamedTuple):
    """Values of the cells of rows that are summed out.

    ``x`` (n, M, C) are M completions of each row and ``log_q`` (n, M) their log-probabilities given its known cells;
    of levels, ``is_first`` (n, M) says which of them equal no earlier one of the row.
    """

    x: Tensor
    log_q: Tensor
    is_first: Tensor | None

    def scored(self, score: Callable[..., Tensor], *more: Tensor) -> Tensor:
        """The ``score`` (N, K) of completions (N, C) of each different one: (n, M, K), 0 for the others.

        It also takes what is the same for all completions of a row, ``more`` (n, ...).
        """
        shape = self.log_q.shape
        each = [self.x, *(t[:, None].expand(*shape, *t.shape[1:]) for t in more)]
        if self.is_first is None:
            return score(*(t.flatten(0, 1) for t in each)).unflatten(0, shape)
        of_first = score(*(t[self.is_first] for t in each))
        out = of_first.new_zeros(*self.log_q.shape, of_first.shape[1])
        out[self.is_first] = of_first
        return out

    def combine(self, log_p: Tensor) -> tuple[Tensor, Estimate]:
        r"""Log-weights of the completions (n, M), and the estimated log-probability of the known cells.

        ``log_p`` (n, M) are log-probabilities of whole rows. If a number is drawn, their mean ratio to the draws'. Of
        levels the sum of the n different completions, over their share of Q's mass: as if P and Q had the same share of
        all others. With Q's share r of these and the standard deviation s of log P/Q, the standard error is ``UNMET``
        times :math:`r (1 + s) / \sqrt n`; 1 stands for what so few completions do not show of s.
        """
        log_ratio = log_p - self.log_q
        if self.is_first is None:
            return log_ratio, combine(log_ratio)
        log_w, log_q = (t.masked_fill(~self.is_first, -math.inf) for t in (log_p, self.log_q))
        share = torch.softmax(log_q, 1)
        deviation = log_ratio - (share * log_ratio).sum(1, keepdim=True)
        spread = (share * deviation.square()).sum(1).sqrt()
        log_met = log_q.logsumexp(1).clamp_max(0.0)
        unmet = -torch.expm1(log_met)
        unmet = torch.where(unmet > 1e-6, unmet, 0.0)  # smaller ones are rounding errors
        stderr = UNMET * unmet * (1 + spread) / self.is_first.sum(1).sqrt()
        return log_w, Estimate(log_w.logsumexp(1) - log_met, stderr)


class ConditionalDenoiser(Denoiser):
    """Conditional distributions of cells under a model that scores rows, by an exact model where they cost too much.

    Parameters
    ----------
    scorer : Denoiser
        P, with a closed form for complete rows.
    proposal : Denoiser
        Q, exact, with the same codebook.
    has_gaps : sequence of bool, length C, optional
        Columns whose gaps the scorer has learned: its closed form covers rows with gaps in these columns.
    n_draws : int
        Draws of the unknown cells of a row, in its score.

    Notes
    -----
    The distribution of a cell comes from:

    * no other unknown cell in the row: the scorer. All values of a category are enumerated; of more than
      ``ENUMERATED_LEVELS`` those that are most probable under the proposal and the scorer's own factors, and the others
      keep their proportions under these. The mass of a number is that of the exact members in closed form, and the
      score of the others at some 100 nodes: the logarithm of its ratio to the proposal, or to the scorer's own factor,
      is linear between nodes, which are refined where the mass is large and the ratio bends.
    * other unknown cells, or noisy evidence: the proposal.
    * whether a cell is there (``codebook.indicator``): the proposal.

    A gap in a column of ``has_gaps`` is a value like any other to the scorer: it stays a gap beside other cells.

    Results do not depend on other rows: draws are keyed by the row. The host waits for a device other than the CPU.
    """

    _has_gaps: Tensor
    _is_indicator: Tensor

    def __init__(
        self,
        scorer: Denoiser,
        proposal: Denoiser,
        has_gaps: Sequence[bool] | None = None,
        *,
        n_draws: int = COMPLETIONS,
    ) -> None:
        super().__init__(scorer.codebook)
        self.scorer, self.proposal, self.n_draws = scorer, proposal, n_draws
        n, device = self.codebook.n_columns, self.codebook.device
        for name, of_columns in (
            ("_has_gaps", [False] * n if has_gaps is None else list(has_gaps)),
            ("_is_indicator", [j in self.codebook.indicator.values() for j in range(n)]),
        ):
            self.register_buffer(name, torch.tensor(of_columns, device=device), persistent=False)
        # with log-weights, the members of a mixture of rows that know (13) in closed form, and the others
        self._exact, self._open = [], [(scorer, 0.0)]
        weighted: list[tuple[Denoiser, float]] = []
        if isinstance(scorer, FollowingDenoiser):
            weighted = [*scorer.members]
        elif isinstance(scorer, RowMixtureDenoiser):
            members = [cast(Denoiser, member) for member in scorer.members]
            weighted = [*zip(members, scorer.log_weights.tolist(), strict=True)]
        if weighted:
            self._exact = [(m, w) for m, w in weighted if _plain(m).exact]
            self._open = [(m, w) for m, w in weighted if not _plain(m).exact]
        # the factors of a single causal denoiser guide the enumeration, beside the proposal
        own = [_plain(m) for m, _ in self._open if not m.exact]
        self._guides = [m for m in own if len(own) == 1 and m.own_order is not None]
        self._n_levels = torch.tensor([c.n_points or 0 for c in self.codebook.columns])
        self._spread: dict[Nodes, Tensor] = {}  # filled when they are asked for

    @property
    def row_work(self) -> int:
        # five floats for each of some 500 pieces of the density of a number
        return self.proposal.row_work + 2500 * len(self.codebook.reals)

    # -- states ---------------------------------------------------------------------------------

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        return self.proposal(y, snr)

    @torch.no_grad()
    def leave_one_out(
        self, x: Tensor, asked: Tensor, nodes: Nodes = FINE, proposed: Posterior | None = None
    ) -> Posterior:
        """By :meth:`each` at some ``nodes``; where a cell beside an asked one has to be drawn, the proposal's.

        Whoever knows what the proposal answers to this gives it as ``proposed``.
        """
        alone = asked & self.is_alone(x, asked)[:, None]
        base = self._nothing(x)
        if not torch.equal(alone, asked):
            base = proposed or self.proposal.leave_one_out(x, asked & ~alone)
        found = self._enumerate(x, alone, nodes, proposed)
        return base.with_cells(cells.distribution for cells in found)

    @torch.no_grad()
    def each(self, x: Tensor, asked: Tensor, nodes: Nodes = FINE) -> Posterior:
        """The distribution of each asked cell given all other cells of its row, by the scores of complete rows.

        The score of the row is normalised over the values of the cell (13): gaps in the row stay gaps, which the score
        leaves out, so that nothing is drawn. The value at an asked cell is one of the nodes of its density. Fewer
        ``nodes`` cost fewer scores.
        """
        found = self._enumerate(x, asked, nodes)
        return self._nothing(x).with_cells(cells.distribution for cells in found)

    def _enumerate(
        self, x: Tensor, asked: Tensor, size: Nodes, proposed: Posterior | None = None
    ) -> Iterator[Enumerated]:
        """Scores of rows x (B, C) with each value of each asked cell; categories before densities."""
        columns, rows = torch.nonzero(asked.T).unbind(1)  # by column
        if not len(rows):
            return
        n_levels = self._n_levels.to(x.device)
        need = asked & ((n_levels == 0) | (n_levels > size.levels))
        guides: list[Posterior] = []  # approximations: causal factors, and the proposal's, the last
        log_known = None
        if bool(need.any()):
            if proposed is None:
                proposed, log_known = _given_others(self.proposal, x, need)
            guides = [*(g.preceding(filled(x)) for g in self._guides), proposed]
        known = proposed, log_known
        exact = [(m, w, self._beside(m, w, x, asked, *known)) for m, w in self._exact]
        for column, row in zip(
            columns.split(SCORED_AT_ONCE), rows.split(SCORED_AT_ONCE), strict=True
        ):
            parts: list[Enumerated] = []  # with the values in place of the nodes
            weights: dict[int, Tensor] = {}  # log-probabilities of all levels, where there are many
            for j in column.unique().tolist():
                rows_of_column, k = row[column == j], int(n_levels[j])
                if not k:
                    continue
                values = torch.arange(k, device=x.device).expand(len(rows_of_column), -1)
                if k > size.levels:
                    each = [g.column(j)[rows_of_column].double() for g in guides]
                    weights[j] = torch.stack(each).logsumexp(0)
                    seen = x[rows_of_column, j].nan_to_num(0.0).long()[:, None]
                    values = weights[j].scatter(1, seen, math.inf).topk(size.levels, 1)[1]
                columns_of = torch.full_like(rows_of_column, j)
                parts.append(Enumerated(rows_of_column, columns_of, values.double(), x[:0]))
            real = n_levels[column] == 0
            mixtures, dense = dict[int, Mixtures](), x[:0]
            if bool(real.any()):
                row, column = row[real], column[real]
                posteriors = [*guides, *(b.posterior for _, _, each in exact for b in each)]
                mixtures = {id(q): Mixtures(q, row, column) for q in posteriors}
                dense = [mixtures[id(g)].points(size.dense, i) for i, g in enumerate(guides, 1)]
                dense = self._rounded(torch.cat(dense, 1), column).sort(1)[0]
                nodes = self._first_nodes(x, row, column, dense, size)
                parts.append(Enumerated(row, column, nodes, x[:0]))
            for part, scores in zip(parts, self._scores(x, parts), strict=True):
                j = int(part.columns[0])
                if not n_levels[j]:
                    how = exact, mixtures, guides, dense
                    yield self._density(x, part, scores, *how, size)
                    continue
                log_joint = self._joint(x, part, scores, exact)
                if j in weights:
                    log_joint = _with_all_levels(weights[j], part.nodes.long(), log_joint)
                yield part._replace(log_joint=log_joint)

    def _beside(
        self,
        member: Denoiser,
        w: float,
        x: Tensor,
        asked: Tensor,
        proposed: Posterior | None,
        log_known: Tensor | None,
    ) -> list[Beside]:
        """What an exact member of log-weight w knows of the asked cells (B, C) of rows, given the others.

        Of a member with relations (23), without its weight, for each of the log-probabilities that its factors need.
        ``proposed`` and ``log_known`` are the results of :func:`_given_others` of the proposal, None if not asked for.
        """
        if isinstance(member, FollowingDenoiser):
            found = list[Beside]()
            for children in member.unknown_children():
                left = torch.tensor(children, dtype=torch.int64, device=x.device)
                known, others = x.index_fill(1, left, math.nan), asked.index_fill(1, left, 0)
                same = (None, None) if children else (proposed, log_known)
                found += self._beside(member.base, 0.0, known, others, *same)
                found[-1] = found[-1]._replace(left_out=left)
            return found
        nothing, log_p = torch.zeros(0, dtype=torch.int64, device=x.device), torch.zeros_like(x)
        if member is not self.proposal or proposed is None:
            proposed, log_known = _given_others(member, x, asked)
        if log_known is None:
            log_known = _log_prob(member, x)
        if bool((asked & ~x.isnan()).any()):
            log_p = proposed.log_prob_left_out(x, asked).double()
        return [Beside(w + log_known[:, None] - log_p, proposed, nothing)]

    def _nothing(self, x: Tensor) -> Posterior:
        """A posterior of rows (B, C) to be overwritten, cheaper than the posterior of a large mixture."""
        book = self.codebook
        zero = book.known_snr.new_zeros(len(x), len(book.reals), 1)
        categorical = CategoricalPosterior(
            book.levels, zero.new_zeros(len(x), book.levels.n_points)
        )
        gaussian = GaussianPosterior(zero, zero, zero + 1) if len(book.reals) else None
        return Posterior(book, categorical, gaussian)

    def is_alone(self, x: Tensor, asked: Tensor) -> Tensor:
        """Rows (B, C) in which no cell has to be drawn beside an ``asked`` one: :meth:`each` answers."""
        unknown = self.codebook.unknown(x)
        drawn = unknown & ~self._has_gaps
        beside = drawn.sum(1, keepdim=True) - drawn.long()
        return ~(asked & (beside > 0) | unknown & self._is_indicator).any(1)

    # -- one cell -------------------------------------------------------------------------------

    def _scores(self, x: Tensor, parts: Sequence[Enumerated]) -> list[Tensor]:
        """Log-probabilities of rows x (B, C) with the nodes of each part in single cells: (p, V) each, nats.

        Those of the scorer's members that are not exact, -inf without any.
        """
        if not self._open:
            return [torch.full_like(part.nodes, -math.inf) for part in parts]
        shapes = [part.nodes.shape for part in parts]
        row, column = (
            torch.cat([t.repeat_interleave(n[1]) for t, n in zip(cells, shapes, strict=True)])
            for cells in ([p.rows for p in parts], [p.columns for p in parts])
        )
        values = torch.cat([part.nodes.flatten() for part in parts])
        members = [w + m.log_probs_with(x, row, column, values) for m, w in self._open]
        scores = torch.stack(members).logsumexp(0).clamp_min(-FARTHEST)
        each = scores.split([n.numel() for n in shapes])
        return [scores.view(n) for scores, n in zip(each, shapes, strict=True)]

    def _joint(
        self,
        x: Tensor,
        part: Enumerated,
        scores: Tensor,
        exact: Sequence[tuple[Denoiser, float, list[Beside]]],
        at_nodes: Callable[[Posterior], Tensor] | None = None,
    ) -> Tensor:
        """Log-probabilities of rows x (B, C) with the nodes of a part: (p, V), nats.

        Of all members: ``scores`` of the open ones; those that are ``exact`` have log-weights, and what is known
        :meth:`_beside` each cell, of which ``at_nodes`` gives the log-probabilities of the nodes, by default of levels.
        """
        members = [scores]
        for m, w, beside in exact:
            each = []
            for cells in beside:
                own = (
                    cells.posterior.column(int(part.columns[0]))[part.rows]
                    .double()
                    .gather(1, part.nodes.long())
                    if at_nodes is None
                    else at_nodes(cells.posterior)
                )
                is_out = torch.isin(part.columns, cells.left_out)[:, None]
                log_p = cells.log_p[part.rows, part.columns][:, None]
                each.append(log_p + own.masked_fill(is_out, 0.0))
            log_p = each[-1]
            if isinstance(m, FollowingDenoiser):
                later = m.factors_of_children(each, self._terms(m, x, part))
                log_p = w + each[0] + later.sum(-1)
            members.append(log_p)
        return torch.stack(members).logsumexp(0)

    def _terms(self, member: FollowingDenoiser, x: Tensor, part: Enumerated) -> Tensor:
        """The terms (p, V, K) of relations in rows with the nodes of a part."""
        n = part.nodes.shape[1]
        rows = x[part.rows.repeat_interleave(n)]
        rows.scatter_(1, part.columns.repeat_interleave(n)[:, None], part.nodes.reshape(-1, 1))
        return member.terms(rows).unflatten(0, part.nodes.shape)

    def _first_nodes(
        self, x: Tensor, row: Tensor, column: Tensor, dense: Tensor, size: Nodes
    ) -> Tensor:
        """Nodes of cells (n,) of rows (B, C) in continuous columns, with the observed values: increasing, (n, G).

        Some of the ``dense`` points, increasing, (n, P): numbers that are repeated come first, the others are spread.
        """
        run = nn.functional.pad((dense.diff(dim=1) > 0).cumsum(1), (1, 0))
        order = torch.zeros_like(dense).scatter_add_(1, run, torch.ones_like(dense)).gather(1, run)
        golden = (torch.arange(dense.shape[1], device=x.device) * (math.sqrt(5) - 1) / 2) % 1
        is_first = nn.functional.pad(dense.diff(dim=1) > 0, (1, 0), value=True)
        chosen_points = torch.where(is_first, order + golden, golden).topk(size.guided, 1)[1]
        there = x[row, column].nan_to_num(size.far[-1]).clamp(-FAR_NODES[-1], FAR_NODES[-1])
        others = [self._column_nodes(size)[torch.searchsorted(self.codebook.reals, column)]]
        if isinstance(self.scorer, FollowingDenoiser):
            solved = self.scorer.guided(x[row], column)
            others.append(torch.where(solved.isnan(), dense[:, :1], solved))
        others = self._rounded(torch.cat(others, 1), column)
        points = dense.gather(1, chosen_points)
        beside = self._beside_cells(points[:, :PEAKS], column)
        nodes = torch.cat([points, beside, others, there[:, None]], 1)
        return nodes.sort(1)[0].contiguous()

    def _beside_cells(self, nodes: Tensor, columns: Tensor) -> Tensor:
        """The recorded numbers next to those (n, V) of continuous columns (n,): (n, 2 V), none without a lattice."""
        lines = self.codebook.lines
        if not lines.have_steps:
            return nodes[:, :0]
        line = torch.searchsorted(self.codebook.reals, columns)[:, None]
        cells = lines.cells(nodes, line)
        away = (cells.width + lines.spacing(cells.middle, line)) / 2
        both = torch.cat([cells.middle - away, cells.middle + away], 1)
        return lines.rounded(both, line)

    def _rounded(self, values: Tensor, columns: Tensor) -> Tensor:
        """The nearest recorded numbers of values (n, V) in continuous columns (n,)."""
        line = torch.searchsorted(self.codebook.reals, columns)
        return self.codebook.lines.rounded(values, line[:, None])

    def _density(
        self,
        x: Tensor,
        part: Enumerated,
        scores: Tensor,
        exact: Sequence[tuple[Denoiser, float, list[Beside]]],
        mixtures: dict[int, Mixtures],
        guides: Sequence[Posterior],
        dense: Tensor,
        size: Nodes,
    ) -> Enumerated:
        """The masses of numbers (p,) in rows x (B, C) at ``dense`` and other nodes, as densities even in these cells.

        The logarithm of the ratio of the open members' ``scores`` to a guide is linear between the nodes of a part: to
        that of the ``guides`` whose ratio bends least.
        """
        lines, nodes = self.codebook.lines, part.nodes
        line = torch.searchsorted(self.codebook.reals, part.columns)[:, None]
        cells = lines.cells(nodes, line)

        def masses(cells: Intervals) -> Callable[[Posterior], Tensor]:
            """Log-masses (p, V) of cells under a posterior, as a function of it that computes them once."""
            return cache(lambda q: mixtures[id(q)].log_mass(cells))

        def of_guides(cells: Intervals, mass: Callable[[Posterior], Tensor]) -> Tensor:
            """Log-masses of cells by each guide, bounded from below: (G, p, V)."""
            far = cells.log_width() - cells.middle.abs() - FAR_NATS
            return torch.stack([torch.logaddexp(mass(guide), far) for guide in guides])

        def best(of_each: Tensor) -> Tensor:
            """Of tensors (G, p, V) of each guide that of the best one of each cell, (p, V)."""
            return of_each.gather(0, which[None, :, None].expand_as(of_each[:1]))[0]

        if self._open:
            mass, log_width = masses(cells), cells.log_width()
            ratios = scores - of_guides(cells, mass)
            parts = (_errors(nodes, cells.width, r, scores - log_width)[0] for r in ratios)
            which = torch.stack([error.logsumexp(1) for error in parts]).argmin(0)
            ratio = best(ratios)
            for _ in range(size.stages):
                new = _refined(nodes, cells.width, ratio, scores - cells.log_width(), size)
                new = self._rounded(new, part.columns)
                new_cells = lines.cells(new, line)
                (more,) = self._scores(x, [part._replace(nodes=new)])
                more_ratio = more - best(of_guides(new_cells, masses(new_cells)))
                pairs = (nodes, new), (ratio, more_ratio), (scores, more)
                pairs = *pairs, *zip(cells, new_cells, strict=True)
                together = [torch.cat(pair, 1) for pair in pairs]
                nodes, order = together[0].sort(1)
                ratio, scores, *ends = (t.gather(1, order) for t in together[1:])
                cells = Intervals(*ends)

        def joint(at: Tensor) -> tuple[Tensor, Intervals]:
            cells, scores = lines.cells(at, line), torch.full_like(at, -math.inf)
            mass = masses(cells)
            if self._open:
                scores = _interpolated(nodes, ratio, at) + best(of_guides(cells, mass))
            return self._joint(x, part._replace(nodes=at), scores, exact, mass), cells

        every = torch.cat([nodes, dense], 1).sort(1)[0]
        log_joint, cells = joint(every)
        if lines.have_steps:  # a number more probable than those beside it is enclosed
            log_f = nn.functional.pad(log_joint - cells.log_width(), (1, 1), value=-math.inf)
            above = log_f[:, 1:-1] - torch.maximum(log_f[:, 2:], log_f[:, :-2])
            peaks = every.gather(1, above.topk(ENCLOSED, 1)[1])
            beside = self._beside_cells(peaks, part.columns)
            more, new_cells = joint(beside)
            every, order = torch.cat([every, beside], 1).sort(1)
            log_joint = torch.cat([log_joint, more], 1).gather(1, order)
            pairs = zip(cells, new_cells, strict=True)
            cells = Intervals(*(torch.cat(pair, 1).gather(1, order) for pair in pairs))
        nodes = every
        if lines.have_steps:
            log_joint = (log_joint - cells.log_width()).repeat_interleave(2, 1)
            high = (cells.middle + cells.width / 2).cummax(1)[0]
            low = cells.middle - cells.width / 2
            low[:, 1:] = torch.maximum(low[:, 1:], high[:, :-1])
            nodes = torch.stack([low, torch.maximum(low, high)], 2).flatten(1)
        # of whole blocks, so that no row's rounding depends on others
        pieces = [t[: len(nodes)] for t in log_linear(filled(nodes), filled(log_joint))]
        density = GaussianPosterior(*(t[:, None] for t in pieces))
        return part._replace(log_joint=pieces[0], density=density)

    def _column_nodes(self, size: Nodes) -> Tensor:
        """Nodes of each continuous column that do not depend on the row: points of its marginal, far values: (R, n)."""
        if size not in self._spread:
            reals = self.codebook.reals
            far = torch.tensor(size.far, dtype=torch.float64, device=self.codebook.device)
            marginals = cells_of(self.proposal.marginals(), torch.zeros_like(reals), reals)
            far = torch.cat([-far, far]).expand(len(reals), -1)
            self._spread[size] = torch.cat([far, marginals.points(size.marginal)], 1)
        return self._spread[size]

    # -- probabilities --------------------------------------------------------------------------

    @torch.no_grad()
    def marginal(
        self,
        x: Tensor,
        n_draws: int,
        salt: int = SALT,
        gaps: Tensor | None = None,
        left_out: Tensor | None = None,
    ) -> Estimate:
        """Log-probability of the known cells of rows ``x`` (N, C) under the scorer; unknown cells (NaN) are summed out.

        ``stderr`` is 0 with at most one unknown cell, or few joint values of unknown levels; otherwise there are
        ``n_draws`` draws with seed ``salt``, by which the exponential of ``log_prob`` is unbiased if a number is
        unknown. Cells in ``gaps`` (N, C) are not summed out: they are gaps to the scorer. Of a scorer with relations
        (23), those ``left_out`` (K,) do not count.
        """
        unknown = self.codebook.unknown(x)
        unknown = unknown if gaps is None else unknown & ~gaps
        alone = (unknown.sum(1) == 1) & ~(unknown & self._is_indicator).any(1)
        log_prob, stderr = self._estimate(x, unknown & ~alone[:, None], n_draws, salt, left_out)
        for j in torch.nonzero(unknown[alone].any(0)).flatten().tolist():
            rows = torch.nonzero(alone & unknown[:, j]).flatten()
            log_prob[rows] = self._sum_over(x[rows], j)
        return Estimate(log_prob, stderr)

    @torch.no_grad()
    def score(self, x: Tensor) -> Estimate:
        """Log-probability of the known cells of rows (B, C), and standard errors: float64, (B,), nats.

        The scorer's closed form, with gaps in the columns of ``has_gaps`` as they are. All others are summed out:
        levels with at most ``SUMMED`` joint values exactly, others by draws.
        """
        return self._estimate(x, self._new_gaps(x), self.n_draws, SALT)

    def _estimate(
        self,
        x: Tensor,
        summed: Tensor,
        n_draws: int,
        salt: int,
        left_out: Tensor | None = None,
    ) -> Estimate:
        """Log-probability of rows (B, C) under the scorer, the cells ``summed`` (B, C) summed out."""
        without = self._left_out(summed, left_out)
        log_prob, stderr = _log_prob(self.scorer, x, *without), x.new_zeros(len(x))
        for rows, completions in self._completed(x, summed, n_draws, salt):
            log_p = completions.scored(
                lambda *each: _log_prob(self.scorer, *each)[:, None], *(t[rows] for t in without)
            )
            _, (log_prob[rows], stderr[rows]) = completions.combine(log_p[:, :, 0])
        return Estimate(log_prob, stderr)

    @torch.no_grad()
    def factors(self, x: Tensor, of_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the columns in :meth:`score`, (B, C), zero where a cell is missing; and its standard errors, (B,).

        Without gaps that are summed out, the factors of the scorer ``of_rows`` (B, C); else these in completions are
        averaged by their weights, and the remainder is divided equally among the known cells.
        """
        out, stderr = of_rows.clone(), of_rows.new_zeros(len(x))
        new_gaps = self._new_gaps(x)
        for rows, completions in self._completed(x, new_gaps, self.n_draws, SALT):
            factors = completions.scored(self._factors, *self._left_out(new_gaps[rows]))
            log_w, (log_prob, stderr[rows]) = completions.combine(factors.sum(2))
            out[rows] = _averaged(factors, log_w, log_prob, x[rows])
        return out, stderr

    def _completed(
        self, x: Tensor, summed: Tensor, n_draws: int, salt: int
    ) -> Iterator[tuple[Tensor, Completions]]:
        """Row numbers (n,) and completions of the rows (B, C) with cells ``summed`` (B, C), by blocks of rows.

        Few joint values of levels are all there, as if drawn evenly.
        """
        sizes = torch.where(summed, self._n_levels.to(x.device), 1)
        n_values = sizes.double().prod(1)  # 0 where a number is unknown
        is_few = summed.any(1) & (n_values > 0) & (n_values <= SUMMED)
        is_few &= ~(summed & self._is_indicator).any(1)
        for n in n_values[is_few].unique().long().tolist():
            alike = torch.nonzero(is_few & (n_values == n)).flatten()
            for rows in alike.split(KEPT_COMPLETIONS // n):
                place, size = torch.arange(n, device=x.device)[:, None], sizes[rows]
                levels = place // (size.cumprod(1) // size)[:, None] % size[:, None]
                every = torch.where(summed[rows][:, None], levels.to(x), x[rows][:, None])
                even = every.new_full(every.shape[:2], -math.log(n))
                yield rows, Completions(every, even, torch.ones_like(even, dtype=torch.bool))
        is_drawn = summed.any(1) & ~is_few
        for has_number in (False, True):
            drawn = torch.nonzero(is_drawn & ((n_values == 0) == has_number)).flatten()
            for rows in drawn.split(max(1, KEPT_COMPLETIONS // n_draws)) if len(drawn) else ():
                left = x[rows].isnan() & ~summed[rows]
                every = self._completions(x[rows], left, n_draws, salt)
                joint = _log_prob(self.proposal, every.flatten(0, 1)).view(every.shape[:2])
                log_q = joint - _log_prob(self.proposal, x[rows])[:, None]
                yield rows, Completions(every, log_q, None if has_number else _is_first(every))

    def _completions(self, x: Tensor, left: Tensor, n_draws: int, salt: int) -> Tensor:
        """Rows whose unknown cells are drawn from the proposal: (n, M, C).

        NaN in the cells ``left`` (n, C), and where a drawn indicator says that the cell is missing.
        """
        return self._with_gaps(self.proposal.complete(x, n_draws, salt), x, left)

    def _with_gaps(self, drawn: Tensor, x: Tensor, left: Tensor) -> Tensor:
        """Completions (n, M, C) of rows x (n, C) without the cells ``left`` (n, C), and those that are drawn absent."""
        absent = self.codebook.is_absent(drawn.flatten(0, 1)).view_as(drawn)
        return drawn.masked_fill(left[:, None] | absent & x.isnan()[:, None], math.nan)

    def _left_out(self, summed: Tensor, others: Tensor | None = None) -> tuple[Tensor, ...]:
        """The relations (23) that do not count, (n, K): those with a cell that is summed out, and ``others`` (K,)."""
        if not isinstance(self.scorer, FollowingDenoiser):
            return ()
        touching = self.scorer.touching(summed)
        return (touching if others is None else touching | others,)

    def _factors(self, x: Tensor, *left_out: Tensor) -> Tensor:
        """The factors of the scorer in rows (B, C): float64, (B, C)."""
        parts = in_blocks(self.scorer.log_factors, x, *left_out, batch_size=SCORED_AT_ONCE)
        return torch.cat([x.new_zeros(x[:0].shape), *parts]).double()

    def learned_gaps(self, x: Tensor) -> Tensor:
        """The cells of rows (B, C) that are missing in a column of ``has_gaps``, (B, C)."""
        return x.isnan() & self._has_gaps

    def _new_gaps(self, x: Tensor) -> Tensor:
        """The cells of rows (B, C) that are missing outside the columns of ``has_gaps``, or unknown to be, (B, C).

        None of a row without any cell, whose probability is one.
        """
        unknown = self.codebook.unknown(x) & ~x.isnan().all(1, keepdim=True)
        new = unknown & (~self._has_gaps | self._is_indicator)
        for j, i in self.codebook.indicator.items():
            new[:, j] |= unknown[:, j] & x[:, i].isnan()
        return new

    # -- sums and draws -------------------------------------------------------------------------

    def _sum_over(self, x: Tensor, j: int) -> Tensor:
        """Log-probability of rows (n, C) with their cell in column j summed out: (n,), nats."""
        out = [x.new_zeros(0)]
        for rows in x.split(self.rows_at_once):
            found = self._enumerate(rows, _only(j, rows), FINE)
            out += [cells.log_joint.logsumexp(1) for cells in found]
        return torch.cat(out)

    @torch.no_grad()
    def draw_unknown(self, x: Tensor, seed: int) -> Tensor:
        """Rows ``x`` (N, C) whose unknown cells are drawn given the others; cells indicated as missing stay NaN.

        A single one exactly, from its enumerated distribution. Of several, some completions by the proposal are scored,
        and one is chosen by its weight (Rubin, JASA 82, 1987): the more, the nearer its distribution to the scorer's.
        Categories unseen in training are never drawn.
        """
        generator = torch.Generator(x.device).manual_seed(seed)
        unknown, indicates = self.codebook.unknown(x), self._is_indicator
        several = torch.nonzero((unknown.sum(1) > 1) | (unknown & indicates).any(1)).flatten()
        out = x.clone()
        out[several] = self._chosen(x[several], generator)
        alone = unknown & (unknown.sum(1, keepdim=True) == 1)
        again = (alone | self._unseen(out) & ~out.isnan()) & ~indicates
        for j in torch.nonzero(again.any(0)).flatten().tolist():
            for rows in torch.nonzero(again[:, j]).flatten().split(self.rows_at_once):
                others = out[rows].index_fill(1, torch.tensor([j], device=x.device), math.nan)
                u = torch.rand(2, len(rows), 1, generator=generator, device=x.device, dtype=x.dtype)
                out[rows, j] = self._drawn(others, j, *u)
        return out

    def _chosen(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Completions of rows (n, C) by the proposal, chosen by their weights among 32 a row, or up to 128.

        As long as these are worth fewer than ``LEAST_EVEN`` of equal weight (Kong, Liu & Wong, JASA 89, 1994), as many
        more are drawn. Those of equal rows are chosen together, in equal steps of their weight (Kitagawa, JCGS 5,
        1996); of many rows among 8 a row. A completion is taken twice only if its weight is that many times the mean.
        """
        out = x.clone()
        first, among = equal_rows(x)
        members, counts = among.argsort(stable=True), torch.bincount(among, minlength=len(first))
        start = counts.cumsum(0) - counts
        for r in counts.unique().tolist():
            same, n = torch.nonzero(counts == r).flatten(), max(8, min(32, 256 // r))
            for copies in torch.arange(r, device=x.device).split(max(1, KEPT_COMPLETIONS // n)):
                k = len(copies)
                for some in same.split(max(1, KEPT_COMPLETIONS // (n * k))):
                    u = torch.rand(
                        len(some), 1, generator=generator, device=x.device, dtype=x.dtype
                    )
                    steps = (torch.arange(k, device=x.device) + u) / k
                    at = members[start[some][:, None] + copies]
                    drawn, log_w = x.new_zeros(len(some), 0, x.shape[1]), x.new_zeros(len(some), 0)
                    while len(some):
                        n_more = log_w.shape[1] or n * k
                        more = self._weighed(x[first[some]], n_more, draw_salt(generator))
                        drawn, log_w = (
                            torch.cat([drawn, more[0]], 1),
                            torch.cat([log_w, more[1]], 1),
                        )
                        place = chosen(log_w, steps)
                        out[at] = drawn.take_along_dim(place[:, :, None], 1)
                        n_even = 1 / log_w.softmax(1).square().sum(1)
                        is_poor = n_even < LEAST_EVEN * k
                        if log_w.shape[1] >= 128 * k:
                            break
                        some, at, steps, drawn, log_w = (
                            t[is_poor] for t in (some, at, steps, drawn, log_w)
                        )
        return out

    def _weighed(self, x: Tensor, n_draws: int, salt: int) -> tuple[Tensor, Tensor]:
        """Completions (n, M, C) of rows (n, C) by the proposal, and their log-weights (n, M)."""
        left, known = x.isnan() & ~self.codebook.unknown(x), dict[Denoiser, Completing]()
        proposal = self.proposal.completing(x, known, salt)
        drawn = self._with_gaps(proposal.draw(n_draws, salt), x, left)
        log_w = self.scorer.completing(x, known, salt).log_joint(drawn) - proposal.log_joint(drawn)
        # unseen categories are not drawn
        return drawn, log_w - 1e6 * self._unseen(drawn.flatten(0, 1)).sum(1).view(log_w.shape)

    def _drawn(self, x: Tensor, j: int, u: Tensor, v: Tensor) -> Tensor:
        """Draws (n,) of the only unknown cell, in column j, of rows (n, C), by uniform numbers, (n, 1) each."""
        out = [x.new_zeros(0)]
        for cells in self._enumerate(x, _only(j, x), FINE):
            own = u[cells.rows]
            if cells.density is None:
                seen = cells.log_joint[:, : self.codebook.columns[j].n_levels]
                out.append(chosen(seen, own)[:, 0].double())
            else:
                drawn = cells.density.at_uniform(own, v[cells.rows])
                out.append(self._rounded(drawn, cells.columns)[:, 0])
        return torch.cat(out)

    def _unseen(self, x: Tensor) -> Tensor:
        """Which cells of rows (B, C) hold an unseen category, (B, C)."""
        columns = self.codebook.columns
        last = [c.n_levels if c.open else math.inf for c in columns]
        return x == torch.tensor(last, dtype=x.dtype, device=x.device)


def _plain(denoiser: Denoiser) -> Denoiser:
    """The denoiser without relations (23)."""
    return denoiser.base if isinstance(denoiser, FollowingDenoiser) else denoiser


@torch.no_grad()
def given_others(denoiser: Denoiser, x: Tensor, asked: Tensor, **how: Any) -> Posterior:
    """The distribution of each asked cell given all other known cells of its row.

    ``x`` (B, C) is NaN where a cell is unknown; the values of the cells ``asked`` (B, C) are not used, and the
    distributions of all other cells have no meaning, or are left out. A value is conditioned on being there
    (``codebook.indicator``), and whether it is there on all cells but the value; of a network along paths, which learns
    the indicators first, on other indicators only. ``how`` is for the method :meth:`~Denoiser.leave_one_out`.
    """
    book = denoiser.codebook
    if not (book.indicator and bool(asked.any())):
        return denoiser.leave_one_out(x, asked, **how)
    column, row = torch.nonzero(asked.T).unbind(1)  # by column
    others = x[row]
    for j, i in book.indicator.items():
        others[column == j, i] = 0.0
        others[column == i, j] = math.nan
    if not (denoiser.exact or isinstance(denoiser, ConditionalDenoiser)):
        others = others.masked_fill_(book.leading[column][:, None] & ~book.leading, math.nan)
    first, among = equal_rows(others)  # most cells of a row are conditioned on the same row
    wanted = torch.zeros_like(others[first], dtype=torch.bool)
    wanted[among, column] = True
    place = torch.zeros_like(asked, dtype=torch.int64)
    place[row, column] = among
    if "proposed" in how:
        how["proposed"] = how["proposed"].rows(row[first])
    return denoiser.leave_one_out(others[first], wanted, **how).of_cells(place)


def _given_others(denoiser: Denoiser, x: Tensor, asked: Tensor) -> tuple[Posterior, Tensor | None]:
    """:meth:`Denoiser.leave_one_out` of an exact denoiser, and None.

    Where all asked cells are unknown, the posterior of the rows and the log-probability (B,) of their known cells.
    """
    if bool((asked & ~x.isnan()).any()):
        return denoiser.leave_one_out(x, asked), None
    rows = filled(x)
    state = State.start(denoiser.codebook, denoiser.codebook.embed(rows), ~rows.isnan())
    log_p, posterior = denoiser.infer(*state)
    return posterior.rows(slice(len(x))), log_p[: len(x)].double()


def _only(j: int, x: Tensor) -> Tensor:
    """A mask of the cells of rows (B, C) in column j."""
    return torch.zeros_like(x, dtype=torch.bool).index_fill(
        1, torch.tensor([j], device=x.device), True
    )


def _with_all_levels(guide: Tensor, values: Tensor, log_p: Tensor) -> Tensor:
    """Log-probabilities (n, V) of some levels extended to all K in proportion to a guide (n, K): (n, K), nats."""
    log_g = guide.gather(1, values)
    ratio = torch.logsumexp(log_p, 1, keepdim=True) - torch.logsumexp(log_g, 1, keepdim=True)
    return (guide + ratio).scatter(1, values, log_p)


def cells_of(q: Posterior, row: Tensor | None, column: Tensor) -> GaussianPosterior:
    """The mixtures of cells (n,) in some rows, by default one in each row, and continuous columns."""
    assert q.gaussian is not None
    row = torch.arange(len(column), device=column.device) if row is None else row
    at = torch.searchsorted(q.codebook.reals, column)
    return q.gaussian.pick(lambda t: t[row, at][:, None])


class Mixtures:
    """The mixtures of a posterior in cells (n,) of some rows and continuous columns, without unlikely components."""

    def __init__(self, q: Posterior, row: Tensor, column: Tensor) -> None:
        self._parts = [*cells_of(q, row, column).few_components(NODES_AT_ONCE)]
        self._like = torch.zeros(len(row), 0, dtype=torch.float64, device=row.device)

    def points(self, n: int, shift: int) -> Tensor:
        """Points (n_cells, n) of each cell, see :meth:`GaussianPosterior.points`."""
        out = self._like.new_empty(len(self._like), n)
        for rows, mixtures in self._parts:
            out[rows] = mixtures.points(n, shift)
        return out

    def log_mass(self, cells: Intervals) -> Tensor:
        """Log-masses of V cells of each number, (n, V), nats."""
        out = torch.empty_like(cells.middle)
        for rows, mixtures in self._parts:
            out[rows] = mixtures.log_mass_of_few(*(t[rows] for t in cells)).clamp_min(-FARTHEST)
        return out


def _errors(
    nodes: Tensor, width: Tensor, log_ratio: Tensor, log_f: Tensor
) -> tuple[Tensor, Tensor]:
    """Logarithms of a density's errors between cells (n, V) of middles ``nodes``, and the lengths between the cells.

    Its logarithm ``log_f`` is known in cells; between them its ``log_ratio`` to another density is taken as linear. The
    error of an interval is its mass times the difference of the slopes beside it. Where these slopes, continued, meet
    above both ends, a peak may be hidden: the height at which they meet, at most 12 nats above, replaces the density's.
    There is none between cells with no other one between them.
    """
    gap = nodes.diff(dim=1)
    free = gap - (width[:, 1:] + width[:, :-1]) / 2
    is_full = free < torch.minimum(width[:, 1:], width[:, :-1]) / 2
    slope = log_ratio.diff(dim=1) / gap.clamp_min(1e-12)
    before = torch.cat([slope[:, :1], slope[:, :-1]], 1)
    after = torch.cat([slope[:, 1:], slope[:, -1:]], 1)
    bend = (gap * (before - after).abs() / 4).clamp(1e-9, 12.0)
    top = torch.maximum(log_f[:, 1:], log_f[:, :-1])
    error = free.clamp_min(1e-300).log() + top + bend + bend.clamp_max(1.0).log()
    return error.masked_fill(is_full, -math.inf), free


def _refined(nodes: Tensor, width: Tensor, log_ratio: Tensor, log_f: Tensor, size: Nodes) -> Tensor:
    """New nodes (n, new) in the intervals with the largest :func:`_errors`."""
    error, free = _errors(nodes, width, log_ratio, log_f)
    place = error.topk(size.split, 1)[1]
    low, length = (t.gather(1, place)[:, :, None] for t in (nodes + width / 2, free))
    return (low + length * nodes.new_tensor(SPLIT_AT)).flatten(1)


def _interpolated(nodes: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """Functions that are linear between increasing nodes (n, V), and constant beyond them, at ``x`` (n, G)."""
    last = nodes.shape[1] - 1
    above = torch.searchsorted(nodes, x.contiguous()).clamp(1, last)
    (low, high), (start, end) = (
        (t.gather(1, above - 1), t.gather(1, above)) for t in (nodes, values)
    )
    share = ((x - low) / (high - low).clamp_min(1e-300)).clamp(0.0, 1.0)
    return torch.lerp(start, end, share)


def _is_first(completions: Tensor) -> Tensor:
    """Which of the completions (n, M, C) of each row equal no earlier one of it, (n, M)."""
    hashes = row_hashes(completions.flatten(0, 1)).view(completions.shape[:2])
    values, order = hashes.sort(dim=1, stable=True)
    is_new = torch.ones_like(values, dtype=torch.bool)
    is_new[:, 1:] = values.diff(dim=1) != 0
    return torch.empty_like(is_new).scatter_(1, order, is_new)


def _averaged(factors: Tensor, log_w: Tensor, log_prob: Tensor, x: Tensor) -> Tensor:
    """Factors of completions (n, M, C) of rows (n, C), averaged by weights (n, M), with the sum ``log_prob`` (n,).

    The remainder is divided equally among the known cells.
    """
    there = (~x.isnan()).to(factors)
    mean = (torch.softmax(log_w, 1)[:, :, None] * factors).sum(1) * there
    left = log_prob - mean.sum(1)
    return mean + (left / there.sum(1).clamp_min(1.0))[:, None] * there


def _log_prob(denoiser: Denoiser, x: Tensor, *left_out: Tensor) -> Tensor:
    """Log-probabilities of rows (B, C), of a scorer with relations without those ``left_out``: float64, (B,)."""
    call: Callable[..., Tensor] = lambda *rows: denoiser.log_prob(*rows).double()  # noqa: E731
    return torch.cat([x.new_zeros(0), *in_blocks(call, x, *left_out, batch_size=SCORED_AT_ONCE)])
