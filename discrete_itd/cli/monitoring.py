"""``discrete-itd watch`` and ``drift``: whether rows have changed since a detector was fitted."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator

import pandas as pd

from discrete_itd.cli.inputs import about, check_detector, kept_names, load_model, reader_of
from discrete_itd.cli.options import UserError
from discrete_itd.cli.tables import check_out, same_file, say, shown, write_table
from discrete_itd.detection.watch import DriftWatch
from discrete_itd.encoders import Rows
from discrete_itd.storage.files import locked, write_whole


def watch(args: argparse.Namespace) -> int:
    """Run the command; 1 if an alarm was raised, now or in an earlier call."""
    if args.keep and args.out is None:
        raise UserError("--keep needs --out, to which columns are copied")
    write_whole(args.state, None)
    for path in (args.model, args.table):
        if same_file(args.state, path):
            raise UserError(f"{args.state}: --state is also read as another file")
    check_out(args.out, model=args.model, table=args.table, state=args.state)
    with locked(args.state):
        watched = _watch(args)
    say(args.out, f"{shown(args.table)}: {watched}")
    return int(watched.alarm_ is not None)


def _watch(args: argparse.Namespace) -> DriftWatch:
    """Create or load the watch, update it with the rows, and save its state."""
    detector = load_model(args.model)
    check_detector(detector, args.model, args.command)
    if not os.path.exists(args.state):
        asked = {} if args.level is None else {"level": args.level}
        watched = DriftWatch(detector, **asked)
    else:
        watched = DriftWatch.load(args.state, detector)
        if args.level not in (None, watched.level):
            raise UserError(
                f"--level: {args.state} is at level {watched.level:g}, which does not change: its alarms would have no"
                " guarantee; use another file for a new watch"
            )
    with reader_of(detector, args) as reader:
        frames = _watched(watched, reader.read_all(args.table, keep=args.keep), args.keep)
        if args.out is not None:
            write_table(args.out, frames)
        for _ in frames:
            pass
    # the state is saved last, so that a call that failed can be repeated
    watched.save(args.state)
    return watched


def _watched(
    watched: DriftWatch, chunks: Iterable[tuple[str, pd.DataFrame, Rows]], keep: list[str]
) -> Iterator[pd.DataFrame]:
    """For each chunk, the columns to keep beside the results of the watch."""
    for path, chunk, rows in chunks:
        with about(path):
            table = watched.update(rows)
        names = kept_names(path, list(chunk.columns), keep, list(table.columns))
        yield pd.concat([chunk[names].set_axis(table.index, axis=0), table], axis=1)


# -- drift ---------------------------------------------------------------------------------------


def drift(args: argparse.Namespace) -> int:
    """Run the command; 1 if ``--check`` is set and the table has drifted."""
    check_out(args.out, model=args.model, table=args.table)
    detector = load_model(args.model)
    check_detector(detector, args.model, args.command)
    paths = [path for path in (args.table, args.reference) if path is not None]
    rows: list[Rows | None] = []
    for path in paths:
        with reader_of(detector, args) as reader:
            rows.append(reader.whole(path))
    new, reference = [*rows, None][:2]
    with about(" or ".join(paths)):
        result = detector.drift(new, reference=reference)
    if args.out is not None:
        table = result.columns.rename_axis("column").reset_index()
        write_table(args.out, [table])
    say(args.out, str(result))
    return int(args.check and result.drifted)
