"""The state of the channel: the evidence (y, snr) about each row so far."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook


class State(NamedTuple):
    """The evidence about B rows: ``y`` (B, D) and ``snr`` (B, C).

    Examples
    --------
    >>> from discrete_itd.channel import ColumnPoints
    >>> book = Codebook([ColumnPoints("real"), ColumnPoints("real")])
    >>> points = book.embed(torch.tensor([[0.3, -0.2]], dtype=torch.float64))
    >>> State.start(book, points, given=torch.tensor([[True, False]]))
    State(y=tensor([[0.3000, 0.0000]]), snr=tensor([[inf, 0.]]))
    """

    y: Tensor
    snr: Tensor

    @classmethod
    def start(cls, codebook: Codebook, points: Tensor, given: Tensor | None = None) -> State:
        """The state of rows ``points`` (B, D) with only the cells ``given`` (B, C) known, by default none."""
        snr = points.new_zeros(len(points), codebook.n_columns)
        if given is None:
            return cls(torch.zeros_like(points), snr)
        y = torch.where(codebook.per_coord(given), points, 0.0)
        return cls(y, snr.masked_fill(given, math.inf))

    def increment(
        self, codebook: Codebook, points: Tensor, snr: Tensor, xi: Tensor | None
    ) -> State:
        r"""The evidence :math:`(\Delta y, \delta)` that leads from this state to the SNRs ``snr``.

        ``xi`` (B, D) is standard normal noise; None where all increments are zero or infinite.
        """
        # known cells stay as they are
        delta = torch.where(torch.isinf(self.snr), 0.0, snr - self.snr)
        finite = codebook.per_coord(torch.where(torch.isinf(delta), 0.0, delta))
        dy = finite * points if xi is None else finite * points + finite.sqrt() * xi
        return State(torch.where(codebook.per_coord(torch.isinf(delta)), points, dy), delta)

    def add(self, codebook: Codebook, new: State) -> State:
        """The state after an increment."""
        jumps = codebook.per_coord(torch.isinf(new.snr))
        return State(torch.where(jumps, new.y, self.y + new.y), self.snr + new.snr)
