"""Conditionals of the model that scores (13): by enumeration of its scores, by quadrature, by importance sampling."""

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from discrete_itd import DiffusionDensity
from discrete_itd.channel import Codebook, ColumnPoints, State
from discrete_itd.channel.gaussian import GaussianPosterior
from discrete_itd.channel.rounded_numbers import NumberLine
from discrete_itd.denoisers import MixtureDenoiser, RowMixtureDenoiser
from discrete_itd.likelihood import conditional
from discrete_itd.likelihood.conditional import ConditionalDenoiser
from discrete_itd.recipes import Causal
from tests.laws import (
    BOOKS,
    TIMES,
    WIDER_BOOKS,
    all_rows,
    make_book,
    make_denoiser,
    random_causal,
    random_mixture,
    random_rows,
    real,
    rounding,
    simplex,
)

CLOSE = (
    0.03  # nats: what a log-density on a grid may be off where it is rough or low; 0.001 on average
)


def proposal(book, seed=0):
    """A mixture of products, one of whose classes is for outliers."""
    rng = np.random.default_rng(seed)
    q = random_mixture(book, rng)
    q.var[0] = 4.0
    return q


def scorer(book, kind, seed=3):
    own = random_causal(book, seed)
    return own if kind == "causal" else RowMixtureDenoiser(book, [own, proposal(book, 7)], [2, 1])


def with_each(x, j, values):
    """Rows x (C,) with each of some values in column j: (V, C)."""
    out = x.repeat(len(values), 1)
    out[:, j] = values
    return out


def levels_of(book, j):
    return torch.arange(book.columns[j].n_points, dtype=torch.float64)


def without(x, *columns):
    return x.index_fill(1, torch.tensor(columns, device=x.device), math.nan)


def only(x, *columns):
    return torch.where(without(x, *columns).isnan(), x, math.nan)


def unknown(denoiser, x):
    """The posterior of the unknown cells of rows, each given the others."""
    return denoiser.each(x, x.isnan())


@pytest.mark.parametrize("kind", ["causal", "mixture of rows"])
@pytest.mark.parametrize("name", [*BOOKS, *WIDER_BOOKS])
def test_one_cell_is_the_scores_of_its_values_normalised(device, kind, name):
    book = make_book(name, device)
    p = scorer(book, kind)
    denoiser, x = (
        ConditionalDenoiser(p, proposal(book)),
        random_rows(book, 3, np.random.default_rng(0)),
    )
    for j, points in enumerate(book.columns):
        got = unknown(denoiser, without(x, j)).log_prob(only(x, j))[:, j].double()
        values, close = levels_of(book, j).to(device), rounding(book.dtype, 10)
        if points.kind == "real":
            values, close = (
                torch.linspace(-14, 14, 14001, dtype=torch.float64, device=device),
                CLOSE,
            )
        for i, row in enumerate(x):
            total = p.log_prob(with_each(row, j, values)).double().logsumexp(0)
            if points.kind == "real":
                total = total + math.log(values[1] - values[0])
            expected = p.log_prob(row[None]).double()[0] - total
            assert got[i].item() == pytest.approx(expected.item(), abs=close)
        left_out = denoiser.each(x, without(x, j).isnan()).log_prob(only(x, j))[:, j].double()
        torch.testing.assert_close(left_out, got, atol=close, rtol=0.0)


def dense(book):
    """The proposal with dependent numbers in each class."""
    q, n = proposal(book), len(book.reals)
    factors = torch.randn(q.n_components, n, n, generator=torch.Generator().manual_seed(0)) / 4
    chol = torch.linalg.cholesky(factors @ factors.mT + torch.eye(n)).to(q.means)
    return MixtureDenoiser(book, q.log_weights.exp(), q.log_probs.exp(), q.means, None, chol)


