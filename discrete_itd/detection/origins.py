r"""Which columns of a batch moved by themselves, among those that differ from the inliers.

When one column changes, the nats of every column that depends on it change with it. A set S of columns *accounts for* a
change if the distribution of the others is what it was, in one of two senses, for each column of S:

- left out: :math:`P(x_R)` of the remaining columns R is unchanged. So it is where the values of a column were shifted,
  recoded or mixed up, and nothing followed.
- given: :math:`P(x_R \mid x_S)` is unchanged. So it is where a column has other values than before, and those that
  depend on it followed as they always do: its conditional distributions hold, and only its own has moved.

S is found step by step. Each step adds the column, in the better sense of the two, after which the remaining columns
differ least, until they differ no more at the level. Whether a column differs is tested by its place in its
conditional distribution given all columns that remain or are given, :math:`P(X < x) + U P(X = x)` with a uniform U,
where categories are in the order of their probabilities, and by its rate of missing cells, which is taken to follow
no other column. A place is uniform whatever is given, if the model is right. As long as no column is given, the
surprisal of the column and its values are tested too: if the remaining columns have the distribution that they had,
then all these numbers have, whatever the model, and a poor model loses power only.

Where several columns account for a change equally well, as either of two that depend on each other alone and were
permuted against each other, the one whose own tests are the most extreme is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from discrete_itd.detection.conditionals import Conditionals, most_rows
from discrete_itd.detection.distributions import Categorical, CellDistribution, Mixture
from discrete_itd.detection.score import Scorer
from discrete_itd.detection.two_samples import distance, same_column, same_distribution

MOST_ROWS, FEWEST_ROWS = 1000, 200  # of the batch and of the inliers that are compared
MOST_ASKED = (
    100_000  # rows times conditional distributions in the first step, if these rows are enough
)
AT_ONCE = 32  # conditional distributions that are asked for in one call, at most
MOST_QUESTIONS = 1500  # conditional distributions in all steps
DECIMALS = 4  # of compared numbers: beyond, equal rows of two batches need not agree
SMALLEST = 1e-300  # p-value that stands for less


@dataclass(frozen=True)
class Tolerance:
    """Differences that count as none: of surprisals, by column (C,), nats, and of places and values, a share."""

    nats: np.ndarray
    distance: float


def origins(
    scorer: Scorer,
    batch: Tensor,
    inliers: Tensor,
    differing: Sequence[int],
    others: Sequence[int],
    tolerance: Tolerance,
    alpha: float,
    random: np.random.RandomState,
) -> list[int]:
    """The columns that moved by themselves, in the order in which they are found.

    Parameters
    ----------
    scorer : Scorer
    batch, inliers : Tensor, shapes (N, C') and (n, C')
        Encoded rows.
    differing, others : sequence of int
        Columns that differ, and those that may have moved unnoticed, the most likely first: the first 100 or more of
        them are candidates, too, if they differ given all other columns. Columns in neither are only conditioned on.
    tolerance : Tolerance
    alpha : float
        The level at which remaining columns are said to differ.
    random : RandomState
        Chooses the rows, if there are more than 1000, or fewer of many columns.

    Returns
    -------
    list of int
        At least one, if any differ. The work is bounded: candidates that are left after 1500 conditional distributions
        all count as moved.
    """
    if not differing:
        return []
    most = min(MOST_ROWS, max(FEWEST_ROWS, MOST_ASKED // _n_questions(len(differing))))
    some = [
        x[torch.from_numpy(random.permutation(len(x))[:most]).to(x.device)]
        for x in (batch, inliers)
    ]
    tests = _Tests(scorer, torch.cat(some), len(some[0]), tolerance, random.randint(2**31 - 1))
    own = tests.p_values(others[: MOST_ASKED // most], {}, pairs=False).own
    candidates = [*differing, *(k for k, p in own.items() if p * len(scorer.schema) <= alpha)]
    left, found, asked, passes = candidates, {}, 0, False
    while left and not passes:
        asked += _n_questions(len(left))
        if asked > MOST_QUESTIONS:
            return [*found, *left]
        passes, column, left_out = _best(tests.p_values(left, found), left, alpha)
        found[column] = left_out
        left = [k for k in left if k != column]
    for column in list(found)[:-1]:  # not all of them need have been
        fewer = {k: left_out for k, left_out in found.items() if k != column}
        if not _differ(tests.p_values([*left, column], fewer, pairs=False).own.values(), alpha):
            found, left = fewer, [*left, column]
    return list(found)


def _differ(p: Iterable[float], alpha: float) -> bool:
    """Whether any of some columns differs, by Bonferroni's bound."""
    p = list(p)
    return bool(p) and min(p) * len(p) <= alpha


