"""Held-out nats per row: this library beside exact models and peers, on the same rows.

    python -m tests.benchmarks.density accidents --max-time 900 --paths 16
    python -m tests.benchmarks.density alarm --rows 1000 10000 100000 --max-time 60
    python -m tests.benchmarks.density asia sachs --methods default "Bayesian network (ours)" "hill climbing"
    python -m tests.benchmarks.density accidents --table

Every method is fitted to the same rows and holds as many of them out; test rows are read once, at the end. What
a method gave for each test row is kept in ``.cache``, so that a run that was ended goes on where it was, set by set
and method by method, and a table compares row by row. ``--table`` prints from what is kept; ``--fresh`` begins anew. Of
a Bayesian network the excess over the true code length is printed.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Auto, BayesNet, Best, Mixture, Network, Recipe, Tree
from tests.benchmarks import tables
from tests.benchmarks.density_peers import PEERS, Skipped
from tests.benchmarks.tables import (
    NETWORKS,
    Table,
    load,
    machine,
    markdown,
    mean_and_error,
)

# ours: the recipe, and whether it is trained, so that the time is given to it
EXACT = Tree | Mixture | BayesNet
OURS: dict[str, Recipe] = {
    "default": Auto(),
    "best": Best(),
    "tree (ours)": Tree(),
    "Bayesian network (ours)": BayesNet(4096),
    "mixture of products (ours)": Mixture(),
    "network on independent columns": Network(base="independent"),
    "network on a tree": Network(base="tree"),
}
DEFAULT = (
    "independent",
    "Chow-Liu tree",
    "mixture of products (ours)",
    "Bayesian network (ours)",
    "default",
    "best",
)
# read in the logs that the authors of these methods publish, see the note in RESULTS.md
PUBLISHED = {
    "nltcs": {"HCLT": 6.00, "Strudel": 6.05},
    "plants": {"HCLT": 14.26, "Strudel": 13.41},
    "baudio": {"HCLT": 39.77, "Strudel": 42.23},
    "jester": {"HCLT": 52.38, "Strudel": 55.15},
    "bnetflix": {"HCLT": 56.25, "Strudel": 58.56},
    "accidents": {"HCLT": 26.74, "Strudel": 29.37},
}


class Result(NamedTuple):
    """What one method gave: nats of every test row, held-out nats, seconds, parameters, and what was chosen."""

    log_prob: np.ndarray
    valid: float
    fit_seconds: float
    score_seconds: float
    parameters: int
    note: str


def main() -> None:
    """Fit, score, keep, print one table for each set of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--methods", nargs="+", default=DEFAULT, help=f"of {[*OURS, *PEERS]}")
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of each fit")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000], help="of a network")
    parser.add_argument(
        "--paths", type=int, default=16, help="orders that a score is averaged over"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--table", action="store_true", help="print what is kept, fit nothing")
    parser.add_argument("--fresh", action="store_true", help="fit again what is kept")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine(), flush=True)
    for name in options.tables:
        for n_rows in options.rows if name in NETWORKS else [0]:
            table = load(name, n_rows)
            if table is None:
                continue
            label = f"{name}-{n_rows}" if n_rows else name
            results = run(label, table, options)
            print(f"\n## {label}: {len(table.fit)} rows fitted, {len(table.test)} tested\n")
            print(report(name, table, results), flush=True)


def run(label: str, table: Table, options: argparse.Namespace) -> dict[str, Result]:
    """Results of all methods, those that are kept read, the others made and kept."""
    results: dict[str, Result] = {}
    for method in options.methods:
        name = f"{label}-{method}".replace(" ", "_").replace("(", "").replace(")", "")
        file = tables.CACHE / "density" / f"{name}.npz"
        if file.exists() and not options.fresh:
            with np.load(file) as kept:
                results[method] = Result(
                    *(kept[f] if f == "log_prob" else kept[f].item() for f in Result._fields)
                )
            continue
        if options.table:
            continue
        try:
            result = made(method, table, options, file.with_suffix(".safetensors"))
        except Skipped as why:
            print(f"skipped {method}: {why}", flush=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **result._asdict())
        results[method] = result
        print(
            f"{label}, {method}: held out {result.valid:.3f}, {result.fit_seconds:.0f} s, {result.note}",
            flush=True,
        )
    return results


