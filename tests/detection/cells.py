"""Every cell of a table against the others of its row: what reasons choose from, for tests and benchmarks."""

from typing import Any, NamedTuple

import numpy as np
import torch

from discrete_itd.detection import cell_predictions as own
from discrete_itd.detection.score import scorer_of
from discrete_itd.likelihood import conditional
from discrete_itd.likelihood.conditional import FINE, ConditionalDenoiser


class CellNats(NamedTuple):
    """Tables of shape (N, C) with index and columns of the rows, or arrays, nats.

    ``given_others`` is the surprisal of each cell given all others of its row, ``entropy`` its expectation, 0 where the
    cell is missing; ``error_log_odds`` are those of an error.
    """

    given_others: Any
    entropy: Any
    error_log_odds: Any


@torch.no_grad()
def assess(scorer, x):
    """Of encoded rows (N, C'), by the scores themselves where the model enumerates: float64 arrays (N, C)."""
    out = CellNats(*np.zeros((3, len(x), len(scorer.schema))))
    how = {"nodes": FINE} if isinstance(scorer.model.conditional, ConditionalDenoiser) else {}
    for batch in own._batches(scorer, x, "cells"):
        rows = x[batch]
        there = ~own.without_cell(scorer, rows)
        asked = there[:, own._owner(scorer, rows)]
        q = conditional.given_others(scorer.model.conditional, rows, asked, **how)
        log_p, entropy = own.log_probs(scorer, q, rows), torch.zeros(*there.shape).double()
        entropy[there] = own.entropies(scorer, q, *torch.nonzero(there).unbind(1))
        odds = own.error_log_odds(log_p, own.log_flat(scorer, rows), own.share_of_wrong(scorer))
        found = -log_p, entropy, odds.masked_fill(~there, -np.inf)
        for every_one, part in zip(out, found, strict=True):
            every_one[batch.cpu().numpy()] = part.cpu().numpy()
    return out


def cell_nats(model, X):
    """Of the rows of a table, in the unit of its columns, as log-probabilities are."""
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    given, entropy, odds = (t[rows.inverse] for t in assess(scorer, rows.unique))
    for j, column in enumerate(scorer.schema):
        volume = rows.log_volume[:, j]
        if column.kind == "continuous":
            volume = volume + column.codec.new_nats(rows.cells[:, j])
            entropy[:, j] -= volume
        given[:, j] -= volume
    return CellNats(*map(rows.table, (given, entropy, odds)))
