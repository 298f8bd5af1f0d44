"""Values of a table as people write them: grouped digits, the decimals of their column, dates as dates."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd.encoders.cells import decimals_of, plain
from discrete_itd.encoders.column import Column
from discrete_itd.encoders.notation import Notation, formatted

SIGNIFICANT = 6  # digits of numbers that have more than a person writes
LONGEST = 12  # digits of numbers that are never rounded, as a person or a till wrote them
LARGE, SMALL = 1e15, 1e-4  # beyond them a power of ten is easier to read than zeros
DAY, MINUTE, SECOND = 86_400 * 10**9, 60 * 10**9, 10**9  # nanoseconds


def written(value: Any, column: Column | None = None) -> str:
    """A value as text, for people.

    Parameters
    ----------
    value : scalar
        A cell of the table as the user has it, or as :meth:`Column.decode` gives it back.
    column : Column, optional
        The column that it is of. Its numbers get as many decimals as they had in training, more only where the value
        itself has more; its times are as fine as they were. What was text in training is written as most of it was,
        with its unit and its marks: "28.2.1999" becomes "28.02.1999" in a column of such dates. Other numbers of five
        digits and more before the decimal mark are grouped by spaces. Categories stay as they are: digits of a nominal
        column are not grouped, as they may be a postal code.

    Returns
    -------
    str
        "a missing cell" for a missing value.

    Examples
    --------
    >>> written(2361000.0), written(0.25), written(1999), written(None)
    ('2 361 000', '0.25', '1999', 'a missing cell')
    >>> written(pd.Timestamp("2024-01-31"))
    '2024-01-31'
    """
    value = plain(value)
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "a missing cell"
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    is_text = isinstance(value, str | bool)
    if column is not None and column.notation is not None and not is_text:
        return str(_unrounded(column.notation, value).write(pd.Series([value])).iloc[0])
    step = 1 if column is None or column.family == "number" else column.step
    if isinstance(value, pd.Timestamp):
        return _time(value, step)
    if isinstance(value, pd.Timedelta | np.timedelta64):
        return str(pd.Timedelta(value)).removesuffix(" 00:00:00")
    if is_text or not isinstance(value, int | float):
        return str(value)
    is_name = column is not None and column.kind == "nominal"
    return number(value, _decimals(column), grouped=not is_name)


def number(value: float, decimals: int | None = 0, *, grouped: bool = True) -> str:
    """A number as text.

    Parameters
    ----------
    value : float
    decimals : int, optional
        At least as many, if the number has at most six, or twelve digits in all; more where it has more. Longer ones,
        which were computed, are rounded to six significant digits.
    grouped : bool
        Whether digits stand in groups of three, from five digits before the decimal mark on.

    Examples
    --------
    >>> number(25.0, 2), number(0.123456789, None), number(10667, grouped=False), number(3e20)
    ('25.00', '0.123456789', '10667', '3e+20')
    >>> number(1 / 3), number(10**400)
    ('0.333333', '1e+400')
    """
    try:
        if not math.isfinite(value):
            return str(value)
    except OverflowError:  # an integer that no float holds
        return f"{Decimal(value).normalize():.{SIGNIFICANT}g}"
    if isinstance(value, float) and not SMALL <= abs(value) < LARGE and value:
        digits = len(Decimal(repr(float(value))).normalize().as_tuple().digits)
        return f"{value:.{digits if digits <= LONGEST else SIGNIFICANT}g}"
    own = _own_decimals(value)
    decimals = None if own is None else max(decimals or 0, own)
    if decimals is None:
        before = math.floor(math.log10(abs(value))) + 1 if value else 1  # digits before the mark
        text = f"{value:.{max(0, SIGNIFICANT - before)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = str(value) if isinstance(value, int) and not decimals else f"{value:.{decimals}f}"
    whole, mark, fraction = text.partition(".")
    if grouped and len(whole.lstrip("-")) > 4:
        whole = f"{int(whole):,}".replace(",", " ")
    return f"{whole}{mark}{fraction}"


def _own_decimals(value: float) -> int | None:
    """The decimals that a number has; None if it has more than it can have been written with."""
    own = decimals_of(np.array([value], dtype=float), np.dtype(float))
    if own is None:
        parts = Decimal(repr(float(value))).normalize().as_tuple()
        own = -int(parts.exponent) if len(parts.digits) <= LONGEST else None
    return own


def _unrounded(notation: Notation, value: Any) -> Notation:
    """The notation with as many places as a value has, if these are more."""
    if notation.family != "number" or not math.isfinite(value):
        return notation
    own = _own_decimals(value)
    if own is None or own <= (notation.places or 0):
        return notation
    return replace(notation, places=own)


def _decimals(column: Column | None) -> int | None:
    """The decimals that numbers of a column are written with."""
    if column is None or not column.categories:
        codec = getattr(column, "codec", None)
        return 0 if column is None or getattr(codec, "whole", False) else column.decimals
    numbers = [c for c in column.categories if isinstance(c, int | float)]
    return decimals_of(np.array(numbers, dtype=float), np.dtype(float)) if numbers else 0


def _time(value: pd.Timestamp, step: int) -> str:
    """A time, as fine as a column whose times lie on a grid of ``step`` nanoseconds, or as the time itself is."""
    at_midnight = value == value.normalize()
    if at_midnight and (step == 1 or step >= DAY):
        return f"{value.date()}"
    zone = value.strftime("%z")
    zone = f"{zone[:3]}:{zone[3:]}" if zone else ""
    finer = [f for f in (MINUTE, SECOND) if step % f == 0 and value.floor(f"{f}ns") == value]
    form = {MINUTE: "%Y-%m-%d %H:%M", SECOND: "%Y-%m-%d %H:%M:%S"}
    if finer:
        return formatted(value, form[finer[0]]) + zone
    return str(value)
