"""Detectors of anomalies that the benchmarks set side by side: this library's, PyOD's and those of two papers.

Each takes normal rows to train on and rows to score, and returns scores, higher for odder rows, and its seconds.
PyOD's get numbers (``one_hot``, ``standardised``) and their default parameters; "kNN4" (``neighbours_in_scalings``) is
nearest neighbours in four scalings of the numbers, a stronger baseline than PyOD's in one. The papers' are run from
where their repositories were unpacked; an environment variable names the folder of each:

- ``DISCRETE_ITD_TCCM``: TCCM (Li et al., NeurIPS 2025, arXiv:2510.18328, github.com/ZhongLIFR/TCCM-NIPS);
- ``DISCRETE_ITD_DTE``: DTE-C and DTE-NP (Livernoche et al., ICLR 2024, arXiv:2305.18593, github.com/vicliv/DTE).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import OneHotEncoder

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import estimator, timed

PYOD = {"IForest": "iforest.IForest", "ECOD": "ecod.ECOD", "COPOD": "copod.COPOD"}
PYOD |= {"HBOS": "hbos.HBOS", "kNN": "knn.KNN", "LOF": "lof.LOF", "MCD": "mcd.MCD"}
NEIGHBOURS = 20_000  # rows that kNN, kNN4 and LOF keep, and boosting fits to, at most
NEAREST = 5  # neighbours of kNN4, as many as of PyOD's kNN
LEAST_DISTANCE = 1e-12  # of a row to a neighbour in kNN4, in diameters of the training rows: logarithms are finite
CONSTANT = 1e-12  # largest ratio of a column's deviation to its largest value that is rounding of a constant
FEW_VALUES = 20  # of a column that boosting predicts as classes
TREES = 200_000  # of boosting on all columns of a table, times its columns


class Scored(NamedTuple):
    """Scores of the test rows, float64, shape (N,), higher is odder; seconds."""

    scores: NDArray[np.float64]
    fit_seconds: float
    score_seconds: float

    def seconds(self) -> dict[str, float]:
        """The two times by name."""
        return {"fit_seconds": self.fit_seconds, "score_seconds": self.score_seconds}


# -- this library -------------------------------------------------------------------------------


def detector(density: DiffusionDensity, **parameters: Any) -> Any:
    """The library's detector around a density that is not fitted yet."""
    from discrete_itd.detection.detector import DiffusionOutlierDetector

    return DiffusionOutlierDetector(density, **parameters)


def ours(
    kind: str, train: pd.DataFrame, test: pd.DataFrame, seed: int, options: argparse.Namespace
) -> Scored:
    """This library's detector.

    Parameters
    ----------
    kind : {"categorical", "numeric"}
        What the columns are: strings, or numbers with ``options.columns`` as their kind.
    train, test : DataFrame
    seed : int
    options : Namespace
        ``max_time`` (seconds of training, or None), ``n_evaluations``, ``density`` (more parameters of the density, a
        mapping), ``detector`` (parameters of the detector, a mapping), ``quick``.
    """
    density = estimator(options.max_time, quick=options.quick, random_state=seed)
    if not options.quick:
        density.set_params(n_evaluations=options.n_evaluations)
    if kind == "numeric":
        density.set_params(column_types=options.columns)
    density.set_params(**options.density)
    return fit_and_score(detector(density, **options.detector), train, test)


def untrained() -> DiffusionDensity:
    """Independent columns: the density that is not trained, whose score is exact on any path."""
    return DiffusionDensity(denoiser="independent", n_evaluations=2, random_state=0)


def fit_and_score(model: Any, train: pd.DataFrame, test: pd.DataFrame) -> Scored:
    _, fit_seconds = timed(model.fit, train)
    scores, score_seconds = timed(model.score_samples, test)
    return Scored(-scores, fit_seconds, score_seconds)


# -- PyOD ---------------------------------------------------------------------------------------


def pyod(
    label: str,
    train: NDArray,
    test: NDArray,
    seed: int,
    max_rows: int | None = None,
    in_hand: bool = False,
) -> Scored:
    """A detector of PyOD with its defaults, on numbers; of at most ``max_rows`` random training rows.

    ``in_hand`` if the training rows themselves are ranked, by its scores of them.
    """
    train = some_rows(train, seed, max_rows)
    module, name = PYOD[label].split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant columns, of what PyOD imports
        kind = getattr(importlib.import_module(f"pyod.models.{module}"), name)
        model = kind(random_state=seed) if name == "IForest" else kind()
        _, fit_seconds = timed(model.fit, train)
        scores, score_seconds = timed(model.decision_function, test)
        scores = model.decision_scores_ if in_hand else scores
    return Scored(np.nan_to_num(scores), fit_seconds, score_seconds)


def some_rows(train: NDArray, seed: int, max_rows: int | None) -> NDArray:
    """At most ``max_rows`` random rows."""
    if max_rows is None or len(train) <= max_rows:
        return train
    return train[np.random.default_rng(seed).permutation(len(train))[:max_rows]]


