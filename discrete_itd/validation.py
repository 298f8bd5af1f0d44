"""Checks of parameters and arguments, in scikit-learn's wording."""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

_in_shell: ContextVar[bool] = ContextVar("in_shell", default=False)
_shown: set[tuple[str, int, type[Warning], str]] = set()  # warnings, by the caller's lines
PACKAGE = f"{Path(__file__).parent}{os.sep}"


def check_integer(name: str, value: Any, least: int, most: float = math.inf) -> None:
    """Raise a TypeError or ValueError if a value is no integer from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not least <= value <= most:
        wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be {wanted}, got {value}")


def check_positive(name: str, value: Any) -> None:
    """Raise a TypeError or ValueError if a value is no positive number."""
    _check_number(name, value)
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")


def check_real(name: str, value: Any) -> None:
    """Raise a TypeError or ValueError if a value is no finite number."""
    _check_number(name, value)
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Raise a ValueError if a value is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def check_share(name: str, value: Any) -> float:
    """Return a share, strictly between 0 and 1; TypeError or ValueError if it is none."""
    check_positive(name, value)
    if not value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return float(value)


def seed_of(random_state: Any) -> int:
    """A seed drawn from a ``random_state``, as scikit-learn has them; ValueError if it is invalid."""
    if random_state is None or random_state is np.random:
        return int(np.random.randint(2**31 - 1))  # of the global state, set by np.random.seed
    if isinstance(random_state, int | np.integer) and 0 <= random_state < 2**32:
        random_state = np.random.RandomState(random_state)
    if not isinstance(random_state, np.random.RandomState):
        raise ValueError(
            "random_state must be an integer from 0 to 2**32 - 1, a RandomState or None,"
            f" got {random_state!r}"
        )
    return int(random_state.randint(2**31 - 1))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the caller's code that led into this package, however deep the cause lies.

    Where Python's filters show a warning once for each line, so does this, whatever happens in between: other libraries
    change the filters for a moment, whereupon Python forgets what it has shown.
    """
    frames, frame = [], inspect.currentframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    outermost = max(i for i, f in enumerate(frames) if f.f_code.co_filename.startswith(PACKAGE))
    level = min(outermost + 1, len(frames) - 1)
    caller = frames[level]
    where = caller.f_code.co_filename, caller.f_lineno, category, message
    if where in _shown and _is_shown_once(caller, message, category):
        return
    _shown.add(where)
    warnings.warn(message, category, stacklevel=level + 1)


_topics: ContextVar[dict[str, dict[Hashable, str]] | None] = ContextVar("topics", default=None)
NAMED = 5  # most columns that a warning names


def warn_of_column(name: Hashable, message: str, topic: str) -> None:
    """Warn about a column; within :func:`by_topic` once a topic, at its end."""
    topics = _topics.get()
    if topics is None:
        warn(f"column {name!r}: {message}")
    else:
        topics.setdefault(topic, {})[name] = message


@contextmanager
def by_topic() -> Iterator[None]:
    """Within the block, warnings about columns are gathered: one for each topic, however many columns it has."""
    topics: dict[str, dict[Hashable, str]] = {}
    token = _topics.set(topics)
    try:
        yield
    finally:
        _topics.reset(token)
    for found in topics.values():
        (name, message), *others = found.items()
        named = [repr(other) for other, _ in others]
        if len(named) > NAMED:
            named[NAMED:] = [f"{len(named) - NAMED} others"]
        likewise = f"; likewise {', '.join(named)}" if named else ""
        warn(f"column {name!r}: {message}{likewise}")


def _is_shown_once(caller: FrameType, message: str, category: type[Warning]) -> bool:
    """Whether the filters show a warning once for each line of the calling code."""
    module, line = caller.f_globals.get("__name__", ""), caller.f_lineno
    for action, text, kind, home, at in warnings.filters:
        matches = issubclass(category, kind) and at in (0, line)
        for pattern, value in ((text, message), (home, module)):
            if isinstance(pattern, str):
                matches = matches and pattern == value
            elif pattern is not None:
                matches = matches and pattern.match(value) is not None
        if matches:
            return action == "default"
    return True


@contextmanager
def from_shell() -> Iterator[None]:
    """Within the block, messages name options of the shell."""
    token = _in_shell.set(True)
    try:
        yield
    finally:
        _in_shell.reset(token)


def advice(python: str, shell: str) -> str:
    """The words for a caller from Python, or for one from the shell."""
    return shell if _in_shell.get() else python
