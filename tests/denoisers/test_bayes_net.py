"""Bayesian networks: elimination against sums over all rows, the search for a graph against slow counts."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    BOOKS,
    FEW_EXAMPLES,
    all_rows,
    bayes_net_tables,
    cases,
    draw_rows,
    empty_state,
    known_but,
    line,
    make_book,
    make_denoiser,
    random_bayes_net,
    random_rows,
    random_trees,
    real,
    rounding,
    seeds,
    simplex,
    states_of_every_kind,
    tables,
    whole,
)

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    MarginalDenoiser,
    bayes_net,
    graph_search,
)
from discrete_itd.denoisers.graph_search import Elimination, greedy_order, parents_first


def naive_log_prob(parents, tables, row):
    """Of one whole row: a product of entries of the tables."""
    p = 1.0
    for j, (above, table) in enumerate(zip(parents, tables, strict=True)):
        mine = table[tuple(row[i] for i in above)]
        p *= mine[row[j]] / mine.sum()
    return math.log(p)


# -- exact, whatever is known ----------------------------------------------------------------------


@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_log_prob_is_a_product_of_tables(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    raw = bayes_net_tables(book, np.random.default_rng(seed))
    denoiser = random_bayes_net(book, np.random.default_rng(seed))
    expected = np.array([naive_log_prob(*raw, row) for row in whole(book)])
    got = denoiser.log_prob(all_rows(book)).double()
    np.testing.assert_allclose(got.cpu().numpy(), expected, atol=rounding(dtype), rtol=0)
    assert got.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))


@pytest.mark.parametrize(("name", "kind"), cases(["bayes_net", "tree"]))
def test_other_columns_come_from_the_rest(device, dtype, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 3)
    rng = np.random.default_rng(0)
    y, snr = states_of_every_kind(book, rng)
    rows = random_rows(book, len(y), rng, missing=0.2)
    finite = torch.zeros(book.n_columns, dtype=torch.bool, device=device)
    finite[book.finite] = True
    assert (denoiser.fallback is None) == bool(finite.all())
    if denoiser.fallback is not None:
        got, rest = denoiser(y, snr).log_prob(rows), denoiser.fallback(y, snr).log_prob(rows)
        assert torch.equal(got[:, ~finite].nan_to_num(0.0), rest[:, ~finite].nan_to_num(0.0))
        alone = Codebook([c for c in book.columns if c.kind in ("simplex", "line")] or [real()])
        own = torch.zeros(len(rows), dtype=dtype, device=device)
        if bool(finite.any()):
            probs = [t.exp() for t in denoiser.log_tables]
            net = BayesNetDenoiser(alone.to(device), denoiser.parents, probs)
            own = net.log_prob(rows[:, book.finite])
        expected = own + denoiser.fallback.log_prob(rows.masked_fill(finite, math.nan))
        torch.testing.assert_close(
            denoiser.log_prob(rows), expected, atol=rounding(dtype, 3), rtol=rounding(dtype)
        )


@pytest.mark.parametrize("kind", ["bayes_net", "tree"])
def test_memory_is_bounded_and_changes_nothing(device, dtype, monkeypatch, kind):
    book = make_book("mixed", device)
    denoiser = make_denoiser(kind, book, 2)
    rng = np.random.default_rng(0)
    (y, snr), rows = states_of_every_kind(book, rng), random_rows(book, 9, rng, missing=0.3)
    before = denoiser(y, snr).categorical.logits, denoiser.log_prob(rows)
    seen, log_mass = [], BayesNetDenoiser._log_mass

    def spy(self, ell, *some, **more):
        seen.append(ell.shape[2])
        return log_mass(self, ell, *some, **more)

    monkeypatch.setattr(BayesNetDenoiser, "_log_mass", spy)
    monkeypatch.setattr(bayes_net, "LARGE", 2 * denoiser.work)
    after = denoiser(y, snr).categorical.logits, denoiser.log_prob(rows)
    torch.testing.assert_close(after, before, atol=rounding(dtype), rtol=0)
    assert len(seen) > 2
    assert max(seen) == 2


# -- far from what it expects ----------------------------------------------------------------------


def agreeing(parents, off, device):
    """Columns of two categories that agree with the sum of their parents but for a probability, in float32."""
    torch.set_default_dtype(torch.float32)
    book = Codebook([simplex(2)] * len(parents)).to(device)
    own = []
    for above in parents:
        like = [sum(k) % 2 for k in itertools.product(range(2), repeat=len(above))]
        pair = [[1 - off, off], [off, 1 - off]] if above else [[0.5, 0.5]]
        pair = torch.tensor(pair, dtype=torch.float64, device=device)
        own.append(pair[like].view(*[2] * (len(above) + 1)))
    return BayesNetDenoiser(book, parents, own)


@pytest.mark.parametrize("off", [0.01, 1e-6])
def test_opposed_children_leave_their_parent_in_doubt(device, off):
    """Forty whose opinions multiply to far less than the smallest float, and one that decides."""
    net = agreeing([()] + [(0,)] * 40, off, device)
    book = net.codebook
    rows = torch.tensor([[0.0] * 21 + [1.0] * 20, [0.0] * 20 + [1.0] * 21], device=device).double()
    p = net(*known_but(book, rows, [0])).column(0).exp()
    half = torch.full_like(p[0], 0.5)
    torch.testing.assert_close(p[0], half, atol=1e-3, rtol=0)
    sure = 1 - (off / (1 - off)) ** 2  # 19 against 21
    torch.testing.assert_close(p[1, 1].item(), sure, atol=1e-5, rtol=0)
    rows[:, 0] = math.nan
    truth = math.log(0.5) + 20 * math.log(off) + math.log(2) + 20 * math.log1p(-off)
    assert net.log_prob(rows).isfinite().all()
    assert net.log_prob(rows)[0].item() == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("off", [0.02, 1e-6, 1e-30])
def test_known_cells_that_contradict_one_another_stay_finite(device, off):
    """A parent known to be what all forty children deny: what it is told counts, in float32 too."""
    net = agreeing([()] + [(0,)] * 40 + [(0,)], off, device)
    book = net.codebook
    rows = torch.tensor([[0.0] + [1.0] * 40 + [0.0]] * 2, device=device).double()
    for free in ([], [41], [0, 41], [0]):
        q = net(*known_but(book, rows, free))
        assert q.log_prob(rows).isfinite().all()
        assert q.mean().isfinite().all()
        told = q.column(41).exp()
        if free == [41]:
            torch.testing.assert_close(told[0, 0].item(), 1 - off, atol=1e-5, rtol=0)
        if free == [0, 41]:
            torch.testing.assert_close(told[0, 1].item(), 1 - off, atol=1e-5, rtol=0)
    gaps = rows.clone()
    gaps[1, 1:40:2] = math.nan
    truth = math.log(0.5) + 40 * math.log(off) + math.log1p(-off)
    log_p = net.log_prob(gaps)
    assert log_p.isfinite().all()
    assert log_p[0].item() == pytest.approx(truth, rel=1e-5)
    left = truth - 20 * math.log(off)
    assert log_p[1].item() == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize(("most", "off"), [(1, 0.02), (1, 1e-60), (2, 0.02), (2, 1e-30)])
def test_very_unlikely_rows_of_a_long_chain_are_finite(device, most, off):
    """Every cell disagrees with what the one or two before it say; 1e-60 is zero in float32."""
    n, row = 150, [0]
    net = agreeing([tuple(range(max(0, j - most), j)) for j in range(n)], off, device)
    for _ in range(1, n):
        row.append(1 - sum(row[-most:]) % 2)
    rows = torch.tensor([row] * 3, device=device).double()
    rows[1, ::3] = math.nan
    log_p = net.log_prob(rows)
    assert log_p.isfinite().all()
    assert log_p[0].item() == pytest.approx(math.log(0.5) + (n - 1) * math.log(off), rel=1e-5)
    for j in ([0], [75], list(range(0, n, 3))):
        q = net(*known_but(net.codebook, rows.nan_to_num(0.0), j))
        assert q.log_prob(rows.nan_to_num(0.0)).isfinite().all()
        assert q.mean().isfinite().all()
    start = net(*empty_state(net.codebook)).categorical.probs
    fine = net.double()(*empty_state(net.codebook)).categorical.probs
    torch.testing.assert_close(start.double(), fine, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["bayes_net", "trees"])
def test_states_near_no_point_tell_the_nearest(device, kind):
    """A value far from all levels of a line, beside a column of more categories."""
    torch.set_default_dtype(torch.float32)
    book = Codebook([line(-0.8, 1.0), simplex(3), simplex(2)]).to(device)
    denoiser = random_trees(book, np.random.default_rng(0), n_trees=2)
    if kind == "bayes_net":
        denoiser = random_bayes_net(book, np.random.default_rng(4))
        assert len(denoiser.order) < sum(map(len, denoiser.parents)) + 2  # they are joined
    y, snr = empty_state(book)

    def told(value, level):
        mine = book.coord_column == 0
        state = y.masked_fill(mine, value if level == math.inf else value * level), snr.clone()
        state[1][0, 0] = level
        return denoiser(*state).categorical.probs

    for value, nearest in ((40.0, 1.0), (-1e4, -0.8)):
        for level in (math.inf, 1e3):
            torch.testing.assert_close(
                told(value, level), told(nearest, math.inf), atol=1e-4, rtol=0
            )
    assert (told(1.0, math.inf) - told(-0.8, math.inf)).abs()[0, 2:].max() > 0.01


# -- automatic differentiation is its own affair ---------------------------------------------------


def test_gradients_are_taken_whatever_mode_is_on(device):
    book = make_book("mixed", device)
    net = make_denoiser("bayes_net", book, 2)
    y, snr = states_of_every_kind(book, np.random.default_rng(0))
    plain = net(y, snr).categorical.logits
    assert not plain.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(net(y, snr).categorical.logits, plain)
            made = y + 0.0  # in that mode
            assert torch.equal(net(made, snr + 0.0).categorical.logits, plain)
    asked = net(y.clone().requires_grad_(True), snr).categorical.logits
    assert torch.equal(asked, plain)


# -- summing columns out ---------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """Parents of an acyclic graph, in no order, and sizes."""
    n = draw(st.integers(0, 7))
    order = draw(st.permutations(range(n)))
    parents = [()] * n
    for i, j in enumerate(order):
        above = draw(st.lists(st.sampled_from(order[:i]), unique=True, max_size=3)) if i else []
        parents[j] = tuple(above)
    return parents, draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))


def naive_scopes(parents, order):
    """Scopes of the tables on the way, when columns are summed out of families in this order."""
    factors, scopes = [{j, *above} for j, above in enumerate(parents)], []
    for j in order:
        scopes.append(set().union(*(f for f in factors if j in f)))
        factors = [f for f in factors if j not in f] + [scopes[-1] - {j}]
    return scopes


def naive_elimination(parents, sizes, order):
    """Sizes of these tables."""
    return [math.prod(sizes[i] for i in scope) for scope in naive_scopes(parents, order)]


@FEW_EXAMPLES
@given(graphs(), seeds)
def test_elimination_has_the_tables_on_the_way(graph, seed):
    """In any order, whether families are there at once or join one after the other; limits refuse the first excess."""
    parents, sizes = graph
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    costs, scopes = naive_elimination(parents, sizes, order), naive_scopes(parents, order)
    at_once, joined = (
        Elimination(order, parents, sizes),
        Elimination(order, [()] * len(sizes), sizes),
    )
    for j, above in enumerate(parents):
        family = *above, j
        changes = joined.changes(family, math.inf, math.inf)
        largest = [
            max([1, *(c for n, c in changed_tables(changes) if (n == 2) == pair)])
            for pair in (1, 0)
        ]
        assert joined.changes(family, *largest) == changes
        for pair in (0, 1):
            limits = [size - (i == pair) for i, size in enumerate(largest)]
            assert (joined.changes(family, *limits) is None) == (largest[pair] > 1)
        joined.update(changes)
    for elimination in (at_once, joined):
        assert elimination.cost == costs
        large = [c for c, s in zip(costs, scopes, strict=True) if len(s) > 2]
        assert elimination.largest() == (max(costs, default=1), max(large, default=1))


def changed_tables(changes):
    """Numbers of columns of changed tables, and their sizes."""
    return [(joint.bit_count() + 1, cost) for joint, cost in changes.values()]


@FEW_EXAMPLES
@given(graphs())
def test_the_order_of_elimination_is_greedy(graph):
    """At any time no other column has a smaller table."""
    parents, sizes = graph
    order = greedy_order(parents, sizes)
    assert sorted(order) == list(range(len(sizes)))
    for n in range(len(order)):
        others = [naive_elimination(parents, sizes, (*order[:n], j))[n] for j in order[n:]]
        assert others[0] == min(others)


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3)])
def test_an_order_of_other_columns_is_refused(order):
    with pytest.raises(ValueError, match="order must hold each of 3 columns once"):
        BayesNetDenoiser(make_book("mixed", "cpu"), GRAPH, own_tables(), order=order)


@pytest.mark.parametrize("shape", ["tree", "net"])
def test_products_of_matrices_change_no_answer(device, dtype, shape):
    """Of long columns, against sums of logarithms."""
    book = Codebook([simplex(k) for k in (17, 3, 20, 16, 2, 18, 17)]).to(device)
    rng = np.random.default_rng(0)
    net = random_trees(book, rng) if shape == "tree" else random_bayes_net(book, rng)
    assert net._by_product
    rows = random_rows(book, 40, rng, missing=0.3)
    y, snr = states_of_every_kind(book, rng)
    fast = net.log_prob(rows), net(y, snr).categorical.probs, net.log_factors(rows)
    net._by_product = set()
    slow = net.log_prob(rows), net(y, snr).categorical.probs, net.log_factors(rows)
    torch.testing.assert_close(fast, slow, atol=rounding(dtype, 10), rtol=rounding(dtype))


# -- the search for a graph ------------------------------------------------------------------------


def naive_bic(x, sizes, j, above, penalty, n_seen=None, n_rows=None):
    """Schwarz's criterion of a column given parents: log-likelihood less the price of its numbers that occur."""
    counts = {}
    for row in np.nan_to_num(x).astype(int):
        own = counts.setdefault(tuple(row[list(above)]), np.zeros(sizes[j]))
        own[row[j]] += 1
    nats = sum((c[c > 0] * np.log(c[c > 0] / c.sum())).sum() for c in counts.values())
    each = max(1, (n_seen or len(np.unique(x[:, j]))) - 1)
    free = sum(min(each, graph_search.FREE * c.sum()) for c in counts.values())
    return nats - penalty * np.log(max(2, n_rows or len(x))) / 2 * free


