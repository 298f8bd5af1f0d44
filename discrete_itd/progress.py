"""Progress bars, deadlines and interruption of long work.

Bars appear on a terminal or in a notebook. The bar of a fit names its current stage (:func:`stage`), and the time left
only with ``max_time``, as nothing else bounds it.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from tqdm import TqdmWarning

with warnings.catch_warnings():  # a notebook without widgets gets a bar of text
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories that may control a terminal
INTERRUPTS = signal.SIGINT, signal.SIGTERM  # deferred if their handler raises KeyboardInterrupt
_has_outer: ContextVar[bool] = ContextVar("_has_outer", default=False)
_fit: ContextVar[FitProgress | None] = ContextVar("_fit", default=None)
_interruption: ContextVar[threading.Event | None] = ContextVar("_interruption", default=None)


@dataclass(frozen=True)
class Deadline:
    """The end of a fit, which every stage checks before it begins a bounded piece of work.

    It is ``seconds`` after ``start`` by ``time.perf_counter``, or the first Ctrl-C (:func:`deferred_interrupts`).

    Examples
    --------
    >>> whole = Deadline(60.0)
    >>> whole.part(0.5).left < 30.0 < whole.left
    True
    """

    seconds: float = math.inf
    start: float = field(default_factory=lambda: time.perf_counter())  # tests replace it
    _interruption: threading.Event = field(
        default_factory=lambda: _interruption.get() or threading.Event(), repr=False
    )

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def interrupted(self) -> bool:
        """Whether the user has ended the fit."""
        return self._interruption.is_set()

    @property
    def left(self) -> float:
        """Seconds until the end, never below 0."""
        return 0.0 if self.interrupted else max(0.0, self.seconds - self.age)

    def part(self, share: float) -> Deadline:
        """A deadline with the same start and a share of the seconds."""
        return replace(self, seconds=share * self.seconds)

    def within(self, seconds: float) -> Deadline:
        """The deadline ``seconds`` from now, or this one if it is earlier."""
        return replace(self, seconds=min(self.seconds, self.age + seconds))


def harmless(text: str, file: TextIO) -> str:
    """A text that a file, maybe a terminal, can show.

    Escapes replace marks that would move the cursor or reverse the text, and characters that the file's encoding lacks.
    """
    whole = "".join(
        ascii(c)[1:-1] if c != "\n" and unicodedata.category(c) in CONTROLS else c for c in text
    )
    encoding = getattr(file, "encoding", None) or "utf-8"
    return whole.encode(encoding, "backslashreplace").decode(encoding)


def _bar(what: str, **how: Any) -> tqdm:
    """A bar that vanishes at its end; disabled without a terminal or notebook, and within a stream."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    is_notebook = "IPKernelApp" in getattr(shell, "config", {})
    if _has_outer.get():
        how["disable"] = True
    elif not is_notebook:
        how["disable"] = None  # tqdm looks for a terminal
    return tqdm(desc=what, leave=False, **how)


def progress_bar(total: float, what: str, bar_format: str | None = None) -> tqdm:
    """A bar that appears after a second; disabled without a terminal or notebook, and within a stream."""
    return _bar(what, total=total, delay=1.0, bar_format=bar_format)


@contextmanager
def stream_progress(what: str) -> Iterator[tqdm]:
    """Progress bar over rows, with rows per second; hides inner bars. The caller may set ``total``."""
    with _bar(what, unit=" rows", unit_scale=True, delay=1.0) as bar:
        token = _has_outer.set(True)
        try:
            yield bar
        finally:
            _has_outer.reset(token)


class FitProgress:
    """The bar of a fit and the stage beside it; see :func:`fit_progress`."""

    def __init__(self, bar: tqdm, deadline: Deadline, share: float) -> None:
        self.deadline, self.share = deadline, share
        self._bar, self._stages, self._training = bar, ["starting"], ""
        self._refresh()

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """Show this stage within the block."""
        self._stages.append(text)
        self._refresh()
        try:
            yield
        finally:
            self._stages.pop()
            self._training = ""
            self._refresh()

    def show(self, done: float, valid_nats: float) -> None:
        """Show the share of a training that is done, and its latest held-out nats."""
        self._training = f" {done:.0%}, {valid_nats:.3f} nats held out"
        self._refresh()

    @property
    def _end(self) -> str:
        left = self.deadline.left
        if self.deadline.interrupted:
            return ", interrupted"
        return f", at most {left:.0f} s left" if left < math.inf else ""

    def _refresh(self) -> None:
        """Draw the bar; with ``max_time`` its length is the share of the time that is used up."""
        if not self._bar.disable:
            text = f"{self._stages[-1]}{self._training}{self._end}"
            self._bar.set_postfix_str(harmless(text, sys.stderr), refresh=False)
            self._bar.update(min(0.99, self.deadline.age / self.deadline.seconds) - self._bar.n)
            self._bar.refresh()


@contextmanager
def fit_progress(max_time: float | None = None, share: float = 1.0) -> Iterator[FitProgress]:
    """One bar for a fit, shown at once, which fits within the block share.

    The fit may take ``max_time`` seconds, and ends at the first Ctrl-C; a fit within the block may take the ``share``
    of them.
    """
    outer = _fit.get()
    if outer is not None:
        yield outer
        return
    length = "" if max_time is None else "{percentage:3.0f}%|{bar}| "
    bar_format = f"{{desc}} {length}{{elapsed}}{{postfix}}"
    with deferred_interrupts(), _bar("fit", total=1.0, bar_format=bar_format) as bar:
        deadline = Deadline(math.inf if max_time is None else max_time)
        fit = FitProgress(bar, deadline, share)
        token = _fit.set(fit)
        try:
            yield fit
        finally:
            _fit.reset(token)


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Show a stage on the bar of the current fit, if any, within the block."""
    fit = _fit.get()
    with nullcontext() if fit is None else fit.stage(text):
        yield


def show_training(done: float, latest: Any) -> None:
    """Show on the bar of the current fit, if any, the share of a training that is done and its latest evaluation."""
    if (fit := _fit.get()) is not None:
        fit.show(done, latest.valid_nats)


@contextmanager
def deferred_interrupts() -> Iterator[threading.Event]:
    """Within the block, the first interruption sets the event that is yielded, and ends every :class:`Deadline` there.

    The second one raises KeyboardInterrupt; so does the first one if the program has its own handler. An inner block
    shares the event of the outer one.
    """
    if (outer := _interruption.get()) is not None:
        yield outer
        return
    event, signals = threading.Event(), []
    if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
        signals = [s for s in INTERRUPTS if signal.getsignal(s) is signal.default_int_handler]

    def restore() -> None:
        for number in signals:
            signal.signal(number, signal.default_int_handler)

    def interrupted(*_: object) -> None:
        restore()
        event.set()

    for number in signals:
        signal.signal(number, interrupted)
    token = _interruption.set(event)
    try:
        yield event
    finally:
        _interruption.reset(token)
        restore()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within the block, SIGTERM does what Ctrl-C does, unless the program has a handler of its own."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    # SIGTERM itself: shells make background processes ignore SIGINT
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
