"""The scikit-learn face of the density: tables in, log-probabilities with error bars out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, Self, TypeVar, cast, overload

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.metaestimators import available_if as untyped_available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from discrete_itd.channel import Schedule
from discrete_itd.channel.posterior import Posterior
from discrete_itd.channel.rounded_numbers import NumberLines
from discrete_itd.channel.schedules import check_schedule
from discrete_itd.denoisers import Denoiser
from discrete_itd.devices import methods_in_one_thread, one_thread, resolve_device
from discrete_itd.encoders import (
    KINDS,
    MISSING,
    PRESENT,
    UNKNOWN,
    Rows,
    TableEncoder,
)
from discrete_itd.encoders.clock import Clock, Times
from discrete_itd.encoders.rows import RowEstimate, ignored, unique_rows
from discrete_itd.encoders.table import Encoded, column_specs
from discrete_itd.likelihood import squared_errors
from discrete_itd.likelihood.sampling import level_quantiles, of_column, point_predictions
from discrete_itd.models.auto import Name, recipe
from discrete_itd.models.fitting import Recipe, fit_model
from discrete_itd.models.held_out import read_table
from discrete_itd.models.information import log_prob_of
from discrete_itd.models.model import Model
from discrete_itd.progress import fit_progress, progress_bar
from discrete_itd.reading.frames import (
    Polars,
    Sample,
    as_polars,
    fill_cells,
    holds_text,
    in_kind,
    is_polars,
    plain,
    read_rows,
)
from discrete_itd.reading.text import quoted
from discrete_itd.recipes import RECIPES
from discrete_itd.storage.card import model_card
from discrete_itd.storage.values import SCHEDULES, Persistent
from discrete_itd.training import pilot_quadrature
from discrete_itd.training.loop import TrainingPlan
from discrete_itd.validation import (
    check_choice,
    check_integer,
    check_positive,
    check_share,
    seed_of,
    warn,
)

# floats that may be computed for the rows of a curve, unless the user says how many rows these are
CURVE_WORK = 1 << 34
ONE_VALUE = "given= takes one value (for a range or a rule, draw more rows and keep those that fit)"
INFORMATION_ROWS = 2000  # rows drawn from the model for an entropy or a mutual information


Method = TypeVar("Method")
Random = int | np.random.RandomState | None
Filling = Literal["median", "mean", "sample"]


def available_if(is_available: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """scikit-learn's decorator, which keeps the types of a method."""
    return cast(Any, untyped_available_if(is_available))


class Nats(NamedTuple):
    """An information in nats, with the standard error of the mean over rows."""

    value: float
    stderr: float


def _of_model(name: str) -> Any:
    def read(self: DiffusionDensity) -> Any:
        check_is_fitted(self)
        return getattr(self.model_, name)

    return property(read, doc=f"``model_.{name}``; see the attributes of the class.")


@dataclass(frozen=True)
class Learned:
    """State of a fitted density: its model, and the form of the table, a pandas or polars frame or an array."""

    model: Model
    is_frame: bool
    is_polars: bool
    has_names: bool


def _keeps_rows(estimator: DiffusionDensity) -> bool:
    """Whether all rows so far are known; AttributeError if not."""
    if hasattr(estimator, "model_") and "_grown" not in vars(estimator):
        raise AttributeError(
            "partial_fit continues what partial_fit began: of a model that was fitted by fit, or loaded, no rows are"
            " kept"
        )
    return True


def _has_categories(estimator: DiffusionDensity) -> bool:
    check_is_fitted(estimator)
    return any(c.has_masses for c in estimator.encoder_.schema)


