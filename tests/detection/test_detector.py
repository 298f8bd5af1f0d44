"""The detector: scikit-learn's contract, calibrated alarms, robust fits, files."""

import copy
import inspect
import pickle
import re
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection import detector as detecting
from discrete_itd.detection import score as scoring
from discrete_itd.detection.score import Scorer
from discrete_itd.detection.thresholds import Threshold, at_offset
from discrete_itd.encoders import TableEncoder
from discrete_itd.models.model import attributions
from discrete_itd.recipes import Network, Tree
from discrete_itd.storage.files import read_state, write_state

pytestmark = pytest.mark.single_precision

QUICK = {
    "denoiser": "tree",
    "max_steps": 10,
    "n_evaluations": 8,
    "random_state": 0,
}
TREE = DiffusionDensity(denoiser="tree", random_state=0)
NETWORK = Network(width=8, depth=1, base="independent")


def detector(denoiser="tree", **parameters):
    density = DiffusionDensity(**{**QUICK, "denoiser": denoiser})
    return DiffusionOutlierDetector(density, **{"random_state": 0, **parameters})


def categories(n=200, seed=0):
    """Column b follows a, c is by itself."""
    random = np.random.default_rng(seed)
    a = random.choice(list("xyz"), n)
    return pd.DataFrame({"a": a, "b": np.char.add(a, "!"), "c": random.choice(list("uv"), n)})


def mixed(n=200, seed=0):
    """A number that follows a category, and a count."""
    random = np.random.default_rng(seed)
    a = random.choice(["low", "high"], n)
    number = np.where(a == "low", -3.0, 3.0) + random.normal(0, 0.5, n)
    return pd.DataFrame({"a": a, "number": number, "count": random.poisson(3, n)})


@pytest.fixture(scope="module")
def fitted():
    return DiffusionOutlierDetector(TREE, false_alarm_rate=0.05, random_state=0).fit(categories())


@pytest.fixture(scope="module")
def fitted_mixed():
    return detector(false_alarm_rate=0.05).fit(mixed())


# -- scikit-learn ---------------------------------------------------------------------------------


EXPECTED_FAILED_CHECKS = {
    "check_outliers_train": "contamination is the share of alarms among new rows, and so at held-out rows, not among"
    " those that were fitted to: test_as_many_new_rows_raise_an_alarm_as_contamination_says",
    "check_outliers_fit_predict": "fit_predict labels each row by a detector that was fitted to others",
}


@parametrize_with_checks(
    [
        DiffusionOutlierDetector(
            detector().set_params(density__denoiser="independent").density, random_state=0
        )
    ],
    expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS,
)
@pytest.mark.filterwarnings("ignore:false_alarm_rate")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_checks_are_many():
    names = {
        getattr(check, "func", check).__name__
        for _, check in estimator_checks_generator(detector())
    }
    assert len(names) > 40
    assert {"check_outliers_train", "check_outliers_fit_predict"} <= names


def test_a_denoiser_stands_for_a_density_with_it(tmp_path):
    rows, tree, rate = categories(), Tree(), {"false_alarm_rate": 0.1, "random_state": 0}
    nested = DiffusionOutlierDetector(DiffusionDensity(denoiser=tree), **rate).fit(rows)
    short = clone(DiffusionOutlierDetector(denoiser=tree, **rate)).fit(rows)
    assert np.array_equal(short.score_samples(rows), nested.score_samples(rows))
    short.save(tmp_path / "m")
    again = DiffusionOutlierDetector.load(tmp_path / "m")
    assert (again.density, again.denoiser) == (None, tree)


# -- scores and alarms ----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["fitted", "fitted_mixed"])
def test_an_alarm_is_a_small_p_value(which, request):
    model = request.getfixturevalue(which)
    X = (categories if which == "fitted" else mixed)(80, seed=5)
    p, decision = model.p_values(X), model.decision_function(X)
    clear = abs(decision) > 1e-9  # rounding may put a calibration row's twin on either side
    assert np.array_equal((p <= 0.05)[clear], (model.predict(X) == -1)[clear])
    assert np.allclose(decision, model.score_samples(X) - model.offset_)
    assert 0 <= model.threshold_.low < model.threshold_.false_alarm_rate <= 0.05


