"""What rows that begin alike save along paths of fixed orders: network calls per row and seconds, with and without.

    python -m tests.benchmarks.shared mushroom adult

A network of a few steps scores test rows along four fixed orders, one column a step.
"""

from __future__ import annotations

import argparse
import time
import warnings
from unittest.mock import patch

import numpy as np

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.likelihood import path
from discrete_itd.recipes import Network
from tests.benchmarks.fast import load
from tests.benchmarks.tables import machine, markdown

N_ORDERS, ROWS, STEPS = 4, 1500, 30


def main() -> None:
    """Print a line for each table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine(), flush=True)
    lines = []
    for name in options.tables:
        rows = load(name)
        if rows is None:
            continue
        random, n = np.random.default_rng(0), rows.train.shape[1]
        orders = tuple(tuple(random.permutation(n).tolist()) for _ in range(N_ORDERS))
        density = DiffusionDensity(
            denoiser=Network(base="independent"),
            max_steps=STEPS,
            schedule=CoordinateSchedule(n, orders),
            random_state=0,
        ).fit(rows.train[:3000])
        test, calls = rows.test[:ROWS], []
        forward = density.denoiser_.forward

        def counted(y, snr, forward=forward, calls=calls):
            calls.append(len(y))
            return forward(y, snr)

        for most in (path.MOST_SHARED, -1.0):
            calls.clear()
            with (
                patch.object(path, "MOST_SHARED", most),
                patch.object(density.denoiser_, "forward", counted),
            ):
                start = time.perf_counter()
                nats = -density.score_samples(test).mean()
                took = time.perf_counter() - start
            how = "shared" if most > 0 else "each row by itself"
            lines.append([name, how, f"{sum(calls) / len(test):.1f}", f"{took:.2f}", f"{nats:.6f}"])
    print(markdown(["table", "beginnings", "calls a row", "s", "nats"], lines))


if __name__ == "__main__":
    main()
