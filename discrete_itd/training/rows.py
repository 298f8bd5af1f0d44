"""Sources of training rows: a tensor in memory, or any other source that can be read repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers.counts import ROWS, pair_counts, pair_counts_of

KEPT = 1 << 23  # most floats kept for all rows; otherwise each batch computes its own

Constants = Callable[[Tensor], tuple[Tensor, ...]]


class Batches(Protocol):
    """Batches of equal size without end, with a state to continue from."""

    def __next__(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch: an integer ``position`` and a tensor ``before``."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place in an epoch."""
        ...


class RowSource(Protocol):
    """All ``n_rows`` training rows of a table, encoded: float64, NaN where a cell is missing.

    ``is_kept`` says whether the rows can be read; otherwise only counts are known.
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

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> Batches:
        """Batches (``size``, C) of rows in random order; the generator is on their device.

        At most ``n_batches`` will be drawn: if that is less than an epoch, they should be spread over the whole table.
        """
        ...


class TensorRows:
    """The rows of a tensor ``x``, shape (N, C)."""

    is_kept = True

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def pair_counts(self, book: Codebook) -> Tensor:
        return pair_counts(book, self.x)

    @property
    def n_rows(self) -> int:
        return len(self.x)

    def chunks(self) -> Iterator[Tensor]:
        yield self.x

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> TensorBatches:
        return TensorBatches(self.x, size, generator)


class MappedRows:
    """The rows of another source, each part mapped by a function of rows (B, C)."""

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

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> MappedBatches:
        return MappedBatches(self._source.batches(size, generator, n_batches), self._function)


class MappedBatches:
    """Batches of another source, mapped."""

    def __init__(self, batches: Batches, function: Callable[[Tensor], Any]) -> None:
        self._batches, self._function = batches, function

    def __next__(self) -> Any:
        return self._function(next(self._batches))

    def state_dict(self) -> dict[str, Any]:
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.load_state_dict(state)


def batches_with(
    source: RowSource,
    constants: Constants,
    size: int,
    generator: torch.Generator,
    n_batches: int,
) -> Batches:
    """:meth:`RowSource.batches` where each batch is a tuple of the rows and their constants."""
    if isinstance(source, TensorRows) and (kept := kept_constants(constants, source.x)) is not None:
        return TensorBatches(source.x, size, generator, kept)
    return MappedBatches(source.batches(size, generator, n_batches), lambda x: (x, *constants(x)))


@torch.no_grad()
def kept_constants(constants: Constants, x: Tensor) -> tuple[Tensor, ...] | None:
    """The constants of rows ``x`` (N, C), or None if they are too large to be kept."""
    one = constants(x[:1])
    if len(x) * sum(t.numel() for t in one) > KEPT:
        return None
    parts = [constants(rows) for rows in x.split(ROWS)]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


class TensorBatches:
    """Batches of the rows of a tensor ``x`` (N, C), in a new random order each epoch.

    Remaining rows at the end of an epoch are dropped; a table shorter than a batch is repeated. With ``constants``,
    tensors of N rows, a batch is a tuple of its rows of all. The generator is on the device of the rows.
    """

    def __init__(
        self,
        x: Tensor,
        size: int,
        generator: torch.Generator,
        constants: tuple[Tensor, ...] | None = None,
    ) -> None:
        self._x, self._size, self._generator = x, size, generator
        self._constants = constants
        self._order = torch.zeros(0, dtype=torch.int64, device=x.device)
        # the generator's state before the order was drawn, kept instead of the order; and the rows used
        self._before, self._position = generator.get_state(), 0

    def __next__(self) -> Any:
        if self._position + self._size > len(self._order):
            self._shuffle()
        rows = self._order[self._position : self._position + self._size]
        self._position += self._size
        if self._constants is None:
            return self._x[rows]
        return self._x[rows], *(t[rows] for t in self._constants)

    def state_dict(self) -> dict[str, Any]:
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
