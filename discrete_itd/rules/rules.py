"""``find_rules``, and the rules that it finds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from discrete_itd.devices import one_thread
from discrete_itd.encoders import Column, TableEncoder, written
from discrete_itd.encoders.column import is_missing
from discrete_itd.encoders.gaps import evenly
from discrete_itd.encoders.relations import Relation
from discrete_itd.reading.frames import read_rows
from discrete_itd.rules.cells import Bools, RuleCells
from discrete_itd.rules.exports import dqx_of, great_expectations_of, pandera_of, sql_of
from discrete_itd.rules.judging import JudgedRule, judge
from discrete_itd.rules.pruning import pruned
from discrete_itd.rules.search import search
from discrete_itd.rules.statements import Present, Readable, Rule
from discrete_itd.rules.wording import parse
from discrete_itd.validation import check_share

MOST_ROWS = 20_000  # rows that find rules, and as many that judge them
SOME_ROWS = 4096  # rows that show which columns grow with time
N_EXAMPLES = 5
# kinds of rules of one column, which have no gain, in the order in which they are listed
ONE_COLUMN = ("unique", "values", "range", "format", "step", "present", "type")


class Check(NamedTuple):
    """What rules say of new rows.

    Attributes
    ----------
    table : DataFrame
        A line for each broken rule of each row: ``row`` (label of the index), ``rule``, ``columns`` and a ``sentence``.
    mask : Series of bool, shape (N,)
        The rows that break a rule.
    bound : float
        Probability that a right new row breaks one, see :attr:`Rules.bound`.
    """

    table: pd.DataFrame
    mask: pd.Series
    bound: float


@one_thread
def find_rules(table: Any, *, min_holds: float = 0.98) -> Rules:
    """The rules that a table obeys: equations, keys, orders, implications, ranges, formats, parts of times and so on.

    Rules are searched in one half of the rows and judged by the other. A rule is kept if a share ``min_holds`` of both
    halves follows; if its exceptions are a tenth of those that independent columns would have, at most; and if such a
    rule is found in at most one of a hundred tables of independent columns. What other kept rules imply is left out:
    the ends of chains, values that keys determine, orders and keys among the columns of an equation, contrapositives.
    Where a column follows from others but for case, spaces and accents, the key says so, and differences in these alone
    break nothing. A column that is the year, month or weekday (and so on) of a time is said to be it, in numbers or in
    words of its own, and of times never seen, too.

    Parameters
    ----------
    table : DataFrame or array-like, shape (N, C)
        A pandas frame, a table of another library that narwhals knows, or an array. Numbers and dates may be text.
    min_holds : float, default=0.98
        Least share of the rows of which a rule speaks that follow it, above 0; 1 for rules without exceptions among
        the rows that find and judge them.

    Returns
    -------
    Rules

    Raises
    ------
    ValueError, TypeError
        Naming the column or parameter that is invalid.

    Notes
    -----
    Of more than 40 000 rows, as many are searched and judged, chosen at random by their content; exceptions are counted
    in all. Rules are the same in any order of the rows; but where this is the order of time, no values are told of
    numbers that grow with it, or of months and days that have not returned: the next rows have others. Of columns that
    determine each other, the one with most values (of several the first) stands for all in other rules.

    Examples
    --------
    >>> town, code = ["Bonn", "Köln", "Ulm", "Ulm"] * 50, [53, 50, 89, 88] * 50
    >>> table = pd.DataFrame({"town": town, "code": code})
    >>> table.loc[7, "town"] = "Bonn"
    >>> rules = find_rules(table)
    >>> rules.table[["rule", "support", "exceptions", "examples"]].head(1)
                       rule  support  exceptions examples
    0  code determines town      200           1      [7]
    >>> rules.check(pd.DataFrame({"town": ["Köln", "Köln"], "code": [50, 89]})).table.loc[0, "sentence"]
    'town = Köln, but town = Ulm where code = 89'
    """
    if isinstance(min_holds, bool) or min_holds != 1:  # 1: rules without exceptions
        min_holds = check_share("min_holds", min_holds)
    frame, _ = read_rows(table, find_rules)
    with (
        warnings.catch_warnings()
    ):  # of columns that a model would leave out, and of unreadable cells
        warnings.simplefilter("ignore")
        # without a level of new values there are no cuts of codes to look for
        encoder = TableEncoder.infer(frame, handle_unknown="error")
        schema, times = encoder.schema, encoder.times
        cells = RuleCells.read(frame, schema)
        some = frame.iloc[evenly(len(frame), SOME_ROWS)]
        left_out = TableEncoder.infer(some, handle_unknown="error", leave_out=True).left_out
    of_period = {column.name for column in left_out if column.why == "part of the clock"}
    if times is not None:  # and the years that are counted from it
        of_period.add(schema[times.clock].name)
        of_period |= {schema[j].name for j in times.since if schema[j].family == "number"}
    judged, nearly, judges = searched(cells, MOST_ROWS, min_holds)
    judged = [one for one in judged if not one.rule.tells(of_period)]
    nearly = [rule for rule in nearly if not rule.tells(of_period)]
    broken, may_break = (
        broken_rules(rules, judges) for rules in ([one.rule for one in judged], nearly)
    )
    fitted = [
        replace(one, rule=Rule(one.rule.statement.fitted(cells), one.rule.given)) for one in judged
    ]
    return Rules(fitted, frame, cells, broken, np.asarray(may_break.any(1)))


@np.errstate(over="ignore", invalid="ignore")  # of numbers beyond all that a float holds
def searched(
    cells: RuleCells, n_rows: int, min_holds: float, relations: Sequence[Relation] | None = None
) -> tuple[list[JudgedRule], list[Rule], RuleCells]:
    """The rules that ``n_rows`` rows have at most, the most useful first, those nearly kept, and the judging rows."""
    order = cells.order_by_content()[: 2 * n_rows]
    finders, judges = cells.take(order[::2]), cells.take(order[1::2])
    judged, nearly = judge(search(finders, min_holds, relations), judges, min_holds, finders)
    judged, place = pruned(judged, finders), {kind: k for k, kind in enumerate(ONE_COLUMN)}
    told = {c for one in judged if one.rule.statement.needs_values for c in one.rule.columns}
    types = [Readable.of(column) for column in cells.schema if column.name not in told]
    judged += judge([Rule(one) for one in types if one], judges)[0]
    judged.sort(key=lambda one: (-one.gain, place.get(one.rule.kind, -1)))
    return judged, nearly, judges


def broken_rules(rules: Sequence[Rule], cells: RuleCells) -> Bools:
    """Which rows (N,) break which rules (R,)."""
    out = np.zeros((len(cells), len(rules)), bool)
    for r, rule in enumerate(rules):
        out[:, r] = rule.follows(cells) == 0
    return out


class Rules:
    """Rules of a table; :func:`find_rules` makes them.

    Attributes
    ----------
    table : DataFrame
        One rule a line, the most useful first: ``rule``, a sentence in the table's words that :meth:`judge` reads;
        ``kind``; ``columns``; ``support``, the rows it speaks of; ``exceptions``, those of them that break it, and
        ``examples``, the labels of the first; ``holds``, the share that follows among rows that did not find it, with
        ``holds_low``, a lower bound with probability .95 for all rules together, however many were tried; and ``gain``,
        nats a row by which this is more probable than if the columns were independent (0 for a rule of one column).
    rules : list of Rule
        The same, in this order.
    bound : float
        Probability that a new row from where the table came breaks a rule, among n rows that did not find them of which
        k do: (k + 1) / (n + 1), as of exchangeable rows. As they have chosen the rules, rows count that break one which
        would have been kept without them.
    """

    def __init__(
        self,
        judged: Sequence[JudgedRule],
        frame: pd.DataFrame,
        cells: RuleCells,
        broken: Bools,
        may_break: Bools | None = None,
    ) -> None:
        self._judged, self._cells, self._broken = [*judged], cells, broken
        self._may_break = np.zeros(len(broken), bool) if may_break is None else may_break
        self.frame = frame
        self.rules = [one.rule for one in judged]
        self.bound = (int((broken.any(1) | self._may_break).sum()) + 1) / (len(broken) + 1)
        self.table = pd.DataFrame(
            [self._line(one) for one in judged],
            columns=[
                *("rule", "kind", "columns", "support", "exceptions", "examples", "holds"),
                *("holds_low", "gain"),
            ],
        )

    def _line(self, one: JudgedRule) -> list[Any]:
        follows = one.rule.follows(self._cells)
        exceptions = np.flatnonzero(follows == 0)
        examples = self.frame.index[exceptions[:N_EXAMPLES]].tolist()
        support = int(np.isfinite(follows).sum())
        names = list(dict.fromkeys(one.rule.columns))
        words = [one.rule.text, one.rule.kind, names, support, len(exceptions), examples]
        return [*words, one.holds, one.low, one.gain]

    def __len__(self) -> int:
        return len(self.rules)

    def __repr__(self) -> str:
        return "\n".join(["Rules", *(f"  {rule.text}" for rule in self.rules)])

    def keep(self, which: Iterable[Any]) -> Rules:
        """Some of the rules, by their positions in :attr:`table` or by a mask of its lines.

        ValueError if there are no such positions, or if a mask has another length.
        """
        asked, n = np.asarray([*which]), len(self)
        if not len(asked):
            asked = asked.astype(int)
        is_mask = asked.dtype == bool
        if asked.ndim != 1 or asked.dtype.kind not in "biu" or (is_mask and len(asked) != n):
            raise ValueError(f"which must be positions or a mask of {n} rules, got {which!r}")
        if not is_mask and any(not -n <= i < n for i in asked.tolist()):
            raise ValueError(f"which must be positions among {n} rules, got {which!r}")
        places = np.arange(n)[asked]
        judged = [self._judged[i] for i in places]
        return Rules(judged, self.frame, self._cells, self._broken[:, places], self._may_break)

    def check(self, new: Any) -> Check:
        """The rows of a new table that break rules.

        A rule says nothing of rows with a missing cell (unless it is about missing ones), nor of keys that the table
        did not have twice. A text that is no number, time or truth where a column has only these breaks the rules on
        its values. Whether a column is unique is asked among the new rows alone: a value that the table
        had already breaks nothing. ValueError if a column of the rules is not there.
        """
        frame, _ = read_rows(new, self.check)
        cells = self.cells_of(frame)
        broken, lines = broken_rules(self.rules, cells), list[list[Any]]()
        for i, r in np.argwhere(broken).tolist():
            rule = self.rules[r]
            names = list(dict.fromkeys(rule.columns))
            lines.append([frame.index[i], rule.text, names, sentence(rule, cells, frame, i)])
        found = pd.DataFrame(lines, columns=["row", "rule", "columns", "sentence"])
        return Check(found, pd.Series(broken.any(1), index=frame.index), self.bound)

    def judge(self, *texts: str) -> Rules:
        """Rules that a person wrote, judged by all rows of the table as those that were found are by half of them.

        Parameters
        ----------
        *texts : str
            In the words of :attr:`table`, like "a + b = total" or "if country = DE: vat in {7, 19}".

        Raises
        ------
        ValueError
            Naming what is no rule, or no column.
        """
        rules = [parse(text, self._cells) for text in texts]
        judged, _ = judge(rules, self._cells)
        return Rules(judged, self.frame, self._cells, broken_rules(rules, self._cells))

    def to_sql(self, name: str = "rules") -> str:
        """A CREATE TABLE with a CHECK for each rule, as SQLite and DuckDB run it.

        What SQL cannot say (keys of many values or in any notation, text read as numbers) is a comment with the reason.
        A rule with exceptions refuses these: leave it out by :meth:`keep`.
        """
        return sql_of(self.rules, {c.name: c for c in self.columns}, self.frame, name)

    def to_pandera(self) -> str:
        """A Python module with a pandera ``schema`` of the table."""
        return pandera_of(self.rules, {c.name: c for c in self.columns}, self.frame)

    def to_great_expectations(self) -> str:
        """A Python module with an expectation ``suite`` of Great Expectations, for pandas."""
        return great_expectations_of(self.rules, {c.name: c for c in self.columns}, self.frame)

    def to_dqx(self) -> str:
        """Checks of Databricks' DQX, as YAML."""
        return dqx_of(self.rules, {c.name: c for c in self.columns}, self.frame)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the table, as they were read."""
        return tuple(self._cells.schema)

    def cells_of(self, table: Any) -> RuleCells:
        """The cells of a table as the rules read them; columns of no rule may be lacking."""
        frame, _ = read_rows(table, self.cells_of)
        needed = {name: None for rule in self.rules for name in rule.columns}
        for name in needed:
            if name not in frame.columns:
                raise ValueError(f"column {name!r}: a rule is about it, and the table lacks it")
        names = [column.name for column in self.columns]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RuleCells.read(frame.reindex(columns=names), self.columns, self._cells.levels)


def sentence(rule: Rule, cells: RuleCells, frame: pd.DataFrame, i: int) -> str:
    """How a row breaks a rule, as an English sentence without its full stop."""
    instead = "" if rule.given else rule.statement.instead(cells, i)
    parts, column = list[str](), rule.statement.consequent
    for name in dict.fromkeys((column,) if instead else rule.statement.columns):
        value = cast(pd.Series, frame[name]).iloc[i]
        text = written(value, cells.schema[cells.place(name)])
        reason = ", which cannot be read" if cells.unreadable_of(name)[i] else ""
        parts.append(f"{name} is missing" if is_missing(value) else f"{name} = {text}{reason}")
    if isinstance(rule.statement, Present) and not rule.given:
        return parts[0] + (
            "" if cells.unreadable_of(rule.statement.column)[i] else ", but should not be"
        )
    return f"{', '.join(parts)}, but {instead or rule.text}"
