"""Differentially private forests: nats, anomalies found and synthetic rows, against epsilon.

    python -m tests.benchmarks.private
    python -m tests.benchmarks.private solar chess --epsilons 1 none --seeds 4 5
    python -m tests.benchmarks.private mushroom --quick
    python -m tests.benchmarks.private nltcs --three-way --epsilons 0.1 0.2 0.4 0.8 1.6 none independent

Tables, divisions and AUROC are those of ``anomaly.py categorical``: 30 % of the rows are for testing, the normal ones
of the others for training. The categories that are declared are those of the whole table, as a code book has them.
"none" is the forest without a promise, on the same declared columns; "independent" are its independent columns. Nats
are those of normal test rows. Detection is that of ``synthetic.py``: 1 if XGBoost cannot tell drawn rows from as many
training rows, at most 5000. Each figure is a mean over seeds with its standard error; seconds are the processor's, of
the fit.

With ``--three-way``, tables are binary ones, all rows of them, as in PrivMRF (Cai et al., "Data synthesis via
differentially private Markov random fields", VLDB 2021): as many rows are drawn as there are, and the figure is the
total variation of a marginal of three columns in both, a mean over all such marginals. Beside the forest stands MST
(McKenna, Miklau & Sheldon, "Winning the NIST contest", 2021) where the package ``mbi`` is installed: noisy counts of
single columns, a spanning tree of pairs chosen by the exponential mechanism, noisy counts of these. Its guarantee is
(epsilon, ``DELTA``), weaker than the forest's, which is (epsilon, 0). "bootstrap" are rows drawn from the table itself:
what is left to sampling.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Forest
from tests.benchmarks.data import (
    Anomalies,
    categorical_names,
    load_categorical,
    load_density,
    thirds,
)
from tests.benchmarks.fidelity import detection
from tests.benchmarks.tables import available, machine, markdown, mean_and_error, processor_timed

HEADER = ["table", "epsilon", "nats", "AUROC × 100", "detection", "s"]
EPSILONS = ["0.1", "1", "10", "none", "independent"]
LARGEST = ("w7a", "apas")  # left out by default
DRAWN = 5000
DELTA = 1e-5


def main() -> None:
    """Print one line per table and epsilon."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="by default six of those with anomalies")
    parser.add_argument("--epsilons", nargs="+", default=EPSILONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5, 6, 7, 8])
    parser.add_argument("--quick", action="store_true", help="two seeds, few drawn rows")
    parser.add_argument("--three-way", action="store_true", help="marginals of binary tables")
    options = parser.parse_args()
    if options.three_way:
        return three_way(options)
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


# -- marginals of three columns -------------------------------------------------------------------


def three_way(options: argparse.Namespace) -> None:
    """Print one line per table, method and epsilon."""
    header = ["table", "method", "epsilon", "total variation", "s"]
    print(f"{machine()}; seeds {' '.join(map(str, options.seeds))}\n\n{markdown(header, [])}")
    for name in options.tables or ["nltcs"]:
        codes = np.concatenate(load_density(name))
        truth = marginals(codes)
        methods: dict[str, Callable] = {"forest": forest_rows}
        if available("mbi"):
            methods["MST"] = mst_rows
        lines = [(m, e) for e in options.epsilons for m in methods if m == "forest" or is_real(e)]
        for method, epsilon in [*lines, ("bootstrap", "")]:
            found = []
            for seed in options.seeds:
                random = np.random.default_rng(seed)
                drawn, seconds = processor_timed(
                    methods.get(method, bootstrap_rows), codes, epsilon, random
                )
                apart = np.abs(marginals(drawn) - truth).sum(1) / 2
                found.append((apart.mean(), seconds))
            cells = [f"{m:.4f} ± {s:.4f}" for m, s in map(mean_and_error, np.array(found).T)]
            print(markdown(header, [[name, method, epsilon, *cells]]).splitlines()[2], flush=True)


def is_real(epsilon: str) -> bool:
    """Whether an epsilon is a number."""
    return epsilon.replace(".", "").isdigit()


