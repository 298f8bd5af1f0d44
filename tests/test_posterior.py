"""The product of categorical posteriors."""

import math

import numpy as np
import torch
from hypothesis import given
from laws import LAW, make_book, random_rows, random_state, rounding, seeds, simplex, tables
from scipy import stats

from discrete_itd.channel import State
from discrete_itd.codebook import Codebook
from discrete_itd.posterior import CategoricalPosterior


def random_posterior(book, rng, n):
    logits = torch.tensor(rng.normal(0, 2, (n, book.n_slots))).to(book.slot_value)
    return CategoricalPosterior(book, logits)


@LAW
@given(tables(sizes=(1, 2, 3, 33)), seeds)
def test_posterior_is_normalised_and_indexed_by_category(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    q, rows = random_posterior(book, rng, 4), random_rows(book, 4, rng)
    probs, log_prob, mean = q.probs.cpu().numpy(), q.log_prob(rows).cpu().numpy(), q.mean().cpu()
    codes, level, column = (t.cpu().numpy() for t in (rows, book.slot_level, book.slot_column))
    for j in range(book.n_columns):
        np.testing.assert_allclose(probs[:, column == j].sum(1), 1, atol=rounding(dtype))
        for i in range(4):
            slot = (column == j) & (level == codes[i, j])
            np.testing.assert_allclose(log_prob[i, j], np.log(probs[i, slot][0]), rtol=1e-4)
    naive = np.zeros(mean.shape)
    value, coord = book.slot_value.cpu().numpy(), book.slot_coord.cpu().numpy()
    for t in range(book.n_slots):
        naive[:, coord[t]] += probs[:, t] * value[t]
    np.testing.assert_allclose(mean.numpy(), naive, atol=rounding(dtype))


@LAW
@given(tables(), seeds)
def test_updates_compose(device, dtype, columns, seed):
    """q ⊕ a ⊕ b = q ⊕ (a + b): evidence is additive in SNR time."""
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    q = random_posterior(book, rng, 4)
    _, y, snr = random_state(book, rng, 4, known=False)
    _, y_2, snr_2 = random_state(book, rng, 4, known=False)
    once = q.update(y + y_2, snr + snr_2).logits
    torch.testing.assert_close(q.update(y, snr).update(y_2, snr_2).logits, once, atol=2e-4, rtol=0)
    if dtype == torch.float64:
        assert (q.update(y, snr).update(y_2, snr_2).logits - once).abs().max() < 1e-9
    nothing = q.update(torch.zeros_like(y), torch.zeros_like(snr)).logits
    torch.testing.assert_close(nothing, q.logits)


@LAW
@given(tables(), seeds)
def test_the_point_itself_makes_certain(device, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    q, rows = random_posterior(book, rng, 4), random_rows(book, 4, rng)
    x = book.embed(rows)
    known = State(x, torch.full(rows.shape, math.inf, dtype=x.dtype, device=device))
    after = q.update(*known)
    assert after.log_prob(rows).abs().max() == 0
    torch.testing.assert_close(after.mean(), x)


def test_expand_repeats_one_row(device):
    book = make_book("mixed", device)
    q = random_posterior(book, np.random.default_rng(0), 1)
    assert torch.equal(q.expand(3).logits, q.logits.repeat(3, 1))
    assert torch.equal(q.expand(3).mean(), q.mean().repeat(3, 1))


def test_samples_follow_the_probabilities(device, generator):
    book = Codebook([simplex(40), simplex(3, is_open=True), simplex(5)]).to(device)
    q = random_posterior(book, np.random.default_rng(0), 1)
    for allow in (False, True):
        codes = q.expand(20000).sample(generator, allow_unseen=allow).cpu().numpy()
        for j, points in enumerate(book.columns):
            n = points.n_slots if allow else points.n_levels
            counts = np.bincount(codes[:, j], minlength=n)
            assert len(counts) == n  # never a slot that was not asked for
            rows = torch.zeros(points.n_slots, 3, dtype=torch.int64, device=device)
            rows[:, j] = torch.arange(points.n_slots)
            p = q.expand(points.n_slots).log_prob(rows)[:n, j].exp().cpu().double().numpy()
            assert stats.chisquare(counts, 20000 * p / p.sum()).pvalue > 1e-4
        pairs = np.bincount(codes[:, 1] * 5 + codes[:, 2], minlength=5 * (3 + allow))
        assert stats.chi2_contingency(pairs.reshape(-1, 5)).pvalue > 1e-4  # columns independent
