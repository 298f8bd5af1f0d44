r"""A column of 100 000 categories: training rate, memory, scoring rate, and nats beside the known truth.

    python -m tests.benchmarks.vocabulary --max-time 300
    python -m tests.benchmarks.vocabulary --categories 1000 --rows 20000 --max-time 60
    python -m tests.benchmarks.vocabulary --quick

The table is drawn from a law whose log-probability is known. A merchant m is drawn by Zipf's law, P(m) proportional to
1 / (rank + 10); every merchant belongs to one of 20 groups g(m), drawn once; then the kind of the purchase (12
categories) is drawn from P(kind | g(m)), the channel (8) from P(channel | kind, g(m) mod 4), and the amount is
log-normal with a location that depends on g(m) and on the channel:

.. math:: \log p = \log P(m) + \log P(k | g(m)) + \log P(c | k, g(m)) + \log p(a | g(m), c).

The groups are not in the table: a model has to find out which merchants are alike. Merchants that do not occur among
the training rows are one category, "unseen": for everybody, and also for the truth, which is then the law summed over
all such merchants. The independent columns give "unseen" the share of the merchants that occur once (Good-Turing),
share the rest by frequency, and have a Gaussian mixture for the logarithm of the amount.
"""

from __future__ import annotations

import argparse
import resource
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

from tests.benchmarks.tables import estimator, machine, markdown, mean_and_error, plus_minus, timed

N_GROUPS, N_KINDS, N_CHANNELS = 20, 12, 8


