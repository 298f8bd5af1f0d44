"""Which column is to blame: rows with one corrupted cell, and how high each method ranks its column.

    python -m tests.benchmarks.explanations                        # adult, mushroom, car; bank and u2r if there
    python -m tests.benchmarks.explanations car --max-time 30 --rows 500
    python -m tests.benchmarks.explanations car --quick

Models are fitted on 80 % of a table's rows. Of the others, 1000 have one cell replaced by a value drawn from the
training rows' column that differs; the column is any one that varies. Every method gives every column of such a row
a number; "first" is how often the corrupted column has the largest (a tie counts its part), "AUROC" the chance that it
has a larger one than another column of the same row. Many corruptions make no odd row, so 100 is out of reach.

- pooled doubt: the log-odds that this cell is the wrong one (:func:`discrete_itd.detection.reasons.cell_nats`) under
  the pooled score, by which ``reasons`` of a detector ranks;
- doubt: the same under the log-probability alone, of the same fitted density;
- given the rest: the cell's surprisal given the other cells under the log-probability, and less its expectation;
- share: ``explain`` of the density, the row's surprisal split by column;
- independent columns: each cell's own surprisal, from a density that has not been trained;
- ECOD: its scores per dimension (PyOD; a column per category, which are summed, and numbers as they are);
- SHAP: Shapley values of scikit-learn's IsolationForest on the same columns (package shap), summed likewise.

Results are kept in ``.cache/explanations`` as they come.
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import OneHotEncoder

from discrete_itd import DiffusionDensity
from discrete_itd.datasets import load_adult, load_car, load_mushroom
from discrete_itd.detection.reasons import cell_nats
from discrete_itd.detection.scoring import Scorer
from tests.benchmarks.data import categorical_names, load_categorical
from tests.benchmarks.detectors import untrained
from tests.benchmarks.tables import (
    available,
    estimator,
    keep,
    kept,
    machine,
    markdown,
    mean_and_error,
    timed,
)

Blame = Callable[[pd.DataFrame], NDArray[np.float64]]
OWN = {"adult": load_adult, "mushroom": load_mushroom, "car": load_car}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="those above by default")
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of training")
    parser.add_argument("--n-evaluations", type=int, default=128)
    parser.add_argument("--rows", type=int, default=1000, help="corrupted rows")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--label", default="", help="of this version of ours, in the cache")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--quick", action="store_true", help="a few steps, few rows")
    options = parser.parse_args()
    here = categorical_names()
    names = options.tables or [*OWN, *(name for name in ("bank", "u2r") if name in here)]
    packages = {"ECOD": "pyod", "SHAP": "shap"}
    methods = [m for m in options.methods if m not in packages or available(packages[m])]
    print(machine())
    print()
    header = ["table", "columns", "method", "first, %", "AUROC × 100", "s per 1000 rows"]
    print("\n".join(markdown(header, [[""] * len(header)]).splitlines()[:2]), flush=True)
    for name in names:
        for row in _compare(name, methods, options):
            print(markdown(header, [row]).splitlines()[2], flush=True)


def _compare(name: str, methods: list[str], options: argparse.Namespace):
    """The rows of one table."""
    frame = OWN[name]() if name in OWN else load_categorical(name)[0]
    frame = frame.sample(frac=1.0, random_state=0, ignore_index=True)
    if options.quick:
        frame = frame[:400]
    n_train = round(0.8 * len(frame))
    train = frame[:n_train]
    n_rows = 50 if options.quick else options.rows
    rows, column = corrupted(train, frame[n_train:][:n_rows].reset_index(drop=True), seed=0)
    chance = 100 / train.shape[1]
    yield [name, train.shape[1], "chance", f"{chance:.1f}", "50.0", ""]
    models = _Models(train, options)
    effort = "quick" if options.quick else f"{len(rows)}rows"
    for method in methods:
        slug = f"{method}-{options.max_time:g}s-{options.n_evaluations}-{options.label}"
        key = f"{slug if method in OURS else method}-{effort}"
        known = {} if options.fresh or options.quick else kept(f"explanations/{name}")
        if key not in known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what PyOD and shap import
                blame, seconds = timed(METHODS[method](models), rows)
            first, auroc = (100 * part for part in found(blame, column))
            known[key] = {
                "first": mean_and_error(first),
                "auroc": mean_and_error(auroc),
                "seconds": 1000 * seconds / len(rows),
            }
            keep(f"explanations/{name}", key, known[key])
        entry = known[key]
        cells = ("{:.1f} ± {:.1f}".format(*entry[part]) for part in ("first", "auroc"))
        yield [name, train.shape[1], method, *cells, f"{entry['seconds']:.1f}"]


def corrupted(
    train: pd.DataFrame, rows: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """The rows with one cell of each replaced by a training row's that differs, and in which column, (N,)."""
    random = np.random.default_rng(seed)
    both = pd.concat([train, rows], ignore_index=True)
    codes = np.stack([pd.factorize(both[name])[0] for name in both], axis=1)
    known = codes[: len(train)]
    varied = np.flatnonzero((known != known[0]).any(0))
    column = random.choice(varied, len(rows))
    source = np.tile(np.arange(len(train), len(both)), (codes.shape[1], 1)).T
    for i, j in enumerate(column):
        others = np.flatnonzero(known[:, j] != codes[len(train) + i, j])
        source[i, j] = random.choice(others)
    cells = {name: both[name].array.take(source[:, j]) for j, name in enumerate(both)}
    return pd.DataFrame(cells), column


