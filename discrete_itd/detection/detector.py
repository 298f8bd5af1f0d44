"""Anomalies people can act on: a detector with p-values, thresholds that can be defended, and reasons."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Self, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from discrete_itd.deprecation import renamed
from discrete_itd.detection import conformal, drift, reasons, robustness, scales
from discrete_itd.detection.conformal import Threshold
from discrete_itd.detection.drift import Drift
from discrete_itd.detection.kernel import KernelDensity
from discrete_itd.detection.scales import ScaleNats
from discrete_itd.detection.scoring import Scorer, base_of, total
from discrete_itd.encoders.frames import read_rows
from discrete_itd.estimators import DiffusionDensity, RowEstimate
from discrete_itd.models.splitting import copies, equal_values, hold_out
from discrete_itd.storage.files import State
from discrete_itd.storage.parts import within
from discrete_itd.storage.persistent import Persistent
from discrete_itd.storage.schema import building, check_fields, check_tensor
from discrete_itd.validation import check_positive, check_share

MOST_HELD = 20_000  # by which a rate of 1 in 1000 is known to within a half; more cost time
SEEN_ROWS = 2000  # by which the threshold is set where no rows are held out


class DiffusionOutlierDetector(Persistent, OutlierMixin, BaseEstimator):
    r"""Anomaly detection by the log-probability of rows, calibrated on rows that were held out.

    Fit on ordinary rows, rank new ones, raise an alarm at a rate that was chosen, and say why. A row's score depends on
    nothing but the row and the fitted model, never on the batch it came in.

    Parameters
    ----------
    density : DiffusionDensity or FrozenEstimator, optional
        The model of ordinary rows; its default if None (give one to set ``density__max_steps`` and the like). It is
        cloned, and fitted with the detector. To use one that is fitted already, and fit nothing but the calibration,
        give ``sklearn.frozen.FrozenEstimator(density)`` and call ``fit`` with ordinary rows that it was *not* trained
        on.
    contamination : "auto" or float, default="auto"
        Share of the rows given to ``fit`` that are anomalies. "auto" takes all of them for ordinary, and an alarm is
        raised at ``false_alarm_rate``. With a share, up to 0.5, the fit is robust: the rows that are strangest
        among the others, seen coarsely, are left out; and ``predict`` flags that share of the rows given to ``fit``.
    false_alarm_rate : float, default=0.01
        Share of ordinary rows that may raise an alarm, unless ``contamination`` is given.
    calibration_fraction : float, default=0.2
        Share of the rows, but not more than 20 000 of them, that is held out of the fit, for p-values and thresholds. 0
        fits on all, for scores only: there are no p-values then, and the threshold is a quantile of rows that the fit
        has seen.
    score_by : {"pooled", "log_prob"}, default="pooled"
        What ``score_samples`` returns. "log_prob" is the log-probability. "pooled" is the mean of that and of a simpler
        code, which ranks anomalies better. With any column that is not nominal, it is a kernel density of the training
        rows (:mod:`discrete_itd.detection.kernel`), for distances tell what dependence does not; and as the density of
        a continuous column has no upper bound, the model's part takes values as known to a tenth of the column's
        standard deviation, and one that is more probable than usual counts as usual: it cannot make up for a strange
        one. With nominal columns only, it is that of the columns alone, with the weight 1000 / (1000 + n), at most a
        half: of few rows n, little is known of dependence.
    random_state : int, RandomState or None, default=None
        Of the division of rows, and of the fit if ``density`` has none of its own.

    Attributes
    ----------
    density_ : DiffusionDensity
        The fitted model.
    offset_ : float
        A score below it raises an alarm, in nats. Set it by :meth:`set_threshold`.
    threshold_ : Threshold
        The same with what calibration rows say of it.
    calibration_scores_ : ndarray, shape (n,)
        Scores of the rows that were held out.
    calibration_nats_ : DataFrame, shape (n, C)
        Their nats by column, as :meth:`explain` gives them.
    rounding_ : float
        Bound on the rounding error of scores, relative to 1 + abs(score); see :mod:`discrete_itd.detection.conformal`.
    trimmed_ : ndarray of int
        Positions of the rows given to ``fit`` that were left out for surprising most.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    p-values are split-conformal (:mod:`discrete_itd.detection.conformal`): for a row that is exchangeable with the
    calibration rows, :math:`P(p \le \alpha) \le \alpha` on average over calibration sets, however good or bad the
    model. What counts are records: copies of one (:mod:`discrete_itd.models.splitting`) are either all fitted to or
    calibrated on once, so rates are those of new records. A new row that repeats a fitted record looks more probable
    than calibration rows, so its p-value is larger.

    If the rows given to ``fit`` contain anomalies, so do the calibration rows. Where the anomalies score lower than
    inliers, p-values of inliers are larger than they need be: valid, with less power. Where anomalies score higher
    than inliers, like forms left at their defaults, p-values are too small. With a share e of anomalies among the
    calibration rows, :math:`P(p \le \alpha) \le \alpha / (1 - e)` is all that is guaranteed for inliers.

    A missing cell surprises nobody, so rows with many of them look more ordinary than complete ones.

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
        """Learn what ordinary rows are like, and calibrate on those held out.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            Ordinary rows, or with ``contamination`` mostly ordinary ones.
        y : ignored
        checkpoint : path-like, optional
            As of :meth:`DiffusionDensity.fit`; with an integer ``random_state``, or rows are divided
            in another way the next time.

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter, if something is wrong with it. A detector fitted before stays usable.

        Warns
        -----
        UserWarning
            If there are too few calibration rows for ``false_alarm_rate``; the smallest possible one is taken.
        """
        share = self._check_parameters()
        frame, is_frame = read_rows(X, self)
        rows = frame if is_frame else frame.to_numpy()
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        if isinstance(self.density, FrozenEstimator):
            density = cast(DiffusionDensity, self.density.estimator)
            check_is_fitted(density)
            order, n_held = np.arange(len(frame)), len(frame)
            train, trimmed = order[:0], order[:0]
        else:
            density = DiffusionDensity() if self.density is None else _copy(self.density)
            if density.random_state is None:
                density.set_params(random_state=seed)
            n_held = min(MOST_HELD, round(self.calibration_fraction * len(frame)))
            if self.calibration_fraction and len(frame) > 2:
                n_held = min(max(1, n_held), len(frame) - 2)
            elif self.calibration_fraction and len(frame) == 2:
                n_held = 0
                warnings.warn("two rows leave none to calibrate by: no p-values", stacklevel=2)
            records = copies(equal_values(frame))
            held, rest = hold_out(records, n_held, seed)
            held = held[np.sort(np.unique(records[held], return_index=True)[1])]  # each record once
            order, n_held = np.concatenate([held, rest]), len(held)
            train, trimmed = np.sort(order[n_held:]), order[:0]
            if share is not None:
                train, trimmed = self._trim(density, rows, train, share, seed)
            density.fit(_take(rows, train), checkpoint=checkpoint)
        held = np.sort(order[:n_held])
        if self.score_by == "pooled":
            scorer = Scorer.pooled(density, _take(rows, train), seed)
        else:
            scorer = Scorer.plain(density)
        nats = scorer.nats(_take(rows, held)) if len(held) else scorer.none()
        scores = -total(nats)
        safe = conformal.lowered(scores, scorer.rounding)  # no alarm comes of rounding
        if share is None and len(held):
            threshold = self._at_rate(safe)
        else:
            rest = np.sort(order[n_held:]) if share is not None else order[n_held:][:SEEN_ROWS]
            seen = -scorer.score(_take(rows, rest)) if len(rest) else np.zeros(0)
            rate = self.false_alarm_rate if share is None else share
            both = np.concatenate([scores, seen])
            offset = np.quantile(both, rate)
            if (both == offset).any():
                offset = conformal.lowered(np.asarray(offset), scorer.rounding)
            threshold = conformal.at_offset(scores, float(offset))
        threshold = replace(threshold, contaminated=share is not None)
        # nothing is assigned before all has succeeded
        self.density_, self._scorer, self.trimmed_ = density, scorer, trimmed
        self.calibration_scores_ = scores
        self.calibration_nats_ = nats.reset_index(drop=True)
        self.set_threshold(threshold)
        self._take_names()
        return self

    def _check_parameters(self) -> float | None:
        """The share of anomalies among the rows to be fitted; None if all are ordinary."""
        density = self.density
        if density is not None and not isinstance(density, DiffusionDensity | FrozenEstimator):
            raise TypeError(
                "density must be a DiffusionDensity, or a FrozenEstimator of one that is fitted,"
                f" got {type(density).__name__}"
            )
        if isinstance(density, FrozenEstimator) and not isinstance(
            density.estimator, DiffusionDensity
        ):
            raise TypeError(
                f"density holds a {type(density.estimator).__name__}, not a DiffusionDensity"
            )
        if isinstance(density, DiffusionDensity) and density.handle_unknown in ("error", "raise"):
            raise ValueError(
                "density has handle_unknown='error': a value never seen is what a detector is for; use 'smooth'"
            )
        check_share("false_alarm_rate", self.false_alarm_rate)
        if self.score_by not in ("pooled", "log_prob"):
            raise ValueError(f"score_by must be 'pooled' or 'log_prob', got {self.score_by!r}")
        if self.calibration_fraction != 0:
            check_share("calibration_fraction", self.calibration_fraction)
        if isinstance(self.contamination, str):
            if self.contamination != "auto":
                raise ValueError(
                    f"contamination must be 'auto' or a share, got {self.contamination!r}"
                )
            return None
        share = check_share("contamination", self.contamination)
        if share > 0.5:
            raise ValueError(f"contamination must be at most 0.5, got {share!r}")
        return share

    def _trim(
        self, density: DiffusionDensity, rows: Any, train: np.ndarray, share: float, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The training rows without the strangest among them, and those."""
        alone = _copy(density)  # for its schema and its marginals
        alone.set_params(denoiser="independent", n_evaluations=2, schedule="coordinate")
        alone.fit(_take(rows, train))
        generator = torch.Generator().manual_seed(seed)
        x = alone.rows(_take(rows, train)).x
        strange = KernelDensity.outlyingness(base_of(alone), x, generator).cpu().numpy()
        n_kept = max(2, len(train) - round(share * len(train)))
        kept = np.sort(train[np.argsort(strange, kind="stable")[:n_kept]])
        return kept, np.setdiff1d(train, kept)

    def _at_rate(self, scores: np.ndarray) -> Threshold:
        """The threshold of ``false_alarm_rate``, or of the smallest rate that can be had."""
        least = conformal.smallest_rate(len(scores))
        if self.false_alarm_rate < least:
            warnings.warn(
                f"false_alarm_rate={self.false_alarm_rate:g} cannot be promised by {len(scores)}"
                f" calibration rows: the threshold is at {least:.3g}, the smallest rate that can",
                stacklevel=3,
            )
        return conformal.at_rate(scores, max(self.false_alarm_rate, least))

    def _take_names(self) -> None:
        """Know the columns, as scikit-learn has it."""
        self.n_features_in_ = self.density_.n_features_in_
        if hasattr(self.density_, "feature_names_in_"):
            self.feature_names_in_ = self.density_.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    # -- scores ---------------------------------------------------------------------------------

    def score_samples(self, X: Any) -> np.ndarray:
        """How ordinary each row is: float64, shape (N,), nats; higher is more ordinary. See ``score_by``."""
        check_is_fitted(self)
        return -self._scorer.score(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Score above the threshold, shape (N,), nats: negative for rows that raise an alarm."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for rows that raise an alarm, 1 for the others: int, shape (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @renamed(tol="max_stderr")
    def log_prob(self, X: Any, *, max_stderr: float | None = None) -> RowEstimate:
        """Log-probability of each row with its standard error, as of :meth:`DiffusionDensity.log_prob`."""
        check_is_fitted(self)
        return self.density_.log_prob(X, max_stderr=max_stderr)

    # -- p-values and thresholds ----------------------------------------------------------------

    def p_values(self, X: Any, *, two_sided: bool = False) -> np.ndarray:
        r"""Conformal p-values, eq. (7) of :mod:`discrete_itd.detection.conformal`.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        two_sided : bool
            Whether a row may also be *too* probable, like a form left at its defaults: the most probable rows are
            not typical ones.

        Returns
        -------
        ndarray, shape (N,)
            For an inlier, at most :math:`\alpha` with probability at most :math:`\alpha`, on average over calibration
            sets. To choose among many rows see :meth:`discoveries`.

        Raises
        ------
        ValueError
            If the detector was fitted without calibration rows.
        """
        return conformal.p_values(
            self._calibration(),
            self.score_samples(X),
            two_sided=two_sided,
            rounding=self.rounding_,
        )

    def discoveries(self, X: Any, *, fdr: float = 0.1, two_sided: bool = False) -> np.ndarray:
        """Which rows of a batch to call anomalies, so that at most a share ``fdr`` of them is expected to be ordinary.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            The whole batch: unlike an alarm, a discovery depends on how many others there are.
        fdr : float
            False-discovery rate, by Benjamini and Hochberg's procedure.
        two_sided : bool
            Whether rows may also be too probable: then half of ``fdr`` is spent on either side
            (:func:`discrete_itd.detection.conformal.two_sided_discoveries`).

        Returns
        -------
        ndarray of bool, shape (N,)
        """
        fdr = check_share("fdr", fdr)
        if not two_sided:
            return conformal.discoveries(self.p_values(X), fdr)
        calibration, rounding = self._calibration(), self.rounding_
        scores = self.score_samples(X)
        return conformal.two_sided_discoveries(calibration, scores, fdr, rounding=rounding)

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
        """A threshold by a false-alarm rate, by false alarms a day, or by costs; :meth:`set_threshold` makes it count.

        Parameters
        ----------
        false_alarm_rate : float, optional
            Share of ordinary rows that may raise an alarm.
        confidence : float, optional
            By default a rate holds on average over calibration sets. With a confidence, like 0.95, it holds for the
            calibration rows at hand with that confidence, at a lower threshold.
        alarms_per_day, rows_per_day : float, optional
            False alarms that can be looked into, and rows that come. ``rows_per_day`` may also be
            given with a rate, to count.
        miss_cost, check_cost : float, optional
            Cost of an anomaly that raises no alarm, and of looking into an alarm, with either
        anomalies, prevalence : DataFrame or array-like, shape (A, C), and float
            known anomalies and their share among new rows, or
        recent : DataFrame or array-like, shape (R, C)
            recent rows without labels: what they have more of at small p-values than ordinary rows would is taken to
            be anomalies.

        Returns
        -------
        Threshold
            With the interval that the number of calibration rows allows; ``print`` it.

        Raises
        ------
        ValueError
            If the choice is unclear, or there are too few calibration rows to promise so small a rate.
        """
        calibration = conformal.lowered(self._calibration(), self.rounding_)
        ways = {
            "false_alarm_rate": false_alarm_rate,
            "alarms_per_day": alarms_per_day,
            "miss_cost": miss_cost,
        }
        chosen = [name for name, value in ways.items() if value is not None]
        if len(chosen) != 1:
            raise ValueError("give one of false_alarm_rate=, alarms_per_day= or miss_cost=")
        by_cost = {
            "check_cost": check_cost,
            "anomalies": anomalies,
            "prevalence": prevalence,
            "recent": recent,
        }
        by_rate = {"confidence": confidence, "rows_per_day": rows_per_day}
        for name, value in (by_rate if miss_cost is not None else by_cost).items():
            if value is not None:
                raise ValueError(f"{name}= says nothing beside {chosen[0]}=")
        if miss_cost is not None:
            if check_cost is None:
                raise ValueError("miss_cost= needs check_cost=")
            found = conformal.at_cost(
                calibration,
                miss_cost=miss_cost,
                check_cost=check_cost,
                anomalies=None if anomalies is None else self.score_samples(anomalies),
                prevalence=prevalence,
                recent=None if recent is None else self.score_samples(recent),
            )
            return replace(found, contaminated=self.threshold_.contaminated)
        if alarms_per_day is not None:
            if rows_per_day is None:
                raise ValueError("alarms_per_day= needs rows_per_day=")
            check_positive("alarms_per_day", alarms_per_day)
            check_positive("rows_per_day", rows_per_day)
            false_alarm_rate = alarms_per_day / rows_per_day
            if not false_alarm_rate < 1:
                raise ValueError(
                    f"alarms_per_day must be fewer than rows_per_day={rows_per_day!r}, got {alarms_per_day!r}"
                )
        found = conformal.at_rate(
            calibration,
            cast(float, false_alarm_rate),
            confidence=confidence,
            rows_per_day=rows_per_day,
        )
        return replace(found, contaminated=self.threshold_.contaminated)

    def set_threshold(self, threshold: Threshold) -> Self:
        """Raise alarms by this threshold from now on.

        Parameters
        ----------
        threshold : Threshold
            Of :meth:`threshold`.
        """
        if not isinstance(threshold, Threshold):
            raise TypeError(f"threshold must be a Threshold, got {type(threshold).__name__}")
        self.threshold_, self.offset_ = threshold, threshold.offset
        return self

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

    # -- reasons --------------------------------------------------------------------------------

    def explain(self, X: Any, *, relative: bool = False) -> pd.DataFrame:
        """Nats by column: why a row is strange.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        relative : bool
            Whether to subtract what a column surprises with in ordinary rows, the mean of the calibration rows.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. Rows sum to minus the score, unless ``relative``.
        """
        check_is_fitted(self)
        nats = self._scorer.nats(X)
        if relative:
            self._calibration()
            nats = nats - self.calibration_nats_.mean(axis=0)
        return nats

    def reasons(self, X: Any, *, k: int = 3) -> pd.DataFrame:
        """Why each row is strange: its strangest cells, what was expected there, which other cell speaks against it.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        k : int
            Cells of each row at most.

        Returns
        -------
        DataFrame
            One line for each cell, a row's strangest first: ``row``, ``rank``, ``column``, ``value``, ``nats``,
            ``usual``, ``excess``, ``p_value``, ``blame``, ``expected``, ``probability``, ``low``, ``high``,
            ``against``, ``against_value``, ``against_nats`` as of :func:`discrete_itd.detection.reasons.reasons`, and
            ``sentence``, the same in English.
        """
        self._calibration()
        table = reasons.reasons(self.density_, X, self.calibration_nats_, k, explain=self.explain)
        told = [reasons.sentence(line) for line in table.to_dict("records")]
        return table.assign(sentence=pd.Series(told, index=table.index, dtype=object))

    def expected(
        self,
        X: Any,
        columns: Iterable[Hashable] | None = None,
        *,
        k: int | None = 3,
        n_values: int = 3,
    ) -> pd.DataFrame:
        """The values that the model would have expected in a row's strangest cells, given its other cells.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        columns : names (positions, for an array) of columns, optional
            Of which to tell; by default of all.
        k : int, optional
            Of each row only the so many strangest of these cells; None for all.
        n_values : int
            How many values to tell of a cell.

        Returns
        -------
        DataFrame
            One line for each expected value: ``row``, ``column``, ``value``, ``rank``, ``expected``, ``probability``,
            ``low``, ``high``, as of :func:`discrete_itd.detection.reasons.expected`.
        """
        check_is_fitted(self)
        return reasons.expected(self.density_, X, columns, k=k, n_values=n_values)

    def pairwise(self, X: Any) -> pd.DataFrame:
        """Which other cell makes each cell strange.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)

        Returns
        -------
        DataFrame, shape (N C, C), nats
            Indexed by row and column; the entry of another column is the surprise given that cell alone, minus the
            surprise given nothing: positive where the other cell makes this one strange.
        """
        check_is_fitted(self)
        return reasons.pairwise(self.density_, X)

    def explain_scales(
        self, X: Any, n_bands: int = 6, *, edges: Sequence[float] | None = None, n_points: int = 16
    ) -> ScaleNats:
        """Nats by scale, from coarse to fine structure, of minus the log-probability.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        n_bands : int
            Bands of log-SNR, unless ``edges`` are given.
        edges : sequence of float, optional
            Log-SNRs between the bands.
        n_points : int
            Noisy points per band and row.

        Returns
        -------
        ScaleNats
            ``nats``, a DataFrame of independent columns and the bands, and ``stderr``; see
            :func:`discrete_itd.detection.scales.explain_scales`.
        """
        check_is_fitted(self)
        return scales.explain_scales(self.density_, X, n_bands, edges=edges, n_points=n_points)

    # -- change ---------------------------------------------------------------------------------

    def drift(self, X: Any, *, reference: Any = None, alpha: float = 0.05) -> Drift:
        """Whether a new batch is still what the detector was calibrated on.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            The batch.
        reference : DataFrame or array-like, optional
            Ordinary rows that were not trained on, to compare the columns' own distributions with; otherwise only nats
            are compared.
        alpha : float
            The level at which to speak of drift.

        Returns
        -------
        Drift
            ``print`` it; ``drifted``, ``drifted_columns`` and ``to_frame()`` say the same to a program. See
            :func:`discrete_itd.detection.drift.drift`.
        """
        self._calibration()
        return drift.drift(
            self.density_,
            X,
            self.calibration_nats_,
            reference=reference,
            alpha=alpha,
            explain=self.explain,
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
        """How the ranking by log-probability suffers when cells are spoilt or missing.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        y : array-like, shape (N,), optional
            1 for anomalies, 0 for ordinary rows.
        kind : {"noise", "missing"}
            Whether a spoilt cell gets another row's value, or none.
        shares : sequence of float
            Shares of the cells to be spoilt.
        n_repeats : int
            How often to do so with each share.
        random_state : int, RandomState or None

        Returns
        -------
        DataFrame
            One line for every share and repeat; see :func:`discrete_itd.detection.robustness.robustness`.
        """
        check_is_fitted(self)
        return robustness.robustness(
            self.density_,
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
            threshold = _threshold(header["threshold"])
        self.density_, self._scorer, self.trimmed_ = density, scorer, trimmed
        self.calibration_scores_ = scores
        self.calibration_nats_ = pd.DataFrame(nats, columns=names)
        self.set_threshold(threshold)
        self._take_names()
        if header.get("frozen") is True:
            self.density = FrozenEstimator(density)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags


def _copy(density: DiffusionDensity) -> DiffusionDensity:
    """The same model, not fitted."""
    return cast(DiffusionDensity, clone(density))


def _take(rows: Any, which: np.ndarray) -> Any:
    """Some rows of a frame or an array."""
    return rows.iloc[which] if isinstance(rows, pd.DataFrame) else rows[which]


def _threshold(kept: dict[str, Any]) -> Threshold:
    """The threshold that ``asdict`` made a dict of, from JSON; an error of some kind if it makes no sense."""
    numbers = [float(kept[f]) for f in ("offset", "false_alarm_rate", "low", "high")]
    if math.isnan(numbers[0]):
        raise ValueError("its threshold is no number")
    triples = [
        None if kept[f] is None else tuple(map(float, kept[f])) for f in ("alarms_per_day", "cost")
    ]
    if any(t is not None and len(t) != 3 for t in triples):
        raise ValueError("its threshold makes no sense")
    offset, rate, low, high = numbers
    a_day, cost = cast(Any, triples)
    return Threshold(offset, rate, low, high, int(kept["n_calibration"]), a_day, cost)
