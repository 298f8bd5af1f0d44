"""Ensembles of image models: convex combinations whose weights depend on the SNR, with any denoisers as members."""

import itertools
import math

import numpy as np
import pytest
import torch

from discrete_itd.channel import Quadrature
from discrete_itd.images.ensemble import EnsembleDenoiser, log_probs_at
from tests.laws import (
    BOOKS,
    all_rows,
    integral_of,
    make_book,
    make_denoiser,
    random_marginals,
    random_rows,
    random_state,
    rounding,
    seeded_generator,
    total_mass,
)

KINDS = ("network", "mixture", "marginals")
NAMES = ("mixed", "open", "reals and levels")
QUADRATURE = Quadrature(torch.tensor([-4.0, 3.0]), torch.ones(1))


def members_of(book, seed=0):
    return [make_denoiser(kind, book, seed + i) for i, kind in enumerate(KINDS)]


def random_ensemble(book, seed):
    """With random weights, some of them zero."""
    w = np.random.default_rng(seed).dirichlet([0.7] * len(KINDS), size=4)
    w[w < 0.1] = 0
    w = w / w.sum(1, keepdims=True)
    logsnr = torch.tensor([-2.0, 0.0, 0.5, 2.0], device=book.device)
    return EnsembleDenoiser(members_of(book, seed), logsnr, torch.tensor(w).to(logsnr))


def one_snr(book, rng, n):
    """States of rows in which all columns have one SNR."""
    _, y, _ = random_state(book, rng, n, known=False)
    snr = torch.tensor(rng.uniform(0.01, 9, (n, 1))).to(y).expand(-1, book.n_columns)
    return y, snr


def test_weights_are_those_given_and_between_them_straight(device, dtype):
    book = make_book("simplex", device)
    ensemble = random_ensemble(book, 3)
    w = ensemble.knots
    grid = torch.tensor([-math.inf, -9.0, -2.0, -1.0, 0.0, 0.25, 0.5, 2.0, 9.0, math.inf]).to(w)
    expected = [
        w[0],
        w[0],
        w[0],
        (w[0] + w[1]) / 2,
        w[1],
        (w[1] + w[2]) / 2,
        w[2],
        w[3],
        w[3],
        w[3],
    ]
    snr = grid.exp()[:, None].expand(-1, 3)
    got = ensemble.weights(snr)
    torch.testing.assert_close(got, torch.stack(expected), atol=rounding(dtype), rtol=0)
    torch.testing.assert_close(got.sum(1), torch.ones_like(got[:, 0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_combination_is_the_mean_of_its_members(device, dtype, name):
    """Probabilities, densities and denoised points."""
    book = make_book(name, device)
    ensemble, rng = random_ensemble(book, 0), np.random.default_rng(0)
    y, snr = one_snr(book, rng, 6)
    rows, w, q = random_rows(book, 6, rng), ensemble.weights(snr), ensemble(y, snr)
    each = [member(y, snr) for member in ensemble.members]
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype, 10)}
    mean = sum(w[:, [i]] * b.mean() for i, b in enumerate(each))
    torch.testing.assert_close(q.mean(), mean, **close)
    prob = sum(w[:, [i]] * b.log_prob(rows).exp() for i, b in enumerate(each))
    torch.testing.assert_close(q.log_prob(rows).exp(), prob, **close)


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_the_integral_of_an_ensemble_is_never_optimistic_in_total(device, name):
    book = make_book(name, device)
    high = math.log(60 * float(book.known_snr.max()) / 2000)
    got = integral_of(
        random_ensemble(book, 0),
        all_rows(book),
        Quadrature(torch.tensor([-7.0, high]), torch.ones(1)).to(device),
        n_points=1024,
        batch_size=1 << 15,
    )
    mass, stderr = total_mass(got)
    assert mass <= 1 + 4 * stderr


def states(members, rows, seed, n_knots):
    """The log-probabilities to which weights were fitted, drawn again with an equal generator."""
    generator = seeded_generator(seed, rows.device)
    edges = np.linspace(math.log(QUADRATURE.low), math.log(QUADRATURE.high), n_knots + 1)
    return [log_probs_at(members, rows, ends, generator) for ends in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", NAMES)
def test_no_member_is_better_where_weights_were_fitted(device, name):
    """Nor any other combination: by the log-probability of what the noise hides, at every SNR."""
    book = make_book(name, device)
    members = members_of(book)
    rows = random_rows(book, 300, np.random.default_rng(0))
    quadrature = QUADRATURE.to(device)
    ensemble = EnsembleDenoiser.fit(
        members, rows, quadrature, generator=seeded_generator(4, device), n_knots=4
    )
    rng = np.random.default_rng(1)
    for log_prob, w in zip(states(members, rows, 4, 4), ensemble.knots.double(), strict=True):
        own = (w.log() + log_prob).logsumexp(1).mean()
        assert own >= log_prob.mean(0).max() - 1e-4
        for other in torch.tensor(rng.dirichlet([1.0] * len(w), size=20)).to(w):
            assert own >= (other.log() + log_prob).logsumexp(1).mean() - 1e-4


def test_members_that_do_not_go_together_are_refused():
    rng, one = np.random.default_rng(0), (torch.zeros(1), torch.ones(1, 1))
    members = [random_marginals(make_book(name, "cpu"), rng) for name in ("mixed", "simplex")]
    with pytest.raises(ValueError, match="an ensemble needs at least one member"):
        EnsembleDenoiser([], *one)
    with pytest.raises(ValueError, match="of images of one shape and range"):
        EnsembleDenoiser(members, *one)
