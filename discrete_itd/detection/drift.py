"""Whether a new batch of rows is what the model was calibrated on, and whether either is what the model believes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils import check_random_state

from discrete_itd.estimators import DiffusionDensity
from discrete_itd.validation import check_integer, check_share

N_PERMUTATIONS = 1999
MANY = 100_000  # rows, whose means are Gaussian enough
FEW = 5.0  # expected counts below this are pooled before a test of chi-square


Explain = Callable[[Any], pd.DataFrame]


@dataclass(frozen=True)
class Drift:
    """How a batch of rows differs from ordinary ones, and these from what the model believes.

    All nats are mean code lengths, of what the columns of a row sum to, with the standard error of the mean.

    Attributes
    ----------
    n_rows, n_usual, n_model : int
        Rows of the batch, ordinary ones, and rows drawn from the model.
    nats, stderr : float
        Of the batch.
    usual_nats, usual_stderr : float
        Of ordinary rows.
    p_value : float
        Of a permutation test that the code lengths of the batch and of ordinary rows have one mean.
    model_nats, model_stderr : float
        Of rows drawn from the model, with cells missing as in the batch.
    usual_model_nats, usual_model_stderr : float
        The same with cells missing as in ordinary rows.
    columns : DataFrame, indexed by column
        ``nats``, ``usual`` and ``shift``: mean shares of the column and their difference; ``p_nats``, of a test of
        Kolmogorov and Smirnov that its shares have one distribution; with a reference table ``p_values`` and
        ``p_missing``, of the values' own distribution and the rate of missing cells (NaN where none is missing);
        ``p_value``, the smallest of these times their number; ``q_value``, adjusted for the number of columns after
        Benjamini and Hochberg.
    alpha : float
        The level at which to speak of drift.

    References
    ----------
    Benjamini & Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 1995.
    """

    n_rows: int
    n_usual: int
    n_model: int
    nats: float
    stderr: float
    usual_nats: float
    usual_stderr: float
    p_value: float
    model_nats: float
    model_stderr: float
    usual_model_nats: float
    usual_model_stderr: float
    columns: pd.DataFrame
    alpha: float

    @property
    def from_model(self) -> float:
        """By how many standard errors the batch takes more nats than rows of the model's own."""
        error = math.hypot(self.stderr, self.model_stderr)
        return (self.nats - self.model_nats) / error if error else 0.0

    @property
    def misfit(self) -> float:
        """The same of ordinary rows: far from 0, the model itself is off, whatever the batch."""
        error = math.hypot(self.usual_stderr, self.usual_model_stderr)
        return (self.usual_nats - self.usual_model_nats) / error if error else 0.0

    @property
    def drifted(self) -> bool:
        """Whether the batch as a whole or any column differs: in error with probability ``alpha`` at most."""
        return min(self.p_value, self._q_values.min()) <= self.alpha / 2

    @property
    def drifted_columns(self) -> list:
        """Names of the columns that differ: of these a share of ``alpha`` at most in error, on average."""
        return self.columns.index[self._q_values <= self.alpha].tolist()

    @property
    def _q_values(self) -> np.ndarray:
        return self.columns["q_value"].to_numpy(dtype=float)

    def to_frame(self) -> pd.DataFrame:
        """Mean code lengths, one line each for the batch, ordinary rows, and the model's own like either."""
        lines = {
            "batch": (self.n_rows, self.nats, self.stderr),
            "usual": (self.n_usual, self.usual_nats, self.usual_stderr),
            "model, as batch": (self.n_model, self.model_nats, self.model_stderr),
            "model, as usual": (self.n_model, self.usual_model_nats, self.usual_model_stderr),
        }
        return pd.DataFrame.from_dict(lines, orient="index", columns=["rows", "nats", "stderr"])

    def __str__(self) -> str:
        lines = [
            f"{'Drift' if self.drifted else 'No drift'} in {self.n_rows} rows, at the level {self.alpha:g}",
            f"  nats per row: {self.nats:.2f} ± {self.stderr:.2f}, usually {self.usual_nats:.2f} ±"
            f" {self.usual_stderr:.2f} (p = {self.p_value:.2g})",
            f"  from the model's own rows: {self.from_model:+.1f} standard errors, usually {self.misfit:+.1f}",
        ]
        table = self.columns.loc[self.drifted_columns].sort_values("q_value")
        if not len(table):
            return "\n".join([*lines, "  no column differs"])
        lines.append(f"  {len(table)} of {len(self.columns)} columns differ:")
        for name, column in table.iterrows():
            lines.append(
                f"    {name}: {column['nats']:.2f} nats, usually {column['usual']:.2f}"
                f" (q = {column['q_value']:.2g})"
            )
        return "\n".join(lines)