@pytest.mark.parametrize("kind", ["products", "dense", "of rows", "forest", "bayes_net"])
@pytest.mark.parametrize("name", [*BOOKS, *WIDER_BOOKS])
def test_properties_of_a_cell_left_out(device, name, kind):
    """Closed forms and states in batches: the posterior where only that cell is unknown; other cells may be missing."""
    book = make_book(name, device)
    if kind == "dense" and not len(book.reals):
        pytest.skip("no numbers")
    q = proposal(book)
    if kind == "dense":
        q = dense(book)
    elif kind == "of rows":
        q = RowMixtureDenoiser(book, [q, proposal(book, 7)], [2, 1])
    elif kind in ("forest", "bayes_net"):
        q = make_denoiser(kind, book)

    class Small(type(q)):
        rows_at_once = 7  # pyright: ignore

    q.__class__ = Small
    x = random_rows(book, 9, np.random.default_rng(0), missing=0.2)
    values = torch.where(x.isnan(), random_rows(book, 9, np.random.default_rng(1)), x)
    assert len(q.leave_one_out(x[:0], x[:0].isnan()).mean()) == 0
    asked = torch.ones_like(x, dtype=torch.bool)
    posterior = q.leave_one_out(x, asked)
    found = posterior.log_prob(values)
    for j in range(book.n_columns):
        known = without(x, j)
        alone = q(*State.start(book, book.embed(known), ~known.isnan())).log_prob(values)
        torch.testing.assert_close(found[:, j], alone[:, j], atol=1e-4, rtol=1e-4)
    at_rows = posterior.log_prob(x)
    for some in (
        asked,
        asked & (torch.arange(book.n_columns, device=device) == book.n_columns - 1),
    ):
        left_out = posterior.log_prob_left_out(x, some)[some].to(at_rows)
        torch.testing.assert_close(left_out, at_rows[some], atol=1e-4, rtol=1e-4)


def test_a_number_with_a_probability_of_its_own_changes_none_beside_it(device):
    """Of recorded numbers one, that many rows share, is far more probable to the scorer, and no other one."""
    line = NumberLine(step=0.02, origin=0.0, opened=((2.0, 0.5),))
    book = Codebook([ColumnPoints("real", line=line), simplex(2)]).to(device)
    values = torch.arange(-200, 400, dtype=torch.float64, device=device)[:, None] / 50
    values = book.lines.encoded(values)[0]
    cells = book.lines.cells(values)
    peak = int(cells.width.argmax())
    means = torch.tensor([[0.5], [1.0], [cells.middle[peak].item()]])
    probs, var = torch.full((3, 2), 0.5), torch.tensor([[0.3], [0.2], [1e-3]])
    q = MixtureDenoiser(book, torch.tensor([0.5, 0.4, 0.1]), probs, means, var)

    class Peaked(type(q)):
        exact = False
        closed_form = True  # pyright: ignore

        def log_prob(self, x):
            return super().log_prob(x) + 4.0 * ((x[:, 0] - values[peak]).abs() < 0.2)

    peaked = Peaked.from_config(q.config(), book, q.state_dict())
    row = torch.tensor([math.nan, 1.0], dtype=torch.float64, device=device)
    expected = torch.log_softmax(peaked.log_prob(with_each(row, 0, values[:, 0])).double(), 0)
    assert 0.5 < expected[peak].exp() < 0.95
    posterior = unknown(ConditionalDenoiser(peaked, q), row[None])
    got = posterior.number(0).log_prob_at(cells)[0]
    assert 0.5 * (got.exp() - expected.exp()).abs().sum() < 0.01


def with_indicators(columns, device):
    """Columns, and for each another one that indicates whether its cell is there."""
    n = len(columns)
    own = dict(enumerate(range(n, 2 * n)))
    return Codebook([*columns, *[simplex(2)] * n], [*own.values()], own).to(device)


def test_values_are_conditioned_on_being_present_and_indicators_on_all_but_their_values(device):
    book = with_indicators([simplex(3), real()], device)
    q, x = proposal(book), random_rows(book, 5, np.random.default_rng(0))
    values = x.clone()
    x[0, 0], x[0, 2] = math.nan, 1.0
    asked = torch.ones_like(x, dtype=torch.bool)
    found = conditional.given_others(q, x, asked).log_prob(values)
    for j in range(4):
        known = without(x, j)
        if j < 2:
            known[:, j + 2] = 0.0
        else:
            known[:, j - 2] = math.nan
        alone = q(*State.start(book, book.embed(known), ~known.isnan())).log_prob(values)
        torch.testing.assert_close(found[:, j], alone[:, j], atol=1e-4, rtol=1e-4)


