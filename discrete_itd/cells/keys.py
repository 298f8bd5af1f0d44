"""The judge by keys: rows with the same value of a column that determines another one vote on its cells."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from discrete_itd.cells.channel import N_ITERATIONS, SEEN, SHARE, error_share, shares_of_errors
from discrete_itd.cells.counts import OFTEN, count_others, joined_codes, share_alone, unit_weights
from discrete_itd.cells.judgement import Judged, given_codes, indicators, voices
from discrete_itd.cells.others import flat_share
from discrete_itd.cells.views import Aspect, Context

Floats, Ints, Bools = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

# other rows by the median, and gives the column's cells a median probability of TYPICAL. Of several keys, those count
# from which a share of cells dissents that is at most NEARLY times the least share (chosen on hospital and clean
# beers), plus SLACK (on flights).
DEPENDS, TYPICAL, FEWEST, NEARLY, SLACK = 0.7, 0.25, 2, 2.5, 0.02
# candidates for the share of wrong rows in keys with one value, and for the share of keys that leave several open
RATES, OPEN = np.geomspace(0.001, 0.6, 30), np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7])
# share of pairs of dissenting rows of a key that agree, beyond chance and less by SEEN pairs, from which they are a
# second value (errors have .6 at most, those of flights, which sources copy; days of the month by that of the year .74)
ALIKE = 0.7
VOTE = 2.0  # kappa: log-odds that one vote adds to a value


def explained(view: Aspect, other: Aspect, alone: Floats, p: Floats, n: Ints) -> float:
    """The share of a column's entropy, ``alone``, that another explains, of which ``n`` rows have a value; 0 if few."""
    both = (n > 0) & ~view.absent & ~other.absent
    if not both.any() or np.median(n) < FEWEST or np.median(p[both]) < TYPICAL:
        return 0.0
    entropy = -float(np.log(alone[both]).mean())
    return 1 + float(np.log(p[both]).mean()) / entropy if entropy > 0 else 0.0


def by_votes(
    view: Aspect,
    keys: list[tuple[Context, Floats]],
    pairs: list[Ints],
    parts: list[Ints],
    ratio: Floats,
    mixed: Judged,
    missing: tuple[Floats, Floats],
    unit: Ints,
    expected_share: float,
) -> Judged:
    """Cells of a column that is a function of each of the ``keys``, given which they have probabilities (N,).

    ``ratio`` (N,) is how much more probable the other columns make them, ``pairs`` are codes of a key and a second
    column, and ``mixed`` judges the cells for which no key has another row. ``missing`` are the probabilities (N,) that
    rows lack a cell, given values of the others, and given their gaps, too: what is expected there needs both.
    """
    n_rows, (alone, is_new) = len(unit), share_alone(view.codes, unit)
    cells = indicators(view.codes, ~view.absent)
    votes: Any = 0
    n_keys, lacking = np.zeros(n_rows), np.ones(n_rows)
    of_keys, dissent = [], []
    for context, _ in keys:
        key = context.values
        there, of_key = ~key.absent, 0
        for sign, codes in ((1, key.codes), (-1, joined_codes(unit, key.codes))):
            same = indicators(codes, there)
            of_key = of_key + sign * (same @ (same.T @ cells))
        most = of_key.tocsr().max(1).toarray().ravel()
        known = (most > 0) & ~view.absent
        of_keys.append(of_key)
        dissent.append((most > (of_key * cells).sum(1))[known].sum() / max(1, known.sum()))
    kept = [k for k, share in enumerate(dissent) if share <= NEARLY * min(dissent) + SLACK]
    for k in kept:
        key, of_key = keys[k][0].values, of_keys[k]
        votes = votes + of_key
        n = np.where(~key.absent, count_others(key.codes, unit), 0)
        n_keys += n > 0
        if view.absent.any():
            lacking = np.minimum(lacking, _lacking(key, view, unit))
    own = votes * cells
    mine, rivals = own.sum(1), (votes - own).tocsr()
    rivals.eliminate_zeros()
    rival, best = rivals.max(1).toarray().ravel(), np.asarray(rivals.argmax(1)).ravel()
    odds = special.expit(VOTE * (mine - rival) / np.maximum(n_keys, 1))
    n_same, n_votes = mine / np.maximum(n_keys, 1), votes.sum(1)
    share = mine / np.maximum(n_votes, 1)  # of many votes: no typing error
    odds = np.maximum(odds, np.where(n_same >= OFTEN, share, 0.0))
    dissents, heard = rival > mine, ~view.absent & ((mine > 0) | (rival > 0))
    present, present_by_all = (np.where(n_votes > 0, 1 - p, 0.0) for p in missing)
    flat = np.where(is_new, 0.0, 1 / view.n_levels)
    flat = np.where(dissents, 1.0, flat)
    wrong, weights = (
        np.where(view.absent, present * (1 - lacking), mixed.wrong),
        np.array([1 - SHARE, SHARE]),
    )
    if heard.any():
        wrong[heard], weights = error_share(
            odds[heard, None], flat[heard], unit_weights(view.codes, unit)[heard]
        )
    at = np.flatnonzero(heard & dissents)
    if len(at):
        ratio, allowed = ratio[at], 0.5
        if view.places is not None and any(keys[k][0].values.places is not None for k in kept):
            distance = view.places[view.codes[at]] - view.places[best[at]]
            ratio = np.maximum(ratio, _nearness(distance, view.n_levels))
        for _ in range(N_ITERATIONS):
            is_allowed = allowed * ratio / (allowed * ratio + 1 - allowed)
            allowed = is_allowed.sum() / (len(at) + SEEN)
        wrong[at] *= 1 - is_allowed
        wrong[at] *= 1 - np.min([_open(keys[k][0].values, view, unit)[at] for k in kept], 0)
        for codes in pairs:  # other rows of the key and the second column vote, too
            n, n_alike = (
                count_others(c, unit)[at] for c in (codes, joined_codes(codes, view.codes))
            )
            lead = 2 * n_alike - n
            wrong[at] *= np.where(lead >= FEWEST, 2 * special.expit(-VOTE * lead), 1.0)
        deviating = np.zeros(n_rows)
        deviating[at] = wrong[at]
        wrong[at] *= shares_of_errors(deviating, heard * 1.0, parts, expected_share)[at]

    def expected(rows: Ints) -> tuple[Ints, Floats, Floats | None]:
        code, p, of_bins = mixed.expected(rows)
        by_votes = heard[rows] | view.absent[rows]
        code = np.where(by_votes, np.where(dissents[rows], best[rows], view.codes[rows]), code)
        own = np.where(view.absent, present_by_all, np.maximum(odds, 1 - odds))[rows]
        if of_bins is not None:
            of_bins[by_votes] = 0.0
        return code, np.where(by_votes, own, p), of_bins

    even = np.full(len(kept), 1 / len(kept))
    p, flat = np.column_stack([keys[k][1] for k in kept]), flat_share(view, unit)
    of = [keys[k][0].column for k in kept]
    given = partial(given_codes, view.codes, [keys[k][0].values.codes for k in kept], even, unit)
    return Judged(wrong, expected, of, *voices(of, p, even, alone), flat, weights[-1], given)


