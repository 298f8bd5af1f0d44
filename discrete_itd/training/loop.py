"""A training under way: the loop, what goes wrong in it, and the state from which it goes on.

Every few dozen steps the weights are looked at, and if they are sound, the whole state of the run is kept. From
there a run goes on that went wrong (with a smaller learning rate) or that was ended (from a checkpoint).
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from discrete_itd.channel import Quadrature
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.storage.files import State
from discrete_itd.storage.schema import building
from discrete_itd.training.checkpoint import Checkpoint, describe
from discrete_itd.training.config import Evaluation, Report, Rollback, TrainingPlan
from discrete_itd.training.objective import Evaluator, Patterns, mean_and_error, pilot_quadrature

RATE_CUT, SMALLEST_CUT = 0.3, 0.1  # of the learning rate, at each plateau
EARLY_LOOKS = (8, 16, 32, 64, 128)  # steps; a small table is learned, and over-learned, soon
LOOK_PAUSE = 4  # times as long as a look took, before the next
CHECK_STEPS = 32  # between two checks, each of which makes a GPU wait
DIVERGED_STEPS = 128  # with a loss far above the untrained model's, after which a run has diverged
MOST_ROLLBACKS = 3
ENDS = ("max_steps", "max_time", "no improvement", "interrupted", "diverged")


class Run:
    """A training under way: everything that changes from step to step, and that a checkpoint must hold."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        x_valid: Tensor,
        plan: TrainingPlan,
        generator: torch.Generator,
        progress: Callable[[float, Evaluation], object] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.start = time.perf_counter()
        self.denoiser, self.x, self.x_valid, self.plan = denoiser, x, x_valid, plan
        self.generator, self.progress, self.checkpoint = generator, progress, checkpoint
        self.identity = describe(denoiser, x, x_valid, plan) if checkpoint else {}
        self.parameters = [p for p in denoiser.parameters() if p.requires_grad]
        self.average = Average(denoiser, plan.ema)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            fused=x.device.type in ("cpu", "cuda"),
        )
        self.batches = Batches(x, min(plan.batch_size, max(32, len(x) // 8)), generator)
        self.report = Report()
        self.step, self.next_look, self.cut = 0, 1 / plan.n_validations, 1.0
        self.losses: list[Tensor] = []  # since the last look
        self.norms: list[Tensor] = []  # of the gradients, since the last check
        self.astray = 0  # steps with a loss that is far too high
        self.kept: State = {}, {}

    # -- the loop -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Judge the weights that training starts from."""
        x, generator = self.x, self.generator
        quadrature = pilot_quadrature(self.denoiser, x, generator)
        seed = int(torch.randint(2**31, (1,), generator=generator, device=x.device))
        self.judge_by(quadrature, seed)
        self.look()
        self.keep()

    def judge_by(self, quadrature: Quadrature, seed: int) -> None:
        """Train and validate on the SNRs of ``quadrature``."""
        self.quadrature, self.seed = quadrature, seed
        self.patterns = Patterns(quadrature, self.plan.patterns, balanced=True)
        self.evaluate = Evaluator(Patterns(quadrature, self.plan.judged), self.x_valid, seed)

    def go_on(self) -> None:
        """Train to the end."""
        plan, report = self.plan, self.report
        self.denoiser.train()
        while (share := self.done_share()) < 1.0 and not report.stopped:
            self.make_step(share)
            due = self.done_share() >= self.next_look or self.step in EARLY_LOOKS
            if not due and self.step % CHECK_STEPS:
                continue
            if rollback := self.check():
                self.roll_back(rollback)
                continue
            if due:
                before = self.done_share()
                self.look()
                # several may be due by now; and where time is short, most of it should be spent on training
                ahead = LOOK_PAUSE * (self.done_share() - before) if plan.max_time else 0.0
                while self.next_look <= self.done_share() + ahead:
                    self.next_look += 1 / plan.n_validations
                if self.average.stale >= plan.patience:
                    self.plateau()
            if not self.astray:
                self.keep()
        if not report.stopped:
            report.stopped = "max_steps" if self.step >= plan.max_steps else "max_time"
        if self.norms and (rollback := self.check()):
            self.roll_back(rollback)
        if self.losses:
            self.look()

    def done_share(self) -> float:
        """How much of the bounds on steps and time is used up."""
        share = self.step / max(self.plan.max_steps, 1)
        if self.plan.max_time is not None:
            share = max(share, (time.perf_counter() - self.start) / self.plan.max_time)
        return min(share, 1.0) if self.plan.max_steps else 1.0

    def make_step(self, share: float) -> None:
        """Follow the gradient of one batch."""
        rate = self.plan.learning_rate * self.cut * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / 100)
        loss = self.patterns.loss(self.denoiser, next(self.batches), self.generator).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 10.0 * self.x.shape[1])
        self.optimizer.step()
        self.step += 1
        self.average.follow(self.parameters)
        self.losses.append(loss.detach())
        self.norms.append(norm.detach())

    def look(self) -> None:
        """Validate the average."""
        valid = self.evaluate(self.average.model)
        train = mean_and_error(torch.stack(self.losses)) if self.losses else (math.nan, math.nan)
        self.losses.clear()
        seconds = time.perf_counter() - self.start
        self.report.history.append(Evaluation(self.step, seconds, *train, *valid))
        self.average.consider(valid[0])
        if self.progress is not None:
            self.progress(self.done_share(), self.report.history[-1])

    def plateau(self) -> None:
        """Go on from the best weights with a smaller learning rate, or stop if it is small already."""
        if self.cut <= SMALLEST_CUT:
            self.report.stopped = "no improvement"
            return
        self.cut *= RATE_CUT
        self.average.restore(self.parameters)

    # -- what goes wrong ----------------------------------------------------------------------------

    def check(self) -> Rollback | None:
        """Say what is wrong with the steps since the last check; None if nothing is."""
        n, good = len(self.norms), int(self.kept[0]["step"])
        losses = torch.stack(self.losses[-n:]).tolist()
        sizes = torch.stack(self.norms + [p.detach().sum() for p in self.parameters]).tolist()
        self.norms.clear()
        for i, size in enumerate(sizes):
            step = min(self.step - n + i + 1, self.step)
            if i < n and not math.isfinite(losses[i]):
                return Rollback(step, good, "the loss is not finite")
            if not math.isfinite(size):
                return Rollback(step, good, "the gradient is not finite")
        untrained = self.report.history[0].valid_nats
        far = untrained + max(1.0, abs(untrained))
        self.astray = self.astray + n if statistics.median(losses) > far else 0
        if self.astray < DIVERGED_STEPS:
            return None
        return Rollback(self.step, good, "the loss stays above the untrained model's")

    def roll_back(self, rollback: Rollback) -> None:
        """Go on from the state that was kept, with a smaller learning rate, or give up."""
        self.put_weights(*self.kept)
        self.losses.clear()
        self.astray = 0
        self.cut *= RATE_CUT
        self.report.rollbacks.append(rollback)
        if len(self.report.rollbacks) > MOST_ROLLBACKS:
            self.report.stopped = "diverged"

    # -- the state ----------------------------------------------------------------------------------

    def keep(self) -> None:
        """Keep the state, which is sound, and write it if it is time."""
        self.kept = self.state()
        if self.checkpoint is not None and self.checkpoint.due:
            self.write(self.kept)

    def write(self, state: State) -> None:
        """Write a state to the checkpoint, if there is one."""
        if self.checkpoint is None:
            return
        try:
            self.checkpoint.write(self.identity, state)
        except OSError as error:
            if self.step == 0 and not self.report.stopped:
                raise  # who asked for it is still there to give another path
            warnings.warn(f"the checkpoint is not up to date: {error}", stacklevel=3)

    def state(self) -> State:
        """Everything from which :meth:`resume` goes on, in copies."""
        average, report = self.average, self.report
        header: dict[str, Any] = {
            "step": self.step,
            "seconds": time.perf_counter() - self.start,
            "next_look": self.next_look,
            "cut": self.cut,
            "seed": self.seed,
            "batch": self.batches.position,
            "followed": average.followed,
            "best": average.best,
            "stale": average.stale,
            "history": [list(line) for line in report.history],
            "rollbacks": [list(line) for line in report.rollbacks],
            "stopped": report.stopped,
        }
        tensors = {
            "generator": self.generator.get_state(),
            "generator.epoch": self.batches.before,
            "generator.torch": torch.get_rng_state(),
            "losses": torch.stack(self.losses) if self.losses else torch.zeros(0),
        }
        if self.x.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.x.device)
        for name, value in vars(self.quadrature).items():
            tensors[f"quadrature.{name}"] = value
        for i, p in enumerate(self.parameters):
            tensors[f"weights.{i}"] = p.detach().clone()
            tensors[f"average.{i}"] = average.weights[i].clone()
            tensors[f"best.{i}"] = average.best_weights[i]  # replaced, never changed
            for name, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer.{i}.{name}"] = value.clone()
        return header, tensors

    def put_weights(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Take weights, average and optimiser from a state."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, what = name.split(".")
                moments.setdefault(int(i), {})[what] = value.clone()  # or steps would change it
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.average.followed = header["followed"]
        with torch.no_grad():
            for i, p in enumerate(self.parameters):
                p.copy_(tensors[f"weights.{i}"])
                self.average.weights[i].copy_(tensors[f"average.{i}"])

    def resume(self) -> bool:
        """Go on from the checkpoint; False if there is none."""
        found = self.checkpoint.found(self.identity) if self.checkpoint else None
        if found is None or self.checkpoint is None:
            return False
        try:
            with building("its state"):
                self.take(*found)
        except ValueError as error:
            raise self.checkpoint.damaged(error) from None
        self.kept = self.state()
        return True

    def take(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Become what :meth:`state` wrote; an error of some kind if that makes no sense."""
        history = [Evaluation(_whole(n), *map(_real, rest)) for n, *rest in header["history"]]
        rollbacks = [Rollback(_whole(n), _whole(g), str(r)) for n, g, r in header["rollbacks"]]
        numbers = [_real(header[k]) for k in ("next_look", "cut", "seconds", "best")]
        counts = [_whole(header[k]) for k in ("step", "followed", "stale", "seed", "batch")]
        if not history or header["stopped"] not in (*ENDS, ""):
            raise ValueError("it has no beginning or no such end")
        for i, p in enumerate(self.parameters):
            names = [k for k in tensors if k.startswith(f"optimizer.{i}.")]
            if names and sorted(k.split(".")[2] for k in names) != [
                "exp_avg",
                "exp_avg_sq",
                "step",
            ]:
                raise ValueError(f"the optimiser's state of weights {i} is incomplete")
            for name in (*names, f"weights.{i}", f"average.{i}", f"best.{i}"):
                value = tensors[name]
                shape = () if name.endswith(".step") else p.shape
                if value.shape != shape or not value.isfinite().all():
                    raise ValueError(f"{name} is not what it should be")
        device = self.x.device
        on_device = {k: v.to(device) for k, v in tensors.items() if not k.startswith("generator")}
        quadrature = Quadrature.__new__(Quadrature)  # which would normalise, and change a last bit
        for name, value in on_device.items():
            if name.startswith("quadrature."):
                setattr(quadrature, name.removeprefix("quadrature."), value)
        snr, weight = quadrature.points(torch.linspace(0, 0.999, 9, device=device))
        sound = (snr > 0) & (snr * weight).isfinite() & (quadrature.edges.diff() > 0).all()
        if not sound.all():
            raise ValueError("it has no quadrature")

        torch.set_rng_state(tensors["generator.torch"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator.cuda"], device)
        self.batches.resume(tensors["generator.epoch"], counts[4])
        self.generator.set_state(tensors["generator"])
        self.put_weights(header, on_device)
        self.next_look, self.cut, seconds, self.average.best = numbers
        self.step, _, self.average.stale, seed, _ = counts
        self.average.best_weights = [on_device[f"best.{i}"] for i in range(len(self.parameters))]
        self.losses = list(on_device["losses"].unbind())
        self.judge_by(quadrature, seed)
        self.start = time.perf_counter() - seconds
        self.report.rollbacks, self.report.stopped = rollbacks, header["stopped"]
        self.report.history = history


def _whole(value: Any) -> int:
    """Return a count that a state holds."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no count")
    return value


def _real(value: Any) -> float:
    """Return a number that a state holds."""
    if type(value) is not float:
        raise ValueError(f"{value!r} is no number")
    return value


class Average:
    """The moving average of a denoiser's weights, and the best of its past states."""

    def __init__(self, denoiser: Denoiser, decay: float) -> None:
        self.model = copy.deepcopy(denoiser).eval()
        self.weights = [p.requires_grad_(False) for p in self.model.parameters() if p.requires_grad]
        self._decay, self.followed = decay, 0
        self.best, self.best_weights = math.inf, [w.clone() for w in self.weights]
        self.stale = 0  # evaluations since the best

    def follow(self, parameters: list[nn.Parameter]) -> None:
        """Move towards the weights of the latest step; at first fast, to forget the start."""
        self.followed += 1
        share = 1 - min(self._decay, self.followed / (10 + self.followed))
        for w, p in zip(self.weights, parameters, strict=True):
            w.lerp_(p.detach(), share)

    def consider(self, nats: float) -> None:
        """Keep a copy of the average if it is the best so far."""
        if -math.inf < nats < self.best:
            self.best_weights = [w.clone() for w in self.weights]
            self.best, self.stale = nats, 0
        else:
            self.stale += 1

    @torch.no_grad()
    def restore(self, parameters: list[nn.Parameter]) -> None:
        """Put the best weights into the average and into ``parameters``."""
        self.stale = 0
        for w, p, best in zip(self.weights, parameters, self.best_weights, strict=True):
            w.copy_(best)
            p.copy_(best)


class Batches:
    """Batches of equal size without end; an epoch's remainder is dropped, a short table repeated.

    Attributes
    ----------
    before : Tensor
        State of the generator when the epoch's order was drawn: what to keep instead of the order.
    position : int
        Rows of the epoch that are used up.
    """

    def __init__(self, x: Tensor, size: int, generator: torch.Generator) -> None:
        self._x, self._size, self._generator = x, size, generator
        self._order = torch.zeros(0, dtype=torch.int64, device=x.device)
        self.before, self.position = generator.get_state(), 0

    def __next__(self) -> Tensor:
        if self.position + self._size > len(self._order):
            self._shuffle()
        rows = self._order[self.position : self.position + self._size]
        self.position += self._size
        return self._x[rows]

    def resume(self, before: Tensor, position: int) -> None:
        """Go on in an epoch; the generator is left in the state after drawing its order."""
        self._generator.set_state(before)
        if position:
            self._shuffle()
        if position > len(self._order):
            raise ValueError(f"no {position} rows in an epoch of {len(self._order)}")
        self.position = position

    def _shuffle(self) -> None:
        self.before, self.position = self._generator.get_state(), 0
        n, device = len(self._x), self._x.device
        folds = [
            torch.randperm(n, generator=self._generator, device=device)
            for _ in range(-(-self._size // n))
        ]
        self._order = torch.cat(folds)
