"""The contract of readers: one of them takes a column, all others refuse it; what was done to cells is described."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd.encoders import TableEncoder
from discrete_itd.reading.columns import READERS
from discrete_itd.reading.notation import Notation, Refusal
from discrete_itd.reading.numbers import NumberNotation
from discrete_itd.reading.times import DateNotation, DurationNotation

DAYS = pd.Series(pd.Timestamp("2024-01-05") + pd.to_timedelta(np.arange(40), "D"))
HALVES = pd.Series(np.arange(40) * 12.5 + 1000.25)
NOTATIONS = [
    NumberNotation(decimal=",", grouping=".", suffix=" €", places=2),
    NumberNotation(prefix="$", grouping=",", negative="({})", places=2),
    DateNotation(day_first=True, format="%d.%m.%Y"),
    DateNotation(format="%Y-%m-%d %H:%M"),
    DurationNotation(format="{H} h {M:02}"),
]


@pytest.mark.parametrize("notation", NOTATIONS, ids=lambda notation: notation.example)
def test_properties_one_reader_takes_what_a_notation_writes_and_the_others_refuse_it(notation):
    values = {"number": HALVES, "datetime": DAYS, "timedelta": DAYS - DAYS[0] + pd.Timedelta("1h")}
    texts = notation.write(values[notation.family]).tolist()
    answers = {r: r.take(texts, np.ones(len(texts), int), None, plain=False) for r in READERS}
    taken = [r for r, answer in answers.items() if isinstance(answer, Notation)]
    assert taken == [type(notation)]
    assert all(isinstance(answers[r], Refusal) for r in READERS if r not in taken)
    again = answers[type(notation)]
    assert again.write(pd.Series(again.read(texts))).tolist() == texts


def test_what_was_done_to_cells_is_described():
    n = 400
    euros = [f"{k % 90},{k % 7}0 €" for k in range(n)]
    frame = pd.DataFrame({"euros": euros, "clean": np.arange(n) % 97 / 7, "word": ["x", "y"] * 200})
    frame.loc[:9, "euros"] = ["n/a", "n/s", "n/s", "n/s", "n/s", "<5,00 €", "about 3", *euros[:3]]
    frame["code"] = np.where(np.arange(n) < 6, -9999, np.arange(n) % 100)
    with pytest.warns(UserWarning, match="taken as"):
        read = TableEncoder.fit(frame).describe().set_index("column")["read"]
    done = (
        "numbers with a decimal comma, like '1234,50 €'; 'n/s' and 'n/a' taken as missing; 1 cell "
    )
    assert read["euros"].startswith(done)
    assert read["euros"].endswith("; 1 cell unreadable, taken as missing")
    assert "the bounds" in read["euros"]
    assert read["code"] == "-9999 taken as missing"
    assert not read[["clean", "word"]].any()


@pytest.mark.parametrize("others", [0.1, 0.4, 0.7])
def test_numbers_in_two_units_are_text_and_a_warning_names_both(others):
    rng = np.random.default_rng(0)
    is_other = np.arange(300) % 10 < 10 * others
    weight = [
        f"{w:.1f} {'lb' if lb else 'kg'}"
        for w, lb in zip(rng.normal(70, 9, 300), is_other, strict=True)
    ]
    with pytest.warns(
        UserWarning,
        match=r"'weight': .* different units, like '\d+\.\d (kg|lb)' and '\d+\.\d (?!\1)",
    ):
        column = TableEncoder.infer(pd.DataFrame({"weight": weight}), leave_out=True).schema[0]
    assert column.notation is None


def test_numbers_for_missing_cells_are_found_whatever_the_size_of_the_others():
    rng = np.random.default_rng(0)
    for scale in (1.0, 100.0, 1e5):
        amounts = rng.lognormal(0, 1, 400).round(3) * scale
        for code in (-9999.0, -999.0, -99.0, -88.0):
            cells = np.append(amounts, [code] * 6)
            with pytest.warns(UserWarning, match="apart from all others"):
                column = TableEncoder.infer(pd.DataFrame({"a": cells})).schema[0]
            assert column.codes == (code,)
        for kept in (
            np.append(amounts, [9999 * scale / 50] * 6),
            np.append(amounts, [-9999.0] * 4),
        ):
            assert not TableEncoder.infer(pd.DataFrame({"a": kept})).schema[0].codes
        signed = np.append(rng.normal(0, 5000, 400).round(), [-999.0] * 6)  # one of many negatives
        assert not TableEncoder.infer(pd.DataFrame({"a": signed})).schema[0].codes
