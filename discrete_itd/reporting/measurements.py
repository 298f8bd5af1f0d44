"""Measurements for a report: scores of a table that arrives in parts, its anomalies, columns and facts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from discrete_itd import __version__
from discrete_itd.detection.assessment import nats_given_others, scores_of_row
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.reasons import NO_CELL, reasons
from discrete_itd.detection.score import scorer_of
from discrete_itd.encoders import Column, Rows, TableEncoder, written
from discrete_itd.estimators import DiffusionDensity

MASSES = ("nominal", "ordinal")  # kinds of columns with probabilities; the others have densities
MOST_CELLS_SHOWN = 24  # cells of a row, in the order of the columns
MOST_ROWS = 500  # rows for what costs one network evaluation per row and column, or noise level
MOST_CALIBRATION = 1 << 17  # inliers that set a threshold
MOST_ALARMS = 10_000  # rows that are kept, for the download
MOST_REASONS = (
    1000  # rows with an alarm that are explained: milliseconds to tenths of a second each
)
USUAL_RATE = 0.01  # of false alarms, where a threshold is set and no target is given
MOST_COLUMNS = 100  # columns whose entropy given all others is measured
# in a wide table: floats of these posteriors in all, and least number of rows
MOST_CELLS, FEWEST_ROWS = 1 << 26, 32
MOST_SCORES = 1 << 17  # in all, where conditionals are enumerated by scores
N_REASONS = 3  # per row, at most


def fitted(model: Any) -> tuple[DiffusionOutlierDetector | None, DiffusionDensity]:
    """A fitted model as (detector, or None if it is a density; density).

    A TypeError if it is neither, a NotFittedError if it is not fitted.
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


# -- a table in parts ---------------------------------------------------------------------------------


