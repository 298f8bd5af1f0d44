"""What a change does to every estimator and recipe on ten tables: nats, AUROC, seconds, answers that differ.

    python -m tests.benchmarks.change main
    python -m tests.benchmarks.change main my-branch --tables car shop --estimators forest detector

Two commits (the second is the working tree by default) are unpacked side by side; ``answers.py`` of this working tree
fits every estimator on each table with both, ``--draws`` times in turn, and asks the same questions: log-probabilities
of all columns and of all but one, explanations, samples, imputed cells; scores, p-values and reasons of detectors; the
frame of a watch. Half of the test rows have one cell of another row: AUROC is how well they are found, nats are those
of the other half.

A line of the first table is an estimator, averaged over the tables: changes are head less base, with standard errors
over tables, seconds are processor-seconds. A line of the second is a kind of answer that differs: in how many cells,
and by how much at most, relative to 1 + the value before. The exit status is 1 if any answer differs, so that a change
that must not alter answers can be held to it.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tests.benchmarks.answers import ESTIMATORS, TABLES
from tests.benchmarks.tables import machine, markdown, mean_and_error

CHECKOUT = Path(__file__).parents[2]
Measured = dict[tuple[str, str], dict[str, Any]]  # by table and estimator


class Difference(NamedTuple):
    """How two answers differ: cells that are not the same bits, all cells, and the largest relative difference."""

    n_cells: int
    n_all: int
    largest: float  # |head - base| / (1 + |base|); infinite where no number stands on both sides


def difference(base: Any, head: Any) -> Difference:
    """Compare two arrays or frames cell by cell; NaN equals NaN, and other shapes or columns differ everywhere."""
    one, two = _columns(base), _columns(head)
    size = sum(map(len, one.values()))
    if list(one) != list(two) or [len(c) for c in one.values()] != [len(c) for c in two.values()]:
        return Difference(size, size, float("inf"))
    differing, largest = 0, 0.0
    for column, other in zip(one.values(), two.values(), strict=True):
        same = (column == other) | (pd.isna(column) & pd.isna(other))
        differing += int((~same).sum())
        pairs = zip(column[~same], other[~same], strict=True)
        largest = max([largest, *(_distance(a, b) for a, b in pairs)])
    return Difference(differing, size, largest)


def _columns(answer: Any) -> dict[Any, np.ndarray]:
    frame = pd.DataFrame(answer)
    return {name: frame[name].astype(object).to_numpy() for name in frame}


def _distance(base: Any, head: Any) -> float:
    try:
        return abs(float(head) - float(base)) / (1 + abs(float(base)))
    except (TypeError, ValueError):
        return float("inf")


def unpacked(commit: str, folder: Path) -> Path:
    """The package of a commit, unpacked under a folder."""
    archive = subprocess.run(
        ["git", "archive", commit, "discrete_itd", "datasets", "pyproject.toml"],
        cwd=CHECKOUT, check=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    (folder / "tests").symlink_to(CHECKOUT / "tests")  # the tables of ``answers.py``
    return folder


def answers_of(checkout: Path, tables: Sequence[str], estimators: Sequence[str]) -> Measured:
    """Run ``answers.py`` with the library of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.pkl"
        script = Path(__file__).with_name("answers.py")
        command = [
            sys.executable,
            "-P",
            script,
            file,
            "--tables",
            *tables,
            "--estimators",
            *estimators,
        ]
        subprocess.run(
            command,
            check=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        )
        return dict(read(file))


def read(file: Path) -> Iterable[tuple[tuple[str, str], dict[str, Any]]]:
    """The entries of a file of answers."""
    with open(file, "rb") as stream:
        while True:
            try:
                yield pickle.load(stream)
            except EOFError:
                return


def by_estimator(
    base: Measured, head: Measured, seconds: dict[str, list[Measured]]
) -> list[list[object]]:
    """A line for each estimator: nats, AUROC and seconds, averaged over tables, and their differences."""
    lines = []
    for estimator in dict.fromkeys(name for _, name in base):
        keys = [k for k in base if k[1] == estimator and "error" not in base[k] | head[k]]
        refused = [sum("error" in of[k] for k in base if k[1] == estimator) for of in (base, head)]
        line: list[object] = [estimator, f"{refused[0]}, {refused[1]}"]
        for what in ("mean", "auroc"):
            both = [(base[k][what], head[k][what]) for k in keys if what in base[k]]
            line += [_mean([b for b, _ in both]), _change([h - b for b, h in both])]
        for what in ("fit", "ask"):
            fastest = [
                [min(run[k][what] for run in seconds[of]) for k in keys] for of in ("base", "head")
            ]
            line += [_mean(fastest[0]), _mean(fastest[1])]
        lines.append(line)
    return lines


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if len(values) else "–"


def _change(values: Sequence[float]) -> str:
    return "{:+.4f} ± {:.4f}".format(*mean_and_error(np.array(values))) if len(values) > 1 else "–"


def differing(base: Measured, head: Measured) -> list[list[object]]:
    """A line for each kind of answer that is not the same in both."""
    lines: list[list[object]] = []
    for key in base:
        one, two = base[key], head[key]
        if one.get("error") != two.get("error"):
            lines.append([*key, "error", one.get("error", "none"), two.get("error", "none")])
        for kind in one.get("answers", {}).keys() & two.get("answers", {}).keys():
            found = difference(one["answers"][kind], two["answers"][kind])
            if found.n_cells:
                lines.append(
                    [*key, kind, f"{found.n_cells} of {found.n_all}", f"{found.largest:.1e}"]
                )
    return lines


def main() -> int:
    """Print both tables; return 1 if any answer differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="a commit")
    parser.add_argument("head", nargs="?", help="a commit; the working tree by default")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument(
        "--draws", type=int, default=1, help="runs of each, the fastest of which counts"
    )
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {
            "base": unpacked(options.base, Path(folder) / "base"),
            "head": unpacked(options.head, Path(folder) / "head") if options.head else CHECKOUT,
        }
        runs: dict[str, list[Measured]] = {"base": [], "head": []}
        for _ in range(options.draws):
            for which, checkout in checkouts.items():
                runs[which].append(answers_of(checkout, options.tables, options.estimators))
    base, head = runs["base"][0], runs["head"][0]
    header = ["", "refused", "nats", "change", "AUROC", "change", "fit s", "head", "ask s", "head"]
    print(markdown(header, by_estimator(base, head, runs)))
    lines = differing(base, head)
    print("\nanswers that differ:", "none" if not lines else "")
    if lines:
        print("\n" + markdown(["table", "estimator", "answer", "cells", "largest"], lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
