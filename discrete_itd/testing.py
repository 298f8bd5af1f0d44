r"""Property checks for a denoiser of your own: :func:`check_denoiser`, which the library's own pass too.

**Your own denoiser** is a class with ``forward``, which returns a posterior, and ``config``, by which it is
saved. Whatever the posterior, the score is a normalised log-probability, eq. (6); a better one gives shorter codes.

>>> import numpy as np
>>> import torch
>>> from discrete_itd.channel import CategoricalPosterior, Codebook, ColumnPoints, Posterior
>>> from discrete_itd.denoisers import Denoiser, MarginalDenoiser
>>> class Smoothed(Denoiser):
...     "The posterior of another denoiser, mixed with a uniform distribution."
...     def __init__(self, codebook, base, weight):
...         super().__init__(codebook)
...         self.base, self.weight = base, weight
...     def forward(self, y, snr):
...         levels, q = self.codebook.levels, self.base(y, snr).categorical
...         uniform = levels.log_softmax(torch.zeros_like(q.logits)).exp()
...         mixed = (1 - self.weight) * q.probs + self.weight * uniform
...         return Posterior(self.codebook, CategoricalPosterior(levels, mixed.log()))
>>> book = Codebook([ColumnPoints("simplex", 3), ColumnPoints("simplex", 2)])
>>> rows = torch.tensor([[0, 1], [2, 0], [2, 1]], dtype=torch.float64)
>>> check_denoiser(Smoothed(book, MarginalDenoiser.fit(book, rows), 0.1), trusted=[Smoothed])
['shapes', 'posterior_sums_to_one', 'repeatable', 'row_alone', 'path_sums_to_one', 'stored']

Rows and states for tests of your own are made by these:

>>> rng = np.random.default_rng(0)
>>> y, snr = states_of_every_kind(book, rng)  # unknown, known and noisy cells
>>> len(all_rows(book)), random_rows(book, 3, rng, missing=0.4).shape, snr.shape
(6, torch.Size([3, 2]), torch.Size([9, 2]))

A recipe makes an estimator fit it: ``DiffusionDensity(denoiser=SmoothedCounts())``.

>>> from dataclasses import dataclass
>>> import pandas as pd
>>> from discrete_itd import DiffusionDensity
>>> from discrete_itd.recipes import Recipe
>>> @dataclass(frozen=True)
... class SmoothedCounts(Recipe):
...     weight: float = 0.1
...     def fit(self, rows, plan):
...         return Smoothed(rows.codebook, rows.marginals, self.weight)
>>> frame = pd.DataFrame({"a": list("xyxxyz") * 9, "b": list("uvvuvv") * 9})
>>> model = DiffusionDensity(denoiser=SmoothedCounts(), random_state=0).fit(frame)
>>> type(model.denoiser_).__name__, model.score_samples(frame).shape
('Smoothed', (54,))

**Your own schedule** has the methods of :class:`discrete_itd.channel.Schedule`.

>>> @dataclass(frozen=True)
... class Halves:
...     "Half of the columns become known, then the others."
...     n_columns: int
...     n_steps, noisy, complete, order = 2, False, True, None
...     def snr(self, step, rank, n_free):
...         known = 2 * rank < step * n_free
...         return torch.zeros(rank.shape).masked_fill(known & (step > 0), torch.inf)
>>> model.set_params(schedule=Halves(2)).fit(frame).model_.schedule
Halves(n_columns=2)
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import Codebook, CoordinateSchedule, Posterior
from discrete_itd.denoisers import Denoiser
from discrete_itd.likelihood import path_log_prob
from discrete_itd.storage.values import flatten, unflatten

__all__ = ["all_rows", "check_denoiser", "random_rows", "states_of_every_kind"]

ENUMERATED_ROWS = 2048  # most possible rows of a table for which all are tried
FEW_COLUMNS = 5  # most columns of a table for which all patterns of missing cells are tried


# -- rows and states ---------------------------------------------------------------------------------


def all_rows(codebook: Codebook, grid: Sequence[float] | None = None) -> Tensor:
    """Every row over the categories of a codebook, and over a grid of values of its continuous columns."""
    values: list[Any] = [grid if c.kind == "real" else range(c.n_points) for c in codebook.columns]
    rows = list(itertools.product(*values))
    return torch.tensor(rows, dtype=torch.float64, device=codebook.device)


def random_rows(
    codebook: Codebook, n: int, rng: np.random.Generator, *, missing: float = 0.0
) -> Tensor:
    """Rows of a codebook, (n, C): any category, any value, NaN with probability ``missing``."""
    rows = [
        rng.normal(0, 0.6, n) if c.kind == "real" else rng.integers(c.n_points, size=n)
        for c in codebook.columns
    ]
    table = np.stack(rows, 1).astype(float)
    table[rng.random(table.shape) < missing] = math.nan
    return torch.tensor(table, device=codebook.known_snr.device)


def states_of_every_kind(
    codebook: Codebook, rng: np.random.Generator, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """States ``y`` (9, D), ``snr`` (9, C) with no, all or some cells known, or noisy evidence of all or some.

    ``rows`` (9, C) are the underlying rows; by default random ones.
    """
    unknown, noisy, known = 0, 1, 2
    kinds = rng.integers(3, size=(9, codebook.n_columns))
    kinds[0], kinds[1], kinds[2] = unknown, known, noisy
    kinds[3:5] = rng.choice([unknown, known], size=(2, codebook.n_columns))
    snr = torch.tensor(np.exp(rng.uniform(-2, 4, kinds.shape))).to(codebook.known_snr)
    which = torch.tensor(kinds, device=snr.device)
    snr = snr.masked_fill(which == unknown, 0.0).masked_fill(which == known, math.inf)
    x = codebook.embed(random_rows(codebook, len(kinds), rng) if rows is None else rows)
    wide = codebook.per_coord(snr)
    finite = wide.masked_fill(wide.isinf(), 0.0)
    y = finite * x + finite.sqrt() * torch.tensor(rng.normal(size=x.shape)).to(x)
    return torch.where(wide.isinf(), x, y), snr


# -- denoisers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """A denoiser, and rows and states for its checks."""

    denoiser: Denoiser
    seed: int
    trusted: tuple[type, ...]

    @property
    def book(self) -> Codebook:
        return self.denoiser.codebook

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator(self.book.device).manual_seed(self.seed)

    @cached_property
    def every(self) -> Tensor | None:
        """All rows of a small table without continuous columns, or None."""
        n_rows = math.prod(c.n_points for c in self.book.columns)
        return None if len(self.book.reals) or n_rows > ENUMERATED_ROWS else all_rows(self.book)

    def posterior_is_enumerated(self) -> None:
        """The posterior of an exact denoiser is the sum over all rows, whatever is known and through whatever noise."""
        (y, snr), levels = self.state, self.book.levels
        assert self.every is not None
        evidence = levels.evidence(y[:, : levels.n_coords], snr[:, self.book.finite])
        level = self.book.level_of(self.every)  # (N, C)
        joint = levels.below_peak(evidence)[:, level].sum(2) + self.denoiser.log_prob(self.every)
        probs = torch.zeros_like(evidence)
        for j in range(levels.n_columns):
            probs.index_add_(1, level[:, j], torch.softmax(joint, 1).to(probs))
        got = self.denoiser(*self.state).categorical.probs
        self.close(got, probs, "posterior, and sums over all rows")

    @cached_property
    def rows(self) -> Tensor:
        """Possible rows: (9, C)."""
        rows = random_rows(self.book, 9, self.rng)
        if not (self.denoiser.closed_form and self.every is not None):
            return rows
        possible = self.every[self.denoiser.log_prob(self.every).isfinite()]
        return possible[torch.tensor(self.rng.integers(len(possible), size=9)).to(possible.device)]

    @cached_property
    def state(self) -> tuple[Tensor, Tensor]:
        y, snr = states_of_every_kind(self.book, self.rng, self.rows)
        if self.denoiser.isotropic:
            snr = snr[2:3, ~self.book.leading][:, :1].expand_as(snr).clone()
            y = self.book.per_coord(snr) * self.book.embed(self.rows)
        return y, snr

    def close(
        self, got: Tensor, expected: Tensor, what: str, loose: float = 10.0, more: float = 0.0
    ) -> None:
        """AssertionError if two tensors differ by more than rounding, and ``more``."""
        limit = loose * (1e-10 if self.book.dtype == torch.float64 else 1e-4) + more
        how: Any = {"atol": limit, "rtol": limit, "msg": lambda text: f"{what}. {text}"}
        torch.testing.assert_close(got, expected.to(got), **how)

    def shapes(self) -> None:
        """Posteriors have the shapes and the floating type of the codebook and finite means, for no rows too."""
        book = self.book
        for n in (len(self.rows), 1, 0):
            q = self.denoiser(self.state[0][:n], self.state[1][:n])
            assert isinstance(q, Posterior), f"forward returns a {type(q).__name__}, no Posterior"
            mean, log_prob = q.mean(), q.log_prob(self.rows[:n])
            assert mean.shape == (n, book.n_coords), f"mean has shape {tuple(mean.shape)}"
            assert log_prob.shape == (n, book.n_columns), f"log_prob has shape {log_prob.shape}"
            assert mean.dtype == book.dtype, f"mean is {mean.dtype}, the codebook {book.dtype}"
            assert bool(mean.isfinite().all()), "the mean is not finite"
            assert not bool(log_prob.isnan().any()), "log_prob is NaN"

    def posterior_sums_to_one(self) -> None:
        """The posterior of every column sums to one, whatever is known."""
        q = self.denoiser(*self.state)
        total = self.book.levels.sum(q.categorical.probs)
        self.close(total, torch.ones_like(total), "probabilities of a column of categories")
        if q.gaussian is not None:
            total = q.gaussian.log_weight.exp().sum(2)
            self.close(total, torch.ones_like(total), "weights of a continuous column")
            assert bool((q.gaussian.var > 0).all()), "a variance is not positive"

    def repeatable(self) -> None:
        """The same state has the same posterior, and torch's global random state is left alone."""
        before = torch.get_rng_state()
        first, again = self.denoiser(*self.state), self.denoiser(*self.state)
        assert all(map(torch.equal, _parts(first), _parts(again))), "(is it in eval() mode?)"
        assert torch.equal(before, torch.get_rng_state()), "the global random state has moved"

    def row_alone(self) -> None:
        """The posterior of a row depends on that row alone, not on its batch."""
        y, snr = self.state
        alone = [_parts(self.denoiser(y[i : i + 1], snr[i : i + 1])) for i in range(len(y))]
        together = _parts(self.denoiser(y, snr))
        for batched, parts in zip(together, zip(*alone, strict=True), strict=True):
            self.close(batched, torch.cat(parts), "in a batch and alone", loose=1.0)
        if self.denoiser.closed_form:
            rows = torch.cat([self.rows, random_rows(self.book, 9, self.rng, missing=0.4)])
            parts = torch.cat([self.denoiser.log_prob(row[None]) for row in rows])
            self.close(
                self.denoiser.log_prob(rows), parts, "log_prob in a batch and alone", loose=1.0
            )

    def _patterns(self) -> list[Tensor]:
        """All rows for each set of missing columns; in tables of more than FEW_COLUMNS, sets of at most one column."""
        assert self.every is not None
        n = self.book.n_columns
        missing: list[list[int]] = [[], *([j] for j in range(n))]
        if n <= FEW_COLUMNS:
            missing = [[j for j in range(n) if pattern >> j & 1] for pattern in range(2**n)]
        filler = -1.0  # in place of NaN, which unique does not merge
        columns = [torch.tensor(g, dtype=torch.int64, device=self.book.device) for g in missing]
        rows = [self.every.index_fill(1, g, filler).unique(dim=0) for g in columns]
        return [r.masked_fill(r == filler, math.nan) for r in rows]

    def path_sums_to_one(self) -> None:
        """Probabilities along a path (6) sum to one over all rows, also over all rows with the same cells missing."""
        n = self.book.n_columns
        order = torch.cat([self.book.leading.nonzero()[:, 0], (~self.book.leading).nonzero()[:, 0]])
        schedule = CoordinateSchedule(n, tuple(order.tolist()))
        for rows in self._patterns():
            got = path_log_prob(self.denoiser, rows, schedule, n_paths=1, generator=self.generator)
            total = got.log_prob.exp().sum()
            self.close(total, torch.ones_like(total), f"sum over {len(rows)} rows")

    def closed_form_sums_to_one(self) -> None:
        """Closed forms sum to one over all rows, also over all rows with the same cells missing."""
        for rows in self._patterns():
            total = self.denoiser.log_prob(rows).double().exp().sum()
            self.close(total, torch.ones_like(total), f"sum over {len(rows)} rows")

    def missing_cells_are_summed_over(self) -> None:
        """A missing cell is marginalised: log_prob is the log of the sum over its values."""
        assert self.every is not None
        rows = random_rows(self.book, 7, self.rng, missing=0.4)
        rows[0] = math.nan
        fits = ((self.every == rows[:, None]) | rows[:, None].isnan()).all(2)
        joint = self.denoiser.log_prob(self.every).expand(len(rows), -1)
        expected = joint.masked_fill(~fits, -torch.inf).logsumexp(1)
        self.close(
            self.denoiser.log_prob(rows),
            expected,
            "rows with gaps, and sums over all rows that fit",
        )

    def any_order(self) -> None:
        """An exact denoiser's path (6) gives log_prob in any order of the columns."""
        gaps = torch.tensor(self.rng.random(self.rows.shape) < 0.3, device=self.rows.device)
        rows = torch.cat([self.rows, self.rows.masked_fill(gaps, math.nan)])
        for order in (range(self.book.n_columns), reversed(range(self.book.n_columns))):
            schedule = CoordinateSchedule(self.book.n_columns, tuple(order))
            got = path_log_prob(self.denoiser, rows, schedule, n_paths=1, generator=self.generator)
            expected = self.denoiser.log_prob(rows).double()
            # a known number is known to a precision of 1e-5
            self.close(got.log_prob, expected, f"order {schedule.order}", more=1e-7)

    def gradients(self) -> None:
        """Every gradient is finite, where cells are known, unknown or noisy."""
        with torch.enable_grad():
            q = self.denoiser(*self.state)
            cells = self.rows.masked_fill(self.state[1].isinf(), math.nan)
            loss = (self.book.embed(self.rows) - q.mean()).square().sum() - q.log_prob(cells).sum()
            named = [(n, p) for n, p in self.denoiser.named_parameters() if p.requires_grad]
            grads = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        for (name, _), grad in zip(named, grads, strict=True):
            assert grad is None or bool(grad.isfinite().all()), f"that of {name} is not"

    def stored(self) -> None:
        """It is the same after a deep copy, and after config() and the state_dict went through a file."""
        data, tensors = flatten(self.denoiser)
        data = json.loads(json.dumps(data, allow_nan=False))
        again = unflatten(Denoiser, (data, tensors), classes=self.trusted)
        again: Any = again(self.book).to(self.book.device)
        for other in (again.eval(), copy.deepcopy(self.denoiser)):
            same = map(torch.equal, _parts(other(*self.state)), _parts(self.denoiser(*self.state)))
            assert all(same), "its posterior differs"


