"""An ordinary messy table, as a new user has it: the raw file with one command of the shell, and cleaned in Python.

    python -m tests.benchmarks.messy FOLDER
    python -m tests.benchmarks.messy FOLDER --rows 4000 --only raw
    python -m tests.benchmarks.messy --seeds 1 2 3 4 5 --rows 10000 30000 --only cleaned

FOLDER holds ``history.csv`` and ``tomorrow.csv`` (separator ";", decimal comma, cp1252: loan applications with money
like "5.067,14 €", dates in two notations, an id, free text, a constant, an empty column) and ``tomorrow_labels.csv``,
with the ``id`` and ``kind`` of every row of tomorrow: "" or one of seven kinds of planted anomalies. About one row in a
hundred of either file is planted; no method is told which or how many.

"raw" is ``discrete-itd fit history.csv --detector`` and ``score tomorrow.csv --reasons --keep id``, each with options
that say how the file is written and no more. "cleaned" is ``DiffusionOutlierDetector().fit`` on the same table with
numbers and dates parsed and without its id and free text. Beside them, on the cleaned table, one-hot and standardised:
scikit-learn's IsolationForest and mean distance to five neighbours, and PyOD's ECOD if it is installed.

Printed are minutes and CPU-seconds (of processes started, too) of fit and score; AUROC of all planted rows and of each
kind against the normal ones; the planted ones among the 50 most anomalous; alarms among normal rows, with the 95 %
interval of that share (Wilson's) and the rate that the detector states; and how many of the alarmed planted rows have a
first reason on a column that was tampered with (``TAMPERED``), and one on this or a column that contradicts it
(``CONTRADICTS``).

With ``--seeds``, the files are written anew for each seed, by the script that ``data.py`` names, and kept in
``.cache``; printed are means over the seeds with their standard errors, for each number of rows of history.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from discrete_itd import DiffusionOutlierDetector
from tests.benchmarks import data
from tests.benchmarks.tables import mean_and_error

OPTIONS = ["--csv", "sep=;", "decimal=,", "encoding=cp1252"]
TAMPERED = {
    "combination": ("relationship", "sex", "marital_status", "branch", "plz"),
    "typo": ("education",),
    "impossible": ("age", "hours_per_week", "rate"),
    "swapped": ("age", "months"),
    "times100": ("amount",),
    "instalment": ("instalment",),
    "dates": ("start", "end"),
}
CONTRADICTS = {
    "times100": ("instalment", "rate", "months"),
    "instalment": ("amount", "rate", "months"),
    "dates": ("months",),
}
MOST_ANOMALOUS = 50
KEEP = ["--keep", "id"]
RATE = 0.01  # of alarms, that of the detector by default
METHODS = ("raw", "cleaned", "IsolationForest", "ECOD", "neighbours")


class Clock:
    """Wall clock and CPU-seconds of a block, those of processes started in it among them."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._start
        self.minutes, self.cpu = (time.perf_counter() - wall) / 60, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, nargs="+", default=[None], help="of history.csv")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seed", type=int, default=0, help="of the fit")
    parser.add_argument("--seeds", type=int, nargs="+", help="of files that are written anew")
    asked = parser.parse_args()
    if (asked.folder is None) == (asked.seeds is None):
        parser.error("give a FOLDER or --seeds")
    folders = [asked.folder] if asked.seeds is None else [data.loans(s) for s in asked.seeds]
    if None in folders:
        return
    for n_rows in asked.rows:
        of_folders = []
        for folder in folders:
            found = measured(folder, n_rows, asked.only, asked.seed)
            print(found.fillna("").to_string(), flush=True)
            of_folders.append(found)
        if len(of_folders) > 1:
            print(f"\n{len(of_folders)} seeds, {n_rows or 'all'} rows of history\n")
            print(over_seeds(of_folders).to_string(), flush=True)


