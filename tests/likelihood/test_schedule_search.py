"""Placing steps and choosing paths."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    LAW,
    all_rows,
    cases,
    code,
    empty_state,
    make_book,
    make_denoiser,
    mixture_draws,
    random_mixture,
    random_network,
    random_oracle,
    random_rows,
    real,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    wide_tables,
)

from discrete_itd import DiffusionDensity
from discrete_itd.channel import (
    CoordinateSchedule,
    IsotropicSchedule,
    Quadrature,
    distinct_paths,
)
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import SupportDenoiser
from discrete_itd.likelihood import path_log_prob
from discrete_itd.likelihood import schedule_search as planning
from discrete_itd.likelihood.schedule_search import (
    cheapest_steps,
    choose_path,
    pairwise_information,
    paths_within,
    place_steps,
    possible_paths,
    spread_orders,
    step_costs,
    table_orders,
)
from discrete_itd.recipes import Network
from discrete_itd.training import pilot_quadrature

pytestmark = pytest.mark.usefixtures("full_size")


def cost_of(costs, path):
    return sum(float(costs[a, b]) for a, b in zip([0, *path], path, strict=False))


@LAW
@given(st.integers(1, 6), st.integers(1, 7), seeds)
def test_cheapest_steps_against_all_subsets(n, n_steps, seed):
    rng = np.random.default_rng(seed)
    costs = torch.full((n + 1, n + 1), math.inf, dtype=torch.float64)
    for a, b in itertools.combinations(range(n + 1), 2):
        costs[a, b] = rng.normal()
    path = cheapest_steps(costs, n_steps)
    subsets = (
        subset
        for size in range(1, min(n, n_steps) + 1)
        for subset in itertools.combinations(range(1, n + 1), size)
    )
    best = min(cost_of(costs, subset) for subset in subsets)
    assert path == sorted(set(path))
    assert 1 <= len(path) <= n_steps
    assert cost_of(costs, path) == pytest.approx(best)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("name", "kind"), cases(["oracle", "network", "mixture", "trees"]))
def test_step_costs_add_up_to_the_path(device, dtype, name, kind, missing):
    """On the same noise: -log W is minus log q_0 plus the costs of its steps."""
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 1)
    rows = random_rows(book, 12, np.random.default_rng(0))
    if kind == "oracle":
        rows = denoiser.support.clone()
    rows[torch.tensor(np.random.default_rng(1).random(rows.shape) < missing, device=device)] = (
        math.nan
    )
    levels = (0.4, 1.0, 3.0, 8.0)
    snrs = torch.tensor(levels, device=device)
    costs = step_costs(denoiser, rows, snrs, seeded_generator(5, device))
    assert costs.shape == (5, 5)
    above = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert costs[above].isfinite().all()
    assert (costs[~above] == math.inf).all()
    start = -denoiser(*empty_state(book)).expand(len(rows)).log_prob(rows).sum(1).mean()
    whole = path_log_prob(
        denoiser,
        rows,
        IsotropicSchedule(levels),
        n_paths=1,
        generator=seeded_generator(5, device),
    )
    total = start.item() + cost_of(costs, [1, 2, 3, 4])
    assert total == pytest.approx(-whole.log_prob.mean().item(), abs=rounding(dtype, 3))


@pytest.mark.parametrize("name", ["mixed", "all kinds"])
def test_a_column_alone_costs_nothing_more(device, dtype, generator, name):
    """With independent columns no jump beats the column's own evidence: every cost is zero."""
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.0)
    rows = random_rows(book, 3, np.random.default_rng(0))
    costs = step_costs(net, rows, torch.tensor([0.5, 2.0, 7.0], device=device), generator)
    assert costs[torch.ones(4, 4, dtype=torch.bool).triu(1)].abs().max() < rounding(dtype)


