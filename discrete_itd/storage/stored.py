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
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor

from discrete_itd import channel, denoisers
from discrete_itd.channel import Codebook
from discrete_itd.channel.devices import resolve_device
from discrete_itd.denoisers import Denoiser
from discrete_itd.storage import files
from discrete_itd.storage.card import code
from discrete_itd.storage.files import CLASS, AnyPath, Stored, building
from discrete_itd.storage.values import ValueReader, ValueWriter, by_name, join

CARD_START = "# Model card"
SMALLEST_LOG = -80.0
MOST_NATS = 1e-4  # by which the logarithm of a sum of probabilities may differ from zero

SCHEDULES: tuple[type, ...] = (channel.CoordinateSchedule, channel.IsotropicSchedule)
DENOISERS: tuple[type[Denoiser], ...] = tuple(
    cls
    for cls in map(denoisers.__dict__.get, denoisers.__all__)
    if isinstance(cls, type) and issubclass(cls, Denoiser) and cls is not Denoiser
)


# -- writing ----------------------------------------------------------------------------------------


def flatten(value: Any) -> Stored:
    """JSON data and CPU tensors from which :func:`unflatten` makes an equal value.

    TypeError or ValueError that names the value if it, or one in it, cannot be stored, or is not of its annotated type.

    >>> from discrete_itd.channel import CoordinateSchedule
    >>> flatten(CoordinateSchedule(2, (1, 0)))
    ({'class': 'CoordinateSchedule', 'n_steps': 2, 'order': [1, 0]}, {})
    """
    into = _Writer()
    return into.write(value, ""), into.tensors


@dataclasses.dataclass
class _Writer(ValueWriter):
    """Writes tensors, denoisers and estimators too."""

    def write(self, value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            return self.array(value.detach().cpu(), name, "tensor")
        return super().write(value, name)

    def array(self, value: Any, name: str, label: str) -> dict[str, str]:
        return super().array(torch.as_tensor(value), name, label)

    def fields(self, value: Any, name: str) -> dict[str, Any]:
        if isinstance(value, Persistent):
            return _write_estimator(value, name, self)
        if not isinstance(value, Denoiser):
            return super().fields(value, name)
        weights = value.state_dict()
        self.tensors |= {join(name, k): v.detach().cpu().clone() for k, v in weights.items()}
        return self.each(value.config(), name)


def _write_estimator(value: Persistent, name: str, into: _Writer) -> dict[str, Any]:
    own = value._checked_parameters()
    for k, v in own.items():  # a file has one fitted estimator
        if isinstance(v, Persistent):
            own[k] = type(v)(**v._checked_parameters())
    fields: dict[str, Any] = {"parameters": into.each(own, name)}
    if value.__sklearn_is_fitted__():
        fields["fitted"] = into.write(value._learned, join(name, "fitted"))
    return fields


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
    source = _Reader(tensors, by_name(known), device=device, try_out=try_out)
    return source.all(kind, data)


@dataclasses.dataclass
class _Reader(ValueReader):
    """Makes estimators too, and in place of a :class:`Denoiser` an :class:`Unbuilt` one."""

    device: str | None = None
    try_out: bool = False

    def read(self, kind: Any, data: Any, name: str, sizes: dict[str, int] | None = None) -> Any:
        if kind is Tensor:
            return self.array(data, name, "tensor")
        return super().read(kind, data, name, sizes)

    def loaded(self, stored: Tensor, label: str) -> Any:
        return stored if label == "tensor" else stored.numpy()

    def made(self, cls: type, fields: dict[str, Any], name: str, *, has_arguments: bool) -> Any:
        if issubclass(cls, Persistent):
            return _read_estimator(cls, fields, name, self)
        if not issubclass(cls, Denoiser):
            return super().made(cls, fields, name, has_arguments=has_arguments)
        values = self.each(dict.fromkeys(fields, Any), fields, name)
        start = join(name, "") if name else ""
        own = {k.removeprefix(start): t for k, t in self.tensors.items() if k.startswith(start)}
        self.used |= {start + k for k in own}
        return Unbuilt(cls, values, own, name)


def _read_estimator(
    cls: type[Persistent], fields: dict[str, Any], name: str, source: _Reader
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
        with building(self.name or self.made_by.__name__):
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
        into, given = _Writer(), cast(Any, self).get_params(deep=False)
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