def drift(
    density: DiffusionDensity,
    X: Any,
    usual: pd.DataFrame,
    *,
    reference: Any = None,
    n_model: int = 500,
    alpha: float = 0.05,
    random_state: int | np.random.RandomState | None = 0,
    explain: Explain | None = None,
) -> Drift:
    """Compare a batch of rows with ordinary ones, and both with the model.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)
        The batch.
    usual : DataFrame, shape (n, C), nats
        Shares of ordinary rows that were not trained on, as ``explain`` gives them; rows sum to minus the score. A
        share of exactly 0, or NaN, is that of a missing cell.
    reference : DataFrame or array-like, optional
        Ordinary rows, to compare the values' own distributions with.
    n_model : int
        Rows to draw from the model.
    alpha : float
        The level at which to speak of drift.
    random_state : int, RandomState or None
        Of the rows drawn and the permutations.
    explain : callable, optional
        Gives the nats by column of a table, as those of ``usual`` were found; by default
        :meth:`DiffusionDensity.explain`.

    Returns
    -------
    Drift
        ``print`` it for a summary; its p-values are exact or conservative if rows are independent.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if it is missing from a table or holds what the model cannot take.
    """
    check_integer("n_model", n_model, 2)
    alpha = check_share("alpha", alpha)
    names, explain = density.encoder_.names, explain or density.explain
    shares, ordinary = explain(X).to_numpy(), as_shares(usual, names)
    if len(ordinary) < 2:
        raise ValueError(f"usual must hold at least two rows, got {len(ordinary)}")
    random = check_random_state(random_state)
    nats, usual_nats = shares.sum(1), ordinary.sum(1)
    gone, usual_gone = shares == 0, ordinary == 0
    drawn = pd.DataFrame(density.sample(n_model, random_state=random))
    own = _own_nats(density, explain, drawn, gone, random)
    usual_own = own
    if gone.any() or usual_gone.any():
        usual_own = _own_nats(density, explain, drawn, usual_gone, random)
    lines = []
    codes = (
        None if reference is None else [density.encode(t)[0].cpu().numpy() for t in (X, reference)]
    )
    for j in range(len(names)):
        here, before = shares[~gone[:, j], j], ordinary[~usual_gone[:, j], j]
        line = {
            "nats": _mean(here),
            "usual": _mean(before),
            "p_nats": _same_distribution(here, before),
        }
        if codes is not None:
            kind = density.encoder_.schema[j].kind
            line["p_values"], line["p_missing"] = _same_column(codes[0][:, j], codes[1][:, j], kind)
        lines.append(line)
    table = pd.DataFrame(lines, index=pd.Index(names, name="column"))
    table.insert(2, "shift", table["nats"] - table["usual"])
    tests = table.filter(like="p_")
    table["p_value"] = (tests.min(axis=1) * tests.count(axis=1)).clip(upper=1.0)
    table["q_value"] = stats.false_discovery_control(table["p_value"])
    means = [_mean_and_error(t) for t in (nats, usual_nats, own, usual_own)]
    return Drift(
        len(nats),
        len(usual_nats),
        int(n_model),
        *means[0],
        *means[1],
        _permutation_test(nats, usual_nats, random),
        *means[2],
        *means[3],
        table,
        float(alpha),
    )


