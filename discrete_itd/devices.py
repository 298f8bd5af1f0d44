"""The device, operations that never wait for it, and the number of threads.

A program queues work for a GPU and goes on. Where the shape of a tensor, or control flow, depends on values there
(``nonzero``, a boolean mask as an index, ``bool(tensor)``), the host has to wait for them, and the GPU is idle
meanwhile; so it does for a tensor that is copied from the host. On a CPU values can be read for free, and rows that
need no work are skipped. So a *step* uses the functions below, which skip work on the CPU and do all of it elsewhere,
with the same result up to rounding. Steps are: the forward and backward pass with the optimiser and the average of
weights; a denoiser's ``forward``, ``log_prob``, ``preceding`` and ``draw``; and the methods of posteriors. The host
waits for three denoisers: image denoisers check their inputs in every call, forests count the leaves that agree, and
the numbers of columns that follow from others are computed by the host.

Torch uses one thread, unless a product is large enough to repay more. Threads of OpenMP that wait for each other spin,
for milliseconds after every operation. Where other programs run, a thread that was put aside lets all others spin: an
operation of 3 µs takes 700, and CPU time that nobody has. So

* everything public runs in one thread (:func:`in_one_thread`);
* a training step or a block of scores takes more (:func:`threads_for`) if each of them has ``LEAST_WORK`` to do, at
  most as many as the caller's thread of Python had (``torch.set_num_threads``, OMP_NUM_THREADS), and as there are CPUs
  that this process may use: by its affinity, and by the quota of its container;
* the package asks for short waits, by variables of the environment, when it is imported before torch. If torch was
  there before, and nobody has asked, everything takes one thread.

The number of threads follows from sizes and CPUs, never from a clock: a fit repeated on the same machine has the same
rounding errors.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from joblib import cpu_count
from torch import Tensor

from discrete_itd import WAITING

LEAST_WORK = 4e7  # fewest multiply-adds of a step for each thread: some 2 ms

Made = TypeVar("Made", bound=type)
P = ParamSpec("P")
R = TypeVar("R")
_callers = threading.local()  # .most: threads for large products within in_one_thread


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
    """Whether no shape may depend on data of the device: True on all but the CPU."""
    return device.type != "cpu"


def any_true(mask: Tensor) -> bool:
    """Whether any entry of a mask is true; always True on devices but the CPU, where reading it would wait."""
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
    """Distinct rows of ``rows`` (n, ...), and the place of each row among them; all rows on devices but the CPU."""
    if static_shapes(rows.device):
        return rows, torch.arange(len(rows), device=rows.device)
    return torch.unique(rows, dim=0, return_inverse=True)


@functools.lru_cache(maxsize=256)
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


def most_threads() -> int:
    """Most threads that a large product may take here."""
    if not any(name in os.environ for name in WAITING):
        return 1
    most = getattr(_callers, "most", None)
    if most is None:
        most = torch.get_num_threads()
    return min(most, cpu_count()) if most > 1 else 1


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Within the block, torch uses one thread for this thread of Python, except within :func:`threads_for`."""
    before = torch.get_num_threads()
    if before == 1 or hasattr(_callers, "most"):
        yield
        return
    _callers.most = before
    try:
        with _set_threads(1):
            yield
    finally:
        del _callers.most


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Within the block, torch uses one thread for each ``LEAST_WORK`` of the ``work``, at least one.

    ``work`` is the number of multiply-adds of a step or a block: rows times multiplications for a row.
    """
    n = min(int(work / LEAST_WORK), most_threads()) if work >= 2 * LEAST_WORK else 1
    with _set_threads(n):
        yield


@contextmanager
def _set_threads(n: int) -> Iterator[None]:
    """Within the block, torch uses n threads for this thread of Python."""
    before = torch.get_num_threads()
    if n == before:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs within :func:`in_one_thread`.

    Unlike the decorator of contextlib, its frame is in this package: warnings look for the caller outside it.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with in_one_thread():
            return function(*args, **kwargs)

    return limited


def methods_in_one_thread(cls: Made) -> Made:
    """The class, with :func:`one_thread` around its public methods, those of its mixins in the package included."""
    package, public = __name__.partition(".")[0], {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == package:
            public |= {name: m for name, m in vars(base).items() if not name.startswith("_")}
    for name, member in public.items():
        if inspect.isfunction(member):
            setattr(cls, name, one_thread(member))
        elif isinstance(member, classmethod):
            setattr(cls, name, classmethod(one_thread(member.__func__)))
    return cls
