"""Old names of parameters, accepted for one release under a FutureWarning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)
REMOVAL = "0.3"  # the release without the old names


def warn_renamed(where: str, old: str, new: str, stacklevel: int = 3) -> None:
    """Warn, by default the caller's caller, that ``old`` is called ``new`` now."""
    warnings.warn(
        f"{where}: {old} is called {new} now; the old name will be removed in release {REMOVAL}",
        FutureWarning,
        stacklevel=stacklevel,
    )


def renamed_value(parameter: str, value: Any, values: Mapping[str, str]) -> Any:
    """The present name of a parameter's value, given a mapping from old to new names; with a FutureWarning if old."""
    if not isinstance(value, str) or value not in values:
        return value
    warn_renamed(parameter, repr(value), repr(values[value]), stacklevel=5)
    return values[value]


def translated(
    arguments: Mapping[str, Any], names: Mapping[str, str], where: str, stacklevel: int
) -> dict[str, Any]:
    """Keyword arguments by their present names.

    Parameters
    ----------
    arguments : mapping
        As the caller passed them. Nested parameters of scikit-learn, like ``density__n_calls``, are none of these: they
        reach the inner estimator's own ``set_params``.
    names : mapping from old name to new name
    where : str
        Whose arguments they are, for messages.
    stacklevel : int
        As of :func:`warnings.warn` called here.

    Raises
    ------
    TypeError
        If an argument is given by both names.

    Warns
    -----
    FutureWarning
        For every old name.
    """
    out: dict[str, Any] = {}
    for given, value in arguments.items():
        name = names.get(given, given)
        if name != given:
            warn_renamed(where, repr(given), repr(name), stacklevel + 1)
        if name in out or (name != given and name in arguments):
            raise TypeError(f"{where}: {given!r} is the old name of {name!r}: give one of them")
        out[name] = value
    return out


def renamed(**names: str) -> Callable[[Function], Function]:
    """Let a function also take keyword arguments by their old names: ``renamed(old="new")``."""
    return lambda function: _accepting(function, names, function.__name__)


def _accepting(function: Function, names: Mapping[str, str], where: str) -> Function:
    """The function with its keyword arguments translated."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not names.keys().isdisjoint(kwargs):
            kwargs = translated(kwargs, names, where, stacklevel=3)
        return function(*args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


def renamed_parameters(**names: str) -> Callable[[Class], Class]:
    """Let an estimator's constructor, ``set_params`` and attributes also go by their old names."""

    def attribute(old: str, new: str) -> property:
        def read(self: Any) -> Any:
            warn_renamed(type(self).__name__, repr(old), repr(new))
            return getattr(self, new)

        def write(self: Any, value: Any) -> None:
            warn_renamed(type(self).__name__, repr(old), repr(new))
            setattr(self, new, value)

        return property(read, write, doc=f"The old name of ``{new}``.")

    def decorate(cls: Class) -> Class:
        for method in ("__init__", "set_params"):
            setattr(cls, method, _accepting(getattr(cls, method), names, cls.__name__))
        for old, new in names.items():
            setattr(cls, old, attribute(old, new))
        return cls

    return decorate
