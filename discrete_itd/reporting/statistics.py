"""Confidence intervals and areas under curves."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

LEVEL = 0.95  # of all intervals


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of values of shape (N,) and its interval by Student's t; the whole line if N is 1."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def share_interval(count: int, n: int) -> Interval:
    """The share of ``count`` in n and its interval.

    References
    ----------
    Clopper & Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934): the coverage is at least
    95 % for every n.
    """
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
    ranks = stats.rankdata(score)
    area = float((ranks[is_positive].sum() - m * (m + 1) / 2) / (m * n))
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))

    def beyond(theta: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (area - theta) ** 2 - z**2 * theta * (1 - theta) * spread / (m * n)

    # at 0 and 1 themselves the variance is 0
    low = optimize.brentq(beyond, 0.0, min(area, 1 - 1e-9)) if area > 0 else 0.0
    high = optimize.brentq(beyond, max(area, 1e-9), 1.0) if area < 1 else 1.0
    return Interval(area, float(cast(float, low)), float(cast(float, high)))


def precision_interval(
    score: np.ndarray, is_positive: np.ndarray, n_bootstrap: int = 400, seed: int = 0
) -> Interval:
    """The average precision of a score that is higher for positives, and its interval.

    The interval is that of a bootstrap of the positives and of the others, each by themselves.
    """
    order = np.argsort(-score, kind="stable")
    score, is_positive = score[order], is_positive[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # of each group of ties

    def average_precision(weight: np.ndarray) -> float:
        total = np.cumsum(weight)[last]
        hits = np.cumsum(np.where(is_positive, weight, 0.0))[last]
        gained = np.diff(hits, prepend=0.0)
        return float((gained * hits / np.maximum(total, 1.0)).sum() / hits[-1])

    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_bootstrap):
        weight = np.zeros(len(score))
        for part in (np.flatnonzero(is_positive), np.flatnonzero(~is_positive)):
            weight[part] = np.bincount(
                random.integers(0, len(part), len(part)), minlength=len(part)
            )
        drawn.append(average_precision(weight))
    low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(average_precision(np.ones(len(score))), float(low), float(high))


def p_value_band(
    level: np.ndarray, n: int, n_calibration: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Range of the share of n inliers with a p-value up to each level, in 95 % of tables.

    Parameters
    ----------
    level : ndarray, shape (L,)
    n : int
    n_calibration : int, optional
        Number of calibration rows among which p-values are ranks. The count is then beta-binomial (Vovk 2012,
        arXiv:1209.2673, proposition 2a); otherwise it is binomial.

    Returns
    -------
    tuple of two ndarray, shape (L,)
    """
    if n_calibration is None:
        counts = [stats.binom.ppf(q, n, level) for q in (0.025, 0.975)]
    else:
        rank = np.floor(level * (n_calibration + 1) + 1e-9)
        inside = (rank >= 1) & (rank <= n_calibration)
        k = np.where(inside, rank, 1)
        counts = []
        for q in (0.025, 0.975):
            count = stats.betabinom.ppf(q, n, k, n_calibration + 1 - k)
            counts.append(np.where(inside, count, np.where(rank < 1, 0, n)))
    return counts[0] / n, counts[1] / n


def half_error(curve: pd.DataFrame, name: str) -> np.ndarray:
    """Half the SNR times the squared error in column ``name`` of an ``mse_curve``: nats per unit of log SNR."""
    return 0.5 * np.exp(curve["logsnr"].to_numpy()) * curve[name].to_numpy()


def curve_areas(curve: pd.DataFrame) -> tuple[float, float]:
    """Areas in nats under :func:`half_error` of the model and of independent columns, equation (3)."""
    x = curve["logsnr"].to_numpy()
    learned, independent = (
        float(integrate.trapezoid(half_error(curve, name), x))
        for name in ("mse", "mse_independent")
    )
    return learned, independent
