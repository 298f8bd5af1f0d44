"""Density forests (11): scores against a sum over all leaves, counting and smoothing against loops, the recipe."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from laws import (
    BOOKS,
    WITH_REALS,
    all_rows,
    line,
    make_book,
    random_forest,
    random_marginals,
    random_rows,
    real,
    rounding,
    seeded_generator,
    simplex,
)
from scipy import stats

from discrete_itd.channel import State
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.gaussian import clipped, log_between, log_mass
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers import ForestDenoiser, MarginalDenoiser
from discrete_itd.denoisers.forest import (
    ForestCounts,
    Pairs,
    responsible,
    truncated_moments,
    untruncated,
)
from discrete_itd.denoisers.marginal import WIDE_SD
from discrete_itd.models.exact import PILOT_TREES, grow
from discrete_itd.models.fitting import FitPlan
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.recipes import Forest
from discrete_itd.training.loop import TrainingPlan

ALL = [*sorted(BOOKS), *WITH_REALS]


def forest(name, device, seed=0, **arguments):
    return random_forest(make_book(name, device), np.random.default_rng(seed), **arguments)


# -- slow references -------------------------------------------------------------------------------


def box_of(splits, leaf):
    """The intervals (C, 2) of a leaf, from its branch."""
    box, node = np.tile([-np.inf, np.inf], (splits.codebook.n_columns, 1)), int(splits.leaves[leaf])
    while (up := int(splits.parent[node])) >= 0:
        j, side = int(splits.column[up]), int(node == int(splits.left[up]))
        t = float(splits.threshold[up])
        box[j, side] = min(box[j, side], t) if side else max(box[j, side], t)
        node = up
    return box


def weight_of(denoiser, leaf):
    """Its share of the rows, from its branch."""
    node, total = int(denoiser.splits.leaves[leaf]), 0.0
    while node >= 0:
        total += float(denoiser.log_shares[node])
        node = int(denoiser.splits.parent[node])
    return total


def number_density(denoiser, leaf, i, value, box):
    """The density of a number in a leaf: two Gaussians between the same bounds."""
    parts = [
        (1 - denoiser.wide, float(denoiser.means[leaf, i]), float(denoiser.var[leaf, i]) ** 0.5),
        (denoiser.wide, 0.0, WIDE_SD),
    ]
    return sum(
        w
        * stats.norm.pdf(value, m, s)
        / (stats.norm.cdf(box[1], m, s) - stats.norm.cdf(box[0], m, s))
        for w, m, s in parts
    )


def level_probability(denoiser, leaf, row, j):
    """Of a known level in a leaf."""
    book, i = denoiser.codebook, denoiser.codebook.place[j]
    return float(denoiser.probs[leaf, range(book.levels.n_points)[book.levels.own(i)][int(row[j])]])


def slow_log_prob(denoiser, row):
    """Of one row: a sum over all leaves of all trees, gaps left out."""
    book, splits, total = denoiser.codebook, denoiser.splits, 0.0
    for leaf in range(splits.n_leaves):
        box, p = box_of(splits, leaf), math.exp(weight_of(denoiser, leaf))
        rank = splits.rank[splits.tree[splits.leaves[leaf]]]
        for j, cell in enumerate(row):
            if math.isnan(cell):
                continue
            if j in book.place:
                level = range(book.levels.n_points)[book.levels.own(book.place[j])][int(cell)]
                inside = box[j, 0] < float(rank[level]) <= box[j, 1]
                p *= level_probability(denoiser, leaf, row, j) * inside
            elif book.columns[j].kind == "real":
                i = book.reals.tolist().index(j)
                inside = box[j, 0] < cell <= box[j, 1]
                p *= number_density(denoiser, leaf, i, cell, box[j]) * inside
        total += p
    return math.log(total)


@pytest.mark.parametrize("name", ALL)
def test_a_score_is_a_sum_over_all_leaves(device, dtype, name):
    denoiser = forest(name, device)
    rng = np.random.default_rng(1)
    rows = torch.cat(
        [random_rows(denoiser.codebook, n, rng, missing=m) for n, m in ((7, 0), (9, 0.4))]
    )
    expected = torch.tensor([slow_log_prob(denoiser, row) for row in rows.tolist()], device=device)
    got = denoiser.log_prob(rows)
    torch.testing.assert_close(got, expected.to(got), atol=rounding(dtype), rtol=rounding(dtype))


def test_property_masses_of_cells_are_right_whatever_their_width(device, monkeypatch):
    """Narrow ones have density times width and its curvature, wide ones a difference of tails, cut ones less of it."""
    rng = np.random.default_rng(0)
    denoiser = random_forest(make_book("only reals", device), rng, depth=3)
    x = random_rows(denoiser.codebook, 60, rng)
    width = torch.tensor(10.0 ** rng.uniform(-7, 0, x.shape), device=device)
    lines = type(denoiser.codebook.lines)
    monkeypatch.setattr(lines, "cells", lambda _, reals: Intervals(x.to(reals.device), width))
    row, leaf = (
        t.flatten()
        for t in torch.meshgrid(*map(torch.arange, (60, denoiser.splits.n_leaves)), indexing="ij")
    )
    pairs = Pairs(row, x[:, :0].long(), x, row.to(device), leaf.to(device), row)
    got, box = (
        denoiser._number_cells(pairs),
        (denoiser._low[leaf].double(), denoiser._high[leaf].double()),
    )
    inside = clipped(Intervals(x[row], width[row]), *box)
    expected = []
    for share, m, sd in (
        (1 - denoiser.wide, denoiser.means[leaf].double(), denoiser.var[leaf].double().sqrt()),
        (denoiser.wide, torch.zeros(()).double(), torch.tensor(WIDE_SD).double()),
    ):
        of_box = log_between(*((end - m) / sd for end in box))
        expected.append(math.log(share) + log_mass(inside, m, sd) - of_box)
    is_in = (x[row] > box[0]) & (x[row] <= box[1])
    expected = torch.logaddexp(*expected)
    torch.testing.assert_close(got[is_in], expected[is_in], atol=3e-8, rtol=1e-9)


def test_factors_belong_to_the_columns_that_split(device):
    """A column that is independent of all others has the same factor in every row with the same cell."""
    book = Codebook([simplex(2), simplex(2), simplex(2)]).to(device)
    splits = (
        torch.tensor([0, -1, -1]),
        torch.tensor([0.5, 0, 0]),
        torch.tensor([[0.0, 0, 0, 1, 1, 1]]),
    )
    probs = torch.tensor([[1.0, 0.9, 0.3, 0.0, 0.1, 0.7], [0.0, 0.2, 0.3, 1.0, 0.8, 0.7]])
    denoiser = ForestDenoiser(
        book, *splits, torch.tensor([1.0, 0.6, 0.4]), probs.to(book.known_snr)
    )
    rows = all_rows(book)
    factors = denoiser.log_factors(rows).exp()
    first = torch.where(rows[:, 0] == 0, 0.6, 0.4)
    second = torch.where(rows[:, 0] == 0, 0.9, 0.2)
    second = torch.where(rows[:, 1] == 0, second, 1 - second)
    third = torch.where(rows[:, 2] == 0, 0.3, 0.7)
    expected = torch.stack([first, second, third], 1).to(factors)
    torch.testing.assert_close(factors, expected, atol=1e-6, rtol=1e-6)


def test_factors_are_means_over_both_orders_of_the_columns(device):
    """Of two trees that are each other's mirror images, which exchange the columns: so do the factors."""
    book = Codebook([simplex(2)] * 2).to(device)
    column = torch.tensor([0, 1, -1, -1, -1, -1])
    rank = torch.tensor([[0.0, 0, 1, 1]] * 2)
    shares = torch.tensor([1.0, 1, 0.6, 0.4, 0.6, 0.4])
    probs = torch.tensor([[1, 0.9, 0, 0.1], [0, 0.2, 1, 0.8], [0.9, 1, 0.1, 0], [0.2, 0, 0.8, 1]])
    threshold = torch.where(column < 0, 0.0, 0.5)
    denoiser = ForestDenoiser(book, column, threshold, rank, shares, probs.to(book.known_snr))
    rows = all_rows(book)
    factors = denoiser.log_factors(rows)
    torch.testing.assert_close(factors.sum(1), denoiser.log_prob(rows), atol=1e-6, rtol=1e-6)
    mirrored = denoiser.log_factors(rows.flip(1)).flip(1)
    torch.testing.assert_close(factors, mirrored, atol=1e-6, rtol=1e-6)


