"""Denoisers: maps from a noisy row to a posterior over its categories."""

from discrete_itd.denoisers.base import Denoiser, ExactDenoiser
from discrete_itd.denoisers.bayes_net import BayesNetDenoiser
from discrete_itd.denoisers.ensemble import EnsembleDenoiser
from discrete_itd.denoisers.gaussian import GaussianDenoiser
from discrete_itd.denoisers.marginal import MarginalDenoiser, SupportDenoiser
from discrete_itd.denoisers.mixture import MixtureDenoiser
from discrete_itd.denoisers.neural import NeuralDenoiser
from discrete_itd.denoisers.one_hot import JoinedDenoiser, Joining
from discrete_itd.denoisers.tree import TreeDenoiser

__all__ = [
    "BayesNetDenoiser",
    "Denoiser",
    "EnsembleDenoiser",
    "ExactDenoiser",
    "GaussianDenoiser",
    "JoinedDenoiser",
    "Joining",
    "MarginalDenoiser",
    "MixtureDenoiser",
    "NeuralDenoiser",
    "SupportDenoiser",
    "TreeDenoiser",
]
