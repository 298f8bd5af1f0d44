"""Filling in missing cells: accuracy, error and calibration of this library beside scikit-learn's imputers.

    python -m tests.benchmarks.imputation mushroom adult --max-time 60
    python -m tests.benchmarks.imputation diamonds --fractions 0.3 --trees 1000
    python -m tests.benchmarks.imputation car --quick

Cells are hidden completely at random, the same share in training and in test rows; all methods are fitted on the
training rows with their gaps and fill the gaps of the same test rows. Printed, over the hidden cells of the test rows:

- accuracy of categories, and the expected calibration error of the probability of the chosen one (ten bins);
- root mean square error of numbers, in standard deviations of their training column, and the share of hidden values
  between the 10 % and the 90 % quantile of ``--draws`` draws, which should be 0.8 (more where a column has atoms).

A method that gives no probabilities or draws has no calibration. Ours: categories by ``predict_proba``, the cell's
distribution given the rest of the row with its gaps marginalised; numbers by ``impute(method="sample")``, the mean of
the draws being the guess; and, apart, the single guess of ``impute(method="mode")``. IterativeImputer knows categories
as numbers only, in the order of their levels.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from discrete_itd.datasets import load_car, load_mushroom
from tests.benchmarks.data import load_mixed
from tests.benchmarks.optional_peers import Trees
from tests.benchmarks.peers import Cells
from tests.benchmarks.tables import available, estimator, machine, markdown, timed


class Task(NamedTuple):
    """Training and test rows with gaps, as frames and as arrays of numbers and codes (nan where hidden).

    ``levels`` lists the categories of each column, None for a number; numbers of the arrays are standardised by
    ``location`` and ``scale``. ``truth`` is the test array without gaps.
    """

    train_frame: pd.DataFrame
    test_frame: pd.DataFrame
    train: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    levels: list[list | None]
    location: np.ndarray
    scale: np.ndarray


class Filled(NamedTuple):
    """What a method says: a guess per cell, and for hidden cells what it knows beyond that.

    ``mass`` maps a column of categories to (rows that lack it, K); ``draws`` is (n_draws, N, C).
    """

    guess: np.ndarray
    mass: dict[int, np.ndarray] | None = None
    draws: np.ndarray | None = None


def main() -> None:
    """Print one table per data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=["mushroom", "adult"])
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--rows", type=int, default=6000, help="training rows at most")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of training, per fit")
    parser.add_argument("--numbers", help="kind of the numbers for ours: continuous, binned, ...")
    parser.add_argument(
        "--trees", type=int, default=0, help="training rows of UnmaskingTrees; 0 skips it"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, few rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.test_rows, options.draws = 600, 100, 10
    print(machine())
    header = ["hidden", "method", "accuracy", "calibration error", "error of numbers, s.d."]
    header += ["80 % intervals cover", "s to fit and fill"]
    for name in options.tables:
        frame, numbers = _load(name)
        if frame is None:
            continue
        print(f"\n## {name}: {frame.shape[1]} columns, of which {len(numbers)} numbers\n")
        print("\n".join(markdown(header, [[""] * len(header)]).splitlines()[:2]), flush=True)
        for fraction in options.fractions:
            task = _task(frame, numbers, fraction, options)
            for label, fill in _methods(numbers, options):
                filled, seconds = timed(fill, task)
                row = [f"{fraction:.0%}", label, *_marks(task, filled), f"{seconds:.0f}"]
                print(markdown(header, [row]).splitlines()[2], flush=True)


def _load(name: str) -> tuple[pd.DataFrame | None, list[str]]:
    """A table and its numeric columns."""
    if name in ("mushroom", "car"):
        frame = load_mushroom() if name == "mushroom" else load_car()
        if name == "mushroom":
            frame["bruises"] = frame["bruises"].map({True: "yes", False: "no"}).astype("category")
        return frame, []
    table = load_mixed(name)
    return (None, []) if table is None else (table.frame, list(table.resolution))


def _task(
    frame: pd.DataFrame, numbers: list[str], fraction: float, options: argparse.Namespace
) -> Task:
    """Split, code, hide."""
    random = np.random.default_rng(0)
    order = random.permutation(len(frame))
    n_test = min(options.test_rows, len(frame) // 5)
    kept = frame.iloc[order[: n_test + options.rows]].reset_index(drop=True)
    levels = [None if c in numbers else list(kept[c].cat.categories) for c in kept]
    array = np.stack(
        [
            kept[c].to_numpy(np.float64) if c in numbers else kept[c].cat.codes.to_numpy(np.float64)
            for c in kept
        ],
        axis=1,
    )
    is_number = np.array([level is None for level in levels])
    location = np.where(is_number, array[n_test:].mean(0), 0.0)
    scale = np.where(is_number & (array.std(0) > 0), array[n_test:].std(0), 1.0)
    array = (array - location) / scale
    hidden = random.random(array.shape) < fraction
    hidden[np.arange(len(array)), random.integers(0, array.shape[1], len(array))] = False
    gaps = np.where(hidden, np.nan, array)
    frames = kept.astype({c: np.float64 for c in numbers}).mask(hidden)
    return Task(
        frames.iloc[n_test:].reset_index(drop=True),
        frames.iloc[:n_test],
        gaps[n_test:],
        gaps[:n_test],
        array[:n_test],
        levels,
        location,
        scale,
    )


# -- the marks ----------------------------------------------------------------------------------


def _marks(task: Task, filled: Filled) -> list[str]:
    """Accuracy, calibration error, error of numbers, coverage; empty where there is nothing to say."""
    right, sure, errors, covered = [], [], [], []
    for j, level in enumerate(task.levels):
        rows = np.isnan(task.test[:, j])
        truth, guess = task.truth[rows, j], filled.guess[rows, j]
        if level is None:
            errors.append((guess - truth) ** 2)
            if filled.draws is not None:
                low, high = np.quantile(filled.draws[:, rows, j], (0.1, 0.9), axis=0)
                covered.append((low - 1e-9 <= truth) & (truth <= high + 1e-9))
        else:
            right.append(guess == truth)
            if filled.mass is not None:
                sure.append(filled.mass[j].max(axis=1))
    marks = ["", "", "", ""]
    if right:
        marks[0] = f"{np.concatenate(right).mean():.3f}"
    if sure:
        marks[1] = f"{calibration_error(np.concatenate(sure), np.concatenate(right)):.3f}"
    if errors:
        marks[2] = f"{np.concatenate(errors).mean() ** 0.5:.3f}"
    if covered:
        marks[3] = f"{np.concatenate(covered).mean():.3f}"
    return marks


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = 10) -> float:
    """Mean over cells of the gap between confidence and accuracy in the cell's bin of confidence."""
    place = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(right))


