r"""Comparison of a new batch of rows with the calibration rows, and of both with the model.

The two-sample tests are valid for samples of any size, with ties. If all values of both samples are exchangeable then,
given the values, every choice of which of them make up one of the samples is equally likely. All tests here but two
refer to that conditional distribution, so that :math:`P(p \le a) \le a` for every a:

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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from discrete_itd.detection.cell_predictions import nats_given_others
from discrete_itd.detection.outside import many_outside
from discrete_itd.detection.score import DECIMALS, Scorer, scorer_of
from discrete_itd.encoders.frames import to_pandas
from discrete_itd.encoders.rows import Rows, check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.validation import check_integer, check_random_state, check_share

LEAST_EFFECT = 0.02  # nats, or share of the rows: smaller differences of a column are negligible
# cells of a table that are predicted from the others; rows, if it is wide
MOST_ASKED, FEWEST_ROWS = 5000, 100

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


@dataclass(frozen=True)
class Drift:
    r"""Differences of a batch of rows from inliers, and of these from rows drawn from the model.

    All nats are mean code lengths, minus the mean score of rows, with the standard error of the mean.

    Attributes
    ----------
    n_rows, n_inliers, n_model : int
        Number of rows in the batch, of inliers, and of rows drawn from the model.
    nats, stderr : float
        Of the batch.
    inlier_nats, inlier_stderr : float
        Of the inliers.
    p_value : float
        Of a permutation test that the code lengths of the batch and of the inliers have one mean: by Monte Carlo and
        exact, at least 1 / 2000; asymptotic if both have more than 100 000 rows.
    model_nats, model_stderr : float
        Of rows drawn from the model, with cells missing as in the batch.
    inlier_model_nats, inlier_model_stderr : float
        The same with cells missing as among the inliers.
    columns : DataFrame, indexed by column
        ``nats``, ``inlier_nats`` and ``shift``: mean shares of the column and their difference; ``p_nats``, of a
        Kolmogorov-Smirnov test that its shares, rounded to 0.0001 nats, have one distribution; ``effect``, the distance
        of these distributions in nats (Wasserstein: the mean difference of their quantiles); ``p_missing``, of the rate
        of missing cells (Fisher's exact test; NaN where none is missing); with a reference table ``p_values``, of the
        values' own distribution (numbers: Kolmogorov-Smirnov; categories: chi-square by Monte Carlo combined with exact
        tests of single categories); ``distance``, of the rates of missing cells or, with a reference, of the values
        (the largest difference of the distribution functions; of categories the total variation), whichever is larger;
        ``p_value``, the smallest of these p-values times their number, at most 1; ``q_value``, adjusted for the number
        of columns by the procedure of Benjamini and Hochberg; ``outside``, the share of rows outside the range or the
        categories of training, where that is more than a few per cent, else 0; ``moved``, whether it is one of
        ``drifted_columns``.
    alpha : float
        The significance level of ``drifted``.

    Notes
    -----
    If the rows of the batch, the inliers and those of the reference are independent draws from one distribution,
    and neither the model nor its encoder was fitted to any of them, then every p-value here, also that of a column, is
    at most a with probability at most a: for batches of any size, with any ties, whatever the model. Only the
    Kolmogorov-Smirnov tests of samples with more than 10 000 values together, at least 1000 each, and the permutation
    test above 100 000 rows are asymptotic. Details are in :mod:`discrete_itd.detection.drift`.

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
    n_model: int
    nats: float
    stderr: float
    inlier_nats: float
    inlier_stderr: float
    p_value: float
    model_nats: float
    model_stderr: float
    inlier_model_nats: float
    inlier_model_stderr: float
    columns: pd.DataFrame
    alpha: float

    @property
    def from_model(self) -> float:
        """Excess nats of the batch over rows drawn from the model, in standard errors."""
        return _in_errors(self.nats - self.model_nats, self.stderr, self.model_stderr)

    @property
    def misfit(self) -> float:
        """The same for the inliers: far from 0, the model itself fits badly, whatever the batch."""
        excess = self.inlier_nats - self.inlier_model_nats
        return _in_errors(excess, self.inlier_stderr, self.inlier_model_stderr)

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
        return self._named(self.columns["moved"].to_numpy(dtype=bool))

    @property
    def dependent_columns(self) -> list:
        """Names of the other columns that differ: their nats given other columns do, but not their own distribution."""
        return self._named(
            _differ(self.columns, self.alpha) & ~self.columns["moved"].to_numpy(dtype=bool)
        )

    def _named(self, which: np.ndarray) -> list:
        found = cast(pd.DataFrame, self.columns[which])
        order = ["outside", "effect"]
        return found.sort_values(order, ascending=False, kind="stable").index.tolist()

    def to_frame(self) -> pd.DataFrame:
        """Mean code lengths, one line each for the batch, the inliers, and model samples with the gaps of either."""
        lines = {
            "batch": (self.n_rows, self.nats, self.stderr),
            "inliers": (self.n_inliers, self.inlier_nats, self.inlier_stderr),
            "model, as batch": (self.n_model, self.model_nats, self.model_stderr),
            "model, as inliers": (self.n_model, self.inlier_model_nats, self.inlier_model_stderr),
        }
        return pd.DataFrame.from_dict(lines, orient="index", columns=["rows", "nats", "stderr"])

    def __str__(self) -> str:
        lines = [
            f"{'Drift' if self.drifted else 'No drift'} in {self.n_rows} rows, at level {self.alpha:g}",
            f"  nats per row: {self.nats:.2f} ± {self.stderr:.2f}, inliers {self.inlier_nats:.2f} ±"
            f" {self.inlier_stderr:.2f} (p = {self.p_value:.2g})",
            f"  above samples of the model: {self.from_model:+.1f} standard errors, inliers {self.misfit:+.1f}",
        ]
        table, others = self.columns.loc[self.drifted_columns], self.dependent_columns
        if not len(table):
            return "\n".join([*lines, "  no column differs"])
        lines.append(
            f"  {len(table)} of {len(self.columns)} columns drifted, the largest effect first:"
        )
        for name, column in table.iterrows():
            lines.append(
                f"    {name}: {column['nats']:.2f} nats, inliers {column['inlier_nats']:.2f}"
                f" (effect {column['effect']:.2f}, q = {column['q_value']:.2g})"
            )
        if others:
            names = ", ".join(map(str, others))
            lines.append(f"  and given others {len(others)} more: {names}")
        return "\n".join(lines)


