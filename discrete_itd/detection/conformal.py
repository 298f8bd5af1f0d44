r"""Split-conformal calibration of anomaly scores: p-values, discoveries, and thresholds with the certainty they have.

Scores are higher for more ordinary rows. Given the scores :math:`S_1 \dots S_n` of ordinary rows that the model has not
seen, a new row with score s has the p-value

.. math:: p = \frac{1 + \#\{i : S_i \le s\}}{n + 1}. \qquad (7)

If the row is exchangeable with the calibration rows, :math:`P(p \le \alpha) \le \alpha` in finite samples, whatever the
model and the distribution, on average over calibration sets. An alarm at :math:`p \le \alpha` is an alarm below the
k-th smallest calibration score, :math:`k = \lfloor \alpha (n + 1) \rfloor`. For *this* calibration set the rate of
false alarms is then a number drawn from :math:`\mathrm{Beta}(k, n + 1 - k)`, if no two scores are equal.

With ties, an alarm needs a score strictly below the k-th smallest, and only :math:`j \le k - 1` calibration scores
are below it. The false-alarm rate then lies between the j-th and the (j+1)-th of n uniform order statistics. It is
stated as :math:`(j + 1)/(n + 1)`, at most k/(n + 1), with the interval of Clopper and Pearson for j of n.

Scores may differ by rounding error between batches. The argument ``rounding`` bounds that error, relative to 1 +
|score|. A calibration score within the bound counts as a tie, which makes p-values larger, never smaller.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005: eq. (7) and its validity.
Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
arXiv:2104.08279: the law given the calibration set, and Benjamini-Hochberg on these p-values.
Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934.
Storey, "A direct approach to false discovery rates", JRSS B 2002: the share of ordinary rows in a batch.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.validation import check_positive, check_share

CONFIDENCE = 0.95  # of intervals
ORDINARY_FROM = 0.5  # p-values above this are taken to be those of ordinary rows (Storey's lambda)
BOOTSTRAPS = 400
SURE = 0.9999  # with which recent rows must hold anomalies, at any of many thresholds
MOST_COUNTED = 100_000  # alarms of a larger volume are as many as their rate says

Scores = NDArray[np.float64]


def p_values(
    calibration: Scores, scores: Scores, *, two_sided: bool = False, rounding: float = 0.0
) -> Scores:
    """Conformal p-values of rows, eq. (7).

    Parameters
    ----------
    calibration : ndarray, shape (n,)
        Scores of ordinary rows that took no part in the fit.
    scores : ndarray, shape (N,)
    two_sided : bool
        Whether a score may also be too high: twice the smaller of the p-values of both sides, at most 1, which is
        valid for each row by the union bound.
    rounding : float
        Relative rounding error of scores, see the head of this module.

    Returns
    -------
    ndarray, shape (N,)
        Between 1 / (n + 1) and 1.

    Examples
    --------
    >>> p_values(np.arange(99.0), np.array([-1.0, 4.5, 200.0]))
    array([0.01, 0.06, 1.  ])
    >>> p_values(np.arange(99.0), np.array([-1.0, 49.0, 200.0]), two_sided=True)
    array([0.02, 1.  , 0.02])
    """
    low = _tail(calibration, scores, rounding)
    if not two_sided:
        return low
    return np.minimum(1.0, 2 * np.minimum(low, _tail(-calibration, -scores, rounding)))


def lowered(calibration: Scores, rounding: float) -> Scores:
    """Calibration scores less their rounding error: what is below them is below whatever they would be elsewhere."""
    return calibration - np.where(np.isfinite(calibration), rounding * (1 + np.abs(calibration)), 0)


def _tail(calibration: Scores, scores: Scores, rounding: float) -> Scores:
    """Eq. (7), of low scores."""
    ordered, n = np.sort(lowered(calibration, rounding)), len(calibration)
    return (1 + np.searchsorted(ordered, scores, side="right")) / (n + 1)


def two_sided_discoveries(
    calibration: Scores, scores: Scores, fdr: float, *, rounding: float = 0.0
) -> NDArray[np.bool_]:
    r"""Rows of a batch whose scores are too low or too high, with at most a share ``fdr`` expected to be inliers.

    Parameters
    ----------
    calibration : ndarray, shape (n,)
    scores : ndarray, shape (N,)
    fdr : float
        Between 0 and 1.
    rounding : float
        As of :func:`p_values`.

    Returns
    -------
    ndarray of bool, shape (N,)

    Notes
    -----
    The discoveries of either side at ``fdr / 2``, taken together. Of each side alone the p-values are those of
    :func:`discoveries`, to which its theorem applies; of two-sided p-values it is not known. The share of false ones
    among all is at most the sum of the shares on both sides,
    :math:`(V_1 + V_2)/|R_1 \cup R_2| \le V_1/|R_1| + V_2/|R_2|`.
    """
    fdr = check_share("fdr", fdr)
    sides = ((calibration, scores), (-calibration, -scores))
    low, high = (discoveries(_tail(*side, rounding), fdr / 2) for side in sides)
    return low | high


def discoveries(p: Scores, fdr: float) -> NDArray[np.bool_]:
    """Which rows of a batch to call anomalies, so that at most a share ``fdr`` of them is expected to be ordinary.

    Parameters
    ----------
    p : ndarray, shape (N,)
        p-values of the batch.
    fdr : float
        Between 0 and 1.

    Returns
    -------
    ndarray of bool, shape (N,)

    Notes
    -----
    Benjamini and Hochberg's procedure. One-sided conformal p-values share their calibration set, which makes them
    positively dependent in the way under which it still controls the rate, if the inliers of the batch and the
    calibration rows are independent and of one distribution (Bates et al. 2023, theorem 2; ties only enlarge p-values).
    For two-sided p-values see :func:`two_sided_discoveries`.
    """
    fdr = check_share("fdr", fdr)
    if not len(p):
        return np.zeros(0, dtype=bool)
    return stats.false_discovery_control(p) <= fdr


@dataclass(frozen=True)
class Threshold:
    """Where to raise an alarm, and what is known of it.

    Attributes
    ----------
    offset : float
        An alarm is a score below this, in nats.
    false_alarm_rate : float
        Expected share of ordinary rows that raise one; where scores have ties, at most 1 / (n + 1) too large.
    low, high : float
        The interval in which the rate lies with this very calibration set, with 95 % confidence. Both hold for rows
        that are independent of one another and of the distribution of the calibration rows.
    n_calibration : int
        Ordinary rows it rests on.
    alarms_per_day : (float, float, float), optional
        Expected number of false alarms a day, and the interval in which a day's count lies.
    cost : (float, float, float), optional
        Expected cost per row, and its 95 % interval.
    contaminated : bool
        Whether the calibration rows contain anomalies: the rate is that of all of them. Of inliers it is lower if
        anomalies score lower, and at most 1 / (1 - e) times as high, with e the share of anomalies, otherwise.
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
            text = "no alarm, which would not be worth its check"
        elif not self.n_calibration:
            return f"{text}: set by rows that were fitted, so of others more may raise one"
        else:
            whose = "ordinary rows"
            if self.contaminated:
                whose = "the calibration rows, anomalies among them"
            text += (
                f": {_percent(self.false_alarm_rate)} of {whose} ({_percent(self.low)} to"
                f" {_percent(self.high)}, by {self.n_calibration} calibration rows)"
            )
        if self.alarms_per_day is not None:
            expected, low, high = self.alarms_per_day
            text += f"; {expected:.4g} false alarms a day ({low:.4g} to {high:.4g})"
        if self.cost is not None:
            text += "; cost per row {:.4g} ({:.4g} to {:.4g})".format(*self.cost)
        return text


