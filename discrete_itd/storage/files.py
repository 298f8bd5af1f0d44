"""One file per model: safetensors with a JSON header, no pickle.

A state is a header of plain JSON data and a dictionary of named CPU tensors. The same state serves files, pickle
and copies. A file carries a digest of both, so that damage is noticed before anything is made of it, and the
kind of what it holds: a model, or the checkpoint of a training that has not ended.

A file may come from anyone. Reading runs no code that is in it, takes memory in proportion to its size, and ends
in a state or in a ValueError. A header means nothing yet when it has been read: its numbers may be NaN, infinite or
absurd (a history holds NaN by right), and who makes an object of it must look.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from discrete_itd.channel import CoordinateSchedule, HybridSchedule, IsotropicSchedule, Schedule
from discrete_itd.encoders import plain

FORMAT = 3  # 2: networks on independent columns only; 1: development versions, never released
OLDEST_FORMAT = 2
KEY = "discrete_itd"
DIGEST = "sha256"
KINDS = {"model": "a model", "checkpoint": "the checkpoint of a training"}
# safetensors reads headers up to 10^8 bytes, and quoting a text within a text at most doubles it
LONGEST_HEADER = 48_000_000
DEEPEST_HEADER = 32
DTYPES = (  # no bool: a byte that is neither 0 nor 1 would be one all the same
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
)
# what comes, besides ValueError, of making something of data that mean nothing: RecursionError is a RuntimeError,
# OverflowError an ArithmeticError, and an ImportError comes of a dtype that needs a package
DAMAGE = (
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    MemoryError,
    ImportError,
)

# parameters of estimators in files and pickles up to format 3
RENAMED = {
    "columns": "column_types",
    "unseen": "handle_unknown",
    "path": "schedule",
    "n_calls": "n_evaluations",
}
State = tuple[dict[str, Any], dict[str, Tensor]]
Made = TypeVar("Made")


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
        with open(
            partial, "rb+"
        ) as file:  # or a power failure could leave the name without the content
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_state(path: str | os.PathLike[str], state: State, *, kind: str = "model") -> None:
    """Write a state; the file appears whole or not at all.

    Parameters
    ----------
    path : path-like
    state : State
    kind : {"model", "checkpoint"}

    Raises
    ------
    OSError
        If it cannot be written.
    ValueError
        If :func:`read_state` would refuse it: a header too long, or a tensor of an unusual type.
    """
    header, tensors = state
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = json.dumps({"format": FORMAT, "kind": kind, **header})
    if len(text) > LONGEST_HEADER:
        raise ValueError(
            f"{os.fspath(path)}: {len(text)} characters of column names, categories and settings are too"
            f" many for a file (the limit is {LONGEST_HEADER})"
        )
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(
                f"{os.fspath(path)}: {name} is of type {tensor.dtype}, which no file holds"
            )
    metadata = {KEY: text, DIGEST: digest(text, tensors)}

    def write(partial: Path) -> None:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:
            raise OSError(f"{os.fspath(path)}: cannot be written ({error})") from error

    write_whole(path, write)


def read_state(path: str | os.PathLike[str], *, kind: str = "model") -> State:
    """Read a state.

    Parameters
    ----------
    path : path-like
    kind : {"model", "checkpoint"}
        What the file must hold.

    Raises
    ------
    OSError
        If the file cannot be opened, or is no regular file.
    ValueError
        Naming the file, if it is foreign, damaged, of another kind, of a newer format or of a development version.
    """
    name = os.fspath(path)
    try:
        content = _content(path)
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get(
            "__metadata__", {}
        )
        if KEY not in metadata:
            raise _Refusal(f"a safetensors file, but not a discrete_itd {kind}")
        text = metadata[KEY]
        header = _parse(text)
        sound = metadata.get(DIGEST) == digest(text, tensors)
        _check(header, sound, kind)
        for key, tensor in tensors.items():
            if tensor.dtype not in DTYPES:
                raise _Refusal(f"the file is damaged ({key} is of type {tensor.dtype})")
    except _Refusal as refusal:
        raise ValueError(f"{name}: {refusal}") from None
    except SafetensorError as error:
        raise ValueError(f"{name}: not a {kind} file, or damaged ({error})") from None
    except MemoryError:
        raise ValueError(f"{name}: too large for this machine's memory") from None
    except (ValueError, *DAMAGE) as error:
        raise ValueError(f"{name}: the file is damaged ({error!r})") from None
    return header, tensors


def revive(path: str | os.PathLike[str], make: Callable[[State], Made]) -> Made:
    """What ``make`` makes of the model in a file.

    Raises
    ------
    OSError, ValueError
        As of :func:`read_state`; and a ValueError naming the file if nothing can be made of it.
    """
    state = read_state(path)
    try:
        return make(state)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    except DAMAGE as error:
        raise ValueError(f"{os.fspath(path)}: the model is damaged ({error!r})") from None


class _Refusal(Exception):  # noqa: N818 - it never leaves this module
    """Why a file is not read."""


def _content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; an OSError for a folder, a device or a pipe, which is not waited for."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    # not mapped into memory: a file that another process shortens would end this one
    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return file.read()


def _parse(text: str) -> dict[str, Any]:
    """Return the JSON object of a header."""
    if len(text) > LONGEST_HEADER:
        raise _Refusal(f"the file is damaged (a header of {len(text)} characters)")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            raise _Refusal("the file is damaged (a name occurs twice in its header)")
        return out

    header = json.loads(text, object_pairs_hook=unique)
    if not isinstance(header, dict):
        raise _Refusal("the file is damaged (its header is no mapping)")
    level: list[Any] = [header]
    for _ in range(DEEPEST_HEADER):
        inner = (v.values() if isinstance(v, dict) else v for v in level)
        level = [w for v in inner for w in v if isinstance(w, dict | list)]
        if not level:
            return header
    raise _Refusal("the file is damaged (its header is nested too deeply)")


def _check(header: Mapping[str, Any], sound: bool, kind: str) -> None:
    """Refuse a header of another format or kind, or one whose digest is not ``sound``."""
    version = header.get("format")
    if type(version) is not int or version < 1:
        raise _Refusal(f"the file is damaged (format {version!r})")
    if version > FORMAT:  # before the digest, which a later format may make in another way
        doubt = "" if sound else ", unless the file is damaged"
        raise _Refusal(
            f"format {version}, but this release reads format {FORMAT}; upgrade discrete_itd{doubt}"
        )
    if not sound:
        raise _Refusal("the file is damaged (its digest does not match)")
    if version < OLDEST_FORMAT:
        raise _Refusal(
            f"format {version}, written by a development version of discrete_itd; fit the model anew"
        )
    found = header.get("kind")
    if not isinstance(found, str) or found not in KINDS:
        raise _Refusal(f"the file is damaged (kind {found!r})")
    if found != kind:
        raise _Refusal(f"the file holds {KINDS[found]}, not {KINDS[kind]}")


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header's text and of the tensors, whatever the order in which a file holds them."""
    sha = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if len(flat):  # an empty tensor has no bytes to view
            sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    """JSON data of a schedule of this library; ValueError for another."""
    if isinstance(schedule, IsotropicSchedule):
        return {"kind": "isotropic", "levels": list(schedule.levels)}
    if isinstance(schedule, HybridSchedule):
        return {"kind": "hybrid", "levels": list(schedule.levels), "n_jumps": schedule.n_jumps}
    if isinstance(schedule, CoordinateSchedule):
        # one order as a list of columns, several as a list of lists
        return {"kind": "coordinate", "n_steps": schedule.n_steps, "order": schedule.order}
    raise ValueError(f"a model with a schedule of type {type(schedule).__name__} cannot be kept")