def search(x, sizes, most_parents=5, most_table=1 << 13, most_pair=0):
    counted = graph_search.Counted(np.asarray(x, float), sizes)
    return graph_search.Search(counted, most_parents, most_table, most_pair)


def skeleton(parents):
    """Pairs of columns that a graph joins."""
    return {tuple(sorted((i, j))) for j, above in enumerate(parents) for i in above}


def is_acyclic(parents):
    return len(parents_first(parents)) == len(parents)


few_rows = st.tuples(graphs().filter(lambda g: len(g[1]) > 0), st.integers(1, 80), seeds)


def correlated(sizes, n, seed):
    """Rows that follow a hidden number, more or less."""
    rng = np.random.default_rng(seed)
    hidden = rng.integers(60, size=(n, 1))
    noise = (rng.random((n, len(sizes))) < 0.3) * rng.integers(60, size=(n, len(sizes)))
    return ((hidden + noise) % np.array(sizes)).astype(float)


@FEW_EXAMPLES
@given(few_rows, st.sampled_from([0.0, 0.2]))
def test_gains_are_nats_less_their_price_in_the_rows_that_have_all(made, share):
    """Scaled to all rows, at the price that a number has among all."""
    (parents, sizes), n, seed = made
    x = correlated(sizes, n, seed)
    x[np.random.default_rng(seed).random(x.shape) < share] = math.nan
    price = 0.7 * math.log(max(2, n)) / 2
    gain = search(x, sizes).counted.gain
    for j, above in enumerate(parents):
        for i in range(len(sizes)):
            if i == j or i in above:
                continue
            there = x[~np.isnan(x[:, [*above, i, j]]).any(1)]
            if not len(there):
                assert gain(j, above, i, price) == 0
                continue
            more = 0.7, len(np.unique(x[~np.isnan(x[:, j]), j])), n
            scaled = naive_bic(there, sizes, j, (*above, i), *more)
            scaled -= naive_bic(there, sizes, j, above, *more)
            expected = scaled / max(len(there) / n, graph_search.LEAST_COMPLETE)
            assert gain(j, above, i, price) == pytest.approx(expected, abs=1e-8)


