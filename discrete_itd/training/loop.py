"""Training with early stopping on held-out nats: its settings, the loop and its failures, and its report.

At a plateau of the held-out nats training goes on from the best weights with a smaller learning rate. Clock and random
streams are not reset, so that batches and noise differ. Training ends if a weight becomes infinite or NaN.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from discrete_itd.channel import Quadrature
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.neural import drawing
from discrete_itd.devices import threads_for
from discrete_itd.progress import Deadline
from discrete_itd.training.objectives import (
    EVALUATED_DRAWS,
    Constants,
    Evaluator,
    ExactLoss,
    Loss,
    TrainingLoss,
    constants_at,
    kept_constants,
    mean_and_error,
    pilot_quadrature,
    seconds_of_row,
)
from discrete_itd.validation import warn

# A plateau multiplies the learning rate by RATE_CUT, or ends training once the product of cuts is SMALLEST_CUT or less.
RATE_CUT, SMALLEST_CUT = 0.3, 0.1
EARLY_EVALUATIONS = (8, 16, 32, 64, 128)  # steps of early evaluations: small tables overfit soon
EVALUATION_SHARE = 0.1  # most of a training's time for a pilot, or an evaluation in random states
EVALUATION_PAUSE = 4  # time until the next evaluation, in multiples of that of the last one
TRIAL_STEPS = 4  # steps that show whether there is time for 32; if not, training ends


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a training.

    Parameters
    ----------
    max_steps : int
        Most optimiser steps.
    max_time : float, optional
        Most seconds. The learning rate falls to zero at the bound that comes first.
    batch_size, n_batches : int
        Rows B of a step, and least number of batches into which a smaller table is divided.
    learning_rate, weight_decay, betas : float, float, (float, float)
        Parameters of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); betas are the decay per step of both moments.
    warmup : int
        Steps in which the learning rate rises.
    ema : float
        Decay per step of the moving average of the weights. The average is validated and kept.
    max_gradient : float
        Bound on the norm of the gradient, per column of the table.
    isotropic : float
        Share of isotropic rows in a batch; the others are masked, see :mod:`discrete_itd.training.objectives`. In
        validation all rows are masked, or all isotropic if this is 1.
    n_validations : int
        Validations in a full run.
    patience : int
        Validations without improvement, a plateau, after which the learning rate is cut and, if it is small already,
        training ends.
    last_cut : float
        Share of a full run after which a plateau ends training, whatever the learning rate.
    """

    max_steps: int = 6000
    max_time: float | None = None
    batch_size: int = 512
    n_batches: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 100
    ema: float = 0.998
    max_gradient: float = 10.0
    isotropic: float = 0.05
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

    ``stopped`` is its end: "max_steps", "max_time", "no improvement", "hopeless", "interrupted" or "diverged";
    ``max_steps`` is the bound on the steps.
    """

    history: list[Evaluation] = field(default_factory=list)
    stopped: str = ""
    max_steps: int = 0


def train(
    denoiser: Denoiser,
    x: Tensor,
    x_valid: Tensor,
    plan: TrainingPlan,
    *,
    generator: torch.Generator,
    progress: Callable[[float, Evaluation], object] | None = None,
    loss_at: Callable[[float], Loss] | None = None,
    is_hopeless: Callable[[float, Tensor], bool] | None = None,
) -> Report:
    """Fit a denoiser in place; it is left with the averaged weights that had the best validation.

    Parameters
    ----------
    denoiser : Denoiser
        On the device of the rows. Its initial weights are the first candidate, so that the result is never worse on the
        validation rows.
    x, x_valid : Tensor of float64, shapes (N, C) and (N', C)
        Rows; NaN where a cell is missing.
    plan : TrainingPlan
    generator : torch.Generator
        On the device of the rows: the only source of random numbers, of dropout's too.
    progress : callable, optional
        Called with the share done and the latest evaluation.
    loss_at : callable, optional
        The objective of a step by the share of the training done, in place of the plan's.
    is_hopeless : callable, optional
        Whether an evaluation ends the training, by the share done and the nats of held-out rows.

    Returns
    -------
    Report
        Also after an interruption, which ends the training early with the best weights so far
        (:func:`discrete_itd.progress.deferred_interrupts`).

    Warns
    -----
    UserWarning
        If weights diverged, which ended the training with the best ones before.
    """
    run = Run(denoiser, x, x_valid, plan, generator, progress, loss_at, is_hopeless)
    report = run.report
    with drawing(generator):
        run.begin()
        with threads_for(run.batch_size * denoiser.score_work):
            run.finish()
    run.average.restore(run.parameters)
    denoiser.eval()
    if report.stopped == "diverged":
        warn(
            "training diverged: its weights were no numbers any more, the best ones before are kept"
        )
    return report


class Optimizer:
    """AdamW on weights, with gradients clipped to the norm ``max_norm``, without the imports of torch's class.

    The first ``torch.optim`` object of a process loads the compiler, which takes more than a second (``python -X
    importtime -c "import torch._dynamo"``). The function behind the class, which does the arithmetic, is called
    directly. ``moments`` holds the two moments of each weight and its number of steps.

    References
    ----------
    Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv:1711.05101.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        weight_decay: float,
        max_norm: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.weights, self._decay, self._max_norm = list(weights), weight_decay, max_norm
        self._betas = betas
        self._fused = all(p.device.type in ("cpu", "cuda") for p in self.weights)
        self.moments: list[tuple[Tensor, Tensor, Tensor]] = []
        for p in self.weights:
            count = torch.zeros((), dtype=torch.float32, device=p.device if self._fused else "cpu")
            first, second = (torch.zeros_like(p.detach()) for _ in range(2))
            self.moments.append((first, second, count))

    def step(self, loss: Tensor, rate: float) -> None:
        """Make a step down the gradient of a loss, with a learning rate."""
        for p in self.weights:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, self._max_norm)
        moved = [
            (p, *m) for p, m in zip(self.weights, self.moments, strict=True) if p.grad is not None
        ]
        if not moved:
            return
        weights, first, second, counts = map(list, zip(*moved, strict=True))
        with torch.no_grad():
            adamw(
                weights,
                [p.grad for p in weights],
                first,
                second,
                [],
                counts,
                fused=self._fused,
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=rate,
                weight_decay=self._decay,
                eps=1e-8,
                maximize=False,
            )


