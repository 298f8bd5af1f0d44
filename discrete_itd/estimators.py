"""The scikit-learn face: tables in, log-probabilities with error bars out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, Self, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from discrete_itd.channel import Schedule
from discrete_itd.denoisers import Denoiser
from discrete_itd.deprecation import renamed, renamed_parameters
from discrete_itd.encoders import PRESENT, Continuous, Rows, TableEncoder
from discrete_itd.encoders.frames import as_dtype, fill_cells, one_row, read_rows, unique_rows
from discrete_itd.likelihood import mse_curve
from discrete_itd.likelihood.information import pointwise_information
from discrete_itd.likelihood.sampling import best_guess, column_distribution
from discrete_itd.models.fitting import fit_model
from discrete_itd.models.model import EFFORT, Model
from discrete_itd.progress import progress_bar
from discrete_itd.recipes import recipe
from discrete_itd.storage import files
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Evaluation, TrainingPlan
from discrete_itd.training.objective import pilot_quadrature
from discrete_itd.validation import (
    check_integer,
    check_parameters,
    check_schedule,
    check_tolerance,
    check_weights,
    resolve_device,
)

BEYOND = 1.5  # times max_stderr; up to this, a standard error may be above it by chance


def _has_categories(model: DiffusionDensity) -> bool:
    """Whether a fitted model has a column with a table of probabilities."""
    return any(c.kind != "continuous" for c in model.encoder_.schema)


class RowEstimate(NamedTuple):
    """Log-probabilities with their standard errors: two float64 arrays of shape (N,), in nats."""

    log_prob: np.ndarray
    stderr: np.ndarray


@renamed_parameters(
    columns="column_types", unseen="handle_unknown", path="schedule", n_calls="n_evaluations"
)
class DiffusionDensity(DensityMixin, BaseEstimator):
    r"""Probability of the rows of a table, by information-theoretic diffusion.

    A network learns to guess clean rows from noisy ones; its error, summed over noise levels, is the row's
    log-probability: log-mass of the categories plus log-density of the continuous values, of what is not missing. A
    network that has learned nothing yet is exactly the model that it corrects: independent columns, or the ``base``
    of its recipe.

    Parameters
    ----------
    column_types : mapping from column name to kind or options, or one kind for all columns, optional
        "nominal", "ordinal", "continuous" or "binned", where it is not what the dtype says; or a mapping with "kind"
        and options of the kind, like ``{"kind": "binned", "edges": [0, 18, 65, 120]}``. See
        :mod:`discrete_itd.encoders` for what the dtypes say and :func:`discrete_itd.encoders.check_column_spec` for
        the options. Integers of a numpy array are codes, nominal, unless there are more than 256 of them.
    missing : {"marginalise", "category"}, default="marginalise"
        What a missing cell (NaN, None, NA, NaT) does: nothing, the score is the log-probability of the
        cells that are there; or, in the columns that have missing cells in training, "it is missing" is a value like
        others, whose probability counts.
    handle_unknown : {"smooth", "error"}, default="smooth"
        What a category never seen in training does: get a small probability of its own, or raise ValueError. A
        boolean column knows only False and True, and raises for anything else.
    denoiser : str, recipe or list of these, default="auto"
        What is fitted. "auto" is a network that corrects the one of independent columns, a Chow-Liu tree and a small
        Bayesian network that predicts held-out rows best, on large tables only if a short race against independent
        columns shows that it learns more from it; "mlp" and "transformer" say which network. "tree", "trees" (a
        mixture of trees), "bayes_net", "mixture" (of products, latent classes) and "independent" are exact and need no
        training. "ensemble", or a list, combines several with weights that depend on how much is known. Recipes of
        :mod:`discrete_itd.recipes` say sizes, like ``Network(width=128)`` or ``[Network(), Mixture(256)]``.
    max_steps : int, default=6000
        Optimiser steps of a network at most, those of races apart; training stops earlier when held-out rows stop
        improving. 0 leaves the exact denoiser that predicts held-out rows best.
    max_time : float, optional
        Seconds of training networks at most; fitting exact denoisers, weighing the members of an ensemble and choosing
        the path come on top.
    validation_fraction : float, default=0.1
        Share of the rows held out to stop training, to weigh members and to choose the path. Copies of a record (rows
        repeated by ``sample_weight`` or in the table) are held out together (:mod:`discrete_itd.models.splitting`).
    schedule : {"auto", "coordinate", "isotropic"} or Schedule, default="auto"
        How noise is taken away when a row is scored. "auto" takes what gives the fewest nats on held-out rows for
        ``n_evaluations``; said in advance, training keeps to the noise of that path.
    n_evaluations : int, default=128
        Network evaluations per scored row, split into steps and at least two paths.
    device : str, default="auto"
        A torch device; "auto" takes CUDA where there is one.
    random_state : int, RandomState or None, default=None
        Determines the fit and, once fitted, every score.

    Attributes
    ----------
    model_ : Model
        All that was learned, as the layer of tensors has it: schema, denoiser, path and noise.
    encoder_ : TableEncoder
        The schema of the table; ``encoder_.describe()`` prints it.
    denoiser_ : Denoiser
        The fitted denoiser.
    schedule_ : Schedule
        The path on which rows are scored.
    schedule_table_ : DataFrame
        The paths tried, with their held-out nats at about equal cost.
    history_ : DataFrame
        step, seconds, train_nats, train_stderr, valid_nats, valid_stderr; of the encoded cells, so without the
        change of unit of continuous columns. The first line is of independent columns. Of an ensemble, the training of
        its first network.
    stopped_ : str
        Why training ended: "max_steps", "max_time", "no improvement", "interrupted" or "diverged"; "exact" if there was
        nothing to train.
    device_ : torch.device
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    Scores are nats (natural logarithm), higher is more probable. The model defines a normalised probability over all
    rows; a score is a Monte-Carlo estimate of it, in expectation on the pessimistic side, and depends on nothing but
    the row and the fitted model. Paths disagree most on anomalies: few paths miss those that explain the row best, so
    its score is too low, sometimes by more than its standard error says; more ``n_evaluations`` raise it. A path of fixed
    orders (``schedule_table_`` calls it "spread") has no error with the ``n_evaluations`` of the fit: the model *is* the mixture
    of these orders.

    References
    ----------
    Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792; its
    estimator for discrete variables is eq. (3) of :mod:`discrete_itd.likelihood`, rows are scored by eq. (6) there.

    Examples
    --------
    >>> import pandas as pd
    >>> coin = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(max_steps=200, random_state=0).fit(coin)
    >>> ordinary, odd = model.score_samples(pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]}))
    >>> bool(ordinary > odd + 2)
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
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            The table as it is; a pandas frame, anything that turns into one (like a polars frame), or an array.
        y : ignored
        sample_weight : array-like of int, shape (N,), optional
            How often each row occurs: a fit with weights is a fit of the table with every row so often.
        checkpoint : path-like, optional
            A file in which training keeps its state every half minute. If it is there already, training goes on
            from it, to the result that it would have had; it is removed when the fit is complete.

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter, if something is wrong with it. A model fitted before stays usable.

        Warns
        -----
        UserWarning
            If training was interrupted (Ctrl-C): the model is the best so far.
        """
        check_parameters(self.get_params(deep=False))
        frame, is_frame = read_rows(X, self)
        validate_data(type(self)(), X, skip_check_array=True)  # names that scikit-learn refuses
        if len(frame) < 2:
            raise ValueError(f"n_samples=1: at least two rows are needed, got {len(frame)}")
        repeats = check_weights(sample_weight, len(frame))
        if repeats is not None:
            frame = frame.iloc[np.repeat(np.arange(len(frame)), repeats)]
        encoder = TableEncoder.fit(
            frame,
            self.column_types,
            handle_unknown=self.handle_unknown,
            missing=self.missing,
            from_array=not is_frame,
        )
        if not isinstance(self.schedule, str):
            check_schedule(self.schedule, len(encoder.owner))
        x = torch.from_numpy(encoder.transform(frame).x)
        x = x[~x.isnan().all(1)]
        if len(x) < 2:
            raise ValueError("at least two rows with a cell that is not missing are needed")
        device = resolve_device(self.device)
        kept = None if checkpoint is None else Checkpoint(checkpoint)
        bar_format = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        with progress_bar(1.0, "fit", bar_format) as bar:

            def show(done: float, latest: Evaluation) -> None:
                what = ", choosing the path" if done >= 1 else ""
                bar.set_postfix_str(f"{latest.valid_nats:.3f} nats held out{what}", refresh=False)
                bar.update(done - bar.n)
                bar.refresh()

            model = fit_model(
                encoder,
                x,
                TrainingPlan(max_steps=self.max_steps, max_time=self.max_time),
                denoiser=recipe(self.denoiser),
                validation_fraction=self.validation_fraction,
                schedule=self.schedule,
                n_evaluations=self.n_evaluations,
                device=device,
                random_state=self.random_state,
                checkpoint=kept,
                progress=show,
            )
        # nothing is assigned before all has succeeded
        validate_data(self, X, skip_check_array=True)
        self.model_, self._is_frame = model, is_frame
        if model.stopped == "interrupted":
            on = (
                ""
                if kept is None
                else f"; fit again with checkpoint={os.fspath(kept.path)!r} to go on"
            )
            warnings.warn(
                f"training was interrupted: the model is the best so far{on}", stacklevel=2
            )
        elif kept is not None:
            kept.remove()
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @property
    def _fitted(self) -> Model:
        check_is_fitted(self)
        return self.model_

    @property
    def encoder_(self) -> TableEncoder:
        """The schema of the table."""
        return self._fitted.encoder

    @property
    def denoiser_(self) -> Denoiser:
        """The fitted denoiser."""
        return self._fitted.denoiser

    @property
    def schedule_(self) -> Schedule:
        """The path on which rows are scored."""
        return self._fitted.schedule

    @property
    def schedule_table_(self) -> pd.DataFrame:
        """The paths tried, best first."""
        return self._fitted.path_table

    @property
    def history_(self) -> pd.DataFrame:
        """One line per evaluation of training."""
        return self._fitted.history

    @property
    def stopped_(self) -> str:
        """Why training ended."""
        return self._fitted.stopped

    @property
    def device_(self) -> torch.device:
        """Where the network lies."""
        return self._fitted.device

    def marginal_value(self) -> pd.DataFrame:
        """What each member of an ensemble is worth, and what it costs: whether one more model would pay.

        Returns
        -------
        DataFrame, one line per member
            ``alone``, its held-out nats per row by itself; ``gain``, the nats that the ensemble would lose without it,
            weights fitted anew, and their ``stderr``; its mean ``weight``; ``parameters``; ``fit_seconds``;
            ``call_ms``, milliseconds of a denoiser call of a thousand rows, and their ``call_share`` of the ensemble's;
            and ``denoiser_calls``, how many calls of this member score a row at most. Nats are of the encoded cells, on
            the rows held out, to which the weights were fitted, with noise of their own.

        Raises
        ------
        ValueError
            If the denoiser is no ensemble.
        """
        members = self._fitted.members
        if not len(members):
            raise ValueError(
                "marginal_value is of an ensemble: fit with denoiser='ensemble', or a list of recipes"
            )
        return members.assign(denoiser_calls=self.n_evaluations * (members["call_share"] > 0))

    # -- scoring --------------------------------------------------------------------------------

    @renamed(tol="max_stderr")
    def log_prob(
        self, X: Any, given: Iterable[Hashable] | None = None, *, max_stderr: float | None = None
    ) -> RowEstimate:
        """Log-probability of each row, with its standard error.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            The columns that were fitted. Missing cells are left out: the result is the log-probability of the others.
        given : names (positions, for an array) of columns, optional
            Condition on these, where they are not missing: the result is log P(other columns | given), a mass
            that is normalised on its own. It is exactly the difference of two joint scores if ``schedule`` is a
            ``CoordinateSchedule`` whose ``order`` starts with the given columns; else close to it, because a network's
            conditionals need not agree with one another.
        max_stderr : float, optional
            Nats. Rows whose standard error is larger get up to 16 times ``n_evaluations`` network evaluations. Half of these
            only decide how many the other half, which estimates, is to be: so masses still add up to one. The standard
            error returned is that of the estimating half, and may be somewhat above ``max_stderr`` by chance.

        Returns
        -------
        RowEstimate
            ``log_prob`` and ``stderr``, float64 arrays of shape (N,), nats. The interval of 1.96 ``stderr`` to both
            sides is meant to cover the model's own log-probability of a row like those of the fit with 95 %
            confidence; of rows on which paths disagree by many nats, as on many anomalies, less often: their
            ``log_prob`` is too low. It says nothing of how well the model fits.

        Raises
        ------
        ValueError, TypeError
            Naming the column, if it is missing from the table or holds what the model cannot take.
        """
        rows, log_volume, mask = self._asked(X, given)
        with progress_bar(len(rows.unique), "score") as bar:
            estimate = self.model_.log_prob(
                rows.unique,
                self.n_evaluations,
                max_stderr=check_tolerance(max_stderr),
                given=mask,
                progress=bar.update,
            )
        _warn_beyond(estimate.stderr, max_stderr)
        log_prob, stderr = (t.cpu().numpy()[rows.inverse] for t in estimate)
        return RowEstimate(log_prob + log_volume.sum(1), stderr)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-probability of each row: float64, shape (N,), nats; higher is more ordinary."""
        return self.log_prob(X).log_prob

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-probability per row, in nats, as scikit-learn's mixtures have it."""
        return float(self.score_samples(X).mean())

    @renamed(tol="max_stderr")
    def explain(
        self, X: Any, given: Iterable[Hashable] | None = None, *, max_stderr: float | None = None
    ) -> pd.DataFrame:
        """Why a row is odd: its surprisal in nats, split by column.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        given, max_stderr
            As of :meth:`log_prob`.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. Rows sum to minus the log-probability. A column's share is what it surprises
            with once the other columns have been heard, averaged over the path; a missing or given cell has none.
        """
        rows, log_volume, mask = self._asked(X, given)
        with progress_bar(len(rows.unique), "explain") as bar:
            split = self.model_.attribution(
                rows.unique,
                self.n_evaluations,
                max_stderr=check_tolerance(max_stderr),
                given=mask,
                progress=bar.update,
            )
        _warn_beyond(split.stderr, max_stderr)
        return rows.by_column(split.surprisal.cpu().numpy()[rows.inverse] - log_volume)

    def information(
        self, X: Any, about: Hashable | Iterable[Hashable], *, n_points: int = 64
    ) -> pd.DataFrame:
        r"""What some columns say about each of the others, row by row, in nats.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        about : name (position, for an array) of a column, or several
            The columns y that inform; where one of them is missing, it says nothing.
        n_points : int
            Noisy points per row, at least 4; each costs two network calls.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X; never negative, zero in the informing columns and in missing cells. Half the integral
            over all SNRs of the squared difference between the guesses that know y and that do not. For an exact
            model, the mean over rows of a row's sum is the mutual information of y with all others together.

        References
        ----------
        Kong et al., "Interpretable diffusion via information decomposition", ICLR 2024, arXiv:2310.07972.
        """
        check_integer("n_points", n_points, 4)
        rows, _, informing = self._asked(X, _several(about), "about")
        unique = rows.unique
        if informing is None:
            raise ValueError("about names no column")
        leading = self.denoiser_.codebook.leading & ~informing
        if bool((informing | leading).all()):
            raise ValueError("about names all columns: none is left to be informed")
        generator = torch.Generator(self.device_).manual_seed(self.model_.seed)
        quadrature = pilot_quadrature(self.model_.marginals, unique, generator)
        with progress_bar(len(unique), "information") as bar:
            nats = pointwise_information(
                self.denoiser_, unique, informing, quadrature, given=leading, n_points=n_points,
                generator=torch.Generator().manual_seed(self.model_.seed),
                batch_size=self.model_.batch_size, progress=bar.update,
            ).nats  # fmt: skip
        return rows.table(nats.cpu().numpy()[rows.inverse][:, : self.encoder_.n_columns])

    def mse_curve(self, X: Any, *, n_points: int = 49, max_rows: int = 1000) -> pd.DataFrame:
        r"""Denoising error at each SNR, whose area is the code length: what the model knows, and at which scale.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        n_points : int
            SNRs, evenly spaced on a logarithmic scale.
        max_rows : int
            The first so many rows are used.

        Returns
        -------
        DataFrame, shape (n_points, 4)
            logsnr; mse, the mean of :math:`\|x - \hat x\|^2`; its standard error; and mse_independent, the same for
            independent columns. For a table of categories, the integral of snr * mse / 2 over logsnr is the mean of
            -log P in nats; with continuous columns, the area between the two curves is what the model knows
            beyond independent columns.
        """
        check_integer("n_points", n_points, 2)
        check_integer("max_rows", max_rows, 2)
        x = self.rows(X).x[:max_rows]
        if len(x) < 2:
            raise ValueError("a curve with error bars needs at least two rows")
        seed = self.model_.seed
        generator = torch.Generator(self.device_).manual_seed(seed)
        low, high = pilot_quadrature(self.model_.marginals, x, generator).edges[[0, -1]].tolist()
        logsnr = torch.linspace(low, high, n_points, dtype=torch.float64)
        curves = [
            mse_curve(d, x, logsnr.exp(), generator=torch.Generator().manual_seed(seed))
            for d in (self.denoiser_, self.model_.marginals)
        ]
        (mse, stderr), (independent, _) = curves
        columns = {"logsnr": logsnr, "mse": mse, "stderr": stderr, "mse_independent": independent}
        return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})

    # -- filling --------------------------------------------------------------------------------

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        given: Mapping[Any, Any] | pd.Series | pd.DataFrame | None = None,
    ) -> pd.DataFrame | np.ndarray:
        """Draw rows from the model that is scored.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
            None draws anew at every call.
        given : mapping, Series or frame of one row, optional
            Values of some columns: rows are drawn with these, given these. Missing ones are drawn.

        Returns
        -------
        DataFrame or ndarray, shape (n_samples, C)
            With the fitted names and dtypes; an array if an array was fitted. Never a category unseen in training; with
            ``missing="category"``, cells are missing as often as in training.
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        encoder = self.encoder_
        start = torch.full((1, len(encoder.owner)), torch.nan, dtype=torch.float64)
        row = None
        if given is not None:
            row = one_row(given, encoder)
            start = torch.from_numpy(encoder.transform(row).x)
            present = ~start[:, : encoder.n_columns].isnan()
            start = start.masked_fill(~present[:, encoder.owner], torch.nan)
        filled = self.model_.draw(start.expand(int(n_samples), -1).to(self.device_), seed)
        cells = filled.cpu().numpy()
        frame = encoder.inverse_transform(cells, rng=np.random.default_rng(seed))
        if row is not None:  # the very values, also those never seen in training
            for name in row.columns[present.numpy()[0]]:
                frame[name] = as_dtype(
                    row[name].repeat(len(frame)).set_axis(frame.index), frame[name].dtype
                )
        return frame if self._is_frame else frame.to_numpy()

    def impute(
        self,
        X: Any,
        *,
        method: str = "mode",
        n_draws: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Fill missing cells with what the rest of their row makes probable, given that the cells are present.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
        method : {"mode", "sample"}
            "mode" fills each cell by itself with the most probable category or the expected number (of a binned column,
            its median); "sample" draws all missing cells of a row together.
        n_draws : int
            With "sample", how many completed tables to draw.
        random_state : int, RandomState or None
            With "sample"; None draws anew at every call.

        Returns
        -------
        DataFrame or ndarray, shape (N, C), or a list of ``n_draws`` of these if there are several
            X with nothing missing, but for columns of which every cell was missing in training; what was there
            is as it was.
        """
        asked = self.rows(X)
        check_integer("n_draws", n_draws, 1)
        if method not in ("mode", "sample"):
            raise ValueError(f"method must be 'mode' or 'sample', got {method!r}")
        if method == "mode" and n_draws != 1:
            raise ValueError("n_draws is of method='sample': the mode is always the same")
        encoder = self.encoder_
        x = asked.x.clone()
        x[:, encoder.n_columns :] = PRESENT  # a filled cell is one that is there
        empty = x[:, : encoder.n_columns].isnan()
        rows = torch.nonzero(empty.any(1)).flatten()
        fill, random = x[rows], check_random_state(random_state)
        tables = []
        for _ in range(int(n_draws)):
            if method == "mode":
                binned = [j for j, c in enumerate(encoder.schema) if c.kind == "binned"]
                filled = best_guess(
                    self.denoiser_, fill, medians=binned, batch_size=self.model_.batch_size
                )
                cells, rng = filled.cpu().numpy(), None
            else:
                seed = int(random.randint(2**31 - 1))
                cells = self.model_.draw(fill, seed).cpu().numpy()
                rng = np.random.default_rng(seed)
            decoded = encoder.inverse_transform(cells, rng=rng)
            tables.append(asked.as_given(fill_cells(asked.frame, empty.cpu().numpy(), decoded)))
        return tables[0] if n_draws == 1 else tables

    @available_if(_has_categories)
    def predict_proba(self, X: Any, column: Hashable | None = None) -> pd.DataFrame:
        """The distribution of one column given the rest of each row, and given that the cell is not missing.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            The values of the column itself are not looked at, and may be missing.
        column : name (position, for an array) of a column, optional
            Of categories or bins; a continuous column has a density and no table. By default the last of
            these, where tables have their label.

        Returns
        -------
        DataFrame, shape (N, K)
            With the index of X; one column per category, or per interval of a binned column with the two tails beyond
            its edges. Rows sum to one: they are conditional on the cell being present (with ``missing="category"``,
            too) and on its value being one that was seen in training.
        """
        check_is_fitted(self)
        encoder = self.encoder_
        if column is None:
            column = [c.name for c in encoder.schema if c.kind != "continuous"][-1]
        if column not in encoder.names:
            raise ValueError(f"column {column!r}: the model has no such column")
        j = encoder.names.index(column)
        schema = encoder.schema[j]
        if isinstance(schema.codec, Continuous):
            raise ValueError(
                f"column {column!r}: continuous, so it has no table of probabilities;"
                " draw from it with impute(method='sample'), or fit it as 'binned'"
            )
        rows = self.rows(X, ignore=column)
        x = rows.x.clone()
        x[:, [c for c in range(encoder.n_columns, x.shape[1]) if encoder.owner[c] == j]] = PRESENT
        unique, inverse = unique_rows(x.index_fill(1, torch.tensor([j], device=x.device), 0.0))
        logits = (
            column_distribution(self.denoiser_, unique, j, batch_size=self.model_.batch_size)
            .cpu()
            .numpy()
        )
        probs = np.exp(logits)
        if schema.points.open:
            probs = probs[:, :-1]
        probs /= probs.sum(1, keepdims=True)
        values, slot, share = schema.values()
        return pd.DataFrame(
            (probs[:, slot] * share)[inverse], index=rows.index, columns=values, copy=False
        )

    # -- keeping --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to one safetensors file, whole or not at all.

        Parameters
        ----------
        path : path-like
        """
        check_is_fitted(self)
        check_parameters(self.get_params(deep=False))  # or load would refuse what was written
        files.write_state(path, self._to_state())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read a model that :meth:`save` wrote; no code in the file is run.

        Parameters
        ----------
        path : path-like
        device : str
            Where the model is to run.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, or is no model of this kind, damaged or of a newer format.
        """
        resolve_device(device)  # a device that is not there is no fault of the file
        return files.revive(path, lambda state: cls._restored(state, device))

    @classmethod
    def _restored(cls, state: files.State, device: str) -> Self:
        """The estimator that :meth:`_to_state` wrote, tried out."""
        header, tensors = state
        if header["model"] != cls.__name__:
            raise ValueError(f"the file holds a {header['model']}, not a {cls.__name__}")
        model = cls(**files.parameters_from_json(header["parameters"]))
        model.device = device
        check_parameters(model.get_params(deep=False))
        model._from_state(header, tensors)
        model.model_.try_out()
        return model

    def __getstate__(self) -> dict[str, Any]:
        if not hasattr(self, "model_"):
            return cast(dict[str, Any], super().__getstate__())
        header, tensors = self._to_state()
        arrays = {k: v.numpy() for k, v in tensors.items()}
        return {"parameters": self.get_params(deep=False), "header": header, "arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "header" not in state:
            super().__setstate__(state)
            return
        self.__dict__.update(files.parameters_of_now(state["parameters"]))
        self._from_state(
            state["header"], {k: torch.from_numpy(v) for k, v in state["arrays"].items()}
        )

    def _to_state(self) -> files.State:
        header, tensors = self.model_.to_state()
        header = {
            "model": type(self).__name__,
            "parameters": files.parameters_to_json(self.get_params(deep=False)),
            "is_frame": self._is_frame,
            "has_names": hasattr(self, "feature_names_in_"),
            **header,
        }
        return header, tensors

    def _from_state(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        model = Model.from_state(header, tensors, resolve_device(self.device))
        if not isinstance(header["is_frame"], bool):
            raise TypeError("is_frame must be a bool")
        self.model_, self._is_frame = model, header["is_frame"]
        self.n_features_in_ = model.encoder.n_columns
        if header["has_names"]:
            self.feature_names_in_ = np.asarray(model.encoder.names, dtype=object)

    # -- tables ---------------------------------------------------------------------------------

    def rows(self, X: Any, *, ignore: Hashable | None = None) -> Rows:
        """Read and encode a table once, for several questions.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
            Rows of this model, or of one with an equal schema, are returned as they are.
        ignore : name (position, for an array) of a column, optional
            Its values are not read and count as missing.

        Returns
        -------
        Rows
            What every other method takes in place of the table.

        Raises
        ------
        ValueError, TypeError
            Naming the column, if it is missing from the table or holds what the model cannot take; or if X are Rows
            of a model with another schema.
        """
        check_is_fitted(self)
        if isinstance(X, Rows):
            return X.of(self.encoder_, self.device_)
        frame, is_frame = read_rows(X, self)
        by_name = is_frame and self._is_frame
        absent = [n for n in self.encoder_.names if n not in frame.columns] if by_name else []
        if absent:
            raise ValueError(f"column {absent[0]!r}: the model knows it, the table lacks it")
        validate_data(self, X, reset=False, skip_check_array=True)
        return Rows.read(
            frame,
            self.encoder_,
            is_frame=is_frame,
            by_name=by_name,
            device=self.device_,
            ignore=ignore,
        )

    def encode(self, X: Any) -> tuple[Tensor, np.ndarray]:
        """The encoded rows and log-volumes of :meth:`rows`."""
        rows = self.rows(X)
        return rows.x, rows.log_volume

    def _asked(
        self, X: Any, given: Iterable[Hashable] | None, what: str = "given"
    ) -> tuple[Rows, np.ndarray, Tensor | None]:
        """The rows, the log-volumes of what is asked, and what is given."""
        rows = self.rows(X)
        check_integer("n_evaluations", self.n_evaluations, 2)
        mask, log_volume = self._given(given, what), rows.log_volume
        if mask is not None:
            log_volume = np.where(mask.cpu().numpy(), 0.0, log_volume)
        return rows, log_volume, mask

    def _given(self, given: Iterable[Hashable] | None, what: str) -> Tensor | None:
        """Which internal columns are conditioned on."""
        if given is None:
            return None
        names, wanted = self.encoder_.names, _several(given)
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"column {name!r}: named in {what}=, but the model has no such column"
                )
        mask = np.array([n in wanted for n in names])[self.encoder_.owner]
        return torch.from_numpy(mask).to(self.device_) if wanted else None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = True
        return tags


def _several(names: Hashable | Iterable[Hashable]) -> list[Hashable]:
    """Names of columns, of which one may come alone."""
    if isinstance(names, str | int | np.integer) or not isinstance(names, Iterable):
        return [names]
    return list(names)


def _warn_beyond(stderr: Tensor, max_stderr: float | None) -> None:
    beyond = 0 if max_stderr is None else int((stderr > BEYOND * max_stderr).sum())
    if beyond:
        warnings.warn(
            f"{beyond} of {len(stderr)} distinct rows have a standard error above {BEYOND:g} times max_stderr={max_stderr},"
            f" though {EFFORT} times n_evaluations evaluations were allowed; raise n_evaluations for more",
            stacklevel=3,
        )
