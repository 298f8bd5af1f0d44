"""Properties of a denoiser, and their check."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from discrete_itd.channel import Codebook, CoordinateSchedule, Posterior, State
from discrete_itd.denoisers import Denoiser, SupportDenoiser
from discrete_itd.likelihood import path_log_prob
from discrete_itd.testing.properties import (
    all_rows,
    checked,
    random_rows,
    states_of_every_kind,
    through_file,
)

ENUMERATED_ROWS = 2048  # all possible rows are tried where they are no more than this
FEW_COLUMNS = 5  # up to which all patterns of missing cells are tried
N_DRAWS = 4000
RARE = 1e-5  # significance level of the test of draws


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
        sizes = [c.n_points for c in self.book.columns]
        return (
            None
            if len(self.book.reals) or math.prod(sizes) > ENUMERATED_ROWS
            else all_rows(self.book)
        )

    @cached_property
    def oracle(self) -> SupportDenoiser:
        """The distribution of an exact denoiser of a small table, by sums over all rows."""
        assert self.every is not None
        p = self.denoiser.log_prob(self.every).exp()
        return SupportDenoiser(self.book, self.every[p > 0], p[p > 0])

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

        def message(found: str) -> str:
            return f"{what}. {found}"

        expected = expected.to(got)
        torch.testing.assert_close(got, expected, atol=limit, rtol=limit, msg=message)


def _parts(q: Posterior) -> list[Tensor]:
    """All numbers of a posterior, rows first."""
    g = q.gaussian
    # not the components: their number may depend on the other rows
    points = (-0.7, 0.1, 0.9)
    gaussian = [] if g is None else [g.log_prob(torch.full_like(g.mean(), v)) for v in points]
    return [
        q.categorical.logits,
        *gaussian,
        q.mean(),
    ]


def _shapes(s: _Subject) -> None:
    """Posteriors have the shapes and the floating type of the codebook and finite means, for no rows too."""
    for n in (len(s.rows), 1, 0):
        q = s.denoiser(s.state[0][:n], s.state[1][:n])
        assert isinstance(q, Posterior), f"forward returns a {type(q).__name__}, not a Posterior"
        mean, log_prob = q.mean(), q.log_prob(s.rows[:n])
        assert mean.shape == (n, s.book.n_coords), f"mean has shape {tuple(mean.shape)}"
        assert log_prob.shape == (n, s.book.n_columns), f"log_prob has shape {log_prob.shape}"
        assert mean.dtype == s.book.dtype, f"mean is {mean.dtype}, the codebook {s.book.dtype}"
        assert bool(mean.isfinite().all()), "the mean is not finite"
        assert not bool(log_prob.isnan().any()), "log_prob is NaN"


def _posterior_sums_to_one(s: _Subject) -> None:
    """The posterior of every column sums to one, whatever is known."""
    q = s.denoiser(*s.state)
    total = s.book.levels.sum(q.categorical.probs)
    s.close(total, torch.ones_like(total), "probabilities of a column of categories")
    if q.gaussian is not None:
        total = q.gaussian.log_weight.exp().sum(2)
        s.close(total, torch.ones_like(total), "weights of the components of a continuous column")
        assert bool((q.gaussian.var > 0).all()), "a variance is not positive"


def _repeatable(s: _Subject) -> None:
    """The same state has the same posterior, and torch's global random state is left alone."""
    before = torch.get_rng_state()
    first, again = s.denoiser(*s.state), s.denoiser(*s.state)
    assert all(map(torch.equal, _parts(first), _parts(again))), "(is it in eval() mode?)"
    assert torch.equal(before, torch.get_rng_state()), "the global random state has moved"


def _row_alone(s: _Subject) -> None:
    """The posterior of a row depends on that row alone, not on its batch."""
    y, snr = s.state
    alone = [_parts(s.denoiser(y[i : i + 1], snr[i : i + 1])) for i in range(len(y))]
    for together, parts in zip(_parts(s.denoiser(y, snr)), zip(*alone, strict=True), strict=True):
        s.close(together, torch.cat(parts), "in a batch and alone", loose=1.0)
    if s.denoiser.closed_form:
        rows = torch.cat([s.rows, random_rows(s.book, 9, s.rng, missing=0.4)])
        parts = torch.cat([s.denoiser.log_prob(row[None]) for row in rows])
        s.close(s.denoiser.log_prob(rows), parts, "log_prob in a batch and alone", loose=1.0)