def measured(folder: Path, n_rows: int | None, methods: list[str], seed: int) -> pd.DataFrame:
    """What is printed of the files of one folder: a column of each method."""
    kind = labels(folder)
    history, tomorrow = (cleaned(folder / f"{name}.csv") for name in ("history", "tomorrow"))
    history = history[:n_rows]
    n_planted = (kind != "").sum()
    print(f"\n{len(history)} rows of history, {len(kind)} of tomorrow, {n_planted} planted\n")
    lines = {}
    for method in methods:
        if method == "ECOD" and find_spec("pyod") is None:
            continue
        if method == "raw":
            answers, fit, score = by_command(folder, n_rows, seed)
        elif method == "cleaned":
            answers, fit, score = in_python(history, tomorrow, seed)
        else:
            answers, fit, score = by_rival(method, history, tomorrow, seed)
        lines[method] = {
            "fit min": round(fit.minutes, 2),
            "fit CPU-s": round(fit.cpu, 1),
            "score min": round(score.minutes, 2),
            "score CPU-s": round(score.cpu, 1),
            **measures(answers, kind),
        }
    return pd.DataFrame(lines)


def over_seeds(found: list[pd.DataFrame]) -> pd.DataFrame:
    """Means with standard errors; of shares and counts, those of the numbers with which they begin."""

    def numbers(cell: Any) -> tuple[float, str]:
        parts = str(cell).split()
        return float(parts[0].rstrip("%")), "%" if parts[0].endswith("%") else ""

    lines = {}
    for method in found[0]:
        own = lines[method] = {}
        for what in found[0].index[found[0][method].notna()]:
            values, units = zip(*(numbers(of.loc[what, method]) for of in found), strict=True)
            mean, error = mean_and_error(np.array(values))
            own[what] = f"{mean:.3g}{units[0]} ± {error:.2g}"
    return pd.DataFrame(lines).reindex(found[0].index).fillna("")


def labels(folder: Path) -> np.ndarray:
    """The kind of each row of tomorrow, "" of normal ones."""
    ids = pd.read_csv(folder / "tomorrow.csv", sep=";", encoding="cp1252", usecols=["id"])["id"]
    kinds = pd.read_csv(folder / "tomorrow_labels.csv", keep_default_na=False)
    return kinds.set_index("id")["kind"].loc[ids].to_numpy()


def cleaned(path: Path) -> pd.DataFrame:
    """The table as one cleans it in Python."""
    table = pd.read_csv(path, sep=";", decimal=",", encoding="cp1252", dtype={"plz": str})
    amount = table["amount"].str.removesuffix(" €").str.replace(".", "").str.replace(",", ".")
    table["amount"] = amount.astype(float)
    german = pd.to_datetime(table["start"], format="%d.%m.%Y", errors="coerce")
    table["start"] = german.fillna(
        pd.to_datetime(table["start"], format="%Y-%m-%d", errors="coerce")
    )
    table["end"] = pd.to_datetime(table["end"], format="%d.%m.%Y")
    return table.drop(columns=["id", "comment", "remark2"])


def by_command(folder: Path, n_rows: int | None, seed: int) -> tuple[pd.DataFrame, Clock, Clock]:
    """The raw files by the command."""
    with tempfile.TemporaryDirectory() as place:
        history, model, out = (
            folder / "history.csv",
            f"{place}/m.safetensors",
            f"{place}/scores.csv",
        )
        if n_rows is not None:
            lines = history.read_bytes().splitlines(keepends=True)[: n_rows + 1]
            history = Path(place) / "history.csv"
            history.write_bytes(b"".join(lines))
        command = [sys.executable, "-m", "discrete_itd"]
        fit = ["fit", str(history), "--out", model, "--detector", "--seed", str(seed), *OPTIONS]
        score = ["score", model, str(folder / "tomorrow.csv"), "--out", out, "--reasons", *KEEP]
        with Clock() as fitted:
            subprocess.run([*command, *fit], check=True)
        with Clock() as scored:
            subprocess.run([*command, *score, *OPTIONS], check=True)
        table = pd.read_csv(out)
    reason = table["reason"].fillna("")
    return answers(table["score"], table["alarm"], reason), fitted, scored


