"""Rules that others imply are left out: ends of chains, restatements, consequences of equations and keys."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from discrete_itd.rules.cells import RuleCells
from discrete_itd.rules.judging import JudgedRule
from discrete_itd.rules.statements import (
    Equation,
    Key,
    OneOf,
    OneToOne,
    Order,
    PartOfTime,
    Present,
    Together,
)

Names = frozenset[Hashable]


class Arrow(NamedTuple):
    """What follows where all ``given`` nodes do, columns or conditions; None of ``rule`` if it is plain logic."""

    given: frozenset[Any]
    then: Any
    rule: JudgedRule | None = None


def pruned(judged: Sequence[JudgedRule], cells: RuleCells) -> list[JudgedRule]:
    """The rules that no others imply, of several with the same content the strongest."""
    parts = [{*j.rule.columns} for j in judged if isinstance(j.rule.statement, PartOfTime)]
    # an equation of these, as month = month(date) − 660, holds in the years of the table alone
    best = [
        j
        for j in sorted(judged, key=lambda j: -j.gain)
        if not (isinstance(j.rule.statement, Equation) and {*j.rule.columns} in parts)
    ]
    whole = [j.rule.statement for j in best if not j.rule.given]
    solved = [s for s in whole if isinstance(s, Equation | PartOfTime)]
    equations = [frozenset(e.columns) for e in solved]
    unique = [frozenset(j.rule.columns) for j in unique_ones(best)]
    pairs = [frozenset(a.given | {a.then}) for a in between_columns(best, Key) if len(a.given) > 1]
    kept = [j for j in best if not _is_restated(j, equations, unique, pairs)]
    kept = _without_implied(kept, [*between_columns(kept, Order)])
    follow = [Arrow(frozenset({*e.columns} - {e.consequent}), e.consequent) for e in solved]
    kept = _without_implied(kept, [*between_columns(kept, Key | OneToOne), *follow])
    kept = _without_implied(kept, [*between_conditions(kept, cells)])
    keys = [*between_columns(kept, Key | OneToOne)]
    for one in reversed(unique_ones(kept)):
        # of columns that determine each other, the strongest stand for the others
        rest = [u.rule.columns for u in unique_ones(kept) if u is not one]
        if any(closure(one.rule.columns, keys).issuperset(columns) for columns in rest):
            kept.remove(one)
    return kept


def unique_ones(judged: Iterable[JudgedRule]) -> list[JudgedRule]:
    """The rules on unique columns."""
    return [j for j in judged if j.rule.kind == "unique"]


def _is_restated(
    one: JudgedRule, equations: Sequence[Names], unique: Sequence[Names], pairs: Sequence[Names]
) -> bool:
    """Whether a rule is among the columns of another one that says more.

    Of an equation: orders, and keys of all its columns. Of unique columns: more that are. Of keys of two columns:
    implications of values, which are parts of the key, or say which pairs of values have the same.
    """
    columns, statement = frozenset(one.rule.columns), one.rule.statement
    if isinstance(statement, Order) and any({*statement.columns} <= e for e in equations):
        return True
    if isinstance(statement, Key | OneToOne) and {*statement.columns} in equations:
        return True
    if one.rule.kind == "implication" and statement.kind == "values":
        return any(columns <= pair for pair in pairs)
    return one.rule.kind == "unique" and any(u < columns for u in unique)


def between_columns(judged: Iterable[JudgedRule], kind: Any) -> Iterator[Arrow]:
    """The arrows of orders, or of keys, that hold in the whole table."""
    for one in judged:
        statement = one.rule.statement
        if one.rule.given or not isinstance(statement, kind):
            continue
        *given, then = statement.columns
        node = statement.node if isinstance(statement, Key) else then
        yield Arrow(frozenset(given), node, one)
        if node != then:
            yield Arrow(frozenset({then}), node)
        if isinstance(statement, OneToOne):
            yield Arrow(frozenset({then}), given[0], one)


def between_conditions(judged: Sequence[JudgedRule], cells: RuleCells) -> Iterator[Arrow]:
    """The arrows of implications and their contrapositives, and those of logic and of keys between their conditions."""
    nodes = dict[Any, None]()
    for one in judged:
        rule = one.rule
        if rule.kind != "implication":
            continue
        if isinstance(rule.statement, Together):
            sides = rule.statement.left, rule.statement.right
            arrows = [(sides[:1], sides[1]), (sides[1:], sides[0])]
        else:
            arrows = [(rule.given, rule.statement)]
        arrows += [
            ((_opposite(then, cells),), _opposite(given[0], cells))
            for given, then in arrows
            if len(given) == 1
        ]
        for given, then in arrows:
            if None not in (*given, then):
                yield Arrow(frozenset(given), then, one)
                nodes |= dict.fromkeys((*given, then))
    keys = [key for j in judged if not j.rule.given for key in j.rule.statement.keys]
    for a in nodes:
        for b in nodes:
            if a != b and a.column == b.column and _is_within(a, b):
                yield Arrow(frozenset({a}), b)
        if a.kind == "values" and len(a.values) == 1:
            for key in keys:
                if key.determinants == (a.column,):
                    yield from (Arrow(frozenset({a}), b) for b in nodes if _is_said(key, a, b))
    pairs = {(frozenset(key.determinants), key.node) for key in keys}
    for one in judged:  # values that columns determine in every row
        given = {c.column for c in one.rule.given if c.kind == "values"}
        follow = closure(given, [Arrow(*pair) for pair in pairs]) if len(given) > 1 else set()
        if one.rule.statement.kind == "values" and one.rule.statement.columns[0] in follow:
            yield Arrow(frozenset(one.rule.given), one.rule.statement)


def _is_said(key: Key, given: OneOf, then: Any) -> bool:
    """Whether a key says of a value of its determinant that a condition on its column holds."""
    if then.kind != "values" or then.column != key.column or not key.levels:
        return False
    known, values = key.levels
    places = {
        known[code]: values[value] for (code,), value in zip(key.known, key.values, strict=True)
    }
    if given.values[0] not in places:
        return False
    expected = places[given.values[0]]
    return all(v in then.values for v in values if key.is_same(v, expected))


def _is_within(a: Any, b: Any) -> bool:
    """Whether a condition on a column is a case of another one on it."""
    if isinstance(b, Present):
        return a.kind == "values"
    return a.kind == b.kind == "values" and {*a.values} < {*b.values}


def _opposite(condition: Any, cells: RuleCells) -> Any:
    """The condition that holds where this one does not, of a column with two levels; else None."""
    if isinstance(condition, Present):
        return OneOf(condition.column, (None,))
    if condition.kind == "missing":
        return Present(condition.column)
    others = {*cells.values_of(condition.column)} - {*condition.values}
    is_complete = bool((cells.codes_of(condition.column) >= 0).all())
    return OneOf(condition.column, tuple(others)) if is_complete and len(others) == 1 else None


def closure(start: Iterable[Any], arrows: Sequence[Arrow]) -> set[Any]:
    """All nodes that follow from some of them."""
    reached, n = {*start}, -1
    while len(reached) > n:
        n = len(reached)
        reached |= {arrow.then for arrow in arrows if arrow.given <= reached}
    return reached


def _without_implied(judged: list[JudgedRule], arrows: list[Arrow]) -> list[JudgedRule]:
    """The rules but for those whose arrows, both of two, follow from the others; the weakest are left out first."""
    gone = set[int]()
    for one in reversed(judged):
        rule_arrows = [a for a in arrows if a.rule is one]
        others = [a for a in arrows if a.rule is not one]
        # contrapositives come last, and follow with the arrows whose they are
        asked = rule_arrows[: 1 if one.rule.given else 2]
        if rule_arrows and all(a.then in closure(a.given, others) for a in asked):
            gone.add(id(one))
            arrows = others
    return [j for j in judged if id(j) not in gone]
