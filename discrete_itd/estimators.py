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
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from tqdm import tqdm

from discrete_itd import state as files
from discrete_itd.channel import CoordinateSchedule, Schedule
from discrete_itd.denoisers import MarginalDenoiser, NeuralDenoiser
from discrete_itd.encoders import TableEncoder
from discrete_itd.likelihood import mse_curve, path_attribution, path_log_prob
from discrete_itd.patterns import pilot_quadrature
from discrete_itd.planning import choose_path, paths_within
from discrete_itd.sampling import sample
from discrete_itd.training import Evaluation, TrainingPlan, seeded, train
from discrete_itd.validation import check_parameters, check_schedule, resolve_device

EFFORT = 16  # with tol, a row may cost this many times n_calls
FEWEST_PATHS = 4  # with tol; fewer would not give a standard error to act on
BATCH_CELLS = 1 << 23  # rows times slots of one denoiser call


class RowEstimate(NamedTuple):
    """Log-probabilities with their standard errors: two float64 arrays of shape (N,), in nats."""

    log_prob: np.ndarray
    stderr: np.ndarray


class DiffusionDensity(DensityMixin, BaseEstimator):
    r"""Probability mass of the rows of a categorical table, by information-theoretic diffusion.

    A network learns to guess clean rows from noisy ones; its error, summed over noise levels, is the row's
    log-probability. A model that has learned nothing yet is exactly the independent-columns model.

    Parameters
    ----------
    columns : mapping from column name to kind, or one kind for all columns, optional
        "nominal" or "ordinal", where it is not what the dtype says. See
        :class:`~discrete_itd.encoders.TableEncoder` for what the dtypes say; columns of a numpy array are nominal.
    unseen : {"smooth", "raise"}, default="smooth"
        What a category never seen in training does: get a small probability of its own, or raise ValueError. A
        boolean column knows only False and True, and raises for anything else.
    width : int, default=256
        Hidden units of the network.
    depth : int, default=3
        Its residual blocks.
    max_steps : int, default=6000
        Optimiser steps at most; training stops earlier when held-out rows stop improving. 0 leaves the
        independent columns.
    max_time : float, optional
        Seconds of training at most; choosing the path comes on top.
    validation_fraction : float, default=0.1
        Share of the rows held out to stop training and to choose the path.
    path : {"auto", "coordinate", "isotropic"} or Schedule, default="auto"
        How noise is taken away when a row is scored. "auto" takes what gives the fewest nats on held-out rows for
        ``n_calls``.
    n_calls : int, default=128
        Network evaluations per scored row, split into steps and at least two paths.
    tol : float, optional
        Nats. Rows whose standard error is larger get up to 16 times as many evaluations.
    device : str, default="auto"
        A torch device; "auto" takes CUDA where there is one.
    random_state : int, RandomState or None, default=None
        Determines the fit and, once fitted, every score.

    Attributes
    ----------
    encoder_ : TableEncoder
        The schema of the table; ``encoder_.describe()`` prints it.
    denoiser_ : NeuralDenoiser
        The trained network.
    schedule_ : Schedule
        The path on which rows are scored.
    path_table_ : DataFrame
        The paths tried, with their held-out nats at about equal cost.
    history_ : DataFrame
        step, seconds, train_nats, train_stderr, valid_nats, valid_stderr.
    device_ : torch.device
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the table had string column names.

    Notes
    -----
    Scores are nats (natural logarithm), higher is more probable. The model defines a normalised mass over all
    rows of seen and "unseen" cells; a score is a Monte-Carlo estimate of it, in expectation on the pessimistic
    side, and depends on nothing but the row and the fitted model. Paths disagree most on the oddest rows:
    their scores are known to a few nats only, as their standard errors say, and more ``n_calls`` raise them.

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
    """

    def __init__(
        self,
        *,
        columns: Mapping[Any, str] | str | None = None,
        unseen: str = "smooth",
        width: int = 256,
        depth: int = 3,
        max_steps: int = 6000,
        max_time: float | None = None,
        validation_fraction: float = 0.1,
        path: str | Schedule = "auto",
        n_calls: int = 128,
        tol: float | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.columns = columns
        self.unseen = unseen
        self.width = width
        self.depth = depth
        self.max_steps = max_steps
        self.max_time = max_time
        self.validation_fraction = validation_fraction
        self.path = path
        self.n_calls = n_calls
        self.tol = tol
        self.device = device
        self.random_state = random_state

    # -- fitting --------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            A table without missing cells; an array is taken to hold category codes.
        y : ignored

        Raises
        ------
        ValueError
            Naming the column or parameter, if something is wrong with it. A model fitted before stays usable.
        """
        check_parameters(self.get_params(deep=False))
        frame, is_frame = self._table(X)
        validate_data(type(self)(), X, skip_check_array=True)  # names that scikit-learn refuses
        if len(frame) < 2:
            raise ValueError(f"n_samples=1: at least two rows are needed, got {len(frame)}")
        if not isinstance(self.path, str):
            check_schedule(self.path, frame.shape[1])
        encoder = TableEncoder.fit(
            frame,
            self.columns,
            unseen=self.unseen,
            integers="ordinal" if is_frame else "nominal",
        )
        device = resolve_device(self.device)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        codes = torch.from_numpy(encoder.transform(frame))
        n_valid = min(max(1, round(self.validation_fraction * len(codes))), len(codes) - 1)
        order = torch.from_numpy(random.permutation(len(codes)))
        x_valid, x = codes[order[:n_valid]].to(device), codes[order[n_valid:]].to(device)

        generator = torch.Generator(device).manual_seed(seed)
        codebook = encoder.codebook()
        marginals = MarginalDenoiser.from_counts(codebook, x.cpu())
        with seeded(seed, device):
            denoiser = NeuralDenoiser(marginals, width=self.width, depth=self.depth).to(device)
            plan = TrainingPlan(max_steps=self.max_steps, max_time=self.max_time)
            with _bar(
                1.0, "fit", "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            ) as bar:

                def show(done: float, latest: Evaluation) -> None:
                    bar.set_postfix_str(f"{latest.valid_nats:.3f} nats held out", refresh=False)
                    bar.update(done - bar.n)

                report = train(denoiser, x, x_valid, plan, generator=generator, progress=show)
        if isinstance(self.path, str):
            nats = [e.valid_nats for e in report.history]
            untrained = min(nats) == nats[0]  # all paths are equal then, and exact
            candidates = choose_path(
                denoiser,
                x,
                x_valid,
                pilot_quadrature(denoiser, x, generator),
                kind="coordinate" if untrained and self.path == "auto" else self.path,
                n_calls=self.n_calls,
                generator=generator,
            )
            schedule = candidates[0].schedule
            table = [(c.kind, c.schedule.n_steps, c.n_paths, c.nats, c.stderr) for c in candidates]
        else:
            schedule, table = self.path, []

        # nothing is assigned before all has succeeded
        validate_data(self, X, skip_check_array=True)
        self.encoder_, self.denoiser_, self.schedule_ = encoder, denoiser, schedule
        self.path_table_ = pd.DataFrame(table, columns=["path", "steps", "paths", "nats", "stderr"])
        self.history_ = pd.DataFrame(report.history, columns=list(Evaluation._fields))
        self.device_, self._seed, self._is_frame = device, seed, is_frame
        return self

    # -- scoring --------------------------------------------------------------------------------

    def log_prob(
        self, X: Any, given: Iterable[Hashable] | None = None, *, tol: float | None = None
    ) -> RowEstimate:
        """Log-probability of each row, with its standard error.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)
            The columns that were fitted, in their order.
        given : names (positions, for an array) of columns, optional
            Condition on these: the result is log P(other columns | given), a mass that is normalised on its own.
            A network's conditionals need not agree with one another exactly, so it is close to, but not
            the difference of two joint scores.
        tol : float, optional
            Overrides the constructor's for this call, nats.

        Returns
        -------
        RowEstimate
            ``log_prob`` and ``stderr``, float64 arrays of shape (N,), nats.

        Raises
        ------
        ValueError
            Naming the column, if it is missing from the table or holds what the model cannot take.
        """
        codes, mask = self._codes(X), self._given(given)
        unique, inverse = _unique_rows(codes)
        effort = self._effort(mask, tol)
        with _bar(len(unique), "score") as bar:
            estimate = path_log_prob(self.denoiser_, unique, **effort, progress=bar.update)
        if effort["tol"] is not None:
            beyond = int((estimate.stderr > effort["tol"]).sum())
            if beyond:
                warnings.warn(
                    f"{beyond} of {len(unique)} distinct rows have a standard error above tol={effort['tol']}"
                    f" after {EFFORT} times n_calls evaluations; raise n_calls for more",
                    stacklevel=2,
                )
        return RowEstimate(*(t.cpu().numpy()[inverse] for t in estimate))

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-probability of each row: float64, shape (N,), nats; higher is more ordinary."""
        return self.log_prob(X).log_prob

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-probability per row, in nats, as scikit-learn's mixtures have it."""
        return float(self.score_samples(X).mean())

    def explain(self, X: Any) -> pd.DataFrame:
        """Why a row is odd: its surprisal in nats, split by column.

        Parameters
        ----------
        X : DataFrame or array-like, shape (N, C)

        Returns
        -------
        DataFrame, shape (N, C)
            With the index of X. Rows sum to minus :meth:`score_samples`. A column's share is what it
            surprises with once the other columns have been heard, averaged over the path.
        """
        codes = self._codes(X)
        unique, inverse = _unique_rows(codes)
        with _bar(len(unique), "explain") as bar:
            split = path_attribution(
                self.denoiser_, unique, **self._effort(None, None), progress=bar.update
            )
        index = X.index if isinstance(X, pd.DataFrame) else None
        surprisal = split.surprisal.cpu().numpy()[inverse]
        return pd.DataFrame(surprisal, index=index, columns=pd.Index(self.encoder_.names))

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
            independent columns. The integral of snr * mse / 2 over logsnr is the mean of -log P in nats.
        """
        if n_points < 2 or max_rows < 2:
            raise ValueError(
                f"n_points and max_rows must be at least 2, got {n_points}, {max_rows}"
            )
        x = self._codes(X)[:max_rows]
        if len(x) < 2:
            raise ValueError("a curve with error bars needs at least two rows")
        seed = torch.Generator(self.device_).manual_seed(self._seed)
        low, high = pilot_quadrature(self.denoiser_.base, x, seed).edges[[0, -1]].tolist()
        logsnr = torch.linspace(low, high, n_points, dtype=torch.float64)
        curves = [
            mse_curve(d, x, logsnr.exp(), generator=torch.Generator().manual_seed(self._seed))
            for d in (self.denoiser_, self.denoiser_.base)
        ]
        (mse, stderr), (independent, _) = curves
        columns = {"logsnr": logsnr, "mse": mse, "stderr": stderr, "mse_independent": independent}
        return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})

    # -- sampling -------------------------------------------------------------------------------

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> pd.DataFrame | np.ndarray:
        """Draw rows from the model that is scored.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
            None draws anew at every call.

        Returns
        -------
        DataFrame or ndarray, shape (n_samples, C)
            With the fitted names and dtypes; an array if an array was fitted. Never a category unseen in training.
        """
        check_is_fitted(self)
        if (
            isinstance(n_samples, bool)
            or not isinstance(n_samples, int | np.integer)
            or n_samples < 1
        ):
            raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        generator = torch.Generator(self.device_).manual_seed(seed)
        codes = sample(
            self.denoiser_,
            int(n_samples),
            self.schedule_,
            generator=generator,
            batch_size=self._batch_size(),
        )
        frame = self.encoder_.inverse_transform(codes.cpu().numpy())
        return frame if self._is_frame else frame.to_numpy()

    # -- keeping --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to one safetensors file, whole or not at all.

        Parameters
        ----------
        path : path-like
        """
        check_is_fitted(self)
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
        header, tensors = files.read_state(path)
        resolve_device(device)  # a device that is not there is no fault of the file
        try:
            model = cls(**files.parameters_from_json(header["parameters"]))
            model.device = device
            check_parameters(model.get_params(deep=False))
            model._from_state(header, tensors)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
        except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{os.fspath(path)}: the model is damaged ({error!r})") from None
        return model

    def __getstate__(self) -> dict[str, Any]:
        if not hasattr(self, "encoder_"):
            return cast(dict[str, Any], super().__getstate__())
        header, tensors = self._to_state()
        arrays = {k: v.numpy() for k, v in tensors.items()}
        return {"parameters": self.get_params(deep=False), "header": header, "arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "header" not in state:
            super().__setstate__(state)
            return
        self.__dict__.update(state["parameters"])
        self._from_state(
            state["header"], {k: torch.from_numpy(v) for k, v in state["arrays"].items()}
        )

    def _to_state(self) -> files.State:
        tensors = {k: v.detach().cpu().clone() for k, v in self.denoiser_.state_dict().items()}
        header = {
            "model": type(self).__name__,
            "parameters": files.parameters_to_json(self.get_params(deep=False)),
            "schema": self.encoder_.to_list(),
            "schedule": files.schedule_to_json(self.schedule_),
            "network": {"width": self.denoiser_.width, "depth": self.denoiser_.depth},
            "seed": self._seed,
            "is_frame": self._is_frame,
            "has_names": hasattr(self, "feature_names_in_"),
            "history": self.history_.to_dict("list"),
            "path_table": self.path_table_.to_dict("list"),
        }
        return header, tensors

    def _from_state(self, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        if header["model"] != type(self).__name__:
            raise ValueError(f"the file holds a {header['model']}, not a {type(self).__name__}")
        encoder = TableEncoder.from_list(header["schema"])
        device = resolve_device(self.device)
        with seeded(0, torch.device("cpu")):  # initial weights, which are replaced
            denoiser = NeuralDenoiser.from_tensors(encoder.codebook(), tensors, **header["network"])
        schedule = files.schedule_from_json(header["schedule"])
        check_schedule(schedule, len(encoder.schema))
        self.encoder_, self.denoiser_ = encoder, denoiser.to(device).eval()
        self.schedule_ = schedule
        self.history_ = pd.DataFrame(header["history"])
        self.path_table_ = pd.DataFrame(header["path_table"])
        self.device_, self._seed, self._is_frame = device, header["seed"], header["is_frame"]
        self.n_features_in_ = len(encoder.schema)
        if header["has_names"]:
            self.feature_names_in_ = np.asarray(encoder.names, dtype=object)

    # -------------------------------------------------------------------------------------------

    def _table(self, X: Any) -> tuple[pd.DataFrame, bool]:
        """The rows as a frame, and whether they came as one."""
        if isinstance(X, pd.DataFrame):
            if not X.columns.is_unique:
                twice = X.columns[X.columns.duplicated()][0]
                raise ValueError(f"column {twice!r}: the name occurs more than once")
            if X.shape[0] == 0 or X.shape[1] == 0:
                raise ValueError(
                    f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s)"
                    f" (shape={X.shape}) while a minimum of 1 is required."
                )
            return X, True
        cells = check_array(X, dtype=cast(Any, None), estimator=self, input_name="X")
        return pd.DataFrame(cells), False

    def _codes(self, X: Any) -> Tensor:
        check_is_fitted(self)
        frame, is_frame = self._table(X)
        if is_frame and self._is_frame:
            absent = [n for n in self.encoder_.names if n not in frame.columns]
            if absent:
                raise ValueError(f"column {absent[0]!r}: the model knows it, the table lacks it")
        validate_data(self, X, reset=False, skip_check_array=True)
        if is_frame != self._is_frame:  # positions decide where one side has no names
            frame = frame.set_axis(self.encoder_.names, axis=1)
        return torch.from_numpy(self.encoder_.transform(frame)).to(self.device_)

    def _given(self, given: Iterable[Hashable] | None) -> Tensor | None:
        if given is None:
            return None
        names = self.encoder_.names
        wanted = [given] if isinstance(given, str | int | np.integer) else list(given)
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"column {name!r}: named in given=, but the model has no such column"
                )
        mask = torch.tensor([n in wanted for n in names], device=self.device_)
        return mask if wanted else None

    def _effort(self, given: Tensor | None, tol: float | None) -> dict[str, Any]:
        """Arguments of the path estimator: which path, how often, with what noise."""
        schedule, n_calls = self.schedule_, self.n_calls
        if given is not None and isinstance(schedule, CoordinateSchedule):
            left = max(1, len(given) - int(given.sum()))
            schedule = CoordinateSchedule(left, min(left, schedule.n_steps))
        tol = self.tol if tol is None else tol
        n_paths = paths_within(n_calls, schedule)
        if tol is not None:  # start low: rows that need more will get more
            n_paths = max(FEWEST_PATHS, paths_within(n_calls // 4, schedule))
        return {
            "schedule": schedule,
            "n_paths": n_paths,
            "max_paths": paths_within(EFFORT * n_calls, schedule),
            "tol": tol,
            "given": given,
            "generator": torch.Generator().manual_seed(self._seed),
            "batch_size": self._batch_size(),
        }

    def _batch_size(self) -> int:
        return max(16, min(2048, BATCH_CELLS // self.denoiser_.codebook.n_slots))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = False
        return tags


def _bar(total: float, what: str, bar_format: str | None = None) -> tqdm:
    """A progress bar, silent where the output is no terminal."""
    return tqdm(total=total, desc=what, disable=None, leave=False, delay=1.0, bar_format=bar_format)


def _unique_rows(codes: Tensor) -> tuple[Tensor, np.ndarray]:
    """Distinct rows and, for every row, which of them it is: equal rows are scored once."""
    cells = np.ascontiguousarray(codes.cpu().numpy())
    rows = cells.view(np.dtype((np.void, cells.dtype.itemsize * cells.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return codes[torch.from_numpy(first).to(codes.device)], inverse