def as_shares(usual: pd.DataFrame, names: Sequence[Any]) -> np.ndarray:
    """Shares of ordinary rows as float64, (n, C), 0 where a cell was missing.

    Raises
    ------
    TypeError, ValueError
        If they are no DataFrame, or lack a column.
    """
    if not isinstance(usual, pd.DataFrame):
        raise TypeError(
            f"usual must be a DataFrame, as explain gives it, got {type(usual).__name__}"
        )
    for name in names:
        if name not in usual.columns:
            raise ValueError(f"column {name!r}: usual has no such column")
    return np.nan_to_num(usual[list(names)].to_numpy(dtype=float))


def _own_nats(
    density: DiffusionDensity,
    explain: Explain,
    drawn: pd.DataFrame,
    gone: np.ndarray,
    random: np.random.RandomState,
) -> np.ndarray:
    """Nats of rows drawn from the model that lack the cells which randomly chosen rows of ``gone`` (n, C) lack."""
    lacking = gone[random.randint(len(gone), size=len(drawn))]
    if any(c.indicator for c in density.encoder_.schema):
        lacking &= ~np.array([c.indicator for c in density.encoder_.schema])
    rows = drawn.astype(object).mask(lacking) if lacking.any() else drawn
    return explain(rows).to_numpy().sum(1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, infinite for one number."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return float(values.mean()), error


def _permutation_test(batch: np.ndarray, usual: np.ndarray, random: np.random.RandomState) -> float:
    """That both have one mean: exact at any size and tail, both sides."""
    pooled, n = np.concatenate([batch, usual]), len(batch)
    if min(n, len(usual)) > MANY:
        return float(cast(Any, stats.ttest_ind(batch, usual, equal_var=False)).pvalue)
    total = pooled.sum()

    def distance(sums: Any) -> Any:
        return np.abs(sums / n - (total - sums) / (len(pooled) - n))

    small = min(n, len(pooled) - n)  # the smaller part's sum says the other's
    sums = np.array(
        [pooled[random.permutation(len(pooled))[:small]].sum() for _ in range(N_PERMUTATIONS)]
    )
    if small < n:
        sums = total - sums
    found = distance(batch.sum())
    as_far = np.count_nonzero(distance(sums) >= found - 1e-9 * (1 + found))
    return (1 + as_far) / (1 + N_PERMUTATIONS)


def _same_distribution(a: np.ndarray, b: np.ndarray) -> float:
    """P-value of the test of Kolmogorov and Smirnov; 1 where there is nothing to compare."""
    if not len(a) or not len(b):
        return 1.0
    return float(cast(Any, stats.ks_2samp(a, b, method="asymp")).pvalue)


def _same_column(a: np.ndarray, b: np.ndarray, kind: str) -> tuple[float, float]:
    """P-values of the values and of the rate of missing cells, of a column's codes in two tables."""
    gone = np.isnan(a), np.isnan(b)
    counts = np.array([[g.sum(), (~g).sum()] for g in gone])
    p_missing = (
        math.nan if not counts[:, 0].any() else float(cast(Any, stats.fisher_exact(counts))[1])
    )
    a, b = a[~gone[0]], b[~gone[1]]
    if kind != "nominal":
        return _same_distribution(a, b), p_missing
    if not len(a) or not len(b):
        return 1.0, p_missing
    size = int(max(a.max(), b.max())) + 1
    table = np.array([np.bincount(t.astype(int), minlength=size) for t in (a, b)])
    rare = table.sum(0) * (min(len(a), len(b)) / table.sum()) < FEW
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return 1.0, p_missing
    return float(cast(Any, stats.chi2_contingency(table, correction=False))[1]), p_missing
