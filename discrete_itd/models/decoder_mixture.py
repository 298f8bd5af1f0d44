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
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers.base import Denoiser, held_out_nats
from discrete_itd.denoisers.decoder import (
    Columns,
    DecoderNetwork,
    Layout,
    latent_points,
    log_prob,
    normal,
    shifted,
    whitened,
)
from discrete_itd.denoisers.marginal import WIDE_SD, indicators
from discrete_itd.denoisers.mixture import (
    MOST_DEPENDENT,
    MixtureDenoiser,
    expected_sums,
    refine,
    updated,
)
from discrete_itd.devices import threads_for
from discrete_itd.models.contract import FitPlan, Recipe, TrainingRows
from discrete_itd.progress import show_training
from discrete_itd.training.config import Report, TrainingPlan
from discrete_itd.training.loop import train

# least standard deviation of a continuous column given the latent point, in units of the channel, in which the
# column's own is about 1/2: narrower ones need more points for the same error of the mean (9). Columns that may depend
# on one another are narrow in some directions only, and have this part of it
LEAST_LATENT_SD, NARROWER = 0.02, 0.25
# cells are clamped to this many standard deviations in training: it bounds their gradient
CLAMPED_SD = 8.0
MOST_CLASSES = 1 << 14  # most classes, and latent points, that a user may ask for
WIDTH = 128  # hidden units in each of the two layers of the network
CLASSES_PER_ROW = 4  # most classes per training row, before rounding up to a power of two
# On fewer than SMALL_TABLE rows, training uses at most SMALL_TABLE_POINTS latent points and returns at most
# SMALL_TABLE_CLASSES classes: twice as many take twice the time of the training, or of a score, and gain nothing
# measurable.
SMALL_TABLE, SMALL_TABLE_POINTS, SMALL_TABLE_CLASSES = 2048, 512, 1024
FEWEST_LATENT_POINTS = 64
SMALL_TABLE_STEPS = 200  # training takes at most this many steps more than the table has rows
# shares of the latent points that are used in training, each during an equal part of it
POINT_SHARES = (0.25, 0.5, 1.0)
TRAIN_SHARE = 0.7  # share of the time that training may take; fitting the classes has the rest
JUDGED_ROWS = 4096  # most held-out rows of an evaluation
TRAINING = TrainingPlan(
    batch_size=256,
    learning_rate=1e-2,
    weight_decay=0.01,
    warmup=20,
    ema=0.99,
    max_gradient=0.3,
    n_validations=12,
    patience=3,
    last_cut=0.4,
)
# gaps are filled by a Gaussian fitted in FILLING_ROUNDS rounds of EM, FILLED_ROWS rows at a time
FILLING_ROUNDS, FILLED_ROWS = 10, 1 << 13
REFINED_ROWS = 1 << 15  # most rows on which the classes are refined
MARGINAL_SHARE = 1e-4  # weight of independent columns in each class: no category is impossible


@dataclass(frozen=True)
class Mixture(Recipe):
    """A mixture of products whose classes a network decodes from points of a latent space (9); exact.

    Two to 32 continuous columns depend on one another in every class, so that a number may follow from others.

    Parameters
    ----------
    n_components, n_latent : int
        Classes at most, and dimensions of the latent space.
    n_points, max_steps : int
        Latent points in a step of the training, and steps, at most.
    """

    n_components: int = 4096
    n_latent: int = 8
    n_points: int = 2048
    max_steps: int = 2000
    exact = mixes_reals = True
    name = "mixture"
    bounds: ClassVar = {
        **dict.fromkeys(("n_components", "n_latent", "n_points"), (1, MOST_CLASSES)),
        "max_steps": (1, math.inf),
    }

    def fit(self, rows: TrainingRows, plan: FitPlan) -> Denoiser:
        if not plan.training.max_steps:
            raise ValueError(
                "max_steps=0: the classes of a mixture are decoded by a network, which takes training; allow steps, or"
                " take 'bayes_net' or 'forest'"
            )
        if all(c.n_levels == 1 for c in rows.codebook.columns):
            return rows.marginals  # the network would have no outputs
        return rows.once(self, lambda: MixtureFit(self, rows).run(plan))


