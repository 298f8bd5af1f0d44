"""Values that a column of real numbers takes again and again, which draws from its density would only come near."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OFTEN = 20  # occurrences in training at least
MOST = 500  # atoms of a column at most
BOUND = 1 / 32  # share of the rows from which the least or greatest value is taken as a bound
LARGEST = float(np.finfo(float).max)


def find_atoms(values: np.ndarray, whole: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The atoms among the values, shape (N,) with N > 0, and where each begins and ends.

    Edges lie half-way to the next different value. The outermost value, if it is an atom, ends as far out as it
    begins, or, as a bound that many rows reach, where numbers end. Of whole numbers, which draws are rounded to,
    those without a gap beside them are left out.

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
    between = distinct[:-1] / 2 + distinct[1:] / 2
    ends = [-LARGEST, LARGEST]
    if len(between):
        is_bound = counts[[0, -1]] > BOUND * len(values)
        with np.errstate(over="ignore"):
            mirrored = distinct[[0, -1]] + (distinct[[0, -1]] - between[[0, -1]])
        ends = np.where(is_bound, ends, np.clip(mirrored, -LARGEST, LARGEST))
    edges = np.concatenate((ends[:1], between, ends[1:]))
    cells = np.stack((edges[:-1], edges[1:]), 1)
    usable = counts >= OFTEN
    if whole:
        with np.errstate(over="ignore"):
            usable &= (np.abs(cells - distinct[:, None]) > 0.5).any(1)
    places = np.flatnonzero(usable)
    if len(places) > MOST:
        places = np.sort(places[np.argsort(-counts[places], kind="stable")[:MOST]])
    return tuple(distinct[places].tolist()), tuple(cells[places].ravel().tolist())


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
