r"""Two-sample tests with p-values that are valid for samples of any size, with ties.

If all values of both samples are exchangeable then, given the values, every choice of which of them make up one of the
samples is equally likely. All tests here but two refer to that conditional distribution, so that
:math:`P(p \le a) \le a` for every a, in finite samples and whatever the distribution of the values:

- Kolmogorov and Smirnov: scipy's exact test, conservative with ties; of samples that are both long, asymptotic.
- Categories: a Monte-Carlo test in which the observed table counts as one of the draws, which makes it exact at any
  number of draws (Phipson & Smyth 2010), combined with exact tests of single categories; of two categories, Fisher's
  exact test.
- Missing cells: Fisher's exact test, conservative because counts are discrete.
- Means: a Monte-Carlo permutation test, exact like that of categories; of samples that are both huge, asymptotic.

References
----------
Hodges, "The significance probability of the Smirnov two-sample test", Arkiv för Matematik 1958.
Besag & Clifford, "Sequential Monte Carlo p-values", Biometrika 1991.
Phipson & Smyth, "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular
Biology 2010.
Genovese, Roeder, Wasserman, "False discovery control with p-value weighting", Biometrika 2006: Bonferroni's bound with
unequal shares.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import stats

N_PERMUTATIONS = 1999
MANY = 100_000  # values whose means are close to Gaussian

# Kolmogorov and Smirnov: asymptotic only if both samples are at least LONG, and more than ENUMERATED together.
# Its level with fewer, 1000 values against 5000, is in the table of `python -m tests.benchmarks.drift_level`.
ENUMERATED = 10_000
LONG = 1000

# Categories.
FEW = 5  # categories of fewer values, in both samples together, are pooled
MOST = 100  # categories that are not pooled: the most frequent
DRAWS = 99_999
CELLS = 1_000_000  # of all tables drawn
ENOUGH = 100  # draws as extreme as the observed table, after which sampling stops
SINGLE = 0.01  # the share of the level that goes to the tests of single categories
RELATIVE = 1e-9  # statistics that differ by less are equal


def permutation_test(
    a: NDArray[np.float64], b: NDArray[np.float64], random: np.random.RandomState
) -> float:
    """p-value that samples (n,) and (m,), not empty, have one mean: two-sided, by Monte Carlo.

    (1 + permutations whose means differ as much) / (1 + permutations): at least 1 / 2000, and valid at any size if
    values are exchangeable. Asymptotic, Welch's test, where both samples have more than 100 000 values.
    """
    pooled, n = np.concatenate([a, b]), len(a)
    if min(n, len(b)) > MANY:
        return float(cast(Any, stats.ttest_ind(a, b, equal_var=False)).pvalue)
    total = pooled.sum()

    def distance(sums: Any) -> Any:
        return np.abs(sums / n - (total - sums) / (len(pooled) - n))

    small = min(n, len(pooled) - n)  # the smaller part's sum determines the other's
    sums = np.array(
        [pooled[random.permutation(len(pooled))[:small]].sum() for _ in range(N_PERMUTATIONS)]
    )
    if small < n:
        sums = total - sums
    found = distance(a.sum())
    as_far = np.count_nonzero(distance(sums) >= found - RELATIVE * (1 + found))
    return (1 + as_far) / (1 + N_PERMUTATIONS)


def same_distribution(a: np.ndarray, b: np.ndarray) -> float:
    """p-value of the two-sided test of Kolmogorov and Smirnov on numbers (n,) and (m,), with or without ties.

    Exact without ties and conservative with them, unless both n and m are at least 1000 and n + m is above 10 000: then
    asymptotic. 1 if a sample is empty.
    """
    fewest, total = min(len(a), len(b)), len(a) + len(b)
    if not fewest:
        return 1.0
    method = "asymp" if fewest >= LONG and total > ENUMERATED else "exact"
    return float(cast(Any, stats.ks_2samp(a, b, method=method)).pvalue)


def same_categories(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> float:
    """p-value that codes of categories (n,) and (m,) have one distribution, valid given the counts in both together.

    For two categories, that of Fisher's exact test. For more, the smaller of two, each divided by its share of the
    level: 0.99 for a Monte-Carlo test of the statistic chi-square, which is exact, and 0.01 for exact tests of each
    category against all others, times twice their number. The first finds differences of any kind, but cannot go below
    1 / 100 000 (1 / 33 000 for 30 categories); the second can, where a category replaces most others. 1 where there is
    nothing to compare. All but the 100 most frequent categories are pooled, and those of fewer than 5 values (fewer
    than a sample has, if it has less), counted in both samples together: this does not depend on the division into
    samples, as the hypothesis requires.
    """
    if not len(a) or not len(b):
        return 1.0
    codes = np.unique(np.concatenate([a, b]), return_inverse=True)[1]
    table = np.stack([np.bincount(c, minlength=codes.max() + 1) for c in np.split(codes, [len(a)])])
    if len(b) < len(a):
        table = table[::-1]  # the smaller sample is cheaper to draw, and determines the other
    n, total = int(table[0].sum()), len(codes)
    both = table.sum(0)
    pooled = both < min(FEW, n)
    pooled[np.argsort(-both, kind="stable")[MOST:]] = True
    if pooled.any():
        table = np.column_stack([table[:, ~pooled], table[:, pooled].sum(1)])
        both = table.sum(0)
    if len(both) < 2:
        return 1.0
    if len(both) == 2:
        return _fisher(table)
    more = stats.hypergeom.sf(table[0] - 1, total, both, n)
    fewer = stats.hypergeom.cdf(table[0], total, both, n)
    single = 2 * len(both) * float(min(more.min(), fewer.min())) / SINGLE
    n_draws = min(DRAWS, CELLS // len(both))
    if single * (1 + n_draws) <= 1:
        return single  # no Monte-Carlo p-value can be smaller
    return min(1.0, single, _monte_carlo_chi_square(table, n_draws, random) / (1 - SINGLE))


def _monte_carlo_chi_square(table: np.ndarray, n_draws: int, random: np.random.Generator) -> float:
    """P-value of chi-square in tables (2, K) of these margins, exact after Besag and Clifford.

    Draws end early where 100 were as extreme: the p-value is then 100 / draws, which is exact too.
    """
    both, n = table.sum(0), int(table[0].sum())
    # chi-square is linear in this sum of squares, as the margins are fixed
    found = (table[0].astype(float) ** 2 / both).sum() * (1 - RELATIVE)
    method = "count" if n <= 5 * len(both) else "marginals"  # whichever is faster
    as_far, done, size = 0, 0, 1000
    while done < n_draws:
        size = min(size, n_draws - done)
        drawn = random.multivariate_hypergeometric(both, n, size=size, method=method)
        hits = np.flatnonzero(drawn.astype(float) ** 2 @ (1 / both) >= found)
        if as_far + len(hits) >= ENOUGH:
            return ENOUGH / (done + int(hits[ENOUGH - as_far - 1]) + 1)
        as_far, done, size = as_far + len(hits), done + size, min(4 * size, 16_000)
    return (1 + as_far) / (1 + n_draws)


def same_column(
    a: np.ndarray, b: np.ndarray, kind: str, random: np.random.Generator
) -> tuple[float, float]:
    """p-values of the values, and of the rate of missing cells (NaN), of a column in two tables, (n,) and (m,).

    The first by :func:`same_categories` of codes (``kind`` "nominal") or :func:`same_distribution` of numbers, given
    which cells are missing; the second by Fisher's exact test, NaN where none is missing.
    """
    gone = np.isnan(a), np.isnan(b)
    p_missing = same_rate(*gone) if any(g.any() for g in gone) else math.nan
    a, b = a[~gone[0]], b[~gone[1]]
    p = same_categories(a, b, random) if kind == "nominal" else same_distribution(a, b)
    return p, p_missing


def same_rate(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """p-value that the shares of True in both samples, (n,) and (m,), are equal: Fisher's exact test."""
    return _fisher(np.array([[t.sum(), (~t).sum()] for t in (a, b)]))


def distance(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    """Distance of the values of a column, or of its rates of missing cells (NaN), whichever is larger: 0 to 1.

    Total variation of codes (``kind`` "nominal"), else the largest difference of the distribution functions.
    """
    if not len(a) or not len(b):
        return 0.0
    gone = [np.isnan(x) for x in (a, b)]
    missing = abs(gone[0].mean() - gone[1].mean())
    values, counts = np.unique(np.concatenate([a[~gone[0]], b[~gone[1]]]), return_inverse=True)
    n = int((~gone[0]).sum())
    if not n or n == len(counts):
        return float(missing)
    one, other = (np.bincount(c, minlength=len(values)) / len(c) for c in (counts[:n], counts[n:]))
    gap = one - other
    apart = np.abs(gap).sum() / 2 if kind == "nominal" else np.abs(gap.cumsum()).max()
    return float(max(apart, missing))


def _fisher(counts: np.ndarray) -> float:
    return float(cast(Any, stats.fisher_exact(counts))[1])
