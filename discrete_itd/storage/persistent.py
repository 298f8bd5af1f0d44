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
from discrete_itd.storage.configs import by_name, classes_of, from_config, to_config
from discrete_itd.storage.markdown import code
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
    subclass defines :meth:`fitted_state`, :meth:`restore`, :meth:`fitted_parts` and, if parameters may be objects that
    describe themselves, :attr:`parameter_classes`; it or another of its bases defines ``model_card``.

    Attributes
    ----------
    parameter_classes : tuple of type
        Classes of the library that parameters may be objects of.
    """

    parameter_classes: ClassVar[tuple[type, ...]] = ()
    model_card: Callable[[], str]  # what people should know of it, in Markdown

    # -- what an estimator defines --------------------------------------------------------------

    def fitted_state(self) -> files.State:
        """What the fit has learned: JSON data, among them the ``device``, and CPU tensors."""
        raise NotImplementedError

    def restore(
        self,
        header: dict[str, Any],
        tensors: dict[str, Tensor],
        *,
        device: str,
        trusted: Iterable[type] = (),
    ) -> None:
        """Set the fitted attributes from :meth:`fitted_state`; ValueError if it makes no sense."""
        raise NotImplementedError

    def fitted_parts(self) -> list[Any]:
        """Objects of which :meth:`fitted_state` holds a config: a denoiser, a schedule."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The constructor's arguments to be saved; a random generator is not part of the model."""
        parameters = cast(Any, self).get_params(deep=False)
        if not isinstance(parameters.get("random_state"), int | np.integer | None):
            parameters["random_state"] = None
        return parameters

    def check_stored_parameters(self) -> None:
        """Refuse parameters of the wrong type or range, before they are saved and after they are loaded."""

    def check_loaded(self) -> None:
        """Refuse, by an error of any kind, a model from a file that does not work."""

    # -- states ---------------------------------------------------------------------------------

    def to_state(self) -> files.State:
        """The fitted estimator as JSON data and CPU tensors."""
        header, tensors = self.fitted_state()
        parameters = {name: to_config(value) for name, value in self.config().items()}
        return {"model": type(self).__name__, "parameters": parameters, **header}, tensors

    @classmethod
    def from_state(
        cls, state: files.State, *, device: str = "auto", trusted: Iterable[type] = ()
    ) -> Self:
        """The estimator that :meth:`to_state` wrote.

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
            classes = (*cls.parameter_classes, *trusted)
            given = header["parameters"].items()
            estimator = cls(**{name: from_config(value, classes) for name, value in given})
            if "device" in header["parameters"]:
                vars(estimator)["device"] = device
            estimator.check_stored_parameters()
        estimator.restore(header, tensors, device=device, trusted=trusted)
        with building("the model"):
            estimator.check_loaded()
        return estimator

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
        self.check_stored_parameters()  # or load would refuse the file
        beside = Path(card_path(path))

        def remove_card() -> None:
            if card or _is_card(beside):
                beside.unlink(missing_ok=True)

        digest = files.write_state(path, self.to_state(), before=remove_card)
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
        header, tensors = self.to_state()
        classes = dict.fromkeys(classes_of([parameters, *self.fitted_parts()]))
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
        self.restore(header, tensors, device=device, trusted=state.get("classes", ()))


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
        return by_kind[kind].from_state(state, device=device, trusted=trusted)

    return files.revive(path, make)