@pytest.mark.parametrize("n_steps", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_placed_steps_are_not_worse_than_even_ones(device, n_steps):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    p = oracle.log_probs.double().exp()
    pick = torch.multinomial(p, 3000, replacement=True, generator=seeded_generator(0, device))
    rows = oracle.support[pick]
    quadrature = Quadrature(torch.tensor([0.01, 90.0]).log(), torch.ones(1)).to(device)
    (placed,) = place_steps(
        oracle, rows, quadrature, [n_steps], generator=seeded_generator(1, device)
    )
    assert 1 <= placed.n_steps <= n_steps
    assert 0.0099 < placed.levels[0] <= placed.levels[-1] < 90.1
    even = torch.linspace(math.log(0.01), math.log(90.0), n_steps + 1).exp()[1:]
    nats, spread = [], []
    for schedule in (placed, IsotropicSchedule(tuple(even.tolist()))):
        runs = [
            path_log_prob(
                oracle, oracle.support, schedule, n_paths=1, generator=seeded_generator(s, device)
            ).log_prob
            for s in range(80)
        ]
        each = -(torch.stack(runs) * p).sum(1)
        nats.append(each.mean().item())
        spread.append(each.std().item() / math.sqrt(len(runs)))
    assert nats[0] < nats[1] + 3 * math.hypot(*spread)
    if n_steps == 2:  # where placing matters, it shows
        assert nats[0] < nats[1]


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_placed_steps_of_a_mixed_table_are_not_worse_than_even_ones(device, missing):
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    oracle = random_mixture(book, rng)
    rows = mixture_draws(oracle, 3000, rng)
    rows[torch.tensor(rng.random(rows.shape) < missing, device=device)] = math.nan
    quadrature = pilot_quadrature(oracle, rows[:1000], seeded_generator(0, device))
    (placed,) = place_steps(
        oracle, rows[:1000], quadrature, [3], generator=seeded_generator(1, device)
    )
    assert 1 <= placed.n_steps <= 3
    even = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), 4).exp()[1:]
    a, b = (
        path_log_prob(oracle, rows[1000:], plan, n_paths=1, generator=seeded_generator(2, device))
        for plan in (placed, IsotropicSchedule(tuple(even.tolist())))
    )
    gain = a.log_prob - b.log_prob
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))


def test_placing_gives_one_schedule_a_wish(device, generator):
    book = make_book("simplex", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    quadrature = pilot_quadrature(oracle, oracle.support, generator)
    wishes = [1, 3, 8]
    placed = place_steps(oracle, oracle.support, quadrature, wishes, generator=generator)
    assert len(placed) == 3
    assert all(s.n_steps <= n for s, n in zip(placed, wishes, strict=True))


@pytest.mark.parametrize("kind", ["auto", "coordinate", "isotropic"])
@pytest.mark.parametrize("n_evaluations", [1, 12])
def test_candidates_keep_the_budget_and_the_best_leads(device, dtype, kind, n_evaluations):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1)).to(device)
    found = choose_path(
        oracle,
        oracle.support,
        oracle.support,
        quadrature,
        kind=kind,
        n_evaluations=n_evaluations,
        generator=seeded_generator(0, device),
    )
    nats = [c.nats for c in found]
    assert nats == sorted(nats)
    kinds = {c.kind for c in found}
    assert kinds == ({"coordinate", "isotropic"} if kind == "auto" else {kind})
    for c in found:
        fewest = min(2, distinct_paths(c.schedule) or 2)
        assert c.n_paths == paths_within(n_evaluations, c.schedule) >= fewest
        assert c.n_paths * c.schedule.n_steps <= max(n_evaluations, 2)
        assert c.stderr > 0
    if kind == "auto" and n_evaluations > 1:  # the oracle's coordinate path is exact
        truth = -oracle.log_prob(oracle.support).mean().item()
        exact = [c for c in found if c.schedule == CoordinateSchedule(3)]
        assert exact[0].nats == pytest.approx(truth, abs=rounding(dtype))


