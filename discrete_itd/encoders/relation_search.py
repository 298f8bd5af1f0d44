r"""The search for relations (23) among columns of numbers: proposals of a few rows, on which all rows vote.

Relations are *proposed* by a few rows, drawn several times. Of a column, or of an expression up to its factor c and
constant d, the differences to the first of these rows are a point; where the points of a column and of an expression
coincide, one may follow from the other. Sums are compared by the direction of these points, so that c is any number;
products as sums of logarithms, in which c cancels. Expressions of two columns are the points of one tree, in which
every column, alone or combined with one more, looks for neighbours: of C columns there are C² points and C² searches,
and no loop over triples. Where the points of two terms that share a column (a / b and a · c, or a · b and 1) span a
plane in which that of a column lies, it is a sum of multiples of both, one of them simple. Longer sums are regressions
of least absolute deviations.

All rows *vote*: c is the simplest number that the rows agree on, d likewise, and a relation is kept if most rows
follow. It is *shortened* by each term and factor without which the child is coded in as few nats, the rounding of its
parents considered; *extended* by columns that explain the rows that do not follow; and *solved* for each of its
columns, of which the child is the one whose solution saves most nats, compared with its shares, alone or beside one
parent.

References
----------
Parciak et al., "Measuring approximate functional dependencies: a comparative study", ICDE 2024, arXiv:2312.06296.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.util import hash_array
from scipy.spatial import KDTree

from discrete_itd.encoders.column import Column
from discrete_itd.encoders.numeric import find_lattice
from discrete_itd.encoders.relations import (
    FLOAT,
    FORMS,
    ON_LATTICE,
    TIME_FORMS,
    Bools,
    ColumnTerm,
    Floats,
    Relation,
    Term,
    is_numeric,
    n_digits,
    numbers_of,
    open_places,
    renumbered,
    value_of,
)

# Rows that propose: so many draws, each of so many differences to its first row, chosen among the most complete ones of
# CANDIDATE_ROWS. Of a relation of four columns, in each of which 2 % of the cells are wrong, one draw is free of wrong
# cells with probability .56, one of the six with .993.
N_DRAWS, N_DIFFERENCES, CANDIDATE_ROWS = 6, 6, 64
CHECK_ROWS = 12  # further rows, of which half are to agree before all vote
# Rows that vote on a proposal, few of them first; a relation that is kept is counted in all rows.
FEW_ROWS, MOST_ROWS = 150, 2000
MOST_ASKED = 500  # of them, those that a factor and a constant are read from
FEWEST_VALUES = 4  # numbers of a child: a column of three is as good as a function of any column that agrees with it
FEWEST_ROWS = 30  # rows with child and parents from which a relation may be found
# largest share of the most frequent number of a column that proposals are made of, in all rows or in the distinct ones
MOST_USUAL = 0.9
MOST_COLUMNS = 300  # columns of numbers among which relations are looked for
# most columns for searches whose number grows with the fourth power: a product and a column, four columns of a sum
FEW_COLUMNS = 60
# Regressions on the other columns: rounds of reweighting, the least share of a child's variance that the others
# explain, the least part of its mean deviation that a column of a sum has, and most columns of a sum.
N_REWEIGHTED, LEAST_EXPLAINED, LEAST_PART, MOST_SUMMANDS = 12, 0.5, 0.01, 100
# A regression is tried on so many rows for each column, in so many rounds. A row is near it at this part of the mean
# deviation, or of the child's own: then are .65 to .97 of the rows of a sum that 80 to 95 % follow, and 7 to 20 % of
# others; at least so many are to be.
ROWS_A_SUMMAND, N_TRIED, NEAR, LEAST_NEAR = 6, 3, 0.1, 0.3
FEWEST_OF_GROUP = 5  # columns of a relation of which no other one is proposed
MOST_PAIRS = 20_000  # points in a tree; of more pairs of columns, so many are drawn
MOST_NEIGHBOURS = 10  # neighbours of a point that are tried
SMALLEST, WIDEST = 1e-7, 0.1  # distances of neighbours, relative to the size of a point
# Least share of the rows that follow, and of those that do not hold the child's most frequent number, which follows
# from anything. Two columns may agree in most rows because they are about the same (the years in which house and garage
# were built), so a child of one parent follows in more rows.
LEAST_SHARE, LEAST_OTHERS, LEAST_SHARE_OF_ONE = 0.8, 0.6, 0.95
# Where most rows are exact, values midway between two numbers are taken for rounded ones if there are at most so many
# for each one off the lattice that has a nearest number: of values in tenths of a step, one in nine is midway.
MOST_MIDWAY = 9
# Share of the rows of a wider or longer form with which a more exact or simpler one is kept.
NEARLY_ALL = 1 / 1.02
# Share of the rows that follow a shorter form from which a longer one is to be better than it.
LEAST_OF_SHORTER = 0.5
MOST_OPEN = 4  # numbers of the lattice that rounding may leave open, in the median row
BIN_ROWS = 50  # rows of a bin of a parent, beside which a child of few numbers may be as likely as by the relation
# Nats that a relation saves in all distinct rows at least, beyond its constants and the logarithm of the number of
# proposals: what speaks against it beforehand. With 5, nine of 200 tables of unrelated columns had one.
LEAST_EVIDENCE = 12.0
NO_CONSTANT = 0.01  # part of the child's step up to which a constant is a float error
LEAST_GAIN = 0.1  # nats a row that a relation saves
MOST_EXTENSIONS = 3  # columns by which a relation is extended
FEWEST_EXPLAINED = 3  # rows that do not follow and that an extension explains
# simple factors c, and their inverses: counts, powers of ten, units of time
SIMPLE = (*range(1, 13), 24, 60, 100, 365, 1000, 1440, 3600, 10_000, 86_400, 1_000_000)
PARENT_PRICE = 0.3  # nats a row by which a relation must be better than one with a parent less
DIGIT_PRICE = 0.02  # the same for a nat of the constants
# Of sums of two terms: from how many widths on a child is no multiple of one of them, the rounding error of products of
# points, and how far a factor may be beside a simple one.
FAR, ROUNDED, SIMPLE_ERROR = 3.0, 1e-11, 0.01
LARGEST = 1e100  # size of the largest number that takes part: products of three are floats
SINGLE = 2.4e-7  # relative rounding error of numbers that were float32

Skeleton = tuple[int, tuple[Term, ...]]


def relations_of(frame: pd.DataFrame, schema: Sequence[Column]) -> tuple[Relation, ...]:
    """The relations among the columns of a table."""
    times = [j for j, column in enumerate(schema) if column.family == "datetime"]
    texts = [j for j, column in enumerate(schema) if not is_numeric(column)]
    return find_relations(numbers_of(frame, schema), times=times, texts=texts)


def find_relations(
    x: Floats, *, times: Collection[int] = (), texts: Collection[int] = (), seed: int = 0
) -> tuple[Relation, ...]:
    """The relations among columns of numbers (N, C), NaN where there is none.

    A column is the child of one relation at most, and none follows from itself by others. Neither the order of the rows
    nor that of the columns changes them. ``times`` are in days since 1970; numbers of ``texts`` are no children.
    """
    x = np.where(np.abs(x) <= LARGEST, x, np.nan)
    order = _column_order(x)
    times, texts = ([k for k, j in enumerate(order) if j in of] for of in (times, texts))
    search = _Search(x[:, order], times, texts, seed)
    return tuple(_in_columns(relation, order) for relation in search.relations())


class _Search:
    """Columns of numbers (N, C) in an order of their own, what is known of each, and the distinct rows that vote."""

    def __init__(self, x: Floats, times: Sequence[int], texts: Sequence[int], seed: int) -> None:
        self.x, self.times, self.texts = x, times, texts
        self.rng = np.random.default_rng(seed)
        n_columns = x.shape[1]
        # step and origin of each column's lattice, and errors of its floats: 0 for exact decimals
        self.steps, self.origins, self.errors = (np.zeros(n_columns) for _ in range(3))
        self.off_lattice = set[int]()
        self.varying = list[int]()  # columns of at least two numbers
        self.columns = list[int]()  # and those of which proposals are made
        self.numerous = list[int]()  # and those of several numbers: children, summands
        distinct = np.unique(_row_keys(x), return_index=True)[1]  # in an order of their own
        for j, numbers in enumerate(x.T):
            known = numbers[np.isfinite(numbers)]
            values = np.unique(known)
            if len(known) < FEWEST_ROWS or len(values) < 2:
                continue
            self.varying.append(j)
            self._measure(j, values)
            if min(_usual_share(known), _usual_share(numbers[distinct])) <= MOST_USUAL:
                self.columns.append(j)
                if len(values) >= FEWEST_VALUES:
                    self.numerous.append(j)
        self.voters = x[self.rng.permutation(distinct)[:MOST_ROWS]]
        self.tried = dict[tuple[int, bool, float, tuple[Term, ...]], Relation | None]()

    def _measure(self, j: int, values: Floats) -> None:
        """Set step, origin and float error of a column with these distinct numbers."""
        step, origin = find_lattice(self.x[np.isfinite(self.x[:, j]), j])
        largest = np.abs(values).max()
        with np.errstate(over="ignore"):
            off = np.abs(values.astype(np.float32) - values)
        error = SINGLE * largest * float((off <= FLOAT * np.abs(values)).all())
        if origin is None:
            self.off_lattice.add(j)
            self.steps[j], self.errors[j] = max(4 * error, FLOAT * largest), error
            return
        places = (values - origin) / step
        off = np.abs(places - np.rint(places)) * step
        is_exact = off <= 1e-14 * np.maximum(np.abs(values), step)
        self.steps[j], self.origins[j] = step, origin
        self.errors[j] = 0.0 if is_exact.mean() > 0.9 else error

    def relations(self) -> list[Relation]:
        """The relations, best first."""
        if not self.numerous or not 1 < len(self.columns) <= MOST_COLUMNS:
            return []
        found = set[Relation]()
        draws = (self._draw() for _ in range(N_DRAWS))
        long_groups = set[frozenset[int]]()
        for child, terms in itertools.chain(self._long_sums(), *draws):
            group = frozenset({child, *(f.column for term in terms for f in term.factors)})
            if group in long_groups:  # which is solved for each of its columns
                continue
            relation = self._voted(child, terms)
            if relation is not None:
                found.add(relation)
                if len(group) >= FEWEST_OF_GROUP:
                    long_groups.add(group)
        best = set[Relation]()
        for _ in range(2):  # what is shortened or extended is solved once more
            found = {solved for r in found for solved in (r, *self._solutions(r))} - best
            found = {self._shortened(r) for r in found if self._rank(r, LEAST_SHARE) is not None}
            found = {self._extended(relation) for relation in found}
            best |= found
        ranked = [(rank, r) for r in best if (rank := self._rank(r)) is not None]
        chosen = []
        for relation in _without_cycles(sorted(ranked, key=lambda pair: pair[0])):
            follows = relation.follows(self.x)
            n_follow, n_rows = int((follows == 1).sum()), int(np.isfinite(follows).sum())
            relation = replace(relation, n_follow=n_follow, n_rows=n_rows)
            if n_follow >= self._least_share(relation) * n_rows:
                chosen.append(relation)
        return chosen

    def _least_share(self, relation: Relation) -> float:
        return LEAST_SHARE if len(relation.parents) > 1 else LEAST_SHARE_OF_ONE

    def _rank(
        self, relation: Relation, least_share: float = 0.0
    ) -> tuple[float, int, tuple[int, ...]] | None:
        """By what relations are chosen, least first; None if it saves too few nats, or too few rows follow."""
        gains = _gains(relation, self.voters)
        least = LEAST_EVIDENCE + math.log(max(1, len(self.tried)))
        is_good = (
            gains.mean() > LEAST_GAIN
            and gains.sum() > least + relation.description
            and relation.n_follow >= (least_share or self._least_share(relation)) * relation.n_rows
        )
        price = PARENT_PRICE * len(relation.parents) + DIGIT_PRICE * relation.description
        rank = round(price - float(gains.mean()), 6), relation.child, relation.parents
        return rank if is_good else None

    # -- forms ------------------------------------------------------------------------------------

    def _shortened(self, relation: Relation) -> Relation:
        """The relation without terms and factors that save no nats; its factor and constant are voted on again."""
        for terms in _shorter(relation.terms):
            shorter = self._voted(relation.child, terms, least_share=LEAST_OF_SHORTER)
            if shorter is not None and not self._is_better(relation, shorter):
                return self._shortened(shorter)
        return relation

    def _is_better(self, longer: Relation, shorter: Relation) -> bool:
        """Whether a relation saves nats compared with another one of the same child, in rows known to both."""
        rows = _distinct(self.voters, [*longer.columns, *shorter.parents])
        if not len(rows):
            return False
        codes = np.unique(np.rint(rows[:, longer.child] / longer.step), return_inverse=True)[1]
        alone = _code_lengths(codes, np.zeros_like(codes))
        # a longer relation is to explain more than the rounding of the child and of its parents would
        most = _log_factors(shorter, rows, alone).sum()
        for steps in ((), tuple(self.steps[list(shorter.parents)].tolist())):
            wide = replace(shorter, half=shorter.step / 2, parent_steps=steps, constant=0.0)
            rest = rows[:, wide.child] - wide.values(rows)
            wide = replace(wide, constant=_constant(rest, wide.open_half(rows), wide.half))
            most = max(most, _log_factors(wide, rows, alone).sum())
        saved = _log_factors(longer, rows, alone).sum() - most
        return saved > LEAST_EVIDENCE + math.log(max(1, len(self.tried)))

    def _extended(self, relation: Relation) -> Relation:
        """The relation with more columns by which the rows differ that do not follow, if there are any."""
        for _ in range(MOST_EXTENSIONS):
            longer = [
                r
                for terms in self._extensions(relation)
                if (r := self._voted(relation.child, terms, (1.0,)))
                and self._is_better(r, relation)
            ]
            if not longer:
                break
            relation = self._shortened(max(longer, key=lambda r: (r.n_follow, -r.child)))
        return relation

    def _extensions(self, relation: Relation) -> Iterator[tuple[Term, ...]]:
        """Terms of longer relations that some of the rows follow that do not follow this one."""
        missed = self.voters[relation.follows(self.voters) == 0]
        if len(missed) < FEWEST_EXPLAINED:
            return
        value = relation.values(missed)
        half = np.maximum(relation.open_half(missed), relation.step / 2)
        child = missed[:, relation.child]
        sizes = {abs(term.coefficient) for term in relation.terms}
        coefficients = {c * size for s in SIMPLE for c in (s, 1 / s) for size in (1.0, *sizes)}
        for j in self.varying:
            if j in relation.columns:
                continue
            numbers = missed[:, j]
            some = np.isfinite(numbers) & (numbers != 0)
            if some.sum() >= FEWEST_EXPLAINED and j not in self.times:
                ends = (
                    np.array([child - value - half, child - value + half])[:, some] / numbers[some]
                )
                for k, n in _most_common(ends):
                    if n >= FEWEST_EXPLAINED and abs(k) in coefficients:
                        yield (*relation.terms, Term(k, (ColumnTerm(j),)))
            if relation.constant or j in self.times:
                continue
            for form in ("x", "1/x", "1+%", "1-%"):
                factor = ColumnTerm(j, form)
                with np.errstate(all="ignore"):
                    near = np.abs(child - value * factor.of(missed)) <= half
                if near.sum() >= FEWEST_EXPLAINED:
                    yield tuple(
                        replace(t, factors=tuple(sorted((*t.factors, factor))))
                        for t in relation.terms
                    )

    def _solutions(self, relation: Relation) -> Iterator[Relation]:
        """The relation solved for each of its parents, where that is one of the forms."""
        for column in relation.parents:
            terms = _solved_terms(relation, column)
            if terms is None or column not in self.numerous:
                continue
            size = abs(terms[0].coefficient)
            is_simple = any(math.isclose(size, c) for s in SIMPLE for c in (s, 1 / s))
            ways = (terms,) if is_simple else (terms, self._with_real_factor(column, terms))
            for way in ways:
                solved = self._voted(column, way, (1.0,))
                if solved is not None:
                    yield solved

    def _with_real_factor(self, child: int, terms: tuple[Term, ...]) -> tuple[Term, ...]:
        """The terms, the first with the shortest factor that most voters allow, whether they are rounded or cut off."""
        first, *others = terms
        value = value_of([replace(first, coefficient=1.0)], self.voters)
        rest = self.voters[:, child] - value_of(others, self.voters)
        some = np.isfinite(rest) & np.isfinite(value) & (value != 0)
        rest, value = rest[some][:MOST_ASKED], value[some][:MOST_ASKED]
        width = self.steps[child] * (1 + ON_LATTICE)
        common = _most_common(np.array([rest - width, rest + width]) / value)
        # with a factor of zero the others say all there is
        is_factor = bool(common) and common[0][0] != 0
        return (replace(first, coefficient=common[0][0]), *others) if is_factor else terms

    # -- votes ------------------------------------------------------------------------------------

    def _voted(
        self,
        child: int,
        terms: tuple[Term, ...],
        factors: Sequence[float] = (),
        least_share: float = LEAST_SHARE,
    ) -> Relation | None:
        """The relation with the factor and the constant that most voters agree on; None if these are too few.

        ``factors`` are the only ones that are tried, if there are any.
        """
        if not all(term.coefficient for term in terms):
            return None
        terms = _normal(terms) if not factors else tuple(sorted(terms, key=_term_order))
        key = child, bool(factors), least_share, terms
        if key not in self.tried:
            self.tried[key] = relation = None
            value = value_of(terms, self.voters)
            rows = np.flatnonzero(np.isfinite(self.voters[:, child]) & np.isfinite(value))
            for some in () if child in self.texts else (rows[:FEW_ROWS], rows):
                relation = self._vote(child, terms, some, value[some], factors, least_share)
                if relation is None:
                    break
            self.tried[key] = relation
        return self.tried[key]

    def _vote(
        self,
        child: int,
        terms: tuple[Term, ...],
        rows: np.ndarray,
        value: Floats,
        factors: Sequence[float],
        least: float,
    ) -> Relation | None:
        """The relation by some of the voters, all with numbers, in which the terms have a ``value``; None without."""
        number, step = self.voters[rows, child], float(self.steps[child])
        values, counts = np.unique(number, return_counts=True)
        if len(rows) < FEWEST_ROWS or len(values) < FEWEST_VALUES:
            return None
        n_rows = len(rows)
        relation = Relation(child, terms, 0.0, step, float(self.origins[child]), 0.0, (), 0, n_rows)
        x = self.voters[rows[:, None], list(relation.parents)]
        compact = replace(relation, terms=renumbered(terms, relation.parents))
        is_other = number != values[counts.argmax()]
        most_open = min(MOST_OPEN, max(1, len(values) // 8))
        widths = dict[tuple[float, ...], Floats]()  # by the rounding of the parents, for c = 1
        best: Relation | None = None
        for c in factors or _factors(number, value, step):
            scaled = tuple(Term(float(f"{c * t.coefficient:.12g}"), t.factors) for t in terms)
            ways = list[tuple[float, tuple[float, ...], Floats]]()
            for half, parent_steps in self._roundings(relation, c * value):
                if parent_steps not in widths:
                    widths[parent_steps] = replace(compact, parent_steps=parent_steps).open_half(x)
                width = half + abs(c) * widths[parent_steps]
                if _are_most(2 * width <= most_open * step):
                    ways.append((half, parent_steps, width))
            if (
                n_rows <= MOST_ASKED and ways
            ):  # no constant suits more rows than the widest interval
                widest = np.max([width for *_, width in ways], axis=0) + NO_CONSTANT * step
                widest = widest + FLOAT * np.abs(number)
                rest = number - c * value
                if _deepest(np.sort(rest - widest), np.sort(rest + widest)) < least * n_rows:
                    continue
            for half, parent_steps, width in ways:
                if best is not None and best.n_follow >= NEARLY_ALL * n_rows:
                    return best
                rest = number - c * value
                constant = _constant(rest, width + ON_LATTICE * step, half)
                constant *= abs(constant) > NO_CONSTANT * step
                value_place = (c * value + constant - relation.origin) / step
                first, last = open_places(value_place, width / step)
                place = np.rint((number - relation.origin) / step)
                follows = (first <= place) & (place <= last)
                # what is more exact, or simpler, is kept unless a fiftieth more of the rows follow
                n_follow = int(follows.sum())
                n_more = n_follow
                if best is not None and best.n_follow >= LEAST_SHARE * n_rows and not parent_steps:
                    # wrong numbers, too, move a value to the middle between two of the child, and both follow
                    n_midway = int((follows & (last > first)).sum())
                    is_between = np.abs(value_place - np.rint(value_place)) > ON_LATTICE
                    n_between = int((follows & (last == first) & is_between).sum())
                    n_more -= n_midway * (n_midway > MOST_MIDWAY * n_between)
                if (
                    n_follow >= least * n_rows
                    and follows[is_other].mean() >= least - LEAST_SHARE + LEAST_OTHERS
                    and (best is None or NEARLY_ALL * n_more > best.n_follow)
                    and _are_most(last - first < most_open)
                ):
                    best = replace(
                        relation,
                        terms=scaled,
                        constant=constant,
                        half=half,
                        parent_steps=parent_steps,
                        n_follow=n_follow,
                    )
        return best

    def _roundings(
        self, relation: Relation, value: Floats
    ) -> Iterator[tuple[float, tuple[float, ...]]]:
        """Halves of the interval and parents' steps by which the child may have been rounded, exact ones first."""
        step, parents = relation.step, list(relation.parents)
        errors = tuple(self.errors[parents].tolist()) if self.errors[parents].any() else ()
        if relation.child in self.off_lattice:  # the nearest points of two near numbers may differ
            yield 0.75 * step, errors
        else:
            places = (value - relation.origin) / step
            is_rounded = (np.abs(places - np.rint(places)) < ON_LATTICE).mean() <= NEARLY_ALL
            yield 0.0, errors
            if is_rounded:
                yield step / 2, errors
        steps = self.steps[parents]
        if (np.array([step, *steps]) % 1).any():  # counts are not rounded
            rounded = tuple(np.maximum(steps, self.errors[parents]).tolist())
            yield 0.0, rounded
            yield step / 2, rounded

    # -- proposals --------------------------------------------------------------------------------

    def _draw(self) -> Iterator[Skeleton]:
        """Children and terms, up to a factor and a constant, that a few rows drawn from the voters agree on."""
        some = self.voters[self.rng.permutation(len(self.voters))[:CANDIDATE_ROWS]]
        with np.errstate(invalid="ignore"):
            counted = np.isfinite(some[:, self.columns]), np.abs(some[:, self.columns]) > 0
        # products are of numbers that are not zero
        for has_number, kinds in zip(
            counted, ((self._sums,), (self._products, self._bilinear)), strict=True
        ):
            complete = np.argsort(-has_number.sum(1), kind="stable")
            for proposals in kinds if len(complete) > 2 else ():
                yield from proposals(some[complete[: 1 + N_DIFFERENCES + CHECK_ROWS]])

    def _sums(self, rows: Floats) -> Iterator[Skeleton]:
        """Multiples of columns and of sums of two; one sum of two that is another one, or a product."""
        of = [ColumnTerm(j, "log") for j in self.numerous if j not in self.times]
        of += [ColumnTerm(j) for j in self.numerous]
        of += [ColumnTerm(j, form) for j in self.times for form in TIME_FORMS]
        checks = np.array([f.of(rows) for f in of])
        numbers = checks[:, : 1 + N_DIFFERENCES]
        varies = np.ptp(numbers, axis=1) > 0  # not NaN
        of = [f for f, v in zip(of, varies, strict=True) if v]
        if len(of) < 2:
            return
        numbers, checks = numbers[varies], checks[varies]
        at = numbers[:, 1:] - numbers[:, :1]
        columns = np.array([f.column for f in of])
        steps = np.array([self.steps[f.column] for f in of])
        is_child = np.array([f.form == "x" for f in of])
        paired = [i for i, f in enumerate(of) if f.form != "log"]
        pairs = np.array(paired, dtype=int)[np.column_stack(np.triu_indices(len(paired), 1))]
        # of two times, the difference of one part of both
        is_time = np.isin(columns, self.times)[pairs].all(1)
        form = np.array([[*FORMS].index(f.form) for f in of])[pairs]
        pairs = pairs[~is_time | (form[:, 0] == form[:, 1])]
        if len(pairs) > MOST_PAIRS:
            pairs = pairs[np.sort(self.rng.permutation(len(pairs))[:MOST_PAIRS])]
        left, right = np.concatenate([pairs, pairs]).T
        sign = np.repeat([1.0, -1.0], len(pairs))
        two = at[left] + sign[:, None] * at[right]
        size = np.abs(two).max(1, initial=0.0)
        kept = size > FLOAT * (np.abs(at[left]) + np.abs(at[right])).max(1, initial=0.0)
        left, right, sign, two, size = left[kept], right[kept], sign[kept], two[kept], size[kept]

        def sum_of(i: int) -> tuple[Term, ...]:
            return Term(1.0, (of[left[i]],)), Term(float(sign[i]), (of[right[i]],))

        length = np.maximum(np.linalg.norm(at, axis=1), np.finfo(float).tiny)
        radii = np.clip(1.5 * steps * math.sqrt(at.shape[1]) / length, SMALLEST, WIDEST)
        children = np.flatnonzero(is_child)
        every, directions = _directions(np.concatenate([at, two])), _directions(at)[children]
        for i, k in zip(*_neighbours(every, directions, radii[children]), strict=True):
            terms = sum_of(k - len(of)) if k >= len(of) else (Term(1.0, (of[k],)),)
            if all(f.column != columns[children[i]] for term in terms for f in term.factors):
                yield int(columns[children[i]]), terms
        if len(of) > FEW_COLUMNS:
            return
        # one sum of two is another one, or a product
        widths = 1.5 * np.maximum(steps[left], steps[right])
        radii = np.minimum(widths, size / 50) + 1e-6 * size
        a, b = pairs.T
        products = numbers[a] * numbers[b]
        products = products[:, 1:] - products[:, :1]
        both = checks[left] + sign[:, None] * checks[right]

        def product_of(i: int) -> tuple[Term, ...]:
            return (Term(1.0, (of[a[i]], of[b[i]])),)

        for points, terms_of, first, second, values in (
            (two, sum_of, left, right, both),
            (products, product_of, a, b, checks[a] * checks[b]),
        ):
            i, k = _neighbours(points, two, radii)
            inside = np.stack([columns[t] for t in (left[i], right[i], first[k], second[k])])
            widest = np.maximum(widths[i], radii[i])[:, None]
            good = _are_distinct(inside) & _are_constant(both[i] - values[k], widest)
            for pair, point in np.stack([i, k], axis=1)[good].tolist():
                one, other = of[left[pair]], of[right[pair]]
                if is_child[left[pair]]:
                    yield one.column, (*terms_of(point), Term(-float(sign[pair]), (other,)))
                if sign[pair] > 0 and is_child[right[pair]]:
                    yield other.column, (*terms_of(point), Term(-1.0, (one,)))

    def _products(self, rows: Floats) -> Iterator[Skeleton]:
        """Products and quotients of two factors, and of three one of which is a percentage, up to a factor."""
        factors, logs = list[ColumnTerm](), list[Floats]()
        for j in self.columns:
            numbers = rows[: 1 + N_DIFFERENCES, j]
            if j in self.times or not np.isfinite(numbers).all():
                continue
            is_share = numbers.min() >= 0 and numbers.max() <= 100
            for form in ("x", "1/x", "1+%", "1-%") if is_share else ("x", "1/x"):
                with np.errstate(all="ignore"):
                    log = np.log(np.abs(FORMS[form](rows[:, j])))
                if np.isfinite(log[: len(numbers)]).all() and np.ptp(log[: len(numbers)]) > 0:
                    factors.append(ColumnTerm(j, form))
                    logs.append(log)
        numerous = {*self.numerous}
        plain = [i for i, f in enumerate(factors) if f.form == "x" and f.column in numerous]
        if not plain:
            return
        of, is_plain = (
            np.array(t) for t in zip(*((f.column, f.form == "x") for f in factors), strict=True)
        )
        pairs = np.column_stack(np.triu_indices(len(factors), 1))
        pairs = pairs[(of[pairs[:, 0]] != of[pairs[:, 1]]) & is_plain[pairs].any(1)]
        pairs = np.concatenate([pairs, np.repeat(plain, 2).reshape(-1, 2)])
        if len(pairs) > MOST_PAIRS:
            pairs = pairs[np.sort(self.rng.permutation(len(pairs))[:MOST_PAIRS])]
        checks = np.array(logs)
        at = checks[:, 1 : 1 + N_DIFFERENCES] - checks[:, :1]
        first, second = pairs.T
        is_percent = np.array([f.form in ("1+%", "1-%") for f in factors])
        divisors = np.flatnonzero(is_percent | (len(plain) <= FEW_COLUMNS // 2))
        none = len(factors)  # the position of a factor of one
        at = np.concatenate([at, np.zeros_like(at[:1])])
        checks = np.concatenate([checks, np.zeros_like(checks[:1])])
        columns = np.array([*(f.column for f in factors), -1])
        child = np.repeat(plain, 1 + len(divisors))
        divisor = np.tile([none, *divisors.tolist()], len(plain))
        if len(child) > MOST_PAIRS:
            asked = self.rng.random(len(child)) < MOST_PAIRS / len(child)
            asked |= divisor == none
            child, divisor = child[asked], divisor[asked]
        numbers = np.abs(rows[:, columns[child]]).T
        with np.errstate(divide="ignore"):
            widths = np.clip(1.5 * self.steps[columns[child], None] / numbers, SMALLEST, WIDEST / 2)
        radii = widths[:, : 1 + N_DIFFERENCES].max(1)
        i, k = _neighbours(at[first] + at[second], at[child] - at[divisor], radii)
        inside = np.stack([columns[t] for t in (child[i], divisor[i], first[k], second[k])])
        is_square = (divisor[i] == none) & (first[k] == second[k]) & (inside[0] != inside[2])
        with np.errstate(invalid="ignore"):  # logarithms of zero
            product = checks[first[k]] + checks[second[k]] + checks[divisor[i]]
            good = _are_constant(checks[child[i]] - product, widths[i])
        good &= _are_distinct(inside) | is_square
        for quotient, pair in np.stack([i, k], axis=1)[good].tolist():
            places = [p for p in (first[pair], second[pair], divisor[quotient]) if p != none]
            yield (
                int(columns[child[quotient]]),
                (Term(1.0, tuple(sorted(factors[p] for p in places))),),
            )

    def _bilinear(self, rows: Floats) -> Iterator[Skeleton]:
        """Sums of two of: a column, its products and quotients with others, and a constant.

        A child y is such a sum if the point of its numbers lies in the plane of the two: of all pairs the distances
        follow from the products of points.
        """
        of = [j for j in self.columns if j not in self.times]
        with np.errstate(invalid="ignore"):
            known = np.isfinite(rows[:, of]) & (np.abs(rows[:, of]) > 0)
        of = np.array(of, dtype=int)[known[: 1 + N_DIFFERENCES].all(0)]
        if not 1 < len(of) <= FEW_COLUMNS // 2:
            return
        cells = rows[:, of].T
        child = np.flatnonzero(np.isin(of, self.numerous))
        y, width = cells[child], 1.5 * self.steps[of[child], None]
        none = len(of)
        for a in range(len(of)):
            others = np.delete(np.arange(len(of)), a)
            with np.errstate(all="ignore"):
                products, quotients = cells[others] * cells[a], cells[a] / cells[others]
            terms = np.concatenate([np.ones_like(cells[:1]), cells[[a]], products, quotients])
            column = np.array([none, none, *others, *others])
            first, second, i = self._planes(y, terms, width)
            inside = np.stack([np.full_like(i, a), child[i], column[first], column[second]])
            is_new = (inside[1] != a) & (inside[1] != inside[2]) & (inside[1] != inside[3])
            # a constant beside a product of a and b is found with a alone, if a is the first
            is_new &= (first > 0) | (second > 1) & ((second > len(others) + 1) | (inside[3] > a))

            def term_of(k: int, a: int = a, column: np.ndarray = column) -> Term:
                factors = [ColumnTerm(int(of[a]))]
                if column[k] != none:
                    form = "x" if k < none + 1 else "1/x"
                    factors.append(ColumnTerm(int(of[column[k]]), form))
                return Term(1.0, tuple(sorted(factors)))

            for k, g, h in np.stack([i, first, second], axis=1)[is_new].tolist():
                column_of_child = int(of[child[k]])
                if g == 0:
                    yield column_of_child, (term_of(h),)
                else:
                    yield from self._with_simple_factors(column_of_child, term_of(g), term_of(h))

    @np.errstate(all="ignore")  # terms may be infinite
    def _planes(self, y: Floats, terms: Floats, width: Floats) -> tuple[np.ndarray, ...]:
        """Positions of pairs of terms (F, n), and of numbers y (C, n) that are a sum of multiples of them."""
        n = 1 + N_DIFFERENCES
        some = np.asarray(np.isfinite(terms[:, :n]).all(axis=1))
        points = np.where(some[:, None], terms[:, :n], 0.0)
        length = np.linalg.norm(points, axis=1)
        some &= (length > 0) & np.isfinite(length)
        points = points / np.where(some, length, 1.0)[:, None]
        first, second = np.triu_indices(len(terms), 1)
        cosine = (points @ points.T)[first, second]
        kept = some[first] & some[second] & (cosine**2 < 1 - SMALLEST)
        first, second, cosine = first[kept], second[kept], cosine[kept]
        along, square = y[:, :n] @ points.T, np.square(y[:, :n]).sum(1, keepdims=True)
        left = square - np.square(along)  # of one term alone
        b, c = along[:, first], along[:, second]
        away = square - (b**2 + c**2 - 2 * cosine * b * c) / (1 - cosine**2)
        radius = n * width**2
        alone = np.minimum(left[:, first], left[:, second])
        near = (away <= np.maximum(radius, ROUNDED * square)) & (away <= WIDEST**2 * alone)
        i, k = np.nonzero(near & (alone > FAR**2 * radius))
        first, second, cosine = first[k], second[k], cosine[k]
        b, c = along[i, first], along[i, second]
        slope = np.stack([b - cosine * c, c - cosine * b]) / (1 - cosine**2)
        slope /= length[[first, second]]
        rest = y[i] - slope[0][:, None] * terms[first] - slope[1][:, None] * terms[second]
        rest, width = rest[:, n:], 2 * width[i] + FLOAT * np.abs(y[i, n:])
        good = (np.abs(rest) <= width).sum(1) >= np.isfinite(rest).sum(1) / 2
        return first[good], second[good], i[good]

    def _with_simple_factors(self, child: int, *terms: Term) -> Iterator[Skeleton]:
        """Sums of two terms of which one has a simple factor, and the other the shortest that most voters allow."""
        number, values = self.voters[:, child], [value_of([t], self.voters) for t in terms]
        some = np.isfinite(number) & np.isfinite(values).all(0) & np.any(values, axis=0)
        number, values = number[some], np.array(values)[:, some]
        sizes = np.abs(values).mean(1)
        if some.sum() < FEWEST_ROWS or not (np.isfinite(sizes) & (sizes > 0)).all():
            return
        scale = np.abs(number - np.median(number)).mean()
        # relative to their terms, so that a wrong row of large numbers weighs no more than another one
        rows, own = (values / sizes[:, None]).T, np.abs(values / sizes[:, None]).sum(0)
        beta = _least_deviations(rows / own[:, None], number / scale / own)
        if beta is None:
            return
        factors = beta * scale / sizes
        for k in np.flatnonzero(factors):
            near = [
                v for s in SIMPLE for v in (s, 1 / s) if abs(abs(factors[k]) / v - 1) < SIMPLE_ERROR
            ]
            if not near:
                continue
            simple = min(near, key=lambda v: abs(math.log(abs(factors[k]) / v)))
            first = replace(terms[k], coefficient=math.copysign(simple, factors[k]))
            second, _ = self._with_real_factor(child, (terms[1 - k], first))
            yield child, (first, second)

    def _long_sums(self) -> Iterator[Skeleton]:
        """Sums of three columns or more with simple coefficients, by least absolute deviations of the voters."""
        columns = np.array([j for j in self.numerous if j not in self.times], dtype=int)
        columns = columns[np.isfinite(self.voters[:, columns]).mean(0) > 1 - MOST_USUAL]
        if len(columns) < 4:
            return
        rows = self.voters[:, columns]
        centred = rows - np.nanmedian(rows, axis=0)
        scale = np.nanmean(np.abs(centred), axis=0)
        z = np.nan_to_num(centred / np.where(scale > 0, scale, 1.0))
        precision = _inverse(z.T @ z, len(z))
        explained = 1 - 1 / (np.diag(precision) * np.diag(z.T @ z))
        for k in np.flatnonzero(explained > LEAST_EXPLAINED).tolist():
            parts = np.abs(precision[k] / precision[k, k])
            parts[k] = 0.0
            others = np.flatnonzero(parts > LEAST_PART)
            others = others[np.argsort(-parts[others], kind="stable")][:MOST_SUMMANDS]
            complete = np.isfinite(rows[:, [k, *others]]).all(1)
            if len(others) < 3 or complete.sum() < max(FEWEST_ROWS, 3 * len(others)):
                continue
            ones = np.ones((complete.sum(), 1))
            beta = _least_deviations(np.hstack([z[complete][:, others], ones]), z[complete, k])
            if beta is None:
                continue
            beta = beta[:-1]  # without the intercept
            c = beta * scale[k] / scale[others]
            sizes = np.where(np.abs(beta) > LEAST_PART, np.abs(c), np.nan)
            # coefficients are whole multiples of the one that most summands have
            alike = np.abs(sizes / sizes[:, None] - 1) < 0.05
            multiples = sizes / sizes[alike.sum(1).argmax()]
            near = np.rint(multiples)
            summands = np.flatnonzero((np.abs(multiples - near) < 0.05) & (near > 0) & (near <= 12))
            if len(summands) > 2:
                yield (
                    int(columns[k]),
                    tuple(
                        Term(float(np.sign(c[i]) * near[i]), (ColumnTerm(int(columns[others[i]])),))
                        for i in summands.tolist()
                    ),
                )


def _neighbours(points: Floats, others: Floats, radii: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Positions of others and of the nearest points within their radii, one pair each."""
    if not len(points) or not len(others):
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    n_asked = np.arange(1, min(MOST_NEIGHBOURS, len(points)) + 1)
    bound = float(radii.max()) * (1 + FLOAT)
    tree: Any = KDTree(points)
    away, places = tree.query(others, n_asked, distance_upper_bound=bound)
    i, rank = np.nonzero(away <= radii[:, None])
    return i, places[i, rank]


def _usual_share(numbers: Floats) -> float:
    """The share of the most frequent number (N,) among those that are known."""
    counts = np.unique(numbers[np.isfinite(numbers)], return_counts=True)[1]
    return float(counts.max() / counts.sum())


def _are_most(rows: Bools) -> bool:
    return bool(2 * np.count_nonzero(rows) >= len(rows))


def _are_constant(rest: Floats, widths: Floats) -> Bools:
    """Whether differences (n, N) are the same in half of the rows, to within widths."""
    rest = np.where(np.isfinite(rest), rest, np.nan)
    centre = np.nanmedian(rest[:, : 1 + N_DIFFERENCES], axis=1, keepdims=True)
    return (np.abs(rest - centre) <= 2 * widths).sum(1) >= np.isfinite(rest).sum(1) / 2


def _are_distinct(columns: np.ndarray) -> Bools:
    """Whether the positions (4, n) differ."""
    ordered = np.sort(columns, axis=0)
    return np.asarray((ordered[1:] > ordered[:-1]).all(0))


def _hashes(numbers: Floats) -> np.ndarray:
    numbers = np.where(np.isnan(numbers), np.nan, numbers + 0.0)
    return cast(np.ndarray, hash_array(numbers))  # pyright: ignore[reportCallIssue]


def _column_order(x: Floats) -> np.ndarray:
    """Positions of columns (N, C) in an order that depends on their numbers alone, not on the order of rows."""
    keys = [int(_hashes(numbers).sum(dtype=np.uint64)) for numbers in x.T]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=int)


def _row_keys(x: Floats) -> np.ndarray:
    """Hashes (N,) of rows (N, C)."""
    keys = np.zeros(len(x), np.uint64)
    for numbers in x.T:
        keys = keys * np.uint64(31) + _hashes(numbers)
    return keys


def _in_columns(relation: Relation, order: np.ndarray) -> Relation:
    """The relation with other positions of columns; its terms in the order of these, what is added before the rest."""
    terms = [
        Term(
            term.coefficient,
            tuple(
                sorted(
                    (ColumnTerm(int(order[f.column]), f.form) for f in term.factors),
                    key=lambda f: (f.form, f.column) if f.form == "1/x" else ("", f.column),
                )
            ),
        )
        for term in relation.terms
    ]
    terms.sort(key=lambda t: (t.coefficient < 0, [f.column for f in t.factors]))
    renumbered = replace(relation, child=int(order[relation.child]), terms=tuple(terms))
    steps = dict(zip(relation.parents, relation.parent_steps, strict=False))
    positions = {int(order[j]): step for j, step in steps.items()}
    return replace(
        renumbered, parent_steps=tuple(positions[j] for j in renumbered.parents) if steps else ()
    )


def _term_order(term: Term) -> tuple[ColumnTerm, ...]:
    return term.factors


def _normal(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Terms up to a common factor: in the order of their columns, one with coefficient one."""
    ordered = sorted(terms, key=_term_order)
    first = next(
        (t.coefficient for t in ordered if abs(t.coefficient) == 1), ordered[0].coefficient
    )
    return tuple(Term(float(f"{t.coefficient / first:.15g}"), t.factors) for t in ordered)


def _shorter(terms: tuple[Term, ...]) -> Iterator[tuple[Term, ...]]:
    """One of the terms or factors, or all without one term, or without one factor of a product."""
    for k, term in enumerate(terms):
        if len(terms) > 2:
            yield (term,)
        if len(terms) > 1:
            yield (*terms[:k], *terms[k + 1 :])
        if len(terms) == 1 and len(term.factors) > 2:
            yield from ((replace(term, factors=(factor,)),) for factor in term.factors)
        if len(term.factors) > 1:
            for i in range(len(term.factors)):
                factors = (*term.factors[:i], *term.factors[i + 1 :])
                yield (*terms[:k], replace(term, factors=factors), *terms[k + 1 :])


def _solved_terms(relation: Relation, column: int) -> tuple[Term, ...] | None:
    """The terms of which a parent is the sum, but for a constant; None if that is none of the forms."""
    inside = [t for t in relation.terms if any(f.column == column for f in t.factors)]
    child = ColumnTerm(relation.child)
    if len(inside) != 1:
        return None
    (term,) = inside
    if term.factors == (ColumnTerm(column),):
        rest = [replace(t, coefficient=-t.coefficient) for t in relation.terms if t is not term]
        terms = (Term(1.0, (child,)), *rest)
        return tuple(replace(t, coefficient=t.coefficient / term.coefficient) for t in terms)
    flipped = {"x": "1/x", "1/x": "x"}
    (factor, *others) = sorted(term.factors, key=lambda f: f.column != column)
    is_square = any(f.column == column for f in others)
    if (
        len(relation.terms) > 1
        or relation.constant
        or is_square
        or not all(f.form in flipped for f in term.factors)
    ):
        return None
    if factor.form == "x":
        factors = (child, *(replace(f, form=flipped[f.form]) for f in others))
        return (Term(1 / term.coefficient, tuple(sorted(factors))),)
    factors = (replace(child, form="1/x"), *others)
    return (Term(term.coefficient, tuple(sorted(factors))),)


def _directions(points: Floats) -> Floats:
    """Points at length one, their largest coordinate positive."""
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-300)
    largest = np.take_along_axis(unit, np.abs(unit).argmax(1)[:, None], 1)
    return unit * np.where(largest < 0, -1.0, 1.0)


def _inverse(gram: Floats, n: int) -> Floats:
    return np.asarray(np.linalg.inv(gram + 1e-9 * n * np.eye(len(gram))), dtype=float)


def _least_deviations(a: Floats, y: Floats) -> Floats | None:
    """Coefficients (C,) of a regression (N, C) by least absolute deviations; None if it is near few of the numbers.

    By weighted least squares, first of some of the rows: a sum that most rows follow is near these after few rounds.
    """
    few = max(FEW_ROWS, ROWS_A_SUMMAND * a.shape[1])
    _, off = _reweighted(a[:few], y[:few], N_TRIED)
    mean = off.mean()
    if mean > NEAR * np.abs(y[:few]).mean() and (off < NEAR * mean).mean() < LEAST_NEAR:
        return None
    return _reweighted(a, y, N_REWEIGHTED)[0]


def _reweighted(a: Floats, y: Floats, n_rounds: int) -> tuple[Floats, Floats]:
    """Coefficients (C,) of a regression (N, C) after rounds of reweighting, and absolute deviations (N,)."""
    beta, off = np.zeros(a.shape[1]), np.ones(len(a))
    for _ in range(n_rounds):
        weighted = a / np.maximum(off, 1e-3)[:, None]
        gram = weighted.T @ a
        gram += 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram))
        beta = np.linalg.solve(gram, weighted.T @ y)
        off = np.abs(y - a @ beta)
    return beta, off


