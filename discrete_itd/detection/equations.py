r"""Rows in which a column does not follow from others (23): the cell to blame, and the number that mends the row.

Such a row has a wrong cell, or is a rightful exception: with the share w of training rows that follow, and a share
:math:`\pi` of wrong cells, a cell is wrong with probability :math:`\pi / (\pi + 1 - w)`. Each cell of a broken relation
may be the one. What was meant is then the number with which the row follows, and cells are blamed in proportion to the
probability of the mended row, relations included, times that of the number in its place, flat over the column.
"""

from __future__ import annotations

import pandas as pd
import torch

from discrete_itd.cells.blame import Repair, by_row, repairs
from discrete_itd.cells.channel import WRONG_CELLS
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import written
from discrete_itd.encoders.relations import USUAL, numbers_of
from discrete_itd.encoders.rows import Rows


def broken(scorer: Scorer, rows: Rows) -> pd.DataFrame:
    """One line per row that breaks a relation that few training rows break: the cell that is most probably wrong.

    ``position`` of the row, ``column``, ``value``, ``expected``, ``probability_wrong``, the ``rule`` as text, and a
    ``sentence``.
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
        x = numbers_of(rows.frame.iloc[[i]], schema)
        statement = (
            f"{child.name} = {texts[relation.child]}, but {relation.expression(names)}"
            f" = {relation.worked_out(texts, x, schema)}"
        )
        said = relation.text(names), f"{statement}; {verdict}"
        lines.append((i, column.name, cells[column.name], best.expected, wrong, *said))
    fields = ["position", "column", "value", "expected", "probability_wrong", "rule", "sentence"]
    return pd.DataFrame(lines, columns=pd.Index(fields)).astype(
        {"value": object, "expected": object}
    )


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
