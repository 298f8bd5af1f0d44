"""All numbers of a report.

:func:`examine` computes them; :mod:`discrete_itd.reporting.page` presents them as text and figures.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.groups import named
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders import Rows, as_frame
from discrete_itd.encoders.rows import check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting import measurements
from discrete_itd.reporting.learning_curve import Extrapolation, extrapolate
from discrete_itd.reporting.measurements import Measured
from discrete_itd.reporting.statistics import (
    Interval,
    curve_areas,
    mean_interval,
    p_value_band,
    share_interval,
)
from discrete_itd.validation import check_integer, check_share

LEVELS = (0.01, 0.05, 0.1)  # levels in the table of p-values


@dataclass(frozen=True)
class Verdict:
    """A measured interval of ``what`` ("nats" or "false alarms") and the target that it must not exceed."""

    what: str
    measured: Interval
    target: float

    @property
    def passed(self) -> bool | None:
        """True if the whole interval is at or below the target, False if it is above, else None (undecided)."""
        if self.measured.high <= self.target:
            return True
        return False if self.measured.low > self.target else None


@dataclass(frozen=True)
class Alarms:
    """Threshold and calibration of a detector, measured on M inliers; empty for a density.

    A row with ``surprisal`` above ``-threshold.offset`` raises an alarm; ``rate`` is the share of inliers that do. With
    n calibration rows, ``reference`` (n,) holds their ``surprisal`` and ``p_values`` (M,) those of the inliers.
    """

    threshold: Threshold | None = None
    rate: Interval | None = None
    reference: np.ndarray | None = None
    p_values: np.ndarray | None = None

    @property
    def is_surprisal(self) -> bool:
        """Whether rows are ranked by their surprisal, as by a density; a detector has a score of its own."""
        return self.threshold is None

    @property
    def calibration(self) -> pd.DataFrame | None:
        """Share of inliers with a p-value up to each of ``LEVELS``, and its 95 % range; None without p-values."""
        if self.p_values is None or self.reference is None:
            return None
        levels = np.array(LEVELS)
        low, high = p_value_band(levels, len(self.p_values), len(self.reference))
        share = (self.p_values <= levels[:, None]).mean(1)
        return pd.DataFrame({"level": levels, "share": share, "low": low, "high": high})


@dataclass(frozen=True)
class Findings:
    """The numbers of a report on N rows and M inliers, as returned by :func:`examine`.

    Parameters
    ----------
    surprisal : ndarray, shape (N,)
        Minus ``score_samples`` of the model for each row of the table, in nats.
    has_inliers : bool
        Whether inliers were given; otherwise the rows of the table take their place.
    n_cells, n_inlier_cells : int
        Cells of the table, and of the inliers, that are not missing; missingness indicators count as cells.
    nats : Interval
        Mean surprisal of the M inliers. If all their cells are missing, the interval is the whole line.
    stderr : ndarray, shape (M,)
        Standard errors of the inliers' surprisal, in nats.
    is_mass : bool
        Whether all columns have probabilities; continuous and binned columns have densities.
    alarms : Alarms
    verdicts : tuple of Verdict
        One for each target.
    gain : float
        Nats per held-out row of the training table by which the model is better than independent columns.
    history : DataFrame
        ``history_`` of the density.
    stopped : str
        Why training ended.
    curve : DataFrame, optional
        ``mse_curve`` of the inliers; None if there is only one.
    most_anomalous : DataFrame
        From :func:`~discrete_itd.reporting.measurements.most_anomalous_rows`.
    alarm_rows : DataFrame
        From :func:`~discrete_itd.reporting.measurements.alarm_rows`: rows of the table that raise an alarm, at most
        10 000, with the columns to keep. Empty for a model without a threshold.
    columns : DataFrame
        From :func:`~discrete_itd.reporting.measurements.column_entropies`, for the inliers, by falling nats.
    facts : list of (str, str)
        Names and values that describe model, data and cost.
    """

    surprisal: np.ndarray
    has_inliers: bool
    n_cells: int
    n_inlier_cells: int
    nats: Interval
    stderr: np.ndarray
    is_mass: bool
    alarms: Alarms
    verdicts: tuple[Verdict, ...]
    gain: float
    history: pd.DataFrame
    stopped: str
    curve: pd.DataFrame | None
    most_anomalous: pd.DataFrame
    alarm_rows: pd.DataFrame
    columns: pd.DataFrame
    facts: list[tuple[str, str]]

    @property
    def n_rows(self) -> int:
        """Number N of rows in the table."""
        return len(self.surprisal)

    @property
    def n_inliers(self) -> int:
        """Number M of inliers."""
        return len(self.stderr)

    @property
    def n_alarms(self) -> int | None:
        """Number of rows in the table that raise an alarm; None if the model has no threshold."""
        threshold = self.alarms.threshold
        return None if threshold is None else int((self.surprisal > -threshold.offset).sum())

    @property
    def score_name(self) -> str:
        """The quantity by which rows are ranked."""
        return "surprisal" if self.alarms.is_surprisal else "anomaly score"

    @property
    def has_many_alarms(self) -> bool:
        """Whether clearly more rows of the table raise an alarm than of inliers, on which targets are measured."""
        threshold = self.alarms.threshold
        if threshold is None or not self.has_inliers or not self.n_alarms:
            return False
        rates = [threshold.high, *([self.alarms.rate.high] if self.alarms.rate else [])]
        return share_interval(self.n_alarms, self.n_rows).low > max(rates)

    @property
    def median_stderr(self) -> float:
        """Median standard error of the inliers' surprisal, in nats."""
        return float(np.median(self.stderr))

    def quantile(self, q: float) -> float:
        """Quantile q of ``surprisal``, in nats."""
        return float(np.quantile(self.surprisal, q))

    @property
    def areas(self) -> tuple[float, float] | None:
        """Areas in nats under the curve of the model and of independent columns; None without a curve."""
        return None if self.curve is None else curve_areas(self.curve)

    @property
    def companion(self) -> str:
        """The model of the curve: "" for the denoiser that scores rows, else the class of the companion."""
        curve = self.curve
        return "" if curve is None or curve.attrs["scores_rows"] else curve.attrs["model"]

    @property
    def was_trained(self) -> bool:
        """Whether the model was trained step by step; others have a closed form."""
        return bool(self.history["step"].max() > 0)

    @cached_property
    def extrapolation(self) -> Extrapolation | None:
        """Predicted gain of longer training; None if there are too few validations."""
        return extrapolate(self.history)

    @property
    def passed(self) -> bool | None:
        """True if every target is met, False if one is missed, else None (no target, or one undecided)."""
        answers = [v.passed for v in self.verdicts]
        if False in answers:
            return False
        return True if answers and None not in answers else None


