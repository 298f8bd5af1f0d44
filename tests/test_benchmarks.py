"""The commands of the results still run: each benchmark that needs no outside data, on little."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks import detectors

RUNS = {
    "density": "asia --rows 1000 --max-time 0.5 --paths 2",
    "speed": "asia --max-time 0.5 --max-stderr 1",  # so short a training leaves wide errors
    "conditionals": "car --quick --fractions 0.3 --asked buying safety",
    "missing": "--quick --network asia --fractions 0.3 --rows 500 --test-rows 30",
    "vocabulary": "--quick --categories 300 --rows 3000 --test-rows 50",
    "anomaly": "categorical mushroom --quick --seeds 4",
    "validity": "car --quick",
    "drift_columns": "--denoiser tree --repeats 1 --only mushroom",
    "drift_level": "--quick",
    "watch": "--quick",
    "promises": "ties mass --quick",
    "explanations": "car --quick --cells 1 2",
    "budgets": "adult --quick --seeds 1",
    "entropy": "--max-time 1 --dimensions 2 --rows 500 --tests 10 --truths Gaussian",
    "synthetic": "adult --quick --methods default mixture bootstrap --folder nowhere",
    "images": "--train-time 4 --tune-time 2 --tests 12 --points 8 --paths 1",
    "features": "discrete_itd scikit-learn",
}


SCRIPTS = sorted(path.stem for path in Path(__file__).parent.joinpath("benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_can_be_imported(name):
    assert importlib.import_module(f"tests.benchmarks.{name}").__doc__


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_runs(name, monkeypatch, tmp_path, capsys):
    module = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr("tests.benchmarks.tables.CACHE", tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *RUNS[name].split()])
    module.main()
    printed = capsys.readouterr().out
    assert "|---|" in printed
    assert "nan" not in printed


STUB = """
import torch

class TCCM:
    def __init__(self, n_features, epochs, learning_rate, batch_size):
        self.scale = torch.rand(n_features)
    def fit(self, X):
        self.scale += torch.rand(len(self.scale))
    def decision_function(self, X):
        return (X @ self.scale.numpy()).astype("float32")
"""


def test_a_detector_of_a_paper_is_run_from_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISCRETE_ITD_TCCM", raising=False)
    assert not detectors.is_unpacked("TCCM")
    assert "skipped TCCM: DISCRETE_ITD_TCCM" in capsys.readouterr().out

    tmp_path.joinpath("FMAD").mkdir()
    tmp_path.joinpath("FMAD", "FlowMatchingAD.py").write_text(STUB)
    monkeypatch.setenv("DISCRETE_ITD_TCCM", str(tmp_path))
    for name in ("FMAD", "FMAD.FlowMatchingAD"):  # neither before nor after this test
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    assert detectors.is_unpacked("TCCM")
    rows, before = np.array([[1.0, 2.0], [3.0, np.nan]]), torch.get_rng_state()
    first, again, other = (detectors.OF_PAPERS["TCCM"](rows, rows, seed) for seed in (0, 0, 1))
    assert first.scores[0] == again.scores[0] != other.scores[0]
    assert first.scores[1] == 0  # of what is not a number
    assert torch.equal(before, torch.get_rng_state())
