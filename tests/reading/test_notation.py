"""Text that is numbers or dates: read where all cells agree, noted where they could be read in two ways."""

import json
import re
import warnings
from datetime import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discrete_itd import DiffusionDensity
from discrete_itd.encoders import TableEncoder
from discrete_itd.reading.columns import recognise
from discrete_itd.reading.frames import in_memory
from discrete_itd.reading.numbers import NumberNotation
from discrete_itd.storage.values import flatten, unflatten
from discrete_itd.validation import from_shell


def found(*texts, asked=None):
    return recognise(texts, np.ones(len(texts), int), asked)


NUMBERS = {
    "German money": (["5.067,14 €", "12,00 €", "-3,10 €"], [5067.14, 12, -3.1]),
    "American money": (["$1,234.50", "-$5.00", "$-7.25"], [1234.5, -5, -7.25]),
    "a code before": (["CHF 1'234.50", "CHF 0.20"], [1234.5, 0.2]),
    "percentages": (["12,5 %", "3 %", "100 %"], [12.5, 3, 100]),
    "decimal commas": (["148,11", "7,5"], [148.11, 7.5]),
    "thousands that settle it": (["1.234", "12.345.678"], [1234, 12345678]),
    "fractions that settle it": (["1.234", "0.5"], [1.234, 0.5]),
    "spaces and minus signs": (["1\u202f234,5", "\u22122,0"], [1234.5, -2]),
    "spaces that do not break": (["1\u00a0234,50\u00a0€", "12,00\u202f€"], [1234.5, 12]),
    "narrow percentages": (["12,5\u202f%", "3\u00a0%", "4%"], [12.5, 3, 4]),
    "units in some cells only": (["12,5 %", "3,5"], [12.5, 3.5]),
    "one currency, by two names": (["12,50 €", "EUR 3,00"], [12.5, 3]),
    "whole money": (["850 €", "12 €"], [850, 12]),
    "accountants' parentheses": (["(1,234.50)", "2.25", "($3.00)"], [-1234.5, 2.25, -3]),
    "accountants' costs": (["($1,234.50)", "($2.25)"], [-1234.5, -2.25]),
    "lakhs": (["Rs. 12,34,567.50", "Rs. 345.00", "Rs. -1,00,000.00"], [1234567.5, 345, -100000]),
    "a price for each": (["$59.21/hr", "$1,260.00/hr"], [59.21, 1260]),
    "a unit of a measure": (["12,5 m/s", "0,7 m/s", "3 m/s"], [12.5, 0.7, 3]),
    "a unit of any script": (["10.5万円", "1,234.0万円"], [10.5, 1234]),
    "one of a unit": (["1 Jahr", "3 Jahre", "12 Jahre"], [1, 3, 12]),
    "a currency of any country": (["R 1 234,50", "R 12,00"], [1234.5, 12]),
    "a currency's code": (["GHS 1,035", "GHS 12"], [1035, 12]),
    "digits of other scripts": (["３６．５", "٣٧.٢", "36.8"], [36.5, 37.2, 36.8]),
    "whole francs": (["500.–", "2’500.-", "1’000.–"], [500, 2500, 1000]),
    "bounds": (["<0,5", "12,75", "> 90", "80+"], [0.5, 12.75, 90, 80]),
    "powers of ten": (["1.2M", "350K", "12.5K"], [1.2e6, 350e3, 12.5e3]),
    "one word within another": (["4 millones", "41 mil"], [4e6, 41e3]),
    "words for powers": (["1,2 млн ₽", "850 тыс. ₽", "900 ₽"], [1.2e6, 850e3, 900]),
    "Arabic marks": (["١٬٢٣٤٫٥", "٣٧٫٢"], [1234.5, 37.2]),
    "whole euros": (["€ 2.345,-", "€ 12,-"], [2345, 12]),
    "one currency, two signs": (["1.234,50 TL", "12,00 ₺"], [1234.5, 12]),
    "a range among numbers": (["85,5 m²", "80-100 m²", "70 m²"], [85.5, 90, 70]),
    "a unit of one sign": (["21.5℃", "-3.0℃"], [21.5, -3]),
    "points of thirty": (["18/30", "30/30"], [18, 30]),
    "parts of one": (["0,637", "1,853"], [0.637, 1.853]),
    "a sign behind": (["1.234,5-", "2,25", "3,00- €", "4 €-"], [-1234.5, 2.25, -3, -4]),
}
DATES = {
    "day first": (["24.01.2028", "01.02.2025"], ["2028-01-24", "2025-02-01"]),
    "month first": (["1/24/2028", "2/1/2025"], ["2028-01-24", "2025-02-01"]),
    "mixed with ISO": (["24.01.2028", "2025-02-01"], ["2028-01-24", "2025-02-01"]),
    "mixed marks": (["24.01.2028", "1/2/2025"], ["2028-01-24", "2025-02-01"]),
    "the year first": (["2028/01/24", "2025/02/01"], ["2028-01-24", "2025-02-01"]),
    "two digits": (["24.01.28", "01.02.71"], ["2028-01-24", "1971-02-01"]),
    "twelve hours": (
        ["01/26/2028 09:12 AM", "1/2/2028 9:12 pm"],
        ["2028-01-26T09:12", "2028-01-02T21:12"],
    ),
    "noon": (
        ["24.01.2028, 12:05:10\u202fPM", "25.01.2028 12:00 a.m."],
        ["2028-01-24T12:05:10", "2028-01-25"],
    ),
    "zones": (
        ["2028-03-26T01:30:00.250+01:00", "2028-03-26 03:30+0200", "2028-03-26T01:30:00Z"],
        ["2028-03-26T00:30:00.250", "2028-03-26T01:30", "2028-03-26T01:30"],
    ),
    "names of months": (
        ["24-Jan-2028", "1 February 2025", "Mar 3, 2026", "5 août 2025", "6 de março de 2025"],
        ["2028-01-24", "2025-02-01", "2026-03-03", "2025-08-05", "2025-03-06"],
    ),
    "months of two digits": (["24-JAN-28", "01-MAY-71"], ["2028-01-24", "1971-05-01"]),
    "words for parts": (["2028年1月24日", "2025年 2月 1日"], ["2028-01-24", "2025-02-01"]),
    "years of emperors": (
        ["令和元年5月1日", "H31.4.30", "昭和64年1月7日"],
        ["2019-05-01", "2019-04-30", "1989-01-07"],
    ),
    "the year before the month": (
        ["2024. május 5.", "2025. szept. 12."],
        ["2024-05-05", "2025-09-12"],
    ),
    "days of the week": (
        ["Mon, 24 Jan 2028", "Sat, 1 Feb 2025", "2025-02-03 (Mon)"],
        ["2028-01-24", "2025-02-01", "2025-02-03"],
    ),
    "points in the time": (
        ["2028-01-24 10.30", "2025-02-01 07.05"],
        ["2028-01-24T10:30", "2025-02-01T07:05"],
    ),
    "times": (["24.01.2028 10:30", "01.02.2025"], ["2028-01-24T10:30", "2025-02-01"]),
}
TEXT = {
    "codes with zeros": ["01067", "60311"],
    "plain whole numbers": ["1067", "60311"],
    "identifiers": ["KA-100", "KA-107"],
    "words": ["red", "blue"],
    "no such day": ["31.02.2025", "24.01.2025"],
    "groups of two": ["1.23.45", "1.22.33"],
    "numbers of a list": ["(1)", "(2)"],
    "codes with a letter": ["V58", "V12"],
    "addresses": ["12 Main Street", "5 Oak Avenue"],
    "ranges": ["10-12", "13-15"],
    "grades": ["1", "2-", "3+"],
    "many grades": [f"{k}{sign}" for k in range(1, 9) for sign in ("-", "", "+")] + ["1,5"],
    "flights": ["LH 4184", "LH 12"],
    "phone numbers": ["+48 603 352 630", "+48 744 408 906"],
    "addresses of a network": ["241.137.219.165", "126.166.150.158"],
    "years of two": ["2023/24", "2024/25"],
    "no month": ["24-Foo-2028", "25-Bar-2028"],
    "thirteen in the morning": ["24.01.2028 13:00 AM", "25.01.2028 13:00 PM"],
}
EITHER = {
    "1.234": ["1.234 €", "5.678 €"],
    "01.02.2028": ["01.02.2028", "03.04.2025"],
    "different units": ["3 €", "4 $"],
    "with and without 'K'": ["312.5", "294.0 K", "297.9 K"],
    "zones in some cells": ["2028-01-24T10:30Z", "2028-01-25T10:30"],
    "01.01.2028": ["01.01.2028", "02.02.2028"],
}


