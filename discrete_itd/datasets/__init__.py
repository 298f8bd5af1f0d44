"""Example tables: real ones, and Bayesian networks whose probabilities are known.

>>> load_car().shape
(1728, 7)
"""

from discrete_itd.datasets.bayesian_network import BayesianNetwork
from discrete_itd.datasets.loaders import (
    load_adult,
    load_bayesian_network,
    load_car,
    load_mushroom,
)

__all__ = [
    "BayesianNetwork",
    "load_adult",
    "load_bayesian_network",
    "load_car",
    "load_mushroom",
]
