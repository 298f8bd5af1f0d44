"""Denoisers: maps from a noisy row to a posterior over its categories."""

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.bayes_net import BayesNetDenoiser
from discrete_itd.denoisers.causal import CausalDenoiser
from discrete_itd.denoisers.forest import ForestDenoiser
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.denoisers.mixture import MixtureDenoiser
from discrete_itd.denoisers.neural import NeuralDenoiser
from discrete_itd.denoisers.row_mixture import RowMixtureDenoiser

__all__ = [
    "BayesNetDenoiser",
    "CausalDenoiser",
    "Denoiser",
    "ForestDenoiser",
    "MarginalDenoiser",
    "MixtureDenoiser",
    "NeuralDenoiser",
    "RowMixtureDenoiser",
]
