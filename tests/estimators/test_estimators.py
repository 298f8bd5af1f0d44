"""The estimator: scikit-learn's checks, what a score depends on, what is kept, what is refused."""

import copy
import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.encoders.rows import RowEstimate
from discrete_itd.models.held_out import hold_out, in_order_of_content
from discrete_itd.recipes import Network
from discrete_itd.storage.files import FORMAT

pytestmark = pytest.mark.single_precision

QUICK = {
    "denoiser": Network(width=8, depth=1, base="independent"),
    "max_steps": 10,
    "n_evaluations": 8,
    "random_state": 0,
}
CHECKED = {**QUICK, "denoiser": "independent"}
EXPECTED_FAILED_CHECKS = {}  # check -> why it cannot hold


def table(n=60, seed=0):
    """Four columns of four dtypes; c follows from a."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": random.choice(list("xyz"), n),
            "n": random.integers(0, 5, n),
            "b": random.random(n) < 0.4,
        }
    )
    frame["c"] = pd.Categorical(np.where(frame["a"] == "x", "u", "v"), ["u", "v", "unused"])
    return frame


X = table()
CODES = np.random.default_rng(1).integers(0, 3, (40, 3))


def quick(**changes):
    return DiffusionDensity(**{**QUICK, **changes})


@pytest.fixture(scope="module")
def fitted():
    """Models fitted once for each floating type."""
    return {}


@pytest.fixture
def model(fitted, dtype):
    if dtype not in fitted:
        fitted[dtype] = quick().fit(X)
    return copy.deepcopy(fitted[dtype])


@pytest.fixture(scope="module")
def trained():
    """A model that has learned that c follows from a; made once, in float32."""
    return quick(max_steps=20, denoiser=Network(width=16, depth=1, base="tree")).fit(table(400))


# -- scikit-learn's checks ------------------------------------------------------------------------


@parametrize_with_checks(
    [DiffusionDensity(**CHECKED)], expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([DiffusionDensity(**{**QUICK, "max_steps": 3})])
def test_scikit_learn_checks_of_a_network(estimator, check):
    check(estimator)


def test_the_checks_are_many():
    names = {
        getattr(check, "func", check).__name__
        for _, check in estimator_checks_generator(DiffusionDensity(**CHECKED))
    }
    assert len(names) > 35
    assert "check_methods_sample_order_invariance" in names
    assert "check_methods_subset_invariance" in names
    assert len(EXPECTED_FAILED_CHECKS) == 0


def test_constructor():
    parameters = inspect.signature(DiffusionDensity).parameters
    assert len(parameters) <= 12
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    columns = {"a": "nominal"}
    estimator = DiffusionDensity(column_types=columns, device="auto")
    assert estimator.column_types is columns
    assert estimator.get_params().keys() == parameters.keys()
    assert estimator.set_params(n_evaluations=3).get_params()["n_evaluations"] == 3
    with pytest.raises(ValueError, match="Invalid parameter 'n_cals'"):
        estimator.set_params(n_cals=3)


def test_pipeline_and_search():
    drop = FunctionTransformer(lambda frame: frame.drop(columns="n"))
    pipeline = make_pipeline(drop, quick(denoiser="tree"))
    assert np.isfinite(pipeline.fit(X).score(X))
    assert pipeline.score_samples(X).shape == (len(X),)
    search = GridSearchCV(pipeline, {"diffusiondensity__denoiser": ["independent", "tree"]}, cv=2)
    assert search.fit(X).best_params_ == {"diffusiondensity__denoiser": "tree"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# -- what a score is ------------------------------------------------------------------------------


def test_untrained_is_independent_columns():
    model = quick(max_steps=0, validation_fraction=0.5).fit(X)
    estimate = model.log_prob(X)
    base = model.model_.marginals
    assert model.denoiser_.base.log_probs.equal(base.log_probs)
    marginals = base.log_prob(torch.from_numpy(model.encoder_.transform(X).x)).numpy()
    np.testing.assert_allclose(estimate.log_prob, marginals, rtol=1e-5)
    np.testing.assert_allclose(estimate.stderr, 0.0, atol=1e-5)
    # by hand: counts of the rows trained on, plus one half for every category and for the unseen one
    order, _ = in_order_of_content(model.encoder_.transform(X).x, model.encoder_.schema)
    rows = X.iloc[order[hold_out(len(X), None, 30)[1]]]
    by_hand = 0.0
    for name, n_points in (("a", 4), ("n", X["n"].nunique() + 1), ("b", 2), ("c", 3)):
        counts = rows[name].value_counts().reindex(X[name].unique(), fill_value=0)
        by_hand += np.log((X[name].map(counts).astype(float) + 0.5) / (30 + 0.5 * n_points))
    np.testing.assert_allclose(estimate.log_prob, by_hand, rtol=1e-5)


def test_score_is_the_mean(model):
    scores = model.score_samples(X)
    assert scores.dtype == np.float64
    assert scores.shape == (len(X),)
    assert model.score(X) == scores.mean()
    assert model.score(X, np.zeros(len(X))) == scores.mean()
    estimate = model.log_prob(X)
    assert isinstance(estimate, RowEstimate)
    np.testing.assert_array_equal(estimate.log_prob, scores)
    assert (estimate.stderr >= 0).all()


def test_columns_given_by_position():
    model = quick(denoiser="tree").fit(CODES)
    assert np.isfinite(model.log_prob(CODES, given=[0, 2]).log_prob).all()
    np.testing.assert_array_equal(
        model.log_prob(CODES, given=1).log_prob, model.log_prob(CODES, given=[1]).log_prob
    )
    with pytest.raises(ValueError, match="column 3: named in given="):
        model.log_prob(CODES, given=[3])


def test_unseen_categories(trained):
    strange = X[:3].assign(a="never", n=-7)
    assert np.isfinite(trained.score_samples(strange)).all()
    assert (trained.score_samples(strange) < trained.score_samples(X[:3]) - 2).all()
    strict = quick(denoiser="tree", handle_unknown="error").fit(X)
    with pytest.raises(ValueError, match="column 'a': unseen category 'never'"):
        strict.score_samples(strange)


def test_samples(trained):
    rows = trained.sample(300, random_state=0)
    assert rows.shape == (300, 4)
    pd.testing.assert_series_equal(rows.dtypes, X.dtypes)
    assert np.isfinite(trained.score_samples(rows)).all()
    assert set(rows["n"]) <= set(X["n"])
    pd.testing.assert_frame_equal(rows, trained.sample(300, random_state=0))
    assert not rows.equals(trained.sample(300, random_state=1))
    agree = ((rows["a"] == "x") == (rows["c"] == "u")).mean()
    assert agree > 0.8  # 0.5 for independent columns
    for n in (0, -1, 2.0, True, "3"):
        with pytest.raises((ValueError, TypeError), match="n_samples must be"):
            trained.sample(n)


@pytest.mark.parametrize("dtype_", [np.int64, np.int8, np.float64, bool, "U3", object])
def test_samples_of_arrays(dtype_):
    rows = quick(denoiser="tree").fit(CODES.astype(dtype_)).sample(5, random_state=0)
    assert isinstance(rows, np.ndarray)
    if dtype_ != "U3":  # pandas keeps words as objects
        assert rows.dtype == np.dtype(dtype_)


# -- what it depends on ---------------------------------------------------------------------------


def test_random_state():
    scores = quick(random_state=3).fit(X).score_samples(X)
    again = quick(random_state=np.random.RandomState(3)).fit(X).score_samples(X)
    np.testing.assert_array_equal(again, scores)
    generator = np.random.RandomState(3)
    drawn = [quick(random_state=generator).fit(X).sample(9) for _ in range(2)]
    assert not np.array_equal(*drawn)


def test_global_random_state_is_untouched(tmp_path):
    numpy_before, torch_before = np.random.get_state(), torch.get_rng_state()
    model = quick().fit(X)
    model.score_samples(X)
    model.explain(X[:2])
    model.sample(2, random_state=0)
    copy.deepcopy(model)
    model.save(tmp_path / "m")
    DiffusionDensity.load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), torch_before)
    for before, after in zip(numpy_before, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_device(model, device):
    on = quick(device=str(device)).fit(X)
    assert on.model_.device == device
    tolerance = {"rtol": 1e-3, "atol": 1e-2} if device.type != "cpu" else {"rtol": 1e-12}
    np.testing.assert_allclose(on.score_samples(X), model.score_samples(X), **tolerance)


# -- keeping --------------------------------------------------------------------------------------


def ways_to_save(tmp_path):
    def through_file(model):
        model.save(tmp_path / "m.safetensors")
        return DiffusionDensity.load(tmp_path / "m.safetensors")

    return {
        "pickle": lambda model: pickle.loads(pickle.dumps(model)),
        "deepcopy": copy.deepcopy,
        "file": through_file,
    }


TABLES = {"frame": X, "array": CODES, "integer names": X.set_axis([0, 1, 2, 3], axis=1)}


@pytest.fixture(scope="module", params=TABLES)
def saved(request):
    """A table and the model of it, to be saved in every way."""
    rows = TABLES[request.param]
    recipe = {} if request.param == "frame" else {"denoiser": "tree"}
    return rows, quick(max_steps=5, **recipe).fit(rows)


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "file"])
def test_a_saved_model_is_the_same(saved, how, tmp_path):
    rows, model = saved
    again = ways_to_save(tmp_path)[how](model)
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    np.testing.assert_array_equal(again.log_prob(rows).stderr, model.log_prob(rows).stderr)
    pd.testing.assert_frame_equal(again.explain(rows), model.explain(rows))
    one, other = (pd.DataFrame(m.sample(5, random_state=0)) for m in (model, again))
    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(again.history_, model.history_)
    assert again.encoder_.schema == model.encoder_.schema
    assert again.get_params() == model.get_params()
    assert again.n_features_in_ == rows.shape[1]
    assert hasattr(again, "feature_names_in_") == hasattr(model, "feature_names_in_")
    # and it is saved again
    np.testing.assert_array_equal(
        copy.deepcopy(again).score_samples(rows), model.score_samples(rows)
    )


def test_a_model_in_float32_scores_the_same_in_a_program_of_float64(trained, tmp_path):
    trained.save(tmp_path / "m")
    again = DiffusionDensity.load(tmp_path / "m")
    assert {p.dtype for p in again.denoiser_.parameters()} == {torch.float32}
    np.testing.assert_array_equal(again.score_samples(X), trained.score_samples(X))


def test_an_unfitted_model_is_pickled_but_not_saved(tmp_path):
    model = pickle.loads(pickle.dumps(quick(n_evaluations=5)))
    assert model.get_params()["n_evaluations"] == 5
    with pytest.raises(ValueError, match="is not fitted yet"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_pickle_of_another_format_is_refused_in_a_sentence(model, monkeypatch):
    content = pickle.dumps(model)
    monkeypatch.setattr("discrete_itd.storage.files.FORMAT", FORMAT + 1)
    with pytest.raises(ValueError, match=f"^format {FORMAT}, but .*; fit the model anew"):
        pickle.loads(content)


def test_a_failed_refit_leaves_the_model_usable(model):
    scores = model.score_samples(X)
    for bad in (
        X.assign(a=1j),
        X[:1],
        X[:0],
        X.assign(d=np.inf),
        X.rename(columns={"a": 1}),
        np.array([[np.nan, np.nan], [0.0, 1.0]]),
        "text",
    ):
        with pytest.raises((ValueError, TypeError, OSError)):
            model.fit(bad)
        np.testing.assert_array_equal(model.score_samples(X), scores)
    model.set_params(denoiser="perceptron")
    with pytest.raises(ValueError, match="denoiser"):
        model.fit(X)
    np.testing.assert_array_equal(model.score_samples(X), scores)


# -- tables ---------------------------------------------------------------------------------------


def test_frame_fitted_array_scored(model):
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        scores = model.score_samples(X.astype(object).to_numpy())
    np.testing.assert_array_equal(scores, model.score_samples(X))


def test_array_fitted_frame_scored():
    model = quick(denoiser="tree").fit(CODES)
    frame = pd.DataFrame(CODES, columns=["p", "q", "r"])
    with pytest.warns(UserWarning, match="X has feature names"):
        scores = model.score_samples(frame)
    np.testing.assert_array_equal(scores, model.score_samples(CODES))
    np.testing.assert_array_equal(model.score_samples(CODES.tolist()), model.score_samples(CODES))


def test_columns_that_differ(model):
    with pytest.raises(ValueError, match="must be in the same order"):
        model.score_samples(X[["c", "a", "n", "b"]])
    with pytest.raises(ValueError, match="column 'n': the model knows it, the table lacks it"):
        model.score_samples(X.drop(columns="n"))
    with pytest.raises(ValueError, match="column 'n': the model knows it, the table lacks it"):
        model.score_samples(X.assign(z=1).drop(columns="n"))
    with pytest.raises(ValueError, match="expecting 3 features"):
        quick(denoiser="tree").fit(CODES).score_samples(CODES[:, :2])


@pytest.mark.parametrize("method", ["score_samples", "score", "explain", "log_prob"])
def test_unfitted(method):
    with pytest.raises(ValueError, match="is not fitted yet"):
        getattr(quick(), method)(X)
    with pytest.raises(ValueError, match="is not fitted yet"):
        quick().sample()


BAD = [
    ({"max_steps": -1}, ValueError, "max_steps must be at least 0"),
    ({"max_steps": "many"}, TypeError, "max_steps must be an integer, got 'many'"),
    ({"n_evaluations": 1}, ValueError, "n_evaluations must be at least 2"),
    ({"max_time": 0}, ValueError, "max_time must be positive, got 0"),
    ({"max_time": "1 h"}, TypeError, "max_time must be a number, got '1 h'"),
    ({"validation_fraction": 0}, ValueError, "validation_fraction must be positive"),
    ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be between 0 and 1"),
    ({"validation_fraction": None}, TypeError, "validation_fraction must be a number"),
    ({"schedule": "straight"}, TypeError, "schedule must be None or a schedule, got 'straight'"),
    (
        {"schedule": CoordinateSchedule(3, (0, 2, 1))},
        ValueError,
        "order of 3 columns, .* table has 4",
    ),
    ({"handle_unknown": "drop"}, ValueError, r"handle_unknown must be one of .*, got 'drop'"),
    ({"missing": "drop"}, ValueError, r"missing must be one of .*, got 'drop'"),
    ({"column_types": 3}, TypeError, "column_types must be a mapping or one kind, got 3"),
    ({"column_types": ["a"]}, TypeError, "column_types must be a mapping or one kind"),
    ({"column_types": "text"}, ValueError, r"column_types must be one of .*, got 'text'"),
    ({"device": "nonsense"}, ValueError, "device must be 'auto' or a device of this machine"),
    ({"device": 1.5}, ValueError, "device must be 'auto' or a device of this machine, got 1.5"),
    ({"random_state": "x"}, ValueError, r"random_state must be an integer from 0 .* got 'x'"),
]


def test_parameters_that_make_no_sense():
    for parameters, error, words in BAD:
        with pytest.raises(error, match=words):
            quick(**parameters).fit(X)


def test_a_column_of_another_type_is_pointed_out():
    rows = pd.DataFrame({"a": ["x", "y"] * 10, "b": ["p", "q"] * 10})
    model = quick(denoiser="tree").fit(rows)
    with pytest.warns(UserWarning, match="column 'b': no value was seen in training"):
        model.score_samples(rows.assign(b=[1, 2] * 10))


def test_curve_needs_rows_and_points(trained):
    with pytest.raises(ValueError, match="at least 2"):
        trained.mse_curve(X, n_points=1)
    with pytest.raises(ValueError, match="at least two rows"):
        trained.mse_curve(X[:1])


def test_the_curve_of_repeated_rows_has_an_honest_error(trained):
    rows = pd.concat([X[:3]] * 60)
    curve = trained.mse_curve(rows, n_points=9)
    half = len(rows) // 2
    parts = [trained.mse_curve(r, n_points=9)["mse"] for r in (rows[:half], rows[half:])]
    # the same rows at other places get other noise
    assert (curve["stderr"] > 0).all()
    assert not np.allclose(curve["mse"], parts[0])
