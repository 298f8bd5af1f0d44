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
ROWS_AT_ONCE = 1 << 14


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
    if not low < high:
        return []
    narrowest = NARROWEST * (high - low)
    some = known[np.linspace(0, len(known) - 1, min(len(known), TRIED_ROWS)).astype(int)]
    # the log-density of a usual cell without other columns
    with np.errstate(over="ignore"):
        usual = stats.t.logpdf((z[some] - middle) / (high - low), FREEDOM)
    log_alone = np.median(usual) - np.log(high - low)
    found = []
    for other in others:
        x = other.bins.scaled
        if x is None:
            continue
        rows = known[~other.bins.absent[known]]
        if len(rows) <= 4 * BESIDE:
            continue
        order = rows[np.argsort(x[rows], kind="stable")]
        places = np.flatnonzero(np.isin(order, some))
        log_p, _ = _beside(z, x, order, places, unit, narrowest)
        gain = np.nan_to_num(np.median(log_p) - log_alone, nan=-np.inf)
        if gain > LEAST_GAIN:
            found.append((gain, other, order))
    out = []
    for _, other, order in sorted(found, key=lambda way: -way[0])[:MOST_TAKEN]:
        log_p, value = np.full(len(z), np.nan), np.full(len(z), np.nan)
        for places in np.array_split(np.arange(len(order)), len(order) // ROWS_AT_ONCE + 1):
            rows = order[places]
            log_p[rows], value[rows] = _beside(z, other.bins.scaled, order, places, unit, narrowest)
        out.append(
            NearFunction(
                other.column, np.exp(np.minimum(log_p + bins.log_flat, 300.0)) * bins.reach, value
            )
        )
    return out


def _beside(
    z: Floats, x: Floats, order: Ints, place: Ints, unit: Ints, narrowest: float
) -> tuple[Floats, Floats]:
    """The log-densities of z (n,) and what is expected at some places (n,) in an ``order`` of rows by x."""
    n = len(order)
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
        log_p = stats.t.logpdf((z[order[place]] - value) / spread, FREEDOM) - np.log(spread)
    return log_p, value


def _median(t: Floats) -> Floats:
    """The medians (n,) of the numbers of each row of t (n, W), NaN where there is none."""
    n = (~np.isnan(t)).sum(1)
    places = np.stack([np.maximum(n - 1, 0) // 2, np.minimum(n // 2, np.maximum(n - 1, 0))], 1)
    return np.take_along_axis(np.sort(t, 1), places, 1).mean(1)
