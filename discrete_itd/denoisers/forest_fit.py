"""The distributions in the leaves of a density forest: counted from rows, smoothed towards the nodes above them."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from discrete_itd.channel.gaussian import log_between, log_normal
from discrete_itd.denoisers.forest import ForestDenoiser, Splits
from discrete_itd.denoisers.marginal import FINEST_SD, MarginalDenoiser

COUNTED = 4096  # rows that are counted at once
FLAT = 10.0  # a Gaussian whose standard deviation is so many widths of its box is flat in it
LEAST_VAR = 1e-30  # least variance of a Gaussian in a box: still a positive number in float32
PRIOR_VAR = 0.25  # of a continuous column without numbers: columns are scaled to this variance
# pseudo-counts of the rows of a node, of the marginal distribution and, for moments, of that in the node above; and the
# share of the wide Gaussians: by held-out rows of plants, mushroom, adult, jester and four tables of numbers
SHARE_COUNT, ROOT_COUNT, MOMENT_COUNT, WIDE = 0.5, 0.05, 0.5, 3e-3


class ForestCounts:
    """Counts of rows in the leaves of a forest, which add up over the parts of a table.

    A row with a missing cell goes to one of both children at random, by noise of the ``seed`` and by the shares of
    ``x`` (N, C), rows of the table that are not yet counted.
    """

    def __init__(self, splits: Splits, seed: int, x: Tensor) -> None:
        book, device = splits.codebook, splits.column.device
        n, n_reals = splits.n_leaves, len(book.reals)
        self.splits, self.seed, self.n_rows = splits, seed, 0
        self.rows = torch.zeros(n, dtype=torch.int64, device=device)
        self.levels = torch.zeros(n, book.levels.n_points, dtype=torch.int32, device=device)
        # numbers that are there, their sums and those of their squares
        self.reals = torch.zeros(3, n, n_reals, dtype=torch.float64, device=device)
        self._first = torch.full((splits.n_nodes,), 0.5, dtype=torch.float64, device=device)
        if bool(x.isnan().any()):
            self._leaves(x, 0, learn=True)

    def add(self, x: Tensor, tree: Tensor | None = None) -> ForestCounts:
        """Count rows ``x`` (N, C), which follow those counted before, in all trees, or each in one ``tree`` (N,)."""
        book = self.splits.codebook
        for i, rows in enumerate(x.split(COUNTED)):
            leaf = self._leaves(rows, self.n_rows)
            if tree is not None:
                leaf = leaf.gather(1, tree[i * COUNTED : i * COUNTED + len(rows), None])
            self.rows += torch.bincount(leaf.flatten(), minlength=len(self.rows))
            level, reals = self.splits.places(rows)
            flat, n_points = self.levels.view(-1), book.levels.n_points
            for own in level.T:
                there = torch.nonzero(own < n_points).flatten()
                index = (leaf[there] * n_points + own[there, None]).flatten()
                flat.index_add_(0, index, torch.ones_like(index, dtype=torch.int32))
            if len(book.reals):
                reals = reals.double()
                there, reals = ~reals.isnan(), reals.nan_to_num(0.0)
                sums = torch.stack([there.double(), reals, reals.square()])
                for own in leaf.T:
                    self.reals.index_add_(1, own, sums)
            self.n_rows += len(rows)
        return self

    def _leaves(self, x: Tensor, position: int, *, learn: bool = False) -> Tensor:
        """The leaves of rows whose first one has a position in the table: (N, Tr)."""
        splits, gaps = self.splits, bool(x.isnan().any())

        def choose(row: Tensor, node: Tensor, right: Tensor, missing: Tensor) -> Tensor:
            if learn:
                n = torch.zeros(2, splits.n_nodes, dtype=torch.float64, device=node.device)
                seen = ~missing & (splits.column[node] >= 0)
                n.view(-1).index_add_(
                    0,
                    right[seen] * splits.n_nodes + node[seen],
                    torch.ones_like(node[seen]).double(),
                )
                total = n.sum(0)
                self._first = torch.where(total > 0, n[0] / total.clamp_min(1), self._first)
            at = torch.nonzero(missing).flatten()
            u = noise(row[at] + position, node[at], self.seed)
            return right.index_copy(0, at, u >= self._first[node[at]])

        value = splits.values(*splits.places(x))
        return splits.descend(value, len(x), choose if gaps else None)

    def cut(self, fewest: int) -> ForestCounts:
        """The same rows in the leaves of shallower trees, each of at least ``fewest`` rows, or a root.

        No rows are added to these: those with gaps follow noise of the deeper trees' nodes.
        """
        splits = self.splits
        rows = splits.sums(self.rows)
        second = rows[(splits.left + 1).clamp_max(splits.n_nodes - 1)]
        splits, leaf = splits.cut(torch.minimum(rows[splits.left], second) >= fewest)
        out, n = copy.copy(self), splits.n_leaves
        out.splits = splits
        out.rows = self.rows.new_zeros(n).index_add_(0, leaf, self.rows)
        out.levels = self.levels.new_zeros(n, self.levels.shape[1]).index_add_(0, leaf, self.levels)
        out.reals = self.reals.new_zeros(3, n, self.reals.shape[2])
        out.reals.index_add_(1, leaf, self.reals)
        return out

    def log_shares(self, pseudo_count: float) -> Tensor:
        """Log-probability of each node given the one above it, of a root that of its tree: (M,), nats."""
        splits = self.splits
        rows = splits.sums(self.rows).double() + pseudo_count
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

        def normalised(t: Tensor) -> Tensor:
            return t / levels.per_level(levels.sum(t))

        for part in splits.depths:
            nodes = torch.arange(part.start, part.stop, device=prior.device)
            inside = splits.inside(nodes, *boxes)
            own = normalised(prior * inside)
            if part.start:
                before = normalised(p[splits.parent[part] - start] * inside)
                own = normalised(counts[part].to(prior) + above * before + root * own)
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
        fallback = marginals if book.vocabularies else None
        return ForestDenoiser(book, *parts, probs, *gaussians, WIDE, fallback)


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


def noise(row: Tensor, node: Tensor, seed: int) -> Tensor:
    """Pseudo-random numbers in [0, 1] from pairs of integers (P,): float64, (P,)."""
    h = row * -7046029254386353131 + node * -4658895280553007687 + seed
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        h = (h ^ ((h >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((h >> 11) & ((1 << 53) - 1)).double() / (1 << 53)
