"""Values of annotated types as JSON data and tensors, and back, by one function each way; and estimators in files.

Stored are None, numbers, text, arrays, tensors, lists, tuples, mappings, and objects whose constructor's arguments are
attributes of the same names: dataclasses, schedules, recipes. A :class:`~discrete_itd.denoisers.Denoiser` is stored as
its ``config()`` and ``state_dict``, an estimator by its own method.

A file may come from anyone. :func:`unflatten` makes only objects of the annotated classes and of those that the caller
lists, and checks every value against the annotation of its field: type, length, finite numbers, dtype and shape of an
array. Whatever is wrong ends in a ValueError that names the field.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import torch
from torch import Tensor

from discrete_itd import channel, denoisers
from discrete_itd.channel import Codebook
from discrete_itd.denoisers import Denoiser
from discrete_itd.devices import resolve_device
from discrete_itd.storage.card import HEADING, code
from discrete_itd.storage.files import (
    CLASS,
    FORMAT,
    AnyPath,
    Stored,
    building,
    check_format,
    read_state,
    write_state,
    write_whole,
)

ANY_FLOAT = "NaN and infinity"  # mark of such an annotation
AnyFloat = Annotated[float, ANY_FLOAT]  # the annotation of a number that need not be finite
PLAIN = frozenset({NoneType, bool, int, float, str})  # JSON's scalar types

SCHEDULES: tuple[type, ...] = (channel.CoordinateSchedule, channel.IsotropicSchedule)
DENOISER_TYPES: tuple[type[Denoiser], ...] = tuple(
    cls
    for cls in map(denoisers.__dict__.get, denoisers.__all__)
    if isinstance(cls, type) and issubclass(cls, Denoiser) and cls is not Denoiser
)


@dataclasses.dataclass(frozen=True)
class Like:
    """Dtype and shape in the annotation of an array; a letter stands for one length within an object.

    For example ``Annotated[np.ndarray, Like("float64", "n", 2)]``. With ``gaps``, entries may be NaN.
    """

    dtype: str
    shape: tuple[str | int, ...]
    gaps: bool

    def __init__(self, dtype: str, *shape: str | int, gaps: bool = False) -> None:
        vars(self).update(dtype=dtype, shape=shape, gaps=gaps)

    def checked(self, array: np.ndarray, sizes: dict[str, int], name: str) -> np.ndarray:
        """The array, if it has this dtype and shape; lengths of new letters are added to ``sizes``."""
        for n, length in zip(self.shape, array.shape, strict=False):
            if isinstance(n, str):
                sizes.setdefault(n, length)
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
    """Arguments of a class's constructor by name, with their annotations; Any where these cannot be read."""
    maker = cls if dataclasses.is_dataclass(cls) else cls.__init__
    try:
        hints = get_type_hints(maker, include_extras=True)
    except NameError:  # a name imported for type checkers only
        if is_own(cls):
            raise
        hints = {}
    return {name: hints.get(name, Any) for name in inspect.signature(cls).parameters}


@functools.cache
def ways_of(kind: Any) -> tuple[Any, ...]:
    """Pairs of functions, to data and back, that an annotation or one of its alternatives holds."""
    if get_origin(kind) is Annotated:
        return tuple(mark for mark in get_args(kind)[1:] if isinstance(mark, tuple))
    if get_origin(kind) in (Union, UnionType):
        return tuple(way for arm in get_args(kind) for way in ways_of(arm))
    return ()


def by_name(classes: Iterable[type]) -> dict[str, type]:
    """Classes by their names; TypeError for something that is no class."""
    out: dict[str, type] = {}
    for cls in classes:
        if not isinstance(cls, type):
            raise TypeError(f"trusted must hold classes, got {cls!r}")
        out[cls.__name__] = cls
    return out


def flatten(value: Any) -> Stored:
    """JSON data and CPU tensors from which :func:`unflatten` makes an equal value.

    TypeError or ValueError that names the value if it, or one in it, cannot be stored, or is not of its annotated type.

    >>> from discrete_itd.channel import CoordinateSchedule
    >>> flatten(CoordinateSchedule(2, (1, 0)))
    ({'class': 'CoordinateSchedule', 'n_steps': 2, 'order': [1, 0]}, {})
    """
    into = ValueWriter()
    return into.write(value, ""), into.tensors


def unflatten(
    kind: Any,
    state: Stored,
    *,
    classes: Iterable[type] = (),
    device: str | None = None,
    try_out: bool = False,
) -> Any:
    """The value that :func:`flatten` wrote.

    It must be of a ``kind``, a type or an annotation; a :class:`Denoiser` is read as an :class:`Unbuilt` one. Objects
    may be of annotated classes, the library's denoisers and schedules, an estimator's recipes, and of further
    ``classes``, which check their arguments themselves; of two with one name the later one is taken. Estimators get the
    ``device``, and are tried out with ``try_out``. ValueError names the field whose data make no sense.
    """
    data, tensors = state
    known = by_name((*SCHEDULES, *DENOISER_TYPES, *getattr(kind, "_stored_classes", ()), *classes))
    source = ValueReader(tensors, known, device=device, try_out=try_out)
    made = source.read(kind, data, "")
    if unknown := tensors.keys() - source.used:
        raise ValueError(f"{min(unknown)} is an unknown tensor")
    return made


@dataclasses.dataclass
class ValueWriter:
    """Turns values into JSON data, and collects their ``tensors`` by name."""

    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)

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
            return self._array(torch.from_numpy(array), name, "array")
        if isinstance(value, Tensor):
            return self._array(value.detach().cpu(), name, "tensor")
        if isinstance(value, tuple):
            if PLAIN.issuperset(map(type, value)):  # fast path for long tuples
                return list(value)
            return [self.write(v, join(name, i)) for i, v in enumerate(value)]
        if isinstance(value, list):
            return {CLASS: "list", "items": self.write(tuple(value), name)}
        if isinstance(value, Mapping):
            if all(isinstance(k, str) and k != CLASS for k in value):
                return {CLASS: "mapping", **self.each(value, name)}
            return {CLASS: "items", "items": self.write(tuple(value.items()), name)}
        return {CLASS: type(value).__name__, **self.fields(value, name)}

    def each(self, values: Mapping[str, Any], name: str) -> dict[str, Any]:
        return {k: self.write(v, join(name, k)) for k, v in values.items()}

    def _array(self, value: Tensor, name: str, label: str) -> dict[str, str]:
        if name in self.tensors:
            raise TypeError(f"two arrays cannot be saved by the name {name}")
        self.tensors[name] = value
        return {CLASS: label}

    def fields(self, value: Any, name: str) -> dict[str, Any]:
        """Data of the arguments of an object's constructor."""
        if hasattr(value, "_stored_fields"):
            return value._stored_fields(name, self)
        if isinstance(value, Denoiser):
            weights = value.state_dict()
            self.tensors |= {join(name, k): v.detach().cpu().clone() for k, v in weights.items()}
            return self.each(value.config(), name)
        out, cls = {}, type(value)
        if isinstance(value, type) or not inspect.isfunction(cls.__init__):
            raise TypeError(f"an object of type {cls.__name__} cannot be saved")
        for field, kind in arguments(cls).items():
            if not hasattr(value, field):
                raise TypeError(
                    f"an object of type {cls.__name__} cannot be saved: it lacks the attribute {field!r}, an argument"
                    " of its constructor"
                )
            item, ways = getattr(value, field), ways_of(kind)
            if ways and item is not None:
                item = ways[0][0](item)
            else:
                item = self.write(item, join(name, field))
                if is_own(cls) and (scalars := scalars_of(kind)):
                    scalar(scalars, item, join(name, field))  # raises what reading it would raise
            out[field] = item
        return out


