"""What a report tells one by one: the strangest rows, the columns, and facts about model, data and cost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

import discrete_itd
from discrete_itd.detection import conformal
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import as_written, cell_nats, reasons, sentence
from discrete_itd.encoders import as_frame
from discrete_itd.estimators import DiffusionDensity

MOST_ROWS = 500  # of which every column is asked for given the others
WORTH_TELLING = 1.0  # nats by which a cell must be stranger than usual, unless it is the strangest


def fitted(model: Any) -> tuple[DiffusionOutlierDetector | None, DiffusionDensity]:
    """A fitted model as a detector, if it is one, and as a density.

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


def strangest_rows(
    density: DiffusionDensity,
    X: Any,
    score: np.ndarray,
    n: int,
    *,
    detector: DiffusionOutlierDetector | None = None,
    k: int = 3,
) -> pd.DataFrame:
    """The n rows with the lowest scores, and up to k reasons for each.

    Parameters
    ----------
    density : DiffusionDensity
    X : DataFrame or array-like, shape (N, C)
    score : ndarray, shape (N,)
        Of the rows, in nats; higher is more ordinary.
    n : int
    detector : DiffusionOutlierDetector, optional
        What is usual is that of its calibration rows; without it, of the table itself.
    k : int

    Returns
    -------
    DataFrame, shape (n, 4)
        row (its label in X), nats (minus the score), p_value (NaN without calibration rows), why (a tuple of
        sentences).
    """
    worst = np.argsort(score, kind="stable")[:n]
    frame, p = table_of(density, X), np.full(len(worst), np.nan)
    why: list[list[Mapping[str, Any]]] = [[] for _ in worst]
    if len(worst):
        rows = frame.iloc[worst].set_axis(range(len(worst)), axis=0)
        with warnings.catch_warnings():
            # the strangest may well have nothing but unseen values in a column; of the whole table it has been said
            warnings.filterwarnings("ignore", "column .* no value was seen in training")
            if detector is not None and len(detector.calibration_scores_):
                calibration = np.asarray(detector.calibration_scores_)
                p = conformal.p_values(calibration, score[worst], rounding=detector.rounding_)
                told = detector.reasons(rows, k=k)
            else:
                usual = density.explain(frame.iloc[spread_rows(len(frame), MOST_ROWS)])
                told = reasons(density, rows, usual, k)
        for reason in told.to_dict("records"):
            if reason["rank"] == 1 or reason["excess"] >= WORTH_TELLING:
                why[reason["row"]].append(reason)
    return pd.DataFrame(
        {
            "row": list(frame.index[worst]),
            "nats": 0.0 - score[worst],  # not -0.0
            "p_value": p,
            "why": [tuple(map(sentence, _telling(of_row))) for of_row in why],
        }
    )


def _telling(of_row: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The reasons of a row without those that what was expected is there; one of them, if there is nothing else."""
    return [r for r in of_row if not _as_expected(r)] or of_row[:1]


def _as_expected(reason: Mapping[str, Any]) -> bool:
    has_expected = not np.isnan(reason["probability"])
    return has_expected and as_written(reason["expected"]) == as_written(reason["value"])


def column_entropies(density: DiffusionDensity, X: Any) -> pd.DataFrame:
    """What each column costs by itself, and given all others, averaged over at most ``MOST_ROWS`` rows.

    Returns
    -------
    DataFrame, shape (C, 4)
        column, kind, nats and nats_given_others; a missing cell costs nothing.
    """
    frame = table_of(density, X)
    frame = frame.iloc[spread_rows(len(frame), MOST_ROWS)]
    nats = cell_nats(density, frame)
    schema = density.encoder_.schema
    return pd.DataFrame(
        {
            "column": [c.name for c in schema],
            "kind": [c.kind for c in schema],
            "nats": nats.alone.to_numpy().mean(0),
            "nats_given_others": nats.given_rest.to_numpy().mean(0),
        }
    )


def facts(density: DiffusionDensity, seconds_per_row: float) -> list[tuple[str, str]]:
    """What there is to know about model, data and cost: names and values."""
    schema, history, path = density.encoder_.schema, density.history_, density.schedule_table_
    kinds = pd.Series([c.kind for c in schema]).value_counts()
    cells, missing = (sum(getattr(c, name) for c in schema) for name in ("n_rows", "n_missing"))
    lines = [
        (
            "rows learned from",
            f"{schema[0].n_rows:,}, a part of them held out to judge the training",
        ),
        ("columns", f"{len(schema)}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"),
        ("missing cells", f"{missing / max(1, cells):.1%} in training"),
        ("model", f"{density.denoiser_.n_parameters:,} parameters"),
        (
            "training",
            f"{history['step'].iloc[-1]:,.0f} steps in {history['seconds'].iloc[-1]:.0f} s",
        ),
    ]
    if len(path):
        best = path.iloc[0]
        lines.append(
            ("path", f"{best['path']}, {best['steps']} steps, {best['paths']} paths for each row")
        )
    return [
        *lines,
        ("network evaluations", f"up to {density.n_evaluations} for each row"),
        ("scoring", f"{1000 * seconds_per_row:.1f} ms a row, on {density.device_}"),
        ("version", f"discrete_itd {discrete_itd.__version__}"),
    ]


def table_of(density: DiffusionDensity, X: Any) -> pd.DataFrame:
    """X as a frame, if it is none, with the names that were fitted."""
    frame = as_frame(X)
    return (
        pd.DataFrame(np.asarray(X), columns=pd.Index(density.encoder_.names))
        if frame is None
        else frame
    )


def spread_rows(n: int, most: int) -> np.ndarray:
    """Positions of at most so many of n rows, evenly spread over the table."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))
