"""Training by several processes at once, as ``torchrun`` starts them: one leads, the others follow it step by step.

Process 0 fits the model and makes every decision: what is trained, when it is evaluated, when it ends. Wherever it
trains a network, decoders excepted, the others share the work: each has a part of the rows, draws its part of every
batch from them, and ``DistributedDataParallel`` averages the gradients, so that a step is that of one process with the
whole batch. So no two processes can come to different decisions, and only process 0 writes models. The batches of a
follower are a function of the seed, its rank and the number of the step: checkpoints need not hold them.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from discrete_itd.channel import Quadrature
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.config import TrainingPlan, accelerated
from discrete_itd.training.objectives import Evaluator, Loss, losses, mean_and_error
from discrete_itd.training.optimizer import Average, Optimizer, restore
from discrete_itd.training.rows import RowSource, batches_with

PATIENCE = timedelta(days=30)  # timeout of the others: process 0 may fit exact models for hours
LOST = "another process of this job has ended, and so does this one; its own message says why"

STEP, EVALUATE, LOAD, STOP = range(4)  # commands of process 0
Asked = ParamSpec("Asked")
Made = TypeVar("Made")


Weights = tuple[int, dict[str, Tensor]]  # the number of averaged steps, and tensors by name
Parts = tuple[RowSource, Tensor]  # rows to train on, and held-out rows


@dataclass
class Training:
    """Description of a training for followers, besides its rows.

    ``seed`` is that of the evaluations and, with the rank, of batches and noise; ``batch_size`` the rows of one process
    in a step; ``weights`` those of the optimiser and of the average; ``device`` that of process 0.
    """

    denoiser: Denoiser
    plan: TrainingPlan
    quadrature: Quadrature | None
    seed: int
    batch_size: int
    weights: Weights
    device: torch.device


class MeanLoss(nn.Module):
    """Mean nats of a batch, as the module that ``DistributedDataParallel`` wraps."""

    def __init__(self, denoiser: Denoiser, loss: Loss) -> None:
        super().__init__()
        self.denoiser, self.loss = denoiser, loss

    def forward(self, generator: torch.Generator, x: Tensor, *constants: Tensor) -> Tensor:
        """Mean nats of rows ``x`` (B, C): a scalar."""
        return self.loss.nats(self.denoiser, x, generator, *constants).mean()


@dataclass
class Agreed:
    """A value that process 0 sends to all processes, outside of a training."""

    value: Any


@dataclass
class Outcome:
    """Result of the fit of process 0: a model, or an error."""

    model: Any = None
    error: str = ""


class FitError(RuntimeError):
    """Raised by a follower if the fit of process 0 failed."""


class Team:
    """The processes that fit one model: those of a group of ``torch.distributed``, or one if there is none.

    ``rank`` is the number of this process among ``size``. Commands use a group of their own on the CPU, so that no GPU
    waits for them.
    """

    def __init__(self, world: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self._world = 0, 1, world
        self._trains = False
        if world is not None:
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
            self._commands: Any = dist.new_group(backend="gloo", timeout=PATIENCE)

    def part(self, x: Tensor, rank: int | None = None) -> Tensor:
        """The held-out rows of ``x`` (N, C) on which one process evaluates: all if there are fewer than processes."""
        if len(x) < self.size:
            return x
        return x[self.rank if rank is None else rank :: self.size]

    def start(self, training: Training, source: RowSource, x_valid: Tensor) -> None:
        """Let the others join a training; process 0 has all of its rows."""
        self._trains, cpu = True, torch.device("cpu")
        self.send(training)
        parts: list[Parts] = [
            (source.part(r, self.size).to(cpu), self.part(x_valid, r).cpu())
            for r in range(1, self.size)
        ]
        dist.scatter_object_list([None], [None, *parts], group=self._commands)

    def command(self, kind: int, rate: float = 0.0, step: int = 0) -> None:
        """Send the others the next command of this process."""
        if self.size > 1:
            values = torch.tensor([kind, rate, step], dtype=torch.float64)
            dist.broadcast(values, 0, self._commands)

    def next_command(self) -> tuple[int, float, int]:
        """The next command of process 0: its kind, the learning rate, and the step."""
        values = torch.zeros(3, dtype=torch.float64)
        dist.broadcast(values, 0, self._commands)
        kind, rate, step = values.tolist()
        return int(kind), rate, int(step)

    def stop(self) -> None:
        """Let the others leave the training, if there is one."""
        if self._trains:
            self._trains = False
            with suppress(RuntimeError):  # the others may have ended
                self.command(STOP)

    def send(self, value: Any) -> None:
        """Send the others an object."""
        if self.size > 1:
            dist.broadcast_object_list([value], group=self._commands)

    def received(self) -> Any:
        """The object that process 0 sends."""
        got: list[Any] = [None]
        dist.broadcast_object_list(got, group=self._commands)
        return got[0]

    def together(self, mean: MeanLoss) -> nn.Module:
        """The loss whose gradients are averaged over the team."""
        if self.size == 1:
            return mean
        unused = bool(mean.denoiser.codebook.vocabularies)  # a batch has only some categories
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames the argument
            return DistributedDataParallel(
                mean, broadcast_buffers=False, find_unused_parameters=unused
            )

    def mean_and_error(self, values: Tensor) -> tuple[float, float]:
        """Mean of the values (n,) of all processes, and its standard error."""
        if self.size == 1:
            return mean_and_error(values)
        values = values.double()
        n, total = self._total(torch.stack([values.new_tensor(len(values)), values.sum()])).tolist()
        squares = float(self._total((values - total / n).square().sum()))
        return total / n, math.sqrt(squares / (n - 1) / n) if n > 1 else math.nan

    def _total(self, values: Tensor) -> Tensor:
        dist.all_reduce(values, group=self._world)
        return values

    def agreed(self, value: Any) -> Any:
        """The value of process 0: all processes that are not followers call this at the same place."""
        if self.rank:
            return self.received().value
        self.send(Agreed(value))
        return value

    def explained(self, error: RuntimeError) -> RuntimeError:
        """The error to raise in place of one that occurred in a training."""
        text = str(error).lower()
        is_lost = isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
        return RuntimeError(LOST) if self.size > 1 and is_lost else error

    def dismiss(self) -> None:
        """Let the others end."""
        with suppress(RuntimeError):  # they may have ended
            self.send(None)

    def follow(self) -> Any:
        """Take part in the trainings of process 0 until its fit has ended; returns its model, None after a dismissal.

        A FitError if the fit failed, a RuntimeError if process 0 has ended.
        """
        try:
            while not isinstance(command := self.received(), Outcome | None):
                if isinstance(command, Agreed):
                    continue
                rows: list[Any] = [None]
                dist.scatter_object_list(rows, None, group=self._commands)
                # the global random state, used by initial weights and dropout, is restored
                device = own_device(command.device)
                with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    follower = Follower(self, command, rows[0], device)
                    with accelerated(follower.denoiser, command.plan):
                        follower.run()
        except RuntimeError as error:
            raise self.explained(error) from error
        if isinstance(command, Outcome) and command.error:
            raise FitError(f"the fit failed in process 0: {command.error}")
        return command and command.model


class Follower:
    """A process that takes part in a training of process 0."""

    def __init__(self, team: Team, training: Training, rows: Parts, device: torch.device) -> None:
        plan, self.source, x_valid = training.plan, rows[0].to(device), rows[1].to(device)
        self.team, self.training = team, training
        self.denoiser = denoiser = training.denoiser.to(device).train()
        self.parameters = {n: p for n, p in denoiser.named_parameters() if p.requires_grad}
        self.average = Average(denoiser, plan.ema)
        self.optimizer = Optimizer(
            self.parameters, plan.weight_decay, plan.max_gradient * x_valid.shape[1]
        )
        loss, judge = losses(plan, training.quadrature)
        self.evaluator = Evaluator(judge, x_valid, training.seed)
        self.generator, self.orders = torch.Generator(device), torch.Generator(device)
        self.epoch, self.n_taken = -1, 0
        self.load(training.weights)
        self.mean = team.together(MeanLoss(denoiser, loss))

    def run(self) -> None:
        """Execute the commands of process 0 until it stops."""
        while True:
            kind, rate, step = self.team.next_command()
            if kind == STEP:
                self.make_step(rate, step)
            elif kind == EVALUATE:
                self.team.mean_and_error(self.evaluator(self.average.model))
            elif kind == LOAD:
                self.load(self.team.received())
            else:
                return

    def make_step(self, rate: float, step: int) -> None:
        """Contribute the gradient of a batch of this process's rows."""
        batch = self.batch(step)
        self.generator.manual_seed(self.seed(step, 1))
        torch.manual_seed(self.seed(step, 2))  # dropout
        self.optimizer.step(self.mean(self.generator, *batch), rate)
        self.average.follow(self.parameters.values())

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The batch of a step: the order of each epoch is independent of earlier draws."""
        size = self.training.batch_size
        epoch, i = divmod(step, max(1, self.source.n_rows // size))
        if epoch != self.epoch:
            self.epoch, self.n_taken = epoch, 0
            self.orders.manual_seed(self.seed(epoch, 0))
            most = self.training.plan.max_steps
            self.batches = batches_with(
                self.source, self.denoiser.constants, size, self.orders, most
            )
        while self.n_taken < i:  # a run that continues
            next(self.batches)
            self.n_taken += 1
        self.n_taken += 1
        return next(self.batches)

    def seed(self, number: int, kind: int) -> int:
        """A seed for a step or an epoch."""
        key = [self.training.seed, self.team.rank, number, kind]
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    def load(self, weights: Weights) -> None:
        """Continue from the weights of process 0."""
        self.average.n_steps, kept = weights
        restore({**self.optimizer.tensors, **self.average.tensors}, kept)


def own_device(device: torch.device) -> torch.device:
    """The device of a follower, given that of process 0: each process on a machine has its own GPU."""
    if device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def job() -> Iterator[Team]:
    """The team of the job in which ``torchrun`` has started this process; a team of one if it has not."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield team_of_process()
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield team_of_process()
    finally:
        _team_of.cache_clear()
        dist.destroy_process_group()


_team_of = cache(Team)  # the one of each group


def team_of_process() -> Team:
    """The team of ``torch.distributed``'s default group; a team of one if there is none."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Team()
    return _team_of(dist.group.WORLD)


def led(fit: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """Decorate a function that fits a model: process 0 calls it, the others take part and get the same model."""

    @wraps(fit)
    def call(*args: Asked.args, **kwargs: Asked.kwargs) -> Made:
        team, outcome = team_of_process(), Outcome()
        if team.rank:
            return team.follow()
        try:
            outcome.model = fit(*args, **kwargs)
        except BaseException as error:
            outcome.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            with suppress(RuntimeError):  # the others may have ended
                team.send(outcome)
        return outcome.model

    return call
