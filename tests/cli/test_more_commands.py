"""The commands drift and describe."""

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector
from tests.examples import run

pytestmark = pytest.mark.single_precision
N = 800


def table(seed, n=N):
    random = np.random.default_rng(seed)
    side = random.choice(["left", "right"], n)
    frame = pd.DataFrame({"side": side, "hand": side, "price": random.lognormal(size=n).round(2)})
    frame.loc[random.random(n) < 0.05, "hand"] = "left"
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("more")
    frame = table(0)
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(frame)
    detector.save(place / "d")
    detector.density_.save(place / "m")
    frame = table(1)
    frame.to_csv(place / "same.csv", index=False)
    frame.assign(price=3 * frame["price"]).to_csv(place / "moved.csv", index=False)
    table(2).to_csv(place / "held.csv", index=False)
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
    assert "drift needs a detector" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_describe(capsys):
    run("describe d")
    assert (
        capsys.readouterr().out.strip() == DiffusionOutlierDetector.load("d").model_card().strip()
    )
    run("describe m")
    assert len(capsys.readouterr().out) > 500
