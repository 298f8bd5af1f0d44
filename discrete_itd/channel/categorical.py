"""The posterior of low-cardinality columns: one categorical distribution per column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.channel.levels import Levels
from discrete_itd.channel.noise import add_gumbel


class CategoricalPosterior:
    """A product of categorical distributions over levels.

    Parameters
    ----------
    levels : Levels logits : Tensor, shape (B, T), nats
        Normalised within every column by the constructor, unless ``normalised``.
    log_total : Tensor, shape (B, C), optional
        Logsumexp of each column of ``logits``, which are then normalised only when they are needed.

    Examples
    --------
    >>> from discrete_itd.channel.levels import ColumnPoints
    >>> levels = Levels([ColumnPoints("simplex", 2)])
    >>> q = CategoricalPosterior(levels, torch.zeros(1, 2))
    >>> q.log_prob(torch.tensor([[1]]))
    tensor([[-0.6931]])
    """

    def __init__(
        self,
        levels: Levels,
        logits: Tensor,
        *,
        normalised: bool = False,
        log_total: Tensor | None = None,
    ) -> None:
        self.levels = levels
        if not normalised and log_total is None:
            logits = levels.log_softmax(logits)
        self._logits, self._log_total = logits, log_total

    @property
    def logits(self) -> Tensor:
        """Log-probabilities, shape (B, T), nats."""
        if self._log_total is not None:
            self._logits = self._logits - self.levels.per_level(self._log_total)
            self._log_total = None
        return self._logits

    @property
    def probs(self) -> Tensor:
        """Probabilities, shape (B, T)."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        r"""The denoised point :math:`\hat x = \sum_k q_{jk} e_{jk}`, shape (B, D)."""
        return self.levels.mean(self.probs)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of each cell (int64 codes, (B, C)): (B, C), nats."""
        own = self.levels.at(self._logits, codes)
        return own if self._log_total is None else own - self._log_total

    def update(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by evidence ``y`` (B, D) at ``snr`` (B, C), eq. (2)."""
        return CategoricalPosterior(self.levels, self.logits + self.levels.evidence(y, snr))

    def pick(self, rows: Callable[[Tensor], Tensor]) -> CategoricalPosterior:
        """The posterior of the rows that ``rows`` selects from each tensor."""
        return CategoricalPosterior(self.levels, rows(self.logits), normalised=True)

    def sample(self, generator: torch.Generator, *, allow_unseen: bool = False) -> Tensor:
        """One category per column: int64 codes, shape (B, C)."""
        scores = add_gumbel(self.logits, generator)
        if self.levels.any_open and not allow_unseen:
            scores = scores.masked_fill(self.levels.level_unseen, -torch.inf)
        return self.levels.argmax(scores)