def test_most_rows_equal_and_scored_one_by_one():
    """A threshold among ties raises no alarm of rounding, whatever batch a row comes in."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{j}": random.choice(list("abc"), 300) for j in range(8)})
    same = random.random(300) < 0.97
    frame.loc[same] = frame.iloc[:1].to_numpy().repeat(same.sum(), 0)
    model = detector(false_alarm_rate=0.05).fit(frame)
    common = frame[(frame == frame.mode().iloc[0]).all(axis=1)][:5]
    together = model.p_values(frame)
    assert (model.predict(common) == 1).all()
    for i in (0, 7):
        row = frame.iloc[[i]]
        assert model.predict(row)[0] == model.predict(frame)[i]
        assert model.p_values(row)[0] == together[i]
    # scores as another machine might round them
    exact, random = model._scorer.score, np.random.default_rng(1)
    model._scorer = copy.copy(model._scorer)
    object.__setattr__(
        model._scorer,
        "score",
        lambda X: exact(X) * (1 + 2e-6 * random.uniform(-1, 1, len(X))),
    )
    again = [model.predict(frame.iloc[[i]])[0] for i in common.index]
    assert (np.array(again) == 1).all()
    assert np.allclose(model.p_values(common), 1.0)


QUESTIONS = {
    "score_samples": lambda model, X: model.score_samples(X),
    "decision_function": lambda model, X: model.decision_function(X),
    "predict": lambda model, X: model.predict(X),
    "p_values": lambda model, X: model.p_values(X),
    "discoveries": lambda model, X: model.discoveries(X),
    "explain": lambda model, X: model.explain(X),
    "reasons": lambda model, X: model.reasons(X),
    "expected": lambda model, X: model.expected(X),
    "drift": lambda model, X: model.drift(X, reference=X).columns,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_properties_a_table_and_its_rows_have_one_answer(question, fitted_mixed, monkeypatch):
    """And the table is read and encoded once, or not at all."""
    X, ask = mixed(12, seed=3), QUESTIONS[question]
    of_table, rows, sizes = ask(fitted_mixed, X), fitted_mixed.density_.rows(X), []
    transform = TableEncoder.transform

    def counted(self, frame):
        sizes.append(len(frame))
        return transform(self, frame)

    monkeypatch.setattr(TableEncoder, "transform", counted)
    of_rows = ask(fitted_mixed, rows)
    assert 12 not in sizes  # of drift, rows drawn from the model
    if isinstance(of_table, pd.DataFrame):
        pd.testing.assert_frame_equal(of_table, of_rows)
    else:
        np.testing.assert_array_equal(of_table, of_rows)


def test_properties_the_model_scores_the_same_rows_once(fitted_mixed, monkeypatch):
    sizes = []

    def counted(models, asked):
        sizes.append(len(asked.x))
        return attributions(models, asked)

    monkeypatch.setattr(scoring, "attributions", counted)
    rows = fitted_mixed.density_.rows(mixed(12, seed=3))
    nats = fitted_mixed.explain(rows)
    again = fitted_mixed.explain(rows)
    again.iloc[:, :] = 0.0  # a copy
    assert np.allclose(fitted_mixed.score_samples(rows), -nats.sum(axis=1))
    fitted_mixed.p_values(rows), fitted_mixed.discoveries(rows)
    assert sizes == [12]


def test_companions_answer_for_cells():
    """Here one that knows of no dependence: it changes what is said of cells, not the score."""
    density = DiffusionDensity(denoiser="independent", random_state=0).fit(mixed())
    model, X = density.model_, mixed(9, seed=1)
    asked = DiffusionDensity(denoiser="forest", random_state=0).fit(mixed())
    detector = DiffusionOutlierDetector(
        FrozenEstimator(asked), false_alarm_rate=0.1, random_state=0
    ).fit(mixed(seed=2))
    before, told = detector.score_samples(X), detector.expected(X)
    asked.model_ = replace(asked.model_, companion=model.denoiser)
    scorer = detector._scorer
    assert np.allclose(detector.score_samples(X), before)
    assert not np.allclose(
        detector.expected(X)["expected_probability"], told["expected_probability"]
    )
    assert scorer.model.conditional is scorer.model.companion is model.denoiser


# -- p-values -------------------------------------------------------------------------------------


def test_without_calibration_rows_there_are_scores_only():
    X = mixed(60)
    model = detector(calibration_fraction=0, false_alarm_rate=0.1).fit(X)
    assert (model.predict(X) == -1).mean() == pytest.approx(0.1, abs=0.02)
    assert np.isnan(model.threshold_.false_alarm_rate)
    for ask in (model.p_values, model.discoveries, model.drift):
        with pytest.raises(ValueError, match="no calibration rows"):
            ask(mixed(5))
    odd = mixed(5).assign(number=30.0)
    assert (model.reasons(odd)["column"] == "number").sum() == 5


def test_no_more_rows_are_held_out_than_are_needed(monkeypatch):
    monkeypatch.setattr("discrete_itd.detection.division.MOST_HELD", 25)
    model = detector(false_alarm_rate=0.1).fit(categories())
    assert len(model.calibration_scores_) == 25


def test_too_few_calibration_rows_are_said():
    with pytest.warns(UserWarning, match="cannot be guaranteed by 10 calibration rows"):
        model = detector(false_alarm_rate=0.01).fit(categories(50))
    assert model.threshold_.false_alarm_rate == pytest.approx(1 / 11)


# -- its surface ----------------------------------------------------------------------------------


def test_a_detector_is_whole_and_has_few_names(fitted):
    """Besides what scikit-learn's bases and its protocol of metadata define; all methods in one file, or in storage."""
    of_bases = {*dir(BaseEstimator), *dir(OutlierMixin), *dir(TransformerMixin)}
    of_bases |= {"n_features_in_", "feature_names_in_"}
    names = {n for n in dir(fitted) if not re.match("_|set_[a-z]+_request", n)} - of_bases
    parameters = fitted.get_params(deep=False).keys()
    assert len(parameters) <= 7
    assert len(names - parameters) <= 26
    methods = [inspect.unwrap(m) for n in names if callable(m := getattr(type(fitted), n, None))]
    homes = {m.__module__ for m in methods}
    assert homes == {"discrete_itd.detection.detector", "discrete_itd.storage.values"}


