"""Detectors of more rows than are kept in memory."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.detection import score
from discrete_itd.reading import frames

N, KEPT = 4000, 900
pytestmark = pytest.mark.filterwarnings("ignore:a uniform sample of 900 of 4,000 rows")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(frames, "SAMPLE_ROWS", KEPT)


def table(n=N, seed=0, nominal=False):
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 3, n)
    frame = pd.DataFrame({"word": np.array(["a", "b", "c"])[level], "same": level.astype(str)})
    return frame if nominal else frame.assign(size=rng.normal(4 * level, 1.0))


def odd(n=50):
    return table(n, seed=9).assign(same="2", word="a")


def stream(rows, size=300):
    return [rows.iloc[i : i + size] for i in range(0, len(rows), size)]


def detector(density=None, **options):
    density = density or DiffusionDensity(denoiser="tree", random_state=0)
    return DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0, **options)


def test_rates_are_kept_and_anomalies_found(tmp_path):
    fitted = detector().fit(stream(table()))
    n = 4000
    alarms = int((fitted.predict(table(n, seed=1)) < 0).sum())
    # beta-binomial: calibration rows are a sample, too
    k = round(0.05 * (len(fitted.calibration_scores_) + 1))
    expected = stats.betabinom(n, k, len(fitted.calibration_scores_) + 1 - k)
    assert expected.ppf(1e-4) <= alarms <= expected.ppf(1 - 1e-4)
    assert (fitted.predict(odd()) < 0).mean() > 0.9
    fitted.save(tmp_path / "m")
    again = DiffusionOutlierDetector.load(tmp_path / "m")
    np.testing.assert_array_equal(again.score_samples(odd()), fitted.score_samples(odd()))


def test_a_fitted_density_is_calibrated_on_a_sample():
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(table())
    fitted = detector(FrozenEstimator(density)).fit(stream(table(seed=1)))
    assert fitted.density_ is density
    assert len(fitted.calibration_scores_) == KEPT


def test_with_a_share_of_anomalies_trees_of_few_rows_are_of_the_sample():
    fitted = detector(contamination=0.1).fit(stream(table()))
    assert fitted._scorer.trees.n_trees == score.SMALL_TREES
    assert (fitted.predict(table(seed=2)) == -1).mean() == pytest.approx(0.1, abs=0.05)
