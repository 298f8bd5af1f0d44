"""A copy of a table in which expected values that are nearly certain stand in the place of wrong cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discrete_itd.cells.errors import dense, find_errors
from discrete_itd.models.held_out import check_groups
from discrete_itd.reading.frames import as_polars, is_polars, read_rows

SURE = 0.9  # least probability that a cell is wrong, and that its expected value is right, of a cell that is repaired


class Repaired(NamedTuple):
    """A ``table`` with repaired cells, and the ``cells`` that were named, with their old values."""

    table: Any
    cells: Any


def repair_errors(
    table: Any,
    *,
    columns: Any = None,
    min_probability: float = 0.5,
    groups: Any = None,
    expected_share: float | None = None,
) -> Repaired:
    """Repair the wrong cells of a table whose expected values are nearly certain; name all for review.

    A cell is repaired if it is wrong with a probability of .9 or more, and its expected value is right with .9 or more.

    Parameters
    ----------
    table : DataFrame or array-like, shape (N, C)
        It is not changed.
    columns, min_probability, groups, expected_share
        See :func:`find_errors`; ``min_probability`` says which cells are named.

    Returns
    -------
    Repaired
        The repaired ``table``, a frame with the index and the dtypes of the given one, and the ``cells`` of
        :func:`find_errors` with one more column, ``repaired``: False for those to review.

    Raises
    ------
    ValueError, TypeError
        Naming the column or parameter that is invalid.

    Notes
    -----
    A repair may change what is expected of other cells. Cells that the repaired table would have repaired again are
    left as they were: no call changes what the call before it repaired. That takes a second search for errors if any
    are repaired. A value that the dtype of its column does not hold, like a missing one among integers, is left, too.

    Examples
    --------
    >>> import pandas as pd
    >>> town, code, area = ["Bonn", "Köln", "Ulm"] * 40, [53, 50, 89] * 40, ["0228", "0221", "0731"] * 40
    >>> table = pd.DataFrame({"town": town, "code": code, "area": area})
    >>> table.loc[7, "town"] = "Ulm"
    >>> repaired, cells = repair_errors(table)
    >>> repaired.at[7, "town"], cells["repaired"].tolist()
    ('Köln', [True])
    """
    frame, _ = read_rows(table, repair_errors)
    settings: dict[str, Any] = {
        "columns": columns,
        "groups": check_groups(groups, len(frame)),
        "expected_share": expected_share,
    }
    numbered = frame.reset_index(drop=True)
    cells: pd.DataFrame = find_errors(numbered, min_probability=min_probability, **settings)
    mended, done = _mended(numbered, cells, is_sure(cells))
    while done.any():
        again: pd.DataFrame = find_errors(mended, min_probability=SURE, **settings)
        places = {*zip(again["row"][is_sure(again)], again["column"][is_sure(again)], strict=True)}
        of_lines = zip(cells["row"], cells["column"], strict=True)
        is_unstable = done & np.array([place in places for place in of_lines])
        if not is_unstable.any():
            break
        mended, done = _mended(numbered, cells, done & ~is_unstable)
    cells = cells.assign(row=frame.index[cells["row"].to_numpy(int)], repaired=done)
    mended.index = frame.index
    return Repaired(*(map(as_polars, (mended, cells)) if is_polars(table) else (mended, cells)))


def is_sure(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Which of the cells that :func:`find_errors` names are to be repaired."""
    probabilities = cells[["probability_wrong", "expected_probability"]].to_numpy()
    return np.all(probabilities >= SURE, axis=1)


def _mended(
    frame: pd.DataFrame, cells: pd.DataFrame, chosen: NDArray[np.bool_]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """A copy with the expected values of the ``chosen`` cells (L,), and those of them that their dtypes hold (L,)."""
    mended, done = frame.copy(), chosen.copy()
    position_of = {name: j for j, name in enumerate(frame.columns)}
    column_of_line = np.array([position_of[name] for name in cells["column"]], dtype=int)
    for j in np.unique(column_of_line[chosen]):
        column = frame.iloc[:, j]
        new = dense(column).copy()
        for line in np.flatnonzero(chosen & (column_of_line == j)):
            expected = cells["expected"].iat[line]
            try:
                cell = pd.Series([expected], dtype=new.dtype)
                done[line] = bool(cell.isna()[0]) == bool(pd.isna(expected))
            except (TypeError, ValueError, OverflowError):
                done[line] = False
            if done[line]:
                new.iloc[[cells["row"].iat[line]]] = cell.array
        mended.isetitem(j, new.astype(column.dtype))
    return mended, done
