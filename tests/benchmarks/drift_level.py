"""Do the tests of drift keep their level: false alarms by the size of the batch, asymptotic p-values beside exact ones.

    python -m tests.benchmarks.drift_level                 # under three minutes on one core
    python -m tests.benchmarks.drift_level --quick

Batch and usual rows are drawn from one distribution, so each alarm is false. "Asymptotic" are Kolmogorov and Smirnov's
limit and Pearson's chi-square with categories pooled that are expected fewer than five times; "exact" are the tests of
:mod:`discrete_itd.detection.drift`. The rates of p <= 0.01 and p <= 0.05 stand with their standard errors; a test
is valid if they are no higher. Discrete statistics, few of which are possible in small batches, may have lower ones.

- continuous: Gaussian values; ties: Poisson values of mean 1; both by Kolmogorov and Smirnov.
- 3 and 30 categories: of probabilities proportional to 1, 1/2, 1/3 ...
- missing: a tenth of the cells, by Fisher's exact test, which is the only one there was.
- whole: the verdict ``drifted`` of five columns that depend on one another, at these alphas, a third of the
  repetitions, with 199 permutations, against 500 usual rows only.

Values are compared in blocks of a hundred repetitions that choose the batch from the same pooled rows: given these,
the p-value of Kolmogorov and Smirnov falls as the distance grows, so that few distances need one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.detection import drift
from discrete_itd.detection.drift import compare, differs
from tests.benchmarks.tables import machine, markdown

ALPHAS = (0.01, 0.05)
BATCHES = (2, 5, 10, 30, 100, 1000)
USUAL = (500, 5000)
BLOCK = 100
EXPECTED = 5.0  # below this, the asymptotic test of chi-square pools categories

Alarms = NDArray[np.bool_]  # (repetitions, 2 methods, alphas)


def main() -> None:
    """Print one table per number of usual rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1200)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    options = parser.parse_args()
    repeats = 30 if options.quick else options.repeats
    print(machine())
    header = ["test", "batch"]
    header += [f"{method}, {a:g}" for a in ALPHAS for method in ("asymptotic", "exact")]
    for m in USUAL:
        print(f"\n{m} usual rows, {repeats} repetitions\n")
        lines = []
        for name, test in TESTS.items():
            for n in BATCHES:
                random = np.random.default_rng([n, m])
                if name == "whole" and m > USUAL[0]:
                    continue
                alarms = test(n, m, repeats, random)
                lines.append([name, n, *(_rate(alarms[:, k, i]) for i in (0, 1) for k in (0, 1))])
        print(markdown(header, lines))


def _rate(alarms: Alarms) -> str:
    rate = alarms.mean()
    return f"{rate:.4f} ± {np.sqrt(rate * (1 - rate) / len(alarms)):.4f}"


# -- asymptotic ---------------------------------------------------------------------------------


def asymptotic_chi_square(table: NDArray[np.int64]) -> float:
    """P-value of counts (2, K), rare categories pooled."""
    rare = table.sum(0) * (table.sum(1).min() / table.sum()) < EXPECTED
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    return stats.chi2_contingency(table, correction=False)[1] if table.shape[1] > 1 else 1.0


# -- the tests: (batch, usual, repetitions, random) -> alarms -------------------------------------


class Verdicts:
    """Whether p <= alpha at a distance, for p-values that fall with it: asked only where it isn't known."""

    def __init__(self) -> None:
        self.below, self.above = -np.inf, np.inf  # largest distance without, smallest with an alarm

    def __call__(self, distance: float, alpha: float, p_value: Callable[[], float]) -> bool:
        if self.below < distance < self.above:
            if p_value() <= alpha:
                self.above = distance
            else:
                self.below = distance
        return distance >= self.above


def numbers(draw: Callable[[np.random.Generator, int], NDArray[np.float64]]) -> Callable:
    """Kolmogorov and Smirnov's test of values drawn so."""

    def alarms(n: int, m: int, repeats: int, random: np.random.Generator) -> Alarms:
        found = []
        for start in range(0, repeats, BLOCK):
            pooled, verdicts = draw(random, n + m), [Verdicts() for _ in ALPHAS]
            for _ in range(min(BLOCK, repeats - start)):
                mixed = random.permutation(pooled)
                a, b = mixed[:n], mixed[n:]
                old = stats.ks_2samp(a, b, method="asymp")
                d = round(old.statistic * n * m)  # an integer, but for rounding

                def exact(a: NDArray = a, b: NDArray = b) -> float:
                    return drift.same_distribution(a, b)[0]

                new = [v(d, alpha, exact) for v, alpha in zip(verdicts, ALPHAS, strict=True)]
                found.append([[old.pvalue <= alpha for alpha in ALPHAS], new])
        return np.array(found)

    return alarms


def categories(n_categories: int) -> Callable:
    """The tests of categories."""
    probs = 1 / np.arange(1.0, n_categories + 1)
    probs /= probs.sum()

    def alarms(n: int, m: int, repeats: int, random: np.random.Generator) -> Alarms:
        p = []
        for _ in range(repeats):
            table = np.stack([random.multinomial(k, probs) for k in (n, m)])
            a, b = (np.repeat(np.arange(n_categories), counts) for counts in table)
            p.append([asymptotic_chi_square(table), drift.same_categories(a, b, random)[0]])
        return np.array(p)[:, :, None] <= ALPHAS

    return alarms


def missing(n: int, m: int, repeats: int, random: np.random.Generator) -> Alarms:
    """The test of the rate of missing cells."""
    gone = random.binomial([n, m], 0.1, (repeats, 2))
    p = [stats.fisher_exact([[i, n - i], [j, m - j]])[1] for i, j in gone]
    return np.repeat(np.array(p)[:, None, None] <= ALPHAS, 2, axis=1)


def whole(n: int, m: int, repeats: int, random: np.random.Generator) -> Alarms:
    """The verdict on a batch."""
    mixing = random.normal(size=(5, 5))
    found = []
    for _ in range(max(repeats // 3, 1)):
        nats = random.exponential(size=(n + m, 5)) @ mixing
        with mock.patch.object(drift, "N_PERMUTATIONS", 199):
            p_value, table = compare((nats[:n], nats[n:]), range(5), random)
        old = [stats.ks_2samp(a[:n], a[n:], method="asymp").pvalue for a in nats.T]
        q = stats.false_discovery_control(old), table["q_value"].to_numpy()
        found.append([[differs(p_value, one, alpha) for alpha in ALPHAS] for one in q])
    return np.array(found)


TESTS = {
    "continuous": numbers(lambda random, n: random.normal(size=n)),
    "ties": numbers(lambda random, n: random.poisson(1.0, n).astype(float)),
    "3 categories": categories(3),
    "30 categories": categories(30),
    "missing": missing,
    "whole": whole,
}


if __name__ == "__main__":
    main()
