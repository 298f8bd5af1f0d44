"""Cells of text in the types of a model's columns."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd.cli.cells import typed
from discrete_itd.encoders import TableEncoder, plain
from discrete_itd.encoders.plain_text import as_text


def column(values, kind=None):
    """The schema of one column."""
    return TableEncoder.fit(pd.DataFrame({"c": values}), kind and {"c": kind}).schema[0]


def text(*cells):
    return pd.Series(list(cells), dtype=object)


def read(cells, fitted, kind=None):
    values = typed(text(*cells), column(fitted, kind))
    return [None if pd.isna(v) else plain(v) for v in values]


DAYS = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"]))
HOUR = pd.Series(pd.to_timedelta([1, 2], unit="h"))
FLOATS, WHOLE = [0.5, 1.5, 2.5] * 9, list(range(300))
READ = {
    "numbers": (["1", "NA", "2.5", "nan", "1e3", " 7 "], FLOATS, [1.0, None, 2.5, None, 1000.0, 7.0]),
    "integers": (["1", "2.0", None], WHOLE, [1, 2, None]),
    "integers and fractions": (["1", "2.5", "N/A"], WHOLE, [1, 2.5, None]),
    "large integers": (["9007199254740993", "1"], WHOLE, [9007199254740993, 1]),
    "dates": (["2024-01-01T12:00+01:00", None, "NaT"], DAYS, [pd.Timestamp("2024-01-01 11:00"), None, None]),
    "any year": (
        ["2024-01-01T00:00:00.123456789", "9999-12-31", "1600-12-31"],
        DAYS,
        [pd.Timestamp("2024-01-01 00:00:00.123456"), pd.Timestamp("9999-12-31"), pd.Timestamp("1600-12-31")],
    ),
    "zoned": (["2024-01-01T12:00+01:00"], DAYS.dt.tz_localize("Europe/Paris"), [pd.Timestamp("2024-01-01 11:00Z")]),
    "durations": (["0 days 01:30:00", "none"], HOUR, [pd.Timedelta("90min"), None]),
}  # fmt: skip
# words among categories of numbers or truth values are values never seen; where all are text, so is everything
CATEGORIES = {
    "of integers": (["1", "1.0", "1.5", "a", "NA", "1_0"], [1, 2], [1, 1, 1.5, "a", None, "1_0"]),
    "of floats": (["1", "0.5", "null"], [0.5, 1.0] * 20, [1.0, 0.5, None]),
    "of truth": (["true", "FALSE", "a", "1", "None"], [True, False], [True, False, "a", "1", None]),
    "of text": (["01", "NA", None], ["01", "02"], ["01", "NA", None]),
    "of both": (["1", "a", "NA", "b"], np.array([1, "a"], object), [1, "a", "NA", "b"]),
}


@pytest.mark.parametrize(("cells", "fitted", "expected"), READ.values(), ids=READ)
def test_measured_values(cells, fitted, expected):
    found = read(cells, fitted, "continuous")
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(("cells", "fitted", "expected"), CATEGORIES.values(), ids=CATEGORIES)
def test_categories(cells, fitted, expected):
    found = read(cells, fitted)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize("bad", ["long", "1_0", "\u0661", "-nan", "1,5", ""])
def test_what_is_no_number(bad):
    hint = "; if this is a decimal comma, give --decimal ," * (bad == "1,5")
    with pytest.raises(ValueError, match=rf"^column 'c': expected a number, got '{bad}'{hint}$"):
        read(["1", bad], FLOATS, "continuous")


def test_what_is_no_time():
    with pytest.raises(ValueError, match=r"^column 'c': expected a duration, got 'long'$"):
        read(["long"], HOUR)
    for bad in ("today", "2024-02-30", "1.2.2024"):
        with pytest.raises(ValueError, match=rf"expected an ISO date or time, .* got '{bad}'$"):
            read(["2024-01-01", bad], DAYS)


def test_what_is_no_text_stays():
    values = pd.Series([1, 2])
    assert typed(values, column(FLOATS, "continuous")) is values


def test_cells_as_text():
    assert as_text(pd.Series([1.5, None, 1e-7])).tolist() == ["1.5", None, "1e-07"]
    assert as_text(pd.Series([1, None], dtype="Int64")).tolist() == ["1", None]
    assert as_text(pd.Series([0.1], dtype="float32")).tolist() == ["0.1"]
    assert as_text(pd.Series([True, False])).tolist() == ["True", "False"]
    times = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-01 08:30", None], format="ISO8601"))
    assert as_text(times, days=True).tolist() == ["2024-01-01", "2024-01-01 08:30:00", None]
    assert as_text(times).tolist()[0] == "2024-01-01 00:00:00"
    assert column(DAYS).has_days
    assert not column(DAYS + pd.Timedelta("1h")).has_days
    assert not column(DAYS.dt.tz_localize("Europe/Paris")).has_days
