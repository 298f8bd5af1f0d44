"""Conditional distributions of cells: of the levels of a column or densities, and the values that they predict."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.gaussian import GaussianPosterior
from discrete_itd.channel.posterior import Posterior
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import ABSENT, PRESENT, Bins, Categories, Column, Continuous

INTERVAL = 0.8  # probability of the reported interval of a number
MANY_LEVELS = 10  # numbers with more distinct values are reported as an interval
SMALLEST = 1e-300  # least probability
QUANTILES = torch.tensor([(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2], dtype=torch.float64)


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


class Cell(NamedTuple):
    """The distribution of the cells of one column in B rows.

    ``values`` are the log-probabilities of its levels, (B, K), nats, or the densities of standardised values, (B, 1);
    ``indicator`` (B, 2) the log-probabilities of being present or missing, None if missingness is not modelled, and
    ``places`` the internal columns of the value and of the indicator.
    """

    column: Column
    values: Tensor | GaussianPosterior
    indicator: Tensor | None
    places: list[int]

    @classmethod
    def of(cls, scorer: Scorer, q: Posterior, j: int, rows: Tensor) -> Cell:
        """The cells of column j in some rows (B,) of distributions of cells given the others of their rows."""
        column, book = scorer.schema[j], q.codebook
        places = np.flatnonzero(scorer.density.encoder_.owner == j).tolist()
        indicator = q.column(places[1])[rows] if len(places) > 1 else None
        if column.kind == "continuous":
            assert q.gaussian is not None
            at = torch.nonzero(book.reals == j).flatten()
            values = q.gaussian.pick(lambda t: t[rows][:, at])
        elif j in book.place:
            values = q.column(j)[rows]
        else:
            word = next(w for w in q.high_cardinality if w.vocabulary.column == j)
            log_p = word.pick(lambda t: t[rows]).log_probs_of_all().double()
            values = torch.log_softmax(log_p, 1)
        return cls(column, values, indicator, places)

    def _seen(self) -> Tensor:
        """Log-probabilities of the levels that were seen in training, (B, K')."""
        assert isinstance(self.values, Tensor)
        codec = self.column.codec
        return self.values[:, : codec.n_levels + 2 * isinstance(codec, Bins)]

    def central(self) -> Tensor:
        """The most probable level of those seen in training, or the standardised median: float64, (B,)."""
        if isinstance(self.values, Tensor):
            return self._seen().argmax(1).double()
        return self.values.quantiles(QUANTILES[1:2])[:, 0]

    def entropy(self) -> Tensor:
        """Expected surprisal in the column's unit, (B,), nats."""
        if isinstance(self.values, Tensor):
            log_p, volume = self.values, torch.from_numpy(mean_log_volume(self.column))
            inside = torch.where(log_p > -math.inf, log_p + volume.to(log_p), 0.0)
            entropy = -(log_p.exp() * inside).sum(1)
        else:
            entropy = self.values.entropy(lambda z: log_volume_at(self.column, z))
        if self.indicator is None:
            return entropy
        of_indicator = -(self.indicator.exp() * self.indicator).sum(1)
        return of_indicator + self.indicator[:, int(PRESENT)].exp() * entropy.to(self.indicator)

    def put_into(self, rows: Tensor) -> Tensor:
        """Rows (B, C') with the predicted values of the cells."""
        out = rows.clone()
        out[:, self.places[0]] = self.central().to(rows)
        if self.indicator is not None:
            missing = self.indicator[:, int(PRESENT)] < -math.log(2)
            out[missing, self.places[0]] = math.nan
            out[:, self.places[1]] = torch.where(missing, ABSENT, PRESENT).to(rows)
        return out

    def expected(self, n: int) -> Expected:
        """Up to ``n`` most probable categories, or the median and interval of a number; or that it is missing."""
        if not isinstance(self.values, Tensor):
            values = _decode(self.column, self.values.quantiles(QUANTILES).cpu().numpy())
            probability = np.full((len(values), 1), INTERVAL)
            found = Expected(values[:, 1:2], probability, values[:, :1], values[:, 2:])
        elif _is_number(self.column):
            found = self._interval()
        else:
            probs, pooled = torch.softmax(self._seen(), 1), getattr(self.column.codec, "pooled", ())
            if pooled:
                probs[:, -1] /= len(pooled)  # one of the pooled categories
            top = probs.topk(min(n, probs.shape[1]), 1)
            values = _decode(self.column, top.indices.cpu().numpy())
            nothing = np.full(values.shape, None, dtype=object)
            found = Expected(values, top.values.cpu().numpy(), nothing, nothing)
        present = None if self.indicator is None else self.indicator[:, int(PRESENT)]
        return _with_missing(found, present, n)

    def _interval(self) -> Expected:
        """The median and the central interval of a number whose levels are ordered."""
        probs = torch.softmax(self._seen(), 1)
        cdf = probs.cumsum(1)
        cdf = cdf / cdf[:, -1:]
        u = QUANTILES.to(cdf)
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


def log_volume_at(column: Column, z: Tensor) -> Tensor:
    """Log-volume of a continuous column near standardised values, expected over whether a number is new."""
    codec = cast(Continuous, column.codec)
    log_slope = codec.slope(codec.decode(z.cpu().numpy().ravel()))[1]
    return torch.from_numpy(log_slope - codec.mean_new_nats - _log_unit(column)).to(z).view(z.shape)


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


def _with_missing(expected: Expected, log_present: Tensor | None, n: int) -> Expected:
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
