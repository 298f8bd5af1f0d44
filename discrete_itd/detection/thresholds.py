r"""Alarm thresholds from calibration scores, each with the uncertainty that the calibration set leaves.

An alarm at a conformal p-value :math:`p \le \alpha` (:mod:`discrete_itd.detection.conformal`, eq. (7)) is a score below
the k-th smallest of n calibration scores, :math:`k = \lfloor \alpha (n + 1) \rfloor`. Given the calibration set, the
false-alarm rate follows :math:`\mathrm{Beta}(k, n + 1 - k)` if no two scores are equal.

With ties, an alarm needs a score strictly below the k-th smallest, and only :math:`j \le k - 1` calibration scores are
below it. The false-alarm rate then lies between the j-th and the (j+1)-th of n uniform order statistics. It is stated
as :math:`(j + 1)/(n + 1)`, at most k/(n + 1), with the Clopper-Pearson interval for j of n.

References
----------
Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
arXiv:2104.08279: the distribution of the rate given the calibration set.
Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.detection.conformal import Scores
from discrete_itd.validation import check_positive, check_share

CONFIDENCE = 0.95  # of intervals
MOST_COUNTED = 100_000  # rows per day, above which the alarms of a day vary no more than their rate


@dataclass(frozen=True)
class Threshold:
    """An alarm threshold and its false-alarm rate.

    Attributes
    ----------
    offset : float
        A score below it raises an alarm, in nats.
    false_alarm_rate : float
        Expected share of inliers that raise an alarm; if scores have ties, overstated by at most 1 / (n + 1).
    low, high : float
        95 % interval of the rate given this calibration set. Both hold for rows that are independent of one another and
        follow the distribution of the calibration rows.
    n_calibration : int
        Number of calibration rows.
    alarms_per_day : (float, float, float), optional
        Expected number of false alarms per day, and the 95 % interval of one day's count.
    cost : (float, float, float), optional
        Expected cost per row, and its 95 % interval.
    contaminated : bool
        Whether the calibration rows contain anomalies. The rate is then that of all calibration rows: the rate of
        inliers is lower if anomalies score lower, and otherwise at most 1 / (1 - e) times as high, with e the share of
        anomalies.
    """

    offset: float
    false_alarm_rate: float
    low: float
    high: float
    n_calibration: int
    alarms_per_day: tuple[float, float, float] | None = None
    cost: tuple[float, float, float] | None = None
    contaminated: bool = False

    def __str__(self) -> str:
        text = f"alarm below {self.offset:.2f} nats"
        if self.offset == -math.inf:
            text = "no alarm: none is worth its check"
        elif not self.n_calibration:
            return f"{text}: set on rows used in the fit, so more than the stated share of new rows may raise an alarm"
        else:
            whose = "inliers"
            if self.contaminated:
                whose = "the calibration rows, anomalies among them"
            text += (
                f": {_percent(self.false_alarm_rate)} of {whose} ({_percent(self.low)} to"
                f" {_percent(self.high)}, from {self.n_calibration} calibration rows)"
            )
        if self.alarms_per_day is not None:
            expected, low, high = self.alarms_per_day
            text += f"; {expected:.4g} false alarms per day ({low:.4g} to {high:.4g})"
        if self.cost is not None:
            text += "; cost per row {:.4g} ({:.4g} to {:.4g})".format(*self.cost)
        return text

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Threshold:
        """The threshold of which :func:`dataclasses.asdict` made a dict, after a round trip through JSON.

        Raises
        ------
        LookupError, TypeError, ValueError
            If the dict is malformed.
        """
        offset, *rates = (float(kept[f]) for f in ("offset", "false_alarm_rate", "low", "high"))
        several = [kept[f] and tuple(map(float, kept[f])) for f in ("alarms_per_day", "cost")]
        if math.isnan(offset) or any(t is not None and len(t) != 3 for t in several):
            raise ValueError("its threshold is malformed")
        contaminated = kept.get("contaminated", False) is True
        rest: tuple[Any, ...] = (*rates, int(kept["n_calibration"]), *several, contaminated)
        return cls(offset, *rest)


def at_rate(
    calibration: Scores,
    rate: float,
    *,
    confidence: float | None = None,
    rows_per_day: float | None = None,
) -> Threshold:
    """The threshold with a given false-alarm rate.

    Parameters
    ----------
    calibration : ndarray, shape (n,)
        Scores of inliers that took no part in the fit.
    rate : float
        Between 0 and 1.
    confidence : float, optional
        By default the rate holds on average over calibration sets. With a confidence such as 0.95 it holds for this
        calibration set with that confidence, and the threshold is lower.
    rows_per_day : float, optional
        Number of rows per day, to state false alarms per day.

    Raises
    ------
    ValueError
        If there are too few calibration rows to guarantee so small a rate.
    """
    rate, n = check_share("false_alarm_rate", rate), len(calibration)
    if rows_per_day is not None:
        check_positive("rows_per_day", rows_per_day)
        if not 1 <= rows_per_day < math.inf:
            raise ValueError(f"rows_per_day must be at least 1, and finite, got {rows_per_day!r}")
    if confidence is None:
        promise, fewest = "", math.ceil(1 / rate - 1 - 1e-9)
        k = math.floor(rate * (n + 1) + 1e-9)  # eq. (7); 0.01 * 300 is a little less than 3
    else:
        promise = f" with confidence {check_share('confidence', confidence):g}"
        # the rate of k = 1 is at most rate with probability P(Beta(1, n) <= rate) = 1 - (1 - rate)^n
        fewest = math.ceil(math.log(1 - confidence) / math.log1p(-rate) - 1e-9)
        ranks = np.arange(1, n + 1)
        k = int(np.count_nonzero(stats.beta.cdf(rate, ranks, n + 1 - ranks) >= confidence))
    if k < 1:
        raise ValueError(
            f"false_alarm_rate={rate:g}: {n} calibration rows cannot guarantee so small a rate{promise};"
            f" it takes {fewest}"
        )
    return at_rank(calibration, k, rows_per_day)


def at_lowest_rate(calibration: Scores, rate: float) -> Threshold:
    """The threshold of :func:`at_rate`, or of the smallest guaranteed rate if the calibration rows are too few.

    Warns
    -----
    UserWarning
        If ``rate`` cannot be guaranteed.
    """
    least = 1 / (len(calibration) + 1)
    if rate < least:
        warnings.warn(
            f"false_alarm_rate={rate:g} cannot be guaranteed by {len(calibration)} calibration rows:"
            f" the threshold is set at {least:.3g}, the smallest rate that can be",
            stacklevel=4,
        )
    return at_rate(calibration, max(rate, least))


def at_offset(calibration: Scores, offset: float) -> Threshold:
    """A threshold that was chosen otherwise, with the share of calibration scores below it and its interval."""
    n = len(calibration)
    if not n:
        return Threshold(offset, math.nan, 0.0, 1.0, 0)
    below = int((calibration < offset).sum())
    interval = stats.binomtest(below, n).proportion_ci(CONFIDENCE)
    return Threshold(offset, below / n, float(interval.low), float(interval.high), n)


def effective_rank(calibration: Scores, offset: Scores) -> NDArray[np.int_]:
    """One more than the number of calibration scores (sorted) strictly below each offset."""
    return 1 + np.searchsorted(calibration, offset, side="left")


def at_rank(calibration: Scores, k: int, rows_per_day: float | None = None) -> Threshold:
    """The threshold at the k-th smallest calibration score."""
    n, ordered = len(calibration), np.sort(calibration)
    offset = ordered[k - 1]
    k = int(effective_rank(ordered, offset))
    # with ties, the rate may be below the k-th uniform order statistic, by the mass at the offset
    low_k = k - bool((np.diff(ordered) == 0).any())
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low = float(stats.beta.ppf(tails[0], low_k, n + 1 - low_k)) if low_k else 0.0
    high = float(stats.beta.ppf(tails[1], k, n + 1 - k))
    per_day = None
    if rows_per_day is not None:
        fewest, most = low * rows_per_day, high * rows_per_day
        if rows_per_day <= MOST_COUNTED:  # a larger volume's counts add nothing to the interval
            m = round(rows_per_day)
            fewest = stats.betabinom(m, low_k, n + 1 - low_k).ppf(tails[0]) if low_k else 0.0
            most = stats.betabinom(m, k, n + 1 - k).ppf(tails[1])
        per_day = k / (n + 1) * rows_per_day, float(fewest), float(most)
    return Threshold(float(offset), k / (n + 1), low, high, n, per_day)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
