"""Which of some patterns of codes each row has, by one number for each."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def match_patterns(cells: Tensor, patterns: Tensor) -> Tensor:
    """The number of the pattern (P, K) that each row of ``cells`` (N, K) is, or P: (N,)."""
    weight = _weights(cells.shape[1], str(cells.device))
    keys, key = (patterns * weight).sum(1), (cells * weight).sum(1)  # integers, which wrap around
    order = keys.argsort()
    at = order[torch.searchsorted(keys[order], key).clamp_max(len(patterns) - 1)]
    return torch.where((patterns[at] == cells).all(1), at, len(patterns))


@lru_cache(maxsize=64)
def _weights(n: int, device: str) -> Tensor:
    """Random integers, always the same, by which n codes make one number: int64, (n,)."""
    with torch.inference_mode(False):
        weight = torch.randint(2**62, (n,), generator=torch.Generator().manual_seed(n))
        return weight.to(device)