@dataclasses.dataclass
class ValueReader:
    """Makes values of JSON data and tensors, and records which tensors were ``used``."""

    tensors: Mapping[str, Tensor]
    classes: Mapping[str, type]
    device: str | None = None
    try_out: bool = False
    used: set[str] = dataclasses.field(default_factory=set)

    def read(self, kind: Any, data: Any, name: str, sizes: dict[str, int] | None = None) -> Any:
        """The value of an annotated kind; ``sizes`` are the lengths that letters stand for in its object."""
        origin, args, sizes = get_origin(kind), get_args(kind), {} if sizes is None else sizes
        if scalars := scalars_of(kind):
            return scalar(scalars, data, name)
        if origin is Annotated:
            for mark in args[1:]:
                if isinstance(mark, Like):
                    return mark.checked(self._array(data, name, "array"), sizes, name)
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
        if kind in (np.ndarray, Tensor):
            return self._array(data, name, "tensor" if kind is Tensor else "array")
        if isinstance(kind, type) and kind not in (Any, object, dict):
            return self._object(kind, data, name)
        made = self._any(data, name)  # without annotation: objects check themselves
        if kind is dict and not isinstance(made, dict):
            raise ValueError(f"{name or 'header'} is {data!r:.80}, not a mapping")
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
            if scalars := scalars_of(kinds[0]):  # fast path for long sequences
                return (tuple if is_tuple else list)(scalar(scalars, v, name) for v in data)
            kinds = kinds[:1] * len(data)
        if len(kinds) != len(data):
            raise ValueError(f"{name} has {len(data)} items, not {len(kinds)}")
        pairs = enumerate(zip(kinds, data, strict=True))
        items = [self.read(k, v, join(name, i), sizes) for i, (k, v) in pairs]
        return tuple(items) if is_tuple else items

    def _array(self, data: Any, name: str, label: str) -> Any:
        if data != {CLASS: label} or name not in self.tensors:
            raise ValueError(f"{name} is {data!r:.80}, not an array that is there")
        self.used.add(name)
        with building(name):  # numpy lacks some of torch's types
            return self.tensors[name] if label == "tensor" else self.tensors[name].numpy()

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
            return self._array(data, name, label)
        return self._object(object, data, name)

    def _object(self, kind: type, data: Any, name: str) -> Any:
        where = name or "header"
        if not isinstance(data, dict) or not isinstance(data.get(CLASS), str):
            raise ValueError(
                f"{where}: expected an object with the name of its class, got {data!r:.80}"
            )
        label = data[CLASS]
        named = [c for c in (kind, *kind.__subclasses__()) if c.__name__ == label]
        cls = next((c for c in named if c is kind or is_own(c)), self.classes.get(label))
        if cls is None:
            raise ValueError(
                f"{where}: it needs the class {label[:80]!r}, which is not part of discrete_itd: if you trust its"
                " code, load with trusted=[that class]"
            )
        if kind not in cls.__mro__ and not getattr(kind, "_is_protocol", False):
            raise ValueError(f"{where}: expected a {kind.__name__}, got a {label}")
        fields = {k: v for k, v in data.items() if k != CLASS}
        if hasattr(cls, "_from_stored"):
            return cls._from_stored(fields, name, self)
        if issubclass(cls, Denoiser):
            return self._unbuilt(cls, fields, name)
        # annotated arguments must be complete, and no others
        kinds = arguments(cls) if cls is kind or is_own(cls) else dict.fromkeys(fields, Any)
        if wrong := kinds.keys() ^ fields.keys():
            what = "missing" if min(wrong) in kinds else "unknown"
            raise ValueError(f"{join(name, min(wrong))} is {what}")
        values = self.each(kinds, fields, name)
        with building(name or cls.__name__):
            return getattr(cls, "from_fields", cls)(**values)

    def _unbuilt(self, cls: type[Denoiser], fields: dict[str, Any], name: str) -> Unbuilt:
        values = self.each(dict.fromkeys(fields, Any), fields, name)
        start = join(name, "") if name else ""
        weights = {k.removeprefix(start): t for k, t in self.tensors.items() if k.startswith(start)}
        self.used |= {start + k for k in weights}
        return Unbuilt(cls, values, weights, name)

    def each(
        self, kinds: Mapping[str, Any], fields: Mapping[str, Any], name: str
    ) -> dict[str, Any]:
        """Values of fields by their annotations."""
        sizes: dict[str, int] = {}
        return {k: self.read(kinds[k], v, join(name, k), sizes) for k, v in fields.items()}


@functools.cache
def scalars_of(kind: Any) -> frozenset[Any]:
    """Types of the numbers or texts that an annotation allows; empty if it allows anything else."""
    if kind is Hashable:  # the name of a column
        kind = bool | int | float | str
    if kind == AnyFloat:
        return frozenset({float, ANY_FLOAT})
    if get_origin(kind) in (Union, UnionType):
        arms = [scalars_of(arm) for arm in get_args(kind)]
        return frozenset().union(*arms) if all(arms) else frozenset()
    return PLAIN & {kind}


def scalar(kinds: frozenset[Any], data: Any, name: str) -> Any:
    """The number or text, if it has one of the types, else a ValueError. An integer may stand for a float."""
    if type(data) is int and float in kinds and int not in kinds:
        with building(name):
            data = float(data)
    if type(data) not in kinds:
        raise ValueError(f"{name} is {data!r:.80}, of the wrong type")
    if type(data) is float and not math.isfinite(data) and ANY_FLOAT not in kinds:
        raise ValueError(f"{name} is {data}")
    return data


@dataclasses.dataclass(frozen=True)
class Unbuilt:
    """A stored denoiser, a function that makes it for a codebook of the floating type of its tensors.

    It holds the ``config()``, with unbuilt denoisers in it, the ``state_dict``, and the name of the field.
    """

    made_by: type[Denoiser]
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    name: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of its tensors; ValueError if there are none."""
        for tensor in self.tensors.values():
            if tensor.is_floating_point():
                return tensor.dtype
        raise ValueError(f"{self.name} has no weights")

    def __call__(self, codebook: Codebook) -> Denoiser:
        """The denoiser, equal to the last bit, for use and not for training; ValueError if the tensors do not fit."""
        with building(self.name or self.made_by.__name__):
            denoiser = self.made_by.from_config(self.config, codebook, self.tensors)
            made = {k: buffer.clone() for k, buffer in denoiser.named_buffers(recurse=False)}
            # constructors normalise, which rounds: loading restores the exact numbers
            denoiser.load_state_dict(self.tensors)
            _check_normalised(made, self.tensors)
        return denoiser.eval().requires_grad_(False)


def _check_normalised(made: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """ValueError if the constructor has changed numbers of a file by more than rounding."""
    for name, buffer in made.items():
        if name not in tensors:
            continue
        # below -80, exponentials of logarithms have few digits
        stored, buffer = (t.double().clamp_min(-80.0) for t in (tensors[name], buffer))
        if not torch.allclose(stored, buffer, rtol=1e-5, atol=1e-4, equal_nan=True):
            raise ValueError(f"{name} is not normalised: its probabilities do not add up to one")


# -- estimators in files --------------------------------------------------------------------------


class Persistent:
    """Mixin of scikit-learn estimators: ``save`` and ``load``.

    The constructor's arguments are stored and ``_learned``: a frozen dataclass of ``_learned_type``, which a subclass
    makes from its fitted attributes, and sets these from.
    """

    _learned_type: ClassVar[type]
    _learned: Any
    _stored_classes: ClassVar[tuple[type, ...]] = ()  # allowed classes of parameters
    model_card: Callable[[], str]  # Markdown for users; raises NotFittedError
    __sklearn_is_fitted__: Callable[[], bool]

    def __getstate__(self) -> dict[str, Any]:
        return {**cast(Any, super()).__getstate__(), "_format": FORMAT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_format(state.get("_format", 0))  # one clear error instead of failures later
        cast(Any, super()).__setstate__({k: v for k, v in state.items() if k != "_format"})

    def _checked_parameters(self) -> dict[str, Any]:
        """The constructor's arguments to be stored; ValueError or TypeError if one is invalid."""
        raise NotImplementedError

    def _try_out(self) -> None:
        """Raise an error of any kind if the fitted attributes do not work."""

    def _stored_fields(self, name: str, into: ValueWriter) -> dict[str, Any]:
        parameters = self._checked_parameters()
        for k, v in parameters.items():  # nested estimators are stored unfitted
            if isinstance(v, Persistent):
                parameters[k] = type(v)(**v._checked_parameters())
        fields: dict[str, Any] = {"parameters": into.each(parameters, name)}
        if self.__sklearn_is_fitted__():
            fields["fitted"] = into.write(self._learned, join(name, "fitted"))
        return fields

    @classmethod
    def _from_stored(cls, fields: dict[str, Any], name: str, source: ValueReader) -> Self:
        if not isinstance(fields.get("parameters"), dict):
            raise ValueError(f"{join(name, 'parameters')} is missing")
        items = fields["parameters"].items()
        parameters = {k: source.read(Any, v, join(name, k)) for k, v in items}
        if source.device is not None and "device" in parameters:
            parameters["device"] = source.device
        with building(join(name, "parameters")):
            estimator = cls(**parameters)
            estimator._checked_parameters()
        if "fitted" in fields:
            name = join(name, "fitted")
            learned = source.read(cls._learned_type, fields["fitted"], name)
            with building(name):
                estimator._learned = learned
                if source.try_out:
                    estimator._try_out()
        return estimator

    def save(self, path: str | os.PathLike[str], *, card: bool = True) -> None:
        """Write the fitted estimator to one safetensors file, whole or not at all, and a card beside it.

        One model gives the same bytes each time.

        Parameters
        ----------
        path : path-like
        card : bool
            Whether to write ``model_card()`` to the file of the same name with ``.md`` at its end. ``load`` does not
            need it.

        Raises
        ------
        OSError
            If a file cannot be written, or the card would replace a file that is no card; the card comes last.
        TypeError
            If a part of the model, like a schedule of your own, lacks an argument of its constructor as an attribute.
        """
        text = self.model_card()
        if card:
            check_card(path)
        digest = write_state(path, flatten(self))
        if card:
            name = os.path.basename(os.fspath(path))
            text += f"\nFile: {code(name)}, SHA-256 of its content: `{digest}`\n"
            whole = text.encode(errors="backslashreplace")  # a file name may hold any bytes
            write_whole(card_path(path), lambda part: part.write_bytes(whole))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: str = "auto", trusted: Iterable[type] = ()
    ) -> Self:
        """Read an estimator that :meth:`save` wrote; no code in the file is run.

        Parameters
        ----------
        path : path-like
        device : str
            Where the model is to run.
        trusted : iterable of type
            Classes outside the library that the file may name: denoisers, recipes and schedules of your own. Their code
            runs with data from the file.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, is damaged or of a newer format, holds something else, or needs a class that
            is not trusted.
        """
        return load_one_of(path, (cls,), device=device, trusted=trusted)


