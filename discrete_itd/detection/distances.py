r"""How far a row is from the rows of the fit: the second view of the anomaly score.

A density says how probable each cell is; what it has not learned of a table, a second model of the same cells has
mostly not learned, either. A distance models nothing, and errs in other rows. Numbers are compared by their normal
scores :math:`u`, that is, by their ranks, so that no unit and no monotone transform counts. Rows of the fit are
divided into K groups of five to nine, again and again at the median of the column in which a part of them is widest;
with the means :math:`c_k` of the groups,

.. math:: r_j(x) = (u_j(x) - c_{kj})^2, \qquad r(x) = \sum_j r_j(x), \qquad z(x) = \frac{r(x) - \bar r}{\mathrm{sd}(r)},

where k is the nearest group, and the mean and the standard deviation are of rows of the fit, of which none is compared
with its own group. A row that is farther than the mean has

.. math:: \sigma \, \frac{D}{C} \, \mathrm{arsinh}(z)

more nats in the score (12), with :math:`\sigma` the standard deviation of that score in rows that the model draws, D
the columns of numbers and C all columns: both views weigh the same where all are numbers, and where far, only each
doubling of the distance counts. Those of column j are in proportion to :math:`r_j`. Numbers may be levels, and at least
five cells of a column are known; where some are missing, the others stand for them.

No row is kept, and no mean of fewer than five cells or rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import ndtri

from discrete_itd.encoders import Column
from discrete_itd.storage.values import Like

Floats, Ints = NDArray[np.float64], NDArray[np.int64]
GROUP = 5  # fewest rows of a group, and fewest numbers of a knot
# A score costs K D products: at most so many groups, and so many numbers in all means.
MOST_GROUPS, MOST_NUMBERS = 500, 1 << 16
MOST_KNOTS = 200  # by which numbers become normal scores
COMPARED = 1000  # rows of the fit whose distances have the mean and the standard deviation of r
# The deviation of r, of normal scores of variance one, is so much a column at least: where most rows equal each other,
# another one is as odd as that, not infinitely odd.
LEAST_SPREAD = 0.01
AT_ONCE = 1 << 21  # distances in memory


@dataclass(frozen=True, eq=False)
class Distances:
    """Means of groups of the rows of a fit, and what their distances are worth.

    Attributes
    ----------
    columns : tuple of int, length D
        Positions of the columns of numbers in the table.
    knots : ndarray, shape (2, D, G)
        Means of encoded numbers that follow each other, ascending, and their normal scores.
    means : ndarray, shape (K, D)
        Mean normal scores of the groups.
    usual : (float, float)
        Mean and standard deviation of r.
    sigma : float
        Nats of a row that is arsinh(z) = 1 far; 0 before they are known.
    """

    columns: tuple[int, ...]
    knots: Annotated[np.ndarray, Like("float64", 2, "D", "G")]
    means: Annotated[np.ndarray, Like("float64", "K", "D")]
    usual: tuple[float, float]
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.columns) == self.knots.shape[1] == self.means.shape[1] > 0:
            raise ValueError(f"distances are of columns {self.columns}")
        if not 0 < self.usual[1] < np.inf or not 0 <= self.sigma < np.inf:
            raise ValueError(f"the deviation of distances is {self.usual[1]}, in nats {self.sigma}")

    @classmethod
    def of(cls, schema: Sequence[Column], cells: Floats) -> Distances | None:
        """Of the rows (N, C') of a fit, in random order; None without numbers that differ, or of too few rows."""
        columns = [j for j, column in enumerate(schema) if is_of_numbers(column)]
        n_groups = min(MOST_GROUPS, MOST_NUMBERS // max(1, len(columns)), len(cells) // GROUP)
        numbers = numbers_of(schema, columns, cells[: GROUP * n_groups])
        is_used = (~np.isnan(numbers)).sum(0) >= GROUP
        columns, numbers = tuple(np.array(columns)[is_used].tolist()), numbers[:, is_used]
        if not columns or n_groups < 2 or (np.nanmin(numbers, 0) == np.nanmax(numbers, 0)).all():
            return None
        knots = knots_of(numbers)
        scores = normal_scores(numbers, knots)
        groups = halved(scores, np.arange(len(scores)))
        means = np.array([mean(scores[group]) for group in groups])
        group_of = np.empty(len(scores), np.int64)
        for k, group in enumerate(groups):
            group_of[group] = k
        total = squares(scores[:COMPARED], means, group_of[:COMPARED]).sum(1)
        usual = float(total.mean()), max(float(total.std()), LEAST_SPREAD * len(columns))
        return cls(columns, knots, means, usual)

    def terms(self, schema: Sequence[Column], cells: Floats) -> Floats:
        """Nats (N, C') of encoded ``cells`` (N, C') in the score, by column; 0 in columns that do not count."""
        numbers, nats = numbers_of(schema, self.columns, cells), np.zeros(cells.shape)
        is_known = ~np.isnan(numbers)
        parts = squares(normal_scores(numbers, self.knots), self.means)
        parts *= is_known * (len(self.columns) / np.maximum(is_known.sum(1), 1))[:, None]
        total, (middle, spread) = parts.sum(1), self.usual
        voice = self.sigma * np.arcsinh(np.maximum(total - middle, 0.0) / spread)
        shares = parts / np.where(total > 0, total, 1.0)[:, None]
        nats[:, list(self.columns)] = voice[:, None] * shares
        return nats


def is_of_numbers(column: Column) -> bool:
    """Whether the cells of a column are numbers or truth values, be they levels: no times, and no text."""
    if column.codec.of_numbers:
        return column.family == "number"
    kinds = {*map(type, column.categories)}
    return bool(kinds) and kinds <= {int, float, bool}


def numbers_of(schema: Sequence[Column], columns: Sequence[int], cells: Floats) -> Floats:
    """Numbers (N, D), in the order of the table's, of encoded cells (N, C'); NaN of missing ones and new levels."""
    numbers = np.full((len(cells), len(columns)), np.nan)
    for d, j in enumerate(columns):
        x, column = cells[:, j], schema[j]
        known = ~np.isnan(x) & (x != column.absent_level)
        if column.codec.of_numbers:
            numbers[known, d] = x[known]
        else:
            values = np.append(np.array(column.categories, dtype=float), np.nan)
            numbers[known, d] = values[column.codec.decode(x[known])]
    return numbers


def knots_of(numbers: Floats) -> Floats:
    """The knots (2, D, G) of numbers (N, D): means of GROUP and more that follow each other, and normal scores."""
    columns = []
    for column in numbers.T:
        known = np.sort(column[~np.isnan(column)])
        parts = np.array_split(np.arange(len(known)), max(1, min(MOST_KNOTS, len(known) // GROUP)))
        middle = [(part[0] + part[-1]) / 2 for part in parts]
        knots = np.array([mean(known[part]) for part in parts])
        # equal numbers have one score, that of the middle of their ranks
        distinct, where = np.unique(knots, return_inverse=True)
        rank = np.bincount(where, middle) / np.bincount(where)
        columns.append((distinct, ndtri((rank + 0.5) / len(known))))
    most = max(len(distinct) for distinct, _ in columns)
    padded = [
        [np.pad(values, (0, most - len(values)), mode="edge") for values in column]
        for column in columns
    ]
    return np.array(padded).transpose(1, 0, 2)


def mean(values: Floats) -> Floats:
    """The mean over the first axis: of equal numbers these, and of any floats a finite one."""
    return np.clip((values / len(values)).sum(0), values.min(0), values.max(0))


def normal_scores(numbers: Floats, knots: Floats) -> Floats:
    """Normal scores (N, D) of numbers (N, D), linear between the knots (2, D, G); 0 of missing ones."""
    columns = zip(numbers.T, *knots, strict=True)
    scores = np.column_stack([np.interp(column, x, u) for column, x, u in columns])
    return np.where(np.isnan(numbers), 0.0, scores)


def halved(scores: Floats, rows: Ints) -> list[Ints]:
    """The positions ``rows`` in groups of GROUP to 2 GROUP - 1 rows that are near each other."""
    if len(rows) < 2 * GROUP:
        return [rows]
    widest = scores[rows].var(0).argmax()
    order, half = rows[np.argsort(scores[rows, widest], kind="stable")], len(rows) // 2
    return halved(scores, order[:half]) + halved(scores, order[half:])


def squares(scores: Floats, means: Floats, group_of: Ints | None = None) -> Floats:
    """Squared differences (N, D) to the nearest mean, or to the nearest other one than that of the row's group (N,)."""
    nearest, size = np.empty(len(scores), np.int64), max(1, AT_ONCE // len(means))
    for start in range(0, len(scores), size):
        part = slice(start, start + size)
        # pair by pair: a product of matrices rounds by the number of rows
        distance = cdist(scores[part], means, "sqeuclidean")
        if group_of is not None:
            distance[np.arange(len(distance)), group_of[part]] = np.inf
        nearest[part] = distance.argmin(1)
    return (scores - means[nearest]) ** 2
