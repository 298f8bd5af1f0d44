"""What is counted over the rows of a stream."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from discrete_itd.storage.schema import check_fields


@dataclass
class Tally:
    """Rows, mean and spread of a value of each row, and counts of anything else.

    Parameters
    ----------
    n_rows : int
    mean, squares : float
        Mean of the value, and sum of squared distances from it.
    counts : Counter
    """

    n_rows: int = 0
    mean: float = 0.0
    squares: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, values: np.ndarray, **counts: int) -> None:
        """Count some more rows, by their values, and whatever was counted among them."""
        if not len(values):
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        self.merge(Tally(len(values), mean, squares, Counter(counts)))

    def merge(self, other: Tally) -> None:
        """Count the rows of another tally, too.

        References
        ----------
        Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
        """
        n = self.n_rows + other.n_rows
        if not n:
            return
        apart = other.mean - self.mean
        self.squares += other.squares + apart**2 * self.n_rows * other.n_rows / n
        self.mean += apart * other.n_rows / n
        self.n_rows = n
        self.counts.update(other.counts)

    @property
    def stderr(self) -> float:
        """Standard error of the mean; NaN of a single row."""
        if self.n_rows < 2:
            return math.nan
        return math.sqrt(self.squares / (self.n_rows - 1) / self.n_rows)

    def to_json(self) -> dict[str, Any]:
        """Plain data from which :meth:`from_json` makes an equal tally."""
        return {**vars(self), "counts": dict(self.counts)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The tally that :meth:`to_json` wrote; ValueError if the data are damaged."""
        check_fields(
            data, {"n_rows": int, "mean": float, "squares": float, "counts": dict}, "tally"
        )
        counts = data["counts"]
        check_fields(counts, dict.fromkeys(counts, int), "tally: counts")
        numbers = [data["n_rows"], data["squares"], *counts.values()]
        if min(numbers) < 0:
            raise ValueError(f"tally: {min(numbers)} is negative")
        return cls(data["n_rows"], data["mean"], data["squares"], Counter(counts))
