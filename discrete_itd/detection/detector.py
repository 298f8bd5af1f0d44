"""The detector: anomaly scores with p-values, thresholds with guarantees, and reasons."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Self, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from discrete_itd.detection import calibration, conformal
from discrete_itd.detection.alarming import Alarming
from discrete_itd.detection.card import detector_card
from discrete_itd.detection.explaining import Explaining
from discrete_itd.detection.groups import Groups, check_table, positions
from discrete_itd.detection.scoring import Scorer, fit_score
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.estimators import DiffusionDensity, RowEstimate
from discrete_itd.progress import fit_progress
from discrete_itd.storage.configs import within
from discrete_itd.storage.files import TIMINGS, State
from discrete_itd.storage.persistent import Persistent
from discrete_itd.storage.schema import building, check_fields, check_tensor
from discrete_itd.threads import methods_in_one_thread
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.distributed import team_of_process
from discrete_itd.validation import check_choice, check_random_state, check_share

SCORES = "anomaly", "log_prob"


@methods_in_one_thread
class DiffusionOutlierDetector(Alarming, Explaining, Persistent, OutlierMixin, BaseEstimator):
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
        at ``false_alarm_rate``. With a share, up to 0.5, the fit is robust: that share of the training rows is left
        out of the training, those that an IsolationForest isolates first or, of nominal columns alone, the least
        probable under independent columns and a Chow-Liu tree; and ``predict`` flags at most that share of new rows
        among which there are as many anomalies, by a threshold that held-out rows set.
    false_alarm_rate : float, default=0.01
        Share of inliers that may raise an alarm, unless ``contamination`` is given.
    calibration_fraction : float, default=0.2
        Share of the rows, at most 20 000 rows, that is held out of the fit for p-values and thresholds. 0 fits on all
        rows: there are no p-values then, and the threshold is a quantile of the scores of training rows.
    score_by : {"anomaly", "log_prob"}, default="anomaly"
        The score. "log_prob" is the log-probability. "anomaly" ranks anomalies better, in nats too, and is made of it:

        * The log-density of a continuous column counts up to its mean under the model, so that a very typical value
          cannot offset an anomalous one.
        * In columns whose numbers repeat, it says first whether a number was ever seen
          (:mod:`discrete_itd.detection.repeats`).
        * If all columns are nominal, it is a weighted mean of the log-probability and that of independent columns,
          which has weight 1000 / (1000 + n), at most 1/2, for n training rows.
        * In tables of nominal columns like shopping baskets, and with a model in closed form, a row is compared with
          rows that have as many unusual cells (:mod:`discrete_itd.detection.sparsity`).
    given : name (position, for an array) of a column, or several, optional
        Nominal or ordinal columns that define a row's group, to find rows that are anomalous in their group. The score
        is then of the other columns given these (of a model with a ``companion_``, by that), and rows are compared with
        calibration rows of their group where it has at least 1 / ``false_alarm_rate`` - 1 of them, otherwise with
        those of all groups (:mod:`discrete_itd.detection.groups`). A missing cell is a group of its own.
    denoiser : str or Recipe, optional
        That of a density which has its defaults otherwise, in place of ``density``.
    random_state : int, RandomState or None, default=None
        Seed of the division of rows, and of the fit if ``density`` has no seed of its own.

    Attributes
    ----------
    density_ : DiffusionDensity
        The fitted model.
    offset_ : float
        A score below it raises an alarm, in nats; with ``given``, in groups without an offset of their own
        (:meth:`offsets`). Set it by :meth:`set_threshold`.
    threshold_ : Threshold
        The same with its false-alarm rate.
    calibration_scores_ : ndarray, shape (n,)
        Scores of the calibration rows.
    calibration_nats_ : DataFrame, shape (n, C)
        Their nats by column, as :meth:`explain` gives them.
    rounding_ : float
        Bound on the rounding error of scores, relative to 1 + abs(score); see :mod:`discrete_itd.detection.conformal`.
    given_ : tuple of names
        The columns that define a row's group; empty without ``given``.
    groups_ : DataFrame
        The groups among the calibration rows: ``n_calibration``, ``own`` and ``offset`` of each.
    trimmed_ : ndarray of int
        Positions of the rows given to ``fit`` that were left out of the training as anomalies; of a row that occurs
        several times, at least once.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    p-values are split-conformal (:mod:`discrete_itd.detection.conformal`): for a row that is exchangeable with the
    calibration rows, :math:`P(p \le \alpha) \le \alpha` on average over calibration sets, whatever the model.

    What that means depends on how the rows came about, which a table does not show. By default they are taken for
    independent draws: equal rows repeat by chance, and new rows repeat those of the fit as often as calibration rows
    do. Rates are then those of new rows, repetitions included; new rows that equal none of the fit raise more alarms,
    ``threshold_.rate_if_new`` of them.
    With ``groups`` or ``sample_weight``, groups, or the rows that have weights, are taken for independent draws, and no
    calibration row belongs to a group of the fit. Rates are then those of one row, drawn at random, of each new group;
    rows of one group raise alarms together, so their number varies more than stated, and further rows of groups of the
    fit raise fewer.

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
    >>> coins = pd.DataFrame({"a": ["x", "y"] * 100, "b": ["u", "v"] * 100})
    >>> settings = {"denoiser": "tree", "random_state": 0}
    >>> detector = DiffusionOutlierDetector(false_alarm_rate=0.05, **settings).fit(coins)
    >>> new = pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]})
    >>> detector.predict(new)
    array([ 1, -1])
    >>> detector.p_values(new)[1].round(3)
    np.float64(0.024)

    With ``given``, a row is compared with its own group. Large amounts are usual in one shop, not in the other:

    >>> shop = ["corner"] * 500 + ["jeweller"] * 500
    >>> sales = pd.DataFrame({"shop": shop, "amount": ["small"] * 495 + ["large"] * 485 + ["small"] * 20})
    >>> own = DiffusionOutlierDetector(given="shop", false_alarm_rate=0.02, **settings).fit(sales)
    >>> new = pd.DataFrame({"shop": ["corner", "jeweller", "kiosk"], "amount": "large"})
    >>> own.predict(new[:2])
    array([-1,  1])
    >>> own.group_seen(new)
    array([ True,  True, False])
    """

    # of pickles of releases before them
    given: str | Sequence[Hashable] | None = None
    denoiser: Any = None

    def __init__(
        self,
        density: DiffusionDensity | FrozenEstimator | None = None,
        *,
        contamination: float | str = "auto",
        false_alarm_rate: float = 0.01,
        calibration_fraction: float = 0.2,
        score_by: str = "anomaly",
        given: str | Sequence[Hashable] | None = None,
        denoiser: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.density = density
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.calibration_fraction = calibration_fraction
        self.score_by = score_by
        self.given = given
        self.denoiser = denoiser
        self.random_state = random_state

    # -- fitting --------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    ) -> Self:
        """Fit the model to inliers, and calibrate it on held-out ones.

        Parameters
        ----------
        X : DataFrame, array-like, path-like or iterable of frames, shape (N, C)
            Inliers, or with ``contamination`` mostly inliers. Of more rows than memory holds, as in
            :meth:`DiffusionDensity.fit`: the calibration rows are of a uniform sample then; ``contamination`` needs a
            table in memory.
        y : ignored
        sample_weight : array-like of int, shape (N,), optional
            How often each row of a table in memory occurs. Repetitions of a row are copies: all are trained on, or one
            of them is a calibration row, so a large weight sharpens the density, not the p-values.
        groups : array-like of hashable labels, shape (N,), optional
            What each row of a table in memory belongs to, like a customer, a machine, or a record that has copies. All
            rows of a group are trained on, or one of them, drawn at random, is a calibration row. (The columns of
            ``given``, unlike these, are known of a new row, which is compared with rows that have the same.)
        checkpoint : path-like, optional
            As in :meth:`DiffusionDensity.fit`, removed when the calibration is complete too; needs an integer
            ``random_state``, or the rows would be divided differently the next time.

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
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        seed = team_of_process().agreed(seed)
        if isinstance(self.density, FrozenEstimator):
            density, fraction = cast(DiffusionDensity, self.density.estimator), None
            check_is_fitted(density)
        else:
            density = calibration.unfitted(self.density, self.denoiser, seed)
            fraction = self.calibration_fraction
        how: Any = {"fraction": fraction, "share": share}
        how |= {"sample_weight": sample_weight, "groups": groups}
        saved, max_time = None, None if fraction is None else density.max_time
        with fit_progress(max_time, calibration.DENSITY_SHARE) as watched:
            parts = calibration.divide(X, self, density, seed=seed, **how)
            if parts.source is not None:
                check_table(self.given, parts.table, density)
                saved = Checkpoint.of(checkpoint)
                density.fit(parts.source, groups=parts.groups, checkpoint=saved)
        given = positions(self.given, density.encoder_.schema)
        rows = density.rows(parts.table)
        if self.score_by != "log_prob":
            trained = rows.take(parts.train) if len(parts.train) else None
            scorer = fit_score(density, trained, seed, parts.n_train, given)
        else:
            scorer = Scorer.plain(density, given)
        names = pd.Index(density.encoder_.names)
        nats = pd.DataFrame(columns=names, dtype=float)
        if len(parts.held):
            held, nats = calibration.nats_in_time(
                scorer, rows, parts.held, seed, watched.start, max_time
            )
            parts = parts._replace(held=held)
        scores = -np.ascontiguousarray(nats.to_numpy()).sum(1)
        seen = parts.rest[: calibration.SEEN_ROWS]
        rate = self.false_alarm_rate if share is None else share
        own = Groups.of(given, density, rows, parts, rate)
        about = scorer, scores, rows.take(seen), rate, share is not None
        repeats, threshold = calibration.repeats(rows.x, parts), own.first_threshold(*about)
        if len(scores):
            threshold = threshold.among(conformal.lowered(scores, scorer.rounding), repeats)
        self._set_fitted(scorer, own, scores, nats, repeats, parts.trimmed, threshold)
        is_interrupted = density.stopped_ == "interrupted"
        if saved is not None and saved is not checkpoint and not is_interrupted:
            saved.remove()
        return self

    def _check_parameters(self) -> float | None:
        """The share of anomalies among the rows to be fitted; None if all are inliers."""
        calibration.check_density(self.density, self.denoiser)
        check_share("false_alarm_rate", self.false_alarm_rate)
        check_choice("score_by", self.score_by, SCORES)
        if self.calibration_fraction != 0:
            check_share("calibration_fraction", self.calibration_fraction)
        return calibration.check_contamination(self.contamination)

    def _set_fitted(
        self,
        scorer: Scorer,
        groups: Groups,
        scores: np.ndarray,
        nats: pd.DataFrame,
        repeats: np.ndarray,
        trimmed: np.ndarray,
        threshold: Threshold,
    ) -> Self:
        """Assign the results of a fit, once all of it has succeeded."""
        self.density_, self._scorer, self.trimmed_ = scorer.density, scorer, trimmed
        self._groups, self._repeats = groups, repeats
        self.calibration_scores_, self.calibration_nats_ = scores, nats
        self.n_features_in_ = self.density_.n_features_in_
        if hasattr(self.density_, "feature_names_in_"):
            self.feature_names_in_ = self.density_.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self.set_threshold(threshold)

    def log_prob(self, X: Any, *, max_stderr: float | None = None) -> RowEstimate:
        """Log-probability of each row with its standard error, see :meth:`DiffusionDensity.log_prob`."""
        check_is_fitted(self)
        return self.density_.log_prob(X, max_stderr=max_stderr)

    # -- saving ---------------------------------------------------------------------------------

    parameter_classes = (DiffusionDensity, *DiffusionDensity.parameter_classes)

    def save(self, path: str | os.PathLike[str], *, card: bool = True) -> None:
        """Write the fitted detector to one safetensors file, whole or not at all, and a card beside it.

        Parameters
        ----------
        path : path-like
        card : bool
            As in :meth:`DiffusionDensity.save`.

        Notes
        -----
        The file holds no table of rows. It does hold the score and the nats by column of each calibration row, from
        which a row can be recovered where few rows are possible, and whether it equals a row of the fit; with
        ``given``, the groups of these rows and of training rows; the categories; of columns whose numbers repeat, the
        different numbers; and the model, which may have learned single training rows and may draw them. That is no
        anonymisation: do not publish the file of personal data.
        """
        super().save(path, card=card)

    def model_card(self) -> str:
        check_is_fitted(self)
        return detector_card(self, self._scorer)

    def config(self) -> dict[str, Any]:
        parameters = super().config()
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
            TIMINGS: header.pop(TIMINGS),
            "density": header,
            "device": self.density_.device,
            "frozen": isinstance(self.density, FrozenEstimator),
            "threshold": asdict(self.threshold_),
            "groups": self._groups.to_header(),
        }
        tensors = {f"density.{name}": tensor for name, tensor in tensors.items()}
        tensors |= self._scorer.to_tensors() | self._groups.to_tensors()
        tensors["scores"] = torch.tensor(self.calibration_scores_)
        tensors["nats"] = torch.tensor(self.calibration_nats_.to_numpy())
        tensors["repeated"] = torch.tensor(self._repeats.astype(np.uint8))
        tensors["trimmed"] = torch.tensor(self.trimmed_.astype(np.int64))
        return own, tensors

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
            ({**header["density"], TIMINGS: header.get(TIMINGS, {})}, within(tensors, "density")),
            device=device,
            trusted=trusted,
        )
        names = pd.Index(density.encoder_.names)
        nats = check_tensor(tensors, "nats", None, len(names)).numpy()
        scores = check_tensor(tensors, "scores", len(nats)).numpy()
        repeats = check_tensor(tensors, "repeated", len(nats)).numpy().astype(bool)
        trimmed = check_tensor(tensors, "trimmed", None).numpy()
        with building("groups"):  # none in files of older releases
            kept, schema = header.get("groups", {}), density.encoder_.schema
            groups = Groups.restored(kept, schema, tensors, len(nats))
        with building("score"):
            scorer = Scorer.from_tensors(density, tensors, groups.columns)
        with building("threshold"):
            threshold = Threshold.from_dict(header["threshold"])
        table = pd.DataFrame(nats, columns=names)
        self._set_fitted(scorer, groups, scores, table, repeats, trimmed, threshold)
        if header.get("frozen") is True:
            self.density = FrozenEstimator(density)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags
