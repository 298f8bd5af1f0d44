"""The estimator of masks (18): the mean over all orders of the columns, by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from laws import (
    BOOKS,
    Stranger,
    all_rows,
    make_book,
    make_denoiser,
    naive_autoregression,
    random_marginals,
    random_oracle,
    rounding,
    seeded_generator,
    total_mass,
)

from discrete_itd.likelihood import masks_log_prob


def masks_of(denoiser, rows, seed=0, **options):
    return masks_log_prob(denoiser, rows, generator=seeded_generator(seed, rows.device), **options)


def mean_over_orders(denoiser, rows):
    """Mean over all orders of the log-probabilities in that order, column after column."""
    ranks = [torch.tensor(r) for r in itertools.permutations(range(rows.shape[1]))]
    paths = [[naive_autoregression(denoiser, x, rank).sum() for rank in ranks] for x in rows]
    return torch.tensor(paths, dtype=torch.float64).mean(1).to(rows.device)


@pytest.mark.parametrize("name", sorted(BOOKS))
@pytest.mark.parametrize("kind", ["network", "stranger"])
def test_the_mean_over_masks_is_the_mean_over_orders(device, name, kind):
    """Of any denoiser; and its masses add up to at most one, eq. (5)."""
    book = make_book(name, device)
    denoiser = Stranger(book, 3) if kind == "stranger" else make_denoiser(kind, book, 3)
    rows = all_rows(book)
    truth = mean_over_orders(denoiser, rows)
    assert truth.exp().sum() < 1 + 1e-5
    for baseline in (None, random_marginals(book, np.random.default_rng(1))):
        got = masks_of(denoiser, rows, baseline=baseline, n_points=2000, batch_size=1 << 15)
        off = (got.log_prob - truth).abs()
        assert (off < 5 * got.stderr + rounding(book.known_snr.dtype, 10)).all()
        assert (off < 0.4).all()
        mass, stderr = total_mass(got)
        assert mass < 1 + 4 * stderr + 1e-4


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_of_the_oracle_it_is_log_p_whatever_is_given_or_missing(device, name):
    book = make_book(name, device)
    oracle = random_oracle(book, np.random.default_rng(0))
    rows = all_rows(book).clone()
    rows[::3, 0] = math.nan
    for given in (None, torch.arange(book.n_columns, device=device) == book.n_columns - 1):
        truth = oracle.log_prob(rows).double()
        if given is not None:
            truth -= oracle.log_prob(rows.masked_fill(~given, math.nan)).double()
        got = masks_of(oracle, rows, given=given, n_points=1000, batch_size=1 << 15)
        loose = rounding(book.known_snr.dtype, 10)
        assert ((got.log_prob - truth).abs() < 5 * got.stderr + loose).all()


def test_independent_columns_have_no_error_against_themselves(device):
    book = make_book("mixed", device)
    marginals, rows = random_marginals(book, np.random.default_rng(0)), all_rows(book)
    got = masks_of(marginals, rows, baseline=marginals, n_points=8)
    loose = rounding(book.known_snr.dtype, 10)
    torch.testing.assert_close(got.log_prob, marginals.log_prob(rows).double(), atol=loose, rtol=0)
    assert got.stderr.max() < loose


def test_the_error_is_the_spread_and_a_row_alone_has_its_score(device):
    book = make_book("mixed", device)
    denoiser, rows = make_denoiser("network", book, 3), all_rows(book)
    runs = [masks_of(denoiser, rows, seed, n_points=32) for seed in range(200)]
    spread = torch.stack([r.log_prob for r in runs]).std(0)
    claimed = torch.stack([r.stderr for r in runs]).square().mean(0).sqrt()
    assert 0.9 < (claimed / spread).mean() < 1.2  # neighbouring strata can only overstate it
    alone = masks_of(denoiser, rows[3:4], n_points=32, batch_size=64)
    torch.testing.assert_close(alone.log_prob, runs[0].log_prob[3:4])
    empty = masks_of(denoiser, rows[:0])
    assert empty.log_prob.shape == empty.stderr.shape == (0,)
    done = []
    masks_of(denoiser, rows[:5], n_points=4, batch_size=8, progress=done.append)
    assert done == [2, 2, 1]


def test_what_has_no_masks_is_refused(device):
    book = make_book("mixed", device)
    with pytest.raises(ValueError, match="at least 4, got 3"):
        masks_of(make_denoiser("network", book), all_rows(book), n_points=3)
    with pytest.raises(ValueError, match="order of its own"):
        masks_of(make_denoiser("causal on marginals", book), all_rows(book))
