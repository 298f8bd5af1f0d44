"""What a column is taken for, what is said about it, values of another type, and every refusal."""

import datetime
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from discrete_itd.encoders import KINDS, TableEncoder, check_column_spec
from discrete_itd.reading.frames import restore_numbers


def column(values, spec=None, **options):
    return TableEncoder.fit(pd.DataFrame({"a": values}), {"a": spec}, **options).schema[0]


def objects(*values):
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def endless():
    # a column from the start: pandas 2 makes no frame of such an array
    return pd.Series([10**400, 1], dtype=object)


def arrow(values, dtype):
    if dtype == "decimal":
        import pyarrow as pa

        return pd.Series(values, dtype=pd.ArrowDtype(pa.decimal128(3, 1)))
    return pd.Series(values, dtype=f"{dtype}[pyarrow]")


def dictionary(values, ordered=False):
    import pyarrow as pa

    dtype = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string(), ordered=ordered))
    return pd.Series(values, dtype=dtype)


INFERRED = {
    "category": (lambda: pd.Categorical(["b", "a"]), "nominal"),
    "ordered category": (lambda: pd.Categorical(["b", "a"], ["b", "a"], ordered=True), "ordinal"),
    "dictionary": (lambda: dictionary(["b", "a", None]), "nominal"),
    "Arrow decimals": (lambda: arrow([Decimal(1), Decimal("2.5")], "decimal"), "continuous"),
    "text": (lambda: ["b", "a"], "nominal"),
    "Arrow text": (lambda: arrow(["b", "a"], "string"), "nominal"),
    "text and numbers": (lambda: objects("b", 1), "nominal"),
    "bool": (lambda: [True, False], "nominal"),
    "boolean": (lambda: pd.array([True, None], dtype="boolean"), "nominal"),
    "bools in objects": (lambda: objects(True, None, False), "nominal"),
    "few integers": (lambda: [3, 1], "ordinal"),
    "20 integers, all different": (lambda: np.arange(20), "ordinal"),
    "21 integers, all different": (lambda: np.arange(21), "continuous"),
    "256 integers, twice": (lambda: np.tile(np.arange(256), 2), "continuous"),
    "257 integers, twice": (lambda: np.tile(np.arange(257), 2), "continuous"),
    "integers in objects": (lambda: objects(3, None, 1), "ordinal"),
    "whole floats": (lambda: [3.0, np.nan, 1.0], "ordinal"),
    "5 floats": (lambda: [0.1, 0.2, 0.4, 0.8, 1.6], "continuous"),
    "5 floats in 95 rows": (lambda: np.tile([0.1, 0.2, 0.4, 0.8, 1.6], 19), "continuous"),
    "5 floats in 100 rows": (lambda: np.tile([0.1, 0.2, 0.4, 0.8, 1.6], 20), "ordinal"),
    "21 floats in 210 rows": (lambda: np.tile(np.arange(21) / 8, 10), "continuous"),
    "21 whole floats": (lambda: np.arange(21.0), "continuous"),
    "numbers in objects": (lambda: objects(1, 0.5, 2.25), "continuous"),
    "Arrow floats": (lambda: arrow([0.25, None, 0.5], "double"), "continuous"),
    "dates": (lambda: pd.to_datetime(["2020", "2021"]), "continuous"),
    "durations": (lambda: pd.to_timedelta([1, 2], unit="h"), "continuous"),
    "dates in objects": (
        lambda: objects(pd.Timestamp("2020"), datetime.datetime(2021, 1, 1)),
        "continuous",
    ),
}


def test_what_a_column_is_taken_for():
    for make, kind in INFERRED.values():
        assert column(make()).kind == kind


ARRAYS = {
    "ints": (np.array([[3, 1], [1, 1], [3, 7]]), "nominal"),
    "257 ints": (np.tile(np.arange(257), 2)[:, None], "continuous"),
    "uint8": (np.array([[3, 1], [1, 1]], dtype=np.uint8), "nominal"),
    "strings": (np.array([["u", "x"], ["v", "x"]]), "nominal"),
    "objects": (objects(["u", 1], ["v", 2]), "nominal"),
    "bools": (np.array([[True, False], [True, True]]), "nominal"),
    "floats": (np.array([[0.5, 1.25], [0.25, 1.5]]), "continuous"),
}


