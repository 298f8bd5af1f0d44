"""Training: denoising regression on random patterns, with held-out nats to stop it and a running average to keep."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.patterns import Evaluator, Patterns, mean_and_error, pilot_quadrature

RATE_CUT, SMALLEST_CUT = 0.3, 0.1  # of the learning rate, at each plateau
EARLY_LOOKS = (8, 16, 32, 64, 128)  # steps; a small table is learned, and over-learned, soon


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Parameters
    ----------
    max_steps : int
        Optimiser steps at most.
    max_time : float, optional
        Seconds at most. The learning rate falls to zero at whichever bound comes first.
    batch_size : int
        Rows B per step.
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    ema : float
        Decay per step of the moving average of weights, which is what is validated and kept.
    patterns : tuple of three floats
        Shares of isotropic, masked and hybrid rows in a batch.
    n_evaluations : int
        Validations in a full run.
    patience : int
        Validations without improvement after which the learning rate is cut, and at last training stopped.
    """

    max_steps: int = 6000
    max_time: float | None = None
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    patterns: tuple[float, float, float] = (0.2, 0.7, 0.1)
    n_evaluations: int = 40
    patience: int = 5


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
    """What training did."""

    history: list[Evaluation] = field(default_factory=list)
    stopped: str = ""


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global random state from ``seed`` within the block, as before after it.

    Initial weights and dropout know no other source of randomness.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def train(
    denoiser: Denoiser,
    x: Tensor,
    x_valid: Tensor,
    plan: TrainingPlan,
    *,
    generator: torch.Generator,
    progress: Callable[[float, Evaluation], object] | None = None,
) -> Report:
    """Fit a denoiser in place; it ends with the averaged weights that validated best.

    Parameters
    ----------
    denoiser : Denoiser
        Lies on the device of the rows. Its weights at the call are the first candidate, so the result
        is never worse than they are on the validation rows.
    x, x_valid : Tensor of int64, shapes (N, C) and (N', C)
        Rows as codes.
    plan : TrainingPlan
    generator : torch.Generator
        On the device of the rows.
    progress : callable, optional
        Called with the share done and the latest evaluation.

    Returns
    -------
    Report
    """
    start = time.perf_counter()
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    quadrature = pilot_quadrature(denoiser, x, generator)
    patterns = Patterns(quadrature, plan.patterns)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=x.device))
    # hybrids estimate conditional nats, so a held-out code length is made of the other two
    evaluate = Evaluator(Patterns(quadrature, (0.5, 0.5, 0.0)), x_valid, seed)
    average = _Average(denoiser, plan.ema)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=x.device.type in ("cpu", "cuda"),
    )
    batches = _batches(x, min(plan.batch_size, max(32, len(x) // 8)), generator)
    report = Report()
    losses: list[Tensor] = []

    def done_share() -> float:
        share = step / max(plan.max_steps, 1)
        if plan.max_time is not None:
            share = max(share, (time.perf_counter() - start) / plan.max_time)
        return min(share, 1.0) if plan.max_steps else 1.0

    def look() -> None:
        valid = evaluate(average.model)
        train = mean_and_error(torch.stack(losses)) if losses else (math.nan, math.nan)
        losses.clear()
        report.history.append(Evaluation(step, time.perf_counter() - start, *train, *valid))
        average.consider(valid[0])
        if progress is not None:
            progress(done_share(), report.history[-1])

    step, next_look, cut = 0, 1 / plan.n_evaluations, 1.0
    look()
    denoiser.train()
    while (share := done_share()) < 1.0:
        rate = plan.learning_rate * cut * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100)
        loss = patterns.loss(denoiser, next(batches), generator).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0 * x.shape[1])
        optimizer.step()
        step += 1
        average.follow(parameters)
        losses.append(loss.detach())
        if done_share() >= next_look or step in EARLY_LOOKS:
            look()
            if done_share() >= next_look:
                next_look += 1 / plan.n_evaluations
            if average.stale >= plan.patience:
                if cut <= SMALLEST_CUT:
                    report.stopped = "no improvement"
                    break
                # a plateau at this learning rate: go on from the best weights with a smaller one
                cut *= RATE_CUT
                average.restore(parameters)
    else:
        report.stopped = "max_steps" if step >= plan.max_steps else "max_time"
    if losses:
        look()
    average.restore(parameters)
    denoiser.eval()
    return report


class _Average:
    """The moving average of a denoiser's weights, and the best of its past states."""

    def __init__(self, denoiser: Denoiser, decay: float) -> None:
        self.model = copy.deepcopy(denoiser).eval()
        self._weights = [
            p.requires_grad_(False) for p in self.model.parameters() if p.requires_grad
        ]
        self._decay, self._n = decay, 0
        self._best, self._best_weights = math.inf, [w.clone() for w in self._weights]
        self.stale = 0  # evaluations since the best

    def follow(self, parameters: list[nn.Parameter]) -> None:
        """Move towards the weights of the latest step; at first fast, to forget the start."""
        self._n += 1
        share = 1 - min(self._decay, self._n / (10 + self._n))
        for w, p in zip(self._weights, parameters, strict=True):
            w.lerp_(p.detach(), share)

    def consider(self, nats: float) -> None:
        """Keep a copy of the average if it is the best so far."""
        if nats < self._best:
            self._best, self.stale = nats, 0
            self._best_weights = [w.clone() for w in self._weights]
        else:
            self.stale += 1

    @torch.no_grad()
    def restore(self, parameters: list[nn.Parameter]) -> None:
        """Put the best weights into the average and into ``parameters``."""
        self.stale = 0
        for w, p, best in zip(self._weights, parameters, self._best_weights, strict=True):
            w.copy_(best)
            p.copy_(best)


def _batches(x: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of equal size without end; an epoch's remainder is dropped, a short table repeated."""
    while True:
        folds = [
            torch.randperm(len(x), generator=generator, device=x.device)
            for _ in range(-(-size // len(x)))
        ]
        for rows in torch.cat(folds).split(size):
            if len(rows) == size:
                yield x[rows]
