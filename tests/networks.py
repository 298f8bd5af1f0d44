"""Bayesian networks whose probabilities are known, published ones of pgmpy among them: tables with a truth."""

from __future__ import annotations

import warnings
from graphlib import TopologicalSorter

import numpy as np
import pandas as pd


class BayesianNetwork:
    """Variables with their ``states``, and for each its ``parents`` and the table P(variable | parents).

    A table has one axis for each parent, in the order of ``parents``, and the variable's own states last.
    """

    def __init__(self, states, cpts, parents=None):
        self.states = {name: tuple(values) for name, values in states.items()}
        self.parents = {name: tuple((parents or {}).get(name, ())) for name in states}
        self.variables = tuple(TopologicalSorter(self.parents).static_order())
        self.cpts = {}
        for name in states:
            table = np.array(cpts[name], dtype=float)
            assert table.shape == tuple(len(states[n]) for n in (*self.parents[name], name)), name
            total = table.sum(axis=-1, keepdims=True)
            assert np.abs(total - 1).max() < 2e-3, name  # published tables are rounded
            self.cpts[name] = table / total

    def sample(self, n_samples=1, random_state=None):
        """Independent rows, one ``category`` column for each variable, parents before children."""
        rng = np.random.default_rng(random_state)
        codes, columns = {}, {}
        for name in self.variables:
            given = tuple(codes[parent] for parent in self.parents[name])
            shape = n_samples, len(self.states[name])
            cumulative = np.broadcast_to(self.cpts[name][given].cumsum(axis=-1), shape)
            # divided by its last entry, it ends at 1: a state of probability 0 is never drawn, whatever the rounding
            cumulative = cumulative / cumulative[:, -1:]
            codes[name] = (rng.random((n_samples, 1)) >= cumulative).sum(axis=1)
            columns[name] = pd.Categorical.from_codes(codes[name], list(self.states[name]))
        return pd.DataFrame(columns, index=pd.RangeIndex(n_samples))

    def log_prob(self, X):
        """The exact log-probability of each row, in nats."""
        codes = {n: pd.Index(self.states[n]).get_indexer(X[n].astype(object)) for n in self.states}
        assert all((code >= 0).all() for code in codes.values())
        log_prob = np.zeros(len(X))
        with np.errstate(divide="ignore"):
            for name in self.variables:
                log_prob += np.log(
                    self.cpts[name][*(codes[n] for n in self.parents[name]), codes[name]]
                )
        return log_prob


def load_bayesian_network(name):
    """A published network, from the files that pgmpy has: "alarm", "asia", "child", "insurance", "sachs" and others."""
    from pgmpy.utils import get_example_model

    with warnings.catch_warnings():
        # pgmpy's newer entry point downloads the files; this deprecated one reads the wheel's own
        warnings.simplefilter("ignore", FutureWarning)
        model = get_example_model(name)
    states, parents, cpts = {}, {}, {}
    for cpd in model.get_cpds():
        variable, *given = cpd.variables
        states[variable] = [str(state) for state in cpd.state_names[variable]]
        parents[variable] = given
        cpts[variable] = np.moveaxis(np.asarray(cpd.values, dtype=float), 0, -1)
    return BayesianNetwork(states, cpts, parents)
