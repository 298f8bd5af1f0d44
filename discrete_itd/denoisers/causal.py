r"""The causal denoiser: a row is scored by one call, its columns one after the other in a fixed order.

The posterior of a column depends on the columns before it in the order and, by Bayes' rule, on the column's own
evidence. On the coordinate path along the order the terms of (6) are then all read from one call on the known row,

.. math:: \log P(x) = \sum_i \log q_{\sigma_i}(x_{\sigma_i} \mid x_{\sigma_1} \dots x_{\sigma_{i-1}}), \qquad (8)

exactly normalised. Its logits are the logits of an exact base, given the same columns, plus the output of a masked
network, which is zero at the start. At states off the path it ignores later columns in the order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from discrete_itd import devices
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.base import (
    LARGE,
    SCORED_AT_ONCE,
    Config,
    Denoiser,
    Tensors,
    filled,
    in_blocks,
    linear,
    row_product,
)
from discrete_itd.denoisers.gaussian import log_masses_in_classes
from discrete_itd.denoisers.marginal import SD, MarginalDenoiser, gaussian_mixtures
from discrete_itd.denoisers.neural import (
    RANK,
    ColumnFeatures,
    Dropout,
    LongColumns,
    from_network,
)

N_REGRESSED = (
    2  # components of a continuous column beside the base's, which may start as a regression
)
REGRESSION_ROWS, REGRESSION_FEATURES = 8192, 2048  # most rows and features of these regressions


class CausalDenoiser(Denoiser):
    r"""The conditional distributions of an exact base along an order of the columns, corrected by a masked network.

    Parameters
    ----------
    base : Denoiser
        Exact, kept fixed; one that defines ``preceding``. Its continuous columns, if there are any, must be those
        of its ``independent_part``.
    order : sequence of int, length C
        All columns, the first one first; an indicator before its column.
    width, depth, dropout
        Arguments of the :class:`MaskedMLP`.
    maps_levels : bool
        Whether the linear map beside the hidden units is for answers about levels, too, or for numbers alone.
    generator : torch.Generator, optional
        Draws the initial weights, on the CPU; by default one of seed 0.

    Raises
    ------
    ValueError
        If ``order`` does not name every column once, or a column comes before its indicator.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), order=[1, 0], width=8)
    >>> denoiser.log_factors(x).shape
    torch.Size([3, 2])
    """

    ancestral = True

    def __init__(
        self,
        base: Denoiser,
        order: Sequence[int],
        *,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.2,
        maps_levels: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base.codebook)
        book, device = self.codebook, self.codebook.device
        order = [int(j) for j in order]
        if sorted(order) != list(range(book.n_columns)):
            raise ValueError(f"order must name each of {book.n_columns} columns once, got {order}")
        for j, i in book.indicator.items():
            if order.index(j) < order.index(i):
                raise ValueError(f"column {j} comes before its indicator {i} in the order {order}")
        self.width, self.depth, self.dropout = width, depth, dropout
        self.maps_levels = maps_levels
        self.base = base.requires_grad_(False)
        self.order, self.own_order = order, tuple(order)
        self.features = ColumnFeatures(base, N_REGRESSED)
        generator = generator or torch.Generator().manual_seed(0)
        self.long = LongColumns(self.features, generator)
        rank = torch.tensor(order).argsort().to(device)
        self._columns: list[tuple[MarginalDenoiser, ColumnFeatures, Tensor]] = []
        answer_rank, n_numbers = rank[self.long.answer_column], self.features.sizes[1]
        # the network's outputs: levels of short columns, then numbers, then levels of long columns
        end = len(answer_rank) - RANK * len(self.long.columns)
        first = 0 if maps_levels else end - n_numbers
        is_small = (end - first) * len(self.long.feature_column) <= LARGE
        if not len(answer_rank):  # all columns are constant
            answer_rank = rank.new_tensor([book.n_columns])
        self.network = MaskedMLP(
            rank[self.long.feature_column],
            answer_rank,
            book.n_columns,
            # a linear map in parallel: without it, numbers that are sums of others are learned far more slowly
            parallel=range(first if is_small else end, end),
            width=width,
            depth=depth,
            dropout=dropout,
            generator=generator,
        )

    @property
    def closed_form(self) -> bool:
        """True: (8)."""
        return True

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        return from_network(cls, config, codebook, tensors)

    # -- the posterior --------------------------------------------------------------------------

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        alone = self._alone(y, snr)
        answers = self._answers(self.features.describe(alone, snr))
        return self._prior(answers, self.codebook.known_cells(y, snr)).update(y, snr)

    def preceding(self, x: Tensor, order: Sequence[int] | None = None) -> Posterior:
        if order is not None and list(order) != self.order:
            raise ValueError("a causal denoiser conditions along its own order alone")
        return self._preceding(x, self._cells(x))

    def _preceding(self, x: Tensor, numbers: Intervals) -> Posterior:
        return self._prior(self._answers(self.features.describe_cells(x, numbers)), x)

    def _cells(self, x: Tensor) -> Intervals:
        """The cells (B, R) of the numbers of rows ``x``, where missing of 0."""
        book = self.codebook
        return book.lines.cells(x.index_select(1, book.reals).nan_to_num(0.0))

    def _answers(self, features: Tensor) -> Tensor:
        """The network's outputs (B, A) for features (B, F)."""
        return self.long.write(self.network(self.long.read(features)))

    def constants(self, x: Tensor) -> tuple[Tensor, ...]:
        prior, numbers = self.base.preceding(x, self.order), self._cells(x)
        levels = self.features.seen_levels(prior.categorical, x)
        return self.features.describe_cells(x, numbers), *levels, *numbers

    def log_factors(self, x: Tensor) -> Tensor:
        numbers = self._cells(x)
        return self._preceding(x, numbers).log_prob(x, numbers)

    def log_prob(self, x: Tensor, *constants: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) by one call (8), missing cells left out: (B,), nats."""
        if not constants:
            return self.log_factors(x).sum(1)
        features, closed, level, start, *cells = constants
        answers, numbers = self._answers(features), Intervals(*cells)
        return self.features.log_prob(answers, closed, level, start, numbers, x)

    @torch.no_grad()
    def log_probs_with(self, x: Tensor, row: Tensor, column: Tensor, values: Tensor) -> Tensor:
        """A value changes the factors of its column and of later ones alone; those of numbers err by 1e-4 nats."""
        book, features, device = self.codebook, self.features, str(x.device)
        if not len(book.reals):
            return super().log_probs_with(x, row, column, values)
        rank = devices.index_tensor(tuple(torch.tensor(self.order).argsort().tolist()), device)
        needed, row = row.unique(return_inverse=True)
        x = filled(x[needed])
        known, numbers = x[:, book.reals], self._cells(x)
        shares = features.shares(numbers)
        factors = self._preceding(x, numbers).log_prob(x, numbers)[:, book.reals].double()
        prior = self.base.preceding(x, self.order).categorical
        levels_of_x = features.seen_levels(prior, x) if len(book.finite) else ()

        def call(row: Tensor, column: Tensor, values: Tensor) -> Tensor:
            rows = x[row].scatter_(1, column[:, None], values[:, None])
            cells, shares_of_rows = Intervals(*(t[row] for t in numbers)), shares[row]
            changed = torch.nonzero(torch.isin(column, book.reals)).flatten()
            real = torch.searchsorted(book.reals, column[changed])
            new = book.lines.cells(values[changed, None], real[:, None])
            for t, part in zip(cells, new, strict=True):
                t[changed, real] = part[:, 0]
            shares_of_rows[changed, real] = features.shares(new, real)[:, 0]
            described = features.describe_cells(rows, cells, shares_of_rows)
            answers = self._answers(described)
            is_later = rank[book.reals] >= rank[column].min()
            later, earlier = (torch.nonzero(t).flatten() for t in (is_later, ~is_later))
            mixtures = features.mixtures(answers, later)
            sd, (middle, width) = mixtures.var.sqrt(), (t[:, later, None] for t in cells)
            log_p = log_masses_in_classes(
                (middle - mixtures.means) / sd, width, sd, mixtures.means.dtype
            )
            log_p = torch.logsumexp(log_p + mixtures.log_weight, 2).double()
            is_missing = known[row][:, later].isnan() & (book.reals[later] != column[:, None])
            log_p = log_p.masked_fill(is_missing, 0.0).sum(1)
            if len(book.finite):
                levels = [t[row] for t in levels_of_x]
                if len(changed) < len(row):
                    prior = self.base.preceding(rows, self.order).categorical
                    levels = features.seen_levels(prior, rows)
                log_p = log_p + features.log_prob_of_levels(answers, *levels)
            return log_p + factors[row][:, earlier].sum(1)

        by_rank = rank[column].argsort(stable=True)
        each = (t[by_rank] for t in (row, column, values))
        scores = torch.cat([*in_blocks(call, *each, batch_size=SCORED_AT_ONCE)])
        return torch.empty_like(scores).index_copy_(0, by_rank, scores)

    def _alone(self, y: Tensor, snr: Tensor) -> Posterior:
        """The posterior of every column from its own evidence, if columns were independent."""
        book, levels, part = self.codebook, self.codebook.levels, self.base.independent_part
        evidence = levels.evidence(y[:, : levels.n_coords], snr[:, book.finite])
        categorical = CategoricalPosterior(levels, self.features.nothing + evidence)
        return Posterior(book, categorical, None if part is None else part.reals_given(y, snr))

    def _prior(self, answers: Tensor, cells: Tensor) -> Posterior:
        """The distribution of every column given the ``cells`` (B, C) before it, corrected by the network's answers."""
        return self.features.answer(self.base.preceding(cells, self.order), answers)

    # -- drawing --------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        book, places = self.codebook, self.codebook.place
        x = torch.full((n, book.n_columns), math.nan, dtype=torch.float64, device=book.device)
        features = book.known_snr.new_zeros(n, len(self.long.feature_column))
        prior, columns = self.base.preceding(x, self.order), self._one_by_one()
        for j, answers in zip(self.order, self.network.steps(features), strict=True):
            alone, column, place = columns[j]
            start = alone.marginals().expand(n)
            if j in places:
                if not self.base.independent:
                    prior = self.base.preceding(x, self.order)
                start.categorical = CategoricalPosterior(alone.codebook.levels, prior.column(j))
            posterior = column.answer(start, self.long.write_column(j, answers))
            drawn = posterior.sample(generator)
            if j in book.indicator:  # an absent cell has no value
                drawn = drawn.masked_fill(x[:, [book.indicator[j]]] == 1.0, math.nan)
            x[:, j] = drawn[:, 0]
            features[:, place] = self.long.read_column(j, column.describe_cells(drawn))
        return x

    def _one_by_one(self) -> list[tuple[MarginalDenoiser, ColumnFeatures, Tensor]]:
        """For every column a table of it alone, its features, and their places: a draw computes one column at a time.

        They are made at the first call, for which the host reads the base's numbers.
        """
        book, like, part = self.codebook, self.codebook.known_snr, self.base.independent_part
        if self._columns and self._columns[0][0].codebook.dtype == like.dtype:
            if self._columns[0][2].device != like.device:
                self._columns = [
                    (copy.deepcopy(table).to(like), copy.deepcopy(f).to(like), i.to(like.device))
                    for table, f, i in self._columns
                ]
            return self._columns
        q = CategoricalPosterior(book.levels, self.features.nothing, normalised=True)
        nothing, self._columns = Posterior(book, q), []
        for j in range(book.n_columns):
            alone = Codebook([book.columns[j]]).to(like)
            probs = nothing.column(j)[0].exp() if j in book.place else like.new_zeros(0)
            mixture = None if part is None else part.mixture[:, book.reals == j]
            marginal = MarginalDenoiser(alone, probs, mixture)
            place = torch.nonzero(self.long.feature_column == j).flatten()
            self._columns.append((marginal, ColumnFeatures(marginal, N_REGRESSED), place))
        return self._columns


