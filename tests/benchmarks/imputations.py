"""Multiple imputation: how often intervals of 95 % of regression coefficients cover them where cells are missing.

    python -m tests.benchmarks.imputations
    python -m tests.benchmarks.imputations --tables "linear, MCAR" --methods complete "one fit:auto" --repeats 50
    python -m tests.benchmarks.imputations --filled FOLDER --most-rows 10000 --ways "one draw" "columns alone"

Tables of 400 rows are drawn: x1 is normal, x2 depends on it linearly or by its square, the category c by its value or
by its size, and y = 1 + x1 + x2 / 2 - [c = yes] + noise. Of x2 and of c a third of the cells is taken away:
completely at random (MCAR), or more often where y is large (MAR). Least squares of y on the others is right, whatever
the distribution of these; its estimates from M = 10 completed tables are pooled by Rubin's rules, with the t
distribution of his degrees of freedom. The same is asked of

* "full" and "complete": the table before the gaps, and its rows without one;
* "median" and "one draw": a single imputation of a fit of ours, by ``impute(X)`` and with ``method="sample"``;
* "one fit": M draws of one fit, whose parameters count as known;
* "halves": each of M tables by a fit to a random half of the rows, whose estimates differ from those of all rows as
  much as these do from the truth; "resampled": each by a fit to rows drawn with replacement;
* "mice": predictive mean matching by statsmodels (skipped without it), c as 0 and 1, five rounds before each table.

``denoiser=`` of a method is its word after the colon. Printed are coverage (mean over the four coefficients, standard
error over tables), the mean width of the intervals relative to "full", the largest bias of a coefficient in its
standard deviations over tables without gaps, and processor-seconds for all M tables.

With ``--filled``, 20, 30, 50 and 70 % of the cells of adult and of three public tables of the UCI repository (CSV
files of a folder: shoppers.csv, default.csv, beijing.csv) are taken away at random, and filled by one draw of a fit of
at most a minute, by its medians, and by draws from each column alone. Printed are the errors of shape and trend
(``fidelity.py``) of the filled table against the complete one, 0 at best.

References
----------
Rubin, "Multiple Imputation for Nonresponse in Surveys", 1987, chapter 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import t as student

from discrete_itd import DiffusionDensity
from discrete_itd.datasets import load_adult
from tests.benchmarks import fidelity
from tests.benchmarks.tables import available, machine, plus_minus, print_lines, processor_timed

N_ROWS, M, LEVEL = 400, 10, 0.95
COEFFICIENTS = np.array([1.0, 1.0, 0.5, -1.0])  # of the intercept, x1, x2, c
TABLES = ("linear, MAR", "bent, MAR", "linear, MCAR")
WAYS = ("one draw", "medians", "columns alone")
METHODS = ("full", "complete", "median:mixture", "one fit:mixture", "halves:mixture", "mice")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--filled", metavar="FOLDER", type=Path, help="of three CSV files")
    parser.add_argument("--most-rows", type=int, help="of a table that is filled")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="of filling")
    options = parser.parse_args()
    if options.filled:
        print(machine())
        header = ["table", "rows", "missing", "method", "shape", "trend", "mean", "CPU-s"]
        print_lines(header, _filled(options.filled, options.most_rows, options.ways))
        return
    if "mice" in options.methods and not available("statsmodels"):
        options.methods = [m for m in options.methods if m != "mice"]
    print(machine())
    header = ["table", "method", "coverage", "width", "largest bias", "CPU-s"]
    print_lines(header, _lines(options))


def _lines(options: argparse.Namespace) -> Iterator[list[object]]:
    for table in options.tables:
        shape, gaps = table.split(", ")
        results: dict[str, list[tuple[np.ndarray, np.ndarray, float]]] = {}
        for seed in range(options.repeats):
            frame = drawn(shape, seed)
            holed = with_gaps(frame, gaps, seed)
            fits: dict[str, tuple[DiffusionDensity, float]] = {}
            for method in dict.fromkeys(["full", *options.methods]):
                tables, seconds = completed(method, frame, holed, seed, fits)
                results.setdefault(method, []).append(
                    (*pooled([least_squares(t) for t in tables]), seconds)
                )
        estimates, halves, _ = zip(*results["full"], strict=True)
        spread, widths = np.std(estimates, axis=0, ddof=1), np.mean(halves, axis=0)
        for method, lines in results.items():
            estimates, halves, seconds = (np.array(part) for part in zip(*lines, strict=True))
            covered = (np.abs(estimates - COEFFICIENTS) <= halves).mean(1)
            bias = (estimates.mean(0) - COEFFICIENTS) / spread
            width = float((halves.mean(0) / widths).mean())
            worst = float(bias[np.abs(bias).argmax()])
            coverage = plus_minus(covered)
            yield [table, method, coverage, f"{width:.2f}", f"{worst:.2f}", f"{seconds.mean():.1f}"]


# columns of numbers; the others are categories, and of adult those of type "continuous"
NUMBERS = {
    "shoppers": "Administrative Administrative_Duration Informational Informational_Duration ProductRelated"
    " ProductRelated_Duration BounceRates ExitRates PageValues SpecialDay",
    "default": " ".join(
        ["LIMIT_BAL AGE", *(f"{kind}_AMT{i}" for kind in ("BILL", "PAY") for i in range(1, 7))]
    ),
    "beijing": "pm2.5 DEWP TEMP PRES Iws Is Ir",
}


def public_tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """Name, complete rows and columns of numbers of each table."""
    adult = load_adult()
    yield "adult", adult, list(adult.select_dtypes("number"))
    for name, numbers in NUMBERS.items():
        if not (folder / f"{name}.csv").exists():
            print(f"skipped: {folder / name}.csv is not there")
            continue
        frame = pd.read_csv(folder / f"{name}.csv").drop(columns=["No", "ID"], errors="ignore")
        frame = frame.dropna().reset_index(drop=True)
        others = [c for c in frame if c not in numbers.split()]
        yield name, frame.astype(dict.fromkeys(others, str)), numbers.split()


def _filled(folder: Path, most_rows: int | None, chosen: Sequence[str]) -> Iterator[list[object]]:
    for name, frame, numbers in public_tables(folder):
        if most_rows and len(frame) > most_rows:
            frame = frame.sample(most_rows, random_state=0).reset_index(drop=True)
        found: dict[str, list[list[float]]] = {}
        for share in (0.2, 0.3, 0.5, 0.7):
            rng = np.random.default_rng(int(10 * share))
            holed = frame.mask(rng.random(frame.shape) < share)
            density = DiffusionDensity(random_state=0, max_time=60)
            _, of_fit = processor_timed(density.fit, holed)
            one_draw = partial(density.impute, method="sample", random_state=1)
            ways = {
                "one draw": (of_fit, (one_draw, holed)),
                "medians": (of_fit, (density.impute, holed)),
                "columns alone": (0.0, (_of_each, holed, rng)),
            }
            for method in chosen:
                before, fill = ways[method]
                filled, seconds = processor_timed(*fill)
                errors = [1 - fidelity.shape(frame, filled, numbers)]
                errors += [1 - fidelity.trend(frame, filled, numbers)]
                found.setdefault(method, []).append(errors)
                means = [f"{e:.3f}" for e in (*errors, np.mean(errors))]
                seconds = f"{before + seconds:.0f}"
                yield [name, len(frame), f"{share:.0%}", method, *means, seconds]
        for method, errors in found.items():
            both = np.mean(errors, 0)
            means = [f"{e:.3f}" for e in (*both, both.mean())]
            yield [name, len(frame), "mean", method, *means, ""]


def _of_each(holed: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Gaps filled by draws from the known cells of their column."""
    filled = holed.copy()
    for name in holed:
        gaps, known = holed[name].isna(), holed[name].dropna().to_numpy()
        filled.loc[gaps, name] = rng.choice(known, gaps.sum())
    return filled


