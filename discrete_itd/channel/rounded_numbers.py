r"""Recorded numbers: the monotone map from the numbers of a column to the core's, and the cells of equal records.

A number in a table was rounded when it was written, to a multiple of a *step* from an *origin*. What a model says of a
number x is its average over the values that would have been written as x,

.. math:: \bar p(x) = \frac1\delta \int_{x-\delta/2}^{x+\delta/2} p(u)\, du. \tag{20}

The map t from numbers to the core's scale is monotone, so that the integral is the mass between :math:`t(x - \delta/2)`
and :math:`t(x + \delta/2)`: the core counts masses of these *cells*, and a density is a mass over the step.

.. math:: x \to u = (x - m)/s \to w = \tau(u) \to y = \psi_\lambda(w) \to z = (y - a)/b + \sum_{k:\, x_k < x} g_k

with a map :math:`\tau` that leaves all but the far tails alone (:math:`\tau(u) = u` for :math:`|u| \le U`, and
:math:`\pm U (1 + \log(1 + \log(|u|/U)))` beyond, at most 9 U for floats, once differentiable) and the Yeo-Johnson
map. Every finite x has a finite image and slope, and every real z comes from a finite x.

At a number :math:`x_k` that many rows share the line is *opened*: the cell of that number, and of no other, is wider
by a gap :math:`g_k`, about in proportion to its share of the rows: any density on the line has room for its mass.

References
----------
Yeo & Johnson, "A new family of power transformations to improve normality or symmetry", Biometrika 2000, eq. (2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.devices import index_tensor

TAILS_FROM = 1000.0  # robust standard deviations; further out the map grows with the logarithm of the logarithm
LARGEST, SMALLEST = torch.finfo(torch.float64).max, torch.finfo(torch.float64).tiny
# a narrower cell, in the core's unit, is as wide as the slope of the map says: the difference of its ends loses digits
NARROW = 1e-5
PEAK_ROWS = 20  # a number in this many rows may have a peak of its own
# width of the cell of a number per share of the rows: the mass of a Gaussian of standard deviation 1/2 over its peak
PEAK_WIDTH = 0.5 * math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class NumberLine:
    r"""The map of one column, and the lattice of its records.

    Parameters
    ----------
    center, scale, power, mean, spread : float
        m, s, :math:`\lambda` between 0 and 2 (1 changes nothing), a and b.
    step, origin : float
        Records are ``origin`` plus multiples of the ``step``, or, with the origin NaN, anywhere; without a step, 0, a
        number is a point with a density.
    far : float
        U.
    opened : tuple of pairs of floats
        Increasing: numbers that many rows share, and the gaps by which their cells are wider, in the core's unit.

    Examples
    --------
    >>> line = NumberLine(0.0, 1.0, 1.0, 0.0, 2.0, step=1.0)
    >>> NumberLines([line]).cells(torch.tensor([[1.5]], dtype=torch.float64))
    Intervals(middle=tensor([[1.5000]], dtype=torch.float64), width=tensor([[0.5000]], dtype=torch.float64))
    """

    center: float = 0.0
    scale: float = 1.0
    power: float = 1.0
    mean: float = 0.0
    spread: float = 1.0
    step: float = 0.0
    origin: float = 0.0
    far: float = TAILS_FROM
    opened: tuple[tuple[float, float], ...] = ()


class Intervals(NamedTuple):
    """Middle and width of the cells of numbers, float64, in the core's unit; the width is 0 where a number is a point.

    NaN where a number is missing.
    """

    middle: Tensor
    width: Tensor

    @classmethod
    def at(cls, values: Tensor) -> Intervals:
        """The numbers as points."""
        return cls(values, torch.zeros_like(values).masked_fill(values.isnan(), math.nan))

    def log_width(self) -> Tensor:
        """What turns a log-density in the core's unit into a log-mass, nats: 0 at a point."""
        return torch.where(self.width > 0, self.width, 1.0).log()


