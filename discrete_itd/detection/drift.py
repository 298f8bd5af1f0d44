r"""Comparison of a new batch of rows with the calibration rows.

The two-sample tests are valid for samples of any size, with ties. If all values of both samples are exchangeable then,
given the values, every choice of which of them make up one of the samples is equally likely. The tests are scipy's, and
refer to that conditional distribution, so that :math:`P(p \le a) \le a` for every a:

- Numbers: Kolmogorov and Smirnov's, conservative with ties; of long samples, asymptotic.
- Categories: chi-square by Monte Carlo, where the observed table counts as one of those drawn, which makes it exact at
  any number of draws (Phipson & Smyth 2010); of two categories, Fisher's exact test.
- Missing cells: Fisher's exact test, conservative because counts are discrete.
- Means: a permutation test by Monte Carlo, exact like the test of categories; of samples that are both huge, Welch's;
  of a single row, Kolmogorov and Smirnov's.

References
----------
Hodges, "The significance probability of the Smirnov two-sample test", Arkiv för Matematik 1958.
Phipson & Smyth, "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular
Biology 2010.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from discrete_itd.detection.cell_predictions import nats_given_others
from discrete_itd.detection.outside import many_outside
from discrete_itd.detection.score import DECIMALS, Scorer
from discrete_itd.encoders.rows import Rows, check_any
from discrete_itd.validation import check_share, seed_of

# Least difference (nats, or share of the rows) of a column that is named, however significant a smaller one is.
LEAST_EFFECT = 0.02
# Nats by which a column is less probable given the others, from which it is named in place of one that depends on it.
LEAST_SURPRISE = 0.2
# N_DRAWN rows of the model stand for a reference table that is not given. About MOST_ASKED cells are predicted from the
# others of their rows, in FEWEST_ROWS rows or more: a few seconds for a network.
N_DRAWN, MOST_ASKED, FEWEST_ROWS = 500, 5000, 100

# Size of both samples above which means are taken as Gaussian (skewed nats, 5000 values of each: false alarms of 0.9 %
# at a level of 1 %; but 1000 against 9000 values up to 2.9 %).
MANY = 10_000
N_PERMUTATIONS = 1999  # permutations in the test of means, whose least p-value is 1 / 2000
N_TABLES = 9999  # tables drawn in the test of categories: half a second for a hundred categories of many rows
BATCH_NUMBERS = 10**7  # numbers of permutations and tables in memory at once
# Categories with fewer than FEW values in both samples, and all but the MOST frequent ones, are pooled, or chi-square
# would depend on single rows.
FEW, MOST = 5, 100


@dataclass(frozen=True)
class Drift:
    r"""Differences of a batch of rows from the calibration rows, here called inliers.

    All nats are of the score: its mean with the standard error, or shares of columns.

    Attributes
    ----------
    n_rows, n_inliers : int
        Number of rows in the batch, and of inliers.
    nats, stderr : float
        Mean of the batch and its standard error.
    inlier_nats, inlier_stderr : float
        Mean of the inliers and its standard error.
    p_value : float
        P-value of the hypothesis that the nats of the batch and of the inliers have one mean, at least 1 / 2000: by a
        permutation test, or Welch's where there are many rows of both.
    columns : DataFrame, indexed by column
        ``nats``, ``inlier_nats`` and ``shift``: mean shares of the column and their difference; ``p_nats``, of a
        Kolmogorov-Smirnov test that its shares, rounded to 0.0001 nats, have one distribution; ``effect``, the distance
        of these distributions in nats (Wasserstein: the mean difference of their quantiles); ``p_missing``, of the rate
        of missing cells (Fisher's exact test; NaN where none is missing); with a reference table ``p_values``, of the
        values' own distribution (numbers: Kolmogorov-Smirnov; categories: chi-square by Monte Carlo); ``distance``, of
        the rates of missing cells or, with a reference, of the values
        (the largest difference of the distribution functions; of categories the total variation), whichever is larger;
        ``p_value``, the smallest of these p-values times their number, at most 1; ``q_value``, adjusted for the number
        of columns by the procedure of Benjamini and Hochberg; ``outside``, the share of rows outside the range or the
        categories of training, where that is more than a few per cent, else 0; ``moved``, whether it is one of
        ``drifted_columns``.
    alpha : float
        The significance level of ``drifted``.

    Notes
    -----
    If the rows of the batch, the inliers and the rows of the reference are independent draws from one distribution,
    and neither the model nor its encoder was fitted to any of them, then every p-value here, of a column too, is
    at most a with probability at most a: for batches of any size, with any ties, whatever the model. Asymptotic are
    only the tests of numbers, if one sample has more than 10 000 values, and of means, if both have. Details are in
    :mod:`discrete_itd.detection.drift`.

    The p-values of different columns depend on one another. The procedure of Benjamini and Hochberg then controls the
    false-discovery rate if the dependence is positive (Benjamini & Yekutieli 2001); whatever the dependence, the rate
    is at most :math:`1 + 1/2 + \dots + 1/C` times as high.

    References
    ----------
    Benjamini & Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 1995.
    Benjamini & Yekutieli, "The control of the false discovery rate in multiple testing under dependency", Annals of
    Statistics 2001.
    """

    n_rows: int
    n_inliers: int
    nats: float
    stderr: float
    inlier_nats: float
    inlier_stderr: float
    p_value: float
    columns: pd.DataFrame
    alpha: float

    @property
    def drifted(self) -> bool:
        """Whether the batch as a whole or any column differs, each at the level ``alpha / 2``.

        Without drift this is True with probability at most ``alpha``, if the columns' p-values are independent or
        positively dependent (see the notes of the class).
        """
        return differs(self.p_value, self.columns["q_value"].to_numpy(dtype=float), self.alpha)

    @property
    def drifted_columns(self) -> list:
        """Names of the columns that drifted, the largest effect first, independently of ``drifted``.

        Columns in which more than a few per cent of the rows lie ``outside`` the range or the categories of training,
        with such a ``q_value``, come before all others.

        A column *differs* if its ``q_value`` is at most ``alpha`` and its ``effect`` at least 0.02 nats, or its
        ``distance`` 0.02: with many rows even negligible differences are significant. On average over batches, at most
        a share of ``alpha`` of those with such a ``q_value`` is false, under the same conditions. Among the columns
        that differ, those are named whose own values or rates of missing cells do, tested alone (values need a
        reference). If there are none, a dependence has changed: the column is named whose cells are predicted worse by
        the others of their rows than among the reference, or among rows drawn from the model, by most nats.
        """
        moved = cast(pd.DataFrame, self.columns[self.columns["moved"]])
        order = ["outside", "effect"]
        return moved.sort_values(order, ascending=False, kind="stable").index.tolist()

    def __str__(self) -> str:
        lines = [
            f"{'Drift' if self.drifted else 'No drift'} in {self.n_rows} rows, at level {self.alpha:g}",
            f"  nats per row: {self.nats:.2f} ± {self.stderr:.2f}, inliers {self.inlier_nats:.2f} ±"
            f" {self.inlier_stderr:.2f} (p = {self.p_value:.2g})",
        ]
        table = self.columns.loc[self.drifted_columns]
        if not (self.drifted and len(table)):
            return "\n".join([*lines, "  no column differs"])
        lines.append(
            f"  {len(table)} of {len(self.columns)} columns drifted, the largest effect first:"
        )
        for name, column in table.iterrows():
            lines.append(
                f"    {name}: {column['nats']:.2f} nats, inliers {column['inlier_nats']:.2f}"
                f" (effect {column['effect']:.2f}, q = {column['q_value']:.2g})"
            )
        return "\n".join(lines)


def drift(
    scorer: Scorer,
    X: Any,
    inlier_nats: np.ndarray,
    *,
    reference: Any = None,
    alpha: float = 0.05,
    random_state: int | np.random.RandomState | None = 0,
) -> Drift:
    """Compare a batch of rows X with inliers by the score.

    ``inlier_nats`` (n, C) are the score by column of at least two inliers that were not used in the fit, NaN where a
    cell is missing. With a ``reference`` table of such inliers, the values' own distributions are compared, too;
    without it, a column may be named in place of one that it depends on. A ValueError or TypeError names a column that
    is absent or holds a value that its kind cannot take.
    """
    alpha = check_share("alpha", alpha)
    seed = seed_of(random_state)
    rows = check_any(scorer.density.rows(X))
    nats = scorer.explain(rows).to_numpy()
    others = None if reference is None else scorer.density.rows(reference)
    p_value, table = compare(
        (nats, inlier_nats),
        rows.encoder.names,
        np.random.default_rng(seed),
        values=None if others is None else (rows.cells, others.cells),
        ordered=[column.is_ordered for column in scorer.schema],
    )
    n_outside = rows.is_outside.sum(0)
    far = many_outside(n_outside, len(rows), scorer.schema) & (table["q_value"] <= alpha).to_numpy()
    table["outside"] = np.where(far, n_outside / max(1, len(rows)), 0.0)
    differ, is_alone = _differ(table, alpha), _smallest(table, ["p_values", "p_missing"])
    is_alone = stats.false_discovery_control(is_alone) <= alpha
    moved = far | (differ & is_alone & (table["distance"] >= LEAST_EFFECT).to_numpy())
    if differ.any() and not moved.any():
        if others is None:
            others = scorer.density.rows(scorer.density.sample(N_DRAWN, random_state=seed))
        worse = surprisals(scorer, rows) - surprisals(scorer, others)
        if worse.max() < LEAST_SURPRISE:  # no column is, given the others
            worse = np.where(differ, -table["q_value"], -np.inf)
        moved = np.arange(len(table)) == worse.argmax()
    means = [_mean_and_error(np.nansum(t, 1)) for t in (nats, inlier_nats)]
    table["moved"] = moved
    return Drift(len(nats), len(inlier_nats), *means[0], *means[1], p_value, table, alpha)


def compare(
    nats: Sequence[np.ndarray],
    names: Sequence[Any],
    random: np.random.Generator,
    *,
    values: Sequence[np.ndarray] | None = None,
    ordered: Sequence[bool] = (),
) -> tuple[float, pd.DataFrame]:
    """The tests of :class:`Drift`, which need no model: its ``p_value`` and the first ten of its ``columns``.

    ``nats`` are nats of the batch and of inliers by column, (N, C) and (n, C), NaN where a cell is missing;
    ``values``, encoded cells of the batch and of a reference, whose columns are ``ordered`` or not.
    """
    p_value = same_mean(np.nansum(nats[0], 1), np.nansum(nats[1], 1), random)
    lines = []
    for j, column_random in enumerate(random.spawn(len(names))):  # columns do not share draws
        is_missing = [np.isnan(t[:, j]) for t in values or nats]
        new, old = (t[:, j][~np.isnan(t[:, j])] for t in nats)
        both = len(new) and len(old)
        line = {
            "nats": new.mean() if len(new) else 0.0,
            "inlier_nats": old.mean() if len(old) else 0.0,
            "p_nats": same_distribution(new.round(DECIMALS), old.round(DECIMALS))[0],
            "effect": stats.wasserstein_distance(new, old) if both else 0.0,
            "p_missing": _fisher([[g.sum(), (~g).sum()] for g in is_missing]),
            "distance": abs(is_missing[0].mean() - is_missing[1].mean()),
        }
        if not any(g.any() for g in is_missing):
            line["p_missing"] = math.nan
        if values is not None:
            a, b = (t[:, j][~g] for t, g in zip(values, is_missing, strict=True))
            test = same_distribution(a, b) if ordered[j] else same_categories(a, b, column_random)
            line["p_values"], line["distance"] = test[0], max(line["distance"], test[1])
        lines.append(line)
    table = pd.DataFrame(lines, index=pd.Index(names, name="column"))
    table.insert(2, "shift", table["nats"] - table["inlier_nats"])
    table["p_value"] = _smallest(table, ["p_nats", "p_values", "p_missing"])
    table["q_value"] = stats.false_discovery_control(table["p_value"])
    return p_value, table


def differs(p_value: float, q_values: np.ndarray, alpha: float) -> bool:
    """The value of :attr:`Drift.drifted`: half the level for the whole, half for all columns (Bonferroni)."""
    return bool(min(p_value, q_values.min()) <= alpha / 2)


def _differ(table: pd.DataFrame, alpha: float) -> np.ndarray:
    """Whether each column differs significantly and by more than a negligible amount: bool, (C,)."""
    large = table[["effect", "distance"]].max(axis=1) >= LEAST_EFFECT
    return (large & (table["q_value"] <= alpha)).to_numpy()


def surprisals(scorer: Scorer, rows: Rows) -> np.ndarray:
    """Mean surprisal of each column's cells given all others of their row, over some of the rows: (C,), nats."""
    columns = [k for k in range(len(scorer.schema)) if k not in scorer.given]
    x = rows.x[:: -(-len(rows) // max(FEWEST_ROWS, MOST_ASKED // len(columns)))]
    nats = nats_given_others(scorer, x, columns)
    is_known = ~x[:, columns].isnan().cpu().numpy()
    out = np.zeros(len(scorer.schema))
    out[columns] = (nats * is_known).sum(0) / np.maximum(is_known.sum(0), 1)
    return out


def _smallest(table: pd.DataFrame, tests: list[str]) -> pd.Series:
    """The smallest p-value of each column by some tests, times their number, at most 1: (C,)."""
    p = table.reindex(columns=tests)
    return (p.min(axis=1) * p.count(axis=1)).clip(upper=1.0).fillna(1.0)


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, infinite for one value."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return float(values.mean()), error


# -- two-sample tests -------------------------------------------------------------------------------


def same_mean(a: NDArray[np.float64], b: NDArray[np.float64], random: np.random.Generator) -> float:
    """p-value that nats (n,) and (m,), not empty, have one mean: two-sided, at least 1 / 2000.

    If a sample is a single row, p-value that both have one distribution.
    """
    if min(len(a), len(b)) == 1:
        return same_distribution(a, b)[0]
    # rounded to whole numbers, whose sums are exact in any order, so that rounding breaks no ties
    a, b = (np.rint(t * 10**DECIMALS) for t in (a, b))
    if min(len(a), len(b)) > MANY:
        return float(cast(Any, stats.ttest_ind(a, b, equal_var=False)).pvalue)
    how: Any = {"n_resamples": N_PERMUTATIONS, "vectorized": True, "rng": random}
    how["batch"] = max(1, BATCH_NUMBERS // (len(a) + len(b)))
    return float(
        stats.permutation_test(
            (a, b), lambda x, y, axis: np.abs(x.mean(axis) - y.mean(axis)),
            alternative="greater", **how,
        ).pvalue
    )  # fmt: skip


def same_distribution(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """p-value that numbers (n,) and (m,) have one distribution, and the distance of their distribution functions.

    The two-sided test of Kolmogorov and Smirnov, exact without ties and conservative with them, asymptotic if a sample
    is long or the exact recursion overflows. 1 and 0 if a sample is empty.
    """
    if not len(a) or not len(b):
        return 1.0, 0.0
    with warnings.catch_warnings():  # the exact recursion may overflow
        warnings.simplefilter("ignore", RuntimeWarning)
        test = cast(Any, stats.ks_2samp(a, b))
    return float(test.pvalue), float(test.statistic)


def same_categories(
    a: np.ndarray, b: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    """p-value that codes of categories (n,) and (m,) have one distribution, and the total variation between them.

    Fisher's exact test of two categories; of more, chi-square by Monte Carlo, with no p-value below 1e-4. 1 and 0 where
    there is nothing to compare. Which categories are pooled does not depend on the division of the values into samples,
    as the hypothesis requires.
    """
    n, m = len(a), len(b)
    if not n or not m:
        return 1.0, 0.0
    codes = np.unique(np.concatenate([a, b]), return_inverse=True)[1]
    table = np.stack([np.bincount(c, minlength=codes.max() + 1) for c in np.split(codes, [n])])
    apart = float(np.abs(table[0] / n - table[1] / m).sum() / 2)
    both = table.sum(0)
    pooled = both < min(FEW, n, m)
    pooled[np.argsort(-both, kind="stable")[MOST:]] = True
    table = np.column_stack([table[:, ~pooled], table[:, pooled].sum(1)])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 3:
        return _fisher(table) if table.shape[1] == 2 else 1.0, apart
    how = stats.MonteCarloMethod(N_TABLES, batch=max(1, BATCH_NUMBERS // table.size), rng=random)
    return float(
        cast(Any, stats.chi2_contingency(table, correction=False, method=how)).pvalue
    ), apart


def _fisher(counts: Any) -> float:
    return float(cast(Any, stats.fisher_exact(counts))[1])
