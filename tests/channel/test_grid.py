"""Densities on grids: they integrate to one, and mean, quantiles, draws and updates are theirs."""

import numpy as np
import pytest
import torch

from discrete_itd.channel.posterior import GaussianPosterior, GridPosterior

FINE = torch.linspace(-20, 20, 400_001, dtype=torch.float64)


def random_grid(seed=0, n=3):
    """A row with a Gaussian, and rows with a grid of random heights, in the first of two columns."""
    rng = np.random.default_rng(seed)
    nodes = np.sort(rng.normal(size=(n, 24)), 1)
    nodes[:, 5] = nodes[:, 6]  # equal nodes count as one
    log_f = rng.normal(0, 3, (n, 24))
    log_f[:, 5] = log_f[:, 6]
    log_f[0, 8:12] = 800.0  # far from the range of numbers
    flat = torch.zeros(n + 1, 2, 1, dtype=torch.float64)
    place = torch.full((n + 1, 2), -1)
    place[1:, 0] = torch.arange(n)
    grids = torch.tensor(nodes), torch.tensor(log_f)
    return GridPosterior(GaussianPosterior(flat, flat, flat + 1.0), place, *grids)


def density(q, row):
    values = torch.stack([FINE, torch.zeros_like(FINE)], 1)
    own = q.pick(lambda t: t[row : row + 1].expand(len(FINE), *t.shape[1:]))
    return own.log_prob(values)[:, 0].exp()


def test_densities_integrate_to_one_with_their_mean_and_quantiles():
    q = random_grid()
    u = torch.tensor([1e-6, 0.02, 0.3, 0.5, 0.9, 1 - 1e-6])
    own = q.pick(lambda t: t[1:, :1])
    for i in range(4):
        p = density(q, i)
        assert torch.trapezoid(p, FINE).item() == pytest.approx(1, abs=1e-3)
        mean = torch.trapezoid(p * FINE, FINE).item()
        assert q.mean()[i, 0].item() == pytest.approx(mean, abs=1e-3)
        if i:
            assert own.expectation(lambda z: z)[i - 1].item() == pytest.approx(mean, abs=2e-3)
            size = torch.trapezoid(p * FINE.abs(), FINE).item()
            assert own.expectation(torch.abs)[i - 1].item() == pytest.approx(size, abs=2e-3)
            below = torch.cumulative_trapezoid(p, FINE)
            at = torch.searchsorted(FINE, own.quantiles(u)[i - 1])
            assert below[at - 1].tolist() == pytest.approx(u.tolist(), abs=1e-3)
    assert q.mean()[:, 1].tolist() == [0.0] * 4
