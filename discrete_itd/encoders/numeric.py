r"""Columns of continuous numbers, made Gaussian-like by a monotone map.

A density changes with the unit in which it is expressed; the codec reports by how much, cell by cell, as
``log_volume``, so that the core's log-mass plus ``log_volume`` is the log-density in the column's own unit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.channel.rounded_numbers import (
    LARGEST,
    PEAK_ROWS,
    PEAK_WIDTH,
    SMALLEST,
    TAILS_FROM,
    NumberLine,
    NumberLines,
    bend,
    tamed,
)
from discrete_itd.encoders.codec import Codec
from discrete_itd.reading.frames import EXACT_BELOW, rounding

# from 0 to 2 Yeo and Johnson's map is onto the reals
POWERS = torch.linspace(0.0, 2.0, 41, dtype=torch.float64)
# where the tails of the map may begin, in robust standard deviations: of 3, 10 and none, by count laws and four tables
FARS = torch.tensor([TAILS_FROM, 10.0], dtype=torch.float64)
WITHIN = 1 / 8  # numbers are multiples of a unit if their rounding error is below this part of it
# a number far from all others may stand for missing cells: see gap_codes
CODE, OFTEN, SEVERAL, FAR = re.compile(r"-1|-?99*"), 5, 10, 4
REPEATED = re.compile(r"-?(\d)\1+")  # one digit, at least twice
# the line is opened at no more than MOST_OPENED numbers, whose cells grow by more than the factor MANY_TIMES
MANY_TIMES, MOST_OPENED = 4.0, 32


@dataclass(frozen=True)
class Continuous(Codec):
    r"""A column of numbers, mapped to mean 0 and standard deviation one half by a :class:`NumberLine`.

    The core counts the mass of the values that would have been recorded as one number (20); divided by the ``step`` it
    is a density per unit, of whole numbers with step 1 the mass itself.

    Where numbers repeat, the log-density of one that is new, none of those seen in training to within
    :func:`~discrete_itd.reading.frames.rounding`, has :math:`\log p` more, which is negative: masses add up to less
    than one, as a density gives most of a lattice to new numbers.
    Draws are never new, but the nearest number seen; elsewhere they are rounded to the lattice.

    Parameters
    ----------
    whole : bool
        Whether values are whole numbers.
    center, scale, power, mean, spread, step, origin, far : float
        Of the :class:`NumberLine`; the ``spread`` is twice the standard deviation, and the origin None off a lattice.
    seen : tuple of floats
        Increasing, the different numbers of a column whose numbers repeat; empty for another one.
    p_new : float
        Probability p that a number is none of these, see :func:`numbers_seen`.
    low, high : float
        The range in training, but for its ends: means of the five least and of the five greatest values, rounded
        outwards where they are whole.
    opened : tuple of pairs of floats
        Numbers that many rows share, and the gaps of the line there, see :func:`opened`.

    Examples
    --------
    >>> codec = fit_continuous(np.array([1.0, 2.0, 4.0]), whole=False)
    >>> z, log_volume = codec.encode(np.array([2.0]))
    >>> codec.decode(z).round(6), log_volume
    (array([2.]), array([-0.]))
    """

    whole: bool
    center: float
    scale: float
    power: float
    mean: float
    spread: float
    step: float
    origin: float | None
    seen: tuple[float, ...] = ()
    p_new: float = 0.0
    low: float = -LARGEST
    high: float = LARGEST
    opened: tuple[tuple[float, float], ...] = ()
    far: float = TAILS_FROM

    of_numbers: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = True
    kind: ClassVar[str] = "continuous"
    categories: ClassVar[tuple[()]] = ()
    open: ClassVar[bool] = False
    n_levels: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.spread > 0 and self.step > 0 and 0 <= self.power <= 2):
            raise ValueError("scale, spread and step must be positive, the power between 0 and 2")
        if not (np.diff(self._seen) > 0).all():
            raise ValueError("seen must be increasing")
        if not (0 < self.p_new < 1 if self.seen else self.p_new == 0):
            raise ValueError("p_new must be between 0 and 1 where numbers repeat, else 0")

    @classmethod
    def fit(cls, values: np.ndarray, whole: bool, *, in_time: bool = False) -> Continuous:
        return fit_continuous(values, whole, in_time=in_time)

    @property
    def line(self) -> NumberLine:
        own = self.center, self.scale, self.power, self.mean, self.spread, self.step
        origin = math.nan if self.origin is None else self.origin
        return NumberLine(*own, origin, self.far, self.opened)

    @cached_property
    def lines(self) -> NumberLines:
        """The map of the column alone."""
        return NumberLines([self.line])

    @property
    def points(self) -> ColumnPoints:
        return ColumnPoints("real", line=self.line)

    def is_outside(self, z: np.ndarray) -> np.ndarray:
        """Whether encoded numbers lie outside the range in training: bool, False for NaN."""
        low, high = self.scaled(np.array([self.low, self.high]))
        return np.asarray((z < low) | (z > high))

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values on the new scale, and what turns log-masses there into log-densities: minus the log of the step.

        And minus :meth:`new_nats`.
        """
        z = self.scaled(values)
        return z, -math.log(self.step) - self.new_nats(z)

    def new_nats(self, z: np.ndarray) -> np.ndarray:
        """Nats of encoded numbers being new: 0 of one that was seen, where numbers do not repeat, and for NaN."""
        if not self.seen:
            return np.zeros(len(z))
        low, high = self._reach
        is_seen = np.searchsorted(low, z, side="right") > np.searchsorted(high, z)
        nats = np.where(is_seen, 0.0, -math.log(self.p_new))
        return np.where(np.isnan(z), 0.0, nats)

    @property
    def mean_new_nats(self) -> float:
        """The expectation of :meth:`new_nats`."""
        p = self.p_new
        return -p * math.log(p) if p else 0.0

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """The least and the greatest number that is drawn: no number in training lies beyond them.

        One of the five whose mean is an end of the range is at most four times the range's width away from it. Of five
        cells or fewer the range is the cell of their mean, and says nothing.
        """
        width = self.high - self.low
        away = 4 * width if width > 2 * self.whole else math.inf
        low, high = self.low - away, self.high + away
        for number, _ in self.opened:
            low = number if number - self.low <= self.step / 2 else low
            high = number if self.high - number <= self.step / 2 else high
        return low, high

    @cached_property
    def _seen(self) -> np.ndarray:
        return np.array(self.seen, dtype=float)

    @cached_property
    def _reach(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest encoded number that decode to each number seen, increasing."""
        width = rounding(self._seen)
        low, high = (np.clip(self._seen + side, -LARGEST, LARGEST) for side in (-width, width))
        return self.scaled(low), self.scaled(high)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values on the new scale."""
        with np.errstate(over="ignore"):
            distance = torch.from_numpy(values - self.center)[..., None]
        return self.lines.encoded(distance)[0][..., 0].numpy()

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The values, finite whatever x is; NaN stays NaN. With ``rng`` they are draws: :meth:`settled`."""
        distance = self.lines.decoded(torch.tensor(x)[..., None])[..., 0].numpy()
        with np.errstate(over="ignore"):
            values = np.clip(self.center + distance, -LARGEST, LARGEST)
        return values if rng is None else self.settled(values)

    def settled(self, values: np.ndarray) -> np.ndarray:
        """The numbers that values of the density stand for: the nearest one seen, or on the lattice.

        None lies beyond the least or the greatest number if many rows share it, or far beyond the range in training:
        the tails of the line reach to the largest floats.
        """
        with np.errstate(over="ignore"):
            values = np.clip(values, *self._ends)
            if self.seen:
                at = np.searchsorted(self._seen[:-1] / 2 + self._seen[1:] / 2, values)
                return np.where(np.isnan(values), np.nan, self._seen[at])
            if self.origin is not None:
                places = (values - self.origin) / self.step
                on_lattice = self.origin + np.rint(places) * self.step
                values = np.where(np.abs(places) < EXACT_BELOW, on_lattice, values)
            for number, _ in self.opened:
                values = np.where(np.abs(values - number) <= self.step / 2, number, values)
        return values


def gap_codes(numbers: np.ndarray, counts: np.ndarray) -> list[float]:
    """Which of different numbers (K,) in order stand for missing cells, like -999 or 9999.

    The least or largest, if all others, of SEVERAL values, are FAR times nearer to zero, and OFTEN cells have it. One
    of a repeated digit also if no other number is negative: the largest may be a bound, to which others were cut.
    """
    found: list[float] = []
    for i in (0, -1) if len(numbers) > SEVERAL else ():
        low, high = np.delete(numbers, i)[[0, -1]].tolist()
        number, text = float(numbers[i]), f"{numbers[i]:.17g}"
        is_code = bool(CODE.fullmatch(text)) and abs(number) / FAR >= max(abs(low), abs(high))
        if REPEATED.fullmatch(text):
            is_code |= number < 0 <= low
        if is_code and counts[i] >= OFTEN:
            found.append(number)
    return found


def fit_continuous(values: np.ndarray, whole: bool, *, in_time: bool = False) -> Continuous:
    """Centre, scale and power of the values, shape (N,) with N > 0, their lattice, and the repeated numbers.

    Points ``in_time`` are never new in this sense: future times are not in training.
    """
    low, center, high = np.quantile(values, [0.25, 0.5, 0.75], method="nearest").tolist()
    # by the interquartile range of the standard normal distribution
    scale = 2 * (high / 2 - low / 2) / 1.3489795003921634
    if not 0 < scale <= LARGEST:  # half of the values are one, or the numbers are huge
        away = np.abs(values / 2 - center / 2)
        away = away[away > 0]
        scale = 2 * float(np.quantile(away, 0.5, method="nearest")) if len(away) else 1.0
        scale = _coarse(min(scale, LARGEST), min(scale, LARGEST))
    scale = max(scale, SMALLEST)
    if low < high:  # else it is the value of half of the rows
        center = _coarse(center, scale)
    with np.errstate(over="ignore"):
        distance = torch.from_numpy(values - center)
    sample = distance
    if len(sample) > 10_000:  # so many order statistics choose the power
        sample = sample.sort()[0][torch.linspace(0, len(sample) - 1, 10_000).round().long()]
    size = torch.tensor(scale, dtype=torch.float64)
    fars = FARS if float((sample / size).abs().max()) > float(FARS[-1]) else FARS[:1]
    w, log_slope = tamed(sample, size, fars[:, None])
    log_slopes = (w.sign() * w.abs().log1p()).mean(1, keepdim=True)
    variance = bend(w[:, None], POWERS[:, None]).var(2, correction=0)
    # a Gaussian's profile likelihood
    scores = (POWERS - 1) * log_slopes - 0.5 * variance.log() + log_slope.mean(1, keepdim=True)
    best = int(torch.where(variance > 0, scores, -math.inf).argmax())
    far, power = fars[best // len(POWERS)], POWERS[best % len(POWERS)]
    y = bend(tamed(distance, size, far)[0], power).numpy()
    mean, spread = float(np.mean(y)), 2 * float(np.std(y))
    step, origin = find_lattice(values)
    repeated = ((), 0.0) if in_time else numbers_seen(values, step)
    line = Continuous(
        whole, center, scale, float(power), mean, spread if spread > 0 else 1.0, step, origin,
        *repeated, *_range(values, whole), far=float(far),
    )  # fmt: skip
    return opened(line, values) if spread > 0 else line


def opened(line: Continuous, values: np.ndarray) -> Continuous:
    """The line with gaps at numbers that have many times the rows of those around them, scaled as it was.

    A number's cell becomes as wide as its share of a Gaussian of the column's variance is at the peak: it has about its
    mass even under such a density, and components and leaves have room to be of it alone.
    The least and the greatest number have none on one side, and are opened for their share alone.
    """
    distinct, rows = np.unique(values, return_counts=True)
    z, ends = line.scaled(distinct), np.cumsum(rows)
    most = np.sort(np.argsort(-rows, kind="stable")[:MOST_OPENED])
    numbers, rows, end = distinct[most] + 0.0, rows[most], ends[most]
    width = line.lines.cells(torch.from_numpy(z[most])[:, None]).width[:, 0].numpy()
    wide = PEAK_WIDTH * rows / len(values)
    # how far as many rows reach on both sides
    low = np.maximum(end - 1.5 * rows, 0)
    high = np.minimum(end + rows / 2, len(values))
    left, right = np.searchsorted(ends, low, "right"), np.searchsorted(ends, high)
    reach = (z[right] - z[left] - width) * rows / np.maximum(high - low - rows, 1)
    # at an end of the range there is nothing on one side, to which a density falls within a wide cell only; its fewest
    # rows were chosen among 5, 10 and 20 by count laws and 18 tables
    is_end = (end == rows) | (end == len(values))
    is_peak = (rows >= np.where(is_end, 5, PEAK_ROWS)) & (
        np.where(is_end, wide, np.minimum(wide, reach)) > MANY_TIMES * width
    )
    if not is_peak.any():
        return line
    # the ends of a cell differ as floats, and cells do not overlap
    step = max(line.step, float(max(np.abs(numbers).max(), abs(line.center))) / 2.0**48)
    with np.errstate(over="ignore"):
        is_peak &= np.diff(numbers, prepend=-math.inf) > (1 - WITHIN) * step
    numbers, gaps = numbers[is_peak], (wide - width)[is_peak]
    line = replace(line, step=step, opened=_pairs(numbers, gaps))
    z = line.scaled(values)
    moved, wider = float(np.mean(z)), 2 * float(np.std(z))
    return replace(
        line,
        mean=line.mean + moved * line.spread,
        spread=wider * line.spread,
        opened=_pairs(numbers, gaps / wider),
    )


def _pairs(numbers: np.ndarray, gaps: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple(zip(numbers.tolist(), gaps.tolist(), strict=True))


def find_lattice(values: np.ndarray) -> tuple[float, float | None]:
    """The step and an origin of the numbers, shape (N,) with N > 0, as which they were recorded.

    The largest step whose multiples, from the origin, are all but a thousandth of the cells and a hundredth of the
    different numbers, to the rounding of floats; of one number, the unit of its last digit. Without any, the least
    difference of two numbers, and no origin.
    """
    distinct, counts = np.unique(values, return_counts=True)

    def hold(there: np.ndarray) -> bool:
        cells = counts[~there].sum() <= 1e-3 * len(values)
        return bool(cells and (~there).sum() <= 1e-2 * len(distinct))

    for digits in (15, 6):  # significant ones of float64, then of former float32
        error = np.abs(distinct) * 10.0**-digits
        for decimals in range(digits + 1):
            unit = 10.0**decimals
            with np.errstate(over="ignore"):
                number = np.rint(distinct * unit)
                near = np.abs(distinct - number / unit) <= error
            near &= np.maximum(error * unit, np.abs(number) / EXACT_BELOW) < WITHIN
            if not hold(near):
                continue
            usual = int(number[near][counts[near].argmax()])
            places = np.where(near, number, usual).astype(np.int64) - usual
            step = int(np.gcd.reduce(places)) or 1
            # a longer step, where some numbers are off the lattice
            for p in (2, 3, 5, 7, 11, 13) if places.any() else ():
                while hold(near & (places % (step * p) == 0)):
                    step *= p
            return step / unit, usual % step / unit
    digit = np.spacing(np.minimum(np.abs(distinct), LARGEST / 2))
    with np.errstate(over="ignore"):
        apart = np.diff(distinct)
    apart = apart[apart > digit[1:]]
    least = float(apart.min()) if len(apart) else float(digit.max())
    return min(max(least, SMALLEST), LARGEST), None


def _range(values: np.ndarray, whole: bool) -> tuple[float, float]:
    """:attr:`Continuous.low` and ``high``, none of which is a value."""
    k = min(5, len(values))
    ends = np.partition(values, (k - 1, len(values) - k))
    low, high = float(np.mean(ends[:k] / k) * k), float(np.mean(ends[-k:] / k) * k)
    return (math.floor(low) - 0.5, math.ceil(high) + 0.5) if whole else (low, high)


def _coarse(value: float, distance: float) -> float:
    """The value on a binary grid of 1/64 to 1/32 of a distance: a quantile must not reveal a training value exactly."""
    step = 2.0 ** (math.floor(math.log2(distance)) - 5)
    with np.errstate(all="ignore"):
        near = float(np.rint(np.float64(value) / step) * step)
    return near if math.isfinite(near) else value


def numbers_seen(values: np.ndarray, step: float) -> tuple[tuple[float, ...], float]:
    r"""The different numbers among values, shape (N,), increasing, and the probability of a new one.

    Among a few hundred different numbers that are no neighbours on their lattice, one never seen is anomalous wherever
    it lies, though between two frequent values a density is as high as at them. The next number is new with probability

    .. math:: p = \max\Bigl(0.02, \frac{n_1 + 1/2}{n + 1}\Bigr), \quad (16)

    with n training cells, of which :math:`n_1` have a number that no other has: Good and Turing's share
    :math:`n_1/n`, but at least 0.02, as rows of another source may have a digit more. Empty and 0 where numbers do not
    repeat, and where they leave out no more of their lattice than a density gives to new ones anyway.

    References
    ----------
    Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
    """
    distinct, counts = np.unique(values, return_counts=True)
    p = max((np.count_nonzero(counts == 1) + 0.5) / (len(values) + 1), 0.02)
    # neighbours in windows of 20 rows, in each of which a density is about even, but for the seven highest peaks
    usual = np.sort(np.argsort(-counts, kind="stable")[7:])
    if p >= 0.2 or not len(usual):
        return (), 0.0
    numbers, rows = distinct[usual], counts[usual]
    first = np.flatnonzero(np.diff((np.cumsum(rows) - rows) // 20, prepend=-1))
    with np.errstate(over="ignore"):
        places = np.diff(np.append(numbers[first], numbers[-1:] + step)) / step
    different = np.diff(np.append(first, len(rows)))
    left_out = np.add.reduceat(rows, first) @ (1 - different / np.maximum(places, different))
    if left_out <= 3 * p * len(values):  # not much more than the new numbers
        return (), 0.0
    return tuple((distinct + 0.0).tolist()), float(p)
