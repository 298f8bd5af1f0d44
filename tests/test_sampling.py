"""Samples against the mass that the path estimator gives."""

import itertools
import math

import numpy as np
import pytest
import torch
from laws import (
    SCHEDULES,
    all_rows,
    line,
    make_book,
    make_denoiser,
    make_schedule,
    random_oracle,
    simplex,
)
from scipy import stats

from discrete_itd.channel import CoordinateSchedule
from discrete_itd.codebook import Codebook
from discrete_itd.likelihood import path_log_prob
from discrete_itd.sampling import sample


def counts_of(book, codes):
    """How often each row of the enumeration was drawn."""
    sizes = book.cardinalities
    return np.bincount(
        np.ravel_multi_index(codes.cpu().numpy().T, sizes), minlength=math.prod(sizes)
    )


def p_value(counts, p, error=0.0):
    """χ² of counts against masses that are known up to an error of their own."""
    n, error = counts.sum(), np.broadcast_to(error, counts.shape)
    expected = n * p / p.sum()
    big = expected >= 5
    z2 = (counts - expected)[big] ** 2 / (expected + (n * error) ** 2)[big]
    return stats.chi2.sf(z2.sum(), big.sum() - 1)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("kind", ["network", "stranger"])
def test_samples_follow_the_scored_mass(device, kind, schedule):
    book = make_book("mixed", device)
    denoiser = make_denoiser(kind, book, 6)
    plan = make_schedule(schedule, 3, kind)
    mass = path_log_prob(
        denoiser,
        all_rows(book),
        plan,
        n_paths=8000,
        generator=torch.Generator(device).manual_seed(0),
        batch_size=1 << 15,
    )
    p = mass.log_prob.exp().cpu().numpy()
    error = mass.stderr.cpu().numpy() * p
    codes = sample(
        denoiser, 12000, plan, generator=torch.Generator(device).manual_seed(1), batch_size=5000
    )
    assert codes.dtype == torch.int64
    counts = counts_of(book, codes)
    assert p_value(counts, p, error) > 1e-3
    # the same counts do not fit the independent columns that it starts from
    x = book.slot_value.new_zeros(1, book.n_coords), book.slot_value.new_zeros(1, 3)
    rows = all_rows(book)
    start = denoiser(*x).expand(len(rows)).log_prob(rows).sum(1).double().exp().cpu().numpy()
    assert p_value(counts, start) < 1e-6


def autoregressive_mass(denoiser):
    """P of every row, exactly: the mean over all orders of the product of conditionals."""
    book = denoiser.codebook
    rows = all_rows(book)
    x = book.embed(rows)
    total = 0.0
    orders = list(itertools.permutations(range(book.n_columns)))
    for order in orders:
        y, snr = torch.zeros_like(x), x.new_zeros(len(x), book.n_columns)
        log_p = 0.0
        for j in order:
            log_p = log_p + denoiser(y, snr).log_prob(rows)[:, j].double()
            mine = book.coord_column == j
            y, snr = torch.where(mine, x, y), snr.clone()
            snr[:, j] = math.inf
        total = total + log_p.exp()
    return (total / len(orders)).cpu().numpy()


@pytest.mark.parametrize("kind", ["network", "stranger"])
@pytest.mark.parametrize("name", ["line", "simplex", "mixed"])
def test_coordinate_samples_follow_the_exact_autoregression(device, generator, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 8)
    p = autoregressive_mass(denoiser)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    plan = CoordinateSchedule(book.n_columns)
    counts = counts_of(book, sample(denoiser, 12000, plan, generator=generator))
    assert p_value(counts, p) > 1e-3


def test_the_oracle_draws_its_table(device, generator):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0), share=0.6)
    codes = sample(oracle, 8000, CoordinateSchedule(3), generator=generator)
    p = oracle.log_prob(all_rows(book)).double().exp().cpu().numpy()
    counts = counts_of(book, codes)
    assert not counts[p == 0].any()
    assert p_value(counts, p) > 1e-3


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_unseen_slots_are_never_drawn(device, generator, schedule):
    book = Codebook([simplex(2, is_open=True), line(-0.7, 0.6, is_open=True), simplex(3)])
    denoiser = make_denoiser("stranger", book.to(device), 0)  # it gives them a large probability
    codes = sample(denoiser, 3000, SCHEDULES[schedule](3), generator=generator)
    assert codes.max(0).values.cpu().tolist() == [1, 1, 2]
    assert codes.min(0).values.cpu().tolist() == [0, 0, 0]


def test_one_generator_one_table(device):
    book = make_book("simplex", device)
    denoiser = make_denoiser("network", book)

    def draw(seed, n=50):
        noise = torch.Generator(device).manual_seed(seed)
        return sample(denoiser, n, SCHEDULES["hybrid"](3), generator=noise)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_as_many_rows_as_asked(device, generator, n):
    denoiser = make_denoiser("network", make_book("mixed", device))
    codes = sample(denoiser, n, CoordinateSchedule(3), generator=generator, batch_size=4)
    assert codes.shape == (n, 3)
