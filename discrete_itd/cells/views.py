"""The views of a column: values, patterns of text, bins of numbers with tails; and the other columns as contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discrete_itd.cells.counts import OFTEN
from discrete_itd.cells.spelling import misspellings
from discrete_itd.cells.written import pattern
from discrete_itd.encoders import Column
from discrete_itd.reading.frames import as_numbers
from discrete_itd.reading.text import FEW_VALUES

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
MOST_CONTEXTS = 8  # most other columns by which the cells of a column are judged
# most views of other columns that are tried, and pairs of rows that choose these
MOST_CANDIDATES, PAIRS = 32, 500
# Of very many columns, views of BESIDE columns to the left and right are tried.
BESIDE = 1000
# a column of more than FEW_VALUES numbers is divided into at most N_BINS bins of at least BIN_ROWS rows
N_BINS, BIN_ROWS = 16, 25
ENDS = 0.01, 0.99  # quantiles between which numbers tell whether they are on a logarithmic scale
SHAPES = 0.5  # prior standard deviation of the shape of a tail of numbers
HEAVIEST = 1e6  # largest ratio of the upper quarter and the median of a tail


@dataclass
class Aspect:
    """Cells as codes (N,), the last one for missing cells.

    Of numbers and times, ``places`` are the ranks of the codes. Of bins, ``log_flat`` (N,) is the log of a flat density
    over the density of the cell within its bin, and ``middles`` are the codes of their medians among the values;
    ``scaled`` (N,) are the numbers on the scale of which they are bins, over a range of ``reach``.
    """

    codes: Ints
    absent: Bools
    places: Ints | None = None
    log_flat: Floats | None = None
    middles: Ints | None = None
    scaled: Floats | None = None
    reach: float = 1.0

    @cached_property
    def n_levels(self) -> int:
        return len(np.unique(self.codes))


class ColumnViews(NamedTuple):
    """The views of a column: values, patterns of text, bins of numbers; of ``few`` numbers only to find far ones.

    ``meant`` (N,) has the codes of the values of which cells are misspellings, with probability ``misspelt`` (N,) by
    the column alone; ``unreadable`` (N,) are cells of numbers or times that are none.
    """

    column: Column
    values: Aspect
    patterns: Aspect | None
    bins: Aspect | None
    few: Aspect | None
    meant: Ints
    misspelt: Floats
    unreadable: Bools

    def contexts(self, column: int) -> list[Context]:
        """The views as contexts of other columns."""
        found = [Context(column, self.values, self.bins or self.values)]
        if self.patterns:
            found.append(Context(column, self.patterns, self.patterns, is_pattern=True))
        return found


class Context(NamedTuple):
    """A view of another column: by value, and by the bins of its numbers; or by pattern."""

    column: int
    values: Aspect
    bins: Aspect
    is_pattern: bool = False


def views_of(column: Column, cells: pd.Series, is_asked: bool = True) -> ColumnViews:
    """The views of a column with these cells, and which of them are misspellings if that is asked."""
    read, words = column.readable(cells)
    values, is_numeric = read.values, column.codec.of_numbers
    if is_numeric:
        values = as_numbers(column.name, read, column.family, column.origin, column.step)
    codes, distinct = pd.factorize(values)
    where = np.append(codes, len(distinct))[read.where]
    absent = read.where < 0
    patterns = bins = few = places = None
    meant, misspelt = np.arange(len(distinct) + 1), np.zeros(len(distinct) + 1)
    if len(distinct) > 1 and (is_numeric or column.is_number):
        numbers = np.asarray(distinct, float)
        places, numbers = np.append(np.argsort(np.argsort(numbers)), len(numbers)), numbers[codes]
        scaled = _on_scale(numbers)
        level, log_flat = _binned(scaled)
        order = np.lexsort((numbers, level))
        ends = np.searchsorted(level[order], np.arange(level.max() + 2))
        middles = np.append(codes[order[(ends[1:] + ends[:-1]) // 2]], len(distinct))
        level, log_flat = np.append(level, level.max() + 1), np.append(log_flat, 0.0)
        reach = float(np.ptp(scaled))
        scaled = np.append(scaled, np.nan)[read.where]
        bins = Aspect(level[read.where], absent, None, log_flat[read.where], middles, scaled, reach)
        if len(distinct) <= FEW_VALUES:
            bins, few = None, bins
    elif len(distinct) and all(isinstance(v, str) for v in distinct):
        if is_asked:
            of, misspelt[:-1] = misspellings(list(distinct), np.bincount(codes))
            meant[:-1] = np.where(of < 0, meant[:-1], of)
        of, known = pd.factorize(np.array([pattern(v) for v in distinct], dtype=object))
        if len(distinct) > FEW_VALUES and 1 < len(known) < len(codes) / 2:
            patterns = Aspect(np.append(of, len(known))[where], absent)
    unreadable = np.zeros(len(where), bool) if words is None else pd.notna(words)
    own = Aspect(where, absent, places)
    return ColumnViews(column, own, patterns, bins, few, meant[where], misspelt[where], unreadable)


def _on_scale(numbers: Floats) -> Floats:
    """Numbers (n,), or their logarithms if these are the more likely ones to be normal, far ones left aside."""
    z = numbers / np.abs(numbers).max()
    if z.min() > 0:
        low, high = np.quantile(z, ENDS)
        logs = np.log(z)
        inside = (low <= z) & (z <= high)
        if logs[inside].std() * math.exp(logs[inside].mean()) < z[inside].std():
            return logs
    return z


def _binned(z: Floats) -> tuple[Ints, Floats]:
    """Bins (n,) of numbers, the outer ones with tails, and the log of a flat density over that within the bin."""
    u, counts = np.unique(z, return_counts=True)
    n_bins = max(1, min(N_BINS, len(z) // BIN_ROWS))
    of = pd.factorize((np.cumsum(counts) - counts / 2) * n_bins // len(z))[0]
    edges = ((u[1:] + u[:-1]) / 2)[np.diff(of) > 0]
    level, reach = of[np.searchsorted(u, z)], u[-1] - u[0] or 1.0
    width = np.diff(edges, prepend=u[0], append=u[-1])
    log_density = -np.log(np.maximum(width, reach * 1e-9))[level]
    if len(edges):
        for end, edge, sign in ((0, edges[0], -1), (of[-1], edges[-1], 1)):
            n = counts[of == end]
            among = np.repeat(
                sign * (u[of == end] - edge), np.minimum(n, max(OFTEN, int(n.mean())))
            )
            log_density[level == end] = _log_tail(sign * (z[level == end] - edge), among)
    return level, -math.log(reach) - log_density


def _log_tail(distance: Floats, among: Floats) -> Floats:
    """Log-density of a generalised Pareto distribution with the median and upper quartile of distances ``among`` them.

    Its shape is shrunk towards 0, an exponential distribution, by its standard error; where it is below 0 by two of
    these, as at the ends of evenly distributed numbers, a tenth is left to that.
    """
    # a number beyond all scale leaves no distance between the others
    half, most = np.maximum(np.quantile(among, [0.5, 0.75]), 1e-300)
    error = math.sqrt(3 / len(among)) / math.log(2) ** 2
    shape = math.log2(min(max(most / half - 1, 0.5), HEAVIEST))
    shape = max(shape, 0) / (1 + (error / SHAPES) ** 2) + min(shape + 2 * error, 0) or 1e-6
    scale = half * shape / (2**shape - 1)
    with np.errstate(divide="ignore"):
        inside = np.log(np.maximum(1 + shape * distance / scale, 0.0))
    log_density = -math.log(scale) - (1 / shape + 1) * inside
    if shape > 0:
        return log_density
    scale = half / math.log(2)
    return np.logaddexp(
        math.log(0.9) + log_density, math.log(0.1) - math.log(scale) - distance / scale
    )


# -- cells of a column ----------------------------------------------------------------------------------


def nearest_contexts(
    views: list[ColumnViews], contexts: list[Context], unit: Ints
) -> list[list[int]]:
    """The contexts by which each column is judged: all, or of very many those with the largest Goodman-Kruskal tau."""
    if len(contexts) <= MOST_CANDIDATES:
        return [list(range(len(contexts)))] * len(views)
    n_kept = max(MOST_CONTEXTS, MOST_CANDIDATES * BESIDE // max(len(contexts), BESIDE))
    codes = np.column_stack([(v.bins or v.values).codes.astype(np.int32) for v in views])
    equal = [np.bincount(c) / len(c) for c in codes.T]
    base = np.array([share @ share for share in equal])
    best, near = np.full((n_kept, len(views)), -1.0), np.zeros((n_kept, len(views)), np.int32)
    for start in range(0, len(contexts), BESIDE // 4):
        block = contexts[start : start + BESIDE // 4]
        beside = slice(max(block[0].column - BESIDE, 0), block[-1].column + BESIDE)
        tau = np.zeros((len(block), base[beside].size))
        for row, context in zip(tau, block, strict=True):
            for of in {id(a): a for a in (context.values, context.bins)}.values():
                order = np.lexsort((unit, of.codes))
                one, two = order[:-1], order[1:]
                kept = (of.codes[one] == of.codes[two]) & (unit[one] != unit[two]) & ~of.absent[one]
                at = np.flatnonzero(kept)
                at = at[np.linspace(0, len(at) - 1, min(len(at), PAIRS)).astype(int)]
                if len(at) > FEW_VALUES:
                    rate = (codes[one[at], beside] == codes[two[at], beside]).mean(0)
                    gain = (rate - base[beside]) / np.maximum(1 - base[beside], 1e-9)
                    np.maximum(row, gain, out=row)
            row[context.column - beside.start] = -1
        tried = np.broadcast_to(np.arange(start, start + len(block), dtype=np.int32), tau.T.shape).T
        tau, tried = np.vstack([best[:, beside], tau]), np.vstack([near[:, beside], tried])
        order = np.argsort(-tau, 0, kind="stable")[:n_kept]
        best[:, beside] = np.take_along_axis(tau, order, 0)
        near[:, beside] = np.take_along_axis(tried, order, 0)
    return [sorted(set(of.tolist())) for of in near.T]
