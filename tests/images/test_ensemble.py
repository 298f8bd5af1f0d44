"""Ensembles of image models: convex combinations whose weights depend on the SNR, with any denoisers as members."""

import itertools
import math

import numpy as np
import pytest
import torch

from discrete_itd.channel import Quadrature
from discrete_itd.images.ensemble import EnsembleDenoiser, errors_at
from tests.laws import (
    BOOKS,
    all_rows,
    integral_of,
    make_book,
    make_denoiser,
    random_marginals,
    random_oracle,
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
    member = ensemble.members[0]
    alone = EnsembleDenoiser(
        [member], torch.zeros(1, device=device), torch.ones(1, 1, device=device)
    )
    assert torch.equal(alone(y, snr).log_prob(rows), member(y, snr).log_prob(rows))


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
    """The errors to which weights were fitted, drawn again with an equal generator."""
    generator = seeded_generator(seed, rows.device)
    edges = np.linspace(math.log(QUADRATURE.low), math.log(QUADRATURE.high), n_knots + 1)
    return [errors_at(members, rows, ends, generator) for ends in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", NAMES)
def test_no_member_is_better_where_weights_were_fitted(device, dtype, name):
    """On the rows that fitted them: the error at every SNR, at the last one the cross-entropy."""
    book = make_book(name, device)
    members = members_of(book)
    rows = random_rows(book, 300, np.random.default_rng(0))
    quadrature = QUADRATURE.to(device)
    ensemble = EnsembleDenoiser.fit(
        members, rows, quadrature, generator=seeded_generator(4, device), n_knots=4
    )
    errors, rng = states(members, rows, 4, 4), np.random.default_rng(1)
    for (_, grams), w in zip(errors[:-1], ensemble.knots[:-1].double(), strict=True):
        gram = grams.sum(0)
        assert w @ gram @ w <= gram.diagonal().min() * (1 + rounding(dtype, 10))
        for other in torch.tensor(rng.dirichlet([1.0] * len(w), size=20)).to(w):
            assert w @ gram @ w <= other @ gram @ other * 1.001
    log_prob, _ = errors[-1]
    last = (ensemble.knots[-1].double().log() + log_prob).logsumexp(1).mean()
    assert last >= log_prob.mean(0).max() - 1e-4
    again = EnsembleDenoiser.fit(
        members, rows, quadrature, generator=seeded_generator(4, device), n_knots=4
    )
    assert torch.equal(again.knots, ensemble.knots)


@pytest.mark.parametrize("name", ["simplex", "mixed"])
def test_errors_over_all_noise_are_code_lengths(device, name):
    r"""(3) over logsnr: ½ ∫ E|x - x̂|² γ d log γ is the entropy of rows of an exact denoiser, and more for another."""
    book = make_book(name, device)
    exact, other = random_oracle(book, np.random.default_rng(0)), make_denoiser("stranger", book, 1)
    p = exact.log_probs.double().exp()
    pick = torch.multinomial(p, 6000, replacement=True, generator=seeded_generator(0, device))
    low, high = -7.0, math.log(60 * float(book.known_snr.max()) / 2000)
    generator = seeded_generator(1, device)
    _, grams = errors_at([exact, other], exact.support[pick], (low, high), generator)
    entropy, nats = -(p * p.log()).sum().item(), []
    for weights in torch.eye(2).to(grams):
        half = (high - low) / 2 * torch.einsum("m,nmk,k->n", weights, grams, weights)
        nats.append((half.mean().item(), half.std().item() / math.sqrt(len(pick))))
    (mean, error), (worse, its_error) = nats
    assert mean == pytest.approx(entropy, abs=4 * error + 0.01)
    assert error < 0.05 * entropy
    assert worse > entropy + 4 * its_error


@pytest.mark.parametrize(
    ("logsnr", "weights", "words"),
    [
        ([0.0], [[1.0, -0.1]], "weights must be those of 2 members at each SNR"),
        ([0.0], [[1.0]], "weights must be those of 2 members"),
        ([0.0], [[math.nan, 1.0]], "weights must be those"),
        ([0.0], [[0.0, 0.0]], "weights must be those"),
        ([0.0], [[0.5, 0.5]] * 2, "weights must be those"),
        ([0.0, 0.0], [[0.5, 0.5]] * 2, "logsnr must increase"),
        ([0.0, math.nan], [[0.5, 0.5]] * 2, "logsnr must increase"),
    ],
    ids=str,
)
def test_wrong_weights_are_refused(logsnr, weights, words):
    book = make_book("mixed", "cpu")
    members = [random_marginals(book, np.random.default_rng(i)) for i in range(2)]
    with pytest.raises(ValueError, match=words):
        EnsembleDenoiser(members, torch.tensor(logsnr), torch.tensor(weights))


def test_members_that_do_not_go_together_are_refused():
    rng, one = np.random.default_rng(0), (torch.zeros(1), torch.ones(1, 1))
    members = [random_marginals(make_book(name, "cpu"), rng) for name in ("mixed", "simplex")]
    with pytest.raises(ValueError, match="an ensemble needs at least one member"):
        EnsembleDenoiser([], *one)
    with pytest.raises(ValueError, match="of images of one shape and range"):
        EnsembleDenoiser(members, *one)
