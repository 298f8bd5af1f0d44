r"""Recorded numbers: the monotone map from the numbers of a column to the core's, and the cells of equal records.

A number in a table was rounded when it was written, to a multiple of a *step* from an *origin*. The density of
a number x is its average over the values that would have been written as x,

.. math:: \bar p(x) = \frac1\delta \int_{x-\delta/2}^{x+\delta/2} p(u)\, du. \tag{20}

The map t from numbers to the core's scale is monotone, so that the integral is the mass between :math:`t(x - \delta/2)`
and :math:`t(x + \delta/2)`: the core counts masses of these *cells*, and a density is a mass over the step.

.. math:: x \to u = (x - m)/s \to w = \tau(u) \to y = \psi_\lambda(w) \to z = (y - a)/b + \sum_{k:\, x_k < x} g_k

with a map :math:`\tau` that leaves all but the far tails alone (:math:`\tau(u) = u` for :math:`|u| \le U`, and
:math:`\pm U (1 + \log(1 + \log(|u|/U)))` beyond, at most 9 U for floats, once differentiable) and the Yeo-Johnson
map. Every finite x has a finite image and slope, and every real z comes from a finite x.

At a number :math:`x_k` that many rows share the line is *opened*: the cell of that number, and of no other, is wider
by :math:`g_k`, about in proportion to its share of the rows: any density on the line has room for its mass.

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

from discrete_itd.devices import any_true, index_tensor, static_shapes

TAILS_FROM = 1000.0  # U, in robust standard deviations: beyond it the map grows as log log
LARGEST, SMALLEST = torch.finfo(torch.float64).max, torch.finfo(torch.float64).tiny
# width in the core's unit below which a cell's width is step times slope, as the difference of its ends loses digits
NARROW = 1e-5
MANY = 1 << 14  # numbers from which it pays to look for equal ones
PEAK_ROWS = 20  # fewest rows with one number for which it may have a peak of its own
# cell width per share of the rows that hold its number: mass over peak density of a Gaussian of standard deviation 1/2
PEAK_WIDTH = 0.5 * math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class NumberLine:
    r"""The map of one column, and the lattice of its records.

    Parameters
    ----------
    center, scale, power, mean, spread : float
        m, s, :math:`\lambda` between 0 and 2 (1 changes nothing), a and b.
    step, origin : float
        Records are ``origin`` plus multiples of ``step``; anywhere if the origin is NaN. With step 0 a number is a
        point with a density.
    far : float
        U.
    opened : tuple of pairs of floats
        Increasing numbers that many rows share, each with its :math:`g_k` in the core's unit.

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

    Both are NaN where a number is missing.
    """

    middle: Tensor
    width: Tensor

    @classmethod
    def at(cls, values: Tensor) -> Intervals:
        """The numbers as points."""
        return cls(values, torch.zeros_like(values).masked_fill(values.isnan(), math.nan))

    def log_width(self) -> Tensor:
        """Log-width, added to a log-density in the core's unit to give a log-mass, nats: 0 at a point."""
        return torch.where(self.width > 0, self.width, 1.0).log()


