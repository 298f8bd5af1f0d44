"""How many alarms to expect among new rows, with an interval that is stated beforehand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
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
