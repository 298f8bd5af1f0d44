"""Recipes of exact denoisers, and the base that a network corrects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

from discrete_itd.denoisers import (
    BayesNetDenoiser,
    Denoiser,
    ForestDenoiser,
    MarginalDenoiser,
)
from discrete_itd.denoisers.bayes_net import PAIRED_LEVELS
from discrete_itd.denoisers.counts import pair_counts
from discrete_itd.denoisers.forest_fit import ABOVE, ForestCounts, responsible
from discrete_itd.models.contract import FitPlan, Recipe, TrainingRows
from discrete_itd.models.forest_trees import grow
from discrete_itd.models.mixture import Mixture
from discrete_itd.progress import Deadline, estimated
from discrete_itd.training.row_sources import TensorRows
from discrete_itd.validation import check_positive, check_real

MOST_TREES = 1 << 14  # of a forest
PSEUDO_COUNTS = (0.3, 1.0, 3.0, 10.0)  # held-out rows choose among these for the tables of a tree
PENALTY = 2.0  # nats that each parameter of a tree's edges costs: twice Akaike's
# a leaf of a forest has at least so many rows; held-out rows choose the pseudo-counts of the node above that it gets
FEWEST_LEAF_ROWS = 5
ABOVE_LEAF = (ABOVE, 1.0, 16.0)
MOST_PROBS = 1 << 24  # floats that all leaves of a forest may take
# a leaf has so many times the least number of rows on average; and so many floats for each continuous column
FILLING, NUMBERS_OF_REAL = 1.6, 8
GROWING_SHARE = (
    0.5  # of the time of a forest; counting rows in the leaves takes as long as growing trees
)
TREE_TRIAL_ROWS = 1024  # the time of fitting a tree of columns is measured on so many rows
CHOICE_ROWS = 4096  # most held-out rows by which the depth of a forest is chosen
# base="auto" fits a tree with at most so many levels and numbers in its tables, and a Bayesian network with at most so
# many columns and so much work per call, in which it sums its columns out
TREE_TABLE = 1 << 24
BASE_TABLE, BASE_COLUMNS, BASE_WORK = 256, 64, 1 << 13


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

    It is a Bayesian network in which no column has two parents. Held-out rows choose its pseudo-count. Continuous
    columns are independent of all others.
    """

    exact = True
    name = "tree"

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        left = math.inf if rows.has(self) else plan.time_left
        if left < math.inf and estimated(lambda: self.seconds_needed(rows)) > left:
            plan.run.left_out.append(self.label)
            return rows.marginals
        return rows.once(self, lambda: min(self.candidates(rows), key=rows.held_out_nats))

    def seconds_needed(self, rows: TrainingRows) -> float:
        """Seconds of a fit to all rows, by that of a single tree to a few."""
        if not len(rows.codebook.finite):
            return 0.0
        x, deadline = rows.x[:TREE_TRIAL_ROWS], Deadline()
        counts = pair_counts(rows.codebook, x)
        counted = deadline.age
        BayesNetDenoiser.fit_tree(rows.marginals, x, counts=counts, penalty=PENALTY)
        of_tree = deadline.age - counted
        return counted * rows.n_rows / len(x) + len(PSEUDO_COUNTS) * of_tree

    def candidates(self, rows: TrainingRows) -> Iterator[Denoiser]:
        if not len(rows.codebook.finite):
            yield rows.marginals
            return
        counts = rows.source.pair_counts(rows.codebook)
        for a in PSEUDO_COUNTS:
            yield BayesNetDenoiser.fit_tree(
                rows.marginals, rows.x, pseudo_count=a, counts=counts, penalty=PENALTY
            )


@dataclass(frozen=True)
class BayesNet(Recipe):
    """A Bayesian network found by hill climbing, over the category columns; exact.

    Continuous columns are independent of all others, as in :class:`Tree`.

    Parameters
    ----------
    most_table : int
        Size (floats) of the largest table that may arise when columns are summed out. A larger one allows more edges
        and makes evaluations slower.
    """

    most_table: int = 1024
    exact = True
    name = "bayes net"
    bounds: ClassVar = {"most_table": (1, 1 << 24)}

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        def made() -> Denoiser:
            """The network, with the current graph of the search if the time is over."""
            if not len(rows.codebook.finite):
                return rows.marginals
            return BayesNetDenoiser.fit(
                rows.marginals,
                rows.x,
                x_valid=rows.x_valid,
                most_table=self.most_table,
                parts=rows.source.chunks(),
                is_over=plan.clock("the search for a Bayesian network"),
            )

        return rows.once(self, made)


