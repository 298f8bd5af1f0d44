"""Which rows of a table are held out of a fit, or of the training of a detector: at random, groups of rows as a whole.

Rows are treated as independent draws: held-out rows repeat training rows as often as new rows do. Where several rows
belong to one customer or are copies of one record, held-out rows would be too similar to training rows. A table does
not show this; ``groups``, labels of the rows, say it. They are divided, all of equal probability whatever their sizes.
If groups are exchangeable (independent draws of customers, say), then the held-out ones and a new one are, too.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def check_groups(groups: Any, n_rows: int) -> Ints | None:
    """Numbers for the labels of rows, int64 of shape (N,), equal for equal labels; None if there are none.

    TypeError if they are not a sequence, or one is not hashable; ValueError if they are not one for every row, or all
    are equal.
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
    if not numbers.any():
        raise ValueError("all rows are of one group; at least two are needed")
    return numbers.astype(np.int64)


def hold_out(n_rows: int, units: Ints | None, n_held: int, seed: int) -> tuple[Ints, Ints]:
    """Positions of the rows of ``n_held`` groups, and of the other rows, in random order.

    Every choice of groups is equally likely. ``units`` (n_rows,) has the group of each row; by default its own.
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
    """Number of groups to divide."""
    return n_rows if units is None else len(np.unique(units))


def one_of_each(held: Ints, units: Ints | None) -> Ints:
    """One position of each group among positions in random order, in the order of the table."""
    if units is not None:
        held = held[np.unique(units[held], return_index=True)[1]]
    return np.sort(held)
