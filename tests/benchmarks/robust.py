r"""Anomalies among the training rows: what the code lengths of small trees are worth to the score, by their weight.

    python -m tests.benchmarks.robust   # the deciding tables, loan applications and orders
    python -m tests.benchmarks.robust --draws 0 1 2
    python -m tests.benchmarks.robust --tables odd --shares 0 0.05      # all sixty tables, to read
    python -m tests.benchmarks.robust --tables odd --shares 0 0.05 --cached

That share of the training rows are anomalies, taken from the test rows; draws are of which. One default detector is
fitted to them. Its nats by column are averaged with those of :func:`discrete_itd.detection.score.small_trees` of the
same rows, which have the weight of the line, and (12) makes a score of the mean. Weight 0 is the detector that is not
told. Loan applications and orders have anomalies as they are, and no others are put there.

AUROC and average precision × 100, and differences to weight 0 with standard errors over tables and draws.
Results are kept in ``.cache/robust`` as they come; with ``--cached`` nothing is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.detection.score import Scorer, small_trees
from tests.benchmarks import data, detectors
from tests.benchmarks.odd import dirtied
from tests.benchmarks.score_rules import HISTORY, tables
from tests.benchmarks.tables import keep, kept, machine, markdown, mean_and_error

WEIGHTS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
PEERS = ("IForest", "kNN")
NOT_TOLD = "weight 0"


def main() -> None:
    """Print a table per share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", choices=("deciding", "odd"), default="deciding")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.01, 0.05, 0.1, 0.2])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--cached", action="store_true", help="measure nothing")
    options = parser.parse_args()
    print(machine(), flush=True)
    for share in options.shares:
        found: dict[str, list[dict[str, list[float]]]] = {"tables": [], "loans and orders": []}
        for name, read in tables(options.tables).items():
            if name in HISTORY and share:
                continue
            rows = read()
            for draw in options.draws:
                own = measured(name, rows, share, draw, options.cached)
                if own:
                    found["loans and orders" if name in HISTORY else "tables"].append(own)
        for kind, of in found.items():
            if of:
                print(
                    f"\n{share:.0%} anomalies put among the training rows, {kind}, {len(of)} fits\n"
                )
                print(summary(of), flush=True)


def measured(
    name: str, rows: data.Anomalies, share: float, draw: int, cached: bool
) -> dict[str, list[float]]:
    """AUROC and average precision of every method on one draw; empty if it cannot be had."""
    file, key = f"robust/{name}", f"{share:g}, draw {draw}"
    known = kept(file)
    if key not in known and not cached:
        dirty, own = dirtied(rows, share, draw), {}
        for method, score in scores(dirty, draw, peers=name not in HISTORY):
            both = (f(dirty.is_odd, score) for f in (roc_auc_score, average_precision_score))
            own[method] = [100 * float(value) for value in both]
        known[key] = own
        keep(file, key, own)
        print(name, key, {m: round(v[0], 1) for m, v in own.items()}, flush=True)
    return known.get(key, {})


def scores(rows: data.Anomalies, seed: int, *, peers: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Names of methods and their scores of the test rows, higher for odder ones."""
    density = DiffusionOutlierDetector(random_state=seed).fit(rows.train).density_
    if not density.denoiser_.closed_form:
        return
    trees = small_trees(density, density.rows(rows.train).x, seed)
    test = density.rows(rows.test)
    for w in WEIGHTS:
        yield f"weight {w:g}", -Scorer(density, trees=trees, weight=w).score(test)
    if peers:
        arrays = (frame.to_numpy(dtype=np.float64) for frame in (rows.train, rows.test))
        scaled = detectors.standardised(*arrays)
        for peer in PEERS:
            yield peer, detectors.pyod(peer, *scaled, seed).scores


def summary(found: list[dict[str, list[float]]]) -> str:
    """A line per method."""
    lines, base = [], np.array([own[NOT_TOLD] for own in found])
    for method in [m for m in found[0] if all(m in own for own in found)]:
        values = np.array([own[method] for own in found])
        line = [method, *(f"{mean:.1f}" for mean in values.mean(0))]
        if len(found) > 1:
            line += ["{:+.1f} ± {:.1f}".format(*mean_and_error(d)) for d in (values - base).T]
        lines.append([*line, *[""] * (5 - len(line))])
    return markdown(["", "AUROC", "AP", "difference", "difference of AP"], lines)


if __name__ == "__main__":
    main()
