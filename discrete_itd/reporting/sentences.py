"""Formatting of numbers, and the sentences of a report that depend on them; others are in the page's template."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from discrete_itd.reporting.findings import Findings, Verdict
from discrete_itd.statistics import percent

VERDICTS = {True: "Pass", False: "Fail", None: "Undecided"}
ENDINGS = {
    "max_steps": "the maximum number of steps was reached",
    "max_time": "the time limit was reached",
    "no improvement": "the validation score no longer improved",
    "interrupted": "it was interrupted",
    "diverged": "it diverged",
    "exact": "the model is exact and needs no steps",
}
CUT_SHORT = {
    "max_time": "Fit again with more time, a larger max_time: this fit was cut short, and other models may be better.",
    "interrupted": "Fit again without interrupting it: this model is the best so far.",
}


def nats(value: float) -> str:
    """A number of nats with two decimals."""
    return f"{value:.2f} nats"


def count(n: int, what: str) -> str:
    """A number of things, with the noun in the plural where needed."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def p_value(p: float) -> str:
    """A p-value; empty if it is NaN."""
    return "" if math.isnan(p) else f"{p:.2g}"


def seconds(duration: float) -> str:
    """A duration in seconds or minutes."""
    return f"{duration:.0f} s" if duration < 120 else f"{duration / 60:.0f} min"


# -- findings ---------------------------------------------------------------------------------


def an_inlier(found: Findings) -> str:
    """Name of one of the rows on which the model is measured."""
    return "an inlier" if found.has_inliers else "a row of this table"


def the_inliers(found: Findings) -> str:
    """Number and name of the rows on which the model is measured."""
    if found.has_inliers:
        return count(found.n_inliers, "inlier")
    return f"{count(found.n_inliers, 'row')} of this table"


def judgement(verdict: Verdict, found: Findings) -> str:
    """Measured value, target and conclusion, in one sentence without its full stop."""
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


def training(found: Findings) -> str:
    """Duration and result of training."""
    history = found.history
    best, last = history.loc[history["valid_nats"].idxmin()], history.iloc[-1]
    gain = (
        f"it predicts held-out rows better than independent columns by {nats(found.gain)} per row"
    )
    if not found.was_trained:
        how = "The model has a closed form, and its fit records no curve of held-out nats"
        if found.stopped in CUT_SHORT:
            how = f"The fit ended because {ENDINGS[found.stopped]}"
        return f"{how}: {gain}."
    return (
        f"Training took {count(int(last['step']), 'step')} and {seconds(last['seconds'])}, and ended because"
        f" {ENDINGS.get(found.stopped, found.stopped)}. The best model was that after step {int(best['step']):,}:"
        f" {gain}."
    )


def longer_training(found: Findings) -> str:
    """Whether more training is worth it, by what the second half of the steps gained on held-out rows."""
    gain, again = found.late_gain, CUT_SHORT.get(found.stopped, "")
    if not found.was_trained:
        return again or (
            "If a target is missed, compare other models by candidates_, or fit denoiser='best' with more max_time."
        )
    if gain is None:
        said = "There are too few validations to say what longer training would gain."
    elif not gain > 0:
        said = (
            "The second half of the steps gained nothing on held-out rows: longer training of this kind would not help."
            " More rows or a smaller network might."
        )
    else:
        known = f"about {nats(gain)}" if gain >= 0.005 else "less than 0.01 nats"
        said = (
            f"The second half of the steps gained {known} per held-out row; twice as many steps, with a larger"
            " max_steps, would gain less than that."
        )
    return f"{said} {again}".rstrip()


# -- recommendations ----------------------------------------------------------------------------------

AFTER_VERDICT = {
    "nats": {
        True: "nothing, the model predicts well enough",
        False: "fit more rows, give more time or denoiser='best', and see below which columns remain unexplained",
        None: "measure on more rows",
    },
    "false alarms": {
        True: "use the threshold as it is",
        False: "set a lower threshold, or calibrate anew on recent inliers",
        None: "measure on more inliers",
    },
}


def after_calibration(found: Findings) -> str:
    """Recommendation about the p-values."""
    table = found.alarms.calibration
    assert table is not None
    share, low, high = table[["share", "low", "high"]].to_numpy().T
    if (share > high).any():
        return (
            "see whether these rows are inliers; if they are, calibrate anew on recent ones (the share of small"
            " p-values is above its range)"
        )
    if (share < low).any():
        return (
            "the p-values are valid, but larger than those of new inliers would be: see whether these rows were used"
            " for the fit (the share of small p-values is below its range)"
        )
    return "use the p-values as they are"


def after_alarms(found: Findings) -> str:
    """Recommendation about rows with alarms."""
    if found.has_many_alarms:
        return (
            "read a few of these rows; if they are no errors, the data have changed: see the columns in"
            " detector.drift(X) or discrete-itd drift, and fit anew"
        )
    return "check the rows in this order, the highest first, and correct or confirm the cells that are marked, if any"


def strongest(information: pd.DataFrame) -> list[tuple[str, str, float, float]]:
    """Two columns that share most, with nats and standard error; empty if no two clearly share any."""
    nats, stderr = information.to_numpy(), information.attrs["stderr"]
    sure = np.triu(np.where(nats > 2 * stderr, nats, 0.0), 1)
    j, k = np.unravel_index(sure.argmax(), sure.shape)
    names = [str(name) for name in information.columns]
    return [(names[j], names[k], nats[j, k], stderr[j, k])] if sure[j, k] > 0 else []
