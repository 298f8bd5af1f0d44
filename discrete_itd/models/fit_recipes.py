"""Fitting recipes: one after the other, or side by side by the processes of a job."""

from __future__ import annotations

import io
import pickle
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from discrete_itd.denoisers import Denoiser
from discrete_itd.models.contract import FitPlan, Recipe, TrainingRows
from discrete_itd.training.config import Report
from discrete_itd.training.distributed import Team
from discrete_itd.training.follower import own_device
from discrete_itd.training.loop import seeded
from discrete_itd.validation import warn

FOUND = "report", "learned", "members", "companion", "candidates"  # what a fit leaves in its plan


class Fitted(NamedTuple):
    """A denoiser with the report of its fit.

    Attributes
    ----------
    denoiser : Denoiser
    report : Report
        With ``stopped`` "exact" if nothing was trained.
    seconds : float
    learned : bool
        Whether it has learned anything beyond independent columns.
    """

    denoiser: Denoiser
    report: Report
    seconds: float
    learned: bool


def fit_recipe(recipe: Recipe, rows: TrainingRows, plan: FitPlan) -> Fitted:
    """Fit a recipe and see to its report."""
    start = time.perf_counter()
    with seeded(plan.network_seed, rows.device):
        denoiser = recipe.fit(rows, plan).eval().requires_grad_(False)
    report, learned = plan.report, plan.learned
    if report is None:
        lines = [rows.evaluation(d) for d in dict.fromkeys((rows.marginals, denoiser))]
        report = Report(lines, stopped="exact")
    if plan.run.interrupted:
        report.stopped = "interrupted"
    if learned is None:
        learned = denoiser is not rows.marginals
    return Fitted(denoiser, report, time.perf_counter() - start, learned)


def fit_recipes(
    recipes: Sequence[Recipe], rows: TrainingRows, plans: Sequence[FitPlan]
) -> Iterator[Fitted]:
    """Fit several recipes, each by its plan; their fits in the same order.

    In a job of several processes, each of them fits some of the recipes that train networks, if there are as many as
    processes; with fewer, all processes train each network together. What trains none is fitted by process 0, before.
    A network that one process trains is, to the last bit, that of a fit by one process, if its base draws no random
    numbers and no time is set.
    """
    team = plans[0].run.team if plans else Team()
    trained = [i for i, recipe in enumerate(recipes) if recipe.count_networks()]
    if team.size == 1 or len(trained) < team.size:
        for recipe, plan in zip(recipes, plans, strict=True):
            yield fit_recipe(recipe, rows, plan)
        return
    fits: dict[int, Fitted] = {}
    for i, recipe in enumerate(recipes):
        if i not in trained:
            fits[i] = fit_recipe(recipe, rows, plans[i])
    alone = replace(plans[0].run, team=Team())
    numbers = [recipes[i].count_networks() for i in trained]
    # those that a process trains in turn share its time: after its index, a plan has no others
    left = [sum(numbers[k :: team.size]) for k in range(len(trained))]
    own = [
        replace(plans[i], run=alone, n_networks=plans[i].index + n)
        for i, n in zip(trained, left, strict=True)
    ]
    for plan, n in zip(own, numbers, strict=True):
        if plan.checkpoint is not None:  # its seed, and what is to be removed at the end
            plan.checkpoint.expect(range(plan.index, plan.index + n))
    task = SideBySide([recipes[i] for i in trained], rows, own)
    results = team.each(task)
    for part, result in enumerate(results.parts):
        for i, (fitted, found) in zip(trained[part :: team.size], task.read(result), strict=False):
            fits[i] = fitted
            vars(plans[i]).update(found)
            plans[i].run.interrupted |= fitted.report.stopped == "interrupted"
    plans[0].run.interrupted |= results.interrupted
    for i in range(len(recipes)):
        if i not in fits:
            raise KeyboardInterrupt
        yield fits[i]


class SideBySide:
    """Fits of recipes as a :class:`~discrete_itd.training.distributed.Task`.

    What the processes have in common, like a base of several networks, is sent back by its number.

    Parameters
    ----------
    recipes : list of Recipe
    rows : TrainingRows
    plans : list of FitPlan
        Of a run that has no team.
    """

    def __init__(self, recipes: list[Recipe], rows: TrainingRows, plans: list[FitPlan]) -> None:
        self.recipes, self.rows, self.plans = recipes, rows, plans
        self.common = rows.denoisers()

    def __getstate__(self) -> tuple[list[Recipe], TrainingRows, list[FitPlan]]:
        """For another process, which shows no progress."""
        return self.recipes, self.rows, [replace(plan, progress=None) for plan in self.plans]

    def __setstate__(self, state: tuple[list[Recipe], TrainingRows, list[FitPlan]]) -> None:
        rows = state[1]
        self.__init__(state[0], rows.to(own_device(rows.device)), state[2])

    def do(self, part: int, n_parts: int) -> Any:
        """Every ``n_parts``-th fit, with what it left in its plan; of another process than 0 as bytes."""
        if not part:
            return self.fits(0, n_parts)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            fits = self.fits(part, n_parts)
        move(fits, torch.device("cpu"))
        file = io.BytesIO()
        Pickler(self.common, file).dump((fits, [(str(w.message), w.category) for w in said]))
        return file.getvalue()

    def fits(self, part: int, n_parts: int) -> list[tuple[Fitted, dict[str, Any]]]:
        """Every ``n_parts``-th fit from ``part`` on; after an interruption, those that were there."""
        chosen, fits = slice(part, None, n_parts), []
        for recipe, plan in zip(self.recipes[chosen], self.plans[chosen], strict=True):
            try:
                fitted = fit_recipe(recipe, self.rows, plan)
            except KeyboardInterrupt:
                break
            fits.append((fitted, {name: getattr(plan, name) for name in FOUND}))
        return fits

    def read(self, result: Any) -> list[tuple[Fitted, dict[str, Any]]]:
        """The fits that :meth:`do` returned in any process; what it warned of is warned of here."""
        if not isinstance(result, bytes):
            return result
        fits, said = Unpickler(self.common, io.BytesIO(result)).load()
        for message, category in said:
            warn(message, category)
        move(fits, self.rows.device)
        return fits


def move(fits: list[tuple[Fitted, dict[str, Any]]], device: torch.device) -> None:
    """Move fitted denoisers, and their companions, to a device."""
    for fitted, found in fits:
        for denoiser in (fitted.denoiser, found["companion"]):
            if denoiser is not None:
                denoiser.to(device)


class Pickler(pickle.Pickler):
    """Writes the denoisers that the reader has, too, by their number."""

    def __init__(self, common: list[Denoiser], file: io.BytesIO) -> None:
        super().__init__(file)
        self._numbers = {id(denoiser): i for i, denoiser in enumerate(common)}

    def persistent_id(self, obj: Any) -> int | None:
        return self._numbers.get(id(obj))


class Unpickler(pickle.Unpickler):
    """Reads what :class:`Pickler` wrote."""

    def __init__(self, common: list[Denoiser], file: io.BytesIO) -> None:
        super().__init__(file)
        self._common = common

    def persistent_load(self, pid: Any) -> Denoiser:
        return self._common[pid]
