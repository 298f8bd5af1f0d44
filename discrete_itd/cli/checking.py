"""``discrete-itd check``: the wrong cells of a table, a repaired copy, and a page."""

from __future__ import annotations

import argparse

import pandas as pd

from discrete_itd.cli.inputs import about
from discrete_itd.cli.messages import STANDARD, UserError, say, shown
from discrete_itd.cli.tables import (
    Dialect,
    EmptyTableError,
    check_out,
    reading,
    save_whole,
    write_table,
)
from discrete_itd.detection.errors import find_errors
from discrete_itd.reporting.page import errors_page

LIKELY = 2 / 3  # probability of an expected value from which it is put into the repaired copy


def check(args: argparse.Namespace) -> None:
    """Run the command."""
    for out, is_table in ((args.out, True), (args.repair, True), (args.report, False)):
        check_out(out, is_table=is_table, table=args.table)
    with reading(args.table, Dialect.asked(args)) as source:
        frame, dialect, schema = pd.concat(source.chunks()), source.dialect, source.schema
    if not len(frame):
        raise EmptyTableError(f"{args.table}: the table is empty")
    groups = None
    if args.groups is not None:
        if args.groups not in frame:
            raise UserError(f"{args.table}: column {args.groups!r}: named in --groups, but missing")
        groups = frame[args.groups].to_numpy()
    with about(args.table):
        found = find_errors(frame, threshold=args.threshold, groups=groups)
    write_table(args.out, [found])
    if args.repair is not None:
        repaired, likely = frame.copy(), found[found["expected_probability"] > LIKELY]
        for row, column, expected in zip(
            likely["row"], likely["column"], likely["expected"], strict=True
        ):
            repaired.loc[row, column] = expected
        write_table(args.repair, [repaired], dialect, schema)
    if args.report is not None:
        page = errors_page(found, frame.shape, title=f"Cells of {shown(args.table)} to check")
        save_whole(args.report, lambda path: path.write_text(page, encoding="utf-8"))
    what = f"{len(found)} of {frame.size} cells are probably wrong"
    say(args.out, what if args.out == STANDARD else f"wrote {args.out}: {what}")
