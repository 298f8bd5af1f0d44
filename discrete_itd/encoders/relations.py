r"""Columns that follow from others: a total is quantity × price − discount, a delay arrival − plan.

A *relation* says that a column of numbers, its *child*, is an expression of other columns, its *parents*, in most rows,

.. math:: x_j = f_j(x_{pa}) = d + c \sum_t k_t \prod_{i \in t} g_{ti}(x_i),
          \qquad g(x) \in \{x, 1/x, 1 + x/100, 1 - x/100\},

rounded to the lattice of the child; :math:`F_j` are the numbers that rounding leaves open (23). Relations are
*proposed* by a few rows, drawn several times. Of a column, or of an expression up to c and d, the differences to the
first of these rows are a point; where the points of a column and of an expression coincide, one may follow from the
other. Sums are compared by the direction of these points, so that c is any number; products as sums of logarithms,
in which c cancels. Expressions of two columns are the points of one tree, in which every column, alone or combined with
one more, looks for neighbours: of C columns there are C² points and C² searches, and no loop over triples.

All rows *vote*: c is the simplest number that the rows agree on, d likewise, and a relation stays if most rows follow
and that saves nats, compared with the child's shares, alone or beside one parent. Small
columns that rounding hides may be added to a relation, and near-copies are relations of fewer rows.

References
----------
Parciak et al., "Measuring approximate functional dependencies: a comparative study", ICDE 2024, arXiv:2312.06296.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.util import hash_array
from scipy.spatial import KDTree

from discrete_itd.encoders.column import Column
from discrete_itd.encoders.numeric import find_lattice
from discrete_itd.reading.frames import DAY, SECOND, as_numbers

Floats, Bools = NDArray[np.float64], NDArray[np.bool_]

# Rows that propose: so many draws, each of so many differences to its first row, chosen among the most complete ones of
# CANDIDATE_ROWS. Of a relation of four columns, in each of which 2 % of the cells are wrong, one draw is free of wrong
# cells with probability .56, one of the six with .993.
N_DRAWS, N_DIFFERENCES, CANDIDATE_ROWS = 6, 6, 64
# Rows that vote on a proposal, few of them first; a relation that is kept is counted in all rows.
FEW_ROWS, MOST_ROWS = 150, 2000
FEWEST_VALUES = 4  # numbers of a child: a column of three is as good as a function of any column that agrees with it
FEWEST_ROWS = 30  # rows with child and parents from which a relation may be found
MOST_COLUMNS = 300  # columns of numbers among which relations are looked for
# most columns for searches whose number grows with the fourth power: a product and a column, four columns of a sum
FEW_COLUMNS = 60
# rows of a regression on all other columns, its rounds of reweighting, and the least share of a child's variance that
# the other columns explain, and of its mean deviation of which a column of a sum is
MOST_FITTED, N_REWEIGHTED, LEAST_EXPLAINED, LEAST_PART = 600, 12, 0.5, 0.01
MOST_PAIRS = 20_000  # points in a tree; of more pairs of columns, so many are drawn
MOST_NEIGHBOURS = 10  # neighbours of a point that are tried
WIDEST = 0.1  # largest distance of neighbours, relative to the size of a point
# least share of the rows that follow, and of those that do not hold the child's most frequent number, which follows
# from anything
LEAST_SHARE, LEAST_OTHERS = 0.8, 0.6
MOST_OPEN = 4  # numbers of the lattice that rounding may leave open, in the median row
BIN_ROWS = 50  # rows of a bin of a parent, beside which a child of few numbers may be as likely as by the relation
# Nats that a relation saves in all distinct rows at least, beyond its constants and the logarithm of the number of
# proposals: what speaks against it beforehand. With 5, nine of 200 tables of unrelated columns had one.
LEAST_EVIDENCE = 12.0
LEAST_GAIN = 0.1  # nats a row that a relation saves
# simple factors c, and their inverses: counts, powers of ten, units of time
SIMPLE = (*range(1, 13), 24, 60, 100, 365, 1000, 1440, 3600, 10_000, 86_400, 1_000_000)
PARENT_PRICE = 0.3  # nats a row by which a relation must be better than one with a parent less
LARGEST = 1e100  # size of the largest number that takes part: products of three are floats
FLOAT = 1e-9  # relative rounding error of an expression of floats
# How far beside the interval that rounding leaves open a lattice point still counts, in steps: an expression of cents
# has float errors, and a number between two points may have been rounded either way.
ON_LATTICE = 1e-4
FLOAT_ERROR = 1e-12  # the same for large numbers, relative to them
FORMS: dict[str, Callable[[Floats], Floats]] = {
    "x": lambda x: x,
    "1/x": lambda x: 1 / x,
    "1+%": lambda x: 1 + x / 100,
    "1-%": lambda x: 1 - x / 100,
}
INVERSES: dict[str, Callable[[Floats], Floats]] = {
    "x": lambda g: g,
    "1/x": lambda g: 1 / g,
    "1+%": lambda g: 100 * (g - 1),
    "1-%": lambda g: 100 * (1 - g),
}


@dataclass(frozen=True, order=True)
class ColumnTerm:
    """A function of one column: one of :data:`FORMS`."""

    column: int
    form: str = "x"

    def __post_init__(self) -> None:
        if self.column < 0 or self.form not in FORMS:
            raise ValueError(f"no factor of a relation: {self}")

    def of(self, x: Floats) -> Floats:
        """Its values (N,) in rows of numbers (N, C)."""
        return FORMS[self.form](x[:, self.column])


@dataclass(frozen=True)
class Term:
    """A product of factors and a coefficient."""

    coefficient: float
    factors: tuple[ColumnTerm, ...]

    def of(self, x: Floats) -> Floats:
        """Its values (N,) in rows of numbers (N, C)."""
        return self.coefficient * np.prod([factor.of(x) for factor in self.factors], axis=0)


def value_of(terms: Sequence[Term], x: Floats) -> Floats:
    """The sum of terms (N,) in rows of numbers (N, C): NaN where one is missing, infinite or divided by zero."""
    with np.errstate(all="ignore"):
        total = np.sum([term.of(x) for term in terms], axis=0)
    return np.where(np.isfinite(total), total, np.nan)


@dataclass(frozen=True)
class Relation:
    """A column that follows from others.

    Parameters
    ----------
    child : int
        Position of the column that follows.
    terms : tuple of Term
        Whose sum, with the ``constant``, is the child's number before it is rounded.
    constant : float
        d, in the unit of the child (times: days).
    step, origin : float
        Of the child's lattice.
    half : float
        Half of the length of the interval of numbers that rounding leaves open: 0, or half a step. Half a step for a
        child off any lattice, whose step is that of float errors.
    parent_steps : tuple of float
        Steps of the parents, if the child follows from what these were before they were rounded; else empty.
    n_follow, n_rows : int
        Training rows in which the child follows, and those with a child and all parents.

    Examples
    --------
    >>> total = Relation(2, (Term(1.0, (ColumnTerm(0), ColumnTerm(1))),), 0.0, 0.01, 0.0, 0.005, (), 98, 100)
    >>> total.text(["quantity", "price", "total"])
    'total = quantity × price'
    >>> total.follows(np.array([[2, 6.2, 12.4], [2, 6.2, 11.4], [np.nan, 6.2, 12.4]]))
    array([ 1.,  0., nan])
    """

    child: int
    terms: tuple[Term, ...]
    constant: float
    step: float
    origin: float
    half: float
    parent_steps: tuple[float, ...]
    n_follow: int
    n_rows: int

    def __post_init__(self) -> None:
        if not self.terms or not all(term.factors for term in self.terms):
            raise ValueError("a relation has terms, and these have factors")
        if self.step <= 0 or not 0 <= self.n_follow <= self.n_rows:
            raise ValueError("step and counts of a relation must be positive")

    @property
    def parents(self) -> tuple[int, ...]:
        """Positions of the columns from which the child follows."""
        return tuple(dict.fromkeys(f.column for term in self.terms for f in term.factors))

    @property
    def columns(self) -> tuple[int, ...]:
        """Positions of the parents and of the child."""
        return (*self.parents, self.child)

    @property
    def share(self) -> float:
        """Posterior mean of the share of rows in which the child follows, under Jeffreys' prior."""
        return (self.n_follow + 0.5) / (self.n_rows + 1)

    def values(self, x: Floats) -> Floats:
        """The child's numbers (N,) by the parents, before rounding; NaN where a parent is missing."""
        return value_of(self.terms, x) + self.constant

    def open_half(self, x: Floats) -> Floats:
        """Half of the length (N,) of the interval in which the child follows."""
        half = np.full(len(x), self.half)
        for step, column in zip(self.parent_steps, self.parents, strict=False):
            half += step / 2 * self._slope(x, column)
        return half

    def expected(self, x: Floats) -> tuple[Floats, Floats]:
        """The lattice points of the child that the parents leave open (23): their number and the middle one, (N,) each.

        Rows (N, C) of numbers, of which the child's are not read. Where a parent is missing, or no lattice point lies
        in the interval, the number is 0 and the middle NaN. Of an even number, the middle is the lower one.
        """
        first, last = self._open_places(x)
        n = np.nan_to_num(np.maximum(last - first + 1, 0.0))
        middle = self.origin + self.step * np.floor((first + last) / 2)
        return n, np.where(n > 0, middle, np.nan)

    def _open_places(self, x: Floats) -> tuple[Floats, Floats]:
        """Positions (N,) of the first and the last lattice point that rounding leaves open; NaN without parents."""
        middle = (self.values(x) - self.origin) / self.step
        half = self.open_half(x) / self.step
        slack = ON_LATTICE + FLOAT_ERROR * np.abs(middle)
        return np.ceil(middle - half - slack), np.floor(middle + half + slack)

    @property
    def description(self) -> float:
        """Nats in which its constants are written, log 10 for each digit."""
        sizes = {abs(term.coefficient) for term in self.terms} | {abs(self.constant)}
        sizes = {1 / v if 0 < v < 1 and math.isclose(1 / v, round(1 / v)) else v for v in sizes}
        digits = [
            len(f"{v:.12g}".replace(".", "").strip("0")) for v in sizes if v not in (0.0, 1.0)
        ]
        return math.log(10) * sum(digits)

    def _slope(self, x: Floats, column: int) -> Floats:
        """Size of the derivative (N,) of the value by a column."""
        near = x.copy()
        step = self.parent_steps[self.parents.index(column)]
        near[:, column] += step
        with np.errstate(all="ignore"):
            slope = np.abs(value_of(self.terms, near) - value_of(self.terms, x)) / step
        return np.nan_to_num(slope, nan=0.0, posinf=0.0)

    def follows(self, x: Floats) -> Floats:
        """1 where the child is one of the numbers that its parents leave open, 0 where not, NaN where unknown; (N,)."""
        place = np.rint((x[:, self.child] - self.origin) / self.step)
        first, last = self._open_places(x)
        known = np.isfinite(place) & np.isfinite(first)
        return np.where(known, (first <= place) & (place <= last), np.nan)

    def solved(self, x: Floats, column: int) -> Floats:
        """The numbers (N,) of one of its columns with which the child would follow; NaN where there is none."""
        if column == self.child:
            return self.values(x)
        inside = [t for t in self.terms if any(f.column == column for f in t.factors)]
        if len(inside) != 1 or sum(f.column == column for f in inside[0].factors) != 1:
            return np.full(len(x), np.nan)
        rest = value_of([t for t in self.terms if t is not inside[0]], x) if self.terms[1:] else 0.0
        (factor,) = (f for f in inside[0].factors if f.column == column)
        beside = replace(inside[0], factors=tuple(f for f in inside[0].factors if f is not factor))
        with np.errstate(all="ignore"):
            by = value_of([beside], x) if beside.factors else beside.coefficient
            out = INVERSES[factor.form]((x[:, self.child] - self.constant - rest) / by)
        return np.where(np.isfinite(out), out, np.nan)

    def text(self, names: Sequence[str]) -> str:
        """The relation as an equation of the names of columns."""
        return f"{names[self.child]} = {self.expression(names)}"

    def expression(self, names: Sequence[str]) -> str:
        """The right side of the equation, of names or of numbers as text."""
        sizes = {abs(term.coefficient) for term in self.terms}
        shared = sizes.pop() if len(sizes) == 1 else 1.0
        text = ""
        for k, term in enumerate(self.terms):
            sign = " − " if term.coefficient < 0 else " + " if k else ""
            body = _product_text(term.factors, names)
            text += sign + _scaled_text(abs(term.coefficient) / shared, body)
        text = text.removeprefix(" ")
        if shared != 1.0:
            is_sum = len(self.terms) > 1
            text = _scaled_text(shared, f"({text})" if is_sum else text)
        is_floor = self.half > 0 and math.isclose(self.constant, -self.half)
        if self.constant and not is_floor:
            text += f" {'−' if self.constant < 0 else '+'} {abs(self.constant):.10g}"
        return text + ", rounded down" * is_floor