def drift(
    model: DiffusionDensity | Scorer,
    X: Any,
    inlier_nats: pd.DataFrame,
    *,
    reference: Any = None,
    n_model: int = 500,
    alpha: float = 0.05,
    random_state: int | np.random.RandomState | None = 0,
) -> Drift:
    """Compare a batch of rows X with inliers, and both with ``n_model`` rows drawn from the model, by its score.

    For a density, log-probabilities are compared. ``inlier_nats`` (n, C) are nats by column of inliers that were not
    used in the fit, under the same score, NaN where a cell is missing. With a ``reference`` table of such inliers, the
    values' own distributions are compared, too; without it, a column may be named in place of one that it depends on. A
    ValueError or TypeError names a column that is absent or holds a value that its kind cannot take.
    """
    check_integer("n_model", n_model, 2)
    alpha = check_share("alpha", alpha)
    scorer = scorer_of(model)
    density = scorer.density
    rows = check_any(density.rows(X))
    shares = model.explain(rows).to_numpy()
    of_inliers = as_shares(inlier_nats, rows.encoder.names)
    if len(of_inliers) < 2:
        raise ValueError(f"inlier_nats must hold at least two rows, got {len(of_inliers)}")
    random = check_random_state(random_state)
    missing, inliers_missing = np.isnan(shares), np.isnan(of_inliers)
    for mask in (missing, inliers_missing):
        mask[:, list(scorer.given)] = False  # they have no nats, but drawn rows need their values
    drawn = to_pandas(density.sample(n_model, random_state=random, missing="none"))
    of_model = _model_rows(scorer, drawn, missing, random)
    inlier_model = of_model
    if missing.any() or inliers_missing.any():
        inlier_model = _model_rows(scorer, drawn, inliers_missing, random)
    codes = kinds = None
    others = inlier_model
    if reference is not None:
        others = density.rows(reference)
        codes = [t.x.cpu().numpy() for t in (rows, others)]
        kinds = [c.kind for c in scorer.schema]
    names = rows.encoder.names
    p_value, table = compare(shares, of_inliers, names, random, codes=codes, kinds=kinds)
    model_nats = [model.explain(t).to_numpy() for t in (of_model, inlier_model)]
    n_outside = rows.is_outside.sum(0)
    table["outside"] = n_outside / max(1, len(rows))
    far = many_outside(n_outside, len(rows), scorer.schema) & (table["q_value"] <= alpha).to_numpy()
    table["moved"] = far | _moved(table, alpha, scorer, (rows.x, others.x), bool(far.any()))
    table = table.assign(outside=table["outside"].where(far, 0.0))
    counts = len(shares), len(of_inliers), int(n_model)
    means = [_mean_and_error(np.nansum(t, 1)) for t in (shares, of_inliers, *model_nats)]
    return Drift(*counts, *means[0], *means[1], p_value, *means[2], *means[3], table, alpha)


