r"""Numbers that a column takes again and again, which draws from its density would only come near.

Among a few hundred different numbers, one that was never seen is odd wherever it lies: a density does not know this,
for between two values that are seen daily it is as high as at them. The next number is new with probability

.. math:: p = \max\Bigl(0.02, \frac{n_1 + 1/2}{n + 1}\Bigr), \quad (11)

with n training cells of the column, of which :math:`n_1` have a number that no other has. The share :math:`n_1/n` is
Good and Turing's estimate. It is that of rows from where the training rows came from; of others, as of an instrument
that now gives one more digit, a new number says less, so p is not below 0.02. Columns whose numbers do not repeat have
no such code.

References
----------
Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OFTEN = 20  # occurrences in training at least
MOST = 500  # atoms of a column at most
BOUND = 1 / 32  # share of the rows from which the least or greatest value is taken as a bound
NEARBY = (
    0.025  # rows that an atom covers on one side at most, as a share of its own and of that side's
)
LARGEST = float(np.finfo(float).max)
LEAST = 0.02  # probability of a new number
RARE = 0.2  # the probability of a new number, above which a column is not said to repeat


def numbers_seen(values: np.ndarray) -> tuple[tuple[float, ...], float]:
    """The different numbers among values, shape (N,), increasing, and the probability (11) of a new one.

    Nothing and 0 where numbers do not repeat.

    Examples
    --------
    >>> numbers_seen(np.repeat([0.5, 2.0, 3.0], [90, 1, 20])), numbers_seen(np.arange(5.0))
    (((0.5, 2.0, 3.0), 0.02), ((), 0.0))
    """
    distinct, counts = np.unique(values, return_counts=True)
    p = (np.count_nonzero(counts == 1) + 0.5) / (len(values) + 1)
    return (tuple((distinct + 0.0).tolist()), max(float(p), LEAST)) if p < RARE else ((), 0.0)


def nearest(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The number seen (K,), increasing, that is nearest to each of the values (N,); NaN stays NaN.

    Examples
    --------
    >>> nearest(np.array([-1.0, 0.4, 0.6, np.nan]), np.array([0.0, 1.0]))
    array([ 0.,  0.,  1., nan])
    """
    with np.errstate(over="ignore"):
        at = np.searchsorted(seen[:-1] / 2 + seen[1:] / 2, values)
    return np.where(np.isnan(values), np.nan, seen[at])


def rounding(values: np.ndarray) -> np.ndarray:
    """How far from each of the values (N,) another counts as the same number: two float32 roundings, at most 1/4.

    0.1 + 0.2 is 0.3, and a file may keep as float32 what another has as float64; whole numbers stay apart.
    """
    return np.minimum(np.abs(values) * 2.0**-23, 0.25)


def find_atoms(values: np.ndarray, whole: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The atoms among the values, shape (N,) with N > 0, and where each begins and ends.

    An atom reaches half-way to the next different value, or over the few next ones, for there its peak covers them in
    any density that is fitted: its edge is in the middle of the widest gap (of equal ones, the furthest) within reach
    of few rows and of no other atom. The outermost value ends as far out as it begins, or, as a bound that many rows
    reach, where numbers end. Of whole numbers, which draws are rounded to, atoms that cover no gap are left out.

    Returns
    -------
    atoms : tuple of A floats
        Increasing.
    edges : tuple of 2 A floats

    Examples
    --------
    >>> find_atoms(np.repeat([0.0, 0.5, 2.0], [90, 1, 20]), False)[1]
    (-1.7976931348623157e+308, 0.25, 1.25, 1.7976931348623157e+308)
    """
    distinct, counts = np.unique(values, return_counts=True)
    places = np.flatnonzero(counts >= OFTEN)
    if len(places) > MOST:
        places = np.sort(places[np.argsort(-counts[places], kind="stable")[:MOST]])
    if not len(places):
        return (), ()
    with np.errstate(over="ignore"):
        high = _upper_edges(distinct, counts, places)
        low = -_upper_edges(-distinct[::-1], counts[::-1], len(distinct) - 1 - places[::-1])[::-1]
        atoms = distinct[places]
        between = atoms[:-1] / 2 + atoms[1:] / 2
        overlap = high[:-1] > low[1:]
        high[:-1], low[1:] = (np.where(overlap, between, side) for side in (high[:-1], low[1:]))
        if whole:
            wide = np.maximum(atoms - low, high - atoms) > 0.5
            atoms, low, high = atoms[wide], low[wide], high[wide]
    return tuple(atoms.tolist()), tuple(np.stack((low, high), 1).ravel().tolist())


def _upper_edges(distinct: np.ndarray, counts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where each atom ends, of increasing values, how often each occurs and which are atoms."""
    until, n = np.cumsum(counts), len(distinct)
    own, beyond = counts[places], until[-1] - until[places]
    room = until[places] + NEARBY * np.minimum(own, beyond)
    furthest = np.searchsorted(until, room, side="right") - 1  # the last value that it may cover
    furthest = np.minimum(furthest, np.append(places[1:], n) - 1)
    gaps = np.diff(distinct)
    edges = np.full(len(places), LARGEST)
    for i, (k, last) in enumerate(zip(places.tolist(), furthest.tolist(), strict=True)):
        if k < n - 1:
            reach = gaps[k : min(last, n - 2) + 1]
            j = k + len(reach) - 1 - int(np.argmax(reach[::-1]))
            edges[i] = distinct[j] / 2 + distinct[j + 1] / 2
        elif n > 1 and own[i] <= BOUND * until[-1]:
            edges[i] = min(distinct[k] + (distinct[k] / 2 - distinct[k - 1] / 2), LARGEST)
    return edges


def settle(values: np.ndarray, atoms: Sequence[float], edges: Sequence[float]) -> np.ndarray:
    """The values, shape (N,), with those between the edges of an atom replaced by it; NaN stays NaN.

    Examples
    --------
    >>> settle(np.array([-0.1, 0.2, 0.3]), (0.0,), (-0.25, 0.25))
    array([0. , 0. , 0.3])
    """
    if not len(atoms):
        return values
    own = np.searchsorted(edges[1::2], values).clip(max=len(atoms) - 1)
    inside = (np.asarray(edges[::2])[own] <= values) & (values <= np.asarray(edges[1::2])[own])
    return np.where(inside, np.asarray(atoms)[own], values)