def _product_text(factors: Sequence[ColumnTerm], names: Sequence[str]) -> str:
    """Factors as text, those divided by last."""
    percent = {"1+%": "(1 + {} / 100)", "1-%": "(1 − {} / 100)", "x": "{}"}
    up = [percent[f.form].format(names[f.column]) for f in factors if f.form != "1/x"]
    down = [f" / {names[f.column]}" for f in factors if f.form == "1/x"]
    return (" × ".join(up) or "1") + "".join(down)


def _scaled_text(c: float, body: str) -> str:
    """A positive multiple as text, as a quotient where that is simpler."""
    if c == 1:
        return body
    if c < 1 and math.isclose(1 / c, round(1 / c), rel_tol=1e-9):
        return f"{body} / {round(1 / c)}"
    return f"{c:.8g} × {body}"


def numbers_of(frame: pd.DataFrame, schema: Sequence[Column]) -> Floats:
    """The cells of a table, text parsed, as numbers (N, C): times in days; NaN for gaps, and in other columns."""
    x = np.full((len(frame), len(schema)), np.nan)
    for j, column in enumerate(schema):
        if is_numeric(column) and not column.are_truths:
            cells, _ = column.readable(cast(pd.Series, frame[column.name]))
            try:
                numbers = as_numbers(column.name, cells, column.family, column.origin, column.step)
            except ValueError:  # levels that are no floats
                continue
            if column.family != "number":
                numbers = (numbers * (column.step / SECOND) + column.origin) * (SECOND / DAY)
            x[:, j] = np.append(numbers, np.nan)[cells.where]
    return x


