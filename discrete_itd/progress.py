"""A progress bar for long work."""

from __future__ import annotations

from tqdm import tqdm


def progress_bar(total: float, what: str, bar_format: str | None = None) -> tqdm:
    """A bar that shows up after a second, and not at all where the output is no terminal."""
    return tqdm(total=total, desc=what, disable=None, leave=False, delay=1.0, bar_format=bar_format)
