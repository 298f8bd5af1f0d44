"""``discrete-itd rules``: what a table obeys, and which new rows do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from discrete_itd.cli.fitting import typed_table
from discrete_itd.cli.inputs import about
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import (
    STANDARD,
    Dialect,
    EmptyTableError,
    check_out,
    reading,
    say,
    write_table,
)
from discrete_itd.rules.rules import Rules, find_rules
from discrete_itd.statistics import count, percent
from discrete_itd.storage.files import write_whole

SHOWN = 20  # most rules, and most broken ones, that are printed
CODE = {".sql": Rules.to_sql, ".py": Rules.to_pandera, ".yaml": Rules.to_dqx, ".yml": Rules.to_dqx}


def rules(args: argparse.Namespace) -> int:
    """Run the command; 1 if new rows are checked and one breaks a rule."""
    to_code = None if args.out is None else CODE.get(Path(args.out).suffix.lower())
    sources = {"table": args.table, "new_rows": args.new}
    check_out(args.out, is_table=to_code is None, **sources)
    check_out(args.broken, **sources, rules=args.out)
    if args.broken is not None and args.new is None:
        raise UserError("--broken needs --new")
    frame = _read(args.table, args.csv)
    with about(args.table):
        found = find_rules(frame, min_holds=args.min_holds)
    if args.out is not None and to_code is not None:
        code = to_code(found)
        write_whole(args.out, lambda path: path.write_text(code, encoding="utf-8"))
    elif args.out is not None:
        write_table(args.out, [_as_text(found.table)])
    to = STANDARD if STANDARD in (args.out, args.broken) else None
    wrote = f"wrote {args.out}: " if args.out not in (None, STANDARD) else ""
    n_rows = count(len(frame), "row")
    say(to, f"{wrote}{count(len(found), 'rule')} of {n_rows}")
    for line in _lines(found.table) if args.out is None else ():
        n = line["exceptions"]
        exceptions = f", {count(n, 'exception')}" if n else ""
        say(to, f"  {line['rule']}  ({count(line['support'], 'row')}{exceptions})")
    if args.out is None and len(found) > SHOWN:
        say(to, f"  and {len(found) - SHOWN} more")
    if args.new is None:
        return 0
    new = _read(args.new, args.csv)
    with about(args.new):
        checked = found.check(new)
    if args.broken is not None:
        write_table(args.broken, [_as_text(checked.table)])
    n_broken = int(checked.mask.sum())
    bound = f"of right rows at most {percent(checked.bound)} do"
    say(to, f"{n_broken} of {count(len(new), 'new row')} break a rule; {bound}")
    for line in _lines(checked.table):
        say(to, f"  row {line['row']}: {line['sentence']}")
    if len(checked.table) > SHOWN:
        say(to, f"  and {len(checked.table) - SHOWN} more")
    return int(n_broken > 0)


def _read(path: str, csv: list[tuple[str, str]]) -> pd.DataFrame:
    with reading(path, Dialect.asked(csv)) as source:
        frame = pd.concat(source.chunks())
    if not len(frame):
        raise EmptyTableError(f"{path}: the table is empty")
    return frame if source.parquet is not None else typed_table(frame, path, {}, source.dialect)


def _lines(table: Any) -> list[dict[str, Any]]:
    return table[:SHOWN].to_dict(orient="records")


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with lists as text."""
    lists = [name for name in ("columns", "examples") if name in table]
    return table.assign(
        **{name: table[name].map(lambda v: ", ".join(map(str, v))) for name in lists}
    )
