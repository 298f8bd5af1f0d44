"""``discrete-itd demo``: a raw file by the commands that one would type."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from discrete_itd.cli.command import main, put
from discrete_itd.datasets import path

SECONDS = 45  # time limit of the fit


def demo(_: argparse.Namespace) -> int:
    """Fit to the orders of a shop, and find the wrong ones among new orders."""
    before, new = path("tea_orders"), path("tea_orders_new")
    folder = Path(tempfile.mkdtemp(prefix="discrete-itd-"))
    model, scores, page = (folder / f"tea.{kind}" for kind in ("safetensors", "csv", "html"))
    if code := _typed(
        "fit", before, "--out", model, "--detector", "--seed", 0, "--max-time", SECONDS
    ):
        return code
    if code := _typed("score", model, new, "--out", scores, "--reasons", 1):
        return code
    lines = pd.read_csv(scores).sort_values("score")
    put("\nthe most anomalous of the new orders:")
    for row, reason in lines[lines["alarm"]].head(3).set_index("row")["reason"].items():
        put(f"  row {row}: {reason}")
    if find_spec("matplotlib"):
        if code := _typed("report", model, new, "--out", page):
            return code
    else:
        put('\na page of all this needs pip install "discrete-itd[plot]", then discrete-itd report')
    put("\nnow with a file of your own: the commands are those above")
    return 0


def _typed(*words: object) -> int:
    """Run a command, and print it as one types it, with the names of files alone."""
    names = [word.name if isinstance(word, Path) else str(word) for word in words]
    put(f"\n$ discrete-itd {shlex.join(names)}")
    return main([str(word) for word in words])
