"""What a model believes of one cell given the rest of its row, in the terms of the table.

With one column unknown and the others known, a denoiser's posterior of that column is its conditional distribution: one
call answers how surprising the cell is, how surprising it was expected to be, and what was expected instead.

Where "it is missing" is a value (``missing="category"``), a cell is a pair of that indicator and the value. As in the
score, the indicators come first: an indicator is judged given the other indicators, a value given all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.posterior import GaussianPosterior, Posterior
from discrete_itd.denoisers import Denoiser
from discrete_itd.encoders import PRESENT, Bins, Column, Continuous
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.estimators import DiffusionDensity

INTERVAL = 0.8  # probability of the interval that is told of a number
MANY_LEVELS = 10  # numbers of more distinct values are told as an interval
NODES = 24  # of the quadrature of each Gaussian
BATCH_WORK = 1 << 24  # rows times numbers worked out for each, in one call
LEAST = 1e-9  # below which no float32 softmax tells a probability from zero


class Expected(NamedTuple):
    """What was expected of one column: four arrays of shape (N, n), the likeliest first.

    Attributes
    ----------
    value : ndarray of object
        A category; of a number, the median; None for a missing cell, or where nothing is left to tell.
    probability : ndarray of float
        Of the value, or of the interval; NaN where nothing is left to tell.
    low, high : ndarray of object
        The central interval of a number; None for categories.
    """

    value: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Judgement(NamedTuple):
    """Cells of encoded rows against the rest of their rows: float64 arrays of shape (N, C), nats.

    Of columns and values as the core has them: without the change of unit, but for ``entropy``.

    Attributes
    ----------
    given_rest : ndarray
        Minus log-probability of the cell given the others; 0 where it is missing.
    entropy : ndarray
        What that was expected to be, in the column's unit; 0 where the cell is missing.
    alone : ndarray
        Minus log-probability of the cell in its column, the others not asked; 0 where it is missing.
    doubt : ndarray
        See :func:`judge`; minus infinity where the cell is missing.
    expected : list of Expected, length C
        What was expected given the rest; empty if it was not asked for.
    """

    given_rest: np.ndarray
    entropy: np.ndarray
    alone: np.ndarray
    doubt: np.ndarray
    expected: list[Expected]


def ask(denoiser: Denoiser, told: Tensor) -> Posterior:
    """Posterior of rows (B, C') given their cells that are not NaN; equal questions are asked once."""
    book = denoiser.codebook
    states, inverse = unique_rows(told)
    posterior = denoiser(*State.start(book, book.embed(states), ~states.isnan()))
    return posterior.rows(torch.from_numpy(inverse).to(told.device))


def batches(density: DiffusionDensity, x: Tensor) -> Iterator[slice]:
    """Slices of rows whose posteriors fit into memory in full."""
    most = BATCH_WORK // density.denoiser_.codebook.work
    step = max(1, min(density.model_.batch_size, most))
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def indicator_of(density: DiffusionDensity, j: int) -> int | None:
    """The internal column that says whether cells of column ``j`` are missing, if there is one."""
    owner = density.encoder_.owner
    places = np.flatnonzero(owner == j)
    return int(places[1]) if len(places) > 1 else None


@torch.no_grad()
def judge(density: DiffusionDensity, x: Tensor, n_values: int = 0) -> Iterator[Judgement]:
    r"""Every cell of encoded rows against the rest of its row, a batch of rows at a time.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    x : Tensor of float64, shape (N, C')
    n_values : int
        How many expected values to tell of every cell; 0 for none.

    Yields
    ------
    Judgement
        Of the next rows.

    Notes
    -----
    The doubt is the log-odds that the cell is wrong, but for a constant that is the same for all cells. Suppose that
    a wrong cell holds a value drawn from :math:`c = \tfrac12\pi + \tfrac12 u`: half the time one that is usual in the
    column (its marginal :math:`\pi`, as when rows are mixed up), half the time any other (u, uniform over the
    categories, or the widest Gaussian of a number's marginal; as when a hand slips). Then by Bayes' rule, with p the
    probability of the cell given the rest,

    .. math:: \mathrm{doubt} = \log\frac{(1 - p(x_j))\,c(x_j)}{p(x_j)}.
    """
    model = density.model_
    denoiser, encoder = model.denoiser, density.encoder_
    n_columns, book = encoder.n_columns, denoiser.codebook
    base = ask(model.marginals, torch.full_like(x[:1], math.nan))
    log_wrong = torch.tensor([-math.log(c.n_points or 1) for c in book.columns]).to(x)
    for part in batches(density, x):
        rows = x[part]
        alone = base.expand(len(rows)).log_prob(rows).double()
        uniform = log_wrong.expand(rows.shape).clone()
        if base.gaussian is not None:
            wide = GaussianPosterior(*(t[:, :, -1:] for t in _parts(base.gaussian)))
            uniform[:, book.reals] = wide.log_prob(rows[:, book.reals].to(book.dtype)).double()
        wrong = torch.where(rows.isnan(), 0.0, torch.logaddexp(alone, uniform) - math.log(2))
        given_rest, entropy, doubt = (torch.zeros(len(rows), n_columns).to(x) for _ in range(3))
        expected = []
        for j, column in enumerate(encoder.schema):
            own = [place for place in (j, indicator_of(density, j)) if place is not None]
            log_present = None
            log_p = torch.zeros(len(rows)).to(x)
            if len(own) > 1:
                told = rows.masked_fill(~book.leading, math.nan)
                told[:, own[1]] = math.nan
                of_indicator = ask(denoiser, told).column(own[1]).double()
                log_present = of_indicator[:, int(PRESENT)]
                log_p = of_indicator.gather(1, rows[:, own[1:]].long())[:, 0]
                entropy[:, j] = -(of_indicator.exp() * of_indicator).sum(1)
            told = rows.clone()
            told[:, j] = math.nan
            told[:, own[1:]] = PRESENT
            belief = _belief(ask(denoiser, told), j, column)
            missing = rows[:, j].isnan()
            log_p = log_p + torch.where(missing, 0.0, belief.log_prob(rows[:, j].nan_to_num(0.0)))
            present = torch.ones_like(log_p) if log_present is None else log_present.exp()
            entropy[:, j] += present * torch.from_numpy(belief.entropy()).to(x)
            given_rest[:, j] = -log_p
            others = (-torch.expm1(log_p)).clamp_min(LEAST).log()
            if belief.is_density:  # any other number might have been there
                others = torch.where(missing, others, 0.0)
            doubt[:, j] = others - log_p + wrong[:, own].sum(1)
            if len(own) == 1:
                entropy[:, j] = entropy[:, j].masked_fill(missing, 0.0)
                doubt[:, j] = doubt[:, j].masked_fill(missing, -math.inf)
            if n_values:
                expected.append(_with_missing(belief.expected(n_values), log_present, n_values))
        owner = torch.from_numpy(encoder.owner).to(x.device)
        of_cell = -torch.zeros_like(given_rest).index_add(1, owner, alone)
        tensors = (given_rest, entropy, of_cell, doubt)
        given, expected_nats, own_nats, odds = (t.cpu().numpy() for t in tensors)
        yield Judgement(given, expected_nats, own_nats, odds, expected)


def _parts(mixture: GaussianPosterior) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.log_weight, mixture.means, mixture.var


def _belief(posterior: Posterior, j: int, column: Column) -> Levels | Density:
    """The distribution of one column for every row of a posterior."""
    gaussian, at = posterior.gaussian, torch.nonzero(posterior.codebook.reals == j).flatten()
    if gaussian is None or not len(at):
        return Levels(column, posterior.column(j).double())
    parts = (t[:, at].double() for t in _parts(gaussian))
    return Density(column, GaussianPosterior(*parts, normalised=True))


class Levels:
    """Distributions over the slots of one column of categories or bins: ``log_probs`` (B, K), nats."""

    is_density = False

    def __init__(self, column: Column, log_probs: Tensor) -> None:
        self.column, self.log_probs = column, log_probs

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probabilities of the slots ``codes`` (B,)."""
        return self.log_probs.gather(1, codes[:, None].long())[:, 0]

    def entropy(self) -> np.ndarray:
        """Expected surprise in the column's unit, (B,), nats."""
        volume = torch.from_numpy(_mean_log_volume(self.column)).to(self.log_probs)
        inside = torch.where(self.log_probs > -math.inf, self.log_probs + volume, 0.0)
        return -(self.log_probs.exp() * inside).sum(1).cpu().numpy()

    def expected(self, n: int) -> Expected:
        """Up to ``n`` likeliest categories that were seen, or the median and interval of numbers."""
        n_levels = self.column.codec.n_levels + 2 * isinstance(self.column.codec, Bins)
        probs = torch.softmax(self.log_probs[:, :n_levels], 1)
        if _is_number(self.column):
            return self._interval(probs)
        pooled = getattr(self.column.codec, "pooled", ())
        if pooled:
            probs[:, -1] /= len(pooled)  # of the most frequent of them
        top = probs.topk(min(n, n_levels), 1)
        values = _decode(self.column, top.indices.cpu().numpy())
        nothing = np.full(values.shape, None, dtype=object)
        return Expected(values, top.values.cpu().numpy(), nothing, nothing)

    def _interval(self, probs: Tensor) -> Expected:
        cdf = probs.cumsum(1)
        cdf = cdf / cdf[:, -1:]
        u = torch.tensor([(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2]).to(cdf)
        slot = torch.searchsorted(cdf, u.expand(len(cdf), -1).contiguous())
        slot = slot.clamp_max(cdf.shape[1] - 1)
        mass = probs.gather(1, slot)
        top = cdf.gather(1, slot)
        if isinstance(self.column.codec, Bins):
            share = (1 - (top - u) / mass.clamp_min(1e-300)).clamp(0, 1 - 1e-9)
            share = torch.where(slot == 0, 1 - 1e-9 - share, share)  # this tail counts downwards
            values = _decode(self.column, slot.cpu().numpy(), share.cpu().numpy())
            one = values[:, 0] == values[:, 2]  # a value with a bin of its own
            probability = np.where(one, mass[:, 1].cpu().numpy(), INTERVAL)
        else:
            values = _decode(self.column, slot.cpu().numpy())
            probability = (top[:, 2] - top[:, 0] + mass[:, 0]).cpu().numpy()
        return Expected(values[:, 1:2], probability[:, None], values[:, :1], values[:, 2:])


class Density:
    """Densities of one continuous column: ``mixture`` has shape (B, 1, K)."""

    is_density = True

    def __init__(self, column: Column, mixture: GaussianPosterior) -> None:
        self.column, self.mixture = column, mixture

    def log_prob(self, values: Tensor) -> Tensor:
        """Log-densities at the standardised ``values`` (B,)."""
        return self.mixture.log_prob(values[:, None])[:, 0]

    def entropy(self) -> np.ndarray:
        """Differential entropy in the column's unit, (B,), nats: by quadrature within every Gaussian."""
        log_weight, means, var = _parts(self.mixture)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        nodes, weights = (torch.from_numpy(t).to(means) for t in (nodes, weights))
        z = (means[..., None] + var.sqrt()[..., None] * nodes).flatten(1)  # (B, K Q)
        w = (log_weight.exp()[..., None] * (weights / weights.sum())).flatten(1)
        # the density of the original value is that of the standardised one times the slope there
        codec = cast(Continuous, self.column.codec)
        _, log_slope = codec.encode(codec.decode(z.cpu().numpy().ravel()))
        surprise = -self.mixture.log_prob(z).cpu().numpy() - log_slope.reshape(z.shape)
        return (w.cpu().numpy() * surprise).sum(1) + _log_unit(self.column)

    def expected(self, n: int) -> Expected:
        """The median and the central interval; ``n`` is not looked at."""
        u = [(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2]
        values = _decode(self.column, self.quantiles(u).cpu().numpy())
        probability = np.full((len(values), 1), INTERVAL)
        return Expected(values[:, 1:2], probability, values[:, :1], values[:, 2:])

    def quantiles(self, u: list[float]) -> Tensor:
        """Standardised values below which lie the shares ``u``: (B, len(u)), by bisection."""
        log_weight, means, var = (t.transpose(1, 2) for t in _parts(self.mixture))  # (B, K, 1)
        weight, sd = log_weight.exp(), var.sqrt()
        share = torch.tensor(u).to(means)
        of_each = means + sd * torch.special.ndtri(share)  # a mixture's lies between those
        low, high = of_each.amin(1), of_each.amax(1)
        for _ in range(60):
            middle = (low + high) / 2
            below = (weight * torch.special.ndtr((middle[:, None] - means) / sd)).sum(1) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def _is_number(column: Column) -> bool:
    """Whether a median and an interval say more of a column of slots than its likeliest values."""
    if isinstance(column.codec, Bins):
        return True
    numeric = all(isinstance(c, int | float) and not isinstance(c, bool) for c in column.categories)
    return column.kind == "ordinal" and numeric and len(column.categories) > MANY_LEVELS


def _log_unit(column: Column) -> float:
    """Logarithm of the unit in which a column counts, in that of its densities: times count steps."""
    return 0.0 if column.family == "number" else math.log(column.step / 1e9)


def _mean_log_volume(column: Column) -> np.ndarray:
    """Expected log-volume of a value of each slot, (K,), nats."""
    codec = column.codec
    volume = np.zeros(codec.points.n_points)
    if isinstance(codec, Bins):
        with np.errstate(over="ignore", divide="ignore"):
            widths = np.minimum(np.diff(codec.edges), np.finfo(float).max)
            s = np.array(codec.tails)
            # the log-density falls evenly with the distance, so its mean is that at the mean distance
            if codec.whole:
                steps = 1 / np.expm1(1 / s)
                low, high = np.log(-np.expm1(-1 / s)) - steps / s
            else:
                low, high = -np.log(s) - 1
        volume = np.concatenate(([low], -np.log(widths), [high])) - _log_unit(column)
    elif not isinstance(codec, Continuous) and codec.pooled:
        volume[codec.n_levels - 1] = -math.log(len(codec.pooled))
    return volume


class _Given:
    """In place of a generator: the numbers that it is to draw."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers

    def random(self, n: int) -> np.ndarray:
        """The numbers, ``n`` of them."""
        return self._numbers[:n]


def _decode(column: Column, cells: np.ndarray, share: np.ndarray | None = None) -> np.ndarray:
    """Values of the table, of the shape of the core's ``cells``; ``share`` says where within each bin."""
    rng = None if share is None else cast(np.random.Generator, _Given(share.ravel()))
    values = column.decode(cells.astype(float).ravel(), rng).astype(object).to_numpy()
    return values.reshape(cells.shape)


def _with_missing(expected: Expected, log_present: Tensor | None, n: int) -> Expected:
    """What was expected with "it is missing" in its place, as ``n`` columns."""
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
