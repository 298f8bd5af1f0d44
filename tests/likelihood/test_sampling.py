"""Samples against the mass that the path estimator gives."""

import itertools
import math

import numpy as np
import pytest
import torch
from laws import (
    BOOKS,
    SCHEDULES,
    WIDER_BOOKS,
    Stranger,
    all_rows,
    cases,
    column_distribution,
    empty_state,
    line,
    make_book,
    make_denoiser,
    make_schedule,
    paths_of,
    random_mixture,
    random_network,
    random_oracle,
    random_rows,
    real,
    repeated,
    rounding,
    seeded_generator,
    simplex,
    squared,
    squared_cases,
)
from scipy import stats

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.channel.codebook import Codebook
from discrete_itd.likelihood.sampling import point_predictions, sample


def counts_of(book, codes):
    """How often each row of the enumeration was drawn."""
    sizes = [c.n_points for c in book.columns]
    return np.bincount(
        np.ravel_multi_index(codes.long().cpu().numpy().T, sizes), minlength=math.prod(sizes)
    )


def scored(denoiser, rows, plan, n_paths):
    """P(x) of rows by the path estimator, ten times so many paths, and its standard error."""
    return repeated(
        lambda seed: paths_of(denoiser, rows, plan, seed, n_paths=n_paths, batch_size=1 << 15)
    )


def drawn_by(denoiser, start, schedule, seed=0, **options):
    generator = seeded_generator(seed, start.device)
    return sample(denoiser, start, schedule, generator=generator, **options)


def blank(book, n):
    """Rows of which everything is to be drawn."""
    shape = (n, book.n_columns)
    return torch.full(shape, math.nan, dtype=torch.float64, device=book.device)


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
    plan, rows = make_schedule(schedule, 3, kind), all_rows(book)
    p, error = scored(denoiser, rows, plan, 400)
    codes = drawn_by(denoiser, blank(book, 12000), plan, 1, batch_size=5000)
    assert codes.dtype == torch.float64
    counts = counts_of(book, codes)
    assert p_value(counts, p, error) > 1e-3
    # the same counts do not fit the independent columns that it starts from
    start = denoiser(*empty_state(book)).expand(len(rows)).log_prob(rows).sum(1)
    assert p_value(counts, start.double().exp().cpu().numpy()) < 1e-6


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


@pytest.mark.parametrize("kind", ["network", "stranger", "oracle"])
@pytest.mark.parametrize("name", ["line", "simplex", "mixed"])
def test_coordinate_samples_follow_the_exact_autoregression(device, generator, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 8)
    p = autoregressive_mass(denoiser)
    if kind == "oracle":  # its autoregression of impossible rows has no meaning
        p = denoiser.log_prob(all_rows(book)).double().exp().cpu().numpy()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    plan = CoordinateSchedule(book.n_columns)
    counts = counts_of(book, sample(denoiser, blank(book, 12000), plan, generator=generator))
    assert not counts[p == 0].any()
    assert p_value(counts, p) > 1e-3


@pytest.mark.parametrize(
    ("name", "n", "schedule"), squared(sorted(WIDER_BOOKS), [0, 1, 4, 9], sorted(SCHEDULES))
)
def test_as_many_rows_as_asked(device, generator, name, n, schedule):
    book = make_book(name, device)
    plan = SCHEDULES[schedule](book.n_columns)
    rows = sample(
        make_denoiser("network", book), blank(book, n), plan, generator=generator, batch_size=4
    )
    assert rows.shape == (n, book.n_columns)
    assert rows.isfinite().all()


