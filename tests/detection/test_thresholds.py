"""Laws of the calibration: validity in finite samples, thresholds that agree with p-values, intervals that cover."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from discrete_itd.detection.thresholds import (
    at_cost,
    at_offset,
    at_rate,
    calibration_scores,
    discoveries,
    lowered,
    p_values,
)

pytestmark = pytest.mark.single_precision


def naive_p(calibration, score):
    return (1 + sum(c <= score for c in calibration)) / (len(calibration) + 1)


@pytest.mark.parametrize("scores", [np.arange(20.0), np.array([1.0] * 5 + [2.0] * 10 + [3.0] * 5)])
def test_p_values_are_valid_exactly(scores):
    """Every one of exchangeable rows may be the new one: at most a share alpha of them has p <= alpha."""
    p = [p_values(np.delete(scores, i), scores[i : i + 1])[0] for i in range(len(scores))]
    for alpha in np.unique(p):
        assert np.mean(np.array(p) <= alpha + 1e-12) <= alpha + 1e-12
    if len(np.unique(scores)) == len(scores):  # and exactly that share without ties
        assert np.allclose(np.sort(p), np.arange(1, 21) / 20)


def test_rounding_errors_only_enlarge_p_values():
    """Equal rows are ties, however their scores were rounded; an alarm at a p-value stays one below an offset."""
    random = np.random.default_rng(0)
    rounding = 1e-4
    for _ in range(50):
        true = random.choice(random.normal(0, 20, 6), 40)  # many ties
        noise = random.uniform(-0.49, 0.49, 40) * rounding * (1 + np.abs(true))
        seen = true + noise
        exact = p_values(true[:30], true[30:])
        p = p_values(seen[:30], seen[30:], rounding=rounding)
        assert (p >= exact - 1e-12).all()
        found = at_rate(lowered(seen[:30], rounding), 0.2)
        assert np.array_equal(seen[30:] < found.offset, p <= 0.2)
    apart = np.arange(20.0)  # where scores are far apart nothing changes
    exact = p_values(apart, apart + 0.5)
    assert np.array_equal(p_values(apart, apart + 0.5, rounding=rounding), exact)


def test_p_values_agree_with_their_definition():
    random = np.random.default_rng(0)
    calibration, scores = random.integers(0, 30, 50) * 1.0, random.integers(-3, 33, 40) * 1.0
    naive = [naive_p(calibration, s) for s in scores]
    assert np.allclose(p_values(calibration, scores), naive)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.37])
@pytest.mark.parametrize("n", [99, 300, 1000])
def test_an_alarm_is_a_small_p_value(rate, n):
    random = np.random.default_rng(n)
    calibration, new = random.integers(0, 200, n) * 1.0, random.integers(-5, 205, 500) * 1.0
    found = at_rate(calibration, rate)
    assert np.array_equal(new < found.offset, p_values(calibration, new) <= rate + 1e-12)
    assert found.false_alarm_rate <= rate + 1e-12
    assert found.low < found.false_alarm_rate < found.high


def test_intervals_of_the_rate_cover_it():
    random = np.random.default_rng(0)
    inside, held, n = 0, 0, 800
    for _ in range(n):
        calibration = random.random(200)  # an alarm below t is then raised at the rate t
        found = at_rate(calibration, 0.05)
        inside += found.low <= found.offset <= found.high
        held += at_rate(calibration, 0.05, confidence=0.9).offset <= 0.05
    assert abs(inside / n - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)
    assert 0.9 - 4 * math.sqrt(0.09 / n) < held / n < 0.97


def test_a_rate_that_cannot_be_promised_is_refused():
    with pytest.raises(ValueError, match=r"98 calibration rows cannot guarantee .* it takes 99"):
        at_rate(np.arange(98.0), 0.01)
    assert at_rate(np.arange(99.0), 0.01).offset == 0.0
    assert at_rate(np.arange(98.0), 1 / 99).offset == 0.0
    with pytest.raises(ValueError, match=r"with confidence 0.95; it takes 299"):
        at_rate(np.arange(298.0), 0.01, confidence=0.95)
    assert at_rate(np.arange(299.0), 0.01, confidence=0.95).offset == 0.0
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="rate must be"):
            at_rate(np.arange(9.0), rate)


COSTS = {"miss_cost": 20.0, "check_cost": 1.0, "prevalence": 0.05}


def naive_cost(calibration, anomalies, offset, prevalence, miss, check):
    missed = prevalence * np.mean(anomalies >= offset)
    alarms = (1 - prevalence) * (1 + sum(calibration < offset)) / (len(calibration) + 1)
    return miss * missed + check * (alarms + prevalence * np.mean(anomalies < offset))


def test_the_cheapest_threshold_is_the_cheapest():
    random = np.random.default_rng(0)
    calibration, anomalies = random.normal(size=200), random.normal(-2, 1, size=60)
    found = at_cost(calibration, anomalies=anomalies, **COSTS)
    costs = [naive_cost(calibration, anomalies, t, 0.05, 20.0, 1.0) for t in calibration]
    at_best = naive_cost(calibration, anomalies, found.offset, 0.05, 20.0, 1.0)
    assert np.isclose(at_best, min(costs))
    assert found.cost[0] == pytest.approx(min(costs))
    assert found.cost[1] < found.cost[0] < found.cost[2]
    dearer = at_cost(calibration, anomalies=anomalies, **COSTS | {"miss_cost": 200})
    assert dearer.offset > found.offset


def test_intervals_of_the_cost_cover_it():
    random = np.random.default_rng(0)
    covered = []
    truth = stats.norm.cdf
    for _ in range(100):
        found = at_cost(
            random.normal(size=300),
            anomalies=random.normal(-2, 1, size=50),
            prevalence=0.05,
            miss_cost=20,
            check_cost=1,
        )
        caught, false = 0.05 * truth(found.offset + 2), 0.95 * truth(found.offset)
        covered.append(found.cost[1] <= 20 * (0.05 - caught) + caught + false <= found.cost[2])
    assert np.mean(covered) > 0.91


def test_no_alarm_is_raised_that_is_not_worth_its_check():
    random = np.random.default_rng(0)
    found = at_cost(
        random.normal(size=300),
        anomalies=random.normal(size=50),
        prevalence=0.01,
        miss_cost=2,
        check_cost=1,
    )
    assert found.offset == -math.inf
    assert found.cost[0] == pytest.approx(0.02, abs=1e-3)
    assert str(found).startswith("no alarm: none is worth its check")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"check_cost": 0}, "check_cost must be positive"),
        ({"miss_cost": math.inf}, "miss_cost must be finite, got inf"),
        ({"anomalies": np.ones(0)}, "anomalies: at least one row"),
        ({"prevalence": 2.0}, "prevalence"),
    ],
)
def test_unclear_costs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        at_cost(np.arange(10.0), **COSTS | {"anomalies": np.ones(3)} | arguments)


def test_the_false_discovery_rate_is_held():
    random = np.random.default_rng(0)
    rates, found = [], []
    for _ in range(300):
        calibration = random.normal(size=300)
        batch = np.concatenate([random.normal(size=90), random.normal(-4, 1, size=10)])
        hits = discoveries(p_values(calibration, batch), 0.2)
        rates.append(hits[:90].sum() / max(1, hits.sum()))
        found.append(hits[90:].mean())
    assert np.mean(rates) < 0.2
    assert np.mean(found) > 0.5
    assert not discoveries(np.zeros(0), 0.1).size


def naive_discoveries(p, fdr):
    """Benjamini and Hochberg's step-up procedure, in exact numbers: with ties, and where equality holds."""
    ordered = sorted(Fraction(float(value)) for value in p)
    steps = [k for k, v in enumerate(ordered, 1) if v * len(p) <= k * Fraction(fdr)]
    return np.array([bool(steps) and Fraction(float(v)) <= ordered[steps[-1] - 1] for v in p])


