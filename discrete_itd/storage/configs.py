"""Objects as plain JSON data: the name of their class and what ``config()`` says, and the way back.

An object describes itself if it has a method ``config()``, which returns the arguments of its constructor: plain
values, or objects that describe themselves, alone or in lists. A frozen dataclass needs one line,
``return dict(vars(self))``. A class adds a classmethod ``from_config(config)`` if its constructor does not take these
arguments as they come from JSON, in which a tuple has become a list.

Data hold the bare name of a class. It is looked up among the classes that the caller lists, and nowhere else: nothing
is imported because a file says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd import channel, denoisers
from discrete_itd.channel import Codebook, Schedule
from discrete_itd.denoisers import Denoiser
from discrete_itd.storage.schema import building

CLASS = "class"  # the key under which data hold the name of a class
MAPPING = "mapping"  # a dictionary, some of whose keys are not strings
SMALLEST_LOG = -80.0
MOST_NATS = 1e-4  # by which the logarithm of a sum of probabilities may differ from zero


SCHEDULES: tuple[type, ...] = (
    channel.CoordinateSchedule,
    channel.IsotropicSchedule,
)
DENOISERS: tuple[type[Denoiser], ...] = tuple(
    cls
    for cls in map(denoisers.__dict__.get, denoisers.__all__)
    if isinstance(cls, type) and issubclass(cls, Denoiser) and cls is not Denoiser
)


def to_config(value: Any) -> Any:
    """JSON data of a value.

    Parameters
    ----------
    value : object
        None, bool, number, str, numpy array, list, tuple, mapping, or an object that has ``config()``.

    Raises
    ------
    TypeError
        If it is something else.

    Examples
    --------
    >>> from discrete_itd.channel import CoordinateSchedule
    >>> to_config(CoordinateSchedule(2))
    {'class': 'CoordinateSchedule', 'n_steps': 2, 'order': None}
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    if isinstance(value, Mapping) and CLASS not in value and all(isinstance(k, str) for k in value):
        return {name: to_config(item) for name, item in value.items()}
    if isinstance(value, Mapping):
        return {CLASS: MAPPING, "items": [[to_config(k), to_config(v)] for k, v in value.items()]}
    if isinstance(value, type) or not hasattr(value, "config"):
        raise TypeError(
            f"an object of type {type(value).__name__} cannot be saved: it has no method config()"
        )
    config = {name: to_config(item) for name, item in value.config().items()}
    return {CLASS: type(value).__name__, **config}


def from_config(data: Any, classes: Iterable[type] = ()) -> Any:
    """The value whose data :func:`to_config` made; sequences come back as lists.

    Parameters
    ----------
    data : JSON data
    classes : iterable of type
        The only classes of which objects are made; of two with the same name the later one.

    Raises
    ------
    ValueError
        If the data name another class, or a class does not take its arguments.

    Examples
    --------
    >>> from discrete_itd.channel import CoordinateSchedule
    >>> from_config({"class": "CoordinateSchedule", "n_steps": 2}, [CoordinateSchedule])
    CoordinateSchedule(n_steps=2, order=None)
    """
    return _made(data, by_name(classes))


def by_name(classes: Iterable[type]) -> dict[str, type]:
    """Classes by their names; TypeError for something that is no class."""
    out: dict[str, type] = {}
    for cls in classes:
        if not isinstance(cls, type):
            raise TypeError(f"trusted must hold classes, got {cls!r}")
        out[cls.__name__] = cls
    return out


def named(
    data: Any, classes: Mapping[str, type], kind: type = object
) -> tuple[type, dict[str, Any]]:
    """The class that data name, and the rest of the data.

    Raises
    ------
    ValueError
        If the data name no class, one that is not listed, or one that is not of the ``kind``.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get(CLASS), str):
        raise ValueError(f"expected an object with the name of its class, got {data!r:.80}")
    name = data[CLASS]
    if name not in classes:
        raise ValueError(
            f"it needs the class {name[:80]!r}, which is not part of discrete_itd: if you trust its code, load with"
            " trusted=[that class]"
        )
    if not issubclass(classes[name], kind):
        raise ValueError(f"expected a {kind.__name__}, got a {name}")
    return classes[name], {str(key): value for key, value in data.items() if key != CLASS}


def _made(data: Any, classes: Mapping[str, type]) -> Any:
    if isinstance(data, list | tuple):
        return [_made(item, classes) for item in data]
    if not isinstance(data, Mapping):
        return data
    if CLASS not in data:
        return {name: _made(value, classes) for name, value in data.items()}
    if data[CLASS] == MAPPING:
        with building("a mapping"):
            return {key: _made(value, classes) for key, value in data["items"]}
    cls, config = named(data, classes)
    with building(cls.__name__):
        config = {key: _made(value, classes) for key, value in config.items()}
        return getattr(cls, "from_config", lambda config: cls(**config))(config)


def classes_of(value: Any) -> Iterator[type]:
    """Classes of all objects of which :func:`to_config` makes data, nested ones too."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from classes_of(item)
    elif hasattr(value, "config") and not isinstance(value, type):
        yield type(value)
        yield from classes_of(value.config())


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
        made = {name: buffer.clone() for name, buffer in denoiser.named_buffers(recurse=False)}
        # constructors normalise, which rounds: the very numbers come from here
        denoiser.load_state_dict(dict(tensors))
        _check_normalised(made, tensors)
    return denoiser


def _check_normalised(made: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse numbers of a file that are not, but for rounding, those which the constructor has made of them."""
    for name, own in made.items():
        if name not in tensors:
            continue
        # the exponential of a smaller logarithm has few digits
        found, own = (t.double().clamp_min(SMALLEST_LOG) for t in (tensors[name], own))
        if not torch.allclose(found, own, rtol=1e-5, atol=MOST_NATS, equal_nan=True):
            raise ValueError(f"{name} is not normalised: its probabilities do not add up to one")


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
