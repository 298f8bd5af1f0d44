"""What fits and scores cost in processor time, and how good they are, beside the peers' and beside another checkout.

    python -m tests.benchmarks.latency --methods ours --against CHECKOUT
    python -m tests.benchmarks.latency             # beside IsolationForest, nearest neighbours, boosting by column
    python -m tests.benchmarks.latency small adult plants --methods ours --against CHECKOUT
    python -m tests.benchmarks.latency --reasons   # one row and its reasons, on the deciding tables of OddBench
    python -m tests.benchmarks.latency --reasons LandRarity
    python -m tests.benchmarks.latency --report    # processor time of a report, on tables that were slow
    python -m tests.benchmarks.latency --report orders --file orders.csv
    python -m tests.benchmarks.latency --impute "breast cancer" adult shop  # processor time of a filled cell
    python -m tests.benchmarks.latency --all FOLDER    # the median fit of up to forty small tables (see odd.py)
    python -m tests.benchmarks.latency --cold          # the command's score of a small file, beside the import of torch

The first table has a line per table and method: processor-seconds of the fit, mean nats of held-out inliers where the
method has a density, rows scored per processor-second, and AUROC and average precision (times 100) where anomalies are
labelled. With ``--against``, whose argument is the root of another checkout of this repository, the packages of both
are measured in turn on every table by this script, in a process of one thread each ("other" is that checkout's), and
below the table stand ratios of seconds and paired differences with their standard errors. Tables are groups or single
names: "stages" (six sizes, anomalies of four of which have a third of their cells from other rows), "small" (twelve of
OddBench and the demo's orders, one line of medians and means), "numeric" (six with labelled anomalies), "binary"
(densities alone), "wide" (180 binary columns, each a random function of three earlier ones) and "flights" (100 000
rows, not among the default ones). On binary and wide the default density is fitted, elsewhere the default detector,
whose nats are those of its density.

The other tables are of processor time in this process: one row is the most anomalous of the test rows, a median of five
calls, and the last column its hundred most anomalous rows at once, by row. Set ``OMP_NUM_THREADS=1`` for one thread.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, report
from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.datasets import load_adult
from discrete_itd.reading.dialects import Dialect
from tests.benchmarks import answers, costs, data
from tests.benchmarks.odd import EVERY
from tests.benchmarks.tables import machine, markdown, mean_and_error, processor_timed

METHODS, OTHER = (costs.OURS, *costs.PEERS), "other"
REPEATS, MANY = 5, 100
FIT_SECONDS = 20  # of the detectors whose reports are timed
# of the tables with at most so many training rows and columns, at most so many are fitted, spread over their names
SMALL_ROWS, SMALL_COLUMNS, SMALL_TABLES = 2000, 30, 40


def main() -> None:
    """Print a line per table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="names or groups; of OddBench, every tenth")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measured in turn")
    parser.add_argument("--reasons", action="store_true", help="time single rows and their reasons")
    parser.add_argument("--report", action="store_true", help="time the page of a report instead")
    parser.add_argument("--file", help="a CSV file, read as it is, for the report named orders")
    parser.add_argument("--impute", action="store_true", help="time filled cells of small tables")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="time fits of its small tables")
    parser.add_argument("--cold", action="store_true", help="time the command from a cold start")
    options = parser.parse_args()
    if options.all:
        print_fits(options.all)
    elif options.cold:
        print_cold()
    elif options.impute:
        print_imputed(options.tables)
    elif options.report:
        print_reports(options.tables, options.file)
    elif options.reasons:
        print_reasons(options.tables)
    else:
        print_costs(options.tables, options.methods, options.against)


