"""Laws of the table encoder: there and back for every dtype and kind, missing cells, masses, JSON."""

import json

import narwhals
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from discrete_itd.encoders import TableEncoder, as_frame
from discrete_itd.storage.values import flatten, unflatten

# surrogates are no text, and pandas' strings refuse them
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
# without digits: of a few cells in which most are numbers, one other text would be an unreadable number
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Nd"]), max_size=4)
SMALL = st.integers(-50, 50)
FLOATS = st.sampled_from([-2.5, 0.0, 0.1, 1 / 3, 7.0, 1e3])
NUMBERS = st.one_of(st.integers(-5, 5), FLOATS)
SECONDS = st.integers(0, 2 * 10**9)


def cells(strategy, dtype):
    return lambda draw, n: pd.Series(draw(st.lists(strategy, min_size=n, max_size=n)), dtype=dtype)


def category(strategy, ordered):
    def make(draw, n):
        levels = draw(st.lists(strategy, min_size=1, max_size=6, unique=True))  # some stay unused
        codes = draw(st.lists(st.integers(-1, len(levels) - 1), min_size=n, max_size=n))
        return pd.Series(pd.Categorical.from_codes(codes, categories=levels, ordered=ordered))

    return make


def times(dtype):
    def make(draw, n):
        ticks = draw(st.lists(SECONDS | st.none(), min_size=n, max_size=n))
        values = pd.Series(pd.to_datetime(ticks, unit="s"))
        return values.dt.tz_localize("UTC").astype(dtype) if "," in dtype else values.astype(dtype)

    return make


def durations(dtype):
    return lambda draw, n: pd.Series(
        pd.to_timedelta(draw(st.lists(SECONDS | st.none(), min_size=n, max_size=n)), unit="s")
    ).astype(dtype)


def mixed(draw, n):
    """Words and numbers, the latter no majority: else the words would be unreadable numbers."""
    numbers = draw(st.lists(NUMBERS, max_size=n // 2))
    words = TEXTS.map("w{}".format)
    words = draw(st.lists(words, min_size=n - len(numbers), max_size=n - len(numbers)))
    return pd.Series(draw(st.permutations(numbers + words)), dtype=object)


TEXT = {
    "str": cells(TEXTS | st.none(), "str"),
    "string": cells(TEXTS | st.none(), "string"),
    "string[python]": cells(TEXTS | st.none(), pd.StringDtype("python")),
    "string[pyarrow]": cells(TEXTS | st.none(), pd.StringDtype("pyarrow")),
    "object": cells(TEXTS | st.none(), object),
    "mixed object": mixed,
    "object of bools": cells(st.booleans() | st.none(), object),
    "bool": cells(st.booleans(), bool),
    "boolean": cells(st.booleans() | st.none(), "boolean"),
    "bool[pyarrow]": cells(st.booleans() | st.none(), "bool[pyarrow]"),
    "category": category(TEXTS, False),
    "ordered category": category(TEXTS, True),
    "category of ints": category(SMALL, False),
    "ordered category of ints": category(SMALL, True),
    "category of bools": category(st.booleans(), False),
}
NUMERIC = {
    "int64": cells(SMALL, "int64"),
    "int8": cells(SMALL, "int8"),
    "uint8": cells(st.integers(0, 255), "uint8"),
    "uint64": cells(st.integers(0, 2**50), "uint64"),
    "Int64": cells(SMALL | st.none(), "Int64"),
    "UInt8": cells(st.integers(0, 255) | st.none(), "UInt8"),
    "int64[pyarrow]": cells(SMALL | st.none(), "int64[pyarrow]"),
    "float64": cells(FLOATS | st.none(), "float64"),
    "float32": cells(FLOATS | st.none(), "float32"),
    "float16": cells(FLOATS | st.none(), "float16"),
    "Float64": cells(FLOATS | st.none(), "Float64"),
    "Float32": cells(FLOATS | st.none(), "Float32"),
    "double[pyarrow]": cells(FLOATS | st.none(), "double[pyarrow]"),
    "float[pyarrow]": cells(FLOATS | st.none(), "float[pyarrow]"),
    "object of ints": cells(SMALL | st.none(), object),
    "object of numbers": cells(NUMBERS | st.none(), object),
}
TIMES = {
    "datetime64[s]": times("datetime64[s]"),
    "datetime64[ns]": times("datetime64[ns]"),
    "datetime64[ns, UTC]": times("datetime64[ns, UTC]"),
    "datetime64[us, Europe/Berlin]": times("datetime64[us, Europe/Berlin]"),
    "timestamp[us][pyarrow]": times("timestamp[us][pyarrow]"),
    "timestamp[ns, tz][pyarrow]": times("timestamp[ns, tz=Europe/Berlin][pyarrow]"),
    "date32": times("date32[day][pyarrow]"),
    "days": lambda draw, n: times("datetime64[ns]")(draw, n).dt.floor("D"),
    "timedelta64[ns]": durations("timedelta64[ns]"),
    "duration[s][pyarrow]": durations("duration[s][pyarrow]"),
}
DTYPES = {**TEXT, **NUMERIC, **TIMES}


@st.composite
def frames(draw, makers=DTYPES):
    n = draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from(sorted(makers)), min_size=1, max_size=4))
    names = draw(
        st.lists(WORDS | st.integers(-3, 3), min_size=len(kinds), max_size=len(kinds), unique=True)
    )
    frame = pd.DataFrame({n_: makers[k](draw, n) for n_, k in zip(names, kinds, strict=True)})
    return frame.set_axis(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), axis=0)


