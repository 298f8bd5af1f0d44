"""What labels add to a detector: 5, 20 and 100 checked rows, beside supervised models of the same labels.

    python -m tests.benchmarks.labels --deciding
    python -m tests.benchmarks.labels
    python -m tests.benchmarks.labels --cached

On the sixty tables of ``odd.py`` and the categorical ones of ``anomaly.py`` (but w7a, which takes longer than all
others), and on six with heavy tails. Every tenth of the sixty, and cmc and aid362, are the deciding ones, which are
left out of what is reported. A detector is fitted to the inliers for training. The rows for testing are divided into
two halves, inliers and anomalies alike, three times: labels come from one, the measure from the other.

``alarms``: of a day, the inliers of the first half with at most a tenth as many anomalies (at least 5), the rows with
the lowest scores are checked, so labels are of both kinds. ``found``: as many anomalies of the first half, drawn at
random, are known. ``wrong``: as ``alarms``, with the first label and a fifth of the others wrong.

``detector`` has no labels. ``weights`` are those that ``update(X, y)`` gave to the columns' terms s until 2026-11-29:
the mode of a logistic likelihood of checked rows and of a third of the calibration rows, which count as inliers,
with a prior N(1, 1). ``stationary`` takes off the gradient of the rows without a label at weights of 1, ``capped``
bounds the terms as well, and ``cautious`` has the prior N(1, 1/4). HistGradientBoosting and XGBoost, with their
defaults, are fitted to the checked rows and to all training rows as negatives: of the columns of the table alone, and
``+ nats`` with those of :meth:`DiffusionOutlierDetector.transform` beside them. Where no anomaly was among the checked
rows, a classifier has one class, and all rows one score.

Average precision is multiplied by 100: the mean over tables of the mean of three divisions, with the standard error
over tables; below it the paired difference to the detector without labels, and on how many tables it is worse by more
than one standard error of the divisions. Seconds of one processor, to learn from 100
labels and score the other half, are medians over tables; the detector's own fit is its first line.

Results are kept in ``.cache/labels`` as they come.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score

from discrete_itd import DiffusionOutlierDetector
from tests.benchmarks import data
from tests.benchmarks.odd import EVERY, plus_minus
from tests.benchmarks.tables import (
    available,
    keep,
    kept,
    machine,
    markdown,
    processor_timed,
)

DECIDING_TOO = ["cmc", "aid362"]
LEFT_OUT = "w7a"
LABELS = [1, 5, 20, 100]
DIVISIONS = 3
SHARE = 0.1  # anomalies of a day, at most
WRONG = 0.2  # share of wrong labels
HEAVY = [f"{kind} {seed}" for kind in ("Student", "lognormal") for seed in range(3)]
WEIGHTS: dict[str, dict[str, Any]] = {
    "weights": {},
    "weights, stationary": {"stationary": True},
    "weights, stationary, capped": {"stationary": True, "capped": True},
    "weights, stationary, capped, cautious": {"stationary": True, "capped": True, "sd": 0.5},
}
FEWEST = 5  # but at least
BOOSTING: dict[str, Any] = {"HistGradientBoosting": HistGradientBoostingClassifier}
MOST_CATEGORIES = 255  # of a column, in HistGradientBoosting


def main() -> None:
    """Print a table for each way in which labels come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="all of them by default")
    parser.add_argument("--deciding", action="store_true")
    parser.add_argument("--cached", action="store_true", help="measure nothing")
    options = parser.parse_args()
    odd = data.odd_names()
    categorical = [name for name in data.categorical_names() if name != LEFT_OUT]
    if not odd:
        print("skipped: no tables of OddBench (see tests/benchmarks/data.py)")
        return
    deciding = [*odd[::EVERY], *DECIDING_TOO]
    names = [n for n in (*odd, *categorical, *HEAVY) if (n in deciding) == options.deciding]
    if available("xgboost"):
        import xgboost

        BOOSTING["XGBoost"] = lambda **how: xgboost.XGBClassifier(
            enable_categorical=True, n_jobs=1, **how
        )
    print(machine())
    results = {name: measured(name, options.cached) for name in options.tables or names}
    for among, own in {
        "OddBench": [n for n in results if n in odd],
        "categorical": [n for n in results if n in categorical],
        "heavy tails": [n for n in results if n in HEAVY],
    }.items():
        found = [results[n] for n in own if results[n]]
        for way in ("alarms", "found", "wrong") if found else ():
            print(f"\n{len(found)} tables, {among}; labels: {way}\n")
            print(summary(found, way))


