r"""Ensembles: convex combinations of denoisers whose weights depend on how much is known.

At every SNR the squared error is convex in :math:`\hat x`, and on known/unknown patterns the cross-entropy is convex in
the weights of a mixture. So weights fitted there are never worse than the best member on the rows and the noise that
fitted them, and the combination is itself a denoiser: (5) and (6) of :mod:`discrete_itd.likelihood` hold for it.

References
----------
Kong, Brekelmans, Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023, arXiv:2302.03792: the error of an ensemble
chosen at each SNR bounds the code length, eq. (3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from discrete_itd.channel import Quadrature, devices
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import CategoricalPosterior, GaussianPosterior, Posterior
from discrete_itd.denoisers.base import Config, Denoiser, Tensors, with_codebook
from discrete_itd.denoisers.ensemble_weights import Evidence, member_posteriors, share_bases

MOST_MEMBERS = 64
MOST_KNOTS = 9  # SNRs, and shares of known columns, at which weights are fitted
KNOT_ROWS = 400  # for each of them; few rows cannot tell weights that depend on much
ISOTROPIC_ROWS = 32  # the same where every cell of a row tells them
REPEATS = 4  # patterns by which the value of members is measured
VALUE_CELLS = 32  # parts of the integral by which it is, for denoisers of noise alone


class EnsembleDenoiser(Denoiser):
    """A convex combination of denoisers.

    Parameters
    ----------
    members : sequence of Denoiser, length M
        Of one codebook, without high-cardinality columns.
    logsnr : Tensor, shape (G,), optional
        Increasing values of logsnr at which weights are given.
    noisy : Tensor, shape (G, M), optional
        Weights there, non-negative, each row normalised here; between them they are interpolated, beyond them constant.
        Equal by default.
    known : Tensor, shape (H, M), optional
        Weights where cells are known or unknown, for the middles of H equal parts of the share of known cells.

    Attributes
    ----------
    heard : list of bool
        Which members have a weight anywhere; the others are never evaluated.

    Notes
    -----
    Where some cells of a row are known and others noisy, the two kinds of weights are mixed by the share of the known.

    Raises
    ------
    ValueError
        If there is no member, they are of different tables, or the weights do not fit them.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> import torch
    >>> from discrete_itd.denoisers import MarginalDenoiser
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> both = EnsembleDenoiser([MarginalDenoiser.fit(book, x), MarginalDenoiser.fit(book, x[:1])])
    >>> both(torch.zeros(1, 4), torch.zeros(1, 2)).column(0).exp()
    tensor([[0.5625, 0.4375]])
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
        _check_table(members)
        if book.vocabularies:
            raise ValueError(
                "an ensemble takes no high-cardinality column: its distributions cannot be mixed"
            )
        self.members = cast(list[Denoiser], nn.ModuleList(members))
        like, m = book.known_snr, len(members)
        equal = like.new_full((1, m), 1 / m)
        logsnr = like.new_zeros(1) if logsnr is None else logsnr
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
        self.heard: list[bool] = ((self.known > 0).any(0) | (self.noisy > 0).any(0)).tolist()

    def weights(self, snr: Tensor) -> Tensor:
        """Weights of the members: ``snr`` (B, C) to (B, M)."""
        is_known = torch.isinf(snr)
        is_noisy = (snr > 0) & ~is_known
        share = is_known.to(snr).mean(1)
        known = _interpolate(_place(share, len(self.known)), self.known)
        if not devices.any_true(is_noisy):
            return known
        n_noisy = is_noisy.sum(1)
        log = torch.where(is_noisy, snr, 1.0).log().sum(1) / n_noisy.clamp_min(1)
        position, last = torch.zeros_like(log), len(self.logsnr) - 1
        if last:
            place = torch.searchsorted(self.logsnr, log, right=True).clamp(1, last) - 1
            left, right = self.logsnr[place], self.logsnr[place + 1]
            position = place + ((log - left) / (right - left)).clamp(0, 1)
        noisy = _interpolate(position, self.noisy)
        share = torch.where(n_noisy > 0, share, 1.0)[:, None]
        return share * known + (1 - share) * noisy

    @property
    def isotropic(self) -> bool:
        """Whether a member takes only states in which all columns have the same SNR."""
        return any(member.isotropic for member in self.members)

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        weights = self.weights(snr)
        heard = ever = [i for i, has_weight in enumerate(self.heard) if has_weight]
        if len(weights) and not devices.static_shapes(y.device):
            # members without weight for these rows are not evaluated; of an empty batch, all are
            heard = (weights > 0).any(0).nonzero().flatten().tolist()
        told = dict(
            zip(heard, member_posteriors([self.members[i] for i in heard], y, snr), strict=True)
        )
        # members with weights elsewhere get a placeholder of weight zero: no sum depends on the batch of a row
        each = [told.get(i, told[heard[0]]) for i in ever]
        return mixed(each, weights[:, devices.index_tensor(tuple(ever), str(y.device))])

    def config(self) -> dict[str, Any]:
        return {"members": list(self.members)}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        if not 1 <= len(config["members"]) <= MOST_MEMBERS:
            raise ValueError(f"{len(config['members'])} members, not 1 to {MOST_MEMBERS}")
        members = with_codebook(config["members"], codebook)
        share_bases(members)
        return cls(members, **{name: tensors[name] for name in ("logsnr", "noisy", "known")})

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
            At how many SNRs and shares of known columns; by default one for ``KNOT_ROWS`` rows (of pictures
            ``ISOTROPIC_ROWS``), up to ``MOST_KNOTS``.

        Notes
        -----
        Around an SNR the squared error of the mean is least, times the SNR, which is its share of the code length (3);
        in a table with continuous columns, of which that says little, the cross-entropy. Around a share of known
        columns it is the cross-entropy of the unknown.
        """
        _check_table(members)
        book = members[0].codebook
        isotropic = any(member.isotropic for member in members)
        if n_knots is None:
            n_rows = ISOTROPIC_ROWS if isotropic else KNOT_ROWS
            n_knots = max(1, min(MOST_KNOTS, len(x) // n_rows))
        edges = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), n_knots + 1)
        noisy = []
        for low, high in itertools.pairwise(edges.tolist()):
            told = Evidence.noisy(members, x, (low, high), generator)
            noisy.append(told.least_error() if not len(book.reals) else told.most_probable())
        middles = (edges[1:] + edges[:-1]) / 2
        if isotropic:  # nobody can ask for cells given others
            # of the end of a noisy path, where errors are all but nothing, the posterior itself is asked
            noisy[-1] = told.most_probable()
            known = [torch.stack(noisy).mean(0)]
        else:
            overall = Evidence.random(members, x, generator).most_probable()
            shares = _shares(members, x, generator, n_knots)
            known = [e.most_probable(start=overall) for e in shares]
        return cls(members, logsnr=middles, noisy=torch.stack(noisy), known=torch.stack(known))

    @torch.no_grad()
    def marginal_value(
        self, x: Tensor, *, generator: torch.Generator, quadrature: Quadrature | None = None
    ) -> list[Value]:
        """Marginal contribution of each member: the increase of the code length of rows without it.

        Parameters
        ----------
        x : Tensor of float64, shape (N, C)
            Rows that no member was fitted to.
        generator : torch.Generator
            On the device of the rows.
        quadrature : Quadrature, optional
            Its range is that of the SNRs: nats are then those of the integral (3). By default they are those of an
            autoregression averaged over orders, on random known/unknown patterns, which not every denoiser takes.

        Notes
        -----
        Without a member, the weights of the others are fitted anew on the same rows.

        Raises
        ------
        ValueError
            If a member takes only isotropic states, and there is no quadrature.
        """
        if quadrature is not None:
            return self._value_at_snrs(x, quadrature, generator)
        if self.isotropic:
            raise ValueError("a member takes only isotropic states: give a quadrature")
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

    def _value_at_snrs(
        self, x: Tensor, quadrature: Quadrature, generator: torch.Generator
    ) -> list[Value]:
        """The value of each member by the integral (3), cut into ``VALUE_CELLS`` parts."""
        members, m = list(self.members), len(self.members)
        edges = torch.linspace(math.log(quadrature.low), math.log(quadrature.high), VALUE_CELLS + 1)
        eye = torch.eye(m, dtype=torch.float64, device=x.device)
        alone, without, ours, weights = 0.0, 0.0, 0.0, []
        for low, high in itertools.pairwise(edges.tolist()):
            told = Evidence.noisy(members, x, (low, high), generator)
            middle = self.noisy.new_full((1, self.codebook.n_columns), math.exp((low + high) / 2))
            weights.append(self.weights(middle)[0].double())
            left = [[j for j in range(m) if j != i] for i in range(m)]
            half = (high - low) / 2
            ours = ours + half * told.row_errors(weights[-1])
            alone = alone + half * torch.stack([told.row_errors(w) for w in eye])
            if m > 1:
                others = [told.row_errors(told.least_error(j)) for j in left]
                without = without + half * torch.stack(others)
        alone = torch.as_tensor(alone)
        gain = torch.as_tensor(without) - ours if m > 1 else torch.full_like(alone, math.nan)
        error = gain.std(1) / math.sqrt(gain.shape[1])
        mean = torch.stack(weights).mean(0)
        columns = alone.mean(1), gain.mean(1), error, mean
        return [Value(*map(float, line)) for line in zip(*columns, strict=True)]


def _check_table(members: Sequence[Denoiser]) -> None:
    """ValueError if members are of different tables."""
    if any(member.codebook.columns != members[0].codebook.columns for member in members):
        raise ValueError("the members of an ensemble must be of one table")


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
    """Marginal contribution of one member of an ensemble, in nats per row.

    Attributes
    ----------
    alone : float
        Code length with this member alone.
    gain, stderr : float
        Increase of the code length without it, and its standard error; NaN for a single member.
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
    logits = torch.stack([q.categorical.logits for q in posteriors], 1)  # (B, M, T)
    logits = torch.logsumexp(logits + log_w[:, :, None], 1)
    categorical = CategoricalPosterior(first.categorical.levels, logits)
    gaussian = None
    if first.gaussian is not None:
        parts = [q.gaussian for q in posteriors if q.gaussian is not None]
        gaussian = GaussianPosterior.joined(parts, log_w)
    return Posterior(first.codebook, categorical, gaussian)


def _interpolate(position: Tensor, values: Tensor) -> Tensor:
    """Rows of ``values`` (n, M) at fractional positions (B,) between 0 and n - 1: (B, M)."""
    low = position.long().clamp(0, max(0, len(values) - 2))
    inside = (position - low).clamp(0, 1)[:, None].to(values)
    return values[low] * (1 - inside) + values[(low + 1).clamp_max(len(values) - 1)] * inside