def test_numbers_are_read_as_they_are_written():
    for texts, numbers in NUMBERS.values():
        notation = found(*texts).notation
        np.testing.assert_allclose(notation.read(texts), numbers)
        np.testing.assert_allclose([notation.read([text])[0] for text in texts], numbers)
        again = notation.read(notation.write(pd.Series(numbers, dtype=float)).tolist())
        np.testing.assert_allclose(again, numbers)


def test_dates_are_read_in_the_order_that_fits_all():
    for texts, days in DATES.values():
        notation = found(*texts).notation
        written = notation.write(pd.Series(pd.to_datetime(days, format="ISO8601"))).tolist()
        for cells in (texts, written):
            assert (notation.read(cells) == np.array(days, dtype="M8[us]")).all()


LANGUAGES = (
    *("ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "hu", "id"),
    *("it", "nb", "nl", "pl", "pt", "ro", "ru", "sv", "tr", "uk"),
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_of_months_are_read_in_many_languages(language):
    months = pytest.importorskip("babel.dates").get_month_names
    days = [datetime(2024, k, 5) for k in range(1, 13)]
    for width in ("wide", "abbreviated"):
        for context in ("format", "stand-alone"):
            texts = [f"5 {months(width, context, language)[day.month]} 2024" for day in days]
            assert found(*texts).notation.read(texts).tolist() == days


SPANS = {
    "of twelve hours": ("{}:{:02} PM", lambda h, m: 12 + h % 12 + m / 60),
    "of 24 hours": ("{:02}:{:02}", lambda h, m: h + m / 60),
    "in French": ("{} h {:02}", lambda h, m: h + m / 60),
    "in Japanese": ("{}時{:02}分", lambda h, m: h + m / 60),
    "in words": ("{}h {}min", lambda h, m: h + m / 60),
    "of seconds": ("{}min {}s", lambda h, m: h / 60 + m / 3600),
    "of days": ("{} days {} h", lambda h, m: 24 * h + m),
}


@pytest.mark.parametrize(("form", "hours"), SPANS.values(), ids=SPANS)
def test_times_of_day_and_durations_are_read_as_they_are_written(form, hours):
    parts = [(h, m) for h in range(1, 13) for m in (0, 5, 17)]
    texts = [form.format(*part) for part in parts]
    notation = found(*texts).notation
    read = notation.read(texts)
    np.testing.assert_allclose(read / np.timedelta64(1, "h"), [hours(*part) for part in parts])
    assert notation.write(pd.Series(read)).tolist() == texts


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=2, unique=True),
    st.text("abcdefgäöß/°µ万", min_size=1, max_size=6).filter(lambda unit: unit[0] not in "°/"),
)
def test_properties_what_stands_behind_all_numbers_is_their_unit(tenths, unit):
    texts = [f"{t / 10:.1f} {unit}" for t in tenths]
    notation = found(*texts).notation
    np.testing.assert_array_equal(notation.read(texts), np.array(tenths) / 10)
    assert notation.write(pd.Series(tenths) / 10).tolist() == texts
    assert np.isnan(notation.read([f"1.5 {unit}z"])).all()  # another unit


