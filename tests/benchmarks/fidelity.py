r"""How well synthetic rows imitate real ones: the scores of the literature, each 1 at best.

Detection (C2ST): a classifier is trained to tell real from synthetic rows, in three folds, and the score is
:math:`1 - \overline{\max(1/2, \text{AUC}) \cdot 2 - 1}`: 1 if it guesses, 0 if it is always right. Numbers go in as
they are, text one-hot, integers that stand for categories as numbers, as in SDMetrics
(``single_table/detection/base.py``) and, with XGBoost instead of logistic regression, in tabpc's
``src/metrics/metrics.py``.

Shape and trend are TabSyn's (and SDMetrics'): of a column one minus the Kolmogorov-Smirnov statistic (numbers) or the
total variation (categories); of a pair one minus half the difference of Pearson's correlations (numbers), or the total
variation of their joint table, numbers in ten bins of equal width over the real range; each averaged.

Weighted NMI is tabpc's: with numbers in ten such bins, the normalised mutual information of a pair is
:math:`2 I(a; b) / (H(a) + H(b))`, and the score is one minus the mean of its absolute differences, weighted by the sum
of both. Pairs that depend on each other count, and unlike in the trend many independent ones cannot hide them.

Global utility is TabStruct's: every column in turn is predicted from all others, by a model trained on synthetic rows
and by one trained on real rows, both tested on real ones; balanced accuracy of a category, the inverse of the root mean
squared error of a number. The score is the mean over columns of the ratio. A random forest stands for TabStruct's nine
tuned predictors.

References
----------
Zhang et al., "Mixed-Type Tabular Data Synthesis with Score-based Diffusion in Latent Space", 2024, arXiv:2310.09656.
Scassola, Ponsford et al., "A Sobering Look at Tabular Data Generation via Probabilistic Circuits", 2026,
arXiv:2603.23016; code: github.com/april-tools/tabpc.
Jiang, Simidjievski & Jamnik, "TabStruct: Measuring Structural Fidelity of Tabular Data", 2026, arXiv:2509.11950.
Lopez-Paz & Oquab, "Revisiting Classifier Two-Sample Tests", 2017, arXiv:1610.06545.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.metrics import recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from discrete_itd.reporting.fidelity import total_variation

BINS = 10
FOLDS = 3
FOREST_ROWS = 5000  # of the global utility: trained on so many rows at most
HAS_XGBOOST = importlib.util.find_spec("xgboost") is not None
BOOSTING = "XGBoost" if HAS_XGBOOST else "HistGradientBoosting (xgboost is not installed)"


class Detection(NamedTuple):
    """Area under the curve of each fold, shape (3,)."""

    aucs: np.ndarray

    @property
    def score(self) -> float:
        """1 if real and synthetic rows cannot be told apart, 0 if always."""
        return 1 - float((np.maximum(0.5, self.aucs) * 2 - 1).mean())

    @property
    def error(self) -> float:
        """Standard error of the score over the folds."""
        return float((np.maximum(0.5, self.aucs) * 2).std(ddof=1) / np.sqrt(len(self.aucs)))


def detection(real: pd.DataFrame, synthetic: pd.DataFrame, seed: int = 0) -> Detection:
    """Detection of the synthetic rows by boosted trees, cross-validated."""
    X = features(pd.concat([real, synthetic[real.columns]], ignore_index=True))
    y = np.repeat([1, 0], [len(real), len(synthetic)])
    aucs = []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y):
        model = booster("classifier").fit(X.iloc[train], y[train])
        aucs.append(roc_auc_score(y[test], model.predict_proba(X.iloc[test])[:, 1]))
    return Detection(np.array(aucs))


def utility(synthetic: pd.DataFrame, test: pd.DataFrame, target: str, *, is_number: bool) -> float:
    """Boosted trees trained on synthetic rows and tested on real ones: AUC, or RMSE of the logarithm of a number."""
    X = features(
        pd.concat([synthetic, test[synthetic.columns]], ignore_index=True).drop(columns=target)
    )
    train, held = X.iloc[: len(synthetic)], X.iloc[len(synthetic) :]
    if is_number:
        y, truth = (np.log(np.clip(f[target].astype(float), 1, 20_000)) for f in (synthetic, test))
        error = booster("regressor").fit(train, y).predict(held) - truth.to_numpy()
        return float(np.sqrt(np.mean(error**2)))
    positive = sorted(test[target].unique())[-1]
    model = booster("classifier").fit(train, (synthetic[target] == positive).astype(int))
    return float(roc_auc_score(test[target] == positive, model.predict_proba(held)[:, 1]))


def predictability(rows: pd.DataFrame, test: pd.DataFrame, numbers: Sequence[str]) -> np.ndarray:
    """How well a forest trained on rows predicts each column that varies among the real test rows, from all others."""
    rows, marks = rows[test.columns][:FOREST_ROWS], []
    for target in test.columns[(test.nunique() > 1).to_numpy()]:
        both = pd.concat([rows, test], ignore_index=True).drop(columns=target)
        X = features(both).to_numpy()
        train, held = X[: len(rows)], X[len(rows) :]
        if target in numbers:
            model = RandomForestRegressor(min_samples_leaf=2, max_features=0.5, random_state=0)
            said = model.fit(train, rows[target].astype(float)).predict(held)
            marks.append(1 / np.sqrt(np.mean((said - test[target].astype(float)) ** 2)))
        else:
            model = RandomForestClassifier(min_samples_leaf=2, random_state=0)
            said = model.fit(train, rows[target].astype(str)).predict(held)
            truth = test[target].astype(str)
            labels = sorted(truth.unique())
            marks.append(recall_score(truth, said, labels=labels, average="macro", zero_division=0))
    return np.array(marks)


def booster(kind: str) -> Any:
    """Boosted trees with their package's defaults, on one thread if it is XGBoost."""
    if not HAS_XGBOOST:
        found = {
            "classifier": HistGradientBoostingClassifier,
            "regressor": HistGradientBoostingRegressor,
        }
        return found[kind](random_state=0)
    import xgboost

    found = {"classifier": xgboost.XGBClassifier, "regressor": xgboost.XGBRegressor}
    return found[kind](random_state=0, n_jobs=1)


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers, and text as 0/1 columns, float32; text that is all integers becomes a number."""
    parts = {}
    for position, name in enumerate(frame):
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            as_number = pd.to_numeric(column, errors="coerce")
            column = column.astype(str) if as_number.isna().any() else as_number
        if pd.api.types.is_numeric_dtype(column):
            parts[f"{position} {name}"] = column.astype(np.float32)
        else:
            for level in sorted(column.unique()):
                parts[f"{position} {name}={level}"] = (column == level).astype(np.float32)
    plain = {name.translate(str.maketrans("[]<", "()l")): part for name, part in parts.items()}
    return pd.DataFrame(plain)


def shape(real: pd.DataFrame, synthetic: pd.DataFrame, numbers: Sequence[str]) -> float:
    """Mean agreement of single columns."""
    scores = [
        1 - ks_2samp(real[c], synthetic[c], method="asymp").statistic
        if c in numbers
        else 1 - total_variation(real[c], synthetic[c])
        for c in real
    ]
    return float(np.mean(scores))


def trend(real: pd.DataFrame, synthetic: pd.DataFrame, numbers: Sequence[str]) -> float:
    """Mean agreement of pairs of columns."""
    cells = binned(real, synthetic, numbers)
    scores = []
    for a, b in combinations(real.columns, 2):
        if a in numbers and b in numbers:
            both = [np.corrcoef(f[a], f[b])[0, 1] for f in (real, synthetic)]
            scores.append(1 - abs(np.diff(np.nan_to_num(both))[0]) / 2)
        else:
            pairs = [f[a].astype(np.int64) * 1_000_000 + f[b] for f in cells]
            scores.append(1 - total_variation(*pairs))
    return float(np.mean(scores))


def weighted_nmi(real: pd.DataFrame, synthetic: pd.DataFrame, numbers: Sequence[str]) -> float:
    """Agreement of the mutual information of pairs, weighted by it."""
    ours, theirs = (_nmi(f.to_numpy()) for f in binned(real, synthetic, numbers))
    weight = ours + theirs
    return float(1 - (weight * np.abs(ours - theirs)).sum() / max(weight.sum(), 1e-300))


def _nmi(codes: np.ndarray) -> np.ndarray:
    """Normalised mutual information of all pairs of columns of codes, shape (C (C - 1) / 2,)."""
    entropies = [_entropy(c) for c in codes.T]
    out = []
    for a, b in combinations(range(codes.shape[1]), 2):
        joint = _entropy(codes[:, a].astype(np.int64) * 1_000_000 + codes[:, b])
        total = entropies[a] + entropies[b]
        out.append(2 * (total - joint) / total if total > 0 else 0.0)
    return np.array(out)


def _entropy(codes: np.ndarray) -> float:
    share = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(-(share * np.log(share)).sum())


def binned(
    real: pd.DataFrame, synthetic: pd.DataFrame, numbers: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables as codes from 1, numbers in bins of equal width over the real range; 0 is outside of it."""
    out = ({}, {})
    for name in real:
        both = pd.concat([real[name], synthetic[name]], ignore_index=True)
        if name in numbers and real[name].nunique() > BINS + 1:
            edges = np.histogram_bin_edges(real[name].astype(float), BINS)
            codes = pd.cut(both.astype(float), edges, labels=False, include_lowest=True)
            codes = codes.fillna(-1).to_numpy(np.int64) + 1
        else:
            codes = pd.factorize(both)[0] + 1
        out[0][name], out[1][name] = codes[: len(real)], codes[len(real) :]
    return pd.DataFrame(out[0]), pd.DataFrame(out[1])


def copies(train: pd.DataFrame, rows: pd.DataFrame) -> float:
    """Share of rows that are exact copies of a training row."""
    known, asked = (
        pd.util.hash_pandas_object(
            f.astype({c: float for c in f if pd.api.types.is_numeric_dtype(f[c])}), index=False
        )
        for f in (train, rows[train.columns])
    )
    return float(asked.isin(known).mean())