def _nearness(distance: Ints, n_levels: int) -> Floats:
    """How much more probable a density that falls on either side makes distances (n,) than one flat over the levels."""
    n_alike = np.zeros(len(distance))
    for steps in (distance, -distance):
        own = steps > 0
        if own.any():
            counts = np.bincount(steps[own])[1:]
            n_alike[own] = optimize.isotonic_regression(counts, increasing=False).x[steps[own] - 1]
    return (n_alike * n_levels + SEEN) / (len(distance) + SEEN)


def _open(key: Aspect, view: Aspect, unit: Ints) -> Floats:
    """The probability (N,) that cells that dissent from the other rows of their key are right: it leaves them open."""
    pair, size = joined_codes(key.codes, view.codes), len(unit)
    rows = np.flatnonzero(~(key.absent | view.absent))
    rows = rows[np.unique(joined_codes(unit, pair)[rows], return_index=True)[1]]
    n_pair, n = (np.bincount(c[rows], minlength=size) for c in (pair, key.codes))
    most = np.zeros_like(n)
    np.maximum.at(most, key.codes[rows], n_pair[pair[rows]])
    n_other = n - most
    right, n_wrong = _open_keys(n, n_other)[key.codes], n_other[key.codes]
    shares = np.sort(np.bincount(view.codes))[:-1] / len(view.codes)
    by_chance = (shares @ shares) / max(shares.sum() ** 2, 1 / size)
    # errors of one key are seldom the same: where they nearly always are, they are its second value
    alike = (n_pair @ (n_pair - 1) - most @ (most - 1)) / (n_other @ (n_other - 1) + SEEN)
    if alike > by_chance + ALIKE * (1 - by_chance):
        right = np.maximum(right, alike * n_pair[pair] / np.maximum(n_wrong, 1))
    return right


def _lacking(key: Aspect, view: Aspect, unit: Ints) -> Floats:
    """The probability (N,) that missing cells are right, as keys differ in how many of their rows lack a value."""
    rows = np.flatnonzero(~key.absent)
    once = joined_codes(unit, key.codes, view.absent.astype(np.int64))  # a unit counts once
    rows = rows[np.unique(once[rows], return_index=True)[1]]
    n, n_absent = (
        np.bincount(key.codes[rows], weights, minlength=len(unit)).astype(np.int64)
        for weights in (None, view.absent[rows])
    )
    n[n_absent == n] = 0  # such a key has no value to expect
    return _open_keys(n, n_absent)[key.codes]


def _open_keys(n_rows: Ints, n_other: Ints) -> Floats:
    """The probability (K,) that such rows of keys are right of which each key has ``n_other`` among its ``n_rows``.

    A share OPEN of the keys has any number of them, the others as many as there are errors with a rate RATES.
    """
    (n, k), often = np.unique([n_rows[n_rows > 0], n_other[n_rows > 0]], axis=1, return_counts=True)
    rate = RATES[:, None, None]
    fit = np.log((1 - OPEN[:, None]) * stats.binom.pmf(k, n - 1, rate) + OPEN[:, None] / n) @ often
    fit += SEEN * (SHARE * np.log(rate) + (1 - SHARE) * np.log1p(-rate))[..., 0]
    best = np.unravel_index(fit.argmax(), fit.shape)
    rate, p, n = RATES[best[0]], OPEN[best[1]], np.maximum(n_rows, 1)
    p = p / (p + (1 - p) * n * stats.binom.pmf(n_other, n - 1, rate))
    return p * (1 - np.minimum(rate * (n + 2) / (n_other + 1), 1))
