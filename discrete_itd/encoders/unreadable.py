"""Unreadable cells: text in a column of numbers or times that is neither one of these nor a word for a missing cell.

Training takes them for missing. In a new row both the value of the cell and whether it is missing are unknown, and
summed out: nothing of it counts. :class:`~discrete_itd.encoders.rows.Rows` have the text, and a warning names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from discrete_itd.encoders.notation import quoted
from discrete_itd.validation import warn

Words = Mapping[Hashable, Mapping[str, int]]  # how often each text occurs, by column
MOST_WORDS = 3  # of a column, in a warning

_collected: ContextVar[dict[Hashable, Counter[str]] | None] = ContextVar("collected", default=None)


def n_unreadable(words: Words) -> int:
    """Number of unreadable cells."""
    return sum(sum(counts.values()) for counts in words.values())


@contextmanager
def collected() -> Iterator[dict[Hashable, Counter[str]]]:
    """Within the block, unreadable cells are counted by column and text, and nobody is warned of them."""
    token = _collected.set({})
    try:
        found = _collected.get()
        assert found is not None
        yield found
    finally:
        _collected.reset(token)


def tell_unreadable(words: Words, hints: Mapping[Hashable, str], *, fitted: bool = False) -> None:
    """Warn of unreadable cells, in one sentence, if there are any; ``hints`` explain the first text of a column.

    ``fitted`` says that they are of the training table.
    """
    if not words:
        return
    into = _collected.get()
    if into is not None:
        for name, counts in words.items():
            into.setdefault(name, Counter()).update(counts)
        return
    parts = []
    for name, counts in words.items():
        often = Counter(counts).most_common()
        texts = [quoted(text) + (f" ({n} times)" if n > 1 else "") for text, n in often]
        if len(texts) > MOST_WORDS:
            texts[MOST_WORDS:] = [f"{len(texts) - MOST_WORDS} other texts"]
        parts.append(f"{name!r} {', '.join(texts)}{hints.get(name, '')}")
    n = n_unreadable(words)
    cells = f"{n} unreadable cell{'s' * (n > 1)}"
    what = (
        "taken as missing, as all others" if fitted else "left out of the answers, as the columns"
    )
    kind = (
        "of the column are numbers or dates" if fitted else "are of numbers, dates or truth values"
    )
    warn(f"{cells} {what} {kind}: {'; '.join(parts)}")
