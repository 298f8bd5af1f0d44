"""Inputs of the commands: models from files, and tables in the types that a model was fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import TypeVar

import pandas as pd

from discrete_itd.cli.tables import UserError, as_fitted, read_table
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.storage.persistent import load_one_of

MODELS = DiffusionDensity, DiffusionOutlierDetector

Result = TypeVar("Result")


# -- models ---------------------------------------------------------------------------------------


def load_model(path: str, device: str) -> DiffusionDensity | DiffusionOutlierDetector:
    """The density or the detector in a file.

    Raises
    ------
    OSError, ValueError
        See the ``load`` methods.
    """
    return load_one_of(path, MODELS, device=device)


def density_of(model: DiffusionDensity | DiffusionOutlierDetector) -> DiffusionDensity:
    """The model itself, or the density of a detector."""
    return model if isinstance(model, DiffusionDensity) else model.density_


def load_density(path: str, device: str) -> DiffusionDensity:
    """The density in a file, or that of the detector in the file."""
    return density_of(load_model(path, device))


# -- tables ---------------------------------------------------------------------------------------


def read_all_for(model: DiffusionDensity, path: str) -> pd.DataFrame:
    """The table of :func:`read_for`, with a warning if columns are ignored."""
    frame, extra = read_for(model, path)
    if extra:
        n = len(extra)
        warnings.warn(
            f"{path}: ignoring {n} of {n + frame.shape[1]} columns: {', '.join(extra)}",
            stacklevel=2,
        )
    return frame


def read_for(model: DiffusionDensity, path: str) -> tuple[pd.DataFrame, list[str]]:
    """The columns of the model, in its order and types, and the names of the table's other columns."""
    schema = model.encoder_.schema
    timed = (c for c in schema if not c.categories and c.family != "number")
    text = [str(c.name) for c in (*timed, *(c for c in schema if c.is_text))]
    frame = read_table(path, text)
    place = {str(name): i for i, name in enumerate(frame.columns)}
    absent = [str(c.name) for c in schema if str(c.name) not in place]
    if absent:
        many = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise UserError(
            f"{path}: column {absent[0]!r}{many}: used by the model, but missing from the table"
        )
    cells = {
        c.name: about(path, lambda c=c: as_fitted(frame.iloc[:, place[str(c.name)]], c))
        for c in schema
    }
    known = {str(c.name) for c in schema}
    return pd.DataFrame(cells), [n for n in place if n not in known]


def given_row(model: DiffusionDensity, given: dict[str, str]) -> pd.DataFrame:
    """The values of ``--given`` in the fitted types, as a frame of one row."""
    schema = {str(c.name): c for c in model.encoder_.schema}
    check_given(given, schema)
    row = {}
    for name, text in given.items():
        column = schema[name]
        cell = as_fitted(pd.Series([text], dtype=str), column)
        value = cell.iloc[0]
        if pd.isna(value):
            raise UserError(f"column {name!r}: {text!r} in --given is a missing value")
        if isinstance(value, str) and column.categories and not column.is_text:
            raise UserError(
                f"column {name!r}: expected a value like {column.categories[0]!r}, got {text!r}"
            )
        if column.categories and value not in column.categories:
            warnings.warn(f"column {name!r}: {text!r} was never seen in training", stacklevel=2)
        row[column.name] = cell
    return pd.DataFrame(row)


def check_given(given: Collection[str], names: Collection[str]) -> None:
    """Raise a UserError if the model has no column of a name in ``--given``."""
    for name in given:
        if name not in names:
            raise UserError(f"column {name!r}: named in --given, but the model has no such column")


def about(path: str, call: Callable[[], Result]) -> Result:
    """The result of ``call``; an error about a column is reported with the table's path."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: {error}" if str(error).startswith("column ") else str(error)
        ) from error
