"""Batches that arrive over time: the model is that of all rows so far."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from fits import chain, mixed

from discrete_itd import DiffusionDensity
from discrete_itd.encoders import TableEncoder, streams
from discrete_itd.recipes import Forest


def grown(rows, sizes, denoiser="tree", **settings):
    model = DiffusionDensity(denoiser=denoiser, random_state=0, **settings)
    ends = np.cumsum([0, *sizes])
    for a, b in pairwise(ends):
        model.partial_fit(rows.iloc[a:b])
    return model


@pytest.mark.parametrize("kept", [100, 1000])
@pytest.mark.parametrize("denoiser", ["independent", "tree", Forest(3)], ids=str)
def test_property_it_does_not_matter_how_rows_are_divided_into_batches(monkeypatch, denoiser, kept):
    """Of many rows a uniform sample is kept, and of what is kept the wanted share is held out."""
    monkeypatch.setattr(streams, "SAMPLE_ROWS", kept)
    rows = mixed(600).assign(a=lambda t: t["a"].astype(pd.CategoricalDtype(list("xyz"))))
    model, other = (grown(rows, [100, *later], denoiser) for later in ([500], [1, 250, 249]))
    np.testing.assert_array_equal(model.score_samples(rows), other.score_samples(rows))
    assert model.encoder_.schema == TableEncoder.fit(rows.iloc[:100]).schema
    parts = model._grown.so_far.training_rows(0.1, 0, torch.device("cpu"))
    n = len(parts.x) + len(parts.x_valid)
    assert (n, len(parts.x_valid)) == (min(kept, 600), min(kept, 600) // 10)
    alone = grown(rows, [100], denoiser).score_samples(rows).mean()
    assert model.score_samples(rows).mean() > alone - 0.1


def test_new_categories_are_unseen():
    """They raise the probability of the unseen, or an error; declared ones are known."""
    first, later = pd.DataFrame({"a": ["x", "y"] * 50}), pd.DataFrame({"a": ["new", "x"] * 20})
    model = DiffusionDensity(denoiser="independent", random_state=0).partial_fit(first)
    before = model.score_samples(later)
    after = model.partial_fit(later).score_samples(later)
    assert after[0] > before[0] + 1
    assert after[0] == model.score_samples(pd.DataFrame({"a": ["another"]}))[0]
    declared = first.astype(pd.CategoricalDtype(["new", "x", "y"]))
    model = DiffusionDensity(denoiser="independent", random_state=0).partial_fit(declared)
    assert "new" in model.partial_fit(later).encoder_.schema[0].categories

    strict = DiffusionDensity(denoiser="tree", handle_unknown="error").partial_fit(first)
    scores = strict.score_samples(first)
    with pytest.raises(ValueError, match="column 'a': unseen category 'new'"):
        strict.partial_fit(later)
    np.testing.assert_array_equal(strict.score_samples(first), scores)
    assert strict.partial_fit(first).encoder_ is not None


def test_where_nothing_adds_up():
    rows = chain()
    with pytest.raises(AttributeError) as error:
        _ = DiffusionDensity(denoiser="causal").partial_fit
    assert "needs denoiser='independent', 'tree' or 'forest', which" in str(error.value.__cause__)
    model = grown(rows, [60, 60])
    with pytest.raises(AttributeError) as error:
        DiffusionDensity(denoiser="tree").fit(rows).partial_fit(rows)
    assert "continues what partial_fit began" in str(error.value.__cause__)
    again = pickle.loads(pickle.dumps(model)).partial_fit(rows)
    np.testing.assert_array_equal(
        again.score_samples(rows), grown(rows, [60, 60]).partial_fit(rows).score_samples(rows)
    )
    assert hasattr(model, "partial_fit")
    assert not hasattr(model.fit(rows), "partial_fit")
    with pytest.raises(ValueError, match="feature names"):
        grown(rows, [60]).partial_fit(rows.drop(columns="a"))
    array = np.random.default_rng(0).integers(0, 3, (40, 2))
    counted = DiffusionDensity(denoiser="tree", random_state=0).partial_fit(array)
    assert counted.partial_fit(array[:5]).score_samples(array).shape == (40,)
