"""The scikit-learn face of the density: tables in, log-probabilities with error bars out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from discrete_itd.channel import Schedule, check_schedule
from discrete_itd.denoisers import Denoiser
from discrete_itd.encoders import KINDS, MISSING, UNKNOWN, TableEncoder, check_column_spec
from discrete_itd.models.filling import FillingMixin
from discrete_itd.models.fitting import fit_model, seed_of_run
from discrete_itd.models.model import Model
from discrete_itd.models.partial import PartialFitMixin
from discrete_itd.models.scoring import RowEstimate as RowEstimate
from discrete_itd.models.scoring import ScoringMixin
from discrete_itd.models.stored import model_from_state, model_state
from discrete_itd.models.tables import read_table
from discrete_itd.progress import fit_progress
from discrete_itd.recipes import RECIPES, recipe
from discrete_itd.storage.configs import SCHEDULES
from discrete_itd.storage.files import State
from discrete_itd.storage.persistent import Persistent, resolve_device
from discrete_itd.storage.schema import check_fields
from discrete_itd.threads import methods_in_one_thread
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import TrainingPlan
from discrete_itd.validation import (
    check_choice,
    check_integer,
    check_positive,
    check_share,
    warn,
)

PATHS = ("auto", "coordinate", "isotropic")


def _of_model(name: str) -> Any:
    """A property: an attribute of the fitted ``model_``."""

    def read(self: DiffusionDensity) -> Any:
        check_is_fitted(self)
        return getattr(self.model_, name)

    return property(read, doc=f"``model_.{name}``; see the attributes of the class.")


@methods_in_one_thread
class DiffusionDensity(
    Persistent, ScoringMixin, FillingMixin, PartialFitMixin, DensityMixin, BaseEstimator
):
    r"""Probability of the rows of a table, by information-theoretic diffusion.

    A denoiser is trained to predict clean rows from noisy ones. Its error, integrated over the noise levels, is the
    log-probability of the row: log-mass of the categories plus log-density of the continuous values, of the cells that
    are not missing.

    Parameters
    ----------
    column_types : mapping from column name to kind or options, or one kind for all columns, optional
        "nominal", "ordinal", "continuous" or "binned", where it should not follow from the dtype
        (:mod:`discrete_itd.encoders`); or a mapping with "kind" and its options, like
        ``{"kind": "binned", "edges": [0, 18, 65, 120]}`` (:func:`discrete_itd.encoders.check_column_spec`).
        Integers of a numpy array are nominal codes unless there are more than 256 distinct ones.
    missing : {"marginalise", "category"}, default="marginalise"
        A missing cell (NaN, None, NA, NaT) is left out of the row's score; or, in columns with missing cells in the
        training table, "missing" is one more value with a probability of its own.
    handle_unknown : {"smooth", "error"}, default="smooth"
        A category not seen in training gets a small probability; or raises ValueError. A boolean column knows only
        False and True and raises for anything else.
    denoiser : str, recipe or list of these, default="auto"
        What is fitted. "auto" is the cheapest of several models whose held-out nats are within a standard error of
        the best: independent columns, a tree, a Bayesian network, a decoder mixture, a causal network, or mixtures of
        these; ``candidates_`` lists them. "best" takes the time that ``max_time`` allows for the lowest nats.
        "causal" is a network that scores a row by one call, "network" one that hears every column and scores along a
        path. "tree", "trees", "bayes_net", "mixture" (of products), "decoder" and "independent" are exact models.
        "row_mixture", or a list, is a mixture of several. Recipes of :mod:`discrete_itd.recipes` set sizes, like
        ``Causal(n_orders=4)`` or ``[BayesNet(), Mixture(256)]``.
    max_steps : int, default=6000
        Optimiser steps of a network at most; training stops earlier when the held-out rows stop improving. With 0,
        "auto" trains neither a network nor a decoder. Steps of a decoder are bounded by its recipe,
        ``Decoder(max_steps=...)``.
    max_time : float, optional
        Seconds of the whole fit; of a :class:`DiffusionOutlierDetector`, calibration included. What has no time for
        enough steps to be judged is not begun. Only reading a table is never cut short, and a single step, or a pass
        through a stream, is not interrupted.
    validation_fraction : float, default=0.1
        Share of the rows, or of the ``groups`` given to ``fit``, held out to stop training, to weigh members and to
        choose the schedule.
    schedule : {"auto", "coordinate", "isotropic"} or Schedule, default="auto"
        The order in which noise is removed along a path. "auto" takes that of the fewest nats on held-out rows for
        ``n_evaluations``; with any other value, a "network" trains mostly on the noise of that schedule.
    n_evaluations : int, default=128
        Denoiser evaluations per row that is scored along a path (by a "network"), divided into steps and at least
        two paths.
    device : str, default="auto"
        A torch device; "auto" is CUDA if there is one.
    random_state : int, RandomState or None, default=None
        Determines the fit and, once fitted, every score.

    Attributes
    ----------
    model_ : Model
        The fitted model at the level of tensors: encoder, denoiser, schedule, device and seed.
        ``model_.schedule_table``, the schedules tried, with their held-out nats at about equal cost, the best first.
        ``model_.companion``, an exact model beside one that scores complete rows only: it proposes values where several
        cells are unknown, and answers where cells are half known (``information``).
    encoder_ : TableEncoder
        The schema of the table; ``encoder_.describe()`` is a table of it.
    denoiser_ : Denoiser
        The fitted denoiser.
    candidates_ : DataFrame or None
        The models among which "auto" or "best" chose: held-out nats in closed form, how far ``behind`` the best and the
        standard error of this, microseconds and work per row scored, seconds of the fit, and which was ``chosen``.
    history_ : DataFrame
        One line per validation: step, seconds, train_nats, train_stderr, valid_nats, valid_stderr, in nats per encoded
        row (without ``log_volume``). Of several networks, the history is that of the first.
    stopped_ : str
        "max_time" if the time ended anything, or left no time for it, whatever model was chosen; "interrupted" by
        Ctrl-C; else why the training of the chosen model ended: "max_steps", "no improvement", "diverged", or "exact"
        if it was not trained.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    The model defines a normalised probability over all rows; a score, in nats, depends on the row and the fitted model
    only. A closed form has no error. Along paths, a score is a Monte-Carlo estimate that is too low in expectation, for
    anomalies by more than its standard error says; a larger ``n_evaluations`` raises it.

    Rows are taken for independent draws from one distribution, in which equal ones repeat by chance. Where several are
    of one customer, or copies of one record, say so by ``groups`` or ``sample_weight``: otherwise held-out rows are too
    much like training rows, and the model fits these too closely.

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792. Its estimator for
    discrete variables is eq. (3) of :mod:`discrete_itd.likelihood`; rows are scored by eq. (6) there.

    Examples
    --------
    >>> import pandas as pd
    >>> coin = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(max_steps=200, random_state=0).fit(coin)
    >>> normal, anomalous = model.score_samples(pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]}))
    >>> bool(normal > anomalous + 2)
    True
    >>> model.impute(pd.DataFrame({"a": ["x", None], "b": [None, "v"]}))
       a  b
    0  x  u
    1  y  v
    """

    model_: Model

    def __init__(
        self,
        *,
        column_types: Mapping[Any, Any] | str | None = None,
        missing: str = "marginalise",
        handle_unknown: str = "smooth",
        denoiser: Any = "auto",
        max_steps: int = 6000,
        max_time: float | None = None,
        validation_fraction: float = 0.1,
        schedule: str | Schedule = "auto",
        n_evaluations: int = 128,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.column_types = column_types
        self.missing = missing
        self.handle_unknown = handle_unknown
        self.denoiser = denoiser
        self.max_steps = max_steps
        self.max_time = max_time
        self.validation_fraction = validation_fraction
        self.schedule = schedule
        self.n_evaluations = n_evaluations
        self.device = device
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
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : DataFrame, array-like, path-like or iterable of frames, shape (N, C)
            A pandas frame, a table that converts to one (like a polars frame), or an array. Of more rows than memory
            holds: a Parquet file or a folder of them, or frames, one after another, that can be iterated again; see
            :mod:`discrete_itd.models.streaming`.
        y : ignored
        sample_weight : array-like of int, shape (N,), optional
            How often each row of a table in memory occurs. Repetitions of a row are copies: they are held out together.
        groups : array-like of hashable labels, shape (N,), optional
            What each row of a table in memory belongs to, like a customer. The rows of a group are held out together.
        checkpoint : path-like, optional
            A file in which training saves its state every half minute. If it exists, training resumes from it with the
            result of an uninterrupted fit. It is removed when the fit is complete, or by whoever gave a Checkpoint.

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter that is invalid. A model fitted before stays usable.
        OSError, ImportError
            If X is a path without a file, or pyarrow, the extra ``parquet``, is not installed.

        Warns
        -----
        UserWarning
            If the fit was interrupted (Ctrl-C): the model is the best so far. If ``max_time`` ended a training or a
            search, or left no time for one.
        """
        parameters = self._checked_parameters()
        saved = Checkpoint.of(checkpoint)
        seed = seed_of_run(self.random_state, saved)
        device = resolve_device(self.device)
        with fit_progress(self.max_time) as watched:
            table, shown, is_frame, is_polars = read_table(
                X,
                self,
                column_types=self.column_types,
                handle_unknown=parameters["handle_unknown"],
                missing=self.missing,
                sample_weight=sample_weight,
                groups=groups,
                seed=seed,
            )
            if not isinstance(self.schedule, str):
                check_schedule(self.schedule, len(table.encoder.owner))
            model = fit_model(
                table,
                TrainingPlan(max_steps=self.max_steps, max_time=self.max_time),
                denoiser=recipe(self.denoiser),
                validation_fraction=self.validation_fraction,
                schedule=self.schedule,
                n_evaluations=self.n_evaluations,
                device=device,
                seed=seed,
                start=watched.start,
                share=watched.share,
                checkpoint=saved,
                progress=lambda done, latest: watched.show(done, latest.valid_nats),
            )
        # nothing is assigned before all has succeeded
        validate_data(self, shown, skip_check_array=True)
        self.model_, self._is_frame, self._is_polars = model, is_frame, is_polars
        vars(self).pop("_grown", None)  # the counts of an earlier partial_fit
        if model.stopped == "interrupted":
            file = os.fspath(saved.path) if saved else ""
            again = f"; fit again with checkpoint={file!r} to go on" if saved else ""
            warn(f"training was interrupted: the model is the best so far{again}")
        elif saved is not None and saved is not checkpoint:
            saved.remove()
        return self

    def _checked_parameters(self) -> dict[str, Any]:
        """The constructor's parameters; ValueError or TypeError if one is invalid."""
        parameters = self.get_params(deep=False)
        recipe(self.denoiser)
        check_integer("max_steps", self.max_steps, 0)
        check_integer("n_evaluations", self.n_evaluations, 2)
        if self.max_time is not None:
            check_positive("max_time", self.max_time)
        check_share("validation_fraction", self.validation_fraction)
        if isinstance(self.column_types, Mapping):
            for name, spec in self.column_types.items():
                check_column_spec(name, spec)
        elif not isinstance(self.column_types, str | None):
            raise TypeError(
                f"column_types must be a mapping or one kind, got {self.column_types!r}"
            )
        elif self.column_types is not None and self.column_types not in KINDS:
            raise ValueError(
                f"column_types must be one of {KINDS} or a mapping, got {self.column_types!r}"
            )
        check_choice("missing", self.missing, MISSING)
        check_choice("handle_unknown", parameters["handle_unknown"], UNKNOWN)
        is_named = isinstance(self.schedule, str)
        if self.schedule not in PATHS if is_named else not hasattr(self.schedule, "snr"):
            error = ValueError if is_named else TypeError
            raise error(f"schedule must be one of {PATHS} or a schedule, got {self.schedule!r}")
        return parameters

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    encoder_: TableEncoder = _of_model("encoder")
    denoiser_: Denoiser = _of_model("denoiser")
    candidates_: pd.DataFrame | None = _of_model("candidates")
    history_: pd.DataFrame = _of_model("history")
    stopped_: str = _of_model("stopped")

    def marginal_contributions(self) -> pd.DataFrame:
        """Marginal contribution and cost of each member of a mixture of rows.

        Returns
        -------
        DataFrame, one line per member
            ``alone``, held-out nats per row of the member by itself; ``gain``, nats that the mixture loses without it
            when the weights are fitted again, and the ``stderr`` of that; its ``weight``; ``parameters``;
            ``fit_seconds``; ``microseconds`` of a scored row. Nats are of encoded rows, on the held-out rows to which
            the weights were fitted.

        Raises
        ------
        ValueError
            If the denoiser is no mixture of rows.
        """
        check_is_fitted(self)
        members = self.model_.members
        if not len(members):
            raise ValueError(
                "marginal_contributions() needs a mixture of rows: fit with denoiser='best' or a list of recipes"
            )
        return members.copy()

    # -- saving ---------------------------------------------------------------------------------

    _parameter_classes = (*RECIPES, *SCHEDULES)

    def config(self) -> dict[str, Any]:
        present = self._checked_parameters()["handle_unknown"]
        return {**super().config(), "handle_unknown": present}

    def _check_loaded(self) -> None:
        self.model_.try_out()

    def _fitted_parts(self) -> list[Any]:
        return [self.model_.denoiser, self.model_.schedule]

    def _fitted_state(self) -> State:
        header, tensors = model_state(self.model_)
        forms = {"is_frame": self._is_frame, "is_polars": self._is_polars}
        own = {**forms, "has_names": hasattr(self, "feature_names_in_")}
        return {**own, "device": self.device, **header}, tensors

    def _restore(
        self,
        header: dict[str, Any],
        tensors: dict[str, Tensor],
        *,
        device: str,
        trusted: Iterable[type] = (),
    ) -> None:
        check_fields(header, {"is_frame": bool, "has_names": bool})
        self.model_ = model = model_from_state(header, tensors, resolve_device(device), trusted)
        self._is_frame, self._is_polars = header["is_frame"], header.get("is_polars") is True
        names = model.encoder.all_names
        self.n_features_in_ = len(names)
        if header["has_names"]:
            self.feature_names_in_ = np.asarray(names, dtype=object)

    # -- tables ---------------------------------------------------------------------------------

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags
