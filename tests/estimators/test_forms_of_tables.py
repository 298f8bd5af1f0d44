"""Forms of tables at a fitted model, and of its answers: no rows, more columns, words for truth values, polars."""

import io

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection.watch import DriftWatch
from discrete_itd.reporting.findings import examine

pytestmark = pytest.mark.single_precision
polars = pytest.importorskip("polars")

N = 600


def table():
    random = np.random.default_rng(0)
    member = random.random(N) < 0.5
    frame = pd.DataFrame({"member": member, "city": random.choice(["Oslo", "Rome", "Lima"], N)})
    frame["price"] = (random.lognormal(size=N) + 3 * member).round(2)
    return frame


TABLE = table()


@pytest.fixture(scope="module")
def detector():
    return DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(TABLE)


@pytest.fixture(scope="module")
def density(detector):
    return detector.density_


# each question about a table that has one answer for each row, cell or pair of cells
OF_DENSITY = {
    "score_samples": lambda m, X: m.score_samples(X),
    "log_prob": lambda m, X: np.stack(m.log_prob(X, given=["city"]), 1),
    "explain": lambda m, X: m.explain(X),
    "impute": lambda m, X: m.impute(X),
    "impute draws": lambda m, X: m.impute(X, method="sample", random_state=0),
    "predict_proba": lambda m, X: m.predict_proba(X, "city"),
    "predict_quantiles": lambda m, X: m.predict_quantiles(X, "price"),
    "predict_log_density": lambda m, X: m.predict_log_density(X, "city", ["Oslo"]),
}
OF_DETECTOR = {
    "p_values": lambda d, X: d.p_values(X),
    "discoveries": lambda d, X: d.discoveries(X),
    "predict": lambda d, X: d.predict(X),
    "decision_function": lambda d, X: d.decision_function(X),
    "reasons": lambda d, X: d.reasons(X),
    "expected": lambda d, X: d.expected(X),
}
QUESTIONS = {**OF_DENSITY, **OF_DETECTOR}


def asked(detector, name):
    model = detector if name in OF_DETECTOR else detector.density_
    return lambda X: QUESTIONS[name](model, X)


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_rows_have_an_empty_answer_of_the_same_form(detector, name):
    ask = asked(detector, name)
    nothing, something = ask(TABLE[:0]), ask(TABLE[:3])
    assert (len(nothing), nothing.shape[1:]) == (0, something.shape[1:])
    if isinstance(something, pd.DataFrame):
        assert list(nothing.columns) == list(something.columns)
    assert len(ask(polars.from_pandas(TABLE[:0]))) == 0


def test_no_rows_have_no_mean_and_no_distribution(detector, density):
    assert np.isnan(density.score(TABLE[:0]))
    for refused in (
        lambda: DiffusionDensity(denoiser="tree").fit(TABLE[:0]),
        lambda: detector.drift(TABLE[:0]),
    ):
        with pytest.raises(ValueError, match="minimum of 1 is required"):
            refused()
    codes = np.random.default_rng(0).integers(0, 3, (40, 2))
    of_array = DiffusionDensity(denoiser="tree").fit(codes)
    assert of_array.score_samples(codes[:0]).shape == (0,)


@pytest.mark.parametrize("name", QUESTIONS)
def test_columns_that_the_model_does_not_know_are_ignored_with_a_warning(detector, name):
    ask, rows = asked(detector, name), TABLE[:4].copy()
    rows.loc[1, "city"] = None
    more = rows.assign(id=range(4), note="?")[["note", *rows.columns, "id"]]
    with pytest.warns(UserWarning, match="^ignoring 2 of 5 columns: note, id$"):
        found = ask(more)
    plain = ask(rows)
    if name.startswith("impute"):  # they come back as they are
        assert list(found.columns) == list(more.columns)
        pd.testing.assert_frame_equal(found[["note", "id"]], more[["note", "id"]])
        found = found[rows.columns]
    as_frame = isinstance(plain, pd.DataFrame)
    compare = pd.testing.assert_frame_equal if as_frame else np.testing.assert_array_equal
    compare(found, plain)


def test_rows_keep_the_columns_that_the_model_does_not_know(density):
    with pytest.warns(UserWarning, match="ignoring 1 of 4 columns"):
        rows = density.rows(TABLE.assign(id=range(N)))
    both = type(rows).concat([rows.take([5, 3]), rows.take([9])])
    assert density.impute(both)["id"].tolist() == [5, 3, 9]


