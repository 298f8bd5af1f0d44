"""Values as JSON data and tensors and back, by one function each way; and estimators that are saved by them.

Stored are None, numbers, text, arrays, tensors, lists, tuples, mappings, and objects whose constructor's arguments are
attributes of the same names: dataclasses, schedules, recipes, estimators. What an estimator has learned is one of these
objects. A :class:`~discrete_itd.denoisers.Denoiser` is what ``config()`` returns and its ``state_dict``.

A file may come from anyone. :func:`unflatten` makes only objects of the annotated classes and of those that the caller
lists, and checks every value against the annotation of its field: type, length, finite numbers, dtype and shape of an
array. Whatever is wrong ends in a ValueError that names the field.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
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
from discrete_itd.channel.devices import resolve_device
from discrete_itd.denoisers import Denoiser
from discrete_itd.storage import files
from discrete_itd.storage.card import code
from discrete_itd.storage.files import CLASS, TIMED, AnyPath, Stored, building

CARD_START = "# Model card"
SMALLEST_LOG = -80.0
MOST_NATS = 1e-4  # by which the logarithm of a sum of probabilities may differ from zero
ANY_FLOAT = "NaN and infinity"
AnyFloat = Annotated[float, ANY_FLOAT]  # the annotation of a number that need not be finite
PLAIN = frozenset({NoneType, bool, int, float, str})  # types of JSON

SCHEDULES: tuple[type, ...] = (channel.CoordinateSchedule, channel.IsotropicSchedule)
DENOISERS: tuple[type[Denoiser], ...] = tuple(
    cls
    for cls in map(denoisers.__dict__.get, denoisers.__all__)
    if isinstance(cls, type) and issubclass(cls, Denoiser) and cls is not Denoiser
)


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


# -- writing ----------------------------------------------------------------------------------------


def flatten(value: Any) -> Stored:
    """JSON data and CPU tensors from which :func:`unflatten` makes an equal value.

    TypeError or ValueError that names the value if it, or one in it, cannot be stored, or is not of its annotated type.

    >>> from discrete_itd.channel import CoordinateSchedule
    >>> flatten(CoordinateSchedule(2, (1, 0)))
    ({'class': 'CoordinateSchedule', 'n_steps': 2, 'order': [1, 0]}, {})
    """
    into = _Written()
    return into.write(value, ""), into.tensors


@dataclasses.dataclass
class _Written:
    """The tensors of what is written, and the classes of objects that are not the library's."""

    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)
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
        if isinstance(value, np.ndarray | Tensor):
            return self._array(value, name)
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
        cls = type(value)
        if isinstance(value, Denoiser):
            weights = value.state_dict()
            self.tensors |= {join(name, k): v.detach().cpu().clone() for k, v in weights.items()}
            fields = self.each(value.config(), name)
        elif isinstance(value, Persistent):
            fields = _write_estimator(value, name, self)
        elif isinstance(value, type) or not inspect.isfunction(cls.__init__):
            raise TypeError(f"an object of type {cls.__name__} cannot be saved")
        else:
            fields = self._fields(value, name)
        if not is_own(cls):
            self.foreign[cls] = None
        return {CLASS: cls.__name__, **fields}

    def each(self, values: Mapping[str, Any], name: str) -> dict[str, Any]:
        return {k: self.write(v, join(name, k)) for k, v in values.items()}

    def _array(self, value: np.ndarray | Tensor, name: str) -> dict[str, str]:
        if name in self.tensors:
            raise TypeError(f"two arrays cannot be saved by the name {name}")
        label = "tensor"
        if isinstance(value, np.ndarray):
            label = "array"
            value = np.array(value, "u1" if value.dtype == bool else value.dtype, order="C")
        self.tensors[name] = torch.as_tensor(value).detach().cpu()
        return {CLASS: label}

    def _fields(self, value: Any, name: str) -> dict[str, Any]:
        out, cls = {}, type(value)
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


def _write_estimator(value: Persistent, name: str, into: _Written) -> dict[str, Any]:
    own = value._checked_parameters()
    for k, v in own.items():  # a file has one fitted estimator
        if isinstance(v, Persistent):
            own[k] = type(v)(**v._checked_parameters())
    fields: dict[str, Any] = {"parameters": into.each(own, name)}
    if value.__sklearn_is_fitted__():
        fields["fitted"] = into.write(value._learned, join(name, "fitted"))
    return fields


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


# -- reading ----------------------------------------------------------------------------------------


def unflatten(
    kind: Any,
    state: Stored,
    *,
    classes: Iterable[type] = (),
    device: str | None = None,
    try_out: bool = False,
) -> Any:
    """The value that :func:`flatten` wrote.

    It must be of a ``kind``, a type or an annotation; in place of a :class:`Denoiser` there is an :class:`Unbuilt` one.
    Objects are made of annotated classes, the library's denoisers and schedules, an estimator's recipes, and of further
    ``classes``, which check their arguments themselves; of two with one name the later one. Estimators get the
    ``device``, and are tried out if wished. ValueError, naming the field, if the data make no sense.
    """
    data, tensors = state
    known = (*SCHEDULES, *DENOISERS, *getattr(kind, "_stored_classes", ()), *classes)
    source = _Source(tensors, by_name(known), device, try_out)
    made = source.read(kind, data, "")
    if unknown := tensors.keys() - source.used:
        raise ValueError(f"{min(unknown)} is an unknown tensor")
    return made


