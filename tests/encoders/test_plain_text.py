"""Cells of a CSV, which are text, in the types of a model's columns; and values as such cells."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd.cli.inputs import written_categories
from discrete_itd.encoders import TableEncoder, plain
from discrete_itd.encoders.notation import as_text
from discrete_itd.validation import from_shell


def column(values, kind=None):
    """The schema of one column."""
    return TableEncoder.fit(pd.DataFrame({"c": values}), kind and {"c": kind}).schema[0]


def encoded(cells, fitted, kind=None):
    """What a model makes of the cells, and of the same as a CSV has them."""
    own = column(fitted, kind)
    known = written_categories(own)
    texts = [known.get(t, t) for t in cells]
    return own.encode(pd.Series(texts, dtype=object))[0].tolist()


def values(cells, fitted, kind=None):
    return column(fitted, kind).encode(pd.Series(cells))[0].tolist()


DAYS = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"]))
HOUR = pd.Series(pd.to_timedelta([1, 2], unit="h"))
FLOATS, WHOLE = [0.5, 1.5, 2.5] * 9, list(range(300))
READ = {
    "numbers": (["1", "NA", "2.5", "nan", "1e3", " 7 "], FLOATS, [1.0, None, 2.5, None, 1000.0, 7.0]),
    "integers": (["1", "2.0", None], WHOLE, [1, 2, None]),
    "integers and fractions": (["1", "2.5", "N/A"], WHOLE, [1, 2.5, None]),
    "dates": (["2024-01-01T12:00+01:00", None, "NaT"], DAYS, [pd.Timestamp("2024-01-01 11:00"), None, None]),
    "any year": (["9999-12-31", "1600-12-31"], DAYS, [pd.Timestamp("9999-12-31"), pd.Timestamp("1600-12-31")]),
    "zoned": (["2024-01-01T12:00+01:00"], DAYS.dt.tz_localize("Europe/Paris"), [pd.Timestamp("2024-01-01 11:00Z")]),
    "durations": (["0 days 01:30:00", "none"], HOUR, [pd.Timedelta("90min"), None]),
}  # fmt: skip
# words among categories of numbers or truth values are values never seen; where all are text, so is everything
CATEGORIES = {
    "of integers": (["1", "1.0", "1.5", "a", "NA", "1_0"], [1, 2], [1, 1, 1.5, "a", None, "b"]),
    "of floats": (["1", "0.5", "null"], [0.5, 1.0] * 20, [1.0, 0.5, None]),
    "of truth": (["true", "FALSE", "None"], [True, False], [True, False, None]),
    "of text": (["01", "NA", None], ["01", "02"], ["01", "NA", None]),
    "of both": (["1", "a", "NA", "b"], np.array([1, "a"], object), [1, "a", "NA", "b"]),
}


@pytest.mark.parametrize(("cells", "fitted", "expected"), READ.values(), ids=READ)
def test_measured_values(cells, fitted, expected):
    np.testing.assert_array_equal(
        encoded(cells, fitted, "continuous"), values(expected, fitted, "continuous")
    )


@pytest.mark.parametrize(("cells", "fitted", "expected"), CATEGORIES.values(), ids=CATEGORIES)
def test_categories(cells, fitted, expected):
    np.testing.assert_array_equal(
        encoded(cells, fitted), values(np.array(expected, dtype=object), fitted)
    )


@pytest.mark.parametrize("bad", ["long", "1_0", "\u0661", "-nan", "1,5"])
def test_what_is_no_number(bad):
    hint = "; if all numbers of this table are like it" * (bad == "1,5")
    error = rf"^column 'c': expected numbers, got '{bad}'{hint}"
    with from_shell(), pytest.raises(ValueError, match=error):
        encoded(["1", bad], FLOATS, "continuous")


def test_what_is_no_time():
    with pytest.raises(ValueError, match=r"^column 'c': expected durations, like .*, got 'long'$"):
        encoded(["long"], HOUR)
    for bad in ("today", "2024-02-30", "1.2.2024"):
        with pytest.raises(ValueError, match=rf"expected ISO dates or times, .* got '{bad}'$"):
            encoded(["2024-01-01", bad], DAYS)


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
    assert plain(np.int64(3)) == 3
