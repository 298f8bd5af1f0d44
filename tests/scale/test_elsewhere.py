"""Recipes of the guide for skrub and online-fdr, and a question that pgmpy answers alike."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch
from tests.examples import of_guide

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


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
    exec(of_guide("scale", "TableVectorizer"), names)
    assert names["pipeline"].score_samples(frame()).shape == (120,)


def test_a_rule_of_online_fdr_finds_anomalies_late_in_a_stream():
    online_fdr = pytest.importorskip("online_fdr.p_values")
    odd = frame().assign(size=100.0)[:10]
    detector = DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(frame(10_000))
    stream = pd.concat([frame(50, 1), odd, frame(40, 2)])
    names = {"detector": detector, "batches": [stream[i : i + 20] for i in range(0, 100, 20)]}
    exec(of_guide("scale", "BatchPRDS"), names)
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
    models = pytest.importorskip("pgmpy.models")
    inference = pytest.importorskip("pgmpy.inference")
    rng = np.random.default_rng(0)
    smoker, age = rng.choice(["yes", "no"], 2000), rng.choice(["old", "young"], 2000, p=[0.3, 0.7])
    ill = rng.random(2000) < np.where(smoker == "yes", 0.5, 0.1) + 0.3 * (age == "old")
    people = pd.DataFrame({"smoker": smoker, "age": age, "ill": np.where(ill, "yes", "no")})
    net = models.DiscreteBayesianNetwork([("smoker", "ill"), ("age", "ill")]).fit(people)
    theirs = inference.VariableElimination(net).query(["ill"], evidence={"smoker": "yes"})
    model = DiffusionDensity(denoiser="bayes_net", random_state=0).fit(people)
    asked = pd.DataFrame({"smoker": ["yes"], "age": [None], "ill": [None]})
    ours = model.predict_proba(asked, "ill")[theirs.state_names["ill"]].to_numpy()[0]
    np.testing.assert_allclose(ours, theirs.values, atol=0.01)