@pytest.mark.parametrize("unit", [0.01, 1.0, 1e-5])
def test_fractional_numbers_of_a_list_are_levels(unit):
    """If few of them occur once, and they are few on their lattice, which one far away does not change."""
    rng = np.random.default_rng(0)
    prices = (rng.choice(np.arange(1, 9999, 2), 60) + 0.5) * unit
    dense = rng.normal(0, 20, 600).round() * 1.5 * unit
    frame = pd.DataFrame({"list": rng.choice(prices, 600), "dense": dense})
    frame.loc[0, "dense"] = 1.5e6 * unit
    rare = frame["list"].copy()
    rare[:30] = (np.arange(30) * 3 + 1) * 41 * unit
    schema = {c.name: c for c in TableEncoder.fit(frame.assign(rare=rare)).schema}
    assert schema["list"].kind == "ordinal"
    assert set(schema["list"].categories) == set(frame["list"])
    assert (schema["dense"].kind, schema["rare"].kind) == ("continuous", "continuous")


def test_arrays_hold_codes_or_numbers():
    for array, kind in ARRAYS.values():
        array = np.array([list(row) for row in array], dtype=array.dtype)
        frame = pd.DataFrame(array)
        encoder = TableEncoder.fit(frame, from_array=True)
        assert encoder.names == list(range(array.shape[1]))
        assert {c.kind for c in encoder.schema} == {kind}
        back = encoder.inverse_transform(encoder.transform(frame).x)
        pd.testing.assert_frame_equal(back, frame, check_dtype=False)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"clock", "code"}))
def test_a_specified_kind_is_that_of_its_column(kind):
    frame = pd.DataFrame({"a": [3, 1, 2], "b": [0.5, 2.5, 1.0]})
    for kinds in ({"a": kind, "b": kind}, kind):
        assert [c.kind for c in TableEncoder.fit(frame, kinds).schema] == [kind, kind]
    assert [c.kind for c in TableEncoder.fit(frame, {"b": kind}).schema] == ["ordinal", kind]


def test_whole_numbers_come_back_whole():
    for values in ([3, 1, 2**20], objects(3, 1, 2**20), pd.array([3, 1, None], dtype="Int16")):
        frame = pd.DataFrame({"a": values})
        encoder = TableEncoder.fit(frame, "continuous")
        assert encoder.schema[0].codec.whole
        back = encoder.inverse_transform(np.array([[0.1], [-0.3]]))["a"]
        assert back.dtype == frame["a"].dtype
        assert all(isinstance(v, int) for v in back.tolist())
    back = TableEncoder.fit(pd.DataFrame({"a": np.array([1, 100], np.int8)}), "continuous")
    assert back.inverse_transform(np.array([[50.0], [-50.0]]))["a"].tolist() == [127, -128]
    large = pd.DataFrame({"a": np.array([2**63 - 1, -(2**63), 5])})
    encoder = TableEncoder.fit(large, "continuous")
    assert encoder.inverse_transform(encoder.transform(large).x)["a"].dtype == np.int64
    assert column(np.array([2**64 - 1, 2**63], np.uint64)).categories == (2**63, 2**64 - 1)


def test_no_number_comes_back_as_negative_zero():
    for dtype, whole in (
        (np.dtype(float), False),
        (np.dtype(float), True),
        (np.dtype("f4"), False),
    ):
        assert not np.signbit(restore_numbers(np.array([-1e-9]), dtype, whole, 2)).any()


