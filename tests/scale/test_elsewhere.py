"""Recipes of the guide for skrub, river and online-fdr, run by what these packages check."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

import discrete_itd
from discrete_itd import DiffusionOutlierDetector

PAGE = (Path(discrete_itd.__docs_dir__) / "scale.md").read_text()
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def recipe(word):
    """The names that the example of the guide with this word defines."""
    (code,) = (c for c in re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL) if word in c)
    return code


def frame(n=120, seed=0):
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green"], n)
    size = np.where(colour == "red", 0.0, 5.0) + rng.normal(size=n)
    day = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    return pd.DataFrame({"colour": colour, "size": size, "day": day})


def test_skrubs_table_vectorizer_comes_before_a_detector():
    pytest.importorskip("skrub")
    names = {"make_pipeline": make_pipeline, "frame": frame()}
    names["DiffusionOutlierDetector"] = lambda: DiffusionOutlierDetector(denoiser="independent")
    exec(recipe("TableVectorizer"), names)
    assert names["pipeline"].score_samples(frame()).shape == (120,)


def stream():
    """Rows of river with labels, as its own tables of anomalies, which it would download."""
    rows = frame(150)
    rows.loc[100:109, "size"] += 20.0
    numbers = rows.assign(colour=rows.colour == "red", day=(rows.day - rows.day.min()).dt.days)
    return [
        (x, i in range(100, 110)) for i, x in enumerate(numbers.astype(float).to_dict("records"))
    ]


@pytest.mark.slow
def test_rivers_checks_of_a_detector(monkeypatch):
    checks = pytest.importorskip("river.checks")
    monkeypatch.setattr(checks, "_yield_datasets", lambda *_, **__: [stream()])
    exec(recipe("AnomalyDetector"), globals())  # where pickles look for it
    model = globals()["DensityForest"](batch=50)
    failed = {}
    for check in checks.yield_checks(model):
        try:
            check(model.clone())
        except Exception as error:
            failed[check.__name__] = error
    assert not failed


def test_a_rule_of_online_fdr_takes_p_values():
    pytest.importorskip("online_fdr")
    odd = frame().assign(size=100.0)[:10]
    detector = DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(frame(10_000))
    names = {"detector": detector, "new": pd.concat([odd, frame(50, 1)])}
    exec(recipe("LordPlusPlus"), names)
    assert sum(names["alarms"][:10]) > sum(names["alarms"][10:])