# -- tables with continuous columns -----------------------------------------------------------


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("kind", ["network", "stranger"])
def test_real_samples_follow_the_scored_density(device, kind, schedule):
    """On a grid: every category of a column, and bins of the real one."""
    book = Codebook([real(), simplex(2)]).to(device)
    denoiser = random_network(book, 6, strength=0.4) if kind == "network" else Stranger(book, 6)
    plan = make_schedule(schedule, 2, kind)
    grid, width = np.arange(-8, 8, 0.2), 0.2
    p, error = scored(denoiser, all_rows(book, grid), plan, 40)
    p, error = ((v * width).reshape(len(grid), 2) for v in (p, error))
    rows = drawn_by(denoiser, blank(book, 10000), plan, seed=1)
    value, category = rows.cpu().numpy().T
    # bins of four points, with half of those on the edges
    edges = np.arange(-8, 8, 0.8)
    counts, expected, errors = [], [], []
    for k in (0, 1):
        counts.append(np.histogram(value[category == k], edges)[0])
        for low in range(0, len(grid) - 4, 4):
            weights = np.array([0.5, 1, 1, 1, 0.5])
            expected.append(weights @ p[low : low + 5, k])
            errors.append(np.sqrt(weights**2 @ error[low : low + 5, k] ** 2))
    counts = np.concatenate(counts)
    expected, errors = np.array(expected), np.array(errors)
    assert counts.sum() > 9990
    errors = errors + 0.01 * expected  # a trapezoid is no integral
    assert p_value(counts, expected, errors) > 1e-3


# -- filling gaps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "schedule"),
    squared_cases(["network", "stranger", "mixture"], sorted(SCHEDULES)),
)
def test_what_is_known_is_kept(device, generator, name, kind, schedule):
    """To the last bit; and a row of which all is known comes back."""
    book = make_book(name, device)
    start = random_rows(book, 9, np.random.default_rng(0), missing=0.5)
    start[0], start[1] = math.nan, random_rows(book, 1, np.random.default_rng(1))[0]
    plan = SCHEDULES[schedule](book.n_columns)
    rows = sample(make_denoiser(kind, book, 0), start, plan, generator=generator, batch_size=4)
    known = ~start.isnan()
    assert torch.equal(rows[known], start[known])
    assert rows.isfinite().all()
    for j, points in enumerate(book.columns):
        drawn = rows[~known[:, j], j]
        if points.kind != "real":
            assert ((drawn >= 0) & (drawn < points.n_levels)).all()
            assert torch.equal(drawn, drawn.round())


@pytest.mark.parametrize("n_gaps", [1, 2])
def test_a_row_takes_a_step_for_each_cell_to_be_drawn(device, generator, n_gaps):
    """Of cells that are left alone none is drawn, and none costs a call."""
    book = make_book("all kinds", device)
    denoiser, calls = make_denoiser("stranger", book, 0), []
    denoiser.register_forward_hook(lambda *_: calls.append(1))
    start = random_rows(book, 6, np.random.default_rng(0))
    start[:, :3] = math.nan
    left = torch.zeros_like(start, dtype=torch.bool)
    left[:, n_gaps:4] = True
    rows = sample(denoiser, start, CoordinateSchedule(5), generator=generator, left=left)
    assert len(calls) == n_gaps
    assert rows[:, :n_gaps].isfinite().all()
    assert rows[:, n_gaps:3].isnan().all()
    assert torch.equal(rows[:, 3:], start[:, 3:])


@pytest.mark.parametrize("plan", ["coordinate", "isotropic"])
def test_the_oracle_fills_gaps_from_the_conditional(device, plan):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    rows = all_rows(book)
    p = oracle.log_prob(rows).double().exp().cpu().numpy()
    start = blank(book, 3000)
    start[:, 1] = 1.0
    levels = torch.linspace(math.log(0.1), math.log(90.0), 60).exp().tolist()
    schedule = CoordinateSchedule(3) if plan == "coordinate" else IsotropicSchedule(tuple(levels))
    drawn = drawn_by(oracle, start, schedule, seed=1)
    counts = counts_of(book, drawn)
    conditional = np.where(rows[:, 1].cpu().numpy() == 1, p, 0.0)
    assert not counts[conditional == 0].any()
    assert p_value(counts, conditional, 0.002) > 1e-3
    assert p_value(counts, p) < 1e-6


