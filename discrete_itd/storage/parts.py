"""The denoiser and the schedule of a model, as data and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from discrete_itd import channel, denoisers
from discrete_itd.channel import Schedule
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser
from discrete_itd.storage.configs import CLASS, by_name, from_config, named
from discrete_itd.storage.schema import building

SCHEDULES: tuple[type, ...] = (
    channel.CoordinateSchedule,
    channel.IsotropicSchedule,
)
DENOISERS: tuple[type[Denoiser], ...] = tuple(
    cls
    for cls in map(denoisers.__dict__.get, denoisers.__all__)
    if isinstance(cls, type) and issubclass(cls, Denoiser) and cls is not Denoiser
)


def schedule_from_config(data: Any, trusted: Iterable[type] = ()) -> Schedule:
    """The schedule that ``to_config`` made data of, of a class of the library or a trusted one; else ValueError."""
    named(data, by_name((*SCHEDULES, *trusted)))  # an object, not a number
    return cast(Schedule, from_config(data, (*SCHEDULES, *trusted)))


def denoiser_from_config(
    data: Any,
    codebook: Codebook,
    tensors: Mapping[str, Tensor],
    trusted: Iterable[type] = (),
) -> Denoiser:
    """The denoiser that ``to_config`` made data of, equal to the last bit.

    Parameters
    ----------
    data : JSON data
        From :func:`~discrete_itd.storage.configs.to_config`.
    codebook : Codebook
        Of the floating type of the tensors.
    tensors : mapping from name to Tensor
        The ``state_dict``.
    trusted : iterable of type
        Classes besides those of :mod:`discrete_itd.denoisers` that the data may name.

    Raises
    ------
    ValueError
        If the data name another class, or do not fit the tensors.
    """
    return _built(data, codebook, tensors, by_name((*DENOISERS, *trusted)))


def _built(
    data: Any, codebook: Codebook, tensors: Mapping[str, Tensor], classes: Mapping[str, type]
) -> Denoiser:
    cls, config = named(data, classes, Denoiser)

    def nested(value: Any, prefix: str) -> Any:
        """A value of a config, with a function from a codebook to a denoiser in place of a denoiser's data."""
        if isinstance(value, list):
            return [nested(item, f"{prefix}.{i}") for i, item in enumerate(value)]
        if isinstance(value, Mapping) and CLASS in value:
            return lambda book: _built(value, book, within(tensors, prefix), classes)
        return value

    with building(cls.__name__):
        config = {name: nested(value, name) for name, value in config.items()}
        denoiser = cast(type[Denoiser], cls).from_config(config, codebook, tensors)
        # constructors normalise, which rounds: the very numbers come from here
        denoiser.load_state_dict(dict(tensors))
    return denoiser


def within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix and a dot, by the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def floating_type(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The type of the first floating tensor; ValueError if there is none."""
    for tensor in tensors.values():
        if tensor.is_floating_point():
            return tensor.dtype
    raise ValueError("there are no weights")
