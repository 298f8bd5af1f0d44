"""The distributions in the leaves of a density forest: counted from rows, smoothed towards the nodes above them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel.gaussian import log_between, log_normal
from discrete_itd.denoisers.forest import ForestDenoiser, Splits
from discrete_itd.denoisers.marginal import FINEST_SD, MarginalDenoiser

COUNTED = 4096  # rows that are counted at once
# rounds of EM before the last count. One round is .01 nats a row behind with 30 % missing; two that start from
# independent columns instead of whole rows are .01 behind and, missing at random given a column, .13; four take half as
# long again
ROUNDS = 2
FEW_GAPS = 0.1  # share of rows with gaps up to which whole rows alone weight their leaves
ABOVE = 4.0  # pseudo-count of the node above a leaf: the first one that is tried
FLAT = 10.0  # a Gaussian whose standard deviation is so many widths of its box is flat in it
LEAST_VAR = 1e-30  # least variance of a Gaussian in a box: still a positive number in float32
PRIOR_VAR = 0.25  # variance of a continuous column without numbers: columns are scaled to it
# pseudo-counts of the rows of a node, of the marginal distribution and, for moments, of that in the node above; and the
# share of the wide Gaussians: by held-out rows of plants, mushroom, adult, jester and four tables of numbers
SHARE_COUNT, ROOT_COUNT, MOMENT_COUNT, WIDE = 0.5, 0.05, 0.5, 3e-3


class ForestCounts:
    """Expected counts of rows in the leaves of a forest, which add up over the parts of a table.

    A row with missing cells is shared among the leaves that it can reach, in each tree by their posterior (22) under
    ``given``, a forest of the same splits; without one, all rows must be complete.
    """

    def __init__(self, splits: Splits, given: ForestDenoiser | None = None) -> None:
        book, device = splits.codebook, splits.column.device
        n, n_reals = splits.n_leaves, len(book.reals)
        self.splits, self.given = splits, given
        self.rows = torch.zeros(n, dtype=torch.float64, device=device)
        # memory: a leaf's rows are too few to be lost in its rounding
        self.levels = torch.zeros(n, book.levels.n_points, dtype=torch.float32, device=device)
        # of the numbers that are there: counts, sums, sums of squares
        self.reals = torch.zeros(3, n, n_reals, dtype=torch.float64, device=device)

    def add(self, x: Tensor, tree: Tensor | None = None) -> ForestCounts:
        """Count rows ``x`` (N, C) in all trees, or each in one ``tree`` (N,)."""
        gaps = self.splits.codebook.unknown(x).any(1)
        for rows in torch.nonzero(~gaps).flatten().split(COUNTED):
            cells = self.splits.places(x[rows])
            leaf = self.splits.descend(self.splits.values(*cells), len(rows))
            own = leaf.T if tree is None else leaf.gather(1, tree[rows, None]).T
            for leaf in own:
                self._count(leaf, *cells)
        for rows in torch.nonzero(gaps).flatten().split(COUNTED) if gaps.any() else ():
            assert self.given is not None
            of = None if tree is None else tree[rows]
            for leaf, weight, cells in self.given.responsibilities(x[rows], of):
                self._count(leaf, *cells, weight)
        return self

    def _count(
        self, leaf: Tensor, level: Tensor, reals: Tensor, weight: Tensor | None = None
    ) -> None:
        """Add cells, as :meth:`Splits.places` has them, to one leaf (P,) each."""
        weight = self.rows.new_ones(len(leaf)) if weight is None else weight
        self.rows.index_add_(0, leaf, weight)
        n_points, flat = self.levels.shape[1], self.levels.view(-1)
        for own in level.T:
            there = torch.nonzero(own < n_points).flatten()
            index = leaf[there] * n_points + own[there]
            flat.index_add_(0, index, weight[there].to(flat))
        if reals.shape[1]:
            there, reals = ~reals.isnan(), reals.nan_to_num(0.0).double()
            sums = torch.stack([there.double(), reals, reals.square()])
            self.reals.index_add_(1, leaf, sums * weight[:, None])

    def cut(self, fewest: int) -> ForestCounts:
        """The same rows in the leaves of shallower trees, each of at least ``fewest`` rows, or a root."""
        splits = self.splits
        rows = splits.sums(self.rows)
        second = rows[(splits.left + 1).clamp_max(splits.n_nodes - 1)]
        splits, leaf = splits.cut(torch.minimum(rows[splits.left], second) >= fewest)
        out = ForestCounts(splits)
        out.rows.index_add_(0, leaf, self.rows)
        out.levels.index_add_(0, leaf, self.levels)
        out.reals.index_add_(1, leaf, self.reals)
        return out

    def log_shares(self, pseudo_count: float) -> Tensor:
        """Log-probability of each node given the one above it, of each tree at its root: (M,), nats."""
        splits = self.splits
        rows = splits.sums(self.rows) + pseudo_count
        out = rows.new_full((splits.n_nodes,), -math.log(splits.n_trees))
        below = slice(splits.n_trees, splits.n_nodes)
        pairs = rows[below].unflatten(0, (-1, 2))
        out[below] = (pairs / pairs.sum(1, keepdim=True)).log().flatten()
        return out

    def probs(self, prior: Tensor, above: float, root: float) -> Tensor:
        """Probabilities of the levels in every leaf, zero outside of its box: (L, T).

        ``above`` and ``root`` are the pseudo-counts of the node above and of the ``prior`` (T,), both restricted to the
        box.
        """
        splits, levels = self.splits, self.splits.codebook.levels
        counts, boxes = splits.sums(self.levels), splits.boxes()
        out, p, start = prior.new_zeros(self.levels.shape), prior, 0

        for part in splits.depths:
            nodes = torch.arange(part.start, part.stop, device=prior.device)
            inside = splits.inside(nodes, *boxes)
            alone = own = levels.normalised(prior * inside)
            if part.start:
                before = levels.normalised(p[splits.parent[part] - start] * inside)
                own = levels.normalised(counts[part].to(prior) + above * before + root * own)
                own = levels.with_unseen(own, alone)
            p, start, leaf = own, part.start, splits.leaf[part]
            out[leaf[leaf >= 0]] = p[leaf >= 0]
        return out

    def gaussians(self, above: float) -> tuple[Tensor, Tensor]:
        """Means and variances of every continuous column in each leaf, before they are truncated to its box: (L, R).

        ``above`` is the pseudo-count of the moments in the node above, restricted to the box.
        """
        splits, book = self.splits, self.splits.codebook
        count, first, second = (splits.sums(t) for t in self.reals)  # (M, R)
        low, high = (t[:, book.reals].double() for t in splits.boxes())
        which = torch.full((book.n_columns,), -1, device=low.device)
        which[book.reals] = torch.arange(len(book.reals), device=low.device)
        mean, var = torch.zeros_like(low), torch.full_like(low, PRIOR_VAR)
        for part in splits.depths:
            m, v = mean[part], var[part]
            if part.start:
                up = splits.parent[part]
                m, v = mean[up], var[up]
                column = which[splits.column[up]]
                node = torch.nonzero(column >= 0).flatten()
                at, of = (up[node], column[node]), (node + part.start, column[node])
                before = untruncated(mean[at], var[at], low[at], high[at])
                at = node, column[node]
                m[at], v[at] = truncated_moments(*before, low[of], high[of])
            n, s = count[part], first[part]
            mean[part] = new = (s + above * m) / (n + above)
            square = second[part] - 2 * new * s + n * new.square()
            square = square.clamp_min(0.0) + above * (v + (m - new).square())
            var[part] = (square / (n + above)).clamp_min(FINEST_SD**2)
            own = (second[part] / n.clamp_min(1) - (s / n.clamp_min(1)).square()).clamp_min(0.0)
            peak = book.lines.peaks(s / n.clamp_min(1), own, n).to(var)
            mean[part] = torch.where(peak.isnan(), mean[part], s / n.clamp_min(1))
            var[part] = torch.where(peak.isnan(), var[part], peak)
        own = splits.leaves
        return untruncated(mean[own], var[own], low[own], high[own])

    def forest(self, marginals: MarginalDenoiser, above: float) -> ForestDenoiser:
        """The forest whose leaves have these counts, beside ``marginals``, the independent columns of the same rows.

        ``above`` is the pseudo-count of the node above.
        """
        splits, book = self.splits, self.splits.codebook
        probs = self.probs(marginals.log_probs.exp(), above, ROOT_COUNT)
        gaussians = self.gaussians(MOMENT_COUNT) if len(book.reals) else (None, None)
        parts = splits.column, splits.threshold, splits.rank, self.log_shares(SHARE_COUNT).exp()
        return ForestDenoiser(book, *parts, probs, *gaussians, WIDE)


def responsible(
    splits: Splits, marginals: MarginalDenoiser, x: Tensor, tree: Tensor | None = None
) -> ForestDenoiser:
    """The forest of rows ``x`` (N, C) by which the leaves of rows with gaps are weighted: rounds of EM from whole rows.

    Each row is counted in all trees, or in one ``tree`` (N,).
    """
    gaps = splits.codebook.unknown(x).any(1)
    parts = [(x[own], None if tree is None else tree[own]) for own in (~gaps, gaps)]
    whole = ForestCounts(splits).add(*parts[0])
    given = whole.forest(marginals, ABOVE)
    for _ in range(ROUNDS if float(gaps.double().mean()) > FEW_GAPS else 0):
        counts = ForestCounts(splits, given).add(*parts[1])
        for name in ("rows", "levels", "reals"):
            getattr(counts, name).add_(getattr(whole, name))
        given = counts.forest(marginals, ABOVE)
    return given


def truncated_moments(
    mean: Tensor, var: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Means and variances of Gaussians (float64) that are truncated to boxes."""
    sd = var.sqrt()
    a, b = (low - mean) / sd, (high - mean) / sd
    log_mass = log_between(a, b)
    at_low, at_high = ((log_normal(z) - log_mass).exp() for z in (a, b))
    slope = at_low - at_high
    a, b = (torch.where(z.isinf(), 0.0, z) for z in (a, b))
    width = high - low
    new = (mean + sd * slope).clamp(low, high)
    spread = (var * (1 + a * at_low - b * at_high - slope.square())).clamp_min(FINEST_SD**2)
    return new, torch.minimum(spread, width.square() / 4)


def untruncated(mean: Tensor, var: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Gaussians (float64) that have approximately these moments when they are truncated to boxes.

    The moments of a box's uniform distribution are divided out: right for boxes much wider than the Gaussian, and for a
    Gaussian so wide that it is flat in the box. Distances are from the box's centre: it may be far from 0 and narrow.
    """
    width = high - low
    finite = width.isfinite()
    flat = torch.where(finite, (FLAT * width).square(), torch.inf)
    after = 1 / (1 / var - torch.where(finite, 12 / width.square(), 0.0)).clamp_min(1 / flat)
    after = after.clamp_min(LEAST_VAR)
    centre = torch.where(finite, (low + high) / 2, mean)
    return centre + (mean - centre) * after / var, after
