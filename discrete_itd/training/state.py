"""The parts of a training that change from step to step, each with a ``state_dict``; and their state in a file."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

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

    def state_dict(self) -> dict[str, Any]:
        """The weights and their moments, in copies."""
        return {
            name: {key: tensor.detach().clone() for key, tensor in self._tensors(name).items()}
            for name in self.weights
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the weights and their moments."""
        for name in self.weights:
            for key, tensor in self._tensors(name).items():
                tensor.copy_(state[name][key])

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return {"value": self.weights[name], **self.moments[name]}


class Average(Generic[Trained]):
    """The moving average of a model's weights, and the best of its past states.

    ``model`` is a copy with the averaged weights, ``best`` the nats of the best state so far, and ``stale`` the number
    of evaluations since then, or since the last restart.
    """

    def __init__(self, model: Trained, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.weights = {
            name: p.requires_grad_(False)
            for name, p in self.model.named_parameters()
            if p.requires_grad
        }
        self._decay, self._n_steps = decay, 0
        self.best, self.stale = math.inf, 0
        self.best_weights = self._copies()

    def follow(self, weights: Iterable[Tensor]) -> None:
        """Move towards the weights of the latest step; at first fast, to forget the start."""
        self._n_steps += 1
        share = 1 - min(self._decay, self._n_steps / (10 + self._n_steps))
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

    def state_dict(self) -> dict[str, Any]:
        """The average and the best weights, in copies."""
        return {
            "n_steps": self._n_steps,
            "best": self.best,
            "stale": self.stale,
            "weights": self._copies(),
            "best_weights": dict(self.best_weights),  # replaced, never changed
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the average and the best weights."""
        self.take_back(state)
        self.best, self.stale = state["best"], state["stale"]
        self.best_weights = {name: state["best_weights"][name] for name in self.weights}

    @torch.no_grad()
    def take_back(self, state: dict[str, Any]) -> None:
        """Set the average to an earlier state, but keep the best weights: they were validated."""
        for name, w in self.weights.items():
            w.copy_(state["weights"][name])
        self._n_steps, self.stale = state["n_steps"], min(self.stale, state["stale"])

    def _copies(self) -> dict[str, Tensor]:
        return {name: w.clone() for name, w in self.weights.items()}


class RandomStreams:
    """The generators of a training: the caller's, and the global ones, which dropout uses."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Tensor]:
        """The states of the generators."""
        own = {"own": self._generator.get_state(), "cpu": torch.get_rng_state()}
        if self._generator.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self._generator.device)
        return own

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the generators."""
        self._generator.set_state(state["own"])
        torch.set_rng_state(state["cpu"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._generator.device)


def check(found: Any, like: Any, name: str = "state") -> None:
    """Raise a ValueError, naming the first part that differs, unless two nested dicts have the same structure.

    Keys and types must be equal, tensors of the same shapes and finite. A tensor of length zero in ``like`` admits any
    length; an integer must be a count; lists are not checked.
    """
    if type(found) is not type(like):
        raise ValueError(f"{name} is of the type {type(found).__name__}")
    if isinstance(like, dict):
        if found.keys() != like.keys():
            raise ValueError(f"{name} has the parts {sorted(found)}, not {sorted(like)}")
        for key in like:
            check(found[key], like[key], f"{name}/{key}")
    elif isinstance(like, Tensor):
        free = like.shape[:1] == (0,) and found.ndim == like.ndim
        if found.dtype != like.dtype or not (free or found.shape == like.shape):
            raise ValueError(f"{name} is {found.dtype} of shape {tuple(found.shape)}")
        if not bool(found.isfinite().all()):
            raise ValueError(f"{name} is not finite")
    elif isinstance(like, int) and not 0 <= found < 2**63:
        raise ValueError(f"{name} is {found}, which is no count")
