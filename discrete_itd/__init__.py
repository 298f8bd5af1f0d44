"""Probability for tables of categories, by information-theoretic diffusion.

``DiffusionDensity`` is the way in, and for anomalies ``DiffusionOutlierDetector`` (``detection``); ``report`` writes
a page on either (``reporting``). Diffusion models that exist already come in by ``images.ImageDensity``. The parts it
is made of, in the order in which data flow through them: an encoder turns columns into points (``encoders``,
``codebook``), a Gaussian channel adds noise (``channel``), a denoiser guesses the clean row (``denoisers``,
``posterior``), and the I-MMSE estimator turns its errors into log-probabilities (``likelihood``).
"""

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Quadrature
from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, NeuralDenoiser, SupportDenoiser
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.likelihood import Estimate, integral_log_prob, path_log_prob
from discrete_itd.reporting.page import report

__version__ = "0.1.0"

__all__ = [
    "Codebook",
    "ColumnPoints",
    "CoordinateSchedule",
    "Denoiser",
    "DiffusionDensity",
    "DiffusionOutlierDetector",
    "Estimate",
    "IsotropicSchedule",
    "MarginalDenoiser",
    "NeuralDenoiser",
    "Quadrature",
    "SupportDenoiser",
    "integral_log_prob",
    "path_log_prob",
    "report",
]
