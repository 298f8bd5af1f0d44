"""Tests of two samples: their p-values against enumeration, their levels, and what they find."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from discrete_itd.detection.two_samples import (
    N_PERMUTATIONS,
    permutation_test,
    same_categories,
    same_column,
    same_distribution,
)

TESTS = "discrete_itd.detection.two_samples"


def assert_rate(count, n, level, *, exact=False):
    """That so many of n p-values were at most the level is no surprise; nor that so few, of an exact test."""
    assert stats.binom.sf(count - 1, n, level) > 1e-4
    assert not exact or stats.binom.cdf(count, n, level) > 1e-4


def test_permutations_against_enumeration():
    rng, random = np.random.default_rng(0), np.random.RandomState(0)
    for _ in range(5):
        a, b = rng.exponential(size=3), rng.exponential(size=6) + 0.5
        exact = stats.permutation_test(
            (a, b),
            lambda x, y: abs(x.mean() - y.mean()),
            alternative="greater",
            n_resamples=math.inf,
        ).pvalue
        error = 4 * math.sqrt(exact * (1 - exact) / N_PERMUTATIONS) + 1 / N_PERMUTATIONS
        assert abs(permutation_test(a, b, random) - exact) < error
        assert abs(permutation_test(b, a, random) - exact) < error
    assert permutation_test(np.ones(4), np.ones(9), random) == 1


def test_many_rows_have_gaussian_means(monkeypatch):
    rng, random = np.random.default_rng(0), np.random.RandomState(0)
    a, b = rng.exponential(size=300), rng.exponential(size=400) * 1.1
    exact = permutation_test(a, b, random)
    monkeypatch.setattr("discrete_itd.detection.two_samples.MANY", 200)
    assert abs(permutation_test(a, b, random) - exact) < 0.05


def test_a_permutation_test_is_exact_at_its_smallest_level(monkeypatch):
    """The observed means count as one of the permutations: 0 is impossible, and 1 / 20 as rare as it says."""
    random = np.random.RandomState(0)
    assert permutation_test(np.zeros(50), np.ones(60), random) == 1 / (1 + N_PERMUTATIONS)
    monkeypatch.setattr(f"{TESTS}.N_PERMUTATIONS", 19)
    draws = random.exponential(size=(3000, 30))
    p = np.array([permutation_test(x[:10], x[10:], random) for x in draws])
    assert p.min() == 1 / 20
    for k in (1, 2, 5):
        assert_rate(np.count_nonzero(p < (k + 0.5) / 20), len(p), k / 20, exact=True)


@pytest.mark.parametrize(("n", "m"), [(1, 7), (2, 6), (4, 4), (3, 6), (6, 3)])
@pytest.mark.parametrize("n_values", [2, 3, 99])
def test_kolmogorov_and_smirnov_against_enumeration(n, m, n_values):
    """Of all choices of n values among n + m at most a share p has p-values of p or less: that share without ties."""
    rng = np.random.default_rng(n)
    pooled = np.sort(rng.choice(n_values, n + m, replace=n_values < n + m)).astype(float)
    p, distance = [], []
    for chosen in itertools.combinations(range(n + m), n):
        a, b = pooled[list(chosen)], np.delete(pooled, chosen)
        p.append(same_distribution(a, b))
        gap = (a[:, None] <= pooled).mean(0) - (b[:, None] <= pooled).mean(0)
        distance.append(round(n * m * np.abs(gap).max()))
    naive = (np.array(distance) >= np.array(distance)[:, None]).mean(1)
    assert (p >= naive * (1 - 1e-9)).all()
    if len(np.unique(pooled)) == n + m:
        np.testing.assert_allclose(p, naive, rtol=1e-9)


def test_kolmogorov_and_smirnov_at_the_ends():
    apart = same_distribution(np.arange(50.0), np.arange(50.0, 110.0))
    assert math.isclose(apart, 2 / math.comb(110, 50), rel_tol=1e-9)
    assert same_distribution(np.zeros(0), np.ones(3)) == 1


def test_kolmogorov_and_smirnov_of_many_values(monkeypatch):
    """Of both many, asymptotic is near exact; of few against many, exact still."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=1100), rng.normal(size=1500) + 0.05
    exact = same_distribution(a, b)
    monkeypatch.setattr(f"{TESTS}.ENUMERATED", 2500)
    assert same_distribution(a, b) != exact
    assert math.isclose(same_distribution(a, b), exact, rel_tol=0.05)
    few, many = np.full(3, 9.0), rng.normal(size=20_000)
    assert math.isclose(same_distribution(many, few), 2 / math.comb(20_003, 3), rel_tol=1e-6)


def all_tables(both, n):
    """All counts of n values of a sample, if ``both`` have these counts together, and their probabilities."""
    tables = [t for t in itertools.product(*(range(1 + min(n, c)) for c in both)) if sum(t) == n]
    return np.array(tables), stats.multivariate_hypergeom.pmf(tables, both, n)


def of_tables(tables, both, *, exchanged=False):
    """P-values of samples with these counts."""
    p, k = [], np.arange(len(both))
    for table in tables:
        a, b = np.repeat(k, table), np.repeat(k, both - table)
        p.append(same_categories(*((b, a) if exchanged else (a, b)), np.random.default_rng(len(p))))
    return np.array(p)


