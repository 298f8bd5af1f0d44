"""Random numbers keyed by the content of a row, not by its position: a counter-based generator.

References
----------
Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, for the finaliser of SplitMix64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The finaliser and the increment of SplitMix64, as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _wrap(n: int) -> int:
    """A Python integer as the signed 64-bit one congruent to it."""
    return (n + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own is arithmetic)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


def cell_bits(x: Tensor) -> Tensor:
    """The 64 bits of each float64 cell as an integer, equal for equal cells: 0 and -0, any two NaNs."""
    return (x + 0.0).contiguous().view(torch.int64).masked_fill(x.isnan(), 0x7FF8000000000000)


def row_hashes(x: Tensor, salt: int = 0) -> Tensor:
    """A 64-bit hash of each row of x (B, C): int64, (B,)."""
    place = _mix(torch.arange(1, x.shape[1] + 1, device=x.device) * _GOLDEN + _wrap(salt))
    return _mix(_mix(_mix(cell_bits(x)) * _GOLDEN + place).sum(1))


class RowNoise:
    """Random numbers that are hashes of (salt, content of the row, path, stream, coordinate): equal for equal rows.

    ``x`` (B, C) are the rows' float64 cells, ``path`` (B,) is the repetition of each row, int64, and ``salt`` one
    number for all rows, from the caller's generator.
    """

    def __init__(self, x: Tensor, path: Tensor, salt: int) -> None:
        self._key = _mix(row_hashes(x, salt) + (path + 1) * _GOLDEN)

    def _bits(self, stream: int, n: int) -> Tensor:
        place = torch.arange(1, n + 1, device=self._key.device) * _GOLDEN + _wrap(stream * _MIX_2)
        return _mix(self._key[:, None] ^ _mix(place))

    def uniform(self, stream: int, n: int) -> Tensor:
        """Float64 numbers in [0, 1), shape (B, n); ``stream`` separates independent uses."""
        return _shift(self._bits(stream, n), 11).double() * 2.0**-53

    def normal(self, stream: int, n: int, dtype: torch.dtype) -> Tensor:
        """Standard normals, shape (B, n), by Box and Muller (1958)."""
        bits = self._bits(stream, (n + 1) // 2)
        u = (_shift(bits, 32) + 1).to(dtype) * 2.0**-32  # (0, 1]
        angle = (bits & 0xFFFFFFFF).to(dtype) * (2 * math.pi * 2.0**-32)
        radius = torch.sqrt(-2 * torch.log(u))
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)[:, :n]


def draw_salt(generator: torch.Generator) -> int:
    """One number from the caller's generator, for all the row-keyed noise of a call."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))


def add_gumbel(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Logits plus standard Gumbel noise, whose argmax is a draw from their softmax."""
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    return logits - torch.log(-torch.log(uniform.clamp_(1e-12, 1 - 1e-7))).to(logits)
