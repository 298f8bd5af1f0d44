"""Stability of the ranking of rows when cells are corrupted or missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from discrete_itd.detection.scoring import Scorer, scorer_of
from discrete_itd.encoders import ABSENT
from discrete_itd.encoders.rows import Rows, check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.progress import progress_bar
from discrete_itd.validation import check_integer, check_random_state


def robustness(
    model: DiffusionDensity | Scorer,
    X: Any,
    y: Any,
    kind: str,
    shares: Sequence[float],
    n_repeats: int,
    random_state: int | np.random.RandomState | None,
) -> pd.DataFrame:
    """How the ranking by a fitted model's score changes when cells are corrupted.

    See :meth:`discrete_itd.DiffusionOutlierDetector.robustness`.
    """
    _check(kind, shares, n_repeats)
    scorer = scorer_of(model)
    rows = check_any(scorer.density.rows(X))
    labels = None if y is None else _labels(y, len(rows))
    random = check_random_state(random_state)
    plan = [(0.0, 0), *((float(s), r) for s in shares for r in range(n_repeats))]
    undisturbed, lines = None, []
    with progress_bar(len(plan), kind) as bar:
        for share, repeat in plan:
            scores = scorer.score(corrupted(rows, share, kind, random))
            undisturbed = scores if undisturbed is None else undisturbed
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
    values = np.asarray(shares)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise TypeError(f"shares must be a sequence of numbers, got {shares!r}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"shares must be between 0 and 1, got {shares!r}")


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