def drawn(shape: str, seed: int) -> pd.DataFrame:
    """A table without gaps."""
    rng = np.random.default_rng(seed)
    x1 = rng.normal(size=N_ROWS)
    bent = shape == "bent"
    x2 = (x1**2 if bent else 0.6 * x1) + 0.8 * rng.normal(size=N_ROWS)
    c = rng.random(N_ROWS) < expit(2 * np.abs(x1) - 1.5 if bent else x1)
    y = COEFFICIENTS @ [np.ones(N_ROWS), x1, x2, c] + rng.normal(size=N_ROWS)
    frame = pd.DataFrame({"x1": x1, "x2": x2, "c": np.where(c, "yes", "no"), "y": y})
    return frame.round(4)


def with_gaps(frame: pd.DataFrame, gaps: str, seed: int) -> pd.DataFrame:
    """The table with a third of the cells of x2 and c missing."""
    rng = np.random.default_rng((seed, 1))
    scores = (frame["y"] - frame["y"].mean()) / frame["y"].std()
    share = 1 / 3 if gaps == "MCAR" else expit(1.2 * scores - 0.9)
    return frame.assign(
        **{name: frame[name].mask(rng.random(len(frame)) < share) for name in ("x2", "c")}
    )


def completed(
    method: str,
    frame: pd.DataFrame,
    holed: pd.DataFrame,
    seed: int,
    fits: dict[str, tuple[DiffusionDensity, float]],
) -> tuple[list[pd.DataFrame], float]:
    """The tables from which a method estimates, and processor-seconds; ``fits`` keeps those to all rows."""
    if method == "full":
        return [frame], 0.0
    if method == "complete":
        return [holed.dropna()], 0.0
    if method == "mice":
        return processor_timed(_matched, holed, seed)
    how, _, denoiser = method.partition(":")
    density = DiffusionDensity(denoiser=denoiser, random_state=0)
    if how in ("halves", "resampled"):
        return processor_timed(_refitted, density, holed, how)
    if denoiser not in fits:
        fits[denoiser] = processor_timed(density.fit, holed)
    density, of_fit = fits[denoiser]
    if how == "median":
        tables, seconds = processor_timed(lambda: [density.impute(holed)])
    else:
        tables, seconds = processor_timed(_drawn, density, holed, 1 if how == "one draw" else M)
    return tables, of_fit + seconds


