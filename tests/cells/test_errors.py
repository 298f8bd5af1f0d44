"""Wrong cells of a table: found, calibrated, and none of a right table, whatever its form."""

import itertools
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discrete_itd import find_errors, repair_errors
from discrete_itd.cells.counts import COUNT, DISCOUNTS, conditional, joined_codes
from discrete_itd.cells.spelling import misspellings
from discrete_itd.cells.views import MOST_CANDIDATES, _binned
from discrete_itd.datasets import load_car
from discrete_itd.encoders import TableEncoder
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision


def clean(n, seed=0):
    """Clients: the town is a function of the code, tariff and age depend on each other; ids, notes and dates."""
    random = np.random.default_rng(seed)
    code, old = random.integers(0, 12, n), random.random(n) < 0.4
    town = np.array(["Bonn", "Köln", "Ulm", "Trier"] * 3)[code]
    return pd.DataFrame(
        {
            "id": [f"K-{i:05d}" for i in range(n)],
            "code": code + 100,
            "town": [f"{t} {c}" for t, c in zip(town, code, strict=True)],
            "tariff": np.where(
                random.random(n) < 0.85, np.where(old, "pensioner", "basic rate"), "free"
            ),
            "age": np.where(old, random.normal(70, 5, n), random.normal(35, 8, n)).round(),
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 300, n), "D"),
            "gap": np.where(random.random(n) < 0.2, None, "x"),
        }
    )


def planted(frame, seed, share=0.02):
    """The table with wrong cells in the towns, tariffs and ages, and where they are."""
    random, out = np.random.default_rng(seed), frame.copy()
    wrong = np.zeros(frame.shape, bool)
    for name in sorted({"town", "tariff", "age"} & {*frame}):
        j = frame.columns.get_loc(name)
        for i in np.flatnonzero(random.random(len(frame)) < share):
            old = frame.iloc[i, j]
            others = [old * 10] if name == "age" else frame[name][frame[name] != old]
            out.iloc[i, j] = random.choice(others)
            wrong[i, j] = True
    return out, wrong


def as_array(found, frame):
    """The probabilities by row and column; 0 where a cell is not named."""
    out = np.zeros(frame.shape)
    out[frame.index.get_indexer(found["row"]), frame.columns.get_indexer(found["column"])] = found[
        "probability_wrong"
    ]
    return out


def words(*columns):
    """Codes of several columns as text."""
    return [[f"c{code}" for code in codes] for codes in columns]


# Right tables, each with the column into which values of other rows are planted, and the least share that is found.


def several_values(random):
    """Some counties have several towns, and a date one of two numbers."""
    county = np.sort(random.integers(0, 60, 1500))
    n_towns = np.where(county < 30, 1, county % 7 + 2)
    town = np.minimum(random.geometric(0.5, 1500), n_towns) + 10 * county
    day = np.arange(1500) % 150
    week = np.where((day > 30) & (random.random(1500) < 0.25), day - 1, day)
    frame = pd.DataFrame({"county": county, "town": town, "day": day, "week": week}).astype(str)
    return frame, "town", 0.25


def other_keys(random):
    """A postcode leaves two codes of its region open."""
    place = random.integers(0, 250, 2000)
    region, second = place // 10, random.random(2000) < 0.12
    code = 5 * region + np.where(second, (place + 1) % 5, place % 5)
    frame = pd.DataFrame(
        dict(zip(("place", "region", "code"), words(place, region, code), strict=True))
    )
    return frame, "code", 0.8


def two_keys(random):
    """Distances from seldom used airports to a town are as right as those from the others."""
    town, airport = random.integers(0, 20, 3000), random.choice(3, 3000, p=[0.84, 0.1, 0.06])
    frame = pd.DataFrame(dict(zip(("town", "airport"), words(town, airport), strict=True)))
    return frame.assign(distance=random.permutation(60)[3 * town + airport] + 100), "distance", 0.8


def telephones(random):
    """Numbers that never repeat are written as the country writes them."""
    country, digits = random.choice(["DE", "US"], 400), random.integers(1e6, 1e7, 400)
    pairs = zip(digits, country, strict=True)
    phone = [f"+49 {d}" if c == "DE" else f"({d % 1000}) {d}" for d, c in pairs]
    return pd.DataFrame({"country": country, "phone": phone}), "country", 0.9


def dissent(_):
    """Where a tenth of the rows of a key has another value, that is another right one."""
    frame = pd.DataFrame({"odor": ["none", "foul"] * 300, "class": ["edible", "poisonous"] * 300})
    frame.loc[0:60:2, "class"] = "poisonous"
    return frame, "class", 0.0


def near_names(random):
    """JAX is not LAX where the distance of Jacksonville stands beside it, however much rarer it is."""
    names = ["LAX", "JAX", "MCO", "MCI", "PINE", "FINE", "mulberry", "mulberra"]
    value = np.repeat(np.arange(8), [700, 4, 700, 30, 700, 155, 700, 4])
    frame = pd.DataFrame({"value": np.array(names)[value], "distance": 100 + 37 * value})
    return frame.assign(carrier=random.choice(["AA", "B6", "UA"], len(frame))), "value", 0.9


def rare_values(random):
    """A client or key without another row is none that is wrong."""
    frame = pd.DataFrame({"sex": random.choice(["M", "F"], 1200)})
    frame["client"] = [f"K{i}" for i in random.zipf(1.5, 1200)]
    frame["key"] = np.where(random.random(1200) < 0.5, "N/A", [f"A{i:04d}" for i in range(1200)])
    return frame, "sex", 0.0