OWN = {
    "parentheses": ["(1,234.50)", "2.25", "(3.00)"],
    "a minus behind": ["1.234,50-", "12,00"],
    "powers": ["1.2M", "350K", "1.5K"],
    "powers and units": ["1,2 млн руб.", "850 тыс. руб.", "3 млн руб."],
    "Arabic digits": ["١٬٢٣٤٫٥ ج.م", "٣٧٫٢ ج.م"],
    "Arabic dates": ["٢٤ يناير ٢٠٢٨", "٥ مايو ٢٠٢٤"],
    "weekdays": ["пн, 24 января 2028 г.", "вс, 5 мая 2024 г."],
    "weekdays behind": ["2028.01.24(월)", "2024.05.05(일)"],
    "halves before": ["2028-01-24 오전 9:30", "2024-05-05 오후 12:05"],
    "halves in small letters": [f"{h}:{m} pm" for h in (1, 9, 12) for m in range(10, 20)],
    "ages": [*(f"{k} lat" for k in range(1, 20)), "3 mies.", "11 mies."],
    "lakhs": ["₹12,34,567", "₹345"],
    "whole euros": ["€ 2.345,-", "€ 12,-"],
}


@pytest.mark.parametrize("texts", OWN.values(), ids=OWN)
def test_properties_what_was_read_is_written_as_it_was(texts):
    notation = found(*texts).notation
    written = notation.write(pd.Series(notation.read(texts)))
    assert written.tolist() == texts


