"""Continuous columns that a decoder mixture of many classes answers for: every method, every figure and the report."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch, plots, report
from discrete_itd.detection.reasons import cell_nats
from discrete_itd.recipes import Decoder

pytestmark = pytest.mark.single_precision


def table(n=300, seed=0):
    random = np.random.default_rng(seed)
    turn = random.uniform(0, 6.3, n)
    x, y = np.cos(turn) + random.normal(0, 0.05, n), np.sin(turn)
    return pd.DataFrame({"x": x, "y": y, "half": turn > 3.14, "word": random.choice(["u", "v"], n)})


@cache
def detector():
    density = DiffusionDensity(denoiser=Decoder(512, max_steps=30, n_points=128))
    found = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0)
    return found.fit(table(300))


def new():
    frame = table(14, 1)
    frame.loc[3, "x"] = 0.0
    frame.loc[::5, "y"] = None
    return frame


def rows_of(answer):
    return len(answer[0] if isinstance(answer, tuple) else answer)


QUESTIONS = {
    "score_samples": lambda m, X: m.score_samples(X),
    "log_prob": lambda m, X: m.log_prob(X),
    "given": lambda m, X: (m if isinstance(m, DiffusionDensity) else m.density_).log_prob(X, ["x"]),
    "explain": lambda m, X: m.explain(X),
    "reasons": lambda m, X: m.reasons(X),
    "expected": lambda m, X: m.expected(X),
    "p_values": lambda m, X: m.p_values(X),
    "impute": lambda m, X: m.impute(X),
    "sampled": lambda m, X: m.impute(X, method="sample", random_state=0),
    "sample": lambda m, _: m.sample(5, random_state=0),
    "given a value": lambda m, _: m.sample(5, random_state=0, given={"x": 0.5}),
    "predict_proba": lambda m, X: m.predict_proba(X, "word"),
    "information": lambda m, X: m.information(X, ["x"], n_points=4),
    "mse_curve": lambda m, X: m.mse_curve(X, n_points=5),
    "drift": lambda m, X: m.drift(X).to_frame(),
    "cell_nats": lambda m, X: cell_nats(m, X).entropy,
    "plot_mse_curve": lambda m, X: [plots.plot_mse_curve(m, X)],
    "plot_columns": lambda m, X: [plots.plot_columns(m, X)],
    "plot_scores": lambda m, X: [plots.plot_scores(m, X)],
    "plot_explanation": lambda m, X: [plots.plot_explanation(m, X[3:4])],
    "plot_p_values": lambda m, X: [plots.plot_p_values(m, X)],
    "plot_watch": lambda m, X: [plots.plot_watch(w := DriftWatch(m), w.update(X))],
    "report": lambda m, X: report(m, X),
}
OF_DETECTORS = (
    "reasons",
    "expected",
    "p_values",
    "drift",
    "plot_p_values",
    "plot_watch",
)
OF_DENSITIES = (
    "log_prob",
    "impute",
    "sampled",
    "sample",
    "given a value",
    "predict_proba",
    "information",
    "mse_curve",
    "cell_nats",
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered(question):
    models = [detector(), detector().density_]
    models = models[:1] if question in OF_DETECTORS else models
    for model in models[1:] if question in OF_DENSITIES else models:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*never seen.*")
            assert rows_of(QUESTIONS[question](model, new()))
