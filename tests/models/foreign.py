"""A recipe, a denoiser and a schedule of one's own: what the library does not know, in 70 lines."""

from dataclasses import dataclass

import torch
from torch import nn

from discrete_itd.channel import CategoricalPosterior, Posterior
from discrete_itd.denoisers import Denoiser
from discrete_itd.recipes import Recipe


class LinearDenoiser(Denoiser):
    """The posterior of a base, whose logits are shifted by a linear function of the state."""

    def __init__(self, codebook, base):
        super().__init__(codebook)
        self.base = base.requires_grad_(False)
        n_features = codebook.n_coords + codebook.n_columns
        self.shift = nn.Linear(n_features, codebook.levels.n_points)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, y, snr):
        known, prior = snr.isinf(), self.base(y, snr)
        scale = torch.where(known, 1.0, 1 / (1 + snr))  # of y, whose size grows with the SNR
        reliability = torch.where(known, 1.0, snr / (1 + snr))
        shift = self.shift(torch.cat([y * self.codebook.per_coord(scale), reliability], 1))
        categorical = CategoricalPosterior(self.codebook.levels, prior.categorical.logits + shift)
        return Posterior(self.codebook, categorical, prior.gaussian)


@dataclass(frozen=True)
class Linear(Recipe):
    """A linear correction of the marginals or, with ``base``, of what another recipe makes."""

    base: Recipe | None = None
    trains = True

    def fit(self, rows, plan):
        base = rows.marginals if self.base is None else self.base.fit_base(rows, plan)
        denoiser = LinearDenoiser(rows.codebook, base).to(rows.device)
        plan.train(denoiser, rows)
        return denoiser


@dataclass(frozen=True)
class Given(Recipe):
    """The shortest recipe: a denoiser whose weights are given, here those of an untrained correction."""

    def fit(self, rows, plan):
        return LinearDenoiser(rows.codebook, rows.marginals)


@dataclass(frozen=True)
class DoublingSchedule:
    """In each step twice as many columns become known as in the step before."""

    n_columns: int
    noisy = False
    complete = True
    order = None

    @property
    def n_steps(self):
        return self.n_columns.bit_length()

    def snr(self, step, rank, n_free):
        nothing = torch.zeros(rank.shape, dtype=torch.get_default_dtype(), device=rank.device)
        return nothing.masked_fill((rank < 2**step - 1) & (step > 0), torch.inf)