class Average:
    """The moving average of a model's weights, and the best of its past states.

    ``model`` is a copy with the averaged weights, ``best`` the nats of the best state so far, ``stale`` the number of
    evaluations since then, or since the last restart, and ``n_steps`` the number of steps averaged.
    """

    def __init__(self, model: Denoiser, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.weights = [p.requires_grad_(False) for p in self.model.parameters() if p.requires_grad]
        self._decay, self.n_steps = decay, 0
        self.best, self.stale = math.inf, 0
        self.best_weights = self._copies()

    def follow(self, weights: Iterable[Tensor]) -> None:
        """Move towards the weights of the latest step, fast at first, to forget the initial weights."""
        self.n_steps += 1
        share = 1 - min(self._decay, self.n_steps / (10 + self.n_steps))
        for w, p in zip(self.weights, weights, strict=True):
            w.lerp_(p.detach(), share)

    def consider(self, nats: float) -> None:
        """Keep a copy of the average if it is the best so far."""
        if -math.inf < nats < self.best:
            self.best, self.stale, self.best_weights = nats, 0, self._copies()
        else:
            self.stale += 1

    @torch.no_grad()
    def restore(self, weights: Iterable[Tensor]) -> None:
        """Copy the best weights to the average and to ``weights``."""
        self.stale = 0
        for average, p, best in zip(self.weights, weights, self.best_weights, strict=True):
            average.copy_(best)
            p.copy_(best)

    def _copies(self) -> list[Tensor]:
        return [w.clone() for w in self.weights]


def batches(
    x: Tensor, constants: Constants, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """Batches of ``size`` rows of ``x`` (N, C) with their constants, without end, in random order.

    Remaining rows at the end of an epoch are dropped; a table shorter than a batch is repeated. The generator is on the
    device of the rows.
    """
    kept, folds = kept_constants(constants, x), range(-(-size // len(x)))
    while True:
        draw = [torch.randperm(len(x), generator=generator, device=x.device) for _ in folds]
        order = torch.cat(draw)
        for rows in order[: len(order) // size * size].split(size):
            yield x.index_select(0, rows), *constants_at(rows, x, constants, kept)


@dataclass(eq=False)
class Run:
    """The state of a training with the arguments of :func:`train`: everything that changes from step to step."""

    denoiser: Denoiser
    x: Tensor
    x_valid: Tensor
    plan: TrainingPlan
    generator: torch.Generator
    progress: Callable[[float, Evaluation], object] | None = None
    loss_at: Callable[[float], Loss] | None = None
    is_hopeless: Callable[[float, Tensor], bool] | None = None
    step: int = field(default=0, init=False)
    cut: float = field(default=1.0, init=False)  # factor of the learning rate
    losses: list[Tensor] = field(default_factory=list, init=False)  # of steps since an evaluation
    seconds_to_evaluate: float = field(default=0.0, init=False)  # seconds of the last evaluation
    began: float = field(default=0.0, init=False)  # seconds until the first step

    def __post_init__(self) -> None:
        plan = self.plan
        self.deadline = Deadline(math.inf if plan.max_time is None else plan.max_time)
        self.parameters = [p for p in self.denoiser.parameters() if p.requires_grad]
        self.average = Average(self.denoiser, plan.ema)
        bound = plan.max_gradient * self.x.shape[1]
        self.optimizer = Optimizer(self.parameters, plan.weight_decay, bound, plan.betas)
        self.batch_size = min(plan.batch_size, max(32, len(self.x) // plan.n_batches))
        self.batches = batches(self.x, self.denoiser.constants, self.batch_size, self.generator)
        self.report = Report(max_steps=plan.max_steps)
        self.next_evaluation = 1 / plan.n_validations

    # -- the loop -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Choose the objective and evaluate the initial weights."""
        x, generator = self.x, self.generator
        noisy = not self.denoiser.closed_form
        quadrature, seconds, plan = None, math.inf, self.plan
        if plan.max_time is not None:
            seconds = EVALUATION_SHARE * plan.max_time
        if noisy:
            quadrature = pilot_quadrature(self.denoiser, x, generator, seconds=seconds)
        self.use(quadrature, int(torch.randint(2**31, (1,), generator=generator, device=x.device)))
        self.evaluate()
        self.began = self.deadline.age

    def use(self, quadrature: Quadrature | None, seed: int) -> None:
        """Set the objective, by the SNRs of ``quadrature`` or in closed form, and the evaluator, by ``seed``."""
        plan = self.plan
        if quadrature is None:
            self.loss = judge = ExactLoss()
        else:
            self.loss = TrainingLoss(quadrature, plan.isotropic)
            judge = TrainingLoss(quadrature, 1.0 if plan.isotropic == 1.0 else 0.0)
        n_draws = EVALUATED_DRAWS
        if plan.max_time is not None and judge.repeats:
            in_time = EVALUATION_SHARE * plan.max_time / seconds_of_row(self.denoiser, self.x)
            n_draws = max(32, min(EVALUATED_DRAWS, int(in_time)))
        self.evaluator = Evaluator(judge, self.x_valid, seed, n_draws)

    def finish(self) -> None:
        """Train to the end."""
        plan, report = self.plan, self.report
        self.denoiser.train()
        while (share := self.done_share()) < 1.0 and not report.stopped:
            self.make_step(share)
            if self.deadline.interrupted:
                break
            if not self.has_time():
                report.stopped = "max_time"
                self.losses.clear()
                return
            due = self.done_share() >= self.next_evaluation and (
                self.step > TRIAL_STEPS or not self.is_short()
            )
            if not (due or self.is_early()):
                continue
            before = self.done_share()
            self.evaluate()
            # skip evaluations that are due already; if time is bounded, most of it should be spent on training
            took = self.done_share() - before
            ahead = EVALUATION_PAUSE * took if plan.max_time else 0.0
            while self.next_evaluation <= self.done_share() + ahead:
                self.next_evaluation += 1 / plan.n_validations
            if self.average.stale >= plan.patience:
                self.plateau()
        if self.deadline.interrupted:
            report.stopped = "interrupted"
            return
        if not report.stopped:
            report.stopped = "max_steps" if self.step >= plan.max_steps else "max_time"
        if self.losses:
            self.evaluate()

    def done_share(self) -> float:
        """Used share of the bound on steps or time; time for the last evaluation is reserved."""
        if self.deadline.interrupted:
            return 1.0
        share = self.step / max(self.plan.max_steps, 1)
        if self.plan.max_time is not None:
            age, bound = self.deadline.age, self.plan.max_time - self.seconds_to_evaluate
            share = max(share, (age - self.began) / (bound - self.began) if age < bound else 1.0)
        return min(share, 1.0) if self.plan.max_steps else 1.0

    def seconds_of_step(self) -> float:
        """Mean seconds of a step so far, evaluations included."""
        return (self.deadline.age - self.began) / self.step

    def is_short(self) -> bool:
        """Whether the time is expected to end before all steps are made."""
        n_left = self.plan.max_steps - self.step
        return self.step > 0 and self.seconds_of_step() * n_left > self.deadline.left

    def is_early(self) -> bool:
        """Whether an early evaluation is due; if time is short, only if it takes a small part of it."""
        if self.step not in EARLY_EVALUATIONS or not self.is_short():
            return self.step in EARLY_EVALUATIONS
        trained = self.deadline.age - self.report.history[-1].seconds
        return trained > EVALUATION_PAUSE * self.seconds_to_evaluate

    def has_time(self) -> bool:
        """Whether, at the speed of the first TRIAL_STEPS, there is time for 32 steps."""
        if self.step > TRIAL_STEPS or not self.is_short():
            return True
        left = self.deadline.left - self.seconds_to_evaluate
        if self.step < TRIAL_STEPS:
            return left > 0
        return self.step + left / self.seconds_of_step() >= min(32, self.plan.max_steps)

    def make_step(self, share: float) -> None:
        """Follow the gradient of one batch, without waiting for the device."""
        rate = self.plan.learning_rate * self.cut * 0.5 * (1 + math.cos(math.pi * share))
        warm = (self.step + 1) / self.plan.warmup
        if self.is_short():
            warm = max(warm, share / 0.1)  # warmup ends after a tenth of the time
        rate *= min(1.0, warm)
        if self.loss_at is not None:
            self.loss = self.loss_at(share)
        x, *constants = next(self.batches)
        loss = self.loss.nats(self.denoiser, x, self.generator, *constants).mean()
        self.optimizer.step(loss, rate)
        self.step += 1
        self.average.follow(self.parameters)
        self.losses.append(loss.detach())

    def evaluate(self) -> None:
        """Validate the average, or end the training if weights have diverged."""
        if self.has_diverged():
            self.losses.clear()
            self.report.stopped = "diverged"
            return
        before = self.deadline.age
        nats = self.evaluator(self.average.model)
        valid = mean_and_error(nats)
        train = mean_and_error(torch.stack(self.losses)) if self.losses else (math.nan, math.nan)
        self.losses.clear()
        seconds = self.deadline.age
        self.seconds_to_evaluate = seconds - before
        self.report.history.append(Evaluation(self.step, seconds, *train, *valid))
        self.average.consider(valid[0])
        if self.is_hopeless is not None and self.is_hopeless(self.done_share(), nats):
            self.report.stopped = "hopeless"
        if self.progress is not None:
            self.progress(self.done_share(), self.report.history[-1])

    def plateau(self) -> None:
        """Continue from the best weights with a smaller learning rate; stop if it is small already or it is late."""
        if self.cut <= SMALLEST_CUT or self.done_share() > self.plan.last_cut:
            self.report.stopped = "no improvement"
            return
        self.cut *= RATE_CUT
        self.average.restore(self.parameters)

    def has_diverged(self) -> bool:
        """Whether a weight is infinite or NaN; the host waits for the device."""
        sums = [p.detach().sum() for p in self.parameters]
        return bool(sums) and not bool(torch.stack(sums).isfinite().all())