# -- numbers that most rows allow -------------------------------------------------------------------


def _factors(number: Floats, value: Floats, step: float) -> list[float]:
    """Candidates of the factor c, from slopes between rows of small and of large values: simple ones first."""
    number, value = number[:MOST_ASKED], value[:MOST_ASKED]
    order = np.argsort(value, kind="stable")
    n = max(1, len(order) // 4)
    rise, run = (t[order[-n:]] - t[order[:n]] for t in (number, value))
    rise, run = rise[run > 0], run[run > 0]
    if not len(run):
        return []
    c = float(np.median(rise / run))
    if not math.isfinite(c) or not c:
        return []
    error = 2 * step / float(np.median(run)) + FLOAT * abs(c)
    simple = [v for s in SIMPLE for v in (s, 1 / s) if abs(abs(c) - v) <= error]
    simple = [math.copysign(v, c) for v in sorted(simple, key=lambda v: abs(math.log(v)))[:3]]
    # the c that most rows allow, without a constant or with one, written as shortly as these permit
    some = value != 0
    width = step / 2 * (1 + ON_LATTICE)
    levels = np.array([number - width, number + width])[:, some] / value[some]
    slopes = np.array([rise - 2 * width, rise + 2 * width]) / run
    return simple + [v for ends in (levels, slopes) for v, _ in _most_common(ends) if v]


def _deepest(low: Floats, high: Floats) -> int:
    """The most of intervals with these ends, each sorted, that share a number."""
    begun = np.arange(1, len(low) + 1)
    return int((begun - np.searchsorted(high, low, "left")).max())


def _shortest(low: float, high: float) -> float:
    """The number between two others, or nearly, that has the fewest digits, or whose inverse has them."""
    number = _rounded(low, high)
    if low * high > 0:
        inverse = _rounded(*sorted((1 / low, 1 / high)))
        if n_digits(inverse) < n_digits(number):
            return 1 / inverse
    return number


def _rounded(low: float, high: float) -> float:
    middle = (low + high) / 2
    for digits in range(1, 16):
        number = float(f"{middle:.{digits}g}")
        if low <= number <= high:
            return number
    return middle


def _most_common(
    ends: Floats, shortest: Callable[[float, float], float] = _shortest
) -> list[tuple[float, int]]:
    """The shortest number in the region that most of the intervals with these ``ends`` (2, N) share, and how many."""
    low, high = np.minimum(*ends), np.maximum(*ends)
    edges = np.concatenate([low, high])
    order = np.lexsort((np.repeat([0, 1], len(low)), edges))
    depth = np.cumsum(np.repeat([1, -1], len(low))[order])
    place = int(depth.argmax())
    region = edges[order][place : place + 2]
    if len(region) < 2 or not np.isfinite(region).all():
        return []
    return [(shortest(*region.tolist()), int(depth[place]))]


def _constant(rest: Floats, width: Floats, half: float) -> float:
    """The constant that most differences (N,) allow, each give or take its width.

    0, or minus ``half``, with which numbers are cut off, if hardly fewer do.
    """
    rest, width = rest[:MOST_ASKED], width[:MOST_ASKED]
    common = _most_common(np.array([rest - width, rest + width]), _rounded)
    for simple in (0.0, -half):
        if not common or (np.abs(rest - simple) <= width).sum() >= NEARLY_ALL * common[0][1]:
            return simple
    return common[0][0]


# -- gains ------------------------------------------------------------------------------------------


def _gains(relation: Relation, x: Floats) -> Floats:
    """Nats (M,) that a relation saves in M distinct rows of (N, C), compared with counts of the child.

    Of three ways to count them the best: alone, or beside one parent, by its values or its bins.
    """
    rows = _distinct(x, relation.columns)
    rows = rows[np.isfinite(relation.follows(rows))]
    codes = np.unique(np.rint(rows[:, relation.child] / relation.step), return_inverse=True)[1]
    nats = [_code_lengths(codes, np.zeros_like(codes))]
    for parent in rows[:, list(relation.parents)].T:
        bins = np.searchsorted(np.sort(parent), parent) // BIN_ROWS
        for given in (parent, bins):
            nats.append(_code_lengths(codes, np.unique(given, return_inverse=True)[1]))
    best = min(nats, key=lambda n: n.mean())
    return _log_factors(relation, rows, best) + best


def _distinct(x: Floats, columns: Sequence[int]) -> Floats:
    """The distinct rows (M, C) by some columns, which all have a number there."""
    x = x[np.isfinite(x[:, columns]).all(1)]
    return x[np.unique(_row_keys(x[:, columns]), return_index=True)[1]]


def _log_factors(relation: Relation, rows: Floats, nats: Floats) -> Floats:
    """Logarithms (N,) of the factor (23) of the child, which has these ``nats`` without the relation."""
    follows = relation.follows(rows)
    w = (follows.sum() + 0.5) / (len(rows) + 1)
    n_open = np.maximum(relation.expected(rows)[0], 1)
    return np.log(w * follows / n_open + (1 - w) * np.exp(-nats))


def _code_lengths(codes: np.ndarray, given: np.ndarray) -> Floats:
    """Nats (N,) of codes beside others, each without its own row, by counts smoothed with the codes' shares."""
    n_alone = np.bincount(codes)[codes]
    share = np.maximum(n_alone - 1, 1) / len(codes)
    pair = np.unique(given * (codes.max() + 1) + codes, return_inverse=True)[1]
    n_pair, n_given = np.bincount(pair)[pair] - 1, np.bincount(given)[given] - 1
    return -np.log((n_pair + share) / (n_given + 1))


def _without_cycles(ranked: Sequence[tuple[object, Relation]]) -> Iterator[Relation]:
    """Relations, best first, in which no column follows from itself, and of several of the same columns the first."""
    parents_of, groups = dict[int, tuple[int, ...]](), set[frozenset[int]]()
    for _, relation in ranked:
        group = frozenset(relation.columns)
        reached, todo = set[int](), [*relation.parents]
        while todo:
            column = todo.pop()
            if column not in reached:
                reached.add(column)
                todo += parents_of.get(column, ())
        if group in groups or relation.child in parents_of or relation.child in reached:
            continue
        parents_of[relation.child] = relation.parents
        groups.add(group)
        yield relation
