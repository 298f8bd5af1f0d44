"""Sources of training rows: a tensor in memory, or any other source that can be read repeatedly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from discrete_itd.denoisers.cell_counts import COUNTED

KEPT = 1 << 23  # most floats kept for all rows; otherwise each batch computes its own

Constants = Callable[[Tensor], tuple[Tensor, ...]]


class RowSource(Protocol):
    """All ``n_rows`` training rows of a table, encoded: float64, NaN where a cell is missing."""

    @property
    def n_rows(self) -> int: ...

    def chunks(self) -> Iterator[Tensor]:
        """Every row once, in parts (B, C) that fit in memory."""
        ...

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> Iterator[Tensor]:
        """Batches (``size``, C) of rows in random order; the generator is on their device.

        At most ``n_batches`` will be drawn: if that is less than an epoch, they should be spread over the whole table.
        """
        ...


class TensorRows:
    """The rows of a tensor ``x``, shape (N, C)."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @property
    def n_rows(self) -> int:
        return len(self.x)

    def chunks(self) -> Iterator[Tensor]:
        yield self.x

    def batches(self, size: int, generator: torch.Generator, n_batches: int) -> Iterator[Tensor]:
        return (x for (x,) in shuffled(size, generator, self.x))


def batches_with(
    source: RowSource,
    constants: Constants,
    size: int,
    generator: torch.Generator,
    n_batches: int,
) -> Iterator[tuple[Tensor, ...]]:
    """:meth:`RowSource.batches` where each batch is a tuple of the rows and their constants."""
    if isinstance(source, TensorRows) and (kept := kept_constants(constants, source.x)) is not None:
        return shuffled(size, generator, source.x, *kept)
    return ((x, *constants(x)) for x in source.batches(size, generator, n_batches))


@torch.no_grad()
def kept_constants(constants: Constants, x: Tensor) -> tuple[Tensor, ...] | None:
    """The constants of rows ``x`` (N, C), or None if they are too large to be kept."""
    one = constants(x[:1])
    if len(x) * sum(t.numel() for t in one) > KEPT:
        return None
    parts = [constants(rows) for rows in x.split(COUNTED)]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def shuffled(
    size: int, generator: torch.Generator, x: Tensor, *beside: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Batches of ``size`` rows of ``x`` (N, C) and of what is ``beside`` them, without end, in random order.

    Remaining rows at the end of an epoch are dropped; a table shorter than a batch is repeated. The generator is on the
    device of the rows.
    """
    folds = range(-(-size // len(x)))
    while True:
        draw = [torch.randperm(len(x), generator=generator, device=x.device) for _ in folds]
        order = torch.cat(draw)
        for rows in order[: len(order) // size * size].split(size):
            yield x[rows], *(t[rows] for t in beside)
