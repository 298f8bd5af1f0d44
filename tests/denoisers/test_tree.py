"""Bayesian networks that are trees, and mixtures of them: sums over all rows, their fit against slow counts."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    FEW_EXAMPLES,
    draw_rows,
    known_but,
    random_trees,
    seeds,
    simplex,
    tables,
    tree_of,
)

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    MarginalDenoiser,
    RowMixtureDenoiser,
)
from discrete_itd.denoisers.graph_search import Counted, Search

# -- far from what it expects ----------------------------------------------------------------------


def test_many_known_cells_do_not_blur_which_tree_it_is(device):
    """Their evidence is large and the same for all trees, which differ by a few nats: in float32 as in float64."""
    n, seen = 400, []
    rng = np.random.default_rng(0)
    parents = [[-1, *range(n - 1)], [-1] + [0] * (n - 1)]
    raw = torch.tensor(0.5 + 0.02 * rng.random((2, n, 2, 2)), device=device)
    raw[:, n - 1] = torch.tensor(
        [[[0.99, 0.01]], [[0.01, 0.99]]], device=device
    )  # tells them apart
    rows = torch.tensor(rng.integers(2, size=(8, n)), device=device).double()
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        book = Codebook([simplex(2)] * n).to(device)
        trees = [tree_of(book, *own) for own in zip(parents, raw, strict=True)]
        denoiser = RowMixtureDenoiser(book, trees, [1.0, 1.0])
        q = denoiser(*known_but(book, rows, [n - 1])).column(n - 1).exp()[:, 0]
        seen.append(q.double())
    rows[:, n - 1] = math.nan
    weight = torch.softmax(denoiser.log_joint(rows), 1)
    assert weight.min() > 0.01  # in doubt
    torch.testing.assert_close(seen[1], weight @ torch.tensor([0.99, 0.01]).to(weight))
    torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=0)


# -- fitted trees ----------------------------------------------------------------------------------


def naive_counts(x, sizes):
    """Rows by the categories of every pair of columns, where both are there."""
    counts = {}
    for i, j in itertools.product(range(x.shape[1]), repeat=2):
        both = ~np.isnan(x[:, i]) & ~np.isnan(x[:, j])
        table = np.zeros((sizes[i], sizes[j]))
        np.add.at(table, tuple(x[both][:, [i, j]].astype(int).T), 1)
        counts[i, j] = table
    return counts


def naive_information(table):
    """Mutual information of a table of counts, times their sum."""
    p = table / max(table.sum(), 1e-300)
    row, column = p.sum(1, keepdims=True), p.sum(0, keepdims=True)
    there = p > 0
    return table.sum() * (p[there] * np.log((p / (row * column + (~there)))[there])).sum()


def kruskal(gain):
    """Edges of the spanning tree of greatest sum."""
    n = len(gain)
    pairs = sorted(itertools.combinations(range(n), 2), key=lambda e: -gain[e])
    part, edges = list(range(n)), []
    for i, j in pairs:
        if part[i] != part[j]:
            edges.append((i, j))
            part = [part[i] if q == part[j] else q for q in part]
    return edges


def naive_tree(x, sizes):
    """Edges of the tree of maximum likelihood."""
    counts = naive_counts(x, sizes)
    n = x.shape[1]
    gain = np.array([[naive_information(counts[i, j]) for j in range(n)] for i in range(n)])
    return kruskal(gain)


def edges_of(parents):
    """Pairs of columns that a tree joins."""
    assert all(len(above) < 2 for above in parents)
    return {tuple(sorted((j, up))) for j, above in enumerate(parents) for up in above}


def fit(book, x, **given):
    return BayesNetDenoiser.fit(MarginalDenoiser.fit(book, x), x, most_parents=1, **given)


def most_likely(book, x):
    """Parents in the tree of maximum likelihood, and the information of two columns in the rows that have both."""
    counted = Counted(x.cpu().numpy(), book.levels.cardinalities)
    return Search(counted, 1, 1 << 20).tree(0.0), lambda i, j: counted.gain(j, (), i, 0.0)


@FEW_EXAMPLES
@given(tables(max_columns=5), st.integers(1, 60), seeds)
def test_chow_liu_equals_slow_counts(device, columns, n, seed):
    """The information of the best tree is found, whatever tree ties gave."""
    book = Codebook([replace(c, open=False) for c in columns]).to(device)
    rng = np.random.default_rng(seed)
    x = draw_rows(random_trees(book, rng, n_trees=2), n, rng)
    edges = naive_tree(x.cpu().numpy(), book.levels.cardinalities)
    parents, gain = most_likely(book, x)
    total = sum(gain(i, j) for i, j in edges)
    assert sum(gain(*edge) for edge in edges_of(parents)) == pytest.approx(total, abs=1e-4)


def test_a_penalty_leaves_out_edges_that_do_not_pay(device):
    """Columns of many categories seem to depend on one another in few rows; a table of few that do is kept."""
    rng = np.random.default_rng(0)
    few = rng.integers(2, size=300)
    near = np.where(rng.random(300) < 0.8, few, 1 - few)
    x = np.stack([few, rng.integers(40, size=300), rng.integers(40, size=300), near], 1)
    book = Codebook([simplex(2), simplex(40), simplex(40), simplex(2)]).to(device)
    x = torch.tensor(x, device=device).double()
    assert (1, 2) in edges_of(most_likely(book, x)[0])
    forest = fit(book, x)
    assert edges_of(forest.parents) == {(0, 3)}
    # nor do columns that have no row in common get an edge, or one that is never there
    gaps = x[:, [0, 3, 0, 3, 0]].clone()
    gaps[:150, 2:], gaps[150:, :2], gaps[:, 4] = math.nan, math.nan, math.nan
    forest = fit(Codebook([simplex(2)] * 5).to(device), gaps)
    assert edges_of(forest.parents) == {(0, 1), (2, 3)}
    # where one category decides another, a context has no more parameters than its few rows
    codes = torch.tensor(rng.integers(40, size=300), device=device).double()
    x = torch.stack([x[:, 0], codes, codes, x[:, 3]], 1)
    assert (1, 2) in edges_of(fit(book, x, x_valid=x).parents)