# -- thresholds -----------------------------------------------------------------------------------


def test_rows_with_the_score_of_the_threshold_raise_no_alarm(fitted, monkeypatch):
    """They are equal to calibration rows within rounding, which count as at least as extreme: one rule of ties."""
    X = pd.concat([categories(300, seed=1), pd.DataFrame({"a": ["x"], "b": ["y!"], "c": ["u"]})])
    score, lowest = fitted.score_samples(X), fitted.calibration_scores_.min()
    equal, n = np.isclose(score, lowest), len(fitted.calibration_scores_)
    assert equal.any()
    for error in (-1e-5, 0, 1e-5):  # of rounding, as another batch may have it
        rounded = score + error * (1 + abs(score))
        monkeypatch.setattr(type(fitted), "score_samples", lambda *_, rounded=rounded: rounded)
        assert (fitted.predict(X)[equal] == 1).all()
        assert (fitted.predict(X)[score < lowest - 1e-2] == -1).all()
        p = fitted.p_values(X)[equal]
        assert (p == (1 + np.isclose(fitted.calibration_scores_, lowest).sum()) / (n + 1)).all()


def test_alarms_expected_of_a_detector(fitted):
    found = fitted.threshold_.alarms_expected(100)
    assert found == at_offset(fitted._lowered(), fitted.offset_).alarms_expected(100)
    wider = fitted.threshold_at_rate(0.2)
    assert wider.alarms_expected(100).mean <= 20
    narrow = fitted.threshold_.alarms_expected(100, level=0.5)
    assert found.low <= narrow.low <= narrow.high <= found.high
    with pytest.raises(ValueError, match="there are no calibration rows: fit with"):
        at_offset(np.zeros(0), -1.0).alarms_expected(100)


