"""``discrete-itd demo``: a raw file by the commands that one would type, and edible mushrooms beside poisonous ones."""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from discrete_itd.cli.command import main, put
from discrete_itd.datasets import load_mushroom, path
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.statistics import plus_minus

SECONDS = 45  # time limit of each training


def demo(_: argparse.Namespace) -> int:
    """Fit to the orders of a shop, find the wrong ones among new orders; then learn edible mushrooms."""
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
    for row, reason in lines.loc[lines["alarm"], "reason"].head(3).items():
        put(f"  row {row}: {reason}")
    if find_spec("matplotlib"):
        if code := _typed("report", model, new, "--out", page):
            return code
    else:
        put('\na page of all this needs pip install "discrete-itd[plot]", then discrete-itd report')
    _mushrooms()
    put("\nnow with a file of your own: the commands are those above")
    return 0


def _typed(*words: object) -> int:
    """Run a command, and print it as one types it, with the names of files alone."""
    names = [word.name if isinstance(word, Path) else str(word) for word in words]
    put(f"\n$ discrete-itd {shlex.join(names)}")
    return main([str(word) for word in words])


def _mushrooms() -> None:
    """Learn edible mushrooms, and score other edible ones and poisonous ones."""
    from sklearn.metrics import roc_auc_score

    X = load_mushroom()
    y = X.pop("class")
    edible, poisonous = X.loc[y == "edible"].sample(frac=1, random_state=0), X.loc[y == "poisonous"]
    train, others = np.split(edible.index, [round(0.8 * len(edible))])
    start = time.perf_counter()
    model = DiffusionDensity(max_time=SECONDS, random_state=0).fit(edible.loc[train])
    seconds = time.perf_counter() - start
    rows = pd.concat([edible.loc[others], poisonous])
    found = model.model_.held_out
    auroc = roc_auc_score(y[rows.index] == "poisonous", -model.score_samples(rows))
    put(f"\nmushrooms: fitted to {len(train)} edible ones in {seconds:.1f} s")
    put(f"held-out edible rows: {plus_minus(found.nats, found.stderr)} a row (lower is better)")
    put(f"better than independent columns by {plus_minus(found.gain, found.gain_stderr)}")
    put(f"poisonous against edible rows by -log_prob: AUROC {auroc:.4f}, without labels")
