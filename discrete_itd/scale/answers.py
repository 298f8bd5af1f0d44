"""What a model says of the rows of a batch, as named columns whose types are known before any row is scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Rows
from discrete_itd.models.scoring import RowEstimate
from discrete_itd.scale.loading import Model, density_of

# what each kind of model answers unless outputs= says otherwise
DENSITY_OUTPUTS = ("log_prob", "stderr")
DETECTOR_OUTPUTS = ("score", "p_value", "alarm", "reason")
OF_GROUPS = ("group_seen",)  # of a detector with given=, besides
OF_DENSITIES = (*DENSITY_OUTPUTS, "nats")
OF_DETECTORS = (*DETECTOR_OUTPUTS, *OF_DENSITIES)

NUMBER, TRUTH, TEXT = np.dtype(float), np.dtype(bool), pd.StringDtype()


def checked_outputs(model: Model, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs that are asked for; those of :data:`DENSITY_OUTPUTS` or :data:`DETECTOR_OUTPUTS` if None.

    Raises
    ------
    ValueError, TypeError
        Naming the output that the model does not have.
    """
    detects = isinstance(model, DiffusionOutlierDetector)
    if outputs is None:
        grouped = OF_GROUPS if detects and model.given_ else ()
        return (*DETECTOR_OUTPUTS, *grouped) if detects else DENSITY_OUTPUTS
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a list of names, got the string {outputs!r}")
    possible = OF_DETECTORS if detects else OF_DENSITIES
    if detects and model.given_:
        possible = (*possible, *OF_GROUPS)
    for name in outputs:
        if name not in possible:
            needs = "; that needs a detector" if name in OF_DETECTORS else ""
            needs = "; that needs a detector with given=" if name in OF_GROUPS else needs
            raise ValueError(
                f"outputs must be among {possible} for a {type(model).__name__}, got {name!r}{needs}"
            )
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"outputs repeat: {list(outputs)}")
    return tuple(outputs)


def answer_types(model: Model, outputs: Sequence[str], n_reasons: int) -> dict[str, Any]:
    """The columns of an answer with their pandas dtypes, in order."""
    types: dict[str, Any] = {}
    names, free = density_of(model).encoder_.names, free_columns(model)
    for output in outputs:
        match output:
            case "alarm" | "group_seen":
                types[output] = TRUTH
            case "reason":
                for k in range(1, min(n_reasons, len(free)) + 1):
                    types |= {f"reason_{k}": TEXT, f"reason_{k}_excess_nats": NUMBER}
            case "nats":
                types |= {f"nats_{name}": NUMBER for name in names}
            case _:
                types[output] = NUMBER
    return types


def free_columns(model: Model) -> list[int]:
    """Positions of the columns that can be a reason: those that the score does not condition on."""
    given = model.given_ if isinstance(model, DiffusionOutlierDetector) else ()
    return [j for j, name in enumerate(density_of(model).encoder_.names) if name not in given]


def answer(
    model: Model, frame: pd.DataFrame, outputs: Sequence[str], n_reasons: int
) -> pd.DataFrame:
    """The columns of :func:`answer_types` for the rows of a frame, shape (N, ...), with the index 0 to N - 1.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
    frame : DataFrame, shape (N, C)
        The columns of the model; N may be 0.
    outputs : sequence of str
        From :func:`checked_outputs`.
    n_reasons : int
    """
    types = answer_types(model, outputs, n_reasons)
    values: dict[str, Any] = dict.fromkeys(types, ())
    if len(frame):
        asked = _Asked(model, density_of(model).rows(frame), n_reasons)
        for output in outputs:
            values |= asked.columns(output)
    return pd.DataFrame({n: pd.Series(np.asarray(values[n]), dtype=t) for n, t in types.items()})


class _Asked:
    """Answers about some rows, each computed once and only if an output needs it."""

    def __init__(self, model: Model, rows: Rows, n_reasons: int) -> None:
        self.model, self.rows, self.n_reasons = model, rows, n_reasons

    def columns(self, output: str) -> dict[str, Any]:
        """The columns of one output."""
        match output:
            case "log_prob" | "stderr":
                return {output: getattr(self.estimate, output)}
            case "score":
                return {output: self.score}
            case "p_value":
                return {output: self.p_value}
            case "alarm":
                return {output: self.alarm}
            case "group_seen":
                return {output: self.detector.group_seen(self.rows)}
            case "reason":
                return self.reasons
        return {f"nats_{name}": nats for name, nats in self.model.explain(self.rows).items()}

    @property
    def detector(self) -> DiffusionOutlierDetector:
        return cast(DiffusionOutlierDetector, self.model)  # checked_outputs has seen to it

    @cached_property
    def estimate(self) -> RowEstimate:
        return self.model.log_prob(self.rows)

    @cached_property
    def score(self) -> np.ndarray:
        return self.detector.score_samples(self.rows)

    @property
    def p_value(self) -> np.ndarray:
        """Conformal p-values; NaN for a detector without calibration rows."""
        if not len(self.detector.calibration_scores_):
            return np.full(len(self.rows), np.nan)
        return self.detector.p_values(self.rows, scores=self.score)

    @property
    def alarm(self) -> np.ndarray:
        return self.score - self.detector.offsets(self.rows) < 0

    @property
    def reasons(self) -> dict[str, Any]:
        """The columns with the most nats above those of the mean calibration row, of rows that raise an alarm."""
        free = free_columns(self.model)
        names = np.array([str(self.rows.encoder.names[j]) for j in free], dtype=object)
        alarm, n = self.alarm, min(self.n_reasons, len(names))
        column = np.full((n, len(alarm)), None, dtype=object)
        excess = np.full((n, len(alarm)), np.nan)
        if alarm.any():
            is_relative = len(self.detector.calibration_scores_) > 0
            nats = self.detector.explain(self.rows.take(alarm), relative=is_relative)
            above = nats.to_numpy()[:, free]
            order = np.argsort(-above, axis=1, kind="stable")[:, :n]
            column[:, alarm] = names[order].T
            excess[:, alarm] = np.take_along_axis(above, order, axis=1).T
        parts = [(f"reason_{k + 1}", f"reason_{k + 1}_excess_nats") for k in range(n)]
        return {c: column[k] for k, (c, _) in enumerate(parts)} | {
            e: excess[k] for k, (_, e) in enumerate(parts)
        }
