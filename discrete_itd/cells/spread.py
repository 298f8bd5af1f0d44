"""The judge of numbers that nearly follow from another number: a smooth function with a spread of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.cells.views import Aspect, Context

Floats, Ints = NDArray[np.float64], NDArray[np.int64]

# Rows to either side, in the order of the other number, from which the function and its spread are taken.
BESIDE = 16
FREEDOM = 3.0  # degrees of freedom of Student's t distribution about the function
# Least spread, as a share of that of the whole column (a narrower one is an equation's, and judged as such); rows on
# which other columns are tried, and how many are taken; nats a row by which one must be better than the column alone.
NARROWEST, TRIED_ROWS, MOST_TAKEN, LEAST_GAIN = 1e-3, 256, 2, 1.0


class NearFunction(NamedTuple):
    """What a number of another ``column`` says: the probability (N,) ``p`` of cells, as of bins, and the value (N,)."""

    column: int
    p: Floats
    value: Floats


def near_functions(bins: Aspect, others: list[Context], unit: Ints) -> list[NearFunction]:
    """The other columns of numbers of which a column is nearly a function, the best first; none without them.

    About the line through the medians of both halves of the BESIDE rows to either side of a row, without the rows of
    its unit, numbers have Student's t distribution with the median distance of these rows.
    """
    z = bins.scaled
    if z is None or bins.log_flat is None:
        return []
    known = np.flatnonzero(~bins.absent)
    if len(known) <= 4 * BESIDE:
        return []
    low, middle, high = np.quantile(z[known], [0.25, 0.5, 0.75])
    narrowest = NARROWEST * (high - low or np.abs(z[known] - middle).mean())
    some = known[np.linspace(0, len(known) - 1, min(len(known), TRIED_ROWS)).astype(int)]
    # log-density of cells without other columns: Gaussian kernels would do as well as the t distribution of all
    log_alone = np.median(stats.t.logpdf((z[some] - middle) / (high - low), FREEDOM)) - np.log(
        high - low
    )
    found = []
    for other in others:
        x = other.bins.scaled
        if x is None or narrowest <= 0:
            continue
        rows = known[~other.bins.absent[known]]
        if len(rows) <= 4 * BESIDE:
            continue
        order = rows[np.argsort(x[rows], kind="stable")]
        log_p, _ = _beside(z, x, order, np.isin(order, some), unit, narrowest)
        gain = np.nan_to_num(np.median(log_p) - log_alone, nan=-np.inf)
        if gain > LEAST_GAIN:
            found.append((gain, other, order))
    out = []
    for _, other, order in sorted(found, key=lambda way: -way[0])[:MOST_TAKEN]:
        log_p, value = np.full(len(z), np.nan), np.full(len(z), np.nan)
        every = np.ones(len(order), bool)
        log_p[order], value[order] = _beside(z, other.bins.scaled, order, every, unit, narrowest)
        out.append(NearFunction(other.column, np.exp(log_p + bins.log_flat) * bins.reach, value))
    return out


def _beside(
    z: Floats, x: Floats, order: Ints, asked: NDArray[np.bool_], unit: Ints, narrowest: float
) -> tuple[Floats, Floats]:
    """The log-densities of z (n,) and what is expected in the rows of an ``order`` by x that are asked for."""
    n, place = len(order), np.flatnonzero(asked)
    offsets = np.concatenate([np.arange(-BESIDE, 0), np.arange(1, BESIDE + 1)])
    start = np.clip(place, BESIDE, n - 1 - BESIDE)
    near = start[:, None] + offsets
    near = np.where(near == place[:, None], start[:, None], near)
    rows = order[near]
    z_near, x_near = z[rows], x[rows]
    z_near = np.where(unit[rows] == unit[order[place]][:, None], np.nan, z_near)
    with np.errstate(all="ignore"):
        (z_left, z_right), (x_left, x_right) = (
            (_median(t[:, :BESIDE]), _median(t[:, BESIDE:])) for t in (z_near, x_near)
        )
        slope = np.where(x_right > x_left, (z_right - z_left) / (x_right - x_left), 0.0)
        off = z_near - slope[:, None] * x_near
        level = _median(off)
        spread = _median(np.abs(off - level[:, None])) / stats.t.ppf(0.75, FREEDOM)
    value = level + slope * x[order[place]]
    spread = np.where(spread >= narrowest, spread, np.nan)
    return stats.t.logpdf((z[order[place]] - value) / spread, FREEDOM) - np.log(spread), value


def _median(t: Floats) -> Floats:
    """The medians (n,) of the numbers of each row of t (n, W), NaN where there is none."""
    n = (~np.isnan(t)).sum(1)
    places = np.stack([np.maximum(n - 1, 0) // 2, np.minimum(n // 2, np.maximum(n - 1, 0))], 1)
    return np.take_along_axis(np.sort(t, 1), places, 1).mean(1)