def _n_questions(n: int) -> int:
    """Conditional distributions of n single columns and of all pairs of them."""
    return n * (n + 1) // 2


def _united(p: list[float]) -> float:
    """The smallest of some p-values times their number."""
    return max(SMALLEST, min(1.0, min(p) * len(p)))


class _PValues(NamedTuple):
    """P-values of columns k, by all tests and by those that hold whatever is given; at (k, j) without column j."""

    own: dict[int, float]
    of_place: dict[int, float]
    own_without: dict[tuple[int, int], float]
    of_place_without: dict[tuple[int, int], float]


def _best(p_values: _PValues, left: list[int], alpha: float) -> tuple[bool, int, bool]:
    """Whether a column accounts for the change, which does best, and whether by being left out (else by being given).

    If several do, that which differs most itself. If none does, that after which the places of the others differ least.
    """
    choices = []
    for j in left:
        others = [k for k in left if k != j]
        for left_out in (True, False):
            places = [
                p_values.of_place_without[k, j] if left_out else p_values.of_place[k]
                for k in others
            ]
            p = [p_values.own_without[k, j] for k in others] if left_out else places
            passes = not _differ(p, alpha)
            evidence = -math.log(p_values.own[j]) if passes else sum(map(math.log, places))
            choices.append((passes, evidence, j, left_out))
    passes, _, column, left_out = max(choices, key=lambda choice: choice[:2])
    return passes, column, left_out


