r"""Monitoring of rows as they arrive: test martingales of whole rows and of each column, without an end.

Values :math:`S_1, S_2, \dots` of successive rows, higher for more typical ones, are exchangeable as long as nothing
changes. Ties are broken by uniform numbers :math:`V_n`, drawn once for each value. The n - 1 values before
:math:`S_n` leave n places for it, below, between and above them. Under exchangeability the places of successive values
are independent, and each is uniform, with any ties. This holds because each row is compared with all before it:
p-values against a fixed set of calibration rows depend on one another, and products of bets against them are no
martingale.

Not all values are kept. Those that are divide the places into bins; of the others only the number in each bin is
known. A value in a bin of w places with a places below it has the p-value

.. math:: p_n = \frac{a + U_n w}{n}, \qquad (14)

with :math:`U_n` uniform on (0, 1]. Which values are kept is decided by numbers of places alone, not by values. The
bins that earlier values fell into are therefore a function of earlier places, of which the place of :math:`S_n` is
independent: given them it lies in the bin with probability w / n, and :math:`p_n` is uniform. So p-values are
independent and uniform, exactly, however few values are kept. Two bins are joined once they hold at most a share 1 /
:data:`FINENESS` of the number of places beyond them: the most extreme values are ranked exactly, the others to some per
cent of p or 1 - p, and n values take memory of the order of log n.

Values of several strata are ranked each within its own stratum. If the rows of each stratum are exchangeable given
the sequence of strata, the orders of the values in all strata are independent, and so are all p-values, in the order
in which rows arrive.

A bet is a density f on [0, 1]; capital staked on it is multiplied by f(p), which has mean 1. The martingale starts
with a capital of 1 in reserve. Before row t, :math:`R_{t-1} - R_t` of it is staked in equal parts on the densities of
:func:`bets`, with

.. math:: R_t = \frac{1/2}{1 + \log_2(1 + (t - 1) / 1000)}, \quad R_0 = 1, \qquad (15)

and what is staked stays on its density: a mixture over the time of a change and its kind. So it never falls below
:math:`R_t`, and after a long time without a change, one must earn about :math:`2000 t (\log t)^2` rather than make up
for capital that was lost all that time. By Ville's inequality, under exchangeability,
:math:`P(\exists t: M_t \ge 1 / \alpha) \le \alpha`.

References
----------
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005: eq. (14), its independence (theorem 8.2), and
automata that wake up to bet; section 4.5: Mondrian conformal predictors, which compare within strata.
Vovk, "Testing randomness online", Statistical Science 2021, arXiv:1906.09256.
Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman, "Retrain or not retrain: conformal test martingales for
change-point detection", COPA 2021, arXiv:2102.10439: the Simple Jumper, with which
``python -m tests.benchmarks.watch`` compares this one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from discrete_itd.detection import thresholds
from discrete_itd.detection.score import DECIMALS, row_scores
from discrete_itd.detection.strata import divided
from discrete_itd.storage import files
from discrete_itd.storage.values import Like, flatten, unflatten
from discrete_itd.validation import check_share, seed_of

if TYPE_CHECKING:
    from discrete_itd.detection.detector import DiffusionOutlierDetector

Floats = NDArray[np.float64]
Keys = NDArray[np.complex128]
StratumKey = tuple[int, ...]

PENDING = 256  # newest rows of a stratum, compared with one another before they are sorted in
# Two bins are joined if at least FINENESS times their places lie beyond them. With 16 changes are found as early as by
# exact ranks (`python -m tests.benchmarks.watch`).
FINENESS = 16
FIRST_STAKE = 0.5  # capital staked before the first row, as a change from the start is likeliest
PACE = 1000.0  # rows after which the reserve of eq. (15) has halved
AT_ONCE = 256  # rows whose densities are computed at once
P_FLOOR = 2.0**-53  # lower bound on p-values
RARE = 0.1  # share of changed rows that the bet on rare extremes assumes
NO_CAPITAL = -1e300  # logarithm of a capital of zero, kept finite
ROW_SHARE = 0.5  # share of the level for the scores of whole rows; the columns divide the rest
EXACT_COUNTS = 2**53  # most rows of a watch: a float counts exactly up to it


# -- p-values and bets ------------------------------------------------------------------------------


class Ranks:
    """The values of one stratum seen so far, by column, among which new ones are ranked: eq. (14).

    Complex numbers hold the values and, as imaginary parts, the numbers V that break ties: numpy sorts by both.
    ``seen`` (n, C) are the values of the rows seen so far, in any order.
    """

    def __init__(self, seen: Keys) -> None:
        self.edges = [np.sort(column) for column in seen.T]  # values that are kept
        self.widths = [np.ones(len(seen) + 1, dtype=np.int64)] * seen.shape[1]  # places in bins
        self.pending = seen[:0]
        self._merge()

    def __len__(self) -> int:
        return int(self.widths[0].sum()) - 1 + len(self.pending)

    def p_values(self, new: Keys, uniform: Floats) -> Floats:
        """p-values of successive rows ``new`` (N, C), each ranked among all before, with U (N, C) in (0, 1]."""
        p, start = np.empty(new.shape), 0
        while start < len(new):
            stop = min(len(new), start + PENDING - len(self.pending))
            p[start:stop] = self._add(new[start:stop], uniform[start:stop])
            start = stop
            if len(self.pending) == PENDING:
                self._sort_in()
        return p

    def _add(self, new: Keys, uniform: Floats) -> Floats:
        """p-values of rows ``new``, which are appended to the pending ones; there must be room."""
        first = len(self.pending)
        self.pending = np.concatenate([self.pending, new])
        p, last = np.empty(new.shape), len(self.pending)
        later = np.arange(first, last)[:, None] <= np.arange(last)
        for j, (edges, widths) in enumerate(zip(self.edges, self.widths, strict=True)):
            bins, is_single = self._bins(j)
            # values in a wide bin count as equal
            bounds = np.concatenate([[-math.inf], edges])
            order = np.unique(
                np.where(is_single, self.pending[:, j], bounds[bins]), return_inverse=True
            )[1]
            new_order = order[first:, None]
            bins = bins[first:]
            below = (np.cumsum(widths) - widths)[bins] + ((order < new_order) & ~later).sum(1)
            within = widths[bins] + ((order == new_order) & ~later).sum(1)
            total = widths.sum() + np.arange(first, last)
            p[:, j] = (below + uniform[:, j] * within) / total
        return p

    def _bins(self, j: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The bin of each pending value of a column, and whether it is a single place: then order is known."""
        bins = np.searchsorted(self.edges[j], self.pending[:, j])
        return bins, self.widths[j][bins] == 1

    def _sort_in(self) -> None:
        for j in range(len(self.edges)):
            bins, is_single = self._bins(j)
            widths = self.widths[j] + np.bincount(bins[~is_single], minlength=len(self.widths[j]))
            order = np.flatnonzero(is_single)[np.argsort(self.pending[is_single, j])]
            self.edges[j] = np.insert(self.edges[j], bins[order], self.pending[order, j])
            self.widths[j] = np.insert(widths, bins[order], 1)
        self.pending = self.pending[:0]
        self._merge()

    def _merge(self) -> None:
        """Join neighbouring bins that hold few places compared to those beyond them, on either side."""
        for j, (edges, widths) in enumerate(zip(self.edges, self.widths, strict=True)):
            size = -1
            while len(edges) != size:
                size = len(edges)
                for first in (0, 1):  # pairs that start at even, then at odd bins
                    before = (np.cumsum(widths) - widths)[first:-1:2]
                    joined = widths[first:-1:2] + widths[first + 1 :: 2]
                    beyond = np.minimum(before, widths.sum() - before - joined)
                    drop = first + 2 * np.flatnonzero(FINENESS * joined <= beyond)
                    edges = np.delete(edges, drop)
                    starts = np.delete(np.arange(len(widths)), drop + 1)
                    widths = np.add.reduceat(widths, starts)
            self.edges[j], self.widths[j] = edges, widths


