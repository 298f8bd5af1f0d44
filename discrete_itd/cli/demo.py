"""``discrete-itd demo``: edible and poisonous mushrooms."""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from discrete_itd.cli.messages import plus_minus, put
from discrete_itd.datasets import load_mushroom
from discrete_itd.estimators import DiffusionDensity

MAX_TIME = 45.0  # seconds of training


def demo(_: argparse.Namespace) -> None:
    """Learn edible mushrooms, and score other edible ones and poisonous ones."""
    X, y = load_mushroom(return_X_y=True)
    edible, poisonous = X.loc[y == "edible"].sample(frac=1, random_state=0), X.loc[y == "poisonous"]
    n_train = round(0.8 * len(edible))
    train, held_out = edible[:n_train], edible[n_train:]
    put(f"mushroom table: {len(X)} rows, {X.shape[1]} columns without the label")
    put(
        f"training on {len(train)} edible rows; scoring {len(held_out)} other edible and"
        f" {len(poisonous)} poisonous rows"
    )
    start = time.perf_counter()
    # these evaluations of a row are enough for two decimals
    model = DiffusionDensity(max_time=MAX_TIME, n_evaluations=64, random_state=0).fit(train)
    fitted = time.perf_counter()
    rows = model.rows(pd.concat([held_out, poisonous]))
    surprisal = -model.score_samples(rows)
    scored = time.perf_counter()
    is_poisonous = np.arange(len(rows)) >= len(held_out)
    known = rows.take(~is_poisonous)
    marginal = model.model_.marginals.log_prob(known.x).double().cpu().numpy()

    put("\nnats per held-out edible row (lower is better):")
    independent = -marginal - known.log_volume.sum(1)
    for name, nats in (("independent columns", independent), ("model", surprisal[~is_poisonous])):
        put(f"  {name:20} {plus_minus(nats.mean(), nats.std(ddof=1) / len(nats) ** 0.5)}")
    auroc = roc_auc_score(is_poisonous, surprisal)
    put(f"poisonous against edible rows by -log_prob: AUROC {auroc:.4f}, without labels")

    worst = np.argsort(-surprisal, kind="stable")[:5]
    shares = model.explain(rows.take(worst))
    put("\nthe five most anomalous rows, and the columns with the highest share of -log_prob:")
    for i, (index, split) in zip(worst, shares.iterrows(), strict=True):
        top = split.nlargest(3)
        cells = ", ".join(f"{n}={rows.frame.at[index, n]} ({v:.1f})" for n, v in top.items())
        put(f"  row {index}, {y.loc[index]}, {surprisal[i]:.1f} nats: {cells}")
    put(
        f"\nfit {fitted - start:.1f} s, scored {len(rows)} rows in {scored - fitted:.1f} s"
        f" on {model.model_.device}"
    )
    put(
        "next: discrete-itd fit YOUR_TABLE.csv --out model.safetensors &&"
        " discrete-itd score model.safetensors YOUR_TABLE.csv --out scores.csv --explain"
    )
