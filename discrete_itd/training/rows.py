"""Where training rows come from: a tensor in memory, or any other source that can be read again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers.counts import pair_counts, pair_counts_of


class Batches(Protocol):
    """Batches of equal size without end, with a state to continue from."""

    def __next__(self) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch: an integer ``position`` and a tensor ``before``."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place in an epoch."""
        ...


class RowSource(Protocol):
    """All training rows of a table, encoded: float64, NaN where a cell is missing.

    Attributes
    ----------
    n_rows : int
    is_kept : bool
        Whether the rows can be read; if not, no more than counts are known.
    """

    is_kept: bool

    @property
    def n_rows(self) -> int: ...

    def pair_counts(self, book: Codebook) -> Tensor:
        """The :func:`~discrete_itd.denoisers.counts.pair_counts` of all rows."""
        ...

    def chunks(self) -> Iterator[Tensor]:
        """Every row once, in parts (B, C) that fit in memory."""
        ...

    def part(self, rank: int, size: int) -> RowSource:
        """The rows on which process ``rank`` of ``size`` trains: all of them if there are fewer than processes."""
        ...

    def to(self, device: torch.device) -> RowSource:
        """The same rows on a device."""
        ...

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> Batches:
        """Batches (``size``, C) of rows in random order.

        Parameters
        ----------
        size : int
        generator : torch.Generator
            On the device of the rows.
        n_batches : int
            How many will be asked for at most: where that is less than an epoch, they are to be of the whole table.
        """
        ...


class TensorRows:
    """The rows of a tensor ``x``, shape (N, C)."""

    is_kept = True

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def pair_counts(self, book: Codebook) -> Tensor:
        return pair_counts(book, self._x)

    @property
    def n_rows(self) -> int:
        return len(self._x)

    def chunks(self) -> Iterator[Tensor]:
        yield self._x

    def part(self, rank: int, size: int) -> TensorRows:
        return TensorRows(self._x[rank::size]) if 1 < size <= len(self._x) else self

    def to(self, device: torch.device) -> TensorRows:
        return TensorRows(self._x.to(device))

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> TensorBatches:
        return TensorBatches(self._x, size, generator)


class MappedRows:
    """The rows of another source, each part of them mapped by a function of rows (B, C)."""

    is_kept = True

    def __init__(self, source: RowSource, function: Callable[[Tensor], Tensor]) -> None:
        self._source, self._function = source, function

    @property
    def n_rows(self) -> int:
        return self._source.n_rows

    def pair_counts(self, book: Codebook) -> Tensor:
        return pair_counts_of(book, self.chunks())

    def chunks(self) -> Iterator[Tensor]:
        return map(self._function, self._source.chunks())

    def part(self, rank: int, size: int) -> MappedRows:
        return MappedRows(self._source.part(rank, size), self._function)

    def to(self, device: torch.device) -> MappedRows:
        return MappedRows(self._source.to(device), self._function)

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> MappedBatches:
        return MappedBatches(self._source.batches(size, generator, n_batches), self._function)


class MappedBatches:
    """Batches of another source, mapped."""

    def __init__(self, batches: Batches, function: Callable[[Tensor], Tensor]) -> None:
        self._batches, self._function = batches, function

    def __next__(self) -> Tensor:
        return self._function(next(self._batches))

    def state_dict(self) -> dict[str, Any]:
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.load_state_dict(state)


class TensorBatches:
    """Batches of the rows of a tensor, in a new random order each epoch.

    The rows that are left at the end of an epoch are dropped; a table shorter than a batch is repeated.

    Parameters
    ----------
    x : Tensor, shape (N, C)
    size : int
        Rows of a batch.
    generator : torch.Generator
        On the device of the rows.
    """

    def __init__(self, x: Tensor, size: int, generator: torch.Generator) -> None:
        self._x, self._size, self._generator = x, size, generator
        self._order = torch.zeros(0, dtype=torch.int64, device=x.device)
        # the generator's state before it drew the order, kept instead of the order; and rows used up
        self._before, self._position = generator.get_state(), 0

    def __next__(self) -> Tensor:
        if self._position + self._size > len(self._order):
            self._shuffle()
        rows = self._order[self._position : self._position + self._size]
        self._position += self._size
        return self._x[rows]

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch."""
        return {"position": self._position, "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place in an epoch; the generator is left in the state after drawing the order."""
        self._generator.set_state(state["before"])
        if state["position"]:
            self._shuffle()
        if state["position"] > len(self._order):
            raise ValueError(f"an epoch has {len(self._order)} rows, not {state['position']}")
        self._position = state["position"]

    def _shuffle(self) -> None:
        self._before, self._position = self._generator.get_state(), 0
        n, device = len(self._x), self._x.device
        folds = range(-(-self._size // n))
        draw = [torch.randperm(n, generator=self._generator, device=device) for _ in folds]
        self._order = torch.cat(draw)
