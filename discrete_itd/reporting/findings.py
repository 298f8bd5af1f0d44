"""All numbers of a report: :func:`examine` computes them, :mod:`discrete_itd.reporting.page` presents them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.detection import outside
from discrete_itd.detection.detector import DiffusionOutlierDetector, rules_of
from discrete_itd.detection.reasons import NO_CELL, reasons
from discrete_itd.detection.strata import named
from discrete_itd.detection.thresholds import AlarmCount, Threshold
from discrete_itd.encoders import Column, Rows, as_frame, written
from discrete_itd.encoders.column import is_missing
from discrete_itd.encoders.rows import check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.graph import ColumnGraph, column_graph
from discrete_itd.plots import (
    RowScores,
    column_entropies,
    fitted,
    information_matrix,
    matrix_work,
)
from discrete_itd.statistics import (
    Interval,
    mean_interval,
    p_value_band,
    share_interval,
)
from discrete_itd.storage.card import facts, limits
from discrete_itd.validation import check_integer, check_real, check_share

MOST_CELLS_SHOWN = 24  # most cells of an anomalous row that are shown, besides those with a reason
N_REASONS = 3  # most cells of a row that are named as reasons
MOST_EXPLAINED = 200  # most alarms whose kind is found, those with the lowest scores
OTHERWISE = "does not fit the rest of its row"  # kind of an alarm
MOST_RULES = 10
# the matrix of pairs of columns is left out if it takes more floats per row: some tenths of a second
MOST_WORK = 1 << 25


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
    n calibration rows, ``reference`` (n,) holds their ``surprisal`` and ``p_values`` (M,) belong to the inliers.
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
        """Share of inliers with a p-value up to 1, 5 and 10 %, and its 95 % range; None without p-values."""
        if self.p_values is None or self.reference is None:
            return None
        levels = np.array([0.01, 0.05, 0.1])
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
        Whether all columns have probabilities; continuous columns have densities.
    median, n_top
        Median surprisal of the inliers, and the number of those that own more than half of what the mean has above
        it, if they are at most one in a hundred, else 0.
    alarms, verdicts
        Threshold and calibration; one verdict for each target.
    kinds : DataFrame
        From :func:`kinds_of`: a line for each alarm, of at most the ``MOST_EXPLAINED`` most anomalous.
    n_unreadable : int
        Rows of the table with an unreadable cell, of which each is an alarm that no rate counts.
    gain : float
        Nats per held-out row of the training table by which the model is better than independent columns.
    history, stopped
        ``history_`` and ``model_.stopped`` of the density.
    most_anomalous, columns : DataFrame
        From :func:`most_anomalous_rows` and, for the inliers, by falling nats,
        :func:`~discrete_itd.plots.column_entropies`.
    information : DataFrame or None
        From :func:`~discrete_itd.plots.information_matrix` of the inliers; None where it would take long, or there is
        one row or column.
    graph : ColumnGraph or None
        From :func:`~discrete_itd.find_graph` of the inliers; None where ``information`` is.
    rules : list of str, or None
        What the rows of the fit of a detector obey, at most :data:`MOST_RULES` rules, those of several columns first.
    facts, limits : dict of str, list of str
        What the model is, was fitted to and costs, and what it does not promise, as on its card.
    """

    surprisal: np.ndarray
    has_inliers: bool
    n_cells: int
    n_inlier_cells: int
    nats: Interval
    median: float
    n_top: int
    stderr: np.ndarray
    is_mass: bool
    alarms: Alarms
    verdicts: tuple[Verdict, ...]
    kinds: pd.DataFrame
    n_unreadable: int
    gain: float
    history: pd.DataFrame
    stopped: str
    most_anomalous: pd.DataFrame
    columns: pd.DataFrame
    information: pd.DataFrame | None
    graph: ColumnGraph | None
    rules: list[str] | None
    facts: dict[str, str]
    limits: list[str]

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
    def n_expected(self) -> AlarmCount | None:
        """Alarms among as many new inliers as the table has rows; None without calibration rows."""
        threshold = self.alarms.threshold
        if threshold is None or not threshold.n_calibration or not self.n_rows:
            return None
        return threshold.alarms_expected(self.n_rows)

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
    X : DataFrame, array-like or Rows, shape (N, C)
        The rows to report on.
    inliers : DataFrame, array-like or Rows, shape (M, C), optional
        Normal rows that were used neither for training nor for calibration: mean surprisal, false alarms and the
        calibration of p-values are measured on them. The default is X, which is right if it holds no anomalies.
    target_nats : float, optional
        Largest acceptable mean surprisal of an inlier.
    target_false_alarms : float, optional
        Largest acceptable share of inliers that raise an alarm; needs a detector, which has a threshold.
    n_most_anomalous : int
        Number of rows to list with reasons.
    keep : sequence of names
        Columns of X that identify a row, whether or not the model uses them: they are shown with the listed rows.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if the model cannot take a table; or naming an argument that is out of range.
    NotFittedError
        If the model is not fitted.

    Warns
    -----
    UserWarning
        If many rows of a table are outside of the training of a detector, once for each table.
    """
    detector, density = fitted(model)
    if detector is not None and named(detector.given):
        raise ValueError(
            f"a report has one threshold for all rows; this detector has one for each stratum of {detector.given!r}:"
            " give its density_"
        )
    check_integer("n_most_anomalous", n_most_anomalous, 0)
    if target_nats is not None:
        check_real("target_nats", target_nats)
    if target_false_alarms is not None:
        check_share("target_false_alarms", target_false_alarms)
    if target_false_alarms is not None and detector is None:
        raise ValueError("target_false_alarms needs a threshold: give a DiffusionOutlierDetector")
    rows = _read(density, X, keep)
    known = rows if inliers is None else _read(density, inliers)
    if detector is not None:
        outside.tell(rows)
        if known is not rows:
            outside.tell(known)
    estimate, alarms = density.log_prob(known), Alarms()
    with outside.untold():
        if detector is not None:
            score, alarms = detector.score_samples(rows), _alarms(detector, known)
        else:
            score = estimate.log_prob if known is rows else density.score_samples(rows)
        order = np.argsort(score, kind="stable")
        limit = -np.inf if detector is None else detector.offset_
        is_alarm = (score < limit) | (rows.is_unreadable & (detector is not None))
        kinds = kinds_of(detector, rows, order[is_alarm[order]][:MOST_EXPLAINED])
        worst = most_anomalous_rows(
            density, rows, score, n_most_anomalous, detector=detector, kinds=kinds, keep=keep
        )
    own, schema = density.model_, density.encoder_.schema
    n_known_cells = int((~np.isnan(known.cells)).sum())
    surprisal = 0.0 - estimate.log_prob  # not -0.0
    nats, median = mean_interval(surprisal), float(np.median(surprisal))
    if not n_known_cells:
        nats = Interval(nats.value, -np.inf, np.inf)
    measured = {"nats": (nats, target_nats), "false alarms": (alarms.rate, target_false_alarms)}
    columns = column_entropies(density, known).sort_values("nats", ascending=False, kind="stable")
    information = graph = None
    if matrix_work(density) <= MOST_WORK and len(known) > 1 and len(schema) > 1:
        information = information_matrix(density, known)
        graph = column_graph(own, known, density.n_evaluations)
    return Findings(
        surprisal=0.0 - score,
        has_inliers=known is not rows,
        n_cells=int((~np.isnan(rows.cells)).sum()),
        n_inlier_cells=n_known_cells,
        nats=nats,
        median=median,
        n_top=_n_top(surprisal - median),
        stderr=estimate.stderr,
        is_mass=all(column.has_masses for column in schema),
        alarms=alarms,
        verdicts=tuple(
            Verdict(what, interval, float(target))
            for what, (interval, target) in measured.items()
            if interval is not None and target is not None
        ),
        kinds=kinds,
        n_unreadable=int(is_alarm[rows.is_unreadable].sum()),
        gain=own.held_out.gain,
        history=density.history_,
        stopped=own.stopped,
        most_anomalous=worst,
        columns=columns,
        information=information,
        graph=graph,
        rules=None if detector is None else rules_of(detector)[:MOST_RULES] or None,
        facts=facts(own, density.n_evaluations),
        limits=limits(own),
    )


def _n_top(above: np.ndarray) -> int:
    """How many of the largest values own more than half of the sum of the positive ones; 0 if over one in a hundred."""
    above, n = np.sort(np.maximum(above, 0.0))[::-1], len(above) // 100
    share = above.cumsum() / max(above.sum(), np.finfo(float).tiny)
    return int((share[:n] <= 0.5).sum() + 1) if n and share[n - 1] > 0.5 else 0


def _alarms(detector: DiffusionOutlierDetector, known: Rows) -> Alarms:
    """Threshold and calibration of a detector, measured on inliers."""
    calibration = np.asarray(detector.calibration_scores_)
    n_alarms = int((detector.score_samples(known) < detector.offset_).sum())
    found = Alarms(detector.threshold_, share_interval(n_alarms, len(known)))
    if not len(calibration):
        return found
    return replace(found, reference=-calibration, p_values=detector.p_values(known))


def _read(density: DiffusionDensity, X: Any, keep: Sequence[Hashable] = ()) -> Rows:
    """The rows of a table, with the columns to keep that the model does not use."""
    if isinstance(keep, str):
        raise TypeError(f"keep must be a list of names of columns, got the string {keep!r}")
    frame = None if isinstance(X, Rows) else as_frame(X)
    extra = [name for name in keep if name not in density.encoder_.names]
    if frame is None or not extra or not set(extra) <= set(frame.columns):
        return check_any(density.rows(X if frame is None else frame))
    rows = density.rows(frame.drop(columns=extra))  # warns about columns that it does not use
    return check_any(replace(rows, others=frame[extra].set_axis(rows.index)))


# -- anomalies ----------------------------------------------------------------------------------------


def most_anomalous_rows(
    density: DiffusionDensity,
    rows: Rows,
    score: np.ndarray,
    n: int,
    *,
    detector: DiffusionOutlierDetector | None = None,
    kinds: pd.DataFrame | None = None,
    keep: Sequence[Hashable] = (),
) -> pd.DataFrame:
    """The n of N rows with the lowest scores, shape (N,) in nats, and up to ``N_REASONS`` reasons for each.

    With the ``kinds`` of alarms, from :func:`kinds_of`, a row of each kind precedes others of the same. Columns: row
    (its label in the table), nats (minus the score), p_value (NaN without calibration rows), n_alike (other alarms of
    its kind), reasons (a tuple of sentences), cells (a tuple of name, value as text, and whether a reason is about it:
    the columns to keep, :func:`kept`, then the columns of the model, of many the first ``MOST_CELLS_SHOWN`` and all
    with a reason).
    """
    order, p = np.argsort(score, kind="stable"), np.full(len(rows), np.nan)
    n_alike = np.zeros(len(rows), int)
    if kinds is not None:
        firsts = kinds.drop_duplicates(["column", "kind"])
        positions = firsts["position"].to_numpy(int)
        n_alike[positions] = firsts["n"].to_numpy(int) - 1
        is_later = ~np.isin(order, positions)
        order = order[np.sort(np.argsort(is_later, kind="stable")[:n])]
    worst = order[:n]
    if n and len(rows) and detector is not None and len(detector.calibration_scores_):
        p = detector.p_values(rows)
    rows = rows.take(worst)
    said, marked = _reasons(density if detector is None else detector, rows)
    columns, own = {c.name: c for c in rows.encoder.schema}, kept(rows, keep)
    others, cells = [name for name in columns if name not in keep], []
    for i, names in enumerate(marked):
        shown = [*others[:MOST_CELLS_SHOWN], *(n for n in others[MOST_CELLS_SHOWN:] if n in names)]
        values = [(name, own[name].iloc[i]) for name in keep]
        values += [(name, rows.frame[name].iloc[i]) for name in shown]
        cells.append(tuple((str(n), _text(v, columns.get(n)), n in names) for n, v in values))
    found = {"row": list(rows.index), "nats": 0.0 - score[worst], "p_value": p[worst]}  # not -0.0
    found["n_alike"] = n_alike[worst]
    return pd.DataFrame(found).assign(reasons=said, cells=cells)


def kinds_of(
    detector: DiffusionOutlierDetector | None, rows: Rows, alarms: np.ndarray
) -> pd.DataFrame:
    """What the alarms at some positions are about, by the most suspicious cell of each row.

    One line for each: position, column (as text, "" where no cell is suspicious), kind (what its cell breaks, in
    words), and n, the number of these alarms with that column and kind.
    """
    fields = ["position", "column", "kind"]
    if detector is None or not len(alarms):
        return pd.DataFrame(columns=pd.Index([*fields, "n"]))
    alarmed = rows.take(alarms).labelled(range(len(alarms)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "column .* no value was seen in training")
        reason = detector.reasons(alarmed, k=1).set_index("row").to_dict("index")
    lines = [
        (position, *_kind(alarmed, i, reason.get(i))) for i, position in enumerate(alarms.tolist())
    ]
    table = pd.DataFrame(lines, columns=pd.Index([*fields, "conflict"]))
    for _, group in table[table["kind"] == OTHERWISE].groupby("column"):
        (conflict, n), *_ = Counter(group["conflict"]).most_common(1)
        if conflict is not None and 2 * n > len(group):  # most contradict the same column
            table.loc[group.index, "kind"] = f"does not fit {conflict}"
    table["n"] = table.groupby(["column", "kind"])["position"].transform("size")
    return table.drop(columns="conflict")


def _kind(rows: Rows, i: int, reason: Mapping[Hashable, Any] | None) -> tuple[str, str, str | None]:
    """The column that the reason of row i names, the kind of the reason, and the column that the cell contradicts."""
    if reason is None:
        return "", "a rare combination of cells", None
    names = [str(name) for name in rows.encoder.names]
    j = rows.encoder.place_of(reason["column"])
    kind, conflict = OTHERWISE, reason["conflict_column"]
    if not pd.isna(rows.unreadable[i, j]):
        kind = "cannot be read"
    elif is_missing(reason["value"]):
        kind = "is missing"
    elif not pd.isna(reason["rule"]):
        kind = f"breaks {reason['rule']}"
    elif rows.is_outside[i, j]:
        kind = "has a value beyond those of training"
    return names[j], kind, None if pd.isna(conflict) else str(conflict)


def _reasons(
    model: DiffusionDensity | DiffusionOutlierDetector, rows: Rows
) -> tuple[list[tuple[str, ...]], list[set[Hashable]]]:
    """Sentences for each row, and the columns that they are about; none for a row without cells."""
    if not len(rows):
        return [], []
    rows = rows.labelled(range(len(rows)))  # labels may repeat
    with warnings.catch_warnings():
        # already warned for the whole table
        warnings.filterwarnings("ignore", "column .* no value was seen in training")
        if isinstance(model, DiffusionDensity):
            lines = reasons(model, rows, N_REASONS)
        else:
            lines = model.reasons(rows, k=N_REASONS)
    own = [lines[lines["row"] == row] for row in rows.index]
    is_empty = np.asarray(np.isnan(rows.cells[:, : rows.encoder.n_columns]).all(1))
    said: list[tuple[str, ...]] = [
        tuple(cells["sentence"]) or (() if is_empty[row] else (NO_CELL,))
        for row, cells in enumerate(own)
    ]
    return said, [set(cells["column"]) for cells in own]


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
