"""Progress bars for long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


def progress_bar(total: float, what: str, bar_format: str | None = None) -> tqdm:
    """A bar that appears after a second, and only if the output is a terminal."""
    return tqdm(total=total, desc=what, disable=None, leave=False, delay=1.0, bar_format=bar_format)


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
