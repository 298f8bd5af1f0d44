"""Denoisers that are exact for a distribution written down in full."""

from __future__ import annotations

import torch
from torch import Tensor

from discrete_itd.codebook import Codebook
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.posterior import CategoricalPosterior


class MarginalDenoiser(Denoiser):
    """Exact for independent columns: each column's Bayes posterior from its own evidence.

    Parameters
    ----------
    codebook : Codebook
    probs : Tensor, shape (T,)
        Marginal probability of every slot; positive, normalised within every column here.

    Examples
    --------
    >>> from discrete_itd.codebook import ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)])
    >>> MarginalDenoiser(book, torch.tensor([0.25, 0.75])).log_prob(torch.tensor([[1]]))
    tensor([-0.2877])
    """

    log_probs: Tensor

    def __init__(self, codebook: Codebook, probs: Tensor) -> None:
        super().__init__(codebook)
        if probs.shape != (codebook.n_slots,) or not bool((probs > 0).all()):
            raise ValueError(f"probs must be {codebook.n_slots} positive numbers")
        logits = probs.to(codebook.slot_value).log()
        self.register_buffer("log_probs", codebook.log_softmax(logits[None])[0])

    @classmethod
    def from_counts(cls, codebook: Codebook, codes: Tensor, *, pseudo_count: float = 0.5):
        """Smoothed marginals of the rows ``codes`` (N, C): each slot's count plus ``pseudo_count``.

        A pseudo-count of one half is the estimator of Krichevsky and Trofimov (1981); the slot of unseen
        categories gets nothing but it.
        """
        counts = torch.full((codebook.n_slots,), float(pseudo_count), dtype=torch.float64)
        slots = codebook.slot_of(codes.to(codebook.slot_column.device)).flatten().cpu()
        counts += torch.bincount(slots, minlength=codebook.n_slots)
        return cls(codebook, counts.to(codebook.slot_column.device))

    def forward(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        logits = self.log_probs + self.codebook.evidence(y, snr)
        return CategoricalPosterior(self.codebook, logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (codes, (B, C)) in closed form: (B,), nats."""
        return self.codebook.at(self.log_probs.expand(len(x), -1), x).sum(1)


class SupportDenoiser(Denoiser):
    """Exact for a probability table over listed rows: the oracle of tests and documentation.

    Parameters
    ----------
    codebook : Codebook
    support : Tensor of int64, shape (R, C)
        The rows (codes) that can occur.
    probs : Tensor, shape (R,)
        Their probabilities; positive, normalised here.

    Notes
    -----
    A call costs B R (C + T) operations. Posterior probabilities below the smallest normal float are taken
    as that float, so that a row outside the support gets a finite, astronomically small probability.
    """

    support: Tensor
    log_probs: Tensor
    _indicator: Tensor

    def __init__(self, codebook: Codebook, support: Tensor, probs: Tensor) -> None:
        super().__init__(codebook)
        if support.ndim != 2 or support.shape[1] != codebook.n_columns:
            raise ValueError(f"support must have {codebook.n_columns} columns")
        if probs.shape != (len(support),) or not bool((probs > 0).all()):
            raise ValueError(f"probs must be {len(support)} positive numbers")
        slots = codebook.slot_of(support)
        indicator = torch.zeros(len(support), codebook.n_slots, device=slots.device)
        indicator.scatter_(1, slots, 1.0)
        self.register_buffer("support", support)
        self.register_buffer("log_probs", (probs / probs.sum()).to(codebook.slot_value).log())
        self.register_buffer("_indicator", indicator.to(codebook.slot_value))

    def forward(self, y: Tensor, snr: Tensor) -> CategoricalPosterior:
        ell = self.codebook.log_softmax(self.codebook.evidence(y, snr))  # (B, T)
        log_w = self.log_probs + ell @ self._indicator.T  # (B, R): Σ_j ℓ_j at the row's categories
        probs = torch.softmax(log_w, 1) @ self._indicator
        logits = probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
        return CategoricalPosterior(self.codebook, logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (codes, (B, C)): (B,), nats; -inf outside the support."""
        same = (x[:, None] == self.support[None]).all(2)
        return torch.where(same, self.log_probs, -torch.inf).logsumexp(1)
