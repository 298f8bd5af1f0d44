"""Recipes: which denoiser to fit, as a value that an estimator can hold, compare, copy and save, and that fits itself.

A name stands for a recipe with its defaults: ``"auto"`` for :class:`Auto`, ``"best"`` for :class:`Best`,
``"network"`` for :class:`Network`, ``"trees"`` for ``Trees(8)``; ``"causal"``, ``"independent"``,
``"tree"``, ``"mixture"``, ``"decoder"``, ``"bayes_net"``, ``"forest"`` and ``"row_mixture"`` for the others. A list of
names and recipes stands for a :class:`RowMixture` of them. A recipe of one's own inherits from :class:`Recipe`.

>>> from discrete_itd import DiffusionDensity
>>> DiffusionDensity(denoiser=[Trees(), Mixture(64)]).denoiser
[Trees(n_components=1), Mixture(n_components=64)]
>>> recipe("network").width
256
"""

from discrete_itd.models.choosing import NAMES, Auto, Best, RowMixture, recipe
from discrete_itd.models.contract import Recipe
from discrete_itd.models.exact import BayesNet, Decoder, Forest, Independent, Mixture, Trees
from discrete_itd.models.networks import Causal, Network

__all__ = [
    "NAMES",
    "RECIPES",
    "Auto",
    "BayesNet",
    "Best",
    "Causal",
    "Decoder",
    "Forest",
    "Independent",
    "Mixture",
    "Network",
    "Recipe",
    "RowMixture",
    "Trees",
    "recipe",
]

RECIPES: tuple[type, ...] = (
    Independent,
    Trees,
    Mixture,
    Decoder,
    BayesNet,
    Forest,
    Network,
    Causal,
    RowMixture,
    Auto,
    Best,
)