def test_drawn_numbers_follow_their_distribution(device):
    denoiser = forest("one real", device, seed=7)
    drawn = denoiser.draw(4000, seeded_generator(0, device))
    q = denoiser.marginals()
    j = int(denoiser.codebook.reals[0])
    u = q.expand(len(drawn)).gaussian.cdf(drawn[:, j, None].to(denoiser.means))
    assert stats.kstest(u[:, 0].cpu().numpy(), "uniform").pvalue > 1e-4


def test_rows_are_drawn_given_that_their_levels_are_allowed(device):
    """As probable as they are among the rows that have no unseen category."""
    denoiser = forest("open", device)
    book, rows = denoiser.codebook, all_rows(denoiser.codebook)
    seen = ~book.levels.level_unseen[book.levels.index_of(rows.long())].any(1)
    expected = denoiser.log_prob(rows[seen]).softmax(0) * 4000
    drawn = denoiser.draw(4000, seeded_generator(0, device))
    found = torch.stack([(drawn == row).all(1).sum() for row in rows[seen]])
    assert int(found.sum()) == 4000
    assert stats.chisquare(found.cpu(), expected.cpu()).pvalue > 1e-4


# -- what is refused -------------------------------------------------------------------------------


def parts_of(device):
    """Of a forest of two binary columns: columns, thresholds, ranks, shares and probabilities."""
    denoiser = random_forest(
        Codebook([simplex(2), real()]).to(device), np.random.default_rng(0), n_trees=2, depth=2
    )
    s = denoiser.splits
    parts = s.column, s.threshold, s.rank, denoiser.log_shares.exp(), denoiser.probs
    return denoiser.codebook, [t.clone() for t in (*parts, denoiser.means, denoiser.var)]


