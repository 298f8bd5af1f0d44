"""Rules that a detector keeps: a broken one is the first reason, in files, on the card and on the page."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector, report
from discrete_itd.detection.detector import rules_of
from discrete_itd.encoders import TableEncoder
from discrete_itd.rules.kept import KeptRules
from discrete_itd.rules.statements import Rule
from tests.rules.test_rules import PLANTED, shop

pytestmark = pytest.mark.single_precision
BROKEN = {
    "plz determines town": ("town", "town 9"),
    "ordered ≤ sent": ("sent", pd.Timestamp("2020-01-01")),
    "hour ≥ 0": ("hour", -1),
    "weight is a multiple of 0.5": ("weight", 0.75),
    "size and colour determine price": ("price", "p99"),
    "gross = (1 + vat / 100) × net": ("gross", 1.23),
}


@pytest.fixture(scope="module")
def detector():
    detector = DiffusionOutlierDetector(denoiser="bayes_net", random_state=0)
    return detector.fit(shop().drop(columns="id"))


def broken_rows():
    new = shop(seed=3, n=6).drop(columns="id")
    new["order"], new["plz"], new["town"] = np.arange(6), "10000", "town 0"
    new["status"], new["sent"] = "done", new["ordered"]
    for i, (column, value) in enumerate(BROKEN.values()):
        new.loc[i, column] = value
    return new


def test_a_broken_rule_is_the_first_reason(detector):
    lines = detector.reasons(broken_rows(), k=1)
    assert lines["rule"].tolist() == [*BROKEN]
    assert lines["column"].tolist() == [column for column, _ in BROKEN.values()]
    assert "but town = town 0 where plz = 10000" in lines["sentence"][0]


def test_fewer_reasons_are_the_first_of_more(detector):
    table = pd.concat([broken_rows(), shop(seed=5, n=40).drop(columns="id")], ignore_index=True)
    more = detector.reasons(table, k=3)
    first = more[more["rank"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(detector.reasons(table, k=1), first)


def test_a_copy_of_a_detector_has_its_rules_and_no_rows():
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0)
    detector.fit(shop(n=600)[["plz", "town", "hour"]])
    again = pickle.loads(pickle.dumps(detector))
    assert isinstance(vars(again)["_rules"], KeptRules)
    assert rules_of(again) == rules_of(detector)
    assert "plz determines town" in rules_of(detector)


def by_day(first, n_days, seed, n=1200):
    """Orders of some days, with parts of their dates in numbers and in words."""
    random = np.random.default_rng(seed)
    days = pd.Series(pd.Timestamp(first) + pd.to_timedelta(random.integers(0, n_days, n), "D"))
    frame = pd.DataFrame({"date": days, "month": days.dt.month, "name": days.dt.month_name()})
    frame["week"], frame["weekday"] = days.dt.isocalendar().week, days.dt.day_name()
    frame["dom"], frame["status"] = days.dt.day, "ok"
    frame["is_weekend"] = days.dt.day_of_week > 4
    frame["country"] = random.choice(["DE", "FR", "IT"], n)
    frame["vat"] = frame["country"].map({"DE": 19, "FR": 20, "IT": 22})
    frame["open"] = np.where(frame["weekday"] == "Sunday", "no", "yes")
    return frame.assign(amount=random.gamma(2, 50, n).round(2))


@pytest.mark.parametrize("n_days", [31, 181])
def test_no_rule_is_broken_by_rows_of_another_period_in_which_nothing_else_changes(n_days):
    """That all rows were of January, or of half a year, is a rule of find_rules, but no reason."""
    train = by_day("2026-01-01", n_days, 0)
    kept = KeptRules.find(train, (schema := TableEncoder.infer(train).schema), [])
    part = "weekday is the weekday of date"
    assert {"amount ≥ 0", "country and vat determine each other", part} <= {*kept.texts()}
    later = by_day(train["date"].max() + pd.Timedelta(1, "D"), 200, 1)
    assert not [*kept.broken(later, schema)]
    right = later.loc[5, "weekday"]
    later.loc[5, "weekday"] = "Monday" if right == "Sunday" else "Sunday"
    broken = [*kept.broken(later, schema)]
    assert {one.position for one in broken} == {5}
    assert part in [one.rule.text for one in broken]


def test_parts_of_dates_are_in_files_and_a_wrong_one_is_to_blame(tmp_path):
    train = by_day("2026-01-01", 181, 0)[["date", "weekday", "month", "amount"]]
    detector = DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(train)
    detector.save(tmp_path / "d.safetensors")
    new = train[:40].copy()
    new.loc[3, "weekday"], new.loc[4, "month"] = "Friday", 7
    for one in (detector, DiffusionOutlierDetector.load(tmp_path / "d.safetensors")):
        assert {*rules_of(one)} >= {"weekday is the weekday of date", "month is the month of date"}
        lines = one.reasons(new, k=1).set_index("row").loc[[3, 4]]
        assert lines["column"].tolist() == ["weekday", "month"]
        assert "weekday = Friday, but the weekday of date is Wednesday" in lines["sentence"][3]


def test_columns_that_are_given_are_never_to_blame():
    frame = shop()[["plz", "town", "hour"]]
    detector = DiffusionOutlierDetector(denoiser="bayes_net", given="plz", random_state=0)
    new = pd.DataFrame({"plz": ["10000"], "town": ["town 9"], "hour": [3]})
    lines = detector.fit(frame).reasons(new)
    assert lines["column"].tolist()[:1] == ["town"]
    assert lines["rule"].tolist()[:1] == ["plz determines town"]


def test_rules_are_listed_in_files_on_the_card_and_on_the_page(detector, tmp_path):
    rules = rules_of(detector)
    of_one = {"vat in {4, 7, 10, 19, 20}", "0 ≤ hour ≤ 23"}  # the density has levels and bounds
    assert {*rules} >= PLANTED - {"id is unique", "id matches [A-Z][0-9]{5}"} - of_one
    detector.save(tmp_path / "d.safetensors")
    again = DiffusionOutlierDetector.load(tmp_path / "d.safetensors")
    assert rules_of(again) == rules
    table = broken_rows()
    pd.testing.assert_frame_equal(again.reasons(table), detector.reasons(table))
    card = detector.model_card()
    assert f"* `{rules[0]}`" in card
    assert f"and {len(rules) - 10} more" in card
    page = re.sub("<[^>]*>", "", report(detector, table))
    assert "What the rows of the fit obey" in page
    assert "town breaks plz determines town" in page


def test_a_kept_key_knows_no_value_of_fewer_than_five_rows():
    frame = pd.DataFrame({"a": [f"a{i // 8}" for i in range(400)]})
    frame["b"] = frame["a"].map(lambda a: f"b{int(a[1:]) // 2}")
    frame = pd.concat([frame, pd.DataFrame({"a": ["rare"] * 4, "b": ["secret"] * 4})])
    rules = KeptRules.find(frame, TableEncoder.infer(frame).schema, [])
    levels = [v for one in rules.judged for key in one.rule.statement.keys for v in key.levels]
    assert any("a1" in values for values in levels)
    assert not any({"rare", "secret"} & {*values} for values in levels)


def test_damaged_keys_are_refused(detector):
    kept = detector._kept_rules
    (i, one), *_ = [(i, j) for i, j in enumerate(kept.judged) if j.rule.statement.keys]
    key = one.rule.statement.keys[0]
    for wrong in (
        replace(key, values=key.values + 10**6),
        replace(key, known=key.known - 10**6),
        replace(key, levels=key.levels[:1]),
    ):
        judged = (*kept.judged[:i], replace(one, rule=Rule(wrong)), *kept.judged[i + 1 :])
        with pytest.raises(ValueError, match="codes of no level"):
            replace(kept, judged=judged)
    with pytest.raises(ValueError, match="bound"):
        replace(kept, bound=0.0)


def test_a_search_that_fails_takes_no_answer_down(monkeypatch):
    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(KeptRules, "find", fails)
    detector = DiffusionOutlierDetector(denoiser="independent", false_alarm_rate=0.1)
    detector.fit(shop(n=200)[["plz", "town"]])
    with pytest.warns(UserWarning, match="not known: MemoryError: no room"):
        assert "rule" in detector.reasons(broken_rows()[["plz", "town"]], k=1)
