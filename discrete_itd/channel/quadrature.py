"""Quadratures: the points of an integral over SNR."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor


class Quadrature:
    """An importance density over log-SNR, constant on the cells of a grid.

    Parameters
    ----------
    edges : Tensor, shape (n + 1,)
        Increasing values of logsnr.
    density : Tensor, shape (n,)
        Non-negative; any scale.

    Notes
    -----
    Points are stratified: of n, the i-th has its quantile in [i/n, (i+1)/n).

    Examples
    --------
    >>> snr, weight = Quadrature.logistic(0.0, 2.0, low=-6, high=6).points(torch.tensor([0.25, 0.75]))
    >>> snr.round(decimals=2)
    tensor([0.1400, 7.0400], dtype=torch.float64)
    """

    def __init__(self, edges: Tensor, density: Tensor) -> None:
        edges, density = edges.double(), density.double()
        if density.ndim != 1 or edges.shape != (len(density) + 1,):
            shapes = tuple(edges.shape), tuple(density.shape)
            raise ValueError(f"edges and density must have shapes (n + 1,) and (n,), got {shapes}")
        mass = density * edges.diff()
        if not (edges.diff() > 0).all() or not (mass >= 0).all() or not mass.sum() > 0:
            raise ValueError("edges must increase and density be non-negative, not all zero")
        self.edges, self.density = edges, density
        self._cdf = torch.cat([edges.new_zeros(1), (mass / mass.sum()).cumsum(0)])
        self._cdf[-1] = 1.0
        self._density = density / mass.sum()
        self._ends = float(edges[0]), float(edges[-1])  # on the host: reading them later would wait

    @classmethod
    def logistic(cls, loc: float, scale: float, *, low: float, high: float) -> Quadrature:
        """The paper's density over logsnr: a logistic, cut to [low, high] (arXiv:2302.03792)."""
        edges = torch.linspace(low, high, 257, dtype=torch.float64)
        middle = (edges[1:] + edges[:-1]) / 2
        s = torch.sigmoid((middle - loc) / scale)
        return cls(edges, s * (1 - s))

    @property
    def low(self) -> float:
        """Smallest SNR (not its logarithm)."""
        return math.exp(self._ends[0])

    @property
    def high(self) -> float:
        """Largest SNR."""
        return math.exp(self._ends[1])

    def to(self, device: torch.device | str) -> Quadrature:
        """The same quadrature on another device, to the last bit."""
        other = copy.copy(self)
        for name in ("edges", "density", "_cdf", "_density"):
            setattr(other, name, getattr(self, name).to(device))
        return other

    def points(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """SNRs at quantiles ``u`` in [0, 1) and the weights d snr / density, same shape, float64."""
        after = torch.searchsorted(self._cdf, u.double(), right=True)
        cell = after.clamp_(1, len(self._density)) - 1
        inside = (u - self._cdf[cell]) / (self._cdf[cell + 1] - self._cdf[cell]).clamp_min(1e-300)
        left = self.edges[cell]
        snr = torch.exp(left + inside * (self.edges[cell + 1] - left))
        return snr, snr / self._density[cell]
