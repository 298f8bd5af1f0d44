"""What a report says, against what the model says when it is asked."""

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import NO_CELL
from discrete_itd.encoders import TableEncoder
from discrete_itd.plots import column_entropies
from discrete_itd.recipes import Network
from discrete_itd.reporting import findings, page
from discrete_itd.reporting.findings import (
    Alarms,
    Verdict,
    examine,
    most_anomalous_rows,
)
from discrete_itd.statistics import Interval, mean_interval, share_interval
from tests import reported
from tests.detection.cells import cell_nats


@cache
def small_findings():
    return examine(reported.density(), reported.table(5, 9), n_most_anomalous=0)


# -- verdicts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "target", "passed"),
    [
        (1.0, 2.0, 2.0, True),
        (1.0, 2.0, np.nextafter(2.0, 0), None),
        (1.0, 2.0, 1.0, None),
        (1.0, 2.0, np.nextafter(1.0, 0), False),
        (-np.inf, np.inf, 5.0, None),
    ],
)
def test_a_target_is_met_by_the_whole_interval_or_missed_by_it(low, high, target, passed):
    assert Verdict("nats", Interval(1.5, low, high), target).passed is passed


@pytest.mark.parametrize(
    ("answers", "passed"),
    [
        ([], None),
        ([True], True),
        ([True, None], None),
        ([None, False], False),
        ([True, False], False),
        ([True, True], True),
    ],
)
def test_all_targets_must_be_met(answers, passed):
    ends = {True: (0.0, 1.0), False: (3.0, 4.0), None: (1.0, 3.0)}
    verdicts = tuple(Verdict("nats", Interval(2.0, *ends[a]), 2.0) for a in answers)
    found = dataclasses.replace(small_findings(), verdicts=verdicts)
    assert found.passed is passed


def test_the_interval_of_a_mean_covers_it():
    random, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        mean, low, high = mean_interval(random.normal(3, 2, 8))
        assert low < mean < high
        hits += low <= 3 <= high
    assert 0.93 < hits / 1000 < 0.97
    values = random.normal(3, 2, 5)
    exact = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values)[1:] == pytest.approx(tuple(exact))
    assert mean_interval(np.array([4.0])) == (4.0, -np.inf, np.inf)


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
def test_the_interval_of_a_share_covers_it(n, rate):
    counts = np.random.default_rng(0).binomial(n, rate, 100)
    intervals = [share_interval(int(k), n) for k in counts]
    assert np.mean([low <= rate <= high for _, low, high in intervals]) >= 0.92
    assert all(
        0 <= low <= k / n <= high <= 1 for k, (_, low, high) in zip(counts, intervals, strict=True)
    )
    # nothing seen in n rows: up to about 3.7 in n can still be
    assert share_interval(0, 1000) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 1000)))


# -- what is found ----------------------------------------------------------------------------------


def test_the_rows_of_a_table_are_ranked_and_not_its_inliers():
    """Of a density too, whichever of the two tables is longer."""
    density, X = reported.density(), pd.concat([reported.table(30, 9), reported.odd()])
    for n in (9, 120):
        found = examine(density, X, inliers=reported.table(n, 8))
        assert (found.n_rows, found.n_inliers) == (34, n)
        np.testing.assert_allclose(found.surprisal, -density.score_samples(X))


def test_the_findings_are_what_the_detector_says():
    detector = reported.detector()
    ordinary, X = reported.table(120, 8), pd.concat([reported.table(30, 9), reported.odd()])
    found = examine(detector, X, inliers=ordinary, target_nats=4.0, target_false_alarms=0.2)
    assert found.surprisal == pytest.approx(-detector.score_samples(X))
    assert (found.n_rows, found.n_inliers) == (34, 120)
    assert found.n_alarms == (detector.predict(X) == -1).sum()
    log_prob, stderr = detector.density_.log_prob(ordinary)
    assert found.nats == mean_interval(-log_prob)
    assert found.stderr == pytest.approx(stderr)
    assert found.alarms.rate.value == (detector.predict(ordinary) == -1).mean()
    assert found.alarms.p_values == pytest.approx(detector.p_values(ordinary))
    assert found.alarms.threshold is detector.threshold_
    assert found.alarms.reference == pytest.approx(-detector.calibration_scores_)
    assert [(v.what, v.measured, v.target) for v in found.verdicts] == [
        ("nats", found.nats, 4.0),
        ("false alarms", found.alarms.rate, 0.2),
    ]
    assert found.history is detector.density_.history_


def test_each_table_is_encoded_once(monkeypatch):
    models, inliers = (reported.detector(), reported.default_detector()), reported.table(40, 8)
    encoded, readable = [], TableEncoder.readable

    def counted(self, frame, *texts):
        encoded.append(len(frame))
        return readable(self, frame, *texts)

    monkeypatch.setattr(TableEncoder, "readable", counted)
    for model in models:
        examine(model, reported.table(30, 9), inliers=inliers, n_most_anomalous=2)
        assert sorted(encoded) == [30, 40]
        encoded.clear()


