"""Every cell against the other cells of its row, under the score of a detector.

A cell is compared with the other cells of its row. Where missingness is modelled, a cell is a pair of its missingness
indicator and its value: the indicator is conditioned on the other indicators, the value on all of them.

Conditional distributions are the model's own: one denoiser call with the cell unknown, or, for a model that scores
complete rows and does not marginalise, its log-probabilities normalised over the values of the cell (*enumeration*),
eq. (13) of :mod:`discrete_itd.likelihood.conditional`, with the gaps of the row as they are scored. For an exact model
they are its log-probability, normalised over the values of one cell, all other cells fixed, with these exceptions:

* Conditionals with many unknown cells at once come from the exact companion of a model that does not marginalise: the
  candidates among the cells of wide tables, and the column whose dependence has changed.
* A network's posterior of a cell given all others need not equal the ratio of two of its path scores, so the two agree
  only as well as the network's conditionals agree with one another.
* Missingness indicators (``missing="category"``) are conditioned on the other indicators only, as in the score, where
  they come first. The score of a row also depends on the values given the indicators.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.devices import add_at
from discrete_itd.channel.gaussian import FARTHEST
from discrete_itd.channel.posterior import Posterior
from discrete_itd.detection.distributions import Cell, Expected
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import PRESENT, Continuous
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.likelihood.conditional import (
    AGAIN,
    FINE,
    FIRST,
    SECOND,
    ConditionalDenoiser,
    Nodes,
    cell_by_cell,
)
from discrete_itd.progress import progress_bar

BATCH_WORK = 1 << 24  # rows times floats per row in one call
PRIOR = 0.5  # probability that a row has a wrong cell: rows to be explained are suspicious
LEAST_NATS = 0.05  # least excess over the expectation; smaller ones round to nothing in a sentence
LEAST = 1e-9  # smallest probability that a float32 softmax distinguishes from zero
MOST_CELLS = 256  # cells of a row that are assessed one by one: all, except in very wide tables
RIVALS = 4  # most probable errors of a row: they should include wrong cells and those with which these conflict
# with enumeration:
MARGIN = 4.0  # nats: error of their log-odds before
RECHECKED = 5  # cells that are assessed again after a wrong one was found
MOST_SCORES = 1 << 13  # per row: fewer cells in wider tables
N_FOLDS = 32  # denoiser states that select them among more cells


# -- conditional distributions ----------------------------------------------------------------------


def most_rows(scorer: Scorer, numbers: int = 0) -> int:
    """Number of rows whose posteriors fit into memory in full, and ``numbers`` floats of each row."""
    most = BATCH_WORK // max(scorer.conditional.row_work, numbers)
    return max(1, min(scorer.density.model_.batch_size, most))


def scores_of_row(scorer: Scorer, nodes: Nodes = FINE) -> int:
    """Number of scores that enumerate the cells of a row: 0 for a model with conditionals of its own."""
    denoiser = scorer.conditional
    return denoiser.scores_of_row(nodes) if isinstance(denoiser, ConditionalDenoiser) else 0


@torch.no_grad()
def given_others(
    scorer: Scorer,
    x: Tensor,
    asked: Tensor,
    nodes: Nodes = FINE,
    start: Posterior | None = None,
    *,
    quick: bool = False,
) -> Posterior:
    """The distribution of each asked cell given the others of its row.

    ``x`` (B, C') are encoded rows, NaN where a cell is not conditioned on. ``asked`` (B, C') holds one cell of a row or
    several, each by itself; the distributions of all others have no meaning. Enumeration uses ``nodes``, and refines
    the asked cells of an earlier result ``start`` for these rows; without enumeration ``start`` is returned. ``quick``
    avoids enumeration (:attr:`Model.anywhere`).
    """
    denoiser, indicator = scorer.conditional, _indicators(scorer, x.device)
    if quick or not isinstance(denoiser, ConditionalDenoiser):
        size, denoiser = most_rows(scorer), scorer.model.anywhere
    elif not bool(denoiser.unlearned_gaps(x).any()):
        return denoiser.each(x, asked, nodes, start)
    else:
        size = max(1, int(asked.sum()))  # such gaps are summed out of the score
    if start is not None:
        return start
    place = torch.full((asked.shape[1],), -1, device=x.device)
    place[: len(indicator)] = indicator
    return cell_by_cell(denoiser, x, asked, place, batch_size=size)


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


# -- cells ------------------------------------------------------------------------------------------


class CellAssessment(NamedTuple):
    """Cells of encoded rows against the other cells of their rows: float64 arrays of shape (N, C), nats.

    ``given_others`` is minus the log-probability of the cell given the others, ``entropy`` its expectation in the unit
    of the column, ``marginal`` minus the log-probability of the cell under the column's marginal, ``error_log_odds``
    that of :func:`assess`. Where a cell is missing they are 0, or minus infinity. All but ``entropy`` refer to encoded
    values, without the change of unit of continuous columns.
    """

    given_others: np.ndarray
    entropy: np.ndarray
    marginal: np.ndarray
    error_log_odds: np.ndarray


def _batches(scorer: Scorer, x: Tensor, what: str, n_cells: int) -> Iterator[Tensor]:
    """Batches of row numbers of ``x`` (N, C') that fit into memory with ``n_cells`` states each, under a progress bar.

    Gaps that the scoring model has not learned cost more: such rows are in batches of their own.
    """
    denoiser, new = scorer.conditional, torch.zeros_like(x[:, 0], dtype=torch.bool)
    if isinstance(denoiser, ConditionalDenoiser):
        new = denoiser.unlearned_gaps(x)
    with progress_bar(len(x), what) as bar:
        for own in (~new, new):
            for rows in torch.nonzero(own).flatten().split(max(1, most_rows(scorer) // n_cells)):
                if len(rows):
                    yield rows
                    bar.update(len(rows))


def assess(scorer: Scorer, x: Tensor) -> CellAssessment:
    r"""Every cell of encoded rows ``x`` (N, C') against the other cells of its row: C conditionals for each row.

    The log-odds of an error are, up to a constant that is the same for all cells, the log-odds that the cell is wrong.
    Suppose that a wrong cell holds a value drawn from :math:`c = \tfrac12\pi + \tfrac12 u` (:func:`log_probs_alone`).
    Then by Bayes' rule, with p the probability of the cell given the others,

    .. math:: \mathrm{log\ odds} = \log\frac{(1 - p(x_j))\,c(x_j)}{p(x_j)}.

    For a density, :math:`1 - p` is replaced by 1. The score's nats of new numbers, in columns whose numbers repeat, are
    added.
    """
    shape = len(x), len(scorer.schema)
    out = CellAssessment(*(np.zeros(shape) for _ in CellAssessment._fields))
    for batch in _batches(scorer, x, "cells", x.shape[1]):
        found = _assess_batch(scorer, x[batch])
        for every, own in zip(out, found, strict=True):
            every[batch.cpu().numpy()] = own.cpu().numpy()
    return out


@torch.no_grad()
def _assess_batch(scorer: Scorer, rows: Tensor) -> tuple[Tensor, ...]:
    """The fields of :class:`CellAssessment` for a batch."""
    marginal, log_wrong = log_probs_alone(scorer.marginals, rows)
    columns = torch.arange(len(scorer.schema), device=rows.device).expand(len(rows), -1)
    there = ~rows[:, : columns.shape[1]].isnan() | (_indicators(scorer, rows.device) >= 0)
    q = given_others(scorer, rows, _asked(scorer, rows, columns, there))
    log_p, entropy = (
        _by_column(scorer, q.log_prob(rows).double()),
        torch.zeros_like(columns).to(rows),
    )
    for j in range(columns.shape[1]):
        some = torch.nonzero(there[:, j]).flatten()
        if len(some):
            entropy[some, j] = Cell.of(scorer, q, j, some).entropy().to(rows)
    log_odds = _log_odds(scorer, rows, columns, log_p, log_wrong)
    return -log_p, entropy, -_by_column(scorer, marginal), log_odds + _of_new(scorer, rows)


@torch.no_grad()
def nats_given_others(
    scorer: Scorer, x: Tensor, columns: Sequence[int], *, quick: bool = False
) -> np.ndarray:
    """``given_others`` of :class:`CellAssessment` for some columns, (N, c), without the other fields.

    ``quick`` as in :func:`given_others`.
    """
    out = np.zeros((len(x), len(columns)))
    for batch in _batches(scorer, x, "columns", len(columns)):
        rows, own = x[batch], torch.tensor(columns, device=x.device).expand(len(batch), -1)
        q = given_others(scorer, rows, _asked(scorer, rows, own), quick=quick)
        log_p = q.log_prob(rows.masked_fill(~_asked(scorer, rows, own), math.nan)).double()
        out[batch.cpu().numpy()] = -_by_column(scorer, log_p).gather(1, own).cpu().numpy()
    return out


def _of_new(scorer: Scorer, rows: Tensor) -> Tensor:
    """Nats of a number being new or not, in columns whose numbers repeat: (B, C), 0 in others."""
    new, x = np.zeros((len(rows), len(scorer.schema))), rows.cpu().numpy()
    for j, column in enumerate(scorer.schema):
        if isinstance(column.codec, Continuous) and column.codec.seen:
            new[:, j] = column.codec.new_nats(x[:, j])
    return torch.from_numpy(new).to(rows)


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


def _log_odds(
    scorer: Scorer, rows: Tensor, columns: Tensor, log_p: Tensor, log_wrong: Tensor
) -> Tensor:
    """Log-odds of an error, (B, m), of the cells in some columns (B, m) of each row, without the nats of new numbers.

    ``log_p`` are their log-probabilities (B, m); ``log_wrong`` those of all internal columns if wrong, (B, C').
    """
    is_density = torch.zeros(rows.shape[1], dtype=torch.bool, device=rows.device)
    is_density[scorer.conditional.codebook.reals] = True
    missing = rows.gather(1, columns).isnan()
    others = (-torch.expm1(log_p)).clamp_min(LEAST).log()
    others = others.masked_fill(is_density[columns] & ~missing, 0.0)  # a density: 1 - p is 1
    odds = others - log_p + _by_column(scorer, log_wrong).gather(1, columns)
    return odds.masked_fill(missing & (_indicators(scorer, rows.device)[columns] < 0), -math.inf)


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
        uniform[:, book.reals] = -(math.pi * sd).log() - 2 * far.log()
    wrong = torch.logaddexp(alone, uniform) - math.log(2)
    return alone, torch.where(x.isnan(), 0.0, wrong)


class Doubtful(NamedTuple):
    """The cells of encoded rows that are more likely wrong than right, at most k in each row, found one by one.

    All arrays have shape (N, k); NaN, or None, where a row has no further cell.

    Attributes
    ----------
    cells : ndarray of int64
        Columns of the cells, the most likely wrong first; -1 where there is none.
    probability : ndarray of float64
        Probability that the cell is wrong: above one half.
    nats, expected_nats : ndarray of float64
        Surprisal of the cell given the others, and its expectation, in the unit of the column.
    conflict : ndarray of int64
        Column of the cell with which it conflicts most.
    conflict_nats : ndarray of float64
        Increase of its surprisal by that cell; at most 0 if there is none.
    value, value_probability, low, high : ndarray
        Most probable value of the cell, as in :class:`Expected`.
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
    def blank(cls, n: int, k: int) -> Doubtful:
        """No cells of n rows."""
        cells, conflict = np.full((n, k), -1, dtype=np.int64), np.zeros((n, k), dtype=np.int64)
        p, nats, entropy, share = np.full((4, n, k), math.nan)
        value, low, high = np.full((3, n, k), None, dtype=object)
        by = np.zeros((n, k))
        return cls(cells, p, nats, entropy, conflict, by, value, share, low, high)


@torch.no_grad()
def most_doubtful(
    scorer: Scorer, x: Tensor, log_volume: np.ndarray, k: int, prior: float = PRIOR
) -> Doubtful:
    r"""The most probable set of at most k wrong cells of each encoded row of ``x`` (N, C'), found one by one.

    ``log_volume`` (N, C') is that of :class:`~discrete_itd.encoders.Rows`; ``prior`` is the probability that a row has
    a wrong cell, which is equally likely to be any of those that are not given.

    Notes
    -----
    The log-odds that a cell is wrong are those of :func:`assess` plus :math:`\log\frac{\mathrm{prior}}{(1 -
    \mathrm{prior})\,C}`. The cell with the largest ones is the first, if they are positive. It is then treated as
    unknown, and the others are assessed again: cells that only conflicted with it no longer stand out, and the next is
    the one that is still more likely wrong than right. Cells whose surprisal is not at least ``LEAST_NATS`` above its
    expectation, as where all values are improbable, are skipped.

    With enumeration, a cell that was found is not unknown but has its predicted value, and only the ``RECHECKED`` cells
    with the largest log-odds are assessed again. All cells are first enumerated coarsely, and at most ``RIVALS`` of a
    row are then refined: nothing is scored twice.

    The cell with which a found one conflicts is the one of the row's ``RIVALS`` cells with the largest log-odds of an
    error whose predicted value, in its place, decreases the surprisal of the found cell given all others most.

    Only :func:`candidates` and given cells are assessed: a row costs at most ``N_FOLDS`` + k (``MOST_CELLS`` +
    ``RIVALS``) conditionals, twice as many with missingness indicators, however many columns there are.
    """
    free = [j for j in range(len(scorer.schema)) if j not in scorer.given]
    shift = math.log(prior / (1 - prior) / len(free))
    out = Doubtful.blank(len(x), k)
    for batch in _batches(scorer, x, "cells", min(len(free), MOST_CELLS)):
        own = batch.cpu().numpy()
        found = Doubtful._make(t[own] for t in out)
        _fill_batch(
            scorer, x[batch], candidates(scorer, x[batch], free), log_volume[own], shift, found
        )
        for every, part in zip(out, found, strict=True):
            every[own] = part
    return out


@torch.no_grad()
def candidates(scorer: Scorer, rows: Tensor, among: Sequence[int]) -> Tensor:
    """The cells of each row that may be wrong: columns (B, m) among those of ``among``, in their order.

    All of them, if they are at most ``MOST_CELLS`` and their enumeration costs at most ``MOST_SCORES`` scores a row.
    Otherwise those with the largest log-odds of an error where every ``N_FOLDS``-th cell is predicted together, from
    all the others: ``N_FOLDS`` denoiser states a row.
    """
    columns = torch.tensor(among, device=rows.device).expand(len(rows), -1)
    most = MOST_CELLS
    if scores := scores_of_row(scorer, FIRST):
        most = max(RIVALS, min(most, MOST_SCORES * len(scorer.schema) // scores))
    if len(among) <= most:
        return columns
    leading = rows.masked_fill(~scorer.conditional.codebook.leading, math.nan)
    place, log_p = _indicators(scorer, rows.device), torch.zeros_like(rows)
    for fold in range(N_FOLDS):
        own = columns[:1, fold::N_FOLDS].expand(len(rows), -1)
        indicators = place[own[:, place[own[0]] >= 0]]
        known = rows.scatter(1, own, math.nan).scatter(1, indicators, PRESENT)
        log_p += _log_prob_given(scorer, known, _only(rows, own))
        if indicators.numel():
            known = leading.scatter(1, indicators, math.nan)
            log_p += _log_prob_given(scorer, known, _only(rows, indicators))
    log_wrong = log_probs_alone(scorer.marginals, rows)[1]
    log_p = _by_column(scorer, log_p).gather(1, columns)
    log_odds = _log_odds(scorer, rows, columns, log_p, log_wrong)
    log_odds += _of_new(scorer, rows).gather(1, columns)
    return columns.gather(1, _largest(log_odds, most))


def _largest(values: Tensor, n: int) -> Tensor:
    """Positions of the n largest values of each row, in their order; the first of equal ones."""
    order = np.argsort(-values.cpu().numpy(), axis=1, kind="stable")[:, :n]
    return torch.from_numpy(np.sort(order, axis=1)).to(values.device)


def _fill_batch(
    scorer: Scorer,
    rows: Tensor,
    columns: Tensor,
    log_volume: np.ndarray,
    shift: float,
    out: Doubtful,
) -> None:
    """Write the wrong cells of a batch of B rows, among candidates (B, m), to ``out``."""
    by_value, k = isinstance(scorer.conditional, ConditionalDenoiser), out.cells.shape[1]
    # given cells are no reasons, but others may conflict with them
    given = torch.tensor(scorer.given, dtype=columns.dtype, device=columns.device)
    columns = torch.cat([columns, given.expand(len(rows), -1)], 1)
    log_wrong, more = log_probs_alone(scorer.marginals, rows)[1], _of_new(scorer, rows) + shift
    left = torch.arange(len(rows), device=rows.device)  # rows whose next cell is sought
    known, among, repaired = rows, columns, rows.clone()
    first: tuple[Tensor, Posterior, Tensor] | None = None
    for rank in range(k):
        before = torch.from_numpy(out.cells[:, :rank]).to(left.device)[left]
        free = ~torch.isin(among, given)
        fresh = (among[:, :, None] != before[:, None]).all(2) & (free | (rank == 0))
        nodes = AGAIN if rank else FIRST
        q = given_others(scorer, known, _asked(scorer, known, among, fresh), nodes)
        log_p, log_odds = _judged(scorer, q, rows[left], among, log_wrong[left], more[left])
        log_odds = log_odds.masked_fill(~fresh, -math.inf)
        place = _largest(log_odds, RIVALS)
        if by_value:
            near = log_odds.gather(1, place) > -MARGIN
            near = near if rank else near.any(1, keepdim=True).expand_as(near)
            if bool(near.any()):
                finer = _asked(scorer, known, among.gather(1, place), near)
                q = given_others(scorer, known, finer, SECOND, q)
                log_p, log_odds = _judged(scorer, q, rows[left], among, log_wrong[left], more[left])
                log_odds = log_odds.masked_fill(~fresh, -math.inf)
        first = first or (columns.gather(1, place), q, log_p)
        log_odds = log_odds.masked_fill(~free, -math.inf)
        _take(scorer, q, left, among, log_p, log_odds, log_volume, repaired, out, rank)
        hit = torch.from_numpy(out.cells[:, rank] >= 0).to(left.device)[left]
        left, among = left[hit], among[hit]
        if not len(left):
            break
        if by_value:
            known = repaired[left]
            among = among.gather(1, _largest(log_odds[hit], RECHECKED + 1))
        else:
            known = _taken_as_unknown(scorer, rows[left], out.cells[left.cpu().numpy(), : rank + 1])
    if first is not None:
        _fill_conflicts(scorer, rows, columns, *first, out)


def _judged(
    scorer: Scorer,
    q: Posterior,
    rows: Tensor,
    columns: Tensor,
    log_wrong: Tensor,
    more: Tensor,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of cells in some columns (B, m) of rows, and the log-odds of an error: (B, m) each."""
    log_p = _by_column(scorer, q.log_prob(rows).double()).gather(1, columns).clamp_min(-FARTHEST)
    return log_p, _log_odds(scorer, rows, columns, log_p, log_wrong) + more.gather(1, columns)


def _take(
    scorer: Scorer,
    q: Posterior,
    left: Tensor,
    among: Tensor,
    log_p: Tensor,
    log_odds: Tensor,
    log_volume: np.ndarray,
    repaired: Tensor,
    out: Doubtful,
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
    out: Doubtful,
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
    found = given_others(scorer, variants, _asked(scorer, variants, cells, others), AGAIN)
    after = _by_column(scorer, found.log_prob(rows[hit].repeat_interleave(n, 0)).double())
    place = (columns[hit].repeat_interleave(n, 0)[:, :, None] == cells[:, None]).int().argmax(1)
    gain = after.gather(1, cells) - log_p[hit].repeat_interleave(n, 0).gather(1, place)
    gain = gain.masked_fill(~others, -math.inf).view(len(hit), n, -1)
    nats, best = (t.cpu().numpy() for t in gain.max(1))
    out.conflict[some] = np.take_along_axis(own.cpu().numpy(), best, 1)
    out.conflict_nats[some] = np.maximum(nats, 0.0)


@torch.no_grad()
def ranked(scorer: Scorer, x: Tensor, among: Sequence[int], k: int | None) -> np.ndarray:
    """Columns (N, k) of the cells of rows with the largest log-odds of an error, the largest first.

    With k None, all of the columns ``among``, at one conditional for each; otherwise k among the :func:`candidates`.
    """
    width = len(among) if k is None else min(k, len(among))
    out = np.zeros((len(x), width), dtype=np.int64)
    for batch in _batches(scorer, x, "cells", min(len(among), MOST_CELLS)):
        rows = x[batch]
        columns = torch.tensor(among, device=x.device).expand(len(rows), -1)
        columns = columns if k is None else candidates(scorer, rows, among)
        parts = columns, log_probs_alone(scorer.marginals, rows)[1], _of_new(scorer, rows)
        q = given_others(scorer, rows, _asked(scorer, rows, columns), FINE if k is None else FIRST)
        log_odds = _judged(scorer, q, rows, *parts)[1]
        if k is not None:
            few = columns.gather(1, _largest(log_odds, k + RIVALS))
            q = given_others(scorer, rows, _asked(scorer, rows, few), SECOND, q)
            log_odds = _judged(scorer, q, rows, *parts)[1]
        order = np.argsort(-log_odds.cpu().numpy(), axis=1, kind="stable")[:, :k]
        out[batch.cpu().numpy()] = np.take_along_axis(columns.cpu().numpy(), order, 1)
    return out


@torch.no_grad()
def predictions(scorer: Scorer, x: Tensor, cells: np.ndarray, n_values: int) -> Expected:
    """The most probable values of some cells given the others of their rows: arrays (N, k, n).

    The cells are in columns ``cells`` (N, k) of rows ``x`` (N, C').
    """
    shape = (*cells.shape, n_values)
    values = np.full((3, *shape), None, dtype=object)
    out = Expected(values[0], np.full(shape, math.nan), values[1], values[2])
    for batch in _batches(scorer, x, "predictions", cells.shape[1]):
        rows, own = x[batch], cells[batch.cpu().numpy()]
        columns = torch.from_numpy(own).to(x.device)
        q = given_others(scorer, rows, _asked(scorer, rows, columns))
        for j in np.unique(own):
            row, rank = np.nonzero(own == j)
            found = Cell.of(scorer, q, int(j), torch.from_numpy(row).to(x.device))
            for every, part in zip(out, found.expected(n_values), strict=True):
                every[batch.cpu().numpy()[row], rank] = part
    return out


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
