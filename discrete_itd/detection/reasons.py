"""Reasons for an anomalous row: its cells compared with their predicted values, and with each other.

All functions take the score to explain: a :class:`discrete_itd.detection.score.Scorer`, or a fitted density. They use
the conditional distributions of the scoring model (:mod:`discrete_itd.detection.cell_predictions`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from discrete_itd.cells.channel import WRONG_CELLS
from discrete_itd.cells.slips import Slips, slips_of
from discrete_itd.detection.cell_predictions import LEAST_NATS, likely_errors, predictions
from discrete_itd.detection.equations import broken
from discrete_itd.detection.score import Scorer, scorer_of
from discrete_itd.encoders import Column, number, written
from discrete_itd.encoders.column import is_missing
from discrete_itd.encoders.relations import USUAL
from discrete_itd.encoders.rows import Rows, distinct
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.rules.kept import BrokenRule, KeptRules
from discrete_itd.validation import check_integer

# A ratio from 10^MOST_DIGITS on is written as a power of ten, up to 10^MOST_POWER.
MOST_DIGITS, MOST_POWER = 6, 300
NOT_LIKELY = "no single cell is likely wrong"
NO_CELL = f"{NOT_LIKELY}: it is their combination that is rare"


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
        Columns to predict; by default all that are not given. A ValueError names one that the model does not have.
    k : int, optional
        Only the k cells of each row with the largest log-odds of an error; by default all.
    n_values : int
        Number of predicted values per cell.

    Returns
    -------
    DataFrame
        One line per predicted value, a row's cell with the largest log-odds of an error first: ``row`` (the index of
        X), ``column``, ``value`` (the observed one), ``rank`` (1 for the most probable), ``expected``,
        ``expected_probability``, ``low``, ``high``. For categories, ``expected_probability`` belongs to ``expected``.
        For numbers (all but ordinal ones of few values) ``expected`` is the median, and ``expected_probability``
        belongs to the interval from ``low`` to ``high``: 80 %, for whole numbers at least. Missing cells are predicted
        too; where missingness is modelled, a predicted one is None.
    """
    check_integer("n_values", n_values, 1)
    scorer = scorer_of(model)
    names = scorer.density.encoder_.names
    free = [name for j, name in enumerate(names) if j not in scorer.given]
    wanted = free if columns is None else _names(columns)
    among = [scorer.density.encoder_.place_of(name) for name in wanted]
    if k is not None:
        check_integer("k", k, 1)
    rows = scorer.density.rows(X)
    if not len(rows):
        return expected(scorer, rows.blank(), columns, k=k, n_values=n_values).head(0)
    first, inverse, _, slips = _asked(scorer, rows)
    cells, predicted = predictions(scorer, rows.x[first], among, k, n_values, slips)
    row = np.repeat(np.arange(len(rows)), cells.shape[1] * n_values)
    column = np.repeat(cells[inverse].ravel(), n_values)
    rank = np.tile(np.arange(n_values), len(row) // n_values)
    value, probability, low, high = (t[inverse].ravel() for t in predicted)
    value, low, high = (_of_time(rows, t, row, column) for t in (value, low, high))
    columns = {"expected": value, "expected_probability": probability, "low": low, "high": high}
    lines = pd.DataFrame(_lines(rows, row, column, rank) | columns)
    return cast(pd.DataFrame, lines[lines["expected_probability"].notna()]).reset_index(drop=True)


def _asked(scorer: Scorer, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray, Slips]:
    """Rows that are judged alike once: positions of U rows, and for all rows which of these they are, (N,).

    With the nats (U, C) by which numbers beyond an ordinal column's range are rarer than an unseen one within it, -inf
    for cells that follow from their rows, and the slips that cells may be.
    """
    near = [column.codec.log_share_near for column in rows.encoder.schema]
    beyond = np.maximum(near - rows.log_volume[:, : len(near)], 0.0)
    for relation, follows in zip(rows.encoder.relations, rows.follows.T, strict=True):
        if relation.share > USUAL:  # what follows from its row is as expected
            beyond[follows == 1, relation.child] = -np.inf
    parts = [rows.cells, beyond]
    for j in np.flatnonzero(rows.is_outside.any(0)).tolist():  # new values have one level
        values = rows.given.iloc[:, j].astype(object).where(rows.is_outside[:, j], None)
        parts.append(pd.factorize(values)[0].astype(float)[:, None])
    first, inverse = distinct(np.column_stack(parts))
    return first, inverse, beyond[first], slips_of(rows.take(first), scorer.vocabularies)


def _names(columns: Iterable[Hashable]) -> list[Hashable]:
    return [columns] if isinstance(columns, str | int | np.integer) else list(columns)


def _lines(rows: Rows, row: np.ndarray, column: np.ndarray, rank: np.ndarray) -> dict[str, Any]:
    """Row, column, observed value and rank of each of L cells, given by position, (L,) each."""
    names, cells = rows.frame.columns, np.empty(len(row), dtype=object)
    for j in np.unique(column):
        lines = column == j
        cells[lines] = rows.frame.iloc[row[lines], j].astype(object).to_numpy()
    return {
        "row": rows.index[row],
        "rank": rank + 1,
        "column": _objects(names[j] for j in column),
        "value": _objects(cells),
    }


def _of_time(rows: Rows, values: np.ndarray, row: np.ndarray, column: np.ndarray) -> pd.Series:
    """Predicted values of L cells, given by position, as those of the time of their rows: objects, (L,)."""
    out = np.array(values, dtype=object)
    times = rows.encoder.times
    for j in () if times is None else (times.clock, *times.since):
        lines = np.flatnonzero(column == j)
        out[lines] = _objects(rows.placed(out[lines], row[lines], j))
    return _objects(out)


def _objects(values: Iterable[Any]) -> pd.Series:
    return pd.Series(list(values), dtype=object)


# -- the table of reasons -------------------------------------------------------------------------


def reasons(
    model: DiffusionDensity | Scorer, X: Any, k: int = 3, *, rules: KeptRules | None = None
) -> pd.DataFrame:
    r"""The most suspicious cell of each row, and others that are likely wrong, with what contradicts them.

    Parameters
    ----------
    model : DiffusionDensity or Scorer
        Fitted. Cells of the columns that a scorer conditions on are never reasons.
    X : DataFrame, array-like or Rows, shape (N, C)
    k : int
        Maximal number of cells per row.
    rules : KeptRules, optional
        What the table of the fit obeys: a row's first reason names a rule that its cell breaks.

    Returns
    -------
    DataFrame
        One line per cell, unreadable cells first (with their text as the value, and without nats and a prediction),
        then a row's most probable error, unless it is neither likely wrong nor a nat rarer than expected, and other
        cells that are more likely wrong than right.

        * ``row`` (the index of X), ``rank`` (1 for the most probable error), ``column``, ``value``;
        * ``nats``, the surprisal of the cell given the others, :math:`-\log P(x_j | x_{-j})`; for a number,
          of the cell in which it is recorded; ``expected_nats``, its expectation, the entropy of that conditional
          distribution; ``excess_nats``, the difference;
        * ``probability_wrong``, the probability that the cell is wrong, if one cell in a hundred is
          (``cells.channel.WRONG_CELLS``), whether or not the row raises an alarm, and right cells contradict the
          others as often as in the calibration rows of a detector, or in one of so many training rows; if the other
          cells are right, or have their predicted values where they are more suspicious; cells of one contradiction
          share it. A third of the wrong cells are taken for slips of the pen (:mod:`discrete_itd.cells.slips`), of
          which the others must make probable what was meant. Above 0.5 the cell is called likely wrong;
        * ``expected``, ``expected_probability``, ``low``, ``high``: the prediction from the others, see
          :func:`expected`; or, where the cell is a slip of one value more probably than all else if it is wrong, this
          value, with that probability, and no interval;
        * ``conflict_column``, ``conflict_value``, ``conflict_nats``: of the row's four most probable errors the column
          whose predicted value in its place raises the log-odds of this cell's value against the predicted one most,
          its value, and by how many nats; None and 0 where none does by a nat, or rows are scored along paths;
        * ``rule``, an equation or one of the ``rules`` that the row breaks, about this column; None if there is none;
        * ``sentence``, the same in English. A ratio above the number n of training rows with a value in the column is
          "more than n times", as these do not show what is rarer.

    Notes
    -----
    Cells are ranked by the log-odds of an error (``cell_predictions.Suspects.log_odds``), each given all others of its
    row, and not by their share of the score: where one cell of held-out rows was replaced, the log-odds find it more
    often than the share, the surprisal given the other cells, or that in excess of its entropy do
    (``python -m tests.benchmarks.explanations``). A cell that would not be likely wrong if a more suspicious one
    had its predicted value only conflicts with that one, and is not named; one that it hides is.

    Examples
    --------
    >>> frame = pd.DataFrame({"odor": ["none", "almond"] * 50, "size": ["broad", "narrow"] * 50})
    >>> density = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    >>> new = pd.DataFrame({"odor": ["foul"], "size": ["broad"]})
    >>> for part in reasons(density, new).at[0, "sentence"].split("; "):
    ...     print(part)
    odor = foul is more than 100 times as rare as expected from the other cells
    they predict none (probability 1.00)
    no single cell is likely wrong
    """
    check_integer("k", k, 1)
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    if not len(rows):
        return reasons(scorer, rows.blank(), k)
    first, inverse, beyond, slips = _asked(scorer, rows)
    errors = likely_errors(scorer, rows.x[first], beyond, slips, k)
    n_lines = np.bincount(errors["row"], minlength=len(first))  # lines of each distinct row
    row = np.repeat(np.arange(len(rows)), n_lines[inverse])
    before = n_lines[inverse].cumsum() - n_lines[inverse]
    rank = np.arange(len(row)) - before[row]
    errors = errors.iloc[(n_lines.cumsum() - n_lines)[inverse[row]] + rank].reset_index(drop=True)
    conflict = _lines(rows, row, errors["conflict"].to_numpy(), rank)
    is_conflict = errors["conflict_nats"] >= LEAST_NATS
    cell = errors["cell"].to_numpy()
    for part in ("value", "low", "high"):
        errors[part] = _of_time(rows, errors[part].to_numpy(), row, cell)
    if rows.encoder.times is not None:  # nothing is expected in place of a time far from all others
        is_lost = errors["value"].isna() & (cell == rows.encoder.times.clock)
        errors["probability"] = errors["probability"].where(~is_lost, np.nan)
    lines = _lines(rows, row, cell, rank) | {
        "nats": errors["nats"],
        "expected_nats": errors["expected_nats"],
        "excess_nats": errors["nats"] - errors["expected_nats"],
        "probability_wrong": errors["probability_wrong"],
        "expected": errors["value"],
        "expected_probability": errors["probability"].astype(float),
        "low": errors["low"],
        "high": errors["high"],
        "conflict_column": conflict["column"].where(is_conflict, None),
        "conflict_value": conflict["value"].where(is_conflict, None),
        "conflict_nats": errors["conflict_nats"].where(is_conflict, 0.0),
        "rule": _objects([None] * len(row)),
    }
    table = pd.DataFrame(lines)
    columns = dict(zip(rows.encoder.names, rows.encoder.schema, strict=True))
    text = [sentence(line, columns) for line in table.to_dict("records")]
    table = table.assign(sentence=_objects(text))
    equations = broken(scorer, rows)
    if rules is not None and len(rules.judged):
        table, others = _with_rules(table, row, rules, scorer, rows)
        table, row = _with_first(table, row, others, rows, k)
    table, row = _with_first(table, row, equations, rows, k)
    cells = pd.DataFrame(
        rows.unreadable_cells(), columns=pd.Index(["position", "column", "value", "sentence"])
    )
    return _with_first(table, row, cells.assign(probability_wrong=1.0), rows, k)[0]


def _with_first(
    table: pd.DataFrame, row: np.ndarray, first: pd.DataFrame, rows: Rows, k: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of reasons with other lines before the lines of their rows, at most k of each row; and row positions.

    ``row`` is the position of each line of the table, ``position`` that of each of the other lines, whose cells have no
    second line.
    """
    if not len(first):
        return table, row
    position = first["position"].to_numpy(dtype=int)
    told = set(zip(position.tolist(), first["column"], strict=True))
    others = [c not in told for c in zip(row.tolist(), table["column"], strict=True)]
    row = np.concatenate([position, row[others]])
    objects = [name for name, dtype in table.dtypes.items() if dtype.kind == "O"]
    first = first.assign(row=rows.index[position], conflict_nats=0.0)
    first = first.reindex(columns=table.columns)
    first = first.assign(**{c: _objects(first[c].where(first[c].notna(), None)) for c in objects})
    parts = [first, table[others]] if any(others) else [first]
    order = np.argsort(row, kind="stable")
    table, row = pd.concat(parts, ignore_index=True).iloc[order], row[order]
    rank = table.groupby(row).cumcount().to_numpy() + 1
    table = cast(pd.DataFrame, table.assign(rank=rank)[rank <= k])
    return table.reset_index(drop=True), row[rank <= k]


def _with_rules(
    table: pd.DataFrame, row: np.ndarray, rules: KeptRules, scorer: Scorer, rows: Rows
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of reasons whose first lines name the rules that their cells break, and lines of other cells that do.

    Of the cells of the rules that a row breaks the one that is in most of them is to blame: of several the row's most
    suspicious one, or else the one that would follow from the others. ``row`` is the position of each line.
    """
    names, said = [*table["rule"]], [*table["sentence"]]
    first = {i: line for line, i in reversed([*enumerate(row.tolist())])}
    schema, others = rows.encoder.schema, list[tuple[Any, ...]]()
    of_rows = dict[int, list[BrokenRule]]()
    for one in rules.broken(rows.frame, schema):
        of_rows.setdefault(one.position, []).append(one)
    given = {schema[j].name for j in scorer.given}
    for position, ones in of_rows.items():
        line = first.get(position, -1)
        if line >= 0:  # a gap is no reason where there is another one
            ones = [one for one in ones if one.rule.kind != "present"]
        votes = Counter(name for one in ones for name in {*one.rule.columns} - given)
        suspects = [name for name, n in votes.items() if n == max(votes.values())]
        if not suspects:
            continue
        is_first = line >= 0 and table["column"].iat[line] in suspects
        if is_first:
            suspect = table["column"].iat[line]
        else:
            follow = [one.rule.statement.columns[-1] for one in ones]
            suspect = next((name for name in follow if name in suspects), suspects[0])
        broken_rule = next(one for one in ones if suspect in one.rule.columns)
        rule, text = broken_rule.rule.text, broken_rule.sentence
        if is_first:
            names[line], said[line] = rule, f"{text}; {said[line]}"
            continue
        wrong = WRONG_CELLS / (WRONG_CELLS + rules.bound) / len(suspects)
        verdict = f"{suspect} is likely wrong"
        if wrong <= 0.5:
            verdict = f"{' or '.join(map(str, suspects))} may be wrong"
        value = rows.frame[suspect].iloc[position]
        others.append((position, suspect, value, wrong, rule, f"{text}; {verdict}"))
    fields = ["position", "column", "value", "probability_wrong", "rule", "sentence"]
    table = table.assign(rule=_objects(names), sentence=_objects(said))
    return table, pd.DataFrame(others, columns=pd.Index(fields)).astype({"value": object})


def sentence(reason: Mapping[str, Any], columns: Mapping[Hashable, Column]) -> str:
    """One line of :func:`reasons`, as an English sentence without its full stop, of ``columns`` by their names."""
    value, predicted = reason["value"], reason["expected"]
    column = columns[reason["column"]]
    cell = f"{reason['column']} = {written(value, column)}"
    if is_missing(value):
        cell = f"the missing cell in {reason['column']}"
    excess, is_alone = reason["excess_nats"], len(columns) == 1
    source = "" if is_alone else " from the other cells"
    likely = "likely wrong: " if reason["probability_wrong"] > 0.5 else ""
    n_values = column.n_rows - column.n_missing
    if excess > math.log(max(n_values, 1)):  # rarer than so many training rows can show
        ratio, nats = f"more than {_rounded_down(n_values)} times", ""
    else:
        ratio, nats = times(excess), f" (+{_nats(excess)} nats)"
    parts = [f"{cell} is {likely}{ratio} as rare as expected{source}{nats}"]
    if not math.isnan(reason["expected_probability"]):
        share = f"probability {reason['expected_probability']:.2f}"
        text = written(predicted, column)
        if not pd.isna(reason["low"]) and reason["low"] != reason["high"]:
            low, high = written(reason["low"], column), written(reason["high"], column)
            share = f"{low} to {high} with {share}"
        elif text == written(value, column):
            text = "this value"
        parts.append(f"{'the model predicts' if is_alone else 'they predict'} {text} ({share})")
    if not pd.isna(reason["conflict_column"]):
        other = columns[reason["conflict_column"]]
        cell = f"{other.name} = {written(reason['conflict_value'], other)}"
        parts.append(f"it conflicts most with {cell} ({_nats(reason['conflict_nats'])} nats)")
    return "; ".join(parts if likely else [*parts, NOT_LIKELY])


def _nats(nats: float) -> str:
    return f"{nats:.1f}" if nats < 1e6 else f"{nats:.1e}"


def _rounded_down(n: int) -> str:
    """A whole number with two digits, not above it."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return number(n // unit * unit)


def times(nats: float) -> str:
    """Nats as a ratio of probabilities, with two digits.

    Examples
    --------
    >>> times(-0.7), times(0.1), times(3.2), times(10.0), times(40.0), times(1e9)
    ('0.5 times', '1.1 times', '25 times', '22 000 times', '10^17 times', 'over 10^300 times')
    """
    digits = math.floor(nats / math.log(10))
    if digits >= MOST_POWER:
        return f"over 10^{MOST_POWER} times"
    if digits >= MOST_DIGITS:
        return f"10^{round(nats / math.log(10))} times"
    return f"{number(round(math.exp(nats), 1 - digits))} times"
