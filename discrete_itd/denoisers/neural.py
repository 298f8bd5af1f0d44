r"""The learned denoiser: an exact base plus a network's correction.

Its logits are :math:`\log\pi_{jk} + \ell_{jk} + f_{jk}(y, \gamma)` with f a network that starts at zero, so
that an untrained denoiser *is* its base and training can only gain nats. In other words the network sees all columns
and gives each a new prior, which the column's own evidence then updates by Bayes' rule; for a continuous column
that prior is a mixture of Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
)
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.base import Config, Denoiser, Tensors, with_codebook
from discrete_itd.denoisers.marginal import NARROWEST_SD, SD, indicators

Network = TypeVar("Network", bound=Denoiser)
_generator: ContextVar[torch.Generator | None] = ContextVar("_generator", default=None)

MOST_LOG_VARIANCE = 8.0  # most by which the network changes a component's log-variance
# The network reads and writes a column of more than LONG levels as a vector of RANK numbers: maps of one-hot levels
# would take most of the training time.
LONG, RANK = 256, 32


class NeuralDenoiser(Denoiser):
    r"""The posterior of a base denoiser, corrected by a network.

    Parameters
    ----------
    base : Denoiser
        Exact, kept fixed. Its continuous columns, if there are any, must come from its ``independent_part``: a
        ``MarginalDenoiser``, itself or its ``fallback``.
    width, depth, dropout
        Arguments of the :class:`ResidualMLP`, from :class:`ColumnFeatures` of the base's posterior to its changes.
    generator : torch.Generator, optional
        Draws the initial weights, on the CPU; by default one of seed 0.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> import torch
    >>> from discrete_itd.denoisers import MarginalDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> denoiser = NeuralDenoiser(MarginalDenoiser.fit(book, x), width=8).requires_grad_(False)
    >>> denoiser(torch.zeros(1, 4), torch.zeros(1, 2)).column(0).exp()  # untrained: its base
    tensor([[0.3750, 0.6250]])
    """

    def __init__(
        self,
        base: Denoiser,
        *,
        width: int = 256,
        depth: int = 3,
        dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base.codebook)
        self.width, self.depth, self.dropout = width, depth, dropout
        self.base = base.requires_grad_(False)
        self.features = ColumnFeatures(base)
        generator = generator or torch.Generator().manual_seed(0)
        self.long = LongColumns(self.features, generator)
        # at least one output, even if all columns are constant
        n_answers = len(self.long.answer_column) or 1
        sizes = {"width": width, "depth": depth, "dropout": dropout}
        n_features = len(self.long.feature_column)
        self.network = ResidualMLP(n_features, n_answers, **sizes, generator=generator)

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        return from_network(cls, config, codebook, tensors)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        book, base, alone = self.codebook, self.base(y, snr), self.base.independent_part
        if alone is not None:
            base = Posterior(book, base.categorical, alone.reals_given(y, snr))
        answers = self.network(self.long.read(self.features.describe(base, snr)))
        posterior = self.features.answer(base, self.long.write(answers))
        gaussian = posterior.gaussian
        # numbers start without evidence; the base of the categories is updated by it already
        if gaussian is not None:
            gaussian = gaussian.update(*book.reals_of(y, snr), sums=False)
        return Posterior(book, posterior.categorical, gaussian)


def from_network(
    cls: Callable[..., Network], config: Config, codebook: Codebook, tensors: Tensors
) -> Network:
    """A denoiser with a network by ``config``; ValueError, before it is made, if its weights have other sizes."""
    width, depth, first = config["width"], config["depth"], tensors["network.enter.weight"]
    if first.shape[0] != width:
        raise ValueError(f"width is {width!r}, but the weights have {tuple(first.shape)}")
    blocks = {name.split(".")[2] for name in tensors if name.startswith("network.blocks.")}
    if len(blocks) != depth:
        raise ValueError(f"depth is {depth!r}, but there are weights of {len(blocks)} blocks")
    base = with_codebook(config["base"], codebook)
    return cls(**{**config, "base": base}).to(first.dtype)


class Dropout(nn.Module):
    """In training, a share of the entries, to 1/256, is set to zero; the others are scaled, so that the mean is kept.

    The generator is that of :func:`drawing`, outside of it torch's global one. ``nn.Dropout`` on a CPU draws one number
    for each entry where this needs eight bits.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        least = min(round(256 * self.share), 255)
        if not self.training or not least:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None, generator=_generator.get())
        kept = (words.view(torch.uint8)[: x.numel()].view(x.shape) >= least).to(x)
        return x * kept.mul_(256 / (256 - least))


