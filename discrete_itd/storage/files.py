"""One file per model: safetensors with a JSON header, no pickle.

A state is a header of plain JSON data and a dictionary of named CPU tensors. A file has a digest of both, so that
damage is detected before anything is made of it, and the kind of its content: a model, or the state of a watch.

A file may come from anyone. Reading it runs no code in it, takes memory in proportion to its size, and ends in a state
or in a ValueError. The content of a header is checked by :func:`discrete_itd.storage.values.unflatten`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None

FORMAT = 58
KEY = "discrete_itd"
DIGEST = "sha256"  # key, in a header, of the hash of its other entries and of the tensors
CLASS = "class"  # the key under which data hold the name of a class
KINDS = {"model": "a model", "watch": "the state of a watch"}
# safetensors reads headers up to 10^8 bytes, and quoting a text within a text at most doubles it
LONGEST_HEADER = 48_000_000
# no bool: a byte that is neither 0 nor 1 would be one all the same
DTYPES = {
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
}

DAY = 86_400  # seconds without a write after which a temporary file is one that a kill has left

AnyPath = str | os.PathLike[str]
Stored = tuple[dict[str, Any], dict[str, Tensor]]


def write_whole(path: AnyPath, write: Callable[[Path], object] | None) -> None:
    """Let ``write`` make a temporary file, whose path it is given, and move it to ``path`` only when it is complete.

    A file that is there keeps its mode, and a symbolic link leads to the file that is written. What killed calls have
    left of this file goes after a day. OSError if the file cannot be written, or if ``path`` is there and no regular
    file, like a folder or a device; with ``None`` for ``write``, this is all that is checked.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    if target.is_symlink() or (path.exists() and not path.is_file()):  # a link to itself, or a pipe
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder to write in", os.fspath(path))
    partial, prefix = target, f".{target.name}.partial-"
    try:
        descriptor, name = tempfile.mkstemp(path.suffix, prefix, target.parent)
        os.close(descriptor)
        partial = Path(name)
        if write is None:
            return
        write(partial)
        with open(partial, "rb+") as file:  # a power failure must not leave a name without content
            os.fsync(file.fileno())
        partial.chmod(_mode(target))  # mkstemp's files are private
        os.replace(partial, target)
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)  # not that of the temporary file
        raise
    finally:
        if partial is not target:
            partial.unlink(missing_ok=True)
    _remove_abandoned(target.parent, prefix)


def _mode(path: Path) -> int:
    """The permissions of a file, or those that a new file gets."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove the temporary files of a name that nobody has written to for a day, where that is allowed."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(prefix) and time.time() - os.stat(folder / name).st_mtime > DAY:
                os.unlink(folder / name)


@contextmanager
def locked(path: AnyPath) -> Iterator[None]:
    """Keep other processes out of such a block for the same path; BlockingIOError if one is in it.

    For a file that is read, and written anew some time later. The lock is on a file beside it, which goes at the end;
    one that a kill has left bars nobody.
    """
    if fcntl is None:
        yield
        return
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(beside, "rb+", opener=lambda name, _: os.open(name, flags, 0o666)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # else the one that had the lock has just removed this file
            is_free = os.path.samestat(os.stat(beside), os.fstat(file.fileno()))
        except (BlockingIOError, FileNotFoundError):
            is_free = False
        except OSError:  # no locks in this file system
            is_free = True
        if not is_free:
            raise BlockingIOError(errno.EAGAIN, "another run is writing it", os.fspath(path))
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)


def write_state(path: AnyPath, state: Stored, *, kind: str = "model") -> str:
    """Write a state of one of :data:`KINDS` as :func:`write_whole` does, equal states to equal bytes.

    Returns the digest of its content. ValueError if :func:`read_state` would refuse it: a header too long, or a tensor
    of an unusual type.
    """
    header, tensors = state
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    header = {"format": FORMAT, "kind": kind, **header}
    name, stated = os.fspath(path), digest(json.dumps(header), tensors)
    text = json.dumps({DIGEST: stated, **header})
    if len(text) > LONGEST_HEADER:
        raise ValueError(
            f"{name}: {len(text)} characters of column names, categories and settings are too many for a file (the"
            f" limit is {LONGEST_HEADER})"
        )
    for part, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: {part} is of type {tensor.dtype}, which no file holds")
    # one entry of metadata alone: the package writes several in an order of chance; and bytes, as errors of its own
    # writing, on a full disk for example, are no OSErrors
    content = save(tensors, {KEY: text})
    write_whole(path, lambda partial: partial.write_bytes(content))
    return stated


def read_state(path: AnyPath, *, kind: str = "model") -> Stored:
    """The state of one of :data:`KINDS` in a file.

    OSError if the file cannot be opened, or is no regular file; ValueError that names it if it is foreign, damaged, of
    another kind or of another format.
    """
    try:
        content = _content(path)
    except MemoryError:
        raise ValueError(f"{os.fspath(path)}: too large for this machine's memory") from None
    with building(os.fspath(path)):
        return _state(content, kind)


def _state(content: bytes, kind: str) -> Stored:
    with building("the file"):  # safetensors raises errors of many kinds
        tensors = load(content)
        outer = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(outer.get("__metadata__", {}))
    if KEY not in metadata:
        raise ValueError(f"a safetensors file, but not a discrete_itd {kind}")
    try:
        header = dict(json.loads(metadata[KEY]))
        header.pop(DIGEST, None)
        text = json.dumps(header)
        is_sound = metadata[KEY] == json.dumps({DIGEST: digest(text, tensors), **header})
    except Exception as error:  # of many kinds, too
        raise ValueError(f"the file is damaged ({error!r:.200})") from None
    # before the digest, which another format may make in another way
    version = header.pop("format", None)
    if type(version) is int and version > 0:
        check_format(version)
    found = header.pop("kind", None)
    if not is_sound or version != FORMAT or found not in [*KINDS]:
        raise ValueError("the file is damaged (its digest does not match)")
    if found != kind:
        raise ValueError(f"the file holds {KINDS[found]}, not {KINDS[kind]}")
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"the file is damaged ({key} is of type {tensor.dtype})")
    return header, tensors


def check_format(version: int) -> None:
    """ValueError unless a model of this format can be read."""
    if version != FORMAT:
        advice = "upgrade discrete_itd" if version > FORMAT else "fit the model anew"
        raise ValueError(f"format {version}, but this release reads format {FORMAT}; {advice}")


def _content(path: AnyPath) -> bytes:
    """The bytes of a regular file; an OSError for a folder, a device or a pipe, which is not waited for."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    # not mapped into memory: a file that another process shortens would end this one
    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return file.read()


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header's text and of the tensors, whatever the order in which a file holds them."""
    sha = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if len(flat):  # else there are no bytes to view
            sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


@contextmanager
def building(field: str) -> Iterator[None]:
    """Name the field in a ValueError if its data cannot be made into an object.

    Constructors check their arguments for mistakes of a programmer. Data from a file may be anything, so whatever a
    constructor raises, also one of a trusted class, means that the field is damaged.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    except Exception as error:
        raise ValueError(f"{field} is damaged ({error!r})") from error
