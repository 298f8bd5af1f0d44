"""Stability of the ranking of rows when cells are corrupted or missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state

from discrete_itd.detection.scoring import Scorer, scorer_of
from discrete_itd.encoders import ABSENT
from discrete_itd.encoders.rows import Rows
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import progress_bar
from discrete_itd.validation import check_integer


def robustness(
    model: DiffusionDensity | Scorer,
    X: Any,
    y: Any = None,
    *,
    kind: Literal["noise", "missing"] = "noise",
    shares: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    n_repeats: int = 3,
    random_state: int | np.random.RandomState | None = 0,
) -> pd.DataFrame:
    """How the ranking of rows by their score changes when cells are corrupted.

    Parameters
    ----------
    model : DiffusionDensity or Scorer
        Fitted; its score ranks the rows.
    X : DataFrame, array-like or Rows, shape (N, C)
    y : array-like, shape (N,), optional
        1, or True, for anomalies, 0 for inliers.
    kind : {"noise", "missing"}
        Whether a corrupted cell gets the value of the column in another row, drawn at random, or is missing.
    shares : sequence of float
        Probabilities with which a cell is corrupted.
    n_repeats : int
        Number of repetitions with each share.
    random_state : int, RandomState or None

    Returns
    -------
    DataFrame
        One line for every share and repetition, the first with a share of 0: ``kind``, ``share``, ``repeat``,
        ``spearman``, the rank correlation with the scores of the uncorrupted rows (NaN where there is none), ``top_1``
        and ``top_5``, the share of the most anomalous 1 % and 5 % of rows that stay among them, and with ``y``
        ``auroc``.

    Raises
    ------
    ValueError, TypeError
        If a share is not between 0 and 1, ``y`` lacks inliers or anomalies, or the table does not fit the model.
    """
    _check(kind, shares, n_repeats)
    scorer = scorer_of(model)
    rows = scorer.density.rows(X)
    labels = None if y is None else _labels(y, len(rows))
    random = check_random_state(random_state)
    plan = [(0.0, 0), *((float(s), r) for s in shares for r in range(n_repeats))]
    undisturbed, lines = np.zeros(0), []
    with progress_bar(len(plan), kind) as bar:
        for share, repeat in plan:
            scores = scorer.score(corrupted(rows, share, kind, random))
            if not len(lines):
                undisturbed = scores
            line = {"kind": kind, "share": share, "repeat": repeat}
            line |= _agreement(undisturbed, scores)
            if labels is not None:
                line["auroc"] = float(roc_auc_score(labels, -scores))
            lines.append(line)
            bar.update(1)
    return pd.DataFrame(lines)


def _check(kind: str, shares: Any, n_repeats: int) -> None:
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


def _labels(y: Any, n_rows: int) -> np.ndarray:
    labels = np.asarray(y)
    if labels.shape != (n_rows,):
        raise ValueError(
            f"y must have one label for each of the {n_rows} rows, got shape {labels.shape}"
        )
    if set(labels.tolist()) != {0, 1}:
        raise ValueError("y must hold both 0 (inlier) and 1 (anomaly), and nothing else")
    return labels.astype(int)


def corrupted(rows: Rows, share: float, kind: str, random: np.random.RandomState) -> Rows:
    """The same rows with each cell of the table corrupted with probability ``share``, its indicator with it."""
    owner, n, n_columns = rows.encoder.owner, len(rows), rows.encoder.n_columns
    x, log_volume = rows.x.cpu().numpy(), rows.log_volume
    hit = (random.random_sample((n, n_columns)) < share)[:, owner]
    if kind == "missing":
        indicator = np.arange(len(owner)) >= n_columns
        x = np.where(hit, np.where(indicator, ABSENT, np.nan), x)
        log_volume = np.where(hit, 0.0, log_volume)
    elif n > 1:
        # the value of another row, the same one for a cell and its indicator
        other = (np.arange(n)[:, None] + random.randint(1, n, size=(n, n_columns))) % n
        other, columns = other[:, owner], np.arange(len(owner))
        x = np.where(hit, x[other, columns], x)
        log_volume = np.where(hit, log_volume[other, columns], log_volume)
    return replace(rows, x=torch.from_numpy(x).to(rows.x.device), log_volume=log_volume)


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
