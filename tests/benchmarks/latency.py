"""What the default detector costs on a small table: its fit, many rows, one row, and the reasons of one row.

    python -m tests.benchmarks.latency                 # the deciding tables of OddBench
    python -m tests.benchmarks.latency LandRarity

Fits and rows a second are of processor time, the others medians of wall time in milliseconds, for the most anomalous
row of the test rows. Set ``OMP_NUM_THREADS=1`` for one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from discrete_itd import DiffusionOutlierDetector
from tests.benchmarks import data
from tests.benchmarks.odd import EVERY
from tests.benchmarks.tables import machine, markdown

REPEATS = 5


def main() -> None:
    """Print a line per table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="every tenth by name by default")
    names = parser.parse_args().tables or data.odd_names()[::EVERY]
    if not names:
        print("skipped: no tables of OddBench (see tests/benchmarks/data.py)")
        return
    print(machine(), flush=True)
    lines = []
    for name in names:
        rows = data.load_odd(name)
        start = time.process_time()
        detector = DiffusionOutlierDetector(random_state=0).fit(rows.train)
        fitted = time.process_time()
        scores = detector.score_samples(rows.test)
        rate = len(rows.test) / (time.process_time() - fitted)
        one = rows.test.iloc[[int(np.argmin(scores))]]
        times = [median(question, one) for question in (detector.score_samples, detector.reasons)]
        lines.append(
            [name, f"{fitted - start:.2f}", f"{rate:,.0f}", *(f"{1e3 * t:.1f}" for t in times)]
        )
    print(markdown(["table", "s to fit", "rows / s", "one row, ms", "its reasons, ms"], lines))


def median(question: Callable[[pd.DataFrame], object], rows: pd.DataFrame) -> float:
    """Seconds of a question about rows that are read anew."""
    found = []
    for _ in range(REPEATS):
        copy, start = rows.copy(), time.perf_counter()
        question(copy)
        found.append(time.perf_counter() - start)
    return float(np.median(found))


if __name__ == "__main__":
    main()