class Law(NamedTuple):
    """The law of the table; merchants, kinds and channels are numbers from zero."""

    log_merchant: np.ndarray  # (M,)
    group: np.ndarray  # (M,)
    log_kind: np.ndarray  # (G, 12)
    log_channel: np.ndarray  # (4, 12, 8)
    location: np.ndarray  # (G, 8), of the logarithm of the amount
    deviation: float

    @classmethod
    def draw(cls, n_merchants: int, random: np.random.Generator) -> Law:
        log_merchant = -np.log(np.arange(n_merchants) + 11.0)
        kind = random.dirichlet(np.full(N_KINDS, 0.3), N_GROUPS) * 0.98 + 0.02 / N_KINDS
        channel = random.dirichlet(np.full(N_CHANNELS, 0.5), (4, N_KINDS)) * 0.98 + 0.02 / 8
        return cls(
            log_merchant - logsumexp(log_merchant),
            random.integers(0, N_GROUPS, n_merchants),
            np.log(kind),
            np.log(channel),
            random.normal(3.0, 1.0, (N_GROUPS, 1)) + random.normal(0, 0.5, (1, N_CHANNELS)),
            0.4,
        )

    def sample(self, n: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Columns of n rows."""
        merchant = random.choice(len(self.group), n, p=np.exp(self.log_merchant))
        group = self.group[merchant]
        kind = _draw(np.exp(self.log_kind)[group], random)
        channel = _draw(np.exp(self.log_channel)[group % 4, kind], random)
        amount = np.exp(random.normal(self.location[group, channel], self.deviation))
        return {"merchant": merchant, "kind": kind, "channel": channel, "amount": amount}

    def log_prob(self, rows: dict[str, np.ndarray], seen: np.ndarray) -> np.ndarray:
        """Log-mass times density of each row, (N,); merchants with ``seen`` (M,) false are one category."""
        per_group = np.stack([self._given(rows, np.full(1, g)) for g in range(N_GROUPS)])
        with np.errstate(divide="ignore"):
            unseen = np.log(
                np.bincount(self.group, np.exp(self.log_merchant) * ~seen, minlength=N_GROUPS)
            )
        merchant = rows["merchant"]
        own = self.log_merchant[merchant] + self._given(rows, self.group[merchant])
        together = logsumexp(per_group + unseen[:, None], axis=0)
        return np.where(seen[merchant], own, together)

    def _given(self, rows: dict[str, np.ndarray], group: np.ndarray) -> np.ndarray:
        """Log-probability of the other columns given the group."""
        kind, channel, amount = rows["kind"], rows["channel"], rows["amount"]
        away = (np.log(amount) - self.location[group, channel]) / self.deviation
        density = -0.5 * away**2 - np.log(amount * self.deviation * np.sqrt(2 * np.pi))
        return self.log_kind[group, kind] + self.log_channel[group % 4, kind, channel] + density


def _draw(mass: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One category per row of a table of probabilities."""
    below = mass.cumsum(1) < random.random((len(mass), 1))
    return below.sum(1).clip(max=mass.shape[1] - 1)


def main() -> None:
    """Print one table and the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=500_000, help="training rows")
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--max-time", type=float, default=300.0, help="seconds of training")
    parser.add_argument("--n-evaluations", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, a small table")
    options = parser.parse_args()
    if options.quick:
        options.categories, options.rows, options.test_rows = 2000, 5000, 200
    print(machine())
    random = np.random.default_rng(0)
    law = Law.draw(options.categories, random)
    train, test = (law.sample(n, random) for n in (options.rows, options.test_rows))
    counts = np.bincount(train["merchant"], minlength=options.categories)
    seen = counts > 0
    known = seen[test["merchant"]]
    print(
        f"\n{options.rows} training rows, {options.categories} merchants of which {seen.sum()} occur,"
        f" {(counts == 1).sum()} of them once; {len(known)} test rows, {(~known).sum()} with an unseen merchant\n"
    )

    truth = law.log_prob(test, seen)
    log_probs = {"independent columns": _independent(train, test, counts)}
    frame = _frame(train)
    before = _peak_mib()
    model = estimator(options.max_time, quick=options.quick)
    if not options.quick:
        model.set_params(n_evaluations=options.n_evaluations)
    _, fit_seconds = timed(model.fit, frame)
    fit_peak = _peak_mib()
    estimate, score_seconds = timed(model.log_prob, _frame(test))
    log_probs["discrete_itd"] = estimate.log_prob

    rows = []
    for label, log_prob in log_probs.items():
        excess = truth - log_prob
        rest = plus_minus(excess[~known]) if (~known).sum() > 1 else ""
        row = [label, *mean_and_error(-log_prob), plus_minus(excess), plus_minus(excess[known])]
        rows.append([*row, rest])
    rows.append(["the truth", *mean_and_error(-truth), "0", "0", "0"])
    header = ["method", "nats", "s.e.", "excess over the truth", "seen merchants", "unseen ones"]
    print(markdown(header, rows))

    history = model.history_
    steps, trained = int(history["step"].max()), float(history["seconds"].max())
    nats, rate = history["valid_nats"], steps / max(trained, 1e-9)
    print(
        f"\nfit {fit_seconds:.0f} s, of which {trained:.0f} s for {steps} steps, {rate:.1f} per second;"
        f" held-out nats {nats.iloc[0]:.3f} -> {nats.min():.3f}; peak memory {fit_peak:.0f} MiB, of which {before:.0f}"
        f" before the fit, {_peak_mib():.0f} after scoring; {len(known) / score_seconds:.0f} rows scored per second,"
        f" estimator error {estimate.stderr.mean():.3f} a row"
    )


def _frame(rows: dict[str, np.ndarray]) -> pd.DataFrame:
    """Words for the categories, a number for the amount."""
    names = {"merchant": "m", "kind": "kind ", "channel": "channel "}
    columns = {c: pd.Series(rows[c]).map(lambda i, p=p: f"{p}{i}") for c, p in names.items()}
    return pd.DataFrame({**columns, "amount": rows["amount"]})


def _independent(
    train: dict[str, np.ndarray], test: dict[str, np.ndarray], counts: np.ndarray
) -> np.ndarray:
    """Log-probability of the test rows, column by column."""
    once = max((counts == 1).sum(), 0.5)
    mass = np.where(counts > 0, counts / (counts.sum() + once), once / (counts.sum() + once))
    total = np.log(mass[test["merchant"]])
    for column, k in (("kind", N_KINDS), ("channel", N_CHANNELS)):
        seen = np.bincount(train[column], minlength=k) + 0.5
        total += np.log(seen / seen.sum())[test[column]]
    logs = np.log(train["amount"][:20_000])[:, None]
    mixture = GaussianMixture(8, random_state=0).fit(logs)
    new = np.log(test["amount"])
    return total + mixture.score_samples(new[:, None]) - new


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
