"""Networks that correct a base: features of every column in, changes of its logits out.

Both start at zero, so that a denoiser that has learned nothing is its base, and both see the table as two flat
vectors, of which they are told what column each number belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.base import row_product

HEAD = 16  # numbers of one head of attention
WIDER = 2  # times the width, between the two layers that follow attention


class ResidualMLP(nn.Module):
    """Pre-normalised residual blocks between two linear maps; the last starts at zero.

    Parameters
    ----------
    n_in, n_out : int
    width : int
        Hidden units W.
    depth : int
        Number of residual blocks.
    dropout : float
        Share of hidden units dropped in training.
    """

    def __init__(self, n_in: int, n_out: int, *, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(depth)
        )
        last = nn.Linear(width, n_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        h = self.enter(features)  # (B, W)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


class ColumnTransformer(nn.Module):
    """Attention over columns: each is a token, and all share the weights but those of their way in and out.

    Parameters
    ----------
    in_column, out_column : sequence of int
        The column of each number that comes in, and of each that goes out.
    n_columns : int
    width : int
        Numbers W of a token; a head has ``HEAD`` of them, or more where that does not divide them.
    depth : int
        Number of layers.
    dropout : float
        Share of hidden units, and of what attention says, dropped in training.

    References
    ----------
    Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762; Xiong et al., 2020, arXiv:2002.04745, for the
    order of normalisation.
    """

    _in: Tensor
    _out: Tensor
    _place: Tensor

    def __init__(
        self,
        in_column: Sequence[int],
        out_column: Sequence[int],
        n_columns: int,
        *,
        width: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        index, _ = _by_column(in_column, n_columns)
        self.register_buffer("_in", index, persistent=False)
        index, place = _by_column(out_column, n_columns)
        self.register_buffer("_out", index, persistent=False)
        self.register_buffer("_place", place, persistent=False)
        n_most, n_told = self._in.shape[1], self._out.shape[1]
        self.enter = nn.Parameter(torch.randn(n_columns, n_most, width) / max(1, n_most) ** 0.5)
        self.column = nn.Parameter(torch.randn(n_columns, width) / 2)
        self.blocks = nn.ModuleList(_Layer(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Parameter(torch.zeros(n_columns, width, n_told))
        self.bias = nn.Parameter(torch.zeros(n_columns, n_told))

    def forward(self, features: Tensor) -> Tensor:
        padded = torch.cat([features, features.new_zeros(len(features), 1)], 1)
        own = padded[:, self._in]  # (B, C, F)
        h = torch.einsum("bcf,cfw->bcw", own, self.enter) + self.column
        for block in self.blocks:
            h = block(h)
        out = row_product(self.norm(h).transpose(0, 1), self.leave).transpose(0, 1) + self.bias
        return out.flatten(1)[:, self._place]


class _Layer(nn.Module):
    """Attention over columns, then two linear maps of each."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        most = max(1, width // HEAD)
        self.n_heads = next(n for n in range(most, 0, -1) if not width % n)
        self.dropout = dropout
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.answer = nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.Linear(width, WIDER * width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(WIDER * width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        parts = self.ask(self.first(h)).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        heard = nn.functional.scaled_dot_product_attention(
            *parts, dropout_p=self.dropout if self.training else 0.0
        )
        h = h + self.answer(heard.transpose(1, 2).flatten(2))  # (B, heads, C, W/heads)
        return h + self.think(self.second(h))


def _by_column(column: Sequence[int], n_columns: int) -> tuple[Tensor, Tensor]:
    """Where the numbers of every column are, (C, most), one past the last where it has fewer; and the way back."""
    members: list[list[int]] = [[] for _ in range(n_columns)]
    for i, j in enumerate(column):
        members[j].append(i)
    most = max(1, max(map(len, members), default=1))
    index = torch.full((n_columns, most), len(column), dtype=torch.int64)
    place = torch.zeros(len(column), dtype=torch.int64)
    for j, own in enumerate(members):
        index[j, : len(own)] = torch.tensor(own, dtype=torch.int64)
        for k, i in enumerate(own):
            place[i] = j * most + k
    return index, place
