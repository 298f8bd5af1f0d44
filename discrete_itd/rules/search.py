"""The search for rules in some rows of a table, which others judge.

Orders are compared column by column with all others at once. What determines a column is found by neighbours: of
rows in the order of a column, or of a pair of columns, those next to each other with the same value there agree in the
columns that follow from it. Implications are counts: of the levels of all columns as one matrix X of zeros and ones,
the products :math:`X^T X`, and for two conditions those of the rows of each level.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discrete_itd.encoders.numeric import find_lattice
from discrete_itd.encoders.relation_search import find_relations
from discrete_itd.encoders.relations import ON_LATTICE, Relation, is_numeric
from discrete_itd.rules.cells import Bools, Floats, Ints, RuleCells
from discrete_itd.rules.statements import (
    Condition,
    Equation,
    Format,
    Key,
    OneOf,
    OneToOne,
    Order,
    PartOfTime,
    Present,
    Range,
    Rule,
    Shapes,
    Statement,
    Step,
    Together,
    Unique,
    in_order,
    joint_codes,
    meets,
    parts_of,
)

FEWEST_ROWS = 20  # of which a rule speaks
MOST_OF_CHANCE = 0.1  # exceptions of a rule, as a part of those that independent columns would have
LEAST_PART = 0.1  # share of the rows to which a rule is limited that holds in part of the table
# share of the rows in which a key expects another value than the most frequent one
LEAST_OTHER = 0.01
# share of the cells that have a number, from which it is a condition in a column of many
OFTEN = 0.05
MOST_LEVELS, ALL_LEVELS = 30, 500  # levels of a column, and of all columns, that are conditions
# different texts, and numbers, of a column whose values are listed
MOST_VALUES, FEW_NUMBERS = 30, 8
MOST_HALVES = 500  # statements that are limited to a part of the table
MOST_PARTS = 12  # levels of a column by which a statement holds in part of the table
MOST_IN_SET, MOST_SHAPES = 4, 3  # values in the consequence of an implication; formats of a column
PAIR_ROWS, PAIR_COLUMNS, PAIR_LEVELS = 5000, 40, 200  # among which pairs are searched
MOST_PAIRS = 200  # implications with two conditions that are judged
SMALLEST_STEP = 1e-6
# numbers in an order are near each other at this part of their median relative difference
NEAR_EQUAL = 5.0
NAMED_PARTS = ("weekday", "month", "quarter")  # of times, which may have names
FEWEST_PARTS = 4  # different names of them
USUAL_SHARE = 0.995  # share of the texts that have a format of the column
NEAR_BOUND = 5.0  # mean distances of numbers from a natural bound up to which it is one
HEAPED, STEEP = 20, 0.3  # cells at a bound, and their ratio to those of the number beside it


def search(
    cells: RuleCells, least: float, relations: Sequence[Relation] | None = None
) -> list[Rule]:
    """The rules that a share ``least`` of these rows follows, each kind by itself.

    Equations are those of the ``relations`` of the columns, where these are known.
    """
    rules = [*of_one_column(cells, least)]
    rules += [*_equations(cells, relations), *_orders(cells, least), *_unique_pairs(cells, least)]
    rules += _parts_of_times(cells, least)
    keys = _Keys(cells, least)
    rules += keys.rules
    levels = LevelMatrix(cells, keys.representatives)
    rules += _implications(levels, least)
    rules += _under_two_conditions(levels, least)
    shares = [1.0 if rule.given else _share(rule.statement, cells) for rule in rules]
    halves = [i for i in np.argsort(shares, kind="stable")[::-1] if shares[i] < least]
    in_part = _in_part(levels, cells, [rules[i] for i in halves[:MOST_HALVES]], least)
    rules = [rule for rule, s in zip(rules, shares, strict=True) if s >= least] + [*in_part]
    return [rule for rule in rules if _is_sharp(rule, cells)]


def _share(statement: Statement, cells: RuleCells) -> float:
    """The share of the rows a statement speaks of that follow it; 0 without any."""
    follows = statement.follows(cells)
    n = np.isfinite(follows).sum()
    return float(np.nansum(follows) / n) if n else 0.0


# -- one column -------------------------------------------------------------------------------------


def of_one_column(cells: RuleCells, least: float) -> Iterator[Rule]:
    """Rules of one column each: present, unique, values, range, step, format."""
    for j, column in enumerate(cells.schema):
        codes = cells.codes[:, j]
        known = codes[codes >= 0]
        if len(known) < FEWEST_ROWS:
            continue
        if len(known) >= least * len(codes):
            yield Rule(Present(column.name))
        levels, counts = np.unique(known, return_counts=True)
        all_values = cells.values_of(column.name)
        values = [all_values[code] for code in levels.tolist()]
        x = cells.numbers[codes >= 0, j]
        are_numbers = is_numeric(column) and column.family == "number"
        numbers = x if is_numeric(column) else None
        if len(levels) == len(known) and _are_made_unique(numbers, len(known)):
            yield Rule(Unique((column.name,)))
        most = FEW_NUMBERS if are_numbers else MOST_VALUES
        is_list = (
            len(levels) <= most and counts.min() >= 5 and not isinstance(values[0], np.generic)
        )
        is_list &= len(known) >= FEWEST_ROWS * len(levels)
        if are_numbers and is_list:
            is_list = len(levels) < 3 or bool(np.ptp(np.diff(np.unique(x))))
        if is_list:
            yield Rule(OneOf(column.name, in_order(values)))
        elif are_numbers and np.isfinite(x).all():
            low, high = bounds_of(x)
            if np.isfinite([low, high]).any():
                yield Rule(Range(column.name, low, high))
            step, origin = find_lattice(x)
            places = np.nan if origin is None or step < SMALLEST_STEP else origin / step
            if len(levels) > 2 and abs(places - np.rint(places)) < ON_LATTICE:
                yield Rule(Step(column.name, step))
        elif all(isinstance(value, str) for value in values):
            shapes = formats_of(values, counts)
            if shapes:
                yield Rule(Format.of(column.name, shapes))


def _are_made_unique(numbers: Floats | None, n: int) -> bool:
    """Whether n different texts, or numbers, differ because they are meant to: even draws would have had ties."""
    if numbers is None:
        return True
    step, origin = find_lattice(numbers)
    places = float(np.ptp(numbers)) / step + 1
    return origin is not None and n * (n - 1) / 2 / places > FEWEST_ROWS


def bounds_of(x: Floats) -> tuple[float, float]:
    """The bounds of numbers (n,): those at which they heap, and 0, 1 and 100 where they come near; else infinite."""
    values, counts = np.unique(x, return_counts=True)
    if len(values) < 2:
        return -np.inf, np.inf
    low, high = float(values[0]), float(values[-1])
    near = NEAR_BOUND * (high - low) / len(x)
    is_heaped = [
        counts[end] >= HEAPED and counts[end] >= STEEP * counts[beside]
        for end, beside in ((0, 1), (-1, -2))
    ]
    bounds = [low if is_heaped[0] else -np.inf, high if is_heaped[1] else np.inf]
    is_skewed = 0 <= low <= (np.median(x) - low) / 10 and np.median(x) - low < (high - low) / 6
    if not is_heaped[0] and (0 <= low <= near or is_skewed):
        bounds[0] = 0.0
    for bound in (0.0, 1.0, 100.0):
        if not is_heaped[1] and bound - near <= high <= bound:
            bounds[1] = bound
    return bounds[0], bounds[1]


CLASSES = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}


def formats_of(texts: Sequence[str], counts: Ints) -> Shapes:
    """The formats of nearly all texts, if they are those of codes: with digits, or of one length; else none."""
    runs, of_shape = dict[tuple[str, ...], list[tuple[int, ...]]](), Counter[tuple[str, ...]]()
    for text, count in zip(texts, counts.tolist(), strict=True):
        if not text.isascii() or not text.isprintable() or not text:
            continue
        kinds = re.sub("[0-9]", "9", re.sub("[a-z]", "a", re.sub("[A-Z]", "A", text)))
        parts = [(mark, len([*run])) for mark, run in itertools.groupby(kinds)]
        shape = tuple(mark for mark, _ in parts)
        runs.setdefault(shape, []).append(tuple(n for _, n in parts))
        of_shape[shape] += count
    found, n = list[tuple[tuple[str, int, int], ...]](), 0
    for shape, count in of_shape.most_common(MOST_SHAPES):
        if n >= USUAL_SHARE * counts.sum():
            break
        lengths = np.array(runs[shape])
        ends = zip(shape, lengths.min(0).tolist(), lengths.max(0).tolist(), strict=True)
        found.append(tuple((CLASSES.get(mark, mark), low, high) for mark, low, high in ends))
        n += count
    is_code = all(
        any(mark == CLASSES["9"] for mark, *_ in shape)
        or (len(shape) < 4 and all(low == high for _, low, high in shape))
        for shape in found
    )
    return tuple(found) if found and is_code and n >= USUAL_SHARE * counts.sum() else ()


# -- columns of numbers and times -------------------------------------------------------------------


def _equations(cells: RuleCells, relations: Sequence[Relation] | None) -> Iterator[Rule]:
    times = [j for j, column in enumerate(cells.schema) if column.family == "datetime"]
    texts = [j for j, column in enumerate(cells.schema) if not is_numeric(column)]
    names = tuple(column.name for column in cells.schema)
    if relations is None:
        relations = find_relations(cells.numbers, times=times, texts=texts)
    for relation in relations:
        yield Rule(Equation(relation, names))


def _parts_of_times(cells: RuleCells, least: float) -> Iterator[Rule]:
    """Columns that are a part of a time: its number, or words (of weekdays, other numbers) that alternate with it."""
    few = cells.take(np.arange(min(len(cells), PAIR_ROWS // 5)))
    others = [j for j, column in enumerate(cells.schema) if column.family != "datetime"]
    codes = np.ascontiguousarray(few.codes[:, others])
    n, alike = agreement(np.zeros(len(few), int), codes)
    chance = alike / np.maximum(n, 1)
    for time in (column.name for column in cells.schema if column.family == "datetime"):
        done = set[int]()
        for part, numbers in parts_of(few, time):
            if not np.nanmax(numbers, initial=-1) > np.nanmin(numbers, initial=np.inf):
                continue
            known = np.isfinite(numbers[:, None]) & (codes >= 0)
            is_near = 2 * (few.numbers[:, others] == numbers[:, None]).sum(0) > known.sum(0)
            if part in NAMED_PARTS:
                n, alike = agreement(pd.factorize(numbers)[0], codes)
                is_near |= (n >= FEWEST_ROWS) & (n - alike <= 2 * MOST_OF_CHANCE * (1 - chance) * n)
            for j in np.array(others, int)[is_near].tolist():
                rule = PartOfTime.fit(time, cells.schema[j].name, part, cells)
                if j in done or not _are_names(rule) or _share(rule, cells) < least:
                    continue
                done.add(j)
                yield Rule(rule)


def _are_names(statement: PartOfTime) -> bool:
    """Whether values stand for parts of a time, one for each: words, or numbers of weekdays."""
    if statement.values is None:
        return True
    values = [value for _, value in statement.values]
    are_plain = statement.part == "weekday" or not re.search(r"\d", "".join(map(str, values)))
    return len(values) == len({*values}) >= FEWEST_PARTS and are_plain


def _orders(cells: RuleCells, least: float) -> list[Rule]:
    """Orders of two columns that may hold, in the whole table or in part of it, by the first ``PAIR_ROWS`` rows."""
    families = np.array(
        [c.family if is_numeric(c) and not c.are_truths else "" for c in cells.schema]
    )
    x, names = cells.numbers[:PAIR_ROWS], [c.name for c in cells.schema]
    shuffled = x[np.random.default_rng(0).permutation(len(x))]
    orders, partial = list[Rule](), list[tuple[float, Rule]]()
    for j in np.flatnonzero(families != ""):
        others = np.flatnonzero((families == families[j]) & (np.arange(len(names)) != j))
        known = ~np.isnan(x[:, others]) & ~np.isnan(x[:, [j]])
        n = np.maximum(known.sum(0), 1)
        share = (x[:, [j]] <= x[:, others]).sum(0) / n
        is_open = (n >= FEWEST_ROWS) & ((x[:, [j]] >= x[:, others]).sum(0) < least * n)
        by_chance = ~np.isnan(shuffled[:, others]) & ~np.isnan(x[:, [j]])
        chance = (x[:, [j]] <= shuffled[:, others]).sum(0) / np.maximum(by_chance.sum(0), 1)
        is_strict = 1 - share <= MOST_OF_CHANCE * (1 - chance)
        for k in np.flatnonzero(is_open & (share >= 0.5)):
            order = Rule(Order(names[j], names[others[k]]))
            if share[k] < least:
                partial.append((float(share[k]), order))
            elif is_strict[k]:
                orders.append(order)
    partial.sort(key=lambda one: -one[0])
    return orders + [order for _, order in partial[:MOST_HALVES]]


def _is_sharp(rule: Rule, cells: RuleCells) -> bool:
    """Whether numbers in an order come near each other, and hardly any pair in the wrong order does; True of others.

    A weight that happens to be below a price does neither, nor does the population of a town below that of its state.
    """
    order = rule.statement
    if not isinstance(order, Order) or cells.schema[cells.place(order.low)].family != "number":
        return True
    low, high = (cells.numbers_of(name)[meets(rule.given, cells)] for name in order.columns)
    size = np.abs(low) + np.abs(high)
    relative = (high - low)[size > 0] / size[size > 0]
    if not (relative >= 0).any():
        return False
    near, middle = np.quantile(relative[relative >= 0], [0.02, 0.5])
    n_below = ((relative < 0) & (relative >= -middle / NEAR_EQUAL)).sum()
    n_above = ((relative >= 0) & (relative <= middle / NEAR_EQUAL)).sum()
    return bool(near <= middle / NEAR_EQUAL and n_below <= MOST_OF_CHANCE * n_above)


# -- keys -------------------------------------------------------------------------------------------


def agreement(groups: NDArray[Any], codes: NDArray[Any]) -> tuple[Ints, Ints]:
    """Pairs of neighbours (C,) with one group (N,), both with a value in a column of codes (N, C), and those alike."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    is_pair = groups[order][1:] == groups[order][:-1]
    first, second = codes[order[:-1][is_pair]], codes[order[1:][is_pair]]
    known = (first >= 0) & (second >= 0)
    n_known, alike = (np.count_nonzero(pairs, 0) for pairs in (known, known & (first == second)))
    return n_known, alike


