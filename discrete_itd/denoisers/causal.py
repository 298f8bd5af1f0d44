r"""The causal denoiser: a row is scored by one call, its columns one after the other in a fixed order.

The posterior of a column depends on the columns before it in the order and, by Bayes' rule, on the column's own
evidence. On the coordinate path along the order the terms of (6) are then all read from one call on the known row,

.. math:: \log P(x) = \sum_i \log q_{\sigma_i}(x_{\sigma_i} \mid x_{\sigma_1} \dots x_{\sigma_{i-1}}), \qquad (8)

exactly normalised. Its logits are those of an exact base, which hears the same columns, plus a masked network's answer,
which is zero at the start. At a state off the path it still answers, and ignores what comes later in the order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers.ancestral import drawable
from discrete_itd.denoisers.base import (
    Config,
    Denoiser,
    Derived,
    Tensors,
    row_product,
    with_codebook,
)
from discrete_itd.denoisers.features import ColumnFeatures
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.denoisers.masked import MaskedMLP

# components of a continuous column that may start as a regression (denoisers/regression.py), beside those of the base
N_REGRESSED = 2


class CausalDenoiser(Denoiser):
    r"""The conditional distributions of an exact base along an order of the columns, corrected by a masked network.

    Parameters
    ----------
    base : Denoiser
        Exact, kept fixed; one that defines ``preceding``. Its continuous and high-cardinality columns, if there are
        any, must be those of its ``independent_part``.
    order : sequence of int, length C
        All columns, the first one first; the leading columns before all others.
    width, depth, dropout
        Of the :class:`~discrete_itd.denoisers.masked.MaskedMLP`.

    Raises
    ------
    ValueError
        If ``order`` does not name every column once, or a leading column comes after another one.

    Examples
    --------
    >>> from discrete_itd.channel import Codebook, ColumnPoints
    >>> book = Codebook([ColumnPoints("simplex", 2)] * 2)
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), order=[1, 0], width=8)
    >>> denoiser.log_factors(x).shape
    torch.Size([3, 2])
    """

    words: nn.ParameterList

    ancestral = True

    def __init__(
        self,
        base: Denoiser,
        order: Sequence[int],
        *,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(base.codebook)
        book, device = self.codebook, self.codebook.device
        order = [int(j) for j in order]
        if sorted(order) != list(range(book.n_columns)):
            raise ValueError(f"order must name each of {book.n_columns} columns once, got {order}")
        leads = book.leading[order]
        if bool((leads[1:] & ~leads[:-1]).any()):
            raise ValueError(f"the leading columns must be the first of the order, got {order}")
        self.width, self.depth, self.dropout = width, depth, dropout
        self.base = base.requires_grad_(False)
        self.order = torch.tensor(order)  # on the host wherever the weights are
        self.features = ColumnFeatures(base, N_REGRESSED)
        self.words = self.features.new_words()
        rank = self.order.argsort().to(device)
        self._n_answers = len(self.features.answer_column)
        self._columns: list[OneColumn] = []  # made at the first draw
        self._maps = Derived(self._mapped)
        answer_rank = rank[self.features.answer_column]
        if not self._n_answers:  # a table of constants leaves nothing to predict
            answer_rank = rank.new_tensor([book.n_columns])
        self.network = MaskedMLP(
            rank[self.features.feature_column],
            answer_rank,
            book.n_columns,
            width=width,
            depth=depth,
            dropout=dropout,
        )

    @property
    def closed_form(self) -> bool:
        """True: (8)."""
        return True

    @property
    def own_order(self) -> tuple[int, ...]:
        return tuple(self.order.tolist())

    def config(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in ("width", "depth", "dropout")}
        return {"base": self.base, "order": self.order.tolist(), **sizes}

    @classmethod
    def from_config(cls, config: Config, codebook: Codebook, tensors: Tensors) -> Self:
        first = tensors["network.enter.weight"]  # checked before memory is allocated
        if first.shape[0] != config["width"]:
            raise ValueError(
                f"width is {config['width']!r}, but the weights have {tuple(first.shape)}"
            )
        blocks = {name.split(".")[2] for name in tensors if name.startswith("network.blocks.")}
        if len(blocks) != config["depth"]:
            raise ValueError(
                f"depth is {config['depth']!r}, but there are weights of {len(blocks)} blocks"
            )
        base = with_codebook(config["base"], codebook)
        return cls(**{**config, "base": base}).to(first.dtype)

    # -- the posterior --------------------------------------------------------------------------

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        alone = self._alone(y, snr)
        known = torch.isinf(snr)
        book = self.codebook
        cells = torch.full(snr.shape, math.nan, dtype=torch.float64, device=snr.device)
        cells[:, book.finite] = book.levels.argmax(alone.categorical.logits).double()
        cells[:, book.reals] = y[:, book.real_coords].double()
        features = self.features.describe(alone, snr)
        answers = self.network(features)
        return self._prior(answers, cells.masked_fill(~known, math.nan)).update(y, snr)

    def chain(self, x: Tensor) -> Posterior:
        if self.training or torch.is_grad_enabled():
            return self._prior(self.network(self.features.describe_cells(x)), x)
        net, n_units = self.network, self.width
        maps = [m for m in (net.enter, net.skip) if m is not None]
        table, others, bias = self._maps.of(*(p for m in maps for p in (m.weight, m.bias)))
        sums = bias.expand(len(x), -1)
        if len(self.codebook.finite):
            level = self.codebook.level_of(x)
            sums = sums + nn.functional.embedding_bag(level, table, mode="sum")
        if len(others):
            sums = sums + row_product(self.features.describe_others(x), others)
        skipped = None if net.skip is None else sums[:, n_units:]
        return self._prior(net.after(sums[:, :n_units], skipped), x)

    def _mapped(self, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the network's maps of the features, one beside the other, add up of known cells.

        By level and, last, for a missing cell, (T + 1, M); by feature of other columns, (F', M); for every row, (M,).
        """
        book, levels = self.codebook, self.codebook.levels
        weight, bias = torch.cat(parameters[::2]).T, torch.cat(parameters[1::2])
        x = torch.full((levels.n_points + 1, book.n_columns), math.nan, dtype=torch.float64)
        x = x.to(weight.device)
        at = book.finite[levels.level_column][:, None]
        x[:-1].scatter_(1, at, levels.level_code[:, None].double())
        return self.features.describe_cells(x) @ weight, weight[self.features.others], bias

    def constants(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.words:  # their posteriors are no single tensor
            return ()
        prior = self.base.preceding(x, self.order)
        return self.features.describe_cells(x), prior.categorical.logits

    def log_prob_from(self, x: Tensor, *constants: Tensor) -> Tensor:
        if not constants:
            return self.log_prob(x)
        features, logits = constants
        prior = CategoricalPosterior(self.codebook.levels, logits, normalised=True)
        answers = self.network(features)
        return self._answered(answers, Posterior(self.codebook, prior)).log_prob(x).sum(1)

    def log_factors(self, x: Tensor) -> Tensor:
        return self.chain(x).log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) by one call (8), missing cells left out: (B,), nats."""
        return self.log_factors(x).sum(1)

    def _alone(self, y: Tensor, snr: Tensor) -> Posterior:
        """The posterior of every column from its own evidence, if columns were independent."""
        book, levels, part = self.codebook, self.codebook.levels, self.base.independent_part
        evidence = levels.evidence(y[:, : levels.n_coords], snr[:, book.finite])
        categorical = CategoricalPosterior(levels, self.features.nothing + evidence)
        if part is None:
            return Posterior(book, categorical)
        others = part(y, snr)
        return Posterior(book, categorical, others.gaussian, others.words)

    def _prior(self, answers: Tensor, cells: Tensor) -> Posterior:
        """The distribution of every column given those before it, known ``cells`` (B, C) and the network's answers."""
        return self._answered(answers, self.base.preceding(cells, self.order))

    def _answered(self, answers: Tensor, prior: Posterior) -> Posterior:
        """The base's distributions, as the network changes them."""
        return self.features.answer(prior, answers[:, : self._n_answers], list(self.words))

    # -- drawing --------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator, *, allowed: Tensor | None = None) -> Tensor:
        book, places = self.codebook, self.codebook.place
        may_be = book.levels.spread(drawable(book.levels, allowed)[None].float(), 0.0)[0] > 0
        x = torch.full((n, book.n_columns), math.nan, dtype=torch.float64, device=book.device)
        features = book.known_snr.new_zeros(n, len(self.features.feature_column))
        words = dict(zip((v.column for v in book.vocabularies), self.words, strict=True))
        prior, columns = self.base.preceding(x, self.order), self._one_by_one()
        for j, answers in zip(self.order.tolist(), self.network.steps(features), strict=True):
            if not self.base.independent:
                prior = self.base.preceding(x, self.order)
            column = columns[j]
            logits = prior.column(j) if j in places else None
            own = [words[j]] if j in words else []
            posterior = column.prior(n, logits, answers, own)
            if j in places:
                never = ~may_be[places[j], : book.columns[j].n_points]
                cells = posterior.categorical
                masked = cells.logits.masked_fill(never, -torch.inf)
                posterior.categorical = CategoricalPosterior(cells.levels, masked)
            drawn = posterior.sample(generator, allow_unseen=j in places)
            x[:, j] = drawn[:, 0]
            features[:, column.places] = column.describe(drawn)
        return x

    def _one_by_one(self) -> list[OneColumn]:
        """Every column as a table of its own, made at the first call, for which the host reads the base's numbers."""
        here = self.codebook.known_snr
        if not self._columns or self._columns[0].marginal.codebook.dtype != here.dtype:
            part, columns = self.base.independent_part, range(self.codebook.n_columns)
            self._columns = [OneColumn.of(self.features, part, j) for j in columns]
        if self._columns[0].places.device != here.device:
            self._columns = [column.to(here.device) for column in self._columns]
        return self._columns


