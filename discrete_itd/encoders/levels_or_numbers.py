r"""Whether the different numbers of a column are levels or points of a line: a comparison of code lengths, row by row.

Levels know nothing of distances: with :math:`n_x` rows of number x among n, a row costs the logarithm of its share, and
a number that no other row has is one of those never seen, which share Good and Turing's mass evenly over the range.
Points of a line are a kernel density in the unit of :class:`~discrete_itd.encoders.numeric.Continuous`, averaged over
the cell of each recorded number (20). Both are given the values of one other column, too, where that is cheaper, and
every row is left out of its own prediction:

.. math:: -\log \frac{k_x(c) - k_x + s\, p(x)}{n(c) - 1 + s},

where c is the other column's value, n(c) its rows, k_x(c) their kernels at x, :math:`k_x` being the row's own (of
levels, counts and 1), and p(x) the probability without c. The pseudo-count s and the kernel's width are the cheapest.

References
----------
Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtr

from discrete_itd.encoders.numeric import fit_continuous

WIDTHS = np.array([0.06, 0.12, 0.25, 0.5])  # standard deviations of kernels, in those of the column
STRENGTHS = np.array([0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
WIDE = 0.02  # share of each kernel that is as wide as the column
MOST_GROUPS = 8  # most values, or ranges of values, of another column whose cells are given
MOST_OTHERS = 64  # other columns, evenly spaced in the table, from which the given one is chosen
SCALE_ROWS = 10_000  # rows that determine the unit of the line
LEAST_GAIN = 0.02  # nats of a cell by which numbers must be cheaper than levels, of which all models know more


def grouped(codes: np.ndarray, n_values: int, *, ordered: bool) -> np.ndarray:
    """Groups (N,) of the codes (N,) of a column's values, from 0 to ``n_values`` - 1, and -1 where a cell is missing.

    Group 0 are the missing cells. Values beyond ``MOST_GROUPS`` share groups: neighbours where they are ``ordered``,
    the rarest where they are not, as the last ones are then to be.
    """
    group = np.arange(n_values)
    if n_values > MOST_GROUPS:
        counts = np.bincount(codes[codes >= 0], minlength=n_values)
        middle = np.cumsum(counts) - counts / 2
        ranges = (MOST_GROUPS * middle / max(1, counts.sum())).astype(np.int64)
        group = ranges if ordered else np.minimum(group, MOST_GROUPS - 1)
    return np.append(group + 1, 0)[codes]


def most_informative(groups: np.ndarray, others: Sequence[np.ndarray]) -> int:
    """Which of the ``others``, groups (N,) each, carries most information about the ``groups`` (N,) of a column."""
    n_groups, nats = MOST_GROUPS + 1, []
    for other in others:
        counts = np.bincount(groups * n_groups + other, minlength=n_groups**2)
        counts = counts.reshape(n_groups, n_groups)
        parts = (counts, counts.sum(0))  # the column's own entropy is the same for all
        both, alone = (float((n * np.log(np.maximum(n, 1))).sum()) for n in parts)
        nats.append(both - alone)
    return int(np.argmax(nats))


def gain_of_numbers(
    numbers: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, *, whole: bool
) -> float:
    """Nats of a cell by which a line of numbers is cheaper than levels; negative where levels are cheaper.

    ``numbers`` (K,) are the different ones, increasing, ``codes`` (N,) their places in the column's cells, and
    ``groups`` (N,) those of another column in the same cells.
    """
    rows = np.bincount(codes, minlength=len(numbers))
    n = len(codes)
    few = np.ceil(rows * min(1.0, SCALE_ROWS / n)).astype(np.int64)
    codec = fit_continuous(np.repeat(numbers, few), whole)
    z = codec.scaled(numbers)
    cells = codec.lines.cells(torch.from_numpy(z)[:, None])
    low, high = ((cells.middle + side * cells.width / 2).numpy() for side in (-1, 1))
    middle = np.quantile(np.repeat(z, few), [0.25, 0.75], method="nearest")
    deviation = (middle[1] - middle[0]) / 1.349 or 0.5  # of most rows: some may be far away
    wide = WIDE * (ndtr(high - z) - ndtr(low - z))
    kernels = [
        (1 - WIDE) * (ndtr((high - z) / h) - ndtr((low - z) / h)) + wide for h in deviation * WIDTHS
    ]

    with np.errstate(over="ignore"):
        n_places = numbers[-1] / codec.step - numbers[0] / codec.step + 1
    n_alone = max(0.5, float((rows == 1).sum()))
    n_new = max(0.5, n_alone - 1)
    seen = np.maximum(rows - 1, 1) / (n - 1 + n_alone)
    levels = np.where(rows > 1, seen, n_new / (n - 1 + n_new) / (2 * n_places))

    groups = np.zeros_like(codes) if groups is None else groups
    within = np.zeros((len(numbers), int(groups.max()) + 1))
    np.add.at(within, (codes, groups), 1.0)

    def nats(counts: np.ndarray, alone: np.ndarray) -> float:
        """The least nats of all cells, by the left-out ``counts`` (K, G) or by the left-out probabilities (K,)."""
        strength = STRENGTHS[:, None, None]
        share = (counts + strength * alone[:, None]) / (np.maximum(within.sum(0) - 1, 0) + strength)
        given = (within * np.log(np.maximum(share, 1e-300))).sum((1, 2)).max()
        return -max(float(given), float((rows * np.log(np.maximum(alone, 1e-300))).sum()))

    p_new = np.where(rows == 1, codec.p_new, 1.0) if codec.seen else np.ones(len(numbers))
    by_numbers = []
    for kernel in kernels:
        own = np.diag(kernel)
        alone = (kernel @ rows - own) / max(1, n - 1)
        by_numbers.append(
            nats(p_new[:, None] * np.maximum(kernel @ within - own[:, None], 0), p_new * alone)
        )
    return (nats(np.maximum(within - 1, 0), levels) - min(by_numbers)) / n
