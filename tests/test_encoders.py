"""Laws of the table encoder: there and back, what is refused, and where levels lie."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from discrete_itd.encoders import FINEST_GAP, TableEncoder, line_levels

# surrogates are no text, and pandas' strings refuse them
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.sampled_from([-1e300, -2.5, 0.0, 1e-300, 0.1, 1 / 3, 7.0, 1e300])
NUMBERS = st.one_of(st.integers(-5, 5), FLOATS)


def draw_values(draw, cells, n, dtype):
    return pd.Series(draw(st.lists(cells, min_size=n, max_size=n)), dtype=dtype)


def draw_category(draw, cells, n, ordered):
    levels = draw(st.lists(cells, min_size=1, max_size=6, unique=True))  # some stay unused
    codes = draw(st.lists(st.integers(0, len(levels) - 1), min_size=n, max_size=n))
    return pd.Series(pd.Categorical.from_codes(codes, categories=levels, ordered=ordered))


COLUMNS = {
    "str": lambda draw, n: draw_values(draw, WORDS, n, "str"),
    "object": lambda draw, n: draw_values(draw, WORDS, n, object),
    "string": lambda draw, n: draw_values(draw, WORDS, n, "string"),
    "mixed object": lambda draw, n: draw_values(draw, st.one_of(WORDS, NUMBERS), n, object),
    "bool": lambda draw, n: draw_values(draw, st.booleans(), n, bool),
    "boolean": lambda draw, n: draw_values(draw, st.booleans(), n, "boolean"),
    "int64": lambda draw, n: draw_values(draw, INT64, n, "int64"),
    "Int64": lambda draw, n: draw_values(draw, INT64, n, "Int64"),
    "uint8": lambda draw, n: draw_values(draw, st.integers(0, 255), n, "uint8"),
    "float64": lambda draw, n: draw_values(draw, FLOATS, n, float),
    "float32": lambda draw, n: draw_values(draw, st.sampled_from([0.1, -3, 9]), n, "float32"),
    "category": lambda draw, n: draw_category(draw, WORDS, n, False),
    "ordered category": lambda draw, n: draw_category(draw, WORDS, n, True),
    "category of ints": lambda draw, n: draw_category(draw, st.integers(-9, 9), n, False),
    "ordered category of ints": lambda draw, n: draw_category(draw, st.integers(-9, 9), n, True),
    "category of int8": lambda draw, n: draw_values(draw, st.integers(0, 9), n, "int8").astype(
        "category"
    ),
    "category of bools": lambda draw, n: draw_category(draw, st.booleans(), n, False),
}


@st.composite
def frames(draw):
    n = draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=4))
    names = draw(
        st.lists(
            st.one_of(WORDS, st.integers(-3, 3)),
            min_size=len(kinds),
            max_size=len(kinds),
            unique=True,
        )
    )
    frame = pd.DataFrame(
        {name: COLUMNS[kind](draw, n) for name, kind in zip(names, kinds, strict=True)}
    )
    return frame.set_axis(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), axis=0)


@pytest.mark.filterwarnings("ignore:column .* distinct numbers:UserWarning")
@pytest.mark.parametrize("unseen", ["smooth", "raise"])
@given(frame=frames())
def test_decoding_undoes_encoding(frame, unseen):
    encoder = TableEncoder.fit(frame, unseen=unseen)
    codes = encoder.transform(frame)
    assert codes.dtype == np.int64
    assert (codes < [len(c.categories) for c in encoder.schema]).all()
    assert_frame_equal(encoder.inverse_transform(codes, frame.index), frame, check_exact=True)


@pytest.mark.filterwarnings("ignore:column .* distinct numbers:UserWarning")
@given(frame=frames())
def test_the_schema_survives_json(frame):
    encoder = TableEncoder.fit(frame)
    again = TableEncoder.from_list(json.loads(json.dumps(encoder.to_list())))
    assert again.schema == encoder.schema
    assert_frame_equal(again.inverse_transform(again.transform(frame), frame.index), frame)


@pytest.mark.filterwarnings("ignore:column .* distinct numbers:UserWarning")
@given(frame=frames())
def test_codes_depend_on_names_not_on_order(frame):
    encoder = TableEncoder.fit(frame)
    turned = frame[list(frame.columns[::-1])]
    np.testing.assert_array_equal(encoder.transform(turned), encoder.transform(frame))


KINDS = {
    "category": (pd.Categorical(["b", "a"]), "nominal"),
    "ordered category": (pd.Categorical(["b", "a"], ["b", "a"], ordered=True), "ordinal"),
    "str": (["b", "a"], "nominal"),
    "object": (np.array(["b", 1], dtype=object), "nominal"),
    "bool": ([True, False], "nominal"),
    "boolean": (pd.array([True, False], dtype="boolean"), "nominal"),
    "int64": ([3, 1], "ordinal"),
    "float64": ([0.5, 2.5], "ordinal"),
}


@pytest.mark.parametrize(("values", "kind"), KINDS.values(), ids=KINDS)
def test_what_a_dtype_says_and_how_to_overrule_it(values, kind):
    frame = pd.DataFrame({"a": values})
    encoder = TableEncoder.fit(frame)
    assert encoder.schema[0].kind == kind
    assert encoder.describe().loc[0, "kind"] == kind
    assert bool(encoder.schema[0].levels) == (kind == "ordinal")
    for other in ("nominal", "ordinal"):
        for columns in (other, {"a": other}):
            encoder = TableEncoder.fit(frame, columns)
            assert encoder.schema[0].kind == other
            assert_frame_equal(encoder.inverse_transform(encoder.transform(frame)), frame)


def test_order_of_categories():
    unused = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    frame = pd.DataFrame(
        {"s": ["b", "a", "c"], "n": [9, -1, 4], "o": pd.Series(["mid", "low", "mid"], dtype=unused)}
    )
    s, n, o = TableEncoder.fit(frame).schema
    assert s.categories == ("a", "b", "c")
    assert n.categories == (-1, 4, 9)
    assert o.categories == ("low", "mid", "high")
    assert np.allclose(np.diff(n.levels, 2) / np.diff(n.levels)[0], 0.0)  # at their own distances
    assert len(o.levels) == 3


UNSEEN = {
    "str": (["a", "b"], "z"),
    "category": (pd.Categorical(["a", "b"]), "z"),
    "int64": ([0, 1], 5),
    "float64": ([0.5, 1.5], 0.75),
    "text among numbers": ([0, 1], "0"),
    "numbers among text": (["0", "1"], 0),
    "truth among numbers": ([0, 1], True),
    "a half among integers": ([0, 1], 0.5),
}


@pytest.mark.parametrize(("seen", "unseen"), UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("as_category", [False, True])
def test_unseen_values(seen, unseen, as_category):
    frame = pd.DataFrame({"hue": seen})
    new = pd.DataFrame({"hue": pd.Series([unseen, unseen])})
    if as_category:
        new = new.astype("category")
    smooth = TableEncoder.fit(frame)
    assert smooth.transform(new).tolist() == [[2], [2]]
    assert smooth.inverse_transform(np.array([[2], [0]]))["hue"].isna().tolist() == [True, False]
    strict = TableEncoder.fit(frame, unseen="raise")
    with pytest.raises(ValueError, match=f"column 'hue': unseen category {unseen!r}"):
        strict.transform(new)


def test_a_boolean_column_is_closed():
    encoder = TableEncoder.fit(pd.DataFrame({"b": [True, True]}))
    assert encoder.schema[0].categories == (False, True)
    with pytest.raises(ValueError, match="column 'b': unseen category 'maybe'"):
        encoder.transform(pd.DataFrame({"b": ["maybe"]}))


EQUAL = {
    "integers as floats": ([1, 2], [2.0, 1.0]),
    "category as text": (pd.Categorical(["u", "v"]), ["v", "u"]),
    "text as category": (["u", "v"], pd.Categorical(["v", "u"], ["v", "x", "u"])),
    "bool as object": ([False, True], np.array([True, False], dtype=object)),
    "bool as boolean": ([False, True], pd.array([True, False], dtype="boolean")),
    "int8 as Int64": (np.array([1, 2], "int8"), pd.array([2, 1], dtype="Int64")),
    "large integers": (
        np.array([2**53, 2**53 + 1, 0.5], object),
        np.array([2**53 + 1, 2**53], object),
    ),
}


@pytest.mark.parametrize(("fitted", "given_"), EQUAL.values(), ids=EQUAL)
def test_equal_values_of_another_dtype(fitted, given_):
    encoder = TableEncoder.fit(pd.DataFrame({"a": fitted}))
    codes = encoder.transform(pd.DataFrame({"a": given_}))[:, 0]
    categories = np.array(encoder.schema[0].categories, dtype=object)
    assert list(categories[codes]) == list(given_)


ARRAYS = {
    "ints": np.array([[3, 1], [1, 1], [3, 7]]),
    "uint8": np.array([[3, 1], [1, 1]], dtype=np.uint8),
    "strings": np.array([["u", "x"], ["v", "x"]]),
    "object": np.array([["u", 1], ["v", 2]], dtype=object),
    "bools": np.array([[True, False], [True, True]]),
    "floats": np.array([[0.5, 1.0], [0.25, 1.0]]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_hold_codes(array):
    frame = pd.DataFrame(array)
    encoder = TableEncoder.fit(frame, integers="nominal")
    assert encoder.names == [0, 1]
    assert {c.kind for c in encoder.schema} == {"nominal"}
    back = encoder.inverse_transform(encoder.transform(frame)).to_numpy()
    np.testing.assert_array_equal(back, array)


def test_no_rows():
    frame = pd.DataFrame({"a": ["x", "y"], "n": [1, 2], "c": pd.Categorical(["u", "v"])})
    encoder = TableEncoder.fit(frame)
    codes = encoder.transform(frame[:0])
    assert codes.shape == (0, 3)
    assert_frame_equal(encoder.inverse_transform(codes), frame[:0])


def test_one_row_and_one_category():
    frame = pd.DataFrame({"a": ["x"], "n": [5], "f": [0.5], "b": [True]})
    encoder = TableEncoder.fit(frame)
    assert encoder.transform(frame).tolist() == [[0, 0, 0, 1]]
    assert_frame_equal(encoder.inverse_transform(encoder.transform(frame)), frame)


REFUSED = {
    "missing text": (["x", None], ValueError, "1 of 2 rows"),
    "missing number": ([1.0, np.nan], ValueError, "contains NaN"),
    "missing category": (pd.Categorical(["x", None]), ValueError, "contains NaN"),
    "missing boolean": (pd.array([True, pd.NA], dtype="boolean"), ValueError, "contains NaN"),
    "infinity": ([1.0, np.inf], ValueError, "infinity"),
    "dates": (pd.to_datetime(["2020", "2021"]), ValueError, "datetime64"),
    "complex": ([1j, 2j], ValueError, "complex128"),
    "intervals": (pd.cut([1, 2], 2), TypeError, "Interval"),
    "lists": (np.array([[1], "x"], dtype=object), TypeError, "list"),
    "bytes": (np.array([b"x", 1], dtype=object), TypeError, "bytes"),
    "no values": (np.array([], dtype="int64"), ValueError, "no value"),
    "no categories": (pd.Categorical([], []), ValueError, "no value"),
}


@pytest.mark.parametrize(("values", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_errors_name_the_column(values, error, words):
    with pytest.raises(error, match=rf"column 'hue': .*{words}"):
        TableEncoder.fit(pd.DataFrame({"hue": values}))


@pytest.mark.parametrize(
    ("values", "error"), [(["x", None], ValueError), ([["x"], "x"], TypeError)]
)
def test_errors_at_encoding_name_the_column(values, error):
    encoder = TableEncoder.fit(pd.DataFrame({"hue": ["x", "y"]}))
    with pytest.raises(error, match="column 'hue': "):
        encoder.transform(pd.DataFrame({"hue": pd.Series(values, dtype=object)}))


def test_errors_of_the_call_name_the_column():
    frame = pd.DataFrame({"a": ["x"], "b": [1]})
    with pytest.raises(ValueError, match=r"column 'c': .*no such column"):
        TableEncoder.fit(frame, {"c": "nominal"})
    with pytest.raises(ValueError, match=r"column 'a': kind must be one of .*got 'text'"):
        TableEncoder.fit(frame, {"a": "text"})
    with pytest.raises(ValueError, match="column 'a': the name occurs more than once"):
        TableEncoder.fit(frame.set_axis(["a", "a"], axis=1))
    with pytest.raises(ValueError, match="unseen must be 'smooth' or 'raise', got 'drop'"):
        TableEncoder.fit(frame, unseen="drop")
    with pytest.raises(TypeError, match=r"column \('t', 'a'\): a column's name must be"):
        TableEncoder.fit(pd.concat({"t": frame}, axis=1))
    with pytest.raises(ValueError, match="column 'o': contains infinity"):
        TableEncoder.fit(pd.DataFrame({"o": np.array([1.0, np.inf], object)}), "ordinal")


def test_notes_on_columns_that_are_hardly_categories():
    with pytest.warns(UserWarning, match="column 'f': 30 distinct numbers in 30 rows"):
        TableEncoder.fit(pd.DataFrame({"f": np.arange(30) / 7}))
    with pytest.warns(UserWarning, match="column 'id': 1001 categories"):
        TableEncoder.fit(pd.DataFrame({"id": [f"k{i}" for i in range(1001)]}))


@given(
    st.lists(st.floats(-1e308, 1e308) | st.integers(-9, 9), min_size=1, max_size=9, unique=True),
    st.data(),
)
def test_levels_on_the_line(positions, data):
    positions = np.array(sorted(positions), dtype=float)
    n = len(positions)
    counts = np.array(data.draw(st.lists(st.integers(0, 10**6), min_size=n, max_size=n)))
    levels = np.array(line_levels(positions, counts))
    assert levels.shape == positions.shape
    weights = (counts + 0.5) / (counts + 0.5).sum()
    np.testing.assert_allclose(weights @ levels, 0.0, atol=1e-9 * np.abs(levels).max())
    if len(levels) > 1:
        gaps = np.diff(levels)
        assert (gaps > 0).all()
        assert gaps.min() <= 1 + 1e-9
        spread = np.sqrt(weights @ levels**2)
        if gaps.min() < 1 - 1e-9:
            np.testing.assert_allclose(spread, 0.5)
        else:
            assert spread <= 0.5 + 1e-9


@given(st.integers(2, 9), st.floats(-100, 100), st.floats(0.01, 100), st.data())
def test_levels_do_not_depend_on_origin_and_unit(n, shift, scale, data):
    positions = np.cumsum(data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)))
    counts = np.array(data.draw(st.lists(st.integers(0, 50), min_size=n, max_size=n)))
    levels = line_levels(positions.astype(float), counts)
    np.testing.assert_allclose(line_levels(positions * scale + shift, counts), levels, atol=1e-9)


def test_uneven_numbers_are_spaced_by_rank():
    uneven = line_levels(np.array([0.0, 1e-9, 1.0]), np.ones(3))
    assert uneven == line_levels(np.arange(3.0), np.ones(3))
    assert min(np.diff(uneven)) > FINEST_GAP
    one_float = line_levels(np.array([2**53, 2**53 + 1, 2**53 + 2], dtype=float), np.ones(3))
    assert one_float == line_levels(np.arange(3.0), np.ones(3))
