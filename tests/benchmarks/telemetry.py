"""Incidents in telemetry whose columns move together: the detector, an isolation forest, the Mahalanobis distance.

    python -m tests.benchmarks.telemetry FOLDER
    python -m tests.benchmarks.telemetry FOLDER machine-1-2 machine-2-1
    python -m tests.benchmarks.telemetry FOLDER --block 720

``FOLDER`` has the Server Machine Dataset (github.com/NetManAIOps/OmniAnomaly, ServerMachineDataset): 28 machines with
38 numbers a minute, ``train/machine-1-1.txt``, ``test/`` and ``test_label/`` with a 1 for each minute of an incident.
Machines without all three files are left out. Each method is fitted to the first weeks of a machine, taken for normal,
and scores its next weeks, minute by minute; nothing is tuned and no labels are read.

Printed per method, as means over machines with standard errors:

* incidents: the share of incidents (runs of minutes labelled 1) with an alarm, where the 1 % of the minutes with the
  highest scores are alarms: the budget of databrickslabs/dqx#1490, which reports .33 for an isolation forest and .79
  for the Mahalanobis distance;
* right: the share of these alarms that are in an incident;
* at 1 % false: the share of incidents with an alarm, where 1 % of the minutes of no incident are alarms: no long
  incident uses up the budget;
* AUROC and average precision of single minutes, without any budget;
* CPU-seconds of a machine, fit and scores.

Of the detector also what its own threshold for 1 % of right rows gives: incidents found, and alarms among the minutes
of no incident. Minutes are no independent rows and machines drift from one month to the next: this rate is not kept.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from discrete_itd import DiffusionOutlierDetector
from tests.benchmarks.tables import machine, markdown, plus_minus, processor_timed

BUDGET = 0.01  # share of the minutes that are alarms


class Machine(NamedTuple):
    """Normal rows, the rows that come next, and which of these are in an incident (N,)."""

    normal: pd.DataFrame
    next: pd.DataFrame
    is_incident: NDArray[np.bool_]


def machines(folder: Path, names: list[str]) -> Iterator[tuple[str, Machine]]:
    """The machines that are there whole, by name."""
    for path in sorted((folder / "train").glob("*.txt")):
        files = [folder / part / path.name for part in ("train", "test", "test_label")]
        if all(f.is_file() for f in files) and (not names or path.stem in names):
            normal, new, labels = (pd.read_csv(f, header=None) for f in files)
            normal.columns = new.columns = [f"c{j}" for j in normal]
            yield path.stem, Machine(normal, new, labels[0].to_numpy() == 1)


def incidents(is_incident: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of the incident of each row (N,), from 1; 0 outside."""
    starts = np.diff(is_incident.astype(int), prepend=0) == 1
    return np.where(is_incident, np.cumsum(starts), 0)


def share_found(is_incident: NDArray[np.bool_], is_alarm: NDArray[np.bool_]) -> float:
    """The share of incidents with an alarm."""
    number = incidents(is_incident)
    return len(np.unique(number[is_alarm & is_incident])) / number.max()


def by_detector(
    table: Machine, block: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Scores of the next rows, and which are alarms at the detector's threshold."""
    detector = DiffusionOutlierDetector(false_alarm_rate=BUDGET, random_state=0)
    groups = np.arange(len(table.normal)) // block if block else None
    detector.fit(table.normal, groups=groups)
    score = detector.score_samples(table.next)
    return -score, score < detector.offset_


def by_isolation_forest(table: Machine) -> tuple[NDArray[np.float64], None]:
    return -IsolationForest(random_state=0).fit(table.normal).score_samples(table.next), None


def by_mahalanobis(table: Machine) -> tuple[NDArray[np.float64], None]:
    """The distance by the covariance of standardised columns, of which constant ones have no share."""
    scaler = StandardScaler().fit(table.normal)
    fitted = EmpiricalCovariance().fit(scaler.transform(table.normal))
    return fitted.mahalanobis(scaler.transform(table.next)), None


METHODS: dict[str, Callable[[Machine], tuple[NDArray[np.float64], NDArray[np.bool_] | None]]] = {
    "default detector": by_detector,
    "isolation forest": by_isolation_forest,
    "Mahalanobis distance": by_mahalanobis,
}


def measured(table: Machine, method: str) -> tuple[list[float], list[float]]:
    """The numbers of a method on one machine, and those of its own threshold."""
    (score, is_alarm), seconds = processor_timed(METHODS[method], table)
    truth, n = table.is_incident, round(BUDGET * len(score))
    highest = np.zeros(len(score), bool)
    highest[np.argsort(-score, kind="stable")[:n]] = True
    limit = np.quantile(score[~truth], 1 - BUDGET)
    numbers = [
        share_found(truth, highest), float(truth[highest].mean()), share_found(truth, score > limit),
        float(roc_auc_score(truth, score)), float(average_precision_score(truth, score)), seconds,
    ]  # fmt: skip
    if is_alarm is None:
        return numbers, []
    return numbers, [share_found(truth, is_alarm), float(is_alarm[~truth].mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    by_block = (
        "fit the detector by groups of so many minutes, each held out or calibrated on as one"
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("machines", nargs="*")
    parser.add_argument("--block", type=int, default=0, help=by_block)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    options = parser.parse_args()
    METHODS["default detector"] = partial(by_detector, block=options.block)
    if not (options.folder / "train").is_dir():
        print(f"skipped: no {options.folder / 'train'}; see the docstring for where the files are")
        return
    warnings.simplefilter("ignore")
    numbers: dict[str, list[list[float]]] = {name: [] for name in options.methods}
    promised: list[list[float]] = []
    n = 0
    for name, table in machines(options.folder, options.machines):
        n += 1
        for method in options.methods:
            found, own = measured(table, method)
            numbers[method].append(found)
            promised += [own] if own else []
            said = " ".join(f"{x:.3f}" for x in found + own)
            print(
                f"{name}, {incidents(table.is_incident).max()} incidents, {method}: {said}",
                flush=True,
            )
    if n < 2:
        return
    print(f"\n{n} machines, {machine()}\n")
    lines = [[name, *map(plus_minus, np.array(found).T)] for name, found in numbers.items()]
    head = [
        f"alarms on the highest {BUDGET:.0%}",
        "incidents",
        "right",
        f"at {BUDGET:.0%} false",
        "AUROC",
        "AP",
        "CPU-s",
    ]
    print(markdown(head, lines))
    if promised:
        caught, alarms = map(plus_minus, np.array(promised).T)
        print(f"\nat its threshold for {BUDGET:.0%}: incidents {caught}, alarms elsewhere {alarms}")


if __name__ == "__main__":
    main()
