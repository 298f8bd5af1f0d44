"""Rows outside the range or the categories of training: said where they are many, of chance never."""

import warnings

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.detection.outside import many_outside
from tests.examples import run
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision


def days(n, seed, first="2026-01-01", over=60):
    """Sales on days in a period, with a category, a heavy tail, counts and gaps."""
    random = np.random.default_rng(seed)
    date = pd.Timestamp(first) + pd.to_timedelta(random.integers(0, over, n), unit="D")
    rows = {"date": date, "amount": random.standard_t(2, n).round(2), "n": random.poisson(9, n)}
    frame = pd.DataFrame({**rows, "shop": random.choice(list("abc"), n)})
    frame["customer"] = [f"c{i}" for i in random.geometric(0.02, n)]
    frame.loc[random.random(n) < 0.1, "amount"] = np.nan
    return frame


@pytest.fixture(scope="module")
def detector():
    return DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(days(1500, 0))


WEEK = {"first": "2026-03-02", "over": 7}
NEXT = r"outside .*columns 'date' \(400 of 400 rows\); the stated rate .*weekday of 'date'.*given=.* fit again"


def test_property_inliers_are_hardly_ever_outside():
    """Of tables of any size, none has a column of which it is said; a tenth of the rows elsewhere are seen."""
    for seed in range(3 * TIMES):
        n = (60, 300, 2000)[seed % 3]
        model = DiffusionOutlierDetector(
            denoiser="independent", false_alarm_rate=0.1, random_state=0
        ).fit(days(n, seed))
        rows = model.density_.rows(days(1000, 100 + seed))
        schema = model.density_.encoder_.schema
        assert not many_outside(rows.is_outside.sum(0), 1000, schema).any()
        assert not rows.is_outside[np.isnan(rows.cells[:, :5])].any()


def test_dates_of_the_next_week_are_said(detector):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.predict(days(400, 1))
        detector.predict(days(9, 2, **WEEK))  # too few to say so
    with pytest.warns(UserWarning, match=NEXT):
        detector.predict(days(400, 2, **WEEK))
    new = days(400, 3).assign(shop=np.random.default_rng(0).choice(list("abcd"), 400))
    with pytest.warns(UserWarning, match=r"columns 'shop' \(1\d\d of 400 rows\); .*: compare"):
        detector.predict(new)


def test_p_values_say_so_too(detector):
    week = days(400, 2, **WEEK)
    for ask in (detector.p_values, detector.discoveries):
        with pytest.warns(UserWarning, match=NEXT):
            ask(week)


def test_drift_names_them_first(detector):
    week = days(400, 2, **WEEK)
    week["n"] += 20  # a larger effect
    assert detector.drift(week).drifted_columns[0] in ("date", "n")
    assert set(detector.drift(week).drifted_columns[:2]) == {"date", "n"}
    other = days(400, 2, **WEEK)
    other["n"] = 9
    for reference in (None, days(400, 5)):
        assert detector.drift(other, reference=reference).drifted_columns[0] == "date"
    at_random = [detector.drift(days(400, seed)).drifted_columns for seed in range(4, 10)]
    assert at_random.count([]) >= 4


def test_the_command_says_so_once(detector, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    detector.save("d")
    days(400, 2, **WEEK).to_csv("week.csv", index=False)
    days(400, 1).to_csv("day.csv", index=False)
    out, err = run("score d week.csv --out out.csv", capsys)
    assert "columns 'date' (400 of 400 rows); the stated rate" in out
    assert "outside" not in err
    out, err = run("score d day.csv --out out2.csv", capsys)
    assert "outside" not in out + err
