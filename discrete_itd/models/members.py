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
    plans = plan.of_members(recipes)
    fits = list(fit_recipes(recipes, rows, plans))
    denoisers = [fit.denoiser for fit in fits]
    # its own: the weights must not depend on how long members were trained
    generator = torch.Generator(rows.device).manual_seed(plan.seed)
    quadrature = pilot_quadrature(denoisers[0], rows.x, generator)
    ensemble = EnsembleDenoiser.fit(denoisers, rows.x_valid, quadrature, generator=generator)
    trained = [own.report for own in plans if own.report is not None]
    plan.report = trained[0] if trained else fits[0].report
    if plan.run.interrupted:
        plan.report.stopped = "interrupted"
    plan.learned = any(fit.learned for fit in fits)
    seconds = [seconds_of_call(d, rows.x_valid) for d in denoisers]
    values = ensemble.marginal_value(rows.x_valid, generator=generator)
    paid = [s * heard for s, heard in zip(seconds, ensemble.heard, strict=True)]
    labels = member_names([recipe.label for recipe in recipes])
    lines = [
        MemberContribution(
            label, *value, fit.denoiser.n_parameters, fit.seconds, 1e3 * s, cost / sum(paid)
        )
        for label, value, fit, s, cost in zip(labels, values, fits, seconds, paid, strict=True)
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
