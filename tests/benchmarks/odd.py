"""Anomaly detection on sixty tables that nobody chose: this library's detector and its parts beside PyOD's.

    python -m tests.benchmarks.odd --deciding
    python -m tests.benchmarks.odd
    python -m tests.benchmarks.odd --methods ours kNN --cached
    python -m tests.benchmarks.odd --dirty 0.01 0.05 0.1 0.2
    python -m tests.benchmarks.odd --in-hand 0.01 0.05 --all FOLDER --every 24 --most-rows 1500
    python -m tests.benchmarks.odd --all FOLDER
    python -m tests.benchmarks.odd --ovr FOLDER --every 5 --most-rows 6000

Sixty tables drawn at random from OddBench (github.com/psorus/Outformer, arXiv:2602.03018), divided as published there:
inliers to train on, inliers and anomalies to test on. ``--deciding`` are every tenth by name, on which choices may be
made; the others are for reading. Ours: the default detector, and its parts alone: exact models (the best of independent
columns, a tree and a Bayesian network), a causal network, and a mixture of products; and the detector
if it is told that 5 % of the rows are anomalies, where none is. Peers are PyOD's
with their defaults on standardised columns and, where their repositories are unpacked (see ``detectors.py``), two
papers': TCCM, and DTE's neural (DTE-C) and non-parametric (DTE-NP) variants, with their authors' settings, on the same.

AUROC and average precision are multiplied by 100, with standard errors over tables. Wins and losses are of the method
against ours, table by table, ties within 0.05 left out; ``behind`` is how much lower its AUROC is on average, with the
standard error of the paired difference. Seconds to fit and rows per second are medians over tables, and
processor-seconds of fit and score together.

With ``--dirty``, that share of the training rows are anomalies, taken from the test rows. Ours is told the share
(``contamination``), or not ("ours, not told"); PyOD's would set their thresholds by it only, and the papers' have no
such parameter. MCD, which leaves out the most outlying rows by itself, is one more peer.

With ``--in-hand``, the training rows, that share of anomalies among them, are the table in hand: they are ranked by
methods that were fitted to them. Ours leaves every row out of the fit by which it is scored (``find_outliers``);
"ours, in sample" is the detector's score of the rows that it was fitted to. Nobody is told the share.

With ``--all``, every table of a folder (``benchmarks/oddbench`` of that repository at 99aebce; of these, the 559 that
``data/odd_open.txt`` of the shared folder names, where it is there), one process and one thread a core, beside the
peers of PyOD, DTE-NP and boosting by column: every column is predicted from the others by
scikit-learn's gradient boosting, and a row's score is the sum of its surprisals. The last table is that of
"TaskBridge" (2026, Table 4), 31 methods on 790 tables of the same source, as published; these are other tables, so
that what can be compared is how far a method is ahead of nearest neighbours.

With ``--ovr``, the same of OvRBench (``benchmarks/ovrbench`` of that repository: data sets of classification, one class
of which is normal), nothing of which has decided anything here.

Results are kept in ``.cache/odd`` and ``.cache/ovr`` as they come: a command that was stopped goes on where it was.
With ``--cached``, nothing is measured, and methods of which nothing is kept are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection.out_of_fold import in_order, out_of_fold
from discrete_itd.models.exact import BayesNet, Independent, Tree
from discrete_itd.models.networks import QUICK_MIXTURE
from discrete_itd.recipes import Causal, RowMixture
from tests.benchmarks import data, detectors
from tests.benchmarks.tables import available, keep, kept, machine, markdown, mean_and_error

EVERY = 10  # one table of so many decides
PARTS: dict[str, Any] = {
    "exact": RowMixture((Independent(), Tree(), BayesNet())),
    "causal": Causal(),
    "mixture": QUICK_MIXTURE,
}
PEERS = ["IForest", "kNN4", "kNN", "LOF", "ECOD", "HBOS", "boosting", *detectors.OF_PAPERS]
NOT_TOLD, WRONGLY_TOLD = "ours, not told", "ours, told 5 %"
IN_SAMPLE = "ours, in sample"
OF_HAND = ["ours", IN_SAMPLE, "kNN4", "kNN", "LOF", "IForest"]
METHODS = ["ours", WRONGLY_TOLD, *PARTS, *PEERS]
OF_ALL = ["ours", "kNN4", "kNN", "LOF", "IForest", "ECOD", "DTE-NP", "boosting"]
# AUROC and average precision, over 790 tables and five seeds
PUBLISHED = {
    "TaskBridge on TabICLv2": (80.24, 50.43),
    "DTE-NP": (76.96, 43.63),
    "nearest neighbours": (76.25, 42.41),
    "TACTIC": (75.24, 41.70),
    "OutFormer": (74.16, 43.00),
    "FoMo-0D": (72.65, 42.70),
    "IsolationForest": (71.26, 31.26),
    "ECOD": (68.10, None),
}
TIE = 0.05
FEWEST_LEFT = 5  # anomalies that are left to test on


def main() -> None:
    """Print the table of all methods over the tables, and each table's AUROC."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="all of them by default")
    parser.add_argument("--deciding", action="store_true", help="every tenth table")
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="every table of a folder")
    parser.add_argument("--ovr", metavar="FOLDER", type=Path, help="every table of OvRBench")
    parser.add_argument("--every", type=int, default=1, help="read every n-th table, by name")
    parser.add_argument("--jobs", type=int, default=cpu_count(), help="processes, with --all")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, IN_SAMPLE])
    parser.add_argument("--dirty", type=float, nargs="+", default=[0.0])
    parser.add_argument("--in-hand", type=float, nargs="+", metavar="SHARE")
    parser.add_argument("--most-rows", type=int, help="of training, of a table that is read")
    parser.add_argument("--label", default="", help="of this version of ours, in the cache")
    parser.add_argument("--cached", action="store_true", help="measure nothing")
    options = parser.parse_args()
    folder = options.all or options.ovr
    every = data.names_of(options.ovr) if options.ovr else data.odd_names(options.all)
    names = options.tables or every[:: options.every]
    if options.most_rows:
        n_rows = {name: len(data.load_odd(name, folder).train) for name in names}
        names = [name for name in names if n_rows[name] <= options.most_rows]
    if not names:
        print("skipped: no tables of OddBench (see tests/benchmarks/data.py)")
        return
    names = names[::EVERY] if options.deciding else names
    print(machine(), flush=True)
    usual = OF_HAND if options.in_hand else OF_ALL if folder else METHODS
    methods = options.methods or usual
    if not available("pyod"):
        methods = [m for m in methods if m not in detectors.PYOD]
    if not options.cached:
        methods = [m for m in methods if m not in detectors.UNPACKED or detectors.is_unpacked(m)]
    for share in options.in_hand or options.dirty:
        own = methods
        if share and not options.in_hand:
            others = [m for m in methods if m not in ("ours", WRONGLY_TOLD)]
            own = ["ours", NOT_TOLD, *others, *(["MCD"] if "kNN" in methods else [])]
        results = of_tables(names, own, share, options)
        own = [m for m in own if any(m in of for of in results.values())]
        if not own:
            print("nothing to show: no method is available, or none has results")
            continue
        where = "the table in hand" if options.in_hand else "training"
        print(f"\n{len(names)} tables, {share:.0%} anomalies in {where}\n")
        print(summary(results, own))
        if options.all:
            print("\nAs published, on 790 tables of the same source\n")
            print(published())
        print("\nAUROC × 100\n")
        print(by_table(results, own))


