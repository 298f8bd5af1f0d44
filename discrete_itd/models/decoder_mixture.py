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
arXiv:2209.10584, eqs. (2)-(4). Cranley & Patterson, SIAM J. Numer. Anal. 13, 1976, for the random shift of
quasi-random points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.rounded_numbers import Intervals
from discrete_itd.denoisers.base import Denoiser, held_out_nats, linear, log_sum_exp
from discrete_itd.denoisers.marginal import WIDE_SD, MarginalDenoiser, indicators
from discrete_itd.denoisers.mixture import (
    MOST_DEPENDENT,
    MixtureDenoiser,
    expected_sums,
    refine,
    updated,
)
from discrete_itd.devices import threads_for
from discrete_itd.models.fitting import FitPlan, Recipe
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.progress import show_training
from discrete_itd.training.loop import Report, TrainingPlan, train

WIDTH = 128  # hidden units in each of the two layers of the network
FEWEST_LATENT_POINTS = 64  # fewest latent points of a training step
POINT_SHARES = (0.25, 0.5, 1.0)  # shares of the latent points used in equal parts of the training
JUDGED_ROWS = 4096  # most held-out rows of an evaluation
TRAINING = TrainingPlan(
    batch_size=256,
    n_batches=4,
    learning_rate=1.4e-2,
    # short memory: the average of the weights removes the noise of latent points already
    betas=(0.8, 0.95),
    weight_decay=0.01,
    warmup=20,
    ema=0.99,
    max_gradient=0.3,
    n_validations=12,
    patience=3,
    last_cut=0.4,
)
# After HOPE_SHARE of a training its best case is judged: each further doubling of the steps gains as much as the last
# one, and the refined mixture is ahead of independent columns by REFINED_GAIN times what the network gained in all. On
# 25 tables it was by at most 1.24 times as much, where the gain exceeded .2 nats.
HOPE_SHARE, REFINED_GAIN = 1 / 3, 1.3
HOPELESS_CLASSES = 256  # classes of a mixture that is not finished
REFINED_ROWS = 1 << 15  # most rows on which the classes are refined
MARGINAL_SHARE = 1e-4  # weight of the marginals in each class, so that no category is impossible
N_WAVES = 12  # cosines that describe the levels of an ordered column
TOGETHER = 16  # columns that share a block-diagonal matrix of cosines: it grows with their square