def is_numeric(column: Column) -> bool:
    """Whether the cells of a column are numbers or times, with levels or without."""
    return column.codec.of_numbers or {*map(type, column.categories)} <= {int, float}


def find_relations(x: Floats, *, seed: int = 0) -> tuple[Relation, ...]:
    """The relations among columns of numbers (N, C), NaN where there is none.

    A column is the child of one relation at most, and none follows from itself by others.
    """
    x = np.where(np.abs(x) <= LARGEST, x, np.nan)
    steps, origins, columns, numerous = np.zeros(x.shape[1]), np.zeros(x.shape[1]), [], set()
    off_lattice = set[int]()
    for j, numbers in enumerate(x.T):
        known = numbers[np.isfinite(numbers)]
        if len(known) >= FEWEST_ROWS and (known != known[0]).sum() >= len(known) / 10:
            step, origin = find_lattice(known)
            steps[j], origins[j] = step, origin or 0.0
            if origin is None:
                off_lattice.add(j)
                steps[j] = FLOAT * np.abs(known).max()
            columns.append(j)
            if len(np.unique(known)) >= FEWEST_VALUES:
                numerous.add(j)
    if not (numerous and 1 < len(columns) <= MOST_COLUMNS):
        return ()
    order, column_keys = _in_own_order(x)
    x = x[order]
    rng = np.random.default_rng(seed)
    voters = x[rng.permutation(len(x))[:MOST_ROWS]]
    tried, found = set(), []
    draws = (_proposals(voters, steps, np.array(columns), numerous, rng) for _ in range(N_DRAWS))
    for proposals in (_long_sums(voters[:MOST_FITTED], sorted(numerous)), *draws):
        for child, terms in proposals:
            key = child, frozenset((math.copysign(1.0, t.coefficient), t.factors) for t in terms)
            if key in tried:
                continue
            tried.add(key)
            relation = None
            for n_rows in (FEW_ROWS, MOST_ROWS):  # most proposals fail by few rows
                if n_rows == FEW_ROWS or relation is not None:
                    relation = _voted(
                        child,
                        terms,
                        voters[:n_rows],
                        steps,
                        float(origins[child]),
                        child in off_lattice,
                    )
            if relation is not None:
                found.append(relation)
    least = math.log(max(1, len(tried))) + LEAST_EVIDENCE
    gains = [(_gains(relation, voters), relation) for relation in found]
    kept = [
        (float(g.mean()), r)
        for g, r in gains
        if g.mean() > LEAST_GAIN and g.sum() > least + r.description
    ]
    chosen = [_extended(r, voters, columns) for r in _without_cycles(kept, column_keys)]
    counts = [
        np.bincount(f[np.isfinite(f)].astype(int), minlength=2)
        for f in (r.follows(x) for r in chosen)
    ]
    return tuple(
        replace(r, n_follow=int(n[1]), n_rows=int(n.sum()))
        for r, n in zip(chosen, counts, strict=True)
    )


