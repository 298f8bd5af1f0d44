"""``discrete-itd drift``: whether a table still follows the distribution of the calibration rows."""

from __future__ import annotations

import argparse

from discrete_itd.cli.dialect import Dialect
from discrete_itd.cli.inputs import Reader, about, load_model
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.messages import say
from discrete_itd.cli.report import Stream
from discrete_itd.cli.streams import STANDARD, Table, write_stream
from discrete_itd.cli.tables import UserError
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.encoders import Rows
from discrete_itd.progress import stream_progress


def drift(args: argparse.Namespace) -> int:
    """Run the command; 1 if there is to be no drift and there is some."""
    if args.out not in (None, STANDARD):
        check_out(args.out, model=args.model, table=args.table)
    detector = load_model(args.model, args.device)
    if not isinstance(detector, DiffusionOutlierDetector):
        raise UserError(
            f"{args.model}: drift needs a detector, as fit --detector makes; it is a density"
        )
    paths = [path for path in (args.table, args.reference) if path is not None]
    with stream_progress(args.command) as bar:
        tables = []
        for path in paths:
            reader = Reader(detector.density_, bar.update)
            stream = Stream(reader, path, args.format or "csv", None, Dialect.asked(args))
            tables.append(Rows.concat(list(stream)))
            reader.tell()
    rows, reference = tables[0], tables[1] if len(tables) > 1 else None
    found = about(
        " or ".join(paths),
        lambda: detector.drift(rows, reference=reference, alpha=args.alpha),
    )
    if args.out is not None:
        frame = found.columns.rename_axis("column").reset_index()
        write_stream(Table.named(args.out, args.format or "csv"), [frame])
    say(args.out or "", str(found))
    return int(args.check and found.drifted)
