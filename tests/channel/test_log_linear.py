"""Densities whose logarithm is linear between nodes: they integrate to one, and mean and quantiles are theirs."""

import numpy as np
import pytest
import torch

from discrete_itd.channel.gaussian import GaussianPosterior, log_linear

FINE = torch.linspace(-20, 20, 100_001, dtype=torch.float64)


@pytest.mark.slow
def test_densities_between_nodes_integrate_to_one_with_their_mean_and_quantiles():
    rng = np.random.default_rng(0)
    nodes, log_f = np.sort(rng.normal(size=(3, 24)), 1), rng.normal(0, 3, (3, 24))
    nodes[:, 5], log_f[:, 5] = nodes[:, 6], log_f[:, 6]  # equal nodes count as one
    log_f[0, 8:12] = 800.0  # far from the range of numbers
    parts = log_linear(torch.tensor(nodes), torch.tensor(log_f))
    q, u = GaussianPosterior(*(t[:, None] for t in parts)), torch.tensor([1e-3, 0.02, 0.5, 0.999])
    for i, log_total in enumerate(parts[0].logsumexp(1).tolist()):
        own = q.pick(lambda t, i=i: t[[i]])
        p = own.pick(lambda t: t.expand(len(FINE), -1, -1)).log_prob(FINE[:, None])[:, 0].exp()
        assert torch.trapezoid(p, FINE).item() == pytest.approx(1, abs=1e-3)
        mean = torch.trapezoid(p * FINE, FINE).item()
        assert own.mean().item() == pytest.approx(mean, abs=1e-3)
        assert own.expectation(lambda z: z).item() == pytest.approx(mean, abs=0.02)
        below = torch.cumulative_trapezoid(p, FINE)
        at = torch.searchsorted(FINE, own.quantiles(u)[0])
        assert below[at - 1].tolist() == pytest.approx(u.tolist(), abs=2e-3)
        at_nodes = own.pick(lambda t: t.expand(24, -1, -1)).log_prob(
            torch.tensor(nodes[i])[:, None]
        )
        there = torch.tensor(log_f[i]) > -700 + log_f[i].max()
        torch.testing.assert_close(
            at_nodes[there, 0], torch.tensor(log_f[i])[there] - log_total, rtol=1e-6, atol=1e-3
        )
