"""The posterior of continuous columns: one mixture of Gaussians per column."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from discrete_itd.channel.levels import REAL_KNOWN_SNR
from discrete_itd.channel.noise import add_gumbel


class GaussianPosterior:
    r"""A product of mixtures of Gaussians, one mixture for every continuous column.

    Parameters
    ----------
    log_weight, mean, var : Tensor, shape (B, R, K)
        Of the K components of each column; the weights are normalised by the constructor.
    normalised : bool
        Whether they already are.

    Notes
    -----
    One component is the Gaussian posterior of the mathematics. The Bayes update of a mixture is a mixture of as many
    components again: with evidence :math:`y = \delta x + \sqrt\delta\xi` and c = y/δ,

    .. math:: \mu \to \frac{\mu + vy}{1 + \delta v}, \quad v \to \frac{v}{1 + \delta v}, \quad
              \log w \to \log w - \tfrac12\log(1 + \delta v) - \frac{\delta(\mu - c)^2}{2(1 + \delta v)}.

    Examples
    --------
    >>> zero = torch.zeros(1, 1, 1)
    >>> q = GaussianPosterior(zero, zero, zero + 1.0).update(torch.tensor([[3.0]]), torch.tensor([[2.0]]))
    >>> q.mean(), q.var.flatten()
    (tensor([[1.]]), tensor([0.3333]))
    """

    def __init__(
        self, log_weight: Tensor, mean: Tensor, var: Tensor, *, normalised: bool = False
    ) -> None:
        self.log_weight = log_weight if normalised else torch.log_softmax(log_weight, 2)
        self.means, self.var = mean, var

    def mean(self) -> Tensor:
        r"""The denoised values :math:`\hat x`, shape (B, R)."""
        return (self.log_weight.exp() * self.means).sum(2)

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-density at each cell (B, R): (B, R), nats."""
        return torch.logsumexp(self._log_joint(values), dim=2)

    def shares(self, values: Tensor) -> Tensor:
        """Probabilities of the components given the cells (B, R): (B, R, K)."""
        return torch.softmax(self._log_joint(values), 2)

    def _log_joint(self, values: Tensor) -> Tensor:
        z = (values[:, :, None] - self.means).square() / self.var
        return self.log_weight - 0.5 * (z + torch.log(2 * math.pi * self.var))

    def update(self, y: Tensor, snr: Tensor) -> GaussianPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by evidence ``y`` and ``snr``, both (B, R)."""
        known = torch.isinf(snr)
        snr = torch.where(known, REAL_KNOWN_SNR, snr)
        y = torch.where(known, y * REAL_KNOWN_SNR, y)
        centre = (y / snr.clamp_min(torch.finfo(snr.dtype).tiny))[:, :, None]
        y, snr = y[:, :, None], snr[:, :, None]
        shrink = 1 + snr * self.var
        # where snr is 0, so is y, and the centre
        misfit = 0.5 * snr * (self.means - centre) ** 2 / shrink
        log_weight = self.log_weight - 0.5 * shrink.log() - misfit
        means = (self.means + self.var * y) / shrink
        return GaussianPosterior(log_weight, means, self.var / shrink)

    def pick(self, rows: Callable[[Tensor], Tensor]) -> GaussianPosterior:
        """The posterior of other rows, ``rows`` of each tensor."""
        parts = self.log_weight, self.means, self.var
        return GaussianPosterior(*map(rows, parts), normalised=True)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One value per column, shape (B, R)."""
        pick = add_gumbel(self.log_weight, generator).argmax(2, keepdim=True)
        mean, var = (t.gather(2, pick)[:, :, 0] for t in (self.means, self.var))
        xi = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=var.dtype)
        return mean + var.sqrt() * xi
