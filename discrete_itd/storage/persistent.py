"""One way to save, load, pickle and copy every estimator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from discrete_itd.storage import files
from discrete_itd.storage.card import code
from discrete_itd.storage.configs import by_name, classes_of, from_config, to_config
from discrete_itd.storage.schema import building, check_fields

Kind = TypeVar("Kind", bound="Persistent")

CARD_START = "# Model card"


def resolve_device(name: str) -> torch.device:
    """The device of that name; ValueError if this machine has no such device.

    "auto" is CUDA if available, of several processes on a machine to each its own.
    """
    if isinstance(name, str) and name == "auto":
        own = os.environ.get("LOCAL_RANK")  # set by torchrun
        cuda = "cuda" if own is None else f"cuda:{own}"
        return torch.device(cuda if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device, dtype=torch.float64)  # nats are added up in it
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"device must be 'auto' or a device of this machine, got {name!r} ({reason})"
        ) from None
    return device


def card_path(path: str | os.PathLike[str]) -> str:
    """Where the card of a model's file is: "m.safetensors.md" for "m.safetensors"."""
    return f"{os.fspath(path)}.md"


def _is_card(path: Path) -> bool:
    """Whether a file begins like the card of a model."""
    try:
        with open(path, "rb") as file:
            return file.read(len(CARD_START)) == CARD_START.encode()
    except OSError:
        return False


class Persistent:
    """Mixin of scikit-learn estimators: ``save``, ``load``, pickling and copying.

    A state consists of the constructor's arguments and of what the fit has learned, as JSON data and tensors. A
    subclass defines ``_fitted_state``, ``_restore``, ``_fitted_parts`` and, if parameters may be objects that describe
    themselves, ``_parameter_classes``; it or another of its bases defines ``model_card``.
    """

    _parameter_classes: ClassVar[tuple[type, ...]] = ()  # of the library, for parameters
    model_card: Callable[[], str]  # what people should know of it, in Markdown

    # -- what an estimator defines --------------------------------------------------------------

    def _fitted_state(self) -> files.State:
        """What the fit has learned: JSON data, among them the ``device``, and CPU tensors."""
        raise NotImplementedError

    def _restore(
        self,
        header: dict[str, Any],
        tensors: dict[str, Tensor],
        *,
        device: str,
        trusted: Iterable[type] = (),
    ) -> None:
        """Set the fitted attributes from ``_fitted_state``; ValueError if it makes no sense."""
        raise NotImplementedError

    def _fitted_parts(self) -> list[Any]:
        """Objects of which ``_fitted_state`` holds a config: a denoiser, a schedule."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The constructor's arguments to be saved, of the right types and ranges; no random generator."""
        parameters = cast(Any, self).get_params(deep=False)
        if not isinstance(parameters.get("random_state"), int | np.integer | None):
            parameters["random_state"] = None
        return parameters

    def _check_loaded(self) -> None:
        """Refuse, by an error of any kind, a model from a file that does not work."""

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, card: bool = True) -> None:
        """Write the fitted estimator to one safetensors file, whole or not at all, and a card beside it.

        One model gives the same bytes each time, and two equal fits give files of one digest: the seconds that they
        took are no part of what it stands for.

        Parameters
        ----------
        path : path-like
        card : bool
            Whether to write ``model_card()`` to the file of the same name with ``.md`` at its end, which replaces
            one that is there. The card is for people: ``load`` does not need it. The card of a model that is replaced
            is removed before, so that no model ever stands beside the card of another.

        Raises
        ------
        OSError
            If a file cannot be written; the card comes last.
        TypeError
            If a part of the model, like a denoiser of your own, has no method ``config``.
        """
        check_is_fitted(self)
        beside = Path(card_path(path))

        def remove_card() -> None:
            if card or _is_card(beside):
                beside.unlink(missing_ok=True)

        digest = files.write_state(path, to_state(self), before=remove_card)
        if card:
            name = os.path.basename(os.fspath(path))
            which = f"\nFile: {code(name)}, SHA-256 of its content: `{digest}`\n"
            text = (self.model_card() + which).encode(errors="backslashreplace")  # any file name
            files.write_whole(beside, lambda part: part.write_bytes(text))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        trusted: Iterable[type] = (),
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

    # -- pickles and copies ---------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        try:
            check_is_fitted(self)
        except NotFittedError:
            return cast(dict[str, Any], cast(Any, super()).__getstate__())
        parameters = cast(Any, self).get_params(deep=False)
        header, tensors = to_state(self)
        classes = dict.fromkeys(classes_of([parameters, *self._fitted_parts()]))
        foreign = [cls for cls in classes if not cls.__module__.startswith("discrete_itd.")]
        return {
            "format": files.FORMAT,
            "parameters": parameters,
            "header": header,
            "arrays": {name: tensor.numpy() for name, tensor in tensors.items()},
            "classes": foreign,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "header" not in state:
            cast(Any, super()).__setstate__(state)
            return
        files.check_format(state.get("format"))
        header, parameters = state["header"], state["parameters"]
        tensors = {name: torch.from_numpy(array) for name, array in state["arrays"].items()}
        self.__dict__.update(parameters)
        device = header.get("device", parameters.get("device", "auto"))
        self._restore(header, tensors, device=device, trusted=state.get("classes", ()))


def to_state(estimator: Persistent) -> files.State:
    """A fitted estimator as JSON data and CPU tensors; ValueError or TypeError if its parameters are invalid."""
    parameters = {name: to_config(value) for name, value in estimator.config().items()}
    header, tensors = estimator._fitted_state()
    return {"model": type(estimator).__name__, "parameters": parameters, **header}, tensors


def from_state(
    cls: type[Kind], state: files.State, *, device: str = "auto", trusted: Iterable[type] = ()
) -> Kind:
    """The estimator that :func:`to_state` wrote.

    Raises
    ------
    ValueError
        Naming the field, if the state makes no sense, or needs a class that is not trusted.
    """
    trusted = tuple(trusted)
    by_name(trusted)
    header, tensors = state
    check_fields(header, {"model": str, "parameters": dict})
    if header["model"] != cls.__name__:
        raise ValueError(f"the file holds a {header['model']}, not a {cls.__name__}")
    with building("parameters"):
        classes = (*cls._parameter_classes, *trusted)
        given = header["parameters"].items()
        estimator = cls(**{name: from_config(value, classes) for name, value in given})
        if "device" in header["parameters"]:
            vars(estimator)["device"] = device
        estimator.config()  # refuses what is invalid
    estimator._restore(header, tensors, device=device, trusted=trusted)
    with building("the model"):
        estimator._check_loaded()
    return estimator


def load_one_of(
    path: str | os.PathLike[str],
    classes: Iterable[type[Kind]],
    *,
    device: str = "auto",
    trusted: Iterable[type] = (),
) -> Kind:
    """The estimator in a file, of that of the classes that the file names; see :meth:`Persistent.load`."""
    if isinstance(trusted, type):
        raise TypeError(f"trusted must be a list of classes, got the class {trusted.__name__}")
    by_kind, trusted = {cls.__name__: cls for cls in classes}, tuple(trusted)
    by_name(trusted)
    resolve_device(device)  # an unavailable device is not the fault of the file

    def make(state: files.State) -> Kind:
        kind = str(state[0].get("model"))
        if kind not in by_kind:
            raise ValueError(f"the file holds a {kind}, not a {' or a '.join(by_kind)}")
        return from_state(by_kind[kind], state, device=device, trusted=trusted)

    return files.revive(path, make)
