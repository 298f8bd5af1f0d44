r"""SNR patterns: on what noise a denoiser is trained and judged.

Every pattern's loss is in nats per row, an unbiased estimate of the code length named. C counts the observed cells of
a row; missing cells keep SNR zero and cost nothing.

* *isotropic*: all columns at one SNR drawn from an importance density, and :math:`-\log P(x)` by (3) with its weight.
  For a continuous column the squared error does not tell how wide its posterior should be, so its
  share is the code length of a path (6) of a few random steps, of which one is drawn, against that of the
  baseline, (4);
* *masked*: a random subset of the columns known, every size equally likely, the rest unknown. Here
  (3) is closed: :math:`-\log P(x)` is (C + 1)/u times the cross-entropy of the u of C columns unknown, on
  average over subsets (an autoregression averaged over orders);
* *hybrid*: a random subset known and the rest at one SNR; (3) for the rest given the subset, which is what
  conditional questions and mixed paths need.

Where a table has leading columns, which paths take before the others, masked rows either ask for these alone, or
for the others with these known; isotropic rows are nats of the others.

References
----------
Kong, Brekelmans, Ver Steeg, ICLR 2023, arXiv:2302.03792: eq. (3) of :mod:`discrete_itd.likelihood`.
Uria, Murray, Larochelle, "A deep and tractable density estimator", ICML 2014, for the masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from discrete_itd.channel import Quadrature, State
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import HUGE, Denoiser

PILOT_CELLS = 1 << 19  # rows times numbers of a posterior, for the pilot
FEW_COORDS = 64  # of a picture of whose pixels nothing is known at an SNR of 0.01
VALIDATION_DRAWS = 4096  # rows times repeats of one validation
MOST_WEIGHT = 2.0  # of a row among those with as many cells known
VALIDATION_CELLS = 1 << 26  # rows times numbers of a posterior, of one validation
REAL_STEPS = 8  # of the path whose cost is a continuous column's loss
REAL_SNR = 1000.0  # beyond which a continuous column's evidence tells little about others
REAL_HIGH_SNR = 16000.0  # an error of a sixtieth of a standard deviation


class Patterns:
    """Draws noisy states of rows and scores posteriors on them.

    Parameters
    ----------
    quadrature : Quadrature
        Importance density over logsnr for the isotropic and hybrid rows.
    shares : tuple of three floats
        Of isotropic, masked and hybrid rows.
    balanced : bool
        Whether a row with missing cells counts, among those with the same cells known, as much as a complete one. Else
        it counts more, because its few cells are more often the first; that is an unbiased loss, but where
        cells are missing more often in some kinds of rows, it would learn wrong frequencies of these kinds.
    """

    def __init__(
        self,
        quadrature: Quadrature,
        shares: tuple[float, float, float],
        *,
        balanced: bool = False,
    ) -> None:
        self.quadrature = quadrature
        self.shares, self.balanced = shares, balanced

    def loss(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats of each row of ``x`` (B, C) on a fresh pattern: (B,), isotropic rows first, then hybrids."""
        book = denoiser.codebook
        n, device = len(x), x.device
        n_iso = round(n * self.shares[0])
        n_hybrid = min(n - n_iso, round(n * self.shares[2]))
        n_noisy = n_iso + n_hybrid
        points = book.embed(x)
        alone = torch.zeros(
            n, 1, dtype=torch.bool, device=device
        )  # rows that ask for the leading columns
        if book.has_leading:
            alone[n_noisy:] = torch.rand(n - n_noisy, 1, generator=generator, device=device) < 0.5
            x = x.masked_fill(alone & ~book.leading, math.nan)
        missing = x.isnan()

        def stratified(count: int) -> Tensor:
            jitter = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
            order = torch.randperm(count, generator=generator, device=device)
            return (order + jitter) / max(count, 1)

        # if the share of known columns is uniform, every number of them is equally likely
        share = torch.cat(
            [
                torch.zeros(n_iso, dtype=torch.float64, device=device),
                stratified(n_hybrid),
                stratified(n - n_noisy),
            ]
        )
        draws = torch.rand(x.shape, generator=generator, device=device, dtype=points.dtype)
        known = (draws < share.to(points)[:, None]) & ~missing  # (B, C)
        counted = ~missing
        if book.has_leading:
            led = book.leading & ~alone & ~missing
            led[n_iso:n_noisy] = False
            known, counted = known | led, counted & ~led

        u = torch.cat([stratified(n_iso), stratified(n_hybrid)]).clamp_max(1 - 1e-12)
        gamma, weight = self.quadrature.points(u)
        snr = points.new_zeros(x.shape)
        snr[:n_noisy] = gamma.to(points)[:, None]
        snr = snr.masked_fill_(known, math.inf).masked_fill_(missing, 0.0)
        xi = torch.zeros_like(points)
        xi[:n_noisy].normal_(generator=generator)
        state = State.start(book, points).increment(book, points, snr, xi)

        asked = x.masked_fill(known, math.nan)
        noisy = slice(0, n_noisy)
        if not len(book.reals):
            posterior, real = denoiser(*state), 0.0
        else:
            posterior, real = self._real_paths(denoiser, state, points, asked, known, u, generator)

        quiet = known | missing
        quiet[:, book.reals] = True
        error = (points[noisy] - posterior.rows(noisy).mean()).square()
        error = error.masked_fill(book.per_coord(quiet[noisy]), 0.0).sum(1)
        unknown = (~known & ~missing)[n_noisy:].sum(1)
        n_cells = counted[n_noisy:].sum(1)
        surprisal = -posterior.rows(slice(n_noisy, n)).log_prob(asked[n_noisy:]).sum(1)
        if self.balanced and not book.has_leading:
            # a subset of all cells, kept only if no missing one is in it: its chance is the same in
            # all rows that have its cells. Rather than thrown away, rows are weighted with that chance
            gone = missing[n_noisy:].sum(1)
            relative = (1 - share[n_noisy:]) ** (gone - gone.double().mean())
            n_cells, unknown = n_cells + gone, unknown + gone * (unknown > 0)
            surprisal = surprisal * relative.clamp(1 / MOST_WEIGHT, MOST_WEIGHT).to(surprisal)
        masked = surprisal * (n_cells + 1) / unknown.clamp_min(1) * (1 + book.has_leading)
        return torch.cat([0.5 * weight.to(error) * error + real, masked])

    def _real_paths(
        self,
        denoiser: Denoiser,
        state: State,
        points: Tensor,
        asked: Tensor,
        known: Tensor,
        u: Tensor,
        generator: torch.Generator,
    ) -> tuple[Posterior, Tensor]:
        """The posterior of all rows, and the continuous columns' cost on the paths of the first ``len(u)``, (B',).

        A path steps through the quantiles u', u' + 1/S, u' + 2/S ... of the quadrature, with u' uniform below 1/S. The
        step from ``u`` is one of them, drawn at random; where ``u`` itself is below 1/S, it is u', and the step
        that led there from nothing is added.
        """
        book, n, m = denoiser.codebook, len(asked), len(u)
        first = torch.nonzero(u < 1 / REAL_STEPS).flatten()
        start = State.start(book, points[first], known[first])
        here, asked = State(state.y[:m], state.snr[:m]), asked[:m]
        arrived = State(
            here.y[first] - start.y, (here.snr[first] - start.snr).nan_to_num(0.0)
        )  # known cells tell nothing new
        ahead = u + 1 / REAL_STEPS
        gamma, _ = self.quadrature.points(ahead.clamp_max(1 - 1e-12))
        gamma = torch.where(ahead < 1, gamma, math.inf).to(points)[:, None]
        target = torch.where((here.snr > 0) & ~torch.isinf(here.snr), gamma, here.snr)
        xi = torch.randn(here.y.shape, generator=generator, device=u.device, dtype=points.dtype)
        # antithetic: what is of first order in the noise cancels
        jumps = [here.increment(book, points[:m], target, noise) for noise in (xi, -xi)]

        def cost(at_start: Posterior, at_here: Posterior) -> Tensor:
            there, back = (_step_cost(at_here, jump, asked) for jump in jumps)
            total = (there + back) / 2
            return REAL_STEPS * total.index_add(
                0, first, _step_cost(at_start, arrived, asked[first])
            )

        both = denoiser(torch.cat([state.y, start.y]), torch.cat([state.snr, start.snr]))
        paid = cost(both.rows(slice(n, None)), both.rows(slice(0, m)))
        base = getattr(denoiser, "base", None)
        if base is not None:
            # (4): the same path costs independent columns -log b(x), known in closed form
            with torch.no_grad():
                nothing = base(torch.zeros_like(state.y[:1]), torch.zeros_like(state.snr[:1]))
                own = nothing.expand(m).log_prob(asked)[:, book.reals].sum(1)
                by_base = cost(base(*start), base(*here))
            paid = paid - by_base - own
        return both.rows(slice(0, n)), paid