def test_discoveries_agree_with_their_definition():
    random = np.random.default_rng(0)
    sizes = []
    for _ in range(300):
        p = random.choice([1, 2, 4, 8, 16, 32, 64], 8) / 64  # p n / k is exact, and often fdr
        found = discoveries(p, 0.25)
        np.testing.assert_array_equal(found, naive_discoveries(p, 0.25))
        sizes.append(found.sum())
    assert {0, 1, 8} < set(sizes)


@pytest.mark.parametrize("fdr", [0.0, 1.0, -0.5])
def test_a_rate_of_false_discoveries_is_a_share(fdr):
    with pytest.raises(ValueError, match=r"^fdr must be"):
        discoveries(np.arange(3.0) / 10, fdr)


def test_scores_are_lowered_by_their_rounding_error():
    scores = np.array([0.0, -3.0, 1.0, np.inf, -np.inf])
    expected = [-0.25, -4.0, 0.5, np.inf, -np.inf]
    np.testing.assert_array_equal(lowered(scores, 0.25), expected)


def test_calibration_scores_are_those_of_a_fitted_detector():
    class Detector(BaseEstimator):
        def fit(self, X):
            self.calibration_scores_ = X
            return self

    scores = np.arange(3.0)
    assert calibration_scores(Detector().fit(scores)) is scores
    with pytest.raises(NotFittedError):
        calibration_scores(Detector())
    with pytest.raises(ValueError, match=r"^there are no calibration rows: fit with calibration_f"):
        calibration_scores(Detector().fit(scores[:0]))