def bets(p: Floats) -> Floats:
    r"""Densities on [0, 1] at p-values, on the last axis of the result.

    Bets on small p-values: :math:`\tfrac32 - p, 2(1-p), \tfrac12 p^{-1/2}, \tfrac14 p^{-3/4}`; on large ones: the same
    at 1 - p; on both: :math:`1/(\pi\sqrt{p(1-p)})`; on the middle: :math:`6p(1-p)`; on extremely small, or large, p in
    a few rows only: :math:`0.9 + 0.1 \cdot \tfrac14 p^{-3/4}`.
    """
    p, q = np.maximum(p, P_FLOOR), np.maximum(1 - p, P_FLOOR)
    root_p, root_q = np.sqrt(p), np.sqrt(q)
    low, high = (0.25 / (root * np.sqrt(root)) for root in (root_p, root_q))
    rare = (1 - RARE + RARE * low, 1 - RARE + RARE * high)
    both = 1 / (math.pi * root_p * root_q), 6 * p * q
    linear, roots = (0.5 + q, 0.5 + p, 2 * q, 2 * p), (0.5 / root_p, 0.5 / root_q)
    return np.stack([*linear, *roots, low, high, *both, *rare], axis=-1)


N_BETS = bets(np.ones(1)).shape[-1]


@dataclass
class Martingales:
    """Test martingales, one for each column of p-values, after ``n_rows`` rows.

    ``log_capital`` (C, number of bets) are the logarithms of the stakes on each density.
    """

    log_capital: Floats
    n_rows: int = 0

    @classmethod
    def start(cls, n_columns: int) -> Self:
        """Martingales before the first row."""
        return cls(np.full((n_columns, N_BETS), NO_CAPITAL))

    def update(self, p: Floats) -> Floats:
        """Base-10 logarithms (N, C) of each martingale after each further row of p-values ``p`` (N, C)."""
        log_bets = logs = np.empty(p.shape)
        for i in range(len(p)):
            if i % AT_ONCE == 0:
                log_bets = np.log(bets(p[i : i + AT_ONCE]))
            kept = reserve(self.n_rows + 1)
            stake = math.log(max((reserve(self.n_rows) - kept) / N_BETS, P_FLOOR**2))
            self.log_capital = np.logaddexp(self.log_capital, stake) + log_bets[i % AT_ONCE]
            self.n_rows += 1
            active = np.logaddexp.reduce(self.log_capital, axis=1)
            logs[i] = np.logaddexp(active, math.log(kept)) / math.log(10)
        return logs


