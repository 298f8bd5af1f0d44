"""Validation during training: nats of held-out rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.denoisers.base import HUGE, Denoiser
from discrete_itd.training.objectives import TrainingLoss

DRAWS = 4096  # rows times repeats of one validation
NUMBERS = 1 << 26  # rows times floats of a row's posterior, of one validation


class Evaluator:
    """Held-out nats in random states that are the same at every call, so that evaluations compare.

    Parameters
    ----------
    loss : TrainingLoss
    x : Tensor of float64, shape (N, C)
        Held-out rows. Of a wide table only the first ones are used.
    seed : int
        Of the random states.
    """

    def __init__(self, loss: TrainingLoss, x: Tensor, seed: int) -> None:
        self._loss, self._x, self._seed = loss, x, seed
        self._repeats = max(1, min(8, DRAWS // len(x)))

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> tuple[float, float]:
        """Mean nats per row, and its standard error over rows."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        huge = denoiser.codebook.work >= HUGE
        x = self._x[: max(16 if huge else 512, NUMBERS // denoiser.row_work)]
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(self._repeats):
            order = torch.randperm(len(x), generator=generator, device=x.device)
            for part in order.split(16 if huge else 2048):
                nats = self._loss.nats(denoiser, x[part], generator).double()
                total.index_add_(0, part, nats)
        return mean_and_error(total / self._repeats)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of a vector and its standard error; the error is NaN for fewer than two numbers."""
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error
