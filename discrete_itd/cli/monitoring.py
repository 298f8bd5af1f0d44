"""``discrete-itd report`` and ``drift``: all rows of a table, or a folder, together."""

from __future__ import annotations

import argparse
from dataclasses import replace

from discrete_itd.cli.inputs import (
    Reader,
    about,
    kept_names,
    load_detector,
    load_model,
    reader_of,
)
from discrete_itd.cli.messages import STANDARD, UserError, counted_rows, say, shown
from discrete_itd.cli.tables import (
    check_out,
    save_whole,
    standard_output,
    write_table,
)
from discrete_itd.detection.answers import detects
from discrete_itd.encoders import Rows
from discrete_itd.plots import new_axes
from discrete_itd.reporting.findings import Findings, examine
from discrete_itd.reporting.page import VERDICTS, judgement, render

# -- report ---------------------------------------------------------------------------------------


def report(args: argparse.Namespace) -> int:
    """Run the command; 1 if targets are to be met and are not."""
    sources = {"model": args.model, "table": args.table, "table_of_inliers": args.inliers}
    check_out(args.out, is_table=False, **sources)
    if args.inliers == STANDARD:
        raise UserError("--inliers: must be a file, not -")
    if args.check and args.target_nats is None and args.target_false_alarms is None:
        raise UserError("--check needs a target: --target-nats or --target-false-alarms")
    try:
        new_axes()
    except ImportError as error:
        raise UserError(str(error)) from None
    found = _examined(args)
    page = render(found, title=f"Report on {shown(args.table)}").encode()
    if args.out == STANDARD:
        standard_output().write(page)
    else:
        save_whole(args.out, lambda path: path.write_bytes(page))
    n_alarms = "" if found.n_alarms is None else f", {found.n_alarms} alarms"
    say(args.out, f"wrote {args.out}: {counted_rows(found.n_rows)}{n_alarms}")
    for verdict in found.verdicts:
        say(args.out, f"  {VERDICTS[verdict.passed].lower()}: {judgement(verdict, found)}")
    if found.verdicts:
        say(args.out, VERDICTS[found.passed].lower())
    return int(args.check and not found.passed)


def _examined(args: argparse.Namespace) -> Findings:
    """Findings on the table and the inliers."""
    model = load_model(args.model)
    if not detects(model) and args.target_false_alarms is not None:
        raise UserError("--target-false-alarms needs a threshold, which only a detector has")
    rows, keep = [], []
    with reader_of(model, args) as reader:
        for path, chunk, part in reader.read_all(args.table, keep=args.keep):
            keep = kept_names(path, list(chunk.columns), args.keep)
            rows.append(replace(part, others=chunk[keep].set_axis(part.index)))
        inliers = None if args.inliers is None else _whole(reader, args.inliers)
    with about(" or ".join(path for path in (args.table, args.inliers) if path is not None)):
        return examine(
            model,
            Rows.concat(rows),
            inliers=inliers,
            target_nats=args.target_nats,
            target_false_alarms=args.target_false_alarms,
            n_most_anomalous=args.most_anomalous,
            keep=keep,
        )


def _whole(reader: Reader, path: str) -> Rows:
    """The rows of a table, or of all in a folder."""
    return Rows.concat([rows for _, _, rows in reader.read_all(path)])


# -- drift ------------------------------------------------------------------------------------


def drift(args: argparse.Namespace) -> int:
    """Run the command; 1 if there is to be no drift and there is some."""
    check_out(args.out, model=args.model, table=args.table)
    detector = load_detector(args)
    paths = [path for path in (args.table, args.reference) if path is not None]
    rows: list[Rows | None] = []
    for path in paths:
        with reader_of(detector, args) as reader:
            rows.append(_whole(reader, path))
    new, reference = [*rows, None][:2]
    with about(" or ".join(paths)):
        found = detector.drift(new, reference=reference, alpha=args.alpha)
    if args.out is not None:
        table = found.columns.rename_axis("column").reset_index()
        write_table(args.out, [table])
    say(args.out, str(found))
    return int(args.check and found.drifted)