def test_thresholds_are_chosen_and_set(fitted_mixed):
    model = pickle.loads(pickle.dumps(fitted_mixed))
    by_rate = model.threshold_at_rate(0.1)
    assert by_rate.alarms_expected(100).mean <= 10
    surer = model.threshold_at_rate(0.1, confidence=0.95)
    assert surer.offset < by_rate.offset
    assert model.set_threshold(surer).offset_ == surer.offset
    X = mixed(100, seed=1)
    assert np.array_equal(model.predict(X) == -1, model.score_samples(X) < surer.offset)


def test_thresholds_by_cost(fitted):
    odd = pd.DataFrame({"a": ["x", "y", "z"], "b": ["y!", "z!", "x!"], "c": "u"})
    costs = {"miss_cost": 100, "check_cost": 1}
    labelled = fitted.threshold_at_cost(**costs, anomalies=odd, prevalence=0.1)
    assert (fitted.score_samples(odd) < labelled.offset).all()
    assert labelled.cost[0] < 1
    usual = fitted.threshold_at_cost(**costs, anomalies=categories(100, seed=1), prevalence=1e-4)
    assert usual.offset == -np.inf
    assert (fitted.predict(odd, threshold=usual) == 1).all()


def test_impossible_thresholds_are_refused(fitted):
    with pytest.raises(ValueError, match="cannot guarantee"):
        fitted.threshold_at_rate(1e-6)
    with pytest.raises(ValueError, match="at least one row"):
        fitted.threshold_at_cost(1, 1, anomalies=categories(9)[:0], prevalence=0.1)


def test_drift_needs_calibration_rows():
    density = DiffusionDensity(denoiser="tree", random_state=0)
    settings = {"calibration_fraction": 0.01, "false_alarm_rate": 0.5, "random_state": 0}
    model = DiffusionOutlierDetector(density, **settings).fit(categories(40))
    assert len(model.calibration_scores_) == 1
    with pytest.raises(ValueError, match=r"two calibration rows, got 1: .*calibration_fraction"):
        model.drift(categories(5))


def test_only_a_threshold_is_set(fitted):
    with pytest.raises(TypeError, match="must be a Threshold"):
        fitted.set_threshold(-3.0)
    assert isinstance(fitted.threshold_, Threshold)


# -- robust fits ----------------------------------------------------------------------------------


def contaminated(n_odd=20):
    """Columns that all say the same, but in the last rows."""
    random = np.random.default_rng(0)
    same = np.repeat(random.choice(list("xyz"), (400, 1)), 6, axis=1)
    odd = random.choice(list("xyz"), (n_odd, 6))
    return pd.DataFrame(np.concatenate([same, odd]), columns=list("abcdef"))


def test_as_many_new_rows_raise_an_alarm_as_contamination_says():
    """The threshold is that of rows which were not fitted to, however closely a model fits the others."""
    rates = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        kind, cells = random.integers(0, 9, (1400, 1)), random.integers(0, 9, (1400, 5))
        cells = np.where(random.random((1400, 5)) < 0.8, kind, cells)
        odd = random.random(1400) < 0.05
        cells[odd] = random.integers(0, 9, (odd.sum(), 5))
        X = pd.DataFrame(cells).astype(str).add_prefix("x")
        model = DiffusionOutlierDetector(denoiser="tree", contamination=0.05, random_state=seed)
        model.fit(X[:400])
        assert model.threshold_.false_alarm_rate == pytest.approx(4 / 81)
        rates.append((model.predict(X[400:]) == -1).mean())
    spread = stats.beta.std(4, 77) / 4**0.5  # the law of the rate, given the calibration rows
    assert abs(np.mean(rates) - 4 / 81) < 3 * spread