def neighbours_in_scalings(
    train: NDArray,
    test: NDArray,
    seed: int,
    max_rows: int | None = None,
    in_hand: bool = False,
) -> Scored:
    """Nearest neighbours in four scalings of the columns, of at most ``max_rows`` random training rows.

    The scalings are the numbers as they are, ``standardised``, ``by_range`` and ``as_normal_scores``. A row's score is
    the sum over the scalings of the mean logarithm of its Euclidean distances to its five nearest training rows
    (``NEAREST``), in units of the diagonal of the training rows' ranges and of ``LEAST_DISTANCE`` at least. So a
    common factor of all columns changes no score, if none is constant in training, and no scaling outweighs the others.

    ``in_hand`` if ``test`` are the training rows themselves, none of which is a neighbour of itself.
    """
    train = some_rows(train, seed, max_rows)
    fit_seconds = score_seconds = 0.0
    scores = np.zeros(len(test))
    for scale in (lambda *rows: rows, standardised, by_range, as_normal_scores):
        (scaled, scaled_test), scaling_seconds = timed(scale, train, test)
        n_neighbours = min(NEAREST + in_hand, len(train))
        index, index_seconds = timed(NearestNeighbors(n_neighbors=n_neighbours).fit, scaled)
        (_, neighbours), query_seconds = timed(index.kneighbors, scaled_test)
        nearest = neighbours.T[int(in_hand) :]
        diameter = float(np.linalg.norm(np.ptp(scaled, axis=0))) or 1.0
        for positions in nearest:
            # computed anew: in many columns scikit-learn's distances of equal rows are not 0 but rounding
            distances = np.linalg.norm(scaled_test - scaled[positions], axis=1) / diameter
            scores += np.log(np.maximum(distances, LEAST_DISTANCE)) / len(nearest)
        fit_seconds += scaling_seconds + index_seconds
        score_seconds += query_seconds
    return Scored(scores, fit_seconds, score_seconds)


