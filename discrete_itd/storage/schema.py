"""Checks of what a file holds: a header's fields by name and type, tensors by name and shape.

A file may come from anyone. Whatever is wrong with one ends in a ValueError that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Kind = type | tuple[type, ...]


def check_fields(data: Any, fields: Mapping[str, Kind], where: str = "header") -> None:
    """Refuse data that lack a field, or have one of the wrong type.

    Parameters
    ----------
    data : JSON data
    fields : mapping from name to type or types
        ``float`` admits integers too, but neither NaN nor infinity.
    where : str
        What the data are, for the message.

    Raises
    ------
    ValueError
        Naming the field.

    Examples
    --------
    >>> check_fields({"seed": 3}, {"seed": int})
    >>> check_fields({"seed": True}, {"seed": int})
    Traceback (most recent call last):
        ...
    ValueError: header: seed is True, of the wrong type
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: expected an object, got {data!r:.80}")
    for name, kind in fields.items():
        if name not in data:
            raise ValueError(f"{where}: {name} is missing")
        value, kinds = data[name], kind if isinstance(kind, tuple) else (kind,)
        admitted = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, admitted) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{where}: {name} is {value!r:.80}, of the wrong type")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where}: {name} is {value}")


def check_table(data: Any, where: str) -> dict[str, list[Any]]:
    """The columns of a table, lists of one length; ValueError if they are not."""
    if not isinstance(data, Mapping) or not all(isinstance(v, list) for v in data.values()):
        raise ValueError(f"header: {where} is no mapping of lists")
    if len({len(column) for column in data.values()}) > 1:
        raise ValueError(f"header: the columns of {where} differ in length")
    return dict(data)


def check_tensor(
    tensors: Mapping[str, Tensor], name: str, *shape: int | None, gaps: bool = False
) -> Tensor:
    """One of the tensors; ValueError if it is missing, not finite, or of another shape (None: any length) or type.

    With ``gaps`` it may be NaN.
    """
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    tensor = tensors[name]
    wanted = [own if n is None else n for n, own in zip(shape, tensor.shape, strict=False)]
    if len(shape) != tensor.ndim or wanted != list(tensor.shape):
        raise ValueError(f"the tensor {name} has the shape {tuple(tensor.shape)}")
    if tensor.dtype == torch.bfloat16:  # which numpy does not have
        raise ValueError(f"the tensor {name} is of type {tensor.dtype}")
    if not bool((tensor.isfinite() | (tensor.isnan() & gaps)).all()):
        raise ValueError(f"the tensor {name} is not finite")
    return tensor


@contextmanager
def building(field: str) -> Iterator[None]:
    """Name the field in a ValueError if its data cannot be made into an object.

    Constructors check their arguments for mistakes of a programmer. Data from a file may be anything, so whatever a
    constructor raises, also one of a trusted class, means that the field is damaged.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    except Exception as error:
        raise ValueError(f"{field} is damaged ({error!r})") from error
