"""All numbers of a report, and how they are measured on tables that arrive in parts.

:func:`examine` computes them; :mod:`discrete_itd.reporting.page` presents them as text and figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator

from discrete_itd.detection import outside
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.groups import named
from discrete_itd.detection.reasons import NO_CELL, reasons
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders import Column, Rows, as_frame, written
from discrete_itd.encoders.frames import is_missing
from discrete_itd.encoders.rows import check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.plots import (
    AVERAGED_ROWS,
    MASSES,
    RowScores,
    column_entropies,
    fitted,
    information_matrix,
    matrix_work,
    spread_step,
)
from discrete_itd.progress import Deadline
from discrete_itd.statistics import (
    Interval,
    curve_areas,
    mean_interval,
    p_value_band,
    share_interval,
)
from discrete_itd.storage.card import facts
from discrete_itd.validation import check_integer, check_real, check_share, warn

Made = TypeVar("Made")
LEVELS = (0.01, 0.05, 0.1)  # rows of the table of p-values
MOST_CELLS_SHOWN = (
    24  # cells of an anomalous row, in the order of the columns, besides those with a reason
)
MOST_CALIBRATION = (
    1 << 17
)  # inliers that set a threshold: a rate of 1 in 1000 is known to a sixth then
MOST_ALARMS = 10_000  # rows that are kept for the download: a few MB
MOST_REASONS = 1000  # of these rows get reasons, which take milliseconds to tenths of a second each
N_REASONS = 3  # cells of a row that are named, at most
USUAL_RATE = 0.01  # of false alarms, where a threshold is set and no target is given
# An optional section of the page takes about so many seconds, on as many rows as that allows; the first FEW_ROWS tell.
# One in which a row takes more numbers than MOST_WORK, some tenths of a second, is left out without a try.
SECTION_SECONDS, FEW_ROWS, MOST_WORK = 2.0, 16, 1 << 25
CURVE_LEVELS = 25  # levels of noise at which the curve of errors is drawn


class Sections:
    """The optional sections of a page: each within its seconds, and none takes the rest down.

    ``left_out`` names those that failed or are too costly.
    """

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def of_rows(
        self, name: str, make: Callable[[Rows], Made], rows: Rows, work: float = 0.0
    ) -> Made | None:
        """What ``make`` finds in a few rows, of so much ``work`` each, or if quick, in as many as there is time for."""
        if work > MOST_WORK:
            self.left_out.append(f"{name}, which this model makes costly")
            return None
        deadline, step = Deadline(SECTION_SECONDS), spread_step(len(rows), FEW_ROWS)
        try:
            found = make(rows.take(slice(None, None, step)))
            per_row = deadline.age * step / len(rows)
            most = int(deadline.left / max(per_row, 1e-9))
            if (more := spread_step(len(rows), max(1, most))) < step:
                found = make(rows.take(slice(None, None, more)))
        except Exception as error:  # of any kind: the rest of the page is worth having
            self.left_out.append(f"{name}, which {_failed(error)}")
            return None
        return found


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
        """Whether rows are ranked by their surprisal, as by a density."""
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
    surprisal, stderr : ndarray, shapes (N,) and (M,)
        Minus ``score_samples`` of the model for each row of the table; standard errors of the inliers' surprisal; nats.
    has_inliers : bool
        Whether inliers were given; otherwise the rows of the table take their place.
    n_cells, n_inlier_cells : int
        Cells that are not missing; missingness indicators count as cells.
    nats : Interval
        Mean surprisal of the M inliers. If all their cells are missing, the interval is the whole line.
    is_mass : bool
        Whether all columns have probabilities; continuous and binned columns have densities.
    alarms, verdicts
        Threshold and calibration; one verdict for each target.
    gain : float
        Nats per held-out row of the training table by which the model is better than independent columns.
    history, stopped, curve
        ``history_`` and ``model_.stopped`` of the density; ``mse_curve`` of the inliers, None if there is only one, or
        noisy rows are costly by the model.
    most_anomalous, alarm_rows, columns : DataFrame
        From :func:`most_anomalous_rows`, :func:`alarm_rows` and, for the inliers, by falling nats,
        :func:`~discrete_itd.plots.column_entropies`.
    information : DataFrame or None
        From :func:`~discrete_itd.plots.information_matrix` of the inliers; None where it would take long, or there is
        one row or column.
    facts : dict of str
        What the model is, was fitted to and costs, as on its card.
    left_out : tuple of str
        Sections that failed or are too costly, with the reason; ``columns`` may be one of them, and is then None.
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
    columns: pd.DataFrame | None
    information: pd.DataFrame | None
    facts: dict[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        return len(self.surprisal)

    @property
    def n_inliers(self) -> int:
        return len(self.stderr)

    @property
    def n_alarms(self) -> int | None:
        """Number of rows in the table that raise an alarm; None if the model has no threshold."""
        threshold = self.alarms.threshold
        return None if threshold is None else int((self.surprisal > -threshold.offset).sum())

    @property
    def scores(self) -> RowScores:
        """The scores by which rows are ranked, with the threshold and the scores of calibration rows, if any."""
        alarms = self.alarms
        return RowScores(
            self.surprisal,
            "surprisal" if alarms.is_surprisal else "anomaly score",
            np.inf if alarms.threshold is None else -alarms.threshold.offset,
            np.zeros(0) if alarms.reference is None else alarms.reference,
        )

    @property
    def has_many_alarms(self) -> bool:
        """Whether clearly more rows of the table raise an alarm than of inliers, on which targets are measured."""
        threshold = self.alarms.threshold
        if threshold is None or not self.has_inliers or not self.n_alarms:
            return False
        rates = [threshold.high, *([self.alarms.rate.high] if self.alarms.rate else [])]
        return share_interval(self.n_alarms, self.n_rows).low > max(rates)

    def quantile(self, q: float) -> float:
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

    @property
    def late_gain(self) -> float | None:
        """Nats per held-out row that the second half of the steps gained; None if there was no validation in the first.

        Along a power law of the steps, as learning curves are, twice as many steps gain less than that.
        """
        trained = self.history[self.history["step"] > 0]
        early = trained.loc[trained["step"] <= trained["step"].max() / 2, "valid_nats"].min()
        gain = float(early - trained["valid_nats"].min())
        return gain if np.isfinite(gain) else None

    @property
    def passed(self) -> bool | None:
        """True if every target is met, False if one is missed, else None (no target, or one undecided)."""
        answers = [v.passed for v in self.verdicts]
        if False in answers:
            return False
        return True if answers and None not in answers else None


@outside.untold()  # table by table, once
def examine(
    model: DiffusionDensity | DiffusionOutlierDetector,
    X: Any,
    *,
    inliers: Any = None,
    target_nats: float | None = None,
    target_false_alarms: float | None = None,
    n_most_anomalous: int = 10,
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
    detector, density = fitted(model)
    if detector is not None and named(detector.given):
        raise ValueError(
            f"a report has one threshold for all rows; this detector has one for each group of {detector.given!r}:"
            " give its density_"
        )
    check_integer("n_most_anomalous", n_most_anomalous, 0)
    if target_nats is not None:
        check_real("target_nats", target_nats)
    if target_false_alarms is not None:
        check_share("target_false_alarms", target_false_alarms)
    table, is_own = _parts(density, X, keep), inliers is None
    inliers = () if is_own else _parts(density, inliers)
    if detector is None and not is_own:
        detector, inliers = with_threshold(density, inliers, target_false_alarms)
    if target_false_alarms is not None and detector is None:
        raise ValueError(
            "target_false_alarms needs a threshold: give a DiffusionOutlierDetector, or inliers to set one"
        )
    asked = Measured(density, detector, table, n_most=n_most_anomalous, is_known=is_own)
    known = asked if is_own else Measured(density, detector, inliers)
    alarms = Alarms()
    if detector is not None:
        calibration, score = np.asarray(detector.calibration_scores_), known.numbers["score"]
        alarms = Alarms(
            threshold=detector.threshold_,
            rate=share_interval(int((score < detector.threshold_.offset).sum()), len(score)),
            reference=-calibration if len(calibration) else None,
            p_values=known.numbers.get("p_value"),
        )
    nats = mean_interval(0.0 - known.numbers["log_prob"])  # not -0.0
    if not known.n_cells:
        nats = Interval(nats.value, -np.inf, np.inf)
    targets = ("nats", nats, target_nats), ("false alarms", alarms.rate, target_false_alarms)
    sections, rows, fitted_model = Sections(), known.spread, density.model_
    columns = sections.of_rows("columns", partial(column_entropies, density), rows)
    if columns is not None:
        columns = columns.sort_values("nats", ascending=False, kind="stable")
    curve = information = None
    if len(rows) > 1:
        make = partial(density.mse_curve, n_points=CURVE_LEVELS)
        work = CURVE_LEVELS * fitted_model.curved.noisy_work
        curve = sections.of_rows("the curve of errors", make, rows, work)
    if len(rows) > 1 and density.encoder_.n_columns > 1:
        make = partial(information_matrix, density)
        information = sections.of_rows("pairs of columns", make, rows, matrix_work(density))
    return Findings(
        surprisal=0.0 - asked.numbers["score"],
        has_inliers=not is_own,
        n_cells=asked.n_cells,
        n_inlier_cells=known.n_cells,
        nats=nats,
        stderr=known.numbers["stderr"],
        is_mass=all(column.kind in MASSES for column in density.encoder_.schema),
        alarms=alarms,
        verdicts=tuple(
            Verdict(what, interval, float(target))
            for what, interval, target in targets
            if interval is not None and target is not None
        ),
        gain=fitted_model.held_out.gain,
        history=density.history_,
        stopped=fitted_model.stopped,
        curve=curve,
        most_anomalous=most_anomalous_rows(
            density, asked.worst, asked.worst_scores, n_most_anomalous, detector=detector, keep=keep
        ),
        alarm_rows=alarm_rows(detector, asked.alarms, asked.alarm_scores, keep),
        columns=columns,
        information=information,
        facts=facts(fitted_model, density.n_evaluations),
        left_out=tuple(sections.left_out),
    )


def _parts(density: DiffusionDensity, X: Any, keep: Sequence[Hashable] = ()) -> Iterable[Rows]:
    """The rows of a table, with the columns to keep that the model does not use; parts are returned unchanged."""
    if isinstance(keep, str):
        raise TypeError(f"keep must be a list of names of columns, got the string {keep!r}")
    frame = None if isinstance(X, Rows) else as_frame(X)
    is_table = isinstance(X, Rows | Sequence | Mapping) or hasattr(X, "__array__")
    if frame is None and isinstance(X, Iterable) and not is_table:
        return X
    known = [column.name for column in density.encoder_.read_columns]
    extra = [name for name in keep if name not in known]
    if frame is None or not extra or not set(extra) <= set(frame.columns):
        return [check_any(density.rows(X if frame is None else frame))]
    rows = density.rows(frame.drop(columns=extra))  # warns about columns that it does not use
    others = frame[extra].set_axis(rows.index)
    return [check_any(replace(rows, others=others))]


# -- a table in parts ---------------------------------------------------------------------------------


class Spread:
    """At most ``most`` rows of a table that arrives in parts, evenly spread: all, or every 2nd, 4th, 8th, ..."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._n = most, 1, 0
        self._kept: list[Rows] = []

    def add(self, rows: Rows) -> None:
        """Add the next part of the table."""
        new = np.arange(-self._n % self._step, len(rows), self._step)
        self._n += len(rows)
        if len(new):
            self._kept.append(rows.take(new))
        step = spread_step(self._n, self._most)
        if step > self._step:
            self._kept = [self.rows.take(slice(None, None, step // self._step))]
            self._step = step

    @property
    def rows(self) -> Rows:
        """The rows that are kept."""
        self._kept = [Rows.concat(self._kept)]
        return self._kept[0]


def half(parts: Iterable[Rows], seed: int, *, is_second: bool) -> Iterator[Rows]:
    """One half of a table's rows: one at random of each pair, independent of the division into parts."""
    # the choices repeat after 65 536 pairs
    choices, n = np.random.default_rng(seed).integers(0, 2, 1 << 16), 0
    for rows in parts:
        place = np.arange(n, n + len(rows))
        n += len(rows)
        first = choices[place // 2 % len(choices)]
        own = place % 2 == (first != is_second)
        if own.any():
            yield rows.take(own)
    if n < 4:
        raise ValueError(
            f"inliers: at least 4 rows are needed to set a threshold and to measure it, got {n}"
        )


def with_threshold(
    density: DiffusionDensity, inliers: Iterable[Rows], rate: float | None
) -> tuple[DiffusionOutlierDetector, Iterable[Rows]]:
    """A detector whose threshold is set by one half of the inliers, and the other half of them.

    At most ``MOST_CALIBRATION`` inliers set the threshold.
    """
    seed, known = density.model_.seed, Spread(MOST_CALIBRATION)
    for rows in half(inliers, seed, is_second=False):
        known.add(rows)
    rate = USUAL_RATE if rate is None else rate
    detector = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=rate)
    return detector.fit(known.rows.frame), half(inliers, seed, is_second=True)


class Measured:
    """Numbers of the rows of a table that arrives in parts, and the rows that are shown or explained.

    ``numbers`` are arrays (N,) in nats: score, by which rows are ranked, and if ``is_known`` log_prob, stderr and, with
    a detector that has calibration rows, p_value. ``spread`` are at most ``AVERAGED_ROWS`` rows, evenly spread;
    ``worst`` the ``n_most`` with the lowest scores and, unless that is 0, ``alarms`` the first with an alarm, in the
    order of the table, with their scores. ``n_cells`` counts the cells that are not missing. A UserWarning if many of
    the rows are outside of the training of a detector.
    """

    def __init__(
        self,
        density: DiffusionDensity,
        detector: DiffusionOutlierDetector | None,
        parts: Iterable[Rows],
        *,
        n_most: int = 0,
        is_known: bool = True,
    ) -> None:
        self.n_cells, schema = 0, density.encoder_.schema
        n_outside = np.zeros(len(schema), dtype=np.int64)
        found: list[dict[str, np.ndarray]] = []
        spread, alarms, worst = Spread(AVERAGED_ROWS), [], []
        self.worst_scores = self.alarm_scores = np.zeros(0)
        for rows in parts:
            numbers: dict[str, np.ndarray] = {}
            if is_known:
                numbers |= density.log_prob(rows)._asdict()
            if detector is not None and len(detector.calibration_scores_) and is_known:
                numbers["p_value"] = detector.p_values(rows)
            score = numbers["log_prob"] if detector is None else detector.score_samples(rows)
            found.append(numbers | {"score": score})
            self.n_cells += int((~np.isnan(rows.cells)).sum())
            n_outside += rows.is_outside.sum(0)
            spread.add(rows)
            # stable: of equal scores the earlier rows are kept
            lowest = np.sort(np.argsort(score, kind="stable")[:n_most])
            both = Rows.concat([*worst, rows.take(lowest)])
            scores = np.append(self.worst_scores, score[lowest])
            stay = np.sort(np.argsort(scores, kind="stable")[:n_most])
            worst, self.worst_scores = [both.take(stay)], scores[stay]
            if detector is not None and n_most:
                raised = np.flatnonzero(score < detector.threshold_.offset)
                raised = raised[: MOST_ALARMS - len(self.alarm_scores)]
                self.alarm_scores = np.append(self.alarm_scores, score[raised])
                alarms += [rows.take(raised)] if len(raised) else []
        if not found:
            raise ValueError("a report needs at least one row, got none")
        n_rows = sum(len(f["score"]) for f in found)
        told = detector is not None and outside.sentence(n_outside, n_rows, schema)
        if told:
            warn(told)
        self.numbers = {name: np.concatenate([f[name] for f in found]) for name in found[0]}
        self.spread, self.worst = spread.rows, worst[0]
        self.alarms = Rows.concat(alarms) if alarms else None


# -- anomalies ----------------------------------------------------------------------------------------


def most_anomalous_rows(
    density: DiffusionDensity,
    rows: Rows,
    score: np.ndarray,
    n: int,
    *,
    detector: DiffusionOutlierDetector | None = None,
    keep: Sequence[Hashable] = (),
) -> pd.DataFrame:
    """The n of N rows with the lowest scores, shape (N,) in nats, and up to ``N_REASONS`` reasons for each.

    Columns: row (its label in the table), nats (minus the score), p_value (NaN without calibration rows), reasons (a
    tuple of sentences), cells (a tuple of name, value as text, and whether a reason is about it: the columns to keep,
    :func:`kept`, then those of the model, of many columns the first ``MOST_CELLS_SHOWN`` and those with a reason).
    """
    worst = np.argsort(score, kind="stable")[:n]
    rows = rows.take(worst)
    said, marked = _reasons(density if detector is None else detector, rows)
    columns, own = {c.name: c for c in rows.encoder.schema}, kept(rows, keep)
    others, cells = [name for name in columns if name not in keep], []
    for i, names in enumerate(marked):
        shown = [*others[:MOST_CELLS_SHOWN], *(n for n in others[MOST_CELLS_SHOWN:] if n in names)]
        values = [(name, own[name].iloc[i]) for name in keep]
        values += [(name, rows.frame[name].iloc[i]) for name in shown]
        cells.append(tuple((str(n), _text(v, columns.get(n)), n in names) for n, v in values))
    return _listed(detector, rows, score[worst]).assign(reasons=said, cells=cells)


def alarm_rows(
    detector: DiffusionOutlierDetector | None,
    alarms: Rows | None,
    score: np.ndarray,
    keep: Sequence[Hashable],
) -> pd.DataFrame:
    """The rows that raise an alarm, in the order of the table; the most anomalous have reasons, in a bounded time.

    Columns: those to keep, row, nats, p_value and reasons (one string).
    """
    if detector is None or alarms is None:
        return pd.DataFrame({"row": [], "nats": [], "p_value": [], "reasons": []})
    asked = np.argsort(score, kind="stable")[:MOST_REASONS]
    text = pd.Series("", range(len(alarms)), dtype=object)
    deadline, size = Deadline(SECTION_SECONDS), FEW_ROWS
    while len(asked):
        before = deadline.left
        some, asked = asked[:size], asked[size:]
        text[some] = ["; ".join(lines) for lines in _reasons(detector, alarms.take(some))[0]]
        took, size = before - deadline.left, 2 * size
        if 2 * took > deadline.left:  # the next ones are twice as many
            break
    table = _listed(detector, alarms, score).assign(reasons=text)
    columns = kept(alarms, keep).reset_index(drop=True)
    columns.columns = [f"kept_{name}" if name in table else str(name) for name in columns]
    return pd.concat([columns, table], axis=1)


def _listed(
    detector: DiffusionOutlierDetector | None, rows: Rows, score: np.ndarray
) -> pd.DataFrame:
    p: Any = np.nan
    if len(rows) and detector is not None and len(detector.calibration_scores_):
        p = detector.p_values(rows, scores=score)
    own = {"row": list(rows.index), "nats": 0.0 - score, "p_value": p}  # not -0.0
    return pd.DataFrame(own, index=range(len(rows)))


def _reasons(
    model: DiffusionDensity | DiffusionOutlierDetector, rows: Rows
) -> tuple[list[tuple[str, ...]], list[set[Hashable]]]:
    """Sentences for each row, and the columns that they are about; none for a row without cells."""
    said: list[list[str]] = [[] for _ in range(len(rows))]
    about: list[set[Hashable]] = [set() for _ in said]
    if not said:
        return [], []
    rows = rows.labelled(range(len(rows)))  # labels may repeat
    with warnings.catch_warnings():
        # already warned for the whole table
        warnings.filterwarnings("ignore", "column .* no value was seen in training")
        try:
            if isinstance(model, DiffusionDensity):
                lines = reasons(model, rows, N_REASONS)
            else:
                lines = model.reasons(rows, k=N_REASONS)
        except Exception as error:  # of any kind, as in a section
            return [(f"no reasons: their computation {_failed(error)}",)] * len(rows), about
    for row, column, text in zip(lines["row"], lines["column"], lines["sentence"], strict=True):
        said[row].append(text)
        about[row].add(column)
    is_known = ~np.isnan(rows.cells[:, : rows.encoder.n_columns])
    for own, known in zip(said, is_known, strict=True):
        if known.any() and not own:
            own.append(NO_CELL)
    return list(map(tuple, said)), about


def _failed(error: Exception) -> str:
    return f"failed ({type(error).__name__}: {error})"


def _text(value: Any, column: Column | None) -> str:
    return "—" if is_missing(value) else written(value, column)


def kept(rows: Rows, names: Sequence[Hashable]) -> pd.DataFrame:
    """The named columns of the table, unchanged, including columns that the model does not use.

    A ValueError names a column that the table lacks.
    """
    columns = {}
    for name in names:
        own = [t for t in (rows.others, rows.frame) if t is not None and name in t.columns]
        if not own:
            raise ValueError(f"column {name!r}: named in keep=, but the table has no such column")
        columns[name] = own[0][name].set_axis(rows.index)
    return pd.DataFrame(columns, index=rows.index)