class _Keys:
    """Columns that determine others, alone or in pairs.

    Columns that determine each other are one ``class``, of which the first, the ``representative``, stands for all.
    """

    def __init__(self, cells: RuleCells, least: float) -> None:
        self.cells, self.least = cells, least
        self.names = [column.name for column in cells.schema]
        self.rules = list[Rule]()
        # behind the columns those whose values differ in notation alone, with one value for all notations
        self.of, codes = [*range(len(self.names))], [*cells.codes.T]
        for j, column in enumerate(cells.schema):
            if is_numeric(column) or len(cells.levels[j]) > len(cells):
                continue
            usual = cells.usual_spellings(column.name)
            if (usual != np.arange(len(usual))).any():
                self.of.append(j)
                codes.append(np.append(usual, -1)[cells.codes[:, j]])
        self.codes = np.ascontiguousarray(np.column_stack(codes), np.int32)
        n_columns, n_targets = len(self.names), len(self.of)
        shares = [np.bincount(c[c >= 0]) / max((c >= 0).sum(), 1) for c in self.codes.T]
        self.chance = np.array([share @ share for share in shares])
        self.n_levels = np.array([(share > 0).sum() for share in shares])
        n, alike = (np.zeros((n_columns, n_targets)) for _ in range(2))
        for j in np.flatnonzero(self.n_levels[:n_columns] > 1):
            n[j], alike[j] = agreement(self.codes[:, j], self.codes)
        self.rate = alike / np.maximum(n, 1)
        open_columns = (self.n_levels > 1) & (self.chance < 1 - 1e-9)
        is_other = np.arange(n_columns)[:, None] != self.of
        self.is_asked = (n >= FEWEST_ROWS) & open_columns & is_other
        slack = 2.5 * (1 - least)
        is_near = self.is_asked & (1 - self.rate <= slack) & self._beats(self.chance)
        found = dict[tuple[int, int], Key]()
        for j, k in zip(*np.nonzero(is_near), strict=True):  # of a row, in letters first
            if (j, self.of[k]) not in found and (key := self._key((j,), k)):
                found[j, k] = key
        self.determined = np.zeros((n_columns, n_targets), bool)
        self.representatives = list[int]()
        for j, k in found:
            self.determined[j, k] = True
        # what follows in letters follows but for notation
        self.determined |= self.determined[:, self.of]
        n_known = (cells.codes >= 0).sum(0)
        for j in sorted(range(n_columns), key=lambda j: (-n_known[j], j)):
            twin = next((k for k in self.representatives if self._are_twins(found, j, k)), None)
            if twin is None:
                self.representatives.append(j)
            else:
                self.rules.append(Rule(OneToOne(found[twin, j], found[j, twin])))
        self.representatives.sort()
        # the keys of twins, too: the judges may refuse that they determine each other
        self.rules += [Rule(key) for key in found.values()]
        self._find_pairs()
        partial = self.is_asked & ~is_near & (self.rate >= 0.5)
        partial &= (1 - self.rate) <= 0.5 * (1 - self.chance)
        for j, k in zip(*np.nonzero(partial), strict=True):
            if {j, k} <= {*self.representatives}:
                self.rules.append(Rule(Key.fit((self.names[j],), self.names[k], cells)))

    def _beats(self, rate: Any) -> Bools:
        """Whether neighbours differ so much less often than at another rate of agreement."""
        return np.asarray(1 - self.rate <= 2 * MOST_OF_CHANCE * (1 - rate))

    def _key(self, given: tuple[int, ...], column: int) -> Key | None:
        """The key, if rows follow, also of those in which another value than the most frequent one does."""
        names, name = tuple(self.names[j] for j in given), self.names[self.of[column]]
        key = Key.fit(names, name, self.cells, but_notation=bool(column >= len(self.names)))
        follows = key.follows(self.cells)
        # among the rows of which the key speaks: elsewhere the column may have other values
        known = (self.codes[:, [*given, column]] >= 0).all(1)
        most = np.bincount(self.codes[known, column], minlength=1).argmax()
        is_other = np.isfinite(follows) & (key.expected(self.cells) != most)
        n_known = known.sum()
        for rows, part in ((np.isfinite(follows), LEAST_PART), (is_other, LEAST_OTHER)):
            if rows.sum() < part * n_known or follows[rows].sum() < self.least * rows.sum():
                return None
        return key

    def _are_twins(self, found: Mapping[tuple[int, int], Key], j: int, k: int) -> bool:
        """Whether columns determine each other but for few exceptions."""
        both = found.get((j, k)), found.get((k, j))
        return all(key and _share(key, self.cells) >= (1 + self.least) / 2 for key in both)

    def _find_pairs(self) -> None:
        codes = self.codes[:PAIR_ROWS]
        asked = [j for j in self.representatives if 1 < self.n_levels[j] <= len(self.cells) / 2][
            :PAIR_COLUMNS
        ]
        of = np.array(self.of)
        targets = np.flatnonzero((self.chance < 1 - 1e-9) & np.isin(of, self.representatives))
        follow = np.ascontiguousarray(codes[:, targets])
        for a, b in itertools.combinations(asked, 2):
            if self.determined[a, b] or self.determined[b, a]:
                continue
            n, alike = agreement(joint_codes([*self.cells.codes[:PAIR_ROWS, [a, b]].T]), follow)
            rate = alike / np.maximum(n, 1)
            alone = np.maximum(np.maximum(self.rate[a], self.rate[b]), self.chance)[targets]
            is_near = (n >= 2 * FEWEST_ROWS) & (1 - rate <= 2.5 * (1 - self.least))
            is_near &= (1 - rate <= 2 * MOST_OF_CHANCE * (1 - alone)) & ~np.isin(
                of[targets], [a, b]
            )
            is_near &= ~self.determined[a, targets] & ~self.determined[b, targets]
            exact = set[int]()
            for k in targets[is_near]:
                if of[k] not in exact and (key := self._key((a, b), k)):
                    exact.add(k)
                    self.rules.append(Rule(key))


