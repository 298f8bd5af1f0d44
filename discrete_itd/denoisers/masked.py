"""A network whose answers about a column depend on the columns before it in a fixed order alone.

Every hidden unit has a degree d: it hears the columns of rank at most d, by way of units of at most its own degree, and
is heard by answers of a higher rank. So one call gives the answers about all columns, and a row can be drawn column by
column at the cost of one call, for each unit is computed when the last column that it hears is known.

References
----------
Germain, Gregor, Murray, Larochelle, "MADE: masked autoencoder for distribution estimation", ICML 2015,
arXiv:1502.03509.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.base import row_product

# weights of the map from the features to the answers beside the hidden units: without it, numbers that follow from
# others by a sum are learned far more slowly
MOST_SKIPPED = 1 << 24


class MaskedGradient(torch.autograd.Function):
    """A weight as it is, whose gradient is multiplied by a mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0] * ctx.saved_tensors[0], None

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor) -> Tensor:
        """The weight (n_out, n_in), of which the gradient is zero where the mask is."""
        out = cls.apply(weight, mask)
        assert isinstance(out, Tensor)
        return out


class MaskedLinear(nn.Module):
    """A linear map of which an output hears some of the inputs.

    Parameters
    ----------
    heard, hearing : Tensor of int64, shapes (n_in,) and (n_out,)
        An output hears the inputs of which ``heard`` is at most its ``hearing``.

    Notes
    -----
    The other weights are zero and stay so: their gradients in training are, and whatever else has set them is undone by
    ``train()``, ``eval()`` and where a state is loaded. So only gradients pay for the mask.
    """

    mask: Tensor

    def __init__(self, heard: Tensor, hearing: Tensor) -> None:
        super().__init__()
        mask = (heard <= hearing[:, None]).to(torch.get_default_dtype())
        self.register_buffer("mask", mask, persistent=False)
        bound = mask.sum(1, keepdim=True).clamp_min(1).rsqrt()
        start = (2 * torch.rand(mask.shape, device=mask.device) - 1) * bound
        self.weight = nn.Parameter(start * mask)
        self.bias = nn.Parameter(torch.zeros(len(hearing), device=mask.device))
        self.register_load_state_dict_post_hook(_mask)

    def train(self, mode: bool = True) -> Self:
        _mask(self)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return row_product(x, self.weight.T) + self.bias
        return nn.functional.linear(x, MaskedGradient.of(self.weight, self.mask), self.bias)

    def part(self, x: Tensor, rows: slice | Tensor) -> Tensor:
        """Some of the outputs, from the first ``x.shape[1]`` inputs: the others must not be heard by them."""
        return row_product(x, self.weight[rows, : x.shape[1]].T) + self.bias[rows]


def _mask(module: nn.Module, loaded: object = None) -> None:  # noqa: ARG001
    """Set the weights of a masked map to zero where nothing is heard."""
    assert isinstance(module, MaskedLinear)
    module.weight.detach().mul_(module.mask)