def load_one_of(
    path: AnyPath, kinds: Iterable[type], *, device: str = "auto", trusted: Iterable[type] = ()
) -> Any:
    """The estimator in a file, of one of several classes; see :meth:`Persistent.load`."""
    if isinstance(trusted, type):
        raise TypeError(f"trusted must be a list of classes, got the class {trusted.__name__}")
    by_label, trusted = by_name(kinds), tuple(trusted)
    by_name(trusted)
    resolve_device(device)  # raises before the file could be blamed

    state = read_state(path)
    with building(os.fspath(path)):
        label = str(state[0].get(CLASS))
        if label not in by_label:
            raise ValueError(f"the file holds a {label}, not a {' or a '.join(by_label)}")
        made = unflatten(by_label[label], state, classes=trusted, device=device, try_out=True)
        if not made.__sklearn_is_fitted__():
            raise ValueError("fitted is missing")
    return made


def card_path(path: AnyPath) -> str:
    """Path of the card of a model's file: "m.safetensors.md" for "m.safetensors"."""
    return f"{os.fspath(path)}.md"


def check_card(path: AnyPath) -> None:
    """Raise an OSError if the card of a model's file cannot be written, or another file has its name."""
    card = card_path(path)
    write_whole(card, None)
    if os.path.exists(card):
        with open(card, "rb") as file:
            is_card = file.read(len(HEADING)) == HEADING.encode()
        if not is_card:
            raise FileExistsError(errno.EEXIST, "is no card of a model, and not replaced", card)
