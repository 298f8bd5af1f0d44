r"""Comparison of rows within their own stratum: the columns that define it, and its calibration rows.

With :math:`g` the cells of a row in the columns that define its stratum, a detector scores the others by :math:`\log
P(x_{others} \mid g)`, and compares the score with the scores of calibration rows of the same stratum: eq. (7) of
:mod:`discrete_itd.detection.thresholds` within each stratum. For an inlier that is exchangeable with the calibration
rows of its stratum, :math:`P(p \le \alpha \mid g) \le \alpha` then holds in each stratum, not only on average over
strata.

A stratum of fewer than :math:`\lceil 1 / \alpha \rceil - 1` calibration rows has no p-value as small as :math:`\alpha`.
Its rows are compared with the calibration rows of all strata, without a guarantee for any single one of these strata.
Over all rows, at most a share :math:`2 \alpha` has :math:`p \le \alpha`: at most :math:`\alpha` of rows of strata that
are compared with their own, and, since :math:`P(p \le \alpha)` is at most :math:`\alpha` when all rows are compared
with all, at most :math:`\alpha` of the others.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005, section 4.5: Mondrian conformal predictors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from discrete_itd.detection import thresholds
from discrete_itd.detection.thresholds import Scores, Threshold
from discrete_itd.encoders import Codec, Column, TableEncoder, written
from discrete_itd.encoders.rows import Rows

if TYPE_CHECKING:
    from discrete_itd.detection.division import Division
    from discrete_itd.estimators import DiffusionDensity

MISSING = -1  # the level of a missing cell: rows without a value are a stratum

StratumLevels = np.ndarray  # levels of the columns that define the stratum, int64, shape (N, m)


def named(given: str | int | Sequence[Hashable] | None) -> list[Hashable]:
    """The names of the columns that define the stratum, each once."""
    if given is None:
        return []
    if isinstance(given, np.ndarray | pd.Index):
        given = given.tolist()
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [given]
    return list(dict.fromkeys(given))


def positions(given: Any, encoder: TableEncoder) -> tuple[int, ...]:
    """Positions of the columns ``given`` (a name, several or None) in a schema.

    A ValueError names the column, if there is none of that name or it is not nominal or ordinal, or if no other column
    is left.
    """
    places = []
    for name in named(given):
        place = encoder.place_of(name, "given=")
        column = encoder.schema[place]
        if column.codec.of_numbers:
            raise ValueError(
                f"column {name!r}: named in given=, but {column.kind}; a stratum is defined by nominal or"
                " ordinal columns"
            )
        places.append(place)
    if places and len(places) == encoder.n_columns:
        raise ValueError(f"given={given!r} names all columns: none is left to be scored")
    return tuple(places)


@dataclass(frozen=True, eq=False)
class Strata:
    """The strata of a fitted detector; one stratum of all rows if no column defines any.

    ``columns`` are the positions of the m columns that define the stratum, ``calibration`` (n, m) their levels in the
    calibration rows, ``trained`` (G, m; None if unknown) the distinct ones in the rows of the fit, ``fewest`` the
    calibration rows that a stratum needs to be compared with its own.
    """

    columns: tuple[int, ...]
    schema: Sequence[Column]
    calibration: StratumLevels
    trained: StratumLevels | None
    fewest: int

    @classmethod
    def of(
        cls,
        columns: tuple[int, ...],
        density: DiffusionDensity,
        rows: Rows,
        parts: Division,
        rate: float,
    ) -> Strata:
        """The strata of the rows of a fit."""
        levels = _levels(rows.cells, columns)
        trained = None
        if len(parts.train):
            trained = np.unique(levels[parts.train], axis=0) if columns else levels[:0]
        fewest = max(1, math.ceil(1 / rate - 1 - 1e-9))
        return cls(columns, density.encoder_.schema, levels[parts.held], trained, fewest)

    # -- which rows are compared ------------------------------------------------------------------

    @cached_property
    def _of_calibration(self) -> tuple[StratumLevels, list[np.ndarray]]:
        """The distinct strata among the calibration rows, (K, m), and the positions of the rows of each."""
        return divided(self.calibration) if self.columns else (self.calibration[:0], [])

    @cached_property
    def _is_own(self) -> np.ndarray:
        """Which of these strata are compared with their own calibration rows, (K,)."""
        distinct, members = self._of_calibration
        sizes = np.array([len(m) for m in members], dtype=np.int64)
        return (sizes >= self.fewest) & self._seen(distinct)

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Positions of the calibration rows of each place: all of them, then the rows of each stratum with enough."""
        everyone = np.arange(len(self.calibration))
        return [
            everyone,
            *itertools.compress(self._of_calibration[1], self._is_own),
        ]

    def levels(self, rows: Rows) -> StratumLevels:
        """Levels of the columns that define each row's stratum, (N, m)."""
        return _levels(rows.cells, self.columns)

    def place(self, rows: Rows) -> np.ndarray:
        """Index in :attr:`members` of each row's calibration rows: int64, (N,), 0 for all calibration rows."""
        if len(self.members) == 1:
            return np.zeros(len(rows), dtype=np.int64)
        compared = self._of_calibration[0][self._is_own]
        return 1 + _find(compared, _levels(rows.cells, self.columns))

    def seen(self, rows: Rows) -> np.ndarray:
        """Whether the density was fitted to rows of each row's stratum: bool, (N,)."""
        return self._seen(_levels(rows.cells, self.columns))

    def _seen(self, levels: StratumLevels) -> np.ndarray:
        known = np.array([codec.n_levels for codec in self._codecs], dtype=np.int64)
        seen = np.asarray((levels < known).all(1))  # the next level stands for unseen values
        if self.columns and self.trained is not None:
            seen &= _find(self.trained, levels) >= 0
        return seen

    # -- results -------------------------------------------------------------------------

    def p_values(
        self,
        calibration: Scores,
        scores: Scores,
        place: np.ndarray,
        rounding: float,
    ) -> Scores:
        """Conformal p-values (N,) of ``scores`` (N,), each among the calibration scores of its ``place``."""
        out = np.ones(len(scores))
        for one_place in np.unique(place):
            reference, is_here = calibration[self.members[one_place]], place == one_place
            out[is_here] = thresholds.p_values(reference, scores[is_here], rounding=rounding)
        return out

    def with_offsets(
        self, threshold: Threshold, calibration: Scores, rate: float, confidence: float | None
    ) -> Threshold:
        """The threshold with the offsets of a rate within each stratum that has enough rows for it."""
        offsets = []
        for members in self.members[1:]:
            try:
                of_stratum = thresholds.at_rate(calibration[members], rate, confidence=confidence)
            except ValueError:  # too few rows
                of_stratum = threshold
            offsets.append(of_stratum.offset)
        return replace(threshold, stratum_offsets=tuple(offsets))

    # -- description -------------------------------------------------------------------------------

    @property
    def _codecs(self) -> list[Codec]:
        return [self.schema[j].codec for j in self.columns]

    @property
    def names(self) -> tuple[Hashable, ...]:
        """Names of the columns that define the stratum."""
        return tuple(self.schema[j].name for j in self.columns)

    def table(self, threshold: Threshold, rows: Rows | None = None) -> pd.DataFrame:
        """The strata among the calibration rows, or of some rows: :meth:`DiffusionOutlierDetector.strata`."""
        distinct, members = self._of_calibration
        sizes = np.array([*map(len, members), 0 if self.columns else len(self.calibration)])
        offset = np.full(len(distinct) + 1, threshold.offset)
        if threshold.stratum_offsets:
            offset[:-1][self._is_own] = threshold.stratum_offsets
        levels, stratum, index = distinct, np.arange(len(distinct)), self._index(distinct)
        if rows is not None:
            levels, index = _levels(rows.cells, self.columns), rows.index
            stratum = _find(distinct, levels) if self.columns else np.full(len(rows), -1)
        is_own = np.append(self._is_own, False)  # False for strata without a calibration row
        columns = {"n_calibration": sizes, "own": is_own, "offset": offset}
        columns = {name: values[stratum] for name, values in columns.items()}
        return pd.DataFrame({**columns, "seen": self._seen(levels)}, index=index)

    def _index(self, distinct: StratumLevels) -> pd.Index:
        """The values that define some strata (K, m)."""
        values = []
        for codec, levels in zip(self._codecs, distinct.T, strict=True):
            position = codec.decode(np.where(levels == MISSING, np.nan, levels))
            values.append([codec.categories[k] if k >= 0 else None for k in position])
        if len(values) < 2:
            return pd.Index(values[0], name=self.names[0]) if values else pd.RangeIndex(0)
        return pd.MultiIndex.from_arrays(values, names=self.names)

    def unseen(self, rows: Rows) -> list[str]:
        """For each row a statement that its stratum is new, empty if it is not."""
        out, cells = [""] * len(rows), rows.frame.iloc[:, list(self.columns)]
        columns = [self.schema[j] for j in self.columns]
        for i in np.flatnonzero(~self.seen(rows)):
            values = zip(columns, cells.iloc[i], strict=True)
            stratum = ", ".join(
                f"{column.name} = {written(value, column)}" for column, value in values
            )
            out[i] = f"no row with {stratum} was seen in training"
        return out


def divided(levels: StratumLevels) -> tuple[StratumLevels, list[np.ndarray]]:
    """The distinct strata (K, m) of rows with these levels (N, m), and the positions of the rows of each."""
    distinct, stratum, sizes = np.unique(levels, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(stratum.ravel(), kind="stable")
    return distinct, np.split(order, sizes.cumsum())[:-1]


def _levels(cells: np.ndarray, columns: Sequence[int]) -> StratumLevels:
    """Levels of some columns of encoded rows, (N, m)."""
    return np.nan_to_num(cells[:, list(columns)], nan=MISSING).astype(np.int64)


def _find(strata: StratumLevels, levels: StratumLevels) -> np.ndarray:
    """The position of each row of ``levels`` (N, m) among distinct ``strata`` (K, m), -1 if absent."""
    known, asked = (pd.MultiIndex.from_arrays(t.T) for t in (strata, levels))
    return known.get_indexer(asked)
