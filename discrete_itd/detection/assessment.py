"""Every cell against the other cells of its row, and every pair of cells, under the score that a detector returns.

A cell is compared with the other cells of its row. Where missingness is modelled, a cell is a pair of
its missingness indicator and its value: the indicator is conditioned on the other indicators, the value on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel.devices import add_at
from discrete_itd.channel.posterior import GaussianPosterior, Posterior
from discrete_itd.detection.conditionals import (
    Conditionals,
    by_enumeration,
    most_rows,
    scores_of_row,
    together,
)
from discrete_itd.detection.distributions import CellDistribution, Expected, with_missing
from discrete_itd.detection.score import Scorer
from discrete_itd.encoders import ABSENT, PRESENT, Continuous
from discrete_itd.progress import progress_bar

PRIOR = 0.5  # probability that a row has a wrong cell: who asks why has a reason to ask
LEAST_NATS = 0.05  # above the expectation; a sentence rounds fewer to nothing
LEAST = 1e-9  # the smallest probability that a float32 softmax can tell from zero
MOST_CELLS = 256  # of a row that are asked about one by one: all cells, except in very wide tables
RIVALS = 3  # cells of a row that may be those with which a doubtful one conflicts, where a question costs many scores
RECHECKED = 6  # cells that are asked about again after a wrong one was found, where every question costs many scores
MOST_SCORES = (
    1 << 13
)  # of a row, where the model that scores is asked value by value: fewer cells in wider tables
N_FOLDS = 32  # questions by which they are chosen among more cells


class CellAssessment(NamedTuple):
    """Cells of encoded rows against the other cells of their rows: float64 arrays of shape (N, C), nats.

    All but ``entropy`` refer to encoded values, without the change of unit of continuous columns.

    Attributes
    ----------
    given_others : ndarray
        Minus log-probability of the cell given the others; 0 where it is missing.
    entropy : ndarray
        Expectation of that, in the column's unit; 0 where the cell is missing.
    marginal : ndarray
        Minus log-probability of the cell in its column, whatever the other cells; 0 where it is missing.
    error_log_odds : ndarray
        See :func:`assess`; minus infinity where the cell is missing.
    """

    given_others: np.ndarray
    entropy: np.ndarray
    marginal: np.ndarray
    error_log_odds: np.ndarray


def _batches(scorer: Scorer, x: Tensor, what: str) -> Iterator[Tensor]:
    """Batches of rows whose posteriors fit into memory in full, under a progress bar."""
    with progress_bar(len(x), what) as bar:
        for rows in x.split(most_rows(scorer)):
            yield rows
            bar.update(len(rows))


def _places(scorer: Scorer) -> list[list[int]]:
    """The internal columns of each column: that of its value, and of its missingness indicator if there is one."""
    indicators = _indicators(scorer, torch.device("cpu")).tolist()
    return [[j] if place < 0 else [j, place] for j, place in enumerate(indicators)]


def assess(scorer: Scorer, x: Tensor) -> CellAssessment:
    r"""Every cell of encoded rows against the other cells of its row: C questions of each row.

    Parameters
    ----------
    scorer : Scorer
        The score whose conditional distributions are used.
    x : Tensor of float64, shape (N, C')

    Notes
    -----
    The log-odds of an error are, up to a constant that is the same for all cells, the log-odds that the cell is wrong.
    Suppose that a wrong cell holds a value drawn from :math:`c = \tfrac12\pi + \tfrac12 u`: half the time from the
    column's marginal :math:`\pi` (as when rows are mixed up), half the time from u, which is uniform over the
    categories, or the widest Gaussian of a number's marginal (as in a typing error). Then by Bayes' rule, with p the
    probability of the cell given the others,

    .. math:: \mathrm{log\ odds} = \log\frac{(1 - p(x_j))\,c(x_j)}{p(x_j)}.

    For a density, :math:`1 - p` is replaced by 1. What a new number adds to the score, where numbers repeat, is added.
    """
    parts = [_assess_batch(scorer, rows) for rows in _batches(scorer, x, "cells")]
    return CellAssessment(*map(np.concatenate, zip(*parts, strict=True)))


@torch.no_grad()
def _assess_batch(scorer: Scorer, rows: Tensor) -> CellAssessment:
    n_columns = scorer.density.encoder_.n_columns
    marginal, log_wrong = log_probs_alone(scorer.marginals, rows)
    log_p, entropy = (torch.zeros(len(rows), n_columns).to(rows) for _ in range(2))
    places = _places(scorer)
    questions = [_without(rows, own[:1], own[1:]) for own in places]
    values = Conditionals.of_each(scorer, questions, [own[0] for own in places])
    indicators = _indicator_levels(scorer, rows, [own[1] for own in places if len(own) > 1])
    for j, (own, others) in enumerate(zip(places, values, strict=True)):
        missing = rows[:, j].isnan()
        indicator = next(indicators) if len(own) > 1 else None
        cell = others.cell(j)
        log_p[:, j] = torch.where(missing, 0.0, cell.log_prob(rows[:, j].nan_to_num(0.0)))
        entropy[:, j] = _entropy(cell, indicator).to(rows)
        if indicator is None:
            entropy[:, j] = entropy[:, j].masked_fill(missing, 0.0)
        else:
            log_p[:, j] += indicator.gather(1, rows[:, own[1:]].nan_to_num(0.0).long())[:, 0]
    columns = torch.arange(n_columns, device=rows.device).expand(len(rows), -1)
    log_odds = _log_odds(scorer, rows, columns, log_p, log_wrong)
    found = -log_p, entropy, -_by_column(scorer, marginal), log_odds + _of_new(scorer, rows)
    return CellAssessment(*(t.cpu().numpy() for t in found))


@torch.no_grad()
def nats_given_others(scorer: Scorer, x: Tensor, columns: Sequence[int]) -> np.ndarray:
    """``given_others`` of :class:`CellAssessment` for some columns, (N, c), without what costs more than that."""
    every = _places(scorer)
    places = [every[j] for j in columns]
    indicators = [own[1] for own in places if len(own) > 1]
    parts = [x.new_zeros(0, len(places))]
    for rows in _batches(scorer, x, "columns"):
        questions = [_without(rows, own[:1], own[1:]) for own in places]
        cells = [_only(rows, own[:1]) for own in places]
        found = _log_prob_of_each(scorer, questions, cells)
        nats = -torch.stack([t[:, own[0]] for t, own in zip(found, places, strict=True)], 1)
        levels = _indicator_levels(scorer, rows, indicators)
        for i, own in enumerate(places):
            if len(own) > 1:
                nats[:, i] -= next(levels).gather(1, rows[:, own[1:]].long())[:, 0]
        parts.append(nats)
    return torch.cat(parts).cpu().numpy()


def _of_new(scorer: Scorer, rows: Tensor) -> Tensor:
    """The nats of whether numbers are new, where numbers repeat: (B, C), 0 of all others."""
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
    """Log-odds of an error, (B, m), of the cells in some columns (B, m) of each row, without what new numbers add.

    ``log_p`` are their log-probabilities (B, m); ``log_wrong`` those of all internal columns if wrong, (B, C').
    """
    is_density = torch.zeros(rows.shape[1], dtype=torch.bool, device=rows.device)
    is_density[scorer.conditional.codebook.reals] = True
    missing = rows.gather(1, columns).isnan()
    others = (-torch.expm1(log_p)).clamp_min(LEAST).log()
    others = others.masked_fill(is_density[columns] & ~missing, 0.0)  # any number might be there
    odds = others - log_p + _by_column(scorer, log_wrong).gather(1, columns)
    return odds.masked_fill(missing & (_indicators(scorer, rows.device)[columns] < 0), -math.inf)


def log_probs_alone(marginals: Posterior, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log-probability of each cell in its column, and if it is wrong: float64, (B, C) each, nats; 0 where missing.

    A wrong cell is drawn from :math:`\tfrac12\pi + \tfrac12 u`: half the time from the column's marginal
    :math:`\pi` (as when rows are mixed up), half the time from u, which is uniform over the categories, or the widest
    Gaussian of a number's marginal (as in a typing error).

    Parameters
    ----------
    marginals : Posterior
        Independent columns, one row.
    x : Tensor of float64, shape (B, C)
    """
    book = marginals.codebook
    alone = marginals.expand(len(x)).log_prob(x).double()
    log_uniform = torch.tensor([-math.log(c.n_points or 1) for c in book.columns]).to(x)
    uniform = log_uniform.expand(x.shape).clone()
    if marginals.gaussian is not None:
        q = marginals.gaussian
        widest = GaussianPosterior(*(t[:, :, -1:] for t in (q.log_weight, q.means, q.var)))
        uniform[:, book.reals] = widest.log_prob(x[:, book.reals].to(book.dtype)).double()
    wrong = torch.logaddexp(alone, uniform) - math.log(2)
    return alone, torch.where(x.isnan(), 0.0, wrong)


class Doubtful(NamedTuple):
    """The cells of encoded rows that are more likely wrong than right, at most k of each row, one after the other.

    All arrays have shape (N, k); NaN, or None, where a row has no further cell.

    Attributes
    ----------
    cells : ndarray of int64
        Columns of the cells, the most doubtful first; -1 where there is none.
    probability : ndarray of float64
        That the cell is wrong: above one half.
    nats, expected_nats : ndarray of float64
        Surprisal of the cell given the others, and its expectation, in the unit of the column.
    expected : Expected
        The most probable value of each of these cells, with its probability; what is returned of a column has its own
        type.
    rivals : ndarray of int64, shape (N, r)
        Columns of the cells with the largest log-odds of an error, in any order, where the model that scores is asked
        value by value: a doubtful cell may conflict with these.
    """

    cells: np.ndarray
    probability: np.ndarray
    nats: np.ndarray
    expected_nats: np.ndarray
    expected: Expected
    rivals: np.ndarray

    @classmethod
    def blank(cls, n: int, k: int, n_rivals: int) -> Doubtful:
        """No cells of n rows."""
        numbers, values = np.full((4, n, k), math.nan), np.full((3, n, k), None, dtype=object)
        expected = Expected(values[0], numbers[0], values[1], values[2])
        cells = np.full((n, k), -1, dtype=np.int64)
        rivals = np.zeros((n, n_rivals), dtype=np.int64)
        return cls(cells, numbers[1], numbers[2], numbers[3], expected, rivals)

    def of(self, rows: slice) -> Doubtful:
        """A view of some rows."""
        cells, probability, nats, expected_nats = (t[rows] for t in self[:4])
        expected = Expected._make(t[rows] for t in self.expected)
        return Doubtful(cells, probability, nats, expected_nats, expected, self.rivals[rows])


@torch.no_grad()
def most_doubtful(
    scorer: Scorer, x: Tensor, log_volume: np.ndarray, k: int, prior: float = PRIOR
) -> Doubtful:
    r"""The most probable set of at most k wrong cells of each row, found one by one.

    Parameters
    ----------
    scorer : Scorer
    x : Tensor of float64, shape (N, C')
        Encoded rows.
    log_volume : ndarray of float64, shape (N, C')
        See :class:`~discrete_itd.encoders.Rows`.
    k : int
    prior : float
        Probability that a row has a wrong cell, which is equally likely to be any of those that are not given.

    Notes
    -----
    A cell is wrong rather than right with the log-odds of :func:`assess` plus
    :math:`\log\frac{\mathrm{prior}}{(1 - \mathrm{prior})\,C}`. The cell with the largest ones is the first, if they are
    positive. It is then taken as unknown, and the others are asked again: what only conflicted with it is no longer in
    doubt, and what is still more likely wrong than right is the next. Cells whose surprisal is not at least
    ``LEAST_NATS`` above its expectation, as where all values are improbable, are passed over. Where the model that
    scores is asked value by value, a cell that was found is not unknown but has its predicted value, and only the
    ``RECHECKED`` cells with the largest log-odds are asked about again.

    Only :func:`candidates` are asked about: a row costs at most ``N_FOLDS`` + k ``MOST_CELLS`` questions of the model,
    twice as many with missingness indicators, however many columns there are.
    """
    free = [j for j in range(scorer.density.encoder_.n_columns) if j not in scorer.given]
    shift = math.log(prior / (1 - prior) / len(free))
    n_rivals = min(RIVALS + 1, len(free)) if by_enumeration(scorer) else 0
    found = Doubtful.blank(len(x), k, n_rivals)
    n = max(1, most_rows(scorer) // min(len(free), MOST_CELLS))
    with progress_bar(len(x), "cells") as bar:
        for start in range(0, len(x), n):
            batch = slice(start, start + n)
            columns = candidates(scorer, x[batch], free)
            _fill_batch(scorer, x[batch], columns, log_volume[batch], shift, found.of(batch))
            bar.update(len(x[batch]))
    return found


@torch.no_grad()
def candidates(scorer: Scorer, rows: Tensor, among: Sequence[int]) -> Tensor:
    """The cells of each row that may be wrong: columns (B, m) of those ``among`` which they are sought, in their order.

    All of them, if they are at most ``MOST_CELLS`` and, where the model that scores is asked value by value, cost
    ``MOST_SCORES`` or fewer scores a row. Of more, those with the largest log-odds of an error where the
    cells are predicted not one by one but every ``N_FOLDS``-th together, from all the others: ``N_FOLDS`` questions of
    a row.
    """
    columns = torch.tensor(among, device=rows.device).expand(len(rows), -1)
    most = MOST_CELLS
    if scores := scores_of_row(scorer):
        most = max(RECHECKED, min(most, MOST_SCORES * len(scorer.schema) // scores))
    if len(among) <= most:
        return columns
    leading = rows.masked_fill(~scorer.conditional.codebook.leading, math.nan)
    places, log_p = _places(scorer), torch.zeros_like(rows)
    for fold in range(N_FOLDS):
        own = [places[j] for j in among[fold::N_FOLDS]]
        values, indicators = [p[0] for p in own], [i for p in own for i in p[1:]]
        known = _without(rows, values, indicators)
        log_p += _log_prob(scorer, known, _only(rows, values), quick=True)
        if indicators:
            known = leading.index_fill(1, torch.tensor(indicators).to(rows.device), math.nan)
            log_p += _log_prob(scorer, known, _only(rows, indicators), quick=True)
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
    """Write the cells of a batch of B rows, of candidates (B, m), to ``out``."""
    places, log_wrong = _places(scorer), log_probs_alone(scorer.marginals, rows)[1]
    new = _of_new(scorer, rows).cpu().numpy()
    left, among, repaired = np.arange(len(rows)), columns.cpu().numpy(), rows.clone()
    for rank in range(out.cells.shape[1]):
        if by_enumeration(scorer):
            known = repaired[left]
        else:
            known = _taken_as_unknown(scorer, rows[left], out.cells[left, :rank])
        asked_of = torch.from_numpy(among).to(rows.device)
        found = _error_log_odds(scorer, rows[left], known, asked_of, log_wrong[left])
        log_odds, log_p = (t.cpu().numpy() for t in found)
        log_odds += shift + np.take_along_axis(new[left], among, 1)
        if not rank and out.rivals.shape[1]:
            order = np.argsort(-log_odds, axis=1, kind="stable")[:, : out.rivals.shape[1]]
            out.rivals[:] = np.take_along_axis(among, order, 1)
        for found_before in out.cells[left, :rank].T:
            log_odds[among == found_before[:, None]] = -math.inf
        asked = np.arange(len(left))  # whose next cell is looked for
        while len(asked := asked[log_odds[asked].max(1) > 0]):
            best = log_odds[asked].argmax(1)
            cells = among[asked, best]
            passed_over = []
            for j in np.unique(cells):
                i, place = asked[cells == j], best[cells == j]
                row = left[i]
                at, indicator = torch.from_numpy(i).to(rows.device), None
                if len(places[j]) > 1:
                    (indicator,) = _indicator_levels(scorer, known[at], [places[j][1]])
                own = _without(known[at], places[j][:1], places[j][1:])
                cell = _cell(scorer, own, int(j))
                entropy = _entropy(cell, indicator).cpu().numpy()
                nats = -log_p[i, place] - log_volume[row, j]
                keep = nats - entropy >= LEAST_NATS
                passed_over.append(i[~keep])
                odds = log_odds[i, place][keep]
                log_odds[i[~keep], place[~keep]] = -math.inf
                out.cells[row[keep], rank] = j
                whole = _repaired(repaired[row], places[j], cell, indicator)
                repaired[row[keep]] = whole[torch.from_numpy(keep).to(rows.device)]
                out.probability[row[keep], rank] = 1 / (1 + np.exp(-odds))
                out.nats[row[keep], rank] = nats[keep]
                out.expected_nats[row[keep], rank] = entropy[keep]
                expected = _expected(cell, indicator, 1)
                for all_cells, told in zip(out.expected, expected, strict=True):
                    all_cells[row[keep], rank] = told[keep, 0]
            asked = np.concatenate(passed_over)
        more = out.cells[left, rank] >= 0
        left, among = left[more], among[more]
        if not len(left):
            return
        if by_enumeration(scorer):
            order = np.argsort(-log_odds[more], axis=1, kind="stable")[:, :RECHECKED]
            among = np.take_along_axis(among, np.sort(order, axis=1), 1)


def _repaired(
    rows: Tensor, place: Sequence[int], cell: CellDistribution, indicator: Tensor | None
) -> Tensor:
    """The rows (B, C') with the predicted values of one column, whose internal columns are at ``place``."""
    out = rows.clone()
    out[:, place[0]] = cell.central().to(rows)
    if indicator is not None:
        missing = indicator[:, int(PRESENT)] < -math.log(2)
        out[:, place[0]] = out[:, place[0]].masked_fill(missing, math.nan)
        out[:, place[1]] = torch.where(missing, ABSENT, PRESENT).to(rows)
    return out


@torch.no_grad()
def ranked(scorer: Scorer, x: Tensor, among: Sequence[int], k: int | None) -> np.ndarray:
    """Columns (N, k) of the cells of rows with the largest log-odds of an error, the largest first.

    Of the columns ``among``: all with k None, at N questions for each; otherwise of :func:`candidates`.
    """
    out = []
    for rows in _batches(scorer, x, "cells"):
        columns = torch.tensor(among, device=rows.device).expand(len(rows), -1)
        columns = columns if k is None else candidates(scorer, rows, among)
        new = _of_new(scorer, rows)
        log_wrong = log_probs_alone(scorer.marginals, rows)[1]
        log_odds = _error_log_odds(scorer, rows, rows, columns, log_wrong)[0]
        log_odds = (log_odds + new.gather(1, columns)).cpu().numpy()
        order = np.argsort(-log_odds, axis=1, kind="stable")[:, :k]
        out.append(np.take_along_axis(columns.cpu().numpy(), order, 1))
    return np.concatenate(out)


@torch.no_grad()
def predictions(scorer: Scorer, x: Tensor, cells: np.ndarray, n_values: int) -> Expected:
    """The most probable values of some cells given the others of their rows: arrays (N, k, n).

    The cells are in columns ``cells`` (N, k) of rows ``x`` (N, C').
    """
    shape = (*cells.shape, n_values)
    values = np.full((3, *shape), None, dtype=object)
    out = Expected(values[0], np.full(shape, math.nan), values[1], values[2])
    places, order = _places(scorer), np.argsort(cells.ravel(), kind="stable")
    columns, counts = np.unique(cells, return_counts=True)
    for j, own in zip(columns, np.split(order, counts.cumsum()[:-1]), strict=True):
        for at in np.split(own, range(most_rows(scorer), len(own), most_rows(scorer))):
            row, rank = np.unravel_index(at, cells.shape)
            rows, indicator = x[torch.from_numpy(row).to(x.device)], None
            if len(places[j]) > 1:
                (indicator,) = _indicator_levels(scorer, rows, [places[j][1]])
            cell = _cell(scorer, _without(rows, places[j][:1], places[j][1:]), int(j))
            for all_cells, found in zip(out, _expected(cell, indicator, n_values), strict=True):
                all_cells[row, rank] = found
    return out


def _expected(cell: CellDistribution, indicator: Tensor | None, n_values: int) -> Expected:
    """Predictions of a cell; with log-probabilities (B, 2) of its being present or missing."""
    present = None if indicator is None else indicator[:, int(PRESENT)]
    return with_missing(cell.expected(n_values), present, n_values)


def _entropy(cell: CellDistribution, indicator: Tensor | None) -> Tensor:
    """Expected surprisal of a cell, (B,), nats; with log-probabilities (B, 2) of its being present or missing."""
    entropy = torch.from_numpy(cell.entropy())
    if indicator is None:
        return entropy
    of_indicator = -(indicator.exp() * indicator).sum(1)
    return of_indicator + indicator[:, int(PRESENT)].exp() * entropy.to(indicator)


def _taken_as_unknown(scorer: Scorer, rows: Tensor, cells: np.ndarray) -> Tensor:
    """The rows (B, C') without the cells at positions (B, r): their values, or that they are missing."""
    known = rows.clone()
    wrong = torch.zeros(len(rows), scorer.density.encoder_.n_columns, dtype=torch.bool)
    wrong.scatter_(1, torch.from_numpy(cells), True)
    owner = torch.from_numpy(scorer.density.encoder_.owner)
    wrong = wrong[:, owner].to(rows.device)
    missing = rows[:, owner.to(rows.device)].isnan()
    is_value = torch.arange(rows.shape[1], device=rows.device) < scorer.density.encoder_.n_columns
    return known.masked_fill(wrong & (is_value | missing), math.nan)


def _error_log_odds(
    scorer: Scorer, rows: Tensor, known: Tensor, columns: Tensor, log_wrong: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-odds of an error and log-probabilities, (B, m) each, of the cells in some columns (B, m) of each row.

    They are predicted from what is ``known`` of the rows; ``log_wrong`` is of all cells (B, C'). What numbers that were
    never seen add is left out.
    """
    parts = [rows.new_zeros(len(rows), 0)]
    for some in columns.split(max(1, most_rows(scorer) // max(1, len(rows))), 1):
        at, row = some.T.reshape(-1, 1), torch.arange(len(rows), device=rows.device)
        row = row.repeat(some.shape[1])
        question, cells = _without_each(scorer, known, some), _only_each(rows[row], at)
        log_p = _log_prob(scorer, question, cells).gather(1, at)
        place = _indicators(scorer, rows.device)[at]
        there = torch.nonzero(place[:, 0] >= 0).flatten()
        if len(there):
            place, row = place[there], row[there]
            leading = known.masked_fill(~scorer.conditional.codebook.leading, math.nan)[row]
            question, cells = leading.scatter(1, place, math.nan), _only_each(rows[row], place)
            log_p[there] += _log_prob(scorer, question, cells).gather(1, place)
        parts.append(log_p.view(some.T.shape).T)
    log_p = torch.cat(parts, 1)
    return _log_odds(scorer, rows, columns, log_p, log_wrong), log_p


def _without_each(scorer: Scorer, rows: Tensor, columns: Tensor) -> Tensor:
    """The rows without one cell each, given that it is present: (m B, C'), for columns (B, m), the first ones first."""
    at = columns.T.reshape(-1, 1)
    known = rows.repeat(columns.shape[1], 1).scatter_(1, at, math.nan)
    place = _indicators(scorer, rows.device)[at[:, 0]]
    there = torch.nonzero(place >= 0).flatten()
    known[there, place[there]] = PRESENT
    return known


def _only_each(rows: Tensor, columns: Tensor) -> Tensor:
    """The rows with no cells but those of their own columns (B, k)."""
    return torch.full_like(rows, math.nan).scatter_(1, columns, rows.gather(1, columns))


def _log_prob(
    scorer: Scorer, known: Tensor, cells: Tensor, *, quick: bool = False, coarse: bool = False
) -> Tensor:
    """Log-probabilities of ``cells`` given what is ``known`` of their rows, (B, C') each, nats; 0 where NaN."""
    asked = ~cells.isnan()
    return Conditionals(scorer, known, asked=asked, quick=quick, coarse=coarse).log_prob(cells)


def _cell(scorer: Scorer, known: Tensor, j: int) -> CellDistribution:
    """Distributions of the cells of column j given what is ``known`` of their rows (B, C')."""
    return next(Conditionals.of_each(scorer, [known], [j])).cell(j)


def _log_prob_of_each(
    scorer: Scorer, questions: Sequence[Tensor], cells: Sequence[Tensor]
) -> Iterator[Tensor]:
    """Log-probabilities of some cells given others, (B, C') nats, for pairs of ``known`` and ``cells`` (B, C') each.

    0 where no cell is asked for, which is NaN in ``cells``.
    """
    done = 0
    for some in together(scorer, questions):
        asked = torch.cat(list(cells[done : done + len(some)]))
        found = _log_prob(scorer, torch.cat(some), asked)
        yield from found.split(len(some[0]))
        done += len(some)


def _only(x: Tensor, columns: list[int]) -> Tensor:
    """The rows with no cells but those of some columns."""
    out = torch.full_like(x, math.nan)
    out[:, columns] = x[:, columns]
    return out


def _indicator_levels(scorer: Scorer, rows: Tensor, indicators: list[int]) -> Iterator[Tensor]:
    """Log-probabilities of present and missing given the other indicators, of each of some indicators."""
    if not indicators:
        return
    leading = rows.masked_fill(~scorer.conditional.codebook.leading, math.nan)
    questions = []
    for place in indicators:
        known = leading.clone()
        known[:, place] = math.nan
        questions.append(known)
    found = Conditionals.of_each(scorer, questions, indicators)
    for place, others in zip(indicators, found, strict=True):
        yield others.levels(place)


def _without(rows: Tensor, values: Sequence[int], indicators: Sequence[int]) -> Tensor:
    """The rows without the values of some cells, given that these are present."""
    known = rows.clone()
    known[:, values] = math.nan
    known[:, indicators] = PRESENT
    return known


@torch.no_grad()
def conflicts_by_scores(
    scorer: Scorer, x: Tensor, cells: np.ndarray, rivals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`conflicts`, under the model that scores where it is asked value by value.

    The other cell is the one of the ``rivals`` (N, r) of a row whose predicted value, in its place, decreases the
    surprisal of the cell given all others most; by how much are the nats. No cell is -1 in ``cells``.
    """
    other, nats = rivals[:, :1].repeat(cells.shape[1], 1), np.zeros(cells.shape)
    places, n = _places(scorer), rivals.shape[1]
    with progress_bar(len(x), "pairs") as bar:
        done = 0
        for rows in x.split(max(1, most_rows(scorer) // n)):
            batch = slice(done, done + len(rows))
            at = torch.from_numpy(rivals[batch].T.reshape(-1)).to(x.device)
            repaired = rows.repeat(n, 1)
            for j in at.unique().tolist():
                which = torch.nonzero(at == j).flatten()
                known, indicator = repaired[which], None
                if len(places[j]) > 1:
                    (indicator,) = _indicator_levels(scorer, known, [places[j][1]])
                cell = _cell(scorer, _without(known, places[j][:1], places[j][1:]), j)
                repaired[which] = _repaired(known, places[j], cell, indicator)
            every = torch.cat([rows, repaired])
            for rank in range(cells.shape[1]):
                i = np.flatnonzero(cells[batch, rank] >= 0)
                own, place = cells[batch][i, rank], torch.from_numpy(i).to(x.device)
                some = every.view(n + 1, len(rows), -1)[:, place].flatten(0, 1)
                column = torch.from_numpy(own).to(x.device).repeat(n + 1)[:, None]
                question = _without_each(scorer, some, column)
                values = _only_each(rows[place].repeat(n + 1, 1), column)
                log_p = _log_prob(scorer, question, values, coarse=True).gather(1, column)
                log_p = log_p.view(n + 1, len(i)).T.cpu().numpy()
                gain = log_p[:, 1:] - log_p[:, :1]
                gain[rivals[batch][i] == own[:, None]] = -math.inf
                best = gain.argmax(1)
                other[done + i, rank] = rivals[done + i, best]
                nats[done + i, rank] = np.maximum(gain.max(1), 0.0)
            done += len(rows)
            bar.update(len(rows))
    return other, nats


def conflicts(scorer: Scorer, x: Tensor, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other cell that increases a cell's surprisal most, as a column, and by how much, in nats.

    Both of the shape of ``cells``, which are columns (N, k) of encoded rows ``x`` (N, C'); at most 0 nats if no cell
    does.

    The other cell is sought among all, or in tables of more than ``MOST_CELLS`` columns among as many cells, those
    whose own surprisal the cells of the row increase most: under a joint distribution, two cells increase each other's
    by the same amount. So a row costs at most k + ``MOST_CELLS`` questions, twice as many with missingness indicators.
    """
    n_columns = scorer.density.encoder_.n_columns
    all_columns = torch.arange(n_columns, device=x.device)
    most, done = min(n_columns, MOST_CELLS), 0
    other, nats = np.zeros_like(cells), np.zeros(cells.shape)
    with progress_bar(len(x), "pairs") as bar:
        for rows in x.split(most_rows(scorer, most * n_columns)):
            batch = slice(done, done + len(rows))
            own = torch.from_numpy(cells[batch]).to(x.device)
            others = all_columns.expand(len(rows), -1)
            if n_columns > MOST_CELLS:
                others = _largest(_changes(scorer, rows, own, rows).amax(1), most)
            place = _indicators(scorer, x.device)[own]
            asked = _only_each(rows, torch.cat([own, torch.where(place < 0, own, place)], 1))
            changes = _changes(scorer, rows, others, asked)
            changes = changes.gather(2, own[:, None].expand(-1, most, -1)).cpu().numpy()
            best = changes.argmax(1)
            other[batch] = np.take_along_axis(others.cpu().numpy(), best, 1)
            nats[batch] = changes.max(1)
            done += len(rows)
            bar.update(len(rows))
    return other, nats


@torch.no_grad()
def _changes(scorer: Scorer, x: Tensor, given: Tensor, asked: Tensor) -> Tensor:
    """By how much each cell in ``given`` columns (B, m), alone, changes the surprisal of each cell: (B, m, C), nats.

    Only of the cells that are not NaN in ``asked`` (B, C'); 0 for the others, and for a cell and itself.
    """
    leading, indicators = scorer.conditional.codebook.leading, _indicators(scorer, x.device)
    out = x.new_zeros(*given.shape, scorer.density.encoder_.n_columns)
    if not out.numel():
        return out
    # the indicators come first, so they are known where a value is predicted
    known = torch.full_like(x, math.nan), x.masked_fill(~leading, math.nan)
    cells = asked.masked_fill(~leading, math.nan), asked.masked_fill(leading, math.nan)
    alone = [_log_prob(scorer, k, c, quick=True) for k, c in zip(known, cells, strict=True)]

    def changed(part: int, row: Tensor, place: Tensor) -> Tensor:
        """Changes (Q, C') of indicators (part 0) or values (1) of each ``row`` (Q,) by its cell at ``place`` (Q, 1)."""
        both = known[part][row].scatter_(1, place, x[row].gather(1, place))
        asked = cells[part][row].scatter_(1, place, math.nan)
        found = _log_prob(scorer, both, asked, quick=True)
        return (alone[part][row] - found).scatter_(1, place, 0.0)

    step = max(1, most_rows(scorer) // len(x))
    for start in range(0, given.shape[1], step):
        at = given[:, start : start + step].T.reshape(-1, 1)
        row = torch.arange(len(x), device=x.device).repeat(len(at) // len(x))
        changes, place = changed(1, row, at), indicators[at]
        there = torch.nonzero(place[:, 0] >= 0).flatten()
        if len(there):
            changes[there] += changed(0, row[there], place[there])
        changes = _by_column(scorer, changes).scatter_(1, at, 0.0)
        out[:, start : start + step] = changes.view(-1, *out[:, 0].shape).transpose(0, 1)
    return out
