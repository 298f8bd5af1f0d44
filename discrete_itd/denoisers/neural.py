r"""The learned denoiser: an exact base plus a network's correction.

Its logits are :math:`\log\pi_{jk} + \ell_{jk} + f_{jk}(y, \gamma)` with f a network that starts at zero, so
that an untrained denoiser *is* its base and training can only buy nats. In other words the network sees all columns and
gives each a new prior, which the column's own evidence then updates by Bayes' rule; for a continuous column
that prior is a mixture of Gaussians.
"""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import Config, Denoiser, Tensors, with_codebook
from discrete_itd.denoisers.features import ColumnFeatures
from discrete_itd.denoisers.networks import ResidualMLP


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
    What the network hears and changes is said in :class:`~discrete_itd.denoisers.features.ColumnFeatures`; it hears the
    posterior of the base. An unseen category so costs exactly what the base says, and never sends the network where it
    was not trained.

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

    words: nn.ParameterList

    def __init__(
        self, base: Denoiser, *, width: int = 256, depth: int = 3, dropout: float = 0.1
    ) -> None:
        super().__init__(base.codebook)
        self.width, self.depth, self.dropout = width, depth, dropout
        self.base = base.requires_grad_(False)
        self.features = ColumnFeatures(base)
        self.words = self.features.new_words()
        n_features, self._n_answers = len(self.features.feature_column), sum(self.features.sizes)
        n_answers = self._n_answers or 1  # a table of constants leaves nothing to predict
        self.network = ResidualMLP(n_features, n_answers, width=width, depth=depth, dropout=dropout)

    def config(self) -> dict[str, Any]:
        names = ("base", "width", "depth", "dropout")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
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
        book, base = self.codebook, self.base(y, snr)
        answers = self.network(self.features.describe(base, snr))[:, : self._n_answers]
        posterior = self.features.answer(base, answers, list(self.words))
        gaussian = posterior.gaussian
        if gaussian is not None:  # the others start from the base, which has heard the evidence
            gaussian = gaussian.update(y[:, book.real_coords], snr[:, book.reals])
        return Posterior(book, posterior.categorical, gaussian, posterior.words)
