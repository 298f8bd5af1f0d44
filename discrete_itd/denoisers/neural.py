r"""The learned denoiser: an exact base plus a network's correction.

Its logits are :math:`\log\pi_{jk} + \ell_{jk} + f_{jk}(y, \gamma)` with f a network that starts at zero, so
that an untrained denoiser *is* its base and training can only buy nats. In other words the network sees all columns and
gives each a new prior, which the column's own evidence then updates by Bayes' rule; for a continuous column
that prior is a mixture of Gaussians.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.levels import CODE_LENGTH, VERTEX
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
    VocabularyPosterior,
)
from discrete_itd.denoisers.base import Config, Denoiser, Tensors, with_codebook
from discrete_itd.denoisers.networks import ResidualMLP

SD = 0.5  # of a continuous column: the unit in which the network shifts means
MOST_LOG_VARIANCE = 8.0  # by which the network changes a component's variance
LEAST_SD = 5e-4  # of a component: the density of a value that repeats stays finite


class NeuralDenoiser(Denoiser):
    r"""The posterior of a base denoiser, corrected by a network.

    Parameters
    ----------
    base : Denoiser
        Exact, kept fixed. Its continuous and high-cardinality columns, if there are any, must be those of its
        ``independent_part``: a ``MarginalDenoiser``, itself or its ``fallback``.
    width, depth, dropout
        Of the :class:`ResidualMLP`.

    Notes
    -----
    The network sees the base's posterior (bounded, centred and scaled by its value when nothing is known) and,
    per column, the reliability :math:`\gamma/(1+\gamma)`. Of a low-cardinality column it sees and changes all but
    the first, which serves as reference; of a continuous one the weight of every component, and
    the mean; of a high-cardinality column the mean code, and it answers with a direction in a space of learned words.

    The network moves probability among the *seen* categories only, and a cell that holds an unseen one looks to it
    like a missing cell. An unseen category so costs exactly what the base says, and never sends the network
    where it was not trained. The wide last component of a continuous column is to outliers what the unseen
    level is to categories.
    """

    _fed: Tensor
    _centre: Tensor
    _scale: Tensor
    _mixture: Tensor
    _middles: Tensor
    words: nn.ParameterList

    def __init__(
        self, base: Denoiser, *, width: int = 256, depth: int = 3, dropout: float = 0.1
    ) -> None:
        super().__init__(base.codebook)
        self.width, self.depth, self.dropout = width, depth, dropout
        self.base = base.requires_grad_(False)
        book, levels = self.codebook, self.codebook.levels
        marginal = base.independent_part
        if len(book.finite) < book.n_columns and marginal is None:
            raise ValueError(
                "continuous and high-cardinality columns of the base must be those of a MarginalDenoiser"
            )
        fed = torch.nonzero((levels.level_code > 0) & ~levels.level_unseen).flatten()
        with torch.no_grad():
            nothing = base.marginals()
        probs, mixture = nothing.categorical.probs, nothing.gaussian
        n_own = None if marginal is None else marginal.mixture.shape[2]
        if mixture is not None and mixture.means.shape[2] != n_own:
            raise ValueError("continuous columns of the base must be those of a MarginalDenoiser")
        seen = levels.sum(probs.masked_fill(levels.level_unseen, 0.0))[0, levels.level_column[fed]]
        start = probs[0, fed]
        parts = () if mixture is None else (mixture.log_weight, mixture.means, mixture.var)
        middles = [q.mean() for q in nothing.words]
        buffers = {
            "_fed": fed,
            "_centre": start / seen,
            # a rare category's indicator would be huge in units of its standard deviation
            "_scale": 1 / (start * (1 - start)).sqrt().clamp_min(0.1),
            "_mixture": torch.cat(parts) if parts else torch.zeros(3, 0, 1),
            "_middles": torch.cat(middles) if middles else torch.zeros(0, CODE_LENGTH),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)
        self.n_narrow = self._mixture.shape[2] - 1
        n_real, n_words = len(book.reals), len(book.vocabularies)
        self.words = nn.ParameterList(
            nn.Parameter(v.codes[: v.n_levels] / VERTEX) for v in book.vocabularies
        )
        self._sizes = [len(fed), n_real * self.n_narrow * 3, n_words * CODE_LENGTH]
        self.blur = 0.0
        n_features = (
            len(fed) + n_real * (self.n_narrow + 1) + n_words * CODE_LENGTH + book.n_columns
        )
        n_answers = sum(self._sizes) or 1  # a table of constants leaves nothing to predict
        self.network = ResidualMLP(n_features, n_answers, width=width, depth=depth, dropout=dropout)

    def smoothed(self, sd: float) -> NeuralDenoiser:
        """The same denoiser, weights shared, to which continuous values have a Gaussian error of ``sd``."""
        other = copy.copy(self)
        other.blur = sd
        return other

    def config(self) -> dict[str, Any]:
        names = ("base", "width", "depth", "dropout")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        config = dict(config)
        if config.pop("architecture", "mlp") != "mlp":
            raise ValueError("column transformers are no longer supported: fit the model again")
        width, depth = config["width"], config["depth"]
        first = tensors["network.enter.weight"]  # checked before memory is allocated
        if first.shape[0] != width:
            raise ValueError(f"width is {width!r}, but the weights have {tuple(first.shape)}")
        blocks = {name.split(".")[2] for name in tensors if name.startswith("network.blocks.")}
        if len(blocks) != depth:
            raise ValueError(f"depth is {depth!r}, but there are weights of {len(blocks)} blocks")
        base = with_codebook(config["base"], codebook)
        return cls(**{**config, "base": base}).to(first.dtype)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        return self.correct(self.base(y, snr), y, snr)

    def correct(self, base: Posterior, y: Tensor, snr: Tensor) -> Posterior:
        """The posterior given that of the base: networks that share a base need it once."""
        book = self.codebook
        reliability = torch.where(torch.isinf(snr), 1.0, snr / (1 + snr))
        categorical, gaussian = base.categorical, base.gaussian
        features = []

        levels, seen = book.levels, None
        fed, centre = categorical.probs[:, self._fed], self._centre
        if levels.any_open:
            closed = categorical.logits.masked_fill(levels.level_unseen, -torch.inf)
            seen = levels.logsumexp(closed)  # (B, C): log-probability that the category was seen
            reliability = _times(reliability, book.finite, seen.exp())
            centre = centre * seen.exp()[:, levels.level_column[self._fed]]
        features.append((fed - centre) * self._scale)

        if gaussian is not None:
            weight = gaussian.log_weight.exp()
            narrow = 1 - weight[:, :, -1]  # (B, R): probability that the value is no outlier
            weight = weight[:, :, :-1]
            reliability = _times(reliability, book.reals, narrow)
            prior = torch.softmax(self._mixture[0, :, :-1], 1)
            middle = (prior * self._mixture[1, :, :-1]).sum(1)  # (R,)
            features.append((weight - prior * narrow[:, :, None]).flatten(1) * 2)
            mean = (weight * gaussian.means[:, :, :-1]).sum(2)
            features.append((mean - middle * narrow) / SD)

        for q, middle in zip(base.words, self._middles, strict=True):
            # a known category lies on the sphere, an unseen one at its centre
            unseen = torch.isinf(q.snr) & (q.y.square().sum(1) < VERTEX**2 / 4)
            features.append((q.mean() - middle).masked_fill(unseen[:, None], 0.0) / VERTEX)
            column = torch.tensor([q.vocabulary.column], device=y.device)
            reliability = _times(reliability, column, (~unseen)[:, None].to(reliability))

        out = self.network(torch.cat([*features, reliability], 1))
        out = out[:, : sum(self._sizes)].split(self._sizes, 1)

        f = categorical.logits.new_zeros(categorical.logits.shape).index_copy(1, self._fed, out[0])
        if seen is None:
            categorical = CategoricalPosterior(levels, categorical.logits + f)
        else:
            logits = levels.log_softmax(closed + f)
            logits = logits + levels.per_level(seen)
            logits = torch.where(levels.level_unseen, categorical.logits, logits)
            categorical = CategoricalPosterior(levels, logits, normalised=True)
        if gaussian is not None:
            prior = self._prior(out[1].unflatten(1, (len(book.reals), self.n_narrow, 3)))
            gaussian = prior.update(y[:, book.real_coords], snr[:, book.reals])
        answers = zip(base.words, out[2].split(CODE_LENGTH, 1), self.words, strict=False)
        words = [
            VocabularyPosterior(q.vocabulary, q.log_probs, q.y, q.snr, h, u) for q, h, u in answers
        ]
        return Posterior(book, categorical, gaussian, words)

    def _prior(self, f: Tensor) -> GaussianPosterior:
        """The mixtures that the network proposes in place of the marginal ones: ``f`` (B, R, K - 1, 3)."""
        log_weight, mean, var = self._mixture[:, :, :-1]  # (R, K - 1)
        wide = self._mixture[:, None, :, -1:].expand(-1, len(f), -1, -1)
        change = MOST_LOG_VARIANCE * torch.tanh(f[..., 2] / MOST_LOG_VARIANCE)
        narrow = (
            torch.log_softmax(log_weight + f[..., 0], 2) + torch.log1p(-wide[0].exp()),
            mean + SD * f[..., 1],
            (var * change.exp()).clamp_min(LEAST_SD**2),
        )
        pairs = zip(narrow, wide, strict=True)
        log_weight, mean, var = (torch.cat(pair, 2) for pair in pairs)
        return GaussianPosterior(log_weight, mean, var + self.blur**2)


def _times(values: Tensor, columns: Tensor, factor: Tensor) -> Tensor:
    """``values`` (B, C) with some columns multiplied by ``factor``."""
    return values.index_copy(1, columns, values[:, columns] * factor)
