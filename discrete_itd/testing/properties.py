"""The runner of all checks; rows and states of small tables; the properties of a schedule."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from discrete_itd.channel import Codebook, Schedule, column_ranks
from discrete_itd.channel import check_schedule as check_order
from discrete_itd.storage.values import flatten, unflatten

S = TypeVar("S")


def checked(
    thing: object,
    subject: S,
    properties: Iterable[tuple[Callable[[S], None], bool]],
    wanted: Collection[str] | None = None,
) -> list[str]:
    """Names of the properties of ``subject`` that hold; AssertionError naming the first that does not.

    Each function of ``properties``, named after its property with an underscore in front, raises an error if
    ``subject`` lacks what its docstring states; the flag says whether the property applies. Messages name the class of
    ``thing``. ``wanted`` are the properties to check, by default all that apply; ValueError for another one.
    """
    checks = {check.__name__[1:]: check for check, applies in properties if applies}
    for unknown in sorted(set(wanted or ()) - set(checks)):
        raise ValueError(f"properties must be of {list(checks)}, got {unknown!r}")
    names = [n for n in checks if wanted is None or n in wanted]
    for n in names:
        try:
            checks[n](subject)
        except Exception as error:
            raise AssertionError(
                f"{type(thing).__name__} lacks the property {n!r}. {(checks[n].__doc__ or '').strip()}"
                f" Found: {type(error).__name__}: {error}"
            ) from error
    return names


def through_file(kind: type, thing: object, trusted: tuple[type, ...] = ()) -> Any:
    """``thing`` after a round trip through a file, a stored object whose class is ``kind`` or derived from it."""
    data, tensors = flatten(thing)
    data = json.loads(json.dumps(data, allow_nan=False))
    return unflatten(kind, (data, tensors), classes=trusted)


# -- rows and states ---------------------------------------------------------------------------------


def all_rows(codebook: Codebook, grid: Sequence[float] | None = None) -> Tensor:
    """Every row over the categories of a codebook, and over a grid of values of its continuous columns."""
    values: list[Any] = [grid if c.kind == "real" else range(c.n_points) for c in codebook.columns]
    rows = list(itertools.product(*values))
    return torch.tensor(rows, dtype=torch.float64, device=codebook.device)


def random_rows(
    codebook: Codebook, n: int, rng: np.random.Generator, *, missing: float = 0.0
) -> Tensor:
    """Rows of a codebook, (n, C): any category, any value, NaN with a probability of ``missing``."""
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


# -- schedules ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scheduled:
    schedule: Schedule
    rank: Tensor  # (B, C): rows with all, some and none of their cells free
    n_free: Tensor  # (B, 1)
    trusted: tuple[type, ...]

    def snr(self, step: int, rows: slice = slice(None)) -> Tensor:
        return self.schedule.snr(step, self.rank[rows], self.n_free[rows])


def _climbs(s: _Scheduled) -> None:
    """SNRs are zero at step 0 and never fall; all are infinite at the end if and only if it is complete."""
    before, own = s.snr(0), (s.rank >= 0) & (s.rank < s.n_free)  # elsewhere paths set the SNR
    assert before.shape == s.rank.shape, f"snr has shape {tuple(before.shape)}"
    assert not bool((before != 0)[own].any()), "an SNR at step 0 is not zero"
    assert s.schedule.n_steps >= 1, f"n_steps is {s.schedule.n_steps}"
    for step in range(1, s.schedule.n_steps + 1):
        snr = s.snr(step)
        assert not bool(snr.isnan().any()), f"an SNR of step {step} is NaN"
        assert bool((snr >= before)[own].all()), f"an SNR falls in step {step}"
        assert bool((snr > before)[0].any()), f"nothing changes in step {step} of a complete row"
        if not s.schedule.noisy:
            assert bool((snr.isinf() | (snr == 0))[own].all()), (
                f"it is not noisy, but an SNR of step {step} is neither 0 nor infinite"
            )
        before = snr
    all_known = bool(before[own].isinf().all())
    assert all_known == s.schedule.complete, f"complete is {s.schedule.complete}"


def _row_alone(s: _Scheduled) -> None:
    """The SNRs of a row depend on that row alone."""
    for step in range(s.schedule.n_steps + 1):
        alone = torch.cat([s.snr(step, slice(i, i + 1)) for i in range(len(s.rank))])
        assert torch.equal(s.snr(step), alone), f"step {step} differs in a batch"


def _stored(s: _Scheduled) -> None:
    """It is the same after it went through a file."""
    again: Schedule = through_file(Schedule, s.schedule, s.trusted)
    for name in ("n_steps", "noisy", "complete", "orders"):
        old, new = getattr(s.schedule, name), getattr(again, name)
        assert new == old, f"{name} is {new}, was {old}"
    for step in range(s.schedule.n_steps + 1):
        other = again.snr(step, s.rank, s.n_free)
        assert torch.equal(s.snr(step), other), f"step {step} differs"


def check_schedule(
    schedule: Schedule, n_columns: int, *, random_state: int = 0, trusted: Iterable[type] = ()
) -> list[str]:
    """Names of the properties that a schedule for ``n_columns`` columns has; an AssertionError says which it lacks.

    ``random_state`` is the seed of the orders of the columns; ``trusted`` are further classes of the arguments of its
    constructor, if it can be stored. A ValueError if it is for another number of columns.

    Examples
    --------
    >>> from discrete_itd.channel import CoordinateSchedule
    >>> check_schedule(CoordinateSchedule(3), 3)
    ['climbs', 'row_alone', 'stored']
    """
    check_order(schedule, n_columns)
    generator = torch.Generator().manual_seed(random_state)
    uniform = torch.rand(5, n_columns, generator=generator)
    free = torch.rand(5, n_columns, generator=generator) < 0.6
    known = ~free & (torch.rand(5, n_columns, generator=generator) < 0.5)
    free[0], known[0] = True, False
    rank = column_ranks(schedule, uniform, torch.arange(5), free, known)
    subject = _Scheduled(schedule, rank, free.sum(1, keepdim=True), (type(schedule), *trusted))
    try:
        flatten(schedule)
        is_stored = True
    except TypeError:
        is_stored = False
    properties = (_climbs, True), (_row_alone, True), (_stored, is_stored)
    return checked(schedule, subject, properties)
