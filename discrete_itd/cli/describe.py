"""``discrete-itd describe``: what a model is, as its card says."""

from __future__ import annotations

import argparse

from discrete_itd.cli.inputs import load_model
from discrete_itd.cli.jobs import check_out
from discrete_itd.cli.tables import save_whole


def describe(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.out is not None:
        check_out(args.out, model=args.model)
    card = load_model(args.model, args.device).model_card()
    if args.out is None:
        print(card)
    else:
        save_whole(args.out, lambda path: path.write_text(card, encoding="utf-8"))
