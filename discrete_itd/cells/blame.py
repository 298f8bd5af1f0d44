"""The blame for cells that contradict each other: two of one row, or those of an equation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from discrete_itd.cells.channel import WRONG_CELLS
from discrete_itd.cells.counts import count_others
from discrete_itd.cells.judgement import Judged
from discrete_itd.cells.views import ColumnViews
from discrete_itd.encoders import Clock, Column
from discrete_itd.encoders.relations import USUAL, Relation, is_numeric, number_in, numbers_of
from discrete_itd.reading.frames import DAY, SECOND, restore_times

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
SURE = 1e-6  # probability of an error, or of none, beyond which odds do not count
# two cells are equally likely wrong if their log-odds differ by less, nats: else one of a pair that contradicts each
# other alone would be named for the shares of its column
CLOSE = 1.0
DAY_SECONDS = DAY // SECOND


def share_blame(
    wrong: Floats,
    views: list[ColumnViews],
    judged: Callable[[int], Judged],
    columns: Sequence[int],
    unit: Ints,
) -> None:
    """Change the probabilities (N, C) of cells that hardly go with another one, and of this: either may be wrong.

    Cells of ``columns`` are doubted; the others are ``judged`` where they contradict these.
    """
    raised, is_doubted = np.zeros_like(wrong), np.zeros(wrong.shape, bool)
    for j in columns:
        view, own = views[j], judged(j)
        # a doubted cell has its blame divided with each other one: theirs do not raise it
        is_doubted[:, j] = own.wrong >= 0.5
        is_sure = view.unreadable | view.values.absent
        if view.bins is None:
            is_sure = is_sure | (count_others(view.values.codes, unit) == 0)
        doubted = (own.wrong >= 0.5) & ~is_sure
        before = wrong[:, j].copy()
        for i in own.columns if doubted.any() else ():
            other, share = judged(i), (own.share + judged(i).share) / 2
            rows = np.flatnonzero(doubted)
            rows = rows[own.against(rows, i)]
            a, b = (share * o.flat[rows] / o.without(rows, k) for o, k in ((own, i), (other, j)))
            is_close = np.abs(np.log(a / b)) < CLOSE
            a, b = (np.where(is_close, np.sqrt(a * b), x) for x in (a, b))
            blame, others = (x / (a + b + a * b) for x in (a * (1 + b), b * (1 + a)))
            wrong[rows, j] = np.minimum(wrong[rows, j], blame)
            raised[rows, i] = np.maximum(raised[rows, i], np.minimum(before[rows], others))
    np.maximum(wrong, raised, out=wrong, where=~is_doubted)


def blame_by_relations(
    wrong: Floats, schema: Sequence[Column], meant: pd.DataFrame, relations: Sequence[Relation]
) -> list[dict[int, tuple[Any, float]]]:
    """Change the probabilities (N, C) of cells of relations (23), and of each column what mends its rows.

    Wrong numbers are flat over those of the column, so few of them follow, unless two cells are wrong alike: the odds
    of a cell that does are multiplied by their share. A row that breaks what nearly all follow has a wrong cell, or is
    an exception; of its cells one is blamed, with the odds that the other columns give it and the relations that hold
    when it is mended.
    """
    repaired: list[dict[int, tuple[Any, float]]] = [{} for _ in schema]
    if not relations:
        return repaired
    numbers = numbers_of(meant, schema, {j for r in relations for j in r.columns})
    before = special.logit(np.clip(wrong, SURE, 1 - SURE))
    log_odds = before.copy()
    for relation in relations:
        rows = np.flatnonzero(relation.follows(numbers) == 1)
        for j in filter(lambda j: is_numeric(schema[j]), relation.columns):
            share = relation.share_alike(numbers[rows], j, numbers[:, j], WRONG_CELLS)
            log_odds[rows, j] += np.minimum(0.0, np.log(share / relation.share))
    following = log_odds != before
    wrong[following] = np.minimum(wrong, special.expit(log_odds))[following]
    ways = [
        way._replace(log_weight=way.log_weight + before[way.row, way.column])
        for way in repairs(schema, relations, numbers)
    ]
    broken = [_wrong_rows(relation, numbers) for relation in relations]
    for i, (of_row, shares) in by_row(ways).items():
        for way, share in zip(of_row, shares.tolist(), strict=True):
            p = share * broken[way.relation][i]
            wrong[i, way.column] = max(wrong[i, way.column], p)
            if p > repaired[way.column].get(i, (None, 0.0))[1]:
                repaired[way.column][i] = way.expected, p
    return repaired


def _wrong_rows(relation: Relation, numbers: Floats) -> Floats:
    """The probability (N,) that rows that do not follow have a wrong cell, and are no exceptions.

    A wrong number is flat over those of the column; exceptions are alike: they miss what follows by as much as others.
    """
    rows = np.flatnonzero(relation.follows(numbers) == 0)
    child = numbers[:, relation.child]
    flat = 1 / len(np.unique(child[np.isfinite(child)]))
    missed_by = np.rint((child - relation.values(numbers))[rows] / relation.step)
    n_alike = (np.bincount(codes := np.unique(missed_by, return_inverse=True)[1]) - 1)[codes]
    exception = (1 - relation.share) * (n_alike + flat) / len(rows)
    wrong = np.zeros(len(numbers))
    wrong[rows] = WRONG_CELLS * flat / (WRONG_CELLS * flat + exception)
    return wrong


class Repair(NamedTuple):
    """A cell, by row and column, with which a relation would hold if it were ``expected``, and log-odds of that."""

    row: int
    relation: int
    column: int
    expected: Any
    log_weight: float


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
                expected = cell_of(schema[j], row[:, j])
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


def cell_of(column: Column, numbers: np.ndarray) -> Any:
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
