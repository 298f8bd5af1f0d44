"""Warnings: each points at the line of the caller's code, and comes once."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector

pytestmark = pytest.mark.single_precision

COINS = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
SETTINGS = {"denoiser": "tree", "random_state": 0}


def fit_of_a_column_without_cells():
    DiffusionDensity(**SETTINGS).fit(COINS.assign(empty=np.nan))


def fit_of_a_detector_on_few_rows():
    DiffusionOutlierDetector(**SETTINGS).fit(COINS)


def unseen_values():
    DiffusionDensity(**SETTINGS).fit(COINS).log_prob(COINS.assign(b="w"))


def unseen_values_in_reasons():
    detector = DiffusionOutlierDetector(false_alarm_rate=0.2, **SETTINGS).fit(COINS)
    detector.reasons(COINS.assign(b="w"))


def further_columns():
    DiffusionDensity(**SETTINGS).fit(COINS).score(COINS.assign(c=1))


def training_without_time():
    DiffusionDensity(denoiser="causal", max_steps=2, max_time=1e-9, random_state=0).fit(
        COINS.assign(empty=np.nan)
    )


def a_pipeline():
    make_pipeline(DiffusionDensity(**SETTINGS)).fit(COINS.assign(empty=np.nan))


@pytest.mark.parametrize(
    "call",
    [
        fit_of_a_column_without_cells,
        fit_of_a_detector_on_few_rows,
        unseen_values,
        unseen_values_in_reasons,
        further_columns,
        training_without_time,
        a_pipeline,
    ],
)
def test_a_warning_points_at_the_caller_and_comes_once(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert caught
    texts = [str(w.message) for w in caught]
    assert len(set(texts)) == len(texts)
    places = {w.filename for w in caught}
    assert places == {__file__} or (call is a_pipeline and "sklearn" in places.pop())


def test_a_loop_is_warned_once_whatever_other_libraries_do():
    model = DiffusionDensity(**SETTINGS).fit(COINS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for _ in range(3):
            model.score_samples(COINS.assign(z=1))
            with warnings.catch_warnings():  # as pandas does: Python forgets what it has shown
                warnings.simplefilter("ignore")
        assert len(caught) == 1
        model.score_samples(COINS.assign(z=1))  # another line
        assert len(caught) == 2
        warnings.simplefilter("always")
        for _ in range(2):
            model.score_samples(COINS.assign(z=1))
        assert len(caught) == 4
