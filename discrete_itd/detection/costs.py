"""The alarm threshold of least expected cost, from labelled anomalies or from recent rows without labels.

References
----------
Storey, "A direct approach to false discovery rates", JRSS B 2002: the share of inliers in a batch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.detection.conformal import Scores, p_values
from discrete_itd.detection.thresholds import CONFIDENCE, Threshold, at_rank, effective_rank
from discrete_itd.validation import check_positive, check_share

NULL_FROM = 0.5  # p-values above this are taken to be those of inliers (Storey's lambda)
BOOTSTRAPS = 400
SURE = 0.9999  # with which recent rows must hold anomalies, at any of many thresholds

# Expected cost per row of an alarm below each offset, given sampled scores and the false-alarm rate: (K,)
Costs = Callable[[Scores, Scores, Scores], Scores]


def at_cost(
    calibration: Scores,
    miss_cost: float,
    check_cost: float,
    *,
    anomalies: Scores | None = None,
    prevalence: float | None = None,
    recent: Scores | None = None,
    seed: int = 0,
) -> Threshold:
    r"""The threshold with the least expected cost.

    Parameters
    ----------
    calibration : ndarray, shape (n,)
    miss_cost, check_cost : float
        Cost of an anomaly that raises no alarm, and of checking an alarm.
    anomalies : ndarray, optional
        Scores of known anomalies.
    prevalence : float, optional
        Share of anomalies among new rows; needed with ``anomalies``.
    recent : ndarray, optional
        Scores of recent rows without labels, in place of ``anomalies`` and ``prevalence``. The excess of small p-values
        among them over what inliers would have is attributed to anomalies.
    seed : int
        Seed of the bootstrap of the interval.

    Returns
    -------
    Threshold
        Its cost is corrected for the optimism of having chosen the threshold on the same rows.

    Warns
    -----
    UserWarning
        If recent rows have no more small p-values than chance gives: no alarm is then worth its check.

    Notes
    -----
    With alarms at p-values up to :math:`\alpha`, a share F of all rows and a share h of the anomalies, whose prevalence
    is :math:`\pi`, raise an alarm. The cost per row is :math:`c_{miss}\,\pi(1 - h) + c_{check} F`. Known anomalies give
    h, and :math:`F = (1 - \pi)\alpha + \pi h`. Recent rows give F, of which :math:`(1 - \pi)\alpha` are inliers, with
    :math:`1 - \pi` by Storey's estimate. With recent rows the threshold is chosen on a lower confidence bound of
    :math:`\pi h`, since chance fluctuations would otherwise be paid for as anomalies; it raises fewer alarms than the
    best threshold would.
    """
    share, other = _checked(miss_cost, check_cost, anomalies, prevalence, recent)
    n = len(calibration)
    ranked = np.concatenate([[-math.inf], np.sort(calibration)])
    rank = np.concatenate([[0], effective_rank(ranked[1:], ranked[1:])])
    costs = _cost_function(calibration, miss_cost, check_cost, share)
    random = np.random.default_rng(seed)
    draws = [random.choice(other, len(other)) for _ in range(BOOTSTRAPS)]
    if share is None:
        k, optimism = _safest(calibration, other, ranked, rank, miss_cost, check_cost), 0.0
    else:
        k, optimism = _cheapest(costs, other, draws, rank / (n + 1), ranked)
    at, e = ranked[k : k + 1], int(rank[k])
    rates = random.beta(e, n + 1 - e, (BOOTSTRAPS, 1)) if e else np.zeros((BOOTSTRAPS, 1))
    again = [costs(drawn, rate, at)[0] for drawn, rate in zip(draws, rates, strict=True)]
    low, high = np.quantile(again, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    expected = float(costs(other, rank[k : k + 1] / (n + 1), at)[0])
    interval = expected + optimism, float(low), float(high) + optimism
    if not k:  # no alarm is worth its check
        return Threshold(-math.inf, 0.0, 0.0, 0.0, n, cost=interval)
    return replace(at_rank(calibration, k), cost=interval)


def _checked(
    miss_cost: float,
    check_cost: float,
    anomalies: Scores | None,
    prevalence: float | None,
    recent: Scores | None,
) -> tuple[float | None, Scores]:
    """The prevalence, if known, and the scores of anomalies or recent rows."""
    for name, value in (("miss_cost", miss_cost), ("check_cost", check_cost)):
        check_positive(name, value)
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
    if (recent is None) == (anomalies is None) or (anomalies is None) != (prevalence is None):
        raise ValueError("give either anomalies= with prevalence=, or recent=")
    other = recent if anomalies is None else anomalies
    if other is None or not len(other):
        raise ValueError("at least one row is needed to weigh costs")
    return (None if prevalence is None else check_share("prevalence", prevalence)), other


def _cost_function(
    calibration: Scores, miss_cost: float, check_cost: float, share: float | None
) -> Costs:
    """Cost per row for a known prevalence ``share``, or with the prevalence estimated from recent rows."""

    def costs(other: Scores, alpha: Scores, offsets: Scores) -> Scores:
        alarms = np.searchsorted(np.sort(other), offsets) / len(other)
        if share is not None:
            alarms = share * alarms
            return miss_cost * (share - alarms) + check_cost * ((1 - share) * alpha + alarms)
        inliers = min(1.0, _share_of_inliers(calibration, other))
        caught = np.maximum(alarms - inliers * alpha, 0.0)
        present = max(1 - inliers, float(caught.max()))  # at least as many anomalies as are caught
        return miss_cost * (present - caught) + check_cost * alarms

    return costs


def _cheapest(
    costs: Costs, anomalies: Scores, draws: list[Scores], alpha: Scores, ranked: Scores
) -> tuple[int, float]:
    """The rank of least cost, and by how much its cost is too optimistic, by the bootstrap."""
    cost, optimism = costs(anomalies, alpha, ranked), 0.0
    for drawn in draws:
        theirs = costs(drawn, alpha, ranked)
        best = int(theirs.argmin())
        optimism += max(0.0, cost[best] - theirs[best]) / BOOTSTRAPS
    return int(cost.argmin()), optimism


def _safest(
    calibration: Scores,
    recent: Scores,
    ranked: Scores,
    rank: NDArray[np.int_],
    miss_cost: float,
    check_cost: float,
) -> int:
    """The rank of least cost when only anomalies that are surely there are counted."""
    caught, alarms = _surely_caught(calibration, recent, ranked, rank)
    if not caught.any():
        warnings.warn(
            "recent rows have no more small p-values than inliers would have by chance",
            stacklevel=4,
        )
    return int((miss_cost * caught - check_cost * alarms).argmax())


def _share_of_inliers(calibration: Scores, recent: Scores) -> float:
    """Storey's estimate of the share of inliers among recent rows; chance may put it above 1."""
    return float((p_values(calibration, recent) > NULL_FROM).mean()) / (1 - NULL_FROM)


def _surely_caught(
    calibration: Scores, recent: Scores, offsets: Scores, rank: NDArray[np.int_]
) -> tuple[Scores, Scores]:
    """Lower bound of the share of recent rows that are anomalies below each offset, and the share below it."""
    n, m, k = len(calibration), len(recent), rank[1:]
    alarms = np.searchsorted(np.sort(recent), offsets) / m
    z = stats.norm.ppf(SURE)
    sd = math.sqrt(NULL_FROM * (1 - NULL_FROM) * (1 / n + 1 / m)) / (1 - NULL_FROM)
    inliers = min(1.0, _share_of_inliers(calibration, recent) + z * sd)
    alpha = stats.beta.ppf(SURE, k, n + 1 - k)  # the rate that this calibration set may have
    middle = (alarms + z**2 / (2 * m)) / (1 + z**2 / m)  # Wilson's interval
    spread = z / (1 + z**2 / m) * np.sqrt(alarms * (1 - alarms) / m + (z / (2 * m)) ** 2)
    caught = np.maximum((middle - spread)[1:] - inliers * alpha, 0.0)
    caught[k / (n + 1) > NULL_FROM] = 0.0
    return np.concatenate([[0.0], caught]), alarms
