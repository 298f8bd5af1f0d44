"""The answers of every estimator and recipe on ten small tables, written to a file for ``change.py`` to compare.

    PYTHONPATH=checkout python -P tests/benchmarks/answers.py answers.pkl --tables car

It uses the public interface of whichever ``discrete_itd`` it finds, and nothing else of its checkout, so that one
version of this file measures two versions of the library. Bits agree only on one thread of one kind of processor.
"""

from __future__ import annotations

import argparse
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets as bundled
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch, datasets
from discrete_itd.recipes import Best
from tests.networks import load_bayesian_network

ROWS, TEST_ROWS, ASKED = 1200, 400, 20
STEPS = 60  # of a network: enough for every part of a training to run
QUICK: dict[str, Any] = {"max_steps": STEPS, "n_evaluations": 8, "random_state": 0}
DENSITIES: dict[str, Any] = {
    name: name
    for name in (
        "independent",
        "tree",
        "mixture",
        "bayes_net",
        "forest",
        "causal",
        "network",
        "row_mixture",
        "auto",
    )
} | {"best": Best(n_orders=1)}
DETECTORS: dict[str, dict[str, Any]] = {"detector": {}, "detector, 5 %": {"contamination": 0.05}}
ESTIMATORS = (*DENSITIES, *DETECTORS, "watch")


class Split(NamedTuple):
    """Rows to fit, rows to ask about, and which of these have one cell of another row."""

    fit: pd.DataFrame
    test: pd.DataFrame
    is_odd: np.ndarray


def shop() -> pd.DataFrame:
    """Sales with gaps, dates, a price that follows from the article, ordered sizes and a spike at no discount."""
    random, n = np.random.default_rng(1), ROWS + TEST_ROWS
    article = random.integers(0, 12, n)
    discount = np.where(random.random(n) < 0.7, 0.0, random.beta(2, 5, n).round(3))
    price = (5 + 3 * article) * (1 - discount) + random.normal(0, 0.05, n).round(2)
    frame = pd.DataFrame(
        {
            "article": [f"a{k:02d}" for k in article],
            "size": pd.Categorical.from_codes(
                random.integers(0, 3, n), ["S", "M", "L"], ordered=True
            ),
            "discount": discount,
            "price": price,
            "sold": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(random.integers(0, 365, n), unit="D"),
            "pieces": random.poisson(1.5, n) + 1,
            "member": random.random(n) < 0.4,
        }
    )
    for name, share in {"size": 0.1, "price": 0.05, "sold": 0.03}.items():
        frame.loc[random.random(n) < share, name] = None
    return frame


def _numbers(load: Callable[..., Any]) -> Callable[[], pd.DataFrame]:
    return lambda: load(as_frame=True).frame


def _network(name: str) -> Callable[[], pd.DataFrame]:
    return lambda: load_bayesian_network(name).sample(ROWS + TEST_ROWS, random_state=0)


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "mushroom": datasets.load_mushroom,
    "adult": datasets.load_adult,
    "car": datasets.load_car,
    "asia": _network("asia"),
    "child": _network("child"),
    "alarm": _network("alarm"),
    "breast cancer": _numbers(bundled.load_breast_cancer),
    "wine": _numbers(bundled.load_wine),
    "diabetes": _numbers(bundled.load_diabetes),
    "shop": shop,
}


def split(name: str) -> Split:
    """Up to ``ROWS`` rows to fit and ``TEST_ROWS`` others, half of which get one cell of another row."""
    random = np.random.default_rng(0)
    frame = TABLES[name]()
    frame = frame.iloc[random.permutation(len(frame))[: ROWS + TEST_ROWS]].reset_index(drop=True)
    cut = len(frame) * ROWS // (ROWS + TEST_ROWS)
    test = frame[cut:].reset_index(drop=True)
    is_odd, wrong = random.random(len(test)) < 0.5, test.copy()
    for row in np.flatnonzero(is_odd):
        column = int(random.integers(test.shape[1]))
        wrong.iloc[row, column] = test.iloc[int(random.integers(len(test))), column]
    return Split(frame[:cut], wrong, is_odd)


def density_answers(density: Any, rows: Split) -> dict[str, Any]:
    """What a fitted density says of a table, question by question."""
    few = rows.test[:ASKED]
    gaps = few.where(np.broadcast_to(np.arange(few.shape[1]) > 0, few.shape))
    given = [rows.test.columns[-1]]
    return {
        "nats": -density.log_prob(rows.test).log_prob,
        "nats, one column given": -density.log_prob(few, given=given).log_prob,
        "explain": density.explain(few),
        "sample": density.sample(ASKED, random_state=0),
        "impute": density.impute(gaps, random_state=0),
    }


def detector_answers(detector: Any, rows: Split) -> dict[str, Any]:
    """What a fitted detector says of a table."""
    few = rows.test[:ASKED]
    return {
        "score": -detector.score_samples(rows.test),
        "p-values": detector.p_values(rows.test),
        "reasons": detector.reasons(few),
        "explain": detector.explain(few),
    }


def measured(estimator: str, rows: Split) -> dict[str, Any]:
    """The answers of one estimator on one table, processor-seconds of fit and answers; ``"error"`` if it raises."""
    start = time.process_time()
    try:
        model: Any
        if estimator in DENSITIES:
            model = DiffusionDensity(denoiser=DENSITIES[estimator], **QUICK).fit(rows.fit)
        else:
            model = DiffusionOutlierDetector(random_state=0, **DETECTORS.get(estimator, {})).fit(
                rows.fit
            )
        fitted = time.process_time()
        if estimator in DENSITIES:
            answers = density_answers(model, rows)
        elif estimator in DETECTORS:
            answers = detector_answers(model, rows)
        else:
            answers = {"watch": DriftWatch(model).update(rows.test)}
    except Exception as error:  # an estimator that refuses a table is an answer, too
        return {"error": f"{type(error).__name__}: {error}"}
    out = {"fit": fitted - start, "ask": time.process_time() - fitted, "answers": answers}
    ranked = answers.get("nats", answers.get("score"))
    if ranked is not None:
        out["mean"] = float(np.mean(ranked[~rows.is_odd]))
        out["auroc"] = 100 * float(roc_auc_score(rows.is_odd, ranked))
    return out


def run(
    tables: list[str], estimators: list[str]
) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """The measurements, table by table."""
    for table in tables:
        rows = split(table)
        for estimator in estimators:
            yield (table, estimator), measured(estimator, rows)


def main() -> None:
    """Write the answers to a file, as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with open(options.file, "wb") as file:
        for entry in run(options.tables, options.estimators):
            pickle.dump(entry, file)
            file.flush()


if __name__ == "__main__":
    main()
