"""How good and how fast: held-out nats, rows per second and seconds of the fit, side by side in one run.

    python -m tests.benchmarks.fast mushroom adult nltcs plants wide
    python -m tests.benchmarks.fast loans plants --only default forest best IsolationForest --max-time 300
    python -m tests.benchmarks.fast small --only forest IsolationForest
    python -m tests.benchmarks.fast twenty --only default best --max-time 900
    python -m tests.benchmarks.fast adult --latency --only default forest
    python -m tests.benchmarks.fast mushroom --only default UnmaskingTrees
    python -m tests.benchmarks.fast mushroom adult plants --figure notebooks/speed.png

Densities are fitted by name of the denoiser, any that ``DiffusionDensity`` knows ("default" is "auto"; "causal on
independent columns" is a MADE: masked, without a base; "exact" a mixture of ``EXACT_MEMBERS``); one that this version
does not know is skipped with a line. Peers, if they are asked for, are IsolationForest, whose rows a second the others'
are compared with (it has no nats),
TabularARGN (the package ``mostlyai-engine``; of tables whose values are all categories), and UnmaskingTrees (the
package ``utrees``), which is given ``DUPLICATES`` masking orders of each row in place of its 50, for time, and scores
the first test rows alone, as a network that is scored along paths does. Rows a second are of processor time, which
other programs do not lengthen; ``OMP_NUM_THREADS=1`` makes them those of one thread. Numeric tables with anomalies
are trained on half of their normal rows; nats are of normal test rows. The latency is that of one row at a time, as in
a service, of every density asked for and of the default detector. "small" has 5 000 rows of ten numbers and
ten categories. The tables nltcs, plants, loans and the numeric ones are read from outside of the repository
(``tests/benchmarks/data.py``); one that is not there is skipped with a line that says so. "twenty" stands for
seventeen of the twenty binary tables of Density-Estimation-Datasets (three are kept back), with the lowest nats that
we know of, recalled, and those of "A Compositional Theory of Curvature in Probabilistic Circuits" (2026, Table 2).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import train_test_split

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_adult, load_mushroom
from discrete_itd.recipes import NAMES, Causal, RowMixture, recipe
from tests.benchmarks import data
from tests.benchmarks.detectors import CONSTANT, standardised
from tests.benchmarks.tables import available, machine, markdown, processor_timed

SLOW_ROWS = 300  # test rows of a model that is scored along paths: its nats are the default's plus a paired difference
LATENCY_CALLS = 300
DUPLICATES, SCORED_ORDERS = 3, 1  # of UnmaskingTrees
DENSITIES = [
    "default",
    "causal",
    "causal on independent columns",
    "mixture",
    "bayes_net",
    "network",
]
EXACT_MEMBERS = "bayes_net", "forest", "mixture"
# lowest test nats that we know of, recalled; those of Table 2 of the paper named above
TWENTY = {
    "nltcs": (5.99, 6.00), "msnbc": (6.04, 6.08), "kdd": (2.12, 2.22), "plants": (11.84, 12.67),
    "baudio": (38.67, 39.62), "jester": (51.07, 52.82), "bnetflix": (54.73, 56.21),
    "accidents": (26.32, 26.55), "tretail": (10.72, 10.84), "kosarek": (10.52, 10.59),
    "msweb": (9.59, 9.73), "book": (33.19, 34.16), "tmovie": (47.43, 42.16),
    "cwebkb": (146.9, 152.90), "cr52": (81.17, 97.99), "c20ng": (146.9, 151.99), "ad": (13.65, 18.10),
}  # fmt: skip
TICKS = [n * 10**k for k in range(2, 7) for n in (1, 3)]  # rows per second


class Rows(NamedTuple):
    """Rows to train on and to test on; which of the latter are anomalies, if any are known."""

    train: Any
    test: Any
    is_odd: np.ndarray | None = None


def load(name: str) -> Rows | None:
    """A table by name; None, with a line saying so, if it is not to be had."""
    if name in ("mushroom", "adult"):
        frame = load_mushroom() if name == "mushroom" else load_adult()
        return Rows(*train_test_split(frame, test_size=0.2, random_state=0))
    if name == "loans":
        loans = data.load_loans()
        return None if loans is None else Rows(*loans)
    if name == "small":  # a hidden class moves the numbers and shows in the categories, with errors
        random = np.random.default_rng(0)
        hidden = random.integers(8, size=6000)
        numbers = 2 * random.normal(size=(8, 10))[hidden] + random.normal(size=(6000, 10))
        wrong, error = random.random((6000, 10)) < 0.3, random.integers(5, size=(6000, 10))
        codes = np.where(wrong, error, random.integers(5, size=(8, 10))[hidden])
        columns = {f"number {j}": numbers[:, j] for j in range(10)}
        columns |= {f"category {j}": codes[:, j].astype(str) for j in range(10)}
        frame = pd.DataFrame(columns)
        return Rows(frame[:5000], frame[5000:])
    if name == "wide":  # 1 000 columns in groups of ten that repeat a hidden class with errors
        random = np.random.default_rng(0)
        hidden = random.integers(4, size=(3000, 100)).repeat(10, 1)
        wrong = random.random(hidden.shape) < 0.2
        cells = np.where(wrong, random.integers(4, size=hidden.shape), hidden)
        frame = pd.DataFrame(cells, columns=[f"c{j}" for j in range(1000)]).astype("category")
        return Rows(frame[:2000], frame[2000:])
    if (
        name == "functions"
    ):  # 180 binary columns, each a random function of three earlier ones; truth 83.8 nats
        random = np.random.default_rng(0)
        cells = np.zeros((4000, 180), dtype=np.int64)
        for j in range(180):
            parents = random.choice(j, min(3, j), replace=False)
            code = (cells[:, parents] << np.arange(len(parents))).sum(1)
            logits = random.normal(scale=2, size=1 << len(parents))[code]
            cells[:, j] = random.random(4000) < 1 / (1 + np.exp(-logits))
        frame = pd.DataFrame(cells, columns=[f"c{j}" for j in range(180)]).astype("category")
        return Rows(frame[:2000], frame[2000:])
    if data.has_density(name):
        table = data.load_density(name)
        columns = [f"c{j}" for j in range(table.train.shape[1])]
        train, test = (
            pd.DataFrame(codes, columns=columns).astype("category")
            for codes in (np.concatenate([table.train, table.valid]), table.test)
        )
        return Rows(train, test)
    if name in data.numeric_names():
        return Rows(*data.halves(*data.load_numeric(name), seed=0))
    print(f"skipped {name}: its file is not here (see tests/benchmarks/data.py)")
    return None


def seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and how long it took."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def named(label: str, rows: Rows, max_time: float) -> tuple[Any, Any] | None:
    """What is fitted under a name, and its training and test rows; None, with a line, if there is no such thing."""
    if label == "IsolationForest":
        return IsolationForest(random_state=0), encoded(rows)
    if label == "UnmaskingTrees":
        return (UnmaskedTrees(), rows[:2]) if available("utrees") else None
    if label == "TabularARGN":
        return (TabularARGN(max_time), rows[:2]) if available("mostlyai") else None
    denoiser = {
        "default": "auto",
        "causal on independent columns": Causal(base="independent"),
        "exact": RowMixture(tuple(name for name in EXACT_MEMBERS if name in NAMES)),
    }
    try:
        found = denoiser.get(label) or recipe(label)
    except ValueError as error:
        print(f"skipped {label}: {error}")
        return None
    return DiffusionDensity(denoiser=found, max_time=max_time, random_state=0), rows[:2]


def densities(rows: Rows, max_time: float, *, only: list[str] | None = None) -> pd.DataFrame:
    """One line for each model."""
    lines, default = [], None
    for label in only or DENSITIES:
        found = named(label, rows, max_time)
        if found is None:
            continue
        model, (train, test) = found
        slow = label in ("network", "UnmaskingTrees")
        if rows.is_odd is not None:
            test = test[~rows.is_odd]
        start = time.perf_counter()
        _, cpu = processor_timed(model.fit, train)
        fit = time.perf_counter() - start
        test = test[:SLOW_ROWS] if slow else test
        scores, score = processor_timed(model.score_samples, test)
        nats = np.full(2, np.nan) if label == "IsolationForest" else -scores
        if label == "default":
            default = nats
        if slow and default is not None:  # what it has on few rows, beside the default on these
            nats = default.mean() + nats - default[: len(nats)]
        error = nats.std() / len(nats) ** 0.5
        lines.append((label, nats.mean(), error, fit, cpu, len(test) / score))
    columns = ["model", "nats", "s.e.", "fit s", "fit CPU s", "rows/s"]
    return pd.DataFrame(lines, columns=pd.Index(columns))


class UnmaskedTrees:
    """UnmaskingTrees on the codes of categories, with its own defaults but for the number of masking orders."""

    def fit(self, X: pd.DataFrame) -> None:
        from utrees import UnmaskingTrees

        self._categories = {name: sorted(X[name].unique()) for name in X}
        self._model = UnmaskingTrees(duplicate_K=DUPLICATES, random_state=0)
        self._model.fit(self._codes(X), quantize_cols=["categorical"] * X.shape[1])

    def score_samples(self, X: pd.DataFrame) -> np.ndarray:
        """The mean log-probability along random orders of the columns; NaN of a cell that was not seen is left out."""
        return self._model.score_samples(self._codes(X), n_evals=SCORED_ORDERS)

    def _codes(self, X: pd.DataFrame) -> np.ndarray:
        codes = [pd.Categorical(X[n], c).codes for n, c in self._categories.items()]
        table = np.stack(codes, 1).astype(float)
        return np.where(table < 0, np.nan, table)


class TabularARGN:
    """TabularARGN of the package ``mostlyai-engine`` in one order of the columns, every value a category of its own."""

    def __init__(self, max_time: float) -> None:
        self.minutes = max_time / 60

    def fit(self, X: pd.DataFrame) -> TabularARGN:
        from mostlyai import engine

        self._model = engine.TabularARGN(
            max_training_time=self.minutes,
            tgt_encoding_types=dict.fromkeys(X, "TABULAR_CATEGORICAL"),
            value_protection=False,
            enable_flexible_generation=False,
            device="cpu",
            random_state=0,
        )
        self._model.fit(X.astype(str).reset_index(drop=True))
        return self

    def score_samples(self, X: pd.DataFrame) -> np.ndarray:
        """Log-probabilities; a value that was not seen counts as its category of rare ones."""
        return self._model.log_prob(X.astype(str).reset_index(drop=True))


def numbers(train: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Numeric columns standardised, a column per category of the others."""
    both = pd.concat([train, test])
    dates = both.select_dtypes("datetime").columns
    both[dates] = both[dates].astype("int64")
    train = both[: len(train)]
    numeric = both.select_dtypes("number").columns
    deviation = train[numeric].std()
    is_constant = deviation <= CONSTANT * train[numeric].abs().max()
    scaled = (both[numeric] - train[numeric].mean()) / deviation.mask(is_constant, 1.0)
    cells = pd.concat([scaled.fillna(0.0), pd.get_dummies(both.drop(columns=numeric))], axis=1)
    cells = cells.to_numpy(float)
    return cells[: len(train)], cells[len(train) :]


