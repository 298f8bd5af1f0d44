r"""Conformal p-values of anomaly scores, discoveries among a batch of rows, and alarm thresholds.

Scores are higher for more typical rows. Given the scores :math:`S_1 \dots S_n` of inliers that took no part in the fit,
a new row with score s has the split-conformal p-value

.. math:: p = \frac{1 + \#\{i : S_i \le s\}}{n + 1}. \qquad (7)

If the row is exchangeable with the calibration rows, :math:`P(p \le \alpha) \le \alpha` in finite samples, whatever the
model and the distribution, on average over calibration sets.

An alarm at :math:`p \le \alpha` is a score below the k-th smallest of n calibration scores, with
:math:`k = \lfloor \alpha (n + 1) \rfloor`. Given the calibration set, the false-alarm rate follows
:math:`\mathrm{Beta}(k, n + 1 - k)` if no two scores are equal. With ties, an alarm needs a score strictly below the
k-th smallest, and only :math:`j \le k - 1` calibration scores are below it. The false-alarm rate then lies between the
j-th and the (j+1)-th of n uniform order statistics. It is stated as :math:`(j + 1)/(n + 1)`, at most k/(n + 1), with
the Clopper-Pearson interval for j of n.

Two scores are equal if they differ by no more than their rounding error, which ``rounding`` bounds relative to :math:`1
+ |\text{score}|`. Calibration scores equal to the score of a row count as at least as extreme, so the p-value is
larger, never smaller; and an alarm is a score strictly below the threshold, a calibration score less its rounding error
(:func:`lowered`), so rows that are equal to it raise none. Where few rows are possible, many share a score: the
false-alarm rate is then below the one that was asked for, never above.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005: eq. (7) and its validity.
Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
arXiv:2104.08279: Benjamini-Hochberg on these p-values, and the distribution of the rate given the calibration set.
Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from discrete_itd.statistics import CONFIDENCE, percent, share_interval
from discrete_itd.storage.values import AnyFloat
from discrete_itd.validation import check_integer, check_positive, check_share, warn

Scores = NDArray[np.float64]


# -- p-values ---------------------------------------------------------------------------------------


def p_values(calibration: Scores, scores: Scores, *, rounding: float = 0.0) -> Scores:
    """Conformal p-values (N,) of rows by their ``scores`` (N,), eq. (7), between 1 / (n + 1) and 1.

    ``calibration`` (n,) are scores of inliers that took no part in the fit, and ``rounding`` bounds the relative
    rounding error of scores (see the module).

    Examples
    --------
    >>> p_values(np.arange(99.0), np.array([-1.0, 4.5, 200.0]))
    array([0.01, 0.06, 1.  ])
    """
    ordered, n = np.sort(lowered(calibration, rounding)), len(calibration)
    return (1 + np.searchsorted(ordered, scores, side="right")) / (n + 1)


def calibration_scores(detector: Any) -> Scores:
    """Scores of the calibration rows of a fitted detector; ValueError if there are none."""
    check_is_fitted(detector)
    if not len(detector.calibration_scores_):
        raise ValueError("there are no calibration rows: fit with calibration_fraction above 0")
    return detector.calibration_scores_


def lowered(calibration: Scores, rounding: float) -> Scores:
    """Calibration scores less their rounding error: a score below these is below the exact ones."""
    return calibration - np.where(np.isfinite(calibration), rounding * (1 + np.abs(calibration)), 0)


def discoveries(p: Scores, fdr: float) -> NDArray[np.bool_]:
    """Rows (N,) of a batch to call anomalies, among which at most a share ``fdr`` is expected to be inliers.

    The procedure of Benjamini and Hochberg on the p-values ``p`` (N,) of the batch. Conformal p-values share their
    calibration set, which makes them positively dependent in the way under which the procedure still controls the rate,
    if the inliers of the batch and the calibration rows are independent and identically distributed (Bates et al. 2023,
    theorem 2; ties only enlarge p-values).
    """
    fdr = check_share("fdr", fdr)
    return stats.false_discovery_control(p) <= fdr if len(p) else np.zeros(0, dtype=bool)


# -- thresholds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """An alarm threshold and its false-alarm rate.

    Attributes
    ----------
    offset : float
        Score below which an alarm is raised, nats.
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
    cost : (float, float, float), optional
        Expected cost per row, and an approximate 95 % interval, which covered it in 95 to 100 % of simulations.
    contaminated : bool
        Whether the calibration rows contain anomalies. The rate is then of all rows, if anomalies are as frequent
        among new ones: the rate of inliers is lower if anomalies score lower, and otherwise at most 1 / (1 - e) times
        as high, with e the share of anomalies.
    stratum_offsets : tuple of float
        Offsets of the strata of a detector with ``given`` that have their own calibration rows; the other numbers are
        of all calibration rows together.
    n_new : int
        Number of calibration rows that equal no row of the fit.
    rate_if_new : (float, float, float), optional
        Share of these that raise an alarm, and its 95 % interval: the false-alarm rate if no new row repeats a row of
        the fit, as copies of records would. None if no calibration row is new, or all are.
    """

    offset: AnyFloat
    false_alarm_rate: AnyFloat
    low: AnyFloat
    high: AnyFloat
    n_calibration: int
    ranks: tuple[int, int] = (0, 1)
    cost: tuple[AnyFloat, AnyFloat, AnyFloat] | None = None
    contaminated: bool = False
    stratum_offsets: tuple[AnyFloat, ...] = ()
    n_new: int = 0
    rate_if_new: tuple[AnyFloat, AnyFloat, AnyFloat] | None = None

    def __post_init__(self) -> None:
        if any(map(math.isnan, (self.offset, *self.stratum_offsets))):
            raise ValueError("an offset is NaN")
        if not 0 <= self.ranks[0] <= self.ranks[1] <= self.n_calibration + 1:
            raise ValueError(f"ranks are {self.ranks}")

    def __str__(self) -> str:
        never = self.offset == -math.inf
        return f"{'no alarm' if never else f'alarm below {self.offset:.2f} nats'}: {self.meaning}"

    @property
    def meaning(self) -> str:
        """How often the threshold raises an alarm, with intervals, and what it costs, in words."""
        if self.offset == -math.inf:
            text = "none is worth its check"
        elif not self.n_calibration:
            return "set on rows used in the fit, so more than the stated share of new rows may raise an alarm"
        else:
            whose = "the calibration rows, anomalies among them" if self.contaminated else "inliers"
            text = (
                f"{percent(self.false_alarm_rate)} of {whose} ({percent(self.low)} to"
                f" {percent(self.high)}, from {self.n_calibration} calibration rows)"
            )
        if self.rate_if_new is not None and self.rate_if_new[1] > self.false_alarm_rate:
            rate, low, high = map(percent, self.rate_if_new)
            text += f"; of the {self.n_new} that equal no row of the fit, {rate} ({low} to {high})"
        if self.cost is not None:
            text += "; cost per row {:.4g} ({:.4g} to {:.4g})".format(*self.cost)
        if self.stratum_offsets:
            n = len(self.stratum_offsets)
            text += f"; {n} {'strata have offsets of their' if n > 1 else 'stratum has an offset of its'} own"
        return text

    def alarms_expected(self, n_rows: int, *, level: float = CONFIDENCE) -> AlarmCount:
        """Number of alarms among ``n_rows`` new inliers, with a prediction interval.

        The number lies in the interval, its ends included, with a probability of at least ``level``: in finite samples
        and whatever the model, if these rows are exchangeable with the calibration rows. A ValueError if there are no
        calibration rows, or strata have offsets of their own.

        Notes
        -----
        If all n + m rows are exchangeable and no two scores are equal, the number of the m new ones below the k-th
        smallest of the n others is beta-binomial, like the white balls in m draws from Pólya's urn that holds k white
        ones and n + 1 - k others. With ties, or an offset between two calibration scores, the number lies between
        two of these, of k - 1 and k.

        Examples
        --------
        >>> at_offset(np.arange(999.0), 9.0).alarms_expected(1000)
        AlarmCount(mean=10.0, low=3.0, high=20.0)
        """
        if not self.n_calibration:
            raise ValueError("there are no calibration rows: fit with calibration_fraction above 0")
        if self.stratum_offsets:
            raise ValueError("strata have offsets of their own: alarms depend on their rows")
        check_integer("n_rows", n_rows, 1)

        n, m, tails = self.n_calibration, int(n_rows), (1 - check_share("level", level)) / 2
        fewest, k = self.ranks
        low, high = 0.0, float(m)
        if fewest:
            low = stats.betabinom(m, fewest, n + 1 - fewest).ppf(tails)
        if k <= n:
            high = stats.betabinom(m, k, n + 1 - k).ppf(1 - tails)
        return AlarmCount(min(m, m * k / (n + 1)), float(low), float(high))

    def is_of(self, calibration: Scores) -> bool:
        """Whether rate, interval and ranks are those of the offset among these calibration scores, (n,)."""
        n, ordered = len(calibration), np.sort(calibration)
        k = 1 + int(np.searchsorted(ordered, self.offset))
        known = [at_offset(calibration, self.offset)]
        if k <= n:
            known.append(_at_rank(calibration, k))
        if self.offset == -math.inf:
            known.append(Threshold(self.offset, 0.0, 0.0, 0.0, n))
        rates = self.false_alarm_rate, self.low, self.high
        return any(
            (self.n_calibration, self.ranks) == (other.n_calibration, other.ranks)
            and np.allclose(rates, (other.false_alarm_rate, other.low, other.high), equal_nan=True)
            for other in known
        )

    def among(self, calibration: Scores, repeats: NDArray[np.bool_]) -> Threshold:
        """The threshold with its rate among the calibration rows that are not ``repeats`` (n,) of rows of the fit."""
        new = calibration[~repeats]
        if len(new) in (0, len(calibration)):
            return replace(self, n_new=len(new), rate_if_new=None)
        among_new = at_offset(new, self.offset)
        rates = among_new.false_alarm_rate, among_new.low, among_new.high
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


def at_rate(calibration: Scores, rate: float, *, confidence: float | None = None) -> Threshold:
    """The threshold with a given false-alarm rate; ``calibration`` are scores of inliers, (n,).

    See :meth:`discrete_itd.DiffusionOutlierDetector.threshold_at_rate`.
    """
    rate, n = check_share("rate", rate), len(calibration)
    if confidence is None:
        promise, fewest = "", math.ceil(1 / rate - 1 - 1e-9)
        k = math.floor(rate * (n + 1) + 1e-9)  # eq. (7); rounding makes 0.01 * 300 less than 3
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
    return _at_rank(calibration, k)


def at_lowest_rate(calibration: Scores, rate: float, name: str = "false_alarm_rate") -> Threshold:
    """The threshold of :func:`at_rate`, or of the smallest guaranteed rate if the calibration rows are too few.

    A UserWarning names the parameter ``name`` if its ``rate`` cannot be guaranteed.
    """
    least = 1 / (len(calibration) + 1)
    if rate < least:
        n = len(calibration)
        warn(
            f"{name}={rate:g} cannot be guaranteed by {n} calibration row{'s' * (n != 1)}:"
            f" the threshold is set at {least:.3g}, the smallest rate that can be"
        )
    return at_rate(calibration, max(rate, least))


def at_offset(calibration: Scores, offset: float) -> Threshold:
    """The threshold with a given offset, the share of calibration scores below it, and its interval."""
    n = len(calibration)
    if not n:
        return Threshold(offset, math.nan, 0.0, 1.0, 0)
    below = int((calibration < offset).sum())
    return Threshold(offset, *share_interval(below, n), n, ranks_of(np.sort(calibration), offset))


def _at_rank(calibration: Scores, k: int) -> Threshold:
    """The threshold at the k-th smallest calibration score."""
    n, ordered = len(calibration), np.sort(calibration)
    offset = float(ordered[k - 1])
    # with ties, the rate may be below the k-th uniform order statistic, by the mass at the offset
    low_k, k = ranks_of(ordered, offset)
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low = float(stats.beta.ppf(tails[0], low_k, n + 1 - low_k)) if low_k else 0.0
    high = float(stats.beta.ppf(tails[1], k, n + 1 - k))
    return Threshold(offset, k / (n + 1), low, high, n, (low_k, k))


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
    the stated cost is optimistic where they are few; its interval, from the interval of :math:`\alpha` and Clopper and
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
    ranks = 1 + np.searchsorted(ordered, ordered)  # 1 + number of scores strictly below
    alpha = np.append(0, ranks) / (n + 1)  # entry 0: no alarm at all
    n_caught = np.append(0, np.searchsorted(np.sort(anomalies), ordered))
    k = int(cost(alpha, n_caught / len(anomalies)).argmin())
    if not k:
        missed = miss_cost * share
        return Threshold(-math.inf, 0.0, 0.0, 0.0, n, cost=(missed, missed, missed))
    threshold, m = _at_rank(calibration, k), len(anomalies)
    h = share_interval(int(n_caught[k]), m)
    interval = float(cost(threshold.low, h.high)), float(cost(threshold.high, h.low))
    return replace(threshold, cost=(float(cost(alpha[k], n_caught[k] / m)), *interval))