def found(blame: NDArray, column: NDArray[np.intp]) -> tuple[NDArray, NDArray]:
    """Whether the corrupted column is first, (N,), and the share of the others below it, (N,); ties count in part."""
    own = np.take_along_axis(blame, column[:, None], 1)
    above = (blame > own).sum(1)
    level = (blame == own).sum(1)  # with itself
    below = blame.shape[1] - above - level
    first = np.where(above == 0, 1 / level, 0.0)
    return first, (below + (level - 1) / 2) / (blame.shape[1] - 1)


# -- methods: fitted models to a function from rows to blame, shape (N, C) ----------------------


class _Models:
    """The training rows and what is fitted on them, when it is first asked for."""

    def __init__(self, train: pd.DataFrame, options: argparse.Namespace) -> None:
        self.train, self.options = train, options

    @functools.cached_property
    def density(self) -> DiffusionDensity:
        """The library's density."""
        options = self.options
        density = estimator(options.max_time, quick=options.quick)
        if not options.quick:
            density.set_params(n_evaluations=options.n_evaluations)
        return density.fit(self.train)

    @functools.cached_property
    def encoder(self) -> ColumnTransformer:
        """A column per category, numbers as they are."""
        numbers = list(self.train.select_dtypes("number").columns)
        categories = [name for name in self.train if name not in numbers]
        one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        parts = [("categories", one_hot, categories), ("numbers", "passthrough", numbers)]
        return ColumnTransformer(parts).fit(self.train.astype(object))

    def encode(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """What the peers see, shape (N, D)."""
        return np.asarray(self.encoder.transform(rows.astype(object)), dtype=np.float64)

    def summed(self, values: NDArray) -> NDArray[np.float64]:
        """Values of encoded columns, shape (N, D), added up per column of the table, (N, C)."""
        parts = {name: columns for name, _, columns in self.encoder.transformers_}
        one_hot = self.encoder.named_transformers_["categories"]
        sizes = [len(levels) for levels in one_hot.categories_] if parts["categories"] else []
        names = [*np.repeat(parts["categories"], sizes), *parts["numbers"]]
        total = np.zeros((len(values), self.train.shape[1]))
        np.add.at(total.T, self.train.columns.get_indexer(names), values.T)
        return total


def _doubt(models: _Models) -> Blame:
    density = models.density
    return lambda rows: cell_nats(density, rows).error_log_odds.to_numpy()


def _pooled_doubt(models: _Models) -> Blame:
    density = models.density
    scorer = Scorer.pooled(density, density.rows(models.train), 0)
    return lambda rows: cell_nats(scorer, rows).error_log_odds.to_numpy()


def _given_rest(models: _Models) -> Blame:
    density = models.density
    return lambda rows: cell_nats(density, rows).given_others.to_numpy()


def _unexpected(models: _Models) -> Blame:
    density = models.density

    def blame(rows: pd.DataFrame) -> NDArray:
        nats = cell_nats(density, rows)
        return (nats.given_others - nats.entropy).to_numpy()

    return blame


def _share(models: _Models) -> Blame:
    density = models.density
    return lambda rows: density.explain(rows).to_numpy()


def _independent(models: _Models) -> Blame:
    density = untrained().fit(models.train)
    return lambda rows: density.explain(rows).to_numpy()


def _ecod(models: _Models) -> Blame:
    from pyod.models.ecod import ECOD

    model = ECOD().fit(models.encode(models.train))

    def blame(rows: pd.DataFrame) -> NDArray:
        model.decision_function(models.encode(rows))
        return models.summed(model.O[-len(rows) :])  # training rows come first

    return blame


def _shap(models: _Models) -> Blame:
    import shap

    forest = IsolationForest(random_state=0).fit(models.encode(models.train))
    explainer = shap.TreeExplainer(forest)
    # They add up to the depth at which a row is alone, and the odd are shallow.
    return lambda rows: models.summed(-explainer.shap_values(models.encode(rows)))


METHODS: dict[str, Callable[[_Models], Blame]] = {
    "pooled doubt": _pooled_doubt,
    "doubt": _doubt,
    "given the rest": _given_rest,
    "given the rest, less expected": _unexpected,
    "share": _share,
    "independent columns": _independent,
    "ECOD": _ecod,
    "SHAP": _shap,
}
OURS = ("pooled doubt", "doubt", "given the rest", "given the rest, less expected", "share")


if __name__ == "__main__":
    main()
