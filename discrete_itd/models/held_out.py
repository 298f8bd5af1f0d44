"""Tables to fit to, and which of their rows are held out: at random, groups of rows as a whole.

Rows are treated as independent draws: held-out rows repeat training rows as often as new rows do. Where several rows
belong to one customer or are copies of one record, held-out rows would be too similar to training rows. A table does
not show this; ``groups``, labels of the rows, say it. They are divided, all of equal probability whatever their sizes.
If groups are exchangeable (independent draws of customers, say), then the held-out ones and a new one are, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser, MarginalDenoiser
from discrete_itd.denoisers.following import following
from discrete_itd.encoders import Column, TableEncoder
from discrete_itd.encoders.following import RelatedCells
from discrete_itd.progress import stage
from discrete_itd.reading.frames import in_memory, is_polars, read_rows
from discrete_itd.validation import seed_of, warn

Made = TypeVar("Made")
Ints = NDArray[np.int64]

# Parts of the distance of a column's quartiles by which its numbers are told apart; irrational, so that numbers on a
# lattice lie on no border.
PLACES = 1000 * math.sqrt(3)

# Seed of every division of rows, that of random_state=0, in the order of their content. A fit's own seed is that of
# networks alone: half of what two seeds, and all that two orders of rows differed by were other rows ("Other seeds" in
# RESULTS.md).
DIVISION_SEED = seed_of(0)


def check_groups(groups: Any, n_rows: int) -> Ints | None:
    """Numbers for the labels of rows, int64 of shape (N,), equal for equal labels; None if there are none.

    TypeError if they are not a sequence, or one is not hashable; ValueError if they are not one for every row, or all
    are equal.
    """
    if groups is None:
        return None
    if isinstance(groups, str | bytes | Mapping | Set) or not isinstance(groups, Collection):
        raise TypeError(f"groups must hold a label for each row, got {groups!r}")
    shape = getattr(groups, "shape", (len(groups),))
    if tuple(shape) != (n_rows,):
        raise ValueError(f"groups.shape == {tuple(shape)}, expected {(n_rows,)}: one for every row")
    labels = np.empty(n_rows, dtype=object)
    labels[:] = list(groups)  # a label may be a tuple
    for i, label in enumerate(labels):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"groups: the label of row {i} is a {type(label).__name__}, not hashable"
            )
    numbers = pd.factorize(labels)[0]
    if (numbers < 0).any():
        i = int((numbers < 0).argmax())
        raise ValueError(f"groups: row {i} has no label, but {labels[i]!r}")
    if not numbers.any():
        raise ValueError("all rows are of one group; at least two are needed")
    return numbers.astype(np.int64)


def hold_out(
    n_rows: int, units: Ints | None, n_held: int, seed: int = DIVISION_SEED
) -> tuple[Ints, Ints]:
    """Positions of the rows of ``n_held`` groups, and of the other rows, in random order.

    Every choice of groups is equally likely. ``units`` (n_rows,) has the group of each row; by default its own.
    """
    random = np.random.RandomState(seed)
    order = random.permutation(n_rows)
    numbers = None if units is None else np.unique(units, return_inverse=True)[1]
    if numbers is None or numbers.max() + 1 == n_rows:
        return order[:n_held], order[n_held:]
    chosen = random.permutation(numbers.max() + 1)[:n_held]
    held = np.isin(numbers, chosen)[order]
    return order[held], order[~held]


def in_order_of_content(
    x: NDArray[np.float64], schema: Sequence[Column], units: Ints | None = None
) -> tuple[Ints, Ints | None]:
    """Positions (N,) of encoded rows x (N, C') in a random order that depends on what all of them hold.

    And the groups of the rows in that order, numbered as they come. Of a cell counts which numbers of its column there
    are, how many of them are at most as large, or, without an order, equal; then which rows these are, and which column
    it is, by the same (the refinement of colours of Weisfeiler and Leman, 1968). So neither the order in which rows
    come, nor units, names of levels, or the order of the columns matter. Rows that all this does not tell apart keep
    their order before all are permuted. Ranks alone would hold out the same ranks of every column, and one seed for all
    tables nearly the same number of rows of a level that is as frequent: what is held out would be no random draw.
    """
    cells = [*x.T] if units is None else [*x.T, units]
    columns, keys = [], np.zeros(len(x), np.uint64)
    for j, column in enumerate(cells):
        values, where, counts = np.unique(column, return_inverse=True, return_counts=True)
        is_ordered = j < len(schema) and schema[j].is_ordered
        colours = mixed(np.cumsum(counts) if is_ordered else counts)
        if is_ordered and not schema[j].codec.has_levels:
            colours = mixed(colours + places(schema[j].codec.decode(values)))
        columns.append((where, colours))
        keys += colours[where]
    refined = np.zeros(len(x), np.uint64)
    for where, colours in columns:
        rows_of_value = np.zeros_like(colours)
        np.add.at(rows_of_value, where, keys)
        colours = mixed(colours + rows_of_value)
        refined += mixed(colours + colours.sum())[where]
    random = np.random.RandomState(int(mixed(refined).sum() % np.uint64(2**32)))
    order = random.permutation(np.argsort(refined, kind="stable"))
    return order, None if units is None else pd.factorize(units[order])[0]


def places(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Numbers for where the different values of a column lie, (n,), in thousandths of the distance of its quartiles.

    Whatever the unit: rounding errors of one are far below, and the least and the greatest number would tell little of
    one with an outlier.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 3:
        return np.zeros(len(values), np.uint64)
    low, high = np.quantile(finite / 2, [0.25, 0.75])  # a half, for the greatest floats
    with np.errstate(all="ignore"):
        away = np.clip((values / 2 - low) / (high - low) * PLACES, -(2.0**62), 2.0**62)
    return np.rint(np.nan_to_num(away)).astype(np.int64).view(np.uint64)


def mixed(numbers: np.ndarray) -> NDArray[np.uint64]:
    """A 64-bit hash of each whole number, by the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    hashes = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))


