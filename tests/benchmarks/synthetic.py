"""Synthetic rows judged as in the literature: detection, marginals, pairs, utility, and held-out nats.

    python -m tests.benchmarks.synthetic shoppers magic --folder FOLDER
    python -m tests.benchmarks.synthetic adult --methods default mixture --best-time 300
    python -m tests.benchmarks.synthetic adult magic --halves --methods default independent other
    python -m tests.benchmarks.synthetic adult --quick

The seven tables of tabpc (arXiv:2603.23016), which are TabSyn's and Diabetes, with its columns, types, gaps and shares
of training and test rows: nine tenths and one tenth at random, the published test rows of adult, three and one fifth of
diabetes. Numbers are read as they are, the columns that it declares categories as text. As many rows are drawn as there
are training rows, and compared with these; ``fidelity.py`` says what the scores are. "Quality" is SDMetrics', the mean
of shape and trend. With ``--halves``, models are fitted to a random half of the training rows, and "other" are the rows
of the other half in the place of drawn ones: what the scores give real rows. Besides, detection from as many
test rows: copies of training rows, which the first detection cannot tell from them, do not help there. "Copies" are
drawn rows that equal a training row, to be compared with those among the test rows.
"Utility" is the AUC (beijing, news: the error of the logarithm) of XGBoost's defaults, trained on drawn rows; in print,
of its best of 36 settings.

The files have the names of the UCI repository and lie in ``--folder``, by default ``data/synthetic`` of the folder that
``DISCRETE_ITD_SHARED`` names; those that are not there are said to be skipped. Without its files, adult is the one of
this package, which lacks two columns. Published figures are tabpc's own, of ``article_material/our_results`` in the
repository april-tools/tabpc: means of five trained models and, of detection, their standard deviation; the mixture is
its "SM". Seconds are the processor's, in print those of machines with a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from discrete_itd.datasets import load_adult
from tests.benchmarks.data import shared_folder
from tests.benchmarks.fidelity import (
    BOOSTING,
    copies,
    detection,
    predictability,
    shape,
    trend,
    utility,
    weighted_nmi,
)
from tests.benchmarks.tables import estimator, machine, plus_minus, print_lines, processor_timed

HEADER = ["method", "nats", "detection", "AUC", "AUC, test rows", "shape", "trend", "quality"]
HEADER += ["wNMI", "utility", "global utility", "copies", "s to fit", "s to draw"]
METHODS = ("default", "best", "mixture", "forest", "independent", "bootstrap")

# table, method, detection by XGBoost and its standard deviation, shape, trend, wNMI, utility, s to train, s to draw
PUBLISHED = """
adult    TabSyn   0.794 0.034 0.992 0.980 0.986 0.910 3082 5.0
adult    TabDiff  0.841 0.007 0.993 0.985 0.989 0.913 11605 10.8
adult    mixture  0.773 0.024 0.992 0.981 0.954 0.902 60 15.5
adult    TabPC    0.855 0.033 0.994 0.986 0.993 0.916 272 38.9
beijing  TabSyn   0.527 0.140 0.974 0.955 0.983 0.626 3321 5.4
beijing  TabDiff  0.772 0.014 0.990 0.974 0.993 0.564 14418 9.0
beijing  mixture  0.733 0.015 0.981 0.965 0.970 0.558 106 25.8
beijing  TabPC    0.570 0.026 0.994 0.978 0.993 0.656 582 24.7
default  TabSyn   0.402 0.051 0.987 0.971 0.985 0.759 3438 5.2
default  TabDiff  0.591 0.023 0.988 0.973 0.988 0.762 13899 9.6
default  mixture  0.105 0.013 0.991 0.977 0.957 0.732 164 35.0
default  TabPC    0.262 0.005 0.995 0.950 0.989 0.744 78 5.4
diabetes TabSyn   0.522 0.036 0.982 0.960 0.980 0.686 6506 15.6
diabetes TabDiff  0.562 0.284 0.986 0.969 0.969 0.681 32069 176.5
diabetes mixture  0.133 0.033 0.994 0.974 0.934 0.574 293 137.6
diabetes TabPC    0.791 0.013 0.994 0.981 0.992 0.687 248 63.4
magic    TabSyn   0.760 0.031 0.990 0.992 0.997 0.937 2271 2.6
magic    TabDiff  0.773 0.028 0.992 0.992 0.995 0.936 11643 4.4
magic    mixture  0.626 0.023 0.984 0.979 0.943 0.928 15 2.7
magic    TabPC    0.860 0.014 0.990 0.983 0.993 0.932 39 1.7
news     TabSyn   0.121 0.059 0.977 0.983 0.944 0.858 3746 11.1
news     TabDiff  0.030 0.025 0.973 0.984 0.913 0.878 16040 16.2
news     mixture  0.000 0.000 0.988 0.976 0.818 0.910 268 131.3
news     TabPC    0.129 0.018 0.994 0.982 0.939 0.886 404 92.0
shoppers TabSyn   0.655 0.020 0.985 0.977 0.983 0.914 2441 2.0
shoppers TabDiff  0.736 0.016 0.985 0.981 0.984 0.917 10321 6.0
shoppers mixture  0.290 0.025 0.971 0.950 0.927 0.863 48 10.6
shoppers TabPC    0.894 0.010 0.991 0.982 0.993 0.897 51 5.0
"""


class Table(NamedTuple):
    """Training and test rows, and others; which columns are numbers; the column to be predicted."""

    train: pd.DataFrame
    test: pd.DataFrame
    other: pd.DataFrame  # of the half that is not fitted, or none
    numbers: list[str]
    target: str


class Spec(NamedTuple):
    """Where a table is found: its file, the positions of its numbers, the name of its target, by default the last."""

    file: str
    numbers: tuple[int, ...]
    target: str = ""


SPECS = {
    "adult": Spec("adult.data", (0, 2, 4, 10, 11, 12)),
    "beijing": Spec("PRSA_data_2010.1.1-2014.12.31.csv", (4, 5, 6, 7, 9, 10, 11), "pm2.5"),
    "default": Spec("default of credit card clients.csv", (0, 4, *range(11, 23))),
    "diabetes": Spec("diabetic_data.csv", tuple(range(9))),
    "magic": Spec("magic04.data", tuple(range(10))),
    "news": Spec("OnlineNewsPopularity.csv", tuple(range(46)), "shares"),
    "shoppers": Spec("online_shoppers_intention.csv", tuple(range(10))),
}
DIABETES = """num_lab_procedures num_medications number_outpatient number_emergency number_inpatient age
time_in_hospital num_procedures number_diagnoses race gender admission_type_id discharge_disposition_id
admission_source_id diag_1 diag_2 diag_3 max_glu_serum A1Cresult metformin repaglinide nateglinide chlorpropamide
glimepiride glipizide glyburide tolbutamide pioglitazone rosiglitazone acarbose miglitol tolazamide insulin
glyburide-metformin change diabetesMed readmitted"""


def main() -> None:
    """Print one table per data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=[*SPECS])
    parser.add_argument("--folder", type=Path, default=shared_folder("synthetic"))
    every = [*METHODS, "other"]
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=every)
    parser.add_argument("--halves", action="store_true", help="fit to half of the training rows")
    parser.add_argument("--max-time", type=float, help="seconds of training of each model")
    parser.add_argument(
        "--best-time", type=float, default=0.0, help="of denoiser='best'; 0 skips it"
    )
    parser.add_argument("--seed", type=int, default=0, help="of split, fit, draw and folds")
    parser.add_argument("--rows", type=int, help="training rows at most")
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, few rows")
    options = parser.parse_args()
    print(f"{machine()}; detection and utility by {BOOSTING}")
    for name in options.tables:
        table = load(name, options)
        if table is None:
            continue
        sizes = f"{len(table.train)} training and {len(table.test)} test rows"
        same = copies(table.train, table.test)
        n_others = table.train.shape[1] - len(table.numbers)
        print(f"\n## {name}: {len(table.numbers)} numbers, {n_others} categories; {sizes}")
        print(f"{same:.1%} of the test rows equal a training row\n")
        print_lines(HEADER, chain(judged(table, options), published(name)))


