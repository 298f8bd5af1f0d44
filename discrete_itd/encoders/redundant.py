"""Notes at the fit: copies of columns, and categories that differ in case or spaces alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import pandas as pd

from discrete_itd.encoders.dtypes import is_number, read_cells
from discrete_itd.encoders.notation import quoted
from discrete_itd.encoders.observed import Observed
from discrete_itd.validation import advice, warn

MOST_NAMED = 3  # groups of copies, columns with variants, and words of one
ENOUGH = 20  # rows outside of the most frequent value, in which columns are hardly alike by chance


def copies(columns: Iterable[tuple[Hashable, pd.Series]]) -> list[list[Hashable]]:
    """Groups of columns (N,) with the same values in every row, or a one-to-one recoding of these; gaps are a value.

    Time and memory are linear in the cells. Columns of nearly one value may be alike by chance. Columns whose values
    hardly repeat are copies only if their values are the same, as each of them is a recoding of any other.
    """
    groups: dict[tuple[int, bytes], list[Hashable]] = defaultdict(list)
    for name, column in columns:
        values, where = read_cells(column)
        codes, distinct = pd.factorize(values)  # numbered as they appear, whatever they are
        own = np.append(codes, -1)[where]
        if len(own) - np.bincount(own + 1).max() < ENOUGH:
            continue
        plain = np.zeros(0)
        if 2 * len(distinct) > np.count_nonzero(own >= 0):
            plain = np.asarray(distinct).astype(float if is_number(values) else str)
        groups[hash(own.tobytes()), plain.tobytes()].append(name)
    return [group for group in groups.values() if len(group) > 1]


def variants(seen: Observed) -> list[list[tuple[str, int]]]:
    """Groups of texts of a column that differ in case or spaces alone, with their counts, the most frequent first."""
    texts, counts = seen.tally
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for text, n in zip(texts, counts.tolist(), strict=True):
        if isinstance(text, str) and n and (word := " ".join(text.split()).casefold()):
            groups[word].append((text, n))
    return [sorted(g, key=lambda found: -found[1]) for g in groups.values() if len(g) > 1]


def tell_redundant(columns: Mapping[Hashable, pd.Series], words: Iterable[Observed]) -> None:
    """Warn of :func:`copies`, and of :func:`variants` among ``words``, if there are any."""
    if found := copies(columns.items()):
        groups = [", ".join(map(repr, group)) for group in found]
        drops = advice("drop all but one", "keep one and give --drop for the others")
        warn(
            f"columns that are copies of each other in all rows, but for what their values are called:"
            f" {_first(groups, '; ')}; {drops}, unless rows where they differ are what is looked for"
        )
    parts = []
    for seen in words:
        if own := variants(seen):
            n = sum(count for group in own for _, count in group[1:])
            texts = [" = ".join(quoted(text) for text, _ in group) for group in own]
            rows = f"{n:,} row{'s' * (n > 1)} of rarer ones"
            parts.append(f"{seen.name!r} {_first(texts, ', ')} ({rows})")
    if parts:
        warn(
            f"categories that differ in case or spaces alone are taken as different: {_first(parts, '; ')};"
            " write them alike if they are the same"
        )


def _first(parts: list[str], mark: str) -> str:
    more = f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else ""
    return mark.join(parts[:MOST_NAMED]) + more
