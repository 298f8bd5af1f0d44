"""Anomaly detection: calibrated scores, thresholds, reasons, and tests for drift.

In the order in which they build on each other: ``score`` (nats by column, above those of typical cells); ``conformal``
(p-values), ``thresholds`` and ``groups``; ``distributions`` (of single cells), ``assessment`` (of every cell of a row)
and ``reasons``; ``two_samples`` (tests valid in small samples) and ``drift``; ``calibration`` (division of the rows of
a fit); ``detector``, the scikit-learn estimator; and ``martingales`` and ``watch``, which monitor rows as they arrive.
"""
