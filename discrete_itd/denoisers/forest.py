r"""Density forests: exact denoisers of nominal, ordinal and continuous columns together.

Each tree cuts the space of rows by splits of single columns. A leaf :math:`\ell` has a share :math:`w_\ell` of them,
the product of the shares along its branch, and a product of distributions of the columns, restricted to its box
:math:`B_\ell`:

.. math:: P(x) = \frac1{Tr} \sum_t w_\ell \prod_j p_{\ell j}(x_j \mid x_j \in B_\ell),
          \qquad \ell = \text{the leaf of } x \text{ in tree } t. \tag{11}

A number that many rows share, at which the column's line is opened, has a mass of its own in a leaf beside the Gaussian
of the others.

A mixture of products, then, whose components within a tree have disjoint supports. A known row lies in one leaf of each
tree; where a cell is missing or noisy both children of a split are followed, and what is known is weighed in the leaves
that are reached. One algorithm on pairs of a row and a leaf serves scores, posteriors and gaps.

References
----------
Ram & Gray, "Density estimation trees", KDD 2011; Di Mauro, Vergari, Basile & Esposito, "Fast and accurate density
estimation with extremely randomized cutset networks", ECML 2017; Liu, Ting & Zhou, "Isolation forest", ICDM 2008, whose
trees are split in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import KNOWN_NATS, Codebook
from discrete_itd.channel.gaussian import (
    FARTHEST,
    GaussianPosterior,
    chosen,
    clipped,
    is_coarse,
    log_between,
    log_mass,
    log_mass_of_wide,
    log_normal,
)
from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.base import (
    CACHED,
    DRAWN,
    Config,
    Denoiser,
    Tensors,
    checked,
    cumulative,
    finite_log,
)
from discrete_itd.denoisers.marginal import FINEST_SD, SD, WIDE_SD, MarginalDenoiser
from discrete_itd.devices import add_at, any_true, index_tensor, replace_rows

COUNTED = 4096  # rows that are counted, and leaves that are checked, at once
VECTOR = 32  # floats that a sum takes at a time
# Standard deviations of a cell times that of its number from the mean, or one, up to which the log-mass is that of the
# density and its curvature: it errs by less than 1e-8 nats, as masses of wide cells do.
NARROW_CELL = 0.05
LOG_ROOT = 0.5 * math.log(2 * math.pi)
ABOVE = 4.0  # pseudo-count of the node above a leaf: the first one that is tried
# pseudo-count of the moments in the node above a leaf, and share of the wide Gaussians: by held-out rows of plants,
# mushroom, adult, jester and four tables of numbers
ABOVE_MOMENTS, WIDE = 0.5, 3e-3

Values = Callable[[Tensor, Tensor], Tensor]  # of rows (P,) at nodes (P,)


class Pairs(NamedTuple):
    """Rows, and the leaves that agree with each of them.

    Attributes
    ----------
    rows : Tensor of int64, shape (B,)
        Their numbers in a table.
    level, reals : Tensor, shapes (B, C') and (B, R)
        Their cells: levels, T where missing, and numbers.
    row, leaf : Tensor of int64, shape (P,)
        The row of each pair, counted from 0 and increasing, and the leaf.
    counts : Tensor of int64, shape (B,)
        Leaves of each row, at least one of each tree.
    """

    rows: Tensor
    level: Tensor
    reals: Tensor
    row: Tensor
    leaf: Tensor
    counts: Tensor

    def log_total(self, values: Tensor) -> Tensor:
        """Logarithm of each row's sum of exponentials of the pairs' values: float64, (B, ...)."""
        return log_totals(values, self.row, self.counts)


def log_totals(values: Tensor, row: Tensor, counts: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials of ``values`` (P, ...) of each row: float64, (B, ...)."""
    values = values.double()
    if not len(values):
        return values
    top = torch.segment_reduce(values, "max", lengths=counts)
    return torch.segment_reduce((values - top[row]).exp(), "sum", lengths=counts).log() + top


def padded(key: Tensor, weight: Tensor, leaf: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Log-weights and leaves (P,) in the rows of their keys, (n, K) each: minus infinity and 0 beyond a row's last.

    K is a multiple of ``VECTOR``: zeros at the end of whole vectors change no sum, not even its rounding.
    """
    key, order = key.sort(stable=True)
    place = torch.arange(len(key), device=key.device) - torch.searchsorted(key, key)
    width = VECTOR * (1 + int(place.max()) // VECTOR) if len(key) else VECTOR
    log_weights, leaves = weight.new_full((n, width), -torch.inf), leaf.new_zeros(n, width)
    log_weights[key, place], leaves[key, place] = weight[order], leaf[order]
    return log_weights, leaves


def _mean(terms: Tensor) -> Tensor:
    """The mean (B, C) over the trees of (B, Tr, C), added up one by one: its rounding depends on no other row."""
    return terms.cumsum(1)[:, -1] / terms.shape[1]


class ForestDenoiser(Denoiser):
    """Exact for a mixture of trees of splits whose leaves are products (11).

    Parameters
    ----------
    codebook : Codebook
    column, threshold, rank : Tensor, shapes (M,), (M,) and (Tr, T)
        Of the :class:`Splits`.
    shares : Tensor, shape (M,)
        Probability of each node given the one above it; at the roots, the weights of the trees. Positive, normalised
        here.
    probs : Tensor, shape (L, T)
        Probability of every level in each leaf: positive in the leaf's box and zero outside; normalised here.
    mean, var : Tensor, shape (L, R), optional
        Gaussian of every continuous column in each leaf, before it is truncated to the box; needed if there are any.
    wide : float
        Share, between 0 and 1, of a wide Gaussian (mean 0, standard deviation 2 where columns have one half) that is
        mixed into each of these and truncated likewise: a value far from all others is improbable, not impossible.
    shared : Tensor, shape (L, A), optional
        Probability in each leaf, beside these Gaussians, of every number at which the columns' lines are opened: zero
        outside of the leaf's box, and by default.

    Raises
    ------
    ValueError
        If shapes disagree, numbers are not positive or not in the boxes, or if the splits are no trees.

    Examples
    --------
    One tree with one split, of column 0, which is the first of two binary columns:

    >>> from discrete_itd.channel.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)  # levels are stored category by category
    >>> column, threshold, rank = torch.tensor([0, -1, -1]), torch.tensor([0.5, 0, 0]), torch.tensor([[0.0, 0, 1, 1]])
    >>> probs = torch.tensor([[1.0, 0.9, 0.0, 0.1], [0.0, 0.2, 1.0, 0.8]])
    >>> forest = ForestDenoiser(book, column, threshold, rank, torch.tensor([1.0, 0.6, 0.4]), probs)
    >>> forest.log_prob(torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)).exp()
    tensor([0.5400, 0.0800], dtype=torch.float64)
    """

    exact = True
    ancestral = True
    log_shares: Tensor
    probs: Tensor
    means: Tensor
    var: Tensor
    _log_weights: Tensor
    _of_splits: Tensor
    _low: Tensor
    _high: Tensor
    _numbers: Tensor
    shared: Tensor
    _log_rest: Tensor
    _log_shared: Tensor

    def __init__(
        self,
        codebook: Codebook,
        column: Tensor,
        threshold: Tensor,
        rank: Tensor,
        shares: Tensor,
        probs: Tensor,
        mean: Tensor | None = None,
        var: Tensor | None = None,
        wide: float = 1e-3,
        shared: Tensor | None = None,
    ) -> None:
        super().__init__(codebook)
        if not 0 < wide < 1:
            raise ValueError(f"wide must lie between 0 and 1, got {wide}")
        self.wide = wide
        self.splits = splits = Splits(codebook, column, threshold, rank)
        like, n_reals = codebook.known_snr, len(codebook.reals)
        shares = checked("shares", shares, (splits.n_nodes,), positive=True)
        probs = checked("probs", probs, (splits.n_leaves, codebook.levels.n_points))
        mean = checked("mean", mean, (splits.n_leaves, n_reals))
        var = checked("var", var, (splits.n_leaves, n_reals), positive=True)
        probs, log_shares = probs.to(like), shares.to(like).log()
        roots, below = log_shares[: splits.n_trees], log_shares[splits.n_trees :].view(-1, 2)
        log_shares = torch.cat([roots.log_softmax(0), below.log_softmax(1).flatten()])
        boxes = splits.boxes()
        for nodes, own in zip(splits.leaves.split(COUNTED), probs.split(COUNTED), strict=True):
            inside = splits.inside(nodes, *boxes)
            if not bool(((own > 0) == inside).all() & (own >= 0).all()):
                raise ValueError("probs must be positive in the box of each leaf and zero outside")
            if not bool((codebook.levels.sum(inside.long()) > 0).all()):
                raise ValueError("the box of a leaf has none of the levels of a column")
        self.register_buffer("log_shares", log_shares)
        self.register_buffer("probs", codebook.levels.normalised(probs))
        self.register_buffer("means", mean.to(like))
        self.register_buffer("var", var.to(like))
        self.opened = OpenedNumbers(codebook)
        shape = splits.n_leaves, len(self.opened.column)
        shared = like.new_zeros(shape) if shared is None else checked("shared", shared, shape)
        if bool((shared < 0).any()) or bool((self.opened.by_column(shared) >= 1).any()):
            raise ValueError("shared must be probabilities that leave some to other numbers")
        self.register_buffer("shared", shared.to(like))
        for name, bound in zip(("_low", "_high"), boxes, strict=True):
            own = bound[splits.leaves][:, codebook.reals]
            self.register_buffer(name, own, persistent=False)
        self._derive()

    @torch.no_grad()
    def _derive(self) -> None:
        """Keep what follows from the parameters, since every score needs it."""
        splits, book = self.splits, self.codebook
        own = self.log_shares.new_zeros(splits.n_nodes, book.n_columns)
        for part in splits.depths[1:]:
            up = splits.parent[part]
            own[part] = own[up]
            at = torch.arange(part.start, part.stop, device=up.device)
            own[at, splits.column[up]] += self.log_shares[part]
        of_splits = own[splits.leaves]  # (L, C), nats of the splits by a column
        sd, low, high = self.var.double().sqrt(), self._low.double(), self._high.double()
        of_own = log_between((low - self.means) / sd, (high - self.means) / sd)
        of_wide = log_between(low / WIDE_SD, high / WIDE_SD)
        log_rest = torch.log1p(-self.opened.by_column(self.shared.double()))
        # shares of both Gaussians over their masses in the box, the first times the height of its density
        log_own = log_rest + math.log1p(-self.wide) - of_own - sd.log() - LOG_ROOT
        log_wide = log_rest + math.log(self.wide) - of_wide
        derived = {
            "_log_rest": log_rest,
            "_log_shared": nn.functional.pad(self.shared.double().log(), (0, 1), value=-math.inf),
            "_of_splits": of_splits,
            "_log_weights": of_splits.sum(1) + self.log_shares[splits.tree[splits.leaves]],
            # float64, as the exponents: a box in a tail has large ones, whose difference is the log-density
            "_numbers": torch.stack([self.means.double(), 1 / sd, low, high, log_own, log_wide], 1),
        }
        for name, data in derived.items():
            self.register_buffer(name, data, persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._derive()

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        return cls(
            codebook,
            tensors["splits.column"],
            tensors["splits.threshold"],
            tensors["splits.rank"],
            tensors["log_shares"].exp(),
            tensors["probs"],
            tensors["means"],
            tensors["var"],
            config["wide"],
            tensors["shared"],
        )

    @property
    def own_reals(self) -> bool:
        """Whether there are continuous columns."""
        return len(self.codebook.reals) > 0

    @property
    def n_trees(self) -> int:
        """Number of trees Tr."""
        return self.splits.n_trees

    @property
    def row_work(self) -> int:
        """With continuous columns, five numbers of both components of a leaf and column, and two of opened numbers."""
        n = 10 + 2 * self.opened.slots.shape[1]
        return self.codebook.work + n * self.splits.n_leaves * len(self.codebook.reals)

    @property
    def score_work(self) -> int:
        return self.n_trees * (len(self.splits.depths) + self.codebook.n_columns)

    # -- scores -----------------------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        """As of every denoiser, in float64."""
        out = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for pairs in self._pairs(x):
            joint = self._log_weights[pairs.leaf] + self._cells(pairs)
            out[pairs.rows] = pairs.log_total(joint)
        return out

    def log_probs_before(self, x: Tensor, last: Sequence[int]) -> Tensor:
        """As of every denoiser, by the leaves that rows without the ``last`` columns can reach."""
        book, order = self.codebook, [j for j in range(x.shape[1]) if j not in last]
        n, order = len(order), index_tensor((*order, *last), str(x.device))
        out = torch.zeros(1 + len(last), len(x), dtype=torch.float64, device=x.device)
        for pairs in self._pairs(x.index_fill(1, order[n:], torch.nan)):
            level, reals = self.splits.places(x[pairs.rows])
            pairs, leaf = pairs._replace(level=level, reals=reals), pairs.leaf
            cells = torch.zeros(len(leaf), 1 + x.shape[1], dtype=torch.float64, device=x.device)
            cells[:, 0] = self._log_weights[leaf]
            cells[:, 1 + book.finite] = self._level_cells(pairs).double()
            if len(book.reals):
                values = reals[pairs.row]
                is_out = (values <= self._low[leaf]) | (values > self._high[leaf])
                numbers = self._number_cells(pairs).double()
                cells[:, 1 + book.reals] = numbers.masked_fill(is_out, -torch.inf)
            cells[:, 1:] = cells[:, 1 + order]
            out[:, pairs.rows] = pairs.log_total(cells.cumsum(1)[:, n:]).T
        return out

    def _pairs(self, x: Tensor) -> Iterator[Pairs]:
        """Every row of ``x`` (B, C) once, with the leaves that agree with it, as many at once as memory allows."""
        splits, width = self.splits, max(1, self.codebook.n_columns)
        gaps = self.codebook.unknown(x).sum(1)
        few = max(1, CACHED // (4 * splits.n_trees * width))
        for rows in (
            torch.nonzero(gaps == 0).flatten().split(max(1, CACHED // (16 * splits.n_trees)))
        ):
            level, reals = splits.places(x[rows])
            leaf = splits.descend(splits.values(level, reals), len(rows))
            for own in torch.arange(len(rows), device=x.device).split(few):
                row = torch.arange(len(own), device=x.device).repeat_interleave(splits.n_trees)
                counts = torch.full_like(own, splits.n_trees)
                yield Pairs(rows[own], level[own], reals[own], row, leaf[own].flatten(), counts)
        for rows in self._alike(gaps, gaps > 0):
            yield from self._reached(rows, *splits.places(x[rows]), CACHED // width)

    def responsibilities(
        self, x: Tensor, tree: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]]:
        """The leaves that rows ``x`` (B, C) can reach, with their posterior in each tree given the known cells (22).

        Leaves and float64 weights (P,), which sum to one for a row and a tree, and the cells of the pairs' rows. A row
        has leaves in all trees, or in one ``tree`` (B,).
        """
        n_trees = self.n_trees
        of_leaf = self.splits.tree[self.splits.leaves]
        for pairs in self._pairs(x):
            joint = (self._log_weights[pairs.leaf] + self._cells(pairs)).double()
            own = of_leaf[pairs.leaf]  # not sorted: the trees share the numbering of leaves
            place = pairs.row * n_trees + own
            top = joint.new_full((len(pairs.rows) * n_trees,), -torch.inf)
            top.scatter_reduce_(0, place, joint, "amax")
            weight = (joint - top[place]).exp()
            weight /= torch.zeros_like(top).index_add_(0, place, weight)[place]
            mine = slice(None)
            if tree is not None:
                mine = torch.nonzero(own == tree[pairs.rows][pairs.row]).flatten()
            row = pairs.row[mine]
            yield pairs.leaf[mine], weight[mine], (pairs.level[row], pairs.reals[row])

    def _alike(self, n_unknown: Tensor, among: Tensor, most: int = CACHED) -> Iterator[Tensor]:
        """Numbers of rows ``among`` all (B,) with equally many unknown cells, with about ``most`` leaves together."""
        splits = self.splits
        for n in n_unknown[among].unique().tolist():
            # a column is seldom split more than twice on the way to a leaf
            leaves = min(splits.n_leaves, splits.n_trees << min(2 * n, 40))
            yield from (
                torch.nonzero(among & (n_unknown == n)).flatten().split(max(1, most // leaves))
            )

    def _reached(self, rows: Tensor, level: Tensor, reals: Tensor, most: int) -> Iterator[Pairs]:
        """Rows, with their cells, and all leaves that agree with them, about ``most`` pairs at once."""
        value = self.splits.values(level, reals)
        row, leaf, _, counts = self.splits.reach(value, len(rows))
        for some, pairs in portions(counts, most):
            own = row[pairs] - some.start, leaf[pairs], counts[some]
            yield Pairs(rows[some], level[some], reals[some], *own)

    def _cells(self, pairs: Pairs) -> Tensor:
        """Log-probability of the known cells of each pair's row in its leaf."""
        out = self._level_cells(pairs).sum(-1)
        return out + self._number_cells(pairs).sum(-1) if len(self.codebook.reals) else out

    def _level_cells(self, pairs: Pairs) -> Tensor:
        n_points, missing = self.probs.shape[1], pairs.level == self.probs.shape[1]
        level = pairs.level.clamp_max(n_points - 1)[pairs.row]
        cells = self.probs.view(-1)[level.add_(pairs.leaf[:, None] * n_points)].log()
        return cells.masked_fill_(missing[pairs.row], 0.0) if bool(missing.any()) else cells

    def _number_cells(self, pairs: Pairs) -> Tensor:
        """Log-probability of the numbers of each pair's row in its leaf, 0 where missing: float64, (P, R)."""
        row, leaf, zero = pairs.row, pairs.leaf, self.means.new_zeros(())
        cells, n_reals = self.codebook.lines.cells(pairs.reals), pairs.reals.shape[1]
        ends = [cells.middle + side * cells.width for side in (-0.5, 0.5)]
        of_rows = (*cells, cells.log_width(), *ends, log_mass(cells, zero, zero + WIDE_SD))
        middle, width, log_width, left, right, far = (t[row] for t in of_rows)
        mean, scale, low, high, log_own, log_wide = self._numbers[leaf].unbind(1)
        z, w = (middle - mean).mul_(scale), (width * scale).square_()
        is_cut, z = (left < low) | (right > high), z.square_()
        # density times width, and the first order of what that errs by
        own = log_width.sub_(z / 2).add_(log_own).add_((z - 1).mul_(w).div_(24))
        is_wide = (w * z.clamp_min(1.0) > NARROW_CELL**2) | is_cut

        def part(at: Tensor) -> tuple[Intervals, Tensor]:
            """Cells, where the box cuts them, and the leaf's numbers at places (n,) of the flattened pairs."""
            pair, r = at.div(n_reals, rounding_mode="floor"), at % n_reals
            numbers = self._numbers[leaf[pair], :, r].T
            return clipped(Intervals(*(t[row[pair], r] for t in cells)), *numbers[2:4]), numbers

        def of_wide(at: Tensor) -> Tensor:
            some, (mean, scale, _, _, log_own, _) = part(at)
            return log_mass(some, mean, 1 / scale) + log_own - scale.log() + LOG_ROOT

        def of_cut(at: Tensor) -> Tensor:
            return log_mass(part(at)[0], zero, zero + WIDE_SD)

        own = replace_rows(own.flatten(), is_wide.flatten(), of_wide).view_as(own)
        far = replace_rows(far.flatten(), is_cut.flatten(), of_cut).view_as(own).add_(log_wide)
        # torch.logaddexp would round by position
        out = torch.maximum(own, far).add_((own - far).abs_().neg_().exp_().log1p_())
        if self.shared.shape[1]:
            number = self.opened.number_of(pairs.reals)
            beside = out.flatten()

            def with_shared(at: Tensor) -> Tensor:
                pair, r = at.div(n_reals, rounding_mode="floor"), at % n_reals
                both = beside[at], self._log_shared[leaf[pair], number[row[pair], r]]
                top = torch.maximum(*both)
                return top + sum(((t - top).exp() for t in both), torch.zeros_like(top)).log()

            is_shared = (number < self.shared.shape[1])[row]
            out = replace_rows(beside, is_shared.flatten(), with_shared).view_as(out)
        return out.masked_fill_(middle.isnan(), 0.0)

    def components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The leaves of all trees, as of every denoiser."""
        book, (level, reals), n = self.codebook, self.splits.places(x), self.splits.n_leaves
        rows, leaves = torch.arange(len(x), device=x.device), torch.arange(n, device=x.device)
        row, leaf = rows.repeat_interleave(n), leaves.repeat(len(x))
        pairs = Pairs(rows, level, reals, row, leaf, torch.full_like(rows, n))
        out = torch.zeros(len(x), n, x.shape[1], dtype=torch.float64, device=x.device)
        out[:, :, book.finite] = self._level_cells(pairs).view(len(x), n, len(book.finite)).double()
        inside = (reals[:, None] > self._low) & (reals[:, None] <= self._high)
        cells = self._number_cells(pairs).view(inside.shape)
        out[:, :, book.reals] = cells.masked_fill(~inside, -torch.inf).double()
        out = out.mT
        return self._log_weights.double(), out.masked_fill_(x.isnan()[..., None], 0.0)

    def log_factors(self, x: Tensor) -> Tensor:
        """Increments of the log-probability as the columns are added one by one, the leaves of the row held fixed.

        A column has the shares of the splits by it and its probability in the leaves, which are weighted by their
        posterior given the columns before it; the mean over the order of the table and its reverse.
        """
        return self._factors(x, by_tree=False)

    def mean_log_factors(self, x: Tensor) -> Tensor:
        """The mean over the trees of the factors of each tree alone for rows ``x`` (B, C): float64, (B, C).

        Rows sum to the logarithm of the geometric mean of the trees.
        """
        return self._factors(x, by_tree=True)

    def _factors(self, x: Tensor, *, by_tree: bool) -> Tensor:
        book, n_trees = self.codebook, self.n_trees
        out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
        for pairs in self._pairs(x):
            start, terms = self._terms(pairs, x)
            # one leaf a tree: the order does not matter
            if by_tree and len(pairs.row) == n_trees * len(pairs.rows):
                out[pairs.rows] += _mean(terms.unflatten(0, (-1, n_trees)))
                continue
            total = pairs.log_total
            if by_tree:
                tree = self.splits.tree[self.splits.leaves[pairs.leaf]]
                place, sorting = (pairs.row * n_trees + tree).sort(stable=True)
                start, terms = (start - self.log_shares[tree])[sorting], terms[sorting]
                counts = torch.bincount(place, minlength=len(pairs.rows) * n_trees)
                total = partial(log_totals, row=place, counts=counts)
            for columns in (range(book.n_columns), range(book.n_columns)[::-1]):
                order = book.in_order(columns)
                totals = total(start[..., None] + terms[..., order].cumsum(-1))
                steps = totals.diff(dim=1, prepend=torch.zeros_like(totals[:, :1]))
                if by_tree:
                    steps = _mean(steps.unflatten(0, (-1, n_trees)))
                out[pairs.rows[:, None], torch.tensor(order, device=x.device)] += steps / 2
        # splits by a number say of an absent one that it is absent
        for j, i in book.indicator.items():
            out[:, i] += out[:, j].masked_fill(~x[:, j].isnan(), 0.0)
        return out.masked_fill(x.isnan(), 0.0)

    def _terms(self, pairs: Pairs, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each pair's leaf as far as missing cells decide on it, and of each known cell."""
        missing = self.codebook.unknown(x[pairs.rows])[pairs.row]
        terms = self._of_splits[pairs.leaf].double()
        start = self.log_shares[self.splits.tree[self.splits.leaves[pairs.leaf]]]
        start = start + terms.masked_fill(~missing, 0.0).sum(-1)
        terms[..., self.codebook.finite] += self._level_cells(pairs)
        terms[..., self.codebook.reals] += self._number_cells(pairs)
        return start, terms.masked_fill_(missing, 0.0)

    # -- posteriors -------------------------------------------------------------------------------

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        book, gaussian, reals = self.codebook, None, self.codebook.reals_of(y, snr)
        evidence = self.evidence(y, snr)
        log_mass, logits, leaves = self._given_evidence(evidence, *reals[:2])
        if len(book.reals):
            log_weight, leaf = leaves  # (B, K)
            leaf = leaf[:, None]
            fit, *moments = (t.to(y) for t in self._gaussian(leaf).given(*reals))
            fit = fit.clamp_min(-FARTHEST)
            # a leaf has its own weight, which the evidence of the column divides among what is in it
            of_own, of_shared = fit.tensor_split((2 * leaf.shape[2],), 2)
            own, shared = self._in_leaves(leaf)
            within = own + of_own.unflatten(2, (-1, 2)), shared.mT + of_shared[:, :, None]
            prior = self._gaussian(leaf, log_weight[:, None] - torch.cat(within, 3).logsumexp(3))
            if any_true(is_coarse(*reals)):  # the components become numbers of the lattice
                gaussian = prior.update(*reals)
            else:
                gaussian = GaussianPosterior(prior.log_weight + fit, *moments, *prior.bounds)
        categorical = CategoricalPosterior(book.levels, logits)
        return log_mass, Posterior(book, categorical, gaussian)

    @torch.no_grad()
    def leave_one_out(self, x: Tensor, asked: Tensor) -> Posterior:
        """In closed form, by all leaves that agree with a row but for the cells of one column."""
        book, n_points = self.codebook, self.probs.shape[1]
        step = max(1, 4 * CACHED // (self.n_trees * max(n_points, book.n_columns)))
        parts = [self._left_out(rows) for rows in x.split(step)]
        categorical = CategoricalPosterior(book.levels, torch.cat([q for q, _ in parts]))
        gaussian = GaussianPosterior.stacked([q for _, q in parts]) if len(book.reals) else None
        return Posterior(book, categorical, gaussian)

    def _left_out(self, x: Tensor) -> tuple[Tensor, GaussianPosterior]:
        """Logits of the levels, and the mixtures of the numbers, each given all other cells of its row."""
        book, levels = self.codebook, self.codebook.levels
        level, reals = self.splits.places(x)
        values = self.splits.values(level, reals)
        row, leaf, odd, counts = self.splits.reach(values, len(x), but_one=True)
        pairs = Pairs(torch.arange(len(x), device=x.device), level, reals, row, leaf, counts)
        cells = x.new_zeros(len(row), book.n_columns)
        cells[:, book.finite] = self._level_cells(pairs).to(x)
        cells[:, book.reals] = self._number_cells(pairs).to(x)
        some = torch.nonzero(odd >= 0).flatten()
        cells[some, odd[some]] = 0.0
        joint = self._log_weights[leaf] + cells.sum(1)
        # by the column that is left out: leaves that agree with the row, then those that disagree there
        whole = torch.nonzero(odd < 0).flatten()
        each = torch.arange(book.n_columns, device=x.device).expand(len(whole), -1)
        column = torch.cat([each.flatten(), odd[some]])
        pair = torch.cat([whole.repeat_interleave(book.n_columns), some])
        weight = torch.cat([(joint[whole, None] - cells[whole]).flatten(), joint[some]])
        key, order = (row[pair] * book.n_columns + column).sort(stable=True)
        column, pair, weight = column[order], pair[order], weight[order]
        counts = torch.bincount(key, minlength=x.numel())
        weight = weight - log_totals(weight, key, counts)[key]
        probs = self.probs.new_zeros(len(x), levels.n_points)
        for j, i in book.place.items():
            at, own = torch.nonzero(column == j).flatten(), levels.own(i)
            parts = self.probs[:, own][leaf[pair[at]]] * weight[at, None].exp().to(probs)
            probs[:, own] = add_at(probs[:, own].clone(), 0, row[pair[at]], parts)
        at, n_reals = torch.nonzero(torch.isin(column, book.reals)).flatten(), len(book.reals)
        cell = row[pair[at]] * n_reals + torch.searchsorted(book.reals, column[at])
        of_cells = padded(cell, weight[at].to(probs), leaf[pair[at]], len(x) * n_reals)
        log_weight, leaves = (t.unflatten(0, (len(x), n_reals)) for t in of_cells)
        return finite_log(probs), self._gaussian(leaves, log_weight)

    def _in_leaves(self, leaf: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of both Gaussians, (B, R, K, 2), and of the opened numbers, (B, R, n, K), in leaves."""
        each = torch.arange(len(self.codebook.reals), device=leaf.device)[:, None]
        rest = self._log_rest[leaf, each].to(self.means)
        own = torch.stack([rest + math.log(p) for p in (1 - self.wide, self.wide)], 3)
        shared = self._log_shared[leaf[:, :, None], self.opened.slots[..., None]]
        return own, shared.to(self.means)

    def _gaussian(self, leaf: Tensor, log_weight: Tensor | None = None) -> GaussianPosterior:
        """The continuous columns in leaves (B, R or 1, K): (B, R, 2 K + n), two for each leaf, then opened numbers."""
        each = torch.arange(len(self.codebook.reals), device=leaf.device)[:, None]
        mean, var, low, high = (
            t[leaf, each] for t in (self.means, self.var, self._low, self._high)
        )
        own, shared = self._in_leaves(leaf)
        if log_weight is not None:
            own, shared = own + log_weight[..., None], shared + log_weight[:, :, None]
        far = torch.full_like(mean, WIDE_SD**2)
        pairs = (mean, torch.zeros_like(mean)), (var, far), (low, low), (high, high)
        parts = own, *(torch.stack(pair, 3) for pair in pairs)
        # within its cell a number is distributed alike in every leaf
        numbers = shared.logsumexp(3), *self.opened.distributions()
        both = [(t.flatten(2), more.to(t)) for t, more in zip(parts, numbers, strict=True)]
        return GaussianPosterior(
            *(torch.cat([t, more.expand(*t.shape[:2], -1)], 2) for t, more in both)
        )

    def _given_evidence(
        self, ell: Tensor, y: Tensor, snr: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Log-probability of the evidence (B,), float64, nats; logits (B, T) of the levels; and the leaves that agree.

        The leaves are, only with continuous columns, log-probabilities and numbers (B, K), :func:`padded`.
        """
        levels, n_points = self.codebook.levels, ell.shape[1]
        level = levels.index_of(levels.argmax(ell))
        # the other levels of a known cell are excluded, not just improbable
        is_known = levels.sum((ell >= -0.9 * KNOWN_NATS).long()) == 1
        level = level.masked_fill(~is_known, n_points)
        reals = y.masked_fill(~snr.isinf(), torch.nan)
        is_noisy = torch.cat(
            [~is_known & (levels.sum((ell < 0).long()) > 0), (snr > 0) & reals.isnan()], 1
        )
        is_noisy, n_unknown = is_noisy.any(1), (~is_known).sum(1) + reals.isnan().sum(1)
        log_mass = torch.zeros(len(ell), dtype=torch.float64, device=ell.device)
        logits, found = torch.empty_like(ell), []
        for rows, noisy in self._in_turn(n_unknown, is_noisy):
            most = CACHED // max(1, n_points if noisy else level.shape[1])
            for pairs in self._reached(rows, level[rows], reals[rows], most):
                row, leaf, shares = pairs.row, pairs.leaf, None
                if noisy:
                    at = pairs.rows[row]
                    joint, shares = self._weighed(leaf, ell[at], y[at], snr[at])
                else:
                    joint = self._log_weights[leaf] + self._cells(pairs)
                total = pairs.log_total(joint)
                log_mass[pairs.rows] = total
                log_weight = joint.double() - total[row]
                prior = self._mixed(pairs, log_weight.exp().to(ell), shares)
                logits[pairs.rows] = finite_log(prior).to(ell) + ell[pairs.rows]
                if reals.shape[1]:
                    found.append((pairs.rows[row], log_weight.to(ell), leaf))
        nothing = level.new_zeros(0), ell.new_zeros(0), level.new_zeros(0)
        row, weight, leaf = (torch.cat(t) for t in zip(nothing, *found, strict=True))
        return log_mass, logits, padded(row, weight, leaf, len(ell))

    def _in_turn(self, n_unknown: Tensor, is_noisy: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Numbers of rows, and whether they are noisy: as many alike as memory allows."""
        for noisy, most in ((False, CACHED), (True, CACHED * 4 // max(1, self.probs.shape[1]))):
            for rows in self._alike(n_unknown, is_noisy == noisy, most):
                yield rows, noisy

    def _weighed(self, leaf: Tensor, ell: Tensor, y: Tensor, snr: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of any evidence together with leaves (P,): (P,), nats; and of every level given the others.

        That is (P, T), over the probability of the column's own evidence.
        """
        levels, probs, like = self.codebook.levels, self.probs[leaf], ell.exp()
        masses = levels.sum(probs * like)  # zero in leaves of levels that the evidence excludes
        joint = self._log_weights[leaf].double() + masses.log().sum(1)
        if len(self.codebook.reals):
            q = self._gaussian(leaf[:, None, None])
            lines = self.codebook.lines
            joint += (q.log_weight + q.log_evidence(y, snr, lines)).logsumexp(2).sum(1)
        masses = masses.clamp_min(torch.finfo(ell.dtype).tiny)
        return joint, probs / levels.per_level(masses)

    def _mixed(self, pairs: Pairs, weight: Tensor, shares: Tensor | None) -> Tensor:
        """Sums (B, T) over the leaves of each row, weighted by (P,), of ``shares`` (P, T), by default ``probs``."""
        counts, row = pairs.counts, pairs.row
        if not self.probs.shape[1]:  # embedding_bag refuses a table without columns
            return weight.new_zeros(len(counts), 0)
        if shares is None:
            start = counts.cumsum(0) - counts
            return nn.functional.embedding_bag(
                pairs.leaf, self.probs, start, mode="sum", per_sample_weights=weight
            )
        return add_at(
            shares.new_zeros(len(counts), shares.shape[1]), 0, row, shares * weight[:, None]
        )

    # -- draws ------------------------------------------------------------------------------------

    @torch.no_grad()
    def complete(self, x: Tensor, n_draws: int, salt: int) -> Tensor:
        """A leaf by its probability given the known cells (22), then the other cells in it."""
        book, out = self.codebook, x.repeat_interleave(n_draws, 0)
        noise = RowNoise(out, torch.arange(n_draws, device=x.device).repeat(len(x)), salt)
        u = noise.uniform(book.n_columns + 1, 1).view(len(x), n_draws)
        leaf = torch.zeros_like(u, dtype=torch.int64)
        for pairs in self._pairs(x):
            joint = (self._log_weights[pairs.leaf] + self._cells(pairs)).double()
            joint, leaves = padded(pairs.row, joint, pairs.leaf, len(pairs.rows))
            leaf[pairs.rows] = leaves.gather(1, chosen(joint, u[pairs.rows]))
        leaf = leaf.flatten()
        for j in torch.nonzero(x.isnan().any(0)).flatten().tolist():
            for rows in torch.nonzero(out[:, j].isnan()).flatten().split(DRAWN):
                u, v = noise.uniform(j, 2)[rows].unbind(1)
                if j in book.place:
                    probs = self.probs[:, book.levels.own(book.place[j])][leaf[rows]]
                    out[rows, j] = chosen(probs.log().double(), u).double()
                    continue
                r = torch.nonzero(book.reals == j).flatten()
                q = self._gaussian(leaf[rows, None, None]).pick(lambda t, r=r: t[:, r])
                drawn = q.at_uniform(u[:, None], v[:, None])
                out[rows, j] = book.lines.rounded(drawn, r)[:, 0]
        return out.unflatten(0, (len(x), n_draws))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        book, levels = self.codebook, self.codebook.levels
        out = torch.zeros(n, book.n_columns, dtype=torch.float64, device=book.device)
        may_be = (~levels.level_unseen).to(self.probs)
        log_mass = levels.sum(self.probs * may_be).log().double().sum(1) + self._log_weights
        cdf = cumulative(log_mass)
        u = torch.rand(n, generator=generator, device=cdf.device, dtype=cdf.dtype)
        leaf = torch.searchsorted(cdf, u, right=True)
        logits = (self.probs[leaf] * may_be).log()
        codes = CategoricalPosterior(levels, logits).sample(generator)
        out.index_copy_(1, book.finite, codes.double())
        if len(book.reals):
            numbers = self._gaussian(leaf[:, None, None]).sample(generator)
            out.index_copy_(1, book.reals, book.lines.rounded(numbers))
        return out


class OpenedNumbers(nn.Module):
    """The A opened numbers of continuous columns, each of which has a mass of its own in a leaf.

    Attributes
    ----------
    column : Tensor of int64, shape (A,)
        Their columns among the continuous ones.
    low, high : Tensor, shape (A,)
        The ends of their cells.
    slots : Tensor of int64, shape (R, n)
        The numbers of each column, A where it has fewer than n.
    """

    column: Tensor
    low: Tensor
    high: Tensor
    slots: Tensor

    def __init__(self, book: Codebook) -> None:
        super().__init__()
        column, low, high = book.lines.opened_ends(book.known_snr)
        counts = torch.bincount(column, minlength=len(book.reals))
        places = torch.arange(int(counts.max()) if len(column) else 0, device=low.device)
        first = counts.cumsum(0) - counts
        slots = torch.where(places < counts[:, None], first[:, None] + places, len(column))
        parts = {"column": column, "low": low, "high": high, "slots": slots}
        for name, data in parts.items():
            self.register_buffer(name, data, persistent=False)

    def distributions(self) -> list[Tensor]:
        """Means, variances and bounds (R, n) of Gaussians that are about even in the cells."""
        low, high = (
            nn.functional.pad(t, (0, 1), value=v) for t, v in ((self.low, -1.0), (self.high, 1.0))
        )
        parts = (low + high) / 2, (high - low).square(), low, high
        return [t[self.slots] for t in parts]

    def inside(self, low: Tensor, high: Tensor) -> Tensor:
        """Which of the numbers lie between bounds (B, R), of which no cell holds one: bool, (B, A)."""
        middle, c = ((self.low + self.high) / 2).to(low), self.column
        return (low[:, c] < middle) & (middle <= high[:, c])

    def by_column(self, values: Tensor) -> Tensor:
        """Sums (B, R) of values (B, A) over the numbers of each column."""
        return values.new_zeros(len(values), len(self.slots)).index_add_(1, self.column, values)

    def hits(self, reals: Tensor) -> Tensor:
        """Which of the numbers cells (..., R) are: bool, (..., A)."""
        own = reals[..., self.column].double()
        return (own > self.low) & (own < self.high)

    def number_of(self, reals: Tensor) -> Tensor:
        """The number that each of the cells (..., R) is, A if none."""
        n = len(self.column)
        less = self.hits(reals) * (torch.arange(n, device=reals.device) - n)
        out = torch.full(reals.shape, n, device=reals.device)
        return out.index_add_(-1, self.column, less)


def portions(counts: Tensor, most: int) -> Iterator[tuple[slice, slice]]:
    """Consecutive rows, of ``counts`` (B,) pairs each, with about ``most`` pairs together; and their pairs."""
    stops = counts.cumsum(0)
    portion = (stops - counts).div(max(1, most), rounding_mode="floor")
    first_row = first_pair = 0
    for n in torch.unique_consecutive(portion, return_counts=True)[1].tolist():
        last = int(stops[first_row + n - 1])
        yield slice(first_row, first_row + n), slice(first_pair, last)
        first_row, first_pair = first_row + n, last


class Splits(nn.Module):
    """Trees of splits, without probabilities.

    The nodes of all trees are stored breadth first, the roots at the front, and both children of a node side by side:
    the i-th node that is no leaf, counted from 0, has the children ``n_trees + 2 i`` and ``n_trees + 2 i + 1``. A cell
    that is at most the threshold goes to the first child, and so does one that is absent by its ``codebook.indicator``,
    as if it were below all values. A level of a column of categories is compared by its rank, in an order of each
    tree's own: a threshold is then a random subset of the levels.

    Parameters
    ----------
    codebook : Codebook
    column : Tensor of int64, shape (M,)
        The column by which each node is split, -1 at leaves. A ValueError if these do not describe trees.
    threshold : Tensor, shape (M,)
        Of the rank of a level, or of the standardised number; anything finite at leaves.
    rank : Tensor, shape (n_trees, T)
        The rank of every level in each tree.

    Attributes
    ----------
    n_trees, n_nodes, n_leaves : int
        Tr, M and L.
    left, parent, tree : Tensor of int64, shape (M,)
        The first child of every node, a leaf's own number; the node above, -1 for a root; the tree.
    leaf : Tensor of int64, shape (M,)
        Number of a leaf among the leaves; -1 at other nodes.
    leaves : Tensor of int64, shape (L,)
        The nodes that are leaves.
    depths : list of slice
        The nodes of each depth, the roots first.
    """

    column: Tensor
    threshold: Tensor
    rank: Tensor
    left: Tensor
    parent: Tensor
    leaf: Tensor
    leaves: Tensor
    tree: Tensor
    _is_real: Tensor
    _place: Tensor
    _bound: Tensor

    def __init__(self, codebook: Codebook, column: Tensor, threshold: Tensor, rank: Tensor) -> None:
        super().__init__()
        device, n_columns = codebook.device, codebook.n_columns
        self.codebook = codebook
        if rank.ndim != 2 or not len(rank) or rank.shape[1] != codebook.levels.n_points:
            raise ValueError(
                f"rank must have the shape (trees, {codebook.levels.n_points}), got {tuple(rank.shape)}"
            )
        if column.ndim != 1 or threshold.shape != column.shape:
            raise ValueError("column and threshold must be vectors of the same length")
        self.n_trees, self.n_nodes = len(rank), len(column)
        column = column.cpu().long()
        inner = column >= 0
        if self.n_nodes != self.n_trees + 2 * int(inner.sum()):
            raise ValueError(
                f"{self.n_trees} trees with {int(inner.sum())} splits have another number of nodes than {self.n_nodes}"
            )
        place = torch.full((n_columns,), -1)  # of a column among the columns of its kind
        for family in (codebook.finite.cpu(), codebook.reals.cpu()):
            place[family] = torch.arange(len(family))
        if bool((column >= n_columns).any()):
            raise ValueError(
                f"splits must be by columns of the table, of which there are {n_columns}"
            )
        if not bool(threshold.isfinite().all() & rank.isfinite().all()):
            raise ValueError("thresholds and ranks must be finite")
        numbers = torch.arange(self.n_nodes)
        left = torch.where(inner, self.n_trees + 2 * (inner.cumsum(0) - 1), numbers)
        if bool((left[inner] <= numbers[inner]).any()):
            raise ValueError("the splits do not form trees: a node comes after its children")
        parent = torch.full((self.n_nodes,), -1)
        parent[left[inner]] = parent[left[inner] + 1] = numbers[inner]
        self.depths, start, stop, tree = [], 0, self.n_trees, numbers.clone()
        while start < stop:
            self.depths.append(slice(start, stop))
            if start:
                tree[start:stop] = tree[parent[start:stop]]
            start, stop = stop, stop + 2 * int(inner[start:stop].sum())
        leaves = numbers[~inner]
        self.n_leaves = len(leaves)
        leaf = torch.full((self.n_nodes,), -1).index_copy_(0, leaves, torch.arange(len(leaves)))
        is_real = torch.zeros(n_columns, dtype=torch.bool)
        is_real[codebook.reals.cpu()] = True
        self.register_buffer("column", column.to(device))
        self.register_buffer("threshold", threshold.to(codebook.known_snr))
        self.register_buffer("rank", rank.to(codebook.known_snr))
        derived = {
            "left": left,
            "parent": parent,
            "leaves": leaves,
            "leaf": leaf,
            "tree": tree,
            "_is_real": is_real[column] & inner,
            "_place": place[column].masked_fill(~inner, 0),
            "_bound": threshold.cpu().masked_fill(~inner, torch.inf).to(codebook.dtype),
        }
        for name, data in derived.items():
            self.register_buffer(name, data.to(device), persistent=False)

    def places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (B, C') of the categories of rows ``x`` (B, C), T where missing, and numbers (B, R)."""
        return self.codebook.level_of(x), x[:, self.codebook.reals].to(self.rank)

    def values(self, level: Tensor, reals: Tensor) -> Values:
        """Cells to be compared with thresholds, from their :meth:`places`: NaN where missing, -inf where absent."""
        n_points, width = self.rank.shape[1], level.shape[1]
        ranks = nn.functional.pad(self.rank, (0, 1), value=torch.nan)
        ranks = nn.functional.pad(ranks, (0, 1), value=-torch.inf).flatten()
        book, own = self.codebook, range(n_points)
        absent = {j: own[book.levels.own(book.place[i])][1] for j, i in book.indicator.items()}
        absent = {j: level[:, book.place[book.indicator[j]]] == k for j, k in absent.items()}
        for j, is_absent in absent.items():
            if j in book.place:
                at = torch.tensor([book.place[j]], device=level.device)
                cells = level[:, at].masked_fill(is_absent[:, None], n_points + 1)
                level = level.index_copy(1, at, cells)
            else:
                reals = reals.masked_fill(is_absent[:, None] & (book.reals == j), -torch.inf)
        flat = level.flatten()

        def value(row: Tensor, node: Tensor) -> Tensor:
            place, is_real = self._place[node], self._is_real[node]
            if not width:
                return reals[row, place]
            own = flat[row * width + place.masked_fill(is_real, 0)]
            own = ranks[self.tree[node] * (n_points + 2) + own]
            if not reals.shape[1]:
                return own
            return torch.where(is_real, reals[row, place.masked_fill(~is_real, 0)], own)

        return value

    def descend(self, value: Values, n_rows: int) -> Tensor:
        """The leaf of every row without gaps in each tree, (B, Tr), by its :meth:`values`."""
        device = self.column.device
        node = torch.arange(self.n_trees, device=device).repeat_interleave(n_rows)
        row = torch.arange(n_rows, device=device).repeat(self.n_trees)
        for _ in self.depths[1:]:
            left, cell = self.left[node], value(row, node)  # a leaf is its own first child
            node = left + (cell > self._bound[node])  # never greater at a leaf
        return self.leaf[node].view(self.n_trees, n_rows).T.contiguous()

    def reach(self, value: Values, n_rows: int, *, but_one: bool = False) -> tuple[Tensor, ...]:
        """Every leaf that agrees with a row's known cells; with ``but_one``, also if the cell of one column disagrees.

        Row and leaf (P,), sorted, the column whose cell disagrees, -1 if none does, and leaves of each row (B,).
        """
        device = self.column.device
        node = torch.arange(self.n_trees, device=device).repeat(n_rows)
        row = torch.arange(n_rows, device=device).repeat_interleave(self.n_trees)
        odd = torch.full_like(row, -1)
        keys, odds = [row[:0]], [odd[:0]]
        owner = torch.arange(self.codebook.n_columns, device=device)
        for j, i in self.codebook.indicator.items() if but_one else ():
            owner[j] = i
        while len(node):
            is_leaf = self.column[node] < 0
            keys.append(row[is_leaf] * self.n_leaves + self.leaf[node[is_leaf]])
            odds.append(odd[is_leaf])
            row, node, odd = row[~is_leaf], node[~is_leaf], odd[~is_leaf]
            threshold, left, column = self.threshold[node], self.left[node], self.column[node]
            cell = value(row, node)  # NaN goes to both
            first, second = ~(cell > threshold), ~(cell <= threshold)
            below = [(left, row, odd, first), (left + 1, row, odd, second)]
            if but_one:  # an absent cell disagrees by its indicator
                column = torch.where(cell == -torch.inf, owner[column], column)
                other = (first != second) & ((odd < 0) | (odd == column))
                below.append((left + first, row, column, other))
            node, row, odd = (torch.cat([t[i][t[3]] for t in below]) for i in range(3))
        key, order = torch.cat(keys).sort()
        row = key.div(self.n_leaves, rounding_mode="floor")
        counts = torch.bincount(row, minlength=n_rows)
        return row, key % self.n_leaves, torch.cat(odds)[order], counts

    def boxes(self) -> tuple[Tensor, Tensor]:
        """The interval of every column in each node, lower end excluded: (M, C) twice, infinite without a bound."""
        low = self.rank.new_full((self.n_nodes, self.codebook.n_columns), -torch.inf)
        high = -low
        for part in self.depths[1:]:
            up = self.parent[part]
            low[part], high[part] = low[up], high[up]
            node = torch.arange(part.start, part.stop, device=up.device)
            is_second = node != self.left[up]
            for bound, which in ((high, ~is_second), (low, is_second)):
                above = up[which]
                bound[node[which], self.column[above]] = self.threshold[above]
        return low, high

    def inside(self, nodes: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Which levels lie in the :meth:`boxes` ``low`` and ``high`` of nodes (n,): bool, (n, T)."""
        book = self.codebook
        column, rank = book.finite[book.levels.level_column], self.rank
        rank = rank[self.tree[nodes]]
        out = (rank > low[nodes][:, column]) & (rank <= high[nodes][:, column])
        for j, i in book.indicator.items():  # an absent cell is always in the first child
            out[:, book.levels.own(book.place[i])][:, 1] &= low[nodes, j] == -torch.inf
        return out

    def sums(self, of_leaves: Tensor) -> Tensor:
        """Sums of leaves' values (L, ...) in every node: (M, ...)."""
        out = of_leaves.new_zeros(self.n_nodes, *of_leaves.shape[1:])
        out[self.leaves] = of_leaves
        for part, below in zip(self.depths[-2::-1], self.depths[:0:-1], strict=True):
            inner = torch.nonzero(self.column[part] >= 0).flatten() + part.start
            out[inner] = out[below].unflatten(0, (-1, 2)).sum(1, dtype=out.dtype)
        return out

    def cut(self, rows: Tensor, fewest: float) -> tuple[Splits, Tensor]:
        """The trees without splits into nodes of fewer than ``fewest`` of the ``rows`` (M,); each leaf's new leaf (L,).

        Nor have they any split below one that is left out.
        """
        # the node that a node ends up in
        top = torch.arange(self.n_nodes, device=self.column.device)
        second = rows[(self.left + 1).clamp_max(self.n_nodes - 1)]
        is_inner = (torch.minimum(rows[self.left], second) >= fewest) & (self.column >= 0)
        for part in self.depths[1:]:
            up = self.parent[part]
            top[part] = torch.where(is_inner[top[up]] & (top[up] == up), top[part], top[up])
        kept = torch.nonzero(top == torch.arange(self.n_nodes, device=top.device)).flatten()
        column = self.column[kept].masked_fill(~is_inner[kept], -1)
        threshold = self.threshold[kept].masked_fill(column < 0, 0.0)
        splits = Splits(self.codebook, column, threshold, self.rank)
        new = torch.full_like(top, -1).index_copy_(0, kept, splits.leaf)
        return splits, new[top[self.leaves]]


# -- the fit: counts of rows in the leaves, smoothed towards the nodes above them ---------------------


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
        self.opened = OpenedNumbers(book)
        shape = n, len(self.opened.column)
        self.shared = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(
        self, x: Tensor, tree: Tensor | None = None, is_over: Callable[[], bool] = lambda: False
    ) -> ForestCounts:
        """Count rows ``x`` (N, C) in all trees, or each in one ``tree`` (N,); after ``is_over`` no more of them."""
        for name in ("leaf_gaussians", "in_cells"):
            self.__dict__.pop(name, None)
        gaps = self.splits.codebook.unknown(x).any(1)
        for rows in torch.nonzero(~gaps).flatten().split(COUNTED):
            if is_over():
                break
            cells = self.splits.places(x[rows])
            leaf = self.splits.descend(self.splits.values(*cells), len(rows))
            own = leaf.T if tree is None else leaf.gather(1, tree[rows, None]).T
            for leaf in own:
                self._count(leaf, *cells)
        for rows in torch.nonzero(gaps).flatten().split(COUNTED) if gaps.any() else ():
            assert self.given is not None
            if is_over():
                break
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
            hits = self.opened.hits(reals).double()
            self.shared.index_add_(0, leaf, hits * weight[:, None])
            there = ~reals.isnan() & (self.opened.by_column(hits) == 0)
            reals = reals.nan_to_num(0.0).double() * there
            sums = torch.stack([there.double(), reals, reals.square()])
            self.reals.index_add_(1, leaf, sums * weight[:, None])

    def cut(self, fewest: int) -> ForestCounts:
        """The same rows in the leaves of shallower trees, each of at least ``fewest`` rows, or a root."""
        splits, leaf = self.splits.cut(self.splits.sums(self.rows), fewest)
        out = ForestCounts(splits)
        out.rows.index_add_(0, leaf, self.rows)
        out.levels.index_add_(0, leaf, self.levels)
        out.reals.index_add_(1, leaf, self.reals)
        out.shared.index_add_(0, leaf, self.shared)
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
        mean, var = torch.zeros_like(low), torch.full_like(low, SD**2)
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

    @cached_property
    def leaf_gaussians(self) -> tuple[Tensor, Tensor]:
        """The :meth:`gaussians` of the rows counted so far."""
        return self.gaussians(ABOVE_MOMENTS)

    @cached_property
    def in_cells(self) -> Tensor:
        """Mass of the opened numbers' cells in each leaf, of its Gaussians and of the wide ones: (L, A).

        No split cuts such a cell: a leaf's box holds all of it or nothing.
        """
        (mean, var), wide = self.leaf_gaussians, WIDE
        splits, opened, c = self.splits, self.opened, self.opened.column
        if not len(c):
            return mean.new_zeros(splits.n_leaves, 0)
        bounds = [t[:, splits.codebook.reals].double() for t in splits.boxes()]
        middle, width, out = (opened.low + opened.high) / 2, opened.high - opened.low, []
        parts = torch.arange(splits.n_leaves, device=c.device).split(max(1, CACHED // len(c)))
        for part in parts:
            low, high = (t[splits.leaves[part]] for t in bounds)
            mass = 0.0
            for p, m, sd in ((1 - wide, mean[part], var[part].sqrt()), (wide, 0.0, WIDE_SD)):
                m, sd = (torch.as_tensor(t).expand_as(low) for t in (m, sd))
                log_box = log_between((low - m) / sd, (high - m) / sd)
                z, w = (middle - m[:, c]) / sd[:, c], width / sd[:, c]
                mass += p * (log_mass_of_wide(z, w) - log_box[:, c]).exp()
            out.append(mass * opened.inside(low, high))
        return torch.cat(out)

    def masses(self, above: float) -> Tensor:
        """Probability of every opened number in each leaf, beside what Gaussians have :meth:`in_cells`: (L, A).

        Both together are the number's share of the rows. ``above`` is the pseudo-count of the node above.
        """
        splits, opened, c, of_gaussians = (
            self.splits,
            self.opened,
            self.opened.column,
            self.in_cells,
        )
        counts = splits.sums(self.shared)
        rows = splits.sums(self.reals[0]) + opened.by_column(counts)
        inside = opened.inside(*(t[:, splits.codebook.reals] for t in splits.boxes()))
        share = counts / (rows[:, c] + 1)
        for part in splits.depths[1:]:
            before = share[splits.parent[part]] * inside[part]
            share[part] = (counts[part] + above * before) / (rows[part][:, c] + above)
        share, least = share[splits.leaves], 1e-6
        beside = (1 - opened.by_column(of_gaussians)).clamp_min(least)
        rest = ((1 - opened.by_column(share)) / beside).clamp(least, 1.0)
        share = (share - rest[:, c] * of_gaussians).clamp_min(0.0)
        return share / (rest + opened.by_column(share))[:, c]

    def forest(self, marginals: MarginalDenoiser, above: float) -> ForestDenoiser:
        """The forest whose leaves have these counts, beside ``marginals``, the independent columns of the same rows.

        ``above`` is the pseudo-count of the node above.
        """
        splits, book = self.splits, self.splits.codebook
        # the other pseudo-count, in rows: by held-out rows, as WIDE and ABOVE_MOMENTS
        shares = self.log_shares(pseudo_count=0.5).exp()
        probs = self.probs(marginals.log_probs.exp(), above, root=0.05)
        parts = splits.column, splits.threshold, splits.rank, shares, probs
        how = {"wide": WIDE, "shared": self.masses(above)}
        return ForestDenoiser(book, *parts, *self.leaf_gaussians, **how)


def responsible(
    splits: Splits,
    marginals: MarginalDenoiser,
    x: Tensor,
    tree: Tensor | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> ForestDenoiser:
    """The forest of rows ``x`` (N, C) by which the leaves of rows with gaps are weighted: rounds of EM from whole rows.

    Each row is counted in all trees, or in one ``tree`` (N,); after ``is_over`` no more of them.
    """
    gaps = splits.codebook.unknown(x).any(1)
    parts = [(x[own], None if tree is None else tree[own]) for own in (~gaps, gaps)]
    whole = ForestCounts(splits).add(*parts[0], is_over)
    given = whole.forest(marginals, ABOVE)
    # one round is .01 nats a row behind with 30 % missing; two that start from independent columns instead of whole
    # rows are .01 behind and, missing at random given a column, .13; four take half as long again; where few rows have
    # gaps, whole rows are enough
    for _ in range(2 if float(gaps.double().mean()) > 0.1 else 0):
        counts = ForestCounts(splits, given).add(*parts[1], is_over)
        for name in ("rows", "levels", "reals", "shared"):
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
    flat = torch.where(finite, (10 * width).square(), torch.inf)
    after = 1 / (1 / var - torch.where(finite, 12 / width.square(), 0.0)).clamp_min(1 / flat)
    after = after.clamp_min(1e-30)  # still a positive number in float32
    centre = torch.where(finite, (low + high) / 2, mean)
    return centre + (mean - centre) * after / var, after