def test_without_inliers_the_table_itself_is_measured():
    detector, X = reported.detector(), reported.table(60, 9)
    found = examine(detector, X)
    assert found.nats.value == pytest.approx(-detector.density_.log_prob(X).log_prob.mean())
    assert found.alarms.rate.value == found.n_alarms / 60
    assert found.verdicts == ()


def test_a_density_is_measured_without_a_threshold():
    found = examine(reported.density(), reported.table(60, 9), target_nats=4.0)
    assert found.alarms == Alarms()
    assert found.n_alarms is None
    assert found.most_anomalous["p_value"].isna().all()
    assert len(found.verdicts) == 1


def test_the_most_anomalous_rows_are_those_with_the_lowest_scores():
    detector = reported.detector()
    X = pd.concat([reported.table(30, 9), reported.odd()], ignore_index=True)
    X.index = X.index + 100
    score = detector.score_samples(X)
    lines = most_anomalous_rows(
        detector.density_, detector.density_.rows(X), score, 6, detector=detector
    )
    order = np.argsort(score, kind="stable")[:6]
    assert lines["row"].tolist() == (order + 100).tolist()
    assert set(lines["row"][:4]) == {130, 131, 132, 133}
    assert lines["nats"].to_numpy() == pytest.approx(-score[order])
    assert lines["p_value"].to_numpy() == pytest.approx(detector.p_values(X.iloc[order]))
    told = detector.reasons(X.iloc[order], k=3).groupby("row")["sentence"].agg(tuple)
    assert lines["reasons"].tolist() == [told.get(i + 100, (NO_CELL,)) for i in order]
    assert len(told) >= 4


@pytest.mark.filterwarnings("ignore:outside the range or the categories")
def test_property_each_column_and_kind_of_alarm_has_a_row_before_others_of_the_same():
    detector = reported.detector()
    X = pd.concat([reported.odd()] * 5 + [reported.table(30, 9)], ignore_index=True)
    found = examine(detector, X, n_most_anomalous=X.shape[0])
    kinds = found.kinds.set_index("position")
    assert set(kinds.index) == set(np.flatnonzero(detector.predict(X) == -1))
    groups = kinds.groupby(["column", "kind"]).ngroup()
    n_kinds = groups.nunique()
    assert 1 < n_kinds < len(kinds)
    assert (kinds["n"] == groups.map(groups.value_counts())).all()
    few = examine(detector, X, n_most_anomalous=n_kinds).most_anomalous
    assert groups[few["row"]].nunique() == n_kinds
    assert (few["n_alike"] + 1).sum() == len(kinds)
    assert few["nats"].is_monotonic_decreasing
    assert sorted(found.most_anomalous["row"]) == list(X.index)
    assert sum(n for _, n in page.blamed(found, "kind")) == len(kinds)
    assert found.n_expected == detector.threshold_.alarms_expected(len(X))


@pytest.mark.parametrize(("n_far", "owners"), [(0, 0), (1, 1), (3, 2), (30, 0)])
def test_few_rows_that_own_a_mean_are_counted(n_far, owners):
    above = np.random.default_rng(0).normal(size=500)
    above[:n_far] = 1e5
    assert findings._n_top(above) == owners


def test_only_a_fitted_model_is_examined():
    for model in (DiffusionDensity(), DiffusionOutlierDetector()):
        with pytest.raises(NotFittedError, match=type(model).__name__):
            examine(model, reported.table(9, 9))
    with pytest.raises(TypeError, match=r"DiffusionDensity or DiffusionOutlierDetector, got int"):
        examine(5, reported.table(9, 9))


def test_a_table_without_cells_decides_nothing():
    found = examine(reported.density(), reported.nothing(), target_nats=9.0)
    assert (found.n_cells, found.n_inlier_cells) == (0, 0)
    assert found.passed is None
    assert not np.signbit([*found.surprisal, found.nats.value, *found.most_anomalous["nats"]]).any()
    found = examine(reported.detector(), reported.nothing(), inliers=reported.table(9, 9))
    assert (found.n_cells, found.n_inlier_cells) == (0, 27)


def test_rows_with_one_label_keep_their_own_reasons():
    X = pd.concat([reported.odd(1), reported.table(1, 9)]).set_axis([7, 7])
    density = reported.density()
    lines = most_anomalous_rows(density, density.rows(X), density.score_samples(X), 2)
    assert lines["row"].tolist() == [7, 7]
    assert "free = ?" in " ".join(lines["reasons"][0])
    assert "free = ?" not in " ".join(lines["reasons"][1])


