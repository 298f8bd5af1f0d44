"""The detector: anomaly scores with p-values, thresholds with guarantees, and reasons."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from discrete_itd.denoisers import ForestDenoiser
from discrete_itd.detection import division, drift, outside, reasons, thresholds
from discrete_itd.detection.cell_predictions import exceptional_shares
from discrete_itd.detection.distances import Distances
from discrete_itd.detection.drift import Drift
from discrete_itd.detection.out_of_fold import in_order, out_of_fold
from discrete_itd.detection.score import (
    MOST_WEIGHT,
    WEIGHT_OF_SHARE,
    Scorer,
    row_scores,
    small_trees,
)
from discrete_itd.detection.strata import Strata, positions
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.devices import methods_in_one_thread
from discrete_itd.encoders.relations import USUAL
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.models.auto import Name
from discrete_itd.models.fitting import Recipe
from discrete_itd.models.held_out import Ints, Part
from discrete_itd.progress import Deadline, fit_progress, stage
from discrete_itd.reading.frames import in_kind
from discrete_itd.reading.text import collected, tell_unreadable
from discrete_itd.recipes import RECIPES
from discrete_itd.rules.kept import KEPT_ROWS, KeptRules
from discrete_itd.storage.card import model_card
from discrete_itd.storage.values import SCHEDULES, Like, Persistent
from discrete_itd.validation import check_share, seed_of, warn

# share of the time of a fit for dividing the rows and fitting the density; the rest is for calibration
DENSITY_SHARE = 0.9
# Calibration rows that are scored whatever the time, unless the false-alarm rate needs more: p-values are multiples of
# 1/257. Parts that take SHORT seconds are scored whatever the time, too.
FEWEST_SCORED, SHORT = 256, 0.5
SEEN_ROWS = 2000  # most rows of the fit that set the threshold if no rows are held out


@dataclass(frozen=True, eq=False)
class Learned:
    """State of a fitted detector: n calibration rows, G strata of training rows by m columns.

    See :class:`Scorer`, :class:`Strata` and the attributes of the detector.
    """

    density: DiffusionDensity
    is_frozen: bool
    quantiles: Annotated[np.ndarray, Like("float64", "M", 2, "C'")]
    trees: ForestDenoiser | None
    weight: float
    exceptions: Annotated[np.ndarray, Like("float64", "C")] | None
    given: tuple[int, ...]
    levels: Annotated[np.ndarray, Like("int64", "n", "m")]
    trained: Annotated[np.ndarray, Like("int64", "G", "m")] | None
    fewest: int
    distances: Distances | None
    nats: Annotated[np.ndarray, Like("float64", "n", "C", gaps=True)]
    repeats: Annotated[np.ndarray, Like("bool", "n")]
    threshold: Threshold
    rules: KeptRules

    def __post_init__(self) -> None:
        if len(self.given) != self.levels.shape[1]:
            raise ValueError(f"its strata are of columns {self.given}")
        if not 0 <= self.weight <= MOST_WEIGHT or (self.trees is None) != (self.weight == 0):
            raise ValueError(f"weight is {self.weight}")
        shares = self.exceptions
        if shares is not None and not ((shares > 0) & (shares < 1)).all():
            raise ValueError(f"shares of exceptions are {shares}")
        if (self.quantiles[:, 0] > self.quantiles[:, 1]).any():
            raise ValueError("its score has quantiles that fall")


@methods_in_one_thread
class DiffusionOutlierDetector(Persistent, TransformerMixin, OutlierMixin, BaseEstimator):
    r"""Anomaly detection by the code length of rows, column by column, calibrated on held-out rows.

    Fit it on inliers, rank new rows, raise alarms at a chosen false-alarm rate, and explain them. The score of a row is
    minus the sum over columns of the nats in excess of rare but normal cells, rounded off smoothly, eq. (12) of
    :mod:`discrete_itd.detection.score`: of the fitted model and, by default, of others that it was compared with; and
    of how far its numbers are from those of the rows of the fit (:mod:`discrete_itd.detection.distances`). It depends
    only on the row and what was fitted, never on its batch. Every method that takes a table X also takes :class:`Rows`,
    as ``density_.rows`` makes them: the table is then read and encoded once for several questions.

    Parameters
    ----------
    density : DiffusionDensity or FrozenEstimator, optional
        The model of inliers; the default one if None (give one to set ``density__max_steps`` and the like). It is
        cloned, and fitted with the detector. To use a fitted one and fit only the calibration, give
        ``sklearn.frozen.FrozenEstimator(density)`` and call ``fit`` with inliers that it was *not* trained on.
    contamination : "auto" or float, default="auto"
        Share of anomalies among the rows given to ``fit``. "auto" takes all of them for inliers, and sets the threshold
        at ``false_alarm_rate``. With a share c, up to 0.5, the score is robust: code lengths under ``density_``, which
        is fitted to all of the training rows, are averaged, with weight min(1/2, 5 c), with code lengths under 64
        trees of 64 rows each (:mod:`discrete_itd.detection.score`), too few to learn the anomalies from; and
        ``predict`` flags at most that share of new rows among which there are as many anomalies, by a threshold that
        held-out rows set. A frozen density has no training rows here: the threshold alone is another one then.
    false_alarm_rate : float, default=0.01
        Share of inliers that may raise an alarm, unless ``contamination`` is given.
    calibration_fraction : float, default=0.2
        Share of the rows, at most 20 000 rows, that is held out of the fit for p-values and thresholds. 0 fits on all
        rows: there are no p-values then, and the threshold is a quantile of the scores of training rows.
    given : name (position, for an array) of a column, or several, optional
        Nominal or ordinal columns that define a row's stratum, to find rows that are anomalous in their stratum. The
        score is then of the other columns given these (by the ``model_.companion`` of the density, if it has one), and
        rows are compared with calibration rows of their stratum where it has at least 1 / ``false_alarm_rate`` - 1 of
        them, otherwise with the calibration rows of all strata (:mod:`discrete_itd.detection.strata`). A missing cell
        is a stratum of its own.
    denoiser : str or Recipe, optional
        Denoiser of a density with defaults otherwise, in place of ``density``.
    random_state : int, RandomState or None, default=None
        Seed of the fit if ``density`` has no seed of its own. The division of rows is random, but the same for the same
        rows, in whatever order they are.

    Attributes
    ----------
    density_ : DiffusionDensity
        The fitted model, for log-probabilities, draws and missing cells. Its ``candidates_`` say by which models rows
        are scored, and with which ``share``; :meth:`expected` values and :meth:`reasons` are by the chosen one alone.
    offset_ : float
        A score below it raises an alarm, in nats; with ``given``, in strata without an offset of their own
        (:meth:`strata` has these). Set it by :meth:`set_threshold`.
    threshold_ : Threshold
        The same with its false-alarm rate.
    calibration_scores_ : ndarray, shape (n,)
        Scores of the calibration rows; ``explain()`` has their nats by column.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    p-values are split-conformal (:mod:`discrete_itd.detection.thresholds`): for a row that is exchangeable with the
    calibration rows, :math:`P(p \le \alpha) \le \alpha` on average over calibration sets, whatever the model.

    What that means depends on the sampling of the rows, which a table does not show. By default they are assumed to be
    independent draws: equal rows repeat by chance, and new rows repeat rows of the fit as often as calibration rows do.
    Rates then hold for new rows, repetitions included; new rows that equal none of the fit raise more alarms,
    ``threshold_.rate_if_new`` of them. With ``groups``, these are taken for independent draws, and no calibration row
    belongs to a group of the fit. Rates then hold for one row, drawn at random, of each new group; rows of one group
    raise alarms together, so their number varies more than stated, and further rows of groups of the fit raise fewer.

    If the rows given to ``fit`` contain anomalies, so do the calibration rows. Where anomalies score lower than
    inliers, p-values of inliers are larger than necessary: valid, with less power. Where anomalies score higher than
    inliers, like forms left at their defaults, p-values are too small. With a share e of anomalies among the
    calibration rows, only :math:`P(p \le \alpha) \le \alpha / (1 - e)` is guaranteed for inliers.

    A missing cell has no surprisal, so rows with many of them score as more typical than complete ones.

    References
    ----------
    Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
    arXiv:2104.08279; eq. (7) of :mod:`discrete_itd.detection.thresholds`.

    Examples
    --------
    >>> import pandas as pd
    >>> coins = pd.DataFrame({"a": ["x", "y"] * 100, "b": ["u", "v"] * 100})
    >>> settings = {"denoiser": "tree", "random_state": 0}
    >>> detector = DiffusionOutlierDetector(false_alarm_rate=0.05, **settings).fit(coins)
    >>> new = pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]})
    >>> detector.predict(new)
    array([ 1, -1])
    >>> detector.p_values(new)[1].round(3)
    np.float64(0.024)

    With ``given``, a row is compared with its own stratum. Large amounts are typical in one shop, not in the other:

    >>> shop = ["corner"] * 500 + ["jeweller"] * 500
    >>> sales = pd.DataFrame({"shop": shop, "amount": ["small"] * 495 + ["large"] * 485 + ["small"] * 20})
    >>> by_shop = DiffusionOutlierDetector(given="shop", false_alarm_rate=0.05, **settings).fit(sales)
    >>> new = pd.DataFrame({"shop": ["corner", "jeweller", "kiosk"], "amount": "large"})
    >>> by_shop.predict(new[:2])
    array([-1,  1])
    >>> by_shop.strata(new)["seen"].tolist()
    [True, True, False]
    """

    def __init__(
        self,
        density: DiffusionDensity | FrozenEstimator | None = None,
        *,
        contamination: float | Literal["auto"] = "auto",
        false_alarm_rate: float = 0.01,
        calibration_fraction: float = 0.2,
        given: str | Sequence[Hashable] | None = None,
        denoiser: Name | Recipe | Sequence[Name | Recipe] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.density = density
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.calibration_fraction = calibration_fraction
        self.given = given
        self.denoiser = denoiser
        self.random_state = random_state

    # -- fitting --------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Fit the model to inliers, and calibrate it on held-out ones.

        Parameters
        ----------
        X : DataFrame, array-like or iterable of frames, shape (N, C)
            Inliers, or with ``contamination`` mostly inliers. Of more rows than memory holds, as in
            :meth:`DiffusionDensity.fit`.
        y : None
            Ignored, as labels are: leave confirmed anomalies out of X, and give labels to a classifier of
            :meth:`transform`.
        groups : array-like of hashable labels, shape (N,), optional
            What each row of a table in memory belongs to, like a customer, a machine, or a record that has copies. All
            rows of a group are trained on, or one of them, drawn at random, is a calibration row. (The columns of
            ``given``, unlike these, are known of a new row, which is compared with rows that have the same.)

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter that is invalid. A detector fitted before stays usable.

        Warns
        -----
        UserWarning
            If there are too few calibration rows for ``false_alarm_rate`` or ``contamination``; the smallest possible
            rate is used. If the ``max_time`` of the density, or Ctrl-C, ended the fit or the calibration.
        """
        share = self._check_parameters()
        seed = seed_of(self.random_state)
        if isinstance(self.density, FrozenEstimator):
            density, fraction = cast(DiffusionDensity, self.density.estimator), None
            check_is_fitted(density)
        else:
            density = self._unfitted(seed)
            fraction = self.calibration_fraction
        max_time = None if fraction is None else density.max_time
        rate = self.false_alarm_rate if share is None else share
        least = max(FEWEST_SCORED, math.ceil(1 / rate))
        with fit_progress(max_time, DENSITY_SHARE) as watched:
            with collected():
                parts = division.divide(X, self, fraction=fraction, seed=seed, groups=groups)
                if parts.schema is not None:
                    positions(self.given, parts.schema)  # raises before a long fit
                    rows = Part(division.take(parts.table, parts.train), parts.schema)
                    density.fit(rows, groups=parts.groups)
            with stage("calibrating"):
                given = positions(self.given, density.encoder_)
                with collected() as unreadable:
                    rows = density.rows(parts.table)
                tell_unreadable(unreadable, {}, fitted=True)
                scorer = Scorer(density, given)
                if share is not None and len(parts.train):
                    scorer.trees = small_trees(density, rows.x[parts.train], seed)
                    scorer.weight = min(MOST_WEIGHT, WEIGHT_OF_SHARE * share)
                scorer.compare(rows.cells[parts.rest])
                terms = pd.DataFrame(columns=pd.Index(density.encoder_.names), dtype=float)
                # rows of the fit set the threshold if none are held out
                scored = parts.held if len(parts.held) else parts.rest[:SEEN_ROWS]
                limits = {"deadline": watched.deadline, "least": least}
                scored, scored_terms = terms_in_time(scorer, rows, scored, seed, **limits)
                if len(parts.held):
                    parts, terms = parts._replace(held=scored), scored_terms
                    scorer.shares = exceptional_shares(scorer, rows.x[scored])
                some = rows.take((parts.rest if len(parts.rest) else parts.held)[: 2 * KEPT_ROWS])
                rules = functools.partial(_rules_in, some)
        strata = Strata.of(given, density, rows, parts, rate)
        repeats = division.repeats(rows.x, parts)
        if len(terms):
            name = "false_alarm_rate" if share is None else "contamination"
            # rounding must not cause an alarm
            scores = thresholds.lowered(row_scores(terms), scorer.rounding)
            threshold = thresholds.at_lowest_rate(scores, rate, name)
            threshold = strata.with_offsets(threshold, scores, rate, None).among(scores, repeats)
        else:
            scores = row_scores(scored_terms)
            offset = np.quantile(scores, rate)
            if (scores == offset).any():
                offset = thresholds.lowered(offset, scorer.rounding)
            threshold = thresholds.at_offset(row_scores(terms), float(offset))
        threshold = replace(threshold, contaminated=share is not None)
        self._set_fitted(scorer, strata, terms, repeats, threshold, rules)
        return self

    def fit_predict(self, X: Any, y: Any = None, *, groups: Any = None) -> np.ndarray:
        """Fit to a table in memory, and label its rows, each by a detector that was fitted to others.

        The labels of :meth:`predict` would be those of rows that were learned. Takes the time of four fits;
        :func:`~discrete_itd.find_outliers` names the cells to blame.

        Returns
        -------
        ndarray of int, shape (N,)
            -1 for the share ``contamination``, or else ``false_alarm_rate``, of the rows with the lowest scores, fewer
            where scores are equal, and for rows with an unreadable cell; 1 for the others.
        """
        share = self._check_parameters()
        folds = out_of_fold(self, X, groups)
        scores = in_order(folds, [fold.scores for fold in folds])
        lowest = scores < np.quantile(scores, self.false_alarm_rate if share is None else share)
        is_unreadable = in_order(folds, [fold.rows.is_unreadable for fold in folds])
        self.fit(X, groups=groups)
        return np.where(lowest | is_unreadable, -1, 1)

    def _check_parameters(self) -> float | None:
        """The share of anomalies among the rows to be fitted; None if all are inliers."""
        division.check_density(self.density, self.denoiser)
        check_share("false_alarm_rate", self.false_alarm_rate)
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

    def _unfitted(self, seed: int) -> DiffusionDensity:
        """The density to be fitted, with a seed if it has none of its own."""
        density = cast(DiffusionDensity, clone(self.density or DiffusionDensity()))
        if self.denoiser is not None:
            density.set_params(denoiser=self.denoiser)
        if density.random_state is None:
            density.set_params(random_state=seed)
        return density

    def _set_fitted(
        self,
        scorer: Scorer,
        strata: Strata,
        terms: pd.DataFrame,
        repeats: np.ndarray,
        threshold: Threshold,
        rules: KeptRules | Callable[[], KeptRules],
    ) -> Self:
        """Assign the results of a fit, once all of it has succeeded; ``terms`` (n, C) of (12) are calibration rows'."""
        self.density_, self._scorer = scorer.density, scorer
        self._strata, self._repeats, self._rules = strata, repeats, rules
        self._nats, self.calibration_scores_ = terms, row_scores(terms)
        self.n_features_in_ = self.density_.n_features_in_
        if hasattr(self.density_, "feature_names_in_"):
            self.feature_names_in_ = self.density_.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self.set_threshold(threshold)

    @property
    def _kept_rules(self) -> KeptRules:
        """The rules of the rows of the fit, searched when they are first asked for: scores do not depend on them."""
        if callable(self._rules):
            self._rules = self._rules()
        return self._rules

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_rules"):  # in place of the rows in which they are searched
            self._rules = self._kept_rules
        return super().__getstate__()

    # -- scores --------------------------------------------------------------------------------

    def score_samples(self, X: Any) -> np.ndarray:
        """The score of each row: float64, shape (N,), nats; higher is more typical.

        Rows that were fitted to have been learned: :func:`~discrete_itd.find_outliers` ranks the rows of a table in
        hand by detectors that did not see them.
        """
        rows = self._rows(X)  # which checks first that the detector is fitted
        return self._scorer.score(rows)

    def decision_function(self, X: Any) -> np.ndarray:
        """Score above the threshold of the row's stratum, shape (N,), nats: negative for rows that raise an alarm."""
        rows = self._rows(X)
        return self.score_samples(rows) - self._offsets(rows, self.threshold_)

    def predict(self, X: Any, *, threshold: Threshold | None = None) -> np.ndarray:
        """-1 for rows that raise an alarm, 1 for the others: int, shape (N,).

        A row with an unreadable cell, like "#REF!" in a column of numbers, raises the alarm "unreadable", whatever its
        score, which its other cells have: no false-alarm rate counts these alarms, and :meth:`reasons` name them.
        ``threshold`` is by default ``threshold_``. Of rows that were fitted to fewer raise an alarm than its rate says:
        :meth:`fit_predict` labels these.

        Warns
        -----
        UserWarning
            If more than a few per cent of the rows, ten at least, lie outside the range or the categories of training
            in some column, like dates of the next week: the stated rate does not hold then. Or if values of a column
            that is no part of the model repeat, though no two training rows had the same.
        """
        rows = self._rows(X)
        scores = self.score_samples(rows)
        threshold = self.threshold_ if threshold is None else self._checked(threshold)
        outside.tell(rows)
        return np.where((scores < self._offsets(rows, threshold)) | rows.is_unreadable, -1, 1)

    def _rows(self, X: Any) -> Rows:
        """A table, read and encoded; NotFittedError before the fit."""
        check_is_fitted(self)
        return self.density_.rows(X)

    def _offsets(self, rows: Rows, threshold: Threshold) -> np.ndarray:
        """The score below which each row raises an alarm, (N,): the offset of its stratum, where there is one."""
        n_strata = len(self._strata.members) - 1
        offsets = threshold.stratum_offsets or [threshold.offset] * n_strata
        return np.array([threshold.offset, *offsets])[self._strata.place(rows)]

    # -- p-values -------------------------------------------------------------------------------

    def p_values(self, X: Any) -> np.ndarray:
        r"""Conformal p-values (N,), eq. (7) of :mod:`discrete_itd.detection.thresholds`.

        A ValueError without calibration rows. For an inlier, at most :math:`\alpha` with probability at most
        :math:`\alpha`, on average over calibration sets, with ``given`` also within each stratum that has calibration
        rows enough (:mod:`discrete_itd.detection.strata`). To select among many rows use :meth:`discoveries`. Rows that
        were fitted to are no new rows: their p-values promise nothing. Warns as :meth:`predict` does of rows outside of
        training.
        """
        calibration, rows = thresholds.calibration_scores(self), self._rows(X)
        outside.tell(rows)
        place, rounding = self._strata.place(rows), self._scorer.rounding
        return self._strata.p_values(calibration, self.score_samples(rows), place, rounding)

    def discoveries(self, X: Any, *, fdr: float = 0.1) -> np.ndarray:
        """Rows of a batch to call anomalies, among which at most a share ``fdr`` is expected to be inliers.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
            The whole batch: unlike an alarm, a discovery depends on the other rows of the batch.
        fdr : float
            False-discovery rate, controlled by the procedure of Benjamini and Hochberg.

        Returns
        -------
        ndarray of bool, shape (N,)

        Warns
        -----
        UserWarning
            If the detector was fitted with ``contamination``: the rate is still controlled where anomalies score lower
            than inliers, but only what is more frequent in the batch than among the calibration rows, or scores lower,
            is found.

        Notes
        -----
        With ``given``, rows of one stratum share their calibration rows. That the procedure controls the rate then is
        not proven.
        """
        if self.threshold_.contaminated:
            warn(
                "the calibration rows hold anomalies (contamination): discoveries are only what is more frequent in the"
                " batch, or scores lower"
            )
        return thresholds.discoveries(self.p_values(X), fdr)

    # -- thresholds -----------------------------------------------------------------------------

    def threshold_at_rate(self, rate: float, *, confidence: float | None = None) -> Threshold:
        """The threshold with a given false-alarm rate and its 95 % interval; :meth:`set_threshold` puts it to use.

        With ``given``, strata that have calibration rows enough for the rate get offsets of their own.

        Parameters
        ----------
        rate : float
            Share of inliers that may raise an alarm, like 5 / 1000 where 5 alarms of 1000 rows a day can be checked
            (:meth:`Threshold.alarms_expected` has the interval of a day's count). A ValueError if there are too few
            calibration rows to guarantee it.
        confidence : float, optional
            By default the rate holds on average over calibration sets. With a confidence such as 0.95, it holds for
            this calibration set with that confidence, at a lower threshold.
        """
        lowered = self._lowered()
        threshold = thresholds.at_rate(lowered, rate, confidence=confidence)
        return self._stated(self._strata.with_offsets(threshold, lowered, rate, confidence))

    def threshold_at_cost(
        self, miss_cost: float, check_cost: float, *, anomalies: Any, prevalence: float
    ) -> Threshold:
        """The threshold with the least expected cost per row, among calibration scores and no alarm at all.

        It states this cost with an approximate 95 % interval; with ``given``, it is one offset for all strata.

        Parameters
        ----------
        miss_cost, check_cost : float
            Cost of an anomaly that raises no alarm, and of checking an alarm; positive.
        anomalies : DataFrame, array-like or Rows, shape (A, C)
            Known anomalies, at least one, not used in the fit.
        prevalence : float
            Share of anomalies among new rows, between 0 and 1.
        """
        scores = self.score_samples(anomalies)
        costs: Any = {"miss_cost": miss_cost, "check_cost": check_cost, "prevalence": prevalence}
        return self._stated(thresholds.at_cost(self._lowered(), anomalies=scores, **costs))

    def _stated(self, threshold: Threshold) -> Threshold:
        """A threshold with its rate among new rows and the contamination of the calibration rows."""
        threshold = replace(threshold, contaminated=self.threshold_.contaminated)
        return threshold.among(self._lowered(), self._repeats)

    def _lowered(self) -> np.ndarray:
        """Calibration scores less their rounding error."""
        return thresholds.lowered(thresholds.calibration_scores(self), self._scorer.rounding)

    def set_threshold(self, threshold: Threshold) -> Self:
        """Raise alarms by this threshold from now on."""
        self.threshold_ = self._checked(threshold)
        self.offset_ = self.threshold_.offset
        return self

    def _checked(self, threshold: Threshold) -> Threshold:
        """The threshold; TypeError or ValueError unless it belongs to this detector."""
        if not isinstance(threshold, Threshold):
            raise TypeError(f"threshold must be a Threshold, got {type(threshold).__name__}")
        n, n_strata = len(threshold.stratum_offsets), len(self._strata.members) - 1
        if n not in (0, n_strata):
            raise ValueError(f"threshold has offsets of {n} strata, the detector has {n_strata}")
        scores, rounding = self.calibration_scores_, self._scorer.rounding
        if not threshold.is_of(scores) and not threshold.is_of(
            thresholds.lowered(scores, rounding)
        ):
            raise ValueError(
                "threshold states another rate than its offset has among the calibration rows"
            )
        return threshold

    # -- strata ---------------------------------------------------------------------------------

    @in_kind
    def strata(self, X: Any = None) -> pd.DataFrame:
        """The strata (see ``given``) among the calibration rows, or the stratum of each row of a table X.

        Returns
        -------
        DataFrame
            ``n_calibration``, the calibration rows of the stratum; ``own``, whether these are enough for p-values and
            an offset of their own; ``offset``, below which a score raises an alarm; ``seen``, whether the model was
            fitted to rows of the stratum. Values that the model takes for one (rare ones that are pooled) are one
            stratum, under the most frequent of them.

        Notes
        -----
        A row of a stratum that was not seen has a score, too: the value, or the combination of values, is as improbable
        as any that is unseen, and the other cells depend on it as the model generalises. Its p-value is that among all
        calibration rows, with which it need not be exchangeable: take it with care.
        """
        check_is_fitted(self)
        return self._strata.table(self.threshold_, None if X is None else self._rows(X))

    # -- reasons --------------------------------------------------------------------------------

    @in_kind
    def explain(self, X: Any = None) -> pd.DataFrame:
        """The score by column, the terms s of (12): which columns make a row anomalous.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C), optional
            By default the calibration rows: then the index is their number.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X, nats, not negative. Rows sum to minus the score, to the last bit. NaN for a missing
            cell, unless missingness is modelled, and in columns of ``given``.
        """
        check_is_fitted(self)
        return self._nats.copy() if X is None else self._scorer.explain(self._rows(X))

    def transform(self, X: Any) -> np.ndarray:
        """Nats by column, the terms s of (12), and their sum: features for a supervised model.

        Labels of checked rows go to a model of these features: of a fitted detector, ``make_pipeline(FrozenEstimator(
        detector), classifier).fit(X, y)`` does not fit the detector to the anomalies among X. With the table's own
        columns, use a ``sklearn.compose.make_column_transformer`` or ``FeatureUnion``.

        Returns
        -------
        ndarray, shape (N, C + 1)
            Nats, not negative, 0 for a missing cell and in columns of ``given``; a DataFrame after
            ``set_output(transform="pandas")``, with the names of :meth:`get_feature_names_out`.
        """
        rows = self._rows(X)
        terms = np.nan_to_num(self._scorer.terms(rows))
        return np.column_stack([terms, terms.sum(1)])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of :meth:`transform`: "nats_<column>" for each column of the model, then "nats"."""
        check_is_fitted(self)
        names = [f"nats_{name}" for name in self.density_.encoder_.names]
        return np.array([*names, "nats"], dtype=object)

    @in_kind
    def reasons(self, X: Any, *, k: int = 3) -> pd.DataFrame:
        """Reasons for each row: its most suspicious cell, and others that are likely wrong, at most k.

        Returns
        -------
        DataFrame
            One line per cell, with the columns of :func:`discrete_itd.detection.reasons.reasons`; ``row`` is the label
            in the index of X. A row whose most suspicious cell is not a nat rarer than expected has no line, even if it
            raises an alarm: then it is the combination of its cells that is rare. With ``given``, no cell of a given
            column is named as a reason (it may be one in conflict), ``stratum_seen`` is ``seen`` of :meth:`strata`, and
            where it is False, the first sentence says so.
            With ``contamination`` reasons, like :meth:`expected` values, are by ``density_`` alone.

        Notes
        -----
        How surely a cell is wrong rests on the prior that one cell in a hundred is, and on how often right cells
        contradict the others of their rows, which up to 256 of the calibration rows have shown. An alarm is no evidence
        of an error: a right exception that was never met, like a new value or combination, looks the same.
        """
        check_is_fitted(self)
        rows, strata = self._rows(X), self._strata
        table = reasons.reasons(
            self._scorer, rows.labelled(range(len(rows))), k, rules=self._kept_rules
        )
        position = table["row"].to_numpy(dtype=np.int64)  # labels may repeat
        table["row"] = rows.index[position]
        if not strata.columns:
            return table
        unseen = strata.unseen(rows)
        text = [
            f"{unseen[i]}; {text}" if rank == 1 and unseen[i] else text
            for i, rank, text in zip(position, table["rank"], table["sentence"], strict=True)
        ]
        table.insert(len(table.columns) - 1, "stratum_seen", strata.seen(rows)[position])
        return table.assign(sentence=pd.Series(text, index=table.index, dtype=object))

    @in_kind
    def expected(
        self,
        X: Any,
        columns: Iterable[Hashable] | None = None,
        *,
        k: int | None = 3,
        n_values: int = 3,
    ) -> pd.DataFrame:
        """The values that the other cells of a row predict for its most suspicious cells.

        Of the columns ``columns``, by default all except ``given``, the k cells with the largest log-odds of an error
        in each row, all with k None; ``n_values`` predictions for each. Probabilities are by the score: its
        normalisation over the values of the cell (:mod:`discrete_itd.detection.cell_predictions` states where that is
        exact). The table is described in :func:`discrete_itd.detection.reasons.expected`.
        """
        check_is_fitted(self)
        return reasons.expected(self._scorer, X, columns, k=k, n_values=n_values)

    # -- change ---------------------------------------------------------------------------------

    def drift(self, X: Any, *, reference: Any = None, alpha: float = 0.05) -> Drift:
        """Compare a new batch X with the calibration rows, at the level ``alpha``.

        With a ``reference`` table of inliers that were not trained on, the columns' own distributions are compared,
        too; by default only nats are, which names the right column less often.
        """
        n = len(thresholds.calibration_scores(self))
        if n < 2:
            raise ValueError(
                f"drift needs at least two calibration rows, got {n}: fit to more rows, or with a larger"
                " calibration_fraction"
            )
        nats = self._nats.to_numpy(dtype=float)
        return drift.drift(self._scorer, X, nats, reference=reference, alpha=alpha)

    # -- saving ---------------------------------------------------------------------------------

    _learned_type = Learned
    _stored_classes = (DiffusionDensity, *RECIPES, *SCHEDULES)

    def save(self, path: str | os.PathLike[str], *, card: bool = True) -> None:
        """Write the fitted detector to one safetensors file, whole or not at all, and a card beside it.

        Notes
        -----
        The file holds no table of rows. It does hold the score and the nats by column of each calibration row, from
        which a row can be recovered where few rows are possible, and whether it equals a row of the fit; with
        ``given``, the strata of these rows and of training rows; the categories; of columns whose numbers repeat, the
        different numbers; and the model, which may have learned single training rows and may draw them. That is no
        anonymisation: do not publish the file of personal data.
        """
        super().save(path, card=card)

    def model_card(self) -> str:
        check_is_fitted(self)
        return model_card(self, self._scorer, rules_of(self))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "density_")

    def _checked_parameters(self) -> dict[str, Any]:
        self._check_parameters()
        parameters = self.get_params(deep=False)
        if isinstance(self.density, FrozenEstimator):
            parameters["density"] = None  # the fitted one takes its place
        return parameters

    @property
    def _learned(self) -> Learned:
        strata, quantiles = self._strata, self._scorer.quantiles
        return Learned(
            density=self.density_,
            is_frozen=isinstance(self.density, FrozenEstimator),
            quantiles=cast(np.ndarray, quantiles),
            trees=self._scorer.trees,
            weight=self._scorer.weight,
            exceptions=self._scorer.exceptions,
            distances=self._scorer.distances,
            given=strata.columns,
            levels=strata.calibration,
            trained=strata.trained,
            fewest=strata.fewest,
            nats=self._nats.to_numpy(dtype=float),
            repeats=self._repeats,
            threshold=self.threshold_,
            rules=self._kept_rules,
        )

    @_learned.setter
    def _learned(self, found: Learned) -> None:
        density, encoder = found.density, found.density.encoder_
        given = positions([encoder.schema[j].name for j in found.given], encoder)
        terms = pd.DataFrame(found.nats, columns=pd.Index(encoder.names))
        strata = Strata(given, encoder.schema, found.levels, found.trained, found.fewest)
        trees = None
        if found.trees is not None:
            unbuilt = cast(Any, found.trees)
            trees = unbuilt(encoder.codebook().to(unbuilt.dtype)).to(density.model_.device)
        scorer = Scorer(
            *(density, given, found.quantiles, trees, found.weight, found.exceptions),
            distances=found.distances,
        )
        shape = found.quantiles.shape
        if shape != (len(scorer.models), 2, len(encoder.owner)) or given != found.given:
            raise ValueError(f"its score has quantiles of shape {shape}, given {found.given}")
        found.rules.check_columns(encoder.schema)
        self._set_fitted(scorer, strata, terms, found.repeats, found.threshold, found.rules)
        if found.is_frozen:
            self.density = FrozenEstimator(density)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags


def _rules_in(rows: Rows) -> KeptRules:
    try:
        return KeptRules.find(rows.frame, rows.encoder.schema, rows.encoder.relations)
    except Exception as error:  # an answer needs none
        warn(f"what the table obeys is not known: {type(error).__name__}: {error}")
        return KeptRules()


def rules_of(detector: DiffusionOutlierDetector) -> list[str]:
    """What the rows of a detector's fit obey, as :func:`~discrete_itd.find_rules` words it, the most useful first.

    Equations of the model's columns, then rules of several columns, then of one.
    """
    encoder = detector.density_.encoder_
    names = [str(name) for name in encoder.names]
    equations = [r.text(names) for r in encoder.relations if r.share > USUAL]
    return equations + detector._kept_rules.texts()


def measure_exceptions(detector: DiffusionOutlierDetector, rows: Rows) -> None:
    """Let a detector without calibration rows judge cells by rows that took no part in its fit."""
    detector._scorer.shares = exceptional_shares(detector._scorer, rows.x)


def terms_in_time(
    scorer: Scorer,
    rows: Rows,
    held: Ints,
    seed: int,
    *,
    deadline: Deadline,
    least: int,
) -> tuple[Ints, pd.DataFrame]:
    """Positions (n,) and terms (n, C) of (12) of the calibration rows that were scored in time, or before Ctrl-C.

    ``held`` are the positions in ``rows`` of the calibration rows, ``seed`` gives the order in which they are scored: a
    part of ``least``, then parts twice as large as the one before, none of which is begun that would likely end after
    the deadline. A UserWarning if not all were scored.
    """
    order, scored = np.random.RandomState(seed).permutation(held), []
    n, size, took = 0, least, 0.0
    while n < len(order) and (not n or 2 * took < max(deadline.left, SHORT)):
        before = deadline.age
        scored.append(scorer.explain(rows.take(order[n : n + size])))
        took, n, size = deadline.age - before, n + len(scored[-1]), 2 * size
    nats = pd.concat(scored, ignore_index=True)
    if len(nats) < len(held):
        what = "Ctrl-C" if deadline.interrupted else f"max_time={scorer.density.max_time:g}"
        warn(f"{what} ended the calibration after {len(nats):,} of {len(held):,} rows")
    order = order[: len(nats)]
    sorting = np.argsort(order)
    return order[sorting], nats.iloc[sorting].reset_index(drop=True)