def of_tables(
    names: list[str], methods: list[str], share: float, options: argparse.Namespace
) -> dict[str, dict[str, dict[str, float]]]:
    """The results of the methods on the tables; of all tables of a folder by a process a core."""
    if not (options.all or options.ovr) or options.cached:
        return {name: measured(name, methods, share, options) for name in names}
    results = {}
    with ProcessPoolExecutor(
        options.jobs,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        calls = {pool.submit(measured, name, methods, share, options): name for name in names}
        for done in as_completed(calls):
            results[calls[done]] = done.result()
    return {name: results[name] for name in names}


def measured(
    name: str, methods: list[str], share: float, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """The results of the methods on one table, from the cache as far as they are there."""
    kind = "in-hand" if options.in_hand else "dirty"
    file = f"{'ovr' if options.ovr else 'odd'}/{name}" + (f"-{kind}-{share:g}" if share else "")
    known, rows = kept(file), None
    for method in methods:
        ours = (method in METHODS and method not in PEERS) or method in (NOT_TOLD, IN_SAMPLE)
        key = f"{method}-{options.label}" if ours and options.label else method
        if key not in known and not options.cached:
            if rows is None:
                divided = data.load_odd(name, options.all or options.ovr)
                rows = dirtied(divided, share)
                if options.in_hand:
                    is_odd = np.arange(len(rows.train)) >= len(divided.train)
                    rows = data.Anomalies(rows.train, rows.train, is_odd)
            start = time.process_time()
            try:
                scored = fit_and_score(method, rows, share, bool(options.in_hand))
            except Exception as error:  # one table does not take the others down
                print(f"{name}, {key}: left out, {error!r}", file=sys.stderr, flush=True)
                continue
            known[key] = {
                "auroc": 100 * float(roc_auc_score(rows.is_odd, scored.scores)),
                "ap": 100 * float(average_precision_score(rows.is_odd, scored.scores)),
                "rows": len(rows.test),
                "cpu_seconds": time.process_time() - start,
                **scored.seconds(),
            }
            keep(file, key, known[key])
            print(f"{name}, {key}: {known[key]}", file=sys.stderr, flush=True)
        if key in known:
            known[method] = known[key]
    return {method: known[method] for method in methods if method in known}


def dirtied(rows: data.Anomalies, share: float, seed: int = 0) -> data.Anomalies:
    """Anomalies of the test rows put among the training rows, as far as some are left to test on."""
    if not share:
        return rows
    odd = np.flatnonzero(rows.is_odd)
    n = min(round(share * len(rows.train) / (1 - share)), max(0, len(odd) - FEWEST_LEFT))
    moved = np.random.default_rng(seed).permutation(odd)[:n]
    train = pd.concat([rows.train, rows.test.iloc[moved]], ignore_index=True)
    left = np.setdiff1d(np.arange(len(rows.test)), moved)
    return data.Anomalies(train, rows.test.iloc[left].reset_index(drop=True), rows.is_odd[left])


def fit_and_score(
    method: str, rows: data.Anomalies, share: float, in_hand: bool
) -> detectors.Scored:
    """One method on one table."""
    train, test, _ = rows
    if in_hand and method in ("ours", IN_SAMPLE):
        model = DiffusionOutlierDetector(random_state=0)
        if method == IN_SAMPLE:
            return detectors.fit_and_score(model, train, test)
        folds, seconds = detectors.timed(out_of_fold, model, train)
        return detectors.Scored(-in_order(folds, [f.scores for f in folds]), seconds, np.nan)
    if method in PEERS or method == "MCD":
        arrays = [frame.to_numpy(dtype=np.float64) for frame in (train, test)]
        if method == "kNN4":
            return detectors.neighbours_in_scalings(*arrays, 0, in_hand=in_hand)
        scaled = detectors.standardised(*arrays)
        if method == "boosting":
            return detectors.boosting(*scaled, 0)
        if method in detectors.OF_PAPERS:
            return detectors.OF_PAPERS[method](*scaled, 0)
        return detectors.pyod(method, *scaled, 0, in_hand=in_hand)
    contamination: Any = share if share and method != NOT_TOLD else "auto"
    if method == WRONGLY_TOLD:
        contamination = 0.05
    if method in PARTS:
        model = DiffusionOutlierDetector(
            DiffusionDensity(denoiser=PARTS[method]), contamination=contamination, random_state=0
        )
        return detectors.fit_and_score(model, train, test)
    model = DiffusionOutlierDetector(contamination=contamination, random_state=0)
    return detectors.fit_and_score(model, train, test)


# -- tables -------------------------------------------------------------------------------------

Results = dict[str, dict[str, dict[str, float]]]


def summary(results: Results, methods: list[str]) -> str:
    """Means over the tables that every method has."""
    names = [name for name, of in results.items() if all(m in of for m in methods)]
    if not names:
        return ""

    def values(method: str, what: str) -> np.ndarray:
        return np.array([results[name][method].get(what, np.nan) for name in names])

    def over(own: np.ndarray, ap: np.ndarray) -> list[str]:
        """How far a method is ahead of nearest neighbours, where they are there."""
        if "kNN" not in methods:
            return []
        return [plus_minus(own - auroc["kNN"]), plus_minus(ap - values("kNN", "ap"))]

    auroc = {m: values(m, "auroc") for m in methods}
    ranks = rankdata(-np.stack([auroc[m] for m in methods]).round(6), axis=0).mean(1)
    lines = []
    for m, rank in zip(methods, ranks, strict=True):
        gap = auroc[methods[0]] - auroc[m]
        rate = values(m, "rows") / np.maximum(values(m, "score_seconds"), 1e-4)
        lines.append(
            [
                m,
                plus_minus(auroc[m]),
                plus_minus(values(m, "ap")),
                f"{rank:.2f}",
                f"{(gap < -TIE).sum()}, {(gap > TIE).sum()}",
                plus_minus(gap) if m != methods[0] else "",
                *over(auroc[m], values(m, "ap")),
                f"{np.median(values(m, 'fit_seconds')):.2f}",
                f"{np.median(rate):,.0f}",
                f"{np.median(values(m, 'cpu_seconds')):.1f}",
            ]
        )
    ahead = ["over kNN", "AP over kNN"] if "kNN" in methods else []
    header = [
        "method",
        "AUROC",
        "AP",
        "rank",
        "wins, losses",
        "behind",
        *ahead,
        "s to fit",
        "rows / s",
        "CPU-s",
    ]
    return f"{len(names)} tables that every method has\n\n{markdown(header, lines)}"


def published() -> str:
    """The published table, and how far each is ahead of its nearest neighbours."""
    auroc, ap = PUBLISHED["nearest neighbours"]
    return markdown(
        ["method", "AUROC", "AP", "over kNN", "AP over kNN"],
        [
            [
                m,
                f"{a:.2f}",
                f"{p:.2f}" if p else "",
                f"{a - auroc:+.2f}",
                f"{p - ap:+.2f}" if p else "",
            ]
            for m, (a, p) in PUBLISHED.items()
        ],
    )


def plus_minus(values: np.ndarray) -> str:
    """A mean with its standard error."""
    mean, error = mean_and_error(values) if len(values) > 1 else (float(values[0]), np.nan)
    return f"{mean:.1f} ± {error:.1f}"


def by_table(results: Results, methods: list[str]) -> str:
    """A row per table, the one by which ours is farthest behind the best first."""

    def behind(name: str) -> float:
        of = results[name]
        return of[methods[0]]["auroc"] - max(of[m]["auroc"] for m in of) if methods[0] in of else 0

    return markdown(
        ["table", *methods],
        [
            [
                name,
                *(
                    f"{results[name][m]['auroc']:.1f}" if m in results[name] else ""
                    for m in methods
                ),
            ]
            for name in sorted(results, key=behind)
        ],
    )


if __name__ == "__main__":
    main()
