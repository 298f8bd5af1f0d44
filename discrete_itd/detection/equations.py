r"""Rows in which a column does not follow from others (23): the cell to blame, and the number that mends the row.

Such a row has a wrong cell, or is a rightful exception: with the share w of training rows that follow, and a share
:math:`\pi` of wrong cells, a cell is wrong with probability :math:`\pi / (\pi + 1 - w)`. Each cell of a broken relation
may be the one. What was meant is then the number with which the row follows, and cells are blamed in proportion to the
probability of the mended row, relations included, times that of the number in its place, flat over the column.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from discrete_itd.detection.cell_predictions import WRONG_CELLS
from discrete_itd.detection.score import USUAL, Scorer
from discrete_itd.encoders import Column, written
from discrete_itd.encoders.relations import is_numeric, numbers_of
from discrete_itd.encoders.rows import Rows
from discrete_itd.reading.frames import DAY, SECOND

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
    repairs: dict[int, list[Repair]] = {}
    for repair in _repairs(scorer, rows):
        repairs.setdefault(repair.row, []).append(repair)
    names, lines = [str(name) for name in rows.encoder.names], []
    for i, ways in repairs.items():
        weights = np.array([way.log_weight for way in ways])
        weights = np.exp(weights - weights.max())
        best, share = ways[int(weights.argmax())], float(weights.max() / weights.sum())
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
        followed = _cell(child, _encoded(child, value))
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


def _repairs(scorer: Scorer, rows: Rows) -> list[Repair]:
    """The cells that may be wrong in each row with a broken relation, and what mends it."""
    schema, relations = rows.encoder.schema, rows.encoder.relations
    usual = [k for k, relation in enumerate(relations) if relation.share > USUAL]
    places = [(k, i) for k in usual for i in np.flatnonzero(rows.follows[:, k] == 0).tolist()]
    if not places:
        return []
    numbers = numbers_of(rows.frame, schema)
    mended, cells, asked = [], [], []
    for k, i in places:
        relation = relations[k]
        for j in set(relation.columns) - {*scorer.given}:
            if not is_numeric(schema[j]):  # text with digits is not written anew
                continue
            row = numbers[[i]].copy()
            row[:, j] = relation.solved(row, j)
            if np.isnan(row[0, j]):
                continue
            x = _encoded(schema[j], row[:, j])
            expected = _cell(schema[j], x)
            row[:, j] = numbers_of(pd.DataFrame({schema[j].name: [expected]}), [schema[j]])[:, 0]
            if relation.follows(row)[0] != 1:  # the column has no such number
                continue
            log_relations = 0.0
            for other in relations:
                follows = other.follows(row)[0]
                if not math.isnan(follows):
                    log_relations += math.log(other.share if follows else 1 - other.share)
            cell, log_volume, _ = schema[j].encode(pd.Series([expected]))
            encoded = rows.cells[i].copy()
            encoded[j] = cell[0]
            mended.append(encoded)
            cells.append(rows.log_volume[i].sum() - rows.log_volume[i, j] + log_volume[0])
            asked.append((i, k, j, expected, log_relations + _log_flat(schema[j])))
    if not mended:
        return []
    x = torch.from_numpy(np.array(mended)).to(rows.x)
    log_prob = scorer.model.log_prob(x, scorer.density.n_evaluations).log_prob.cpu().numpy()
    return [
        Repair(*way[:4], log_weight=way[4] + float(p) + float(volume))
        for way, p, volume in zip(asked, log_prob, cells, strict=True)
    ]


def _encoded(column: Column, numbers: np.ndarray) -> np.ndarray:
    """The encoded cells nearest to numbers; times are in days."""
    if column.family != "number":
        numbers = (numbers * DAY_SECONDS - column.origin) * (SECOND / column.step)
    return column.from_numbers(numbers)


def _cell(column: Column, x: np.ndarray) -> Any:
    """The cell of the first of encoded ones."""
    return column.decode(x[:1], settled=True).iloc[0]


def _log_flat(column: Column) -> float:
    """Log-mass of a number of a column if each of its numbers is as probable."""
    codec: Any = column.codec
    if codec.has_levels:
        return -math.log(codec.n_levels)
    return -math.log(max(1.0, (codec.high - codec.low) / codec.step))
