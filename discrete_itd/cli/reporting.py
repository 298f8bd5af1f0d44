"""``discrete-itd report``: a page on a table by a stored model; and ``check``: its wrong cells, without one."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pandas as pd

from discrete_itd.cells.errors import find_errors
from discrete_itd.cli.inputs import (
    about,
    check_detector,
    groups_of,
    kept_names,
    load_model,
    reader_of,
)
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import (
    STANDARD,
    Dialect,
    EmptyTableError,
    check_out,
    reading,
    say,
    shown,
    standard_output,
    write_table,
)
from discrete_itd.detection.outliers import find_outliers
from discrete_itd.encoders import Rows
from discrete_itd.plots import new_axes
from discrete_itd.reporting.findings import Findings, examine
from discrete_itd.reporting.page import VERDICTS, errors_page, judgement, render
from discrete_itd.statistics import count
from discrete_itd.storage.files import write_whole

SURE = 0.9  # least probability of an expected value that is written into the repaired copy


def report(args: argparse.Namespace) -> int:
    """Run the command; 1 if targets are to be met and are not."""
    sources = {"model": args.model, "table": args.table, "table_of_inliers": args.inliers}
    check_out(args.out, is_table=False, **sources)
    if args.inliers == STANDARD:
        raise UserError("--inliers: must be a file, not -")
    if args.check and args.target_nats is None and args.target_false_alarms is None:
        raise UserError("--check needs a target: --target-nats or --target-false-alarms")
    new_axes()  # or an ImportError
    found = _examined(args)
    _write_page(args.out, render(found, title=f"Report on {shown(args.table)}"))
    n_alarms = "" if found.n_alarms is None else f", {found.n_alarms} alarms"
    say(args.out, f"wrote {args.out}: {count(found.n_rows, 'row')}{n_alarms}")
    for verdict in found.verdicts:
        say(args.out, f"  {VERDICTS[verdict.passed].lower()}: {judgement(verdict, found)}")
    if found.verdicts:
        say(args.out, VERDICTS[found.passed].lower())
    return int(args.check and not found.passed)


def _write_page(out: str, page: str) -> None:
    """Write a page, which may be the standard output."""
    if out == STANDARD:
        standard_output().write(page.encode())
    else:
        write_whole(out, lambda path: path.write_bytes(page.encode()))


def _examined(args: argparse.Namespace) -> Findings:
    """Findings on the table and the inliers."""
    model = load_model(args.model)
    if args.target_false_alarms is not None:
        check_detector(model, args.model, "--target-false-alarms")
    rows, keep = [], []
    with reader_of(model, args) as reader:
        for path, chunk, part in reader.read_all(args.table, keep=args.keep):
            keep = kept_names(path, list(chunk.columns), args.keep)
            rows.append(replace(part, others=chunk[keep].set_axis(part.index)))
        inliers = None if args.inliers is None else reader.whole(args.inliers)
    with about(" or ".join(path for path in (args.table, args.inliers) if path is not None)):
        return examine(
            model,
            Rows.concat(rows),
            inliers=inliers,
            target_nats=args.target_nats,
            target_false_alarms=args.target_false_alarms,
            keep=keep,
        )


# -- check ---------------------------------------------------------------------------------------


def check(args: argparse.Namespace) -> None:
    """Run the command."""
    check_out(args.out, table=args.table)
    check_out(args.repair, table=args.table, list_of_cells=args.out)
    check_out(args.report, is_table=False, table=args.table)
    check_out(args.rows, table=args.table, list_of_cells=args.out, repaired_copy=args.repair)
    outputs = [args.out, args.repair, args.report, args.rows]
    if outputs.count(STANDARD) > 1:
        raise UserError("only one of --out, --repair, --report and --rows can be -")
    with reading(args.table, Dialect.asked(args.csv)) as source:
        frame, dialect, schema = pd.concat(source.chunks()), source.dialect, source.schema
    if not len(frame):
        raise EmptyTableError(f"{args.table}: the table is empty")
    groups = groups_of(frame, args.table, args.groups)
    with about(args.table):
        found = find_errors(
            frame,
            min_probability=args.min_probability,
            groups=groups,
            expected_share=args.expected_share,
        )
    write_table(args.out, [found])
    what = f"{len(found)} of {frame.size} cells are probably wrong"
    if args.repair is not None:
        repaired, sure = frame.copy(), found[found["expected_probability"] >= SURE]
        n_left = len(found) - len(sure)
        for row, column, expected in zip(
            sure["row"], sure["column"], sure["expected"], strict=True
        ):
            try:
                repaired.loc[[row], column] = pd.Series([expected]).to_numpy()
            except (TypeError, ValueError):  # a value that no cell of the type holds
                n_left += 1
        what += f"; {len(found) - n_left} repaired, {n_left} left"
        write_table(args.repair, [repaired], dialect, schema)
    if args.rows is not None:
        with about(args.table):
            own = frame if groups is None else frame.drop(columns=groups.name)
            odd = find_outliers(own, groups=groups, random_state=0)
        write_table(args.rows, [odd])
    if args.report is not None:
        title = f"Cells of {shown(args.table)} to check"
        _write_page(args.report, errors_page(found, frame.shape, title=title))
    what = what if args.out == STANDARD else f"wrote {args.out}: {what}"
    say(STANDARD if STANDARD in outputs else args.out, what)
