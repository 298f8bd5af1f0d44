"""Are the edges of ``find_graph`` those of networks that are known? Beside the hill climbing of pgmpy, by BIC.

    python -m tests.benchmarks.graphs
    python -m tests.benchmarks.graphs asia --rows 1000

Printed per published network: its edges; of those that are found, whatever their direction, the share that is right
(precision) and of the right ones the share that is found (recall); CPU-seconds, of ours with the fit of a
``"bayes_net"``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import pandas as pd

from discrete_itd import DiffusionDensity, find_graph
from tests.benchmarks.tables import machine, print_lines, processor_timed
from tests.networks import load_bayesian_network

NAMES = ["asia", "sachs", "child", "insurance", "alarm"]


def ours(frame: pd.DataFrame) -> list[tuple[str, str]]:
    density = DiffusionDensity(denoiser="bayes_net", random_state=0)
    edges = find_graph(frame, density).edges
    return list(zip(edges["parent"], edges["child"], strict=True))


def by_hill_climbing(frame: pd.DataFrame) -> list[tuple[str, str]]:
    from pgmpy.causal_discovery import HillClimbSearch

    search = HillClimbSearch("bic-d", max_indegree=5, return_type="dag", show_progress=False)
    return list(search.fit(frame).causal_graph_.edges())


def lines(names: list[str], n_rows: int) -> Iterator[list[object]]:
    for name in names:
        network = load_bayesian_network(name)
        frame = network.sample(n_rows, random_state=0).astype(str)
        truth = {frozenset((p, j)) for j, above in network.parents.items() for p in above}
        numbers: list[object] = []
        for method in (ours, by_hill_climbing):
            edges, seconds = processor_timed(method, frame)
            found = {frozenset(edge) for edge in edges}
            right = len(found & truth)
            numbers += [f"{right / len(found):.2f}", f"{right / len(truth):.2f}", f"{seconds:.1f}"]
        yield [name, len(truth), *numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NAMES)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{options.rows} rows, {machine()}\n")
    head = [
        "network",
        "edges",
        "precision",
        "recall",
        "CPU-s",
        "pgmpy: precision",
        "recall",
        "CPU-s",
    ]
    print_lines(head, lines(options.networks or NAMES, options.rows))


if __name__ == "__main__":
    main()