# -- the methods --------------------------------------------------------------------------------


def _methods(
    numbers: list[str], options: argparse.Namespace
) -> list[tuple[str, Callable[[Task], Filled]]]:
    """Labels, and functions from the task to what they filled in."""
    kinds = dict.fromkeys(numbers, options.numbers) if options.numbers else None
    model = estimator(options.max_time, quick=options.quick, column_types=kinds)

    def fitted(task: Task) -> Filled:
        model.fit(task.train_frame)
        return _from_draws_of_ours(model, task, options.draws)

    methods: list[tuple[str, Callable[[Task], Filled]]] = [
        ("discrete_itd", fitted),
        (
            "discrete_itd, mode (same fit)",
            lambda task: Filled(_coded(model.impute(task.test_frame, method="mode"), task)),
        ),
        ("most frequent, mean", _simple),
        ("nearest neighbours, one-hot", _neighbours),
        ("IterativeImputer", lambda task: _iterative(task, options.draws)),
    ]
    if options.trees and available("utrees"):
        methods.append(("UnmaskingTrees", lambda task: _trees(task, options)))
    return methods


def _from_draws_of_ours(model, task: Task, n_draws: int) -> Filled:
    frames = model.impute(task.test_frame, method="sample", n_draws=n_draws, random_state=0)
    draws = np.stack([_coded(frame, task) for frame in frames])
    guess, mass = draws.mean(0), {}
    for j, (column, level) in enumerate(zip(task.test_frame, task.levels, strict=True)):
        if level is None:
            continue
        rows = np.isnan(task.test[:, j])
        mass[j] = np.empty((rows.sum(), len(level)))
        if rows.any():
            table = model.predict_proba(task.test_frame[rows], column)
            mass[j] = table.reindex(columns=level, fill_value=0.0).to_numpy()
        guess[:, j] = task.test[:, j]
        guess[rows, j] = mass[j].argmax(1)
    return Filled(guess, mass, draws)


