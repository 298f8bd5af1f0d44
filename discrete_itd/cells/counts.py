"""Cells counted among the rows of other units than their own, so that no cell supports itself, and shares by EM."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

OFTEN = 5  # a number in this many rows is no outlier, however far it lies; a value in as many is no typing error
# largest share of a column's cells with a value of no other row: where there are more, such values are no typing errors
# (without it, a third of the cells of clean rayyan and movies are named)
MOST_TYPOS = 0.01
# candidate discounts d, and the pseudo-count of the column's shares; see _conditional
DISCOUNTS, COUNT = (0.3, 0.9), 100.0


def joined_codes(*codes: Ints) -> Ints:
    """Codes of the combinations of several codes (N,) each."""
    out = codes[0]
    for c in codes[1:]:
        out = pd.factorize(out * (int(c.max()) + 1) + c)[0]
    return out


def count_others(codes: Ints, unit: Ints, asked: Ints | None = None) -> Ints:
    """Number (N,) of rows of other units with the codes ``asked`` (N,), by default the row's own."""
    asked = codes if asked is None else asked
    counts = np.bincount(codes, minlength=int(asked.max(initial=0)) + 1)
    if len(unit) == unit.max(initial=-1) + 1:  # each row is its own unit
        return counts[asked] - (codes == asked)
    own = joined_codes(np.tile(unit, 2), np.append(codes, asked))
    of_row = own[len(unit) :]
    return counts[asked] - np.bincount(own[: len(unit)], minlength=int(own.max()) + 1)[of_row]


def unit_weights(codes: Ints, unit: Ints) -> Floats:
    """Weights (N,) of cells: those of a unit count as much as its different values, which it may repeat."""
    first = np.unique(joined_codes(unit, codes), return_index=True)[1]
    return (np.bincount(unit[first]) / np.bincount(unit))[unit]


def share_alone(codes: Ints, unit: Ints, asked: Ints | None = None) -> tuple[Floats, Bools]:
    """The probability (N,) of each cell in its column without its unit, and whether no other unit has its value.

    Or those of the codes ``asked`` (N,) in the place of the cells.
    """
    n, rest = count_others(codes, unit, asked), len(unit) - np.bincount(unit)[unit]
    is_new = n == 0
    share = count_right_new(codes, unit) / len(codes)
    share = min(max(share, 0.5 / len(codes)), 1 - 0.5 / len(codes))
    return np.where(is_new, share, n / np.maximum(rest, 1) * (1 - share)), is_new


def count_right_new(codes: Ints, unit: Ints) -> float:
    """How many right cells have a value that no other unit has, by the numbers of values that many units have.

    The number of values of k units or more falls as a power of k: from ``OFTEN`` on, where errors, hardly ever the
    same, do not change it, that is extrapolated. All are right where they are too many for typing errors.
    """
    n_units = np.bincount(codes[np.unique(joined_codes(unit, codes), return_index=True)[1]])
    n_new = float((n_units[codes] == 1).sum())
    often, more = ((n_units >= k).sum() for k in (OFTEN, 2 * OFTEN))
    if not often or n_new > MOST_TYPOS * len(codes):
        return n_new
    q = (more + 0.5) / (often + 1)
    d = -math.log2(q) + math.sqrt((1 - q) / (q * often)) / math.log(2)  # with a standard error
    return min(n_new, often * OFTEN**d * (1 - 2**-d))


def conditional(
    codes: Ints,
    given: Ints,
    alone: Floats,
    unit: Ints,
    asked: tuple[Ints, Floats] | None = None,
) -> tuple[Floats, Ints]:
    """The probability (N,) of each cell given one other, without its unit, and the number of rows with this one.

    Or that of the codes ``asked`` (N,), which have the given probabilities in the column, in the place of the cells.
    """
    pair = joined_codes(given, codes)
    n, n_pair = count_others(given, unit), count_others(pair, unit)
    first = np.unique(pair, return_index=True)[1]
    own = joined_codes(unit, given)
    once = np.unique(joined_codes(own, pair), return_index=True)[1]
    alone_in = np.bincount(own[once], n_pair[once] == 0)[own]  # values that no other unit has
    n_types = np.bincount(given[first])[given] - alone_in

    def smoothed(discount: float, count: float, n_pair: Ints, alone: Floats) -> Floats:
        p = np.maximum(n_pair - discount, 0) + (discount * n_types + count) * alone
        return np.where(n + count > 0, p / np.maximum(n + count, 1), alone)

    # the last way is for columns of which the other one says little
    ways = [*((d, 0.0) for d in DISCOUNTS), (0.0, COUNT)]
    tried = [smoothed(*way, n_pair, alone) for way in ways]
    best = int(np.argmax([np.log(p).sum() for p in tried]))
    if asked is None:
        return tried[best], n
    both = joined_codes(np.tile(given, 2), np.append(codes, asked[0])).reshape(2, -1)
    return smoothed(*ways[best], count_others(both[0], unit, both[1]), asked[1]), n
