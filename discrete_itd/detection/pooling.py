"""The fit of a detector's score: what is pooled with a model, and what is said beside both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from discrete_itd.denoisers import KernelDenoiser
from discrete_itd.detection.repeats import Repeats
from discrete_itd.detection.scoring import Scorer
from discrete_itd.detection.sparsity import MOST_ROWS, Sparsity, cells_of, is_sparse, is_uneven
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity

SMOOTHING_SD = 0.05  # a tenth of a column's standard deviation, in standardised units
TYPICAL_ROWS = 500  # drawn from the model, to estimate the mean surprisal of a continuous column
AVERAGED_ROWS = 3  # of fewer the owner of one could tell the other
FEW_ROWS = 1000  # up to so many rows, independent columns weigh as much as the model of categories


def pooled(
    density: DiffusionDensity,
    train: Rows | None,
    seed: int,
    records: np.ndarray | None = None,
    n_rows: int | None = None,
    given: tuple[int, ...] = (),
    *,
    alone: bool = False,
    averaged: int | None = AVERAGED_ROWS,
) -> Scorer:
    """The score that is pooled with a kernel density or, for nominal columns, with independent columns.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    train : Rows, optional
        The rows it was fitted on, of which the kernel density is. If they are unknown, the score is the model's part
        alone.
    seed : int
    records : ndarray of int, optional
        A number for each of these rows, the same for copies of one record; by default each is one of its own.
    n_rows : int, optional
        How many rows the density was fitted on, if ``train`` is a sample of them.
    given : tuple of int
        Positions of the columns to condition on.
    alone : bool
        Whether to leave out the simpler member.
    averaged : int or None
        Of how many training rows each centre of the kernel density is the average; None for no kernel density, and
        the model's part alone in its place.
    """
    scorer, schema = Scorer.plain(density, given), density.encoder_.schema
    if all(c.kind == "nominal" for c in schema):
        n = 0 if train is None or alone else n_rows or len(train)
        scorer = replace(scorer, weight=max(0.5, n / (n + FEW_ROWS)) if n else 1.0)
        return scorer if train is None else among_as_sparse(scorer, train, seed)
    scorer = replace(scorer, smoothing_sd=SMOOTHING_SD)
    capped = np.array([c.kind == "continuous" for c in schema])
    if capped.any():
        drawn = density.rows(density.sample(TYPICAL_ROWS, random_state=seed))
        typical = scorer.capping_nats(drawn)
        floor = np.where(capped, typical.mean(axis=0).to_numpy(), scorer.floor)
        scorer = replace(scorer, floor=floor)
    if train is None:
        return scorer
    repeats = Repeats.of(schema, train.x, given)
    scorer = replace(scorer, repeats=repeats if repeats.seen else None)
    if alone or averaged is None:
        return scorer
    generator = torch.Generator().manual_seed(seed)
    numbers = None if records is None else torch.from_numpy(records)
    base = density.model_.marginals
    kernel = KernelDenoiser.fit(base, train.x, generator, numbers, averaged)
    return replace(scorer, weight=0.5, kernel=kernel)


def among_as_sparse(scorer: Scorer, train: Rows, seed: int) -> Scorer:
    """The score that compares a row of categories with as sparse ones, if training rows call for it; or itself."""
    if not scorer.model.answers(scorer.given_cells).closed_form:
        return scorer  # scores along paths cost too much
    order = np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]
    if not is_uneven(cells_of(train.x, len(scorer.schema))[order], scorer.given):
        return scorer  # most tables: nothing of them is scored
    some = train.take(np.sort(order))
    nats = -scorer.marginals.expand(len(some)).log_prob(some.x).double().cpu().numpy()
    nats = some.by_column(nats).to_numpy()
    cells = cells_of(some.x, nats.shape[1])
    if not is_sparse(cells, nats, scorer.given):
        return scorer
    return replace(scorer, sparsity=Sparsity.of(cells, scorer.score(some), scorer.given))
