"""Missing cells are summed out, given ones conditioned on: one model answers both."""

import math

import numpy as np
import pytest
import torch
from laws import (
    BOOKS,
    SCHEDULES,
    WIDER_BOOKS,
    PartlyKnownSchedule,
    Stranger,
    all_rows,
    broad_marginals,
    draws,
    make_book,
    make_denoiser,
    make_schedule,
    mse_curve,
    naive_autoregression,
    random_network,
    random_oracle,
    random_rows,
    ranks_of,
    rounding,
    seeded_generator,
    squared_cases,
)

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Quadrature
from discrete_itd.channel.noise import RowNoise
from discrete_itd.denoisers import Denoiser
from discrete_itd.likelihood import (
    integral_log_prob,
    path_log_prob,
)
from discrete_itd.likelihood.path import path_log_weights

KINDS = ["network", "stranger", "marginals", "mixture", "oracle"]
FINITE_BOOKS = sorted(BOOKS)


class Watching(Denoiser):
    """A denoiser that keeps the states it is asked about."""

    def __init__(self, inner):
        super().__init__(inner.codebook)
        self.inner, self.states = inner, []

    def forward(self, y, snr):
        self.states.append((y, snr))
        return self.inner(y, snr)


def quadrature_to(high, device):
    return Quadrature(torch.tensor([1e-3, high]).log(), torch.ones(1)).to(device)


# -- nothing is known of a missing cell, and nothing paid for --------------------------------------


@pytest.mark.parametrize(("name", "kind", "schedule"), squared_cases(KINDS, sorted(SCHEDULES)))
def test_missing_cells_cost_nothing_and_show_nothing(device, name, kind, schedule):
    book = make_book(name, device)
    rows = random_rows(book, 16, np.random.default_rng(0), missing=0.4)
    rows[0] = math.nan
    missing = rows.isnan()
    watching = Watching(make_denoiser(kind, book, 1))
    plan = make_schedule(schedule, book.n_columns, kind)
    noise = RowNoise(rows, torch.zeros(16, dtype=torch.int64, device=device), 3)
    log_w = path_log_weights(watching, rows, plan, noise)
    assert not log_w[missing].any()
    assert log_w.isfinite().all()
    hidden = book.per_coord(missing)
    for y, snr in watching.states[1:]:  # the first is one row for all
        assert not snr[missing].any()
        assert not y[hidden].any()
        assert y.isfinite().all()
    if schedule == "isotropic":
        assert len(watching.states) == 1 + plan.n_steps


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_rows_of_which_all_is_missing_score_nothing(device, name, schedule):
    book = make_book(name, device)
    nothing = torch.full((5, book.n_columns), math.nan, dtype=torch.float64, device=device)
    net = random_network(book, 1)
    plan = SCHEDULES[schedule](book.n_columns)
    for rows in (nothing, torch.cat([nothing, random_rows(book, 2, np.random.default_rng(0))])):
        got = path_log_prob(net, rows, plan, generator=seeded_generator(0, device))
        assert got.log_prob[:5].abs().max() < 1e-12
        assert got.stderr[:5].abs().max() < 1e-12
    integral = integral_log_prob(
        net, nothing, quadrature_to(50.0, device), generator=seeded_generator(0, device)
    )
    assert not integral.log_prob.any()
    mse, _ = mse_curve(
        net, nothing, torch.ones(2, device=device), generator=seeded_generator(0, device)
    )
    assert not mse.any()


def test_mean_squared_errors_leave_missing_cells_out(device, dtype):
    book = make_book("one real", device)
    net = random_network(book, 1)
    rows = random_rows(book, 6, np.random.default_rng(0), missing=0.4)
    snr = torch.tensor([2.0], device=device)
    got, _ = mse_curve(net, rows, snr, generator=seeded_generator(0, device))
    # the same noise by hand
    generator = seeded_generator(0, device)
    salt = int(torch.randint(2**62, (1,), generator=generator, device=device))
    noise = RowNoise(rows, torch.arange(6, device=device), salt)
    x, there = book.embed(rows), book.per_coord(~rows.isnan())
    xi = noise.normal(0, book.n_coords, x.dtype)
    state = torch.where(there, 2.0 * x + math.sqrt(2.0) * xi, 0.0), 2.0 * (~rows.isnan()).to(x)
    error = torch.where(there, x - net(*state).mean(), 0.0).square().sum(1).mean()
    assert got.item() == pytest.approx(error.item(), abs=rounding(dtype, 3))


# -- the oracle: sums over what is missing ---------------------------------------------------------


