"""Every cell of a table against the others of its row: what reasons choose from, for tests and benchmarks."""

from typing import Any, NamedTuple

import numpy as np
import torch

from discrete_itd.detection import cell_predictions
from discrete_itd.detection.score import scorer_of
from discrete_itd.likelihood import conditional
from discrete_itd.likelihood.conditional import FINE, ConditionalDenoiser


class CellNats(NamedTuple):
    """Tables of shape (N, C) with index and columns of the rows, or arrays, nats.

    ``given_others`` is the surprisal of each cell given all others of its row, ``entropy`` its expectation, 0 where the
    cell is missing; ``error_log_odds`` are those of an error that is no slip, ``wrong`` and ``exceptional`` the
    log-probabilities of the cell as a wrong one and as an exception.
    """

    given_others: Any
    entropy: Any
    error_log_odds: Any
    wrong: Any
    exceptional: Any


@torch.no_grad()
def assess(scorer, x):
    """Of encoded rows (N, C'), by the scores themselves where the model enumerates: float64 arrays (N, C)."""
    shape = len(x), len(scorer.schema)
    out = CellNats(*np.zeros((5, *shape)))
    how = {"nodes": FINE} if isinstance(scorer.model.conditional, ConditionalDenoiser) else {}
    for batch in cell_predictions._batches(scorer, x, "cells"):
        rows = x[batch]
        has_cell = ~cell_predictions.without_cell(scorer, rows)
        asked = has_cell[:, cell_predictions._owner(scorer, rows)]
        q = conditional.given_others(scorer.model.conditional, rows, asked, **how)
        log_p = cell_predictions.log_probs(scorer, q, rows, asked)
        entropy = torch.zeros(*has_cell.shape).double()
        cells = torch.nonzero(has_cell).unbind(1)
        entropy[has_cell] = cell_predictions.entropies(scorer, q, *cells)
        log_f = cell_predictions.log_flat(scorer, rows)
        log_e = cell_predictions.log_exceptions(scorer, rows, log_f, log_p)
        nothing = torch.full_like(log_p, -np.inf)
        wrong = cell_predictions.log_wrong(scorer, log_p, log_f, nothing)
        odds = (wrong - torch.logaddexp(log_p, log_e)).masked_fill(~has_cell, -np.inf)
        for table, part in zip(out, (-log_p, entropy, odds, wrong, log_e), strict=True):
            table[batch.cpu().numpy()] = part.cpu().numpy()
    return out


def cell_nats(model, X):
    """Of the rows of a table, in the unit of its columns, as log-probabilities are."""
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    given, entropy, *odds = (t[rows.inverse] for t in assess(scorer, rows.unique))
    for j, column in enumerate(scorer.schema):
        volume = rows.log_volume[:, j]
        if column.kind == "continuous":
            volume = volume + column.codec.new_nats(rows.cells[:, j])
            entropy[:, j] -= volume
        given[:, j] -= volume
    return CellNats(*map(rows.table, (given, entropy, *odds)))