class MaskedLinear(nn.Module):
    """A linear map whose output i depends on the inputs whose ``rank`` (n_in,) is at most ``most[i]``, (n_out,).

    In training a mask sets the other weights to zero; ``train()``, ``eval()`` and loading a state reset them.
    """

    mask: Tensor

    def __init__(self, rank: Tensor, most: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        mask = (rank <= most[:, None]).to(torch.get_default_dtype())
        self.register_buffer("mask", mask, persistent=False)
        bound = mask.sum(1, keepdim=True).clamp_min(1).rsqrt()
        start = 2 * torch.rand(mask.shape, generator=generator).to(mask) - 1
        self.weight = nn.Parameter(start * bound * mask)
        self.bias = nn.Parameter(torch.zeros(len(most), device=mask.device))
        self.register_load_state_dict_post_hook(_mask)

    def train(self, mode: bool = True) -> Self:
        _mask(self)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return row_product(x, self.weight.T) + self.bias
        return linear(x, self.weight * self.mask, self.bias)

    def part(self, x: Tensor, rows: slice | Tensor) -> Tensor:
        """The outputs ``rows``, from the first inputs ``x``; they must not depend on later inputs."""
        return row_product(x, self.weight[rows, : x.shape[1]].T) + self.bias[rows]


def _mask(module: nn.Module, loaded: object = None) -> None:  # noqa: ARG001
    """Set the weights of a masked map to zero where an output does not depend on an input."""
    assert isinstance(module, MaskedLinear)
    module.weight.detach().mul_(module.mask)


class MaskedMLP(nn.Module):
    """Masked residual blocks between two masked linear maps; some outputs also get a masked linear map in parallel.

    Its outputs for a column depend only on the columns before it in a fixed order. Every hidden unit has a degree d:
    it depends on columns of rank at most d, through units of degree at most d, and outputs of a higher rank depend on
    it. So one call gives the outputs for all columns, and a row can be drawn column by column at the cost of
    one call. The outputs are zero at the start.

    Parameters
    ----------
    feature_rank, answer_rank : Tensor of int64, shapes (F,) and (A,)
        Rank of the column of each feature and output in the order, from 0 to ``n_ranks`` - 1.
    n_ranks : int
        Number of columns.
    parallel : range
        The outputs to which a linear map of the features is added.
    width, depth, dropout
        Hidden units W, residual blocks, and the share of units dropped in training.

    References
    ----------
    Germain, Gregor, Murray, Larochelle, "MADE: masked autoencoder for distribution estimation", ICML 2015,
    arXiv:1502.03509.
    """

    degree: Tensor
    feature_rank: Tensor
    answer_rank: Tensor
    _by_rank: Tensor

    def __init__(
        self,
        feature_rank: Tensor,
        answer_rank: Tensor,
        n_ranks: int,
        *,
        parallel: range,
        width: int,
        depth: int,
        dropout: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_ranks = n_ranks
        # degrees are evenly spread and sorted, so that units that are computed together are adjacent
        degree = torch.arange(width, device=feature_rank.device) * max(1, n_ranks - 1) // width
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("feature_rank", feature_rank, persistent=False)
        self.register_buffer("answer_rank", answer_rank, persistent=False)
        # outputs and units are computed rank by rank; the host knows how many each rank has
        self.register_buffer("_by_rank", answer_rank.argsort(stable=True), persistent=False)
        self._n_answers = torch.bincount(answer_rank, minlength=n_ranks)[:n_ranks].tolist()
        self._n_units = torch.bincount(degree, minlength=n_ranks).tolist()
        before, self.parallel = answer_rank - 1, parallel
        linear = partial(MaskedLinear, generator=generator or torch.Generator().manual_seed(0))
        self.enter = linear(feature_rank, degree)
        self.blocks = nn.ModuleList(
            nn.ModuleList([linear(degree, degree), linear(degree, degree)]) for _ in range(depth)
        )
        self.leave = linear(degree, before)
        parallel_rank = before[parallel.start : parallel.stop]
        self._parallel_ranks = set((parallel_rank + 1).tolist())
        self.skip = linear(feature_rank, parallel_rank) if len(parallel_rank) else None
        for last in (self.leave, self.skip):
            if last is not None:
                last.weight.detach().zero_()
        self.dropout = Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """The outputs (B, A) for features (B, F)."""
        h = self.enter(features)  # (B, W)
        for first, second in self._pairs():
            h = h + second(self.dropout(torch.relu(first(torch.relu(h)))))
        answers = self.leave(self.dropout(torch.relu(h)))
        if self.skip is None:
            return answers
        around = self.parallel.start, answers.shape[1] - self.parallel.stop
        return answers + nn.functional.pad(self.skip(features), around)

    def _pairs(self) -> Iterator[tuple[MaskedLinear, MaskedLinear]]:
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            first, second = block
            assert isinstance(first, MaskedLinear)
            assert isinstance(second, MaskedLinear)
            yield first, second

    def steps(self, features: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of one rank after the other, (B, A_r), from features that are filled in meanwhile.

        Before the outputs of rank r are requested, the ``features`` (B, F) of lower ranks must have been written.
        """
        n, width = len(features), len(self.degree)
        pairs = list(self._pairs())
        # inputs of every linear map between units, after the relu; filled in from the first unit to the last
        before = [features.new_zeros(n, width) for _ in range(2 * len(pairs) + 1)]
        done, answered = 0, 0
        for rank, (n_answers, n_units) in enumerate(
            zip(self._n_answers, self._n_units, strict=True)
        ):
            asked = self._by_rank[answered : answered + n_answers]
            answered += n_answers
            answers = self.leave.part(before[-1][:, :done], asked)
            if self.skip is not None and rank in self._parallel_ranks:
                answers = answers + self.skip.part(features, asked - self.parallel.start)
            yield answers
            end = done + n_units
            units = slice(done, end)
            h = self.enter.part(features, units)
            for i, (first, second) in enumerate(pairs):
                before[2 * i][:, units] = torch.relu(h)
                before[2 * i + 1][:, units] = torch.relu(first.part(before[2 * i][:, :end], units))
                h = h + second.part(before[2 * i + 1][:, :end], units)
            before[-1][:, units] = torch.relu(h)
            done = end


@torch.no_grad()
def start_from_regressions(denoiser: CausalDenoiser, x: Tensor) -> None:
    """Initialise the network of ``denoiser`` by regressions fitted to rows ``x`` (N, C).

    A number that follows from others by a sum is found in closed form at once, and by gradients only after many steps.
    So some components of each continuous column start as a linear regression on the features of the columns before it,
    with the mixture of Gaussians of its residuals on separate rows, one in four. Their share of the mixture is bounded:
    the other components start as in the base, since regression does not predict repeated numbers. Without the parallel
    map, or with too many features or too few rows, nothing is changed.
    """
    features, network, reals = denoiser.features, denoiser.network, denoiser.codebook.reals
    n_features, skip = len(denoiser.long.feature_column), network.skip
    if (
        skip is None
        or not features.sizes[1]
        or not features.n_added
        or n_features > REGRESSION_FEATURES
    ):
        return
    x = x[:: max(1, -(-len(x) // REGRESSION_ROWS))]
    apart = torch.arange(len(x), device=x.device) % 4 == 0
    y = x[:, reals]
    known = y.abs() < 8 * SD  # false where missing
    by_rank = network.feature_rank.argsort(stable=True)
    inputs = denoiser.long.read(features.describe_cells(x)).double()[:, by_rank]
    # (N, 1 + F), in the order of columns
    inputs = torch.cat([inputs.new_ones(len(x), 1), inputs], 1)
    first = inputs[~apart]
    gram = first.T @ first
    products = first.T @ torch.where(known, y, 0.0)[~apart]
    # scaled to all rows, which the squares count; the products count rows that have the cell
    products *= len(first) / known[~apart].sum(0).clamp_min(1)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    # the features before a column come first, so a leading part of a factor is their factor; penalties are in rows, and
    # separate rows choose among them
    tried = [torch.linalg.cholesky_ex(gram + penalty * eye) for penalty in (1, 10, 100, 1000)]
    factors = [factor for factor, failed in tried if not failed]
    if not factors:  # features too large for any penalty
        return
    answers = torch.nonzero(torch.isin(denoiser.long.answer_column, reals)).flatten()
    answers = answers.unflatten(0, (len(reals), -1, 3))  # (R, K', 3)
    n_inputs = 1 + (network.feature_rank < network.answer_rank[answers[:, :1, 0]]).sum(1)
    y, inputs_apart, known = y[apart], inputs[apart], known[apart]
    places, weights, errors = [], [], []
    for i, n in enumerate(n_inputs.tolist()):
        if n == 1 or int(known[:, i].sum()) < 32:
            continue
        product = products[:n, i : i + 1]
        fits = torch.cat([torch.cholesky_solve(product, factor[:n, :n]) for factor in factors], 1)
        error = y[:, i, None] - inputs_apart[:, :n] @ fits
        error = torch.where(known[:, i, None], error, torch.nan)
        best = int(error.abs().nanmean(0).argmin())
        places.append(i)
        weights.append(fits[:, best])
        errors.append(error[:, best])
    if not places:
        return
    error, middle = torch.stack(errors, 1), torch.stack([w[0] for w in weights])
    added = gaussian_mixtures(error, features.n_added)  # (3, R', n_added)
    log_p_added = GaussianPosterior(*(t[None] for t in added)).log_prob(error)
    y = torch.where(known, y, torch.nan)
    log_p_base = features.base_mixture().log_prob(y)[:, places]
    shares = share_of_second(log_p_base, log_p_added).clamp(0.01, 0.95)
    added[1] += middle[:, None]
    for k, (i, w) in enumerate(zip(places, weights, strict=True)):
        network.leave.bias[answers[i]] = features.regressed(i, shares[k], added[:, k])
        shifts = answers[i, -features.n_added :, 1, None]
        shifts = shifts - network.parallel.start
        skip.weight[shifts, by_rank[: len(w) - 1]] = (w[1:] / SD).to(skip.weight)


def share_of_second(first: Tensor, second: Tensor) -> Tensor:
    """Maximum-likelihood weights (R,) of the second of two densities in their mixture, by their logarithms (N, R)."""
    share = torch.full_like(first[0], 0.5)
    for _ in range(50):  # EM rounds
        share = torch.sigmoid(second - first + torch.logit(share, 1e-9)).nanmean(0)
    return share
