"""Tables to learn from, and the rows of them that recipes get."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.denoisers.private_forest import PrivateFit, fit_private
from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.frames import as_stream, in_memory, is_polars, read_rows
from discrete_itd.models.contract import TrainingRows
from discrete_itd.models.forest import Forest
from discrete_itd.models.held_out import Ints, check_groups, count_units, hold_out
from discrete_itd.validation import warn

MOST_HELD_OUT = 20_000  # rows on which every candidate is judged
# rows drawn from a private model that takes the place of a table: this many to fit to, and as many to hold out
PRIVATE_ROWS = 2000


@dataclass(frozen=True, eq=False)
class TableInMemory:
    """A table with its encoded rows ``x``, shape (N, C'), each with a cell that is not missing.

    Held-out rows are chosen at random; with ``units`` (N,), rows of one unit stay together.
    """

    encoder: TableEncoder
    x: Tensor
    units: Ints | None = None

    def __post_init__(self) -> None:
        if count_units(len(self.x), self.units) < 2:
            what = "rows" if self.units is None else "groups of rows"
            raise ValueError(f"at least two {what} with a cell that is not missing are needed")

    def training_rows(
        self, validation_fraction: float, seed: int, device: torch.device
    ) -> TrainingRows:
        """The rows, some of them held out."""
        n = count_units(len(self.x), self.units)
        n_valid = min(max(1, round(validation_fraction * n)), n - 1, MOST_HELD_OUT)
        division = hold_out(len(self.x), self.units, n_valid, seed)
        x_valid, x = (self.x[torch.from_numpy(part)].to(device) for part in division)
        book, unseen = self.encoder.codebook().to(device), self.encoder.unseen_counts
        marginals = MarginalDenoiser.fit(book, x, unseen_counts=unseen)
        generator = torch.Generator(device).manual_seed(seed)
        summed_out = tuple(j for j, c in enumerate(self.encoder.schema) if c.informative)
        return TrainingRows(marginals, x, x_valid, generator, summed_out)


@dataclass(frozen=True, eq=False)
class PrivateTable:
    """A private forest in place of a table, whose rows are not kept: what a fit reads are rows drawn from it."""

    encoder: TableEncoder
    recipe: Forest
    fitted: PrivateFit

    @classmethod
    def of(
        cls, encoder: TableEncoder, x: Tensor, recipe: Forest, seed: int, secret: bool
    ) -> PrivateTable:
        """The forest of encoded rows (N, C'); not ``secret`` noise follows from the seed."""
        random_bytes = os.urandom if secret else np.random.default_rng([seed, 16]).bytes
        assert recipe.epsilon is not None
        how = recipe.epsilon, recipe.n_trees, seed, random_bytes
        fitted = fit_private(encoder.codebook(), x, *how)
        numbers = zip(encoder.schema, fitted.n_missing, strict=False)
        schema = [replace(c, n_rows=fitted.n_rows, n_missing=n) for c, n in numbers]
        return cls(TableEncoder(schema), recipe, fitted)

    def training_rows(
        self, validation_fraction: float, seed: int, device: torch.device
    ) -> TrainingRows:
        """Drawn rows, for which the fit of the recipe is done already."""
        generator = torch.Generator(device).manual_seed(seed)
        forest, marginals = self.fitted.forest.to(device), self.fitted.marginals.to(device)
        x, x_valid = forest.draw(2 * PRIVATE_ROWS, generator).split(PRIVATE_ROWS)
        rows = TrainingRows(marginals, x, x_valid, generator)
        rows.once(self.recipe, lambda: forest)
        return rows


TrainingTable = TableInMemory | PrivateTable


class ReadTable(NamedTuple):
    """A user's table after reading."""

    table: TrainingTable
    shown: Any  # the table or, of a stream, the rows from which scikit-learn takes names and numbers of columns
    is_frame: bool  # whether it has names, or was an array
    is_polars: bool = False


def read_table(
    X: Any,
    estimator: Any,
    *,
    groups: Any = None,
    seed: int,
    private: Forest | None = None,
) -> ReadTable:
    """The table, or the sample of a stream, that a user gives to ``fit``.

    The seed is used for the sample, and for a forest that is fitted as a ``private`` one. A ValueError or TypeError
    names the column or argument that is invalid.
    """
    reading: Any = {
        "columns": estimator.column_types,
        "handle_unknown": estimator.handle_unknown,
        "missing": estimator.missing,
    }
    if private is None:
        X = in_memory(X, seed, groups)
    elif as_stream(X) is not None:
        raise ValueError("epsilon needs a table in memory; X is a stream")
    frame, is_frame = read_rows(X, estimator)
    polars, X = is_polars(X), frame if is_frame else X
    validate_data(type(estimator)(), X, skip_check_array=True)  # names that scikit-learn refuses
    if private is not None:
        if groups is not None:
            raise ValueError("epsilon is the privacy of single rows: no groups")
        secret = estimator.random_state is None
        if not secret:
            warn(
                "the noise of a private fit follows from random_state: the model is private only for whoever cannot"
                " know or guess it; fit with random_state=None before you give the model away"
            )
        # no row decides on anything but noisy counts
        encoder = TableEncoder.declared(frame.columns, **reading)
        x = torch.from_numpy(encoder.transform(frame).x)
        table = PrivateTable.of(encoder, x, private, seed, secret)
        return ReadTable(table, X, is_frame, polars)
    if len(frame) < 2:
        raise ValueError(f"n_samples=1: at least two rows are needed, got {len(frame)}")
    units = check_groups(groups, len(frame))
    encoder = TableEncoder.fit(frame, from_array=not is_frame, leave_out=True, **reading)
    x = torch.from_numpy(encoder.readable(frame)[0].x)
    there = ~x.isnan().all(1)
    units = None if units is None else units[there.numpy()]
    return ReadTable(TableInMemory(encoder, x[there], units), X, is_frame, polars)