def reserve(n_rows: int) -> float:
    """The capital that is not staked yet, eq. (15)."""
    return FIRST_STAKE / (1 + math.log2(1 + (n_rows - 1) / PACE)) if n_rows else 1.0


# -- the watch ---------------------------------------------------------------------------------------


class Alarm(NamedTuple):
    """The first alarm of one martingale: ``row``, from 1 on, that raised it; ``column``, None for whole rows."""

    row: int
    column: Hashable | None


@dataclass(frozen=True, eq=False)
class StoredColumn:
    """A column of :class:`Ranks`: the kept values with their tie-breaking numbers, and the widths of the bins."""

    edges: Annotated[np.ndarray, Like("float64", "edges", 2)]
    widths: Annotated[np.ndarray, Like("int64", "bins")]

    def __post_init__(self) -> None:
        edges, widths = _from_pairs(self.edges), self.widths
        if len(widths) != 1 + len(edges) or widths.min() < 1 or (np.sort(edges) != edges).any():
            raise ValueError("widths are no numbers of places, or edges are in disorder")


@dataclass(frozen=True, eq=False)
class StoredRanks:
    """:class:`Ranks` of the stratum of these levels."""

    levels: tuple[int, ...]
    columns: tuple[StoredColumn, ...]
    pending: Annotated[np.ndarray, Like("float64", "pending", "martingales", 2)]

    @classmethod
    def of(cls, levels: StratumKey, ranks: Ranks) -> Self:
        columns = zip(map(_as_pairs, ranks.edges), ranks.widths, strict=True)
        return cls(levels, tuple(StoredColumn(*c) for c in columns), _as_pairs(ranks.pending))

    def ranks(self) -> Ranks:
        """The ranks; a ValueError if its columns have other numbers of values."""
        pending = _from_pairs(self.pending)
        out = Ranks(pending[:0])
        out.edges = [_from_pairs(column.edges) for column in self.columns]
        out.widths, out.pending = [column.widths for column in self.columns], pending
        if len({int(w.sum()) for w in out.widths}) != 1 or len(self.columns) != pending.shape[1]:
            raise ValueError("its columns have other numbers of values")
        return out