def test_few_calibration_rows_bound_contamination():
    with pytest.warns(UserWarning, match=r"contamination=0.02 cannot be guaranteed by 20"):
        model = DiffusionOutlierDetector(TREE, contamination=0.02).fit(contaminated()[-100:])
    assert model.threshold_.false_alarm_rate == pytest.approx(1 / 21)


def test_what_calibration_rows_with_anomalies_cannot_tell():
    X = contaminated()
    model = DiffusionOutlierDetector(TREE, contamination=20 / 420, random_state=0).fit(X)
    with pytest.warns(UserWarning, match="calibration rows hold anomalies"):
        model.discoveries(X)
    costs = {"miss_cost": 10, "check_cost": 1}
    assert model.threshold_at_cost(anomalies=X[400:], prevalence=0.05, **costs).contaminated


# -- a density that is there ----------------------------------------------------------------------


def test_a_frozen_density_is_calibrated_only():
    density = DiffusionDensity(**QUICK).fit(categories())
    model = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=0.1)
    model.fit(categories(60, seed=1))
    assert model.density_ is density
    assert len(model.calibration_scores_) == 60
    np.testing.assert_array_equal(
        model.calibration_scores_, model.score_samples(categories(60, seed=1))
    )


def test_a_frozen_density_on_rows_that_are_not_all_ordinary():
    density = DiffusionDensity(**QUICK).fit(mixed(80))
    model = DiffusionOutlierDetector(FrozenEstimator(density), contamination=0.1)
    X = mixed(60, seed=1)
    assert (model.fit(X).predict(X) == -1).mean() == pytest.approx(0.1, abs=0.02)
    assert "anomalies among them" in str(model.threshold_)
    assert model.threshold_at_rate(0.1).contaminated


def test_a_density_is_cloned_not_touched():
    density = DiffusionDensity(**QUICK)
    DiffusionOutlierDetector(density, false_alarm_rate=0.1).fit(categories())
    assert not hasattr(density, "model_")


def test_a_seed_makes_the_fit():
    scores = []
    for _ in range(2):
        density = DiffusionDensity(**{**QUICK, "random_state": None})
        model = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=3)
        scores.append(model.fit(categories()).score_samples(categories(9)))
    assert np.array_equal(*scores)


@pytest.mark.slow
@pytest.mark.parametrize("table", [categories, mixed])
def test_more_evaluations_change_the_scores_of_rows_already_scored(table):
    """A score along paths is never that of the density as it was: Rows remember none."""
    model = detector(NETWORK, false_alarm_rate=0.1).fit(table())
    rows = model.density_.rows(table(20, 9))
    before = model.score_samples(rows)
    model.density_.n_evaluations = 32
    after = model.score_samples(rows)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, model.score_samples(table(20, 9)))


# -- bad input ------------------------------------------------------------------------------------


def test_bad_parameters():
    for parameters, error, message in [
        ({"contamination": 0.7}, ValueError, "at most 0.5"),
        ({"contamination": "some"}, ValueError, "'auto' or a share"),
        ({"contamination": 0}, ValueError, "contamination must be positive"),
        ({"false_alarm_rate": 2}, ValueError, "false_alarm_rate must be between"),
        ({"calibration_fraction": 1.0}, ValueError, "calibration_fraction must be between"),
        ({"density__handle_unknown": "error"}, ValueError, "handle_unknown='error'"),
        ({"random_state": -1}, ValueError, "random_state must be an integer .*, got -1"),
        ({"density": "tree"}, TypeError, "density must be a DiffusionDensity"),
        ({"denoiser": "tree"}, ValueError, "exclude each other"),
        ({"density": None, "denoiser": "grove"}, ValueError, "denoiser must be one of"),
        ({"density": FrozenEstimator(FunctionTransformer())}, TypeError, "FunctionTransformer"),
    ]:
        with pytest.raises(error, match=message):
            detector().set_params(**parameters).fit(categories())


