r"""Density forests (11) from noisy counts: differentially private.

Two tables are neighbours if one has all rows of the other and one more. The forest M(D) of a table D, its independent
columns and numbers of rows have, for all neighbours D and D' and every set O of results,

.. math:: P(M(D) \in O) \le e^{\varepsilon} P(M(D') \in O). \tag{16}

*Proof.* (a) Integer counts h(D) of which one row more changes at most :math:`\Delta` by one each get independent noise
with :math:`P(Z = z) \propto e^{-\eta |z|}`: two neighbours give a result g with probabilities whose ratio is
:math:`e^{\eta (\|g - h(D')\|_1 - \|g - h(D)\|_1)} \le e^{\eta \Delta}`. (b) The marginal counts: a row is in one cell
of each of the C columns, a level or the gap, so :math:`\Delta = C`; with :math:`\eta = \varepsilon / 2C` they take
:math:`\varepsilon / 2`. (c) The splits are drawn from the declared levels, these noisy counts and a seed: no row is
looked at. (d) In each of Tr trees a row is in one leaf, which follows from its cells and the splits alone, and there in
one cell of each column: :math:`\Delta = C Tr`; with :math:`\eta = \varepsilon / (2 C Tr)` the counts of leaves take
:math:`\varepsilon / 2`, whatever (b) gave. (e) Both in sequence take :math:`\varepsilon` (McSherry 2009, theorem 3),
and what is computed from noisy counts and declarations takes nothing (Dwork & Roth 2014, proposition 2.1). Sampling is
exact in integers, so that no rounding of floating-point noise reveals a count (Mironov 2012); :math:`\eta` is rounded
down. The one assumption is that the random bits are unpredictable. A row exchanged for another is two steps:
:math:`2 \varepsilon`; k rows of one person take :math:`k \varepsilon`.

All trees count all rows. With a part of the rows for each tree, noise would be Tr times smaller and so would be counts;
leaves would have more sampling error. Leaves have no counts besides their columns' counts: a leaf's number of rows is
estimated from all of its columns, and the sensitivity stays C.

References
----------
Ghosh, Roughgarden & Sundararajan, "Universally utility-maximizing privacy mechanisms", STOC 2009 (the noise);
Canonne, Kamath & Steinke, "The discrete Gaussian for differential privacy", NeurIPS 2020, algorithms 1 and 2 (its exact
sampling); McSherry, "Privacy integrated queries", SIGMOD 2009; Dwork & Roth, "The algorithmic foundations of
differential privacy", 2014; Mironov, "On significance of the least significant bits for differential privacy", CCS
2012; Fletcher & Islam, "Decision tree classification with differential privacy: a survey", ACM Computing Surveys 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.noise import coins, row_hashes
from discrete_itd.denoisers.base import LARGE
from discrete_itd.denoisers.forest import COUNTED, ForestDenoiser, Splits
from discrete_itd.denoisers.marginal import MarginalDenoiser

UNIT = 1 << 20  # rates of noise are multiples of 1 / UNIT
POSITIVE = 1e-9  # lower bound on rows and on probabilities, so that logarithms stay finite

Integers = NDArray[np.int64]
RandomBytes = Callable[[int], bytes]


def integers_below(bound: Integers, random_bytes: RandomBytes) -> Integers:
    """Uniform integers from 0 to ``bound`` (n,), positive, excluded: exact."""
    out, todo = np.zeros(len(bound), np.int64), np.arange(len(bound))
    while len(todo):
        drawn = np.frombuffer(random_bytes(8 * len(todo)), np.uint64) >> np.uint64(1)
        own = bound[todo].astype(np.uint64)
        kept = drawn < (np.uint64(1 << 63) // own) * own
        out[todo[kept]] = (drawn % own)[kept].astype(np.int64)
        todo = todo[~kept]
    return out


def exponential_coins(u: Integers, random_bytes: RandomBytes) -> NDArray[np.bool_]:
    """Coins with the probabilities exp(-u / UNIT), for u (n,) between 0 and UNIT: exact."""
    k, going = np.ones(len(u), np.int64), np.arange(len(u))
    while len(going):
        going = going[integers_below(UNIT * k[going], random_bytes) < u[going]]
        k[going] += 1
    return k % 2 == 1


def discrete_laplace(rate: int, n: int, random_bytes: RandomBytes) -> Integers:
    """Integers z (n,) with probabilities proportional to exp(-abs(z) rate / UNIT): exact."""
    out, todo = np.zeros(n, np.int64), np.arange(n)
    while len(todo):
        u = integers_below(np.full(len(todo), UNIT), random_bytes)
        accepted = exponential_coins(u, random_bytes)
        v, going = np.zeros(len(todo), np.int64), np.flatnonzero(accepted)
        while len(going):
            going = going[exponential_coins(np.full(len(going), UNIT), random_bytes)]
            v[going] += 1
        size = (u + UNIT * v) // rate
        negative = integers_below(np.full(len(todo), 2), random_bytes) == 1
        accepted &= ~(negative & (size == 0))
        out[todo[accepted]] = np.where(negative, -size, size)[accepted]
        todo = todo[~accepted]
    return out


class NoisyCounts(NamedTuple):
    """Counts with noise: float64 of integers, or means of several such, and the variance of the noise."""

    counts: Tensor
    variance: Tensor


def noisy(
    counts: Tensor, sensitivity: int, epsilon: float, random_bytes: RandomBytes
) -> NoisyCounts:
    """Counts of int64, of which a row changes ``sensitivity`` by one each, with noise that takes ``epsilon``."""
    rate = math.floor(min(UNIT * epsilon / sensitivity, 1 << 40))  # there practically without noise
    if rate < 1:
        raise ValueError(f"epsilon={2 * epsilon:g} is too small for {sensitivity} counts of a row")
    drawn = torch.from_numpy(discrete_laplace(rate, counts.numel(), random_bytes))
    eta = rate / UNIT
    variance = 2 * math.exp(-eta) / math.expm1(-eta) ** 2
    return NoisyCounts(
        (counts + drawn.view(counts.shape)).double(), torch.tensor(variance).double()
    )


class PrivateFit(NamedTuple):
    """A forest and independent columns of noisy counts, and noisy numbers of rows and of gaps by column (C,)."""

    forest: ForestDenoiser
    marginals: MarginalDenoiser
    n_rows: int
    n_missing: list[int]


def fit_private(
    book: Codebook, x: Tensor, epsilon: float, n_trees: int, seed: int, random_bytes: RandomBytes
) -> PrivateFit:
    """A forest of the rows ``x`` (N, C), with the privacy (16); every column is of categories.

    There are at most ``n_trees``, and fewer for a smaller ``epsilon``; ``random_bytes(n)`` gives n random bytes for the
    noise, ``seed`` may be known. A ValueError if epsilon is too small.
    """
    levels, n_columns = book.levels, book.n_columns
    n_points, width = levels.n_points, levels.n_points + n_columns
    cells = torch.cat([_cells(book, part) for part in x.split(COUNTED)])
    counts = torch.bincount(cells.flatten(), minlength=width)
    marginal = noisy(counts, n_columns, epsilon / 2, random_bytes)
    prior = Prior.of(book, marginal)
    n_trees, depth = shape(prior.n_rows, epsilon, n_columns, n_trees, width)
    splits = draw_splits(book, prior.probs, n_trees, depth, seed)
    in_leaves = torch.zeros(splits.n_leaves * width, dtype=torch.int64)
    for rows, own in zip(x.split(COUNTED), cells.split(COUNTED), strict=True):
        place = leaves_of(splits, prior.probs, rows, seed)[:, :, None] * width + own[:, None]
        in_leaves += torch.bincount(place.flatten(), minlength=len(in_leaves))
    by_leaf = in_leaves.view(-1, width)
    of_leaves = noisy(by_leaf, n_trees * n_columns, epsilon / 2, random_bytes)
    n_missing = [min(max(0, round(n)), prior.n_rows) for n in marginal.counts[n_points:].tolist()]
    marginals = MarginalDenoiser(book, prior.probs)
    return PrivateFit(forest_of(splits, prior, of_leaves), marginals, prior.n_rows, n_missing)


def _cells(book: Codebook, x: Tensor) -> Tensor:
    """The cell of every row in each column's histogram: its level, or T and the column where it is missing: (N, C)."""
    level = book.level_of(x)
    gap = level.new_tensor(range(book.n_columns)) + book.levels.n_points
    return torch.where(level == book.levels.n_points, gap, level)


