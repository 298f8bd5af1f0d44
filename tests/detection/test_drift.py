"""Batches of rows against ordinary ones and against the model's own."""

import dataclasses
import functools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.detection.drift import Drift, _surprisals, compare, differs, drift
from discrete_itd.detection.score import Scorer
from discrete_itd.detection.two_samples import distance
from discrete_itd.recipes import Network

pytestmark = pytest.mark.single_precision

QUICK = {
    "denoiser": Network(width=16, depth=1, base="independent"),
    "max_steps": 150,
    "n_evaluations": 8,
    "random_state": 0,
}
QUICK |= {
    "schedule": CoordinateSchedule(4)
}  # in blocks, columns that jump together blame one another


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


@functools.cache
def fitted():
    density = DiffusionDensity(**QUICK).fit(TRAIN)
    return density, density.explain(USUAL)


@pytest.fixture
def model():
    return fitted()[0]


@pytest.fixture
def usual():
    return fitted()[1]


def test_rows_like_the_usual_ones_are_not_flagged(model, usual):
    """P-values of batches without drift: few are small, of rows and of columns, of shares and of values."""
    found = [drift(model, rows(80, 100 + s), usual, reference=USUAL, n_model=20) for s in range(25)]
    p = np.array([f.p_value for f in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert sum(f.drifted for f in found) <= 4
    tests = pd.concat([f.columns.drop(index="fixed") for f in found])
    for name in ("p_nats", "p_values"):
        assert (tests[name] < 0.05).mean() < 0.09
        assert (tests[name] < 0.5).mean() > 0.2
    assert "No drift in 80 rows" in str(found[p.argmax()])


@pytest.mark.parametrize("column", ["word", "size"])
def test_a_shuffled_column_is_found_in_its_shares(model, usual, column):
    batch = rows(200, 7)
    batch[column] = np.random.default_rng(0).permutation(batch[column])
    found = drift(model, batch, usual, n_model=50)
    assert found.drifted
    assert found.p_value < 0.01
    assert column in found.drifted_columns
    assert not {"other", "fixed"} & set(found.drifted_columns)
    assert found.columns["shift"].sum() > 0.2
    assert f"\n    {column}: " in str(found)


def test_a_shifted_column_is_found_in_its_values(model, usual):
    """Which a more usual row may hide from the code length."""
    batch = rows(200, 8).assign(other="p")
    found = drift(model, batch, usual, reference=USUAL, n_model=50)
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
    random = np.random.RandomState(0)
    before = np.exp(random.normal(size=(20_000, 3)))
    batch = np.exp(random.normal(size=(20_000, 3)))
    before[:, 1] = before[:, 1].round(1)
    batch[:, 1] = before[:, 1] + 0.001
    batch[:, 2] += 0.1
    p_value, table = compare(batch, before, list("abc"), random)
    assert (table["q_value"] < 1e-6).tolist() == [False, True, True]
    np.testing.assert_allclose(table["effect"][1:], [0.001, 0.1], atol=0.02)
    table["moved"] = False
    found = Drift(2, 2, 2, *[0.0] * 4, p_value, *[0.0] * 4, columns=table, alpha=0.05)
    assert found.dependent_columns == ["c"]


@pytest.mark.parametrize("kind", ["nominal", "ordinal"])
def test_distances_are_those_of_all_sets_or_of_all_thresholds(kind):
    """Total variation is the largest difference of the probability of any set; of numbers, of any {x <= t}."""
    random = np.random.default_rng(1)
    a, b = random.integers(0, 4, 30).astype(float), random.integers(0, 4, 50).astype(float)
    a[:3] = np.nan
    sets = [[v for v in range(4) if m >> v & 1] for m in range(16)]
    if kind != "nominal":
        sets = [list(range(t + 1)) for t in range(4)]
    there = a[~np.isnan(a)]
    naive = max(abs(np.isin(there, s).mean() - np.isin(b, s).mean()) for s in sets)
    assert distance(a, b, kind) == pytest.approx(max(naive, 0.1))
    assert distance(np.full(4, np.nan), b, kind) == 1.0


def test_nats_and_their_errors(model, usual):
    batch = rows(50, 9)
    found = drift(model, batch, usual, n_model=200)
    scores = model.score_samples(batch)
    assert math.isclose(found.nats, -scores.mean(), rel_tol=1e-6)
    assert math.isclose(found.stderr, scores.std(ddof=1) / math.sqrt(50), rel_tol=1e-6)
    assert math.isclose(found.inlier_nats, usual.to_numpy().sum(1).mean(), rel_tol=1e-9)
    own = -model.score_samples(model.sample(1000, random_state=1))
    assert abs(found.model_nats - own.mean()) < 4 * found.model_stderr
    assert (found.model_nats, found.model_stderr) == (
        found.inlier_model_nats,
        found.inlier_model_stderr,
    )
    shares = model.explain(batch)
    np.testing.assert_allclose(found.columns["nats"], shares.mean())
    np.testing.assert_allclose(found.columns["inlier_nats"], usual.mean())
    frame = found.to_frame()
    assert frame.loc["batch"].tolist() == [50, found.nats, found.stderr]
    assert frame.shape == (4, 3)


def test_q_values_are_those_of_benjamini_and_hochberg(model, usual):
    table = drift(model, rows(60, 3), usual, reference=USUAL, n_model=10).columns
    p = table["p_value"].to_numpy()
    smallest = table[["p_nats", "p_values"]].min(axis=1) * 2
    np.testing.assert_allclose(p, smallest.clip(upper=1))
    order = np.argsort(p)
    naive = [min(p[order[k:]] * 5 / np.arange(k + 1, 6)) for k in range(5)]
    np.testing.assert_allclose(table["q_value"].to_numpy()[order], np.minimum(naive, 1))


def test_the_model_is_compared_on_the_same_cells(model):
    """Rows that lack cells have fewer nats, and so have the model's own then."""
    lacking, before = model.sample(200, random_state=1), model.sample(200, random_state=2)
    found = drift(model, lacking.assign(size=np.nan), model.explain(before), n_model=200)
    assert abs(found.from_model) < 4
    assert abs(found.misfit) < 4
    assert found.columns.loc["size", ["nats", "p_nats"]].tolist() == [0.0, 1.0]
    assert abs(found.model_nats - found.inlier_model_nats) > 0.2


def test_a_model_that_is_off_is_told_apart_from_drift():
    blind = DiffusionDensity(**{**QUICK, "max_steps": 0}).fit(TRAIN[TRAIN["word"] == "low"])
    found = drift(blind, rows(100, 5), blind.explain(USUAL), n_model=100)
    assert not found.drifted
    assert abs(found.misfit) > 5


def test_missing_as_a_category():
    gone = np.random.default_rng(0).random(600) < 0.3
    told = DiffusionDensity(**{**QUICK, "max_steps": 20}, missing="category").fit(
        TRAIN.assign(word=TRAIN["word"].mask(gone))
    )
    inliers = USUAL.assign(word=USUAL["word"].mask(gone[:300]))
    before = told.explain(inliers)
    batch = rows(150, 6)
    found = drift(told, batch.assign(word=batch["word"].mask(gone[:150])), before, n_model=200)
    assert not found.drifted
    drawn = told.sample(200, random_state=np.random.RandomState(0))  # lacks cells as it is
    assert math.isclose(found.model_nats, -told.score_samples(drawn).mean(), rel_tol=1e-6)
    batch = batch.assign(word=None)
    found = drift(told, batch, before, reference=inliers, n_model=20)
    assert "word" in found.drifted_columns


def test_arrays_and_single_rows():
    cells = np.random.default_rng(0).integers(0, 3, (200, 2))
    density = DiffusionDensity(**{**QUICK, "max_steps": 20}).fit(cells)
    usual = density.explain(cells[:50])
    found = drift(density, cells[:1], usual, reference=cells, n_model=10)
    assert found.stderr == math.inf
    assert found.from_model == 0
    assert 0 < found.p_value <= 1
    assert not found.drifted
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        drift(density, cells[:0], usual)


def test_wrong_arguments(model, usual):
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, got 2"):
        drift(model, USUAL, usual, alpha=2)
    with pytest.raises(ValueError, match="inlier_nats must hold at least two rows, got 1"):
        drift(model, USUAL, usual[:1])
    with pytest.raises(ValueError, match="column 'word': inlier_nats has no such column"):
        drift(model, USUAL, usual.drop(columns="word"))
    with pytest.raises(TypeError, match="n_model must be an integer"):
        drift(model, USUAL, usual, n_model=2.5)
    with pytest.raises(ValueError, match="column 'word': the model knows it"):
        drift(model, USUAL, usual, reference=USUAL.drop(columns="word"))


# -- without a model ------------------------------------------------------------------------------


def test_levels_of_whole_batches(monkeypatch):
    """Of columns that depend on one another, and of every size, one row too."""
    monkeypatch.setattr("discrete_itd.detection.two_samples.N_PERMUTATIONS", 199)
    random = np.random.RandomState(0)
    mixing = random.normal(size=(4, 4))
    wrong = {1: 0, 10: 0}
    for n in wrong:
        for _ in range(70):
            nats = random.exponential(size=(n + 60, 4)) @ mixing
            gone = random.random_sample(nats.shape) < 0.1
            nats[gone] = 0
            codes = np.where(gone, np.nan, random.poisson(1.0, nats.shape))
            kinds = ["nominal", "ordinal"] * 2
            p_value, table = compare(
                nats[:n], nats[n:], list("abcd"), random, codes=(codes[:n], codes[n:]), kinds=kinds
            )
            wrong[n] += differs(p_value, table["q_value"].to_numpy(), 0.1)
    for count in wrong.values():
        assert stats.binom.sf(count - 1, 70, 0.1) > 1e-4


def test_rounding_errors_break_no_ties():
    """Shares of equal rows differ in their last digits where a table is of another size."""
    random = np.random.RandomState(0)
    nats = random.randint(1, 4, size=(200, 2)) * 0.7
    tables = [compare(nats[:40] + e, nats, ["a", "b"], random)[1] for e in (0, 1e-9, -1e-9)]
    for table in tables[1:]:
        np.testing.assert_array_equal(table["p_nats"], tables[0]["p_nats"])
    alike = np.full((60, 2), 0.7)
    assert compare(alike[:10] + 1e-9, alike, ["a", "b"], random)[0] == 1


def test_draws_follow_the_seed_and_leave_the_global_state_alone():
    rng = np.random.default_rng(0)
    nats, codes = rng.exponential(size=(70, 3)), rng.integers(4, size=(70, 3)).astype(float)
    before = np.random.get_state()[1].copy()

    def found(seed, kinds):
        random = np.random.RandomState(seed)
        p, table = compare(
            nats[:20], nats[20:], list("abc"), random, codes=(codes[:20], codes[20:]), kinds=kinds
        )
        return [p, *table.to_numpy().ravel()]

    kinds = ["nominal"] * 3
    np.testing.assert_array_equal(found(0, kinds), found(0, kinds))
    assert found(0, kinds) != found(1, kinds)
    one = found(0, kinds)[-8:]  # the last column, whatever the first is
    np.testing.assert_array_equal(one[:-1], found(0, ["ordinal", *kinds[1:]])[-8:-1])
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_a_verdict_is_of_the_level(model, usual):
    found = drift(model, rows(80, 100), usual, n_model=10)
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
    """And no other one, but with probability alpha; those that depend on it differ, too."""
    density, (changed, expected), n, wrong, more = dependent(make), CHANGES[change], 8, 0, 0
    for seed in range(1, n + 1):
        rng = np.random.default_rng(seed)
        inliers, batch = make(400, rng), make(400, rng)
        batch["b"] = changed(batch["b"], rng)
        nats = density.explain(inliers)
        found = drift(density, batch, nats, reference=inliers, n_model=20)
        wrong += found.drifted_columns != expected
        more += len(found.dependent_columns)
        assert not set(found.dependent_columns) & set(found.drifted_columns)
        assert (
            f"others {len(found.dependent_columns)} more: " in str(found)
            or not found.dependent_columns
        )
    assert stats.binom.sf(wrong - 1, n, 0.05) > 1e-3  # at most 2
    assert more >= n / 2 or change != "permuted"


def test_all_columns_with_other_values_are_named():
    density, right = dependent(copula), 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        inliers, batch = copula(400, rng), copula(400, rng)
        batch["b"], batch["d"] = batch["b"].mask(rng.random(400) < 0.1), batch["d"] + 1
        found = drift(density, batch, density.explain(inliers), reference=inliers, n_model=20)
        right += sorted(found.drifted_columns) == ["b", "d"]
        alone = drift(density, batch, density.explain(inliers), n_model=20)
        assert alone.drifted_columns == ["b"]  # cells are missing; no values are compared
        assert "d" in alone.dependent_columns
    assert right >= 3


def test_surprisals_are_differences_of_log_probabilities():
    for make in (copula, categories):
        density = dependent(make)
        x = density.rows(density.sample(80, random_state=0)).x
        x[::7, 2] = math.nan
        found, log_prob = _surprisals(Scorer(density), x), density.denoiser_.log_prob
        for k, own in enumerate(found):
            others = x.clone()
            others[:, k] = math.nan
            there = ~x[:, k].isnan()
            naive = (log_prob(others) - log_prob(x))[there].mean()
            assert own == pytest.approx(naive.item(), abs=1e-4)
