"""``discrete-itd watch``: rows as they arrive, with a state that the next call continues from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence

import pandas as pd

from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import Reader, about, kept_cells, kept_names, load_model
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.messages import say
from discrete_itd.cli.report import Stream
from discrete_itd.cli.streams import STANDARD, Table, write_stream
from discrete_itd.cli.tables import UserError, check_writable, same_file, save_whole
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.watch import DriftWatch
from discrete_itd.progress import stream_progress

LEVEL, SEED = 0.01, 0


def watch(args: argparse.Namespace) -> int:
    """Run the command; 1 if an alarm was raised, now or in an earlier call."""
    _check_files(args)
    detector = load_model(args.model, args.device)
    if not isinstance(detector, DiffusionOutlierDetector):
        raise UserError(
            f"{args.model}: watch needs a detector, as fit --detector makes; it is a density"
        )
    found = _begun(args, detector)
    with stream_progress(args.command) as bar:
        reader = Reader(detector.density_, bar.update)
        stream = Stream(
            reader, args.table, args.format or "csv", args.chunk_rows, Dialect.asked(args)
        )
        tables = _watched(found, stream, args.keep)
        if args.out is None:
            for _ in tables:
                pass
        else:
            write_stream(Table.named(args.out, args.format or "csv"), tables)
    # last: a call that fails before can be repeated
    save_whole(args.state, found.save)
    reader.tell()
    table = "the standard input" if args.table == STANDARD else args.table
    say(args.out or "", f"{table}: {found}")
    return int(found.alarm_ is not None)


def _check_files(args: argparse.Namespace) -> None:
    """Raise a UserError before the work, if a file cannot be written or would be written over another."""
    if args.format and STANDARD not in (args.table, args.out):
        raise UserError("--format: neither the table nor --out is -; names tell the format")
    if args.keep and args.out is None:
        raise UserError("--keep needs --out, to which columns are copied")
    check_writable(args.state)
    for path in (args.model, args.table):
        if same_file(args.state, path):
            raise UserError(f"{args.state}: --state is also read as another file")
    if args.out not in (None, STANDARD):
        check_out(args.out, model=args.model, table=args.table, state=args.state)


def _begun(args: argparse.Namespace, detector: DiffusionOutlierDetector) -> DriftWatch:
    """The watch of earlier calls, or a new one."""
    if not os.path.exists(args.state):
        level = LEVEL if args.level is None else args.level
        seed = SEED if args.seed is None else args.seed
        return DriftWatch(detector, level=level, random_state=seed)
    found = DriftWatch.load(args.state, detector)
    if args.seed is not None:
        raise UserError(f"--seed: {args.state} has the seed of the watch; leave it out")
    if args.level not in (None, found.level):
        raise UserError(
            f"--level: {args.state} is at level {found.level:g}, which does not change: its alarms would have no"
            " guarantee; use another file for a new watch"
        )
    return found


def _watched(found: DriftWatch, stream: Stream, keep: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The columns to keep, and what the watch says of the rows."""
    for path, chunk, rows in stream.chunks(keep=keep):
        table = about(path, lambda rows=rows: found.update(rows))
        names = kept_names(path, chunk.frame.columns, keep, table.columns)
        kept = kept_cells(chunk, names).set_axis(table.index, axis=0)
        yield pd.concat([kept, table], axis=1)
