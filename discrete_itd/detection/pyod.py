"""The detector as one of PyOD's: ``pip install "discrete-itd[pyod]"``.

PyOD's detectors, combinations and ``ADEngine`` take :class:`ITD` like any of their own. Its signs are PyOD's: a high
score is anomalous, an outlier has the label 1. Frames with text and gaps need no encoding.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pyod.models.base import BaseDetector

from discrete_itd.detection.detector import DiffusionOutlierDetector
from discrete_itd.detection.out_of_fold import in_order, out_of_fold
from discrete_itd.estimators import DiffusionDensity


class ITD(BaseDetector):
    """Outliers by information-theoretic diffusion, with the interface of PyOD.

    Parameters
    ----------
    contamination : float, default=0.1
        Share of outliers among the training rows, at most one half: it sets the threshold, and the score takes it into
        account.
    density : DiffusionDensity, optional
        The default one if None.
    random_state : int, RandomState or None, default=None
        Determines the fit.

    Attributes
    ----------
    detector_ : DiffusionOutlierDetector
        Fitted, with all its answers: ``reasons``, ``p_values``, ``save``.
    decision_scores_ : ndarray, shape (N,)
        Of the training rows, high is anomalous; in nats, each by a detector that was fitted to other rows, of which
        :func:`~discrete_itd.find_outliers` has reasons. ``decision_function`` is minus ``detector_.score_samples``,
        which has learned these rows.
    threshold_ : float
        The quantile of ``decision_scores_`` at 1 - ``contamination``.
    labels_ : ndarray, shape (N,)
        1 for the training rows above the threshold, else 0.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"a": [0, 1] * 50 + [0], "b": ["x", "y"] * 50 + ["y"]})
    >>> model = ITD(contamination=0.05, density=DiffusionDensity(denoiser="bayes_net"), random_state=0).fit(rows)
    >>> int(model.decision_scores_.argmax())
    100
    """

    def __init__(
        self,
        contamination: float = 0.1,
        density: DiffusionDensity | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(contamination=contamination)
        self.density = density
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to rows, a frame or array of shape (N, C), of which some are outliers; ``y`` is ignored."""
        self._set_n_classes(y)
        self.detector_ = DiffusionOutlierDetector(
            self.density,
            contamination=self.contamination,
            random_state=self.random_state,
        ).fit(X)
        folds = out_of_fold(self.detector_, X)
        self.decision_scores_ = -in_order(folds, [fold.scores for fold in folds])
        self._process_decision_scores()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores of rows, shape (N,), high is anomalous; in nats."""
        return -self.detector_.score_samples(X)


def add_to(engine: Any) -> Any:
    """Make an ``ADEngine`` of PyOD know :class:`ITD` by that name, and return the engine.

    Examples
    --------
    >>> from pyod.utils.ad_engine import ADEngine
    >>> engine = add_to(ADEngine(random_state=0))
    >>> "ITD" in {entry["name"] for entry in engine.list_detectors(data_type="tabular")}
    True
    """
    engine.kb.algorithms["ITD"] = {
        "class_path": f"{__name__}.ITD",
        "full_name": "Information-Theoretic Diffusion",
        "status": "shipped",
        "data_types": ["tabular"],
        "category": "probabilistic",
        "complexity": {"time": "O(n * d)", "space": "O(n * d)"},
        "strengths": [
            "Mixed columns and missing cells without encoding",
            "Calibrated: p-values, false-alarm rates, the cells to blame",
        ],
        "weaknesses": ["A fit takes seconds to a minute"],
        "best_for": "Tables of categories and numbers whose columns depend on each other",
        "avoid_when": "A fit may take a tenth of a second, or rows are text or images",
        "default_params": {"contamination": 0.1},
    }
    return engine
