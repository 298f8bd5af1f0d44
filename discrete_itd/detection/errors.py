r"""Cells of a table that are probably wrong, by the other rows and the other cells of the row.

No model is there before: the table is its own reference. Every column is compared with every other by counts, without
the row in question (or the rows of its group), so that no cell supports itself. Text has a second view, the pattern of
its characters (*Ward 12* is ``Aa 9``): free text and identifiers have patterns where their values never repeat.

*Columns that depend on others.* Where one other column explains at least ``DEPENDS`` of a column's entropy, the second
is taken for a function of the first, disturbed by errors. The rows with the same value there vote on the cell: with
:math:`\Delta` more votes, averaged over such columns, for the cell than for its strongest rival, the log-odds that it
is right are :math:`\kappa \Delta` before anything is known of how often cells are wrong; that many rows dissent alike
is as probable as their share. A key may leave several values open: where keys differ in how many of their rows dissent,
the dissenting cells of those with many are no errors, nor are they where those of a key nearly always agree. A value
that other columns expect, by rows with another key, is right as far as many dissenting ones are expected, and most rows
of the key that agree in a second column, too, vote for theirs. Where numbers or dates follow from others with a spread,
dissenting ones are right as far as many are as near to the value expected. A missing cell is wrong with the share of
the rows of its key that have a value.

*Other columns.* The probability of a cell given the others is a mixture of conditional distributions given one other
column each, smoothed by absolute discounting (or by ``COUNT`` cells of the column's shares, where that is more likely),

.. math:: p(v \mid c) = \frac{\max(n_{cv} - d, 0)}{n_c} + \frac{d\,t_c}{n_c} p(v),

with :math:`t_c` different values among the :math:`n_c` rows of c, and :math:`p(v)` the share of v. Values without
another row have together the share of such cells (Good and Turing) as far as these are right: how many right ones
there should be follows from how many values have several rows, and those beyond are levels of f. Numbers are cut into
bins for this, with tails that outliers do not widen, on a linear or a logarithmic scale. Where they make the cells of
a column of few values more probable than this mixture, Bayesian networks of all columns, fitted to the rows of other
folds, take its place (:mod:`~discrete_itd.detection.cell_network`): a label may follow from many columns together.

Either way a share w of a column's cells deviates, with values that are flat (f) over its levels or its range. EM
estimates it together with the weights of the mixture, and by Bayes' rule

.. math:: P(\mathrm{wrong}) = \frac{\pi f(v)}{(1 - w)\,p(v \mid \mathrm{rest}) + w f(v)}.

The denominator is the law of the column as it was written, with its errors and its rightful exceptions. A share
:math:`\pi \le w` are errors: which, no cell says, but priors of both shares do
(:func:`~discrete_itd.detection.cell_counts.share_of_errors`); of values that no other row has, their number does.

Where two cells hardly go with each other, one of them is wrong: with odds a and b by all other cells, the first with
probability :math:`a (1 + b) / (a + b + a b)`. Text is also wrong if it is a misspelling of a more frequent value that
goes with its row, as far as rare values are nearer to frequent ones than these are to each other. Before all this,
cells are read as they are meant (:mod:`~discrete_itd.detection.written`).

*Relations* (23) that most rows follow are looked for, too. A number that follows from its row, however odd, is hardly
wrong; where a row breaks what 99 % of the rows follow, the cell is named that mends most
(:mod:`~discrete_itd.detection.equations`).

References
----------
Good, "The population frequencies of species and the estimation of population parameters", Biometrika 1953. Kneser &
Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995. Parciak et al., "Measuring approximate functional
dependencies", ICDE 2024, arXiv:2312.06296.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype
from pandas.util import hash_pandas_object
from scipy import optimize, sparse, special, stats

from discrete_itd.detection.cell_counts import (
    N_ITERATIONS,
    OFTEN,
    SEEN,
    SHARE,
    conditional,
    count_others,
    count_right_new,
    error_share,
    joined_codes,
    share_alone,
    share_of_errors,
    unit_weights,
)
from discrete_itd.detection.cell_network import CellNetwork, ColumnCells, folds
from discrete_itd.detection.cell_predictions import WRONG_CELLS
from discrete_itd.detection.equations import by_row, repairs
from discrete_itd.detection.written import Written, as_written, misspellings, moved, pattern
from discrete_itd.devices import one_thread
from discrete_itd.encoders import Column, TableEncoder
from discrete_itd.encoders import written as text_of
from discrete_itd.encoders.numeric import find_lattice
from discrete_itd.encoders.relation_search import relations_of
from discrete_itd.encoders.relations import Relation, is_numeric, numbers_of
from discrete_itd.models.held_out import check_groups
from discrete_itd.progress import progress_bar
from discrete_itd.reading.columns import typed
from discrete_itd.reading.frames import Polars, as_numbers, as_polars, is_polars, read_rows
from discrete_itd.reading.text import FEW_VALUES
from discrete_itd.validation import check_share

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

# A column is a function of another one (its key) that explains a share DEPENDS of its entropy, has values of FEWEST
# other rows by the median, and gives the column's cells a median probability of TYPICAL. Of several keys, those count
# from which a share of cells dissents that is at most NEARLY times the least share (chosen on hospital and clean
# beers), plus SLACK (on flights).
DEPENDS, TYPICAL, FEWEST, NEARLY, SLACK = 0.7, 0.25, 2, 2.5, 0.02
# candidates for the share of wrong rows in keys with one value, and for the share of keys that leave several open
RATES, OPEN = np.geomspace(0.001, 0.6, 30), np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7])
# share of pairs of dissenting rows of a key that agree, beyond chance and less by SEEN pairs, from which they are a
# second value (errors have .6 at most, those of flights, which sources copy; days of the month by that of the year .74)
LEAST_EXPECTED = 1e-6  # of wrong cells that may be expected
ALIKE = 0.7
VOTE = 2.0  # kappa: log-odds that one vote adds to a value
MOST_CONTEXTS = 8  # most other columns by which the cells of a column are judged
# most views of other columns that are tried, and pairs of rows that choose these
MOST_CANDIDATES, PAIRS = 32, 500
# Of very many columns, views of BESIDE columns to the left and right are tried.
BESIDE = 1000
# a column of more than FEW_VALUES numbers is divided into at most N_BINS bins of at least BIN_ROWS rows
N_BINS, BIN_ROWS = 16, 25
ENDS = 0.01, 0.99  # quantiles between which numbers tell whether they are on a logarithmic scale
# factors by which a moved decimal point changes a number, which is on the lattice if it is NEAREST steps from it
POINTS, NEAREST = 10.0 ** np.array([-3, -2, -1, 1, 2, 3]), 1e-6
FEWEST_UNITS = 50  # fewest rows, or groups of these, from which networks are fitted
SHAPES = 0.5  # prior standard deviation of the shape of a tail of numbers
SURE = 1e-6  # probability of an error, or of none, beyond which odds do not count
# two cells are equally likely wrong if their log-odds differ by less, nats: else one of a pair that contradicts each
# other alone would be named for the shares of its column
CLOSE = 1.0


@overload
def find_errors(
    table: Polars,
    *,
    min_probability: float = ...,
    groups: Any = ...,
    expected_share: float = ...,
) -> Polars: ...


@overload
def find_errors(
    table: Any,
    *,
    min_probability: float = ...,
    groups: Any = ...,
    expected_share: float = ...,
) -> pd.DataFrame: ...


@one_thread
def find_errors(
    table: Any, *, min_probability: float = 0.5, groups: Any = None, expected_share: float = 0.01
) -> Any:
    """The cells of a table that are probably wrong, and what they should be; no model is fitted before.

    Parameters
    ----------
    table : DataFrame or array-like, shape (N, C)
        A pandas frame, a table of another library that narwhals knows, or an array. Numbers and dates may be text.
    min_probability : float, default=0.5
        Cells are named whose probability of being wrong is not less.
    groups : array-like of hashable labels, shape (N,), optional
        What each row belongs to, like a customer. Rows of a group do not support each other: give it where they repeat
        each other's errors.
    expected_share : float, default=0.01
        Prior mean of the share of wrong cells in a column. Cells cannot tell rightful exceptions from errors that look
        like them: where many more cells of a column deviate from the others of their rows than are expected to be
        wrong, most of them are taken for exceptions. Raise it for a table that is known to be dirty.

    Returns
    -------
    DataFrame
        One line per cell, the most probable error first: its ``row`` (label of the index) and ``column``, its
        ``value``, the ``expected`` value, a cell of the same column or the number with its decimal point moved, and two
        probabilities: ``expected_probability`` that this is right, by the other columns or by how the column writes,
        which is at most the other (0, and ``expected`` None, where no other value is known; a missing value as
        ``expected`` with a probability above 0 says that the cell stands for a missing one), and
        ``probability_wrong``. Of the cells with .9 or more, .90 to 1.00 are wrong in each of twelve tables into which
        errors were planted (``python -m tests.benchmarks.cells unseen``). That is not so of any table. Where a column
        follows another one but for rightful exceptions in 3 % of the rows, a part of these is named with .5 to .6, or
        with more if no other row has their values; where it follows but for a tenth of the rows, none is, nor are as
        many errors (``python -m tests.benchmarks.cells exceptions``). Errors that are other plausible values are hardly
        found. Missing cells are included where a value should be there. A cell may also be
        wrong by its writing alone: numbers or dates in another notation than the column's, a format that hardly any
        other cell has (then what is expected follows from the other columns alone), codes without their leading zeros,
        words and numbers that stand for missing cells, characters that were lost or escaped, and a value that belongs
        into the empty cell beside.

    Raises
    ------
    ValueError, TypeError
        Naming the column or parameter that is invalid.

    Notes
    -----
    An error can be found if other rows contradict it. Where most cells of a column are wrong in the same way, they are
    what is expected. Where two cells contradict each other alone, each is wrong with probability .5.

    Examples
    --------
    >>> import pandas as pd
    >>> town, code, area = ["Bonn", "Köln", "Ulm"] * 20, [53, 50, 89] * 20, ["0228", "0221", "0731"] * 20
    >>> table = pd.DataFrame({"town": town, "code": code, "area": area})
    >>> table.loc[7, "town"] = "Ulm"
    >>> find_errors(table)[["row", "column", "value", "expected", "probability_wrong"]].round(2)
       row column value expected  probability_wrong
    0    7   town   Ulm     Köln               0.84
    """
    min_probability = check_share("min_probability", min_probability)
    expected_share = check_share("expected_share", expected_share)
    if expected_share < LEAST_EXPECTED:
        raise ValueError(
            f"expected_share must be at least {LEAST_EXPECTED:g}, got {expected_share!r}"
        )
    frame, _ = read_rows(table, find_errors)
    unit = check_groups(groups, len(frame))
    unit = np.arange(len(frame)) if unit is None else unit
    columns = (_dense(cells) for _, cells in frame.items())
    written = moved([as_written(cells) for cells in columns])
    meant = pd.concat([_typed(cells.meant) for cells in written], axis=1)
    with warnings.catch_warnings():
        # of columns that a model would leave out, and of unreadable cells
        warnings.simplefilter("ignore")
        schema = TableEncoder.fit(meant).schema
        views = [_views(c, meant.iloc[:, j]) for j, c in enumerate(schema)]
    contexts = [context for i, view in enumerate(views) for context in view.contexts(i)]
    network = _network(views, meant, unit)
    judged, wrong, mended = [], np.zeros(frame.shape), np.zeros(frame.shape)
    with progress_bar(len(views), "columns") as bar:
        for j, (own, near) in enumerate(zip(views, _near(views, contexts, unit), strict=True)):
            others = [contexts[k] for k in near if contexts[k].column != j]
            judged.append(_judged(own.values, own.bins, others, unit, expected_share, network, j))
            wrong[:, j], mended[:, j] = own.checked(judged[j], others, unit, expected_share)
            bar.update()
    if network is not None:
        network.ask(np.flatnonzero((np.column_stack([own.wrong for own in judged]) >= 0.5).any(1)))
    _share_blame(wrong, views, judged, unit)
    repaired = _by_relations(wrong, schema, meant)
    parts = zip(views, written, judged, strict=True)
    lines = [
        _lines(frame, j, *part, wrong[:, j], mended[:, j], repaired[j], min_probability)
        for j, part in enumerate(parts)
        if j == 0 or max(part[1].wrong.max(), wrong[:, j].max()) >= min_probability
    ]
    found = pd.concat(lines).sort_values("probability_wrong", ascending=False, kind="stable")
    found = found.reset_index(drop=True)
    return as_polars(found) if is_polars(table) else found


def _dense(cells: pd.Series) -> pd.Series:
    return cells.sparse.to_dense() if isinstance(cells.dtype, pd.SparseDtype) else cells


def _typed(cells: pd.Series) -> pd.Series:
    """Cells of text as numbers, truth values or times, if all of it is and no number is too large."""
    if infer_dtype(cells.astype(object)) != "string":
        return cells
    values = typed(cells)[0].rename(cells.name)
    return cells if values.dtype.kind == "f" and np.isinf(values).any() else values


def _network(views: list[ColumnViews], meant: pd.DataFrame, unit: Ints) -> CellNetwork | None:
    """Networks of the columns that have several frequent values, unless these are very many or the rows few."""
    codes = [(view.bins or view.values).codes for view in views]
    often = [j for j, c in enumerate(codes) if (np.bincount(c) >= OFTEN).sum() > 1]
    if len(np.unique(unit)) < FEWEST_UNITS or not 1 < len(often) <= MOST_CANDIDATES:
        return None
    columns, keys = dict[int, ColumnCells](), np.zeros(len(unit), np.uint64)
    for _, cells in meant.items():
        keys += hash_pandas_object(cells.map(ascii), index=False).to_numpy()  # pyright: ignore
    for j in often:
        alone, _ = share_alone(codes[j], unit)
        # n other rows of a value cannot tell that it is rarer beside some cells than 1 / (n + 1) of it alone
        columns[j] = ColumnCells(codes[j], alone, alone / (1 + count_others(codes[j], unit)))
    return CellNetwork(columns, folds(keys, unit))


def _share_blame(wrong: Floats, views: list[ColumnViews], judged: list[Judged], unit: Ints) -> None:
    """Change the probabilities (N, C) of cells that hardly go with another one, and of this: either may be wrong."""
    raised = np.zeros_like(wrong)
    for j, (view, own) in enumerate(zip(views, judged, strict=True)):
        is_sure = view.unreadable | view.values.absent
        if view.bins is None:
            is_sure = is_sure | (count_others(view.values.codes, unit) == 0)
        doubted = (own.wrong >= 0.5) & ~is_sure
        before = wrong[:, j].copy()
        for i in own.columns:
            other, share = judged[i], (own.share + judged[i].share) / 2
            rows = np.flatnonzero(doubted)
            rows = rows[own.against(rows, i)]
            a, b = (share * o.flat[rows] / o.without(rows, k) for o, k in ((own, i), (other, j)))
            is_close = np.abs(np.log(a / b)) < CLOSE
            a, b = (np.where(is_close, np.sqrt(a * b), x) for x in (a, b))
            blame, others = (x / (a + b + a * b) for x in (a * (1 + b), b * (1 + a)))
            wrong[rows, j] = np.minimum(wrong[rows, j], blame)
            raised[rows, i] = np.maximum(raised[rows, i], np.minimum(before[rows], others))
    np.maximum(wrong, raised, out=wrong)


def _by_relations(
    wrong: Floats, schema: Sequence[Column], meant: pd.DataFrame
) -> list[dict[int, tuple[Any, float]]]:
    """Change the probabilities (N, C) of cells of relations (23), and of each column what mends its rows.

    Wrong numbers are flat over those of the column, so few of them follow: the odds of a cell that does are multiplied
    by their share. A row that breaks what nearly all follow has a wrong cell, or is an exception; of its cells one is
    blamed, with the odds that the other columns give it and the relations that hold when it is mended.
    """
    relations = relations_of(meant, schema)
    repaired: list[dict[int, tuple[Any, float]]] = [{} for _ in schema]
    if not relations:
        return repaired
    numbers = numbers_of(meant, schema, {j for r in relations for j in r.columns})
    before = special.logit(np.clip(wrong, SURE, 1 - SURE))
    log_odds = before.copy()
    for relation in relations:
        rows = np.flatnonzero(relation.follows(numbers) == 1)
        for j in filter(lambda j: is_numeric(schema[j]), relation.columns):
            share = relation.share_alike(numbers[rows], j, numbers[:, j])
            log_odds[rows, j] += np.minimum(0.0, np.log(share / relation.share))
    following = log_odds != before
    wrong[following] = np.minimum(wrong, special.expit(log_odds))[following]
    ways = [
        way._replace(log_weight=way.log_weight + before[way.row, way.column])
        for way in repairs(schema, relations, numbers)
    ]
    broken = [_wrong_rows(relation, numbers) for relation in relations]
    for i, (of_row, shares) in by_row(ways).items():
        for way, share in zip(of_row, shares.tolist(), strict=True):
            p = share * broken[way.relation][i]
            wrong[i, way.column] = max(wrong[i, way.column], p)
            if p > repaired[way.column].get(i, (None, 0.0))[1]:
                repaired[way.column][i] = way.expected, p
    return repaired


def _wrong_rows(relation: Relation, numbers: Floats) -> Floats:
    """The probability (N,) that rows that do not follow have a wrong cell, and are no exceptions.

    A wrong number is flat over those of the column; exceptions are alike: they miss what follows by as much as others.
    """
    rows = np.flatnonzero(relation.follows(numbers) == 0)
    child = numbers[:, relation.child]
    flat = 1 / len(np.unique(child[np.isfinite(child)]))
    missed_by = np.rint((child - relation.values(numbers))[rows] / relation.step)
    n_alike = (np.bincount(codes := np.unique(missed_by, return_inverse=True)[1]) - 1)[codes]
    exception = (1 - relation.share) * (n_alike + flat) / len(rows)
    wrong = np.zeros(len(numbers))
    wrong[rows] = WRONG_CELLS * flat / (WRONG_CELLS * flat + exception)
    return wrong


def _near(views: list[ColumnViews], contexts: list[Context], unit: Ints) -> list[list[int]]:
    """The contexts by which each column is judged: all, or of very many those with the largest Goodman-Kruskal tau."""
    if len(contexts) <= MOST_CANDIDATES:
        return [list(range(len(contexts)))] * len(views)
    n_kept = max(MOST_CONTEXTS, MOST_CANDIDATES * BESIDE // max(len(contexts), BESIDE))
    codes = np.column_stack([(v.bins or v.values).codes.astype(np.int32) for v in views])
    equal = [np.bincount(c) / len(c) for c in codes.T]
    base = np.array([share @ share for share in equal])
    best, near = np.full((n_kept, len(views)), -1.0), np.zeros((n_kept, len(views)), np.int32)
    for start in range(0, len(contexts), BESIDE // 4):
        block = contexts[start : start + BESIDE // 4]
        beside = slice(max(block[0].column - BESIDE, 0), block[-1].column + BESIDE)
        tau = np.zeros((len(block), base[beside].size))
        for row, context in zip(tau, block, strict=True):
            for of in {id(a): a for a in (context.values, context.bins)}.values():
                order = np.lexsort((unit, of.codes))
                one, two = order[:-1], order[1:]
                kept = (of.codes[one] == of.codes[two]) & (unit[one] != unit[two]) & ~of.absent[one]
                at = np.flatnonzero(kept)
                at = at[np.linspace(0, len(at) - 1, min(len(at), PAIRS)).astype(int)]
                if len(at) > FEW_VALUES:
                    rate = (codes[one[at], beside] == codes[two[at], beside]).mean(0)
                    gain = (rate - base[beside]) / np.maximum(1 - base[beside], 1e-9)
                    np.maximum(row, gain, out=row)
            row[context.column - beside.start] = -1
        tried = np.broadcast_to(np.arange(start, start + len(block), dtype=np.int32), tau.T.shape).T
        tau, tried = np.vstack([best[:, beside], tau]), np.vstack([near[:, beside], tried])
        order = np.argsort(-tau, 0, kind="stable")[:n_kept]
        best[:, beside] = np.take_along_axis(tau, order, 0)
        near[:, beside] = np.take_along_axis(tried, order, 0)
    return [sorted(set(of.tolist())) for of in near.T]


# -- views of a column ------------------------------------------------------------------------------


@dataclass
class Aspect:
    """Cells as codes (N,), the last one for missing cells.

    Of numbers and times, ``places`` are the ranks of the codes. Of bins, ``log_flat`` (N,) is the log of a flat density
    over the density of the cell within its bin, and ``middles`` are the codes of their medians among the values.
    """

    codes: Ints
    absent: Bools
    places: Ints | None = None
    log_flat: Floats | None = None
    middles: Ints | None = None

    @cached_property
    def n_levels(self) -> int:
        return len(np.unique(self.codes))


class ColumnViews(NamedTuple):
    """The views of a column: values, patterns of text, bins of numbers; of ``few`` numbers only to find far ones.

    ``meant`` (N,) has the codes of the values of which cells are misspellings, with probability ``misspelt`` (N,) by
    the column alone; ``unreadable`` (N,) are cells of numbers or times that are none.
    """

    column: Column
    values: Aspect
    patterns: Aspect | None
    bins: Aspect | None
    few: Aspect | None
    meant: Ints
    misspelt: Floats
    unreadable: Bools

    def contexts(self, column: int) -> list[Context]:
        """The views as contexts of other columns."""
        found = [Context(column, self.values, self.bins or self.values)]
        if self.patterns:
            found.append(Context(column, self.patterns, self.patterns, is_pattern=True))
        return found

    def checked(
        self, judged: Judged, others: list[Context], unit: Ints, share: float
    ) -> tuple[Floats, Floats]:
        """The probability (N,) that cells are wrong, by all that is known of them, and that of a spelling mended."""
        wrong, mended = np.where(self.unreadable, 1.0, judged.wrong), np.zeros(len(unit))
        if self.patterns is not None:
            by_patterns = _judged(self.patterns, None, others, unit, share).wrong
            wrong = np.where(self.patterns.absent, wrong, np.maximum(wrong, by_patterns))
        if self.few is not None:
            far = _by_mixture(self.values, self.few, [], unit, share)
            wrong = np.maximum(wrong, far.wrong)
        if self.misspelt.any():  # Bayes' rule: the row must make the value that is meant probable
            p, base = judged.given(self.meant)
            (p_own, base_own), prior = judged.given(self.values.codes), self.misspelt
            odds = prior * p * base_own
            misspelt = odds / (odds + (1 - prior) * p_own * base)
            mended = np.where((misspelt > 0) & (misspelt >= wrong), p, 0.0)
            wrong = np.maximum(wrong, misspelt)
        return wrong, mended


class Context(NamedTuple):
    """A view of another column: by value, and by the bins of its numbers; or by pattern."""

    column: int
    values: Aspect
    bins: Aspect
    is_pattern: bool = False


def _views(column: Column, cells: pd.Series) -> ColumnViews:
    """The views of a column with these cells."""
    read, words = column.readable(cells)
    values, is_numeric = read.values, column.codec.of_numbers
    if is_numeric:
        values = as_numbers(column.name, read, column.family, column.origin, column.step)
    codes, distinct = pd.factorize(values)
    where = np.append(codes, len(distinct))[read.where]
    absent = read.where < 0
    patterns = bins = few = places = None
    meant, misspelt = np.arange(len(distinct) + 1), np.zeros(len(distinct) + 1)
    if len(distinct) > 1 and (is_numeric or column.is_number):
        numbers = np.asarray(distinct, float)
        places, numbers = np.append(np.argsort(np.argsort(numbers)), len(numbers)), numbers[codes]
        level, log_flat = _binned(_on_scale(numbers))
        order = np.lexsort((numbers, level))
        ends = np.searchsorted(level[order], np.arange(level.max() + 2))
        middles = np.append(codes[order[(ends[1:] + ends[:-1]) // 2]], len(distinct))
        level, log_flat = np.append(level, level.max() + 1), np.append(log_flat, 0.0)
        bins = Aspect(level[read.where], absent, None, log_flat[read.where], middles)
        if len(distinct) <= FEW_VALUES:
            bins, few = None, bins
    elif len(distinct) and all(isinstance(v, str) for v in distinct):
        of, misspelt[:-1] = misspellings(list(distinct), np.bincount(codes))
        meant[:-1] = np.where(of < 0, meant[:-1], of)
        of, known = pd.factorize(np.array([pattern(v) for v in distinct], dtype=object))
        if len(distinct) > FEW_VALUES and 1 < len(known) < len(codes) / 2:
            patterns = Aspect(np.append(of, len(known))[where], absent)
    unreadable = np.zeros(len(where), bool) if words is None else pd.notna(words)
    own = Aspect(where, absent, places)
    return ColumnViews(column, own, patterns, bins, few, meant[where], misspelt[where], unreadable)


def _on_scale(numbers: Floats) -> Floats:
    """Numbers (n,), or their logarithms if these are the more likely ones to be normal, far ones left aside."""
    z = numbers / np.abs(numbers).max()
    if z.min() > 0:
        low, high = np.quantile(z, ENDS)
        logs = np.log(z)
        inside = (low <= z) & (z <= high)
        if logs[inside].std() * math.exp(logs[inside].mean()) < z[inside].std():
            return logs
    return z


def _binned(z: Floats) -> tuple[Ints, Floats]:
    """Bins (n,) of numbers, the outer ones with tails, and the log of a flat density over that within the bin."""
    u, counts = np.unique(z, return_counts=True)
    n_bins = max(1, min(N_BINS, len(z) // BIN_ROWS))
    of = pd.factorize((np.cumsum(counts) - counts / 2) * n_bins // len(z))[0]
    edges = ((u[1:] + u[:-1]) / 2)[np.diff(of) > 0]
    level, reach = of[np.searchsorted(u, z)], u[-1] - u[0] or 1.0
    width = np.diff(edges, prepend=u[0], append=u[-1])
    log_density = -np.log(np.maximum(width, reach * 1e-9))[level]
    if len(edges):
        for end, edge, sign in ((0, edges[0], -1), (of[-1], edges[-1], 1)):
            n = counts[of == end]
            among = np.repeat(
                sign * (u[of == end] - edge), np.minimum(n, max(OFTEN, int(n.mean())))
            )
            log_density[level == end] = _log_tail(sign * (z[level == end] - edge), among)
    return level, -math.log(reach) - log_density


def _log_tail(distance: Floats, among: Floats) -> Floats:
    """Log-density of a generalised Pareto distribution with the median and upper quartile of distances ``among`` them.

    Its shape is shrunk towards 0, an exponential distribution, by its standard error; where it is below 0 by two of
    these, as at the ends of evenly distributed numbers, a tenth is left to that.
    """
    half, most = np.quantile(among, [0.5, 0.75])
    error = math.sqrt(3 / len(among)) / math.log(2) ** 2
    shape = math.log2(max(most / half - 1, 0.5))
    shape = max(shape, 0) / (1 + (error / SHAPES) ** 2) + min(shape + 2 * error, 0) or 1e-6
    scale = half * shape / (2**shape - 1)
    with np.errstate(divide="ignore"):
        inside = np.log(np.maximum(1 + shape * distance / scale, 0.0))
    log_density = -math.log(scale) - (1 / shape + 1) * inside
    if shape > 0:
        return log_density
    scale = half / math.log(2)
    return np.logaddexp(
        math.log(0.9) + log_density, math.log(0.1) - math.log(scale) - distance / scale
    )


# -- cells of a column ----------------------------------------------------------------------------------


class Judged(NamedTuple):
    """The probability (N,) that the cells of a column are ``wrong``, and what is ``expected`` in some rows (n,).

    That is codes, their probabilities, and the probabilities (n, L) of bins or None. The probability (n,) of cells is a
    function ``without`` one of the ``columns`` that tell it, -1 for none, and this one may be ``against`` them;
    ``flat`` (N,) is the density of wrong cells, and ``share`` theirs. ``given`` returns the probabilities (N,) of codes
    (N,) in the place of the cells, given the other columns and in this column alone.
    """

    wrong: Floats
    expected: Callable[[Ints], tuple[Ints, Floats, Floats | None]]
    columns: Sequence[int]
    without: Callable[[Ints, int], Floats]
    against: Callable[[Ints, int], Bools]
    flat: Floats
    share: float
    given: Callable[[Ints], tuple[Floats, Floats]]


def _voices(columns: Sequence[int], p: Floats, weights: Floats, alone: Floats) -> tuple[Any, Any]:
    """``without`` and ``against`` of :class:`Judged`, of columns that give probabilities ``p`` (N, E) with weights."""

    def without(rows: Ints, column: int) -> Floats:
        kept = [k for k, i in enumerate(columns) if i != column]
        return p[rows][:, kept] @ weights[kept] / weights[kept].sum() if kept else alone[rows]

    def against(rows: Ints, column: int) -> Bools:
        return (p[:, columns.index(column)] < alone)[rows]

    return without, against


def _given(
    codes: Ints, contexts: Sequence[Ints], weights: Floats, unit: Ints, asked: Ints
) -> tuple[Floats, Floats]:
    """``given`` of :class:`Judged`, of ``contexts`` with weights."""
    (alone, _), (base, _) = (share_alone(codes, unit, a) for a in (None, asked))
    parts = [conditional(codes, c, alone, unit, (asked, base))[0] for c in contexts]
    return (np.column_stack(parts) @ weights if parts else base), base


def _judged(
    view: Aspect,
    bins: Aspect | None,
    others: list[Context],
    unit: Ints,
    expected_share: float,
    network: CellNetwork | None = None,
    column: int = -1,
) -> Judged:
    """The cells of a column in one view, by the ``others`` of its row, or by a network of which it is ``column``."""
    alone, _ = share_alone(view.codes, unit)
    of = others if view.n_levels > 1 else []
    given = [conditional(view.codes, other.values.codes, alone, unit) for other in of]
    shares = [_explained(view, o.values, alone, *p) for o, p in zip(of, given, strict=True)]
    order = np.argsort(-np.array(shares), kind="stable").tolist()
    keys = [k for k in order if shares[k] >= DEPENDS][:MOST_CONTEXTS]
    every, binned = [], bins or view
    if bins is not None:
        alone, _ = share_alone(bins.codes, unit)
    for other, (p, _) in zip(of, given, strict=True):
        if bins is not None or other.bins is not other.values:
            p, _ = conditional(binned.codes, other.bins.codes, alone, unit)
        every.append((other.column, other.bins.codes, p))
    mixed = _by_mixture(view, binned, every, unit, expected_share)
    if network is not None and column in network.columns and bins is None:
        p, best = network.cells(column)
        told = _by_mixture(view, view, [(column, best, p)], unit, expected_share)
        rows = np.arange(len(unit))
        if np.log(told.without(rows, -1) / mixed.without(rows, -1)).mean() > 0:
            columns = [i for i in network.columns if i != column]
            mixed = told._replace(
                columns=columns,
                without=partial(network.given, column),
                against=partial(network.against, column),
            )
    if not keys:
        return mixed
    # what the other columns say in rows of another key, and of another unit
    best, columns = of[keys[0]].values, {of[k].column for k in keys}
    n_units, n_keys = int(unit.max()) + 1, int(best.codes.max()) + 1
    links = np.where(best.absent, unit, n_units + best.codes)
    graph = sparse.coo_array((np.ones(len(unit)), (unit, links)), shape=(n_units + n_keys,) * 2)
    apart = sparse.csgraph.connected_components(graph)[1][unit]
    alone, _ = share_alone(view.codes, apart)
    rest = [
        (o.column, o.values.codes, conditional(view.codes, o.values.codes, alone, apart)[0])
        for o in of
        if o.column not in columns
    ]
    weak = _by_mixture(view, view, rest, apart, expected_share)
    ratio = weak.without(np.arange(len(unit)), -1) / np.maximum(weak.flat, alone)
    # with a second column the best key may leave one value open; cells without one are pairs of their own
    pairs = [
        joined_codes(best.codes, o.values.codes + o.values.absent * (1 + unit))
        for o in of
        if o.column not in columns and not o.is_pattern and o.values.n_levels <= FEW_VALUES
    ]
    return _by_votes(
        view, [(of[k], given[k][0]) for k in keys], pairs, ratio, mixed, unit, expected_share
    )


def _explained(view: Aspect, other: Aspect, alone: Floats, p: Floats, n: Ints) -> float:
    """The share of a column's entropy, ``alone``, that another explains, of which ``n`` rows have a value; 0 if few."""
    both = (n > 0) & ~view.absent & ~other.absent
    if not both.any() or np.median(n) < FEWEST or np.median(p[both]) < TYPICAL:
        return 0.0
    entropy = -float(np.log(alone[both]).mean())
    return 1 + float(np.log(p[both]).mean()) / entropy if entropy > 0 else 0.0


