r"""The Gaussian channel in SNR time: noise, schedules and quadratures.

A row x is seen through :math:`z = \sqrt\gamma x + \varepsilon`, eq. (1). In SNR time the statistic
:math:`y = \sqrt\gamma z = \gamma x + w_\gamma` has independent increments,

.. math:: \Delta y = \delta x + \sqrt\delta\, \xi, \qquad \xi \sim N(0, I),

so the pair (y, snr), with y of shape (B, D) and one SNR per column of shape (B, C), is the whole state.
An infinite SNR means "known", and y then holds the point itself; zero means "nothing known".

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792.
Guo, Shamai, Verdú, "Mutual information and minimum mean-square error in Gaussian channels", 2005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from discrete_itd.codebook import Codebook

# The finaliser and the increment of SplitMix64 (Steele, Lea, Flood 2014), as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _wrap(n: int) -> int:
    """A Python integer as the signed 64-bit one congruent to it."""
    return (n + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own is arithmetic)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


class RowNoise:
    """Random numbers that depend on a row's content alone, never on its place in a batch.

    A counter-based generator: every number is a hash of (salt, content of the row, path, step,
    coordinate). Two equal rows get equal noise, so a score is a function of the row.

    Parameters
    ----------
    codes : Tensor of int64, shape (B, C)
        The rows' categories.
    path : Tensor of int64, shape (B,)
        Which repetition each row is in.
    salt : int
        One number for all rows, from the caller's generator.
    """

    def __init__(self, codes: Tensor, path: Tensor, salt: int) -> None:
        place = _mix(torch.arange(1, codes.shape[1] + 1, device=codes.device) * _GOLDEN + salt)
        content = _mix(codes * _GOLDEN + place).sum(1)
        self._key = _mix(_mix(content) + (path + 1) * _GOLDEN)

    def _bits(self, stream: int, n: int) -> Tensor:
        place = torch.arange(1, n + 1, device=self._key.device) * _GOLDEN + _wrap(stream * _MIX_2)
        return _mix(self._key[:, None] ^ _mix(place))

    def uniform(self, stream: int, n: int) -> Tensor:
        """Float64 numbers in [0, 1), shape (B, n); ``stream`` separates independent uses."""
        return _shift(self._bits(stream, n), 11).double() * 2.0**-53

    def normal(self, stream: int, n: int, dtype: torch.dtype) -> Tensor:
        """Standard normals, shape (B, n), by Box and Muller (1958)."""
        bits = self._bits(stream, (n + 1) // 2)
        u = (_shift(bits, 32) + 1).to(dtype) * 2.0**-32  # (0, 1]
        angle = (bits & 0xFFFFFFFF).to(dtype) * (2 * math.pi * 2.0**-32)
        radius = torch.sqrt(-2 * torch.log(u))
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)[:, :n]


class State(NamedTuple):
    """What the channel has shown so far: ``y`` (B, D) and ``snr`` (B, C)."""

    y: Tensor
    snr: Tensor

    @classmethod
    def start(cls, codebook: Codebook, points: Tensor, given: Tensor | None = None) -> State:
        """Nothing known of the rows ``points`` (B, D) but the columns where ``given`` (C,) is true."""
        snr = points.new_zeros(len(points), codebook.n_columns)
        if given is None:
            return cls(torch.zeros_like(points), snr)
        y = torch.where(codebook.per_coord(given[None]), points, 0.0)
        return cls(y, snr.masked_fill(given, math.inf))

    def increment(
        self, codebook: Codebook, points: Tensor, snr: Tensor, xi: Tensor | None
    ) -> State:
        r"""The evidence :math:`(\Delta y, \delta)` that leads from this state to the SNRs ``snr``.

        ``xi`` (B, D) is standard normal noise; None where all increments are zero or infinite.
        """
        delta = torch.where(
            torch.isinf(self.snr), 0.0, snr - self.snr
        )  # known cells stay as they are
        finite = codebook.per_coord(torch.where(torch.isinf(delta), 0.0, delta))
        dy = finite * points if xi is None else finite * points + finite.sqrt() * xi
        return State(torch.where(codebook.per_coord(torch.isinf(delta)), points, dy), delta)

    def add(self, codebook: Codebook, new: State) -> State:
        """The state after an increment."""
        jumps = codebook.per_coord(torch.isinf(new.snr))
        return State(torch.where(jumps, new.y, self.y + new.y), self.snr + new.snr)


# -- schedules: the SNR of each column after each step of a path ----------------------------------


class Schedule(Protocol):
    """A path from nothing known to (almost) everything known.

    ``snr(step, rank)`` is the SNR of every column after that step, (B, C), non-decreasing in ``step`` and 0 at
    step 0. It may depend on the random order in which the row's path takes the columns: ``rank`` (B, C)
    holds 0 for the first, 1 for the next; columns known from the start have negative ranks.
    """

    @property
    def n_steps(self) -> int:
        """Number of steps S."""
        ...

    @property
    def noisy(self) -> bool:
        """Whether any increment is finite, so that the path needs Gaussian noise."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every cell is known after the last step, whose posterior then needs no call."""
        ...

    def snr(self, step: int, rank: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class IsotropicSchedule:
    """All columns at one SNR, which climbs through given levels.

    Parameters
    ----------
    levels : tuple of float, length S
        Increasing positive finite SNRs.

    Examples
    --------
    >>> IsotropicSchedule((0.5, 2.0)).snr(2, torch.zeros(1, 3))
    tensor([[2., 2., 2.]])
    """

    levels: tuple[float, ...]
    noisy = True
    complete = False

    def __post_init__(self) -> None:
        pairs = zip((0.0, *self.levels), self.levels, strict=False)
        if not self.levels or not all(a < b < math.inf for a, b in pairs):
            raise ValueError(f"levels must be positive, finite and increasing, got {self.levels}")

    @property
    def n_steps(self) -> int:
        return len(self.levels)

    def snr(self, step: int, rank: Tensor) -> Tensor:
        level = self.levels[step - 1] if step else 0.0
        return torch.full(rank.shape, level, dtype=torch.get_default_dtype(), device=rank.device)


@dataclass(frozen=True)
class CoordinateSchedule:
    """Columns jump from unknown to known, in random order: any-order autoregression.

    Parameters
    ----------
    n_columns : int
        Number of columns not known from the start.
    n_steps : int, optional
        In how many steps; by default one column a step. With fewer, columns that jump together are
        taken as independent given those known before.

    Examples
    --------
    >>> CoordinateSchedule(3).snr(1, torch.tensor([[2, 0, 1]]))
    tensor([[0., inf, 0.]])
    """

    n_columns: int
    n_steps: int = 0
    noisy = False
    complete = True

    def __post_init__(self) -> None:
        if self.n_steps == 0:
            object.__setattr__(self, "n_steps", self.n_columns)
        if not 1 <= self.n_steps <= self.n_columns:
            raise ValueError(f"n_steps must be in 1..{self.n_columns}, got {self.n_steps}")

    def snr(self, step: int, rank: Tensor) -> Tensor:
        n_known = -(-step * self.n_columns // self.n_steps)  # ceiling: the last step knows all
        snr = torch.zeros(rank.shape, dtype=torch.get_default_dtype(), device=rank.device)
        return snr.masked_fill_(rank < n_known, math.inf)


# -- quadratures: where to put the points of an integral over SNR ---------------------------------


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
    """

    def __init__(self, edges: Tensor, density: Tensor) -> None:
        edges, density = edges.double(), density.double()
        mass = density * edges.diff()
        if not (edges.diff() > 0).all() or not (mass >= 0).all() or not mass.sum() > 0:
            raise ValueError("edges must increase and density be non-negative, not all zero")
        self.edges = edges
        self._cdf = torch.cat([edges.new_zeros(1), (mass / mass.sum()).cumsum(0)])
        self._cdf[-1] = 1.0
        self._density = density / mass.sum()

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
        return math.exp(float(self.edges[0]))

    @property
    def high(self) -> float:
        """Largest SNR."""
        return math.exp(float(self.edges[-1]))

    def to(self, device: torch.device | str) -> Quadrature:
        """The same quadrature on another device."""
        return Quadrature(self.edges.to(device), self._density.to(device))

    def points(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """SNRs at quantiles ``u`` in [0, 1) and the weights d snr / density, same shape, float64."""
        cell = (
            torch.searchsorted(self._cdf, u.double(), right=True).clamp_(1, len(self._density)) - 1
        )
        inside = (u - self._cdf[cell]) / (self._cdf[cell + 1] - self._cdf[cell]).clamp_min(1e-300)
        left = self.edges[cell]
        snr = torch.exp(left + inside * (self.edges[cell + 1] - left))
        return snr, snr / self._density[cell]
