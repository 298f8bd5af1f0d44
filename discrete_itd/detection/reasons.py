"""Why a row is anomalous: which cells, compared with inliers, with their predicted values, and with each other.

All functions take the score to explain: a :class:`discrete_itd.detection.scoring.Scorer`, or a fitted density, whose
score is the log-probability.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch

from discrete_itd.detection.assessment import (
    CellAssessment,
    assess,
    most_doubtful,
    pairwise_changes,
)
from discrete_itd.detection.distributions import Expected
from discrete_itd.detection.drift import as_shares
from discrete_itd.detection.scoring import Scorer, scorer_of
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.threads import threads_for
from discrete_itd.validation import check_integer

LEAST_NATS = 0.05  # a sentence rounds fewer to nothing


class CellNats(NamedTuple):
    r"""Surprisal of each cell: four tables of shape (N, C), with the index and the columns of the rows, in nats.

    Attributes
    ----------
    given_others : DataFrame
        :math:`-\log P(x_j | x_{-j})`, the surprisal given all other cells of the row; for continuous columns minus a
        log-density in the column's unit. 0 where the cell is missing.
    entropy : DataFrame
        Entropy of that conditional distribution, which is the expected surprisal. 0 where the cell is missing.
    marginal : DataFrame
        :math:`-\log \pi_j(x_j)`, the surprisal of the value in its column, whatever the other cells.
    error_log_odds : DataFrame
        Log-odds that this cell is wrong, up to a constant of the row; minus infinity where it is missing. Cells are
        ranked by it; see :func:`discrete_itd.detection.assessment.assess`.
    """

    given_others: pd.DataFrame
    entropy: pd.DataFrame
    marginal: pd.DataFrame
    error_log_odds: pd.DataFrame


def cell_nats(model: DiffusionDensity | Scorer, X: Any) -> CellNats:
    """Surprisal of each cell given the other cells of its row, its expectation, and the log-odds of an error.

    One denoiser call per row and column; nothing is drawn at random.

    Parameters
    ----------
    model : DiffusionDensity or Scorer
        Fitted.
    X : DataFrame, array-like or Rows, shape (N, C)

    Returns
    -------
    CellNats
        Where missingness is modelled, a cell is its missingness indicator and, if it is present, its value.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if it is absent from the table or holds a value that its kind cannot take.

    Examples
    --------
    >>> coin = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(coin)
    >>> nats = cell_nats(model, pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]}))
    >>> (nats.given_others - nats.entropy).gt(1)["b"].tolist()
    [False, True]
    """
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    found = assess(scorer, rows.unique)
    given, entropy, marginal, log_odds = (t[rows.inverse] for t in found[:4])
    log_volume = rows.log_volume[:, : rows.encoder.n_columns]
    tables = (given - log_volume, entropy, marginal - log_volume, log_odds)
    return CellNats(*map(rows.table, tables))


def expected(
    model: DiffusionDensity | Scorer,
    X: Any,
    columns: Iterable[Hashable] | None = None,
    *,
    k: int | None = None,
    n_values: int = 3,
) -> pd.DataFrame:
    """The values that the other cells of a row predict for its cells.

    Parameters
    ----------
    model : DiffusionDensity or Scorer
        Fitted.
    X : DataFrame, array-like or Rows, shape (N, C)
    columns : names (positions, for an array) of columns, optional
        Columns to predict; by default all that are not given.
    k : int, optional
        Only the k cells of each row with the largest log-odds of an error (:class:`CellNats`); by default all.
    n_values : int
        Number of predicted values per cell.

    Returns
    -------
    DataFrame
        One line per predicted value, a row's most doubtful cell first: ``row`` (the index of X), ``column``, ``value``
        (the observed one), ``rank`` (1 for the most probable), ``expected``, ``probability``, ``low``, ``high``. For
        categories, ``probability`` is that of ``expected``. For numbers (all but ordinal ones of few values)
        ``expected`` is the median, and ``probability`` that of the interval from ``low`` to ``high``: 80 %, for whole
        numbers at least. Where missingness is modelled, a predicted missing cell is None. Missing cells are predicted
        too.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if the model has none of that name, it is absent from the table or holds a value that its
        kind cannot take.
    """
    check_integer("n_values", n_values, 1)
    scorer = scorer_of(model)
    names = scorer.density.encoder_.names
    free = [name for j, name in enumerate(names) if j not in scorer.given]
    wanted = free if columns is None else _names(columns)
    for name in wanted:
        if name not in names:
            raise ValueError(f"column {name!r}: the model has no such column")
    if k is not None:
        check_integer("k", k, 1)
    rows = scorer.density.rows(X)
    if not len(rows):
        return expected(scorer, rows.blank(), columns, k=k, n_values=n_values).head(0)
    found = assess(scorer, rows.unique, n_values)
    among = np.array([names.index(n) for n in wanted], dtype=np.int64)
    order = np.argsort(-found.error_log_odds[:, among], axis=1, kind="stable")[:, :k]
    cells = among[order]
    row = np.repeat(np.arange(len(rows)), cells.shape[1] * n_values)
    column = np.repeat(cells[rows.inverse].ravel(), n_values)
    rank = np.tile(np.arange(n_values), len(row) // n_values)
    lines = pd.DataFrame(
        _lines(rows, row, column, rank) | _predictions(rows, found, row, column, rank)
    )
    return cast(pd.DataFrame, lines[lines["probability"].notna()]).reset_index(drop=True)


def _names(columns: Iterable[Hashable]) -> list[Hashable]:
    return [columns] if isinstance(columns, str | int | np.integer) else list(columns)


def _lines(rows: Rows, row: np.ndarray, column: np.ndarray, rank: np.ndarray) -> dict[str, Any]:
    """Row, column, observed value and rank of each of L cells, given by position, (L,) each."""
    cells = {j: rows.frame.iloc[:, j].astype(object).to_numpy() for j in np.unique(column)}
    names = rows.frame.columns
    return {
        "row": rows.index[row],
        "rank": rank + 1,
        "column": _objects(names[j] for j in column),
        "value": _objects(cells[j][i] for i, j in zip(row, column, strict=True)),
    }


def _predictions(
    rows: Rows, found: CellAssessment, row: np.ndarray, column: np.ndarray, rank: np.ndarray
) -> dict[str, pd.Series]:
    """The predictions in each of L cells, given by position, (L,) each."""
    at = list(zip(column.tolist(), rows.inverse[row].tolist(), rank.tolist(), strict=True))
    told = {f: [getattr(found.expected[j], f)[u, n] for j, u, n in at] for f in Expected._fields}
    probability = pd.Series(told.pop("probability"), dtype=float)
    value, low, high = (_objects(t) for t in told.values())
    return {"expected": value, "probability": probability, "low": low, "high": high}


def _objects(values: Iterable[Any]) -> pd.Series:
    return pd.Series(list(values), dtype=object)


# -- the table of reasons -------------------------------------------------------------------------


def reasons(
    model: DiffusionDensity | Scorer,
    X: Any,
    inlier_nats: pd.DataFrame,
    k: int = 3,
    *,
    nats: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The most doubtful cells of each row, compared with inliers, with their predicted values, and with each other.

    Parameters
    ----------
    model : DiffusionDensity or Scorer
        Fitted.
    X : DataFrame, array-like or Rows, shape (N, C)
    inlier_nats : DataFrame, shape (n, C), nats
        Nats by column of inliers that were not used in the fit. A share of exactly 0, or NaN, is taken for that of a
        missing cell and not counted.
    k : int
        Maximal number of cells per row; missing cells are left out.
    nats : DataFrame, shape (N, C), optional
        Nats by column of X, if they are known already.

    Returns
    -------
    DataFrame
        One line per cell, a row's most doubtful first:

        * ``row`` (the index of X), ``rank`` (1 for the most doubtful), ``column``, ``value``;
        * ``nats``, the cell's share of the row's surprisal; ``mean_inlier_nats``, its mean over inliers;
          ``excess_nats``, the difference; ``p_value``, the share of inliers with at least as many, the row itself
          counted among them: for an inlier at most p with probability at most p;
        * ``error_probability``, the probability that this cell is wrong if exactly one cell of the row is, and all were
          equally likely to be a priori;
        * ``expected``, ``probability``, ``low``, ``high``: the prediction from the other cells, see :func:`expected`;
        * ``conflict_column``, ``conflict_value``, ``conflict_nats``: the other column that increases this cell's
          surprisal most, its value, and by how much, see :func:`pairwise`; None and at most 0 where none does.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if it is absent from the table or from ``inlier_nats``, or holds a value that its kind
        cannot take.

    Notes
    -----
    Cells are ranked by the log-odds of an error (:func:`discrete_itd.detection.assessment.assess`), not by their
    share of the score: where one cell of held-out rows was replaced, the log-odds find it more often than the share,
    the surprisal given the other cells, or that in excess of its entropy do
    (``python -m tests.benchmarks.explanations``).
    """
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    place = np.zeros(len(rows), dtype=np.int64)
    return reasons_in_groups(scorer, rows, [inlier_nats], place, k, nats=nats)[0]