class OneColumn(NamedTuple):
    """A column of a table as a table of its own: its draws cost as little as one column does."""

    marginal: MarginalDenoiser
    features: ColumnFeatures
    places: Tensor  # of its features among those of the table

    def to(self, device: torch.device) -> OneColumn:
        """The same on another device."""
        marginal, features = copy.deepcopy(self.marginal), copy.deepcopy(self.features)
        return OneColumn(marginal.to(device), features.to(device), self.places.to(device))

    @classmethod
    def of(cls, features: ColumnFeatures, part: MarginalDenoiser | None, j: int) -> OneColumn:
        """Column ``j`` of a table with the ``features`` and the independent columns ``part``."""
        book = features.codebook
        alone = Codebook([book.columns[j]]).to(book.known_snr)
        probs, mixture, words = features.nothing.new_zeros(0), None, []
        if alone.levels.n_points:
            nothing = CategoricalPosterior(book.levels, features.nothing, normalised=True)
            probs = Posterior(book, nothing).column(j)[0].exp()
        if part is not None:
            mixture = part.mixture[:, book.reals == j] if len(alone.reals) else None
            known = zip(book.vocabularies, part.log_words, strict=True)
            words = [w.exp() for v, w in known if v.column == j]
        marginal = MarginalDenoiser(alone, probs, mixture, words)
        places = torch.nonzero(features.feature_column == j).flatten()
        return cls(marginal, ColumnFeatures(marginal, features.n_added), places)

    def prior(
        self, n: int, logits: Tensor | None, answers: Tensor, words: list[Tensor]
    ) -> Posterior:
        """The distribution of the column in ``n`` rows, from the base's logits (n, K) and a network's answers."""
        start = self.marginal.marginals().expand(n)
        if logits is not None:
            levels = self.marginal.codebook.levels
            start = Posterior(self.marginal.codebook, CategoricalPosterior(levels, logits))
        return self.features.answer(start, answers, words)

    def describe(self, values: Tensor) -> Tensor:
        """The features of known values, (n, 1)."""
        return self.features.describe_cells(values)