def neighbours(parents, most_parents):
    """All graphs with one edge more, or turned, that are allowed."""
    for i, j in itertools.permutations(range(len(parents)), 2):
        changed = [[p for p in above if (p, k) != (j, i)] for k, above in enumerate(parents)]
        changed[j] = list({*changed[j], i})
        if max(map(len, changed)) <= most_parents and is_acyclic(changed):
            yield changed


@FEW_EXAMPLES
@given(few_rows, st.sampled_from([0.0, 0.05, 1.0]), st.integers(0, 3))
def test_no_change_of_a_found_graph_would_improve_it(made, penalty, most_parents):
    (_, sizes), n, seed = made
    x = correlated(sizes, n, seed)
    graphs = search(x, sizes, most_parents, 1 << 17).climb([penalty])
    found, _ = next(graphs)
    assert is_acyclic(found)
    assert max(map(len, found)) <= most_parents

    def total(parents):
        return sum(naive_bic(x, sizes, j, above, penalty) for j, above in enumerate(parents))

    best = total(found)
    assert best >= total([()] * len(sizes)) - 1e-6
    for other in neighbours(found, most_parents):
        assert total(other) <= best + 1e-5


@FEW_EXAMPLES
@given(few_rows, st.sampled_from([0, 1, 4]), st.sampled_from([1, 12, 40]), st.sampled_from([0, 20]))
def test_limits_are_kept(made, most_parents, most_table, most_pair):
    """Whatever it costs: without a price, every edge would be taken."""
    (_, sizes), n, seed = made
    x = correlated(sizes, n, seed)
    limits = most_parents, most_table, most_pair
    found, order = next(search(x, sizes, *limits).climb([0.0]))
    assert is_acyclic(found)
    assert max(map(len, found)) <= most_parents
    largest, joint = Elimination(order, found, sizes).largest()
    assert largest <= max(most_table, most_pair, *sizes)
    assert joint <= most_table
    assert (found, order) == next(search(x, sizes, *limits).climb([0.0]))


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_each_lower_price_continues_from_the_graph_before(missing):
    rng, sizes = np.random.default_rng(1), [2] * 8 + [5]
    truth = random_bayes_net(Codebook([simplex(k) for k in sizes]), rng)
    x = draw_rows(truth, 500, rng, missing=missing).numpy()
    climbed = search(x, sizes, 2, 16)
    graphs = [graph for graph, _ in climbed.climb([1.0, 0.5, 0.0])]
    (later, _), _ = climbed.climb([0.5, 0.0], graphs[0])
    assert later == graphs[1]
    edges = [sum(map(len, graph)) for graph in graphs]
    assert edges == sorted(edges)
    assert edges[0] < edges[-1]