def test_the_other_columns_of_a_table_settle_a_mark_and_an_order():
    days = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(N) % 40, "D")
    either = pd.DataFrame(
        {
            "n": [f"{k % 90 + 1},{k % 7}00" for k in range(N)],
            "day": [f"{k % 12 + 1:02}/{k % 5 + 1:02}/2024" for k in range(N)],
        }
    )
    marks = {"1.5": days.strftime("%m/%d/%Y"), "1,5": days.strftime("%d/%m/%Y")}
    for k, (number, order) in enumerate(marks.items()):
        others = either.assign(other=[f"{number} kg", f"{number}5 kg"] * (N // 2), start=order)
        with pytest.warns(UserWarning, match="as other columns are"):
            n, day, *_ = TableEncoder.fit(others).schema
        assert (n.notation.decimal, day.notation.day_first) == [(".", False), (",", True)][k]
    with pytest.warns(UserWarning, match="could be"):  # they disagree
        n, *_ = TableEncoder.fit(either.assign(p="1.5 kg", q="1,5 kg")).schema
    assert n.notation is None


def test_other_text_stays_text():
    for texts in TEXT.values():
        reading = found(*texts)
        assert reading.notation is None
        assert not reading.refusal.reason


@pytest.mark.parametrize("texts", EITHER.values(), ids=EITHER)
def test_what_could_be_either_is_noted_and_not_guessed(texts):
    reading = found(*texts)
    assert reading.notation is None
    assert reading.refusal.reason


def test_an_option_says_which():
    assert found("1.234 €", asked="decimal-comma").notation.read(["1.234 €"]) == 1234
    assert found("1.234 €", asked="decimal-point").notation.read(["1.234 €"]) == 1.234
    days = ["01.02.2028"]
    assert found(*days, asked="day-first").notation.read(days) == np.datetime64("2028-02-01")
    assert found(*days, asked="month-first").notation.read(days) == np.datetime64("2028-01-02")
    assert found("12.5", asked="decimal-comma").notation is None


def test_a_number_with_another_unit_is_never_one_of_the_column(model):
    read = found("1.234,50 €", "0,20 €").notation.read
    texts = ["12,5", "12,5 EUR", "€ 12,5", "12,5 USD", "12,5 $", "12,5 %"]
    np.testing.assert_array_equal(read(texts), [12.5] * 3 + [np.nan] * 3)
    assert np.isnan(found("12,5", "3,75").notation.read(["4 %", "4 €"])).all()
    assert np.isnan(found("12 €", "3 €").notation.read(["4 $"])).all()
    bare = model.score_samples(WRITTEN[:1].assign(amount="9.999.999,00"))
    assert model.score_samples(WRITTEN[:1].assign(amount="9.999.999,00 €")) == bare


CELLS = [
    ("amount", "9.999,00 $", "got '9.999,00 \\$', which is in \\$, not in €"),
    ("rate", "12,5 €", "got '12,5 €', which is in €, not in %"),
    (
        "amount",
        "5067.14",
        "expected a number with a decimal comma, like '1.234,50 €', got '5067.14'",
    ),
    ("start", "1/24/2025", "expected a date like '24.01.2028', got '1/24/2025'"),
]


@pytest.mark.parametrize(("column", "cell", "words"), CELLS)
def test_a_cell_in_no_known_notation_is_named(model, column, cell, words):
    bad = WRITTEN.assign(**{column: cell})
    with pytest.raises(ValueError, match=f"column '{column}': .*{words}"):
        model.encoder_.transform(bad)
    with pytest.warns(UserWarning, match=f"unreadable cells .*'{column}' {re.escape(repr(cell))}"):
        scores = model.score_samples(bad)
    gap = WRITTEN.assign(**{column: None})
    np.testing.assert_array_equal(scores, model.score_samples(gap))
    missing = model.score_samples(WRITTEN.assign(amount="n/a"))
    np.testing.assert_array_equal(missing, model.score_samples(WRITTEN.assign(amount=None)))


def test_a_mark_that_was_never_seen_is_not_guessed_later():
    notation = found("850 €", "12 €").notation
    read = notation.read(["1 234 €", "1.234 €", "12,50 €"])
    np.testing.assert_array_equal(read, [1234, np.nan, np.nan])


@given(
    st.lists(st.integers(-(10**8), 10**8), min_size=1),
    st.sampled_from([(".", ","), (",", "."), (",", ""), (".", "'"), (",", " ")]),
    st.sampled_from(["", " €", "%"]),
)
def test_properties_what_is_written_is_read(cents, marks, suffix):
    decimal, grouping = marks
    notation = NumberNotation(decimal=decimal, grouping=grouping, suffix=suffix, places=2)
    numbers = np.array(cents) / 100
    texts = notation.write(pd.Series(numbers)).tolist()
    np.testing.assert_array_equal(notation.read(texts), numbers)
    np.testing.assert_array_equal([notation.read([text, "x"])[0] for text in texts], numbers)
    for space in "\u00a0\u202f":  # whichever space there is
        other = [text.replace(" ", space) for text in texts]
        np.testing.assert_array_equal(notation.read(other), numbers)


# -- tables ---------------------------------------------------------------------------------------

N = 300
RNG = np.random.default_rng(0)
TRUE = pd.DataFrame(
    {
        "amount": np.exp(RNG.normal(8, 1, N)).round(2),
        "rate": RNG.choice([3.9, 4.9, 12.5], N),
        "start": pd.Timestamp("2025-01-01") + pd.to_timedelta(RNG.integers(0, 330, N), "D"),
        "branch": RNG.choice(["x", "y"], N),
    }
)
GERMAN = NumberNotation(decimal=",", grouping=".", suffix=" €", places=2)


def as_text(table):
    text = pd.DataFrame({"amount": GERMAN.write(table["amount"])}, index=table.index)
    text["rate"] = [f"{v} %".replace(".", ",") for v in table["rate"]]
    iso = np.arange(len(table)) % 10 == 0
    text["start"] = table["start"].dt.strftime("%d.%m.%Y")
    text.loc[iso, "start"] = table["start"][iso].dt.strftime("%Y-%m-%d")
    text["branch"] = table["branch"]
    return text.astype("str")


WRITTEN = as_text(TRUE)


@pytest.fixture(scope="module")
def model():
    return DiffusionDensity(denoiser="tree", random_state=0).fit(WRITTEN)


READ = {
    "text": WRITTEN,
    "objects": WRITTEN.astype(object),
    "arrow": WRITTEN.convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.from_pandas(WRITTEN),
}


@pytest.mark.parametrize("frame", READ.values(), ids=READ)
def test_properties_a_table_and_what_it_writes_have_one_model(frame, model):
    clean = DiffusionDensity(denoiser="tree", random_state=0).fit(TRUE)
    own = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    kinds = ["continuous", "ordinal", "continuous", "nominal"]
    assert [c.kind for c in own.encoder_.schema] == kinds
    assert [c.codec for c in own.encoder_.schema] == [c.codec for c in clean.encoder_.schema]
    nats = clean.score_samples(TRUE)
    for table in (frame, TRUE):
        np.testing.assert_array_equal(own.score_samples(table), nats)
    np.testing.assert_array_equal(own.score_samples(frame[:2]), clean.score_samples(TRUE[:2]))
    np.testing.assert_allclose(model.score_samples(frame), nats, rtol=1e-6)


def test_rows_are_numbers_and_times_and_tables_given_back_are_text(model, tmp_path):
    rows = model.rows(WRITTEN)
    pd.testing.assert_frame_equal(
        rows.frame[["amount", "start"]], TRUE[["amount", "start"]], check_dtype=False
    )
    drawn = model.sample(20, random_state=0)
    assert drawn["amount"].str.endswith(" €").all()
    assert drawn["start"].str.match(r"\d\d\.\d\d\.\d{4}$").all()
    assert list(drawn.dtypes) == list(WRITTEN.dtypes)
    assert np.isfinite(model.score_samples(drawn)).all()
    gaps = WRITTEN.assign(amount=WRITTEN["amount"].where(np.arange(N) > 3))
    filled = model.impute(gaps)
    pd.testing.assert_frame_equal(filled[4:], WRITTEN[4:])
    assert filled["amount"][:4].str.endswith(" €").all()
    clean = model.impute(TRUE.assign(amount=TRUE["amount"].where(np.arange(N) > 3)))
    np.testing.assert_array_equal(GERMAN.read(filled["amount"][:4].tolist()), clean["amount"][:4])
    given_one = model.sample(2, random_state=0, given={"amount": "5.067,14 €"})
    assert given_one["amount"].tolist() == ["5.067,14 €"] * 2
    model.save(tmp_path / "m.safetensors")
    again = DiffusionDensity.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.score_samples(WRITTEN), model.score_samples(WRITTEN))
    described = again.encoder_.describe().set_index("column")["read"]
    assert described["start"] == "dates like '24.01.2028'"
    assert described["amount"] == "numbers with a decimal comma, like '1.234,50 €'"
    assert not described["branch"]


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA], ids=repr)
@pytest.mark.parametrize("column", ["amount", "rate", "start"])
def test_properties_a_filled_cell_is_written_alike_whatever_the_other_rows(model, column, gap):
    alone = model.impute(WRITTEN[:1].assign(**{column: gap}))
    some = WRITTEN[:3].astype(object)
    some.loc[0, column] = gap
    among = model.impute(some)
    assert isinstance(alone[column][0], str)
    assert alone[column][0] == among[column][0]
    clean = model.impute(TRUE[:3].assign(**{column: TRUE[column][1:3]}))
    assert clean[column].dtype == TRUE[column].dtype  # a cleaned table stays clean


