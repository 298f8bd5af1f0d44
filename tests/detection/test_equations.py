"""Cells that break a relation between columns: they raise the score, and a reason says what the row should be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
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
