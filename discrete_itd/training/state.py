"""The state of a training as nested dictionaries of numbers, text, lists and tensors: check, store and restore it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discrete_itd.storage.files import State

SEPARATOR = "/"  # between the keys of a nested dictionary, in the name of a tensor


def split(state: dict[str, Any]) -> State:
    """JSON data and named tensors of a nested state."""
    data, tensors = {}, {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[key] = value
        elif isinstance(value, dict):
            data[key], inner = split(value)
            tensors |= {f"{key}{SEPARATOR}{name}": tensor for name, tensor in inner.items()}
        else:
            data[key] = value
    return data, tensors


def joined(data: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The nested state that :func:`split` took apart; ValueError if a tensor has no place in it."""
    out = {k: joined(v, {}) if isinstance(v, dict) else v for k, v in data.items()}
    for name, tensor in tensors.items():
        *path, last = name.split(SEPARATOR)
        place: Any = out
        for key in path:
            place = place.get(key) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last in place:
            raise ValueError(f"the tensor {name} has no place in it")
        place[last] = tensor
    return out


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
            check(found[key], like[key], f"{name}{SEPARATOR}{key}")
    elif isinstance(like, Tensor):
        free = like.shape[:1] == (0,) and found.ndim == like.ndim
        if found.dtype != like.dtype or not (free or found.shape == like.shape):
            raise ValueError(f"{name} is {found.dtype} of shape {tuple(found.shape)}")
        if not bool(found.isfinite().all()):
            raise ValueError(f"{name} is not finite")
    elif isinstance(like, int) and not 0 <= found < 2**63:
        raise ValueError(f"{name} is {found}, which is no count")


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