def at_rate(
    calibration: Scores,
    rate: float,
    *,
    confidence: float | None = None,
    rows_per_day: float | None = None,
) -> Threshold:
    """The threshold at which ordinary rows raise an alarm at a rate.

    Parameters
    ----------
    calibration : ndarray, shape (n,)
    rate : float
        Between 0 and 1.
    confidence : float, optional
        By default the rate holds on average over calibration sets. With a confidence, like 0.95, it holds for
        this very set with that confidence, and the threshold is lower.
    rows_per_day : float, optional
        Volume, to count alarms.

    Raises
    ------
    ValueError
        If the calibration rows are too few to promise so small a rate.
    """
    rate, n = check_share("false_alarm_rate", rate), len(calibration)
    if rows_per_day is not None:
        check_positive("rows_per_day", rows_per_day)
        if not 1 <= rows_per_day < math.inf:
            raise ValueError(f"rows_per_day must be at least 1, and finite, got {rows_per_day!r}")
    k = _rank(n, rate) if confidence is None else _safe_rank(n, rate, confidence)
    if k < 1:
        promise = "" if confidence is None else f" with confidence {confidence:g}"
        fewest = _fewest(rate, confidence)
        raise ValueError(
            f"false_alarm_rate={rate:g}: {n} calibration rows cannot promise so small a rate{promise};"
            f" it takes {fewest}"
        )
    return _at_rank(calibration, k, rows_per_day)


