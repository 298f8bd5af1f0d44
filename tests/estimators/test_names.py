"""The public names."""

import pandas as pd
import pytest

import discrete_itd
from discrete_itd import DiffusionDensity, DiffusionOutlierDetector

pytestmark = pytest.mark.single_precision


def test_public_names():
    assert discrete_itd.__all__ == [
        "DiffusionDensity", "DiffusionOutlierDetector", "DriftWatch", "ImageDensity", "compare_tables", "datasets",
        "find_errors", "find_graph", "find_near_rows", "find_outliers", "find_rules", "recipes",
        "repair_errors", "report",
    ]  # fmt: skip
    for name in discrete_itd.__all__:
        assert getattr(discrete_itd, name) is getattr(discrete_itd, name)
        assert name in dir(discrete_itd)
    with pytest.raises(AttributeError, match="has no attribute 'Diffusion'"):
        discrete_itd.Diffusion  # noqa: B018


@pytest.mark.parametrize("kind", [DiffusionDensity, DiffusionOutlierDetector])
def test_an_estimator_has_at_most_25_public_attributes(kind):
    """Of its own: without its parameters and what it has from scikit-learn, like ``set_params``."""
    coins = pd.DataFrame({"a": ["x", "y"] * 300, "b": ["u", "v"] * 300})
    model = kind(denoiser="tree", random_state=0).fit(coins)
    names = {name for name in {*dir(model), *dir(kind)} if name[0] != "_"}
    own = {
        name for c in kind.__mro__ if c.__module__.startswith("discrete_itd") for name in vars(c)
    }
    of_others = {name for name in names if hasattr(kind, name)} - own
    asked_by_name = {
        name for name in names if name.startswith("set_") and name.endswith("_request")
    }
    asked_by_name.add("get_feature_names_out")  # by scikit-learn's pipelines
    assert len(names - of_others - asked_by_name - set(model.get_params(deep=False))) <= 25