def measured(name: str, cached: bool) -> dict[str, dict[str, list[float]]]:
    """Average precision and seconds of each method of a table, by way, number of labels and method."""
    known = kept(file := f"labels/{name}")
    if "all" not in known and not cached:
        known = {"all": of_table(name)}
        keep(file, "all", known["all"])
        print(name, file=sys.stderr, flush=True)
    return known.get("all", {})


def of_table(name: str) -> dict[str, dict[str, list[float]]]:
    """Everything that is measured on one table."""
    if name in HEAVY:
        train, test, is_odd = heavy_tails(name)
    elif name in data.odd_names():
        train, test, is_odd = data.load_odd(name)
    else:
        train, test, is_odd = data.thirds(*data.load_categorical(name), seed=0)
    detector = DiffusionOutlierDetector(random_state=0)
    _, seconds = processor_timed(detector.fit, train)
    out: dict[str, Any] = {"fit": {"seconds": [seconds]}}
    nats = [pd.DataFrame(detector.transform(rows)).add_prefix("nats ") for rows in (train, test)]
    raw = as_features(train, test)
    both = [pd.concat(pair, axis=1) for pair in zip(raw, nats, strict=True)]
    score = detector.score_samples(test)
    for seed in range(DIVISIONS):
        random, first = np.random.default_rng(seed), np.zeros(len(test), dtype=bool)
        for kind in (is_odd, ~is_odd):
            rows = random.permutation(np.flatnonzero(kind))
            first[rows[: len(rows) // 2]] = True
        inliers, anomalies = (np.flatnonzero(first & kind) for kind in (~is_odd, is_odd))
        anomalies = random.permutation(anomalies)
        day = np.concatenate([inliers, anomalies[: max(FEWEST, int(SHARE * len(inliers)))]])
        day = day[np.argsort(score[day], kind="stable")]
        for way, checked in {"alarms": day, "found": anomalies, "wrong": day}.items():
            flipped = (
                random.random(len(checked)) < WRONG
                if way == "wrong"
                else np.zeros(len(checked), bool)
            )
            flipped[:1] = way == "wrong"
            for n in (0, *LABELS):
                own, y = checked[:n], is_odd[checked[:n]] ^ flipped[:n]
                methods = with_labels(detector, test, own, y, ~first, raw, both)
                for method, call in methods.items():
                    scores, seconds = processor_timed(call)
                    ap = 100 * average_precision_score(is_odd[~first], scores)
                    entry = out.setdefault(f"{way} {n} {method}", {"ap": [], "seconds": []})
                    entry["ap"].append(float(ap))
                    entry["seconds"].append(seconds)
    return out


def with_labels(
    detector: DiffusionOutlierDetector,
    test: pd.DataFrame,
    checked: np.ndarray,
    y: np.ndarray,
    others: np.ndarray,
    raw: list[pd.DataFrame],
    both: list[pd.DataFrame],
) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that learn from labels ``y`` of ``checked`` rows, and score ``others``: higher for anomalies."""

    if not len(checked):
        return {"detector": lambda: -detector.score_samples(test[others])}
    calibration = np.nan_to_num(detector.explain().to_numpy())
    unlabelled = calibration[:: max(3, len(calibration) // 1000)]

    def weighted(how: dict[str, Any]) -> np.ndarray:
        terms = detector.transform(test)[:, :-1]
        w, cap = weights(terms[checked], y, unlabelled, **how)
        return (w * np.minimum(terms, cap) + np.maximum(terms - cap, 0)).sum(1)[others]

    def boosted(make: Any, train: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
        if not y.any():
            return np.zeros(int(others.sum()))
        X = pd.concat([train, rows.iloc[checked]])
        labels = np.concatenate([np.zeros(len(train), int), y.astype(int)])
        return make(random_state=0).fit(X, labels).predict_proba(rows[others])[:, 1]

    methods: dict[str, Callable[[], np.ndarray]] = {
        name: partial(weighted, how) for name, how in WEIGHTS.items()
    }
    for name, make in BOOSTING.items():
        for label, parts in ((name, raw), (f"{name} + nats", both)):
            methods[label] = lambda make=make, parts=parts: boosted(make, *parts)
    return methods


def weights(
    nats: np.ndarray,
    y: np.ndarray,
    unlabelled: np.ndarray,
    *,
    stationary: bool = False,
    capped: bool = False,
    sd: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C,) of columns, and the terms up to which they apply, by terms of checked and of other rows."""
    cap = np.full(nats.shape[1], np.inf)
    if capped:
        cap = 1 + 1.5 * np.quantile(unlabelled, 0.99, axis=0)
    of_known, of_others = (
        np.column_stack([np.minimum(s, cap), np.ones(len(s))]) for s in (nats, unlabelled)
    )
    prior = np.append(np.ones(len(cap)), -np.quantile(of_others[:, :-1].sum(1), 0.99))
    precision = np.append(np.full(len(cap), sd**-2), 1.0)
    pull = of_others.T @ expit(of_others @ prior) if stationary else np.zeros(len(prior))

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the logarithm of the posterior, but for a constant, and its gradient."""
        away, others, known = v - prior, of_others @ v, of_known @ v
        value = np.logaddexp(0, others).sum() + (np.logaddexp(0, known) - y * known).sum()
        slope = of_others.T @ expit(others) + of_known.T @ (expit(known) - y)
        return value - pull @ away + precision @ away**2 / 2, slope - pull + precision * away

    bounds = [(0, None)] * len(cap) + [(None, None)]
    found = minimize(loss, prior, jac=True, bounds=bounds, options={"maxiter": 1000})
    return (found.x if found.success else prior)[:-1], cap


def heavy_tails(name: str) -> data.Anomalies:
    """Six columns of Student's t, three of them shifted in anomalies; or five lognormal ones, one of them scaled."""
    kind, seed = name.split()
    random = np.random.default_rng(int(seed))

    def drawn(n: int, is_odd: bool) -> pd.DataFrame:
        if kind == "Student":
            X = random.standard_t(1.5, (n, 6))
            X[:, :3] += is_odd * random.choice([-4, 4], (n, 3))
        else:
            X = np.exp(random.normal(0, 2, (n, 5)))
            X[:, 0] *= np.exp(3.0 * is_odd)
        return pd.DataFrame(X).add_prefix("c")

    train, test = drawn(2000, False), [drawn(1500, False), drawn(150, True)]
    return data.Anomalies(train, pd.concat(test, ignore_index=True), np.arange(1650) >= 1500)


def as_features(train: pd.DataFrame, test: pd.DataFrame) -> list[pd.DataFrame]:
    """Strings as categories, in columns of more than 255 of them as their numbers."""
    n, every = len(train), pd.concat([train, test], ignore_index=True)
    for column in every.select_dtypes(exclude="number"):
        coded = every[column].astype("category")
        few = len(coded.cat.categories) <= MOST_CATEGORIES
        every[column] = coded if few else coded.cat.codes
    return [every.iloc[:n], every.iloc[n:].reset_index(drop=True)]


def summary(results: list[dict[str, dict[str, list[float]]]], way: str) -> str:
    """A row per method: average precision and its difference, by the number of labels; seconds."""

    def over_tables(key: str, what: str) -> np.ndarray:
        return np.array([np.mean(of[key][what]) for of in results])

    base = over_tables(f"{way} 0 detector", "ap")
    fit = np.median([of["fit"]["seconds"][0] for of in results])
    lines: list[list[object]] = [
        ["detector", *[plus_minus(base)] * len(LABELS), f"{fit:.1f} to fit"]
    ]
    methods = list(
        dict.fromkeys(k.split(maxsplit=2)[2] for k in results[0] if k.startswith(f"{way} 5 "))
    )
    for method in methods:
        own = {n: over_tables(f"{way} {n} {method}", "ap") for n in LABELS}
        seconds = np.median(over_tables(f"{way} {LABELS[-1]} {method}", "seconds"))
        lines.append([method, *map(plus_minus, own.values()), f"{seconds:.2f}"])
        lines.append(["", *(f"({plus_minus(ap - base)})" for ap in own.values()), ""])
        worse = [
            sum(
                _is_worse(of[f"{way} {n} {method}"]["ap"], of[f"{way} 0 detector"]["ap"])
                for of in results
            )
            for n in LABELS
        ]
        lines.append(["", *(f"worse on {n} of {len(results)}" for n in worse), ""])
    return markdown(["", *(f"{n} labels" for n in LABELS), "seconds"], lines)


def _is_worse(found: list[float], base: list[float]) -> bool:
    """Whether a method is worse than the detector by more than one standard error of the divisions."""
    gain = np.subtract(found, base)
    return bool(gain.mean() < -max(gain.std(ddof=1) / len(gain) ** 0.5, 1e-9))


if __name__ == "__main__":
    main()
