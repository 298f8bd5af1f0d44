r"""Training: denoising regression over a mixture of SNR patterns.

Every pattern's loss is an unbiased estimate of :math:`-\log P(x)`, in nats per row:

* *isotropic*: all columns at one SNR drawn from an importance density; eq. (3) with its weight;
* *masked*: a random subset of the columns known, every size equally likely, the rest unknown. Here (3) is closed:
  u of C columns unknown cost (C + 1)/u times their cross-entropy (autoregression, averaged over orders);
* *hybrid*: a random subset known and the rest at one SNR; (3) for the rest given the subset.

References
----------
Kong, Brekelmans, Ver Steeg, ICLR 2023, arXiv:2302.03792, eq. (12).
Uria, Murray, Larochelle, "A deep and tractable density estimator", ICML 2014, eq. (10), for the masks.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.channel import Quadrature, State
from discrete_itd.denoisers.base import Denoiser


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Parameters
    ----------
    max_steps : int
        Optimiser steps at most.
    max_time : float, optional
        Seconds at most. The learning rate falls to zero at whichever bound comes first.
    batch_size : int
        Rows B per step.
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    ema : float
        Decay per step of the moving average of weights, which is what is validated and kept.
    patterns : tuple of three floats
        Shares of isotropic, masked and hybrid rows in a batch.
    n_evaluations : int
        Validations in a full run.
    patience : int
        Validations without improvement after which training stops.
    """

    max_steps: int = 6000
    max_time: float | None = None
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    patterns: tuple[float, float, float] = (0.25, 0.6, 0.15)
    n_evaluations: int = 40
    patience: int = 8


class Evaluation(NamedTuple):
    """One line of the history; nats per row with standard errors."""

    step: int
    seconds: float
    train_nats: float
    train_stderr: float
    valid_nats: float
    valid_stderr: float