def test_what_is_kept_changes_no_graph(monkeypatch):
    x, sizes = correlated([2, 3, 2, 4, 2, 3, 2], 300, 0), [2, 3, 2, 4, 2, 3, 2]
    graphs = [list(search(x, sizes).climb([1.0, 0.2]))]
    monkeypatch.setattr(graph_search, "MOST_KEPT", 0)
    graphs.append(list(search(x, sizes).climb([1.0, 0.2])))
    monkeypatch.setattr(graph_search, "WORDS", 1)
    graphs.append(list(search(x, sizes).climb([1.0, 0.2])))
    assert graphs[0] == graphs[1] == graphs[2]
    assert sum(map(len, graphs[0][1][0])) > 7


def test_wide_tables_have_second_parents_among_the_best(monkeypatch):
    sizes = [2] * 12
    x = correlated(sizes, 400, 1)
    every, _ = next(search(x, sizes, 3).climb([0.0]))
    monkeypatch.setattr(graph_search, "MOST_CANDIDATES", 3)
    found, _ = next((wide := search(x, sizes, 3)).climb([0.0]))
    n_others = [0, 0]
    for j in range(len(sizes)):
        gain = wide.counted.gains(j, (), np.arange(len(sizes)) != j).nats
        best = np.argsort(-np.nan_to_num(gain, nan=-np.inf))[:3]
        for i, graph in enumerate((found, every)):
            n_others[i] += max(0, len(set(graph[j]) - set(best.tolist())) - 1)
    assert n_others[0] == 0
    assert n_others[1] > 0


