"""One pass over a stream: what is seen of each column, and a bounded uniform sample of the rows.

Counts of categories are exact. Scales, bins and the grid of times follow from the sample, whose rows are those with the
smallest hashes of their positions: whatever the order in which parts are read, it is the same sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from discrete_itd.encoders.cells import plain, read_cells
from discrete_itd.encoders.dtypes import is_category
from discrete_itd.encoders.inference import ColumnSpec
from discrete_itd.encoders.observed import Observed
from discrete_itd.encoders.streams import Hashes, Part, Stream, check_names, position_hashes

SLACK = 1.25  # rows that are held for a moment, as a multiple of the sample
MOST_CATEGORIES = 1_000_000  # of a column of a stream: each is kept, with its count


class Sample:
    """The rows of a stream with the smallest hashes.

    Parameters
    ----------
    n : int
        How many.
    salt : int
        Of the hashes: the seed of the sample.
    """

    def __init__(self, n: int, salt: int) -> None:
        self._n, self._salt = n, salt
        self._frames: list[pd.DataFrame] = []
        self._hashes: list[Hashes] = []
        self._largest = np.uint64(2**64 - 1)

    def add(self, part: Part) -> None:
        """Take what belongs into the sample among some rows."""
        hashes = position_hashes(part.positions, self._salt)
        near = hashes <= self._largest
        self._frames.append(part.take(near).frame)
        self._hashes.append(hashes[near])
        if sum(map(len, self._hashes)) > SLACK * self._n:
            self._shrink()

    def rows(self) -> tuple[pd.DataFrame, Hashes]:
        """The rows and their hashes, in the order in which they were added."""
        if sum(map(len, self._hashes)) > self._n:
            self._shrink()
        self._join()
        return self._frames[0], self._hashes[0]

    def _shrink(self) -> None:
        self._largest = np.partition(np.concatenate(self._hashes), self._n - 1)[self._n - 1]
        near = [hashes <= self._largest for hashes in self._hashes]
        pairs = zip(self._frames, near, strict=True)
        self._frames = [cast(pd.DataFrame, frame[own]) for frame, own in pairs]
        self._hashes = [hashes[own] for hashes, own in zip(self._hashes, near, strict=True)]
        self._join()

    def _join(self) -> None:
        """Make one frame of all: thousands of small ones would take more memory than their rows."""
        names = self._frames[0].columns
        cells = {
            name: _joined([cast(pd.Series, frame[name]) for frame in self._frames])
            for name in names
        }
        self._frames = [pd.DataFrame(cells, columns=names)]
        self._hashes = [np.concatenate(self._hashes)]


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass has found.

    Parameters
    ----------
    n_rows : int
    columns : mapping from name to Observed
    sample : DataFrame
        Rows in the order of the stream; all of them, if they are few.
    hashes : ndarray of uint64
        Of the positions of these rows.
    """

    n_rows: int
    columns: Mapping[Any, Observed]
    sample: pd.DataFrame
    hashes: Hashes

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the whole table."""
        return len(self.sample) == self.n_rows


def survey(
    stream: Stream,
    specs: Callable[[pd.Index], Mapping[Any, ColumnSpec]] | None,
    n_sample: Callable[[int], int],
    salt: int,
) -> Survey:
    """Read a stream once.

    Parameters
    ----------
    stream : Stream
    specs : callable, optional
        Of the names of the columns: what is specified about each, or an error. Without it, columns are not looked at,
        and the survey is of the sample alone.
    n_sample : callable
        Of the number of columns: the size of the sample.
    salt : int
        The seed of the sample.

    Raises
    ------
    ValueError, TypeError
        Naming the column, if parts do not fit together, or a column has too many categories. If there are no rows.
    """
    columns: dict[Any, Observed] = {}
    sample, n, names = None, 0, pd.Index([])
    for part in stream.parts():
        if sample is None:
            names = part.frame.columns
            sample = Sample(n_sample(len(names)), salt)
            first = check_names(part.frame, names).columns
            if specs is not None:
                own, text = specs(first), stream.text_dtypes
                columns = {k: Observed(plain(k), own[k].kind, text.get(k)) for k in names}
        part = part._replace(frame=check_names(part.frame, names))
        for name, column in columns.items():
            column.add(cast(pd.Series, part.frame[name]))
            if column.n_categories > MOST_CATEGORIES:
                raise ValueError(
                    f"column {name!r}: more than {MOST_CATEGORIES} different values in a stream; drop the column,"
                    " or say what it is with column_types="
                )
        sample.add(part)
        n += len(part.frame)
    if sample is None or not n or not len(names):
        raise ValueError(
            f"Found array with {n} sample(s) and {len(names)} feature(s) in the stream while a minimum of 1 is"
            " required."
        )
    rows, hashes = sample.rows()
    for name, column in columns.items():
        column.keep(read_cells(cast(pd.Series, rows[name])))
    if len(rows) == n or specs is None:  # then the sample is a table of its own
        text = stream.text_dtypes.items()
        rows = rows.astype({name: dtype for name, dtype in text if name in rows})
    return Survey(n, columns, rows, hashes)


def _joined(pieces: list[pd.Series]) -> pd.Series:
    """Parts of a column as one; categories that differ are united."""
    if len({piece.dtype for piece in pieces}) > 1 and all(is_category(p.dtype) for p in pieces):
        # where all are missing, the categories have a dtype of their own
        named = [piece for piece in pieces if len(piece.cat.categories)]
        dtype = named[0].dtype if named else pieces[0].dtype
        pieces = [p if len(p.cat.categories) else p.astype(dtype) for p in pieces]
        return pd.Series(union_categoricals(pieces))
    return pd.concat(pieces, ignore_index=True)