PLAIN = pd.DataFrame(
    {
        "area": RNG.normal(100, 20, N).round(1),
        "single": RNG.normal(100, 20, N).round(1).astype("float32"),
        "count": RNG.integers(0, 10**6, N),
        "day": pd.Timestamp("2025-01-01") + pd.to_timedelta(RNG.integers(0, 330, N), "D"),
        "zoned": pd.Timestamp("2025-01-01", tz="Europe/Paris")
        + pd.to_timedelta(RNG.integers(0, 10**6, N), "s"),
        "fine": pd.to_datetime(RNG.integers(10**18, 10**18 + 10**15, N)),
        "took": pd.to_timedelta(RNG.integers(0, 10**6, N), "s"),
        "rooms": RNG.integers(1, 6, N),
        "rate": RNG.choice([3.9, 4.9, 12.5], N),
        "gaps": np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(0, 5, N)),
        "city": RNG.choice(["x", "y"], N),
    }
)


@pytest.fixture(scope="module")
def of_numbers():
    return DiffusionDensity(denoiser="tree", random_state=0).fit(PLAIN)


@pytest.mark.parametrize("form", ["str", "object", "arrow", "words for gaps"])
def test_properties_text_of_numbers_and_times_is_these(of_numbers, form):
    text = PLAIN.astype("str")
    if form == "arrow":
        text = text.convert_dtypes(dtype_backend="pyarrow")
    elif form != "str":
        text = text.astype(object)
    if form == "words for gaps":
        text["gaps"] = text["gaps"].fillna("nan")
    nats = of_numbers.score_samples(PLAIN)
    np.testing.assert_array_equal(of_numbers.score_samples(text), nats)
    np.testing.assert_array_equal(of_numbers.score_samples(text[:1]), nats[:1])  # cell by cell
    mixed = PLAIN.astype(object)
    mixed[::2] = text[::2].astype(object)
    np.testing.assert_array_equal(of_numbers.score_samples(mixed), nats)
    frame = of_numbers.rows(text).frame
    numbers = PLAIN.columns.drop(["rooms", "rate", "gaps", "city"])
    pd.testing.assert_frame_equal(frame[numbers], PLAIN[numbers])


