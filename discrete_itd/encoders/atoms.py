"""Values that a column of real numbers takes again and again, which draws from its density would only come near."""

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
