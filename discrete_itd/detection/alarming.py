"""The detector's methods that raise alarms: p-values, discoveries and thresholds."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from discrete_itd.detection import conformal, thresholds
from discrete_itd.detection.budgets import Alarms, alarms_among
from discrete_itd.detection.groups import Groups
from discrete_itd.detection.scoring import Scorer
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders.rows import Rows
from discrete_itd.validation import check_positive, check_share, warn


class Alarming:
    """Mixin of detectors: what calibration scores say of new scores."""

    _scorer: Scorer
    _groups: Groups
    _repeats: np.ndarray
    calibration_scores_: np.ndarray
    calibration_nats_: pd.DataFrame
    threshold_: Threshold
    offset_: float

    def rows(self, X: Any) -> Rows:
        """Read and encode a table once, for several questions; see :meth:`DiffusionDensity.rows`."""
        check_is_fitted(self)
        return self._scorer.density.rows(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """The score of each row: float64, shape (N,), nats; higher is more typical. See ``score_by``."""
        rows = self.rows(X)  # which checks first that the detector is fitted
        return self._scorer.score(rows)

    def decision_function(self, X: Any) -> np.ndarray:
        """Score above the threshold of the row's group, shape (N,), nats: negative for rows that raise an alarm."""
        rows = self.rows(X)
        return self.score_samples(rows) - self.offsets(rows)

    def predict(self, X: Any) -> np.ndarray:
        """-1 for rows that raise an alarm, 1 for the others, :meth:`tied` ones among them: int, shape (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def tied(self, X: Any, *, scores: np.ndarray | None = None) -> np.ndarray:
        """Rows that raise no alarm only because their score is that of the threshold: bool, shape (N,).

        Where a table has few possible rows, many share a score, anomalies and calibration rows alike, so an alarm for
        each would exceed the false-alarm rate. ``threshold_at_rate(threshold_.rate_if_tied)`` has these alarms.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        scores : ndarray, shape (N,), optional
            What :meth:`score_samples` returned for X, if it is known already.
        """
        rows = self.rows(X)
        offsets = self.offsets(rows)
        above = (self.score_samples(rows) if scores is None else scores) - offsets
        near = (self.rounding_ + thresholds.TIED) * (1 + np.abs(offsets))
        return (above >= 0) & (above <= near) & np.isfinite(offsets)

    # -- groups ---------------------------------------------------------------------------------

    def offsets(self, X: Any, threshold: Threshold | None = None) -> np.ndarray:
        """The score below which each row raises an alarm: shape (N,), nats.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        threshold : Threshold, optional
            Another one than ``threshold_``. Without ``given``, its offset is that of all rows; with ``given``, of rows
            in groups that it has no offset of.
        """
        place = self._groups.place(self.rows(X))
        used = self.threshold_ if threshold is None else self._checked(threshold)
        own = used.group_offsets or [used.offset] * (len(self._groups.members) - 1)
        return np.array([used.offset, *own])[place]

    def group_seen(self, X: Any) -> np.ndarray:
        """Whether the model was fitted to rows of each row's group (see ``given``): bool, shape (N,).

        A row of a group that it never saw has a score, too: the value, or the combination of values, is taken for as
        improbable as any that is unseen, and the other cells depend on it as the model generalises. Its p-value is
        that among all calibration rows, of which it need not be one by its nature: take it with care.
        """
        return self._groups.seen(self.rows(X))

    @property
    def given_(self) -> tuple[Hashable, ...]:
        """Names of the columns that define a row's group, none without ``given``."""
        check_is_fitted(self)
        return self._groups.names

    @property
    def groups_(self) -> pd.DataFrame:
        """The groups among the calibration rows, indexed by the values of the given columns.

        ``n_calibration``, their number of calibration rows; ``own``, whether these are enough for p-values and an
        offset of their own; ``offset``, below which a score raises an alarm. Values that the model takes for one (rare
        ones that are pooled) are one group, under the most frequent of them.
        """
        check_is_fitted(self)
        return self._groups.table(self.threshold_)

    def _sides(self, X: Any) -> list[np.ndarray]:
        """One-sided p-values (N,) of scores that are too low, and of those that are too high."""
        scores, rows = conformal.calibration_scores(self), self.rows(X)
        new, place, rounding = self.score_samples(rows), self._groups.place(rows), self.rounding_
        both = ((scores, new), (-scores, -new))
        return [self._groups.p_values(*side, place, rounding=rounding) for side in both]

    # -- p-values -------------------------------------------------------------------------------

    def p_values(
        self, X: Any, *, two_sided: bool = False, scores: np.ndarray | None = None
    ) -> np.ndarray:
        r"""Conformal p-values, eq. (7) of :mod:`discrete_itd.detection.conformal`.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        two_sided : bool
            If True, a row may also be *too* probable, like a form left at its defaults.
        scores : ndarray, shape (N,), optional
            What :meth:`score_samples` returned for X, if it is known already.

        Returns
        -------
        ndarray, shape (N,)
            For an inlier, at most :math:`\alpha` with probability at most :math:`\alpha`, on average over calibration
            sets, with ``given`` also within each group that has calibration rows enough
            (:mod:`discrete_itd.detection.groups`). To select among many rows use :meth:`discoveries`.

        Raises
        ------
        ValueError
            If the detector was fitted without calibration rows.
        """
        calibration, rows = conformal.calibration_scores(self), self.rows(X)
        new = self.score_samples(rows) if scores is None else scores
        how: Any = {"two_sided": two_sided, "rounding": self.rounding_}
        return self._groups.p_values(calibration, new, self._groups.place(rows), **how)

    def discoveries(self, X: Any, *, fdr: float = 0.1, two_sided: bool = False) -> np.ndarray:
        """Rows of a batch to call anomalies, among which at most a share ``fdr`` is expected to be inliers.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
            The whole batch: unlike an alarm, a discovery depends on the other rows of the batch.
        fdr : float
            False-discovery rate, controlled by the procedure of Benjamini and Hochberg.
        two_sided : bool
            If True, rows may also be too probable: half of ``fdr`` is spent on either side
            (:func:`discrete_itd.detection.conformal.two_sided_discoveries`).

        Returns
        -------
        ndarray of bool, shape (N,)

        Warns
        -----
        UserWarning
            If the detector was fitted with ``contamination``. The rate is still controlled where anomalies score lower
            than inliers, but calibration rows that are anomalies make those of the batch look typical: only what is
            more frequent there, or scores lower, is found.

        Notes
        -----
        With ``given``, rows of one group share their calibration rows, and those of different groups are independent
        but for groups that are compared with all calibration rows. That the procedure controls the rate then is not
        proven.
        """
        fdr = check_share("fdr", fdr)
        if self.threshold_.contaminated:
            warn(
                "the calibration rows hold anomalies (contamination): discoveries are only what is more frequent in the"
                " batch, or scores lower"
            )
        if not two_sided:
            return conformal.discoveries(self.p_values(X), fdr)
        low, high = self._sides(X)
        return conformal.discoveries_of_sides(low, high, fdr)

    @property
    def rounding_(self) -> float:
        """Bound on the rounding error of scores, relative to 1 + |score|; calibration scores within it are ties."""
        check_is_fitted(self)
        return self._scorer.rounding

    # -- thresholds -----------------------------------------------------------------------------

    def threshold_at_rate(
        self, rate: float, *, confidence: float | None = None, rows_per_day: float | None = None
    ) -> Threshold:
        """The threshold with a given false-alarm rate; :meth:`set_threshold` puts it to use.

        With ``given``, groups that have calibration rows enough for the rate get offsets of their own.

        Parameters
        ----------
        rate : float
            Share of inliers that may raise an alarm.
        confidence : float, optional
            By default the rate holds on average over calibration sets. With a confidence such as 0.95, it holds for
            this calibration set with that confidence, at a lower threshold.
        rows_per_day : float, optional
            Number of rows per day, to state false alarms per day.

        Returns
        -------
        Threshold
            With the 95 % interval that the number of calibration rows allows; ``print`` it.

        Raises
        ------
        ValueError
            If there are too few calibration rows to guarantee so small a rate.
        """
        lowered = self._lowered()
        found = thresholds.at_rate(lowered, rate, confidence=confidence, rows_per_day=rows_per_day)
        found = self._groups.with_offsets(found, lowered, rate, confidence)
        return self._stated(found)

    def threshold_at_alarms(
        self, alarms_per_day: float, rows_per_day: float, *, confidence: float | None = None
    ) -> Threshold:
        """The threshold with a given expected number of false alarms per day.

        Parameters
        ----------
        alarms_per_day, rows_per_day : float
            False alarms that can be checked, and rows that arrive.
        confidence : float, optional
            As in :meth:`threshold_at_rate`.

        Returns
        -------
        Threshold

        Raises
        ------
        ValueError
            If there are too few calibration rows to guarantee so few alarms.
        """
        check_positive("alarms_per_day", alarms_per_day)
        check_positive("rows_per_day", rows_per_day)
        if rows_per_day == math.inf:
            raise ValueError(f"rows_per_day must be finite, got {rows_per_day!r}")
        if not alarms_per_day < rows_per_day:
            raise ValueError(
                f"alarms_per_day must be fewer than rows_per_day={rows_per_day!r}, got {alarms_per_day!r}"
            )
        rate = alarms_per_day / rows_per_day
        return self.threshold_at_rate(rate, confidence=confidence, rows_per_day=rows_per_day)

    def alarms_expected(
        self, n_rows: int, *, level: float = 0.95, threshold: Threshold | None = None
    ) -> Alarms:
        """How many of some new inliers will raise an alarm, with an interval to hold the detector to.

        Parameters
        ----------
        n_rows : int
            Number of new rows, of a day or a month.
        level : float
            The probability, at least, with which the number of alarms lies in the interval, its ends included: in
            finite samples and whatever the model, if these rows are exchangeable with the calibration rows.
        threshold : Threshold, optional
            Another one than ``threshold_``.

        Raises
        ------
        ValueError
            If there are no calibration rows, or groups have offsets of their own.

        Examples
        --------
        >>> import pandas as pd
        >>> from discrete_itd import DiffusionOutlierDetector
        >>> rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=2000)})
        >>> detector = DiffusionOutlierDetector(denoiser="independent", random_state=0).fit(rows)
        >>> detector.alarms_expected(1000)
        Alarms(mean=9.975062344139651, low=1.0, high=24.0)
        """
        used = self.threshold_ if threshold is None else self._checked(threshold)
        if used.group_offsets:
            raise ValueError("groups have offsets of their own: alarms depend on their rows")
        return alarms_among(self._lowered(), used.offset, n_rows, level=level)

    def threshold_at_cost(
        self,
        miss_cost: float,
        check_cost: float,
        *,
        anomalies: Any = None,
        prevalence: float | None = None,
        recent: Any = None,
    ) -> Threshold:
        """The threshold with the least expected cost, given either ``anomalies`` and ``prevalence``, or ``recent``.

        Parameters
        ----------
        miss_cost, check_cost : float
            Cost of an anomaly that raises no alarm, and of checking an alarm.
        anomalies : DataFrame, array-like or Rows, shape (A, C), optional
            Known anomalies.
        prevalence : float, optional
            Share of anomalies among new rows.
        recent : DataFrame, array-like or Rows, shape (R, C), optional
            Recent rows without labels: the excess of small p-values among them over what inliers would have is
            attributed to anomalies.

        Returns
        -------
        Threshold
            With the expected cost per row and an approximate 95 % interval. With ``given``, one offset for all groups.

        Raises
        ------
        ValueError
            If neither or both kinds of rows are given. If ``recent`` is, and the detector was fitted with
            ``contamination``: what inliers have is then unknown, for the calibration rows hold anomalies too.
        """
        if recent is not None and self.threshold_.contaminated:
            raise ValueError(
                "recent= needs calibration rows without anomalies: these hold some (contamination), so how many of the"
                " recent rows are anomalies cannot be known; give anomalies= with prevalence=, or fit to inliers"
            )
        theirs, new = (None if X is None else self.score_samples(X) for X in (anomalies, recent))
        found = thresholds.at_cost(
            self._lowered(),
            miss_cost,
            check_cost,
            anomalies=theirs,
            prevalence=prevalence,
            recent=new,
        )
        return self._stated(found)

    def _stated(self, found: Threshold) -> Threshold:
        """A threshold with what is known of the calibration rows."""
        found = replace(found, contaminated=self.threshold_.contaminated)
        return found.among(self._lowered(), self._repeats)

    def _lowered(self) -> np.ndarray:
        """Calibration scores less their rounding error."""
        return conformal.lowered(conformal.calibration_scores(self), self.rounding_)

    def set_threshold(
        self, threshold: Threshold | None = None, *, false_alarm_rate: float | None = None
    ) -> Self:
        """Raise alarms by this threshold from now on.

        Parameters
        ----------
        threshold : Threshold
        false_alarm_rate : float
            Or that of :meth:`threshold_at_rate` for this rate.

        Raises
        ------
        TypeError
            If neither is given, or both.
        """
        if (threshold is None) == (false_alarm_rate is None):
            given = "neither" if threshold is None else "both"
            raise TypeError(f"give a threshold or a false_alarm_rate, one of them: got {given}")
        if false_alarm_rate is not None:
            threshold = self.threshold_at_rate(false_alarm_rate)
        self.threshold_ = self._checked(threshold)
        self.offset_ = self.threshold_.offset
        return self

    def _checked(self, threshold: Threshold | None) -> Threshold:
        """The threshold; TypeError or ValueError if it is none of this detector."""
        if not isinstance(threshold, Threshold):
            raise TypeError(f"threshold must be a Threshold, got {type(threshold).__name__}")
        n, own = len(threshold.group_offsets), len(self._groups.members) - 1
        if n not in (0, own):
            raise ValueError(f"threshold has offsets of {n} groups, the detector has {own}")
        return threshold