@pytest.mark.parametrize("plan", ["fixed order", "isotropic", "integral", "baseline"])
@pytest.mark.parametrize("name", FINITE_BOOKS)
def test_scores_of_the_oracle_are_sums_over_the_missing(device, dtype, name, plan):
    book = make_book(name, device)
    oracle = random_oracle(book, np.random.default_rng(0))
    full = all_rows(book)
    rng = np.random.default_rng(1)
    rows = full[torch.tensor(rng.integers(len(full), size=8), device=device)]
    rows[torch.tensor(rng.random(rows.shape) < 0.4, device=device)] = math.nan
    rows[0, 0], rows[0, 1] = math.nan, 1.0
    p = oracle.log_prob(full).double().exp()
    agrees = ((rows[:, None] == full[None]) | rows.isnan()[:, None]).all(2).double()
    truth = (agrees @ p).log()
    torch.testing.assert_close(oracle.log_prob(rows).double(), truth, atol=rounding(dtype), rtol=0)
    high = 60 * float(book.known_snr.max()) / 2000
    noise = seeded_generator(0, device)
    if plan in ("integral", "baseline"):
        got = integral_log_prob(
            oracle,
            rows,
            quadrature_to(high, device),
            baseline=broad_marginals(book) if plan == "baseline" else None,
            n_points=1 << 13,
            generator=noise,
            batch_size=1 << 15,
        )
    else:
        levels = torch.linspace(math.log(0.1), math.log(high), 48).exp().tolist()
        schedule = {
            "fixed order": CoordinateSchedule(book.n_columns, tuple(range(book.n_columns))),
            "isotropic": IsotropicSchedule(tuple(levels)),
        }[plan]
        n_paths = 512 if plan == "isotropic" else 3
        got = path_log_prob(
            oracle, rows, schedule, n_paths=n_paths, generator=noise, batch_size=1 << 14
        )
    error = (got.log_prob - truth).abs()
    if plan == "fixed order":
        assert error.max() < rounding(dtype)
        assert got.stderr.max() < rounding(dtype)
        return
    assert (error < 4 * got.stderr + (0.03 if plan == "isotropic" else 1e-3)).all()
    assert got.stderr.max() < 0.15


# -- any denoiser: the observed cells have a normalised law ----------------------------------------


@pytest.mark.parametrize("schedule", ["isotropic", "coordinate"])
@pytest.mark.parametrize("kind", ["network", "stranger"])
def test_densities_of_the_observed_add_up_to_one(device, kind, schedule):
    book = make_book("all kinds", device)
    proposal = broad_marginals(book)
    rows = draws(proposal, 8000, seeded_generator(0, device))
    rows[:, [0, 3]] = math.nan
    denoiser = random_network(book, 2, strength=0.2) if kind == "network" else Stranger(book, 2)
    noise = RowNoise(rows, torch.arange(8000, device=device), 1)
    log_w = path_log_weights(denoiser, rows, make_schedule(schedule, 5, kind), noise).sum(1)
    ratio = torch.exp(log_w - proposal.log_prob(rows))
    stderr = ratio.std().item() / math.sqrt(8000)
    assert ratio.mean().item() == pytest.approx(1, abs=4 * stderr)
    assert stderr < 0.08


# -- rows with gaps take shorter paths, each its own -----------------------------------------------


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("name", ["open", "all kinds"])
def test_a_row_takes_as_many_steps_as_it_has_free_cells(device, dtype, name, n_steps):
    """With enough steps it is autoregression over the free ones, whatever its neighbours need."""
    book = make_book(name, device)
    denoiser = Stranger(book, 0)
    rows = random_rows(book, 40, np.random.default_rng(0), missing=0.5)
    given = torch.zeros(book.n_columns, dtype=torch.bool, device=device)
    given[1] = True
    noise = RowNoise(rows, torch.zeros(40, dtype=torch.int64, device=device), 3)
    plan = CoordinateSchedule(n_steps)
    got = path_log_weights(denoiser, rows, plan, noise, given).cpu()
    ranks = ranks_of(noise, rows, given=given)
    n_free = (~rows.isnan() & ~given).sum(1).tolist()
    assert min(n_free) <= 1
    for i in range(40):
        if n_steps >= n_free[i]:
            naive = naive_autoregression(denoiser, rows[i], ranks[i], start=(1,))
            torch.testing.assert_close(got[i], naive, atol=rounding(dtype, 3), rtol=rounding(dtype))
        one = RowNoise(rows[i : i + 1], torch.zeros(1, dtype=torch.int64, device=device), 3)
        alone = path_log_weights(denoiser, rows[i : i + 1], plan, one, given).cpu()[0]
        torch.testing.assert_close(alone, got[i], atol=rounding(dtype, 3), rtol=rounding(dtype))