def schedule_from_json(data: Mapping[str, Any]) -> Schedule:
    """Make the schedule that :func:`schedule_to_json` wrote."""
    if data["kind"] == "isotropic":
        return IsotropicSchedule(tuple(data["levels"]))
    if data["kind"] == "hybrid":
        return HybridSchedule(tuple(data["levels"]), data["n_jumps"])
    order = data["order"]
    if order is not None:
        order = tuple(tuple(j) if isinstance(j, list | tuple) else j for j in order)
    return CoordinateSchedule(data["n_steps"], order)


def parameters_to_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """JSON data of an estimator's constructor arguments."""
    from discrete_itd.recipes import recipe_to_json

    out = dict(parameters)
    if isinstance(out["column_types"], Mapping):  # JSON would turn integer names into strings
        out["column_types"] = [
            [plain(name), _plain_spec(s)] for name, s in out["column_types"].items()
        ]
    out["denoiser"] = recipe_to_json(out["denoiser"])
    if not isinstance(out["schedule"], str):
        out["schedule"] = schedule_to_json(out["schedule"])
    if not isinstance(out["random_state"], int | np.integer | None):
        out["random_state"] = None  # a generator's state is not part of the model
    return {name: plain(value) for name, value in out.items()}


def parameters_of_now(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """An estimator's arguments as it takes them now; releases up to format 2 had ``width`` and ``depth``."""
    out = {RENAMED.get(name, name): value for name, value in parameters.items()}
    if out.get("handle_unknown") == "raise":
        out["handle_unknown"] = "error"
    if "width" in out:
        from discrete_itd.recipes import Network

        out["denoiser"] = Network("mlp", out.pop("width"), out.pop("depth"), base="independent")
    return out


def _plain_spec(spec: Any) -> Any:
    """What ``column_types=`` says of one column, its edges as a list."""
    if not isinstance(spec, Mapping):
        return spec
    return {
        k: [float(e) for e in v] if k == "edges" and v is not None else plain(v)
        for k, v in spec.items()
    }


def parameters_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments that :func:`parameters_to_json` wrote."""
    out = dict(data)
    if "denoiser" in out:
        from discrete_itd.recipes import recipe_from_json

        out["denoiser"] = recipe_from_json(out["denoiser"])
    out = parameters_of_now(out)
    if isinstance(out["column_types"], list):
        out["column_types"] = {name: kind for name, kind in out["column_types"]}
    if isinstance(out["schedule"], Mapping):
        out["schedule"] = schedule_from_json(out["schedule"])
    return out
