r"""Cells of rows given the other cells, under the score of a detector: their distributions, and which are wrong.

The distribution :math:`p_j(v \mid x_{-j})` of a cell comes from an exact model, the scoring one or its companion
(:meth:`~discrete_itd.denoisers.Denoiser.leave_one_out`): all cells of a row in one pass. Where the scoring model has
none, its scores are normalised over a shortlist of values (:data:`~discrete_itd.likelihood.conditional.SHORTLIST`) in
the cells of a row that matter: the most probable values under the companion and the value there, eq. (13) of
:mod:`discrete_itd.likelihood.conditional`, beside which the companion's other values keep their proportions.

A wrong cell is one after a noisy channel (25): a share :math:`\pi` (``WRONG_CELLS``) of the cells is wrong, and u was
written as v with probability :math:`c_j(v \mid u)`. A slip of the pen, a share ``SLIPS`` of the wrong cells, is near u
(:mod:`discrete_itd.cells.slips`); other wrong cells have any other value, each as likely (:math:`f_j`,
:func:`log_flat`). By Bayes' rule

.. math:: \frac{P(\text{wrong} \mid x)}{P(\text{right} \mid x)}
          = \frac{\pi \sum_{u \ne x_j} p_j(u \mid x_{-j})\, c_j(x_j \mid u)}
                 {(1 - \pi) \bigl(p_j(x_j \mid x_{-j}) + w_j e_j(x_j)\,(1 - p_j(x_j \mid x_{-j}))\bigr)}

for each cell by itself, as if the others were right. The share :math:`w_j` of exceptions is that of right cells that do
not follow from the others of their rows as the model says, flat too (:math:`e_j`, :func:`log_exceptional`). It is
measured on rows that took no part in the fit (:func:`exceptional_shares`), since models are surer than they are right;
without such rows it is that of one in the training rows, since n rows do not show that something is rarer. So no cell
is likely wrong in a column where as many right cells contradict the others as are wrong. What was meant is the slip
that makes the cell more probable than all else, if there is one, and else what the other cells predict.

Where several cells of a row contradict one another, one error is enough: of those that become plausible once another
has its predicted value, each has the probability that it is the wrong one of them (:func:`_odds_among_rivals`).

Where "absent" is a value of a number, a cell is a pair of its missingness indicator and its value: the indicator is
conditioned on all other cells, the value on the indicator too. A network along paths, which learns missingness
indicators first, conditions them on other indicators only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.cells.channel import SLIPS, WRONG_CELLS
from discrete_itd.cells.slips import NO_SLIPS, Slips
from discrete_itd.channel.gaussian import CHUNK, FARTHEST, GaussianPosterior
from discrete_itd.channel.posterior import Posterior
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers import Denoiser
from discrete_itd.denoisers.base import DRAWN, in_blocks
from discrete_itd.detection.score import Scorer
from discrete_itd.devices import add_at
from discrete_itd.encoders import ABSENT, PRESENT, Clock, Column
from discrete_itd.encoders.categories import FALL
from discrete_itd.likelihood import conditional
from discrete_itd.likelihood.conditional import SHORTLIST, ConditionalDenoiser
from discrete_itd.likelihood.path import equal_rows
from discrete_itd.likelihood.sampling import level_quantiles
from discrete_itd.progress import progress_bar
from discrete_itd.reading.frames import log_anywhere

INTERVAL = 0.8  # probability of the reported interval of a number
MANY_LEVELS = 10  # numbers with more distinct values are reported as an interval
QUANTILES = torch.tensor([(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2], dtype=torch.float64)
BATCH_WORK = 1 << 25  # most rows times floats per row in one call
# Rows out of the fit on which the shares of exceptions are measured, of which so many are judged at once: 256 rows
# resolve shares down to a fifth of ``WRONG_CELLS``.
MEASURED_ROWS, MEASURED_AT_ONCE = 256, 64
EM_STEPS = 100  # of the shares of exceptions: then they move by less than a hundredth of themselves
# A cell that is not likely wrong is named if it is so many nats rarer than expected, a conflict if it has so many.
LEAST_NATS = 1.0
LEAST = 1e-9  # smallest probability that a float32 softmax distinguishes from zero
# Of n + 1 rows, how many lie beyond the means of the five least and of the five greatest of n of them, about
BEYOND_RANGE = 6
MOST_TRIED = 8  # cells of a row of which slips are tried, at least
# Cells of a row with the largest log-odds, among which conflicts are sought: wrong cells and those they contradict.
RIVALS = 4


# -- the distribution of a cell ---------------------------------------------------------------------


class Expected(NamedTuple):
    """Predicted values of one column: four arrays of shape (N, n), the most probable first.

    ``value`` is a category, or the median of a number; None for a missing cell, or where fewer than n values exist.
    ``probability`` is the probability of the value, or of the interval; NaN where fewer than n values exist. ``low``
    and ``high`` are the central interval of a number; None for categories.
    """

    value: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Cell(NamedTuple):
    """The distribution of the cells of one column in B rows.

    ``values`` are the log-probabilities of its levels, (B, K), nats, or the densities of standardised values, (B, 1);
    ``indicator`` (B, 2) the log-probabilities of being present or missing, None if missingness is not modelled, and
    ``places`` the internal columns of the value, of a clock its weekday, and of the indicator, and ``part`` that of the
    time of day, if there is one. ``spread`` (B, 3) are the ``QUANTILES`` of a density, of a clock its time of day's.
    """

    column: Column
    values: Tensor | GaussianPosterior
    indicator: Tensor | None
    places: list[int]
    spread: Tensor
    part: int | None

    @classmethod
    def of(cls, scorer: Scorer, q: Posterior, j: int, rows: Tensor, spread: Tensor) -> Cell:
        """The cells of column j in some rows (B,) of distributions of cells given the others of their rows.

        ``spread`` (N, C, 3) are the quantiles of these, as of :func:`spreads`.
        """
        column = scorer.schema[j]
        place = scorer.density.encoder_.indicator_of(j)
        places = [j] if place is None else [j, place]
        indicator = q.column(places[1])[rows] if len(places) > 1 else None
        values = q.column(j)[rows] if j in q.codebook.place else q.number(j, rows)
        part = scorer.density.encoder_.part_of(j)
        return cls(column, values, indicator, places, spread[rows, j], part)

    def _seen(self) -> Tensor:
        """Log-probabilities of the levels that were seen in training, (B, K')."""
        assert isinstance(self.values, Tensor)
        return self.values[:, : self.column.points.n_levels]

    def central(self) -> Tensor:
        """The most probable level of those seen in training, or the standardised median: float64, (B,)."""
        if isinstance(self.values, Tensor):
            return self._seen().argmax(1).double()
        return self.spread[:, 1]

    def put_into(self, rows: Tensor) -> Tensor:
        """Rows (B, C') with the predicted values of the cells."""
        out = rows.clone()
        out[:, self.places[0]] = self.central().to(rows)
        if self.part is not None:
            out[:, self.part] = self.spread[:, 1].to(rows)
        if self.indicator is not None:
            missing = self.indicator[:, int(PRESENT)] < -math.log(2)
            out[missing, self.places[0]] = math.nan
            out[:, self.places[1]] = torch.where(missing, ABSENT, PRESENT).to(rows)
        return out

    def expected(self, n: int) -> Expected:
        """Up to ``n`` most probable categories, or the median and interval of a number; or that it is missing."""
        if not isinstance(self.values, Tensor):
            values = _decode(self.column, self.spread.cpu().numpy())
            probability = np.full((len(values), 1), INTERVAL)
            predicted = Expected(values[:, 1:2], probability, values[:, :1], values[:, 2:])
        elif self.column.is_number and self.column.codec.n_levels > MANY_LEVELS:
            # better described by a median and an interval than by its most probable values
            predicted = self._interval()
        else:
            probs, codec = torch.softmax(self._seen(), 1), self.column.codec
            if codec.pooled:
                _, level, share = codec.values()
                first = codec.pooled[0]  # the most frequent of them
                probs[:, int(level[first])] *= share[first]
            top = probs.topk(min(n, probs.shape[1]), 1)
            start = None
            if self.part is not None:
                start = cast(Clock, codec).times_of_day(self.spread[:, 1].cpu().numpy())
            values = _decode(self.column, top.indices.cpu().numpy(), start)
            no_bound = np.full(values.shape, None, dtype=object)
            predicted = Expected(values, top.values.cpu().numpy(), no_bound, no_bound)
        present = None if self.indicator is None else self.indicator[:, int(PRESENT)]
        return _with_missing(predicted, present, n)

    def _interval(self) -> Expected:
        """The median and the central interval of a number whose levels are ordered."""
        seen = self._seen()
        level = level_quantiles(seen, QUANTILES)
        values = _decode(self.column, level.cpu().numpy())
        each = torch.arange(seen.shape[1], device=seen.device)
        inside = (level[:, :1] <= each) & (each <= level[:, 2:])
        probability = (torch.softmax(seen, 1) * inside).sum(1).cpu().numpy()
        return Expected(values[:, 1:2], probability[:, None], values[:, :1], values[:, 2:])


def spreads(scorer: Scorer, q: Posterior, columns: Tensor, x: Tensor) -> Tensor:
    """``QUANTILES`` of the cells in ``columns`` (B, m) of rows ``x``, -1 for none: float64, (B, C, 3), or NaN.

    Those of a clock are of its time of day, with the row's own in place of the median where it lies between the others.
    """
    shape = *columns.shape[:1], len(scorer.schema), len(QUANTILES)
    out = torch.full(shape, math.nan, dtype=torch.float64, device=columns.device)
    row, rank = torch.nonzero(torch.isin(columns, q.codebook.reals)).unbind(1)
    if len(row):
        column = columns[row, rank]
        out[row, column] = conditional.cells_of(q, row, column).quantiles(QUANTILES)
    for j in range(len(scorer.schema)):
        if (part := scorer.density.encoder_.part_of(j)) is not None:
            row = torch.nonzero((columns == j).any(1)).flatten()
            of_parts = conditional.cells_of(q, row, torch.full_like(row, part))
            low, median, high = of_parts.quantiles(QUANTILES).unbind(1)
            time_of_day = x[row, part].double()
            is_usual = (low <= time_of_day) & (time_of_day <= high)
            out[row, j] = torch.stack([low, torch.where(is_usual, time_of_day, median), high], 1)
    return out


def entropies(scorer: Scorer, q: Posterior, row: Tensor, column: Tensor) -> Tensor:
    """Expected surprisal of cells (n,) given the others of their rows: float64, (n,), nats; of numbers as recorded."""
    lines, reals, encoder = q.codebook.lines, q.codebook.reals, scorer.density.encoder_

    def cells(z: Tensor, line: Tensor) -> Intervals:
        return lines.cells(lines.rounded(z, line), line)

    def of_levels(chosen: Tensor, j: int) -> Tensor:
        log_p = q.column(j)[row[chosen]].double()
        return -(log_p.exp() * log_p.clamp_min(-FARTHEST)).sum(1)

    out = torch.zeros(len(row), dtype=torch.float64, device=row.device)
    numbers = torch.nonzero(torch.isin(column, reals)).flatten()
    if len(numbers):
        of_numbers = conditional.cells_of(q, row[numbers], column[numbers])
        out[numbers] = of_numbers.entropy(
            cells, torch.searchsorted(reals, column[numbers])[:, None]
        )
    for j in column.unique().tolist():
        chosen, codec = torch.nonzero(column == j).flatten(), scorer.schema[j].codec
        out[chosen] += of_levels(chosen, j) if codec.has_levels else codec.mean_new_nats
        if (part := encoder.part_of(j)) is not None:
            of_numbers = conditional.cells_of(q, row[chosen], column[chosen] * 0 + part)
            line = torch.searchsorted(reals, column[chosen] * 0 + part)[:, None]
            out[chosen] += of_numbers.entropy(cells, line)
        if (indicator := encoder.indicator_of(j)) is not None:
            present = q.column(indicator)[row[chosen], int(PRESENT)].double().exp()
            out[chosen] = of_levels(chosen, indicator) + present * out[chosen]
    return out


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


def _decode(column: Column, cells: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Values as in the table for encoded ``cells`` (B, n): of codes prefixes, times from a clock from nothing.

    Those of a clock are at the times of day ``start`` (B,), in steps.
    """
    if not column.codec.of_numbers:
        return column.codec.named(cells.astype(float).ravel()).reshape(cells.shape)
    start = None if start is None else start.repeat(cells.shape[1])
    values = column.decode(cells.astype(float).ravel(), settled=True, start=start)
    return values.astype(object).to_numpy().reshape(cells.shape)


# -- cells given the others -------------------------------------------------------------------------


def _asked(scorer: Scorer, rows: Tensor, columns: Tensor) -> Tensor:
    """Mask (B, C') of the internal columns of the cells in ``columns`` (B, m) of each row."""
    is_asked = torch.zeros(len(rows), len(scorer.schema), dtype=torch.bool, device=rows.device)
    return is_asked.scatter_(1, columns, True)[:, _owner(scorer, rows)]


def _owner(scorer: Scorer, like: Tensor) -> Tensor:
    """The column of each internal column, (C',), on the device of a tensor."""
    return torch.from_numpy(scorer.density.encoder_.owner).to(like.device)


def _by_column(scorer: Scorer, nats: Tensor) -> Tensor:
    """Sums over the internal columns (B, C') of each column, (B, C)."""
    sums = nats.new_zeros(len(nats), len(scorer.schema))
    return add_at(sums, 1, _owner(scorer, nats), nats)


def _batches(scorer: Scorer, x: Tensor, what: str) -> Iterator[Tensor]:
    """Row numbers of ``x`` (N, C') in batches whose posteriors fit into memory, under a progress bar."""
    size = min(scorer.model.batch_size, BATCH_WORK // scorer.model.conditional.row_work)
    with progress_bar(len(x), what) as bar:
        for rows in torch.arange(len(x), device=x.device).split(max(1, size)):
            if len(rows):
                yield rows
                bar.update(len(rows))


@torch.no_grad()
def nats_given_others(scorer: Scorer, x: Tensor, columns: Sequence[int]) -> np.ndarray:
    """Surprisal of the cells of some columns given all other cells of their rows, (N, c), nats; 0 where missing."""
    out = np.zeros((len(x), len(columns)))
    for batch in _batches(scorer, x, "columns"):
        rows, places = x[batch], torch.tensor(columns, device=x.device).expand(len(batch), -1)
        asked = _asked(scorer, rows, places)
        q = conditional.given_others(scorer.model.anywhere, rows, asked)
        log_p = q.log_prob(rows.masked_fill(~asked, math.nan))
        nats = -_by_column(scorer, log_p.double()).gather(1, places)
        out[batch.cpu().numpy()] = nats.cpu().numpy()
    return out


# -- wrong cells ------------------------------------------------------------------------------------


def log_flat(scorer: Scorer, x: Tensor) -> Tensor:
    """Log-probability f of each cell of rows ``x`` (B, C') if it is wrong: float64, (B, C), nats.

    Even over the levels of its column, one of them for values never seen. Of a number, even over the lattice of its
    range in training with probability one half, and else beyond it, the density falling with the squared distance from
    the middle of the range: any number may be a wrong one.
    """
    points = [-math.log(c.n_points or 1) for c in scorer.model.denoiser.codebook.columns]
    out = torch.tensor(points, dtype=torch.float64, device=x.device).expand(x.shape).clone()
    for j, column in enumerate(scorer.schema):
        codec = column.codec
        if not codec.has_levels:
            values = codec.decode(x[:, j].double().cpu().numpy())
            mass = log_anywhere(values, codec.low, codec.high, codec.step)
            out[:, j] = torch.from_numpy(mass).to(out)
        if codec.part is not None:  # a time of day
            place = scorer.density.encoder_.part_of(j)
            out[:, place] = math.log(
                codec.part.step / (codec.part.high - codec.part.low + codec.part.step)
            )
    return _by_column(scorer, out.masked_fill(x.isnan(), 0.0))


def log_probs(scorer: Scorer, q: Posterior, x: Tensor, asked: Tensor) -> Tensor:
    """Log-probabilities p of the cells of rows ``x`` (B, C') under their distributions: float64, (B, C), nats.

    Those ``asked`` (B, C') at least; with the probability that a number is new, or is not, in columns whose numbers
    repeat.
    """
    out = _by_column(scorer, q.log_prob_left_out(x, asked).double())
    for j, column in enumerate(scorer.schema):
        if column.codec.seen:
            out[:, j] -= torch.from_numpy(column.codec.new_nats(x[:, j].cpu().numpy())).to(out)
    return out.clamp_min(-FARTHEST)


def log_exceptional(scorer: Scorer, x: Tensor, log_f: Tensor) -> Tensor:
    """Log-probability e of each cell of rows ``x`` (B, C') if it is right, but an exception: float64, (B, C), nats.

    As even as ``log_f``, the result of :func:`log_flat`, among what n training rows hold. A value beyond these is rarer
    by the factor 2 / (n + 2): it occurs as often as the next of n + 1 rows is an extreme one.
    """
    out = log_f.clone()
    for j, column in enumerate(scorer.schema):
        is_beyond = torch.from_numpy(column.codec.is_outside(x[:, j].cpu().numpy())).to(x.device)
        out[is_beyond, j] += math.log(2 / (_n_values(column) + 2))
    return out


def _n_values(column: Column) -> int:
    """The number of training rows with a value in the column."""
    return column.n_rows - column.n_missing


def exceptional_shares(scorer: Scorer, x: Tensor) -> Callable[[], np.ndarray | None]:
    r"""A function that returns the share w of exceptions in each column, (C,), from rows (N, C') out of the fit.

    The weight that fits these rows best, by EM, in the mixture :math:`(1 - w)\, p + w\, e` of the exact model's
    conditional distribution and flat exceptions, under Jeffreys' prior. None without a row.
    """
    # a copy, as these rows are kept until the shares are asked for
    x = x[:: max(1, len(x) // MEASURED_ROWS)][:MEASURED_ROWS].clone()

    @torch.no_grad()
    def shares() -> np.ndarray | None:
        columns, parts = torch.arange(len(scorer.schema), device=scorer.model.device), []
        for rows in x.to(columns.device).split(MEASURED_AT_ONCE) if len(x) else ():
            asked = _asked(scorer, rows, columns.expand(len(rows), -1))
            q = conditional.given_others(scorer.model.anywhere, rows, asked)
            log_e = log_exceptional(scorer, rows, log_flat(scorer, rows))
            parts.append((log_e - log_probs(scorer, q, rows, asked), ~without_cell(scorer, rows)))
        if not parts:
            return None
        log_ratio, has_cell = (torch.cat(t) for t in zip(*parts, strict=True))
        n_cells, w = has_cell.sum(0), torch.full_like(log_ratio[0], 0.5)
        for _ in range(EM_STEPS):
            is_exception = torch.sigmoid(log_ratio + torch.logit(w)) * has_cell
            w = (is_exception.sum(0) + 0.5) / (n_cells + 1)
        return w.cpu().numpy()

    return shares


def log_exceptions(scorer: Scorer, x: Tensor, log_f: Tensor, log_p: Tensor) -> Tensor:
    """Log-probability of the cells of rows ``x`` (B, C') as exceptions, :math:`w e (1 - p)`: float64, (B, C), nats.

    Numbers beyond their range in training, the means of its five least and five greatest, are right in about
    ``BEYOND_RANGE`` of n + 2 rows whatever w is, and seldom far away.
    """
    shares = scorer.exceptions
    if shares is None:
        shares = np.array([1 / (_n_values(column) + 1) for column in scorer.schema])
    log_share = torch.from_numpy(np.log(shares)).to(log_f)
    out = log_share + log_exceptional(scorer, x, log_f)
    for j, column in enumerate(scorer.schema):
        codec, cells = column.codec, x[:, j].double().cpu().numpy()
        if not codec.has_levels and (beyond := np.flatnonzero(codec.is_outside(cells))).size:
            values = codec.decode(cells[beyond])
            mass = 2 * BEYOND_RANGE / (_n_values(column) + 2)  # one half of any mass is beyond
            log_mass = log_anywhere(values, codec.low, codec.high, codec.step, FALL)
            out[torch.from_numpy(beyond).to(x.device), j] = torch.from_numpy(
                math.log(mass) + log_mass
            ).to(out)
    return out + log_not(log_p)


def log_not(log_p: Tensor) -> Tensor:
    """The logarithm of 1 - p, as far as a float32 softmax tells p from one."""
    return (-torch.expm1(log_p)).clamp_min(LEAST).log()


def log_wrong(scorer: Scorer, log_p: Tensor, log_f: Tensor, log_slips: Tensor) -> Tensor:
    r"""The log-probability (B, C) that cells are wrong and what they are, over :math:`1 - \pi`, nats; (25).

    Of cells with log-probabilities ``log_p``, ``log_f`` if they are flat and ``log_slips`` if they are slips.
    """
    has_slips = [
        c.is_number or v is not None
        for c, v in zip(scorer.schema, scorer.vocabularies, strict=True)
    ]
    slips = log_p.new_tensor(has_slips) * SLIPS
    flat = torch.log1p(-slips) + log_f + log_not(log_p)
    prior = math.log(WRONG_CELLS / (1 - WRONG_CELLS))
    return prior + torch.logaddexp(flat, slips.log() + log_slips)


class MeantBySlip(NamedTuple):
    """Of cells (B, C): the log-probability of all slips, of the likeliest one, nats, and its encoded value."""

    log_p: Tensor
    log_likeliest: Tensor
    value: Tensor

    @classmethod
    def of(cls, scorer: Scorer, q: Posterior, slips: Slips, is_asked: Tensor) -> MeantBySlip:
        """Of the cells that are asked for, (B, C), by their distributions q."""
        total = np.full(is_asked.shape, -math.inf)
        likeliest, value = total.copy(), np.full(is_asked.shape, math.nan)
        kept = is_asked.cpu().numpy()[slips.row, slips.column]
        row, column, meant = slips.row[kept], slips.column[kept], slips.meant[kept]
        log_p = slips.log_ratio[kept] + _log_probs_of(scorer, q, row, column, meant)
        np.logaddexp.at(total, (row, column), log_p)
        np.maximum.at(likeliest, (row, column), log_p)
        is_likeliest = log_p == likeliest[row, column]
        value[row[is_likeliest], column[is_likeliest]] = meant[is_likeliest]
        return cls(*(torch.from_numpy(t).to(is_asked.device) for t in (total, likeliest, value)))


def _log_probs_of(
    scorer: Scorer, q: Posterior, row: np.ndarray, column: np.ndarray, cell: np.ndarray
) -> np.ndarray:
    """Log-probabilities (n,) of encoded values in the place of cells, under the distributions q of these."""
    out, lines = np.zeros(len(row)), q.codebook.lines
    for j in np.unique(column).tolist():
        own = np.flatnonzero(column == j)
        rows, values = (torch.from_numpy(t[own]).to(q.codebook.device) for t in (row, cell))
        if j in q.codebook.place:
            log_p = q.column(j)[rows, values.long()]
        else:
            # of each row some values, in a line of a table
            each, which, n = rows.unique(return_inverse=True, return_counts=True)
            order = which.argsort(stable=True)
            place = torch.empty_like(which)
            place[order] = torch.arange(len(which)).to(which) - (n.cumsum(0) - n)[which[order]]
            table = values.new_zeros(len(each), int(n.max())).index_put((which, place), values)
            line = torch.searchsorted(q.codebook.reals, torch.full_like(table, j).long())
            mixtures = conditional.cells_of(q, each, torch.full_like(each, j))
            size = max(1, CHUNK // (mixtures.means.shape[2] * table.shape[1]))
            of_rows = (t.split(size) for t in (torch.arange(len(each)), *lines.cells(table, line)))
            parts = [
                mixtures.pick(lambda t, i=i: t[i]).log_mass_of_few(middle, width)
                for i, middle, width in zip(*of_rows, strict=True)
            ]
            log_p = torch.cat(parts).clamp_min(-FARTHEST)[which, place]
        out[own] = log_p.double().cpu().numpy() - scorer.schema[j].codec.new_nats(cell[own])
    return out


class Suspects(NamedTuple):
    """The m most suspicious cells of B rows, the most likely wrong one first.

    Their ``columns``, (B, m); log-probabilities of these cells as wrong ones, ``log_wrong``, and as exceptions,
    ``log_exception``, (B, m) each; the distributions ``q`` of these cells, at least, given the others of their rows,
    and the log-probabilities ``log_p`` (B, C) of the cells under them; and what they are meant to be if they are slips.
    """

    columns: Tensor
    log_wrong: Tensor
    log_exception: Tensor
    q: Posterior
    log_p: Tensor
    slips: MeantBySlip

    def log_odds(self, nats: Tensor | float = 0.0, at: Any = ...) -> Tensor:
        """The log-odds of errors, (B, m), or some of them, if the cells were ``nats`` more probable."""
        log_p = self.log_p.gather(1, self.columns)[at] + nats
        return self.log_wrong[at] - torch.logaddexp(log_p, self.log_exception[at] + 0 * log_p)


def without_cell(scorer: Scorer, rows: Tensor) -> Tensor:
    """Which cells of encoded rows (B, C') have no value, nor is it modelled that they have none: (B, C)."""
    return _by_column(scorer, (~rows.isnan()).double()) == 0


@torch.no_grad()
def suspects(
    scorer: Scorer,
    rows: Tensor,
    among: Sequence[int],
    n: int | None = None,
    beyond: Tensor | float = 0.0,
    slips: Slips = NO_SLIPS,
) -> Suspects:
    """The ``n`` cells with the largest log-odds of an error of encoded rows (B, C'), ``among`` some columns.

    All of these with n None. Cells without a value come last. ``beyond`` (B, C) are nats by which unseen numbers are
    rarer than their level, -inf where a cell follows from its row; ``slips`` what cells may have been meant to be.
    """
    columns = torch.tensor(among, device=rows.device).expand(len(rows), -1)
    log_f = log_flat(scorer, rows)
    nothing = without_cell(scorer, rows)
    n = len(among) if n is None else n

    def ranked(denoiser: Denoiser, columns: Tensor, **how: Any) -> Suspects:
        asked = _asked(scorer, rows, columns)
        q = conditional.given_others(denoiser, rows, asked, **how)
        log_p = (log_probs(scorer, q, rows, asked) - beyond).clamp_max(0.0)
        log_e = log_exceptions(scorer, rows, log_f, log_p)

        def first(m: int, columns: Tensor, of_slips: MeantBySlip) -> Suspects:
            wrong = log_wrong(scorer, log_p, log_f, of_slips.log_p).masked_fill(nothing, -math.inf)
            ratio = (wrong - torch.logaddexp(log_p, log_e)).gather(1, columns)
            order = columns.gather(1, ratio.argsort(dim=1, descending=True, stable=True)[:, :m])
            return Suspects(
                order, wrong.gather(1, order), log_e.gather(1, order), q, log_p, of_slips
            )

        no_slips = MeantBySlip(*3 * [torch.full_like(log_p, -math.inf)])
        if not len(slips.row):
            return first(n, columns, no_slips)
        tried = first(max(n, MOST_TRIED), columns, no_slips).columns
        is_tried = torch.zeros_like(nothing).scatter(1, tried, True)
        return first(n, columns, MeantBySlip.of(scorer, q, slips, is_tried))

    by_scores = scorer.model.conditional
    if not isinstance(by_scores, ConditionalDenoiser):
        return ranked(scorer.model.conditional, columns)
    how: dict[str, Any] = {"nodes": SHORTLIST}
    if n < len(among):
        first = ranked(scorer.model.anywhere, columns)
        columns, how["proposed"] = first.columns.sort(1)[0], first.q
    return ranked(by_scores, columns, **how)


@torch.no_grad()
def likely_errors(
    scorer: Scorer, x: Tensor, beyond: np.ndarray, slips: Slips, k: int
) -> pd.DataFrame:
    """The most suspicious cell of each of encoded rows ``x`` (N, C'), and others that are likely wrong, at most k.

    One line a cell, as :func:`discrete_itd.detection.reasons.reasons` describes them: ``row``, ``cell`` and
    ``conflict`` are positions of rows and columns, ``value``, ``probability``, ``low`` and ``high`` as in
    :class:`Expected`. Numbers ``beyond`` (N, C) an ordinal column are so many nats rarer than its level of unseen ones.
    """
    parts, given = [], torch.tensor(scorer.given, dtype=torch.int64, device=x.device)
    n_asked = max(k, RIVALS) + len(given)
    for batch in _batches(scorer, x, "cells"):
        rows, rarer = x[batch], torch.from_numpy(beyond).to(x.device)[batch]
        of_batch = slips.within(int(batch[0]), int(batch[-1]) + 1)
        worst = suspects(scorer, rows, range(len(scorer.schema)), n_asked, rarer, of_batch)
        log_odds = worst.log_odds()
        # given cells are no reasons, but others may conflict with them
        is_free = ~torch.isin(worst.columns, given) & (log_odds > -math.inf)
        is_first = is_free & (is_free.cumsum(1) == 1)
        row, rank = torch.nonzero(is_first).unbind(1)
        cell, entropy = worst.columns[row, rank], torch.zeros_like(worst.log_p)
        entropy[row, cell] = entropies(scorer, worst.q, row, cell)
        is_rare = -worst.log_p[row, cell] - entropy[row, cell] >= LEAST_NATS
        is_first[row, rank] = is_rare | (log_odds[row, rank] > 0)
        is_wrong = (is_first & (log_odds > 0)).any(1, keepdim=True)
        row, rank = torch.nonzero(is_first | is_wrong & is_free).unbind(1)
        of_rows = worst.columns.masked_fill(~is_first.any(1, keepdim=True), -1)
        spread = spreads(scorer, worst.q, of_rows, rows)
        rivals, gain = _conflicts(scorer, rows, worst, spread, row, rank)
        log_odds_among = _odds_among_rivals(worst, is_free, gain, row, rank)
        kept = torch.nonzero(is_first[row, rank] | (log_odds_among > 0)).flatten()
        # of each row the most probable error first, and at most k
        order = kept[np.lexsort([-log_odds_among[kept].cpu(), row[kept].cpu()])]
        n_before = torch.searchsorted(row[order], row[order])
        order = order[torch.arange(len(order), device=x.device) - n_before < k]
        row, rank, rivals, gain, log_odds_among = (
            t[order] for t in (row, rank, rivals, gain, log_odds_among)
        )
        (conflict_nats, conflict), cell = gain.max(1), worst.columns[row, rank]
        later = ~is_first[row, rank]
        entropy[row[later], cell[later]] = entropies(scorer, worst.q, row[later], cell[later])
        columns = {
            "row": batch[row],
            "cell": cell,
            "probability_wrong": log_odds_among.sigmoid(),
            "nats": -worst.log_p[row, cell],
            "expected_nats": entropy[row, cell],
            "conflict": rivals.gather(1, conflict[:, None])[:, 0],
            "conflict_nats": conflict_nats,
        }
        values = {name: np.full(len(row), None, dtype=object) for name in Expected._fields}
        log_f = log_flat(scorer, rows)
        for j in cell.unique().tolist():
            lines = torch.nonzero(cell == j).flatten()
            predicted = Cell.of(scorer, worst.q, j, row[lines], spread).expected(1)
            predicted = _with_slips(scorer, predicted, worst, log_f, row[lines], j)
            for value, part in zip(values.values(), predicted, strict=True):
                value[lines.cpu().numpy()] = part[:, 0]
        parts.append(pd.DataFrame({name: t.cpu().numpy() for name, t in columns.items()} | values))
    return pd.concat(parts, ignore_index=True)


def _with_slips(
    scorer: Scorer, predicted: Expected, worst: Suspects, log_f: Tensor, row: Tensor, j: int
) -> Expected:
    """Predicted values (n, 1) of the cells of column j in some rows, or what is meant where that is likelier a slip."""
    flat = math.log(1 - SLIPS) + log_f[row, j] + log_not(worst.log_p[row, j])
    log_all = torch.logaddexp(flat, math.log(SLIPS) + worst.slips.log_p[row, j])
    log_slip = math.log(SLIPS) + worst.slips.log_likeliest[row, j]
    share = (log_slip - log_all).exp().cpu().numpy()[:, None]
    is_slip = share > 0.5
    if not is_slip.any():
        return predicted
    meant = _decode(scorer.schema[j], worst.slips.value[row, j].cpu().numpy()[:, None])
    none = np.full(meant.shape, None, dtype=object)
    pairs = zip((meant, share, none, none), predicted, strict=True)
    return Expected(*(np.where(is_slip, *pair) for pair in pairs))


def _odds_among_rivals(
    worst: Suspects, is_free: Tensor, gain: Tensor, row: Tensor, rank: Tensor
) -> Tensor:
    """Log-odds of an error of n cells, where another cell of the row may be the wrong one instead: (n,).

    The cells at ``rank`` among those of each ``row``, with the ``gain`` (n, r) of :func:`_conflicts`. A cell is judged
    as if the more suspicious one, no given cell, that it conflicts with most had its predicted value. Other rivals that
    would make it more likely right than wrong are other explanations of the same contradiction: of all of these one is
    wrong, or an exception, in proportion to their odds.
    """
    n_rivals, log_p = gain.shape[1], worst.log_p.gather(1, worst.columns)
    position = torch.arange(n_rivals, device=gain.device)
    is_before = is_free[row, :n_rivals] & (position < rank[:, None])
    nats = gain.masked_fill(~is_before, -math.inf).amax(1)
    nats = torch.where(is_before.any(1), nats, 0.0)
    repaired = worst.log_odds(nats[:, None] + gain, (row[:, None], rank[:, None].expand_as(gain)))
    explains = is_free[row, :n_rivals] & (gain >= LEAST_NATS) & (repaired <= 0) & ~is_before
    # log-odds of each cell of the row: wrong, or an exception
    deviates = torch.logaddexp(worst.log_wrong, worst.log_exception) - log_p
    others = deviates[row, :n_rivals].masked_fill(~explains, -math.inf).logsumexp(1)
    of_others = worst.log_wrong[row, rank] - log_p[row, rank] - nats - others
    return -torch.logaddexp(-worst.log_odds(nats, (row, rank)), -of_others)


def _conflicts(
    scorer: Scorer, rows: Tensor, worst: Suspects, spread: Tensor, row: Tensor, rank: Tensor
) -> tuple[Tensor, Tensor]:
    """The rivals of n cells, their columns (n, r), and by how many nats each cell conflicts with each, (n, r).

    The cells at ``rank`` among those of each ``row``. A conflict is the gain in the log-probability ratio of the cell's
    value and its predicted value when the rival has its predicted value, by four scores of rows.
    """
    denoiser, rivals = scorer.model.anywhere, worst.columns[row, :RIVALS]
    cell = worst.columns[row, rank]
    if not (denoiser.closed_form and len(row)):
        return rivals, torch.zeros_like(rivals, dtype=torch.float64)
    predicted, owner = rows.clone(), _owner(scorer, rows)
    is_needed = torch.zeros(len(rows), len(scorer.schema), dtype=torch.bool, device=rows.device)
    is_needed[row[:, None], rivals] = True
    is_needed[row, cell] = True
    for j in torch.nonzero(is_needed.any(0)).flatten().tolist():
        lines = torch.nonzero(is_needed[:, j]).flatten()
        cells = Cell.of(scorer, worst.q, j, lines, spread)
        predicted[lines] = cells.put_into(predicted[lines])

    def repaired(*columns: Tensor) -> Tensor:
        """The rows, for each cell and rival, with the predicted values of some columns."""
        source = row.repeat_interleave(rivals.shape[1])
        is_repaired = torch.zeros(len(source), len(owner), dtype=torch.bool, device=rows.device)
        for column in columns:
            is_repaired |= owner == column.flatten()[:, None]
        return torch.where(is_repaired, predicted[source], rows[source])

    accused = cell[:, None].expand_as(rivals)
    x = torch.cat([repaired(rivals), repaired(rivals, accused), repaired(), repaired(accused)])
    first, inverse = equal_rows(x)
    scores = torch.cat(list(in_blocks(denoiser.log_prob, x[first], batch_size=DRAWN))).double()
    of_rival, of_both, of_none, of_accused = scores[inverse].chunk(4)
    gain = of_rival - of_both - of_none + of_accused
    no_cell = worst.log_wrong[row, :RIVALS] == -math.inf
    return rivals, gain.view_as(rivals).masked_fill((rivals == accused) | no_cell, 0.0)


# -- predicted values -------------------------------------------------------------------------------


def predictions(
    scorer: Scorer,
    x: Tensor,
    among: Sequence[int],
    k: int | None,
    n_values: int,
    slips: Slips = NO_SLIPS,
) -> tuple[np.ndarray, Expected]:
    """Columns (N, k) of the cells with the largest log-odds of an error, the largest first, and their predicted values.

    The n most probable values of these cells given the others of their rows are arrays (N, k, n). With k None, all of
    the columns ``among``.
    """
    width = len(among) if k is None else min(k, len(among))
    cells, shape = np.zeros((len(x), width), dtype=np.int64), (len(x), width, n_values)
    values = np.full((3, *shape), None, dtype=object)
    out = Expected(values[0], np.full(shape, math.nan), values[1], values[2])
    for batch in _batches(scorer, x, "cells"):
        numbers = batch.cpu().numpy()
        of_batch = slips.within(numbers[0], numbers[-1] + 1)
        worst = suspects(scorer, x[batch], among, k, slips=of_batch)
        columns = cells[numbers] = worst.columns.cpu().numpy()
        spread = spreads(scorer, worst.q, worst.columns, x[batch])
        for j in np.unique(columns):
            row, rank = np.nonzero(columns == j)
            cell = Cell.of(scorer, worst.q, int(j), torch.from_numpy(row).to(x.device), spread)
            for array, part in zip(out, cell.expected(n_values), strict=True):
                array[numbers[row], rank] = part
    return cells, out