def test_times_come_back_on_their_grid():
    days = pd.date_range("2020-01-01", periods=40, freq="D")
    hours = pd.date_range("2020-03-28 01:00", periods=40, freq="h", tz="Europe/Berlin")
    for values, step in ((days, 86_400), (hours, 3_600), (days + pd.Timedelta("7s"), 86_400)):
        frame = pd.DataFrame({"t": values})
        encoder = TableEncoder.fit(frame, "continuous")
        assert encoder.schema[0].step == step * 10**9
        drawn = encoder.inverse_transform(np.array([[0.123], [-0.777], [90.0]]))["t"]
        assert drawn.dtype == frame["t"].dtype
        seconds = (drawn - values[0]).dt.total_seconds()
        np.testing.assert_array_equal(seconds % step, 0)


def test_the_density_of_times_is_per_second():
    days = pd.Series(pd.date_range("2020-01-01", periods=41, freq="D"))
    seconds = pd.DataFrame({"t": (days - days[0]).dt.total_seconds()})
    plain = TableEncoder.fit(seconds, "continuous").transform(seconds)
    for unit in ("s", "ns"):
        frame = pd.DataFrame({"t": days.dt.as_unit(unit)})
        x, log_volume = TableEncoder.fit(frame, "continuous").transform(frame)
        np.testing.assert_allclose(x, plain.x, atol=1e-9)
        np.testing.assert_allclose(log_volume, plain.log_volume)


def test_many_ordinal_categories_are_noted():
    with pytest.warns(UserWarning, match="column 'a': 1001 ordinal categories"):
        column(np.arange(1001), "ordinal")


# -- values of another type ---------------------------------------------------------------------

EQUAL = {
    "integers as floats": ([1, 2], [2.0, 1.0]),
    "integers as floats among missing": ([1, 2], [2.0, np.nan, 1.0]),
    "whole floats as integers": ([1.0, 2.0], [2, 1]),
    "floats as nullable": ([1.0, 2.0], pd.array([2.0, None], dtype="Float64")),
    "integers as Arrow floats": ([1, 2], arrow([2.0, None, 1.0], "double")),
    "category as text": (pd.Categorical(["u", "v"]), ["v", "u"]),
    "text as category": (["u", "v"], pd.Categorical(["v", "u"], ["v", "x", "u"])),
    "text as dictionary": (["u", "v"], dictionary(["v", None, "u"])),
    "dictionary as text": (dictionary(["u", "v"]), ["v", "u"]),
    "text as Arrow": (["u", "v"], arrow(["v", "u"], "string")),
    "bool as object": ([False, True], objects(True, False)),
    "bool as boolean": ([False, True], pd.array([True, None], dtype="boolean")),
    "int8 as Int64": (np.array([1, 2], "int8"), pd.array([2, None], dtype="Int64")),
    "int64 as uint64": ([1, 2], np.array([2, 1], "uint64")),
    "category of ints as floats": (pd.Categorical([1, 2]), [2.0, 1.0]),
    "large integers": (objects("x", "y", 2**53, 2**53 + 1, 0.5), objects(2**53 + 1, 2**53)),
    "large integers as such": ([2**53, 2**53 + 1], objects(2**53 + 1, 2**53)),
}


def test_equal_values_of_another_dtype():
    for fitted, given_ in EQUAL.values():
        frame = pd.DataFrame({"a": given_})
        encoder = TableEncoder.fit(pd.DataFrame({"a": fitted}))
        codes = encoder.transform(frame).x[:, 0]
        present = frame["a"].notna().to_numpy()
        np.testing.assert_array_equal(np.isnan(codes), ~present)
        categories = objects(*encoder.schema[0].categories)
        assert list(categories[codes[present].astype(int)]) == frame["a"][present].tolist()


