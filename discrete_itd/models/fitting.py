"""Fitting a model to encoded rows: a denoiser by its recipe, and the schedule on which rows are scored."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import torch

from discrete_itd.channel import CoordinateSchedule, Schedule
from discrete_itd.denoisers import Denoiser
from discrete_itd.models.contract import (
    FITTING_SHARE,
    FitPlan,
    Recipe,
    fit_recipe,
)
from discrete_itd.models.model import (
    HELD_OUT_ROWS,
    HeldOut,
    Model,
    microseconds_per_row,
    split_evaluations,
)
from discrete_itd.models.training_tables import TrainingTable
from discrete_itd.progress import Deadline, stage
from discrete_itd.training.loop import Evaluation, Report, TrainingPlan
from discrete_itd.training.objectives import seconds_of_row
from discrete_itd.validation import warn

FEWEST_HELD_OUT = 8  # rows scored along paths even if there is no time for more
# on a schedule along which cells are noisy, a network is trained at more noisy states
NOISY = {"patterns": (0.6, 0.4)}


def fit_model(
    table: TrainingTable,
    training: TrainingPlan,
    *,
    denoiser: Recipe,
    validation_fraction: float,
    schedule: Schedule | None,
    n_evaluations: int,
    device: torch.device,
    seed: int,
    deadline: Deadline,
) -> Model:
    """Fit a denoiser to rows, to be scored on a schedule: :meth:`discrete_itd.DiffusionDensity.fit`.

    ``seed`` is the only source of randomness.
    """
    if schedule is not None and schedule.noisy:
        training = replace(training, **NOISY)
    plan = FitPlan(training, seed, deadline=deadline.part(FITTING_SHARE))
    with stage("fitting independent columns"):
        rows = table.training_rows(validation_fraction, seed, device)
    with stage(f"fitting {denoiser.label}"):
        fitted = fit_recipe(denoiser, rows, plan)
        if fitted.denoiser.closed_form:
            rows.held_out(fitted.denoiser)  # a ValueError if no density has such nats
    report = fitted.report or Report(stopped="exact")
    stopped = "interrupted" if deadline.interrupted else report.stopped
    if not deadline.interrupted and (plan.cut or plan.left_out):
        stopped = "max_time"
        done = [f"ended {', '.join(dict.fromkeys(plan.cut))}"] if plan.cut else []
        never = ", ".join(dict.fromkeys(plan.left_out))
        done += [f"left no time for {never}"] if never else []
        warn(
            f"max_time={training.max_time:g} {' and '.join(done)}: a longer fit would likely be better"
        )
    with stage("measuring on held-out rows"):
        model = Model(
            encoder=table.encoder,
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
            epsilon=denoiser.epsilon,
        )
        n_rows = None
        if deadline.left < math.inf and not model.denoiser.closed_form:
            of_row = n_evaluations * seconds_of_row(model.denoiser, rows.x_valid)
            n_rows = int(min(max(deadline.left / of_row, FEWEST_HELD_OUT), HELD_OUT_ROWS))
        held_out = HeldOut.measure(model, rows.x_valid, n_evaluations, n_rows)
        measured = {
            "held_out": held_out,
            "fit_seconds": deadline.age if denoiser.epsilon is None else math.nan,
            "microseconds": microseconds_per_row(model, rows.x_valid, n_evaluations),
        }
    lines = report.history
    if fitted.report is None:
        found = [(held_out.independent, held_out.independent_stderr)]
        found += [(held_out.nats, held_out.stderr)] * (fitted.denoiser is not rows.marginals)
        lines = [Evaluation(0, 0.0, math.nan, math.nan, *nats) for nats in found]
    history = pd.DataFrame(lines, columns=pd.Index(Evaluation._fields))
    return replace(model, history=history, **measured)


def default_schedule(denoiser: Denoiser, n_evaluations: int) -> Schedule:
    """Columns become known one after another, in as many steps as leave at least two paths."""
    book = denoiser.codebook
    if denoiser.closed_form:  # any order, column by column, gives the closed form
        return CoordinateSchedule(1 if denoiser.independent else book.n_columns)
    most = max(1, split_evaluations(n_evaluations, book)[2] // 2)
    return CoordinateSchedule(min(most, max(1, book.n_columns - int(book.leading.sum()))))
