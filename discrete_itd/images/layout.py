"""Images as rows of a table: the layout of columns, and results as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.validation import check_integer

SHARES = (0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999)  # candidate weights of the smoothed levels


@dataclass(frozen=True)
class Pixels:
    """Layout of images of one kind.

    Parameters
    ----------
    shape : tuple of int
        Shape of one image as the model takes it, channels first, like (3, 32, 32); (D,) for plain rows.
    n_levels : int, optional
        Levels of a pixel, which images hold as 0 ... n_levels - 1. By default values are continuous, in the model's
        own units.
    low, high : float
        The model's values of the first and the last level.
    n_classes : int
        Classes of images; if there are any, the last column of a row is the class.

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
        if self.n_levels is not None:
            check_integer("n_levels", self.n_levels, 2, 256)
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        check_integer("n_classes", self.n_classes, 0)

    @property
    def n_pixels(self) -> int:
        return math.prod(self.shape)

    @property
    def columns(self) -> tuple[ColumnPoints, ...]:
        """Columns of a row: every pixel a point on a line in the model's units, then the class."""
        pixel = ColumnPoints("real")
        if self.n_levels is not None:
            levels = np.linspace(self.low, self.high, self.n_levels)
            pixel = ColumnPoints("line", self.n_levels, levels=tuple(levels.tolist()))
        classes = [ColumnPoints("simplex", self.n_classes)] if self.n_classes else []
        return (*[pixel] * self.n_pixels, *classes)

    def codebook(self) -> Codebook:
        # the class is never predicted: it is known before the pixels, or missing
        return Codebook(self.columns, [self.n_pixels] if self.n_classes else [])

    def encode(self, X: Any, labels: Any = None) -> Tensor:
        """Rows (N, C), float64, of images of shape (N, *shape), (N, D) or, with one channel, (N, H, W).

        ``X`` holds numbers of levels, or values; without ``labels`` (N,), the class of every row is missing. A
        ValueError names the shape, value, level or class that does not fit; a TypeError if X is not numeric.
        """
        # any numeric type, from bool to float16, is exact in float64
        values = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
        if values.dtype == object or values.dtype.kind not in "biuf":
            raise TypeError(f"images must be numbers, got an array of {values.dtype}")
        if self.n_levels is None and values.dtype.kind in "biu":
            raise ValueError(
                f"images of {values.dtype} have levels: set n_levels, or convert them to the model's own values"
            )
        shapes = [self.shape, (self.n_pixels,)]
        if self.shape[0] == 1:
            shapes.append(self.shape[1:])
        if values.ndim < 1 or values.shape[1:] not in shapes:
            raise ValueError(
                f"images must have shape (N, {', '.join(map(str, self.shape))}), got {values.shape}"
            )
        cells = np.ascontiguousarray(values.reshape(len(values), self.n_pixels), dtype=np.float64)
        if not np.isfinite(cells).all():
            raise ValueError("a pixel is not finite; missing pixels are not supported")
        if self.n_levels is not None:
            wrong = (cells != np.rint(cells)) | (cells < 0) | (cells >= self.n_levels)
            if wrong.any():
                row, pixel = np.argwhere(wrong)[0]
                raise ValueError(
                    f"pixel {pixel} of image {row} is {cells[row, pixel]:g}, not a level from 0 to {self.n_levels - 1}:"
                    " give the numbers of levels, not the model's values"
                )
        if not self.n_classes:
            if labels is not None:
                raise ValueError("the model has no classes, so labels must not be given")
            return torch.from_numpy(cells)
        column = np.full((len(cells), 1), np.nan)
        if labels is not None:
            classes = np.asarray(labels)
            if classes.shape != (len(cells),):
                raise ValueError(
                    f"labels must have shape ({len(cells)},), one per image, got {classes.shape}"
                )
            bad = ~np.isin(classes, np.arange(self.n_classes))
            if bad.any():
                raise ValueError(
                    f"label {classes[bad][0]!r} is not a class from 0 to {self.n_classes - 1}"
                )
            column[:, 0] = classes
        return torch.from_numpy(np.hstack([cells, column]))

    def decode(self, x: Tensor) -> np.ndarray:
        """Images (N, *shape) of rows ``x`` (N, C): levels as uint8, or values as float64."""
        cells = x[:, : self.n_pixels].cpu().double().numpy().reshape(-1, *self.shape)
        return cells if self.n_levels is None else cells.astype(np.uint8)


@torch.no_grad()
def pixel_marginals(pixels: Pixels, x: Tensor) -> MarginalDenoiser:
    """Marginal distributions of the pixels and the class, estimated from rows ``x`` (N, C).

    Levels: relative frequencies, mixed with kernel-smoothed ones in the proportion with the best leave-one-out
    log-likelihood. Continuous values: one Gaussian each. Classes: relative frequencies.
    """
    n, n_rows, book = pixels.n_pixels, len(x), pixels.codebook()
    classes = torch.zeros(0, dtype=torch.float64)
    if pixels.n_classes:
        column = x[:, n]
        known = column[~column.isnan()].long()
        classes = torch.bincount(known, minlength=pixels.n_classes) + 0.5
    if pixels.n_levels is None:
        cells = x[:, :n]
        var = cells.var(0, correction=0).clamp_min(1e-8)
        mixture = torch.stack([torch.zeros_like(var), cells.mean(0), var])[:, :, None]
        return MarginalDenoiser(book, classes, mixture)
    k = pixels.n_levels
    codes = x[:, :n].long()
    counts = torch.zeros(n, k, dtype=torch.float64)
    counts.scatter_add_(1, codes.T, torch.ones(n, n_rows, dtype=torch.float64))
    # a kernel with the width of Silverman's rule (1986), mixed with a little of the uniform distribution
    sd = codes.double().std(0, correction=0).mean()
    width = max(0.5, float(0.9 * sd * n_rows ** (-1 / 5)))
    level = torch.arange(k, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((level[:, None] - level) / width) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    uniform = 1 / (n_rows + 1) / k
    smooth = (counts @ kernel) * (n_rows / (n_rows + 1)) / n_rows + uniform
    # a row's own contribution is left out of its prediction
    self_weight = kernel.diagonal() * (n_rows / (n_rows + 1)) / n_rows

    def nats(share: float) -> float:
        probs = (1 - share) * (counts - 1).clamp_min(0) / max(1, n_rows - 1)
        probs = probs + share * (smooth - self_weight).clamp_min(uniform)
        return -float((counts * probs.log()).sum())

    best = min(SHARES, key=nats)
    probs = (1 - best) * counts / n_rows + best * smooth
    columns = [*probs, classes] if len(classes) else [*probs]
    wide = nn.utils.rnn.pad_sequence(columns, batch_first=True)
    return MarginalDenoiser(book, book.levels.gather(wide[None])[0])
