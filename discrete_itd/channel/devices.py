"""What a step may not do on a device other than the CPU: look at its own numbers.

A program queues work for a GPU and goes on. Where the shape of a tensor, or what is done next, depends on numbers there
(``nonzero``, a boolean mask as an index, ``bool(tensor)``), it has to wait until they are computed, and the GPU is idle
meanwhile; a tensor that is copied from the host has to be waited for, too. On a CPU a look is free, and rows that need
no work are left out. So a *step* asks the functions below, which leave out work on the CPU and do all of it elsewhere,
with the same result to rounding. A step is the forward and backward pass with the optimiser and the average; a
denoiser's ``forward``, ``log_prob``, ``preceding`` and ``draw``; and what a posterior is asked for.

Outside the steps the host looks, and waits: at fit time, every few dozen steps of a training, at the first call of what
keeps tables, once a batch for the length of its paths, after each doubling of the paths under ``max_stderr``, and for
the ``log_factors`` of a tree or a Bayesian network, which explain rows. A denoiser of images by a foreign network
checks in every call what goes in and comes out.

What doing all of the work costs on a GPU is unmeasured. Where few rows need it, as on long paths over high-cardinality
columns, it is a multiple of what the CPU does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def resolve_device(name: str) -> torch.device:
    """The device of that name; ValueError if this machine has no such device.

    "auto" is CUDA if available, of several processes on a machine to each its own.
    """
    if isinstance(name, str) and name == "auto":
        own = os.environ.get("LOCAL_RANK")  # set by torchrun
        cuda = "cuda" if own is None else f"cuda:{own}"
        return torch.device(cuda if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device, dtype=torch.float64)  # nats are added up in it
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
    """Whether anything in a mask is true; on a device other than the CPU, where asking means waiting, True."""
    return static_shapes(mask.device) or bool(mask.any())


def rows_where(mask: Tensor) -> Tensor:
    """Numbers of the rows where a mask (B,) is true, on a device other than the CPU of all rows: int64."""
    if static_shapes(mask.device):
        return torch.arange(len(mask), device=mask.device)
    return torch.nonzero(mask).flatten()


def replace_rows(values: Tensor, mask: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Values with other ones where a mask is true.

    Parameters
    ----------
    values : Tensor, shape (B, ...)
    mask : Tensor of bool, shape (B,)
    compute : callable
        From numbers of rows (n,) to their values, (n, ...). On the CPU it is called for the rows of the mask, if there
        are any; elsewhere for all rows, of which those outside the mask may come out as anything, even NaN.

    Returns
    -------
    Tensor, shape (B, ...)
    """
    rows = rows_where(mask)
    if not len(rows):
        return values
    new = compute(rows)
    if len(rows) < len(mask):
        return values.index_copy(0, rows, new)
    return torch.where(mask.view(-1, *[1] * (values.ndim - 1)), new, values)


@lru_cache(maxsize=256)
def index_tensor(numbers: tuple[int, ...] | tuple[tuple[int, ...], ...], device: str) -> Tensor:
    """Whole numbers as a tensor on a device, copied there once: int64. Not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.int64, device=device)


def add_at(sums: Tensor, dim: int, index: Tensor, values: Tensor) -> Tensor:
    """As ``sums.index_add_(dim, index, values)``, in an order that does not change from run to run.

    On CUDA, ``index_add_`` adds in whatever order threads arrive, and so rounds differently each time; ``index_put_``
    sorts the places first.
    """
    if not static_shapes(sums.device):
        return sums.index_add_(dim, index, values)
    sums.transpose(0, dim).index_put_((index,), values.transpose(0, dim), accumulate=True)
    return sums
