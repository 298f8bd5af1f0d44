"""Rules as code: SQL, pandera, Great Expectations, and YAML for DQX."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from discrete_itd.encoders import Column
from discrete_itd.reading.frames import family
from discrete_itd.reading.text import visible
from discrete_itd.rules.languages import SQL, Inexpressible, Pandas, is_name
from discrete_itd.rules.statements import (
    Condition,
    Format,
    OneOf,
    Order,
    Present,
    Range,
    Rule,
    Unique,
)

Schema = Mapping[Hashable, Column]
TYPES = {
    "integer": "BIGINT", "float": "DOUBLE", "boolean": "BOOLEAN", "datetime": "TIMESTAMP",
    "timedelta": "INTERVAL",
}  # fmt: skip

# characters, and escapes of JSON, that YAML has not or folds
NOT_IN_YAML = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|\\u00[01]"


def _said(rules: Sequence[Rule], say: Callable[[Rule], str]) -> Iterator[tuple[Rule, str, str]]:
    """Of each rule what is said of it, or else why nothing is."""
    for rule in rules:
        try:
            yield rule, say(rule), ""
        except Inexpressible as error:
            yield rule, "", str(error)


def dtypes_of(frame: pd.DataFrame) -> dict[Hashable, Any]:
    """The dtypes of the columns of a table."""
    return {name: cells.dtype for name, cells in frame.items()}


def sql_of(rules: Sequence[Rule], schema: Schema, frame: pd.DataFrame, name: str) -> str:
    """A CREATE TABLE with rules as constraints; comments on those that are none."""
    dtypes = dtypes_of(frame)
    sql = SQL(schema, dtypes)

    def constraint(rule: Rule) -> str:
        if isinstance(rule.statement, Unique) and not rule.given:
            return f"UNIQUE ({', '.join(map(sql.column, rule.columns))})"
        return f"CHECK ({rule.code(sql)})"

    def quoted(column: Hashable) -> str:
        return '"' + str(column).replace('"', '""') + '"'

    lines, comments, seen = list[str](), list[str](), set[str]()
    for column, dtype in dtypes.items():
        if str(column).lower() in seen or not is_name(str(column)):
            comments.append(f"-- no column of SQL: {visible(column)} (SQL cannot name it)\n")
        else:
            lines.append(f"{quoted(column)} {TYPES.get(family(dtype) or '', 'VARCHAR')}")
            seen.add(str(column).lower())
    for rule, code, reason in _said(rules, constraint):
        if code:
            lines.append(code)
        else:
            comments.append(f"-- not in SQL: {visible(rule.text)} ({visible(reason)})\n")
    body = ",\n  ".join(lines)
    return f"{''.join(comments)}CREATE TABLE {quoted(name)} (\n  {body}\n);\n"


def pandera_of(rules: Sequence[Rule], schema: Schema, frame: pd.DataFrame) -> str:
    """A Python module with a pandera schema."""
    language = Pandas(schema, dtypes_of(frame))
    lines = [
        "import pandas as pd",
        "import pandera.pandas as pa",
        "",
        "schema = pa.DataFrameSchema(",
        "    checks=[",
    ]
    for rule, code, reason in _said(rules, lambda rule: rule.code(language)):
        if code:
            lines.append(
                f"        pa.Check(lambda t: {code}, name={rule.text!r}, ignore_na=False),"
            )
        else:
            lines.append(f"        # not in pandas: {visible(rule.text)} ({visible(reason)})")
    return "\n".join([*lines, "    ],", ")", ""])


def great_expectations_of(rules: Sequence[Rule], schema: Schema, frame: pd.DataFrame) -> str:
    """A Python module with a suite of expectations."""
    language = Pandas(schema, dtypes_of(frame))

    def condition(given: Condition) -> str:
        column = f"Column({given.column!r})"
        if isinstance(given, Present):
            return f"{column}.is_not_null()"
        if given.values == (None,):
            return f"{column}.is_null()"
        return f"{column}.is_in([{', '.join(map(language.literal, given.values))}])"

    def call(rule: Rule) -> str:
        statement = rule.statement
        language.check_plain(*rule.columns)
        match statement:
            case OneOf(column=column, values=(None,)):
                text = f"ExpectColumnValuesToBeNull(column={column!r}"
            case OneOf(column=column, values=values):
                listed = ", ".join(map(language.literal, values))
                text = f"ExpectColumnValuesToBeInSet(column={column!r}, value_set=[{listed}]"
            case Present(column=column):
                text = f"ExpectColumnValuesToNotBeNull(column={column!r}"
            case Range(column=column, low=low, high=high):
                language.number(column)
                ends = [
                    (k, v) for k, v in (("min_value", low), ("max_value", high)) if abs(v) < 1e300
                ]
                bounds = ", ".join(f"{k}={v!r}" for k, v in ends)
                text = f"ExpectColumnValuesToBeBetween(column={column!r}, {bounds}"
            case Format(column=column, pattern=pattern):
                regex = f"^(?:{pattern})$"
                text = f"ExpectColumnValuesToMatchRegex(column={column!r}, regex={regex!r}"
            case Unique(columns=(column,)):
                text = f"ExpectColumnValuesToBeUnique(column={column!r}"
            case Unique(columns=columns):
                text = (
                    f"ExpectCompoundColumnsToBeUnique(column_list={[*columns]!r},"
                    " ignore_row_if='any_value_is_missing'"
                )
            case Order(low=low, high=high):
                language.ordered(low)
                language.ordered(high)
                text = (
                    f"ExpectColumnPairValuesAToBeGreaterThanB(column_A={high!r}, column_B={low!r},"
                    " or_equal=True, ignore_row_if='either_value_is_missing'"
                )
            case _:
                raise Inexpressible("there is no such expectation")
        if rule.given:
            text += f", row_condition={' & '.join(map(condition, rule.given))}"
        return f"gxe.{text})"

    lines = [
        "import great_expectations as gx",
        "import great_expectations.expectations as gxe",
        "from great_expectations.expectations.row_conditions import Column",
        "",
        "suite = gx.ExpectationSuite(name='rules', expectations=[",
    ]
    for rule, code, reason in _said(rules, call):
        comment = f"# no expectation: {visible(rule.text)} ({visible(reason)})"
        lines.append(f"    {code}," if code else f"    {comment}")
    return "\n".join([*lines, "])", ""])


def dqx_of(rules: Sequence[Rule], schema: Schema, frame: pd.DataFrame) -> str:
    """Checks of DQX as YAML, whose strings are those of JSON."""
    sql = SQL(schema, dtypes_of(frame), spark=True)

    def check(rule: Rule) -> str:
        statement = rule.statement
        if isinstance(statement, Present) and not rule.given:
            function, arguments = "is_not_null", {"column": sql.column(statement.column)}
        elif isinstance(statement, Unique) and not rule.given:
            function, arguments = "is_unique", {"columns": [*map(sql.column, statement.columns)]}
        else:
            expression = rule.code(sql)
            function, arguments = "sql_expression", {"expression": expression, "msg": rule.text}
        called = {"function": function, "arguments": arguments}
        text = json.dumps(called, ensure_ascii=False)
        if re.search(NOT_IN_YAML, text):
            raise Inexpressible("it has a control character, which YAML has not")
        return f"- criticality: error\n  check: {text}\n"

    parts = list[str]()
    for rule, code, reason in _said(rules, check):
        parts.append(code or f"# not in SQL: {visible(rule.text)} ({visible(reason)})\n")
    return "".join(parts)
