"""Cells that follow (23): a normalised mass for right and wrong expressions, any w, gaps, and every closed form."""

import itertools
import math

import numpy as np
import pytest
import torch

from discrete_itd.channel import Codebook, ColumnPoints
from discrete_itd.channel.rounded_numbers import NumberLine
from discrete_itd.denoisers import CausalDenoiser, MixtureDenoiser, RowMixtureDenoiser
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.following import FollowingDenoiser, with_children_last
from tests.laws import (
    all_rows,
    make_denoiser,
    random_causal,
    random_rows,
    seeded_generator,
    simplex,
)

SIZES = 3, 2, 4, 3
KINDS = "bayes_net", "mixture", "causal", "mixture of rows", "causal, child before parent"


class Drawn:
    """Relations whose F are drawn for each combination of the parents' levels: some are empty, none means anything."""

    children: tuple[int, ...] = 2, 0
    parents: tuple[tuple[int, ...], ...] = (1,), (2, 3)

    def __init__(self, seed, shares):
        rng, self.shares = np.random.default_rng(seed), shares
        self.open = [
            rng.random([SIZES[j] for j in (*p, c)]) < 0.5
            for p, c in zip(self.parents, self.children, strict=True)
        ]

    def log_terms(self, x):
        out = np.full((len(x), 2), np.nan)
        for i, row in enumerate(x):
            for k, (child, parents) in enumerate(zip(self.children, self.parents, strict=True)):
                cells = row[[*parents, child]]
                if np.isnan(cells).any():
                    continue
                *before, level = cells.astype(int)
                chosen = self.open[k][tuple(before)]
                if chosen.any():
                    mass = self.shares[k] / chosen.sum()
                    out[i, k] = math.log(mass) if chosen[level] else -math.inf
        return out

    def nodes(self, x, column):
        raise NotImplementedError(column)


def model(kind, seed):
    book = Codebook([simplex(n) for n in SIZES])
    order = [1, 3, 2, 0] if kind != "causal, child before parent" else [2, 0, 1, 3]
    network = random_causal(book, seed)
    network = CausalDenoiser(
        network.base, order, width=16, depth=1, generator=seeded_generator(seed, "cpu")
    )
    torch.nn.init.normal_(network.network.leave.weight, std=0.5)
    network = network.to(book.dtype).eval().requires_grad_(False)
    if kind.startswith("causal"):
        return network
    if kind == "mixture of rows":
        members = [make_denoiser("bayes_net", book, seed), network]
        return RowMixtureDenoiser(book, members, [2, 1])
    return make_denoiser(kind, book, seed)


@pytest.mark.parametrize("shares", [(0.97, 0.6), (1e-6, 1 - 1e-9)])
@pytest.mark.parametrize("kind", KINDS)
def test_masses_add_up_to_one_with_every_pattern_of_gaps(kind, shares):
    base = model(kind, 1)
    denoiser = FollowingDenoiser(base, Drawn(1, shares))
    rows = all_rows(base.codebook)
    for n_gaps in range(len(SIZES)):
        for gaps in itertools.combinations(range(len(SIZES)), n_gaps):
            known = rows.index_fill(1, torch.tensor(gaps, dtype=torch.int64), math.nan)
            known = torch.unique(known.nan_to_num(-1), dim=0)
            known = torch.where(known < 0, math.nan, known)
            log_prob = denoiser.log_prob(known)
            if base.exact or not gaps:
                assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-5)
            factors = denoiser.log_factors(known)
            torch.testing.assert_close(factors.sum(1), log_prob, rtol=0, atol=1e-5)
            assert bool((factors[known.isnan()] == 0).all())


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_relation_that_does_not_count_leaves_the_plain_factors(kind):
    base = model(kind, 2)
    denoiser, rows = FollowingDenoiser(base, Drawn(2, (0.9, 0.9))), all_rows(base.codebook)
    rows[:, [1, 3]] = math.nan  # a parent of each
    torch.testing.assert_close(denoiser.log_prob(rows), base.log_prob(rows).double())
    torch.testing.assert_close(denoiser.log_factors(rows), base.log_factors(rows).double())


def test_factors_are_those_of_the_definition():
    """Of an exact model with one relation that counts, by the ratio of two log-probabilities."""
    base, relations = model("bayes_net", 3), Drawn(3, (0.8, 0.7))
    rows = all_rows(base.codebook)
    rows[:, 3] = math.nan  # the second relation lacks a parent
    before = rows.index_fill(1, torch.tensor([0, 2]), math.nan)
    with_child = rows.index_fill(1, torch.tensor([0]), math.nan)
    p, p_before, whole = (base.log_prob(x).double().exp() for x in (with_child, before, rows))
    first = torch.from_numpy(relations.log_terms(rows.numpy())[:, 0])
    mixed = torch.where(first.isnan(), p / p_before, first.exp() + 0.2 * p / p_before)
    expected = p_before * mixed * whole / p
    got = FollowingDenoiser(base, relations).log_prob(rows).exp()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-12)


def test_children_come_last_in_an_order():
    relations = Drawn(0, (0.9, 0.9))
    for order in itertools.permutations(range(4)):
        moved = with_children_last(order, relations)
        assert moved[2:] == [2, 0]
        assert moved[:2] == [j for j in order if j in (1, 3)]
    assert with_children_last([2, 0, 1], None) == [2, 0, 1]


STAGED = "forest", "mixture", "bayes_net", "correlated"
RECORDED = (
    ColumnPoints("real"),
    ColumnPoints("real", line=NumberLine(scale=4.0, power=0.5, spread=1.5, step=1.0)),
    ColumnPoints("real", line=NumberLine(scale=1.0, power=0.0, spread=1.0, step=0.001)),
)


@pytest.mark.parametrize("last", [(3, 0), (2, 5, 1), (1, 2, 5)])
@pytest.mark.parametrize("kind", STAGED)
def test_columns_that_come_last_join_as_in_a_call_for_each_of_them(kind, last):
    """With dependent numbers, as in a model whose columns are in that order."""
    columns = [simplex(3), RECORDED[0], RECORDED[1], simplex(2), simplex(2), RECORDED[2]]
    book = Codebook(columns)
    base = make_denoiser(kind, book, 4)
    rows = random_rows(book, 64, np.random.default_rng(0), missing=0.15)
    got = base.log_probs_before(rows, last)
    alone = torch.cat([base.log_probs_before(row, last) for row in rows.split(8)], 1)
    assert torch.equal(got, alone)
    if kind == "correlated":
        reals = [j for j in (1, 2, 5) if j not in last] + [j for j in last if j in (1, 2, 5)]
        base, order = with_numbers_in_order(base, columns, reals)
        rows, last = rows[:, order], [order.index(j) for j in last]
    expected = Denoiser.log_probs_before(base, rows, last)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)  # of narrow cells


def with_numbers_in_order(model, columns, reals):
    """A mixture with the same classes and the numbers in another order, and which column is where."""
    order, numbers = list(range(len(columns))), model.codebook.reals.tolist()
    for j, real in zip(numbers, reals, strict=True):
        order[j] = real
    place = [numbers.index(j) for j in reals]
    covariance = (model.chol @ model.chol.mT)[:, place][:, :, place]
    parts = model.log_weights.exp(), model.log_probs.exp(), model.means[:, place]
    book = Codebook([columns[j] for j in order])
    return MixtureDenoiser(book, *parts, chol=torch.linalg.cholesky(covariance)), order