def print_costs(asked: list[str], methods: list[str], against: Path | None) -> None:
    """Print a line for each table, or group of small ones, and method; compare with another checkout, if any."""
    groups = costs.groups()
    asked = asked or [group for group in groups if group != "flights"]
    names = [name for group in asked for name in groups.get(group, [group])]
    ours = costs.Worker(costs.ROOT)
    workers = {costs.OURS: ours} | ({OTHER: costs.Worker(against.resolve())} if against else {})
    results: dict[str, dict[str, dict[str, float]]] = {}
    for i, name in enumerate(names):
        results[name] = {}
        # who begins changes from table to table
        calls = [(label, costs.OURS, worker) for label, worker in workers.items()][
            :: -1 if i % 2 else 1
        ]
        calls = calls if costs.OURS in methods else []
        calls += [(method, method, ours) for method in methods if method != costs.OURS]
        for label, method, worker in calls:
            measured = worker.measured(name, method)
            if measured is not None:
                results[name][label] = measured
                print(f"{name}, {label}: {measured}", file=sys.stderr, flush=True)
    labels = [*workers, *(method for method in methods if method not in workers)]
    lines = []
    together = groups["small"] if {"small"} & {*asked} else []
    for name in (name for name in names if name not in together):
        lines += [
            [name, label, *cells(results[name][label])]
            for label in labels
            if label in results[name]
        ]
    for label in labels if together else []:
        every = pd.DataFrame([results[name][label] for name in together if label in results[name]])
        if len(every):
            middle = {**every.mean(), **every[["fit", "rows"]].median()}
            lines.append([f"{len(every)} small", label, *cells(middle)])
    print(f"{machine()}, a process of one thread each\n")
    header = ["table", "method", "fit, CPU-s", "nats", "rows / CPU-s", "AUROC", "AP"]
    print(markdown(header, lines))
    if against:
        print(f"\n{differences(results)}")


def cells(measured: Mapping[str, float]) -> list[str]:
    """The cells of a line of the first table."""
    formats = {"fit": ".2f", "nats": ".3f", "rows": ",.0f", "AUROC": ".1f", "AP": ".1f"}
    return [
        "" if math.isnan(measured.get(what, math.nan)) else format(measured[what], form)
        for what, form in formats.items()
    ]


