"""Gaps that mean something: which columns' missing cells carry information about other cells or gaps (21)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_ROWS = 8192  # most rows of a table that are examined
# a column is examined if it has at least this many missing and as many present cells
FEWEST_GAPS = 10
PSEUDO_COUNT = 1.0  # rows, with the column's overall share of gaps, that are added to each level


def sampled(n: int) -> np.ndarray:
    """Positions of the rows of a table of ``n`` that are looked at, in random order: always the same."""
    return np.random.default_rng(0).permutation(n)[:MOST_ROWS]


def evenly(n: int, most: int) -> np.ndarray:
    """At most so many of ``n`` positions, evenly spaced, in order."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def informative_gaps(x: np.ndarray, nominal: Sequence[bool], asked: Sequence[int]) -> list[int]:
    """Positions among the columns ``asked`` for of those whose gaps are predictable from another one's cell or gap.

    Of rows ``x`` (N, C) in random order: levels of ``nominal`` columns, or numbers; NaN where a cell is missing. The
    cheapest exact model of a gap: its share in each level of one other column, a number in bins, a gap as a level of
    its own. The column with the largest gain, Akaike's penalty taken off, in one half of the rows predicts the other
    half, and the reverse. A gap is informative if the held-out gain exceeds two of its standard errors.
    """
    level = [_levels(own, is_nominal) for own, is_nominal in zip(x.T, nominal, strict=True)]
    size = np.array([int(own.max(initial=0)) + 1 for own in level])
    start = np.concatenate(([0], size.cumsum()))
    x = x[: max(2 * FEWEST_GAPS, (1 << 23) // int(start[-1]))]  # bounds memory and time
    n = len(x)
    gaps = np.isnan(x[:, list(asked)])
    places = [k for k, m in enumerate(gaps.sum(0)) if min(m, n - m) >= FEWEST_GAPS]
    if not places:
        return []
    gaps = gaps[:, places].astype(np.float32)  # (N, g)
    at = np.stack([own[:n] + first for own, first in zip(level, start, strict=False)], 1)
    ones = np.zeros((n, start[-1]), dtype=np.float32)
    ones[np.arange(n)[:, None], at] = 1.0
    own = np.array(asked)[places]
    gain = np.zeros((n, len(places)))
    halves = np.arange(n) % 2 == 0
    for fitted in (halves, ~halves):
        log_ratio, gains = _fit(gaps[fitted], ones[fitted], size, start)
        gains[np.arange(len(own)), own] = -np.inf
        best = gains.argmax(1)  # (g,)
        rows = np.flatnonzero(~fitted)
        cell = at[rows][:, best]
        is_gap = gaps[rows].astype(int)
        gain[rows] = log_ratio[is_gap, np.arange(len(own)), cell]
    error = gain.std(0, ddof=1) / np.sqrt(n)
    return [place for place, ok in zip(places, gain.mean(0) > 2 * error, strict=True) if ok]


def _fit(
    gaps: np.ndarray, ones: np.ndarray, size: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log-ratios (2, g, T) of the probability of being there, or a gap, in rows of each level and in all rows.

    And the nats (g, C) by which each column predicts the rows they were counted in, less one for each free parameter.
    """
    share = (gaps.sum(0) + 0.5)[:, None] / (len(gaps) + 1)  # (g, 1)
    missing = (gaps.T @ ones).astype(float)
    total = ones.sum(0)
    p = (missing + PSEUDO_COUNT * share) / (total + PSEUDO_COUNT)
    log_ratio = np.log(np.stack([(1 - p) / (1 - share), p / share]))
    nats = missing * log_ratio[1] + (total - missing) * log_ratio[0]
    return log_ratio, np.add.reduceat(nats, start[:-1], axis=1) - (size - 1)


def _levels(x: np.ndarray, nominal: bool) -> np.ndarray:
    """Levels (N,) of a column's cells, at most 32 or eighths of the numbers: 0 for a gap."""
    out, there = np.zeros(len(x), dtype=np.int64), ~np.isnan(x)
    own = x[there]
    if not len(own):
        return out
    if nominal:
        _, code, count = np.unique(own, return_inverse=True, return_counts=True)
        rank = np.argsort(np.argsort(-count, kind="stable"))
        out[there] = 1 + rank[code].clip(max=31)
        return out
    edges = np.unique(np.quantile(own, np.arange(1, 8) / 8))
    out[there] = 1 + np.searchsorted(edges, own)
    return out