def _indicators(codes: Ints, there: Bools) -> sparse.csr_array:
    """One-hot codes (N, K), with zeros in rows that are not there."""
    at = np.flatnonzero(there)
    return sparse.csr_array(
        (np.ones(len(at)), (at, codes[at])), shape=(len(codes), int(codes.max()) + 1)
    )


def _by_votes(
    view: Aspect,
    keys: list[tuple[Context, Floats]],
    pairs: list[Ints],
    ratio: Floats,
    mixed: Judged,
    unit: Ints,
    expected_share: float,
) -> Judged:
    """Cells of a column that is a function of each of the ``keys``, given which they have probabilities (N,).

    ``ratio`` (N,) is how much more probable the other columns make them, ``pairs`` are codes of a key and a second
    column, and ``mixed`` judges the cells for which no key has another row.
    """
    n_rows, (alone, is_new) = len(unit), share_alone(view.codes, unit)
    cells = _indicators(view.codes, ~view.absent)
    votes: Any = 0
    n_keys, present = np.zeros(n_rows), np.zeros(n_rows)
    of_keys, dissent = [], []
    for context, _ in keys:
        key = context.values
        there, of_key = ~key.absent, 0
        for sign, codes in ((1, key.codes), (-1, joined_codes(unit, key.codes))):
            same = _indicators(codes, there)
            of_key = of_key + sign * (same @ (same.T @ cells))
        most = of_key.tocsr().max(1).toarray().ravel()
        known = (most > 0) & ~view.absent
        of_keys.append(of_key)
        dissent.append((most > (of_key * cells).sum(1))[known].sum() / max(1, known.sum()))
    kept = [k for k, share in enumerate(dissent) if share <= NEARLY * min(dissent) + SLACK]
    for k in kept:
        key, of_key = keys[k][0].values, of_keys[k]
        votes = votes + of_key
        n = np.where(~key.absent, count_others(key.codes, unit), 0)
        n_keys += n > 0
        share = (of_key.sum(1) + 1 - view.absent.mean()) / (n + 1)
        present = np.maximum(present, np.where(of_key.sum(1) > 0, share, 0.0))
    own = votes * cells
    mine, rivals = own.sum(1), (votes - own).tocsr()
    rivals.eliminate_zeros()
    rival, best = rivals.max(1).toarray().ravel(), np.asarray(rivals.argmax(1)).ravel()
    odds = special.expit(VOTE * (mine - rival) / np.maximum(n_keys, 1))
    n_same, n_votes = mine / np.maximum(n_keys, 1), votes.sum(1)
    share = mine / np.maximum(n_votes, 1)  # of many votes: no typing error
    odds = np.maximum(odds, np.where(n_same >= OFTEN, share, 0.0))
    dissents, heard = rival > mine, ~view.absent & ((mine > 0) | (rival > 0))
    flat = np.where(is_new, 0.0, 1 / view.n_levels)
    flat = np.where(dissents, 1.0, flat)
    wrong, weights = np.where(view.absent, present, mixed.wrong), np.array([1 - SHARE, SHARE])
    if heard.any():
        wrong[heard], weights = error_share(
            odds[heard, None], flat[heard], unit_weights(view.codes, unit)[heard]
        )
    at = np.flatnonzero(heard & dissents)
    if len(at):
        ratio, allowed = ratio[at], 0.5
        if view.places is not None and any(keys[k][0].values.places is not None for k in kept):
            distance = view.places[view.codes[at]] - view.places[best[at]]
            ratio = np.maximum(ratio, _nearness(distance, view.n_levels))
        for _ in range(N_ITERATIONS):
            is_allowed = allowed * ratio / (allowed * ratio + 1 - allowed)
            allowed = is_allowed.sum() / (len(at) + SEEN)
        wrong[at] *= 1 - is_allowed
        wrong[at] *= 1 - np.min([_open(keys[k][0].values, view, unit)[at] for k in kept], 0)
        for codes in pairs:  # other rows of the key and the second column vote, too
            n, n_alike = (
                count_others(c, unit)[at] for c in (codes, joined_codes(codes, view.codes))
            )
            lead = 2 * n_alike - n
            wrong[at] *= np.where(lead >= FEWEST, 2 * special.expit(-VOTE * lead), 1.0)
        known = at[~is_new[at]]
        wrong[known] *= share_of_errors(wrong[known].sum(), heard.sum(), expected_share)

    def expected(rows: Ints) -> tuple[Ints, Floats, Floats | None]:
        code, p, of_bins = mixed.expected(rows)
        by_votes = heard[rows] | view.absent[rows]
        code = np.where(by_votes, np.where(dissents[rows], best[rows], view.codes[rows]), code)
        own = np.where(view.absent, present, np.maximum(odds, 1 - odds))[rows]
        if of_bins is not None:
            of_bins[by_votes] = 0.0
        return code, np.where(by_votes, own, p), of_bins

    even = np.full(len(kept), 1 / len(kept))
    p, flat = np.column_stack([keys[k][1] for k in kept]), _flat(view, unit)
    of = [keys[k][0].column for k in kept]
    given = partial(_given, view.codes, [keys[k][0].values.codes for k in kept], even, unit)
    return Judged(wrong, expected, of, *_voices(of, p, even, alone), flat, weights[-1], given)


