"""What a report says, as numbers: the findings of a model about a table.

:func:`examine` asks the model; :mod:`discrete_itd.reporting.page` only writes down what it found.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.frozen import FrozenEstimator

from discrete_itd.detection import conformal
from discrete_itd.detection.conformal import Threshold
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting.details import (
    column_entropies,
    facts,
    fitted,
    strangest_rows,
    table_of,
)
from discrete_itd.reporting.extrapolation import Extrapolation, extrapolate
from discrete_itd.reporting.figures import is_mass
from discrete_itd.validation import check_integer, check_share

LEVEL = 0.95  # of all intervals
FEW = 20  # rows by which to tell what scores are
SAME = 1e-6  # nats by which equal sums may differ
USUAL_RATE = 0.01  # of false alarms, where a threshold is set and no target is given


class Interval(NamedTuple):
    """A number and the interval in which it lies with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """A measured number against the target that it must not exceed.

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
        """True if the whole interval is at or below the target, False if it is above; None: undecided."""
        if self.measured.high <= self.target:
            return True
        return False if self.measured.low > self.target else None


@dataclass(frozen=True)
class Findings:
    """What :func:`examine` found.

    Parameters
    ----------
    surprisal : ndarray, shape (N,)
        How surprising each row of the table is, in nats: minus ``score_samples`` of the model.
    is_plain : bool
        Whether that is minus the log-probability; a detector may score tables otherwise.
    is_given : bool
        Whether ordinary rows were given; else those of the table take their place.
    n_cells, n_ordinary_cells : int
        Cells of the table, and of the ordinary rows, that are not missing.
    nats : Interval
        Mean of minus the log-probability of the M ordinary rows. If they hold no cell to cost, the interval is the
        whole line.
    stderr : ndarray, shape (M,)
        Standard errors of these, in nats.
    is_mass : bool
        Whether log-probabilities are those of masses; with continuous or binned columns, they are of densities.
    alarms : Interval, optional
        Share of the ordinary rows that are alarms; None if the model has no threshold.
    threshold : Threshold, optional
        Of the detector; ``-offset`` is the surprisal above which a row is an alarm.
    reference : ndarray, shape (n,), optional
        Surprisal of the rows on which the detector is calibrated.
    p_values : ndarray, shape (M,), optional
        Of the ordinary rows.
    verdicts : tuple of Verdict
        One for each target.
    history : DataFrame
    stopped : str
        Why training ended.
    ahead : Extrapolation, optional
        What longer training would buy; None if the training was too short to say.
    curve : DataFrame, optional
        ``mse_curve`` of the ordinary rows; None if there is only one.
    strangest : DataFrame
        As :func:`strangest_rows` returns it.
    columns : DataFrame
        As :func:`column_entropies` returns it, of the ordinary rows.
    facts : tuple of (str, str)
        About model, data and cost: names and what is to say.
    """

    surprisal: np.ndarray
    is_plain: bool
    is_given: bool
    n_cells: int
    n_ordinary_cells: int
    nats: Interval
    stderr: np.ndarray
    is_mass: bool
    alarms: Interval | None
    threshold: Threshold | None
    reference: np.ndarray | None
    p_values: np.ndarray | None
    verdicts: tuple[Verdict, ...]
    history: pd.DataFrame
    stopped: str
    ahead: Extrapolation | None
    curve: pd.DataFrame | None
    strangest: pd.DataFrame
    columns: pd.DataFrame
    facts: tuple[tuple[str, str], ...]

    @property
    def n_rows(self) -> int:
        """Rows N of the table."""
        return len(self.surprisal)

    @property
    def n_ordinary(self) -> int:
        """Ordinary rows M."""
        return len(self.stderr)

    @property
    def n_alarms(self) -> int | None:
        """Rows of the table that are alarms; None if the model has no threshold."""
        return (
            None if self.threshold is None else int((self.surprisal > -self.threshold.offset).sum())
        )

    @property
    def passed(self) -> bool | None:
        """True if every target is met, False if one is missed; None if no target is given, or one is undecided."""
        answers = [v.passed for v in self.verdicts]
        if False in answers:
            return False
        return True if answers and None not in answers else None


def examine(
    model: DiffusionDensity | DiffusionOutlierDetector,
    X: Any,
    *,
    ordinary: Any = None,
    target_nats: float | None = None,
    target_false_alarms: float | None = None,
    n_strangest: int = 10,
    max_stderr: float | None = None,
) -> Findings:
    """Ask a model all that a report says.

    Parameters
    ----------
    model : DiffusionDensity or DiffusionOutlierDetector
        Fitted. Thresholds, p-values and alarms are those of a detector.
    X : DataFrame or array-like, shape (N, C)
        The rows to report on.
    ordinary : DataFrame or array-like, shape (M, C), optional
        Ordinary rows that neither training nor calibration has seen: mean nats, false alarms and the calibration of
        p-values are measured on these. By default on X, which is right if all of it is ordinary. For a density, one
        half of them sets a threshold first, and the other half is measured.
    target_nats : float, optional
        The mean surprisal of an ordinary row should not exceed this.
    target_false_alarms : float, optional
        The share of ordinary rows that are alarms should not exceed this; needs a threshold. Without a
        detector, the threshold is set for this rate, by default for 1 %.
    n_strangest : int
        Rows to list with reasons.
    max_stderr : float, optional
        As of :meth:`~discrete_itd.DiffusionDensity.log_prob`.

    Returns
    -------
    Findings

    Raises
    ------
    ValueError, TypeError
        Naming the column, if a table is not what the model takes; or the argument that makes no sense.
    NotFittedError
        If the model is not fitted.
    """
    detector, density = fitted(model)
    check_integer("n_strangest", n_strangest, 0)
    if target_nats is not None:
        check_finite("target_nats", target_nats)
    if target_false_alarms is not None:
        check_share("target_false_alarms", target_false_alarms)
    measured = ordinary
    if detector is None and ordinary is not None:
        detector, measured = _with_threshold(density, ordinary, target_false_alarms)
    if target_false_alarms is not None and detector is None:
        raise ValueError(
            "target_false_alarms needs a threshold: that of a DiffusionOutlierDetector, or ordinary= rows to set one"
        )

    start = time.perf_counter()
    score = (density if detector is None else detector).score_samples(X)
    seconds = time.perf_counter() - start
    rows = X if measured is None else measured
    log_prob, stderr = density.log_prob(rows, max_stderr=max_stderr)
    n_cells = n_ordinary_cells = _count_cells(density, X)
    if measured is not None:
        n_ordinary_cells = _count_cells(density, measured)
    nats = mean_interval(0.0 - log_prob)  # not -0.0
    if not n_ordinary_cells:
        nats = Interval(nats.value, -np.inf, np.inf)
    verdicts = []
    if target_nats is not None:
        verdicts.append(Verdict("nats", nats, float(target_nats)))
    threshold = reference = p_values = alarms = None
    is_plain = True
    if detector is not None:
        threshold, calibration = detector.threshold_, np.asarray(detector.calibration_scores_)
        among = score if measured is None else detector.score_samples(measured)
        is_plain = bool(
            np.allclose(among[:FEW], density.score_samples(rows[:FEW]), rtol=0, atol=SAME)
        )
        alarms = share_interval(int((among < threshold.offset).sum()), len(among))
        if len(calibration):
            reference = -calibration
            p_values = conformal.p_values(calibration, among, rounding=detector.rounding_)
        if target_false_alarms is not None:
            verdicts.append(Verdict("false alarms", alarms, float(target_false_alarms)))
    return Findings(
        surprisal=0.0 - score,
        is_plain=is_plain,
        is_given=measured is not None,
        n_cells=n_cells,
        n_ordinary_cells=n_ordinary_cells,
        stderr=stderr,
        nats=nats,
        is_mass=is_mass(density.encoder_),
        alarms=alarms,
        threshold=threshold,
        reference=reference,
        p_values=p_values,
        verdicts=tuple(verdicts),
        history=density.history_,
        stopped=density.stopped_,
        ahead=extrapolate(density.history_),
        curve=density.mse_curve(rows) if len(log_prob) > 1 else None,
        strangest=strangest_rows(density, X, score, n_strangest, detector=detector),
        columns=column_entropies(density, rows),
        facts=tuple(facts(density, seconds / len(score))),
    )


def _with_threshold(
    density: DiffusionDensity, ordinary: Any, rate: float | None
) -> tuple[DiffusionOutlierDetector, pd.DataFrame]:
    """A detector whose threshold is from one half of the ordinary rows, and the other half to measure it on."""
    frame = table_of(density, ordinary)
    if len(frame) < 4:
        raise ValueError(
            f"ordinary= needs at least 4 rows, for a threshold and to try it, got {len(frame)}"
        )
    order = np.random.RandomState(density.model_.seed).permutation(len(frame))
    half, other = np.sort(order[::2]), np.sort(order[1::2])
    rate = USUAL_RATE if rate is None else rate
    detector = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=rate)
    return detector.fit(frame.iloc[half]), frame.iloc[other]


def _count_cells(density: DiffusionDensity, X: Any) -> int:
    """Cells that are there, and have a cost."""
    return int((~density.rows(X).x.isnan()).sum())


def check_finite(name: str, value: Any) -> None:
    """Raise a TypeError or ValueError if a value is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of rows and its 95 % interval, by Student's t; of one row, the interval is the whole line."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def share_interval(count: int, n: int) -> Interval:
    """The share of ``count`` among n and its 95 % interval.

    References
    ----------
    Clopper & Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934): it covers
    at least as often as it says, for every n.
    """
    low, high = stats.binomtest(count, n).proportion_ci(LEVEL)
    return Interval(count / n, float(low), float(high))
