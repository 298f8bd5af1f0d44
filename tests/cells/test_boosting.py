"""Labels that boosting out of folds judges: found, calibrated, none of clean ones, by the content of the rows alone."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from discrete_itd import find_errors
from discrete_itd.cells.boosting import FOLDS, _boosted, _features, probability_wrong
from discrete_itd.cells.views import Aspect
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision


def labelled(n, seed, share=0.05, levels=("a", "b", "c")):
    """Rows whose label follows from a number and a category together, and which labels are wrong."""
    random = np.random.default_rng(seed)
    x, kind = random.normal(size=n), random.choice(["high", "low", "none"], n)
    shift = pd.Series(kind).map({"high": 1.0, "low": -1.0, "none": 0.0})
    code = np.digitize(x + shift, [-0.5, 0.7])
    wrong = random.random(n) < share
    code = np.where(wrong, (code + random.integers(1, 3, n)) % 3, code)
    frame = pd.DataFrame({"x": x, "kind": kind, "noise": random.normal(size=n)})
    return frame.assign(label=np.array(levels)[code]), wrong


def test_property_labels_are_wrong_as_often_as_is_said_or_more():
    said, is_wrong = [], []
    for seed in range(2 * TIMES):
        frame, wrong = labelled(400, seed)
        found = find_errors(frame, columns=["label"], min_probability=0.5)
        assert set(found["column"]) == {"label"}
        said.append(found["probability_wrong"])
        is_wrong.append(wrong[found["row"]])
        assert wrong[found["row"]].sum() >= 0.5 * wrong.sum()
        pairs = found[["value", "expected", "expected_probability", "probability_wrong"]].to_numpy()
        assert all(value != expected and p <= q for value, expected, p, q in pairs)
    said, is_wrong = np.concatenate(said), np.concatenate(is_wrong)
    assert is_wrong.mean() > said.mean() - 0.05


@pytest.mark.parametrize("kind", ["clean", "coins"])
def test_property_right_labels_are_hardly_named(kind):
    frame, _ = labelled(300, 0, share=0.0)
    if kind == "coins":
        frame["label"] = np.random.default_rng(0).choice(["a", "b"], len(frame))
    assert len(find_errors(frame, columns=["label"])) <= 0.01 * len(frame)


@pytest.mark.parametrize("columns", [None, ["label"]])
def test_property_order_of_rows_changes_nothing(columns):
    """Not a digit: rows are judged in an order that follows from what is in them, and cells of other columns differ."""
    random = np.random.default_rng(0)
    label, noise = random.integers(0, 3, 300), random.normal(size=(4, 300))
    numbers = {f"x{j}": (noise[j] + label * (j + 1)).round().astype(int) for j in range(4)}
    label[:6] = (label[:6] + 1) % 3
    frame = pd.DataFrame({**numbers, "label": label})
    asked = {"columns": columns, "min_probability": 0.01}
    lines = find_errors(frame, **asked).sort_values(["row", "column"], ignore_index=True)
    for _ in range(2):
        moved = find_errors(frame.iloc[random.permutation(300)], **asked)
        pd.testing.assert_frame_equal(
            moved.sort_values(["row", "column"], ignore_index=True), lines, check_exact=True
        )


def test_order_of_columns_changes_no_tree():
    frame, _ = labelled(200, 1)
    absent, fold = np.zeros(200, bool), np.arange(200) % FOLDS
    codes = frame[["kind", "label"]].apply(lambda cells: pd.factorize(cells)[0]).to_numpy()
    ranks = [frame[name].rank().to_numpy(int) - 1 for name in ("x", "noise")]
    others = [Aspect(codes[:, 0], absent), *(Aspect(r, absent, np.arange(200)) for r in ranks)]
    p, moved = (
        _boosted(codes[:, 1], ~absent, 3, _features([others[k] for k in order]), fold)
        for order in ([0, 1, 2], [2, 0, 1])
    )
    assert_array_equal(moved, p)
    assert_allclose(p.sum(1), 1)


def test_property_a_column_that_helps_loses_no_labels():
    """A judge that predicts a little better by chance does not take the column from boosting."""
    for seed in (1, 4, 8):
        random = np.random.default_rng(seed)
        y = random.integers(0, 3, 300)
        numbers = [random.normal(size=300) + y * (j + 1) for j in range(4)]
        frame = pd.DataFrame(np.transpose(numbers).round(6), columns=list("abcd"))
        wrong = random.choice(300, 6, replace=False)
        label = y.copy()
        label[wrong] = (y[wrong] + 1) % 3
        frame["cat"] = np.where(random.random(300) < 0.8, y, random.integers(0, 3, 300)).astype(str)
        found = find_errors(frame.assign(label=label.astype(str)), columns="label")
        assert found["row"].isin(wrong).sum() >= 4
        assert found["row"].isin(wrong).mean() > 0.8


def test_labels_that_are_missing_or_misspelt_are_not_learned():
    frame, wrong = labelled(400, 2, levels=("setosa", "versicolor", "virginica"))
    frame.loc[:50, "label"] = None
    right = int(np.flatnonzero(~wrong & (frame["label"] == "virginica"))[0])
    frame.loc[right, "label"] = "virginca"
    found = find_errors(frame, columns=["label"]).set_index("row")
    assert min(found.index.to_list()) > 50
    assert found.loc[right, "expected"] == "virginica"
    assert wrong[[i for i in found.index if i != right]].mean() > 0.6


def test_a_group_is_in_one_fold():
    """Rows that a group repeats, errors included, do not support each other."""
    frame, wrong = labelled(200, 3)
    twice = pd.concat([frame, frame], ignore_index=True)
    named = find_errors(twice, columns=["label"], groups=np.tile(np.arange(200), 2))
    assert np.tile(wrong, 2)[named["row"]].sum() > 0.5 * 2 * wrong.sum()


def test_what_is_not_judged_does_not_change_what_is():
    """Columns that are not asked for are still what others are judged by, and a number is judged as in the whole."""
    frame, _ = labelled(300, 4)
    frame.loc[7, "x"] = 1e4
    whole, asked = (find_errors(frame, columns=c) for c in (None, ["x"]))
    assert asked.to_dict("records") == whole.query("column == 'x'").to_dict("records")
    assert len(asked) == 1


def test_cells_of_an_equation_are_asked_for_together_with_the_others_of_it():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.integers(1, 50, (300, 2)), columns=["n", "price"])
    frame["total"] = frame["n"] * frame["price"]
    frame.loc[7, "total"] += 11
    whole, asked = (find_errors(frame, columns=c) for c in (None, "total"))
    assert asked.to_dict("records") == whole.query("column == 'total'").to_dict("records")
    assert asked["row"].tolist() == [7]


def test_property_soft_classes_are_no_errors_and_confident_ones_that_dissent_are():
    random, n = np.random.default_rng(0), 2000
    alone, once = np.full(n, 0.5), np.ones(n)
    q = 1 / (1 + np.exp(-2 * random.normal(size=n)))
    soft = (random.random(n) < q).astype(int)
    wrong, _ = probability_wrong(np.column_stack([1 - q, q]), soft, alone, once, 0.03)
    assert (wrong >= 0.5).mean() < 0.002
    sure, is_wrong = np.where(q > 0.5, 0.96, 0.04), random.random(n) < 0.04
    level = (q > 0.5) ^ is_wrong
    wrong, _ = probability_wrong(
        np.column_stack([1 - sure, sure]), level.astype(int), alone, once, 0.03
    )
    assert wrong[is_wrong].min() > 0.6 > 0.05 > wrong[~is_wrong].max()
    assert_allclose(wrong.mean(), is_wrong.mean(), atol=0.015)


@pytest.mark.parametrize(("columns", "error"), [(["size"], "'size'"), ([["x"]], "'x'"), ([], "no")])
def test_errors_name_columns_that_are_not_there(columns, error):
    with pytest.raises(ValueError, match=error):
        find_errors(labelled(30, 0)[0], columns=columns)
