r"""High-cardinality columns of a kernel density: what evidence leaves to each centre, and the posterior.

Given evidence :math:`\ell_k` about the categories, a centre with category c has the mass
:math:`(1 - \lambda) e^{\ell_c} + \lambda M` with :math:`M = \sum_k \pi_k e^{\ell_k}`, one without the cell has M, and
with shares :math:`u_i` of the centres over their masses the posterior is

.. math:: q_k \propto e^{\ell_k} \Big[(1 - \lambda) \sum_{i: c_i = k} u_i
          + \pi_k \Big(\lambda \sum_{i\ with\ a\ cell} u_i + \sum_{i\ without} u_i\Big)\Big].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Vocabulary
from discrete_itd.channel.devices import add_at
from discrete_itd.channel.high_cardinality import CHUNK_CELLS, CODE_KNOWN_SNR, VocabularyPosterior
from discrete_itd.channel.levels import VERTEX

LEAST = 1e-300  # stands for no mass


def code_evidence(vocabulary: Vocabulary, y: Tensor, snr: Tensor) -> Tensor:
    """Log-likelihood of every category given ``y`` (B, D) and ``snr`` (B,), eq. (2): (B, K), nats."""
    known = torch.isinf(snr)
    y = y * torch.where(known, CODE_KNOWN_SNR, 1.0).to(y)[:, None]
    gamma = torch.where(known, CODE_KNOWN_SNR, snr)[:, None]
    out = y @ vocabulary.codes.T
    out[:, : vocabulary.n_levels] -= gamma * (VERTEX**2 / 2)
    return out


class CodeKernels:
    """The kernels of one high-cardinality column around all centres, given evidence about some rows.

    Parameters
    ----------
    vocabulary : Vocabulary
    log_prior : Tensor, shape (K,)
        Marginal log-probability of every category.
    cells : Tensor of float64, shape (n,)
        The centres' cells.
    distinct : pair of Tensor of int64, shapes (U,) and (n,)
        Their distinct codes, and which of these each centre has.
    lam : float
        Probability with which a category is drawn from the marginal.
    y : Tensor, shape (B, D)
    snr : Tensor, shape (B,)
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        log_prior: Tensor,
        cells: Tensor,
        distinct: tuple[Tensor, Tensor],
        lam: float,
        y: Tensor,
        snr: Tensor,
    ) -> None:
        self._vocabulary, self._log_prior, self._lam = vocabulary, log_prior, lam
        self._y, self._snr = y, snr
        self._gone = cells.isnan()
        self._codes, self._place = distinct
        at_codes, alone = [], []
        step = max(1, CHUNK_CELLS // vocabulary.n_points)
        for some_y, some_snr in zip(y.split(step), snr.split(step), strict=True):
            ell = code_evidence(vocabulary, some_y, some_snr).double()
            alone.append(torch.logsumexp(ell + log_prior.double(), 1))
            at_codes.append(ell[:, self._codes])
        own, self._alone = torch.cat(at_codes), torch.cat(alone)[:, None]
        self._own = torch.logaddexp(own + math.log1p(-lam), self._alone + math.log(lam))

    def log_mass(self) -> Tensor:
        """Log of the mass that each centre leaves to the evidence, (B, n), nats."""
        return torch.where(self._gone, self._alone, self._own[:, self._place])

    def posterior(self, share: Tensor) -> KernelCodesPosterior:
        """The posterior given the shares of the centres, (B, n)."""
        there = share * ~self._gone
        of_code = add_at(share.new_zeros(len(share), len(self._codes)), 1, self._place, there)
        # the mass that the marginal leaves, relative to the kernel's
        relative = (self._alone - self._own).exp()
        of_code = of_code * relative
        broad = self._lam * of_code.sum(1) + (share * self._gone).sum(1)
        h = torch.cat([broad[:, None], (1 - self._lam) * of_code], 1)
        return KernelCodesPosterior(
            self._vocabulary, self._log_prior, self._y, self._snr, h, codes=self._codes
        )


class KernelCodesPosterior(VocabularyPosterior):
    """The posterior whose prior is a multiple of the marginal and mass at the centres' categories.

    Parameters
    ----------
    vocabulary, log_probs, y, snr, shared
        As of :class:`VocabularyPosterior`.
    h : Tensor of float64, shape (B, 1 + U)
        The multiple of the marginal, then the mass at each of the ``codes``.
    codes : Tensor of int64, shape (U,)
        Distinct categories.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        log_probs: Tensor,
        y: Tensor,
        snr: Tensor,
        h: Tensor,
        *,
        codes: Tensor,
        shared: bool = False,
    ) -> None:
        super().__init__(vocabulary, log_probs, y, snr, h, shared=shared)
        self.mass, self.codes = h, codes

    def _logits(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        prior = self.log_probs.double().exp()
        for part in rows.split(max(1, CHUNK_CELLS // len(prior))):
            h = self.mass[part]
            weight = (h[:, :1] * prior).index_add(1, self.codes, h[:, 1:])
            ell = code_evidence(self.vocabulary, self.y[part], self.snr[part])
            logits = weight.clamp_min(LEAST).log() + ell
            yield part, torch.log_softmax(logits, 1).to(self.y)

    def update(self, y: Tensor, snr: Tensor) -> KernelCodesPosterior:
        y = torch.where(torch.isinf(snr)[:, None], y, self.y + y)
        return self._like(y, self.snr + snr, self.mass, shared=False)

    def pick(self, rows: Callable[[Tensor], Tensor], *, shared: bool) -> KernelCodesPosterior:
        return self._like(rows(self.y), rows(self.snr), rows(self.mass), shared=shared)

    def _like(self, y: Tensor, snr: Tensor, h: Tensor, *, shared: bool) -> KernelCodesPosterior:
        return KernelCodesPosterior(
            self.vocabulary, self.log_probs, y, snr, h, codes=self.codes, shared=shared
        )
