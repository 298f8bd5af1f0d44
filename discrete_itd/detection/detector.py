"""The detector: anomaly scores with p-values, thresholds with guarantees, and reasons."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Self, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from discrete_itd.deprecation import REMOVAL, renamed
from discrete_itd.detection import (
    calibration,
    conformal,
    costs,
    drift,
    reasons,
    robustness,
    thresholds,
)
from discrete_itd.detection.drift import Drift
from discrete_itd.detection.scoring import Scorer, no_rows, row_scores
from discrete_itd.detection.sentences import sentence
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.encoders.frames import read_rows
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity, RowEstimate
from discrete_itd.storage.files import State
from discrete_itd.storage.parts import within
from discrete_itd.storage.persistent import Persistent
from discrete_itd.storage.schema import building, check_fields, check_tensor
from discrete_itd.validation import check_share


class DiffusionOutlierDetector(Persistent, OutlierMixin, BaseEstimator):
    r"""Anomaly detection by the log-probability of rows, calibrated on held-out rows.

    Fit it on inliers, rank new rows, raise alarms at a chosen false-alarm rate, and explain them. The score of a row
    depends on the row and the fitted model only, never on its batch. Every method that takes a table X also takes
    :class:`Rows`, as :meth:`rows` makes them: the table is then read and encoded once for several questions.

    Parameters
    ----------
    density : DiffusionDensity or FrozenEstimator, optional
        The model of inliers; the default one if None (give one to set ``density__max_steps`` and the like). It is
        cloned, and fitted with the detector. To use a fitted one and fit only the calibration, give
        ``sklearn.frozen.FrozenEstimator(density)`` and call ``fit`` with inliers that it was *not* trained on.
    contamination : "auto" or float, default="auto"
        Share of anomalies among the rows given to ``fit``. "auto" takes all of them for inliers, and sets the threshold
        at ``false_alarm_rate``. With a share, up to 0.5, the fit is robust: that share of the training rows, the most
        outlying under a kernel density with wide kernels, is left out of the training; and ``predict`` flags that share
        of the rows given to ``fit``.
    false_alarm_rate : float, default=0.01
        Share of inliers that may raise an alarm, unless ``contamination`` is given.
    calibration_fraction : float, default=0.2
        Share of the rows, at most 20 000 rows, that is held out of the fit for p-values and thresholds. 0 fits on all
        rows: there are no p-values then, and the threshold is a quantile of the scores of training rows.
    score_by : {"pooled", "log_prob"}, default="pooled"
        The score. "log_prob" is the log-probability. "pooled" is a weighted mean of it and a simpler log-density, which
        ranks anomalies better. If any column is not nominal, the latter is a kernel density of the training rows
        (:mod:`discrete_itd.detection.kernel`), with weight 1/2, and continuous values are smoothed in the model's
        part with Gaussian noise of 0.1 standard deviations; there each continuous column's log-density is capped at its
        mean, so a very typical value cannot offset an anomalous one. If all columns are nominal, it is that of
        independent columns, with weight 1000 / (1000 + n), at most 1/2, for n training rows.
    random_state : int, RandomState or None, default=None
        Seed of the division of rows, and of the fit if ``density`` has no seed of its own.

    Attributes
    ----------
    density_ : DiffusionDensity
        The fitted model.
    offset_ : float
        A score below it raises an alarm, in nats. Set it by :meth:`set_threshold`.
    threshold_ : Threshold
        The same with its false-alarm rate.
    calibration_scores_ : ndarray, shape (n,)
        Scores of the calibration rows.
    calibration_nats_ : DataFrame, shape (n, C)
        Their nats by column, as :meth:`explain` gives them.
    rounding_ : float
        Bound on the rounding error of scores, relative to 1 + abs(score); see :mod:`discrete_itd.detection.conformal`.
    trimmed_ : ndarray of int
        Positions of the rows given to ``fit`` that were left out of the training as anomalies.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    p-values are split-conformal (:mod:`discrete_itd.detection.conformal`): for a row that is exchangeable with the
    calibration rows, :math:`P(p \le \alpha) \le \alpha` on average over calibration sets, whatever the model. The
    statement is about records: copies of one (:mod:`discrete_itd.models.splitting`) are either all used for the fit or
    one of them for the calibration, so rates are those of new records. A new row that repeats a training record has a
    higher score than calibration rows, so its p-value is larger.

    If the rows given to ``fit`` contain anomalies, so do the calibration rows. Where anomalies score lower than
    inliers, p-values of inliers are larger than necessary: valid, with less power. Where anomalies score higher than
    inliers, like forms left at their defaults, p-values are too small. With a share e of anomalies among the
    calibration rows, only :math:`P(p \le \alpha) \le \alpha / (1 - e)` is guaranteed for inliers.

    A missing cell has no surprisal, so rows with many of them look more typical than complete ones.

    References
    ----------
    Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
    arXiv:2104.08279; eq. (7) of :mod:`discrete_itd.detection.conformal`.

    Examples
    --------
    >>> import pandas as pd
    >>> from discrete_itd import DiffusionDensity
    >>> coins = pd.DataFrame({"a": ["x", "y"] * 100, "b": ["u", "v"] * 100})
    >>> density = DiffusionDensity(max_steps=200, random_state=0)
    >>> detector = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0).fit(coins)
    >>> new = pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]})
    >>> detector.predict(new)
    array([ 1, -1])
    >>> detector.p_values(new)[1].round(3)
    np.float64(0.024)
    """

    def __init__(
        self,
        density: DiffusionDensity | FrozenEstimator | None = None,
        *,
        contamination: float | str = "auto",
        false_alarm_rate: float = 0.01,
        calibration_fraction: float = 0.2,
        score_by: str = "pooled",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.density = density
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.calibration_fraction = calibration_fraction
        self.score_by = score_by
        self.random_state = random_state

    # -- fitting --------------------------------------------------------------------------------

    def fit(
        self, X: Any, y: Any = None, *, checkpoint: str | os.PathLike[str] | None = None
    ) -> Self:
        """Fit the model to inliers, and calibrate it on held-out ones.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            Inliers, or with ``contamination`` mostly inliers.
        y : ignored
        checkpoint : path-like, optional
            As in :meth:`DiffusionDensity.fit`; needs an integer ``random_state``, or the rows would be divided
            differently the next time.

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter that is invalid. A detector fitted before stays usable.

        Warns
        -----
        UserWarning
            If there are too few calibration rows for ``false_alarm_rate``; the smallest possible rate is used.
        """
        share = self._check_parameters()
        frame, is_frame = read_rows(X, self)
        table = frame if is_frame else frame.to_numpy()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train = trimmed = rest = np.zeros(0, dtype=np.int64)
        if isinstance(self.density, FrozenEstimator):
            density = cast(DiffusionDensity, self.density.estimator)
            check_is_fitted(density)
            held = np.arange(len(frame))
        else:
            density = calibration.unfitted(self.density, seed)
            held, rest = calibration.divide(frame, self.calibration_fraction, seed)
            train = np.sort(rest)
            if share is not None:
                train, trimmed = calibration.trim(density, table, train, share, seed)
            density.fit(calibration.take(table, train), checkpoint=checkpoint)
        rows = density.rows(table)
        if self.score_by == "pooled":
            scorer = Scorer.pooled(density, rows.take(train) if len(train) else None, seed)
        else:
            scorer = Scorer.plain(density)
        held = np.sort(held)
        nats = scorer.nats(rows.take(held)) if len(held) else no_rows(density.encoder_.names)
        scores = row_scores(nats)
        seen = rest[: calibration.SEEN_ROWS] if share is None else np.sort(rest)
        threshold = calibration.first_threshold(
            scorer, scores, rows.take(seen), self.false_alarm_rate, share
        )
        # nothing is assigned before all has succeeded
        self.density_, self._scorer, self.trimmed_ = density, scorer, trimmed
        self.calibration_scores_ = scores
        self.calibration_nats_ = nats.reset_index(drop=True)
        self.set_threshold(replace(threshold, contaminated=share is not None))
        self._set_names()
        return self

    def _check_parameters(self) -> float | None:
        """The share of anomalies among the rows to be fitted; None if all are inliers."""
        calibration.check_density(self.density)
        check_share("false_alarm_rate", self.false_alarm_rate)
        if self.score_by not in ("pooled", "log_prob"):
            raise ValueError(f"score_by must be 'pooled' or 'log_prob', got {self.score_by!r}")
        if self.calibration_fraction != 0:
            check_share("calibration_fraction", self.calibration_fraction)
        return calibration.check_contamination(self.contamination)

    def _set_names(self) -> None:
        self.n_features_in_ = self.density_.n_features_in_
        if hasattr(self.density_, "feature_names_in_"):
            self.feature_names_in_ = self.density_.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    # -- scores ---------------------------------------------------------------------------------

    def rows(self, X: Any) -> Rows:
        """Read and encode a table once, for several questions; see :meth:`DiffusionDensity.rows`."""
        check_is_fitted(self)
        return self.density_.rows(X)

    def score_samples(self, X: Any) -> np.ndarray:
        """The score of each row: float64, shape (N,), nats; higher is more typical. See ``score_by``."""
        return self._scores(self.rows(X))

    def _scores(self, rows: Rows) -> np.ndarray:
        return self._scorer.score(rows)

    def decision_function(self, X: Any) -> np.ndarray:
        """Score above the threshold, shape (N,), nats: negative for rows that raise an alarm."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for rows that raise an alarm, 1 for the others: int, shape (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @renamed(tol="max_stderr")
    def log_prob(self, X: Any, *, max_stderr: float | None = None) -> RowEstimate:
        """Log-probability of each row with its standard error, see :meth:`DiffusionDensity.log_prob`."""
        check_is_fitted(self)
        return self.density_.log_prob(X, max_stderr=max_stderr)

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
            For an inlier, at most :math:`lpha` with probability at most :math:`lpha`, on average over calibration
            sets. To select among many rows use :meth:`discoveries`.

        Raises
        ------
        ValueError
            If the detector was fitted without calibration rows.
        """
        scores, rounding = self._calibration(), self.rounding_
        return conformal.p_values(
            scores, self.score_samples(X), two_sided=two_sided, rounding=rounding
        )

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
        scores, rounding = self._calibration(), self.rounding_
        return conformal.two_sided_discoveries(
            scores, self.score_samples(X), fdr, rounding=rounding
        )

    @property
    def rounding_(self) -> float:
        """Bound on the rounding error of scores, relative to 1 + |score|; calibration scores within it are ties."""
        check_is_fitted(self)
        return self._scorer.rounding

    def _calibration(self) -> np.ndarray:
        check_is_fitted(self)
        if not len(self.calibration_scores_):
            raise ValueError("there are no calibration rows: fit with calibration_fraction above 0")
        return self.calibration_scores_

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
        found = thresholds.at_alarms(
            self._lowered(), alarms_per_day, rows_per_day, confidence=confidence
        )
        return replace(found, contaminated=self.threshold_.contaminated)

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
        found = costs.at_cost(
            self._lowered(),
            miss_cost,
            check_cost,
            anomalies=None if anomalies is None else self.score_samples(anomalies),
            prevalence=prevalence,
            recent=None if recent is None else self.score_samples(recent),
        )
        return replace(found, contaminated=self.threshold_.contaminated)

    def _lowered(self) -> np.ndarray:
        """Calibration scores less their rounding error."""
        return conformal.lowered(self._calibration(), self.rounding_)

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
        ways = (false_alarm_rate, alarms_per_day, miss_cost)
        if sum(value is not None for value in ways) != 1:
            raise ValueError("give one of false_alarm_rate=, alarms_per_day= or miss_cost=")
        if false_alarm_rate is not None:
            return self.threshold_at_rate(
                false_alarm_rate, confidence=confidence, rows_per_day=rows_per_day
            )
        if alarms_per_day is not None:
            if rows_per_day is None:
                raise ValueError("alarms_per_day= needs rows_per_day=")
            return self.threshold_at_alarms(alarms_per_day, rows_per_day, confidence=confidence)
        if miss_cost is None or check_cost is None:
            raise ValueError("miss_cost= needs check_cost=")
        return self.threshold_at_cost(
            miss_cost, check_cost, anomalies=anomalies, prevalence=prevalence, recent=recent
        )

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

    # -- reasons --------------------------------------------------------------------------------

    def explain(self, X: Any, *, relative: bool = False) -> pd.DataFrame:
        """Nats by column: which columns make a row anomalous.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        relative : bool
            Whether to subtract the mean nats of the column over the calibration rows.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. Rows sum to minus the score, unless ``relative``.
        """
        nats = self._scorer.nats(self.rows(X))
        if relative:
            self._calibration()
            nats = nats - self.calibration_nats_.mean(axis=0)
        return nats

    def reasons(self, X: Any, *, k: int = 3, nats: pd.DataFrame | None = None) -> pd.DataFrame:
        """Why each row is anomalous: its most doubtful cells, their predicted values, and the cells they conflict with.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        k : int
            Maximal number of cells per row.
        nats : DataFrame, shape (N, C), optional
            What :meth:`explain` returned for X, if it is known already.

        Returns
        -------
        DataFrame
            One line per cell, a row's most doubtful first: ``row``, ``rank``, ``column``, ``value``, ``nats``,
            ``mean_inlier_nats``, ``excess_nats``, ``p_value``, ``error_probability``, ``expected``, ``probability``,
            ``low``, ``high``, ``conflict_column``, ``conflict_value``, ``conflict_nats``, see
            :func:`discrete_itd.detection.reasons.reasons`, and ``sentence``, the same in English.
        """
        self._calibration()
        table = reasons.reasons(self._scorer, X, self.calibration_nats_, k, nats=nats)
        text = [sentence(line) for line in table.to_dict("records")]
        return table.assign(sentence=pd.Series(text, index=table.index, dtype=object))

    def expected(
        self,
        X: Any,
        columns: Iterable[Hashable] | None = None,
        *,
        k: int | None = 3,
        n_values: int = 3,
    ) -> pd.DataFrame:
        """The values that the other cells of a row predict for its most doubtful cells.

        Probabilities are those of the score: its normalisation over the values of the cell
        (:mod:`discrete_itd.detection.conditionals` states where that is exact).

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        columns : names (positions, for an array) of columns, optional
            Columns to predict; by default all.
        k : int, optional
            Only the k most doubtful of these cells in each row; None for all.
        n_values : int
            Number of predicted values per cell.

        Returns
        -------
        DataFrame
            One line per predicted value: ``row``, ``column``, ``value``, ``rank``, ``expected``, ``probability``,
            ``low``, ``high``, see :func:`discrete_itd.detection.reasons.expected`.
        """
        check_is_fitted(self)
        return reasons.expected(self._scorer, X, columns, k=k, n_values=n_values)

    def pairwise(self, X: Any) -> pd.DataFrame:
        """By how much each other cell increases a cell's surprisal under the score.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)

        Returns
        -------
        DataFrame, shape (N C, C), nats
            Indexed by row and column; the entry of another column is the surprisal given that cell alone, minus the
            surprisal given nothing: positive where the other cell makes this one less probable.
        """
        check_is_fitted(self)
        return reasons.pairwise(self._scorer, X)

    # -- change ---------------------------------------------------------------------------------

    def drift(self, X: Any, *, reference: Any = None, alpha: float = 0.05) -> Drift:
        """Whether a new batch follows the distribution of the calibration rows.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
            The batch.
        reference : DataFrame, array-like or Rows, optional
            Inliers that were not trained on, to compare the columns' own distributions with; by default only nats are
            compared.
        alpha : float
            The significance level.

        Returns
        -------
        Drift
            ``print`` it; ``drifted``, ``drifted_columns`` and ``to_frame()`` give the same to a program.
        """
        self._calibration()
        return drift.drift(
            self._scorer, X, self.calibration_nats_, reference=reference, alpha=alpha
        )

    def robustness(
        self,
        X: Any,
        y: Any = None,
        *,
        kind: Literal["noise", "missing"] = "noise",
        shares: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
        n_repeats: int = 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> pd.DataFrame:
        """Stability of the ranking by score when cells are corrupted or missing.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
        y : array-like, shape (N,), optional
            1 for anomalies, 0 for inliers.
        kind : {"noise", "missing"}
            Whether a corrupted cell gets another row's value, or is missing.
        shares : sequence of float
            Probabilities with which a cell is corrupted.
        n_repeats : int
            Number of repetitions with each share.
        random_state : int, RandomState or None

        Returns
        -------
        DataFrame
            One line for every share and repetition; see :func:`discrete_itd.detection.robustness.robustness`.
        """
        check_is_fitted(self)
        return robustness.robustness(
            self._scorer,
            X,
            y,
            kind=kind,
            shares=shares,
            n_repeats=n_repeats,
            random_state=random_state,
        )

    # -- saving ---------------------------------------------------------------------------------

    parameter_classes = (DiffusionDensity, *DiffusionDensity.parameter_classes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted detector to one safetensors file, whole or not at all.

        Parameters
        ----------
        path : path-like

        Notes
        -----
        The file holds scores and nats by column of the calibration rows; where a table has few possible rows, a row can
        be told from its nats. With a column that is not nominal, the kernel density needs training rows, and up to
        5000 are in the file as they are (see ``score_by``). Treat it as you treat the table.
        """
        super().save(path)

    def stored_parameters(self) -> dict[str, Any]:
        parameters = super().stored_parameters()
        if isinstance(self.density, FrozenEstimator):
            parameters["density"] = None  # the fitted one takes its place
        return parameters

    def check_stored_parameters(self) -> None:
        self._check_parameters()

    def fitted_parts(self) -> list[Any]:
        return [self.density_, *self.density_.fitted_parts()]

    def fitted_state(self) -> State:
        header, tensors = self.density_.to_state()
        own = {
            "scores": self.calibration_scores_,
            "nats": self.calibration_nats_.to_numpy(),
            "trimmed": self.trimmed_.astype(np.int64),
        }
        return (
            {
                "density": header,
                "device": self.density_.device,
                "frozen": isinstance(self.density, FrozenEstimator),
                "threshold": asdict(self.threshold_),
            },
            {f"density.{name}": tensor for name, tensor in tensors.items()}
            | self._scorer.to_tensors()
            | {name: torch.tensor(array) for name, array in own.items()},
        )

    def restore(
        self,
        header: dict[str, Any],
        tensors: dict[str, Tensor],
        *,
        device: str,
        trusted: Iterable[type] = (),
    ) -> None:
        check_fields(header, {"density": dict, "threshold": dict})
        density = DiffusionDensity.from_state(
            (header["density"], within(tensors, "density")), device=device, trusted=trusted
        )
        names = pd.Index(density.encoder_.names)
        nats = check_tensor(tensors, "nats", None, len(names)).numpy()
        scores = check_tensor(tensors, "scores", len(nats)).numpy()
        trimmed = check_tensor(tensors, "trimmed", None).numpy()
        with building("score"):
            scorer = Scorer.from_tensors(density, tensors)
        with building("threshold"):
            threshold = Threshold.from_dict(header["threshold"])
        self.density_, self._scorer, self.trimmed_ = density, scorer, trimmed
        self.calibration_scores_ = scores
        self.calibration_nats_ = pd.DataFrame(nats, columns=names)
        self.set_threshold(threshold)
        self._set_names()
        if header.get("frozen") is True:
            self.density = FrozenEstimator(density)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags
