"""Types of the command line's options: each function parses a text, or raises an error that names it."""

from __future__ import annotations

import argparse
import math
from typing import Any

from discrete_itd.encoders import KINDS, check_column_spec


def column_spec(text: str) -> tuple[str, str | dict[str, Any]]:
    """NAME=KIND as a name and a specification for the estimator's ``column_types``."""
    name, equals, what = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=KIND, got {text!r}")
    kind, colon, option = what.partition(":")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(
            f"column {name!r}: kind must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {kind!r}"
        )
    if not colon:
        return name, kind
    spec: dict[str, Any] = {"kind": kind}
    try:
        if kind == "nominal":
            spec["min_count"] = int(option)
        elif kind == "binned" and "," in option:
            spec["edges"] = [float(edge) for edge in option.split(",")]
        elif kind == "binned":
            spec["bins"] = int(option)
        else:
            raise argparse.ArgumentTypeError(
                f"column {name!r}: {kind} takes no option, got {what!r}"
            )
    except ValueError:
        wanted = "a number, like nominal:10"
        if kind == "binned":
            wanted = "a number of bins or their edges, like binned:16 or binned:0,18,65,120"
        raise argparse.ArgumentTypeError(
            f"column {name!r}: {kind} takes {wanted}, got {what!r}"
        ) from None
    try:
        check_column_spec(name, spec)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, spec


def name_and_value(text: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def positive(text: str) -> float:
    """A positive number or infinity."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def amount(text: str) -> float:
    """A positive, finite number."""
    value = positive(text)
    if math.isinf(value):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def finite(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, exclusive."""
    value = finite(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text!r}")
    return value


def count(text: str) -> int:
    """An integer from 0 to 2^32 - 1."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def at_least_one(text: str) -> int:
    """An integer from 1 to 2^32 - 1."""
    if not count(text):
        raise argparse.ArgumentTypeError("must be at least 1, got '0'")
    return int(text)