def examine(
    model: DiffusionDensity | DiffusionOutlierDetector,
    X: Any,
    *,
    inliers: Any = None,
    target_nats: float | None = None,
    target_false_alarms: float | None = None,
    n_most_anomalous: int = 10,
    max_stderr: float | None = None,
    keep: Sequence[Hashable] = (),
) -> Findings:
    """Compute everything that a report shows. Each table is read and encoded once.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
        Fitted. Thresholds, p-values and alarms need a detector.
    X : DataFrame or array-like, shape (N, C), Rows, or iterable of Rows
        The rows to report on. Of a table in parts, a few rows are kept, and at most four numbers for each row; the
        findings do not depend on the division.
    inliers : DataFrame or array-like, shape (M, C), Rows, or iterable of Rows, optional
        Normal rows that were used neither for training nor for calibration: mean surprisal, false alarms and the
        calibration of p-values are measured on them. The default is X, which is right if it holds no anomalies. With a
        density, one half of them sets a threshold and the other half is measured; parts are then iterated over twice.
    target_nats : float, optional
        Largest acceptable mean surprisal of an inlier.
    target_false_alarms : float, optional
        Largest acceptable share of inliers that raise an alarm; needs a threshold. With a density and inliers, the
        threshold is set for this rate (default 1 %).
    n_most_anomalous : int
        Number of rows to list with reasons.
    max_stderr : float, optional
        See :meth:`~discrete_itd.DiffusionDensity.log_prob`.
    keep : sequence of names
        Columns of X that identify a row, whether or not the model uses them: they are shown with the listed rows and in
        the table of alarms.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if the model cannot take a table; or naming an argument that is out of range.
    NotFittedError
        If the model is not fitted.
    """
    detector, density = measurements.fitted(model)
    if detector is not None and named(detector.given):
        raise ValueError(
            f"a report has one threshold for all rows; this detector has one for each group of {detector.given!r}:"
            " give its density_"
        )
    check_integer("n_most_anomalous", n_most_anomalous, 0)
    if target_nats is not None:
        check_finite("target_nats", target_nats)
    if target_false_alarms is not None:
        check_share("target_false_alarms", target_false_alarms)
    table, is_own = _parts(density, X, keep), inliers is None
    inliers = () if is_own else _parts(density, inliers)
    if detector is None and not is_own:
        detector, inliers = measurements.with_threshold(density, inliers, target_false_alarms)
    if target_false_alarms is not None and detector is None:
        raise ValueError(
            "target_false_alarms needs a threshold: give a DiffusionOutlierDetector, or inliers to set one"
        )
    asked = Measured(density, detector, table, max_stderr, n_most=n_most_anomalous, is_known=is_own)
    known = asked if is_own else Measured(density, detector, inliers, max_stderr)
    alarms = Alarms() if detector is None else _alarms(detector, known)
    stderr, nats = (
        known.numbers["stderr"],
        mean_interval(0.0 - known.numbers["log_prob"]),
    )  # not -0.0
    if not known.n_cells:
        nats = Interval(nats.value, -np.inf, np.inf)
    targets = ("nats", nats, target_nats), ("false alarms", alarms.rate, target_false_alarms)
    columns = measurements.column_entropies(density, known.spread)
    worst = asked.worst, asked.worst_scores, n_most_anomalous
    return Findings(
        surprisal=0.0 - asked.numbers["score"],
        has_inliers=not is_own,
        n_cells=asked.n_cells,
        n_inlier_cells=known.n_cells,
        nats=nats,
        stderr=stderr,
        is_mass=measurements.is_mass(density.encoder_),
        alarms=alarms,
        verdicts=tuple(
            Verdict(what, interval, float(target))
            for what, interval, target in targets
            if interval is not None and target is not None
        ),
        gain=density.model_.held_out.gain,
        history=density.history_,
        stopped=density.stopped_,
        curve=density.mse_curve(known.spread) if len(stderr) > 1 else None,
        most_anomalous=measurements.most_anomalous_rows(
            density, *worst, detector=detector, keep=keep
        ),
        alarm_rows=measurements.alarm_rows(detector, asked.alarms, asked.alarm_scores, keep),
        columns=columns.sort_values("nats", ascending=False, kind="stable"),
        facts=measurements.facts(density, asked.seconds / len(asked.numbers["score"])),
    )


