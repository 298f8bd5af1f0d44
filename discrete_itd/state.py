"""One file per model: safetensors with a JSON header, no pickle.

A state is a header of plain JSON data and a dictionary of named CPU tensors. The same state serves files, pickle
and copies.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, Schedule

FORMAT = 1
KEY = "discrete_itd"

State = tuple[dict[str, Any], dict[str, Tensor]]


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file beside ``path`` and move it there only when it is complete."""
    path = Path(path)
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
    metadata = {KEY: json.dumps({"format": FORMAT, **header})}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_whole(path, lambda partial: save_file(tensors, partial, metadata))


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
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: not a model file, or damaged ({error})") from None
    if KEY not in metadata:
        raise ValueError(f"{os.fspath(path)}: a safetensors file, but not a discrete_itd model")
    try:
        header = json.loads(metadata[KEY])
        version = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)}: the header is damaged ({error})") from None
    if version > FORMAT:
        raise ValueError(
            f"{os.fspath(path)}: format {version}, but this release reads up to {FORMAT}; upgrade discrete_itd"
        )
    return header, tensors


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
        out["columns"] = [[name, kind] for name, kind in out["columns"].items()]
    if not isinstance(out["path"], str):
        out["path"] = schedule_to_json(out["path"])
    if not isinstance(out["random_state"], int | None):
        out["random_state"] = None  # a generator's state is not part of the model
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in out.items()}


def parameters_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that :func:`parameters_to_json` wrote."""
    out = dict(data)
    if isinstance(out["columns"], list):
        out["columns"] = {name: kind for name, kind in out["columns"]}
    if isinstance(out["path"], Mapping):
        out["path"] = schedule_from_json(out["path"])
    return out