def _nearness(distance: Ints, n_levels: int) -> Floats:
    """How much more probable a density that falls on either side makes distances (n,) than one flat over the levels."""
    n_alike = np.zeros(len(distance))
    for steps in (distance, -distance):
        own = steps > 0
        if own.any():
            counts = np.bincount(steps[own])[1:]
            n_alike[own] = optimize.isotonic_regression(counts, increasing=False).x[steps[own] - 1]
    return (n_alike * n_levels + SEEN) / (len(distance) + SEEN)


def _open(key: Aspect, view: Aspect, unit: Ints) -> Floats:
    """The probability (N,) that cells that dissent from the other rows of their key are right: it leaves them open."""
    pair, size = joined_codes(key.codes, view.codes), len(unit)
    rows = np.flatnonzero(~(key.absent | view.absent))
    rows = rows[np.unique(joined_codes(unit, pair)[rows], return_index=True)[1]]
    n_pair, n = (np.bincount(c[rows], minlength=size) for c in (pair, key.codes))
    most = np.zeros_like(n)
    np.maximum.at(most, key.codes[rows], n_pair[pair[rows]])
    n_other = n - most
    (n_rows, n_wrong), often = np.unique([n[n > 0], n_other[n > 0]], axis=1, return_counts=True)
    rate = RATES[:, None, None]
    closed = stats.binom.pmf(n_wrong, n_rows - 1, rate)
    fit = np.log((1 - OPEN[:, None]) * closed + OPEN[:, None] / n_rows) @ often
    fit += SEEN * (SHARE * np.log(rate) + (1 - SHARE) * np.log1p(-rate))[..., 0]
    best = np.unravel_index(fit.argmax(), fit.shape)
    rate, p = RATES[best[0]], OPEN[best[1]]
    n_rows, n_wrong = np.maximum(n, 1)[key.codes], n_other[key.codes]
    p = p / (p + (1 - p) * n_rows * stats.binom.pmf(n_wrong, n_rows - 1, rate))
    right = p * (1 - np.minimum(rate * (n_rows + 2) / (n_wrong + 1), 1))
    shares = np.sort(np.bincount(view.codes))[:-1] / len(view.codes)
    by_chance = (shares @ shares) / max(shares.sum() ** 2, 1 / size)
    # errors of one key are seldom the same: where they nearly always are, they are its second value
    alike = (n_pair @ (n_pair - 1) - most @ (most - 1)) / (n_other @ (n_other - 1) + SEEN)
    if alike > by_chance + ALIKE * (1 - by_chance):
        right = np.maximum(right, alike * n_pair[pair] / np.maximum(n_wrong, 1))
    return right