class MaskedMLP(nn.Module):
    """Masked residual blocks between two masked linear maps, and a masked linear map beside them.

    The answers are zero at the start. The map beside the blocks grows with the product of features and answers: of more
    than ``MOST_SKIPPED`` weights there is none.

    Parameters
    ----------
    feature_rank, answer_rank : Tensor of int64, shapes (F,) and (A,)
        Rank of the column of each feature and answer in the order, from 0 to ``n_ranks`` - 1.
    n_ranks : int
        Columns.
    width : int
        Hidden units W.
    depth : int
        Number of residual blocks.
    dropout : float
        Share of hidden units dropped in training.
    """

    degree: Tensor
    feature_rank: Tensor
    answer_rank: Tensor
    _by_rank: Tensor

    def __init__(
        self,
        feature_rank: Tensor,
        answer_rank: Tensor,
        n_ranks: int,
        *,
        width: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.n_ranks = n_ranks
        # evenly spread, sorted: units that are computed together lie together
        degree = torch.arange(width, device=feature_rank.device) * max(1, n_ranks - 1) // width
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("feature_rank", feature_rank, persistent=False)
        self.register_buffer("answer_rank", answer_rank, persistent=False)
        # the answers and the units of each rank are computed together; both are known on the host
        self.register_buffer("_by_rank", answer_rank.argsort(stable=True), persistent=False)
        self._n_answers = torch.bincount(answer_rank, minlength=n_ranks)[:n_ranks].tolist()
        self._n_units = torch.bincount(degree, minlength=n_ranks).tolist()
        before = answer_rank - 1
        self.enter = MaskedLinear(feature_rank, degree)
        self.blocks = nn.ModuleList(
            nn.ModuleList([MaskedLinear(degree, degree), MaskedLinear(degree, degree)])
            for _ in range(depth)
        )
        self.leave = MaskedLinear(degree, before)
        is_small = len(feature_rank) * len(before) <= MOST_SKIPPED
        self.skip = MaskedLinear(feature_rank, before) if is_small else None
        for last in (self.leave, self.skip):
            if last is not None:
                last.weight.detach().zero_()
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        return self.after(self.enter(features), None if self.skip is None else self.skip(features))

    def after(self, h: Tensor, skipped: Tensor | None) -> Tensor:
        """The answers (B, A) from what the maps of the features give: to the units (B, W), and beside them (B, A)."""
        share = self.dropout if self.training else 0.0
        for first, second in self._pairs():
            h = h + second(dropped(torch.relu(first(torch.relu(h))), share))
        answers = self.leave(dropped(torch.relu(h), share))
        return answers if skipped is None else answers + skipped

    def _pairs(self) -> Iterator[tuple[MaskedLinear, MaskedLinear]]:
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            first, second = block
            assert isinstance(first, MaskedLinear)
            assert isinstance(second, MaskedLinear)
            yield first, second

    def steps(self, features: Tensor) -> Iterator[Tensor]:
        """The answers of one rank after the other, of features that are filled in meanwhile.

        Parameters
        ----------
        features : Tensor, shape (B, F)
            Before the answers of rank r are asked for, those of lower ranks must have been written into it.

        Yields
        ------
        Tensor, shape (B, A_r)
            Answers of rank r in the order in which they lie among all answers.
        """
        n, width = len(features), len(self.degree)
        pairs = list(self._pairs())
        # relu of the input of every linear map between units, filled in from the first unit to the last
        before = [features.new_zeros(n, width) for _ in range(2 * len(pairs) + 1)]
        done, answered = 0, 0
        for n_answers, n_units in zip(self._n_answers, self._n_units, strict=True):
            asked = self._by_rank[answered : answered + n_answers]
            answered += n_answers
            answers = self.leave.part(before[-1][:, :done], asked)
            yield answers if self.skip is None else answers + self.skip.part(features, asked)
            end = done + n_units
            these = slice(done, end)
            h = self.enter.part(features, these)
            for i, (first, second) in enumerate(pairs):
                before[2 * i][:, these] = torch.relu(h)
                before[2 * i + 1][:, these] = torch.relu(first.part(before[2 * i][:, :end], these))
                h = h + second.part(before[2 * i + 1][:, :end], these)
            before[-1][:, these] = torch.relu(h)
            done = end


def dropped(x: Tensor, share: float) -> Tensor:
    """``x`` with a share of its numbers, to 1/256, set to zero and the others raised so that the mean is kept.

    Of the global generator, like ``nn.Dropout``, which on a CPU draws one number for each where this takes eight bits.
    """
    least = min(round(256 * share), 255)
    if not least:
        return x
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    eighths = words.random_(-(2**63), None).view(torch.uint8)[: x.numel()]
    kept = (eighths.view(x.shape) >= least).to(x)
    return x * kept.mul_(256 / (256 - least))
