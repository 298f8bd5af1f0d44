"""Whether a new batch of rows is what the model was calibrated on, and whether either is what the model believes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils import check_random_state

from discrete_itd.detection.two_samples import permutation_test, same_column, same_distribution
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.validation import check_integer, check_share

DECIMALS = 4  # of nats that are compared: beyond, equal rows of two tables need not agree


Explain = Callable[[Any], pd.DataFrame]


@dataclass(frozen=True)
class Drift:
    r"""How a batch of rows differs from ordinary ones, and these from what the model believes.

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
        Of a permutation test that the code lengths of the batch and of ordinary rows have one mean: by Monte Carlo and
        exact, 1 / 2000 at least; asymptotic if both are of more than 100 000 rows.
    model_nats, model_stderr : float
        Of rows drawn from the model, with cells missing as in the batch.
    usual_model_nats, usual_model_stderr : float
        The same with cells missing as in ordinary rows.
    columns : DataFrame, indexed by column
        ``nats``, ``usual`` and ``shift``: mean shares of the column and their difference; ``p_nats``, of a test of
        Kolmogorov and Smirnov that its shares, to 0.0001 nats, have one distribution; with a reference table
        ``p_values`` and ``p_missing``, of the values' own distribution (numbers: Kolmogorov and Smirnov; categories:
        chi-square by Monte Carlo together with exact tests of single categories) and the rate of missing cells
        (Fisher's exact test; NaN where none is missing); ``p_value``, the smallest of these times their number, at
        most 1; ``q_value``, adjusted for the number of columns after Benjamini and Hochberg.
    alpha : float
        The level at which to speak of drift.

    Notes
    -----
    If the rows of the batch, the ordinary rows and those of the reference are independent draws of one distribution,
    and neither the model nor its encoder has seen any of them, then every p-value here, also that of a column, is at
    most a with probability a at most: for batches of any size, with any ties, whatever the model. Asymptotic are only
    the tests of Kolmogorov and Smirnov of samples that make more than 10 000 together, both of 1000 or more, and the
    permutation test above 100 000 rows. Details are in
    :mod:`discrete_itd.detection.two_samples`.

    The p-values of different columns depend on one another. The procedure of Benjamini and Hochberg then keeps its
    promise if the dependence is positive (Benjamini & Yekutieli 2001); whatever the dependence, it errs at most
    :math:`1 + 1/2 + \dots + 1/C` times as often.

    References
    ----------
    Benjamini & Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 1995.
    Benjamini & Yekutieli, "The control of the false discovery rate in multiple testing under dependency", Annals of
    Statistics 2001.
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
        """Whether the batch as a whole or any column differs, each at the level ``alpha / 2``.

        If nothing differs this is in error with probability ``alpha`` at most, where the columns' p-values are
        independent or positively dependent (see the notes of the class).
        """
        return differs(self.p_value, self._q_values, self.alpha)

    @property
    def drifted_columns(self) -> list:
        """Names of the columns that differ at the level ``alpha``, whatever ``drifted`` says.

        Of these a share of ``alpha`` at most is in error, on average over batches, under the same conditions.
        """
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
        Ordinary rows that were not trained on, to compare the values' own distributions with.
    n_model : int
        Rows to draw from the model.
    alpha : float
        The level at which to speak of drift.
    random_state : int, RandomState or None
        Of the rows drawn, the permutations and the tables drawn: an integer gives the same p-values again.
    explain : callable, optional
        Gives the nats by column of a table, as those of ``usual`` were found; by default
        :meth:`DiffusionDensity.explain`.

    Returns
    -------
    Drift
        ``print`` it for a summary; see there for when its p-values are exact, and what they promise.

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
    codes = kinds = None
    if reference is not None:
        codes = [density.rows(t).x.cpu().numpy() for t in (X, reference)]
        kinds = [c.kind for c in density.encoder_.schema]
    p_value, table = compare(shares, ordinary, names, random, codes=codes, kinds=kinds)
    means = [_mean_and_error(t) for t in (nats, usual_nats, own, usual_own)]
    return Drift(
        len(nats),
        len(usual_nats),
        int(n_model),
        *means[0],
        *means[1],
        p_value,
        *means[2],
        *means[3],
        table,
        float(alpha),
    )


def compare(
    shares: np.ndarray,
    ordinary: np.ndarray,
    names: Sequence[Any],
    random: np.random.RandomState,
    *,
    codes: Sequence[np.ndarray] | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[float, pd.DataFrame]:
    """The tests of :class:`Drift`, which need no model.

    Parameters
    ----------
    shares, ordinary : ndarray, shapes (N, C) and (n, C)
        Nats by column of the batch and of ordinary rows, exactly 0 where a cell is missing.
    names : sequence, of length C
        Of the columns.
    random : RandomState
    codes : pair of ndarrays, shapes (N, C) and (n', C), optional
        The values of the batch and of the reference, NaN where missing.
    kinds : sequence of str, of length C
        Of the columns, if there are codes.

    Returns
    -------
    float, DataFrame
        ``p_value`` and ``columns`` of :class:`Drift`.
    """
    nats, usual_nats = (t.sum(1).round(DECIMALS) for t in (shares, ordinary))
    p_value = permutation_test(nats, usual_nats, random)
    seed = random.randint(2**32, size=8, dtype=np.uint32)
    generators = np.random.default_rng(seed).spawn(len(names))  # one column's draws move no other's
    lines = []
    for j, generator in enumerate(generators):
        here, before = (t[t[:, j] != 0, j] for t in (shares, ordinary))
        line = {
            "nats": _mean(here),
            "usual": _mean(before),
            "p_nats": same_distribution(here.round(DECIMALS), before.round(DECIMALS)),
        }
        if codes is not None and kinds is not None:
            line["p_values"], line["p_missing"] = same_column(
                codes[0][:, j], codes[1][:, j], kinds[j], generator
            )
        lines.append(line)
    table = pd.DataFrame(lines, index=pd.Index(names, name="column"))
    table.insert(2, "shift", table["nats"] - table["usual"])
    tests = table.filter(like="p_")
    table["p_value"] = (tests.min(axis=1) * tests.count(axis=1)).clip(upper=1.0)
    table["q_value"] = stats.false_discovery_control(table["p_value"])
    return p_value, table


def differs(p_value: float, q_values: np.ndarray, alpha: float) -> bool:
    """The verdict of :attr:`Drift.drifted`: half the level for the whole, half for all columns (Bonferroni)."""
    return bool(min(p_value, q_values.min()) <= alpha / 2)


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