def test_a_failed_fit_leaves_the_detector_usable():
    model = detector(false_alarm_rate=0.1).fit(categories())
    before = model.score_samples(categories(9))
    with pytest.raises(ValueError, match="two rows"):
        model.fit(categories(1))
    assert np.array_equal(before, model.score_samples(categories(9)))


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["fitted", "fitted_mixed"])
def test_what_is_saved_is_what_is_loaded(which, request, tmp_path):
    model, path = request.getfixturevalue(which), tmp_path / "detector.safetensors"
    X = (categories if which == "fitted" else mixed)(20, seed=1)
    model.save(path)
    for other in (DiffusionOutlierDetector.load(path), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.score_samples(X), model.score_samples(X))
        assert np.array_equal(other.p_values(X), model.p_values(X))
        assert other.threshold_ == model.threshold_
        assert other.get_params(deep=False).keys() == model.get_params(deep=False).keys()
        assert other.density.get_params() == model.density.get_params()
        assert list(other.feature_names_in_) == list(X.columns)


def test_a_file_holds_no_table_of_rows(fitted_mixed, tmp_path):
    """As `save` says: but for the nats of calibration rows, no tensor has a line for each row."""
    fitted_mixed.save(tmp_path / "a")
    _, tensors = read_state(tmp_path / "a")
    own = {name: t for name, t in tensors.items() if not name.startswith("fitted.density.")}
    names = ("distances.knots", "distances.means", "exceptions", "levels", "nats", "quantiles")
    assert sorted(own) == [f"fitted.{name}" for name in (*names, "repeats", "trained")]
    assert own["fitted.quantiles"].shape[1:] == (2, 3)
    assert own["fitted.levels"].numel() == own["fitted.trained"].numel() == 0  # without strata
    n_held = len(fitted_mixed.calibration_scores_)
    assert not any(set(t.shape) & {200, 200 - n_held} for t in tensors.values())


def test_shares_of_exceptions_are_measured_when_they_are_needed_and_a_copy_holds_no_rows():
    """Scores need none; a pickle, like a file, has the shares in the place of the rows that show them."""
    table = mixed()
    model = detector(false_alarm_rate=0.1).fit(table)
    model.predict(table)
    assert callable(model._scorer.shares)
    copied = pickle.loads(pickle.dumps(model))
    assert isinstance(copied._scorer.shares, np.ndarray)
    again = detector(false_alarm_rate=0.1).fit(table)._scorer
    assert np.array_equal(copied._scorer.exceptions, again.exceptions)
    assert isinstance(again.shares, np.ndarray)


def test_frozen_and_default_densities_are_kept(tmp_path):
    density = DiffusionDensity(**QUICK).fit(categories())
    model = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=0.1)
    model.fit(categories(60)).save(tmp_path / "a")
    assert isinstance(DiffusionOutlierDetector.load(tmp_path / "a").density, FrozenEstimator)


def test_a_fitted_density_that_was_given_is_in_pickles_but_not_in_files(tmp_path):
    given = DiffusionDensity(denoiser="tree", random_state=np.random.RandomState(0))
    given.fit(categories())
    model = DiffusionOutlierDetector(given, false_alarm_rate=0.1, random_state=0).fit(categories())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.density.random_state is not None
        np.testing.assert_array_equal(
            again.density.score_samples(categories()), given.score_samples(categories())
        )
    model.save(tmp_path / "a")
    loaded = DiffusionOutlierDetector.load(tmp_path / "a").density
    assert loaded.get_params() == {**given.get_params(), "random_state": None}
    with pytest.raises(NotFittedError):
        loaded.score_samples(categories())


def test_files_of_another_kind_are_refused(fitted, tmp_path):
    fitted.save(tmp_path / "detector")
    fitted.density_.save(tmp_path / "density")
    with pytest.raises(ValueError, match="holds a DiffusionDensity, not a DiffusionOutlierDetec"):
        DiffusionOutlierDetector.load(tmp_path / "density")
    with pytest.raises(ValueError, match="holds a DiffusionOutlierDetector, not a DiffusionDensit"):
        DiffusionDensity.load(tmp_path / "detector")


