r"""The judge of labels by gradient boosting: trees see all other columns together, and no row that they judge.

Its probabilities of the levels u and those of the networks are mixed by held-out log-likelihood to one
:math:`q(u \mid \mathrm{rest})`. What was meant has the law

.. math:: m_{\beta a}(u \mid \mathrm{rest}) = (1 - a)\,q^\beta(u \mid \mathrm{rest}) / \textstyle\sum_t q^\beta(t \mid
    \mathrm{rest}) + a\,p(u),

sharper than q, which learned from wrong labels, too, and with a share a of rightful exceptions, which follow the shares
p(u) of the column. The channel (25) is flat: with a share w of wrong labels, cells have the law

.. math:: (1 - w)\,m_{\beta a}(v \mid \mathrm{rest}) + w\,(1 - m_{\beta a}(v \mid \mathrm{rest})) / (L - 1),

whose second part over the whole is the probability of an error. It is averaged over the posterior of
:math:`(\beta, a, w)`: few rows cannot tell soft classes, exceptions and errors from one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from discrete_itd.cells.channel import ERRORS, EXCEPTIONS, error_share
from discrete_itd.cells.counts import count_others, share_alone, unit_weights
from discrete_itd.cells.judgement import Judged
from discrete_itd.cells.network import CellNetwork, frequent_levels
from discrete_itd.cells.views import Aspect

Floats, Ints = NDArray[np.float64], NDArray[np.int64]

FOLDS, FEWEST_UNITS = 5, 20  # and fewest rows, or groups of these, with frequent levels
# Parameters of HistGradientBoostingClassifier, chosen by the average precision of seven tables with flipped labels
# (`tests/benchmarks/flipped.py`, the tables that were open). Of many levels it grows at most TREES trees a fold, by
# fewer iterations with longer steps.
ITERATIONS, FEWEST_ITERATIONS, TREES, STEPS = 50, 15, 240, 5.0
MOST_CATEGORIES = 254  # of a feature; the rarer ones are missing
# The grid of beta, with the standard deviation of its logarithm, of a and of w.
SHARPNESS, SPREAD = np.geomspace(0.35, 4.0, 8), 0.7
EXCEPTIONAL, WRONG = np.append(0.0, np.geomspace(2e-3, 0.9, 9)), np.geomspace(5e-4, 0.5, 20)
LEAST_WEIGHT = 1e-4  # points of the grid with a smaller posterior count as none
LEAST = 1e-12  # probability of a level
# Other judges keep a column that they predict better by so many standard errors of the difference over cells.
STANDARD_ERRORS = 2.0


def judged_by_boosting(
    judged: Judged,
    view: Aspect,
    others: Sequence[Aspect],
    network: CellNetwork | None,
    column: int,
    fold: Ints,
    unit: Ints,
    expected_share: float,
) -> Judged:
    """The cells of a column of levels by boosting and a network, or as ``judged`` by others if these predict better.

    Frequent levels alone are learned; other cells and missing ones stay as they were judged. Trees do not see the
    ``fold`` (N,) that they judge.
    """
    codes, level_of_codes = frequent_levels(view.codes)
    are_values = np.flatnonzero(~np.isin(codes, view.codes[view.absent]))
    often, level = codes[are_values], np.full(len(codes) + 1, len(are_values))
    level[are_values] = np.arange(len(often))
    level = level[level_of_codes]
    known = level < len(often)
    if not others or len(often) < 2 or len(np.unique(unit[known])) < FEWEST_UNITS:
        return judged
    alone, _ = share_alone(view.codes, unit)
    floor = alone / (1 + count_others(view.codes, unit))
    judges = [_boosted(level, known, len(often), _features(others), fold)]
    if network is not None and column in network.columns:
        p = np.maximum(network.levels(column)[:, are_values], LEAST)
        judges.append(p / p.sum(1, keepdims=True))
    rows = np.flatnonzero(known)
    own = np.column_stack([np.maximum(p[rows, level[rows]], floor[rows]) for p in judges])
    once = unit_weights(view.codes, unit)[rows]
    # a prior of one cell: a judge that says little must not dilute the other
    weights = error_share(own, np.full(len(rows), 1 / len(often)), once, 1.0)[1][:-1]
    p = np.tensordot(weights / weights.sum(), np.stack(judges), 1)
    wrong, log_p = probability_wrong(p[rows], level[rows], alone[rows], once, expected_share)
    lead = np.log(judged.without(rows, -1)) - log_p
    if once @ lead > STANDARD_ERRORS * np.sqrt(once.sum() * np.cov(lead, aweights=once)):
        return judged
    cells = judged.wrong.copy()
    cells[rows] = wrong

    def expected(asked: Ints) -> tuple[Ints, Floats, None]:
        rivals, has_level = p[asked].copy(), np.flatnonzero(known[asked])
        rivals[has_level, level[asked][has_level]] = 0
        best = rivals.argmax(1)
        share = rivals.max(1) / np.maximum(rivals.sum(1), LEAST)
        return often[best], share * np.where(known, cells, 1.0)[asked], None

    return judged._replace(wrong=cells, expected=expected, columns=())


def _features(others: Sequence[Aspect]) -> tuple[Floats, NDArray[np.bool_]]:
    """Other columns as features (N, C), numbers and times by their ranks, and which are categories.

    Their order follows from what is in them.
    """
    features = []
    for other in others:
        counts = np.bincount(other.codes)
        rank = other.places
        if rank is None:
            rank = np.empty(len(counts))
            rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
            rank[rank >= MOST_CATEGORIES] = np.nan
        values = rank[other.codes].astype(float)
        values[other.absent] = np.nan
        features.append(values)
    places = [np.arange(len(values)) @ np.nan_to_num(values, nan=-1.0) for values in features]
    order = np.argsort(places, kind="stable")
    is_category = np.array([other.places is None for other in others])
    return np.column_stack(features)[:, order], is_category[order]


def _boosted(
    level: Ints,
    known: NDArray[np.bool_],
    n_levels: int,
    features: tuple[Floats, NDArray[np.bool_]],
    fold: Ints,
) -> Floats:
    """The probabilities (N, L) of levels by trees that were fitted to the rows with a level of the other folds."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, is_category = features
    n_iterations = int(np.clip(TREES // n_levels, FEWEST_ITERATIONS, ITERATIONS))
    p = np.zeros((len(level), n_levels))
    for f in range(FOLDS):
        rows = np.flatnonzero(known & (fold != f))
        levels, asked = np.unique(level[rows]), np.flatnonzero(fold == f)
        if len(levels) < 2:
            p[np.ix_(asked, levels)] = 1
            continue
        parameters: dict[str, Any] = {
            "max_iter": n_iterations,
            "learning_rate": STEPS / n_iterations,
            "max_features": 0.5,
            "min_samples_leaf": 10,
            "early_stopping": False,
            "categorical_features": is_category,
            "random_state": 0,
        }
        model = HistGradientBoostingClassifier(**parameters).fit(x[rows], level[rows])
        p[np.ix_(asked, levels)] = model.predict_proba(x[asked])
    return p


def probability_wrong(
    p: Floats, level: Ints, alone: Floats, once: Floats, expected_share: float
) -> tuple[Floats, Floats]:
    """The probability (n,) that cells are wrong, and their log-probabilities (n,) at the likeliest (beta, a, w).

    ``p`` (n, L) are the probabilities of levels, ``alone`` (n,) that of the cell in its column; cells count ``once``.
    """
    prior_of_a = EXCEPTIONAL[1:] * stats.beta.pdf(EXCEPTIONAL[1:], *EXCEPTIONS)
    prior_of_w = WRONG * stats.beta.pdf(WRONG, ERRORS, ERRORS / expected_share - ERRORS)
    log_prior = (
        stats.norm.logpdf(np.log(SHARPNESS) / SPREAD)[:, None, None]
        + np.log(np.append(0.5, 0.5 * prior_of_a / prior_of_a.sum()))[:, None]
        + np.log(np.maximum(prior_of_w, 1e-300))
    )
    log_p = np.log(np.maximum(p, LEAST))

    def parts(b: int, a: int, w: NDArray[np.intp] | slice) -> tuple[Floats, Floats]:
        """The laws (W, n) of right and of wrong cells."""
        q = special.softmax(SHARPNESS[b] * log_p, 1)[np.arange(len(level)), level]
        m = (1 - EXCEPTIONAL[a]) * q + EXCEPTIONAL[a] * alone
        share = WRONG[w, None]
        return (1 - share) * m, share * (1 - m) / (p.shape[1] - 1)

    log_likelihood = np.zeros(log_prior.shape)
    for b, a in itertools.product(range(len(SHARPNESS)), range(len(EXCEPTIONAL))):
        log_likelihood[b, a] = np.log(sum(parts(b, a, slice(None)))) @ once
    posterior = special.softmax(log_likelihood + log_prior)
    posterior[posterior < LEAST_WEIGHT] = 0
    wrong = np.zeros(len(level))
    for b, a in np.argwhere(posterior.any(2)).tolist():
        right, error = parts(b, a, w := np.flatnonzero(posterior[b, a]))
        wrong += posterior[b, a, w] @ (error / (right + error))
    b, a, w = (int(i) for i in np.unravel_index(log_likelihood.argmax(), log_likelihood.shape))
    return wrong / posterior.sum(), np.log(sum(parts(b, a, slice(w, w + 1))))[0]