def labels(_):
    """The class of cars follows from six columns; no other cell of the row is to blame."""
    return load_car(), "class", 0.3


RIGHT = [several_values, other_keys, two_keys, telephones, dissent, near_names, rare_values, labels]


@pytest.mark.parametrize("make", RIGHT, ids=lambda make: make.__name__)
def test_property_a_right_table_is_silent_and_what_is_named_of_a_wrong_one_is_wrong(make):
    random = np.random.default_rng(0)
    frame, column, least = make(random)
    assert len(find_errors(frame)) <= 0.0005 * frame.size
    rows = random.choice(len(frame), len(frame) // 50, replace=False)
    wrong, levels = frame.astype({column: object}), sorted(set(frame[column]))
    for i in rows:
        wrong.loc[i, column] = random.choice([v for v in levels if v != frame.at[i, column]])
    found = find_errors(wrong)
    named = set(found["row"])
    assert len(named - set(rows)) <= max(0.1 * len(named), 2)
    assert len(named & set(rows)) >= least * len(rows)
    assert least == 0 or column in set(found["column"])


def test_property_probabilities_are_shares_of_wrong_cells():
    """And a right table has hardly any."""
    p, wrong = [], []
    for seed in range(3 * TIMES):
        right = clean(600, seed)
        assert len(find_errors(right)) <= 2
        frame, is_wrong = planted(right, seed)
        p.append(as_array(find_errors(frame, min_probability=0.01), frame))
        wrong.append(is_wrong)
    p, wrong = np.concatenate(p).ravel(), np.concatenate(wrong).ravel()
    said = p >= 0.5
    assert wrong[said].sum() > 0.4 * wrong.sum()
    assert abs(p[said].mean() - wrong[said].mean()) < 0.1
    sure = p > 0.8
    assert wrong[sure].sum() >= 0.8 * sure.sum() - 0.8 * sure.sum() ** 0.5
    assert 0.4 * wrong.sum() < p.sum() < 1.3 * wrong.sum()  # a likely tariff cannot be wrong


def test_property_order_index_form_and_dtype_change_nothing():
    polars = pytest.importorskip("polars")
    frame, _ = planted(clean(200), 3)
    errors = find_errors(frame)
    assert (errors["expected_probability"] <= errors["probability_wrong"]).all()
    order = np.random.default_rng(0).permutation(len(frame))
    moved = frame.iloc[order, ::-1].set_axis([f"r{i}" for i in order])
    of_moved = find_errors(moved)
    again = as_array(of_moved, moved)[np.argsort(order), ::-1]
    np.testing.assert_allclose(again, as_array(errors, frame), atol=1e-9)
    ages, again = (f[f["column"] == "age"] for f in (errors, of_moved))
    assert sorted(ages["expected"]) == sorted(again["expected"])
    renamed = {name: f"tariff {i}" for i, name in enumerate(sorted(set(frame["tariff"])))}
    same = frame.assign(
        tariff=frame["tariff"].map(renamed), age=frame["age"].astype(int).astype(str)
    )
    for form in (same, polars.from_pandas(frame), frame.to_numpy()):
        found = find_errors(form)
        columns = found["column"].to_list()
        if form is not same and isinstance(form, np.ndarray):
            columns = [frame.columns[j] for j in columns]
        cells = sorted(zip(found["row"].to_list(), columns, strict=True))
        assert cells == sorted(zip(errors["row"], errors["column"], strict=True))


def test_of_two_cells_that_contradict_each_other_alone_each_is_wrong_with_one_half():
    frame = clean(300)[["code", "town"]]
    frame.loc[3, "town"] = frame["town"][frame["code"] != frame.at[3, "code"]].iloc[0]
    found = find_errors(frame, min_probability=0.01)
    assert found["probability_wrong"][:2].tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_property_typing_errors_are_found_where_all_other_values_are_frequent():
    frame, *_ = rare_values(np.random.default_rng(0))
    rows = np.arange(12) * 97
    frame.loc[rows, "sex"] = [chr(97 + i) for i in range(12)]
    found = find_errors(frame)
    assert set(zip(found["row"], found["column"], strict=True)) == {(i, "sex") for i in rows}


NUMBERS = {
    "even": lambda random: random.integers(0, 10**6, 20_000),
    "fractions": lambda random: random.uniform(0, 100, 2000).round(2),
    "tail": lambda random: random.exponential(4, 2000),
    "normal": lambda random: random.normal(45, 12, 1000).round(),
    "few": lambda random: random.poisson(3, 1000),
    "heaped": lambda random: np.append(
        random.poisson(20, 900).clip(1, 30) // 5 * 5, random.poisson(20, 100)
    ),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_property_a_number_four_ranges_beyond_all_others_is_wrong(kind):
    """As 400 hours a week; none is wrong without it, whether numbers are even, few, or heaped at multiples of five."""
    numbers = NUMBERS[kind](np.random.default_rng(0)).astype(float)
    frame = pd.DataFrame({"number": numbers})
    assert not len(find_errors(frame))
    if kind == "tail":
        return
    frame.loc[7, "number"] = numbers.max() + 4 * np.ptp(numbers)
    found = find_errors(frame)
    assert found["row"].tolist() == [7]
    assert found["probability_wrong"].item() > 0.9


def test_property_numbers_on_a_logarithmic_scale_are_judged_there():
    """A number near 0 is no outlier on a linear scale, but as much as its logarithm is one."""
    random = np.random.default_rng(0)
    logs = random.normal(size=1500)
    logs[7] = -10.0
    found = [
        find_errors(pd.DataFrame({"x": x}), min_probability=0.01) for x in (logs, np.exp(logs))
    ]
    assert found[0]["row"].iloc[0] == 7
    pd.testing.assert_series_equal(*(f["row"] for f in found))
    pd.testing.assert_series_equal(*(f["probability_wrong"] for f in found), atol=1e-6)


def test_property_a_decimal_point_is_moved_onto_the_lattice_of_a_column():
    """6 031 minutes in a column of whole ones are no 603.1, but 6 030 may be 603."""
    random = np.random.default_rng(0)
    for step in (1, 5, 0.1, 0.25):
        numbers = (random.normal(600, 40, 800) / step).round() * step
        for i, factor in enumerate((0.001, 0.1, 10, 100, 37.7)):
            numbers[i] = (round(numbers[i] * factor / step) + 3) * step
        found = find_errors(pd.DataFrame({"minutes": numbers}))
        assert set(found["row"]) <= set(range(5))
        assert len(found) > 2
        places = found["expected"].to_numpy(float) / step
        np.testing.assert_allclose(places, places.round(), atol=1e-6)


def test_property_a_decimal_point_is_moved_as_the_column_writes():
    for seed in range(TIMES):
        random = np.random.default_rng(seed)
        prices = random.lognormal(3, 0.3, 600).round(2)
        near = (prices * random.lognormal(0, 0.05, 600)).round(1)
        prices[:6] *= 100
        texts = [f"{price:.2f}" if i >= 6 else f"{price:.0f}" for i, price in enumerate(prices)]
        frame = pd.DataFrame({"price": texts, "near": near})
        point = find_errors(frame)
        point = point[point["column"] == "price"].sort_values("row")
        assert len(point) > 3
        assert point["expected"].notna().all()
        for mark, before, behind in ((",", "", ""), (",", "", " €"), (".", "$", "")):
            new = [f"{before}{text.replace('.', mark)}{behind}" for text in texts]
            found = find_errors(frame.assign(price=new))
            found = found[found["column"] == "price"].sort_values("row")
            assert found["row"].tolist() == point["row"].tolist()
            for expected, own in zip(found["expected"], point["expected"], strict=True):
                number = expected.removeprefix(before).removesuffix(behind)
                assert len(expected) == len(before + number + behind)
                assert float(number.replace(mark, ".")) == float(own)
                assert mark in number or float(own).is_integer()
            # another writing is another order of rows that are alike in "near"
            for name in ("expected_probability", "probability_wrong"):
                np.testing.assert_allclose(found[name], point[name], rtol=0.05)


def test_property_what_is_expected_is_another_value_and_right_once_it_is_there():
    n_repaired = 0
    for seed, kind in itertools.product(
        range(TIMES), ("swapped", "mistyped", "format", "notation")
    ):
        frame, random = clean(200, seed), np.random.default_rng(seed)
        rows = random.choice(200, 6, replace=False)
        if kind == "swapped":
            frame, _ = planted(frame, seed)
        elif kind == "mistyped":
            frame.loc[rows, "town"] = [f"{t[:2]}q{t[3:]}" for t in frame["town"][rows]]
            frame.loc[rows, "tariff"] = "pensoiner"
        elif kind == "format":
            frame.loc[rows, "id"] = [f"{i}" for i in rows]
        else:
            units = ["oz" if i in rows else "ounce" for i in range(200)]
            frame["age"] = [
                f"{age:.0f} {unit}" for age, unit in zip(frame["age"], units, strict=True)
            ]
        repaired, found = repair_errors(frame, min_probability=1e-9)
        value, expected = (found[name].astype(object) for name in ("value", "expected"))
        assert not (value.isna() & expected.isna() | (value == expected)).any()
        assert (found["expected_probability"][expected.isna()] == 0).all()
        cells = set(
            found.loc[found["repaired"], ["row", "column"]].itertuples(index=False, name=None)
        )
        n_repaired += len(cells)
        again = find_errors(repaired)[["row", "column"]].itertuples(index=False, name=None)
        assert not cells & set(again), kind
    assert n_repaired > 10 * TIMES


@pytest.mark.parametrize("word", ["n.a.", "?"])
def test_property_a_word_becomes_an_empty_cell_only_where_that_is_no_error(word):
    for seed in range(TIMES):
        random = np.random.default_rng(seed)
        key = np.append(np.arange(40).repeat(2), random.integers(0, 40, 400))
        sizes, days = random.integers(100, 900, 40), np.arange(40) * 9
        dates = (pd.Timestamp("2023-01-01") + pd.to_timedelta(days, "D")).strftime("%d.%m.%Y")
        frame = pd.DataFrame({"key": key, "size": sizes[key], "day": dates[key]}, dtype=object)
        is_empty = key < 10  # these keys have neither
        for column in ("size", "day"):  # the others have nine of ten
            frame.loc[is_empty | (random.random(len(key)) < 0.1), column] = None
        for column in ("size", "day"):
            frame.loc[random.choice(np.flatnonzero(is_empty), 2, replace=False), column] = word
            frame.loc[random.choice(np.flatnonzero(~is_empty), 2, replace=False), column] = word
        found = find_errors(frame)
        words = found[found["value"] == word]
        assert len(words) == 8
        is_gap = words["expected"].isna() & (words["expected_probability"] > 0)
        np.testing.assert_array_equal(is_gap, is_empty[words["row"].to_numpy(int)])
        assert repair_errors(frame).cells["repaired"].sum() >= 4


def test_missing_and_unreadable_cells_and_lost_characters():
    frame = clean(400).astype({"age": object})
    frame.loc[3, "town"] = None
    frame.loc[7, "age"] = "#REF!"
    frame.loc[9, "id"] = "K-\ufffd0009"
    misspelt = frame.index[frame["tariff"] == "pensioner"][5]
    frame.loc[misspelt, "tariff"] = "pensoiner"
    cells = set(zip(*find_errors(frame)[["row", "column"]].to_numpy().T, strict=True))
    assert cells >= {(3, "town"), (7, "age"), (9, "id"), (misspelt, "tariff")}
    assert not [cell for cell in cells if cell[1] == "gap"]


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5])
@pytest.mark.parametrize("signs", [("£{}", "€{}"), ("{} EUR", "{} USD"), ("${}", "CHF {}")])
def test_property_the_currency_of_an_amount_is_no_matter_of_notation(signs, share):
    random = np.random.default_rng(0)
    amounts = np.exp(random.normal(5, 1, 400)).round(2)
    which = (random.random(400) < share).astype(int)
    cells = [signs[i].format(f"{x:,.2f}") for i, x in zip(which, amounts, strict=True)]
    frame = pd.DataFrame({"amount": cells, "shop": random.choice(["a", "b"], 400)})
    repaired, found = repair_errors(frame)
    assert not len(found[found["column"] == "amount"])
    pd.testing.assert_frame_equal(repaired, frame)


