"""Densities whose logarithm is linear between nodes: they integrate to one, and mean and quantiles are theirs."""

import math

import numpy as np
import pytest
import torch

from discrete_itd.channel.gaussian import GaussianPosterior, log_linear
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.gaussian import log_masses_in_classes

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


def test_properties_of_quantiles_and_entropies_in_pieces():
    """Closed forms where components lie side by side: a sum over a fine grid, whatever is of weight zero."""
    rng = np.random.default_rng(1)
    nodes, log_f = np.sort(rng.normal(size=(3, 24)), 1), rng.normal(0, 2, (3, 24))
    parts = [t[:, None] for t in log_linear(torch.tensor(nodes), torch.tensor(log_f))]
    q = GaussianPosterior.stacked([GaussianPosterior(*parts), GaussianPosterior(*parts[:3])])
    assert q._in_pieces().tolist() == [True] * 3 + [False] * 3
    u = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).double()
    quantiles = q.pick(lambda t: t[:3]).quantiles(u)
    for i in range(3):
        one = q.pick(lambda t, i=i: t[i : i + 1])
        log_p = one.pick(lambda t: t.expand(len(FINE), -1, -1)).log_prob(FINE[:, None])[:, 0]
        expected = -torch.trapezoid(log_p.exp() * log_p, FINE).item()
        assert one.entropy(Intervals.at).item() == pytest.approx(expected, abs=2e-3)
        below = one.pick(lambda t: t.expand(5, -1, -1)).cdf(quantiles[i][:, None])[:, 0]
        assert below.tolist() == pytest.approx(u.tolist(), abs=1e-6)


@pytest.mark.parametrize("has_bounds", [False, True])
def test_masses_of_many_cells_by_one_product_are_masses(has_bounds):
    """Of narrow and of wide components, in cells that are narrow, wide and points."""
    generator = torch.Generator().manual_seed(0)
    w, mean = torch.randn(2, 4, 1, 9, generator=generator).double()
    var = torch.logspace(-2, 0.5, 9).double().index_fill(0, torch.tensor([0]), 1e-9).expand_as(mean)
    bounds = (torch.full_like(mean, -2.5), torch.full_like(mean, 2.5)) if has_bounds else ()
    q = GaussianPosterior(w, mean, var, *bounds)
    middle = torch.cat([torch.randn(4, 20, generator=generator).double(), mean[:, 0]], 1)
    for width in (torch.zeros_like(middle), torch.rand(29, generator=generator).double() / 5):
        cells = middle.clamp(-2, 2), width.expand_as(middle).contiguous()
        got, expected = q.log_mass_of_few(*cells), q.log_prob(*cells)
        torch.testing.assert_close(got, expected, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("has_bounds", [False, True])
def test_a_mixture_of_many_similar_components_is_that_of_few(has_bounds):
    """Its log-density changes by some thousandths of a nat within three standard deviations, far fewer components.

    Beside those of a few boxes, which are merged by box.
    """
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 1, 2000, generator=generator).double()
    mean = torch.randn(3, 1, 2000, generator=generator).double()
    var = (0.2 + 0.1 * torch.rand(3, 1, 2000, generator=generator).double()).square()
    bounds = ()
    if has_bounds:
        ends = torch.tensor([[-math.inf, -1.5, 0.25], [math.inf, 0.25, 2.0]]).double()
        box = torch.randint(3, mean.shape, generator=generator)
        bounds = ends[0, box], ends[1, box]
        mean = mean.clamp(bounds[0] - 0.3, bounds[1] + 0.3)
    q = GaussianPosterior(w, mean, var, *bounds)
    merged = q._merged()
    assert merged.means.shape[2] < 2000 / (4 if has_bounds else 8)
    for z in torch.linspace(-3, 3, 25).double():
        value = z.expand(3, 1)
        torch.testing.assert_close(merged.log_prob(value), q.log_prob(value), atol=0.008, rtol=0.0)


def test_the_width_of_a_cell_is_no_point_however_small():
    """In single precision it would be zero: a number far out has the logarithm of its width all the same."""
    width = torch.tensor([[1e-300]], dtype=torch.float64)
    z, sd = torch.zeros(1, 2), torch.ones(1, 2)
    got = log_masses_in_classes(z, width, sd, torch.float32)
    expected = math.log(1e-300) - 0.5 * math.log(2 * math.pi)
    assert got.tolist() == [[pytest.approx(expected, rel=1e-6)] * 2]
