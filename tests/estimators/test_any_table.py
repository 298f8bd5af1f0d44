"""Tables of random columns, dtypes, gaps and names: fit, score, explain, sample, fill, save and load."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Network

pytestmark = pytest.mark.single_precision

TINY = {
    "denoiser": Network(width=4, depth=0, base="independent"),
    "max_steps": 2,
    "n_evaluations": 4,
    "random_state": 0,
}
# choosing among paths takes most of the time of a tiny fit, and has its own tests
TINY |= {"schedule": "coordinate"}
WORDS = ["", "a", "B", "é", "None", "nan", "7", " x", "long " * 8]


def numbers(dtype, low, high):
    return lambda rng, n: pd.Series(rng.integers(low, high, n)).astype(dtype)


def reals(dtype, scale=1.0):
    def make(rng, n):
        values = rng.normal(size=n) * scale
        values = np.where(rng.random(n) < 0.2, 0.0, values)  # some values repeat
        return pd.Series(values).astype(dtype)

    return make


def words(dtype):
    return lambda rng, n: pd.Series([WORDS[k] for k in rng.integers(0, len(WORDS), n)], dtype=dtype)


def categories(ordered, levels):
    def make(rng, n):
        codes = rng.integers(0, max(1, len(levels) - 1), n)  # the last level is never used
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=ordered))

    return make


def times(dtype, unit="s"):
    def make(rng, n):
        stamps = pd.Series(rng.integers(0, 10**9, n)).astype(f"datetime64[{unit}]")
        if dtype == "zone":
            return stamps.dt.tz_localize("UTC").dt.tz_convert("Europe/Paris")
        return stamps - stamps.iloc[0] if dtype == "timedelta" else stamps.astype(dtype)

    return make


def mixed(rng, n):
    return pd.Series([[1, "1", 2.5, "x"][k] for k in rng.integers(0, 4, n)], dtype=object)


COLUMNS = {
    "int8": numbers("int8", -3, 3),
    "uint64": numbers("uint64", 2**60, 2**60 + 500),
    "int64": numbers("int64", -(10**9), 10**9),
    "few int": numbers("int64", 0, 4),
    "Int64": numbers("Int64", 0, 1000),
    "Int8": numbers("Int8", 0, 3),
    "int arrow": numbers("int64[pyarrow]", 0, 50),
    "float32": reals("float32"),
    "float64": reals("float64"),
    "huge": reals("float64", 1e200),
    "small": reals("float64", 1e-200),
    "Float64": reals("Float64"),
    "double arrow": reals("double[pyarrow]"),
    "whole float": lambda rng, n: pd.Series(rng.integers(0, 3, n)).astype(float),
    "bool": lambda rng, n: pd.Series(rng.random(n) < 0.5),
    "boolean": lambda rng, n: pd.Series(rng.random(n) < 0.5, dtype="boolean"),
    "bool arrow": lambda rng, n: pd.Series(rng.random(n) < 0.5, dtype="bool[pyarrow]"),
    "object": words(object),
    "string": words("string"),
    "str": words("str"),
    "string arrow": words("string[pyarrow]"),
    "identifier": lambda rng, n: pd.Series([f"id {k}" for k in rng.permutation(n)]),
    "mixed": mixed,
    "category": categories(False, ["p", "q", "unused"]),
    "ordered": categories(True, [3, 1, 2, 9]),
    "dictionary": lambda rng, n: words("string")(rng, n).astype("category"),
    "datetime": times("datetime64[us]", "us"),
    "zone": times("zone"),
    "timedelta": times("timedelta"),
    "stamp arrow": times("timestamp[us][pyarrow]", "us"),
    "constant": lambda _, n: pd.Series(["only"] * n),
    "constant float": lambda _, n: pd.Series([0.1] * n),
}


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=5))
    n = draw(st.integers(2, 40))
    gaps = draw(st.sampled_from([0.0, 0.0, 0.2, 0.9]))
    by_number = draw(st.booleans())
    columns = {}
    for i, kind in enumerate(kinds):
        values = COLUMNS[kind](rng, n)
        if gaps:
            hole = pd.Series(rng.random(n) < gaps)
            values = (
                values.astype("Int64") if kind in ("uint64", "int64", "few int", "int8") else values
            )
            values = values.astype("boolean") if kind == "bool" else values
            values = values.mask(hole)
        columns[i if by_number else f"{kind} {i}"] = values
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(rng.permutation(n), name="key")
    return frame


def check(frame, missing, unseen, folder):
    """Everything that a user does with a table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # columns of nothing, identifiers, free text
        model = DiffusionDensity(**TINY, missing=missing, handle_unknown=unseen)
        if (frame.notna().any(axis=1)).sum() < 2 and missing == "marginalise":
            with pytest.raises(ValueError, match="two rows with a cell"):
                model.fit(frame)
            return
        model.fit(frame)
    scores = model.score_samples(frame)
    assert scores.shape == (len(frame),)
    assert np.isfinite(scores).all()
    shares = model.explain(frame)
    assert shares.index.equals(frame.index)
    np.testing.assert_allclose(shares.sum(axis=1), -scores, rtol=1e-5, atol=1e-4)
    rows = model.sample(5, random_state=0)
    assert list(rows.columns) == list(frame.columns)
    for name in frame.columns:
        if not rows[name].isna().any():
            assert rows[name].dtype == frame[name].dtype, name
    if unseen == "smooth":
        assert np.isfinite(model.score_samples(rows)).all()
    filled = model.impute(frame)
    there = frame.notna()
    assert filled.where(there).equals(frame.where(there))
    some = there.any(axis=0)
    assert filled.loc[:, some].notna().all(axis=None)
    path = folder / "model"
    model.save(path)
    again = DiffusionDensity.load(path)
    np.testing.assert_array_equal(again.score_samples(frame), scores)
    pd.testing.assert_frame_equal(again.sample(5, random_state=0), rows)


QUIET = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=12, **QUIET)
@given(tables(), st.sampled_from(["marginalise", "category"]), st.sampled_from(["smooth", "error"]))
def test_any_table_goes_all_the_way(tmp_path, frame, missing, unseen):
    check(frame, missing, unseen, tmp_path)


@pytest.mark.slow
@settings(max_examples=600, **QUIET)
@given(tables(), st.sampled_from(["marginalise", "category"]), st.sampled_from(["smooth", "error"]))
def test_six_hundred_tables_go_all_the_way(tmp_path, frame, missing, unseen):
    check(frame, missing, unseen, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_a_table_of_one_kind(tmp_path, kind):
    values = COLUMNS[kind](np.random.default_rng(0), 60)
    check(pd.DataFrame({kind: values, "other": values}), "marginalise", "smooth", tmp_path)
