"""The parts of a training that change from step to step: the weights, their moments, their average."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW

Trained = TypeVar("Trained", bound=nn.Module)


class Optimizer:
    """AdamW on weights, with gradients clipped to the norm ``max_norm``, without the imports of torch's class.

    The first ``torch.optim`` object of a process loads the compiler, which takes more than a second (``python -X
    importtime -c "import torch._dynamo"``). The function behind the class, which does the arithmetic, is called
    directly. ``moments`` holds the two moments of each weight and its number of steps.

    References
    ----------
    Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv:1711.05101.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], weight_decay: float, max_norm: float
    ) -> None:
        self.weights, self._decay, self._max_norm = list(weights), weight_decay, max_norm
        self._fused = all(p.device.type in ("cpu", "cuda") for p in self.weights)
        self.moments: list[tuple[Tensor, Tensor, Tensor]] = []
        for p in self.weights:
            count = torch.zeros((), dtype=torch.float32, device=p.device if self._fused else "cpu")
            first, second = (torch.zeros_like(p.detach()) for _ in range(2))
            self.moments.append((first, second, count))

    def step(self, loss: Tensor, rate: float) -> None:
        """Make a step down the gradient of a loss, with a learning rate."""
        for p in self.weights:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, self._max_norm)
        moved = [
            (p, *m) for p, m in zip(self.weights, self.moments, strict=True) if p.grad is not None
        ]
        if not moved:
            return
        weights, first, second, counts = map(list, zip(*moved, strict=True))
        with torch.no_grad():
            adamw(
                weights,
                [p.grad for p in weights],
                first,
                second,
                [],
                counts,
                fused=self._fused,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate,
                weight_decay=self._decay,
                eps=EPS,
                maximize=False,
            )


class Average(Generic[Trained]):
    """The moving average of a model's weights, and the best of its past states.

    ``model`` is a copy with the averaged weights, ``best`` the nats of the best state so far, ``stale`` the number of
    evaluations since then, or since the last restart, and ``n_steps`` the number of steps averaged.
    """

    def __init__(self, model: Trained, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.weights = [p.requires_grad_(False) for p in self.model.parameters() if p.requires_grad]
        self._decay, self.n_steps = decay, 0
        self.best, self.stale = math.inf, 0
        self.best_weights = self._copies()

    def follow(self, weights: Iterable[Tensor]) -> None:
        """Move towards the weights of the latest step; at first fast, to forget the start."""
        self.n_steps += 1
        share = 1 - min(self._decay, self.n_steps / (10 + self.n_steps))
        for w, p in zip(self.weights, weights, strict=True):
            w.lerp_(p.detach(), share)

    def consider(self, nats: float) -> None:
        """Keep a copy of the average if it is the best so far."""
        if -math.inf < nats < self.best:
            self.best, self.stale, self.best_weights = nats, 0, self._copies()
        else:
            self.stale += 1

    @torch.no_grad()
    def restore(self, weights: Iterable[Tensor]) -> None:
        """Copy the best weights to the average and to ``weights``."""
        self.stale = 0
        for own, p, best in zip(self.weights, weights, self.best_weights, strict=True):
            own.copy_(best)
            p.copy_(best)

    def _copies(self) -> list[Tensor]:
        return [w.clone() for w in self.weights]
