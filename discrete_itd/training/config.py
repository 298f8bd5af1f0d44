"""The settings of a training, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

PRECISIONS = ("float32", "bfloat16")
ENDS = ("max_steps", "max_time", "no improvement", "interrupted", "diverged")


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
    patterns : tuple of two floats
        Shares of isotropic and masked rows in a batch, see :mod:`discrete_itd.training.objectives`.
    judged : tuple of two floats
        The same, of the held-out rows on which weights are validated.
    n_validations : int
        Validations in a full run.
    patience : int
        Validations without improvement after which the learning rate is cut and, if it is small already, training ends.
    precision : {"float32", "bfloat16"}
        Of the matrix products of the network in training (:mod:`discrete_itd.training.acceleration`).
    compiled : bool
        Whether the network is compiled for training by ``torch.compile``.
    """

    max_steps: int = 6000
    max_time: float | None = None
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 100
    ema: float = 0.998
    patterns: tuple[float, float] = (0.2, 0.8)
    judged: tuple[float, float] = (0.5, 0.5)
    n_validations: int = 40
    patience: int = 5
    precision: str = "float32"
    compiled: bool = False


class Evaluation(NamedTuple):
    """One line of the history; nats per row with standard errors."""

    step: int
    seconds: float
    train_nats: float
    train_stderr: float
    valid_nats: float
    valid_stderr: float


class Rollback(NamedTuple):
    """Training diverged at ``step`` and continued from the weights after step ``good``."""

    step: int
    good: int
    reason: str


@dataclass
class Report:
    """The course of a training.

    Attributes
    ----------
    history : list of Evaluation
    stopped : str
        Why it ended: "max_steps", "max_time", "no improvement", "interrupted" or "diverged".
    rollbacks : list of Rollback
        Each time it diverged.
    """

    history: list[Evaluation] = field(default_factory=list)
    stopped: str = ""
    rollbacks: list[Rollback] = field(default_factory=list)

    @property
    def improved(self) -> bool:
        """Whether an evaluation was better than that of the initial weights."""
        nats = [line.valid_nats for line in self.history]
        return min(nats) < nats[0]

    def state_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "history": list(self.history),
            "stopped": self.stopped,
            "rollbacks": list(self.rollbacks),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the content of another report; ValueError if it is none."""
        types = (int, float, float, float, float, float), (int, int, str)
        for name, kinds in zip(("history", "rollbacks"), types, strict=True):
            for line in state[name]:
                if (
                    not isinstance(line, tuple)
                    or [type(v) for v in line] != [*kinds]
                    or line[0] < 0
                ):
                    raise ValueError(f"{line} is no line of the {name}")
        if not state["history"] or state["stopped"] not in (*ENDS, ""):
            raise ValueError("the history is empty, or its end is unknown")
        self.history = [Evaluation(*line) for line in state["history"]]
        self.rollbacks = [Rollback(*line) for line in state["rollbacks"]]
        self.stopped = state["stopped"]
