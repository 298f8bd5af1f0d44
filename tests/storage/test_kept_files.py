"""Files that were written before are read, or the format has another number."""

import json

import numpy as np
import pytest
from kept import FOLDER, RECIPES, SCORES, scores, table

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch, recipes

ANEW = (
    "raise FORMAT in storage/files.py, then write the kept files anew: python -m tests.storage.kept"
)


@pytest.mark.single_precision
@pytest.mark.parametrize("name", [*RECIPES, "detector"])
def test_a_kept_model_scores_as_it_did(name):
    cls = DiffusionOutlierDetector if name == "detector" else DiffusionDensity
    try:
        model = cls.load(FOLDER / f"{name}.safetensors")
    except ValueError as error:
        pytest.fail(f"{error}: {ANEW}")
    expected = json.loads(SCORES.read_text())[name]
    np.testing.assert_allclose(scores(model), expected, rtol=1e-4, err_msg=ANEW)
    if name == "detector":
        watch = DriftWatch.load(FOLDER / "watch.safetensors", model)
        assert watch.n_rows_ == len(table())


def test_there_is_a_file_of_every_recipe_that_makes_a_denoiser_of_its_own():
    choosing = {recipes.Auto, recipes.Best}  # one of the others
    assert {type(recipe) for recipe in RECIPES.values()} == {*recipes.RECIPES} - choosing
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 150_000