@dataclass(frozen=True)
class _Tests:
    """Tests of the first ``n`` of some encoded rows (N, C') against the others."""

    scorer: Scorer
    rows: Tensor
    n: int
    tolerance: Tolerance
    seed: int

    def p_values(
        self, left: Sequence[int], found: Mapping[int, bool], *, pairs: bool = True
    ) -> _PValues:
        """Of the columns that are left; those that were found are left out or given."""
        dropped = [k for k, left_out in found.items() if left_out]
        only_places = len(dropped) < len(found)
        values = {k: self._of_values(k) for k in left}
        questions = [*((k,) for k in left), *(combinations(left, 2) if pairs else ())]
        out = _PValues({}, {}, {}, {})
        for asked, numbers in self._numbers(questions, dropped):
            for k, (surprisal, place) in numbers.items():
                p_values, p_missing = values[k]
                p = [p_missing, self._of_places(place)]
                of_place = _united(p)
                whole = (
                    of_place
                    if only_places
                    else _united([*p, p_values, self._of_nats(k, surprisal)])
                )
                if len(asked) == 1:
                    out.own[k], out.of_place[k] = whole, of_place
                else:
                    pair = k, asked[asked[0] == k]
                    out.own_without[pair], out.of_place_without[pair] = whole, of_place
        return out

    @cached_property
    def shares(self) -> Tensor:
        """The U of every row: (N,)."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(len(self.rows), generator=generator, dtype=torch.float64).to(
            self.rows.device
        )

    def _of_nats(self, k: int, surprisal: np.ndarray) -> float:
        here, before = self._divided(surprisal)
        if not len(here) or not len(before):
            return 1.0
        if stats.wasserstein_distance(here, before) < self.tolerance.nats[k]:
            return 1.0
        return same_distribution(here.round(DECIMALS), before.round(DECIMALS))

    def _of_places(self, place: np.ndarray) -> float:
        here, before = (t.round(DECIMALS) for t in self._divided(place))
        near = distance(here, before, "continuous") < self.tolerance.distance
        return 1.0 if near else same_distribution(here, before)

    def _of_values(self, k: int) -> tuple[float, float]:
        """Of the values, and of the rate of missing cells."""
        codes, kind = self.rows[:, k].cpu().numpy(), self.scorer.schema[k].kind
        here, before = codes[: self.n], codes[self.n :]
        if distance(here, before, kind) < self.tolerance.distance:
            return 1.0, 1.0
        p, p_missing = same_column(here, before, kind, np.random.default_rng([self.seed, k]))
        return p, 1.0 if math.isnan(p_missing) else p_missing

    def _divided(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows that have a cell, the first n and the others."""
        here, before = numbers[: self.n], numbers[self.n :]
        return here[~np.isnan(here)], before[~np.isnan(before)]

    def _numbers(
        self, questions: list[tuple[int, ...]], dropped: list[int]
    ) -> Iterator[tuple[tuple[int, ...], dict[int, tuple[np.ndarray, np.ndarray]]]]:
        """Surprisals and places of some single columns, and of both columns of some pairs without the other.

        Of each one: (N,) with NaN where a cell is missing.
        """
        parts = self.rows.split(most_rows(self.scorer))
        shares = self.shares.split(most_rows(self.scorer))
        done = [
            list(self._of_part(*part, questions, dropped))
            for part in zip(parts, shares, strict=True)
        ]
        for asked, *found in zip(questions, *done, strict=True):
            both = {
                k: [np.concatenate(t) for t in zip(*(f[k] for f in found), strict=True)]
                for k in asked
            }
            yield asked, {k: (surprisal, place) for k, (surprisal, place) in both.items()}

    @torch.no_grad()
    def _of_part(
        self, rows: Tensor, shares: Tensor, questions: list[tuple[int, ...]], dropped: list[int]
    ) -> Iterator[dict[int, tuple[np.ndarray, np.ndarray]]]:
        """:meth:`_numbers` of a batch of rows."""
        owner = torch.from_numpy(self.scorer.density.encoder_.owner).to(rows.device)

        def without(columns: Sequence[int]) -> Tensor:
            gone = torch.isin(owner, torch.tensor(columns, device=rows.device, dtype=owner.dtype))
            return rows.masked_fill(gone, math.nan)

        for i in range(0, len(questions), AT_ONCE):
            some = questions[i : i + AT_ONCE]
            known = [without([*dropped, *asked]) for asked in some]
            found = Conditionals.of_each(self.scorer, known, quick=True)
            for asked, conditionals in zip(some, found, strict=True):
                yield {
                    k: _surprisal_and_place(conditionals.cell(k), rows[:, k], shares) for k in asked
                }


def _surprisal_and_place(
    cell: CellDistribution, values: Tensor, shares: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Surprisal of values (B,) in their conditional distributions, and their places there: (B,) each."""
    missing, values = values.isnan(), values.nan_to_num(0.0)
    surprisal = -cell.log_prob(values)
    if isinstance(cell, Categorical):
        p, at = cell.log_probs.exp().double(), values[:, None].long()
        own = p.gather(1, at)
        before = p > own
        if cell.column.kind != "nominal":
            before = torch.arange(p.shape[1], device=p.device) < at
        equal = own if cell.column.kind != "nominal" else p * (p == own)
        place = (p * before).sum(1) + shares * equal.sum(1)
    else:
        place = cast(Mixture, cell).mixture.cdf(values[:, None])[:, 0]
    found = (t.masked_fill(missing, math.nan).double() for t in (surprisal, place))
    surprisal, place = found
    return surprisal.cpu().numpy(), place.cpu().numpy()