@pytest.mark.parametrize("name", ["only reals", "only high-cardinality", "all kinds"])
def test_paths_are_chosen_for_tables_of_any_kind(device, name):
    """With gaps, and a row of nothing else."""
    book = make_book(name, device)
    net = random_network(book, 0)
    rows = random_rows(book, 40, np.random.default_rng(0), missing=0.3)
    rows[0] = math.nan
    quadrature = pilot_quadrature(net, rows, seeded_generator(0, device))
    found = choose_path(
        net,
        rows,
        rows,
        quadrature,
        n_evaluations=16,
        generator=seeded_generator(0, device),
        max_rows=32,
    )
    assert found
    assert all(math.isfinite(c.nats) and math.isfinite(c.stderr) for c in found)
    best = path_log_prob(
        net, rows[:32], found[0].schedule, n_paths=64, generator=seeded_generator(1, device)
    )
    slack = 4 * (best.stderr.square().sum().sqrt().item() / 32) + 0.5 * found[0].stderr
    assert -best.log_prob.mean().item() < found[0].nats + slack


@LAW
@given(st.floats(0.52, 0.9), st.floats(0.1, 0.9), st.floats(0.3, 1.0), st.integers(0, 100), seeds)
def test_two_paths_too_close_to_call_run_on(device, dtype, agree, first, later, n_more, seed):
    """Of two columns, by hand: one by one their table is exact, at once they are independent; no path has noise."""
    book = Codebook([simplex(2), simplex(2)]).to(device)
    table = torch.tensor([agree, 1 - agree, 1 - agree, agree]).to(book.known_snr) / 2
    oracle = SupportDenoiser(book, all_rows(book), table)
    rng, n_first = np.random.default_rng(seed), 24
    same = np.concatenate([rng.random(n_first) < first, rng.random(n_more) < later])
    a = rng.integers(2, size=len(same))
    rows = torch.tensor(np.stack([a, np.where(same, a, 1 - a)], 1)).double().to(device)
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1)).to(device)
    found = choose_path(
        oracle, rows[:n_first], rows, quadrature, kind="coordinate", n_evaluations=8,
        generator=seeded_generator(seed, device), max_rows=n_first,
    )  # fmt: skip
    # at most so many rows in all
    whole = same[: planning.RUN_OFF * n_first]
    nats = {
        n: {1: np.full(n, 2 * math.log(2)), 2: -np.log(np.where(whole[:n], agree, 1 - agree) / 2)}
        for n in (n_first, len(whole))
    }
    gap = nats[n_first][2] - nats[n_first][1]
    clear = abs(gap.mean()) >= 3 * gap.std(ddof=1) / math.sqrt(n_first)
    n = n_first if clear else len(whole)
    means = {steps: told.mean() for steps, told in nats[n].items()}
    assert {c.schedule.n_steps for c in found} == {1, 2}
    for c in found:
        assert c.nats == pytest.approx(means[c.schedule.n_steps], abs=rounding(dtype))
    assert found[0].nats <= found[1].nats + rounding(dtype)


@pytest.mark.parametrize(
    ("n_evaluations", "counts"), [(64, [8, 16, 32]), (4, [1, 2]), (999, [16, 32, 64])]
)
def test_isotropic_paths_have_half_the_steps_and_half_of_these(
    device, generator, monkeypatch, n_evaluations, counts
):
    """So that two paths are paid for, of at most 64 steps."""
    oracle = random_oracle(make_book("mixed", device), np.random.default_rng(0))
    asked = []
    monkeypatch.setattr(planning, "place_steps", lambda *given, **_: asked.extend(given[3]) or [])
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1))
    options = {"kind": "isotropic", "n_evaluations": n_evaluations, "generator": generator}
    assert not list(possible_paths(oracle, oracle.support, quadrature, **options))
    assert asked == counts


def test_paths_of_a_wide_table_are_compared_on_fewer_rows(device, monkeypatch):
    """At least 32; of the next, which decide between the best two, at most three times as many."""
    book = make_book("mixed", device)
    oracle, seen = random_oracle(book, np.random.default_rng(0)), set()
    rows = random_rows(book, 200, np.random.default_rng(0))
    quadrature = pilot_quadrature(oracle, rows, seeded_generator(0, device))
    measure = planning.path_log_prob
    monkeypatch.setattr(
        planning, "path_log_prob", lambda d, x, *a, **k: seen.add(len(x)) or measure(d, x, *a, **k)
    )
    for affordable, n_first in ((40.5, 40), (7, 32), (1000, 100)):
        seen.clear()
        monkeypatch.setattr(planning, "CHOICE_CELLS", int(affordable * oracle.row_work))
        choose_path(
            oracle, rows, rows, quadrature, kind="coordinate", n_evaluations=8, max_rows=100,
            generator=seeded_generator(0, device),
        )  # fmt: skip
        assert n_first in seen
        assert max(seen) <= (planning.RUN_OFF - 1) * n_first