quiet = pytest.mark.filterwarnings(
    "ignore:column .* every cell is missing:UserWarning",
    "ignore:column .* are different categories:UserWarning",
    "ignore:. unreadable cell:UserWarning",
)


@quiet
@pytest.mark.parametrize("unseen", ["smooth", "error"])
@given(frame=frames())
def test_decoding_undoes_encoding(frame, unseen):
    encoder = TableEncoder.fit(frame, handle_unknown=unseen)
    (x, log_volume), unreadable, clock, _ = encoder.readable(frame)
    assume(not pd.notna(unreadable).any())
    assert x.dtype == log_volume.dtype == float
    parts = [column.codec.part is not None for column in encoder.schema]
    assert x.shape == log_volume.shape == (len(frame), len(parts) + sum(parts))
    whole, x, log_volume = x, x[:, : len(parts)], log_volume[:, : len(parts)]
    np.testing.assert_array_equal(np.isnan(x), frame.isna())
    assert np.isfinite(log_volume).all()
    assert (log_volume[np.isnan(x)] == 0).all()
    assert not np.signbit(x[x == 0]).any()
    back = encoder.inverse_transform(whole, frame.index, clock=clock)
    assert_frame_equal(back, frame, rtol=1e-6, atol=1e-9)


FAMILIES = {
    **dict.fromkeys(TEXT, ("nominal", "ordinal")),
    **dict.fromkeys(NUMERIC, ("nominal", "ordinal", "continuous")),
    **dict.fromkeys(TIMES, ("continuous",)),
}


@quiet
@settings(max_examples=1)
@given(data=st.data())
def test_every_kind_gives_the_dtype_back(data):
    for dtype in FAMILIES:
        frame = pd.DataFrame({"a": DTYPES[dtype](data.draw, data.draw(st.integers(1, 12)))})
        for kind in FAMILIES[dtype]:
            check_the_way_back(frame, kind)


def check_the_way_back(frame, kind):
    encoder = TableEncoder.fit(frame, {"a": kind})
    column = encoder.schema[0]
    nothing = column.n_missing == column.n_rows and not column.categories
    assert column.kind == ("nominal" if nothing else kind)
    cells = encoder.encoded(frame)
    for rng in (None, np.random.default_rng(0)):
        back = encoder.inverse_transform(cells.cells.x, frame.index, rng, clock=cells.clock)
        assert back["a"].dtype == frame["a"].dtype
        np.testing.assert_array_equal(back.isna(), frame.isna())
        assert_frame_equal(back, frame, rtol=1e-6, atol=1e-9)