def reasons_in_groups(
    scorer: Scorer,
    rows: Rows,
    inlier_nats: Sequence[pd.DataFrame],
    place: np.ndarray,
    k: int = 3,
    *,
    nats: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """As :func:`reasons`, each row compared with inliers of its own.

    Parameters
    ----------
    scorer : Scorer
        No cell of a column that is given is among the reasons.
    rows : Rows, length N
    inlier_nats : sequence of DataFrames, shape (n, C) each, nats
        Of several sets of inliers.
    place : ndarray of int, shape (N,)
        Which of them each row is compared with.
    k, nats
        As for :func:`reasons`.

    Returns
    -------
    DataFrame, ndarray
        The table with L lines, and the position of the row of each line, (L,).
    """
    check_integer("k", k, 1)
    if not len(rows):  # nor has a row without values a reason
        return reasons_in_groups(scorer, rows.blank(), inlier_nats, np.zeros(1, np.int64), k)
    shares = (scorer.nats(rows) if nats is None else nats).to_numpy()
    of_inliers = [[t[t != 0] for t in as_shares(own, rows.encoder.names).T] for own in inlier_nats]
    with threads_for(len(rows.unique)):
        log_odds, cells, predicted = most_doubtful(scorer, rows.unique, k)
        # the column that increases the surprisal of each cell most, and by how much: (U, C)
        largest = [(t.argmax(2), t.max(2)) for t in pairwise_changes(scorer, rows.unique, cells)]
    other, by = map(np.concatenate, zip(*largest, strict=True))
    present = np.take_along_axis(log_odds, cells, 1)[rows.inverse] > -np.inf
    row, rank = np.nonzero(present)
    u = rows.inverse[row]
    column = cells[u, rank]
    own = shares[row, column]
    usual = [of_inliers[i][j] for i, j in zip(place[row], column, strict=True)]
    means = np.array([float(t.mean()) if len(t) else 0.0 for t in usual])
    at_least = [np.count_nonzero(t >= s) for t, s in zip(usual, own, strict=True)]
    by = by[u, column]
    conflict = _lines(rows, row, other[u, column], rank)
    lines = _lines(rows, row, column, rank) | {
        "nats": own,
        "mean_inlier_nats": means,
        "excess_nats": own - means,
        "p_value": [(1 + n) / (1 + len(t)) for n, t in zip(at_least, usual, strict=True)],
        "error_probability": torch.softmax(torch.from_numpy(log_odds), 1).numpy()[u, column],
        "expected": _objects(predicted.value[u, rank]),
        "probability": predicted.probability[u, rank],
        "low": _objects(predicted.low[u, rank]),
        "high": _objects(predicted.high[u, rank]),
        "conflict_column": conflict["column"].mask(by <= 0, None),
        "conflict_value": conflict["value"].mask(by <= 0, None),
        "conflict_nats": by,
    }
    return pd.DataFrame(lines), row


def pairwise(model: DiffusionDensity | Scorer, X: Any) -> pd.DataFrame:
    r"""By how much each other cell increases a cell's surprisal: :math:`\log P(x_j) - \log P(x_j | x_i)` of all pairs.

    Parameters
    ----------
    model : DiffusionDensity or Scorer
        Fitted.
    X : DataFrame, array-like or Rows, shape (N, C)

    Returns
    -------
    DataFrame, shape (N C, C), nats
        A line per cell, indexed by the row's index and the column j; a column per other column i. Positive where the
        value of i makes that of j less probable than it is in its column; approximately symmetric for a good model.
        0 for a cell and itself, and for missing cells. Where missingness is modelled, the indicator of j is compared
        given that of i, and then the values, given all indicators of the row.
    """
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    changes = np.concatenate(list(pairwise_changes(scorer, rows.unique)))
    names, own = rows.frame.columns, rows.index
    levels = [own.get_level_values(i).repeat(len(names)) for i in range(own.nlevels)]
    called = ["row"] if own.nlevels == 1 else [f"row {i}" for i in range(own.nlevels)]
    index = pd.MultiIndex.from_arrays(
        [*levels, np.tile(names.to_numpy(), len(own))], names=[*called, "column"]
    )
    values = changes[rows.inverse].reshape(-1, len(names))
    return pd.DataFrame(values, index=index, columns=names)


def sentence(reason: Mapping[str, Any]) -> str:
    """One line of :func:`reasons` as an English sentence, without its full stop.

    Parameters
    ----------
    reason : mapping
        The values of the table's columns in that line: one of ``reasons(...).to_dict("records")``.

    Examples
    --------
    >>> line = {"column": "odor", "value": "foul", "excess_nats": 8.1, "expected": "none", "probability": 0.97}
    >>> line |= {"low": None, "conflict_column": "size", "conflict_value": "broad", "conflict_nats": 2.1}
    >>> sentence(line).split("; ")[0]
    'odor = foul adds 8.1 nats more than in a typical row'
    >>> sentence(line).split("; ")[1]
    'the other cells predict none (probability 0.97)'
    >>> sentence(line).split("; ")[2]
    'it conflicts most with size = broad (2.1 nats)'
    """
    value, excess, predicted = reason["value"], reason["excess_nats"], reason["expected"]
    cell = f"{reason['column']} = {as_written(value)}"
    if pd.isna(value):
        cell = f"the missing cell in {reason['column']}"
    if abs(excess) < LEAST_NATS:
        parts = [f"{cell} adds as many nats as in a typical row"]
    else:
        how = "more" if excess > 0 else "fewer"
        parts = [f"{cell} adds {abs(excess):.1f} nats {how} than in a typical row"]
    if not math.isnan(reason["probability"]):
        likely = f"probability {reason['probability']:.2f}"
        what = as_written(predicted)
        if not pd.isna(reason["low"]) and reason["low"] != reason["high"]:
            low, high = as_written(reason["low"]), as_written(reason["high"])
            likely = f"{low} to {high} with {likely}"
        elif what == as_written(value):
            what = "this value"
        parts.append(f"the other cells predict {what} ({likely})")
    if not pd.isna(reason["conflict_column"]) and reason["conflict_nats"] >= LEAST_NATS:
        other = f"{reason['conflict_column']} = {as_written(reason['conflict_value'])}"
        parts.append(f"it conflicts most with {other} ({reason['conflict_nats']:.1f} nats)")
    return "; ".join(parts)


def as_written(value: Any) -> str:
    """A cell's value as text."""
    if pd.isna(value):
        return "a missing cell"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
