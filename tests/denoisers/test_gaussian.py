"""The Gaussian of all columns together, against its formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from laws import real, seeded_generator, simplex
from scipy import stats
from sklearn.covariance import oas

from discrete_itd.channel import CoordinateSchedule, Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers.gaussian import GaussianDenoiser
from discrete_itd.likelihood import integral_log_prob, path_log_prob


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
@pytest.mark.parametrize("kind", ["isotropic", "any", "known"])
def test_posterior(device, dtype, kind, rank):
    """By the precision matrix, which adds up."""
    model, mean, covariance = gaussian(device, 4, rank=rank)
    rng = np.random.default_rng(2)
    y = rng.normal(size=(6, 4)) * 2
    snr = np.tile(rng.uniform(0.1, 5, (6, 1)), 4)
    if kind != "isotropic":
        snr = rng.uniform(0.1, 5, (6, 4)) * (rng.random((6, 4)) < 0.7)
        y[snr == 0] = 0
    told_y, told_snr = y.copy(), snr.copy()
    if kind == "known":
        told_snr[:, 0], told_y[:, 0] = np.inf, 0.4
        snr[:, 0], y[:, 0] = 1e9, 0.4e9
    state = [torch.from_numpy(t).to(device, dtype) for t in (told_y, told_snr)]
    q, log_evidence = model(*state).gaussian, model.log_evidence(*state).cpu()
    precision = np.linalg.inv(covariance)
    for i in range(6):
        inside = np.linalg.inv(precision + np.diag(snr[i]))
        by_hand = inside @ (precision @ mean + y[i])
        tol = 1e-4 if dtype == torch.float32 or kind == "known" else 1e-8
        np.testing.assert_allclose(q.means[i, :, 0].cpu(), by_hand, atol=tol)
        np.testing.assert_allclose(q.var[i, :, 0].cpu(), np.diag(inside), atol=tol)
        b, seen = precision @ mean + y[i], snr[i] > 0
        square = b @ inside @ b - mean @ precision @ mean - (y[i][seen] ** 2 / snr[i][seen]).sum()
        expected = (np.linalg.slogdet(inside)[1] - np.linalg.slogdet(covariance)[1] + square) / 2
        expected += np.log(snr[i, 0] / (2 * np.pi)) / 2 if kind == "known" else 0.0
        assert float(log_evidence[i]) == pytest.approx(expected, abs=10 * tol)


def test_estimators(device, dtype, generator):
    """The coordinate path is the closed form, the integral is within its error of it."""
    model, mean, covariance = gaussian(device, 3)
    rows = np.random.default_rng(3).multivariate_normal(mean, covariance, 40)
    x = torch.from_numpy(rows).to(device)
    path = path_log_prob(model, x, CoordinateSchedule(3), n_paths=2, generator=generator)
    tol = 2e-3 if dtype == torch.float32 else 1e-4  # a known value has an error of 1e-5
    torch.testing.assert_close(path.log_prob, model.log_prob(x), atol=tol, rtol=0)
    other, _, _ = gaussian(device, 3, seed=7)
    quadrature = Quadrature.logistic(0.0, 2.0, low=-8.0, high=10.0)
    e = integral_log_prob(
        model, x, quadrature, baseline=other, n_points=400,
        generator=seeded_generator(0, device), batch_size=4000,
    )  # fmt: skip
    z = (e.log_prob - model.log_prob(x)) / e.stderr
    assert z.abs().max() < 5
    assert z.mean().abs() < 4 / math.sqrt(len(z))


def test_integral_given_a_column(device):
    """log P(others | given), against the difference of closed forms."""
    model, mean, covariance = gaussian(device, 3)
    rows = np.random.default_rng(3).multivariate_normal(mean, covariance, 30)
    x = torch.from_numpy(rows).to(device)
    given = torch.tensor([True, False, False], device=device)
    other, _, _ = gaussian(device, 3, seed=7)
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
    assert few.log_prob(x).mean() > model.log_prob(x).mean() - 10  # a guess, but a sane one
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