def numbers(n=200):
    return np.random.default_rng(0).integers(10, 90, n)


@pytest.mark.parametrize(
    ("cells", "wrong", "expected"),
    [
        ([f"{x} ounce" if i < 9 else f"{x} oz" for i, x in enumerate(numbers())], range(9), "{} oz"),
        ([f"{x}.0 {('oz', 'oz.', 'OZ')[i % 3]}" for i, x in enumerate(numbers())], range(200), "{}"),
        ([f"{x}%" if i < 40 else str(x) for i, x in enumerate(numbers())], range(40), "{}"),
        ([f"{x},500.25 kg" if i < 9 else f"{x}500.25" for i, x in enumerate(numbers())], range(9), "{}500.25"),
        (["N/A" if i < 30 else str(x) for i, x in enumerate(numbers())], range(30), None),
        ([999 if i < 8 else x for i, x in enumerate(numbers())], range(8), None),
        ([np.inf if i < 2 else x for i, x in enumerate(numbers())], range(2), None),
        ([None if i < 8 else "-1" if i < 99 else str(x) for i, x in enumerate(numbers())], range(8), "-1"),
        (["?"] * 3 + [None] * 30 + ["a", "b"] * 80, range(3), None),
        ([f"3/{x % 9 + 13}/24" if i < 9 else f"{x % 28 + 1}.3.2024" for i, x in enumerate(numbers())], range(9), None),
        ([f"2024-03-{x % 9 + 13}" if i < 9 else f"{x % 9 + 13}/03/2024" for i, x in enumerate(numbers())],
         range(9), None),
        ([f"2024-03-{x % 9 + 13}" if i < 9 else f"{x % 9 + 13}.03.2024" for i, x in enumerate(numbers())],
         range(9), None),
        (["12.03.2024"] * 2 + [f"2024-03-{x % 19 + 10}" for x in numbers()], [0, 1], "2024-03-12"),
        (["Ã¼ber"] + ["über"] * 30, [0], "über"),
        (["caf\u0329e", "a\x07b"] + [f"text {x}" for x in numbers()], [0, 1], None),
        (["R&amp;D", "Ward&#39;s", "O''Hara"] + ["R&D", "Ward's", "O'Hara"] * 20, range(3), None),
        ([f"{x}7" if i < 9 else f"0{x}7" if i < 30 else f"5{x}7" for i, x in enumerate(numbers())], range(9), "0{}7"),
        (["2001 2002", "19_7"] + [str(1900 + x) for x in numbers()], [0, 1], None),
        (["lost_and_found", "k00917"] + [f"K00{x}9" for x in numbers()], [0, 1], None),
        (["3/07/2024", "03/007/2024", "03/08/202", "03/0x/2024"]
         + [f"0{x % 9 + 1}/{x % 18 + 10}/20{x}" for x in numbers()], range(4), None),
    ],
    ids=["unit", "units", "share", "marked", "word", "code", "inf", "empty", "gaps", "few", "order", "points", "day",
         "bytes", "marks", "escapes", "zeros", "years", "keys", "dates"],
)  # fmt: skip
def test_cells_that_are_not_written_as_their_column_writes(cells, wrong, expected):
    found = find_errors(pd.DataFrame({"a": cells}))
    assert set(found["row"]) == set(wrong)
    for row, value in zip(found["row"], found["expected"], strict=True):
        if expected is not None:
            assert value == expected.format(numbers()[row])


