"""The channel, schedules and quadratures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import (
    LAW,
    logistic,
    make_book,
    random_rows,
    random_state,
    seeded_generator,
    seeds,
    wide_tables,
)
from scipy import stats

from discrete_itd import devices
from discrete_itd.channel import (
    CoordinateSchedule,
    IsotropicSchedule,
    Quadrature,
    State,
)
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.schedules import column_ranks, steps_needed

# -- state -----------------------------------------------------------------------------------------


@LAW
@given(wide_tables, seeds)
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


def test_statistic_is_distributed_as_the_channel_says(device, generator):
    book = make_book("all kinds", device)
    row = torch.tensor([[2.0, -0.7, 1.0, 0.4, 0.0]], dtype=torch.float64, device=device)
    x = book.embed(row).expand(5000, -1)
    state = State.start(book, x)
    for snr in (0.5, 3.0):  # two increments make y = γ x + √γ ε
        xi = torch.randn(x.shape, generator=generator, device=device)
        target = torch.full_like(state.snr, snr)
        state = state.add(book, state.increment(book, x, target, xi))
    eps = ((state.y - 3.0 * x) / math.sqrt(3.0)).cpu().numpy()
    for column in eps.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(eps.T) - np.eye(eps.shape[1])).max() < 5 / math.sqrt(5000)


def test_given_cells_are_known_from_the_start(device):
    book = make_book("mixed", device)
    x = book.embed(torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], device=device).double())
    given = torch.tensor([[True, False, True], [False, True, False]], device=device)
    state = State.start(book, x, given)
    assert torch.equal(torch.isinf(state.snr), given)
    assert torch.equal(state.y, x * book.per_coord(given))
    without_noise = state.increment(book, x, state.snr, None)
    assert torch.equal(state.add(book, without_noise).y, state.y)


def test_a_cell_at_snr_zero_shows_nothing_of_its_point(device, generator):
    """A missing cell's point is arbitrary: it must not leak."""
    book = make_book("all kinds", device)
    rows = random_rows(book, 6, np.random.default_rng(0))
    target = torch.ones(6, 5, device=device)
    target[:, 1::2] = 0.0
    xi = torch.randn(6, book.n_coords, generator=generator, device=device)
    other = rows.clone()
    other[:, 1::2] += 1.0
    other[:, 2] = rows[:, 2]
    a, b = (
        State.start(book, x).increment(book, x, target, xi) for x in map(book.embed, (rows, other))
    )
    assert torch.equal(a.y, b.y)
    assert not a.y[:, book.per_coord(target)[0] == 0].any()


# -- orders ----------------------------------------------------------------------------------------


def uniforms(n, n_columns, device, seed=0):
    return torch.rand(n, n_columns, generator=seeded_generator(seed, device), device=device)


KINDS = {"free": (True, False), "known": (False, True), "missing": (False, False)}


@pytest.mark.parametrize(
    "kinds",
    [
        "free free free free",
        "known free known free",
        "free missing free free",
        "missing free known free",
        "missing known missing known",
    ],
)
def test_ranks_are_orders_of_the_free_cells_all_equally_likely(device, kinds):
    kinds = kinds.split()
    free, known = (
        torch.tensor([KINDS[k][i] for k in kinds], device=device).expand(12000, -1) for i in (0, 1)
    )
    schedule = CoordinateSchedule(4)
    rank = column_ranks(schedule, uniforms(12000, 4, device), free, known).cpu().numpy()
    places = {k: [j for j, kind in enumerate(kinds) if kind == k] for k in KINDS}
    n_free = len(places["free"])
    assert (rank[:, places["known"]] < 0).all()
    assert (rank[:, places["missing"]] >= n_free).all()
    taken = rank[:, places["free"]]
    assert (np.sort(taken, 1) == np.arange(n_free)).all()
    _, counts = np.unique(taken, axis=0, return_counts=True)
    assert len(counts) == math.factorial(n_free)
    if len(counts) > 1:
        assert stats.chisquare(counts).pvalue > 1e-4


@LAW
@given(st.permutations(range(5)), seeds)
def test_a_fixed_order_is_kept_among_the_free(device, order, seed):
    rng = np.random.default_rng(seed)
    kind = torch.tensor(rng.integers(3, size=(20, 5)), device=device)
    free, known = kind == 0, kind == 1
    schedule = CoordinateSchedule(5, tuple(order))
    rank = column_ranks(schedule, uniforms(20, 5, device, seed), free, known)
    for i in range(20):
        expected = [j for j in order if free[i, j]]
        assert [int(rank[i, j]) for j in expected] == list(range(len(expected)))
        assert (rank[i, known[i]] < 0).all()
        assert (rank[i, kind[i] == 2] >= len(expected)).all()


def test_an_order_of_other_columns_is_refused(device):
    free = torch.ones(1, 3, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match="order of 2 columns, but the table has 3"):
        column_ranks(CoordinateSchedule(2, (1, 0)), uniforms(1, 3, device), free, ~free)


# -- schedules -------------------------------------------------------------------------------------


@LAW
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 15))
def test_every_row_knows_equal_shares_in_order(device, n_free, n_steps):
    """Each by its own number of free cells: all known after min(n_steps, n_free) steps, not before."""
    schedule = CoordinateSchedule(n_steps)
    rank = torch.arange(13, device=device).expand(len(n_free), -1)
    count = torch.tensor(n_free, device=device)[:, None]
    for step in range(1, n_steps + 1):
        known = torch.isinf(schedule.snr(step, rank, count)).cpu().tolist()
        for row, n in zip(known, n_free, strict=True):
            share = min(step / max(1, min(n, n_steps)), 1.0)
            n_known = math.ceil(n * share - 1e-9)
            assert row == [k < n_known for k in range(13)]
            assert all(row[:n]) == (step >= min(n, n_steps))


