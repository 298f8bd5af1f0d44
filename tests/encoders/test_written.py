"""Values as people write them."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd.encoders import TableEncoder, number, written


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
SPAN = column(DAYS - DAYS[0])


@pytest.mark.parametrize(
    ("of", "value", "text"),
    [
        (MONEY, 2361000.0, "2 361 000.00"),
        (MONEY, np.float64(148.1), "148.10"),
        (MONEY, -12345.678, "-12 345.678"),
        (WHOLE, 2361000, "2 361 000"),
        (WHOLE, 2361000.0, "2 361 000"),
        (WHOLE, 3.5, "3.5"),
        (WHOLE, 1999, "1999"),
        (REAL, 0.123456789, "0.123457"),
        (REAL, 123456.789, "123 457"),
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
        (None, True, "True"),
        (None, 2361000.5, "2 361 000.5"),
        (None, pd.NA, "a missing cell"),
        (None, pd.NaT, "a missing cell"),
    ],
)
def test_values(of, value, text):
    assert written(value, of) == text


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