@pytest.mark.parametrize("n_words", [1, 3, 30, 90, 117, 119])
def test_property_a_word_for_a_gap_is_wrong_where_nearly_all_gaps_are_empty_or_the_reverse(n_words):
    gaps = np.repeat(["Unknown", None], [n_words, 120 - n_words])
    found = find_errors(pd.DataFrame({"a": [*gaps, *["a", "b"] * 80]}))
    rarer = "Unknown" if n_words < 60 else None  # of more of these, another meaning is likely
    wrong = np.flatnonzero(gaps == rarer) if min(n_words, 120 - n_words) <= 12 else []
    assert sorted(found["row"]) == list(wrong)


def test_notations_with_a_meaning_are_no_errors():
    places = list(enumerate(numbers()))
    frame = pd.DataFrame(
        {
            "unit": [f"{x} kg" for _, x in places],
            "age": [f"{x} {('years', 'months')[i % 2]}" for i, x in places],
            "rarely months": [f"{x} {('years', 'mths.')[i % 20 == 0]}" for i, x in places],
            "groups": [f"{x} {100 + i} kr." if i % 20 else f"{100 + i} kr." for i, x in places],
            "areas": [f"{x} m²" if i % 20 else f"{x}-{x + 5} m²" for i, x in places],
            "powers": [f"{x}K" if i % 20 else f"0.0{x}M" for i, x in places],
            "seat": [f"{x}{'ABCD'[i % 4]}" for i, x in places],
            "code": [f"{'AB'[i % 2]}{x}" for i, x in places],
            "range": [f"{x}-{x + 5}" for _, x in places],
            "length": [f"{x} m" if x > 40 else f"{100 * x} mm" for _, x in places],
            "bound": [(f"<{x}", f"{x}")[i % 2] for i, x in places],
            "bonus": [f"{x}" if i % 5 == 0 else "-" for i, x in places],
            "word": [("none", "yes")[i % 2] for i, _ in places],
            "negative": [x if i % 3 else -1 - x for i, x in places],
            "remark": [f"{('転院希望', '家族', 'アレ ')[i % 3]}{x}" for i, x in places],
            "numbered": [f"Room {x if i % 30 else x // 10}" for i, x in places],
            "letter": [f"0{x}C" if i % 9 else f"0{x}" for i, x in places],
            "place": [f"(41.0{x}17, -8.{x if i % 30 else x // 10})" for i, x in places],
            "long": [f"00{x}" if i % 9 else f"0{x}" for i, x in places],
            "name": [f"{('Ann', 'Bo', 'Marianne', 'Jo-An')[i % 4]} {x}" for i, x in places],
        }
    )
    for name in frame:
        assert not len(find_errors(frame[[name]])), name


