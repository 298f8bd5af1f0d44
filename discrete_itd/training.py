r"""Training: denoising regression over a mixture of SNR patterns.

Every pattern's loss is in nats per row, and unbiased for what it estimates:

* *isotropic*: all columns at one SNR drawn from an importance density; :math:`-\log P(x)` by (3) with its weight;
* *masked*: a random subset of the columns known, every size equally likely, the rest unknown. Here
  (3) is closed: :math:`-\log P(x)` is (C + 1)/u times the cross-entropy of the u of C columns unknown, on
  average over subsets (an autoregression averaged over orders);
* *hybrid*: a random subset known and the rest at one SNR; (3) for the rest given the subset, which is what
  conditional questions and mixed paths need.

References
----------
Kong, Brekelmans, Ver Steeg, ICLR 2023, arXiv:2302.03792: eq. (3) of :mod:`discrete_itd.likelihood`.
Uria, Murray, Larochelle, "A deep and tractable density estimator", ICML 2014, for the masks.
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
from torch import Tensor, nn

from discrete_itd.channel import Quadrature, State
from discrete_itd.denoisers.base import Denoiser

RATE_CUT, SMALLEST_CUT = 0.3, 0.1  # of the learning rate, at each plateau
EARLY_LOOKS = (8, 16, 32, 64, 128)  # steps; a small table is learned, and over-learned, soon
PILOT_CELLS = 1 << 19  # rows times slots of the pilot
VALIDATION_DRAWS = 4096  # rows times repeats of one validation


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
        Validations without improvement after which the learning rate is cut, and at last training stopped.
    """

    max_steps: int = 6000
    max_time: float | None = None
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    patterns: tuple[float, float, float] = (0.2, 0.7, 0.1)
    n_evaluations: int = 40
    patience: int = 5


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
        n_iso = round(n * self.shares[0])
        n_hybrid = min(n - n_iso, round(n * self.shares[2]))
        n_noisy = n_iso + n_hybrid
        points = book.embed(x)

        def stratified(count: int) -> Tensor:
            jitter = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
            order = torch.randperm(count, generator=generator, device=device)
            return (order + jitter) / max(count, 1)

        # if the share of known columns is uniform, every number of them is equally likely
        share = [
            x.new_zeros(n_iso, dtype=torch.float64),
            stratified(n_hybrid),
            stratified(n - n_noisy),
        ]
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
    n_rows = max(32, min(512, PILOT_CELLS // book.n_slots))
    pick = torch.randint(len(x), (n_rows,), generator=generator, device=x.device)
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
    density = torch.stack(values).clamp_min(1e-300)  # constant columns leave no error at all
    share = density / density.sum()
    informative = torch.nonzero(share.cumsum(0) > 1e-5).flatten()[0]
    last = torch.nonzero(share.flip(0).cumsum(0).flip(0) > 1e-5).flatten()[-1]
    density = (0.9 * share + 0.1 / len(share))[informative : last + 1]
    return Quadrature(edges[informative : last + 2], density)


class Evaluator:
    """Held-out nats on patterns that are the same at every call, so that evaluations compare."""

    def __init__(self, patterns: Patterns, x: Tensor, seed: int) -> None:
        self._patterns, self._x, self._seed = patterns, x, seed
        self._repeats = max(1, min(8, VALIDATION_DRAWS // len(x)))

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> tuple[float, float]:
        """Mean nats per row, and its standard error over rows."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        total = torch.zeros(len(self._x), dtype=torch.float64, device=self._x.device)
        for _ in range(self._repeats):
            order = torch.randperm(len(self._x), generator=generator, device=self._x.device)
            for part in order.split(2048):
                loss = self._patterns.loss(denoiser, self._x[part], generator).double()
                total.index_add_(0, part, loss)
        return _mean_and_error(total / self._repeats)


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
    start = time.perf_counter()
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    quadrature = pilot_quadrature(denoiser, x, generator)
    patterns = Patterns(quadrature, plan.patterns)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=x.device))
    # hybrids estimate conditional nats, so a held-out code length is made of the other two
    evaluate = Evaluator(Patterns(quadrature, (0.5, 0.5, 0.0)), x_valid, seed)
    average = _Average(denoiser, plan.ema)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=x.device.type in ("cpu", "cuda"),
    )
    batches = _batches(x, min(plan.batch_size, max(32, len(x) // 8)), generator)
    report = Report()
    losses: list[Tensor] = []

    def done_share() -> float:
        share = step / max(plan.max_steps, 1)
        if plan.max_time is not None:
            share = max(share, (time.perf_counter() - start) / plan.max_time)
        return min(share, 1.0) if plan.max_steps else 1.0

    def look() -> None:
        valid = evaluate(average.model)
        train = _mean_and_error(torch.stack(losses)) if losses else (math.nan, math.nan)
        losses.clear()
        report.history.append(Evaluation(step, time.perf_counter() - start, *train, *valid))
        average.consider(valid[0])
        if progress is not None:
            progress(done_share(), report.history[-1])

    step, next_look, cut = 0, 1 / plan.n_evaluations, 1.0
    look()
    denoiser.train()
    while (share := done_share()) < 1.0:
        rate = plan.learning_rate * cut * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100)
        loss = patterns.loss(denoiser, next(batches), generator).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0 * x.shape[1])
        optimizer.step()
        step += 1
        average.follow(parameters)
        losses.append(loss.detach())
        if done_share() >= next_look or step in EARLY_LOOKS:
            look()
            if done_share() >= next_look:
                next_look += 1 / plan.n_evaluations
            if average.stale >= plan.patience:
                if cut <= SMALLEST_CUT:
                    report.stopped = "no improvement"
                    break
                # a plateau at this learning rate: go on from the best weights with a smaller one
                cut *= RATE_CUT
                average.restore(parameters)
    else:
        report.stopped = "max_steps" if step >= plan.max_steps else "max_time"
    if losses:
        look()
    average.restore(parameters)
    denoiser.eval()
    return report


class _Average:
    """The moving average of a denoiser's weights, and the best of its past states."""

    def __init__(self, denoiser: Denoiser, decay: float) -> None:
        self.model = copy.deepcopy(denoiser).eval()
        self._weights = [
            p.requires_grad_(False) for p in self.model.parameters() if p.requires_grad
        ]
        self._decay, self._n = decay, 0
        self._best, self._best_weights = math.inf, [w.clone() for w in self._weights]
        self.stale = 0  # evaluations since the best

    def follow(self, parameters: list[nn.Parameter]) -> None:
        """Move towards the weights of the latest step; at first fast, to forget the start."""
        self._n += 1
        share = 1 - min(self._decay, self._n / (10 + self._n))
        for w, p in zip(self._weights, parameters, strict=True):
            w.lerp_(p.detach(), share)

    def consider(self, nats: float) -> None:
        """Keep a copy of the average if it is the best so far."""
        if nats < self._best:
            self._best, self.stale = nats, 0
            self._best_weights = [w.clone() for w in self._weights]
        else:
            self.stale += 1

    @torch.no_grad()
    def restore(self, parameters: list[nn.Parameter]) -> None:
        """Put the best weights into the average and into ``parameters``."""
        self.stale = 0
        for w, p, best in zip(self._weights, parameters, self._best_weights, strict=True):
            w.copy_(best)
            p.copy_(best)


def _batches(x: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of equal size without end; an epoch's remainder is dropped, a short table repeated."""
    while True:
        folds = [
            torch.randperm(len(x), generator=generator, device=x.device)
            for _ in range(-(-size // len(x)))
        ]
        for rows in torch.cat(folds).split(size):
            if len(rows) == size:
                yield x[rows]


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error