def _coded(frame: pd.DataFrame, task: Task) -> np.ndarray:
    """A filled frame as the arrays of the task."""
    columns = []
    for j, (column, level) in enumerate(zip(task.test_frame, task.levels, strict=True)):
        if level is None:
            values = frame[column].to_numpy(np.float64)
            columns.append((values - task.location[j]) / task.scale[j])
        else:
            columns.append(pd.Categorical(frame[column], categories=level).codes.astype(np.float64))
    return np.stack(columns, axis=1)


def _simple(task: Task) -> Filled:
    guess = task.test.copy()
    mass = {}
    for j, level in enumerate(task.levels):
        how = "mean" if level is None else "most_frequent"
        imputer = SimpleImputer(strategy=how).fit(task.train[:, [j]])
        guess[:, [j]] = imputer.transform(task.test[:, [j]])
        if level is not None:
            seen = task.train[~np.isnan(task.train[:, j]), j].astype(int)
            share = np.bincount(seen, minlength=len(level)) / len(seen)
            mass[j] = np.tile(share, (np.isnan(task.test[:, j]).sum(), 1))
    return Filled(guess, mass)


def _neighbours(task: Task) -> Filled:
    """KNNImputer with one-hot categories: the share of each among the neighbours is a probability."""
    blocks, train, test, first = [], [], [], 0
    for j, level in enumerate(task.levels):
        width = 1 if level is None else len(level)
        blocks.append(slice(first, first + width))
        first += width
        for array, out in ((task.train, train), (task.test, test)):
            out.append(array[:, [j]] if level is None else _one_hot(array[:, j], width))
    imputer = KNNImputer(n_neighbors=10, keep_empty_features=True)
    wide = imputer.fit(np.concatenate(train, axis=1)).transform(np.concatenate(test, axis=1))
    guess, mass = task.test.copy(), {}
    for j, (level, block) in enumerate(zip(task.levels, blocks, strict=True)):
        rows = np.isnan(task.test[:, j])
        guess[rows, j] = wide[rows, block.start] if level is None else wide[rows, block].argmax(1)
        if level is not None:
            mass[j] = wide[rows, block]
    return Filled(guess, mass)


def _one_hot(codes: np.ndarray, n: int) -> np.ndarray:
    missing = np.isnan(codes)
    out = np.eye(n)[np.where(missing, 0, codes).astype(int)]
    out[missing] = np.nan
    return out


def _iterative(task: Task, n_draws: int) -> Filled:
    """IterativeImputer (Bayesian ridge) on standardised numbers and codes, the latter rounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer = IterativeImputer(random_state=0, keep_empty_features=True).fit(task.train)
        guess = _rounded(imputer.transform(task.test), task)
        if all(level is not None for level in task.levels):
            return Filled(guess)
        sampler = IterativeImputer(sample_posterior=True, random_state=0, keep_empty_features=True)
        sampler.fit(task.train)
        draws = np.stack([sampler.transform(task.test) for _ in range(n_draws)])
    return Filled(guess, None, draws)


def _rounded(array: np.ndarray, task: Task) -> np.ndarray:
    array = array.copy()
    for j, level in enumerate(task.levels):
        if level is not None:
            array[:, j] = array[:, j].round().clip(0, len(level) - 1)
    return array


def _trees(task: Task, options: argparse.Namespace) -> Filled:
    """UnmaskingTrees, fitted on some of the training rows; shares of its draws are the probabilities."""
    numbers = [j for j, level in enumerate(task.levels) if level is None]
    others = [j for j, level in enumerate(task.levels) if level is not None]
    order = numbers + others
    codes = np.nan_to_num(task.train[:, others], nan=-1).astype(np.intp)
    sizes = tuple(len(task.levels[j] or ()) for j in others)
    cells = Cells(task.train[:, numbers], codes, np.zeros(len(numbers)), sizes)
    model = Trees(n_rows=options.trees, duplicates=1 if options.quick else 5).fit(cells)
    draws = model.impute(task.test[:, order], options.draws)[:, :, np.argsort(order)]
    guess, mass = draws.mean(0), {}
    for j in others:
        rows = np.isnan(task.test[:, j])
        votes = draws[:, :, j].astype(int)
        mass[j] = np.stack([(votes == k).mean(0) for k in range(len(task.levels[j] or ()))], axis=1)
        guess[:, j] = mass[j].argmax(1)
        mass[j] = mass[j][rows]
    return Filled(guess, mass, draws)


if __name__ == "__main__":
    main()
