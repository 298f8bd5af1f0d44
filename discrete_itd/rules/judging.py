r"""Rules judged by rows that did not find them.

Of a rule, k of n judging rows follow, and :math:`k_0` of :math:`n_0` in a reference: rows with the column that should
follow shuffled, for a rule without conditions; those that do not meet one of several conditions, and the nearest of
them where it is a number; or all, by a statement with a determinant less. Twice

.. math:: G = n\, D(k/n \,\|\, \bar p) + n_0\, D(k_0/n_0 \,\|\, \bar p)

is the likelihood ratio of two shares instead of one, and :math:`e^{-G}` bounds, but for factors, how probable it is if
the rule holds by chance. Of m rules that are judged, those are kept for which it is below :data:`BY_CHANCE` / m.

References
----------
Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from discrete_itd.encoders.relations import is_numeric
from discrete_itd.rules.cells import RuleCells
from discrete_itd.rules.search import FEWEST_ROWS, MOST_OF_CHANCE
from discrete_itd.rules.statements import (
    Condition,
    Equation,
    Key,
    OneOf,
    Present,
    Rule,
    Statement,
    meets,
)
from discrete_itd.statistics import CONFIDENCE

BY_CHANCE = 0.01  # expected number of rules in a table of independent columns
LEAST_GAIN = 0.01  # nats a row
N_SHUFFLES = 3
NEAR_PART = 10  # the part of the other rows that have the numbers nearest to one, one in so many


@dataclass(frozen=True)
class JudgedRule:
    """A rule and what judging rows say of it.

    Of the ``n`` rows of which it speaks ``k`` follow; with probability .95, taken over all rules that were judged, a
    share ``low`` follows. ``gain`` is in nats a row of the table; 0 for a rule of one column, which has no reference.
    """

    rule: Rule
    n: int
    k: int
    low: float
    gain: float

    @property
    def holds(self) -> float:
        """The share of the rows that follow; NaN of a rule that speaks of none."""
        return self.k / self.n if self.n else math.nan


def counted(rule: Rule, cells: RuleCells) -> tuple[int, int]:
    """The rows that a rule speaks of, and those that follow."""
    follows = rule.follows(cells)
    return int(np.isfinite(follows).sum()), int(np.nansum(follows))


def judge(
    rules: Sequence[Rule], cells: RuleCells, least: float = 0.0, finders: RuleCells | None = None
) -> tuple[list[JudgedRule], list[Rule]]:
    """The rules that a share ``least`` follows and that hold beyond chance, with ``finders`` the rows that found them.

    Without ``finders`` all rules are kept. Also the rules that one exception fewer would have kept: whatever its row, n
    other rows with a new one in its place would have kept them, so that they count where a new row may break a rule.
    """
    found, nearly = list[JudgedRule](), list[Rule]()
    for rule in rules:
        n, k = counted(rule, cells)
        if finders is not None and (n < FEWEST_ROWS / 2 or k + 1 < least * n):
            continue
        if not n:
            found.append(JudgedRule(rule, 0, 0, 0.0, 0.0))
            continue
        references = _references(rule, cells, finders)
        least_evidence = max(math.log(len(rules) / BY_CHANCE), LEAST_GAIN * len(cells))
        evidence = _least_evidence(n, k, references)
        if finders is None or (k >= least * n and evidence > least_evidence):
            low = stats.beta.ppf((1 - CONFIDENCE) / len(rules), k, n - k + 1) if k else 0.0
            gain = evidence / len(cells) if references else 0.0
            found.append(JudgedRule(rule, n, k, float(low), gain))
        elif k < n and _least_evidence(n, k + 1, references) > least_evidence:
            nearly.append(rule)
    return found, nearly


def _least_evidence(n: int, k: int, references: Sequence[tuple[int, int]]) -> float:
    """G of the reference of which it is least, in nats; 0 where exceptions are too many for one that is by chance."""
    if any((n - k) * n0 > MOST_OF_CHANCE * (n0 - k0) * n for n0, k0 in references):
        return 0.0
    return min((_evidence(n, k, *reference) for reference in references), default=math.inf)


def _references(rule: Rule, cells: RuleCells, finders: RuleCells | None) -> list[tuple[int, int]]:
    """Numbers of rows, and of those that follow, of each reference of a rule."""
    references = list[tuple[int, int]]()
    fit_to = cells if finders is None else finders
    if not isinstance(rule.statement, Equation):  # which knows its columns by their places
        cells = cells.of(rule.columns)
    for condition in rule.given:
        others = tuple(c for c in rule.given if c is not condition)
        outside = cells.take(meets(others, cells) & ~meets((condition,), cells))
        references.append(counted(Rule(rule.statement), outside))
        if isinstance(rule.statement, OneOf | Present) and condition.kind == "values":
            references += _beside(rule.statement, condition, outside)
    if isinstance(rule.statement, Key):
        references += [counted(Rule(w.fitted(fit_to)), cells) for w in rule.statement.weaker()]
    if (column := rule.statement.consequent) is not None:
        inside = cells.take(meets(rule.given, cells)) if rule.given else cells
        rng = np.random.default_rng(0)
        shuffled = [
            counted(Rule(rule.statement), inside.shuffled(column, rng.permutation(len(inside))))
            for _ in range(N_SHUFFLES)
        ]
        references.append((sum(n for n, _ in shuffled), sum(k for _, k in shuffled)))
    return references


def _beside(
    statement: Statement, condition: Condition, outside: RuleCells
) -> list[tuple[int, int]]:
    """Of a condition that a column has one number, the reference of the rows with the numbers nearest to it.

    Where these follow as well, numbers of that size do, and the one is no rule: few games, no home run.
    """
    column = outside.schema[outside.place(condition.column)]
    values = getattr(condition, "values", ())
    if len(values) != 1 or not is_numeric(column) or column.are_truths:
        return []
    distance = np.abs(outside.numbers_of(condition.column) - float(values[0]))
    nearest = np.argsort(distance, kind="stable")[: max(FEWEST_ROWS, len(outside) // NEAR_PART)]
    return [counted(Rule(statement), outside.take(nearest[np.isfinite(distance[nearest])]))]


def _evidence(n: int, k: int, n_reference: int, k_reference: int) -> float:
    """G, in nats: 0 where the rule holds no more often than in the reference, which has rows."""
    if not n_reference or k * n_reference <= k_reference * n:
        return 0.0
    counts = np.array([[k, n - k], [k_reference, n_reference - k_reference]], float)
    pooled = counts.sum(0) / counts.sum()
    expected = counts.sum(1, keepdims=True) * pooled
    return float(special.xlogy(counts, counts / np.where(expected > 0, expected, 1)).sum())