@pytest.mark.parametrize(("name", "kind"), cases(["network", "mixture", "oracle", "trees"]))
def test_point_predictions_are_modes_and_medians_given_what_is_known(device, dtype, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    start = random_rows(book, 9, np.random.default_rng(0), missing=0.5)
    got = point_predictions(denoiser, start, batch_size=4)
    known = ~start.isnan()
    assert torch.equal(got[known], start[known])
    for i, j in torch.nonzero(~known).tolist():
        points = book.columns[j]
        snr = torch.where(known[i : i + 1], math.inf, 0.0).to(book.known_snr)
        y = torch.where(book.per_coord(known[i : i + 1]), book.embed(start[i : i + 1]), 0.0)
        q = denoiser(y, snr)
        if points.kind == "real":
            below = q.gaussian.cdf(got[i, book.reals][None].to(q.gaussian.means))
            assert below[0, book.reals == j].item() == pytest.approx(0.5, abs=1e-4)
        else:
            p = column_distribution(denoiser, start[i : i + 1], j)[0]
            torch.testing.assert_close(p.exp().sum().item(), 1.0, atol=rounding(dtype), rtol=0)
            assert got[i, j].item() == p[: points.n_levels].argmax().item()


def test_medians_and_means_have_the_least_expected_errors(device):
    """In the unit of the numbers, among all values, by enumeration and quadrature."""
    book = Codebook([real(), line(-1.0, -0.2, 0.3, 1.0), simplex(3)]).to(device)
    oracle = random_mixture(book, np.random.default_rng(2))
    start = torch.tensor([[math.nan, math.nan, k] for k in range(3)], device=device).double()
    worth = np.array([1.0, 2.0, 4.0, 8.0])
    units = {
        0: (np.exp, np.log),
        1: (lambda k: worth[k.astype(int)], lambda v: np.abs(worth[:, None] - v).argmin(0)),
    }
    median, mean = (
        point_predictions(oracle, start, ordered=[1], means=m).cpu().numpy() for m in (None, units)
    )
    grid = np.linspace(-4, 4, 1001)
    for i in range(3):
        own = start[i].expand(len(grid), 3).clone()
        own[:, 0] = torch.from_numpy(grid)
        p = oracle.log_prob(own).double().exp().cpu().numpy()
        levels = column_distribution(oracle, start[i : i + 1], 1)[0].exp().cpu().numpy()
        for j, mass, values in ((0, p / p.sum(), np.exp(grid)), (1, levels, worth)):
            at = (np.exp if j == 0 else lambda k: worth[k.astype(int)])(
                np.stack([median, mean])[:, i, j]
            )
            sizes = np.abs(values[:, None] - np.r_[at, values][None])  # of errors
            of_median, best = mass @ sizes[:, 0], (mass @ sizes)[2:].min()
            assert of_median <= best * (1 + 1e-4)
            of_mean, best = mass @ sizes[:, 1] ** 2, (mass @ sizes**2)[2:].min()
            assert of_mean <= best * (1 + 1e-3)


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_the_distribution_of_a_cell_does_not_look_at_it(device, name):
    book = make_book(name, device)
    net = make_denoiser("network", book)
    rows = random_rows(book, 5, np.random.default_rng(0), missing=0.2)
    for j, points in enumerate(book.columns):
        if points.kind == "real":
            continue
        before = rows.clone()
        got = column_distribution(net, rows, j, batch_size=2)
        assert got.shape == (5, points.n_points)
        assert got.dtype == torch.float64
        other = rows.clone()
        other[:, j] = math.nan
        assert torch.equal(column_distribution(net, other, j, batch_size=2), got)
        assert torch.equal(rows.nan_to_num(-1.0), before.nan_to_num(-1.0))  # rows are left alone
        assert column_distribution(net, rows[:0], j).shape == (0, points.n_points)
    assert point_predictions(net, rows[:0]).shape == rows[:0].shape
