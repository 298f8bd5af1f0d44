"""How cost grows: seconds to fit and to score against rows and columns, with the exponent.

    python -m tests.benchmarks.growth
    python -m tests.benchmarks.growth --denoisers default causal mixture
    python -m tests.benchmarks.growth --cells

Rows of a mixture of eight products over columns of four categories. The network that is scored along paths makes
``--steps`` steps whatever the size, so its seconds say what a step costs, and what its base; the others are fitted in
full, trees of up to 1 200 columns (they count all pairs of categories), Bayesian networks of up to 100. Exponents are
slopes of a straight line through the logarithms of the three largest sizes.

``--cells`` prints instead the CPU-seconds of ``find_errors``, and the largest memory of its process, by rows of 20
columns and by columns of 60 rows: of these categories as text, and of keys, places that follow from them, prices,
counts and days in turn.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity, find_errors
from discrete_itd.models.networks import QUICK_MIXTURE
from discrete_itd.recipes import Auto, BayesNet, Causal, Network, Recipe, Tree
from tests.benchmarks.tables import machine, markdown, processor_timed

RECIPES: dict[str, Recipe] = {
    "default": Auto(),
    "causal": Causal(),
    "mixture": QUICK_MIXTURE,
    "network": Network(),
    "tree": Tree(),
    "Bayesian network": BayesNet(256),
}
SCORED = 500  # rows
MOST_COLUMNS = {"tree": 1200, "Bayesian network": 100}


def rows(n: int, n_columns: int) -> np.ndarray:
    """Codes drawn from a mixture of products: (n, C)."""
    rng = np.random.default_rng(0)
    tables = rng.dirichlet([0.5] * 4, size=(8, n_columns)).cumsum(2)
    z = rng.integers(8, size=n)
    out = np.empty((n, n_columns), dtype=np.int64)
    for j in range(n_columns):
        out[:, j] = (rng.random((n, 1)) > tables[z, j]).sum(1).clip(0, 3)
    return out


def main() -> None:
    """Print one table by rows, one by columns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--columns", type=int, nargs="+", default=[10, 100, 500, 2000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--denoisers", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--cells", action="store_true")
    options = parser.parse_args()
    print(machine(), flush=True)
    if options.cells:
        report_cells()
        return
    report("rows", [(n, 20) for n in options.rows], options.steps, options.denoisers)
    report("columns", [(3000, c) for c in options.columns], options.steps, options.denoisers)


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


def report(what: str, sizes: list[tuple[int, int]], steps: int, labels: list[str]) -> None:
    """Fit and score every size with every recipe."""
    x = [shape[0 if what == "rows" else 1] for shape in sizes]
    lines = []
    for label in labels:
        recipe = RECIPES[label]
        fits, scores = [], []
        for n, n_columns in sizes:
            if n_columns > MOST_COLUMNS.get(label, n_columns):
                break
            table = rows(n + SCORED, n_columns)
            start = time.perf_counter()
            model = DiffusionDensity(
                denoiser=recipe,
                n_evaluations=64,
                validation_fraction=min(0.1, 2000 / n),
                random_state=0,
            )
            if label == "network":
                model.set_params(max_steps=steps)
            model.fit(table[:n])
            middle = time.perf_counter()
            model.score_samples(table[n:])
            fits.append(middle - start)
            scores.append(1e3 * (time.perf_counter() - middle) / SCORED)
            print(
                f"  {label}, {n} x {n_columns}: {fits[-1]:.1f} s, {scores[-1]:.2f} ms a row",
                flush=True,
            )
        for kind, values in (("s to fit", fits), ("ms to score a row", scores)):
            slope = (
                np.polyfit(np.log(x[: len(values)][-3:]), np.log(values[-3:]), 1)[0]
                if len(values) > 1
                else np.nan
            )
            cells = [f"{v:.3g}" for v in values] + [""] * (len(x) - len(values))
            lines.append([label, kind, *cells, f"{slope:.2f}"])
    print(f"\nby {what} (the other: {sizes[0][1] if what == 'rows' else sizes[0][0]})\n")
    print(markdown(["denoiser", "", *map(str, x), "exponent"], lines), flush=True)


if __name__ == "__main__":
    main()