def _unique_pairs(cells: RuleCells, least: float) -> Iterator[Rule]:
    """Pairs of columns that are unique together, and would not be if they were independent."""
    n = len(cells)
    ties = [
        float((np.bincount(c[c >= 0]) / n) @ (np.bincount(c[c >= 0]) / n)) for c in cells.codes.T
    ]
    complete = (cells.codes >= 0).all(0) & (np.array(ties) * n > 1.5)
    asked = np.flatnonzero(complete).tolist()[: 2 * PAIR_COLUMNS]
    for a, b in itertools.combinations(asked, 2):
        if ties[a] * ties[b] * n * n / 2 < FEWEST_ROWS:
            continue
        some = Unique((cells.schema[a].name, cells.schema[b].name))
        few = cells.take(slice(0, PAIR_ROWS // 5))  # pyright: ignore[reportArgumentType]
        if _share(some, few) >= least and _share(some, cells) >= least:
            yield Rule(some)


# -- implications -----------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """Counts of an implication: rows it speaks of, those that follow, and the same of the rows outside."""

    n: Floats
    k: Floats
    n_outside: Floats
    k_outside: Floats

    def is_rule(self, least: float) -> Bools:
        """Whether enough rows follow, and so many more than outside."""
        share = self.k / np.maximum(self.n, 1)
        outside = self.k_outside / np.maximum(self.n_outside, 1)
        is_better = 1 - share <= MOST_OF_CHANCE * (1 - outside)
        enough = (self.n >= FEWEST_ROWS) & (self.n_outside >= FEWEST_ROWS)
        return np.asarray(enough & (share >= least) & is_better)


class LevelMatrix:
    """LevelMatrix of some columns as conditions: frequent values, missing cells, and those that are not.

    ``x`` (N, L) are zeros and ones, ``column`` (L,) the column of each; ``known`` (N, C) are the cells that are there.
    """

    def __init__(self, cells: RuleCells, columns: Sequence[int]) -> None:
        found = list[tuple[int, int, Condition, Bools]]()
        for j in columns:
            column, codes = cells.schema[j], cells.codes[:, j]
            counts = np.bincount(codes[codes >= 0], minlength=1)
            values = cells.values_of(column.name)
            often = np.argsort(-counts, kind="stable")[:MOST_LEVELS]
            if is_numeric(column) and column.family != "number":
                often = often[:0]
            least = OFTEN * len(codes) if is_numeric(column) and len(values) > MOST_LEVELS else 0
            n_missing = int((codes < 0).sum())
            if FEWEST_ROWS <= n_missing <= len(codes) - FEWEST_ROWS:
                found.append((n_missing, j, OneOf(column.name, (None,)), codes < 0))
                found.append((len(codes) - n_missing, j, Present(column.name), codes >= 0))
            found += [
                (int(counts[k]), j, OneOf(column.name, (values[k],)), codes == k)
                for k in often
                if max(least, FEWEST_ROWS) <= counts[k] <= len(codes) - FEWEST_ROWS
            ]
        found = sorted(sorted(found, key=lambda f: -f[0])[:ALL_LEVELS], key=lambda f: f[1])
        self.conditions = [f[2] for f in found]
        self.column = np.array([f[1] for f in found], int)
        x = np.array([f[3] for f in found], np.float32).reshape(len(found), len(cells))
        self.x, self.known = np.ascontiguousarray(x.T), (cells.codes >= 0).astype(np.float32)
        self.are_values = np.array([c.kind == "values" for c in self.conditions], bool)


def _implications(levels: LevelMatrix, least: float) -> list[Rule]:
    """Implications of one condition: to one level, or to a few values of a column."""
    if not levels.conditions:
        return []
    x, column, conditions = levels.x, levels.column, levels.conditions
    both = (x.T @ x).astype(float)
    spoken = (x.T @ levels.known).astype(float)
    n_known = levels.known.sum(0).astype(float)
    total = x.sum(0).astype(float)
    n = np.where(levels.are_values, spoken[:, column], total[:, None])
    n_all = np.where(levels.are_values, n_known[column], len(x))
    counts = Candidate(n, both, n_all - n, total - both)
    is_present = np.array([isinstance(c, Present) for c in conditions])
    # of two columns that have values together, the contrapositive on missing cells says the same
    is_rule = (
        counts.is_rule(least) & (column[:, None] != column) & ~np.outer(is_present, is_present)
    )
    found, merged = list[Rule](), set[tuple[int, int]]()
    for u, v in zip(*np.nonzero(is_rule), strict=True):
        if (v, u) in merged:
            continue
        if is_rule[v, u]:
            merged.add((u, v))
            found.append(Rule(Together(conditions[u], conditions[v])))
        else:
            found.append(Rule(conditions[v], (conditions[u],)))
    for c in np.unique(column):
        level_places = np.flatnonzero((column == c) & levels.are_values)
        if len(level_places) < 3 or total[level_places].sum() < 0.999 * n_known[c]:
            continue
        for u in np.flatnonzero((column != c) & ~is_rule[:, level_places].any(1)):
            k = both[u, level_places]
            order = np.argsort(-k)
            reach = int(np.searchsorted(np.cumsum(k[order]), least * spoken[u, c])) + 1
            kept = order[: max(reach, int((k > 0.005 * spoken[u, c]).sum()))]
            if not 1 < len(kept) <= min(MOST_IN_SET, len(level_places) / 2):
                continue
            counts = Candidate(
                spoken[u, c],
                k[kept].sum(),
                n_known[c] - spoken[u, c],
                total[level_places[kept]].sum() - k[kept].sum(),
            )
            if counts.is_rule(least):
                values = in_order(conditions[i].values[0] for i in level_places[kept])
                found.append(
                    Rule(OneOf(conditions[level_places[0]].column, values), (conditions[u],))
                )
    return found


def _under_two_conditions(levels: LevelMatrix, least: float) -> list[Rule]:
    """Implications of two conditions, neither of which is enough."""
    often = np.argsort(-levels.x.sum(0), kind="stable")[:PAIR_LEVELS]
    often = np.sort(often[levels.x[:, often].mean(0) < 0.95])
    x, known = levels.x[:PAIR_ROWS][:, often], levels.known[:PAIR_ROWS]
    if not x.size:
        return []
    column, are_values = levels.column[often], levels.are_values[often]
    total, signs = x.sum(0), np.random.default_rng(0).normal(size=len(x))
    both, spoken = x.T @ x, np.where(are_values, (x.T @ known)[:, column], total[:, None])
    alone = both / np.maximum(spoken, 1)
    found = list[tuple[float, int, int, int]]()
    for u in range(len(often)):
        rows = x[x[:, u] > 0]
        if len(rows) < FEWEST_ROWS or len(rows) < len(x) * 0.01:
            continue
        k = rows.T @ rows
        n = np.where(are_values, (rows.T @ known[x[:, u] > 0])[:, column], k.diagonal()[:, None])
        share, weaker = k / np.maximum(n, 1), np.maximum(alone[u], alone)
        is_rule = (n >= FEWEST_ROWS) & (share >= least)
        is_rule &= 1 - share <= MOST_OF_CHANCE * (1 - weaker)
        is_rule &= (
            (column[:, None] != column) & (column != column[u]) & (column[:, None] != column[u])
        )
        is_rule &= np.arange(len(often))[:, None] > u
        found += [
            (float(n[v, w] * (share[v, w] - weaker[v, w])), u, int(v), int(w))
            for v, w in zip(*np.nonzero(is_rule), strict=True)
        ]
    rules, seen = list[Rule](), set[tuple[float, int]]()
    for _, u, v, w in sorted(found, key=lambda f: (-f[0], f[1:])):
        # conditions on the same rows are one
        same = round(float(signs @ (x[:, u] * x[:, v])), 4), w
        if same in seen or len(rules) == MOST_PAIRS:
            continue
        seen.add(same)
        a, b, c = (levels.conditions[often[i]] for i in (u, v, w))
        rules.append(Rule(c, (a, b)))
    return rules


def _in_part(
    levels: LevelMatrix, cells: RuleCells, halves: Sequence[Rule], least: float
) -> Iterator[Rule]:
    """Rules that hold under a condition on one more column, the one that tells best where they do."""
    if not halves or not levels.conditions:
        return
    follows = np.stack([rule.follows(cells) for rule in halves], 1)
    n_each = levels.x.T @ np.isfinite(follows).astype(np.float32)
    k_each = levels.x.T @ np.nan_to_num(follows).astype(np.float32)
    n_all, k_all = np.isfinite(follows).sum(0), np.nansum(follows, 0)
    few = {c for c in levels.column.tolist() if len(np.unique(cells.codes[:, c])) <= MOST_PARTS}
    is_good = (n_each >= FEWEST_ROWS) & (k_each >= least * n_each)
    for i, rule in enumerate(halves):
        best, most = None, 0.0
        for c in sorted({*levels.column[is_good[:, i]].tolist()} & few):
            good_levels = np.flatnonzero((levels.column == c) & is_good[:, i])
            if cells.schema[c].name in rule.columns:
                continue
            if len(good_levels) > MOST_IN_SET or not levels.are_values[good_levels].all():
                good_levels = good_levels[~levels.are_values[good_levels]][:1]
                if not len(good_levels):
                    continue
            n, k = n_each[good_levels, i].sum(), k_each[good_levels, i].sum()
            counts = Candidate(n, k, n_all[i] - n, k_all[i] - k)
            gain = k - n * k_all[i] / n_all[i]
            if n >= LEAST_PART * n_all[i] and counts.is_rule(least) and gain > most:
                best, most = good_levels, gain
        if best is not None:
            condition = levels.conditions[best[0]]
            if isinstance(condition, OneOf) and len(best) > 1:
                values = (v for u in best for v in getattr(levels.conditions[u], "values", ()))
                condition = OneOf(condition.column, in_order(values))
            yield Rule(rule.statement, (condition,))
