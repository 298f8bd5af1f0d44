"""Nats against denoiser calls: the integral, plain and with a baseline, and paths of every kind.

    python -m tests.benchmarks.density plants --methods "network on a tree" --max-time 300
    python -m tests.benchmarks.pareto plants

The model is the one that the density benchmark kept. The rows are those that its fit held out, so that the default
paths can be chosen by the table. An estimate is repeated ``--repeats`` times: the spread is the standard deviation over
repeats of one row's estimate, the standard error that of the mean of all; seconds are the processor's, of one estimate
of all rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.channel import (
    CoordinateSchedule,
    Schedule,
)
from discrete_itd.likelihood import Estimate, integral_log_prob, path_log_prob
from discrete_itd.training import pilot_quadrature
from tests.benchmarks import tables
from tests.benchmarks.tables import load, machine, markdown, mean_and_error, processor_timed


def main() -> None:
    """Print the table, the best of each number of calls marked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--method", default="network_on_a_tree")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most-calls", type=int, default=1024)
    options = parser.parse_args()
    print(machine(), flush=True)
    for name in options.tables:
        file = tables.CACHE / "density" / f"{name}-{options.method}.safetensors"
        table = load(name)
        if table is None or not file.exists():
            print(f"skipped {name}: no {file.name}; run tests.benchmarks.density first")
            continue
        report(name, DiffusionDensity.load(file), table.fit, options)


def report(
    name: str, density: DiffusionDensity, fit: np.ndarray, options: argparse.Namespace
) -> None:
    """One table's Markdown."""
    denoiser, model = density.denoiser_, density.model_
    n_valid = max(1, round(density.validation_fraction * len(fit)))
    order = np.random.RandomState(model.seed).permutation(len(fit))  # as the fit held rows out
    cells = density.rows(fit).x
    x, rows = cells[order[n_valid:]], cells[order[:n_valid]][: options.rows]
    generator = torch.Generator().manual_seed(0)
    quadrature = pilot_quadrature(denoiser, x, generator)
    lines = []

    def line(label: str, calls: int, estimate: Callable[[torch.Generator], Estimate]) -> None:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(options.repeats)]
        estimates, seconds = processor_timed(lambda: [estimate(seed).log_prob for seed in seeds])
        together = torch.stack(estimates)
        spread = float(together.std(0).square().mean().sqrt()) if len(estimates) > 1 else 0.0
        nats = mean_and_error(-together.mean(0).numpy())
        lines.append([label, calls, *nats, spread, seconds / options.repeats])
        print("  ", *lines[-1], flush=True)

    integral = partial(integral_log_prob, denoiser, rows, quadrature)
    one_path = partial(path_log_prob, denoiser, rows)
    for n_points in (16, 64, 256, 1024):
        for label, baseline in (("integral (3)", None), ("integral (4)", model.marginals)):
            if n_points <= options.most_calls:
                how = {"baseline": baseline, "n_points": n_points}
                line(label, n_points, lambda g, how=how: integral(generator=g, **how))
    for label, schedule in paths(density, x, generator):
        for n_paths in (1, 4, 16, 64):
            calls = n_paths * schedule.n_steps
            if calls > options.most_calls or calls < 8:
                continue
            how = {"schedule": schedule, "n_paths": n_paths}
            line(f"{label} x {n_paths}", calls, lambda g, how=how: one_path(generator=g, **how))
    best = {}
    for label, calls, nats, *_ in lines:
        if not label.startswith("integral") and nats < min(
            (n for c, (_, n) in best.items() if c <= calls), default=np.inf
        ):
            best[calls] = label, nats
    front = {label for label, _ in best.values()}
    lines = [
        [f"**{v[0]}**" if v[0] in front else v[0], *v[1:]]
        for v in sorted(lines, key=lambda v: v[1])
    ]
    print(f"\n{name}, {len(rows)} held-out rows; paths that no cheaper one beats in bold\n")
    print(
        markdown(["estimator", "calls", "nats", "s.e.", "spread of a row", "s"], lines), flush=True
    )


def paths(
    density: DiffusionDensity, x: torch.Tensor, generator: torch.Generator
) -> Iterator[tuple[str, Schedule]]:
    """Schedules with their names."""
    n = density.denoiser_.codebook.n_columns
    quadrature = pilot_quadrature(density.denoiser_, x, generator)
    for part in (8, 4, 2, 1):
        steps = max(1, n // part)
        yield f"coordinate, {steps} steps", CoordinateSchedule(steps)
    for n_steps in (8, 16, 32, 64):
        yield f"isotropic, {n_steps} steps", quadrature.schedule(n_steps)


if __name__ == "__main__":
    main()
