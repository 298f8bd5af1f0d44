"""Why a row is strange, told so that a person can act on it: which cells, compared with what, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.detection.cell_conditionals import (
    Expected,
    Judgement,
    ask,
    batches,
    indicator_of,
    judge,
)
from discrete_itd.detection.drift import Explain, as_shares
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import progress_bar
from discrete_itd.validation import check_integer

LEAST_TOLD = 0.05  # nats; fewer round to nothing


class CellNats(NamedTuple):
    r"""How surprising each cell is: four tables of shape (N, C), with the index and the columns of the rows, in nats.

    Attributes
    ----------
    given_rest : DataFrame
        :math:`-\log P(x_j | x_{-j})`, the surprise given all other cells of the row; of continuous columns a
        log-density in the column's unit. 0 where the cell is missing.
    expected : DataFrame
        The surprise that was to be expected given the other cells: the entropy of that conditional distribution.
        0 where the cell is missing.
    alone : DataFrame
        :math:`-\log \pi_j(x_j)`, the surprise of the value in its column, whatever the rest.
    doubt : DataFrame
        Log-odds that this cell is the wrong one, up to a constant of the row; minus infinity where it is missing.
        By it columns are ranked; see :func:`discrete_itd.detection.cell_conditionals.judge`.
    """

    given_rest: pd.DataFrame
    expected: pd.DataFrame
    alone: pd.DataFrame
    doubt: pd.DataFrame


class _Rows(NamedTuple):
    """A table and its distinct rows: ``unique`` (U, C'), ``inverse`` (N,), ``log_volume`` (N, C)."""

    frame: pd.DataFrame
    unique: Tensor
    inverse: np.ndarray
    log_volume: np.ndarray


def _read(density: DiffusionDensity, X: Any) -> _Rows:
    rows = density.rows(X)
    n_columns = density.encoder_.n_columns
    return _Rows(rows.frame, rows.unique, rows.inverse, rows.log_volume[:, :n_columns])


def _judge_all(density: DiffusionDensity, unique: Tensor, n_values: int = 0) -> Judgement:
    """All distinct rows, judged."""
    parts = []
    with progress_bar(len(unique), "judge") as bar:
        for part in judge(density, unique, n_values):
            parts.append(part)
            bar.update(len(part.doubt))
    expected = [
        Expected(*(np.concatenate(t) for t in zip(*of_column, strict=True)))
        for of_column in zip(*(p.expected for p in parts), strict=True)
    ]
    given_rest, entropy, alone, doubt = (
        np.concatenate(t) for t in zip(*(p[:4] for p in parts), strict=True)
    )
    return Judgement(given_rest, entropy, alone, doubt, expected)


def cell_nats(density: DiffusionDensity, X: Any) -> CellNats:
    """How surprising each cell is given the rest of its row, and how surprising it was expected to be.

    One denoiser call per row and column, nothing drawn at random.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)

    Returns
    -------
    CellNats
        Where "it is missing" is a value, a cell is that and, if it is there, its value.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if it is missing from the table or holds what the model cannot take.

    Examples
    --------
    >>> coin = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    >>> model = DiffusionDensity(max_steps=200, random_state=0).fit(coin)
    >>> nats = cell_nats(model, pd.DataFrame({"a": ["x", "x"], "b": ["u", "v"]}))
    >>> (nats.given_rest - nats.expected).gt(1)["b"].tolist()
    [False, True]
    """
    rows = _read(density, X)
    judged = _judge_all(density, rows.unique)
    given, entropy, alone, doubt = (t[rows.inverse] for t in judged[:4])
    tables = (given - rows.log_volume, entropy, alone - rows.log_volume, doubt)
    return CellNats(*(_table(rows, t) for t in tables))


def _table(rows: _Rows, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=rows.frame.index, columns=rows.frame.columns)


def expected(
    density: DiffusionDensity,
    X: Any,
    columns: Iterable[Hashable] | None = None,
    *,
    k: int | None = None,
    n_values: int = 3,
) -> pd.DataFrame:
    """What the model would have expected in a row's cells, given its other cells.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)
    columns : names (positions, for an array) of columns, optional
        Of which to tell; by default of all.
    k : int, optional
        Of each row only the so many strangest of these cells, by their doubt (:class:`CellNats`); by default all.
    n_values : int
        How many values to tell of a cell.

    Returns
    -------
    DataFrame
        One line for each expected value, a row's strangest cell first: ``row`` (the index of X), ``column``,
        ``value`` (what is there), ``rank`` (1 for the likeliest), ``expected``, ``probability``, ``low``, ``high``.
        Of categories, ``probability`` is that of ``expected``. Of numbers (all but ordinal ones of few values)
        ``expected`` is the median, and ``probability`` that of the interval from ``low`` to ``high``: 80 %, of whole
        numbers at least. Where "it is missing" is a value, it is told as None. Missing cells are told of too.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if the model has none of that name, it is missing from the table or holds what the model
        cannot take.
    """
    check_integer("n_values", n_values, 1)
    names = density.encoder_.names
    wanted = names if columns is None else _names(columns)
    for name in wanted:
        if name not in names:
            raise ValueError(f"column {name!r}: the model has no such column")
    if k is not None:
        check_integer("k", k, 1)
    rows = _read(density, X)
    judged = _judge_all(density, rows.unique, n_values)
    among = np.array([names.index(n) for n in wanted], dtype=np.int64)
    strangest = among[np.argsort(-judged.doubt[:, among], axis=1, kind="stable")[:, :k]]
    row = np.repeat(np.arange(len(rows.inverse)), strangest.shape[1] * n_values)
    column = np.repeat(strangest[rows.inverse].ravel(), n_values)
    rank = np.tile(np.arange(n_values), len(row) // n_values)
    lines = _lines(rows, row, column, rank).assign(**_told(rows, judged, row, column, rank))
    return cast(pd.DataFrame, lines[lines["probability"].notna()]).reset_index(drop=True)


def _names(columns: Iterable[Hashable]) -> list[Hashable]:
    return [columns] if isinstance(columns, str | int | np.integer) else list(columns)


def _lines(rows: _Rows, row: np.ndarray, column: np.ndarray, rank: np.ndarray) -> pd.DataFrame:
    """One line for each of the numbered cells, (L,) each: row, column, value and rank."""
    cells = {j: rows.frame.iloc[:, j].astype(object).to_numpy() for j in np.unique(column)}
    return pd.DataFrame(
        {
            "row": rows.frame.index[row],
            "column": pd.Series([rows.frame.columns[j] for j in column], dtype=object),
            "value": _objects(cells[j][i] for i, j in zip(row, column, strict=True)),
            "rank": rank + 1,
        }
    )


def _told(
    rows: _Rows, judged: Judgement, row: np.ndarray, column: np.ndarray, rank: np.ndarray
) -> dict[str, pd.Series]:
    """What was expected in the numbered cells, (L,) each."""
    at = list(zip(column.tolist(), rows.inverse[row].tolist(), rank.tolist(), strict=True))
    told = {f: [getattr(judged.expected[j], f)[u, n] for j, u, n in at] for f in Expected._fields}
    probability = pd.Series(told.pop("probability"), dtype=float)
    value, low, high = (_objects(t) for t in told.values())
    return {"expected": value, "probability": probability, "low": low, "high": high}


def _objects(values: Iterable[Any]) -> pd.Series:
    return pd.Series(list(values), dtype=object)


# -- the table for people ---------------------------------------------------------------------------


def reasons(
    density: DiffusionDensity,
    X: Any,
    usual: pd.DataFrame,
    k: int = 3,
    *,
    explain: Explain | None = None,
) -> pd.DataFrame:
    """The strangest cells of each row: compared with what is usual, with what was expected, with each other.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)
    usual : DataFrame, shape (n, C), nats
        Shares of ordinary rows that were not trained on, as ``explain`` gives them. A share of exactly 0, or NaN, is
        that of a missing cell and not counted.
    k : int
        Cells of each row at most; missing ones are not told of.
    explain : callable, optional
        Gives the nats by column of a table, as those of ``usual`` were found; by default
        :meth:`DiffusionDensity.explain`.

    Returns
    -------
    DataFrame
        One line for each cell, a row's strangest first:

        * ``row`` (the index of X), ``rank`` (1 for the strangest), ``column``, ``value``;
        * ``nats``, the cell's share of the row's surprise; ``usual``, the mean of ordinary rows; ``excess``, the
          difference; ``p_value``, the share of ordinary rows with as much or more, the row itself counted among
          them: at most p with probability p in an ordinary row;
        * ``blame``, the probability that this cell is the wrong one, if one cell of the row is and all were equally
          likely to be;
        * ``expected``, ``probability``, ``low``, ``high``: what was likeliest given the rest, as of :func:`expected`;
        * ``against``, ``against_value``, ``against_nats``: the other column that makes the value strangest, what is
          there, and by how much it does, as of :func:`pairwise`; None and 0 where no column does.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if it is missing from the table or from ``usual``, or holds what the model cannot take.

    Notes
    -----
    Cells are ranked by their doubt (:func:`discrete_itd.detection.cell_conditionals.judge`), not by their share of the
    score: where one cell of held-out rows was replaced, the doubt names it more often than the share, the surprise given the
    rest, or that beyond its entropy do (``python -m tests.benchmarks.explanations``).
    """
    check_integer("k", k, 1)
    rows = _read(density, X)
    names = density.encoder_.names
    shares = (explain or density.explain)(X).to_numpy()
    ordinary = [t[t != 0] for t in as_shares(usual, names).T]
    judged = _judge_all(density, rows.unique, 1)
    other, by = _worst_pairs(density, rows.unique)
    order = np.argsort(-judged.doubt, axis=1, kind="stable")[:, :k][rows.inverse]
    there = np.take_along_axis(judged.doubt[rows.inverse], order, 1) > -math.inf
    row, rank = np.nonzero(there)
    column, u = order[row, rank], rows.inverse[row]
    lines = _lines(rows, row, column, rank)
    lines["nats"] = shares[row, column]
    lines["usual"] = [float(ordinary[j].mean()) if len(ordinary[j]) else 0.0 for j in column]
    lines["excess"] = lines["nats"] - lines["usual"]
    lines["p_value"] = [
        (1 + np.count_nonzero(ordinary[j] >= s)) / (1 + len(ordinary[j]))
        for j, s in zip(column, lines["nats"], strict=True)
    ]
    lines["blame"] = torch.softmax(torch.from_numpy(judged.doubt), 1).numpy()[u, column]
    lines = lines.assign(**_told(rows, judged, row, column, np.zeros_like(row)))
    against = _lines(rows, row, other[u, column], rank)
    none = by[u, column] <= 0
    lines["against"] = against["column"].mask(none, None)
    lines["against_value"] = against["value"].mask(none, None)
    lines["against_nats"] = by[u, column]
    first = ["row", "rank", "column", "value"]
    return cast(pd.DataFrame, lines[[*first, *lines.columns.drop(first)]])


def _worst_pairs(density: DiffusionDensity, unique: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell of distinct rows, the column that makes it strangest, and by how many nats: (U, C) each."""
    other, by = [], []
    for part in batches(density, unique):
        pairs = _pairs(density, unique[part])
        other.append(pairs.argmax(2))
        by.append(pairs.max(2))
    return np.concatenate(other), np.concatenate(by)


def sentence(reason: Mapping[str, Any]) -> str:
    """One line of :func:`reasons` as an English sentence, without its full stop.

    Parameters
    ----------
    reason : mapping
        What the columns of the table hold in that line: one of ``reasons(...).to_dict("records")``.

    Examples
    --------
    >>> line = {"column": "odor", "value": "foul", "excess": 8.1, "expected": "none", "probability": 0.97}
    >>> line |= {"low": None, "against": "gill_size", "against_value": "broad", "against_nats": 2.1}
    >>> sentence(line).split("; ")[0]
    'odor = foul is 8.1 nats more surprising than usual: given the rest, none (0.97) was expected'
    >>> sentence(line).split("; ")[1]
    'most at odds with gill_size = broad (+2.1 nats)'
    """
    value, excess, wanted = reason["value"], reason["excess"], reason["expected"]
    gone = _is_missing(value)
    text = (
        f"{reason['column']} is missing, which"
        if gone
        else f"{reason['column']} = {as_written(value)}"
    )
    if abs(excess) < LEAST_TOLD:
        text += " is as surprising as usual"
    else:
        text += (
            f" is {abs(excess):.1f} nats {'more' if excess > 0 else 'less'} surprising than usual"
        )
    if not math.isnan(reason["probability"]):
        likely = f"{reason['probability']:.2f}"
        if not _is_missing(reason["low"]) and reason["low"] != reason["high"]:
            likely += f" from {as_written(reason['low'])} to {as_written(reason['high'])}"
        elif as_written(wanted) == as_written(value):
            wanted = "just that"
        text += f": given the rest, {as_written(wanted)} ({likely}) was expected"
    if not _is_missing(reason["against"]) and reason["against_nats"] >= LEAST_TOLD:
        other = f"{reason['against']} = {as_written(reason['against_value'])}"
        text += f"; most at odds with {other} (+{reason['against_nats']:.1f} nats)"
    return text


def _is_missing(value: Any) -> bool:
    return bool(pd.isna(value))


def as_written(value: Any) -> str:
    """A cell's value as people write it."""
    if _is_missing(value):
        return "a missing cell"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# -- which other column ---------------------------------------------------------------------------


def pairwise(density: DiffusionDensity, X: Any) -> pd.DataFrame:
    r"""Which other column makes a value strange: :math:`\log P(x_j) - \log P(x_j | x_i)` of all pairs.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)

    Returns
    -------
    DataFrame, shape (N C, C), nats
        A line for each cell, indexed by the row's index and the column j; a column for each other column i. Positive
        where the value of i makes that of j more surprising than it is by itself; of a good model, about symmetric.
        0 where there is nothing to tell: of a cell and itself, and of missing cells. Where "it is missing" is a value,
        that of j is compared given that of i, and then what is there, given which cells of the row are missing.
    """
    rows = _read(density, X)
    with progress_bar(len(rows.unique), "pairs") as bar:
        parts = []
        for part in batches(density, rows.unique):
            parts.append(_pairs(density, rows.unique[part]))
            bar.update(len(parts[-1]))
    names = rows.frame.columns
    own = rows.frame.index
    levels = [own.get_level_values(i).repeat(len(names)) for i in range(own.nlevels)]
    called = ["row"] if own.nlevels == 1 else [f"row {i}" for i in range(own.nlevels)]
    index = pd.MultiIndex.from_arrays(
        [*levels, np.tile(names.to_numpy(), len(own))], names=[*called, "column"]
    )
    values = np.concatenate(parts)[rows.inverse].reshape(-1, len(names))
    return pd.DataFrame(values, index=index, columns=names)


@torch.no_grad()
def _pairs(density: DiffusionDensity, x: Tensor) -> np.ndarray:
    """:func:`pairwise` of encoded rows (B, C'): (B, C, C), the last axis that of the column that is given."""
    denoiser, encoder = density.denoiser_, density.encoder_
    leading = denoiser.codebook.leading
    owner = torch.from_numpy(encoder.owner).to(x.device)
    out = torch.zeros(len(x), encoder.n_columns, encoder.n_columns).to(x)

    def log_prob(known: Sequence[int] | Tensor, of: Tensor) -> Tensor:
        """Of the cells of some columns, given others."""
        told = torch.full_like(x, math.nan)
        told[:, known] = x[:, known]
        return ask(denoiser, told).log_prob(x.masked_fill(~of, math.nan)).double()

    def add(i: int, nats: Tensor) -> None:
        out[:, :, i] += torch.zeros_like(out[:, :, i]).index_add(1, owner, nats)

    before = torch.nonzero(leading).flatten()
    alone, alone_led = log_prob(before, ~leading), log_prob([], leading)
    for i in range(encoder.n_columns):
        add(i, alone - log_prob([*before.tolist(), i], ~leading))
        place = indicator_of(density, i)
        if place is not None:
            add(i, alone_led - log_prob([place], leading))
    out.diagonal(dim1=1, dim2=2).zero_()
    return out.cpu().numpy()
