"""Reasons for people: pairs against enumeration, and the table that puts all together."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_cell_conditionals import QUICK, ROWS, TABLE, exact_density, mixed_model, pairwise

from discrete_itd import DiffusionDensity
from discrete_itd.detection.reasons import cell_nats, expected, reasons, sentence
from discrete_itd.encoders import TableEncoder

pytestmark = pytest.mark.single_precision


@pytest.fixture(scope="module")
def model():
    return mixed_model()


def marginal(p, names):
    return p.groupby([ROWS[c] for c in names]).transform("sum")


# -- pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_against_enumeration(seed):
    density, p, _ = exact_density(seed)
    pairs = pairwise(density, ROWS)
    assert pairs.shape == (12 * 3, 3)
    for j in ROWS:
        own = pairs.xs(j, level="column")
        for i in ROWS:
            if i == j:
                assert (own[i] == 0).all()
                continue
            ratio = marginal(p, [i]) * marginal(p, [j]) / marginal(p, [i, j])
            np.testing.assert_allclose(own[i], np.log(ratio), atol=1e-4)


def test_pairs_with_missing_cells():
    density, p, _ = exact_density()
    pairs = pairwise(density, ROWS.assign(b=None))
    assert (pairs.xs("b", level="column") == 0).all(axis=None)
    assert (pairs["b"] == 0).all()
    ratio = marginal(p, ["a"]) * marginal(p, ["c"]) / marginal(p, ["a", "c"])
    np.testing.assert_allclose(pairs.xs("a", level="column")["c"], np.log(ratio), atol=1e-4)


def test_pairs_are_differences_of_the_model(model):
    """Whatever the kind of column: what one given column changes, asked one by one."""
    rows = TABLE[:12]
    pairs = pairwise(model, rows)
    for j, i in [("size", "word"), ("count", "flag"), ("word", "level"), ("level", "size")]:
        alone, both = (rows[[j, *given]].reindex(columns=rows.columns) for given in ([], [i]))
        change = model.log_prob(alone).log_prob - model.log_prob(both, given=[i]).log_prob
        np.testing.assert_allclose(pairs.xs(j, level="column")[i], change, atol=1e-3)
    strange = pairwise(model, rows[:1].assign(word="low", size=9.0)).xs("size", level="column")
    assert strange["word"].iloc[0] > 1


def test_pairs_of_what_is_missing():
    """Two columns that are missing together: that only one is, is strange for both."""
    rng = np.random.default_rng(1)
    gone = rng.random(500) < 0.4
    frame = pd.DataFrame({c: pd.Series(rng.choice(["u", "v"], 500)).mask(gone) for c in "ab"})
    frame["c"] = rng.choice(["s", "t"], 500)
    density = DiffusionDensity(**{**QUICK, "max_steps": 300}, missing="category").fit(frame)
    pairs = pairwise(density, pd.DataFrame({"a": ["u", None], "b": [None, None], "c": ["s", "s"]}))
    assert pairs.loc[(0, "a"), "b"] > 0.5
    assert pairs.loc[(0, "b"), "a"] > 0.5
    assert pairs.loc[(1, "b"), "a"] < -0.3
    assert abs(pairs["c"]).max() < 0.3
    # asked one by one: a's being there given that b is, and a given b and which cells are there
    row = pd.DataFrame({"a": ["u"], "b": ["v"], "c": ["s"]})
    x = density.rows(row).x

    def log_prob(j, *known):
        known = torch.isin(torch.arange(5), torch.tensor(known, dtype=torch.int64))
        told = x.masked_fill(~known & (torch.arange(5) != j), np.nan)
        return density.model_.log_prob(told, 2, given=known).log_prob.item()

    there = log_prob(3) - log_prob(3, 4)
    value = log_prob(0, 3, 4) - log_prob(0, 1, 3, 4)
    assert np.isclose(pairwise(density, row).loc[(0, "a"), "b"], there + value, atol=1e-4)


# -- the table ------------------------------------------------------------------------------------


def test_the_table_of_reasons(model):
    rows = pd.concat([TABLE[TABLE["word"] == "top"][-10:].assign(size=0.2), TABLE[150:160]])
    table = reasons(model, rows, k=2)
    assert set(rows.index[:10]) <= set(table["row"])
    nats, pairs = cell_nats(model, rows), pairwise(model, rows)
    best = expected(model, rows, n_values=1).set_index(["row", "column"])
    for line in table.to_dict("records"):
        row, column = line["row"], line["column"]
        assert line["value"] == rows.loc[row, column]
        assert np.isclose(line["excess_nats"], line["nats"] - line["expected_nats"])
        if line["rank"] == 1:
            doubt = nats.error_log_odds.loc[row]
            assert column == doubt.idxmax()
            assert np.isclose(line["nats"], nats.given_others.loc[row, column], atol=1e-4)
            assert np.isclose(line["expected_nats"], nats.entropy.loc[row, column], atol=1e-4)
            odds = doubt.max() - np.log(5)
            assert np.isclose(line["error_probability"], 1 / (1 + np.exp(-odds)), atol=1e-5)
            told = best.loc[(row, column), "expected"]
            assert told == line["expected"] or told == pytest.approx(line["expected"], rel=1e-5)
        against = pairs.loc[(row, column)]
        if line["conflict_column"] is None:
            assert against.max() <= 0
        else:
            assert against.idxmax() == line["conflict_column"]
            assert np.isclose(against.max(), line["conflict_nats"])
            assert line["conflict_value"] == rows.loc[row, line["conflict_column"]]
        assert line["sentence"].startswith(f"{column} = ")
        assert " times as rare as expected from the other cells (+" in line["sentence"]


def test_properties_a_reason_is_a_reason(model):
    """Whatever the rows: more surprisal than expected, more likely wrong than right, and no gap in the ranks."""
    random = np.random.default_rng(0)
    shuffled = pd.DataFrame({c: random.permutation(v) for c, v in TABLE[:60].items()})
    for rows in (TABLE[150:190], shuffled):
        for prior in (0.01, 0.9):
            table = reasons(model, rows, k=3, prior=prior)
            assert (table["excess_nats"] >= 0.05).all()
            assert (table["error_probability"] > 0.5).all()
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
    doubt = cell_nats(density, odd).error_log_odds.loc[0]
    assert (doubt > 1).all()


def test_a_spoilt_cell_is_told_of(model):
    rows = TABLE[TABLE["word"] == "top"][-20:]
    table = reasons(model, rows.assign(size=0.2), k=1)
    assert len(table) == 20
    assert (table["column"] == "size").mean() > 0.9
    own = table[table["column"] == "size"]
    assert (own["low"].astype(float) > 0.2).all()


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
    with pytest.raises(ValueError, match="prior must be between 0 and 1"):
        reasons(model, TABLE[:2], prior=1.0)
    with pytest.raises(ValueError, match="k must be at least 1"):
        reasons(model, TABLE[:2], k=0)
    with pytest.raises(ValueError, match="column 'word': the model knows it"):
        cell_nats(model, TABLE.drop(columns="word"))


# -- sentences ------------------------------------------------------------------------------------

LINE = {"column": "size", "value": 9.0, "excess_nats": 3.21, "expected": 4.0, "probability": 0.8}
LINE |= {"low": 3.0, "high": 5.25}
LINE |= {"conflict_column": None, "conflict_value": None, "conflict_nats": 0.0}
CONFLICT = {"conflict_column": "word", "conflict_value": "top"}
RARE = "is 25 times as rare as expected from the other cells (+3.2 nats)"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            f"size = 9.00 {RARE}; they predict 4.00 (3.00 to 5.25 with probability 0.80)",
        ),
        (
            {"value": None, "low": None, "expected": "x", "probability": 0.125},
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
            {"low": None, "expected": None, "probability": 0.9},
            f"size = 9.00 {RARE}; they predict a missing cell (probability 0.90)",
        ),
        ({"probability": np.nan, **CONFLICT, "conflict_nats": 0.01}, f"size = 9.00 {RARE}"),
    ],
)
def test_sentences(changes, text):
    frame = TABLE.assign(size=TABLE["size"].round(2))
    columns = {c.name: c for c in TableEncoder.fit(frame).schema}
    assert sentence({**LINE, **changes}, columns) == text
