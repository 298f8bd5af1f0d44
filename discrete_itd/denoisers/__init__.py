"""Denoisers: maps from a noisy row to a posterior over its categories."""

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.exact import MarginalDenoiser, MixtureDenoiser, SupportDenoiser
from discrete_itd.denoisers.neural import NeuralDenoiser

__all__ = ["Denoiser", "MarginalDenoiser", "MixtureDenoiser", "NeuralDenoiser", "SupportDenoiser"]