@pytest.mark.parametrize("is_structured", [True, False])
def test_property_a_missing_cell_is_right_where_keys_lack_any_number_of_values(is_structured):
    for seed in range(TIMES):
        random = np.random.default_rng(seed)
        key, town = np.arange(400).repeat(8), random.integers(0, 30, 400)
        share = random.random(400) * (random.random(400) < 0.3) if is_structured else 0.03
        frame = pd.DataFrame({"key": key, "town": [f"town {i}" for i in town[key]]})
        is_gap = random.random(3200) < np.broadcast_to(share, 400)[key]
        found = find_errors(frame.mask(np.column_stack([is_gap & False, is_gap])))
        assert (
            (len(found) == 0) if is_structured else (set(found["row"]) == {*np.flatnonzero(is_gap)})
        )


def determined(kind, n, seed):
    """A column that follows from a key, or from a number by an equation, beside others that say nothing of it."""
    random = np.random.default_rng(seed)
    days, item = random.poisson(6, n) + 1, random.integers(0, 30, n)
    of, value = {
        "key": ([f"i{k}" for k in item], [f"v{k % 7}" for k in item]),
        "equation": (days, days * 10.0),
    }[kind]
    where = random.choice(["home", "near", "far"], n, p=[0.5, 0.3, 0.2])
    amount = random.gamma(3, 20, n).round(2)
    return random, pd.DataFrame({"of": of, "value": value, "where": where, "amount": amount})


@pytest.mark.parametrize("exactly", [1.0, 0.99])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("kind", ["key", "equation"])
def test_property_gaps_that_other_columns_explain_are_right_and_lost_cells_are_not(
    kind, share, exactly
):
    n_lost = n_named = 0
    for seed in range(2 * TIMES):
        random, frame = determined(kind, 1500, seed)
        frame.loc[random.random(1500) < share, "where"] = "abroad"
        is_abroad = (frame["where"] == "abroad").to_numpy()
        is_right = is_abroad & (random.random(1500) < exactly)
        is_lost = ~is_abroad & (random.random(1500) < 0.01)
        frame["value"] = frame["value"].mask(is_right | is_lost)
        cells = find_errors(frame)
        rows = cells.loc[cells["column"] == "value", "row"].to_numpy(int)
        assert not is_right[rows].any()
        n_lost, n_named = n_lost + is_lost.sum(), n_named + is_lost[rows].sum()
    assert n_named >= 0.95 * n_lost