def differences(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Ratios of seconds and differences of quality, ours and the other checkout's, over tables that both have."""
    pairs = [pair for pair in results.values() if costs.OURS in pair and OTHER in pair]
    lines = []
    for what in ("fit", "rows", "nats", "AUROC", "AP"):
        both = [
            (pair[costs.OURS][what], pair[OTHER][what]) for pair in pairs if what in pair[OTHER]
        ]
        if len(both) < 2:
            continue
        new, old = np.array(both).T
        if what in ("fit", "rows"):
            mean, error = mean_and_error(np.log(new / old))
            text = f"{np.exp(mean):.3f} times (factor of error {np.exp(error):.3f}), medians {np.median(old):,.2f}"
            text += f" and {np.median(new):,.2f}"
        else:
            mean, error = mean_and_error(new - old)
            text = f"difference {mean:+.3f} ± {error:.3f}, from {(new - old).min():+.3f} to {(new - old).max():+.3f}"
        lines.append([what, len(both), text])
    return markdown(["ours against the other", "tables", ""], lines)


def print_reasons(names: list[str]) -> None:
    """Print the seconds of fit, scores and reasons of the default detector, and of single rows."""
    names = names or data.odd_names()[::EVERY]
    if not names:
        print("skipped: no tables of OddBench (see tests/benchmarks/data.py)")
        return
    print(machine(), flush=True)
    lines = []
    for name in names:
        rows = data.load_odd(name)
        start = time.process_time()
        detector = DiffusionOutlierDetector(random_state=0).fit(rows.train)
        fitted = time.process_time()
        scores = detector.score_samples(rows.test)
        rate = len(rows.test) / (time.process_time() - fitted)
        worst = rows.test.iloc[np.argsort(scores)[:MANY]]
        times = [
            median(question, worst[:1]) for question in (detector.score_samples, detector.reasons)
        ]
        times.append(processor_timed(detector.reasons, worst)[1] / len(worst))
        lines.append(
            [name, f"{fitted - start:.2f}", f"{rate:,.0f}", *(f"{1e3 * t:.1f}" for t in times)]
        )
    header = ["table", "s to fit", "rows / s", "one row, ms", "its reasons, ms", "of 100, ms a row"]
    print(markdown(header, lines))


def print_fits(folder: Path) -> None:
    """Print the median and the quartiles of the processor time of the default's fit to small tables of a folder."""
    small = []
    for name in data.odd_names(folder):
        with np.load(folder / f"{name}.npz") as archive:
            n_rows, n_columns = archive["train"].shape
        if n_rows <= SMALL_ROWS and n_columns <= SMALL_COLUMNS:
            small.append(name)
    seconds = []
    for name in small[:: -(-len(small) // SMALL_TABLES)]:
        rows = data.load_odd(name, folder).train
        detector = DiffusionOutlierDetector(random_state=0)
        seconds.append(processor_timed(detector.fit, rows)[1])
        print(f"{name}: {len(rows):,} x {rows.shape[1]}, {seconds[-1]:.2f} s", flush=True)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    print(
        f"{len(seconds)} of {len(small)} tables: median {median:.2f} s, quartiles {low:.2f}, {high:.2f}"
    )


def print_cold() -> None:
    """Print the processor time of the command's score of small files, each in a new process, the best of three."""
    wine: Any = load_wine(as_frame=True)
    tables = {
        "wine": wine.frame,
        "200 rows of adult": load_adult().sample(200, random_state=0),
    }
    lines = [["import torch", f"{cold('-c', 'import torch'):.2f}"]]
    for name, rows in tables.items():
        with TemporaryDirectory() as folder:
            model, table, out = (f"{folder}/{file}" for file in ("model", "table.csv", "out.csv"))
            rows.to_csv(table, index=False)
            DiffusionOutlierDetector(random_state=0).fit(pd.read_csv(table)).save(model)
            command = "-m", "discrete_itd", "score", model, table, "--out", out
            lines.append([f"score of {name}", f"{cold(*command):.2f}"])
    print(markdown(["from a cold start", "processor seconds"], lines))


def cold(*arguments: str) -> float:
    """The least processor time of Python with some arguments, of three processes."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def print_reports(names: list[str], file: str | None) -> None:
    """Print the processor time of the fit and of the report on the rows of it, for each table."""
    tables = dict(REPORTS)
    if file is not None:
        table = typed_table(as_written(file, Dialect()), file, {}, Dialect())
        tables["orders"] = (lambda: table), "auto"
    lines = []
    for name in names or tables:
        make, denoiser = tables[name]
        rows = make()
        density = DiffusionDensity(denoiser=denoiser, max_time=FIT_SECONDS, random_state=0)
        detector = DiffusionOutlierDetector(density, random_state=0)
        _, fit = processor_timed(detector.fit, rows)
        page, seconds = processor_timed(report, detector, rows)
        size = f"{len(rows):,} x {rows.shape[1]:,}"
        lines.append([name, size, f"{fit:.1f}", f"{seconds:.1f}", f"{len(str(page)) / 1e6:.1f}"])
    print(markdown(["table", "rows x columns", "s to fit", "s of report", "MB"], lines))


def print_imputed(names: list[str]) -> None:
    """Print the processor time of each of a tenth of the cells of the test rows, which the default fills."""
    lines = []
    for name in names or answers.TABLES:
        rows = answers.split(name)
        density = DiffusionDensity(random_state=0).fit(rows.fit)
        gaps = rows.test.mask(np.random.default_rng(0).random(rows.test.shape) < 0.1)
        for method in ("median", "mean"):
            _, seconds = processor_timed(partial(density.impute, method=method), gaps)
            cells = int(gaps.isna().to_numpy().sum())
            lines.append([name, method, f"{cells:,}", f"{1e3 * seconds / cells:.2f}"])
    print(markdown(["table", "method", "cells", "ms a cell"], lines))


def binary(n_rows: int = 2000, n_columns: int = 1556) -> pd.DataFrame:
    """Binary columns that depend on eight hidden classes."""
    rng = np.random.default_rng(0)
    rates = rng.beta(0.5, 0.5, (8, n_columns))
    cells = rng.random((n_rows, n_columns)) < rates[rng.integers(0, 8, n_rows)]
    return pd.DataFrame(cells.astype(int), columns=[f"b{j}" for j in range(n_columns)])


def mixed(n_rows: int) -> pd.DataFrame:
    """Three numbers and two categories, on which they depend."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, n_rows), rng.integers(0, 5, n_rows)
    numbers = rng.normal(size=(n_rows, 3)) + np.column_stack([a, b, a * b])
    letters = np.array(list("abcde"))
    return pd.DataFrame(numbers, columns=list("xyz")).assign(a=letters[a], b=letters[b])


# rows of the report, and the denoiser
REPORTS = {
    "adult": (lambda: load_adult().sample(2000, random_state=0), "auto"),
    "binary": (binary, "auto"),
    "small forest": (lambda: mixed(200), "forest"),
    "forest": (lambda: mixed(4008), "forest"),
}


def median(question: Callable[[pd.DataFrame], object], rows: pd.DataFrame) -> float:
    """Processor-seconds of a question about rows that are read anew."""
    return float(np.median([processor_timed(question, rows.copy())[1] for _ in range(REPEATS)]))


if __name__ == "__main__":
    main()
