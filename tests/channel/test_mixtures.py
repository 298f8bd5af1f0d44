"""Densities that are mixtures of many Gaussians: entropy and quantiles against a slow quadrature, in bounded memory."""

import numpy as np
import pytest
import torch
from scipy import stats

from discrete_itd.channel import gaussian
from discrete_itd.channel.posterior import GaussianPosterior
from discrete_itd.channel.rounded_numbers import Intervals


def mixture(n_rows, n_components, width, seed=0, *, truncated=False):
    random = np.random.default_rng(seed)
    shape = n_rows, 1, n_components
    parts = (
        random.normal(0, 2, shape),
        random.normal(0, 1, shape),
        (width * random.uniform(0.05, 1, shape)) ** 2,
    )
    ends = random.normal(0, 1, shape), random.uniform(0.1, 2, shape)
    low = np.where(random.random(shape) < 0.3, -np.inf, parts[1] + ends[0] * parts[2] ** 0.5)
    high = np.where(low > -np.inf, low, parts[1]) + ends[1] * parts[2] ** 0.5
    high[..., 0] = np.inf
    bounds = (low, high) if truncated else ()
    return GaussianPosterior(*map(torch.from_numpy, (*parts, *bounds)))


def one_by_one(q, i):
    """Points, and density and distribution function there, of one row: a loop over the components."""
    weight, mean, sd = (t[i, 0].numpy() for t in (q.log_weight.exp(), q.means, q.var.sqrt()))
    points = np.unique((mean[:, None] + sd[:, None] * np.linspace(-9, 9, 109)).ravel())
    points = np.unique(np.concatenate([points, (points[1:] + points[:-1]) / 2]))
    none = np.full((2, len(mean)), [[-np.inf], [np.inf]])
    low, high = (t[i, 0].numpy() for t in q.bounds) if q.bounds else none
    ends = np.concatenate([low, high])
    ends = ends[np.isfinite(ends)]
    points = np.unique(np.concatenate([points, ends, np.nextafter(ends, np.inf)]))
    density = np.zeros(len(points))
    for w, m, s, a, b in zip(weight, mean, sd, low, high, strict=True):
        own = stats.norm.pdf(points, m, s) * (points > a) * (points <= b)
        density += w * own / (stats.norm.cdf(b, m, s) - stats.norm.cdf(a, m, s))
    mass = np.diff(points) * (density[1:] + density[:-1]) / 2
    return points, density, np.r_[0, mass.cumsum()]


@pytest.mark.parametrize("width", [0.2, 0.002])
@pytest.mark.parametrize("n_components", [1, 7, 60])
@pytest.mark.parametrize("truncated", [False, True])
def test_entropy_and_quantiles_of_mixtures(n_components, width, truncated):
    q = mixture(3, n_components, width, truncated=truncated)
    u = torch.tensor([0.1, 0.5, 0.9])
    entropy, quantiles = q.entropy(Intervals.at), q.quantiles(u)
    for i in range(3):
        points, density, cdf = one_by_one(q, i)
        surprisal = -np.log(np.maximum(density, 1e-300))
        exact = np.trapezoid(density * surprisal, points)
        assert entropy[i].item() == pytest.approx(exact, abs=0.08)
        np.testing.assert_allclose(
            np.interp(quantiles[i].numpy(), points, cdf), u.numpy(), atol=2e-3
        )


@pytest.mark.parametrize("truncated", [False, True])
def test_quantiles_have_their_share_below_however_far_the_components(truncated):
    """Narrow ones beside one that is a million times as far away as they are wide."""
    of_one = (0.5, 0.0, 1e-8), (0.3, 1.0, 1e-6), (0.2, -1e4, 1.0)
    weight, mean, var = torch.tensor(of_one, dtype=torch.float64).T[:, None, None]
    bounds = (mean - var.sqrt(), mean + 1.0) if truncated else ()
    q, u = GaussianPosterior(weight.log(), mean, var, *bounds), torch.linspace(0.05, 0.95, 8)
    below = [q.cdf(at[:, None]) for at in q.quantiles(u).T]
    torch.testing.assert_close(torch.cat(below)[:, 0], u.double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("at", [0.0, -7.0, 12.0, -60.0, 1e3])
@pytest.mark.parametrize("width", [3.0, 1e-2, 1e-9])
def test_distribution_functions_keep_their_digits_far_out(at, width):
    """The logarithm of the share below, from the masses of two cells."""
    low, share = torch.full((1, 1, 1), at, dtype=torch.float64), torch.linspace(0.1, 0.9, 5)
    q = GaussianPosterior(low * 0, low * 0, low * 0 + 1, low, low + width)
    values = low[:, 0] + width * share
    own = gaussian.log_between(low.expand(1, 5, 1), values[..., None])
    exact = (own - gaussian.log_between(low, low + width))[..., 0].exp()
    torch.testing.assert_close(q.cdf(values), exact, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("n_components", [1, 7, 60])
@pytest.mark.parametrize("truncated", [False, True])
def test_expected_values_of_mixtures(n_components, truncated):
    """Of the number, against the closed form; of another function, against a slow quadrature."""
    q = mixture(3, n_components, 0.5, truncated=truncated)
    mean, other = q.expectation(lambda z: z), q.expectation(lambda z: z.abs().sqrt())
    for i in range(3):
        points, density, _ = one_by_one(q, i)
        exact = q.mean()[i, 0].item()
        assert np.trapezoid(density * points, points) == pytest.approx(exact, abs=2e-3)
        sd = np.sqrt(np.trapezoid(density * (points - exact) ** 2, points))
        assert mean[i].item() == pytest.approx(exact, abs=0.02 * sd)
        exact = np.trapezoid(density * np.abs(points) ** 0.5, points)
        assert other[i].item() == pytest.approx(exact, rel=0.02)


def test_a_row_is_its_own_whatever_stands_beside_it():
    q = mixture(9, 70, 0.1)
    q.log_weight[::2] = torch.log_softmax(8 * q.log_weight[::2], 2)  # few components are left
    entropy = q.entropy(Intervals.at)
    alone = [q.pick(lambda t, i=i: t[i : i + 1]).entropy(Intervals.at) for i in range(9)]
    torch.testing.assert_close(torch.cat(alone), entropy, rtol=0, atol=1e-12)


def test_an_entropy_is_of_the_cells_of_values():
    """In narrow ones, that of the density less the logarithm of the width."""
    q, width = mixture(2, 5, 0.5), 1e-6
    found = q.entropy(lambda z: Intervals(z, torch.full_like(z, width)))
    torch.testing.assert_close(found, q.entropy(Intervals.at) - np.log(width))
    # which is a third of the cost; cells that are just too wide for that have nearly the same
    sd = q.var.amin((1, 2)).sqrt()[:, None]
    near = [q.entropy(lambda z, w=w: Intervals(z, (w * sd).expand_as(z))) for w in (0.09, 0.11)]
    torch.testing.assert_close(near[0], near[1] + np.log(0.11 / 0.09), rtol=0, atol=1e-3)


def test_thousands_of_components_stay_within_memory(monkeypatch):
    monkeypatch.setattr(gaussian, "CHUNK", 1 << 16)
    q, largest = mixture(40, 4000, 0.1), 0
    log_mass = gaussian.log_mass

    def counted(*args):
        nonlocal largest
        out = log_mass(*args)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(gaussian, "log_mass", counted)
    q.log_weight = torch.log_softmax(20 * q.log_weight, 2)
    assert q.entropy(Intervals.at).isfinite().all()
    assert 0 < largest <= 1 << 21  # of one row; squared components were 384 million