def _patterns(s: _Subject) -> list[Tensor]:
    """The different rows that a small table has whatever columns are missing; at most one if many."""
    assert s.every is not None
    n = s.book.n_columns
    gaps: list[list[int]] = [[], *([j] for j in range(n))]
    if n <= FEW_COLUMNS:
        gaps = [[j for j in range(n) if pattern >> j & 1] for pattern in range(2**n)]
    filler = -1.0  # since NaN is not equal to itself
    at = [torch.tensor(g, dtype=torch.int64, device=s.book.device) for g in gaps]
    rows = [s.every.index_fill(1, g, filler).unique(dim=0) for g in at]
    return [r.masked_fill(r == filler, math.nan) for r in rows]


def _path_sums_to_one(s: _Subject) -> None:
    """Probabilities along a path (6) sum to one over all rows, also over all rows with the same cells missing."""
    n = s.book.n_columns
    order = torch.cat([s.book.leading.nonzero()[:, 0], (~s.book.leading).nonzero()[:, 0]])
    schedule = CoordinateSchedule(n, tuple(order.tolist()))
    for rows in _patterns(s):
        got = path_log_prob(s.denoiser, rows, schedule, n_paths=1, generator=s.generator)
        total = got.log_prob.exp().sum()
        s.close(total, torch.ones_like(total), f"sum over {len(rows)} rows")


def _closed_form_sums_to_one(s: _Subject) -> None:
    """Closed forms sum to one over all rows, also over all rows with the same cells missing."""
    for rows in _patterns(s):
        total = s.denoiser.log_prob(rows).double().exp().sum()
        s.close(total, torch.ones_like(total), f"sum over {len(rows)} rows")


def _missing_cells_are_summed_over(s: _Subject) -> None:
    """A missing cell is marginalised: log_prob is the log of the sum over its values."""
    assert s.every is not None
    rows = random_rows(s.book, 7, s.rng, missing=0.4)
    rows[0] = math.nan
    fits = ((s.every == rows[:, None]) | rows[:, None].isnan()).all(2)
    joint = s.denoiser.log_prob(s.every).expand(len(rows), -1)
    expected = joint.masked_fill(~fits, -torch.inf).logsumexp(1)
    s.close(s.denoiser.log_prob(rows), expected, "rows with gaps, and sums over all rows that fit")


def _factors(s: _Subject) -> None:
    """log_factors sum to log_prob, and are zero where a cell is missing."""
    rows = torch.cat([s.rows, random_rows(s.book, 7, s.rng, missing=0.4)])
    factors, log_prob = s.denoiser.log_factors(rows), s.denoiser.log_prob(rows)
    assert factors.shape == rows.shape, f"log_factors has shape {tuple(factors.shape)}"
    assert not factors[rows.isnan()].any(), "a missing cell has a factor"
    s.close(factors.sum(1), log_prob, "sum of log_factors, and log_prob", loose=100.0)


def _posterior_is_enumerated(s: _Subject) -> None:
    """The posterior of an exact denoiser is the sum over all rows, whatever is known and through whatever noise."""
    got, expected = s.denoiser(*s.state), s.oracle(*s.state)
    s.close(got.categorical.probs, expected.categorical.probs, "posterior, and sums over all rows")


def _evidence(s: _Subject) -> None:
    """log_evidence is log_prob where cells are known or unknown, and else a sum over all rows, if these are few."""
    rows = random_rows(s.book, 7, s.rng, missing=0.4)
    state = State.start(s.book, s.book.embed(rows), ~rows.isnan())
    got = s.denoiser.log_evidence(*state)
    s.close(got, s.denoiser.log_prob(rows), "log_evidence of known cells, and log_prob", more=1e-7)
    if s.every is not None and len(s.book.finite) == s.book.n_columns:
        got, expected = (d.log_evidence(*s.state) for d in (s.denoiser, s.oracle))
        s.close(got, expected, "log_evidence, and sums over all rows")


def _any_order(s: _Subject) -> None:
    """An exact denoiser's path (6) gives log_prob in any order of the columns."""
    gaps = torch.tensor(s.rng.random(s.rows.shape) < 0.3, device=s.rows.device)
    rows = torch.cat([s.rows, s.rows.masked_fill(gaps, math.nan)])
    for order in (range(s.book.n_columns), reversed(range(s.book.n_columns))):
        schedule = CoordinateSchedule(s.book.n_columns, tuple(order))
        got = path_log_prob(s.denoiser, rows, schedule, n_paths=1, generator=s.generator)
        expected = s.denoiser.log_prob(rows).double()
        # a known number is known to a precision of 1e-5
        s.close(got.log_prob, expected, f"order {schedule.order}", more=1e-7)


