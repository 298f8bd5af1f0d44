r"""Mixtures of rows: each row is drawn from one of several models of whole rows, chosen at random.

.. math:: P(x) = \sum_m w_m P_m(x) \qquad (10)

sums to one if each member does. The weights that maximise the likelihood of held-out rows are found by expectation
maximisation, a convex problem; on these rows the mixture is never worse than its best member.

If every member is exact, so is the mixture. Its posterior at any state of known, unknown and noisy cells is the mean of
the members' posteriors, weighted by :math:`w_m` times the probability that the member gives to the state's evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from discrete_itd import devices
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.gaussian import chosen
from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import Posterior
from discrete_itd.denoisers.base import (
    ESTIMATORS,
    Completing,
    Config,
    Denoiser,
    Tensors,
    checked,
    filled,
    with_codebook,
)
from discrete_itd.denoisers.marginal import MarginalDenoiser


class RowMixtureDenoiser(Denoiser):
    """A mixture of models of whole rows.

    Parameters
    ----------
    codebook : Codebook
    members : sequence of Denoiser
        Each with a closed form.
    weights : Tensor or sequence of float, length M
        Positive, normalised here.
    main : int
        If not all members are exact, the member whose posteriors stand for the mixture's: one that conditions on
        every column.

    Attributes
    ----------
    exact : bool
        Whether all members are. If not, only whole rows, their factors and draws follow (10).

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> import torch
    >>> from discrete_itd.denoisers import MarginalDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> both = RowMixtureDenoiser(book, [MarginalDenoiser.fit(book, x), MarginalDenoiser.fit(book, x[:1])], [3, 1])
    >>> both.log_prob(x).exp()
    tensor([0.3164, 0.1914, 0.3398], dtype=torch.float64)
    """

    log_weights: Tensor

    def __init__(
        self,
        codebook: Codebook,
        members: Sequence[Denoiser],
        weights: Sequence[float] | Tensor,
        main: int = 0,
    ) -> None:
        super().__init__(codebook)
        if not all(member.closed_form for member in members):
            raise ValueError("the members of a mixture of rows must have a closed form")
        w = torch.as_tensor(weights, dtype=torch.float64, device=codebook.device)
        checked("weights", w, (len(members),), positive=True)
        if not 0 <= main < len(members):
            raise ValueError(f"main must be the number of a member, got {main}")
        self.members, self.main, self.weights = nn.ModuleList(members), main, w.tolist()
        self.register_buffer("log_weights", torch.log_softmax(w.log(), 0), persistent=False)
        alone = [member.independent_part for member in members]
        mixtures = [a.mixture for a in alone if a is not None]
        same_mixture = len(mixtures) == len(alone) and all(
            torch.equal(mixtures[0], m) for m in mixtures
        )
        self.exact = all(member.exact for member in members)
        self.own_reals = len(codebook.reals) > 0 and (
            any(member.own_reals for member in members) or not same_mixture
        )

    @property
    def _members(self) -> list[Denoiser]:
        return [m for m in self.members if isinstance(m, Denoiser)]

    @property
    def ancestral(self) -> bool:
        return all(member.ancestral for member in self._members)

    @property
    def independent_part(self) -> MarginalDenoiser | None:
        return self._members[0].independent_part if self.exact else None

    @property
    def row_work(self) -> int:
        called = self._members if self.exact else [self._members[self.main]]
        return sum(member.row_work for member in called)

    @property
    def score_work(self) -> int:
        return sum(member.score_work for member in self._members)

    @property
    def closed_form(self) -> bool:
        return True

    @property
    def estimators(self) -> tuple[str, ...]:
        each = [member.estimators for member in self._members]
        return tuple(name for name in ESTIMATORS if all(name in names for names in each))

    def config(self) -> dict[str, Any]:
        return {"members": self._members, "weights": self.weights, "main": self.main}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:  # noqa: ARG003
        members = with_codebook(config["members"], codebook)
        return cls(codebook, members, config["weights"], config["main"])

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        return self.infer(y, snr)[1] if self.exact else self._members[self.main](y, snr)

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        if not self.exact:
            return super().infer(y, snr)
        log_masses, parts = zip(*(m.infer(y, snr) for m in self._members), strict=True)
        joint = self.log_weights + torch.stack([t.double() for t in log_masses], 1)
        # where no member gives the state any probability, as outside a listed support, weights stay as they are
        none = joint.isneginf().all(1, keepdim=True)
        weights = torch.where(none, self.log_weights, joint)
        mixed = self._mixed(parts, torch.log_softmax(weights, 1).to(y)[:, :, None])
        return torch.logsumexp(joint, 1), mixed

    def _mixed(self, parts: Sequence[Posterior], log_weights: Tensor) -> Posterior:
        """The mixture of members' posteriors by log-weights (B, M, C), or (B, M, 1) for all columns."""
        mixed = Posterior.mixed(parts, log_weights)
        if not self.own_reals:  # all members have the same numbers
            mixed.gaussian = parts[0].gaussian
        return mixed

    @torch.no_grad()
    def leave_one_out(self, x: Tensor, asked: Tensor) -> Posterior:
        """The members' distributions, weighted by their probabilities of the other cells."""
        if not self.exact:
            return super().leave_one_out(x, asked)
        parts = [member.leave_one_out(x, asked) for member in self._members]
        # (B, M, C)
        log_p = torch.stack([q.log_prob_left_out(x, asked).double() for q in parts], 1)
        weights = self.log_joint(filled(x))[: len(x), :, None] - log_p
        possible = (weights > -torch.inf).any(1, keepdim=True) & ~weights.isnan().any(
            1, keepdim=True
        )
        weights = torch.where(possible, weights, self.log_weights[:, None]).log_softmax(1)
        mixed = self._mixed(parts, weights.to(self.codebook.known_snr))
        mixed.log_p = torch.logsumexp(weights + log_p, 1)
        return mixed

    def natural_order(self, generator: torch.Generator) -> list[int]:
        return self._members[int(self.log_weights.argmax())].natural_order(generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """(10), float64."""
        return torch.logsumexp(self.log_joint(x), 1)

    def log_joint(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) together with each member: float64, (B, M), nats."""
        each = [member.log_prob(x).double() for member in self._members]
        return torch.stack(each, 1) + self.log_weights

    def log_factors(self, x: Tensor, known: Mapping[Denoiser, Tensor] | None = None) -> Tensor:
        r"""Shares (B, C) of the columns in :meth:`log_prob`, nats.

        The factors of the members, averaged by the probabilities r of the members given the row. The remainder of the
        log-probability, the divergence :math:`\sum_m r_m \log (r_m / w_m)`, is divided equally among the cells that are
        not missing. Factors of members that are ``known`` already, float64, are not computed again.
        """
        known = known or {}
        each = torch.stack(
            [known[m] if m in known else m.log_factors(x).double() for m in self._members], 1
        )
        joint = each.sum(2) + self.log_weights
        r = torch.softmax(joint, 1)[:, :, None]
        mean = torch.where(r > 0, r * each, 0.0).sum(1)  # a member may exclude the row
        present = (~x.isnan()).to(mean)
        rest = torch.logsumexp(joint, 1) - mean.sum(1)
        return mean + (rest / present.sum(1).clamp_min(1.0))[:, None] * present

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        probs = self.log_weights.exp()
        which = torch.multinomial(probs, max(n, 1), replacement=True, generator=generator)[:n]
        out = torch.zeros(n, self.codebook.n_columns, dtype=torch.float64, device=probs.device)
        for i, member in enumerate(self._members):
            out = devices.replace_rows(
                out,
                which == i,
                lambda rows, m=member: m.draw(len(rows), generator),
            )
        return out

    def completing(self, x: Tensor, known: dict[Denoiser, Completing], salt: int) -> Completing:
        if self not in known:
            members = [member.completing(x, known, salt) for member in self._members]
            known[self] = _CompletingMixture(self, x, members)
        return known[self]

    @torch.no_grad()
    def complete(self, x: Tensor, n_draws: int, salt: int) -> Tensor:
        """Choose a member by its probability given the known cells, then take its draw."""
        rows, path = x.repeat_interleave(n_draws, 0), torch.arange(n_draws, device=x.device)
        u = RowNoise(rows, path.repeat(len(x)), salt).uniform(x.shape[1] + 1, 1)
        joint = self.log_joint(filled(x))[: len(x)]
        which = chosen(joint, u.view(len(x), n_draws))
        out = rows.unflatten(0, (len(x), n_draws))
        for i, member in enumerate(self._members):
            hit = which == i
            # a row's k-th choice of a member takes its draw k; the number of draws is rounded up to a power of two
            need = hit.sum(1)
            needs = 2 ** need.clamp_min(1).double().log2().ceil().long()
            for n in needs[need > 0].unique().tolist():
                some = torch.nonzero((need > 0) & (needs == n)).flatten()
                drawn = member.complete(x[some], n, salt + 1)  # not by the numbers that chose it
                k = (hit[some].cumsum(1) - 1).clamp(0, n - 1)[:, :, None].expand(-1, -1, x.shape[1])
                out[some] = torch.where(hit[some][:, :, None], drawn.gather(1, k), out[some])
        return out


class _CompletingMixture(Completing):
    """By the distributions of the members, weighted by their probabilities of the known cells."""

    def __init__(self, mixture: RowMixtureDenoiser, x: Tensor, members: list[Completing]) -> None:
        super().__init__(mixture, x)
        self._members, self._log_weights = members, mixture.log_weights

    @cached_property
    def _joint(self) -> Tensor:
        return torch.stack([m.log_prob for m in self._members], 1) + self._log_weights

    @cached_property
    def log_prob(self) -> Tensor:
        return torch.logsumexp(self._joint, 1)

    def draw(self, n_draws: int, salt: int) -> Tensor:
        """Choose a member by its probability given the known cells, then take its draw."""
        rows, path = self.x.repeat_interleave(n_draws, 0), torch.arange(n_draws)
        noise = RowNoise(rows, path.to(rows.device).repeat(len(self.x)), salt)
        u = noise.uniform(self.x.shape[1] + 1, 1).view(len(self.x), n_draws)
        which = chosen(self._joint, u)[:, :, None]
        # not by the numbers that choose a member
        out, *others = (member.draw(n_draws, salt + 1) for member in self._members)
        for i, drawn in enumerate(others, 1):
            out = torch.where(which == i, drawn, out)
        return out

    def _log_joint(self, completions: Tensor) -> Tensor:
        joint = torch.stack([m.log_joint(completions) for m in self._members], 2)
        return torch.logsumexp(joint + self._log_weights, 2)


def factors_of_each(denoisers: Sequence[Denoiser], x: Tensor) -> Tensor:
    """:meth:`Denoiser.log_factors` of several denoisers, members of mixtures of rows once: float64, (B, M, C)."""
    known: dict[Denoiser, Tensor] = {}
    for one in sorted(denoisers, key=lambda d: isinstance(d, RowMixtureDenoiser)):
        how = {"known": known} if isinstance(one, RowMixtureDenoiser) else {}
        known[one] = one.log_factors(x, **how).double()
    return torch.stack([known[one] for one in denoisers], 1)


@torch.no_grad()
def fit_weights(log_probs: Tensor, *, least: float = 0.0) -> Tensor:
    """The weights (M,) of (10) that maximise the likelihood of rows, float64.

    ``log_probs`` (N, M) are the members' log-probabilities, nats. Weights below ``least`` are set to 0,
    except the largest, and the others are fitted again.
    """
    log_probs = log_probs.double()
    top = log_probs.amax(1, keepdim=True)
    likelihood = (log_probs - top).exp()
    w = torch.full_like(likelihood[0], 1 / likelihood.shape[1])
    before = -torch.inf
    for _ in range(500):  # EM rounds
        total = likelihood @ w
        nats = float(total.log().mean())
        if nats - before < 1e-7:  # nats a row
            break
        before = nats
        w = w * (likelihood / total[:, None]).mean(0)
    kept = w >= min(least, float(w.max()))
    if not bool(kept.all()):
        w = torch.zeros_like(w).masked_scatter(kept, fit_weights(log_probs[:, kept]))
    return w
