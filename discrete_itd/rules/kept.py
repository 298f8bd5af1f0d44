"""Rules of the table of a fit that a detector keeps, without its rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics.cluster import contingency_matrix

from discrete_itd.encoders import Column
from discrete_itd.encoders.relations import Relation
from discrete_itd.rules.cells import Ints, RuleCells
from discrete_itd.rules.judging import JudgedRule
from discrete_itd.rules.rules import broken_rules, searched, sentence
from discrete_itd.rules.search import FEWEST_ROWS, MOST_OF_CHANCE
from discrete_itd.rules.statements import (
    Key,
    OneOf,
    OneToOne,
    Range,
    Rule,
    Statement,
    parts_of,
)
from discrete_itd.statistics import percent

KEPT_ROWS = 2000  # rows that find kept rules, and as many that judge them: few seconds of a fit
KEPT_TIMES = 5  # rows that have a value whose consequence is kept
KEPT_HOLDS = 0.99  # least share of the rows that follow a kept rule


class BrokenRule(NamedTuple):
    """A rule that the row at a position breaks, and how, in a sentence without its full stop."""

    position: int
    rule: Rule
    sentence: str


@dataclass(frozen=True, eq=False)
class KeptRules:
    """Rules that the rows of a fit obey, the most useful first: all but equations, which the schema of a model has.

    ``bound`` is the probability that a right row breaks one of them, as that of :class:`~discrete_itd.rules.Rules`.
    """

    judged: tuple[JudgedRule, ...] = ()
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.bound <= 1:
            raise ValueError(f"the bound of rules is {self.bound}")
        for key in self._keys():
            key.check_codes()

    @classmethod
    def find(
        cls, frame: pd.DataFrame, schema: Sequence[Column], relations: Sequence[Relation]
    ) -> KeptRules:
        """The rules of a table by at most twice ``KEPT_ROWS`` of its rows, given the equations of its columns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells = RuleCells.read(frame, schema)
        judged, nearly, judges = searched(cells, KEPT_ROWS, KEPT_HOLDS, relations)
        times = [c.name for c in schema if c.family in ("datetime", "timedelta")]
        of_period = parts_of_times(judges)
        judged = [
            replace(one, rule=Rule(statement.fitted(cells, KEPT_TIMES), one.rule.given))
            for one in judged
            if (statement := _lasting(one.rule, of_period))
        ]
        judged = tuple(one for one in judged if _is_storable(one.rule, times))
        nearly = [rule for rule in nearly if _lasting(rule, of_period)]
        is_broken = broken_rules([*(one.rule for one in judged), *nearly], judges).any(1)
        return cls(judged, (int(is_broken.sum()) + 1) / (len(judges) + 1))._trimmed()

    def check_columns(self, schema: Sequence[Column]) -> None:
        """ValueError if rules are about columns that are not there, or compare what is no number."""
        known = {column.name: column for column in schema}
        for one in self.judged:
            for name in one.rule.columns:
                if name not in known:
                    raise ValueError(f"a rule is about the column {name!r}, which is not there")

    def _keys(self) -> Iterator[Key]:
        for one in self.judged:
            yield from one.rule.statement.keys

    @cached_property
    def _levels(self) -> dict[Hashable, list[Any]]:
        """The values of each column of a key; the codes of keys are positions among them."""
        return {
            name: [*values]
            for key in self._keys()
            for name, values in zip(key.columns, key.levels, strict=True)
        }

    def _trimmed(self) -> KeptRules:
        """The same rules, whose keys know the values that they speak of alone."""
        used = dict[Hashable, set[int]]()
        for key in self._keys():
            for name, codes in zip(key.columns, key.codes.T.tolist(), strict=True):
                used.setdefault(name, set()).update(codes)
        places = {name: np.array(sorted(codes)) for name, codes in used.items()}
        levels = {
            name: [values[code] for code in places[name]] for name, values in self._levels.items()
        }

        def trimmed(statement: Any) -> Any:
            if isinstance(statement, OneToOne):
                return OneToOne(trimmed(statement.there), trimmed(statement.back))
            if not isinstance(statement, Key):
                return statement
            columns = zip(statement.columns, statement.codes.T, strict=True)
            codes = np.stack([np.searchsorted(places[name], c) for name, c in columns], 1)
            return replace(
                statement,
                known=np.ascontiguousarray(codes[:, :-1]),
                values=np.ascontiguousarray(codes[:, -1]),
                levels=tuple(levels[name] for name in statement.columns),
            )

        return KeptRules(
            tuple(
                replace(one, rule=Rule(trimmed(one.rule.statement), one.rule.given))
                for one in self.judged
            ),
            self.bound,
        )

    def broken(self, frame: pd.DataFrame, schema: Sequence[Column]) -> Iterator[BrokenRule]:
        """The rules that rows break, the most useful first; of the unique columns of a table none."""
        levels = [pd.Index(self._levels.get(column.name, [])) for column in schema]
        cells = RuleCells.read(frame, schema, levels)
        for one in self.judged:
            if one.rule.kind == "unique":
                continue
            share = f" (in {percent(one.holds)} of rows)" if one.k < one.n else ""
            for i in np.flatnonzero(one.rule.follows(cells) == 0).tolist():
                yield BrokenRule(i, one.rule, sentence(one.rule, cells, frame, i) + share)

    def texts(self) -> list[str]:
        """The rules in the words of the table, those of several columns first."""
        several = [len({*one.rule.columns}) > 1 for one in self.judged]
        return [
            one.rule.text
            for wanted in (True, False)
            for one, is_wanted in zip(self.judged, several, strict=True)
            if is_wanted == wanted
        ]