def encoded(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows as numbers, for peers that know no others."""
    encode = numbers if isinstance(rows.train, pd.DataFrame) else standardised
    return encode(rows.train, rows.test)


def latency(rows: Rows, max_time: float, *, only: list[str] | None = None) -> pd.DataFrame:
    """Milliseconds of one row, median and 99th percentile."""
    questions: dict[str, tuple[Callable[[Any], Any], Any]] = {}
    for label in only or ["default"]:
        found = named(label, rows, max_time)
        if found is not None:
            model, (train, test) = found
            questions[f"{label}: score_samples"] = model.fit(train).score_samples, test
        if label == "default":
            density = DiffusionDensity(max_time=max_time)
            detector = DiffusionOutlierDetector(density, random_state=0).fit(rows.train)
            questions["detector.score_samples"] = detector.score_samples, rows.test
            questions["detector.reasons"] = detector.reasons, rows.test
    lines = []
    for label, (ask, test) in questions.items():
        times = [
            1e3 * seconds(lambda a=ask, x=test[i : i + 1]: a(x))[1] for i in range(LATENCY_CALLS)
        ]
        lines.append((label, *np.percentile(times[5:], [50, 99])))
    return pd.DataFrame(lines, columns=pd.Index(["question", "median ms", "99 % ms"]))


def draw(tables: dict[str, pd.DataFrame], file: str) -> None:
    """Nats against rows per second, a panel for each table; the front of models that none beats in both is a line."""
    from matplotlib.figure import Figure

    wide = min(2, len(tables))
    high = -(-len(tables) // wide)
    figure = Figure(figsize=(4.4 * wide, 3.2 * high), layout="constrained")
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    for panel in panels[len(tables) :]:
        panel.remove()
    for panel, (name, lines) in zip(panels, tables.items(), strict=False):
        front = lines.sort_values("rows/s", ascending=False)
        front = front[front["nats"] < front["nats"].cummin().shift(fill_value=np.inf)]
        panel.plot(front["rows/s"], front["nats"], color="0.7", zorder=0)
        panel.plot(lines["rows/s"], lines["nats"], "o", ms=4)
        for i, (_, line) in enumerate(lines.sort_values("nats").iterrows()):
            label = "MADE" if "independent" in line["model"] else line["model"]
            at, shift = (line["rows/s"], line["nats"]), (4, 5) if i % 2 else (4, -10)
            panel.annotate(label, at, xytext=shift, textcoords="offset points", size=7)
        panel.set(xscale="log", xlabel="rows per second", ylabel="nats per row", title=name)
        ticks = [t for t in TICKS if lines["rows/s"].min() / 2 < t < 2 * lines["rows/s"].max()]
        panel.set_xticks(ticks, [f"{t:,}".replace(",", " ") for t in ticks])
        panel.minorticks_off()
        panel.margins(0.2)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Print a table for each name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--max-time", type=float, default=300.0, help="seconds of a fit")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--only", nargs="+", help="densities, like default, causal, network")
    parser.add_argument("--figure", help="file of a picture of the densities")
    options = parser.parse_args()
    drawn: dict[str, pd.DataFrame] = {}
    print(machine(), flush=True)
    warnings.simplefilter("ignore")
    for name in TWENTY if options.tables == ["twenty"] else options.tables:
        rows = load(name)
        if rows is None:
            continue
        what: Callable[..., pd.DataFrame] = partial(densities, only=options.only)
        if options.latency:
            what = partial(latency, only=options.only)
        print(f"\n{name}: {len(rows.train)} x {rows.train.shape[1]}, {len(rows.test)} test rows\n")
        lines = what(rows, options.max_time)
        print(markdown(list(lines), lines.to_numpy().tolist()), flush=True)
        if name in TWENTY and not options.latency:
            print(
                "\nlowest known {:.2f}, published in 2026 {:.2f}".format(*TWENTY[name]), flush=True
            )
        drawn[name] = lines
    if options.figure and drawn:
        draw(drawn, options.figure)


if __name__ == "__main__":
    main()
