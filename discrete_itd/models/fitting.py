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
    FitCallback,
    FitPlan,
    Fitted,
    Recipe,
    SharedRun,
    TrainingRows,
    fit_recipe,
)
from discrete_itd.models.model import HELD_OUT_ROWS, Cost, HeldOut, Model, split_evaluations
from discrete_itd.models.training_tables import StreamedTable, TrainingTable
from discrete_itd.progress import Deadline, stage
from discrete_itd.training import pilot_quadrature
from discrete_itd.training.config import Evaluation, Report, TrainingPlan
from discrete_itd.training.objectives import seconds_of_row
from discrete_itd.validation import warn

MOST_SNRS = 64  # along an isotropic path
FEWEST_HELD_OUT = 8  # rows along paths, where there is no time for more
# noise on which a network is trained, and judged, by the kind of schedule on which it will score
PATTERNS = {"coordinate": (0.05, 0.95), "isotropic": (0.6, 0.4)}
JUDGED = {"coordinate": (0.0, 1.0), "isotropic": (1.0, 0.0)}


def fit_model(
    table: TrainingTable,
    training: TrainingPlan,
    *,
    denoiser: Recipe,
    validation_fraction: float,
    schedule: str | Schedule,
    n_evaluations: int,
    device: torch.device,
    seed: int,
    deadline: Deadline,
    progress: FitCallback | None = None,
) -> Model:
    """Fit a denoiser to rows, to be scored on a schedule: :meth:`discrete_itd.DiffusionDensity.fit`.

    ``training`` is for networks; several share the time, each may take all the steps. The kind of noise on which rows
    are scored, unless it is a noisy ``schedule`` of one's own, decides the noise of training in place of
    ``training.patterns``.
    ``seed`` is the only source of randomness. ``progress`` is called with the share done and the latest evaluation.
    """
    run = SharedRun(deadline=deadline)
    kind = "coordinate"
    if not isinstance(schedule, str):
        kind = None if schedule.noisy else kind
    elif schedule != "auto":
        kind = schedule
    if kind is not None:
        training = replace(training, patterns=PATTERNS[kind], judged=JUDGED[kind])
    n_networks = max(1, denoiser.count_networks())
    own = deadline.part(FITTING_SHARE)
    how = {"n_networks": n_networks, "run": run, "deadline": own}
    plan = FitPlan(training, seed, progress, **how)
    with stage("fitting independent columns"):
        rows = table.training_rows(validation_fraction, seed, device, deadline.left)
    if isinstance(table, StreamedTable) and rows.stream is None:
        n, n_all = len(rows.x), table.found.n_rows
        run.cut.append(
            f"the reading of the stream after one pass ({n:,} of {n_all:,} rows are fitted to)"
        )
    with stage(f"fitting {denoiser.label}"):
        fitted = fit_recipe(denoiser, rows, plan)
        if fitted.denoiser.closed_form:
            rows.held_out(fitted.denoiser)  # a ValueError if no density has such nats
    with stage("measuring on held-out rows"):
        model = finished(table, rows, plan, fitted, schedule, n_evaluations)
    if progress is not None:
        progress(1.0, Evaluation(*model.history.iloc[-1]))
    if denoiser.epsilon is None:
        return model
    assert model.cost is not None  # the time of a private fit depends on the rows
    return replace(model, epsilon=denoiser.epsilon, cost=replace(model.cost, fit_seconds=math.nan))


def finished(
    table: TrainingTable,
    rows: TrainingRows,
    plan: FitPlan,
    fitted: Fitted,
    schedule: str | Schedule,
    n_evaluations: int,
) -> Model:
    """The model of a fitted denoiser: its schedule, and measurements."""
    if isinstance(schedule, str):
        schedule = schedule_of_kind(schedule, fitted.denoiser, rows, n_evaluations)
    run, max_time = plan.run, plan.training.max_time
    report = fitted.report or Report(stopped="exact")
    stopped = "interrupted" if run.deadline.interrupted else report.stopped
    if not run.deadline.interrupted and (run.cut or run.left_out):
        stopped = "max_time"
        done = [f"ended {', '.join(dict.fromkeys(run.cut))}"] if run.cut else []
        never = ", ".join(dict.fromkeys(run.left_out))
        done += [f"left no time for {never}"] if never else []
        warn(f"max_time={max_time:g} {' and '.join(done)}: a longer fit would likely be better")
    model = Model(
        encoder=table.encoder,
        denoiser=fitted.denoiser,
        marginals=rows.marginals,
        schedule=schedule,
        seed=plan.seed,
        history=pd.DataFrame(),
        stopped=stopped,
        candidates=fitted.candidates,
        companion=fitted.companion,
    )
    n_rows, seconds = None, run.deadline.left
    if seconds < math.inf and not model.denoiser.closed_form:
        in_time = seconds / (n_evaluations * seconds_of_row(model.denoiser, rows.x_valid))
        n_rows = int(min(max(in_time, FEWEST_HELD_OUT), HELD_OUT_ROWS))
    held_out = HeldOut.measure(model, rows.x_valid, n_evaluations, n_rows)
    lines = report.history
    if fitted.report is None:
        found = [(held_out.independent, held_out.independent_stderr)]
        found += [(held_out.nats, held_out.stderr)] * (fitted.denoiser is not rows.marginals)
        lines = [Evaluation(0, 0.0, math.nan, math.nan, *nats) for nats in found]
    history = pd.DataFrame(lines, columns=pd.Index(Evaluation._fields))
    cost = Cost.measure(model, rows.x_valid, n_evaluations, run.deadline.age)
    return replace(model, history=history, held_out=held_out, cost=cost)


def schedule_of_kind(
    kind: str, denoiser: Denoiser, rows: TrainingRows, n_evaluations: int
) -> Schedule:
    """The schedule of a kind, of as many steps as leave at least two paths; of an isotropic one at least four.

    Four paths of fewer steps, since the standard error of two estimates is itself hardly known.
    """
    book = rows.codebook
    n = split_evaluations(n_evaluations, book)[2]
    most = max(1, n // 2)
    if kind == "isotropic":
        # independent columns have the same range of SNRs, and are cheap
        quadrature = pilot_quadrature(rows.marginals, rows.x, rows.generator)
        return quadrature.schedule(min(max(1, n // 4), MOST_SNRS))
    if denoiser.closed_form:  # any order, column by column, gives the closed form
        return CoordinateSchedule(1 if denoiser.independent else book.n_columns)
    return CoordinateSchedule(min(most, max(1, book.n_columns - int(book.leading.sum()))))
