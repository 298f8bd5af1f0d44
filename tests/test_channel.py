"""The channel, its row-keyed noise, schedules and quadratures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import LAW, SCHEDULES, make_book, random_rows, random_state, rounding, seeds, tables
from scipy import stats

from discrete_itd.channel import (
    CoordinateSchedule,
    IsotropicSchedule,
    Quadrature,
    RowNoise,
    State,
)
from discrete_itd.codebook import Codebook
from discrete_itd.likelihood import random_rank

# -- state -----------------------------------------------------------------------------------------


@LAW
@given(tables(), seeds)
def test_increments_add_up(device, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    _, _, snr = random_state(book, rng, 5)
    x = book.embed(random_rows(book, 5, rng))
    start = State.start(book, x)
    assert not start.y.any()
    assert not start.snr.any()
    xi = torch.tensor(rng.normal(size=x.shape)).to(x)
    new = start.increment(book, x, snr, xi)
    state = start.add(book, new)
    assert torch.equal(state.snr, snr)
    wide = book.per_coord(snr)
    expected = torch.where(torch.isinf(wide), x, wide * x + wide.sqrt() * xi)
    torch.testing.assert_close(state.y, expected)
    # a second increment: exact sums, and what is known stays as it is
    later = (snr + torch.tensor(rng.uniform(0, 5, snr.shape)).to(snr)).masked_fill(
        torch.tensor(rng.random(snr.shape) < 0.3, device=device), math.inf
    )
    step = state.increment(book, x, later, xi)
    end = state.add(book, step)
    assert end.y.isfinite().all()
    torch.testing.assert_close(end.snr, later)
    known = torch.isinf(later)
    assert torch.equal(end.y[book.per_coord(known)], x[book.per_coord(known)])
    assert not step.snr[torch.isinf(snr)].any()
    rest = book.per_coord(~known)
    torch.testing.assert_close(end.y[rest], (state.y + step.y)[rest])


def test_statistic_has_the_law_of_the_channel(device, generator):
    book = make_book("mixed", device)
    x = book.embed(torch.tensor([[2, 1, 0]], device=device).expand(20000, -1))
    state = State.start(book, x)
    for snr in (0.5, 3.0):  # two increments make y = γ x + √γ ε
        xi = torch.randn(x.shape, generator=generator, device=device)
        target = torch.full_like(state.snr, snr)
        state = state.add(book, state.increment(book, x, target, xi))
    eps = ((state.y - 3.0 * x) / math.sqrt(3.0)).cpu().numpy()
    for column in eps.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4


def test_given_columns_are_known_from_the_start(device):
    book = make_book("mixed", device)
    x = book.embed(torch.tensor([[2, 1, 0], [0, 0, 1]], device=device))
    given = torch.tensor([True, False, True], device=device)
    state = State.start(book, x, given)
    assert torch.equal(torch.isinf(state.snr), given.expand(2, -1))
    assert torch.equal(state.y, x * book.per_coord(given[None]))
    without_noise = state.increment(book, x, state.snr, None)
    assert torch.equal(state.add(book, without_noise).y, state.y)


# -- noise -----------------------------------------------------------------------------------------


def make_noise(codes, path=0, salt=1):
    return RowNoise(codes, torch.full((len(codes),), path, device=codes.device), salt)


@LAW
@given(seeds, st.integers(1, 7), st.integers(0, 2**62 - 1), st.integers(0, 300))
def test_noise_is_a_function_of_the_row(device, dtype, seed, n_columns, salt, path):
    rng = np.random.default_rng(seed)
    codes = torch.tensor(rng.integers(4, size=(12, n_columns)), device=device)
    order = torch.tensor(rng.permutation(12)[:7], device=device)
    noise, part = make_noise(codes, path, salt), make_noise(codes[order], path, salt)
    for stream in (0, 1, 5):
        normal = noise.normal(stream, 5, dtype)
        assert torch.equal(normal[order], part.normal(stream, 5, dtype))
        assert torch.equal(noise.uniform(stream, 3)[order], part.uniform(stream, 3))
        for i in range(12):  # equal rows, equal noise; different rows, different noise
            same = (codes == codes[i]).all(1)
            assert torch.equal((normal == normal[i]).all(1), same)


def distinct_rows(n, device):
    return torch.stack([torch.arange(n) // 300, torch.arange(n) % 300], 1).to(device)


@pytest.mark.parametrize("stream", [0, 1, 77])
def test_normals_and_uniforms_have_their_laws(device, dtype, stream):
    noise = make_noise(distinct_rows(20000, device), path=3, salt=12345)
    normal = noise.normal(stream, 5, dtype).cpu().double().numpy()
    uniform = noise.uniform(stream, 4).cpu().numpy()
    assert normal.shape == (20000, 5)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    for column in normal.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert stats.kstest(normal[:4000].ravel(), "norm").pvalue > 1e-4  # along the rows too
    assert abs((normal**2).mean() - 1) < 5 * math.sqrt(2 / normal.size)
    assert abs(stats.kurtosis(normal.ravel())) < 0.1


def test_streams_paths_rows_salts_and_coordinates_are_independent(device, dtype):
    codes = distinct_rows(20000, device)
    views = [
        make_noise(codes),
        make_noise(codes, path=1),
        make_noise(codes, path=2),
        make_noise(codes, salt=2),
        make_noise(codes + 1),
        make_noise(codes.flip(1)),
    ]
    columns = [v.normal(s, 3, dtype).cpu().double().numpy() for v in views for s in (0, 1, 2)]
    z = np.concatenate(columns, 1)
    z = np.concatenate([z, np.roll(z[:, :3], 1, 0)], 1)
    for values in (z, z**2, np.sign(z) * (abs(z) > 1)):
        r = np.corrcoef(values.T) - np.eye(values.shape[1])
        assert abs(r).max() < 5.5 / math.sqrt(len(z))
    quadrants = (z[:, 0] > 0) * 4 + (z[:, 1] > 0) * 2 + (z[:, 2] > 0)
    assert stats.chisquare(np.bincount(quadrants, minlength=8)).pvalue > 1e-4


@pytest.mark.parametrize("given", [None, [False, True, False, True]])
def test_random_ranks_are_orders_and_all_equally_likely(device, given):
    uniform = make_noise(distinct_rows(12000, device)).uniform(0, 4)
    given = None if given is None else torch.tensor(given, device=device)
    rank = random_rank(uniform, given).cpu().numpy()
    n_free = 4
    if given is not None:
        held = given.cpu().numpy()
        assert (rank[:, held] < 0).all()
        rank, n_free = rank[:, ~held], 2
    assert (np.sort(rank, 1) == np.arange(n_free)).all()
    _, counts = np.unique(rank, axis=0, return_counts=True)
    assert len(counts) == math.factorial(n_free)
    assert stats.chisquare(counts).pvalue > 1e-4


# -- schedules -------------------------------------------------------------------------------------


@LAW
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 6), seeds)
def test_schedules_climb_from_zero(device, name, n_columns, seed):
    schedule = SCHEDULES[name](n_columns)
    uniform = torch.tensor(np.random.default_rng(seed).random((5, n_columns)), device=device)
    rank = random_rank(uniform)
    before = schedule.snr(0, rank)
    assert not before.any()
    for step in range(1, schedule.n_steps + 1):
        snr = schedule.snr(step, rank)
        assert snr.shape == rank.shape
        assert (snr >= before).all()
        assert (snr > before).any()
        if not schedule.noisy:
            assert (torch.isinf(snr) | (snr == 0)).all()
        before = snr
    assert bool(torch.isinf(before).all()) == schedule.complete


@LAW
@given(st.integers(1, 12), st.data())
def test_coordinate_schedule_knows_equal_shares_in_order(device, n_columns, data):
    n_steps = data.draw(st.integers(1, n_columns))
    schedule = CoordinateSchedule(n_columns, n_steps)
    rank = torch.arange(-1, n_columns, device=device)[None]  # a given column leads
    for step in range(n_steps + 1):
        known = torch.isinf(schedule.snr(step, rank))[0].cpu().tolist()
        n_known = math.ceil(step * n_columns / n_steps)
        assert known == [step > 0 or n_known > 0] + [k < n_known for k in range(n_columns)] or (
            step == 0 and not any(known[1:])
        )
    assert CoordinateSchedule(n_columns).n_steps == n_columns


@pytest.mark.parametrize(
    "levels", [(), (0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan,), (-1.0,)]
)
def test_wrong_levels_are_refused(levels):
    with pytest.raises(ValueError, match="positive, finite and increasing"):
        IsotropicSchedule(levels)


@pytest.mark.parametrize(("n_columns", "n_steps"), [(3, 4), (3, -1), (0, 0)])
def test_wrong_step_counts_are_refused(n_columns, n_steps):
    with pytest.raises(ValueError, match="n_steps must be in"):
        CoordinateSchedule(n_columns, n_steps)


# -- quadratures -----------------------------------------------------------------------------------


@st.composite
def quadratures(draw):
    n = draw(st.integers(1, 12))
    gaps = draw(st.lists(st.floats(0.05, 2.0), min_size=n, max_size=n))
    density = draw(st.lists(st.floats(0.0, 5.0), min_size=n, max_size=n))
    assume(sum(density) > 0.1)
    low = draw(st.floats(-6.0, 2.0))
    edges = torch.tensor([low, *(low + np.cumsum(gaps)).tolist()], dtype=torch.float64)
    return Quadrature(edges, torch.tensor(density, dtype=torch.float64))


def midpoints(n, device="cpu"):
    return (torch.arange(n, device=device, dtype=torch.float64) + 0.5) / n


@LAW
@given(quadratures())
def test_points_have_the_density(device, quadrature):
    n = 5000
    mass = (quadrature._density * quadrature.edges.diff()).numpy()
    edges = quadrature.edges.numpy()
    snr, weight = quadrature.to(device).points(midpoints(n, device))
    logsnr = snr.log().cpu().numpy()
    assert mass.sum() == pytest.approx(1)
    assert (np.diff(logsnr) >= 0).all()  # monotone in the quantile: strata stay strata
    assert logsnr.min() >= edges[0] - 1e-9
    assert logsnr.max() <= edges[-1] + 1e-9
    np.testing.assert_allclose(
        [quadrature.low, quadrature.high], np.exp(edges[[0, -1]]), rtol=1e-12
    )
    cumulative = [(logsnr <= e).sum() for e in edges[1:-1]]
    np.testing.assert_allclose(cumulative, n * np.cumsum(mass)[:-1], atol=1.01)
    cell = np.searchsorted(edges, logsnr).clip(1, len(mass)) - 1
    density = quadrature._density.numpy()
    inside = abs(logsnr[:, None] - edges).min(1) > 1e-9
    expected = np.exp(logsnr) / density[cell]
    np.testing.assert_allclose(weight.cpu().numpy()[inside], expected[inside], rtol=1e-9)


@LAW
@given(quadratures())
def test_weights_integrate_over_snr(device, quadrature):
    """On every range of positive density; the functions are those of whose integral we know."""
    snr, weight = quadrature.to(device).points(midpoints(40000, device))
    edges = quadrature.edges.exp().numpy()
    held = quadrature._density.numpy() > 0.01
    for f, antiderivative in (
        (lambda g: torch.exp(-g), lambda g: -np.exp(-g)),
        (lambda g: 1 / (1 + g) ** 2, lambda g: -1 / (1 + g)),
    ):
        for i in np.flatnonzero(held):
            inside = (snr >= edges[i]) & (snr < edges[i + 1])
            got = float((f(snr) * weight * inside).mean())
            exact = antiderivative(edges[i + 1]) - antiderivative(edges[i])
            peak = float((f(snr) * weight * inside).max())
            assert abs(got - exact) <= 2e-3 * exact + 2 * peak / 40000


def test_cells_without_density_get_no_points(device):
    edges = torch.linspace(-2, 2, 5)
    quadrature = Quadrature(edges, torch.tensor([0.0, 1.0, 0.0, 3.0])).to(device)
    logsnr = quadrature.points(midpoints(1000, device))[0].log()
    assert ((logsnr < 0) & (logsnr > -1)).sum() == 250
    assert (logsnr > 1).sum() == 750
    snr, weight = quadrature.points(torch.tensor([0.0, 0.25, 1 - 1e-12], device=device))
    assert snr.isfinite().all()
    assert weight.isfinite().all()


def test_logistic_density_is_the_logistic(device):
    quadrature = Quadrature.logistic(0.5, 1.2, low=-8, high=9).to(device)
    logsnr = quadrature.points(midpoints(2000, device))[0].log().cpu().numpy()
    cut = stats.logistic(0.5, 1.2)
    low, high = cut.cdf(-8), cut.cdf(9)
    np.testing.assert_allclose(
        (cut.cdf(logsnr) - low) / (high - low), midpoints(2000).numpy(), atol=1e-3
    )


@pytest.mark.parametrize(
    ("edges", "density"),
    [([0.0, 0.0], [1.0]), ([0.0, 1.0, 0.5], [1.0, 1.0]), ([0.0, 1.0], [0.0]),
     ([0.0, 1.0, 2.0], [2.0, -1.0]), ([0.0, math.nan], [1.0]), ([0.0, 1.0], [math.nan])],
)  # fmt: skip
def test_wrong_quadratures_are_refused(edges, density):
    with pytest.raises(ValueError, match="edges must increase"):
        Quadrature(torch.tensor(edges), torch.tensor(density))


def test_rounding_is_tight():
    assert rounding(torch.float64) < rounding(torch.float32)
