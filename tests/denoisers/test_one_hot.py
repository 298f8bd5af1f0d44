"""Columns that exclude one another: the joined table against sums over all rows, and which columns are found."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from laws import (
    FEW_EXAMPLES,
    all_rows,
    cases,
    make_book,
    make_denoiser,
    random_joined,
    random_marginals,
    random_rows,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    states_of_every_kind,
    tables,
    whole,
)

from discrete_itd import DiffusionDensity
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    MarginalDenoiser,
    OneHotDenoiser,
    OneHotGroups,
)
from discrete_itd.denoisers import (
    one_hot as groups_of,
)
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.one_hot import exclusive_groups
from discrete_itd.models.contract import FitPlan, TrainingRows
from discrete_itd.recipes import BayesNet, Mixture, Tree
from discrete_itd.storage.values import flatten, unflatten
from discrete_itd.training.config import TrainingPlan

EXACT = ["oracle", "marginals", "mixture", "tree", "trees", "bayes_net", "joined"]


def naive_log_prob(denoiser, row):
    """Of one whole row: a sum over which category each joined column has."""
    joining, rest = denoiser.groups, denoiser.fallback
    levels = rest.codebook.levels
    alone = [
        rest.log_probs[levels.index_of(torch.tensor([row], device=rest.log_probs.device))[0, j]]
        for j in range(len(row))
    ]
    alone = [math.exp(a) for a in alone]
    choices = []
    for group, own in zip(joining.groups, joining.patterns, strict=True):
        here = tuple(row[j] for j in group)
        mine = [(i, 1.0) for i, p in enumerate(own) if p == here]
        choices.append([*mine, (len(own), math.prod(alone[j] for j in group))])
    choices += [[(row[j], 1.0)] for j in joining.others]
    total = 0.0
    for choice in itertools.product(*choices):
        x = torch.tensor([[float(i) for i, _ in choice]], dtype=torch.float64)
        log_p = denoiser.inner.log_prob(x.to(rest.log_probs.device))
        total += math.exp(log_p) * math.prod(p for _, p in choice)
    return math.log(total)


# -- exact, whatever is known ----------------------------------------------------------------------


@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_log_prob_is_a_sum_over_joined_categories(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    denoiser = random_joined(book, np.random.default_rng(seed))
    got = denoiser.log_prob(all_rows(book)).double()
    expected = np.array([naive_log_prob(denoiser, row) for row in whole(book)])
    np.testing.assert_allclose(got.cpu().numpy(), expected, atol=rounding(dtype), rtol=0)
    assert got.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))


# -- the joined table ------------------------------------------------------------------------------


def test_rows_of_the_joined_table(device):
    book = Codebook([simplex(2), simplex(3), simplex(2), simplex(2)]).to(device)
    joining = OneHotGroups(book, [(0, 2)], [[(0, 0), (1, 0)]])
    assert [c.n_points for c in joining.codebook.columns] == [3, 3, 2]
    nan = math.nan
    rows = [[1, 2, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [nan, 1, 0, nan], [0, nan, 0, 1]]
    got = joining.encode(torch.tensor(rows, dtype=torch.float64, device=device))
    expected = [[1, 2, 1], [0, 0, 0], [2, 1, 1], [nan, 1, nan], [0, nan, 1]]
    np.testing.assert_array_equal(got.cpu().numpy(), expected)


@pytest.mark.parametrize(
    ("groups", "patterns", "match"),
    [
        ([(0, 1), (1, 2)], [[(0, 0)], [(0, 0)]], "must not share columns"),
        ([(0, 5)], [[(0, 0)]], "must not share columns"),
        ([(0, 1)], [], "its patterns"),
        ([(0, 1)], [[]], "do not fit"),
        ([(0, 1)], [[(0, 2)]], "do not fit"),
        ([(0, 1)], [[(0,)]], "do not fit"),
        ([(0, 1)], [[(0, 1), (0, 1)]], "do not fit"),
    ],
)
def test_what_cannot_be_joined_is_refused(groups, patterns, match):
    with pytest.raises(ValueError, match=match):
        OneHotGroups(Codebook([simplex(2)] * 3), groups, patterns)


def test_the_inner_denoiser_must_be_of_the_joined_table():
    book, rng = Codebook([simplex(2)] * 3), np.random.default_rng(0)
    with pytest.raises(ValueError, match="merged table"):
        OneHotDenoiser(
            OneHotGroups(book, [(0, 1)], [[(0, 0)]]),
            random_marginals(book, rng),
            random_marginals(book, rng),
        )


def test_columns_that_are_not_joined_keep_their_marginals(device, dtype):
    book = make_book("open", device)
    rng = np.random.default_rng(0)
    marginals = random_marginals(book, rng)
    joining = OneHotGroups(book, [(1,)], [[(0,), (1,)]])
    own = joining.marginals(marginals, random_rows(book, 40, rng))
    torch.testing.assert_close(
        own.marginals().column(1), marginals.marginals().column(0), atol=rounding(dtype), rtol=0
    )


# -- which columns are found -----------------------------------------------------------------------


def one_hot(n, sizes, rng, *, others=0, shares=None):
    """Columns of two categories, one for each category of hidden columns, and independent ones."""
    parts = []
    for size in sizes:
        code = rng.choice(size, size=n, p=None if shares is None else shares)
        parts.append(np.eye(size)[code])
    parts.append(rng.integers(0, 2, (n, others)).astype(float))
    return torch.tensor(np.concatenate(parts, 1))


def found(x, **points):
    return sorted(g for g, on in exclusive_groups(Codebook([simplex(2, **points)] * x.shape[1]), x))


def test_runs_of_which_every_row_has_one_are_found():
    x = one_hot(60, (3, 2, 4), np.random.default_rng(0), others=3)
    assert found(x) == [(0, 1, 2), (3, 4), (5, 6, 7, 8)]
    assert found(x, is_open=True) == [(0, 1, 2), (3, 4), (5, 6, 7, 8)]


def test_a_category_that_was_never_seen_is_no_member():
    x = one_hot(60, (3,), np.random.default_rng(0), shares=(0.5, 0.0, 0.5))
    assert found(x) == [(0, 1, 2)]  # between two that were
    assert found(x[:, [1, 0, 2]]) == [(1, 2)]


def test_columns_in_any_order_and_without_one_category_are_found():
    rng = np.random.default_rng(0)
    x = one_hot(3000, (5, 4), rng, others=3)[:, [0, 5, 9, 2, 8, 3, 6, 10, 1, 7]]  # not 4
    assert sorted(found(x)) == [(0, 3, 5, 8), (1, 4, 6, 9)]


def test_independent_columns_are_not_joined():
    rng = np.random.default_rng(0)
    x = torch.tensor((rng.random((4000, 30)) < 0.04).astype(float))
    assert found(x) == []
    assert found(x[:20]) == []
    assert found(x[:, :1]) == []


def test_few_rows_do_not_make_a_group():
    x = one_hot(groups_of.FEWEST_ROWS, (2,), np.random.default_rng(0))
    assert found(x) == [(0, 1)]
    assert found(x[:-1]) == []


def test_missing_cells_do_not_hide_a_group():
    rng = np.random.default_rng(0)
    x = one_hot(400, (4,), rng, others=1)
    x[torch.tensor(rng.random(x.shape) < 0.1)] = math.nan
    assert found(x) == [(0, 1, 2, 3)]
    x[:] = math.nan
    assert found(x) == []


def test_only_columns_of_two_categories_are_looked_at():
    x = one_hot(300, (3,), np.random.default_rng(0))
    assert exclusive_groups(Codebook([simplex(2), simplex(3), simplex(2)]), x) == [((0, 2), 1)]
    assert exclusive_groups(Codebook([simplex(3), simplex(3), simplex(2)]), x) == []


def test_one_start_finds_what_many_find(monkeypatch):
    rng = np.random.default_rng(0)
    x = one_hot(3000, (5, 4), rng, others=3)[:, [0, 5, 9, 2, 8, 3, 6, 10, 1, 7]]
    monkeypatch.setattr(groups_of, "MOST_STARTS", 1)
    assert sorted(found(x)) == [(0, 3, 5, 8), (1, 4, 6, 9)]


class Counted:
    """A tensor of which is counted how often it is read."""

    def __init__(self, values):
        self.values, self.n = values, 0

    def __getitem__(self, key):
        self.n += 1
        return self.values[key]


def test_the_work_of_the_search_is_bounded(monkeypatch):
    """Of every part, on tables where it would grow with the square or the cube of the columns; what is found stays."""
    n, x = 60, one_hot(200, (2,) * 30, np.random.default_rng(0))
    order = torch.tensor(np.random.default_rng(1).permutation(n))
    whole, seen, exclusions = found(x[:, order]), [], groups_of._exclusions
    assert len(whole) == n // 2

    def watched(cells, value):
        seen.append(len(cells))
        return exclusions(cells, value)

    monkeypatch.setattr(groups_of, "_exclusions", watched)
    monkeypatch.setattr(groups_of, "PRODUCTS", 100 * n**2)
    found(x)
    assert set(seen) == {100}
    # every column begins a run that is no group
    share, pairs = torch.full((n,), 0.5 / n), Counted(~torch.eye(n, dtype=torch.bool))
    monkeypatch.setattr(groups_of, "COMPARED", 5 * n)
    assert groups_of._runs(share, pairs, torch.ones(n, dtype=torch.bool)) == []
    assert pairs.n < 6 * n
    # every group takes a search among all pairs, from many starts
    monkeypatch.setattr(groups_of, "SEARCHED", 3 * n**2)
    monkeypatch.setattr(groups_of, "PRODUCTS", 200 * n**2)
    part = found(x[:, order])
    assert 0 < len(part) < 4
    assert set(part) < set(whole)


def test_a_few_odd_rows_do_not_hide_a_group():
    """Nor does a column of which most is missing, and which row has two "on", or none, is of no matter."""
    x = one_hot(2000, (20,), np.random.default_rng(0), others=2)
    x[5, :20], x[7, 3], x[8, 4] = 0.0, 1.0, 1.0
    x[30:, 20] = math.nan
    assert found(x) == [tuple(range(20))]


@pytest.mark.parametrize(("n", "size"), [(200, 7), (500, 8), (2000, 20)])
def test_categories_that_are_seldom_are_found_together(n, size):
    """No two of them would often meet if they were independent, but all of them would."""
    rng = np.random.default_rng(1)
    x = one_hot(n, (size,), rng, others=2)
    assert found(x[:, 1:]) == [tuple(range(size - 1))]
    order = rng.permutation(size + 2)
    assert found(x[:, order]) == [tuple(np.flatnonzero(order < size))]


def test_sparse_columns_are_not_joined_by_chance():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = torch.tensor((rng.random((300, 40)) < rng.uniform(0.01, 0.1, 40)).astype(float))
        assert found(x) == []


def test_columns_that_are_never_seen_together_are_not_exclusive():
    """Two tables on top of one another, each with columns of its own."""
    x = one_hot(2000, (6, 5), np.random.default_rng(0))
    x[:1000, 6:], x[1000:, :6] = math.nan, math.nan
    assert found(x) == [tuple(range(6)), tuple(range(6, 11))]


def test_the_first_category_may_be_the_one_that_is_on():
    x = one_hot(300, (4, 3), np.random.default_rng(0))
    book = Codebook([simplex(2)] * 7)
    assert exclusive_groups(book, 1 - x) == [((0, 1, 2, 3), 0), ((4, 5, 6), 0)]
    joining = OneHotGroups.detect(book, 1 - x)
    assert joining is not None
    assert joining.patterns[1] == ((0, 1, 1), (1, 0, 1), (1, 1, 0))
    assert (joining.encode(1 - x) < torch.tensor([4, 3])).all()


def test_patterns_are_found_one_by_one():
    rng = np.random.default_rng(0)
    patterns = np.unique(rng.integers(0, 3, (9, 4)), axis=0).tolist()
    rows = [*patterns, *rng.integers(0, 3, (500, 4)).tolist()]
    groups = OneHotGroups(Codebook([simplex(3)] * 4), [[0, 1, 2, 3]], [patterns])
    expected = [patterns.index(row) if row in patterns else len(patterns) for row in rows]
    assert groups.encode(torch.tensor(rows).double())[:, 0].tolist() == expected


# -- fits ------------------------------------------------------------------------------------------


def categories(n, rng):
    """Three columns of many categories, of two hidden classes."""
    z = rng.integers(0, 2, n)
    return np.stack([(rng.integers(0, 4, n) + 3 * z) % 7 for _ in range(3)], 1)


def fitted(wanted, marginals, x, x_valid):
    rows = TrainingRows(marginals, x, x_valid, seeded_generator(0, x.device))
    return wanted.fit(rows, FitPlan(TrainingPlan(), 0))


def as_indicators(codes):
    frame = pd.DataFrame(codes, columns=["a", "b", "c"]).astype(str)
    return pd.get_dummies(frame).astype(int)


@pytest.mark.parametrize("wanted", [Tree(), Mixture(64, n_points=64, max_steps=200), BayesNet()])
def test_indicators_are_predicted_about_as_well_as_categories(device, wanted):
    rng = np.random.default_rng(0)
    codes = categories(2000, rng)
    dummies = as_indicators(codes).to_numpy(dtype=float)
    nats = {}
    for name, x, sizes in (("codes", codes, [7] * 3), ("dummies", dummies, [2] * 21)):
        book = Codebook([simplex(n) for n in sizes]).to(device)
        rows = torch.tensor(x, dtype=torch.float64, device=device)
        marginals = MarginalDenoiser.fit(book, rows[:1400])
        denoiser = fitted(wanted, marginals, rows[:1400], rows[1400:])
        nats[name] = -denoiser.log_prob(rows[1400:]).double().mean().item()
        assert isinstance(denoiser, OneHotDenoiser) == (name == "dummies")
    assert nats["dummies"] < nats["codes"] + 0.02


def test_what_held_out_rows_do_not_confirm_is_not_joined(device):
    """Columns that exclude one another among the rows fitted, and occur together afterwards."""
    rng = np.random.default_rng(0)
    x = one_hot(200, (2,), rng, others=1).to(device)
    valid = torch.tensor(rng.integers(0, 2, (200, 3)), dtype=torch.float64, device=device)
    marginals = MarginalDenoiser.fit(Codebook([simplex(2)] * 3).to(device), x)
    denoiser = fitted(Tree(), marginals, x, valid)
    assert isinstance(denoiser, BayesNetDenoiser)


def test_a_pattern_never_seen_has_a_probability(device, dtype):
    x = one_hot(300, (4,), np.random.default_rng(0)).to(device)
    marginals = MarginalDenoiser.fit(Codebook([simplex(2)] * 4).to(device), x)
    denoiser = fitted(Tree(), marginals, x, x[:50])
    assert isinstance(denoiser, OneHotDenoiser)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64)
    log_prob = denoiser.log_prob(every.to(device)).double()
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))
    seen = every.sum(1) == 1
    assert log_prob.cpu()[seen].exp().sum() > 0.99
    assert log_prob.isfinite().all()


# -- as plain data ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), cases(["joined"]))
def test_plain_data_make_the_same_denoiser(device, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    data, tensors = flatten(denoiser)
    again = unflatten(Denoiser, (json.loads(json.dumps(data)), tensors))(book)
    y, snr = states_of_every_kind(book, np.random.default_rng(0))
    rows = random_rows(book, len(y), np.random.default_rng(1), missing=0.2)
    got, expected = again(y, snr).log_prob(rows), denoiser(y, snr).log_prob(rows)
    assert torch.equal(got.nan_to_num(0.0), expected.nan_to_num(0.0))
    assert torch.equal(again.log_prob(rows), denoiser.log_prob(rows))


@pytest.mark.parametrize(
    "change",
    [
        {"groups": [[0, 0]]},
        {"groups": [[0, 9]]},
        {"groups": []},
        {"groups": [["0", 1]]},
        {"groups": [[0.5, 1]]},
        {"patterns": [[[0, 7]]]},
        {"patterns": []},
        {"inner": {"class": "NeuralDenoiser"}},
    ],
)
def test_forged_data_are_refused(change):
    book = make_book("simplex", "cpu")
    denoiser = make_denoiser("joined", book, 0)
    data, tensors = flatten(denoiser)
    with pytest.raises(ValueError, match="OneHotDenoiser"):
        unflatten(Denoiser, (data | change, tensors))(book)


def test_a_model_of_indicators_is_kept_whole(tmp_path):
    frame = as_indicators(categories(400, np.random.default_rng(0)))
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    assert isinstance(model.denoiser_, OneHotDenoiser)
    gaps = frame.astype(float).mask(np.random.default_rng(1).random(frame.shape) < 0.2)
    model.save(tmp_path / "model")
    again = DiffusionDensity.load(tmp_path / "model")
    for rows in (frame, gaps):
        scored = model.log_prob(rows)
        assert not scored.stderr.any()
        np.testing.assert_array_equal(scored.log_prob, again.log_prob(rows).log_prob)
    drawn = model.sample(200)
    drawn = drawn[0] if isinstance(drawn, tuple) else drawn
    held = pd.DataFrame(drawn, columns=frame.columns).to_numpy(dtype=float)
    for first in (0, 7, 14):
        assert (held[:, first : first + 7].sum(1) == 1).mean() > 0.97
