"""Objects as plain JSON data: the name of their class and what ``config()`` says, and the way back.

An object describes itself if it has a method ``config()``, which returns the arguments of its constructor: plain
values, or objects that describe themselves, alone or in lists. A frozen dataclass needs one line,
``return dict(vars(self))``. A class adds a classmethod ``from_config(config)`` if its constructor does not take these
arguments as they come from JSON, in which a tuple has become a list.

Data hold the bare name of a class. It is looked up among the classes that the caller lists, and nowhere else: nothing
is imported because a file says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

CLASS = "class"  # the key under which data hold the name of a class
MAPPING = "mapping"  # a dictionary, some of whose keys are not strings


@runtime_checkable
class Configurable(Protocol):
    """An object that describes itself."""

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor: plain values, and objects that have a ``config()`` themselves."""
        ...


def plain(value: Any) -> Any:
    """A numpy scalar as Python's own, an array as a list."""
    return value.item() if isinstance(value, np.generic) else value


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
        return {CLASS: MAPPING, "items": [[plain(k), to_config(v)] for k, v in value.items()]}
    if isinstance(value, type) or not isinstance(value, Configurable):
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
        raise ValueError(f"expected an object with the name of its class, got {_short(data)}")
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
        return _mapping(data.get("items"), classes)
    cls, config = named(data, classes)
    config = {key: _made(value, classes) for key, value in config.items()}
    try:
        if hasattr(cls, "from_config"):
            return cls.from_config(config)
        inspect.signature(cls).bind(**config)
        return cls(**config)
    except (
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # what a constructor raises of bad arguments
        raise ValueError(f"{cls.__name__}: {error}") from error


def _mapping(items: Any, classes: Mapping[str, type]) -> dict[Any, Any]:
    if not isinstance(items, list) or not all(
        isinstance(item, list) and len(item) == 2 and not isinstance(item[0], list | dict)
        for item in items
    ):
        raise ValueError(f"expected pairs of a name and a value, got {_short(items)}")
    return {key: _made(value, classes) for key, value in items}


def classes_of(value: Any) -> Iterator[type]:
    """Classes of all objects of which :func:`to_config` makes data, nested ones too."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from classes_of(item)
    elif isinstance(value, Configurable) and not isinstance(value, type):
        yield type(value)
        yield from classes_of(value.config())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