def test_leading_columns_are_known_when_paths_are_compared(device, dtype):
    """What is chosen scores the others given these, and is measured, and its steps placed, on that."""
    columns = make_book("mixed", device).columns
    book = Codebook(columns, leading=[1]).to(device)
    oracle = random_oracle(book, np.random.default_rng(0))
    rows = oracle.support
    p = oracle.log_probs.double().exp()
    same = (rows[:, None, 1] == rows[None, :, 1]).double()
    truth = -(p.log() - (same @ p).log()).mean().item()  # of the others, given column 1
    quadrature = pilot_quadrature(oracle, rows, seeded_generator(0, device))
    found = choose_path(
        oracle, rows, rows, quadrature, n_evaluations=64, generator=seeded_generator(0, device)
    )
    exact = [c for c in found if c.schedule == CoordinateSchedule(2)]
    assert exact[0].nats == pytest.approx(truth, abs=rounding(dtype))
    snrs = torch.tensor([0.5, 4.0], device=device)
    costs = step_costs(oracle, rows, snrs, seeded_generator(0, device))
    whole = step_costs(
        oracle.__class__(Codebook(columns).to(device), rows, p.to(oracle.log_probs)),
        rows,
        snrs,
        seeded_generator(0, device),
    )
    assert costs[0, 1:].isfinite().all()
    assert not torch.allclose(costs[0, 1:], whole[0, 1:])


def test_calls_are_steps_times_paths():
    schedule = IsotropicSchedule((1.0, 2.0))
    assert paths_within(7, schedule) == 3
    assert paths_within(1, schedule) == 2
    # no path twice
    assert paths_within(64, CoordinateSchedule(1)) == 1
    assert paths_within(64, CoordinateSchedule(2, (1, 0))) == 1
    assert paths_within(64, CoordinateSchedule(2, ((1, 0), (0, 1), (0, 1)))) == 3
    assert paths_within(4, CoordinateSchedule(2, ((1, 0), (0, 1), (0, 1)))) == 2
    assert paths_within(64, CoordinateSchedule(2)) == 32


# -- spread orders ---------------------------------------------------------------------------------


def naive_information(a, b, n_a, n_b):
    """Mutual information of two columns where both are there, with half a count spread over their table."""
    joint = np.full((n_a, n_b), 0.5 / (n_a * n_b))
    for i, j in zip(a, b, strict=True):
        if not (math.isnan(i) or math.isnan(j)):
            joint[int(i), int(j)] += 1
    joint /= joint.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    return sum(
        joint[i, j] * math.log(joint[i, j] / (rows[i] * columns[j]))
        for i in range(n_a)
        for j in range(n_b)
    )


