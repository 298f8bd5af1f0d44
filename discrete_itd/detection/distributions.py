"""Conditional distributions of cells, categorical or densities, and their predicted values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.gaussian import (
    GaussianPosterior,
    log_between,
    truncated_cdf,
    truncated_quantile,
)
from discrete_itd.channel.grid import GridPosterior
from discrete_itd.denoisers.base import rows_at_once
from discrete_itd.encoders import Bins, Categories, Column, Continuous

INTERVAL = 0.8  # probability of the reported interval of a number
MANY_LEVELS = 10  # numbers with more distinct values are reported as an interval
# points of the quadrature of a mixture's entropy: at least, at most, and times components where there are more
POINTS, MANY_POINTS, WORK = 512, 1 << 13, 1 << 20
HALVINGS = 45  # of an interval of a few units that contains a quantile
LEFT_OUT = 1e-7  # probability of the components of a mixture that are left out
CHUNK = 1 << 22  # rows times points times Gaussians at once
SMALLEST = 1e-300  # least probability
QUANTILES = [(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2]


class Expected(NamedTuple):
    """Predicted values of one column: four arrays of shape (N, n), the most probable first.

    ``value`` is a category, or the median of a number; None for a missing cell, or where fewer than n values exist.
    ``probability`` is that of the value, or of the interval; NaN where fewer than n values exist. ``low`` and ``high``
    are the central interval of a number; None for categories.
    """

    value: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Categorical:
    """Distributions of cells over the levels of one categorical or binned column: ``log_probs`` (B, K), nats."""

    is_density = False

    def __init__(self, column: Column, log_probs: Tensor) -> None:
        self.column, self.log_probs = column, log_probs

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-probabilities of the levels ``values`` (B,)."""
        return self.log_probs.gather(1, values[:, None].long())[:, 0]

    def central(self) -> Tensor:
        """The most probable level of those seen in training: float64, (B,)."""
        n_levels = self.column.codec.n_levels + 2 * isinstance(self.column.codec, Bins)
        return self.log_probs[:, :n_levels].argmax(1).double()

    def entropy(self) -> np.ndarray:
        """Expected surprisal in the column's unit, (B,), nats."""
        volume = torch.from_numpy(mean_log_volume(self.column)).to(self.log_probs)
        inside = torch.where(self.log_probs > -math.inf, self.log_probs + volume, 0.0)
        return -(self.log_probs.exp() * inside).sum(1).cpu().numpy()

    def expected(self, n: int) -> Expected:
        """Up to ``n`` most probable categories seen in training, or the median and interval of numbers."""
        n_levels = self.column.codec.n_levels + 2 * isinstance(self.column.codec, Bins)
        probs = torch.softmax(self.log_probs[:, :n_levels], 1)
        if _is_number(self.column):
            return self._interval(probs)
        pooled = getattr(self.column.codec, "pooled", ())
        if pooled:
            probs[:, -1] /= len(pooled)  # one of the pooled categories
        top = probs.topk(min(n, n_levels), 1)
        values = _decode(self.column, top.indices.cpu().numpy())
        nothing = np.full(values.shape, None, dtype=object)
        return Expected(values, top.values.cpu().numpy(), nothing, nothing)

    def _interval(self, probs: Tensor) -> Expected:
        cdf = probs.cumsum(1)
        cdf = cdf / cdf[:, -1:]
        u = torch.tensor(QUANTILES).to(cdf)
        level = torch.searchsorted(cdf, u.expand(len(cdf), -1).contiguous())
        level = level.clamp_max(cdf.shape[1] - 1)
        mass = probs.gather(1, level)
        top = cdf.gather(1, level)
        if isinstance(self.column.codec, Bins):
            share = (1 - (top - u) / mass.clamp_min(SMALLEST)).clamp(0, 1 - 1e-9)
            share = torch.where(level == 0, 1 - 1e-9 - share, share)  # the lower tail is reversed
            values = _decode(self.column, level.cpu().numpy(), share.cpu().numpy())
            one = values[:, 0] == values[:, 2]  # a value with a bin of its own
            probability = np.where(one, mass[:, 1].cpu().numpy(), INTERVAL)
        else:
            values = _decode(self.column, level.cpu().numpy())
            probability = (top[:, 2] - top[:, 0] + mass[:, 0]).cpu().numpy()
        return Expected(values[:, 1:2], probability[:, None], values[:, :1], values[:, 2:])


