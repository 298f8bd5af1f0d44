"""What happens to the weights: the optimiser's steps, their moving average, and the best of its past states."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from discrete_itd.denoisers.base import Denoiser
from discrete_itd.training.config import TrainingPlan

MAX_GRADIENT = 10.0  # bound on the norm of the gradient, per column of the table


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) on named weights, with clipped gradients.

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
        fused = all(p.device.type in ("cpu", "cuda") for p in weights.values())
        self._adam = torch.optim.AdamW(
            weights.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=fused
        )
        for p in (
            weights.values()
        ):  # at once, so that the state has the same parts before the first step
            self._adam.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device if fused else "cpu"),
                "exp_avg": torch.zeros_like(p, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
            }

    def step(self, loss: Tensor, rate: float) -> Tensor:
        """Follow the gradient of a loss; returns its norm before clipping."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), self._max_norm)
        self._adam.step()
        return norm.detach()

    def state_dict(self) -> dict[str, Any]:
        """The weights and their moments, in copies."""
        return {
            name: {
                "value": p.detach().clone(),
                **{k: v.clone() for k, v in self._adam.state[p].items()},
            }
            for name, p in self.weights.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the weights and their moments."""
        for name, p in self.weights.items():
            p.copy_(state[name]["value"])
            for k, v in self._adam.state[p].items():
                v.copy_(state[name][k])


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
        for w, p, best in zip(
            self.weights.values(), weights, self.best_weights.values(), strict=True
        ):
            w.copy_(best)
            p.copy_(best)

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
