"""How cost grows: processor-seconds to fit and to score against rows and columns, beside the peers, with the exponent.

    python -m tests.benchmarks.growth --figure notebooks/growth.png
    python -m tests.benchmarks.growth --methods detector causal tree --rows 1000 10000
    python -m tests.benchmarks.growth --cells

Rows of a mixture of eight classes, half of whose columns are numbers, correlated in each class, and half categories of
five levels (``costs.drawn``), by rows of 20 columns and by columns of 2 000 rows, with one thread. Methods are the
default detector, peers (of ``costs.py``: of more than 20 000 rows, nearest neighbours and boosting fit to so many) and
denoisers of densities; the network that is scored along paths makes 100 steps whatever the size. Exponents are slopes
of a straight line through the logarithms of the three largest sizes. A method whose fit took ``--most`` seconds, by
default 600, is not asked for larger sizes. The figure has the same lines.

``--cells`` prints instead the CPU-seconds of ``find_errors``, and the largest memory of its process, by rows of 20
columns and by columns of 60 rows: of categories as text, and of keys, places that follow from them, prices, counts and
days in turn.
"""

from __future__ import annotations

import argparse
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, find_errors
from discrete_itd.models.networks import QUICK_MIXTURE
from discrete_itd.recipes import BayesNet, Causal, Network, Recipe, Tree
from tests.benchmarks import costs, messy
from tests.benchmarks.tables import machine, markdown, processor_timed

RECIPES: dict[str, Recipe] = {
    "causal": Causal(),
    "mixture": QUICK_MIXTURE,
    "network": Network(),
    "tree": Tree(),
    "Bayesian network": BayesNet(256),
}
DETECTOR = "detector"
SCORED, N_COLUMNS, N_ROWS, NETWORK_STEPS = 1000, 20, 2000, 100


