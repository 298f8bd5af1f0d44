"""The I-MMSE estimator: the integral, the path, and what they promise for any denoiser."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    BOOKS,
    LAW,
    SCHEDULES,
    TIMES,
    WIDER_BOOKS,
    Stranger,
    all_rows,
    cases,
    integral_of,
    line,
    logistic,
    make_book,
    make_denoiser,
    make_schedule,
    mse_curve,
    naive_autoregression,
    paths_of,
    random_marginals,
    random_network,
    random_oracle,
    random_rows,
    ranks_of,
    repeated_mass,
    rounding,
    seeded_generator,
    seeds,
    squared,
    total_mass,
)
from scipy import stats

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.noise import RowNoise
from discrete_itd.denoisers import Denoiser
from discrete_itd.denoisers.base import filled
from discrete_itd.likelihood import (
    attribute,
    combine,
    integral_log_prob,
    path_log_prob,
)
from discrete_itd.likelihood.path import path_log_weights
from discrete_itd.training import pilot_quadrature
from tests.support import SupportDenoiser


def make_quadrature(book, device, low=1e-3):
    """Evenly over logsnr, up to where 30 nats part the nearest neighbours."""
    high = 60 * float(book.known_snr.max()) / 2000
    return Quadrature(torch.tensor([math.log(low), math.log(high)]), torch.ones(1)).to(device)


# -- the oracle: the integral is the log-probability -----------------------------------------------


@pytest.mark.parametrize("levels", [(-1.0, 1.0), (-0.9, 0.1, 0.8)])
def test_integral_3_is_minus_log_p_to_1e_6_in_one_dimension(device, levels):
    """½ ∫ E(x - x̂)² dγ by Gauss-Legendre rules over log γ and ε."""
    torch.set_default_dtype(torch.float64)
    book = Codebook([line(*levels)]).to(device)
    p = torch.tensor([0.15, 0.6, 0.25][: len(levels)], device=device)
    rows = all_rows(book)
    oracle = SupportDenoiser(book, rows, p)
    t, wt = np.polynomial.legendre.leggauss(120)
    e, we = np.polynomial.legendre.leggauss(400)
    log_snr, wt = -13 + (t + 1) * 10, wt * 10  # γ from 2e-6 to 1e3
    eps, we = 9 * e, 9 * we * stats.norm.pdf(9 * e)
    snr = torch.tensor(np.repeat(np.exp(log_snr), len(eps)), device=device)[:, None]
    xi = torch.tensor(np.tile(eps, len(log_snr)), device=device)[:, None]
    for k in range(len(levels)):
        x = book.embed(rows[k : k + 1])
        x_hat = oracle(snr * x + snr.sqrt() * xi, snr).mean()
        mmse = (x - x_hat).square().reshape(len(log_snr), -1).cpu().numpy() @ we
        tail = math.exp(-13) * mmse[0]
        integral = 0.5 * (tail + (wt * np.exp(log_snr) * mmse).sum())
        assert integral == pytest.approx(-oracle.log_prob(rows[k : k + 1]).item(), abs=1e-6)


def test_integral_closes_its_tails_even_far_inside(device, generator):
    """A short range leaves most of the nats to the tails; still a code, and near the truth."""
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(1))
    short = Quadrature(torch.tensor([0.05, 8.0]).log(), torch.ones(1)).to(device)
    for baseline in (None, random_marginals(book, np.random.default_rng(5))):
        got = integral_log_prob(
            oracle, oracle.support, short, baseline=baseline, n_points=4096, generator=generator
        )
        mass, stderr = total_mass(got)
        assert mass <= 1 + 4 * stderr
        assert (got.log_prob - oracle.log_prob(oracle.support)).abs().mean() < 0.25
        assert mass == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("known", [(), (1,), (0, 2)])
def test_baseline_is_subtracted_from_end_to_end(device, dtype, known):
    """(4) is (3) of the denoiser less (3) of the baseline on the same noise, with tails, gaps and given columns."""
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(1))
    baseline = random_marginals(book, np.random.default_rng(2))
    quadrature, rows = make_quadrature(book, device, low=0.5), oracle.support.clone()
    rows[::3, 0], rows[1::3, 1] = math.nan, math.nan
    given = torch.isin(torch.arange(3, device=device), torch.tensor(known, device=device))

    def integral(denoiser, against=None):
        how = {"given": given if known else None, "baseline": against}
        return integral_of(denoiser, rows, quadrature, **how).log_prob

    others = baseline.log_prob(rows.masked_fill(given, math.nan))  # as columns are independent
    expected = others + integral(oracle) - integral(baseline)
    torch.testing.assert_close(
        integral(oracle, baseline), expected, atol=rounding(dtype, 10), rtol=0
    )


# -- any denoiser: a valid code (5) ----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BOOKS))
@pytest.mark.parametrize("kind", ["network", "mild network", "stranger", "baseline"])
def test_integral_is_never_optimistic_in_total(device, name, kind):
    book = make_book(name, device)
    baseline = None
    if kind == "stranger":
        denoiser = Stranger(book, 3)
    else:
        denoiser = random_network(book, 3, strength=0.05 if kind == "mild network" else 0.6)
        baseline = denoiser.base if kind == "baseline" else None
    got = integral_of(
        denoiser,
        all_rows(book),
        make_quadrature(book, device),
        baseline=baseline,
        n_points=2048,
        batch_size=1 << 15,
    )
    mass, stderr = total_mass(got)
    assert mass <= 1 + 4 * stderr
    if kind == "mild network":  # so nearly exact that half a unit of mass more would show
        assert mass > 0.9


# -- any denoiser: the path is a normalised mass (6) -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "schedule"),
    squared(["mixed", "open"], ["network", "stranger", "trees"], sorted(SCHEDULES)),
)
def test_path_masses_add_up_to_one(device, dtype, name, kind, schedule):
    book = make_book(name, device)

    def score(seed):
        return paths_of(
            make_denoiser(kind, book, 2),
            all_rows(book),
            make_schedule(schedule, book.n_columns, kind),
            n_paths=2 if schedule == "fixed order" else 250,
            batch_size=1 << 15,
            seed=seed,
        )

    mass, stderr = repeated_mass(score)
    assert mass == pytest.approx(1, abs=4 * stderr + rounding(dtype))
    assert stderr < (1e-6 if schedule == "fixed order" else 0.03)


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(["network", "stranger", "oracle", "trees", "mixture", "bayes_net", "marginals"]),
)
def test_coordinate_path_is_any_order_autoregression(device, dtype, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 4)
    rows = random_rows(book, 12, np.random.default_rng(0))
    rows = denoiser.support if kind == "oracle" else rows
    noise = RowNoise(rows, torch.arange(len(rows), device=device) % 3, 99)
    got = path_log_weights(denoiser, rows, CoordinateSchedule(book.n_columns), noise).cpu()
    ranks = ranks_of(noise, rows)
    assert len(ranks.unique(dim=0)) > 1
    for row, rank, log_w in zip(rows, ranks, got, strict=True):
        naive = naive_autoregression(denoiser, row, rank)
        torch.testing.assert_close(log_w, naive, atol=rounding(dtype, 3), rtol=rounding(dtype))


# -- the oracle's paths ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param("line", marks=pytest.mark.slow), "mixed"])
def test_isotropic_path_of_the_oracle_comes_down_to_the_entropy(device, name):
    """Every refinement of the steps lowers E[-log W]; its limit is the entropy."""
    book = make_book(name, device)
    oracle = random_oracle(book, np.random.default_rng(0))
    n_paths = 200 * TIMES
    rows = oracle.support.repeat_interleave(n_paths, 0)
    path = torch.arange(n_paths, device=device).repeat(len(oracle.support))
    p = oracle.log_probs.double().exp()
    entropy = -(p * p.log()).sum().item()
    high = 60 * float(book.known_snr.max()) / 2000
    grid = torch.linspace(math.log(0.2), math.log(high), 64).exp().tolist()
    nats, spread = {}, {}
    for n_steps in (1, 2, 4, 16, 64):
        levels = IsotropicSchedule(tuple(grid[64 // n_steps - 1 :: 64 // n_steps]))
        log_w = path_log_weights(oracle, rows, levels, RowNoise(rows, path, n_steps)).sum(1)
        log_w = log_w.unflatten(0, (-1, n_paths))
        nats[n_steps] = -(p * log_w.mean(1)).sum().item()
        spread[n_steps] = (p.square() * log_w.var(1) / n_paths).sum().sqrt().item()
    values, margin = list(nats.values()), 3 * max(spread.values())
    assert all(a > b - margin for a, b in itertools.pairwise(values)), nats
    assert all(v > entropy - 3 * s for v, s in zip(values, spread.values(), strict=True))
    assert nats[1] > entropy + 2 * margin  # one step: almost the independent columns
    assert nats[64] - entropy < 0.25 * (nats[1] - entropy) + 3 * spread[64]
    # row by row: many steps give log P
    assert (log_w.mean(1) - p.log()).abs().max() < 0.1 + margin


@pytest.mark.parametrize("steps", [1, 2])
def test_one_jump_is_the_independent_columns(device, dtype, steps, generator):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    rows = oracle.support
    got = path_log_prob(
        oracle, rows, CoordinateSchedule(steps), n_paths=8, generator=generator
    ).log_prob
    p, rows = oracle.log_probs.exp().cpu().numpy(), rows.cpu().numpy().astype(int)
    independent = sum(
        np.log([p[rows[:, j] == k].sum() for k in range(book.levels.cardinalities[j])])[rows[:, j]]
        for j in range(3)
    )
    close = np.allclose(got.cpu().numpy(), independent, atol=rounding(dtype, 3))
    assert close == (steps == 1)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_untrained_network_scores_the_sum_of_log_marginals(device, dtype, name, schedule):
    """With no standard error, whatever is in the row."""
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.0)
    rows = random_rows(book, 40, np.random.default_rng(0))
    if len(book.reals):
        rows[:4, book.reals[0]] = torch.tensor([50.0, -300.0, 1e6, -1e6], device=device).double()
    got = paths_of(net, rows, SCHEDULES[schedule](book.n_columns))
    truth = net.base.log_prob(rows).double()
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
    torch.testing.assert_close(got.log_prob, truth, **close)
    assert (got.stderr < rounding(dtype, 10) * (1 + truth.abs())).all()


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_untrained_network_integrates_to_its_baseline(device, dtype, name, generator):
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.0)
    rows = random_rows(book, 10, np.random.default_rng(0))
    got = integral_log_prob(
        net, rows, make_quadrature(book, device), baseline=net.base, generator=generator
    )
    truth = net.base.log_prob(rows).double()
    loose = 1e-7 if dtype == torch.float64 else 5e-3  # γ times rounding of the error
    torch.testing.assert_close(got.log_prob, truth, atol=loose, rtol=0)


# -- paths, weights and errors ---------------------------------------------------------------------


def strong_case(device, schedule="isotropic"):
    """A network whose weights spread, a schedule and a few rows."""
    book = make_book("mixed", device)
    net = random_network(book, 7, strength=0.5)
    return net, all_rows(book)[:6], SCHEDULES[schedule](3)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["isotropic"])
def test_code_length_falls_as_paths_grow(device, schedule):
    net, rows, plan = strong_case(device, schedule)
    reference = paths_of(net, rows, plan, n_paths=1 << 13, batch_size=1 << 15)
    nats = {}
    for n_paths in (1, 8, 64):
        runs = [paths_of(net, rows, plan, n_paths=n_paths, seed=seed) for seed in range(20 * TIMES)]
        nats[n_paths] = -torch.stack([r.log_prob for r in runs]).mean().item()
    truth = -reference.log_prob.mean().item()
    assert nats[1] > nats[8] + 0.01
    assert nats[8] > nats[64]
    assert nats[64] == pytest.approx(truth, abs=0.03)
    assert nats[1] > truth + 0.03


@pytest.mark.slow
def test_stderr_covers_the_truth(device):
    net, rows, plan = strong_case(device)
    rows = rows[:4]
    truth = paths_of(net, rows, plan, n_paths=1 << 14, batch_size=1 << 15)
    runs = [paths_of(net, rows, plan, n_paths=64, seed=seed) for seed in range(1, 101)]
    z = torch.stack([(r.log_prob - truth.log_prob) / r.stderr for r in runs])
    assert truth.stderr.max() < 0.03
    covered = (z.abs() < 1.96).double().mean(0).cpu().numpy()
    assert (covered > 0.95 - 2.6 * math.sqrt(0.95 * 0.05 / len(runs))).all(), covered
    assert covered.mean() < 0.985, covered


@pytest.mark.slow
def test_stderr_of_the_integral_is_its_spread(device):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    quadrature = pilot_quadrature(oracle, oracle.support, seeded_generator(0, device))
    truth = oracle.log_prob(oracle.support)
    for baseline in (None, random_marginals(book, np.random.default_rng(1))):
        runs = [
            integral_of(
                oracle, oracle.support, quadrature, baseline=baseline, n_points=256, seed=seed
            )
            for seed in range(60 * TIMES)
        ]
        error = torch.stack([r.log_prob for r in runs]) - truth
        stderr = torch.stack([r.stderr for r in runs])
        ratio = stderr.square().mean(0).sqrt() / error.std(0)
        assert 0.93 < ratio.mean() < 1.2  # neighbouring strata can only overstate it
        # less than 95 %: the integrand is skewed
        assert ((error / stderr).abs() < 1.96).double().mean() > 0.9


@pytest.mark.parametrize("high", [0.5, pytest.param(4.0, marks=pytest.mark.slow)])
def test_stderr_of_a_short_integral_is_its_spread(device, high):
    """Where most nats, and most of the noise, are those of the right tail."""
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    short = Quadrature(torch.tensor([1e-3, high]).log(), torch.ones(1)).to(device)
    runs = [integral_of(oracle, oracle.support, short, seed=seed) for seed in range(60 * TIMES)]
    spread = torch.stack([r.log_prob for r in runs]).var(0)
    stated = torch.stack([r.stderr for r in runs]).square().mean(0)
    ratio = (stated.mean() / spread.mean()).sqrt()
    assert 0.93 < ratio < 1.2  # neighbouring strata can only overstate it


@LAW
@given(st.integers(1, 8), seeds)
def test_combine_is_a_log_mean(device, m, seed):
    torch.set_default_dtype(torch.float32)  # weights are float64 whatever the network is
    rng = np.random.default_rng(seed)
    log_w = rng.normal(-800, 1, (5, m))  # exp underflows
    got = combine(torch.tensor(log_w, device=device))
    for i in range(5):
        w = np.exp(log_w[i] + 800)
        assert got.log_prob[i].item() == pytest.approx(np.log(w.mean()) - 800, abs=1e-11)
        if m > 1:
            delta = w.std(ddof=1) / w.mean() / math.sqrt(len(w))
            chance = max(delta, np.log(w).std(ddof=1) / math.sqrt(len(w)))
            student = stats.t.ppf(0.975, max(1, (len(w) - 1) * 2 / 3)) / stats.norm.ppf(0.975)
            gap = max(0, np.log(w).mean() + np.log(w).var(ddof=1) / 2 - np.log(w.mean()))
            gap = min(gap, 2 * np.log(w).std(ddof=1))
            expected = student * chance + gap * min(1, 4 * delta) / stats.norm.ppf(0.975)
            assert got.stderr[i].item() == pytest.approx(expected)
        else:
            assert math.isnan(got.stderr[i])


@LAW
@given(st.integers(1, 8), st.floats(0, 5), seeds)
def test_attributions_add_up_whatever_the_weights(device, m, spread, seed):
    torch.set_default_dtype(torch.float32)  # weights are float64 whatever the network is
    rng = np.random.default_rng(seed)
    log_w = torch.tensor(rng.normal(-3, 1, (5, 1, 4)) + spread * rng.normal(size=(5, m, 4)))
    got = attribute(log_w.to(device))
    torch.testing.assert_close(got.surprisal.sum(1), -got.log_prob, atol=3e-9, rtol=0)
    if m == 1:
        torch.testing.assert_close(got.surprisal.cpu(), -log_w[:, 0])


# -- given columns ---------------------------------------------------------------------------------


# -- a score is a function of the row --------------------------------------------------------------


def test_integral_score_ignores_batch_order_and_neighbours(device, dtype):
    net, rows, _ = strong_case(device)
    order = torch.tensor([3, 1, 5, 0, 2, 4], device=device)
    quadrature = make_quadrature(net.codebook, device)

    def score(r, batch_size=2048):
        return integral_of(net, r, quadrature, batch_size=batch_size, seed=5)

    loose = rounding(dtype, 10)
    for a, b in zip(score(rows[order]), score(rows), strict=True):
        torch.testing.assert_close(a, b[order], atol=loose, rtol=1e-3)
    for a, b in zip(score(rows, 1), score(rows), strict=True):
        torch.testing.assert_close(a, b, atol=loose, rtol=1e-3)


class Counting(Denoiser):
    """A denoiser that counts the rows it is asked about."""

    def __init__(self, inner):
        super().__init__(inner.codebook)
        self.inner, self.rows, self.largest = inner, 0, 0

    def forward(self, y, snr):
        self.rows += len(y)
        self.largest = max(self.largest, len(y))
        return self.inner(y, snr)


def test_no_path_is_taken_twice(device):
    net, rows, _ = strong_case(device)
    counting, costs = Counting(net), {}
    schedules = {"in order": CoordinateSchedule(3, (2, 0, 1)), "at once": CoordinateSchedule(1)}
    for name, schedule in schedules.items():
        counting.rows = 0
        assert not paths_of(counting, rows, schedule, n_paths=16).stderr.any()
        costs[name] = counting.rows / len(rows)
    # of three steps the last is free, and what is known of nothing is asked once a batch
    rows_asked = len(filled(rows)) / len(rows)  # whole blocks
    assert costs["in order"] <= 2 * rows_asked + 0.5
    assert costs["at once"] < 1


def test_batch_size_bounds_a_call_and_progress_counts_rows(device, generator):
    net, _, plan = strong_case(device)
    rows = all_rows(net.codebook)
    counting, done = Counting(net), []
    path_log_prob(
        counting, rows, plan, n_paths=3, batch_size=10, generator=generator, progress=done.append
    )
    assert counting.largest <= 10
    assert sum(done) == len(rows)
    assert len(done) > 1


def test_no_rows_have_no_scores(device, generator):
    net, rows, plan = strong_case(device)
    assert path_log_prob(net, rows[:0], plan, generator=generator).log_prob.shape == (0,)
    split = path_log_prob(net, rows[:0], plan, generator=generator)
    assert split.surprisal.shape == (0, 3)
    points = logistic(0.0, 2.0, low=-6, high=6)
    none = integral_log_prob(net, rows[:0], points, n_points=8, generator=generator)
    assert none.log_prob.shape == none.stderr.shape == (0,)


def test_one_path_has_no_standard_error(device, generator):
    net, rows, plan = strong_case(device)
    got = path_log_prob(net, rows, plan, n_paths=1, generator=generator)
    assert got.log_prob.isfinite().all()
    assert got.stderr.isnan().all()


# -- the error curve -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [11, 2048])
def test_stderr_of_the_error_curve_is_its_spread_where_rows_are_equal(device, batch_size):
    """A row that a table holds many times has as many independent noises, in whatever batches."""
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    snr = torch.tensor([0.5, 4.0], device=device)
    stated, spread = [], []
    for row in oracle.support[:3]:
        runs = [
            mse_curve(
                oracle, row.repeat(24, 1), snr, generator=seeded_generator(seed, device),
                batch_size=batch_size,
            )
            for seed in range(20 * TIMES)
        ]  # fmt: skip
        stated.append(torch.stack([stderr for _, stderr in runs]).square().mean(0))
        spread.append(torch.stack([mse for mse, _ in runs]).var(0))
    ratio = (torch.stack(stated) / torch.stack(spread)).mean().sqrt()
    assert 0.85 < ratio < 1.15


# -- errors ----------------------------------------------------------------------------------------


def test_no_paths_are_refused(device, generator):
    net, rows, plan = strong_case(device)
    with pytest.raises(ValueError, match="must be positive"):
        path_log_prob(net, rows, plan, generator=generator, n_paths=0)


@pytest.mark.parametrize("n_points", [4, 5, 6, 7, 33])
def test_few_points_have_a_standard_error(device, generator, n_points):
    """Of the tail as well, which takes at least two of them."""
    net, rows, _ = strong_case(device)
    quadrature = make_quadrature(net.codebook, device)
    got = integral_log_prob(net, rows, quadrature, n_points=n_points, generator=generator)
    assert got.log_prob.isfinite().all()
    assert (got.stderr > 0).all()


def test_too_few_points_are_refused(device, generator):
    net, rows, _ = strong_case(device)
    with pytest.raises(ValueError, match="at least 4"):
        integral_log_prob(
            net, rows, make_quadrature(net.codebook, device), n_points=3, generator=generator
        )


@pytest.mark.parametrize("sd", [0.1, 0.5, 1.2])
@pytest.mark.parametrize("m", [2, 3, 4, 8, 32])
def test_intervals_of_few_paths_cover(m, sd):
    """Log-weights that are Gaussian: log E[W] is half their variance."""
    log_w = torch.tensor(np.random.default_rng(0).normal(0, sd, (8000, m)))
    got = combine(log_w)
    covered = ((got.log_prob - sd**2 / 2).abs() < 1.96 * got.stderr).double().mean()
    assert 0.93 < covered < 0.99


def test_the_error_stays_in_proportion():
    """Where one path is far from the others, the error is of the order of their distance, not of its square."""
    for paths in ([-1.0, -1, -1, -1000], [-800.0, -900, -801], [-1e5, -1.0]):
        stderr = combine(torch.tensor([paths], dtype=torch.float64)).stderr.item()
        assert stderr < 6 * (max(paths) - min(paths))
