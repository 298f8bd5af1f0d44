r"""Reference density models for tables that mix numbers and categories.

All of them score in the table's own units: the natural logarithm of a mass over the categories times a density over
the numbers. A column of integers is scored as a mass as well, that of the interval of width one around the integer;
a model that has only a density is given the column with uniform noise of that width added, whose density is the same
mass spread evenly, so that all figures can be compared.

Most of the models are mixtures of products,

.. math:: p(x) = \sum_k w_k \prod_i \mathcal N(z_i; \mu_{ki}, v_{ki}) \prod_j P_{kj}(c_j),

which differ in how the components are found: one column by itself, EM, scikit-learn's ``GaussianMixture`` on one-hot
columns, or one component for every training row (a kernel density).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import log_ndtr, logsumexp, ndtr
from sklearn.cluster import MiniBatchKMeans
from sklearn.mixture import GaussianMixture

CHUNK = 1 << 21  # rows times components held at once
BACKGROUND = 0.01  # share of a histogram that goes to a wide Gaussian, for values outside of it


@dataclass(frozen=True)
class Cells:
    """Rows of a mixed table: numbers (N, P) in original units, codes (N, Q), and what their columns are.

    ``widths`` (P,) is zero where a number is scored by its density and the width of the interval where it is scored by
    the mass of an interval around it; ``cardinalities`` lists K_1, ..., K_Q.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.intp]
    widths: NDArray[np.float64]
    cardinalities: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: NDArray[np.intp] | slice) -> Cells:
        return Cells(self.numbers[index], self.codes[index], self.widths, self.cardinalities)

    def dequantised(self, random: np.random.Generator) -> Cells:
        """Noise as wide as the intervals added, so that every number has a density."""
        noise = random.uniform(-0.5, 0.5, self.numbers.shape) * self.widths
        return Cells(self.numbers + noise, self.codes, 0 * self.widths, self.cardinalities)

    def scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of every number; 1 for a constant."""
        deviation = self.numbers.std(0)
        return self.numbers.mean(0), np.where(deviation > 0, deviation, 1.0)

    def one_hot(self) -> NDArray[np.float64]:
        blocks = [np.eye(k)[self.codes[:, j]] for j, k in enumerate(self.cardinalities)]
        return np.concatenate([np.empty((len(self), 0)), *blocks], axis=1)


# -- mixtures of products -----------------------------------------------------------------------


@dataclass(frozen=True)
class ProductMixture:
    """A mixture of products of Gaussians and categorical tables, in original units.

    ``log_weights`` (K,), ``means`` and ``variances`` (K, P), ``log_tables``: one (K, K_j) per column of categories.
    """

    log_weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    log_tables: Sequence[NDArray[np.float64]]

    def log_prob(self, rows: Cells) -> NDArray[np.float64]:
        """Log-probability of each row, shape (N,), nats."""
        step = max(1, CHUNK // len(self.log_weights))
        parts = [rows.take(slice(i, i + step)) for i in range(0, len(rows), step)]
        return np.concatenate([logsumexp(self._joint(part), axis=1) for part in parts])

    def _joint(self, rows: Cells) -> NDArray[np.float64]:
        joint = np.repeat(self.log_weights[None], len(rows), axis=0)  # (N, K)
        for i, width in enumerate(rows.widths):
            joint += _gaussian(
                rows.numbers[:, i, None], self.means[:, i], self.variances[:, i], width
            )
        for j, table in enumerate(self.log_tables):
            joint += table.T[rows.codes[:, j]]
        return joint


def _gaussian(z: NDArray, mean: NDArray, variance: NDArray, width: float) -> NDArray[np.float64]:
    """Log-density of a Gaussian at z, or the log-mass of the interval of that width around z."""
    deviation = np.sqrt(variance)
    away = np.abs(z - mean) / deviation
    if width == 0:
        return -0.5 * away**2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)
    # On the lower side of the mean both ends have a logarithm that is not rounded to zero.
    high, low = (log_ndtr(-away + sign * 0.5 * width / deviation) for sign in (1, -1))
    return high + np.log1p(-np.exp(np.minimum(low - high, -1e-12)))


def expectation_maximisation(
    rows: Cells, n_components: int, *, diagonal: bool = True, n_iter: int = 200, seed: int = 0
) -> ProductMixture | FullMixture:
    """Fit a latent class: Gaussian numbers and independent categories within each class.

    The variance of a number is at least that of its interval and a millionth of that of the column: a class that
    sits on one repeated value would otherwise have an unbounded density. Every category gets half a pseudo-count.
    """
    location, scale = rows.scale()
    z, one_hot = (rows.numbers - location) / scale, rows.one_hot()
    starts = np.cumsum((0, *rows.cardinalities))[:-1]
    floor = np.diag((rows.widths / scale) ** 2 / 12 + 1e-6)
    label = MiniBatchKMeans(n_components, n_init=3, random_state=seed).fit_predict(
        np.concatenate([z, one_hot], axis=1)
    )
    share = np.eye(n_components)[label]  # (N, K)
    last = -np.inf
    for _ in range(n_iter):
        total = share.sum(0) + 1e-9
        weights = np.log(total / total.sum())
        means = share.T @ z / total[:, None]
        covariances = np.empty((n_components, z.shape[1], z.shape[1]))
        for k in range(n_components):
            centred = z - means[k]
            covariances[k] = (share[:, k, None] * centred).T @ centred / total[k]
        if diagonal:
            covariances *= np.eye(z.shape[1])
        covariances += floor
        counts = share.T @ one_hot + 0.5
        tables = [
            np.log(block / block.sum(1, keepdims=True))
            for block in np.split(counts, starts[1:], axis=1)[: len(starts)]
        ]
        joint = weights + _full_gaussian(z, means, covariances)
        joint += one_hot @ np.concatenate([np.empty((n_components, 0)), *tables], axis=1).T
        row = logsumexp(joint, axis=1)
        share = np.exp(joint - row[:, None])
        if row.mean() - last < 1e-4:
            break
        last = row.mean()
    means, covariances = means * scale + location, covariances * np.outer(scale, scale)
    if not diagonal:
        return FullMixture(weights, means, covariances, tables)
    return ProductMixture(weights, means, np.diagonal(covariances, 0, 1, 2), tables)


@dataclass(frozen=True)
class FullMixture:
    """As :class:`ProductMixture`, with correlated numbers: ``covariances`` (K, P, P); densities only."""

    log_weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    log_tables: Sequence[NDArray[np.float64]]

    def log_prob(self, rows: Cells) -> NDArray[np.float64]:
        joint = self.log_weights + _full_gaussian(rows.numbers, self.means, self.covariances)
        for j, table in enumerate(self.log_tables):
            joint += table.T[rows.codes[:, j]]
        return logsumexp(joint, axis=1)


def _full_gaussian(z: NDArray, means: NDArray, covariances: NDArray) -> NDArray[np.float64]:
    """Log-density of each row under each Gaussian, shape (N, K)."""
    out = np.empty((len(z), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        root = np.linalg.cholesky(covariance)
        white = solve_triangular(root, (z - mean).T, lower=True)
        out[:, k] = -0.5 * (white**2).sum(0) - np.log(np.diag(root)).sum()
    return out - 0.5 * z.shape[1] * np.log(2 * np.pi)


def one_hot_mixture(
    rows: Cells, n_components: int, *, floor: float, seed: int = 0
) -> ProductMixture:
    """scikit-learn's diagonal ``GaussianMixture`` on standardised numbers and one-hot categories, made a mass.

    Its density at a one-hot point is no probability. Over the grid of all one-hot points it is a finite sum, which
    factorises within a component: the sum goes into the weight, what is left is a table of categories.
    """
    location, scale = rows.scale()
    z = np.concatenate([(rows.numbers - location) / scale, rows.one_hot()], axis=1)
    mixture = GaussianMixture(
        n_components, covariance_type="diag", reg_covar=floor, random_state=seed, max_iter=200
    ).fit(z)
    n_numbers = rows.numbers.shape[1]
    log_weights, log_tables, first = np.log(mixture.weights_), [], n_numbers
    for k in rows.cardinalities:
        block = slice(first, first + k)
        mean, variance = mixture.means_[:, None, block], mixture.covariances_[:, None, block]
        points = np.eye(k)[None]  # (1, K_j, K_j): the one-hot points, last axis their coordinates
        height = (-0.5 * (points - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum(
            2
        )
        total = logsumexp(height, axis=1)
        log_weights = log_weights + total
        log_tables.append(height - total[:, None])
        first += k
    return ProductMixture(
        log_weights - logsumexp(log_weights),
        mixture.means_[:, :n_numbers] * scale + location,
        mixture.covariances_[:, :n_numbers] * scale**2,
        log_tables,
    )


def kernel_density(
    rows: Cells, bandwidth: float, category_bandwidth: float, *, n_rows: int = 5000, seed: int = 0
) -> ProductMixture:
    """A Gaussian kernel on standardised numbers and one-hot categories around every (subsampled) training row.

    Two one-hot points are sqrt(2) apart, so over the points of a column the kernel is 1 at its own category and
    exp(-1 / h^2) at the others, divided by the sum.
    """
    index = np.random.default_rng(seed).permutation(len(rows))[:n_rows]
    kept = rows.take(index)
    tables = []
    for j, k in enumerate(rows.cardinalities):
        height = (np.eye(k)[kept.codes[:, j]] - 1) / category_bandwidth**2
        tables.append(height - logsumexp(height, axis=1, keepdims=True))
    variance = np.broadcast_to((bandwidth * rows.scale()[1]) ** 2, kept.numbers.shape)
    return ProductMixture(np.full(len(kept), -np.log(len(kept))), kept.numbers, variance, tables)


# -- one column by itself -----------------------------------------------------------------------


class Histogram:
    """Histogram of one number, or the frequencies of its integers, over a wide Gaussian of little weight."""

    def __init__(self, z: NDArray, width: float, n_bins: int) -> None:
        if width:
            values = np.unique(z)
            edges = np.unique(np.concatenate([values - width / 2, values + width / 2]))
        else:
            edges = np.unique(np.quantile(z, np.linspace(0, 1, n_bins + 1)))
        if len(edges) < 2:
            edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
        self.edges = edges
        self.mass = np.histogram(z, edges)[0] / len(z)
        self.mean, self.variance = float(z.mean()), 9 * float(z.var()) + width**2 + 1e-12
        self.width = width

    def place(self, z: NDArray) -> NDArray[np.intp]:
        """The bin of each value; one past the last for what is outside of all."""
        place = np.searchsorted(self.edges, z, side="right") - 1
        place = np.where(z == self.edges[-1], len(self.mass) - 1, place)
        return np.where(place < 0, len(self.mass), place)

    def wide(self, z: NDArray) -> NDArray[np.float64]:
        """Log-probability of the wide Gaussian."""
        return _gaussian(z, np.array(self.mean), np.array(self.variance), self.width)

    def cumulative(self, z: NDArray) -> NDArray[np.float64]:
        """Distribution function, where the histogram is a density."""
        mass = np.interp(z, self.edges, np.append(0.0, self.mass.cumsum()))
        wide = ndtr((z - self.mean) / np.sqrt(self.variance))
        return (1 - BACKGROUND) * mass + BACKGROUND * wide

    def log_prob(self, z: NDArray) -> NDArray[np.float64]:
        place = self.place(z)
        height = np.append(self.mass / np.diff(self.edges), 0.0) * (self.width or 1.0)
        with np.errstate(divide="ignore"):
            inside = np.log1p(-BACKGROUND) + np.log(height[place])
        return np.logaddexp(inside, np.log(BACKGROUND) + self.wide(z))


class Independent:
    """Column by column; a number has whichever of six histograms and mixtures is best on validation rows."""

    def __init__(self, train: Cells, valid: Cells) -> None:
        self.numbers = []
        for i, width in enumerate(train.widths):
            z, held = train.numbers[:, i], valid.numbers[:, i]
            candidates: list[Any] = [Histogram(z, width, n) for n in (16, 64, 256)]
            candidates += [Mixture1D(z, width, n) for n in (1, 4, 16)]
            self.numbers.append(max(candidates, key=lambda one: one.log_prob(held).mean()))
        counts = [
            np.bincount(train.codes[:, j], minlength=k) + 0.5
            for j, k in enumerate(train.cardinalities)
        ]
        self.tables = [np.log(one / one.sum()) for one in counts]

    def log_prob(self, rows: Cells) -> NDArray[np.float64]:
        """Log-probability of each row, shape (N,), nats."""
        total = np.zeros(len(rows))
        for i, one in enumerate(self.numbers):
            total += one.log_prob(rows.numbers[:, i])
        for j, table in enumerate(self.tables):
            total += table[rows.codes[:, j]]
        return total


class Mixture1D:
    """A Gaussian mixture of one number."""

    def __init__(self, z: NDArray, width: float, n_components: int) -> None:
        self.width = width
        self.mixture = expectation_maximisation(self._cells(z), n_components)

    def log_prob(self, z: NDArray) -> NDArray[np.float64]:
        return self.mixture.log_prob(self._cells(z))

    def _cells(self, z: NDArray) -> Cells:
        return Cells(z[:, None], np.empty((len(z), 0), np.intp), np.array([self.width]), ())


@dataclass(frozen=True)
class Safe:
    """A thousandth of another model mixed in, so that one outlier cannot decide a mean."""

    model: Any
    other: Independent

    def log_prob(self, rows: Cells) -> NDArray[np.float64]:
        low = np.log(1e-3) + self.other.log_prob(rows)
        return np.logaddexp(np.log1p(-1e-3) + self.model.log_prob(rows), low)


@dataclass(frozen=True)
class Binned:
    """A model of categories alone, given the numbers as bins: any density over codes becomes one over mixed rows.

    Within a bin the density is even. Values outside of all bins are a category of their own, which shares its mass
    out by a Gaussian three times as wide as the column.
    """

    histograms: Sequence[Histogram]
    model: Any  # has log_prob(codes)

    def log_prob(self, rows: Cells) -> NDArray[np.float64]:
        codes, within = in_bins(rows, self.histograms)
        return self.model.log_prob(codes) + within


def in_bins(
    rows: Cells, histograms: Sequence[Histogram]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Codes of the binned numbers and the categories, (N, P + Q), and the log-density within the bins, (N,)."""
    within, codes = np.zeros(len(rows)), [rows.codes]
    for i, one in enumerate(histograms):
        z = rows.numbers[:, i]
        place = one.place(z)
        inside = place < len(one.mass)
        width = np.diff(one.edges)[np.where(inside, place, 0)] / (one.width or 1.0)
        within += np.where(inside, -np.log(width), one.wide(z))
        codes.insert(i, place[:, None])
    return np.concatenate(codes, axis=1), within


class CategoricalMixture:
    """Latent class of codes, by EM."""

    def __init__(self, n_components: int) -> None:
        self.n_components = n_components

    def fit(self, codes: NDArray[np.intp], cardinalities: Sequence[int]) -> CategoricalMixture:
        self.sizes = tuple(cardinalities)
        self.mixture = expectation_maximisation(self._cells(codes), self.n_components)
        return self

    def log_prob(self, codes: NDArray[np.intp]) -> NDArray[np.float64]:
        return self.mixture.log_prob(self._cells(codes))

    def _cells(self, codes: NDArray[np.intp]) -> Cells:
        return Cells(np.empty((len(codes), 0)), codes, np.empty(0), self.sizes)


def binned(rows: Cells, n_bins: int, model: Any) -> Binned:
    """Fit a model of codes (``fit(codes, cardinalities)``) to the rows with their numbers in quantile bins."""
    histograms = [
        Histogram(rows.numbers[:, i], width, n_bins) for i, width in enumerate(rows.widths)
    ]
    sizes = (*(len(one.mass) + 1 for one in histograms), *rows.cardinalities)
    return Binned(histograms, model.fit(in_bins(rows, histograms)[0], sizes))
