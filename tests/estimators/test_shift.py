"""Weights for a shifted population: one model learns old and new rows, told apart by a column."""

import itertools

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity

DENOISERS = ("tree", "bayes_net", "forest")
ALL = pd.DataFrame(itertools.product("abc", "uv", "xy"), columns=["a", "b", "c"])


def sample(n, shares, seed):
    rng = np.random.default_rng(seed)
    a = rng.choice(list("abc"), n, p=shares)
    b = np.where(rng.random(n) < np.where(a == "a", 0.9, 0.2), "u", "v")
    return pd.DataFrame({"a": a, "b": b, "c": rng.choice(["x", "y"], n)})


def fitted(denoiser, old, new):
    both = pd.concat([old.assign(sample="old"), new.assign(sample="new")], ignore_index=True)
    return DiffusionDensity(denoiser=denoiser, random_state=0).fit(both)


def log_p(model, frame, which):
    return model.log_prob(frame.assign(sample=which), given=["sample"]).log_prob


def weights(model, frame):
    return np.exp(log_p(model, frame, "new") - log_p(model, frame, "old"))


@pytest.mark.parametrize("denoiser", DENOISERS)
def test_properties_of_weights(denoiser):
    """Their mean over the old population is one, and the drift of a row is the sum of that of its columns."""
    old, new = sample(800, [0.6, 0.2, 0.2], 0), sample(800, [0.2, 0.2, 0.6], 1)
    model = fitted(denoiser, old, new)
    found = weights(model, ALL)
    mean = np.exp(log_p(model, ALL, "old")) @ found  # without the levels of what was never seen
    assert mean == pytest.approx(1, abs=2e-3)
    assert found[ALL["a"] == "c"].min() > 1.5 > 0.7 > found[ALL["a"] == "a"].max()
    nats = [
        model.explain(ALL.assign(sample=s), given=["sample"]).drop(columns="sample")
        for s in ("old", "new")
    ]
    np.testing.assert_allclose((nats[0] - nats[1]).sum(axis=1), np.log(found), atol=1e-6)


@pytest.mark.parametrize("denoiser", ["tree", "bayes_net"])
def test_weights_of_one_population_are_one_and_all_rows_count(denoiser):
    old = sample(800, [0.6, 0.2, 0.2], 0)
    found = weights(fitted(denoiser, old, old), old)
    np.testing.assert_allclose(found, 1, atol=1e-6)
    assert found.sum() ** 2 / (found**2).sum() == pytest.approx(len(old))