def _flat(view: Aspect, unit: Ints) -> Floats:
    """The probability (N,) of wrong cells: flat over the levels, one for those that no other unit has."""
    is_new = share_alone(view.codes, unit)[1]
    n_excess = is_new.sum() - count_right_new(view.codes, unit)
    return np.where(is_new, 1 + n_excess, 1) / (view.n_levels + 1)


def _by_mixture(
    view: Aspect,
    bins: Aspect,
    others: list[tuple[int, Ints, Floats]],
    unit: Ints,
    expected_share: float,
) -> Judged:
    """Cells of a column by a mixture of probabilities (N,) given one other column each, with its codes (N,)."""
    codes = bins.codes
    alone, _ = share_alone(codes, unit)
    gain = np.array([np.log(p / alone).mean() for _, _, p in others])
    found = [others[k] for k in np.argsort(-gain, kind="stable")[:MOST_CONTEXTS] if gain[k] > 0]
    columns, contexts, of = (
        zip(*found, strict=True) if found else ([], [np.zeros_like(codes)], [alone])
    )
    p = np.column_stack(of)
    flat = _flat(bins, unit)
    if bins.log_flat is not None:
        n, density = count_others(view.codes, unit), np.exp(np.minimum(bins.log_flat, 300.0))
        flat = np.where(bins.absent, flat, density)
        # a number of several rows is no outlier
        p = np.maximum(p, ((n >= OFTEN) * n / len(n) * view.n_levels * density)[:, None])
    wrong, weights = error_share(p, flat, unit_weights(view.codes, unit))
    known = ~share_alone(view.codes, unit)[1]  # how many of the others are right, counts say
    wrong[known] *= share_of_errors(wrong[known].sum(), len(known), expected_share)

    def expected(rows: Ints) -> tuple[Ints, Floats, Floats | None]:
        total = np.zeros((len(rows), int(codes.max()) + 1))
        for c, weight in zip(contexts, weights, strict=False):
            same = _indicators(c, np.ones(len(c), bool))
            counts = (same[rows] @ (same.T @ _indicators(codes, ~bins.absent))).toarray()
            counts[np.arange(len(rows)), codes[rows]] -= ~bins.absent[rows]
            total += weight * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        level, p = total.argmax(1), total.max(1)
        return (level, p, None) if bins.middles is None else (bins.middles[level], p, total)

    share, weights = weights[-1], weights[:-1] / weights[:-1].sum()
    given = partial(_given, codes, contexts if columns else [], weights, unit)
    return Judged(
        wrong, expected, columns, *_voices(columns, p, weights, alone), flat, share, given
    )


