"""Training: denoising regression on random SNR patterns, stopped by held-out nats.

``train`` runs the loop (:mod:`~discrete_itd.training.loop`); the objectives are in
:mod:`~discrete_itd.training.objectives`, one class for each kind of rows.
"""

from discrete_itd.training.loop import Evaluation, Report, TrainingPlan, train
from discrete_itd.training.objectives import (
    Evaluator,
    TrainingLoss,
    mean_and_error,
    pilot_quadrature,
)

__all__ = [
    "Evaluation",
    "Evaluator",
    "Report",
    "TrainingLoss",
    "TrainingPlan",
    "mean_and_error",
    "pilot_quadrature",
    "train",
]
