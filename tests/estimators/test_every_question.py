"""Every question that an exact model and its detector answer, asked of generated tables: answers that agree.

    python -m pytest -n0 --slow tests/estimators/test_every_question.py
    TABLES=500 python -m pytest -n0 --slow tests/estimators/test_every_question.py

Tables have columns of random kinds, dtypes, gaps and names, and worse: columns of gaps alone, of one value, of integers
beyond 64 bits, of dates as objects, of text that hardly repeats, of numbers so large that their squares are not.
"""

import datetime
import os
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.recipes import Forest, Mixture, Network, RowMixture

pytestmark = pytest.mark.single_precision
N_SLOW = int(os.environ.get("TABLES", "40"))
DENOISERS = {
    "tree": "tree",
    "bayes_net": "bayes_net",
    "forest": Forest(4),
    "independent": "independent",
    "mixture": Mixture(16, n_latent=2, n_points=16, max_steps=3),
    "row mixture": RowMixture(("tree", "independent")),
}


TINY = {
    "denoiser": Network(width=4, depth=0, base="independent"),
    "max_steps": 2,
    "n_evaluations": 4,
    "random_state": 0,
}
# choosing among paths takes most of the time of a tiny fit, and has its own tests
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


def objects(values):
    return pd.Series(list(values), dtype=object)


def text(rng, n):
    return objects(f"{k:x}" * rng.integers(1, 4) for k in rng.integers(0, 16**6, n))


WORSE = {
    "no floats": lambda _, n: pd.Series(np.full(n, np.nan)),
    "no text": lambda _, n: objects([None] * n),
    "no stamps": lambda _, n: pd.Series([pd.NaT] * n, dtype="datetime64[us]"),
    "no Int64": lambda _, n: pd.Series([pd.NA] * n, dtype="Int64"),
    "one stamp": lambda _, n: pd.Series([pd.Timestamp("2026-01-01")] * n),
    "one bool": lambda _, n: pd.Series([True] * n),
    "one value and gaps": lambda rng, n: pd.Series(np.where(rng.random(n) < 0.5, np.nan, 3.0)),
    "beyond 64 bits": lambda rng, n: objects(10**30 + int(k) for k in rng.integers(0, 9, n)),
    "edge of int64": lambda rng, n: pd.Series(
        rng.choice(np.array([-(2**63), 0, 2**63 - 1], dtype=np.int64), n)
    ),
    "edge of uint64": lambda rng, n: pd.Series(
        rng.choice(np.array([0, 2**64 - 1, 2**64 - 2], dtype=np.uint64), n)
    ),
    "nearly int64": lambda rng, n: pd.Series(2**62 + rng.integers(0, 10**6, n)),
    "dates": lambda rng, n: objects(
        datetime.date(2026, 1, 1) + datetime.timedelta(int(k)) for k in rng.integers(0, 400, n)
    ),
    "text": text,
    "ties": lambda rng, n: pd.Series(rng.normal(size=n).round(1) + 0.0),
    "edge of float64": lambda rng, n: pd.Series(rng.normal(size=n).clip(-1.7, 1.7) * 1e308),
    "subnormal": lambda rng, n: pd.Series(rng.normal(size=n) * 5e-324 * 1000),
    "nearly one value": lambda rng, n: pd.Series(1e15 + (rng.random(n) < 0.1)),
}
ALL = COLUMNS | WORSE
BIG = ("uint64", "int64", "few int", "int8", "edge of int64", "nearly int64")


def with_gaps(kind, values, hole):
    if kind in BIG:
        values = values.astype("Int64" if kind != "uint64" else "UInt64")
    elif kind == "edge of uint64":
        values = values.astype("UInt64")
    elif kind in ("bool", "one bool"):
        values = values.astype("boolean")
    return values.mask(hole)


@st.composite
def tables(draw, kinds=ALL):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drawn = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=5))
    n = draw(st.sampled_from([2, 3, 5, 12, 30, 60]))
    gaps = draw(st.sampled_from([0.0, 0.0, 0.2, 0.9]))
    by_number, twice = draw(st.booleans()), draw(st.booleans())
    columns = {}
    for i, kind in enumerate(drawn):
        values = kinds[kind](rng, n)
        name = i if by_number else f"{kind} {i}"
        columns[name] = with_gaps(kind, values, rng.random(n) < gaps) if gaps else values
    if twice:  # a column that says what another does
        columns[9 if by_number else "twice"] = next(iter(columns.values()))
    return pd.DataFrame(columns).set_index(pd.Index(rng.permutation(n), name="key"))


def same(got, expected, rows, *, exact=False):
    """That rows have their answers whatever other rows are asked about."""
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected)[rows], **tolerance)


