"""The detector's methods that raise alarms: p-values, discoveries and thresholds."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from discrete_itd.deprecation import REMOVAL
from discrete_itd.detection import conformal, thresholds
from discrete_itd.detection.scoring import Scorer
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders.rows import Rows
from discrete_itd.validation import check_positive, check_share


class Alarming:
    """Mixin of detectors: what calibration scores say of new scores."""

    _scorer: Scorer
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
        """Score above the threshold, shape (N,), nats: negative for rows that raise an alarm."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for rows that raise an alarm, 1 for the others: int, shape (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    # -- p-values -------------------------------------------------------------------------------

    def p_values(self, X: Any, *, two_sided: bool = False) -> np.ndarray:
        r"""Conformal p-values, eq. (7) of :mod:`discrete_itd.detection.conformal`.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        two_sided : bool
            If True, a row may also be *too* probable, like a form left at its defaults.

        Returns
        -------
        ndarray, shape (N,)
            For an inlier, at most :math:`\alpha` with probability at most :math:`\alpha`, on average over calibration
            sets. To select among many rows use :meth:`discoveries`.

        Raises
        ------
        ValueError
            If the detector was fitted without calibration rows.
        """
        scores, rounding = conformal.calibration_scores(self), self.rounding_
        new = self.score_samples(X)
        return conformal.p_values(scores, new, two_sided=two_sided, rounding=rounding)

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
        """
        fdr = check_share("fdr", fdr)
        if not two_sided:
            return conformal.discoveries(self.p_values(X), fdr)
        scores, new = conformal.calibration_scores(self), self.score_samples(X)
        return conformal.two_sided_discoveries(scores, new, fdr, rounding=self.rounding_)

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
        found = thresholds.at_rate(
            self._lowered(), rate, confidence=confidence, rows_per_day=rows_per_day
        )
        return replace(found, contaminated=self.threshold_.contaminated)

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
            With the expected cost per row and its 95 % interval.

        Raises
        ------
        ValueError
            If neither or both kinds of rows are given.
        """
        theirs, new = (None if X is None else self.score_samples(X) for X in (anomalies, recent))
        found = thresholds.at_cost(
            self._lowered(),
            miss_cost,
            check_cost,
            anomalies=theirs,
            prevalence=prevalence,
            recent=new,
        )
        return replace(found, contaminated=self.threshold_.contaminated)

    def _lowered(self) -> np.ndarray:
        """Calibration scores less their rounding error."""
        return conformal.lowered(conformal.calibration_scores(self), self.rounding_)

    def threshold(
        self,
        *,
        false_alarm_rate: float | None = None,
        confidence: float | None = None,
        alarms_per_day: float | None = None,
        rows_per_day: float | None = None,
        miss_cost: float | None = None,
        check_cost: float | None = None,
        anomalies: Any = None,
        prevalence: float | None = None,
        recent: Any = None,
    ) -> Threshold:
        """Deprecated: see :meth:`threshold_at_rate`, :meth:`threshold_at_alarms` and :meth:`threshold_at_cost`."""
        warnings.warn(
            "threshold() is replaced by threshold_at_rate(), threshold_at_alarms() and threshold_at_cost();"
            f" it goes in release {REMOVAL}",
            FutureWarning,
            stacklevel=2,
        )
        by_rate, by_alarms = false_alarm_rate is not None, alarms_per_day is not None
        if by_rate + by_alarms + (miss_cost is not None) != 1:
            raise ValueError("give one of false_alarm_rate=, alarms_per_day= or miss_cost=")
        daily: Any = {"confidence": confidence, "rows_per_day": rows_per_day}
        if by_rate:
            return self.threshold_at_rate(cast(float, false_alarm_rate), **daily)
        if by_alarms:
            return self.threshold_at_alarms(cast(float, alarms_per_day), **daily)
        rows: Any = {"anomalies": anomalies, "prevalence": prevalence, "recent": recent}
        return self.threshold_at_cost(cast(float, miss_cost), cast(float, check_cost), **rows)

    def set_threshold(self, threshold: Threshold) -> Self:
        """Raise alarms by this threshold from now on.

        Parameters
        ----------
        threshold : Threshold
        """
        if not isinstance(threshold, Threshold):
            raise TypeError(f"threshold must be a Threshold, got {type(threshold).__name__}")
        self.threshold_, self.offset_ = threshold, threshold.offset
        return self
