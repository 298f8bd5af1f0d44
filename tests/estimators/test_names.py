"""The public names, and the old ones that are accepted for one release under a FutureWarning."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import discrete_itd
from discrete_itd import DiffusionDensity, DiffusionOutlierDetector

pytestmark = pytest.mark.single_precision

OLD = {
    "columns": ("column_types", {"a": "nominal"}),
    "unseen": ("handle_unknown", "error"),
    "path": ("schedule", "isotropic"),
    "n_calls": ("n_evaluations", 7),
}
FORMER = ["Codebook", "ColumnPoints", "Denoiser", "Estimate", "MarginalDenoiser"]
FORMER += ["NeuralDenoiser", "Quadrature", "SupportDenoiser", "integral_log_prob", "path_log_prob"]
TABLE = pd.DataFrame({"a": ["x", "y"] * 20, "b": [1, 2, 2, 1] * 10})


@pytest.fixture(scope="module")
def model():
    return DiffusionDensity(denoiser="independent", n_evaluations=4, random_state=0).fit(TABLE)


def test_public_names():
    assert len(discrete_itd.__all__) <= 15
    for name in discrete_itd.__all__:
        assert getattr(discrete_itd, name) is getattr(discrete_itd, name)
        assert name in dir(discrete_itd)
    with pytest.raises(AttributeError, match="has no attribute 'Diffusion'"):
        discrete_itd.Diffusion  # noqa: B018


def test_the_package_is_imported_without_what_is_not_asked_for():
    code = (
        "import discrete_itd, sys; assert 'torch' not in sys.modules\n"
        "discrete_itd.DiffusionDensity, discrete_itd.ImageDensity\n"
        "assert not {'diffusers', 'matplotlib', 'jinja2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FORMER)
def test_names_that_moved_warn_and_say_where_they_are(name):
    with pytest.warns(FutureWarning, match=rf"discrete_itd\.{name} is called (\S+) now") as found:
        old = getattr(discrete_itd, name)
    home = str(found[0].message).split("called ")[1].split(" now")[0].rpartition(".")[0]
    assert getattr(import_module(home), name) is old
    assert found[0].filename == __file__


@pytest.mark.parametrize("old", OLD)
def test_old_parameters_of_the_constructor_and_set_params(old):
    new, value = OLD[old]
    with pytest.warns(FutureWarning, match=f"'{old}' is called '{new}' now") as found:
        made = DiffusionDensity(**{old: value})
    assert found[0].filename == __file__
    assert made.get_params()[new] == value
    assert old not in made.get_params()
    assert clone(made).get_params()[new] == value
    with pytest.warns(FutureWarning, match=f"'{old}'"):
        assert getattr(made, old) == value
    fresh = DiffusionDensity()
    with pytest.warns(FutureWarning, match=f"'{old}'"):
        assert fresh.set_params(**{old: value}).get_params()[new] == value
    with pytest.warns(FutureWarning, match=f"'{old}'"):
        setattr(fresh, old, None)
    assert getattr(fresh, new) is None
    with (
        pytest.warns(FutureWarning),
        pytest.raises(TypeError, match=f"'{old}' is the old name of '{new}'"),
    ):
        DiffusionDensity(**{old: value, new: value})


def test_old_parameters_within_other_estimators():
    detector = DiffusionOutlierDetector(DiffusionDensity())
    with pytest.warns(FutureWarning, match="'n_calls'"):
        detector.set_params(density__n_calls=5)
    assert detector.get_params()["density__n_evaluations"] == 5
    pipeline = make_pipeline(FunctionTransformer(), DiffusionDensity())
    with pytest.warns(FutureWarning, match="'path'"):
        pipeline.set_params(diffusiondensity__path="isotropic")
    assert clone(pipeline).get_params()["diffusiondensity__schedule"] == "isotropic"


def test_the_old_value_of_handle_unknown_is_the_new_one(tmp_path):
    old = DiffusionDensity(denoiser="independent", handle_unknown="raise", random_state=0)
    with pytest.warns(FutureWarning, match="handle_unknown: 'raise' is called 'error' now"):
        old.fit(TABLE)
    assert old.handle_unknown == "raise"  # parameters are never changed
    with pytest.raises(ValueError, match="column 'a': unseen category 'z'"):
        old.score_samples(TABLE.assign(a="z"))
    with pytest.warns(FutureWarning, match="handle_unknown: 'raise'"):
        old.save(tmp_path / "m")
    assert DiffusionDensity.load(tmp_path / "m").handle_unknown == "error"


def test_old_parameters_of_methods(model):
    for method in ("log_prob", "explain"):
        with pytest.warns(FutureWarning, match=f"{method}: 'tol' is called 'max_stderr' now"):
            got = getattr(model, method)(TABLE, tol=1.0)
        np.testing.assert_array_equal(got, getattr(model, method)(TABLE, max_stderr=1.0))


def test_old_methods_and_attributes(model):
    with pytest.warns(FutureWarning, match=r"encode\(X\) is called rows\(X\) now"):
        x, log_volume = model.encode(TABLE)
    rows = model.rows(TABLE)
    assert x.equal(rows.x)
    np.testing.assert_array_equal(log_volume, rows.log_volume)
    with pytest.warns(FutureWarning, match="'path_table_' is called 'schedule_table_' now"):
        assert model.path_table_ is model.schedule_table_
    assert "FutureWarning" not in model._repr_html_()
