"""Recipes: which denoiser to fit, as a value that an estimator can hold, compare, copy and save, and that fits itself.

A name stands for a recipe with its defaults: ``"auto"`` for :class:`Auto`, ``"best"`` for :class:`Best`,
``"network"`` for :class:`Network`, ``"trees"`` for ``Trees(8)``; ``"causal"``, ``"independent"``,
``"tree"``, ``"mixture"``, ``"decoder"``, ``"bayes_net"``, ``"forest"`` and ``"row_mixture"`` for the others. A list of
names and recipes stands for a :class:`RowMixture` of them. Your own recipe inherits from :class:`Recipe`.

>>> from discrete_itd import DiffusionDensity
>>> DiffusionDensity(denoiser=[Trees(), Mixture(64)]).denoiser
[Trees(n_components=1), Mixture(n_components=64)]
>>> recipe("network").width
256

What they make of a table of two equal columns:

>>> import pandas as pd
>>> coins = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
>>> small = {"width": 16, "depth": 1}
>>> exact = Independent(), Trees(), Trees(8), BayesNet(), Mixture(4), Decoder(64, max_steps=20), Forest(4)
>>> chosen = RowMixture(("independent", "bayes_net")), Auto(), Best(n_orders=1)
>>> for one in (*exact, Network(**small), Causal(**small), *chosen):
...     steps = 20 if one in (Network(**small), Causal(**small)) else 0
...     model = DiffusionDensity(denoiser=one, max_steps=steps, n_evaluations=4, random_state=0).fit(coins)
...     print(f"{type(one).__name__:12}{type(model.denoiser_).__name__}")
Independent MarginalDenoiser
Trees       BayesNetDenoiser
Trees       RowMixtureDenoiser
BayesNet    BayesNetDenoiser
Mixture     MixtureDenoiser
Decoder     MixtureDenoiser
Forest      ForestDenoiser
Network     NeuralDenoiser
Causal      CausalDenoiser
RowMixture  BayesNetDenoiser
Auto        BayesNetDenoiser
Best        RowMixtureDenoiser
"""

from discrete_itd.models.combined import NAMES, Auto, Best, RowMixture, recipe
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