@pytest.mark.parametrize("kind", ["key", "equation"])
def test_property_gaps_that_two_columns_or_a_part_of_the_numbers_explain_are_right(kind):
    for seed in range(TIMES):
        random, frame = determined(kind, 1500, seed)
        frame["sort"] = random.choice(["sale", "gift"], 1500)
        both = (frame["where"] == "far") & (frame["sort"] == "gift")
        for is_right, most in (
            (both, 0),
            (frame["amount"] > 120, 8),
        ):  # rows beside the bound are open
            is_lost = ~is_right & (random.random(1500) < 0.01)
            cells = repair_errors(frame.assign(value=frame["value"].mask(is_right | is_lost))).cells
            cells = cells[cells["column"] == "value"]
            is_wrong = is_lost[cells["row"]].to_numpy()
            assert (~is_wrong).sum() <= most
            assert not cells.loc[~is_wrong, "repaired"].any()
            assert is_wrong.sum() >= 0.9 * is_lost.sum()


def test_property_cells_that_are_missing_together_are_no_repair():
    """Lost together, or rightly missing for a reason that no column holds: no cell tells."""
    for seed in range(TIMES):
        random, frame = determined("equation", 1500, seed)
        is_gap = random.random(1500) < 0.1
        frame["rate"] = frame["value"] * 7
        frame = frame.assign(**{c: frame[c].mask(is_gap) for c in ("value", "rate")})
        assert not repair_errors(frame).cells["repaired"].any()
        lost = frame["value"].mask(np.arange(1500) % 100 == 0)  # the other cell is there
        cells = repair_errors(frame.assign(value=lost)).cells
        assert set(cells.loc[cells["repaired"], "row"]) == {*np.flatnonzero(lost.isna() & ~is_gap)}


def test_a_value_beside_its_empty_cell_belongs_there():
    frame = pd.DataFrame(
        {"city": ["San Marcos", "Ulm", "Bonn", "Trier"] * 20, "state": ["TX", "BW"] * 40}
    )
    given = frame.copy()
    moved = [3, 8, 17]
    given.loc[moved, "city"] += " " + given["state"]
    given.loc[moved, "state"] = None
    before = given.copy()
    found = find_errors(given)
    assert sorted(zip(found["row"], found["column"], strict=True)) == sorted(
        (row, column) for row in moved for column in frame
    )
    for cell in found.itertuples():
        assert cell.expected == frame.at[cell.row, cell.column]
    pd.testing.assert_frame_equal(given, before)


def test_the_key_is_found_among_many_columns():
    frame, random = clean(120)[["code", "town"]], np.random.default_rng(0)
    noise = pd.DataFrame(random.integers(0, 4, (120, 2 * MOST_CANDIDATES))).add_prefix("n")
    frame = pd.concat([noise, frame], axis=1)
    frame.loc[7, "town"] = frame["town"][frame["code"] != frame.at[7, "code"]].iloc[0]
    assert {(7, "town"), (7, "code")} == set(
        find_errors(frame)[["row", "column"]].itertuples(index=False, name=None)
    )


@pytest.mark.parametrize("seed", range(2 * TIMES))
@pytest.mark.parametrize("exceptions", [0.0, 0.03, 0.1])
def test_property_what_is_named_is_wrong_beside_rightful_exceptions(exceptions, seed):
    """Errors look like the exceptions: of more than are expected, those are not named, unless more are expected."""
    random = np.random.default_rng(seed)
    key = random.integers(0, 20, 1500)
    frame = pd.DataFrame({"key": key, "value": key % 10, "other": random.integers(0, 3, 1500)})
    free = random.random(1500) < exceptions
    frame.loc[free, "value"] = random.integers(0, 10, free.sum())
    frame = frame.astype(str)
    p = as_array(find_errors(frame, min_probability=0.01), frame)
    assert not (p > 0.7).any()
    assert exceptions == 0.03 or not (p >= 0.5).any()
    wrong = random.choice(1500, 15, replace=False)
    frame.loc[wrong, "value"] = (frame.loc[wrong, "value"].astype(int) + 5).mod(10).astype(str)
    p = as_array(find_errors(frame, min_probability=0.01), frame)
    is_wrong = np.zeros(p.shape, bool)
    is_wrong[wrong, 1] = True
    said = p > 0.9
    assert is_wrong[said].sum() >= 0.9 * said.sum()
    assert exceptions or p[is_wrong].mean() > 0.4  # the key or the value
    more = as_array(find_errors(frame, min_probability=0.01, expected_share=0.2), frame)
    assert (more >= p - 1e-9).all()