@quiet
@given(frame=frames(), missing=st.sampled_from(["marginalise", "category"]))
def test_the_schema_survives_json(frame, missing):
    encoder = TableEncoder.fit(frame, missing=missing)
    data, tensors = flatten(encoder)
    again = unflatten(TableEncoder, (json.loads(json.dumps(data, allow_nan=False)), tensors))
    assert again.schema == encoder.schema
    assert [c.dtype for c in again.schema] == [c.dtype for c in encoder.schema]
    assert flatten(again) == (data, {})
    for one, other in zip(again.transform(frame), encoder.transform(frame), strict=True):
        np.testing.assert_array_equal(one, other)


@quiet
@pytest.mark.filterwarnings(
    "ignore:columns that are copies", "ignore:left out", "ignore:.*taken as"
)
@given(
    frame=frames(),
    missing=st.sampled_from(["marginalise", "category", "auto"]),
    n=st.integers(0, 8),
)
def test_a_part_of_a_table_is_read_as_the_table_is(frame, missing, n):
    """Of all rows the schema is the fit's; of some, whatever they are, the kinds are."""
    whole = TableEncoder.infer(frame, missing=missing)
    again, fitted = whole.refit(frame, missing=missing), TableEncoder.fit(frame, missing=missing)
    assert flatten(again) == flatten(fitted)
    part = frame.iloc[np.random.default_rng(n).permutation(len(frame))[: n + 1]]
    for c, own in zip(whole.schema, whole.refit(part, missing=missing).schema, strict=True):
        assert (own.dtype, own.notation, own.na, own.codes) == (c.dtype, c.notation, c.na, c.codes)
        if own.n_missing < own.n_rows:
            assert own.kind == c.kind
            assert getattr(own.codec, "whole", None) == getattr(c.codec, "whole", None)


