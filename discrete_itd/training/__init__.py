"""Training: denoising regression on random SNR patterns, validated by held-out nats."""

from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, Report, Rollback, TrainingPlan
from discrete_itd.training.train import seeded, train

__all__ = ["Checkpoint", "Evaluation", "Report", "Rollback", "TrainingPlan", "seeded", "train"]
