"""Progress of long work: a bar on a terminal or in a notebook; for the command, elsewhere a line now and then."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import TqdmWarning

with warnings.catch_warnings():  # of a notebook without widgets, which gets a bar of text
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

LINE_SECONDS = 10.0  # between two lines
_has_outer: ContextVar[bool] = ContextVar("_has_outer", default=False)
_stages: ContextVar[tuple[Callable[[str], object], ...]] = ContextVar("_stages", default=())
_lines: ContextVar[Lines | None] = ContextVar("_lines", default=None)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose output is seen though it is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _hidden() -> bool | None:
    """Whether a bar is not to be seen; None leaves that to whether the output is a terminal."""
    return False if in_notebook() else None


def progress_bar(total: float, what: str, bar_format: str | None = None) -> tqdm:
    """A bar that appears after a second, only if somebody sees it and no bar of a stream is there."""
    disable = True if _has_outer.get() else _hidden()
    return tqdm(
        total=total, desc=what, disable=disable, leave=False, delay=1.0, bar_format=bar_format
    )


@contextmanager
def stream_progress(what: str) -> Iterator[tqdm]:
    """A bar of the rows of a stream and rows per second; bars of single steps stay away within the block.

    Whoever learns the number of rows sets ``total``.
    """
    with tqdm(
        desc=what, unit=" rows", unit_scale=True, disable=_hidden(), leave=False, delay=1.0
    ) as bar:
        token = _has_outer.set(True)
        lines = _lines.get()
        if lines is not None:
            lines.status = lambda: f"{what}, {bar.n:,} rows" if bar.n else what
            _count_hidden(bar)
        try:
            yield bar
        finally:
            _has_outer.reset(token)


def _count_hidden(bar: tqdm) -> None:
    """Let a bar that is not drawn count all the same."""
    if bar.disable:

        def update(n: float | None = 1) -> None:
            bar.n += n or 0

        bar.update = update


@contextmanager
def fit_progress() -> Iterator[Callable[[float, float], None]]:
    """A bar for a fit: a function of the share of training that is done and the latest held-out nats per row.

    It is there at once, and :func:`stage` says what the fit is doing before there is anything to count.
    """
    bar_format = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(
        total=1.0,
        desc="fit",
        disable=True if _has_outer.get() else _hidden(),
        leave=False,
        bar_format=bar_format,
    ) as bar:
        now = {"text": "starting"}

        def tell(text: str) -> None:
            now["text"] = text
            if not bar.disable:
                bar.set_postfix_str(text)

        def show(done: float, valid_nats: float) -> None:
            what = ", choosing the schedule" if done >= 1 else ""
            now["text"] = f"{done:.0%} of the training, {valid_nats:.3f} nats held out{what}"
            if bar.disable:
                return
            bar.set_postfix_str(f"{valid_nats:.3f} nats held out{what}", refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        lines = _lines.get()
        if lines is not None:
            lines.status = lambda: f"fit, {now['text']}"
        token = _stages.set((tell,))
        try:
            yield show
        finally:
            _stages.reset(token)


def stage(text: str) -> None:
    """Say what a fit is doing, to those who watch it."""
    for tell in _stages.get():
        tell(text)


class Lines:
    """A line on stderr now and then, for those who read a log in place of a terminal.

    Attributes
    ----------
    status : callable
        What to say.
    """

    def __init__(self, seconds: float) -> None:
        self.status: Callable[[], str] = lambda: ""
        self._seconds, self._start = seconds, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            if text := self.status():
                elapsed = time.monotonic() - self._start
                sys.stderr.write(f"discrete-itd: {elapsed:.0f} s: {text}\n")
                sys.stderr.flush()

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def lines_now_and_then(seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Within the block, print what a fit or a stream is doing every few seconds if no bar can be seen."""
    if sys.stderr is None or sys.stderr.isatty():
        yield
        return
    with Lines(seconds) as lines:
        token = _lines.set(lines)
        try:
            yield
        finally:
            _lines.reset(token)
