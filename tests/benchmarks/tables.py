"""Results of the benchmarks: kept between runs, timed, and printed as Markdown."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.recipes import Network

CACHE = Path(__file__).parent / ".cache"


def estimator(
    max_time: float | None, *, quick: bool = False, **parameters: Any
) -> DiffusionDensity:
    """A model that may train for ``max_time`` seconds, or as by default if that is None; or a few steps, to try it."""
    parameters.setdefault("random_state", 0)
    if quick:
        parameters |= {
            "n_evaluations": 16,
            "denoiser": Network(width=64, depth=1, base="independent"),
            "max_steps": 40,
        }
    elif max_time is not None:
        parameters["max_steps"] = 1_000_000
    return DiffusionDensity(max_time=max_time, **parameters)


def available(package: str) -> bool:
    """Whether an optional package is there; if not, a line says what is skipped."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"skipped the peers that need the package {package}")
    return found


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    value = call(*arguments)
    return value, time.perf_counter() - start


def processor_timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a call returns, and its processor-seconds, which others on a busy machine do not lengthen."""
    start = time.process_time()
    value = call(*arguments)
    return value, time.process_time() - start


def kept(name: str) -> dict[str, Any]:
    """What an earlier run left in ``.cache/<name>.json``; empty if nothing."""
    file = CACHE / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def keep(name: str, key: str, entry: Any) -> None:
    """Add one result to ``.cache/<name>.json``, at once: whoever reads it meanwhile finds a whole file."""
    file = CACHE / f"{name}.json"
    file.parent.mkdir(exist_ok=True, parents=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(kept(name) | {key: entry}))
    part.replace(file)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats to three digits after the point."""

    def cell(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def print_lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, each line as soon as its row is known."""
    print(markdown(header, []), flush=True)
    for row in rows:
        print(markdown(header, [row]).splitlines()[2], flush=True)


def machine() -> str:
    """What this runs on, and when."""
    what = f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}"
    return f"{what}, {date.today().isoformat()}"


def plus_minus(values: np.ndarray) -> str:
    """Mean and standard error, as a cell of a table."""
    return "{:.3f} ± {:.3f}".format(*mean_and_error(values))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