def test_a_row_of_nothing_has_no_reasons():
    model, frame = reported.mixed_density()
    X = frame[:3].astype(object)
    X.iloc[1] = None
    rows = model.rows(X)
    lines = most_anomalous_rows(model, rows, np.array([0.0, -2.0, -1.0]), 3)
    assert lines["row"].tolist() == [1, 2, 0]
    assert lines["reasons"][0] == ()
    assert all(lines["reasons"][1:])
    assert not len(most_anomalous_rows(model, rows, np.zeros(3), 0))


def test_columns_cost_what_their_cells_cost():
    model, frame = reported.mixed_density()
    columns, nats = column_entropies(model, model.rows(frame)), cell_nats(model, frame)
    assert columns["column"].tolist() == model.encoder_.names
    assert columns["kind"].tolist() == ["nominal", "ordinal", "nominal", "continuous"]
    assert columns["nats_given_others"].to_numpy() == pytest.approx(
        nats.given_others.mean().to_numpy()
    )


def test_an_array_is_examined_like_a_frame():
    frame = reported.table(60, 9).set_axis([0, 1, 2], axis=1)
    model = DiffusionDensity(max_steps=2, **reported.SETTINGS).fit(frame.to_numpy(dtype=object))
    cells = frame.to_numpy(dtype=object)
    found = examine(model, cells, inliers=cells)
    assert found.nats == examine(model, frame, inliers=frame).nats
    assert found.most_anomalous["row"].between(0, 59).all()
    assert sorted(found.columns["column"]) == [0, 1, 2]


def test_facts_are_those_of_the_model():
    found, model = examine(reported.density(), reported.table(20, 9)), reported.density()
    assert found.facts["columns"] == "3, of them 2 nominal, 1 ordinal"
    assert all(f"* {name}: " in model.model_card() for name in found.facts)
    assert all(f"* {sentence}\n" in model.model_card() for sentence in found.limits)


def test_detectors_without_calibration_rows_and_tables_of_one_row_are_examined():
    detector = DiffusionOutlierDetector(
        FrozenEstimator(reported.density()), false_alarm_rate=0.05
    ).fit(reported.table(100, 1))
    detector.calibration_scores_ = detector.calibration_scores_[:0]
    detector._nats = detector._nats[:0]
    found = examine(detector, reported.table(1, 9), target_nats=1e9)
    assert found.alarms.p_values is found.alarms.reference is None
    assert found.alarms.threshold is not None
    assert found.passed is None  # one row decides nothing


def test_what_makes_no_sense_is_refused():
    for settings, error, message in [
        ({"target_nats": np.inf}, ValueError, "target_nats must be finite, got inf"),
        ({"target_nats": "9"}, TypeError, "target_nats must be a number, got '9'"),
        ({"target_false_alarms": 1.0}, ValueError, "target_false_alarms must be between 0 and 1"),
        ({"target_false_alarms": 0.1}, ValueError, "target_false_alarms needs a threshold"),
        ({"n_most_anomalous": -1}, ValueError, "n_most_anomalous must be at least 0"),
        ({"inliers": reported.table(9, 0)[["free"]]}, ValueError, "column 'kind'"),
    ]:
        with pytest.raises(error, match=message):
            examine(reported.density(), reported.table(9, 9), **settings)


def test_rows_of_unseen_values_are_told_without_a_warning():
    """The most anomalous rows may share a column of unseen values; warnings are errors here."""
    density = DiffusionDensity(
        denoiser=Network(width=8, depth=1, base="independent"),
        max_steps=5,
        n_evaluations=8,
        random_state=0,
    )
    ordinary = pd.DataFrame({"a": ["x", "y"] * 40, "b": ["u", "v"] * 40})
    odd = pd.DataFrame({"a": ["new"] * 12, "b": ["u"] * 12})
    density.fit(ordinary)
    rows = pd.concat([ordinary, odd], ignore_index=True)
    found = examine(density, rows, n_most_anomalous=12)
    assert list(found.most_anomalous["row"]) == list(range(80, 92))
    assert found.stderr == pytest.approx(density.log_prob(rows).stderr)
    assert found.stderr.max() > 0


# -- the work of a page ------------------------------------------------------------------------------


def test_pairs_of_columns_are_left_out_where_they_are_costly(monkeypatch):
    """No pair is asked for then; the other sections are there."""
    monkeypatch.setattr(findings, "MOST_WORK", 1)
    monkeypatch.setattr(findings, "information_matrix", lambda *_: pytest.fail("asked"))
    found = examine(reported.density(), reported.table(20, 9), n_most_anomalous=0)
    assert found.information is None
    assert len(found.columns) == len(reported.table(20, 9).columns)


@pytest.mark.parametrize("inliers", [None, reported.table(40, 8)])
def test_rows_outside_of_training_are_told_once(inliers):
    rows = reported.table(60, 9)
    rows["<b>twin</b>"] = rows["<b>twin</b>"].mask(rows.index % 6 > 0, 9)
    with pytest.warns(UserWarning, match="50 of 60 rows") as told:
        examine(reported.detector(), rows, inliers=inliers)
    assert len(told) == 1