def _parts(q: Posterior) -> list[Tensor]:
    """All numbers of a posterior, rows first."""
    g = q.gaussian
    # densities at points, as the number of components may depend on the other rows
    points = (-0.7, 0.1, 0.9)
    gaussian = [] if g is None else [g.log_prob(torch.full_like(g.mean(), v)) for v in points]
    return [q.categorical.logits, *gaussian, q.mean()]


def _is_saved(denoiser: Denoiser) -> bool:
    try:
        denoiser.config()
    except NotImplementedError:
        return False
    return True


@torch.no_grad()
def check_denoiser(
    denoiser: Denoiser,
    *,
    properties: Collection[str] | None = None,
    random_state: int = 0,
    trusted: Iterable[type] = (),
) -> list[str]:
    """Check the properties that every denoiser must have, and those that it declares.

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode (``eval()``), on its device. With few columns of categories, so that all rows can be
        enumerated (at most 2048), more is checked; an exact one is then compared with sums over all rows.
    properties : collection of str, optional
        Names of those to check; by default all that apply. A ValueError names one that does not.
    random_state : int
        Seed of the rows, states and draws.
    trusted : iterable of type
        Your own classes that it is made of, as for ``DiffusionDensity.load``.

    Returns
    -------
    list of str
        Names of the properties that were checked: they depend on ``exact``, ``closed_form`` and ``isotropic``, and on
        whether ``config`` is defined. An AssertionError says which does not hold, or that its check raised an error.

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> from discrete_itd.denoisers import MarginalDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2), ColumnPoints("real")])
    >>> check_denoiser(MarginalDenoiser.fit(book, random_rows(book, 20, np.random.default_rng(0))))[:3]
    ['shapes', 'posterior_sums_to_one', 'repeatable']
    """
    s = _Subject(denoiser, random_state, tuple(trusted))
    d, small = denoiser, s.every is not None
    table = small and len(s.book.finite) == s.book.n_columns
    applies = {
        "shapes": True,
        "posterior_sums_to_one": True,
        "repeatable": True,
        "row_alone": True,
        "path_sums_to_one": small and not d.isotropic,
        "closed_form_sums_to_one": small and d.closed_form,
        "missing_cells_are_summed_over": small and d.closed_form and d.exact,
        "posterior_is_enumerated": table and d.exact,
        "any_order": d.exact and not d.isotropic,
        "gradients": any(p.requires_grad for p in d.parameters()),
        "stored": _is_saved(d),
    }
    for unknown in sorted(n for n in properties or () if not applies.get(n)):
        known = [n for n, does in applies.items() if does]
        raise ValueError(f"properties must be of {known}, got {unknown!r}")
    names = [n for n, does in applies.items() if does and (properties is None or n in properties)]
    for n in names:
        check = getattr(s, n)
        try:
            check()
        except Exception as error:
            raise AssertionError(
                f"{type(d).__name__} lacks the property {n!r}. {check.__doc__.strip()}"
                f" Found: {type(error).__name__}: {error}"
            ) from error
    return names