def test_calls_end_with_the_last_free_cell(device):
    """A table with gaps asks the denoiser no more often than its fullest row needs."""
    book = make_book("all kinds", device)
    watching = Watching(Stranger(book, 0))
    rows = random_rows(book, 6, np.random.default_rng(0))
    rows[:, 2:] = math.nan
    noise = RowNoise(rows, torch.zeros(6, dtype=torch.int64, device=device), 3)
    path_log_weights(watching, rows, CoordinateSchedule(5), noise)
    assert len(watching.states) == 2


# -- conditioning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["network", "stranger"])
@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_joint_is_marginal_times_conditional(device, dtype, name, kind):
    """log P(a, b) = log P(a) + log P(b | a), exactly, if a comes first."""
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 3)
    rng = np.random.default_rng(0)
    rows = random_rows(book, 12, rng, missing=0.15)
    order = tuple(rng.permutation(book.n_columns).tolist())
    plan = CoordinateSchedule(book.n_columns, order)

    def score(r, given=None):
        noise = seeded_generator(0, device)
        return path_log_prob(denoiser, r, plan, n_paths=2, generator=noise, given=given)

    joint = score(rows)
    for n_first in range(book.n_columns + 1):
        first = torch.zeros(book.n_columns, dtype=torch.bool, device=device)
        first[list(order[:n_first])] = True
        marginal = score(rows.masked_fill(~first, math.nan))
        conditional = score(rows, first)
        torch.testing.assert_close(
            marginal.log_prob + conditional.log_prob,
            joint.log_prob,
            atol=rounding(dtype, 3),
            rtol=rounding(dtype),
        )
        for got in (marginal, conditional):
            assert got.stderr.max() < rounding(dtype, 3)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("missing", [False, True])
def test_conditional_densities_add_up_to_one(device, schedule, missing):
    """Given one real value and one category (or, in its place, nothing), of the rest."""
    book = make_book("all kinds", device)
    proposal = broad_marginals(book)
    rows = draws(proposal, 8000, seeded_generator(0, device))
    rows[:, 1], rows[:, 2] = 0.3, math.nan if missing else 1.0
    given = torch.tensor([False, True, True, False, False], device=device)
    net = random_network(book, 2, strength=0.2)
    noise = RowNoise(rows, torch.arange(8000, device=device), 1)
    log_w = path_log_weights(net, rows, SCHEDULES[schedule](5), noise, given)
    assert not log_w[:, 1:3].any()
    free = proposal.log_prob(rows.masked_fill(given, math.nan))
    ratio = torch.exp(log_w.sum(1) - free)
    stderr = ratio.std().item() / math.sqrt(8000)
    assert ratio.mean().item() == pytest.approx(1, abs=4 * stderr)
    assert stderr < 0.08


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_given_cell_that_is_missing_is_not_given(device, dtype, schedule):
    """Not to be conditioned on, nor to be paid for; where all are, no condition is left."""
    book = make_book("all kinds", device)
    net = random_network(book, 2)
    rows = random_rows(book, 10, np.random.default_rng(0))
    rows[:, 1] = math.nan
    given = torch.arange(5, device=device) == 1
    plan = SCHEDULES[schedule](5)
    a, b = (
        path_log_prob(net, rows, plan, generator=seeded_generator(0, device), given=g)
        for g in (given, None)
    )
    for s, t in zip(a, b, strict=True):
        torch.testing.assert_close(s, t, atol=rounding(dtype, 3), rtol=rounding(dtype))
    split = path_log_prob(
        net, rows, plan, generator=seeded_generator(0, device), given=torch.ones_like(given)
    )
    assert split.surprisal.abs().max() < rounding(dtype, 3)


def test_a_custom_schedule_with_gaps(device, dtype):
    """By hand: of the free cells one is known, one climbs, what is missing stays hidden."""
    book = make_book("mixed", device)
    net = random_network(book, 7)
    rows = all_rows(book)
    rows[:, 1] = math.nan
    noise = RowNoise(rows, torch.zeros(len(rows), dtype=torch.int64, device=device), 11)
    got = path_log_weights(net, rows, PartlyKnownSchedule(1, (2.0,)), noise)
    first = ranks_of(noise, rows) == 0
    assert not first[:, 1].any()
    x, missing = book.embed(rows), rows.isnan()
    xi = noise.normal(1, book.n_coords, x.dtype)
    snr = torch.where(first, math.inf, 2.0).to(x).masked_fill(missing, 0.0)
    y = torch.where(book.per_coord(first), x, 2.0 * x + math.sqrt(2.0) * xi)
    y = y.masked_fill(book.per_coord(missing), 0.0)
    zero = net(torch.zeros_like(x), torch.zeros_like(snr))
    expected = zero.log_prob(rows) + net(y, snr).log_prob(rows)
    expected = expected - zero.update(y, snr).log_prob(rows)
    torch.testing.assert_close(got, expected.double(), atol=rounding(dtype), rtol=rounding(dtype))
