"""Cells that break a relation between columns: they raise the score, and a reason says what the row should be."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, find_rules
from discrete_itd.detection.score import USUAL
from discrete_itd.encoders import table

pytestmark = pytest.mark.single_precision


def orders(n, seed):
    rng = np.random.default_rng(seed)
    quantity = 1 + rng.poisson(2, n)
    price = np.round(rng.lognormal(3, 0.5, n), 2)
    off = rng.choice([0, 10, 20], n, p=[0.6, 0.3, 0.1])
    sent = pd.Timestamp("2025-03-01") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    days = rng.integers(1, 30, n)
    return pd.DataFrame(
        {
            "quantity": quantity,
            "price": price,
            "off": off,
            "total": np.round(quantity * price * (1 - off / 100) + 1e-9, 2),
            "town": rng.choice(["Ulm", "Bonn", "Jena"], n),
            "sent": sent,
            "due": sent + pd.to_timedelta(days, "D"),
            "days": days,
        }
    )


@pytest.fixture(scope="module")
def detector():
    return DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(orders(600, 0))


NEW = orders(60, 1)


def broken(column, change):
    rows = NEW.copy()
    rows[column] = change(rows[column])
    return rows


BREAKS = {
    "total": lambda t: np.round(t * 1.25, 2),
    "days": lambda d: d % 29 + 1,
    "due": lambda d: d + pd.Timedelta(days=3),
}


@pytest.mark.parametrize("column", BREAKS)
def test_a_broken_equation_raises_the_score_and_says_what_would_fit(detector, column):
    wrong = broken(column, BREAKS[column])
    before, after = (detector.score_samples(rows) for rows in (NEW, wrong))
    assert (after < before - 3).all()
    lines = detector.reasons(wrong, k=1)
    assert lines["sentence"].str.contains(", but ").all()
    named = lines[lines["column"] == column]
    right = NEW.loc[named["row"], column]
    assert len(named)
    assert np.mean(named["expected"].to_numpy() == right.to_numpy()) > 0.9


def test_rows_that_follow_have_neither_a_term_nor_a_line(detector):
    rows = detector.density_.rows(NEW)
    assert (rows.follows == 1).all()
    assert len(rows.encoder.relations) == 2
    assert all(relation.share > USUAL for relation in rows.encoder.relations)
    assert not detector.reasons(NEW)["sentence"].str.contains(", but ").any()
    lacking = NEW.assign(price=np.nan, sent=pd.NaT)
    assert np.isnan(detector.density_.rows(lacking).follows).all()
    wrong = broken("total", BREAKS["total"]).assign(price=np.nan)
    alone = NEW.assign(price=np.nan)
    lost = detector.explain(wrong)["total"] - detector.explain(alone)["total"]
    assert lost.abs().max() < 10  # a total alone contradicts nothing


def test_a_search_that_fails_takes_no_fit_down(monkeypatch):
    def fails(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(table, "relations_of", fails)
    with pytest.warns(UserWarning, match="not known: MemoryError: no room"):
        model = DiffusionDensity(denoiser="independent", random_state=0).fit(NEW)
    assert model.encoder_.relations == ()


def test_relations_are_saved(detector, tmp_path):
    wrong = broken("total", BREAKS["total"])
    detector.save(tmp_path / "d")
    again = DiffusionOutlierDetector.load(tmp_path / "d")
    assert again.density_.encoder_.relations == detector.density_.encoder_.relations
    assert (again.score_samples(wrong) == detector.score_samples(wrong)).all()
    assert "total = quantity × price × (1 − off / 100)" in detector.model_card()


def shop(rng, n):
    frame = pd.DataFrame(
        {"price": rng.uniform(1, 900, n).round(2), "n": rng.integers(1, 20, n)},
    )
    frame["off"] = rng.choice([0, 5, 10], n)
    return frame.assign(total=(frame["price"] * frame["n"] * (1 - frame["off"] / 100)).round(2))


def german(rng, n):
    def money(v):
        return f"{v:,.2f} €".translate(str.maketrans(",.", ".,"))

    frame = shop(rng, n)
    frame[["price", "total"]] = frame[["price", "total"]].map(money)
    return frame.assign(off=frame["off"].map("{} %".format))


def few_levels(rng, n):
    frame = pd.DataFrame({"score": rng.integers(0, 11, n), "bonus": rng.integers(0, 6, n)})
    return frame.assign(sum=frame["score"] + frame["bonus"])


def rounded(rng, n):
    a = rng.normal(50, 10, n).round(1)
    b = (a - rng.integers(1, 9, n) + rng.uniform(-0.3, 0.3, n)).round(1)
    return pd.DataFrame({"a": a, "b": b, "difference": (a - b).round()})


def cut_off(rng, n):
    a, b = rng.integers(20, 5000, n), rng.integers(3, 30, n)
    return pd.DataFrame({"a": a, "b": b, "packs": a // b})


def stays(rng, n, zone=None):
    """Days and hours between times, and a date that follows from one."""
    start = pd.Timestamp("2024-01-01", tz=zone) + pd.to_timedelta(rng.integers(0, 10**6, n), "min")
    days = rng.poisson(6, n) + 1
    end = start + pd.to_timedelta(days * 1440 + rng.integers(-300, 300, n), "min")
    return pd.DataFrame({"start": start, "end": end, "days": days, "took": end - start})


def dues(rng, n):
    sent, days = NEW["sent"].sample(n, replace=True, random_state=1), rng.integers(1, 15, n)
    due = sent.to_numpy() + pd.to_timedelta(days, "D")
    return pd.DataFrame({"sent": sent.to_numpy(), "days": days, "due": due})


def in_berlin(rng, n):
    return stays(rng, n, "Europe/Berlin")


TIME = r"\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d)?)?(?:[+-]\d\d:\d\d)?"
DURATION = r"-?\d+ days(?: \+?\d\d:\d\d:\d\d)?"


def days_in(match):
    what = match[0]
    if "days" in what:
        return repr(pd.to_timedelta(what).total_seconds() / 86_400)
    return repr(pd.to_datetime(what, utc=True).timestamp() / 86_400)


def value_of(text):
    """The value of an expression as a sentence prints it, times and durations in days."""
    text = re.sub(f"{TIME}|{DURATION}", days_in, text).replace(" €", "")
    if re.search(r"\d,\d", text):
        text = re.sub(r"\.(?=\d{3})", "", text).replace(",", ".")
    text = re.sub(r"(?<=\d) (?=\d{3}\b)", "", text)
    text, cut, _ = text.partition(", rounded down")
    value = eval(text.translate({ord("×"): "*", ord("−"): "-"}), {"day": math.floor})
    return math.floor(value + 1e-9) if cut else value


def error_of(text):
    """Half of the last printed digit, in days of a time or duration."""
    if re.fullmatch(f"{TIME}|{DURATION}", text):
        return 30 / 86_400
    decimals = re.search(r"[.,](\d\d?)(?: €)?$", text)
    return 0.5 * 10.0 ** -(len(decimals[1]) if decimals else 0)


TABLES = [shop, german, few_levels, rounded, cut_off, stays, in_berlin, dues]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_arithmetic_that_sentences_print_is_true_whatever_the_values_of_the_fit(table):
    rng = np.random.default_rng(0)
    frame = table(rng, 600)
    detector = DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(frame)
    rules = find_rules(frame)
    rows = pd.concat([frame.head(30)] * 4, ignore_index=True)
    for column in rows:  # of other rows, and far beyond all
        some = rng.random(len(rows)) < 0.5
        other = rows[column].sample(frac=1, random_state=0).to_numpy()
        far = other
        if isinstance(frame[column].dtype, np.dtype) and frame[column].dtype.kind in "if":
            far = other * rng.choice([7, 1000], len(rows))
        elif frame[column].dtype.kind in "mM":
            far = rows[column] + pd.to_timedelta(rng.choice([-40, 5000], len(rows)), "D")
        rows.loc[some, column] = np.where(rng.random(some.sum()) < 0.5, other[some], far[some])
    sentences = [*detector.reasons(rows, k=2)["sentence"], *rules.check(rows).table["sentence"]]
    stated = [
        re.search(r", but (?:.* = )?([^=]*\d[^=]*) = ([^=;]*?)(?:; .*)?$", s) for s in sentences
    ]
    equations = [match.groups() for match in stated if match]
    assert len(equations) > 30
    for left, right in equations:
        assert abs(value_of(left) - value_of(right)) <= error_of(right) * (1 + 1e-6), (left, right)


def test_the_result_that_a_sentence_states_is_that_of_its_factors_however_large():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"price": rng.uniform(10, 900, 400).round(2), "n": rng.integers(1, 20, 400)}
    )
    frame["total"] = (frame["price"] * frame["n"]).round(2)
    how = {"false_alarm_rate": 0.05, "random_state": 0}
    detector = DiffusionOutlierDetector(denoiser="tree", **how).fit(frame)
    rows = frame.head(2).assign(price=[386760.0, 386.76], n=15, total=[5801.4, 5801400.0])
    sentences = " ".join(detector.reasons(rows, k=1)["sentence"])
    # of the equation that was found, total = price × n or price = total / n
    assert "× 15 = 5 801 400.00; price" in sentences or "/ 15 = 386 760.00; total" in sentences