def by_name(classes: Iterable[type]) -> dict[str, type]:
    """Classes by their names; TypeError for something that is no class."""
    out: dict[str, type] = {}
    for cls in classes:
        if not isinstance(cls, type):
            raise TypeError(f"trusted must hold classes, got {cls!r}")
        out[cls.__name__] = cls
    return out


@dataclasses.dataclass
class _Source:
    """Makes values of JSON data and tensors, and notes which tensors were used."""

    tensors: Mapping[str, Tensor]
    classes: dict[str, type]
    device: str | None
    try_out: bool
    used: set[str] = dataclasses.field(default_factory=set)

    def read(self, kind: Any, data: Any, name: str, sizes: dict[str, int] | None = None) -> Any:
        """The value of an annotated kind; ``sizes`` are the lengths that letters stand for in its object."""
        origin, args, sizes = get_origin(kind), get_args(kind), {} if sizes is None else sizes
        if scalars := scalars_of(kind):
            return scalar(scalars, data, name)
        if origin is Annotated:
            for mark in args[1:]:
                if isinstance(mark, Like):
                    return mark.checked(self._array(np.ndarray, data, name), sizes, name)
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
            return self._array(kind, data, name)
        if isinstance(kind, type) and kind not in (Any, object, dict):
            return self._object(kind, data, name)
        made = self._any(data, name)  # an object checks what no annotation says
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
            if scalars := scalars_of(kinds[0]):  # perhaps very many
                return (tuple if is_tuple else list)(scalar(scalars, v, name) for v in data)
            kinds = kinds[:1] * len(data)
        if len(kinds) != len(data):
            raise ValueError(f"{name} has {len(data)} items, not {len(kinds)}")
        pairs = enumerate(zip(kinds, data, strict=True))
        items = [self.read(own, v, join(name, i), sizes) for i, (own, v) in pairs]
        return tuple(items) if is_tuple else items

    def _array(self, kind: type, data: Any, name: str) -> Any:
        label = "tensor" if kind is Tensor else "array"
        if data != {CLASS: label} or name not in self.tensors:
            raise ValueError(f"{name} is {data!r:.80}, not an array that is there")
        self.used.add(name)
        with building(name):  # numpy does not have all types
            return self.tensors[name] if kind is Tensor else self.tensors[name].numpy()

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
            return self._array(Tensor if label == "tensor" else np.ndarray, data, name)
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
        if issubclass(cls, Persistent):
            return _read_estimator(cls, fields, name, self)
        kinds, sizes = dict.fromkeys(fields, Any), {}
        is_denoiser = issubclass(cls, Denoiser)
        if not is_denoiser and (cls is kind or is_own(cls)):
            kinds = arguments(cls)
            if wrong := kinds.keys() ^ fields.keys():
                what = "missing" if min(wrong) in kinds else "unknown"
                raise ValueError(f"{join(name, min(wrong))} is {what}")
        values = {k: self.read(kinds[k], v, join(name, k), sizes) for k, v in fields.items()}
        if is_denoiser:
            start = join(name, "") if name else ""
            own = {k.removeprefix(start): t for k, t in self.tensors.items() if k.startswith(start)}
            self.used |= {start + k for k in own}
            return Unbuilt(cls, values, own, name)
        with building(name or label):
            return getattr(cls, "from_fields", cls)(**values)


def _read_estimator(
    cls: type[Persistent], fields: dict[str, Any], name: str, source: _Source
) -> Persistent:
    if not isinstance(fields.get("parameters"), dict):
        raise ValueError(f"{join(name, 'parameters')} is missing")
    own = fields["parameters"].items()
    parameters = {k: source.read(Any, v, join(name, k)) for k, v in own}
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


@dataclasses.dataclass(frozen=True)
class Unbuilt:
    """A stored denoiser, which is made for a codebook of the floating type of its tensors.

    That is what ``config()`` returned, with unbuilt denoisers in it, the ``state_dict``, and the name of the field.
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
        # initial weights, which are replaced, must not move the global random state
        with building(self.name or self.made_by.__name__), torch.random.fork_rng(devices=[]):
            denoiser = self.made_by.from_config(self.config, codebook, self.tensors)
            made = {k: buffer.clone() for k, buffer in denoiser.named_buffers(recurse=False)}
            # constructors normalise, which rounds: the very numbers come from here
            denoiser.load_state_dict(self.tensors)
            _check_normalised(made, self.tensors)
        return denoiser.eval().requires_grad_(False)


def _check_normalised(made: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse numbers of a file that are not, but for rounding, those which the constructor has made of them."""
    for name, own in made.items():
        if name not in tensors:
            continue
        # the exponential of a smaller logarithm has few digits
        found, own = (t.double().clamp_min(SMALLEST_LOG) for t in (tensors[name], own))
        if not torch.allclose(found, own, rtol=1e-5, atol=MOST_NATS, equal_nan=True):
            raise ValueError(f"{name} is not normalised: its probabilities do not add up to one")


