"""The sentences of a report."""

from __future__ import annotations

import math

import numpy as np

from discrete_itd.reporting.findings import Findings, Verdict
from discrete_itd.reporting.text import count, nats, percent, seconds

VERDICTS = {True: "Pass", False: "Fail", None: "Undecided"}
ENDINGS = {
    "max_steps": "the maximum number of steps was reached",
    "max_time": "the time limit was reached",
    "no improvement": "the validation score no longer improved",
    "interrupted": "it was interrupted",
    "diverged": "it diverged",
    "exact": "the model is exact and needs no steps",
}
NO_THRESHOLD = (
    "The model is a density without a threshold, so there are no alarms and no p-values. For these, use a"
    " DiffusionOutlierDetector, or give a table of inliers from which a threshold can be set."
)
OTHER_SCORE = (
    "The detector ranks rows by a score of its own, by default the mean of two surprisals: that of this model and that"
    " of a simpler one. The score is not on the scale of the surprisal."
)
NO_ALARMS = "The threshold is infinite, so no row raises an alarm: checking an alarm costs more than it saves."
FITTED = "It was set on training rows, so more new rows than intended may be above it."
ALL_MISSING = "All cells are missing, so there is nothing to score."
CONTAMINATED = (
    "The calibration rows contain anomalies. If these have higher surprisal than inliers, p-values are too large (too"
    " small if they have lower), and the line of the inliers may leave the band."
)
NO_CALIBRATION = "There are no p-values because the detector was fitted without calibration rows."
SCALES = ("", " thousand", " million", " billion", " trillion")


def an_inlier(found: Findings) -> str:
    """One of the rows on which the model is measured."""
    return "an inlier" if found.has_inliers else "a row of this table"


def the_inliers(found: Findings) -> str:
    """All rows on which the model is measured."""
    if found.has_inliers:
        return count(found.n_inliers, "inlier")
    return f"{count(found.n_inliers, 'row')} of this table"


def score_name(found: Findings) -> str:
    """The quantity by which rows are ranked."""
    return "surprisal" if found.alarms.is_surprisal else "score"


