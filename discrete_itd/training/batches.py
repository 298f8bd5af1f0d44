"""Batches of training rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Batches:
    """Batches of equal size without end, in a new random order each epoch.

    The rows that are left at the end of an epoch are dropped; a table shorter than a batch is repeated.

    Parameters
    ----------
    x : Tensor, shape (N, C)
    size : int
        Rows of a batch.
    generator : torch.Generator
        On the device of the rows.
    """

    def __init__(self, x: Tensor, size: int, generator: torch.Generator) -> None:
        self._x, self._size, self._generator = x, size, generator
        self._order = torch.zeros(0, dtype=torch.int64, device=x.device)
        # the generator's state before it drew the order, kept instead of the order; and rows used up
        self._before, self._position = generator.get_state(), 0

    def __next__(self) -> Tensor:
        if self._position + self._size > len(self._order):
            self._shuffle()
        rows = self._order[self._position : self._position + self._size]
        self._position += self._size
        return self._x[rows]

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch."""
        return {"position": self._position, "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place in an epoch; the generator is left in the state after drawing the order."""
        self._generator.set_state(state["before"])
        if state["position"]:
            self._shuffle()
        if state["position"] > len(self._order):
            raise ValueError(f"an epoch has {len(self._order)} rows, not {state['position']}")
        self._position = state["position"]

    def _shuffle(self) -> None:
        self._before, self._position = self._generator.get_state(), 0
        n, device = len(self._x), self._x.device
        folds = [
            torch.randperm(n, generator=self._generator, device=device)
            for _ in range(-(-self._size // n))
        ]
        self._order = torch.cat(folds)