def judged(table: Table, options: argparse.Namespace) -> Iterable[list[object]]:
    """The lines of the table."""
    by_real = predictability(table.train, table.test, table.numbers)
    for label, fit in methods(table, options):
        model, fit_seconds = processor_timed(fit)
        drawn, draw_seconds = processor_timed(model.sample, len(table.train), options.seed)
        nats = (
            plus_minus(-model.score_samples(table.test)) if hasattr(model, "score_samples") else ""
        )
        found = detection(table.train, drawn, options.seed)
        held = detection(table.test, drawn.iloc[: len(table.test)], options.seed)
        each = predictability(drawn, table.test, table.numbers) / by_real
        shapes, trends = (score(table.train, drawn, table.numbers) for score in (shape, trend))
        target = utility(
            drawn, table.test, table.target, is_number=table.target in table.numbers
        )  # fmt: skip
        yield [
            label,
            nats,
            f"{found.score:.3f} ± {found.error:.3f}",
            float(found.aucs.mean()),
            float(held.aucs.mean()),
            shapes,
            trends,
            (shapes + trends) / 2,
            weighted_nmi(table.train, drawn, table.numbers),
            target,
            plus_minus(each),
            f"{copies(table.train, drawn):.1%}",
            f"{fit_seconds:.1f}",
            f"{draw_seconds:.1f}",
        ]


