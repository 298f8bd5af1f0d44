"""Probability of the rows of a table, by information-theoretic diffusion.

Start with ``DiffusionDensity``; ``DiffusionOutlierDetector`` finds anomalies and ``DriftWatch`` changes in a stream of
rows, ``ImageDensity`` scores images by an existing diffusion model, and ``report`` writes an HTML page on a density or
a detector. Of a table in hand, ``find_outliers`` names the odd rows and ``find_errors`` the cells that are probably
wrong, without a fit before, and ``find_rules`` what its rows obey; ``compare_tables`` says how well drawn rows imitate
real ones. ``recipes`` lists the models that a density can fit, ``datasets`` loads example tables.

Three ideas make it up, in the order in which data flow: an encoder maps the columns of a table to points
(:mod:`discrete_itd.encoders`); a Gaussian channel adds noise (:mod:`discrete_itd.channel`), and a denoiser predicts the
clean row (:mod:`discrete_itd.denoisers`); the I-MMSE estimator turns the denoising error into log-probabilities
(:mod:`discrete_itd.likelihood`). Each name is imported when it is first used.

The user guide is in the folder ``guide`` of the package, ``discrete_itd.__docs_dir__``, whose ``llms.txt`` lists
its pages; :mod:`discrete_itd.testing` shows how to write your own parts.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads of OpenMP that wait for each other spin, which starves them where other programs run (discrete_itd.devices).
# Its library reads these when torch loads it. They stay as they are if the user has set one of them.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # LLVM's and Intel's OpenMP
    os.environ["GOMP_SPINCOUNT"] = (
        "1000"  # GNU's: 20 µs, not 5 ms; at 0, waking a thread costs what it gains
    )

if TYPE_CHECKING:
    from discrete_itd import datasets, recipes
    from discrete_itd.cells.errors import find_errors
    from discrete_itd.cells.repair import repair_errors
    from discrete_itd.detection.detector import DiffusionOutlierDetector
    from discrete_itd.detection.outliers import find_outliers
    from discrete_itd.detection.watch import DriftWatch
    from discrete_itd.estimators import DiffusionDensity
    from discrete_itd.images.density import ImageDensity
    from discrete_itd.reporting.fidelity import compare_tables
    from discrete_itd.reporting.graph import find_graph
    from discrete_itd.reporting.near_rows import find_near_rows
    from discrete_itd.reporting.page import report
    from discrete_itd.rules.rules import find_rules

__version__ = "0.1.0"
__docs_dir__ = os.path.join(os.path.dirname(__file__), "guide")

__all__ = [
    "DiffusionDensity",
    "DiffusionOutlierDetector",
    "DriftWatch",
    "ImageDensity",
    "compare_tables",
    "datasets",
    "find_errors",
    "find_graph",
    "find_near_rows",
    "find_outliers",
    "find_rules",
    "recipes",
    "repair_errors",
    "report",
]

_HOMES = {
    "DiffusionDensity": "estimators",
    "DiffusionOutlierDetector": "detection.detector",
    "DriftWatch": "detection.watch",
    "ImageDensity": "images.density",
    "compare_tables": "reporting.fidelity",
    "find_errors": "cells.errors",
    "find_graph": "reporting.graph",
    "find_near_rows": "reporting.near_rows",
    "find_outliers": "detection.outliers",
    "find_rules": "rules.rules",
    "repair_errors": "cells.repair",
    "report": "reporting.page",
}


def __getattr__(name: str) -> Any:
    if name in ("datasets", "recipes"):
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