def made(method: str, table: Table, options: argparse.Namespace, file: Any) -> Result:
    """Fit one method and score the test rows."""
    start = time.perf_counter()
    if method in OURS:
        n_columns = table.fit.shape[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        model = DiffusionDensity(
            denoiser=OURS[method],
            max_steps=1_000_000,
            max_time=options.max_time,
            validation_fraction=table.validation_fraction,
            n_evaluations=options.paths * n_columns,
            random_state=0,
        ).fit(table.fit)
        model.save(file)
        middle = time.perf_counter()
        log_prob = model.log_prob(table.test).log_prob
        values = model.candidates_
        note = f"{model.history_.step.iloc[-1]} steps, {model.model_.stopped}"
        if values is not None:
            note += "; weights " + ", ".join(
                f"{c.candidate} {c.weight:.2f}" for c in values.itertuples() if c.weight
            )
        valid = model.model_.held_out.nats
        numbers = model.denoiser_.n_parameters
    else:
        train, valid_rows, test, sizes = coded(table)
        peer = PEERS[method]().fit(train, valid_rows, sizes, options.max_time)
        middle = time.perf_counter()
        log_prob = peer.log_prob(test)
        valid, numbers, note = (
            -float(peer.log_prob(valid_rows).mean()),
            peer.n_parameters,
            peer.note,
        )
    end = time.perf_counter()
    return Result(log_prob, valid, middle - start, end - middle, numbers, note)


def coded(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Rows to train on, held-out rows and test rows as codes, and the number of categories of each column."""
    n_valid = round(table.validation_fraction * len(table.fit))
    if isinstance(table.fit, np.ndarray):
        fit, test = table.fit.astype(np.int64), np.asarray(table.test).astype(np.int64)
    else:
        levels = {c: sorted({*table.fit[c], *table.test[c]}) for c in table.fit}
        fit, test = (
            np.stack([t[c].map(levels[c].index).to_numpy() for c in t], 1).astype(np.int64)
            for t in (table.fit, table.test)
        )
    sizes = (np.maximum(fit.max(0), test.max(0)) + 1).tolist()
    order = np.random.default_rng(0).permutation(len(fit))
    return fit[order[n_valid:]], fit[order[:n_valid]], test, sizes


def report(name: str, table: Table, results: dict[str, Result]) -> str:
    """One table's Markdown."""
    if not results:
        return "nothing is kept"
    header = [
        "method",
        "nats",
        "s.e.",
        "more than the best by",
        "held out",
        "s to fit",
        "s to score",
        "parameters",
    ]
    best = min(results, key=lambda m: -results[m].log_prob.mean())
    rows: list[list[Any]] = []
    for method, r in sorted(results.items(), key=lambda item: item[1].log_prob.mean()):
        row: list[Any] = [method, *mean_and_error(-r.log_prob)]
        gap = mean_and_error(results[best].log_prob - r.log_prob)
        row += ["" if method == best else "{:.3f} ± {:.3f}".format(*gap)]
        row += [r.valid, f"{r.fit_seconds:.0f}", f"{r.score_seconds:.0f}", r.parameters]
        if table.true_log_prob is not None:
            row += ["{:.4f} ± {:.4f}".format(*mean_and_error(table.true_log_prob - r.log_prob))]
        rows.append(row)
    if table.true_log_prob is not None:
        header.append("excess over the truth")
        rows.append(
            [
                "the truth",
                *mean_and_error(-np.asarray(table.true_log_prob)),
                "",
                "",
                "",
                "",
                "",
                "0",
            ]
        )
    for method, nats in PUBLISHED.get(name, {}).items():
        rows.append([f"{method}, published", f"{nats:.2f}", "", "", "", "", "", ""])
    notes = [f"* {method}: {r.note}" for method, r in results.items() if r.note]
    return "\n".join([markdown(header, rows), "", *notes])


if __name__ == "__main__":
    main()
