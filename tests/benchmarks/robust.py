"""Anomalies among the training rows: what they cost, and what trimming gets back.

    python -m tests.benchmarks.robust                              # mushroom, and five more tables if they are there
    python -m tests.benchmarks.robust mushroom --fractions 0 0.1 --max-time 30
    python -m tests.benchmarks.robust mushroom --quick

Half of the normal rows, at most 6000, are for training; of the other half at most 3000 are for testing. A given share
of the training rows is replaced by anomalies. Others, at most 1000, are for testing: the same for every share. Tables:
edible mushrooms with poisonous ones as anomalies (of this package); bank (categories), landsat, SpamBase, fault and
PageBlocks (numbers), see ``data.py``.

- plain: the detector fitted on all training rows, none held out for calibration;
- trimmed: the same with ``contamination`` set to the share of anomalies, or to 5 % where there are none;
- IForest: PyOD's, on one column per category or standardised numbers.

"AUROC" is of the detector's scores; "nats" is minus the mean log-probability (log-density) of the normal test rows,
fewer are better; "left out" is the share of the training anomalies that trimming found; "s" is for the fit.

Results are kept in ``.cache/robust`` as they come.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tests.benchmarks import data, detectors
from tests.benchmarks.detectors import Scored
from tests.benchmarks.tables import (
    available,
    estimator,
    keep,
    kept,
    machine,
    markdown,
    mean_and_error,
    timed,
)

TABLES = ("mushroom", "bank", "PageBlocks", "fault", "landsat", "SpamBase")
FRACTIONS = (0.0, 0.01, 0.05, 0.1)
METHODS = ("plain", "trimmed", "IForest")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="those above by default")
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of training, per fit")
    parser.add_argument("--n-evaluations", type=int, default=128)
    parser.add_argument("--label", default="", help="of this version of ours, in the cache")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--quick", action="store_true", help="a few steps, few rows")
    options = parser.parse_args()
    here = {"mushroom", *data.categorical_names(), *data.numeric_names()}
    names = options.tables or TABLES
    for name in [name for name in names if name not in here]:
        print(f"skipped {name}: its file is not here (see tests/benchmarks/data.py)")
    methods = [m for m in options.methods if m != "IForest" or available("pyod")]
    print(machine())
    print()
    header = ["table", "anomalies in training", "method", "seeds", "AUROC × 100"]
    header += ["nats of normal rows", "left out", "s"]
    print("\n".join(markdown(header, [[""] * len(header)]).splitlines()[:2]), flush=True)
    for name in [name for name in names if name in here]:
        for row in _compare(name, methods, options):
            print(markdown(header, [row]).splitlines()[2], flush=True)


def _compare(name: str, methods: list[str], options: argparse.Namespace):
    """The rows of one table."""
    for fraction in options.fractions:
        for method in methods:
            entries = []
            for seed in options.seeds:
                entry = _measure(name, fraction, method, seed, options)
                entries += [entry] if entry else []
            if not entries:
                continue
            auroc = np.array([one["auroc"] for one in entries])
            cell = f"{auroc.mean():.1f}"
            cell += f" ± {mean_and_error(auroc)[1]:.1f}" if len(auroc) > 1 else ""
            seconds = np.mean([one["fit_seconds"] for one in entries])
            nats = ""
            if "nats" in entries[0]:
                of_one = "{:.2f} ± {:.2f}".format(*entries[0]["nats"])
                means = np.array([one["nats"][0] for one in entries])
                nats = (
                    of_one if len(means) == 1 else "{:.2f} ± {:.2f}".format(*mean_and_error(means))
                )
            left_out = [f"{100 * e['left_out']:.0f} %" for e in entries if "left_out" in e]
            row = [name, f"{fraction:.0%}", method, len(entries), cell, nats]
            yield [*row, ", ".join(left_out), f"{seconds:.1f}"]


def _measure(
    name: str, fraction: float, method: str, seed: int, options: argparse.Namespace
) -> dict[str, Any] | None:
    """The results of one method, from the cache if they are there; None if it cannot be had."""
    effort = "" if method == "IForest" else f"-{options.max_time:g}s-{options.n_evaluations}"
    effort = "-quick" if options.quick else f"{effort}-{options.label}".rstrip("-")
    file, key = f"robust/{name}-{method}{effort}", f"{fraction:g}, seed {seed}"
    known = {} if options.fresh or options.quick else kept(file)
    if key in known:
        return known[key]
    rows = contaminated(name, fraction, seed, options.quick)
    if rows is None:
        print(f"<!-- skipped {name} at {fraction:.0%}: too few anomalies -->", flush=True)
        return None
    train, bad, normal, odd = rows
    entry: dict[str, Any] = {}
    test = pd.concat([normal, odd], ignore_index=True)
    if method == "IForest":
        code = detectors.standardised if _numeric(name) else detectors.one_hot
        coded = code(train.to_numpy(), test.to_numpy()) if _numeric(name) else code(train, test)
        result = detectors.pyod("IForest", *coded, seed)
    else:
        density = estimator(options.max_time, quick=options.quick, random_state=seed)
        if not options.quick:
            density.set_params(n_evaluations=options.n_evaluations)
        share = "auto" if method == "plain" else fraction or 0.05
        model = detectors.detector(density, contamination=share, calibration_fraction=0)
        _, fit_seconds = timed(model.fit, train)
        scores, score_seconds = timed(model.score_samples, test)
        result = Scored(-scores, fit_seconds, score_seconds)
        entry["nats"] = mean_and_error(-model.density_.score_samples(normal))
        if method == "trimmed" and bad.any():
            entry["left_out"] = float(bad[model.trimmed_].sum() / bad.sum())
    truth = np.repeat([0, 1], [len(normal), len(odd)])
    entry |= {"auroc": 100 * float(roc_auc_score(truth, result.scores)), **result.seconds()}
    keep(file, key, entry)
    return entry


def _numeric(name: str) -> bool:
    return name in data.numeric_names()


def contaminated(
    name: str, fraction: float, seed: int, quick: bool = False
) -> tuple[pd.DataFrame, NDArray[np.bool_], pd.DataFrame, pd.DataFrame] | None:
    """Training rows, which of them are anomalies, normal test rows, and other anomalies to test on.

    None if the table has too few anomalies. The test rows do not depend on the share.
    """
    if _numeric(name):
        X, is_odd = data.load_numeric(name)
        frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    else:
        frame, is_odd = data.load_categorical(name)
    random = np.random.default_rng(seed)
    normal = random.permutation(np.flatnonzero(~is_odd))
    odd = random.permutation(np.flatnonzero(is_odd))
    n_train, n_test, n_odd = (300, 100, 100) if quick else (6000, 3000, 1000)
    n_train = min(len(normal) // 2, n_train)
    n_odd = min(len(odd) // 2, n_odd)
    n_bad = round(fraction * n_train)
    if n_bad > len(odd) - n_odd or (fraction > 0 and n_bad == 0):
        return None
    train = np.concatenate([normal[: n_train - n_bad], odd[n_odd : n_odd + n_bad]])
    train = random.permutation(train)
    rows = [
        frame.iloc[part].reset_index(drop=True)
        for part in (train, normal[n_train : n_train + n_test], odd[:n_odd])
    ]
    return rows[0], is_odd[train], rows[1], rows[2]


if __name__ == "__main__":
    main()
