"""Rows of a table, read and encoded once, as a value that every question about a model takes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd

from discrete_itd.encoders.relations import numbers_of
from discrete_itd.encoders.table import TableEncoder, replaced
from discrete_itd.reading.frames import too_few
from discrete_itd.reading.text import quoted

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """A user's table as a fitted model sees it.

    Made by :meth:`discrete_itd.DiffusionDensity.rows`; whatever takes a table takes this in its place, and then
    neither reads nor encodes it again.

    Parameters
    ----------
    encoder : TableEncoder
    given : DataFrame, shape (N, C)
        The fitted columns in their order, as they are in the user's table, with its index (0 to N - 1 if it had none).
    cells : ndarray of float64, shape (N, C')
        Codes of categories and standardised numbers; where a cell is missing, NaN, or the level of missing cells. The
        internal columns are the C columns, then one missingness indicator for each of ``encoder.owner[C:]``.
    log_volume : ndarray of float64, shape (N, C')
        Nats to add to the log-probability of each encoded cell to get the log-probability of the cell in the unit of
        its column.
    unreadable : ndarray of object, shape (N, C)
        The text of cells of numbers or times that is none; None elsewhere. In ``given`` these cells are missing, and in
        ``cells`` their indicators are, too: nothing is known of them.
    columns : Index, length C
        The columns of the user's table, in its order.
    is_frame : bool
        Whether the table came as a frame; otherwise it was an array.
    by_name : bool
        Whether columns were found by name; otherwise by position, because table or training table was an array.
    others : DataFrame, shape (N, E), optional
        Columns of the user's table that are not in the model.
    device : device, optional
        The model's device, where :attr:`x` is.
    clock : ndarray of float64, shape (N,), optional
        The clock of each row, in its steps, NaN where it is missing; None without a clock.
    is_given : ndarray of bool, shape (N, C), optional
        Cells that are there, but no part of the row: times without a clock to count from. None if there are none.

    Examples
    --------
    >>> from discrete_itd import DiffusionDensity
    >>> frame = pd.DataFrame({"a": ["x", "y"] * 20})
    >>> model = DiffusionDensity(denoiser="independent", random_state=0).fit(frame)
    >>> rows = model.rows(frame)
    >>> rows.x.shape, bool((model.score_samples(rows) == model.score_samples(frame)).all())
    (torch.Size([40, 1]), True)
    """

    encoder: TableEncoder
    given: pd.DataFrame
    cells: np.ndarray
    log_volume: np.ndarray
    unreadable: np.ndarray
    columns: pd.Index
    is_frame: bool
    by_name: bool
    others: pd.DataFrame | None = None
    device: torch.device | None = None
    clock: np.ndarray | None = None
    is_given: np.ndarray | None = None

    @classmethod
    def read(
        cls,
        frame: pd.DataFrame,
        encoder: TableEncoder,
        *,
        is_frame: bool,
        by_name: bool,
        device: torch.device | None = None,
        ignore: Hashable | None = None,
    ) -> Rows:
        """Encode a frame; the values of the column ``ignore`` are not read.

        A warning names unreadable cells; a ValueError or TypeError the column that is absent, or holds a value that its
        kind cannot take.
        """
        columns, others = frame.columns, None
        if by_name and columns.tolist() == encoder.names:
            ours = frame.copy()
        else:
            named = frame if by_name else encoder.named(frame)
            own = named.columns.isin(encoder.names)
            if not own.all():
                others = frame.loc[:, ~own]
            ours = named[encoder.names]
        if ignore is not None:
            encoder.place_of(ignore, "ignore=")
            ours = ours.copy()
            ours[ignore] = None
        ours = cast(pd.DataFrame, ours)
        (x, log_volume), unreadable, clock, is_given = encoder.readable(ours)
        if ignore is not None:
            x[:, encoder.owner == encoder.place_of(ignore)] = np.nan
        is_text = pd.notna(unreadable)
        places = np.flatnonzero(is_text.any(0)).tolist()
        cells = {encoder.names[j]: ours.iloc[:, j].mask(is_text[:, j], None) for j in places}
        if places:
            encoder.tell_unreadable(unreadable)
        given = replaced(ours, cells)
        own = x, log_volume, unreadable
        how = columns, is_frame, by_name, others, device
        return cls(encoder, given, *own, *how, clock, is_given)

    def __len__(self) -> int:
        return len(self.cells)

    def of(self, encoder: TableEncoder, device: torch.device | None = None) -> Rows:
        """These rows on a device; ValueError if they were encoded by another schema."""
        if encoder is not self.encoder and encoder.schema != self.encoder.schema:
            raise ValueError(
                "these Rows were encoded by the schema of another model; pass the table itself, or make them with"
                " this model's rows(X)"
            )
        return self if self.device == device else replace(self, device=device)

    def without(self, column: Hashable) -> Rows:
        """The rows with one column summed out, its gaps too; ValueError if there is no such column."""
        j = self.encoder.place_of(column, "ignore=")
        cells, log_volume = self.cells.copy(), self.log_volume.copy()
        given = self.given.copy()
        given[column] = None
        own = self.encoder.owner == j
        cells[:, own], log_volume[:, own] = np.nan, 0.0
        unreadable = self.unreadable.copy()
        unreadable[:, j] = None
        return replace(self, given=given, cells=cells, log_volume=log_volume, unreadable=unreadable)

    def take(self, positions: Any) -> Rows:
        """The rows at some positions, or where a mask of bool of shape (N,) is true; nothing is encoded again."""
        chosen = list(positions) if isinstance(positions, tuple) else positions
        positions = np.atleast_1d(np.arange(len(self))[chosen]).copy()
        return replace(
            self,
            given=self.given.iloc[positions],
            cells=self.cells[positions],
            log_volume=self.log_volume[positions],
            unreadable=self.unreadable[positions],
            others=None if self.others is None else self.others.iloc[positions],
            clock=None if self.clock is None else self.clock[positions],
            is_given=None if self.is_given is None else self.is_given[positions],
        )

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """Rows of one model, from several tables with the same columns, one after the other."""
        if len(parts) == 1:
            return parts[0]
        others = [part.others for part in parts if part.others is not None]
        clocks = [part.clock for part in parts if part.clock is not None]
        is_given = None
        if any(part.is_given is not None for part in parts):
            nothing = [np.zeros(part.unreadable.shape, bool) for part in parts]
            pairs = zip(parts, nothing, strict=True)
            is_given = np.concatenate(
                [p.is_given if p.is_given is not None else n for p, n in pairs]
            )
        return replace(
            parts[0],
            given=pd.concat([part.given for part in parts]),
            cells=np.concatenate([part.cells for part in parts]),
            log_volume=np.concatenate([part.log_volume for part in parts]),
            unreadable=np.concatenate([part.unreadable for part in parts]),
            others=pd.concat(others) if others else None,
            clock=np.concatenate(clocks) if clocks else None,
            is_given=is_given,
        )

    @cached_property
    def is_missing(self) -> np.ndarray:
        """Which cells have no value: bool, shape (N, C)."""
        encoder = self.encoder
        is_missing = np.isnan(self.cells[:, : encoder.n_columns]) | encoder.absent(self.cells)
        return is_missing if self.is_given is None else is_missing & ~self.is_given

    @cached_property
    def is_outside(self) -> np.ndarray:
        """Which cells lie outside the range or the categories of training: bool, shape (N, C)."""
        # without the indicators, which come last
        columns = zip(self.encoder.schema, self.cells.T, strict=False)
        return np.column_stack([column.codec.is_outside(cells) for column, cells in columns])

    @cached_property
    def is_unreadable(self) -> np.ndarray:
        """Which rows have an unreadable cell: bool, shape (N,)."""
        return np.asarray(pd.notna(self.unreadable).any(1))

    @property
    def unreadable_text(self) -> np.ndarray:
        """The unreadable cells of each row, like "price = '#REF!'", None where there are none: objects, shape (N,)."""
        found = np.full(len(self), None, dtype=object)
        for i, name, text, _ in self.unreadable_cells():
            before = f"{found[i]}; " if found[i] else ""
            found[i] = f"{before}{name} = {quoted(text)}"
        return found

    def unreadable_cells(self) -> list[tuple[int, Hashable, str, str]]:
        """Position of the row, column, text and a sentence of each unreadable cell."""
        found = []
        for i, j in np.argwhere(pd.notna(self.unreadable)).tolist():
            column, text = self.encoder.schema[j], self.unreadable[i, j]
            sentence = (
                f"unreadable: {column.name} = {quoted(text)}, {column.expected}{column.hint(text)}"
            )
            found.append((i, column.name, text, sentence))
        return found

    def blank(self) -> Rows:
        """One row of missing cells: an answer about no rows is the one about it, without its lines."""
        frame = self.encoder.inverse_transform(np.full((1, len(self.encoder.owner)), np.nan))
        return Rows.read(frame, self.encoder, is_frame=True, by_name=True, device=self.device)

    @property
    def index(self) -> pd.Index:
        """The index of the user's table, length N."""
        return self.given.index

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The fitted columns, with text of numbers and times as these: a DataFrame, shape (N, C)."""
        return self.encoder.read(self.given)

    @cached_property
    def follows(self) -> np.ndarray:
        """Whether rows follow the schema's K relations: 1 or 0, NaN where a number is missing; (N, K)."""
        relations = self.encoder.relations
        if not relations:
            return np.empty((len(self), 0))
        columns = {j for relation in relations for j in relation.columns}
        x = numbers_of(self.frame, self.encoder.schema, columns)
        return np.column_stack([relation.follows(x) for relation in relations])

    def placed(self, values: Iterable[Any], row: np.ndarray, j: int) -> list[Any]:
        """Decoded values of column j as those of the rows at some positions: of their time, None without one.

        As many as positions; None among them stays.
        """
        column = self.encoder.schema[j]
        start = self.encoder.start_of(j, self.clock)
        if start is None:
            return list(values)
        of_time = column.family != "number"
        steps = [float(column.step) * s if of_time else s for s in start[row].tolist()]

        def moved(value: Any, step: float) -> Any:
            if value is None or pd.isna(value) or step != step:
                return None
            try:
                return value + (pd.Timedelta(round(step)) if of_time else step)
            except (ValueError, OverflowError):  # centuries away
                return None

        return [moved(value, step) for value, step in zip(values, steps, strict=True)]

    def labelled(self, index: Any) -> Rows:
        """The rows with another index, of length N."""
        return replace(self, given=self.given.set_axis(index, axis=0))

    @cached_property
    def x(self) -> Tensor:
        """The ``cells`` on the device of the model."""
        import torch

        return torch.from_numpy(self.cells).to(self.device or "cpu")

    @cached_property
    def _distinct(self) -> tuple[np.ndarray, np.ndarray]:
        return distinct(self.cells)

    @cached_property
    def unique(self) -> Tensor:
        """The distinct rows of ``x``, shape (U, C')."""
        return self.x[self._distinct[0]]

    @property
    def inverse(self) -> np.ndarray:
        """For each row its position in ``unique``, int64, shape (N,)."""
        return self._distinct[1]

    def table(self, values: np.ndarray) -> pd.DataFrame:
        """One value per cell, shape (N, C), as a frame with the fitted columns and the index of the table."""
        return pd.DataFrame(values, index=self.index, columns=pd.Index(self.encoder.names))

    def by_column(self, values: np.ndarray) -> np.ndarray:
        """Values of internal columns (N, C') by column, (N, C): an indicator's, or a part's, are added to its column's.

        NaN values count for nothing; where a column has no others, or its cell is missing without an indicator to say
        so, the sum is NaN.
        """
        n_columns = self.encoder.n_columns
        there = ~(np.isnan(values) | np.isnan(self.cells))
        total, n = (t[:, :n_columns].copy() for t in (np.where(there, values, 0.0), there))
        for place in range(n_columns, values.shape[1]):
            own = self.encoder.owner[place]
            total[:, own] += np.where(there[:, place], values[:, place], 0.0)
            n[:, own] |= there[:, place]
        return np.where(n, total, np.nan)

    def as_given(self, table: pd.DataFrame) -> pd.DataFrame | np.ndarray:
        """A table of the fitted columns in the form of the user's: its columns in its order, or an array."""
        if not self.by_name:
            others = [] if self.others is None else self.others.columns
            table = table.set_axis(self.columns[~self.columns.isin(others)], axis=1)
        if self.others is not None:
            table = pd.concat([table, self.others.set_axis(table.index, axis=0)], axis=1)
        table = cast(pd.DataFrame, table[self.columns])
        return table if self.is_frame else table.to_numpy()


class RowEstimate(NamedTuple):
    """Log-probabilities with their standard errors: two float64 arrays of shape (N,), in nats."""

    log_prob: np.ndarray
    stderr: np.ndarray


def ignored(extra: Collection[Any], columns: Collection[Any]) -> str:
    """The warning that the columns ``extra`` of a table are ignored."""
    return f"ignoring {len(extra)} of {len(columns)} columns: {', '.join(map(str, extra))}"


def check_any(rows: Rows) -> Rows:
    """The rows; ValueError, in scikit-learn's words, if there are none."""
    if not len(rows):
        raise too_few(len(rows), rows.encoder.n_columns)
    return rows


def unique_rows(x: Tensor) -> tuple[Tensor, np.ndarray]:
    """Distinct rows and, for every row, the index of its distinct row: equal rows are scored once."""
    first, inverse = distinct(x.cpu().numpy())
    return x[first], inverse


def distinct(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position of each distinct row of float64 cells (N, C), (U,), and for every row the index of its own, (N,)."""
    if len(cells) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    # one bit pattern for 0 and -0, and for all NaNs
    cells = np.where(np.isnan(cells), np.nan, cells + 0.0)
    rows = cells.view(np.dtype((np.void, cells.dtype.itemsize * cells.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return first, inverse