def methods(table: Table, options: argparse.Namespace) -> Iterable[tuple[str, Callable[[], Any]]]:
    """Labels, and what fits a model that can draw rows."""

    def ours(max_time: float | None, **parameters: Any) -> Callable[[], Any]:
        time = 1.0 if options.quick else max_time
        return lambda: estimator(time, random_state=options.seed, **parameters).fit(table.train)

    found = {
        "default": ("default", ours(options.max_time)),
        "best": (f"best, {options.best_time:.0f} s", ours(options.best_time, denoiser="best")),
        "mixture": ("mixture", ours(options.max_time, denoiser="mixture")),
        "forest": ("forest", ours(options.max_time, denoiser="forest")),
        "independent": ("independent columns", ours(options.max_time, denoiser="independent")),
        "bootstrap": ("bootstrap of the training rows", lambda: Bootstrap(table.train)),
        "other": ("other real rows", lambda: Bootstrap(table.other, replace=False)),
    }
    for method in options.methods:
        if method != "best" or options.best_time or options.quick:
            yield found[method]


class Bootstrap(NamedTuple):
    """Rows, drawn with replacement or without."""

    rows: pd.DataFrame
    replace: bool = True

    def sample(self, n: int, random_state: int) -> pd.DataFrame:
        """``n`` of the rows, or all."""
        n = n if self.replace else min(n, len(self.rows))
        drawn = self.rows.sample(n, replace=self.replace, random_state=random_state)
        return drawn.reset_index(drop=True)


def published(name: str) -> Iterable[list[object]]:
    """The lines of the published methods."""
    for line in PUBLISHED.strip().splitlines():
        table, method, score, deviation, *others, fit, draw = line.split()
        if table == name:
            shapes, trends, nmi, target = others
            auc, quality = f"{1 - float(score) / 2:.3f}", (float(shapes) + float(trends)) / 2
            label, found = f"{method}, published", f"{score} (s.d. {deviation})"
            middle = [label, "", found, auc, "", shapes, trends, quality, nmi, target]
            yield [*middle, "", "", fit, draw]


# -- the tables -----------------------------------------------------------------------------------


def load(name: str, options: argparse.Namespace) -> Table | None:
    """A table, split; None, with a line saying so, if it is not to be had."""
    spec, random = SPECS[name], np.random.default_rng(options.seed)
    path = options.folder / spec.file
    numbers = spec.numbers
    if name == "adult" and not path.exists():
        print(f"no {path}: adult as in discrete_itd.datasets, without fnlwgt and education.num")
        frame, n_test = load_adult(), 6512
        numbers = tuple(j for j, c in enumerate(frame) if frame[c].dtype.kind in "iu")
    elif not path.exists():
        print(f"skipped {name}: no {path} (see the text at the head of this file)")
        return None
    else:
        frame, n_test = read(name, path)
    order = random.permutation(len(frame))
    if name == "adult" and path.exists():
        order = np.arange(len(frame))  # the published test rows are the last
    train, test = frame.iloc[order[:-n_test]], frame.iloc[order[-n_test:]]
    if name == "diabetes":
        train = train.iloc[: 3 * n_test]  # the rest is for validation, which we do not use
    if options.quick or options.rows:
        train = train.sample(
            min(len(train), 600 if options.quick else options.rows), random_state=0
        )
        test = test.iloc[: 200 if options.quick else None]
    other = train.iloc[1::2] if options.halves else train[:0]
    train = train.iloc[::2] if options.halves else train
    names = [frame.columns[j] for j in numbers]
    text = {c: str for c in frame if c not in names}
    parts = (part.astype(text).reset_index(drop=True) for part in (train, test, other))
    return Table(*parts, names, spec.target or frame.columns[-1])


def read(name: str, path: Path) -> tuple[pd.DataFrame, int]:
    """The rows of a file as tabpc prepares them, and how many of them are for testing."""
    if name == "adult":
        parts = [
            pd.read_csv(path.with_suffix(suffix), header=None, skiprows=skip, skipinitialspace=True)
            for suffix, skip in ((".data", 0), (".test", 1))
        ]
        frame = pd.concat(parts, ignore_index=True).rename(columns=lambda j: f"column {j}")
        frame["column 14"] = frame["column 14"].str.rstrip(".")
        return frame, len(parts[1])
    if name == "magic":
        frame = pd.read_csv(path, header=None)
        if frame.iloc[0].astype(str).str.startswith("f").any():  # a copy with a line of names
            frame = pd.read_csv(path)
        return frame.rename(columns=str), len(frame) - len(frame) * 9 // 10
    frame = pd.read_csv(path)
    if name == "beijing":
        frame = frame.iloc[:, 1:].dropna().astype({"pm2.5": np.int64})
    elif name == "default":
        frame = frame.drop(columns="ID")
    elif name == "news":
        frame = frame.drop(columns="url").rename(columns=str.strip)
        groups = {"data_channel": frame.columns[12:18], "weekday": frame.columns[30:38]}
        choice = {c: frame[of].to_numpy().argmax(1) for c, of in groups.items()}
        frame = frame.drop(columns=[c for of in groups.values() for c in of]).assign(**choice)
    elif name == "diabetes":
        frame = frame[DIABETES.split()].replace("?", np.nan).fillna("empty")
        frame["age"] = pd.factorize(frame["age"], sort=True)[0]
        frame["readmitted"] = (frame["readmitted"] != "NO").astype(int)
        return frame, len(frame) // 5
    return frame, len(frame) - len(frame) * 9 // 10


if __name__ == "__main__":
    main()
