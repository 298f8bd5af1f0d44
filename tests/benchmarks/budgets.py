"""How often a promised alarm budget is kept, on rows in the order of time and on the same rows shuffled.

    python -m tests.benchmarks.budgets                          # about eight minutes
    python -m tests.benchmarks.budgets bank --seeds 1

Inliers only: every alarm is a false one. Of at most 12 000 rows in their order, a detector is fitted to the first half,
its threshold set at a false-alarm rate, and an interval for the number of alarms is stated beforehand for each of eight
blocks of at most 500 rows that follow. A promise is kept if the number of the block lies in the interval; a budget is
exceeded if it is above.

- ours: ``threshold_at_rate`` on held-out calibration rows, with the 95 % interval of
  ``alarms_expected``.
- ours, percentile: the same scores, but the threshold is a percentile of the scores of the rows of the fit, and the
  interval that of a binomial with just this rate.
- IsolationForest, percentile: likewise, scikit-learn's with its defaults (categories one-hot).

``told`` is the share of blocks with more alarms than promised by whose end :class:`DriftWatch`, at a level of 0.01, had
raised an alarm on the same rows; ``too early`` the share of the other blocks for which it had: rows that drifted, and
kept to the budget yet.

In time: tables of OddBench with a column of time, which orders the rows and is then left out (with the others that
follow from it), and bank and u2r in the order of their files, which is that of time. A bundled table, adult, has no
time: its order is simulated, by the age of a row with noise, and age left out.

Results are kept in ``.cache/budgets`` as they come.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_adult
from discrete_itd.detection.watch import DriftWatch
from tests.benchmarks import data
from tests.benchmarks.tables import keep, kept, machine, markdown, mean_and_error

RATES = (0.01, 0.05)
LEVEL = 0.95
N_BLOCKS, MOST_ROWS, MOST_OF_TABLE = 8, 500, 12_000
ORDERS = ("time", "shuffled")
METHODS = ("ours", "ours, percentile", "IsolationForest, percentile")


def _month_day_year(dates: pd.Series) -> pd.Series:
    return dates % 100 * 10_000 + dates // 100


class Order(NamedTuple):
    """By which column of a table of OddBench its rows are ordered, and which are left out for it."""

    column: str
    without: tuple[str, ...] = ()
    key: Callable[[pd.Series], pd.Series] | None = None


ODD = {
    "AirQualityKolkata": Order("Month", ("Day", "Hour")),
    "CrimeIncident": Order("FileDate", (), _month_day_year),
    "ErrorEventCategories": Order("date", ("visitId",)),
    "HousingAnomaly": Order("SALEYEAR"),
    "PatientStatusTracking": Order("confirmation_date_num", ("onset_date_num",)),
    "PsychologicalAssessment": Order("Timestamp"),
    "ResourceIndicators": Order("Year"),
    "TrafficAccidentAnalysis": Order("Month", ("Day",)),
}


def main() -> None:
    """Print a table over all tables, and one by table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="all that are there by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-time", type=float, default=5.0, help="seconds of training")
    parser.add_argument("--label", default="", help="of this version of ours, in the cache")
    parser.add_argument("--quick", action="store_true", help="an exact model, a few rows")
    options = parser.parse_args()
    names = options.tables or _names()
    print(machine(), flush=True)
    found = []
    for name in names:
        for order in ORDERS:
            for seed in range(options.seeds):
                found.extend(_measured(name, order, seed, options))
    blocks = pd.DataFrame(found)
    header = ["order", "rate", "method", "blocks", "kept, %", "exceeded, %", "alarms / budget"]
    for order in ORDERS:
        own = blocks[blocks["order"] == order]
        print(f"\n{'In the order of time' if order == 'time' else 'The same rows, shuffled'}\n")
        lines = [
            [order, rate, method, len(part), *_summary(part)]
            for rate in RATES
            for method in METHODS
            for part in [own[(own["rate"] == rate) & (own["method"] == method)]]
        ]
        print(markdown([*header, "told, %", "too early, %"], lines))
    print("\nBy table, in the order of time: blocks kept, %, and alarms / budget\n")
    print(_by_table(blocks[blocks["order"] == "time"], names))


def _names() -> list[str]:
    here = set(data.odd_names()) | set(data.categorical_names())
    wanted = [*ODD, "bank", "u2r"]
    for name in wanted:
        if name not in here:
            print(f"skipped {name}: its file is not here (see tests/benchmarks/data.py)")
    return [*(name for name in wanted if name in here), "adult"]


def _measured(name: str, order: str, seed: int, options: argparse.Namespace) -> list[dict]:
    """One line for every block, rate and method, from the cache if it is there."""
    key, file = f"{order}-{seed}-{options.max_time:g}s{options.label}", f"budgets/{name}"
    if options.quick:
        return _blocks(name, order, seed, options)
    known = kept(file)
    if key not in known:
        known[key] = _blocks(name, order, seed, options)
        keep(file, key, known[key])
        print(f"{name}, {key}", file=sys.stderr, flush=True)
    return known[key]


