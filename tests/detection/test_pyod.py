"""The detector as one of PyOD's; PyOD's own tests of a detector run on it where its repository is unpacked."""

import importlib.util
import os
import unittest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

pytest.importorskip("pyod")
pytestmark = pytest.mark.filterwarnings("ignore")  # PyOD's own

from pyod.utils.ad_engine import ADEngine  # noqa: E402

from discrete_itd import DiffusionDensity  # noqa: E402
from discrete_itd.detection.out_of_fold import in_order, out_of_fold  # noqa: E402
from discrete_itd.detection.pyod import ITD, add_to  # noqa: E402


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(0)
    colour = rng.choice(["red", "green"], 200)
    size = np.where(colour == "red", 0.0, 5.0) + rng.normal(size=200)
    rows = pd.DataFrame({"colour": colour, "size": size})
    rows.loc[:9, "size"] = 5.0 - rows.loc[:9, "size"].where(rows.colour == "green", 0.0)
    return rows


def test_signs_and_shares_are_those_of_pyod(mixed):
    model = ITD(0.05, DiffusionDensity(denoiser="tree"), random_state=0).fit(mixed)
    assert model.labels_.sum() == 10
    assert ((model.decision_scores_ > model.threshold_) == model.labels_).all()
    np.testing.assert_array_equal(
        model.decision_function(mixed), -model.detector_.score_samples(mixed)
    )
    # its scores of the training rows are of models that did not see them
    folds = out_of_fold(model.detector_, mixed)
    left_out = -in_order(folds, [fold.scores for fold in folds])
    np.testing.assert_array_equal(model.decision_scores_, left_out)
    odd = pd.DataFrame({"colour": ["red"], "size": [9.0]})
    assert model.predict(odd) == [1]
    assert model.predict_proba(odd)[0, 1] > 0.9
    assert clone(model).get_params()["contamination"] == 0.05


def test_the_engine_finds_and_runs_it(mixed):
    engine = add_to(ADEngine(random_state=0))
    assert "ITD" in {entry["name"] for entry in engine.list_detectors(data_type="tabular")}
    numbers = mixed[["size"]].assign(other=mixed["size"] ** 2)
    plan = engine.make_plan(["ITD"], params=[{"density": DiffusionDensity(denoiser="independent")}])
    result = engine.run_detection(numbers.to_numpy(), plan)
    assert len(result["scores_train"]) == len(numbers)


def test_the_tests_that_pyod_has_for_a_detector_hold(monkeypatch):
    folder = os.environ.get("DISCRETE_ITD_PYOD", "")
    path = Path(folder) / "pyod" / "test" / "test_ecod.py"
    if not folder or not path.is_file():
        pytest.skip("DISCRETE_ITD_PYOD does not name a folder with PyOD's repository")
    spec = importlib.util.spec_from_file_location("test_ecod", path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    density = DiffusionDensity(denoiser="mixture", random_state=0)
    monkeypatch.setattr(
        theirs, "ECOD", lambda **others: ITD(density=density, random_state=0, **others)
    )
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(theirs.TestECOD)
    result = unittest.TextTestRunner().run(suite)
    assert result.wasSuccessful()
    assert result.testsRun > 15