def _lasting(rule: Rule, of_period: Collection[Hashable]) -> Statement | None:
    """What a rule states that rows of another period follow, too; None if that is nothing.

    A constant, levels and bounds of one column are what its cells happened to be, whose density has them already: of
    these a sign alone is kept. What is said ``of_period``, of parts of times, holds in its part of the calendar; that
    they are these parts holds in any.
    """
    statement = rule.statement
    if len({*rule.columns}) > 1:
        return None if rule.kind == "equation" or rule.tells(of_period) else statement
    if isinstance(statement, Range) and statement.low == 0:
        return replace(statement, high=math.inf)
    return statement if rule.kind in ("present", "unique", "format", "step") else None


def parts_of_times(cells: RuleCells) -> set[Hashable]:
    """The columns that stand for a part of a column of times, in numbers or in words, and a clock of years."""
    names = set[Hashable]()
    for column in cells.schema:
        if column.family != "datetime":
            if column.kind == "clock":  # of years
                names.add(column.name)
            continue
        for _, part in parts_of(cells, column.name):
            codes = pd.factorize(part)[0]
            names |= {
                other.name
                for other, levels in zip(cells.schema, cells.codes.T, strict=True)
                if other.family != "datetime" and _are_alike(codes, levels)
            }
    return names


def _are_alike(a: Ints, b: Ints) -> bool:
    """Whether codes (N,) determine each other in nearly all rows that have both."""
    known = (a >= 0) & (b >= 0)
    n = int(known.sum())
    if n < FEWEST_ROWS:
        return False
    counts = contingency_matrix(a[known], b[known])
    n_apart = n - min(counts.max(0).sum(), counts.max(1).sum())
    n_other = n - max(counts.sum(0).max(), counts.sum(1).max())
    return n_apart <= min((1 - KEPT_HOLDS) * n, MOST_OF_CHANCE * n_other)


def _is_storable(rule: Rule, times: Collection[Hashable]) -> bool:
    """Whether all values that a rule knows are plain ones: no times, and finite."""
    names = {name for key in rule.statement.keys for name in key.columns}
    conditions = [*rule.given, rule.statement]
    values = [v for c in conditions if isinstance(c, OneOf) for v in c.values if v is not None]
    values += [v for key in rule.statement.keys for column in key.levels for v in column]
    are_plain = all(
        isinstance(v, str | int) or (isinstance(v, float) and math.isfinite(v)) for v in values
    )
    return are_plain and not names & {*times}
