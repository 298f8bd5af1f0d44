"""The parts of a training that change from step to step, each with a ``state_dict``; and their state in a file."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.adamw import AdamW
from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.config import TrainingPlan

MAX_GRADIENT = 10.0  # bound on the norm of the gradient, per column of the table


class Optimizer:
    """AdamW on named weights, with clipped gradients.

    Parameters
    ----------
    weights : dict of name to nn.Parameter
    plan : TrainingPlan
    n_columns : int
        C of the table.
    """

    def __init__(
        self, weights: dict[str, nn.Parameter], plan: TrainingPlan, n_columns: int
    ) -> None:
        self.weights, self._max_norm = weights, MAX_GRADIENT * n_columns
        self._adam = AdamW(weights.values(), plan.weight_decay)

    def step(self, loss: Tensor, rate: float) -> Tensor:
        """Follow the gradient of a loss; returns its norm before clipping."""
        self._adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), self._max_norm)
        self._adam.step(rate)
        return norm.detach()

    def state_dict(self) -> dict[str, Any]:
        """The weights and their moments, in copies."""
        return {
            name: {key: tensor.detach().clone() for key, tensor in self._tensors(p).items()}
            for name, p in self.weights.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the weights and their moments."""
        for name, p in self.weights.items():
            for key, tensor in self._tensors(p).items():
                tensor.copy_(state[name][key])

    def _tensors(self, p: nn.Parameter) -> dict[str, Tensor]:
        return {"value": p, **self._adam.state[p]}


class Average:
    """The moving average of a model's weights, and the best of its past states.

    Attributes
    ----------
    model : Denoiser
        A copy, with the averaged weights.
    best : float
        Nats of the best state so far.
    stale : int
        Evaluations since then, or since the last restart.
    """

    def __init__(self, model: Denoiser, decay: float) -> None:
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
        """Put the best weights into the average and into ``weights``."""
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
    """The generators a training draws from: the caller's, and the global ones, which dropout knows."""

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
    """Refuse a state that is not made like another one.

    Parameters
    ----------
    found, like : nested dict
        Must have the same keys and types, their tensors the same shapes and finite numbers. A tensor of length zero in
        ``like`` admits any length; an integer must be a count; what is in lists is not looked at.

    Raises
    ------
    ValueError
        Naming the first part that differs.
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
