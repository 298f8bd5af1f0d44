"""How many threads torch takes: where other programs are busy, threads that wait for each other lose to one.

The number belongs to the calling Python thread. Torch gives a thread that uses it for the first time the number that
was set last, so one that starts within a block below keeps the smaller number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PROBE_SECONDS = 0.03  # several time slices of the operating system
VALID_SECONDS = 5.0  # of a probe: a fit of a small table trains several models in less
PROBE_SIZE = 256  # rows and columns of a matrix product like those of a training step
FEW_ROWS = 16
LEAST_GAIN = 1.3  # of speed, for which twice the threads are taken


@contextmanager
def threads_that_pay(device: torch.device) -> Iterator[None]:
    """Within the block, torch uses as many threads as pay now, at most as many as before.

    No result depends on their number but through the time that ``max_time`` allows.
    """
    most = torch.get_num_threads()
    if most == 1 or device.type != "cpu":
        yield
        return
    try:
        torch.set_num_threads(_probed(most))
        yield
    finally:
        torch.set_num_threads(most)


_probes: dict[
    int, tuple[float, int]
] = {}  # by the most threads: when it was found, and how many pay


def _probed(most: int) -> int:
    """The number of threads that pay, measured unless it was just now."""
    when, n = _probes.get(most, (-math.inf, most))
    if time.monotonic() - when > VALID_SECONDS:
        n = fewest_that_pay(most, speed)
        _probes[most] = time.monotonic(), n
    return n


@contextmanager
def threads_for(n_rows: int) -> Iterator[None]:
    """Within the block, torch uses one thread if few rows are scored: a second one would mostly wait."""
    before = torch.get_num_threads()
    if n_rows > FEW_ROWS or before == 1:
        yield
        return
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_set(n: int | None) -> Iterator[None]:
    """Within the block, torch uses n threads; None leaves their number as it is."""
    before = torch.get_num_threads()
    if n is None or n == before:
        yield
        return
    try:
        torch.set_num_threads(n)
        yield
    finally:
        torch.set_num_threads(before)


def fewest_that_pay(most: int, speed: Callable[[int], float]) -> int:
    """The number of threads from which halving them would cost speed; ``speed`` measures a number of threads."""
    n, fast = most, speed(most)
    while n > 1:
        slower = speed(n // 2)
        if fast > LEAST_GAIN * slower:
            break
        n, fast = n // 2, slower
    return n


def speed(n_threads: int) -> float:
    """Matrix products a second of so many threads."""
    torch.set_num_threads(n_threads)
    a = torch.ones(PROBE_SIZE, PROBE_SIZE)
    product = a @ a  # the threads are there
    start, n = time.perf_counter(), 0
    while (took := time.perf_counter() - start) < PROBE_SECONDS:
        torch.mm(a, a, out=product)
        n += 1
    return n / took
