"""The posterior of continuous columns: one mixture of Gaussians, truncated or not, per column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from discrete_itd import devices
from discrete_itd.channel.codebook import REAL_KNOWN_SNR
from discrete_itd.channel.noise import add_gumbel
from discrete_itd.channel.rounded_numbers import SMALLEST, Intervals, NumberLines

CLOSE_BOUNDS = 2e-4  # standardised bounds closer than this have an exponential density between
FARTHEST = 1e30  # largest surprisal of a component, nats
N_QUADRATURE = 256  # points of an expectation: entropies err by some hundredths of a nat
# Of more than MANY components, those are merged whose standard deviations differ by less than a factor of e^SD_STEP and
# whose means by less than MEAN_STEP of these: densities change by 1 % within 3 standard deviations.
MANY, SD_STEP, MEAN_STEP = 32, 0.1, 0.5
CHUNK = 1 << 18  # most rows × points × Gaussians computed at once: more leave the processor's cache


class GaussianPosterior:
    r"""A product of mixtures of Gaussians, one mixture for every continuous column.

    Parameters
    ----------
    log_weight, mean, var : Tensor, shape (B, R, K)
        Log-weights, means and variances of the K components of each column; the constructor normalises the weights,
        unless ``normalised``.
    low, high : Tensor, broadcastable to (B, R, K), optional
        Each component is the Gaussian of this mean and variance truncated to the interval (low, high], low < high.
        None, the default, stands for infinite bounds.

    Notes
    -----
    The Bayes update of a mixture is a mixture of equally many components. With evidence :math:`y=\delta
    x+\sqrt\delta\xi`, c = y/δ, and Z the mass of a component's Gaussian between its bounds (1 without bounds),

    .. math:: \mu \to \mu' = \frac{\mu + vy}{1 + \delta v}, \quad v \to v' = \frac{v}{1 + \delta v}, \quad
              \log w \to \log w - \tfrac12\log(1 + \delta v) - \frac{\delta(\mu - c)^2}{2(1 + \delta v)}
              + \log\frac{Z(\mu', v')}{Z(\mu, v)}.

    Components with bounds are computed in double: far from its mean, a Gaussian is a difference of large logarithms.

    Examples
    --------
    >>> zero = torch.zeros(1, 1, 1)
    >>> q = GaussianPosterior(zero, zero, zero + 1.0).update(torch.tensor([[3.0]]), torch.tensor([[2.0]]))
    >>> q.mean(), q.var.flatten()
    (tensor([[1.]]), tensor([0.3333]))
    >>> GaussianPosterior(zero, zero, zero + 1.0, low=zero).mean()  # half a Gaussian: (2 / π)½
    tensor([[0.7979]])
    """

    def __init__(
        self,
        log_weight: Tensor,
        mean: Tensor,
        var: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
        *,
        normalised: bool = False,
    ) -> None:
        self.log_weight = log_weight if normalised else torch.log_softmax(log_weight, 2)
        self.means, self.var = mean, var
        self.bounds: tuple[Tensor, ...] = ()
        if low is not None or high is not None:
            none = mean.new_tensor(math.inf)
            low, high = -none if low is None else low, none if high is None else high
            self.bounds = low.to(mean).expand_as(mean), high.to(mean).expand_as(mean)

    @classmethod
    def joined(cls, posteriors: Sequence[GaussianPosterior], log_weights: Tensor) -> Self:
        """The mixture of M posteriors by log-weights (B, M, R): the components of all."""
        bounded = any(q.bounds for q in posteriors)
        pairs = zip(posteriors, log_weights[..., None].unbind(1), strict=True)
        parts = [(q.log_weight + w, *q._parts(bounded)[1:]) for q, w in pairs]
        return cls(*(torch.cat(t, 2) for t in zip(*parts, strict=True)))

    @classmethod
    def stacked(cls, posteriors: Sequence[GaussianPosterior]) -> GaussianPosterior:
        """The rows of all posteriors, one below the other, padded with components of weight zero."""
        nothing = -math.inf, 0.0, 1.0, -math.inf, math.inf  # a component of weight zero
        most = max(q.means.shape[2] for q in posteriors)
        bounded = any(q.bounds for q in posteriors)
        parts = [
            [
                functional.pad(t, (0, most - t.shape[2]), value=v)
                for t, v in zip(q._parts(bounded), nothing, strict=False)
            ]
            for q in posteriors
        ]
        return cls(*map(torch.cat, zip(*parts, strict=True)), normalised=True)

    def with_cells(self, place: Tensor, others: Sequence[GaussianPosterior]) -> GaussianPosterior:
        """The posterior whose cell (i, r) is number ``place[i, r]`` of the cells of this one, then of ``others``."""
        flat = [q.pick(lambda t: t.to(self.means).flatten(0, 1)[:, None]) for q in (self, *others)]
        return self.stacked(flat).pick(lambda t: t[place][:, :, 0])

    def _parts(self, bounded: bool) -> tuple[Tensor, ...]:
        """Log-weights, means, variances and, if ``bounded``, bounds, infinite where there are none."""
        none = [torch.full_like(self.means, end) for end in (-math.inf, math.inf)]
        return self.log_weight, self.means, self.var, *((self.bounds or none) if bounded else ())

    @cached_property
    def _standard(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Means, standard deviations, standardised bounds and log-masses between them of all components, float64."""
        mean, sd = self.means.double(), self.var.double().sqrt()
        low, high = ((t.double() - mean) / sd for t in self.bounds)
        return mean, sd, low, high, log_between(low, high)

    def mean(self) -> Tensor:
        r"""The denoised values :math:`\hat x`, shape (B, R)."""
        return (self.log_weight.exp() * self._means()).sum(2)

    def _means(self) -> Tensor:
        """Means of the components between their bounds, (B, R, K)."""
        if not self.bounds:
            return self.means
        mean, sd, low, high, log_mass = self._standard
        slope = (log_normal(low) - log_mass).exp() - (log_normal(high) - log_mass).exp()
        return (mean + sd * slope).to(self.means).clamp(*self.bounds)

    def log_prob(self, middle: Tensor, width: Tensor | None = None) -> Tensor:
        """Log-mass (20) of cells of some ``middle`` and ``width``, (B, R) each: (B, R), nats.

        Without widths the cells are points, and the result is their log-density.
        """
        return torch.logsumexp(self.log_weight + self._log_mass(middle, width), dim=2)

    def log_mass_of_few(self, middle: Tensor, width: Tensor) -> Tensor:
        r"""Log-masses (20) of V cells of one column, (B, V) each, in double: (B, V), nats.

        Where cells are narrow, by one matrix product: with z standardised and w the width in standard deviations,
        :math:`\log\varphi(z) + \log w + w^2 (z^2 - 1) / 24`, which errs by .005 at most within 3 standard deviations up
        to w = 1/2. Cells are taken as wholly inside the bounds of a component, or outside.
        """
        mean, var = self.means[:, 0], self.var[:, 0]
        usual = width.amax(1, keepdim=True)  # the width up to which cells are narrow
        is_narrow = usual.square() <= var.amin(1, keepdim=True) / 4
        if not bool(is_narrow.all()):
            usual = torch.where(is_narrow, usual, width.quantile(0.9, 1, keepdim=True))
        centre = self.mean().to(mean)
        from_centre, place = mean - centre, middle - centre
        # in single precision squares of values in standard deviations are right to .001 up to 100
        is_wide = (usual.square() > var / 4) | (from_centre.abs() > 100 * var.sqrt())
        log_scale = self.log_weight[:, 0] - 0.5 * (2 * math.pi * var).log()
        if self.bounds:
            log_scale = log_scale - self._standard[4][:, 0]
        log_scale = log_scale.masked_fill(is_wide, -FARTHEST)
        var = var.masked_fill(is_wide, 1.0)
        slope, bend = 1 / var, 1 / (24 * var.square())
        coefficients = [
            -slope / 2,
            from_centre * slope,
            log_scale - from_centre.square() * slope / 2,
            bend,
            -2 * from_centre * bend,
            (from_centre.square() - var) * bend,
        ]
        powers = torch.stack([place.square(), place, torch.ones_like(place)], 2)
        powers = torch.cat([powers, powers * width.square()[:, :, None]], 2).float()
        log_p = powers @ torch.stack(coefficients, 1).float()  # (B, V, K)
        if self.bounds:
            low, high = (t[:, 0, None].float() for t in self.bounds)
            place = middle[:, :, None].float()
            log_p = log_p.masked_fill((place <= low) | (place > high), -math.inf)
        out = torch.logsumexp(log_p, 2).double() + Intervals(middle, width).log_width()
        if n := int(is_wide.sum(1).max()):
            place = is_wide.to(torch.uint8).topk(n, 1)[1]
            kept = is_wide.gather(1, place)[:, None]
            some = self.pick(lambda t: t.gather(2, place[:, None]))
            exactly = some._log_mass_of_not_narrow(middle, width).masked_fill(~kept, -math.inf)
            out = torch.logaddexp(out, exactly.logsumexp(2))
        is_wide = width > usual
        if n := int(is_wide.sum(1).max()):
            place = is_wide.to(torch.uint8).topk(n, 1)[1]
            cells = middle.gather(1, place), width.gather(1, place)
            out = out.scatter(1, place, self._log_mass_of_not_narrow(*cells).logsumexp(2))
        return out

    def _log_mass_of_not_narrow(self, middle: Tensor, width: Tensor) -> Tensor:
        """Log-masses of V cells (B, V) of one column, of a point its log-density, times weights: (B, V, K), float64.

        Points count as cells of 1e-4 standard deviations.
        """
        sd = self.var.sqrt()
        middle, width = middle[:, :, None], width[:, :, None]
        size = torch.maximum(width, 1e-4 * sd)
        out = log_mass_of_wide((middle - self.means) / sd, size / sd) + self.log_weight
        out = out - (size / torch.where(width > 0, width, 1.0)).log()
        if not self.bounds:
            return out
        low, high = self.bounds
        inside = (middle > low) & (middle <= high)
        return (out - self._standard[4]).masked_fill(~inside, -math.inf)

    def log_prob_at(self, cells: Intervals) -> Tensor:
        """Log-probabilities (B, V), nats, of V cells (V, 1) of one column, in bounded memory."""
        size = CHUNK // max(1, self.means.shape[2] * len(cells.middle))
        rows = torch.arange(len(self.means), device=self.means.device).split(max(1, size))
        each = [self.pick(lambda t, i=i: t[i]).log_prob(*(t.T for t in cells)) for i in rows]
        return torch.cat(each)

    def cdf(self, values: Tensor) -> Tensor:
        """Cumulative distribution function of each cell at ``values`` (B, R): (B, R)."""
        z = values[:, :, None]
        if not self.bounds:
            below = tail((z - self.means) / self.var.sqrt())
        else:
            mean, sd, low, high, log_mass = self._standard
            z = ((z.double() - mean) / sd).clamp(low, high)
            below = (log_between(low.expand_as(z), z) - log_mass).exp()
        return (self.log_weight.exp() * below.to(self.means)).sum(2)

    def shares(self, middle: Tensor, width: Tensor | None = None) -> Tensor:
        """Posterior probabilities of the components given cells, as of :meth:`log_prob`: (B, R, K)."""
        return torch.softmax(self.log_weight + self._log_mass(middle, width), 2)

    def _log_mass(self, middle: Tensor, width: Tensor | None = None) -> Tensor:
        """Log-mass of each component in each cell (B, R): (B, R, K), nats."""
        cells = Intervals.at(middle) if width is None else Intervals(middle, width)
        cells = Intervals(*(t.double()[:, :, None] for t in cells))
        if not self.bounds:
            return log_mass(cells, self.means, self.var.sqrt()).to(self.means)
        mean, sd, _, _, log_inside = self._standard
        low, high = self.bounds
        inside = (cells.middle > low) & (cells.middle <= high)
        out = log_mass(clipped(cells, low, high), mean, sd) - log_inside
        return out.to(self.means).masked_fill(~inside, -math.inf)

    def log_evidence(self, y: Tensor, snr: Tensor, lines: NumberLines | None = None) -> Tensor:
        r"""Log-probability that each component gives to evidence ``y`` and ``snr``, both (B, R): (B, R, K), nats.

        :math:`\log \int p(x)\, e^{-\gamma (x - c)^2 / 2} dx` with c = y/γ; where the SNR is infinite, the log-density
        at y. With ``lines`` it is the log-mass of the cell of y, and the integral is a sum over the lattice where that
        is too coarse.
        """
        return self.given(y, snr, lines)[0].to(self.means)

    def update(
        self, y: Tensor, snr: Tensor, lines: NumberLines | None = None, *, sums: bool = True
    ) -> GaussianPosterior:
        r"""The Bayes update :math:`q \oplus \Delta` by evidence as of :meth:`log_evidence`.

        A known value far outside every component leaves their weights unchanged. Where the lattice is too coarse, the
        components become the numbers around y/γ; without ``sums`` they stay Gaussians.
        """
        log_evidence, *parts = self.given(y, snr, lines, sums=sums)
        log_weight = self.log_weight + log_evidence.clamp_min(-FARTHEST)
        updated = GaussianPosterior(log_weight, *parts, *self.bounds)
        coarse = is_coarse(y, snr, lines)
        if sums and lines is not None and devices.any_true(coarse):
            z, log_p = self._on_lattice(y, snr, lines)
            log_p = (self.log_weight[:, :, None] + log_p).logsumexp(3)
            points = GaussianPosterior(log_p, z, torch.full_like(z, 1 / REAL_KNOWN_SNR))
            place = torch.arange(coarse.numel(), device=y.device).view_as(coarse)
            updated = updated.with_cells(place + coarse.numel() * coarse, [points])
        return updated.pick(lambda t: t.to(self.means))

    def _on_lattice(self, y: Tensor, snr: Tensor, lines: NumberLines) -> tuple[Tensor, Tensor]:
        """The N numbers around y/γ, (B, R, N), and their log-mass times evidence in each component, (B, R, N, K)."""
        centre = y.double() / snr.double().clamp_min(SMALLEST)
        z, cells = lines.near(centre, 13)
        evidence = -0.5 * snr.double()[:, :, None] * (z - centre[:, :, None]) ** 2
        each = [self._log_mass(*(t[:, :, i] for t in cells)) for i in range(z.shape[2])]
        return z, torch.stack(each, 2).double() + evidence[..., None]

    def given(
        self, y: Tensor, snr: Tensor, lines: NumberLines | None = None, *, sums: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`log_evidence`, and means and variances of the components after the evidence: (B, R, K) each."""
        mean, var, known = self.means, self.var, torch.isinf(snr)
        point = y.masked_fill(~known, 0.0)
        cells = Intervals.at(point) if lines is None else lines.cells(point)
        coarse, given = is_coarse(y, snr, lines), (y, snr)
        if self.bounds:
            mean, var, y, snr = (t.double() for t in (mean, var, y, snr))
        is_noisy = devices.any_true((snr > 0) & ~known)
        snr = torch.where(known, REAL_KNOWN_SNR, snr)
        y = torch.where(known, y * REAL_KNOWN_SNR, y)
        # where snr is 0, y and the centre are 0, too
        centre = (y / snr.clamp_min(torch.finfo(snr.dtype).tiny))[:, :, None]
        y, snr = y[:, :, None], snr[:, :, None]
        shrink = 1 + snr * var
        after, narrower = (mean + var * y) / shrink, var / shrink
        log_evidence = torch.zeros_like(after)
        if is_noisy:
            log_evidence = -0.5 * (shrink.log() + snr * (mean - centre) ** 2 / shrink)
            if self.bounds:
                ends = ((t.double() - after) / narrower.sqrt() for t in self.bounds)
                log_evidence = log_evidence + log_between(*ends) - self._standard[4]
        if sums and lines is not None and devices.any_true(coarse):
            summed = self._on_lattice(*given, lines)[1].logsumexp(2)
            log_evidence = torch.where(coarse[:, :, None], summed.to(log_evidence), log_evidence)
        log_point = self._log_mass(*cells).to(log_evidence)
        return torch.where(known[:, :, None], log_point, log_evidence), after, narrower

    def pick(self, rows: Callable[[Tensor], Tensor]) -> GaussianPosterior:
        """The posterior of the rows that ``rows`` selects from each tensor."""
        return GaussianPosterior(*map(rows, self._parts(bool(self.bounds))), normalised=True)

    def at_uniform(self, u: Tensor, v: Tensor) -> Tensor:
        """Values (B, n) of one column, float64: ``u`` (B, n) in [0, 1] chooses the component, ``v`` the value in it."""
        which = chosen(self.log_weight[:, 0].double(), u)
        mean, var, *bounds = (
            t[:, 0].double().gather(1, which) for t in (self.means, self.var, *self.bounds)
        )
        return _quantile(v.clamp(1e-12, 1 - 1e-12), mean, var.sqrt(), *bounds)

    def points(self, n: int, shift: int = 0) -> Tensor:
        """Quasi-random points (B, n) of one column: a lattice over components and within them, shifted."""
        i = torch.arange(n, device=self.means.device, dtype=torch.float64)
        start = (shift + 1) / 2
        # multiples of the golden ratio's inverse, modulo 1, are spread most evenly over the unit interval
        u, v = (i + start) / n % 1, (i * (math.sqrt(5) - 1) / 2 + start) % 1
        shape = (len(self.means), n)
        return self.at_uniform(u.expand(shape), v.expand(shape))

    def _in_pieces(self) -> Tensor:
        """Which rows of one column have components in disjoint intervals, one after the other: bool, (B,)."""
        if not self.bounds:
            return torch.zeros_like(self.means[:, 0, 0], dtype=torch.bool)
        low, high = (t[:, 0] for t in self.bounds)
        is_empty = self.log_weight[:, 0].isneginf()
        end = high.masked_fill(is_empty, -math.inf).cummax(1)[0]
        return ((low[:, 1:] >= end[:, :-1]) | is_empty[:, 1:]).all(1)

    def quantiles(self, u: Tensor) -> Tensor:
        """Quantiles of one column at levels ``u`` (n,): float64, (B, n), to within a level of 1e-9.

        In closed form where components lie in disjoint intervals; else by Newton's method, or bisection where it is
        slower.
        """
        share = u.to(self.means.device, torch.float64)
        out = share.new_zeros(len(self.means), len(u))
        in_pieces = self._in_pieces()
        rows, others = (torch.nonzero(t).flatten() for t in (in_pieces, ~in_pieces))
        if len(rows):
            log_weight = self.log_weight[rows, 0].double()
            cdf = torch.softmax(log_weight, 1).cumsum(1)
            below = share * cdf[:, -1:]
            which = torch.searchsorted(cdf, below).clamp_max(cdf.shape[1] - 1)
            weight = (cdf.gather(1, which) - below) / torch.softmax(log_weight, 1).gather(1, which)
            mean, var, *bounds = (
                t[rows, 0].double().gather(1, which) for t in (self.means, self.var, *self.bounds)
            )
            out[rows] = _quantile((1 - weight).clamp(0.0, 1.0), mean, var.sqrt(), *bounds)
        for some, q in self.pick(lambda t: t[others]).few_components(len(u), merged=False):
            parts = (t[:, 0, :, None] for t in (q.means, q.var.sqrt(), *q.bounds))
            component_quantiles = _quantile(share, *parts)  # they bracket the mixture's quantile
            low, high = component_quantiles.amin(1), component_quantiles.amax(1)
            z, step = (low + high) / 2, high - low
            for _ in range(100):
                error = q.cdf(z) - share
                low, high = torch.where(error < 0, z, low), torch.where(error < 0, high, z)
                searched = (error.abs() > 1e-9) & (high > torch.nextafter(low, high))
                if not bool(searched.any()):
                    break
                new = z - error / q.log_prob(z).exp()
                is_close = (new > low) & (new < high) & ((new - z).abs() < step / 2)
                new = torch.where(searched, torch.where(is_close, new, (low + high) / 2), z)
                z, step = new, (new - z).abs()
            out[others[some]] = z
        return out

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean of a function of the values of one column at :meth:`points`: float64, (B,).

        The mean of the values themselves errs by 0.02 standard deviations. Some 0.1 % on either side lie beyond these
        points: hardly any training rows lie there, and a function may grow faster than the density falls.
        """
        out = torch.zeros(len(self.means), dtype=torch.float64, device=self.means.device)
        for rows, q in self.few_components(N_QUADRATURE):
            out[rows] = function(q.points(N_QUADRATURE)).mean(1)
        return out

    def entropy(self, cells: Callable[..., Intervals], *of_rows: Tensor) -> Tensor:
        """Expected surprisal of one column, the mean at :meth:`points`: float64, (B,), nats, to some hundredths.

        ``cells`` maps values (b, n) of b rows, and these rows of each tensor ``of_rows``, to the cells that record
        them. Memory is bounded. Where components lie in disjoint intervals, it is a sum over their means: exact if
        densities are exponential functions between the bounds.
        """
        out = torch.zeros(len(self.means), dtype=torch.float64, device=self.means.device)
        n, in_pieces = N_QUADRATURE // 2, self._in_pieces()
        pieces, others = (torch.nonzero(t).flatten() for t in (in_pieces, ~in_pieces))
        if len(pieces):
            q = self.pick(lambda t: t[pieces].double())
            middle, (mean, sd, _, _, log_inside) = q._means(), q._standard
            log_p = q.log_weight + log_normal((middle - mean) / sd) - sd.log() - log_inside
            log_width = cells(middle[:, 0], *(t[pieces] for t in of_rows)).log_width()
            out[pieces] = -(q.log_weight.exp()[:, 0] * (log_p[:, 0] + log_width)).nansum(1)
        for part, q in self.pick(lambda t: t[others]).few_components(n):
            rows = others[part]
            middle, width = cells(q.points(n), *(t[rows] for t in of_rows))
            # in narrow cells the density is taken as constant: it costs a third of the mass
            is_narrow = width.amax(1) < 0.1 * q.var.amin((1, 2)).sqrt()
            for narrow in (True, False):
                part = torch.nonzero(is_narrow == narrow).flatten()
                if len(part):
                    some, m, w = q.pick(lambda t, i=part: t[i]), middle[part], width[part]
                    log_width = torch.where(w > 0, w, 1.0).log()
                    log_p = some.log_prob(m) + log_width if narrow else some.log_prob(m, w)
                    out[rows[part]] = -log_p.mean(1)
        return out

    def few_components(
        self, n_points: int, *, merged: bool = True
    ) -> Iterator[tuple[Tensor, GaussianPosterior]]:
        """Parts of the rows, and their mixtures of one column in double, without the least likely components.

        Left out is at most 1e-4 of the probability: given other cells, few of thousands of components are left. Of
        these, similar ones may be ``merged``. Rows that keep about as many are taken together, at most ``CHUNK``
        numbers of K × ``n_points`` for each row.
        """
        for part in torch.arange(len(self.means)).split(max(1, CHUNK // self.means.shape[2])):
            of_part = self.pick(lambda t, i=part: t[i])
            if merged and len(part) and self.means.shape[2] > MANY:
                of_part = of_part._merged()
            n_components = of_part.means.shape[2]
            log_weight, order = of_part.log_weight[:, 0].double().sort(1, descending=True)
            n_kept = 1 + (1 - log_weight.exp().cumsum(1) > 1e-4).sum(1)
            needs = [min(1 << (n - 1).bit_length(), n_components) for n in n_kept.tolist()]
            for k in sorted(set(needs)):
                places = torch.nonzero(torch.tensor(needs) == k).flatten()
                for some in places.split(max(1, CHUNK // (k * n_points))):
                    kept = order[some, None, :k]
                    q = of_part.pick(lambda t, i=some, kept=kept: t[i].double().gather(2, kept))
                    rising = q._means().argsort(2)
                    q = q.pick(lambda t, rising=rising: t.gather(2, rising))
                    yield part[some], GaussianPosterior(q.log_weight, q.means, q.var, *q.bounds)

    def _merged(self) -> GaussianPosterior:
        """The mixtures of one column, in double, with one component for each set of similar ones of the same bounds.

        It has their weight, mean and variance. Components of 1e-5 of the probability together are left out.
        """
        weight, mean, var = self.log_weight[:, 0].exp(), self.means[:, 0], self.var[:, 0]
        row, k = torch.nonzero(weight > 1e-5 / weight.shape[1]).unbind(1)
        weight, mean, var = (t[row, k].double() for t in (weight, mean, var))
        size = (var.log() / (2 * SD_STEP)).round()
        place = (mean / (MEAN_STEP * (size * SD_STEP).exp())).round()
        # one whole number for row, size and place; far places may share one, at no harm but a wide component
        key = ((row * 4096 + size.long() + 2048) << 32) + place.long().clamp(
            -(1 << 31), (1 << 31) - 1
        )
        bounds = [t[:, 0][row, k].double() for t in self.bounds]
        for bound in bounds:
            values, which = bound.unique(return_inverse=True)
            key = key.unique(return_inverse=True)[1] * len(values) + which
        _, which = key.unique(return_inverse=True)
        n = int(which.max()) + 1
        sums = weight.new_zeros(3, n).index_add_(
            1, which, torch.stack([weight, weight * mean, weight * var])
        )
        total, centre = sums[0], sums[1] / sums[0]
        spread = (mean - centre[which]).square_().mul_(weight)
        within = (sums[2].index_add(0, which, spread)) / total
        row_of, *bounds = (t.new_empty(n).index_copy_(0, which, t) for t in (row, *bounds))
        count = torch.bincount(row_of, minlength=len(self.means))
        at = torch.arange(n, device=row.device) - (count.cumsum(0) - count)[row_of]
        nothing = -math.inf, 0.0, 1.0, -math.inf, math.inf
        out = [
            t.new_full((len(count), int(count.max())), v).index_put_((row_of, at), t)[:, None]
            for t, v in zip((total.log(), centre, within, *bounds), nothing, strict=False)
        ]
        return GaussianPosterior(*out)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One value per column, shape (B, R)."""
        pick = add_gumbel(self.log_weight, generator).argmax(2, keepdim=True)
        drawn = self.pick(lambda t: t.gather(2, pick))
        mean, var = drawn.means[:, :, 0], drawn.var[:, :, 0]
        if not drawn.bounds:
            xi = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=var.dtype)
            return mean + var.sqrt() * xi
        u = torch.rand(mean.shape, generator=generator, device=mean.device, dtype=torch.float64)
        low, high = (t[:, :, 0] for t in drawn.bounds)
        ends = mean.double(), var.double().sqrt(), low.double(), high.double()
        return _quantile(u, *ends).to(mean).clamp(torch.nextafter(low, high), high)


def log_linear(nodes: Tensor, log_density: Tensor) -> list[Tensor]:
    r"""Log-masses, means, variances and bounds of exponential pieces between nodes, (n, G + 1) each.

    They interpolate the ``log_density`` of n densities at increasing ``nodes``, (n, G) each, float64; equal nodes count
    once. Beyond the outermost nodes a density falls at least as :math:`e^{-|x|}`. A piece's Gaussian is so wide that it
    is an exponential function within 1e-5 nats.
    """
    f = torch.maximum(log_density, log_density.amax(1, keepdim=True) - 1e4)
    spacing = nodes.diff(dim=1)
    slope = f.diff(dim=1) / spacing.masked_fill(spacing == 0, math.inf)
    ends = slope[:, :1].clamp_min(1.0), slope[:, -1:].clamp_max(-1.0)
    slope = torch.cat([ends[0], slope, ends[1]], 1)
    length = torch.cat([1 / ends[0], spacing, -1 / ends[1]], 1)
    sd = 100.0 * torch.where(length > 0, length, 1.0)
    low, high = (
        functional.pad(nodes, side, value=v)
        for side, v in (((1, 0), -math.inf), ((0, 1), math.inf))
    )
    high = torch.where(length > 0, high, low + 1)
    # the middle of each piece, or the end of a tail
    mid, f = (torch.cat([t[:, :1], (t[:, 1:] + t[:, :-1]) / 2, t[:, -1:]], 1) for t in (nodes, f))
    mean = mid + slope * sd.square()
    mass = (
        f - log_normal(slope * sd) + sd.log() + log_between((low - mean) / sd, (high - mean) / sd)
    )
    return [mass.masked_fill(length == 0, -math.inf), mean, sd.square(), low, high]


def is_coarse(y: Tensor, snr: Tensor, lines: NumberLines | None) -> Tensor:
    """Whether the lattice is too coarse to integrate over evidence (B, R), so that numbers are summed: bool, (B, R).

    That is where the width of a cell exceeds half a standard deviation of the noise.
    """
    noisy = (snr > 0) & ~torch.isinf(snr)
    if lines is None or not lines.have_steps:
        return torch.zeros_like(noisy)
    width = lines.spacing(torch.where(noisy, y / snr.clamp_min(SMALLEST), 0.0))
    return noisy & lines.have_lattice(y) & (snr * width.square() > 0.25)


def log_normal(z: Tensor) -> Tensor:
    """Log-density of a standard normal variable, nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi))


def tail(z: Tensor) -> Tensor:
    """Probability that a standard normal variable is below z; its digits are kept far below zero."""
    return 0.5 * torch.erfc(z * -math.sqrt(0.5))


def chosen(log_probs: Tensor, u: Tensor) -> Tensor:
    """Draws from softmax of ``log_probs`` (B, K) by uniform numbers ``u`` (B,) or (B, n): int64, shape of ``u``."""
    cdf = torch.softmax(log_probs, 1).cumsum(1)
    wide = u[:, None] if u.ndim == 1 else u
    share = wide * cdf[:, -1:]  # the last sum may round to less than 1
    place = torch.searchsorted(cdf, share.contiguous(), right=True).clamp_max(cdf.shape[1] - 1)
    return place.view(u.shape)


def _mirrored(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether an interval lies above zero, and its ends, mirrored if so: small masses keep their digits below zero."""
    above = low > 0
    return above, torch.where(above, -high, low), torch.where(above, -low, high)


def log_between(low: Tensor, high: Tensor) -> Tensor:
    """Log-probability of a standard normal variable between bounds (float64), nats."""
    _, low, high = _mirrored(low, high)
    most = torch.special.log_ndtr(high)
    less = (torch.special.log_ndtr(low) - most).clamp_max(-SMALLEST)
    width = high - low
    close = width < CLOSE_BOUNDS
    middle = torch.where(close, (low + high) / 2, 0.0)
    narrow = _log_narrow(middle, width.clamp_min(SMALLEST))
    return torch.where(close, narrow, most + (-torch.expm1(less)).log())


def _log_narrow(middle: Tensor, width: Tensor) -> Tensor:
    r""":func:`log_between` of bounds so close that differences lose digits, to within :math:`h^2/6`.

    :math:`\log\varphi(m) + \log 2h + \log(\sinh(mh)/mh)` of the middle m and the half-width h.
    """
    # fall = 2|m|h; log(sinh(mh)/mh) = mh + log((1 - exp(-2mh))/2mh)
    fall = (middle * width).abs().clamp_min(SMALLEST)
    return log_normal(middle) + width.log() + fall / 2 + (-torch.expm1(-fall) / fall).log()


class _LogCell(torch.autograd.Function):
    """Log-probability of a standard normal variable in cells, of a point its log-density: float64, nats.

    Its gradients are ratios of densities to the mass: they keep their digits, and are finite, in the tails.
    """

    @staticmethod
    def forward(ctx: Any, middle: Tensor, width: Tensor) -> Tensor:
        """Log-probabilities of cells by ``middle`` and ``width`` of one shape, float64."""
        middle, width = middle.contiguous(), width.contiguous()
        out, wide = log_normal(middle).flatten(), width >= CLOSE_BOUNDS
        for which, log_p in ((~wide & (width > 0), _log_narrow), (wide, log_mass_of_wide)):

            def of_some(places: Tensor, log_p: Callable[..., Tensor] = log_p) -> Tensor:
                return log_p(middle.view(-1)[places], width.view(-1)[places])

            out = devices.replace_rows(out, which.flatten(), of_some)
        out = out.view_as(middle)
        ctx.save_for_backward(middle, width, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of middle and width."""
        middle, width, out = ctx.saved_tensors
        ends = middle - width / 2, middle + width / 2
        at_low, at_high = ((log_normal(z) - out).exp() for z in ends)
        wide = width >= CLOSE_BOUNDS
        grad_middle = torch.where(wide, at_high - at_low, -middle)
        grad_width = torch.where(wide, (at_low + at_high) / 2, 1 / width)
        grad_width = torch.where(width > 0, grad_width, 0.0)
        return grad_outputs[0] * grad_middle, grad_outputs[0] * grad_width


def log_mass(cells: Intervals, mean: Tensor, sd: Tensor) -> Tensor:
    """Log-mass (20) of Gaussians in cells, of a point the log-density; all broadcast: float64, nats."""
    mean, sd = mean.double(), sd.double()
    middle = (cells.middle - mean) / sd
    width = (cells.width / sd).expand_as(middle)
    out = _LogCell.apply(middle, width)
    assert isinstance(out, Tensor)
    return torch.where(width > 0, out, out - sd.log())


def log_mass_of_wide(middle: Tensor, width: Tensor) -> Tensor:
    """:func:`log_between` of cells that are not narrow, in half its time: float64.

    It errs by 1e-8; beyond 36 standard deviations, where differences of masses lose digits, by 1e-4, as it takes the
    continued fraction of Mills' ratio there.
    """
    distance, half = middle.abs(), width / 2
    low = distance - half
    mass = torch.erfc(low * math.sqrt(0.5))
    mass = mass.sub_(torch.erfc((distance + half).mul_(math.sqrt(0.5)))).mul_(0.5)
    low = low.clamp_min_(1.0)
    tail = (distance * width).neg_().expm1_().neg_().div_(low + 1 / (low + 2 / low)).log_()
    tail = tail.add_(log_normal(low))
    return torch.where(mass > 1e-290, mass.log(), tail)


def clipped(cells: Intervals, low: Tensor, high: Tensor) -> Intervals:
    """The parts of cells that lie between bounds."""
    half = cells.width / 2
    left, right = torch.maximum(cells.middle - half, low), torch.minimum(cells.middle + half, high)
    cut = (left > cells.middle - half) | (right < cells.middle + half)
    cut = cut & (cells.width > 0)
    return Intervals(
        torch.where(cut, (left + right) / 2, cells.middle),
        torch.where(cut, (right - left).clamp_min(SMALLEST), cells.width),
    )


def _quantile(u: Tensor, mean: Tensor, sd: Tensor, *bounds: Tensor) -> Tensor:
    """The value below which a Gaussian, truncated to (low, high] if there are bounds, has probability u, float64."""
    if not bounds:
        return mean + sd * torch.special.ndtri(u)
    low, high = bounds
    out = mean + sd * truncated_quantile(u, (low - mean) / sd, (high - mean) / sd)
    return out.clamp(torch.nextafter(low, high), high)  # rounding must not move it out


def truncated_quantile(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Quantile u of a standard normal variable truncated to (low, high], float64."""
    above, a, b = _mirrored(low, high)
    u = torch.where(above, 1 - u, u).clamp(SMALLEST, 1 - 1e-16)
    a_below, b_below = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_below = torch.logaddexp(torch.log1p(-u) + a_below, u.log() + b_below)
    z = torch.special.ndtri(log_below.exp())
    far = -(-2 * log_below).clamp_min(1.0).sqrt()  # where the probability underflows
    for _ in range(5):  # Newton steps
        now = torch.special.log_ndtr(far)
        far = far + (log_below - now) * (now - log_normal(far)).exp()
    z = torch.where(log_below < math.log(SMALLEST), far, z).clamp(a, b)
    return torch.where(above, -z, z)
