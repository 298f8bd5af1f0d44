"""Standard deviation of one row's estimate at equal cost: the integrals (3) and (4) and the path (6).

    python -m tests.benchmarks.spread nltcs plants --max-time 90

Each estimator scores the same test rows 16 times with independent noise, at 64 denoiser calls a row. Printed
are the mean over rows of the standard deviation over repeats, and the mean nats.
"""

from __future__ import annotations

import argparse

import torch

from discrete_itd import CoordinateSchedule, integral_log_prob, path_log_prob
from discrete_itd.patterns import pilot_quadrature
from discrete_itd.planning import place_steps
from tests.benchmarks.tables import encoded, fitted, load, machine, markdown


def main() -> None:
    """Print one table for all tables named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--max-time", type=float, default=90.0, help="seconds of training")
    parser.add_argument("--calls", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--rows", type=int, default=300)
    options = parser.parse_args()
    rows = []
    for name in options.tables:
        table = load(name)
        if table is None:
            continue
        model = fitted(name, table, options.max_time)
        denoiser, calls = model.denoiser_, options.calls
        train, x = encoded(model, table.fit), encoded(model, table.test)[: options.rows]
        generator = torch.Generator().manual_seed(0)
        quadrature = pilot_quadrature(denoiser, train, generator)
        n_columns = denoiser.codebook.n_columns
        ways = {
            "integral (3)": (integral_log_prob, {"quadrature": quadrature, "n_points": calls}),
            "integral (4), marginal baseline": (
                integral_log_prob,
                {"quadrature": quadrature, "n_points": calls, "baseline": model.model_.marginals},
            ),
        }
        for steps in sorted({min(n_columns, calls // 2), min(n_columns, calls // 4)}):
            ways[f"path (6), coordinate, {steps} steps x {calls // steps}"] = (
                path_log_prob,
                {"schedule": CoordinateSchedule(steps), "n_paths": calls // steps},
            )
        counts = [calls, calls // 2, calls // 4]
        for n, schedule in zip(
            counts,
            place_steps(denoiser, train, quadrature, counts, generator=generator),
            strict=True,
        ):
            ways[f"path (6), isotropic, {schedule.n_steps} steps x {calls // n}"] = (
                path_log_prob,
                {"schedule": schedule, "n_paths": calls // n},
            )
        for label, (estimator, arguments) in ways.items():
            repeats = torch.stack(
                [
                    estimator(
                        denoiser, x, generator=torch.Generator().manual_seed(100 + r), **arguments
                    ).log_prob
                    for r in range(options.repeats)
                ]
            )
            rows.append([name, label, float(repeats.std(0).mean()), float(-repeats.mean())])
    print(machine())
    print(markdown(["table", "estimator", "standard deviation of a row, nats", "mean nats"], rows))


if __name__ == "__main__":
    main()
