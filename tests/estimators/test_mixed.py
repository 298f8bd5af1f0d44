"""Tables with continuous columns and large vocabularies: one formula for mass and density."""

import math

import numpy as np
import pytest
import torch
from laws import (
    SCHEDULES,
    WIDER_BOOKS,
    WITH_REALS,
    Stranger,
    all_rows,
    broad_marginals,
    cases,
    draws,
    fixed_order,
    make_book,
    make_denoiser,
    make_schedule,
    mixture_draws,
    mse_curve,
    naive_autoregression,
    random_marginals,
    random_mixture,
    random_network,
    random_rows,
    ranks_of,
    repeated_mass,
    rounding,
    seeded_generator,
    squared,
)

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Quadrature
from discrete_itd.channel.noise import RowNoise
from discrete_itd.likelihood import (
    integral_log_prob,
    path_log_prob,
)
from discrete_itd.likelihood.path import path_log_weights

WIDER = sorted(WIDER_BOOKS)
MIXTURES = ("one real", "only reals", "reals and levels")


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
    rows = draws(proposal, 16000, seeded_generator(0, device))
    plan = make_schedule(schedule, book.n_columns, kind)
    denoiser = random_network(book, 2, strength=0.2) if kind == "network" else Stranger(book, 2)
    log_w = single_paths(denoiser, rows, plan, seed=1)
    mass, stderr = mean_and_stderr(torch.exp(log_w - proposal.log_prob(rows)))
    assert mass == pytest.approx(1, abs=4 * stderr)
    assert stderr < 0.08


@pytest.mark.parametrize("kind", ["network", "stranger"])
@pytest.mark.parametrize("name", ["one real", "only reals"])
def test_autoregression_is_normalised_on_a_grid(device, dtype, name, kind):
    book = make_book(name, device)
    step = 0.05 if name == "one real" else 0.1
    rows = all_rows(book, np.arange(-12, 12, step))
    got = path_log_prob(
        make_denoiser(kind, book, 2),
        rows,
        fixed_order(book.n_columns),
        n_paths=1,
        generator=seeded_generator(0, device),
        batch_size=1 << 14,
    )
    total = got.log_prob.exp().sum().item() * step ** len(book.reals)
    assert total == pytest.approx(1, abs=rounding(dtype) + 1e-7)


@pytest.mark.parametrize("kind", ["network", "stranger", "mixture"])
@pytest.mark.parametrize("steps", ["isotropic"])
def test_density_of_one_real_column_adds_up_on_a_grid(device, kind, steps):
    """As above with noise: M paths of every category and every point of a grid."""
    book = make_book("one real", device)
    rows = all_rows(book, np.arange(-12, 12, 0.25))  # six deviations of the widest component
    mass, stderr = repeated_mass(
        lambda seed: path_log_prob(
            make_denoiser(kind, book, 5),
            rows,
            make_schedule(steps, 3, kind),
            n_paths=20,
            generator=seeded_generator(seed, device),
            batch_size=1 << 14,
        )
    )
    assert mass * 0.25 == pytest.approx(1, abs=4 * stderr * 0.25 + 2e-3)
    assert stderr * 0.25 < 0.04


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(["network", "stranger", "mixture", "trees", "marginals"], WIDER),
)
def test_coordinate_path_is_any_order_autoregression(device, dtype, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 4)
    rows = random_rows(book, 12, np.random.default_rng(0))
    noise = RowNoise(rows, torch.arange(12, device=device) % 3, 99)
    got = path_log_weights(denoiser, rows, CoordinateSchedule(book.n_columns), noise).cpu()
    ranks = ranks_of(noise, rows)
    assert len(ranks.unique(dim=0)) > 1
    for row, rank, log_w in zip(rows, ranks, got, strict=True):
        naive = naive_autoregression(denoiser, row, rank)
        torch.testing.assert_close(log_w, naive, atol=rounding(dtype, 3), rtol=rounding(dtype))


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", WIDER)
def test_untrained_network_scores_the_sum_of_log_marginals(device, dtype, name, schedule):
    """With no standard error, whatever is in the row."""
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.0)
    rows = random_rows(book, 40, np.random.default_rng(0))
    if len(book.reals):
        rows[:4, book.reals[0]] = torch.tensor([50.0, -300.0, 1e6, -1e6], device=device).double()
    got = path_log_prob(
        net, rows, SCHEDULES[schedule](book.n_columns), generator=seeded_generator(0, device)
    )
    truth = net.base.log_prob(rows).double()
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
    torch.testing.assert_close(got.log_prob, truth, **close)
    assert (got.stderr < rounding(dtype, 10) * (1 + truth.abs())).all()


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