SPREADS = {
    "even": lambda random, n: random.integers(0, 4, n),
    "mostly none": lambda random, n: random.geometric(0.9, n) - 1,
    "either side": lambda random, n: random.choice([-1, 0, 0, 0, 0, 1, 2], n),
    "seldom far": lambda random, n: np.where(random.random(n) < 0.05, random.integers(1, 30, n), 0),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("kind", ["dates", "numbers", "falling"])
def test_property_what_follows_a_date_or_number_with_a_spread_is_no_error(kind, spread):
    """As the day on which goods leave after the order; of other days some far ones are doubted most."""
    random = np.random.default_rng(0)
    order = random.integers(0, 100, 1500)
    step = {"dates": 1, "numbers": 10, "falling": -3}[kind]
    frame = pd.DataFrame(
        {"order": 10 + order, "left": 1000 + step * order + SPREADS[spread](random, 1500)}
    )
    if kind == "dates":
        frame = pd.Timestamp("2024-01-01") + frame.apply(pd.to_timedelta, unit="D")
    assert not (find_errors(frame)["probability_wrong"] >= 0.9).any()
    frame["booked"] = frame["order"]
    frame.loc[[3, 8, 20], "left"] = frame["left"].sort_values().iloc[[700, 1400, 5]].to_numpy()
    assert set(find_errors(frame, min_probability=0.3)["row"][:2]) <= {3, 8, 20}


def test_what_a_group_repeats_counts_once():
    """Right values that only one customer has, in many rows, are no errors: a wrong price among them is."""
    random = np.random.default_rng(0)
    customer, article = random.integers(0, 40, 2000), random.integers(0, 8, 2000)
    own = {
        "name": random.permutation(40),
        "town": random.integers(0, 12, 40),
        "age": random.integers(18, 90, 40),
    }
    frame = pd.DataFrame({name: values[customer] for name, values in own.items()})
    frame = frame.astype({"name": str, "town": str})
    frame["zip"], frame["article"], frame["price"] = frame["town"] + "0", article, 1.5 * article + 3
    frame.loc[5, "price"] = 1.5 * ((article[5] + 1) % 8) + 3
    found = find_errors(frame, groups=customer)
    assert set(zip(found["row"], found["column"], strict=True)) == {(5, "price"), (5, "article")}


LONG = 9007199254740993000  # a float for a thousand identifiers
NASTY = {
    "identifiers": lambda i: LONG + i % 3,
    "identifiers as text": lambda i: str(LONG + i % 3),
    "a very long number": lambda i: "7" * 5000 if i == 3 else str(i),
    "an integer that is no float": lambda i: 10**309 if i == 3 else i,
    "such integers": lambda i: 10**309 + i,
    "such numbers as text": lambda i: str(10**309 + i),
    "half a character": lambda i: f"\ud800{i % 4}" if i % 3 else "x",
    "a signalling gap": lambda i: Decimal("sNaN") if i == 3 else Decimal(i),
    "decimals": lambda i: Decimal("NaN") if i == 3 else Decimal(i),
    "infinity": lambda i: Decimal("Infinity") if i == 3 else float(i),
    "empty text": lambda _: "",
    "nothing": lambda _: None,
    "zeros": lambda i: -0.0 if i % 2 else 0.0,
    "extremes": lambda i: (1.7e308, -1.7e308, 5e-324)[i % 3],
    "null bytes": lambda i: "\x00" if i % 2 else "a\x00",
    "bytes": lambda _: b"x",
    "times": lambda i: pd.Timestamp.min if i == 3 else pd.Timestamp("2024-01-01"),
    "kinds": lambda i: (1, "a", None, 2.5, True)[i % 5],
}


def refusal(function, frame):
    """The message of the error that a function raises of a table; empty without one."""
    try:
        function(frame)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


@settings(max_examples=12 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(
        st.sampled_from([*NASTY, "sparse", "sparse gaps"]), min_size=1, max_size=3, unique=True
    ),
    n=st.sampled_from([8, 30, 60]),
)
def test_property_an_answer_where_a_model_can_be_fitted_and_else_an_error_that_names_the_column(
    kinds, n
):
    frame = pd.DataFrame({"plain": ["a", "b"] * (n // 2)})
    for kind in kinds:
        if kind in NASTY:
            frame[kind] = pd.Series([NASTY[kind](i) for i in range(n)], dtype=object)
        else:
            values = np.where(np.arange(n) % 5 > 0, np.nan if "gaps" in kind else 0, 1.5)
            frame[kind] = pd.arrays.SparseArray(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of_fit, message = refusal(TableEncoder.fit, frame), refusal(find_errors, frame)
    assert of_fit or not message
    assert not message or any(f"column {kind!r}" in message for kind in kinds)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"threshold": 2}, "threshold"),
        ({"groups": [1, 2]}, "groups"),
        ({"table": "x.csv"}, "x.csv"),
        ({"table": pd.DataFrame({"a": [[1], [2]]})}, "column 'a'"),
    ],
)
def test_errors_name_what_is_wrong(change, error):
    with pytest.raises((ValueError, TypeError), match=error):
        find_errors(**{"table": clean(20), **change})


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_other_groups(seed):
    """Against a loop over the rows."""
    random = np.random.default_rng(seed)
    given, unit = random.integers(0, [[4], [30]], (2, 80))
    codes = np.where(random.random(80) < 0.25 * seed, given, random.integers(0, 4, 80))
    alone = np.full(80, 0.25)
    p, n = conditional(codes, given, alone, unit)

    def slow(d, a):
        out = np.zeros(80)
        for i in range(80):
            rest = codes[(unit != unit[i]) & (given == given[i])]
            own, more = (rest == codes[i]).sum(), d * len(set(rest)) + a
            out[i] = (max(own - d, 0) + more * alone[i]) / (len(rest) + a)
        return out

    ways = [*((d, 0) for d in DISCOUNTS), (0, COUNT)]
    assert any(np.allclose(p, slow(*way)) for way in ways)
    assert n.tolist() == [
        ((unit != u) & (given == g)).sum() for u, g in zip(unit, given, strict=True)
    ]
    assert len(set(joined_codes(codes, given))) == len(set(zip(codes, given, strict=True)))


def test_property_bins_have_densities():
    """Within a bin the density integrates to one, up to what lies beyond the range."""
    z = np.sort(np.random.default_rng(0).normal(size=4000))
    level, log_flat = _binned(z)
    width = np.gradient(z)
    for k in np.unique(level):
        own = level == k
        mass = (np.exp(-log_flat[own]) / (z[-1] - z[0]) * width[own]).sum()
        assert mass == pytest.approx(1, abs=0.15)


def test_property_a_misspelling_is_wrong_beside_the_row_of_the_value_that_is_meant():
    names = ["MULBERRY", "MULBERRA", "CHERRY", "SHERRY", "walnut", "wallnut", "daffodil", "dafodil"]
    for n_rare in (1, 4):
        value = np.repeat(np.arange(8), [700, n_rare] * 4)
        frame = pd.DataFrame({"value": np.array(names)[value], "distance": 100 + 37 * (value // 2)})
        found = find_errors(frame)
        assert sorted(found["expected"]) == sorted(names[::2] * n_rare)
        assert (found["expected_probability"] > 0.9).all()


def test_property_misspellings_are_told_from_values_that_are_near_by_chance():
    words = ["".join(c) for c in itertools.product("abc", repeat=6)]
    words = np.random.default_rng(0).permutation(words).tolist()[:300]
    assert (misspellings(words, np.r_[np.full(150, 50), np.full(150, 1)])[1] < 0.5).all()
    far = ["".join(c) * 3 for c in itertools.combinations("abcdefghij", 2)]
    rare = [word[:k] + "x" + word[k + 1 :] for k, word in enumerate(far[:5])]
    meant, p = misspellings(
        [*far, *rare, "unrelated"], np.r_[np.full(len(far), 50), np.ones(6, int)]
    )
    assert meant[len(far) :].tolist() == [0, 1, 2, 3, 4, -1]
    assert (p[len(far) : -1] > 0.9).all()
    assert not p[: len(far)].any()
    coded = [*far, *(f"{word} 7a4" for word in far), *(f"{word} 7b4" for word in far[:6])]
    assert not misspellings(coded, np.r_[np.full(2 * len(far), 50), np.ones(6, int)])[1].any()


def invoices(random):
    """Totals of prices with heavy tails, of rare quantities, and delays as the difference of two times of the day."""
    n = 800
    quantity = np.where(
        random.random(n) < 0.02, random.integers(20, 90, n), random.integers(1, 5, n)
    )
    price = np.round(random.lognormal(3, 1.2, n), 2)
    planned, delay = random.integers(300, 1300, n), random.poisson(random.choice([2, 2, 2, 60], n))
    return pd.DataFrame(
        {
            "quantity": quantity,
            "price": price,
            "total": np.round(quantity * price + 1e-9, 2),
            "planned": planned,
            "left": planned + delay,
            "delay": delay,
            "shop": random.choice(["Ulm", "Bonn", "Jena"], n),
        }
    )


def test_a_number_that_follows_from_its_row_is_not_wrong():
    table = invoices(np.random.default_rng(0))
    related = ["quantity", "price", "total", "planned", "left", "delay"]
    assert not find_errors(table)["column"].isin(related).any()
    alone = table.drop(columns=["price", "left"])  # nothing follows without these
    assert find_errors(alone, min_probability=0.1)["column"].isin(related).any()


def test_rare_discounts_from_which_a_price_follows_are_not_wrong():
    """Few numbers of a column are no reason why a wrong one should follow, and most rows have no discount."""
    random = np.random.default_rng(0)
    prices = {"Gouda": 12.9, "Brie": 15.5, "Merlot": 7.5, "Riesling": 8.95, "Roggen": 3.4}
    item = random.choice([*prices], 3000)
    is_weighed = np.isin(item, ["Gouda", "Brie"])
    tenths = np.where(is_weighed, random.integers(1, 20, 3000), 10 * random.integers(1, 7, 3000))
    table = pd.DataFrame({"item": item, "quantity": tenths / 10, "price": map(prices.get, item)})
    table["off"] = random.choice([0, 5, 10], 3000, p=[0.8, 0.12, 0.08])
    net = table["quantity"] * table["price"] * (1 - table["off"] / 100)
    table["net"] = net.round(2)
    table["gross"] = (table["net"] * np.where(is_weighed, 1.07, 1.19)).round(2)
    assert not len(find_errors(table))
    table.loc[7, "off"] = wrong = {0: 5, 5: 10, 10: 0}[table.loc[7, "off"]]
    assert find_errors(table)[["row", "column", "value"]].to_numpy().tolist() == [[7, "off", wrong]]


def test_of_a_row_that_breaks_a_relation_the_cell_is_named_that_mends_most():
    table = invoices(np.random.default_rng(1))
    table["tax"] = np.round(table["total"] * 0.2 + 1e-9, 2)
    mended = table.copy()
    for row, column in zip((3, 40, 200, 500), ("total", "price", "tax", "total"), strict=True):
        table.loc[row, column] = table.loc[row, column] + 17 + row / 100
    lines = find_errors(table)
    assert {*zip(lines["row"], lines["column"], strict=True)} == {
        (3, "total"), (40, "price"), (200, "tax"), (500, "total")
    }  # fmt: skip
    for line in lines.itertuples():
        assert abs(line.expected - mended.loc[line.row, line.column]) < 0.02


def test_exceptions_that_are_alike_are_not_wrong():
    for surcharge, n_named in ((np.full(6, 7.0), 0), (np.arange(6) * 3 + 7.0, 6)):
        table = invoices(np.random.default_rng(2))
        rows = [10, 20, 30, 40, 50, 60]
        table.loc[rows, "total"] = np.round(table.loc[rows, "total"] + surcharge, 2)
        assert find_errors(table, min_probability=0.4)["row"].isin(rows).sum() == n_named