def in_python(
    history: pd.DataFrame, tomorrow: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, Clock, Clock]:
    """The cleaned tables in this process."""
    with Clock() as fitted:
        detector = DiffusionOutlierDetector(random_state=seed).fit(history)
    with Clock() as scored:
        rows = detector.density_.rows(tomorrow)
        score, alarm = detector.score_samples(rows), detector.predict(rows) == -1
        table = detector.reasons(rows.take(alarm))
    first = pd.Series("", index=range(len(tomorrow)))
    most_doubtful = table[table["rank"] == 1]
    first.loc[most_doubtful["row"]] = most_doubtful["sentence"].to_numpy()
    return answers(score, alarm, first), fitted, scored


def by_rival(
    method: str, history: pd.DataFrame, tomorrow: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, Clock, Clock]:
    """Another detector, on one-hot and standardised columns."""
    with Clock() as fitted:
        table, new = (
            t.assign(**{n: t[n].astype("int64") / 8.64e13 for n in ("start", "end")})
            for t in (history, tomorrow)
        )
        numbers = table.select_dtypes("number").columns.tolist()
        words = [name for name in table if name not in numbers]
        prepare = make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), words),
        )
        x = prepare.fit_transform(table)
        normality = rival(method, x, seed)
    with Clock() as scored:
        score = normality(prepare.transform(new))
    return answers(score, None, None), fitted, scored


def rival(method: str, x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """From rows to scores, low for anomalies."""
    if method == "IsolationForest":
        return IsolationForest(random_state=seed).fit(x).score_samples
    if method == "neighbours":
        near = NearestNeighbors(n_neighbors=5).fit(x)
        return lambda new: -near.kneighbors(new)[0].mean(1)
    from pyod.models.ecod import ECOD

    model = ECOD().fit(x)
    return lambda new: -np.asarray(model.decision_function(new))


def answers(score: Any, alarm: Any, reason: Any) -> pd.DataFrame:
    """One table of answers, whoever gave them; without alarms and reasons where there are none."""
    table = pd.DataFrame({"score": np.asarray(score)})
    if alarm is not None:
        table["alarm"], table["reason"] = np.asarray(alarm, bool), np.asarray(reason)
    return table


def measures(table: pd.DataFrame, kind: np.ndarray) -> dict[str, Any]:
    """What is printed of one method."""
    odd, score = kind != "", -table["score"].to_numpy()
    out: dict[str, Any] = {"AUROC": round(roc_auc_score(odd, score), 3)}
    for name in TAMPERED:
        own = (kind == name) | ~odd
        out[f"  {name}"] = round(roc_auc_score(odd[own], score[own]), 3)
    first = np.argsort(-score, kind="stable")[:MOST_ANOMALOUS]
    out[f"planted in first {MOST_ANOMALOUS}"] = f"{odd[first].mean():.0%}"
    if "alarm" not in table:
        return out
    alarm = table["alarm"].to_numpy()
    low, high = interval(int(alarm[~odd].sum()), int((~odd).sum()))
    out[f"alarms of normal rows ({RATE:.0%} stated)"] = (
        f"{alarm[~odd].mean():.2%} [{low:.2%}, {high:.2%}]"
    )
    out["alarms of planted rows"] = f"{alarm[odd].sum()} of {odd.sum()}"
    right = {wide: 0 for wide in (False, True)}
    for name, sentence in zip(kind[alarm & odd], table["reason"][alarm & odd], strict=True):
        for wide in right:
            columns = (*TAMPERED[name], *(CONTRADICTS.get(name, ()) if wide else ()))
            right[wide] += any(about(sentence, column) for column in columns)
    n = max(1, int((alarm & odd).sum()))
    out["first reasons right"] = f"{right[False] / n:.0%}"
    out["  or contradicting"] = f"{right[True] / n:.0%}"
    return out


def about(sentence: str, column: str) -> bool:
    """Whether the first reason of a row is about a column: sentences begin with its name and the value."""
    return sentence.startswith((f"{column} = ", f"{column} "))


def interval(n: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.959964, n / of
    middle, width = (
        share + z * z / (2 * of),
        z * math.sqrt(share * (1 - share) / of + (z / of) ** 2 / 4),
    )
    return (middle - width) / (1 + z * z / of), (middle + width) / (1 + z * z / of)


if __name__ == "__main__":
    main()