def _blocks(name: str, order: str, seed: int, options: argparse.Namespace) -> list[dict]:
    rows, most = _load(name, seed), 1200 if options.quick else MOST_OF_TABLE
    rows = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]
    if order == "shuffled":
        rows = rows.sample(frac=1.0, random_state=seed)
    first, rest = np.split(np.arange(len(rows)), [len(rows) // 2])
    known = rows.iloc[first].reset_index(drop=True)
    blocks = [rows.iloc[part] for part in np.array_split(rest, N_BLOCKS)]
    blocks = [block[:MOST_ROWS].reset_index(drop=True) for block in blocks]
    density = DiffusionDensity(max_time=options.max_time)
    if options.quick:
        density.set_params(denoiser="tree")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tables with identifiers, or calibration rows too few
        detector = DiffusionOutlierDetector(density, random_state=seed).fit(known)
        forest = _forest(known, seed)
        scores = [detector.score_samples(block) for block in [known, *blocks]]
        of_forest = [forest(block) for block in [known, *blocks]]
        watch, told = DriftWatch(detector), []
        for block in blocks:
            watch.update(block)
            told.append(watch.alarm_ is not None)
    out = []
    for rate in RATES:
        offset = detector.threshold_at_rate(rate).offset
        detector.set_threshold(detector.threshold_at_rate(rate))
        for i, block in enumerate(blocks):
            m = len(block)
            naive = [float(q) for q in stats.binom(m, rate).interval(LEVEL)]
            stated = detector.threshold_.alarms_expected(m, level=LEVEL)
            alarms = {
                "ours": ((scores[1 + i] < offset).sum(), stated.low, stated.high),
                "ours, percentile": (_below(scores, i, rate), *naive),
                "IsolationForest, percentile": (_below(of_forest, i, rate), *naive),
            }
            for method, (n, low, high) in alarms.items():
                line = {"order": order, "table": name, "seed": seed, "rate": rate, "method": method}
                line |= {"alarms": int(n), "low": float(low), "high": float(high)}
                out.append(line | {"budget": m * rate, "told": told[i]})
    return out


def _below(scores: list[np.ndarray], i: int, rate: float) -> int:
    """Scores of block i below the percentile of those of the fit."""
    return int((scores[1 + i] < np.quantile(scores[0], rate)).sum())


def _load(name: str, seed: int) -> pd.DataFrame:
    """The inliers of a table in the order of time."""
    if name == "adult":
        frame = load_adult()
        noise = np.random.default_rng(seed).normal(0, 20, len(frame))
        return frame.iloc[np.argsort(frame["age"] + noise)].drop(columns="age")
    if name not in ODD:
        frame, odd = data.load_categorical(name)
        frame = frame[~odd]
        return frame.drop(columns="month") if name == "bank" else frame
    parts, order = data.load_odd(name), ODD[name]
    frame = pd.concat([parts.train, parts.test[~parts.is_odd]]).sample(frac=1.0, random_state=seed)
    frame = frame.sort_values(order.column, kind="stable", key=order.key)
    return frame.drop(columns=[order.column, *order.without])


def _forest(train: pd.DataFrame, seed: int) -> Callable[[pd.DataFrame], np.ndarray]:
    categories = list(train.select_dtypes(exclude="number").columns)
    one_hot = (OneHotEncoder(handle_unknown="ignore"), categories)
    encoder: Any = make_column_transformer(one_hot, remainder="passthrough")
    return make_pipeline(encoder, IsolationForest(random_state=seed)).fit(train).score_samples


def _summary(part: pd.DataFrame) -> list[str]:
    """Cells of one line, with standard errors over runs."""
    within = part["alarms"].between(part["low"], part["high"])
    above = part["alarms"] > part["high"]
    runs = [part["table"], part["seed"]]
    cells = ["{:.1f} ± {:.1f}".format(*_of_runs(100.0 * flag, runs)) for flag in (within, above)]
    cells.append("{:.2f} ± {:.2f}".format(*_of_runs(part["alarms"] / part["budget"], runs)))
    for flag in (above, ~above):
        own = part["told"][flag]
        cells.append(f"{100 * own.mean():.0f} of {len(own)}" if len(own) else "none")
    return cells


def _of_runs(values: pd.Series, runs: list[pd.Series]) -> tuple[float, float]:
    means = values.groupby(runs).mean().to_numpy()
    return mean_and_error(means) if len(means) > 1 else (float(means[0]), 0.0)


def _by_table(blocks: pd.DataFrame, names: list[str]) -> str:
    lines = []
    for name in names:
        for rate in RATES:
            line = [name, rate]
            for method in METHODS:
                own = blocks[
                    (blocks["table"] == name)
                    & (blocks["rate"] == rate)
                    & (blocks["method"] == method)
                ]
                within = own["alarms"].between(own["low"], own["high"]).mean()
                ratio = (own["alarms"] / own["budget"]).mean()
                line.append(f"{100 * within:.0f}; {ratio:.2f}")
            lines.append(line)
    return markdown(["table", "rate", *METHODS], lines)


if __name__ == "__main__":
    main()
