"""Run checks of named properties."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any


def checked(
    name: str,
    properties: Mapping[str, Callable[[Any], None]],
    subject: Any,
    wanted: Collection[str] | None = None,
) -> list[str]:
    """Names of the properties of ``subject`` that hold; AssertionError naming the first that does not.

    Each function of ``properties`` raises an error if ``subject`` lacks the property that its docstring states;
    ``name`` is that of the subject in messages. ``wanted`` are the properties to check, by default all; ValueError for
    an unknown one.
    """
    for unknown in sorted(set(wanted or ()) - set(properties)):
        raise ValueError(f"properties must be of {list(properties)}, got {unknown!r}")
    names = [n for n in properties if wanted is None or n in wanted]
    for n in names:
        try:
            properties[n](subject)
        except Exception as error:
            stated = (properties[n].__doc__ or "").strip()
            raise AssertionError(
                f"{name} lacks the property {n!r}. {stated} Found: {type(error).__name__}: {error}"
            ) from error
    return names
