"""Held-out nats per row on tables that mix numbers and categories, beside other density models.

    python -m tests.benchmarks.mixed adult diamonds --max-time 100
    python -m tests.benchmarks.mixed adult --quick

Every table is split into 80 % training, 10 % validation and 10 % test rows by ``--seed``. Whatever a peer has to choose
is chosen on the validation rows; this library gets the training rows alone and holds out its own share of them. The
test rows are scored once by everybody, at most ``--test-rows`` of them.

A number that was recorded in steps has atoms, on which a density can be as large as one likes. So integers are scored
by their mass where a method can do it ("mass"); for all the other methods, and for columns recorded in decimal
steps, noise as wide as the step is added once, before the split ("noise"): its mean log-density is at most the mean
log-mass, in the same units.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tests.benchmarks.baselines import ChowLiuTree
from tests.benchmarks.data import MixedTable, load_mixed
from tests.benchmarks.optional_peers import Trees
from tests.benchmarks.peers import (
    CategoricalMixture,
    Cells,
    Independent,
    Safe,
    binned,
    expectation_maximisation,
    kernel_density,
    one_hot_mixture,
)
from tests.benchmarks.tables import (
    available,
    estimator,
    machine,
    markdown,
    mean_and_error,
    plus_minus,
    timed,
)

OURS = ("default", "continuous")


class Parts(NamedTuple):
    """The three splits of one table, in one form."""

    train: Any
    valid: Any
    test: Any


class Result(NamedTuple):
    """What one method said of the test rows."""

    method: str
    scored: str  # what became of integers
    log_prob: np.ndarray
    fit_seconds: float
    score_seconds: float
    note: str


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=["adult", "diamonds"])
    parser.add_argument("--max-time", type=float, default=100.0, help="seconds of training")
    parser.add_argument(
        "--n-evaluations", type=int, default=128, help="denoiser calls per row of ours"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split and the noise")
    parser.add_argument("--test-rows", type=int, default=3000)
    parser.add_argument(
        "--tree-rows", type=int, default=2000, help="training rows of UnmaskingTrees; 0 skips it"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, small peers")
    options = parser.parse_args()
    print(machine())
    for name in options.tables:
        table = load_mixed(name)
        if table is None:
            continue
        frames, noisy, cells = split(table, options)
        sizes = ", ".join(f"{len(part)} {key}" for key, part in frames._asdict().items())
        n_numbers = len(table.resolution)
        print(
            f"\n## {name}: {n_numbers} numbers, {frames.train.shape[1] - n_numbers} categories; {sizes} rows\n"
        )
        print("\n" + report(list(all_columns(table, frames, noisy, cells, options))))


# -- the splits ---------------------------------------------------------------------------------


def split(table: MixedTable, options: argparse.Namespace) -> tuple[Parts, Parts, Parts]:
    """The splits as frames, as frames whose numbers have noise, and as what the peers take.

    Columns recorded in steps other than integers get their noise in all three.
    """
    random = np.random.default_rng(options.seed)
    frame = table.frame.copy()
    noisy = frame.copy()
    for column, step in table.resolution.items():
        noise = random.uniform(-0.5, 0.5, len(frame)) * step
        noisy[column] = frame[column].to_numpy(np.float64) + noise
        if not is_integer(table.frame[column]):
            frame[column] = noisy[column]
    order = random.permutation(len(frame))
    if options.quick:
        order = order[:3000]
    n = len(order) // 10
    rows = (order[2 * n :], order[n : 2 * n], order[:n][: options.test_rows])
    cells = to_cells(table, frame)
    return (
        Parts(*(frame.iloc[part].reset_index(drop=True) for part in rows)),
        Parts(*(noisy.iloc[part].reset_index(drop=True) for part in rows)),
        Parts(*(cells.take(part) for part in rows)),
    )


def is_integer(column: pd.Series) -> bool:
    return column.dtype.kind in "iu" and column.nunique() < 1000  # prices are numbers


def to_cells(table: MixedTable, frame: pd.DataFrame) -> Cells:
    """Numbers and codes; a category keeps its place in the whole table, as with a declared schema."""
    numbers = list(table.resolution)
    widths = [1.0 if is_integer(frame[c]) else 0.0 for c in numbers]
    others = [frame[c].astype("category").cat for c in frame if c not in numbers]
    return Cells(
        frame[numbers].to_numpy(np.float64),
        np.stack([other.codes.to_numpy(np.intp) for other in others], axis=1),
        np.array(widths),
        tuple(len(other.categories) for other in others),
    )


# -- the methods --------------------------------------------------------------------------------


def all_columns(
    table: MixedTable, frames: Parts, noisy: Parts, cells: Parts, options: argparse.Namespace
) -> Iterable[Result]:
    """Everybody's score of the whole rows."""
    random = np.random.default_rng(options.seed)
    smooth = Parts(*(part.dequantised(random) for part in cells))
    has_integers = bool(cells.train.widths.any())
    mass = "mass" if has_integers else "density"

    for kind in OURS:
        if kind == "default":
            yield ours(kind, frames, None, options)._replace(scored=mass)
        else:
            yield ours(kind, noisy, dict.fromkeys(table.resolution, kind), options)

    independent, seconds = timed(Independent, cells.train, cells.valid)
    log_prob, scoring = timed(independent.log_prob, cells.test)
    yield Result("independent columns", mass, log_prob, seconds, scoring, "best of 6 per number")

    counts = (4, 16) if options.quick else (8, 32, 64)
    yield chosen(
        "mixture of products (EM)", mass, cells, counts, lambda k: fit_em(cells.train, k, True)
    )
    yield chosen(
        "the same, full covariances",
        "noise",
        smooth,
        counts,
        lambda k: fit_em(smooth.train, k, False),
    )
    bins = (16,) if options.quick else (16, 64)
    yield chosen(
        "mixture of products, numbers in bins",
        mass,
        cells,
        [(n, k) for n in bins for k in counts],
        lambda how: binned(cells.train, how[0], CategoricalMixture(how[1])),
    )
    yield chosen(
        "Chow-Liu tree, numbers in bins",
        mass,
        cells,
        [(n, alpha) for n in bins for alpha in (0.01, 0.1, 0.5)],
        lambda how: binned(cells.train, how[0], ChowLiuTree(how[1])),
    )
    yield chosen(
        "GaussianMixture on one-hot, renormalised",
        mass,
        cells,
        [(k, floor) for k in counts for floor in (0.01, 0.1, 0.3)],
        lambda how: one_hot_mixture(cells.train, how[0], floor=how[1]),
    )
    n_rows = 500 if options.quick else 5000
    yield chosen(
        f"kernel density, {n_rows} rows",
        mass,
        cells,
        [(h, c) for h in (0.05, 0.1, 0.2, 0.4) for c in (0.3, 0.4, 0.5, 0.7)],
        lambda how: kernel_density(cells.train, *how, n_rows=n_rows),
    )
    if options.tree_rows and available("utrees"):
        n_rows = 200 if options.quick else options.tree_rows
        model = Trees(n_rows=n_rows, duplicates=1 if options.quick else 5)
        _, seconds = timed(model.fit, smooth.train)
        log_prob, scoring = timed(model.log_prob, smooth.test)
        yield Result("UnmaskingTrees", "noise", log_prob, seconds, scoring, f"fit on {n_rows} rows")