@contextmanager
def drawing(generator: torch.Generator) -> Iterator[None]:
    """Within the block, and in this thread alone, every :class:`Dropout` draws by this generator."""
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


class ResidualMLP(nn.Module):
    """Pre-normalised residual blocks of ``width`` hidden units between two linear maps; the last starts at zero."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        width: int,
        depth: int,
        dropout: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)

        def linear(n_in: int, n_out: int) -> nn.Module:
            """A linear map with torch's initial weights, drawn by the generator instead of the global one."""
            made, bound = nn.utils.skip_init(nn.Linear, n_in, n_out), max(1, n_in) ** -0.5
            for p in made.parameters():
                p.detach().uniform_(-bound, bound, generator=generator)
            return made

        self.enter = linear(n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                linear(width, width),
                nn.SiLU(),
                Dropout(dropout),
                linear(width, width),
            )
            for _ in range(depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), linear(width, n_out))
        for p in self.leave[2].parameters():
            nn.init.zeros_(p)

    def forward(self, features: Tensor) -> Tensor:
        h = self.enter(features)  # (B, W)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


class ColumnFeatures(nn.Module):
    r"""Features of columns for a network, and posteriors from its outputs: the same for all networks.

    The features of a column describe the posterior that independent columns give it from its own evidence: bounded,
    centred and scaled so that all features of an unknown column are zero.

    Parameters
    ----------
    base : Denoiser
        Base as of :class:`NeuralDenoiser`; otherwise a ValueError.
    n_added : int
        Components of the network's mixtures beyond the base's: as many of the base's first ones are split in two.

    Attributes
    ----------
    feature_column, answer_column : Tensor of int64, shapes (F,) and (A,)
        The column of each feature and of each output.
    nothing : Tensor, shape (1, T), nats
        Log-probability of every level when nothing is known.
    sizes : list of int
        Outputs for columns of categories and for continuous ones.

    Notes
    -----
    Inputs and outputs of a column of categories are all seen levels but the first, which serves as reference; inputs of
    a continuous one are the weight of every component and the mean, its outputs change weights, means and variances.
    The reliability :math:`\gamma/(1+\gamma)` of every column is an input.

    The network moves probability among the *seen* categories only, and a cell that holds an unseen one has the features
    of a missing cell. The wide last component of a continuous column is to outliers what the unseen level is to
    categories.
    """

    feature_column: Tensor
    answer_column: Tensor
    nothing: Tensor
    _fed: Tensor
    _centre: Tensor
    _scale: Tensor
    _mixture: Tensor
    _prior: Tensor
    _middle: Tensor
    _started: Tensor
    _n_seen: Tensor

    def __init__(self, base: Denoiser, n_added: int = 0) -> None:
        super().__init__()
        self.codebook = book = base.codebook
        levels, marginal = book.levels, base.independent_part
        if len(book.finite) < book.n_columns and marginal is None:
            raise ValueError("continuous columns of the base must be those of a MarginalDenoiser")
        fed = torch.nonzero((levels.level_code > 0) & ~levels.level_unseen).flatten()
        with torch.no_grad():
            nothing = base.marginals()
        probs, mixture = nothing.categorical.probs, nothing.gaussian
        if mixture is not None and base.own_reals:
            raise ValueError("continuous columns of the base must be those of a MarginalDenoiser")
        seen = levels.sum(probs.masked_fill(levels.level_unseen, 0.0))[0, levels.level_column[fed]]
        start = probs[0, fed]
        column = levels.level_column[fed]
        n_fed = torch.bincount(column, minlength=1)[column].to(start)
        parts = () if mixture is None else (mixture.log_weight, mixture.means, mixture.var)
        mixtures = torch.cat(parts) if parts else torch.zeros(3, 0, 1)
        n = mixtures.shape[2] - 1
        k = n + n_added if n else 0
        # index of the base's component as which each component starts
        part = torch.arange(k, device=fed.device) % max(1, n)
        started = mixtures[:, :, part]
        started[0] -= torch.bincount(part, minlength=1)[part].to(started).log()
        finite, every = book.finite[levels.level_column[fed]], torch.arange(book.n_columns).to(fed)
        reals = book.reals
        buffers = {
            "nothing": nothing.categorical.logits,
            "_fed": fed,
            "_centre": start / seen,
            # All features of a column together vary about as much as one number: the indicator of a rare category would
            # be huge in its standard deviations. Long columns are scaled by the vectors of their levels.
            "_scale": torch.where(
                n_fed > LONG,
                1.0,
                1 / (start * (1 - start) * n_fed).sqrt().clamp_min(0.1 * n_fed.sqrt()),
            ),
            "_mixture": mixtures,
            "_prior": (prior := torch.softmax(mixtures[0, :, :-1], 1)),
            "_middle": (prior * mixtures[1, :, :-1]).sum(1),
            "_started": started,
            "_n_seen": torch.tensor([c.n_levels for c in levels.columns], device=fed.device),
            "feature_column": torch.cat([finite, reals.repeat_interleave(n), reals, every]),
            "answer_column": torch.cat([finite, reals.repeat_interleave(3 * k)]),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)
        self.sizes, self.n_added = [len(fed), len(reals) * k * 3], n_added

    def describe(self, posterior: Posterior, snr: Tensor) -> Tensor:
        """Features (B, F) of a posterior at ``snr`` (B, C)."""
        book, levels = self.codebook, self.codebook.levels
        reliability = torch.where(torch.isinf(snr), 1.0, snr / (1 + snr))
        categorical, gaussian = posterior.categorical, posterior.gaussian
        fed, centre = categorical.probs[:, self._fed], self._centre
        if levels.any_open:
            seen = self._seen(categorical)[1].exp()  # (B, C): probability that it was seen
            reliability = _times(reliability, book.finite, seen)
            centre = centre * seen[:, levels.level_column[self._fed]]
        features = [(fed - centre) * self._scale]
        if gaussian is not None:
            weight = gaussian.log_weight.exp()
            narrow = 1 - weight[:, :, -1]  # (B, R): probability that the value is no outlier
            weight = weight[:, :, :-1]
            reliability = _times(reliability, book.reals, narrow)
            prior, middle = self._prior, self._middle
            features.append((weight - prior * narrow[:, :, None]).flatten(1) * 2)
            mean = (weight * gaussian.means[:, :, :-1]).sum(2)
            features.append((mean - middle * narrow) / SD)
        return torch.cat([*features, reliability], 1)

    def shares(self, numbers: Intervals, real: Tensor | None = None) -> Tensor:
        """Shares (B, R, K) of the base's components in cells (B, R), or (B, 1) of the columns ``real`` (B,)."""
        parts = self._mixture[:, None] if real is None else self._mixture[:, real, None]
        return GaussianPosterior(*parts, normalised=True).shares(*numbers)

    def describe_cells(
        self, x: Tensor, numbers: Intervals | None = None, shares: Tensor | None = None
    ) -> Tensor:
        """Features (B, F) of rows ``x`` (B, C) whose cells are known, or missing where NaN.

        Equal to :meth:`describe` of the posterior there, which is not computed. ``numbers`` are the cells of the rows'
        numbers, and ``shares`` the result of :meth:`shares`, if they are computed already.
        """
        book, levels = self.codebook, self.codebook.levels
        cells = x[:, book.finite]
        seen = (cells < self._n_seen).to(book.dtype)  # NaN is not less
        fed = indicators(book, x)[:, self._fed]
        centre = self._centre * seen[:, levels.level_column[self._fed]]
        features, reliability = [(fed - centre) * self._scale], seen.new_ones(x.shape)
        reliability = _times(reliability, book.finite, seen)
        if len(book.reals):
            cells = x.index_select(1, book.reals)
            values, known = cells.to(book.dtype), (~cells.isnan()).to(book.dtype)
            if shares is None:
                shares = self.shares(numbers or book.lines.cells(cells.nan_to_num(0.0)))
            weight = shares * known[:, :, None]
            narrow = known - weight[:, :, -1]
            prior, middle = self._prior, self._middle
            features.append((weight[:, :, :-1] - prior * narrow[:, :, None]).flatten(1) * 2)
            features.append((values.nan_to_num(0.0) - middle) * narrow / SD)
            reliability = _times(reliability, book.reals, narrow)
        return torch.cat([*features, reliability], 1)

    def answer(self, prior: Posterior, answers: Tensor) -> Posterior:
        """The posterior of B rows ``prior``, changed by a network's outputs ``answers`` (B, A), zero for no change.

        The continuous columns start from the marginal mixtures, without evidence.
        """
        levels, categorical = self.codebook.levels, prior.categorical
        closed, seen = self._seen(categorical)
        logits = self._levels(closed, answers)
        gaussian = self.mixtures(answers) if len(self.codebook.reals) else None
        if levels.any_open:  # an unseen category keeps its probability
            logits = logits + levels.per_level(seen)
            logits = torch.where(levels.level_unseen, categorical.logits, logits)
        categorical = CategoricalPosterior(levels, logits, normalised=True)
        return Posterior(self.codebook, categorical, gaussian)

    def seen_levels(self, prior: CategoricalPosterior, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`log_prob` needs of the ``prior`` of rows ``x`` (B, C), whatever the network's outputs.

        These are the logits (B, T) of seen levels, the level (B, F) that each cell of categories holds, T if it is
        missing or unseen, and the log-probability (B,) that the other cells are seen, and that these are unseen.
        """
        levels, level = self.codebook.levels, self.codebook.level_of(x)
        closed, seen = self._seen(prior)
        is_unseen = nn.functional.pad(levels.level_unseen, (0, 1))[level]
        at_level = nn.functional.pad(prior.logits, (0, 1)).gather(1, level)
        is_level = (level < levels.n_points) & ~is_unseen
        start = torch.where(is_unseen, at_level, seen.masked_fill(~is_level, 0.0)).sum(1)
        return closed, level.masked_fill(is_unseen, levels.n_points), start

    def log_prob(
        self,
        answers: Tensor,
        closed: Tensor,
        level: Tensor,
        start: Tensor,
        numbers: Intervals,
        x: Tensor,
    ) -> Tensor:
        """Log-probability (B,), nats, of rows ``x`` (B, C) by :meth:`answer`, from the parts of :meth:`seen_levels`."""
        log_p = self.log_prob_of_levels(answers, closed, level, start)
        if not len(self.codebook.reals):
            return log_p
        of_numbers = self.mixtures(answers).log_prob(*numbers).to(log_p)
        is_missing = x.index_select(1, self.codebook.reals).isnan()
        return log_p + of_numbers.masked_fill(is_missing, 0.0).sum(1)

    def log_prob_of_levels(
        self, answers: Tensor, closed: Tensor, level: Tensor, start: Tensor
    ) -> Tensor:
        """The part (B,) of :meth:`log_prob` that the columns of categories have."""
        logits = self._levels(closed, answers)
        return start + nn.functional.pad(logits, (0, 1)).gather(1, level).sum(1)

    def _levels(self, closed: Tensor, answers: Tensor) -> Tensor:
        """Log-probabilities (B, T) of levels given that they are seen, by a network's outputs."""
        levels, changes = self.codebook.levels, answers[:, : self.sizes[0]]
        f = changes.new_zeros(len(answers), levels.n_points).index_copy(1, self._fed, changes)
        return levels.log_softmax(closed + f)

    def base_mixture(self) -> GaussianPosterior:
        """The base's mixtures of the continuous columns, without the wide component, in one row: float64."""
        log_weight, mean, var = self._mixture[:, None, :, :-1].double()
        return GaussianPosterior(log_weight, mean, var)

    def regressed(self, i: int, share: Tensor, added: Tensor) -> Tensor:
        """Outputs (K', 3) that give ``added`` components a share of the i-th mixture beside the base's components.

        ``added`` (3, n_added) are log-weights, means and variances; ``share`` is a scalar tensor.
        """
        base, (log_weight, mean, var) = self.base_mixture(), self._started[:, i].double()
        n = len(mean) - self.n_added
        kept = base.log_weight[0, i] + torch.log1p(-share)
        weights = torch.cat([kept, torch.log_softmax(added[0], 0) + share.log()]) - log_weight
        shifts = (added[1] - mean[n:]) / SD
        changes = (added[2].clamp_min(NARROWEST_SD**2) / var[n:]).log() / MOST_LOG_VARIANCE
        changes = MOST_LOG_VARIANCE * torch.atanh(changes.clamp(-0.99, 0.99))
        moved = nn.functional.pad(torch.stack([shifts, changes], 1), (0, 0, n, 0))
        return torch.cat([weights[:, None], moved], 1).to(self._started)

    def _seen(self, categorical: CategoricalPosterior) -> tuple[Tensor, Tensor]:
        """Logits (B, T), minus infinity at unseen levels, and the log-probability (B, C) that a level is seen."""
        levels = self.codebook.levels
        closed = categorical.logits.masked_fill(levels.level_unseen, -torch.inf)
        return closed, levels.logsumexp(closed)

    def mixtures(self, answers: Tensor, reals: slice | Tensor = slice(None)) -> GaussianPosterior:
        """The mixtures of some continuous columns, all R by default, by a network's outputs ``answers`` (B, A)."""
        # changes of the marginal mixtures: (B, R, K', 3)
        f = answers[:, self.sizes[0] :].unflatten(1, (-1, self._started.shape[2], 3))[:, reals]
        (log_weight, mean, var), wide = self._started[:, reals], self._mixture[:, None, reals, -1:]
        weights, shifts, changes = f.movedim(3, 0).contiguous().unbind(0)
        moved = log_weight + weights
        # log_softmax takes four times as long over a short last axis
        shares = moved - torch.logsumexp(moved, 2, keepdim=True) + torch.log1p(-wide[0].exp())
        changed = var * (MOST_LOG_VARIANCE * torch.tanh(changes / MOST_LOG_VARIANCE)).exp()
        parts = shares, mean + SD * shifts, changed.clamp_min(NARROWEST_SD**2)
        last = wide.expand(-1, len(f), -1, -1)
        mixtures = (torch.cat(t, 2) for t in zip(parts, last, strict=True))
        return GaussianPosterior(*mixtures, normalised=True)


class LongColumns(nn.Module):
    r"""Factors of low rank between the features and outputs of columns of more than ``LONG`` levels and a network.

    The network reads a long column as the learned vector of its level, and answers with a vector whose inner products
    with learned vectors of the levels are the column's outputs: the maps of one-hot levels have rank ``RANK``.

    Attributes
    ----------
    columns : list of int
        The long columns.
    feature_column, answer_column : Tensor of int64, shapes (F',) and (A',)
        The column of each input and output of the network: first of the other columns, then of the long ones.
    """

    feature_column: Tensor
    answer_column: Tensor
    _features: Tensor
    _answers: Tensor

    def __init__(self, features: ColumnFeatures, generator: torch.Generator) -> None:
        super().__init__()
        book = features.codebook
        # columns of categories come first, one feature and output for each level that is fed
        n_levels = features.sizes[0]
        level_column = features.feature_column[:n_levels]
        self.columns = [j for j in book.place if int((level_column == j).sum()) > LONG]
        self._n_answers = len(features.answer_column)
        is_long = torch.isin(level_column, torch.tensor(self.columns).to(level_column))

        long_columns = torch.tensor(self.columns).to(level_column).repeat_interleave(RANK)
        for name in ("feature", "answer"):
            column = getattr(features, f"{name}_column")
            short = torch.ones_like(column, dtype=torch.bool)
            short[:n_levels] = ~is_long
            kept = torch.nonzero(short).flatten()
            self.register_buffer(f"_{name}s", kept, persistent=False)
            both = torch.cat([column[kept], long_columns])
            self.register_buffer(f"{name}_column", both, persistent=False)
        self._levels = [torch.nonzero(level_column == j).flatten().tolist() for j in self.columns]
        self._levels = [slice(i[0], i[-1] + 1) for i in self._levels]
        sizes = [levels.stop - levels.start for levels in self._levels]

        def vectors(size: float) -> nn.ParameterList:
            drawn = (size * torch.randn(n, RANK, generator=generator) for n in sizes)
            return nn.ParameterList(v.to(book.known_snr) for v in drawn)

        # read vectors of size 1 would be noise that the network overfits to
        self.read_vectors, self.write_vectors = vectors(0.1), vectors(1.0)

    def read(self, features: Tensor) -> Tensor:
        """The network's inputs (B, F') for features (B, F)."""
        if not self.columns:
            return features
        pairs = zip(self._levels, self.read_vectors, strict=True)
        parts = [features[:, levels] @ vectors for levels, vectors in pairs]
        return torch.cat([features[:, self._features], *parts], 1)

    def write(self, answers: Tensor) -> Tensor:
        """The outputs (B, A) for all levels, by the network's outputs (B, A')."""
        if not self.columns:
            return answers[:, : self._n_answers]
        out = answers.new_empty(len(answers), self._n_answers)
        n = len(self._answers)
        out = out.index_copy(1, self._answers, answers[:, :n])
        parts = answers[:, n:].split(RANK, 1)
        for levels, part, vectors in zip(self._levels, parts, self.write_vectors, strict=True):
            out[:, levels] = part @ vectors.T
        return out

    def read_column(self, j: int, features: Tensor) -> Tensor:
        """The network's inputs for column ``j`` alone, by all of its features."""
        if j not in self.columns:
            return features
        vectors = self.read_vectors[self.columns.index(j)]
        return torch.cat([features[:, len(vectors) :], features[:, : len(vectors)] @ vectors], 1)

    def write_column(self, j: int, answers: Tensor) -> Tensor:
        """The outputs for all levels of column ``j``, by the network's outputs for it."""
        if j not in self.columns:
            return answers
        return answers @ self.write_vectors[self.columns.index(j)].T


def _times(values: Tensor, columns: Tensor, factor: Tensor) -> Tensor:
    """``values`` (B, C) with some columns multiplied by ``factor``."""
    return values.index_copy(1, columns, values[:, columns] * factor)
