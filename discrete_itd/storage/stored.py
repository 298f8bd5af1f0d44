"""Estimators in files, by the values of :mod:`discrete_itd.storage.values`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

from discrete_itd.devices import resolve_device
from discrete_itd.storage import files
from discrete_itd.storage.card import code
from discrete_itd.storage.files import CLASS, AnyPath, building
from discrete_itd.storage.values import ValueReader, ValueWriter, by_name, flatten, join, unflatten


class Persistent:
    """Mixin of scikit-learn estimators: ``save`` and ``load``.

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

    def _stored_fields(self, name: str, into: ValueWriter) -> dict[str, Any]:
        own = self._checked_parameters()
        for k, v in own.items():  # a file has one fitted estimator
            if isinstance(v, Persistent):
                own[k] = type(v)(**v._checked_parameters())
        fields: dict[str, Any] = {"parameters": into.each(own, name)}
        if self.__sklearn_is_fitted__():
            fields["fitted"] = into.write(self._learned, join(name, "fitted"))
        return fields

    @classmethod
    def _from_stored(cls, fields: dict[str, Any], name: str, source: ValueReader) -> Self:
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
            If a file cannot be written; the card comes last.
        TypeError
            If a part of the model, like a schedule of your own, lacks an argument of its constructor as an attribute.
        """
        text = self.model_card()
        digest = files.write_state(path, flatten(self))
        if card:
            name = os.path.basename(os.fspath(path))
            text += f"\nFile: {code(name)}, SHA-256 of its content: `{digest}`\n"
            whole = text.encode(errors="backslashreplace")  # any file name
            files.write_whole(card_path(path), lambda part: part.write_bytes(whole))

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
