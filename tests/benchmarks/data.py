"""The density-estimation benchmark tables (binary columns, fixed splits).

They are not part of the repository. The environment variable ``DISCRETE_ITD_SHARED`` names the
folder that holds ``data/density/<name>.npz``; without it, the folder ``shared`` beside the
repository is tried.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Density(NamedTuple):
    """One benchmark table: three splits of 0/1 codes, each uint8 of shape (N, C)."""

    train: NDArray[np.uint8]
    valid: NDArray[np.uint8]
    test: NDArray[np.uint8]


def density_path(name: str) -> Path:
    """Return where the table `name` is expected; it may be absent."""
    default = Path(__file__).parents[3] / "shared"
    shared = Path(os.environ.get("DISCRETE_ITD_SHARED", default))
    return shared / "data" / "density" / f"{name}.npz"


def has_density(name: str) -> bool:
    """Return whether the table `name` is there, to skip a test that needs it."""
    return density_path(name).is_file()


def load_density(name: str) -> Density:
    """Load a benchmark table.

    Parameters
    ----------
    name : str
        For example "nltcs", "plants", "accidents", "baudio", "bnetflix", "jester", "mushrooms".

    Returns
    -------
    table : Density
        The splits `train`, `valid` and `test`.

    Raises
    ------
    FileNotFoundError
        If the file is absent; the message says where it was looked for.
    """
    path = density_path(name)
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: set DISCRETE_ITD_SHARED to the folder above data/")
    with np.load(path) as archive:
        n_columns = int(archive["n_columns"])
        train, valid, test = (
            np.unpackbits(archive[split], axis=1)[:, :n_columns]
            for split in ("train", "valid", "test")
        )
    return Density(train, valid, test)
