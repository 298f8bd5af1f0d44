"""A table is encoded once: ``Rows`` in place of a table give the same answers, and are not encoded again."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from discrete_itd import DiffusionDensity
from discrete_itd.encoders import Rows, TableEncoder

pytestmark = pytest.mark.single_precision

TABLE = pd.DataFrame(
    {
        "word": ["low", "mid", "top", None] * 25,
        "size": np.arange(100.0) ** 1.5,
        "flag": [True, False] * 50,
    },
    index=[f"row {i}" for i in range(100)],
)
ASKED = TABLE.iloc[10:30]
QUESTIONS = {
    "log_prob": lambda m, X: np.stack(m.log_prob(X, given=["flag"])),
    "score_samples": lambda m, X: m.score_samples(X),
    "score": lambda m, X: m.score(X),
    "explain": lambda m, X: m.explain(X),
    "mse_curve": lambda m, X: m.mse_curve(X, n_points=3),
    "impute": lambda m, X: m.impute(X),
    "predict_proba": lambda m, X: m.predict_proba(X, "word"),
    "predict_quantiles": lambda m, X: m.predict_quantiles(X, "size"),
    "predict_log_density": lambda m, X: m.predict_log_density(X, "word", ["low", "new"]),
}


@pytest.fixture(scope="module")
def model():
    return DiffusionDensity(
        denoiser="mixture", missing="category", n_evaluations=8, random_state=0
    ).fit(TABLE)


@pytest.fixture
def calls(monkeypatch):
    """The number of rows of each table that is encoded."""
    counted, readable = [], TableEncoder.readable

    def counting(self, frame):
        counted.append(len(frame))
        return readable(self, frame)

    monkeypatch.setattr(TableEncoder, "readable", counting)
    return counted


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_table_is_encoded_once_and_rows_never_again(model, calls, question):
    ask = QUESTIONS[question]
    expected = ask(model, ASKED)
    assert calls == [len(ASKED)]
    rows = model.rows(ASKED)
    calls.clear()
    got = ask(model, rows)
    assert not calls
    if isinstance(expected, pd.DataFrame):
        assert_frame_equal(got, expected)
    else:
        np.testing.assert_array_equal(got, expected)


def test_rows_know_the_table_and_its_distinct_rows(model):
    rows = model.rows(ASKED)
    assert isinstance(rows, Rows)
    assert len(rows) == len(ASKED)
    assert rows.is_frame
    assert rows.by_name
    assert rows.columns.equals(ASKED.columns)
    assert rows.index.equals(ASKED.index)
    assert_frame_equal(rows.frame, ASKED[TABLE.columns])
    assert rows.x.dtype == torch.float64
    assert rows.x.shape == rows.log_volume.shape == (20, len(model.encoder_.owner))
    assert torch.equal(rows.unique[rows.inverse].nan_to_num(-9.0), rows.x.nan_to_num(-9.0))
    assert rows.unique is rows.unique
    assert_frame_equal(rows.as_given(rows.frame), ASKED)
    assert (model.rows(pd.concat([ASKED, ASKED])).unique.shape) == rows.unique.shape


def test_rows_of_another_schema_are_refused_and_those_of_a_copy_are_not(model):
    rows = model.rows(ASKED)
    assert model.rows(rows) is rows
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.score_samples(rows), model.score_samples(ASKED))
    other = DiffusionDensity(denoiser="independent", random_state=0).fit(TABLE.iloc[:50])
    with pytest.raises(ValueError, match="schema of another model"):
        other.score_samples(rows)


def test_rows_of_an_array_are_found_by_position():
    array = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
    model = DiffusionDensity(denoiser="independent", random_state=0).fit(array)
    rows = model.rows(array)
    assert not rows.is_frame
    assert not rows.by_name
    np.testing.assert_array_equal(rows.as_given(rows.frame), array)
    frame = pd.DataFrame(array, columns=["a", "b"])
    with pytest.warns(UserWarning, match="fitted without feature names"):
        rows = model.rows(frame)
    assert rows.is_frame
    assert not rows.by_name
    assert_frame_equal(rows.as_given(rows.frame), frame)


def test_a_column_is_ignored_in_rows_as_in_tables(model):
    read = model.rows(ASKED)
    for table in (ASKED, read):
        ignored = model.rows(table, ignore="word")
        assert bool(ignored.x[:, 0].isnan().all())
        assert ignored.frame["word"].isna().all()
    assert torch.equal(
        model.rows(read, ignore="size").x.nan_to_num(-1.0),
        model.rows(ASKED, ignore="size").x.nan_to_num(-1.0),
    )
    assert not bool(read.x[:, 1].isnan().any())
    for table in (ASKED, read):
        with pytest.raises(ValueError, match="column 'colour': named in ignore="):
            model.rows(table, ignore="colour")


@pytest.mark.parametrize(
    "positions",
    [3, np.int64(3), (0, 1), [3, 3, 0], [-1], slice(None, None, -1), np.arange(20) % 3 == 0],
)
def test_taking_rows_is_reading_part_of_the_table(model, calls, positions):
    chosen = list(positions) if isinstance(positions, tuple) else positions
    taken = np.atleast_1d(np.arange(len(ASKED))[chosen])
    part, expected = model.rows(ASKED).take(positions), model.rows(ASKED.iloc[taken])
    assert calls == [len(ASKED), len(expected)]
    assert_frame_equal(part.frame, expected.frame)
    np.testing.assert_array_equal(part.x, expected.x)
    np.testing.assert_array_equal(part.log_volume, expected.log_volume)


def test_a_fit_takes_no_rows(model):
    with pytest.raises(TypeError, match="got Rows"):
        DiffusionDensity().fit(model.rows(ASKED))
