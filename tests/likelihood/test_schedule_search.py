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
    cases,
    code,
    empty_state,
    make_book,
    make_denoiser,
    mixture_draws,
    paths_of,
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

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Quadrature, distinct_paths
from discrete_itd.channel.codebook import Codebook
from discrete_itd.likelihood import schedule_search as planning
from discrete_itd.likelihood.schedule_search import (
    cheapest_steps,
    choose_path,
    paths_within,
    place_steps,
    possible_paths,
    step_costs,
)
from discrete_itd.training import pilot_quadrature

pytestmark = pytest.mark.usefixtures("full_size")


def range_of_snrs():
    return Quadrature(torch.tensor([0.05, 90.0]).log(), torch.ones(1))


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
    whole = paths_of(denoiser, rows, IsotropicSchedule(levels), n_paths=1, seed=5)
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
            paths_of(oracle, oracle.support, schedule, n_paths=1, seed=s).log_prob
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
        paths_of(oracle, rows[1000:], plan, n_paths=1, seed=2)
        for plan in (placed, IsotropicSchedule(tuple(even.tolist())))
    )
    gain = a.log_prob - b.log_prob
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))


@pytest.mark.parametrize("kind", ["auto", "coordinate", "isotropic"])
@pytest.mark.parametrize("n_evaluations", [1, 12])
def test_candidates_keep_the_budget_and_the_best_leads(device, dtype, kind, n_evaluations):
    book = make_book("mixed", device)
    oracle = random_oracle(book, np.random.default_rng(0))
    found = choose_path(
        oracle,
        oracle.support,
        oracle.support,
        range_of_snrs,
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
        lambda: quadrature,
        n_evaluations=16,
        generator=seeded_generator(0, device),
        max_rows=32,
    )
    assert found
    assert all(math.isfinite(c.nats) and math.isfinite(c.stderr) for c in found)
    best = paths_of(net, rows[:32], found[0].schedule, n_paths=64, seed=1)
    slack = 4 * (best.stderr.square().sum().sqrt().item() / 32) + 0.5 * found[0].stderr
    assert -best.log_prob.mean().item() < found[0].nats + slack


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
    options = {"kind": "isotropic", "n_evaluations": n_evaluations, "generator": generator}
    assert not list(possible_paths(oracle, oracle.support, range_of_snrs, **options))
    assert asked == counts


def test_paths_of_a_wide_table_are_compared_on_fewer_rows(device, monkeypatch):
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
            oracle, rows, rows, lambda: quadrature, kind="coordinate", n_evaluations=8, max_rows=100,
            generator=seeded_generator(0, device),
        )  # fmt: skip
        assert seen == {n_first}


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
        oracle,
        rows,
        rows,
        lambda: quadrature,
        n_evaluations=64,
        generator=seeded_generator(0, device),
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
    call = {"kind": kind, "n_evaluations": n_evaluations}
    found = list(
        possible_paths(denoiser, rows, range_of_snrs, **call, generator=seeded_generator(0, device))
    )
    names = {"coordinate", "isotropic"} if kind == "auto" else {kind}
    assert {name for name, _ in found} == names
    assert all(schedule.n_steps <= max(n_evaluations // 2, 1) for _, schedule in found)
    again = list(
        possible_paths(denoiser, rows, range_of_snrs, **call, generator=seeded_generator(0, device))
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
    for n_evaluations in (2, 16):
        found = choose_path(
            net,
            rows,
            rows,
            range_of_snrs,
            n_evaluations=n_evaluations,
            generator=seeded_generator(0, device),
        )
        assert all(math.isfinite(c.nats) for c in found)
        kinds = {c.kind for c in found}
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
