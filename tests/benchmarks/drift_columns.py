"""Does ``drifted_columns`` name the column that drifted, beside the simplest rival: one two-sample test per column.

    python -m tests.benchmarks.drift_columns --denoiser mixture        # half a minute of one core
    python -m tests.benchmarks.drift_columns --loans FOLDER            # also applications of ../shared/messy/make.py

A detector is fitted to a third of each table, 5000 rows at most. Of the other rows, shuffled anew for each batch, some
are the batch and at most 2000 the reference. In the batch one column, drawn by chance, is changed: a number shifted by
a part of its standard deviation (a whole number by a whole one), or in a thousandth of its unit; a quarter of the cells
of categories replaced by one category; the column permuted, so that it depends on nothing; or all its cells missing.

The rival compares the values of each column, and its missing cells, with those of the reference, and nothing else: the
same tests as the detector's, adjusted by the procedure of Benjamini and Hochberg, the largest distance first.

Cells: in how many of a hundred batches the changed column is first, in how many it is named, and how many others are
named on average; where nothing was changed, in how many any column is named.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_adult, load_mushroom
from discrete_itd.detection.drift import LEAST_EFFECT, Drift
from tests.benchmarks import data
from tests.benchmarks.messy import cleaned
from tests.benchmarks.tables import machine, markdown

ODD = ("FanAudioMonitoring", "LandRarity", "SalesFraudDetection")
BATCHES = (200, 2000)
MOST_TRAIN, MOST_REFERENCE, ALPHA = 5000, 2000, 0.05
NOTHING = "nothing"


def shifted(share: float) -> Callable:
    """Of whole numbers by a whole number, at least one."""

    def change(column: pd.Series, _: object) -> pd.Series:
        by = share * column.std()
        return column + (max(1, round(by)) if pd.api.types.is_integer_dtype(column) else by)

    return change


def replaced(column: pd.Series, random: np.random.Generator) -> pd.Series:
    """A quarter of the cells hold one category, drawn evenly."""
    return column.mask(random.random(len(column)) < 0.25, random.choice(column.dropna().unique()))


CHANGES: dict[str, tuple[Callable[[pd.Series, np.random.Generator], Any], str]] = {
    NOTHING: (lambda column, _: column, "any"),
    "shift .25 sd": (shifted(0.25), "number"),
    "shift .5 sd": (shifted(0.5), "number"),
    "shift 1 sd": (shifted(1.0), "number"),
    "times 1000": (lambda column, _: column * 1000, "number"),
    "replaced": (replaced, "category"),
    "permuted": (lambda column, random: random.permutation(column), "any"),
    "missing": (lambda column, _: column.mask(np.ones(len(column), bool)), "any"),
}


def main() -> None:
    """Print a line for each change, and each size of the batch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--denoiser", default="auto", help="of the detector's density")
    parser.add_argument("--loans", type=Path)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--only", nargs="+", help="tables")
    options = parser.parse_args()
    warnings.simplefilter(
        "ignore"
    )  # that no value was seen in training, where a column was changed
    print(machine())
    found: dict[tuple[int, str], list[np.ndarray]] = {}
    for name, table in tables(options.loans).items():
        if not options.only or name in options.only:
            print(name, table.shape, flush=True)
            measure(table, options.denoiser, options.repeats, found)
    lines = []
    for (size, change), results in found.items():
        means = np.mean(results, axis=0)  # (2, 4)
        shown = [f"{100 * m[0]:.0f} / {100 * m[1]:.0f} / {m[2]:.2f}" for m in means]
        if change == NOTHING:
            shown = [f"{100 * m[3]:.0f}" for m in means]
        lines.append([size, change, len(results), *shown])
    print(markdown(["rows", "change", "batches", "ours", "values alone"], lines))


def tables(loans: Path | None) -> dict[str, pd.DataFrame]:
    """Those that are there, their rows in random order."""
    out = {"adult": load_adult(), "mushroom": load_mushroom()}
    for name in (n for n in data.odd_names() if n in ODD):
        rows = data.load_odd(name)
        out[name] = pd.concat([rows.train, rows.test[~rows.is_odd]])
    if loans is not None:
        out["loans"] = cleaned(loans / "history.csv")
    return {k: t.sample(frac=1, random_state=0, ignore_index=True) for k, t in out.items()}


def measure(
    table: pd.DataFrame, denoiser: str, repeats: int, found: dict[tuple[int, str], list[np.ndarray]]
) -> None:
    """Add the results of a table: of ours and the rival, whether first and named, how many others, whether any."""
    n = min(len(table) // 3, MOST_TRAIN)
    density = DiffusionDensity(denoiser=denoiser, random_state=0)
    detector, rest = DiffusionOutlierDetector(density, random_state=0).fit(table[:n]), table[n:]
    numbers = set(table.select_dtypes("number"))
    for size, change in ((s, c) for s in BATCHES if len(rest) >= 2 * s for c in CHANGES):
        make, kind = CHANGES[change]
        own = [c for c in table if kind == "any" or (c in numbers) == (kind == "number")]
        for repeat in range(repeats if own else 0):
            random = np.random.default_rng([size, repeat, len(change)])
            order = random.permutation(len(rest))
            batch = rest.iloc[order[:size]].reset_index(drop=True)
            column = own[random.integers(len(own))]
            try:
                batch[column] = make(batch[column], random)
                reference = rest.iloc[order[size : size + MOST_REFERENCE]]
                drift = detector.drift(batch, reference=reference, alpha=ALPHA)
            except (ValueError, TypeError) as error:  # the table of another schema
                print(f"{change}, {column}: {error}", flush=True)
                continue
            lines = []
            for names in (drift.drifted_columns, by_values(drift)):
                others = len(set(names) - {column})
                lines.append([names[:1] == [column], column in names, others, bool(names)])
            found.setdefault((size, change), []).append(np.array(lines, dtype=float))


def by_values(drift: Drift) -> list:
    """The columns that the rival names."""
    table = drift.columns
    p = table[["p_values", "p_missing"]]
    p = (p.min(axis=1) * p.count(axis=1)).clip(upper=1.0)
    named = table[(stats.false_discovery_control(p) <= ALPHA) & (table["distance"] >= LEAST_EFFECT)]
    return named.sort_values("distance", ascending=False, kind="stable").index.tolist()


if __name__ == "__main__":
    main()
