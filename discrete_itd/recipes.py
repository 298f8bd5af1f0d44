"""Recipes: what denoiser to fit, as a value that an estimator can hold, compare, copy and keep in a file.

A name stands for a recipe with its defaults: ``"auto"`` and ``"network"`` for :class:`Network`, ``"mlp"`` and
``"transformer"`` for one of that architecture, ``"independent"``, ``"tree"``, ``"trees"``, ``"bayes_net"``,
``"mixture"`` and ``"ensemble"`` for the others; a list of names and recipes for an :class:`Ensemble` of them.

To trees, mixtures and Bayesian networks, columns of two categories of which at most one is "on" in a row, like the
indicators of one categorical column, are one column, where held-out rows are predicted better so. Such columns are
found if they are neighbours that together are on in about every row, or if there are rows enough to tell that it is
no chance. A mixture of joined columns leaves continuous ones to themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from discrete_itd.denoisers.neural import ARCHITECTURES

MOST_COMPONENTS = 1 << 14
MOST_MEMBERS = 64


@dataclass(frozen=True)
class Independent:
    """Independent columns: smoothed frequencies, and mixtures of Gaussians of continuous columns."""


@dataclass(frozen=True)
class Trees:
    """A Chow-Liu tree, or a mixture of trees, over the columns of few categories; exact.

    Parameters
    ----------
    n_components : int
        Trees. The one tree is smoothed as held-out rows ask.
    """

    n_components: int = 1


@dataclass(frozen=True)
class Mixture:
    """A mixture of products (latent classes); exact.

    Parameters
    ----------
    n_components : int, optional
        Hidden classes. By default held-out rows decide, among powers of four up to ``MOST_CLASSES`` of
        :mod:`discrete_itd.models.fitting`.
    """

    n_components: int | None = None


@dataclass(frozen=True)
class BayesNet:
    """A Bayesian network found by hill climbing, over the columns of few categories; exact.

    Parameters
    ----------
    most_table : int
        Numbers of the largest table when columns are summed out: more edges, and slower calls.
    """

    most_table: int = 1024


@dataclass(frozen=True)
class Network:
    """A network that corrects an exact base.

    Parameters
    ----------
    architecture : {"auto", "mlp", "transformer"}
        A residual network on all columns at once, attention over columns, or whichever learns more at equal cost
        where the table is one that attention may suit.
    width, depth : int, optional
        Hidden units and blocks; by default 256 and 3 of a residual network, 64 and 3 of a transformer.
    dropout : float
        Share of hidden units dropped in training.
    base : {"auto"} or the name or recipe of an exact denoiser
        What the network corrects; "auto" takes what predicts held-out rows best of independent columns, a tree and, if
        it is cheap enough, a Bayesian network. On a table of 5 000 rows or more to learn from, independent columns and
        that one race: a network learns on each for a sixteenth of the steps, at most 400, or of the time, and the
        better base is kept. A base of many parameters knows the rows it was fitted to too well for
        the network to learn where it errs: mixtures of many classes are better members than bases.
    """

    architecture: str = "auto"
    width: int | None = None
    depth: int | None = None
    dropout: float = 0.1
    base: str | Independent | Trees | Mixture | BayesNet = "auto"


@dataclass(frozen=True)
class Ensemble:
    """Several denoisers, weighted by how much is known.

    Parameters
    ----------
    members : tuple of names or recipes
        At least one. Networks share the time for training equally.
    """

    members: tuple[Any, ...] = (Network(), Network(), Trees(8), Mixture())


Exact = Independent | Trees | Mixture | BayesNet
Recipe = Exact | Network | Ensemble
KINDS: dict[str, type] = {
    "independent": Independent,
    "trees": Trees,
    "mixture": Mixture,
    "bayes_net": BayesNet,
    "network": Network,
    "ensemble": Ensemble,
}
NAMES: dict[str, Recipe] = {
    "auto": Network(),
    "network": Network(),
    "mlp": Network("mlp"),
    "transformer": Network("transformer"),
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
    if isinstance(denoiser, str):
        if denoiser not in NAMES:
            raise ValueError(
                f"denoiser must be one of {tuple(NAMES)} or a recipe, got {denoiser!r}"
            )
        return NAMES[denoiser]
    if isinstance(denoiser, list | tuple):
        denoiser = Ensemble(tuple(denoiser))
    if isinstance(denoiser, Ensemble):
        if not isinstance(denoiser.members, list | tuple):
            raise TypeError(f"members must be a tuple of recipes, got {denoiser.members!r}")
        if not 1 <= len(denoiser.members) <= MOST_MEMBERS:
            raise ValueError(
                f"an ensemble has 1 to {MOST_MEMBERS} members, got {len(denoiser.members)}"
            )
        return Ensemble(tuple(_member(i, m) for i, m in enumerate(denoiser.members)))
    if isinstance(denoiser, Trees | Mixture):
        if not (isinstance(denoiser, Mixture) and denoiser.n_components is None):
            _check_count("n_components", denoiser.n_components, 1, MOST_COMPONENTS)
        return denoiser
    if isinstance(denoiser, BayesNet):
        _check_count("most_table", denoiser.most_table, 1, 1 << 24)
        return denoiser
    if isinstance(denoiser, Network):
        return _checked_network(denoiser)
    if isinstance(denoiser, Independent):
        return denoiser
    raise TypeError(f"denoiser must be one of {tuple(NAMES)} or a recipe, got {denoiser!r}")


def _member(i: int, member: Any) -> Recipe:
    """The i-th member of an ensemble, checked; what is wrong with it names it."""
    try:
        made = recipe(member)
        if isinstance(made, Ensemble):
            raise ValueError("a member of an ensemble cannot be an ensemble")
    except (TypeError, ValueError) as error:
        raise type(error)(f"member {i}: {error}") from None
    return made


def _checked_network(network: Network) -> Network:
    if network.architecture not in ("auto", *ARCHITECTURES):
        raise ValueError(
            f"architecture must be one of {('auto', *ARCHITECTURES)}, got {network.architecture!r}"
        )
    for name, least in (("width", 1), ("depth", 0)):
        if getattr(network, name) is not None:
            _check_count(name, getattr(network, name), least, 1 << 16)
    dropout = network.dropout
    if isinstance(dropout, bool) or not isinstance(dropout, int | float | np.number):
        raise TypeError(f"dropout must be a number, got {dropout!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    if isinstance(network.base, str) and network.base == "auto":
        return network
    named = isinstance(network.base, str) and network.base in NAMES
    if not (named or isinstance(network.base, Exact)) or not isinstance(
        recipe(network.base), Exact
    ):
        raise ValueError(f"base must be 'auto' or an exact denoiser, got {network.base!r}")
    return network


def _check_count(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value}")


def recipe_to_json(denoiser: Any) -> Any:
    """JSON data of what ``denoiser=`` was given."""
    if isinstance(denoiser, str):
        return denoiser
    if isinstance(denoiser, list | tuple):
        return [recipe_to_json(member) for member in denoiser]
    kind = next(name for name, made in KINDS.items() if type(denoiser) is made)
    if isinstance(denoiser, Ensemble):
        return {"kind": kind, "members": recipe_to_json(denoiser.members)}
    data = {k: v.item() if isinstance(v, np.generic) else v for k, v in asdict(denoiser).items()}
    if isinstance(denoiser, Network):
        data["base"] = recipe_to_json(denoiser.base)
    return {"kind": kind, **data}


def recipe_from_json(data: Any) -> Any:
    """What ``denoiser=`` was given; LookupError, TypeError or ValueError if that makes no sense."""
    if isinstance(data, str):
        return data
    if isinstance(data, list):
        return [recipe_from_json(member) for member in data]
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r} is no recipe")
    values = {name: value for name, value in data.items() if name != "kind"}
    if "members" in values:
        values["members"] = tuple(recipe_from_json(values["members"]))
    if "base" in values:
        values["base"] = recipe_from_json(values["base"])
    return KINDS[data["kind"]](**values)