def _hashed(values: np.ndarray) -> np.ndarray:
    return cast(np.ndarray, hash_array(values))  # pyright: ignore[reportCallIssue]


def _in_own_order(x: Floats) -> tuple[np.ndarray, list[int]]:
    """Positions of rows (N, C) in an order that depends neither on their order nor on that of the columns.

    And a key of each column by its numbers.
    """
    keys, columns = np.zeros(len(x), np.uint64), list[int]()
    for numbers in x.T:
        hashes = _hashed(np.where(np.isnan(numbers), np.nan, numbers + 0.0))
        column = hashes.sum(dtype=np.uint64)
        keys += _hashed(hashes ^ column)
        columns.append(int(column))
    return np.argsort(keys, kind="stable"), columns


# -- proposals --------------------------------------------------------------------------------------


class Points(NamedTuple):
    """Points (n, N_DIFFERENCES) of expressions, and the terms of the i-th as a function."""

    at: Floats
    terms: Callable[[int], tuple[Term, ...]]

    def neighbours(self, others: Floats, radii: Floats) -> Iterator[tuple[int, tuple[Term, ...]]]:
        """Of each other point, by its position, the terms of the nearest points within a radius."""
        if not len(self.at) or not len(others):
            return
        near = KDTree(self.at).query_ball_point(others, radii, return_sorted=True)
        for i, places in enumerate(near):
            for k in places[:MOST_NEIGHBOURS]:
                yield i, self.terms(k)


