"""Recipes of exact models: independent columns, trees, Bayesian networks and density forests (11).

Of a forest only the splits come from scikit-learn: a column and a threshold for each node. All probabilities are
counted from the rows afterwards (``ForestCounts`` in :mod:`discrete_itd.denoisers.forest`), so that another library
could grow the trees without changing the definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import BayesNetDenoiser, Denoiser, ForestDenoiser, MarginalDenoiser
from discrete_itd.denoisers.forest import ABOVE, ForestCounts, Splits, responsible
from discrete_itd.models.decoder_mixture import Mixture
from discrete_itd.models.fitting import FitPlan, Recipe
from discrete_itd.models.held_out import TrainingRows

# base="auto" fits a Bayesian network with tables of at most so many floats, and so much work per call, in which it sums
# its columns out
BASE_TABLE, BASE_WORK = 256, 1 << 13
# A table of two columns may have PAIR_TABLE floats, and those of all pairs of a tree PAIRS_TABLE (or a million each):
# a key of 4096 values can then decide a column of a thousand.
PAIR_TABLE, PAIRS_TABLE = 1 << 22, 1 << 24
MOST_COUNTED = 1 << 26  # counts of pairs of levels, beyond which "auto" fits no tree
FEWEST_LEAF_ROWS = 5  # a leaf of a forest has at least so many
# held-out rows choose the pseudo-count of the node above a leaf from ABOVE and LEAF_ABOVE; in a table with a column of
# more than WIDE_LEVELS levels, to which these give next to nothing, from WIDE_ABOVE, too
LEAF_ABOVE, WIDE_ABOVE, WIDE_LEVELS = (1.0, 16.0), (64.0, 256.0, 1024.0), 64
# share of a forest's time for growing, counting and judging its trees once; the rest is for other sizes and smoothings
TREES_SHARE = 0.5


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
        Rows of a leaf, at least 5. By default held-out rows choose among 5, 10, 20 and so on: larger numbers are tried
        as long as they improve.

    Notes
    -----
    Held-out rows also choose how much the leaves are smoothed. Leaves are larger where they would have very many
    probabilities. With ``max_time``, one tree is fitted first, and there are as many as take half of the forest's time;
    what is tried of leaves and smoothing ends with it.
    """

    n_trees: int = 32
    min_leaf: int | None = None
    exact = mixes_reals = True
    name = "forest"
    bounds: ClassVar = {"n_trees": (1, 1 << 14), "min_leaf": (FEWEST_LEAF_ROWS, math.inf)}

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return rows.once(self, partial(self._fitted, rows, plan))

    def _fitted(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        book, what = rows.codebook, "the fit of a forest"
        x_valid, seconds = rows.x_valid[:4096], 0.0

        def judged(counts: ForestCounts, above: float) -> tuple[float, ForestDenoiser]:
            nonlocal seconds
            before = plan.deadline.age
            forest = counts.forest(rows.marginals, above)
            nats = -float(forest.log_prob(x_valid).mean())
            seconds = plan.deadline.age - before
            return nats, forest

        def fitted(n_trees: int) -> tuple[ForestCounts, tuple[float, ForestDenoiser]]:
            how = {"min_leaf": fewest, "seed": seed, "is_over": plan.clock(what)}
            splits, given = grow(book, rows.x, n_trees=n_trees, **how), None
            if bool(book.unknown(rows.x).any()):
                given = responsible(splits, rows.marginals, rows.x)
            counts = ForestCounts(splits, given).add(rows.x).cut(fewest)
            return counts, judged(counts, ABOVE)

        def has_time() -> bool:
            if plan.time_left > seconds:
                return True
            plan.cut.append(what)
            return False

        # leaves of at most 2^24 floats: a leaf has on average 1.6 times the least number of rows
        n_shared = len(book.lines.opened_ends(book.known_snr)[0])
        numbers = book.levels.n_points + 8 * len(book.reals) + n_shared
        least = math.ceil(self.n_trees * len(rows.x) * numbers / (1.6 * (1 << 24)))
        fewest = max(FEWEST_LEAF_ROWS if self.min_leaf is None else self.min_leaf, least)
        # not drawn: the other recipes' random numbers are the same with a forest beside them and without. Forests of
        # several depths in one mixture have trees of their own: they err differently
        seed = (rows.generator.initial_seed() + (self.min_leaf or 0)) % (2**31 - 1)
        start, n_trees = plan.deadline.age, self.n_trees
        counts, best = fitted(n_trees if plan.time_left == math.inf else 1)
        if counts.splits.n_trees < self.n_trees:
            of_tree = max(plan.deadline.age - start, 1e-6)
            n_trees = min(self.n_trees, int(TREES_SHARE * plan.time_left / of_tree))
            if n_trees < self.n_trees:
                plan.cut.append(what)
            if n_trees > 1:
                counts, best = fitted(n_trees)
        while self.min_leaf is None and counts.splits.n_nodes > n_trees and has_time():
            fewest *= 2
            shallower = counts.cut(fewest)
            other = judged(shallower, ABOVE)
            if not other[0] < best[0]:
                break
            best, counts = other, shallower
        levels = max(book.levels.cardinalities, default=0)
        for above in (*LEAF_ABOVE, *(WIDE_ABOVE if levels > WIDE_LEVELS else ())) if levels else ():
            if has_time():
                best = min(best, judged(counts, above), key=lambda candidate: candidate[0])
        return best[1]


def grow(
    book: Codebook,
    x: Tensor,
    *,
    n_trees: int,
    min_leaf: int,
    seed: int,
    tree: Tensor | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Splits:
    """Trees whose splits, the best of a few random ones, lower the variance of random projections of the rows.

    The projections are of standardised cells and indicators of levels, new ones for every tree.

    A missing cell of ``x`` (N, C) is filled, for growing only, with one that the column has in another row; an absent
    one lies below all others. Leaves have at least ``min_leaf`` rows. Each row is for the one tree ``tree`` (N,); by
    default all trees are grown on all rows. There are fewer than ``n_trees``, at least one, if the time ``is_over``
    before.
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
    trees, ranks = [], np.zeros((n_trees, levels.n_points))
    for t in range(n_trees):
        if trees and is_over():
            break
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
            ranks[t, levels.own(book.place[j])] = order
            view[:, i] = order[codes]
            targets += weight[codes]
        grown = ExtraTreeRegressor(
            max_features=min(n_candidates, again * len(used)),
            min_samples_leaf=min_leaf,
            max_depth=48,  # a few long branches would cost every row their time
            random_state=int(rng.integers(2**31 - 1)),
        )
        trees.append(grown.fit(np.tile(view, again), targets, check_input=False).tree_)
    column, threshold = breadth_first(trees)
    column = torch.from_numpy(np.where(column < 0, -1, np.array(used * again)[column.clip(0)]))
    threshold = torch.from_numpy(threshold)
    at = torch.nonzero(torch.isin(column, book.reals.cpu())).flatten()
    place = torch.searchsorted(book.reals.cpu(), column[at])
    # between two recorded numbers, so that no cell is split
    threshold[at] = book.lines.edges(threshold[at], place)
    return Splits(book, column, threshold, torch.from_numpy(ranks[: len(trees)]))


def breadth_first(trees: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Columns (-1 at leaves) and thresholds of the nodes of scikit-learn's trees in the order of :class:`Splits`."""
    start = np.cumsum([0, *(tree.node_count for tree in trees)])
    left, right = (
        np.concatenate([getattr(tree, side) + at for tree, at in zip(trees, start, strict=False)])
        for side in ("children_left", "children_right")
    )
    column = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    level, order = start[:-1], []
    while len(level):
        order.append(level)
        inner = level[column[level] >= 0]
        level = np.stack([left[inner], right[inner]], 1).ravel()
    order = np.concatenate(order)
    is_leaf = column[order] < 0
    return np.where(is_leaf, -1, column[order]), np.where(is_leaf, 0.0, threshold[order])


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
    most_work: float = math.inf,
) -> Denoiser:
    """The exact denoiser that a network corrects; for "auto", the candidate that predicts held-out rows best.

    ``net`` is the candidate among Bayesian networks, if a call of it computes at most ``most_work`` floats for a row.
    """
    if base != "auto":
        return exact_base(base).fit_base(rows, plan)

    def made(recipe: Recipe) -> Denoiser:
        rows.held_out(fitted := recipe.fit_base(rows, plan))
        return fitted

    found: list[Denoiser] = [rows.marginals]
    for recipe in affordable_bases(rows, net):
        fitted = rows.attempt(recipe, recipe.label, partial(made, recipe))
        if fitted is not None and (recipe != net or getattr(fitted, "work", 0) <= most_work):
            found.append(fitted)
    return min(found, key=rows.held_out_nats)


def affordable_bases(rows: TrainingRows, net: Recipe) -> list[Recipe]:
    """Recipes of the exact denoisers that are quickly fitted to a table, the quickest first, including ``net``."""
    levels = rows.codebook.levels
    pairs = np.outer(levels.cardinalities, levels.cardinalities)
    n_counted = int(np.triu(np.minimum(pairs, len(rows.x)), 1).sum())
    if levels.n_columns < 2 or n_counted > MOST_COUNTED:
        return [Independent()]
    if levels.n_columns > 64:
        return [Independent(), Tree()]
    return [Independent(), Tree(), net]
