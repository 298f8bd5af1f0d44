"""Training by several processes at once, as ``torchrun`` starts them: one leads, the others follow it step by step.

Process 0 fits the model and takes every decision: what is trained, when it is evaluated, when it ends. Wherever it
trains a network, the others share the work: each has a part of the rows, draws its part of every batch from them, and
``DistributedDataParallel`` averages the gradients, so that a step is that of one process with the whole batch. So no
two processes can come to different decisions, only process 0 writes models, and a recipe needs no word about any of it.

What a follower draws is a function of the seed, its rank and the number of the step: nothing of it has to be kept in a
checkpoint, and a run that was killed goes on as if it had not been.

Where several networks are to be trained that do not depend on each other, each process trains some of them alone
(:meth:`Team.each`): nothing has to be averaged then, and each network is that of one process. It keeps their
checkpoints, too, beside that of process 0, so that a run that goes on needs a file system that all processes share.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from discrete_itd.training.acceleration import accelerated
from discrete_itd.training.evaluation import mean_and_error
from discrete_itd.training.follower import (
    STOP,
    Follower,
    MeanLoss,
    Parts,
    Training,
    own_device,
)
from discrete_itd.training.rows import RowSource

PATIENCE = timedelta(days=30)  # with which others wait: process 0 may fit exact models for hours
LOST = "another process of this job has ended, and so does this one; its own message says why"

Asked = ParamSpec("Asked")
Made = TypeVar("Made")


class Task(Protocol):
    """Work of which each process does a part by itself, and that can be pickled."""

    def do(self, part: int, n_parts: int) -> Any:
        """The result of part ``part`` of ``n_parts``, which can be pickled, too."""
        ...


class Results(NamedTuple):
    """What the processes made of a :class:`Task`.

    Attributes
    ----------
    parts : list
        In the order of the processes.
    interrupted : bool
        Whether the user asked process 0 to end while it waited for the others.
    """

    parts: list[Any]
    interrupted: bool = False


@dataclass
class Agreed:
    """What process 0 told all processes, outside of a training."""

    value: Any


@dataclass
class Outcome:
    """What the fit of process 0 ended with: a model, or why there is none."""

    model: Any = None
    error: str = ""


class FitError(RuntimeError):
    """What a follower raises if the fit of process 0 failed."""


class Team:
    """The processes that fit one model. This class is a team of one; :class:`Processes` are several.

    Attributes
    ----------
    rank, size : int
        Which process this is, of how many.
    """

    rank, size = 0, 1

    def part(self, x: Tensor, rank: int | None = None) -> Tensor:
        """The held-out rows of ``x`` (N, C) on which one process evaluates: all if there are fewer than processes."""
        if len(x) < self.size:
            return x
        return x[self.rank if rank is None else rank :: self.size]

    def start(self, training: Training, source: RowSource, x_valid: Tensor) -> None:
        """Let the others join a training, of which process 0 has all rows."""

    def tell(self, what: int, rate: float = 0.0, step: int = 0) -> None:
        """Let the others do what this process does next."""

    def stop(self) -> None:
        """Let the others leave the training, if there is one."""

    def send(self, value: Any) -> None:
        """Give the others an object."""

    def together(self, mean: MeanLoss) -> nn.Module:
        """The loss whose gradients are averaged over the team."""
        return mean

    def mean_and_error(self, values: Tensor) -> tuple[float, float]:
        """Mean of the values (n,) of all, and its standard error."""
        return mean_and_error(values)

    def agreed(self, value: Any) -> Any:
        """The value that process 0 gave: all processes that are not followers call this at the same place."""
        return value

    def each(self, task: Task) -> Results:
        """The results of the parts of a task, of which each process does one.

        Raises
        ------
        TypeError
            If the task cannot be sent to another process.
        Exception
            Of the first process that failed, when the others are done.
        """
        return Results([task.do(0, 1)])

    def explained(self, error: RuntimeError) -> RuntimeError:
        """The error to raise for one that came up in a training."""
        return error

    @contextmanager
    def leading(self) -> Iterator[Outcome]:
        """Around a fit in process 0: at its end the others get the model of the outcome, or learn why there is none."""
        yield Outcome()

    def dismiss(self) -> None:
        """Let the others end."""

    def follow(self) -> Any:
        """Share in the trainings of process 0 until its fit has ended; returns its model, None after a dismissal.

        Raises
        ------
        FitError
            If the fit failed.
        RuntimeError
            If process 0 has ended.
        """
        raise NotImplementedError("a team of one has nobody to follow")


class Processes(Team):
    """The processes of ``torch.distributed``'s default group, more than one.

    Words go by a group of their own on the CPU, so that no GPU waits for them.
    """

    def __init__(self) -> None:
        self.world = dist.group.WORLD
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._words: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._sent: Parts | None = (
            None  # of process 0: the rows of which the others have their parts
        )
        self._trains = False

    def start(self, training: Training, source: RowSource, x_valid: Tensor) -> None:
        self.send(training)
        self._trains = True
        sent = self._sent
        known = sent is not None and sent[0] is source and sent[1] is x_valid
        self.send(known)
        if not known:
            cpu = torch.device("cpu")
            parts: list[Parts | None] = [
                (source.part(r, self.size).to(cpu), self.part(x_valid, r).cpu())
                for r in range(1, self.size)
            ]
            dist.scatter_object_list([None], [None, *parts], group=self._words)
            self._sent = source, x_valid

    def tell(self, what: int, rate: float = 0.0, step: int = 0) -> None:
        dist.broadcast(torch.tensor([what, rate, step], dtype=torch.float64), 0, self._words)

    def stop(self) -> None:
        if self._trains:
            self._trains = False
            with suppress(RuntimeError):  # nobody may be left to hear it
                self.tell(STOP)

    def told(self) -> tuple[int, float, int]:
        """What process 0 tells this one: what to do, at which learning rate, in which step."""
        words = torch.zeros(3, dtype=torch.float64)
        dist.broadcast(words, 0, self._words)
        what, rate, step = words.tolist()
        return int(what), rate, int(step)

    def send(self, value: Any) -> None:
        dist.broadcast_object_list([value], group=self._words)

    def received(self) -> Any:
        """What process 0 sends."""
        got: list[Any] = [None]
        dist.broadcast_object_list(got, group=self._words)
        return got[0]

    def together(self, mean: MeanLoss) -> nn.Module:
        unused = bool(mean.denoiser.codebook.vocabularies)  # a batch has only some of the words
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # the argument has another name in torch 2.13
            return DistributedDataParallel(
                mean, broadcast_buffers=False, find_unused_parameters=unused
            )

    def mean_and_error(self, values: Tensor) -> tuple[float, float]:
        values = values.double()
        n, total = self._total(torch.stack([values.new_tensor(len(values)), values.sum()])).tolist()
        squares = float(self._total((values - total / n).square().sum()))
        return total / n, math.sqrt(squares / (n - 1) / n) if n > 1 else math.nan

    def _total(self, values: Tensor) -> Tensor:
        dist.all_reduce(values, group=self.world)
        return values

    def agreed(self, value: Any) -> Any:
        if self.rank == 0:
            self.send(Agreed(value))
            return value
        return self.received().value

    def each(self, task: Task) -> Results:
        try:
            sent = pickle.dumps(task)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"several processes can only fit rows and recipes that can be pickled: {error}"
            ) from None
        self.send(sent)
        results: list[Any] = [None] * self.size
        own = self.part_of(lambda: task)
        try:
            with held_back() as came:
                dist.gather_object(own, results, group=self._words)
        except RuntimeError as error:
            raise self.explained(error) from error
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return Results(results, bool(came))

    def part_of(self, task: Callable[[], Task]) -> Any:
        """What this process does of a task, or the error with which that ended: the others wait for either."""
        try:
            return task().do(self.rank, self.size)
        except (Exception, KeyboardInterrupt) as error:
            return error if can_be_sent(error) else RuntimeError(f"{type(error).__name__}: {error}")

    def explained(self, error: RuntimeError) -> RuntimeError:
        text = str(error).lower()
        is_lost = isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
        return RuntimeError(LOST) if is_lost else error

    @contextmanager
    def leading(self) -> Iterator[Outcome]:
        outcome = Outcome()
        try:
            yield outcome
        except BaseException as error:
            outcome.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._sent = None
            with suppress(RuntimeError):  # as above
                self.send(outcome)

    def dismiss(self) -> None:
        with suppress(RuntimeError):  # as above
            self.send(None)

    def follow(self) -> Any:
        rows: Parts | None = None
        try:
            while not isinstance(heard := self.received(), Outcome | None):
                if isinstance(heard, Agreed):
                    continue
                if not isinstance(heard, Training):
                    own = self.part_of(partial(pickle.loads, heard))
                    dist.gather_object(own, None, group=self._words)
                    continue
                if not self.received():  # whether the rows are those of the training before
                    got: list[Any] = [None]
                    dist.scatter_object_list(got, None, group=self._words)
                    rows = got[0]
                assert rows is not None
                # the state of the process is left as it was: only initial weights and dropout draw from it
                device = own_device(heard.device)
                with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    follower = Follower(self, heard, rows, device)
                    with accelerated(follower.denoiser, heard.plan):
                        follower.run()
        except RuntimeError as error:
            raise self.explained(error) from error
        if isinstance(heard, Outcome) and heard.error:
            raise FitError(f"the fit failed in process 0: {heard.error}")
        return heard and heard.model


@contextmanager
def held_back() -> Iterator[list[int]]:
    """Hold Ctrl-C back within the block, in the main thread: the list tells whether it came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def can_be_sent(error: BaseException) -> bool:
    """Whether another process can raise this error."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # whatever its own code raises
        return False


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
        _teams.clear()
        dist.destroy_process_group()


_teams: list[Processes] = []  # that of the default group, as soon as it was asked for


def team_of_process() -> Team:
    """The team of ``torch.distributed``'s default group; a team of one if there is none."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Team()
    if not _teams or _teams[0].world is not dist.group.WORLD:
        _teams[:] = [Processes()]
    return _teams[0]


def led(fit: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """Decorate a function that fits a model: process 0 calls it, the others take part and get the same model."""

    @wraps(fit)
    def call(*args: Asked.args, **kwargs: Asked.kwargs) -> Made:
        team = team_of_process()
        if team.rank:
            return team.follow()
        with team.leading() as outcome:
            outcome.model = fit(*args, **kwargs)
        return outcome.model

    return call