def _step_cost(posterior: Posterior, new: State, asked: Tensor) -> Tensor:
    """What a step of (6) costs in the continuous columns: log (q + evidence)(x) - log q(x), (B,), nats."""
    book, gaussian = posterior.codebook, posterior.gaussian
    if gaussian is None:
        return new.snr.new_zeros(len(asked))
    y, snr = new.y[:, book.real_coords], new.snr[:, book.reals]
    cells = asked[:, book.reals]
    values = cells.nan_to_num(0.0).to(y)
    told = torch.where(torch.isinf(snr), 0.0, gaussian.update(y, snr).log_prob(values))
    return (told - gaussian.log_prob(values)).masked_fill(cells.isnan(), 0.0).sum(1)


def pilot_quadrature(denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Quadrature:
    r"""An importance density over logsnr for a table, from the errors of a denoiser on some of its rows.

    The density is proportional to the root mean square of :math:`\gamma \|x - \hat x\|^2` on a grid (the choice of
    least variance), with a tenth spread evenly. The grid runs from where the channel says nothing to
    where nothing is left to say.
    """
    book = denoiser.codebook
    # simplex: at distance one, SNR 100 leaves an error of 3e-7; a line needs more by the square of its gap
    finite = torch.ones(book.n_columns, dtype=torch.bool, device=x.device)
    finite[book.reals] = False
    known_snr = torch.where(finite, book.known_snr * (100 / 2000), REAL_HIGH_SNR)
    # many pixels together are seen in less light than each
    low = 0.01 * min(1.0, FEW_COORDS / book.n_coords) if denoiser.isotropic else 0.01
    edges = torch.linspace(
        math.log(low), math.log(float(known_snr.max())), 65, dtype=torch.float64, device=x.device
    )
    n_rows = denoiser.pilot_rows(PILOT_CELLS)
    pick = torch.randint(len(x), (n_rows,), generator=generator, device=x.device)
    rows = x[pick]
    points, missing = book.embed(rows), rows.isnan()
    led = book.leading & ~missing  # known throughout, as on isotropic patterns
    start = State.start(book, points, led if book.has_leading else None)
    values = []
    with torch.no_grad():
        for logsnr in (edges[1:] + edges[:-1]) / 2:
            gamma = torch.exp(logsnr).to(points)
            xi = torch.randn(points.shape, generator=generator, device=x.device, dtype=points.dtype)
            target = gamma.expand(start.snr.shape).masked_fill(missing, 0.0)
            target = torch.where(torch.isinf(start.snr), start.snr, target)
            state = start.add(book, start.increment(book, points, target, xi))
            # the error of a continuous column falls with 1/snr for ever, by its own evidence alone
            damping = torch.where(finite, 1.0, (1 + gamma / REAL_SNR) ** -0.5).masked_fill(
                missing, 0.0
            )
            error = (points - denoiser(*state).mean()) * book.per_coord(damping)
            values.append(gamma.double() * error.square().sum(1).double().square().mean().sqrt())
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
        """Mean nats per row, and its standard error over rows; of a large vocabulary, over the first rows."""
        generator = torch.Generator(self._x.device).manual_seed(self._seed)
        huge = denoiser.codebook.work >= HUGE
        x = self._x[: max(16 if huge else 512, VALIDATION_CELLS // denoiser.row_work)]
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(self._repeats):
            order = torch.randperm(len(x), generator=generator, device=x.device)
            for part in order.split(16 if huge else 2048):
                loss = self._patterns.loss(denoiser, x[part], generator).double()
                total.index_add_(0, part, loss)
        return mean_and_error(total / self._repeats)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of a vector and its standard error, NaN for fewer than two numbers."""
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error
