r"""The judge by other columns: a mixture of conditional distributions given one other column each.

.. math:: p(v \mid c) = \frac{\max(n_{cv} - d, 0)}{n_c} + \frac{d\,t_c}{n_c} p(v)

with :math:`t_c` different values among the :math:`n_c` rows of c, and :math:`p(v)` the share of v.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from discrete_itd.cells.channel import error_share, shares_of_errors
from discrete_itd.cells.counts import (
    OFTEN,
    count_others,
    count_right_new,
    share_alone,
    unit_weights,
)
from discrete_itd.cells.judgement import Judged, given_codes, indicators, voices
from discrete_itd.cells.views import MOST_CONTEXTS, Aspect

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]


def by_mixture(
    view: Aspect,
    bins: Aspect,
    others: list[tuple[int, Ints, Floats]],
    parts: list[Ints],
    unit: Ints,
    expected_share: float,
) -> Judged:
    """Cells of a column by a mixture of probabilities (N,) given one other column each, with its codes (N,)."""
    codes = bins.codes
    alone, _ = share_alone(codes, unit)
    gain = np.array([np.log(p / alone).mean() for _, _, p in others])
    found = [others[k] for k in np.argsort(-gain, kind="stable")[:MOST_CONTEXTS] if gain[k] > 0]
    columns, contexts, of = (
        zip(*found, strict=True) if found else ([], [np.zeros_like(codes)], [alone])
    )
    p = np.column_stack(of)
    flat = flat_share(bins, unit)
    if bins.log_flat is not None:
        n, density = count_others(view.codes, unit), np.exp(np.minimum(bins.log_flat, 300.0))
        flat = np.where(bins.absent, flat, density)
        # a number of several rows is no outlier
        p = np.maximum(p, ((n >= OFTEN) * n / len(n) * view.n_levels * density)[:, None])
    wrong, weights = error_share(p, flat, unit_weights(view.codes, unit))
    shares = shares_of_errors(wrong, np.ones(len(wrong)), parts, expected_share)
    # tails have said of a number far from all others that it is no exception
    is_far = (bins.log_flat is not None) & share_alone(view.codes, unit)[1]
    wrong = np.where(is_far, wrong, wrong * shares)

    def expected(rows: Ints) -> tuple[Ints, Floats, Floats | None]:
        total = np.zeros((len(rows), int(codes.max()) + 1))
        for c, weight in zip(contexts, weights, strict=False):
            same = indicators(c, np.ones(len(c), bool))
            counts = (same[rows] @ (same.T @ indicators(codes, ~bins.absent))).toarray()
            counts[np.arange(len(rows)), codes[rows]] -= ~bins.absent[rows]
            total += weight * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        level, p = total.argmax(1), total.max(1)
        return (level, p, None) if bins.middles is None else (bins.middles[level], p, total)

    share, weights = weights[-1], weights[:-1] / weights[:-1].sum()
    given = partial(given_codes, codes, contexts if columns else [], weights, unit)
    return Judged(wrong, expected, columns, *voices(columns, p, weights, alone), flat, share, given)


def flat_share(view: Aspect, unit: Ints) -> Floats:
    """The probability (N,) of wrong cells: flat over the levels, one for those that no other unit has."""
    is_new = share_alone(view.codes, unit)[1]
    n_excess = is_new.sum() - count_right_new(view.codes, unit)
    return np.where(is_new, 1 + n_excess, 1) / (view.n_levels + 1)
