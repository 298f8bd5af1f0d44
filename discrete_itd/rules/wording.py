"""Rules as text, read back: those that a person writes in the words of a table."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from discrete_itd.encoders.calendar import PARTS
from discrete_itd.encoders.numeric import find_lattice
from discrete_itd.encoders.relations import (
    FLOAT,
    FORMS,
    ColumnTerm,
    Relation,
    Term,
    is_numeric,
)
from discrete_itd.rules.cells import RuleCells
from discrete_itd.rules.statements import (
    NOTATION,
    UNQUOTED,
    Equation,
    Format,
    Key,
    OneOf,
    OneToOne,
    Order,
    PartOfTime,
    Present,
    Range,
    Readable,
    Rule,
    Statement,
    Step,
    Together,
    Unique,
)

NUMBER = r"[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
VALUE = rf"{QUOTED}|[^,{{}}]+?"
SIGNS = str.maketrans({"×": "*", "−": "-", "·": "*"})


def parse(text: str, cells: RuleCells) -> Rule:
    """The rule that a text says of a table; ValueError if it says none."""
    return _Parser(cells).rule(text)


class _Parser:
    """Patterns of the columns of one table."""

    def __init__(self, cells: RuleCells) -> None:
        self.cells = cells
        self.names = {str(column.name): column.name for column in cells.schema}
        longest = sorted(self.names, key=len, reverse=True)
        self.name = "|".join(map(re.escape, longest))
        # in an expression, where of names that differ by spaces around them one without them is meant
        before, behind = r"(?<!\S)", r"(?!\S)"
        alike = {n for n in longest if n.strip() != n and n.strip() in self.names}
        patterns = (
            before * (n in alike and n[:1].isspace())
            + re.escape(n)
            + behind * (n in alike and n[-1:].isspace())
            for n in longest
        )
        self.named = rf"(?<![^\W\d])({'|'.join(patterns)})(?!\w)"
        self.condition = (
            rf"(?:{self.name}) (?:= (?:{VALUE})|in \{{.*?\}}|is missing|is not missing)"
        )

    def rule(self, text: str) -> Rule:
        """The rule of a text."""
        text = self._without_margins(text)
        match = _match(rf"if ({self.condition}(?: and {self.condition})*): (.+)", text)
        if match is None:
            return Rule(self.statement(text))
        follows = rf" and (?=(?:{self.name}) (?:=|in|is) )"
        given = tuple(self._condition(part) for part in re.split(follows, match[1]))
        return Rule(self.statement(match[2]), given)

    def _without_margins(self, text: str) -> str:
        """A text without a full stop, and without spaces around it but for those of a column's name."""
        if not any(name[:1].isspace() and text.startswith(name) for name in self.names):
            text = text.lstrip()
        for mark in (None, ".", None):
            ends = [name for name in self.names if name and text.endswith(name)]
            if not any(name[-1].isspace() or name[-1] == "." for name in ends):
                text = text.rstrip() if mark is None else text.removesuffix(mark)
        return text

    def statement(self, text: str) -> Statement:
        """The statement of a text without conditions."""
        n, number, but = f"({self.name})", f"({NUMBER})", f"({re.escape(NOTATION)})?"
        ways: dict[str, Callable[..., Statement]] = {
            rf"({self.condition}) exactly where ({self.condition})": lambda a, b: Together(
                self._condition(a), self._condition(b)
            ),
            f"{n} is unique": lambda a: Unique((self.names[a],)),
            f"{n} and {n} are together unique": lambda a, b: Unique((self.names[a], self.names[b])),
            f"{n} is a whole number": lambda a: Step(self.names[a], 1.0),
            f"{n} is a (?:number|time|duration|truth value)": self._readable,
            f"{n} is a multiple of {number}": lambda a, b: self._step(a, _number(b)),
            f"{n} is the ({'|'.join(PARTS)}) of {n}": self._part,
            f"{n} matches (.+)": lambda a, b: self._format(a, b),
            f"{n} determines {n}{but}": lambda a, b, but: self._key(b, a, but=but),
            f"{n} and {n} determine {n}{but}": lambda a, b, c, but: self._key(c, a, b, but=but),
            f"{n} and {n} determine each other": lambda a, b: OneToOne(
                self._key(b, a), self._key(a, b)
            ),
            f"{n} (?:≤|<=) {n}": lambda a, b: self._order(a, b),
            f"{n} (?:≥|>=) {n}": lambda a, b: self._order(b, a),
            f"{n} (?:≥|>=) {number}": lambda a, b: self._range(_number(b), a, np.inf),
            f"{n} (?:≤|<=) {number}": lambda a, b: self._range(-np.inf, a, _number(b)),
            f"{number} (?:≤|<=) {n} (?:≤|<=) {number}": lambda a, b, c: self._range(
                _number(a), b, _number(c)
            ),
        }
        for pattern, make in ways.items():
            if match := _match(pattern, text):
                return make(*match.groups())
        if _match(self.condition, text):
            condition = self._condition(text, or_none=True)
            if condition is not None:
                return condition
        if text.count("=") == 1:
            return self._equation(text)
        names = ", ".join([*self.names][:8])
        raise ValueError(f"{text!r} is no rule about the columns {names}; see Rules.table for some")

    def _condition(self, text: str, *, or_none: bool = False) -> Any:
        """A condition on one column; if asked, None for the value of another column or an expression."""
        match = _match(rf"({self.name}) (= |in |is )(.+)", text)
        if match is None:
            raise ValueError(f"{text!r} is no rule about a column of the table")
        name, sign, rest = self.names[match[1]], match[2], match[3]
        if sign == "is ":
            return Present(name) if rest == "not missing" else OneOf(name, (None,))
        column = self.cells.schema[self.cells.place(name)]
        known = {_bare(str(value)): value for value in self.cells.values_of(name)}
        known |= {str(value): value for value in self.cells.values_of(name)}
        if column.are_truths:
            known |= {"true": True, "false": False, "TRUE": True, "FALSE": False}
        has_commas = getattr(column.notation, "decimal", None) == ","
        if sign == "in " and has_commas and re.search(r"\d,\d", rest):
            raise ValueError(f"{text!r}: a comma between digits is a decimal mark in {name!r}")
        parts = _listed(text, rest[1:-1], known) if sign == "in " else [rest]
        values = list[Any]()
        for part in map(_bare, parts):
            is_number = _match(NUMBER, part) is not None
            if part not in known and not is_number and rest[0] not in "'\"{" and or_none:
                # words in a column of text are a value that the table does not have
                is_word = re.fullmatch(UNQUOTED, part) is not None
                if is_numeric(column) or not is_word or re.search(self.named, part):
                    return None
            values.append(known.get(part, _number(part) if is_number else part))
        return OneOf(name, tuple(values))

    def _readable(self, name: str) -> Readable:
        column = self.cells.schema[self.cells.place(self.names[name])]
        statement = Readable.of(column)
        if statement is None:
            raise ValueError(f"column {name!r}: any text is a value of it")
        return statement

    def _step(self, name: str, step: float) -> Step:
        if not 0 < step < np.inf:
            raise ValueError(f"column {name!r}: a step must be a positive number, got {step}")
        return Step(self.names[name], step)

    def _format(self, name: str, pattern: str) -> Format:
        try:
            return Format(self.names[name], re.compile(pattern).pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"column {name!r}: {pattern!r} is no regular expression ({error})"
            ) from None

    def _range(self, low: float, name: str, high: float) -> Range:
        if low > high or low == np.inf or high == -np.inf or (low == -high == -np.inf):
            raise ValueError(f"column {name!r}: no number is from {low} to {high}, or every one is")
        return Range(self.names[name], low, high)

    def _part(self, name: str, part: str, time: str) -> PartOfTime:
        if self.cells.schema[self.cells.place(self.names[time])].family != "datetime":
            raise ValueError(f"column {time!r}: is no time, so it has no {part}")
        return PartOfTime.fit(self.names[time], self.names[name], part, self.cells)

    def _key(self, column: str, *determinants: str, but: str | None = None) -> Key:
        names = tuple(self.names[d] for d in determinants)
        return Key.fit(names, self.names[column], self.cells, but_notation=but is not None)

    def _order(self, low: str, high: str) -> Order:
        for name in (low, high):
            if not is_numeric(self.cells.schema[self.cells.place(self.names[name])]):
                raise ValueError(f"column {name!r}: has no order, got {low} ≤ {high}")
        return Order(self.names[low], self.names[high])

    def _equation(self, text: str) -> Equation:
        """An equation, solved for a column that stands in one term alone, the first side's first."""
        is_floor = text.endswith(", rounded down")
        mark = "c"  # what stands for a column is no part of the text
        while mark in text:
            mark += "c"
        marked = re.sub(
            self.named,
            lambda m: f"_{mark}{self.cells.place(self.names[m[1]])}_",
            text.removesuffix(", rounded down"),
        ).translate(SIGNS)
        left, _, right = marked.partition("=")
        try:
            trees = [ast.parse(side.strip(), mode="eval").body for side in (left, right)]
            nodes = [node for tree in trees for node in ast.walk(tree)]
            forms = [node.func for node in nodes if isinstance(node, ast.Call)]
            for node in nodes:
                if isinstance(node, ast.Name) and node not in forms:
                    node.id = self._place(node.id, mark, text)
            sides = [*map(_polynomial, trees)]
        except (SyntaxError, TypeError, KeyError, ZeroDivisionError, OverflowError):
            raise ValueError(f"{text!r} is no equation of columns of the table") from None
        total = _sum(sides[0], sides[1], -1.0)
        alone = [
            f for side in sides for f in side if len(f) == 1 and f[0].form == "x" and total.get(f)
        ]
        alone = [f for f in alone if sum(f[0].column in {g.column for g in t} for t in total) == 1]
        if not alone or len(total) < 2:
            raise ValueError(f"{text!r} has no column that follows from others")
        child = next((f for f in alone if len(sides[0]) == 1 or len(sides[1]) > 1), alone[-1])
        scale = -total.pop(child)
        constant = total.pop((), 0.0) / scale
        if not np.isfinite([scale, constant, *total.values()]).all():
            raise ValueError(f"{text!r} has a number beyond all that a float holds")
        terms = tuple(Term(c / scale, factors) for factors, c in total.items() if c)
        column = child[0].column
        known = self.cells.numbers[np.isfinite(self.cells.numbers[:, column]), column]
        if not len(known) or not terms:
            raise ValueError(f"{text!r}: no numbers in {self.cells.schema[column].name!r}")
        step, origin = find_lattice(known)
        if origin is None:
            step = FLOAT * float(np.abs(known).max())
        half = step / 2 if origin is not None else 0.75 * step
        relation = Relation(
            column, terms, constant - is_floor * half, step, origin or 0.0, half, (), 0, 0
        )
        return Equation(relation, tuple(c.name for c in self.cells.schema))

    def _place(self, name: str, mark: str, text: str) -> str:
        """The position, in digits, of the column for which a name in an expression stands."""
        match = re.fullmatch(rf"_{mark}(\d+)_", name)
        if match is None:
            raise ValueError(f"column {name!r}: the table has no such column, got {text!r}")
        return match[1]


