"""One class of a dense mixture is the Gaussian of its columns: its estimators against the closed form."""

import math

import numpy as np
import torch
from laws import logistic, real, seeded_generator

from discrete_itd.channel import IsotropicSchedule
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MixtureDenoiser
from discrete_itd.likelihood import integral_log_prob, path_log_prob


def gaussian(device, n, seed=0):
    """The mixture of one class, its mean and its covariance."""
    rng = np.random.default_rng(seed)
    v, _ = np.linalg.qr(rng.normal(size=(n, n)))
    covariance = (v * rng.uniform(0.05, 1.0, n)) @ v.T
    mean = rng.normal(size=n) * 0.3
    book = Codebook([real()] * n).to(device)
    center, chol = (torch.from_numpy(t)[None] for t in (mean, np.linalg.cholesky(covariance)))
    model = MixtureDenoiser(book, center.new_ones(1), center.new_ones(1, 0), center, chol=chol)
    return model.to(device), mean, covariance


def test_estimators(device, generator):
    """The integral is within its error of the closed form, and an isotropic path near it."""
    model, mean, covariance = gaussian(device, 3)
    rows = np.random.default_rng(3).multivariate_normal(mean, covariance, 40)
    x = torch.from_numpy(rows).to(device)
    other, _, _ = gaussian(device, 3, seed=7)
    quadrature = logistic(0.0, 2.0, low=-8.0, high=10.0)
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
    other, _, _ = gaussian(device, 3, seed=7)
    quadrature = logistic(0.0, 2.0, low=-8.0, high=10.0)
    e = integral_log_prob(
        model, x, quadrature, baseline=other, n_points=400, given=given,
        generator=seeded_generator(0, device), batch_size=4000,
    )  # fmt: skip
    expected = model.log_prob(x) - model.log_prob(x.masked_fill(~given, math.nan))
    assert ((e.log_prob - expected) / e.stderr).abs().max() < 5
