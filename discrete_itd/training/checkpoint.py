"""Checkpoints: the state of a training in a file, from which a run that was killed continues."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from discrete_itd.storage.files import Stored, digest, read_state, remove_leftovers, write_state
from discrete_itd.training.config import TrainingPlan

INTERVAL = 30.0  # seconds between two writings
MOST_DIFFERENCES = 3  # named in an error message
LAYOUT = 5  # version of the state's layout


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run or release."""


class Checkpoint:
    """A file in which a training keeps its state, written at most every ``interval`` seconds.

    The file is replaced as a whole. An existing one is read at once, and the training that is given this object
    continues from it. Only the release that wrote a checkpoint is guaranteed to read it.

    Attributes
    ----------
    note : dict of JSON data
        For the caller, written with every state and read again: what is needed to set up the same training, like a
        seed.

    Raises
    ------
    OSError
        If the file exists and cannot be read.
    CheckpointError
        If it is damaged, is no checkpoint, or was written by a release with another layout of the state.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(Path(folder) / "run")
    ...     checkpoint.note["seed"] = 3
    ...     checkpoint.write({"table": {"rows": 3}}, ({"step": 7}, {}))
    ...     again = Checkpoint(Path(folder) / "run")
    >>> again.note, again.found({"table": {"rows": 3}})[0]["step"]
    ({'seed': 3}, 7)
    """

    def __init__(self, path: str | os.PathLike[str], *, interval: float = INTERVAL) -> None:
        self.path, self.interval = Path(path), interval
        self.note: dict[str, Any] = {}
        self._written = -float("inf")
        self._found: Stored | None = None
        self._parts: dict[int, Checkpoint] = {}
        try:
            header, tensors = read_state(path, kind="checkpoint")
        except FileNotFoundError:
            return
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        if header.get("layout") != LAYOUT:
            raise CheckpointError(
                f"{self.path}: the checkpoint was written by another release of discrete_itd. Continue with that"
                " release, or remove the file to start anew"
            )
        parts = [header.get(k) for k in ("run", "note", "state")]
        if not all(isinstance(part, dict) for part in parts):
            raise self.damaged(TypeError("a part of it is missing"))
        self._identity, self.note, state = cast(list[dict[str, Any]], parts)
        self._found = state, tensors

    @classmethod
    def of(cls, given: str | os.PathLike[str] | Checkpoint | None) -> Checkpoint | None:
        """The checkpoint in a file; an open checkpoint, or None, is returned unchanged."""
        return given if given is None or isinstance(given, Checkpoint) else cls(given)

    def damaged(self, error: Exception) -> CheckpointError:
        """The error to raise if the content of the file is invalid."""
        return CheckpointError(f"{self.path}: the checkpoint is damaged ({error!r})")

    def found(self, identity: Mapping[str, Any]) -> Stored | None:
        """The state to continue from, None if there was no file; ``identity`` is the :func:`describe` of the training.

        A CheckpointError names the differences if the state belongs to another training.
        """
        if self._found is None:
            return None
        differences = _differences(self._identity, json.loads(json.dumps(identity)))
        if differences:
            raise CheckpointError(
                f"{self.path}: the checkpoint belongs to another run: {'; '.join(differences[:MOST_DIFFERENCES])}."
                " Repeat that run to continue it, or remove the file to start anew"
            )
        return self._found

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= self.interval

    def write(self, identity: Mapping[str, Any], state: Stored) -> None:
        """Replace the content of the file; if that fails, OSError, and the file is unchanged."""
        header = {"layout": LAYOUT, "run": identity, "note": self.note, "state": state[0]}
        write_state(self.path, (header, state[1]), kind="checkpoint")
        self._written = time.monotonic()
        self._found = None  # the file holds another state now

    def part(self, i: int) -> Checkpoint:
        """The checkpoint of the i-th of several trainings: this file for the first, numbered files beside it."""
        if i == 0:
            return self
        part = self._parts.get(i) or Checkpoint(self._path_of(i), interval=self.interval)
        self._parts[i] = part
        return part

    def remove(self) -> None:
        """Delete the file and its parts; call it when the trained model is saved elsewhere."""
        for path in (self.path, *map(self._path_of, self._parts)):
            remove_leftovers(path)
            path.unlink(missing_ok=True)
        self._found = None

    def _path_of(self, i: int) -> Path:
        return Path(f"{self.path}.{i}")


def describe(
    denoiser: nn.Module, x: Tensor, x_valid: Tensor, plan: TrainingPlan, n_rows: int
) -> dict[str, dict[str, Any]]:
    """Identity of a training, as JSON data: digests of the rows, the plan, and the network without its weights.

    ``x`` may be a sample of the ``n_rows`` training rows.
    """
    fitted = {name for name, p in denoiser.named_parameters() if p.requires_grad}
    weights = denoiser.state_dict()
    settings = {**asdict(plan), "max_time": None}  # the remaining time differs between runs
    frozen = {name: w for name, w in weights.items() if name not in fitted}
    return {
        "plan": {name: np.asarray(value).tolist() for name, value in settings.items()},
        "device": {"type": x.device.type},
        "training rows": {"shape": [n_rows, x.shape[1]], "digest": digest("", {"": x})},
        "validation rows": {"shape": list(x_valid.shape), "digest": digest("", {"": x_valid})},
        "weights": {name: [str(w.dtype), list(w.shape)] for name, w in weights.items()},
        "weights that are not trained": {"digest": digest("", frozen)},
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, dict[str, Any]]) -> list[str]:
    """The differences between two trainings, as text."""
    out = []
    for part, now in new.items():
        was = old.get(part)
        was = was if isinstance(was, dict) else {}
        for name in {**now, **was}:
            a, b = was.get(name, "absent"), now.get(name, "absent")
            if a != b:
                out.append(f"{part}: {name} was {a}, not {b}")
    return out