def _proposals(
    x: Floats, steps: Floats, columns: np.ndarray, numerous: set[int], rng: np.random.Generator
) -> Iterator[tuple[int, tuple[Term, ...]]]:
    """Children and terms, up to a factor and a constant, that a few rows drawn from (N, C) agree on.

    ``numerous`` columns hold several numbers: only they are children, or parts of a sum.
    """
    some = x[rng.permutation(len(x))[:CANDIDATE_ROWS]]
    complete = np.argsort(-np.isfinite(some[:, columns]).sum(1), kind="stable")
    rows = some[complete[: N_DIFFERENCES + 1]]
    vary = np.isfinite(rows[:, columns]).all(0) & (np.ptp(rows[:, columns], axis=0) > 0)
    columns = columns[vary]
    summed = np.array([j for j in columns if j in numerous], dtype=int)
    if len(summed) < 1 or len(rows) < 3:
        return
    pairs = np.array([*itertools.combinations(range(len(summed)), 2)], dtype=int).reshape(-1, 2)
    if len(pairs) > MOST_PAIRS:
        pairs = pairs[np.sort(rng.permutation(len(pairs))[:MOST_PAIRS])]
    sums = _sums(rows, steps, summed, pairs) if len(pairs) else ()
    products = _products(rows, steps, columns, numerous, rng)
    for child, terms in itertools.chain(sums, products):
        inside = [f.column for term in terms for f in term.factors]
        if len({child, *inside}) == len(inside) + 1:
            yield child, terms


def _sums(
    rows: Floats, steps: Floats, columns: np.ndarray, pairs: np.ndarray
) -> Iterator[tuple[int, tuple[Term, ...]]]:
    """Multiples of columns and of sums of two; one sum of two that is another one, or a product."""
    at = (rows[1:] - rows[0])[:, columns].T
    of = [ColumnTerm(int(j)) for j in columns]
    left, right = (np.concatenate([side, side]) for side in pairs.T)
    sign = np.repeat([1.0, -1.0], len(pairs))
    two = at[left] + sign[:, None] * at[right]
    size = np.abs(two).max(1)
    kept = size > FLOAT * (np.abs(at[left]) + np.abs(at[right])).max(1)
    left, right, sign, two, size = (t[kept] for t in (left, right, sign, two, size))

    def sum_of(i: int) -> tuple[Term, ...]:
        return Term(1.0, (of[left[i]],)), Term(float(sign[i]), (of[right[i]],))

    def any_sum(i: int) -> tuple[Term, ...]:
        return (Term(1.0, (of[i],)),) if i < len(of) else sum_of(i - len(of))

    length = np.linalg.norm(at, axis=1)
    radii = np.clip(1.5 * steps[columns] * math.sqrt(at.shape[1]) / length, 1e-7, WIDEST)
    every = Points(_directions(np.concatenate([at, two])), any_sum)
    for i, terms in every.neighbours(_directions(at), radii):
        yield of[i].column, terms
    if len(of) > FEW_COLUMNS:
        return
    # one sum of two is another one, or a product
    radii = np.minimum(1.5 * np.maximum(steps[columns[left]], steps[columns[right]]), size / 50)
    radii += 1e-6 * size
    a, b = pairs.T
    products = rows[:, columns[a]] * rows[:, columns[b]]
    products = Points((products[1:] - products[0]).T, lambda i: (Term(1.0, (of[a[i]], of[b[i]])),))
    for points in (Points(two, sum_of), products):
        for i, terms in points.neighbours(two, radii):
            one, other = of[left[i]], of[right[i]]
            yield one.column, (*terms, Term(-float(sign[i]), (other,)))
            if sign[i] > 0:
                yield other.column, (*terms, Term(-1.0, (one,)))