def main() -> None:
    """Print one table by rows, one by columns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2000, 10_000, 50_000, 200_000])
    parser.add_argument("--columns", type=int, nargs="+", default=[5, 20, 100, 300])
    usual = [DETECTOR, *costs.PEERS]
    parser.add_argument("--methods", nargs="+", choices=[*usual, *RECIPES], default=usual)
    parser.add_argument("--most", type=float, default=600, help="seconds of a fit")
    parser.add_argument("--figure", type=Path, help="where to write the plot")
    parser.add_argument("--cells", action="store_true")
    options = parser.parse_args()
    print(machine(), flush=True)
    if options.cells:
        report_cells()
        return
    sizes = {
        "rows": [(n, N_COLUMNS) for n in options.rows],
        "columns": [(N_ROWS, n) for n in options.columns],
    }
    warm = costs.drawn(300, 2, 2)  # what is imported at the first fit is no cost of a table
    for method in options.methods:
        measured(method, warm[:200], warm[200:])
    curves = {what: report(what, sizes[what], options.methods, options.most) for what in sizes}
    if options.figure:
        draw(curves, sizes, options.figure)


def rows(n: int, n_columns: int) -> np.ndarray:
    """Codes drawn from a mixture of products: (n, C)."""
    rng = np.random.default_rng(0)
    tables = rng.dirichlet([0.5] * 4, size=(8, n_columns)).cumsum(2)
    z = rng.integers(8, size=n)
    out = np.empty((n, n_columns), dtype=np.int64)
    for j in range(n_columns):
        out[:, j] = (rng.random((n, 1)) > tables[z, j]).sum(1).clip(0, 3)
    return out


CELLS = [(1000, 20), (5000, 20), (20_000, 20), (60, 100), (60, 1000), (60, 10_000)]


def report_cells() -> None:
    """Time ``find_errors`` on tables of growing size, each in a process of its own."""
    lines = []
    for kind in ("categories", "mixed"):
        for size in CELLS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                seconds, megabytes = process.submit(checked, kind, *size).result()
            lines.append([kind, f"{size[0]} x {size[1]}", f"{seconds:.1f}", f"{megabytes:.0f}"])
            print("  " + ", ".join(lines[-1]), flush=True)
    print(markdown(["table", "rows x columns", "CPU-s", "MB"], lines), flush=True)


def checked(kind: str, n: int, n_columns: int) -> tuple[float, float]:
    """CPU-seconds of ``find_errors`` and the largest memory of this process in megabytes."""
    if kind == "categories":
        frame = pd.DataFrame(rows(n, n_columns)).astype(str)
    else:
        frame = pd.DataFrame({j: mixed_column(j, n) for j in range(n_columns)})
    frame = frame.add_prefix("column ")
    _, seconds = processor_timed(find_errors, frame)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mixed_column(j: int, n: int) -> object:
    """Column ``j`` of a table in which every fifth one is a key, and the next one a place that follows from it."""
    rng = np.random.default_rng(j)
    n_keys = max(2, n // 20)
    keys = np.random.default_rng(j // 5).integers(n_keys, size=n)
    match j % 5:
        case 0:
            return [f"K{key:05d}" for key in keys]
        case 1:
            return rng.choice(["Bonn", "Jena", "Ulm", "Trier"], n_keys)[keys]
        case 2:
            return rng.lognormal(3, 1, n).round(2)
        case 3:
            return rng.poisson(9, n)
    return pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n), "D")


def measured(method: str, train: pd.DataFrame, test: pd.DataFrame) -> tuple[float, float]:
    """Processor-seconds of a fit, and milliseconds to score a row."""
    if method in costs.PEERS:
        train = train if method == "IsolationForest" else train[: costs.MOST_ROWS]
        score, fit_seconds = processor_timed(messy.fitted_rival, method, train, 0)
    else:
        model: Any = DiffusionOutlierDetector(random_state=0)
        if method != DETECTOR:
            model = DiffusionDensity(denoiser=RECIPES[method], random_state=0)
        if method == "network":
            model.set_params(max_steps=NETWORK_STEPS, n_evaluations=64)
        _, fit_seconds = processor_timed(model.fit, train)
        score = model.score_samples
    seconds = min(processor_timed(score, test.copy())[1] for _ in range(3))
    return fit_seconds, 1e3 * seconds / len(test)


Curves = dict[
    str, np.ndarray
]  # of a method: seconds to fit and milliseconds to score a row, by size


def report(what: str, sizes: list[tuple[int, int]], methods: list[str], most: float) -> Curves:
    """Fit and score every size by every method, print a table, and return its numbers."""
    x, curves, lines = [size[what == "columns"] for size in sizes], {}, []
    for method in methods:
        found: list[tuple[float, float]] = []
        for n, n_columns in sizes:
            if found and found[-1][0] > most:
                break
            table = costs.drawn(n + SCORED, n_columns // 2, n_columns - n_columns // 2)
            found.append(measured(method, table[:n], table[n:].reset_index(drop=True)))
            seconds, milliseconds = found[-1]
            print(
                f"  {method}, {n} x {n_columns}: {seconds:.2f} s, {milliseconds:.3f} ms a row",
                flush=True,
            )
        curves[method] = np.array(found).T
        for kind, values in zip(("CPU-s to fit", "ms to score a row"), curves[method], strict=True):
            slope = np.nan
            if len(values) > 1:
                slope = np.polyfit(np.log(x[: len(values)][-3:]), np.log(values[-3:]), 1)[0]
            cells = [f"{v:.3g}" for v in values] + [""] * (len(x) - len(values))
            lines.append([method, kind, *cells, f"{slope:.2f}"])
    print(f"\nby {what} (the other: {sizes[0][what == 'rows']})\n")
    print(markdown(["method", "", *map(str, x), "exponent"], lines), flush=True)
    return curves


def draw(curves: dict[str, Curves], sizes: dict[str, list[tuple[int, int]]], file: Path) -> None:
    """Plot seconds of fits and of scores against rows and columns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", sharey="row")
    for column, (what, of_methods) in enumerate(curves.items()):
        x = [size[what == "columns"] for size in sizes[what]]
        for method, values in of_methods.items():
            for axis, y in zip(axes[:, column], values, strict=True):
                axis.loglog(
                    x[: len(y)], y, "o-", ms=3, lw=2 if method == DETECTOR else 1, label=method
                )
        fixed = f"{N_COLUMNS} columns" if what == "rows" else f"{N_ROWS:,} rows"
        axes[1, column].set_xlabel(f"{what} ({fixed})")
    for axis, label in zip(axes[:, 0], ("CPU-s of the fit", "ms to score a row"), strict=True):
        axis.set_ylabel(label)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=80)


if __name__ == "__main__":
    main()
