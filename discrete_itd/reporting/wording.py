"""The words of a report: numbers and findings as people read them."""

from __future__ import annotations

import math

import numpy as np

from discrete_itd.reporting.findings import Findings, Verdict

VERDICTS = {True: "Pass", False: "Fail", None: "Undecided"}
ENDINGS = {
    "max_steps": "the number of steps asked for was reached",
    "max_time": "the time allowed was used up",
    "no improvement": "held-out rows no longer improved",
    "interrupted": "it was interrupted",
    "diverged": "it diverged",
    "exact": "there was nothing to train",
}
NO_THRESHOLD = (
    "The model is a density without a threshold, so there are no alarms and no p-values. They come with a"
    " DiffusionOutlierDetector, or with a table of ordinary rows to set a threshold by."
)
POOLED = (
    "The detector ranks rows by a score of its own, as a rule the mean of their surprisal and that of a simpler model;"
    " these nats are not on the scale of what a row costs."
)
NEVER = "The threshold is infinite: no row raises an alarm, as where no alarm is worth its check."
FITTED = "It was set by rows that were fitted, so of others more may be above it."
NOTHING = "All cells are missing, so there is nothing to cost."
ANOMALIES_AMONG = (
    "Anomalies are among the calibration rows. If these look stranger than ordinary rows, p-values are larger than they"
    " need be (smaller, if they look more ordinary), and the line of ordinary rows may leave the band."
)
NO_CALIBRATION = "There are no p-values: the detector was fitted without calibration rows."
SCALES = ("", " thousand", " million", " billion", " trillion")


def nats(value: float) -> str:
    """An amount of surprise."""
    return f"{value:.2f} nats"


