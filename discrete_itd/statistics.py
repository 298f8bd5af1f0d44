"""Confidence intervals, and numbers as text."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95  # coverage of every interval


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of values of shape (N,) and its interval by Student's t; the whole line if N is 1."""
    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * stats.sem(values) if n > 1 else np.inf
    return Interval(mean, mean - float(half), mean + float(half))


def share_interval(count: int, n: int) -> Interval:
    """The share of ``count`` in n and its interval by Clopper and Pearson: coverage is at least 95 % for every n."""
    low, high = stats.binomtest(count, n).proportion_ci(CONFIDENCE)
    return Interval(count / n, float(low), float(high))


def p_value_band(level: np.ndarray, n: int, n_calibration: int) -> tuple[np.ndarray, np.ndarray]:
    """Range of the share of n inliers with a p-value up to each level (L,), in 95 % of tables: two arrays (L,).

    As p-values are ranks among ``n_calibration`` rows, the count is beta-binomial (Vovk 2012, arXiv:1209.2673,
    proposition 2a).
    """
    quantiles = 0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2
    rank = np.floor(level * (n_calibration + 1) + 1e-9).astype(int)
    ranks, place = np.unique(np.clip(rank, 1, n_calibration), return_inverse=True)
    log_factorial = special.gammaln(np.arange(1, n + n_calibration + 2))
    counts = []
    for k in ranks:  # parameters are integers, so a table is exact; scipy's quantiles take seconds
        ways, others = log_factorial[k - 1 : k + n], log_factorial[n_calibration - k :][: n + 1]
        log_p = ways + others[::-1] - log_factorial[: n + 1] - log_factorial[n::-1]
        below = np.exp(log_p - special.logsumexp(log_p)).cumsum()
        counts.append(np.searchsorted(below, quantiles).clip(max=n))
    count = np.array(counts).T[:, place]
    low, high = np.where(rank < 1, 0, np.where(rank > n_calibration, n, count)) / n
    return low, high


# -- numbers as text --------------------------------------------------------------------------------


def count(n: int, what: str) -> str:
    """A number with its noun ``what``, in the plural unless it is 1."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """A share in per cent with three digits, never rounded to 0; empty if it is NaN."""
    if math.isnan(share):
        return ""
    return "<0.01 %" if 0 < share < 5e-5 else f"{100 * share:.3g} %"


def plus_minus(mean: float, stderr: float) -> str:
    """A mean in nats with its standard error, if there is one."""
    return f"{mean:.3f} nats" if math.isnan(stderr) else f"{mean:.3f} ± {stderr:.3f} nats"
