"""The network that corrects a base: features of every column in, changes of its logits out, zero at the start."""

from __future__ import annotations

from torch import Tensor, nn


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