class NumberLines:
    """The maps of R columns.

    Its methods take numbers whose last axis runs over the columns, or, with the columns ``at``, numbers of any shape
    that broadcasts with ``at``.
    """

    def __init__(self, lines: Sequence[NumberLine]) -> None:
        names = [field.name for field in fields(NumberLine)[:-1]]
        numbers = [[getattr(line, name) for name in names] for line in lines]
        self._numbers = tuple(zip(*numbers, strict=True)) or ((),) * 8
        self._gaps = self._opened([line.opened for line in lines])
        has_step = [line.step > 0 for line in lines]
        self.have_steps, self.all_have_steps = any(has_step), all(has_step)

    def _of(self, like: Tensor, at: Tensor | None) -> list[Tensor]:
        table = index_tensor(self._numbers, str(like.device), torch.float64)  # (8, R)
        return list((table if at is None else table[:, at]).unbind(0))

    def _opened(
        self, opened: Sequence[tuple[tuple[float, float], ...]]
    ) -> tuple[tuple[float, ...], ...]:
        """Distances of K opened numbers from the centre, their gaps, and ends and lengths of their cells: 4 (R K)."""
        most = max(map(len, opened), default=0)
        if not most:
            return ()
        none = ((LARGEST, 0.0),)
        table = torch.tensor([own + none * (most - len(own)) for own in opened]).double()
        at, gap = torch.arange(len(opened))[:, None], table[:, :, 1]
        center, *_, step, _, _ = self._of(gap, at)
        distance = (table[:, :, 0] - center).clamp(-LARGEST, LARGEST)
        low, high = (self._smooth(distance + side * step / 2, at)[0] for side in (-1, 1))
        parts = distance, gap, low + gap.cumsum(1) - gap, high - low + gap
        return tuple(tuple(t.flatten().tolist()) for t in parts)

    def _gaps_of(self, like: Tensor, at: Tensor | None) -> list[Tensor]:
        """The same, in a last axis of their own."""
        table = index_tensor(self._gaps, str(like.device), torch.float64)
        table = table.unflatten(1, (len(self._numbers[0]), -1))
        return list((table if at is None else table[:, at]).unbind(0))

    def opened_cells(self, at: Tensor, least: float) -> list[Tensor]:
        """Middles of the cells of opened numbers in the columns ``at`` (n,), NaN where the gap is less: K of (n, 1)."""
        if not self._gaps:
            return []
        _, gap, low, length = self._gaps_of(at.double(), at)
        middle = (low + length / 2).masked_fill(gap < least, math.nan)
        return list(middle.split(1, 1))

    def opened_ends(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The column, and both ends, of the cell of every opened number: (A,) each, on the device of a tensor."""
        if not self._gaps:
            nothing = like.new_zeros(0)
            return nothing.long(), nothing, nothing
        _, gap, low, length = self._gaps_of(like.double(), None)
        column, place = torch.nonzero(gap > 0, as_tuple=True)
        low = low[column, place]
        return column, low, low + length[column, place]

    def have_lattice(self, like: Tensor) -> Tensor:
        """Which columns have a lattice: bool, (R,), on the device of a tensor."""
        *_, step, origin, _ = self._of(like, None)
        return (step > 0) & ~origin.isnan()

    def encoded(self, distance: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The core's numbers, float64, of distances from the centre, and the log of the slope dz/dx beside gaps."""
        z, log_slope = self._smooth(distance, at)
        if self._gaps:
            number, gap, low, length = self._gaps_of(z, at)
            away = distance.clamp(-LARGEST, LARGEST)[..., None] - number
            share = (away / self._of(z, at)[5][..., None] + 0.5).clamp(0.0, 1.0)
            inside = (share > 0) & (share < 1)
            z = _where_one(inside, low + share * length, z + (gap * share).sum(-1))  # evenly there
        return z, log_slope

    def _smooth(self, distance: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same without gaps."""
        _, scale, power, mean, spread, _, _, far = self._of(distance, at)
        w, log_slope = tamed(distance, scale, far)
        bent = torch.where(w < 0, 1 - power, power - 1) * w.abs().log1p()
        return (bend(w, power) - mean) / spread, log_slope + bent - spread.log()

    def decoded(self, z: Tensor, at: Tensor | None = None) -> Tensor:
        """Distances from the centre of the core's numbers, finite whatever these are."""
        z = z.double()
        if not self._gaps:
            return self._smoothly_decoded(z, at)
        number, gap, low, length = self._gaps_of(z, at)
        share = ((z[..., None] - low) / length.clamp_min(SMALLEST)).clamp(0.0, 1.0)
        inside, step = (share > 0) & (share < 1), self._of(z, at)[5][..., None]
        beside = self._smoothly_decoded(z - (gap * share).sum(-1), at)
        return _where_one(inside, number + (share - 0.5) * step, beside)

    def _smoothly_decoded(self, z: Tensor, at: Tensor | None) -> Tensor:
        """The same without gaps."""
        _, scale, power, mean, spread, _, _, far = self._of(z, at)
        w = unbend((z * spread + mean).clamp(-LARGEST, LARGEST), power)
        size = w.abs()
        # in two steps: exp(708) is about the largest float, but exp(1416) times a tiny scale may be one
        half = (torch.expm1((size / far - 1).clamp_min(0.0)).clamp_max(1416.0) / 2).exp()
        size = torch.minimum(size, far)
        return torch.copysign(scale * half * size * half, w).clamp(-LARGEST, LARGEST)

    def spacing(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        """The widths that cells at the core's ``values`` have if they are narrow, beside gaps; 0 without a step."""
        return self._narrow(self.decoded(values, at), at)

    def _narrow(self, distance: Tensor, at: Tensor | None) -> Tensor:
        step = self._of(distance, at)[5]
        width = step * self._smooth(distance, at)[1].exp()
        return torch.where(step > 0, width.clamp_min(SMALLEST), 0.0)

    def cells(self, values: Tensor, at: Tensor | None = None) -> Intervals:
        """The cells of the numbers that the core's ``values`` stand for."""
        z = values.double()
        if not self.have_steps:
            return Intervals.at(z)
        step = self._of(z, at)[5]
        distance = self.decoded(z, at)
        low, high = (self.encoded(distance + side * step / 2, at)[0] for side in (-1, 1))
        width = high - low
        is_narrow = ~(width > NARROW)
        small = self._narrow(distance, at)
        return Intervals(
            torch.where(is_narrow, z, (low + high) / 2), torch.where(is_narrow, small, width)
        )

    def peaks(self, mean: Tensor, var: Tensor, rows: Tensor, at: Tensor | None = None) -> Tensor:
        """Variances of Gaussians for rows of these moments, all of one recorded number; NaN where they are of several.

        It takes ``PEAK_ROWS`` rows: no mass of a cell is above one, so that a Gaussian within it is no overfitting.
        """
        width = self.cells(mean, at).width
        has_step, width = width > 0, width.clamp_min(NARROW)
        is_one = (var < (width / 4).square()) & (rows >= PEAK_ROWS) & has_step
        return torch.where(is_one, (width / 8).square(), math.nan)

    def near(self, values: Tensor, n: int) -> tuple[Tensor, Intervals]:
        """The 2 n + 1 numbers of the lattice around each of ``values`` (B, R), and their cells: (B, R, 2 n + 1)."""
        at = torch.arange(values.shape[1], device=values.device)[:, None]
        center, _, _, _, _, step, origin, _ = self._of(values, at)
        start, step = origin - center, step.masked_fill(~(step > 0), 1.0)
        places = (self.decoded(values) - start[:, 0]).div(step[:, 0]).round()[:, :, None]
        places = places + torch.arange(-n, n + 1, device=values.device)
        z, low, high = (
            self.encoded(start + (places + side) * step, at)[0] for side in (0.0, -0.5, 0.5)
        )
        return z, Intervals((low + high) / 2, high - low)

    def rounded(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        """The nearest numbers on the lattice: float64, unchanged without one, or where cells are very narrow."""
        return self._on_lattice(values, at, 0.0)

    def edges(self, values: Tensor, at: Tensor | None = None) -> Tensor:
        """The end of a cell between the numbers of the lattice on both sides, likewise."""
        return self._on_lattice(values, at, 0.5)

    def _on_lattice(self, values: Tensor, at: Tensor | None, shift: float) -> Tensor:
        z = values.double()
        if not self.have_steps:
            return z
        center, _, _, _, _, step, origin, _ = self._of(z, at)
        distance, start = self.decoded(z, at), origin - center
        moved = (self.cells(z, at).width > NARROW) & ~origin.isnan()
        if self._gaps:
            number = self._gaps_of(z, at)[0]
            is_one = (distance[..., None] - number).abs() <= step[..., None] / 2
            start, moved = _where_one(is_one, number, start), moved | is_one.any(-1)
        places = (distance - start) / torch.where(step > 0, step, 1.0)
        places = (places.floor() if shift else places.round()) + shift
        return torch.where(moved, self.encoded(start + places * step, at)[0], z)


def _where_one(mask: Tensor, values: Tensor, other: Tensor) -> Tensor:
    """The value (..., K) where the mask is true, the largest where rounding makes it true twice; elsewhere another."""
    return torch.where(mask.any(-1), values.masked_fill(~mask, -math.inf).amax(-1), other)


def bend(w: Tensor, power: Tensor) -> Tensor:
    """Yeo and Johnson's map of values with powers that broadcast."""
    size, own = w.abs().log1p(), torch.where(w < 0, 2 - power, power)
    is_log = own == 0
    curved = torch.expm1(own * size) / own.masked_fill(is_log, 1.0)
    return torch.copysign(torch.where(is_log, size, curved), w)


def unbend(y: Tensor, power: Tensor) -> Tensor:
    """The inverse of :func:`bend`; infinite where that is no float."""
    size, own = y.abs(), torch.where(y < 0, 2 - power, power)
    is_log = own == 0
    curved = (own * size).log1p() / own.masked_fill(is_log, 1.0)
    return torch.copysign(torch.expm1(torch.where(is_log, size, curved)), y)


def tamed(distance: Tensor, scale: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """The image w of each distance from the centre, and log dw/dx."""
    distance = distance.clamp(-LARGEST, LARGEST)
    u = distance / scale
    is_far = u.abs() > far
    log_size = torch.where(is_far, distance.abs(), scale * far).log()  # u itself may be infinite
    excess = torch.where(is_far, log_size - scale.log() - far.log(), 0.0)
    w = torch.where(is_far, torch.copysign(far * (1 + excess.log1p()), u), u)
    return w, -scale.log() - excess - excess.log1p()
