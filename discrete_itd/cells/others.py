r"""The judge by other columns: a mixture of conditional distributions given one other column each.

.. math:: p(v \mid c) = \frac{\max(n_{cv} - d, 0)}{n_c} + \frac{d\,t_c}{n_c} p(v)

with :math:`t_c` different values among the :math:`n_c` rows of c, and :math:`p(v)` the share of v.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from discrete_itd.cells.channel import error_share, shares_of_errors
from discrete_itd.cells.counts import (
    OFTEN,
    conditional,
    count_others,
    count_right_new,
    joined_codes,
    share_alone,
    unit_weights,
)
from discrete_itd.cells.judgement import Judged, given_codes, indicators, voices
from discrete_itd.cells.spread import NearFunction
from discrete_itd.cells.views import MOST_CONTEXTS, Aspect, Context

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
# weight of the near functions of other columns from which a column of numbers is one
FUNCTION = 0.95
# rows of a bin of a number or date that may say from where on a column has no values
FEW_ROWS = 8


def by_mixture(
    view: Aspect,
    bins: Aspect,
    others: list[tuple[int, Ints, Floats]],
    parts: list[Ints],
    unit: Ints,
    expected_share: float,
    near: Sequence[NearFunction] = (),
) -> Judged:
    """Cells of a column by a mixture of probabilities (N,) given one other column each, with its codes (N,)."""
    codes = bins.codes
    alone, _ = share_alone(codes, unit)
    by_function = {way.column for way in near}
    others = [other for other in others if other[0] not in by_function]
    gain = np.array([np.log(p / alone).mean() for _, _, p in others])
    found = [others[k] for k in np.argsort(-gain, kind="stable")[:MOST_CONTEXTS] if gain[k] > 0]
    columns, contexts, of = (
        zip(*found, strict=True) if found else ([-1], [np.zeros_like(codes)], [alone])
    )
    p = np.column_stack(of)
    flat = flat_share(bins, unit)
    if bins.log_flat is not None:
        n, density = count_others(view.codes, unit), np.exp(np.minimum(bins.log_flat, 300.0))
        flat = np.where(bins.absent, flat, density)
        # a number of several rows is no outlier
        p = np.maximum(p, ((n >= OFTEN) * n / len(n) * view.n_levels * density)[:, None])
    once, n_wide = unit_weights(view.codes, unit), len(contexts)
    if near:
        columns = [*columns, *(way.column for way in near)]
        p = np.column_stack([p, *(np.where(np.isnan(way.p), alone, way.p) for way in near)])
    wrong, weights = error_share(p, flat, once)
    is_function = weights[n_wide:-1].sum() > FUNCTION
    if is_function:  # without the function a column has the law of wrong cells, not of right ones
        flat = np.maximum(flat, alone)
        wrong, of_function = error_share(p[:, n_wide:], flat, once)
        weights = np.append(1e-9 * weights[:n_wide], of_function)
    shares = shares_of_errors(wrong, np.ones(len(wrong)), parts, expected_share)
    # tails have said of a number far from all others that it is no exception
    is_far = (bins.log_flat is not None) & (not is_function) & share_alone(view.codes, unit)[1]
    wrong = np.where(is_far, wrong, wrong * shares)

    def expected(rows: Ints) -> tuple[Ints, Floats, Floats | None]:
        total = np.zeros((len(rows), int(codes.max()) + 1))
        for c, weight in zip(contexts, weights, strict=False):
            same = indicators(c, np.ones(len(c), bool))
            counts = (same[rows] @ (same.T @ indicators(codes, ~bins.absent))).toarray()
            counts[np.arange(len(rows)), codes[rows]] -= ~bins.absent[rows]
            total += weight * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        level, p = total.argmax(1), total.max(1)
        if bins.middles is None:
            return level, p, None
        code = bins.middles[level]
        if is_function and bins.scaled is not None:
            value = near[int(of_near.argmax())].value[rows]
            order = np.argsort(bins.scaled, kind="stable")[: (~bins.absent).sum()]
            place = np.searchsorted(bins.scaled[order], value)
            nearest = order[np.clip(place, 0, len(order) - 1)]
            code = np.where(np.isnan(value), code, view.codes[nearest])
            p = np.where(np.isnan(value), p, of_near.max())
        return code, p, total

    share, weights = weights[-1], weights[:-1] / weights[:-1].sum()
    of_near = weights[len(contexts) :]
    of_contexts = weights[: len(contexts)] / max(weights[: len(contexts)].sum(), 1e-300)
    given = partial(given_codes, codes, contexts if found else [], of_contexts, unit)
    others_asked = [i for i in columns if i >= 0]
    voice = voices(columns, p, weights, alone)
    return Judged(wrong, expected, others_asked, *voice, flat, share, given, is_function)


def flat_share(view: Aspect, unit: Ints) -> Floats:
    """The probability (N,) of wrong cells: flat over the levels, one for those that no other unit has."""
    is_new = share_alone(view.codes, unit)[1]
    n_excess = is_new.sum() - count_right_new(view.codes, unit)
    return np.where(is_new, 1 + n_excess, 1) / (view.n_levels + 1)


def probability_missing(
    view: Aspect, others: Sequence[Context], unit: Ints
) -> tuple[Floats, Floats]:
    """The probabilities (N,) that rows lack a cell, given the values in other columns, and given their gaps, too.

    Of the ways to explain gaps, by one column or by that which explains most with a second one, each counts by its
    likelihood over all rows. A gap beside gaps alone has the share of the column: they may have been lost together.
    """
    lacks = view.absent.astype(np.int64)
    if not lacks.any():
        return np.zeros(len(lacks)), np.zeros(len(lacks))
    (alone, _), once = share_alone(lacks, unit), unit_weights(lacks, unit)
    of_values, of_all = [alone], [alone]

    def explain(codes: Ints, absent: Bools, base: Floats) -> float:
        p, _ = conditional(lacks, codes, base, unit)
        of_values.append(np.where(absent, alone, p))
        of_all.append(p)
        return float(once @ np.log(of_values[-1]))

    ways = [(o.column, codes, o.bins.absent) for o in others for codes in _scales(o.bins)]
    fits = [explain(codes, absent, alone) for _, codes, absent in ways]
    if ways:
        first, of_first, gaps = ways[best := int(np.argmax(fits))]
        for other in others:
            for codes in _scales(other.bins) if other.column != first else ():
                absent = gaps | other.bins.absent
                explain(joined_codes(of_first, codes), absent, of_all[1 + best])
    mixed = []
    for members in (of_values, of_all):
        shares = np.column_stack(members)
        p = shares @ special.softmax(once @ np.log(shares))
        mixed.append(np.where(view.absent, p, 1 - p))
    return mixed[0], np.maximum(*mixed)


def _scales(bins: Aspect) -> list[Ints]:
    """Codes (N,) of levels, or of wide and of narrow bins of numbers."""
    if bins.scaled is None:
        return [bins.codes]
    _, place, counts = np.unique(bins.scaled, return_inverse=True, return_counts=True)
    return [bins.codes, np.asarray((np.cumsum(counts) - counts / 2) // FEW_ROWS, int)[place]]
