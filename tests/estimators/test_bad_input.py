"""What a user sees who passes something odd: one table, each line a table of theirs and the answer."""

import datetime
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity

QUICK = {"denoiser": "tree", "random_state": 0}
N = 120
RNG = np.random.default_rng(0)
GOOD = pd.DataFrame(
    {"a": list("xy") * (N // 2), "x": RNG.normal(size=N), "k": RNG.integers(0, 3, N)}
)


def frame(**columns):
    return GOOD.assign(**columns)


REFUSED = {
    "a path": ("rows.parquet", {}, TypeError, "X must be a table or frames, got 'rows.parquet': read it first"),
    "a list of numbers": ([1, 2, 3], {}, ValueError, "Expected 2D array"),
    "a list of records": (GOOD.to_dict("records"), {}, TypeError, "X is a list of dict, not one table"),
    "a mapping": (GOOD.to_dict("list"), {}, TypeError, "X must be a table or an array, got dict"),
    "nothing": (None, {}, TypeError, "got NoneType"),
    "three dimensions": (np.zeros((2, 2, 2)), {}, ValueError, "dim 3"),
    "no rows": (GOOD[:0], {}, ValueError, "0 sample(s)"),
    "no columns": (GOOD[[]], {}, ValueError, "0 feature(s)"),
    "one row": (GOOD[:1], {}, ValueError, "at least two rows are needed"),
    "one row that tells something": (
        pd.DataFrame({"a": ["x", None, None]}), {}, ValueError, "two rows with a cell"),
    "a name twice": (GOOD.set_axis(["a", "a", "k"], axis=1), {}, ValueError, "column 'a': the name occurs more"),
    "names of two types": (GOOD.set_axis(["a", 1, "k"], axis=1), {}, TypeError, "string"),
    "a name that is a tuple": (
        GOOD.set_axis([("a", 1), ("b", 2), ("c", 3)], axis=1), {}, TypeError, "column"),
    "infinity": (frame(x=[np.inf] + [0.5] * (N - 1)), {}, ValueError, "column 'x': contains infinity"),
    "infinity in an array": (np.array([[0.0, np.inf], [1.0, 2.0]]), {}, ValueError, "infinity"),
    "complex numbers": (frame(x=1j), {}, (TypeError, ValueError), "column 'x'"),
    "lists in cells": (frame(a=pd.Series([[1]] * N)), {}, TypeError, "column 'a': .*got [1] of type list"),
    "truth values among numbers": (
        frame(a=pd.Series([True, 2] * (N // 2), dtype=object)), {}, ValueError,
        "column 'a': mixes truth values and numbers"),
    "time zones in some cells": (
        frame(a=pd.Series([datetime.datetime(2024, 1, 2, tzinfo=z) for z in (None, datetime.UTC)] * (N // 2))),
        {}, TypeError, "column 'a': .*utc=True"),
    "periods": (frame(a=pd.period_range("2020", periods=N, freq="D")), {}, (TypeError, ValueError), "column 'a'"),
    "intervals": (frame(a=pd.cut(GOOD["x"], 3).astype(object)), {}, (TypeError, ValueError), "column 'a'"),
    "an unknown column": (GOOD, {"column_types": {"q": "nominal"}}, ValueError, "column 'q': named in column_types="),
    "an unknown kind": (GOOD, {"column_types": {"a": "text"}}, ValueError, "column 'a': kind must be one of"),
    "an unknown option": (
        GOOD, {"column_types": {"a": {"kind": "nominal", "size": 3}}}, ValueError, "column 'a': unknown option 'size'"),
    "an option of another kind": (
        GOOD, {"column_types": {"x": {"kind": "continuous", "categories": [0]}}}, ValueError, "'x': categories needs"),
    "text as a number": (GOOD, {"column_types": {"a": "continuous"}}, (TypeError, ValueError), "column 'a': .*'x'"),
}  # fmt: skip

WARNED = {
    "an identifier": (
        frame(a=[f"customer number {i} of many" for i in range(N)]),
        "left out of the model: 'a'",
    ),
    "free text": (
        frame(a=["the parcel came late and open " * 3 + str(i) for i in range(N)]),
        "left out of the model: 'a'",
    ),
    "nothing at all": (frame(a=None), "column 'a': every cell is missing"),
}

TAKEN = {
    "a constant": (frame(a="only"), "a", "nominal"),
    "a constant number": (frame(x=0.1), "x", "ordinal"),
    "0 and 1 as floats": (frame(x=GOOD["k"].clip(upper=1).astype(float)), "x", "ordinal"),
    "0 and 1 as integers": (frame(k=GOOD["k"].clip(upper=1)), "k", "ordinal"),
    "times": (frame(x=pd.Timestamp("2020") + pd.to_timedelta(RNG.integers(0, 10**6, N), unit="s")), "x", "continuous"),
    "numbers among text": (frame(a=pd.Series([1, "1", 2.5, "x"] * (N // 4), dtype=object)), "a", "nominal"),
    "numbers as objects": (frame(x=GOOD["x"].astype(object)), "x", "continuous"),
    "gaps": (frame(a=GOOD["a"].mask(GOOD["k"] == 0)), "a", "nominal"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_refused_with_a_word_why():
    for table, settings, error, words in REFUSED.values():
        pattern = ".*".join(re.escape(part) for part in words.split(".*"))
        with pytest.raises(error, match=pattern):
            DiffusionDensity(**QUICK, **settings).fit(table)


def test_questions_name_the_type_of_what_is_no_table():
    model = DiffusionDensity(denoiser="independent").fit(GOOD)
    for rows, words in (((GOOD for _ in range(2)), "got generator"), ([GOOD], "list of DataFrame")):
        with pytest.raises(TypeError, match=words):
            model.score_samples(rows)


@pytest.mark.parametrize(("table", "words"), WARNED.values(), ids=WARNED)
def test_taken_with_a_warning(table, words):
    with pytest.warns(UserWarning, match=re.escape(words)):
        model = DiffusionDensity(**QUICK).fit(table)
    assert np.isfinite(model.score_samples(table[:3])).all()


def test_taken_as_it_is():
    for table, column, kind in TAKEN.values():
        model = DiffusionDensity(**QUICK).fit(table)
        assert model.encoder_.describe().set_index("column").loc[column, "kind"] == kind
        assert np.isfinite(model.score_samples(table)).all()
        assert model.sample(3, random_state=0)[column].dtype == table[column].dtype


def test_days_and_decimals_in_objects_are_times_and_numbers():
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(int(k)) for k in GOOD["k"]]
    table = frame(a=days, x=[Decimal(int(k)) / 7 for k in RNG.integers(0, 90, N)])
    model = DiffusionDensity(**QUICK).fit(table)
    assert model.encoder_.describe()["kind"].tolist()[:2] == ["continuous", "continuous"]
    assert np.isfinite(model.score_samples(table)).all()
    assert model.sample(3)["a"].dtype.kind == "M"


def test_few_texts_among_numbers_are_pointed_out():
    table = frame(x=[*GOOD["x"][:-3], "low", "high", "none of these"])
    with pytest.warns(
        UserWarning, match="column 'x': taken as text, .* numbers, but for text like"
    ):
        DiffusionDensity(**QUICK).fit(table)


def test_numbers_of_calls_are_checked_where_they_are_used():
    model = DiffusionDensity(**QUICK).fit(GOOD).set_params(n_evaluations="many")
    with pytest.raises(TypeError, match="n_evaluations must be an integer, got 'many'"):
        model.score(GOOD)


@pytest.mark.parametrize("seed", [-1, 2**40, 1.5])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(ValueError, match=f"random_state must be an integer .*, got {seed}"):
        DiffusionDensity(denoiser="tree", random_state=seed).fit(GOOD)


LATER = {
    "another column is gone": (
        GOOD[["a", "x"]],
        ValueError,
        "column 'k': the model knows it, the table lacks it",
    ),
    "infinity": (frame(x=-np.inf), ValueError, "column 'x': contains infinity"),
    "lists": (frame(a=pd.Series([[1]] * N)), TypeError, "column 'a'"),
}


@pytest.fixture(scope="module")
def good_model():
    return DiffusionDensity(**QUICK).fit(GOOD)


@pytest.mark.parametrize(("table", "error", "words"), LATER.values(), ids=LATER)
@pytest.mark.parametrize("method", ["score_samples", "explain", "impute", "predict_proba"])
def test_refused_later(good_model, table, error, words, method):
    model = good_model
    pattern = ".*".join(re.escape(part) for part in words.split(".*"))
    with pytest.raises(error, match=pattern):
        getattr(model, method)(table)
    assert np.isfinite(model.score_samples(GOOD[:2])).all()
