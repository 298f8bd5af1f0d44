"""The odd rows of a table in hand, errors and anomalies among them, by models that did not see them."""

from __future__ import annotations

from typing import Any, cast, overload

import numpy as np
import pandas as pd
from sklearn.base import clone

from discrete_itd.detection.detector import DiffusionOutlierDetector, measure_exceptions
from discrete_itd.detection.out_of_fold import out_of_fold
from discrete_itd.detection.reasons import NO_CELL
from discrete_itd.estimators import Random
from discrete_itd.reading.frames import Polars, as_polars, is_polars
from discrete_itd.validation import check_integer

COLUMNS = ["column", "value", "expected", "expected_probability", "probability_wrong", "sentence"]


@overload
def find_outliers(
    table: Polars,
    detector: DiffusionOutlierDetector | None = ...,
    *,
    n_rows: int | None = ...,
    k: int = ...,
    groups: Any = ...,
    random_state: Random = ...,
) -> Polars: ...


@overload
def find_outliers(
    table: Any,
    detector: DiffusionOutlierDetector | None = ...,
    *,
    n_rows: int | None = ...,
    k: int = ...,
    groups: Any = ...,
    random_state: Random = ...,
) -> pd.DataFrame: ...


def find_outliers(
    table: Any,
    detector: DiffusionOutlierDetector | None = None,
    *,
    n_rows: int | None = 20,
    k: int = 3,
    groups: Any = None,
    random_state: Random = None,
) -> Any:
    """The oddest rows of a table in hand, and the cells to blame; each row by a model that did not see it.

    Parameters
    ----------
    table : DataFrame or array-like, shape (N, C)
        All rows, anomalies and errors among them, as in :meth:`DiffusionOutlierDetector.fit`.
    detector : DiffusionOutlierDetector, optional
        Its settings are used, like ``density``, ``given`` and ``contamination``, but for calibration rows, which are
        not needed; it is not fitted.
    n_rows : int or None, default=20
        Rows to name; all of them with None, which takes some milliseconds more for each.
    k : int, default=3
        Most cells of a row to name: the most suspicious one, and others that are likely wrong.
    groups : array-like of hashable labels, shape (N,), optional
        What each row belongs to, like a customer, or a record that has copies. A row is scored by a model that saw no
        row of its group.
    random_state : int, RandomState or None, default=None
        Of the folds and the fits, unless the detector has its own.

    Returns
    -------
    DataFrame
        One line per cell to blame, the oddest row first: ``row``, its label in the index; its ``score``, in nats, lower
        for odder rows; ``column``, ``value`` and what was ``expected``, with its ``expected_probability`` (of numbers,
        of an interval that the sentence has); ``probability_wrong``, as in :meth:`DiffusionOutlierDetector.reasons`;
        and a ``sentence``. A row of which no cell is suspicious has one line, without a column. Rows with an unreadable
        cell, like "#REF!" in a column of numbers, come first.

    Raises
    ------
    ValueError, TypeError
        Naming the column or parameter that is invalid.

    Notes
    -----
    The rows are divided at random into three folds, and those of each are scored by a detector that was fitted to the
    others: what a row says has no part in its score. That takes about three times as long as one fit of the detector;
    ``max_time`` of its density bounds the whole.

    Ranks are no p-values: a hundredth of the rows has the lowest hundredth of the scores in any table. How many of them
    are errors has to be checked, or follows from a detector that was fitted to checked rows.

    Examples
    --------
    >>> town, code, area = ["Bonn", "Köln", "Ulm"] * 20, [53, 50, 89] * 20, ["0228", "0221", "0731"] * 20
    >>> table = pd.DataFrame({"town": town, "code": code, "area": area})
    >>> table.loc[7, "town"] = "Ulm"
    >>> quick = DiffusionOutlierDetector(denoiser="bayes_net")
    >>> find_outliers(table, quick, n_rows=1, k=1, random_state=0)[["row", "column", "value", "expected"]]
       row column value expected
    0    7   town   Ulm     Köln
    """
    own = cast(DiffusionOutlierDetector, clone(detector or DiffusionOutlierDetector()))
    if own.random_state is None:
        own.set_params(random_state=random_state)
    check_integer("k", k, 1)
    if n_rows is not None:
        check_integer("n_rows", n_rows, 1)
    folds = out_of_fold(own, table, groups)
    parts, cells = [], []
    for fold in folds:
        part = {"at": fold.at, "row": fold.rows.index, "score": fold.scores}
        parts.append(pd.DataFrame(part).assign(is_readable=~fold.rows.is_unreadable))
    found = pd.concat(parts).sort_values(["is_readable", "score", "at"])[:n_rows]
    for fold in folds:
        named = np.isin(fold.at, found["at"])
        if named.any():
            rows = fold.rows.take(named).labelled(fold.at[named])
            measure_exceptions(fold.detector, fold.rows)
            lines = fold.detector.reasons(rows, k=k).rename(columns={"row": "at"})
            cells.append(lines[["at", *COLUMNS]])
    found = found.merge(pd.concat(cells), "left", "at").drop(columns=["at", "is_readable"])
    found["sentence"] = found["sentence"].fillna(NO_CELL)
    return as_polars(found) if is_polars(table) else found
