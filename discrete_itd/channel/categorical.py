"""The posterior of columns of few categories: one categorical distribution per column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.channel.levels import Levels
from discrete_itd.channel.noise import add_gumbel


class CategoricalPosterior:
    r"""A product of categorical distributions over levels.

    Parameters
    ----------
    levels : Levels
    logits : Tensor, shape (B, T), nats
        Normalised within every column by the constructor.
    normalised : bool
        Whether they already are.

    Examples
    --------
    >>> from discrete_itd.channel.levels import ColumnPoints
    >>> levels = Levels([ColumnPoints("simplex", 2)])
    >>> q = CategoricalPosterior(levels, torch.zeros(1, 2))
    >>> q.log_prob(torch.tensor([[1]]))
    tensor([[-0.6931]])
    """

    def __init__(self, levels: Levels, logits: Tensor, *, normalised: bool = False) -> None:
        self.levels = levels
        self.logits = logits if normalised else levels.log_softmax(logits)

    @property
    def probs(self) -> Tensor:
        """Probabilities, shape (B, T)."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x = \sum_k q_{jk} e_{jk}`, shape (B, D)."""
        return self.levels.mean(self.probs)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of each cell (int64 codes, (B, C)): (B, C), nats."""
        return self.levels.at(self.logits, codes)

    def update(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by evidence ``y`` (B, D) at ``snr`` (B, C), eq. (2)."""
        return CategoricalPosterior(self.levels, self.logits + self.levels.evidence(y, snr))

    def pick(self, rows: Callable[[Tensor], Tensor]) -> CategoricalPosterior:
        """The posterior of other rows, ``rows`` of each tensor."""
        return CategoricalPosterior(self.levels, rows(self.logits), normalised=True)

    def sample(self, generator: torch.Generator, *, allow_unseen: bool = False) -> Tensor:
        """One category per column: int64 codes, shape (B, C)."""
        scores = add_gumbel(self.logits, generator)
        if self.levels.any_open and not allow_unseen:
            scores = scores.masked_fill(self.levels.level_unseen, -torch.inf)
        return self.levels.argmax(scores)