@LAW
@given(wide_tables, st.integers(0, 60), st.sampled_from([0.0, 0.3]), seeds)
def test_information_against_slow_counts(device, dtype, columns, n, missing, seed):
    book = Codebook(columns).to(device)
    rows = random_rows(book, n, np.random.default_rng(seed), missing=missing)
    rows[: n // 2] = rows[: n // 2].clamp_max(0)  # which makes columns depend on one another
    found = pairwise_information(book, rows).cpu()
    finite = book.finite.tolist()
    assert found.shape == (len(finite), len(finite))
    assert found.dtype == torch.float64
    assert torch.equal(found.diagonal(), torch.zeros(len(finite), dtype=torch.float64))
    assert (found >= 0).all()
    torch.testing.assert_close(found, found.T)
    cells = rows.cpu().numpy()
    for (a, i), (b, j) in itertools.combinations(enumerate(finite), 2):
        sizes = book.columns[i].n_points, book.columns[j].n_points
        expected = naive_information(cells[:, i], cells[:, j], *sizes)
        assert found[a, b].item() == pytest.approx(expected, abs=rounding(dtype))


def test_information_is_counted_from_the_first_rows(device, monkeypatch):
    monkeypatch.setattr(planning, "ORDER_ROWS", 5000)  # more than are counted at once
    book = Codebook([simplex(2), simplex(2)]).to(device)
    rng = np.random.default_rng(0)
    rows = torch.tensor(rng.integers(2, size=(9000, 2)), device=device).double()
    rows[4000:, 1] = rows[4000:, 0]
    first = pairwise_information(book, rows[:5000])
    assert torch.equal(pairwise_information(book, rows), first)
    monkeypatch.undo()
    assert pairwise_information(book, rows)[0, 1] > first[0, 1] + 0.1


@LAW
@given(st.integers(1, 8), st.integers(1, 9), seeds)
def test_orders_are_permutations_that_the_generator_decides(n, n_orders, seed):
    information = torch.tensor(np.random.default_rng(seed).gamma(0.3, size=(n, n)))
    information = information + information.T
    orders = spread_orders(information, n_orders, seeded_generator(seed, "cpu"))
    assert len(orders) == n_orders
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert all(type(j) is int for order in orders for j in order)
    assert orders == spread_orders(information, n_orders, seeded_generator(seed, "cpu"))
    CoordinateSchedule(n, orders)


def test_every_column_comes_first_and_orders_differ():
    orders = spread_orders(torch.rand(6, 6), 200, seeded_generator(0, "cpu"))
    assert {order[0] for order in orders} == set(range(6))
    assert len(set(orders)) > 60
    assert orders != spread_orders(torch.rand(6, 6), 200, seeded_generator(1, "cpu"))


def test_orders_are_random_where_nothing_is_known():
    orders = spread_orders(torch.zeros(6, 6), 400, seeded_generator(0, "cpu"))
    place = np.array([np.argsort(order) for order in orders])
    assert abs(place.mean(0) - 2.5).max() < 4 * place.std() / math.sqrt(400)


def test_two_copies_of_a_column_lie_far_apart():
    """The second comes last; what says a little of many comes between."""
    n = 8
    information = torch.full((n, n), 0.01)
    information[2, 5] = information[5, 2] = 2.0
    for order in spread_orders(information, 50, seeded_generator(0, "cpu")):
        assert max(order.index(2), order.index(5)) == n - 1
    information[0, 1:] = information[1:, 0] = 0.2
    late = [o.index(0) for o in spread_orders(information, 300, seeded_generator(0, "cpu"))]
    rest = [p for p in late if p > 0]
    assert np.mean(rest) > n / 2 + 1


def test_tables_of_which_nothing_is_counted_have_no_orders(monkeypatch):
    def orders(*columns):
        book = Codebook(columns)
        rows = random_rows(book, 30, np.random.default_rng(0))
        return table_orders(book, rows, seeded_generator(0, "cpu"))

    assert orders(simplex(3)) is None
    assert orders(real()) is None
    assert orders(real(), code(5)) is None
    assert orders(simplex(1), real()) is None
    assert orders(simplex(2), simplex(2)) is not None
    monkeypatch.setattr(planning, "ORDER_LEVELS", 7)
    assert orders(simplex(4), simplex(3)) is not None
    assert orders(simplex(4), simplex(4)) is None


def test_columns_of_other_kinds_are_spread_among_those_that_are_counted(device):
    """As if each said of every other as much as the mean; so copies lie apart, and the others anywhere."""
    columns = [real(), simplex(2), code(4), simplex(2), real(), simplex(2), simplex(2)]
    book = Codebook(columns).to(device)
    rows = random_rows(book, 400, np.random.default_rng(0), missing=0.1)
    rows[:, 5] = rows[:, 1]
    orders = table_orders(book, rows, seeded_generator(0, "cpu"))
    assert len(orders) == planning.N_ORDERS
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders == table_orders(book, rows, seeded_generator(0, "cpu"))
    assert all(max(order.index(1), order.index(5)) == 6 for order in orders)
    first = {order.index(0) for order in orders}
    assert len(first) > 2


def test_a_wide_table_has_fewer_orders(monkeypatch):
    monkeypatch.setattr(planning, "ORDER_NUMBERS", 30)
    for n, expected in ((2, 15), (5, 6), (9, 4)):
        book = Codebook([simplex(2)] * n)
        rows = random_rows(book, 20, np.random.default_rng(0))
        assert len(table_orders(book, rows, seeded_generator(0, "cpu"))) == expected


@pytest.mark.parametrize("kind", ["network", "stranger"])
def test_all_spread_paths_together_are_a_distribution(device, dtype, kind):
    """Blocks are independent given those before, whatever the denoiser: the mass of all rows is one."""
    book = make_book("mixed", device)
    denoiser = make_denoiser(kind, book, 2)
    rows = all_rows(book)
    orders = spread_orders(pairwise_information(book, rows), 5, seeded_generator(0, "cpu"))
    got = path_log_prob(
        denoiser,
        rows,
        CoordinateSchedule(2, orders),
        n_paths=5,
        generator=seeded_generator(0, device),
    )
    assert got.log_prob.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))
    assert got.stderr.max() < rounding(dtype)