def _match(pattern: str, text: str) -> re.Match[str] | None:
    """The match of a whole text, in which there may be new lines."""
    return re.fullmatch(pattern, text, re.DOTALL)


def _listed(text: str, inside: str, known: Mapping[str, Any]) -> list[str]:
    """The values between braces; ValueError where commas could be part of one."""
    spans, place, value = list[tuple[int, int]](), 0, re.compile(rf"\s*({VALUE})\s*,", re.DOTALL)
    while place <= len(inside):
        match = value.match(inside + ",", place)
        if match is None or not match[1].strip():
            raise ValueError(f"{text!r} lists no values in braces with commas between them")
        spans.append(match.span(1))
        place = match.end()
    for (start, _), (_, end) in itertools.combinations(spans, 2):
        if inside[start:end] in known:
            one = inside[start:end]
            raise ValueError(f"{text!r}: {one!r} is one value of the column; put it in quotes")
    return [inside[start:end] for start, end in spans]


def _number(text: str) -> float:
    number = float(text.translate(SIGNS))
    return int(number) if number.is_integer() else number


def _bare(text: str) -> str:
    """A value without quotation marks around it."""
    text = text.strip()
    try:
        return ast.literal_eval(text) if text[:1] in ("'", '"') else text
    except (SyntaxError, ValueError):
        return text


