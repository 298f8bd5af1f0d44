"""Progress bars for long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

_has_outer: ContextVar[bool] = ContextVar("_has_outer", default=False)


def progress_bar(total: float, what: str, bar_format: str | None = None) -> tqdm:
    """A bar that appears after a second, only if the output is a terminal and no bar of a stream is there."""
    disable = True if _has_outer.get() else None
    return tqdm(
        total=total, desc=what, disable=disable, leave=False, delay=1.0, bar_format=bar_format
    )


@contextmanager
def stream_progress(what: str) -> Iterator[tqdm]:
    """A bar of the rows of a stream and rows per second; bars of single steps stay away within the block.

    Whoever learns the number of rows sets ``total``.
    """
    with tqdm(
        desc=what, unit=" rows", unit_scale=True, disable=None, leave=False, delay=1.0
    ) as bar:
        token = _has_outer.set(True)
        try:
            yield bar
        finally:
            _has_outer.reset(token)


@contextmanager
def fit_progress() -> Iterator[Callable[[float, float], None]]:
    """A bar for a fit: a function of the share of training that is done and the latest held-out nats per row."""
    bar_format = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with progress_bar(1.0, "fit", bar_format) as bar:

        def show(done: float, valid_nats: float) -> None:
            what = ", choosing the schedule" if done >= 1 else ""
            bar.set_postfix_str(f"{valid_nats:.3f} nats held out{what}", refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        yield show