@quiet
@given(frame=frames(), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(frame, seed):
    order = np.random.default_rng(seed).permutation(len(frame))
    one = TableEncoder.fit(frame)
    other = TableEncoder.fit(frame.iloc[order])
    for a, b in zip(one.readable(frame)[0], other.readable(frame)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def outcome(encode, frame):
    """Codes and log-volumes of the cells of a frame, or the error that says why there are none."""
    try:
        x, log_volume = encode(frame)
    except (TypeError, ValueError) as error:
        return f"{type(error)} {error}"
    return [*x[0], *log_volume[0]]


@quiet
@pytest.mark.parametrize("unseen", ["smooth", "error"])
@settings(max_examples=10)
@given(frame=frames(), other=frames())
def test_a_row_alone_is_encoded_as_its_columns_are(frame, other, unseen):
    encoder = TableEncoder.fit(frame, handle_unknown=unseen)

    def naive(row):
        columns = [c.encode(row[c.name])[:2] for c in encoder.schema]
        return (np.stack(t, 1) for t in zip(*columns, strict=True))

    strange = other.iloc[:2, [j % other.shape[1] for j in range(frame.shape[1])]]
    tables = [frame, frame.astype(object), strange.set_axis(frame.columns, axis=1)]
    for row in [table.iloc[[i]] for table in tables for i in range(min(2, len(table)))]:
        found, expected = outcome(encoder.transform, row), outcome(naive, row)
        if isinstance(expected, str):  # of several errors, either may be named
            found, expected = (str(text).split(" column ")[0] for text in (found, expected))
        np.testing.assert_array_equal(found, expected)


def test_equal_cells_of_other_types_are_not_confused():
    encoder = TableEncoder.fit(pd.DataFrame({"a": [0, 1, 2, 1]}))
    cells = [1, True, 1.0, "1", None, np.nan, 7]
    rows = [pd.DataFrame({"a": pd.Series([v], dtype=object)}) for v in cells]
    levels = [outcome(encoder.transform, row)[0] for row in rows]
    np.testing.assert_array_equal(levels, [1, 3, 1, 1, np.nan, np.nan, 3])
    assert "[1] of type list" in outcome(encoder.transform, pd.DataFrame({"a": [[1]]}))


# -- missing cells ------------------------------------------------------------------------------


@quiet
@given(frame=frames())
def test_missing_as_a_category(frame):
    encoder = TableEncoder.fit(frame, missing="category")
    gaps = frame.isna().to_numpy()
    nominal = np.array([column.kind == "nominal" for column in encoder.schema])
    indicated = np.flatnonzero(gaps.any(0) & ~nominal)
    assert encoder.n_columns == frame.shape[1]
    assert encoder.owner.tolist() == [*range(encoder.n_columns), *indicated]
    assert len(encoder.owner) == encoder.codebook().n_columns
    x, log_volume = encoder.transform(frame)
    np.testing.assert_array_equal(encoder.absent(x), gaps)
    np.testing.assert_array_equal(np.isnan(x[:, : encoder.n_columns]), gaps & ~nominal)
    np.testing.assert_array_equal(x[:, encoder.n_columns :], gaps[:, indicated])
    assert (log_volume[:, encoder.n_columns :] == 0).all()
    assert_frame_equal(encoder.inverse_transform(x, frame.index), frame, rtol=1e-6, atol=1e-9)


def test_the_indicator_blanks_the_cell():
    frame = pd.DataFrame({"n": [1, 2, 3], "age": [30.5, np.nan, 21.25]})
    encoder = TableEncoder.fit(frame, missing="category")
    x, _ = encoder.transform(frame)
    x[:, 1] = x[0, 1]  # as a sampler would, which fills every column
    assert encoder.inverse_transform(x)["age"].isna().tolist() == [False, True, False]


def test_missing_can_be_said_column_by_column():
    frame = pd.DataFrame({"a": ["x", None], "b": [None, "y"], "c": ["u", "v"]})

    def absent(*args, **kwargs):
        return [column.absent for column in TableEncoder.fit(frame, *args, **kwargs).schema]

    options = {"a": {"missing": "category"}, "c": {"missing": "category"}}
    assert absent(options) == [True, False, False]
    assert absent({"a": {"missing": "marginalise"}}, missing="category") == [False, True, False]


def test_a_missing_cell_in_a_column_that_had_none_is_marginalised():
    frame = pd.DataFrame({"i": [1, 2], "b": [True, False], "s": ["u", "v"], "c": ["u", "v"]})
    frame["c"] = frame["c"].astype("category")
    encoder = TableEncoder.fit(frame, missing="category")
    new = pd.DataFrame({"i": [1, None], "b": [None, True], "s": [np.nan, "u"], "c": ["v", pd.NA]})
    x, _ = encoder.transform(new)
    np.testing.assert_array_equal(x, [[0, np.nan, np.nan, 1], [np.nan, 1, 0, np.nan]])
    back = encoder.inverse_transform(x)
    assert [str(d) for d in back.dtypes] == ["Int64", "boolean", str(frame["s"].dtype), "category"]
    np.testing.assert_array_equal(back.isna(), new.isna())
    whole = encoder.inverse_transform(np.nan_to_num(x))
    assert_frame_equal(whole.iloc[:0], frame.iloc[:0])


NOTHING = {
    "float64": [np.nan] * 6,
    "object": [None] * 6,
    "str": pd.Series([None] * 6, dtype="str"),
    "Int64": pd.array([None] * 6, dtype="Int64"),
    "datetime": pd.to_datetime([None] * 6),
    "empty category": pd.Categorical([None] * 6),
    "category": pd.Categorical([None] * 6, categories=["u", "v"]),
    "boolean": pd.array([None] * 6, dtype="boolean"),
}


@pytest.mark.parametrize("values", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("kind", [None, "continuous", "nominal"])
def test_a_column_of_missing_cells_says_nothing(values, kind):
    frame = pd.DataFrame({"void": values, "n": range(6)})
    if kind == "continuous" and (
        isinstance(frame["void"].dtype, pd.CategoricalDtype) or frame["void"].dtype == "boolean"
    ):
        return
    with pytest.warns(UserWarning, match="column 'void': every cell is missing"):
        encoder = TableEncoder.fit(frame, {"void": kind})
    x, _ = encoder.transform(frame)
    assert np.isnan(x[:, 0]).all()
    assert_frame_equal(encoder.inverse_transform(x), frame)
    assert encoder.codebook().n_columns == 2
    assert unflatten(TableEncoder, flatten(encoder)).schema == encoder.schema
    if not encoder.schema[0].categories:
        later = encoder.transform(pd.DataFrame({"void": ["late"] * 6, "n": range(6)}))
        assert (later.x[:, 0] == 1).all()  # the slot of the unseen
        for slot in (0.0, 1.0):
            filled = np.column_stack([np.full(6, slot), x[:, 1]])
            assert encoder.inverse_transform(filled)["void"].isna().all()


def test_missing_marks_of_every_sort():
    marks = [None, np.nan, pd.NA, pd.NaT, "u"]
    (column,) = TableEncoder.fit(pd.DataFrame({"a": pd.Series(marks, dtype=object)})).schema
    assert (column.categories, column.n_missing) == (("u",), 4)
    hidden = pd.Series(np.array([1.5, np.nan, 2.5])).astype("double[pyarrow]")
    zero = pd.Series([0.0, 1.0, 2.0], dtype="Float64")
    for values in (hidden, zero / zero):
        x, _ = TableEncoder.fit(pd.DataFrame({"a": values})).transform(pd.DataFrame({"a": values}))
        np.testing.assert_array_equal(np.isnan(x[:, 0]), values.astype("float64").isna())


# -- the table ----------------------------------------------------------------------------------


def test_describe_and_points_of_the_core():
    frame = pd.DataFrame(
        {"c": ["x", None, "y", "x"], "g": [1, 2, 1, 2], "r": [0.5, 1.25, 2.5, 7.0]}
    )
    encoder = TableEncoder.fit(frame, {"c": {"missing": "category"}})
    lines = {
        "column": ["c", "g", "r"],
        "kind": ["nominal", "ordinal", "continuous"],
        "categories": [2, 2, 0],
        "open": [True, True, False],
        "missing": [0.25, 0.0, 0.0],
        "gaps": ["a value", "", ""],
        "dtype": [str(frame["c"].dtype), "int64", "float64"],
        "follows": ["", "", ""],
        "read": ["", "", ""],
    }
    assert_frame_equal(encoder.describe(), pd.DataFrame(lines), check_dtype=False)
    points = [(p.kind, p.n_levels, p.open) for p in encoder.codebook().columns]
    assert points == [("simplex", 3, True), ("line", 2, True), ("real", 0, False)]


@pytest.mark.parametrize("n", [0, 1])
def test_no_rows_and_one_row(n):
    frame = pd.DataFrame({"a": ["x", "y"], "n": [1, 2], "f": [0.5, 1.25]})
    frame["c"] = pd.Categorical(["u", "v"])
    frame["t"] = pd.to_datetime(["2020-01-01", "2021-01-01"])
    encoder = TableEncoder.fit(frame)
    x, log_volume = encoder.transform(frame[:n])
    assert x.shape == log_volume.shape == (n, 5)
    assert_frame_equal(encoder.inverse_transform(x), frame[:n])
    alone = TableEncoder.fit(frame[:1])
    assert_frame_equal(alone.inverse_transform(alone.transform(frame[:1]).x), frame[:1])


def test_other_tables_become_frames(monkeypatch):
    frame = pd.DataFrame({"a": ["x", None], "n": [1, 2]})
    assert as_frame(frame) is frame
    assert as_frame(np.eye(2)) is None
    assert as_frame(frame["a"]) is None
    pyarrow, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    batch = pyarrow.record_batch({"n": [1, 2]})
    for table in (batch, pyarrow.table(batch), polars.DataFrame({"n": [1, 2]})):
        assert_frame_equal(as_frame(table), frame[["n"]])
    assert as_frame(polars.Series([1])) is None

    class Foreign:
        columns = ("n",)

    with pytest.raises(
        TypeError, match=r"X is a \S+\.Foreign, a table that narwhals does not know"
    ):
        as_frame(Foreign())
    monkeypatch.setattr(narwhals, "from_native", lambda *_, **__: narwhals.absent)
    with pytest.raises(TypeError, match=r"Foreign, which this release of narwhals does not read"):
        as_frame(Foreign())
