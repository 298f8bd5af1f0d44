"""Anomaly detection: calibrated scores, thresholds, reasons, and tests for drift.

In the order in which they build on each other: ``kernel`` (distances to training rows) and ``scoring`` (nats by
column); ``conformal`` (p-values), ``thresholds`` and ``costs``; ``kernel_conditionals``, ``distributions``,
``conditionals`` and ``cell_conditionals`` (distributions of single cells under the score); ``two_samples`` (tests valid
in small samples) and ``drift``; ``reasons`` and ``sentences``; ``robustness``; ``calibration`` (the steps of a fit);
and ``detector``, the scikit-learn estimator, whose methods are in ``alarming`` and ``explaining``.
"""
