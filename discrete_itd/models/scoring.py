"""Scores of rows and their explanation: the questions about rows that a fitted model answers."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from discrete_itd.encoders import Rows
from discrete_itd.encoders.frames import in_kind
from discrete_itd.encoders.rows import read_rows
from discrete_itd.likelihood import squared_errors
from discrete_itd.likelihood.information import pointwise_information
from discrete_itd.models.model import EFFORT, Model
from discrete_itd.progress import progress_bar
from discrete_itd.storage.card import density_card
from discrete_itd.training import pilot_quadrature
from discrete_itd.validation import check_integer, check_mean_weights, check_tolerance, warn

# rows of a curve by default: at most, at least, and the floats that may be computed for all of them
CURVE_ROWS, FEWEST_CURVE_ROWS, CURVE_WORK = 1000, 16, 1 << 34
TOLERATED = 1.5  # times max_stderr; a standard error may be this much above it by chance


class RowEstimate(NamedTuple):
    """Log-probabilities with their standard errors: two float64 arrays of shape (N,), in nats."""

    log_prob: np.ndarray
    stderr: np.ndarray


class ScoringMixin:
    """Methods of an estimator with a fitted ``model_`` that read, score and explain rows.

    Attributes
    ----------
    model_ : Model
    n_evaluations : int
    """

    model_: Model
    n_evaluations: int
    # whether the training table was a frame: then columns of frames are found by name
    _is_frame: bool

    def rows(self, X: Any, *, ignore: Hashable | None = None) -> Rows:
        """Read and encode a table once, for several questions.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
            Rows of this model, or of one with an equal schema, are not encoded again. N may be 0: the answer is empty.
            Columns of a frame that the model does not know are ignored with a warning, as the command does.
        ignore : name (position, for an array) of a column, optional
            Its values are not read and count as missing.

        Returns
        -------
        Rows
            Every other method takes them in place of the table.

        Raises
        ------
        ValueError, TypeError
            Naming the column that is absent or holds a value that the model cannot take; or if X are Rows of a model
            with another schema.

        Warns
        -----
        UserWarning
            Naming columns that are ignored.
        """
        check_is_fitted(self)
        if isinstance(X, Rows):
            known = X.of(self.model_.encoder, self.model_.device)
            return known if ignore is None else known.without(ignore)
        frame, is_frame = read_rows(X, self, fewest=0)
        X = frame if is_frame else X
        by_name, names = is_frame and self._is_frame, self.model_.encoder.names
        if by_name:
            absent = [n for n in names if n not in frame.columns]
            if absent:
                raise ValueError(f"column {absent[0]!r}: the model knows it, the table lacks it")
            known = self.model_.encoder.all_names
            extra = frame.columns.difference(known, sort=False)
            if len(extra):
                warn(ignored(extra, frame.columns))
                X = frame[frame.columns[frame.columns.isin(known)]]
            if len(known) > len(names):  # those left out may be absent
                given = [name for name in frame.columns if name in known]
                for column in self.model_.encoder.left_out:
                    if column.name not in given:
                        given.insert(column.position, column.name)
                X = pd.DataFrame(columns=pd.Index(given))
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
        max_stderr: float | None = None,
        estimator: str | None = None,
    ) -> RowEstimate:
        """Log-probability of each row, with its standard error.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
            The fitted columns. The result is the log-probability of the cells that are not missing.
        given : names (positions, for an array) of columns, optional
            Condition on these, where they are not missing: the result is log P(other columns | given), normalised on
            its own. An exact model gives the difference of two joint scores. Along paths, it is that difference if
            ``schedule`` is a ``CoordinateSchedule`` whose ``order`` starts with the given columns, and close to it
            otherwise. A model with a ``model_.companion`` gives the difference of its own two probabilities, each by
            importance sampling with the companion as the proposal, and exactly where one cell of a row is unknown (13).
        max_stderr : float, optional
            Nats. Rows with a larger standard error get up to 16 times ``n_evaluations``; no row gets fewer paths than
            by default. Half of the evaluations only decide how many paths the estimate needs, so that probabilities
            still sum to one; the standard error may be somewhat above ``max_stderr`` by chance.
        estimator : {"closed_form", "path", "integral", "marginal"}, optional
            How. By default in closed form, if there is one, else along paths (6). "integral" integrates the denoising
            error over the signal-to-noise ratio, eq. (4), with ``n_evaluations`` noise levels a row. A model with a
            closed form gives the same number in every way that it has; ``guide/guarantees.md`` has the
            table. By default, gaps in columns that had none in training are summed out of four parts of the model and
            one of its companion, if it has one, by four draws, with their ``stderr``; "closed_form" scores them as a
            network does that has not learned of them. "marginal" sums out all gaps by ``n_evaluations`` draws. With
            ``given``, a model with a companion has "marginal", its own, and by any other name the companion's.

        Returns
        -------
        RowEstimate
            ``log_prob`` and ``stderr``, float64 arrays of shape (N,), nats. ``log_prob`` plus or minus 1.96 ``stderr``
            is a 95 % interval for the log-probability under the model, for rows like the training rows; for anomalies
            it covers less often (see the notes of the class). It does not measure how well the model fits.

        Raises
        ------
        ValueError, TypeError
            Naming the column that is absent or holds a value that the model cannot take; or if the model does not have
            the estimator, naming those that it has.

        Warns
        -----
        UserWarning
            If standard errors stay clearly above ``max_stderr``.
        """
        rows, log_volume, how = self._asked(X, given, max_stderr)
        with progress_bar(len(rows.unique), "score") as bar:
            estimate = self.model_.log_prob(
                rows.unique, **how, estimator=estimator, progress=bar.update
            )
        _warn_of_errors(estimate.stderr, max_stderr)
        log_prob, stderr = (t.cpu().numpy()[rows.inverse] for t in estimate)
        return RowEstimate(log_prob + log_volume.sum(1), stderr)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-probability of each row: float64, shape (N,), nats; higher is more typical."""
        return self.log_prob(X).log_prob

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-probability per row, in nats, as of scikit-learn's mixtures; NaN without rows.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        y : None
        sample_weight : array-like of float, shape (N,), optional
            Weights of the rows in the mean: not negative, not all zero.
        """
        scores = self.score_samples(X)
        if sample_weight is not None:
            scores = scores * check_mean_weights(sample_weight, len(scores))
        return float(scores.mean()) if len(scores) else math.nan

    @in_kind
    def explain(
        self, X: Any, given: Iterable[Hashable] | None = None, *, max_stderr: float | None = None
    ) -> pd.DataFrame:
        """Surprisal of each row in nats, split by column.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        given, max_stderr
            As in :meth:`log_prob`.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. A row sums to minus its log-probability. The share of a column is its surprisal given
            columns before it. A model with a closed form takes the columns in an order of its own
            (:meth:`~discrete_itd.denoisers.Denoiser.log_factors`): in a Bayesian network or a tree, each is given its
            parents. Another model, or a question with ``given``, takes what the path has revealed, averaged over
            paths; then the share depends on the schedule, and two columns that determine each other share the surprisal
            of both. With ``given``, a model with a companion takes one order of the other columns. A missing or given
            cell has none: NaN.
        """
        rows, log_volume, how = self._asked(X, given, max_stderr)
        with progress_bar(len(rows.unique), "explain") as bar:
            split = self.model_.attribution(rows.unique, **how, progress=bar.update)
        _warn_of_errors(split.stderr, max_stderr)
        nats = split.surprisal.cpu().numpy()[rows.inverse] - log_volume
        if how["given"] is not None:
            nats[:, how["given"].cpu().numpy()] = math.nan
        return rows.by_column(nats)

    @in_kind
    def information(
        self, X: Any, about: Hashable | Iterable[Hashable], *, n_points: int = 64
    ) -> pd.DataFrame:
        r"""Information that some columns carry about each of the others, row by row, in nats.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C), or Rows
        about : name (position, for an array) of a column, or several
            The informing columns y; where one of them is missing, it informs of nothing.
        n_points : int
            Noise levels per row, at least 4; each costs two denoiser evaluations.

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X; not negative, zero in the informing columns and in missing cells: half the integral
            over the SNR of the squared difference between the denoised means with and without y. For an exact model,
            the mean over rows of the row sums is the mutual information of y with all other columns together.

        References
        ----------
        Kong et al., "Interpretable diffusion via information decomposition", ICLR 2024, arXiv:2310.07972.
        """
        check_integer("n_points", n_points, 4)
        rows = self.rows(X)
        if not len(rows):
            return self.information(rows.blank(), about, n_points=n_points).head(0)
        model, unique = self.model_, rows.unique
        informing = _mask(rows, about, "about")
        if informing is None:
            raise ValueError("about names no column")
        leading = model.anywhere.codebook.leading & ~informing
        if bool((informing | leading).all()):
            raise ValueError("about names all columns: none is left to be informed")
        generator = torch.Generator(model.device).manual_seed(model.seed)
        quadrature = pilot_quadrature(model.marginals, unique, generator)
        with progress_bar(len(unique), "information") as bar:
            nats = pointwise_information(
                model.anywhere, unique, informing, quadrature, given=leading, n_points=n_points,
                generator=torch.Generator().manual_seed(model.seed),
                batch_size=model.posteriors_at_once(model.anywhere), progress=bar.update,
            ).nats  # fmt: skip
        return rows.table(nats.cpu().numpy()[rows.inverse][:, : rows.encoder.n_columns])

    def mse_curve(self, X: Any, *, n_points: int = 49, max_rows: int | None = None) -> pd.DataFrame:
        r"""Denoising error at each SNR; the area under the curve is the code length.

        Of a network that conditions columns on those before them in an order, the error at an SNR is the sum over
        columns, each at this SNR with the columns before it known. A mixture of rows with such a member has no curve
        of its own: then it is that of the ``model_.companion``, which does not score rows.

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
            columns. ``attrs["model"]`` is the class of the denoiser, ``attrs["scores_rows"]`` whether it is the one
            that scores rows, ``denoiser_``.
        """
        check_integer("n_points", n_points, 2)
        rows, model = self.rows(X), self.model_
        if max_rows is None:
            affordable = CURVE_WORK // (n_points * model.curved.noisy_work)
            max_rows = max(FEWEST_CURVE_ROWS, min(CURVE_ROWS, affordable))
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
        curve.attrs["scores_rows"] = denoiser is model.denoiser
        return curve

    def model_card(self) -> str:
        """What people should know of the fitted model, in Markdown: data, held-out nats, cost and limits.

        It names columns, but none of their values. ``save`` writes it beside the model.
        """
        check_is_fitted(self)
        return density_card(self, self.model_, self.n_evaluations)

    def _asked(
        self, X: Any, given: Any, max_stderr: float | None
    ) -> tuple[Rows, np.ndarray, dict[str, Any]]:
        """The rows, the log-volumes of the cells that are asked for, and the arguments of :class:`Model`."""
        rows = self.rows(X)
        check_integer("n_evaluations", self.n_evaluations, 2)
        check_tolerance(max_stderr)
        mask, volume = _mask(rows, given, "given"), rows.log_volume
        if mask is not None:
            volume = np.where(mask.cpu().numpy(), 0.0, volume)
        how = {"n_evaluations": self.n_evaluations, "max_stderr": max_stderr, "given": mask}
        return rows, volume, how


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


def ignored(extra: Collection[Any], columns: Collection[Any]) -> str:
    """The warning that the columns ``extra`` of a table are ignored."""
    return f"ignoring {len(extra)} of {len(columns)} columns: {', '.join(map(str, extra))}"


def _warn_of_errors(stderr: Tensor, max_stderr: float | None) -> None:
    """Warn if the standard errors of some rows are clearly above the bound."""
    above = 0 if max_stderr is None else int((stderr > TOLERATED * max_stderr).sum())
    if above and max_stderr is not None:
        text = large_errors(above, len(stderr), "distinct rows", max_stderr)
        warn(text)


def large_errors(above: int, n: int, rows: str, max_stderr: float) -> str:
    """The warning that the standard errors of ``above`` of n ``rows`` are clearly above the bound."""
    return (
        f"{above} of {n} {rows} have a standard error above {TOLERATED:g} times max_stderr={max_stderr}, though"
        f" {EFFORT} times n_evaluations evaluations were allowed; raise n_evaluations for more"
    )
