r"""The relations (23) of encoded rows: the numbers that a child may have, and cells filled by what they follow from.

A child follows if its number is one of F, the numbers of the column that rounding leaves open once the parents are
known: the multiples of its step in an interval, the categories in it, or, off any lattice, all numbers of an interval
not narrower than the step of the density. Whether a relation counts in a row, and F, never depend on the child's cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd

from discrete_itd.encoders.column import Column
from discrete_itd.encoders.relations import (
    FLOAT,
    FLOAT_ERROR,
    ON_LATTICE,
    Bools,
    ColumnTerm,
    Floats,
    Relation,
    Term,
    number_in,
    numbers_of,
)
from discrete_itd.reading.frames import DAY, EXACT_BELOW, SECOND, restore_times

OFF_LATTICE = 0.01  # steps by which a decoded number may miss its lattice and still lies on it


class RelatedColumn:
    """A column of a relation: its encoded cells as numbers, in days if they are times, and back.

    Numbers of a column that is ``counted`` are days since the clock of the row, 0 of the clock itself.
    """

    def __init__(self, column: Column, *, is_counted: bool = False, is_clock: bool = False) -> None:
        self.column, self.is_clock, codec = column, is_clock, column.codec
        self.is_time = column.family != "number"
        self.unit = column.step / DAY if self.is_time else 1.0  # of one step, in days
        self.epoch = column.origin * (SECOND / DAY) if self.is_time else 0.0
        self.zero = 0.0 if is_counted else self.epoch
        self.numbers = np.empty(0)  # by level; NaN where a level has none, or several
        self.step, self.origin = math.nan, math.nan  # of the lattice, if there is one
        if is_clock:
            return
        if codec.of_numbers:
            line = codec.points.line
            self.step, self.origin = self.unit * line.step, self.unit * line.origin + self.zero
        else:
            categories, levels, _ = column.values()
            values = np.array([number_in(c) for c in categories])
            is_one = (np.bincount(levels, minlength=codec.n_levels + 1) == 1)[levels]
            is_one &= levels < codec.n_levels
            self.numbers = np.full(codec.points.n_points + 1, np.nan)
            self.numbers[levels[is_one]] = values[is_one]
            steps = np.diff(np.unique(values[np.isfinite(values)]))
            self.step = float(steps.min(initial=math.inf))

    @cached_property
    def _sorted(self) -> Floats:
        return np.sort(self.numbers[np.isfinite(self.numbers)])

    @np.errstate(all="ignore")
    def read(self, x: Floats) -> Floats:
        """The numbers (n,) of encoded cells; NaN where there is none, or one off the lattice."""
        codec = self.column.codec
        if self.is_clock:
            return np.where(np.isnan(x), np.nan, 0.0)
        if not codec.of_numbers:
            return self.numbers[np.where(np.isnan(x), -1, x).astype(int)]
        values = codec.decode(x)
        line = codec.points.line
        if not math.isnan(line.origin):
            places = (values - line.origin) / line.step
            near = np.rint(places)
            is_on = np.abs(places - near) <= OFF_LATTICE + FLOAT_ERROR * np.abs(places)
            is_on &= np.abs(places) < EXACT_BELOW
            values = np.where(is_on, line.origin + near * line.step, np.nan)
        return values * self.unit + self.zero

    def write(self, numbers: Floats) -> Floats:
        """The encoded cells (n,) of numbers; NaN where there is none, and of a number that is no category."""
        codec = self.column.codec
        if codec.of_numbers:
            return codec.encode((numbers - self.zero) / self.unit)[0]
        order = np.argsort(self.numbers)  # NaN last
        known = self.numbers[order][: len(self._sorted)]
        error = self._error(numbers)
        place = np.searchsorted(known, numbers - error).clip(max=len(known) - 1)
        return np.where(np.abs(known[place] - numbers) <= error, order[place], np.nan)

    def cells(self, numbers: Floats) -> pd.Series:
        """The cells (n,) of the user's table that numbers stand for, in days since 1970 if they are times."""
        if not self.is_time:
            return self.column.decode(self.write(numbers))
        steps = np.rint((numbers - self.epoch) / self.unit)
        return restore_times(steps, self.column.dtype, self.column.origin, self.column.step)

    def _error(self, numbers: Floats) -> Floats:
        return ON_LATTICE * min(self.step, 1.0) + FLOAT_ERROR * np.abs(numbers)

    @property
    def reach(self) -> float:
        """Distance within which two numbers of the column are one: half of the least distance, 0 off a lattice."""
        is_line = self.column.codec.of_numbers and math.isnan(self.origin)
        return 0.0 if is_line else self.step / 2

    def between(self, middle: Floats, half: Floats) -> tuple[Floats, Floats, Floats]:
        """How many numbers (n,) of the column lie in intervals, and the first and the last of them; 0 and NaN without.

        Off a lattice the length in steps of the interval, which is at least one step, and its ends.
        """
        if not self.column.codec.of_numbers:
            half, known = half + self._error(middle), np.append(self._sorted, np.nan)
            first = np.searchsorted(self._sorted, middle - half)
            last = np.searchsorted(self._sorted, middle + half, "right") - 1
            n = np.where(np.isfinite(middle), last - first + 1, 0).astype(float)
            first, last = (known[np.where(n > 0, place, -1)] for place in (first, last))
            return n, first, last
        if math.isnan(self.origin):
            half = np.maximum(np.maximum(half, self.step / 2), FLOAT * np.abs(middle))
            return np.nan_to_num(2 * half / self.step), middle - half, middle + half
        place = (middle - self.origin) / self.step
        half = half / self.step + ON_LATTICE + FLOAT_ERROR * np.abs(place)
        first, last = np.ceil(place - half), np.floor(place + half)
        n = np.nan_to_num(np.maximum(last - first + 1, 0.0))
        first, last = (np.where(n > 0, self.origin + self.step * p, np.nan) for p in (first, last))
        return n, first, last

    def nearest(self, numbers: Floats) -> Floats:
        """The nearest numbers (n,) of the column, of two the larger one; any number off a lattice."""
        if self.column.codec.of_numbers and math.isnan(self.origin):
            return numbers
        if self.column.codec.of_numbers:
            place = np.floor((numbers - self.origin) / self.step + 0.5 + ON_LATTICE)
            return self.origin + self.step * place
        known, middles = self._sorted, self._sorted[:-1] / 2 + self._sorted[1:] / 2
        place = np.searchsorted(middles, numbers, "right")
        return np.where(np.isfinite(numbers), known[place], np.nan)


