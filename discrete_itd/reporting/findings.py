"""All numbers of a report.

:func:`examine` asks the model; :mod:`discrete_itd.reporting.page` only puts the findings into words and figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.detection.answers import answers
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.groups import named
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders import Rows, as_frame
from discrete_itd.encoders.rows import check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting.learning_curve import Extrapolation, extrapolate
from discrete_itd.reporting.measured import Measured, with_threshold
from discrete_itd.reporting.measurements import (
    column_entropies,
    facts,
    fitted,
    is_mass,
    kept,
    most_anomalous_rows,
)
from discrete_itd.reporting.statistics import (
    Interval,
    curve_areas,
    mean_interval,
    p_value_band,
    share_interval,
)
from discrete_itd.validation import check_integer, check_share

MOST_REASONS = 1000  # rows with an alarm whose reasons are looked for: some milliseconds to tenths of a second each
N_REASONS = 3  # cells of each, at most
LEVELS = (0.01, 0.05, 0.1)  # of the table of p-values


@dataclass(frozen=True)
class Verdict:
    """A measured number and the target that it must not exceed.

    Parameters
    ----------
    what : str
        "nats" or "false alarms".
    measured : Interval
    target : float
    """

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
    """What a detector's threshold and calibration rows say about M inliers; of a density, nothing.

    Parameters
    ----------
    threshold : Threshold, optional
        A row with ``surprisal`` above ``-offset`` raises an alarm.
    rate : Interval, optional
        Share of the inliers that raise an alarm.
    reference : ndarray, shape (n,), optional
        ``surprisal`` of the calibration rows, if there are any.
    p_values : ndarray, shape (M,), optional
        Of the inliers, if there are calibration rows.
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
        """For a few levels the share of inliers with a p-value up to it, and its 95 % range; None without p-values."""
        if self.p_values is None or self.reference is None:
            return None
        levels = np.array(LEVELS)
        low, high = p_value_band(levels, len(self.p_values), len(self.reference))
        share = (self.p_values <= levels[:, None]).mean(1)
        return pd.DataFrame({"level": levels, "share": share, "low": low, "high": high})