@dataclass(frozen=True)
class Mixture(Recipe):
    """A mixture of products whose classes a network decodes from points of a latent space (9); exact.

    Two to 32 continuous columns depend on one another in every class, so that a number may follow from others.

    Parameters
    ----------
    n_components, n_latent : int
        Most classes, and dimensions of the latent space.
    n_points, max_steps : int
        Most latent points in a training step, and most steps.
    """

    n_components: int = 4096
    n_latent: int = 8
    n_points: int = 2048
    max_steps: int = 2000
    exact = mixes_reals = True
    name = "mixture"
    bounds: ClassVar = {
        **dict.fromkeys(("n_components", "n_latent", "n_points"), (1, 1 << 14)),
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
        return rows.once(self, lambda: MixtureFit(self, rows, plan).run())


class LatentLoss:
    """(9) at latent points that are fresh in every step; how many depends on the ``share`` of the training done."""

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

    def __init__(self, recipe: Mixture, rows: TrainingRows, plan: FitPlan) -> None:
        marginals, x, self.plan = rows.marginals, rows.x, plan
        self.marginals, self.rows, self.x_valid = marginals, x, rows.x_valid[:JUDGED_ROWS]
        self.independent = rows.held_out(marginals)
        self.course: list[
            tuple[float, Tensor]
        ] = []  # shares of the training done, with held-out nats
        self.recipe, self.generator, self.report = recipe, rows.generator, Report()
        book = marginals.codebook
        cells = x[:, book.reals].double()
        mean = cells.nanmean(0).nan_to_num(0.0)
        dependent = 1 < len(book.reals) <= MOST_DEPENDENT
        # least standard deviation of a class, where that of the column is about 1/2: narrower classes need more points
        # for the same error of the mean (9); dependent columns are narrow in some directions only
        least = 0.02 * (0.25 if dependent else 1.0)
        sd = (cells - mean).square().nanmean(0).sqrt().nan_to_num(0.5).clamp_min(least)
        self.x, self.judged = x, self.x_valid  # rows to train on, rows of its evaluations
        if dependent:
            self.x, self.judged = self._without_gaps(mean, sd)
        has_gap = self.x.isnan().any(0) | self.judged.isnan().any(0) | self._unseen(self.x_valid)
        far = 8.0 * sd  # cells are clamped here, which bounds their gradient
        n_points = 1 << max(2 * FEWEST_LATENT_POINTS, 2 * len(x) // 3).bit_length() - 1
        n_classes = 1 << (max(FEWEST_LATENT_POINTS, 4 * len(x)) - 1).bit_length()
        if len(x) < 2048:  # more points take longer and gain nothing measurable
            n_points, n_classes = min(n_points, 512), min(n_classes, 1024)
        self.n_components = min(recipe.n_components, n_classes)
        self.network = DecoderNetwork(
            Layout(marginals, has_gap, mean - far, mean + far),
            mean,
            sd,
            least_sd=least,
            sizes=(recipe.n_latent, WIDTH, WIDTH),
            n_points=min(recipe.n_points, n_points),
            generator=self.generator,
        )
        max_steps = min(recipe.max_steps, 200 + len(x))
        self.training = replace(TRAINING, max_steps=max_steps)

    def _without_gaps(self, mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """Training and held-out rows whose missing numbers are drawn given the others, by one Gaussian.

        With ``max_time`` there are as many rounds of EM, and then blocks of rows, as a quarter of the time allows.
        """
        book, both = self.marginals.codebook, (self.rows, self.x_valid)
        if not any(bool(x[:, book.reals].isnan().any()) for x in both):
            return both
        # the Gaussian is of the numbers alone
        numbers = Codebook([book.columns[j] for j in book.reals.tolist()]).to(book.known_snr)
        start = sd.new_ones(1), sd.new_ones(1, 0), mean[None]
        one = prior = MixtureDenoiser(numbers, *start, chol=torch.diag_embed(sd)[None])
        deadline = self.plan.deadline.within(self.plan.time_left / 4)
        observed, seconds = self.rows[:REFINED_ROWS, book.reals], 0.0
        if deadline.left < math.inf:  # the seconds of a round
            before, few = deadline.age, observed[:512]
            expected_sums(one, few)
            seconds = (deadline.age - before) * len(observed) / len(few)
        for _ in range(10):
            if deadline.left < 2 * seconds:  # drawing takes a round's time
                break
            one = updated(prior, expected_sums(one, observed), 0.0, 0)
        gaussian = one.dense
        assert gaussian is not None

        def complete(x: Tensor) -> Tensor:
            cells, first = x[:, book.reals], torch.zeros_like(x[:, 0], dtype=torch.int64)
            drawn = gaussian.conditioned(one.draw(len(x), self.generator), first, cells)
            return x.index_copy(1, book.reals, torch.where(cells.isnan(), drawn, cells))

        def completed(x: Tensor) -> Tensor:
            blocks = []
            for block in x.split(1 << 13):
                if not blocks or deadline.left:
                    blocks.append(complete(block))
            return torch.cat(blocks)

        return completed(both[0]), completed(both[1])

    def _unseen(self, x: Tensor) -> Tensor:
        """Columns with a cell of an unseen category: (C,) of bool."""
        book, out = self.marginals.codebook, torch.zeros_like(x[0], dtype=torch.bool)
        ones = indicators(book, x).amax(0, keepdim=True) * book.levels.level_unseen
        out[book.finite] = book.levels.sum(ones)[0] > 0
        return out

    def run(self) -> Denoiser:
        """The mixture; independent columns if these are better on held-out rows, or if there was no time to train."""
        self.report = self.train()
        self.plan.note_end(self.report, "mixture")
        stopped, last = self.report.stopped, self.report.history[-1]
        if stopped in ("max_time", "interrupted") and not last.step:
            return self.marginals
        if stopped == "hopeless":
            self.n_components = min(self.n_components, HOPELESS_CLASSES)
            return self.mixture(lambda: 0.0)
        with threads_for(self.network.score_work * TRAINING.batch_size):
            return self.mixture(lambda: self.plan.time_left)

    def is_hopeless(self, share: float, nats: Tensor) -> bool:
        """Whether the mixture will have no voice, by the network's ``nats`` of held-out rows (n,)."""
        self.course.append((share, nats))
        if share < HOPE_SHARE:
            return False
        half = [earlier for done, earlier in self.course if done <= share / 2][-1]
        so_far = self.independent[: len(nats)] - REFINED_GAIN * (self.course[0][1] - nats)
        more = REFINED_GAIN * float((half - nats).mean()) * math.log2(1 / share)
        return not self.plan.has_voice(so_far, float(so_far.mean()) - more)

    def train(self) -> Report:
        """Train for 70 % of the time that is left; fitting the classes has the rest."""
        training, seconds = self.training, self.plan.time_left
        if seconds < math.inf:
            training = replace(training, max_time=0.7 * seconds)
        return train(
            self.network,
            self.x,
            self.judged,
            training,
            generator=self.generator,
            progress=show_training,
            loss_at=LatentLoss,
            is_hopeless=self.is_hopeless,
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
        fixed = int(fitted.own_reals)  # the last class, for outliers
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
        # a class for outliers, with the weight of one row: the other Gaussians are narrow
        share = 1 / (len(self.x) + 1)
        weights = torch.cat([(1 - share) * weights, weights.new_tensor([share])])
        probs = torch.cat([probs, prior[None]])
        mean = torch.cat([mean, torch.zeros_like(mean[:1])])
        if columns.slopes is None:
            var = torch.cat([var, torch.full_like(var[:1], WIDE_SD**2)])
            return MixtureDenoiser(book, weights, probs, mean, var)
        wide = torch.diag_embed(torch.full_like(var[:1], WIDE_SD))
        whitening = whitened(columns.slopes, columns.var).double()
        chol = torch.cat([torch.linalg.inv(whitening).to(wide), wide])
        return MixtureDenoiser(book, weights, probs, mean, chol=chol)


# -- the network -------------------------------------------------------------------------------------


class Columns(NamedTuple):
    """The columns at K latent points: categories are independent, continuous columns have one Gaussian.

    ``values`` (K, V) are parameters of the distributions of the levels, see :class:`Layout`. ``mean`` and ``var`` (K,
    R) are the means and variances of the continuous columns; a variance is conditional on the continuous columns
    before. ``slopes`` (K, R, R), lower triangular with diagonal 0, are the coefficients of the mean of a column (row)
    on those before it (columns); None if continuous columns are independent, too.
    """

    values: Tensor
    mean: Tensor
    var: Tensor
    slopes: Tensor | None = None

    def precisions(self, pairs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The Gaussians' log-densities as functions of the cells: constants (K, R), times minus 2, and coefficients.

        The coefficients belong to products of ``pairs`` (2, P) of cells, if any; to squares; to cells.
        """
        mean, var = self.mean, self.var
        if self.slopes is None:
            return mean.square() / var + (2 * math.pi * var).log(), [-0.5 / var, mean / var]
        whitening, (i, j) = whitened(self.slopes, var), pairs
        middle = whitening @ mean[:, :, None]
        precision, linear = whitening.mT @ whitening, whitening.mT @ middle
        constants = middle[:, :, 0].square() + (2 * math.pi * var).log()
        products = -precision.flatten(1).index_select(1, i * whitening.shape[1] + j)
        squares = -0.5 * precision.diagonal(dim1=1, dim2=2)
        return constants, [products, squares, linear[:, :, 0]]


def whitened(slopes: Tensor, var: Tensor) -> Tensor:
    """The matrices (K, R, R) that make deviations from the mean independent, of variance one."""
    one = torch.eye(slopes.shape[1], device=slopes.device, dtype=slopes.dtype)
    return (one - slopes) / var.sqrt()[:, :, None]


class Layout(nn.Module):
    """Parameters of the distributions of levels, such that log-probabilities are inner products.

    A category has a logit of its own, relative to the first category of its column. The levels of a column on a line
    share a few smooth functions if there are many: cosines of the share of rows below the level. All this is added to
    the marginal logits; zeros give the marginals. Unseen categories keep their marginal probability, since training
    rows carry no information about them.

    The log-probabilities of all rows given all latent points are then one matrix product: logits, minus the normalisers
    of the columns that a row has. Columns in which no cell is missing share one normaliser.

    Parameters
    ----------
    marginals : MarginalDenoiser
    has_gap : Tensor of bool, shape (C,)
        Columns in which a row may have no cell or an unseen category.
    low, high : Tensor, shape (R,)
        Bounds to which continuous cells are clamped.

    Notes
    -----
    With two to ``MOST_DEPENDENT`` continuous columns, products of each two are features of a row, and these columns may
    depend on one another at a latent point. None of them may then be missing.
    """

    base: Tensor
    unseen: Tensor
    rest: Tensor
    single: Tensor
    wave: Tensor
    low: Tensor
    high: Tensor
    pairs: Tensor
    _with_gaps: Tensor
    _whole: Tensor

    def __init__(
        self, marginals: MarginalDenoiser, has_gap: Tensor, low: Tensor, high: Tensor
    ) -> None:
        super().__init__()
        self.book = marginals.codebook
        levels = self.levels = self.book.levels
        n_real = len(self.book.reals)
        n_pairs = n_real * (n_real - 1) // 2 if n_real <= MOST_DEPENDENT else 0
        has_gap = torch.cat([has_gap[self.book.finite], has_gap[self.book.reals]])

        def keep(name: str, tensor: Tensor) -> None:
            self.register_buffer(name, tensor, persistent=False)

        keep("pairs", torch.tril_indices(n_real, n_real, -1, device=low.device)[:, :n_pairs])
        keep("low", low)
        keep("high", high)
        keep("_with_gaps", has_gap.nonzero().flatten())
        keep("_whole", (~has_gap).nonzero().flatten())
        keep("unseen", levels.level_unseen)
        keep("base", marginals.log_probs)
        seen = self.base.exp().masked_fill(self.unseen, 0.0)
        # probability that the seen levels of a column share
        keep("rest", levels.sum(seen[None]).log())  # (1, C')
        many = [c.kind == "line" and c.n_levels > N_WAVES for c in levels.columns]
        smooth = torch.tensor(many, dtype=torch.bool, device=seen.device)[levels.level_column]
        keep("single", (~self.unseen & ~smooth & (levels.level_code > 0)).nonzero().flatten())
        wave = (~self.unseen & smooth).nonzero().flatten()
        keep("wave", wave[levels.level_column[wave].argsort(stable=True)])  # sorted by column
        sizes = [c.n_levels for c, is_many in zip(levels.columns, many, strict=True) if is_many]
        waves = [self._waves(mass) for mass in seen[self.wave].split(sizes)]
        self.bases = [
            torch.block_diag(*waves[i : i + TOGETHER]) for i in range(0, len(waves), TOGETHER)
        ]
        self.n_values = len(self.single) + N_WAVES * len(waves)

    @staticmethod
    def _waves(mass: Tensor) -> Tensor:
        """Cosines (N_WAVES, levels) of the share of rows below each level, by the levels' ``mass``."""
        place = (mass.cumsum(0) - mass / 2) / mass.sum()
        frequency = torch.arange(1, N_WAVES + 1).to(mass)
        return torch.cos(math.pi * frequency[:, None] * place)

    def logits(self, values: Tensor) -> Tensor:
        """Logits (K, T) of all seen levels."""
        single, *waves = values.split([len(self.single), *(len(b) for b in self.bases)], 1)
        # -60 stands for an impossible level: gradients stay finite and its probability a normal float
        logits = self.base.masked_fill(self.unseen, -60.0).expand(len(values), -1)
        logits = logits.index_add(1, self.single, single)
        if not waves:
            return logits
        smooth = [part @ basis for part, basis in zip(waves, self.bases, strict=True)]
        return logits.index_add(1, self.wave, torch.cat(smooth, 1))

    def log_probs(self, values: Tensor) -> Tensor:
        """Log-probabilities (K, T) of all levels."""
        seen = self.levels.log_softmax(self.logits(values)) + self.levels.per_level(self.rest)
        return torch.where(self.unseen, self.base, seen)

    def of_rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) of rows (B, C), and the terms (B,) that do not depend on the point.

        The log-density of a recorded number is averaged over its cell: the variance of the cell is added to the square,
        and the result is a lower bound of its log-mass (20), whatever the Gaussian. Opened width adds less variance: it
        then is six standard deviations wide, so that classes come to rest well within it.
        """
        book, levels = self.book, self.levels
        ones = indicators(book, x)
        start = ones @ self.base
        ones = ones.masked_fill(self.unseen, 0.0)
        is_present, (cells, width) = levels.sum(ones), book.lines.cells(x[:, book.reals])
        natural = book.lines.spacing(x[:, book.reals])
        start = start + is_present @ self.rest[0]
        start = start + Intervals(cells, width).log_width().nan_to_num(0.0).sum(1).to(ones)
        is_present = torch.cat([is_present, (~cells.isnan()).to(ones)], 1)
        within = natural.square() / 12 + (width - natural).square() / 40
        cells, within = (
            t.nan_to_num(0.0).to(ones) for t in (cells.clamp(self.low, self.high), within)
        )
        smooth = ones[:, self.wave].split([basis.shape[1] for basis in self.bases], 1)
        waves = [part @ basis.T for part, basis in zip(smooth, self.bases, strict=True)]
        i, j = self.pairs
        products = cells[:, i] * cells[:, j]
        numbers = [products, cells.square() + within, cells]
        parts = [ones[:, self.single], *waves, *numbers, is_present[:, self._with_gaps]]
        return torch.cat([*parts, torch.ones_like(start)[:, None]], 1), start

    def of_points(self, columns: Columns) -> Tensor:
        """Features (K, F) of latent points."""
        values, (normaliser, numbers) = columns.values, columns.precisions(self.pairs)
        constants = -torch.cat([self.levels.logsumexp(self.logits(values)), 0.5 * normaliser], 1)
        shared = constants[:, self._whole].sum(1, keepdim=True)
        return torch.cat([values, *numbers, constants[:, self._with_gaps], shared], 1)


class DecoderNetwork(Denoiser):
    """The network g, from latent points to distributions of the columns; at fixed points it has the density (9).

    Its first outputs are small, so that it starts near the marginals. ``mean`` and ``sd`` (R,) are the means and
    standard deviations of the continuous columns, ``least_sd`` is their least standard deviation given the point, and
    ``sizes`` are the dimensions of the latent space, then the hidden units of each layer. The generator draws the
    initial weights and ``n_points`` latent points, (K, L) in the unit cube, at which rows are scored.
    """

    points: Tensor
    mean: Tensor
    sd: Tensor
    pairs: Tensor

    def __init__(
        self,
        layout: Layout,
        mean: Tensor,
        sd: Tensor,
        *,
        least_sd: float,
        sizes: tuple[int, ...],
        n_points: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(layout.book)
        self.layout = layout
        self.least_sd, self.n_values, self.n_real = least_sd, layout.n_values, len(mean)
        sizes = (*sizes, self.n_values + 2 * self.n_real + layout.pairs.shape[1])
        like = layout.base
        # nn.Linear would advance the global random state
        weights = [
            torch.randn(n_in, n, generator=generator, device=like.device, dtype=like.dtype)
            for n_in, n in itertools.pairwise(sizes)
        ]
        # logits start small; zeros would be a saddle point
        gains = [math.sqrt(2)] * (len(weights) - 1) + [0.3]
        self.weights = nn.ParameterList(
            w * (gain / math.sqrt(len(w))) for w, gain in zip(weights, gains, strict=True)
        )
        self.biases = nn.ParameterList(w.new_zeros(w.shape[1]) for w in weights)
        self.register_buffer("pairs", layout.pairs, persistent=False)
        self.register_buffer("mean", mean.to(like), persistent=False)
        self.register_buffer("sd", sd.to(like), persistent=False)
        points = latent_points(n_points, sizes[0], generator)
        self.register_buffer("points", points, persistent=False)

    @property
    def closed_form(self) -> bool:
        return True

    @property
    def score_work(self) -> int:
        return len(self.points) * self.layout.n_values

    def constants(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layout.of_rows(x)

    def log_prob(self, x: Tensor, *constants: Tensor) -> Tensor:
        features, start = constants or self.constants(x)
        points = self.layout.of_points(self.columns(normal(self.points, features)))
        return log_prob((features, start), points)

    def columns(self, u: Tensor) -> Columns:
        """The columns at latent points ``u`` (K, L)."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            u = torch.addmm(bias, u if i == 0 else nn.functional.silu(u), weight)
        i, j = self.pairs
        values, shift, scale, slope = u.split([self.n_values, self.n_real, self.n_real, len(i)], 1)
        # scale is one at zero, and linear where it is large
        scale = nn.functional.softplus(scale + math.log(math.e - 1))
        var = (self.sd * scale).square() + self.least_sd**2
        slopes = None
        if len(i):
            slope = slope * (self.sd[i] / self.sd[j])
            slopes = slope.new_zeros(len(u), self.n_real**2).index_copy(
                1, i * self.n_real + j, slope
            )
            slopes = slopes.unflatten(1, (self.n_real, self.n_real))
        return Columns(values, self.mean + self.sd * shift, var, slopes)


def latent_points(n: int, n_latent: int, generator: torch.Generator) -> Tensor:
    """Scrambled Sobol points in the unit cube: (n, L), float64."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    engine = SobolEngine(n_latent, scramble=True, seed=seed)
    return engine.draw(n, dtype=torch.float64).to(generator.device)


def shifted(points: Tensor, generator: torch.Generator) -> Tensor:
    """The points shifted by one random vector modulo 1: each is uniform, together they stay evenly spread."""
    shift = torch.rand(
        points.shape[1], generator=generator, device=points.device, dtype=points.dtype
    )
    return (points + shift) % 1.0


def normal(points: Tensor, like: Tensor) -> Tensor:
    """Points of the unit cube mapped to standard normal ones, in the type of ``like``."""
    inside = points.clamp(1e-9, 1 - 1e-9)
    return (math.sqrt(2) * torch.erfinv(2 * inside - 1)).to(like)


def log_prob(rows: tuple[Tensor, Tensor], points: Tensor) -> Tensor:
    """(9) of rows as a mean over latent points, by the features of both: (B,)."""
    features, start = rows
    return start + log_sum_exp(linear(features, points), 1) - math.log(len(points))
