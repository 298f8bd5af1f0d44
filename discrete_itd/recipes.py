"""Recipes: which denoiser to fit, as a value that an estimator can hold, compare, copy and save, and that fits itself.

A name stands for a recipe with its defaults: ``"auto"``, ``"network"`` and ``"mlp"`` for :class:`Network`,
``"independent"``, ``"tree"``, ``"trees"``, ``"bayes_net"``, ``"mixture"`` and ``"ensemble"`` for the others; a list of
names and recipes stands for an :class:`Ensemble` of them. A recipe of one's own inherits from :class:`Recipe`.

One-hot groups (columns with two categories, of which at most one is "on" in a row, like the indicators of one
categorical column) are found and, in trees, mixtures and Bayesian networks, merged into one categorical column where
this improves the held-out log-likelihood. A mixture with merged columns leaves continuous columns independent.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from functools import partial
from typing import Any

import numpy as np

from discrete_itd.denoisers import (
    BayesNetDenoiser,
    Denoiser,
    MarginalDenoiser,
    MixtureDenoiser,
    NeuralDenoiser,
    TreeDenoiser,
)
from discrete_itd.denoisers.tree import MOST_LEVELS
from discrete_itd.models.contract import FitPlan, Recipe, TrainingRows
from discrete_itd.models.members import fit_ensemble
from discrete_itd.validation import check_integer

__all__ = [
    "BayesNet",
    "Ensemble",
    "Independent",
    "Mixture",
    "Network",
    "Recipe",
    "Trees",
    "recipe",
]

MOST_COMPONENTS = 1 << 14
MOST_MEMBERS = 64
PSEUDO_COUNTS = (0.3, 1.0, 3.0, 10.0)  # of a tree, among which held-out rows choose
FEWEST_CLASSES, CLASS_FACTOR, MOST_CLASSES = 16, 4, 1024  # of a mixture of products, likewise
# base="auto" fits a tree with at most so many levels and numbers in its tables, and a Bayesian network with at most so
# many columns and so much work per call, in which it sums its columns out
TREE_TABLE = 1 << 24
BASE_TABLE, BASE_COLUMNS, BASE_WORK = 256, 64, 1 << 13


@dataclass(frozen=True)
class Independent(Recipe):
    """Independent columns: smoothed frequencies, and mixtures of Gaussians for continuous columns."""

    exact = True

    def fit(self, rows: TrainingRows, plan: FitPlan) -> MarginalDenoiser:
        return rows.marginals

    @property
    def label(self) -> str:
        return "independent"


@dataclass(frozen=True)
class Trees(Recipe):
    """A Chow-Liu tree, or a mixture of trees, over the columns that are not high-cardinality or continuous; exact.

    Parameters
    ----------
    n_components : int
        Number of trees. The pseudo-count of a single tree is chosen by held-out rows.
    """

    n_components: int = 1
    exact = True

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return rows.once(self, lambda: rows.best(self.candidates))

    def candidates(self, rows: TrainingRows) -> Iterator[Denoiser]:
        """Trees with different pseudo-counts, or one mixture of trees."""
        if not len(rows.codebook.finite):
            yield rows.marginals
        elif self.n_components == 1:
            for a in PSEUDO_COUNTS:
                yield TreeDenoiser.fit(rows.marginals, rows.x, pseudo_count=a)
        else:
            yield TreeDenoiser.fit(
                rows.marginals,
                rows.x,
                n_components=min(self.n_components, len(rows.x)),
                x_valid=rows.x_valid,
                generator=rows.generator,
            )

    def check(self) -> Trees:
        check_integer("n_components", self.n_components, 1, MOST_COMPONENTS)
        return self

    @property
    def label(self) -> str:
        return "tree" if self.n_components == 1 else f"{self.n_components} trees"


@dataclass(frozen=True)
class Mixture(Recipe):
    """A mixture of products (latent classes); exact.

    Parameters
    ----------
    n_components : int, optional
        Latent classes. By default held-out rows choose among 16, 64, 256 and 1024, as far as there are four rows for
        each class: larger numbers are tried as long as they improve.
    """

    n_components: int | None = None
    exact = True

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return rows.once(self, lambda: rows.best(self.candidates))

    def fit_base(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        """A mixture in which continuous columns are independent."""
        if not len(rows.codebook.reals):
            return self.fit(rows, plan)
        candidates = partial(self.candidates, with_reals=False)
        return rows.once((self, "base"), lambda: rows.best(candidates))

    def candidates(
        self, rows: TrainingRows, *, with_reals: bool = True
    ) -> Iterator[MixtureDenoiser]:
        """Mixtures with different numbers of classes.

        Parameters
        ----------
        rows : TrainingRows
        with_reals : bool
            Whether continuous columns depend on the class.
        """

        def mixture(n: int) -> MixtureDenoiser:
            return MixtureDenoiser.fit(
                rows.marginals,
                rows.x,
                n_components=n,
                x_valid=rows.x_valid,
                generator=rows.generator,
                with_reals=with_reals,
            )

        if self.n_components is not None:
            yield mixture(self.n_components)
            return
        best = rows.held_out_nats(first := mixture(FEWEST_CLASSES))
        yield first
        n = FEWEST_CLASSES * CLASS_FACTOR
        while n <= min(MOST_CLASSES, len(rows.x) // 4):
            larger = mixture(n)
            yield larger
            nats = rows.held_out_nats(larger)
            if nats >= best:
                break
            best, n = nats, n * CLASS_FACTOR

    def check(self) -> Mixture:
        if self.n_components is not None:
            check_integer("n_components", self.n_components, 1, MOST_COMPONENTS)
        return self

    @property
    def label(self) -> str:
        return "mixture" if self.n_components is None else f"mixture of {self.n_components}"


@dataclass(frozen=True)
class BayesNet(Recipe):
    """A Bayesian network found by hill climbing, over the same columns as :class:`Trees`; exact.

    Parameters
    ----------
    most_table : int
        Size (floats) of the largest table that may arise when columns are summed out. A larger one allows more edges
        and makes evaluations slower.
    """

    most_table: int = 1024
    exact = True

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return rows.once(self, lambda: rows.best(self.candidates))

    def candidates(self, rows: TrainingRows) -> Iterator[Denoiser]:
        if not len(rows.codebook.finite):
            yield rows.marginals
        else:
            yield BayesNetDenoiser.fit(
                rows.marginals, rows.x, x_valid=rows.x_valid, most_table=self.most_table
            )

    def check(self) -> BayesNet:
        check_integer("most_table", self.most_table, 1, 1 << 24)
        return self

    @property
    def label(self) -> str:
        return "bayes net"


@dataclass(frozen=True)
class Network(Recipe):
    """A neural network that corrects an exact base.

    Parameters
    ----------
    architecture : "auto"
        Deprecated: all networks are residual ones.
    width, depth : int
        Hidden units and blocks of the residual network.
    dropout : float
        Share of hidden units dropped in training.
    base : "auto", or the name or recipe of an exact denoiser
        What the network corrects. "auto" takes what predicts held-out rows best among independent columns, a tree and,
        if it is cheap enough, a Bayesian network.

    Notes
    -----
    A base with many parameters fits its own training rows too well for the network to learn where it errs: mixtures
    with many classes are better members of an ensemble than bases.
    """

    architecture: InitVar[str] = "auto"
    width: int = 256
    depth: int = 3
    dropout: float = 0.1
    base: str | Recipe = "auto"
    trains = True

    def __post_init__(self, architecture: str) -> None:
        if architecture == "auto":
            return
        if architecture != "mlp":
            raise ValueError(f"architecture={architecture!r}: all networks are residual ones now")
        warnings.warn("architecture='mlp' is the only one now: leave it out", FutureWarning, 3)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A pickled recipe; those of the first release have an architecture, and None for default sizes."""
        kept = {k: v for k, v in state.items() if k != "architecture" and v is not None}
        self.__dict__.update({"width": 256, "depth": 3} | kept)

    def fit(self, rows: TrainingRows, plan: FitPlan) -> NeuralDenoiser:
        """Choose the base, then train."""
        base = self.choose_base(rows, plan)
        denoiser = NeuralDenoiser(base, width=self.width, depth=self.depth, dropout=self.dropout)
        report = plan.train(denoiser.to(rows.device), rows)
        if base is not rows.marginals:
            # a history begins with independent columns; what the base saves is known in closed form
            plan.learned = True
            alone = rows.evaluation(rows.marginals)
            saved = alone.valid_nats - rows.held_out_nats(base)
            first = report.history[0].valid_nats + saved
            report.history.insert(0, alone._replace(valid_nats=first))
        return denoiser

    def choose_base(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        """The exact denoiser that the network corrects."""
        if self.base != "auto":
            return recipe(self.base).fit_base(rows, plan)
        candidates: list[Denoiser] = [rows.marginals]
        levels = rows.codebook.levels
        n_table = levels.n_columns * max(levels.cardinalities, default=1) ** 2
        if levels.n_columns >= 2 and levels.n_points <= MOST_LEVELS and n_table <= TREE_TABLE:
            candidates.append(Trees().fit_base(rows, plan))
            if levels.n_columns <= BASE_COLUMNS:
                net = BayesNet(BASE_TABLE).fit_base(rows, plan)
                if getattr(net, "work", 0) <= BASE_WORK:
                    candidates.append(net)
        return min(candidates, key=rows.held_out_nats)

    def check(self) -> Network:
        for name, value, least in (("width", self.width, 1), ("depth", self.depth, 0)):
            check_integer(name, value, least, 1 << 16)
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float | np.number):
            raise TypeError(f"dropout must be a number, got {self.dropout!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if isinstance(self.base, str) and self.base == "auto":
            return self
        named = isinstance(self.base, str) and self.base in NAMES
        if not (named or isinstance(self.base, Recipe)) or not recipe(self.base).exact:
            raise ValueError(f"base must be 'auto' or an exact denoiser, got {self.base!r}")
        return self

    @property
    def label(self) -> str:
        return "network"


@dataclass(frozen=True)
class Ensemble(Recipe):
    """Several denoisers, with weights that depend on how much of a row is known.

    Parameters
    ----------
    members : tuple of names or recipes
        At least one. Networks share the training time equally.
    """

    members: tuple[Any, ...] = (Network(), Network(), Trees(8), Mixture())

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Ensemble:
        """The ensemble whose config came back from JSON with a list of members."""
        return cls(tuple(config["members"]))

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        return fit_ensemble([recipe(member) for member in self.members], rows, plan)

    def check(self) -> Ensemble:
        if not isinstance(self.members, list | tuple):
            raise TypeError(f"members must be a tuple of recipes, got {self.members!r}")
        if not 1 <= len(self.members) <= MOST_MEMBERS:
            raise ValueError(
                f"an ensemble has 1 to {MOST_MEMBERS} members, got {len(self.members)}"
            )
        made = []
        for i, member in enumerate(self.members):
            try:
                made.append(recipe(member))
                if isinstance(made[i], Ensemble):
                    raise ValueError("a member of an ensemble cannot be an ensemble")
            except (TypeError, ValueError) as error:
                raise type(error)(f"member {i}: {error}") from None
        return Ensemble(tuple(made))


RECIPES: tuple[type, ...] = (Independent, Trees, Mixture, BayesNet, Network, Ensemble)
NAMES: dict[str, Recipe] = {
    "auto": Network(),
    "network": Network(),
    "mlp": Network(),
    "independent": Independent(),
    "tree": Trees(),
    "trees": Trees(8),
    "mixture": Mixture(),
    "bayes_net": BayesNet(),
    "ensemble": Ensemble(),
}


def recipe(denoiser: Any) -> Recipe:
    """The recipe that a name, a recipe or a list of these stands for, checked.

    Raises
    ------
    TypeError, ValueError
        Saying what is wrong with it.
    """
    if isinstance(denoiser, str) and denoiser not in NAMES:
        raise ValueError(f"denoiser must be one of {tuple(NAMES)} or a recipe, got {denoiser!r}")
    made = NAMES[denoiser] if isinstance(denoiser, str) else denoiser
    if isinstance(made, list | tuple):
        made = Ensemble(tuple(made))
    if isinstance(made, type) or not isinstance(made, Recipe):
        raise TypeError(f"denoiser must be one of {tuple(NAMES)} or a recipe, got {denoiser!r}")
    return made.check()