@pytest.mark.parametrize("single", [0.01, 0.999])
@pytest.mark.parametrize("both", [(25, 15, 10), (40, 5, 3, 2), (13, 7)])
def test_levels_hold_over_all_tables(both, single, monkeypatch):
    """Of ten values and these margins: the chance of p <= a is no more than a, but for what is drawn.

    So it is of both tests of categories, whichever has most of the level.
    """
    monkeypatch.setattr(f"{TESTS}.SINGLE", single)
    tables, chance = all_tables(both, 10)
    p = of_tables(tables, both)
    for level in (0.1, 0.05, 0.01, 0.001):
        assert chance[p <= level].sum() <= 1.1 * level
    assert chance[p <= 0.3].sum() > 0.05


@pytest.mark.parametrize(
    "both", [(20, 12, 9), (20, 11, 4, 3)], ids=["all told apart", "two pooled"]
)
def test_categories_against_enumeration(both, monkeypatch):
    monkeypatch.setattr(f"{TESTS}.SINGLE", 1e-12)  # of no weight
    tables, chance = all_tables(both, 8)
    told = np.add.reduceat(tables, [0, 1, 2], axis=1)  # rare ones pooled
    chi = (told**2 / np.add.reduceat(both, [0, 1, 2])).sum(1)
    naive = np.array([chance[chi >= c * (1 - 1e-9)].sum() for c in chi])
    for exchanged in (False, True):
        p = of_tables(tables, both, exchanged=exchanged)
        error = 5 * p / math.sqrt(100) + 1e-4
        assert (np.abs(p - naive) < error).all()


def test_tables_drawn_are_exact_at_their_smallest_level(monkeypatch):
    """The observed table counts as one of those drawn, also where draws end early."""
    monkeypatch.setattr(f"{TESTS}.DRAWS", 19)
    monkeypatch.setattr(f"{TESTS}.ENOUGH", 4)
    monkeypatch.setattr(f"{TESTS}.SINGLE", 1e-12)  # of no weight
    rng = np.random.default_rng(0)
    p = []
    for _ in range(2000):
        codes = rng.integers(6, size=330)
        p.append(same_categories(codes[:30], codes[30:], rng))
    assert min(p) > 0.0499
    for k in (1, 2, 3, 4):
        found = np.count_nonzero(np.array(p) < (k + 0.5) / 20)
        assert_rate(found, len(p), k / 20)
    assert found > 300  # of 400


@pytest.mark.parametrize("kind", ["continuous", "ties", "three", "thirty"])
def test_levels_of_ten_rows(kind):
    rng = np.random.default_rng(0)
    draw = {
        "continuous": rng.normal,
        "ties": lambda size: rng.poisson(1.0, size).astype(float),
        "three": lambda size: rng.choice(3, size, p=[0.5, 0.3, 0.2]).astype(float),
        "thirty": lambda size: (rng.zipf(1.3, size) % 30).astype(float),
    }[kind]
    nominal = "nominal" if kind in ("three", "thirty") else "continuous"
    p = np.array([same_column(draw(size=10), draw(size=90), nominal, rng)[0] for _ in range(600)])
    for level in (0.01, 0.05, 0.2):
        assert_rate(np.count_nonzero(p <= level), len(p), level)
    assert (p <= 0.5).mean() > 0.15  # not valid by saying nothing; with ties it is conservative


def test_a_column_that_changed_completely_has_a_tiny_p_value():
    rng = np.random.default_rng(0)
    usual = rng.integers(30, size=500).astype(float)
    for batch in (np.full(10, 3.0), np.full(10, 30.0), np.arange(30.0, 40.0)):
        assert same_column(batch, usual, "nominal", rng)[0] <= 1e-4
    assert same_column(np.full(10, 30.0), usual, "nominal", rng)[0] < 1e-12
    assert same_column(np.full(10, 1.0), np.zeros(500), "nominal", rng)[0] < 1e-12
    assert same_column(rng.normal(size=10) + 9, rng.normal(size=500), "continuous", rng)[0] < 1e-12
    assert same_column(np.full(10, np.nan), usual, "nominal", rng)[1] < 1e-12
    few = rng.integers(3, size=500).astype(float)
    assert same_column(np.zeros(10), few, "nominal", rng)[0] <= 1e-4
    spread = rng.integers(15, 45, size=300).astype(float)  # by draws alone, or nearly
    assert same_column(spread, np.concatenate([usual, usual]), "nominal", rng)[0] < 1e-4


def test_rare_categories_are_pooled():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        a, b = (rng.zipf(1.5, n).clip(max=400).astype(float) for n in (80, 120))
        p.append(same_column(a, b, "nominal", rng)[0])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert same_column(np.zeros(9), np.zeros(4), "nominal", rng)[0] == 1
    assert same_column(np.full(9, np.nan), np.zeros(4), "ordinal", rng)[0] == 1
    assert same_column(np.full(9, np.nan), np.zeros(4), "nominal", rng)[0] == 1
    assert same_column(np.zeros(90), np.ones(90), "ordinal", rng)[0] < 1e-6
    many = np.arange(5000.0)
    assert same_column(many, np.concatenate([many, many]), "nominal", rng)[0] > 0.01
    assert same_column(many % 7, np.concatenate([many, many]), "nominal", rng)[0] < 1e-12
