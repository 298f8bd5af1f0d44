"""Operations of a step that never wait for the device.

A program queues work for a GPU and goes on. Where the shape of a tensor, or control flow, depends on values there
(``nonzero``, a boolean mask as an index, ``bool(tensor)``), the host has to wait for them, and the GPU is idle
meanwhile; so it does for a tensor that is copied from the host. On a CPU values can be read for free, and rows that
need no work are skipped. So a *step* uses the functions below, which skip work on the CPU and do all of it elsewhere,
with the same result up to rounding. Steps are: the forward and backward pass with the optimiser and the average of
weights; a denoiser's ``forward``, ``log_prob``, ``preceding`` and ``draw``; and the methods of posteriors. The host
waits for two denoisers: image denoisers check their inputs in every call, and forests count the leaves that agree.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def resolve_device(name: str) -> torch.device:
    """The device of that name; ValueError if this machine has no such device.

    "auto" is CUDA if available.
    """
    if isinstance(name, str) and name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device, dtype=torch.float64)  # sums of nats need it
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"device must be 'auto' or a device of this machine, got {name!r} ({reason})"
        ) from None
    return device


def static_shapes(device: torch.device) -> bool:
    """Whether shapes must not depend on data there: on every device but the CPU."""
    return device.type != "cpu"


def any_true(mask: Tensor) -> bool:
    """Whether any entry of a mask is true; True on a device other than the CPU, where reading it would mean waiting."""
    return static_shapes(mask.device) or bool(mask.any())


def replace_rows(values: Tensor, mask: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """``values`` (B, ...) with ``compute`` of the row numbers, (n,) to (n, ...), in the rows of ``mask`` (B,).

    On the CPU ``compute`` is called for the rows of the mask, if there are any; elsewhere for all rows, where its
    results outside the mask are ignored, even NaN.
    """
    if static_shapes(mask.device):
        new = compute(torch.arange(len(mask), device=mask.device))
        return torch.where(mask.view(-1, *[1] * (values.ndim - 1)), new, values)
    rows = torch.nonzero(mask).flatten()
    return values.index_copy(0, rows, compute(rows)) if len(rows) else values


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n, ...) that differ, and the place of each among them; on a device but the CPU all rows."""
    if static_shapes(rows.device):
        return rows, torch.arange(len(rows), device=rows.device)
    return torch.unique(rows, dim=0, return_inverse=True)


@lru_cache(maxsize=256)
def index_tensor(numbers: tuple[Any, ...], device: str, dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers, nested in tuples, as a tensor on a device, copied there once; it must not be changed."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=dtype, device=device)


def add_at(sums: Tensor, dim: int, index: Tensor, values: Tensor) -> Tensor:
    """``sums.index_add_(dim, index, values)`` in an order that does not change from run to run.

    On CUDA, ``index_add_`` adds in the order in which threads arrive, so rounding varies; ``index_put_`` sorts first.
    """
    if not static_shapes(sums.device):
        return sums.index_add_(dim, index, values)
    sums.transpose(0, dim).index_put_((index,), values.transpose(0, dim), accumulate=True)
    return sums
