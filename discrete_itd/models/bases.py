"""Which exact denoiser a network corrects: candidates, and a short training on two of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser
from discrete_itd.denoisers.tree import MOST_LEVELS
from discrete_itd.models.contract import FitPlan, TrainingRows
from discrete_itd.training.train import train

MOST_TABLE = 1 << 24  # numbers of a tree's tables, beyond which base="auto" fits none
# of a Bayesian network as a base, which sums its columns out at every call
BASE_WORK = 1 << 13
BASE_COLUMNS = 64  # beyond which base="auto" searches for none
# candidates are compared on tables of at least so many training rows and, where training time is bounded, with at least
# so many seconds for all networks
COMPARED_ROWS, COMPARED_TIME = 5000, 60.0
# each candidate gets this part (one in ...) of the steps, at most so many, or of the time
BASE_SHARE, BASE_STEPS = 16, 400


def may_fit_tree(codebook: Codebook) -> bool:
    """Whether base="auto" tries more than independent columns."""
    levels = codebook.levels
    n_table = levels.n_columns * max(levels.cardinalities, default=1) ** 2
    return levels.n_columns >= 2 and levels.n_points <= MOST_LEVELS and n_table <= MOST_TABLE


def better_base(
    base: Denoiser,
    network: Callable[[Denoiser], Denoiser],
    rows: TrainingRows,
    plan: FitPlan,
) -> tuple[Denoiser, float]:
    """The base, or independent columns if a network learns more from them in equally many steps.

    A base with many parameters fits its own training rows too well for the network to see where it errs. All networks
    of an ensemble take the base that the first of them has chosen.

    Parameters
    ----------
    base : Denoiser
        The candidate that predicts held-out rows best.
    network : callable
        Makes the untrained network on a base.
    rows : TrainingRows
    plan : FitPlan

    Returns
    -------
    base : Denoiser
    time_share : float
        Share of the network's time that the comparison took.
    """
    if base is rows.marginals or not worth_comparing(rows, plan, BASE_SHARE * BASE_STEPS // 4):
        return base, 0.0
    if plan.run.base is not None:
        return plan.run.base, 0.0
    entrants = {"best": network(base), "independent": network(rows.marginals)}
    n_steps = min(BASE_STEPS, plan.training.max_steps // BASE_SHARE)
    steps = dict.fromkeys(entrants, n_steps)
    won = compare(f"base of network {plan.index}", entrants, steps, BASE_SHARE, rows, plan)
    plan.run.base = base if won == "best" else rows.marginals
    return plan.run.base, 2 / BASE_SHARE


def worth_comparing(rows: TrainingRows, plan: FitPlan, least_steps: int) -> bool:
    """Whether rows, steps and time suffice to tell which of two networks learns more."""
    return (
        len(rows.x) >= COMPARED_ROWS
        and plan.training.max_steps >= least_steps
        and (plan.training.max_time or math.inf) >= COMPARED_TIME
    )


def compare(
    key: str,
    entrants: Mapping[str, Denoiser],
    steps: Mapping[str, int],
    share: int,
    rows: TrainingRows,
    plan: FitPlan,
) -> str:
    """The entrant with the fewest held-out nats after a short training.

    Parameters
    ----------
    key : str
        Under which the checkpoint keeps the answer: a run that is resumed does not compare again.
    entrants : mapping from name to untrained Denoiser
    steps : mapping from name to int
        Optimiser steps of each.
    share : int
        Where the time is bounded, each trains for one part in ``share`` of it instead.
    rows : TrainingRows
    plan : FitPlan
    """
    note = {} if plan.checkpoint is None else plan.checkpoint.note
    if key in note:
        return note[key]
    training, nats = plan.network_training, {}
    for name, entrant in entrants.items():
        short = replace(training, max_steps=steps[name], n_validations=1)
        if training.max_time is not None:
            short = replace(short, max_steps=training.max_steps, max_time=training.max_time / share)
        generator = torch.Generator(rows.device).manual_seed(plan.seed)
        report = train(entrant.to(rows.device), rows.x, rows.x_valid, short, generator=generator)
        plan.run.interrupted |= report.stopped == "interrupted"
        nats[name] = min(line.valid_nats for line in report.history)
    note[key] = min(nats, key=lambda name: nats[name])
    return note[key]
