"""Batches that arrive over time: the model is that of all rows so far."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fits import chain, mixed

from discrete_itd import DiffusionDensity
from discrete_itd.reading import frames
from discrete_itd.recipes import Forest


def grown(rows, sizes, denoiser="tree"):
    model = DiffusionDensity(denoiser=denoiser, random_state=0)
    for a, b in pairwise(np.cumsum([0, *sizes])):
        model.partial_fit(rows.iloc[a:b])
    return model


@pytest.mark.parametrize("kept", [100, 1000])
@pytest.mark.parametrize("denoiser", ["independent", Forest(3)], ids=str)
def test_property_it_does_not_matter_how_rows_are_divided_into_batches(monkeypatch, denoiser, kept):
    """The model is that of a fit to all rows; of many, to a uniform sample."""
    monkeypatch.setattr(frames, "SAMPLE_ROWS", kept)
    rows = mixed(150)
    model, other = (grown(rows, [50, *later], denoiser) for later in ([100], [1, 99]))
    np.testing.assert_array_equal(model.score_samples(rows), other.score_samples(rows))
    assert model.encoder_.schema[0].n_rows == min(kept, 150)
    if kept > 150:
        fitted = DiffusionDensity(denoiser=denoiser, random_state=0).fit(rows)
        np.testing.assert_array_equal(model.score_samples(rows), fitted.score_samples(rows))


def test_rows_of_a_batch_that_is_refused_are_not_learned():
    rows = chain()
    model = grown(rows, [60])
    scores = model.score_samples(rows)
    for wrong in (rows.drop(columns="a"), rows.assign(a=1j)):
        with pytest.raises((ValueError, TypeError), match=r"feature names|column 'a'"):
            model.partial_fit(wrong)
        np.testing.assert_array_equal(model.score_samples(rows), scores)
    model.partial_fit(rows.iloc[60:120])
    other = grown(rows, [60, 60])
    np.testing.assert_array_equal(model.score_samples(rows), other.score_samples(rows))
    array = np.random.default_rng(0).integers(0, 3, (40, 2))
    counted = DiffusionDensity(denoiser="tree", random_state=0).partial_fit(array)
    assert counted.partial_fit(array[:5]).score_samples(array).shape == (40,)
    assert counted.encoder_.schema[0].n_rows == 45


def test_it_continues_what_it_began():
    rows = chain()
    model = grown(rows, [60, 60])
    again = pickle.loads(pickle.dumps(model)).partial_fit(rows)
    np.testing.assert_array_equal(
        again.score_samples(rows), grown(rows, [60, 60]).partial_fit(rows).score_samples(rows)
    )
    with pytest.raises(AttributeError, match="partial_fit"):
        model.fit(rows).partial_fit(rows)
    more = pd.DataFrame({"a": ["x", "y"] * 30}), pd.DataFrame({"a": ["new", "x"] * 20})
    model = DiffusionDensity(denoiser="independent", random_state=0)
    for batch in more:
        model.partial_fit(batch)
    assert "new" in model.encoder_.schema[0].categories
