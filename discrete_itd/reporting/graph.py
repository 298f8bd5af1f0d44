"""Which columns of a table depend on which."""

from __future__ import annotations

from typing import Any, cast

from sklearn.base import clone

from discrete_itd.encoders import Rows
from discrete_itd.encoders.rows import check_any
from discrete_itd.estimators import DiffusionDensity, Random
from discrete_itd.models.graph import ColumnGraph, column_graph


def find_graph(
    table: Any, density: DiffusionDensity | None = None, *, random_state: Random = None
) -> ColumnGraph:
    """Which columns depend on which: a Bayesian network of categories and numbers, with the nats of each edge.

    The network is found by hill climbing on the rows, whatever the density is; the strength of an edge is
    ``density.mutual_information(parent, child, given=<the child's other parents>)`` over the rows: the nats by which
    the parent improves the prediction of its child.

    Parameters
    ----------
    table : DataFrame, array-like or Rows, shape (N, C)
        The rows whose graph it is; strengths are means over at most 2 000 of them, or over fewer, at least 200, of a
        large model. With ``density.sample(5000)``, the dependences that the model has.
    density : DiffusionDensity, optional
        Fitted; else it is fitted to the table, as is ``DiffusionDensity()`` by default. A "tree" or "bayes_net" takes
        numbers for independent, and gives them no edges.
    random_state : int, RandomState or None, default=None
        Of the fit, unless the density has its own.

    Returns
    -------
    ColumnGraph
        Its ``edges`` are a table; ``to_networkx()``, ``to_dot()`` and :func:`~discrete_itd.plots.plot_graph` draw it.
        Arrows are no causes.

    Raises
    ------
    ValueError, TypeError
        Naming the column or parameter that is invalid.

    Notes
    -----
    An edge needs more nats than its parameters cost by Schwarz's Bayesian criterion, with numbers in five bins, and a
    strength of more than two standard errors: weak dependences in few rows are not found. A missing cell is a level of
    its own in the search; strengths are over rows that have the cells.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50, "c": ["s"] * 50 + ["t"] * 50})
    >>> find_graph(frame, DiffusionDensity(denoiser="tree"), random_state=0).edges.round(2)
      parent child  nats  stderr
    0      b     a  0.69     0.0
    """
    density = DiffusionDensity() if density is None else density
    if not isinstance(density, DiffusionDensity):
        raise TypeError(f"density must be a DiffusionDensity, got {type(density).__name__}")
    if not density.__sklearn_is_fitted__():
        density = cast(DiffusionDensity, clone(density))
        if density.random_state is None:
            density.set_params(random_state=random_state)
        density.fit(table.given if isinstance(table, Rows) else table)
    return column_graph(density.model_, check_any(density.rows(table)), density.n_evaluations)
