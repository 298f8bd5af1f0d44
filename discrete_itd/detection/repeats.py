r"""Numbers that repeat: among a few hundred different numbers, one that was never seen is odd wherever it lies.

A density of numbers does not know this: between two values that are seen daily it is as high as at them, and next to
the largest of them nearly so. So a part of the code says first whether the number is new,

.. math:: -\log p \text{ nats if it is, } -\log(1 - p) \text{ if not}, \qquad
          p = \max\Bigl(0.02, \frac{n_1 + 1/2}{n + 1}\Bigr), \quad (11)

with n training cells of the column, of which :math:`n_1` have a number that no other has. The share :math:`n_1/n` is
Good and Turing's estimate of the probability that the next number is new. It is that of rows from where the training
rows came from; of others, as of an instrument that now gives one more digit, a new number says less, so p is not below
0.02. The code is used where new numbers are rare.

References
----------
Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.encoders import Column

LEAST = 0.02  # probability of a new number
RARE = 0.2  # the probability of a new number, above which a column is not said to repeat


@dataclass(frozen=True, eq=False)
class Repeats:
    """Which numbers of which columns were seen.

    Parameters
    ----------
    n_columns : int
        C of the table.
    seen : dict of int to ndarray of float64
        Different numbers of each column that repeats, ascending, as they are encoded.
    p_new : dict of int to float
        Probability p of a new number in each of these columns.
    """

    n_columns: int
    seen: dict[int, np.ndarray]
    p_new: dict[int, float]

    @classmethod
    def of(cls, schema: Iterable[Column], x: Tensor, left_out: Iterable[int] = ()) -> Repeats:
        """Of the continuous columns, but some, of encoded training rows ``x`` (n, C').

        Points in time are left alone: tomorrow is new, and not odd.
        """
        columns, seen, p_new = list(schema), {}, {}
        for j, column in enumerate(columns):
            in_time = pd.api.types.is_datetime64_any_dtype(column.dtype)
            if column.kind != "continuous" or in_time or j in left_out:
                continue
            cells = x[:, j].cpu().numpy()
            values, counts = np.unique(cells[~np.isnan(cells)], return_counts=True)
            p = (np.count_nonzero(counts == 1) + 0.5) / (counts.sum() + 1)
            if p < RARE:
                seen[j], p_new[j] = values, max(float(p), LEAST)
        return cls(len(columns), seen, p_new)

    def nats(self, x: Tensor) -> np.ndarray:
        """The code (11) of each cell of encoded rows ``x`` (N, C'): (N, C), 0 where it is missing."""
        out = np.zeros((len(x), self.n_columns))
        for j, values in self.seen.items():
            cells, p = x[:, j].cpu().numpy(), self.p_new[j]
            at = np.searchsorted(values, cells).clip(max=len(values) - 1)
            nats = np.where(values[at] == cells, -np.log1p(-p), -np.log(p))
            out[:, j] = np.where(np.isnan(cells), 0.0, nats)
        return out

    # -- storage --------------------------------------------------------------------------------

    def to_tensors(self) -> dict[str, Tensor]:
        """The numbers seen and the probabilities, each under the number of its column."""
        tensors = {f"repeats.{j}": torch.from_numpy(values) for j, values in self.seen.items()}
        p = [self.p_new.get(j, 0.0) for j in range(self.n_columns)]
        return tensors | {"repeats": torch.tensor(p, dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, n_columns: int, tensors: Mapping[str, Tensor]) -> Repeats:
        """What :meth:`to_tensors` wrote; ValueError or LookupError if it is malformed."""
        p = tensors["repeats"].numpy()
        if p.shape != (n_columns,) or not ((p >= 0) & (p < 1)).all():
            raise ValueError(f"its probabilities of new numbers are malformed, of shape {p.shape}")
        p_new = {int(j): float(p[j]) for j in np.flatnonzero(p)}
        seen = {j: tensors[f"repeats.{j}"].numpy().astype(float) for j in p_new}
        for j, values in seen.items():
            if (
                values.ndim != 1
                or not len(values)
                or not (np.isfinite(values).all() and (np.diff(values) > 0).all())
            ):
                raise ValueError(f"its numbers seen in column {j} are malformed")
        return cls(n_columns, seen, p_new)
