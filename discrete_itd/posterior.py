"""What a denoiser believes about every column of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from discrete_itd.codebook import Codebook


class CategoricalPosterior:
    r"""A product of categorical distributions, one per column.

    Parameters
    ----------
    codebook : Codebook
    logits : Tensor, shape (B, T), nats
        Normalised within every column by the constructor.
    normalised : bool
        Whether they already are.

    Examples
    --------
    >>> from discrete_itd.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)])
    >>> q = CategoricalPosterior(book, torch.zeros(1, 2))
    >>> q.log_prob(torch.tensor([[1]]))
    tensor([[-0.6931]])
    """

    def __init__(self, codebook: Codebook, logits: Tensor, *, normalised: bool = False) -> None:
        self.codebook = codebook
        self.logits = logits if normalised else codebook.log_softmax(logits)

    @property
    def probs(self) -> Tensor:
        """Probabilities, shape (B, T)."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        r"""The denoised row :math:`\hat x = \sum_k q_{jk} e_{jk}`, shape (B, D)."""
        return self.codebook.mean(self.probs)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each cell of the rows ``x`` (codes, (B, C)): (B, C), nats."""
        return self.codebook.at(self.logits, x)

    def update(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by new evidence of every column about itself.

        Parameters
        ----------
        y : Tensor, shape (B, D)
            Increment of the statistic (the point itself where ``snr`` is infinite).
        snr : Tensor, shape (B, C)
            Increment of the SNR.
        """
        return CategoricalPosterior(self.codebook, self.logits + self.codebook.evidence(y, snr))

    def expand(self, n: int) -> CategoricalPosterior:
        """One row's posterior for ``n`` rows."""
        return CategoricalPosterior(self.codebook, self.logits.expand(n, -1), normalised=True)

    def sample(self, generator: torch.Generator, *, allow_unseen: bool = False) -> Tensor:
        """One category per column: codes, shape (B, C).

        The slot of unseen categories names no value; it is drawn only if asked for.
        """
        uniform = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        gumbel = -torch.log(-torch.log(uniform.clamp_(1e-12, 1 - 1e-7)))
        scores = self.logits + gumbel.to(self.logits)
        if self.codebook.any_open and not allow_unseen:
            scores = scores.masked_fill(self.codebook.slot_open, -torch.inf)
        return self.codebook.argmax(scores)
