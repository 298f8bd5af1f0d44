r"""The learned denoiser: an exact base plus a network's correction.

Its logits are :math:`\log\pi_{jk} + \ell_{jk} + f_{jk}(y, \gamma)` with f a network that starts at zero, so
that an untrained denoiser *is* its base and training can only buy nats.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from discrete_itd.codebook import Codebook
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.exact import MarginalDenoiser
from discrete_itd.posterior import CategoricalPosterior


class ResidualMLP(nn.Module):
    """Pre-normalised residual blocks between two linear maps; the last starts at zero.

    Parameters
    ----------
    n_in, n_out : int
    width : int
        Hidden units W.
    depth : int
        Number of residual blocks.
    dropout : float
        Share of hidden units dropped in training.
    """

    def __init__(self, n_in: int, n_out: int, *, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(depth)
        )
        last = nn.Linear(width, n_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        h = self.enter(features)  # (B, W)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


class NeuralDenoiser(Denoiser):
    r"""Logits of a base denoiser, corrected by a network.

    Parameters
    ----------
    base : Denoiser
        Exact denoiser of a tractable model; its parameters are kept fixed.
    width, depth, dropout
        Of the :class:`ResidualMLP`.

    Notes
    -----
    The network sees, per column, the base's posterior (bounded, centred and scaled by its value when nothing is
    known) and the reliability :math:`\gamma/(1+\gamma)`. The first category of every column serves as reference,
    so it is neither fed nor predicted.

    The network moves probability among the *seen* categories only, and a cell that holds an unseen one looks to it
    like a missing cell. An unseen category so costs exactly what the base says, and never
    sends the network where it was not trained.
    """

    _fed: Tensor
    _centre: Tensor
    _scale: Tensor

    def __init__(
        self, base: Denoiser, *, width: int = 256, depth: int = 3, dropout: float = 0.1
    ) -> None:
        super().__init__(base.codebook)
        self.width, self.depth = width, depth
        self.base = base.requires_grad_(False)
        book = self.codebook
        fed = torch.nonzero((book.slot_level > 0) & ~book.slot_open).flatten()
        with torch.no_grad():
            start = base(
                book.slot_value.new_zeros(1, book.n_coords),
                book.slot_value.new_zeros(1, book.n_columns),
            ).probs
        seen = book.sum(start.masked_fill(book.slot_open, 0.0))[0, book.slot_column[fed]]
        start = start[0, fed]
        self.register_buffer("_fed", fed, persistent=False)
        self.register_buffer("_centre", start / seen, persistent=False)
        # a rare category's indicator would be huge in units of its standard deviation
        self.register_buffer(
            "_scale", 1 / (start * (1 - start)).sqrt().clamp_min(0.1), persistent=False
        )
        self.network = ResidualMLP(
            len(fed) + book.n_columns,
            max(1, len(fed)),  # a table of constants leaves nothing to predict
            width=width,
            depth=depth,
            dropout=dropout,
        )

    @classmethod
    def from_tensors(
        cls, codebook: Codebook, tensors: Mapping[str, Tensor], *, width: int, depth: int
    ) -> NeuralDenoiser:
        """Make the denoiser on a marginal base whose ``state_dict`` was ``tensors``, in their floating type.

        Raises
        ------
        LookupError, RuntimeError, ValueError
            If the tensors are not those of such a denoiser.
        """
        log_probs = tensors["base.log_probs"]
        if tensors["network.enter.weight"].shape[:1] != (width,):  # before memory is asked for
            raise ValueError(f"the network's width is {width}, its weights' another")
        base = MarginalDenoiser(codebook.to(log_probs.dtype), log_probs.exp())
        base.log_probs.copy_(log_probs)  # exactly: the exponential has rounded them
        denoiser = cls(base, width=width, depth=depth).to(log_probs.dtype)
        denoiser.load_state_dict(dict(tensors))
        return denoiser

    def forward(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        book = self.codebook
        base = self.base(y, snr)
        reliability = torch.where(torch.isinf(snr), 1.0, snr / (1 + snr))
        seen = None
        if book.any_open:
            closed = base.logits.masked_fill(book.slot_open, -torch.inf)
            seen = book.logsumexp(closed)  # (B, C): log-probability that the category was seen
            reliability = reliability * seen.exp()
        fed = base.probs[:, self._fed]
        centre = self._centre
        if seen is not None:
            centre = centre * seen.exp()[:, book.slot_column[self._fed]]
        features = torch.cat([(fed - centre) * self._scale, reliability], 1)
        f = base.logits.new_zeros(base.logits.shape)
        f = f.index_copy(1, self._fed, self.network(features)[:, : len(self._fed)])
        if seen is None:
            return CategoricalPosterior(book, base.logits + f)
        logits = book.log_softmax(base.logits.masked_fill(book.slot_open, -torch.inf) + f)
        logits = torch.where(book.slot_open, base.logits, logits + book.per_slot(seen))
        return CategoricalPosterior(book, logits, normalised=True)
