"""The user guide.

* `discrete_itd.guide.how_it_works`: from a table to a log-probability, in the order of the code.
* `discrete_itd.guide.which_model`: which model at what cost, in nats, rows per second and seconds of the fit.
* `discrete_itd.guide.thresholds`: thresholds and p-values, for those who must defend them.
* `discrete_itd.guide.pilot`: from the first fit to a decision, for those who decide; what can go wrong, and where to
  see it.
* `discrete_itd.guide.coming_from`: the same job in PyOD, scikit-learn, SDV and TabPFN, side by side.
* `discrete_itd.guide.guarantees`: what is guaranteed, what is statistical, what is not promised, each with its test.
* `discrete_itd.testing`: a denoiser, schedule or encoder of one's own, and the checks for it.

Notebooks with figures are in the folder ``notebooks`` of the repository; every benchmark, with its command and date, is in
``tests/benchmarks/RESULTS.md``.
"""