def _preceding(s: _Subject) -> None:
    """preceding() of a column is a distribution that depends on the columns before it alone."""
    order = s.denoiser.natural_order(s.generator).cpu()
    other = random_rows(s.book, len(s.rows), s.rng, missing=0.2)
    q = s.denoiser.preceding(s.rows, order)
    total = s.book.levels.sum(q.categorical.probs)
    s.close(total, torch.ones_like(total), "probabilities of a column")
    for i, j in enumerate(order.tolist()):
        later = order[i:].to(s.rows.device)
        changed = s.rows.index_copy(1, later, other[:, later])
        got = s.denoiser.preceding(changed, order).log_prob(s.rows)[:, j]
        s.close(
            got, q.log_prob(s.rows)[:, j], f"column {j}, with other cells from it on", loose=1.0
        )


def _draws(s: _Subject) -> None:
    """draw() follows the probabilities of log_prob (a chi-squared test)."""
    drawn = s.denoiser.draw(N_DRAWS, s.generator, allow_unseen=True)
    assert drawn.shape == (N_DRAWS, s.book.n_columns), f"draw returns shape {tuple(drawn.shape)}"
    assert not bool(drawn.isnan().any()), "a cell is missing"
    if s.every is None:
        return
    sizes = [c.n_points for c in s.book.columns]
    at = np.ravel_multi_index(drawn.long().cpu().numpy().T, sizes)
    counts = np.bincount(at, minlength=len(s.every))
    expected = N_DRAWS * s.denoiser.log_prob(s.every).double().exp().cpu().numpy()
    rare = expected < 5  # pooled
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum() + 1e-9)
    p = stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue
    assert len(counts) < 2 or p > RARE, f"p = {p:.1e} over {N_DRAWS} draws"


def _gradients(s: _Subject) -> None:
    """Every gradient is finite, where cells are known, unknown or noisy."""
    with torch.enable_grad():
        q = s.denoiser(*s.state)
        asked = s.rows.masked_fill(s.state[1].isinf(), math.nan)
        loss = (s.book.embed(s.rows) - q.mean()).square().sum() - q.log_prob(asked).sum()
        named = [(n, p) for n, p in s.denoiser.named_parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    for (name, _), grad in zip(named, grads, strict=True):
        assert grad is None or bool(grad.isfinite().all()), f"that of {name} is not"


def _stored(s: _Subject) -> None:
    """It is the same after a deep copy, and after config() and the state_dict went through a file."""
    again = through_file(Denoiser, s.denoiser, s.trusted)(s.book).to(s.book.device)
    for other in (again.eval(), copy.deepcopy(s.denoiser)):
        same = map(torch.equal, _parts(other(*s.state)), _parts(s.denoiser(*s.state)))
        assert all(same), "its posterior differs"


def _overrides(denoiser: Denoiser, *methods: str) -> bool:
    return any(getattr(type(denoiser), m) is not getattr(Denoiser, m) for m in methods)


def _is_saved(denoiser: Denoiser) -> bool:
    try:
        denoiser.config()
    except NotImplementedError:
        return False
    return True


def _precedes(denoiser: Denoiser) -> bool:
    """Whether ``preceding`` is defined; in a mixture, by all members. The base of a network has no own reals."""
    members = [m for m in denoiser.children() if isinstance(m, nn.ModuleList)]
    nested = [d for parts in members for d in parts if isinstance(d, Denoiser)]
    own = _overrides(denoiser, "preceding") and not denoiser.own_reals
    return own and all(map(_precedes, nested))


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
        Names of the properties that were checked: they depend on ``exact``, ``closed_form``, ``ancestral`` and
        ``isotropic``, and on whether ``preceding`` and ``config`` are defined. An AssertionError says which does not
        hold, or that its check raised an error.

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
    that_apply = [
        (_shapes, True),
        (_posterior_sums_to_one, True),
        (_repeatable, True),
        (_row_alone, True),
        (_path_sums_to_one, small and not d.isotropic),
        (_closed_form_sums_to_one, small and d.closed_form),
        (_missing_cells_are_summed_over, small and d.closed_form and d.exact),
        (_factors, d.closed_form),
        (_posterior_is_enumerated, table and d.exact),
        (_evidence, d.exact and _overrides(d, "infer", "log_evidence")),
        (_any_order, d.exact and not d.isotropic),
        (_preceding, _precedes(d)),
        (_draws, d.ancestral),
        (_gradients, any(p.requires_grad for p in d.parameters())),
        (_stored, _is_saved(d)),
    ]
    return checked(denoiser, s, that_apply, properties)