def marginals(codes: np.ndarray) -> np.ndarray:
    """Shares of the eight cells of every three columns of 0/1 codes (N, C): (C choose 3, 8)."""
    counts = [np.bincount(codes[:, list(c)] @ [4, 2, 1], minlength=8) for c in triples(codes)]
    return np.array(counts) / len(codes)


def triples(codes: np.ndarray) -> list[tuple[int, ...]]:
    """Every three columns."""
    return list(combinations(range(codes.shape[1]), 3))


def bootstrap_rows(codes: np.ndarray, _: str, random: np.random.Generator) -> np.ndarray:
    """Rows drawn from the table itself."""
    return random.choice(codes, len(codes))


def forest_rows(codes: np.ndarray, epsilon: str, random: np.random.Generator) -> np.ndarray:
    """Rows of the forest, private or not."""
    seed = int(random.integers(2**31))
    recipe = {"none": Forest(), "independent": "independent"}.get(epsilon)
    types = {j: {"kind": "nominal", "categories": [0, 1]} for j in range(codes.shape[1])}
    density = DiffusionDensity(
        denoiser=recipe or Forest(epsilon=float(epsilon)), column_types=types, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the noise of a private fit|.*seen in training")
        density.fit(pd.DataFrame(codes))
    drawn = density.sample(len(codes), random_state=seed, missing="none")
    return np.asarray(drawn, int)


def mst_rows(codes: np.ndarray, epsilon: str, random: np.random.Generator) -> np.ndarray:
    """Rows of MST, without its merging of rare levels, which binary columns do not have."""
    from mbi import Dataset, Domain, LinearMeasurement, estimation

    columns = [str(j) for j in range(codes.shape[1])]
    domain = Domain(columns, (2,) * len(columns))
    data = Dataset({c: codes[:, j].astype(int) for j, c in enumerate(columns)}, domain)
    rho = zero_concentrated(float(epsilon), DELTA)

    def measured(cliques: list[tuple[str, ...]]) -> list:
        sd = math.sqrt(3 / (2 * rho)) * math.sqrt(len(cliques))  # a third of rho
        counts = [data.project(clique).datavector() for clique in cliques]
        return [
            LinearMeasurement(count + random.normal(0, sd, count.size), clique, sd)
            for count, clique in zip(counts, cliques, strict=True)
        ]

    measurements = measured([(c,) for c in columns])
    model = estimation.MirrorDescent().estimate(domain, measurements)
    gain = {
        pair: np.abs(data.project(pair).datavector() - model.project(pair).datavector()).sum()
        for pair in combinations(columns, 2)
    }
    forest, chosen, step = DisjointSet(columns), [], math.sqrt(8 * rho / 3 / (len(columns) - 1))
    for _ in columns[1:]:
        pairs = [pair for pair in gain if not forest.connected(*pair)]
        chance = softmax([step / 2 * gain[pair] for pair in pairs])
        chosen.append(pairs[random.choice(len(pairs), p=chance)])
        forest.merge(*chosen[-1])
    model = estimation.MirrorDescent().estimate(domain, measurements + measured(chosen))
    drawn = model.synthetic_data(len(codes)).to_dict()
    return np.stack([np.asarray(drawn[c]) for c in columns], 1)


def zero_concentrated(epsilon: float, delta: float) -> float:
    """The rho of zero-concentrated privacy that implies (epsilon, delta), by Canonne, Kamath & Steinke (2020)."""

    def excess(log_rho: float) -> float:
        rho = math.exp(log_rho)

        def log_delta(log_order: float) -> float:
            order = 1 + math.exp(log_order)
            bound = (order - 1) * (order * rho - epsilon) + order * math.log1p(-1 / order)
            return bound - log_order

        return minimize_scalar(log_delta, bounds=(-5, 15)).fun - math.log(delta)

    return math.exp(brentq(excess, -30, math.log(epsilon + 1)))


if __name__ == "__main__":
    main()
