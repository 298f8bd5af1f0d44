"""Parts of points in time: the same for all readers, functions of the row alone, groups of a detector."""

import datetime
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.cli.command import main
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.streams import FrameStream, survey
from discrete_itd.encoders.table import column_specs
from discrete_itd.scale import BatchScoring
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision  # as of the fixture of the module
PARTS = {"date.hour": None, "date.weekday": None, "date.month": None}
WEEK = np.array([0.5, 1, 1, 1, 1.2, 2, 0.1])


def hours(n=800, seed=0):
    """Hours of some years, without a time zone, the 5th missing."""
    rng = np.random.default_rng(seed)
    date = pd.Timestamp("2021-01-01") + pd.to_timedelta(rng.integers(0, 24 * 900, n), unit="h")
    return pd.DataFrame(
        {"x": rng.choice(["a", "b"], n), "date": pd.Series(date).where(np.arange(n) != 5)}
    )


def sales(n_days=400, seed=0, start="2023-01-01"):
    """Turnover of two shops, which depends on the weekday."""
    rng, days = np.random.default_rng(seed), pd.date_range(start, periods=n_days)
    frame = pd.DataFrame({"shop": np.repeat(["Rome", "Bonn"], n_days), "date": [*days, *days]})
    level = np.where(frame["shop"] == "Rome", 1000, 100) * WEEK[frame["date"].dt.day_of_week]
    return frame.assign(turnover=level * np.exp(rng.normal(0, 0.1, len(frame))))


def fit(X, **parameters):
    settings = {"denoiser": "forest", "false_alarm_rate": 0.1, "random_state": 0} | parameters
    return DiffusionOutlierDetector(given=["shop", "date.weekday"], **settings).fit(X)


@pytest.fixture(scope="module")
def fitted():
    return fit(sales())


# -- the parts ------------------------------------------------------------------------------------


def calendar(date):
    """Codes of hour, weekday and month by Python's own calendar, row by row."""
    cells = [(d.hour, d.weekday(), d.month - 1) if d == d else [np.nan] * 3 for d in date]
    return np.array(cells, dtype=float)


READERS = {
    "text": lambda date: date.astype(str).where(date.notna(), None),
    "German text": lambda date: date.dt.strftime("%d.%m.%Y %H:%M"),
    "objects": lambda date: date.astype(object),
    "seconds": lambda date: date.astype("datetime64[s]"),
    "arrow": lambda date: date.astype("timestamp[us][pyarrow]"),
}


# a notation is that of the training table
BOTH = [
    (a, b)
    for a in [None, *READERS]
    for b in [None, *READERS]
    if a == b or "German text" not in (a, b)
]


@pytest.mark.parametrize(("fitted_as", "read_as"), BOTH)
def test_property_parts_are_those_of_the_calendar_for_all_readers(fitted_as, read_as):
    pytest.importorskip("pyarrow")
    X, new = hours(), hours(seed=1)
    encoder = TableEncoder.fit(X.assign(date=READERS.get(fitted_as, lambda d: d)(X["date"])), PARTS)
    x = encoder.transform(new.assign(date=READERS.get(read_as, lambda d: d)(new["date"]))).x
    assert encoder.names == ["x", "date.hour", "date.weekday", "date.month"]
    np.testing.assert_array_equal(x[:, 1:], calendar(new["date"]))


def test_property_parts_are_of_the_row_alone_and_of_streams_those_of_the_table():
    X = hours()
    encoder, x = (e := TableEncoder.fit(X, PARTS)), e.transform(X).x
    for i in (0, 5, 77):  # a single row is read by another way
        np.testing.assert_array_equal(encoder.transform(X.iloc[[i]]).x[0], x[i])
    stream = FrameStream([X[:300], X[300:]])
    found = survey(stream, lambda names: column_specs(names, PARTS), lambda _: 500, 0)
    streamed = TableEncoder.fit(found.columns, PARTS)
    assert [c.n_missing for c in encoder.schema] == [0, 1, 1, 1]
    assert [c.n_missing for c in streamed.schema] == [c.n_missing for c in encoder.schema]
    np.testing.assert_array_equal(streamed.transform(X).x, x)


