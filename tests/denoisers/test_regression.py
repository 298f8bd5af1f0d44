"""Regressions from which the network of a causal denoiser starts."""

import math

import numpy as np
import pytest
import torch
from laws import real, simplex

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import CausalDenoiser, MarginalDenoiser
from discrete_itd.denoisers.causal import share_of_second, start_from_regressions


def table(n=2000, seed=0, missing=0.0):
    """A category, a number and a third column: 0.3 of the number, a constant for each category and noise."""
    random = np.random.default_rng(seed)
    code, number = random.integers(0, 3, n), 0.5 * random.normal(size=n)
    noise = 0.01 * random.normal(size=n)
    x = np.column_stack([code, number, 0.3 * number + np.array([-0.5, 0.1, 0.4])[code] + noise])
    x[random.random(x.shape) < missing] = np.nan
    return torch.from_numpy(x)


def started(order, x):
    book = Codebook([simplex(3), real(), real()])
    denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), order, width=8, depth=1)
    denoiser.eval().requires_grad_(False)
    before = denoiser.log_factors(x[:50]).double()
    start_from_regressions(denoiser, x)
    return denoiser, before


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_sum_of_the_columns_before_starts_as_precise_as_least_squares(missing):
    x, new = table(missing=missing), table(500, seed=1)
    denoiser, _ = started([0, 1, 2], x)
    told = denoiser.log_factors(new)[:, 2].detach().double().mean()
    best = -math.log(0.01 * math.sqrt(2 * math.pi * math.e))  # of the noise
    assert best - (0.1 if missing == 0 else 0.8) < float(told) < best + 0.1


def test_what_comes_before_nothing_starts_as_the_base_and_density_stays_one():
    x = table()
    denoiser, before = started([2, 0, 1], x)
    after = denoiser.log_factors(x[:50]).double()
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])  # category, and the first of the order
    assert not torch.equal(after[:, 1], before[:, 1])
    grid = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    rows = x[:1].repeat(len(grid), 1)
    rows[:, 1] = grid
    total = denoiser.log_factors(rows)[:, 1].double().exp().sum() * (grid[1] - grid[0])
    assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_no_column_hears_what_comes_after_it():
    denoiser, _ = started([1, 2, 0], table())
    skip = denoiser.network.skip
    assert bool((skip.weight[skip.mask == 0] == 0).all())
    assert bool((skip.weight != 0).any())


@pytest.mark.parametrize("x", [table(20), table()[:, :1]], ids=["few rows", "no numbers"])
def test_where_there_is_nothing_to_fit_the_network_starts_as_its_base(x):
    book = Codebook([simplex(3), real(), real()][: x.shape[1]])
    denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), range(x.shape[1]), width=8).eval()
    before = denoiser.log_prob(x)
    start_from_regressions(denoiser, x)
    assert torch.equal(denoiser.log_prob(x), before)


def test_the_share_is_that_of_maximum_likelihood():
    random = np.random.default_rng(0)
    first, second = torch.from_numpy(random.normal(size=(2, 400, 1)))
    nats = [
        float(torch.logaddexp(first + math.log(1 - w), second + math.log(w)).mean())
        for w in np.linspace(0.001, 0.999, 999)
    ]
    assert float(share_of_second(first, second)) == pytest.approx(
        0.001 * (1 + int(np.argmax(nats))), abs=0.02
    )


def test_features_too_large_for_float64_change_nothing(monkeypatch):
    x = table()
    denoiser, before = started([1, 2, 0], x[:20])
    n = len(denoiser.features.feature_column)
    with monkeypatch.context() as patched:
        patched.setattr(denoiser.features, "describe_cells", lambda x: 1e12 * x[:, [1] * n])
        start_from_regressions(denoiser, x)
    assert torch.equal(denoiser.log_factors(x[:20]).double(), before)