def ours(kind: str, frames: Parts, columns: Any, options: argparse.Namespace) -> Result:
    """This library with one kind for the numbers."""
    model = estimator(options.max_time, quick=options.quick, column_types=columns)
    if not options.quick:
        model.set_params(n_evaluations=options.n_evaluations)
    _, seconds = timed(model.fit, frames.train)
    estimate, scoring = timed(model.log_prob, frames.test)
    steps = int(model.history_["step"].max())
    note = f"{steps} steps, estimator error {estimate.stderr.mean():.3f} a row"
    label = f"discrete_itd, {'numbers as inferred' if kind == 'default' else kind}"
    return Result(label, "noise", estimate.log_prob, seconds, scoring, note)


def fit_em(rows: Cells, n_components: int, diagonal: bool) -> Any:
    return expectation_maximisation(rows, n_components, diagonal=diagonal)


def chosen(
    method: str, scored: str, cells: Parts, settings: Iterable[Any], fit: Callable[[Any], Any]
) -> Result:
    """Fit every setting, keep the best on (at most 1000) validation rows, score the test rows.

    A thousandth of every model's mass is that of independent columns: on a table with outliers a Gaussian mixture
    would otherwise be judged by a row or two.
    """
    held = cells.valid.take(slice(1000))
    independent = Independent(cells.train, cells.valid)

    def search() -> tuple[float, Any, Any]:
        tried = []
        for setting in settings:
            model = Safe(fit(setting), independent)
            tried.append((float(model.log_prob(held).mean()), setting, model))
        return max(tried, key=lambda one: one[0])

    (_, setting, model), seconds = timed(search)
    log_prob, scoring = timed(model.log_prob, cells.test)
    return Result(method, scored, log_prob, seconds, scoring, f"chosen: {setting}")


def report(results: list[Result]) -> str:
    """A table; differences are paired by row, to the first method."""
    base = results[0]
    rows = []
    for one in results:
        nats, error = mean_and_error(-one.log_prob)
        worse = "" if one is base else plus_minus(base.log_prob - one.log_prob)
        seconds = (f"{one.fit_seconds:.0f}", f"{one.score_seconds:.1f}")
        rows.append([one.method, one.scored, nats, error, worse, *seconds, one.note])
    header = ["method", "integers", "nats", "s.e.", "worse than the first by"]
    return markdown([*header, "s to fit", "s to score", "note"], rows)


if __name__ == "__main__":
    main()
