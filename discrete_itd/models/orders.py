"""In which order a causal network conditions the columns: a few candidates, compared before any training.

Whatever the order, a network can in principle represent every distribution; but what follows from other columns, like
an instalment from amount, rate and months, it learns only where these come before it. Of that,
the regressions that a network starts from (:mod:`discrete_itd.denoisers.causal`) tell as much as the first steps of
a training do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from discrete_itd.denoisers.counts import indicators
from discrete_itd.models.contract import TrainingRows

KINDS = "natural", "explained first", "numbers first", "numbers last"
EXPLAINS = (
    1 / 8
)  # of the variance of a continuous column: by a category column that should come before it
MOST_ROWS = 4096  # by which shares of variances are estimated


def order_of(kind: str, natural: Sequence[int], rows: TrainingRows) -> list[int]:
    """An order of all columns, the leading ones first, made of a base's natural order.

    Parameters
    ----------
    kind : {"natural", "explained first", "numbers first", "numbers last"}
        "explained first" begins with the category columns that explain at least an eighth of the variance of a
        continuous column, and then has the continuous columns, those first that are explained least.
    natural : sequence of int
        The leading columns first.
    rows : TrainingRows
    """
    book = rows.codebook
    numbers, leading = set(book.reals.tolist()), set(torch.nonzero(book.leading).flatten().tolist())
    group = dict.fromkeys(natural, 3)
    within = dict.fromkeys(natural, 0.0)
    if kind == "explained first":
        shares = rows.once("explained variance", lambda: explained_variance(rows))
        explaining = (shares >= EXPLAINS).any(0)
        for j, explains in zip(book.finite.tolist(), explaining.tolist(), strict=True):
            group[j] = 1 if explains else 3
        within |= dict(zip(book.reals.tolist(), shares[:, explaining].sum(1).tolist(), strict=True))
    group |= dict.fromkeys(numbers, {"numbers first": 1, "numbers last": 4}.get(kind, 2))
    if kind == "natural":
        group = dict.fromkeys(natural, 1)
    group |= dict.fromkeys(leading, 0)
    return sorted(natural, key=lambda j: (group[j], within[j]))


def explained_variance(rows: TrainingRows) -> Tensor:
    """Share of the variance of each continuous column that each category column explains: (R, F).

    Of the rows in which both cells are known; adjusted for the number of categories, so that noise explains nothing.
    """
    book, levels = rows.codebook, rows.codebook.levels
    x = rows.x[:: -(-len(rows.x) // MOST_ROWS) or 1]
    y = x[:, book.reals]
    is_level = indicators(book, x).to(y)  # (N, T)
    known = (~y.isnan()).to(y)
    y = y.nan_to_num(0.0) - y.nanmean(0).nan_to_num(0.0) * known
    column = levels.level_column

    def by_column(values: Tensor) -> Tensor:
        """Sums (F, R) over the levels of each column."""
        return values.new_zeros(levels.n_columns, y.shape[1]).index_add(0, column, values)

    n, sums, squares = (is_level.T @ part for part in (known, y, y.square()))  # (T, R)
    n_rows, total = (
        by_column(n),
        by_column(squares) - by_column(sums).square() / by_column(n).clamp_min(1),
    )
    left = by_column(squares - sums.square() / n.clamp_min(1))
    freedom = n_rows - by_column((n > 0).to(n))
    unexplained = (left / freedom) / (total / (n_rows - 1))
    return (1 - unexplained).nan_to_num(0.0).clamp(0.0, 1.0).T
