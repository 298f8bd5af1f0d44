"""Counts of a known law: code lengths of the default model and its parts beside the truth.

    python -m tests.benchmarks.counts
    python -m tests.benchmarks.counts --laws zeta --recipes independent forest

Six laws of whole numbers, those of ItDPDM (arXiv:2505.05082), whose log-masses are known: 10 000 rows to fit to and as
many to test. ``excess`` are the nats of a test row above those of the truth, with the standard error of the paired
difference; ``largest`` and ``truth`` are the log-masses of the largest training number.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import betaln, gammaln, zeta

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import machine, markdown

N = 10_000
RECIPES = ("independent", "forest", "mixture", "auto")


def log_beta_negative_binomial(k, r, a, b):
    """Log-masses of failures before r successes, whose probability has the beta distribution (a, b)."""
    return gammaln(r + k) - gammaln(k + 1) - gammaln(r) + betaln(a + r, b + k) - betaln(a, b)


def poisson_mixture(k):
    """Log-masses of three Poisson laws."""
    parts = [np.log(w) + stats.poisson(m).logpmf(k) for w, m in ((0.3, 5), (0.5, 40), (0.2, 200))]
    return np.logaddexp.reduce(parts)


LAWS = {
    "Poisson mixture": (
        lambda rng, n: rng.poisson(rng.choice([5, 40, 200], n, p=[0.3, 0.5, 0.2])),
        poisson_mixture,
    ),
    "zero-inflated": (
        lambda rng, n: rng.poisson(100, n) * (rng.random(n) < 0.4),
        lambda k: np.logaddexp(
            np.log(0.4) + stats.poisson(100).logpmf(k), np.where(k == 0, np.log(0.6), -np.inf)
        ),
    ),
    "negative binomial": (
        lambda rng, n: rng.negative_binomial(1.5, 1.5 / 91.5, n),
        lambda k: stats.nbinom(1.5, 1.5 / 91.5).logpmf(k),
    ),
    "beta-negative-binomial": (
        lambda rng, n: rng.negative_binomial(5, rng.beta(3, 2, n)),
        lambda k: log_beta_negative_binomial(k, 5, 3, 2),
    ),
    "Yule-Simon": (
        lambda rng, n: stats.yulesimon(1.5).rvs(n, random_state=rng),
        lambda k: np.log(1.5) + betaln(k, 2.5),
    ),
    "zeta": (lambda rng, n: rng.zipf(1.7, n), lambda k: -1.7 * np.log(k) - np.log(zeta(1.7))),
}


def main() -> None:
    """Print a line for each law and recipe."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    asked, lines = parser.parse_args(), []
    for name in asked.laws:
        draw, log_mass = LAWS[name]
        rng = np.random.default_rng(0)
        train, test = (draw(rng, N).astype(np.int64) for _ in range(2))
        frame = pd.DataFrame({"count": train})
        truth = log_mass(test.astype(float))
        top = np.array([train.max()])
        for recipe in asked.recipes:
            clock = time.process_time()
            model = DiffusionDensity(
                denoiser=recipe, column_types={"count": "continuous"}, random_state=0
            ).fit(frame)
            seconds = time.process_time() - clock
            gap = truth - model.score_samples(pd.DataFrame({"count": test}))
            lines.append({
                "law": name,
                "nats": -truth.mean(),
                "recipe": recipe,
                "excess": f"{gap.mean():+.4f} ± {gap.std() / np.sqrt(N):.4f}",
                "largest": float(model.score_samples(pd.DataFrame({"count": top}))[0]),
                "truth": float(log_mass(top.astype(float))[0]),
                "CPU-s": seconds,
            })  # fmt: skip
            print(lines[-1], flush=True)
    print(machine())
    print(markdown(list(lines[0]), [list(line.values()) for line in lines]))


if __name__ == "__main__":
    main()
