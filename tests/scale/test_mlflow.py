"""A model kept in MLflow, by the recipe of the guide, answers as it did before, and nothing of it is a pickle."""

import os
from pathlib import Path

import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.scale import BatchScoring
from tests.examples import levels, of_guide

pytestmark = [
    pytest.mark.single_precision,
    pytest.mark.filterwarnings("ignore"),  # of MLflow and what it imports
]


@pytest.mark.slow
def test_a_model_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than the extra
    mlflow = pytest.importorskip("mlflow.pyfunc") and pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    try:
        X = levels(120)
        detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(X)
        detector.save("detector.safetensors")
        Path("scorer.py").write_text(of_guide("scale", "load_context"))
        told = {"mlflow": mlflow}
        with mlflow.start_run():
            exec(of_guide("scale", "log_model"), told)
        content = Path("detector.safetensors").read_bytes()
        wanted = BatchScoring("detector.safetensors", keep=())(X)
        for name in ("detector.safetensors", "scorer.py"):
            os.remove(name)  # MLflow has its own
        uri = told["info"].model_uri
        found = mlflow.pyfunc.load_model(uri).predict(X)
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        (kept,) = folder.rglob("detector.safetensors")
        assert kept.read_bytes() == content
        assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    finally:
        mlflow.set_tracking_uri(before)
