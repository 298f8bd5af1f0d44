"""Anomaly detection: calibrated scores, thresholds, reasons, and tests for drift.

In the order in which they build on each other: ``score`` (nats by column, in excess of rare but normal cells);
``thresholds`` (conformal p-values and alarms) and ``strata``; ``cell_predictions`` (distributions of cells given the
others, and which are wrong) and ``reasons``; ``outside`` (rows outside of training); ``drift`` (of a batch, by tests
valid in small samples); ``division`` (of the rows of a fit); ``detector``, the scikit-learn estimator; ``answers``, the
table of its results; and ``watch``, which monitors rows as they arrive.
"""
