"""Pictures as rows of a table: which column a pixel is, and what values it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook, ColumnPoints


@dataclass(frozen=True)
class Pixels:
    """How pictures of one kind are laid out.

    Parameters
    ----------
    shape : tuple of int
        Of one picture as the model takes it, channels first, like (3, 32, 32); of a plain row, (D,).
    n_levels : int, optional
        Grey levels of a pixel, of which the picture holds the numbers 0 ... n_levels - 1. By default values are
        continuous, in the model's own units.
    low, high : float
        The model's values of the darkest and the lightest level.
    n_classes : int
        Classes that a picture may be given with; a last column tells which, if there are any.

    Examples
    --------
    >>> pixels = Pixels((1, 1, 2), n_levels=3, n_classes=2)
    >>> pixels.encode(np.array([[[0, 2]]]), [1]).tolist()
    [[0.0, 2.0, 1.0]]
    >>> pixels.codebook().embed(pixels.encode(np.array([[[0, 2]]]), [1])).tolist()[0][:2]
    [-1.0, 1.0]
    """

    shape: tuple[int, ...]
    n_levels: int | None = None
    low: float = -1.0
    high: float = 1.0
    n_classes: int = 0

    def __post_init__(self) -> None:
        if not self.shape or any(type(n) is not int or n < 1 for n in self.shape):
            raise ValueError(f"shape must be positive integers, got {self.shape}")
        if self.n_levels is not None and (
            type(self.n_levels) is not int or not 2 <= self.n_levels <= 256
        ):
            raise ValueError(f"n_levels must be an integer from 2 to 256, got {self.n_levels!r}")
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.n_classes < 0:
            raise ValueError(f"n_classes must not be negative, got {self.n_classes}")

    @property
    def n_pixels(self) -> int:
        """Numbers of one picture, D."""
        return math.prod(self.shape)

    @property
    def columns(self) -> tuple[ColumnPoints, ...]:
        """Of a row: every pixel a point on a line, in the model's units, then the class."""
        pixel = ColumnPoints("real")
        if self.n_levels is not None:
            levels = np.linspace(self.low, self.high, self.n_levels)
            pixel = ColumnPoints("line", self.n_levels, levels=tuple(levels.tolist()))
        classes = [ColumnPoints("simplex", self.n_classes)] if self.n_classes else []
        return (*[pixel] * self.n_pixels, *classes)

    def codebook(self) -> Codebook:
        """The points of a row."""
        # a class is never guessed: it is known before the pixels, or missing
        return Codebook(self.columns, [self.n_pixels] if self.n_classes else [])

    def encode(self, X: Any, labels: Any = None) -> Tensor:
        """Rows of pictures ``X`` (N, *shape), for one channel also (N, H, W), or (N, D): float64, (N, C).

        Parameters
        ----------
        X : array-like or Tensor
            Levels, or values.
        labels : array-like of int, shape (N,), optional
            Classes; without them, the class of every row is missing.

        Raises
        ------
        ValueError
            If the shape is another, or a value, level or class is not possible; it is named.
        """
        # bool for two levels, float16 for values: all are exact in float64
        values = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
        if values.dtype == object or values.dtype.kind not in "biuf":
            raise TypeError(f"pictures must be numbers, got an array of {values.dtype}")
        if self.n_levels is None and values.dtype.kind in "biu":
            raise ValueError(
                f"pictures of {values.dtype} have levels: say how many by n_levels, or give the model's own values"
            )
        shapes = [self.shape, (self.n_pixels,)]
        if self.shape[0] == 1:
            shapes.append(self.shape[1:])
        if values.ndim < 1 or values.shape[1:] not in shapes:
            raise ValueError(
                f"pictures must have shape (N, {', '.join(map(str, self.shape))}), got {values.shape}"
            )
        cells = np.ascontiguousarray(values.reshape(len(values), self.n_pixels), dtype=np.float64)
        if not np.isfinite(cells).all():
            raise ValueError("a pixel is not finite; every pixel must be there")
        if self.n_levels is not None:
            wrong = (cells != np.rint(cells)) | (cells < 0) | (cells >= self.n_levels)
            if wrong.any():
                row, pixel = np.argwhere(wrong)[0]
                raise ValueError(
                    f"pixel {pixel} of picture {row} is {cells[row, pixel]:g}, no level of 0 to {self.n_levels - 1}:"
                    " levels are whole numbers, whatever the model's own values"
                )
        if not self.n_classes:
            if labels is not None:
                raise ValueError("the model knows no classes, so labels must not be given")
            return torch.from_numpy(cells)
        column = np.full((len(cells), 1), np.nan)
        if labels is not None:
            classes = np.asarray(labels)
            if classes.shape != (len(cells),):
                raise ValueError(
                    f"labels must have shape ({len(cells)},), one a picture, got {classes.shape}"
                )
            bad = ~np.isin(classes, np.arange(self.n_classes))
            if bad.any():
                raise ValueError(
                    f"label {classes[bad][0]!r} is no class of 0 to {self.n_classes - 1}"
                )
            column[:, 0] = classes
        return torch.from_numpy(np.hstack([cells, column]))

    def decode(self, x: Tensor) -> np.ndarray:
        """Pictures of rows ``x`` (N, C): levels as unsigned bytes or values as float64, (N, *shape)."""
        cells = x[:, : self.n_pixels].cpu().double().numpy().reshape(-1, *self.shape)
        return cells if self.n_levels is None else cells.astype(np.uint8)
