"""The words of a report: numbers and findings as people read them."""

from __future__ import annotations

import math

from discrete_itd.reporting.findings import Findings, Verdict

VERDICTS = {True: "Pass", False: "Fail", None: "Undecided"}
ENDINGS = {
    "max_steps": "the number of steps asked for was reached",
    "max_time": "the time allowed was used up",
    "no improvement": "held-out rows no longer improved",
    "interrupted": "it was interrupted",
    "diverged": "it diverged",
}
NO_THRESHOLD = (
    "The model is a density without a threshold, so there are no alarms and no p-values. They come with a"
    " DiffusionOutlierDetector, or with a table of ordinary rows to set a threshold by."
)
POOLED = (
    "The detector ranks rows by the mean of their surprisal and that of a simpler model; these nats are not on the"
    " scale of those above."
)
NO_CALIBRATION = "There are no p-values: the detector was fitted without calibration rows."
GLOSSARY = (
    (
        "nat",
        "The unit of surprise, and of information: 1 nat is 1.44 bits. One nat more is 2.7 times less likely.",
    ),
    (
        "surprisal",
        "How unlikely the model finds a row, in nats: minus the natural logarithm of its probability. Ordinary rows"
        " cost few nats, odd ones many. The mean over ordinary rows measures the model: fewer nats, better model.",
    ),
    (
        "threshold and alarm",
        "A row whose surprisal is above the threshold is an alarm. The threshold is set on ordinary rows, so that only"
        " a chosen share of them would be alarms.",
    ),
    ("false alarm", "An alarm on a row that is ordinary."),
    (
        "p-value",
        "The share of ordinary rows at least as surprising as this one. Of ordinary rows, 5 % have a p-value up to"
        " 5 %; an odd row has a small one.",
    ),
    (
        "95 % interval",
        "A range found in a way that contains the true number for 95 of 100 tables. It shrinks with more rows.",
    ),
    (
        "held-out rows",
        "Rows that the model has not learned from. Only they tell how it does on rows to come.",
    ),
    (
        "SNR",
        "Signal-to-noise ratio: how clearly the model sees a row. It learns by guessing rows seen through noise.",
    ),
)
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
        what = f"an ordinary row costs {nats(measured.value)} on average"
        between = f"{measured.low:.2f} to {measured.high:.2f}"
        wanted = f"at most {target:g} nats"
    else:
        n = round(measured.value * found.n_ordinary)
        what = f"{n:,} of {count(found.n_ordinary, 'ordinary row')} raise an alarm, {percent(measured.value)}"
        between = f"{percent(measured.low)} to {percent(measured.high)}"
        wanted = f"at most {percent(target)}"
    more = "; more rows are needed to tell" if verdict.passed is None else ""
    return f"{what} (95 % interval {between}), the target is {wanted}{more}"


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
