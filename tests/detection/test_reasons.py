"""Reasons for people: the table that puts all together, and sentences."""

import numpy as np
import pandas as pd
import pytest
from test_cell_distributions import TABLE, mixed_model

from discrete_itd import DiffusionDensity
from discrete_itd.detection.reasons import expected, reasons, sentence
from discrete_itd.encoders import TableEncoder
from tests.detection.cells import cell_nats

pytestmark = pytest.mark.single_precision


@pytest.fixture(scope="module")
def model():
    return mixed_model()


# -- the table ------------------------------------------------------------------------------------


def test_properties_a_reason_is_a_reason(model, monkeypatch):
    """Whatever the rows: more surprisal than expected, more likely wrong than right, and no gap in the ranks."""
    random = np.random.default_rng(0)
    shuffled = pd.DataFrame({c: random.permutation(v) for c, v in TABLE[:60].items()})
    for rows in (TABLE[150:190], shuffled):
        for prior in (0.01, 0.2):
            monkeypatch.setattr("discrete_itd.detection.cell_predictions.WRONG_CELLS", prior)
            table = reasons(model, rows, k=3)
            assert (table["excess_nats"] > 0).all()
            likely = table["probability_wrong"] > 0.5
            assert (likely | (table["rank"] == 1) & (table["excess_nats"] >= 1)).all()
            assert (table["sentence"].str.contains("is likely wrong: ") == likely).all()
            assert (
                table["sentence"].str.endswith("; no single cell is likely wrong") != likely
            ).all()
            assert not table.duplicated(["row", "column"]).any()
            ranks = table.groupby("row")["rank"].agg(list)
            assert all(own == list(range(1, len(own) + 1)) for own in ranks)
            assert len(ranks) < len(rows)
    assert len(table)


def test_what_only_conflicts_with_a_wrong_cell_is_no_reason():
    """Two columns that copy a third: where that is wrong, both contradict it, and are right."""
    a = np.random.default_rng(0).choice(list("uvwxyz"), 3000)
    density = DiffusionDensity(denoiser="tree", random_state=0)
    density.fit(pd.DataFrame({"a": a, "b": a, "c": a}))
    odd = pd.DataFrame({"a": ["u", "u", "u"], "b": ["v", "w", "u"], "c": ["v", "u", "w"]})
    table = reasons(density, odd, k=3)
    assert table["column"].tolist() == ["a", "b", "c"]
    assert (cell_nats(density, odd).error_log_odds.loc[0] > 1).all()
    assert table.loc[0, "conflict_nats"] > 5


def test_a_spoilt_cell_is_told_of(model):
    rows = TABLE[TABLE["word"] == "top"][-20:]
    table = reasons(model, rows.assign(size=0.2), k=1)
    assert len(table) == 20
    assert (table["column"] == "size").mean() > 0.9
    own = table[table["column"] == "size"]
    assert (own["expected"].astype(float) > 0.2).all()


def test_reasons_where_cells_are_missing(model):
    rows = TABLE[:3].assign(size=np.nan, word=None, level=99).astype(object)
    rows.iloc[1] = None
    table = reasons(model, rows, k=5)
    assert set(table["row"]) == {"row 0", "row 2"}
    assert not table["column"].isin(["size", "word"]).any()
    assert (table["column"] == "level").sum() == 2
    for nothing in (rows[1:2], rows[:0]):
        none = reasons(model, nothing)
        assert len(none) == 0
        assert none.columns.equals(table.columns)


def test_arrays_repeated_labels_and_equal_rows():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (200, 3))
    cells[:, 1] = cells[:, 0]
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(cells)
    odd = np.array([[0, 2, 1], [1, 1, 1], [0, 2, 1]])
    table = reasons(density, odd, k=1)
    assert table["row"].tolist() == [0, 2]
    assert set(table["column"]) <= {0, 1}
    frame = pd.DataFrame(odd, index=["p", "p", "q"])
    again = reasons(density, frame, k=1)
    assert again["row"].tolist() == ["p", "q"]
    pd.testing.assert_frame_equal(again.drop(columns="row"), table.drop(columns="row"))
    assert expected(density, frame, 1)["column"].unique().tolist() == [1]


def test_wrong_arguments(model):
    with pytest.raises(ValueError, match="column 'q': the model has no such column"):
        expected(model, TABLE, ["q"])
    with pytest.raises(ValueError, match="k must be at least 1"):
        reasons(model, TABLE[:2], k=0)
    with pytest.raises(ValueError, match="column 'word': the model knows it"):
        reasons(model, TABLE.drop(columns="word"))


# -- sentences ------------------------------------------------------------------------------------

LINE = {
    "column": "size",
    "value": 9.0,
    "excess_nats": 3.21,
    "expected": 4.0,
    "expected_probability": 0.8,
}
LINE |= {"low": 3.0, "high": 5.25}
LINE |= {
    "probability_wrong": 0.9,
    "conflict_column": None,
    "conflict_value": None,
    "conflict_nats": 0.0,
}
CONFLICT = {"conflict_column": "word", "conflict_value": "top"}
RARE = "is likely wrong: 25 times as rare as expected from the other cells (+3.2 nats)"

MOST = f"is likely wrong: more than {len(TABLE)} times as rare as expected from the other cells"


def test_sentences():
    frame = TABLE.assign(size=TABLE["size"].round(2))
    columns = {c.name: c for c in TableEncoder.fit(frame).schema}
    for changes, text in [
        (
            {},
            f"size = 9.00 {RARE}; they predict 4.00 (3.00 to 5.25 with probability 0.80)",
        ),
        (
            {"value": None, "low": None, "expected": "x", "expected_probability": 0.125},
            f"the missing cell in size {RARE}; they predict x (probability 0.12)",
        ),
        (
            {"low": None, "expected": 9.0},
            f"size = 9.00 {RARE}; they predict this value (probability 0.80)",
        ),
        (
            {"low": 4.0, "high": 4.0, **CONFLICT, "conflict_nats": 2.0},
            f"size = 9.00 {RARE}; they predict 4.00 (probability 0.80);"
            " it conflicts most with word = top (2.0 nats)",
        ),
        (
            {"low": None, "expected": None, "expected_probability": 0.9},
            f"size = 9.00 {RARE}; they predict a missing cell (probability 0.90)",
        ),
        ({"expected_probability": np.nan}, f"size = 9.00 {RARE}"),
        (  # so many rows show no more, whatever the model says
            {"expected_probability": np.nan, "excess_nats": 167.0},
            f"size = 9.00 {MOST}",
        ),
        (
            {"expected_probability": np.nan, "probability_wrong": 0.4},
            f"size = 9.00 {RARE.replace('likely wrong: ', '')}; no single cell is likely wrong",
        ),
        (
            {"column": "word", "value": "", "low": None, "expected": " a\u202fb"},
            f"word = '' {RARE}; they predict ' a b' (probability 0.80)",
        ),
    ]:
        assert sentence({**LINE, **changes}, columns) == text
        alone = sentence({**LINE, "expected_probability": np.nan}, {"size": columns["size"]})
        assert (
            alone == "size = 9.00 is likely wrong: 25 times as rare as expected (+3.2 nats)"
        )  # no other cells
