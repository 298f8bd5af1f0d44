"""Weights of columns by checked rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch
from discrete_itd.detection.labels import divide, log_odds
from discrete_itd.recipes import Forest
from discrete_itd.storage import files

pytestmark = pytest.mark.single_precision
QUICK = {"denoiser": "independent", "false_alarm_rate": 0.05, "random_state": 0}


def table(n, seed, *, spread=1.0):
    """A column of heavy tails, one of light ones, and a category."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "heavy": random.standard_t(2, n),
            "light": spread * random.normal(size=n),
            "kind": random.choice(list("abc"), n),
        }
    )


INLIERS, CHECKED = table(600, 0), pd.concat([table(200, 1), table(20, 2, spread=3.0)])
CHECKED = CHECKED.reset_index(drop=True)
IS_ANOMALY = np.arange(220) >= 200


@pytest.fixture(scope="module")
def fitted():
    return DiffusionOutlierDetector(**QUICK).fit(INLIERS)


def alarms(detector, n=20):
    """The rows with the lowest scores, and whether these are anomalies."""
    some = np.argsort(detector.score_samples(CHECKED))[:n]
    return CHECKED.iloc[some], IS_ANOMALY[some]


@pytest.fixture(scope="module")
def updated(fitted):
    return clone(fitted).fit(INLIERS).update(*alarms(fitted))


def assert_same(one, two):
    np.testing.assert_array_equal(one.score_samples(CHECKED), two.score_samples(CHECKED))
    np.testing.assert_array_equal(one.calibration_scores_, two.calibration_scores_)
    assert one.threshold_ == two.threshold_


# -- the weights ----------------------------------------------------------------------------------


def terms(n, n_columns, random, scale=2.0):
    return random.exponential(scale, (n, n_columns))


def test_properties_weights_are_the_mode_of_their_posterior():
    """The gradient, summed row by row, is zero, or where a weight is zero not negative."""
    random = np.random.default_rng(0)
    for n_labels in (1, 7, 60):
        unlabelled, nats = terms(40, 5, random), terms(n_labels, 5, random, 3.0)
        nats[:, 0] = 9.0
        y = random.random(n_labels) < 0.4
        y[:1] = False
        w, b = log_odds(nats, y, unlabelled, 0.1)
        prior = -np.quantile(unlabelled.sum(1), 0.9)
        by_w, by_b = w - 1, b - prior
        for row, label in [*((r, 0) for r in unlabelled), *zip(nats, y, strict=True)]:
            p = 1 / (1 + np.exp(-(row @ w + b)))
            by_w, by_b = by_w + (p - label) * row, by_b + p - label
        assert abs(by_b) < 0.01
        assert (np.abs(by_w[w > 0]) < 0.01).all()
        assert (by_w[w == 0] > -0.01).all()
        assert (w >= 0).all()


def test_properties_one_more_label_moves_the_log_odds_of_its_row_its_way():
    random, moved = np.random.default_rng(1), []
    for _ in range(40):
        unlabelled, nats = terms(30, 4, random), terms(6, 4, random, 4.0)
        y = random.random(6) < 0.5
        way = 1 if y[-1] else -1
        w0, b0 = log_odds(nats[:-1], y[:-1], unlabelled, 0.1)
        w1, b1 = log_odds(nats, y, unlabelled, 0.1)
        moved.append(way * ((nats[-1] @ w1 + b1) - (nats[-1] @ w0 + b0)))
    assert min(moved) > -1e-3
    assert np.mean(moved) > 0.3


