"""Recipes of exact models: independent columns, trees, Bayesian networks and density forests (11).

Of a forest only the splits come from scikit-learn: a column and a threshold for each node. All probabilities are
counted from the rows afterwards (``ForestCounts`` in :mod:`discrete_itd.denoisers.forest`), so that another library
could grow the trees without changing the definition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import BayesNetDenoiser, Denoiser, ForestDenoiser, MarginalDenoiser
from discrete_itd.denoisers.forest import ABOVE, ForestCounts, Splits, responsible
from discrete_itd.models.decoder_mixture import Mixture
from discrete_itd.models.fitting import FitPlan, Recipe
from discrete_itd.models.held_out import TrainingRows

# base="auto" of a network that sums the base's columns out at every call: floats of a Bayesian network's largest table,
# and of all its tables
BASE_TABLE, BASE_WORK = 256, 1 << 13
# A table of two columns may have PAIR_TABLE floats, and those of all pairs of a tree PAIRS_TABLE (or a million each):
# a key of 4096 values can then decide a column of a thousand.
PAIR_TABLE, PAIRS_TABLE = 1 << 22, 1 << 24
MOST_COUNTED = (
    1 << 26
)  # counts of pairs of levels, beyond which "auto" fits no tree and no Bayesian network
FEWEST_LEAF_ROWS = 5  # a leaf of a forest has at least so many
MOST_ABOVE = 1024.0  # largest pseudo-count of the node above a leaf that is tried, beside columns of many levels
# The size of leaves and their smoothing are chosen on PILOT_TREES trees and at most JUDGED_ROWS held-out rows, in
# TRIAL_SHARE of the forest's time: eight trees cost a quarter of all, and choose as well ("Forests by eight trees" in
# RESULTS.md).
PILOT_TREES, JUDGED_ROWS, TRIAL_SHARE = 8, 2048, 0.5


@dataclass(frozen=True)
class Independent(Recipe):
    """Independent columns: smoothed frequencies, and mixtures of Gaussians for continuous columns."""

    exact = True
    name = "independent"

    def fit(self, rows: TrainingRows, plan: FitPlan) -> MarginalDenoiser:
        return rows.marginals


@dataclass(frozen=True)
class Tree(Recipe):
    """A Chow-Liu tree over the category columns, without edges that do not pay for their parameters; exact.

    It is a Bayesian network in which no column has two parents. Held-out rows choose the price of its parameters and
    its pseudo-count. Continuous columns are independent of all others.
    """

    exact = True
    name = "tree"

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return _searched(self, rows, plan, most_parents=1)


@dataclass(frozen=True)
class BayesNet(Recipe):
    """A Bayesian network found by hill climbing, over the category columns; exact.

    Continuous columns are independent of all others, as in :class:`Tree`.

    Parameters
    ----------
    most_table : int
        Size (floats) of the largest table of three or more columns that may arise when columns are summed out. A larger
        one allows more edges and makes evaluations slower. Two columns may have 4 million, if one carries information
        about the other: a key of thousands of values, say.
    """

    most_table: int = 1024
    exact = True
    name = "bayes net"
    bounds: ClassVar = {"most_table": (1, 1 << 24)}

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return _searched(self, rows, plan, most_table=self.most_table)


def _searched(recipe: Recipe, rows: TrainingRows, plan: FitPlan, **limits: int) -> Denoiser:
    """The network of a recipe, with the current graph of the search if the time is over."""
    most_pair = min(PAIR_TABLE, max(1 << 20, PAIRS_TABLE // max(1, len(rows.codebook.finite))))

    def made() -> Denoiser:
        if not len(rows.codebook.finite):
            return rows.marginals
        return BayesNetDenoiser.fit(
            rows.marginals,
            rows.x,
            x_valid=rows.x_valid,
            is_over=plan.clock("the search for a Bayesian network"),
            most_pair=most_pair,
            **limits,
        )

    return rows.once(recipe, made)


# -- forests -----


@dataclass(frozen=True)
class Forest(Recipe):
    r"""A density forest (11): random trees whose leaves are products of all columns, continuous ones too; exact.

    Parameters
    ----------
    n_trees : int
    min_leaf : int, optional
        Fewest rows of a leaf, at least 5. By default held-out rows choose among 5, 10, 20 and so on.

    Notes
    -----
    The first eight trees choose it, and how much leaves are smoothed, by held-out rows; smoothing that is stronger,
    leaves that are larger and smoothing that is weaker are tried as long as they improve. The whole forest is smoothed
    less than these trees, since a mean over more trees errs less. Beside other candidates it is not finished if it
    would have no part in any result, even if the other trees gained as much as the first did over a single one. Leaves
    are larger where they would have very many probabilities. With ``max_time``, one tree is fitted first, and half of
    the forest's time is for the choice.
    """

    n_trees: int = 32
    min_leaf: int | None = None
    exact = mixes_reals = True
    name = "forest"
    bounds: ClassVar = {"n_trees": (1, 1 << 14), "min_leaf": (FEWEST_LEAF_ROWS, math.inf)}

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return rows.once(self, lambda: ForestFit(self, rows, plan).run())


class JudgedForest(NamedTuple):
    """A forest with its held-out ``nats``, the counts of its leaves, their least number of rows and the smoothing."""

    nats: float
    forest: ForestDenoiser
    counts: ForestCounts
    fewest: int
    above: float


class ForestFit:
    """A fit in progress: a few trees, by which leaves and smoothing are chosen, then all trees."""

    def __init__(self, recipe: Forest, rows: TrainingRows, plan: FitPlan) -> None:
        self.recipe, self.rows, self.plan, book = recipe, rows, plan, rows.codebook
        self.x_valid, self.has_gaps = rows.x_valid[:JUDGED_ROWS], bool(book.unknown(rows.x).any())
        # leaves of at most 2^24 floats: a leaf has on average 1.6 times the least number of rows
        n_shared = len(book.lines.opened_ends(book.known_snr)[0])
        numbers = book.levels.n_points + 8 * len(book.reals) + n_shared
        least = math.ceil(recipe.n_trees * len(rows.x) * numbers / (1.6 * (1 << 24)))
        self.fewest = max(recipe.min_leaf or FEWEST_LEAF_ROWS, least)
        # not drawn: the other recipes' random numbers are the same with a forest beside them and without. Forests of
        # several depths in one mixture have trees of their own: they err differently
        seed = (rows.generator.initial_seed() + (recipe.min_leaf or 0)) % (2**31 - 1)
        self.trees = random_trees(book, rows.x, min_leaf=self.fewest, seed=seed)
        self.grown: list[GrownTree] = []

    def run(self) -> Denoiser:
        """The forest; the few trees alone where more would have no voice, or where there is no time for more."""
        plan, n_trees, seconds = self.plan, self.recipe.n_trees, 0.0
        trial, is_bounded = plan.within(TRIAL_SHARE), plan.time_left < math.inf
        n, best = min(PILOT_TREES, n_trees), None
        if is_bounded:  # one tree shows how many there is time for
            best, seconds = self.tried(1)
            n = min(n, int(trial.time_left / (2 * seconds)))
        if best is None or n > 1:
            best, seconds = self.tried(n)
        best, is_cut = self.chosen(best, trial, seconds)
        n, forest = best.forest.n_trees, best.forest
        if n < n_trees and self.has_voice(forest):
            n_more = min(n_trees, int(plan.time_left / seconds)) if is_bounded else n_trees
            is_cut |= n_more < n_trees
            if n_more > n:
                # a mean over more trees errs less: of 32 the best pseudo-count is about a quarter of that of eight
                above = max(best.above / 4, 1.0)
                counts = self.counted(n_more, best.fewest)
                is_cut |= plan.deadline.interrupted
                if not plan.deadline.interrupted:  # else not all rows are counted
                    forest = counts.forest(self.rows.marginals, above)
        if is_cut:
            plan.cut.append("the fit of a forest")
        return forest

    def counted(self, n_trees: int, fewest: int) -> ForestCounts:
        """The rows in the leaves of the first trees, each of at least ``fewest`` rows.

        After Ctrl-C there is no further tree but the first, and no further row is counted.
        """

        def is_over() -> bool:
            return self.plan.deadline.interrupted

        while len(self.grown) < n_trees and not (self.grown and is_over()):
            self.grown.append(next(self.trees))
        splits, given = joined(self.rows.codebook, self.grown, fewest), None
        if self.has_gaps:
            given = responsible(splits, self.rows.marginals, self.rows.x, is_over=is_over)
        return ForestCounts(splits, given).add(self.rows.x, is_over=is_over).cut(fewest)

    def judged(self, counts: ForestCounts, fewest: int, above: float) -> JudgedForest:
        """The forest of these counts and pseudo-count, judged."""
        forest = counts.forest(self.rows.marginals, above)
        nats = -float(forest.log_prob(self.x_valid).mean())
        return JudgedForest(nats, forest, counts, fewest, above)

    def tried(self, n_trees: int) -> tuple[JudgedForest, float]:
        """The first trees with the smallest leaves, and the seconds that each takes."""
        start = self.plan.deadline.age
        best = self.judged(self.counted(n_trees, self.fewest), self.fewest, ABOVE)
        return best, max(self.plan.deadline.age - start, 1e-6) / n_trees

    def chosen(
        self, best: JudgedForest, trial: FitPlan, seconds: float
    ) -> tuple[JudgedForest, bool]:
        """The best that single steps lead to, and whether there was no time for some.

        Each makes the smoothing stronger, leaves larger or the smoothing weaker, as long as this improves, and takes at
        most ``seconds`` for each tree.
        """
        is_smoothed, can_grow = self.rows.codebook.levels.n_points > 0, self.recipe.min_leaf is None
        judged = {(best.fewest, best.above)}
        for larger, factor in ((1, 4.0), (2, 0.25), (2, 1.0), (1, 0.25)):
            while True:
                fewest, above = larger * best.fewest, factor * best.above
                is_possible = factor == 1 or (is_smoothed and 1.0 <= above <= MOST_ABOVE)
                if larger > 1:
                    is_possible &= can_grow and len(best.counts.rows) > best.forest.n_trees
                if not is_possible or (fewest, above) in judged:
                    break
                if trial.time_left < best.forest.n_trees * seconds:
                    return best, True
                judged.add((fewest, above))
                counts = best.counts.cut(fewest) if larger > 1 else best.counts
                other = self.judged(counts, fewest, above)
                if other.nats >= best.nats:
                    break
                best = other
        return best, False

    def has_voice(self, forest: ForestDenoiser) -> bool:
        """Whether more trees may have a voice, if they gain as much as the mean over the first ones did over each."""
        nats, of_trees = -forest.log_prob(self.x_valid), -forest.mean_log_factors(self.x_valid)
        return self.plan.has_voice(nats, 2 * float(nats.mean()) - float(of_trees.sum(1).mean()))


class GrownTree(NamedTuple):
    """A tree of scikit-learn's, on columns numbered by ``columns``, and the rank of every level in it."""

    tree: Any
    columns: list[int]
    rank: np.ndarray


