"""Which drawn rows owe too much to one real row: ``find_near_rows`` on rows of models, of strangers and of copyists.

    python -m tests.benchmarks.near
    python -m tests.benchmarks.near --rows 2000 --denoisers forest
    python -m tests.benchmarks.near --strangers

Models are fitted to random rows of adult, which comes with the package, and as many rows are drawn. Printed is the
share of drawn rows with a p-value of at most .01 and .1, which of strangers is .01 and .1: of rows drawn by each model;
of other real rows; of training rows in which three random cells are those of another row; and of training rows
themselves. Then the CPU-seconds of ``find_near_rows``.

With ``--strangers``, real and drawn rows are of the same process, of six kinds: 50, 200 and 1 000, in 60, 24 and
6 tables: the share of drawn rows with a p-value of at most .02 and .1, with standard errors over tables.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity, datasets, find_near_rows
from tests.benchmarks.tables import machine, plus_minus, print_lines, processor_timed


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


def mixed(n: int, random: np.random.Generator) -> pd.DataFrame:
    """Categories that depend on a hidden one, and numbers, two of which depend on each other."""
    kind, size = random.integers(4, size=n), random.normal(size=n)
    frame = pd.DataFrame(
        {f"c{j}": often(kind, 0.6, random.integers(4, size=n), random) for j in range(4)}
    )
    numbers = {"height": size + kind, "weight": (10 * size + random.normal(size=n)).round()}
    return frame.astype(str).assign(**numbers, income=random.gamma(2, size=n))


def often(usual: Any, share: float, other: Any, random: np.random.Generator) -> np.ndarray:
    """The usual cell of each row with a probability, else the other one."""
    return np.where(random.random(len(usual)) < share, usual, other)


def gaps(n: int, random: np.random.Generator) -> pd.DataFrame:
    frame = mixed(n, random)
    return frame.mask(random.random(frame.shape) < 0.2)


def numbers(n: int, random: np.random.Generator) -> pd.DataFrame:
    whole = random.normal(size=(n, 2)) @ np.random.default_rng(3).normal(size=(2, 5))
    return pd.DataFrame(whole + random.normal(size=(n, 5)) / 2)


def few_levels(n: int, random: np.random.Generator) -> pd.DataFrame:
    kind = random.integers(3, size=n)
    cells = [often(kind, 0.5, random.integers(3, size=n), random) for _ in range(6)]
    return pd.DataFrame(np.stack(cells, 1)).astype(str)


def many_levels(n: int, random: np.random.Generator) -> pd.DataFrame:
    """Forty levels, the k-th of which has a probability in proportion to k ** -1.2."""
    p = np.arange(1, 41) ** -1.2
    kind, *others = (random.choice(40, size=n, p=p / p.sum()) for _ in range(6))
    return pd.DataFrame(np.stack([often(kind, 0.4, c, random) for c in others], 1)).astype(str)


def rare_levels(n: int, random: np.random.Generator) -> pd.DataFrame:
    tags = {f"t{j}": random.geometric(0.04, size=n).astype(str) for j in range(3)}
    return mixed(n, random)[["c0", "c1", "height"]].assign(**tags)


def strangers() -> Iterator[list[object]]:
    for process in (mixed, gaps, numbers, few_levels, many_levels, rare_levels):
        for n, n_tables in ((50, 60), (200, 24), (1000, 6)):
            shares = []
            for seed in range(n_tables):
                random = np.random.default_rng([seed, n])
                real, drawn = process(n, random), process(max(200, n // 2), random)
                p = find_near_rows(real, drawn)["p_value"].to_numpy()
                shares.append([(p <= level).mean() for level in (0.02, 0.1)])
            yield [process.__name__, n, *(plus_minus(s) for s in np.transpose(shares))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--denoisers", nargs="*", default=["independent", "forest", "auto"])
    parser.add_argument("--strangers", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.strangers:
        print(machine())
        print_lines(["process", "real rows", "p at most .02", ".1"], strangers())
        return
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