# coefficients of products of factors; the empty one is the constant
Polynomial = dict[tuple[ColumnTerm, ...], float]


def _sum(a: Polynomial, b: Polynomial, sign: float = 1.0) -> Polynomial:
    return {f: a.get(f, 0.0) + sign * b.get(f, 0.0) for f in (*a, *(f for f in b if f not in a))}


def _polynomial(node: ast.expr) -> Polynomial:
    """An expression, whose names are positions of columns, as a sum of products; TypeError if it is none."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return {(): float(value)}
        case ast.Name(id=name):
            return {(ColumnTerm(int(name)),): 1.0}
        case ast.Call(func=ast.Name(id=form), args=[ast.Name(id=name)]) if form in FORMS:
            return {(ColumnTerm(int(name), form),): 1.0}
        case ast.BinOp(
            left=ast.Constant(value=1),
            op=ast.Add() | ast.Sub() as operator,
            right=ast.BinOp(left=ast.Name(id=name), op=ast.Div(), right=ast.Constant(value=100)),
        ):
            form = "1+%" if isinstance(operator, ast.Add) else "1-%"
            return {(ColumnTerm(int(name), form),): 1.0}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _sum({}, _polynomial(operand), -1.0)
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _polynomial(left), _polynomial(right)
            if isinstance(operator, ast.Add | ast.Sub):
                return _sum(a, b, -1.0 if isinstance(operator, ast.Sub) else 1.0)
            if isinstance(operator, ast.Div) and len(b) == 1:
                ((factors, c),) = b.items()
                flipped = {"x": "1/x", "1/x": "x"}
                b = {tuple(ColumnTerm(f.column, flipped[f.form]) for f in factors): 1 / c}
            elif not isinstance(operator, ast.Mult):
                raise TypeError
            out: Polynomial = {}
            for (f, c), (g, d) in itertools.product(a.items(), b.items()):
                out = _sum(out, {tuple(sorted((*f, *g))): c * d})
            return out
    raise TypeError
