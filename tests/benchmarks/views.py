"""What the second view of the anomaly score is worth: the same fits with and without it, beside nearest neighbours.

    python -m tests.benchmarks.views                # twenty numeric tables, eight categorical, sixty of OddBench, ten
    python -m tests.benchmarks.views numeric --seeds 0 1
    python -m tests.benchmarks.views --stable       # of every sixth of OddBench, three seeds and three orders of rows

A detector is fitted once a table and seed, and scores the test rows with the distances of
:mod:`discrete_itd.detection.distances` and without; "plain nats" are minus the log-probabilities of the same models,
which (12) damps where they are usual; "kNN4" are nearest neighbours in four scalings (``detectors.py``).
Tables are divided as in ``anomaly.py`` (random halves, thirds) and ``odd.py``; "planted" are the generated, fresh and
messy ones of ``tomorrow.py``, without neighbours: raw tables of mixed columns with wrong cells. AUROC and average
precision are multiplied by 100, with standard errors over tables of the differences. Results are kept in
``.cache/views``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from tests.benchmarks import data, detectors, tomorrow
from tests.benchmarks.tables import keep, kept, machine, markdown, mean_and_error

KINDS = ("numeric", "categorical", "odd", "planted")
SCORES = ("ours", "without distances", "plain nats", "kNN4")
MOST_STABLE = 3000  # training rows of the tables that are fitted five times


def main() -> None:
    """Print a line per kind and score, then one per table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help=f"of {KINDS}, all by default")
    parser.add_argument("--tables", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--stable", action="store_true", help="rank correlations of scores")
    options = parser.parse_args()
    print(machine(), flush=True)
    if options.stable:
        stability(options.tables or data.odd_names()[3::6])
        return
    lines, by_table = [], []
    for kind in options.kinds or KINDS:
        found = {}
        for name in names_of(kind):
            if options.tables and name not in options.tables:
                continue
            each = [measured(kind, name, seed) for seed in options.seeds]
            known = [scores for scores in each if scores]
            names = [s for s in SCORES if known and s in known[0]]
            found[name] = {s: np.mean([scores[s] for scores in known], 0) for s in names}
        found = {name: scores for name, scores in found.items() if scores}
        if not found:
            print(f"{kind}: no tables are there")
            continue
        for score in next(iter(found.values())):
            own = np.array([scores[score] for scores in found.values()])
            behind = own - np.array([scores["without distances"] for scores in found.values()])
            gains = ["{:+.1f} ± {:.1f}".format(*mean_and_error(behind[:, k])) for k in range(2)]
            means = [f"{own[:, k].mean():.1f}" for k in range(2)]
            lines.append([f"{len(found)} {kind}", score, *means, *gains])
        by_table += [
            [kind, name, *(f"{v:.1f}" for values in scores.values() for v in values)]
            for name, scores in found.items()
        ]
    print(markdown(["tables", "score", "AUROC", "AP", "AUROC, gain", "AP, gain"], lines))
    heads = [f"{score}, {what}" for score in SCORES for what in ("AUROC", "AP")]
    print()
    print(markdown(["kind", "table", *heads], by_table))


def stability(names: list[str]) -> None:
    """Print Spearman's correlations of the scores of test rows: mean over pairs of seeds, and of orders of the rows."""
    lines = []
    for name in names:
        rows = data.load_odd(name)
        if len(rows.train) > MOST_STABLE:
            continue
        shuffled = [rows.train.sample(frac=1, random_state=k) for k in range(2)]
        fits = [(seed, rows.train) for seed in range(3)] + [(0, train) for train in shuffled]
        scores = [
            DiffusionOutlierDetector(random_state=seed).fit(train).score_samples(rows.test)
            for seed, train in fits
        ]
        ranks = np.corrcoef(rankdata(scores, axis=1))
        seeds = ranks[:3, :3][np.triu_indices(3, 1)].mean()
        orders = ranks[np.ix_([0, 3, 4], [0, 3, 4])][np.triu_indices(3, 1)].mean()
        lines.append([name, len(rows.train), seeds, orders])
        print(f"{name}: {seeds:.3f} {orders:.3f}", file=sys.stderr, flush=True)
    means = [np.mean([line[k] for line in lines]) for k in (2, 3)]
    lines = [[name, n, f"{s:.3f}", f"{o:.3f}"] for name, n, s, o in [*lines, ["mean", "", *means]]]
    print(markdown(["table", "rows", "between seeds", "between orders"], lines))


def names_of(kind: str) -> list[str]:
    """The tables of a kind that are there."""
    if kind == "numeric":
        return data.numeric_names()
    if kind == "planted":
        return [n for part in ("generated", "fresh", "messy") for n in tomorrow.SETS[part]]
    return data.categorical_names() if kind == "categorical" else data.odd_names()


def measured(kind: str, name: str, seed: int) -> dict[str, list[float]]:
    """AUROC and average precision of each score on one table, from the cache if they are there; {} if a fit failed."""
    known = kept(f"views/{kind}-{name}")
    if str(seed) in known:
        return known[str(seed)]
    table = encoded = None
    if kind == "planted":
        if (table := tomorrow.load(name, seed)) is None:
            return {}
        test, kinds = table.planted or (
            table.rows[table.n_fit :],
            np.asarray(table.kinds)[table.n_fit :],
        )
        rows = data.Anomalies(table.rows[: table.n_fit], test, kinds != "")
    elif kind == "numeric":
        rows = data.halves(*data.load_numeric(name), seed)
        columns = [f"x{j}" for j in range(rows.train.shape[1])]
        encoded = rows.train, rows.test
        train, test = (pd.DataFrame(part, columns=pd.Index(columns)) for part in encoded)
        rows = data.Anomalies(train, test, rows.is_odd)
    elif kind == "categorical":
        rows = data.thirds(*data.load_categorical(name), seed + 4)
        encoded = detectors.one_hot(rows.train, rows.test)
    else:
        rows = data.load_odd(name)
        encoded = rows.train.to_numpy(float), rows.test.to_numpy(float)
    start = time.process_time()
    try:
        if table is None:
            model = DiffusionOutlierDetector(DiffusionDensity(random_state=seed)).fit(rows.train)
        else:
            model, _ = tomorrow.fitted(table, np.arange(len(table.rows)), seed)
        scores = {"ours": -model.score_samples(rows.test)}
    except Exception as error:  # one table does not take the others down
        print(f"{name}: left out, {error!r}", file=sys.stderr, flush=True)
        return {}
    model._scorer = replace(model._scorer, distances=None)
    scores["without distances"] = -model.score_samples(rows.test)
    scores["plain nats"] = plain_nats(model, rows.test)
    if encoded is not None:
        neighbours = detectors.neighbours_in_scalings(*encoded, seed, detectors.NEIGHBOURS)
        scores["kNN4"] = neighbours.scores
    print(f"{kind} {name}: {time.process_time() - start:.1f} s", file=sys.stderr, flush=True)
    found = {
        score: [
            100 * float(roc_auc_score(rows.is_odd, values)),
            100 * float(average_precision_score(rows.is_odd, values)),
        ]
        for score, values in scores.items()
    }
    keep(f"views/{kind}-{name}", str(seed), found)
    return found


def plain_nats(model: DiffusionOutlierDetector, test: pd.DataFrame) -> np.ndarray:
    """The nats of the rows (N,) under the models of a detector's score, by their shares."""
    shares, models = zip(*model._scorer.models, strict=True)
    nats = model._scorer._nats(model.density_.rows(test), *models)
    return np.sum([s * np.nansum(n, 1) for s, n in zip(shares, nats, strict=True)], 0)


if __name__ == "__main__":
    main()