def _lines(
    frame: pd.DataFrame,
    j: int,
    own: ColumnViews,
    written: Written,
    judged: Judged,
    by_others: Floats,
    mended: Floats,
    repaired: dict[int, tuple[Any, float]],
    min_probability: float,
) -> pd.DataFrame:
    """The lines of :func:`find_errors` of one column."""
    wrong = np.maximum(by_others, written.wrong)
    rows = np.flatnonzero(wrong >= min_probability)
    code, p, of_bins = judged.expected(rows)
    p = np.where((mended > 0)[rows] & (code != own.meant[rows]), mended[rows], p)
    code = np.where((mended > 0)[rows], own.meant[rows], code)
    first = np.zeros(int(own.values.codes.max()) + 1, np.int64)
    order = np.argsort(written.wrong > 0, kind="stable")[::-1]
    first[own.values.codes[order]] = order
    values, meant = (c.astype(object).to_numpy() for c in (frame.iloc[:, j], written.meant))
    expected = np.where(written.wrong > 0, meant, values)[first[code]]
    is_known = code != own.values.codes[rows]
    if of_bins is not None and own.bins is not None:
        moved, p_moved = _with_point_moved(own.column, meant, rows, of_bins, own.bins.codes)
        expected, p = (np.where(p_moved > 0, *pair) for pair in ((moved, expected), (p_moved, p)))
        is_known |= p_moved > 0
    for n, i in enumerate(rows.tolist()):
        if repaired.get(i, (None, 0.0))[1] > p[n] * is_known[n]:
            cell, p[n] = repaired[i]
            expected[n] = text_of(cell, own.column) if isinstance(values[i], str) else cell
            is_known[n] = True
    is_meant = (written.right[rows] > 0) & (written.wrong[rows] > by_others[rows])
    # A missing cell is what is meant only where the other columns do not expect a value there.
    is_meant &= ~(pd.isna(meant[rows]) & (by_others[rows] >= 0.5))
    expected[~is_known], p = None, np.where(is_known, p, 0.0)
    return pd.DataFrame(
        {
            "row": frame.index[rows],
            "column": pd.Series([frame.columns[j]] * len(rows), dtype=object),
            "value": values[rows],
            "expected": np.where(is_meant, meant[rows], expected),
            "expected_probability": np.minimum(
                np.where(is_meant, written.right[rows], p), wrong[rows]
            ),
            "probability_wrong": wrong[rows],
        }
    )