def _directions(points: Floats) -> Floats:
    """Points at length one, their largest coordinate positive."""
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-300)
    largest = np.take_along_axis(unit, np.abs(unit).argmax(1)[:, None], 1)
    return unit * np.where(largest < 0, -1.0, 1.0)


def _products(
    rows: Floats,
    steps: Floats,
    columns: np.ndarray,
    numerous: set[int],
    rng: np.random.Generator,
) -> Iterator[tuple[int, tuple[Term, ...]]]:
    """Products and quotients of two factors, and of three one of which is a percentage, up to a factor."""
    factors, logs = list[ColumnTerm](), list[Floats]()
    for j in columns.tolist():
        numbers = rows[:, j]
        is_share = numbers.min() >= 0 and numbers.max() <= 100
        for form in ("x", "1/x", "1+%", "1-%") if is_share else ("x", "1/x"):
            with np.errstate(all="ignore"):
                log = np.log(np.abs(FORMS[form](numbers)))
            if np.isfinite(log).all() and np.ptp(log) > 0:
                factors.append(ColumnTerm(j, form))
                logs.append(log[1:] - log[0])
    plain = [i for i, f in enumerate(factors) if f.form == "x" and f.column in numerous]
    pairs = [
        (i, k)
        for i, k in itertools.combinations(range(len(factors)), 2)
        if factors[i].column != factors[k].column and "x" in (factors[i].form, factors[k].form)
    ]
    if not (pairs and plain):
        return
    if len(pairs) > MOST_PAIRS:
        pairs = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:MOST_PAIRS])]
    at = np.array(logs)
    first, second = np.array(pairs).T
    points = Points(
        at[first] + at[second], lambda i: (Term(1.0, (factors[first[i]], factors[second[i]])),)
    )
    asked: list[tuple[int, int | None]] = [(i, None) for i in plain]
    asked += [
        (i, k)
        for i, k in itertools.product(plain, range(len(factors)))
        if factors[k].form in ("1+%", "1-%") or len(plain) <= FEW_COLUMNS // 2
    ]
    others = np.array([at[i] if k is None else at[i] - at[k] for i, k in asked])
    children = np.array([factors[i].column for i, _ in asked])
    least = np.abs(rows[:, children]).min(0)
    radii = np.clip(1.5 * steps[children] / np.maximum(least, 1e-300), 1e-7, WIDEST / 2)
    for i, (term,) in points.neighbours(others, radii):
        divisor = asked[i][1]
        more = () if divisor is None else (factors[divisor],)
        yield int(children[i]), (Term(1.0, tuple(sorted((*term.factors, *more)))),)


def _long_sums(x: Floats, columns: Sequence[int]) -> Iterator[tuple[int, tuple[Term, ...]]]:
    """Sums of three columns or more, by least absolute deviations of rows (N, C)."""
    columns = [j for j in columns if np.isfinite(x[:, j]).mean() > 1 - 1 / (2 * len(columns))]
    rows = x[np.isfinite(x[:, columns]).all(1)][:, columns]
    if not 4 <= len(columns) <= FEW_COLUMNS or len(rows) < 4 * len(columns):
        return
    centred = rows - np.median(rows, axis=0)
    scale = np.abs(centred).mean(0)
    z = centred / np.where(scale > 0, scale, 1.0)
    gram = z.T @ z + 1e-9 * len(z) * np.eye(len(columns))
    explained = 1 - 1 / (np.diag(np.linalg.inv(gram)) * np.diag(gram))
    for k in np.flatnonzero(explained > LEAST_EXPLAINED).tolist():
        others = [i for i in range(len(columns)) if i != k]
        a, off = np.column_stack([z[:, others], np.ones(len(z))]), np.ones(len(z))
        beta = np.zeros(a.shape[1])
        for _ in range(N_REWEIGHTED):  # least absolute deviations by weighted least squares
            weights = 1 / np.maximum(np.abs(off), 1e-3)
            weighted = a * weights[:, None]
            gram = weighted.T @ a
            gram += 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram))
            beta = np.linalg.solve(gram, weighted.T @ z[:, k])
            off = z[:, k] - a @ beta
        beta = beta[:-1]  # without the intercept
        c = beta * scale[k] / scale[others]
        sizes = np.where(np.abs(beta) > LEAST_PART, np.abs(c), np.nan)
        alike = np.abs(sizes / sizes[:, None] - 1) < 0.05  # summands have one coefficient
        summands = np.flatnonzero(alike[alike.sum(1).argmax()])
        if len(summands) > 2:
            yield (
                columns[k],
                tuple(
                    Term(float(np.sign(c[i])), (ColumnTerm(columns[others[i]]),))
                    for i in summands.tolist()
                ),
            )


