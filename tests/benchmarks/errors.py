"""Are the standard errors honest? Ordinary and odd rows of the mushroom table, scored many times over.

    python -m tests.benchmarks.errors

The model of the README scores 150 held-out edible and 150 poisonous rows with 16 independent noises. The truth is
taken to be the log-mean-exp of all of them, which is itself on the pessimistic side.
"""

from __future__ import annotations

import numpy as np
import torch

from discrete_itd import DiffusionDensity, path_log_prob
from discrete_itd.datasets import load_mushroom
from tests.benchmarks.tables import encoded, machine, markdown

REPEATS = 16


def main() -> None:
    """Print one table."""
    X, label = load_mushroom(return_X_y=True)
    edible, poisonous = X[label == "edible"], X[label == "poisonous"]
    model = DiffusionDensity(max_steps=1000, random_state=0).fit(edible[::2])
    n_paths = max(2, model.n_calls // model.schedule_.n_steps)
    rows = []
    for name, frame in (("edible", edible[1::28][:150]), ("poisonous", poisonous[::26][:150])):
        runs = [
            path_log_prob(
                model.denoiser_,
                encoded(model, frame),
                model.schedule_,
                n_paths=n_paths,
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in range(REPEATS)
        ]
        log_prob = np.stack([r.log_prob.numpy() for r in runs])
        stderr = np.stack([r.stderr.numpy() for r in runs])
        truth = np.logaddexp.reduce(log_prob, 0) - np.log(REPEATS)
        covered = np.abs(log_prob - truth) < 1.96 * stderr
        spread = float(log_prob.std(0, ddof=1).mean())
        reported = float(np.sqrt((stderr**2).mean()))
        rows.append(
            [name, spread, reported, float(covered.mean()), float((log_prob - truth).mean())]
        )
    print(machine())
    header = ["rows", "true standard deviation", "reported (rms)", "95 % intervals cover", "bias"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