def _drawn(density: DiffusionDensity, holed: pd.DataFrame, n: int) -> list[pd.DataFrame]:
    rows = density.rows(holed)
    return [density.impute(rows, method="sample", random_state=i) for i in range(n)]


def _refitted(density: DiffusionDensity, holed: pd.DataFrame, how: str) -> list[pd.DataFrame]:
    tables = []
    for i in range(M):
        again = how == "resampled"
        part = holed.sample(frac=1 if again else 0.5, replace=again, random_state=i)
        density.fit(part, groups=part.index if again else None)
        tables.append(density.impute(holed, method="sample", random_state=i))
    return tables


def _matched(holed: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """M tables by statsmodels, whose draws come from numpy's global state."""
    from statsmodels.imputation.mice import MICEData

    np.random.seed(seed)
    chain = MICEData(holed.assign(c=holed["c"].map({"yes": 1.0, "no": 0.0}).astype(float)))
    tables = []
    for _ in range(M):
        chain.update_all(5)
        tables.append(chain.data.assign(c=np.where(chain.data["c"] > 0.5, "yes", "no")))
    return tables


def least_squares(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (4,) of y on a constant, x1, x2 and c, and their estimated variances (4,)."""
    x = np.column_stack(
        [np.ones(len(frame)), frame["x1"], frame["x2"], frame["c"] == "yes"]
    ).astype(float)
    y = frame["y"].to_numpy(float)
    inverse = np.linalg.inv(x.T @ x)
    estimate = inverse @ (x.T @ y)
    return estimate, ((y - x @ estimate) ** 2).sum() / (len(y) - x.shape[1]) * inverse.diagonal()


def pooled(results: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and half widths of their intervals by Rubin's rules; of one table, those of least squares."""
    estimates, variances = (np.array(part) for part in zip(*results, strict=True))
    within = variances.mean(0)
    if len(estimates) == 1:
        return estimates[0], student.ppf(0.5 + LEVEL / 2, N_ROWS - 4) * np.sqrt(within)
    between = (1 + 1 / len(estimates)) * estimates.var(0, ddof=1)
    freedom = (len(estimates) - 1) * (1 + within / np.maximum(between, 1e-9 * within)) ** 2
    return estimates.mean(0), student.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(within + between)


if __name__ == "__main__":
    main()
