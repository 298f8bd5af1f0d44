r"""Budgets of alarms: how many to expect among new rows, and a level that keeps to a rate whatever rows come.

A threshold keeps its false-alarm rate if new rows are exchangeable with the calibration rows, and under drift it does
not. :func:`adaptive_alarms` has alarms at p-values up to a level that is corrected after each row,

.. math:: \alpha_{t+1} = \alpha_t + \gamma\,(\alpha - \mathrm{alarm}_t),

so that among any T rows in any order the share of alarms is within
:math:`(\max(\alpha_1, 1 - \alpha_1) + \gamma) / (\gamma T)` of the rate :math:`\alpha` (Gibbs & Candès 2021,
proposition 4.1). It is a budget of all alarms, those of anomalies among them: what was usual of a changed stream raises
no alarm for long, and neither do anomalies that keep coming.

References
----------
Gibbs & Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021, arXiv:2106.00170.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.detection.conformal import Scores
from discrete_itd.validation import check_integer, check_share

CONFIDENCE = 0.95  # of intervals


class Alarms(NamedTuple):
    """How many of some new rows raise an alarm: the expected number, and the ends of an interval."""

    mean: float
    low: float
    high: float


def alarms_among(
    calibration: Scores, offset: float, n_rows: int, *, level: float = CONFIDENCE
) -> Alarms:
    """How many alarms new inliers will raise at a threshold.

    See :meth:`discrete_itd.DiffusionOutlierDetector.alarms_expected`; ``calibration`` are scores of inliers, (n,).

    Notes
    -----
    If all n + m rows are exchangeable and no two scores are equal, the number of the m new ones that are below the k-th
    smallest of the n others is beta-binomial: that many white balls in m draws from Pólya's urn that holds k white ones
    and n + 1 - k others. With ties, or an offset between two calibration scores, the number lies between two of these,
    of k - 1 and k.

    Examples
    --------
    >>> alarms_among(np.arange(999.0), 9.0, 1000)
    Alarms(mean=10.0, low=3.0, high=20.0)
    """
    check_integer("n_rows", n_rows, 1)
    n, m = len(calibration), int(n_rows)
    ordered, tails = np.sort(calibration), (1 - check_share("level", level)) / 2
    k = 1 + int(np.searchsorted(ordered, offset))
    if k > n:
        return Alarms(float(m), float(stats.betabinom(m, n, 1).ppf(tails)) if n else 0.0, float(m))
    fewest = k - bool(ordered[k - 1] != offset or (np.diff(ordered) == 0).any())
    low = stats.betabinom(m, fewest, n + 1 - fewest).ppf(tails) if fewest else 0.0
    high = stats.betabinom(m, k, n + 1 - k).ppf(1 - tails)
    return Alarms(m * k / (n + 1), float(low), float(high))


def adaptive_alarms(
    p: Scores, rate: float, *, step: float = 0.005, level: float | None = None
) -> tuple[NDArray[np.bool_], float]:
    """Alarms among rows in the order of time, whose share tends to a rate even under drift.

    Parameters
    ----------
    p : ndarray, shape (N,)
        p-values of the rows, as :meth:`discrete_itd.DiffusionOutlierDetector.p_values` gives them.
    rate : float
        The share of rows that may raise an alarm.
    step : float
        By how much of the last row's deviation from the rate the level is corrected: a larger one follows drift faster
        and has a level that varies more.
    level : float, optional
        What an earlier call returned, to go on with; by default the rate.

    Returns
    -------
    alarms : ndarray of bool, shape (N,)
    level : float
        The level for the next row.

    Examples
    --------
    >>> p = np.full(10_000, 0.001)  # a stream that is unlike all calibration rows
    >>> alarms, level = adaptive_alarms(p, 0.01)
    >>> alarms[:5].sum(), alarms[1000:].mean()
    (np.int64(2), np.float64(0.01))
    """
    rate, step = check_share("rate", rate), check_share("step", step)
    now = rate if level is None else float(level)
    alarms = np.zeros(len(p), dtype=bool)
    for i, one in enumerate(np.asarray(p, dtype=float).tolist()):
        alarms[i] = one <= now
        now += step * (rate - alarms[i])
    return alarms, float(now)
