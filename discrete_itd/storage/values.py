"""Values of annotated types from JSON data and arrays; without torch.

:class:`ValueWriter` writes and :class:`ValueReader` reads them; :mod:`discrete_itd.storage.stored` adds tensors,
denoisers and estimators.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from discrete_itd.storage.files import CLASS, TIMED, building

ANY_FLOAT = "NaN and infinity"
AnyFloat = Annotated[float, ANY_FLOAT]  # the annotation of a number that need not be finite
PLAIN = frozenset({NoneType, bool, int, float, str})  # types of JSON


@dataclasses.dataclass(frozen=True)
class Like:
    """In the annotation of an array: its dtype and shape, of lengths or letters that stand for one length in an object.

    As in ``Annotated[np.ndarray, Like("float64", "n", 2)]``. With ``gaps`` it may be NaN.
    """

    dtype: str
    shape: tuple[str | int, ...]
    gaps: bool

    def __init__(self, dtype: str, *shape: str | int, gaps: bool = False) -> None:
        vars(self).update(dtype=dtype, shape=shape, gaps=gaps)

    def checked(self, array: np.ndarray, sizes: dict[str, int], name: str) -> np.ndarray:
        """The array, if it is like this; ``sizes`` of letters that are met for the first time are added."""
        for n, own in zip(self.shape, array.shape, strict=False):
            if isinstance(n, str):
                sizes.setdefault(n, own)
        wanted = [sizes.get(n) if isinstance(n, str) else n for n in self.shape]
        stored = "uint8" if self.dtype == "bool" else self.dtype
        if list(array.shape) != wanted or array.dtype != stored:
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
        if not (np.isfinite(array) | (np.isnan(array) & self.gaps)).all():
            raise ValueError(f"{name} is not finite")
        return array.astype(self.dtype)


def join(name: str, part: object) -> str:
    """The name of a part of a named value."""
    return f"{name}.{part}" if name else str(part)


def is_own(cls: type) -> bool:
    """Whether a class is the library's, so that its annotations describe its arguments."""
    return cls.__module__.startswith("discrete_itd.")


@functools.cache
def arguments(cls: type) -> dict[str, Any]:
    """The arguments of a class's constructor by name, with their annotations; those of others may be anything."""
    maker = cls if dataclasses.is_dataclass(cls) else cls.__init__
    try:
        hints = get_type_hints(maker, include_extras=True)
    except NameError:  # imported for type checkers only
        if is_own(cls):
            raise
        hints = {}
    return {name: hints.get(name, Any) for name in inspect.signature(cls).parameters}


@functools.cache
def marks_of(kind: Any) -> tuple[Any, ...]:
    """Metadata of an annotation, or of one of its alternatives."""
    if get_origin(kind) is Annotated:
        return (*get_args(kind)[1:], *marks_of(get_args(kind)[0]))
    if get_origin(kind) in (Union, UnionType):
        return tuple(mark for arm in get_args(kind) for mark in marks_of(arm))
    return ()


def by_name(classes: Iterable[type]) -> dict[str, type]:
    """Classes by their names; TypeError for something that is no class."""
    out: dict[str, type] = {}
    for cls in classes:
        if not isinstance(cls, type):
            raise TypeError(f"trusted must hold classes, got {cls!r}")
        out[cls.__name__] = cls
    return out


@dataclasses.dataclass
class ValueWriter:
    """The tensors of what is written, and the classes of objects that are not the library's."""

    tensors: dict[str, Any] = dataclasses.field(default_factory=dict)
    foreign: dict[type, None] = dataclasses.field(default_factory=dict)

    def write(self, value: Any, name: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.random.RandomState):
            return None
        if isinstance(value, range):
            value = list(value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            value = value.tolist()
        if isinstance(value, np.ndarray):
            array = np.array(value, "u1" if value.dtype == bool else value.dtype, order="C")
            return self.array(array, name, "array")
        if isinstance(value, tuple):
            if PLAIN.issuperset(map(type, value)):  # perhaps very many
                return list(value)
            return [self.write(v, join(name, i)) for i, v in enumerate(value)]
        if isinstance(value, list):
            return {CLASS: "list", "items": self.write(tuple(value), name)}
        if isinstance(value, Mapping):
            if all(isinstance(k, str) and k[:1] != TIMED and k != CLASS for k in value):
                return {CLASS: "mapping", **self.each(value, name)}
            return {CLASS: "items", "items": self.write(tuple(value.items()), name)}
        cls, fields = type(value), self.fields(value, name)
        if not is_own(cls):
            self.foreign[cls] = None
        return {CLASS: cls.__name__, **fields}

    def each(self, values: Mapping[str, Any], name: str) -> dict[str, Any]:
        return {k: self.write(v, join(name, k)) for k, v in values.items()}

    def array(self, value: Any, name: str, label: str) -> dict[str, str]:
        if name in self.tensors:
            raise TypeError(f"two arrays cannot be saved by the name {name}")
        self.tensors[name] = value
        return {CLASS: label}

    def fields(self, value: Any, name: str) -> dict[str, Any]:
        """The arguments of an object's constructor, as data."""
        out, cls = {}, type(value)
        if isinstance(value, type) or not inspect.isfunction(cls.__init__):
            raise TypeError(f"an object of type {cls.__name__} cannot be saved")
        for field, kind in arguments(cls).items():
            if not hasattr(value, field):
                raise TypeError(
                    f"an object of type {cls.__name__} cannot be saved: it lacks the attribute {field!r}, an argument"
                    " of its constructor"
                )
            own, marks = getattr(value, field), marks_of(kind)
            ways = [mark for mark in marks if isinstance(mark, tuple)]
            if ways and own is not None:
                own = ways[0][0](own)
            else:
                own = self.write(own, join(name, field))
                if is_own(cls) and (scalars := scalars_of(kind)):
                    scalar(scalars, own, join(name, field))  # or the file would not be read
            out[TIMED * (TIMED in marks) + field] = own
        return out


@dataclasses.dataclass
class ValueReader:
    """Makes values of JSON data and tensors, and notes which tensors were used."""

    tensors: Mapping[str, Any]
    classes: Mapping[str, type] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)

    def read(self, kind: Any, data: Any, name: str, sizes: dict[str, int] | None = None) -> Any:
        """The value of an annotated kind; ``sizes`` are the lengths that letters stand for in its object."""
        origin, args, sizes = get_origin(kind), get_args(kind), {} if sizes is None else sizes
        if scalars := scalars_of(kind):
            return scalar(scalars, data, name)
        if origin is Annotated:
            for mark in args[1:]:
                if isinstance(mark, Like):
                    return mark.checked(self.array(data, name), sizes, name)
                if isinstance(mark, tuple):
                    with building(name):
                        return mark[1](data)
            return self.read(args[0], data, name, sizes)
        if origin in (Union, UnionType):
            return self._either(args, data, name, sizes)
        if origin is Literal:
            if not any(type(data) is type(arg) and data == arg for arg in args):
                raise ValueError(f"{name} is {data!r:.80}, not one of {args}")
            return data
        if kind is tuple or origin in (tuple, list, Sequence):
            return self._sequence(kind, data, name, sizes)
        if kind is np.ndarray:
            return self.array(data, name)
        if isinstance(kind, type) and kind not in (Any, object, dict):
            return self._object(kind, data, name)
        made = self._any(data, name)  # an object checks what no annotation says
        if kind is dict and not isinstance(made, dict):
            raise ValueError(f"{name or 'header'} is {data!r:.80}, not a mapping")
        return made

    def all(self, kind: Any, data: Any) -> Any:
        """The value of an annotated kind that is all that was written; ValueError if tensors are left."""
        made = self.read(kind, data, "")
        if unknown := self.tensors.keys() - self.used:
            raise ValueError(f"{min(unknown)} is an unknown tensor")
        return made

    def _either(self, kinds: Sequence[Any], data: Any, name: str, sizes: dict[str, int]) -> Any:
        if data is None and NoneType in kinds:
            return None
        label = data.get(CLASS) if isinstance(data, dict) else ""
        kinds = [k for k in kinds if k is not NoneType]
        kinds = [k for k in kinds if getattr(k, "__name__", "") == label] or kinds
        for kind in kinds[:-1]:
            with suppress(ValueError):
                return self.read(kind, data, name, sizes)
        return self.read(kinds[-1], data, name, sizes)

    def _sequence(self, kind: Any, data: Any, name: str, sizes: dict[str, int]) -> Any:
        is_tuple, kinds = tuple in (kind, get_origin(kind)), get_args(kind) or (Any, Ellipsis)
        if isinstance(data, dict) and data.get(CLASS) == "list":
            data = data.get("items")
        if not isinstance(data, list):
            raise ValueError(f"{name} is {data!r:.80}, not a sequence")
        if not is_tuple or kinds[-1] is Ellipsis:
            if scalars := scalars_of(kinds[0]):  # perhaps very many
                return (tuple if is_tuple else list)(scalar(scalars, v, name) for v in data)
            kinds = kinds[:1] * len(data)
        if len(kinds) != len(data):
            raise ValueError(f"{name} has {len(data)} items, not {len(kinds)}")
        pairs = enumerate(zip(kinds, data, strict=True))
        items = [self.read(own, v, join(name, i), sizes) for i, (own, v) in pairs]
        return tuple(items) if is_tuple else items

    def array(self, data: Any, name: str, label: str = "array") -> Any:
        if data != {CLASS: label} or name not in self.tensors:
            raise ValueError(f"{name} is {data!r:.80}, not an array that is there")
        self.used.add(name)
        with building(name):  # numpy does not have all types
            return self.loaded(self.tensors[name], label)

    def loaded(self, stored: Any, label: str) -> Any:
        """The array or the tensor that a file holds under the label "array" or "tensor"."""
        return stored

    def _any(self, data: Any, name: str) -> Any:
        if isinstance(data, list):
            return tuple(self._any(v, join(name, i)) for i, v in enumerate(data))
        if not isinstance(data, dict):
            return data
        label = data.get(CLASS)
        if label == "mapping":
            return {k: self._any(v, join(name, k)) for k, v in data.items() if k != CLASS}
        if label in ("list", "items"):
            with building(name):
                return (list if label == "list" else dict)(self._any(data.get("items"), name))
        if label in ("array", "tensor"):
            return self.array(data, name, label)
        return self._object(object, data, name)

    def _object(self, kind: type, data: Any, name: str) -> Any:
        where = name or "header"
        if not isinstance(data, dict) or not isinstance(data.get(CLASS), str):
            raise ValueError(
                f"{where}: expected an object with the name of its class, got {data!r:.80}"
            )
        label = data[CLASS]
        cls = kind if label == kind.__name__ else self.classes.get(label)
        if cls is None:
            raise ValueError(
                f"{where}: it needs the class {label[:80]!r}, which is not part of discrete_itd: if you trust its"
                " code, load with trusted=[that class]"
            )
        if kind not in cls.__mro__ and not getattr(kind, "_is_protocol", False):
            raise ValueError(f"{where}: expected a {kind.__name__}, got a {label}")
        fields = {k.removeprefix(TIMED): v for k, v in data.items() if k != CLASS}
        return self.made(cls, fields, name, has_arguments=cls is kind or is_own(cls))

    def made(self, cls: type, fields: dict[str, Any], name: str, *, has_arguments: bool) -> Any:
        """An object of a class from its stored fields: with ``has_arguments``, exactly those that are annotated."""
        kinds = arguments(cls) if has_arguments else dict.fromkeys(fields, Any)
        if wrong := kinds.keys() ^ fields.keys():
            what = "missing" if min(wrong) in kinds else "unknown"
            raise ValueError(f"{join(name, min(wrong))} is {what}")
        values = self.each(kinds, fields, name)
        with building(name or cls.__name__):
            return getattr(cls, "from_fields", cls)(**values)

    def each(
        self, kinds: Mapping[str, Any], fields: Mapping[str, Any], name: str
    ) -> dict[str, Any]:
        """Values of fields by their annotations."""
        sizes: dict[str, int] = {}
        return {k: self.read(kinds[k], v, join(name, k), sizes) for k, v in fields.items()}


@functools.cache
def scalars_of(kind: Any) -> frozenset[Any]:
    """The types of which a number or text of this kind may be; empty if it is no kind of these."""
    if kind is Hashable:  # the name of a column
        kind = bool | int | float | str
    if kind == AnyFloat:
        return frozenset({float, ANY_FLOAT})
    if get_origin(kind) in (Union, UnionType):
        arms = [scalars_of(arm) for arm in get_args(kind)]
        return frozenset().union(*arms) if all(arms) else frozenset()
    return PLAIN & {kind}


def scalar(kinds: frozenset[Any], data: Any, name: str) -> Any:
    """A number or text of one of these types; ValueError if it is none. An integer may stand for a float."""
    if type(data) is int and float in kinds and int not in kinds:
        with building(name):
            data = float(data)
    if type(data) not in kinds:
        raise ValueError(f"{name} is {data!r:.80}, of the wrong type")
    if type(data) is float and not math.isfinite(data) and ANY_FLOAT not in kinds:
        raise ValueError(f"{name} is {data}")
    return data