def ask_density(model, frame, again):
    scores, nats = model.score_samples(frame), model.explain(frame)
    assert np.isfinite(scores).all()
    assert nats.index.equals(frame.index)
    assert list(nats.columns) == list(frame.columns)
    np.testing.assert_allclose(nats.sum(axis=1), -scores, rtol=1e-5, atol=1e-4)
    gaps = frame.isna().to_numpy()
    if model.missing == "marginalise":
        assert np.isnan(nats.to_numpy()[gaps]).all()
    some = np.arange(len(frame))[::-2]
    same(model.score_samples(frame.iloc[some]), scores, some)
    np.testing.assert_array_equal(again.score_samples(frame), scores)
    pd.testing.assert_frame_equal(again.explain(frame), nats)
    rows = model.sample(7, random_state=0)
    assert list(rows.columns) == list(frame.columns)
    pd.testing.assert_frame_equal(again.sample(7, random_state=0), rows)
    if model.handle_unknown == "smooth":
        assert np.isfinite(model.score_samples(rows)).all()
    filled = model.impute(frame)
    there = frame.notna()
    for j in range(frame.shape[1]):
        known = there.iloc[:, j]
        assert filled.iloc[:, j][known].tolist() == frame.iloc[:, j][known].tolist()
    assert filled.loc[:, there.any(axis=0)].notna().all(axis=None)
    assert np.isfinite(model.score_samples(filled)).all()


def ask_detector(model, frame, again):
    scores, nats = model.score_samples(frame), model.explain(frame)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(nats.sum(axis=1), -scores, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(model.predict(frame) == -1, model.decision_function(frame) < 0)
    np.testing.assert_array_equal(again.score_samples(frame), scores)
    n = len(model.calibration_scores_)
    if not n:
        return
    p = model.p_values(frame)
    ranks = p * (n + 1)
    np.testing.assert_allclose(ranks, ranks.round(), atol=1e-6)
    assert ((p >= 1 / (n + 1) - 1e-12) & (p <= 1)).all()
    order = np.argsort(scores, kind="stable")
    assert (np.diff(p[order]) >= 0).all()  # a lower score, no larger p-value
    np.testing.assert_array_equal(again.p_values(frame), p)
    found = model.discoveries(frame, fdr=0.5)
    assert not found.any() or p[found].max() < p[~found].min(initial=2)
    reasons = model.reasons(frame, k=2)
    assert reasons["row"].isin(frame.index).all()
    assert (reasons.groupby("row").size() <= 2).all()
    assert reasons["probability_wrong"].between(0, 1).all()
    assert reasons["expected_probability"].dropna().between(0, 1 + 1e-6).all()
    assert reasons["sentence"].str.len().gt(0).all()
    assert (reasons["excess_nats"] >= 0.05 - 1e-5).all()
    pd.testing.assert_frame_equal(again.reasons(frame, k=2), reasons)


def check(frame, denoiser, missing, folder):
    density = DiffusionDensity(denoiser=DENOISERS[denoiser], missing=missing, random_state=0)
    detector = DiffusionOutlierDetector(density, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # columns of nothing, identifiers, free text
        for model, ask in ((density, ask_density), (detector, ask_detector)):
            try:
                model.fit(frame)
            except ValueError as error:
                if "rows" not in str(error) or frame.notna().any(axis=1).sum() > 5:
                    raise
                continue
            model.save(folder / "m")
            ask(model, frame, type(model).load(folder / "m"))


def check_network(frame, missing, unseen, folder):
    model = DiffusionDensity(**TINY, missing=missing, handle_unknown=unseen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # columns of nothing, identifiers, free text
        if frame.notna().any(axis=1).sum() < 2 and missing == "marginalise":
            with pytest.raises(ValueError, match="two rows with a cell"):
                model.fit(frame)
            return
        model.fit(frame).save(folder / "m")
    ask_density(model, frame, DiffusionDensity.load(folder / "m"))
    rows = model.sample(5, random_state=0)
    for name in frame.columns:
        if not rows[name].isna().any():
            assert rows[name].dtype == frame[name].dtype, name


@pytest.mark.parametrize("n", [2, pytest.param(N_SLOW, marks=pytest.mark.slow)])
def test_every_question_of_any_table(tmp_path, n):
    @settings(max_examples=n, derandomize=True)
    @given(
        tables(),
        st.sampled_from(sorted(DENOISERS)),
        st.sampled_from(["marginalise", "category"]),
    )
    def ask(frame, denoiser, missing):
        check(frame, denoiser, missing, tmp_path)

    ask()


@pytest.mark.parametrize("n", [2, pytest.param(N_SLOW, marks=pytest.mark.slow)])
def test_a_network_learns_any_table(tmp_path, n):
    @settings(max_examples=n, derandomize=True)
    @given(
        tables(COLUMNS),
        st.sampled_from(["marginalise", "category"]),
        st.sampled_from(["smooth", "error"]),
    )
    def ask(frame, missing, unseen):
        check_network(frame, missing, unseen, tmp_path)

    ask()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_a_network_learns_a_table_of_one_kind(tmp_path, kind):
    values = COLUMNS[kind](np.random.default_rng(0), 60)
    frame = pd.DataFrame({kind: values, "other": values})
    check_network(frame, "marginalise", "smooth", tmp_path)