GRAPHS = {
    "chain": [(), (0,), (1,), (2,), (3,)],
    "collider": [(), (), (0, 1), (2,), ()],
    "diamond": [(), (0,), (0,), (1, 2), (3,)],
    "three parents": [(), (), (), (0, 1, 2), ()],
}


def sharp_net(parents, rng, device, sizes=(2, 3, 2, 3, 2)):
    """A network of strong bonds; more than one parent matter together."""
    book = Codebook([simplex(k) for k in sizes]).to(device)
    own = []
    for j, above in enumerate(parents):
        shape = [sizes[i] for i in above]
        mode = np.indices(shape).sum(0) if above else np.zeros((), int)
        table = np.full((*shape, sizes[j]), 0.12 if above else 1.0)
        np.put_along_axis(table, mode[..., None] % sizes[j], 1.0, -1)
        own.append(torch.tensor(table * rng.uniform(0.8, 1.2, table.shape)))
    return BayesNetDenoiser(book, parents, own)


def fit(book, x, **kwargs):
    return BayesNetDenoiser.fit(MarginalDenoiser.fit(book, x), x, **kwargs)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_the_search_finds_what_made_the_rows(device, name, missing):
    rng = np.random.default_rng(1)
    truth = sharp_net(GRAPHS[name], rng, device)
    rows = all_rows(truth.codebook)
    x = draw_rows(truth, 6000, rng, missing=missing)
    fitted = fit(truth.codebook, x, x_valid=draw_rows(truth, 1000, rng, missing=missing))
    assert skeleton(GRAPHS[name]) <= skeleton(fitted.parents)
    assert len(skeleton(fitted.parents)) <= len(skeleton(GRAPHS[name])) + (1 if missing else 0)
    p, log_q = truth.log_prob(rows).double(), fitted.log_prob(rows).double()
    assert 0 <= (p.exp() * (p - log_q)).sum() < 0.01


