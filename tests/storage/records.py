"""The search of a model's file for rows of the table that it was fitted to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity
from discrete_itd.storage import files

NEAR = 2e-6  # of a column's standard deviation: float32 numbers differ by less, averages by more
DIGITS = 6  # of a number in a text that one row alone has


def arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a file, and the numbers side by side in every list and mapping of its header."""
    header, tensors = files.read_state(path)
    yield from ((name, tensor.numpy()) for name, tensor in tensors.items())
    yield from _numbers("header", header)


def _numbers(where: str, data: Any) -> Iterator[tuple[str, np.ndarray]]:
    inner = data if isinstance(data, dict) else dict(enumerate(data))
    yield where, np.array([v for v in inner.values() if isinstance(v, float | int)], dtype=float)
    for name, value in inner.items():
        if isinstance(value, dict | list):
            yield from _numbers(f"{where}.{name}", value)


def as_numbers(density: DiffusionDensity, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows without gaps (N, m) as a file might hold them.

    All cells encoded, those of continuous columns alone, and numbers and times in the table's units.
    """
    x = density.rows(frame).x.cpu().numpy()
    units = frame.select_dtypes(["number", "datetime"])
    units = units.astype({name: "int64" for name in units.select_dtypes("datetime")})
    reals = density.encoder_.codebook().reals.cpu().numpy()
    out = {"encoded": x, "continuous": x[:, reals], "units": units.to_numpy(dtype=float)}
    return {name: rows[~np.isnan(rows).any(1)] for name, rows in out.items()}


def rows_in(path: Path, rows: np.ndarray) -> list[tuple[str, int]]:
    """Arrays of a file, and the rows of ``rows`` (N, m), m > 1, that stand in them.

    As m numbers side by side along any axis or across its lines, in any type of the file.
    """
    scale, found = rows.std(0) + np.finfo(float).tiny, set()
    j = max(range(rows.shape[1]), key=lambda j: len(np.unique(rows[:, j])))
    order = rows[:, j].argsort()
    known = rows[order, j] / scale[j]
    for name, array in arrays(path):
        array = array.astype(float)
        for one in [np.moveaxis(array, i, -1) for i in range(array.ndim)] + [array.reshape(-1)]:
            if not one.size or one.shape[-1] < rows.shape[1]:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(one, rows.shape[1], -1)
            cells = windows[..., j] / scale[j]
            first, end = (np.searchsorted(known, cells + side) for side in (-NEAR, NEAR))
            while (near := first < end).any():
                some = order[first[near]]
                equal = (np.abs(rows[some] - windows[near]) <= NEAR * scale).all(1)
                found.update((name, int(k)) for k in some[equal])
                first = first + 1
    return sorted(found)


def cells_in(path: Path, cells: np.ndarray) -> list[tuple[str, float]]:
    """Arrays of float64, and the numbers (n,) of many digits that occur once and stand in them.

    Not of float32: among so many cells and weights, some are equal by chance.
    """
    distinct, counts = np.unique(cells, return_counts=True)
    single = [
        c for c in distinct[counts == 1] if len(f"{c:.15e}".split("e")[0].strip("-0")) > DIGITS
    ]
    return [
        (name, cell)
        for name, array in arrays(path)
        if array.dtype == np.float64
        for cell in np.intersect1d(array, single).tolist()
    ]


def texts_in(path: Path, frame: pd.DataFrame) -> list[str]:
    """Cells of many digits that one row alone has and that the header, or the card, writes."""
    text = json.dumps(files.read_state(path)[0]) + Path(f"{path}.md").read_text()
    starts = {
        text[i : i + DIGITS] for i in range(len(text))
    }  # or each cell is looked for in all of it
    return [
        f"{name}: {cell}"
        for name in frame.select_dtypes(["number", "datetime"])
        for cell in frame[name].drop_duplicates(keep=False).astype(str)
        if sum(map(str.isdigit, cell)) >= DIGITS and cell[:DIGITS] in starts and cell in text
    ]