@dataclass
class Report:
    """What training did."""

    history: list[Evaluation] = field(default_factory=list)
    stopped: str = ""


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global random state from ``seed`` within the block, as before after it.

    Initial weights and dropout know no other source of randomness.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Patterns:
    """Draws noisy states of rows and scores posteriors on them.

    Parameters
    ----------
    quadrature : Quadrature
        Importance density over logsnr for the isotropic and hybrid rows.
    shares : tuple of three floats
        Of isotropic, masked and hybrid rows.
    """

    def __init__(self, quadrature: Quadrature, shares: tuple[float, float, float]) -> None:
        self.quadrature = quadrature
        self.shares = shares

    def loss(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats of each row of ``x`` (B, C) on a fresh pattern: (B,), isotropic rows first, then hybrids."""
        book = denoiser.codebook
        n, device = len(x), x.device
        n_iso, n_hybrid = round(n * self.shares[0]), round(n * self.shares[2])
        n_noisy = n_iso + n_hybrid
        points = book.embed(x)

        def stratified(count: int) -> Tensor:
            jitter = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
            order = torch.randperm(count, generator=generator, device=device)
            return (order + jitter) / max(count, 1)

        # if the share of known columns is uniform, every number of them is equally likely
        share = [x.new_zeros(n_iso, dtype=torch.float64), stratified(n_hybrid), stratified(n - n_noisy)]
        draws = torch.rand(x.shape, generator=generator, device=device, dtype=points.dtype)
        known = draws < torch.cat(share).to(points)[:, None]  # (B, C)

        u = torch.cat([stratified(n_iso), stratified(n_hybrid)])
        gamma, weight = self.quadrature.points(u.clamp_max(1 - 1e-12))
        snr = points.new_zeros(n, book.n_columns)
        snr[:n_noisy] = gamma.to(points)[:, None]
        snr = snr.masked_fill_(known, math.inf)
        xi = torch.zeros_like(points)
        xi[:n_noisy].normal_(generator=generator)
        state = State.start(book, points).increment(book, points, snr, xi)

        posterior = denoiser(*state)
        error = (points - posterior.mean())[:n_noisy].square()
        error = torch.where(book.per_coord(known[:n_noisy]), 0.0, error).sum(1)
        unknown = (~known[n_noisy:]).sum(1)
        surprisal = -torch.where(known, 0.0, posterior.log_prob(x))[n_noisy:].sum(1)
        masked = surprisal * (x.shape[1] + 1) / unknown.clamp_min(1)
        return torch.cat([0.5 * weight.to(error) * error, masked])


def pilot_quadrature(denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Quadrature:
    r"""An importance density over logsnr for a table, from the errors of a denoiser on some of its rows.

    The density is proportional to the root mean square of :math:`\gamma \|x - \hat x\|^2` on a grid (the choice of
    least variance), with a tenth spread evenly. The grid runs from where the channel says nothing to
    where nothing is left to say.
    """
    book = denoiser.codebook
    # simplex: at distance one, SNR 100 leaves an error of 3e-7; a line needs more by the square of its gap
    high = math.log(100.0) + math.log(float(book.known_snr.max()) / 2000.0)
    edges = torch.linspace(math.log(0.01), high, 65, dtype=torch.float64, device=x.device)
    pick = torch.randint(len(x), (512,), generator=generator, device=x.device)
    rows = x[pick]
    points = book.embed(rows)
    start = State.start(book, points)
    values = []
    with torch.no_grad():
        for logsnr in (edges[1:] + edges[:-1]) / 2:
            gamma = torch.exp(logsnr).to(points)
            xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
            state = start.increment(book, points, gamma.expand(start.snr.shape), xi)
            error = (points - denoiser(*state).mean()).square().sum(1).double()
            values.append(gamma.double() * error.square().mean().sqrt())
    density = torch.stack(values)
    share = density / density.sum()
    informative = torch.nonzero(share.cumsum(0) > 1e-5).flatten()[0]
    last = torch.nonzero(share.flip(0).cumsum(0).flip(0) > 1e-5).flatten()[-1]
    density = (0.9 * share + 0.1 / len(share))[informative : last + 1]
    return Quadrature(edges[informative : last + 2], density)


class Evaluator:
    """Held-out nats on patterns that are the same at every call, so that evaluations compare."""

    def __init__(self, patterns: Patterns, x: Tensor, seed: int, *, repeats: int) -> None:
        self._patterns, self._x, self._seed = patterns, x, seed
        self._repeats = repeats

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> tuple[float, float]:
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        total = torch.zeros(len(self._x), dtype=torch.float64, device=self._x.device)
        for _ in range(self._repeats):
            order = torch.randperm(len(self._x), generator=generator, device=self._x.device)
            for part in order.split(4096):
                loss = self._patterns.loss(denoiser, self._x[part], generator).double()
                total.index_add_(0, part, loss)
        per_row = total / self._repeats
        n = len(per_row)
        stderr = float(per_row.std() / math.sqrt(n)) if n > 1 else math.nan
        return float(per_row.mean()), stderr


def train(
    denoiser: Denoiser,
    x: Tensor,
    x_valid: Tensor,
    plan: TrainingPlan,
    *,
    generator: torch.Generator,
    progress: Callable[[float, Evaluation], object] | None = None,
) -> Report:
    """Fit a denoiser in place; it ends with the averaged weights that validated best.

    Parameters
    ----------
    denoiser : Denoiser
        Lies on the device of the rows. Its weights at the call are the first candidate, so the result
        is never worse than they are on the validation rows.
    x, x_valid : Tensor of int64, shapes (N, C) and (N', C)
        Rows as codes.
    plan : TrainingPlan
    generator : torch.Generator
        On the device of the rows.
    progress : callable, optional
        Called with the share done and the latest evaluation.

    Returns
    -------
    Report
    """
    trained = [n for n, p in denoiser.named_parameters() if p.requires_grad]
    parameters = [denoiser.get_parameter(n) for n in trained]
    report = Report()
    start = time.perf_counter()
    quadrature = pilot_quadrature(denoiser, x, generator)
    patterns = Patterns(quadrature, plan.patterns)
    repeats = max(1, min(8, 4096 // len(x_valid)))
    seed = int(torch.randint(2**31, (1,), generator=generator, device=x.device))
    # hybrids estimate conditional nats, so a held-out code length is made of the other two
    evaluate = Evaluator(Patterns(quadrature, (0.5, 0.5, 0.0)), x_valid, seed, repeats=repeats)
    averaged = copy.deepcopy(denoiser).requires_grad_(False).eval()
    average = [averaged.get_parameter(n) for n in trained]
    fused = x.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(
        parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=fused
    )
    losses: list[Tensor] = []
    best, best_weights, since_best = math.inf, [a.clone() for a in average], 0

    def done_share(step: int) -> float:
        share = step / plan.max_steps
        if plan.max_time is not None:
            share = max(share, (time.perf_counter() - start) / plan.max_time)
        return min(share, 1.0)

    def look(step: int) -> None:
        nonlocal best, best_weights, since_best
        valid, valid_stderr = evaluate(averaged)
        recent = (
            torch.stack(losses).double()
            if losses
            else x.new_tensor([math.nan], dtype=torch.float64)
        )
        spread = float(recent.std() / math.sqrt(len(recent))) if len(recent) > 1 else math.nan
        report.history.append(
            Evaluation(
                step, time.perf_counter() - start, float(recent.mean()), spread, valid, valid_stderr
            )
        )
        losses.clear()
        if valid < best:
            best, since_best = valid, 0
            best_weights = [a.clone() for a in average]
        else:
            since_best += 1
        if progress is not None:
            progress(done_share(step), report.history[-1])

    look(0)
    denoiser.train()
    next_look = 1 / plan.n_evaluations
    step, order, at = 0, x.new_zeros(0), 0
    while (share := done_share(step)) < 1.0:
        if at + plan.batch_size > len(order):  # a new epoch; the remainder of the last is dropped
            n_fold = -(-plan.batch_size // len(x))
            folds = [
                torch.randperm(len(x), generator=generator, device=x.device) for _ in range(n_fold)
            ]
            order = torch.cat(folds)
            at = 0
        rows = x[order[at : at + plan.batch_size]]
        at += plan.batch_size
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))
        loss = patterns.loss(denoiser, rows, generator).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0 * x.shape[1], foreach=True)
        optimizer.step()
        step += 1
        decay = min(plan.ema, step / (10 + step))
        for a, p in zip(average, parameters, strict=True):
            a.lerp_(p.detach(), 1 - decay)
        losses.append(loss.detach())
        if done_share(step) >= next_look:
            look(step)
            next_look += 1 / plan.n_evaluations
            if since_best >= plan.patience:
                report.stopped = "no improvement"
                break
    else:
        report.stopped = "max_steps" if step >= plan.max_steps else "max_time"
    if losses:
        look(step)
    with torch.no_grad():
        for p, b in zip(parameters, best_weights, strict=True):
            p.copy_(b)
    denoiser.eval()
    return report
