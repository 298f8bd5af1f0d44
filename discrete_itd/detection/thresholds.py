r"""Alarm thresholds from calibration scores, each with its uncertainty given the calibration set.

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
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.detection.conformal import Scores
from discrete_itd.storage.stored import AnyFloat
from discrete_itd.validation import check_integer, check_positive, check_share, warn

CONFIDENCE = 0.95  # of intervals
MOST_COUNTED = 100_000  # rows per day; beyond it, counts add no uncertainty to the rate


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
    ranks : (int, int)
        Ranks among the calibration scores, counted from the lowest, between which the offset lies; equal if it is one
        of them and no two scores are equal. A rank of 0 is below all of them.
    alarms_per_day : (float, float, float), optional
        Expected number of false alarms per day, and the 95 % interval of one day's count.
    cost : (float, float, float), optional
        Expected cost per row, and an approximate 95 % interval, which covered it in 95 to 100 % of simulations.
    contaminated : bool
        Whether the calibration rows contain anomalies. The rate is then that of all rows, if anomalies are as frequent
        among new ones: the rate of inliers is lower if anomalies score lower, and otherwise at most 1 / (1 - e) times
        as high, with e the share of anomalies.
    group_offsets : tuple of float
        Offsets of the groups that are compared with their own calibration rows, of a detector with ``given``; the other
        numbers are those of all calibration rows together.
    n_new : int
        Number of calibration rows that equal no row that was fitted to.
    rate_if_new : (float, float, float), optional
        Share of these that raise an alarm, and its 95 % interval: the false-alarm rate if new rows repeat none of those
        that were fitted to, as where rows are copies of records. None if no calibration row does, or all.
    """

    offset: AnyFloat
    false_alarm_rate: AnyFloat
    low: AnyFloat
    high: AnyFloat
    n_calibration: int
    ranks: tuple[int, int] = (0, 1)
    alarms_per_day: tuple[AnyFloat, AnyFloat, AnyFloat] | None = None
    cost: tuple[AnyFloat, AnyFloat, AnyFloat] | None = None
    contaminated: bool = False
    group_offsets: tuple[AnyFloat, ...] = ()
    n_new: int = 0
    rate_if_new: tuple[AnyFloat, AnyFloat, AnyFloat] | None = None

    def __post_init__(self) -> None:
        if any(map(math.isnan, (self.offset, *self.group_offsets))):
            raise ValueError("an offset is NaN")
        if not 0 <= self.ranks[0] <= self.ranks[1] <= self.n_calibration + 1:
            raise ValueError(f"ranks are {self.ranks}")

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
                f": {percent(self.false_alarm_rate)} of {whose} ({percent(self.low)} to"
                f" {percent(self.high)}, from {self.n_calibration} calibration rows)"
            )
        if self.rate_if_new is not None and self.rate_if_new[1] > self.false_alarm_rate:
            rate, low, high = map(percent, self.rate_if_new)
            text += f"; of the {self.n_new} that equal no row of the fit, {rate} ({low} to {high})"
        if self.alarms_per_day is not None:
            expected, low, high = self.alarms_per_day
            text += f"; {expected:.4g} false alarms per day ({low:.4g} to {high:.4g})"
        if self.cost is not None:
            text += "; cost per row {:.4g} ({:.4g} to {:.4g})".format(*self.cost)
        if self.group_offsets:
            n = len(self.group_offsets)
            text += f"; {n} group{'s have offsets' if n > 1 else ' has an offset'} of {'their' if n > 1 else 'its'} own"
        return text

    def alarms_expected(self, n_rows: int, *, level: float = CONFIDENCE) -> AlarmCount:
        """Number of alarms among some new inliers, with a prediction interval.

        Parameters
        ----------
        n_rows : int
            Number of new rows, of a day or a month.
        level : float
            The probability, at least, with which the number of alarms lies in the interval, its ends included: in
            finite samples and whatever the model, if these rows are exchangeable with the calibration rows.

        Raises
        ------
        ValueError
            If there are no calibration rows, or groups have offsets of their own.

        Notes
        -----
        If all n + m rows are exchangeable and no two scores are equal, the number of the m new ones that are below the
        k-th smallest of the n others is beta-binomial: that many white balls in m draws from Pólya's urn that holds k
        white ones and n + 1 - k others. With ties, or an offset between two calibration scores, the number lies between
        two of these, of k - 1 and k.

        Examples
        --------
        >>> at_offset(np.arange(999.0), 9.0).alarms_expected(1000)
        AlarmCount(mean=10.0, low=3.0, high=20.0)
        """
        if not self.n_calibration:
            raise ValueError("there are no calibration rows: fit with calibration_fraction above 0")
        if self.group_offsets:
            raise ValueError("groups have offsets of their own: alarms depend on their rows")
        check_integer("n_rows", n_rows, 1)
        n, m, tails = self.n_calibration, int(n_rows), (1 - check_share("level", level)) / 2
        fewest, k = self.ranks
        low, high = 0.0, float(m)
        if fewest:
            low = stats.betabinom(m, fewest, n + 1 - fewest).ppf(tails)
        if k <= n:
            high = stats.betabinom(m, k, n + 1 - k).ppf(1 - tails)
        return AlarmCount(min(m, m * k / (n + 1)), float(low), float(high))

    def among(self, calibration: Scores, repeats: NDArray[np.bool_]) -> Threshold:
        """The threshold with its rate among the calibration rows that are not ``repeats`` (n,) of rows of the fit."""
        new = calibration[~repeats]
        if len(new) in (0, len(calibration)):
            return replace(self, n_new=len(new), rate_if_new=None)
        found = at_offset(new, self.offset)
        rates = found.false_alarm_rate, found.low, found.high
        return replace(self, n_new=len(new), rate_if_new=rates)


