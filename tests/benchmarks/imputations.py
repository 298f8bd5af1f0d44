"""Multiple imputation: how often intervals of 95 % of regression coefficients cover them where cells are missing.

    python -m tests.benchmarks.imputations
    python -m tests.benchmarks.imputations --tables "linear, MCAR" --methods complete "one fit:auto" --repeats 50

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

References
----------
Rubin, "Multiple Imputation for Nonresponse in Surveys", 1987, chapter 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import t as student

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import available, machine, plus_minus, print_lines, processor_timed

N_ROWS, M, LEVEL = 400, 10, 0.95
COEFFICIENTS = np.array([1.0, 1.0, 0.5, -1.0])  # of the intercept, x1, x2, c
TABLES = ("linear, MAR", "bent, MAR", "linear, MCAR")
METHODS = ("full", "complete", "median:mixture", "one fit:mixture", "halves:mixture", "mice")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
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
