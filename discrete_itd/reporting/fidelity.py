"""How well drawn rows imitate real ones; beside every number stands that of real rows in their place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.rows import distinct
from discrete_itd.reading.frames import read_rows
from discrete_itd.validation import seed_of

N_FOLDS = 5  # folds of the classifier that tells drawn from real rows
MIN_ROWS = 10 * N_FOLDS  # fewest rows of a table to compare
BINS = 10  # quantile bins of a number in distances
DISTANCE_LEVELS = 50  # most levels of a nominal column in distances; rarer ones are pooled
AUC_LEVELS = 255  # most levels of a nominal column for the classifier; rarer ones are pooled
MOST_TABLE_ROWS = 10_000  # most rows of each table that are compared; all are searched for repeats
DISTANCES = ["distance_drawn", "distance_real"]


@dataclass(frozen=True)
class TableComparison:
    """The result of :func:`compare_tables`; it prints as a table and two sentences.

    Attributes
    ----------
    summary : DataFrame
        The numbers that are printed, of drawn rows and of real rows in their place. ``AUC`` is the probability that an
        out-of-fold classifier picks such a row beside an unseen real row: 0.5 is guessing, 1 is certainty. Its standard
        error is over rows.
    columns, pairs : DataFrame
        For each column, and every two, the worst first: ``distance_drawn`` and ``distance_real`` from unseen real rows.
        The distance is the total variation, the share of rows that would have to change: of categories, or of numbers
        in ten bins with the edges apart; a missing cell is a value. ``columns`` also has the shares of missing cells,
        ``gaps_drawn``, ``gaps_real`` and, in the unseen rows, ``gaps_others``.
    """

    summary: pd.DataFrame
    columns: pd.DataFrame
    pairs: pd.DataFrame

    def __str__(self) -> str:
        table = 100 * self.summary.to_numpy()
        drawn, real = (f"{auc:.1f} ± {error:.1f} %" for auc, error in table[:2].T)
        return (
            f"{self.summary.round(3).to_string()}\n"
            f"Boosted trees find the drawn one of a drawn and a real row in {drawn} of cases; guessing is 50 %, and"
            f" real rows in place of drawn ones are found in {real}.\n"
            f"{table[-1, 0]:.1f} % of the drawn rows equal a row that was fitted to; of other real rows,"
            f" {table[-1, 1]:.1f} %."
        )


def compare_tables(
    real: Any, drawn: Any, others: Any = None, *, random_state: Any = None
) -> TableComparison:
    """How well drawn rows imitate real ones; beside every number stands that of real rows in their place.

    Parameters
    ----------
    real : DataFrame or array-like, shape (N, C)
        The rows that a model was fitted to.
    drawn : DataFrame or array-like, shape (M, C)
        Rows drawn from it, or made by any other means. Columns that it lacks, identifiers and free text do not count.
    others : DataFrame or array-like, shape (L, C), optional
        Real rows that the model has not seen, with which drawn and real rows are compared. By default a random half of
        the real rows takes their place, though the model was fitted to it: rows that follow it too closely, like
        copies, have an AUC below 0.5. Repeats of a real row are then sought among all other real rows.
    random_state : int, RandomState or None
        Seed of halves and folds, and of the rows used where drawn and real rows are not equally many.

    Returns
    -------
    TableComparison

    Raises
    ------
    ValueError, TypeError
        Naming the table that has too few rows, or the column that it lacks.

    Notes
    -----
    Distances of single columns are near their end for any model, also for columns drawn independently of one another.
    The classifier sees all columns of a row together.

    Examples
    --------
    >>> from discrete_itd import DiffusionDensity, datasets
    >>> cars = datasets.load_car()
    >>> independent = DiffusionDensity(denoiser="independent", random_state=0).fit(cars)
    >>> found = compare_tables(cars, independent.sample(1728, random_state=0), random_state=0)
    >>> found.summary.loc[["AUC"]].round(1)
         drawn rows  real rows
    AUC         0.7        0.5
    >>> found.pairs.index[0]
    ('safety', 'class')
    """
    random = np.random.default_rng(seed_of(random_state))
    tables = {"real": real, "drawn": drawn, "others": others}
    tables = {name: X for name, X in tables.items() if X is not None}
    frames, x, nominal, names = encoded_tables(tables, compare_tables)
    ends = np.cumsum([len(f) for f in frames.values()])[:-1]
    known, *asked = np.split(distinct(x)[1], ends)  # equal rows have one number
    repeats = [np.isin(rows, known).mean() for rows in asked]
    x_real, x_drawn, *unseen = np.split(x, ends)
    if not unseen:
        repeats.append((np.bincount(known)[known] > 1).mean())
        x_real, *unseen = np.array_split(random.permutation(x_real), 2)
    unseen = random.permutation(unseen[0])[:MOST_TABLE_ROWS]
    n = min(len(x_drawn), len(x_real), MOST_TABLE_ROWS)
    both = [random.permutation(rows)[:n] for rows in (x_drawn, x_real)]
    columns, pairs = _distances(unseen, both, nominal, names)
    auc, error = zip(*(_recognised(unseen, rows, nominal, random) for rows in both), strict=True)
    lines: dict[str, Any] = {"AUC": auc, "standard error of AUC": error}
    for what, table in {"a column": columns, "two columns": pairs}.items():
        lines[f"distance of {what}, mean"] = table[DISTANCES].mean()
        for name, line in table[DISTANCES].head(2).iterrows():
            shown = ", ".join(map(str, name)) if isinstance(name, tuple) else name
            lines[f"distance of {what}, {shown}"] = line
    differences = columns[["gaps_drawn", "gaps_real"]].sub(columns["gaps_others"], axis=0).abs()
    lines["largest difference of a share of gaps"] = differences.max()
    lines["share of rows that were fitted to"] = repeats
    heads = ["drawn rows", "real rows"]
    table = [np.asarray(line, dtype=float) for line in lines.values()]
    return TableComparison(pd.DataFrame(table, [*lines], heads), columns, pairs)


def encoded_tables(
    tables: Mapping[str, Any], reader: Callable[..., Any], fewest_drawn: int = MIN_ROWS
) -> tuple[dict[str, pd.DataFrame], np.ndarray, np.ndarray, list[Hashable]]:
    """Tables of the same columns as frames, and one below the other as codes and numbers (N, C), NaN where missing.

    Also which columns are nominal, (C,), with the most frequent category as 0, and their names. Columns are those of
    the table "drawn", without identifiers and free text. A clock (24) is the number of its steps, for tables of other
    weeks are not alike. ``reader`` is the function that has been called; fewer rows than MIN_ROWS, or
    ``fewest_drawn``, are refused.
    """
    frames = {name: read_rows(X, reader, fewest=0)[0] for name, X in tables.items()}
    names = [*frames["drawn"]]
    for table, frame in frames.items():
        fewest = fewest_drawn if table == "drawn" else MIN_ROWS
        if len(frame) < fewest:
            raise ValueError(f"{table} has {len(frame)} rows; a comparison needs {fewest}")
        for name in names:
            if name not in frame:
                raise ValueError(f"column {name!r}: of drawn, {table} lacks it")
    whole = pd.concat([f.loc[:, names] for f in frames.values()], ignore_index=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit of the model has warned of the columns
        encoder = TableEncoder.fit(whole, leave_out=True)
        encoded = encoder.readable(whole)
    x = encoded.cells.x[:, : encoder.n_columns]  # without parts of clocks
    nominal = np.array([not column.is_ordered for column in encoder.schema])
    if encoder.times is not None and encoded.clock is not None:
        clock = encoder.times.clock
        x[:, clock], nominal[clock] = encoded.clock, False
    for j in np.flatnonzero(nominal):
        is_known = ~np.isnan(x[:, j])
        level, rows = np.unique(x[is_known, j], return_inverse=True, return_counts=True)[1:]
        x[is_known, j] = rankdata(-rows, method="ordinal")[level] - 1
    return frames, x, nominal, encoder.names


def _recognised(
    real: np.ndarray, drawn: np.ndarray, nominal: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    """AUC of boosted trees that tell drawn from real rows, out of fold, and its standard error.

    The variance is that of each row's share of rows of the other kind that score lower (DeLong et al., Biometrics 44,
    1988).
    """
    x = np.concatenate([real, drawn])
    x[:, nominal] = np.minimum(x[:, nominal], AUC_LEVELS - 1)
    is_drawn = np.repeat([False, True], [len(real), len(drawn)])
    above, seed = np.zeros(len(x)), int(random.integers(2**31))
    for train, test in StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(x, is_drawn):
        how: Any = {"categorical_features": nominal, "random_state": seed}
        trees = HistGradientBoostingClassifier(**how)
        score = trees.fit(x[train], is_drawn[train]).predict_proba(x[test])[:, 1]
        rank = rankdata(score)
        for kind in (False, True):
            is_kind = is_drawn[test] == kind
            above[test[is_kind]] = (rank[is_kind] - rankdata(score[is_kind])) / (~is_kind).sum()
    variances = [above[is_drawn == kind].var() / (is_drawn == kind).sum() for kind in (False, True)]
    return float(above[is_drawn].mean()), float(np.sqrt(sum(variances)))


def _distances(
    unseen: np.ndarray, both: list[np.ndarray], nominal: np.ndarray, names: list[Hashable]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``columns`` and ``pairs`` of a :class:`TableComparison`."""
    whole = np.concatenate([unseen, *both])
    codes = np.minimum(whole, DISTANCE_LEVELS)
    for j in np.flatnonzero(~nominal):
        values = unseen[~np.isnan(unseen[:, j]), j]
        places = np.linspace(0, len(values) - 1, BINS + 1).astype(int)
        edges = np.unique(np.sort(values)[places]) if len(values) else values
        sides = (np.searchsorted(edges, whole[:, j], side) for side in ("left", "right"))
        codes[:, j] = sum(sides)  # even between two edges, odd on an edge
    codes[np.isnan(whole)] = -1
    codes, ends = codes.astype(np.int64) + 1, np.cumsum([len(unseen), len(both[0])])

    def table(parts: dict[Any, np.ndarray]) -> pd.DataFrame:
        split = (np.split(part, ends) for part in parts.values())
        distances = [[total_variation(a, b) for b in rows] for a, *rows in split]
        return pd.DataFrame(distances, pd.Index([*parts]), DISTANCES)

    columns = table(dict(zip(names, codes.T, strict=True)))
    for name, rows in {"gaps_drawn": both[0], "gaps_real": both[1], "gaps_others": unseen}.items():
        columns[name] = np.isnan(rows).mean(0)
    n = codes.max() + 1
    pairs = combinations(zip(names, codes.T, strict=True), 2)
    pairs = table({(a, b): one * n + other for (a, one), (b, other) in pairs})
    worst = [(t["distance_drawn"] - t["distance_real"]).argsort()[::-1] for t in (columns, pairs)]
    return columns.iloc[worst[0]], pairs.iloc[worst[1]]


def total_variation(a: Any, b: Any) -> float:
    """Total variation of values (N,) and (M,): half the sum of absolute differences of their shares."""
    codes = np.unique(np.concatenate([a, b]), return_inverse=True)[1]
    shares = [
        np.bincount(part, minlength=codes.max() + 1) / len(part)
        for part in np.split(codes, [len(a)])
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
