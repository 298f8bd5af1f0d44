"""Parts of points in time as columns of categories: the hour, the weekday and the month of a date.

Wherever columns are named, "date.weekday" is the weekday of the column "date": in ``given`` of a detector, or as a key
of ``column_types``. The parts of a column stand for it: the model has them in its place, as a date after all those of
training would be an anomaly whatever its weekday.

| part    | kind    | categories                                |
|---------|---------|-------------------------------------------|
| hour    | ordinal | 0 to 23                                   |
| weekday | nominal | Monday to Sunday, closed to other values  |
| month   | ordinal | January to December                       |

They are those of the clock and calendar in the time zone of the training table's column; of one without a time zone,
and of text, times are taken as they are, and those with an offset in UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.column import Column
from discrete_itd.encoders.dtypes import as_numbers, time_zone

DTYPES = {
    "hour": pd.CategoricalDtype(range(24), ordered=True),
    "weekday": pd.CategoricalDtype(
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    ),
    "month": pd.CategoricalDtype(
        [
            *("January", "February", "March", "April", "May", "June", "July"),
            *("August", "September", "October", "November", "December"),
        ],
        ordered=True,
    ),
}


def source_of(name: Hashable, names: Collection[Any]) -> str | None:
    """The one of the columns ``names`` whose part a name like "date.weekday" is; None if it is a column or no part.

    Examples
    --------
    >>> source_of("date.weekday", ["date", "shop"]), source_of("date.era", ["date"])
    ('date', None)
    """
    source, _, part = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    return source if part in DTYPES and source in names and name not in names else None


def with_parts(
    names: Collection[Any], given: Collection[Any]
) -> tuple[list[Hashable], list[Hashable]]:
    """The columns whose parts are ``given``, and these parts, each once and in order."""
    parts = [name for name in dict.fromkeys(given) if source_of(name, names) is not None]
    return list(dict.fromkeys(source_of(name, names) for name in parts)), parts


def read_part(name: str, time: Column, values: Any) -> pd.Series:
    """The part ``name`` of points in time: of cells of the column ``time``, as they are in a table or as plain values.

    A ValueError names the column, if a cell is no point in time.

    Examples
    --------
    >>> import numpy as np
    >>> from discrete_itd.encoders import TableEncoder
    >>> dates = pd.DataFrame({"date": pd.to_datetime(["2024-01-29", "2024-01-31"])})
    >>> time = TableEncoder.fit(dates).schema[0]
    >>> read_part("date.weekday", time, pd.Series(["2024-02-01", None])).tolist()
    ['Thursday', nan]
    """
    part = name.rpartition(".")[2]
    cells = time.read_cells(values)
    as_numbers(time.name, cells, "datetime")  # refuses other values
    moments = pd.DatetimeIndex(cells.values)
    if (zone := time_zone(time.dtype)) is not None:
        moments = moments.tz_localize("UTC").tz_convert(zone)
    found = moments.day_of_week if part == "weekday" else getattr(moments, part)
    codes = found.to_numpy() - (part == "month")
    codes = np.append(codes, -1)[cells.where].astype(np.int8)
    index = values.index if isinstance(values, pd.Series) else None
    return pd.Series(pd.Categorical.from_codes(codes, dtype=DTYPES[part]), index=index, name=name)
