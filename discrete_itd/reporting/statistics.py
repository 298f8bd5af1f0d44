"""Confidence intervals and areas under curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import integrate, stats

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