def test_an_exclusive_or_needs_two_parents(device):
    """Which no tree can tell: a nudge of one parent leads to it."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(2, size=(2, 4000))
    x = np.stack([a, b, np.where(rng.random(4000) < 0.1, a | b, a ^ b)], 1).astype(float)
    net = fit(Codebook([simplex(2)] * 3).to(device), torch.tensor(x, device=device))
    assert max(map(len, net.parents)) == 2  # of any column: each is the exclusive or of the others
    p = net.log_prob(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], device=device)).exp()
    torch.testing.assert_close(
        p.double().cpu(), torch.tensor([0.225, 0.025]).double(), atol=0.02, rtol=0
    )


def test_a_cell_that_tells_of_a_gap_says_nothing_of_the_value(device):
    """Cells are there only where another column says so: that is no information on what they hold, nor on it."""
    rng = np.random.default_rng(0)
    gap, value = rng.integers(2, size=(2, 3000))
    near = np.where(rng.random(3000) < 0.7, value, 1 - value)
    x = torch.tensor(np.stack([gap, np.where(gap == 1, np.nan, value), near], 1), device=device)
    fitted = fit(Codebook([simplex(2)] * 3).to(device), x)
    assert skeleton(fitted.parents) == {(1, 2)}
    absent = torch.tensor([[1.0, math.nan, math.nan], [0.0, math.nan, math.nan]], device=device)
    p = fitted.log_prob(absent).exp()
    assert p.double().cpu().numpy() == pytest.approx([gap.mean(), 1 - gap.mean()], abs=1e-3)


def test_the_search_looks_at_the_first_rows(device, monkeypatch):
    monkeypatch.setattr(bayes_net, "SEARCH_ROWS", 500)
    rng = np.random.default_rng(0)
    a, b = rng.integers(2, size=(2, 4000))
    x = np.stack([a, np.where(np.arange(4000) < 500, b, a)], 1).astype(float)
    fitted = fit(Codebook([simplex(2)] * 2).to(device), torch.tensor(x, device=device))
    assert not skeleton(fitted.parents)
    monkeypatch.undo()
    fitted = fit(Codebook([simplex(2)] * 2).to(device), torch.tensor(x, device=device))
    assert skeleton(fitted.parents) == {(0, 1)}


# -- tables ----------------------------------------------------------------------------------------


def naive_table(x, sizes, alone, above, j):
    """Counts given ever more parents, and so many rows of the table before that rows are likeliest by the others."""
    out = {(): alone / alone.sum()}
    for n in range(1, len(above) + 1):
        shorter, count = out, {}
        for context in itertools.product(*(range(sizes[i]) for i in above[:n])):
            rows = [row for row in x if tuple(row[list(above[:n])]) == context]
            count[context] = np.bincount(
                [int(row[j]) for row in rows if not np.isnan(row[j])], minlength=sizes[j]
            )
        nats = {}
        for strength in bayes_net.STRENGTHS:
            nats[strength] = 0.0
            for context, own in count.items():
                for v in np.repeat(np.arange(sizes[j]), own):
                    others = own - np.eye(sizes[j])[v]
                    p = others + strength * shorter[context[:-1]]
                    nats[strength] -= np.log(p[v] / p.sum())
        best = min(nats, key=nats.get)
        out = {c: (own + best * shorter[c[:-1]]) / (own.sum() + best) for c, own in count.items()}
    shape = [sizes[i] for i in (*above, j)]
    return np.array([out[c] for c in itertools.product(*(range(sizes[i]) for i in above))]).reshape(
        shape
    )


@FEW_EXAMPLES
@given(graphs(), st.integers(0, 40), seeds)
def test_tables_are_smoothed_by_shorter_ones(graph, n, seed):
    parents, sizes = graph
    rng = np.random.default_rng(seed)
    x = correlated(sizes, n, seed)
    x[rng.random(x.shape) < 0.1] = math.nan
    for j, above in enumerate(parents):
        alone = rng.uniform(0.1, 1, sizes[j])
        counts = bayes_net.nested_counts(x, sizes, [(*above, j)])[*above, j]
        got = bayes_net.smoothed_table(counts, alone)
        expected = naive_table(x, sizes, alone, above, j)
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_held_out_rows_choose_edges(device, monkeypatch):
    """The best on them of all that were made."""
    rng = np.random.default_rng(4)
    truth = sharp_net(GRAPHS["diamond"], rng, device)
    x, valid = draw_rows(truth, 100, rng), draw_rows(truth, 400, rng)
    seen, log_prob = [], BayesNetDenoiser.log_prob

    def spy(self, rows):
        seen.append((self, log_prob(self, rows).mean().item(), len(rows)))
        return log_prob(self, rows)

    monkeypatch.setattr(BayesNetDenoiser, "log_prob", spy)
    fitted = fit(truth.codebook, x, x_valid=valid)
    nats = [n for _, n, _ in seen]
    assert {n for _, _, n in seen} == {len(valid)}
    graphs = {tuple(map(tuple, net.parents)) for net, _, _ in seen}
    assert len(nats) == len(graphs) > 1
    assert any(all(len(above) < 2 for above in graph) for graph in graphs)  # the tree, too
    assert fitted is seen[int(np.argmax(nats))][0]


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_unseen_slots_keep_a_probability(device, dtype, name):
    """Beside any parents, and given that a parent is unseen."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    x = draw_rows(random_bayes_net(book, rng), 200, rng)
    n_levels = torch.tensor([c.n_levels for c in book.columns], device=device)
    x = torch.where(x >= n_levels, 0.0, x)
    marginals = MarginalDenoiser.fit(book, x, unseen_counts=[0.2] * book.n_columns)
    fitted = BayesNetDenoiser.fit(marginals, x)
    rows = all_rows(book)
    log_p = fitted.log_prob(rows).double()
    assert log_p.isfinite().all()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))
    unseen = (rows >= n_levels).any(1)
    assert log_p[unseen].exp().sum() < 0.02
    assert not bool(unseen.any()) or log_p[unseen].min() > -20