def test_wrong_schedules_are_refused():
    for make, error, message in [
        *[
            (lambda levels=levels: IsotropicSchedule(levels), ValueError, "positive, finite and")
            for levels in (
                (),
                (0.0, 1.0),
                (1.0, 1.0),
                (2.0, 1.0),
                (1.0, math.inf),
                (math.nan,),
                (-1.0,),
            )
        ],
        (lambda: CoordinateSchedule(0), ValueError, "n_steps must be positive"),
        *[
            (lambda order=order: CoordinateSchedule(2, order), ValueError, "a permutation of the")
            for order in ((0, 0), (1, 2), (0, 2, 3), (-1, 0))
        ],
        *[
            (lambda order=order: CoordinateSchedule(2, order), TypeError, "must be integers")
            for order in ((0.0, 1.0), ((0, 1), (1, 0)), (True, 0), ("a",))
        ],
    ]:
        with pytest.raises(error, match=message):
            make()


def test_steps_that_rows_need():
    """Of a path without noise that ends in knowledge, one a free cell; of others all."""
    n_free = torch.tensor([[2], [3], [0]])
    assert steps_needed(CoordinateSchedule(5), n_free) == 3
    assert steps_needed(CoordinateSchedule(2), n_free) == 2
    assert steps_needed(CoordinateSchedule(5), n_free[:0]) == 0
    assert steps_needed(IsotropicSchedule((1.0, 2.0, 3.0, 4.0)), n_free) == 4


@pytest.mark.single_precision
@pytest.mark.parametrize("schedule", [CoordinateSchedule(2), IsotropicSchedule((1.0,))])
def test_snrs_are_of_the_type_of_the_points(device, dtype, schedule):
    rank = torch.zeros(1, 2, dtype=torch.int64, device=device)
    for step in (0, 1):
        snr = schedule.snr(step, rank, torch.full((1, 1), 2, device=device))
        assert snr.dtype == dtype
        assert snr.device == rank.device


# -- devices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("static", [False, True])
def test_sums_at_places(device, monkeypatch, generator, dim, static):
    """As a loop adds them up, repeated places too, and in the tensor itself."""
    monkeypatch.setattr(devices, "static_shapes", lambda _: static)
    sums = torch.randn(4, 5, generator=generator, device=device)
    index = torch.tensor([3, 0, 3], device=device)
    values = torch.randn((3, 5) if dim == 0 else (4, 3), generator=generator, device=device)
    expected = sums.clone()
    for i, place in enumerate(index.tolist()):
        expected.select(dim, place).add_(values.select(dim, i))
    got = devices.add_at(sums, dim, index, values)
    assert got is sums
    torch.testing.assert_close(got, expected)


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


@pytest.mark.parametrize("shapes", [((2,), (2,)), ((1, 3), (2,)), ((3,), (1, 2)), ((3,), ())])
def test_edges_and_density_fit_together(shapes):
    edges, density = shapes
    with pytest.raises(ValueError, match=r"must have shapes \(n \+ 1,\) and \(n,\), got"):
        Quadrature(torch.arange(math.prod(edges)).view(edges), torch.ones(density))


@pytest.mark.single_precision
def test_quadratures_are_in_double_precision(device):
    quadrature = logistic(0.0, 2.0, low=-6.1, high=7.3).to(device)
    gaps = quadrature.edges.diff().cpu().numpy()
    np.testing.assert_allclose(gaps, 13.4 / 256, rtol=1e-9)
    snr, weight = quadrature.points(torch.tensor([0.0, 1.0], device=device))  # the ends too
    assert snr.dtype == weight.dtype == torch.float64
    np.testing.assert_allclose(snr.log().cpu().numpy(), [-6.1, 7.3], rtol=1e-12)


def test_a_cumulative_distribution_may_pause():
    """Over a cell without density."""
    flat = Quadrature(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert flat.low == 1.0


def test_wrong_quadratures_are_refused():
    wrong = [
        ([0.0, 0.0], [1.0]), ([0.0, 1.0, 0.5], [1.0, 1.0]), ([0.0, 1.0], [0.0]), ([0.0, 1.0, 1.0], [1.0, 1.0]),
        ([0.0, 1.0, 2.0], [2.0, -1.0]), ([0.0, math.nan], [1.0]), ([0.0, 1.0], [math.nan]),
    ]  # fmt: skip
    for edges, density in wrong:
        with pytest.raises(ValueError, match=r"^edges must increase"):
            Quadrature(torch.tensor(edges), torch.tensor(density))


@LAW
@given(st.lists(st.floats(0.01, 9), min_size=1, max_size=6), st.integers(1, 9))
def test_steps_of_a_quadrature_have_equal_parts_of_its_density(density, n_steps):
    edges = torch.linspace(-2, 3, len(density) + 1, dtype=torch.float64)
    quadrature = Quadrature(edges, torch.tensor(density, dtype=torch.float64))
    ends = torch.tensor([quadrature.low, *quadrature.schedule(n_steps).levels]).log()
    cdf = torch.cat([torch.zeros(1), (torch.tensor(density) / sum(density)).cumsum(0)])
    shares = np.diff(np.interp(ends, edges, cdf))
    np.testing.assert_allclose(shares, 1 / n_steps, atol=1e-3)
