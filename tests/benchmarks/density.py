"""Held-out nats per row: this library beside independent columns and a Chow-Liu tree, on the same rows.

    python -m tests.benchmarks.density nltcs --max-time 90
    python -m tests.benchmarks.density plants --max-time 300
    python -m tests.benchmarks.density alarm --max-time 180

For a Bayesian network the excess over the true code length is printed too. The test rows are read once, after
everything has been chosen on held-out training rows.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from tests.benchmarks.baselines import ChowLiuTree, IndependentColumns
from tests.benchmarks.tables import Table, encoded, fitted, load, machine, markdown, mean_and_error


def main() -> None:
    """Fit, score, print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--max-time", type=float, default=90.0, help="seconds of training")
    parser.add_argument("--rows", type=int, default=20_000, help="training rows of a network")
    parser.add_argument(
        "--keep", action="store_true", help="score with the model of an earlier run"
    )
    options = parser.parse_args()
    print(machine())
    for name in options.tables:
        table = load(name, options.rows)
        if table is not None:
            report(name, table, options.max_time, options.keep)


def report(name: str, table: Table, max_time: float, keep: bool) -> None:
    """One table's Markdown."""
    start = time.perf_counter()
    model = fitted(name, table, max_time, fresh=not keep)
    seconds = time.perf_counter() - start
    how = "model of an earlier run read" if keep else f"{len(table.fit)} rows fitted"
    print(f"\n## {name}: {how} in {seconds:.0f} s\n")
    print(model.path_table_.round(3).to_string(index=False), "\n")
    print(model.history_.iloc[[0, -1]].round(3).to_string(index=False), "\n")

    seen, unseen = (encoded(model, t).long().cpu().numpy() for t in (table.fit, table.test))
    sizes = model.denoiser_.codebook.slots.cardinalities
    log_probs, facts = {}, {}
    for label, peer in (
        ("independent columns", IndependentColumns()),
        ("Chow-Liu tree", ChowLiuTree()),
    ):
        start = time.perf_counter()
        log_probs[label] = peer.fit(seen, sizes).log_prob(unseen)
        facts[label] = ("exact", time.perf_counter() - start)
    for n_calls in (model.n_calls, 4 * model.n_calls):
        start = time.perf_counter()
        estimate = model.set_params(n_calls=n_calls).log_prob(table.test)
        label = f"discrete_itd, {n_calls} calls"
        log_probs[label] = estimate.log_prob
        facts[label] = (f"{estimate.stderr.mean():.3f} a row", time.perf_counter() - start)

    header = ["model", "nats", "s.e.", "estimator error", "seconds to score"]
    best = log_probs[label]
    rows = []
    for label, log_prob in log_probs.items():
        nats, error = mean_and_error(-log_prob)
        row = [label, nats, error, facts[label][0], f"{facts[label][1]:.1f}"]
        row += ["{:.3f} ± {:.3f}".format(*mean_and_error(best - log_prob))]
        if table.true_log_prob is not None:
            row += ["{:.3f} ± {:.3f}".format(*mean_and_error(table.true_log_prob - log_prob))]
        rows.append(row)
    header += ["worse than the last by"]
    if table.true_log_prob is not None:
        header += ["excess over the truth"]
        nats, error = mean_and_error(-np.asarray(table.true_log_prob))
        rows.append(["the truth", nats, error, "exact", "", "", "0"])
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
