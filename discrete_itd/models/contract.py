"""Interface between recipes and fitting code: inputs (rows, plan) and results.

A :class:`Recipe` fits a denoiser to :class:`TrainingRows` according to a :class:`FitPlan`. Both are created by
:func:`discrete_itd.models.fitting.fit_model`, or by hand in a test.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser, MarginalDenoiser
from discrete_itd.progress import Deadline, show_training, stage
from discrete_itd.training.loop import Report, TrainingPlan, train
from discrete_itd.validation import check_integer, warn

# a fit begins no model after this share of its time, and a network without closed form is trained for this share of the
# time then left: the choice of a schedule, the comparison of candidates and measurements come after
FITTING_SHARE, TRAINING_SHARE = 0.95, 0.7
LEAST_SECONDS = 1e-3  # a training without time gets so much, and ends after its first evaluation
MOST_NETWORKS = 64  # in a mixture of rows, or along orders of one recipe
ROUNDING = 1e-3  # nats: a mean code length may be so far below 0 by the rounding of float32

Made = TypeVar("Made")


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
    epsilon : float, optional
        Of differential privacy, if its fit is private.
    mixes_reals : bool
        Whether continuous columns depend on others in it, so that a network can correct it only where there are none.
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
    epsilon: float | None = None
    bounds: ClassVar[Mapping[str, tuple[int, float]]] = {}

    @abstractmethod
    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser | Fitted:
        """The denoiser that this recipe makes of the rows; with its report, if it was trained by :meth:`FitPlan.train`.

        Random numbers come from a generator of its own, seeded with ``plan.network_seed``: fits in other threads share
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
        """This recipe, with names in its parameters replaced; TypeError or ValueError naming an invalid one."""
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
        Of the training; None if nothing was trained.
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


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows to which recipes are fitted, with results that several recipes need, computed once.

    ``marginals`` are independent columns, fitted to the training rows ``x`` (N, C); ``x_valid`` (N', C) are held-out
    rows; NaN where a cell is missing. The generator, on the device of the rows, is for exact denoisers: networks have
    their own. Gaps in columns ``summed_out`` carry information.
    """

    marginals: MarginalDenoiser
    x: Tensor
    x_valid: Tensor
    generator: torch.Generator
    summed_out: tuple[int, ...] = ()
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    failed: set[Hashable] = field(default_factory=set, init=False, repr=False)

    @property
    def codebook(self) -> Codebook:
        return self.marginals.codebook

    @property
    def device(self) -> torch.device:
        return self.x.device

    @property
    def n_rows(self) -> int:
        return len(self.x)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of ``make``, called at the first request for this key: networks share equal bases."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def attempt(self, key: Hashable, label: str, make: Callable[[], Made]) -> Made | None:
        """The result of ``make`` for one model among others; None, with a warning that names it, if that fails.

        Whatever the error, a lack of memory too; but errors of files (OSError) and Ctrl-C are raised. What has failed
        is not tried again.
        """
        if key in self.failed:
            return None
        try:
            return make()
        except OSError:
            raise
        except Exception as error:
            self.failed.add(key)
            reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
            warn(f"{label} is left out, because it failed: {reason}")
            return None

    def has(self, key: Hashable) -> bool:
        return key in self._made

    @torch.no_grad()
    def held_out(self, denoiser: Denoiser) -> Tensor:
        """Code length of each held-out row in closed form, nats: float64, (N',); kept unless it is being trained.

        A ValueError if one is not finite, or if their mean is negative where all numbers were recorded on a lattice.
        """

        def nats() -> Tensor:
            found = -denoiser.log_prob(self.x_valid).double()
            n = int((~found.isfinite()).sum())
            if n:
                raise ValueError(
                    f"a {type(denoiser).__name__} leaves {n} of {len(found)} held-out rows no finite code length"
                )
            if self.codebook.lines.all_have_steps and float(found.mean()) < -ROUNDING:
                raise ValueError(
                    f"a {type(denoiser).__name__} has {found.mean():.4g} nats per held-out row: its probabilities of"
                    " recorded numbers add up to more than one"
                )
            return found

        if any(p.requires_grad for p in denoiser.parameters()):
            return nats()
        return self.once(("held out", denoiser), nats)

    def held_out_nats(self, denoiser: Denoiser) -> float:
        return float(self.held_out(denoiser).mean())


@dataclass
class FitPlan:
    """How to fit one recipe.

    Parameters
    ----------
    training, seed
        Of the whole fit.
    index : int
        Number of this network: each has a seed of its own.
    deadline : Deadline
        Of this recipe.
    is_beside_mixture : bool
        Whether a mixture is another candidate, so that this recipe need not fit one as a companion.
    cut, left_out : list of str
        Steps that ``max_time`` ended early, and those that were not begun for lack of time; the same lists for all
        recipes of a fit.
    """

    training: TrainingPlan
    seed: int
    index: int = 0
    deadline: Deadline = field(default_factory=Deadline)
    is_beside_mixture: bool = False
    cut: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def network_seed(self) -> int:
        return (self.seed + self.index) % (2**31 - 1)

    @property
    def time_left(self) -> float:
        """Seconds in which this recipe is to end: infinite without ``max_time``, never below 0, none after Ctrl-C."""
        return self.deadline.left

    def clock(self, what: str) -> Callable[[], bool]:
        """Whether the time of this recipe is over, as a function; ``what`` is then recorded as ended early."""
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
        """The plan of the i-th of ``n`` networks, one after the other: an equal share of the time that is left."""
        deadline = self.deadline.within(self.time_left / (n - i))
        return replace(self, index=self.index * MOST_NETWORKS + i, deadline=deadline)

    def train(
        self, denoiser: Denoiser, rows: TrainingRows, training: TrainingPlan | None = None
    ) -> Report:
        """Train a denoiser, which is on the device of the rows, in place: :func:`discrete_itd.training.loop.train`."""
        training = training or self.training
        if self.deadline.seconds < math.inf:
            seconds = self.time_left * (1.0 if denoiser.closed_form else TRAINING_SHARE)
            training = replace(training, max_time=max(seconds, LEAST_SECONDS))
        kind = "causal network" if denoiser.closed_form else "network"
        with stage(f"training a {kind}"):
            report = train(
                denoiser,
                rows.x,
                rows.x_valid,
                training,
                # its own: where one training was interrupted must not change the next
                generator=torch.Generator(rows.device).manual_seed(self.network_seed),
                progress=show_training,
            )
        self.note_end(report, kind)
        return report

    def note_end(self, report: Report, kind: str) -> None:
        """Record a training that ``max_time`` ended or left no time for."""
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