def grow(
    book: Codebook,
    x: Tensor,
    *,
    n_trees: int,
    min_leaf: int,
    seed: int,
    tree: Tensor | None = None,
) -> Splits:
    """The first :func:`random_trees`; each row is for the one tree ``tree`` (N,), or by default for all."""
    trees = random_trees(book, x, min_leaf=min_leaf, seed=seed, tree=tree)
    return joined(book, [*itertools.islice(trees, n_trees)])


def random_trees(
    book: Codebook, x: Tensor, *, min_leaf: int, seed: int, tree: Tensor | None = None
) -> Iterator[GrownTree]:
    """Trees whose splits, the best of a few random ones, lower the variance of random projections of the rows.

    The projections are of standardised cells and indicators of levels, new ones for every tree.

    A missing cell of ``x`` (N, C) is filled, for growing only, with one that the column has in another row; an absent
    one lies below all others. Leaves have at least ``min_leaf`` rows. Each row is for the one tree ``tree`` (N,); by
    default all trees are grown on all rows.
    """
    from sklearn.tree import (
        ExtraTreeRegressor,  # takes longer to import than a small table to score
    )

    rng, n_targets = np.random.default_rng(seed), 8
    levels, finite, reals = book.levels, book.finite.tolist(), book.reals.tolist()
    used = sorted([*finite, *reals])
    n_candidates = max(4, math.ceil(0.35 * len(used)))
    # one random split of the only column would end a tree wherever it leaves a side too few rows; measured on counts of
    # known laws, and of no use to tables of two or three columns
    again = 2 if len(used) == 1 else 1
    table, absent = (t[:, used].cpu().numpy() for t in (x, book.is_absent(x)))
    indicators = set(book.indicator.values())
    for t in itertools.count():
        rank = np.zeros(levels.n_points)
        cells = table if tree is None else table[tree.cpu().numpy() == t]
        missing = np.isnan(cells)
        is_absent = absent if tree is None else absent[tree.cpu().numpy() == t]
        view = np.zeros(cells.shape, dtype=np.float32)
        targets = np.zeros((len(cells), n_targets))
        for i, j in enumerate(used):
            own, points = cells[:, i], book.columns[j]
            gaps = np.flatnonzero(missing[:, i])
            if len(gaps) == len(own):
                continue
            if len(gaps):
                own = own.copy()
                there = own[~missing[:, i]]
                # a cell of which nothing is known counts as present: it has a value below
                own[gaps] = 0.0 if j in indicators else rng.choice(there, len(gaps))
                # beside the least level: a box has a level of every column
                below = there.min() - there.std() if points.kind == "real" else 0.0
                own[missing[:, i] & is_absent[:, i]] = below
            weight = rng.standard_normal((max(1, points.n_points), n_targets))
            if points.kind == "real":
                view[:, i] = own
                targets += np.outer(own / max(float(own.std()), 1e-9), weight)
                continue
            order = np.arange(points.n_points)
            if points.kind == "simplex":
                order = rng.permutation(order)
            codes = own.astype(np.int64)
            rank[levels.own(book.place[j])] = order
            view[:, i] = order[codes]
            targets += weight[codes]
        grown = ExtraTreeRegressor(
            max_features=min(n_candidates, again * len(used)),
            min_samples_leaf=min_leaf,
            max_depth=48,  # a few long branches would cost every row their time
            random_state=int(rng.integers(2**31 - 1)),
        )
        tree_ = grown.fit(np.tile(view, again), targets, check_input=False).tree_
        yield GrownTree(tree_, used * again, rank)