def smallest_rate(n: int) -> float:
    """The smallest false-alarm rate that n calibration rows can promise."""
    return 1 / (n + 1)


def at_cost(
    calibration: Scores,
    *,
    miss_cost: float,
    check_cost: float,
    anomalies: Scores | None = None,
    prevalence: float | None = None,
    recent: Scores | None = None,
    seed: int = 0,
) -> Threshold:
    r"""The threshold of least expected cost.

    Parameters
    ----------
    calibration : ndarray, shape (n,)
    miss_cost, check_cost : float
        Of an anomaly that raises no alarm, and of looking into an alarm.
    anomalies : ndarray, optional
        Scores of known anomalies.
    prevalence : float, optional
        Share of anomalies among new rows; with ``anomalies``.
    recent : ndarray, optional
        Scores of recent rows without labels, in place of ``anomalies`` and ``prevalence``: what they have
        more of at small p-values than ordinary rows would is taken to be anomalies.
    seed : int
        Of the bootstrap for the interval.

    Returns
    -------
    Threshold
        Its cost is corrected for having been sought on the same rows.

    Warns
    -----
    UserWarning
        If recent rows have no more small p-values than chance gives: no alarm is then worth its check.

    Notes
    -----
    With alarms at p-values up to :math:`\alpha`, a share F of all rows raises one and a share h of the anomalies,
    whose prevalence is :math:`\pi`. The cost per row is :math:`c_{miss}\,\pi(1 - h) + c_{check} F`. Known anomalies
    give h, and :math:`F = (1 - \pi)\alpha + \pi h`. Recent rows give F; of that, :math:`(1 - \pi)\alpha` is ordinary,
    with :math:`1 - \pi` by Storey's estimate; the threshold is sought by what is left with near certainty, or chance
    would be paid for as anomalies, and then has fewer alarms than would be best.
    """
    for name, value in (("miss_cost", miss_cost), ("check_cost", check_cost)):
        check_positive(name, value)
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
    if (recent is None) == (anomalies is None) or (anomalies is None) != (prevalence is None):
        raise ValueError("give either anomalies= with prevalence=, or recent=")
    other = recent if anomalies is None else anomalies
    if other is None or not len(other):
        raise ValueError("at least one row is needed to weigh costs")
    share = None if prevalence is None else check_share("prevalence", prevalence)
    n = len(calibration)
    ranked = np.concatenate([[-math.inf], np.sort(calibration)])
    rank = np.concatenate([[0], _effective_rank(ranked[1:], ranked[1:])])
    alpha = rank / (n + 1)

    def costs(other: Scores, alpha: Scores, offsets: Scores) -> Scores:
        """Cost per row of an alarm below each offset, which ordinary rows raise at the rate alpha: (K,) each."""
        alarms = np.searchsorted(np.sort(other), offsets) / len(other)
        if share is not None:
            alarms = share * alarms
            return miss_cost * (share - alarms) + check_cost * ((1 - share) * alpha + alarms)
        ordinary = min(1.0, _ordinary(calibration, other))
        caught = np.maximum(alarms - ordinary * alpha, 0.0)
        odd = max(1 - ordinary, float(caught.max()))  # there are at least as many as are caught
        return miss_cost * (odd - caught) + check_cost * alarms

    random, sought = np.random.default_rng(seed), 0.0
    draws = [random.choice(other, len(other)) for _ in range(BOOTSTRAPS)]
    if share is None:
        caught, alarms = _surely_caught(calibration, other, ranked, rank)
        k = int((miss_cost * caught - check_cost * alarms).argmax())
        if not caught.any():
            warnings.warn(
                "recent rows have no more small p-values than ordinary rows would by chance",
                stacklevel=3,
            )
    else:
        cost = costs(other, alpha, ranked)
        k = int(cost.argmin())
        for drawn in draws:  # how much worse a threshold is than it looks to whom has sought it
            theirs = costs(drawn, alpha, ranked)
            best = int(theirs.argmin())
            sought += max(0.0, cost[best] - theirs[best]) / BOOTSTRAPS
    at, e = ranked[k : k + 1], int(rank[k])
    rates = random.beta(e, n + 1 - e, (BOOTSTRAPS, 1)) if e else np.zeros((BOOTSTRAPS, 1))
    again = [costs(drawn, rate, at)[0] for drawn, rate in zip(draws, rates, strict=True)]
    low, high = np.quantile(again, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    interval = float(costs(other, alpha[k : k + 1], at)[0]) + sought, float(low), high + sought
    if not k:  # no alarm is worth its check
        return Threshold(-math.inf, 0.0, 0.0, 0.0, n, cost=interval)
    return replace(_at_rank(calibration, k, None), cost=interval)


def _ordinary(calibration: Scores, recent: Scores) -> float:
    """Storey's estimate of the share of ordinary rows among recent ones; chance may put it above 1."""
    return float((p_values(calibration, recent) > ORDINARY_FROM).mean()) / (1 - ORDINARY_FROM)


def _surely_caught(
    calibration: Scores, recent: Scores, offsets: Scores, rank: NDArray[np.int_]
) -> tuple[Scores, Scores]:
    """Shares of recent rows that an alarm below each offset surely catches among the odd, and that raise it."""
    n, m, k = len(calibration), len(recent), rank[1:]
    alarms = np.searchsorted(np.sort(recent), offsets) / m
    z = stats.norm.ppf(SURE)
    sd = math.sqrt(ORDINARY_FROM * (1 - ORDINARY_FROM) * (1 / n + 1 / m)) / (1 - ORDINARY_FROM)
    ordinary = min(1.0, _ordinary(calibration, recent) + z * sd)
    alpha = stats.beta.ppf(SURE, k, n + 1 - k)  # the rate that this calibration set may have
    middle = (alarms + z**2 / (2 * m)) / (1 + z**2 / m)  # Wilson's interval
    spread = z / (1 + z**2 / m) * np.sqrt(alarms * (1 - alarms) / m + (z / (2 * m)) ** 2)
    caught = np.maximum((middle - spread)[1:] - ordinary * alpha, 0.0)
    caught[k / (n + 1) > ORDINARY_FROM] = 0.0
    return np.concatenate([[0.0], caught]), alarms


def at_offset(calibration: Scores, offset: float) -> Threshold:
    """What calibration rows say of a threshold that was chosen otherwise: the share below it, with its interval."""
    n = len(calibration)
    if not n:
        return Threshold(offset, math.nan, 0.0, 1.0, 0)
    below = int((calibration < offset).sum())
    interval = stats.binomtest(below, n).proportion_ci(CONFIDENCE)
    return Threshold(offset, below / n, float(interval.low), float(interval.high), n)


def _effective_rank(calibration: Scores, offset: Scores) -> NDArray[np.int_]:
    """One more than the number of calibration scores strictly below each offset, which are sorted."""
    return 1 + np.searchsorted(calibration, offset, side="left")


def _rank(n: int, rate: float) -> int:
    """The k of eq. (7): alarms below the k-th smallest calibration score."""
    return math.floor(rate * (n + 1) + 1e-9)  # 0.01 * 300 is a little less than 3


def _safe_rank(n: int, rate: float, confidence: float) -> int:
    """The largest k with which the rate is held with a confidence; 0 if there is none."""
    confidence = check_share("confidence", confidence)
    ranks = np.arange(1, n + 1)
    held = stats.beta.cdf(rate, ranks, n + 1 - ranks) >= confidence
    return int(ranks[held].max()) if held.any() else 0


def _fewest(rate: float, confidence: float | None) -> int:
    """Calibration rows that it takes to promise a rate."""
    if confidence is None:
        return math.ceil(1 / rate - 1 - 1e-9)
    # k = 1: P(Beta(1, n) <= rate) = 1 - (1 - rate)^n
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate) - 1e-9)


def _at_rank(calibration: Scores, k: int, rows_per_day: float | None) -> Threshold:
    n, ordered = len(calibration), np.sort(calibration)
    offset = ordered[k - 1]
    k = int(_effective_rank(ordered, offset))
    # where scores have ties, the rate may be less than the k-th uniform order statistic, by the mass at the offset
    low_k = k - bool((np.diff(ordered) == 0).any())
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low = float(stats.beta.ppf(tails[0], low_k, n + 1 - low_k)) if low_k else 0.0
    high = float(stats.beta.ppf(tails[1], k, n + 1 - k))
    a_day = None
    if rows_per_day is not None:
        fewest, most = low * rows_per_day, high * rows_per_day
        if rows_per_day <= MOST_COUNTED:  # counting adds nothing to a larger volume's interval
            m = round(rows_per_day)
            fewest = stats.betabinom(m, low_k, n + 1 - low_k).ppf(tails[0]) if low_k else 0.0
            most = stats.betabinom(m, k, n + 1 - k).ppf(tails[1])
        a_day = k / (n + 1) * rows_per_day, float(fewest), float(most)
    return Threshold(float(offset), k / (n + 1), low, high, n, a_day)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
