"""Commands that turn the rows of tables into rows of other tables: one file, a pipe, or folders of files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import Reader
from discrete_itd.cli.messages import note, say
from discrete_itd.cli.parts import Ledger, Part, is_folder, key_of, parts_of
from discrete_itd.cli.streams import STANDARD, Source, Table, reading, write_stream
from discrete_itd.cli.tables import EmptyTableError, UserError, check_writable, same_file
from discrete_itd.cli.tally import Tally
from discrete_itd.progress import stream_progress


class Job(Protocol):
    """What a command makes of a table."""

    reader: Reader
    copies: bool  # whether its output is the table itself, with some cells changed

    def outputs(
        self, source: Source, out: Table, tally: Tally, name: str | None
    ) -> tuple[Any, Iterator[Any]]:
        """The Arrow schema of the output, or None for that of the first frame; and its frames or Arrow tables.

        ``tally`` counts the rows that have been made. ``name`` is that of the part of a folder.
        """
        ...

    def options(self) -> Mapping[str, Any]:
        """Plain data: what makes a difference to the output, apart from the model."""
        ...


@dataclass(frozen=True)
class Files:
    """What the arguments of a command say of its input and output.

    Parameters
    ----------
    table : str
        A file, a folder, or ``-``.
    out : str
        The same.
    format, out_format : str, optional
        Of the standard input and output, or of the parts of a folder.
    dialect : Dialect
        Of the tables that are read.
    """

    table: str
    out: str
    format: str | None
    out_format: str | None
    dialect: Dialect

    @classmethod
    def asked(cls, args: argparse.Namespace) -> Files:
        """The files of a command; UserError if they cannot be read or written like that."""
        files = cls(args.table, args.out, args.format, args.out_format, Dialect.asked(args))
        if args.format and STANDARD not in (args.table, args.out):
            raise UserError("--format: neither the table nor --out is -; names tell the format")
        if files.in_folder:
            if args.table == STANDARD:
                raise UserError(f"{args.out}: --out is a folder, but the table is {STANDARD}")
            if os.path.isfile(args.out) or args.out == STANDARD:
                raise UserError(f"{args.out}: --out must be a folder, as the table is one")
            return files
        if args.out_format and args.out != STANDARD:
            raise UserError("--out-format: --out is a file, whose name tells the format")
        out = files.output
        if out.path != STANDARD:
            check_out(out.path, model=args.model, table=args.table)
        return files

    @property
    def in_folder(self) -> bool:
        """Whether the output is a folder."""
        return os.path.isdir(self.table) or is_folder(self.out)

    @property
    def input(self) -> Table:
        """The table to read, which is no folder."""
        return Table.named(self.table, self.format or "csv", self.dialect)

    @property
    def output(self) -> Table:
        """The table to write, which is no folder."""
        return Table.named(self.out, self.out_format or self.format or "csv")


def run(
    args: argparse.Namespace, files: Files, make: Callable[[Callable[[int], object]], Job]
) -> Tally:
    """Do a job, and count its rows.

    Parameters
    ----------
    args : Namespace
        With ``model`` and ``command``.
    files : Files
    make : callable
        From a function that is told of rows done to the job.
    """
    with stream_progress(args.command) as bar:
        job = make(bar.update)
        tally = _in_folder(args, files, job) if files.in_folder else Tally()
        if not files.in_folder:
            with reading(files.input) as source:
                bar.total = source.n_rows
                out = _written_as(job, source, files.output)
                schema, rows = job.outputs(source, out, tally, None)
                write_stream(out, rows, schema)
    job.reader.tell()
    return tally


def _written_as(job: Job, source: Source, out: Table) -> Table:
    """The output in the dialect of the table, if it is a copy of that."""
    return replace(out, dialect=source.table.dialect.of_copy(out.kind)) if job.copies else out


def _in_folder(args: argparse.Namespace, files: Files, job: Job) -> Tally:
    parts, total, n_known = (
        parts_of(files.table, files.out, files.out_format, files.dialect),
        Tally(),
        0,
    )
    for part in parts:
        if same_file(part.out.path, args.model) or same_file(part.out.path, files.table):
            raise UserError(f"{part.out.path}: would be written over what is read")
    options = {"command": args.command, "dialect": vars(files.dialect), **job.options()}
    any_made = False
    with closing(Ledger(files.out, key_of(args.model, options))) as ledger:
        ledger.clear(parts)
        for part in parts:
            tally = ledger.find(part)
            n_known += tally is not None
            tally = _made(job, part, ledger) if tally is None else tally
            any_made |= tally is not None
            total.merge(tally or Tally())
    if not any_made:
        raise EmptyTableError(f"{files.table}: the tables are empty")
    known = f", {n_known} of them complete before" if n_known else ""
    say(files.out, f"{files.out}: {len(parts)} files{known}")
    return total


def _made(job: Job, part: Part, ledger: Ledger) -> Tally | None:
    """The tally of a part; None if it is left out, as it has not even a header."""
    begun, tally = ledger.begin(part), Tally()
    try:
        with reading(part.source) as source:
            out = _written_as(job, source, part.out)
            schema, rows = job.outputs(source, out, tally, part.name)
            write_stream(out, rows, schema)
    except EmptyTableError as error:
        note(f"{error}: left out")
        ledger.leave_out(part)
        return None
    ledger.add(part, begun, tally)
    return tally


def check_out(out: str, **sources: str) -> None:
    """Raise a UserError before the work, if ``out`` cannot be written or is one of the files to read."""
    check_writable(out)
    for what, path in sources.items():
        if same_file(out, path):
            raise UserError(f"{out}: --out is the {what} itself")
