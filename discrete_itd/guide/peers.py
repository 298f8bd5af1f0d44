r"""What this package and others do: a feature table, each cell run or read in the tool.

As of 2026-11-26, in the versions named at the end of the page. "Partly" and some others have a remark below their
table; a tool that another one can be built from (SHAP on PyOD, say) is not counted. For how good the answers are, not
whether there are any, see ``tests/benchmarks/RESULTS.md``.

## Probability

| | discrete_itd | PyOD | nonconform | DQX | scikit-learn | SPFlow | PyJuice | UnmaskingTrees | TabPFN, unsupervised | MaskDiff-AD | code of the paper |
|---|---|---|---|---|---|---|---|---|---|---|---|
| Normalised log-probability of a row of categories and numbers | yes | no (a) | no | no | no (a) | yes | partly (b) | no (c) | partly (d) | no (e) | no (f) |
| Its standard error | yes (g) | no | no | no (h) | no | exact | exact | no | no | no | partly (f) |
| Missing cells summed over in the score | by exact models (l) | no | no (i) | no (j) | no (i) | yes | yes | partly (c) | partly (d) | no (j) | no |
| Categories as strings | yes | no | no | yes | no | no | no | no | no | yes | no |
| log P of some columns, given others | yes (l) | no | no | no | no | yes | yes | no | no | no | partly (f) |
| Draws of missing cells | yes | no | no | no | partly (k) | yes | yes | yes | yes | no | no |
| Synthetic rows | yes | no | no | no | partly (k) | yes | yes | yes | yes | no | no |

* (a) Densities of numbers: ``GaussianMixture`` and ``KernelDensity``, which PyOD's GMM and KDE wrap. On categories as codes,
  the density of a mixture of Gaussians added up to 399.
* (b) Leaves for categories and for numbers are there; one circuit with both was not checked.
* (c) ``score_samples`` takes a random order for each row, and the mean of log-probabilities over orders: the mass of all rows
  added up to 1.11, the completions of a gap not to its score. A gap is left out along the order. A category that is new
  raises. With scikit-learn 1.9.1 continuous columns fail (``_validate_data``) until one line is added.
* (d) The log of the mean of ten orders; a category out of range, or missing, counts as probability 0.1, a missing number as 1.
* (e) The mean surprisal of cells that are masked at random, numbers in ten bins.
* (f) Of vectors of numbers, or of levels such as those of pixels, a mean over a batch with its standard error; -log p(x | y)
  for a network that hears y.
* (g) Along paths; closed forms, as of the default, are exact and give 0. The error is that of the estimate, not of the fit.
* (h) The standard deviation of an anomaly score over an ensemble, on request.
* (i) IsolationForest takes gaps, GaussianMixture and KernelDensity refuse them; nonconform leaves it to the detector it wraps.
* (j) Filled: DQX by 0 or "MISSING", with a column that says so, MaskDiff-AD by the median, or as a category of its own.
* (k) Of numbers: ``IterativeImputer(sample_posterior=True)`` draws numbers between the codes of categories.
* (l) A network leaves the cell out: what it gives adds up to one over the rows with this gap, but a row's completions did not
  add up to it, of ``"causal"`` and ``"network"``. A causal network does so where training rows had such gaps; others are summed
  out of it and its exact companion, by a few draws.

## Alarms

| | discrete_itd | PyOD | nonconform | DQX | scikit-learn | SPFlow | PyJuice | UnmaskingTrees | TabPFN, unsupervised | MaskDiff-AD | code of the paper |
|---|---|---|---|---|---|---|---|---|---|---|---|
| Detectors to choose from | one, around any of 11 models | **61** | those of others | one | 5 | none | none | none | one | 3 | none |
| Nats, or scores, of cells that add up to the row's | yes | partly (a) | no | partly (b) | no | no | no | no | no | no | no |
| p-values valid in finite samples | yes | no | yes | no | no | no | no | no | no | no | no |
| Threshold with a promised false-alarm rate | yes | no (c) | yes | no (c) | no (c) | no | no | no | no | no | no |
| The same within groups | yes | no | p-values (d) | not checked | no | no | no | no | no | no | no |
| False discovery rate of a batch | yes | no | yes | no | no | no | no | no | no | no | no |
| Weights for covariate shift, e-values, bounds on the false discovery proportion | no | no | **yes** | no | no | no | no | no | no | no | no |
| Drift of a batch, column by column | yes | no | no | partly (e) | no | no | no | no | no | no | no |
| Monitor that may be looked at after every row | yes | no | yes (f) | no | no | no | no | no | no | no | no |
| Rules for rows and tables | no | no | no | **yes (g)** | no | no | no | no | no | no | no |

* (a) ECOD and others of independent columns keep each dimension's part; for training rows it adds up.
* (b) SHAP values as shares of their absolute sum.
* (c) A quantile of training scores.
* (d) The certificates of thresholds are of all rows.
* (e) Differences of means and deviations above three, and total variation from a distribution that is given: no p-values.
* (f) A choice of four martingales, of rows; ours has one kind, of rows and of each column.
* (g) 91 registered check functions, in batches and streams.

## Practice

| | discrete_itd | PyOD | nonconform | DQX | scikit-learn | SPFlow | PyJuice | UnmaskingTrees | TabPFN, unsupervised | MaskDiff-AD | code of the paper |
|---|---|---|---|---|---|---|---|---|---|---|---|
| scikit-learn estimator, checks passed | 46 of 46; detector 51 of 52 (a) | 32 to 41 of 46 | clones, no Pipeline | no | 40 of 40 (m) | 29 of 40 | no | 9 of 40, no Pipeline | partly (b) | no | no |
| Fits tables larger than memory | yes | no | no | partly (c) | partly (d) | partly (e) | yes | no | no | no | yes |
| Scores on Spark, Dask or Ray | yes (f) | no | no | **yes, on Spark** | no | no | no | no | no | no | no |
| One model trained on several machines | yes | no | no | no | no | no | yes | no | no | no | no |
| Saved model without pickle | yes | no (g) | no | not checked | no | no | no | no | no (g) | no | no |
| GPUs | unmeasured | partly (h) | no | no | not checked | yes | **yes (i)** | not checked | yes | yes | yes |
| Pretrained | no | partly (j) | no | no | no | no | no | no | **yes** | no | no |
| Other data than tables | images (k) | **text, images, audio, time series, graphs** | no | no | not checked | images | images | no | no | text | images |
| Licence | MIT | BSD-2-Clause | BSD-3-Clause | Databricks: only with its services | BSD-3-Clause | Apache-2.0 | Apache-2.0 | MIT | Apache-2.0; weights (l) | MIT | MIT |

* (a) The check that fails holds repeated rows against weights; the rows that are held out differ.
* (b) A ``BaseEstimator``; its checks need the weights, and were not run.
* (c) A sample of the rows, on the driver.
* (d) ``SGDOneClassSVM.partial_fit``; no density has one.
* (e) Parameters by batches of a ``DataLoader``; structures are learned in memory.
* (f) Dask and Spark were run; Ray was read.
* (g) joblib: PyOD's ``load`` refuses files unless ``trusted=True``, TabPFN's holds the state without the weights.
* (h) Deep detectors.
* (i) Kernels of its own, in Triton and CUDA.
* (j) ``EmbeddingOD``: encoders of text and images, then a detector.
* (k) Through a diffusion model that you have.
* (l) Non-commercial from 2.5 on; those of 2 are Apache-2.0 with attribution.
* (m) GaussianMixture.

## Where another tool is the better choice

* **PyOD** to try many detectors, fast, and for text, images, audio, time series and graphs.
* **nonconform** for guarantees around a detector that you have, under covariate shift too.
* **DQX** for rules on Spark tables at Databricks.
* **PyJuice** and **SPFlow** for large probabilistic circuits and other exact queries; PyJuice for speed on GPUs.
* **TabPFN** for small tables, where a pretrained model knows more than the rows tell, if its licence fits.
* **scikit-learn** where all columns are numbers and a mixture of Gaussians or an IsolationForest is good enough.

## How it was checked

Run: ``python -m tests.benchmarks.features``, whose output is in ``tests/benchmarks/RESULTS.md``, "Features". Read: the files
of the release (PyPI) or commit named.

* **discrete_itd** 0.1.0: that command (``denoiser="mixture"``), and the tests that `discrete_itd.guide.guarantees` names; engines by
  ``pytest --slow tests/scale/test_engines.py``.
* **PyOD** 3.6.7: that command (ECOD, GMM, HBOS, IForest, KNN); read ``models/base.py``,
  ``base_dl.py``, ``gmm.py``, ``kde.py``, ``ecod.py``, ``embedding.py``, ``utils/persistence.py``. 61 is its own
  count; ``ADEngine().list_detectors()`` lists 59.
* **nonconform** 2.0.0, Python 3.13: that command, around an IsolationForest, and ``fpr_bounds``; read ``detector.py``,
  ``monitoring.py``, ``martingales.py``, ``fdr.py``, ``weighting.py``.
* **DQX** (databricks-labs-dqx) 0.17.0, read, for its licence: ``check_funcs.py``, ``geo/check_funcs.py``, and of ``anomaly``
  ``check_funcs.py``, ``core.py``, ``transformers.py``, ``drift.py``, ``explainability.py``, ``ensemble_scorer.py``.
* **scikit-learn** 1.9.1: that command; its estimators with ``OutlierMixin``, and those with ``partial_fit`` and
  ``score_samples``.
* **SPFlow** 1.1.0: that command; read ``learn/learn_spn.py``, ``learn/expectation_maximization.py``,
  ``measures/weight_of_evidence.py``, ``interfaces/sklearn.py``, ``utils/model_manager.py``. GPUs not run.
* **PyJuice** 2.6.3, read: ``queries``, ``nodes/distributions``, ``optim``, ``io``, ``layer``. Not run: it is written for GPUs.
* **UnmaskingTrees** (utrees) 0.3.0: that command; read ``unmasking_trees.py``.
* **TabPFN** 9.2.0 with tabpfn-extensions 0.6.3, read: ``unsupervised/unsupervised.py``, ``utils.py``,
  ``architectures/shared/bar_distribution.py``, ``model_loading.py``. Not run: the weights lie behind a login.
* **MaskDiff-AD**, lxzhang1/MaskDiff-AD at 12c0f6d, read: ``models/mdad``, ``preprocess/tabular_preprocessor.py``.
* **The paper's code**, kxh001/ITdiffusion at 36f2c0b, read: ``utilsitd/diffusionmodel.py``, ``scripts``.

A cell of the first table, here: the probabilities of a row's completions add up to that of the row with the gap.

>>> import numpy as np, pandas as pd
>>> from discrete_itd import DiffusionDensity
>>> frame = pd.DataFrame({"a": list("xyxz") * 50, "b": list("uvuv") * 50})
>>> model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
>>> completions = pd.DataFrame({"a": ["x"] * 2, "b": ["u", "v"]})
>>> gap = pd.DataFrame({"a": ["x"], "b": [None]})
>>> both = [np.exp(model.score_samples(rows)).sum() for rows in (completions, gap)]
>>> bool(np.isclose(*both, rtol=1e-3))
True
"""
