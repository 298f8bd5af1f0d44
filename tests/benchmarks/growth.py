"""How cost grows: seconds to fit and to score against rows and columns, with the exponent.

    python -m tests.benchmarks.growth
    python -m tests.benchmarks.growth --denoisers default causal mixture

Rows of a mixture of eight products over columns of four categories. The network that is scored along paths makes
``--steps`` steps whatever the size, so its seconds say what a step costs, and what its base; the others are fitted in
full, trees of up to 1 200 columns (they count all pairs of categories), Bayesian networks of up to 100. Exponents are
slopes of a straight line through the logarithms of the three largest sizes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from discrete_itd import DiffusionDensity
from discrete_itd.models.networks import QUICK_MIXTURE
from discrete_itd.recipes import Auto, BayesNet, Causal, Network, Recipe, Tree
from tests.benchmarks.tables import machine, markdown

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
    options = parser.parse_args()
    print(machine(), flush=True)
    report("rows", [(n, 20) for n in options.rows], options.steps, options.denoisers)
    report("columns", [(3000, c) for c in options.columns], options.steps, options.denoisers)


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