class RelatedCells:
    """The relations of a table whose factors (23) are those of encoded rows (N, C').

    Attributes
    ----------
    relations : tuple of Relation, length K
        In an order in which no parent is the child of a later one. Those of a child whose gaps are a level are left
        out, for its levels are not those of a number alone; and so are those that give the ``clock``, or are not the
        same if it is moved with the times that are ``counted`` from it, of which encoded rows have the differences.
    children : tuple of int
        Their children.
    parents : tuple of tuple of int
        Their parents.
    shares : tuple of float
        Probabilities w that a child follows.
    columns : frozenset of int
        Their children and parents.
    """

    def __init__(
        self,
        schema: Sequence[Column],
        relations: Sequence[Relation],
        clock: int | None = None,
        counted: Sequence[int] = (),
    ) -> None:
        self.schema, self.clock = schema, clock
        self.counted = (*counted,) if clock is None else (clock, *counted)
        children = {r.child for r in relations}
        waiting = [r for r in (self._turned(r, children) for r in relations) if self._is_of_rows(r)]
        ordered = list[Relation]()
        while waiting:
            left = {r.child for r in waiting}
            ready = [r for r in waiting if not left & {*r.parents}]
            if not ready:  # a relation that was turned has closed a circle
                break
            ordered += ready
            waiting = [r for r in waiting if r not in ready]
        self.relations = tuple(ordered)
        self.children = tuple(r.child for r in ordered)
        self.parents = tuple(r.parents for r in ordered)
        self.shares = tuple(r.share for r in ordered)
        self._columns = {
            j: RelatedColumn(schema[j], is_counted=j in self.counted, is_clock=j == clock)
            for r in ordered
            for j in r.columns
        }

    @property
    def columns(self) -> frozenset[int]:
        return frozenset(self._columns)

    def _turned(self, relation: Relation, children: set[int]) -> Relation:
        """A relation that gives the clock, solved for a time that is counted from it and is no child of another one."""
        if relation.child != self.clock or relation.parent_steps:
            return relation
        for term in relation.terms:
            sign, (factor, *others) = term.coefficient, term.factors
            is_free = factor.column in self.counted and factor.column not in children
            if is_free and not others and abs(sign) == 1.0:
                rest = [
                    replace(t, coefficient=-sign * t.coefficient)
                    for t in relation.terms
                    if t is not term
                ]
                terms = (Term(sign, (ColumnTerm(relation.child),)), *rest)
                constant = -sign * relation.constant
                return replace(relation, child=factor.column, terms=terms, constant=constant)
        return relation

    def _is_of_rows(self, relation: Relation) -> bool:
        """Whether a relation holds as well if the clock and the times counted from it are moved together."""
        child = self.schema[relation.child]
        inside = {*self.counted} & {*relation.columns}
        if not math.isnan(child.absent_level) or relation.child == self.clock:
            return False
        if len({(self.schema[j].family, self.schema[j].step) for j in inside}) > 1:
            return False  # a difference of other steps is rounded
        moved = -1.0 * (relation.child in inside)
        for term in relation.terms:
            if inside & {factor.column for factor in term.factors}:
                factor, *others = term.factors
                is_date = factor.form == "day" and self.schema[factor.column].step % DAY == 0
                if others or not (factor.form == "x" or is_date):
                    return False
                moved += term.coefficient
        return abs(moved) < FLOAT

    def numbers(self, x: Floats) -> Floats:
        """The numbers (N, C) of encoded rows; NaN where there is none, and in columns of no relation."""
        out = np.full((len(x), len(self.schema)), np.nan)
        for j, column in self._columns.items():
            out[:, j] = column.read(x[:, j])
        return out

    @np.errstate(all="ignore")
    def log_terms(self, x: Floats) -> Floats:
        r"""Of each relation :math:`\log(w / |F|)` where the child follows, (N, K), nats.

        Minus infinity where it does not, and NaN where the relation does not count: where the child or a parent is
        missing, a parent has no number on its lattice, or F is empty. Of a number that was never seen, in a column
        whose numbers repeat, the factor of new numbers is taken away, which every cell of one has besides.
        """
        numbers, out = self.numbers(x), np.full((len(x), len(self.relations)), np.nan)
        for k, relation in enumerate(self.relations):
            j, codec = relation.child, self.schema[relation.child].codec
            n, follows = self._open(relation, numbers)
            new_nats = codec.new_nats(x[:, j]) if codec.of_numbers else 0.0
            terms = np.where(follows, math.log(relation.share) - np.log(n) + new_nats, -np.inf)
            out[:, k] = np.where((n > 0) & ~np.isnan(x[:, j]), terms, np.nan)
        return out

    def _open(self, relation: Relation, numbers: Floats) -> tuple[Floats, Bools]:
        """The size (N,) of F in rows of numbers (N, C), and whether the child's number is one of F."""
        child, number = self._columns[relation.child], numbers[:, relation.child]
        n, first, last = child.between(relation.values(numbers), relation.open_half(numbers))
        return n, (first - child.reach <= number) & (number <= last + child.reach)

    @np.errstate(all="ignore")
    def nodes(self, x: Floats, column: int) -> Floats:
        """Encoded numbers (N, n) of a column with which relations hold beside the other cells of rows; NaN without.

        And their neighbours on the lattice.
        """
        if column not in self._columns:
            return np.empty((len(x), 0))
        numbers, related = self.numbers(x), self._columns[column]
        solved = [
            number
            for relation in self.relations
            if column in relation.columns
            for number in self._solutions(relation, numbers, column)
        ]
        beside = [s + side * related.step for s in solved for side in (-1, 1)]
        return np.column_stack([related.write(s) for s in (*solved, *beside)])

    def _solutions(self, relation: Relation, numbers: Floats, column: int) -> list[Floats]:
        """Numbers (N,) of a column near the one that solves a relation, nearest first; NaN where it does not hold."""
        related, trial = self._columns[column], numbers.copy()
        middle = related.nearest(relation.solved(numbers, column))
        step = related.step if math.isfinite(related.step) else 0.0
        solutions = []
        for side in (0, -1, 1, -2, 2) if step else (0,):
            trial[:, column] = middle + side * step
            holds = self._open(relation, trial)[1]
            solutions.append(np.where(holds, trial[:, column], np.nan))
        return solutions

    # -- cells that are filled ------------------------------------------------------------------

    @np.errstate(all="ignore")
    def settled(
        self,
        frame: pd.DataFrame,
        is_free: Bools,
        rng: np.random.Generator | None = None,
        known: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """A table of the columns of the schema in which cells that are free, (N, C), are those that follow.

        A relation all of whose other columns are known decides its only free one; then filled cells count as known, a
        child follows from its parents, and of the parents of a known child the one of most numbers is solved for. With
        ``rng``, each relation counts in a row with its probability w, and a child is drawn from F. Cells that are not
        free are those of the table ``known``, by default of the same one.
        """
        numbers, is_free = numbers_of(frame, self.schema), is_free.copy()
        if known is not None:
            numbers = np.where(is_free, numbers, numbers_of(known, self.schema))
        changed = np.zeros_like(is_free)
        if self.clock is not None:
            self._settle_clock(numbers, is_free, changed)
        start = np.zeros((len(frame), 1)) if self.clock is None else numbers[:, [self.clock]]
        numbers[:, list(self.counted)] -= start
        is_free[:, self.counted[:1]] = False
        counts = np.ones((len(frame), len(self.shares)), bool)
        if rng is not None:
            counts = rng.random(counts.shape) < np.array(self.shares)

        def fill(k: int, column: int, rows: Bools) -> None:
            """Fill free cells of a column, in some rows (N,), by the k-th relation, where it has such a number."""
            places = np.flatnonzero(rows & is_free[:, column] & counts[:, k])
            value = self._filled(self.relations[k], numbers[places], column, rng)
            places, value = places[np.isfinite(value)], value[np.isfinite(value)]
            numbers[places, column], changed[places, column] = value, True
            is_free[places, column] = False

        n_free = -1
        while n_free != is_free.sum():
            n_free = is_free.sum()
            for k, relation in enumerate(self.relations):
                for column in relation.columns:
                    fill(k, column, is_free[:, list(relation.columns)].sum(1) == 1)
        for k, relation in enumerate(self.relations):
            fill(k, relation.child, is_free[:, relation.child])
            is_free[:, relation.child] = False
            n_numbers = {j: len(np.unique(numbers[:, j])) for j in relation.parents}
            for column in sorted(relation.parents, key=lambda j: -n_numbers[j]):
                fill(
                    k,
                    column,
                    np.isfinite(numbers[:, relation.child]) & ~self._open(relation, numbers)[1],
                )
            is_free[:, list(relation.parents)] = False
        numbers[:, list(self.counted)] += start
        return self._written(frame, numbers, changed)

    def _settle_clock(self, numbers: Floats, is_free: Bools, changed: Bools) -> None:
        """Fill clocks that follow from known cells of rows of numbers (N, C), in place."""
        clock = cast(int, self.clock)
        for relation in self.relations:
            columns = list(relation.columns)
            rows = np.flatnonzero(is_free[:, clock] & (is_free[:, columns].sum(1) == 1))
            if clock not in columns or not self._columns[clock].is_time or not len(rows):
                continue
            related, trial = self._columns[clock], numbers[rows]
            steps = np.rint((relation.solved(trial, clock) - related.epoch) / related.unit)
            trial[:, clock] = steps * related.unit + related.epoch
            follows = relation.follows(trial) == 1
            rows = rows[follows]
            numbers[rows, clock], changed[rows, clock] = trial[follows, clock], True
            is_free[rows, clock] = False

    def _filled(
        self, relation: Relation, numbers: Floats, column: int, rng: np.random.Generator | None
    ) -> Floats:
        """Numbers (n,) of a column by a relation with the others of rows (n, C); NaN where it gives none."""
        if column != relation.child:
            near = np.column_stack(self._solutions(relation, numbers, column))
            return near[np.arange(len(near)), np.isfinite(near).argmax(1)]
        child, value = self._columns[column], relation.values(numbers)
        n, first, last = child.between(value, relation.open_half(numbers))
        if rng is not None:
            value = first - child.reach + (last - first + 2 * child.reach) * rng.random(len(n))
        return np.where(n > 0, np.clip(child.nearest(value), first, last), np.nan)

    def _written(self, frame: pd.DataFrame, numbers: Floats, changed: Bools) -> pd.DataFrame:
        """The table with the ``changed`` cells as the numbers (N, C)."""
        frame = frame.copy()
        for j in np.flatnonzero(changed.any(0)).tolist():
            column, rows = self.schema[j], changed[:, j]
            cells = self._columns[j].cells(numbers[rows, j])
            values = cast(pd.Series, frame[column.name]).copy()
            values[rows] = cells.to_numpy()
            frame[column.name] = values
        return frame
