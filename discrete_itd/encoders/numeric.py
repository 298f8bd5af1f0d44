r"""Columns of numbers: continuous ones, made Gaussian-like by a monotone map, and ones cut into bins.

A density changes with the unit in which it is expressed; both families report by how much, cell by cell, as
``log_volume``, so that core log-mass or log-density plus ``log_volume`` is the log-density in the column's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from discrete_itd.channel.points import ColumnPoints
from discrete_itd.encoders.categories import line_levels
from discrete_itd.encoders.cells import rounding

FAR = 1000.0  # robust standard deviations; further out the map grows with the logarithm
POWERS = np.linspace(0.0, 2.0, 41)  # from 0 to 2 Yeo and Johnson's map is onto the reals
POWER_SAMPLE = 10_000  # order statistics that choose the power
IQR = 1.3489795003921634  # of the standard normal
COARSER = 5  # binary digits of the distance between values, below which they are rounded
LARGEST = float(np.finfo(float).max)
SMALLEST = float(np.finfo(float).tiny)
BINS = 32
NARROWEST = 1e-3  # width of an atom's bin, in median deviations of the other values
OFTEN = 20  # occurrences of an atom in training at least
MOST = 500  # atoms of a column at most
ENDS = 5  # least and greatest values whose means are the range
BOUND = 1 / 32  # share of the rows from which the least or greatest value is taken as a bound
NEARBY = 0.025  # share of its own rows, and of those on one side, that an atom covers there at most
LEAST = 0.02  # probability of a new number
RARE = 0.2  # the probability of a new number, above which a column is not said to repeat


@dataclass(frozen=True)
class Continuous:
    r"""A column of real numbers, mapped to mean 0 and standard deviation one half.

    .. math:: x \to u = (x - m)/s \to w = t(u) \to y = \psi_\lambda(w) \to z = (y - a)/b

    with a robust centre and scale, a map t that leaves all but the far tails alone (:math:`t(u) = u` for
    :math:`|u| \le U`, :math:`\pm U (1 + \log(|u|/U))` beyond, once differentiable), the Yeo-Johnson map, and a last
    shift and scale. Every finite x has a finite image and slope, and every real z comes from a finite x.

    Where numbers repeat, the log-density is that of the number plus :math:`\log(1 - p)` if it was seen in training, to
    within :func:`~discrete_itd.encoders.cells.rounding`, and :math:`\log p` if it is new: a density on two lines. Draws
    are never new, but the nearest number seen. Where numbers do not repeat, a frequent value, like zero, is an atom:
    draws between its edges become the atom.

    Parameters
    ----------
    whole : bool
        Whether values are whole numbers. The density stays that of a real number, per unit.
    center, scale, power, mean, spread : float
        m, s, :math:`\lambda` between 0 and 2 (1 changes nothing), a, and b, twice the standard deviation of y.
    atoms, edges : tuple of A and of 2 A floats
        Increasing; the edges before and after each atom are those of :func:`find_atoms`.
    seen : tuple of floats
        Increasing, the different numbers of a column whose numbers repeat; empty for another one.
    p_new : float
        Probability p that a number is none of these, see :func:`numbers_seen`.
    low, high : float
        The range in training, but for its ends: means of the five least and of the five greatest values, rounded
        outwards where they are whole.

    References
    ----------
    Yeo & Johnson, "A new family of power transformations to improve normality or symmetry", Biometrika 2000, eq. (2.1).

    Examples
    --------
    >>> codec = fit_continuous(np.array([1.0, 2.0, 4.0]), whole=False)
    >>> z, log_slope = codec.encode(np.array([2.0]))
    >>> codec.decode(z).round(6)
    array([2.])
    """

    whole: bool
    center: float
    scale: float
    power: float
    mean: float
    spread: float
    atoms: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    seen: tuple[float, ...] = ()
    p_new: float = 0.0
    low: float = -LARGEST
    high: float = LARGEST

    kind: ClassVar[str] = "continuous"
    categories: ClassVar[tuple[()]] = ()
    open: ClassVar[bool] = False
    n_levels: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.spread > 0 and 0 <= self.power <= 2):
            raise ValueError("scale and spread must be positive, the power between 0 and 2")
        if len(self.edges) != 2 * len(self.atoms):
            raise ValueError("edges must be two for each atom")
        between = zip(self.edges[::2], self.atoms, self.edges[1::2], strict=True)
        line = [value for part in between for value in part]
        if line != sorted(line):
            raise ValueError("atoms must be increasing, and each between its edges")
        if not (np.diff(self._seen) > 0).all():
            raise ValueError("seen must be increasing")
        if not (0 < self.p_new < 1 if self.seen else self.p_new == 0):
            raise ValueError("p_new must be between 0 and 1 where numbers repeat, else 0")

    @property
    def points(self) -> ColumnPoints:
        return ColumnPoints("real", 0)

    def is_outside(self, z: np.ndarray) -> np.ndarray:
        """Whether encoded numbers lie outside the range in training: bool, False for NaN."""
        low, high = self.slope(np.array([self.low, self.high]))[0]
        return np.asarray((z < low) | (z > high))

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values on the new scale, and the logarithm of the slope :math:`dz/dx` there minus :meth:`new_nats`."""
        z, log_slope = self.slope(values)
        return z, log_slope - self.new_nats(z)

    def new_nats(self, z: np.ndarray) -> np.ndarray:
        """Nats of encoded numbers being new or not: 0 where numbers do not repeat, and for NaN."""
        if not self.seen:
            return np.zeros(len(z))
        low, high = self._reach
        is_seen = np.searchsorted(low, z, side="right") > np.searchsorted(high, z)
        nats = np.where(is_seen, -math.log1p(-self.p_new), -math.log(self.p_new))
        return np.where(np.isnan(z), 0.0, nats)

    @property
    def mean_new_nats(self) -> float:
        """The expectation of :meth:`new_nats`."""
        p = self.p_new
        return -p * math.log(p) - (1 - p) * math.log1p(-p) if p else 0.0

    @cached_property
    def _seen(self) -> np.ndarray:
        return np.array(self.seen, dtype=float)

    @cached_property
    def _reach(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest encoded number that decode to each number seen, increasing."""
        width = rounding(self._seen)
        low, high = (np.clip(self._seen + side, -LARGEST, LARGEST) for side in (-width, width))
        return self.slope(low)[0], self.slope(high)[0]

    def slope(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values on the new scale, and the logarithm of the slope :math:`dz/dx` of the map there."""
        w, log_slope = _tame(values, self.center, self.scale)
        z = (_power(w, self.power) - self.mean) / self.spread
        bent = np.where(w < 0, 1 - self.power, self.power - 1) * np.log1p(np.abs(w))
        return z, log_slope + bent - math.log(self.spread)

    def log_resolution(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Logarithm of the least distance between two different training cells, encoded at places ``at`` (n,).

        ``x`` (N,) are the encoded training cells; infinite without two different ones, NaN at missing cells.
        """
        apart = np.diff(np.unique(self.decode(x[~np.isnan(x)])))
        return math.log(apart.min(initial=math.inf)) + self.slope(self.decode(at))[1]

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The values, finite whatever x is; NaN stays NaN. With ``rng`` they are draws: :meth:`settled`."""
        from scipy.special import inv_boxcox1p  # scipy takes longer to import than a table to score

        with np.errstate(over="ignore"):
            y = np.clip(x * self.spread + self.mean, -LARGEST, LARGEST)
            w = np.copysign(inv_boxcox1p(np.abs(y), np.where(y < 0, 2 - self.power, self.power)), y)
            size = np.abs(w)
            # in two steps, for exp(1400) is no float but, times a tiny scale, a distance may be one
            half = np.exp(np.clip(size / FAR - 1, 0.0, 1416.0) / 2)
            distance = self.scale * half * np.minimum(size, FAR) * half
            values = np.clip(self.center + np.copysign(distance, w), -LARGEST, LARGEST)
        return values if rng is None else self.settled(values)

    def settled(self, values: np.ndarray) -> np.ndarray:
        """The numbers that values of the density stand for: the nearest one seen, or the atom between whose edges."""
        return nearest(values, self._seen) if self.seen else settle(values, self.atoms, self.edges)


def fit_continuous(values: np.ndarray, whole: bool, *, in_time: bool = False) -> Continuous:
    """Centre, scale and power of the values, shape (N,) with N > 0, and the repeated numbers.

    Points ``in_time`` are never new in this sense: future times are not in training.
    """
    low, center, high = np.quantile(values, [0.25, 0.5, 0.75], method="nearest").tolist()
    scale = 2 * (high / 2 - low / 2) / IQR
    if not 0 < scale <= LARGEST:  # half of the values are one, or the numbers are huge
        scale = min(2 * float(np.sum(np.abs(values / 2 - center / 2) / len(values))), LARGEST)
    scale = max(scale, SMALLEST) if scale > 0 else 1.0
    if low < high:  # else it is the value of half of the rows
        center = float(_coarse(np.array(center), np.array(scale)))
    w, _ = _tame(values, center, scale)
    sample = w
    if len(w) > POWER_SAMPLE:
        sample = np.sort(w)[np.linspace(0, len(w) - 1, POWER_SAMPLE).round().astype(int)]
    log_slopes = float(np.mean(np.copysign(np.log1p(np.abs(sample)), sample)))
    variance = np.var(_power(sample, POWERS[:, None]), axis=1)
    with np.errstate(divide="ignore"):  # profile log-likelihood per value, a Gaussian's
        scores = (POWERS - 1) * log_slopes - 0.5 * np.log(variance)
    power = float(POWERS[np.where(variance > 0, scores, 0.0).argmax()])
    y = _power(w, power)
    mean, spread = float(np.mean(y)), 2 * float(np.std(y))
    seen, p_new = ((), 0.0) if in_time else numbers_seen(values)
    atoms, edges = ((), ()) if seen else find_atoms(values, whole)
    map_ = whole, center, scale, power, mean, spread if spread > 0 else 1.0
    return Continuous(*map_, atoms, edges, seen, p_new, *_range(values, whole))


def _range(values: np.ndarray, whole: bool) -> tuple[float, float]:
    """:attr:`Continuous.low` and ``high``, none of which is a value."""
    k = min(ENDS, len(values))
    ends = np.partition(values, (k - 1, len(values) - k))
    low, high = float(np.mean(ends[:k] / k) * k), float(np.mean(ends[-k:] / k) * k)
    return (math.floor(low) - 0.5, math.ceil(high) + 0.5) if whole else (low, high)


def _coarse(
    values: np.ndarray, distance: np.ndarray, rounded: Callable[[np.ndarray], np.ndarray] = np.rint
) -> np.ndarray:
    """The values on a binary grid of 1/64 to 1/32 of a distance: quantiles must not reveal a training value exactly."""
    step = np.exp2(np.floor(np.log2(distance)) - COARSER)
    with np.errstate(all="ignore"):
        near = rounded(values / step) * step
    return np.where(np.isfinite(near), near, values)


def _tame(values: np.ndarray, center: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image w of each value, and log dw/dx."""
    with np.errstate(over="ignore"):  # clip overflow to the largest float; keep its logarithm exact
        distance = np.clip(values - center, -LARGEST, LARGEST)
        u = distance / scale
    far = np.abs(u) > FAR
    log_size = np.log(np.abs(distance), where=far, out=np.zeros_like(distance))
    excess = np.where(far, log_size - math.log(scale) - math.log(FAR), 0.0)
    w = np.where(far, np.copysign(FAR * (1 + excess), u), u)
    return w, -math.log(scale) - excess


def _power(w: np.ndarray, power: float | np.ndarray) -> np.ndarray:
    """Yeo and Johnson's map of values with powers that broadcast."""
    size, own = np.log1p(np.abs(w)), np.where(w < 0, 2 - power, power)
    is_log = own == 0
    return np.copysign(np.where(is_log, size, np.expm1(own * size) / np.where(is_log, 1.0, own)), w)


@dataclass(frozen=True)
class Bins:
    r"""A column of numbers cut into bins, with an exponential tail on either side.

    Levels: 0 for values below the first edge, 1 ... K for the bins, K + 1 for values above the last edge. Bins
    contain their left edge, the last one also its right. Within a bin the density is even; beyond the edges it
    falls as :math:`\exp(-d/s)/s` with the distance d. Of whole numbers, edges lie half-way between two, tails are
    geometric, and everything is a probability mass.

    Parameters
    ----------
    whole : bool
    edges : tuple of K + 1 floats
        Increasing.
    levels : tuple of K + 2 floats
        Points of the levels on the line.
    tails : tuple of two floats
        Mean distance s beyond the first and the last edge.
    atoms : tuple of float
        Values so frequent that they have a bin of their own.

    Examples
    --------
    >>> codec = fit_bins(np.arange(100.0), whole=True, bins=4)
    >>> codec.encode(np.array([0.0, 99.0]))[0]
    array([1., 4.])
    """

    whole: bool
    edges: tuple[float, ...]
    levels: tuple[float, ...]
    tails: tuple[float, float]
    atoms: tuple[float, ...] = ()

    kind: ClassVar[str] = "binned"
    categories: ClassVar[tuple[()]] = ()
    open: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or not (_gaps(np.array(self.edges)) > 0).all():
            raise ValueError("edges must be at least two, and increasing")
        if len(self.levels) != self.n_levels + 2 or not (np.diff(self.levels) > 0).all():
            raise ValueError("levels must be two more than bins, and increasing")
        if not min(self.tails) > 0:
            raise ValueError("tails must be two positive numbers")

    @property
    def n_levels(self) -> int:
        return len(self.edges) - 1

    def is_outside(self, level: np.ndarray) -> np.ndarray:
        """Whether levels are those beyond the edges: bool, False for NaN."""
        return (level < 1) | (level > self.n_levels)

    @property
    def points(self) -> ColumnPoints:
        return ColumnPoints("line", len(self.levels), False, self.levels)

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """The intervals, the level of each, and its share of the level's probability."""
        breaks = [-math.inf, *self.edges, math.inf]
        n = len(breaks) - 1
        return pd.IntervalIndex.from_breaks(breaks, closed="left"), np.arange(n), np.ones(n)

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels of the values, float64, and the log-density of each within its level."""
        edges, n_bins = np.array(self.edges), self.n_levels
        level, (low, high) = _level(edges, values), self.tails
        log_density = np.concatenate(([0.0], -np.log(_gaps(edges)), [0.0]))[level]
        for outside, edge, s in ((level == 0, edges[0], low), (level > n_bins, edges[-1], high)):
            with np.errstate(over="ignore"):
                fall = np.minimum(np.abs(values[outside] - edge) / s, 1e300)
            if self.whole:  # 1/2, 3/2, 5/2, ... away
                fall, norm = np.maximum(fall - 0.5 / s, 0.0), math.log(-math.expm1(-1 / s))
            else:
                norm = -math.log(s)
            log_density[outside] = norm - fall
        return level.astype(float), log_density

    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """A value drawn from each level, or, without ``rng``, its middle (in a tail, its median); NaN stays NaN."""
        edges, n_bins = np.array(self.edges), self.n_levels
        missing = np.isnan(x)
        level = np.clip(np.where(missing, 0, x).astype(np.int64), 0, n_bins + 1)
        share = np.full(len(level), 0.5) if rng is None else rng.random(len(level))
        inner = np.clip(level, 1, n_bins)
        left, right = edges[inner - 1], edges[inner]
        values = left * (1 - share) + right * share
        if self.whole:
            values = np.rint(values)
        home = np.full(n_bins + 2, np.nan)
        home[_level(edges, np.array(self.atoms))] = self.atoms
        values = np.where(np.isnan(home[inner]), values, home[inner])
        with np.errstate(over="ignore"):
            for outside, edge, s, sign in (
                (level == 0, edges[0], self.tails[0], -1),
                (level > n_bins, edges[-1], self.tails[1], 1),
            ):
                beyond = -np.log1p(-share[outside]) * s
                values[outside] = edge + sign * (np.floor(beyond) + 0.5 if self.whole else beyond)
        return np.where(missing, np.nan, np.clip(values, -LARGEST, LARGEST))


def fit_bins(
    values: np.ndarray, whole: bool, bins: int = BINS, edges: np.ndarray | None = None
) -> Bins:
    """Edges, tails and levels for the values (N,) with N > 0; ``whole`` if they are whole numbers and nothing else.

    Unless ``edges`` are given, bins have about equal counts, and a value in more than its share of the rows has one of
    its own: of width one among whole numbers, otherwise of the smallest gap between two distinct values, but not less
    than 1/1000 of the spread of the others. ValueError if no whole number lies between the edges given.
    """
    atoms = np.zeros(0)
    if edges is None:
        edges, atoms = _quantile_edges(values, whole, bins)
    elif whole:  # the same sets of whole numbers, with edges half-way between two
        edges = np.unique(np.append(np.ceil(edges[:-1]), np.floor(edges[-1]) + 1)) - 0.5
        if len(edges) < 2:
            raise ValueError("no whole number lies between the edges")
    widths = _gaps(edges)
    with np.errstate(over="ignore"):
        mean_width = (edges[-1] - edges[0]) / len(widths)
        tails = []
        for outermost, excess in ((widths[0], edges[0] - values), (widths[-1], values - edges[-1])):
            excess = excess[excess > 0]
            # values beyond edges that were given say how far; else the outermost bin, which may be narrow
            s = np.mean(excess) if len(excess) else max(outermost, mean_width)
            tails.append(min(float(s), LARGEST))
        ends = edges[0] - tails[0], edges[-1] + tails[1]
    centers = np.concatenate((ends[:1], edges[:-1] / 2 + edges[1:] / 2, ends[1:]))
    centers = np.clip(centers, -LARGEST, LARGEST)
    levels = line_levels(centers, np.bincount(_level(edges, values), minlength=len(centers)))
    return Bins(whole, tuple(edges.tolist()), levels, (tails[0], tails[1]), tuple(atoms.tolist()))


def _quantile_edges(values: np.ndarray, whole: bool, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges between about equal counts, with the atoms that have a bin to themselves."""
    distinct, counts = np.unique(values, return_counts=True)
    is_atom = counts * bins > len(values)
    atoms = distinct[is_atom]
    rest = np.repeat(distinct[~is_atom], counts[~is_atom])
    if len(rest) and rest[0] == rest[-1]:
        atoms, rest = distinct, rest[:0]
    quantiles = np.zeros(0)
    if len(rest):
        shares = np.linspace(0, 1, max(1, bins - len(atoms)) + 1)
        quantiles = np.unique(np.quantile(rest, shares, method="nearest"))
        if len(quantiles) > 1:  # no one's number; the outermost ones no further in
            gaps = _gaps(quantiles)
            near = np.minimum(np.append(gaps[:1], gaps), np.append(gaps, gaps[-1:]))
            ends = quantiles[0], quantiles[-1]
            ways = np.floor, *[np.rint] * (len(near) - 2), np.ceil
            parts = zip(quantiles, near, ways, strict=True)
            quantiles = np.array([_coarse(*part) for part in parts])
            quantiles[0], quantiles[-1] = min(ends[0], quantiles[0]), max(ends[1], quantiles[-1])
        if whole:
            quantiles = np.append(quantiles[:-1], quantiles[-1] + 1) - 0.5
    gap = 1.0 if whole or len(distinct) < 2 else float(_gaps(distinct).min())
    if not whole and len(rest):
        gap = max(gap, NARROWEST * float(np.median(np.abs(rest / 2 - np.median(rest / 2)))) * 2)
        if len(atoms) > 1:
            gap = min(gap, float(_gaps(atoms).min()))
    half = np.maximum(gap / 2, 0.0 if whole else 8 * np.spacing(np.abs(atoms / 2)))
    with np.errstate(over="ignore"):
        left, right = (np.clip(atoms + side, -LARGEST, LARGEST) for side in (-half, half))
    inside = np.zeros(len(quantiles), bool)
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        inside |= (quantiles > a) & (quantiles < b)
    edges = np.unique(np.concatenate((quantiles[~inside], left, right)))
    keep = np.append(_gaps(edges) > 1e-6 * gap, True)  # rounding makes slivers
    keep[0] = True
    return edges[keep], atoms


def _level(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """0 below the first edge, the number of the bin, or one more than the bins above the last edge."""
    level = np.searchsorted(edges, values, side="right")
    level[values == edges[-1]] = len(edges) - 1
    return level


def _gaps(values: np.ndarray) -> np.ndarray:
    """Distances between neighbours, clipped to the largest float."""
    with np.errstate(over="ignore"):
        return np.minimum(np.diff(values), LARGEST)


def numbers_seen(values: np.ndarray) -> tuple[tuple[float, ...], float]:
    r"""The different numbers among values, shape (N,), increasing, and the probability of a new one.

    Among a few hundred different numbers, one never seen is anomalous wherever it lies, though between two frequent
    values a density is as high as at them. The next number is new with probability

    .. math:: p = \max\Bigl(0.02, \frac{n_1 + 1/2}{n + 1}\Bigr), \quad (11)

    with n training cells, of which :math:`n_1` have a number that no other has: Good and Turing's share
    :math:`n_1/n`, but at least 0.02, as rows of another source may have a digit more. Empty and 0 where numbers do not
    repeat.

    References
    ----------
    Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
    """
    distinct, counts = np.unique(values, return_counts=True)
    p = (np.count_nonzero(counts == 1) + 0.5) / (len(values) + 1)
    return (tuple((distinct + 0.0).tolist()), max(float(p), LEAST)) if p < RARE else ((), 0.0)


def nearest(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The number seen (K,), increasing, that is nearest to each of the values (N,); NaN stays NaN."""
    with np.errstate(over="ignore"):
        at = np.searchsorted(seen[:-1] / 2 + seen[1:] / 2, values)
    return np.where(np.isnan(values), np.nan, seen[at])


def find_atoms(values: np.ndarray, whole: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The atoms among the values, shape (N,) with N > 0: A values, and 2 A edges, before and after each.

    An atom reaches half-way to the next different value, or over the few next ones, which its peak covers in any
    density: to the middle of the widest gap (of equal ones, the furthest) within reach of few rows and of no other
    atom. The outermost value ends as far out as it begins, or, as a bound that many rows reach, where numbers end. For
    integers, to which draws are rounded, atoms that cover no gap are left out.
    """
    distinct, counts = np.unique(values, return_counts=True)
    places = np.flatnonzero(counts >= OFTEN)
    if len(places) > MOST:
        places = np.sort(places[np.argsort(-counts[places], kind="stable")[:MOST]])
    if not len(places):
        return (), ()
    with np.errstate(over="ignore"):
        high = _upper_edges(distinct, counts, places)
        low = -_upper_edges(-distinct[::-1], counts[::-1], len(distinct) - 1 - places[::-1])[::-1]
        atoms = distinct[places]
        between = atoms[:-1] / 2 + atoms[1:] / 2
        overlap = high[:-1] > low[1:]
        high[:-1], low[1:] = (np.where(overlap, between, side) for side in (high[:-1], low[1:]))
        if whole:
            wide = np.maximum(atoms - low, high - atoms) > 0.5
            atoms, low, high = atoms[wide], low[wide], high[wide]
    return tuple(atoms.tolist()), tuple(np.stack((low, high), 1).ravel().tolist())


def _upper_edges(distinct: np.ndarray, counts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The end of each atom, given increasing values, their counts and the positions of the atoms."""
    until, n = np.cumsum(counts), len(distinct)
    own, beyond = counts[places], until[-1] - until[places]
    room = until[places] + NEARBY * np.minimum(own, beyond)
    furthest = np.searchsorted(until, room, side="right") - 1  # the last value that it may cover
    furthest = np.minimum(furthest, np.append(places[1:], n) - 1)
    gaps = np.diff(distinct)
    edges = np.full(len(places), LARGEST)
    for i, (k, last) in enumerate(zip(places.tolist(), furthest.tolist(), strict=True)):
        if k < n - 1:
            reach = gaps[k : min(last, n - 2) + 1]
            j = k + len(reach) - 1 - int(np.argmax(reach[::-1]))
            edges[i] = distinct[j] / 2 + distinct[j + 1] / 2
        elif n > 1 and own[i] <= BOUND * until[-1]:
            edges[i] = min(distinct[k] + (distinct[k] / 2 - distinct[k - 1] / 2), LARGEST)
    return edges


def settle(values: np.ndarray, atoms: Sequence[float], edges: Sequence[float]) -> np.ndarray:
    """The values, shape (N,), with those between the edges of an atom replaced by it; NaN stays NaN."""
    if not len(atoms):
        return values
    own = np.searchsorted(edges[1::2], values).clip(max=len(atoms) - 1)
    inside = (np.asarray(edges[::2])[own] <= values) & (values <= np.asarray(edges[1::2])[own])
    return np.where(inside, np.asarray(atoms)[own], values)
