"""Slips of the pen: mistyped texts, moved decimal points and years, and what was meant, in the reasons of detectors."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, find_outliers
from discrete_itd.cells.slips import Vocabulary
from discrete_itd.encoders import TableEncoder

pytestmark = pytest.mark.single_precision

TOWNS = [
    "Augsburg",
    "Bremen",
    "Cottbus",
    "Dresden",
    "Eisenach",
    "Freiburg",
    "Göttingen",
    "Hannover",
]
QUICK = {"denoiser": "bayes_net", "random_state": 0}


def towns(n, seed):
    """Towns with their states, which two towns share, prices that follow from them, and dates of one season."""
    random = np.random.default_rng(seed)
    k = random.integers(0, len(TOWNS), n)
    day = pd.Timestamp("2025-01-01") + pd.to_timedelta(random.integers(0, 40, n), "D")
    columns = {"town": np.array(TOWNS)[k], "state": np.array(list("pqrs"))[k // 2]}
    price = (3.0 + k + random.normal(0, 0.2, n)).round(2)
    return pd.DataFrame(
        {**columns, "price": price, "paid": day, "kind": random.choice(list("xyz"), n)}
    )


def mistyped(table, rows, random):
    """One letter of the town in each of some rows is another one."""
    texts = table["town"].copy()
    for i in rows:
        text, k = texts[i], int(random.integers(1, len(texts[i])))
        texts[i] = text[:k] + random.choice(list("jkqwxy")) + text[k + 1 :]
    return table.assign(town=texts)


def test_properties_a_typing_error_is_one_among_clean_rows_and_among_others():
    """One measure: whether new texts are rare or, since most are slips, common."""
    random = np.random.default_rng(0)
    clean, new = towns(900, 0), towns(60, 1)
    detector = DiffusionOutlierDetector(**QUICK).fit(clean)
    wrong = mistyped(new, range(60), random)
    known = pd.concat([clean[:1], wrong], ignore_index=True)  # else no value of a column is known
    table = mistyped(clean, range(0, 900, 60), random)
    quick = DiffusionOutlierDetector(**QUICK)
    by_folds = find_outliers(table, quick, n_rows=None, k=1).set_index("row")
    for found, true in (
        (detector.reasons(known, k=1).set_index("row").loc[range(1, 61)].set_axis(range(60)), new),
        (by_folds.loc[range(0, 900, 60)], clean),
    ):
        assert (found["probability_wrong"] > 0.9).mean() > 0.8
        assert (found["expected"] == true.loc[found.index, "town"]).mean() > 0.9
    right = by_folds.drop(index=range(0, 900, 60))["probability_wrong"]
    assert (right > 0.5).mean() < 0.01


@pytest.mark.parametrize("factor", [10.0, 100.0])
def test_properties_a_moved_decimal_point_is_moved_back(factor):
    detector = DiffusionOutlierDetector(**QUICK).fit(towns(900, 0))
    new = towns(40, 1)
    new["price"] = (new["price"] / 0.1).round() * 0.1  # a tenth of them is on the lattice
    first = detector.reasons(new.assign(price=(factor * new["price"]).round(2)), k=1)
    assert len(first) == 40
    assert (first["column"] == "price").all()
    assert (first["probability_wrong"] > 0.8).all()
    np.testing.assert_allclose(first["expected"].astype(float), new["price"], atol=1e-6)


def test_properties_a_year_that_is_off_is_put_back():
    """To the day or the next one: what is between two dates a year apart depends on leap years."""
    density = DiffusionDensity(denoiser="bayes_net", column_types={"paid": "continuous"})
    detector = DiffusionOutlierDetector(density, random_state=0).fit(towns(900, 0))
    new = towns(40, 1)
    first = detector.reasons(new.assign(paid=new["paid"] + pd.Timedelta(days=365)), k=1)
    assert first["column"].tolist() == ["paid"] * 40
    off = (pd.to_datetime(first["expected"]) - new["paid"]).abs()
    assert (off <= pd.Timedelta(days=1)).mean() >= 0.9


def vocabulary(texts):
    column = TableEncoder.fit(pd.DataFrame({"text": np.repeat(texts, 10)}, dtype=object)).schema[0]
    return Vocabulary(column, np.full(len(texts), 10.0))


def test_properties_a_text_near_many_others_is_less_surely_a_slip():
    """And codes, which are all near each other, are none, unless no other is written like them."""
    far, near = vocabulary(TOWNS), vocabulary(["Bremen", "Bremer", "Bremes", "Bremet", *TOWNS[4:]])
    assert far.slips_of("Bremex")[1] > near.slips_of("Bremex")[1] + 1
    assert [len(v.slips_of("Bremex")[0]) for v in (far, near)] == [1, 4]
    codes = vocabulary(["A107", "A108", "B107", "B209", "C310"])
    assert [len(codes.slips_of(text)[0]) for text in ("A109", "A10x", "Bonn")] == [0, 2, 0]
