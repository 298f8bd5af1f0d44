"""Differentially private forests: nats, anomalies found and synthetic rows, against epsilon.

    python -m tests.benchmarks.private
    python -m tests.benchmarks.private solar chess --epsilons 1 none --seeds 4 5
    python -m tests.benchmarks.private mushroom --quick

Tables, divisions and AUROC are those of ``anomaly.py categorical``: 30 % of the rows are for testing, the normal ones
of the others for training. The categories that are declared are those of the whole table, as a code book has them.
"none" is the forest without a promise, on the same declared columns; "independent" are its independent columns. Nats
are those of normal test rows. Detection is that of ``synthetic.py``: 1 if XGBoost cannot tell drawn rows from as many
training rows, at most 5000. Each figure is a mean over seeds with its standard error; seconds are the processor's, of
the fit.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Forest
from tests.benchmarks.data import Anomalies, categorical_names, load_categorical, thirds
from tests.benchmarks.fidelity import detection
from tests.benchmarks.tables import machine, markdown, mean_and_error, processor_timed

HEADER = ["table", "epsilon", "nats", "AUROC × 100", "detection", "s"]
EPSILONS = ["0.1", "1", "10", "none", "independent"]
LARGEST = ("w7a", "apas")  # left out by default
DRAWN = 5000


def main() -> None:
    """Print one line per table and epsilon."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="by default six of those with anomalies")
    parser.add_argument("--epsilons", nargs="+", default=EPSILONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5, 6, 7, 8])
    parser.add_argument("--quick", action="store_true", help="two seeds, few drawn rows")
    options = parser.parse_args()
    names = options.tables or [name for name in categorical_names() if name not in LARGEST]
    seeds = options.seeds[:2] if options.quick else options.seeds
    print(f"{machine()}; seeds {' '.join(map(str, seeds))}\n")
    print("\n".join(markdown(HEADER, [[""] * len(HEADER)]).splitlines()[:2]), flush=True)
    for name in names:
        frame, odd = load_categorical(name)
        types = {
            column: {"kind": "nominal", "categories": sorted(frame[column].unique())}
            for column in frame
        }
        for epsilon in options.epsilons:
            drawn = DRAWN // 10 if options.quick else DRAWN
            found = [measured(thirds(frame, odd, s), types, epsilon, s, drawn) for s in seeds]
            cells = ["{:.3f} ± {:.3f}".format(*mean_and_error(v)) for v in np.array(found).T]
            print(markdown(HEADER, [[name, epsilon, *cells]]).splitlines()[2], flush=True)


def measured(
    table: Anomalies, types: dict, epsilon: str, seed: int, n_drawn: int
) -> tuple[float, ...]:
    """The figures of one fit."""
    recipe = {"none": Forest(), "independent": "independent"}.get(epsilon)
    density = DiffusionDensity(
        denoiser=recipe or Forest(epsilon=float(epsilon)), column_types=types, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the noise of a private fit|.*seen in training")
        density, seconds = processor_timed(density.fit, table.train)
        score = density.score_samples(table.test)
        real = table.train[:n_drawn]
        drawn = pd.DataFrame(density.sample(len(real), random_state=seed, missing="none"))
    return (
        -float(score[~table.is_odd].mean()),
        100 * float(roc_auc_score(table.is_odd, -score)),
        detection(real, drawn.astype(str), seed).score,
        seconds,
    )


if __name__ == "__main__":
    main()
