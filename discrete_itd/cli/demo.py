"""``discrete-itd demo``: edible and poisonous mushrooms."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from discrete_itd.cli.messages import plus_minus, put
from discrete_itd.datasets import load_mushroom
from discrete_itd.estimators import DiffusionDensity

MAX_TIME = 45.0  # seconds of training


def demo(_: argparse.Namespace) -> None:
    """Learn edible mushrooms, and score other edible ones and poisonous ones."""
    X = load_mushroom()
    y = X.pop("class")
    edible, poisonous = X.loc[y == "edible"].sample(frac=1, random_state=0), X.loc[y == "poisonous"]
    train, others = np.split(edible.index, [round(0.8 * len(edible))])
    put(
        f"mushroom table: training on {len(train)} edible rows; scoring {len(others)} other edible and"
        f" {len(poisonous)} poisonous rows"
    )
    model = DiffusionDensity(max_time=MAX_TIME, random_state=0).fit(edible.loc[train])
    rows = pd.concat([edible.loc[others], poisonous])
    surprisal = -model.score_samples(rows)
    found, auroc = model.model_.held_out, roc_auc_score(y[rows.index] == "poisonous", surprisal)
    put(f"\nheld-out edible rows: {plus_minus(found.nats, found.stderr)} a row (lower is better)")
    put(f"better than independent columns by {plus_minus(found.gain, found.gain_stderr)}")
    put(f"poisonous against edible rows by -log_prob: AUROC {auroc:.4f}, without labels")

    worst = rows.iloc[np.argsort(-surprisal, kind="stable")[:5]]
    put("\nthe five most anomalous rows, and the columns with the highest share of -log_prob:")
    for index, nats in model.explain(worst).iterrows():
        cells = (f"{n}={worst.at[index, n]} ({v:.1f})" for n, v in nats.nlargest(3).items())
        put(f"  row {index}, {y.loc[index]}, {nats.sum():.1f} nats: {', '.join(cells)}")
    put(
        "\nnext: discrete-itd fit YOUR_TABLE.csv --out model.safetensors &&"
        " discrete-itd score model.safetensors YOUR_TABLE.csv --out scores.csv --explain"
    )
