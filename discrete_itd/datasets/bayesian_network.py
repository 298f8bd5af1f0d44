r"""Discrete Bayesian networks whose probabilities are known: tables with a ground truth.

.. math:: \log P(x) = \sum_j \log P(x_j \mid x_{\mathrm{pa}(j)})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

# Published tables are rounded to a few decimals; a larger gap is a mistake, not rounding.
_ROUNDING = 2e-3


class BayesianNetwork:
    """A discrete Bayesian network: one conditional probability table per variable.

    Parameters
    ----------
    states : mapping of str to sequence of str
        The variables and, for each, its states.
    cpts : mapping of str to array-like
        For each variable the table P(variable | parents), shape ``(K_1, ..., K_M, K)``: one axis
        per parent, in the order of ``parents``, and the variable's own states last. Sums over the
        last axis may miss 1 by rounding (at most 0.002); they are renormalised.
    parents : mapping of str to sequence of str, optional
        The parents of each variable. A variable that is left out has none.

    Attributes
    ----------
    variables : tuple of str
        The V variables in topological order: parents before children.
    states : dict of str to tuple of str
        The states of each variable.
    parents : dict of str to tuple of str
        The parents of each variable.
    cpts : dict of str to ndarray, float64
        The renormalised tables.

    Raises
    ------
    ValueError
        If the names do not match, a table has the wrong shape or is not a probability, states
        repeat, or the graph has a cycle. The message names the variable.

    Examples
    --------
    >>> import numpy as np
    >>> from discrete_itd.datasets import BayesianNetwork
    >>> network = BayesianNetwork(
    ...     states={"rain": ["no", "yes"], "grass": ["dry", "wet"]},
    ...     parents={"grass": ["rain"]},
    ...     cpts={"rain": [0.8, 0.2], "grass": [[0.9, 0.1], [0.05, 0.95]]},
    ... )
    >>> X = network.sample(3, random_state=0)
    >>> X
      rain grass
    0   no   dry
    1   no   dry
    2   no   wet
    >>> np.exp(network.log_prob(X)).round(2)
    array([0.72, 0.72, 0.08])
    """

    def __init__(
        self,
        states: Mapping[str, Sequence[str]],
        cpts: Mapping[str, ArrayLike],
        parents: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        parents = {} if parents is None else parents
        if not states:
            raise ValueError("states must name at least one variable")
        for given, what in ((cpts, "cpts"), (parents, "parents")):
            for variable in given:
                if variable not in states:
                    raise ValueError(f"{what}: variable {variable!r} is not in states")
        self.states = {variable: tuple(values) for variable, values in states.items()}
        self.parents = {variable: tuple(parents.get(variable, ())) for variable in states}
        for variable, values in self.states.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"variable {variable!r}: states must be distinct, at least one")
            for parent in self.parents[variable]:
                if parent not in states:
                    raise ValueError(f"variable {variable!r}: unknown parent {parent!r}")
            if len(set(self.parents[variable])) != len(self.parents[variable]):
                raise ValueError(f"variable {variable!r}: a parent is listed twice")
        try:
            self.variables = tuple(TopologicalSorter(self.parents).static_order())
        except CycleError as error:
            path = " -> ".join(repr(variable) for variable in error.args[1])
            raise ValueError(f"the parents form a cycle: {path}") from None
        self.cpts = {variable: self._check_cpt(variable, cpts) for variable in states}
        with np.errstate(divide="ignore"):
            self._log_cpts = {variable: np.log(cpt) for variable, cpt in self.cpts.items()}

    def _check_cpt(self, variable: str, cpts: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        if variable not in cpts:
            raise ValueError(f"variable {variable!r}: no table in cpts")
        cpt = np.array(cpts[variable], dtype=np.float64)
        shape = tuple(len(self.states[name]) for name in (*self.parents[variable], variable))
        if cpt.shape != shape:
            raise ValueError(f"variable {variable!r}: table has shape {cpt.shape}, not {shape}")
        if not (np.isfinite(cpt).all() and (cpt >= 0).all()):
            raise ValueError(f"variable {variable!r}: probabilities must be finite and >= 0")
        total = cpt.sum(axis=-1, keepdims=True)
        worst = total.flat[np.abs(total - 1).argmax()]
        if abs(worst - 1) > _ROUNDING:
            raise ValueError(f"variable {variable!r}: probabilities sum to {worst:.6g}, not 1")
        return cpt / total

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.Generator | None = None
    ) -> pd.DataFrame:
        """Draw N = ``n_samples`` independent rows, ancestors first.

        DataFrame (N, V) with one ``category`` column per variable, in topological order. All states are categories,
        also those that were not drawn. An int as ``random_state`` gives the same rows at every call; a ValueError if
        it or ``n_samples`` is negative.
        """
        if n_samples < 0:
            raise ValueError(f"n_samples must be >= 0, got {n_samples}")
        if isinstance(random_state, int | np.integer) and random_state < 0:
            raise ValueError(f"random_state must be >= 0, got {random_state}")
        rng = np.random.default_rng(random_state)
        codes: dict[str, NDArray[np.intp]] = {}
        columns: dict[str, pd.Categorical] = {}
        for variable in self.variables:
            given = tuple(codes[parent] for parent in self.parents[variable])
            cumulative = np.broadcast_to(
                self.cpts[variable][given].cumsum(axis=-1),
                (n_samples, len(self.states[variable])),
            )
            # Divided by its last entry, the sum ends at exactly 1: a state of probability 0 has an
            # empty interval and cannot be drawn, whatever the rounding.
            cumulative = cumulative / cumulative[:, -1:]
            codes[variable] = (rng.random((n_samples, 1)) >= cumulative).sum(axis=1)
            columns[variable] = pd.Categorical.from_codes(
                codes[variable], categories=list(self.states[variable])
            )
        return pd.DataFrame(columns, index=pd.RangeIndex(n_samples))

    def log_prob(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """The exact log-probability of each row, float64 (N,), in nats; -inf for a row of probability zero.

        ``X`` (N, V) has one column per variable, in any order; other columns are ignored. A ValueError if a variable
        has no column, or a cell is missing or is not one of its states.
        """
        codes = {variable: self._encode(X, variable) for variable in self.variables}
        log_prob = np.zeros(len(X))
        for variable in self.variables:
            family = tuple(codes[name] for name in (*self.parents[variable], variable))
            log_prob += self._log_cpts[variable][family]
        return log_prob

    def _encode(self, X: pd.DataFrame, variable: str) -> NDArray[np.intp]:
        """State numbers of one column, shape (N,)."""
        if variable not in X.columns:
            raise ValueError(f"column {variable!r} is missing")
        column = pd.Series(X[variable])
        if column.isna().any():
            raise ValueError(f"column {variable!r}: missing values have no probability")
        codes = pd.Index(self.states[variable], dtype=object).get_indexer(column.astype(object))
        if (codes < 0).any():
            unseen = column.iloc[int((codes < 0).argmax())]
            raise ValueError(f"column {variable!r}: unseen category {unseen!r}")
        return codes
