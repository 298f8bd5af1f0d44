"""What one judge says of the cells of a column: the probability of an error, and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from discrete_itd.cells.counts import conditional, share_alone

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]


class Judged(NamedTuple):
    """The probability (N,) that the cells of a column are ``wrong``, and what is ``expected`` in some rows (n,).

    That is codes, their probabilities, and the probabilities (n, L) of bins or None. The probability (n,) of cells is a
    function ``without`` one of the ``columns`` that tell it, -1 for none, and this one may be ``against`` them;
    ``flat`` (N,) is the density of wrong cells, and ``share`` theirs. ``given`` returns the probabilities (N,) of codes
    (N,) in the place of the cells, given the other columns and in this column alone.
    """

    wrong: Floats
    expected: Callable[[Ints], tuple[Ints, Floats, Floats | None]]
    columns: Sequence[int]
    without: Callable[[Ints, int], Floats]
    against: Callable[[Ints, int], Bools]
    flat: Floats
    share: float
    given: Callable[[Ints], tuple[Floats, Floats]]
    is_function: bool = False


def voices(columns: Sequence[int], p: Floats, weights: Floats, alone: Floats) -> tuple[Any, Any]:
    """``without`` and ``against`` of :class:`Judged`, of columns that give probabilities ``p`` (N, E) with weights."""

    def without(rows: Ints, column: int) -> Floats:
        kept = [k for k, i in enumerate(columns) if i != column]
        return p[rows][:, kept] @ weights[kept] / weights[kept].sum() if kept else alone[rows]

    def against(rows: Ints, column: int) -> Bools:
        return (p[:, columns.index(column)] < alone)[rows]

    return without, against


def given_codes(
    codes: Ints, contexts: Sequence[Ints], weights: Floats, unit: Ints, asked: Ints
) -> tuple[Floats, Floats]:
    """``given`` of :class:`Judged`, of ``contexts`` with weights."""
    (alone, _), (base, _) = (share_alone(codes, unit, a) for a in (None, asked))
    parts = [conditional(codes, c, alone, unit, (asked, base))[0] for c in contexts]
    return (np.column_stack(parts) @ weights if parts else base), base


def indicators(codes: Ints, there: Bools) -> sparse.csr_array:
    """One-hot codes (N, K), with zeros in rows that are not there."""
    at = np.flatnonzero(there)
    return sparse.csr_array(
        (np.ones(len(at)), (at, codes[at])), shape=(len(codes), int(codes.max()) + 1)
    )
