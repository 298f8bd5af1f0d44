"""The table of results for rows that the command line, streams of batches and every engine return.

:func:`answers` computes it: log-probabilities, and for a detector scores, p-values, alarms and reasons, under the same
names everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np
import pandas as pd

from discrete_itd.detection import outside
from discrete_itd.detection.strata import named
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders import Rows

if TYPE_CHECKING:
    from discrete_itd.detection.detector import DiffusionOutlierDetector
    from discrete_itd.estimators import DiffusionDensity

    Estimator = DiffusionDensity | DiffusionOutlierDetector

# default outputs of each kind of model
DENSITY_OUTPUTS = ("log_prob", "stderr")
DETECTOR_OUTPUTS = ("score", "p_value", "alarm", "unreadable", "reason")
OF_STRATA = ("stratum_seen",)  # also for a detector with given=
OF_DENSITIES = (*DENSITY_OUTPUTS, "nats")
OF_DETECTORS = (*DETECTOR_OUTPUTS, *OF_DENSITIES)

NUMBER, TRUTH, TEXT = np.dtype(float), np.dtype(bool), pd.StringDtype()


def detects(model: Estimator) -> TypeGuard[DiffusionOutlierDetector]:
    """Whether a fitted model is a detector."""
    return hasattr(model, "threshold_")


def density_of(model: Estimator) -> DiffusionDensity:
    """The model itself, or the density of a detector."""
    return model.density_ if detects(model) else cast("DiffusionDensity", model)


def checked_outputs(model: Estimator, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The requested outputs; by default :data:`DENSITY_OUTPUTS` or :data:`DETECTOR_OUTPUTS`.

    By default a detector with ``given`` also states whether the row's stratum was seen in training. A ValueError or
    TypeError names an output that the model does not have.
    """
    possible: tuple[str, ...] = OF_DETECTORS if detects(model) else OF_DENSITIES
    default: tuple[str, ...] = DETECTOR_OUTPUTS if detects(model) else DENSITY_OUTPUTS
    if detects(model) and named(model.given):
        possible, default = (*possible, *OF_STRATA), (*default, *OF_STRATA)
    if outputs is None:
        return default
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a list of names, got the string {outputs!r}")
    for name in outputs:
        if name not in possible:
            needs = "; that needs a detector" if name in OF_DETECTORS else ""
            needs = "; that needs a detector with given=" if name in OF_STRATA else needs
            raise ValueError(
                f"outputs must be among {possible} for a {type(model).__name__}, got {name!r}{needs}"
            )
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"outputs repeat: {list(outputs)}")
    return tuple(outputs)


def answer_types(model: Estimator, outputs: Sequence[str], n_reasons: int) -> dict[str, Any]:
    """The columns of the table of results with their pandas dtypes, in order: known before any row is scored.

    "reason" has the columns ``reason``, the sentences of up to ``n_reasons`` cells, and for each of these ``reason_1``,
    the name of its column, and ``reason_1_excess_nats``, its surprisal above the expected one; "nats" has
    ``nats_<column>`` for each column of the model. Any other output is one column; "unreadable" has the text of cells
    that raise the alarm of this name.
    """
    names = density_of(model).encoder_.names
    given = named(model.given) if detects(model) else ()
    types: dict[str, Any] = {}
    for output in outputs:
        match output:
            case "alarm" | "stratum_seen":
                types[output] = TRUTH
            case "unreadable":
                types[output] = TEXT
            case "reason":
                types[output] = TEXT
                for k in range(1, min(n_reasons, len(names) - len(given)) + 1):
                    types |= {f"reason_{k}": TEXT, f"reason_{k}_excess_nats": NUMBER}
            case "nats":
                types |= {f"nats_{name}": NUMBER for name in names}
            case _:
                types[output] = NUMBER
    return types


def answers(
    model: Estimator,
    rows: Rows | None,
    outputs: Sequence[str],
    *,
    n_reasons: int = 1,
    threshold: Threshold | None = None,
) -> pd.DataFrame:
    """The columns of :func:`answer_types` for some rows, shape (N, ...), with their index; none if ``rows`` is None.

    Each row's results depend on this row only, and nobody is warned of rows outside of training: whoever has them all
    counts these. Only rows that raise an alarm, by ``threshold`` or by default the
    detector's, have a reason: up to ``n_reasons`` of the cells of :meth:`DiffusionOutlierDetector.reasons`, or if there
    are none, :data:`~discrete_itd.detection.reasons.NO_CELL` and no column. ``outputs`` come from
    :func:`checked_outputs`.
    """
    types = answer_types(model, outputs, n_reasons)
    if rows is None or not len(rows):
        return pd.DataFrame({name: pd.Series((), dtype=dtype) for name, dtype in types.items()})
    values: dict[str, Any] = {}
    with outside.untold():
        if {"log_prob", "stderr"} & set(outputs):
            values |= density_of(model).log_prob(rows)._asdict()
        if "nats" in outputs:
            values |= {f"nats_{name}": nats for name, nats in model.explain(rows).items()}
        if "unreadable" in outputs:
            values["unreadable"] = rows.unreadable_text
        if detects(model):
            values |= _of_detector(model, rows, outputs, n_reasons, threshold)
    return pd.DataFrame(
        {
            name: pd.Series(np.asarray(values[name]), index=rows.index, dtype=dtype)
            for name, dtype in types.items()
        }
    )


def _of_detector(
    detector: DiffusionOutlierDetector,
    rows: Rows,
    outputs: Sequence[str],
    n_reasons: int,
    threshold: Threshold | None,
) -> dict[str, Any]:
    """The columns that only a detector has; p-values are NaN without calibration rows."""
    values: dict[str, Any] = {}
    if {"score", "p_value"} & set(outputs):
        values["score"] = detector.score_samples(rows)
        values["p_value"] = np.full(len(rows), np.nan)
        if "p_value" in outputs and len(detector.calibration_scores_):
            values["p_value"] = detector.p_values(rows)
    if "stratum_seen" in outputs:
        values["stratum_seen"] = detector.strata(rows)["seen"]
    if {"alarm", "reason"} & set(outputs):
        values["alarm"] = detector.predict(rows, threshold=threshold) == -1
    if "reason" in outputs:
        values |= _reasons(detector, rows, np.flatnonzero(values["alarm"]), n_reasons)
    return values


def _reasons(
    detector: DiffusionOutlierDetector, rows: Rows, alarm: np.ndarray, k: int
) -> dict[str, Any]:
    """The columns of "reason", with values in the rows of the positions ``alarm``."""
    from discrete_itd.detection.reasons import NO_CELL

    values = {
        name: np.full(len(rows), np.nan if dtype == NUMBER else None, dtype=object)
        for name, dtype in answer_types(detector, ["reason"], k).items()
    }
    if not len(alarm):
        return values
    # by position: labels of rows may repeat
    table = detector.reasons(rows.take(alarm).labelled(range(len(alarm))), k=k)
    values["reason"][alarm] = NO_CELL
    text = table.groupby("row")["sentence"].agg(". ".join)
    values["reason"][alarm[text.index]] = text.to_numpy()
    for rank, lines in table.groupby("rank"):
        position = alarm[lines["row"].to_numpy(dtype=np.int64)]
        values[f"reason_{rank}"][position] = lines["column"].map(str).to_numpy()
        values[f"reason_{rank}_excess_nats"][position] = lines["excess_nats"].to_numpy()
    return values
