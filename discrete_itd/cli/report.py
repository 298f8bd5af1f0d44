"""``discrete-itd report``: one HTML page on the rows of a table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import Reader, about, kept_cells, kept_names, load_model
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.messages import say
from discrete_itd.cli.parts import tables_in
from discrete_itd.cli.streams import STANDARD, Chunk, Table, reading, standard_output
from discrete_itd.cli.tables import UserError, save_whole
from discrete_itd.detection.answers import density_of
from discrete_itd.encoders import Rows
from discrete_itd.plots import new_axes
from discrete_itd.progress import stream_progress
from discrete_itd.reporting.findings import Findings, examine
from discrete_itd.reporting.page import render
from discrete_itd.reporting.sentences import VERDICTS, judgement


def report(args: argparse.Namespace) -> int:
    """Run the command; 1 if targets are to be met and are not."""
    tables = {"table": args.table, "table of inliers": args.inliers}
    tables = {what: path for what, path in tables.items() if path is not None}
    if args.out != STANDARD:
        check_out(args.out, model=args.model, **tables)
    if args.inliers == STANDARD:
        raise UserError("--inliers: must be a file, which can be read twice, not -")
    if args.check and args.target_nats is None and args.target_false_alarms is None:
        raise UserError("--check needs a target: --target-nats or --target-false-alarms")
    try:
        new_axes()
    except ImportError as error:
        raise UserError(str(error)) from None
    found = _examined(args)
    table = "the standard input" if args.table == STANDARD else args.table
    title = f"Report on {table}" if args.title is None else args.title
    page = render(found, title=title).encode()
    if args.out == STANDARD:
        standard_output().write(page)
    else:
        save_whole(args.out, lambda path: path.write_bytes(page))
    n_alarms = "" if found.n_alarms is None else f", {found.n_alarms} alarms"
    say(args.out, f"wrote {args.out}: {found.n_rows} rows{n_alarms}")
    for verdict in found.verdicts:
        say(args.out, f"  {VERDICTS[verdict.passed].lower()}: {judgement(verdict, found)}")
    if found.verdicts:
        say(args.out, VERDICTS[found.passed].lower())
    return int(args.check and not found.passed)


def _examined(args: argparse.Namespace) -> Findings:
    """What the model says of the table, and the inliers, which are read in chunks."""
    model = load_model(args.model, args.device)
    density = density_of(model)
    if model is density and args.inliers is None and args.target_false_alarms is not None:
        raise UserError(
            "--target-false-alarms needs a threshold: give --inliers, from which one can be set"
        )
    default = args.format or "csv"
    paths = [path for path in (args.table, args.inliers) if path is not None]
    with stream_progress("report") as bar:
        readers = [Reader(density, bar.update) for _ in paths]
        streams = [
            Stream(reader, path, default, args.chunk_rows, Dialect.asked(args))
            for reader, path in zip(readers, paths, strict=True)
        ]
        for stream in streams[1:]:  # the table itself may be a pipe, and is read at once
            stream.check()
        table, *inliers = streams
        keep: list[str] = []  # filled by the first part of the table
        found = about(
            " or ".join(paths),
            lambda: examine(
                model,
                _with_keys(table, args.keep, keep),
                inliers=inliers[0] if inliers else None,
                target_nats=args.target_nats,
                target_false_alarms=args.target_false_alarms,
                n_most_anomalous=args.most_anomalous,
                keep=keep,
            ),
        )
    for reader in readers:
        reader.tell()
    return found


def _with_keys(stream: Stream, asked: Sequence[str], keep: list[str]) -> Iterator[Rows]:
    """The rows, beside them the columns that ``--keep`` asks for, as they are; their names are written to ``keep``."""
    for path, chunk, rows in stream.chunks(keep=asked):
        keep[:] = kept_names(path, chunk.frame.columns, asked)
        yield replace(rows, others=kept_cells(chunk, keep).set_axis(rows.index))


class Stream:
    """The rows of a table, or of all tables in a folder, read anew each time.

    Parameters
    ----------
    reader : Reader
    path : str
    kind : str
        Format of the standard input.
    n_rows : int, optional
        Of a chunk.
    dialect : Dialect
        Of each CSV.
    """

    def __init__(
        self, reader: Reader, path: str, kind: str, n_rows: int | None, dialect: Dialect
    ) -> None:
        self._reader, self._n_rows, self._tables = reader, n_rows, {}
        if os.path.isdir(path):
            for file in tables_in(path):
                self._tables[file] = Table.named(os.path.join(path, file), kind, dialect)
        else:
            self._tables[""] = Table.named(path, kind, dialect)

    def check(self) -> None:
        """Raise a UserError if a table cannot be opened or lacks a column."""
        for table in self._tables.values():
            with reading(table) as source:
                self._reader.check(source)

    def __iter__(self) -> Iterator[Rows]:
        for _, _, rows in self.chunks():
            yield rows

    def chunks(
        self, *, all_used: bool = False, keep: Sequence[str] = ()
    ) -> Iterator[tuple[str, Chunk, Rows]]:
        """The path of each part, the part as it is, and encoded.

        Parameters
        ----------
        all_used : bool
            As for :meth:`Reader.read`.
        keep : sequence of str
            As for :func:`~discrete_itd.cli.inputs.kept_names`: columns of the part besides those of the model.
        """
        for file, table in self._tables.items():
            with reading(table) as source:
                self._reader.check(source)
                kept = kept_names(table.path, source.names, keep)
                chunks = self._reader.read(source, self._n_rows, all_used=all_used, keep=kept)
                for chunk, rows in chunks:
                    yield table.path, chunk, _labelled(rows, file) if file else rows


def _labelled(rows: Rows, file: str) -> Rows:
    """Rows whose labels say in which file they are."""
    return replace(rows, frame=rows.frame.set_axis([f"{file} {n}" for n in rows.index], axis=0))