class Prior(NamedTuple):
    """Estimates from noisy marginal counts: probabilities (T,), shares missing (C,) and the number of rows."""

    probs: Tensor
    missing: Tensor
    n_rows: int

    @classmethod
    def of(cls, book: Codebook, marginal: NoisyCounts) -> Prior:
        levels, n_points = book.levels, book.levels.n_points
        counts = marginal.counts
        sizes = torch.tensor(levels.cardinalities, dtype=torch.float64)
        known, gaps = levels.sum(counts[None, :n_points])[0], counts[n_points:]
        weights = 1 / (sizes + 1)  # the inverse variance of a column's number of rows
        n = max(1.0, float(weights @ (known + gaps) / weights.sum()))
        gaps = gaps.clamp(0.0, n)
        scale = (marginal.variance / 2).sqrt().clamp_min(0.1).expand_as(counts)[:n_points]
        probs = torch.empty_like(scale)
        # most often, no row has the former
        for group in (levels.level_unseen, ~levels.level_unseen):
            if bool(group.any()):
                probs[group] = expected_counts(counts[:n_points][group], scale[group], n)
        probs = levels.normalised(probs[None])[0]
        return cls(probs, gaps / n, round(n))


def expected_counts(noisy: Tensor, scale: Tensor, most: float) -> Tensor:
    r"""The expectation of counts (n,) of one kind, up to about ``most``, given noisy ones: positive.

    The noise has the density :math:`e^{-|z|/s}/2s`, with s the ``scale`` (n,). The counts are taken for draws from a
    mixture of 16 exponential distributions, whose weights the noisy ones determine (empirical Bayes, by EM).
    """
    means = torch.logspace(math.log10(0.5), math.log10(max(most, 1.0)), 16).double()[:, None]
    t = noisy.clamp_min(0.0)
    fall, rise = 1 / scale + 1 / means, 1 / scale - 1 / means
    a = rise.abs().clamp_min(1e-9 / scale)
    at = a * t
    down = torch.exp(-at)
    # integrals over v from 0 to t of exp(-a v) and v exp(-a v)
    zeroth = -torch.expm1(-at) / a
    first = torch.where(at < 1e-4, t.square() / 2, (-torch.expm1(-at) - at * down) / a.square())
    # above t, relative to the density there
    beyond, moment = (1 / fall, t / fall + 1 / fall.square())
    is_rising = rise >= 0  # below t: then v is the distance from t, else from 0
    total = torch.where(is_rising, zeroth + beyond, zeroth + down * beyond)
    expected = torch.where(is_rising, t * zeroth - first + moment, first + down * moment) / total
    evidence = total.log() - means.log() - torch.where(is_rising, t / means, t / scale)
    weights = torch.zeros_like(means)
    for _ in range(50):  # rounds of EM
        belongs = torch.softmax(evidence + weights, 0)
        weights = belongs.mean(1, keepdim=True).clamp_min(POSITIVE).log()
    return (belongs * expected).sum(0)