def test_forged_files_are_refused(fitted, tmp_path):
    fitted.save(tmp_path / "a")
    for spoil in [
        lambda h, _: h["fitted"].pop("threshold"),
        lambda h, _: h["fitted"]["threshold"].update(offset="low"),
        lambda h, _: h["fitted"]["threshold"].update(cost=[1.0]),
        lambda h, _: h["parameters"].update(contamination=3),
        lambda h, _: h["parameters"].update(other=3),
        lambda h, _: h.pop("fitted"),
        lambda h, _: h["fitted"].update(density=None),
        lambda h, _: h["fitted"]["density"].pop("fitted"),
        lambda h, _: h["fitted"].update(given=[0]),
        lambda _, t: t.pop("fitted.nats"),
        lambda _, t: t.update({"fitted.nats": torch.ones(3).double()}),
        lambda _, t: t["fitted.nats"].fill_(float("inf")),
        lambda _, t: t.update({"fitted.repeats": torch.ones(3).byte()}),
        lambda _, t: t.update({"fitted.quantiles": torch.zeros(7).double()}),
        lambda _, t: t["fitted.quantiles"].fill_(float("nan")),
        lambda _, t: t.pop("fitted.quantiles"),
    ]:
        header, tensors = read_state(tmp_path / "a")
        spoil(header, tensors)
        write_state(tmp_path / "b", (header, tensors))
        with pytest.raises(ValueError, match="b: "):
            DiffusionOutlierDetector.load(tmp_path / "b")


def test_ctrl_c_before_the_first_calibration_row_keeps_the_density(monkeypatch, ctrl_c):
    monkeypatch.setattr(detecting, "FEWEST_SCORED", 20)
    monkeypatch.setattr(detecting, "SHORT", 0.0)
    quantiles = Scorer.fitted_quantiles

    def interrupted(self, *typical):
        ctrl_c()
        return quantiles(self, *typical)

    monkeypatch.setattr(Scorer, "fitted_quantiles", interrupted)
    with pytest.warns(UserWarning, match="Ctrl-C ended the calibration after 20 of 80 rows"):
        DiffusionOutlierDetector(TREE, false_alarm_rate=0.1, random_state=0).fit(mixed(400))


@pytest.mark.parametrize("how", ["max_time", "Ctrl-C"])
def test_a_calibration_that_is_ended_has_a_sample_of_its_rows(monkeypatch, ctrl_c, how):
    """Of whatever rows: their scores are those of the whole calibration."""
    monkeypatch.setattr(detecting, "FEWEST_SCORED", 20)
    whole = DiffusionOutlierDetector(TREE, false_alarm_rate=0.1, random_state=0).fit(mixed(400))
    real, nats = time.perf_counter, Scorer.explain
    passed = [0.0]

    def slow(self, rows):
        passed[0] += 1000.0
        if how == "Ctrl-C" and passed[0] == 2000.0:
            ctrl_c()
        return nats(self, rows)

    monkeypatch.setattr(Scorer, "explain", slow)
    monkeypatch.setattr("time.perf_counter", lambda: real() + passed[0])
    density = clone(TREE).set_params(max_time=1500.0 if how == "max_time" else None)
    n = 20 if how == "max_time" else 60  # no part is begun that would end too late
    with pytest.warns(UserWarning, match=f"{how}.* ended the calibration after {n} of 80 rows"):
        part = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0).fit(
            mixed(400)
        )
    assert len(part.calibration_scores_) == len(part.explain()) == n
    assert np.isin(part.calibration_scores_, whole.calibration_scores_).all()
    if how == "max_time":  # nor is the threshold of a detector without such rows set by more
        with pytest.warns(UserWarning, match=f"ended the calibration after {n} of 400 rows"):
            DiffusionOutlierDetector(
                density, false_alarm_rate=0.1, calibration_fraction=0, random_state=0
            ).fit(mixed(400))