def _with_point_moved(
    column: Column, cells: NDArray[np.object_], rows: Ints, of_bins: Floats, level: Ints
) -> tuple[NDArray[np.object_], Floats]:
    """Numbers among ``cells`` (N,) with the decimal point moved in ``rows`` (n,), and their probabilities, 0 for none.

    They are on the lattice of the column and within its range; of several the row makes the one taken most probable, by
    the probabilities ``of_bins`` (n, L) of the bins with codes ``level`` (N,).
    """
    if column.family != "number":
        return cells[rows], np.zeros(len(rows))
    read, _ = column.readable(pd.Series(cells, dtype=object))
    numbers = np.append(read.values.astype(float), np.nan)[read.where]
    order = np.argsort(numbers, kind="stable")[: np.isfinite(numbers).sum()]
    low, high = np.quantile(numbers[order], ENDS)
    step, origin = find_lattice(numbers[order])
    with np.errstate(all="ignore"):
        moved = numbers[rows, None] * POINTS
        places = 0 if origin is None else (moved - origin) / step
        fits = (np.abs(places - np.rint(places)) < NEAREST) & (low <= moved) & (moved <= high)
        fits &= moved != numbers[rows, None]
    near = order[np.minimum(np.searchsorted(numbers[order], moved), len(order) - 1)]
    p = np.where(fits, np.take_along_axis(of_bins, level[near], 1), 0.0)
    out, best = cells[rows], p.argmax(1)
    for i in np.flatnonzero(p.max(1, initial=0) > 0).tolist():
        text = f"{moved[i, best[i]]:.15g}"
        as_text = text if column.notation is None else text_of(float(text), column)
        new = as_text if isinstance(out[i], str) else float(text)
        out[i] = int(text) if isinstance(out[i], int) and text.isdecimal() else new
    return out, p.max(1)
