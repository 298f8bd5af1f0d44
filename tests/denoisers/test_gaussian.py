"""The Gaussian of all columns together, against its formulas and against a mixture of one dense class."""

import itertools
import math

import numpy as np
import pytest
import torch
from laws import real, seeded_generator, simplex
from scipy import stats
from sklearn.covariance import oas

from discrete_itd.channel import IsotropicSchedule, Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import GaussianDenoiser, MixtureDenoiser
from discrete_itd.likelihood import integral_log_prob, path_log_prob
from discrete_itd.testing import check_denoiser


def gaussian(device, n, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    v, _ = np.linalg.qr(rng.normal(size=(n, n)))
    r = n if rank is None else rank
    variances = rng.uniform(0.05, 1.0, r)
    mean = rng.normal(size=n) * 0.3
    covariance = (v[:, :r] * variances) @ v[:, :r].T + 0.1 * (np.eye(n) - v[:, :r] @ v[:, :r].T)
    book = Codebook([real()] * n).to(device)
    parts = (torch.from_numpy(t).to(device) for t in (mean, v[:, :r].copy(), variances))
    return GaussianDenoiser(book, *parts, residual=0.1).to(device), mean, covariance


def one_class(model):
    """The same distribution, also of states with different SNRs."""
    mean = model.mean0[None]
    chol = torch.linalg.cholesky(model.covariance())[None]
    return MixtureDenoiser(model.codebook, mean.new_ones(1), mean.new_ones(1, 0), mean, chol=chol)


@pytest.mark.parametrize("rank", [None, 2, 0])
def test_log_density(device, rank):
    """Of whole rows and of some of their cells."""
    model, mean, covariance = gaussian(device, 5, rank=rank)
    x = np.random.default_rng(1).normal(size=(20, 5))
    x[3:6, :2], x[7] = np.nan, np.nan
    expected = []
    for row in x:
        at = ~np.isnan(row)
        inside = stats.multivariate_normal(mean[at], covariance[at][:, at]) if at.any() else None
        expected.append(0.0 if inside is None else inside.logpdf(row[at]))
    for rows in (x, x[:3]):
        log_p = model.log_prob(torch.from_numpy(rows).to(device)).cpu()
        np.testing.assert_allclose(log_p, expected[: len(rows)], atol=1e-9)
    np.testing.assert_allclose(model.covariance().cpu(), covariance, atol=1e-12)


@pytest.mark.parametrize("rank", [None, 2])
def test_posterior(device, dtype, rank):
    """At one SNR, by the precision matrix, which adds up, and by the mixture, which any SNRs have."""
    model, mean, covariance = gaussian(device, 4, rank=rank)
    rng = np.random.default_rng(2)
    y, level = rng.normal(size=(6, 4)) * 2, rng.uniform(0.1, 5, (6, 1))
    y[0], level[0] = 0, 0
    state = [torch.from_numpy(t).to(device, dtype) for t in (y, np.tile(level, 4))]
    q, precision = model(*state).gaussian, np.linalg.inv(covariance)
    tol = 1e-4 if dtype == torch.float32 else 1e-8
    for i in range(6):
        inside = np.linalg.inv(precision + level[i] * np.eye(4))
        by_hand = inside @ (precision @ mean + y[i])
        np.testing.assert_allclose(q.means[i, :, 0].cpu(), by_hand, atol=tol)
        np.testing.assert_allclose(q.var[i, :, 0].cpu(), np.diag(inside), atol=tol)
    dense = one_class(model)(*state).gaussian
    for got, expected in ((q.means, dense.means), (q.var, dense.var)):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    for change in (math.inf, 0.0):
        state[1][2, 1] = change
        with pytest.raises(ValueError, match="one finite SNR"):
            model(*state)


def test_estimators(device, generator):
    """The integral is within its error of the closed form, and an isotropic path near it."""
    model, mean, covariance = gaussian(device, 3)
    rows = np.random.default_rng(3).multivariate_normal(mean, covariance, 40)
    x = torch.from_numpy(rows).to(device)
    other, _, _ = gaussian(device, 3, seed=7)
    quadrature = Quadrature.logistic(0.0, 2.0, low=-8.0, high=10.0)
    assert "row_alone" in check_denoiser(model)
    e = integral_log_prob(
        model, x, quadrature, baseline=other, n_points=400,
        generator=seeded_generator(0, device), batch_size=4000,
    )  # fmt: skip
    z = (e.log_prob - model.log_prob(x)) / e.stderr
    assert z.abs().max() < 5
    assert z.mean().abs() < 4 / math.sqrt(len(z))
    steps = IsotropicSchedule(tuple(np.geomspace(0.05, 1e4, 60).tolist()))
    path = path_log_prob(model, x, steps, n_paths=32, generator=generator)
    assert abs(float((path.log_prob - model.log_prob(x)).mean())) < 0.1


def test_integral_given_a_column(device):
    """log P(others | given), against the difference of closed forms."""
    model, mean, covariance = gaussian(device, 3)
    rows = np.random.default_rng(3).multivariate_normal(mean, covariance, 30)
    x = torch.from_numpy(rows).to(device)
    given = torch.tensor([True, False, False], device=device)
    model, other = one_class(model), one_class(gaussian(device, 3, seed=7)[0])
    quadrature = Quadrature.logistic(0.0, 2.0, low=-8.0, high=10.0)
    e = integral_log_prob(
        model, x, quadrature, baseline=other, n_points=400, given=given,
        generator=seeded_generator(0, device), batch_size=4000,
    )  # fmt: skip
    expected = model.log_prob(x) - model.log_prob(x.masked_fill(~given, math.nan))
    assert ((e.log_prob - expected) / e.stderr).abs().max() < 5


def test_fit(device):
    model, mean, covariance = gaussian(device, 6)
    rng = np.random.default_rng(4)
    x = torch.from_numpy(rng.multivariate_normal(mean, covariance, 500)).to(device)
    full = GaussianDenoiser.fit(model.codebook, x).to(device)
    np.testing.assert_allclose(full.covariance().cpu(), oas(x.cpu())[0], atol=1e-9)
    many = torch.from_numpy(rng.multivariate_normal(mean, covariance, 200_000)).to(device)
    sure = GaussianDenoiser.fit(model.codebook, many).to(device)
    np.testing.assert_allclose(sure.covariance().cpu(), np.cov(many.cpu().T), atol=1e-4)
    np.testing.assert_allclose(full.mean0.cpu(), x.mean(0).cpu())
    nats = [
        float(GaussianDenoiser.fit(model.codebook, x, rank=r).to(device).log_prob(x).mean())
        for r in (0, 1, 3, 5, 6)
    ]
    assert all(b > a - 1e-6 for a, b in itertools.pairwise(nats))  # more directions fit better
    few = GaussianDenoiser.fit(model.codebook, x[:5]).to(device)  # fewer rows than columns
    np.testing.assert_allclose(few.covariance().cpu(), oas(x[:5].cpu())[0], atol=1e-9)
    assert few.log_prob(x).mean() > model.log_prob(x).mean() - 10  # far off, but finite
    for rows, options, match in ((x[:1], {}, "at least two"), (x, {"rank": -1}, "negative")):
        with pytest.raises(ValueError, match=match):
            GaussianDenoiser.fit(model.codebook, rows, **options)


def test_bad_input():
    with pytest.raises(ValueError, match="continuous columns alone"):
        GaussianDenoiser(
            Codebook([real(), simplex(2)]), torch.zeros(2), torch.eye(2), torch.ones(2)
        )
    book = Codebook([real()] * 2)
    with pytest.raises(ValueError, match="of 2 columns"):
        GaussianDenoiser(book, torch.zeros(3), torch.eye(2), torch.ones(2))
    with pytest.raises(ValueError, match="variances must be positive"):
        GaussianDenoiser(book, torch.zeros(2), torch.eye(2), torch.zeros(2))