def test_a_text_column_of_numbers_is_filled_with_text_of_them(of_numbers):
    for column in PLAIN.columns.drop("gaps"):
        table, gap = PLAIN[:6].assign(gaps=1), np.arange(6) < 3
        text = table.astype("str")
        filled = of_numbers.impute(text.assign(**{column: text[column].mask(gap)}))
        pd.testing.assert_frame_equal(filled[3:], text[3:])
        assert filled[column].map(type).eq(str).all()
        own = of_numbers.impute(table.assign(**{column: table[column].mask(gap)}))
        np.testing.assert_array_equal(
            of_numbers.score_samples(filled), of_numbers.score_samples(own)
        )


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("area", "5.067,14 €", "expected numbers, got '5.067,14 €'"),
        ("count", "1_000", "expected numbers, got '1_000'"),
        ("day", "24.01.2028", "expected ISO dates or times, like 2024-01-31, got '24.01.2028'"),
        ("took", "5", "expected durations, like 1 days 02:00:00, got '5'"),
    ],
)
def test_other_text_among_numbers_is_named(of_numbers, column, cell, words):
    for n in (2, N):
        bad = PLAIN[:n].assign(**{column: cell})
        with pytest.raises(ValueError, match=f"column '{column}': {words}"):
            of_numbers.encoder_.transform(bad)
        with pytest.warns(UserWarning, match=f"unreadable cells .*'{column}'"):
            assert np.isfinite(of_numbers.score_samples(bad)).all()
    with pytest.raises(ValueError, match="column 'area': contains infinity"):
        of_numbers.score_samples(PLAIN[:2].assign(area="inf"))


WHOLE = {
    "integers": [3, 0, -4, 12],
    "floats": [3.0, 0.0, -4.0, 12.0],
    "text": ["3", "0", "-4", "12"],
    "text of floats": ["3.0", "0.0", "-4.0", "12.0"],
    "mixed": [3, "0", -4.0, "12"],
}


@pytest.mark.parametrize("new", WHOLE)
@pytest.mark.parametrize("fitted", ["integers", "floats", "text", "mixed"])
def test_properties_equal_whole_numbers_are_equal_cells(fitted, new):
    frame, given = (pd.DataFrame({"a": pd.Series(WHOLE[k] * 5)}) for k in (fitted, new))
    encoder = TableEncoder.fit(frame)
    assert encoder.schema[0].categories
    np.testing.assert_array_equal(encoder.transform(given).x, encoder.transform(frame).x)
    np.testing.assert_array_equal(encoder.transform(given[:2]).x, encoder.transform(frame[:2]).x)


def test_codes_are_no_numbers_and_integers_beyond_floats_differ():
    for fitted, cells, levels in (
        (["01067", "1067"], [1067, 1], [2, 2]),
        (["67", "1"], ["067", "1.0"], [2, 0]),
        (["67", "1"], [67, 1, 0], [1, 0, 2]),
        ([2**53, 2**53 + 1], [str(2**53), str(2**53 + 1)], [0, 1]),
    ):
        encoder = TableEncoder.fit(pd.DataFrame({"a": fitted * 9}))
        assert encoder.transform(pd.DataFrame({"a": cells})).x[:, 0].tolist() == levels


