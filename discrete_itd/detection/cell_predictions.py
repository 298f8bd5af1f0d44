"""Cells of rows given the other cells, under the score of a detector: their distributions, and which are wrong.

Where "absent" is a value of a number, a cell is a pair of its missingness indicator and its value: the indicator is
conditioned on all other cells, the value on the indicator too.

Conditional distributions are the model's own (:meth:`~discrete_itd.denoisers.Denoiser.leave_one_out`), or, for a model
that scores complete rows and does not marginalise, its log-probabilities normalised over the values of the cell
(*enumeration*), eq. (13) of :mod:`discrete_itd.likelihood.conditional`, with the gaps of the row as they are scored.
For an exact model they are its log-probability, normalised over the values of one cell, all other cells fixed, with
these exceptions:

* Conditionals with many unknown cells at once come from the exact companion of a model that does not marginalise: the
  candidates among the cells of wide tables, and the column whose dependence has changed.
* A network's posterior of a cell given all others need not equal the ratio of two of its path scores, so the two agree
  only as well as the network's conditionals agree with one another.
* A network along paths, which learns missingness indicators first, conditions them on other indicators only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from scipy import special
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.devices import add_at
from discrete_itd.channel.gaussian import FARTHEST, GaussianPosterior
from discrete_itd.channel.posterior import Posterior
from discrete_itd.channel.rounded_numbers import NumberLines
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import ABSENT, PRESENT, Bins, Categories, Column, Continuous
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.likelihood import conditional
from discrete_itd.likelihood.conditional import CLOSE, COARSE, FINE, ConditionalDenoiser, Nodes
from discrete_itd.progress import progress_bar

INTERVAL = 0.8  # probability of the reported interval of a number
MANY_LEVELS = 10  # numbers with more distinct values are reported as an interval
SMALLEST = 1e-300  # least probability by which is divided
QUANTILES = torch.tensor([(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2], dtype=torch.float64)
BATCH_WORK = 1 << 24  # rows times floats per row in one call
PRIOR = 0.5  # probability that a row has a wrong cell: rows to be explained are suspicious
LEAST_NATS = 0.05  # least excess over the expectation; smaller ones round to nothing in a sentence
LEAST = 1e-9  # smallest probability that a float32 softmax distinguishes from zero
MOST_CELLS = 256  # cells of a row that are assessed one by one: all, except in very wide tables
RIVALS = 4  # most probable errors of a row: they should include wrong cells and those with which these conflict
N_FOLDS = 32  # states of a row in a wide table, in each of which every 32nd cell is predicted, to select MOST_CELLS
# Of a model whose conditionals are enumerated by scores: nats by which coarse log-odds may be off; cells that are
# assessed again after a wrong one was found; most scores of a row, above which fewer cells are assessed.
MARGIN, RECHECKED, MOST_SCORES = 4.0, 5, 1 << 13


# -- the distribution of a cell ---------------------------------------------------------------------


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
            values = torch.log_softmax(q.column(j)[rows].double(), 1)
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
            line = NumberLines([self.column.points.line])
            at = torch.zeros(1, dtype=torch.int64, device=self.values.means.device)
            entropy = self.values.entropy(lambda z: line.cells(line.rounded(z, at), at))
            entropy = entropy - expected_log_volume(self.column)
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
            probs, codec = torch.softmax(self._seen(), 1), self.column.codec
            if isinstance(codec, Categories) and codec.pooled:
                share = codec.values()[2][codec.pooled[0]]  # of the most frequent of them
                probs[:, -1 - codec.absent] *= share
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


def expected_log_volume(column: Column) -> float:
    """Log-volume of the cells of a continuous column, expected over whether a number is new, nats."""
    codec = cast(Continuous, column.codec)
    return -math.log(codec.step) - codec.mean_new_nats - _log_unit(column)


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
    elif isinstance(codec, Categories):
        _, level, share = codec.values()
        np.add.at(volume, level, share * np.log(share))
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
    many = isinstance(column.codec, Bins) or len(column.categories) > MANY_LEVELS
    return column.is_number and many


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


# -- cells given the others -------------------------------------------------------------------------


def scores_of_row(scorer: Scorer, nodes: Nodes = FINE) -> int:
    """Number of scores that enumerate the cells of a row: 0 for a model with conditionals of its own."""
    denoiser = scorer.conditional
    return denoiser.scores_of_row(nodes) if isinstance(denoiser, ConditionalDenoiser) else 0


@torch.no_grad()
def given_others(
    scorer: Scorer, x: Tensor, asked: Tensor, nodes: Nodes = FINE, *, quick: bool = False
) -> Posterior:
    """The distribution of each asked cell given the others of its row.

    ``x`` (B, C') are encoded rows, NaN where a cell is not conditioned on. ``asked`` (B, C') holds one cell of a row or
    several, each by itself; the distributions of all others have no meaning. Enumeration uses ``nodes``; ``quick``
    avoids it (:attr:`Model.anywhere`).
    """
    denoiser = scorer.model.anywhere if quick else scorer.conditional
    how = {"nodes": nodes} if isinstance(denoiser, ConditionalDenoiser) else {}
    return conditional.given_others(denoiser, x, asked, **how)


@torch.no_grad()
def _log_prob_given(scorer: Scorer, known: Tensor, cells: Tensor) -> Tensor:
    """Log-probabilities of ``cells`` given the ``known`` cells of their rows, (B, C') each, nats; 0 where NaN.

    By the denoiser of any state (:attr:`Model.anywhere`); equal states are evaluated once.
    """
    denoiser = scorer.model.anywhere
    states, inverse = unique_rows(known)
    book = denoiser.codebook
    q = denoiser(*State.start(book, book.embed(states), ~states.isnan()))
    return q.rows(torch.from_numpy(inverse).to(known.device)).log_prob(cells).double()


def _asked(scorer: Scorer, rows: Tensor, columns: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Mask (B, C') of the internal columns of the cells in ``columns`` (B, m) of each row, if ``wanted`` (B, m)."""
    out = torch.zeros_like(rows, dtype=torch.bool)
    wanted = torch.ones_like(columns, dtype=torch.bool) if wanted is None else wanted
    place = _indicators(scorer, rows.device)[columns]
    for at, own in ((columns, wanted), (place.clamp_min(0), wanted & (place >= 0))):
        row, which = torch.nonzero(own).unbind(1)
        out[row, at[row, which]] = True
    return out


def _by_column(scorer: Scorer, nats: Tensor) -> Tensor:
    """Sums over the internal columns (B, C') of each column, (B, C)."""
    owner = torch.from_numpy(scorer.density.encoder_.owner).to(nats.device)
    sums = nats.new_zeros(len(nats), scorer.density.encoder_.n_columns)
    return add_at(sums, 1, owner, nats)


def _indicators(scorer: Scorer, device: torch.device) -> Tensor:
    """The internal column of each column's missingness indicator, (C,); -1 without one."""
    n_columns, owner = scorer.density.encoder_.n_columns, scorer.density.encoder_.owner
    out = np.full(n_columns, -1, dtype=np.int64)
    out[owner[n_columns:]] = np.arange(n_columns, len(owner))
    return torch.from_numpy(out).to(device)


def _batches(scorer: Scorer, x: Tensor, what: str, n_cells: int) -> Iterator[Tensor]:
    """Batches of row numbers of ``x`` (N, C') that fit into memory with ``n_cells`` states each, under a progress bar.

    Gaps that the scoring model has not learned cost more: such rows are in batches of their own.
    """
    denoiser, new = scorer.conditional, torch.zeros_like(x[:, 0], dtype=torch.bool)
    size = max(1, min(scorer.model.batch_size, BATCH_WORK // denoiser.row_work) // n_cells)
    if isinstance(denoiser, ConditionalDenoiser):
        new = denoiser.unlearned_gaps(x)
    with progress_bar(len(x), what) as bar:
        for own in (~new, new):
            for rows in torch.nonzero(own).flatten().split(size):
                if len(rows):
                    yield rows
                    bar.update(len(rows))


@torch.no_grad()
def nats_given_others(
    scorer: Scorer, x: Tensor, columns: Sequence[int], *, quick: bool = False
) -> np.ndarray:
    """Surprisal of the cells of some columns given all other cells of their rows, (N, c), nats; 0 where missing.

    ``quick`` as in :func:`given_others`.
    """
    out = np.zeros((len(x), len(columns)))
    for batch in _batches(scorer, x, "columns", len(columns)):
        rows, own = x[batch], torch.tensor(columns, device=x.device).expand(len(batch), -1)
        asked = _asked(scorer, rows, own)
        q = given_others(scorer, rows, asked, quick=quick)
        log_p = q.log_prob(rows.masked_fill(~asked, math.nan)).double()
        out[batch.cpu().numpy()] = -_by_column(scorer, log_p).gather(1, own).cpu().numpy()
    return out


# -- log-odds of an error ---------------------------------------------------------------------------


class Odds:
    r"""Log-odds of an error of the cells of encoded rows (B, C'), up to a constant that is the same for all cells.

    Suppose that a wrong cell holds a value drawn from :math:`c = \tfrac12\pi + \tfrac12 u` (:func:`log_probs_alone`).
    Then by Bayes' rule, with p the probability of the cell given the others,

    .. math:: \mathrm{log\ odds} = \log\frac{(1 - p(x_j))\,c(x_j)}{p(x_j)}.

    For a density, :math:`1 - p` is replaced by 1. The score's nats of new numbers, in columns whose numbers repeat, are
    added; minus infinity where the cell is missing. All surprisals refer to encoded values, without the change of unit
    of continuous columns.
    """

    def __init__(self, scorer: Scorer, rows: Tensor, shift: float = 0.0) -> None:
        self.scorer, self.rows = scorer, rows
        self.log_wrong = _by_column(scorer, log_probs_alone(scorer.marginals, rows)[1])
        new, x = np.zeros(self.log_wrong.shape), rows.cpu().numpy()
        for j, column in enumerate(scorer.schema):
            if isinstance(column.codec, Continuous) and column.codec.seen:
                new[:, j] = column.codec.new_nats(x[:, j])
        self.more = torch.from_numpy(new).to(rows) + shift
        missing = rows[:, : new.shape[1]].isnan()
        self.no_cell = missing & (_indicators(scorer, rows.device) < 0)

    def __call__(self, log_p: Tensor, columns: Tensor, which: Tensor | None = None) -> Tensor:
        """The log-odds (n, m) of cells in some columns (n, m) of the rows ``which`` (n,), with log-probabilities."""

        def own(t: Tensor) -> Tensor:
            return (t if which is None else t[which]).gather(1, columns)

        others = (-torch.expm1(log_p)).clamp_min(LEAST).log()
        odds = others - log_p + own(self.log_wrong) + own(self.more)
        return odds.masked_fill(own(self.no_cell), -math.inf)

    def judged(
        self, q: Posterior, columns: Tensor, which: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of these cells under their distributions, and log-odds: (n, m) each."""
        rows = self.rows if which is None else self.rows[which]
        log_p = _by_column(self.scorer, q.log_prob(rows).double()).gather(1, columns)
        log_p = log_p.clamp_min(-FARTHEST)
        return log_p, self(log_p, columns, which)


def log_probs_alone(marginals: Posterior, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log-probability of each cell of ``x`` in its column, and if it is wrong: float64, (B, C) each, nats.

    A wrong cell is drawn from :math:`\tfrac12\pi + \tfrac12 u`: half the time from the column's marginal :math:`\pi`
    (``marginals``, one row; as when rows are mixed up), half the time from u, which is uniform over the categories, or
    for a number the Cauchy distribution as wide as the widest Gaussian of its marginal (as in a typing error): its
    heavy tails cover any number. Both are 0 where the cell is missing.
    """
    book = marginals.codebook
    alone = marginals.expand(len(x)).log_prob(x).double()
    log_uniform = torch.tensor([-math.log(c.n_points or 1) for c in book.columns]).to(x)
    uniform = log_uniform.expand(x.shape).clone()
    if marginals.gaussian is not None:
        q = marginals.gaussian
        mean, sd = q.means[:, :, -1].double(), q.var[:, :, -1].double().sqrt()
        far = torch.hypot(torch.ones_like(mean), (x[:, book.reals] - mean) / sd)
        log_density = -(math.pi * sd).log() - 2 * far.log()
        cells = book.lines.cells(x[:, book.reals])
        uniform[:, book.reals] = (log_density + cells.log_width()).clamp_max(0.0)
    wrong = torch.logaddexp(alone, uniform) - math.log(2)
    return alone, torch.where(x.isnan(), 0.0, wrong)


# -- wrong cells ------------------------------------------------------------------------------------


class LikelyErrors(NamedTuple):
    """The cells of encoded rows that are more likely wrong than right, at most k in each row, found one by one.

    Arrays of shape (N, k), the most likely wrong first; NaN, or None, where a row has no further cell: the columns
    ``cells`` (-1 where there is none), the ``probability`` that the cell is wrong, its surprisal ``nats`` given the
    others and ``expected_nats``, in the unit of the column; the column of the cell with which it conflicts most,
    ``conflict``, and the increase of its surprisal by that cell, ``conflict_nats`` (at most 0 if there is none); and
    its most probable ``value`` as in :class:`Expected`.
    """

    cells: np.ndarray
    probability: np.ndarray
    nats: np.ndarray
    expected_nats: np.ndarray
    conflict: np.ndarray
    conflict_nats: np.ndarray
    value: np.ndarray
    value_probability: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def blank(cls, n: int, k: int) -> LikelyErrors:
        """No cells of n rows."""
        cells, conflict = np.full((n, k), -1, dtype=np.int64), np.zeros((n, k), dtype=np.int64)
        p, nats, entropy, share = np.full((4, n, k), math.nan)
        value, low, high = np.full((3, n, k), None, dtype=object)
        by = np.zeros((n, k))
        return cls(cells, p, nats, entropy, conflict, by, value, share, low, high)


@torch.no_grad()
def likely_errors(scorer: Scorer, x: Tensor, log_volume: np.ndarray, k: int) -> LikelyErrors:
    r"""The most probable set of at most k wrong cells of each encoded row of ``x`` (N, C'), found one by one.

    ``log_volume`` (N, C') is that of :class:`~discrete_itd.encoders.Rows`. A row has a wrong cell with probability
    ``PRIOR``, which is equally likely to be any of those that are not given.

    Notes
    -----
    The log-odds that a cell is wrong are those of :class:`Odds` plus :math:`\log\frac{\mathrm{prior}}{(1 -
    \mathrm{prior})\,C}`. The cell with the largest ones is the first, if they are positive. It is then treated as
    unknown, and the others are assessed again: cells that only conflicted with it no longer stand out, and the next is
    the one that is still more likely wrong than right. Cells whose surprisal is not at least ``LEAST_NATS`` above its
    expectation, as where all values are improbable, are skipped.

    With enumeration, a cell that was found is not unknown but has its predicted value, and only the ``RECHECKED`` cells
    with the largest log-odds are assessed again. All cells are first enumerated coarsely, then the ``RIVALS`` with the
    largest log-odds more closely.

    The cell with which a found one conflicts is the one of the row's ``RIVALS`` cells with the largest log-odds of an
    error whose predicted value, in its place, decreases the surprisal of the found cell given all others most.

    Only :func:`candidates` and given cells are assessed: a row costs at most ``N_FOLDS`` + k (``MOST_CELLS`` +
    ``RIVALS``) conditionals, twice as many with missingness indicators, however many columns there are.
    """
    free = [j for j in range(len(scorer.schema)) if j not in scorer.given]
    shift = math.log(PRIOR / (1 - PRIOR) / len(free))
    out = LikelyErrors.blank(len(x), k)
    for batch in _batches(scorer, x, "cells", min(len(free), MOST_CELLS)):
        own = batch.cpu().numpy()
        found = LikelyErrors._make(t[own] for t in out)
        odds = Odds(scorer, x[batch], shift)
        _fill_batch(scorer, odds, candidates(scorer, odds, free), log_volume[own], found)
        for every, part in zip(out, found, strict=True):
            every[own] = part
    return out


@torch.no_grad()
def candidates(scorer: Scorer, odds: Odds, among: Sequence[int]) -> Tensor:
    """The cells of each row that may be wrong: columns (B, m) among those of ``among``, in their order.

    All of them, if they are at most ``MOST_CELLS`` and their enumeration costs at most ``MOST_SCORES`` scores a row.
    Otherwise those with the largest log-odds of an error where every ``N_FOLDS``-th cell is predicted together, from
    all the others: ``N_FOLDS`` denoiser states a row.
    """
    rows = odds.rows
    columns, most = torch.tensor(among, device=rows.device).expand(len(rows), -1), MOST_CELLS
    if scores := scores_of_row(scorer, COARSE):
        most = max(RIVALS, min(most, MOST_SCORES * len(scorer.schema) // scores))
    if len(among) <= most:
        return columns
    place, log_p = _indicators(scorer, rows.device), torch.zeros_like(rows)
    for fold in range(N_FOLDS):
        own = columns[:1, fold::N_FOLDS].expand(len(rows), -1)
        indicators = place[own[:, place[own[0]] >= 0]]
        known = rows.scatter(1, own, math.nan).scatter(1, indicators, PRESENT)
        log_p += _log_prob_given(scorer, known, _only(rows, own))
        if indicators.numel():
            known = rows.scatter(1, own, math.nan).scatter(1, indicators, math.nan)
            log_p += _log_prob_given(scorer, known, _only(rows, indicators))
    log_odds = odds(_by_column(scorer, log_p).gather(1, columns), columns)
    return columns.gather(1, _largest(log_odds, most))


def _largest(values: Tensor, n: int) -> Tensor:
    """Positions of the n largest values of each row, in their order; the first of equal ones."""
    order = np.argsort(-values.cpu().numpy(), axis=1, kind="stable")[:, :n]
    return torch.from_numpy(np.sort(order, axis=1)).to(values.device)


def _fill_batch(
    scorer: Scorer, odds: Odds, columns: Tensor, log_volume: np.ndarray, out: LikelyErrors
) -> None:
    """Write the wrong cells of a batch of B rows, among candidates (B, m), to ``out``."""
    rows, k = odds.rows, out.cells.shape[1]
    enumerates = isinstance(scorer.conditional, ConditionalDenoiser)
    # given cells are no reasons, but others may conflict with them
    given = torch.tensor(scorer.given, dtype=columns.dtype, device=columns.device)
    among = columns = torch.cat([columns, given.expand(len(rows), -1)], 1)
    left = torch.arange(len(rows), device=rows.device)  # rows whose next cell is sought
    known, repaired = rows, rows.clone()
    first: tuple[Tensor, Posterior, Tensor] | None = None
    for rank in range(k):
        before = torch.from_numpy(out.cells[:, :rank]).to(left.device)[left]
        free = ~torch.isin(among, given)
        fresh = (among[:, :, None] != before[:, None]).all(2) & (free | (rank == 0))
        q = given_others(
            scorer, known, _asked(scorer, known, among, fresh), CLOSE if rank else COARSE
        )
        log_p, log_odds = odds.judged(q, among, left)
        log_odds = sure = log_odds.masked_fill(~fresh, -math.inf)
        rivals = _largest(log_odds, RIVALS)
        if enumerates and not rank:
            near = (log_odds.gather(1, rivals) > -MARGIN).any(1, keepdim=True).expand_as(rivals)
            few = among.gather(1, rivals)
            q = given_others(scorer, known, _asked(scorer, known, few, near), CLOSE)
            own_p, own = odds.judged(q, few, left)
            own = own.masked_fill(~near | ~fresh.gather(1, rivals), -math.inf)
            log_p = log_p.scatter(1, rivals, own_p)
            log_odds = log_odds.scatter(1, rivals, own)
            sure = torch.full_like(log_odds, -math.inf).scatter(1, rivals, own)
        first = first or (columns.gather(1, rivals), q, log_p)
        sure = sure.masked_fill(~free, -math.inf)
        _take(scorer, q, left, among, log_p, sure, log_volume, repaired, out, rank)
        hit = torch.from_numpy(out.cells[:, rank] >= 0).to(left.device)[left]
        left, among = left[hit], among[hit]
        if not len(left):
            break
        if enumerates:
            known = repaired[left]
            among = among.gather(1, _largest(log_odds[hit], RECHECKED + 1))
        else:
            known = _taken_as_unknown(scorer, rows[left], out.cells[left.cpu().numpy(), : rank + 1])
    if first is not None:
        _fill_conflicts(scorer, rows, columns, *first, out)


def _take(
    scorer: Scorer,
    q: Posterior,
    left: Tensor,
    among: Tensor,
    log_p: Tensor,
    log_odds: Tensor,
    log_volume: np.ndarray,
    repaired: Tensor,
    out: LikelyErrors,
    rank: int,
) -> None:
    """Enter the cell with the largest log-odds, if it is a reason, of the rows that are ``left``."""
    at, columns, nats, odds = (t.cpu().numpy() for t in (left, among, -log_p, log_odds))
    odds, asked = odds.copy(), np.arange(len(at))  # rows whose next cell is sought
    while len(asked := asked[odds[asked].max(1) > 0]):
        best = odds[asked].argmax(1)
        cells, passed_over = columns[asked, best], []
        for j in np.unique(cells):
            i, place = asked[cells == j], best[cells == j]
            cell = Cell.of(scorer, q, int(j), torch.from_numpy(i).to(left.device))
            entropy = cell.entropy().cpu().numpy()
            own = nats[i, place] - log_volume[at[i], j]
            keep = own - entropy >= LEAST_NATS
            passed_over.append(i[~keep])
            odds[i[~keep], place[~keep]] = -math.inf
            row = at[i[keep]]
            out.cells[row, rank] = j
            out.probability[row, rank] = special.expit(odds[i, place][keep])
            out.nats[row, rank], out.expected_nats[row, rank] = own[keep], entropy[keep]
            for every, part in zip(out[-4:], cell.expected(1), strict=True):
                every[row, rank] = part[keep, 0]
            here = left[torch.from_numpy(i).to(left.device)]
            whole, kept = cell.put_into(repaired[here]), torch.from_numpy(keep).to(left.device)
            repaired[here[kept]] = whole[kept]
        asked = np.concatenate(passed_over)


def _fill_conflicts(
    scorer: Scorer,
    rows: Tensor,
    columns: Tensor,
    rivals: Tensor,
    q: Posterior,
    log_p: Tensor,
    out: LikelyErrors,
) -> None:
    """Enter the cell among the ``rivals`` (B, r) with which each found cell conflicts.

    ``q`` are the distributions of the cells of the rows, ``log_p`` (B, m) their log-probabilities in some ``columns``.
    """
    some = np.flatnonzero(out.cells[:, 0] >= 0)
    hit = torch.from_numpy(some).to(rows.device)
    own, n = rivals[hit], rivals.shape[1]
    if not len(hit):
        return
    variants = rows[hit].repeat_interleave(n, 0)  # each with the predicted value of one rival
    for j in own.unique().tolist():
        at = torch.nonzero(own.flatten() == j).flatten()
        variants[at] = Cell.of(scorer, q, j, hit[at // n]).put_into(variants[at])
    cells = torch.from_numpy(out.cells[some]).to(rows.device).repeat_interleave(n, 0)  # (h r, k)
    others = (cells >= 0) & (cells != own.reshape(-1, 1))
    cells = cells.clamp_min(0)
    found = given_others(scorer, variants, _asked(scorer, variants, cells, others), CLOSE)
    after = _by_column(scorer, found.log_prob(rows[hit].repeat_interleave(n, 0)).double())
    place = (columns[hit].repeat_interleave(n, 0)[:, :, None] == cells[:, None]).int().argmax(1)
    gain = after.gather(1, cells) - log_p[hit].repeat_interleave(n, 0).gather(1, place)
    gain = gain.masked_fill(~others, -math.inf).view(len(hit), n, -1)
    nats, best = (t.cpu().numpy() for t in gain.max(1))
    out.conflict[some] = np.take_along_axis(own.cpu().numpy(), best, 1)
    out.conflict_nats[some] = np.maximum(nats, 0.0)


# -- predicted values -------------------------------------------------------------------------------


@torch.no_grad()
def predictions(
    scorer: Scorer, x: Tensor, among: Sequence[int], k: int | None, n_values: int
) -> tuple[np.ndarray, Expected]:
    """Columns (N, k) of the cells with the largest log-odds of an error, the largest first, and their predicted values.

    The n most probable values of these cells given the others of their rows are arrays (N, k, n). With k None, all of
    the columns ``among``, at one conditional for each; otherwise k among the :func:`candidates`.
    """
    width = len(among) if k is None else min(k, len(among))
    cells, shape = np.zeros((len(x), width), dtype=np.int64), (len(x), width, n_values)
    values = np.full((3, *shape), None, dtype=object)
    out = Expected(values[0], np.full(shape, math.nan), values[1], values[2])
    for batch in _batches(scorer, x, "cells", min(len(among), MOST_CELLS)):
        rows, at = x[batch], batch.cpu().numpy()
        odds = Odds(scorer, rows)
        columns = torch.tensor(among, device=x.device).expand(len(rows), -1)
        if k is not None:
            columns = candidates(scorer, odds, among)
        if k is not None and isinstance(scorer.conditional, ConditionalDenoiser):
            q = given_others(scorer, rows, _asked(scorer, rows, columns), COARSE)
            columns = columns.gather(1, _largest(odds.judged(q, columns)[1], k + RIVALS))
        q = given_others(scorer, rows, _asked(scorer, rows, columns))
        log_odds = odds.judged(q, columns)[1].cpu().numpy()
        order = np.argsort(-log_odds, axis=1, kind="stable")[:, :width]
        own = cells[at] = np.take_along_axis(columns.cpu().numpy(), order, 1)
        for j in np.unique(own):
            row, rank = np.nonzero(own == j)
            found = Cell.of(scorer, q, int(j), torch.from_numpy(row).to(x.device))
            for every, part in zip(out, found.expected(n_values), strict=True):
                every[at[row], rank] = part
    return cells, out


def _taken_as_unknown(scorer: Scorer, rows: Tensor, cells: np.ndarray) -> Tensor:
    """The rows (B, C') without the cells at positions (B, r): without their values, or their indicators if missing."""
    known = rows.clone()
    wrong = torch.zeros(len(rows), scorer.density.encoder_.n_columns, dtype=torch.bool)
    wrong.scatter_(1, torch.from_numpy(cells), True)
    owner = torch.from_numpy(scorer.density.encoder_.owner)
    wrong = wrong[:, owner].to(rows.device)
    missing = rows[:, owner.to(rows.device)].isnan()
    is_value = torch.arange(rows.shape[1], device=rows.device) < scorer.density.encoder_.n_columns
    return known.masked_fill(wrong & (is_value | missing), math.nan)


def _only(rows: Tensor, columns: Tensor) -> Tensor:
    """The rows with only the cells of their own columns (B, k)."""
    return torch.full_like(rows, math.nan).scatter_(1, columns, rows.gather(1, columns))
