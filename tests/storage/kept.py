"""Small files of every kind of model, as a release would leave them behind; see ``test_kept_files.py``.

python -m tests.storage.kept    # after a change of the format: writes them anew
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.recipes import (
    BayesNet,
    Causal,
    Forest,
    Independent,
    Mixture,
    Network,
    RowMixture,
    Tree,
)

FOLDER = Path(__file__).parent / "kept"
SCORES = FOLDER / "scores.json"
RECIPES = {
    "independent": Independent(),
    "tree": Tree(),
    "mixture": Mixture(8, n_latent=2, n_points=16, max_steps=2),
    "bayes_net": BayesNet(),
    "forest": Forest(2),
    "network": Network(width=4, depth=1, base="independent"),
    "causal": Causal(width=2, depth=1, base=Tree()),
    "row_mixture": RowMixture((Tree(), Mixture(2, n_points=16, max_steps=2))),
}


def table(n: int = 120) -> pd.DataFrame:
    """Columns of every kind."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, n)
    rows = pd.DataFrame(
        {
            "name": np.array(list("xyz"))[group],
            "size": pd.Categorical(
                np.array(["S", "M", "L"])[(group + rng.integers(0, 2, n)) % 3],
                categories=["S", "M", "L"],
                ordered=True,
            ),
            "real": rng.normal(size=n) + group,
            "seen": rng.choice([0.5, 1.25, 7.0], n),
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n), "s"),
            "price": [f"{1000 + i},50 €" for i in rng.integers(0, 999, n)],
            "yes": rng.random(n) < 0.3,
        }
    )
    rows.loc[::9, "real"] = np.nan
    return rows


def density(name: str) -> DiffusionDensity:
    """The fitted density of a recipe."""
    rows = table()
    if name == "causal":  # whose companion would be large
        rows = rows[["name", "size"]]
    return DiffusionDensity(
        denoiser=RECIPES[name],
        missing="category",
        schedule=CoordinateSchedule(3),
        n_evaluations=8,
        max_steps=2,
        random_state=0,
    ).fit(rows)


def scores(model: DiffusionDensity | DiffusionOutlierDetector) -> np.ndarray:
    """The scores of three rows."""
    return model.score_samples(table(3)[list(model.feature_names_in_)])


def detector() -> DiffusionOutlierDetector:
    """A fitted detector with strata."""
    return DiffusionOutlierDetector(
        DiffusionDensity(denoiser=Tree()), given="name", false_alarm_rate=0.2, random_state=0
    ).fit(table())


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    models = {name: density(name) for name in RECIPES} | {"detector": detector()}
    for name, model in models.items():
        model.save(FOLDER / f"{name}.safetensors", card=False)
    watch = DriftWatch(models["detector"])
    watch.update(table())
    watch.save(FOLDER / "watch.safetensors")
    found = {name: scores(model).tolist() for name, model in models.items()}
    SCORES.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        main()
