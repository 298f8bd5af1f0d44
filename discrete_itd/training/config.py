"""The settings of a training, its report, and the precision and compilation of its steps.

With bfloat16 and ``torch.compile`` a network is trained faster, but learns the same. Both affect the network alone:
features, posteriors, nats and sums keep their type, and so do the weights, the optimiser and every validation. With
bfloat16 an output is rounded to 8 bits; compiled, it differs by rounding. Held-out nats after a training agree within
``NATS_TOLERANCE``. Speeds on a GPU are unmeasured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.validation import warn

PRECISIONS = ("float32", "bfloat16")
ENDS = ("max_steps", "max_time", "no improvement", "interrupted", "diverged")
NATS_TOLERANCE = 0.05  # nats per row between trainings that differ in these settings only
# dropout takes the random numbers that it takes without compilation
COMPILER_OPTIONS: dict[str, str | int | bool | Callable] = {"fallback_random": True}


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
    precision : {"float32", "bfloat16"}
        Of the matrix products of the network in training (:mod:`discrete_itd.training.config`).
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
    max_gradient: float = 10.0
    patterns: tuple[float, float] = (0.2, 0.8)
    judged: tuple[float, float] = (0.5, 0.5)
    n_validations: int = 40
    patience: int = 5
    last_cut: float = 1.0
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

    ``stopped`` is its end: "max_steps", "max_time", "no improvement", "interrupted" or "diverged". ``rollbacks`` has an
    entry for each divergence, ``max_steps`` is the bound on the steps.
    """

    history: list[Evaluation] = field(default_factory=list)
    stopped: str = ""
    rollbacks: list[Rollback] = field(default_factory=list)
    max_steps: int = 0


@contextmanager
def accelerated(denoiser: Denoiser, plan: TrainingPlan) -> Iterator[None]:
    """Within the block, the ``network`` of a denoiser, if it has one, computes as the plan says.

    A UserWarning, once, if the network cannot be compiled, as without a C++ compiler: it is then trained uncompiled. A
    ValueError if the plan names an unknown precision.
    """
    if plan.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {plan.precision!r}")
    network = getattr(denoiser, "network", None)
    if not isinstance(network, nn.Module) or (plan.precision == "float32" and not plan.compiled):
        yield
        return
    forward = compiled_or_not(network.forward) if plan.compiled else network.forward

    def fast(features: Tensor) -> Tensor:
        half = plan.precision == "bfloat16"
        with torch.autocast(features.device.type, torch.bfloat16, enabled=half):
            return forward(features).to(features.dtype)

    network.forward = fast
    try:
        yield
    finally:
        del network.forward  # restores the method of its class


def compiled_or_not(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of features compiled, or unchanged, with a warning, if a first call or its gradient fails."""
    compiled = torch.compile(forward, options=COMPILER_OPTIONS)
    chosen: list[Callable[[Tensor], Tensor]] = []

    def call(features: Tensor) -> Tensor:
        if not chosen:
            try:
                with torch.random.fork_rng(), torch.enable_grad():
                    compiled(features.detach()).sum().backward()
                chosen.append(compiled)
            except Exception as error:  # compilers' errors have no common class
                reason = (str(error).strip() or type(error).__name__).split("\n")[0]
                warn(f"the network is trained without compilation: {reason}")
                chosen.append(forward)
        return chosen[0](features)

    return call
