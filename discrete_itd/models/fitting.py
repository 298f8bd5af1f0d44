"""Fitting a model: the interface of recipes (rows and a plan in, a result out), and the fit by a recipe."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel import CoordinateSchedule, Schedule
from discrete_itd.denoisers import Denoiser
from discrete_itd.encoders import TableEncoder
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.models.model import (
    HeldOut,
    Model,
    split_evaluations,
)
from discrete_itd.progress import Deadline, show_training, stage
from discrete_itd.training.loop import Evaluation, Report, TrainingPlan, train
from discrete_itd.training.objectives import seconds_of_row
from discrete_itd.validation import check_integer, warn

# No model is begun after FITTING_SHARE of a fit's time, and a network without closed form is trained for TRAINING_SHARE
# of the time left: the choice of a schedule, the comparison of candidates and measurements come after.
FITTING_SHARE, TRAINING_SHARE = 0.95, 0.7
MOST_NETWORKS = 64  # most networks in a mixture of rows
NOISY = {"isotropic": 0.6}  # training settings for schedules with noisy cells: more noisy states


@runtime_checkable
class Recipe(Protocol):
    """Description of a denoiser to fit, as an immutable value: it can be compared, hashed, copied and saved.

    Your own recipe is a frozen dataclass that inherits from this class and defines :meth:`fit`.

    Attributes
    ----------
    trains : bool
        Whether its fit trains a network: the members of a mixture that do share ``max_time``.
    exact : bool
        Whether it makes an exact :class:`~discrete_itd.denoisers.Denoiser`, which a network can correct.
    mixes_reals : bool
        Whether its continuous columns depend on others: then a network can correct it only in tables without them.
    name : str
        A short name for tables; by default the class's name.
    bounds : mapping from name to (int, int)
        The least and the largest value of parameters that are integers, or None if that is the default.

    Examples
    --------
    A denoiser whose weights are known already needs no more than this (``MyDenoiser`` defines ``forward``):

    >>> @dataclass(frozen=True)
    ... class MyRecipe(Recipe):
    ...     def fit(self, rows, plan):
    ...         return MyDenoiser(rows.codebook)
    >>> MyRecipe() == MyRecipe()
    True
    """

    trains: bool = False
    exact: bool = False
    mixes_reals: bool = False
    name: str = ""
    bounds: ClassVar[Mapping[str, tuple[int, float]]] = {}

    @abstractmethod
    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser | Fitted:
        """The denoiser fitted to the rows; with its report, if it was trained by :meth:`FitPlan.train`.

        Random numbers must come from a new generator, seeded with ``plan.network_seed``: fits in other threads share
        PyTorch's global one.
        """
        ...

    def fit_base(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        """The denoiser that a network is to correct: continuous columns must be as in ``rows.marginals``."""
        if self.mixes_reals and len(rows.codebook.reals):
            raise ValueError(
                f"base: a {self.label} of continuous columns cannot be corrected by a network; take 'bayes_net'"
            )
        base = self.fit(rows, plan)
        if not isinstance(base, Denoiser) or not base.exact:
            raise TypeError(f"the base of a network must be exact, got {type(base)}")
        return base

    def check(self) -> Recipe:
        """This recipe, with names of recipes replaced by these; TypeError or ValueError names an invalid parameter."""
        for name, bounds in self.bounds.items():
            value = getattr(self, name)
            if value is not None or getattr(type(self), name) is not None:
                check_integer(name, value, *bounds)
        return self

    @property
    def label(self) -> str:
        return self.name or type(self).__name__


class Fitted(NamedTuple):
    """The result of a fit.

    Attributes
    ----------
    denoiser : Denoiser
    report : Report or None
        Course of the training; None if nothing was trained.
    companion, candidates, members, shares
        See :class:`~discrete_itd.models.model.Model`.
    seconds : float
        Duration of the fit.
    """

    denoiser: Denoiser
    report: Report | None = None
    companion: Denoiser | None = None
    candidates: pd.DataFrame | None = None
    members: tuple[Denoiser, ...] = ()
    shares: tuple[float, ...] = (1.0,)
    seconds: float = 0.0


@dataclass
class FitPlan:
    """How to fit one recipe.

    Parameters
    ----------
    training, seed
        Settings and seed of the whole fit.
    index : int
        Number of this network, which enters its seed.
    deadline : Deadline
        The time at which this recipe is to end.
    is_beside_mixture : bool
        Whether a mixture is another candidate, so that this recipe need not fit one as a companion.
    has_voice : callable
        Whether a model with these nats of the first held-out rows, (n,), and with this mean in the best case, may have
        a part in any result. A fit that has none need not be finished.
    cut, left_out : list of str
        Steps that ``max_time`` ended early, and those that were not begun for lack of time; the same lists for all
        recipes of a fit.
    """

    training: TrainingPlan
    seed: int
    index: int = 0
    deadline: Deadline = field(default_factory=Deadline)
    is_beside_mixture: bool = False
    has_voice: Callable[[Tensor, float], bool] = lambda *_: True
    cut: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def network_seed(self) -> int:
        return (self.seed + self.index) % (2**31 - 1)

    @property
    def time_left(self) -> float:
        """Seconds left for this recipe: infinite without ``max_time``, at least 0, and 0 after Ctrl-C."""
        return self.deadline.left

    def clock(self, what: str) -> Callable[[], bool]:
        """A function that says whether the recipe's time is over; if so, ``what`` is recorded as ended early."""
        is_cut: list[bool] = []

        def is_over() -> bool:
            if not is_cut and not self.time_left:
                is_cut.append(True)
                self.cut.append(what)
            return bool(is_cut)

        return is_over

    def within(self, share: float) -> FitPlan:
        """The plan for a recipe that is to end within a share of the time that is left."""
        return replace(self, deadline=self.deadline.within(share * self.time_left))

    def part(self, i: int, n: int) -> FitPlan:
        """The plan of the i-th of ``n`` networks in sequence, with an equal share of the time that is left."""
        deadline = self.deadline.within(self.time_left / (n - i))
        return replace(self, index=self.index * MOST_NETWORKS + i, deadline=deadline)

    def train(
        self, denoiser: Denoiser, rows: TrainingRows, training: TrainingPlan | None = None
    ) -> Report:
        """Train a denoiser, on the device of the rows, in place: :func:`discrete_itd.training.loop.train`."""
        training = training or self.training
        if self.deadline.seconds < math.inf:
            seconds = self.time_left * (1.0 if denoiser.closed_form else TRAINING_SHARE)
            # with no time left, training ends after its first evaluation
            training = replace(training, max_time=max(seconds, 1e-3))
        kind = "causal network" if denoiser.closed_form else "network"
        with stage(f"training a {kind}"):
            report = train(
                denoiser,
                rows.x,
                rows.x_valid,
                training,
                # a new generator: an interrupted training must not change the next one
                generator=torch.Generator(rows.device).manual_seed(self.network_seed),
                progress=show_training,
            )
        self.note_end(report, kind)
        return report

    def note_end(self, report: Report, kind: str) -> None:
        """Record a training that ``max_time`` cut short or prevented."""
        n = report.history[-1].step
        if report.stopped == "max_time" and n:
            most = report.max_steps
            self.cut.append(f"the training of a {kind} after {n:,} of {most:,} steps")
        elif report.stopped == "max_time":
            self.left_out.append(kind)


