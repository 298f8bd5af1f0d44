"""Probability of the rows of a table, by information-theoretic diffusion.

Start with ``DiffusionDensity``; ``DiffusionOutlierDetector`` finds anomalies and ``DriftWatch`` changes in a stream of
rows, ``ImageDensity`` scores images by an existing diffusion model, and ``report`` writes an HTML page on a density or
a detector. ``recipes`` says what a density can fit, ``datasets`` loads tables to try it on.

Three ideas make it up, in the order in which data flow: an encoder maps the columns of a table to points
(:mod:`discrete_itd.encoders`); a Gaussian channel adds noise (:mod:`discrete_itd.channel`), and a denoiser predicts the
clean row (:mod:`discrete_itd.denoisers`); the I-MMSE estimator turns the denoising error into log-probabilities
(:mod:`discrete_itd.likelihood`). Each name is imported when it is first used.

The user guide is in the folder ``guide`` of the package; parts of one's own are in :mod:`discrete_itd.testing`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads of OpenMP that wait for each other spin, which starves them where other programs run (discrete_itd.threads).
# Its library reads these when torch loads it. They stay as they are if the user has set one of them.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # LLVM's and Intel's OpenMP
    os.environ["GOMP_SPINCOUNT"] = (
        "1000"  # GNU's: 20 µs, not 5 ms; at 0, waking a thread costs what it gains
    )

if TYPE_CHECKING:
    from discrete_itd import datasets, recipes
    from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
    from discrete_itd.detection.detector import DiffusionOutlierDetector
    from discrete_itd.detection.watch import DriftWatch
    from discrete_itd.estimators import DiffusionDensity
    from discrete_itd.images.density import ImageDensity
    from discrete_itd.recipes import BayesNet, Independent, Mixture, Network, RowMixture, Trees
    from discrete_itd.reporting.page import report

__version__ = "0.1.0"

__all__ = [
    "BayesNet",
    "CoordinateSchedule",
    "DiffusionDensity",
    "DiffusionOutlierDetector",
    "DriftWatch",
    "ImageDensity",
    "Independent",
    "IsotropicSchedule",
    "Mixture",
    "Network",
    "RowMixture",
    "Trees",
    "datasets",
    "recipes",
    "report",
]

_HOMES = {
    "channel": ("CoordinateSchedule", "IsotropicSchedule"),
    "detection.detector": ("DiffusionOutlierDetector",),
    "detection.watch": ("DriftWatch",),
    "estimators": ("DiffusionDensity",),
    "images.density": ("ImageDensity",),
    "recipes": ("BayesNet", "Independent", "Mixture", "Network", "RowMixture", "Trees"),
    "reporting.page": ("report",),
}


def __getattr__(name: str) -> Any:
    if name in ("datasets", "recipes"):
        return import_module(f"{__name__}.{name}")
    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
