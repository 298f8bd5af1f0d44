"""Tables with continuous columns: one formula for mass and density."""

import math

import numpy as np
import pytest
import torch
from laws import (
    SCHEDULES,
    WIDER_BOOKS,
    WITH_REALS,
    Stranger,
    broad_marginals,
    draws,
    make_book,
    make_denoiser,
    make_schedule,
    mixture_draws,
    random_mixture,
    random_network,
    random_rows,
    seeded_generator,
    squared,
)

from discrete_itd.channel import Quadrature
from discrete_itd.channel.noise import RowNoise
from discrete_itd.likelihood import (
    integral_log_prob,
    path_log_prob,
)
from discrete_itd.likelihood.path import path_log_weights

WIDER = sorted(WIDER_BOOKS)


def single_paths(denoiser, rows, schedule, seed, batch=8192):
    """log W of one path of every row, numbered so that equal rows get independent noise."""
    parts = []
    for i, part in enumerate(rows.split(batch)):
        number = torch.arange(len(part), device=rows.device) + i * batch
        noise = RowNoise(part, number, seed)
        parts.append(path_log_weights(denoiser, part, schedule, noise).sum(1))
    return torch.cat(parts)


def mean_and_stderr(values):
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


# -- any denoiser: a normalised mass and density (6) -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "schedule"), squared(WIDER, ["network", "stranger"], sorted(SCHEDULES))
)
def test_mass_and_density_add_up_to_one(device, name, kind, schedule):
    """Σ ∫ P = E_b[W/b] = 1 over rows x of any law b that covers P, and one path of each."""
    book = make_book(name, device)
    proposal = broad_marginals(book)
    rows = draws(proposal, 8000, seeded_generator(0, device))
    plan = make_schedule(schedule, book.n_columns, kind)
    denoiser = random_network(book, 2, strength=0.2) if kind == "network" else Stranger(book, 2)
    log_w = single_paths(denoiser, rows, plan, seed=1)
    mass, stderr = mean_and_stderr(torch.exp(log_w - proposal.log_prob(rows)))
    assert mass == pytest.approx(1, abs=4 * stderr)
    assert stderr < 0.08


@pytest.mark.parametrize("name", WITH_REALS)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_absurd_values_have_a_finite_score(device, name, schedule):
    book = make_book(name, device)
    rows = random_rows(book, 6, np.random.default_rng(0))
    values = torch.tensor([[1e6], [-1e6], [1e3], [-40.0], [0.0], [1e-300]], device=device)
    rows[:, book.reals] = values.double()
    for kind in ("network", "stranger"):
        got = path_log_prob(
            make_denoiser(kind, book, 1),
            rows,
            make_schedule(schedule, book.n_columns, kind),
            generator=seeded_generator(0, device),
        )
        assert got.log_prob.isfinite().all()
        assert got.stderr.isfinite().all()
        assert (got.log_prob[0] < got.log_prob[4]).all()


# -- the oracle ------------------------------------------------------------------------------------


def wide_quadrature(device):
    return Quadrature(torch.tensor([1e-3, 2000.0]).log(), torch.ones(1)).to(device)


def test_integral_of_the_oracle_is_log_p(device):
    """(3) with a closed tail: the density of the paper; to three percent of the integral over all rows."""
    book = make_book("only reals", device)
    rng = np.random.default_rng(1)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 64, rng)
    got = integral_log_prob(
        oracle,
        rows,
        wide_quadrature(device),
        n_points=1 << 12,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    error = got.log_prob - oracle.log_prob(rows)
    assert (error.abs() < 4.5 * got.stderr + 3e-3).all(), (error / got.stderr).max()
    assert abs(error.mean()) < 3 * got.stderr.square().sum().sqrt() / len(rows) + 3e-3
    assert got.stderr.max() < 0.3
    assert got.stderr.mean() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDER)
@pytest.mark.parametrize("strength", [0.6, 0.05])
def test_integral_is_never_optimistic_in_total(device, name, strength):
    """(5) for densities: E_b[exp(-s)/b] <= 1, and near 1 for a network that does little."""
    book = make_book(name, device)
    net = random_network(book, 3, strength=strength)
    proposal = broad_marginals(book)
    rows = draws(proposal, 600, seeded_generator(1, device))
    got = integral_log_prob(
        net,
        rows,
        wide_quadrature(device),
        baseline=net.base,
        n_points=192,
        generator=seeded_generator(0, device),
        batch_size=1 << 14,
    )
    # the exponential of an unbiased estimate is too large by its variance
    log_p = got.log_prob - got.stderr.square() / 2
    mass, stderr = mean_and_stderr(torch.exp(log_p - proposal.log_prob(rows)))
    assert mass < 1 + 4 * stderr
    assert stderr < 0.15
    if strength < 0.1:
        assert mass > 0.7


# -- a score is a function of the row, and a sum over columns --------------------------------------
