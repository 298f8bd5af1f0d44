r"""The same job elsewhere, side by side.

Signs are scikit-learn's: a higher score is more typical, an alarm is -1. ``train`` holds inliers, ``new`` rows to judge.

## PyOD

| PyOD | here |
|---|---|
| `ECOD(contamination=0.05).fit(X)` | `DiffusionOutlierDetector(contamination=0.05).fit(frame)`; or inliers alone and `false_alarm_rate=0.01` of new ones |
| `decision_function(X)`, high is anomalous | `-detector.score_samples(frame)`, in nats |
| `predict(X) == 1` | `detector.predict(frame) == -1` |
| `predict_proba(X)[:, 1]`, a rescaled score | `detector.p_values(frame)`, small is anomalous, with a guarantee |
| `threshold_` | `-detector.offset_`; `detector.threshold_` states its false-alarm rate |
| encode categories and fill gaps before | give the frame as it is |

## IsolationForest

| scikit-learn | here |
|---|---|
| `IsolationForest(random_state=0).fit(X)` | `DiffusionOutlierDetector(random_state=0).fit(frame)` |
| `score_samples`, `decision_function`, `predict`, `offset_` | the same names and signs; the score is in nats |
| `contamination="auto"`: an offset of -0.5 | `contamination="auto"`: all rows are inliers, the offset is that of `false_alarm_rate` |
| | `reasons(frame)`: which cells, and what was expected instead |

It costs more: a fit takes 4 to 29 s on the tables of ``python -m tests.benchmarks.fast mushroom adult cardio mammography
pendigits shuttle thyroid --detectors``, IsolationForest's 0.1 to 0.2 s, and it scores 2 to 18 times as many rows a second.

## GaussianMixture, KernelDensity

| scikit-learn | here |
|---|---|
| `GaussianMixture(10).fit(X)` | `DiffusionDensity().fit(frame)`: mixed columns, gaps; `denoiser="mixture"` finds the number of classes |
| `score_samples(X)`: log-density per unit | the same, plus the log-probability of the categories |
| `score(X)`: mean (KernelDensity: sum) | the mean |
| `sample(n)`: an array and the classes | `sample(n)`: a frame with the fitted dtypes |
| `bic(X)` to choose | held-out nats: `candidates_` |
| | `log_prob(frame, given=["age"])`, `impute`, `predict_proba(frame, "income")` |

## SDV

| SDV (by its documentation, not run here) | here |
|---|---|
| `GaussianCopulaSynthesizer(metadata)`, `synthesizer.fit(data)` | `DiffusionDensity().fit(data)`; `column_types=` where a kind should not follow from the dtype |
| `synthesizer.sample(num_rows=100)` | `model.sample(100, random_state=0)` |
| `sample_from_conditions([Condition(num_rows=250, column_values={"room": "SUITE"})])` | `model.sample(250, given={"room": "SUITE"})` |
| quality report | `-model.score(held_out)`: nats of rows that it has not seen; `plots.plot_columns` |
| constraints, several tables, keys | not here |

Synthetic rows are draws of a model of the training rows. Nothing here is a promise of privacy.

## TabPFN

| TabPFN's unsupervised extension (by its documentation, not run here) | here |
|---|---|
| `TabPFNUnsupervisedModel(clf, reg)`, `fit(X)` | `DiffusionDensity().fit(frame)`; it learns from your rows alone |
| `outliers(X)`: samples with a low joint probability | `score_samples(frame)`: a closed form or one call |
| `impute(X)` | `impute(frame)`, or draws: `impute(frame, method="sample", n_draws=5)` |
| `generate_synthetic_data(n_samples=100)` | `sample(100)` |

>>> import numpy as np, pandas as pd
>>> from sklearn.ensemble import IsolationForest
>>> from sklearn.mixture import GaussianMixture
>>> from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
>>> rng = np.random.default_rng(0)
>>> train = pd.DataFrame(rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 500), columns=["a", "b"])
>>> new = pd.DataFrame({"a": [0.0, 2.0], "b": [0.0, -2.0]})
>>> for detector in (IsolationForest(random_state=0), DiffusionOutlierDetector(denoiser="mixture", random_state=0)):
...     print(detector.fit(train).predict(new))
[ 1 -1]
[ 1 -1]
>>> for density in (GaussianMixture(random_state=0), DiffusionDensity(denoiser="mixture", random_state=0)):
...     print(density.fit(train).score_samples(new)[0].round(0))
-1.0
-1.0
"""
