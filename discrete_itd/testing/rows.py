"""Rows and states of small tables, for checks of denoisers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import Codebook


def all_rows(codebook: Codebook, grid: Sequence[float] | None = None) -> Tensor:
    """Every row over the categories of a codebook, and over a grid of values of its continuous columns.

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> all_rows(Codebook([ColumnPoints("simplex", 2), ColumnPoints("real")]), grid=[0.5])
    tensor([[0.0000, 0.5000],
            [1.0000, 0.5000]], dtype=torch.float64)
    """
    values: list[Any] = [grid if c.kind == "real" else range(c.n_points) for c in codebook.columns]
    rows = list(itertools.product(*values))
    return torch.tensor(rows, dtype=torch.float64, device=codebook.device)


def random_rows(
    codebook: Codebook, n: int, rng: np.random.Generator, *, missing: float = 0.0
) -> Tensor:
    """Rows of a codebook, (n, C): any category, any value, NaN with a probability of ``missing``.

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> random_rows(Codebook([ColumnPoints("simplex", 2)]), 3, np.random.default_rng(0)).shape
    torch.Size([3, 1])
    """
    rows = [
        rng.normal(0, 0.6, n) if c.kind == "real" else rng.integers(c.n_points, size=n)
        for c in codebook.columns
    ]
    table = np.stack(rows, 1).astype(float)
    table[rng.random(table.shape) < missing] = math.nan
    return torch.tensor(table, device=codebook.known_snr.device)


def states_of_every_kind(
    codebook: Codebook, rng: np.random.Generator, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """States ``y`` (9, D), ``snr`` (9, C) with no, all or some cells known, or noisy evidence of all or some.

    ``rows`` (9, C) are the underlying rows; by default random ones.

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> y, snr = states_of_every_kind(Codebook([ColumnPoints("simplex", 2)]), np.random.default_rng(0))
    >>> snr[:3, 0].isinf().tolist()
    [False, True, False]
    """
    unknown, noisy, known = 0, 1, 2
    kinds = rng.integers(3, size=(9, codebook.n_columns))
    kinds[0], kinds[1], kinds[2] = unknown, known, noisy
    kinds[3:5] = rng.choice([unknown, known], size=(2, codebook.n_columns))
    snr = torch.tensor(np.exp(rng.uniform(-2, 4, kinds.shape))).to(codebook.known_snr)
    which = torch.tensor(kinds, device=snr.device)
    snr = snr.masked_fill(which == unknown, 0.0).masked_fill(which == known, math.inf)
    x = codebook.embed(random_rows(codebook, len(kinds), rng) if rows is None else rows)
    wide = codebook.per_coord(snr)
    finite = wide.masked_fill(wide.isinf(), 0.0)
    y = finite * x + finite.sqrt() * torch.tensor(rng.normal(size=x.shape)).to(x)
    return torch.where(wide.isinf(), x, y), snr
