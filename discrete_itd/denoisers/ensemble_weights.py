"""Posteriors of the members of an ensemble for the same rows and states, and the weights fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from discrete_itd.channel import State
from discrete_itd.channel.devices import add_at
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import Denoiser

FEW_ROUNDS = 20  # of the fit at one share, from the weights of all shares together
STIR = 0.01  # of equal weights among those, so that no member is left out from the start
ROUNDS = 300  # of the fit at one of them
BATCH = 512
MOST_CELLS = 1 << 18  # of log-probabilities that the fit at one share looks at


@dataclass(frozen=True)
class Evidence:
    """Posteriors of all members for the same rows in the same states, as far as the weights need them.

    Attributes
    ----------
    share : Tensor, shape (N,)
        Share of known cells of each row.
    size : Tensor, shape (N,)
        Number of cells that are not missing over number of hidden cells.
    log_prob : Tensor, shape (M, n), float64
        Log-probability of each hidden cell under each member, nats.
    row : Tensor of int64, shape (n,)
        The row of each such cell.
    grams : Tensor, shape (N, M, M), float64
        Of each row, sums over the cells of the products of two members' errors, times the SNR: w' G w is the error of
        weights w.
    """

    share: Tensor
    size: Tensor
    log_prob: Tensor
    row: Tensor
    grams: Tensor

    @classmethod
    def masked(
        cls,
        members: Sequence[Denoiser],
        x: Tensor,
        shares: tuple[float, float],
        generator: torch.Generator,
    ) -> Evidence:
        """Each cell known with a probability between ``shares``; of a row that would be known entirely, one is not."""
        low, high = shares
        share = low + (high - low) * torch.rand(len(x), 1, generator=generator, device=x.device)
        draws = torch.rand(x.shape, generator=generator, device=x.device)
        draws = draws.masked_fill(x.isnan(), -1.0)
        top = draws == draws.amax(1, keepdim=True)
        known = (draws < share) & ~top & ~x.isnan()
        return cls._of(members, x, known, None, generator)

    @classmethod
    def random(cls, members: Sequence[Denoiser], x: Tensor, generator: torch.Generator) -> Evidence:
        """Every number of known cells, from none to all but one, equally likely."""
        draws = torch.rand(x.shape, generator=generator, device=x.device)
        rank = draws.masked_fill(x.isnan(), 2.0).argsort(1).argsort(1)
        there = (~x.isnan()).sum(1)
        order = torch.randperm(len(x), generator=generator, device=x.device)
        jitter = torch.rand(len(x), generator=generator, device=x.device)
        n_known = ((order + jitter) / len(x) * there).long()
        return cls._of(members, x, rank < n_known[:, None], None, generator)

    @classmethod
    def noisy(
        cls,
        members: Sequence[Denoiser],
        x: Tensor,
        logsnr: tuple[float, float],
        generator: torch.Generator,
    ) -> Evidence:
        """All cells of a row at one SNR, whose logarithm is between two values; leading ones are known."""
        low, high = logsnr
        u = torch.rand(len(x), 1, generator=generator, device=x.device)
        snr = torch.exp(low + (high - low) * u)
        return cls._of(members, x, members[0].codebook.leading & ~x.isnan(), snr, generator)

    @classmethod
    def _of(
        cls,
        members: Sequence[Denoiser],
        x: Tensor,
        known: Tensor,
        snr: Tensor | None,
        generator: torch.Generator,
    ) -> Evidence:
        book = members[0].codebook
        n_rows = max(32, MOST_CELLS // book.n_columns)
        x, known = x[:n_rows], known[:n_rows]
        snr = None if snr is None else snr[:n_rows]
        log_probs, rows, grams = [], [], []
        for first in range(0, len(x), BATCH):
            part = x[first : first + BATCH]
            points, told = book.embed(part), known[first : first + BATCH]
            state = State.start(book, points, told)
            if snr is not None:
                gamma = snr[first : first + BATCH].to(points)
                target = gamma.expand(state.snr.shape).masked_fill(part.isnan(), 0.0)
                target = target.masked_fill(told, math.inf)
                options = {"generator": generator, "device": x.device, "dtype": points.dtype}
                xi = torch.randn(points.shape, **options)
                state = state.add(book, state.increment(book, points, target, xi))
            asked = ~told & ~part.isnan()
            told_by = member_posteriors(members, *state)
            log_probs.append(torch.stack([q.log_prob(part)[asked] for q in told_by]).double())
            rows.append(asked.nonzero()[:, 0] + first)
            of = book.per_coord(asked.to(points))
            errors = torch.stack([(points - q.mean()) * of for q in told_by]).double()
            if snr is not None:
                errors = errors * snr[first : first + BATCH].double().sqrt()
            grams.append(torch.einsum("mnd,knd->nmk", errors, errors))
        there = (~x.isnan()).sum(1)
        asked = there - known.sum(1)
        return cls(
            known.double().mean(1),
            there / asked.clamp_min(1).double(),
            torch.cat(log_probs, 1),
            torch.cat(rows),
            torch.cat(grams),
        )

    def most_probable(
        self, members: Sequence[int] | None = None, *, start: Tensor | None = None
    ) -> Tensor:
        """Weights (M,) of the mixture under which the cells are most probable, of some members only.

        By expectation maximisation, whose steps never make it worse; from equal weights to the end, or from given ones
        (M,) a few steps only: where the cells tell little of the weights, as where nothing is known, these are
        kept. It is never worse than the best member.
        """
        m = len(self.log_prob)
        chosen = list(range(m)) if members is None else list(members)
        log_prob = self.log_prob[chosen]
        top = log_prob.amax(0)
        ratio = (log_prob - top).exp()  # (m, n)
        w = ratio.new_full((len(chosen),), 1 / len(chosen))
        if start is not None:
            w = (1 - STIR) * start[chosen].to(ratio) + STIR * w
        out = self.log_prob.new_zeros(m)
        out[chosen] = w / w.sum()
        if not log_prob.shape[1]:
            return out
        best = int(log_prob.mean(1).argmax())
        least = log_prob[best].mean() - top.mean()
        for i in range(ROUNDS):
            if start is not None and i >= FEW_ROUNDS and (w @ ratio).log().mean() >= least:
                break
            new = w * (ratio / (w @ ratio)).mean(1)
            done = (new - w).abs().max() < 1e-7
            w = new / new.sum()
            if done:
                break
        if (w @ ratio).log().mean() < least:
            w = torch.zeros_like(w)
            w[best] = 1.0
        out[chosen] = w
        return out

    def least_error(self, members: Sequence[int] | None = None) -> Tensor:
        """Weights (M,) of least squared error, of some members only.

        A quadratic problem on the simplex, by projected gradients; never worse than the best member.
        """
        if members is not None:
            chosen = list(members)
            out = self.grams.new_zeros(self.grams.shape[1])
            out[chosen] = replace(self, grams=self.grams[:, chosen][:, :, chosen]).least_error()
            return out
        gram = self.grams.sum(0)
        gram = gram / gram.diagonal().max().clamp_min(1e-300)
        best = int(gram.diagonal().argmin())
        w = torch.zeros(len(gram), dtype=gram.dtype, device=gram.device)
        w[best] = 1.0  # from the best member downhill
        start, momentum, at = w.clone(), w.clone(), 1.0
        step = 1 / gram.abs().sum(1).max().clamp_min(1e-300)
        for _ in range(ROUNDS):
            new = _project(momentum - step * (gram @ momentum))
            following = (1 + math.sqrt(1 + 4 * at * at)) / 2
            momentum = new + (at - 1) / following * (new - w)
            w, at = new, following
        return w if w @ gram @ w <= start @ gram @ start else start

    def row_errors(self, weights: Tensor) -> Tensor:
        """Squared error of each row (N,), times its SNR, with weights (M,)."""
        return torch.einsum("m,nmk,k->n", weights, self.grams, weights)

    def row_nats(self, weights: Tensor) -> Tensor:
        """Surprisal of each row (N,) with weights (N, M): that of the cells asked for, scaled up to all."""
        top = self.log_prob.amax(0)
        ratio = (self.log_prob - top).exp()  # (M, n)
        cells = -((weights[self.row].T * ratio).sum(0).log() + top)
        return add_at(torch.zeros_like(self.size), 0, self.row, cells) * self.size


def member_posteriors(members: Iterable[Denoiser], y: Tensor, snr: Tensor) -> list[Posterior]:
    """The posterior of each member; the base of several members is evaluated once.

    A member has a base if it has an attribute ``base`` and a method ``correct(posterior_of_base, y, snr)``.
    """
    bases: dict[int, Posterior] = {}
    out = []
    for member in members:
        correct = getattr(member, "correct", None)
        if correct is None:
            out.append(member(y, snr))
            continue
        base = cast(Denoiser, member.base)
        if id(base) not in bases:
            bases[id(base)] = base(y, snr)
        out.append(correct(bases[id(base)], y, snr))
    return out


def share_bases(members: Iterable[Denoiser]) -> None:
    """Let members with equal bases have the same one, so that :func:`member_posteriors` evaluates it once."""
    bases: list[Denoiser] = []
    for member in cast(Iterable[Any], members):
        if hasattr(member, "correct"):
            own = member.base
            member.base = next((base for base in bases if _equal(base, own)), own)
            bases.append(member.base)


def _equal(a: Denoiser, b: Denoiser) -> bool:
    """Whether two denoisers have equal configs and tensors."""
    if not _same(a, b):
        return False
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def _same(a: Any, b: Any) -> bool:
    """Whether two values of configs are equal, denoisers by their classes and configs."""
    if isinstance(a, Denoiser):
        return type(a) is type(b) and _same(a.config(), b.config())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


def _project(v: Tensor) -> Tensor:
    """The nearest point of the probability simplex (Duchi et al., ICML 2008)."""
    u = v.sort(descending=True).values
    excess = (u.cumsum(0) - 1) / torch.arange(1, len(v) + 1, device=v.device)
    n = int((u > excess).sum())
    return (v - excess[n - 1]).clamp_min(0)
