"""AdamW as torch computes it, without the compiler that the first ``torch.optim`` object of a process loads.

That takes more than a second (``python -X importtime -c "import torch._dynamo"``). The class of torch has options that
nothing here asks for; the function behind it, which does the arithmetic, is used as it is.

References
----------
Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, arXiv:1711.05101.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS, EPS = (0.9, 0.999), 1e-8


class AdamW:
    """The optimiser of some weights, whose learning rate is given at every step.

    Parameters
    ----------
    weights : iterable of nn.Parameter
    weight_decay : float

    Attributes
    ----------
    state : dict of Parameter to dict of Tensor
        The number of steps and the two moments of each weight, ``step``, ``exp_avg`` and ``exp_avg_sq``.
    """

    def __init__(self, weights: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.weights, self.weight_decay = list(weights), weight_decay
        self._fused = all(p.device.type in ("cpu", "cuda") for p in self.weights)
        self.state: dict[Tensor, dict[str, Tensor]] = {
            p: {
                "step": torch.zeros(
                    (), dtype=torch.float32, device=p.device if self._fused else "cpu"
                ),
                "exp_avg": torch.zeros_like(p, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
            }
            for p in self.weights
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.weights:
            p.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the weights that have a gradient, with a learning rate."""
        moved = [p for p in self.weights if p.grad is not None]
        state = [self.state[p] for p in moved]
        adamw(
            list[Tensor](moved),
            [p.grad for p in moved if p.grad is not None],
            [s["exp_avg"] for s in state],
            [s["exp_avg_sq"] for s in state],
            [],
            [s["step"] for s in state],
            fused=self._fused,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=EPS,
            maximize=False,
        )
