"""Memory and speed of the command on tables that grow: python -m tests.benchmarks.streaming [--large] [--quick].

A table of 20 columns (text, integers, numbers, dates, gaps) is written as CSV and as Parquet, a model is fitted to
20 000 rows of it, and each command runs in a process of its own. Measured are its peak memory (``ru_maxrss``) and its
processor time on one thread, on which other programs have little influence. Rows per second are those beyond the
processor time for a table of 1000 rows, which is mostly the start of Python and the loading of the model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

PART = 100_000  # rows of the table made at once
FEW = 1000
SIZES = (100_000, 1_000_000)
COMMANDS = {
    "score csv": "score {model} {table}.csv --out {out}.csv",
    "score parquet": "score {model} {table}.parquet --out {out}.parquet",
    "score a detector, csv": "score {detector} {table}.csv --out {out}.csv",
    "impute csv": "impute {model} {table}.csv --out {out}.csv",
    "report csv": "report {model} {table}.csv --out {out}.html",
}


def rows(n: int, seed: int) -> pd.DataFrame:
    """Rows with a common cause: 20 columns."""
    rng = np.random.default_rng(seed)
    cause = rng.integers(0, 4, n)
    columns = {}
    for j in range(8):
        words = np.array([f"{w}{j}" for w in ("red", "green", "blue", "grey", "pink")])
        columns[f"text{j}"] = words[(cause + rng.integers(0, 2, n)) % 5]
    for j in range(4):
        columns[f"count{j}"] = cause + rng.poisson(3, n)
    for j in range(6):
        columns[f"size{j}"] = np.round(rng.normal(cause, 1 + j / 5), 4)
    for j in range(2):
        days = pd.to_timedelta(cause * 100 + rng.integers(0, 90, n), unit="D")
        columns[f"day{j}"] = pd.Timestamp("2020-01-01") + days
    frame = pd.DataFrame(columns)
    for name in ("text0", "size0", "day0"):
        frame.loc[rng.random(n) < 0.05, name] = None
    return frame


def write(path: Path, n: int) -> None:
    """The same table as CSV and as Parquet, without all of it in memory."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    writer = None
    for start in range(0, n, PART):
        frame = rows(min(PART, n - start), start)
        frame.to_csv(f"{path}.csv", index=False, header=not start, mode="a" if start else "w")
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or ParquetWriter(f"{path}.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def measured(line: str) -> tuple[float, float]:
    """Processor seconds and peak megabytes of a command."""
    child = subprocess.Popen(
        [sys.executable, "-m", "discrete_itd", *line.split()],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{line}: exit code {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print one line for each command and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="10^7 rows, too")
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--denoiser", default="tree")
    parser.add_argument("--only", nargs="+", choices=tuple(COMMANDS), metavar="COMMAND")
    args = parser.parse_args()
    sizes = (2000,) if args.quick else (*SIZES, 10_000_000) if args.large else SIZES
    with tempfile.TemporaryDirectory() as folder:
        names = {n: f"{folder}/{n}" for n in ("model", "detector", "table", "out", "few")}
        train = rows(2000 if args.quick else 20_000, 10**9)
        train.to_csv(f"{folder}/train.csv", index=False)
        for name, option in (("model", ""), ("detector", "--detector")):
            line = f"fit {folder}/train.csv --out {names[name]} --denoiser {args.denoiser} --seed 0"
            measured(f"{line} {option}")
        write(Path(names["few"]), FEW)
        base = {}
        commands = {w: line for w, line in COMMANDS.items() if not args.only or w in args.only}
        for what, line in commands.items():
            base[what] = measured(line.format(**{**names, "table": names["few"]}))
            print(
                f"{what:22} {FEW:>10,} rows {base[what][0]:8.1f} s {'':19}{base[what][1]:8.0f} MB"
            )
        for n in sizes:
            write(Path(names["table"]), n)
            for what, line in commands.items():
                seconds, peak = measured(line.format(**names))
                speed = (n - FEW) / max(1e-9, seconds - base[what][0])
                text = f"{seconds:8.1f} s {speed:10,.0f} rows/s {peak:8.0f} MB"
                print(f"{what:22} {n:>10,} rows {text}", flush=True)


if __name__ == "__main__":
    main()
