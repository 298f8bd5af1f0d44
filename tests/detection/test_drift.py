"""Batches of rows against inliers; tests of two samples against enumeration."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.detection.drift import (
    N_PERMUTATIONS,
    N_TABLES,
    _differ,
    compare,
    differs,
    drift,
    same_categories,
    same_distribution,
    same_mean,
    surprisals,
)
from discrete_itd.detection.score import Scorer
from discrete_itd.recipes import Mixture, Network
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision
TESTS = "discrete_itd.detection.drift"

QUICK = {
    "denoiser": Network(width=16, depth=1, base="independent"),
    "max_steps": 20,
    "n_evaluations": 8,
    "random_state": 0,
    "schedule": CoordinateSchedule(4),  # in blocks, columns that jump together blame one another
}


def rows(n, seed):
    rng = np.random.default_rng(seed)
    k = rng.integers(3, size=n)
    return pd.DataFrame(
        {
            "word": np.array(["low", "mid", "top"])[k],
            "size": rng.normal(2.0 * k, 0.5),
            "other": rng.choice(["p", "q", "r"], n, p=[0.5, 0.3, 0.2]),
            "same": np.where(rng.random(n) < 0.9, k, rng.integers(3, size=n)),
            "fixed": "a",
        }
    )


TRAIN, USUAL = rows(600, 0), rows(300, 1)


def asked(density, inliers):
    """The score of a density, and that of inliers by column."""
    scorer = Scorer(density)
    return scorer, scorer.explain(density.rows(inliers)).to_numpy()


@functools.cache
def fitted():
    return asked(
        DiffusionDensity(denoiser=Mixture(8, n_points=64, max_steps=60), random_state=0).fit(TRAIN),
        USUAL,
    )


@pytest.fixture
def model():
    return fitted()[0]


@pytest.fixture
def usual():
    return fitted()[1]


@pytest.mark.slow
def test_rows_like_the_usual_ones_are_not_flagged(model, usual):
    """P-values of batches without drift: few are small, of rows and of columns, of shares and of values."""
    found = [drift(model, rows(80, 100 + s), usual, reference=USUAL) for s in range(12 * TIMES)]
    p = np.array([f.p_value for f in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert stats.binom.sf(sum(f.drifted for f in found) - 1, len(found), 0.05) > 1e-3
    tests = pd.concat([f.columns.drop(index="fixed") for f in found])
    for name in ("p_nats", "p_values"):
        assert (tests[name] < 0.05).mean() < 0.09
        assert (tests[name] < 0.5).mean() > 0.2
    quiet = next(f for f in found if not f.drifted)
    columns = quiet.columns.assign(moved=True)  # by alpha, and not by half of it
    for calm in (quiet, dataclasses.replace(quiet, columns=columns)):
        assert str(calm).startswith("No drift in 80 rows")
        assert str(calm).endswith("no column differs")


@pytest.mark.parametrize("column", ["word", "size"])
def test_a_shuffled_column_is_found_in_its_shares(model, usual, column):
    batch = rows(200, 7)
    batch[column] = np.random.default_rng(0).permutation(batch[column])
    found = drift(model, batch, usual)
    assert found.drifted
    assert found.p_value < 0.01
    assert column in found.drifted_columns
    assert not {"other", "fixed"} & set(found.drifted_columns)
    assert found.columns["shift"].sum() > 0.05
    assert f"\n    {column}: " in str(found)


def test_a_shifted_column_is_found_in_its_values(model, usual):
    """Which a more usual row may hide from the code length."""
    batch = rows(200, 8).assign(other="p")
    found = drift(model, batch, usual, reference=USUAL)
    assert found.columns["p_values"].idxmin() == "other"
    assert "other" in found.drifted_columns
    assert found.columns.loc["other", "shift"] < 0
    gone = drift(
        model, batch.assign(size=batch["size"].mask(batch.index < 30)), usual, reference=USUAL
    )
    assert gone.columns.loc["size", "p_missing"] < 1e-6
    assert math.isnan(gone.columns.loc["word", "p_missing"])
    assert "size" in gone.drifted_columns


def test_what_is_significant_and_negligible_is_not_named():
    """In two columns of many rows nats differ for certain: in one by a thousandth, in the other by a tenth."""
    random = np.random.default_rng(0)
    before = np.exp(random.normal(size=(20_000, 3)))
    batch = np.exp(random.normal(size=(20_000, 3)))
    before[:, 1] = before[:, 1].round(1)
    batch[:, 1] = before[:, 1] + 0.001
    batch[:, 2] += 0.1
    _, table = compare((batch, before), list("abc"), random)
    assert (table["q_value"] < 1e-6).tolist() == [False, True, True]
    np.testing.assert_allclose(table["effect"][1:], [0.001, 0.1], atol=0.02)
    assert _differ(table, 0.05).tolist() == [False, False, True]


@pytest.mark.parametrize("kind", ["nominal", "ordinal"])
def test_distances_are_those_of_all_sets_or_of_all_thresholds(kind):
    """Total variation is the largest difference of the probability of any set; of numbers, of any {x <= t}."""
    random = np.random.default_rng(1)
    a, b = random.integers(0, 4, 30).astype(float), random.integers(0, 4, 50).astype(float)
    sets = [[v for v in range(4) if m >> v & 1] for m in range(16)]
    if kind != "nominal":
        sets = [list(range(t + 1)) for t in range(4)]
    naive = max(abs(np.isin(a, s).mean() - np.isin(b, s).mean()) for s in sets)
    assert same_column(a, b, kind)[1] == pytest.approx(naive)
    a[:15] = np.nan
    assert same_column(a, b, kind, name="distance") == pytest.approx(
        max(0.5, same_column(a, b, kind)[1])
    )
    assert same_column(np.full(4, np.nan), b, kind, name="distance") == 1.0


def test_nats_and_their_errors(model, usual):
    batch = rows(50, 9)
    found = drift(model, batch, usual)
    scores = model.score(model.density.rows(batch))
    assert math.isclose(found.nats, -scores.mean(), rel_tol=1e-6)
    assert math.isclose(found.stderr, scores.std(ddof=1) / math.sqrt(50), rel_tol=1e-6)
    assert math.isclose(found.inlier_nats, usual.sum(1).mean(), rel_tol=1e-9)
    shares = model.explain(model.density.rows(batch))
    np.testing.assert_allclose(found.columns["nats"], shares.mean())
    np.testing.assert_allclose(found.columns["inlier_nats"], usual.mean(0))


def test_q_values_are_those_of_benjamini_and_hochberg(model, usual):
    table = drift(model, rows(60, 3), usual, reference=USUAL).columns
    p = table["p_value"].to_numpy()
    smallest = table[["p_nats", "p_values"]].min(axis=1) * 2
    np.testing.assert_allclose(p, smallest.clip(upper=1))
    order = np.argsort(p)
    naive = [min(p[order[k:]] * 5 / np.arange(k + 1, 6)) for k in range(5)]
    np.testing.assert_allclose(table["q_value"].to_numpy()[order], np.minimum(naive, 1))


def test_missing_as_a_category():
    gone = np.random.default_rng(0).random(600) < 0.3
    told = DiffusionDensity(denoiser="tree", missing="category", random_state=0).fit(
        TRAIN.assign(word=TRAIN["word"].mask(gone))
    )
    inliers = USUAL.assign(word=USUAL["word"].mask(gone[:300]))
    told, before = asked(told, inliers)
    batch = rows(150, 6)
    found = drift(told, batch.assign(word=batch["word"].mask(gone[:150])), before)
    assert not found.drifted
    batch = batch.assign(word=None)
    found = drift(told, batch, before, reference=inliers)
    assert "word" in found.drifted_columns


def test_arrays_and_single_rows():
    cells = np.random.default_rng(0).integers(0, 3, (200, 2))
    density = DiffusionDensity(**QUICK).fit(cells)
    scorer, usual = asked(density, cells[:50])
    found = drift(scorer, cells[:1], usual, reference=cells)
    assert found.stderr == math.inf
    assert 0 < found.p_value <= 1
    assert not found.drifted
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        drift(scorer, cells[:0], usual)


def test_wrong_arguments(model, usual):
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, got 2"):
        drift(model, USUAL, usual, alpha=2)
    with pytest.raises(ValueError, match="column 'word': the model knows it"):
        drift(model, USUAL, usual, reference=USUAL.drop(columns="word"))


# -- without a model ------------------------------------------------------------------------------


def test_levels_of_whole_batches(monkeypatch):
    """Of columns that depend on one another, and of every size, one row too."""
    monkeypatch.setattr(f"{TESTS}.N_PERMUTATIONS", 199)
    monkeypatch.setattr(f"{TESTS}.N_TABLES", 999)
    random = np.random.default_rng(0)
    mixing = random.normal(size=(4, 4))
    wrong = {1: 0, 10: 0}
    for n in wrong:
        for _ in range(30 * TIMES):
            nats = random.exponential(size=(n + 60, 4)) @ mixing
            gone = random.random(nats.shape) < 0.1
            nats[gone] = 0
            codes = np.where(gone, np.nan, random.poisson(1.0, nats.shape))
            tables = {"values": (codes[:n], codes[n:]), "ordered": [False, True] * 2}
            p_value, table = compare((nats[:n], nats[n:]), list("abcd"), random, **tables)
            wrong[n] += differs(p_value, table["q_value"].to_numpy(), 0.1)
    for count in wrong.values():
        assert stats.binom.sf(count - 1, 30 * TIMES, 0.1) > 1e-4


def test_rounding_errors_break_no_ties():
    """Shares of equal rows differ in their last digits where a table is of another size."""
    random = np.random.default_rng(0)
    nats = random.integers(1, 4, size=(200, 2)) * 0.7
    tables = [compare((nats[:40] + e, nats), ["a", "b"], random)[1] for e in (0, 1e-9, -1e-9)]
    for table in tables[1:]:
        np.testing.assert_array_equal(table["p_nats"], tables[0]["p_nats"])
    alike = np.full((60, 2), 0.7)
    assert compare((alike[:10] + 1e-9, alike), ["a", "b"], random)[0] == 1


def test_draws_follow_the_seed_and_leave_the_global_state_alone():
    rng = np.random.default_rng(0)
    nats, codes = rng.exponential(size=(70, 3)), rng.integers(4, size=(70, 3)).astype(float)
    before = np.random.get_state()[1].copy()

    def found(seed, ordered):
        random, tables = np.random.default_rng(seed), (codes[:20], codes[20:])
        how = {"values": tables, "ordered": ordered}
        p, table = compare((nats[:20], nats[20:]), list("abc"), random, **how)
        return [p, *table.to_numpy().ravel()]

    ordered = [False] * 3
    np.testing.assert_array_equal(found(0, ordered), found(0, ordered))
    assert found(0, ordered) != found(1, ordered)
    one = found(0, ordered)[-8:]  # the last column, whatever the first is
    np.testing.assert_array_equal(one[:-1], found(0, [True, *ordered[1:]])[-8:-1])
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_a_verdict_is_of_the_level(model, usual):
    found = drift(model, rows(80, 100), usual)
    table = found.columns.assign(q_value=1.0)
    assert not dataclasses.replace(found, p_value=0.04, columns=table).drifted
    assert dataclasses.replace(found, p_value=0.02, columns=table).drifted
    assert dataclasses.replace(found, p_value=0.02, columns=table).drifted_columns == []


# -- which columns are named ----------------------------------------------------------------------


def copula(n, rng):
    """Five Gaussians, each pair with a correlation of 0.66."""
    z = 0.7 * rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, 5))
    return pd.DataFrame(z, columns=list("abcde"))


def categories(n, rng, first=(1, 1, 1)):
    """A tree: each column repeats the one before with probability 0.8, but e is a second child of a."""
    codes = [rng.choice(3, n, p=np.array(first) / sum(first))]
    for parent in (0, 1, 2, 0):
        codes.append(np.where(rng.random(n) < 0.8, codes[parent], rng.integers(3, size=n)))
    return pd.DataFrame(dict(zip("abcde", np.array(list("xyz"))[np.array(codes)], strict=True)))


def asked_of(density, batch, inliers):
    scorer, nats = asked(density, inliers)
    return scorer, batch, nats


CHANGES = {
    "none": (lambda column, _: column, []),
    "permuted": (lambda column, rng: rng.permutation(column), ["b"]),
    "shifted": (lambda column, _: column + 0.5, ["b"]),
    "replaced": (lambda column, rng: column.mask(rng.random(len(column)) < 0.25, "x"), ["b"]),
}


@functools.cache
def dependent(make):
    denoiser = "mixture" if make is copula else "tree"
    density = DiffusionDensity(denoiser=denoiser, random_state=0)
    return density.fit(make(1000, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("make", "change"),
    [
        *((copula, c) for c in ("none", "permuted", "shifted")),
        *((categories, c) for c in ("none", "permuted", "replaced")),
    ],
)
def test_the_column_that_was_changed_is_named_first(make, change):
    """And no other one, but with probability alpha."""
    density, (changed, expected), n, wrong = dependent(make), CHANGES[change], 2 * TIMES, 0
    for seed in range(1, n + 1):
        rng = np.random.default_rng(seed)
        inliers, batch = make(400, rng), make(400, rng)
        batch["b"] = changed(batch["b"], rng)
        found = drift(*asked_of(density, batch, inliers), reference=inliers)
        wrong += found.drifted_columns != expected
    assert stats.binom.sf(wrong - 1, n, 0.05) > 1e-3


def test_all_columns_with_other_values_are_named():
    density, right = dependent(copula), 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        inliers, batch = copula(400, rng), copula(400, rng)
        batch["b"], batch["d"] = batch["b"].mask(rng.random(400) < 0.1), batch["d"] + 1
        found = drift(*asked_of(density, batch, inliers), reference=inliers)
        right += sorted(found.drifted_columns) == ["b", "d"]
        alone = drift(*asked_of(density, batch, inliers))
        # no values are compared: the one because of missing cells, the other of values never seen
        assert sorted(alone.drifted_columns) == ["b", "d"]
    assert right


def test_surprisals_are_differences_of_log_probabilities():
    for make in (copula, categories):
        density = dependent(make)
        drawn = density.sample(80, random_state=0)
        rows = density.rows(drawn.assign(c=drawn["c"].mask(drawn.index % 7 == 0)))
        x, found = rows.x, surprisals(Scorer(density), rows)
        log_prob = density.denoiser_.log_prob
        for k, own in enumerate(found):
            others = x.clone()
            others[:, k] = math.nan
            there = ~x[:, k].isnan()
            naive = (log_prob(others) - log_prob(x))[there].mean()
            assert own == pytest.approx(naive.item(), abs=1e-4)


# -- two-sample tests -------------------------------------------------------------------------------


def assert_rate(count, n, level, *, exact=False):
    """That so many of n p-values were at most the level is no surprise; nor that so few, of an exact test."""
    assert stats.binom.sf(count - 1, n, level) > 1e-4
    assert not exact or stats.binom.cdf(count, n, level) > 1e-4


def same_column(a, b, kind, random=None, *, name=None):
    """The p-value and the distance of the values of a column, or what the table of columns says of it."""
    random = np.random.default_rng(0) if random is None else random
    if name is None:
        a, b = a[~np.isnan(a)], b[~np.isnan(b)]
        return same_categories(a, b, random) if kind == "nominal" else same_distribution(a, b)
    nats, tables = (np.zeros((len(t), 1)) for t in (a, b)), (a[:, None], b[:, None])
    return compare(tuple(nats), ["a"], random, values=tables, ordered=[kind != "nominal"])[1][
        name
    ].item()


def test_means_against_enumeration():
    rng = np.random.default_rng(0)
    for n, m in ((3, 6), (6, 8)):  # fewer choices than permutations are drawn, and more
        a, b = (t.round(4) for t in (rng.exponential(size=n), rng.exponential(size=m) + 0.5))
        pooled, far = np.concatenate([a, b]), []
        for chosen in itertools.combinations(range(n + m), n):
            one = pooled[list(chosen)]
            far.append(abs(one.mean() - np.delete(pooled, chosen).mean()))
        exact = np.mean(np.array(far) >= far[0] - 1e-9)
        error = 4 * math.sqrt(exact * (1 - exact) / N_PERMUTATIONS) + 1 / N_PERMUTATIONS
        assert abs(same_mean(a, b, rng) - exact) < error
        assert abs(same_mean(b, a, rng) - exact) < error
    assert same_mean(np.ones(4), np.ones(9), rng) == 1


def test_many_rows_have_gaussian_means(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=300), rng.exponential(size=400) * 1.1
    exact = same_mean(a, b, rng)
    monkeypatch.setattr(f"{TESTS}.MANY", 200)
    assert abs(same_mean(a, b, rng) - exact) < 0.05


def test_the_test_of_means_is_exact_at_its_smallest_level(monkeypatch):
    """The observed means count as one of the permutations: 0 is impossible, and 1 / 20 as rare as it says."""
    random = np.random.default_rng(0)
    assert same_mean(np.zeros(50), np.ones(60), random) == 1 / (1 + N_PERMUTATIONS)
    monkeypatch.setattr(f"{TESTS}.N_PERMUTATIONS", 19)
    draws = random.exponential(size=(1500, 30))
    p = np.array([same_mean(x[:10], x[10:], random) for x in draws])
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
        p.append(same_distribution(a, b)[0])
        gap = (a[:, None] <= pooled).mean(0) - (b[:, None] <= pooled).mean(0)
        distance.append(round(n * m * np.abs(gap).max()))
    naive = (np.array(distance) >= np.array(distance)[:, None]).mean(1)
    assert (p >= naive * (1 - 1e-9)).all()
    if len(np.unique(pooled)) == n + m:
        np.testing.assert_allclose(p, naive, rtol=1e-9)


def test_kolmogorov_and_smirnov_at_the_ends():
    p, apart = same_distribution(np.arange(50.0), np.arange(50.0, 110.0))
    assert math.isclose(p, 2 / math.comb(110, 50), rel_tol=1e-9)
    assert apart == 1
    assert same_distribution(np.zeros(0), np.ones(3)) == (1, 0)


def test_kolmogorov_and_smirnov_of_many_values():
    """Asymptotic, of few against many too."""
    rng = np.random.default_rng(0)
    many = rng.normal(size=10_001)
    for few in (rng.normal(size=5) + 1, rng.normal(size=900) + 0.1):
        exact = stats.ks_2samp(few, many, method="exact").pvalue
        assert math.isclose(same_distribution(few, many)[0], exact, rel_tol=0.05)


def all_tables(both, n):
    """All counts of n values of a sample, if ``both`` have these counts together, and their probabilities."""
    tables = [t for t in itertools.product(*(range(1 + min(n, c)) for c in both)) if sum(t) == n]
    return np.array(tables), stats.multivariate_hypergeom.pmf(tables, both, n)


def of_tables(tables, both, *, exchanged=False):
    """P-values of samples with these counts."""
    p, k = [], np.arange(len(both))
    for table in tables:
        a, b = np.repeat(k, table), np.repeat(k, both - table)
        samples = (b, a) if exchanged else (a, b)
        p.append(same_categories(*samples, np.random.default_rng(len(p)))[0])
    return np.array(p)


@pytest.mark.parametrize(
    "both", [(20, 12, 9), (20, 11, 4, 3)], ids=["all told apart", "two pooled"]
)
def test_categories_against_enumeration(both):
    tables, chance = all_tables(both, 8)
    told = np.add.reduceat(tables, [0, 1, 2], axis=1)  # rare ones pooled
    chi = (told**2 / np.add.reduceat(both, [0, 1, 2])).sum(1)
    naive = np.array([chance[chi >= c * (1 - 1e-9)].sum() for c in chi])
    for exchanged in (False, True):
        p = of_tables(tables, both, exchanged=exchanged)
        error = 5 * np.sqrt(naive / N_TABLES) + 2 / N_TABLES
        assert (np.abs(p - naive) < error).all()


def test_tables_drawn_are_exact_at_their_smallest_level(monkeypatch):
    """The observed table counts as one of those drawn."""
    monkeypatch.setattr(f"{TESTS}.N_TABLES", 19)
    rng = np.random.default_rng(0)
    p = []
    for _ in range(600):
        codes = rng.integers(6, size=330)
        p.append(same_categories(codes[:30], codes[30:], rng)[0])
    assert min(p) > 0.0499
    for k in (1, 2, 3, 4):
        found = np.count_nonzero(np.array(p) < (k + 0.5) / 20)
        assert_rate(found, len(p), k / 20)
    assert found > 90  # of 120


def test_a_column_that_changed_completely_has_a_tiny_p_value():
    rng = np.random.default_rng(0)
    usual = rng.integers(30, size=500).astype(float)
    for batch in (np.full(10, 3.0), np.full(10, 30.0), np.arange(30.0, 40.0)):
        assert same_column(batch, usual, "nominal", rng)[0] <= 1e-4
    assert same_column(np.full(10, 1.0), np.zeros(500), "nominal", rng)[0] < 1e-12
    assert same_column(rng.normal(size=10) + 9, rng.normal(size=500), "continuous", rng)[0] < 1e-12
    assert same_column(np.full(10, np.nan), usual, "nominal", name="p_missing") < 1e-12
    few = rng.integers(3, size=500).astype(float)
    assert same_column(np.zeros(10), few, "nominal", rng)[0] < 1e-3
    spread = rng.integers(15, 45, size=300).astype(float)
    assert same_column(spread, np.concatenate([usual, usual]), "nominal", rng)[0] < 2e-4


def test_rare_categories_are_pooled(monkeypatch):
    monkeypatch.setattr(f"{TESTS}.N_TABLES", 999)
    rng = np.random.default_rng(0)
    p = []
    for _ in range(100):
        a, b = (rng.zipf(1.5, n).clip(max=400).astype(float) for n in (80, 120))
        p.append(same_column(a, b, "nominal", rng)[0])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert same_column(np.zeros(9), np.zeros(4), "nominal", rng)[0] == 1
    assert same_column(np.full(9, np.nan), np.zeros(4), "ordinal", rng)[0] == 1
    assert same_column(np.full(9, np.nan), np.zeros(4), "nominal", rng)[0] == 1
    assert same_column(np.zeros(90), np.ones(90), "ordinal", rng)[0] < 1e-6
    many = np.arange(500.0)
    assert same_column(many, np.concatenate([many, many]), "nominal", rng)[0] > 0.01
    assert same_column(many % 7, np.concatenate([many, many]), "nominal", rng)[0] == 0.001
