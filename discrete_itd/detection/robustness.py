"""How much a ranking of rows hangs on single cells: what noise and missing cells do to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state

from discrete_itd.encoders import ABSENT
from discrete_itd.encoders.frames import unique_rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import progress_bar
from discrete_itd.validation import check_integer


def robustness(
    density: DiffusionDensity,
    X: Any,
    y: Any = None,
    *,
    kind: Literal["noise", "missing"] = "noise",
    shares: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    n_repeats: int = 3,
    random_state: int | np.random.RandomState | None = 0,
) -> pd.DataFrame:
    """How the ranking of rows by their score changes when cells are spoilt.

    Parameters
    ----------
    density : DiffusionDensity
        Fitted.
    X : DataFrame or array-like, shape (N, C)
    y : array-like, shape (N,), optional
        1, or True, for anomalies, 0 for ordinary rows.
    kind : {"noise", "missing"}
        Whether a spoilt cell gets the value that the column has in another row, drawn at random, or none.
    shares : sequence of float
        Shares of the cells to be spoilt, each of which is with this probability.
    n_repeats : int
        How often to do so with each share.
    random_state : int, RandomState or None

    Returns
    -------
    DataFrame
        One line for every share and repeat, the first with a share of 0: ``kind``, ``share``, ``repeat``,
        ``spearman``, the rank correlation with the undisturbed scores (NaN where there is none), ``top_1`` and
        ``top_5``, the share of the strangest 1 % and 5 % of rows that are still among them, and with ``y`` ``auroc``.

    Raises
    ------
    ValueError, TypeError
        If a share is not between 0 and 1, ``y`` is not of both kinds, or the table is not what the model can take.
    """
    if kind not in ("noise", "missing"):
        raise ValueError(f"kind must be 'noise' or 'missing', got {kind!r}")
    check_integer("n_repeats", n_repeats, 1)
    if isinstance(shares, str) or not isinstance(shares, Iterable):
        raise TypeError(f"shares must be a sequence of numbers, got {shares!r}")
    for share in shares:
        if not isinstance(share, int | float | np.number):
            raise TypeError(f"shares must be numbers, got {share!r}")
        if not 0 <= share <= 1:
            raise ValueError(f"shares must be between 0 and 1, got {share!r}")
    asked = density.rows(X)
    cells, log_volume = asked.x, asked.log_volume
    labels = None if y is None else _labels(y, len(cells))
    random = check_random_state(random_state)
    plan = [(0.0, 0), *((float(s), r) for s in shares for r in range(n_repeats))]
    undisturbed, lines = np.zeros(0), []
    with progress_bar(len(plan), kind) as bar:
        for share, repeat in plan:
            x, volume = _spoilt(density, cells.cpu().numpy(), log_volume, share, kind, random)
            unique, inverse = unique_rows(torch.from_numpy(x).to(cells.device))
            scores = density.model_.log_prob(unique, density.n_evaluations).log_prob.cpu().numpy()
            scores = scores[inverse] + volume.sum(1)
            if not len(lines):
                undisturbed = scores
            line = {"kind": kind, "share": share, "repeat": repeat}
            line |= _agreement(undisturbed, scores)
            if labels is not None:
                line["auroc"] = float(roc_auc_score(labels, -scores))
            lines.append(line)
            bar.update(1)
    return pd.DataFrame(lines)


def _labels(y: Any, n_rows: int) -> np.ndarray:
    labels = np.asarray(y)
    if labels.shape != (n_rows,):
        raise ValueError(
            f"y must have one label for each of the {n_rows} rows, got shape {labels.shape}"
        )
    if set(labels.tolist()) != {0, 1}:
        raise ValueError("y must hold both 0 (ordinary) and 1 (anomaly), and nothing else")
    return labels.astype(int)


def _spoilt(
    density: DiffusionDensity,
    x: np.ndarray,
    log_volume: np.ndarray,
    share: float,
    kind: str,
    random: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Encoded rows (N, C') and their log-volumes with some of the user's cells spoilt."""
    owner, n = density.encoder_.owner, len(x)
    hit = (random.random_sample((n, density.encoder_.n_columns)) < share)[:, owner]
    if kind == "missing":
        told = np.arange(len(owner)) >= density.encoder_.n_columns
        x = np.where(hit, np.where(told, ABSENT, np.nan), x)
        return x, np.where(hit, 0.0, log_volume)
    if n < 2:
        return x, log_volume
    # of another row, the same one for a cell and its indicator
    other = (np.arange(n)[:, None] + random.randint(1, n, size=(n, density.encoder_.n_columns))) % n
    other = other[:, owner]
    columns = np.arange(len(owner))
    return np.where(hit, x[other, columns], x), np.where(
        hit, log_volume[other, columns], log_volume
    )


def _agreement(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Rank correlation of two vectors of scores, and the shares of the lowest 1 and 5 % kept."""
    kept = {}
    for percent in (1, 5):
        n = max(1, round(len(before) * percent / 100))
        lowest = (set(np.argsort(s, kind="stable")[:n].tolist()) for s in (before, after))
        kept[f"top_{percent}"] = len(set.intersection(*lowest)) / n
    varied = len(before) > 1 and np.ptp(before) > 0 and np.ptp(after) > 0
    correlation = float(cast(Any, stats.spearmanr(before, after))[0]) if varied else math.nan
    return {"spearman": correlation, **kept}
