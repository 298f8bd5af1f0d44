"""Anomaly detection: this library's detector beside PyOD's, over seeds.

    python -m tests.benchmarks.anomaly categorical                 # all sets and methods, smallest file first
    python -m tests.benchmarks.anomaly numeric glass Wilt --methods ours kNN --max-time 30
    python -m tests.benchmarks.anomaly numeric --split first
    python -m tests.benchmarks.anomaly numeric --ofa FOLDER
    python -m tests.benchmarks.anomaly numeric --adbench FOLDER
    python -m tests.benchmarks.anomaly categorical --cached        # print what earlier runs left, measure nothing
    python -m tests.benchmarks.anomaly categorical mushroom --quick

Categorical: the protocol of MaskDiff-AD (arXiv:2605.30046). 30 % of a table's rows, stratified, are for testing, the
normal ones of the others for training; splits with the seeds 4 to 8. Every column is a category. PyOD's detectors
see one column per category, ours the categories.

Numeric: at most 12 000 rows are drawn, a random half of the normal ones is for training, the other half and all
anomalies are for testing; seeds 0 to 4. The script of DTE (ICLR 2024, arXiv:2305.18593) takes the first half in file
order instead and draws small tables anew with replacement, which is harder: ``--split first`` does that, and figures
that were published on it belong beside its figures only. PyOD's detectors see columns standardised by the training
rows, ours the numbers.

With ``--ofa``, the numeric tables are those in a folder (``Data`` of github.com/Shiy-Li/OFA-TAD at 0e1db28) on which
OFA-TAD (ICML 2026, arXiv:2603.14407) was tested: 29 of its 34 targets, for five are not with the others there. Train
and test rows are its own, the first half of the normal rows in file order and all others, but of the four tables of
more than 12 000 rows (campaign, cover, donors, shuttle). Beside ours stands what was published there.

With ``--adbench``, they are those in a folder (``adbench/datasets/Classical`` of github.com/Minqi824/ADBench,
arXiv:2206.09426), by random halves.

Peers have their default parameters; kNN and LOF keep at most 20 000 training rows. ECOD and COPOD rank a test row
among training and test rows together, which is how PyOD has them.

AUROC and average precision are multiplied by 100, with the standard error of the mean over the seeds. Bold: the best
mean of the table, and those whose paired difference to it, seed by seed, is at most one standard error. Ranks are of
the means. Seconds, to fit and to score, are the median of the seeds. A cell that has fewer seeds than its row says how
many.

Results are kept in ``.cache/anomaly`` as they come, a file per table, method and its parameters, an entry per seed: a
command that was stopped goes on where it was, and the peers need not run again beside another of ours (``--max-time``,
``--n-evaluations``, ``--columns``, ``--density``, ``--detector`` and ``--label`` make another).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.benchmarks import data, detectors
from tests.benchmarks.data import Anomalies
from tests.benchmarks.tables import (
    available,
    keep,
    kept,
    machine,
    markdown,
    mean_and_error,
)

METHODS = {
    "categorical": (["ours", "independent", "IForest", "ECOD", "COPOD", "HBOS", "kNN", "LOF"]),
    "numeric": ["ours", "kNN4", "kNN", "ECOD", "HBOS", "IForest", "LOF"],
}
OFA_METHODS = ["ours", "kNN4", "kNN", "LOF", "IForest", "ECOD", "DTE-NP", "TCCM"]
ALL_METHODS = ["ours", "independent", "kNN4", *detectors.PYOD, *detectors.UNPACKED]
# AUROC and average precision over the 34 targets of OFA-TAD, and by table where they could be had (see RESULTS.md)
PUBLISHED = {
    "OFA-TAD": (83.45, 66.29),
    "DRL": (81.76, 61.16),
    "DisentAD": (81.40, 61.15),
    "MCM": (81.02, 62.59),
    "LUNAR": (80.66, 59.33),
    "kNN": (80.01, 58.29),
    "LOF": (77.87, 56.14),
    "IForest": (78.08, 53.51),
}
BY_TABLE = """
table        kNN          MCM          DRL          DisentAD     OFA-TAD
Hepatitis    .4910/.3063  .6108/.4515  .6855/.4344  .6371/.4767  .7353/.4846
pima         .6807/.7181  .7131/.7062  .7313/.7210  .7161/.6856  .6959/.7037
thyroid      .9868/.8094  .9418/.7817  .9830/.7867  .9880/.8685  .9809/.8026
breastw      .9764/.9962  .9977/.9977  .9949/.9945  .9960/.9961  .9791/.9740
WDBC         .9978/.9573  .9918/.9462  .9990/.9843  .9977/.9605  .9996/.9933
Parkinson    .4615/.8202  .3379/.7927  .6603/.9211  .7101/.9209  .7164/.9348
lympho       .9343/.4628  .9915/.9246  .9920/.8784  .8338/.5709  .9911/.9182
wbc          .9707/.8438  .9708/.8413  .9821/.9114  .9777/.8120  .9516/.8092
glass        .5663/.0931  .5804/.1447  .5853/.1008  .8996/.4890  .6690/.1768
ionosphere   .9490/.9590  .9676/.9772  .9671/.9774  .9690/.9765  .9639/.9742
mammography  .8724/       .9073/       .8788/       .8880/       .9000/
campaign     /.4467       /.5570       /.4590       /.4399       .7564/.4515
satimage-2   /.9669       /.9774       /.8602       /.5736       .9964/.9610
shuttle      /.9225       /.9683       /.9693       /.9958       .9998/.9961
SpamBase     /.8135       /.7833       /.8455       /.6524       .8599/.8924
"""
TIE = 0.05  # points of AUROC or average precision below which two methods are level on a table
KEEPING_ROWS = ("kNN4", "kNN", "LOF")  # methods that keep training rows, ``NEIGHBOURS`` at most
SEEDS = {"categorical": [4, 5, 6, 7, 8], "numeric": [0, 1, 2, 3, 4]}
MEASURES = {"auroc": "AUROC × 100", "ap": "average precision × 100"}


def main() -> None:
    """Print a table per measure, then the means over the sets."""
    options = _options()
    kind = options.kind
    names_of, load = data.categorical_names, data.load_categorical
    if kind == "numeric":
        folder = options.ofa or options.adbench
        names_of = partial(data.numeric_names, folder)
        load = partial(data.load_numeric, folder=folder)
    names = options.tables or names_of()
    if not names:
        print(f"skipped: no {kind} tables with anomalies (see tests/benchmarks/data.py)")
        return
    print(machine())
    methods = options.methods if options.cached else _available(options.methods)
    results: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    shapes = {}
    for name in names:
        table = load(name)
        rows = min(len(table[0]), data.MAX_ROWS) if kind == "numeric" else len(table[0])
        shapes[name] = f"{rows} × {table[0].shape[1]}"
        results[name] = {method: _measure(name, table, method, options) for method in methods}
    print(f"\n{kind}, seeds {' '.join(map(str, options.seeds))}; ours: {_slug('ours', options)}")
    for measure, words in MEASURES.items():
        print(f"\n{words}{' (seconds to fit + to score)' if measure == 'auroc' else ''}\n")
        print(_table(measure, results, shapes, methods))
    print("\nOver the tables that every method of the list has\n")
    print(_summary(results, methods))
    if options.ofa:
        print("\nAs published, over 34 tables, 29 of them these; then on the same tables alone\n")
        print(_published(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=tuple(METHODS))
    parser.add_argument("tables", nargs="*", help="all of them by default")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS)
    parser.add_argument("--max-time", type=float, help="seconds of training, per fit")
    parser.add_argument("--n-evaluations", type=int, default=128)
    parser.add_argument("--columns", help="numeric: the kind of ours, inferred by default")
    parser.add_argument(
        "--density", type=json.loads, default={}, help="JSON: more of its parameters"
    )
    parser.add_argument("--detector", type=json.loads, default={}, help="JSON: its parameters")
    parser.add_argument("--label", default="", help="of this version of ours, in the cache")
    parser.add_argument(
        "--split",
        choices=("random", "first"),
        default="random",
        help="numeric: which half to train on",
    )
    parser.add_argument("--ofa", metavar="FOLDER", type=Path, help="numeric: OFA-TAD's tables")
    parser.add_argument("--adbench", metavar="FOLDER", type=Path, help="numeric: ADBench's tables")
    parser.add_argument("--cached", action="store_true", help="measure nothing")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, few rows")
    options = parser.parse_args()
    of_others = options.ofa or options.adbench
    options.seeds = options.seeds or ([0] if of_others else SEEDS[options.kind])
    options.methods = options.methods or (OFA_METHODS if of_others else METHODS[options.kind])
    return options


def _available(methods: list[str]) -> list[str]:
    """Those methods whose code is there; lines say which are skipped."""
    if set(methods) & set(detectors.PYOD) and not available("pyod"):
        methods = [method for method in methods if method not in detectors.PYOD]
    return [m for m in methods if m not in detectors.UNPACKED or detectors.is_unpacked(m)]


# -- measuring ----------------------------------------------------------------------------------


def _slug(method: str, options: argparse.Namespace) -> str:
    """A method with all that its results depend on, beside table and seed."""
    if method in KEEPING_ROWS:
        return f"{method}-{detectors.NEIGHBOURS}"
    if method != "ours":
        return method
    bound = f"{options.max_time:g}s-" if options.max_time else ""
    bound = "quick" if options.quick else f"{bound}{options.n_evaluations}"
    parts = [method, bound, options.label, options.columns or ""]
    parts += [f"{k}={v}" for part in (options.density, options.detector) for k, v in part.items()]
    return "-".join(part for part in parts if part).replace("/", "_")


def _measure(
    name: str, table: tuple[Any, np.ndarray], method: str, options: argparse.Namespace
) -> dict[int, dict[str, float]]:
    """The results of one method on one table, by seed, from the cache as far as they are there."""
    file = f"anomaly/{options.kind}-{name}-{_slug(method, options)}"
    file += "-quick" if options.quick and method != "ours" else ""
    file += (
        "-ofa"
        if options.ofa
        else "-adbench"
        if options.adbench
        else "-first"
        if options.split == "first"
        else ""
    )
    known = {} if options.fresh or options.quick else kept(file)
    for seed in options.seeds:
        if str(seed) in known or options.cached:
            continue
        split = _split(table, seed, options)
        start = time.process_time()
        try:
            result = _scored(method, split, seed, options)
        except (ValueError, RuntimeError) as error:  # one table should not end the run
            print(f"<!-- {name}, {method}: {type(error).__name__}: {error} -->", flush=True)
            continue
        known[str(seed)] = {
            "auroc": 100 * float(roc_auc_score(split.is_odd, result.scores)),
            "ap": 100 * float(average_precision_score(split.is_odd, result.scores)),
            "cpu_seconds": time.process_time() - start,
            **result.seconds(),
        }
        keep(file, str(seed), known[str(seed)])
        print(f"{file}, seed {seed}: {known[str(seed)]}", file=sys.stderr, flush=True)
    return {seed: known[str(seed)] for seed in options.seeds if str(seed) in known}


def _split(table: tuple[Any, np.ndarray], seed: int, options: argparse.Namespace) -> Anomalies:
    if options.kind == "categorical":
        split = data.thirds(*table, seed)
    elif options.ofa or options.split == "first":
        split = data.first_half(*table, seed, few_anew=not options.ofa)
    else:
        split = data.halves(*table, seed)
    if options.quick:
        few = np.random.default_rng(seed).permutation(len(split.is_odd))[:200]
        test = split.test.iloc[few] if options.kind == "categorical" else split.test[few]
        split = Anomalies(split.train[:500], test, split.is_odd[few])
    return split


def _scored(
    method: str, split: Anomalies, seed: int, options: argparse.Namespace
) -> detectors.Scored:
    """One method on one split."""
    train, test, _ = split
    encode = detectors.one_hot if options.kind == "categorical" else detectors.standardised
    max_rows = detectors.NEIGHBOURS if method in KEEPING_ROWS else None
    if method == "kNN4":
        rows = detectors.one_hot(train, test) if options.kind == "categorical" else (train, test)
        return detectors.neighbours_in_scalings(*rows, seed, max_rows)
    if method in detectors.PYOD:
        return detectors.pyod(method, *encode(train, test), seed, max_rows)
    if method in detectors.OF_PAPERS:
        return detectors.OF_PAPERS[method](*encode(train, test), seed)
    if options.kind == "numeric":
        names = [f"x{j}" for j in range(train.shape[1])]
        train, test = pd.DataFrame(train, columns=names), pd.DataFrame(test, columns=names)
    if method == "independent":
        return detectors.fit_and_score(detectors.untrained(), train, test)
    return detectors.ours(options.kind, train, test, seed, options)


# -- tables -------------------------------------------------------------------------------------


def _values(result: dict[int, dict[str, float]], measure: str) -> pd.Series:
    """One number per seed."""
    return pd.Series({s: entry.get(measure, np.nan) for s, entry in result.items()}, dtype=float)


def _best(results: dict[str, dict[int, dict[str, float]]], measure: str) -> set[str]:
    """The method of the best mean, and those within one standard error of it, by paired differences."""
    values = {method: _values(one, measure) for method, one in results.items() if one}
    if not values:
        return set()
    most = max(map(len, values.values()))
    full = [method for method, one in values.items() if len(one) == most]
    best = max(full, key=lambda method: values[method].mean())
    found = {best}
    for method, one in values.items():
        worse = (values[best] - one).dropna()  # the seeds that both have
        error = worse.sem() if len(worse) > 1 else 0.0
        if len(worse) and worse.mean() <= error:
            found.add(method)
    return found


def _table(
    measure: str,
    results: dict[str, dict[str, dict[int, dict[str, float]]]],
    shapes: dict[str, str],
    methods: list[str],
) -> str:
    """A row per table, a column per method."""
    rows = []
    for name, of in results.items():
        best = _best(of, measure)
        most = max(map(len, of.values()))
        cells = []
        for m in methods:
            cell = _cell(of.get(m, {}), measure, m in best)
            n_seeds = len(of.get(m, {}))
            cells.append(f"{cell} [{n_seeds}]" if 0 < n_seeds < most else cell)
        rows.append([name, shapes[name], *cells])
    return markdown(["table", "rows × columns", *methods], rows)


def _cell(result: dict[int, dict[str, float]], measure: str, bold: bool) -> str:
    if not result:
        return ""
    values = _values(result, measure)
    cell = f"{values.mean():.1f}"
    cell = f"**{cell}**" if bold else cell
    cell += f" ± {mean_and_error(values.to_numpy())[1]:.1f}" if len(values) > 1 else ""
    if measure == "auroc":
        seconds = (_values(result, f"{part}_seconds").median() for part in ("fit", "score"))
        cell += " ({} + {} s)".format(*(f"{s:.1f}" if s < 10 else f"{s:.0f}" for s in seconds))
    return cell


def _summary(results: dict[str, dict[str, dict[int, dict[str, float]]]], methods: list[str]) -> str:
    """Means and mean ranks over the tables that every method has; what the first is ahead by, in pairs of one table."""
    methods = [m for m in methods if any(of.get(m) for of in results.values())]
    common = [name for name, of in results.items() if all(of.get(m) for m in methods)]
    header = ["method"]
    columns: list[list[object]] = [list(methods)]
    for measure in MEASURES:
        means = np.array(
            [[_values(results[n][m], measure).mean() for m in methods] for n in common]
        ).reshape(len(common), len(methods))
        best = [_best({m: results[n][m] for m in methods}, measure) for n in common]
        short = measure.upper()
        header += [f"mean {short}", f"mean rank, {short}", f"bold of {len(common)}, {short}"]
        columns.append([f"{v:.1f}" for v in means.mean(0)] if common else [""] * len(methods))
        ranks = rankdata(-means.round(6), axis=1).mean(0) if common else np.array([])
        columns.append([f"{v:.2f}" for v in ranks] if common else [""] * len(methods))
        columns.append([sum(m in of for of in best) for m in methods])
        if len(common) > 1:
            header += [f"{methods[0]} ahead by, {short}", f"ahead, behind, {short}"]
            ahead = means[:, :1] - means
            pairs = [mean_and_error(column) for column in ahead.T]
            columns.append(["", *(f"{mean:+.1f} ± {error:.1f}" for mean, error in pairs[1:])])
            counts = zip((ahead > TIE).sum(0), (ahead < -TIE).sum(0), strict=True)
            columns.append(["", *(f"{won}, {lost}" for won, lost in list(counts)[1:])])
    for part in ("fit", "score"):
        header.append(f"s to {part}, sum")
        sums = [
            sum(_values(results[n][m], f"{part}_seconds").median() for n in common) for m in methods
        ]
        columns.append([f"{v:.0f}" for v in sums])
    sums = [sum(_values(results[n][m], "cpu_seconds").median() for n in common) for m in methods]
    columns.append([f"{v:.0f}" for v in sums])
    return markdown([*header, "CPU-s, sum"], list(zip(*columns, strict=True)))


def _published(results: dict[str, dict[str, dict[int, dict[str, float]]]]) -> str:
    """The published means, and table by table what was published beside what is measured here."""
    means = [[m, f"{a:.2f}", f"{p:.2f}"] for m, (a, p) in PUBLISHED.items()]
    parts = [markdown(["34 tables", "AUROC", "AP"], means)]
    cells = pd.read_csv(StringIO(BY_TABLE), sep=r"\s+", index_col="table", dtype=str)
    for i, (measure, words) in enumerate(MEASURES.items()):
        figures = 100 * cells.map(lambda cell, i=i: float(cell.split("/")[i] or "nan"))
        for method in ("kNN4", "kNN", "ours"):
            here = {
                n: _values(of[method], measure).mean() for n, of in results.items() if method in of
            }
            if here:
                figures.insert(0, f"{method} here", pd.Series(here))
        figures = figures.dropna(axis=1, how="all").dropna()
        rows = [[name, *(f"{v:.1f}" for v in row)] for name, row in figures.iterrows()]
        rows.append(["mean", *(f"{v:.1f}" for v in figures.mean())])
        first = figures.columns[0]  # ours, if it is there
        errors = [
            mean_and_error((figures[first] - column).to_numpy()) for _, column in figures.items()
        ]
        rows.append(
            [
                f"behind {first.removesuffix(' here')}",
                *(f"{mean:.1f} ± {error:.1f}" for mean, error in errors),
            ]
        )
        parts.append(markdown([words, *figures.columns], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