def fit_recipe(recipe: Recipe, rows: TrainingRows, plan: FitPlan) -> Fitted:
    """Fit a recipe by its plan."""
    clock = Deadline()
    made = recipe.fit(rows, plan)
    fitted = made if isinstance(made, Fitted) else Fitted(made)
    fitted.denoiser.eval().requires_grad_(False)
    return fitted._replace(seconds=clock.age)


def fit_model(
    encoder: TableEncoder,
    rows: TrainingRows,
    training: TrainingPlan,
    *,
    denoiser: Recipe,
    schedule: Schedule | None,
    n_evaluations: int,
    seed: int,
    deadline: Deadline,
) -> Model:
    """The model of :meth:`discrete_itd.DiffusionDensity.fit`: a denoiser fitted to rows, and its schedule.

    ``seed`` is the only source of randomness.
    """
    if schedule is not None and schedule.noisy:
        training = replace(training, **NOISY)
    plan = FitPlan(training, seed, deadline=deadline.part(FITTING_SHARE))
    with stage(f"fitting {denoiser.label}"):
        fitted = fit_recipe(denoiser, rows, plan)
        if fitted.denoiser.closed_form:
            rows.held_out(fitted.denoiser)  # raises a ValueError if no density has such nats
    report = fitted.report or Report(stopped="exact")
    stopped = "interrupted" if deadline.interrupted else report.stopped
    if not deadline.interrupted and (plan.cut or plan.left_out):
        stopped = "max_time"
        done = [f"ended {', '.join(dict.fromkeys(plan.cut))}"] if plan.cut else []
        never = ", ".join(dict.fromkeys(plan.left_out))
        done += [f"left no time for {never}"] if never else []
        advice = "a longer fit would likely be better"
        if fitted.denoiser.independent and (
            fitted.candidates is None or len(fitted.candidates) == 1
        ):
            advice = (
                "nothing was learned of how columns depend on one another; give a larger max_time, or fewer rows or"
                " columns"
            )
        warn(f"max_time={training.max_time:g} {' and '.join(done)}: {advice}")
    with stage("measuring on held-out rows"):
        model = Model(
            encoder=encoder,
            denoiser=fitted.denoiser,
            marginals=rows.marginals,
            schedule=schedule or default_schedule(fitted.denoiser, n_evaluations),
            seed=seed,
            history=pd.DataFrame(),
            stopped=stopped,
            candidates=fitted.candidates,
            companion=fitted.companion,
            members=fitted.members,
            shares=fitted.shares,
        )
        n_rows = None
        if deadline.left < math.inf and not model.denoiser.closed_form:
            row_seconds = n_evaluations * seconds_of_row(model.denoiser, rows.x_valid)
            n_rows = max(8, int(deadline.left / row_seconds))
        clock = Deadline()
        held_out = HeldOut.measure(model, rows.x_valid, n_evaluations, n_rows)
        measured = {
            "held_out": held_out,
            "fit_seconds": deadline.age,
            "microseconds": 1e6 * clock.age / held_out.n_rows,
        }
    lines = report.history
    if fitted.report is None:
        evaluations = [(held_out.independent, held_out.independent_stderr)]
        evaluations += [(held_out.nats, held_out.stderr)] * (fitted.denoiser is not rows.marginals)
        lines = [Evaluation(0, 0.0, math.nan, math.nan, *nats) for nats in evaluations]
    history = pd.DataFrame(lines, columns=pd.Index(Evaluation._fields))
    return replace(model, history=history, **measured)


def default_schedule(denoiser: Denoiser, n_evaluations: int) -> Schedule:
    """Columns become known one after another, in as many steps as leave at least two paths."""
    book = denoiser.codebook
    if denoiser.closed_form:  # column by column, any order gives the closed form
        return CoordinateSchedule(1 if denoiser.independent else book.n_columns)
    most = max(1, split_evaluations(n_evaluations, book)[2] // 2)
    return CoordinateSchedule(min(most, max(1, book.n_columns - int(book.leading.sum()))))
