"""Recipes of exact denoisers, and the base that a network corrects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from discrete_itd.denoisers import (
    BayesNetDenoiser,
    Denoiser,
    MarginalDenoiser,
)
from discrete_itd.models.contract import FitPlan, Recipe, TrainingRows
from discrete_itd.models.decoder_mixture import Mixture
from discrete_itd.models.forest import Forest

MOST_PAIR = 1 << 20  # most floats of the table of an edge of a tree
# base="auto" fits a tree with at most so many numbers in its tables, and a Bayesian network with at most so many
# columns and so much work per call, in which it sums its columns out
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

    It is a Bayesian network in which no column has two parents. Held-out rows choose the price of its parameters and
    its pseudo-count. Continuous columns are independent of all others.
    """

    exact = True
    name = "tree"

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return _searched(self, rows, plan, most_parents=1, most_table=MOST_PAIR)


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
        return _searched(self, rows, plan, most_table=self.most_table)


def _searched(recipe: Recipe, rows: TrainingRows, plan: FitPlan, **limits: int) -> Denoiser:
    """The network of a recipe, with the current graph of the search if the time is over."""

    def made() -> Denoiser:
        if not len(rows.codebook.finite):
            return rows.marginals
        return BayesNetDenoiser.fit(
            rows.marginals,
            rows.x,
            x_valid=rows.x_valid,
            is_over=plan.clock("the search for a Bayesian network"),
            **limits,
        )

    return rows.once(recipe, made)


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
    if levels.n_columns < 2 or n_table > TREE_TABLE:
        return [Independent()]
    if levels.n_columns > BASE_COLUMNS:
        return [Independent(), Tree()]
    return [Independent(), Tree(), net]