def test_mixtures_of_different_numbers_of_components_are_stacked(device):
    """As those of a forest, where states in different batches reach different numbers of leaves."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(3, 2, 1, n, generator=generator).to(device) for n in (1, 4)]
    mixtures = [GaussianPosterior(w, mean, torch.ones_like(mean)) for w, mean, _ in parts]
    mean = parts[1][1]
    mixtures.append(GaussianPosterior(parts[1][0], mean, torch.ones_like(mean), mean - 1, mean + 1))
    values = torch.zeros(6, 1, device=device)
    for own in (mixtures[:2], mixtures):
        every = GaussianPosterior.stacked(own)
        each = torch.cat([q.log_prob(values[:2]) for q in own])
        torch.testing.assert_close(every.log_prob(values[: len(each)]), each)
        means = torch.cat([q.mean() for q in own])
        torch.testing.assert_close(every.mean(), means)


def test_an_extreme_cell_left_out_leaves_no_rounding_error(device):
    book = make_book("reals and levels", device)
    for q in (proposal(book), dense(book)):
        x = random_rows(book, 4, np.random.default_rng(0))
        values, r = x.clone(), int(book.reals[0])
        x[:, r] = 3e4
        found = q.leave_one_out(x, torch.ones_like(x, dtype=torch.bool)).log_prob(values)
        known = without(x, r)
        alone = q(*State.start(book, book.embed(known), ~known.isnan())).log_prob(values)
        torch.testing.assert_close(found[:, r], alone[:, r], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", [*BOOKS, *WIDER_BOOKS])
def test_properties_each_cell_is_asked_by_itself(device, name):
    """All cells of rows at once: the enumeration of an exact model is its closed form, more closely with more nodes."""
    book = make_book(name, device)
    q, x = proposal(book), random_rows(book, 9, np.random.default_rng(0), missing=0.2)
    denoiser, asked = ConditionalDenoiser(q, q, has_gaps=[True] * book.n_columns), ~x.isnan()
    exact = q.leave_one_out(x, asked).log_prob(x)
    error = {
        nodes: (denoiser.leave_one_out(x, asked, nodes).log_prob(x) - exact).abs()
        for nodes in (conditional.FINE, conditional.SHORTLIST)
    }
    real = torch.isin(torch.arange(book.n_columns, device=device), book.reals)
    if (~real).any():
        assert error[conditional.FINE][:, ~real].max() < 1e-4
    if real.any():
        assert error[conditional.FINE][:, real].max() < CLOSE
        fine, short = (error[n][:, real].mean() for n in (conditional.FINE, conditional.SHORTLIST))
        assert fine < short < 0.3


def test_a_density_much_narrower_than_its_column_is_integrated(device):
    """Of columns that follow from one another to within 1/200 of a standard deviation; to the proposal, 1/12."""
    book = Codebook([real(), real(), simplex(2)]).to(device)
    m, c = (
        torch.cartesian_prod(torch.linspace(-1.6, 1.6, 60), torch.arange(2.0)).to(book.known_snr).T
    )
    means, probs = torch.stack([m, 0.7 * m + 0.1 * c], 1), torch.stack([1.02 - c, 0.02 + c], 1)
    q = MixtureDenoiser(book, torch.exp(-2 * m**2), probs, means, torch.full_like(means, 0.04**2))

    class Sharp(type(q)):
        exact = False
        closed_form = True  # pyright: ignore

        def log_prob(self, x):
            z = (x[:, 1] - 0.7 * x[:, 0] - 0.1 * x[:, 2]) / 0.0025
            wide = math.log(1e-4) - x[:, 1].square() / 2
            return torch.logaddexp(wide, -z.square() / 2 - math.log(0.0025)) - x[:, 0].square() * 2

    sharp = Sharp.from_config(q.config(), book, q.state_dict())
    x = random_rows(book, 6, np.random.default_rng(1))
    x[:, 0] *= 0.5
    x[:, 1] = 0.7 * x[:, 0] + 0.1 * x[:, 2] + 0.002
    denoiser = ConditionalDenoiser(sharp, q)
    for j in (0, 1):
        near = torch.linspace(-0.05, 0.05, 20001, dtype=torch.float64, device=device)
        far = torch.linspace(-14, 14, 28001, dtype=torch.float64, device=device)
        posterior = unknown(denoiser, without(x, j))
        got = posterior.log_prob(only(x, j))[:, j]
        for i, row in enumerate(x):
            values = torch.cat([near + row[j], far]).sort()[0]
            mass = torch.trapezoid(sharp.log_prob(with_each(row, j, values)).double().exp(), values)
            expected = sharp.log_prob(row[None])[0] - mass.log()
            assert got[i].item() == pytest.approx(expected.item(), abs=CLOSE / 10)


@pytest.mark.parametrize("name", [*BOOKS, *WIDER_BOOKS])
def test_rows_with_another_value_have_the_scores_of_these_rows(device, name):
    """Whatever the order of the columns, and with other cells missing."""
    book = make_book(name, device)
    p, x = random_causal(book, 1), random_rows(book, 9, np.random.default_rng(0), missing=0.2)
    others = random_rows(book, 9, np.random.default_rng(1))
    row, column = torch.cartesian_prod(torch.arange(9), torch.arange(book.n_columns)).to(device).T
    values = others[row, column]
    rows = x[row].scatter(1, column[:, None], values[:, None])
    expected = p.log_prob(rows).double()
    got = p.log_probs_with(x, row, column, values)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("name", ["mixed", "open", *WIDER_BOOKS])
def test_a_row_alone_is_the_row_in_a_batch(device, name):
    book = make_book(name, device)
    denoiser = ConditionalDenoiser(scorer(book, "mixture of rows"), proposal(book))
    x = random_rows(book, 9, np.random.default_rng(0), missing=0.4)
    cells = random_rows(book, 9, np.random.default_rng(1)).masked_fill(~x.isnan(), math.nan)
    together = unknown(denoiser, x)
    for i in range(9):
        alone, close = unknown(denoiser, x[i : i + 1]), rounding(book.dtype)
        for got, wanted in (
            (alone.mean()[0], together.mean()[i]),
            (alone.log_prob(cells[i : i + 1])[0], together.log_prob(cells)[i]),
        ):
            torch.testing.assert_close(got, wanted, rtol=close, atol=close)


def test_only_cells_that_are_asked_for_are_enumerated(device):
    book = make_book("mixed", device)
    p, calls = scorer(book, "causal"), []
    p.log_prob = lambda x, log_prob=p.log_prob: (calls.append(len(x)), log_prob(x))[1]
    denoiser, x = (
        ConditionalDenoiser(p, proposal(book)),
        random_rows(book, 32, np.random.default_rng(0)),
    )
    x = torch.cat([without(x[:16], 0), without(x[16:], 1)])  # one unknown cell in a row
    every = unknown(denoiser, x)
    n_every, asked = sum(calls), torch.zeros_like(x, dtype=torch.bool)
    asked[:, 1] = True
    one = denoiser.each(x, asked & x.isnan())
    assert torch.equal(one.column(1)[16:], every.column(1)[16:])
    assert sum(calls) - n_every < n_every


def test_a_cell_that_is_absent_is_not_unknown(device):
    book = with_indicators([simplex(3), real()], device)
    denoiser = ConditionalDenoiser(random_causal(book, 1), proposal(book))
    x = torch.tensor([[math.nan, 0.3, 1.0, 0.0]], dtype=torch.float64, device=device)
    assert not denoiser.codebook.unknown(x).any()


def test_of_many_categories_the_likely_ones_are_enumerated(device, monkeypatch):
    """The others keep their proportions, and all add up to one."""
    monkeypatch.setattr(conditional, "ENUMERATED_LEVELS", 12)
    book = Codebook([simplex(2), simplex(40, is_open=True)]).to(device)
    p, q = random_causal(book, 0), proposal(book)
    x = random_rows(book, 3, np.random.default_rng(0))
    got = unknown(ConditionalDenoiser(p, q), without(x, 1)).column(1).double()
    assert got.exp().sum(1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    for i, row in enumerate(x):
        exact = p.log_prob(with_each(row, 1, levels_of(book, 1).to(device))).double()
        ratio = got[i] - exact
        equal = (ratio[:, None] - ratio).abs() < rounding(book.dtype, 100)
        assert int(equal.sum(1).max()) >= 12


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mixed", k) for k in ("mixture", "tree", "bayes_net", "of rows")]
    + [
        ("one real", "mixture"),
        ("all kinds", "bayes_net"),
        ("mixed", "forest"),
        ("all kinds", "forest"),
    ],
)
def test_completions_follow_the_conditional(device, name, kind):
    """Of each family by its own way; equal rows get equal draws, whatever is beside them."""
    book = make_book(name, device)
    if kind == "of rows":
        members = [make_denoiser("tree", book, seed) for seed in (1, 2)]
        q = RowMixtureDenoiser(book, members, [2, 1])
    else:
        q = make_denoiser(kind, book)
    x = random_rows(book, 3, np.random.default_rng(0))
    x = without(x, 0, book.n_columns - 1)
    drawn = q.complete(x, 4000, 1)
    assert torch.equal(drawn[1:2], q.complete(x[1:2], 4000, 1))
    known = ~x.isnan()
    assert torch.equal(drawn[:, 0][known], x[known])
    for i in range(3):
        pair = drawn[i][:, 0] * book.columns[-1].n_points + drawn[i][:, -1]
        values = [
            (a, b)
            for a in range(book.columns[0].n_points)
            for b in range(book.columns[-1].n_points)
        ]
        cells = x[i].repeat(len(values), 1)
        cells[:, [0, -1]] = torch.tensor(values, dtype=torch.float64, device=device)
        joint = torch.softmax(q.log_prob(cells).double(), 0).cpu().numpy()
        counts = np.bincount(pair.long().cpu().numpy(), minlength=len(joint))
        assert stats.chisquare(counts, 4000 * joint).pvalue > 1e-3


def test_with_gaps_as_in_the_score_it_is_the_scores_normalised(device):
    book = make_book("mixed", device)
    p, x = scorer(book, "causal"), random_rows(book, 4, np.random.default_rng(0))
    x, asked = without(x, 0, 1), torch.zeros(4, 3, dtype=torch.bool, device=device)
    asked[:, 1] = True
    got = ConditionalDenoiser(p, proposal(book)).each(x, asked).column(1)
    for i, row in enumerate(x):
        each = p.log_prob(with_each(row, 1, levels_of(book, 1).to(device)))
        torch.testing.assert_close(got[i], torch.log_softmax(each, 0))


def test_a_cell_left_out_depends_on_no_other_row(device):
    """One row has a gap beside its cells, which are then the proposal's; those of the others stay the scorer's."""
    book = make_book("reals and levels", device)
    denoiser = ConditionalDenoiser(scorer(book, "causal"), proposal(book), [False] * book.n_columns)
    x, nodes = random_rows(book, 4, np.random.default_rng(0)), conditional.SHORTLIST
    x[2, 0] = math.nan
    asked = ~x.isnan()
    found = denoiser.leave_one_out(x, asked, nodes).log_prob(x)
    for i in range(4):
        own = slice(i, i + 1)
        alone = denoiser.leave_one_out(x[own], asked[own], nodes).log_prob(x[own])
        torch.testing.assert_close(found[own], alone)
    for j in torch.nonzero(asked[2]).flatten():
        known = without(x[2:3], j)
        own = denoiser.proposal(*State.start(book, book.embed(known), ~known.isnan()))
        own = own.log_prob(x[2:3])[0, j]
        torch.testing.assert_close(found[2, j], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["mixed", "one real"])
def test_the_marginal_is_unbiased_and_exact_of_one_cell_or_where_the_proposal_is_the_scorer(
    device, name
):
    book = make_book(name, device)
    p, q = proposal(book, 5), proposal(book)
    rows = all_rows(book, torch.linspace(-8, 8, 1601, dtype=torch.float64).tolist())
    mass = p.log_prob(rows).double().exp() * (0.01 if name == "one real" else 1.0)
    denoiser, x = ConditionalDenoiser(p, q), random_rows(book, 1, np.random.default_rng(0))
    known = x[0, -1] == rows[:, -1]
    found = [denoiser.marginal(without(x, 0, 1), 32, salt) for salt in range(30 * TIMES)]
    each = torch.cat([e.log_prob for e in found]).exp()
    error = each.std().item() / math.sqrt(len(each))
    assert each.mean().item() == pytest.approx(mass[known].sum().item(), abs=4 * error + 1e-6)
    assert error < 0.1 * each.mean().item()
    stderr = torch.cat([e.stderr for e in found]).mean().item()
    assert stderr == pytest.approx(each.log().std().item(), rel=0.4, abs=1e-6)
    one = denoiser.marginal(without(x, 1), 2)
    assert one.log_prob.exp().item() == pytest.approx(
        mass[known & (x[0, 0] == rows[:, 0])].sum().item(), rel=0.01
    )
    assert one.stderr.item() == 0
    same = ConditionalDenoiser(q, q).marginal(without(x, 0, 1), 2)
    assert same.log_prob.item() == pytest.approx(q.log_prob(without(x, 0, 1)).item(), abs=1e-4)
    assert same.stderr.item() < 1e-4


def test_scores_of_rows_with_new_gaps_are_marginals(device, monkeypatch):
    """Of the scorer alone, whose error bars cover; of one cell exactly; learned gaps and whole rows as ever."""
    book = make_book("mixed", device)
    p, other = proposal(book, 5), proposal(book)
    q = RowMixtureDenoiser(book, [p, other], [0.6, 0.4])
    p.exact = False
    x = random_rows(book, 60, np.random.default_rng(0))
    gaps = without(x, 0, 1)
    denoiser, truth = ConditionalDenoiser(p, q), p.log_prob(gaps).double()
    covered = []
    for salt in range(100):
        monkeypatch.setattr(conditional, "SALT", salt)
        log_prob, stderr = denoiser.score(gaps)
        covered.append(((log_prob - truth).abs() < 1.96 * stderr + 1e-6).double().mean().item())
    assert np.mean(covered) > 0.9
    one = without(x, 0)
    log_prob, stderr = denoiser.score(torch.cat([one, x]))
    torch.testing.assert_close(log_prob[:60], p.log_prob(one).double(), atol=1e-4, rtol=1e-4)
    assert not stderr.any()
    mixed = torch.cat([gaps[:5], x[:5], without(x[:1], 0, 1, 2)])
    factors, errors = denoiser.factors(mixed, p.log_factors(mixed).double())
    log_prob, stderr = denoiser.score(mixed)
    torch.testing.assert_close(factors.sum(1), log_prob)
    torch.testing.assert_close(errors, stderr)
    assert not factors[mixed.isnan()].any()
    completed, of = [], ConditionalDenoiser._factors
    monkeypatch.setattr(conditional, "KEPT_COMPLETIONS", 16)
    monkeypatch.setattr(
        ConditionalDenoiser, "_factors", lambda self, x: completed.append(len(x)) or of(self, x)
    )
    both = torch.cat([gaps, one])
    few = denoiser.factors(both, p.log_factors(both).double())
    torch.testing.assert_close(few[0].sum(1), denoiser.score(both).log_prob)
    assert max(completed) <= 16  # rows together
    learned = ConditionalDenoiser(p, q, has_gaps=[True, True, False]).score(gaps)
    torch.testing.assert_close(learned[0], truth, atol=1e-5, rtol=1e-5)
    assert not learned[1].any()


def perturbed(p, sd=0.7, seed=0):
    """A mixture like ``p``: log-probabilities of levels off by ``sd``, and wider numbers."""
    noise = sd * torch.randn(p.log_probs.shape, generator=torch.Generator().manual_seed(seed))
    probs = (p.log_probs + noise.to(p.log_probs)).exp()
    return MixtureDenoiser(p.codebook, p.log_weights.exp(), probs, p.means + 0.05, 1.3 * p.var)


@pytest.mark.parametrize("kind", ["levels", pytest.param("numbers", marks=pytest.mark.slow)])
def test_property_intervals_of_scores_with_gaps_cover(device, kind, monkeypatch):
    """Of rows with one, two and three new gaps of many joint values, whose marginals the scorer knows."""
    columns = [simplex(9) if kind == "levels" else real(), simplex(12), simplex(10), simplex(4)]
    book, covered = Codebook([*columns, simplex(2)]).to(device), torch.zeros(3, 2, 10)
    for seed in range(2):
        rng = np.random.default_rng(seed + 1)
        p, x = random_mixture(book, rng), random_rows(book, 100, rng)
        p.exact, denoiser = False, ConditionalDenoiser(p, perturbed(p))
        for n_gaps in (1, 2, 3):
            gaps = without(x, *range(n_gaps))
            truth = p.log_prob(gaps).double()
            for salt in range(10):
                monkeypatch.setattr(conditional, "SALT", salt)
                monkeypatch.setattr(conditional, "SUMMED", 0)
                log_prob, stderr = denoiser.score(gaps)
                is_covered = (log_prob - truth).abs() <= 1.96 * stderr + 1e-9
                covered[n_gaps - 1, seed, salt] = is_covered.double().mean()
            assert stderr.mean() < 0.9  # bars that say something
            monkeypatch.setattr(conditional, "SUMMED", 9 * 12 * 10)
            log_prob, stderr = denoiser.score(gaps)
            if kind == "levels":
                torch.testing.assert_close(log_prob, truth, rtol=0, atol=rounding(book.dtype, 10))
                assert not stderr.any()
    assert (covered.mean((1, 2)) > 0.93).all()


def test_draws_follow_the_scorer(device):
    """Of one cell exactly; of two after a choice among many, and as it is."""
    book = make_book("mixed", device)
    p, rows = scorer(book, "causal"), all_rows(book)
    denoiser, n = ConditionalDenoiser(p, proposal(book)), 4000
    x = random_rows(book, 1, np.random.default_rng(0))
    for free in ([0], [0, 1]):
        start = without(x, *free)
        drawn = denoiser.draw_unknown(start.expand(n, -1), 5)
        known = ~start[0].isnan()
        assert torch.equal(drawn[:, known], x[:, known].expand(n, -1))
        same = (rows[:, known] == x[:, known]).all(1)
        expected = torch.softmax(p.log_prob(rows[same]).double(), 0).cpu().numpy()
        chosen = denoiser._chosen(start.expand(n, -1), torch.Generator(device).manual_seed(5))
        for found in (drawn, chosen if len(free) > 1 else drawn):
            counts = (found[:, None] == rows[same]).all(2).sum(0).cpu().numpy()
            assert stats.chisquare(counts, n * expected).pvalue > 1e-3
        assert torch.equal(drawn, denoiser.draw_unknown(start.expand(n, -1), 5))


@pytest.mark.parametrize("kind", ["causal", "mixture of rows"])
def test_weights_of_completions_are_ratios_of_scores_of_whole_rows(device, kind):
    """And members that the scorer shares with the proposal are asked once."""
    book = make_book("mixed", device)
    p, q = scorer(book, kind), proposal(book)
    if kind == "mixture of rows":
        p = RowMixtureDenoiser(book, [random_causal(book, 3), q], [2, 1])
    start = without(random_rows(book, 3, np.random.default_rng(0)), 0, 1)
    asked = q.log_joint
    calls = []
    q.log_joint = lambda x: calls.append(len(x)) or asked(x)
    drawn, log_w = ConditionalDenoiser(p, q)._weighed(start, 40, 5)
    assert len(calls) == 1
    whole = drawn.flatten(0, 1)
    expected = (p.log_prob(whole) - q.log_prob(whole)).double().view(3, 40)
    tol = rounding(book.dtype, 10)
    torch.testing.assert_close(log_w, expected, rtol=tol, atol=tol)


def test_unseen_categories_and_absent_cells_are_not_drawn(device):
    book = with_indicators([simplex(2, is_open=True), real()], device)
    denoiser = ConditionalDenoiser(random_causal(book, 1), proposal(book))
    start = torch.full((300, 4), math.nan, dtype=torch.float64, device=device)
    start[:150, 1], start[:150, 3] = 0.3, 0.0
    drawn = denoiser.draw_unknown(start, 0)
    absent = drawn[:, [2, 3]] == 1
    assert torch.equal(drawn[:, :2].isnan(), absent)
    assert set(absent.any(0).tolist()) == {True}
    assert not (drawn[:, 0] == 2).any()


@cache
def causal_with_gaps(missing):
    """A causal model of two categories and a number, one category with gaps in training; and its rows."""
    rng = np.random.default_rng(0)
    a, size = rng.choice(["u", "v", "w"], 160), rng.normal(size=160)
    frame = pd.DataFrame(
        {"a": a, "b": np.where(a == "u", "x", rng.choice(["x", "y"], 160)), "size": size}
    )
    frame.loc[::9, "a"] = None
    model = DiffusionDensity(
        denoiser=Causal(width=8), missing=missing, max_steps=15, random_state=0
    )
    model.fit(frame)
    return model, frame


@pytest.mark.parametrize(
    "missing", ["marginalise", pytest.param("category", marks=pytest.mark.slow)]
)
def test_given_columns_condition_the_scorer(missing):
    """Log P(all) − log P(given): without an error where one column is free; shares add up; draws keep what is given."""
    model, frame = causal_with_gaps(missing)
    new = frame.dropna().iloc[:5]
    one = model.log_prob(new, given=["a", "size"])
    scores = np.stack([model.score_samples(new.assign(b=v)) for v in ("x", "y")], 1)
    np.testing.assert_allclose(
        one.log_prob,
        model.score_samples(new) - np.logaddexp.reduce(scores, 1),
        atol=0.01,  # the unseen
    )
    assert not one.stderr.any()
    assert not model.log_prob(new, given="size").stderr.any()  # few joint values
    several = model.log_prob(new, given="b")
    assert (several.stderr > 0).all()
    companion = model.log_prob(new, given="b", estimator="closed_form")
    np.testing.assert_allclose(
        model.explain(new, given="b").sum(axis=1), -companion.log_prob, atol=1e-9
    )
    gaps = new.assign(size=math.nan)  # none was missing in training
    scores, stderr = model.log_prob(gaps)
    assert (stderr > 0).all()
    levels = model.log_prob(new.assign(b=None)).stderr
    assert not levels.any()  # of one cell with few levels
    np.testing.assert_allclose(model.explain(gaps).sum(axis=1), -scores, atol=1e-9)
    assert model.score_samples(gaps[2:3]) == scores[2]
    exact = model.log_prob(gaps, estimator="marginal").log_prob
    np.testing.assert_allclose(scores, exact, atol=1.0)
    every = model.log_prob(new, estimator="marginal")
    np.testing.assert_allclose(every.log_prob, model.score_samples(new), atol=1e-6)
    drawn = model.sample(20, random_state=0, given={"a": "u"})
    assert set(drawn["a"]) == {"u"}
    assert drawn["b"].notna().all()


@pytest.mark.parametrize("missing", ["marginalise", "category"])
def test_what_a_user_is_told_of_a_cell_is_what_its_values_are_scored(missing):
    model, frame = causal_with_gaps(missing)
    new = frame.dropna().iloc[:6]
    probs = model.predict_proba(new, column="b")
    scores = np.stack([model.score_samples(new.assign(b=value)) for value in probs], 1)
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(probs.to_numpy(), expected, rtol=1e-4)
    filled = model.impute(new.assign(b=None))
    assert filled["b"].tolist() == [probs.columns[k] for k in scores.argmax(1)]


def test_posteriors_of_many_numbers_are_asked_of_few_rows_at_once(device):
    book = make_book("one real", device)
    p, q = random_causal(book, 3), make_denoiser("tree", book)
    x = without(random_rows(book, 200, np.random.default_rng(0)), *book.reals.tolist())
    drawn, log_prob = q.complete(x, 1, 0), ConditionalDenoiser(p, q).marginal(x, 2).log_prob
    asked = []

    class Wide(type(q)):
        row_work = 1 << 22  # pyright: ignore

        def forward(self, y, snr):
            asked.append(len(y))
            return super().forward(y, snr)

    q.__class__ = Wide
    assert torch.equal(q.complete(x, 1, 0), drawn)
    torch.testing.assert_close(ConditionalDenoiser(p, q).marginal(x, 2).log_prob, log_prob)
    ConditionalDenoiser(p, q).draw_unknown(x, 0)
    assert asked
    assert max(asked) <= 32  # filled up to a block
