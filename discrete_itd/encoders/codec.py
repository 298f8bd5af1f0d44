"""The interface of codecs: what a kind of column says of itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.reading.frames import Scalar


class Codec(ABC):
    """Map of a column's values to the core's numbers and back.

    A kind of column is one subclass, which the rest of the library asks by these attributes, never by its name. To be
    chosen by ``column_types``, it stands in :data:`discrete_itd.encoders.inference.KINDS`.

    Attributes
    ----------
    kind : str
        Its name.
    of_numbers : bool
        Whether values are numbers or times, and text among the cells is read as these: a class is fitted by
        ``fit(values, whole, in_time=...)``, ``encode`` takes and ``decode`` gives such numbers, float64. Otherwise the
        values are ``categories``: ``encode`` takes the column's name and cells, ``decode`` gives positions.
    is_ordered : bool
        Whether the values have an order, and so medians and quantiles.
    n_levels : int
        Number of levels, which have probabilities, without the one for unseen values; 0 where values have a density,
        which then lies on the ``line`` of the points, with ``step``, ``low`` and ``high``.
    categories : tuple of str, int, float or bool
        All of them, in order; empty where values are numbers.
    open : bool
        Whether one more level stands for values never seen.
    pooled : tuple of int
        Positions of the categories that share a level.
    seen : tuple of float
        The different numbers of a column whose numbers repeat.
    whole : bool
        Whether all numbers are whole.
    are_truths : bool
        Whether the categories are True and False.
    absent_level : float
        The level of missing cells; NaN if they have none.
    part : Codec, optional
        Of values that are two cells of the core: ``encode`` gives two columns, the second one by this codec.
    unseen_count : float
        Pseudo-count of unseen values when the marginal is smoothed.
    log_share_near : float
        Least log-share of an unseen value near the others in the probability of unseen values.
    mean_new_nats : float
        The expectation of :meth:`new_nats`.
    volume_is_scored : bool
        Whether log-volumes are part of the anomaly score: what no other column tells is not.

    Examples
    --------
    >>> from discrete_itd.encoders import Categories
    >>> codec = Categories("ordinal", ("S", "M", "L"), open=False, levels=(-0.5, 0.0, 0.5))
    >>> isinstance(codec, Codec), codec.is_ordered, codec.has_levels, codec.of_numbers
    (True, True, True, False)
    """

    of_numbers: ClassVar[bool]
    kind: Any
    categories: tuple[Scalar, ...]
    open: bool
    whole: bool
    step: float
    low: float
    high: float

    pooled: tuple[int, ...] = ()
    seen: tuple[float, ...] = ()
    are_truths: Any = False
    absent_level: Any = math.nan
    unseen_count: float = 0.5
    log_share_near: Any = -math.inf
    mean_new_nats: Any = 0.0
    volume_is_scored: bool = True

    @property
    @abstractmethod
    def is_ordered(self) -> bool: ...

    @property
    @abstractmethod
    def n_levels(self) -> int: ...

    @property
    @abstractmethod
    def points(self) -> ColumnPoints:
        """The points of the values in the core."""

    @abstractmethod
    def is_outside(self, x: np.ndarray) -> np.ndarray:
        """Whether encoded cells lie outside of the range or the categories of training: bool, False for NaN."""

    @abstractmethod
    def encode(self, *cells: Any) -> tuple[np.ndarray, np.ndarray]:
        """Encoded cells, and the log-volumes that turn the core's log-masses into those of the values."""

    @abstractmethod
    def decode(self, x: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The numbers or the positions of categories of encoded cells; drawn with ``rng``, where one has several."""

    @property
    def part(self) -> Codec | None:
        return None

    @property
    def has_levels(self) -> bool:
        """Whether a cell is one of finitely many levels, with probabilities; else it has a density."""
        return self.n_levels > 0

    @property
    def has_volume(self) -> bool:
        """Whether log-volumes of cells differ from 0: a density, or categories that share a level."""
        return self.of_numbers or bool(self.pooled)

    def values(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """Of a codec with levels: the values, the level of each, and its share of the level's probability."""
        raise NotImplementedError(f"the kind {self.kind} has no table of values")

    def with_absent(self) -> Self:
        """The codec with a level for missing cells, if it can have one."""
        return self

    def settled(self, values: np.ndarray) -> np.ndarray:
        """The numbers as which decoded ones are recorded."""
        return values

    def named(self, levels: np.ndarray) -> np.ndarray:
        """What people call levels (n,): a category, objects; None where there is none."""
        return np.array([*self.categories, None], dtype=object)[self.decode(levels)]

    def cells(
        self, positions: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[Sequence[Scalar], np.ndarray]:
        """Cells, and the place of each of ``positions`` (n,) of categories among them, -1 of none."""
        return self.categories, positions

    def new_nats(self, x: np.ndarray) -> np.ndarray:
        """Nats of encoded numbers being new, in a column whose numbers repeat; else 0."""
        return np.zeros(len(x))