class NumberLines:
    """The maps of R columns.

    Its methods take numbers whose last axis runs over the columns, or numbers of any shape
    that broadcasts with the indices ``columns``.
    """

    def __init__(self, lines: Sequence[NumberLine]) -> None:
        names = [field.name for field in fields(NumberLine)[:-1]]
        numbers = [[getattr(line, name) for name in names] for line in lines]
        self._numbers = tuple(zip(*numbers, strict=True)) or ((),) * 8
        self._openings = self._opened([line.opened for line in lines])
        has_step = [line.step > 0 for line in lines]
        self.have_steps, self.all_have_steps = any(has_step), all(has_step)

    def _of(self, like: Tensor, columns: Tensor | None) -> list[Tensor]:
        table = index_tensor(self._numbers, str(like.device), torch.float64)  # (8, R)
        return list((table if columns is None else table[:, columns]).unbind(0))

    def _opened(
        self, opened: Sequence[tuple[tuple[float, float], ...]]
    ) -> tuple[tuple[float, ...], ...]:
        """Of K opened numbers: distance from the centre, extra width, low end and length of the cell, 4 (R K)."""
        most = max(map(len, opened), default=0)
        if not most:
            return ()
        none = ((LARGEST, 0.0),)
        table = torch.tensor([pairs + none * (most - len(pairs)) for pairs in opened]).double()
        columns, extra = torch.arange(len(opened))[:, None], table[:, :, 1]
        center, *_, step, _, _ = self._of(extra, columns)
        distance = (table[:, :, 0] - center).clamp(-LARGEST, LARGEST)
        low, high = (self._smooth(distance + side * step / 2, columns)[0] for side in (-1, 1))
        parts = distance, extra, low + extra.cumsum(1) - extra, high - low + extra
        return tuple(tuple(t.flatten().tolist()) for t in parts)

    def _openings_of(self, like: Tensor, columns: Tensor | None) -> list[Tensor]:
        """Distance, extra width, low end and length of the K opened numbers of each column, in a last axis K."""
        table = index_tensor(self._openings, str(like.device), torch.float64)
        table = table.unflatten(1, (len(self._numbers[0]), -1))
        return list((table if columns is None else table[:, columns]).unbind(0))

    def opened_cells(self, columns: Tensor, least: float) -> list[Tensor]:
        """Middles of the cells of opened numbers in the columns ``columns`` (n,), NaN where less wide: K of (n, 1)."""
        if not self._openings:
            return []
        _, extra, low, length = self._openings_of(columns.double(), columns)
        middle = (low + length / 2).masked_fill(extra < least, math.nan)
        return list(middle.split(1, 1))

    def opened_ends(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The column, and both ends, of the cell of every opened number: (A,) each, on the device of a tensor."""
        if not self._openings:
            nothing = like.new_zeros(0)
            return nothing.long(), nothing, nothing
        _, extra, low, length = self._openings_of(like.double(), None)
        column, place = torch.nonzero(extra > 0, as_tuple=True)
        low = low[column, place]
        return column, low, low + length[column, place]

    def have_lattice(self, like: Tensor) -> Tensor:
        """Which columns have a lattice: bool, (R,), on the device of a tensor."""
        *_, step, origin, _ = self._of(like, None)
        return (step > 0) & ~origin.isnan()

    def encoded(self, distance: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The core's numbers, float64, of distances from the centre, and log dz/dx outside opened cells."""
        z, log_slope = self._smooth(distance, columns)
        if self._openings:
            number, extra, low, length = self._openings_of(z, columns)
            away = distance.clamp(-LARGEST, LARGEST)[..., None] - number
            share = (away / self._of(z, columns)[5][..., None] + 0.5).clamp(0.0, 1.0)
            inside = (share > 0) & (share < 1)
            # even within an opened cell
            z = _where_one(inside, low + share * length, z + (extra * share).sum(-1))
        return z, log_slope

    def _smooth(self, distance: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`encoded` with no opened numbers."""
        _, scale, power, mean, spread, _, _, far = self._of(distance, columns)
        w, log_slope = tamed(distance, scale, far)
        bent = torch.where(w < 0, 1 - power, power - 1) * w.abs().log1p()
        return (bend(w, power) - mean) / spread, log_slope + bent - spread.log()

    def decoded(self, z: Tensor, columns: Tensor | None = None) -> Tensor:
        """Distances from the centre of the core's numbers, finite whatever these are."""
        z = z.double()
        if not self._openings:
            return self._smoothly_decoded(z, columns)
        number, extra, low, length = self._openings_of(z, columns)
        share = ((z[..., None] - low) / length.clamp_min(SMALLEST)).clamp(0.0, 1.0)
        inside, step = (share > 0) & (share < 1), self._of(z, columns)[5][..., None]
        beside = self._smoothly_decoded(z - (extra * share).sum(-1), columns)
        return _where_one(inside, number + (share - 0.5) * step, beside)

    def _smoothly_decoded(self, z: Tensor, columns: Tensor | None) -> Tensor:
        """:meth:`decoded` with no opened numbers."""
        _, scale, power, mean, spread, _, _, far = self._of(z, columns)
        w = unbend((z * spread + mean).clamp(-LARGEST, LARGEST), power)
        size = w.abs()
        # in two steps: exp(708) is about the largest float, but exp(1416) times a tiny scale may be one
        half = (torch.expm1((size / far - 1).clamp_min(0.0)).clamp_max(1416.0) / 2).exp()
        size = torch.minimum(size, far)
        return torch.copysign(scale * half * size * half, w).clamp(-LARGEST, LARGEST)

    def spacing(self, values: Tensor, columns: Tensor | None = None) -> Tensor:
        """Step times slope at the core's ``values``: widths of narrow cells outside opened ones; 0 without a step."""
        distance = self.decoded(values, columns)
        return _narrow_width(self._of(distance, columns)[5], self._smooth(distance, columns)[1])

    def cells(self, values: Tensor, columns: Tensor | None = None) -> Intervals:
        """The cells of the numbers that the core's ``values`` stand for."""
        z = values.double()
        if not self.have_steps:
            return Intervals.at(z)
        if columns is None and z.numel() > MANY and not static_shapes(z.device):
            return self._cells_of_distinct(z)
        step = self._of(z, columns)[5]
        distance = self.decoded(z, columns)
        sides = torch.stack([distance - step / 2, distance, distance + step / 2])
        ends, log_slope = self.encoded(sides, columns)
        low, high = ends[0], ends[2]
        width = high - low
        is_narrow = ~(width > NARROW)
        small = _narrow_width(step, log_slope[1]).masked_fill(z.isnan(), math.nan)
        return Intervals(
            torch.where(is_narrow, z, (low + high) / 2), torch.where(is_narrow, small, width)
        )

    def _cells_of_distinct(self, z: Tensor) -> Intervals:
        """:meth:`cells` of numbers (..., R), of which completed rows and tables repeat many: each is computed once."""
        parts, missing = Intervals(torch.empty_like(z), torch.empty_like(z)), z.isnan()
        for r, numbers in enumerate(z.masked_fill(missing, 0.0).unbind(-1)):
            values, place = numbers.unique(return_inverse=True)
            for t, of_values in zip(
                parts, self.cells(values, index_tensor((r,), str(z.device))), strict=True
            ):
                t[..., r] = of_values[place]
        return Intervals(*(t.masked_fill_(missing, math.nan) for t in parts))

    def peaks(
        self, mean: Tensor, var: Tensor, rows: Tensor, columns: Tensor | None = None
    ) -> Tensor:
        """Variances of Gaussians for rows of these moments that hold one recorded number; NaN where they hold several.

        ``PEAK_ROWS`` rows are enough: a cell's mass is at most one, so a Gaussian within it does not overfit.
        """
        width = self.cells(mean, columns).width
        has_step, width = width > 0, width.clamp_min(NARROW)
        is_one = (var < (width / 4).square()) & (rows >= PEAK_ROWS) & has_step
        return torch.where(is_one, (width / 8).square(), math.nan)

    def near(self, values: Tensor, n: int) -> tuple[Tensor, Intervals]:
        """The 2 n + 1 numbers of the lattice around each of ``values`` (B, R), and their cells: (B, R, 2 n + 1)."""
        columns = torch.arange(values.shape[1], device=values.device)[:, None]
        center, _, _, _, _, step, origin, _ = self._of(values, columns)
        start, step = origin - center, step.masked_fill(~(step > 0), 1.0)
        places = (self.decoded(values) - start[:, 0]).div(step[:, 0]).round()[:, :, None]
        places = places + torch.arange(-n, n + 1, device=values.device)
        z, low, high = (
            self.encoded(start + (places + side) * step, columns)[0] for side in (0.0, -0.5, 0.5)
        )
        return z, Intervals((low + high) / 2, high - low)

    def rounded(self, values: Tensor, columns: Tensor | None = None) -> Tensor:
        """The nearest numbers on the lattice: float64, unchanged without one, or where cells are very narrow."""
        return self._on_lattice(values, columns, 0.0)

    def edges(self, values: Tensor, columns: Tensor | None = None) -> Tensor:
        """The end of a cell between the numbers of the lattice on both sides, likewise."""
        return self._on_lattice(values, columns, 0.5)

    def _on_lattice(self, values: Tensor, columns: Tensor | None, shift: float) -> Tensor:
        z = values.double()
        if not self.have_steps:
            return z
        center, _, _, _, _, step, origin, _ = self._of(z, columns)
        distance, start = self.decoded(z, columns), origin - center
        moved = (self.cells(z, columns).width > NARROW) & ~origin.isnan()
        if self._openings:
            number = self._openings_of(z, columns)[0]
            is_one = (distance[..., None] - number).abs() <= step[..., None] / 2
            start, moved = _where_one(is_one, number, start), moved | is_one.any(-1)
        places = (distance - start) / torch.where(step > 0, step, 1.0)
        places = (places.floor() if shift else places.round()) + shift
        return torch.where(moved, self.encoded(start + places * step, columns)[0], z)


def _narrow_width(step: Tensor, log_slope: Tensor) -> Tensor:
    """Step times slope; 0 without a step."""
    return torch.where(step > 0, (step * log_slope.exp()).clamp_min(SMALLEST), 0.0)


def _where_one(mask: Tensor, values: Tensor, other: Tensor) -> Tensor:
    """The value of K where the mask is true (the largest, if rounding makes it true twice), else ``other``."""
    return torch.where(mask.any(-1), values.masked_fill(~mask, -math.inf).amax(-1), other)


def bend(w: Tensor, power: Tensor) -> Tensor:
    """Yeo and Johnson's map of values with powers that broadcast."""
    size, exponent = w.abs().log1p(), torch.where(w < 0, 2 - power, power)
    is_log = exponent == 0
    curved = torch.expm1(exponent * size) / exponent.masked_fill(is_log, 1.0)
    return torch.copysign(torch.where(is_log, size, curved), w)


def unbend(y: Tensor, power: Tensor) -> Tensor:
    """The inverse of :func:`bend`; infinite on overflow."""
    size, exponent = y.abs(), torch.where(y < 0, 2 - power, power)
    is_log = exponent == 0
    curved = (exponent * size).log1p() / exponent.masked_fill(is_log, 1.0)
    return torch.copysign(torch.expm1(torch.where(is_log, size, curved)), y)


def tamed(distance: Tensor, scale: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """The image w of each distance from the centre, and log dw/dx."""
    distance = distance.clamp(-LARGEST, LARGEST)
    u = distance / scale
    is_far = u.abs() > far
    if not any_true(is_far):
        return u.expand_as(is_far), (-scale.log()).expand_as(is_far)
    log_size = torch.where(is_far, distance.abs(), scale * far).log()  # u itself may be infinite
    excess = torch.where(is_far, log_size - scale.log() - far.log(), 0.0)
    w = torch.where(is_far, torch.copysign(far * (1 + excess.log1p()), u), u)
    return w, -scale.log() - excess - excess.log1p()
