r"""Rows in which a column does not follow from others (23): the cell to blame, and the number that mends the row.

Such a row has a wrong cell, or is a rightful exception: with the share w of training rows that follow, and a share
:math:`\pi` of wrong cells, a cell is wrong with probability :math:`\pi / (\pi + 1 - w)`. Each cell of a broken relation
may be the one. What was meant is then the number with which the row follows, and cells are blamed in proportion to the
probability of the mended row, relations included, times that of the number in its place, flat over the column.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import special

from discrete_itd.detection.cell_predictions import WRONG_CELLS
from discrete_itd.detection.score import USUAL, Scorer
from discrete_itd.encoders import Clock, Column, written
from discrete_itd.encoders.relations import Relation, is_numeric, number_in, numbers_of
from discrete_itd.encoders.rows import Rows
from discrete_itd.reading.frames import DAY, SECOND, restore_numbers, restore_times

DAY_SECONDS = DAY // SECOND


class Repair(NamedTuple):
    """A cell, by row and column, with which a relation would hold if it were ``expected``, and log-odds of that."""

    row: int
    relation: int
    column: int
    expected: Any
    log_weight: float


def broken(scorer: Scorer, rows: Rows) -> pd.DataFrame:
    """One line per row that breaks a relation that few training rows break: the cell that is most probably wrong.

    ``position`` of the row, ``column``, ``value``, ``expected``, ``probability_wrong``, and a ``sentence``.
    """
    schema, relations = rows.encoder.schema, rows.encoder.relations
    names, lines = [str(name) for name in rows.encoder.names], []
    for i, (ways, weights) in by_row(_likely_repairs(scorer, rows)).items():
        best, share = ways[int(weights.argmax())], float(weights.max())
        relation = relations[best.relation]
        wrong = share * WRONG_CELLS / (WRONG_CELLS + 1 - relation.share)
        cells = rows.frame.iloc[i]
        texts = [written(cells[column.name], column) for column in schema]
        column = schema[best.column]
        verdict = (
            f"{names[best.column]} is likely wrong, {written(best.expected, column)} would fit"
        )
        if wrong <= 0.5:
            *others, last = dict.fromkeys(names[way.column] for way in ways)
            verdict = (
                f"{', '.join(others)} or {last} may be wrong" if others else f"{last} may be wrong"
            )
        child = schema[relation.child]
        value = relation.values(numbers_of(rows.frame.iloc[[i]], schema))
        followed = _result(child, value)
        statement = (
            f"{child.name} = {texts[relation.child]}, but {relation.expression(names)}"
            f" = {relation.expression(texts)} = {written(followed, child)}"
        )
        lines.append(
            (i, column.name, cells[column.name], best.expected, wrong, f"{statement}; {verdict}")
        )
    fields = ["position", "column", "value", "expected", "probability_wrong", "sentence"]
    return pd.DataFrame(lines, columns=pd.Index(fields)).astype(
        {"value": object, "expected": object}
    )


def by_row(ways: Iterable[Repair]) -> dict[int, tuple[list[Repair], np.ndarray]]:
    """Of each row its repairs, and their probabilities if one of them is what was meant."""
    of_rows: dict[int, list[Repair]] = {}
    for way in ways:
        of_rows.setdefault(way.row, []).append(way)
    weights = {i: np.array([w.log_weight for w in ways]) for i, ways in of_rows.items()}
    return {i: (ways, special.softmax(weights[i])) for i, ways in of_rows.items()}


def repairs(
    schema: Sequence[Column],
    relations: Sequence[Relation],
    numbers: np.ndarray,
    given: Collection[int] = (),
) -> Iterator[Repair]:
    """The cells, but for given columns, that may be wrong in rows (N, C) of numbers that break what few rows break.

    The log-weights are those of the relations in the row as it is mended, and of a number in its place.
    """
    for k, relation in enumerate(relations):
        places = np.flatnonzero(relation.follows(numbers) == 0) if relation.share > USUAL else ()
        for i, j in itertools.product(places, sorted({*relation.columns} - {*given})):
            row = numbers[[i]].copy()
            row[:, j] = relation.solved(row, j)
            if np.isnan(row[0, j]):
                continue
            if is_numeric(schema[j]):
                expected = _cell(schema[j], row[:, j])
            else:  # text with the number that is nearest
                away = [abs(number_in(text) - row[0, j]) for text in schema[j].categories]
                expected = schema[j].categories[int(np.nanargmin(away))]
            row[:, j] = numbers_of(pd.DataFrame({schema[j].name: [expected]}), [schema[j]])[:, 0]
            if relation.follows(row)[0] != 1:  # the column has no such number
                continue
            log_weight = _log_flat(schema[j])
            for other in relations:
                follows = other.follows(row)[0]
                if not math.isnan(follows):
                    log_weight += math.log(other.share if follows else 1 - other.share)
            yield Repair(int(i), k, j, expected, log_weight)


def _likely_repairs(scorer: Scorer, rows: Rows) -> list[Repair]:
    """Repairs whose weights are those of the mended rows by the model, too."""
    schema, relations = rows.encoder.schema, rows.encoder.relations
    if not any(relation.share > USUAL for relation in relations):
        return []
    ways = [*repairs(schema, relations, numbers_of(rows.frame, schema), scorer.given)]
    if not ways:
        return []
    mended = rows.frame.iloc[[way.row for way in ways]].astype(object)
    for n, way in enumerate(ways):
        mended.iat[n, way.column] = way.expected
    cells = rows.encoder.readable(mended).cells
    x = torch.from_numpy(cells.x).to(rows.x)
    log_prob = scorer.model.log_prob(x, scorer.density.n_evaluations).log_prob.cpu().numpy()
    total = log_prob + cells.log_volume.sum(1)
    return [
        way._replace(log_weight=way.log_weight + float(p))
        for way, p in zip(ways, total, strict=True)
    ]


def _result(column: Column, numbers: np.ndarray) -> Any:
    """The first of numbers as a column writes them, whatever its range; times are in days."""
    if column.family != "number" or not column.codec.of_numbers:
        return _cell(column, numbers)
    is_whole = column.codec.whole and bool(numbers[0] == np.rint(numbers[0]))
    return restore_numbers(numbers[:1], np.dtype(float), is_whole, column.decimals).iloc[0]


def _cell(column: Column, numbers: np.ndarray) -> Any:
    """The cell nearest to the first of numbers; times are in days."""
    if column.family != "number":
        steps = (numbers * DAY_SECONDS - column.origin) * (SECOND / column.step)
        return restore_times(steps[:1], column.dtype, column.origin, column.step).iloc[0]
    return column.decode(column.from_numbers(numbers)[:1], settled=True).iloc[0]


def _log_flat(column: Column) -> float:
    """Log-mass of a number of a column if each of its numbers is as probable."""
    codec: Any = column.codec
    if isinstance(codec, Clock):  # of any block
        return -math.log((codec.high - codec.low + 1) * codec.length)
    if codec.has_levels:
        return -math.log(codec.n_levels)
    return -math.log(max(1.0, (codec.high - codec.low) / codec.step))