def joined(book: Codebook, trees: Sequence[GrownTree], fewest: int = 1) -> Splits:
    """The splits of trees whose nodes have at least ``fewest`` of the rows that the trees were grown on."""
    column, threshold, n_rows = (torch.from_numpy(t) for t in breadth_first(trees))
    place = torch.nonzero(torch.isin(column, book.reals.cpu())).flatten()
    which = torch.searchsorted(book.reals.cpu(), column[place])
    # between two recorded numbers, so that no cell is split
    threshold[place] = book.lines.edges(threshold[place], which)
    rank = torch.from_numpy(np.stack([tree.rank for tree in trees]))
    splits = Splits(book, column, threshold, rank)
    if int(n_rows.min()) >= fewest:
        return splits
    return splits.cut(n_rows.to(splits.column.device), fewest)[0]


def breadth_first(trees: Sequence[GrownTree]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns (-1 at leaves), thresholds and numbers of rows of the trees' nodes in the order of :class:`Splits`."""
    nodes, columns = [t.tree for t in trees], np.array(trees[0].columns)
    start = np.cumsum([0, *(tree.node_count for tree in nodes)])
    left, right = (
        np.concatenate([getattr(tree, side) + at for tree, at in zip(nodes, start, strict=False)])
        for side in ("children_left", "children_right")
    )
    column, threshold, n_rows = (
        np.concatenate([getattr(tree, name) for tree in nodes])
        for name in ("feature", "threshold", "n_node_samples")
    )
    level, order = start[:-1], []
    while len(level):
        order.append(level)
        inner = level[column[level] >= 0]
        level = np.stack([left[inner], right[inner]], 1).ravel()
    order = np.concatenate(order)
    is_leaf = column[order] < 0
    column = np.where(is_leaf, -1, columns[column[order].clip(0)])
    return column, np.where(is_leaf, 0.0, threshold[order]), n_rows[order]


# -- the base of a network -----


EXACT: dict[str, Recipe] = {
    "independent": Independent(),
    "tree": Tree(),
    "mixture": Mixture(),
    "bayes_net": BayesNet(),
    "forest": Forest(),
}


def exact_base(base: str | Recipe) -> Recipe:
    """The recipe, checked, of an exact denoiser that a network is to correct; ValueError if it is none."""
    found = EXACT.get(base) if isinstance(base, str) else base
    if isinstance(found, type) or not isinstance(found, Recipe) or not found.exact:
        raise ValueError(f"base must be 'auto' or an exact denoiser, got {base!r}")
    return found.check()


def choose_base(
    base: str | Recipe,
    rows: TrainingRows,
    plan: FitPlan,
    net: Recipe = BayesNet(),
) -> Denoiser:
    """The exact denoiser that a network corrects; for "auto", the candidate that predicts held-out rows best.

    ``net`` is the candidate among Bayesian networks.
    """
    if base != "auto":
        return exact_base(base).fit_base(rows, plan)

    def made(recipe: Recipe) -> Denoiser:
        rows.held_out(fitted := recipe.fit_base(rows, plan))
        return fitted

    found: list[Denoiser] = [rows.marginals]
    for recipe in affordable_bases(rows, net):
        fitted = rows.attempt(recipe, recipe.label, partial(made, recipe))
        if fitted is not None:
            found.append(fitted)
    return min(found, key=rows.held_out_nats)


def affordable_bases(rows: TrainingRows, net: Recipe) -> list[Recipe]:
    """Recipes of the exact denoisers that are quickly fitted to a table, the quickest first, including ``net``."""
    levels = rows.codebook.levels
    pairs = np.outer(levels.cardinalities, levels.cardinalities)
    n_counted = int(np.triu(np.minimum(pairs, len(rows.x)), 1).sum())
    if levels.n_columns < 2 or n_counted > MOST_COUNTED:
        return [Independent()]
    return [Independent(), Tree(), net]
