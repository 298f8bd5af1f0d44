"""What fits and scores cost beside busy processes: ``python -m tests.benchmarks.busy``.

    python -m tests.benchmarks.busy --busy 4 --tables numbers mixed

Each table is fitted and scored in a process of its own: with OMP_NUM_THREADS=1 and alone (the baseline), as it comes
and alone, and as it comes beside busy processes, as many as there are cores. CPU-seconds are those of the process and
its children, so they compare also where other programs run; seconds of wall clock do not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from discrete_itd.datasets import load_adult

TABLES = ("numbers", "mixed", "large")
LARGE_STEPS = 300  # of each network: enough for the time of a fit to be that of training
N_REASONS = 200  # rows


def numbers(n_rows: int = 1500) -> pd.DataFrame:
    """The rows of adult as floats: its numbers and a column of zeros and ones for each frequent category."""
    adult = load_adult().sample(n_rows, random_state=0)
    category = [c for c in adult if not pd.api.types.is_numeric_dtype(adult[c])]
    frame = pd.get_dummies(adult, columns=category, dtype=float).astype(float)
    return frame.iloc[:, :97]


def table(name: str) -> pd.DataFrame:
    """Rows of adult: 1 500 as floats, 500 of five mixed columns, or all."""
    if name == "numbers":
        return numbers()
    adult = load_adult()
    if name == "mixed":
        columns = ["age", "work_class", "education", "hours_per_week", "income"]
        adult = pd.DataFrame(adult[columns]).sample(500, random_state=0)
    return adult


def tasks(name: str, frame: pd.DataFrame, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured for a table, in order."""
    from discrete_itd import DiffusionDensity, DiffusionOutlierDetector

    steps = LARGE_STEPS if name == "large" else 6000
    tree = DiffusionDensity(denoiser="tree", random_state=0)
    default = DiffusionDensity(max_steps=steps, random_state=0)
    detector = DiffusionOutlierDetector(default, random_state=0)
    yield "tree: fit", lambda: tree.fit(frame)
    yield "tree: score", lambda: tree.score_samples(frame)
    yield "density: fit", lambda: default.fit(frame)
    yield "density: score", lambda: default.score_samples(frame)
    yield "detector: fit", lambda: detector.fit(frame)
    yield "detector: score", lambda: detector.score_samples(frame)
    yield "detector: reasons", lambda: detector.reasons(frame[:N_REASONS])
    yield (
        "detector: ten single rows",
        lambda: [detector.p_values(frame[i : i + 1]) for i in range(10)],
    )
    file, model, scores = folder / "table.csv", folder / "model.safetensors", folder / "scores.csv"
    frame.to_csv(file, index=False)
    fit = ["fit", file, "--out", model, "--detector", "--max-steps", str(steps), "--seed", "0"]
    yield "command: fit", lambda: command(*fit)
    yield "command: score", lambda: command("score", model, file, "--out", scores, "--reasons")


def command(*arguments: Any) -> None:
    """Run the package's command."""
    subprocess.run(
        [sys.executable, "-m", "discrete_itd", *map(str, arguments)],
        check=True,
        capture_output=True,
    )


def measured(name: str, wanted: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """CPU-seconds and seconds of each task."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for what, run in tasks(name, table(name), Path(folder)):
            if not what.startswith(wanted):
                continue
            start, before = time.perf_counter(), cpu_seconds()
            run()
            found[what] = cpu_seconds() - before, time.perf_counter() - start
    return found


def cpu_seconds() -> float:
    """Of this process and its children that ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Within the block, n processes compute without end."""
    loop = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop) for _ in range(n)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def in_process(name: str, options: argparse.Namespace, **environment: str) -> dict[str, Any]:
    """:func:`measured` in a process of its own."""
    line = [sys.executable, "-m", "tests.benchmarks.busy", "--tables", name, "--measure"]
    line += ["--tasks", *options.tasks]
    environment = {**os.environ, **environment}
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    """Print a table of CPU-seconds and seconds."""
    parser = argparse.ArgumentParser(description="What fits and scores cost beside busy processes.")
    parser.add_argument("--busy", type=int, default=os.cpu_count(), help="busy processes")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--tasks", nargs="+", default=[""], help="beginnings of their names")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.tables[0], tuple(options.tasks))))
        return
    print("| table | task | one thread: CPU-s, s | alone: CPU-s, s |", end="")
    print(f" beside {options.busy}: CPU-s, s | CPU beside / one thread |")
    print("|---|---|---|---|---|---|")
    for name in options.tables:
        one = in_process(name, options, OMP_NUM_THREADS="1")
        alone = in_process(name, options)
        with busy(options.busy):
            beside = in_process(name, options)
        for what, (cpu, _) in one.items():
            cells = [f"{c:.2f}, {s:.2f}" for c, s in (one[what], alone[what], beside[what])]
            print(
                f"| {name} | {what} | {' | '.join(cells)} | {beside[what][0] / cpu:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
