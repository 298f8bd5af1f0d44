"""Anomaly detection on numeric tables: AUROC of this library beside PyOD's detectors, semi-supervised.

    python -m tests.benchmarks.numeric                      # every table that is there, smallest file first
    python -m tests.benchmarks.numeric thyroid Wilt --max-time 30 --n-evaluations 64
    python -m tests.benchmarks.numeric glass --quick

Like the protocol of DTE (Livernoche et al., ICLR 2024, arXiv:2305.18593), but shuffled: at most 12 000 rows are
drawn, a random half of the normal rows is for training, the other half and all anomalies are for testing. The
detectors of PyOD get the whole training half, standardised by its means and deviations, with their default
parameters. Of the same half this library is fitted on 80 %; the nats of the other 20 % decide between its kinds of
column ("chosen"), never the test rows. A density of integers has no bound, so on tables of integers those nats favour
"continuous" over a mass.

Results are kept in ``.cache`` as they come: a command that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from tests.benchmarks.data import MAX_ROWS, Anomalies, halves, load_numeric, numeric_names
from tests.benchmarks.detectors import pyod, standardised
from tests.benchmarks.tables import (
    CACHE,
    available,
    estimator,
    machine,
    markdown,
    mean_and_error,
    timed,
)

OURS = {"continuous": "continuous", "binned": "binned", "default": None}
PEERS = ("kNN", "ECOD", "HBOS", "IForest", "LOF")


def main() -> None:
    """Print a row per table, then means and mean ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="all of them by default")
    parser.add_argument("--seed", type=int, default=0, help="of the rows drawn and their halves")
    parser.add_argument("--max-time", type=float, default=30.0, help="seconds of training, per fit")
    parser.add_argument("--max-steps", type=int, help="of training, per fit, in place of a time")
    parser.add_argument("--n-evaluations", type=int, default=64)
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--quick", action="store_true", help="a few steps of ours")
    options = parser.parse_args()
    print(machine())
    names = options.tables or numeric_names()
    if not names:
        print("skipped: no data/anomaly_numeric (see tests/benchmarks/data.py)")
        return
    peers = PEERS if available("pyod") else ()
    methods = [*OURS, "chosen", *peers]
    header = ["table", "rows × columns", *(f"{m}, nats" for m in OURS), *methods, "s to fit, score"]
    lines = markdown(header, [["x"] * len(header)]).splitlines()
    print("\nAUROC × 100; nats of held-out normal rows, lower is better.\n")
    print("\n".join(lines[:2]), flush=True)
    table = []
    for name in names:
        kept = _measure(name, peers, options)
        auroc = [100 * kept[m]["auroc"] if m in kept else np.nan for m in methods]
        chosen = min(OURS, key=lambda kind: kept[kind].get("nats", np.inf))
        auroc[methods.index("chosen")] = auroc[methods.index(chosen)]
        nats = [_nats(kept[kind]) for kind in OURS]
        seconds = "{fit_seconds:.0f}, {score_seconds:.0f}".format(**kept[chosen])
        row = [name, kept["shape"], *nats, *(f"{a:.1f}" for a in auroc), seconds]
        print(markdown(header, [row]).splitlines()[2], flush=True)
        table.append(auroc)
    scores = np.array(table)
    # "chosen" repeats another column, so the ranks are among it and the peers.
    ranked = [methods.index(m) for m in ("chosen", *peers)]
    ranks = np.full(scores.shape, np.nan)
    ranks[:, ranked] = rankdata(-scores[:, ranked], axis=1)
    skip = [""] * (1 + len(OURS))
    for label, values in (("mean", scores), ("mean rank", ranks)):
        cells = [f"{v:.2f}" if np.isfinite(v) else "" for v in values.mean(0)]
        print(markdown(header, [[label, *skip, *cells, ""]]).splitlines()[2])


def _nats(entry: dict[str, Any]) -> str:
    return f"{entry['nats']:.2f} ± {entry['nats_error']:.2f}" if "nats" in entry else "failed"


def _measure(name: str, peers: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """The results of one table, from the cache as far as they are there."""
    CACHE.mkdir(exist_ok=True)
    bound = options.max_time if options.max_steps is None else f"{options.max_steps}steps"
    effort = "quick" if options.quick else f"{bound}-{options.n_evaluations}"
    file = CACHE / f"numeric-{name}-{options.seed}-{effort}.json"
    fresh = options.fresh or options.quick or not file.exists()
    kept: dict[str, Any] = {} if fresh else json.loads(file.read_text())
    X, odd = load_numeric(name)
    split = halves(X, odd, options.seed)
    kept["shape"] = f"{min(len(X), MAX_ROWS)} × {X.shape[1]}"
    for kind, columns in OURS.items():
        if kind not in kept:
            kept[kind] = _ours(split, columns, options)
            file.write_text(json.dumps(kept))
    for label in peers:
        if label not in kept:
            kept[label] = _peer(split, label, options.seed)
            file.write_text(json.dumps(kept))
    return kept


def _ours(split: Anomalies, columns: str | None, options: argparse.Namespace) -> dict[str, float]:
    """AUROC, nats of the held-out fifth of the training half, seconds."""
    train, test, is_odd = split
    names = [f"x{j}" for j in range(train.shape[1])]
    held = len(train) // 5  # the rows are in random order already
    model = estimator(options.max_time, quick=options.quick, column_types=columns)
    if not options.quick:
        model.set_params(n_evaluations=options.n_evaluations)
    if options.max_steps is not None:
        model.set_params(max_steps=options.max_steps, max_time=None)
    try:
        _, fit_seconds = timed(model.fit, pd.DataFrame(train[held:], columns=names))
        valid, _ = timed(model.score_samples, pd.DataFrame(train[:held], columns=names))
        scores, score_seconds = timed(model.score_samples, pd.DataFrame(test, columns=names))
        auroc = float(roc_auc_score(is_odd, -scores))
    except (ValueError, RuntimeError) as error:  # one table of twenty should not end the run
        print(f"<!-- columns={columns}: {type(error).__name__}: {error} -->", flush=True)
        return {"auroc": np.nan, "fit_seconds": np.nan, "score_seconds": np.nan}
    nats, nats_error = mean_and_error(-valid)
    return {
        "auroc": auroc,
        "nats": nats,
        "nats_error": nats_error,
        "fit_seconds": fit_seconds,
        "score_seconds": score_seconds,
    }


def _peer(split: Anomalies, label: str, seed: int) -> dict[str, float]:
    """AUROC of one detector of PyOD with its defaults, seconds."""
    result = pyod(label, *standardised(split.train, split.test), seed)
    auroc = float(roc_auc_score(split.is_odd, result.scores))
    return {"auroc": auroc, **result.seconds()}


if __name__ == "__main__":
    main()