def odds(found: Findings) -> str:
    """The mean surprisal as a number of equally likely rows."""
    if not found.is_mass:
        return "of a density, which can be negative"
    power = found.nats.value / math.log(10)
    step = min(int(power) // 3, len(SCALES)) if power > 0 else 0
    if step == len(SCALES):
        many = f"a number of {int(power) + 1} digits of"
    else:
        ways = 10 ** (power - 3 * step)
        many = f"{ways:.3g}{SCALES[step]}"
    return f"like one of {many} equally likely rows"


def judgement(verdict: Verdict, found: Findings) -> str:
    """What was measured, the target and what follows, in one sentence without its full stop."""
    measured, target = verdict.measured, verdict.target
    if verdict.what == "nats":
        what = f"the mean surprisal of {an_inlier(found)} is {nats(measured.value)}"
        if not found.n_inlier_cells:
            what = "all cells are missing, so there is nothing to score"
        between = f"{measured.low:.2f} to {measured.high:.2f}"
        wanted = f"at most {target:g} nats"
    else:
        n = round(measured.value * found.n_inliers)
        verb = "raises" if n == 1 else "raise"
        what = f"{n:,} of {the_inliers(found)} {verb} an alarm, {percent(measured.value)}"
        between = f"{percent(measured.low)} to {percent(measured.high)}"
        wanted = f"at most {percent(target)}"
    interval = f" (95 % interval {between})" if math.isfinite(measured.low) else ""
    more = ""
    if verdict.passed is None:
        more = f"; more {'rows' if found.n_inlier_cells else 'cells'} are needed to decide"
    return f"{what}{interval}, the target is {wanted}{more}"


def scores(found: Findings) -> list[str]:
    """The distribution of the rows' surprisal or score, and its precision."""
    if not found.n_cells:
        return [ALL_MISSING]
    middle, most = np.quantile(found.surprisal, [0.5, 0.95])
    name, error = score_name(found), f"{np.median(found.stderr):.2f} nats"
    text = (
        f"Half of the rows have a {name} of at most {nats(middle)}, 95 % of at most {nats(most)}; the largest is"
        f" {nats(found.surprisal.max())}."
    )
    precision = f"The surprisal of {an_inlier(found)} is an estimate with a median standard error of {error}"
    if found.alarms.is_surprisal:
        return [f"{text} {precision}."]
    return [text, f"{OTHER_SCORE} {precision}; the score has another error."]


def alarms(found: Findings) -> str:
    """The number of alarms, and how the threshold was set."""
    limit, n = found.alarms.threshold, found.n_alarms
    if limit is None or n is None:
        return NO_THRESHOLD
    if limit.offset == -math.inf:
        return NO_ALARMS
    verb = "is" if n == 1 else "are"
    text = f"{count(n, 'row')} of {found.n_rows:,} {verb} above the threshold of {nats(-limit.offset)}."
    if not limit.n_calibration:
        return f"{text} {FITTED}"
    by, who = count(limit.n_calibration, "calibration row"), "inliers"
    if limit.contaminated:
        by, who = f"{by} that contain anomalies", "similar rows"
    return (
        f"{text} According to {by}, {who} are above it at a rate of {percent(limit.false_alarm_rate)}"
        f" ({percent(limit.low)} to {percent(limit.high)})."
    )


def calibration(found: Findings) -> str:
    """What calibrated p-values look like in the figure."""
    n, threshold = found.n_inliers, found.alarms.threshold
    rows = f"{count(n, 'row')} examined here {'is an inlier' if n == 1 else 'are inliers'}"
    share = "about a share t of them has" if n > 1 else "with probability t it has"
    text = (
        f"If the {rows}, {share} a p-value of at most t, and at each level the line is within the band in 95 of 100"
        " tables. A line above the band on the left means more false alarms than promised, or rows that are not"
        " inliers; a line below it means a threshold that is too cautious."
    )
    if threshold is not None and threshold.contaminated:
        text += f" {CONTAMINATED}"
    return text


def most_anomalous(found: Findings) -> str:
    """Caption of the table of the most anomalous rows."""
    n = len(found.most_anomalous)
    rows = "row" if n == 1 else count(n, "row")
    return f"The {rows} with the highest {score_name(found)}"


def glossary(found: Findings) -> list[tuple[str, str]]:
    """The terms of a report and what they mean in this one."""
    limit = found.alarms.threshold
    how = "The threshold is set on inliers, so that a chosen share of them raises an alarm."
    if limit is not None and limit.cost is not None:
        how = "The threshold minimises the cost of missed anomalies and of checked alarms."
    elif limit is not None and not limit.n_calibration:
        how = (
            "The threshold is set on training rows, so that a chosen share of them raises an alarm."
        )
    elif limit is not None and limit.contaminated:
        how = "The threshold is set on rows that contain anomalies, so that a chosen share of them raises an alarm."
    among, most = "inliers", "5 %"
    if limit is not None and limit.contaminated:
        among, most = "calibration rows, which contain anomalies,", "about 5 % or fewer"
    score = (
        "The quantity in nats by which the detector ranks rows, by default the mean of the surprisal under this model"
        " and under a simpler one. Anomalies have high scores, but one nat more is not 2.7 times less likely."
    )
    surprisal = (
        "Minus the natural logarithm of a row's probability under the model, in nats. Anomalies have high surprisal."
        " The lower the mean surprisal of inliers, the better the model."
    )
    return [
        ("nat", "The unit of information with natural logarithms; 1 nat is 1.44 bits. A row with one nat more of"
         " surprisal is 2.7 times less likely."),
        ("surprisal", surprisal),
        *([] if found.alarms.is_surprisal else [("score", score)]),
        ("threshold and alarm", f"A row with a {score_name(found)} above the threshold raises an alarm. {how}"),
        ("false alarm", "An alarm raised by an inlier."),
        ("p-value", f"The share of {among} that are at least as anomalous as this row. Of the inliers, {most} have a"
         " p-value of at most 5 %; anomalies have small p-values."),
        ("95 % interval", "A range that contains the true value in about 95 of 100 tables, if rows are independent. It"
         " shrinks as the number of rows grows."),
        ("held-out rows", "Rows that were not used for training; they show how the model performs on new rows."),
        ("SNR", "Signal-to-noise ratio. The model is trained to reconstruct rows to which Gaussian noise was added; a"
         " high SNR means little noise."),
    ]  # fmt: skip


def training(found: Findings) -> str:
    """How training went."""
    history = found.history
    best = history.loc[history["valid_nats"].idxmin()]
    first, last = history.iloc[0], history.iloc[-1]
    return (
        f"Training took {count(int(last['step']), 'step')} and {seconds(last['seconds'])}, and ended because"
        f" {ENDINGS.get(found.stopped, found.stopped)}. The best model was that after step {int(best['step']):,}: the"
        f" mean surprisal of held-out rows is {nats(best['valid_nats'])}, with independent columns"
        f" {nats(first['valid_nats'])}."
    )


def longer_training(found: Findings) -> str:
    """What longer training would gain."""
    law = found.extrapolation
    if law is None:
        return "There are too few validations to estimate what longer training would gain."
    if law.has_turned:
        return (
            "Since then the surprisal of held-out rows has increased: longer training of this kind would gain nothing."
            " More rows or a smaller network might help."
        )
    gain = f"about {nats(law.gain)}" if law.gain >= 0.005 else "less than 0.01 nats"
    gain += f" per row ({law.low:.2f} to {law.high:.2f})"
    if found.stopped == "no improvement":
        return (
            "Training stopped by itself, so more steps would hardly help; extrapolation of the whole curve predicts a"
            f" gain of {gain} for {law.factor:g} times as many. More rows would help more."
        )
    longer = "Twice the training" if law.factor == 2 else f"{law.factor:g} times the training"
    return f"{longer} would gain {gain}, if the curve continues along the fitted power law."
