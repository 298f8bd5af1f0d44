"""Every cell of a table against the others of its row: what reasons choose from, for tests and benchmarks."""

from typing import Any, NamedTuple

import numpy as np
import torch

from discrete_itd.detection import cell_predictions as own
from discrete_itd.detection.cell_predictions import Cell, Odds, given_others, log_probs_alone
from discrete_itd.detection.score import scorer_of


class CellNats(NamedTuple):
    """Tables of shape (N, C) with index and columns of the rows, or arrays, nats.

    ``given_others`` is the surprisal of each cell given all others of its row, ``entropy`` its expectation,
    ``marginal`` the surprisal under the column's marginal, all 0 where the cell is missing; ``error_log_odds`` are
    those of ``Odds``.
    """

    given_others: Any
    entropy: Any
    marginal: Any
    error_log_odds: Any


@torch.no_grad()
def assess(scorer, x):
    """Of encoded rows (N, C'), without the change of unit of continuous columns: float64 arrays (N, C)."""
    out = CellNats(*np.zeros((4, len(x), len(scorer.schema))))
    for batch in own._batches(scorer, x, "cells", x.shape[1]):
        rows = x[batch]
        columns = torch.arange(len(scorer.schema), device=x.device).expand(len(rows), -1)
        there = ~rows[:, : columns.shape[1]].isnan() | (own._indicators(scorer, x.device) >= 0)
        q = given_others(scorer, rows, own._asked(scorer, rows, columns, there))
        log_p = own._by_column(scorer, q.log_prob(rows).double())
        entropy = torch.zeros_like(log_p)
        for j in range(columns.shape[1]):
            some = torch.nonzero(there[:, j]).flatten()
            if len(some):
                entropy[some, j] = Cell.of(scorer, q, j, some).entropy().to(rows)
        marginal = own._by_column(scorer, log_probs_alone(scorer.marginals, rows)[0])
        found = -log_p, entropy, -marginal, Odds(scorer, rows)(log_p, columns)
        for every, part in zip(out, found, strict=True):
            every[batch.cpu().numpy()] = part.cpu().numpy()
    return out


def cell_nats(model, X):
    """Of the rows of a table, in the units of its columns."""
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    given, entropy, marginal, log_odds = (t[rows.inverse] for t in assess(scorer, rows.unique))
    log_volume = rows.log_volume[:, : rows.encoder.n_columns]
    tables = (given - log_volume, entropy, marginal - log_volume, log_odds)
    return CellNats(*map(rows.table, tables))
