"""Models of a process: each file is read once, whichever threads and batches ask for it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

from discrete_itd.detection.answers import Model
from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.storage.files import content_digest
from discrete_itd.storage.stored import load_one_of

CLASSES = DiffusionDensity, DiffusionOutlierDetector
MOST_MODELS = 8  # kept by one process


@dataclass(frozen=True)
class _Kept:
    """A model with the state of its file when it was read."""

    model: Model
    stamp: tuple[int, int, int]
    digest: str


_lock = threading.Lock()
_kept: OrderedDict[tuple[str, str, tuple[type, ...]], _Kept] = OrderedDict()


def loaded(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    trusted: tuple[type, ...] = (),
    digest: str | None = None,
) -> Model:
    """The density or the detector in a file, read when it is first asked for and again if the file has changed.

    Threads that ask at the same time wait for one reading. Do not change the model: others score by it, too.

    Parameters
    ----------
    path : path-like
    device : str
    trusted : tuple of type
        As in :meth:`DiffusionDensity.load`.
    digest : str, optional
        What :func:`~discrete_itd.storage.files.content_digest` says of the expected model.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read as a model, or holds another model than expected.
    """
    path = os.path.realpath(path)
    key = path, device, tuple(trusted)
    with _lock:
        status = os.stat(path)
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        kept = _kept.get(key)
        if kept is None or kept.stamp != stamp:
            found = content_digest(path)
            model = load_one_of(path, CLASSES, device=device, trusted=trusted)
            kept = _kept[key] = _Kept(model, stamp, found)
            while len(_kept) > MOST_MODELS:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
    if digest is not None and kept.digest != digest:
        raise ValueError(
            f"{path}: another model than when the job was set up; set it up again, with one file for all workers"
        )
    return kept.model
