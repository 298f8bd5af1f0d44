r"""Decoder mixtures: mixtures of products whose classes are points of a continuous latent space.

A small network g, the decoder, maps a point u of the latent space to the parameters of independent columns:

.. math:: P(x) = \mathbb{E}_{u \sim N(0, I)} \prod_j p_j(x_j \mid g(u)).    (9)

While the network is trained, the expectation is a mean over quasi-random points that are fresh in every step, so that
it cannot adapt to them. At the end K points are fixed, and (9) is a mixture of products with K classes: an ordinary
:class:`~discrete_itd.denoisers.mixture.MixtureDenoiser`, exact under any evidence and any pattern of missing cells.
Neighbouring classes share the weights of the network, so that thousands of them can be fitted to a few thousand rows,
where expectation maximisation, which fits every class by itself, overfits with a few hundred.

Two to ``MOST_DEPENDENT`` continuous columns have one Gaussian at a latent point, of which the network decodes the
means, how much each column grows with those before it, and what is left of its variance
(:mod:`discrete_itd.denoisers.gaussian`): numbers that follow from others do so within the classes.

References
----------
Correia, Gala, Quaeghebeur, de Campos & Peharz, "Continuous mixtures of tractable probabilistic models", AAAI 2023,
arXiv:2209.10584, eqs. (2)-(4).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from discrete_itd.channel.codebook import State
from discrete_itd.denoisers.base import held_out_nats
from discrete_itd.denoisers.counts import indicators
from discrete_itd.denoisers.marginal import WIDE_SD, MarginalDenoiser
from discrete_itd.denoisers.mixture import (
    MOST_DEPENDENT,
    MixtureDenoiser,
    expected_sums,
    refine,
    seconds_of_rounds,
    updated,
)
from discrete_itd.models.decoder_network import (
    Columns,
    DecoderNetwork,
    Layout,
    latent_points,
    log_prob,
    mean_log_prob,
    normal,
    shifted,
    whitened,
)
from discrete_itd.threads import threads_for
from discrete_itd.training.state import Average, Optimizer

Progress = Callable[[float, float], object]

LEAST_SD = 0.02  # of a continuous column given the latent point; the column's own is about 1/2
NARROWER = 0.25  # times this given other continuous columns, too, if they may depend on one another
# cells are clamped to this many standard deviations in training: it bounds their gradient
FARTHEST = 8.0
POINTS_PER_ROW = 4  # most latent points: more do not help a small table
FEWEST_POINTS = 64
# points of a training on fewer rows, and classes of its result: twice as many take twice the time of the training, or
# of a score, and gain nothing measurable there
SMALL_TABLE, SMALL_TABLE_POINTS, SMALL_TABLE_CLASSES = 2048, 512, 1024
SMALL_TABLE_STEPS = 200  # a table of N rows has use for about N more
# shares of the points with which the training starts, each for an equal share of it; then all points
STAGES = (0.25, 0.5)
TRAIN_SHARE = 0.5  # of the time, or more where the classes at the end are expected to need less than the remainder
TRIAL_STEPS, FEWEST_STEPS = 2, 64  # a training without time for the latter ends after the former
N_LOOKS = 12  # evaluations on held-out rows in a full run
PATIENCE = 3  # of them without improvement, after which training ends
# share of the bounds before which it does not: the start is slow, near a saddle point
EARLIEST_END = 0.4
LOOK_ROWS = 4096  # held-out rows of an evaluation, at most
WARMUP_STEPS = 20
AVERAGE = 0.99  # decay per step of the moving average of the weights
FILLING_ROUNDS, FILLED_ROWS = 10, 1 << 13  # of the Gaussian that fills gaps; rows filled at once
EM_ROWS = 1 << 15  # rows to which the classes are refined, at most
CELLS = 1 << 22  # rows times latent points of one batch
KEPT_FEATURES = 1 << 23  # of all rows: if they have more, each batch computes its own
MARGINAL_SHARE = 1e-4  # of each class: no category is impossible in any


@dataclass(frozen=True)
class DecoderPlan:
    """Settings of a fit.

    Parameters
    ----------
    n_latent : int
        Dimensions of the latent space, at most 21201 (of Sobol points).
    width : int
        Hidden units in each of the two layers of the network.
    n_points : int
        Latent points in a step of training, at most.
    n_components : int
        Classes K of the result, at most; with continuous columns one more, for outliers.
    batch_size : int
        Rows per step, at most.
    max_steps : int
        Most optimiser steps.
    max_time : float, optional
        Most seconds of the whole fit. The learning rate falls to zero at the bound that comes first.
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    least_sd : float
        Least standard deviation of a continuous column given the latent point, in units of the channel, in which the
        column's own is 1/2. Narrower ones need more points for the same error of the mean (9). A quarter of it where
        continuous columns may depend on one another at a latent point: these are narrow in some directions only.
    """

    n_latent: int = 8
    width: int = 128
    n_points: int = 2048
    n_components: int = 8192
    batch_size: int = 256
    max_steps: int = 4000
    max_time: float | None = None
    learning_rate: float = 1e-2
    weight_decay: float = 0.01
    least_sd: float = LEAST_SD

    def __post_init__(self) -> None:
        for name in ("n_latent", "width", "n_points", "n_components", "batch_size", "least_sd"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")


def fit_decoder(
    marginals: MarginalDenoiser,
    x: Tensor,
    x_valid: Tensor,
    plan: DecoderPlan | None = None,
    *,
    generator: torch.Generator,
    progress: Progress | None = None,
    ended: Callable[[int, int], object] | None = None,
    is_over: Callable[[], bool] = lambda: False,
    is_hopeless: Callable[[Tensor], bool] = lambda nats: False,  # noqa: ARG005
    clock: Callable[[], float] = time.perf_counter,
) -> MixtureDenoiser:
    """A mixture of products whose classes are points of a latent space, decoded by a network (9).

    Parameters
    ----------
    marginals : MarginalDenoiser
        Independent columns of the same rows: initial distributions of the network, and the high-cardinality columns of
        the
        result.
    x, x_valid : Tensor of float64, shapes (N, C) and (N', C)
        Training rows and held-out rows, at least one of each; NaN where a cell is missing. The first ``LOOK_ROWS``
        held-out rows end the training and the rounds of the weights, and choose between the fit and ``marginals``.
    plan : DecoderPlan, optional generator : torch.Generator
        On the device of the rows. With the same state and without ``max_time``, the fit is the same.
    progress : callable, optional
        Called after each evaluation with the share of the training that is done and the best held-out nats per row.
    ended : callable, optional
        Called if ``max_time`` ended the training, with the number of steps and its bound. It is 0 if there was no time
        for
        enough of them: then the result is ``marginals``.
    is_over, is_hopeless : callable
        Whether to end the fit at once with the current result; see :func:`discrete_itd.training.loop.train`.
    clock : callable
        Seconds, compared with ``max_time``.

    Returns
    -------
    MixtureDenoiser
        Not worse than ``marginals`` on the held-out rows named above.
    """
    if not len(x) or not len(x_valid):
        raise ValueError("a decoder mixture is fitted to at least one row and one held-out row")
    if all(c.kind == "code" or c.n_levels == 1 for c in marginals.codebook.columns):
        return alone(marginals)  # the network would have no outputs
    run = DecoderRun(marginals, x, x_valid, plan or DecoderPlan(), generator, clock, is_over)
    with threads_for(run.work):
        run.train(progress, is_hopeless)
        if run.is_out_of_time and ended is not None:
            ended(run.step, run.max_steps)
        return run.mixture() if run.step or not run.is_out_of_time else alone(marginals)


def seconds_needed(
    marginals: MarginalDenoiser,
    x: Tensor,
    x_valid: Tensor,
    plan: DecoderPlan,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Expected upper bound on the seconds of :func:`fit_decoder` with all its steps, from a few of them.

    The caller's random numbers are not used.
    """
    generator = torch.Generator(x.device).manual_seed(0)
    run = DecoderRun(marginals, x, x_valid, plan, generator, clock)
    with threads_for(run.work):
        run.look()
        start = clock()
        for _ in range(TRIAL_STEPS):
            run.make_step(
                run.batch(), 1.0
            )  # at all points: most steps have fewer, so it is a bound
        training = run.max_steps * (clock() - start) / TRIAL_STEPS
    return run.seconds() + training + min(training, run.seconds_of_classes)


class DecoderRun:
    """A fit in progress: training, then the classes."""

    def __init__(
        self,
        marginals: MarginalDenoiser,
        x: Tensor,
        x_valid: Tensor,
        plan: DecoderPlan,
        generator: torch.Generator,
        clock: Callable[[], float],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock, self.start, self.is_over = clock, clock(), is_over
        self.marginals, self.rows, self.x_valid = marginals, x, x_valid[:LOOK_ROWS]
        self.plan, self.generator = plan, generator
        book = marginals.codebook
        cells = x[:, book.reals].double()
        mean = cells.nanmean(0).nan_to_num(0.0)
        dependent = 1 < len(book.reals) <= MOST_DEPENDENT
        least = plan.least_sd * (NARROWER if dependent else 1.0)
        sd = (cells - mean).square().nanmean(0).sqrt().nan_to_num(0.5).clamp_min(least)
        self.x, self.looked = x, self.x_valid  # rows of the training
        if dependent:
            self.x, self.looked = self._without_gaps(mean, sd)
        gaps = self.x.isnan().any(0) | self.looked.isnan().any(0) | self._unseen(self.x_valid)
        far = FARTHEST * sd
        self.layout = Layout(marginals, gaps, mean - far, mean + far)
        sizes = (plan.n_latent, plan.width, plan.width)
        self.network = DecoderNetwork(
            self.layout, mean, sd, least_sd=least, sizes=sizes, generator=generator
        )
        self.average = Average(self.network, AVERAGE)
        parameters = dict(self.network.named_parameters())
        self.optimizer = Optimizer(parameters, plan.weight_decay, math.sqrt(x.shape[1]))
        useful = 1 << (max(FEWEST_POINTS, POINTS_PER_ROW * len(x)) - 1).bit_length()
        n_points, n_components = min(plan.n_points, useful), min(plan.n_components, useful)
        if len(x) < SMALL_TABLE:
            n_points = min(n_points, SMALL_TABLE_POINTS)
            n_components = min(n_components, SMALL_TABLE_CLASSES)
        self.n_components = n_components
        self.points = latent_points(n_points, plan.n_latent, generator)
        self.batch_size = min(plan.batch_size, max(32, len(x) // 8), len(x))
        self.order = torch.zeros(0, dtype=torch.int64, device=x.device)
        n_features = self.layout.of_rows(self.x[:1])[0].shape[1]
        self.features = None
        if len(x) * n_features <= KEPT_FEATURES:
            self.features = self.layout.of_rows(self.x)
        self.max_steps = min(plan.max_steps, SMALL_TABLE_STEPS + len(x))
        self.step, self.is_out_of_time = 0, False
        self.seconds_of_classes = 0.0  # that they are expected to take
        self.seconds_to_begin = 0.0  # until the end of the first step

    def _without_gaps(self, mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """Training and held-out rows with missing numbers drawn given the others by one Gaussian of all rows.

        For the training only, whose classes are then refined to the original rows.
        """
        book, both = self.marginals.codebook, (self.rows, self.x_valid)
        if not any(bool(x[:, book.reals].isnan().any()) for x in both):
            return both
        probs, like = self.marginals.log_probs.exp()[None], book.known_snr
        chol = torch.diag_embed(sd)[None]
        one = MixtureDenoiser(
            book, like.new_ones(1), probs, mean[None], fallback=self.marginals, chol=chol
        )
        for _ in range(FILLING_ROUNDS):
            one = updated(one, expected_sums(one, self.rows[:EM_ROWS]), 1.0, 0)

        def complete(x: Tensor) -> Tensor:
            q = one(*State.start(book, book.embed(x), ~x.isnan())).gaussian
            assert q is not None
            cells = x[:, book.reals]
            drawn = q.sample(self.generator).to(cells)
            return x.index_copy(1, book.reals, torch.where(cells.isnan(), drawn, cells))

        first, second = (torch.cat([*map(complete, x.split(FILLED_ROWS))]) for x in both)
        return first, second

    def _unseen(self, x: Tensor) -> Tensor:
        """Columns with a cell of an unseen category: (C,) of bool."""
        book, out = self.marginals.codebook, torch.zeros_like(x[0], dtype=torch.bool)
        ones = indicators(book, x).amax(0, keepdim=True) * book.levels.level_unseen
        out[book.finite] = book.levels.sum(ones)[0] > 0
        return out

    @property
    def work(self) -> int:
        """Multiply-adds of a step: points through the network, and their products with the rows of a batch."""
        n = sum(p.numel() for p in self.network.parameters())
        return len(self.points) * (n + self.batch_size * self.layout.n_values)

    def seconds(self) -> float:
        return self.clock() - self.start

    def seconds_left(self) -> float:
        if self.is_over():
            return 0.0
        return math.inf if self.plan.max_time is None else self.plan.max_time - self.seconds()

    def done_share(self) -> float:
        """The share of the bounds of training on steps and time that is used up."""
        share = self.step / self.max_steps if self.max_steps else 1.0
        if self.plan.max_time is not None:
            bound = self.training_time(self.plan.max_time)
            share = max(share, self.elapsed_share(bound))
        return min(share, 1.0)

    def elapsed_share(self, bound: float) -> float:
        """The used share of the time of all steps but the first, which may take longer than others."""
        seconds = self.seconds()
        if seconds >= bound:
            return 1.0
        return (
            (seconds - self.seconds_to_begin) / (bound - self.seconds_to_begin)
            if self.step
            else 0.0
        )

    def training_time(self, max_time: float) -> float:
        """Seconds for the training: the time that the classes do not need, but at least a share."""
        return max(TRAIN_SHARE * max_time, max_time - self.seconds_of_classes)

    # -- training -----------------------------------------------------------------------------------

    def train(self, progress: Progress | None, is_hopeless: Callable[[Tensor], bool]) -> None:
        """Make steps until a bound is reached or held-out rows no longer improve."""
        start = float(self.look().mean())
        looked, next_look = self.seconds(), 1 / N_LOOKS
        while (share := self.done_share()) < 1.0:
            if self.is_over() or (self.average.stale >= PATIENCE and share > EARLIEST_END):
                return
            self.make_step(self.batch(), share)
            if self.step == TRIAL_STEPS and not self.has_time(
                (self.seconds() - looked) / self.step
            ):
                self.step = 0
                break
            if (share := self.done_share()) < next_look:
                continue
            nats = self.look()
            while next_look <= share:
                next_look += 1 / N_LOOKS
            if progress is not None:
                progress(share, self.average.best)
            # rows with filled gaps have other code lengths than those of the candidates
            if share > EARLIEST_END and self.looked is self.x_valid:
                gained = max(0.0, start - float(nats.mean()))
                if is_hopeless(nats - gained):
                    return
        self.is_out_of_time = self.step < self.max_steps

    def has_time(self, seconds_per_step: float) -> bool:
        """Whether there is time for the least number of steps of a useful training."""
        if self.plan.max_time is None:
            return True
        left = self.training_time(self.plan.max_time) - self.seconds()
        return self.step + left / seconds_per_step >= min(FEWEST_STEPS, self.max_steps)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The features of the next rows; each epoch is in random order."""
        if len(self.order) < self.batch_size:
            n, device = len(self.x), self.x.device
            self.order = torch.randperm(n, generator=self.generator, device=device)
        these, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        if self.features is None:
            return self.layout.of_rows(self.x[these])
        features, start = self.features
        return features[these], start[these]

    def make_step(self, rows: tuple[Tensor, Tensor], share: float) -> None:
        """Make a step down the gradient of one batch, at its own latent points; few of them at first."""
        plan, stages = self.plan, (*STAGES, 1.0)
        rate = plan.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
        rate *= min(1.0, (self.step + 1) / WARMUP_STEPS)
        part = stages[min(int(share * len(stages)), len(stages) - 1)]
        points = self.points[: max(FEWEST_POINTS, int(part * len(self.points)))]
        u = normal(shifted(points, self.generator), rows[0])
        loss = -mean_log_prob(rows, self.layout.of_points(self.network(u)))
        self.optimizer.step(loss, rate)
        self.step += 1
        if self.step == 1:
            self.seconds_to_begin = self.seconds()
        self.average.follow(self.network.parameters())

    @torch.no_grad()
    def look(self) -> Tensor:
        """Validate: code lengths of held-out rows (N',) by the averaged weights; the best weights so far are kept."""
        start = self.clock()
        points = self.layout.of_points(self.average.model(normal(self.points, self.layout.base)))
        parts = self.looked.split(max(1, CELLS // len(points)))
        log_probs = [log_prob(self.layout.of_rows(rows), points) for rows in parts]
        each = -torch.cat(log_probs).double()
        nats = float(each.mean())
        if not self.step:
            took = (self.clock() - start) * self.n_components / len(self.points)
            n_rows = min(len(self.x), EM_ROWS)
            self.seconds_of_classes = seconds_of_rounds(took, n_rows, len(self.x_valid))
        self.average.consider(nats)
        return each

    # -- the classes --------------------------------------------------------------------------------

    @torch.no_grad()
    def mixture(self) -> MixtureDenoiser:
        """The mixture at fixed latent points, refined; or the marginals if these predict held-out rows better."""
        u = latent_points(self.n_components, self.plan.n_latent, self.generator)
        self.average.restore(self.network.parameters())
        fitted, rows = self.made(self.network(normal(u, self.layout.base))), self.rows
        if len(rows) > EM_ROWS:
            order = torch.randperm(len(rows), generator=self.generator, device=rows.device)
            rows = rows[order[:EM_ROWS]]
        fixed = int(fitted.own_reals)  # the class for outliers
        fitted = refine(
            fitted, rows, self.x_valid, n_fixed=fixed, left=self.seconds_left, clock=self.clock
        )
        return min((fitted, alone(self.marginals)), key=lambda m: held_out_nats(m, self.x_valid))

    def made(self, columns: Columns) -> MixtureDenoiser:
        """The mixture of classes at latent points, of equal weights."""
        book, marginals = self.marginals.codebook, self.marginals
        prior, mean, var = marginals.log_probs.exp(), columns.mean, columns.var
        probs = self.layout.log_probs(columns.values).exp()
        probs = (1 - MARGINAL_SHARE) * probs + MARGINAL_SHARE * prior
        weights = probs.new_full((len(probs),), 1 / len(probs))
        fallback = marginals if book.vocabularies else None
        if not len(book.reals):
            return MixtureDenoiser(book, weights, probs, fallback=fallback)
        # one class more, of the weight of one row, for outliers: the other Gaussians are narrow
        own = 1 / (len(self.x) + 1)
        weights = torch.cat([(1 - own) * weights, weights.new_tensor([own])])
        probs = torch.cat([probs, prior[None]])
        mean = torch.cat([mean, torch.zeros_like(mean[:1])])
        if columns.slopes is None:
            var = torch.cat([var, torch.full_like(var[:1], WIDE_SD**2)])
            return MixtureDenoiser(book, weights, probs, mean, var, fallback)
        wide = torch.diag_embed(torch.full_like(var[:1], WIDE_SD))
        whitening = whitened(columns.slopes, columns.var).double()
        chol = torch.cat([torch.linalg.inv(whitening).to(wide), wide])
        return MixtureDenoiser(book, weights, probs, mean, fallback=fallback, chol=chol)


def alone(marginals: MarginalDenoiser) -> MixtureDenoiser:
    """Independent columns as a mixture of one class."""
    book, probs = marginals.codebook, marginals.log_probs.exp()[None]
    fallback = marginals if book.vocabularies or len(book.reals) else None
    return MixtureDenoiser(book, probs.new_ones(1), probs, fallback=fallback)
