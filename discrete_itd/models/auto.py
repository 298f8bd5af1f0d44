"""Recipes that choose among others: what "auto" and "best" try, and mixtures of rows; and the names of all recipes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from discrete_itd.models.comparison import CandidateTable
from discrete_itd.models.decoder_mixture import Mixture
from discrete_itd.models.exact import EXACT, BayesNet, Forest, affordable_bases
from discrete_itd.models.fitting import MOST_NETWORKS, FitPlan, Fitted, Recipe
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.models.networks import (
    QUICK_MIXTURE,
    Causal,
    Network,
)

# causal networks of "best", in turn: members of a mixture of rows that err differently are worth more
VARIED: tuple[Recipe, ...] = (Causal(), Causal(base="independent", dropout=0.5))
LARGE_MIXTURE = Mixture(8192)  # of "best"
# shares of the time left that each exact model, and the mixture, may take: the rest is for causal networks
BASE_SHARE, MIXTURE_SHARE = 0.3, 0.25


def checked_members(members: Any) -> tuple[Recipe, ...]:
    """The recipes of members, each checked; TypeError or ValueError naming the invalid member."""
    if not isinstance(members, list | tuple):
        raise TypeError(f"members must be a tuple of recipes, got {members!r}")
    if not 1 <= len(members) <= MOST_NETWORKS:
        raise ValueError(f"a mixture of rows has 1 to {MOST_NETWORKS} members, got {len(members)}")
    made = []
    for i, member in enumerate(members):
        try:
            made.append(recipe(member))
            if isinstance(made[i], RowMixture):
                raise ValueError("a member of a mixture of rows cannot be one itself")
            if isinstance(made[i], Network):
                raise ValueError("a network that conditions on all columns has no closed form")
        except (TypeError, ValueError) as error:
            raise type(error)(f"member {i}: {error}") from None
    return tuple(made)


@dataclass(frozen=True)
class RowMixture(Recipe):
    """A mixture of whole rows (10), whose weights are fitted to held-out rows; each member is fitted by itself.

    Parameters
    ----------
    members : tuple of names or recipes
        Each of a denoiser with a closed form. Those that get no weight are left out.
    """

    members: tuple[Any, ...] = (Causal(), Causal(), "mixture", BayesNet())
    trains = True
    name = "mixture of rows"

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Fitted:
        table, recipes = CandidateTable(rows), [recipe(member) for member in self.members]
        n_networks, done = sum(one.trains for one in recipes), 0
        for one in recipes:
            table.fit(one, plan.part(done, n_networks) if one.trains else plan)
            done += one.trains
        return table.settle(table.add(table.mixture()))

    def check(self) -> RowMixture:
        return RowMixture(checked_members(self.members))


@dataclass(frozen=True)
class Auto(Recipe):
    """The cheapest of several models whose held-out nats are within one paired standard error of the best.

    Candidates are the exact models that a network can correct, a forest (11), a causal network (8) on the best of the
    first, a mixture of products (9), and mixtures of rows (10) of these. With ``max_steps=0`` no network is trained,
    nor for a table with so many levels that it would be huge. Where ``max_time`` is short, the mixture may take a
    quarter of the remaining time; the causal network has the rest. Models without time for enough steps to be evaluated
    are not begun.

    Whichever is chosen, the forest, the network and the mixture of products take part in the anomaly score.
    """

    trains = True
    name = "several models"

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Fitted:
        table = CandidateTable(rows)
        for base in affordable_bases(rows, BayesNet()):
            table.attempt(base, plan.within(BASE_SHARE))
        table.attempt(Forest(), plan.within(BASE_SHARE), scores=True)
        if plan.training.max_steps:
            table.attempt(QUICK_MIXTURE, plan.within(MIXTURE_SHARE), scores=True)
            if Causal().is_affordable(rows):
                table.attempt(Causal(), replace(plan, is_beside_mixture=True), scores=True)
        table.add_mixtures()
        return table.settle(table.cheapest())


@dataclass(frozen=True)
class Best(Recipe):
    """The lowest held-out nats for the time allowed: a mixture of rows (10) of exact models and causal networks.

    Networks are of two kinds in turn, which correct the best base and independent columns.

    Parameters
    ----------
    n_orders : int
        Causal networks; fewer if ``max_time`` is over before.
    """

    n_orders: int = 8
    trains = True
    name = "several models"
    bounds: ClassVar = {"n_orders": (1, MOST_NETWORKS)}

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Fitted:
        table = CandidateTable(rows)
        forests = Forest(), Forest(min_leaf=5), Forest(min_leaf=60)
        for member in (*affordable_bases(rows, BayesNet()), *forests):
            table.attempt(member, plan.within(BASE_SHARE))
        if plan.training.max_steps:
            table.attempt(LARGE_MIXTURE, plan.within(MIXTURE_SHARE))
        later = replace(plan, is_beside_mixture=True)
        trains = plan.training.max_steps and Causal().is_affordable(rows)
        for i in range(self.n_orders if trains else 0):
            if plan.time_left:
                table.attempt(VARIED[i % len(VARIED)], later.part(i, self.n_orders))
        return table.settle(table.add(table.mixture()))


Name = Literal[
    "auto", "best", "network", "causal", "row_mixture",
    "independent", "tree", "bayes_net", "forest", "mixture",
]  # fmt: skip
NAMES: dict[str, Recipe] = {
    "auto": Auto(),
    "best": Best(),
    "network": Network(),
    "causal": Causal(),
    "row_mixture": RowMixture(),
    **EXACT,
}


def recipe(denoiser: Any) -> Recipe:
    """The recipe for a name, a recipe or a list of these, checked.

    A TypeError or ValueError describes an invalid one.

    Examples
    --------
    >>> recipe("tree"), recipe(["tree", "bayes_net"]).members
    (Tree(), (Tree(), BayesNet(most_table=1024)))
    """
    if isinstance(denoiser, str) and denoiser not in NAMES:
        raise ValueError(f"denoiser must be one of {tuple(NAMES)} or a recipe, got {denoiser!r}")
    made = NAMES[denoiser] if isinstance(denoiser, str) else denoiser
    if isinstance(made, list | tuple):
        made = RowMixture(tuple(made))
    if isinstance(made, type) or not isinstance(made, Recipe):
        raise TypeError(f"denoiser must be one of {tuple(NAMES)} or a recipe, got {denoiser!r}")
    return made.check()