def test_properties_p_values_are_those_of_rows_that_the_weights_do_not_depend_on():
    """Scores by weights that were fitted to 20 rows: of 40 other calibration rows, and, as a check, of the 20."""
    random, rate, fresh, seen = np.random.default_rng(2), 0.1, [], []
    for i in range(600):
        calibration, labelled = terms(60, 12, random), terms(6, 12, random, 4.0)
        unlabelled, left = divide(60, i)
        assert np.array_equal(np.sort(np.r_[unlabelled, left]), np.arange(60))
        assert len(unlabelled) == 20
        w, _ = log_odds(labelled, np.ones(6, bool), calibration[unlabelled], rate)
        new = terms(200, 12, random) @ w
        for own, shares in ((left, fresh), (unlabelled, seen)):
            known = calibration[own] @ w
            p = (1 + (known >= new[:, None]).sum(1)) / (len(known) + 1)
            shares.append((p <= rate).mean())
    fresh, seen = np.array(fresh), np.array(seen)
    assert abs(fresh.mean() - 4 / 41) < 4 * fresh.std() / len(fresh) ** 0.5
    assert seen.mean() > 2 / 21 + 4 * seen.std() / len(seen) ** 0.5


# -- the detector ---------------------------------------------------------------------------------


def test_properties_p_values_of_inliers_are_valid_after_an_update():
    shares = []
    for seed in range(40):
        detector = DiffusionOutlierDetector(**{**QUICK, "false_alarm_rate": 0.1})
        detector.fit(table(120, 3 * seed))
        day = pd.concat([table(60, 3 * seed + 1), table(10, 3 * seed + 2, spread=4.0)])
        lowest = np.argsort(detector.score_samples(day))[:12]
        detector.update(day.iloc[lowest], lowest >= 60)
        shares.append((detector.p_values(table(300, 1000 + seed)) <= 0.2).mean())
    assert np.mean(shares) < 0.2 + 3 * np.std(shares) / len(shares) ** 0.5


def test_labels_of_zeros_change_no_bit(fitted):
    assert_same(clone(fitted).fit(INLIERS, np.zeros(600)), fitted)
    assert_same(clone(fitted).fit(INLIERS).update(CHECKED[:0], []), fitted)


def test_confirmed_anomalies_move_up_and_false_alarms_down(fitted, updated):
    X, y = alarms(fitted)
    assert 0 < y.sum() < len(y)
    before, after = fitted.p_values(X), updated.p_values(X)
    assert (after[~y] - before[~y]).mean() > 0.005
    weights = updated.explain(CHECKED).sum() / fitted.explain(CHECKED).sum()
    assert weights["light"] > 1 > weights["heavy"]
    new = pd.concat([table(2000, 5), table(200, 6, spread=3.0)])
    ranks = [d.score_samples(new).argsort().argsort()[2000:].mean() for d in (fitted, updated)]
    assert ranks[1] < ranks[0] - 10


@pytest.mark.parametrize("column", ["heavy", "light"])
def test_a_copy_of_one_checked_row_scores_as_it_was_found(column):
    row = pd.DataFrame({"heavy": [0.1], "light": [0.1], "kind": ["a"]}).assign(**{column: 8.0})
    both = [clone_of().update(row, [y]).p_values(row.assign(**{column: 4.5})) for y in (0, 1)]
    scores = [clone_of().update(row, [y]).score_samples(row) for y in (0, 1)]
    assert scores[0] > clone_of().score_samples(row)
    assert scores[1] < scores[0]
    assert both[1] <= both[0]


def clone_of():
    return DiffusionOutlierDetector(**QUICK).fit(INLIERS)


def test_confirmed_anomalies_are_neither_fitted_to_nor_calibrated_on(fitted):
    X, y = alarms(fitted)
    rows = pd.concat([X[y], INLIERS, X[y]])
    labels = np.r_[np.ones(y.sum()), np.zeros(600), np.ones(y.sum())].astype(int)
    groups = np.arange(len(rows)).astype(str)
    for how in ({}, {"groups": groups}, {"sample_weight": np.ones(len(rows), int)}):
        own = {k: v[labels == 0] for k, v in how.items()}
        direct = (
            clone(fitted).fit(INLIERS, **own).update(pd.concat([X[y], X[y]]), [1] * 2 * y.sum())
        )
        assert_same(clone(fitted).fit(rows, labels, **how), direct)
    array = rows.drop(columns="kind").to_numpy()
    direct = clone(fitted).fit(array[labels == 0]).update(array[labels == 1], np.ones(2 * y.sum()))
    found = clone(fitted).fit(array, labels.tolist())
    np.testing.assert_array_equal(found.calibration_scores_, direct.calibration_scores_)


