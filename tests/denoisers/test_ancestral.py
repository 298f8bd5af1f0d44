"""Exact denoisers in one pass: factors, preceding distributions and draws against enumeration and the slow chain."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    FEW_EXAMPLES,
    all_rows,
    cases,
    line,
    make_book,
    make_denoiser,
    random_bayes_net,
    random_rows,
    random_trees,
    real,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    tables,
)
from scipy import stats

from discrete_itd.channel import CoordinateSchedule
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    MixtureDenoiser,
    RowMixtureDenoiser,
)
from discrete_itd.denoisers.base import cumulative
from discrete_itd.denoisers.graph_search import parents_first
from discrete_itd.denoisers.mixture import shares_of_classes
from discrete_itd.likelihood.sampling import sample

KINDS = ["marginals", "bayes_net", "tree", "trees", "mixture"]
PRECEDING = ["marginals", "bayes_net", "tree", "oracle"]  # exact in their natural order


def chain(denoiser, x, order):
    """log P(x_j | x before j) in an order, as differences of log-probabilities: (B, C)."""
    out, seen = torch.zeros_like(x), torch.full_like(x, math.nan)
    for j in order:
        before = denoiser.log_prob(seen).double()
        seen[:, j] = x[:, j]
        out[:, j] = denoiser.log_prob(seen).double() - before
    return out


def own_order(denoiser):
    """The order of the factors of a denoiser; None where they are of no chain."""
    book = denoiser.codebook
    finite = book.finite.tolist()
    beyond = [j for j in range(book.n_columns) if j not in finite]
    if isinstance(denoiser, BayesNetDenoiser):
        inside = parents_first(denoiser.parents)
    elif isinstance(denoiser, RowMixtureDenoiser):
        return None
    else:
        return list(range(book.n_columns))
    return [finite[j] for j in inside] + beyond


def check_factors(denoiser, x, dtype):
    got, close = denoiser.log_factors(x).double(), {"atol": rounding(dtype, 10), "rtol": 1e-5}
    torch.testing.assert_close(got.sum(1), denoiser.log_prob(x).double(), **close)
    assert not got[x.isnan()].any()
    order = own_order(denoiser)
    if order is not None:
        torch.testing.assert_close(got, chain(denoiser, x, order), **close)


@pytest.mark.parametrize("kind", [*KINDS, "oracle"])
@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_factors_are_those_of_the_chain(device, dtype, kind, columns, seed):
    """Also beside rows of which nothing, or all, is missing."""
    book = Codebook(columns).to(device)
    x = random_rows(book, 9, np.random.default_rng(seed), missing=0.4)
    x[0], x[1:5] = math.nan, x[1:5].nan_to_num(0.0)
    denoiser = make_denoiser(kind, book, seed)
    check_factors(denoiser, x, dtype)
    assert denoiser.log_factors(x[:0]).shape == (0, book.n_columns)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *cases(KINDS, ["all kinds", "reals and levels"]),
        ("only reals", "correlated"),
    ],
)
def test_factors_of_other_columns(device, dtype, name, kind):
    book = make_book(name, device)
    x = random_rows(book, 30, np.random.default_rng(1), missing=0.2)
    check_factors(make_denoiser(kind, book), x, dtype)


def test_factors_of_a_larger_net_with_gaps(device, dtype):
    """In which parents, children and whole branches are missing."""
    book = Codebook([simplex(2 + i % 2) for i in range(9)]).to(device)
    rng = np.random.default_rng(3)
    x = random_rows(book, 60, rng, missing=0.3)
    for denoiser in (random_bayes_net(book, rng), random_trees(book, rng)):
        check_factors(denoiser, x, dtype)


def test_a_gap_below_which_nothing_is_seen_is_not_summed_out(device, monkeypatch):
    book = Codebook([simplex(3)] * 6).to(device)
    net = random_bayes_net(book, np.random.default_rng(0))
    x = random_rows(book, 20, np.random.default_rng(1))
    leaves = [j for j in range(6) if not any(j in above for above in net.parents)]
    x[:, leaves] = math.nan
    expected = net.log_prob(x)
    monkeypatch.setattr(net, "_log_mass", None)
    torch.testing.assert_close(net.log_factors(x).sum(1), expected)


def tensors_of(posterior, j):
    """Everything that a posterior says of column j."""
    book = posterior.codebook
    at = torch.nonzero(book.reals == j).flatten()
    if len(at):
        q = posterior.gaussian
        return torch.stack([q.log_weight, q.means, q.var])[:, :, at[0]]
    return posterior.column(j)


@pytest.mark.parametrize(
    ("name", "kind"),
    cases(PRECEDING, ["mixed", "open", "all kinds", "reals and levels"]),
)
def test_what_precedes_a_column_is_all_that_it_hears(device, name, kind):
    """Bit for bit, in any order, whatever comes later; and the known cells before it are heard."""
    book, rng = make_book(name, device), np.random.default_rng(0)
    denoiser, heard = make_denoiser(kind, book, 1), False
    for _ in range(4):
        order = rng.permutation(book.n_columns).tolist()
        x, other = (random_rows(book, 25, rng, missing=0.2) for _ in range(2))
        before = denoiser.preceding(x, order)
        for place in range(book.n_columns):
            moved = x.clone()
            moved[:, order[place:]] = other[:, order[place:]]
            after = denoiser.preceding(moved, order)
            for i, j in enumerate(order):
                same = torch.equal(tensors_of(after, j), tensors_of(before, j))
                assert same or i > place
                heard |= not same
    # networks and trees of so few columns may have no edge
    assert heard or kind in ("marginals", "bayes_net", "tree")


@pytest.mark.parametrize(("name", "kind"), cases(PRECEDING, ["mixed", "open", "simplex"]))
def test_preceding_distributions_are_a_normalised_mass_in_any_order(device, dtype, name, kind):
    book = make_book(name, device)
    denoiser, rows = make_denoiser(kind, book, 2), all_rows(book)
    for order in itertools.permutations(range(book.n_columns)):
        log_p = denoiser.preceding(rows, order).log_prob(rows).sum(1)
        assert log_p.double().exp().sum().item() == pytest.approx(1, abs=rounding(dtype, 10))


@pytest.mark.parametrize("kind", PRECEDING)
@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_in_the_natural_order_they_are_the_distribution(device, dtype, kind, columns, seed):
    book = Codebook(columns).to(device)
    denoiser, rng = make_denoiser(kind, book, seed), np.random.default_rng(seed)
    missing = 0.3 if kind in ("marginals", "oracle") else 0.0  # exact with gaps as well
    x = random_rows(book, 20, rng, missing=missing)
    order = denoiser.natural_order(seeded_generator(seed, device))
    got = denoiser.preceding(x, order).log_prob(x)
    torch.testing.assert_close(
        got.double(), chain(denoiser, x, order), atol=rounding(dtype, 10), rtol=1e-5
    )


@pytest.mark.parametrize("kind", [*KINDS, "oracle"])
def test_natural_orders_put_parents_first(device, kind):
    book = Codebook([simplex(2)] * 6).to(device)
    denoiser, orders = make_denoiser(kind, book, 0), set()
    for seed in range(12):
        order = denoiser.natural_order(seeded_generator(seed, device))
        assert sorted(order) == list(range(6))
        orders.add(tuple(order))
        if kind == "bayes_net":
            for j, p in itertools.product(order, order):
                assert p not in denoiser.parents[j] or order.index(p) < order.index(j)
    assert len(orders) > 3


# -- draws ------------------------------------------------------------------------------------------


def test_the_last_level_has_the_rest_of_the_probability(device):
    log_probs = torch.zeros(10, device=device)
    assert torch.softmax(log_probs.double(), 0).cumsum(0)[-1] < 1
    assert cumulative(log_probs)[-1] == 1


def renormalised(denoiser, rows):
    """Mass of rows (R,) if each cell is drawn given its parents, or the class, without the unseen."""
    book = denoiser.codebook
    if isinstance(denoiser, RowMixtureDenoiser):
        masses = torch.stack([renormalised(tree, rows) for tree in denoiser.members])
        return denoiser.log_weights.double().exp() @ masses
    unseen = book.levels.level_unseen
    if isinstance(denoiser, MixtureDenoiser):
        probs = denoiser.log_probs.masked_fill(unseen, -torch.inf)
        at = book.levels.index_of(rows.long())
        by_class = book.levels.log_softmax(probs)[:, at].sum(2).double().exp()
        return denoiser.log_weights.double().exp() @ by_class
    order = denoiser.natural_order(seeded_generator(0, book.device))
    q = denoiser.preceding(rows, order).categorical
    logits = q.logits.masked_fill(unseen, -torch.inf)
    return q.levels.at(q.levels.log_softmax(logits), rows.long()).double().sum(1).exp()


def p_value(codes, rows, p):
    """χ² of rows drawn against the mass of all rows; 0 if one was drawn that has none."""
    counts = (codes[:, None] == rows).all(2).sum(0).cpu().numpy()
    expected = len(codes) * p.cpu().numpy()
    if counts[expected == 0].any() or counts.sum() < len(codes):
        return 0.0
    order = np.argsort(expected)
    expected, counts = expected[order], counts[order]
    small = int((expected < 5).sum())
    pooled = [(counts[:small].sum(), expected[:small].sum())] if small else []
    got, wanted = zip(*pooled, *zip(counts[small:], expected[small:], strict=True), strict=True)
    z2 = (np.array(got) - wanted) ** 2 / np.maximum(wanted, 1e-9)
    return stats.chi2.sf(z2.sum(), max(1, len(wanted) - 1))


@pytest.mark.parametrize("kind", [*KINDS, "forest", "causal on bayes_net"])
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_closed_form(device, kind, seed):
    book = Codebook([simplex(2), simplex(3), simplex(2), simplex(2)]).to(device)
    denoiser, rows = make_denoiser(kind, book, seed), all_rows(book)
    codes = denoiser.draw(8000, seeded_generator(0, device))
    assert codes.dtype == torch.float64
    p = denoiser.log_prob(rows).double().exp()
    assert p_value(codes, rows, p) > 1e-3
    independent = make_denoiser("marginals", book, seed + 5).log_prob(rows).double().exp()
    assert p_value(codes, rows, independent) < 1e-6


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_unseen_levels_are_never_drawn(device, kind):
    book = Codebook([simplex(2, is_open=True), simplex(3), simplex(2, is_open=True)]).to(device)
    denoiser, rows = make_denoiser(kind, book, 3), all_rows(book)
    codes = denoiser.draw(8000, seeded_generator(0, device))
    p = renormalised(denoiser, rows)
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    assert p_value(codes, rows, p) > 1e-3


@pytest.mark.parametrize("kind", [*KINDS, "correlated"])
def test_draws_are_like_those_of_paths(device, kind):
    """Each column, and the log-probability of whole rows."""
    columns = [simplex(3), real(), simplex(2), real(), line(-0.6, 0.7, 0.9), simplex(4)]
    kinds = {"correlated": ("real",)}.get(kind)
    book = Codebook([c for c in columns if kinds is None or c.kind in kinds]).to(device)
    denoiser, n = make_denoiser(kind, book, 2), 1500
    blank = torch.full((n, book.n_columns), math.nan, dtype=torch.float64, device=device)
    plan = CoordinateSchedule(book.n_columns)
    truth = sample(denoiser, blank, plan, generator=seeded_generator(1, device))
    got = denoiser.draw(n, seeded_generator(2, device))
    assert not got.isnan().any()
    for j in range(book.n_columns):
        assert stats.ks_2samp(got[:, j].cpu(), truth[:, j].cpu()).pvalue > 1e-3
    scores = [denoiser.log_prob(rows).double().cpu() for rows in (got, truth)]
    assert stats.ks_2samp(*scores).pvalue > 1e-3
    assert denoiser.draw(0, seeded_generator(0, device)).shape == (0, book.n_columns)


@pytest.mark.parametrize("spread", [1.0, 30.0, 3000.0])
def test_shares_of_classes_are_those_of_sums_in_double(device, dtype, spread):
    """Of probable rows, and far below the range of numbers, where one column takes back what another says."""
    generator = seeded_generator(0, device)
    own = [-spread * torch.rand(40, 7, generator=generator, device=device) for _ in range(9)]
    log_weights = torch.log_softmax(torch.randn(7, generator=generator, device=device), 0)
    own[3][:9, 1:] -= 1e5
    own[7][:9, :1] -= 1e5
    for order in ([8, 3, 0, 7, 1, 2, 4, 6, 5], range(9)):
        before, want = log_weights.double().expand(40, 7), []
        for j in order:
            after = before + own[j].double()
            want.append((after.logsumexp(1) - before.logsumexp(1)).cpu())
            before = after
        got = shares_of_classes(log_weights, [own[j] for j in order]).double().cpu()
        torch.testing.assert_close(got, torch.stack(want, 1), atol=rounding(dtype, 30), rtol=1e-6)
