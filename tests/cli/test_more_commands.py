"""The commands drift, evaluate and describe, and the intervals that evaluate prints."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.statistics import auroc_interval, precision_interval
from tests.examples import run

pytestmark = pytest.mark.single_precision
N = 800


def table(seed, n=N):
    random = np.random.default_rng(seed)
    side = random.choice(["left", "right"], n)
    frame = pd.DataFrame({"side": side, "hand": side, "price": random.lognormal(size=n).round(2)})
    odd = random.random(n) < 0.1
    frame.loc[random.random(n) < 0.05, "hand"] = "left"
    return frame, odd


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("more")
    frame, _ = table(0)
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(frame)
    detector.save(place / "d")
    detector.density_.save(place / "m")
    frame, odd = table(1)
    frame.to_csv(place / "same.csv", index=False)
    frame.assign(price=3 * frame["price"]).to_csv(place / "moved.csv", index=False)
    table(2)[0].to_csv(place / "held.csv", index=False)
    frame.loc[odd, "hand"] = np.where(frame.loc[odd, "side"] == "left", "right", "left")
    frame.assign(label=odd.astype(int)).to_csv(place / "labelled.csv", index=False)
    return place


@pytest.fixture
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("place")
def test_drift(capsys):
    run("drift d same.csv --check")
    assert capsys.readouterr().out.startswith("No drift in 800 rows")
    run("drift d moved.csv --reference held.csv --out c.csv")
    assert "Drift in 800 rows" in capsys.readouterr().out
    columns = pd.read_csv("c.csv")
    assert columns["column"].tolist() == ["side", "hand", "price"]
    assert columns.set_index("column")["distance"].idxmax() == "price"
    run("drift d moved.csv --check", code=1)
    run("drift m moved.csv", code=2)
    assert "m: drift needs a detector" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_evaluate(capsys):
    run("evaluate d labelled.csv --label label --out e.csv")
    out = capsys.readouterr().out
    found = pd.read_csv("e.csv").set_index("measure")
    frame = pd.read_csv("labelled.csv")
    odd = frame["label"] == 1
    assert out.splitlines()[0] == f"labelled.csv: 800 rows, {odd.sum()} anomalies; 95 % intervals"
    detector = DiffusionOutlierDetector.load("d")
    rows = frame.drop(columns="label")
    scores, alarm = -detector.score_samples(rows), detector.predict(rows) == -1
    assert found["value"]["AUROC"] == pytest.approx(roc_auc_score(odd, scores))
    precision = average_precision_score(odd, scores)
    assert found["value"]["average precision"] == pytest.approx(precision)
    assert found["value"]["false alarms of inliers"] == pytest.approx(alarm[~odd].mean())
    assert found["value"]["alarms of anomalies"] == pytest.approx(alarm[odd].mean())
    assert found["value"]["anomalies among alarms"] == pytest.approx(odd[alarm].mean())
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()
    words = frame.assign(label=np.where(odd, "bad", "good"))
    words.to_csv("words.csv", index=False)
    run("evaluate m words.csv --label label --anomalies bad --out f.csv")
    assert pd.read_csv("f.csv")["measure"].tolist() == ["AUROC", "average precision"]
    words["label"] = words["label"].mask(words.index == 4)
    words.to_csv("gap.csv", index=False)
    capsys.readouterr()
    for options, said in {
        "words.csv --label label": "which of 'bad', 'good' are anomalies?",
        "words.csv --label label --anomalies worse": "'worse': named in --anomalies, but no row",
        "words.csv --label class": "column 'class': named in --label, but not there",
        "gap.csv --label label --anomalies bad": "gap.csv: row 5: column 'label': the label is",
        "same.csv --label side --anomalies left right": "there must be both",
    }.items():
        run(f"evaluate d {options}", code=2)
        assert said in capsys.readouterr().err
    run("evaluate d same.csv --label side --anomalies left")
    assert "column 'side' is part of the model" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_describe(capsys):
    run("describe d")
    assert (
        capsys.readouterr().out.strip() == DiffusionOutlierDetector.load("d").model_card().strip()
    )
    run("describe m")
    assert len(capsys.readouterr().out) > 500


def test_the_area_is_covered_as_often_as_it_says():
    random = np.random.default_rng(0)
    truth, covered, repeats = 0.9214, 0, 300  # of two Gaussians two standard deviations apart
    for _ in range(repeats):
        is_positive = np.arange(90) < 30
        score = random.normal(size=90) + 2 * is_positive
        interval = auroc_interval(score, is_positive)
        assert interval.value == pytest.approx(roc_auc_score(is_positive, score))
        covered += interval.low <= truth <= interval.high
    assert 0.91 <= covered / repeats <= 0.99


def test_a_perfect_ranking_is_not_known_to_be_one():
    is_positive = np.arange(40) < 10
    area = auroc_interval(is_positive.astype(float), is_positive)
    assert area.value == area.high == 1
    assert 0.8 < area.low < 0.99
    tied = precision_interval(np.zeros(40), is_positive)
    assert tied.value == pytest.approx(0.25)
