r"""Conditional distributions of the kernel density, in closed form.

The density is a mixture, :math:`P(x) = \frac1n \sum_i \prod_j k_j(x_j \mid c_{ij})`, so given some cells the others
follow the mixture with the weights :math:`w_i \propto \prod_{j\ known} k_j(x_j \mid c_{ij})`:

.. math:: P(x_j \mid x_{known}) = \sum_i w_i\, k_j(x_j \mid c_{ij}).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from discrete_itd.detection.kernel import KernelDensity

SMALLEST = 1e-300  # probability that stands for less


@dataclass(frozen=True)
class KernelConditionals:
    """Distributions of the cells of U rows given their cells that are not NaN.

    Parameters
    ----------
    kernel : KernelDensity
    known : Tensor of float64, shape (U, C')
    """

    kernel: KernelDensity
    known: Tensor

    @cached_property
    def log_weights(self) -> Tensor:
        """Logarithm of the posterior weight of each centre, (U, n)."""
        return torch.log_softmax(self.kernel.log_kernels(self.known), 1)

    @cached_property
    def _weights(self) -> Tensor:
        return self.log_weights.exp()

    @cached_property
    def logits(self) -> Tensor:
        """Log-probabilities of all levels of the columns with few levels, (U, T)."""
        kernel, layout = self.kernel, self.kernel.base.codebook.levels
        lam, prior = kernel.widths.other, kernel.marginals.categorical.probs.double()  # (1, T)
        mass = self._weights @ kernel.centre_levels  # of centres at each level
        missing = layout.per_level(self._weights @ kernel.centres_missing)  # of centres without it
        present = 1 - missing
        probs = (1 - lam) * mass + (lam * present + missing) * prior
        for _, log_kernel, where in kernel.line_kernels:
            probs[:, where] = (
                mass[:, where] @ log_kernel.exp().T + missing[:, where] * prior[:, where]
            )
        return probs.clamp_min(0.0).log()

    def column(self, j: int) -> Tensor:
        """Log-probabilities of the categories of high-cardinality column j, (U, K)."""
        lam = self.kernel.widths.other
        prior = self.kernel.marginals.column(j).double().exp()  # (1, K)
        cells = self.kernel.centres[:, j]
        there = ~cells.isnan()
        mass = self._weights.new_zeros(len(self.known), prior.shape[1])
        mass.index_add_(1, cells[there].long(), self._weights[:, there])
        present = mass.sum(1, keepdim=True)
        return ((1 - lam) * mass + (lam * present + 1 - present) * prior).log()

    def log_density(self, j: int, z: Tensor) -> Tensor:
        """Log-density of continuous column j at points z (G,): (U, G), nats."""
        log_k = self._log_kernel(j, z)  # (G, n)
        top = log_k.amax(1)  # far from all centres all kernels underflow
        density = self._weights @ (log_k - top[:, None]).exp().T
        return density.clamp_min(SMALLEST).log() + top

    def log_density_at(self, j: int, z: Tensor, rows: Tensor) -> Tensor:
        """The same at one point of each of some of the rows: z and their positions, both (B,); result (B,)."""
        parts = zip(z.split(self.kernel.batch), rows.split(self.kernel.batch), strict=True)
        log = [torch.logsumexp(self.log_weights[i] + self._log_kernel(j, v), 1) for v, i in parts]
        return torch.cat(log)

    def _log_kernel(self, j: int, z: Tensor) -> Tensor:
        """Log-density at points z (G,) around each centre, or of the marginal where the centre's cell is missing."""
        kernel = self.kernel
        centres, sd = kernel.centres[:, j], kernel.widths.real
        near = -0.5 * ((z[:, None] - centres) / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))
        missing = centres.isnan()
        if not bool(missing.any()):
            return near
        nothing = z.new_full((len(z), self.known.shape[1]), math.nan)
        nothing[:, j] = z
        alone = kernel.marginals.expand(len(z)).log_prob(nothing).double()[:, j]
        return torch.where(missing, alone[:, None], near)
