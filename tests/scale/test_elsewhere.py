"""Recipes of the guide for skrub, river, online-fdr and pgmpy, run by what these packages check."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

import discrete_itd
from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch

PAGES = [Path(discrete_itd.__docs_dir__) / f"{page}.md" for page in ("scale", "coming_from")]
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def recipe(word):
    """The names that the example of the guide with this word defines."""
    text = "".join(page.read_text() for page in PAGES)
    (code,) = (c for c in re.findall(r"```py\n(.*?)```", text, re.DOTALL) if word in c)
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


def test_a_rule_of_online_fdr_finds_anomalies_late_in_a_stream():
    online_fdr = pytest.importorskip("online_fdr.p_values")
    odd = frame().assign(size=100.0)[:10]
    detector = DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(frame(10_000))
    stream = pd.concat([frame(50, 1), odd, frame(40, 2)])
    names = {"detector": detector, "batches": [stream[i : i + 20] for i in range(0, 100, 20)]}
    exec(recipe("BatchPRDS"), names)
    expected = list(range(50, 60))
    assert np.flatnonzero(np.concatenate(names["alarms"])).tolist() == expected
    p_values = DriftWatch(detector).update(stream)["p_value"].to_numpy().reshape(5, 20)
    rule = online_fdr.BatchPRDS(alpha=0.1)
    alarms = [rule.test_batch(p.tolist()) for p in p_values]
    assert np.flatnonzero(np.concatenate(alarms)).tolist() == expected
    single = online_fdr.LordPlusPlus(alpha=0.1, wealth=0.05)
    assert not any(single.test_one(p) for p in detector.p_values(stream))


@pytest.mark.slow
def test_a_query_has_the_answer_that_pgmpy_gives():
    pytest.importorskip("pgmpy")
    rng = np.random.default_rng(0)
    smoker, age = rng.choice(["yes", "no"], 2000), rng.normal(50, 10, 2000)
    ill = rng.random(2000) < np.where(smoker == "yes", 0.5, 0.1) + 0.3 * (age > 55)
    people = pd.DataFrame({"smoker": smoker, "age": age, "ill": np.where(ill, "yes", "no")})
    names = {"people": people, "np": np, "pd": pd, "DiffusionDensity": DiffusionDensity}
    exec(recipe("VariableElimination"), names)
    order = names["theirs"].state_names["ill"]
    np.testing.assert_allclose(
        names["ours"][order].to_numpy()[0], names["theirs"].values, atol=0.01
    )