def _parts(density: DiffusionDensity, X: Any, keep: Sequence[Hashable] = ()) -> Iterable[Rows]:
    """The rows of a table, with the columns to keep that the model does not use; parts are returned unchanged."""
    if isinstance(keep, str):
        raise TypeError(f"keep must be a list of names of columns, got the string {keep!r}")
    frame = None if isinstance(X, Rows) else as_frame(X)
    is_table = isinstance(X, Rows | Sequence | Mapping) or hasattr(X, "__array__")
    if frame is None and isinstance(X, Iterable) and not is_table:
        return X
    extra = [name for name in keep if name not in density.encoder_.names]
    if frame is None or not extra or not set(extra) <= set(frame.columns):
        return [check_any(density.rows(X if frame is None else frame))]
    rows = density.rows(
        frame.drop(columns=extra)
    )  # warns about columns that the model does not use
    others = frame[extra].set_axis(rows.index)
    return [check_any(replace(rows, others=others))]


def _alarms(detector: DiffusionOutlierDetector, known: Measured) -> Alarms:
    """Threshold, p-values and false alarms of a detector on inliers."""
    calibration, score = np.asarray(detector.calibration_scores_), known.numbers["score"]
    return Alarms(
        threshold=detector.threshold_,
        rate=share_interval(int((score < detector.threshold_.offset).sum()), len(score)),
        reference=-calibration if len(calibration) else None,
        p_values=known.numbers.get("p_value"),
    )


def check_finite(name: str, value: Any) -> None:
    """Raise a TypeError or ValueError unless a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