def shape(n_rows: int, epsilon: float, n_columns: int, n_trees: int, width: int) -> tuple[int, int]:
    """Numbers of trees and of splits on a branch.

    An average leaf has at least ten times the scale of the noise in rows, and each of more trees would be noisier.
    Chosen by test rows of nltcs and of 3000 rows of adult.
    """
    budget = min(n_rows * epsilon / (20 * n_columns), LARGE / width)  # leaves of all trees
    n_trees = max(1, min(n_trees, round(0.15 * math.sqrt(budget))))
    return n_trees, max(0, min(8, math.floor(math.log2(max(1.0, budget / n_trees)))))


def draw_splits(book: Codebook, probs: Tensor, n_trees: int, depth: int, seed: int) -> Splits:
    """Trees whose splits are drawn at random by independent columns with the probabilities ``probs`` (T,).

    A split aims at a share of its node between .3 and .7, and leaves each side a tenth of it.
    """
    rng, levels, p = np.random.default_rng(seed), book.levels, probs.numpy()
    own = [np.arange(levels.n_points)[levels.own(i)] for i in range(levels.n_columns)]
    ranks = np.zeros((n_trees, levels.n_points))
    for t in range(n_trees):
        for j, places in zip(book.finite.tolist(), own, strict=True):
            order = np.arange(len(places))
            is_line = book.columns[j].kind == "line"
            ranks[t, places] = order if is_line else rng.permutation(order)
    # an absent cell lies on no side of a split: none is by a column with an indicator
    splittable = [i for j, i in book.place.items() if j not in book.indicator]
    column, threshold = [], []
    nodes = [(t, np.ones(levels.n_points, bool)) for t in range(n_trees)]
    for d in range(depth + 1):
        children = []
        for t, inside in nodes:
            found = -1, 0.0
            for i in rng.permutation(splittable) if d < depth else ():
                places = own[i][inside[own[i]]]
                places = places[ranks[t, places].argsort()]
                share = p[places].cumsum()[:-1] / p[places].sum()
                if not len(share):
                    continue
                k = int(np.abs(share - rng.uniform(0.3, 0.7)).argmin())
                if 0.1 <= share[k] <= 0.9:
                    found = int(book.finite[i]), float(ranks[t, places[k : k + 2]].mean())
                    for part in (places[k + 1 :], places[: k + 1]):
                        child = inside.copy()
                        child[part] = False
                        children.append((t, child))
                    break
            column.append(found[0])
            threshold.append(found[1])
        nodes = children
    return Splits(book, torch.tensor(column), torch.tensor(threshold), torch.from_numpy(ranks))