@dataclass(frozen=True)
class Forest(Recipe):
    r"""A density forest (11): random trees whose leaves are products of all columns, continuous ones too; exact.

    Parameters
    ----------
    n_trees : int
    min_leaf : int, optional
        Rows of a leaf, at least 5. By default held-out rows choose among 5, 10, 20 and so on: larger numbers are tried
        as long as they improve.
    epsilon : float, optional
        Makes the fit differentially private: for tables of which one has one row more than the other, the probability
        of any result differs at most by the factor :math:`e^\varepsilon`, (16) of
        :mod:`discrete_itd.denoisers.private_forest`, which has the proof. ``min_leaf`` is then not for you to choose,
        and there are at most ``n_trees``.

    Notes
    -----
    With ``epsilon`` the fit is a function of noisy counts and of what you declare. ``column_types`` must list the
    categories, or the edges of bins, of every column; values outside count for a level of their own. Names of columns
    are public, their dtypes are not looked at; the number of rows is private, too: what a model says of it is noisy.
    Nothing else reads the rows: "held-out" nats are of rows drawn from the private model. A detector refuses the
    recipe, as it keeps the scores of calibration rows. The noise is drawn by the operating system. With a
    ``random_state`` it follows from this seed instead, and the model is private only as long as nobody else knows the
    seed, which the model keeps: a warning says so. Two fits to one table take twice the ``epsilon``, and so does every
    choice by what an earlier fit gave. Errors and warnings of a fit are for whoever holds the table. The recipe is for
    a table in memory, alone: not in a list of recipes, as the base of a network, with weights or groups, nor for
    ``partial_fit``.

    Held-out rows also choose how much the leaves are smoothed. In a table larger than memory, trees are grown on a
    sample and counted in all rows. Leaves are larger where they would have more than ``MOST_PROBS`` probabilities.
    """

    n_trees: int = 32
    min_leaf: int | None = None
    epsilon: float | None = None
    exact = mixes_reals = True
    name = "forest"
    bounds: ClassVar = {"n_trees": (1, MOST_TREES), "min_leaf": (FEWEST_LEAF_ROWS, math.inf)}

    def check(self) -> Recipe:
        super().check()
        if self.epsilon is not None:
            check_positive("epsilon", self.epsilon)
            check_real("epsilon", self.epsilon)
            if self.min_leaf is not None:
                raise ValueError(
                    "min_leaf and epsilon exclude each other: epsilon decides on the leaves"
                )
        return self

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        if self.epsilon is not None and not rows.has(self):
            raise ValueError(
                f"{self}: what is fitted beside it is not private; give it alone as denoiser"
            )
        return rows.once(self, partial(self.fitted, rows, plan))

    def fitted(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        book, what = rows.codebook, "the fit of a forest"
        is_grown, is_over = (p.clock(what) for p in (plan.within(GROWING_SHARE), plan))
        x_valid = rows.x_valid[:CHOICE_ROWS]
        best, least = None, math.inf

        def nats(forest: ForestDenoiser) -> float:
            return -float(forest.log_prob(x_valid).mean())

        def is_better(forest: ForestDenoiser) -> bool:
            nonlocal best, least
            own = nats(forest)
            if best is None or own < least:
                best, least = forest, own
            return best is forest

        fewest = self._fewest(rows)
        counts = self.counted(rows, is_grown).cut(fewest)
        is_better(counts.forest(rows.marginals, ABOVE_LEAF[0]))
        while self.min_leaf is None and not is_over() and counts.splits.n_nodes > self.n_trees:
            fewest *= 2
            shallower = counts.cut(fewest)
            if not is_better(shallower.forest(rows.marginals, ABOVE_LEAF[0])):
                break
            counts = shallower
        for other in ABOVE_LEAF[1:] if len(book.finite) else ():
            is_better(counts.forest(rows.marginals, other))
        return cast(Denoiser, best)

    def counted(
        self, rows: TrainingRows, is_over: Callable[[], bool] = lambda: False
    ) -> ForestCounts:
        """Trees with the counts of all rows; for rows that cannot be read again, the earlier counts.

        At least one tree is grown before the time ``is_over``.
        """
        if (before := getattr(rows.source, "leaves", None)) is not None:
            return before
        # not drawn: the other recipes' random numbers are the same with a forest beside them and without. Forests of
        # several depths in one mixture have trees of their own: they err differently
        seed = (rows.generator.initial_seed() + (self.min_leaf or 0)) % (2**31 - 1)
        fewest = max(FEWEST_LEAF_ROWS, math.ceil(self._fewest(rows) * len(rows.x) / rows.n_rows))
        how = {"n_trees": self.n_trees, "min_leaf": fewest, "seed": seed, "is_over": is_over}
        splits, given = grow(rows.codebook, rows.x, **how), None
        if not isinstance(rows.source, TensorRows) or bool(splits.unknown(rows.x).any()):
            given = responsible(splits, rows.marginals, rows.x)
        counts = ForestCounts(splits, given)
        for chunk in rows.source.chunks():
            counts.add(chunk)
        return counts

    def _fewest(self, rows: TrainingRows) -> int:
        """Least number of rows of a leaf with which the leaves have at most ``MOST_PROBS`` probabilities."""
        book = rows.codebook
        numbers = book.levels.n_points + NUMBERS_OF_REAL * len(book.reals)
        most = math.ceil(self.n_trees * rows.n_rows * numbers / (FILLING * MOST_PROBS))
        return max(FEWEST_LEAF_ROWS if self.min_leaf is None else self.min_leaf, most)


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
    n_table = levels.n_columns * max(levels.cardinalities, default=1) ** 2
    if levels.n_columns < 2 or levels.n_points > PAIRED_LEVELS or n_table > TREE_TABLE:
        return [Independent()]
    if levels.n_columns > BASE_COLUMNS:
        return [Independent(), Tree()]
    return [Independent(), Tree(), net]