def count(n: int, what: str) -> str:
    """So many things."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """A share with as many digits as it takes to tell a small one from none."""
    if 0 < share < 5e-5:
        return "<0.01 %"
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.3g} %"


def p_value(p: float) -> str:
    """A p-value; nothing if there is none."""
    return "" if math.isnan(p) else f"{p:.2g}"


def seconds(duration: float) -> str:
    """A duration."""
    return f"{duration:.0f} s" if duration < 120 else f"{duration / 60:.0f} min"


def a_row(found: Findings) -> str:
    """One of the rows whose cost is measured."""
    return "an ordinary row" if found.is_given else "a row of this table"


def measured_rows(found: Findings) -> str:
    """All of the rows whose cost is measured."""
    if found.is_given:
        return count(found.n_ordinary, "ordinary row")
    return f"{count(found.n_ordinary, 'row')} of this table"


def capital(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def are(n: int) -> str:
    """The verb for so many things."""
    return "is" if n == 1 else "are"


def score_name(found: Findings) -> str:
    """What rows are ranked by."""
    return "surprisal" if found.is_plain else "score"


def odds(found: Findings) -> str:
    """What the mean surprisal amounts to, for those who do not think in nats."""
    if not found.is_mass:
        return "of a density, which may be below 0"
    power = found.nats.value / math.log(10)
    step = min(int(power) // 3, len(SCALES)) if power > 0 else 0
    if step == len(SCALES):
        many = f"a number of {int(power) + 1} digits of"
    else:
        ways = 10 ** (power - 3 * step)
        many = f"{ways:.3g}{SCALES[step]}"
    return f"like one of {many} equally likely rows"


def judgement(verdict: Verdict, found: Findings) -> str:
    """What was measured, what was wanted, and what follows, in one sentence without its full stop."""
    measured, target = verdict.measured, verdict.target
    if verdict.what == "nats":
        what = f"{a_row(found)} costs {nats(measured.value)} on average"
        if not found.n_ordinary_cells:
            what = "all cells are missing, so there is nothing to cost"
        between = f"{measured.low:.2f} to {measured.high:.2f}"
        wanted = f"at most {target:g} nats"
    else:
        n = round(measured.value * found.n_ordinary)
        verb = "raises" if n == 1 else "raise"
        what = f"{n:,} of {measured_rows(found)} {verb} an alarm, {percent(measured.value)}"
        between = f"{percent(measured.low)} to {percent(measured.high)}"
        wanted = f"at most {percent(target)}"
    interval = f" (95 % interval {between})" if math.isfinite(measured.low) else ""
    more = ""
    if verdict.passed is None:
        more = f"; more {'rows' if found.n_ordinary_cells else 'cells'} are needed to tell"
    return f"{what}{interval}, the target is {wanted}{more}"


def scores(found: Findings) -> list[str]:
    """How surprising the rows are, and how well that is known."""
    if not found.n_cells:
        return [NOTHING]
    middle, most = np.quantile(found.surprisal, [0.5, 0.95])
    cost, error = (
        "cost" if found.is_plain else "score",
        f"±{np.median(found.stderr):.2f} nats (median)",
    )
    text = (
        f"Half of the rows {cost} up to {nats(middle)}, 95 % of them up to {nats(most)}, the strangest"
        f" {nats(found.surprisal.max())}."
    )
    if found.is_plain:
        return [f"{text} A score is an estimate: that of {a_row(found)} is known to {error}."]
    known = f"The surprisal of {a_row(found)} is an estimate, known to {error}; that is not the error of a score."
    return [text, f"{POOLED} {known}"]


def alarms(found: Findings) -> str:
    """How many rows are alarms, and what is known of the threshold."""
    limit, n = found.threshold, found.n_alarms
    if limit is None or n is None:
        return NO_THRESHOLD
    if limit.offset == -math.inf:
        return NEVER
    text = f"{count(n, 'row')} of {found.n_rows:,} {are(n)} above the threshold of {nats(-limit.offset)}."
    if not limit.n_calibration:
        return f"{text} {FITTED}"
    by, who = count(limit.n_calibration, "calibration row"), "ordinary rows"
    if limit.contaminated:
        by, who = f"{by}, anomalies among them", "rows like these"
    return (
        f"{text} By {by}, {who} are above it at a rate of {percent(limit.false_alarm_rate)}"
        f" ({percent(limit.low)} to {percent(limit.high)})."
    )


def promise(found: Findings) -> str:
    """What p-values promise, and what a picture of them tells."""
    n = found.n_ordinary
    share = "about a share t of them has" if n > 1 else "with probability t it has"
    text = (
        f"If the {count(n, 'row')} looked at here {are(n)} ordinary, {share} a p-value up to t or fewer, and at each"
        " level the line is within the band in 95 of 100 tables. A line above it at the left means more false alarms"
        " than promised, or rows that are not ordinary; a line below it, a threshold that is too careful."
    )
    if found.threshold is not None and found.threshold.contaminated:
        text += f" {ANOMALIES_AMONG}"
    return text


def strangest(found: Findings) -> str:
    """What the strangest rows are."""
    n = len(found.strangest)
    rows = "row" if n == 1 else count(n, "row")
    if found.is_plain:
        return f"The {rows} that the model finds least likely"
    return f"The {rows} with the highest score{'' if n == 1 else 's'}"


def glossary(found: Findings) -> list[tuple[str, str]]:
    """The words of a report and what they mean, as far as it goes in this one."""
    limit = found.threshold
    how = "The threshold is set on ordinary rows, so that only a chosen share of them would be alarms."
    if limit is not None and limit.cost is not None:
        how = "The threshold is set by what it costs to miss an anomaly, and to look into an alarm."
    elif limit is not None and not limit.n_calibration:
        how = "The threshold is set on rows that were fitted, so that a chosen share of them would be alarms."
    elif limit is not None and limit.contaminated:
        how = "The threshold is set on rows with anomalies among them, of which a chosen share would be alarms."
    among, most = "ordinary rows", "5 %"
    if limit is not None and limit.contaminated:
        among, most = "calibration rows, anomalies among them,", "about 5 % or fewer"
    score = (
        "What the detector ranks rows by, in nats: as a rule the mean of the surprisal and that of a simpler model. A"
        " higher one is odder, but one nat more is not 2.7 times less likely."
    )
    return [
        (
            "nat",
            "The unit of surprise, and of information: 1 nat is 1.44 bits. One nat more of surprisal is 2.7 times less"
            " likely.",
        ),
        (
            "surprisal",
            "How unlikely the model finds a row, in nats: minus the natural logarithm of its probability. Ordinary rows"
            " cost few nats, odd ones many. The mean over ordinary rows measures the model: fewer nats, better model.",
        ),
        *([] if found.is_plain else [("score", score)]),
        (
            "threshold and alarm",
            f"A row whose {score_name(found)} is above the threshold is an alarm. {how}",
        ),
        ("false alarm", "An alarm on a row that is ordinary."),
        (
            "p-value",
            f"The share of {among} at least as odd as this one. Of ordinary rows, {most} have a p-value up to 5 %; an"
            " odd row has a small one.",
        ),
        (
            "95 % interval",
            "A range found in a way that contains the true number for about 95 of 100 tables, if rows are independent."
            " It shrinks with more rows.",
        ),
        (
            "held-out rows",
            "Rows that the model has not learned from. Only they tell how it does on rows to come.",
        ),
        (
            "SNR",
            "Signal-to-noise ratio: how clearly the model sees a row. It learns by guessing rows seen through noise.",
        ),
    ]


def training(found: Findings) -> str:
    """How training went."""
    history = found.history
    best = history.loc[history["valid_nats"].idxmin()]
    first, last = history.iloc[0], history.iloc[-1]
    return (
        f"Training took {count(int(last['step']), 'step')} and {seconds(last['seconds'])}, and ended because"
        f" {ENDINGS.get(found.stopped, found.stopped)}. The best model was that after step {int(best['step']):,}: it"
        f" needs {nats(best['valid_nats'])} for a held-out row, columns by themselves {nats(first['valid_nats'])}."
    )


def prospect(found: Findings) -> str:
    """What longer training would buy."""
    ahead = found.ahead
    if ahead is None:
        return "There are too few measurements to say what longer training would buy."
    if ahead.has_turned:
        return (
            "Since then held-out rows have become worse: more training of this kind would buy nothing. More rows, or a"
            " smaller network, might."
        )
    gain = f"about {nats(ahead.gain)}" if ahead.gain >= 0.005 else "less than 0.01 nats"
    gain += f" a row ({ahead.low:.2f} to {ahead.high:.2f})"
    if found.stopped == "no improvement":
        return (
            "Training stopped by itself, so more steps would hardly help; the curve as a whole would promise"
            f" {gain} for {ahead.factor:g} times as many. More rows would teach it more."
        )
    longer = (
        "Doubling the training" if ahead.factor == 2 else f"{ahead.factor:g} times the training"
    )
    return f"{longer} would buy {gain}, if the curve goes on as the power law that fits it."
