"""A process that takes part in a training of process 0, see :mod:`discrete_itd.training.distributed`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from discrete_itd.channel import Quadrature
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.config import TrainingPlan
from discrete_itd.training.evaluation import Evaluator
from discrete_itd.training.objectives import Loss, losses
from discrete_itd.training.rows import RowSource, batches_with
from discrete_itd.training.state import Average, Optimizer

if TYPE_CHECKING:
    from discrete_itd.training.distributed import Processes

STEP, EVALUATE, LOAD, STOP = range(4)  # what process 0 tells the others to do

Parts = tuple[RowSource, Tensor]  # rows to train on, and held-out rows


@dataclass
class Training:
    """What a follower must know of a training besides its rows.

    Parameters
    ----------
    denoiser : Denoiser
    plan : TrainingPlan
    quadrature : Quadrature or None
    seed : int
        Of the evaluations, and with the rank of what is drawn.
    batch_size : int
        Rows of one process in a step.
    state : dict
        Weights of the optimiser and of the average.
    device : torch.device
        Of process 0.
    """

    denoiser: Denoiser
    plan: TrainingPlan
    quadrature: Quadrature | None
    seed: int
    batch_size: int
    state: dict[str, Any]
    device: torch.device


class MeanLoss(nn.Module):
    """Mean nats of a batch, as the module that ``DistributedDataParallel`` wraps."""

    def __init__(self, denoiser: Denoiser, loss: Loss) -> None:
        super().__init__()
        self.denoiser, self.loss = denoiser, loss

    def forward(self, generator: torch.Generator, x: Tensor, *constants: Tensor) -> Tensor:
        """Mean nats of rows ``x`` (B, C): a scalar."""
        return self.loss.nats(self.denoiser, x, generator, *constants).mean()


class Follower:
    """A process that shares in a training of process 0."""

    def __init__(
        self, team: Processes, training: Training, rows: Parts, device: torch.device
    ) -> None:
        plan, self.source, x_valid = training.plan, rows[0].to(device), rows[1].to(device)
        self.team, self.training = team, training
        self.denoiser = denoiser = training.denoiser.to(device).train()
        self.parameters = {n: p for n, p in denoiser.named_parameters() if p.requires_grad}
        self.average = Average(denoiser, plan.ema)
        self.optimizer = Optimizer(self.parameters, plan, x_valid.shape[1])
        loss, judge = losses(plan, training.quadrature)
        self.evaluator = Evaluator(judge, x_valid, training.seed)
        self.generator, self.orders = torch.Generator(device), torch.Generator(device)
        self.epoch, self.n_taken = -1, 0
        self.load(training.state)
        self.mean = team.together(MeanLoss(denoiser, loss))

    def run(self) -> None:
        """Do what process 0 tells until it stops."""
        while True:
            what, rate, step = self.team.told()
            if what == STEP:
                self.make_step(rate, step)
            elif what == EVALUATE:
                self.team.mean_and_error(self.evaluator(self.average.model))
            elif what == LOAD:
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
        """The batch of a step: each epoch has an order of its own, which does not depend on what was drawn before."""
        size = self.training.batch_size
        epoch, i = divmod(step, max(1, self.source.n_rows // size))
        if epoch != self.epoch:
            self.epoch, self.n_taken = epoch, 0
            self.orders.manual_seed(self.seed(epoch, 0))
            most = self.training.plan.max_steps
            self.batches = batches_with(
                self.source, self.denoiser.constants, size, self.orders, most
            )
        while self.n_taken < i:  # a run that goes on
            next(self.batches)
            self.n_taken += 1
        self.n_taken += 1
        return next(self.batches)

    def seed(self, number: int, kind: int) -> int:
        """A seed for a step or an epoch."""
        key = [self.training.seed, self.team.rank, number, kind]
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    def load(self, state: dict[str, Any]) -> None:
        """Go on from the weights of process 0."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])


def own_device(device: torch.device) -> torch.device:
    """The device of a follower, by that of process 0: of several GPUs of a machine, each process has its own."""
    if device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