@pytest.mark.parametrize("n_steps", ["one each", "in a fixed order"])
@pytest.mark.parametrize("name", ["mixed", "open", *MIXTURES])
def test_coordinate_path_of_the_oracle_is_log_p(device, dtype, name, n_steps):
    book = make_book(name, device)
    oracle = random_mixture(book, np.random.default_rng(0))
    rows = random_rows(book, 60, np.random.default_rng(1))
    plan = (CoordinateSchedule if n_steps == "one each" else fixed_order)(book.n_columns)
    got = path_log_prob(oracle, rows, plan, n_paths=3, generator=seeded_generator(0, device))
    truth = oracle.log_prob(rows).double()
    # a known value is one known to a hundred thousandth
    loose = {"atol": rounding(dtype, 10) + 1e-7, "rtol": rounding(dtype) + 1e-7}
    torch.testing.assert_close(got.log_prob, truth, **loose)
    assert got.stderr.max() < rounding(dtype, 10) + 1e-6


@pytest.mark.parametrize("name", MIXTURES)
def test_isotropic_path_of_the_oracle_comes_down_to_the_entropy(device, name):
    """From the pessimistic side: every refinement of the steps lowers E[-log W]; the limit is -log p."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 3000, rng)
    truth = oracle.log_prob(rows).double()
    grid = torch.linspace(math.log(0.05), math.log(1000.0), 64).exp().tolist()
    excess, error = {}, {}
    for n_steps in (1, 4, 16, 64):
        levels = IsotropicSchedule(tuple(grid[64 // n_steps - 1 :: 64 // n_steps]))
        difference = truth - single_paths(oracle, rows, levels, seed=n_steps)
        excess[n_steps], error[n_steps] = mean_and_stderr(difference)
    margin = 3 * max(error.values())
    assert excess[1] > excess[4] - margin > excess[16] - 2 * margin > excess[64] - 3 * margin
    assert all(excess[n] > -3 * error[n] for n in excess)
    assert excess[1] > 0.01 + margin  # one step: almost the independent columns
    assert excess[64] < 0.15 * excess[1] + 3 * error[64]
    assert margin < 0.08


@pytest.mark.parametrize("name", MIXTURES)
def test_isotropic_paths_of_the_oracle_find_the_density(device, name):
    """Row by row, by many paths of many steps."""
    book = make_book(name, device)
    oracle = random_mixture(book, np.random.default_rng(0))
    rows = mixture_draws(oracle, 12, np.random.default_rng(1))
    levels = torch.linspace(math.log(0.05), math.log(1000.0), 48).exp().tolist()
    got = path_log_prob(
        oracle,
        rows,
        IsotropicSchedule(tuple(levels)),
        n_paths=256,
        generator=seeded_generator(0, device),
        batch_size=1 << 14,
    )
    error = (got.log_prob - oracle.log_prob(rows)).abs()
    assert (error < 4 * got.stderr + 0.05).all()
    assert got.stderr.median() < 0.1


def wide_quadrature(device):
    return Quadrature(torch.tensor([1e-3, 2000.0]).log(), torch.ones(1)).to(device)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("name", MIXTURES)
def test_integral_of_the_oracle_is_log_p(device, name, baseline):
    """(3) with a closed tail, and (4): the density of the paper."""
    book = make_book(name, device)
    rng = np.random.default_rng(1)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 16, rng)
    got = integral_log_prob(
        oracle,
        rows,
        wide_quadrature(device),
        baseline=random_marginals(book, rng) if baseline else None,
        n_points=1 << 12,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    error = (got.log_prob - oracle.log_prob(rows)).abs()
    assert (error < 4 * got.stderr + 3e-3).all(), (error / got.stderr).max()
    assert got.stderr.max() < 0.3
    assert got.stderr.mean() < 0.2


@pytest.mark.parametrize("name", WITH_REALS)
def test_untrained_network_integrates_to_its_baseline(device, dtype, name, generator):
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.0)
    rows = random_rows(book, 10, np.random.default_rng(0))
    got = integral_log_prob(
        net, rows, wide_quadrature(device), baseline=net.base, generator=generator
    )
    loose = 1e-7 if dtype == torch.float64 else 5e-3  # γ times rounding of the error
    truth = net.base.log_prob(rows).double()
    torch.testing.assert_close(got.log_prob, truth, atol=loose, rtol=0)
    assert got.stderr.max() < loose


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


def test_half_the_area_under_the_error_curve_is_what_noise_hides(device):
    """½ ∫_0^γ mmse = -log p - E[-log q(x | z_γ)], averaged over rows of the oracle."""
    book = make_book("one real", device)
    rng = np.random.default_rng(0)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 4000, rng)
    snr = torch.linspace(math.log(1e-3), math.log(300.0), 60, device=device).exp()
    mse, stderr = mse_curve(oracle, rows, snr, generator=seeded_generator(0, device))
    log_snr = snr.double().log()
    area = torch.trapezoid(mse * snr.double(), log_snr).item() / 2
    spread = (stderr * snr.double() * log_snr.diff().mean()).square().sum().sqrt().item() / 2
    x = book.embed(rows)
    xi = torch.randn(x.shape, generator=seeded_generator(1, device), device=device)
    at = torch.full((len(rows), 3), 300.0, device=device)
    left = -oracle(300.0 * x + math.sqrt(300.0) * xi, at).log_prob(rows).sum(1).double()
    hidden = -oracle.log_prob(rows).double() - left
    mean, error = mean_and_stderr(hidden)
    assert area == pytest.approx(mean, abs=4 * math.hypot(error, spread) + 0.01)
    assert math.hypot(error, spread) < 0.05


# -- a score is a function of the row, and a sum over columns --------------------------------------


@pytest.mark.slow  # test_row_alone.py has the same promise for every kind of denoiser
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", WIDER)
def test_scores_ignore_batch_order_and_neighbours(device, dtype, name, schedule):
    book = make_book(name, device)
    net = random_network(book, 7)
    rows = random_rows(book, 14, np.random.default_rng(0), missing=0.25)
    rows[-2:] = rows[:2]
    order = torch.tensor(np.random.default_rng(1).permutation(14), device=device)
    plan = SCHEDULES[schedule](book.n_columns)

    def score(r, **kwargs):
        return path_log_prob(
            net, r, plan, n_paths=4, generator=seeded_generator(5, device), **kwargs
        )

    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype, 3)}
    whole = score(rows)
    tol = float(whole.stderr.median())
    adaptive = score(rows, max_stderr=tol, max_paths=32) if tol > rounding(dtype) else whole
    torch.testing.assert_close(whole.log_prob[-2:], whole.log_prob[:2], **close)
    for other, index, like in (
        (score(rows[order]), order, whole),
        (score(rows, batch_size=1), slice(None), whole),
        (score(rows, batch_size=7), slice(None), whole),
        (score(rows[4:5]), slice(4, 5), whole),
        (score(rows[order], max_stderr=tol + 1e-12, max_paths=32), order, adaptive),
        (score(rows[4:6], max_stderr=tol + 1e-12, max_paths=32), slice(4, 6), adaptive),
    ):
        if like is adaptive and tol <= rounding(dtype):
            continue
        for a, b in zip(other, like, strict=True):
            torch.testing.assert_close(a, b[index], **close)


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDER)
def test_integrals_ignore_batch_order_and_neighbours(device, dtype, name):
    book = make_book(name, device)
    net = random_network(book, 7)
    rows = random_rows(book, 6, np.random.default_rng(0), missing=0.25)
    order = torch.tensor([3, 1, 5, 0, 2, 4], device=device)

    def score(r, batch_size=2048):
        return integral_log_prob(
            net,
            r,
            wide_quadrature(device),
            baseline=net.base,
            generator=seeded_generator(5, device),
            batch_size=batch_size,
        )

    loose = {"atol": 1e-7 if dtype == torch.float64 else 2e-2, "rtol": 1e-3}
    whole = score(rows)
    for other, index in ((score(rows[order]), order), (score(rows, 1), slice(None))):
        for a, b in zip(other, whole, strict=True):
            torch.testing.assert_close(a, b[index], **loose)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", WIDER)
def test_attributions_add_up(device, dtype, name, schedule):
    book = make_book(name, device)
    net = random_network(book, 7)
    rows = random_rows(book, 8, np.random.default_rng(0), missing=0.25)
    plan = SCHEDULES[schedule](book.n_columns)
    kwargs = {"n_paths": 5, "max_stderr": 0.05, "max_paths": 20}
    split = path_log_prob(net, rows, plan, generator=seeded_generator(3, device), **kwargs)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype, 3)}
    torch.testing.assert_close(split.surprisal.sum(1), -split.log_prob, **close)
    assert not split.surprisal[rows.isnan()].any()


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", WIDER)
def test_no_rows_have_no_scores(device, generator, name, schedule):
    book = make_book(name, device)
    net = random_network(book, 0)
    none = random_rows(book, 0, np.random.default_rng(0))
    plan = SCHEDULES[schedule](book.n_columns)
    assert path_log_prob(net, none, plan, generator=generator).log_prob.shape == (0,)
    split = path_log_prob(net, none, plan, generator=generator, max_stderr=0.1)
    assert split.surprisal.shape == (0, book.n_columns)
    integral = integral_log_prob(
        net, none, wide_quadrature(device), baseline=net.base, generator=generator
    )
    assert integral.stderr.shape == (0,)
