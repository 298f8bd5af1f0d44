"""What a report keeps of a table that arrives in parts: up to four numbers for each row, and some of the rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from sklearn.frozen import FrozenEstimator

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.reporting.measurements import MOST_ROWS, Spread

FIRST_ROWS = 250  # on which the curve of the denoising error is measured
MOST_CALIBRATION = 1 << 17  # inliers that set a threshold
MOST_ALARMS = 10_000  # that are kept, for the download
USUAL_RATE = 0.01  # of false alarms, where a threshold is set and no target is given


class Measured:
    """Scores and log-probabilities of the rows of a table, and the rows that are shown or asked again.

    Parameters
    ----------
    density : DiffusionDensity
    detector : DiffusionOutlierDetector, optional
        By whose score the rows are ranked.
    max_stderr : float, optional
        Of the log-probabilities.
    n_most : int
        Number of rows with the lowest scores to keep.
    is_known : bool
        Whether log-probabilities are asked for.

    Attributes
    ----------
    n_cells : int
        Cells that are not missing.
    seconds : float
        That scoring took.
    first : First
        The first rows.
    spread : Spread
        Rows from the whole table.
    alarms : Rows or None
        The first rows that raise an alarm, in the order of the table, if rows are to be listed at all and any does.
    worst : Rows
        Those with the lowest scores, in the order of the table; ``worst_scores`` are theirs.
    """

    def __init__(
        self,
        density: DiffusionDensity,
        detector: DiffusionOutlierDetector | None,
        max_stderr: float | None,
        *,
        n_most: int = 0,
        is_known: bool = True,
    ) -> None:
        self.density, self._detector, self._max_stderr = density, detector, max_stderr
        self._n_most, self._is_known = n_most, is_known
        self.n_cells, self.seconds = 0, 0.0
        self.first, self.spread = First(FIRST_ROWS), Spread(MOST_ROWS)
        self.worst_scores = np.zeros(0)
        self._alarms, self._n_alarms = [], 0
        self._worst: list[Rows] = []
        self._scores: list[np.ndarray] = []
        self._p_values: list[np.ndarray] = []
        self._log_probs: list[np.ndarray] = []
        self._stderrs: list[np.ndarray] = []

    def add_all(self, rows: Iterable[Rows]) -> None:
        """Take the rows of the table, in parts; they are not kept, and can be gone before the next part."""
        for part in rows:
            self.add(part)

    def add(self, rows: Rows) -> None:
        """Take some more rows of the table."""
        start = time.perf_counter()
        density, estimate = self.density, None
        if self._detector is not None:
            score = self._detector.score_samples(rows)
        elif self._max_stderr is not None:  # the scores are those of score_samples
            score = density.score_samples(rows)
        else:
            estimate = density.log_prob(rows)
            score = estimate.log_prob
        self.seconds += time.perf_counter() - start
        self._scores.append(score)
        if self._detector is not None and len(self._detector.calibration_scores_):
            self._p_values.append(self._detector.p_values(rows, scores=score))
        if self._is_known:
            if estimate is None:
                estimate = density.log_prob(rows, max_stderr=self._max_stderr)
            self._log_probs.append(estimate.log_prob)
            self._stderrs.append(estimate.stderr)
        self.n_cells += int((~rows.x.isnan()).sum())
        self.first.add(rows)
        self.spread.add(rows)
        self._rank(rows, score)
        self._note_alarms(rows, score)

    def _note_alarms(self, rows: Rows, score: np.ndarray) -> None:
        if self._detector is None or not self._n_most:
            return
        alarms = np.flatnonzero(score < self._detector.threshold_.offset)
        alarms = alarms[: max(0, MOST_ALARMS - self._n_alarms)]
        if len(alarms):
            self._alarms.append(rows.take(alarms))
            self._n_alarms += len(alarms)

    @property
    def alarms(self) -> Rows | None:
        """See the attributes of the class."""
        return Rows.concat(self._alarms) if self._alarms else None

    def _rank(self, rows: Rows, score: np.ndarray) -> None:
        # earlier rows stand before later ones: of equal scores the earlier ones stay
        lowest = np.sort(np.argsort(score, kind="stable")[: self._n_most])
        both = Rows.concat([*self._worst, rows.take(lowest)])
        scores = np.append(self.worst_scores, score[lowest])
        stay = np.sort(np.argsort(scores, kind="stable")[: self._n_most])
        self._worst, self.worst_scores = [both.take(stay)], scores[stay]

    @property
    def worst(self) -> Rows:
        """See the attributes of the class."""
        return self._worst[0]

    @property
    def score(self) -> np.ndarray:
        """Scores of all rows, (N,), nats."""
        return _joined(self._scores)

    @property
    def p_values(self) -> np.ndarray | None:
        """Their p-values, (N,), of a detector with calibration rows."""
        return _joined(self._p_values) if self._p_values else None

    @property
    def log_prob(self) -> np.ndarray:
        """Log-probabilities of all rows, (N,), nats."""
        return _joined(self._log_probs)

    @property
    def stderr(self) -> np.ndarray:
        """Their standard errors, (N,), nats."""
        return _joined(self._stderrs)


class First:
    """The first rows of a table that arrives in parts.

    Parameters
    ----------
    most : int
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._kept: list[Rows] = []

    def add(self, rows: Rows) -> None:
        """Take some more rows of the table."""
        if self._left:
            self._kept.append(rows.take(slice(self._left)))
            self._left -= len(self._kept[-1])

    @property
    def rows(self) -> Rows:
        """The rows that are kept."""
        return Rows.concat(self._kept)


class Half:
    """One half of a table's rows, at random, the same however the table is divided into parts.

    Parameters
    ----------
    parts : iterable of Rows
    seed : int
    is_second : bool
        Whether it is the second half, which is one row shorter if the number of rows is odd.
    """

    def __init__(self, parts: Iterable[Rows], seed: int, *, is_second: bool) -> None:
        self._parts, self._seed, self._is_second = parts, seed, is_second
        self.n_table = 0

    def __iter__(self) -> Iterator[Rows]:
        random, left, self.n_table = np.random.RandomState(self._seed), None, 0
        for rows in self._parts:
            self.n_table += len(rows)
            both = rows if left is None else Rows.concat([left, rows])
            n_pairs, is_odd = divmod(len(both), 2)
            left = both.take(slice(-1, None)) if is_odd else None
            first = random.random_sample(n_pairs) < 0.5
            is_second = np.stack([first, ~first], axis=1).ravel()  # one row of each pair
            if n_pairs:
                yield both.take(np.flatnonzero(is_second == self._is_second))
        if left is not None and not self._is_second:
            yield left


def with_threshold(
    density: DiffusionDensity, inliers: Iterable[Rows], rate: float | None
) -> tuple[DiffusionOutlierDetector, Iterable[Rows]]:
    """A detector whose threshold is set by one half of the inliers, and the other half.

    Of many inliers, at most ``MOST_CALIBRATION`` set the threshold.
    """
    seed = density.model_.seed
    half, kept = Half(inliers, seed, is_second=False), Spread(MOST_CALIBRATION)
    for rows in half:
        kept.add(rows)
    if half.n_table < 4:
        raise ValueError(
            f"inliers: at least 4 rows are needed to set a threshold and to measure it, got {half.n_table}"
        )
    rate = USUAL_RATE if rate is None else rate
    detector = DiffusionOutlierDetector(FrozenEstimator(density), false_alarm_rate=rate)
    return detector.fit(kept.rows.frame), Half(inliers, seed, is_second=True)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """All parts in one array, which takes their place."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]
