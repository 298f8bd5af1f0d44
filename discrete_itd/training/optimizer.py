"""The parts of a training that change from step to step: the weights, their moments, their average."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW

Trained = TypeVar("Trained", bound=nn.Module)


class Optimizer:
    """AdamW on named weights, with gradients clipped to the norm ``max_norm``, without the imports of torch's class.

    The first ``torch.optim`` object of a process loads the compiler, which takes more than a second (``python -X
    importtime -c "import torch._dynamo"``). The function behind the class, which does the arithmetic, is called
    directly. ``moments`` holds the number of steps and the two moments of each weight, ``step``, ``exp_avg`` and
    ``exp_avg_sq``.

    References
    ----------
    Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv:1711.05101.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], weight_decay: float, max_norm: float
    ) -> None:
        self.weights, self._decay, self._max_norm = dict(weights), weight_decay, max_norm
        self._fused = all(p.device.type in ("cpu", "cuda") for p in self.weights.values())
        self.moments = {
            name: {
                "step": torch.zeros(
                    (), dtype=torch.float32, device=p.device if self._fused else "cpu"
                ),
                "exp_avg": torch.zeros_like(p, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
            }
            for name, p in self.weights.items()
        }

    def step(self, loss: Tensor, rate: float) -> Tensor:
        """Make a step down the gradient of a loss, with a learning rate; returns its norm before clipping."""
        for p in self.weights.values():
            p.grad = None
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), self._max_norm)
        self._move(rate)
        return norm.detach()

    @torch.no_grad()
    def _move(self, rate: float) -> None:
        """Move the weights that have a gradient."""
        moved = {name: p for name, p in self.weights.items() if p.grad is not None}
        state = [self.moments[name] for name in moved]
        adamw(
            list[Tensor](moved.values()),
            [p.grad for p in moved.values() if p.grad is not None],
            [s["exp_avg"] for s in state],
            [s["exp_avg_sq"] for s in state],
            [],
            [s["step"] for s in state],
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
        self.weights = {
            name: p.requires_grad_(False)
            for name, p in self.model.named_parameters()
            if p.requires_grad
        }
        self._decay, self.n_steps = decay, 0
        self.best, self.stale = math.inf, 0
        self.best_weights = self._copies()

    def follow(self, weights: Iterable[Tensor]) -> None:
        """Move towards the weights of the latest step; at first fast, to forget the start."""
        self.n_steps += 1
        share = 1 - min(self._decay, self.n_steps / (10 + self.n_steps))
        for w, p in zip(self.weights.values(), weights, strict=True):
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
        for name, p in zip(self.weights, weights, strict=True):
            self.weights[name].copy_(self.best_weights[name])
            p.copy_(self.best_weights[name])

    def _copies(self) -> dict[str, Tensor]:
        return {name: w.clone() for name, w in self.weights.items()}
