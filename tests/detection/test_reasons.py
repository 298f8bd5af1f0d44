"""Reasons for people: pairs against enumeration, and the table that puts all together."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_cell_conditionals import QUICK, ROWS, TABLE, exact_density, mixed_model

from discrete_itd import DiffusionDensity
from discrete_itd.detection.reasons import cell_nats, expected, pairwise, reasons, sentence

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


def test_pairs_of_rows_with_an_index_of_two_levels():
    density, _, _ = exact_density()
    two = ROWS.set_axis(pd.MultiIndex.from_arrays([["x"] * 12, range(12)]))
    pairs = pairwise(density, two)
    np.testing.assert_array_equal(pairs, pairwise(density, ROWS))
    assert pairs.index[0] == ("x", 0, ROWS.columns[0])


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


@pytest.fixture(scope="module")
def usual(model):
    return model.explain(TABLE[:150])


def test_the_table_of_reasons(model, usual):
    rows = TABLE[150:160]
    table = reasons(model, rows, usual, k=2)
    assert table["row"].tolist() == rows.index.repeat(2).tolist()
    assert table["rank"].tolist() == [1, 2] * 10
    shares, nats, pairs = model.explain(rows), cell_nats(model, rows), pairwise(model, rows)
    doubt = nats.error_log_odds
    best = expected(model, rows, k=2, n_values=1)
    for n, line in enumerate(table.to_dict("records")):
        row, column = line["row"], line["column"]
        assert column == doubt.loc[row].sort_values(ascending=False).index[line["rank"] - 1]
        assert line["value"] == rows.loc[row, column]
        assert line["nats"] == shares.loc[row, column]
        assert np.isclose(line["mean_inlier_nats"], usual[column].mean())
        assert np.isclose(line["excess_nats"], line["nats"] - line["mean_inlier_nats"])
        assert line["p_value"] == (1 + (usual[column] >= line["nats"]).sum()) / 151
        odds = np.exp(doubt.loc[row])
        assert np.isclose(line["error_probability"], odds[column] / odds.sum())
        told = best.iloc[n]
        assert (told["row"], told["column"]) == (row, column)
        assert told["expected"] == line["expected"]
        against = pairs.loc[(row, column)]
        if line["conflict_column"] is None:
            assert against.max() <= 0
        else:
            assert against.idxmax() == line["conflict_column"]
            assert np.isclose(against.max(), line["conflict_nats"])
            assert line["conflict_value"] == rows.loc[row, line["conflict_column"]]
        text = sentence(line)
        assert text.startswith(f"{column} = ")
        assert " in a typical row; the other cells predict " in text


def test_a_spoilt_cell_is_told_of(model, usual):
    rows = TABLE[TABLE["word"] == "top"][-20:]
    table = reasons(model, rows.assign(size=0.2), usual, k=1)
    assert (table["column"] == "size").mean() > 0.9
    own = table[table["column"] == "size"]
    assert (own["p_value"] < 0.05).all()
    assert (own["low"].astype(float) > 0.2).all()
    assert own["error_probability"].mean() > 0.8


def test_reasons_where_cells_are_missing(model, usual):
    rows = TABLE[:3].assign(size=np.nan, word=None).astype(object)
    rows.iloc[1] = None
    table = reasons(model, rows, usual.assign(flag=0.0, count=np.nan), k=5)
    assert table.groupby("row").size().to_dict() == {"row 0": 3, "row 2": 3}
    assert not table["column"].isin(["size", "word"]).any()
    flags = table[table["column"].isin(["flag", "count"])]
    assert (flags["p_value"] == 1).all()  # nothing to compare with
    assert (flags["mean_inlier_nats"] == 0).all()
    nothing = reasons(model, rows[1:2], usual)
    assert len(nothing) == 0
    assert nothing.columns.equals(table.columns)


def test_arrays_repeated_labels_and_equal_rows():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (200, 3))
    cells[:, 1] = cells[:, 0]
    density = DiffusionDensity(**QUICK).fit(cells)
    usual = density.explain(cells[:50])
    odd = np.array([[0, 2, 1], [1, 1, 1], [0, 2, 1]])
    table = reasons(density, odd, usual, k=1)
    assert table["row"].tolist() == [0, 1, 2]
    assert set(table["column"][[0, 2]]) <= {0, 1}
    frame = pd.DataFrame(odd, index=["p", "p", "q"])
    again = reasons(density, frame, usual, k=1)
    assert again["row"].tolist() == ["p", "p", "q"]
    pd.testing.assert_frame_equal(again.drop(columns="row"), table.drop(columns="row"))
    pairs = pairwise(density, frame)
    assert pairs.index.get_level_values("row").tolist() == ["p"] * 6 + ["q"] * 3
    assert expected(density, frame, 1)["column"].unique().tolist() == [1]


def test_wrong_arguments(model, usual):
    with pytest.raises(ValueError, match="column 'q': the model has no such column"):
        expected(model, TABLE, ["q"])
    with pytest.raises(ValueError, match="column 'word': inlier_nats has no such column"):
        reasons(model, TABLE[:2], usual.drop(columns="word"))
    with pytest.raises(TypeError, match="inlier_nats must be a DataFrame"):
        reasons(model, TABLE[:2], usual.to_numpy())
    with pytest.raises(ValueError, match="k must be at least 1"):
        reasons(model, TABLE[:2], usual, k=0)
    with pytest.raises(ValueError, match="column 'word': the model knows it"):
        cell_nats(model, TABLE.drop(columns="word"))


# -- sentences ------------------------------------------------------------------------------------

LINE = {"column": "size", "value": 9.0, "excess_nats": 3.21, "expected": 4.0, "probability": 0.8}
LINE |= {"low": 3.0, "high": 5.25}
LINE |= {"conflict_column": None, "conflict_value": None, "conflict_nats": 0.0}
CONFLICT = {"conflict_column": "w", "conflict_value": "a"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            "size = 9 adds 3.2 nats more than in a typical row;"
            " the other cells predict 4 (3 to 5.25 with probability 0.80)",
        ),
        (
            {
                "value": None,
                "excess_nats": -1.0,
                "low": None,
                "expected": "x",
                "probability": 0.125,
            },
            "the missing cell in size adds 1.0 nats fewer than in a typical row;"
            " the other cells predict x (probability 0.12)",
        ),
        (
            {"excess_nats": 0.01, "low": None, "expected": 9.0},
            "size = 9 adds as many nats as in a typical row;"
            " the other cells predict this value (probability 0.80)",
        ),
        (
            {"low": 4.0, "high": 4.0, **CONFLICT, "conflict_nats": 2.0},
            "size = 9 adds 3.2 nats more than in a typical row;"
            " the other cells predict 4 (probability 0.80); it conflicts most with w = a (2.0 nats)",
        ),
        (
            {"low": None, "expected": None, "probability": 0.9},
            "size = 9 adds 3.2 nats more than in a typical row;"
            " the other cells predict a missing cell (probability 0.90)",
        ),
        (
            {"probability": np.nan, **CONFLICT, "conflict_nats": 0.01},
            "size = 9 adds 3.2 nats more than in a typical row",
        ),
    ],
)
def test_sentences(changes, text):
    assert sentence({**LINE, **changes}) == text
