"""One file per model: safetensors with a JSON header, no pickle.

A state is a header of plain JSON data and a dictionary of named CPU tensors. The same state serves files, pickle
and copies. A file carries a digest of both, so that damage is noticed before anything is made of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Schedule
from discrete_itd.encoders import plain

FORMAT = 1
KEY = "discrete_itd"
DIGEST = "sha256"

State = tuple[dict[str, Any], dict[str, Tensor]]


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file beside ``path`` and move it there only when it is complete.

    Raises
    ------
    OSError
        If it cannot be written; also if ``path`` is there and no regular file, like a folder or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder to write in", os.fspath(path))
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    partial = Path(name)
    try:
        write(partial)
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)  # mkstemp's files are private
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_state(path: str | os.PathLike[str], state: State) -> None:
    """Write a state; the file appears whole or not at all."""
    header, tensors = state
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = json.dumps({"format": FORMAT, **header})
    metadata = {KEY: text, DIGEST: _digest(text, tensors)}

    def write(partial: Path) -> None:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:
            raise OSError(f"{os.fspath(path)}: cannot be written ({error})") from error

    write_whole(path, write)


def read_state(path: str | os.PathLike[str]) -> State:
    """Read a state.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is no model file, is damaged, or is of a newer format.
    """
    with open(path, "rb"):  # safetensors reports a missing file in its own way
        pass
    name = os.fspath(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise ValueError(f"{name}: a safetensors file, but not a discrete_itd model")
            header = json.loads(metadata[KEY])
            version = header["format"]
            if not isinstance(version, int) or version < 1:
                raise ValueError(f"{name}: the model is damaged (format {version!r})")
            if version > FORMAT:
                raise ValueError(
                    f"{name}: format {version}, but this release reads up to {FORMAT}; upgrade discrete_itd"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{name}: not a model file, or damaged ({error})") from None
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{name}: the model is damaged ({error!r})") from None
    if metadata.get(DIGEST) != _digest(metadata[KEY], tensors):
        raise ValueError(f"{name}: the model is damaged (its digest does not match)")
    return header, tensors


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header's text and of the tensors, whatever the order in which a file holds them."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    """JSON data of a schedule of this library; ValueError for another."""
    if isinstance(schedule, IsotropicSchedule):
        return {"kind": "isotropic", "levels": list(schedule.levels)}
    if isinstance(schedule, CoordinateSchedule):
        return {"kind": "coordinate", "n_columns": schedule.n_columns, "n_steps": schedule.n_steps}
    raise ValueError(f"a model with a schedule of type {type(schedule).__name__} cannot be kept")


def schedule_from_json(data: Mapping[str, Any]) -> Schedule:
    """Make the schedule that :func:`schedule_to_json` wrote."""
    if data["kind"] == "isotropic":
        return IsotropicSchedule(tuple(data["levels"]))
    return CoordinateSchedule(data["n_columns"], data["n_steps"])


def parameters_to_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """JSON data of an estimator's constructor arguments."""
    out = dict(parameters)
    if isinstance(out["columns"], Mapping):  # JSON would turn integer names into strings
        out["columns"] = [[plain(name), kind] for name, kind in out["columns"].items()]
    if not isinstance(out["path"], str):
        out["path"] = schedule_to_json(out["path"])
    if not isinstance(out["random_state"], int | np.integer | None):
        out["random_state"] = None  # a generator's state is not part of the model
    return {name: plain(value) for name, value in out.items()}


def parameters_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments that :func:`parameters_to_json` wrote."""
    out = dict(data)
    if isinstance(out["columns"], list):
        out["columns"] = {name: kind for name, kind in out["columns"]}
    if isinstance(out["path"], Mapping):
        out["path"] = schedule_from_json(out["path"])
    return out
