"""Recipes: which denoiser to fit, as a value that an estimator can hold, compare, copy and save, and that fits itself.

A name stands for a recipe with its defaults: ``"auto"`` for :class:`Auto`, ``"best"`` for :class:`Best`,
``"network"``, ``"causal"``, ``"independent"``, ``"tree"``, ``"mixture"``, ``"bayes_net"``, ``"forest"`` and
``"row_mixture"`` for the others. A list of names and recipes stands for a :class:`RowMixture` of them. Your own recipe
inherits from :class:`Recipe`.

>>> from discrete_itd import DiffusionDensity
>>> DiffusionDensity(denoiser=[Tree(), BayesNet()]).denoiser
[Tree(), BayesNet(most_table=1024)]
>>> recipe("network").width
256

What they make of a table of two equal columns:

>>> import pandas as pd
>>> coins = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
>>> small = {"width": 16, "depth": 1}
>>> exact = Independent(), Tree(), BayesNet(), Forest(4), Mixture(64, max_steps=20)
>>> chosen = RowMixture(("independent", "bayes_net")), Auto(), Best(n_orders=1)
>>> for one in (*exact, Network(**small), Causal(**small), *chosen):
...     steps = 0 if one in chosen else 20
...     model = DiffusionDensity(denoiser=one, max_steps=steps, n_evaluations=4, random_state=0).fit(coins)
...     print(f"{type(one).__name__:12}{type(model.denoiser_).__name__}")
Independent MarginalDenoiser
Tree        BayesNetDenoiser
BayesNet    BayesNetDenoiser
Forest      ForestDenoiser
Mixture     MixtureDenoiser
Network     NeuralDenoiser
Causal      CausalDenoiser
RowMixture  BayesNetDenoiser
Auto        BayesNetDenoiser
Best        RowMixtureDenoiser
"""

from discrete_itd.models.auto import NAMES, Auto, Best, RowMixture, recipe
from discrete_itd.models.decoder_mixture import Mixture
from discrete_itd.models.exact import BayesNet, Forest, Independent, Tree
from discrete_itd.models.fitting import Recipe
from discrete_itd.models.networks import Causal, Network

__all__ = [
    "NAMES",
    "RECIPES",
    "Auto",
    "BayesNet",
    "Best",
    "Causal",
    "Forest",
    "Independent",
    "Mixture",
    "Network",
    "Recipe",
    "RowMixture",
    "Tree",
    "recipe",
]

RECIPES: tuple[type, ...] = tuple(map(type, NAMES.values()))