def count_units(n_rows: int, units: Ints | None) -> int:
    """Number of groups to divide."""
    return n_rows if units is None else len(np.unique(units))


def one_of_each(held: Ints, units: Ints | None) -> Ints:
    """One position of each group among positions in random order, in the order of the table."""
    if units is not None:
        held = held[np.unique(units[held], return_index=True)[1]]
    return np.sort(held)


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows to which recipes are fitted, with results that several recipes need, computed once.

    ``marginals`` are independent columns, fitted to the training rows ``x`` (N, C); ``x_valid`` (N', C) are held-out
    rows; NaN where a cell is missing. The generator, on the device of the rows, is for exact denoisers: networks have
    their own. Gaps in columns ``summed_out`` carry information. Held-out rows are judged with the ``relations`` (23).
    """

    marginals: MarginalDenoiser
    x: Tensor
    x_valid: Tensor
    generator: torch.Generator
    summed_out: tuple[int, ...] = ()
    relations: RelatedCells | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    failed: set[Hashable] = field(default_factory=set, init=False, repr=False)

    @property
    def codebook(self) -> Codebook:
        return self.marginals.codebook

    @property
    def device(self) -> torch.device:
        return self.x.device

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of ``make``, called at the first request for this key: networks share equal bases."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def attempt(self, key: Hashable, label: str, make: Callable[[], Made]) -> Made | None:
        """The result of ``make`` for one model among others; None, with a warning that names it, if that fails.

        Whatever the error, a lack of memory too; but errors of files (OSError) and Ctrl-C are raised. What has failed
        is not tried again.
        """
        if key in self.failed:
            return None
        try:
            return make()
        except OSError:
            raise
        except Exception as error:
            self.failed.add(key)
            reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
            warn(f"{label} is left out, because it failed: {reason}")
            return None

    @torch.no_grad()
    def held_out(self, denoiser: Denoiser) -> Tensor:
        """Code length of each held-out row in closed form, nats: float64, (N',); kept unless it is being trained.

        A ValueError if one is not finite, or if their mean is negative where all numbers were recorded on a lattice.
        """

        def nats() -> Tensor:
            found = -following(denoiser, self.relations).log_prob(self.x_valid).double()
            n = int((~found.isfinite()).sum())
            if n:
                raise ValueError(
                    f"a {type(denoiser).__name__} leaves {n} of {len(found)} held-out rows no finite code length"
                )
            # of a mass, but for the rounding of float32
            if self.codebook.lines.all_have_steps and float(found.mean()) < -1e-3:
                raise ValueError(
                    f"a {type(denoiser).__name__} has {found.mean():.4g} nats per held-out row: its probabilities of"
                    " recorded numbers add up to more than one"
                )
            return found

        if any(p.requires_grad for p in denoiser.parameters()):
            return nats()
        return self.once(("held out", denoiser), nats)

    def held_out_nats(self, denoiser: Denoiser) -> float:
        return float(self.held_out(denoiser).mean())


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a table, for a ``fit``, and the ``schema`` of the table, which decides on the kinds of columns."""

    rows: Any
    schema: TableEncoder


def infer_schema(frame: pd.DataFrame, estimator: Any, *, is_frame: bool) -> TableEncoder:
    """The schema of a table, from a frame or array, by the parameters of a density."""
    return TableEncoder.infer(
        frame,
        estimator.column_types,
        handle_unknown=estimator.handle_unknown,
        missing=estimator.missing,
        from_array=not is_frame,
        leave_out=True,
    )


class ReadTable(NamedTuple):
    """A user's table after reading."""

    encoder: TableEncoder
    rows: TrainingRows
    shown: Any  # the table or, of a stream, the rows from which scikit-learn takes names and numbers of columns
    is_frame: bool  # whether it has names, or was an array
    is_polars: bool


def read_table(
    X: Any, estimator: Any, *, groups: Any, seed: int, device: torch.device
) -> ReadTable:
    """The table, the :class:`Part` of one, or the sample of a stream, that is given to the ``fit`` of an estimator.

    A ValueError or TypeError names the column or argument that is invalid.
    """
    schema = X.schema if isinstance(X, Part) else None
    X = X.rows if isinstance(X, Part) else X
    types, missing = estimator.column_types, estimator.missing
    with stage("reading the table"):
        X = in_memory(X, seed, groups)
        frame, is_frame = read_rows(X, estimator)
        shown: Any = frame if is_frame else X
        # names that scikit-learn refuses
        validate_data(type(estimator)(), shown, skip_check_array=True)
        if len(frame) < 2:
            raise ValueError(f"n_samples=1: at least two rows are needed, got {len(frame)}")
        units = check_groups(groups, len(frame))
        if schema is None:
            schema = infer_schema(frame, estimator, is_frame=is_frame)
            encoder = schema.with_informative_gaps(frame, types, missing=missing)
        else:
            encoder = schema.refit(frame, types, missing=missing)
        try:
            encoder = encoder.with_relations(frame)
        except Exception as error:  # a fit needs none
            warn(f"columns that follow from others are not known: {type(error).__name__}: {error}")
        x = torch.from_numpy(encoder.readable(frame)[0].x)
        has_cells = ~x.isnan().all(1)
        x, units = x[has_cells], None if units is None else units[has_cells.numpy()]
    with stage("fitting independent columns"):
        rows = _divided(encoder, x, units, estimator.validation_fraction, seed, device)
    return ReadTable(encoder, rows, shown, is_frame, is_polars(X))


def _divided(
    encoder: TableEncoder,
    x: Tensor,
    units: Ints | None,
    share: float,
    seed: int,
    device: torch.device,
) -> TrainingRows:
    """Encoded rows (N, C') with a cell, a share of which, or of their ``units`` (N,), is held out."""
    n = count_units(len(x), units)
    if n < 2:
        what = "rows" if units is None else "groups of rows"
        raise ValueError(f"at least two {what} with a cell that is not missing are needed")
    n_valid = min(max(1, round(share * n)), n - 1, 20_000)  # every candidate is judged on them
    order, units = in_order_of_content(x.numpy(), encoder.schema, units)
    x = x[torch.from_numpy(order)]
    division = hold_out(len(x), units, n_valid)
    x_valid, x = (x[torch.from_numpy(part)].to(device) for part in division)
    book, unseen = encoder.codebook().to(device), encoder.unseen_counts
    marginals = MarginalDenoiser.fit(book, x, unseen_counts=unseen)
    generator = torch.Generator(device).manual_seed(seed)
    summed_out = tuple(j for j, c in enumerate(encoder.schema) if c.informative)
    return TrainingRows(marginals, x, x_valid, generator, summed_out, encoder.related)
