"""Notes at the fit: copies of columns, one-hot columns, and categories that differ in case or spaces alone."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import pandas as pd

from discrete_itd.encoders.dtypes import is_number, read_cells
from discrete_itd.encoders.inference import CERTAIN
from discrete_itd.encoders.notation import TRUTHS, quoted
from discrete_itd.encoders.observed import Observed
from discrete_itd.validation import advice, warn

MOST_NAMED = 3  # groups of copies, columns with variants, and words of one
FEWEST_DUMMIES = 3  # one-hot columns; two are copies of each other
ENOUGH = 20  # rows in which columns are hardly one-hot by chance
OFF_ON = {0: False, 1: True, "0": False, "1": True, **TRUTHS}  # and truth values, which are numbers


def copies(columns: Iterable[tuple[Hashable, pd.Series]]) -> list[list[Hashable]]:
    """Groups of columns (N,) with the same values in every row, or a one-to-one recoding of these; gaps are a value.

    Time and memory are linear in the cells. Columns that may be alike by chance are no copies: those of one value, of a
    few rows, or of another value in one row alone. Columns whose values hardly repeat are only if their values are the
    same, as each of them is a recoding of any other.
    """
    groups: dict[int | tuple[int, bytes], list[Hashable]] = defaultdict(list)
    for name, column in columns:
        values, where = read_cells(column)
        codes, found = pd.factorize(values)  # numbered as they appear, whatever they are
        distinct = np.asarray(found)
        own = np.append(codes, -1)[where]
        counts = np.bincount(codes).tolist()
        if math.lgamma(len(codes) + 1) - sum(math.lgamma(n + 1) for n in counts) < CERTAIN:
            continue  # the logarithm of the number of columns with these counts
        same = hash(own.tobytes())
        if 2 * len(distinct) <= np.count_nonzero(own >= 0):
            groups[same].append(name)
        else:
            plain = distinct.astype(float if is_number(distinct) else str)
            groups[same, plain.tobytes()].append(name)
    return [group for group in groups.values() if len(group) > 1]


def dummies(columns: Mapping[Hashable, pd.Series]) -> list[list[Hashable]]:
    """Runs of neighbouring columns (N,) of truth values, zeros and ones of which one is on in every row."""
    n_rows, on = len(next(iter(columns.values()), ())), dict[Hashable, np.ndarray]()
    found, names, ends = list[list[Hashable]](), [*columns], [0]  # rows with one on, up to a column
    for name, column in columns.items():
        values, where = read_cells(column)
        codes, distinct = pd.factorize(values)
        truths = [OFF_ON.get(v) for v in distinct.tolist()]
        if len(truths) == 2 and None not in truths and (where >= 0).all():
            on[name] = np.array(truths, dtype=bool)[codes][where]
        ends.append(ends[-1] + (int(on[name].sum()) if name in on else n_rows + 1))
    start = 0
    while n_rows >= ENOUGH and start < len(names):
        end = bisect_left(ends, ends[start] + n_rows, lo=start)
        run = names[start:end]
        is_full = end < len(ends) and ends[end] - ends[start] == n_rows
        if is_full and len(run) >= FEWEST_DUMMIES and np.sum([on[n] for n in run], 0).max() == 1:
            found.append(run)
            start = end
        else:
            start += 1
    return found


def variants(seen: Observed) -> list[list[tuple[str, int]]]:
    """Groups of texts of a column that differ in case or spaces alone, with their counts, the most frequent first."""
    texts, counts = seen.tally
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for text, n in zip(texts, counts.tolist(), strict=True):
        if isinstance(text, str) and n and (word := " ".join(text.split()).casefold()):
            groups[word].append((text, n))
    return [sorted(g, key=lambda found: -found[1]) for g in groups.values() if len(g) > 1]


def tell_redundant(columns: Mapping[Hashable, pd.Series]) -> None:
    """Warn of :func:`copies` and of :func:`dummies`, if there are any."""
    if found := dummies(columns):
        named = "; ".join(f"{run[0]!r} to {run[-1]!r}" for run in found[:MOST_NAMED])
        warn(
            f"one-hot columns, of which one is on in every row: {named}{_more(found)}; one column of categories in"
            " their place is modelled better and faster (pandas.from_dummies makes it)"
        )
    if found := copies(columns.items()):
        named = "; ".join(", ".join(map(repr, group)) for group in found[:MOST_NAMED])
        drops = advice("drop all but one", "keep one and give --drop for the others")
        warn(
            f"columns that are copies of each other in all rows, but for what their values are called:"
            f" {named}{_more(found)}; {drops}, unless rows where they differ are what is looked for"
        )


def tell_variants(columns: Mapping[Hashable, Observed]) -> None:
    """Warn of :func:`variants` in columns of categories, if there are any."""
    found = {name: groups for name, seen in columns.items() if (groups := variants(seen))}
    if not found:
        return
    parts = []
    for name, groups in [*found.items()][:MOST_NAMED]:
        n = sum(count for group in groups for _, count in group[1:])
        words = [" = ".join(quoted(text) for text, _ in group) for group in groups]
        rows = f"{n:,} row{'s' * (n > 1)} of rarer ones"
        parts.append(f"{name!r} {', '.join(words[:MOST_NAMED])}{_more(words)} ({rows})")
    warn(
        f"categories that differ in case or spaces alone are taken as different: {'; '.join(parts)}{_more(found)};"
        " write them alike if they are the same"
    )


def _more(found: list | dict) -> str:
    return f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
