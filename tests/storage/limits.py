"""Bounds on the time and the memory of a call."""

import signal
from contextlib import contextmanager
from pathlib import Path

import pytest


class TooLong(BaseException):
    """That a call takes for ever, which no handler of errors may hide."""


@contextmanager
def bounded(seconds, gigabytes):
    """An error instead of a hang or of a machine without memory."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (used + gigabytes * 2**30, limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
