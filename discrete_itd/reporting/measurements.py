"""What a report shows in tables: the most anomalous rows, the columns, and facts about model, data and cost."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted

from discrete_itd import __version__
from discrete_itd.detection.assessment import nats_given_others
from discrete_itd.detection.conditionals import scores_of_row
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import NO_CELL, reasons
from discrete_itd.detection.score import scorer_of
from discrete_itd.encoders import Column, Rows, TableEncoder, written
from discrete_itd.estimators import DiffusionDensity

MASSES = ("nominal", "ordinal")  # kinds of columns with probabilities; the others have densities
MOST_CELLS_SHOWN = 24  # of a row, in the order of the columns
MOST_ROWS = 500  # for questions that cost one network evaluation per row and column
MOST_COLUMNS = 100  # of which each is asked for given all others
# numbers of the posteriors that this takes in a wide table, and rows at least
MOST_CELLS, FEWEST_ROWS = 1 << 26, 32
MOST_SCORES = 1 << 17  # in all, where the model that scores is asked value by value


def fitted(model: Any) -> tuple[DiffusionOutlierDetector | None, DiffusionDensity]:
    """A fitted model as a detector, or None if it is a density, and as a density.

    Raises
    ------
    TypeError
        If it is neither.
    NotFittedError
        If it is not fitted.
    """
    if not isinstance(model, DiffusionDensity | DiffusionOutlierDetector):
        raise TypeError(
            "the model must be a fitted DiffusionDensity or DiffusionOutlierDetector, got"
            f" {type(model).__name__}"
        )
    check_is_fitted(model)
    if isinstance(model, DiffusionOutlierDetector):
        return model, cast(DiffusionDensity, model.density_)
    return None, model


def is_mass(encoder: TableEncoder) -> bool:
    """Whether every column of the table has probabilities, and none a density."""
    return all(column.kind in MASSES for column in encoder.schema)


def most_anomalous_rows(
    density: DiffusionDensity,
    rows: Rows,
    score: np.ndarray,
    n: int,
    *,
    detector: DiffusionOutlierDetector | None = None,
    keep: Sequence[Hashable] = (),
    k: int = 3,
) -> pd.DataFrame:
    """The n rows with the lowest scores, and up to k reasons for each.

    Parameters
    ----------
    density : DiffusionDensity
    rows : Rows, length N
    score : ndarray, shape (N,)
        Score of each row in nats; inliers have higher scores.
    n : int
    detector : DiffusionOutlierDetector, optional
        Whose score it is, with p-values.
    keep : sequence of names
        Columns that are shown first, :func:`kept`.
    k : int

    Returns
    -------
    DataFrame, shape (n, 5)
        row (its label in the table), nats (minus the score), p_value (NaN without calibration rows), reasons (a tuple
        of sentences), cells (a tuple of name, value as text, and whether a reason is about it: the columns to keep,
        then those of the model, of many columns the first ``MOST_CELLS_SHOWN`` and those with a reason).
    """
    worst = np.argsort(score, kind="stable")[:n]
    p = np.full(len(worst), np.nan)
    by_row: list[list[str]] = [[] for _ in worst]
    anomalous: list[set[Hashable]] = [set() for _ in worst]
    if len(worst):
        taken = rows.take(worst)
        taken = replace(taken, frame=taken.frame.reset_index(drop=True))  # labels may repeat
        has_cells = taken.frame.notna().any(axis=1)
        with warnings.catch_warnings():
            # the warning was given for the whole table
            warnings.filterwarnings("ignore", "column .* no value was seen in training")
            if detector is not None and len(detector.calibration_scores_):
                p = detector.p_values(taken, scores=score[worst])
                lines = detector.reasons(taken, k=k)
            else:
                lines = reasons(density, taken, k)
        told = zip(lines["row"], lines["column"], lines["sentence"], strict=True)
        for row, column, text in told:
            by_row[row].append(text)
            anomalous[row].add(column)
        for own, any_cell in zip(by_row, has_cells, strict=True):
            if any_cell and not own:
                own.append(NO_CELL)
    return pd.DataFrame(
        {
            "row": list(rows.index[worst]),
            "nats": 0.0 - score[worst],  # not -0.0
            "p_value": p,
            "reasons": [tuple(lines) for lines in by_row],
            "cells": _cells_shown(rows.take(worst), anomalous, keep),
        }
    )


def kept(rows: Rows, names: Sequence[Hashable]) -> pd.DataFrame:
    """Columns of the table that rows come from, also ones that the model does not know: as they are there.

    Raises
    ------
    ValueError
        Naming the column that is not there.
    """
    columns = {}
    for name in names:
        own = [t for t in (rows.others, rows.frame) if t is not None and name in t.columns]
        if not own:
            raise ValueError(f"column {name!r}: named in keep=, but the table has no such column")
        columns[name] = own[0][name].set_axis(rows.index)
    return pd.DataFrame(columns, index=rows.index)


def _cells_shown(
    rows: Rows, anomalous: Sequence[Collection[Hashable]], keep: Sequence[Hashable]
) -> list[tuple[tuple[str, str, bool], ...]]:
    """The cells of each row as a report shows them, see :func:`most_anomalous_rows`."""
    schema = [c for c in rows.encoder.schema if c.name not in keep]
    own = kept(rows, keep)
    known = {c.name: c for c in rows.encoder.schema}
    shown = []
    for i, marked in enumerate(anomalous):
        cells = [
            (str(name), _shown(own[name].iloc[i], known.get(name)), name in marked) for name in keep
        ]
        for place, column in enumerate(schema):
            if place < MOST_CELLS_SHOWN or column.name in marked:
                value = rows.frame[column.name].iloc[i]
                cells.append((str(column.name), _shown(value, column), column.name in marked))
        shown.append(tuple(cells))
    return shown


def _shown(value: Any, column: Column | None) -> str:
    is_missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return "—" if is_missing else written(value, column)


def column_entropies(density: DiffusionDensity, rows: Rows) -> pd.DataFrame:
    """Each column's mean surprisal, marginally and given all other columns, over at most ``MOST_ROWS`` rows.

    Of a table of more than ``MOST_COLUMNS`` columns, those that the model explains most, by its shares of the score:
    each cell given all others costs a posterior of the whole row.

    Returns
    -------
    DataFrame, shape (C, 6)
        column, kind, nats, nats_given_others, explained (the difference) and share (explained relative to nats; NaN
        for a density and where nats is not positive). A missing cell counts as 0 nats.
    """
    encoder, marginals = density.encoder_, density.model_.marginals
    columns, most = np.arange(encoder.n_columns), MOST_ROWS
    if len(columns) > MOST_COLUMNS:
        most = max(FEWEST_ROWS, min(MOST_ROWS, MOST_CELLS // (MOST_COLUMNS * len(columns))))
    scorer = scorer_of(density)
    if scores := scores_of_row(scorer):
        most = max(FEWEST_ROWS, min(most, MOST_SCORES // scores))
    rows = rows.take(spread_positions(len(rows), most))
    with torch.no_grad():
        log_prob = marginals.log_factors(rows.unique).double().cpu().numpy()[rows.inverse]
    table = rows.by_column(-log_prob - rows.log_volume).fillna(0.0)
    if len(columns) > MOST_COLUMNS:
        explained = (table - density.explain(rows).fillna(0.0)).to_numpy().mean(0)
        columns = np.sort(np.argsort(-explained, kind="stable")[:MOST_COLUMNS])
    found = nats_given_others(scorer, rows.unique, columns.tolist())
    given = (found[rows.inverse] - rows.log_volume[:, columns]).mean(0)
    alone = table.to_numpy()[:, columns].mean(0)
    schema = [encoder.schema[j] for j in columns]
    is_entropy = np.array([column.kind in MASSES for column in schema]) & (alone > 0)
    return pd.DataFrame(
        {
            "column": [column.name for column in schema],
            "kind": [column.kind for column in schema],
            "nats": alone,
            "nats_given_others": given,
            "explained": alone - given,
            "share": np.divide(
                alone - given, alone, out=np.full(len(alone), np.nan), where=is_entropy
            ),
        }
    )


def facts(density: DiffusionDensity, seconds_per_row: float) -> list[tuple[str, str]]:
    """Names and values that describe the model, its training data and its cost."""
    schema, history = density.encoder_.schema, density.history_
    schedules = density.schedule_table_
    kinds = pd.Series([c.kind for c in schema]).value_counts()
    cells, missing = (sum(getattr(c, name) for c in schema) for name in ("n_rows", "n_missing"))
    steps, seconds = history["step"].iloc[-1], history["seconds"].iloc[-1]
    lines = [
        ("training rows", f"{schema[0].n_rows:,}, part of them held out for validation"),
        ("columns", f"{len(schema)}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"),
        ("missing cells", f"{missing / max(1, cells):.1%} of the training table"),
        ("model", f"{density.denoiser_.n_parameters:,} parameters"),
        (
            "training",
            f"{steps:,.0f} steps in {seconds:.0f} s" if steps else "in closed form, without steps",
        ),
    ]
    if len(schedules):
        best = schedules.iloc[0]
        used = f"{best['path']}, {best['steps']} steps, {best['paths']} paths per row"
        lines.append(("schedule", used))
    return [
        *lines,
        (
            "a score",
            "a closed form, one call per row"
            if density.denoiser_.closed_form
            else f"up to {density.n_evaluations} network evaluations per row",
        ),
        ("scoring time", f"{1000 * seconds_per_row:.1f} ms per row on {density.device_}"),
        ("version", f"discrete_itd {__version__}"),
    ]


def spread_positions(n: int, most: int) -> np.ndarray:
    """Positions of at most ``most`` of n rows, evenly spread over the table: all, or every 2nd, 4th, 8th, ..."""
    step = 1
    while -(-n // step) > most:
        step *= 2
    return np.arange(0, n, step)


class Spread:
    """The rows at :func:`spread_positions` of a table that arrives in parts.

    Parameters
    ----------
    most : int
    """

    def __init__(self, most: int) -> None:
        self._most, self._step, self._n = most, 1, 0
        self._kept: list[Rows] = []
        self._positions = np.zeros(0, dtype=np.int64)

    def add(self, rows: Rows) -> None:
        """Take some more rows of the table."""
        skipped = -self._n % self._step
        new = np.arange(skipped, len(rows), self._step)
        if len(new):
            self._kept.append(rows.take(new))
            self._positions = np.append(self._positions, new + self._n)
        self._n += len(rows)
        while len(self._positions) > self._most:
            self._step *= 2
            stay = self._positions % self._step == 0
            self._kept = [self.rows.take(stay)]
            self._positions = self._positions[stay]

    @property
    def rows(self) -> Rows:
        """The rows that are kept."""
        self._kept = [Rows.concat(self._kept)]
        return self._kept[0]