def test_times_of_another_unit_and_zone_are_the_same_times():
    frame = pd.DataFrame({"t": pd.to_datetime(["2020-01-01", "2020-07-01", "2021-01-01"])})
    encoder = TableEncoder.fit(frame.astype("datetime64[ns]"))
    expected = encoder.transform(frame).x
    for dtype in ("datetime64[s]", "datetime64[ms]", "timestamp[us][pyarrow]", object):
        np.testing.assert_array_equal(encoder.transform(frame.astype(dtype)).x, expected)
    zoned = TableEncoder.fit(frame.apply(lambda t: t.dt.tz_localize("UTC")))
    moved = frame.apply(lambda t: t.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"))
    np.testing.assert_array_equal(zoned.transform(moved).x, expected)


UNSEEN = {
    "text": (["a", "b"], "z"),
    "category": (pd.Categorical(["a", "b"]), "z"),
    "integers": ([0, 1], 5),
    "whole floats": ([0.0, 1.0], 0.75),
    "numbers among text": (["0", "a"], 0),
    "a code among numbers in text": (["0", "1"], "01"),
    "truth among numbers": ([0, 1], True),
    "truth among numbers and text": (objects(1, "x"), True),
    "a number among truths and text": (objects(True, "x"), 1),
    "a half among integers": ([0, 1], 0.5),
    "a tuple among text": (["a", "b"], (1, 2)),
    "a huge float among integers": ([0, 1], 1e300),
}


@pytest.mark.parametrize(("seen", "unseen"), UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("as_category", [False, True])
def test_unseen_values(seen, unseen, as_category):
    frame = pd.DataFrame({"hue": seen})
    new = pd.DataFrame({"hue": pd.Series(objects(unseen, unseen)).infer_objects()})
    if as_category and not isinstance(unseen, tuple):
        new = new.astype("category")
    smooth = TableEncoder.fit(frame)
    assert smooth.transform(new).x.tolist() == [[2], [2]]
    assert smooth.inverse_transform(np.array([[2], [0]]))["hue"].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="column 'hue': unseen category ") as caught:
        TableEncoder.fit(frame, handle_unknown="error").transform(new)
    assert str(caught.value).endswith(repr(unseen))


def test_a_boolean_column_is_closed():
    encoder = TableEncoder.fit(pd.DataFrame({"b": [True, True]}))
    assert encoder.schema[0].categories == (False, True)
    for odd in ("maybe", 2, 0.5):
        why = "expected True or False, got" if isinstance(odd, str) else "unseen category"
        with pytest.raises(ValueError, match=f"column 'b': {why} {odd!r}"):
            encoder.transform(pd.DataFrame({"b": [odd]}))
    for known in ([True, False], [1, 0], [1.0, 0.0], ["true", "False"]):
        assert encoder.transform(pd.DataFrame({"b": known})).x[:, 0].tolist() == [1, 0]


def test_a_column_without_a_known_value_is_suspicious():
    encoder = TableEncoder.fit(pd.DataFrame({"a": [5, 6]}))
    others = pd.DataFrame({"a": [15, 16, None, 15, 16, 15]})
    with pytest.warns(UserWarning, match="column 'a': no value was seen in training .*int64"):
        assert encoder.transform(others).x[:2, 0].tolist() == [2, 2]
    encoder.transform(others[:5])  # four values may be chance
    encoder.transform(pd.DataFrame({"a": [7, 8, 9, 7, 5]}))


# -- what is refused ----------------------------------------------------------------------------

DAYS, HOURS = pd.to_datetime(["2020"]), pd.to_timedelta([1], unit="h")
REFUSED = {
    "infinity": (lambda: [1.0, np.inf], None, "infinity"),
    "infinity in objects": (lambda: objects(1, -np.inf), None, "infinity"),
    "infinity among text": (lambda: objects("x", np.inf), None, "infinity"),
    "infinity in a category": (lambda: pd.Categorical([1.0, np.inf]), None, "infinity"),
    "complex": (lambda: [1j, 2j], None, "complex128 are not supported"),
    "periods": (lambda: pd.period_range("2020", periods=2), None, "make them numbers"),
    "intervals": (lambda: pd.arrays.IntervalArray.from_breaks([0, 1, 2]), None, "make them numbers"),
    "truth and numbers": (lambda: objects(True, 1), None, "mixes truth values and numbers"),
    "truth, text and numbers": (lambda: objects(True, "x", 0.5), None, "mixes truth"),
    "endless integers": (endless, None, "too large"),
    "text": (lambda: ["x", "y"], "continuous", "needs numbers or dates, got 'x'"),
    "text among numbers": (lambda: objects(1, "y"), "continuous", "needs numbers or dates, got 'y'"),
    "truth": (lambda: [True, False], "continuous", "dtype bool cannot be continuous"),
    "category": (lambda: pd.Categorical([1, 2]), "continuous", "dtype category cannot be continuous"),
    "dates": (lambda: DAYS, "nominal", "times cannot be nominal"),
    "endless": (endless, "continuous", "too large for a float"),
    "pd.cut": (lambda: pd.cut([1, 2], 2), None, "Interval"),
    "lists": (lambda: objects([1], "x"), None, "list"),
    "dicts": (lambda: objects({}, "x"), None, "dict"),
    "tuples": (lambda: objects((1, 2), "x"), None, "tuple"),
    "bytes": (lambda: objects(b"x", 1), None, "bytes"),
}  # fmt: skip


def test_errors_name_the_column():
    for name in REFUSED:
        make, spec, words = REFUSED[name]
        of_type = name in ("pd.cut", "lists", "dicts", "tuples", "bytes")
        with pytest.raises(TypeError if of_type else ValueError, match=rf"column 'a': .*{words}"):
            column(make(), spec)


AT_ENCODING = {
    "text in a continuous column": ([0.5, 1.25], [None, "x"], "expected numbers, got 'x'"),
    "another notation": ([0.5, 1.25], ["5", "0,5"], "expected numbers, got '0,5'"),
    "durations without a unit": (HOURS, ["5"], "durations, like .*, got '5'"),
    "truth in a continuous column": ([0.5, 1.25], [True], "expected numbers, got True"),
    "dates in a continuous column": ([0.5, 1.25], DAYS, "expected numbers, got .*2020"),
    "infinity": ([0.5, 1.25], [np.inf], "contains infinity"),
    "infinity among categories": ([1, 2], [1, np.inf], "contains infinity"),
    "numbers among dates": (DAYS, [5], "expected datetimes, got 5"),
    "text among levels": ([1, 2], ["x", 1], "expected numbers, got 'x'"),
    "text among dates": (DAYS, ["2020"], "dates or times, like .*, got '2020'"),
    "dates among durations": (HOURS, DAYS, "expected timedeltas"),
    "lists among text": (["x", "y"], objects(["x"], "x"), "list"),
}


def test_errors_at_encoding_name_the_column():
    for fitted, values, words in AT_ENCODING.values():
        encoder = TableEncoder.fit(pd.DataFrame({"hue": fitted}))
        with pytest.raises((ValueError, TypeError), match=f"column 'hue': .*{words}"):
            encoder.transform(pd.DataFrame({"hue": values}))


FRAME = pd.DataFrame({"a": ["x"], "b": [1]})
CALLS = {
    "no such column": lambda: TableEncoder.fit(FRAME, {"c": "nominal"}),
    "column 'a': the name occurs more than once": lambda: TableEncoder.fit(FRAME.set_axis(["a", "a"], axis=1)),
    "handle_unknown must be one of .*, got 'drop'": lambda: TableEncoder.fit(FRAME, handle_unknown="drop"),
    "missing must be one of .*, got 'drop'": lambda: TableEncoder.fit(FRAME, missing="drop"),
    "column_types must be a mapping or one kind, got 5": lambda: TableEncoder.fit(FRAME, 5),
    "no rows": lambda: TableEncoder.fit(FRAME[:0]),
    r"column \('t', 'a'\): a column's name must be": lambda: TableEncoder.fit(pd.concat({"t": FRAME}, axis=1)),
    "column 1 from .*: its name is missing, nan": lambda: TableEncoder.fit(FRAME.set_axis(["a", np.nan], axis=1)),
    "column 'b': the table has no such column": lambda: TableEncoder.fit(FRAME).transform(FRAME[["a"]]),
    "the name occurs more": lambda: TableEncoder.fit(FRAME).transform(FRAME.set_axis(["a", "a"], axis=1)),
    "x must have 2 columns, got shape": lambda: TableEncoder.fit(FRAME).inverse_transform(np.zeros((1, 3))),
}  # fmt: skip


def test_errors_of_the_call():
    for words in CALLS:
        with pytest.raises((ValueError, TypeError), match=words):
            CALLS[words]()


SPECS = {
    "number": (5, TypeError, "expected a kind or a mapping"),
    "kind": ("text", ValueError, "kind must be one of .*got 'text'"),
    "kind in a mapping": ({"kind": 3}, ValueError, "kind must be one of .*got 3"),
    "option": ({"kind": "ordinal", "width": 3}, ValueError, "unknown option 'width'"),
    "categories without kind": ({"categories": [4, 5]}, ValueError, "categories needs kind='nominal or ord"),
    "categories of numbers": ({"kind": "continuous", "categories": [4]}, ValueError, "categories needs kind="),
    "missing": ({"missing": "drop"}, ValueError, "missing must be one of .*got 'drop'"),
    "unhashable kind": ({"kind": ["nominal"]}, ValueError, "kind must be one of"),
    "notation of nominal": ({"kind": "nominal", "notation": "day-first"}, ValueError, "notation is of numbers"),
}  # fmt: skip


def test_specifications_that_are_refused():
    for spec, error, words in SPECS.values():
        with pytest.raises(error, match=f"column 'a': .*{words}"):
            column([1, 2], spec)


def test_declared_categories_are_the_schema_in_their_order():
    frame = pd.DataFrame({"size": ["L", "S", "L", None], "open": [True, True, None, True]})
    types = {"size": {"kind": "ordinal", "categories": ["S", "M", "L"]}}
    encoder = TableEncoder.fit(
        frame, {**types, "open": {"kind": "nominal", "categories": [False, True]}}
    )
    assert encoder.schema[0].categories == ("S", "M", "L")
    assert encoder.schema[1].open is False
    x = encoder.transform(pd.DataFrame({"size": ["M", "L", "XL"], "open": [False, True, None]})).x
    np.testing.assert_array_equal(x, [[1, 0], [2, 1], [3, np.nan]])
    ordered = frame.astype({"size": pd.CategoricalDtype(["S", "L"], ordered=True)})
    with pytest.raises(ValueError, match=r"column 'size': its dtype has the categories"):
        TableEncoder.fit(ordered, types)
    with pytest.warns(UserWarning, match="every cell is missing"):
        empty = TableEncoder.fit(frame.assign(size=None), types).schema[0]
    assert empty.categories == ("S", "M", "L")


def test_invalid_categories_are_refused_by_name():
    for categories, match in [
        ([], "at least one"),
        (["S", "S"], "none twice"),
        ("SML", "a list of values"),
        ([["S"]], "must be a string or a number"),
        ([1, True], "mixes truth values"),
        ([1.0, np.inf], "contains infinity"),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"column 'size'.*{match}"):
            check_column_spec("size", {"kind": "nominal", "categories": categories})


def test_many_columns_of_one_kind_have_one_warning():
    days = {f"day {i}": ["01.02.2028", "03.04.2028"] for i in range(3)}
    gaps = {f"gap {i}": [None] * 2 for i in range(8)}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        TableEncoder.fit(pd.DataFrame(days | gaps))
    either, empty = [str(w.message) for w in said]
    assert either.endswith("; likewise 'day 1', 'day 2'")
    assert empty.startswith("column 'gap 0': every cell is missing")
    assert empty.endswith("; likewise 'gap 1', 'gap 2', 'gap 3', 'gap 4', 'gap 5', 2 others")


def test_a_word_among_times_is_named():
    days = pd.date_range("2024-01-01", periods=40).astype(object).tolist()
    with pytest.raises(TypeError, match="column 'day': mixes times with text like 'unknown'"):
        TableEncoder.fit(
            pd.DataFrame({"day": pd.Series([*days[:9], *["unknown"] * 3], dtype=object)})
        )
    with pytest.warns(UserWarning, match=r"'unknown' \(3 cells\) taken as missing"):
        encoder = TableEncoder.fit(
            pd.DataFrame({"day": pd.Series([*days, *["unknown"] * 3], dtype=object)})
        )
    assert encoder.schema[0].family == "datetime"
    assert encoder.schema[0].n_missing == 3