def test_what_a_threshold_chosen_otherwise_does():
    found = at_offset(np.arange(100.0), 5.0)
    assert found.false_alarm_rate == 0.05
    assert found.low < 0.05 < found.high
    assert math.isnan(at_offset(np.zeros(0), 5.0).false_alarm_rate)


def test_a_threshold_speaks_for_itself():
    found = at_rate(np.arange(999.0), 0.01)
    assert str(found).startswith("alarm below 9.00 nats: 1 % of inliers (")
    assert "set on rows used in the fit" in str(at_offset(np.zeros(0), 5.0))


@pytest.mark.parametrize("n_levels", [4, 12, None])
def test_property_a_stated_rate_and_its_interval_are_those_of_the_scores_below(n_levels):
    """With ties j of n scores are below, and (j + 1) / (n + 1) is stated with the Clopper-Pearson interval of j of n.

    Without ties the rate has a beta distribution.
    """
    random, n = np.random.default_rng(0), 199
    scores = random.permutation(np.arange(n, dtype=float))
    if n_levels:
        scores = random.choice(np.arange(n_levels) - 2.0, n)
    for rate in (0.01, 0.05, 0.3, 0.7):
        found = at_rate(scores, rate)
        j = int((scores < found.offset).sum())
        assert found.false_alarm_rate == pytest.approx((j + 1) / (n + 1))
        assert found.false_alarm_rate <= rate + 1e-12
        exact = stats.binomtest(j, n).proportion_ci(0.95)
        low, high = stats.beta.ppf([0.025, 0.975], j + 1, n - j)
        assert found.low == pytest.approx(exact.low if n_levels else low)
        assert found.high == pytest.approx(exact.high)
        assert found.high == pytest.approx(high)


def test_alarms_expected_is_exact_by_enumeration():
    """All choices of which of n + m rows are new are equally likely: without ties exactly beta-binomial."""
    n, m, k = 5, 4, 2
    counts = []
    for new in itertools.combinations(range(n + m), m):
        calibration = np.setdiff1d(np.arange(n + m), new).astype(float)
        offset = at_rate(calibration, k / (n + 1)).offset
        counts.append(sum(i < offset for i in new))
        expected = at_offset(calibration, offset).alarms_expected(m, level=0.8)
    assert np.mean(counts) == pytest.approx(expected.mean)
    tails = [np.mean(np.array(counts) < expected.low), np.mean(np.array(counts) > expected.high)]
    assert max(tails) <= 0.1
    # and no shorter interval would do
    assert np.mean(np.array(counts) <= expected.low) > 0.1
    assert np.mean(np.array(counts) >= expected.high) > 0.1


@pytest.mark.parametrize(
    ("calibration", "offset", "fewest", "most"),
    [
        (np.arange(99.0), 9.0, 10, 10),
        (np.arange(99.0), 9.5, 10, 11),
        (np.repeat(np.arange(33.0), 3), 3.0, 9, 10),
    ],
    ids=["at a score", "between two", "ties"],
)
def test_alarms_below_an_offset_lie_between_those_of_two_ranks(calibration, offset, fewest, most):
    """Of one rank, without ties and at a calibration score."""
    found = at_offset(calibration, offset).alarms_expected(400, level=0.9)
    assert found.low == stats.betabinom(400, fewest, 100 - fewest).ppf(0.05)
    assert found.high == stats.betabinom(400, most, 100 - most).ppf(0.95)
    assert found.mean == pytest.approx(4 * most)


def test_alarms_are_those_of_an_offset_however_it_was_found():
    scores = np.random.default_rng(0).poisson(20, 500).astype(float)
    found = at_rate(scores, 0.1)
    same = at_offset(scores, found.offset)
    assert found.alarms_expected(300) == pytest.approx(same.alarms_expected(300))
    with pytest.raises(ValueError, match="n_rows must be at least 1, got 0"):
        at_offset(scores, 3.0).alarms_expected(0)