# -- votes ------------------------------------------------------------------------------------------


def _is_near(difference: Floats, half: Floats | float, child: Floats) -> Bools:
    with np.errstate(invalid="ignore"):
        return np.abs(difference) <= half * (1 + 1e-6) + FLOAT * np.abs(child)


def _voted(
    child: int,
    terms: tuple[Term, ...],
    x: Floats,
    steps: Floats,
    origin: float,
    is_off_lattice: bool,
) -> Relation | None:
    """The relation with the factor and the constant that most rows (N, C) agree on; None if these are too few."""
    number, value, step = x[:, child], value_of(terms, x), float(steps[child])
    known = np.isfinite(number) & np.isfinite(value)
    n_known = int(known.sum())
    known_numbers = number[known]
    values, counts = np.unique(known_numbers, return_counts=True)
    if n_known < FEWEST_ROWS or len(values) < FEWEST_VALUES:
        return None
    best: Relation | None = None
    is_other = known_numbers != values[counts.argmax()]
    most_open = min(MOST_OPEN, max(1, len(values) // 8))
    for c in _factors(known_numbers, value[known], step):
        scaled = tuple(Term(c * term.coefficient, term.factors) for term in terms)
        relation = Relation(child, scaled, 0.0, step, origin, 0.0, (), 0, n_known)
        parents = tuple(float(steps[j]) for j in relation.parents)
        ways: list[tuple[float, tuple[float, ...]]] = [(0.0, ()), (step / 2, ())]
        places = (c * value[known]) / step
        if is_off_lattice:
            ways = ways[1:]
        elif (np.abs(places - np.rint(places)) < 1e-6).mean() > LEAST_SHARE:
            ways = ways[:1]  # on the child's lattice there is nothing to round
        elif any(s % 1 for s in (step, *parents)):  # counts are not rounded
            ways.append((step / 2, parents))
        for half, parent_steps in ways:
            if best is not None and 1.02 * best.n_follow >= n_known:
                break
            way = replace(relation, half=half, parent_steps=parent_steps)
            width = way.open_half(x)[known]
            if 2 * np.median(width) > most_open * step:
                continue
            rest = known_numbers - c * value[known]
            constant = _constant(rest, float(np.median(width)), known_numbers)
            follows = _is_near(rest - constant, width, known_numbers)
            # what is more exact, or simpler, is kept unless a fiftieth more of the rows follow
            if follows.mean() < LEAST_SHARE or follows[is_other].mean() < LEAST_OTHERS:
                continue
            if best is None or follows.sum() > 1.02 * best.n_follow:
                way = replace(way, constant=constant, n_follow=int(follows.sum()))
                if np.median(way.expected(x[known])[0]) <= most_open:
                    best = way
    return best


def _factors(number: Floats, value: Floats, step: float) -> list[float]:
    """Candidates of the factor c, from slopes between rows of small and of large values."""
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
    if simple:
        return [math.copysign(v, c) for v in sorted(simple, key=lambda v: abs(math.log(v)))[:3]]
    # the c that most rows allow, without a constant or with one, written as shortly as these permit
    there = value != 0
    exact = _most_common(
        np.array([number[there] - step / 2, number[there] + step / 2]) / value[there]
    )
    return [v for v in (*exact, *_most_common(np.array([rise - step, rise + step]) / run)) if v]


def _most_common(ends: Floats) -> list[float]:
    """The shortest number in the region that most of the intervals with these ``ends`` (2, N) share."""
    low, high = np.sort(ends, axis=0)
    edges = np.concatenate([low, high])
    order = np.lexsort((np.repeat([0, 1], len(low)), edges))
    depth = np.cumsum(np.repeat([1, -1], len(low))[order])
    place = int(depth.argmax())
    region = edges[order][place : place + 2]
    return [_shortest(*region.tolist())] if len(region) == 2 and np.isfinite(region).all() else []


def _shortest(low: float, high: float) -> float:
    """The number between two others, or nearly, that has the fewest digits."""
    middle = (low + high) / 2
    for digits in range(1, 16):
        rounded = float(f"{middle:.{digits}g}")
        if low <= rounded <= high:
            return rounded
    return middle


def _constant(rest: Floats, half: float, child: Floats) -> float:
    """The constant that most differences (N,) allow; 0 if hardly fewer do."""
    is_zero = _is_near(rest, half, child)
    rest = np.sort(rest)
    width = 2 * half + 2 * FLOAT * float(np.median(np.abs(child)))
    last = np.searchsorted(rest, rest + width, "right")
    n_inside = last - np.arange(len(rest))
    first = int(n_inside.argmax())
    if 1.02 * is_zero.sum() >= n_inside[first]:
        return 0.0
    low, high = rest[last[first] - 1] - width / 2, rest[first] + width / 2
    return _shortest(min(low, high), max(low, high))


def _extended(relation: Relation, x: Floats, columns: Sequence[int]) -> Relation:
    """The relation with one more column by which the rows (N, C) differ that do not follow, if there is one."""
    missed = relation.follows(x) == 0
    if missed.sum() < 3:
        return relation
    best = relation
    for j in set(columns) - {*relation.columns}:
        numbers = x[missed, j]
        if not np.isfinite(numbers).any() or not np.nanmax(np.abs(numbers)):
            continue
        ways = [(*relation.terms, Term(sign, (ColumnTerm(j),))) for sign in (1.0, -1.0)]
        if not relation.constant:
            forms = ("x", "1/x", "1+%", "1-%")
            ways += [
                tuple(
                    replace(t, factors=tuple(sorted((*t.factors, ColumnTerm(j, form)))))
                    for t in relation.terms
                )
                for form in forms
            ]
        half = max(relation.half, relation.step / 2)
        for terms in ways:
            longer = replace(relation, terms=terms, half=half, parent_steps=())
            follows = longer.follows(x)
            n_follow, n_known = int((follows == 1).sum()), int(np.isfinite(follows).sum())
            if n_follow >= best.n_follow + max(3, 0.3 * missed.sum()):
                best = replace(longer, n_follow=n_follow, n_rows=n_known)
    return best


# -- gains ------------------------------------------------------------------------------------------


def _gains(relation: Relation, x: Floats) -> Floats:
    """Nats (M,) that a relation saves in M distinct rows of (N, C), compared with counts of the child.

    Of three ways to count them the best: alone, or beside one parent, by its values or its bins.
    """
    rows = np.unique(x[np.isfinite(relation.follows(x))][:, list(relation.columns)], axis=0)
    codes = np.unique(np.rint(rows[:, -1] / relation.step), return_inverse=True)[1]
    nats = [_code_lengths(codes, np.zeros_like(codes))]
    for parent in rows[:, :-1].T:
        bins = np.searchsorted(np.sort(parent), parent) // BIN_ROWS
        for given in (parent, bins):
            nats.append(_code_lengths(codes, np.unique(given, return_inverse=True)[1]))
    best = min(nats, key=lambda n: n.mean())
    whole = np.full((len(rows), x.shape[1]), np.nan)
    whole[:, list(relation.columns)] = rows
    follows = relation.follows(whole)
    w = (follows.sum() + 0.5) / (len(rows) + 1)
    n_open = np.maximum(relation.expected(whole)[0], 1)
    return np.log(w * follows / n_open + (1 - w) * np.exp(-best)) + best  # (23)


def _code_lengths(codes: np.ndarray, given: np.ndarray) -> Floats:
    """Nats (N,) of codes beside others, each without its own row, by counts smoothed with the codes' shares."""
    n_alone = np.bincount(codes)[codes]
    share = np.maximum(n_alone - 1, 1) / len(codes)
    pair = np.unique(given * (codes.max() + 1) + codes, return_inverse=True)[1]
    n_pair, n_given = np.bincount(pair)[pair] - 1, np.bincount(given)[given] - 1
    return -np.log((n_pair + share) / (n_given + 1))


def _without_cycles(
    found: Sequence[tuple[float, Relation]], column_keys: Sequence[int]
) -> list[Relation]:
    """Relations by falling gain, less a price for each parent, in which no column follows from itself."""
    parents_of, groups, chosen = dict[int, tuple[int, ...]](), set(), []

    def rank(gain: float, relation: Relation) -> tuple[float, int]:
        price = PARENT_PRICE * len(relation.parents)
        return round(price - gain, 6), column_keys[relation.child]

    for _, relation in sorted(found, key=lambda f: rank(*f)):
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
        chosen.append(relation)
    return chosen