@methods_in_one_thread
class DiffusionDensity(Persistent, DensityMixin, BaseEstimator):
    """Probability of the rows of a table, by information-theoretic diffusion.

    A denoiser is trained to predict clean rows from noisy ones. Its error, integrated over the noise levels, is the
    log-probability of the row: log-mass of the categories plus log-density of the continuous values, of the cells that
    are not missing.

    Parameters
    ----------
    column_types : mapping from column name to kind or options, or one kind for all columns, optional
        "nominal", "ordinal", "continuous", "clock" or "code", where it should not follow from the dtype
        (:mod:`discrete_itd.encoders`); or a mapping with "kind" and its options, like
        ``{"kind": "ordinal", "categories": ["S", "M", "L"]}``
        (:func:`discrete_itd.encoders.check_column_spec`); ``{"na": "k.A."}`` says which text is a missing cell.
        Integers of a numpy array are nominal codes unless there are more than 256 distinct ones.
    missing : {"auto", "marginalise", "category"}, default="auto"
        A missing cell (NaN, None, NA, NaT) is left out of the row's score, summed out ("marginalise"); or, in columns
        with missing cells in the training table, "absent" is a value with a probability of its own, given which other
        columns have others ("category"). By default it is a value of the columns whose gaps can be predicted from
        another column's cells or gaps by more than two standard errors of held-out nats (21);
        ``encoder_.describe()`` says which.
    handle_unknown : {"smooth", "error"}, default="smooth"
        A category not seen in training gets a small probability; or raises ValueError. A boolean column knows only
        False and True and raises for anything else.
    denoiser : str, recipe or list of these, default="auto"
        What is fitted. "auto" is the cheapest of several models whose held-out nats are within a standard error of the
        best; ``candidates_`` lists them. "best" takes the time that ``max_time`` allows for the lowest nats. "causal"
        is a network that scores a row by one call, "network" one that conditions on all columns and scores along a
        path. "independent", "tree", "bayes_net", "forest" and "mixture" (of products) are exact
        models. "row_mixture", or a list, is a mixture of several. Recipes of :mod:`discrete_itd.recipes` set sizes,
        like ``Causal(width=64)`` or ``[BayesNet(), Mixture(256)]``.
    max_steps : int, default=6000
        Optimiser steps of a network at most; training stops earlier when the held-out rows stop improving. With 0,
        "auto" and "best" train neither a network nor a mixture, and "mixture" is refused. Steps of a mixture are
        bounded by its recipe, ``Mixture(max_steps=...)``.
    max_time : float, optional
        Seconds of the whole fit; of a :class:`DiffusionOutlierDetector`, calibration included, which scores a random
        sample of its calibration rows where time is short: at least 256 and 1 / rate of them. What has no time
        for enough steps to be judged is not begun. Not bounded are reading a table and a single step.
    validation_fraction : float, default=0.1
        Share of the rows, or of the ``groups`` given to ``fit``, held out to stop training and to weigh members.
    schedule : Schedule, optional
        The order in which noise is removed along a path, on whose noise a "network" trains mostly. By default columns
        become known one after another, a ``CoordinateSchedule``.
    n_evaluations : int, default=128
        Denoiser evaluations per row that is scored along a path (by a "network"), divided into steps and at least two
        paths.
    device : str, default="auto"
        A torch device; "auto" is CUDA if there is one.
    random_state : int, RandomState or None, default=None
        Determines the fit and, once fitted, every score; not which rows are held out.

    Attributes
    ----------
    model_ : Model
        The fitted model at the level of tensors: encoder, denoiser, schedule, device and seed.
        ``model_.companion`` is an exact model beside one that scores complete rows only: it proposes values where
        several cells are unknown, and answers where cells are half known (``information``). ``model_.stopped`` is
        "max_time" if the time ended anything, or left no time for it; "interrupted" by Ctrl-C; else why the training of
        the chosen model ended: "max_steps", "no improvement", "diverged", or "exact" if it was not trained.
    encoder_ : TableEncoder
        The schema of the table; ``encoder_.describe()`` is a table of it.
    denoiser_ : Denoiser
    candidates_ : DataFrame or None
        The models that were compared: held-out nats in closed form, how far ``behind`` the best and the standard error
        of this, multiply-adds per row scored (``work``), seconds of the fit, which was ``chosen``. ``weight`` is a
        member's weight in a chosen mixture of rows, ``share`` its share in the anomaly score of a detector.
    history_ : DataFrame
        One line per validation: step, seconds, train_nats, train_stderr, valid_nats, valid_stderr, in nats per encoded
        row (without ``log_volume``). With several networks, the history of the first one.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    The model defines a normalised probability over all rows; a score, in nats, depends on the row and the fitted model
    only. A closed form has no error. Along paths, a score is a Monte-Carlo estimate that is too low in expectation, for
    anomalies by more than its standard error says; a larger ``n_evaluations`` raises it.

    Rows are taken for independent draws from one distribution. Where several are of one customer, or copies of one
    record, say so by ``groups``: otherwise held-out rows are too much like training rows, and the model fits these too
    closely.

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
    # whether the training table was a frame: then columns of frames are found by name; and a polars frame
    _is_frame: bool
    _is_polars: bool
    _grown: Sample  # of partial_fit

    def __init__(
        self,
        *,
        column_types: Mapping[Any, Any] | str | None = None,
        missing: Literal["auto", "marginalise", "category"] = "auto",
        handle_unknown: Literal["smooth", "error"] = "smooth",
        denoiser: Name | Recipe | Sequence[Name | Recipe] = "auto",
        max_steps: int = 6000,
        max_time: float | None = None,
        validation_fraction: float = 0.1,
        schedule: Schedule | None = None,
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

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : DataFrame, array-like or iterable of frames, shape (N, C)
            A pandas frame, a table of another library that narwhals knows (polars, pyarrow, DuckDB, Dask, ...; a lazy
            one is collected), or an array. Of more rows than memory holds, frames or record batches of Arrow, one after
            another: they are read once, and a uniform sample of at most 400 000 rows is fitted to.
        y : ignored
        groups : array-like of hashable labels, shape (N,), optional
            What each row of a table in memory belongs to, like a customer. The rows of a group are held out together.

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter that is invalid. A model fitted before stays usable.

        Warns
        -----
        UserWarning
            If Ctrl-C or ``max_time`` ended the fit or a part of it: the model is the best so far. If a stream has more
            rows than are fitted to.
        """
        self._checked_parameters()
        seed = seed_of(self.random_state)
        device = resolve_device(self.device)
        with fit_progress(self.max_time) as watched:
            read = read_table(X, self, groups=groups, seed=seed, device=device)
            if self.schedule is not None:
                check_schedule(self.schedule, len(read.encoder.owner))
            model = fit_model(
                read.encoder,
                read.rows,
                TrainingPlan(max_steps=self.max_steps, max_time=self.max_time),
                denoiser=recipe(self.denoiser),
                schedule=self.schedule,
                n_evaluations=self.n_evaluations,
                seed=seed,
                deadline=watched.deadline.part(watched.share),
            )
        # nothing is assigned before all has succeeded
        validate_data(self, read.shown, skip_check_array=True)
        self.model_, self._is_frame, self._is_polars = model, read.is_frame, read.is_polars
        vars(self).pop("_grown", None)  # the rows of an earlier partial_fit
        if model.stopped == "interrupted":
            warn("training was interrupted: the model is the best so far")
        return self

    @available_if(_keeps_rows)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from more rows: a fit to all rows so far, or to a uniform sample of 400 000 of them.

        Not after ``fit`` or ``load``, which keep no rows: AttributeError.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        y : ignored

        Raises
        ------
        ValueError, TypeError
            As :meth:`fit`; these rows are not learned then.
        """
        sample: Sample | None = copy.deepcopy(vars(self).get("_grown"))
        frame, is_frame = read_rows(X, self)
        if sample is None:
            sample = Sample(seed_of(self.random_state))
        else:
            shown: Any = frame if is_frame else X
            validate_data(self, shown, skip_check_array=True, reset=False)
        sample.add(frame)
        rows = sample.rows()
        self.fit(as_polars(rows) if is_polars(X) else rows if is_frame else rows.to_numpy())
        self._grown = sample
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
        types = self.column_types
        if isinstance(types, str):
            check_choice("column_types", types, (*KINDS,))
        else:
            column_specs(types if isinstance(types, Mapping) else (), types)
        check_choice("missing", self.missing, MISSING)
        check_choice("handle_unknown", self.handle_unknown, UNKNOWN)
        if self.schedule is not None and not hasattr(self.schedule, "snr"):
            raise TypeError(f"schedule must be None or a schedule, got {self.schedule!r}")
        return parameters

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    encoder_: TableEncoder = _of_model("encoder")
    denoiser_: Denoiser = _of_model("denoiser")
    candidates_: pd.DataFrame | None = _of_model("candidates")
    history_: pd.DataFrame = _of_model("history")

    def model_card(self) -> str:
        """Model card of the fitted model, in Markdown: data, held-out nats, cost and limits.

        It names columns, but none of their values. ``save`` writes it beside the model.
        """
        check_is_fitted(self)
        return model_card(self)

    # -- questions about rows -----

    def rows(self, X: Any, *, ignore: Hashable | None = None) -> Rows:
        """Read and encode a table once, for several questions.

        Every other method takes the result in place of the table.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
            Rows of this model, or of one with an equal schema, are not encoded again. N may be 0: the answer is empty.
            Columns of a frame that the model does not know are ignored with a warning that names them.
        ignore : name (position, for an array) of a column, optional
            Its values are not read; they are summed out, and so is whether they are missing.

        Raises
        ------
        ValueError, TypeError
            Naming the column that is absent or holds a value that the model cannot take; or if X are Rows of a model
            with another schema.

        Warns
        -----
        UserWarning
            Naming the columns of unreadable cells, like "#REF!" in a column of numbers, with their text and number.
            Their values are summed out of every answer, and so is whether they are missing.
        """
        check_is_fitted(self)
        if isinstance(X, Rows):
            known = X.of(self.model_.encoder, self.model_.device)
            return known if ignore is None else known.without(ignore)
        frame, is_frame = read_rows(X, self, fewest=0)
        X = frame if is_frame else X
        by_name = is_frame and self._is_frame
        as_fitted = by_name and frame.columns.tolist() == self.model_.encoder.all_names
        if by_name and not as_fitted:
            for name in self.model_.encoder.names:
                if name not in frame.columns:
                    raise ValueError(f"column {name!r}: the model knows it, the table lacks it")
            known = self.model_.encoder.all_names
            extra = frame.columns.difference(known, sort=False)
            if len(extra):
                warn(ignored(extra, frame.columns))
                X = frame[frame.columns[frame.columns.isin(known)]]
            if self.model_.encoder.left_out:  # these may be absent
                given = [name for name in frame.columns if name in known]
                for column in self.model_.encoder.left_out:
                    if column.name not in given:
                        given.insert(column.position, column.name)
                X = pd.DataFrame(columns=pd.Index(given))
        if not as_fitted:
            validate_data(self, X, reset=False, skip_check_array=True)
        return Rows.read(
            frame,
            self.model_.encoder,
            is_frame=is_frame,
            by_name=by_name,
            device=self.model_.device,
            ignore=ignore,
        )

    def log_prob(
        self,
        X: Any,
        given: Iterable[Hashable] | None = None,
        *,
        estimator: str | None = None,
    ) -> RowEstimate:
        """Log-probability of each row, of the cells that are not missing, with its standard error.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        given : names (positions, for an array) of columns, optional
            Condition on these, where they are not missing: the result is log P(other columns | given), normalised on
            its own. An exact model gives the difference of two joint scores. Along paths, it is that difference if
            ``schedule`` is a ``CoordinateSchedule`` whose ``order`` starts with the given columns, and close to it
            otherwise. A model with a ``model_.companion`` gives the difference of its own two probabilities, each by
            importance sampling with the companion as the proposal, and exactly where one cell of a row is unknown (13).
        estimator : {"closed_form", "path", "integral", "marginal"}, optional
            By default in closed form, if there is one, else along paths (6). "integral" integrates the denoising error
            over the signal-to-noise ratio, eq. (4), with ``n_evaluations`` noise levels a row. A model with a closed
            form gives the same number in every way that it has; the guide has a table. Where columns follow from
            others, a closed form is all it has. By default, gaps
            in columns that had none in training, or whose gaps carried information, are summed out of a model with a
            companion: a single one of few categories by its values, others by four draws, with their ``stderr``;
            "closed_form" scores them as a network does that has not learned of them. "marginal" sums out all gaps by
            ``n_evaluations`` draws. With ``given``, a model with a companion has "marginal", its own, and by any other
            name the companion's.

        Returns
        -------
        RowEstimate
            ``log_prob`` and ``stderr``, float64 arrays of shape (N,), nats. ``log_prob`` plus or minus 1.96 ``stderr``
            is a 95 % interval for the log-probability under the model, for rows like the training rows; for anomalies
            it covers less often (see the notes of the class). It does not measure how well the model fits.

        Raises
        ------
        ValueError, TypeError
            As :meth:`rows`; or if the model does not have the estimator, naming those that it has.
        """
        rows, log_volume, found, _ = self._asked("score", X, given, estimator=estimator)
        log_prob, stderr = (t.cpu().numpy()[rows.inverse] for t in (found.log_prob, found.stderr))
        return RowEstimate(log_prob + log_volume.sum(1), stderr)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-probability of each row: float64, shape (N,), nats; higher is more typical."""
        return self.log_prob(X).log_prob

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-probability per row, in nats, as of scikit-learn's mixtures; NaN without rows."""
        scores = self.score_samples(X)
        return float(scores.mean()) if len(scores) else math.nan

    @in_kind
    def explain(self, X: Any, given: Iterable[Hashable] | None = None) -> pd.DataFrame:
        """Surprisal of each row in nats, split by column.

        Parameters
        ----------
        X, given
            As in :meth:`log_prob`.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. A row sums to minus its log-probability. The share of a column is its surprisal given
            columns before it. A model with a closed form takes the columns in an order of its own
            (:meth:`~discrete_itd.denoisers.Denoiser.log_factors`): in a Bayesian network or a tree, each is given its
            parents; columns that follow from others come last.
            Another model, or a question with ``given``, takes what the path has revealed, averaged over paths;
            then the share depends on the schedule, and two columns that determine each other share the surprisal of
            both. With ``given``, a model with a companion answers by the companion: it takes the other columns in one
            order, and a row sums to minus ``log_prob(X, given, estimator="closed_form")``. A missing or given cell has
            none: NaN.
        """
        rows, log_volume, split, mask = self._asked("explain", X, given)
        nats = split.surprisal.cpu().numpy()[rows.inverse] - log_volume
        if mask is not None:
            nats[:, mask.cpu().numpy()] = math.nan
        return rows.table(rows.by_column(nats))

    def entropy(
        self,
        columns: Hashable | Iterable[Hashable] | None = None,
        given: Hashable | Iterable[Hashable] | None = None,
        *,
        X: Any = None,
        n_rows: int = INFORMATION_ROWS,
        random_state: int | np.random.RandomState | None = None,
    ) -> Nats:
        r"""Entropy of some columns, :math:`H(A | C)`, nats, ± the error of a mean over rows drawn from *this* model.

        Held-out rows ``X=`` ask about the table. It is the mean of :math:`-\log P(a | c)` under a model whose marginals
        are exact: the one that scores, or its ``model_.companion``, if it has one, in either case without the
        equations of columns that follow from others (``model_.plain``).

        Parameters
        ----------
        columns : name (position, for an array) of a column, or several, optional
            The columns A; by default all that are not ``given``. The others are unknown.
        given : names, optional
            The columns C to condition on.
        X : DataFrame or array-like, shape (N, C), or Rows, optional
            The rows whose mean is taken: of held-out rows it is a cross-entropy, an upper bound of the entropy of
            their distribution in expectation. Rows without any cell of A, or of C, are left out; of others, single
            missing cells. By default, ``n_rows`` drawn from the model that answers: its own entropy.
        n_rows : int
        random_state : int, RandomState or None
            Of the draws.

        Returns
        -------
        Nats
            ``value`` and ``stderr``, the standard error of the mean over rows: neither how well the model fits, nor
            that equal rows share the error of an estimate along paths. With continuous columns, the entropy of a
            density, in the units of the table, which may be negative.

        Raises
        ------
        ValueError
            Naming a column that the model does not have, or that is both asked about and given; or for fewer than two
            rows.
        """
        rows = self._rows_or_draws(X, n_rows, random_state)
        _, of, known = _roles(rows, {"columns": columns, "given": given})
        rows = _with_cells(rows, of, known)
        found = log_prob_of(self.model_, rows.x, of, known, self.n_evaluations)
        return _mean(-found - rows.log_volume[:, of.cpu().numpy()].sum(1))

    def mutual_information(
        self,
        about: Hashable | Iterable[Hashable],
        of: Hashable | Iterable[Hashable] | None = None,
        given: Hashable | Iterable[Hashable] | None = None,
        *,
        X: Any = None,
        n_rows: int = INFORMATION_ROWS,
        random_state: int | np.random.RandomState | None = None,
    ) -> Nats:
        r"""Mutual information of columns, nats, ± the error of a mean over rows drawn from *this* model.

        Held-out rows ``X=`` ask about the table. It is :math:`I(A; B | C) = E \log P(b | a, c) / P(b | c)` under the
        model of :meth:`entropy`. With the same rows, the chain rule :math:`I(A, A'; B) = I(A; B) + I(A'; B | A)` of an
        exact model holds to rounding.

        Parameters
        ----------
        about : name (position, for an array) of a column, or several
            The columns A.
        of : names, optional
            The columns B; by default all that are neither ``about`` nor ``given``. The others are unknown.
        given, X, n_rows, random_state
            As in :meth:`entropy`. With held-out rows ``X``, it is the decrease of the code length of B by A.

        Returns
        -------
        Nats
            ``value`` and ``stderr``, as in :meth:`entropy`; a small value may be below zero by chance.

        Raises
        ------
        ValueError
            As of :meth:`entropy`.

        References
        ----------
        Yu, Shi, Kong, Jia, Ver Steeg, "MMG: mutual information estimation via the MMSE gap in diffusion", NeurIPS 2025,
        arXiv:2509.20609; Kong, Liu, Li, Yogatama, Ver Steeg, "Interpretable diffusion via information decomposition",
        ICLR 2024, arXiv:2310.07972: the gap of two integrals (3), with and without the informing columns.
        """
        rows = self._rows_or_draws(X, n_rows, random_state)
        informing, informed, known = _roles(rows, {"about": about, "of": of, "given": given})
        rows = _with_cells(rows, informing, informed, known)
        with_about, without = (
            log_prob_of(self.model_, rows.x, informed, given, self.n_evaluations)
            for given in (informing | known, known)
        )
        return _mean(with_about - without)

    def _rows_or_draws(self, X: Any, n_rows: int, random_state: Any) -> Rows:
        """The rows of a table, or drawn ones."""
        check_is_fitted(self)
        if X is None:
            check_integer("n_rows", n_rows, 2)
            seed = seed_of(random_state)
            X = drawn_rows(self, self.model_.of_any_columns, int(n_rows), seed)
        return self.rows(X)

    def mse_curve(self, X: Any, *, n_points: int = 49, max_rows: int | None = None) -> pd.DataFrame:
        r"""Denoising error at each SNR; the area under the curve is the code length.

        Of a network that conditions columns on those before them in an order, the error at an SNR is the sum over
        columns, each at this SNR with the columns before it known. A mixture of rows with such a member has no curve of
        its own: then the curve is computed for the ``model_.companion``, which does not score rows.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        n_points : int
            SNRs, evenly spaced on a logarithmic scale.
        max_rows : int, optional
            The first ``max_rows`` rows are used: by default 1 000, or fewer, at least 16, of a model that computes very
            many numbers for the posterior of a noisy row, like a forest.

        Returns
        -------
        DataFrame, shape (n_points, 4)
            logsnr; mse, the mean of :math:`\|x - \hat x\|^2`; its standard error; and mse_independent, the same for
            independent columns. For a table of categories, the integral of snr * mse / 2 over logsnr is the mean of
            -log P in nats; with continuous columns, the area between the two curves is the gain over independent
            columns. ``attrs["model"]`` is the class of the denoiser, ``attrs["scores_rows"]`` whether it is
            ``denoiser_`` and scores rows by itself, without equations of columns that follow from others, and
            ``attrs["is_mass"]`` whether all columns are categories.
        """
        check_integer("n_points", n_points, 2)
        rows, model = self.rows(X), self.model_
        if max_rows is None:
            # noisy evidence is weighed by all numbers of the model
            work = model.curved.row_work + model.curved.n_parameters
            max_rows = max(16, min(1000, CURVE_WORK // (n_points * work)))
        check_integer("max_rows", max_rows, 2)
        x = rows.x[:max_rows]
        if len(x) < 2:
            raise ValueError("a curve with error bars needs at least two rows")
        generator = torch.Generator(model.device).manual_seed(model.seed)
        low, high = pilot_quadrature(model.marginals, x, generator).edges[[0, -1]].tolist()
        logsnr = torch.linspace(low, high, n_points, dtype=torch.float64)
        noise, denoiser = torch.Generator().manual_seed(model.seed), model.curved
        own, independent = squared_errors(
            (denoiser, model.marginals), x, logsnr.exp(), generator=noise,
            batch_size=model.posteriors_at_once(denoiser),
        )  # fmt: skip
        columns = {
            "logsnr": logsnr,
            "mse": own.mean(1),
            "stderr": own.std(1) / math.sqrt(len(x)),
            "mse_independent": independent.mean(1),
        }
        curve = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
        curve.attrs["model"] = type(denoiser).__name__
        curve.attrs["scores_rows"] = denoiser is model.scorer
        curve.attrs["is_mass"] = all(c.has_masses for c in self.encoder_.schema)
        return curve

    def _asked(
        self, what: str, X: Any, given: Any, **how: Any
    ) -> tuple[Rows, np.ndarray, Any, Tensor | None]:
        """The rows, the log-volumes of the cells asked for, the answer for the distinct rows, and the given columns."""
        rows = self.rows(X)
        check_integer("n_evaluations", self.n_evaluations, 2)
        mask, volume = _mask(rows, given, "given"), rows.log_volume
        if mask is not None:
            volume = np.where(mask.cpu().numpy(), 0.0, volume)
        # kept by the rows, so not made in the mode below
        x, model = rows.unique, self.model_
        ask = model.log_prob if what == "score" else model.attribution
        with torch.inference_mode(), progress_bar(len(x), what) as bar:
            found = ask(x, self.n_evaluations, progress=bar.update, given=mask, **how)
        return rows, volume, found, mask

    # -- draws -----

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        given: Mapping[Any, Any] | pd.Series | pd.DataFrame | None = None,
        missing: Literal["as_trained", "none"] = "as_trained",
    ) -> pd.DataFrame | Any:
        """Draw rows from the model.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
            None draws anew at every call.
        given : mapping, Series or frame of one row, optional
            One value of each of some columns; the others are drawn given these, and so are missing ones. A category
            that was not seen in training is a ValueError. For a range or a rule, draw more rows and keep those that
            fit; also for a rule that holds in every training row, as it holds in nearly all drawn rows.
        missing : {"as_trained", "none"}
            Whether cells are missing as often as in the training table, or rows are complete. As trained, gaps that are
            a value of their column are drawn by the model, and are filled as by :meth:`impute` with
            ``method="sample"`` where none are wanted; of another column they are where they happen to be. Given cells
            stay.

        Returns
        -------
        DataFrame or ndarray, shape (n_samples, C)
            With the fitted names and dtypes, and numbers and dates as text where the training table wrote them so; a
            polars frame or an array if one was fitted. Never a category unseen in training. Numbers have as many
            decimals as in training, up to six. Where the numbers of a continuous column repeat, it is one that was
            seen; in other columns, draws next to a value with 20 training rows or more become this value, where hardly
            any training rows have others. A column that follows from others does so as often as in training; what a
            given one follows from is drawn so that it does, where it has such a number.
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        check_choice("missing", missing, ("as_trained", "none"))
        seed = seed_of(random_state)
        drawn = drawn_rows(self, self.model_, int(n_samples), seed, given, missing)
        if missing == "none" and any(column.absent for column in self.model_.encoder.schema):
            return self._filled(self.rows(drawn), "sample", seed)
        return drawn

    @overload
    def impute(
        self, X: pd.DataFrame, *, method: Filling = ..., random_state: Random = ...
    ) -> pd.DataFrame: ...

    @overload
    def impute(self, X: Polars, *, method: Filling = ..., random_state: Random = ...) -> Polars: ...

    @overload
    def impute(self, X: Any, *, method: Filling = ..., random_state: Random = ...) -> Any: ...

    @in_kind
    def impute(
        self,
        X: Any,
        *,
        method: Filling = "median",
        random_state: Random = None,
    ) -> Any:
        """Fill missing cells by their conditional distribution given the other cells of the row.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        method : {"median", "mean", "sample"}
            "median" and "mean" fill each cell by itself: a number or time with the median or the mean of its
            distribution, which have the least expected absolute and squared error, and a category with the most
            probable one. It is a number as in training: of as many decimals, the nearest one seen where numbers repeat.
            "sample" draws all missing cells of a row together. A cell that follows from others, or that another one
            follows from, has the number with which it does, by "sample" with its probability. Of other cells, one gap
            in a row, beside gaps in columns that had some in training, is filled by the model that scores; several by
            the ``model_.companion``, if there is one.
        random_state : int, RandomState or None
            Of "sample", which draws anew at every call without one.

        Returns
        -------
        DataFrame or ndarray, shape (N, C)
            X without missing cells, but for columns that had no values in training; other cells, and columns that the
            model does not know, are unchanged. Here as everywhere, a polars frame gets a polars frame.
        """
        rows = self.rows(X)
        check_choice("method", method, ("median", "mean", "sample"))
        seed = seed_of(random_state) if method == "sample" else 0
        return self._filled(rows, method, seed)

    def _filled(self, rows: Rows, method: str, seed: int = 0) -> pd.DataFrame | np.ndarray:
        """The table with its missing cells filled, each by itself, or by a joint draw."""
        model, encoder, rng = self.model_, rows.encoder, None
        x = rows.x.clone()
        indicators = [
            p for j in range(encoder.n_columns) if (p := encoder.indicator_of(j)) is not None
        ]
        x[:, indicators] = PRESENT  # a filled cell is present
        empty = torch.from_numpy(rows.is_missing).to(x.device)
        x[:, : encoder.n_columns].masked_fill_(empty, math.nan)
        incomplete = x[torch.nonzero(empty.any(1)).flatten()]
        if method == "sample":
            x, rng = model.draw(incomplete, seed), np.random.default_rng(seed)
            self._with_values(x, x, rng)
        else:
            numbers = {j: c for j, c in enumerate(encoder.schema) if c.is_number}
            units = {j: (c.to_numbers, c.from_numbers) for j, c in numbers.items()}
            denoiser = model.plain.conditional
            x = point_predictions(
                denoiser, incomplete, ordered=numbers, means=units if method == "mean" else None,
                batch_size=model.posteriors_at_once(denoiser),
            )  # fmt: skip
            self._with_values(x, incomplete)
        clock, x = None, x.cpu().numpy()
        if rows.clock is not None:
            lacking = rows.take(rows.is_missing.any(1))
            clock = encoder.near_clock(lacking.frame, cast(np.ndarray, lacking.clock), x)
        filled = encoder.inverse_transform(x, rng=rng, settled=True, clock=clock)
        if encoder.related.relations and len(filled):
            some = rows.is_missing.any(1)
            known = cast(pd.DataFrame, rows.frame[some])
            filled = encoder.related.settled(filled, rows.is_missing[some], rng, known)
        frame, filled = rows.given.assign(), filled.assign()
        for column in encoder.text_columns(frame):  # text stays text
            name = column.name
            filled[name] = column.as_text(cast(pd.Series, filled[name]))
            if not holds_text(cast(pd.Series, frame[name])):
                frame[name] = frame[name].astype(column.text_dtype)
        return rows.as_given(fill_cells(frame, empty.cpu().numpy(), filled))

    def _with_values(
        self, x: Tensor, known: Tensor, rng: np.random.Generator | None = None
    ) -> None:
        """Replace levels of missing cells in rows ``x`` (N, C') by categories, given the other cells of ``known``.

        The most probable ones, or with ``rng`` drawn ones.
        """
        for j, column in enumerate(self.model_.encoder.schema):
            rows = torch.nonzero(x[:, j] == column.absent_level).flatten()
            if not len(rows):
                continue
            log_p = self._distribution(known[rows], j)[:, : int(column.absent_level)]
            if rng is not None:
                u = torch.from_numpy(rng.random((len(rows), 1))).to(x.device)
                cdf = log_p.softmax(1).cumsum(1)
                x[rows, j] = (cdf <= u * cdf[:, -1:]).sum(1).clamp_max(cdf.shape[1] - 1).to(x)
            else:
                x[rows, j] = log_p.argmax(1).to(x)

    def _conditional(self, x: Tensor, j: int, ask: Callable[[Posterior], Tensor]) -> Tensor:
        """Answers (N, n) of a function of posteriors of column j given the other cells of rows (N, C')."""
        denoiser, x = self.model_.conditional_of(x, j)
        return of_column(denoiser, x, j, ask, batch_size=self.model_.posteriors_at_once(denoiser))

    def _distribution(self, x: Tensor, j: int) -> Tensor:
        """Log-probabilities (N, K) of the levels of column j given the other cells of rows (N, C')."""
        return self._conditional(x, j, lambda q: q.column(j))

    def _others(self, X: Any, column: Hashable) -> tuple[int, Tensor, np.ndarray, Rows]:
        """Place of a column, the distinct rows without its cell, which is there, their places, and the rows of X."""
        encoder = self.encoder_
        j = encoder.place_of(column)
        rows = self.rows(X, ignore=column)
        x = rows.x.clone()
        indicator = encoder.indicator_of(j)
        if indicator is not None:
            x[:, indicator] = PRESENT
        x[:, j] = 0.0  # rows that differ in this cell alone are one
        return j, *unique_rows(x), rows

    @available_if(_has_categories)
    @in_kind
    @one_thread
    def predict_proba(self, X: Any, column: Hashable | None = None) -> pd.DataFrame:
        """Conditional distribution of one column given the other cells of each row, if the cell is not missing.

        The model that scores answers or, in rows with other gaps in columns that had none in training, its
        ``model_.companion``, if it has one.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
            The values of the column itself are not read, and may be missing.
        column : name (position, for an array) of a column, optional
            Nominal or ordinal; by default the last such column, where tables have their label.

        Returns
        -------
        DataFrame, shape (N, K)
            With the index of X; one column per category. Rows sum to one: they are conditional on the cell being
            present and one of these.
        """
        check_is_fitted(self)
        encoder = self.model_.encoder
        place = _categorical_column(encoder, column)
        j, unique, inverse, rows = self._others(X, encoder.names[place])
        values, level, share = encoder.schema[j].values()
        if encoder.schema[j].text_dtype is not None:
            values = pd.Index(encoder.schema[j].write(pd.Series(values)), dtype=object)
        probs = np.exp(self._distribution(unique, j).cpu().numpy())[:, level] * share
        probs /= probs.sum(1, keepdims=True)
        return pd.DataFrame(probs[inverse], index=rows.index, columns=values, copy=False)

    @in_kind
    def predict_quantiles(
        self, X: Any, column: Hashable, quantiles: float | Iterable[float] = (0.05, 0.5, 0.95)
    ) -> pd.DataFrame:
        """Quantiles of one column given the other cells of each row, if the cell is not missing.

        Parameters
        ----------
        X
            As in :meth:`predict_proba`.
        column : name (position, for an array) of a column
            Of numbers or times, or ordinal.
        quantiles : float or iterable of n floats, between 0 and 1

        Returns
        -------
        DataFrame, shape (N, n)
            With the index of X; one column per quantile. Values have the fitted dtype (for text, the numbers or times
            that it stands for) and are as in training: of as many decimals, the nearest one seen where numbers repeat.
            In a column whose gaps are a value, :meth:`log_prob` has the probability that the cell is missing: of the
            row with this cell missing, ``given`` all other columns.
            To about 1e-4, smaller values have at most probability q and larger ones at most 1 - q, among the values
            that :meth:`sample` draws given the other cells. No draw lies beyond an end of the training range that many
            rows share, or far beyond another, where :meth:`predict_log_density` leaves some probability.
        """
        j, unique, inverse, rows = self._others(X, column)
        own = self.model_.encoder.schema[j]
        if not own.is_ordered:
            raise ValueError(
                f"column {column!r}: {own.kind}, so it has no quantiles; predict_proba has its probabilities"
            )
        named = [quantiles] if isinstance(quantiles, float | int) else list(quantiles)
        if not named:
            raise ValueError("quantiles must be at least one")
        at = torch.tensor([check_share("quantiles", q) for q in named], dtype=torch.float64)
        if not own.has_levels:
            cells = self._conditional(unique, j, lambda q: q.number(j).quantiles(at))
        else:
            seen = self._distribution(unique, j)[:, : own.points.n_levels]
            cells = level_quantiles(seen, at)
        of_quantiles = cells.cpu().numpy()[inverse].T
        start = rows.encoder.start_of(j, rows.clock)
        values = [
            own.decode(x, settled=True, start=start).set_axis(rows.index) for x in of_quantiles
        ]
        return pd.concat(values, axis=1, keys=named)

    @in_kind
    def predict_log_density(self, X: Any, column: Hashable, values: Any) -> pd.DataFrame:
        """Log-density of values of one column given the other cells of each row, if the cell is not missing.

        At the value of the row itself it is ``log_prob(X, given=...)`` with all other columns given, of a network with
        a ``model_.companion`` to some hundredths of a nat.

        Parameters
        ----------
        X
            As in :meth:`predict_proba`.
        column : name (position, for an array) of a column
        values : array-like, shape (V,)
            As the column is written; none of them missing.

        Returns
        -------
        DataFrame, shape (N, V)
            With the index of X; one column per value. Nats: log-probabilities of categories and whole numbers, of other
            numbers log-densities per unit, of times per second. A value never seen has a share of the probability of
            new ones.
        """
        j, unique, inverse, rows = self._others(X, column)
        own, wanted, encoder = self.model_.encoder.schema[j], pd.Series(values), rows.encoder
        if encoder.times is not None and j in (encoder.times.clock, *encoder.times.since):
            clock = encoder.names[encoder.times.clock]
            if clock == column:
                given = cast(Clock, own.codec).given
                what = (
                    f"the clock, whose {given} is given and has no probability: see predict_proba"
                )
            else:
                what = f"counted from {clock!r}, so that one value is another cell in each row: see predict_quantiles"
            raise ValueError(
                f"column {column!r}: {what}, or fit with column_types={{{column!r}: 'continuous'}}"
            )
        cells, log_volume, _ = own.encode(wanted)
        if (np.isnan(cells) | (cells == own.absent_level)).any():
            raise ValueError(f"column {column!r}: values must not be missing")
        at = torch.from_numpy(cells).to(unique.device)
        if not own.has_levels:
            numbers = NumberLines([own.points.line]).cells(at[:, None])
            log_p = self._conditional(unique, j, lambda q: q.number(j).log_prob_at(numbers))
        else:
            log_p = self._distribution(unique, j)
            if own.absent_level >= 0:  # given that the cell is there
                log_p[:, int(own.absent_level)] = -math.inf
                log_p = torch.log_softmax(log_p, 1)
            log_p = log_p[:, at.long()]
        nats = log_p.cpu().numpy() + log_volume
        at_values = pd.Index(wanted.array)
        return pd.DataFrame(nats[inverse], index=rows.index, columns=at_values, copy=False)

    # -- saving ---------------------------------------------------------------------------------

    _learned_type = Learned
    _stored_classes = (*RECIPES, *SCHEDULES)

    @property
    def _learned(self) -> Learned:
        has_names = hasattr(self, "feature_names_in_")
        return Learned(self.model_, self._is_frame, self._is_polars, has_names)

    @_learned.setter
    def _learned(self, found: Learned) -> None:
        self.model_ = found.model.to(resolve_device(self.device))
        self._is_frame, self._is_polars = found.is_frame, found.is_polars
        names = self.model_.encoder.all_names
        self.n_features_in_ = len(names)
        if found.has_names:
            self.feature_names_in_ = np.asarray(names, dtype=object)

    def _try_out(self) -> None:
        self.model_.try_out()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags


def drawn_rows(
    density: DiffusionDensity,
    model: Model,
    n: int,
    seed: int,
    given: Any = None,
    missing: str = "none",
) -> Any:
    """Rows drawn from a model with the encoder of a density, gaps that are values of their columns among them."""
    encoder = model.encoder
    start = torch.full((1, len(encoder.owner)), torch.nan, dtype=torch.float64)
    present = np.zeros(encoder.n_columns, bool)
    row = None if given is None else encoder.one_row(given)
    clock = None
    if row is not None:
        encoded = _known(row, encoder)
        cells, clock = encoded.cells.x, encoded.clock
        start = torch.from_numpy(cells)
        present = ~(np.isnan(cells[:, : encoder.n_columns]) | encoder.absent(cells))[0]
        present |= encoded.is_given[0] if encoded.is_given is not None else False
        start[:, ~present[encoder.owner]] = torch.nan
    cells = model.draw(start.expand(n, -1).to(model.device), seed).cpu().numpy()
    random = np.random.default_rng(seed)
    unclocked = np.zeros(n, bool)  # rows that lose their clock once other times are counted from it
    if missing == "as_trained":
        for j, column in enumerate(encoder.schema):
            if not column.absent and not present[j]:
                is_lost = random.random(n) < column.n_missing / max(1, column.n_rows)
                if column.kind == "clock":
                    unclocked = is_lost
                else:
                    cells[is_lost, j] = np.nan
    if row is not None and clock is not None:
        many = encoder.read(cast(pd.DataFrame, row.loc[row.index.repeat(n)].reset_index(drop=True)))
        clock = encoder.near_clock(many, clock.repeat(n), cells)
    frame = encoder.inverse_transform(cells, rng=random, clock=clock)
    if unclocked.any():
        name = encoder.names[cast(Times, encoder.times).clock]
        frame[name] = frame[name].mask(unclocked)
    if row is not None:  # the given values themselves, not the most frequent of a pool
        row = encoder.read(row)
        for name in row.columns[present]:
            value = row[name].repeat(len(frame)).set_axis(frame.index)
            with suppress(TypeError, ValueError, OverflowError):
                as_drawn = value.astype(frame[name].dtype)
                value = as_drawn if (as_drawn == value).all() else value
            frame[name] = value
    if encoder.related.relations:
        frame = encoder.related.settled(frame, frame.notna().to_numpy() & ~present, random)
    frame = encoder.write(frame)
    if not density._is_frame:
        return frame.to_numpy()
    return as_polars(frame) if density._is_polars else frame


def _known(row: pd.DataFrame, encoder: TableEncoder) -> Encoded:
    """The encoded row of given values; ValueError if one is none, or was not seen among the categories."""
    for name, cells in row.items():
        if not pd.api.types.is_scalar(cells.iloc[0]):
            raise ValueError(f"column {name!r}: got {cells.iloc[0]!r}; {ONE_VALUE}")
    try:
        encoded = encoder.encoded(row)
    except ValueError as error:
        raise ValueError(f"{error}; {ONE_VALUE}") from None
    for j, column in enumerate(encoder.schema):
        if (
            column.open and encoded.cells.x[0, j] == column.codec.n_levels
        ):  # of such rows the model knows nothing
            known = ", ".join(map(quoted, column.categories[:3]))
            hint = f"; known are, among others, {known}" if known else ""
            what = "category" if known and not column.is_number else "number"
            if column.kind == "code":
                what = "code"
                hint = f"; known begin, among others, like {known}" if "…" in known else hint
            raise ValueError(
                f"column {column.name!r}: unseen {what} {quoted(plain(row.iloc[0, j]))} in given={hint}"
            )
    return encoded


def _categorical_column(encoder: TableEncoder, column: Hashable | None) -> int:
    """Position of a column with a table of probabilities, by default the last; ValueError if it has none."""
    if column is None:
        return max(j for j, c in enumerate(encoder.schema) if c.has_masses)
    j = encoder.place_of(column)
    if not (own := encoder.schema[j]).has_levels:
        raise ValueError(
            f"column {column!r}: {own.kind}, so it has no table of probabilities; see predict_quantiles and"
            " predict_log_density, or fit pandas.cut(..., labels=[...]) of it"
        )
    return j


def _mask(rows: Rows, names: Any, parameter: str) -> Tensor | None:
    """Which internal columns belong to the named columns: bool, shape (C',); None if no column is named."""
    if names is None:
        return None
    if isinstance(names, str | int | np.integer) or not isinstance(names, Iterable):
        names = [names]
    wanted, encoder = list(names), rows.encoder
    places = [encoder.place_of(name, f"{parameter}=") for name in wanted]
    mask = np.isin(np.arange(encoder.n_columns), places)[encoder.owner]
    return torch.from_numpy(mask).to(rows.x.device) if wanted else None


def _roles(rows: Rows, named: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Internal columns (C',) that inform (``about``), are asked for (by default all others), and are given.

    ``named`` are the parameters with the names of columns, in this order, ``about`` first if there is one.
    """
    nothing = torch.zeros(rows.x.shape[1], dtype=torch.bool, device=rows.x.device)
    found = {name: _mask(rows, columns, name) for name, columns in named.items()}
    *about, asked, given = found
    for name, mask in found.items():
        if name != given and mask is None and (name in about or named[name] is not None):
            raise ValueError(f"{name} names no column")
    masks = {name: nothing if mask is None else mask for name, mask in found.items()}
    if named[asked] is None:
        masks[asked] = ~torch.stack(list(masks.values())).any(0)
        if not bool(masks[asked].any()):
            raise ValueError(f"{' and '.join([*about, given])} name all columns: none is left")
    for one, two in combinations(masks, 2):
        for j in torch.nonzero(masks[one] & masks[two]).flatten().tolist():
            column = rows.encoder.names[rows.encoder.owner[j]]
            raise ValueError(f"column {column!r}: in {one}= and in {two}=")
    return masks.get("about", nothing), masks[asked], masks[given]


def _with_cells(rows: Rows, *roles: Tensor) -> Rows:
    """The rows that have a cell of each role (C',) with columns, a gap with an indicator too: at least two."""
    known = ~rows.x.isnan()
    there = [known[:, role].any(1) for role in roles if bool(role.any())]
    found = rows.take(torch.stack(there).all(0).cpu().numpy())
    if len(found) < 2:
        with_cells = " with these cells" if len(rows) > len(found) else ""
        raise ValueError(
            f"X has {len(found)} rows{with_cells}; a mean with a standard error needs two"
        )
    return found


def _mean(nats: np.ndarray) -> Nats:
    """The mean over rows (N,), with its standard error."""
    return Nats(float(nats.mean()), math.sqrt(nats.var(ddof=1) / len(nats)))
