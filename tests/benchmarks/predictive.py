"""The distribution of a number given the other columns: ours beside gradient boosting of quantiles.

    python -m tests.benchmarks.predictive --max-time 40
    python -m tests.benchmarks.predictive concrete --max-time 10 --rows 100

One number of each of ten tables given all other cells, of new rows; the same rows for both methods, and at most
``--train`` of them to fit to. *ours* is one default model of all columns, asked by ``predict_quantiles``; *boosting* is
scikit-learn's ``HistGradientBoostingRegressor(loss="quantile")``, one for each of the ``LEVELS``, trained for that one
column, its quantiles sorted. In standard deviations of the column among the new rows:

- *CRPS*: the continuous ranked probability score, twice the mean pinball loss of the 19 levels .05, .1, ... .95;
- *tails*: the mean pinball loss at .05 and .95;
- *covers*: the share of the new rows between these two quantiles, .9 if they are right, and the *width* between them.

± are standard errors over new rows, of the difference those of pairs. Seconds and rows per second are the processor's,
of boosting for all its levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split

from discrete_itd.datasets import load_adult
from tests.benchmarks.conditionals import categories, feature
from tests.benchmarks.real_tables import table_files
from tests.benchmarks.tables import estimator, machine, plus_minus, print_lines, processor_timed

LEVELS = np.arange(1, 20) / 20
# the column asked about, and columns that give it away
ASKED = {
    "diabetes": ("target", []),
    "adult": ("age", []),
    "hours": ("hours_per_week", []),
    "ggplot2/diamonds": ("price", []),
    "modeldata/ames": ("Sale_Price", []),
    "modeldata/concrete": ("compressive_strength", []),
    "modeldata/Sacramento": ("price", []),
    "modeldata/car_prices": ("Price", []),
    "MASS/Boston": ("medv", []),
    "ISLR/Wage": ("wage", ["logwage"]),
}
HEADER = ["table", "rows", "method", "CRPS", "tails", "covers", "width", "s to fit", "rows/s"]


def main() -> None:
    """Print three lines per table: both methods, and their difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", help="names, or parts of them; by default all")
    parser.add_argument("--max-time", type=float, default=40.0, help="seconds of our fit")
    parser.add_argument("--denoiser", default="auto", help="of ours")
    parser.add_argument("--train", type=int, default=1500, help="rows to fit to")
    parser.add_argument("--rows", type=int, default=500, help="new rows")
    options = parser.parse_args()
    print(machine(), "\n")
    print_lines(HEADER, compared(options))


def compared(options: argparse.Namespace) -> Iterator[list[object]]:
    """The lines of the table."""
    for name, (column, left_out) in ASKED.items():
        frame = load(name) if not options.tables or any(t in name for t in options.tables) else None
        if frame is None:
            continue
        frame = frame.drop(columns=left_out)[frame[column].notna()].reset_index(drop=True)
        n = min(options.train, int(0.6 * len(frame)))
        train, test = train_test_split(frame, train_size=n, random_state=0)
        test = test[: options.rows]
        truth, losses = test[column].to_numpy(float), []
        for method, answer in {"ours": ours, "boosting": boosting}.items():
            quantiles, *seconds = answer(train, test, column, options)
            off = (truth[:, None] - quantiles) / truth.std()
            pinball = np.maximum(LEVELS * off, (LEVELS - 1) * off)
            losses.append([2 * pinball.mean(1), pinball[:, [0, -1]].mean(1)])
            inside = (quantiles[:, 0] <= truth) & (truth <= quantiles[:, -1])
            marks = [*map(plus_minus, losses[-1]), plus_minus(inside.astype(float))]
            width = (quantiles[:, -1] - quantiles[:, 0]).mean() / truth.std()
            times = [f"{seconds[0]:.0f}", f"{len(test) / seconds[1]:.0f}"]
            yield [f"{name}, {column}", f"{n} + {len(test)}", method, *marks, float(width), *times]
        difference = [plus_minus(a - b) for a, b in zip(*losses, strict=True)]
        yield ["", "", "ours - boosting", *difference, "", "", "", ""]


def load(name: str) -> pd.DataFrame | None:
    """A table by name; None if its package is not installed."""
    if name in ("adult", "hours"):
        return load_adult()
    if name == "diabetes":
        return datasets.load_diabetes(as_frame=True, scaled=False).frame
    file = table_files().get(name)
    return (
        None
        if file is None
        else pd.read_pickle(file, compression="xz").drop(columns="rownames", errors="ignore")
    )


def ours(
    train: pd.DataFrame, test: pd.DataFrame, column: str, options: argparse.Namespace
) -> tuple[np.ndarray, float, float]:
    """Quantiles (N, n) of new rows, and processor-seconds of the fit and of the answer."""
    model, fit = processor_timed(estimator(options.max_time, denoiser=options.denoiser).fit, train)
    found, seconds = processor_timed(model.predict_quantiles, test, column, LEVELS)
    return found.to_numpy(float), fit, seconds


def boosting(
    train: pd.DataFrame, test: pd.DataFrame, column: str, _: argparse.Namespace
) -> tuple[np.ndarray, float, float]:
    """The same of a model for each quantile."""
    kinds = {c: categories(train[c]) for c in train if c != column}
    x, new = (
        pd.DataFrame({c: feature(rows[c], kind) for c, kind in kinds.items()})
        for rows in (train, test)
    )
    found, fit, seconds = [], 0.0, 0.0
    for q in LEVELS:
        model = HistGradientBoostingRegressor(loss="quantile", quantile=q, random_state=0)
        _, more = processor_timed(model.fit, x, train[column].to_numpy(float))
        predicted, asked = processor_timed(model.predict, new)
        found.append(predicted)
        fit, seconds = fit + more, seconds + asked
    return np.sort(np.stack(found, 1), 1), fit, seconds


if __name__ == "__main__":
    main()