class Mixture:
    """Densities of one continuous column as mixtures of Gaussians: ``mixture`` has shape (B, 1, K)."""

    is_density = True

    def __init__(self, column: Column, mixture: GaussianPosterior) -> None:
        self.column, self.mixture = column, mixture

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-densities at the standardised ``values`` (B,)."""
        return self.mixture.log_prob(values[:, None])[:, 0]

    def central(self) -> Tensor:
        """The standardised median, (B,)."""
        return self.quantiles([0.5])[:, 0]

    def entropy(self) -> np.ndarray:
        """Differential entropy in the column's unit, (B,), nats, within about 0.01 for most mixtures, and 0.05 for any.

        The mean surprisal at the points of a Hammersley set over components and quantiles within them. Memory is
        bounded, and time grows like the number of components.
        """
        out = torch.zeros(len(self.mixture.means), dtype=torch.float64)
        for rows, log_weight, means, sd, bounds in self._few_components(_points_for):
            n = _points_for(means.shape[1])
            at = (torch.arange(n, dtype=torch.float64) + 0.5) / n
            within = _van_der_corput(n).to(means)
            cumulative = log_weight.exp().cumsum(1)
            share = at.to(means).expand(len(means), -1) * cumulative[:, -1:]
            which = torch.searchsorted(cumulative, share).clamp_max(means.shape[1] - 1)
            own = tuple(t.gather(1, which) for t in bounds)
            z = truncated_quantile(within, *own) if own else torch.special.ndtri(within)
            points = means.gather(1, which) + sd.gather(1, which) * z  # (b, n)
            of_each = log_normal(points[:, :, None], means[:, None], sd[:, None])
            if bounds:
                z = (points[:, :, None] - means[:, None]) / sd[:, None]
                # rounding must not move a point out of its interval
                inside = (z > bounds[0][:, None]) & (z <= bounds[1][:, None])
                inside = inside.scatter(2, which[:, :, None], True)
                of_each = of_each - log_between(*bounds)[:, None]
                of_each = of_each.masked_fill(~inside, -math.inf)
            density = torch.logsumexp(log_weight[:, None] + of_each, 2).cpu().numpy()
            volume = log_volume_at(self.column, points.cpu().numpy().ravel())
            out[rows.cpu()] = torch.from_numpy(-(density + volume.reshape(density.shape)).mean(1))
        return out.numpy()

    def expected(self, n: int) -> Expected:
        """The median and the central interval, whatever ``n``."""
        return _median_and_interval(self.column, self.quantiles(QUANTILES))

    def quantiles(self, u: list[float]) -> Tensor:
        """Standardised quantiles at levels ``u``: (B, len(u)), by bisection."""
        like = self.mixture.means
        share = torch.tensor(u, dtype=torch.float64).to(like.device)
        out = torch.zeros(len(like), len(u), dtype=torch.float64, device=like.device)
        for rows, log_weight, means, sd, bounds in self._few_components(lambda _: len(u)):
            weight, mean, scale = (t[:, :, None] for t in (log_weight.exp(), means, sd))
            bounds = tuple(t[:, :, None] for t in bounds)
            z = truncated_quantile(share, *bounds) if bounds else torch.special.ndtri(share)
            of_each = mean + scale * z  # the mixture's quantile lies between these
            low, high = of_each.amin(1), of_each.amax(1)
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                z = (middle[:, None] - mean) / scale
                cdf = truncated_cdf(z, *bounds) if bounds else torch.special.ndtr(z)
                below = (weight * cdf).sum(1)
                low = torch.where(below < share, middle, low)
                high = torch.where(below < share, high, middle)
            out[rows] = (low + high) / 2
        return out

    def _few_components(
        self, n_points: Callable[[int], int]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...]]]:
        """Row numbers (b,), log-weights, means and standard deviations (b, K') of their main components, and bounds.

        Bounds, if there are any, are standardised. All are in double, by rising mean, without the least likely
        components, which have ``LEFT_OUT`` of the probability together: given other cells, few of thousands of
        components are left. Rows that need about equally many are processed together, as many as keep K' times
        ``n_points`` numbers within ``CHUNK``.
        """
        q = self.mixture
        n_components = q.means.shape[2]
        every = torch.arange(len(q.means), device=q.means.device)
        for part in every.split(max(1, CHUNK // n_components)):
            log_weight, order = q.log_weight[part, 0].double().sort(1, descending=True)
            rest = 1 - log_weight.exp().cumsum(1)
            n_kept = (1 + (rest > LEFT_OUT).sum(1)).clamp_max(n_components)
            needs = [1 << (n - 1).bit_length() for n in n_kept.tolist()]
            for need in sorted(set(needs)):
                k = min(need, n_components)
                places = torch.nonzero(torch.tensor(needs) == need).flatten().to(part.device)
                for some in places.split(max(1, CHUNK // (k * n_points(k)))):
                    rows, own = part[some], order[some, :k]
                    beyond = torch.arange(k, device=part.device) >= n_kept[some][:, None]
                    kept = log_weight[some, :k].masked_fill(beyond, -math.inf)
                    means, rising = q.means[rows, 0].double().gather(1, own).sort(1)
                    own = own.gather(1, rising)
                    sd = q.var[rows, 0].double().gather(1, own).sqrt()
                    ends = (t[rows, 0].double().gather(1, own) for t in q.bounds)
                    bounds = tuple((t - means) / sd for t in ends)
                    yield rows, torch.log_softmax(kept, 1).gather(1, rising), means, sd, bounds


class Gridded:
    """Densities of one continuous column, on grids or mixtures of Gaussians: ``density`` has B rows and one column."""

    is_density = True

    def __init__(self, column: Column, density: GridPosterior) -> None:
        self.column, self.density = column, density
        on_grid = density.place[:, 0] >= 0
        self._on_grid, self._others = (torch.nonzero(t).flatten() for t in (on_grid, ~on_grid))
        parts = density.log_weight, density.means, density.var, *density.bounds
        others = (t[self._others].double() for t in parts)
        self._mixture = Mixture(column, GaussianPosterior(*others, normalised=True))

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-densities at the standardised ``values`` (B,)."""
        return self.density.log_prob(values[:, None])[:, 0].double()

    def central(self) -> Tensor:
        """The standardised median, (B,)."""
        return self.quantiles([0.5])[:, 0]

    def entropy(self) -> np.ndarray:
        """Differential entropy in the column's unit, (B,), nats: the mean surprisal at evenly spread quantiles."""
        out = torch.zeros(len(self.density.place), dtype=torch.float64)
        out[self._others.cpu()] = torch.from_numpy(self._mixture.entropy())
        for rows in self._on_grid.split(max(1, CHUNK // POINTS)):
            levels = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
            points = self._quantiles(rows, levels)
            density = self.density.pick(lambda t, rows=rows: t[rows]).log_probs(points)
            volume = log_volume_at(self.column, points.cpu().numpy().ravel())
            volume = torch.from_numpy(volume.reshape(points.shape))
            out[rows.cpu()] = -(density.cpu() + volume).mean(1)
        return out.numpy()

    def expected(self, n: int) -> Expected:
        """The median and the central interval, whatever ``n``."""
        return _median_and_interval(self.column, self.quantiles(QUANTILES))

    def quantiles(self, u: list[float]) -> Tensor:
        """Standardised quantiles at levels ``u``: (B, len(u))."""
        place = self.density.place
        out = torch.zeros(len(place), len(u), dtype=torch.float64, device=place.device)
        out[self._others] = self._mixture.quantiles(u)
        out[self._on_grid] = self._quantiles(self._on_grid, torch.tensor(u, dtype=torch.float64))
        return out

    def _quantiles(self, rows: Tensor, u: Tensor) -> Tensor:
        return self.density.pick(lambda t: t[rows]).quantiles(u)[:, 0]


def _points_for(n_components: int) -> int:
    """Number of points of the quadrature of an entropy: more for mixtures of few components, which cost less."""
    return rows_at_once(max(POINTS, min(MANY_POINTS, WORK // n_components)))


def _van_der_corput(n: int) -> Tensor:
    """The first n numbers of the van der Corput sequence to base 2, at the middle of their intervals: float64, (n,)."""
    bits, i = max(1, (n - 1).bit_length()), torch.arange(n)
    reverse = sum(((i >> b) & 1) << (bits - 1 - b) for b in range(bits))
    return (torch.as_tensor(reverse).double() + 0.5) / 2**bits


CellDistribution = Categorical | Mixture | Gridded  # the cells of one column in B rows


def log_normal(z: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Log-density of Gaussians at z, nats."""
    return -0.5 * ((z - mean) / sd).square() - (sd * math.sqrt(2 * math.pi)).log()


def log_volume_at(column: Column, z: np.ndarray) -> np.ndarray:
    """Log-volume of a continuous column near standardised values, expected over whether a number is new."""
    codec = cast(Continuous, column.codec)
    return codec.slope(codec.decode(z))[1] - codec.mean_new_nats - _log_unit(column)


def mean_log_volume(column: Column) -> np.ndarray:
    """Expected log-volume of a value of each level, (K,), nats."""
    codec = column.codec
    volume = np.zeros(codec.points.n_points)
    if isinstance(codec, Bins):
        with np.errstate(over="ignore", divide="ignore"):
            widths = np.minimum(np.diff(codec.edges), np.finfo(float).max)
            s = np.array(codec.tails)
            # the log-density falls linearly with the distance, so its mean is that at the mean distance
            if codec.whole:
                steps = 1 / np.expm1(1 / s)
                low, high = np.log(-np.expm1(-1 / s)) - steps / s
            else:
                low, high = -np.log(s) - 1
        volume = np.concatenate(([low], -np.log(widths), [high])) - _log_unit(column)
    elif not isinstance(codec, Continuous) and codec.pooled:
        volume[codec.n_levels - 1] = -math.log(len(codec.pooled))
    return volume


def with_missing(expected: Expected, log_present: Tensor | None, n: int) -> Expected:
    """Predictions in n columns, with "missing" at its rank among the values if its probability is modelled."""
    if log_present is not None:
        present = log_present.exp().cpu().numpy()[:, None]
        missing = np.full(present.shape, None, dtype=object)
        columns = zip(
            expected._replace(probability=expected.probability * present),
            (missing, 1 - present, missing, missing),
            strict=True,
        )
        joined = [np.concatenate(pair, 1) for pair in columns]
        order = np.argsort(-joined[1], axis=1, kind="stable")
        expected = Expected(*(np.take_along_axis(t, order, 1) for t in joined))
    fill: tuple[Any, ...] = (None, math.nan, None, None)
    whole = [np.full((len(t), n), f, dtype=t.dtype) for t, f in zip(expected, fill, strict=True)]
    for out, t in zip(whole, expected, strict=True):
        out[:, : t.shape[1]] = t[:, :n]
    return Expected(*whole)


def _median_and_interval(column: Column, quantiles: Tensor) -> Expected:
    """Predictions of continuous cells from standardised quantiles (B, 3)."""
    values = _decode(column, quantiles.cpu().numpy())
    probability = np.full((len(values), 1), INTERVAL)
    return Expected(values[:, 1:2], probability, values[:, :1], values[:, 2:])


def _is_number(column: Column) -> bool:
    """Whether a median and an interval describe a column of levels better than its most probable values."""
    if isinstance(column.codec, Bins):
        return True
    numeric = all(isinstance(c, int | float) and not isinstance(c, bool) for c in column.categories)
    return column.kind == "ordinal" and numeric and len(column.categories) > MANY_LEVELS


def _log_unit(column: Column) -> float:
    """Logarithm of a column's unit in units of its values: times are stored in nanoseconds."""
    return 0.0 if column.family == "number" else math.log(column.step / 1e9)


def _decode(column: Column, cells: np.ndarray, share: np.ndarray | None = None) -> np.ndarray:
    """Values of the table for encoded ``cells``, of their shape; ``share`` is the position within each bin."""
    if isinstance(column.codec, Categories):
        position = column.codec.decode(cells.astype(float).ravel())
        return np.array([*column.categories, None], dtype=object)[position].reshape(cells.shape)
    fixed = None if share is None else SimpleNamespace(random=lambda n: share.ravel()[:n])
    rng = cast(Any, fixed)  # in place of a generator, whose draws are the positions
    values = column.decode(cells.astype(float).ravel(), rng).astype(object).to_numpy()
    return values.reshape(cells.shape)
