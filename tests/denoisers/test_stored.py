"""Models of earlier releases are read, and score as they did."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.make import table

from discrete_itd import DiffusionDensity

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASES = sorted(p.stem for p in FIXTURES.glob("*.safetensors"))


def test_there_are_stored_models():
    assert "release-0.1" in RELEASES


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_a_stored_model_scores_as_it_did(release, kind):
    path = FIXTURES / f"{release}.{kind}"
    model = (
        DiffusionDensity.load(path) if kind == "safetensors" else pickle.loads(path.read_bytes())
    )
    frame = table()
    expected = json.loads((FIXTURES / f"{release}.json").read_text())["scores"]
    np.testing.assert_allclose(model.score_samples(frame), expected, rtol=1e-4)
    rows = model.sample(5, random_state=0)
    pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
    assert model.impute(frame).notna().all(axis=None)
    assert model.predict_proba(frame, "word").shape == (40, 3)
