"""What each ingredient is worth: the same network without one of them, on the same rows and for the same time.

    python -m tests.benchmarks.ablation plants --max-time 120 --rows 1000

Held-out rows are the published validation rows; the test rows are not read. Every line is one training, scored at equal
numbers of denoiser calls; the difference to the first line is paired by row.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from unittest import mock

import torch

from discrete_itd.channel import CoordinateSchedule, Quadrature, Schedule
from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    Denoiser,
    MarginalDenoiser,
    NeuralDenoiser,
)
from discrete_itd.likelihood import path_log_prob
from discrete_itd.training import TrainingPlan, pilot_quadrature, train
from discrete_itd.training import loop as run
from tests.benchmarks.data import has_density, load_density
from tests.benchmarks.tables import machine, markdown, mean_and_error


def flat_quadrature(denoiser: Denoiser, x: torch.Tensor, generator: torch.Generator) -> Quadrature:
    """The range that a pilot finds, with SNRs evenly spread on a logarithmic scale: no importance sampling."""
    edges = pilot_quadrature(denoiser, x, generator).edges
    return Quadrature(edges, torch.ones(len(edges) - 1))


def main() -> None:
    """Train the variants, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", default="plants")
    parser.add_argument("--max-time", type=float, default=120.0, help="seconds of each training")
    parser.add_argument("--rows", type=int, default=1000, help="held-out rows scored")
    parser.add_argument("--paths", type=int, default=4)
    options = parser.parse_args()
    if not has_density(options.table):
        print(f"skipped {options.table}: its file is not here (see tests/benchmarks/data.py)")
        return
    print(machine(), flush=True)
    data = load_density(options.table)
    x, valid = (torch.from_numpy(part.astype(float)) for part in (data.train, data.valid))
    rows, n_columns = valid[: options.rows], x.shape[1]
    book = Codebook([ColumnPoints("simplex", 2)] * n_columns)
    marginals = MarginalDenoiser.fit(book, x)
    tree = BayesNetDenoiser.fit(marginals, x, most_parents=1)
    n_evaluations = options.paths * n_columns
    results: dict[str, tuple[torch.Tensor, int]] = {}

    def fitted(
        base: Denoiser, plan: TrainingPlan, quadrature=pilot_quadrature, **network
    ) -> tuple[NeuralDenoiser, int]:
        with mock.patch.object(run, "pilot_quadrature", quadrature):
            denoiser = NeuralDenoiser(base, **network)
            generator = torch.Generator().manual_seed(0)
            report = train(denoiser, x, valid, plan, generator=generator)
        return denoiser, report.history[-1].step

    def score(label: str, denoiser: Denoiser, steps: int, schedule: Schedule) -> None:
        noise = torch.Generator().manual_seed(1)
        n_paths = max(1, n_evaluations // schedule.n_steps)
        results[label] = (
            path_log_prob(denoiser, rows, schedule, n_paths=n_paths, generator=noise).log_prob,
            steps,
        )
        print(f"{label}: {-results[label][0].mean():.3f}, {steps} steps", flush=True)

    whole = CoordinateSchedule(n_columns)
    plan = TrainingPlan(max_steps=10**6, max_time=options.max_time)
    full, steps = fitted(tree, plan)
    score("all, coordinate path", full, steps, whole)
    # the same network on other paths
    score(
        "path: blocks of a quarter as many steps, random",
        full,
        steps,
        CoordinateSchedule(n_columns // 4),
    )
    quadrature = pilot_quadrature(full, x, torch.Generator().manual_seed(0))
    isotropic = quadrature.schedule(n_columns // 2)
    score("path: isotropic, half as many steps", full, steps, isotropic)
    # other trainings
    variants: dict[str, tuple] = {
        "base: independent columns": (marginals, plan),
        "patterns: known and unknown alone": (tree, replace(plan, isotropic=0.0)),
        "patterns: isotropic alone": (tree, replace(plan, isotropic=1.0)),
        "no importance sampling of SNRs": (tree, plan, flat_quadrature),
        "no moving average of weights": (tree, replace(plan, ema=0.0)),
    }
    for label, arguments in variants.items():
        score(label, *fitted(*arguments), whole)
    score("dropout 0.3", *fitted(tree, plan, dropout=0.3), whole)

    first = results["all, coordinate path"][0]
    lines = []
    for label, (log_prob, n) in results.items():
        nats, error = mean_and_error(-log_prob.numpy())
        difference = "{:+.3f} ± {:.3f}".format(*mean_and_error((first - log_prob).numpy()))
        lines.append([label, nats, error, difference if log_prob is not first else "", n])
    print(f"\n{options.table}, {len(rows)} held-out rows, {n_evaluations} calls a row\n")
    print(markdown(["variant", "nats", "s.e.", "difference", "steps"], lines))


if __name__ == "__main__":
    main()
