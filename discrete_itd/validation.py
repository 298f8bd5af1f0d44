"""Checks of parameters and arguments, in scikit-learn's wording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from discrete_itd.encoders import KINDS, check_column_spec
from discrete_itd.recipes import recipe

PATHS = ("auto", "coordinate", "isotropic")
MISSING = ("marginalise", "category")
UNKNOWN = ("smooth", "error")
MOST_ROWS = 1e9  # after rows are repeated by their weights


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise a ValueError or TypeError that names the invalid one of an estimator's parameters."""
    recipe(parameters["denoiser"])
    for name, least in (("max_steps", 0), ("n_evaluations", 2)):
        check_integer(name, parameters[name], least)
    for name in ("max_time", "validation_fraction"):
        value = parameters[name]
        if value is None and name != "validation_fraction":
            continue
        check_positive(name, value)
    if not parameters["validation_fraction"] < 1:
        raise ValueError(
            f"validation_fraction must be between 0 and 1, got {parameters['validation_fraction']!r}"
        )
    columns, path = parameters["column_types"], parameters["schedule"]
    if not isinstance(columns, Mapping | str | None):
        raise TypeError(f"column_types must be a mapping or one kind, got {columns!r}")
    if isinstance(columns, str) and columns not in KINDS:
        raise ValueError(f"column_types must be one of {KINDS} or a mapping, got {columns!r}")
    if isinstance(columns, Mapping):
        for name, spec in columns.items():
            check_column_spec(name, spec)
    for name, allowed in (("missing", MISSING), ("handle_unknown", UNKNOWN)):
        if parameters[name] not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {parameters[name]!r}")
    if isinstance(path, str) and path not in PATHS:
        raise ValueError(f"schedule must be one of {PATHS} or a schedule, got {path!r}")
    if not isinstance(path, str) and not callable(getattr(path, "snr", None)):
        raise TypeError(f"schedule must be one of {PATHS} or a schedule, got {path!r}")


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise a TypeError or ValueError if a value is no integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_positive(name: str, value: Any) -> None:
    """Raise a TypeError or ValueError if a value is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")


def check_share(name: str, value: Any) -> float:
    """Return a share, strictly between 0 and 1; TypeError or ValueError if it is none."""
    check_positive(name, value)
    if not value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return float(value)


def check_tolerance(max_stderr: float | None) -> float | None:
    """Return a bound on standard errors, if it is one; TypeError or ValueError if not."""
    if max_stderr is not None:
        check_positive("max_stderr", max_stderr)
    return max_stderr


def check_weights(sample_weight: Any, n_rows: int) -> np.ndarray | None:
    """How often each row occurs, as int64 of shape (N,); None if that is once each.

    Raises
    ------
    ValueError
        If weights are not whole, negative, too few or too many, or all zero.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=float)
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got shape {weights.shape}")
    if len(weights) != n_rows:
        raise ValueError(
            f"sample_weight.shape == {weights.shape}, expected {(n_rows,)}: one for every row"
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0) & (weights == np.round(weights)))
    if wrong.any():
        raise ValueError(
            "sample_weight must be whole numbers, how often each row occurs;"
            f" got {weights[wrong][0]!r} in row {int(np.flatnonzero(wrong)[0])}"
        )
    if weights.sum() > MOST_ROWS:
        raise ValueError(
            f"sample_weight adds up to {weights.sum():.3g} rows, more than {MOST_ROWS:.0e}"
        )
    if weights.sum() < 2:
        raise ValueError("sample_weight must leave at least two rows: almost all weights are zero")
    return weights.astype(np.int64)
