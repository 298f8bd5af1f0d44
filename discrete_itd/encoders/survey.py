"""One pass over a stream: what is seen of each column, and a bounded uniform sample of the rows.

Counts of categories are exact. Scales, bins and the grid of times follow from the sample, whose rows are those with the
smallest hashes of their positions: whatever the order in which parts are read, it is the same sample.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from discrete_itd.encoders.categories import category_order, check_truths, tally
from discrete_itd.encoders.cells import Scalar, is_number, plain, read_cells
from discrete_itd.encoders.dtypes import TIMES, check_supported, family, is_category
from discrete_itd.encoders.inference import MANY_NUMBERS, ColumnSpec
from discrete_itd.encoders.observed import all_integers, all_whole
from discrete_itd.encoders.streams import Hashes, Part, Stream, check_names, position_hashes

SLACK = 1.25  # rows that are held for a moment, as a multiple of the sample
MOST_CATEGORIES = 1_000_000  # of a column of a stream: each is kept, with its count


class ObservedStream:
    """A column of which parts pass by, as the :class:`~discrete_itd.encoders.observed.Observed` of all of them.

    Parameters
    ----------
    name : hashable
    spec : ColumnSpec
        A column that is to be a measurement is not tallied; numbers of which nothing is specified are as long as
        they may turn out to be categories.
    text_dtype : dtype, optional
        Of a column of text whose parts come as categories.
    """

    def __init__(self, name: Hashable, spec: ColumnSpec, text_dtype: Any = None) -> None:
        self.name, self._text_dtype = name, text_dtype
        self.n_rows = self.n_missing = 0
        self.values: np.ndarray = np.zeros(0)
        self.cells = self.values
        self._counts: dict[Scalar, int] = {}
        self._measured = spec.kind in ("continuous", "binned")  # no longer tallied
        self._counted = spec.kind in ("nominal", "ordinal")  # tallied to the end
        self._integers = self._whole = True  # by type, and by value
        self._categories: pd.CategoricalDtype | None = None
        self._examples: dict[Any, pd.Series] = {}  # of each dtype, one cell
        self._found: set[str] = set()
        self._truths: set[bool] = set()  # whether categories are truth values

    def add(self, part: pd.Series) -> None:
        """See one more part; ValueError or TypeError, naming the column, if its values fit no kind or no other part."""
        self._add_dtype(part)
        cells = read_cells(part)
        values = cells.values
        self.n_rows += len(part)
        self.n_missing += int((cells.where < 0).sum())
        if not len(values):
            return
        if not len(self.values):
            self.values = values
        self._integers = self._integers and all_integers(values)
        self._whole = self._whole and (all_integers(values) or all_whole(values))
        is_time, own = family(values.dtype) in TIMES, self._counts
        number = not is_time and is_number(values)
        self._found.add("times" if is_time else "numbers" if number else "other values")
        if number and not (self._counted or self._measured or is_category(part.dtype)):
            new = [v for v in pd.unique(values)[: MANY_NUMBERS + 1].tolist() if v not in own]
            if len(own) + len(new) > MANY_NUMBERS:  # too many to be levels
                self._measured = True
                own.update(dict.fromkeys(new, 0))
        self._check_found()
        if is_time or self._measured:
            return
        if is_category(part.dtype):
            counts = np.bincount(cells.where[cells.where >= 0], minlength=len(values))
            found = [plain(v) for v in values]
        else:
            found, counts = tally(self.name, values)
        for category, count in zip(found, counts.tolist(), strict=True):
            own[category] = own.get(category, 0) + count
        self._truths |= {isinstance(c, bool) for c in found if not isinstance(c, str)}
        check_truths(self.name, self._truths)
        if len(own) > MOST_CATEGORIES:
            raise ValueError(
                f"column {self.name!r}: more than {MOST_CATEGORIES} different values in a stream; drop the column,"
                " or say what it is with column_types="
            )

    def sampled(self, values: pd.Series) -> None:
        """Take the cells of the sample as the values, where these are measurements."""
        cells = read_cells(values)
        self.cells = cells.values[cells.where[cells.where >= 0]]
        if self._counts and not self._measured and not is_number(self.distinct):
            self.values = self.distinct
        elif len(cells.values):  # else what was seen first
            self.values = cells.values

    @property
    def dtype(self) -> Any:
        if self._text_dtype is not None:
            return self._text_dtype
        if self._categories is not None:
            return self._categories
        return pd.concat(list(self._examples.values())).dtype

    @property
    def distinct(self) -> np.ndarray:
        if family(self.dtype) == "float":
            return np.array(list(self._counts), dtype=float)
        return read_cells(pd.Series(list(self._counts), dtype=object)).values

    @property
    def all_integers(self) -> bool:
        by_type = self._integers and family(self.dtype) != "float"
        return by_type or (self._whole and self.n_missing > 0)

    def tally(self, name: Hashable) -> tuple[list[Scalar], np.ndarray]:
        if self._categories is not None:
            categories = [plain(c) for c in self._categories.categories]
        else:
            categories = sorted((plain(v) for v in self.distinct), key=category_order)
        counts = [self._counts.get(c, 0) for c in categories]
        return categories, np.array(counts, dtype=np.int64)

    def _add_dtype(self, part: pd.Series) -> None:
        """Remember the dtype of a part."""
        dtype: Any = part.dtype
        if self._text_dtype is not None:
            return
        known = self._categories
        if (known is not None) != is_category(dtype) and (known is not None or self._examples):
            other = known or next(iter(self._examples))
            raise ValueError(
                f"column {self.name!r}: of dtype {other} in one part, {dtype} in another"
            )
        if is_category(dtype):
            check_supported(self.name, dtype)
            if known is None or known == dtype:
                self._categories = known or dtype
            elif known.ordered or dtype.ordered:
                raise ValueError(
                    f"column {self.name!r}: parts of the stream order categories differently"
                )
            else:
                self._categories = pd.CategoricalDtype(
                    known.categories.union(dtype.categories, sort=False)
                )
        elif dtype not in self._examples and len(part):
            check_supported(self.name, dtype)
            there = part.dropna()
            self._examples[dtype] = (there if len(there) else part).iloc[:1]

    def _check_found(self) -> None:
        """ValueError if parts hold what cannot be one column."""
        mixed = "times" in self._found and len(self._found) > 1
        late = self._measured and self._found == {"numbers", "other values"}
        if mixed or late:
            kinds = " and ".join(sorted(self._found))
            raise ValueError(
                f"column {self.name!r}: {kinds} in different parts of the stream; say what it is with column_types=, or"
                " clean it"
            )


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
    columns : mapping from name to ObservedStream
    sample : DataFrame
        Rows in the order of the stream; all of them, if they are few.
    hashes : ndarray of uint64
        Of the positions of these rows.
    """

    n_rows: int
    columns: Mapping[Any, ObservedStream]
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
    columns: dict[Any, ObservedStream] = {}
    sample, n, names = None, 0, pd.Index([])
    for part in stream.parts():
        if sample is None:
            names = part.frame.columns
            sample = Sample(n_sample(len(names)), salt)
            first = check_names(part.frame, names).columns
            if specs is not None:
                own, text = specs(first), stream.text_dtypes
                columns = {k: ObservedStream(plain(k), own[k], text.get(k)) for k in names}
        part = part._replace(frame=check_names(part.frame, names))
        for name, column in columns.items():
            column.add(cast(pd.Series, part.frame[name]))
        sample.add(part)
        n += len(part.frame)
    if sample is None or not n or not len(names):
        raise ValueError(
            f"Found array with {n} sample(s) and {len(names)} feature(s) in the stream while a minimum of 1 is"
            " required."
        )
    rows, hashes = sample.rows()
    for name, column in columns.items():
        column.sampled(cast(pd.Series, rows[name]))
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
