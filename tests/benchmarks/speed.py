"""Rows scored per second at ``max_stderr=0.1``, and peak memory of fitting a long table.

    python -m tests.benchmarks.speed nltcs alarm --max-time 90
    python -m tests.benchmarks.speed --memory

Rows are distinct (equal rows are scored once, which would flatter a table with repeats). Peak memory is the
largest resident size of the whole process, beside that of the process before fitting.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import encoded, fitted, load, machine, markdown


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--max-time", type=float, default=90.0, help="seconds of training")
    parser.add_argument("--max-stderr", type=float, default=0.1)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    print(machine())
    rows = []
    for name in options.tables:
        table = load(name)
        if table is None:
            continue
        model = fitted(name, table, options.max_time)
        _, first = np.unique(encoded(model, table.test).cpu().numpy(), axis=0, return_index=True)
        keep = np.sort(first)[: options.rows]
        test = table.test.iloc[keep] if isinstance(table.test, pd.DataFrame) else table.test[keep]
        model.log_prob(test[:100])
        start = time.perf_counter()
        with warnings.catch_warnings():  # how many rows are beyond is in the table
            warnings.simplefilter("ignore", UserWarning)
            estimate = model.log_prob(test, max_stderr=options.max_stderr)
        seconds = time.perf_counter() - start
        met = float((estimate.stderr <= options.max_stderr).mean())
        path = f"{model.schedule_table_['path'][0]}, {model.schedule_.n_steps} steps"
        rows.append([name, path, len(test), f"{len(test) / seconds:.0f}", f"{100 * met:.1f} %"])
    if rows:
        print(
            markdown(["table", "path", "rows", "rows per second", "rows within max_stderr"], rows)
        )
    if options.memory:
        random = np.random.default_rng(0)
        group = random.integers(0, 8, 200_000)
        cells = (group[:, None] + random.integers(0, 3, (200_000, 50))) % 8
        before = _peak_mib()
        start = time.perf_counter()
        model = DiffusionDensity(max_time=60.0, random_state=0).fit(cells)
        seconds = time.perf_counter() - start
        nats = model.history_["valid_nats"]
        print(
            f"\n200000 x 50, 8 categories: fit {seconds:.0f} s, held-out nats {nats.iloc[0]:.2f} ->"
            f" {nats.min():.2f}; peak memory {_peak_mib():.0f} MiB, of which {before:.0f} before the fit"
        )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