# -- estimators -------------------------------------------------------------------------------------


class Persistent:
    """Mixin of scikit-learn estimators: ``save``, ``load``, pickling and copying.

    What is stored are the constructor's arguments and ``_learned``, a frozen dataclass of ``_learned_type`` which a
    subclass makes of its fitted attributes, and sets these from.
    """

    _learned_type: ClassVar[type]
    _learned: Any
    _stored_classes: ClassVar[tuple[type, ...]] = ()  # of which parameters may be
    model_card: Callable[[], str]  # a description for users, in Markdown; NotFittedError
    __sklearn_is_fitted__: Callable[[], bool]

    def _checked_parameters(self) -> dict[str, Any]:
        """The constructor's arguments to be stored; ValueError or TypeError if one is invalid."""
        raise NotImplementedError

    def _try_out(self) -> None:
        """Refuse, by an error of any kind, what was learned if it does not work."""

    def save(self, path: str | os.PathLike[str], *, card: bool = True) -> None:
        """Write the fitted estimator to one safetensors file, whole or not at all, and a card beside it.

        One model gives the same bytes each time, and two equal fits give files of one digest: the seconds that they
        took are no part of it.

        Parameters
        ----------
        path : path-like
        card : bool
            Whether to write ``model_card()`` to the file of the same name with ``.md`` at its end. ``load`` does not
            need it. The card of a model that is replaced is removed before, so that no model stands beside the card of
            another.

        Raises
        ------
        OSError
            If a file cannot be written; the card comes last.
        TypeError
            If a part of the model, like a schedule of your own, lacks an argument of its constructor as an attribute.
        """
        text, beside, state = self.model_card(), Path(card_path(path)), flatten(self)
        files.write_whole(path, None)
        if _is_card(beside):
            beside.unlink(missing_ok=True)
        digest = files.write_state(path, state)
        if card:
            name = os.path.basename(os.fspath(path))
            text += f"\nFile: {code(name)}, SHA-256 of its content: `{digest}`\n"
            whole = text.encode(errors="backslashreplace")  # any file name
            files.write_whole(beside, lambda part: part.write_bytes(whole))

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
            Classes besides those of the library that the file may name: denoisers, recipes and schedules of your own.
            Their code runs with data from the file.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, is damaged or of a newer format, holds something else, or needs a class that
            is not trusted.
        """
        return load_one_of(path, (cls,), device=device, trusted=trusted)

    def __getstate__(self) -> dict[str, Any]:
        if not self.__sklearn_is_fitted__():
            return cast(dict[str, Any], cast(Any, super()).__getstate__())
        into, given = _Written(), cast(Any, self).get_params(deep=False)
        kept = {k: v for k, v in given.items() if isinstance(v, NOT_IN_FILES)}
        data = into.write(self, "")
        return {
            "format": files.FORMAT,
            "data": data,
            "arrays": {name: tensor.numpy() for name, tensor in into.tensors.items()},
            "classes": list(into.foreign),
            "given": kept | {k: v for k, v in vars(self).items() if k == REQUESTS},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "data" not in state:
            cast(Any, super()).__setstate__(state)
            return
        files.check_format(state.get("format"))
        tensors = {name: torch.from_numpy(array) for name, array in state["arrays"].items()}
        made = unflatten(type(self), (state["data"], tensors), classes=state["classes"])
        self.__dict__.update(vars(made), **state["given"])


REQUESTS = "_metadata_request"  # where scikit-learn keeps what set_fit_request and the like were called with
NOT_IN_FILES = Persistent, np.random.RandomState  # as they are, among parameters


def load_one_of(
    path: AnyPath, kinds: Iterable[type], *, device: str = "auto", trusted: Iterable[type] = ()
) -> Any:
    """The estimator in a file, of one of several classes; see :meth:`Persistent.load`."""
    if isinstance(trusted, type):
        raise TypeError(f"trusted must be a list of classes, got the class {trusted.__name__}")
    by_label, trusted = by_name(kinds), tuple(trusted)
    by_name(trusted)
    resolve_device(device)  # an unavailable device is not the fault of the file

    state = files.read_state(path)
    with building(os.fspath(path)):
        label = str(state[0].get(CLASS))
        if label not in by_label:
            raise ValueError(f"the file holds a {label}, not a {' or a '.join(by_label)}")
        made = unflatten(by_label[label], state, classes=trusted, device=device, try_out=True)
        if not made.__sklearn_is_fitted__():
            raise ValueError("fitted is missing")
    return made


def card_path(path: AnyPath) -> str:
    """Where the card of a model's file is: "m.safetensors.md" for "m.safetensors"."""
    return f"{os.fspath(path)}.md"


def _is_card(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(CARD_START)) == CARD_START.encode()
    except OSError:
        return False
