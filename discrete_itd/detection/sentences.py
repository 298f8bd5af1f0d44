"""The lines of :func:`discrete_itd.detection.reasons.reasons` as English sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

LEAST_NATS = 0.05  # fewer are rounded to nothing


def sentence(reason: Mapping[str, Any]) -> str:
    """One line of :func:`discrete_itd.detection.reasons.reasons` as an English sentence, without its full stop.

    Parameters
    ----------
    reason : mapping
        The values of the table's columns in that line: one of ``reasons(...).to_dict("records")``.

    Examples
    --------
    >>> line = {"column": "odor", "value": "foul", "excess_nats": 8.1, "expected": "none", "probability": 0.97}
    >>> line |= {"low": None, "conflict_column": "size", "conflict_value": "broad", "conflict_nats": 2.1}
    >>> sentence(line).split("; ")[0]
    'odor = foul adds 8.1 nats more than in a typical row'
    >>> sentence(line).split("; ")[1]
    'the other cells predict none (probability 0.97)'
    >>> sentence(line).split("; ")[2]
    'it conflicts most with size = broad (2.1 nats)'
    """
    value, excess, predicted = reason["value"], reason["excess_nats"], reason["expected"]
    cell = f"{reason['column']} = {as_written(value)}"
    if _is_missing(value):
        cell = f"the missing cell in {reason['column']}"
    if abs(excess) < LEAST_NATS:
        parts = [f"{cell} adds as many nats as in a typical row"]
    else:
        how = "more" if excess > 0 else "fewer"
        parts = [f"{cell} adds {abs(excess):.1f} nats {how} than in a typical row"]
    if not math.isnan(reason["probability"]):
        likely = f"probability {reason['probability']:.2f}"
        what = as_written(predicted)
        if not _is_missing(reason["low"]) and reason["low"] != reason["high"]:
            low, high = as_written(reason["low"]), as_written(reason["high"])
            likely = f"{low} to {high} with {likely}"
        elif what == as_written(value):
            what = "this value"
        parts.append(f"the other cells predict {what} ({likely})")
    if not _is_missing(reason["conflict_column"]) and reason["conflict_nats"] >= LEAST_NATS:
        other = f"{reason['conflict_column']} = {as_written(reason['conflict_value'])}"
        parts.append(f"it conflicts most with {other} ({reason['conflict_nats']:.1f} nats)")
    return "; ".join(parts)


def as_written(value: Any) -> str:
    """A cell's value as text."""
    if _is_missing(value):
        return "a missing cell"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_missing(value: Any) -> bool:
    return bool(pd.isna(value))