@dataclass(frozen=True)
class Findings:
    """What :func:`examine` found.

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
    extrapolation : Extrapolation, optional
        What longer training would gain; None if there are too few validations to say.
    curve : DataFrame, optional
        ``mse_curve`` of the inliers; None if there is only one.
    companion : str
        What the curve is of: "" for the denoiser that scores rows, else the class of the companion.
    most_anomalous : DataFrame
        From :func:`~discrete_itd.reporting.measurements.most_anomalous_rows`.
    alarm_rows : DataFrame
        Rows of the table that raise an alarm, at most 10 000, in its order: the columns to keep, row, nats, p_value,
        and the reasons of the ``MOST_REASONS`` with the highest nats. Empty for a model without a threshold.
    columns : DataFrame
        From :func:`~discrete_itd.reporting.measurements.column_entropies`, for the inliers, by falling nats.
    facts : tuple of (str, str)
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
    extrapolation: Extrapolation | None
    curve: pd.DataFrame | None
    companion: str
    most_anomalous: pd.DataFrame
    alarm_rows: pd.DataFrame
    columns: pd.DataFrame
    facts: tuple[tuple[str, str], ...]

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
    """Ask a model everything that a report says. Each table is read and encoded once.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
        Fitted. Thresholds, p-values and alarms need a detector.
    X : DataFrame or array-like, shape (N, C), or Rows
        The rows to report on.
    inliers : DataFrame or array-like, shape (M, C), or Rows, optional
        Normal rows that were used neither for training nor for calibration: mean surprisal, false alarms and the
        calibration of p-values are measured on them. The default is X, which is right if it holds no anomalies. With a
        density, one half of them sets a threshold and the other half is measured.
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
        Columns of X, also ones that the model does not know, that say which row is which: they are shown with the rows
        that are listed, and stand in the table of alarms.

    Returns
    -------
    Findings

    Raises
    ------
    ValueError, TypeError
        Naming the column, if the model cannot take a table; or naming an argument that is out of range.
    NotFittedError
        If the model is not fitted.
    """
    _, density = fitted(model)
    return examine_stream(
        model,
        [check_any(_with_keys(density, X, keep))],
        inliers=None if inliers is None else [check_any(density.rows(inliers))],
        target_nats=target_nats,
        target_false_alarms=target_false_alarms,
        n_most_anomalous=n_most_anomalous,
        max_stderr=max_stderr,
        keep=keep,
    )


def _with_keys(density: DiffusionDensity, X: Any, keep: Sequence[Hashable]) -> Rows:
    """The rows of a table, with the columns to keep that the model does not know beside them."""
    if isinstance(keep, str):
        raise TypeError(f"keep must be a list of names of columns, got the string {keep!r}")
    frame = None if isinstance(X, Rows) else as_frame(X)
    extra = [name for name in keep if name not in density.encoder_.names]
    if frame is None or not extra or not set(extra) <= set(frame.columns):
        return density.rows(X)
    rows = density.rows(frame.drop(columns=extra))  # it warns of columns that are of no use
    others = frame[extra].set_axis(rows.index)
    return replace(rows, others=others)


def examine_stream(
    model: DiffusionDensity | DiffusionOutlierDetector,
    rows: Iterable[Rows],
    *,
    inliers: Iterable[Rows] | None = None,
    target_nats: float | None = None,
    target_false_alarms: float | None = None,
    n_most_anomalous: int = 10,
    max_stderr: float | None = None,
    keep: Sequence[Hashable] = (),
) -> Findings:
    """As :func:`examine`, for tables that arrive in parts, with the same result however they are divided.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
    rows : iterable of Rows
        Only a few of them are kept, and at most four numbers for each row.
    inliers : iterable of Rows, optional
        Iterated over twice if the model is a density.
    target_nats, target_false_alarms, n_most_anomalous, max_stderr, keep
        As for :func:`examine`.

    Returns
    -------
    Findings
    """
    detector, density = fitted(model)
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
    if detector is None and inliers is not None:
        detector, inliers = with_threshold(density, inliers, target_false_alarms)
    if target_false_alarms is not None and detector is None:
        raise ValueError(
            "target_false_alarms needs a threshold: give a DiffusionOutlierDetector, or inliers to set one"
        )

    is_own = inliers is None
    table = Measured(density, detector, max_stderr, n_most=n_most_anomalous, is_known=is_own)
    table.add_all(rows)
    known = table
    if inliers is not None:
        known = Measured(density, detector, max_stderr)
        known.add_all(inliers)
    alarms = Alarms() if detector is None else _alarms(detector, known)
    nats = mean_interval(0.0 - known.log_prob)  # not -0.0
    if not known.n_cells:
        nats = Interval(nats.value, -np.inf, np.inf)
    answers = ("nats", nats, target_nats), ("false alarms", alarms.rate, target_false_alarms)
    curve = density.mse_curve(known.first.rows) if len(known.stderr) > 1 else None
    worst = most_anomalous_rows(
        density, table.worst, table.worst_scores, n_most_anomalous, detector=detector, keep=keep
    )
    columns = column_entropies(density, known.spread.rows)
    return Findings(
        surprisal=0.0 - table.score,
        has_inliers=not is_own,
        n_cells=table.n_cells,
        n_inlier_cells=known.n_cells,
        nats=nats,
        stderr=known.stderr,
        is_mass=is_mass(density.encoder_),
        alarms=alarms,
        verdicts=tuple(
            Verdict(what, interval, float(target))
            for what, interval, target in answers
            if interval is not None and target is not None
        ),
        gain=density.model_.held_out.gain,
        history=density.history_,
        stopped=density.stopped_,
        extrapolation=extrapolate(density.history_),
        curve=curve,
        companion="" if curve is None or curve.attrs["scores_rows"] else curve.attrs["model"],
        most_anomalous=worst,
        alarm_rows=_alarm_rows(detector, table.alarms, keep),
        columns=columns.sort_values("nats", ascending=False, kind="stable"),
        facts=tuple(facts(density, table.seconds / len(table.score))),
    )


def _alarms(detector: DiffusionOutlierDetector, known: Measured) -> Alarms:
    """What a detector says about inliers."""
    calibration, score = np.asarray(detector.calibration_scores_), known.score
    return Alarms(
        threshold=detector.threshold_,
        rate=share_interval(int((score < detector.threshold_.offset).sum()), len(score)),
        reference=-calibration if len(calibration) else None,
        p_values=known.p_values,
    )


def _alarm_rows(
    detector: DiffusionOutlierDetector | None, alarms: Rows | None, keep: Sequence[Hashable]
) -> pd.DataFrame:
    """The rows that raise an alarm, in the order of the table; most of them, or all, with reasons."""
    if detector is None or alarms is None:
        return pd.DataFrame({"row": [], "nats": [], "p_value": [], "reasons": []})
    found = answers(detector, alarms, ["score", "p_value"])
    score = found["score"].to_numpy()
    told = np.sort(np.argsort(score, kind="stable")[:MOST_REASONS])
    with warnings.catch_warnings():
        # the warning was given for the whole table
        warnings.filterwarnings("ignore", "column .* no value was seen in training")
        reasons = answers(detector, alarms.take(told), ["reason"], n_reasons=N_REASONS)["reason"]
    text = np.full(len(alarms), "", dtype=object)
    text[told] = reasons.fillna("").to_numpy()
    own = {"row": alarms.index, "nats": 0.0 - score, "p_value": found["p_value"].to_numpy()}
    table = pd.DataFrame({**own, "reasons": text})
    columns = kept(alarms, keep).reset_index(drop=True)
    columns.columns = [f"kept_{name}" if name in table else str(name) for name in columns]
    return pd.concat([columns, table], axis=1)


def check_finite(name: str, value: Any) -> None:
    """Raise a TypeError or ValueError if a value is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
