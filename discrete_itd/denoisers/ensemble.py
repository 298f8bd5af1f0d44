r"""Ensembles: convex combinations of denoisers whose weights depend on how much is known.

At every SNR the squared error is convex in :math:`\hat x`, and on known/unknown patterns the cross-entropy is convex in
the weights of a mixture. So weights fitted there are never worse than the best member on the rows and the noise that
fitted them, and the combination is itself a denoiser: laws (5) and (6) of :mod:`discrete_itd.likelihood` hold for it.

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792: the error of an ensemble
chosen at each SNR bounds the code length, eq. (3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from discrete_itd.channel import Quadrature
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.denoisers.evidence import Evidence, beliefs
from discrete_itd.posterior import CategoricalPosterior, GaussianPosterior, Posterior

MOST_KNOTS = 9  # SNRs, and shares of known columns, at which weights are fitted
KNOT_ROWS = 400  # for each of them; few rows cannot tell weights that depend on much
REPEATS = 4  # patterns by which the value of members is measured


class EnsembleDenoiser(Denoiser):
    """A convex combination of denoisers.

    Parameters
    ----------
    members : sequence of Denoiser, length M
        Of one codebook, without large vocabularies.
    logsnr : Tensor, shape (G,), optional
        Increasing values of logsnr at which weights are given.
    noisy : Tensor, shape (G, M), optional
        Weights there, non-negative, each row normalised here; between them they are interpolated, beyond them constant.
        Equal by default.
    known : Tensor, shape (H, M), optional
        Weights where cells are known or unknown, for the middles of H equal parts of the share of known cells.

    Notes
    -----
    Where some cells of a row are known and others noisy, the two kinds of weights are mixed by the share of the known.

    Raises
    ------
    ValueError
        If there is no member, they are of different tables, or the weights do not fit them.
    """

    logsnr: Tensor
    noisy: Tensor
    known: Tensor

    def __init__(
        self,
        members: Sequence[Denoiser],
        *,
        logsnr: Tensor | None = None,
        noisy: Tensor | None = None,
        known: Tensor | None = None,
    ) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        super().__init__(members[0].codebook)
        book = self.codebook
        for member in members:
            if member.codebook.columns != book.columns:
                raise ValueError("the members of an ensemble must be of one table")
        if book.vocabularies:
            raise ValueError(
                "an ensemble takes no large vocabulary: its distributions cannot be mixed"
            )
        self.members = cast(list[Denoiser], nn.ModuleList(members))
        like, m = book.known_snr, len(members)
        equal = like.new_full((1, m), 1 / m)
        if logsnr is None:
            logsnr = like.new_zeros(1)
        for name, weights, n in (("noisy", noisy, len(logsnr)), ("known", known, None)):
            weights = equal.expand(n or 1, -1) if weights is None else weights.to(like)
            if weights.shape != (n or len(weights), m) or not bool((weights >= 0).all()):
                raise ValueError(f"{name} must hold non-negative weights of {m} members")
            total = weights.sum(1, keepdim=True)
            if not bool((total > 0).all()):
                raise ValueError(f"{name} has a row of zeros")
            self.register_buffer(name, weights / total)
        if not bool((logsnr.diff() > 0).all()):
            raise ValueError("logsnr must increase")
        self.register_buffer("logsnr", logsnr.to(like))

    def weights(self, snr: Tensor) -> Tensor:
        """Weights of the members: ``snr`` (B, C) to (B, M)."""
        is_known = torch.isinf(snr)
        is_noisy = (snr > 0) & ~is_known
        share = is_known.to(snr).mean(1)
        known = _interpolate(_place(share, len(self.known)), self.known)
        if not bool(is_noisy.any()):
            return known
        n_noisy = is_noisy.sum(1)
        log = torch.where(is_noisy, snr, 1.0).log().sum(1) / n_noisy.clamp_min(1)
        place = (
            torch.searchsorted(self.logsnr, log, right=True).clamp(1, max(1, len(self.logsnr) - 1))
            - 1
        )
        if len(self.logsnr) > 1:
            left, right = self.logsnr[place], self.logsnr[place + 1]
            position = place + ((log - left) / (right - left)).clamp(0, 1)
        else:
            position = torch.zeros_like(log)
        noisy = _interpolate(position, self.noisy)
        share = torch.where(n_noisy > 0, share, 1.0)[:, None]
        return share * known + (1 - share) * noisy

    @property
    def heard(self) -> list[bool]:
        """Which members have a weight anywhere; the others are never called."""
        return ((self.known > 0).any(0) | (self.noisy > 0).any(0)).tolist()

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        weights = self.weights(snr)
        # the others would say nothing; of no rows all may speak
        heard = ((weights > 0).any(0) | (not len(weights))).nonzero().flatten().tolist()
        return mixed(beliefs([self.members[i] for i in heard], y, snr), weights[:, heard])

    def blurred(self, sd: float) -> EnsembleDenoiser:
        members = [member.blurred(sd) for member in self.members]
        return EnsembleDenoiser(members, logsnr=self.logsnr, noisy=self.noisy, known=self.known)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        members: Sequence[Denoiser],
        x: Tensor,
        quadrature: Quadrature,
        *,
        generator: torch.Generator,
        n_knots: int | None = None,
    ) -> EnsembleDenoiser:
        """Weights fitted to rows that no member was fitted to.

        Parameters
        ----------
        members : sequence of Denoiser
        x : Tensor of float64, shape (N, C)
            Rows; NaN where a cell is missing.
        quadrature : Quadrature
            Its range is that of the SNRs.
        generator : torch.Generator
            On the device of the rows.
        n_knots : int, optional
            At how many SNRs and shares of known columns; by default one for ``KNOT_ROWS`` rows, up to ``MOST_KNOTS``.

        Notes
        -----
        Around an SNR the squared error of the mean is least, times the SNR, which is its share of the code length (3);
        in a table with continuous columns, of which that says little, the cross-entropy. Around a share of known
        columns it is the cross-entropy of the unknown.
        """
        book = members[0].codebook
        if n_knots is None:
            n_knots = max(1, min(MOST_KNOTS, len(x) // KNOT_ROWS))
        edges = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), n_knots + 1)
        noisy = []
        for low, high in itertools.pairwise(edges.tolist()):
            told = Evidence.noisy(members, x, (low, high), generator)
            noisy.append(told.least_error() if not len(book.reals) else told.most_probable())
        overall = Evidence.random(members, x, generator).most_probable()
        known = [
            told.most_probable(start=overall) for told in _shares(members, x, generator, n_knots)
        ]
        middles = (edges[1:] + edges[:-1]) / 2
        return cls(members, logsnr=middles, noisy=torch.stack(noisy), known=torch.stack(known))

    @torch.no_grad()
    def marginal_value(self, x: Tensor, *, generator: torch.Generator) -> list[Value]:
        """What each member is worth: by how much the code of rows is longer without it.

        Parameters
        ----------
        x : Tensor of float64, shape (N, C)
            Rows that no member was fitted to.
        generator : torch.Generator
            On the device of the rows.

        Notes
        -----
        Nats are those of an autoregression averaged over orders, on random known/unknown patterns; without a member,
        the weights of the others are fitted anew on the same rows.
        """
        members = list(self.members)
        at_shares = list(_shares(members, x, generator, len(self.known)))
        told = [Evidence.random(members, x, generator) for _ in range(REPEATS)]

        def nats(known: Tensor) -> Tensor:
            weights = [_interpolate(_place(e.share, len(known)), known) for e in told]
            each = [e.row_nats(w) for e, w in zip(told, weights, strict=True)]
            return torch.stack(each).mean(0)

        ours = nats(self.known.double())
        values = []
        for i in range(len(members)):
            others = [j for j in range(len(members)) if j != i]
            alone = torch.zeros_like(self.known).double()
            alone[:, i] = 1.0
            gain = torch.full_like(ours, math.nan)
            if others:
                overall = told[0].most_probable(others)
                known = [e.most_probable(others, start=overall) for e in at_shares]
                gain = nats(torch.stack(known)) - ours
            error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else math.nan
            weight = float(self.known[:, i].mean())
            values.append(Value(float(nats(alone).mean()), float(gain.mean()), error, weight))
        return values


def _shares(
    members: Sequence[Denoiser], x: Tensor, generator: torch.Generator, n: int
) -> Iterator[Evidence]:
    """Evidence around each of n shares of known cells."""
    for low, high in itertools.pairwise(torch.linspace(0, 1, n + 1).tolist()):
        yield Evidence.masked(members, x, (low, high), generator)


def _place(share: Tensor, n: int) -> Tensor:
    """Where a share from 0 to 1 lies among the middles of n equal parts: from 0 to n - 1."""
    return (share * n - 0.5).clamp(0, n - 1)


class Value(NamedTuple):
    """What one member of an ensemble is worth, in nats per row.

    Attributes
    ----------
    alone : float
        Code length by this member alone.
    gain, stderr : float
        By how much the code is longer without it, and the standard error; NaN for an only member.
    weight : float
        Mean weight over the shares of known cells.
    """

    alone: float
    gain: float
    stderr: float
    weight: float


def mixed(posteriors: Sequence[Posterior], weights: Tensor) -> Posterior:
    """The mixture of posteriors, column by column, with weights (B, M)."""
    first = posteriors[0]
    log_w = weights.log()  # -inf where a member has no say, whatever it says
    if len(posteriors) == 1:
        return first
    logits = (
        torch.stack([q.categorical.logits for q in posteriors], 1) + log_w[:, :, None]
    )  # (B, M, T)
    categorical = CategoricalPosterior(first.categorical.slots, torch.logsumexp(logits, 1))
    gaussian = None
    if first.gaussian is not None:
        parts = [q.gaussian for q in posteriors if q.gaussian is not None]
        log_weight = [g.log_weight + log_w[:, i, None, None] for i, g in enumerate(parts)]
        gaussian = GaussianPosterior(
            torch.cat(log_weight, 2),
            torch.cat([g.means for g in parts], 2),
            torch.cat([g.var for g in parts], 2),
        )
    return Posterior(first.codebook, categorical, gaussian)


def _interpolate(position: Tensor, values: Tensor) -> Tensor:
    """Rows of ``values`` (n, M) at fractional positions (B,) between 0 and n - 1: (B, M)."""
    low = position.long().clamp(0, max(0, len(values) - 2))
    inside = (position - low).clamp(0, 1)[:, None].to(values)
    return values[low] * (1 - inside) + values[(low + 1).clamp_max(len(values) - 1)] * inside