def boosting(train: NDArray, test: NDArray, seed: int) -> Scored:
    """Gradient boosting of each column from the others: few values as classes, others with Gaussian residuals.

    A row's score is the sum of its surprisals, those of residuals by their spread over the training rows' second half,
    which the model of the first half has not seen. Of 10 to 100 rounds it has as many as make ``TREES`` of all trees
    times columns; the learning rate is 10 by their number, at most .3.
    """
    start = time.perf_counter()
    order = np.random.default_rng(seed).permutation(len(train))[:NEIGHBOURS]
    fit, held_out = np.array_split(train[order], 2)
    n_values = [len(np.unique(column)) for column in fit.T]
    trees = sum(n if 2 < n <= FEW_VALUES else 1 for n in n_values)
    rounds = int(np.clip(TREES // (trees * train.shape[1]), 10, 100))
    settings = {"max_iter": rounds, "learning_rate": min(0.3, 10 / rounds), "random_state": seed}
    models = []
    for j in range(train.shape[1]):
        rest = np.delete(fit, j, 1)
        if n_values[j] <= FEW_VALUES:
            levels, codes = np.unique(fit[:, j], return_inverse=True)
            one = len(levels) == 1 or not rest.shape[1]
            model = None if one else HistGradientBoostingClassifier(**settings)
            models.append((model and model.fit(rest, codes), levels, 0.0))
            continue
        model = HistGradientBoostingRegressor(**settings).fit(rest, fit[:, j])
        off = held_out[:, j] - model.predict(np.delete(held_out, j, 1))
        models.append((model, None, max(float(off.std()), 1e-6)))
    fitted = time.perf_counter()
    score = np.zeros(len(test))
    for j, (model, levels, spread) in enumerate(models):
        rest = np.delete(test, j, 1)
        if levels is None:
            score += 0.5 * ((test[:, j] - model.predict(rest)) / spread) ** 2 + np.log(spread)
            continue
        k = np.searchsorted(levels, test[:, j]).clip(max=len(levels) - 1)
        p = np.ones((len(test), 1)) if model is None else model.predict_proba(rest)
        p = np.where(
            levels[k] == test[:, j], p[np.arange(len(test)), k if p.shape[1] > 1 else 0], 0.0
        )
        score -= np.log(np.maximum(p, 1 / len(fit)))
    return Scored(score, fitted - start, time.perf_counter() - fitted)


def one_hot(train: pd.DataFrame, test: pd.DataFrame) -> tuple[NDArray, NDArray]:
    """A column per category of the training rows; a category that only the test rows have is nothing."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train)
    return encoder.transform(train), encoder.transform(test)


def standardised(train: NDArray, test: NDArray) -> tuple[NDArray, NDArray]:
    """Both by the training rows' means and deviations.

    A column that is constant in training, but for rounding, is divided by 1: the deviation of equal numbers is
    often not 0 but their rounding error, by which another value in ``test`` would outweigh all other columns.
    """
    deviation = train.std(0)
    is_constant = deviation <= CONSTANT * np.abs(train).max(0)
    return _shifted(train, test, train.mean(0), np.where(is_constant, 1.0, deviation))


def by_range(train: NDArray, test: NDArray) -> tuple[NDArray, NDArray]:
    """Both so that the training rows lie in [0, 1]; a column that is constant there is divided by 1."""
    low, width = train.min(0), np.ptp(train, axis=0)
    return _shifted(train, test, low, np.where(width > 0, width, 1.0))


def as_normal_scores(train: NDArray, test: NDArray) -> tuple[NDArray, NDArray]:
    """The standard normal quantile of each number's rank among the training rows, on average over equal ones.

    A number beyond all training rows lies half a rank beyond the extreme one.
    """

    def scores(rows: NDArray) -> NDArray:
        ranks = [
            np.searchsorted(column, values, "left") + np.searchsorted(column, values, "right")
            for column, values in zip(np.sort(train, axis=0).T, rows.T, strict=True)
        ]
        return ndtri((np.stack(ranks, axis=1) + 1) / (2 * len(train) + 2))

    return scores(train), scores(test)


def _shifted(
    train: NDArray, test: NDArray, centre: NDArray, scale: NDArray
) -> tuple[NDArray, NDArray]:
    return (train - centre) / scale, (test - centre) / scale


# -- from unpacked repositories -----------------------------------------------------------------

UNPACKED = {
    "TCCM": ("DISCRETE_ITD_TCCM", "FMAD/FlowMatchingAD.py"),
    "DTE-C": ("DISCRETE_ITD_DTE", "diffusion/dte.py"),
    "DTE-NP": ("DISCRETE_ITD_DTE", "diffusion/non_param_dte.py"),
}


def is_unpacked(label: str) -> bool:
    """Whether the files of a detector are there; if not, a line says what is skipped."""
    variable, file = UNPACKED[label]
    folder = os.environ.get(variable)
    found = bool(folder) and (Path(folder) / file).is_file()
    if not found:
        print(f"skipped {label}: {variable} does not name a folder with its files")
    return found


def tccm(train: NDArray, test: NDArray, seed: int) -> Scored:
    """TCCM on standardised columns, on the CPU: 100 epochs, a learning rate of 5e-3, batches of 512 rows.

    Its script for experiments has this rate for every data set and these batches for all of less than 10 000 rows. Its
    number of epochs, from 1 to 5000, goes by the name of the data set, with none for other names: so it is here that of
    the class, whose other defaults (1e-3, 64 rows) that script never uses.
    """
    (module,) = _modules("TCCM", "FMAD.FlowMatchingAD")
    settings = {"epochs": 100, "learning_rate": 5e-3, "batch_size": 512}
    return _fit_and_score_seeded(
        lambda: module.TCCM(n_features=train.shape[1], **settings),
        "decision_function", train, test, seed,
    )  # fmt: skip


def dte_c(train: NDArray, test: NDArray, seed: int) -> Scored:
    """DTE-C on standardised columns, with the defaults of its class, as its script has it, on the CPU.

    These are 400 epochs, a learning rate of 1e-4, a weight decay of 5e-4, batches of 64 rows, and 400 steps of
    diffusion in 7 classes. Scores that are not numbers count as 0, as in that script.
    """
    (module,) = _modules("DTE-C", "diffusion.dte")

    def model() -> Any:
        made = module.DTECategorical(seed=seed)
        made.device = torch.device("cpu")  # of itself it takes a GPU, if there is one
        return made

    return _fit_and_score_seeded(model, "predict_score", train, test, seed)


def dte_np(train: NDArray, test: NDArray, seed: int) -> Scored:
    """DTE-NP on standardised columns, with the defaults of its class since its last commit: 5 neighbours, 300 steps.

    The score is one of these steps, so many rows tie. Scores that are not numbers count as 0, as in DTE's script.
    """
    (module,) = _modules("DTE-NP", "diffusion.non_param_dte")
    return _fit_and_score_seeded(
        lambda: module.DTENonParametric(seed=seed, K=5), "predict_score", train, test, seed
    )


# of numbers; each takes training rows, test rows and a seed
OF_PAPERS: dict[str, Callable[[NDArray, NDArray, int], Scored]] = {
    "TCCM": tccm,
    "DTE-C": dte_c,
    "DTE-NP": dte_np,
}


def _fit_and_score_seeded(
    make: Callable[[], Any], method: str, train: NDArray, test: NDArray, seed: int
) -> Scored:
    """A model that draws from the global random stream, from ``seed`` on; the stream is left as it was."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of DTE-NP's division by the distance to equal rows
        torch.manual_seed(seed)
        model = make()
        _, fit_seconds = timed(model.fit, train)
        scores, score_seconds = timed(getattr(model, method), test)
    return Scored(np.nan_to_num(scores.astype(np.float64)), fit_seconds, score_seconds)


def _modules(label: str, *names: str) -> list[ModuleType]:
    """Modules of the repository of a detector."""
    with _importable(os.environ[UNPACKED[label][0]]):
        return [importlib.import_module(name) for name in names]


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
