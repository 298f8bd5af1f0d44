"""One column given the others, and missing cells: what a model answers beside methods trained for the question.

    python -m tests.benchmarks.conditionals loans adult mushroom plants HousingAnomaly
    python -m tests.benchmarks.conditionals loans --only columns --asked branch months
    python -m tests.benchmarks.conditionals adult mushroom car wine diabetes breast_cancer --only gaps
    python -m tests.benchmarks.conditionals wine diabetes car adult ISLR/Wage --only draws --imputer-rows 1000
    python -m tests.benchmarks.conditionals car --quick

Every model is fitted once, on complete training rows, and asked about the same new rows, normal ones where anomalies
are known. Three tables are printed:

- *columns*: one cell of each row given all others. A category has a log loss (nats; probabilities are at least
  ``LEAST``) and an accuracy, a number an absolute error and the root of the mean squared one, in standard deviations of
  the column among the new rows.
- *gaps*: a share of all cells is hidden at random; over the hidden cells, accuracy and log loss of the categories and
  errors of the numbers, and how many of the latter lie between the 10 % and the 90 % quantile of ``--draws``
  joint draws, which should be 0.8 (more where a column has atoms); and the nats of the cells that are left.
- *draws*: all hidden cells of a row at once, by scores that are least in expectation for the true distribution, as the
  errors of single guesses are not (arXiv:2511.04833). The energy score of ``--draws`` joint draws is
  E |x - X| - E |X - X'| / 2 over rows of numbers in standard deviations of the training rows and of categories that are
  at distance one of each other; a single guess is a draw that is always the same. The log score is
  -log P(hidden cells | cells left) in nats, which only a density has.

± are standard errors over rows. Columns of numbers or dates with more than ``MANY`` values are numbers, all others
categories. Methods:

- *model*: ``predict_proba`` and ``impute`` of the default; in gaps by medians, means and draws.
- *scored, value by value*: ``score_samples`` of the row with each value of the column in turn, normalised: what the
  model that scores rows says, whichever part of it answers questions.
- *companion*: a copy of the model that scores and answers by ``model_.companion`` alone, where there is one.
- *boosting*: scikit-learn's HistGradientBoosting with its defaults, trained for that one column.
- *IterativeImputer* (BayesianRidge), the same with *ExtraTrees* (``TREES`` trees), *KNNImputer*: with their defaults,
  on standardised numbers, from at most ``--imputer-rows`` training rows. The last has one-hot categories. The first two
  have their codes, rounded, and as many gaps in their training rows as there are among the new ones: one-hot, each
  category follows from the others of its column, which are missing with it, so that none moves from its mean.
- *most frequent, median* of the training column.
- of draws, from at most ``--imputer-rows`` training rows: *chained, PMM* is mice's default, a number that one of the
  ``DONORS`` rows with the nearest linear predictions has, with the uncertainty of the coefficients, and a category
  drawn from a logistic regression; *chained, forest donors* is mice's "rf", the value of a random training row in the
  leaf of a random tree; both by ``SWEEPS`` rounds over the columns. *IterativeImputer, drawn* samples scikit-learn's
  posterior, *IterativeImputer, one guess* is its default; *neighbours* takes all hidden cells from one of the
  ``DONORS`` training rows that are nearest in the known ones; *columns alone* draws each cell from its training column.

Seconds and milliseconds are the processor's, the latter of the answer alone, divided by the number of new rows.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype
from sklearn import datasets
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.metrics.pairwise import nan_euclidean_distances
from sklearn.model_selection import train_test_split

from discrete_itd.datasets import load_car
from tests.benchmarks import data
from tests.benchmarks.fast import load
from tests.benchmarks.real_tables import table_files
from tests.benchmarks.tables import estimator, machine, print_lines, processor_timed

LEAST = 1e-6  # probability
MANY = 32  # values
FEW_ROWS = 3  # of a category, below which boosting cannot split them for its early stopping
MOST_CATEGORIES = 255  # of a categorical feature of boosting
MEASURES = ["log loss", "accuracy", "error, s.d.", "RMSE, s.d.", "ms a row"]
TREES = 20
DONORS = 5
SWEEPS = 10
IMPUTERS = ("IterativeImputer", "ExtraTrees", "KNNImputer", "most frequent, median")
TOYS = ("wine", "diabetes", "breast_cancer")  # scikit-learn's
ASKED = {
    "loans": ["branch", "months", "income", "occupation", "instalment", "age"],
    "adult": ["income", "occupation", "marital_status", "hours_per_week", "age"],
    "mushroom": ["class", "odor", "habitat", "gill_color"],
    "HousingAnomaly": ["BATHRM", "BEDRM", "GBA", "PRICE", "LATITUDE"],
}


class Task(NamedTuple):
    """Training and new rows, frames, and which columns are numbers."""

    train: pd.DataFrame
    test: pd.DataFrame
    numbers: list[Any]


def main() -> None:
    """Print two tables per data set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--only", choices=["columns", "gaps", "draws"])
    parser.add_argument("--asked", nargs="+", help="columns")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--max-time", type=float, default=120.0, help="seconds of the fit")
    parser.add_argument("--denoiser", default="auto")
    parser.add_argument("--rows", type=int, default=600, help="new rows")
    parser.add_argument("--imputer-rows", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--no-peers", action="store_true", help="ours only")
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, few rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.draws, options.imputer_rows = 40, 4, 200
    print(machine())
    for name in options.tables:
        task = load_task(name, options)
        if task is None:
            continue
        model = estimator(options.max_time, quick=options.quick, denoiser=options.denoiser)
        _, fit = processor_timed(model.fit, task.train)
        ours: dict[str, Any] = {"model": model}
        if getattr(getattr(model, "model_", None), "companion", None) is not None:
            kind = type(model.model_.companion).__name__
            ours[f"companion ({kind})"] = by_companion(model)
        nats = {label: -m.score_samples(task.test).mean() for label, m in ours.items()}
        print(f"\n## {name}: {len(task.train)} x {task.train.shape[1]}, {len(task.test)} new rows")
        print(f"\nfitted in {fit:.0f} s, {type(model.denoiser_).__name__};", end=" ")
        print(", ".join(f"{label} {value:.3f} nats" for label, value in nats.items()), "a row\n")
        if options.only in (None, "columns"):
            show(["column", "method", *MEASURES], of_columns(task, ours, name, options))
        if options.only in (None, "gaps"):
            header = [
                "hidden",
                "method",
                *MEASURES,
                "draws cover",
                "nats",
                "ms to score",
                "s to fit",
            ]
            show(header, of_gaps(task, ours, fit, options))
        if options.only in (None, "draws"):
            header = ["hidden", "method", "energy", "method - ours", "log score", "ms a draw"]
            show(header, of_draws(task, model, options))


def show(header: list[str], lines: Iterator[list[object]]) -> None:
    """Print a table line by line."""
    print_lines(header, lines)
    print()


def load_task(name: str, options: argparse.Namespace) -> Task | None:
    """A table by name; None, with a line saying so, if it is not to be had."""
    if name in data.odd_names():
        train, test, is_odd = data.load_odd(name)
    elif name in ("car", *TOYS):
        frame = (
            load_car() if name == "car" else getattr(datasets, f"load_{name}")(as_frame=True).frame
        )
        train, test = train_test_split(frame, test_size=0.4, random_state=0)
        is_odd = None
    elif name in (files := table_files() if "/" in name else {}):
        frame = pd.read_pickle(files[name], compression="xz").dropna()
        frame = frame.drop(columns="rownames", errors="ignore")
        train, test = train_test_split(frame, test_size=0.4, random_state=0)
        is_odd = None
    else:
        rows = load(name)
        if rows is None:
            return None
        train, test, is_odd = rows
    if is_odd is not None:
        test = test[~is_odd]
    if name == "mushroom":  # truth values, too
        train, test = train.astype(str), test.astype(str)
    train = train.sample(min(len(train), 600) if options.quick else len(train), random_state=0)
    test = test.sample(min(len(test), options.rows), random_state=0)
    numbers = [
        c
        for c in train
        if (is_numeric_dtype(train[c]) or is_datetime64_any_dtype(train[c]))
        and train[c].nunique() > MANY
    ]
    return Task(train.reset_index(drop=True), test.reset_index(drop=True), numbers)


def by_companion(model: Any) -> Any:
    """A copy of a model, with the companion in the place of the denoiser."""
    twin = copy.copy(model)
    twin.model_ = dataclasses.replace(model.model_, denoiser=model.model_.companion, companion=None)
    return twin


# -- one column -----------------------------------------------------------------------------------


def of_columns(
    task: Task, ours: dict[str, Any], name: str, options: argparse.Namespace
) -> Iterator[list[object]]:
    """The lines of the first table."""
    for column in options.asked or ASKED.get(name) or informative(task.train):
        known = task.test[task.test[column].notna()].reset_index(drop=True)
        if column not in task.numbers:  # of a category that was never seen nothing can be said
            known = known[known[column].isin(task.train[column].unique())].reset_index(drop=True)
        is_number = column in task.numbers
        ask: dict[str, Callable[[], Any]] = {
            label: partial(of_ours, m, known, column, is_number) for label, m in ours.items()
        }
        if not is_number:
            ask["scored, value by value"] = partial(by_value, ours["model"], known, column)
        if not options.no_peers:
            ask["boosting"] = partial(boosting(task, column), known)
            ask["most frequent, median"] = partial(usual, task, known, column)
        for label, answer in ask.items():
            said, seconds = processor_timed(answer)
            marks = judged(said, known[column], is_number)
            yield [column, label, *marks, per_row(seconds, known)]


def informative(train: pd.DataFrame) -> list[Any]:
    """Four columns whose most frequent value is the least frequent."""
    share = {c: train[c].value_counts(normalize=True).iloc[0] for c in train}
    return sorted(share, key=share.__getitem__)[:4]


def without(rows: pd.DataFrame, column: Any) -> pd.DataFrame:
    """The rows with one column missing."""
    return rows.assign(**{column: rows[column].mask(np.ones(len(rows), bool))})


def of_ours(model: Any, rows: pd.DataFrame, column: Any, is_number: bool) -> Any:
    """Probabilities of a category, the guess of a number."""
    if is_number:
        return model.impute(without(rows, column))[column]
    return model.predict_proba(without(rows, column), column)


def by_value(model: Any, rows: pd.DataFrame, column: Any) -> pd.DataFrame:
    """Probabilities of each value by scores of whole rows."""
    values = model.predict_proba(rows[:1], column).columns
    asked = [rows.assign(**{column: pd.Series(v, rows.index, rows[column].dtype)}) for v in values]
    scores = model.score_samples(pd.concat(asked, ignore_index=True)).reshape(len(values), -1).T
    mass = np.exp(scores - scores.max(1, keepdims=True))
    return pd.DataFrame(mass / mass.sum(1, keepdims=True), columns=values)


def boosting(task: Task, column: Any) -> Callable[[pd.DataFrame], Any]:
    """Gradient boosting trained for one column; from rows to its answer."""
    train = task.train[task.train[column].notna()]
    if column not in task.numbers:
        n = train[column].map(train[column].value_counts()).astype(int)
        train = train[n >= FEW_ROWS]
    kinds = {c: categories(train[c]) for c in task.train if c != column}

    def features(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({c: feature(rows[c], kind) for c, kind in kinds.items()})

    if column in task.numbers:
        model = HistGradientBoostingRegressor(random_state=0)
        model.fit(features(train), as_number(train[column]))
        back = train[column].dtype
        return lambda rows: number_back(model.predict(features(rows)), back)
    codes, known = pd.factorize(train[column], sort=True)
    model = HistGradientBoostingClassifier(random_state=0).fit(features(train), codes)
    return lambda rows: pd.DataFrame(model.predict_proba(features(rows)), columns=known)


def categories(column: pd.Series) -> list[Any] | None:
    """The categories of a feature; None for a number."""
    if is_numeric_dtype(column) or is_datetime64_any_dtype(column):
        return None
    return sorted(column.dropna().unique())


def feature(column: pd.Series, kind: list[Any] | None) -> pd.Series:
    """A column as boosting takes it: numbers, and categories where there are not too many."""
    if kind is None:
        return as_number(column)
    codes = pd.Series(pd.Index(kind).get_indexer(column), index=column.index)
    return codes.astype("category") if len(kind) <= MOST_CATEGORIES else codes


def as_number(column: pd.Series) -> pd.Series:
    """Numbers; of dates, days."""
    if not is_datetime64_any_dtype(column):
        return column.astype(float) if is_numeric_dtype(column) else column
    return (column - pd.Timestamp("2000-01-01")) / pd.Timedelta(days=1)


def number_back(values: np.ndarray, dtype: Any) -> pd.Series:
    """Numbers as the column has them: days become dates."""
    out = pd.Series(values)
    if not is_datetime64_any_dtype(dtype):
        return out
    return pd.Timestamp("2000-01-01") + pd.to_timedelta(out, unit="D")


def usual(task: Task, rows: pd.DataFrame, column: Any) -> Any:
    """Shares, or the median, of the training column."""
    if column in task.numbers:
        return pd.Series([task.train[column].median()] * len(rows))
    share = task.train[column].value_counts(normalize=True)
    return pd.DataFrame(np.tile(share.to_numpy(), (len(rows), 1)), columns=share.index)


def judged(said: Any, truth: pd.Series, is_number: bool) -> list[str]:
    """Log loss, accuracy, absolute and squared error, with standard errors."""
    if is_number:
        error = errors_of(said, truth) / as_number(truth).std()
        return ["", "", with_error(error.abs()), root(error)]
    right = guesses(said) == as_objects(truth)
    return [with_error(log_loss(said, truth)), with_error(right), "", ""]


def errors_of(guess: pd.Series, truth: pd.Series) -> np.ndarray:
    """Differences of numbers; of dates, in days."""
    dtype = truth.dtype if is_datetime64_any_dtype(truth) else float
    return as_number(guess.astype(dtype)).to_numpy() - as_number(truth).to_numpy()


def root(error: np.ndarray, row: np.ndarray | None = None) -> str:
    """Root of the mean square and its standard error over rows."""
    mean, stderr = with_error(np.square(error), row).split(" ± ")
    rmse = np.sqrt(float(mean))
    return f"{rmse:.4f} ± {float(stderr) / max(2 * rmse, 1e-9):.4f}"


def log_loss(said: pd.DataFrame, truth: pd.Series) -> np.ndarray:
    """Nats of each true category."""
    place = {value: k for k, value in enumerate(said.columns)}
    at = np.array([place.get(value, -1) for value in truth])
    mass = np.where(at < 0, 0.0, said.to_numpy()[np.arange(len(truth)), at])
    return -np.log(np.maximum(mass, LEAST))


def guesses(said: pd.DataFrame) -> np.ndarray:
    """The most probable categories."""
    return np.array(list(said.columns), object)[said.to_numpy().argmax(1)]


def as_objects(column: pd.Series) -> np.ndarray:
    """The values, of whatever dtype, to be compared."""
    return column.astype(object).to_numpy()


def with_error(values: Any, row: np.ndarray | None = None) -> str:
    """Mean over cells and its standard error over rows; ``row`` says whose the cells are."""
    values = np.asarray(values, float)
    if len(values) == 0:
        return ""
    mean = values.mean()
    sums = values - mean
    if row is not None:
        sums = np.bincount(row, weights=sums)
    return f"{mean:.4f} ± {np.sqrt((sums**2).sum()) / len(values):.4f}"


# -- gaps -----------------------------------------------------------------------------------------


def drawn(model, rows, n):
    """Tables whose gaps are drawn, one for each of ``n`` seeds."""
    return [model.impute(rows, method="sample", random_state=seed) for seed in range(n)]


def of_gaps(
    task: Task, ours: dict[str, Any], fit: float, options: argparse.Namespace
) -> Iterator[list[object]]:
    """The lines of the second table; ``fit`` are the seconds of ours."""
    for fraction in options.fractions:
        hidden = hide(task.test, fraction, seed=1)
        rows = task.test.mask(hidden)
        for label, model in ours.items():
            losses = losses_of_gaps(task, hidden, rows, model)
            scores, scoring = processor_timed(model.score_samples, rows)
            of_score = [f"{-scores.mean():.3f}", per_row(scoring, rows), f"{fit:.1f}"]
            for method in ("median", "mean"):
                filled, seconds = processor_timed(partial(model.impute, method=method), rows)
                line = marks_of_gaps(task, hidden, filled, losses)
                time = per_row(seconds, rows)
                yield [f"{fraction:.0%}", f"{label}, {method}", *line, time, "", *of_score]
            draws, seconds = processor_timed(drawn, model, rows, options.draws)
            line = marks_of_gaps(task, hidden, draws[0], None)
            covered = coverage(task, hidden, draws)
            time = per_row(seconds / options.draws, rows)
            yield [f"{fraction:.0%}", f"{label}, a draw", *line, time, covered, "", "", ""]
        for label in () if options.no_peers else IMPUTERS:
            filled, seconds, own = by_imputer(label, task, rows, fraction, options.imputer_rows)
            line = marks_of_gaps(task, hidden, filled, None)
            time = per_row(seconds, rows)
            yield [f"{fraction:.0%}", label, *line, time, "", "", "", f"{own:.1f}"]


def per_row(seconds: float, rows: pd.DataFrame) -> str:
    """Milliseconds a row."""
    return f"{1e3 * seconds / len(rows):.3f}"


def hide(rows: pd.DataFrame, fraction: float, seed: int) -> np.ndarray:
    """Cells to hide, of those that are there: in each row, at least one stays."""
    random = np.random.default_rng(seed)
    hidden = random.random(rows.shape) < fraction
    hidden[np.arange(len(rows)), random.integers(rows.shape[1], size=len(rows))] = False
    return hidden & rows.notna().to_numpy()


def losses_of_gaps(
    task: Task, hidden: np.ndarray, rows: pd.DataFrame, model: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Log losses of the hidden categories, and whose they are."""
    losses, of = [np.empty(0)], [np.empty(0, int)]
    for j, column in enumerate(task.test):
        place = np.flatnonzero(hidden[:, j])
        if column in task.numbers or len(place) == 0 or task.train[column].nunique() < 2:
            continue
        said = model.predict_proba(rows.iloc[place], column)
        losses.append(log_loss(said, task.test[column].iloc[place]))
        of.append(place)
    return np.concatenate(losses), np.concatenate(of)


def marks_of_gaps(task: Task, hidden: np.ndarray, filled: pd.DataFrame, losses: Any) -> list[str]:
    """Log loss, accuracy, absolute and squared error over the hidden cells."""
    right, error = [], []
    for j, column in enumerate(task.test):
        place = np.flatnonzero(hidden[:, j])
        truth, guess = task.test[column].iloc[place], filled[column].iloc[place]
        if column in task.numbers:
            error.append((errors_of(guess, truth) / as_number(task.test[column]).std(), place))
        else:
            right.append((as_objects(truth) == as_objects(guess), place))
    marks = ["" if losses is None else with_error(*losses), "", "", ""]
    if right:
        marks[1] = with_error(*(np.concatenate(part) for part in zip(*right, strict=True)))
    if error:
        off, place = (np.concatenate(part) for part in zip(*error, strict=True))
        marks[2:] = with_error(np.abs(off), place), root(off, place)
    return marks


def coverage(task: Task, hidden: np.ndarray, draws: list[pd.DataFrame]) -> str:
    """How many hidden numbers lie between the 10 % and the 90 % quantile of their draws."""
    inside, of = [np.empty(0)], [np.empty(0, int)]
    for j, column in enumerate(task.test):
        place = np.flatnonzero(hidden[:, j])
        if column in task.numbers and len(place):
            drawn = np.stack([as_number(d[column].iloc[place]).to_numpy() for d in draws])
            truth = as_number(task.test[column].iloc[place]).to_numpy()
            low, high = np.quantile(drawn, (0.1, 0.9), axis=0)
            inside.append((low - 1e-9 <= truth) & (truth <= high + 1e-9))
            of.append(place)
    return with_error(np.concatenate(inside), np.concatenate(of))


def by_imputer(
    label: str, task: Task, rows: pd.DataFrame, fraction: float, n_rows: int
) -> tuple[pd.DataFrame, float, float]:
    """New rows filled by a peer, its processor-seconds, and those of its fit."""
    if label == "most frequent, median":
        usual = {
            c: task.train[c].median() if c in task.numbers else task.train[c].mode()[0]
            for c in rows
        }
        filled = {c: rows[c].where(rows[c].notna(), v) for c, v in usual.items()}
        return pd.DataFrame(filled), 0.0, 0.0
    train = task.train.sample(min(n_rows, len(task.train)), random_state=0)
    levels = {c: None if c in task.numbers else sorted(train[c].dropna().unique()) for c in rows}
    center = {c: as_number(train[c]).mean() for c in task.numbers}
    scale = {c: as_number(train[c]).std() or 1.0 for c in task.numbers}
    one_hot = label == "KNNImputer"

    def wide(frame: pd.DataFrame) -> np.ndarray:
        """Numbers and codes; for the neighbours, one-hot categories."""
        parts = []
        for c, known in levels.items():
            if known is None:
                z = (as_number(frame[c]) - center[c]) / scale[c]
                parts.append(z.to_numpy(float)[:, None])
            else:
                codes = pd.Index(known).get_indexer(frame[c])
                cells = np.eye(len(known))[codes] if one_hot else codes[:, None].astype(float)
                cells[codes < 0] = np.nan
                parts.append(cells)
        return np.concatenate(parts, 1)

    imputer: Any = KNNImputer(keep_empty_features=True)
    if not one_hot:
        train = train.mask(hide(train, fraction, seed=2))
        trees = ExtraTreesRegressor(TREES, random_state=0) if label == "ExtraTrees" else None
        imputer = IterativeImputer(trees, random_state=0, keep_empty_features=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, fit = processor_timed(lambda: imputer.fit(wide(train)))
        cells, seconds = processor_timed(lambda: imputer.transform(wide(rows)))
    filled, at = {}, 0
    for c, known in levels.items():
        block = cells[:, at : at + (len(known) if known is not None and one_hot else 1)]
        at += block.shape[1]
        if known is None:
            guess = number_back(block[:, 0] * scale[c] + center[c], rows[c].dtype)
        else:
            codes = block.argmax(1) if one_hot else block[:, 0].round().astype(int)
            guess = pd.Series(np.array(known, object)[codes.clip(0, len(known) - 1)])
        filled[c] = rows[c].astype(object).where(rows[c].notna(), guess)
    return pd.DataFrame(filled), seconds, fit


# -- draws of all gaps of a row ---------------------------------------------------------------------


class Codes:
    """Rows as numbers: numbers and dates in standard deviations, categories as positions.

    Parameters
    ----------
    task : Task
        The levels are those of both of its tables.
    """

    def __init__(self, task: Task) -> None:
        self.numbers = [c in task.numbers for c in task.train]
        both = pd.concat([task.train, task.test])
        self.levels = {c: sorted(both[c].dropna().unique()) for c in both if c not in task.numbers}
        values = {c: as_number(task.train[c]) for c in task.numbers}
        self.scale = {c: (v.mean(), v.std() or 1.0) for c, v in values.items()}

    def of(self, frame: pd.DataFrame) -> np.ndarray:
        """The cells (N, C), NaN where they are missing."""
        cells = []
        for c in frame:
            if c in self.scale:
                mean, sd = self.scale[c]
                cells.append((as_number(frame[c].infer_objects()) - mean).to_numpy(float) / sd)
            else:
                codes = pd.Index(self.levels[c]).get_indexer(frame[c].astype(object))
                cells.append(np.where(codes < 0, np.nan, codes))
        return np.stack(cells, 1)

    def points(self, cells: np.ndarray, left_out: int | None = None) -> np.ndarray:
        """Points whose squared distance adds up squared differences of numbers and one for each other category."""
        parts, sizes = [], iter(len(levels) for levels in self.levels.values())
        for j, is_number in enumerate(self.numbers):
            values, size = cells[..., j], 1 if is_number else next(sizes)
            if j != left_out:
                one_hot = (values[..., None] == np.arange(size)) / np.sqrt(2)
                one_hot = np.where(np.isnan(values)[..., None], np.nan, one_hot)
                parts.append(values[..., None] if is_number else one_hot)
        return np.concatenate(parts, -1)


def of_draws(task: Task, model: Any, options: argparse.Namespace) -> Iterator[list[object]]:
    """The lines of the third table."""
    codes, n = Codes(task), options.draws
    alone, _ = processor_timed(
        estimator(options.max_time, quick=options.quick, denoiser="independent").fit, task.train
    )
    truth = codes.of(task.test)
    for fraction in options.fractions:
        hidden = hide(task.test, fraction, seed=1)
        asked = hidden.any(1)
        rows, known = task.test.mask(hidden), np.where(hidden, np.nan, truth)
        train = task.train.sample(min(options.imputer_rows, len(task.train)), random_state=0)
        given = codes.of(train)
        methods: dict[str, Callable[[], Any]] = {
            "ours": lambda rows=rows: [codes.of(d) for d in drawn(model, rows, n)],
            "ours, one guess": lambda rows=rows: [codes.of(model.impute(rows))],
            "columns alone": partial(columns_alone, given, known, n),
        }
        if not options.no_peers:
            gaps = np.where(hide(train, fraction, seed=2), np.nan, given)
            methods |= {
                "chained, PMM": partial(chained, codes, given, known, n, regression_donor),
                "chained, forest donors": partial(chained, codes, given, known, n, forest_donor),
                "IterativeImputer, drawn": partial(posterior, codes, gaps, known, n),
                "IterativeImputer, one guess": partial(posterior, codes, gaps, known, 0),
                "neighbours": partial(neighbours, codes, given, known, n),
            }
        ours = None
        for label, answer in methods.items():
            draws, seconds = processor_timed(answer)
            score = energy(codes, truth, np.stack(draws))[asked]
            ours = score if ours is None else ours
            fitted = {"ours": model, "columns alone": alone}.get(label)
            nats = "" if fitted is None else with_error(log_score(fitted, task.test, rows)[asked])
            less = "" if score is ours else with_error(score - ours)
            time = per_row(seconds / len(draws), rows)
            yield [f"{fraction:.0%}", label, with_error(score), less, nats, time]


def log_score(model: Any, rows: pd.DataFrame, masked: pd.DataFrame) -> np.ndarray:
    """Nats of the hidden cells of each row, given those that are left."""
    return model.score_samples(masked) - model.score_samples(rows)


def energy(codes: Codes, truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Energy score of each row (N,), of draws (n, N, C)."""
    x, points = codes.points(truth), codes.points(draws)
    n = len(points)
    apart = np.zeros(len(x))
    for k in range(1, n):
        apart += np.linalg.norm(points[k:] - points[:-k], axis=-1).sum(0)
    return np.linalg.norm(points - x, axis=-1).mean(0) - apart / max(n * (n - 1), 1)


def columns_alone(train: np.ndarray, known: np.ndarray, n: int) -> np.ndarray:
    """Draws (n, N, C): each gap from its training column."""
    random = np.random.default_rng(0)
    rows = random.integers(len(train), size=(n, *known.shape))
    return np.where(np.isnan(known), np.take_along_axis(train[None], rows, 1), known)


def neighbours(codes: Codes, train: np.ndarray, known: np.ndarray, n: int) -> np.ndarray:
    """Draws (n, N, C): all gaps of a row from one of the nearest training rows."""
    far = nan_euclidean_distances(codes.points(known), codes.points(train))
    nearest = far.argsort(1)[:, :DONORS]
    chosen = np.random.default_rng(0).integers(DONORS, size=(n, len(known)))
    return np.where(np.isnan(known), train[nearest[np.arange(len(known)), chosen]], known)


def posterior(codes: Codes, gaps: np.ndarray, known: np.ndarray, n: int) -> list[np.ndarray]:
    """Draws by scikit-learn's chained Gaussians, categories as rounded codes; without ``n`` its single guess."""
    imputer = IterativeImputer(
        sample_posterior=n > 0, max_iter=SWEEPS, random_state=0, keep_empty_features=True
    )
    top = np.array([np.inf if is_number else 0 for is_number in codes.numbers])
    top[np.isfinite(top)] = [len(levels) - 1 for levels in codes.levels.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer.fit(gaps)
        draws = [imputer.transform(known) for _ in range(max(n, 1))]
    return [np.where(np.isfinite(top), d.round().clip(0, top), d) for d in draws]


Donor = Callable[[np.ndarray, np.ndarray, bool, np.random.Generator], Callable[..., np.ndarray]]


def chained(codes: Codes, train: np.ndarray, known: np.ndarray, n: int, donor: Donor) -> np.ndarray:
    """Draws (n, N, C) by rounds over the columns, each drawn given all others, as in mice."""
    random = np.random.default_rng(0)
    state, gaps = columns_alone(train, known, n).reshape(-1, known.shape[1]), np.isnan(known)
    gaps = np.tile(gaps, (n, 1))
    asked = [j for j in range(known.shape[1]) if gaps[:, j].any() and np.ptp(train[:, j]) > 0]
    fits = {j: donor(codes.points(train, j), train[:, j], codes.numbers[j], random) for j in asked}
    for _ in range(SWEEPS):
        for j in asked:
            rows = gaps[:, j]
            state[rows, j] = fits[j](codes.points(state[rows], j))
    return state.reshape(n, *known.shape)


def regression_donor(
    X: np.ndarray, y: np.ndarray, is_number: bool, random: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """Predictive mean matching of a number, logistic regression of a category; from features to draws."""
    if not is_number:
        logistic = LogisticRegression(max_iter=300).fit(X, y)

        def category(asked: np.ndarray) -> np.ndarray:
            below = logistic.predict_proba(asked).cumsum(1)
            return logistic.classes_[
                (random.random((len(asked), 1)) * below[:, -1:] > below).sum(1)
            ]

        return category
    ridge, center = BayesianRidge().fit(X, y), X.mean(0)

    def predicted(rows: np.ndarray) -> np.ndarray:  # by coefficients drawn for each row
        off = rows - center
        variance = ((off @ ridge.sigma_) * off).sum(1).clip(0)
        return ridge.predict(rows) + np.sqrt(variance) * random.normal(size=len(rows))

    of_train = predicted(X)
    order = of_train.argsort()
    around = np.arange(-DONORS, DONORS)

    def number(asked: np.ndarray) -> np.ndarray:
        wanted = predicted(asked)
        at = np.searchsorted(of_train[order], wanted).clip(DONORS, len(y) - DONORS)
        window = order[at[:, None] + around]
        nearest = np.abs(of_train[window] - wanted[:, None]).argsort(1)
        chosen = nearest[np.arange(len(asked)), random.integers(DONORS, size=len(asked))]
        return y[window[np.arange(len(asked)), chosen]]

    return number


def forest_donor(
    X: np.ndarray, y: np.ndarray, is_number: bool, random: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """The value of a training row in the leaf of a random tree; from features to draws."""
    kind = RandomForestRegressor if is_number else RandomForestClassifier
    forest = kind(TREES, min_samples_leaf=DONORS, max_features=1 / 3, random_state=0).fit(X, y)
    leaves = forest.apply(X)
    order = leaves.argsort(0)

    def draw(asked: np.ndarray) -> np.ndarray:
        out, trees = np.empty(len(asked)), random.integers(TREES, size=len(asked))
        for tree in np.unique(trees):
            rows, sorted_leaves = trees == tree, leaves[order[:, tree], tree]
            of = forest.estimators_[tree].apply(asked[rows].astype(np.float32))
            first, last = (np.searchsorted(sorted_leaves, of, side) for side in ("left", "right"))
            at = first + (random.random(len(of)) * (last - first)).astype(int)
            out[rows] = y[order[at, tree]]
        return out

    return draw


if __name__ == "__main__":
    main()
