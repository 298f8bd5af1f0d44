"""Mutual information of two columns where the truth is known, beside scikit-learn's nearest neighbours.

    python -m tests.benchmarks.information
    python -m tests.benchmarks.information --tasks "additive noise" --models default network --rows 5000

One half of ``--rows`` rows is fitted to, the other one is asked about by ``mutual_information("a", "b", X=held_out)``,
with its standard error, and beside it the same of rows drawn from the model. scikit-learn's estimate from three nearest
neighbours (``mutual_info_regression``, ``mutual_info_classif``; Kraskov et al. 2004, Ross 2014) has all rows; its ± is
the standard deviation over ten tables like this one. Seconds are the processor's, of the fit and the held-out answer.

The truths are closed forms, or integrals on a grid: Gaussians with a correlation of 0.75; a uniform number and its sum
with uniform noise of a tenth to both sides (Kraskov et al. 2004 call it additive noise); uncorrelated Student columns
with one degree of freedom; one of four labels and its number with noise; two columns of the network Asia.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import digamma, gammaln
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import machine, markdown, processor_timed
from tests.networks import load_bayesian_network

ASIA = load_bayesian_network("asia")
LABEL_SD, N_LABELS, NOISE, RHO = 0.4, 4, 0.1, 0.75
TABLES = 10  # of scikit-learn's spread


class Task(NamedTuple):
    draw: Callable[[int, np.random.Generator], pd.DataFrame]
    truth: float


def pair(a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"a": a, "b": b})


def gaussians(n: int, rng: np.random.Generator) -> pd.DataFrame:
    return pair(*rng.multivariate_normal([0, 0], [[1, RHO], [RHO, 1]], n).T)


def additive(n: int, rng: np.random.Generator) -> pd.DataFrame:
    a = rng.random(n)
    return pair(a, a + rng.uniform(-NOISE, NOISE, n))


def student(n: int, rng: np.random.Generator) -> pd.DataFrame:
    return pair(*rng.normal(size=(2, n)) / np.sqrt(rng.chisquare(1, n)))


def student_truth(df: float = 1.0) -> float:
    """Two entropies of Student's distribution less that of the pair."""

    def entropy(d: int) -> float:
        of_gammas = gammaln(df / 2) - gammaln((df + d) / 2) + d / 2 * math.log(df * math.pi)
        return of_gammas + (df + d) / 2 * (digamma((df + d) / 2) - digamma(df / 2))

    return 2 * entropy(1) - entropy(2)


def labels(n: int, rng: np.random.Generator) -> pd.DataFrame:
    a = rng.integers(N_LABELS, size=n)
    return pair(a.astype(str), a + rng.normal(scale=LABEL_SD, size=n))


def label_truth() -> float:
    grid = np.linspace(-4, N_LABELS + 3, 40_001)
    p = stats.norm.pdf(grid[:, None], np.arange(N_LABELS), LABEL_SD).mean(1)
    return float(np.trapezoid(-p * np.log(p), grid) - stats.norm(0, LABEL_SD).entropy())


def asia(n: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = ASIA.sample(n, random_state=int(rng.integers(2**31)))
    return pair(rows["bronc"], rows["dysp"])


def asia_truth() -> float:
    grid = pd.MultiIndex.from_product(
        [ASIA.states[v] for v in ASIA.variables], names=ASIA.variables
    )
    rows = grid.to_frame(index=False)
    p = rows.assign(p=np.exp(ASIA.log_prob(rows))).groupby(["bronc", "dysp"])["p"].sum().unstack()
    independent = np.outer(p.sum(axis=1), p.sum(axis=0))
    return float((p * np.log(p / independent)).to_numpy().sum())


TASKS = {
    "correlated Gaussians": Task(gaussians, -0.5 * math.log(1 - RHO**2)),
    "additive noise": Task(additive, -math.log(2 * NOISE) + NOISE),
    "Student": Task(student, student_truth()),
    "labels": Task(labels, label_truth()),
    "network Asia": Task(asia, asia_truth()),
}
MODELS = {"default": {}, "network": {"denoiser": "network"}, "mixture": {"denoiser": "mixture"}}


def neighbours(frame: pd.DataFrame) -> float:
    """scikit-learn's estimate: the target is a category if b is one, else a number."""
    is_text = [not pd.api.types.is_numeric_dtype(frame[name]) for name in "ab"]
    a, b = (
        pd.factorize(frame[name])[0] if text else frame[name]
        for name, text in zip("ab", is_text, strict=True)
    )
    call = mutual_info_classif if is_text[1] else mutual_info_regression
    found = call(np.asarray(a)[:, None], b, discrete_features=is_text[:1], random_state=0)
    return float(found[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["default", "network"])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--max-time", type=float, default=120.0)
    parser.add_argument("--max-steps", type=int, default=1000, help="of a network")
    options = parser.parse_args()
    print(machine(), flush=True)
    lines = []
    for name in options.tasks:
        draw, truth = TASKS[name]
        frame, half = draw(options.rows, np.random.default_rng(0)), options.rows // 2
        for model in options.models:
            limits = {
                "max_time": options.max_time,
                "max_steps": options.max_steps,
                "random_state": 0,
            }
            density = DiffusionDensity(**MODELS[model], **limits)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # time ran out
                _, fit = processor_timed(density.fit, frame[:half])
            found, seconds = processor_timed(
                lambda density=density, rows=frame[half:]: density.mutual_information(
                    "a", "b", X=rows
                )
            )
            drawn = density.mutual_information("a", "b", random_state=0)
            off = (found.value - truth) / max(found.stderr, 1e-9)
            lines.append([name, truth, model, *found, f"{off:+.1f}", *drawn, fit, seconds])
            print("  ", *lines[-1], flush=True)
        found, seconds = processor_timed(neighbours, frame)
        more = [neighbours(draw(options.rows, np.random.default_rng(1 + i))) for i in range(TABLES)]
        spread = float(np.std(more, ddof=1))
        off = (found - truth) / spread
        lines.append(
            [name, truth, "scikit-learn", found, spread, f"{off:+.1f}", "", "", "", seconds]
        )
        print("  ", *lines[-1], flush=True)
    header = [
        "task",
        "truth",
        "by",
        "nats",
        "s.e.",
        "errors off",
        "of draws",
        "s.e.",
        "fit, s",
        "answer, s",
    ]
    print("\n" + markdown(header, lines), flush=True)


if __name__ == "__main__":
    main()
