"""Which drawn rows owe too much to one real row: ``find_near_rows`` on rows of models, of strangers and of copyists.

    python -m tests.benchmarks.near
    python -m tests.benchmarks.near --rows 2000 --denoisers forest

Models are fitted to random rows of adult, which comes with the package, and as many rows are drawn. Printed is the
share of drawn rows with a p-value of at most .01 and .1, which of strangers is .01 and .1: of rows drawn by each model;
of other real rows; of training rows in which three random cells are those of another row; and of training rows
themselves. Then the CPU-seconds of ``find_near_rows``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity, datasets, find_near_rows
from tests.benchmarks.tables import machine, print_lines, processor_timed


def changed(frame: pd.DataFrame, n_cells: int, random: np.random.Generator) -> pd.DataFrame:
    """Rows in each of which some random cells are those of another row."""
    out, others = frame.reset_index(drop=True), frame.sample(frac=1, random_state=0)
    is_changed = random.random(frame.shape).argsort(1) < n_cells
    return out.mask(is_changed, others.reset_index(drop=True))


def tables(
    real: pd.DataFrame, others: pd.DataFrame, denoisers: list[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    for name in denoisers:
        how: Any = {"denoiser": name, "random_state": 0}
        yield name, DiffusionDensity(**how).fit(real).sample(len(others), random_state=0)
    yield "other real rows", others
    yield "training rows, three cells changed", changed(real, 3, np.random.default_rng(0))
    yield "training rows", real


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--denoisers", nargs="*", default=["independent", "forest", "auto"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    some = datasets.load_adult().sample(2 * options.rows, random_state=0)
    real, others = some[: options.rows], some[options.rows :]

    def lines() -> Iterator[list[object]]:
        for name, drawn in tables(real, others, options.denoisers):
            found, seconds = processor_timed(find_near_rows, real, drawn)
            p = found["p_value"]
            shares = [f"{(p <= level).mean():.3f}" for level in (0.01, 0.1)]
            yield [name, *shares, f"{found['nats'].median():.2f}", f"{seconds:.1f}"]

    print(f"{options.rows} rows of adult, {machine()}\n")
    print_lines(["rows", "p at most .01", ".1", "median nats", "CPU-s"], lines())


if __name__ == "__main__":
    main()
