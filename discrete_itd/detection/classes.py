r"""Conditional distributions of cells under a mixture of products: its classes are the same whatever is known of a row.

.. math:: P(x) = \sum_k w_k \prod_j p_{kj}(x_j), \qquad P(x_j \mid x_{known}) = \sum_k w_k(x_{known})\, p_{kj}(x_j)

A decoder mixture (9) is one, and so is a kernel density, whose classes are its centres. Of a row only the weights
:math:`w_k(x_{known}) \propto w_k \prod_{j\ known} p_{kj}(x_j)` are asked; the densities of the classes at the points of
a column's grid are computed once and kept, as far as memory allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from discrete_itd.channel.devices import add_at
from discrete_itd.denoisers import Denoiser, KernelDenoiser, MixtureDenoiser
from discrete_itd.denoisers.base import rows_at_once

NO_WEIGHT = 1e-16  # of a class that no double can tell from none
SMALLEST = 1e-300  # density, relative to the largest at a point, that stands for less
NUMBERS_AT_ONCE = 1 << 20  # densities of classes at points, or of rows
NUMBERS_KEPT = 1 << 24  # of all columns of one member: 128 MiB


class Classes(Protocol):
    """The classes of a mixture of products."""

    def log_weights(self, known: Tensor) -> Tensor:
        """Logarithm of the posterior weight of each class given rows (U, C), NaN where unknown: float64, (U, K)."""
        ...

    def logits(self, weights: Tensor) -> Tensor:
        """Log-probabilities of all levels of the columns with few levels, of weights (U, K): float64, (U, T)."""
        ...

    def column(self, j: int, weights: Tensor) -> Tensor:
        """Log-probabilities of the categories of high-cardinality column j, of weights (U, K)."""
        ...

    def log_densities(self, j: int, z: Tensor, some: Tensor | None = None) -> Tensor:
        """Log-density of continuous column j at points z (G,) in each class, or in some: float64, (G, K), nats."""
        ...


@dataclass(frozen=True, eq=False)
class KernelClasses:
    """The classes of a kernel density: its centres."""

    kernel: KernelDenoiser

    def log_weights(self, known: Tensor) -> Tensor:
        parts = known.split(self.kernel.batch)
        log_kernels = torch.cat([self.kernel.kernels.log_kernels(rows) for rows in parts])
        return torch.log_softmax(log_kernels.double(), 1)

    def logits(self, weights: Tensor) -> Tensor:
        kernels = self.kernel.kernels
        return kernels.levels_given(*kernels.centres.by_level(weights)).log()

    def column(self, j: int, weights: Tensor) -> Tensor:
        lam, kernels = self.kernel.widths.other, self.kernel.kernels
        prior = kernels.marginals.column(j).double().exp()  # (1, K)
        cells = kernels.centres.cells[:, j]
        there = ~cells.isnan()
        mass = weights.new_zeros(len(weights), prior.shape[1])
        add_at(mass, 1, cells[there].long(), weights[:, there])
        present = mass.sum(1, keepdim=True)
        return ((1 - lam) * mass + (lam * present + 1 - present) * prior).log()

    def log_densities(self, j: int, z: Tensor, some: Tensor | None = None) -> Tensor:
        kernels, sd = self.kernel.kernels, self.kernel.widths.real
        centres = kernels.centres.cells[:, j]
        centres = centres if some is None else centres[some]
        near = log_normal(z[:, None], centres, sd)
        missing = centres.isnan()  # in a centre: its kernel is the marginal
        if not bool(missing.any()):
            return near
        return torch.where(missing, kernels.log_marginal(z, j)[:, None], near)


@dataclass(frozen=True, eq=False)
class MixtureClasses:
    """The classes of a mixture of products of which every column depends on the class."""

    mixture: MixtureDenoiser

    def log_weights(self, known: Tensor) -> Tensor:
        step = rows_at_once(NUMBERS_AT_ONCE // self.mixture.n_components)
        parts = [self.mixture.log_joint(rows).double() for rows in known.split(step)]
        return torch.log_softmax(torch.cat(parts), 1)

    def logits(self, weights: Tensor) -> Tensor:
        return (weights @ self._probs).clamp_min_(SMALLEST).log_()

    @cached_property
    def _probs(self) -> Tensor:
        return self.mixture.log_probs.double().exp()

    def column(self, j: int, weights: Tensor) -> Tensor:
        raise AssertionError("a mixture leaves columns of high cardinality to another denoiser")

    def log_densities(self, j: int, z: Tensor, some: Tensor | None = None) -> Tensor:
        at = (self.mixture.codebook.reals == j).nonzero()[0, 0]
        mean, var = self.mixture.means[:, at].double(), self.mixture.var[:, at].double()
        if some is not None:
            mean, var = mean[some], var[some]
        return log_normal(z[:, None], mean, var.sqrt())


def log_normal(z: Tensor, mean: Tensor, sd: Tensor | float) -> Tensor:
    """Log-density of a Gaussian, nats."""
    sd = torch.as_tensor(sd).to(mean)
    scale = 1 / (sd * math.sqrt(2))
    return (z * scale - mean * scale).square_().neg_().sub_((sd * math.sqrt(2 * math.pi)).log())


def classes_of(denoiser: Denoiser) -> Classes | None:
    """The classes of a denoiser that has some, of all columns."""
    if isinstance(denoiser, KernelDenoiser):
        return KernelClasses(denoiser)
    if isinstance(denoiser, MixtureDenoiser) and denoiser.fallback is None:
        return MixtureClasses(denoiser)
    return None


@dataclass(eq=False)
class Grids:
    """Densities of classes at the points of the grids of columns, those that fit into ``NUMBERS_KEPT``."""

    kept: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def of(self, classes: Classes, j: int, z: Tensor, n: int) -> tuple[Tensor, Tensor] | None:
        """Densities (K, G) of n = K classes relative to the largest at each point, and its logarithm (G,).

        None if they are not kept.
        """
        found = self.kept.get(j)
        if found is not None and found[0] is z:
            return found[1:]
        kept = list(self.kept.values())  # other threads may add to them
        if len(z) * n + sum(density.numel() for _, density, _ in kept) > NUMBERS_KEPT:
            return None
        self.kept[j] = z, *relative(classes.log_densities(j, z))
        return self.kept[j][1:]


@dataclass(frozen=True, eq=False)
class ClassConditionals:
    """Distributions of the cells of U rows given their cells that are not NaN, under a mixture of products.

    Parameters
    ----------
    classes : Classes
    known : Tensor of float64, shape (U, C)
    grids : Grids, optional
        Kept for other rows.
    given : Tensor of float64, shape (U, K), optional
        The ``log_weights``, if they are known.
    """

    classes: Classes
    known: Tensor
    grids: Grids = field(default_factory=Grids)
    given: Tensor | None = None

    def rows(self, places: Tensor) -> ClassConditionals:
        """Those of some of the rows."""
        known, weights = self.known[places], self.log_weights[places]
        return ClassConditionals(self.classes, known, self.grids, weights)

    @cached_property
    def log_weights(self) -> Tensor:
        """Logarithm of the posterior weight of each class, (U, K)."""
        return self.classes.log_weights(self.known) if self.given is None else self.given

    @cached_property
    def weights(self) -> Tensor:
        """The posterior weight of each class, (U, K)."""
        return self.log_weights.exp()

    @cached_property
    def logits(self) -> Tensor:
        """Log-probabilities of all levels of the columns with few levels, (U, T)."""
        return self.classes.logits(self.weights)

    def column(self, j: int) -> Tensor:
        """Log-probabilities of the categories of high-cardinality column j, (U, K)."""
        return self.classes.column(j, self.weights)

    def log_density(self, j: int, z: Tensor) -> Tensor:
        """Log-density of continuous column j at the points z (G,) of its grid: (U, G), nats.

        Relative to the largest density of a class at each point no density is below ``SMALLEST``.
        """
        # given some cells, often only a few
        near = torch.nonzero((self.weights > NO_WEIGHT).any(0)).flatten()
        few = 2 * len(near) < self.weights.shape[1]
        weights = self.weights[:, near] if few else self.weights
        kept = self.grids.of(self.classes, j, z, self.weights.shape[1])
        if kept is not None:
            density, top = kept
            return mixed(weights, density[near] if few else density, top)
        parts = []
        for points in z.split(max(1, NUMBERS_AT_ONCE // weights.shape[1])):
            of_each = self.classes.log_densities(j, points, near if few else None)
            parts.append(mixed(weights, *relative(of_each)))
        return torch.cat(parts, 1)

    def log_density_at(self, j: int, z: Tensor, rows: Tensor) -> Tensor:
        """The same at one point of each of some of the rows: z and their positions, both (B,); result (B,)."""
        step = max(1, NUMBERS_AT_ONCE // self.log_weights.shape[1])
        parts = zip(z.split(step), rows.split(step), strict=True)
        log = [self.log_weights[i] + self.classes.log_densities(j, v) for v, i in parts]
        return torch.cat([torch.logsumexp(p, 1) for p in log])


def relative(log_densities: Tensor) -> tuple[Tensor, Tensor]:
    """Densities (K, G) of the classes at each point relative to the largest, and its logarithm (G,); (G, K) is lost.

    Far from all classes the densities themselves would underflow.
    """
    top = log_densities.amax(1, keepdim=True)
    log_densities.sub_(top).clamp_min_(math.log(SMALLEST))  # numbers below the normal ones are slow
    return log_densities.exp_().T.contiguous(), top[:, 0]


def mixed(weights: Tensor, density: Tensor, top: Tensor) -> Tensor:
    """Log-densities (U, G) of mixtures with weights (U, K) of densities (K, G), relative to exp ``top`` (G,)."""
    return (weights @ density).clamp_min_(SMALLEST).log_().add_(top)
