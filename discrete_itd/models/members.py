"""Ensembles: fitting the members and their weights, and a table of what each member contributes and costs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.denoisers import Denoiser, EnsembleDenoiser
from discrete_itd.models.contract import FitPlan, Recipe, TrainingRows
from discrete_itd.models.fit_recipes import fit_recipes
from discrete_itd.training import pilot_quadrature
from discrete_itd.training.evaluation import seconds_of_row

MEMBERS_SHARE = 0.6  # of the time of a fit: the remainder is for weights, contributions and the choice of a schedule
PASSES = 64  # through the held-out rows, for the weights and contributions, in twice the time
FEWEST_WEIGHED = 32  # held-out rows to which weights are fitted, where there is no time for more


class MemberContribution(NamedTuple):
    """A line of the table of an ensemble's members.

    Attributes
    ----------
    member : str
    alone : float
        Held-out nats per row of this member alone.
    gain, stderr : float
        Marginal contribution: how many nats per row more the ensemble has without this member; and its standard error.
    weight : float
        Mean weight.
    parameters : int
    fit_seconds : float
    call_ms : float
        Milliseconds of one denoiser call with a thousand rows.
    call_share : float
        Share of the time of the ensemble's calls; 0 for a member that has no weight anywhere and is never called.
    """

    member: str
    alone: float
    gain: float
    stderr: float
    weight: float
    parameters: int
    fit_seconds: float
    call_ms: float
    call_share: float


def fit_ensemble(recipes: Sequence[Recipe], rows: TrainingRows, plan: FitPlan) -> EnsembleDenoiser:
    """Fit the members of an ensemble, then their weights to the held-out rows.

    ``plan.report`` becomes the report of the first member that was trained, ``plan.members`` the table of
    contributions.

    Raises
    ------
    ValueError
        If the table has a high-cardinality column: its distributions cannot be mixed.
    """
    if rows.codebook.vocabularies:
        raise ValueError("an ensemble takes no high-cardinality column")
    # the weights, and what each member is worth, are fitted after the members
    plans = plan.within(MEMBERS_SHARE, plan.span).of_members(recipes)
    fits = list(fit_recipes(recipes, rows, plans))
    denoisers = [fit.denoiser for fit in fits]
    # its own: the weights must not depend on how long members were trained
    generator = torch.Generator(rows.device).manual_seed(plan.seed)
    seconds = plan.time_left / PASSES
    quadrature = pilot_quadrature(denoisers[0], rows.x, generator, seconds=seconds)
    x_valid = rows.x_valid
    if seconds < math.inf:
        in_time = int(seconds / sum(seconds_of_row(d, x_valid) for d in denoisers))
        x_valid = x_valid[: max(FEWEST_WEIGHED, in_time)]
        if len(x_valid) < len(rows.x_valid):
            what = f"the fit of weights to {len(x_valid)} of {len(rows.x_valid)} held-out rows"
            plan.run.cut.append(what)
    ensemble = EnsembleDenoiser.fit(denoisers, x_valid, quadrature, generator=generator)
    trained = [own.report for own in plans if own.report is not None]
    plan.report = trained[0] if trained else fits[0].report
    if plan.run.interrupted:
        plan.report.stopped = "interrupted"
    plan.learned = any(fit.learned for fit in fits)
    # a short time allows one call of few rows
    n_rows, repeats = (1000, 3) if math.isinf(plan.time_left) else (len(x_valid[:1000]), 1)
    calls = [seconds_of_call(d, x_valid, n_rows=n_rows, repeats=repeats) for d in denoisers]
    calls = [1000 / n_rows * s for s in calls]
    values = ensemble.marginal_value(x_valid, generator=generator)
    paid = [s * heard for s, heard in zip(calls, ensemble.heard, strict=True)]
    labels = member_names([recipe.label for recipe in recipes])
    lines = [
        MemberContribution(
            label, *value, fit.denoiser.n_parameters, fit.seconds, 1e3 * s, cost / sum(paid)
        )
        for label, value, fit, s, cost in zip(labels, values, fits, calls, paid, strict=True)
    ]
    plan.members = pd.DataFrame(lines, columns=pd.Index(MemberContribution._fields))
    return ensemble


@torch.no_grad()
def seconds_of_call(
    denoiser: Denoiser, x: Tensor, *, n_rows: int = 1000, repeats: int = 3
) -> float:
    """Seconds of one denoiser call with ``n_rows`` rows, half of whose cells are known: the fastest of a few."""
    book = denoiser.codebook
    rows = x[torch.arange(n_rows, device=x.device) % len(x)]
    known = torch.arange(book.n_columns, device=x.device) % 2 == 0
    known = known & ~rows.isnan()
    points = book.embed(rows)
    y = torch.where(book.per_coord(known), points, 0.0)
    snr = torch.zeros(rows.shape, dtype=points.dtype, device=x.device).masked_fill(known, math.inf)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        float(denoiser(y, snr).categorical.logits.sum())  # waits for a GPU
        times.append(time.perf_counter() - start)
    return min(times)


def member_names(labels: Sequence[str]) -> list[str]:
    """Labels of the members of an ensemble, numbered where they are equal."""
    return [
        f"{label} {labels[:i].count(label) + 1}" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]
