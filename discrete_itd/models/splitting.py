r"""Which rows to hold out: what belongs together stays on one side of the division.

Rows are taken for independent draws, so that a row is as likely to be held out as any other, also one that is equal to
others. What new rows repeat of the training rows, held-out rows then repeat as often. Where rows are not independent,
because several are of one customer or copies of one record, held-out rows would be too much like training rows. A table
does not show this: draws from a few patterns, and copies of as many records, may be the same rows. It has to be said:

* With ``groups``, labels of the rows, groups are divided, all of equal probability whatever their sizes.
* With ``sample_weight``, each row that was given is a group of copies, unless ``groups`` unites several.

If groups are exchangeable (independent draws of customers, say), then the held-out ones and a new one are, too.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discrete_itd.validation import check_weights

Ints = NDArray[np.int64]


def occurring(sample_weight: Any, groups: Any, n_rows: int) -> tuple[Ints | None, Ints | None]:
    """Which rows there are, as often as their weights say, and what is divided.

    Parameters
    ----------
    sample_weight : array-like of int, shape (N,), optional
    groups : array-like of hashable labels, shape (N,), optional
    n_rows : int
        N.

    Returns
    -------
    rows : ndarray of int64, shape (M,), or None
        Positions of the rows, each repeated by its weight; None without weights.
    units : ndarray of int64, shape (M,), or None
        The number of the group that each of these belongs to; None if each row is one by itself.

    Raises
    ------
    ValueError, TypeError
        If weights or labels are not valid, or leave less than two groups.
    """
    repeats, labels = check_weights(sample_weight, n_rows), check_groups(groups, n_rows)
    units = labels
    if repeats is None:
        rows = None
    else:
        rows = np.repeat(np.arange(n_rows), repeats)
        units = rows if labels is None else labels[rows]
    if units is not None and (units == units[0]).all():
        what = "sample_weight leaves" if labels is None else "all rows are of"
        raise ValueError(
            f"{what} one {'row' if labels is None else 'group'}; at least two are needed"
        )
    return rows, units


def check_groups(groups: Any, n_rows: int) -> Ints | None:
    """Numbers for the labels of rows, int64 of shape (N,), the same for equal labels; None if there are none.

    Raises
    ------
    TypeError
        If they are no sequence, or a label is not hashable.
    ValueError
        If they are not one for every row, or a label is missing.
    """
    if groups is None:
        return None
    if isinstance(groups, str | bytes | Mapping | Set) or not isinstance(groups, Collection):
        raise TypeError(f"groups must hold a label for each row, got {groups!r}")
    shape = getattr(groups, "shape", (len(groups),))
    if tuple(shape) != (n_rows,):
        raise ValueError(f"groups.shape == {tuple(shape)}, expected {(n_rows,)}: one for every row")
    labels = np.empty(n_rows, dtype=object)
    labels[:] = list(groups)  # a label may be a tuple
    for i, label in enumerate(labels):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"groups: the label of row {i} is a {type(label).__name__}, not hashable"
            )
    numbers = pd.factorize(labels)[0]
    if (numbers < 0).any():
        i = int((numbers < 0).argmax())
        raise ValueError(f"groups: row {i} has no label, but {labels[i]!r}")
    return numbers.astype(np.int64)


def hold_out(n_rows: int, units: Ints | None, n_held: int, seed: int) -> tuple[Ints, Ints]:
    """Divide rows at random into held-out and training rows.

    Parameters
    ----------
    n_rows : int
    units : ndarray of int, shape (n_rows,), optional
        The group of each row; by default each is one by itself.
    n_held : int
        Groups to hold out.
    seed : int

    Returns
    -------
    held, rest : ndarray of int64
        Positions, in random order. Every choice of ``n_held`` groups is equally likely.
    """
    random = np.random.RandomState(seed)
    order = random.permutation(n_rows)
    numbers = None if units is None else np.unique(units, return_inverse=True)[1]
    if numbers is None or numbers.max() + 1 == n_rows:
        return order[:n_held], order[n_held:]
    chosen = random.permutation(numbers.max() + 1)[:n_held]
    held = np.isin(numbers, chosen)[order]
    return order[held], order[~held]


def count_units(n_rows: int, units: Ints | None) -> int:
    """How many groups there are to divide."""
    return n_rows if units is None else len(np.unique(units))


def one_of_each(held: Ints, units: Ints | None) -> Ints:
    """Of positions in random order one of each group, in the order of the table: each of its rows equally likely."""
    if units is not None:
        held = held[np.unique(units[held], return_index=True)[1]]
    return np.sort(held)