HALVES = [i + 0.125 for i in range(200)]
DAYS = list(pd.date_range("2024-01-01", periods=200))
MIXED = {
    "three decimals": (HALVES, "7.125", 7.125, None),
    "a decimal comma": (HALVES, "7,5", 7.5, "decimal-comma"),
    "money": (HALVES, "7.50 €", 7.5, None),
    "a word for a gap": (HALVES, "NA", None, None),
    "times": (DAYS, "2024-01-05 12:00", pd.Timestamp("2024-01-05 12:00"), None),
}


@pytest.mark.filterwarnings("ignore:1 unreadable", "ignore:.*taken as missing")
@pytest.mark.parametrize(("cells", "text", "value", "spec"), MIXED.values(), ids=MIXED)
def test_properties_text_among_numbers_and_times_is_read_as_these(cells, text, value, spec):
    """The column is that of the values, in which the unreadable cell is missing."""
    mixed = pd.DataFrame({"a": pd.Series([*cells, text, "#REF!"], dtype=object)})
    clean = pd.DataFrame({"a": pd.Series([*cells, value, None], dtype=object).infer_objects()})
    encoder, own = (TableEncoder.fit(frame, {"a": spec}) for frame in (mixed, clean))
    assert encoder.schema[0].codec == own.schema[0].codec
    assert encoder.schema[0].n_missing == own.schema[0].n_missing
    np.testing.assert_array_equal(encoder.readable(mixed)[0].x, own.transform(clean).x)
    x = np.full((1, len(encoder.owner)), 0.1)
    assert encoder.inverse_transform(x)["a"].dtype == own.inverse_transform(x)["a"].dtype


def test_properties_parts_of_a_stream_are_read_as_the_whole(model):
    parts = [WRITTEN[:100], WRITTEN[100:230], WRITTEN[230:]]
    encoder = TableEncoder.fit(in_memory(parts, 0))
    assert [c.codec for c in encoder.schema] == [c.codec for c in model.encoder_.schema]
    assert [c.notation for c in encoder.schema] == [c.notation for c in model.encoder_.schema]


def note_of(values, **options):
    frame = pd.DataFrame({"a": pd.Series(values, dtype="str")})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        encoder = TableEncoder.fit(frame, **options)
    return encoder.schema[0], [str(w.message) for w in said]


EITHER_DAYS, FIVES = ["01.02.2025", "03.04.2025"] * 50, [f"{i},5" for i in range(99)]
NOTES = {
    "ambiguous": (EITHER_DAYS, None, "nominal", "column_types={'a': {'notation': 'day-first'}}"),
    "thousands of money": (["$0", "$7,298", "$27,828"] * 50, None, "ordinal", None),
    "either of money": (["$7,298", "$27,828"] * 50, None, "nominal", "could be decimal or of thousands"),
    "asked": (EITHER_DAYS, "day-first", "continuous", None),
    "an error": ([*FIVES, "?"], None, "continuous", "1 unreadable cell taken as missing, as all others"),
    "two errors": ([*FIVES, "?", "!"], None, "nominal", "numbers, but for text like '!'"),
    "an error among dates": (["24.01.2025", "1.2.2025"] * 50 + ["?"], None, "continuous", "'a' '?'"),
    "an error among either": ([*EITHER_DAYS, "?"], None, "nominal", "could be either"),
    "another order": (["24.01.2025", "1.2.2025"] * 50 + ["01.24.2025"], None, "continuous", "'01.24.2025'"),
    "both orders": ([*EITHER_DAYS, "24.01.2025", "01.24.2025"], None, "nominal", "could be either"),
    "two units": (["3 €", "4 $"] * 50, None, "nominal", "'3 €' and '4 $'; make its cells alike, or say"),
    "another unit": (["3 €", "4,5 €"] * 50 + ["4 $"], None, "ordinal", "'a' '4 $'"),
    "a code": ([*FIVES, "007"], None, "nominal", "numbers, but for '007'"),
    "an error among whole numbers": ([*map(str, range(150)), "#REF!"], None, "continuous", "'a' '#REF!'"),
    "errors of spreadsheets": ([*FIVES, *["#REF!", "#DIV/0!"] * 2], None, "continuous", "'#DIV/0!', '#REF!' (4 cells)"),
    "about": ([*FIVES, "~3,5", "~4,5"], None, "continuous", "'~3,5', '~4,5' (2 cells) taken as the numbers"),
    "no date": (["24.01.2025", "1.2.2025"] * 50 + ["31.12.9999"], None, "continuous", "(1 cell) taken as missing"),
    "a code of whole numbers": ([*map(str, range(150)), "007"], None, "nominal", None),
    "a gap": ([*FIVES, "NA"], None, "continuous", "'NA' (1 cell) taken as missing, as all others are numbers"),
    "text": (["24.01.2025", "1.2.2025"] * 50, "nominal", "nominal", None),
    "whole": ([str(i) for i in range(200)], "continuous", "continuous", None),
    "any unit": ([f"{i}.5 F" for i in range(40)] * 2, None, "continuous", None),
    "several units": ([f"{i}.5 {'FC'[i % 2]}" for i in range(40)] * 2, None, "nominal", "'0.5 F' and '1.5 C'"),
    "bounds": ([*FIVES, "<3,5", "<3,5"], None, "continuous", "'<3,5' (2 cells) taken as the numbers that"),
    "few durations": (["1 h 20 min", "45 min", "2 h"] * 30, None, "nominal", None),
    "times of day": ([f"{i % 12 + 1}:0{i % 7} PM" for i in range(84)], None, "continuous", None),
    "a word that is not rare": ([*FIVES, *["Fel"] * 40], None, "continuous", "numbers; if 'Fel' means something"),
    "words that are not rare": ([*FIVES, *["Fel", "a"] * 9], None, "continuous", "'Fel', 'a' (18 cells) taken as"),
    "a word among few numbers": (["1,5", "2,5", "Fel"] * 40, None, "nominal", "numbers, but for 'Fel'"),
    "seats": ([f"{i}{s}" for i in range(40) for s in "AF"], None, "nominal", None),
    "streets": ([f"Street {i}" for i in range(40)] * 2, None, "nominal", None),
    "truth values and a word": (["True", "False"] * 150 + ["?"], None, "nominal", "truth values, but for '?'"),
}  # fmt: skip


