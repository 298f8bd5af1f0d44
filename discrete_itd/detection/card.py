"""The card of a detector: that of its density, and what its calibration guarantees."""

from __future__ import annotations

from typing import Any

import numpy as np

from discrete_itd.detection.groups import named
from discrete_itd.detection.score import Scorer
from discrete_itd.models.card import (
    Lines,
    cost_section,
    data_section,
    document,
    held_out_section,
    limits_section,
    model_section,
    plus_minus,
)
from discrete_itd.storage.markdown import code


def detector_card(detector: Any, scorer: Scorer) -> str:
    """The card of a fitted detector.

    Parameters
    ----------
    detector : DiffusionOutlierDetector
    scorer : Scorer
        Its score.
    """
    density = scorer.density
    model, n_evaluations = density.model_, density.n_evaluations
    limits = limits_section(model)
    if len(detector.calibration_scores_):
        limits.append(
            "* p-values and rates hold for rows that are independent and follow the distribution of the calibration"
            " rows; `drift(X)` tests whether new rows do."
        )
        limits.append("* The file holds scores and nats by column of the calibration rows.")
    if scorer.repeats is not None:
        names = ", ".join(code(scorer.schema[j].name) for j in scorer.repeats.seen)
        limits.append(
            f"* A number that was never seen adds nats in {names}: the file holds the different numbers there."
        )
    return document(
        "Model card: detector of anomalous rows of a table",
        "A fitted `DiffusionOutlierDetector`: a score of each row in nats, a p-value, and an alarm below a threshold.",
        model_section(detector, model, n_evaluations),
        data_section(model),
        held_out_section(model),
        _calibration_section(detector, scorer),
        cost_section(model, n_evaluations),
        limits,
    )


def _calibration_section(detector: Any, scorer: Scorer) -> Lines:
    """The score, the calibration rows, and the threshold with its false-alarm rate."""
    scores = np.asarray(detector.calibration_scores_)
    n, finite = len(scores), scores[np.isfinite(scores)]
    score = "minus the nats of all columns above those of 95 % of the model's own cells, (12)"
    if scorer.given:
        names = ", ".join(map(code, named(detector.given)))
        score = score.replace("all columns", f"the other columns given {names}")
    lines = ["## Calibration", "", f"* score: {score}", f"* threshold: {detector.threshold_}"]
    if not n:
        return [*lines, "* there are no calibration rows: no p-values, and no guarantee of a rate"]
    if len(finite) > 1:
        mean = plus_minus(-finite.mean(), finite.std(ddof=1) / np.sqrt(len(finite)))
        lines.append(f"* minus the score of a calibration row: {mean} on average")
    return [
        *lines,
        f"* {n:,} calibration rows took no part in the fit; the smallest p-value is {1 / (n + 1):.3g}",
        *_group_lines(detector),
        f"* {len(detector.trimmed_):,} rows were left out of the training as anomalies",
    ]


def _group_lines(detector: Any) -> Lines:
    """How many groups are compared with calibration rows of their own."""
    if not named(detector.given):
        return []
    own = int(detector.groups_["own"].sum())
    return [
        f"* {own:,} of {len(detector.groups_):,} groups have p-values and a threshold from their own calibration rows,"
        " the others from all; their rates hold only on average over groups"
    ]