def compare(
    shares: np.ndarray,
    of_inliers: np.ndarray,
    names: Sequence[Any],
    random: np.random.RandomState,
    *,
    codes: Sequence[np.ndarray] | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[float, pd.DataFrame]:
    """The tests of :class:`Drift`, which need no model: its ``p_value`` and ``columns``.

    ``shares`` (N, C) and ``of_inliers`` (n, C) are nats by column, NaN where a cell is missing; ``codes``, encoded
    values of the batch and of the reference, for columns of these ``kinds``.
    """
    nats, inlier_nats = (np.nansum(t, 1).round(DECIMALS) for t in (shares, of_inliers))
    p_value = permutation_test(nats, inlier_nats, random)
    seed = random.randint(2**32, size=8, dtype=np.uint32)
    generators = np.random.default_rng(seed).spawn(len(names))  # columns do not share draws
    lines = []
    for j, generator in enumerate(generators):
        here, before = (known(t[:, j]) for t in (shares, of_inliers))
        line = {
            "nats": here.mean() if len(here) else 0.0,
            "inlier_nats": before.mean() if len(before) else 0.0,
            "p_nats": same_distribution(here.round(DECIMALS), before.round(DECIMALS)),
            "effect": effect(here, before),
        }
        if codes is not None and kinds is not None:
            a, b = (t[:, j] for t in codes)
            line["p_values"], line["p_missing"] = same_column(a, b, kinds[j], generator)
            line["distance"] = distance(a, b, kinds[j])
        else:
            gone = [np.isnan(t[:, j]) for t in (shares, of_inliers)]
            line["p_missing"] = same_rate(*gone) if any(g.any() for g in gone) else math.nan
            line["distance"] = abs(gone[0].mean() - gone[1].mean())
        lines.append(line)
    table = pd.DataFrame(lines, index=pd.Index(names, name="column"))
    table.insert(2, "shift", table["nats"] - table["inlier_nats"])
    table["p_value"] = _smallest(table, ["p_nats", "p_values", "p_missing"])
    table["q_value"] = stats.false_discovery_control(table["p_value"])
    return p_value, table


def known(nats: np.ndarray) -> np.ndarray:
    """The nats (n,) of cells that are not missing (NaN)."""
    return nats[~np.isnan(nats)]


def effect(here: np.ndarray, before: np.ndarray) -> float:
    """Wasserstein distance of two samples, in their unit; 0 if one is empty."""
    return float(stats.wasserstein_distance(here, before)) if len(here) and len(before) else 0.0


def differs(p_value: float, q_values: np.ndarray, alpha: float) -> bool:
    """The value of :attr:`Drift.drifted`: half the level for the whole, half for all columns (Bonferroni)."""
    return bool(min(p_value, q_values.min()) <= alpha / 2)


def as_shares(inlier_nats: pd.DataFrame, names: Sequence[Any]) -> np.ndarray:
    """Nats by column of inliers as float64, (n, C), NaN where a cell was missing.

    A TypeError unless they are a DataFrame, a ValueError if a column is absent.
    """
    if not isinstance(inlier_nats, pd.DataFrame):
        raise TypeError(
            f"inlier_nats must be a DataFrame, as explain gives it, got {type(inlier_nats).__name__}"
        )
    for name in names:
        if name not in inlier_nats.columns:
            raise ValueError(f"column {name!r}: inlier_nats has no such column")
    return inlier_nats[list(names)].to_numpy(dtype=float)


def _model_rows(
    scorer: Scorer, drawn: pd.DataFrame, missing: np.ndarray, random: np.random.RandomState
) -> Rows:
    """Rows drawn from the model, with cells missing as in randomly chosen rows of ``missing`` (n, C)."""
    lacking = missing[random.randint(len(missing), size=len(drawn))]
    lacking &= ~np.array([bool(c.indicator) for c in scorer.schema])
    rows = drawn.astype(object).mask(lacking) if lacking.any() else drawn
    return scorer.density.rows(rows)


def _differ(table: pd.DataFrame, alpha: float) -> np.ndarray:
    """Which columns differ significantly and by more than a negligible amount, (C,)."""
    large = table[["effect", "distance"]].max(axis=1) >= LEAST_EFFECT
    return (large & (table["q_value"] <= alpha)).to_numpy()


def _moved(
    table: pd.DataFrame, alpha: float, scorer: Scorer, tables: Sequence[Tensor], is_known: bool
) -> np.ndarray:
    """The columns that :attr:`Drift.drifted_columns` names, (C,); ``tables`` are rows of the batch and of others.

    If no column differs in itself, and it ``is_known`` that others do, none is named for a dependence.
    """
    differ, p = _differ(table, alpha), _smallest(table, ["p_values", "p_missing"])
    own = differ & (stats.false_discovery_control(p) <= alpha) & (table["distance"] >= LEAST_EFFECT)
    if own.any() or is_known or not differ.any():
        return own.to_numpy()
    before, here = (_surprisals(scorer, x) for x in tables[::-1])
    return np.arange(len(table)) == (here - before).argmax()


def _surprisals(scorer: Scorer, x: Tensor) -> np.ndarray:
    """Mean surprisal of each column's cells given all others of their row, over some rows (N, C'): (C,), nats."""
    columns = [k for k in range(len(scorer.schema)) if k not in scorer.given]
    x = x[:: -(-len(x) // max(FEWEST_ROWS, MOST_ASKED // len(columns)))]
    nats = nats_given_others(scorer, x, columns, quick=True)
    there = ~x[:, columns].isnan().cpu().numpy()
    out = np.zeros(len(scorer.schema))
    out[columns] = (nats * there).sum(0) / np.maximum(there.sum(0), 1)
    return out


def _smallest(table: pd.DataFrame, tests: list[str]) -> pd.Series:
    """The smallest p-value of each column by some tests, times their number, at most 1: (C,)."""
    p = table.reindex(columns=tests)
    return (p.min(axis=1) * p.count(axis=1)).clip(upper=1.0).fillna(1.0)


def _in_errors(excess: float, *stderr: float) -> float:
    """A difference of two means over its standard error, 0 where that is 0."""
    error = math.hypot(*stderr)
    return excess / error if error else 0.0


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, infinite for one value."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return float(values.mean()), error


# -- two-sample tests -------------------------------------------------------------------------------


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

    def gap(sums: Any) -> Any:
        return np.abs(sums / n - (total - sums) / (len(pooled) - n))

    small = min(n, len(pooled) - n)  # the smaller part's sum determines the other's
    sums = np.array(
        [pooled[random.permutation(len(pooled))[:small]].sum() for _ in range(N_PERMUTATIONS)]
    )
    if small < n:
        sums = total - sums
    found = gap(a.sum())
    as_far = np.count_nonzero(gap(sums) >= found - RELATIVE * (1 + found))
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