def pairs_of_copies(n, n_pairs, rng):
    """Columns of which every two tell the same."""
    half = rng.integers(2, size=(n, n_pairs))
    other = np.where(rng.random(half.shape) < 0.05, 1 - half, half)
    return np.stack([half, other], 2).reshape(n, -1).astype(float)


def test_copies_are_told_better_by_spread_blocks(device):
    """Two jumps, the one of one copy of each, lose nothing; random ones do."""
    book = Codebook([simplex(2)] * 6).to(device)
    rng = np.random.default_rng(0)
    rows = torch.tensor(pairs_of_copies(4000, 3, rng), device=device)
    share = np.array(
        [[0.475 if a == b else 0.025 for a in (0, 1)] for b in (0, 1)]
    )  # of a pair of copies
    every = all_rows(book)
    p = np.prod(
        [share[every[:, j].long().cpu(), every[:, j + 1].long().cpu()] for j in (0, 2, 4)], 0
    )
    oracle = SupportDenoiser(book, every, torch.tensor(p).to(book.known_snr))
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1)).to(device)
    found = list(
        possible_paths(
            oracle,
            rows,
            quadrature,
            kind="coordinate",
            n_evaluations=16,
            generator=torch.Generator(),
        )
    )
    spread = [schedule for name, schedule in found if name == "spread"]
    assert [s.n_steps for s in spread] == [2, 4]
    nats = [
        -path_log_prob(oracle, rows[:200], plan, n_paths=8, generator=seeded_generator(0, device))
        .log_prob.mean()
        .item()
        for plan in (spread[0], CoordinateSchedule(2), CoordinateSchedule(6))
    ]
    assert nats[0] == pytest.approx(nats[2], abs=0.02)
    assert nats[1] > nats[2] + 0.1


# -- what is tried ---------------------------------------------------------------------------------


