"""Models kept in MLflow answer as they did before, and nothing of them is a pickle."""

import json

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.scale import BatchScoring
from discrete_itd.scale import mlflow as flavour
from discrete_itd.storage.files import content_digest
from tests.examples import levels

pytestmark = [
    pytest.mark.single_precision,
    pytest.mark.filterwarnings("ignore"),  # of MLflow and what it imports
]


def table(n=120):
    whole = pd.Series(range(n), dtype="Int64") % 3
    return levels(n).drop(columns="truth").assign(gaps=whole.mask(whole.index % 9 == 0))


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than the extra
    mlflow = pytest.importorskip("mlflow.pyfunc") and pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield mlflow
    mlflow.set_tracking_uri(before)


def test_models_come_back(tracked, tmp_path):
    X = table()
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(X)
    fitted = DiffusionDensity(denoiser="tree")
    detector = DiffusionOutlierDetector(fitted, false_alarm_rate=0.1, random_state=0).fit(X)
    with tracked.start_run():
        info = flavour.log_model(density, "density")
    flavour.save_model(detector, tmp_path / "folder", outputs=["alarm", "reason", "score"])
    for model, uri in ((density, info.model_uri), (detector, str(tmp_path / "folder"))):
        back = flavour.load_model(uri)
        assert type(back) is type(model)
        assert np.array_equal(back.score_samples(X), model.score_samples(X))
        asked = tracked.pyfunc.load_model(uri)
        model.save(tmp_path / "m")
        outputs = asked.model_config["outputs"]
        wanted = BatchScoring(tmp_path / "m", outputs=outputs, keep=())(X)
        pd.testing.assert_frame_equal(asked.predict(X), wanted, check_exact=True)
        assert asked.metadata.get_output_schema().input_names() == list(wanted)
        assert not set(asked.input_example["size"]) & set(X["size"])  # nobody's rows
    # as MLflow's own types, and with options of its own
    few = tracked.pyfunc.load_model(uri, model_config={"outputs": ["score"]})
    assert list(few.predict(X[:3].astype({"kind": str, "gaps": float}))) == ["score"]
    types = dict(zip(X, few.metadata.get_input_schema().to_dict(), strict=True))
    assert {n: t["type"] for n, t in types.items()} == {
        "word": "string", "kind": "any", "whole": "long", "size": "double", "day": "datetime",
        "gaps": "any",
    }  # fmt: skip


@pytest.mark.usefixtures("tracked")
def test_the_folder_holds_the_model_file_and_ranges(tmp_path):
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(table())
    flavour.save_model(density, tmp_path / "folder")
    files = {p.name for p in (tmp_path / "folder").rglob("*") if p.is_file()}
    assert {"model.safetensors", "model.safetensors.md", "MLmodel", "input_example.json"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".bin"))]
    kept = tmp_path / "folder" / "data" / "model" / "model.safetensors"
    density.save(tmp_path / "m")
    assert content_digest(kept) == content_digest(tmp_path / "m")
    lines = (tmp_path / "folder" / "requirements.txt").read_text().splitlines()
    assert lines == list(flavour.REQUIREMENTS)
    assert not [line for line in lines if "==" in line]
    example = json.loads((tmp_path / "folder" / "input_example.json").read_text())
    assert example["columns"] == list(table())
    told = (tmp_path / "folder" / "MLmodel").read_text()
    for elsewhere in (
        "../m",
        str(tmp_path / "m"),
    ):  # a folder of somebody else names no file of ours
        planted = told.replace("data/model/model.safetensors", elsewhere)
        (tmp_path / "folder" / "MLmodel").write_text(planted)
        with pytest.raises(ValueError, match="lies outside of the folder"):
            flavour.load_model(str(tmp_path / "folder"))
    with pytest.raises(ValueError, match="'alarm'; that needs a detector"):
        flavour.save_model(density, tmp_path / "other", outputs=["alarm"])
    assert not (tmp_path / "other").exists()
