"""Mixtures of rows (10): weights, the sum of probabilities, shares of columns and draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from discrete_itd.channel import State
from discrete_itd.denoisers import (
    RowMixtureDenoiser,
)
from discrete_itd.denoisers.row_mixture import factors_of_each, fit_weights
from tests.laws import (
    LAW,
    WIDER_BOOKS,
    Stranger,
    all_rows,
    make_book,
    make_denoiser,
    random_marginals,
    random_rows,
    rounding,
    seeded_generator,
    seeds,
)
from tests.support import SupportDenoiser

MEMBERS = ("bayes_net", "causal on marginals", "tree")


def random_row_mixture(book, seed):
    weights = np.random.default_rng(seed).dirichlet([2.0] * len(MEMBERS)) + 0.01
    members = [make_denoiser(kind, book, seed + i) for i, kind in enumerate(MEMBERS)]
    return RowMixtureDenoiser(book, members, weights.tolist())


@LAW
@given(seed=seeds, n=st.integers(1, 60), m=st.integers(1, 5))
def test_weights_are_never_worse_than_the_best_member_and_never_better_elsewhere(seed, n, m):
    """The maximum of a concave function: no step towards a member, or towards any mixture, gains."""
    rng = np.random.default_rng(seed)
    log_p = torch.tensor(rng.normal(-30, 3, (n, m)))
    w = fit_weights(log_p)
    assert float(w.sum()) == pytest.approx(1.0)
    assert bool((w >= 0).all())

    def nats(weights):
        return -float((log_p + weights.log()).logsumexp(1).mean())

    assert nats(w) <= float(-log_p.mean(0).max()) + 1e-4
    for other in torch.tensor(rng.dirichlet([0.5] * m, size=8)):
        assert nats(w) <= nats(0.9 * w + 0.1 * other) + 1e-4


@pytest.mark.parametrize("name", ["mixed", *WIDER_BOOKS])
def test_it_is_the_weighted_sum_and_its_shares_add_up(device, name):
    book = make_book(name, device)
    mixture = random_row_mixture(book, 2)
    x = random_rows(book, 16, np.random.default_rng(0), missing=0.2)
    each = [m.log_prob(x).double().exp() for m in mixture.members]
    by_hand = sum(w * p for w, p in zip(mixture.weights, each, strict=True)) / sum(mixture.weights)
    log_prob = mixture.log_prob(x)
    close = {"atol": rounding(book.dtype), "rtol": rounding(book.dtype)}
    torch.testing.assert_close(log_prob, by_hand.log(), **close)
    factors = mixture.log_factors(x)
    torch.testing.assert_close(factors.sum(1), log_prob, **close)
    assert not factors[x.isnan()].any()


def test_factors_are_the_means_of_those_of_the_members(device):
    """By their probabilities given the row; the divergence in equal parts."""
    book = make_book("mixed", device)
    mixture = random_row_mixture(book, 2)
    x = random_rows(book, 40, np.random.default_rng(0), missing=0.2)
    each = torch.stack([m.log_factors(x).double() for m in mixture.members], 1)
    r = torch.softmax(mixture.log_joint(x), 1)
    mean = (r[:, :, None] * each).sum(1)
    left = mixture.log_prob(x) - mean.sum(1)
    expected = mean + torch.where(
        x.isnan(), 0.0, (left / (~x.isnan()).sum(1).clamp_min(1))[:, None]
    )
    close = {"atol": rounding(book.dtype), "rtol": rounding(book.dtype)}
    torch.testing.assert_close(mixture.log_factors(x), expected, **close)


def test_draws_follow_the_probabilities(device):
    book = make_book("mixed", device)
    mixture, rows = random_row_mixture(book, 3), all_rows(book)
    drawn = mixture.draw(10_000, seeded_generator(0, device))
    counts = (drawn[:, None] == rows).all(2).sum(0).double()
    expected = mixture.log_prob(rows).exp()
    expected = expected / expected.sum() * len(drawn)
    assert stats.chisquare(counts.cpu(), expected.cpu()).pvalue > 1e-3


def test_members_are_asked_once_for_their_factors_and_those_of_the_mixture(device, monkeypatch):
    book = make_book("mixed", device)
    mixture, x = random_row_mixture(book, 3), random_rows(book, 20, np.random.default_rng(4))
    each = [mixture, *mixture.members[:2]]
    alone, asked = torch.stack([d.log_factors(x).double() for d in each], 1), []
    for one in mixture.members:
        own = one.log_factors
        monkeypatch.setattr(one, "log_factors", lambda x, own=own: asked.append(own) or own(x))
    close = {"atol": rounding(book.dtype), "rtol": rounding(book.dtype)}
    torch.testing.assert_close(factors_of_each(each, x), alone, **close)
    assert len(asked) <= 3  # of the third, if some rows may be of it


def test_members_need_a_closed_form_and_weights_are_positive(device):
    book = make_book("mixed", device)
    tree = make_denoiser("tree", book)
    with pytest.raises(ValueError, match="closed form"):
        RowMixtureDenoiser(book, [tree, Stranger(book, 0)], [0.5, 0.5])
    for weights in ([0.5], [1.0, 0.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="weights must be positive"):
            RowMixtureDenoiser(book, [tree, tree], weights)
    with pytest.raises(ValueError, match="number of a member"):
        RowMixtureDenoiser(book, [tree], [1.0], main=1)


# -- of exact members ------------------------------------------------------------------------------


def test_a_mixture_is_as_exact_as_its_members(device):
    book = make_book("all kinds", device)
    rng = np.random.default_rng(0)
    members = [random_marginals(book, rng) for _ in range(2)]
    assert RowMixtureDenoiser(book, members, [0.5, 0.5]).own_reals
    same = RowMixtureDenoiser(book, members[:1] * 2, [0.5, 0.5])
    assert same.exact
    assert not same.own_reals
    assert same.independent_part is members[0]
    causal = make_denoiser("causal on marginals", book)
    assert not RowMixtureDenoiser(book, [causal, members[0]], [0.5, 0.5]).exact


def test_a_row_that_no_member_has_leaves_the_weights(device):
    book = make_book("mixed", device)
    rows = all_rows(book)
    members = [SupportDenoiser(book, rows[i : i + 1], torch.ones(1, device=device)) for i in (0, 1)]
    mixture = RowMixtureDenoiser(book, members, [0.5, 0.5])
    state = State.start(
        book, book.embed(rows[-1:]), torch.tensor([[True, False, False]]).to(device)
    )
    assert mixture.log_prob(rows[-1:]).isneginf().all()
    assert mixture(*state).categorical.logits.isfinite().all()