def test_a_note_names_the_parameter():
    for values, spec, kind, note in NOTES.values():
        column, said = note_of(values, columns={"a": spec})
        assert column.kind == kind
        assert len(said) == (note is not None)
        assert note is None or note in said[0]
        with pytest.raises(
            ValueError, match="column 'a': continuous needs numbers or dates, got 'x'"
        ):
            note_of(["1", "x", "x"], columns={"a": "continuous"})


def test_a_placeholder_among_dates_is_noted():
    cells = [*TRUE["start"].dt.strftime("%d.%m.%Y"), *["00.00.0000"] * 60]
    column, said = note_of(cells)
    assert column.kind == "continuous"
    assert "'00.00.0000' (60 cells) taken as missing, as all others are dates" in said[0]
    with from_shell():
        assert "say that it is text with --column a=nominal" in note_of(cells)[1][0]
        assert "give --csv 'na=-  -' where" in note_of(["7,5", "3,25", "-  -"] * 50)[1][0]
    assert "but for 'k.A.'" in note_of(["7,5", "3,25", "k.A."] * 50)[1][0]
    assert not note_of(["2", "4", "more"] * 50)[1]  # categories


@pytest.mark.parametrize("as_type", [float, "str", "Int64"])
def test_properties_a_number_far_from_all_others_that_repeats_is_a_gap(as_type):
    cells = [*range(40), *[-9999] * 6]
    frame = pd.DataFrame({"a": pd.Series(cells).astype(as_type), "b": ["x", "y"] * 23})
    spec = {"a": "continuous"} if as_type == "str" else None
    clean = frame.assign(a=frame["a"].mask(pd.Series(cells) < 0, None))
    if spec is None:
        with pytest.warns(UserWarning, match=r"column 'a': -9999 \(6 cells\) taken as missing"):
            encoder = TableEncoder.fit(frame)
        own = TableEncoder.fit(clean)
        assert encoder.schema[0].codec == own.schema[0].codec
        np.testing.assert_array_equal(encoder.transform(frame).x, own.transform(clean).x)
        assert np.isnan(encoder.transform(frame.astype(str)).x[-1, 0])
        five = pd.DataFrame({"a": [*range(40), *[-9999] * 4]})  # no more than four may be errors
        assert TableEncoder.fit(five).schema[0].n_missing == 0
        assert not TableEncoder.fit(frame.assign(a=frame["a"].astype(float) + 0.4)).schema[0].codes
    else:  # as the user says
        assert TableEncoder.fit(frame, spec).schema[0].n_missing == 0


def test_a_notation_survives_json():
    encoder = TableEncoder.fit(WRITTEN)
    data, tensors = flatten(encoder)
    again = unflatten(TableEncoder, (json.loads(json.dumps(data)), tensors))
    assert again.schema == encoder.schema
    data["schema"][0]["notation"]["decimal"] = "!"
    with pytest.raises(ValueError, match=r"schema\.0\.notation: decimal"):
        unflatten(TableEncoder, (data, tensors))