def test_days_add_up(fitted, updated):
    X, y = alarms(fitted)
    days = clone(fitted).fit(INLIERS).update(X[:7], y[:7]).update(X[7:], list(y[7:]))
    assert_same(days, updated)


def test_a_loaded_detector_is_updated_like_the_one_that_was_saved(fitted, updated, tmp_path):
    X, y = alarms(fitted)
    fitted.save(tmp_path / "a")
    assert_same(DiffusionOutlierDetector.load(tmp_path / "a").update(X, y), updated)
    updated.save(tmp_path / "b")
    loaded = DiffusionOutlierDetector.load(tmp_path / "b")
    assert_same(loaded, updated)
    assert "20 checked rows" in updated.model_card()
    assert "checked" not in fitted.model_card()
    once = clone(fitted).fit(INLIERS).update(X, y)
    assert_same(loaded.update(X[:3], y[:3]), once.update(X[:3], y[:3]))


@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0], [1.0, 1.0]])
def test_forged_weights_are_refused(weights, updated, tmp_path):
    updated.save(tmp_path / "a")
    header, tensors = files.read_state(tmp_path / "a")
    tensors["fitted.labels.weights"][:] = 1.0
    tensors["fitted.labels.weights"] = tensors["fitted.labels.weights"].new_tensor(weights)
    files.write_state(tmp_path / "a", (header, tensors))
    with pytest.raises(ValueError, match="weights"):
        DiffusionOutlierDetector.load(tmp_path / "a")


def test_shares_of_columns_add_up_and_are_not_negative(updated):
    nats = updated.explain(CHECKED)
    np.testing.assert_array_equal(nats.to_numpy().sum(1), -updated.score_samples(CHECKED))
    assert (nats >= 0).all(axis=None)
    calibration = updated.explain()
    np.testing.assert_array_equal(calibration.sum(axis=1), -updated.calibration_scores_)


def test_a_third_of_the_calibration_rows_has_no_label(fitted, updated):
    n = len(fitted.calibration_scores_)
    assert len(updated.calibration_scores_) == n - n // 3
    assert updated.threshold_.n_calibration == n - n // 3
    assert divide(30_000, 0)[0].shape == (1000,)


def test_the_rows_without_a_label_are_drawn_at_random():
    """Calibration rows may be in an order: each is one of the third equally often."""
    chosen = np.zeros(60)
    for seed in range(300):
        unlabelled, left = divide(60, seed)
        assert np.array_equal(np.sort(np.concatenate([unlabelled, left])), np.arange(60))
        chosen[unlabelled] += 1
    assert (np.abs(chosen - 100) < 5 * np.sqrt(300 * 2 / 9)).all()


def test_labels_within_groups():
    model = DiffusionOutlierDetector(**{**QUICK, "false_alarm_rate": 0.1}, given="kind").fit(
        INLIERS
    )
    before = model.groups()
    model.update(*alarms(model))
    after = model.groups()
    n = len(model.calibration_scores_)
    assert after["n_calibration"].sum() == n < before["n_calibration"].sum()
    assert model.explain(CHECKED)["kind"].isna().all()
    assert (model.transform(CHECKED)[:, 2] == 0).all()
    assert np.isfinite(model.decision_function(CHECKED)).all()


def test_a_watch_begins_anew_after_an_update(fitted):
    model = clone(fitted).fit(INLIERS)
    watch = DriftWatch(model)
    watch.update(CHECKED)
    model.update(*alarms(fitted))
    with pytest.raises(ValueError, match="other calibration rows"):
        watch.update(CHECKED)
    DriftWatch(model).update(CHECKED)