def test_columns_of_one_category_and_tables_of_one_column(device, dtype):
    rng = np.random.default_rng(0)
    for columns in ([simplex(3)], [simplex(1)], [simplex(1), simplex(3), line(0.4), simplex(2)]):
        book = Codebook(columns).to(device)
        x = random_rows(book, 100, rng)
        net, marginals = fit(book, x, x_valid=x), MarginalDenoiser.fit(book, x)
        assert not skeleton(net.parents)
        rows = all_rows(book)
        torch.testing.assert_close(
            net.log_prob(rows), marginals.log_prob(rows), atol=rounding(dtype), rtol=0
        )
    constant = torch.zeros(50, 3, dtype=torch.float64, device=device)
    assert not skeleton(fit(Codebook([simplex(2)] * 3).to(device), constant).parents)


@pytest.mark.parametrize("name", ["mixed", "all kinds", "only reals"])
def test_a_fit_draws_nothing(device, name):
    """Whatever else is in the table: the rows alone decide."""
    book = make_book(name, device)
    x = random_rows(book, 80, np.random.default_rng(0), missing=0.1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fitted, again = fit(book, x, x_valid=x[:20]), fit(book, x, x_valid=x[:20])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert fitted.parents == again.parents
    for key, value in fitted.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    rows = random_rows(book, 9, np.random.default_rng(1), missing=0.2)
    assert fitted.log_prob(rows).isfinite().all()
    assert torch.equal(fitted.log_prob(rows), again.log_prob(rows))
    assert fitted(*empty_state(book)).log_prob(rows[:1]).shape == (1, book.n_columns)


# -- what is refused -------------------------------------------------------------------------------

GRAPH = [(), (0,), (0, 1)]


def own_tables(change=None, at=2, where=(0, 0, 0)):
    made = [torch.full(s, 0.5) for s in ((3,), (3, 2), (3, 2, 2))]
    if change is not None:
        made[at][where] = change
    return made


def test_wrong_networks_are_refused():
    for parents, own, message in [
        ([(1,), (0,), ()], [torch.ones(2, 3), torch.ones(3, 2), torch.ones(2)], "has a cycle"),
        (
            [(2,), (0,), (1,)],
            [torch.ones(2, 3), torch.ones(3, 2), torch.ones(2, 2)],
            "has a cycle",
        ),
        ([(), (1,), ()], own_tables(), r"column 1: parents \(1,\)"),
        ([(), (0, 0), ()], own_tables(), r"column 1: parents \(0, 0\)"),
        ([(), (3,), ()], own_tables(), r"column 1: parents \(3,\)"),
        ([(), (-1,), ()], own_tables(), r"column 1: parents \(-1,\)"),
        ([(), (0,)], own_tables(), "a graph of 3 columns is wanted, got 2"),
        (GRAPH, own_tables()[:2], "a graph of 3 columns"),
        ([(), (0,), (1, 0)], own_tables(), r"column 2: .* of the shape \(2, 3, 2\)"),
        ([(), (), (0, 1)], own_tables(), r"column 1: .* of the shape \(2,\)"),
        (GRAPH, own_tables(0.0), "column 2: its table must be positive"),
        (GRAPH, own_tables(-1.0), "column 2: its table must be positive"),
        (GRAPH, own_tables(math.nan), "column 2: its table must be positive"),
        (GRAPH, own_tables(math.inf), "column 2: its table must be positive"),
        (GRAPH, own_tables(0.0, 0, 0), "column 0: its table must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            BayesNetDenoiser(make_book("mixed", "cpu"), parents, own)


@pytest.mark.parametrize("name", ["one real", "all kinds", "only reals"])
def test_other_columns_need_a_fallback(name):
    book = make_book(name, "cpu")
    parents, own = bayes_net_tables(book, np.random.default_rng(0))
    with pytest.raises(ValueError, match="need a fallback"):
        BayesNetDenoiser(book, parents, list(map(torch.tensor, own)))


def test_a_graph_too_dear_is_refused_before_memory_is_asked_for():
    """Small tables whose product is large: a grid of columns, each joined with two others."""
    n = 26
    parents = [(i - n * (i >= n),) if i % n == 0 else (i - 1,) for i in range(n)]
    parents[0] = ()
    parents += [(i - n,) if i % n == 0 else (i - 1, i - n) for i in range(n, n * n)]
    book = Codebook([simplex(2)] * (n * n))
    own = [torch.ones(*[2] * (len(above) + 1)) for above in parents]
    with pytest.raises(ValueError, match="summing columns out takes a table of"):
        BayesNetDenoiser(book, parents, own)


def test_improbable_cells_have_their_odds_given_the_others(device, dtype):
    """Of cells that contradict all others, too: forty nats, of which a product of floats would keep nothing."""
    book, n = Codebook([simplex(3)] * 6).to(device), 2
    rng = np.random.default_rng(0)
    parents = [(), (0,), (1,), (2, 1), (3,), (3, 4)]
    shapes = [(3,) * (len(above) + 1) for above in parents]
    tables = [
        torch.tensor(np.exp(-rng.uniform(0, 25, shape))).to(book.known_snr) for shape in shapes
    ]
    net, every = BayesNetDenoiser(book, parents, tables), all_rows(book)
    log_p = net.log_prob(every).double()
    x = every[log_p.argsort()[: 20 * n : n]]
    found = net.leave_one_out(x, torch.ones_like(x, dtype=torch.bool)).log_prob(x)
    for j in range(6):
        same = (every[:, None] == x).index_fill(2, torch.tensor([j], device=device), True).all(2)
        total = log_p[:, None].masked_fill(~same, -torch.inf).logsumexp(0)
        expected = (net.log_prob(x).double() - total).to(found)
        torch.testing.assert_close(found[:, j], expected, atol=rounding(dtype, 30), rtol=1e-5)
    assert found.min() < -40
    odds = book.levels.log_softmax
    by_sums, by_tables = odds(net._by_derivatives(every)), odds(net._by_blankets(every.long()))
    torch.testing.assert_close(by_tables, by_sums, atol=rounding(dtype, 30), rtol=1e-5)