def put(i, at, value):
    def change(parts):
        parts[i][at] = value

    return change


def longer(parts):
    parts[0] = torch.cat([parts[0], parts[0][-2:]])
    parts[1] = torch.cat([parts[1], parts[1][-2:]])


def cycle(parts):
    """The roots are leaves, and a node that nobody has as a child is split."""
    parts[0][:] = torch.tensor(
        [-1, -1, *[0] * ((len(parts[0]) - 2) // 2), *[-1] * ((len(parts[0]) - 2) // 2)]
    )


REFUSED = {
    "another number of nodes": (longer, "another number of nodes"),
    "a node before its parent": (cycle, "a node comes after its children"),
    "no such column": (put(0, 0, 5), "columns"),
    "an infinite threshold": (put(1, 0, math.inf), "finite"),
    "no share": (put(3, 0, 0.0), "shares must be"),
    "a probability outside its box": (put(4, slice(None), 0.5), "zero outside"),
    "a variance of zero": (put(6, 0, 0.0), "var must be positive"),
    "a mean that is none": (put(5, 0, math.nan), "mean must be finite"),
}


def test_what_is_no_forest_is_refused(device):
    for name in REFUSED:
        book, parts = parts_of(device)
        ForestDenoiser(book, *parts)
        REFUSED[name][0](parts)
        with pytest.raises(ValueError, match=REFUSED[name][1]):
            ForestDenoiser(book, *parts)


# -- counting and smoothing ------------------------------------------------------------------------


def table(device, n=400, missing=0.0, seed=0):
    """A book and rows of dependent columns of every kind."""
    rng = np.random.default_rng(seed)
    book = Codebook([simplex(4), real(), line(-0.6, 0.0, 0.6, is_open=True), simplex(2), real()])
    z = rng.integers(4, size=n)
    columns = [
        np.where(rng.random(n) < 0.8, z, rng.integers(4, size=n)),
        0.3 * z - 0.5 + 0.2 * rng.normal(size=n),
        (z + rng.integers(2, size=n)) % 3,
        (z > 1) ^ (rng.random(n) < 0.1),
        rng.normal(size=n) * 0.5,
    ]
    x = np.stack(columns, 1).astype(np.float64)
    x[rng.random(x.shape) < missing] = np.nan
    return book.to(device), torch.tensor(x, device=device)


def grown(device, missing=0.0, n_trees=3, **arguments):
    book, x = table(device, missing=missing, **arguments)
    return x, grow(book, x, n_trees=n_trees, min_leaf=5, seed=0)


def slow_leaf(splits, tree, row):
    """The leaf of one complete row."""
    node = tree
    while (j := int(splits.column[node])) >= 0:
        cell = float(row[j])
        if j in splits.codebook.place:
            level = range(splits.rank.shape[1])[
                splits.codebook.levels.own(splits.codebook.place[j])
            ]
            cell = float(splits.rank[tree, level[int(cell)]])
        cell = float(torch.tensor(cell).to(splits.threshold))
        node = int(splits.left[node]) + (cell > float(splits.threshold[node]))
    return int(splits.leaf[node])


def test_counts_are_those_of_a_loop(device):
    x, splits = grown(device)
    counts = ForestCounts(splits).add(x)
    levels, rows = np.zeros(counts.levels.shape), np.zeros(len(counts.rows))
    book, sums = splits.codebook, np.zeros(counts.reals.shape)
    for row in x.tolist():
        for t in range(splits.n_trees):
            leaf = slow_leaf(splits, t, row)
            rows[leaf] += 1
            for j, i in book.place.items():
                levels[leaf, range(book.levels.n_points)[book.levels.own(i)][int(row[j])]] += 1
            for i, j in enumerate(book.reals.tolist()):
                sums[:, leaf, i] += [1, row[j], row[j] ** 2]
    assert np.array_equal(counts.rows.cpu(), rows)
    assert np.array_equal(counts.levels.cpu(), levels)
    np.testing.assert_allclose(counts.reals.cpu(), sums, atol=1e-4)
    assert rows.min() >= 5


def test_rows_with_gaps_are_counted_by_a_loop_over_leaves(device, dtype):
    """Weights of (22): a leaf's share times its products over the known cells, within each tree; one a row and tree."""
    x, splits = grown(device, missing=0.3)
    given = responsible(splits, MarginalDenoiser.fit(splits.codebook, x), x)
    log_weights, cells = given.components(x)
    joint = log_weights + cells.sum(1)  # (N, L), minus infinity where the row cannot be
    weights = torch.zeros_like(joint)
    for t in range(splits.n_trees):
        own = splits.tree[splits.leaves] == t
        weights[:, own] = joint[:, own].softmax(1)
    for which in (None, torch.arange(len(x), device=device) % 3):
        counts = ForestCounts(splits, given).add(x, which)
        if which is not None:
            weights = weights * (splits.tree[splits.leaves] == which[:, None])
        near = {"rtol": rounding(dtype, 100), "atol": rounding(dtype, 1000)}
        torch.testing.assert_close(counts.rows, weights.sum(0), **near)
        reals = x[:, splits.codebook.reals].nan_to_num()
        torch.testing.assert_close(counts.reals[1], weights.T @ reals, **near)
        level = splits.codebook.levels.own(0)
        ones = torch.nn.functional.one_hot(x[:, 0].nan_to_num().long(), 4) * ~x[:, :1].isnan()
        expected = (weights.T @ ones.double()).to(counts.levels)
        torch.testing.assert_close(counts.levels[:, level], expected, rtol=1e-4, atol=1e-4)


def test_counts_add_up_over_parts(device):
    x, splits = grown(device, 0.3)
    given = responsible(splits, MarginalDenoiser.fit(splits.codebook, x), x)
    whole, parts = (ForestCounts(splits, given) for _ in range(2))
    whole.add(x)
    for part in x.split(77):
        parts.add(part)
    for name in ("rows", "levels", "reals"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-4, atol=1e-4)
    assert float(whole.rows.sum()) == pytest.approx(splits.n_trees * len(x))


def test_trees_with_rows_of_their_own_know_no_others(device):
    """Neither their splits nor their counts; a leaf has as many of these rows as it should."""
    book, x = table(device)
    tree = torch.arange(len(x), device=device) % 3
    splits = grow(book, x, n_trees=3, min_leaf=5, seed=0, tree=tree)
    counts = ForestCounts(splits).add(x, tree)
    sizes = counts.rows.new_zeros(3).index_add_(0, splits.tree[splits.leaves], counts.rows)
    assert sizes.tolist() == torch.bincount(tree).tolist()
    assert int(counts.rows.min()) >= 5
    alone = [ForestCounts(splits).add(x[tree == t]) for t in range(3)]
    for t in range(3):
        own = splits.tree[splits.leaves] == t
        assert torch.equal(counts.rows[own], alone[t].rows[own])
        assert torch.equal(counts.levels[own], alone[t].levels[own])
        torch.testing.assert_close(counts.reals[:, own], alone[t].reals[:, own])
    other = torch.where((tree == 0)[:, None], x, table(device, seed=1)[1])
    other = grow(book, other, n_trees=3, min_leaf=5, seed=0, tree=tree)
    first = [s.column[s.tree == 0].tolist() for s in (splits, other)]
    assert first[0] == first[1]
    assert splits.column.tolist() != other.column.tolist()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_mean_log_factors_are_those_of_a_loop_over_trees(device, missing):
    """Of the factors of each tree alone; a row has the same ones alone as in a batch, to the last bit."""
    x, splits = grown(device, missing, n_trees=5)
    base = MarginalDenoiser.fit(splits.codebook, x)
    whole = responsible(splits, base, x)
    found, slow = whole.mean_log_factors(x), torch.zeros_like(x)
    for t in range(5):
        nodes, own = splits.tree == t, splits.tree[splits.leaves] == t
        shares = whole.log_shares[nodes].exp()
        shares[0] = 1.0
        parts = splits.column[nodes], splits.threshold[nodes], splits.rank[t : t + 1], shares
        leaves = whole.probs[own], whole.means[own], whole.var[own], whole.wide
        slow += ForestDenoiser(splits.codebook, *parts, *leaves).log_factors(x) / 5
    torch.testing.assert_close(found, slow, rtol=1e-6, atol=1e-6)
    assert not found[x.isnan()].any()
    assert (
        found.sum(1) < whole.log_prob(x) + 1e-6
    ).all()  # a geometric mean is below an arithmetic one
    for i in (0, 7, 399):
        assert torch.equal(whole.mean_log_factors(x[i : i + 1])[0], found[i])


def test_shallower_trees_have_the_counts_of_their_leaves(device):
    x, splits = grown(device)
    counts = ForestCounts(splits).add(x)
    for fewest in (12, 40, 1000):
        shallower = counts.cut(fewest)
        again = ForestCounts(shallower.splits).add(x)
        assert torch.equal(shallower.rows, again.rows)
        assert torch.equal(shallower.levels, again.levels)
        torch.testing.assert_close(shallower.reals, again.reals)
        alone = shallower.splits.n_leaves == shallower.splits.n_trees
        assert int(shallower.rows.min()) >= fewest or alone
    assert alone


def test_smoothing_is_that_of_a_loop(device, dtype):
    """Towards the node above, in the part of the column that is the node's; and towards the whole table."""
    x, splits = grown(device, missing=0.2)
    prior = MarginalDenoiser.fit(splits.codebook, x)
    counts, prior = (
        ForestCounts(splits, responsible(splits, prior, x)).add(x),
        prior.log_probs.exp(),
    )
    book, levels = splits.codebook, splits.codebook.levels
    got, sums = counts.probs(prior, 3.0, 0.1), splits.sums(counts.levels).double()
    column = book.finite[levels.level_column]
    for leaf in range(0, splits.n_leaves, 9):
        branch = [int(splits.leaves[leaf])]
        while splits.parent[branch[0]] >= 0:
            branch.insert(0, int(splits.parent[branch[0]]))
        tree = branch[0]
        p, inside = prior.double(), torch.ones_like(prior, dtype=torch.bool)
        for up, node in itertools.pairwise(branch):
            right = splits.rank[tree] > splits.threshold[up]
            inside = inside & ((column != splits.column[up]) | (right == (node != splits.left[up])))
            above, root = (
                levels.log_softmax((t * inside).log()[None])[0].exp() for t in (p, prior.double())
            )
            p = sums[node] + 3.0 * above + 0.1 * root
            unseen = levels.level_unseen
            p = torch.where(unseen, 0.0, p) / levels.per_level(levels.sum((p * ~unseen)[None]))[0]
            p = p * levels.per_level(1 - levels.sum((root * unseen)[None]))[0] + root * unseen
        torch.testing.assert_close(
            got[leaf].double(), p, atol=rounding(dtype), rtol=rounding(dtype, 10)
        )


def test_moments_between_bounds():
    """Of truncated Gaussians, against scipy; and back, where a Gaussian is narrow or flat in its box."""
    mean, sd = torch.tensor([0.3, -1.0, 2.0]).double(), torch.tensor([0.5, 2.0, 0.3]).double()
    low, high = (
        torch.tensor([0.0, -torch.inf, -1.0]).double(),
        torch.tensor([0.4, 0.5, 1.5]).double(),
    )
    got = truncated_moments(mean, sd.square(), low, high)
    for i, (m, s, a, b) in enumerate(
        zip(*(t.tolist() for t in (mean, sd, low, high)), strict=True)
    ):
        q = stats.truncnorm((a - m) / s, (b - m) / s, m, s)
        assert float(got[0][i]) == pytest.approx(q.mean(), abs=1e-9)
        assert float(got[1][i]) == pytest.approx(q.var(), rel=1e-6)
    low, high = torch.tensor([-1.0, -1.0]).double(), torch.tensor([1.0, 1.0]).double()
    narrow_flat = torch.tensor([0.1, 0.0]).double(), torch.tensor([1e-3, 1 / 3]).double()
    mean, var = untruncated(*narrow_flat, low, high)
    assert float(mean[0]) == pytest.approx(0.1, abs=1e-3)
    assert float(var[0]) == pytest.approx(1e-3, rel=1e-2)
    assert float(var[1]) > 50  # flat


@pytest.mark.parametrize(("kind", "above"), [("uniform", 0.5), ("normal", 50.0)])
def test_leaves_have_the_moments_of_their_rows(device, kind, above):
    """In their boxes: a Gaussian of their variance would have less of it there; and so have the nodes above them.

    Where all rows have one Gaussian, what a leaf hears from the node above is, in its box, what its rows say.
    """
    rng = np.random.default_rng(0)
    x = {"uniform": rng.uniform(-0.8, 0.8, (6000, 2)), "normal": rng.normal(0, 0.5, (6000, 2))}
    book, x = Codebook([real(), real()]).to(device), torch.from_numpy(x[kind]).to(device)
    counts = ForestCounts(grow(book, x, n_trees=4, min_leaf=150, seed=0)).add(x)
    splits, (n, total, square) = counts.splits, counts.reals
    low, high = (t[splits.leaves][:, book.reals].double() for t in splits.boxes())
    mean, var = truncated_moments(*counts.gaussians(above), low, high)
    spread = square / n - (total / n).square()
    finite = (high - low).isfinite()
    assert int(finite.sum()) > 20
    assert float(((mean - total / n) / spread.sqrt())[finite].abs().mean()) < 0.015
    assert float((var / spread)[finite].mean()) == pytest.approx(1, abs=0.05)


# -- the recipe ------------------------------------------------------------------------------------


def training_rows(device, missing=0.0, n=400):
    book, x = table(device, missing=missing, n=n)
    generator = seeded_generator(0, device)
    marginals = MarginalDenoiser.fit(book, x)
    return TrainingRows(marginals, x[:320], x[320:], generator)


def plan():
    return FitPlan(TrainingPlan(), 0)


@pytest.mark.parametrize("fewest", [5, 17])
def test_no_leaf_has_fewer_rows_than_it_should(device, fewest):
    rows = training_rows(device)
    denoiser = Forest(3, fewest).fit(rows, plan())
    counts = ForestCounts(denoiser.splits).add(rows.x)
    assert len(counts.rows) > 6
    assert int(counts.rows.min()) >= fewest


def test_rows_with_gaps_leave_no_leaf_with_fewer_rows(device, monkeypatch):
    """Expected rows: they may go elsewhere than when the trees were grown."""
    least, cut = [], ForestCounts.cut

    def watched(counts, fewest):
        out = cut(counts, fewest)
        least.append(float(out.rows.min()) - fewest)
        return out

    monkeypatch.setattr(ForestCounts, "cut", watched)
    Forest(6).fit(training_rows(device, missing=0.5), plan())
    assert min(least) > -1e-6


def test_a_forest_without_a_voice_is_not_finished(device):
    """It ends with few trees; in the best case it was to be better than these, and than all are."""
    rows, asked = training_rows(device, n=2000), []
    few = Forest().fit(rows, replace(plan(), has_voice=lambda *best: bool(asked.append(best))))
    every = Forest(31).fit(rows, plan())
    assert (few.n_trees, every.n_trees) == (PILOT_TREES, 31)
    (nats, hoped), *_ = asked
    assert rows.held_out_nats(few) == pytest.approx(float(nats.mean()))
    assert hoped < rows.held_out_nats(every) < rows.held_out_nats(few)


def test_a_forest_knows_what_independent_columns_do_not(device):
    rows = training_rows(device, n=2000)
    denoiser = Forest(8).fit(rows, plan())
    assert rows.held_out_nats(denoiser) < rows.held_out_nats(rows.marginals) - 0.5


def test_a_far_value_is_improbable_and_not_impossible(device):
    rows = training_rows(device, n=2000)
    denoiser = Forest(8).fit(rows, plan())
    far = rows.x_valid[:1].clone()
    far[0, 1] = 9.0
    steps = denoiser.log_factors(far)[0] - denoiser.log_factors(rows.x_valid[:1])[0]
    assert -30 < steps[1] < -8
    assert bool((steps[[0, 2, 3, 4]].abs() < 4).all())


def test_a_column_without_cells(device):
    """Nothing splits it: a root per tree."""
    book = Codebook([simplex(2), real()]).to(device)
    x = torch.tensor([[0.0, math.nan], [1.0, math.nan]] * 30, device=device).double()
    rows = TrainingRows(MarginalDenoiser.fit(book, x), x, x[:9], seeded_generator(0, device))
    denoiser = Forest(2).fit(rows, plan())
    assert bool(denoiser.log_prob(torch.tensor([[0.0, 3.0]], device=device).double()).isfinite())


def test_a_forest_of_numbers_alone_answers_for_many_rows(device):
    """All leaves of many rows are reached, and no column has levels."""
    book = make_book("only reals", device)
    forest = random_forest(book, np.random.default_rng(0))
    nothing = torch.zeros(40, book.n_coords, device=device).to(book.known_snr)
    q = forest(nothing, torch.zeros(40, book.n_columns, device=device).to(book.known_snr))
    alone = forest(nothing[:1], torch.zeros_like(nothing[:1]))
    torch.testing.assert_close(q.rows(slice(39, 40)).mean(), alone.mean())


@pytest.mark.parametrize("name", ALL)
def test_components_are_the_leaves(device, dtype, name):
    """Their products, weighted, are the score of a row with gaps; those of independent columns are one product."""
    book = make_book(name, device)
    forest = random_forest(book, np.random.default_rng(3))
    alone = random_marginals(book, np.random.default_rng(3))
    rows = random_rows(book, 40, np.random.default_rng(4))
    gaps = torch.from_numpy(np.random.default_rng(5).random(rows.shape) < 0.3).to(device)
    for x in (rows, rows[:0], rows.masked_fill(gaps, math.nan)):
        for denoiser in (forest, alone):
            weights, cells = denoiser.components(x)
            total = torch.logsumexp(weights + cells.sum(1), 1)
            expected = denoiser.log_prob(x).to(total)
            torch.testing.assert_close(total, expected, atol=rounding(dtype, 10), rtol=0)


def test_numbers_of_completions_follow_the_posterior(device):
    """Beside other missing cells, of numbers and of categories: their leaf is drawn first (22)."""
    book = make_book("all kinds", device)
    forest, x = (
        random_forest(book, np.random.default_rng(1)),
        random_rows(book, 3, np.random.default_rng(0)),
    )
    x[:, [1, 3, 4]] = math.nan
    q = forest(*State.start(book, book.embed(x), ~x.isnan()))
    drawn = forest.complete(x, 3000, 1)[:, :, book.reals]
    for row in range(3):
        for r in range(2):
            own = q.gaussian.pick(lambda t, at=(row, r): t[at][None, None])
            at = own.cdf(drawn[row, :, r][None].to(own.means)).flatten().cpu().numpy()
            assert stats.kstest(at, "uniform").pvalue > 1e-3
    known = ~x[:, None].isnan().expand(-1, 5, -1)
    again = forest.complete(x, 5, 2)
    assert torch.equal(again[known], x[:, None].expand(-1, 5, -1)[known])
