"""SNRs: of each column after each step of a path, and at the points of an integral."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from discrete_itd.devices import index_tensor


class Schedule(Protocol):
    """The SNRs along a path from nothing known to (almost) everything known.

    ``snr(step, rank, n_free)`` is the SNR of every column after that step, (B, C), non-decreasing in ``step`` and 0
    at step 0. It may depend on the order in which the row's path takes the columns: ``rank`` (B, C) holds 0
    for the first, 1 for the next; those known from the start have negative ranks, missing cells the largest.
    ``n_free`` (B, 1) is the number of a row's cells that are neither known nor missing.

    A schedule that is to be saved has the arguments of its constructor as attributes, as a dataclass does.

    Examples
    --------
    >>> schedule: Schedule = CoordinateSchedule(3)
    >>> schedule.n_steps, schedule.noisy, schedule.complete, schedule.order
    (3, False, True, None)
    """

    @property
    def n_steps(self) -> int:
        """Number of steps S of the longest path."""
        ...

    @property
    def noisy(self) -> bool:
        """Whether any increment is finite, so that the path needs Gaussian noise."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every cell is known after the last step, so that its posterior need not be computed."""
        ...

    @property
    def order(self) -> tuple[int, ...] | None:
        """The columns in the order of every path; None if every path has a random order."""
        ...

    def snr(self, step: int, rank: Tensor, n_free: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class IsotropicSchedule:
    """All columns at one SNR, which climbs through given levels.

    Parameters
    ----------
    levels : tuple of float, length S
        Increasing positive finite SNRs.

    Examples
    --------
    >>> IsotropicSchedule((0.5, 2.0)).snr(2, torch.zeros(1, 3), torch.tensor([[3]]))
    tensor([[2., 2., 2.]])
    """

    levels: tuple[float, ...]
    noisy = True
    complete = False
    order = None

    def __post_init__(self) -> None:
        pairs = zip((0.0, *self.levels), self.levels, strict=False)
        if not self.levels or not all(a < b < math.inf for a, b in pairs):
            raise ValueError(f"levels must be positive, finite and increasing, got {self.levels}")

    @property
    def n_steps(self) -> int:
        return len(self.levels)

    def snr(self, step: int, rank: Tensor, n_free: Tensor) -> Tensor:
        level = self.levels[step - 1] if step else 0.0
        return torch.full(rank.shape, level, dtype=torch.get_default_dtype(), device=rank.device)


@dataclass(frozen=True)
class CoordinateSchedule:
    """Columns jump from unknown to known: autoregression, in random orders or a given one.

    Parameters
    ----------
    n_steps : int
        Number of steps; with as many as columns, one column a step. With fewer, columns that jump together are
        treated as independent given those known before. A row with fewer free cells takes one step for each.
    order : tuple of int, optional
        The columns in the order in which they become known. By default every path of every row takes its own random
        order.

    Examples
    --------
    >>> CoordinateSchedule(3).snr(1, torch.tensor([[2, 0, 1]]), torch.tensor([[3]]))
    tensor([[0., inf, 0.]])
    """

    n_steps: int
    order: tuple[int, ...] | None = None
    noisy = False
    complete = True

    def __post_init__(self) -> None:
        whole = (self.n_steps, *(self.order or ()))
        if any(isinstance(n, bool) or not isinstance(n, int) for n in whole):
            raise TypeError(
                f"n_steps and order must be integers, got {self.n_steps!r}, {self.order}"
            )
        if self.n_steps < 1:
            raise ValueError(f"n_steps must be positive, got {self.n_steps}")
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order must be a permutation of the columns, got {self.order}")

    def snr(self, step: int, rank: Tensor, n_free: Tensor) -> Tensor:
        n_steps = n_free.clamp(1, self.n_steps)
        # ceiling: after the last step all cells are known
        n_known = -(-n_free * n_steps.clamp_max(step) // n_steps)
        snr = torch.zeros(rank.shape, dtype=torch.get_default_dtype(), device=rank.device)
        return snr.masked_fill_(rank < n_known, math.inf)


def column_ranks(schedule: Schedule, uniform: Tensor, free: Tensor, known: Tensor) -> Tensor:
    """Ranks (B, C), int64, of the columns in the order of each path, see :class:`Schedule`.

    The order is given by ``schedule`` or, if it has none, by the random numbers ``uniform`` (B, C). ``free`` and
    ``known`` (B, C) are the cells that the path is to take and those known from the start.
    """
    key = uniform
    if schedule.order is not None:
        check_schedule(schedule, uniform.shape[1])
        order = index_tensor(schedule.order, str(key.device))
        key = order.argsort().to(uniform).expand_as(uniform)
    key = key.masked_fill(~free & ~known, math.inf).masked_fill(known, -1.0)
    return key.argsort(dim=1, stable=True).argsort(dim=1) - known.sum(1, keepdim=True)


def steps_needed(schedule: Schedule, n_free: Tensor) -> int:
    """Steps after which no path of rows with ``n_free`` (B, 1) free cells changes any more; the host waits for it."""
    if not schedule.complete or schedule.noisy:
        return schedule.n_steps
    return min(schedule.n_steps, int(n_free.max()) if len(n_free) else 0)


def check_schedule(schedule: Schedule, n_columns: int) -> None:
    """Raise a ValueError if a schedule is for another number of columns."""
    if schedule.order is not None and len(schedule.order) != n_columns:
        raise ValueError(
            f"schedule has an order of {len(schedule.order)} columns, but the table has {n_columns}"
            " (with missing='category', one more for each column with missing cells)"
        )


class Quadrature:
    """An importance density over log-SNR, constant on the cells of a grid.

    Parameters
    ----------
    edges : Tensor, shape (n + 1,)
        Increasing values of logsnr.
    density : Tensor, shape (n,)
        Non-negative; any scale.

    Attributes
    ----------
    low, high : float
        Smallest and largest SNR, not their logarithms.

    Notes
    -----
    Points are stratified: of n, the i-th has its quantile in [i/n, (i+1)/n).

    Examples
    --------
    >>> snr, weight = Quadrature(torch.tensor([-6.0, 6.0]), torch.ones(1)).points(torch.tensor([0.25, 0.75]))
    >>> snr.round(decimals=2)
    tensor([ 0.0500, 20.0900], dtype=torch.float64)
    """

    def __init__(self, edges: Tensor, density: Tensor) -> None:
        edges, density = edges.double(), density.double()
        if density.ndim != 1 or edges.shape != (len(density) + 1,):
            shapes = tuple(edges.shape), tuple(density.shape)
            raise ValueError(f"edges and density must have shapes (n + 1,) and (n,), got {shapes}")
        mass = density * edges.diff()
        if not (edges.diff() > 0).all() or not (mass >= 0).all() or not mass.sum() > 0:
            raise ValueError("edges must increase and density be non-negative, not all zero")
        self.edges, self._density = edges, density / mass.sum()
        self._cdf = torch.cat([edges.new_zeros(1), (mass / mass.sum()).cumsum(0)])
        self._cdf[-1] = 1.0
        # both are read to the host here: reading them in a step would wait
        self.low, self.high = edges[[0, -1]].exp().tolist()

    def to(self, device: torch.device | str) -> Quadrature:
        """The same quadrature on another device, to the last bit."""
        other = copy.copy(self)
        for name in ("edges", "_cdf", "_density"):
            setattr(other, name, getattr(self, name).to(device))
        return other

    def schedule(self, n_steps: int) -> IsotropicSchedule:
        """Steps at even quantiles of the density, the last one at its upper end.

        Examples
        --------
        >>> levels = Quadrature(torch.tensor([0.01, 100.0]).log(), torch.ones(1)).schedule(2).levels
        >>> [round(level, 3) for level in levels]
        [1.0, 100.0]
        """
        u = (torch.arange(n_steps, device=self.edges.device) + 1) / n_steps
        return IsotropicSchedule(tuple(self.points(u)[0].tolist()))

    def points(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """SNRs at quantiles ``u`` in [0, 1) and the weights d snr / density, same shape, float64."""
        after = torch.searchsorted(self._cdf, u.double(), right=True)
        cell = after.clamp_(1, len(self._density)) - 1
        inside = (u - self._cdf[cell]) / (self._cdf[cell + 1] - self._cdf[cell]).clamp_min(1e-300)
        left = self.edges[cell]
        snr = torch.exp(left + inside * (self.edges[cell + 1] - left))
        return snr, snr / self._density[cell]
