"""The exact denoiser of a probability table over listed rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import Denoiser, finite_log, row_product


class SupportDenoiser(Denoiser):
    """The oracle of tests: rows ``support`` (R, C) of categories and their ``probs`` (R,), normalised here.

    Posterior probabilities below the smallest normal float are taken as that float, so that a row outside the support
    gets a finite, astronomically small probability.
    """

    exact = True
    support: Tensor
    probs: Tensor
    _indicator: Tensor

    def __init__(self, codebook: Codebook, support: Tensor, probs: Tensor) -> None:
        super().__init__(codebook)
        levels = codebook.levels.index_of(support.long())
        indicator = torch.zeros(len(support), codebook.levels.n_points, device=levels.device)
        indicator.scatter_(1, levels, 1.0)
        self.register_buffer("support", support)
        self.register_buffer("probs", (probs / probs.sum()).to(codebook.known_snr))
        self.register_buffer("_indicator", indicator.to(codebook.known_snr), persistent=False)

    @property
    def log_probs(self) -> Tensor:
        return self.probs.log()

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        levels, evidence = self.codebook.levels, self.evidence(y, snr)
        ell = levels.log_softmax(evidence)  # (B, T)
        # (B, R): Σ_j ℓ_j at the row's categories
        log_w = self.log_probs + row_product(ell, self._indicator.T)
        probs = row_product(torch.softmax(log_w, 1), self._indicator)
        log_mass = torch.logsumexp(log_w, 1) + levels.logsumexp(evidence).sum(1)
        return log_mass, Posterior(self.codebook, CategoricalPosterior(levels, finite_log(probs)))

    def preceding(self, x: Tensor, order: Sequence[int] | None = None) -> Posterior:
        """Exact, by the listed rows that agree with the cells before each column."""
        assert order is not None
        book, levels = self.codebook, self.codebook.levels
        out = self.log_probs.new_zeros(len(x), levels.n_points)
        log_w = self.log_probs.expand(len(x), -1)  # (B, R)
        for j in order:
            mine = levels.own(book.place[j])
            weight = torch.softmax(log_w, 1)
            out[:, mine] = row_product(weight, self._indicator[:, mine])
            fits = (x[:, j, None] == self.support[:, j]) | x[:, j, None].isnan()
            log_w = log_w.masked_fill(~fits, -torch.inf)
            # where no row agrees any more, all are kept
            log_w = torch.where(log_w.isneginf().all(1, keepdim=True), weight.log(), log_w)
        return Posterior(book, CategoricalPosterior(levels, finite_log(out)))

    def log_factors(self, x: Tensor) -> Tensor:
        """-inf at the first cell that no row has, and 0 after it."""
        return super().log_factors(x).nan_to_num(0.0, neginf=-torch.inf)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C), missing cells left out: (B,), nats; -inf outside the support."""
        same = ((x[:, None] == self.support[None]) | x.isnan()[:, None]).all(2)
        return torch.where(same, self.log_probs, -torch.inf).logsumexp(1)