@LAW
@given(
    wide_tables,
    seeds,
    st.sampled_from(["auto", "coordinate", "isotropic"]),
    st.sampled_from([2, 7, 16, 128]),
)
def test_every_path_tried_is_one_of_the_table(
    device, monkeypatch, columns, seed, kind, n_evaluations
):
    """Of any table, within the budget, and the same again."""
    monkeypatch.setattr(planning, "GRID", 6)
    book = Codebook(columns).to(device)
    denoiser = make_denoiser("marginals", book, seed)
    rows = random_rows(book, 12, np.random.default_rng(seed), missing=0.2)
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1)).to(device)
    call = {"kind": kind, "n_evaluations": n_evaluations}
    found = list(
        possible_paths(denoiser, rows, quadrature, **call, generator=seeded_generator(0, device))
    )
    names = {
        "coordinate": {"coordinate", "spread"},
        "isotropic": {"isotropic"},
        "auto": {"coordinate", "spread", "isotropic"},
    }[kind]
    assert {name for name, _ in found} <= names
    assert names - {name for name, _ in found} <= {"spread"}
    for name, schedule in found:
        if schedule.orders is not None:
            assert name == "spread"
            assert {tuple(sorted(o)) for o in schedule.orders} == {tuple(range(book.n_columns))}
            assert 1 < schedule.n_steps < book.n_columns
        assert schedule.n_steps <= max(n_evaluations // 2, 1)
    again = list(
        possible_paths(denoiser, rows, quadrature, **call, generator=seeded_generator(0, device))
    )
    assert again == found


@pytest.mark.parametrize(
    "columns",
    [
        [simplex(2)],
        [real()],
        [simplex(1), simplex(1)],
        [simplex(2), simplex(3)],
        [real(), simplex(2), real(), simplex(2, is_open=True), real()],
        [code(3), simplex(2), simplex(4), real(), simplex(2)],
    ],
    ids=["one", "one real", "constants", "two", "mixed", "words"],
)
def test_paths_of_tiny_and_mixed_tables(device, monkeypatch, columns):
    monkeypatch.setattr(planning, "GRID", 12)
    book = Codebook(columns).to(device)
    net = random_network(book, 0)
    rows = random_rows(book, 20, np.random.default_rng(0), missing=0.1)
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1)).to(device)
    for n_evaluations in (2, 16):
        found = choose_path(
            net,
            rows,
            rows,
            quadrature,
            n_evaluations=n_evaluations,
            generator=seeded_generator(0, device),
        )
        assert all(math.isfinite(c.nats) for c in found)
        kinds = {c.kind for c in found}
        assert ("spread" in kinds) == (n_evaluations == 16 and len(columns) > 2)
        assert ("isotropic" in kinds) == (not book.vocabularies)
        for c in found:
            assert c.n_paths == paths_within(n_evaluations, c.schedule)


def test_without_time_nothing_is_compared(device):
    columns = [simplex(2)] * 6
    rows = random_rows(Codebook(columns), 40, np.random.default_rng(0)).to(device)
    denoiser = make_denoiser("marginals", Codebook(columns).to(device), 0)
    call = {"n_evaluations": 16, "generator": seeded_generator(0, device)}
    ended = []

    def pilot():
        raise AssertionError("there is no time for it")

    found = choose_path(
        denoiser,
        rows,
        rows,
        pilot,
        **call,
        seconds_left=lambda: 0.0,
        ended=lambda: ended.append(True),
    )
    assert [c.kind for c in found] == ["coordinate"]
    assert ended == [True]


def test_leading_columns_are_not_spread(device):
    """These are known before the others, so orders of all columns would not be kept."""
    columns = [simplex(2)] * 6
    rows = random_rows(Codebook(columns), 40, np.random.default_rng(0)).to(device)
    quadrature = Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1)).to(device)
    for leading in ((), (5,)):
        book = Codebook(columns, leading=leading).to(device)
        denoiser = make_denoiser("marginals", book, 0)
        call = {"kind": "auto", "n_evaluations": 16, "generator": seeded_generator(0, device)}
        found = list(possible_paths(denoiser, rows, quadrature, **call))
        assert ("spread" in {name for name, _ in found}) == (not leading)
        steps = [s.n_steps for name, s in found if name == "coordinate"]
        assert max(steps) == 6 - len(leading)


def test_spread_orders_are_kept(tmp_path):
    rows = pairs_of_copies(120, 3, np.random.default_rng(0)).astype(int)
    orders = table_orders(
        Codebook([simplex(2)] * 6), torch.tensor(rows).double(), seeded_generator(0, "cpu")
    )
    model = DiffusionDensity(
        denoiser=Network(width=8, depth=1),
        schedule=CoordinateSchedule(2, orders),
        max_steps=5,
        n_evaluations=8,
        random_state=0,
    ).fit(rows)
    model.save(tmp_path / "model")
    again = DiffusionDensity.load(tmp_path / "model")
    assert again.model_.schedule == model.model_.schedule == CoordinateSchedule(2, orders)
    assert again.schedule == model.schedule
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
