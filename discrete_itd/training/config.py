"""The settings of a training, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a training.

    Parameters
    ----------
    max_steps : int
        Most optimiser steps.
    max_time : float, optional
        Most seconds. The learning rate falls to zero at the bound that comes first.
    batch_size : int
        Rows B per step.
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    warmup : int
        Steps in which the learning rate rises.
    ema : float
        Decay per step of the moving average of the weights. The average is validated and kept.
    max_gradient : float
        Bound on the norm of the gradient, per column of the table.
    patterns : tuple of two floats
        Shares of isotropic and masked rows in a batch, see :mod:`discrete_itd.training.objectives`.
    judged : tuple of two floats
        The same shares for validation.
    n_validations : int
        Validations in a full run.
    patience : int
        Validations without improvement, a plateau, after which the learning rate is cut and, if it is small already,
        training ends.
    last_cut : float
        Share of a full run after which training ends at a plateau whatever the learning rate.
    """

    max_steps: int = 6000
    max_time: float | None = None
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 100
    ema: float = 0.998
    max_gradient: float = 10.0
    patterns: tuple[float, float] = (0.05, 0.95)
    judged: tuple[float, float] = (0.0, 1.0)
    n_validations: int = 40
    patience: int = 5
    last_cut: float = 1.0


class Evaluation(NamedTuple):
    """One line of the history; nats per row with standard errors."""

    step: int
    seconds: float
    train_nats: float
    train_stderr: float
    valid_nats: float
    valid_stderr: float


@dataclass
class Report:
    """The course of a training.

    ``stopped`` is its end: "max_steps", "max_time", "no improvement", "interrupted" or "diverged"; ``max_steps`` is
    the bound on the steps.
    """

    history: list[Evaluation] = field(default_factory=list)
    stopped: str = ""
    max_steps: int = 0