def test_truth_values_survive_a_table_of_text():
    """A model of truth values reads words, a model of words reads truth values; other words are unreadable."""
    words = TABLE.astype({"member": str})
    of_words = DiffusionDensity(denoiser="tree", random_state=0).fit(words)
    of_truths = DiffusionDensity(denoiser="tree", random_state=0).fit(TABLE)
    back = pd.read_csv(io.StringIO(words.to_csv(index=False)))
    assert back["member"].dtype == bool
    np.testing.assert_array_equal(of_words.score_samples(back), of_words.score_samples(words))
    np.testing.assert_array_equal(of_truths.score_samples(words), of_truths.score_samples(TABLE))
    lower = TABLE.assign(member=words["member"].str.lower())
    np.testing.assert_array_equal(of_truths.score_samples(lower), of_truths.score_samples(TABLE))
    with pytest.warns(UserWarning, match=f"{len(TABLE)} unreadable cells .* 'member' 'yes'"):
        of_truths.score_samples(TABLE.assign(member="yes"))
    digits = TABLE.astype({"member": int})
    np.testing.assert_array_equal(of_truths.score_samples(digits), of_truths.score_samples(TABLE))
    with pytest.raises(ValueError, match="column 'member': unseen category 2"):
        of_truths.score_samples(TABLE.assign(member=2))
    gap = words[:2].astype({"member": object})
    gap.loc[0, "member"] = None
    assert {type(v) for v in of_truths.impute(gap)["member"]} == {str}


# -- other libraries --------------------------------------------------------------------------------

LIBRARIES = {
    "polars": lambda module, frame: module.from_pandas(frame),
    "polars lazy": lambda module, frame: module.from_pandas(frame).lazy(),
    "pyarrow": lambda module, frame: module.Table.from_pandas(frame, preserve_index=False),
    "duckdb": lambda module, frame: module.from_df(frame),
    "dask.dataframe": lambda module, frame: module.from_pandas(frame, npartitions=2),
    "modin.pandas": lambda module, frame: module.DataFrame(frame),
}


@pytest.mark.parametrize(
    "name",  # the import of Dask takes seconds
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in ("dask.dataframe", "polars lazy")))
        for n in LIBRARIES
    ],
)
def test_a_table_of_any_library_is_that_of_pandas(detector, name):
    module = pytest.importorskip(name.split()[0])
    whole, few, none = (LIBRARIES[name](module, frame) for frame in (TABLE, TABLE[:9], TABLE[:0]))
    found = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(whole)
    assert found.density_.encoder_.names == list(TABLE.columns)
    np.testing.assert_array_equal(found.score_samples(few), detector.score_samples(TABLE[:9]))
    in_parts = DiffusionDensity(denoiser="tree", random_state=0).fit([few, few])
    twice = DiffusionDensity(denoiser="tree", random_state=0).fit(pd.concat([TABLE[:9]] * 2))
    np.testing.assert_array_equal(in_parts.score_samples(few), twice.score_samples(TABLE[:9]))
    counted = DiffusionDensity(denoiser="tree", random_state=0).partial_fit(whole).partial_fit(few)
    assert np.isfinite(counted.score_samples(few)).all()
    filled = found.density_.impute(few)
    assert type(filled).__module__.split(".")[0] == ("polars" if "polars" in name else "pandas")
    assert not found.drift(few).columns.empty
    assert len(DriftWatch(found, random_state=0).update(none)) == 0
    assert examine(found, few).n_rows == 9


def test_a_table_of_an_unknown_library_is_refused(density):
    class Other:
        columns = ("member",)

    for ask in (density.score_samples, DiffusionDensity(denoiser="tree").fit):
        with pytest.raises(
            TypeError, match=r"X is a \S+Other, a table that narwhals does not know"
        ):
            ask(Other())


# -- polars -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in QUESTIONS if n not in ("score_samples", "log_prob")])
def test_a_polars_frame_gets_polars_frames(detector, name):
    ask = asked(detector, name)
    rows = TABLE[:5].copy()
    rows.loc[2, "city"] = None
    found, plain = ask(polars.from_pandas(rows)), ask(rows)
    if not isinstance(plain, pd.DataFrame):
        np.testing.assert_array_equal(found, plain)
        return
    assert isinstance(found, polars.DataFrame)
    assert found.columns == list(map(str, plain.columns))
    assert found.height == len(plain)
    for column, values in plain.items():
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(found[str(column)].to_numpy(), values.to_numpy())


def test_samples_of_a_model_of_a_polars_frame_are_one(tmp_path):
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(polars.from_pandas(TABLE))
    drawn = model.sample(3, random_state=0)
    assert isinstance(drawn, polars.DataFrame)
    assert drawn.columns == list(TABLE.columns)
    model.save(tmp_path / "m")
    assert DiffusionDensity.load(tmp_path / "m").sample(3, random_state=0).equals(drawn)
    filled = model.impute(polars.from_pandas(TABLE[:2]), method="sample")
    assert isinstance(filled, polars.DataFrame)
    assert isinstance(model.explain(TABLE[:2]), pd.DataFrame)
    assert isinstance(model.fit(TABLE).sample(2), pd.DataFrame)


def test_a_detector_of_a_polars_frame_draws_for_itself():
    rows = polars.from_pandas(TABLE)
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(rows)
    assert not detector.drift(rows[:300]).columns.empty
