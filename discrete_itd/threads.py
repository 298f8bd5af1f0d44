"""The number of torch's threads: one, unless a product is large enough to repay more.

Threads of OpenMP that wait for each other spin, for milliseconds after every operation. Where other programs run, a
thread that was put aside lets all others spin: an operation of 3 µs takes 700, and CPU time that nobody has. So

* everything public runs in one thread (:func:`one_thread`, :func:`in_one_thread`);
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
from typing import ParamSpec, TypeVar

import torch
from joblib import cpu_count

LEAST_WORK = 4e7  # multiply-adds of a step for each thread: some 2 ms
# what asks for short waits, see the package's __init__
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

P = ParamSpec("P")
R = TypeVar("R")
Made = TypeVar("Made", bound=type)
_callers = threading.local()  # most: threads that a large product may take, within in_one_thread


def most_threads() -> int:
    """The threads that a large product may take here."""
    if not any(name in os.environ for name in WAITING):
        return 1
    most = getattr(_callers, "most", None)
    if most is None:
        most = torch.get_num_threads()
    return min(most, cpu_count()) if most > 1 else 1


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Within the block, torch uses one thread for what this thread of Python does, but within :func:`threads_for`."""
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
    """Within the block, torch uses as many threads as have ``LEAST_WORK`` each, at least one.

    ``work`` is the number of multiply-adds of a step or a block: rows, times the floats that are multiplied for a row.
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
    """A function that runs within :func:`in_one_thread`."""

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with in_one_thread():
            return function(*args, **kwargs)

    return limited


def methods_in_one_thread(cls: Made) -> Made:
    """The class, with :func:`one_thread` around its public methods, including methods of its mixins in the package."""
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