class AlarmCount(NamedTuple):
    """Number of new rows that raise an alarm: the expected number, and a prediction interval."""

    mean: float
    low: float
    high: float


def ranks_of(ordered: Scores, offset: float) -> tuple[int, int]:
    """:attr:`Threshold.ranks` of an offset among sorted calibration scores."""
    k = 1 + int(np.searchsorted(ordered, offset))
    is_between = k > len(ordered) or ordered[k - 1] != offset
    return k - bool(is_between or (np.diff(ordered) == 0).any()), k


def at_rate(
    calibration: Scores,
    rate: float,
    *,
    confidence: float | None = None,
    rows_per_day: float | None = None,
) -> Threshold:
    """The threshold with a given false-alarm rate; ``calibration`` are scores of inliers, (n,).

    See :meth:`discrete_itd.DiffusionOutlierDetector.threshold_at_rate`.
    """
    rate, n = check_share("rate", rate), len(calibration)
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
    return _at_rank(calibration, k, rows_per_day)


def at_lowest_rate(calibration: Scores, rate: float, name: str = "false_alarm_rate") -> Threshold:
    """The threshold of :func:`at_rate`, or of the smallest guaranteed rate if the calibration rows are too few.

    A UserWarning names the parameter ``name`` if its ``rate`` cannot be guaranteed.
    """
    least = 1 / (len(calibration) + 1)
    if rate < least:
        warn(
            f"{name}={rate:g} cannot be guaranteed by {len(calibration)} calibration rows:"
            f" the threshold is set at {least:.3g}, the smallest rate that can be"
        )
    return at_rate(calibration, max(rate, least))


def at_offset(calibration: Scores, offset: float) -> Threshold:
    """The threshold with a given offset, the share of calibration scores below it, and its interval."""
    n = len(calibration)
    if not n:
        return Threshold(offset, math.nan, 0.0, 1.0, 0)
    below = int((calibration < offset).sum())
    interval = stats.binomtest(below, n).proportion_ci(CONFIDENCE)
    ranks = ranks_of(np.sort(calibration), offset)
    return Threshold(offset, below / n, float(interval.low), float(interval.high), n, ranks)


def _at_rank(calibration: Scores, k: int, rows_per_day: float | None = None) -> Threshold:
    """The threshold at the k-th smallest calibration score."""
    n, ordered = len(calibration), np.sort(calibration)
    offset = float(ordered[k - 1])
    # with ties, the rate may be below the k-th uniform order statistic, by the mass at the offset
    low_k, k = ranks_of(ordered, offset)
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low = float(stats.beta.ppf(tails[0], low_k, n + 1 - low_k)) if low_k else 0.0
    high = float(stats.beta.ppf(tails[1], k, n + 1 - k))
    found = Threshold(offset, k / (n + 1), low, high, n, (low_k, k))
    if rows_per_day is None:
        return found
    fewest, most = low * rows_per_day, high * rows_per_day
    if rows_per_day <= MOST_COUNTED:  # otherwise counts add nothing to the interval
        _, fewest, most = found.alarms_expected(round(rows_per_day))
    return replace(found, alarms_per_day=(k / (n + 1) * rows_per_day, float(fewest), float(most)))


# -- the threshold of least expected cost ---------------------------------------------------------


def at_cost(
    calibration: Scores,
    miss_cost: float,
    check_cost: float,
    *,
    anomalies: Scores,
    prevalence: float,
) -> Threshold:
    r"""The threshold with the least expected cost; ``anomalies`` are scores, (A,).

    See :meth:`discrete_itd.DiffusionOutlierDetector.threshold_at_cost`. With alarms from a share :math:`\alpha` of the
    inliers and a share h of the anomalies, whose prevalence is :math:`\pi`, the expected cost per row is

    .. math:: c_{miss}\,\pi (1 - h) + c_{check} \bigl((1 - \pi)\,\alpha + \pi h\bigr),

    with :math:`\alpha` of each calibration score and h among the known anomalies. These also choose the threshold, so
    the stated cost is optimistic where they are few; its interval, from that of :math:`\alpha` and Clopper and
    Pearson's of h, is wide enough to allow for it.
    """
    for name, value in (("miss_cost", miss_cost), ("check_cost", check_cost)):
        check_positive(name, value)
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
    share, n = check_share("prevalence", prevalence), len(calibration)
    if not len(anomalies):
        raise ValueError("anomalies: at least one row is needed to weigh costs")

    def cost(alpha: Any, caught: Any) -> Any:
        """Cost per row, at shares of inliers and of anomalies that raise an alarm."""
        checks = (1 - share) * alpha + share * caught
        return miss_cost * share * (1 - caught) + check_cost * checks

    ordered = np.sort(calibration)
    ranks = 1 + np.searchsorted(ordered, ordered)  # one more than the scores strictly below
    alpha = np.append(0, ranks) / (n + 1)  # first that of no alarm
    n_caught = np.append(0, np.searchsorted(np.sort(anomalies), ordered))
    k = int(cost(alpha, n_caught / len(anomalies)).argmin())
    if not k:
        missed = miss_cost * share
        return Threshold(-math.inf, 0.0, 0.0, 0.0, n, cost=(missed, missed, missed))
    found, m = _at_rank(calibration, k), len(anomalies)
    h = stats.binomtest(int(n_caught[k]), m).proportion_ci(CONFIDENCE)
    interval = float(cost(found.low, h.high)), float(cost(found.high, h.low))
    return replace(found, cost=(float(cost(alpha[k], n_caught[k] / m)), *interval))


def percent(share: float) -> str:
    """A share in percent, with three digits."""
    return f"{100 * share:.3g} %"
