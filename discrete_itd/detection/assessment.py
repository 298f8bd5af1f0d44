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
from discrete_itd.detection.conditionals import Conditionals, most_rows, together
from discrete_itd.detection.distributions import CellDistribution, Expected, with_missing
from discrete_itd.detection.scoring import Scorer
from discrete_itd.encoders import PRESENT
from discrete_itd.progress import progress_bar

PRIOR = 0.5  # probability that a row has a wrong cell: who asks why has a reason to ask
LEAST_NATS = 0.05  # above the expectation; a sentence rounds fewer to nothing
LEAST = 1e-9  # the smallest probability that a float32 softmax can tell from zero


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
    expected : list of Expected, length C
        Predictions from the other cells; empty if none were requested.
    """

    given_others: np.ndarray
    entropy: np.ndarray
    marginal: np.ndarray
    error_log_odds: np.ndarray
    expected: list[Expected]


def _batches(scorer: Scorer, x: Tensor, what: str) -> Iterator[Tensor]:
    """Batches of rows whose posteriors fit into memory in full, under a progress bar."""
    with progress_bar(len(x), what) as bar:
        for rows in x.split(most_rows(scorer)):
            yield rows
            bar.update(len(rows))


def _places(scorer: Scorer) -> list[list[int]]:
    """The internal columns of each column: that of its value, and of its missingness indicator if there is one."""
    owner = scorer.density.encoder_.owner
    return [np.flatnonzero(owner == j).tolist() for j in range(scorer.density.encoder_.n_columns)]


def assess(scorer: Scorer, x: Tensor, n_values: int = 0) -> CellAssessment:
    r"""Every cell of encoded rows against the other cells of its row, computed a batch of rows at a time.

    Parameters
    ----------
    scorer : Scorer
        The score whose conditional distributions are used.
    x : Tensor of float64, shape (N, C')
    n_values : int
        How many predicted values to return for every cell; 0 for none.

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
    parts = []
    for rows in _batches(scorer, x, "cells"):
        parts.append(_assess_batch(scorer, rows, n_values))
    expected = [
        Expected(*map(np.concatenate, zip(*of_column, strict=True)))
        for of_column in zip(*(p.expected for p in parts), strict=True)
    ]
    given, entropy, marginal, odds = map(np.concatenate, zip(*(p[:4] for p in parts), strict=True))
    return CellAssessment(given, entropy, marginal, odds, expected)


@torch.no_grad()
def _assess_batch(scorer: Scorer, rows: Tensor, n_values: int) -> CellAssessment:
    encoder = scorer.density.encoder_
    marginal, log_wrong = log_probs_alone(scorer.marginals, rows)
    shape = len(rows), encoder.n_columns
    given, entropy, log_odds = (torch.zeros(shape).to(rows) for _ in range(3))
    expected = []
    places = _places(scorer)
    values = Conditionals.of_each(scorer, [_without(rows, own) for own in places])
    indicators = _indicator_levels(scorer, rows, [own[1] for own in places if len(own) > 1])
    for j, (own, others) in enumerate(zip(places, values, strict=True)):
        missing = rows[:, j].isnan()
        indicator = next(indicators) if len(own) > 1 else None
        cell = others.cell(j)
        log_p = torch.where(missing, 0.0, cell.log_prob(rows[:, j].nan_to_num(0.0)))
        entropy[:, j] = _entropy(cell, indicator).to(rows)
        if indicator is not None:
            log_p = log_p + indicator.gather(1, rows[:, own[1:]].nan_to_num(0.0).long())[:, 0]
        given[:, j] = -log_p
        log_odds[:, j] = _log_odds(log_p, log_wrong[:, own], missing, cell.is_density)
        if indicator is None:
            entropy[:, j] = entropy[:, j].masked_fill(missing, 0.0)
        if n_values:
            present = None if indicator is None else indicator[:, int(PRESENT)]
            expected.append(with_missing(cell.expected(n_values), present, n_values))
    owner = torch.from_numpy(encoder.owner).to(rows.device)
    alone = -add_at(torch.zeros_like(given), 1, owner, marginal)
    own, mean, base, odds = (t.cpu().numpy() for t in (given, entropy, alone, log_odds))
    return CellAssessment(own, mean, base, odds + _of_new(scorer, rows), expected)


@torch.no_grad()
def nats_given_others(scorer: Scorer, x: Tensor, columns: Sequence[int]) -> np.ndarray:
    """``given_others`` of :class:`CellAssessment` for some columns, (N, c), without what costs more than that."""
    places = [_places(scorer)[j] for j in columns]
    indicators = [own[1] for own in places if len(own) > 1]
    parts = [x.new_zeros(0, len(places))]
    for rows in _batches(scorer, x, "columns"):
        questions = [_without(rows, own) for own in places]
        cells = [_only(rows, own[:1]) for own in places]
        found = _log_prob_of_each(scorer, questions, cells)
        nats = -torch.stack([t[:, own[0]] for t, own in zip(found, places, strict=True)], 1)
        levels = _indicator_levels(scorer, rows, indicators)
        for i, own in enumerate(places):
            if len(own) > 1:
                nats[:, i] -= next(levels).gather(1, rows[:, own[1:]].long())[:, 0]
        parts.append(nats)
    return torch.cat(parts).cpu().numpy()


def _of_new(scorer: Scorer, rows: Tensor) -> np.ndarray | float:
    """The nats, (B, C), of whether numbers are new, where numbers repeat."""
    return 0.0 if scorer.repeats is None else scorer.repeats.nats(rows)


def _log_odds(log_p: Tensor, log_wrong: Tensor, missing: Tensor, is_density: bool) -> Tensor:
    """Log-odds of an error, (B,), of cells of one column: their log-probabilities (B,), those if wrong (B, 1 or 2)."""
    others = (-torch.expm1(log_p)).clamp_min(LEAST).log()
    if is_density:  # any other number might have been there
        others = torch.where(missing, others, 0.0)
    odds = others - log_p + log_wrong.sum(1)
    return odds if log_wrong.shape[1] > 1 else odds.masked_fill(missing, -math.inf)


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
    """

    cells: np.ndarray
    probability: np.ndarray
    nats: np.ndarray
    expected_nats: np.ndarray
    expected: Expected

    @classmethod
    def blank(cls, n: int, k: int) -> Doubtful:
        """No cells of n rows."""
        numbers, values = np.full((4, n, k), math.nan), np.full((3, n, k), None, dtype=object)
        expected = Expected(values[0], numbers[0], values[1], values[2])
        cells = np.full((n, k), -1, dtype=np.int64)
        return cls(cells, numbers[1], numbers[2], numbers[3], expected)

    def of(self, rows: slice) -> Doubtful:
        """A view of some rows."""
        cells, probability, nats, expected_nats = (t[rows] for t in self[:4])
        expected = Expected._make(t[rows] for t in self.expected)
        return Doubtful(cells, probability, nats, expected_nats, expected)


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
        Probability that a row has a wrong cell, which is equally likely to be any of the C that are not given.

    Notes
    -----
    A cell is wrong rather than right with the log-odds of :func:`assess` plus
    :math:`\log\frac{\mathrm{prior}}{(1 - \mathrm{prior})\,C}`. The cell with the largest ones is the first, if they are
    positive. It is then taken as unknown, and the others are asked again: what only conflicted with it is no longer in
    doubt, and what is still more likely wrong than right is the next. Cells whose surprisal is not at least
    ``LEAST_NATS`` above its expectation, as where all values are improbable, are passed over.
    """
    n = max(1, most_rows(scorer) // scorer.density.encoder_.n_columns)
    n_free = scorer.density.encoder_.n_columns - len(scorer.given)
    shift = math.log(prior / (1 - prior) / n_free)
    found = Doubtful.blank(len(x), k)
    with progress_bar(len(x), "cells") as bar:
        for start in range(0, len(x), n):
            batch = slice(start, start + n)
            _fill_batch(scorer, x[batch], log_volume[batch], shift, found.of(batch))
            bar.update(len(x[batch]))
    return found


def _fill_batch(
    scorer: Scorer, rows: Tensor, log_volume: np.ndarray, shift: float, out: Doubtful
) -> None:
    """Write the cells of a batch of B rows to ``out``; what predicts a cell is asked once for all that is said."""
    places = _places(scorer)
    new = np.zeros((len(rows), len(places))) + _of_new(scorer, rows)
    left = np.arange(len(rows))
    for rank in range(out.cells.shape[1]):
        known = _taken_as_unknown(scorer, rows[left], out.cells[left, :rank])
        whole = Conditionals(scorer, torch.cat([_without(known, own) for own in places]))
        log_odds, log_p = _error_log_odds(scorer, rows[left], known, whole)
        log_odds += shift + new[left]
        log_odds[:, list(scorer.given)] = -math.inf  # what is given is not in question
        np.put_along_axis(log_odds, out.cells[left, :rank], -math.inf, 1)  # nor is what was found
        asked = np.arange(len(left))  # whose next cell is looked for
        while len(asked := asked[log_odds[asked].max(1) > 0]):
            cells = log_odds[asked].argmax(1)
            passed_over = []
            for j in np.unique(cells):
                i = asked[cells == j]
                row = left[i]
                at, indicator = torch.from_numpy(i).to(rows.device), None
                if len(places[j]) > 1:
                    (indicator,) = _indicator_levels(scorer, known[at], [places[j][1]])
                cell = whole.rows(j * len(known) + at).cell(j)
                entropy = _entropy(cell, indicator).cpu().numpy()
                nats = new[row, j] - log_p[i, j] - log_volume[row, j]
                keep = nats - entropy >= LEAST_NATS
                passed_over.append(i[~keep])
                log_odds[i[~keep], j] = -math.inf
                out.cells[row[keep], rank] = j
                out.probability[row[keep], rank] = 1 / (1 + np.exp(-log_odds[i[keep], j]))
                out.nats[row[keep], rank] = nats[keep]
                out.expected_nats[row[keep], rank] = entropy[keep]
                present = None if indicator is None else indicator[:, int(PRESENT)]
                expected = with_missing(cell.expected(1), present, 1)
                for all_cells, own in zip(out.expected, expected, strict=True):
                    all_cells[row[keep], rank] = own[keep, 0]
            asked = np.concatenate(passed_over)
        left = left[out.cells[left, rank] >= 0]
        if not len(left):
            return


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
    scorer: Scorer, rows: Tensor, known: Tensor, whole: Conditionals
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of an error and log-probabilities, (B, C) each, of the cells of rows.

    ``whole`` predicts the cells from what is ``known`` of the rows: (C B) questions, by column. What numbers that were
    never seen add is left out.
    """
    places, reals = _places(scorer), set(scorer.conditional.codebook.reals.tolist())
    log_wrong = log_probs_alone(scorer.marginals, rows)[1]
    values = [own[0] for own in places]
    found = whole.log_prob(torch.cat([_only(rows, [j]) for j in values])).split(len(rows))
    log_p = torch.stack([t[:, j] for t, j in zip(found, values, strict=True)], 1)
    indicators = [own[1] for own in places if len(own) > 1]
    for place, levels in zip(indicators, _indicator_levels(scorer, known, indicators), strict=True):
        j = int(scorer.density.encoder_.owner[place])
        log_p[:, j] += levels.gather(1, rows[:, [place]].long())[:, 0]
    missing = rows[:, values].isnan()
    odds = [
        _log_odds(log_p[:, j], log_wrong[:, own], missing[:, j], own[0] in reals)
        for j, own in enumerate(places)
    ]
    return torch.stack(odds, 1).cpu().numpy(), log_p.cpu().numpy()


def _log_prob_of_each(
    scorer: Scorer, questions: Sequence[Tensor], cells: Sequence[Tensor]
) -> Iterator[Tensor]:
    """Log-probabilities of some cells given others, (B, C') nats, for pairs of ``known`` and ``cells`` (B, C') each.

    0 where no cell is asked for, which is NaN in ``cells``.
    """
    done = 0
    for some in together(scorer, questions):
        asked = torch.cat(list(cells[done : done + len(some)]))
        found = Conditionals(scorer, torch.cat(some)).log_prob(asked)
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
    for place, others in zip(indicators, Conditionals.of_each(scorer, questions), strict=True):
        yield others.levels(place)


def _without(rows: Tensor, own: list[int]) -> Tensor:
    """The rows without the value of a cell, which is at ``own[0]``, given that it is present."""
    known = rows.clone()
    known[:, own[0]] = math.nan
    known[:, own[1:]] = PRESENT
    return known


def pairwise_changes(
    scorer: Scorer, x: Tensor, cells: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    r"""By how much each other cell changes a cell's surprisal: (B, C, C), nats, the last axis that of the other cell.

    :math:`\log P(x_j) - \log P(x_j \mid x_i)` of encoded rows ``x`` (N, C'), a batch of rows at a time. With
    positions of columns ``cells`` (N, k), only for these cells j of each row, and 0 for the others.
    """
    done = 0
    for rows in _batches(scorer, x, "pairs"):
        own = None if cells is None else cells[done : done + len(rows)]
        yield _pairwise_batch(scorer, rows, own)
        done += len(rows)


@torch.no_grad()
def _pairwise_batch(scorer: Scorer, x: Tensor, cells: np.ndarray | None) -> np.ndarray:
    encoder = scorer.density.encoder_
    leading = scorer.conditional.codebook.leading
    owner = torch.from_numpy(encoder.owner).to(x.device)
    out = torch.zeros(len(x), encoder.n_columns, encoder.n_columns).to(x)
    asked = x
    if cells is not None:
        wanted = torch.zeros(len(x), encoder.n_columns, dtype=torch.bool, device=x.device)
        wanted.scatter_(1, torch.from_numpy(cells).to(x.device), True)
        asked = x.masked_fill(~wanted[:, owner], math.nan)

    def log_probs(given: Sequence[Sequence[int]], of: Tensor) -> Iterator[Tensor]:
        """Log-probability of the cells of some columns, given each of several sets of others."""
        questions = [_only(x, list(columns)) for columns in given]
        # not of a cell given itself
        cells = [asked.masked_fill(~of | ~known.isnan(), math.nan) for known in questions]
        return _log_prob_of_each(scorer, questions, cells)

    def add(i: int, nats: Tensor) -> None:
        out[:, :, i] += add_at(torch.zeros_like(out[:, :, i]), 1, owner, nats)

    before = torch.nonzero(leading).flatten().tolist()
    alone, *given = log_probs([before, *([*before, i] for i in range(encoder.n_columns))], ~leading)
    for i, log_prob in enumerate(given):
        add(i, alone - log_prob)
    if before:
        alone, *given = log_probs([[], *([place] for place in before)], leading)
        for place, log_prob in zip(before, given, strict=True):
            add(int(encoder.owner[place]), alone - log_prob)
    out.diagonal(dim1=1, dim2=2).zero_()
    return out.cpu().numpy()
