"""Values as people write them, and as cells of a CSV have them."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd.encoders import TableEncoder, number, written
from discrete_itd.reading.text import as_text
from discrete_itd.validation import from_shell


def column(values, **types):
    (found,) = TableEncoder.fit(pd.DataFrame({"x": values}), types).schema
    return found


RANDOM = np.random.default_rng(0)
MONEY = column(RANDOM.lognormal(8, 1, 400).round(2))
WHOLE = column(RANDOM.integers(0, 10**7, 400))
REAL = column(RANDOM.normal(size=400))
RATE = column([3.5, 4.0, 6.25] * 50)
ZIP = column([10115, 80331] * 50, x="nominal")
DAYS = pd.Series(pd.date_range("2024-01-01", periods=400, freq="D"))
DAY, HOURS = column(DAYS), column(DAYS + pd.Timedelta(hours=8))
MINUTES = column(pd.Series(pd.date_range("2024-01-01", periods=400, freq="7min", tz="UTC")))
EUROS = column([f"{v:.2f} €".replace(".", ",") for v in RANDOM.lognormal(5, 1, 400)])
GERMAN = column(list(DAYS.dt.strftime("%d.%m.%Y")))
SHORT = column(list(DAYS.dt.strftime("%d.%m.%y")))
PERCENT = column([f"{v:.1f} %".replace(".", ",") for v in RANDOM.normal(10, 2, 400)])
THOUSANDS = column([f"{v:,.0f} €".replace(",", ".") for v in RANDOM.integers(1, 10**7, 400)])
SPAN = column(DAYS - DAYS[0])


def test_values():
    for of, value, text in [
        (MONEY, 2361000.0, "2 361 000.00"),
        (MONEY, np.float64(148.1), "148.10"),
        (MONEY, -12345.678, "-12 345.678"),
        (WHOLE, 2361000, "2 361 000"),
        (WHOLE, 2361000.0, "2 361 000"),
        (WHOLE, 3.5, "3.5"),
        (WHOLE, 1999, "1999"),
        (REAL, 0.123456789, "0.123456789"),
        (REAL, 0.1234567890123, "0.1235"),
        (REAL, 123456.789, "123 456.789"),
        (REAL, 1.23456789e20, "1.23456789e+20"),
        (WHOLE, 10**400, "1e+400"),
        (WHOLE, -800000, "-800 000"),
        (REAL, 0.0, "0"),
        (REAL, 1e-9, "1e-09"),
        (REAL, np.inf, "inf"),
        (RATE, 4.0, "4.00"),
        (ZIP, 10115, "10115"),
        (ZIP, "01067", "01067"),
        (DAY, DAYS[30], "2024-01-31"),
        (DAY, np.datetime64("2024-01-31"), "2024-01-31"),
        (DAY, pd.Timestamp("2024-01-31 08:30"), "2024-01-31 08:30"),
        (HOURS, pd.Timestamp("2024-01-31 08:00"), "2024-01-31 08:00"),
        (MINUTES, pd.Timestamp("2024-01-31", tz="UTC"), "2024-01-31 00:00+00:00"),
        (MINUTES, pd.Timestamp("2024-01-31 08:30:05", tz="UTC"), "2024-01-31 08:30:05+00:00"),
        (SPAN, pd.Timedelta(days=3), "3 days"),
        (SPAN, pd.Timedelta(hours=36), "1 days 12:00:00"),
        (EUROS, 5067.1, "5067,10 €"),
        (EUROS, "5067,1 €", "5067,1 €"),
        (GERMAN, pd.Timestamp("2028-01-24"), "24.01.2028"),
        (GERMAN, "24.01.28", "24.01.28"),
        (GERMAN, pd.Timestamp("0001-01-01"), "01.01.0001"),
        (GERMAN, pd.Timestamp("1999-02-28 10:33"), "1999-02-28 10:33:00"),
        (SHORT, pd.Timestamp("2024-01-31"), "31.01.24"),
        (SHORT, pd.Timestamp("1924-01-31"), "1924-01-31"),
        (MINUTES, pd.Timestamp("0012-01-31 08:30", tz="UTC"), "0012-01-31 08:30+00:00"),
        (EUROS, 0.125, "0,125 €"),
        (EUROS, 1e-8, "0,00000001 €"),
        (EUROS, 1 / 3, "0,33 €"),
        (PERCENT, 0.125, "0,125 %"),
        (PERCENT, 7.0, "7,0 %"),
        (THOUSANDS, 1300.0, "1.300 €"),
        (None, True, "True"),
        (None, 2361000.5, "2 361 000.5"),
        (None, pd.NA, "a missing cell"),
        (None, pd.NaT, "a missing cell"),
    ]:
        assert written(value, of) == text


@pytest.mark.parametrize("of", [EUROS, PERCENT, THOUSANDS, GERMAN, SHORT])
def test_properties_what_is_shown_of_text_is_read_as_the_value(of):
    numbers = [round(v, d) for v in RANDOM.lognormal(5, 3, 20).tolist() for d in range(7)]
    times = [
        pd.Timestamp(t) for t in ("0001-01-01", "1899-12-31 23:59:59", "2024-05-06 00:00:00.25")
    ]
    for value in numbers if of.notation.family == "number" else times:
        assert of.notation.read([written(value, of)])[0] == value


def test_properties_equal_numbers_are_written_alike_whatever_their_type():
    for n in (0, -7, 12345, 10**15 + 1, 2**53):
        assert number(float(n)) == number(n) == number(np.int64(n))


def test_properties_numbers_read_back_and_keep_their_decimals():
    for value in (RANDOM.normal(size=200) * 10.0 ** RANDOM.integers(-3, 9, 200)).tolist():
        for decimals in range(7):
            rounded = round(value, decimals)
            text = number(rounded, decimals)
            whole, _, fraction = text.partition(".")
            assert float(text.replace(" ", "")) == pytest.approx(rounded, rel=1e-5)
            if abs(rounded) >= 1e-4 or not rounded:
                assert len(fraction) == decimals
                assert all(len(part) == 3 for part in whole.lstrip("-").split(" ")[1:])


# -- cells of a CSV, which are text, in the types of a model's columns; and values as such cells ---


def encoded(cells, fitted, kind=None):
    """The codes of cells as a CSV has them."""
    return column(fitted, x=kind).encode(pd.Series(cells, dtype=object))[0].tolist()


def values(cells, fitted, kind=None):
    return column(fitted, x=kind).encode(pd.Series(cells))[0].tolist()


TWO_DAYS = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"]))
HOUR = pd.Series(pd.to_timedelta([1, 2], unit="h"))
FLOATS, UP_TO_300 = [0.5, 1.5, 2.5] * 9, list(range(300))
READ = {
    "numbers": (["1", "NA", "2.5", "nan", "1e3", " 7 "], FLOATS, [1.0, None, 2.5, None, 1000.0, 7.0]),
    "integers": (["1", "2.0", None], UP_TO_300, [1, 2, None]),
    "integers and fractions": (["1", "2.5", "N/A"], UP_TO_300, [1, 2.5, None]),
    "dates": (["2024-01-01T12:00+01:00", None, "NaT"], TWO_DAYS, [pd.Timestamp("2024-01-01 11:00"), None, None]),
    "any year": (["9999-12-31", "1600-12-31"], TWO_DAYS, [pd.Timestamp("9999-12-31"), pd.Timestamp("1600-12-31")]),
    "zoned": (["2024-01-01T12:00+01:00"], TWO_DAYS.dt.tz_localize("Europe/Paris"), [pd.Timestamp("2024-01-01 11:00Z")]),
    "durations": (["0 days 01:30:00", "none"], HOUR, [pd.Timedelta("90min"), None]),
}  # fmt: skip
# words among truth values are values never seen; where all are text, so is everything


def test_measured_values():
    for cells, fitted, expected in READ.values():
        np.testing.assert_array_equal(
            encoded(cells, fitted, "continuous"), values(expected, fitted, "continuous")
        )


@pytest.mark.parametrize("bad", ["long", "1_0", "\u0661", "-nan", "1,5"])
def test_what_is_no_number(bad):
    hint = "; if all numbers of this table are like it" * (bad == "1,5")
    error = rf"^column 'x': expected numbers, got '{bad}'{hint}"
    with from_shell(), pytest.raises(ValueError, match=error):
        encoded(["1", bad], FLOATS, "continuous")


def test_what_is_no_time():
    with pytest.raises(ValueError, match=r"^column 'x': expected durations, like .*, got 'long'$"):
        encoded(["long"], HOUR)
    for bad in ("today", "2024-02-30", "1.2.2024"):
        with pytest.raises(ValueError, match=rf"expected ISO dates or times, .* got '{bad}'$"):
            encoded(["2024-01-01", bad], TWO_DAYS)


def test_cells_as_text():
    assert as_text(pd.Series([1.5, None, 1e-7])).tolist() == ["1.5", None, "1e-07"]
    assert as_text(pd.Series([1, None], dtype="Int64")).tolist() == ["1", None]
    assert as_text(pd.Series([0.1], dtype="float32")).tolist() == ["0.1"]
    times = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-01 08:30", None], format="ISO8601"))
    assert as_text(times, days=True).tolist() == ["2024-01-01", "2024-01-01 08:30:00", None]
    assert as_text(times).tolist()[0] == "2024-01-01 00:00:00"
    others = (TWO_DAYS + pd.Timedelta("1h"), TWO_DAYS.dt.tz_localize("Europe/Paris"))
    assert column(TWO_DAYS).has_days
    assert not any(column(times).has_days for times in others)
