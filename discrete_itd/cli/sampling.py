"""``discrete-itd sample``: new rows."""

from __future__ import annotations

import argparse

from discrete_itd.cli.inputs import given_row, load_density
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.streams import STANDARD, Table, write_stream
from discrete_itd.cli.tables import UserError
from discrete_itd.encoders.frames import to_pandas


def sample(args: argparse.Namespace) -> None:
    """Run the command."""
    out = Table.named(STANDARD if args.out is None else args.out, args.format or "csv")
    if out.path != STANDARD:
        if args.format:
            raise UserError("--format: --out is a file, whose name tells the format")
        check_out(out.path, model=args.model)
    model = load_density(args.model, args.device)
    given = given_row(model, dict(args.given)) if args.given else None
    rows = to_pandas(
        model.sample(args.n, random_state=args.seed, given=given, missing=args.missing)
    )
    rows.columns = [str(name) for name in rows.columns]
    write_stream(out, [rows])
