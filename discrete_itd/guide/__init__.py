"""The user guide.

* `discrete_itd.guide.how_it_works`: from a table to a log-probability, in the order of the code.
* `discrete_itd.guide.which_model`: which model at what cost, in nats, rows per second and seconds of the fit.
* `discrete_itd.guide.thresholds`: thresholds and p-values, for those who must defend them.
* `discrete_itd.guide.pilot`: from the first fit to a decision, for those who decide; what can go wrong, and where to
  see it.
* `discrete_itd.guide.coming_from`: the same job in PyOD, scikit-learn, SDV and TabPFN, side by side.
* `discrete_itd.guide.peers`: what this package and ten others do, a table whose cells were run or read.
* `discrete_itd.guide.guarantees`: what is guaranteed, what is statistical, what is not promised, each with its test.
* `discrete_itd.testing`: a denoiser, schedule or encoder of one's own, and the checks for it.

Notebooks, in the folder ``notebooks`` of the repository, are run and their figures checked with every change:

* `quickstart.ipynb`: fit, score, rank, explain, draw and save.
* `anomalies.ipynb`: from the fit to thresholds, p-values, reasons, drift and a report.
* `meaning.ipynb`: what the number means: sums to one, areas, bounds and error bars.
* `mixed_data.ipynb`: gaps, conditional questions, imputation, and how good synthetic rows are.
* `diffusion_models.ipynb`: an existing diffusion model evaluated, tuned and combined.
* `scikit_learn.ipynb`: pipelines, cross-validation, grid search and weights.
* `larger_than_memory.ipynb`: Parquet folders, streams, batches and Dask.

Every benchmark, with its command and date, is in ``tests/benchmarks/RESULTS.md``.
"""
