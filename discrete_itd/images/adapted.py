r"""Existing diffusion models as denoisers: the network's guess of the clean picture, turned into a posterior.

A network guesses the mean :math:`\mu` of every pixel given the noisy picture, and says neither how far off it may be
nor that a pixel has only so many levels. Both are added here by Bayes' rule. With a Gaussian prior
:math:`N(m_0, v_0)` of the pixel, its own evidence alone leads to :math:`N(\mu_g, v_g)`,
:math:`v_g = 1/(1/v_0 + \gamma)`. If the network's guess has the variance :math:`v \le v_g`, what it adds is worth as
much as *evidence* of the SNR :math:`\lambda` and the statistic h,

.. math:: \lambda = 1/v - 1/v_g, \qquad h = \mu/v - \mu_g/v_g,

and the posterior is that of independent pixels given the pixel's own evidence and this,

.. math:: q_j(k) \propto \pi_{jk} \exp\ell_{jk}(y_j + h_j, \gamma + \lambda_j),

with :math:`\ell` of eq. (2): discrete where pixels have levels (in place of the soft rounding of Kong,
Brekelmans and Ver Steeg, ICLR 2023, arXiv:2302.03792), Gaussian where they are continuous. It is exact at both ends:
where nothing is known, and where all is.

How far guesses err, v, is measured on pictures (:meth:`AdaptedDenoiser.calibrate`), by pixel and SNR. Where a guess is
worse than the pixel's own evidence, it is drawn towards that.

This rounds a guess between two levels to the nearer, as a network asks for that knows nothing of levels. One that knows
them means by such a guess that it wavers; so there is a second reading, the distribution with this mean that is
nearest to what the pixel's own evidence says,

.. math:: q_j(k) \propto \pi_{jk} \exp(\ell_{jk} + \eta_j e_k), \qquad \sum_k q_j(k) e_k = \mu_j,

which is exact for two levels. At every SNR the mixture of both is taken that predicts the pixels best.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.images.noising import PREDICTIONS, Noising
from discrete_itd.images.pixels import Pixels

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]

CALIBRATED = ("knots", "shrink", "ratio", "trust", "meant")
N_KNOTS = 24  # SNRs at which errors are measured
POOLED_ROWS = 32.0  # by which a pixel's error is drawn towards that of all pixels
LEAST_RATIO = 1e-6  # of the network's error to that of a pixel's own evidence
TRUSTS = torch.arange(0, 11) / 8  # what is tried of a network's evidence
MEANT = (0.0, 0.1, 0.5, 0.9, 1.0)  # shares of the second reading that are tried
# of the second reading's equation: steps, and nats between two levels within which its solution is looked for
NEWTON_STEPS, REACH, CONVERGED = 24, 64.0, 1e-4
BATCH_CELLS, COST_CELLS = 1 << 22, 1 << 24  # numbers of a posterior: in a batch, in all


class AdaptedDenoiser(Denoiser):
    """A denoiser of pictures from a network that was trained elsewhere.

    Parameters
    ----------
    network : callable
        Takes noisy pictures (B, *shape), times (B,) and classes (B,) or None, and gives its prediction, of the
        pictures' shape. If it is a module, it is part of this one, and can be tuned.
    noising : Noising
        Its times and scales.
    prediction : {"epsilon", "v_prediction", "sample"}
        What it predicts: the noise, the velocity, or the clean picture.
    pixels : Pixels
    marginals : MarginalDenoiser
        Of the pixels, and of the class.
    null_class : int, optional
        What the network is told where the class is unknown. Without it, a network that knows classes needs one.
    autocast : torch.dtype, optional
        Floating type of the network's own arithmetic, like ``torch.bfloat16``.

    Notes
    -----
    A network knows one noise for the whole picture, so it takes states in which all pixels have one SNR, and the class
    is known or unknown.
    """

    knots: Tensor
    shrink: Tensor
    ratio: Tensor
    trust: Tensor
    meant: Tensor
    mean0: Tensor
    var0: Tensor
    _coords: Tensor

    isotropic = True

    def __init__(
        self,
        network: Network,
        noising: Noising,
        prediction: str,
        pixels: Pixels,
        marginals: MarginalDenoiser,
        *,
        null_class: int | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(marginals.codebook)
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {prediction!r}")
        if pixels.columns != marginals.codebook.columns:
            raise ValueError("marginals are of other pictures")
        if null_class is not None and not (
            pixels.n_classes and type(null_class) is int and 0 <= null_class <= pixels.n_classes
        ):
            raise ValueError(
                f"null_class must be a class from 0 to {pixels.n_classes} of a model that knows classes,"
                f" got {null_class!r}"
            )
        self.network, self.noising, self.prediction = network, noising, prediction
        self.pixels, self.base = pixels, marginals
        self.null_class, self.autocast = null_class, autocast
        n, like = pixels.n_pixels, marginals.codebook.known_snr
        # the coordinates of the pixels, in their order
        coords = torch.nonzero(self.codebook.coord_column < n).flatten()
        self.register_buffer("_coords", coords, persistent=False)
        with torch.no_grad():
            nothing = like.new_zeros(1, self.codebook.n_coords), like.new_zeros(1, len(like))
            prior = marginals(*nothing)
            mean = prior.mean()[0, self._coords]
            if pixels.n_levels is None:
                assert prior.gaussian is not None
                second = prior.gaussian.log_weight.exp() * (
                    prior.gaussian.var + prior.gaussian.means**2
                )
                var = second.sum(2)[0] - mean**2
            else:
                levels = torch.linspace(pixels.low, pixels.high, pixels.n_levels).to(like)
                probs = marginals.codebook.levels.spread(prior.categorical.probs, 0.0)[0, :n]
                var = (probs[:, : len(levels)] * (levels - mean[:, None]) ** 2).sum(1)
        self.register_buffer("mean0", mean)
        self.register_buffer("var0", var.clamp_min(1e-12))
        # until it is calibrated, nothing of it is believed
        self.register_buffer("knots", like.new_zeros(1))
        self.register_buffer("shrink", like.new_zeros(1, n))
        self.register_buffer("ratio", like.new_ones(1, n))
        self.register_buffer("trust", like.new_zeros(1))
        self.register_buffer("meant", like.new_zeros(1))

    @property
    def row_work(self) -> int:
        """With a network that uses every weight for several pixels."""
        return self.codebook.work + sum(p.numel() for p in self.parameters()) // 4

    # -- the network's guess ----------------------------------------------------------------------

    def guess(self, y: Tensor, snr: Tensor, classes: Tensor | None = None) -> Tensor:
        r"""What the network takes for the clean picture.

        Parameters
        ----------
        y : Tensor, shape (B, D)
            The pixels' statistic, :math:`\gamma x + w_\gamma`.
        snr : Tensor, shape (B, 1)
            Positive and finite. Beyond the range of the network's noise it is shown the picture as it is and told the
            nearest time.
        classes : Tensor of int64, shape (B,), optional

        Returns
        -------
        Tensor, shape (B, D)
            In the convex hull of the levels, where there are any.
        """
        noising, pixels = self.noising, self.pixels
        z = y * snr.rsqrt()
        time = noising.time(snr[:, 0].clamp(noising.low, noising.high)).to(z)
        shown = noising.shown(z, snr).unflatten(1, pixels.shape)
        kind = y.device.type
        context = nullcontext() if self.autocast is None else torch.autocast(kind, self.autocast)
        with context:
            answer = self.network(shown, time, classes)
        channels = pixels.shape[0]
        if isinstance(answer, Tensor) and answer.shape[1:] == (2 * channels, *pixels.shape[1:]):
            answer = answer[:, :channels]  # the rest is a variance that the network learned
        if not isinstance(answer, Tensor) or answer.shape != shown.shape:
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ValueError(
                f"the network must answer pictures of shape {tuple(shown.shape)} with as many, got {got}"
            )
        guess = noising.guess(answer.to(z).flatten(1), z, snr, self.prediction)
        if not self.training and not bool(guess.isfinite().all()):
            bad = int((~guess.isfinite()).any(1).nonzero()[0])
            raise ValueError(
                f"the network's answer is not finite at time {float(time[bad]):g}, SNR {float(snr[bad]):g}"
            )
        # the nearest point of a convex set that holds x is never farther from x
        return guess.clamp(pixels.low, pixels.high) if pixels.n_levels is not None else guess

    def _own(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of every pixel by its own evidence: (B, D) each."""
        var = 1 / (1 / self.var0 + snr)
        return var * (self.mean0 / self.var0 + y), var

    def _at(self, values: Tensor, snr: Tensor) -> Tensor:
        """What was measured at the knots, at SNRs (B, 1): values (G, n) to (B, n)."""
        place = torch.log(snr[:, 0]).clamp(float(self.knots[0]), float(self.knots[-1]))
        if len(self.knots) == 1:
            return values.expand(len(snr), -1)
        at = torch.searchsorted(self.knots, place, right=True).clamp(1, len(self.knots) - 1) - 1
        step = (place - self.knots[at]) / (self.knots[at + 1] - self.knots[at])
        return torch.lerp(values[at], values[at + 1], step[:, None])

    def _evidence(self, y: Tensor, snr: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """What the guess is worth as evidence: statistic and SNR, (B, D) each."""
        own, var = self._own(y, snr)
        ratio = self._at(self.ratio.log(), snr).exp()
        precision = self._at(self.trust[:, None], snr) / var
        extra = precision * (1 / ratio - 1)
        return extra * own + precision / ratio * self._at(self.shrink, snr) * (guess - own), extra

    def _believed(self, y: Tensor, snr: Tensor, statistic: Tensor, worth: Tensor) -> Posterior:
        """The posterior if some pixels' evidence is added to the state: (B', D) each, of the first rows."""
        n = self.pixels.n_pixels
        y, snr = y.clone(), snr.clone()
        y[:, self._coords] += statistic
        snr[:, :n] += worth
        return self.base(y, snr)

    def _as_meant(self, own: Posterior, guess: Tensor, shrink: Tensor) -> CategoricalPosterior:
        """The posterior nearest to ``own`` whose means are the guesses (B, D), drawn to those of ``own``."""
        slots, n = own.codebook.levels, self.pixels.n_pixels
        gap = (self.pixels.high - self.pixels.low) / ((self.pixels.n_levels or 2) - 1)
        logits = slots.spread(own.categorical.logits, -torch.inf)[:, :n, : self.pixels.n_levels]
        levels = torch.linspace(self.pixels.low, self.pixels.high, logits.shape[2]).to(logits)
        mean = (logits.exp() * levels).sum(2)
        tiny = 1e-4 * gap
        target = (mean + shrink * (guess - mean)).clamp(
            self.pixels.low + tiny, self.pixels.high - tiny
        )

        def step(eta: Tensor) -> Tensor:
            p = torch.softmax(logits + eta[:, :, None] * levels, 2)
            mean = (p * levels).sum(2)
            var = (p * (levels - mean[:, :, None]) ** 2).sum(2)
            return (target - mean) / var.clamp_min(1e-6 * gap**2)

        with torch.no_grad():
            # as if there were two levels, those about the target: where noise is low, that is so
            place = ((target - self.pixels.low) / gap).clamp(0, len(levels) - 1 - 1e-3)
            below = place.long()[:, :, None]
            odds = torch.logit(place - place.floor(), eps=1e-3)
            told = (logits.gather(2, below + 1) - logits.gather(2, below))[:, :, 0]
            eta = (odds - told) / gap
            low, high = eta - REACH / gap, eta + REACH / gap
            for _ in range(NEWTON_STEPS):
                move = step(eta)
                low, high = torch.where(move > 0, eta, low), torch.where(move < 0, eta, high)
                new, done = eta + move, move.abs() * gap < CONVERGED
                eta = torch.where(done | ((new > low) & (new < high)), new, (low + high) / 2)
                if bool(done.all()):
                    break
        eta = eta + step(eta).clamp(-1 / gap, 1 / gap)  # carries the gradient
        wide = slots.spread(own.categorical.logits, -torch.inf)
        tilted = torch.log_softmax(logits + eta[:, :, None] * levels, 2)
        wide = torch.cat(
            [nn.functional.pad(tilted, (0, wide.shape[2] - logits.shape[2])), wide[:, n:]], 1
        )
        return CategoricalPosterior(slots, slots.gather(wide), normalised=True)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        n = self.pixels.n_pixels
        level = snr[:, 0]
        if not bool((snr[:, :n] == level[:, None]).all()):
            raise ValueError(
                "a model of pictures knows one noise for all pixels: score it on an isotropic path,"
                " no pixel missing or given"
            )
        classes = self._classes(y, snr)
        if self.pixels.n_classes and len(self.knots) > 1:
            # a class that is known tells something before there is any light: the least that was measured is asked
            told = torch.isinf(snr[:, n]) & (level == 0)
            level = torch.where(told, self.knots[0].exp(), level)
        asked = torch.nonzero((level > 0) & ~torch.isinf(level)).flatten()
        if not len(asked):
            return self.base(y, snr)
        coords = self._coords
        own, gamma = y[asked][:, coords], level[asked, None]
        guess = self.guess(own, gamma, None if classes is None else classes[asked])
        statistic, worth = self._evidence(own, gamma, guess)
        told = torch.zeros_like(y[:, : len(coords)]).index_copy(0, asked, statistic)
        rounded = self._believed(y, snr, told, torch.zeros_like(told).index_copy(0, asked, worth))
        share = self._at(self.meant[:, None], gamma)
        if self.pixels.n_levels is None or not bool((share > 0).any()):
            return rounded
        plain = self.base(y[asked], snr[asked])
        meant = self._as_meant(plain, guess, self._at(self.shrink, gamma))
        both = torch.logaddexp(
            torch.log1p(-share) + rounded.categorical.logits[asked], share.log() + meant.logits
        )
        logits = rounded.categorical.logits.index_copy(0, asked, both)
        slots = self.codebook.levels
        return Posterior(self.codebook, CategoricalPosterior(slots, logits, normalised=True))

    def _classes(self, y: Tensor, snr: Tensor) -> Tensor | None:
        """The classes that the rows are given with."""
        if not self.pixels.n_classes:
            return None
        told = snr[:, self.pixels.n_pixels]
        known = torch.isinf(told)
        if not bool((known | (told == 0)).all()):
            raise ValueError("the class must be given or missing: it is not to be guessed")
        if self.null_class is None and not bool(known.all()):
            raise ValueError(
                "the network needs a class: give labels, and condition on them; or say by null_class what it is"
                " told where there is none"
            )
        coords = torch.nonzero(self.codebook.coord_column == self.pixels.n_pixels).flatten()
        classes = y[:, coords].argmax(1)
        return classes if self.null_class is None else classes.where(known, self.null_class)

    # -- calibration ------------------------------------------------------------------------------

    @torch.no_grad()
    def calibrate(
        self,
        x: Tensor,
        *,
        generator: torch.Generator,
        n_knots: int = N_KNOTS,
        batch_size: int | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> AdaptedDenoiser:
        r"""Measure how far guesses err, by pixel and SNR.

        Parameters
        ----------
        x : Tensor of float64, shape (N, C)
            Pictures like those to be scored, best not those that the network learned.
        generator : torch.Generator
        n_knots : int
            SNRs at which to measure, evenly spread on a logarithmic scale.
        batch_size : int, optional
            By default what memory of some hundred MB takes, at most 256.
        progress : callable, optional
            Called with the share done.

        Notes
        -----
        With d and u how far the clean pixel and the guess are from what the pixel's own evidence says, the
        guess is drawn to that by :math:`s = E[du]/E[u^2]`, between 0 and 1; v is :math:`v_g E(d - su)^2 / E d^2`.
        Last, at every SNR the evidence is scaled by what predicts the pixels best, and so are the two readings mixed.
        The network is put in evaluation mode. If calibration is interrupted, all is as before.
        """
        if n_knots < 1:
            raise ValueError(f"n_knots must be positive, got {n_knots}")
        if len(x) < 2:
            raise ValueError(f"calibration needs at least two pictures, got {len(x)}")
        self.eval()
        before = {name: getattr(self, name) for name in CALIBRATED}
        try:
            self._measure(x, generator, n_knots, batch_size, progress)
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def _measure(
        self,
        x: Tensor,
        generator: torch.Generator,
        n_knots: int,
        batch_size: int | None,
        progress: Callable[[float], object] | None,
    ) -> None:
        """What :meth:`calibrate` does, knot by knot."""
        like, size = self.mean0, self.codebook.size
        if batch_size is None:
            batch_size = max(4, min(256, BATCH_CELLS // size))
        few = max(16, COST_CELLS // size)  # rows enough to choose between readings
        gap = 2e-3
        if self.pixels.n_levels is not None:
            gap = (self.pixels.high - self.pixels.low) / (self.pixels.n_levels - 1)
        spread = float(self.var0.sum())
        low, high = math.log(1e-3 / spread), math.log(100 / gap**2)
        knots = torch.linspace(low, high, n_knots, device=like.device, dtype=like.dtype)
        n, parts = len(x), list(x.split(batch_size))
        salt = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        shrinks, ratios, costs = [], [], []
        for i, logsnr in enumerate(knots.tolist()):
            kept, dd, du, uu = [], 0.0, 0.0, 0.0
            done = 0
            for rows in parts:
                index = torch.arange(done, done + len(rows), device=rows.device)
                done += len(rows)
                gamma = rows.new_full((len(rows), 1), math.exp(logsnr))
                noise = RowNoise(rows, index, salt)
                y, snr, classes, clean = self.noisy(rows, gamma, noise, i)
                guess = self.guess(y, snr, classes)
                own, _ = self._own(y, snr)
                d, u = (clean - own).double(), (guess - own).double()
                dd, du, uu = dd + d.square().sum(0), du + (d * u).sum(0), uu + u.square().sum(0)
                if done - len(rows) < few:
                    kept.append((rows, y, snr, guess))
            dd, du, uu = (torch.as_tensor(t, device=like.device) for t in (dd, du, uu))
            tiny = torch.finfo(torch.float64).tiny
            pooled = (du.sum() / uu.sum().clamp_min(tiny)).clamp(0, 1)
            raw = torch.where(uu > 0, du / uu.clamp_min(tiny), pooled)
            shrink = ((n * raw + POOLED_ROWS * pooled) / (n + POOLED_ROWS)).clamp(0, 1)
            left = dd - 2 * shrink * du + shrink**2 * uu
            common = left.sum() / dd.sum().clamp_min(tiny)
            raw = torch.where(dd > 0, left / dd.clamp_min(tiny), common)
            ratio = (n * raw + POOLED_ROWS * common) / (n + POOLED_ROWS)
            shrinks.append(shrink.to(like))
            ratios.append(ratio.clamp(LEAST_RATIO, 1).to(like))
            self._take(knots[i : i + 1], shrinks[-1:], ratios[-1:], like.new_ones(1))
            costs.append(self._costs(kept))
            if progress is not None:
                progress((i + 1) / n_knots)
        # where evidence is worth little, chance would choose its scale: neighbours choose together
        cost = nn.functional.pad(torch.stack(costs, -1), (1, 1), mode="replicate")
        best = cost.unfold(2, 3, 1).sum(3).flatten(0, 1).argmin(0).to(like.device)  # (G,)
        self._take(knots, shrinks, ratios, TRUSTS.to(like)[best // len(MEANT)])
        self.meant = like.new_tensor(MEANT)[best % len(MEANT)]

    def _take(
        self, knots: Tensor, shrink: list[Tensor], ratio: list[Tensor], trust: Tensor
    ) -> None:
        self.knots, self.trust, self.meant = knots, trust, torch.zeros_like(trust)
        self.shrink, self.ratio = torch.stack(shrink), torch.stack(ratio)

    def noisy(
        self, x: Tensor, snr: Tensor, noise: RowNoise, stream: int = 1
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Rows seen through noise, as :meth:`guess` takes them.

        Parameters
        ----------
        x : Tensor of float64, shape (B, C)
        snr : Tensor, shape (B, 1)
        noise : RowNoise
        stream : int
            Separates independent uses of the noise.

        Returns
        -------
        y, snr, classes, clean : Tensor
            Statistic (B, D), SNR (B, 1), classes (B,) or None, and the clean pixels (B, D).
        """
        clean = self.codebook.embed(x)[:, self._coords]
        snr = snr.to(clean)
        classes = None
        if self.pixels.n_classes:
            cells = x[:, self.pixels.n_pixels]
            if self.null_class is None and bool(cells.isnan().any()):
                raise ValueError(
                    "the network needs a class: give labels of all pictures, or say by null_class what it is told"
                    " where there is none"
                )
            classes = cells.nan_to_num(float(self.null_class or 0)).long()
        xi = noise.normal(stream, clean.shape[1], clean.dtype)
        return snr * clean + snr.sqrt() * xi, snr, classes, clean

    def _costs(self, kept: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
        """Nats of the pixels at one SNR, for each scale of the network's evidence and share of the second reading."""
        coords, n = self._coords, self.pixels.n_pixels
        cost = self.mean0.new_zeros(len(TRUSTS), len(MEANT), dtype=torch.float64)
        for rows, own, gamma, guess in kept:
            statistic, worth = self._evidence(own, gamma, guess)
            cells = rows.clone()
            cells[:, n:] = math.nan
            y = own.new_zeros(len(rows), self.codebook.n_coords)
            snr = own.new_zeros(len(rows), self.codebook.n_columns)
            y[:, coords], snr[:, :n] = own, gamma
            meant = None
            if self.pixels.n_levels is not None:
                plain = self.base(y, snr)
                q = self._as_meant(plain, guess, self._at(self.shrink, gamma))
                meant = Posterior(self.codebook, q).log_prob(cells)
            for i, trust in enumerate(TRUSTS.tolist()):
                q = self._believed(y, snr, trust * statistic, trust * worth)
                rounded = q.log_prob(cells)
                cost[i, 0] -= rounded.double().sum()
                for j, share in enumerate(MEANT[1:], 1):
                    if meant is None:
                        cost[i, j] = math.inf
                        continue
                    there = torch.logaddexp(
                        math.log1p(-share) + rounded if share < 1 else rounded - math.inf,
                        math.log(share) + meant,
                    ).masked_fill(cells.isnan(), 0.0)
                    cost[i, j] -= there.double().sum()
        return cost