def spread_positions(n: int, most: int) -> np.ndarray:
    """Positions of at most ``most`` of n rows, evenly spread over the table: all, or every 2nd, 4th, 8th, ..."""
    step = 1
    while -(-n // step) > most:
        step *= 2
    return np.arange(0, n, step)


class Spread:
    """The rows at :func:`spread_positions` of a table that arrives in parts."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._n = most, 1, 0
        self._kept: list[Rows] = []

    def add(self, rows: Rows) -> None:
        """Add the next part of the table."""
        new = np.arange(-self._n % self._step, len(rows), self._step)
        self._n += len(rows)
        if len(new):
            self._kept.append(rows.take(new))
        while -(-self._n // self._step) > self._most:
            self._step *= 2
            self._kept = [self.rows.take(slice(None, None, 2))]

    @property
    def rows(self) -> Rows:
        """The rows that are kept."""
        self._kept = [Rows.concat(self._kept)]
        return self._kept[0]


class Half:
    """One half of a table's rows: one at random of each pair, independent of the division into parts."""

    def __init__(self, parts: Iterable[Rows], seed: int, *, is_second: bool) -> None:
        self._parts, self._is_second, self.n_table = parts, is_second, 0
        # the choices repeat after 65 536 pairs
        self._choices = np.random.default_rng(seed).integers(0, 2, 1 << 16)

    def __iter__(self) -> Iterator[Rows]:
        self.n_table = 0
        for rows in self._parts:
            place = np.arange(self.n_table, self.n_table + len(rows))
            self.n_table += len(rows)
            first = self._choices[place // 2 % len(self._choices)]
            own = place % 2 == (first != self._is_second)
            if own.any():
                yield rows.take(own)


def with_threshold(
    density: DiffusionDensity, inliers: Iterable[Rows], rate: float | None
) -> tuple[DiffusionOutlierDetector, Iterable[Rows]]:
    """A detector whose threshold is set by one half of the inliers, and the other half of them.

    At most ``MOST_CALIBRATION`` inliers set the threshold.
    """
    seed = density.model_.seed
    half, known = Half(inliers, seed, is_second=False), Spread(MOST_CALIBRATION)
    for rows in half:
        known.add(rows)
    if half.n_table < 4:
        raise ValueError(
            f"inliers: at least 4 rows are needed to set a threshold and to measure it, got {half.n_table}"
        )
    rate = USUAL_RATE if rate is None else rate
    detector = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=rate)
    return detector.fit(known.rows.frame), Half(inliers, seed, is_second=True)


class Measured:
    """Numbers of the rows of a table that arrives in parts, and the rows that are shown or explained.

    ``detector``, if there is one, gives the scores by which rows are ranked; log-probabilities, with standard errors up
    to ``max_stderr``, are computed if ``is_known``. The ``n_most`` rows with the lowest scores are kept, and, unless it
    is 0, the first rows with an alarm. Parts are not kept.

    Attributes
    ----------
    numbers : dict of ndarray, shape (N,)
        score; p_value with a detector that has calibration rows; log_prob and stderr if ``is_known``. Nats.
    n_cells : int
        Cells that are not missing.
    seconds : float
        Time for scoring.
    spread : Rows
        At most ``MOST_ROWS`` rows, evenly spread over the table.
    worst, alarms : Rows, and Rows or None
        Rows with the lowest scores, and rows with an alarm, in the order of the table; ``worst_scores`` and
        ``alarm_scores`` are their scores.
    """

    def __init__(
        self,
        density: DiffusionDensity,
        detector: DiffusionOutlierDetector | None,
        parts: Iterable[Rows],
        max_stderr: float | None,
        *,
        n_most: int = 0,
        is_known: bool = True,
    ) -> None:
        self._density, self._detector, self._max_stderr = density, detector, max_stderr
        self.n_cells, self.seconds = 0, 0.0
        found: list[dict[str, np.ndarray]] = []
        spread, alarms, worst = Spread(MOST_ROWS), [], []
        self.worst_scores = self.alarm_scores = np.zeros(0)
        for rows in parts:
            found.append(self._numbers(rows, is_known))
            score = found[-1]["score"]
            self.n_cells += int((~rows.x.isnan()).sum())
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
        self.numbers = {name: np.concatenate([f[name] for f in found]) for name in found[0]}
        self.spread, self.worst = spread.rows, worst[0]
        self.alarms = Rows.concat(alarms) if alarms else None

    def _numbers(self, rows: Rows, is_known: bool) -> dict[str, np.ndarray]:
        """The numbers of one part."""
        density, detector, estimate = self._density, self._detector, None
        start = time.perf_counter()
        if detector is not None:
            score = detector.score_samples(rows)
        elif self._max_stderr is not None:  # the scores are those of score_samples
            score = density.score_samples(rows)
        else:
            estimate = density.log_prob(rows)
            score = estimate.log_prob
        self.seconds += time.perf_counter() - start
        found = {"score": score}
        if detector is not None and len(detector.calibration_scores_):
            found["p_value"] = detector.p_values(rows, scores=score)
        if is_known:
            if estimate is None:
                estimate = density.log_prob(rows, max_stderr=self._max_stderr)
            found |= {"log_prob": estimate.log_prob, "stderr": estimate.stderr}
        return found


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
    """The rows that raise an alarm, in the order of the table; the ``MOST_REASONS`` most anomalous have reasons.

    Columns: those to keep, row, nats, p_value and reasons (one string).
    """
    if detector is None or alarms is None:
        return pd.DataFrame({"row": [], "nats": [], "p_value": [], "reasons": []})
    asked = np.sort(np.argsort(score, kind="stable")[:MOST_REASONS])
    text = pd.Series("", range(len(alarms)), dtype=object)
    text[asked] = ["; ".join(lines) for lines in _reasons(detector, alarms.take(asked))[0]]
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
        if isinstance(model, DiffusionDensity):
            lines = reasons(model, rows, N_REASONS)
        else:
            lines = model.reasons(rows, k=N_REASONS)
    for row, column, text in zip(lines["row"], lines["column"], lines["sentence"], strict=True):
        said[row].append(text)
        about[row].add(column)
    for own, any_cell in zip(said, rows.frame.notna().any(axis=1), strict=True):
        if any_cell and not own:
            own.append(NO_CELL)
    return list(map(tuple, said)), about


def _text(value: Any, column: Column | None) -> str:
    is_missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return "—" if is_missing else written(value, column)


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


# -- columns and facts --------------------------------------------------------------------------------


def column_entropies(density: DiffusionDensity, rows: Rows) -> pd.DataFrame:
    """Each column's mean surprisal, marginally and given all other columns, over at most ``MOST_ROWS`` rows.

    Columns: column, kind, nats, nats_given_others, explained (the difference) and share (explained relative to nats;
    NaN for a density and where nats is not positive). A missing cell counts as 0 nats. In a table of more than
    ``MOST_COLUMNS`` columns, only those that the model explains most, by their shares of the score: the conditional
    distribution of each cell costs a posterior of the whole row.
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
    table = rows.table(rows.by_column(-log_prob - rows.log_volume)).fillna(0.0)
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
    schedules = density.model_.schedule_table
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
        ("scoring time", f"{1000 * seconds_per_row:.1f} ms per row on {density.model_.device}"),
        ("version", f"discrete_itd {__version__}"),
    ]
