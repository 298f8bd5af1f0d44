"""Properties of a schedule, and their check."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrete_itd.channel import Schedule, column_ranks
from discrete_itd.channel import check_schedule as check_order
from discrete_itd.storage.stored import flatten, unflatten
from discrete_itd.testing.properties import checked


@dataclass(frozen=True)
class _Subject:
    schedule: Schedule
    rank: Tensor  # (B, C): rows with all, some and none of their cells free
    n_free: Tensor  # (B, 1)
    trusted: tuple[type, ...]

    def snr(self, step: int, rows: slice = slice(None)) -> Tensor:
        return self.schedule.snr(step, self.rank[rows], self.n_free[rows])


def _climbs(s: _Subject) -> None:
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


def _row_alone(s: _Subject) -> None:
    """The SNRs of a row depend on that row alone."""
    for step in range(s.schedule.n_steps + 1):
        alone = torch.cat([s.snr(step, slice(i, i + 1)) for i in range(len(s.rank))])
        assert torch.equal(s.snr(step), alone), f"step {step} differs in a batch"


def _stored(s: _Subject) -> None:
    """It is the same after it went through a file."""
    data, tensors = flatten(s.schedule)
    data = json.loads(json.dumps(data, allow_nan=False))
    again: Schedule = unflatten(Schedule, (data, tensors), classes=s.trusted)
    for name in ("n_steps", "noisy", "complete", "orders"):
        old, new = getattr(s.schedule, name), getattr(again, name)
        assert new == old, f"{name} is {new}, was {old}"
    for step in range(s.schedule.n_steps + 1):
        other = again.snr(step, s.rank, s.n_free)
        assert torch.equal(s.snr(step), other), f"step {step} differs"


def check_schedule(
    schedule: Schedule, n_columns: int, *, random_state: int = 0, trusted: Iterable[type] = ()
) -> list[str]:
    """Check the properties that every schedule must have.

    Parameters
    ----------
    schedule : Schedule n_columns : int
        Number of columns of its table.
    random_state : int
        Seed of the orders of the columns.
    trusted : iterable of type
        Further classes of its constructor's arguments.

    Returns
    -------
    list of str
        Names of the properties that were checked; "stored" if its class can be stored.

    Raises
    ------
    AssertionError
        If a property does not hold; the message says which.
    ValueError
        If it is for another number of columns.

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
    subject = _Subject(schedule, rank, free.sum(1, keepdim=True), (type(schedule), *trusted))
    properties = {"climbs": _climbs, "row_alone": _row_alone, "stored": _stored}
    try:
        flatten(schedule)
    except TypeError:
        del properties["stored"]
    return checked(type(schedule).__name__, properties, subject)
