"""Nats by column as features of a supervised model."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from discrete_itd import DiffusionOutlierDetector

pytestmark = pytest.mark.single_precision


def table(n, seed, *, spread=1.0):
    """A column of heavy tails, one of light ones, and a category."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "heavy": random.standard_t(2, n),
            "light": spread * random.normal(size=n),
            "kind": random.choice(list("abc"), n),
        }
    )


INLIERS = table(600, 0)
CHECKED = pd.concat([table(200, 1), table(20, 2, spread=6.0)], ignore_index=True)
IS_ANOMALY = np.arange(220) >= 200


@pytest.fixture(scope="module")
def fitted():
    return DiffusionOutlierDetector(
        denoiser="independent", false_alarm_rate=0.05, random_state=0
    ).fit(INLIERS)


def test_features_are_the_terms_of_the_score(fitted):
    gap = CHECKED.assign(light=CHECKED["light"].where(CHECKED["light"] > 0))
    features = fitted.transform(gap)
    np.testing.assert_array_equal(features[:, :3], fitted.explain(gap).fillna(0.0))
    np.testing.assert_array_equal(features[:, 3], -fitted.score_samples(gap))
    names = ["nats_heavy", "nats_light", "nats_kind", "nats"]
    assert fitted.get_feature_names_out().tolist() == names
    framed = clone(fitted).set_output(transform="pandas").fit_transform(INLIERS)
    assert framed.columns.tolist() == names
    assert framed.index.equals(INLIERS.index)


def test_given_columns_are_zeros():
    model = DiffusionOutlierDetector(denoiser="independent", given="kind", random_state=0)
    assert (model.fit(INLIERS).transform(CHECKED)[:, 2] == 0).all()


def test_labels_change_no_detector_and_train_the_classifier(fitted):
    same = clone(fitted).fit(INLIERS, np.ones(600))
    np.testing.assert_array_equal(same.transform(CHECKED), fitted.transform(CHECKED))
    checked, y = CHECKED[::2], IS_ANOMALY[::2]
    frozen = FrozenEstimator(fitted)
    pipe = make_pipeline(frozen, LogisticRegression()).fit(checked, y)
    assert pipe.score(CHECKED[1::2], IS_ANOMALY[1::2]) > 0.93
    own = make_pipeline(FunctionTransformer(lambda X: X[["heavy", "light"]]))
    both = make_pipeline(make_union(own, frozen), HistGradientBoostingClassifier(max_iter=5))
    assert both.fit(checked, y).predict_proba(CHECKED).shape == (220, 2)
