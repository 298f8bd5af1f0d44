"""A small detector and tables for the tests of figures and reports."""

from functools import cache

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity
from discrete_itd.detection.detector import DiffusionOutlierDetector

EVIL = "<script>document.title='owned'</script>"
SETTINGS = {
    "denoiser": "tree",
    "n_evaluations": 8,
    "random_state": 0,
}


def table(n, seed):
    """Two dependent columns, an independent one, and names and values that need escaping."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, n)
    words = np.array([EVIL, "a&b $x_1$", "quo\"te's"])
    return pd.DataFrame(
        {
            "kind": words[kind],
            "<b>twin</b>": kind + random.integers(0, 2, n),
            "free": random.choice(list("uvwxyz"), n),
        }
    )


@cache
def density():
    return DiffusionDensity(max_steps=150, **SETTINGS).fit(table(600, 0))


@cache
def detector(rate=0.05):
    frozen = FrozenEstimator(density())
    return DiffusionOutlierDetector(frozen, false_alarm_rate=rate).fit(table(200, 1))


@cache
def mixed_density():
    """A density with a continuous column and missing cells, and its table."""
    frame = table(300, 2)
    frame["size"] = np.random.default_rng(3).normal(frame["<b>twin</b>"], 0.3)
    frame.loc[::7, "free"] = None
    return DiffusionDensity(max_steps=5, **SETTINGS).fit(frame), frame


@cache
def default_detector(**settings):
    """A detector that fits its own density."""
    model = DiffusionDensity(max_steps=5, column_types="nominal", **SETTINGS)
    return DiffusionOutlierDetector(model, random_state=0, **settings).fit(table(500, 0))


def nothing(n=5):
    """Rows of missing cells."""
    return pd.DataFrame(None, range(n), table(1, 0).columns, dtype=object)


def odd(n=4):
    """Anomalies: rows with unseen values."""
    frame = table(n, 5)
    frame["<b>twin</b>"] = 3
    frame[["kind", "free"]] = EVIL, "?"
    return frame