class LatentLoss:
    """(9) at latent points that are fresh in every step, few of them at first: at a ``share`` of the training."""

    repeats = False

    def __init__(self, share: float) -> None:
        self.part = POINT_SHARES[min(int(share * len(POINT_SHARES)), len(POINT_SHARES) - 1)]

    def nats(
        self, denoiser: Denoiser, x: Tensor, generator: torch.Generator, *constants: Tensor
    ) -> Tensor:
        """Code lengths of the rows with these ``constants``, (B,)."""
        assert isinstance(denoiser, DecoderNetwork)
        features, start = constants
        n = max(FEWEST_LATENT_POINTS, int(self.part * len(denoiser.points)))
        u = normal(shifted(denoiser.points[:n], generator), features)
        return -log_prob((features, start), denoiser.layout.of_points(denoiser.columns(u)))


class MixtureFit:
    """A fit in progress: training, then the classes. ``report`` describes the training."""

    def __init__(self, recipe: Mixture, rows: TrainingRows) -> None:
        marginals, x = rows.marginals, rows.x
        self.marginals, self.rows, self.x_valid = marginals, x, rows.x_valid[:JUDGED_ROWS]
        self.recipe, self.generator, self.report = recipe, rows.generator, Report()
        book = marginals.codebook
        cells = x[:, book.reals].double()
        mean = cells.nanmean(0).nan_to_num(0.0)
        dependent = 1 < len(book.reals) <= MOST_DEPENDENT
        least = LEAST_LATENT_SD * (NARROWER if dependent else 1.0)
        sd = (cells - mean).square().nanmean(0).sqrt().nan_to_num(0.5).clamp_min(least)
        self.x, self.judged = x, self.x_valid  # rows of the training
        if dependent:
            self.x, self.judged = self._without_gaps(mean, sd)
        gaps = self.x.isnan().any(0) | self.judged.isnan().any(0) | self._unseen(self.x_valid)
        far = CLAMPED_SD * sd
        n_points = 1 << max(2 * FEWEST_LATENT_POINTS, 2 * len(x) // 3).bit_length() - 1
        n_classes = 1 << (max(FEWEST_LATENT_POINTS, CLASSES_PER_ROW * len(x)) - 1).bit_length()
        if len(x) < SMALL_TABLE:
            n_points = min(n_points, SMALL_TABLE_POINTS)
            n_classes = min(n_classes, SMALL_TABLE_CLASSES)
        self.n_components = min(recipe.n_components, n_classes)
        self.network = DecoderNetwork(
            Layout(marginals, gaps, mean - far, mean + far),
            mean,
            sd,
            least_sd=least,
            sizes=(recipe.n_latent, WIDTH, WIDTH),
            n_points=min(recipe.n_points, n_points),
            generator=self.generator,
        )
        max_steps = min(recipe.max_steps, SMALL_TABLE_STEPS + len(x))
        self.training = replace(TRAINING, max_steps=max_steps)

    def _without_gaps(self, mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the training and its evaluations: missing numbers are drawn given the others by one Gaussian."""
        book, both = self.marginals.codebook, (self.rows, self.x_valid)
        if not any(bool(x[:, book.reals].isnan().any()) for x in both):
            return both
        # of the numbers alone: the categories have no part in it
        numbers = Codebook([book.columns[j] for j in book.reals.tolist()]).to(book.known_snr)
        start = sd.new_ones(1), sd.new_ones(1, 0), mean[None]
        one = prior = MixtureDenoiser(numbers, *start, chol=torch.diag_embed(sd)[None])
        for _ in range(FILLING_ROUNDS):
            one = updated(prior, expected_sums(one, self.rows[:REFINED_ROWS, book.reals]), 0.0, 0)
        gaussian = one.dense
        assert gaussian is not None

        def complete(x: Tensor) -> Tensor:
            cells, first = x[:, book.reals], torch.zeros_like(x[:, 0], dtype=torch.int64)
            drawn = gaussian.conditioned(one.draw(len(x), self.generator), first, cells)
            return x.index_copy(1, book.reals, torch.where(cells.isnan(), drawn, cells))

        first, second = (torch.cat([*map(complete, x.split(FILLED_ROWS))]) for x in both)
        return first, second

    def _unseen(self, x: Tensor) -> Tensor:
        """Columns with a cell of an unseen category: (C,) of bool."""
        book, out = self.marginals.codebook, torch.zeros_like(x[0], dtype=torch.bool)
        ones = indicators(book, x).amax(0, keepdim=True) * book.levels.level_unseen
        out[book.finite] = book.levels.sum(ones)[0] > 0
        return out

    def run(self, plan: FitPlan) -> Denoiser:
        """The mixture, not worse than independent columns on held-out rows; these if there was no time for training."""
        self.report = self.train(plan)
        plan.note_end(self.report, "mixture")
        stopped, last = self.report.stopped, self.report.history[-1]
        if stopped in ("max_time", "interrupted") and not last.step:
            return self.marginals
        with threads_for(self.network.score_work * TRAINING.batch_size):
            return self.mixture(lambda: plan.time_left)

    def train(self, plan: FitPlan) -> Report:
        """Train for a part of the time that is left."""
        training, seconds = self.training, plan.time_left
        if seconds < math.inf:
            training = replace(training, max_time=TRAIN_SHARE * seconds)
        return train(
            self.network,
            self.x,
            self.judged,
            training,
            generator=self.generator,
            progress=show_training,
            loss_at=LatentLoss,
        )

    @torch.no_grad()
    def mixture(self, seconds_left: Callable[[], float]) -> Denoiser:
        """The mixture at fixed latent points, refined; or the marginals if these predict held-out rows better."""
        u = latent_points(self.n_components, self.recipe.n_latent, self.generator)
        columns, rows = self.network.columns(normal(u, self.network.layout.base)), self.rows
        if len(rows) > REFINED_ROWS:
            order = torch.randperm(len(rows), generator=self.generator, device=rows.device)
            rows = rows[order[:REFINED_ROWS]]
        fitted = self.made(columns)
        fixed = int(fitted.own_reals)  # the class for outliers
        fitted = refine(fitted, rows, self.x_valid, n_fixed=fixed, left=seconds_left)
        return min((fitted, self.marginals), key=lambda m: held_out_nats(m, self.x_valid))

    def made(self, columns: Columns) -> MixtureDenoiser:
        """The mixture of classes at latent points, of equal weights."""
        book = self.marginals.codebook
        prior, mean, var = self.marginals.log_probs.exp(), columns.mean, columns.var
        probs = self.network.layout.log_probs(columns.values).exp()
        probs = (1 - MARGINAL_SHARE) * probs + MARGINAL_SHARE * prior
        weights = probs.new_full((len(probs),), 1 / len(probs))
        if not len(book.reals):
            return MixtureDenoiser(book, weights, probs)
        # one class more, of the weight of one row, for outliers: the other Gaussians are narrow
        own = 1 / (len(self.x) + 1)
        weights = torch.cat([(1 - own) * weights, weights.new_tensor([own])])
        probs = torch.cat([probs, prior[None]])
        mean = torch.cat([mean, torch.zeros_like(mean[:1])])
        if columns.slopes is None:
            var = torch.cat([var, torch.full_like(var[:1], WIDE_SD**2)])
            return MixtureDenoiser(book, weights, probs, mean, var)
        wide = torch.diag_embed(torch.full_like(var[:1], WIDE_SD))
        whitening = whitened(columns.slopes, columns.var).double()
        chol = torch.cat([torch.linalg.inv(whitening).to(wide), wide])
        return MixtureDenoiser(book, weights, probs, mean, chol=chol)