@dataclass(frozen=True, eq=False)
class WatchState:
    """Contents of a watch's file: settings, a digest of the detector, and the state of the martingales."""

    seed: int
    level: float
    n_rows: int
    detector: str
    strata: tuple[StoredRanks, ...]
    log_capital: Annotated[np.ndarray, Like("float64", "martingales", N_BETS)]
    first: Annotated[np.ndarray, Like("int64", "martingales")]
    now: Annotated[np.ndarray, Like("float64", "martingales")]

    def __post_init__(self) -> None:
        if not (0 <= self.n_rows < EXACT_COUNTS and 0 <= self.seed < 2**31):
            raise ValueError(f"n_rows is {self.n_rows}, seed is {self.seed}")
        if (self.first < 0).any():
            raise ValueError("first has negative numbers")


class DriftWatch:
    r"""Monitor rows as they arrive, and raise an alarm once they are not exchangeable with the calibration rows.

    Each row's score, and its nats by column, are ranked among the calibration rows and all rows watched so far; with a
    detector's ``given``, among the rows of its own stratum. Against these p-values (14) a test martingale (15) bets for
    whole rows, and one for each column. Unlike :meth:`DiffusionOutlierDetector.drift`, which compares one batch at one
    time, the watch may be evaluated after every row.

    Parameters
    ----------
    detector : DiffusionOutlierDetector
        Fitted, with calibration rows.
    level : float, default=0.01
        Probability of any false alarm at all, of rows or columns, however long the watch runs.
    random_state : int, RandomState or None, default=0
        Seed of the numbers that break ties: an integer gives the same p-values again.

    Attributes
    ----------
    n_rows_ : int
        Rows watched so far.
    alarms_ : list of Alarm
        The first alarm of each martingale that raised one, in order of time.
    alarm_ : Alarm or None
        The first of them.

    Notes
    -----
    **Guarantee.** If the calibration rows and all rows watched are exchangeable, for instance independent draws from
    one distribution, then P(an alarm is ever raised) is at most ``level``: whatever the model, however many rows, at
    any time of evaluation, with any ties. Half of the level is for the martingale of whole rows, the other half is
    divided equally among the columns that are scored (Ville's inequality for each, and the union bound). For an exact
    guarantee the detector must have been fitted to other rows. With ``given``, it is enough that the rows of each
    stratum are exchangeable with the calibration rows of this stratum, if it has any: strata may arrive in any order.

    **What is not guaranteed.** An alarm says that exchangeability is broken, so also by rows in another order, like
    all of a day and then all of a night, unless these are strata. It names the columns whose own martingale raised
    an alarm, which may not be the cause: nats of a column depend on the other cells. Rows of one customer, say, are not
    independent: fit with ``groups``, and watch one row of each new group.

    **Power.** Rows are compared with all earlier ones of their stratum. A change is found if it comes after many rows,
    calibration rows among them, in comparison to the number that it takes to find it; later it becomes the norm.

    **Memory**, and the file that :meth:`save` writes, grow with the logarithm of the number of rows, and with the
    number of strata: 8 kB for each stratum and column after 200 000 rows of the stratum.

    References
    ----------
    Vovk, "Testing randomness online", Statistical Science 2021, arXiv:1906.09256.

    Examples
    --------
    >>> import pandas as pd
    >>> from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
    >>> coins = pd.DataFrame({"a": ["x", "y"] * 200, "b": ["u", "v"] * 200})
    >>> density = DiffusionDensity(denoiser="tree", random_state=0)
    >>> detector = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0).fit(coins)
    >>> watch = DriftWatch(detector)
    >>> watch.update(coins)["alarm"].any()
    np.False_
    >>> table = watch.update(coins.assign(a="x"))
    >>> watch.n_rows_, watch.alarm_
    (800, Alarm(row=410, column=None))
    """

    def __init__(
        self,
        detector: DiffusionOutlierDetector,
        *,
        level: float = 0.01,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        if not hasattr(type(detector), "p_values"):
            raise TypeError(
                f"detector must be a DiffusionOutlierDetector, got {type(detector).__name__}"
            )
        thresholds.calibration_scores(detector)
        self.detector, self.level = detector, check_share("level", level)
        self._seed = seed_of(random_state)
        self._strata, nats = detector._strata, detector.explain()
        self._names = [name for name in nats.columns if name not in self._strata.names]
        self._scores = detector.calibration_scores_
        n = len(self._names) + 1
        broken = np.random.Generator(np.random.PCG64(self._seed).jumped()).random((len(nats), n))
        self._ranks: dict[StratumKey, Ranks] = {}
        for stratum, members in _divided(self._strata.calibration).items():
            self._ranks[stratum] = Ranks((self._values(nats) + 1j * broken)[members])
        self._martingales = Martingales.start(n)
        self._first = np.zeros(n, dtype=np.int64)  # row of the first alarm; 0 if there was none
        self._now = np.zeros(n)

    # -- watching -------------------------------------------------------------------------------

    def update(self, X: Any) -> pd.DataFrame:
        """Watch further rows, in the order in which they arrived.

        Parameters
        ----------
        X : DataFrame, array-like or Rows, shape (N, C)
            Any number of rows, also none. How rows are divided into batches makes no difference.

        Returns
        -------
        DataFrame, N lines
            With the index of X: ``row``, the number of the row since the watch began, from 1 on; ``p_value``, small for
            improbable rows, and ``log10_martingale``, of the scores of whole rows; ``alarm``, whether any martingale
            has raised an alarm at this row or before; ``unreadable``, the unreadable cells of the row, which count as
            missing, or None. Then for each column its ``p_value_<name>``,
            ``log10_martingale_<name>`` and ``alarm_<name>``.

        Raises
        ------
        ValueError, TypeError
            Naming the column, if it is absent or holds a value that its kind cannot take. If the detector was fitted
            again since the watch began. No row is watched then.
        """
        if not np.array_equal(self._scores, self.detector.calibration_scores_):
            raise ValueError("the detector has other calibration rows than when the watch began")
        rows = self.detector.density_.rows(X)
        nats = self.detector.explain(rows) if len(rows) else pd.DataFrame(columns=self._names)
        values, before = self._values(nats), self.n_rows_
        random = np.random.PCG64(self._seed)
        random.advance(before * 2 * values.shape[1])
        uniform, broken = np.moveaxis(
            np.random.Generator(random).random((len(values), 2, values.shape[1])), 1, 0
        )
        p, keys = np.empty(values.shape), values + 1j * broken
        for stratum, members in _divided(self._strata.levels(rows)).items():
            ranks = self._ranks.setdefault(stratum, Ranks(keys[:0]))
            p[members] = ranks.p_values(keys[members], 1 - uniform[members])
        logs = self._martingales.update(p)
        number = before + 1 + np.arange(len(p))
        if len(logs):
            self._now = logs[-1].copy()
            is_alarm = logs >= self._thresholds
            first = np.where(is_alarm.any(0), number[is_alarm.argmax(0)], 0)
            self._first = np.where(self._first > 0, self._first, first)
        alarm = (self._first > 0) & (number[:, None] >= self._first)
        table = {"row": number, "p_value": p[:, 0], "log10_martingale": logs[:, 0]}
        table["alarm"] = alarm.any(1)
        table["unreadable"] = rows.unreadable_text
        for j, name in enumerate(self._names, 1):
            table[f"p_value_{name}"] = p[:, j]
            table[f"log10_martingale_{name}"] = logs[:, j]
            table[f"alarm_{name}"] = alarm[:, j]
        return pd.DataFrame(table, index=rows.index)

    def _values(self, nats: pd.DataFrame) -> Floats:
        """Scores and minus the nats of scored columns, shape (N, C + 1), equal for equal rows in any batch.

        A missing cell gets 0 nats: it is never improbable.
        """
        cells = nats.to_numpy(dtype=float)
        values = np.column_stack([row_scores(cells), -nats[self._names].to_numpy(dtype=float)])
        return np.nan_to_num(values.round(DECIMALS))

    @property
    def _thresholds(self) -> np.ndarray:
        """Logarithms to base 10 at which martingales raise an alarm, shape (C + 1,)."""
        n_columns = len(self._names)
        shares = np.array([ROW_SHARE, *[(1 - ROW_SHARE) / n_columns] * n_columns])
        return -np.log10(self.level * shares)

    # -- results -------------------------------------------------------------------------

    @property
    def n_rows_(self) -> int:
        return self._martingales.n_rows

    @property
    def alarms_(self) -> list[Alarm]:
        pairs = zip(self._first.tolist(), [None, *self._names], strict=True)
        return sorted((Alarm(row, name) for row, name in pairs if row), key=lambda a: a.row)

    @property
    def alarm_(self) -> Alarm | None:
        return next(iter(self.alarms_), None)

    def to_frame(self) -> pd.DataFrame:
        """The martingales as they are now: one line of whole rows (``column`` None), then one of each column.

        Columns: ``column``, ``log10_martingale``, its ``threshold``, and ``alarm_row``, missing where there was no
        alarm.
        """
        alarm_row = pd.array(self._first, dtype="Int64")
        return pd.DataFrame(
            {
                "column": pd.Series([None, *self._names], dtype=object),
                "log10_martingale": self._now,
                "threshold": self._thresholds,
                "alarm_row": pd.Series(alarm_row).mask(self._first == 0),
            }
        )

    def __str__(self) -> str:
        text = f"{self.n_rows_} rows watched; log10 of the martingale {self._now[0]:.2f}; "
        if self.alarm_ is None:
            return f"{text}no alarm at level {self.level:g}"
        names = [repr(a.column) for a in self.alarms_ if a.column is not None]
        columns = f"columns {', '.join(names)}" if names else "no column by itself"
        return f"{text}ALARM at level {self.level:g}, first in row {self.alarm_.row}: {columns}"

    # -- saving ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state of the watch to one safetensors file, whole or not at all; not the detector."""
        state = WatchState(
            seed=self._seed,
            level=self.level,
            n_rows=self.n_rows_,
            detector=_digest(self.detector),
            strata=tuple(StoredRanks.of(*stratum) for stratum in self._ranks.items()),
            log_capital=self._martingales.log_capital,
            first=self._first,
            now=self._now,
        )
        files.write_state(path, flatten(state), kind="watch")

    @classmethod
    def load(cls, path: str | os.PathLike[str], detector: DiffusionOutlierDetector) -> Self:
        """Read a file of :meth:`save`; the watch continues as if it had never stopped, to the same bits.

        An OSError or ValueError names the file, if it cannot be read, is damaged, holds something else, or is of
        another detector.
        """
        watch, state = cls(detector), files.read_state(path, kind="watch")
        with files.building(os.fspath(path)):
            watch._restore(unflatten(WatchState, state))
        return watch

    def _restore(self, state: WatchState) -> None:
        if state.detector != _digest(self.detector):
            raise ValueError("the watch is of another detector, with other calibration rows")
        shapes = {(len(stratum.levels), len(stratum.columns)) for stratum in state.strata}
        n_columns = len(self._names) + 1
        if shapes != {(len(self._strata.columns), n_columns)} or len(state.first) != n_columns:
            raise ValueError("it has other columns than the detector")
        ranks = {stratum.levels: stratum.ranks() for stratum in state.strata}
        if sum(map(len, ranks.values())) != len(self._scores) + state.n_rows:
            raise ValueError("widths and pending are not of n_rows")
        self.level, self._seed = check_share("level", state.level), state.seed
        self._first, self._now, self._ranks = state.first, state.now, ranks
        self._martingales = Martingales(state.log_capital, state.n_rows)


def _divided(levels: np.ndarray) -> dict[StratumKey, NDArray[np.intp]]:
    """Positions of the rows of each stratum, in their order, by the rows' ``levels`` (N, m)."""
    if not levels.shape[1]:
        return {(): np.arange(len(levels))}
    distinct, members = divided(levels)
    return {tuple(stratum): rows for stratum, rows in zip(distinct.tolist(), members, strict=True)}


def _as_pairs(values: Keys) -> Floats:
    """Complex numbers as pairs, along a new last axis."""
    return np.stack([values.real, values.imag], axis=-1)


def _from_pairs(pairs: Floats) -> Keys:
    return pairs[..., 0] + 1j * pairs[..., 1]


def _digest(detector: DiffusionOutlierDetector) -> str:
    """Hash of the calibration rows' scores and nats by column."""
    names = json.dumps([str(name) for name in detector.explain().columns])
    arrays = detector.calibration_scores_, detector.explain().to_numpy(dtype=float)
    scores, nats = (torch.from_numpy(np.array(a, order="C")) for a in arrays)
    return files.digest(names, {"scores": scores, "nats": nats})