def leaves_of(splits: Splits, probs: Tensor, x: Tensor, seed: int) -> Tensor:
    """The leaf of rows ``x`` (N, C) in each tree, (N, Tr): of each row a function of its cells alone.

    A row with a gap follows a child at random, by its hash and the children's shares of independent columns.
    """
    inside = splits.inside(torch.arange(splits.n_nodes), *splits.boxes())
    share, row_hash = splits.codebook.levels.sum(probs * inside).prod(1), row_hashes(x)

    def choose(row: Tensor, node: Tensor, right: Tensor, missing: Tensor) -> Tensor:
        u = coins(row_hash[row], node, seed)
        return torch.where(missing, u >= share[splits.left[node]] / share[node], right)

    return splits.descend(splits.values(*splits.places(x)), len(x), choose)


def shrunk(distance: Tensor, error: Tensor, size: Tensor) -> Tensor:
    """Weights (n, ...) of estimates with a squared ``distance`` from a prior, of which ``error`` is expected of noise.

    James and Stein's, with the variance of what is estimated from all n together; the distances are in multiples of
    ``size``.
    """
    spread = ((distance - error).sum(0) / size.square().sum(0)).clamp_min(0.0)
    return spread / (spread + error / size.square())


def forest_of(splits: Splits, prior: Prior, noisy: NoisyCounts) -> ForestDenoiser:
    """The forest of noisy counts in leaves (L, T + C), as far as nodes differ from those above by more than noise.

    A node's distributions and its share of the rows are means of what its counts say and what the node above, at a root
    independent columns, makes one expect, weighted as in :func:`shrunk`.
    """
    book, levels, boxes = splits.codebook, splits.codebook.levels, splits.boxes()
    n_points, n = levels.n_points, float(prior.n_rows)
    inside = splits.inside(splits.leaves, *boxes)
    own = noisy.counts[:, :n_points] * inside
    # the inverse variance of a column's number of rows
    weight = 1 / (levels.sum(inside.double()) + 1)
    rows = ((levels.sum(own) + noisy.counts[:, n_points:]) * weight).sum(1) / weight.sum(1)
    counts, error = splits.sums(own), noisy.variance * splits.sums(inside.double())
    rows, error_of_rows = splits.sums(rows), splits.sums(noisy.variance / weight.sum(1))
    probs = torch.zeros_like(counts)
    share, total = torch.ones_like(rows), torch.full_like(rows, n)

    for part in splits.depths:
        box = splits.inside(torch.arange(part.start, part.stop), *boxes)
        if not part.start:
            probs[part] = prior.probs
            continue
        up = splits.parent[part]
        before = probs[up] * box
        base, above = levels.sum(before).prod(1), total[up]
        before = levels.normalised(before)
        spread = error_of_rows[part] + above * base * (1 - base)
        mixed = shrunk((rows[part] - above * base).square(), spread, above)
        found = rows[part].clamp_min(POSITIVE).unflatten(0, (-1, 2))
        found = (found / found.sum(1, keepdim=True)).flatten()
        share[part] = ((1 - mixed) * base + mixed * found).clamp_min(POSITIVE)
        pairs = share[part].unflatten(0, (-1, 2))
        share[part] = (pairs / pairs.sum(1, keepdim=True)).flatten()
        total[part] = (above * share[part]).clamp_min(POSITIVE)
        there = (total[part, None] * (1 - prior.missing)).clamp_min(POSITIVE)
        distance = levels.sum((counts[part] - before * levels.per_level(there)).square() * box)
        spread = levels.sum(error[part]) + there * (1 - levels.sum(before.square()))
        mixed = levels.per_level(shrunk(distance, spread.clamp_min(POSITIVE), there))
        found = levels.normalised(counts[part].clamp_min(0.0) * box + POSITIVE * before)
        probs[part] = levels.normalised((1 - mixed) * before + mixed * found + POSITIVE * box)
    parts = splits.column, splits.threshold, splits.rank
    return ForestDenoiser(book, *parts, share, probs[splits.leaves])
