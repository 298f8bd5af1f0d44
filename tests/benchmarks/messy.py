"""Ordinary messy tables, as a new user has them: the raw file with two commands of the shell, and cleaned in Python.

    python -m tests.benchmarks.messy FOLDER
    python -m tests.benchmarks.messy FOLDER --rows 4000 --only raw
    python -m tests.benchmarks.messy --seeds 1 2 3 4 5 --rows 10000 30000 --only cleaned
    python -m tests.benchmarks.messy --table orders --seeds 1

FOLDER holds ``history.csv``, ``tomorrow.csv`` and ``tomorrow_labels.csv``: which rows of tomorrow are planted
anomalies, and of which kind: about one in a hundred of either file, of the orders one in fifty of tomorrow's. No method
is told which or how many. ``--table`` names what they are:

* "loans": applications with German money, two notations of dates, an id, free text, a constant, an empty column; ";",
  decimal comma, cp1252, which options of the command say. Seven kinds of anomalies.
* "orders": those of a French shop, 29 columns with narrow spaces in numbers, three notations of dates, upper and lower
  case, cells that cannot be read, 3 500 customers and 2 000 suppliers. The command gets no option. Ten kinds.

"raw" is ``discrete-itd fit history.csv --detector`` and ``score tomorrow.csv --reasons``. "cleaned" is
``DiffusionOutlierDetector().fit`` on the same table with numbers and dates parsed and without its ids and free text.
Beside them, on the cleaned table: scikit-learn's IsolationForest and mean distance to five neighbours, and PyOD's ECOD
if it is installed, one-hot and standardised; and "boosting", by which each column is predicted from the others.

Printed are minutes and CPU-seconds (of processes started, too) of fit and score; AUROC of all planted rows and of each
kind against the inliers; the planted ones among the 50 most anomalous; alarms among inliers, with the 95 % interval of
that share (Wilson's) and the rate that the detector states; and how many of the alarmed planted rows have a first
reason on a column that was tampered with, and one on this or a column that contradicts it. Of the orders, the labels
name both together, and none for a duplicate. Rows with unreadable cells, which are alarms of another name, are left out
of the alarms of inliers.

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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
)
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
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
RATE = 0.01  # of alarms, that of the detector by default
METHODS = ("raw", "cleaned", "IsolationForest", "ECOD", "neighbours", "boosting")
MOST_ONE_HOT = 200  # levels of a column, the others being one, for peers
PATIENCE = 1200.0  # seconds after which a command is given up
# boosting by column: rows of a class, classes of a column, levels of a feature, and nats that are usual
FEWEST_OF_CLASS, MOST_CLASSES, MOST_LEVELS, USUAL = 15, 40, 254, 3.0


class Files(NamedTuple):
    """How the files of one kind are made from a seed, written, cleaned and labelled."""

    made: Callable[[int], Path | None]
    options: list[str]  # of the command
    cleaned: Callable[[Path], pd.DataFrame]
    labels: Callable[[Path], pd.DataFrame]  # see `loan_labels`


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
    parser.add_argument("--table", choices=TABLES, default="loans")
    parser.add_argument("--rows", type=int, nargs="+", default=[None], help="of history.csv")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seed", type=int, default=0, help="of the fit")
    parser.add_argument("--max-time", type=float, help="seconds of the fits of this package")
    parser.add_argument("--seeds", type=int, nargs="+", help="of files that are written anew")
    asked = parser.parse_args()
    if (asked.folder is None) == (asked.seeds is None):
        parser.error("give a FOLDER or --seeds")
    files = TABLES[asked.table]
    folders = [asked.folder] if asked.seeds is None else [files.made(s) for s in asked.seeds]
    if None in folders:
        return
    for n_rows in asked.rows:
        of_folders = []
        for folder in folders:
            found = measured(files, folder, n_rows, asked.only, asked.seed, asked.max_time)
            print(found.fillna("").to_string(), flush=True)
            of_folders.append(found)
        if len(of_folders) > 1:
            print(f"\n{len(of_folders)} seeds, {n_rows or 'all'} rows of history\n")
            print(over_seeds(of_folders).to_string(), flush=True)


def measured(
    files: Files,
    folder: Path,
    n_rows: int | None,
    methods: list[str],
    seed: int,
    max_time: float | None,
) -> pd.DataFrame:
    """What is printed of the files of one folder: a column of each method."""
    truth = files.labels(folder)
    history, tomorrow = (files.cleaned(folder / f"{name}.csv") for name in ("history", "tomorrow"))
    history = history[:n_rows]
    n_planted = (truth["kind"] != "").sum()
    print(f"\n{len(history)} rows of history, {len(truth)} of tomorrow, {n_planted} planted\n")
    lines = {}
    for method in methods:
        if method == "ECOD" and find_spec("pyod") is None:
            continue
        if method == "raw":
            try:
                answers, fit, score = by_command(files, folder, n_rows, seed, max_time)
            except subprocess.TimeoutExpired:
                lines[method] = {"fit min": f"more than {PATIENCE / 60:g}"}
                continue
        elif method == "cleaned":
            answers, fit, score = in_python(history, tomorrow, seed, max_time)
        else:
            answers, fit, score = by_rival(method, history, tomorrow, seed)
        lines[method] = {
            "fit min": round(fit.minutes, 2),
            "fit CPU-s": round(fit.cpu, 1),
            "score min": round(score.minutes, 2),
            "score CPU-s": round(score.cpu, 1),
            **measures(answers, truth),
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


def loan_labels(folder: Path) -> pd.DataFrame:
    """Kind of each row of tomorrow, "" of inliers; columns tampered with; these and those that contradict them."""
    table = pd.DataFrame({"kind": labels(folder)})
    table["cells"] = [TAMPERED.get(kind, ()) for kind in table["kind"]]
    table["wide"] = [(*TAMPERED.get(k, ()), *CONTRADICTS.get(k, ())) for k in table["kind"]]
    return table


def order_labels(folder: Path) -> pd.DataFrame:
    """As of loans; the cells that are accepted are not told apart."""
    table = pd.read_csv(folder / "tomorrow_labels.csv", keep_default_na=False)
    table["wide"] = table["cells"] = [tuple(filter(None, c.split(","))) for c in table["cells"]]
    return table


def cleaned_orders(path: Path) -> pd.DataFrame:
    """The table of orders as one cleans it in Python, without ids, free text, a constant and a copy."""
    table = pd.read_csv(path, sep=";", encoding="utf-8-sig", dtype=str)
    table = table.drop(
        columns=["n°_commande", "uuid", "pays", "téléphone", "carrier", "commentaire"]
    )
    numbers = ("quantité", "prix_unitaire", "remise", "total_ht", "tva", "total_ttc", "poids_kg")
    for name in numbers:
        plain = table[name].str.replace(r"[\s%€]", "", regex=True).str.replace(",", ".")
        table[name] = pd.to_numeric(plain, errors="coerce")
    dates = {
        "date_commande": "%d/%m/%Y %H:%M",
        "expédiée_le": "%m/%d/%Y %I:%M %p",
        "livrée_le": "%d/%m/%y",
    }
    for name, notation in dates.items():
        table[name] = pd.to_datetime(table[name], format=notation, errors="coerce")
    for name in ("ville", "catégorie", "fidélité"):
        table[name] = table[name].str.lower()
    return table.replace({"code_postal": ["#REF!", "N/C", "?"]}, np.nan)


def cleaned(path: Path) -> pd.DataFrame:
    """The table of loan applications as one cleans it in Python."""
    table = pd.read_csv(path, sep=";", decimal=",", encoding="cp1252", dtype={"plz": str})
    amount = table["amount"].str.removesuffix(" €").str.replace(".", "").str.replace(",", ".")
    table["amount"] = amount.astype(float)
    german = pd.to_datetime(table["start"], format="%d.%m.%Y", errors="coerce")
    table["start"] = german.fillna(
        pd.to_datetime(table["start"], format="%Y-%m-%d", errors="coerce")
    )
    table["end"] = pd.to_datetime(table["end"], format="%d.%m.%Y")
    return table.drop(columns=["id", "comment", "remark2"])


def by_command(
    files: Files, folder: Path, n_rows: int | None, seed: int, max_time: float | None
) -> tuple[pd.DataFrame, Clock, Clock]:
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
        fit = ["fit", str(history), "--out", model, "--detector", "--seed", str(seed)]
        if max_time is not None:
            fit += ["--max-time", str(max_time)]
        score = ["score", model, str(folder / "tomorrow.csv"), "--out", out, "--reasons"]
        with Clock() as fitted:
            subprocess.run([*command, *fit, *files.options], check=True, timeout=PATIENCE)
        with Clock() as scored:
            subprocess.run([*command, *score, *files.options], check=True, timeout=PATIENCE)
        table = pd.read_csv(out)
    bad = table["unreadable"].notna() if "unreadable" in table else False
    reason = table["reason"].fillna("")
    return answers(table["score"], table["alarm"], reason, bad), fitted, scored


def in_python(
    history: pd.DataFrame, tomorrow: pd.DataFrame, seed: int, max_time: float | None
) -> tuple[pd.DataFrame, Clock, Clock]:
    """The cleaned tables in this process."""
    with Clock() as fitted:
        density = DiffusionDensity(max_time=max_time)
        detector = DiffusionOutlierDetector(density, random_state=seed).fit(history)
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
    """Another detector, on one-hot and standardised columns; boosting takes them as they are."""
    with Clock() as fitted:
        normality = fitted_rival(method, history, seed)
    with Clock() as scored:
        score = normality(tomorrow)
    return answers(score, None, None), fitted, scored


def fitted_rival(
    method: str, history: pd.DataFrame, seed: int
) -> Callable[[pd.DataFrame], np.ndarray]:
    """From rows to scores, low for anomalies, by a detector on one-hot and standardised columns, or by boosting."""
    if method == "boosting":
        return boosting(history, seed)
    table = with_days(history)
    numbers = table.select_dtypes("number").columns.tolist()
    words = [name for name in table if name not in numbers]
    known = OneHotEncoder(
        handle_unknown="infrequent_if_exist", sparse_output=False, max_categories=MOST_ONE_HOT
    )
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers), (known, words)
    )
    of_array = rival(method, prepare.fit_transform(table), seed)
    return lambda rows: of_array(prepare.transform(with_days(rows)))


def with_days(table: pd.DataFrame) -> pd.DataFrame:
    """The table with times as days since 1970, NaN where there is none."""
    times = table.select_dtypes("datetime")
    return table.assign(**(times - pd.Timestamp(0)).div(pd.Timedelta(days=1)))


def boosting(table: pd.DataFrame, seed: int) -> Callable[[pd.DataFrame], np.ndarray]:
    """Each column predicted from the others by boosted trees: from rows to scores, low for anomalies.

    The surprisal of a category is that of a classifier; that of a number, minus the logarithm of the rank of its
    absolute residual among those of a fifth of the rows, which are held out. Scores are sums over columns of log(1 +
    exp(surprisal - 3)): what is usual hardly counts. Positive numbers are predicted by their logarithms, times also
    serve as hours and weekdays. A missing number is not predicted, a missing category is one of the classes; a column
    of more than ``MOST_CLASSES`` classes is not predicted.
    """
    words = [name for name in table.select_dtypes(exclude=["number", "datetime"])]
    levels = {name: table[name].value_counts().index[:MOST_LEVELS] for name in words}
    held = np.random.default_rng(seed).random(len(table)) < 0.2
    settings: Any = {
        "random_state": seed,
        "early_stopping": False,
        "categorical_features": "from_dtype",
        "learning_rate": 0.2,
    }

    def features(rows: pd.DataFrame) -> pd.DataFrame:
        own = {n: pd.Categorical(rows[n].where(rows[n].isin(levels[n])), levels[n]) for n in words}
        for name, times in rows.select_dtypes("datetime").items():
            own |= {f"{name} hour": times.dt.hour, f"{name} weekday": times.dt.day_of_week}
        return with_days(rows).assign(**own)

    def others(own: pd.DataFrame, name: Any) -> pd.DataFrame:
        return own.drop(columns=[name, f"{name} hour", f"{name} weekday"], errors="ignore")

    def number(name: Any) -> Callable[[pd.DataFrame], np.ndarray]:
        is_positive = x[name].min() > 0

        def scale(own: pd.DataFrame) -> pd.Series:
            return np.log(own[name].clip(lower=1e-9)) if is_positive else own[name]

        fit = ~held & x[name].notna()
        trees = HistGradientBoostingRegressor(max_iter=40, **settings)
        trees.fit(others(x, name)[fit], scale(x)[fit])

        def residual(own: pd.DataFrame) -> np.ndarray:
            return abs(scale(own) - trees.predict(others(own, name))).to_numpy()

        usual = np.sort(residual(x[held & x[name].notna()]))

        def nats(own: pd.DataFrame, _: pd.DataFrame) -> np.ndarray:
            above = len(usual) - np.searchsorted(usual, residual(own))
            return np.where(own[name].isna(), 0.0, -np.log((1 + above) / (1 + len(usual))))

        return nats

    def category(name: Any) -> Callable[[pd.DataFrame, pd.DataFrame], np.ndarray] | None:
        counts = table[name].fillna("").value_counts()
        classes = counts.index[counts >= FEWEST_OF_CLASS]
        if not 1 < len(classes) <= MOST_CLASSES:
            return None
        code = classes.get_indexer(table[name].fillna(""))
        trees = HistGradientBoostingClassifier(max_iter=40 if len(classes) < 10 else 15, **settings)
        trees.fit(others(x, name)[code >= 0], code[code >= 0])
        rare = 1 / (1 + len(table))

        def nats(own: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
            found = classes.get_indexer(rows[name].fillna(""))
            p = trees.predict_proba(others(own, name))[np.arange(len(rows)), found]
            return -np.log(np.where(found < 0, rare, np.maximum(p, rare)))

        return nats

    x = features(table)
    columns = [category(name) if name in words else number(name) for name in table]

    def normality(rows: pd.DataFrame) -> np.ndarray:
        own = features(rows)
        nats = np.stack([of(own, rows) for of in columns if of is not None])
        return -np.logaddexp(0, nats - USUAL).sum(0)

    return normality


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


def answers(score: Any, alarm: Any, reason: Any, unreadable: Any = False) -> pd.DataFrame:
    """One table of answers, whoever gave them; without alarms and reasons where there are none."""
    table = pd.DataFrame({"score": np.asarray(score)})
    if alarm is not None:
        table["alarm"], table["reason"] = np.asarray(alarm, bool), np.asarray(reason)
        table["unreadable"] = unreadable
    return table


def measures(table: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """What is printed of one method."""
    kind = truth["kind"].to_numpy()
    odd, score = kind != "", -table["score"].to_numpy()
    out: dict[str, Any] = {"AUROC": round(roc_auc_score(odd, score), 3)}
    if "duplicate" in kind:  # which no row shows by itself
        shown = kind != "duplicate"
        out["  without duplicates"] = round(roc_auc_score(odd[shown], score[shown]), 3)
    for name in dict.fromkeys(sorted(kind[odd])):
        own = (kind == name) | ~odd
        out[f"  {name}"] = round(roc_auc_score(odd[own], score[own]), 3)
    first = np.argsort(-score, kind="stable")[:MOST_ANOMALOUS]
    out[f"planted in first {MOST_ANOMALOUS}"] = f"{odd[first].mean():.0%}"
    if "alarm" not in table:
        return out
    alarm, inlier = table["alarm"].to_numpy(), ~odd & ~table["unreadable"].to_numpy()
    low, high = interval(int(alarm[inlier].sum()), int(inlier.sum()))
    out[f"alarms of inliers ({RATE:.0%} stated)"] = (
        f"{alarm[inlier].mean():.2%} [{low:.2%}, {high:.2%}]"
    )
    out["alarms of planted rows"] = f"{alarm[odd].sum()} of {odd.sum()}"
    judged = alarm & (truth["cells"].map(len) > 0).to_numpy()
    for what, columns in {"first reasons right": "cells", "  or contradicting": "wide"}.items():
        pairs = zip(table["reason"][judged], truth[columns][judged], strict=True)
        right = [any(about(sentence, column) for column in of) for sentence, of in pairs]
        out[what] = f"{np.mean(right or [0.0]):.0%} of {len(right)}"
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


TABLES = {
    "loans": Files(data.loans, OPTIONS, cleaned, loan_labels),
    "orders": Files(data.orders, [], cleaned_orders, order_labels),
}

if __name__ == "__main__":
    main()
