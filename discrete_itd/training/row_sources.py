"""Batches of training rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

KEPT = 1 << 24  # most floats kept for all rows; otherwise each batch computes its own
AT_ONCE = 1 << 14  # rows whose constants are computed together

Constants = Callable[[Tensor], tuple[Tensor, ...]]


def batches_with(
    x: Tensor, constants: Constants, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """:func:`shuffled` rows ``x`` (N, C) with their constants."""
    if (kept := kept_constants(constants, x)) is not None:
        return shuffled(size, generator, x, *kept)
    return ((rows, *constants(rows)) for (rows,) in shuffled(size, generator, x))


@torch.no_grad()
def kept_constants(constants: Constants, x: Tensor) -> tuple[Tensor, ...] | None:
    """The constants of rows ``x`` (N, C), or None if they are too large to be kept."""
    one = constants(x[:1])
    if len(x) * sum(t.numel() for t in one) > KEPT:
        return None
    parts = [constants(rows) for rows in x.split(AT_ONCE)]
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
