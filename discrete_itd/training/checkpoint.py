"""Checkpoints: the state of a training in a file, so that a run that is killed goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from discrete_itd.encoders import plain
from discrete_itd.storage.files import State, digest, read_state, write_state
from discrete_itd.training.config import TrainingPlan

INTERVAL = 30.0  # seconds between two writings
MOST_DIFFERENCES = 3  # that a refusal names


class Checkpoint:
    """A file in which a training keeps its state, whole or not at all.

    A file that is there already is read at once; the training that is given this object goes on from it.

    Parameters
    ----------
    path : path-like
    interval : float
        Seconds between two writings at least.

    Attributes
    ----------
    note : dict of JSON data
        The caller's own, written with every state and found here again: what is to be known before the training
        can be set up as it was, like a seed.

    Raises
    ------
    OSError
        If the file is there and cannot be read.
    ValueError
        If it is damaged, or something else than a checkpoint.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(Path(folder) / "run")
    ...     checkpoint.note["seed"] = 3
    ...     checkpoint.write({"table": "a"}, ({"step": 7}, {}))
    ...     again = Checkpoint(Path(folder) / "run")
    >>> again.note, again.found({"table": "a"})[0]["step"]
    ({'seed': 3}, 7)
    """

    def __init__(self, path: str | os.PathLike[str], *, interval: float = INTERVAL) -> None:
        self.path, self.interval = Path(path), interval
        self.note: dict[str, Any] = {}
        self._written = -float("inf")
        self._found: State | None = None
        self._parts: list[Checkpoint] = []
        try:
            header, tensors = read_state(path, kind="checkpoint")
        except FileNotFoundError:
            return
        try:
            self._identity, self.note, state = (header[k] for k in ("run", "note", "state"))
        except LookupError as error:
            raise self.damaged(error) from None
        if not all(isinstance(part, dict) for part in (self._identity, self.note, state)):
            raise self.damaged(TypeError("a part of it is no mapping"))
        self._found = state, tensors

    def damaged(self, error: Exception) -> ValueError:
        """The error to raise if what is in the file means nothing."""
        return ValueError(f"{self.path}: the checkpoint is damaged ({error!r})")

    def found(self, identity: Mapping[str, Any]) -> State | None:
        """The state to go on from; None if there was no file.

        Parameters
        ----------
        identity : mapping
            Of the training that asks, by :func:`describe`.

        Raises
        ------
        ValueError
            If the state is that of another training, saying in what it differs.
        """
        if self._found is None:
            return None
        differences = _differences(self._identity, json.loads(json.dumps(identity)))
        if differences:
            raise ValueError(
                f"{self.path}: the checkpoint is of another run: {'; '.join(differences[:MOST_DIFFERENCES])}."
                " Repeat that run to go on with it, or remove the file to start anew"
            )
        return self._found

    @property
    def due(self) -> bool:
        """Whether the interval is over."""
        return time.monotonic() - self._written >= self.interval

    def write(self, identity: Mapping[str, Any], state: State) -> None:
        """Replace what is in the file; OSError if that fails, and the file is then as it was."""
        header = {"run": identity, "note": self.note, "state": state[0]}
        write_state(self.path, (header, state[1]), kind="checkpoint")
        self._written = time.monotonic()
        self._found = None  # it is no longer what the file holds

    def part(self, i: int) -> Checkpoint:
        """The checkpoint of the i-th training of several: the file itself, then ones beside it with a number."""
        if i == 0:
            return self
        self._parts.append(Checkpoint(f"{self.path}.{i}", interval=self.interval))
        return self._parts[-1]

    def remove(self) -> None:
        """Delete the file and its parts, when what was trained is safe elsewhere."""
        for part in self._parts:
            part.remove()
        self.path.unlink(missing_ok=True)
        self._found = None


def describe(denoiser: nn.Module, x: Tensor, x_valid: Tensor, plan: TrainingPlan) -> dict[str, Any]:
    """What makes a training the one it is, as JSON data: the rows, the plan, and the network but for its weights."""
    fitted = {name for name, p in denoiser.named_parameters() if p.requires_grad}
    weights = denoiser.state_dict()
    frozen = {name: w for name, w in weights.items() if name not in fitted}
    return {
        "plan": {name: plain(value) for name, value in asdict(plan).items()},
        "device": x.device.type,
        "training rows": [list(x.shape), digest("", {"": x})],
        "validation rows": [list(x_valid.shape), digest("", {"": x_valid})],
        "weights": {name: [str(w.dtype), list(w.shape)] for name, w in weights.items()},
        "weights that are not trained": digest("", frozen),
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two trainings differ, in words."""
    out = []
    for what in [*new, *(k for k in old if k not in new)]:
        a, b = old.get(what), new.get(what)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            for k in [*b, *(k for k in a if k not in b)]:
                was, now = a.get(k, "absent"), b.get(k, "absent")
                if was != now:
                    out.append(f"{what}: {k} was {was}, not {now}")
        elif isinstance(a, list) and isinstance(b, list) and len(a) == 2 and a[0] != b[0]:
            out.append(f"the {what} had the shape {a[0]}, not {b[0]}")
        elif isinstance(a, str) and len(a) < 20:
            out.append(f"the {what} was {a}, not {b}")
        else:
            out.append(f"the {what} are others")
    return out
