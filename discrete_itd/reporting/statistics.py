"""Confidence intervals, and areas under curves."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

LEVEL = 0.95  # of all intervals
N_RESAMPLES = 400  # of a bootstrap


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of values of shape (N,) and its interval by Student's t; the whole line if N is 1."""
    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * stats.sem(values) if n > 1 else np.inf
    return Interval(mean, mean - float(half), mean + float(half))


def share_interval(count: int, n: int) -> Interval:
    """The share of ``count`` in n and its interval by Clopper and Pearson: coverage is at least 95 % for every n."""
    low, high = stats.binomtest(count, n).proportion_ci(LEVEL)
    return Interval(count / n, float(low), float(high))


def auroc_interval(score: np.ndarray, is_positive: np.ndarray) -> Interval:
    r"""The area under the ROC curve of a score that is higher for positives, and its interval.

    The interval holds the areas :math:`\theta` from which the measured one is at most 1.96 standard errors away, of the
    variance :math:`\theta (1-\theta) (1 + N (\frac{1-\theta}{2-\theta} + \frac{\theta}{1+\theta})) / (mn)` with
    :math:`N = (m + n)/2 - 1`. It has a length also where all m positives are above all n others.

    References
    ----------
    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 2006, method 5.
    """
    m, n = int(is_positive.sum()), int((~is_positive).sum())
    rank_sum = stats.rankdata(score)[is_positive].sum()
    area = float((rank_sum - m * (m + 1) / 2) / (m * n))
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))

    def beyond(theta: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (area - theta) ** 2 - z**2 * theta * (1 - theta) * spread / (m * n)

    # at 0 and 1 themselves the variance is 0
    low = optimize.brentq(beyond, 0.0, min(area, 1 - 1e-9)) if area > 0 else 0.0
    high = optimize.brentq(beyond, max(area, 1e-9), 1.0) if area < 1 else 1.0
    return Interval(area, float(cast(float, low)), float(cast(float, high)))


def precision_interval(score: np.ndarray, is_positive: np.ndarray) -> Interval:
    """The average precision of a score that is higher for positives, and its interval.

    Positives and negatives are resampled separately (bootstrap); from 0 to 1 if there is only one of either.
    """
    values, place = np.unique(-score, return_inverse=True)  # ties count together

    def average_precision(positive: np.ndarray, other: np.ndarray) -> float:
        gained, lost = (np.bincount(part, minlength=len(values)) for part in (positive, other))
        hits = gained.cumsum()
        return float((gained * hits / np.maximum(hits + lost.cumsum(), 1)).sum() / hits[-1])

    parts = place[is_positive], place[~is_positive]
    value = average_precision(*parts)
    if min(map(len, parts)) < 2:
        return Interval(value, 0.0, 1.0)
    low, high = stats.bootstrap(
        parts, average_precision, n_resamples=N_RESAMPLES, batch=1, vectorized=False,
        confidence_level=LEVEL, method="percentile", random_state=0,  # pyright: ignore[reportCallIssue]
    ).confidence_interval  # fmt: skip
    return Interval(value, float(low), float(high))


def p_value_band(
    level: np.ndarray, n: int, n_calibration: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Range of the share of n inliers with a p-value up to each level (L,), in 95 % of tables: two arrays (L,).

    If p-values are ranks among ``n_calibration`` rows, the count is beta-binomial (Vovk 2012, arXiv:1209.2673,
    proposition 2a); by default it is binomial.
    """
    quantiles = np.array([[0.5 - LEVEL / 2], [0.5 + LEVEL / 2]])
    if n_calibration is None:
        low, high = stats.binom.ppf(quantiles, n, level) / n
        return low, high
    rank = np.floor(level * (n_calibration + 1) + 1e-9)
    k = np.clip(rank, 1, n_calibration)
    count = stats.betabinom.ppf(quantiles, n, k, n_calibration + 1 - k)
    low, high = np.where(rank < 1, 0, np.where(rank > n_calibration, n, count)) / n
    return low, high


def half_error(curve: pd.DataFrame, name: str) -> np.ndarray:
    """Half the SNR times the squared error in column ``name`` of an ``mse_curve``: nats per unit of log SNR."""
    return 0.5 * np.exp(curve["logsnr"].to_numpy()) * curve[name].to_numpy()


def curve_areas(curve: pd.DataFrame) -> tuple[float, float]:
    """Areas in nats under :func:`half_error` of the model and of independent columns, equation (3)."""
    x, names = curve["logsnr"].to_numpy(), ("mse", "mse_independent")
    own, independent = (float(integrate.trapezoid(half_error(curve, name), x)) for name in names)
    return own, independent
