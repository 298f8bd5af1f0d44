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
dissenting ones are right as far as many are as near to the value expected.

*Missing cells.* Whether a cell is missing is a variable of its own. A key says which value would stand there, not that
one should: a missing cell is wrong with the probability that its row has a value given the values in other columns (one
of them, or two together, whichever explain best where the column has gaps;
:func:`~discrete_itd.cells.others.probability_missing`), as far as keys do not differ in how many of their rows lack
one. Gaps beside gaps may be lost together or rightly missing together: they are named, but what is expected there has
at most the probability of a value given the other gaps, too.

*Other columns.* The probability of a cell given the others is a mixture of conditional distributions given one other
column each, smoothed by absolute discounting (or by ``COUNT`` cells of the column's shares, where that is more likely),

.. math:: p(v \mid c) = \frac{\max(n_{cv} - d, 0)}{n_c} + \frac{d\,t_c}{n_c} p(v),

with :math:`t_c` different values among the :math:`n_c` rows of c, and :math:`p(v)` the share of v. Values without
another row have together the share of such cells (Good and Turing) as far as these are right: how many right ones
there should be follows from how many values have several rows, and those beyond are levels of f. Numbers are cut into
bins for this, with tails that outliers do not widen, on a linear or a logarithmic scale; where a column of numbers is
nearly a function of another one, these are judged by the spread about it alone (:mod:`~discrete_itd.cells.spread`).
Where they make the cells of a column of few values more probable than this mixture, Bayesian networks of all columns,
fitted to the rows of other folds, take its place (:mod:`~discrete_itd.cells.network`): a label may follow from many
columns together. Labels that are asked for by name are judged by gradient boosting, too
(:mod:`~discrete_itd.cells.boosting`).

Either way a share w of a column's cells deviates, with values that are flat (f) over its levels or its range. EM
estimates it together with the weights of the mixture, and by Bayes' rule

.. math:: P(\mathrm{wrong}) = \frac{\pi f(v)}{(1 - w)\,p(v \mid \mathrm{rest}) + w f(v)}.

The denominator is the law of the column as it was written, with its errors and its rightful exceptions. A share
:math:`\pi \le w` are errors: which, no cell says, but priors of both shares do, and that errors are as frequent in all
parts of a column (:func:`~discrete_itd.cells.channel.shares_of_errors`).

Where two cells hardly go with each other, one of them is wrong: with odds a and b by all other cells, the first with
probability :math:`a (1 + b) / (a + b + a b)`. Text is also wrong if it is a misspelling of a more frequent value that
goes with its row, as far as rare values are nearer to frequent ones than these are to each other. Before all this,
cells are read as they are meant (:mod:`~discrete_itd.cells.written`).

*Relations* (23) that most rows follow are looked for, too. A number that follows from its row, however odd, is hardly
wrong; where a row breaks what 99 % of the rows follow, the cell is named that mends most
(:mod:`~discrete_itd.cells.blame`).

References
----------
Good, "The population frequencies of species and the estimation of population parameters", Biometrika 1953. Kneser &
Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995. Parciak et al., "Measuring approximate functional
dependencies", ICDE 2024, arXiv:2312.06296. Northcutt, Athalye & Mueller, "Pervasive label errors in test sets
destabilize machine learning benchmarks", NeurIPS 2021, arXiv:2103.14749.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype

from discrete_itd.cells.blame import blame_by_relations, share_blame
from discrete_itd.cells.boosting import FOLDS, judged_by_boosting
from discrete_itd.cells.channel import LEAST_EXPECTED, NEAREST, POINTS
from discrete_itd.cells.judgement import Judged
from discrete_itd.cells.judges import judge, network_of
from discrete_itd.cells.network import content_keys, folds
from discrete_itd.cells.others import by_mixture
from discrete_itd.cells.views import ENDS, ColumnViews, Context, nearest_contexts, views_of
from discrete_itd.cells.written import Written, as_written, moved
from discrete_itd.devices import one_thread
from discrete_itd.encoders import Column, TableEncoder
from discrete_itd.encoders import written as text_of
from discrete_itd.encoders.column import is_missing
from discrete_itd.encoders.numeric import find_lattice
from discrete_itd.encoders.relation_search import relations_of
from discrete_itd.encoders.relations import is_numeric
from discrete_itd.models.held_out import check_groups
from discrete_itd.progress import progress_bar
from discrete_itd.reading.columns import typed
from discrete_itd.reading.frames import Polars, as_polars, is_polars, read_rows
from discrete_itd.validation import check_share

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
# prior shares of wrong cells, and of wrong labels that boosting judges
SHARE_OF_CELLS, SHARE_OF_LABELS = 0.01, 0.03

# reasons why a cell is named
CONTRADICTED = "it is improbable beside the other cells of its row and column"
MISSPELT = "it looks like a misspelling"
BROKEN = "the row breaks an equation that nearly all rows follow"
WRITTEN = "it is not written as its column is"
EXPECTED = "rows like its own have a value there"
WORDED = "its column has a cell for what is missing"


@overload
def find_errors(
    table: Polars,
    *,
    columns: Any = ...,
    min_probability: float = ...,
    groups: Any = ...,
    expected_share: float | None = ...,
) -> Polars: ...


@overload
def find_errors(
    table: Any,
    *,
    columns: Any = ...,
    min_probability: float = ...,
    groups: Any = ...,
    expected_share: float | None = ...,
) -> pd.DataFrame: ...


@one_thread
def find_errors(
    table: Any,
    *,
    columns: Any = None,
    min_probability: float = 0.5,
    groups: Any = None,
    expected_share: float | None = None,
) -> Any:
    """The cells of a table that are probably wrong, and what they should be; no model is fitted before.

    Parameters
    ----------
    table : DataFrame or array-like, shape (N, C)
        A pandas frame, a table of another library that narwhals knows, or an array. Numbers and dates may be text.
    columns : list of column names, optional
        Judge these columns alone, like the labels of a classifier; of an array, their positions. Where they have few
        levels, gradient boosting (scikit-learn's, out of five folds) is one more judge: it finds labels that contradict
        all other columns together.
    min_probability : float, default=0.5
        Cells are named whose probability of being wrong is not less.
    groups : array-like of hashable labels, shape (N,), optional
        What each row belongs to, like a customer. Rows of a group do not support each other: give it where they repeat
        each other's errors.
    expected_share : float, optional
        Prior mean of the share of wrong cells in a column; by default .01, and .03 of labels that boosting judges (in
        ten public test sets at least 3.3 % are wrong on average, Northcutt et al. 2021). Cells cannot tell rightful
        exceptions from errors that look like them: where many more cells of a column deviate from the others of their
        rows than are expected to be wrong, most of them are taken for exceptions. Raise it for a table that is known to
        be dirty.

    Returns
    -------
    DataFrame
        One line per cell, the most probable error first: its ``row`` (label of the index) and ``column``, its
        ``value``, the ``expected`` value, a cell of the same column or the number with its decimal point moved, and two
        probabilities: ``expected_probability`` that this is right, by the other columns or by how the column writes,
        which is at most the other (0, and ``expected`` None, where no other value is known; a missing value as
        ``expected`` with a probability above 0 says that the cell stands for a missing one), and
        ``probability_wrong``; and a ``sentence`` with the reason. Of the cells with .9 or more, .90 to 1.00 are wrong
        in each of twelve tables into which errors were planted (``python -m tests.benchmarks.cells unseen``). That is
        not so of any table. Where a column follows another one but for rightful exceptions in 3 % of the rows, a part
        of these is named with .5 to .6; where it follows but for a tenth of the rows, none is, nor are as many errors
        (``python -m tests.benchmarks.cells exceptions``). Errors that are other plausible values are hardly found.
        Missing cells are included where a key or an equation knows the value and the other columns do not explain that
        there is none, and with .5 where nearly all cells for what is missing are one word or number. A cell may also be
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
    share, share_of_labels = SHARE_OF_CELLS, SHARE_OF_LABELS
    if expected_share is not None:
        share = share_of_labels = check_share("expected_share", expected_share)
        if share < LEAST_EXPECTED:
            raise ValueError(
                f"expected_share must be at least {LEAST_EXPECTED:g}, got {expected_share!r}"
            )
    frame, _ = read_rows(table, find_errors)
    unit = check_groups(groups, len(frame))
    unit = np.arange(len(frame)) if unit is None else unit
    asked = _positions(columns, frame)
    written = moved([as_written(dense(cells)) for _, cells in frame.items()])
    meant = pd.concat([_typed(cells.meant) for cells in written], axis=1)
    # from here on rows are in an order that follows from what is in them, for codes, folds and ties
    keys, labels = content_keys(meant), frame.index
    order = np.argsort(keys, kind="stable")
    keys, unit, meant = keys[order], pd.factorize(unit[order])[0], meant.iloc[order]
    frame, written = frame.iloc[order].set_axis(order), [cells.taken(order) for cells in written]
    with warnings.catch_warnings():
        # of columns that a model would leave out, and of unreadable cells
        warnings.simplefilter("ignore")
        schema = TableEncoder.fit(meant).schema
        views = [views_of(c, meant.iloc[:, j], j in asked) for j, c in enumerate(schema)]
    relations = []
    if columns is None or any(is_numeric(schema[j]) for j in asked):
        relations = [r for r in relations_of(meant, schema) if asked & {*r.columns}]
    contexts = [context for i, view in enumerate(views) for context in view.contexts(i)]
    network, near = network_of(views, keys, unit), nearest_contexts(views, contexts, unit)

    def contexts_of(j: int) -> list[Context]:
        return [contexts[k] for k in near[j] if contexts[k].column != j]

    @cache
    def judged(j: int) -> Judged:
        view, others = views[j], contexts_of(j)
        by_others = judge(view.values, view.bins, others, unit, share, network, j)
        if columns is None or j not in asked or view.bins is not None:
            return by_others
        of = [context.values for context in others if not context.is_pattern]
        return judged_by_boosting(
            by_others, view.values, of, network, j, folds(keys, unit, FOLDS), unit, share_of_labels
        )

    wrong, mended = np.zeros(frame.shape), np.zeros(frame.shape)
    needed = sorted(asked.union(*(r.columns for r in relations)))
    with progress_bar(len(needed), "columns") as bar:
        for j in needed:
            wrong[:, j], mended[:, j] = _checked(views[j], judged(j), contexts_of(j), unit, share)
            bar.update()
    if network is not None:
        doubted = [judged(j).wrong >= 0.5 for j in needed if judged(j).columns]
        network.ask(np.flatnonzero(np.any(doubted, 0)))
    share_blame(wrong, views, judged, needed, unit)
    repaired = blame_by_relations(wrong, schema, meant, relations)
    lines = [
        _lines(
            *(frame, j, views[j], written[j], judged(j)),
            *(wrong[:, j], mended[:, j], repaired[j], min_probability),
        )
        for n, j in enumerate(sorted(asked))
        if n == 0 or max(written[j].wrong.max(), wrong[:, j].max()) >= min_probability
    ]
    found = pd.concat([of_column.sort_values("row") for of_column in lines])
    found = found.sort_values("probability_wrong", ascending=False, kind="stable")
    found = found.reset_index(drop=True)
    found["row"] = labels[found["row"].to_numpy()]
    return as_polars(found) if is_polars(table) else found


def _positions(columns: Any, frame: pd.DataFrame) -> set[int]:
    """The positions of named columns, all by default; ValueError names one that is not there."""
    if columns is None:
        return set(range(frame.shape[1]))
    is_one = isinstance(columns, str) or not isinstance(columns, Iterable)
    names, place = list(frame.columns), dict[Any, int]()
    for name in [columns] if is_one else columns:
        if not isinstance(name, Hashable) or name not in frame.columns:
            known = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise ValueError(
                f"column {name!r}: in columns=, but the table has no such column: {known}"
            )
        place[name] = names.index(name)
    if not place:
        raise ValueError("columns names no column")
    return set(place.values())


def dense(cells: pd.Series) -> pd.Series:
    """Cells as a plain column, if they are sparse ones."""
    return cells.sparse.to_dense() if isinstance(cells.dtype, pd.SparseDtype) else cells


def _typed(cells: pd.Series) -> pd.Series:
    """Cells of text as numbers, truth values or times, if all of it is and no number is too large."""
    if infer_dtype(cells.astype(object)) != "string":
        return cells
    values = typed(cells)[0].rename(cells.name)
    return cells if values.dtype.kind == "f" and np.isinf(values).any() else values


def _checked(
    views: ColumnViews, judged: Judged, others: list[Context], unit: Ints, share: float
) -> tuple[Floats, Floats]:
    """The probability (N,) that cells are wrong, by all that is known of them, and that of a spelling mended."""
    wrong, mended = np.where(views.unreadable, 1.0, judged.wrong), np.zeros(len(unit))
    if views.patterns is not None:
        by_patterns = judge(views.patterns, None, others, unit, share).wrong
        wrong = np.where(views.patterns.absent, wrong, np.maximum(wrong, by_patterns))
    if views.few is not None:
        far = by_mixture(views.values, views.few, [], [], unit, share)
        wrong = np.maximum(wrong, far.wrong)
    if views.misspelt.any():  # Bayes' rule: the row must make the value that is meant probable
        p, base = judged.given(views.meant)
        (p_own, base_own), prior = judged.given(views.values.codes), views.misspelt
        odds = prior * p * base_own
        misspelt = odds / (odds + (1 - prior) * p_own * base)
        mended = np.where((misspelt > 0) & (misspelt >= wrong), p, 0.0)
        wrong = np.maximum(wrong, misspelt)
    return wrong, mended


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
    reasons = np.where((mended > 0)[rows], MISSPELT, CONTRADICTED).astype(object)
    reasons[np.isin(rows, list(repaired))] = BROKEN
    reasons[written.wrong[rows] > by_others[rows]] = WRITTEN
    lines = pd.DataFrame(
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
    return lines.assign(
        sentence=[
            _sentence(*line, own.column)
            for line in zip(lines.to_dict("records"), reasons, strict=True)
        ]
    )


def _sentence(line: Mapping[str, Any], reason: str, column: Column) -> str:
    """One line of :func:`find_errors`, as an English sentence without its full stop."""
    cell = f"{line['column']} = {text_of(line['value'], column)}"
    if is_missing(line["value"]):
        cell = f"the missing cell in {line['column']}"
        reason = WORDED if reason == WRITTEN else EXPECTED
    how_likely = "likely wrong" if line["probability_wrong"] > 0.5 else "perhaps wrong"
    text = f"{cell} is {how_likely}: {reason}"
    if line["expected_probability"] > 0:
        expected = text_of(line["expected"], column)
        text += f"; {expected} is expected (probability {line['expected_probability']:.2f})"
    return text


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