def test_parts_are_those_of_the_clock_in_the_time_zone_of_the_training_table():
    X = hours().dropna()
    zoned = X.assign(date=X["date"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"))
    encoder = TableEncoder.fit(zoned, PARTS)
    expected = calendar(zoned["date"])
    np.testing.assert_array_equal(encoder.transform(zoned).x[:, 1:], expected)
    elsewhere = zoned.assign(date=zoned["date"].dt.tz_convert("America/Lima"))
    as_text = zoned.assign(date=zoned["date"].map(datetime.datetime.isoformat))
    for same in (elsewhere, as_text, X):  # instants are the same; those without a zone are UTC
        np.testing.assert_array_equal(encoder.transform(same).x[:, 1:], expected)


def test_the_parts_stand_for_the_date():
    X = hours()
    model = DiffusionDensity(column_types=PARTS, denoiser="tree", random_state=0).fit(X)
    assert model.feature_names_in_.tolist() == ["x", "date"]
    assert model.explain(X).columns.tolist() == ["x", *PARTS]
    drawn = model.sample(50, random_state=0)
    assert drawn.columns.tolist() == ["x", *PARTS]
    assert np.isfinite(model.score_samples(drawn)).all()
    centuries_later = X.assign(date=X["date"] + pd.Timedelta(days=28 * 1461 // 4 * 7))
    same = calendar(centuries_later["date"]) == calendar(X["date"])
    same = same.all(1)
    assert same.sum() > 20
    np.testing.assert_array_equal(
        model.score_samples(centuries_later)[same], model.score_samples(X)[same]
    )
    gap = X[:8].assign(x=None)
    pd.testing.assert_series_equal(model.impute(gap)["date"], gap["date"])
    given = {"date": "2024-06-03 07:00", "x": "a"}
    assert (model.sample(3, given=given)["date.weekday"] == "Monday").all()
    assert len(model.sample(3, given={"date.month": "May"})) == 3
    with pytest.warns(UserWarning, match="feature names"):  # by position
        by_position = model.score_samples(X.to_numpy(dtype=object))
    with pytest.warns(UserWarning, match="feature names"):
        filled = model.impute(gap.to_numpy(dtype=object))
    assert filled.shape == gap.shape
    np.testing.assert_array_equal(by_position, model.score_samples(X))
    with pytest.raises(
        ValueError, match="column 'date': named in given=, but not in the model: its parts"
    ):
        model.log_prob(X, given=["date"])
    with pytest.raises(ValueError, match="column 'date'"):
        model.score_samples(X[["x"]])
    with pytest.warns(UserWarning, match="2 unreadable cells .*'date' 'soon'"):
        scores = model.score_samples(X[:2].assign(date="soon"))
    np.testing.assert_array_equal(scores, model.score_samples(X[:2].assign(date=None)))
    with pytest.raises(ValueError, match=r"column 'date.month': unseen category 'May 1'"):
        model.score_samples(drawn.astype(object).assign(**{"date.month": "May 1"}))


def test_a_table_may_have_a_column_of_that_name():
    X = hours().assign(**{"date.hour": "late"})
    encoder = TableEncoder.fit(X, {"date.hour": "nominal", "date.month": "nominal"})
    assert encoder.names == ["x", "date.hour", "date.month"]
    assert encoder.schema[1].categories == ("late",)
    with pytest.raises(ValueError, match=r"'date.year': named in column_types=, but the table"):
        TableEncoder.fit(X, {"date.year": None})
    ids = X.assign(id=[f"no {i}" for i in range(len(X))])
    with pytest.raises(
        ValueError, match=r"column 'id': 'id.hour' needs points in time, got nominal"
    ):
        TableEncoder.fit(ids, {"id.hour": None}, leave_out=True)
    with pytest.raises(ValueError, match=r"column 'x': 'x.hour' needs points in time, got nominal"):
        TableEncoder.fit(X, {"x.hour": None})


def test_batches_over_time_and_missingness():
    X = hours()
    how = {"denoiser": "independent", "random_state": 0, "column_types": PARTS}
    grown = DiffusionDensity(**how).partial_fit(X[:400]).partial_fit(X[400:])
    assert grown.encoder_.part_names == [*PARTS]
    assert np.isfinite(grown.score_samples(X)).all()
    model = DiffusionDensity(missing="category", **how).fit(X)
    assert model.explain(X).iloc[5].notna().all()  # a missing date has a probability
    assert model.encoder_.describe().set_index("column").loc["date", "kind"] == "left out: time"


# -- groups ---------------------------------------------------------------------------------------


def test_a_drop_of_one_shop_on_one_day_is_found_and_explained(fitted):
    new = pd.DataFrame({"shop": ["Bonn", "Rome"], "date": "2031-06-07", "turnover": [40.0, 2000.0]})
    assert fitted.predict(new).tolist() == [-1, 1]  # on a Saturday, of years that were not seen
    assert fitted.groups().index.names == ["shop", "date.weekday"]
    assert fitted.groups(new)["seen"].all()
    sentence = fitted.reasons(new)["sentence"][0]
    assert sentence.startswith("turnover = 40 is ")
    assert fitted.explain(new)["date.weekday"].isna().all()
    assert "date" not in fitted.explain(new)


@pytest.mark.slow
def test_property_p_values_are_valid_in_each_shop_and_weekday():
    share, n = [], 0
    for seed in range(2 * TIMES):
        detector = fit(sales(1400, seed=seed), calibration_fraction=0.4)
        new = sales(1400, seed=100 + seed, start="2033-01-01")
        p = pd.Series(detector.p_values(new)).groupby([new["shop"], new["date"].dt.day_of_week])
        assert detector.groups()["own"].all()
        share.append(p.agg(lambda own: (own <= 0.1).mean()))
        n = p.size().min()
    # a rate of one calibration set is Beta distributed around at most 0.1, with some 80 rows in each group
    n *= len(share)
    bound = stats.betabinom(n, 8, 72).ppf(1 - 1e-4) / n
    assert pd.concat(share, axis=1).mean(axis=1).max() < bound
    assert 0.07 < pd.concat(share).mean() < 0.11


def test_files_copies_and_batches(fitted, tmp_path):
    new = sales(30, seed=9, start="2025-02-01")
    scores = fitted.score_samples(new)
    fitted.save(tmp_path / "m")
    loaded = DiffusionOutlierDetector.load(tmp_path / "m")
    again = clone(fitted).fit(sales())
    for other in (loaded, pickle.loads(pickle.dumps(fitted)), again):
        np.testing.assert_array_equal(other.score_samples(new), scores)
    assert loaded.given == ["shop", "date.weekday"]
    found = BatchScoring(tmp_path / "m", outputs=["score", "p_value"])(new)
    np.testing.assert_array_equal(found["score"], scores)
    np.testing.assert_array_equal(found["p_value"], fitted.p_values(new))


def test_the_command_fits_and_scores_by_parts(tmp_path):
    new = sales(30, seed=9, start="2025-02-01")
    sales().to_csv(tmp_path / "in.csv", index=False)
    new.to_csv(tmp_path / "new.csv", index=False)
    paths = [str(tmp_path / name) for name in ("in.csv", "m.safetensors", "new.csv", "out.csv")]
    how = ["--denoiser", "forest", "--seed", "0", "--detector", "--given", "shop", "date.weekday"]
    assert main(["fit", paths[0], "--out", paths[1], *how, "--false-alarm-rate", "0.1"]) == 0
    assert main(["score", paths[1], paths[2], "--out", paths[3]]) == 0
    found, model = pd.read_csv(paths[3]), DiffusionOutlierDetector.load(paths[1])
    np.testing.assert_allclose(found["p_value"], model.p_values(new))
    assert model.given == ["shop", "date.weekday"]
    column = ["--column", "date.weekday=nominal", "--denoiser", "tree"]
    assert main(["fit", paths[0], "--out", paths[1], *column]) == 0
    assert main(["sample", paths[1], "-n", "2", "--out", paths[3]]) == 0
    assert pd.read_csv(paths[3]).columns.tolist() == ["shop", "turnover", "date.weekday"]


def test_errors_before_the_fit_name_the_column(monkeypatch):
    X = sales(50)
    whole = DiffusionDensity(denoiser="tree", random_state=0).fit(X)
    frozen = DiffusionOutlierDetector(FrozenEstimator(whole), given="date.month")
    with pytest.raises(ValueError, match=r"column 'date.month': named in given=.*column_types="):
        frozen.fit(X)
    monkeypatch.setattr(DiffusionDensity, "fit", lambda *_, **__: pytest.fail("fitted"))
    for given, message in {
        "date.week": "column 'date.week': named in given=",
        "turnover.month": "column 'turnover': 'turnover.month' needs points in time",
        ("shop", "date.month", "turnover"): "column 'turnover': named in given=",
        ("date", "date.month"): "column 'date': named in given=, but its parts stand for it",
    }.items():
        with pytest.raises(ValueError, match=message):
            DiffusionOutlierDetector(given=given).fit(X)
    with pytest.raises(ValueError, match="names all columns"):
        DiffusionOutlierDetector(given=["date.month", "date.weekday"]).fit(X[["date"]])
    twice = {"date": "continuous", "date.hour": "ordinal"}
    with pytest.raises(ValueError, match=r"column 'date': column_types= has a kind .* 'date.hour'"):
        TableEncoder.fit(X, twice)
