"""Anomalies: scores that are calibrated, thresholds, reasons, and whether new rows are still the old ones.

In the order in which they build on each other: ``kernel`` (distances), ``scoring`` (nats by column), ``conformal``
(p-values and thresholds), ``beliefs`` (what a cell was expected to be), ``reasons``, ``scales``,
``two_samples`` (tests that hold in small samples), ``drift``, ``robustness``, and ``detector``, which puts a
scikit-learn face on them.
"""
