"""The split by scale adds up to the log-probability, and says where a row is strange."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_cell_conditionals import QUICK, ROWS, TABLE, exact_density, mixed_model

from discrete_itd import DiffusionDensity
from discrete_itd.channel import Quadrature
from discrete_itd.detection.scales import explain_scales
from discrete_itd.likelihood import integral_log_prob


@pytest.mark.parametrize("options", [{}, {"n_bands": 1}, {"edges": (-4.0, 0.5, 1.5, 5.0)}])
def test_scales_add_up_to_the_log_probability(options):
    """With the oracle, within the standard error, and to the marginals on the left."""
    density, p, marginals = exact_density()
    split = explain_scales(density, ROWS, n_points=128, **options)
    z = (split.nats.sum(axis=1) + np.log(p)) / split.stderr
    assert abs(z).max() < 5  # the integrand is skewed
    assert (z**2).mean() < 3
    assert split.stderr.max() < 0.5
    own = sum(
        np.log(m)[ROWS[c].astype("category").cat.codes]
        for c, m in zip(ROWS, marginals, strict=True)
    )
    np.testing.assert_allclose(split.nats["independent"], -own, rtol=1e-4)


def test_bands_are_parts_of_one_integral():
    """Merged bands hold the sum of their parts, within the noise."""
    density, _, _ = exact_density()
    edges = (-4.0, 0.5, 1.5, 5.0)
    fine = explain_scales(density, ROWS, edges=edges, n_points=128)
    coarse = explain_scales(density, ROWS, edges=(-4.0, 1.5, 5.0), n_points=128)
    merged = fine.nats.iloc[:, 1] + fine.nats.iloc[:, 2]
    error = np.hypot(fine.stderr, coarse.stderr)
    assert (abs(merged - coarse.nats.iloc[:, 1]) / error).max() < 4
    assert fine.nats.columns.tolist() == ["independent", "below 0.5", "0.5 to 1.5", "above 1.5"]


def test_independent_columns_have_nothing_at_any_scale():
    untrained = DiffusionDensity(**{**QUICK, "max_steps": 0}).fit(TABLE)
    split = explain_scales(untrained, TABLE[:9])
    assert abs(split.nats.iloc[:, 1:]).max(axis=None) < 1e-3
    np.testing.assert_allclose(
        split.nats.sum(axis=1), -untrained.score_samples(TABLE[:9]), rtol=1e-4
    )


def test_mixed_columns_add_up():
    model = mixed_model()
    rows = TABLE[:60].mask(np.random.default_rng(0).random((60, 5)) < 0.1)
    split = explain_scales(model, rows)
    score = model.log_prob(rows)
    z = (split.nats.sum(axis=1) + score.log_prob) / np.hypot(split.stderr, score.stderr)
    assert abs(z.mean()) < 0.6  # a short training's posteriors contradict one another a little
    assert split.nats.index.equals(rows.index)
    # of the row alone
    one = explain_scales(model, rows[5:6])
    np.testing.assert_allclose(one.nats, split.nats[5:6], atol=1e-3)


def test_the_split_is_of_the_integral():
    """Where tails are long and the network contradicts itself, it is still what the integral says."""
    model = mixed_model()
    encoded = model.rows(TABLE[:20])
    x, log_volume = encoded.x, encoded.log_volume
    quadrature = Quadrature(torch.linspace(1.0, 4.0, 33), torch.ones(32))
    integral = integral_log_prob(
        model.denoiser_,
        x,
        quadrature,
        baseline=model.model_.marginals,
        n_points=512,
        generator=torch.Generator().manual_seed(0),
    )
    split = explain_scales(model, TABLE[:20], edges=(1.0, 2.0, 3.0, 4.0), n_points=96)
    total = split.nats.sum(axis=1) + log_volume.sum(1)
    error = np.hypot(split.stderr, integral.stderr.numpy())
    assert (abs(total + integral.log_prob.numpy()) / error).max() < 4.5
    assert abs((total + integral.log_prob.numpy()).mean()) < 3 * (error**2).mean() ** 0.5 / 20**0.5


def test_what_is_missing_has_a_column_of_its_own():
    rng = np.random.default_rng(1)
    a = rng.random(400) < 0.5
    frame = pd.DataFrame({"a": a, "b": pd.Series(rng.choice(["u", "v"], 400)).mask(a)})
    density = DiffusionDensity(**QUICK, missing="category").fit(frame)
    split = explain_scales(density, frame[:20], n_points=64)
    assert split.nats.columns[0] == "missing"
    score = density.log_prob(frame[:20])
    error = np.hypot(split.stderr, score.stderr) + 0.3
    assert (abs(split.nats.sum(axis=1) + score.log_prob) / error).max() < 4
    p = np.exp(-split.nats["missing"])
    gone = frame["b"][:20].isna().to_numpy()
    np.testing.assert_allclose(p[gone], p[gone].iloc[0])
    assert abs(p[gone].iloc[0] + p[~gone].iloc[0] - 1) < 1e-6


def test_wrong_arguments():
    density, _, _ = exact_density()
    with pytest.raises(ValueError, match="edges must be at least two increasing numbers"):
        explain_scales(density, ROWS, edges=(1.0, 1.0))
    with pytest.raises(ValueError, match="edges must be at least two increasing numbers"):
        explain_scales(density, ROWS, edges=(1.0,))
    with pytest.raises(ValueError, match="edges must be at least two increasing numbers"):
        explain_scales(density, ROWS, edges=(-math.inf, 0.0, 1.0))
    with pytest.raises(TypeError, match="edges must be a sequence of numbers, got 5"):
        explain_scales(density, ROWS, edges=5)
    with pytest.raises(ValueError, match="n_points must be even, got 5"):
        explain_scales(density, ROWS, n_points=5)
    with pytest.raises(ValueError, match="n_bands must be at least 1"):
        explain_scales(density, ROWS, 0)