@pytest.mark.parametrize("bad", [-1, 2, 0.5, "1", np.nan, None])
def test_other_labels_are_refused(bad, fitted):
    y = [0, 1, bad]
    with pytest.raises(ValueError, match=r"y must hold 0 and 1 .*, got .* in row [02]"):
        fitted.update(CHECKED[:3], y)
    with pytest.raises(ValueError, match=r"y must hold 0 and 1 .*, got .* in row [02]"):
        clone(fitted).fit(CHECKED[:3], y)


def test_labels_that_cannot_be_used_are_refused(fitted):
    labels = IS_ANOMALY.astype(int)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        fitted.update(CHECKED, labels[:5])
    with pytest.raises(ValueError, match="inconsistent numbers"):
        clone(fitted).fit(CHECKED, labels[:5])
    with pytest.raises(ValueError, match="1 in all rows"):
        clone(fitted).fit(CHECKED, np.ones(220))
    with pytest.raises(ValueError, match="y needs a table in memory"):
        clone(fitted).fit([CHECKED, CHECKED], labels)
    without = clone(fitted).set_params(calibration_fraction=0)
    with pytest.raises(ValueError, match="y has anomalies, which need calibration_fraction"):
        without.fit(CHECKED, labels)
    with pytest.raises(ValueError, match="at least two calibration rows, got 0"):
        without.fit(CHECKED).update(CHECKED, labels)


@pytest.mark.filterwarnings("ignore:the noise of a private fit")
def test_a_private_detector_takes_no_labels():
    types = {"kind": {"kind": "nominal", "categories": list("abc")}}
    density = DiffusionDensity(column_types=types, denoiser=Forest(epsilon=1.0), random_state=0)
    model, X = DiffusionOutlierDetector(density, random_state=0), CHECKED[["kind"]]
    with pytest.raises(ValueError, match="differentially private"):
        model.fit(X, IS_ANOMALY)
    with pytest.raises(ValueError, match="differentially private"):
        model.fit(X).update(X, IS_ANOMALY)


# -- features -------------------------------------------------------------------------------------


def test_features_are_the_terms_of_the_score_and_no_label_changes_them(fitted, updated):
    gap = CHECKED.assign(light=CHECKED["light"].where(CHECKED["light"] > 0))
    features = fitted.transform(gap)
    nats = fitted.explain(gap)
    np.testing.assert_array_equal(features[:, :3], nats.fillna(0.0))
    np.testing.assert_array_equal(features[:, 3], -fitted.score_samples(gap))
    np.testing.assert_array_equal(features, updated.transform(gap))
    names = ["nats_heavy", "nats_light", "nats_kind", "nats"]
    assert fitted.get_feature_names_out().tolist() == names
    model = clone(fitted).set_output(transform="pandas")
    framed = model.fit_transform(INLIERS)
    assert framed.columns.tolist() == names
    assert framed.index.equals(INLIERS.index)


def test_in_a_pipeline_labels_go_to_the_detector_and_to_the_classifier(fitted):
    X = pd.concat([INLIERS, CHECKED[IS_ANOMALY]])
    y = np.r_[np.zeros(600, int), np.ones(20, int)]
    pipe = make_pipeline(clone(fitted), LogisticRegression()).fit(X, y)
    assert pipe[0].model_card().count("20 checked rows")
    assert pipe.score(CHECKED, IS_ANOMALY) > 0.9
    own = make_pipeline(FunctionTransformer(lambda X: X[["heavy", "light"]]))
    both = make_pipeline(make_union(own, clone(fitted)), HistGradientBoostingClassifier(max_iter=5))
    assert both.fit(X, y).predict_proba(CHECKED).shape == (220, 2)
    with config_context(enable_metadata_routing=True):
        routed = clone(fitted).set_fit_request(sample_weight=True)
        make_pipeline(routed, LogisticRegression().set_fit_request(sample_weight=False)).fit(
            X, y, sample_weight=np.ones(620, int)
        )
