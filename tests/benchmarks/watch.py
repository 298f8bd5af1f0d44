"""The watch's martingale beside others: false alarms, and rows until an alarm after a change.

    python -m tests.benchmarks.watch                 # two minutes
    python -m tests.benchmarks.watch --quick

Scores are Gaussian, or Poisson with many ties; no model is fitted. All martingales bet against the same online
p-values of :mod:`discrete_itd.detection.watch`, but for the line "fixed": the watch's bets against smoothed
p-values of the calibration rows alone, which are valid one by one, and not together.

- watch: :class:`discrete_itd.detection.watch.Martingales`.
- Simple Jumper: of Vovk et al. 2021 (arXiv:2102.10439), three linear bets, with a jumping rate of 0.01 or 0.001.
- Composite Jumper: the mean of Simple Jumpers with rates 0.0001, 0.001, 0.01, 0.1 and 1.

A false alarm is one at any row; the guarantee is a rate of at most alpha. Rows until the alarm are medians at alpha =
0.01 of streams that had raised none before the change, with the share of them that raised one, if not all did.
"""

from __future__ import annotations

import argparse
import copy
import math
import time

import numpy as np

from discrete_itd.detection.watch import Martingales, Ranks
from tests.benchmarks.tables import machine, markdown

ALPHAS = (0.01, 0.05)
CHANGES = {
    "mean - 0.5 sd": lambda z, _: z - 0.5,
    "mean - 1 sd": lambda z, _: z - 1,
    "mean + 0.5 sd": lambda z, _: z + 0.5,
    "sd halved": lambda z, _: z / 2,
    "sd 1.5 times": lambda z, _: z * 1.5,
    "5 % of rows - 6 sd": lambda z, u: np.where(u < 0.05, z - 6, z),
}


class Jumper:
    """The mean of Simple Jumpers, one martingale for each column."""

    def __init__(self, n_columns: int, rates: tuple[float, ...]) -> None:
        self.rates = np.array(rates)[:, None, None]
        self.capital = np.full((len(rates), n_columns, 3), 1 / 3)

    def update(self, p: np.ndarray) -> np.ndarray:
        """As :meth:`Martingales.update`."""
        logs = np.empty(p.shape)
        for i, row in enumerate(p):
            total = self.capital.sum(2, keepdims=True)
            self.capital = (1 - self.rates) * self.capital + self.rates / 3 * total
            self.capital *= 1 + np.array([-1, 0, 1]) * (row - 0.5)[:, None]
            logs[i] = np.log10(self.capital.sum(2).mean(0))
        return logs


METHODS = {
    "watch": Martingales.start,
    "Simple Jumper, 0.01": lambda n: Jumper(n, (0.01,)),
    "Simple Jumper, 0.001": lambda n: Jumper(n, (0.001,)),
    "Composite Jumper": lambda n: Jumper(n, (1e-4, 1e-3, 1e-2, 0.1, 1.0)),
}


def main() -> None:
    """Print a table of false alarms and one of delays."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few streams and rows")
    quick, start = parser.parse_args().quick, time.perf_counter()
    print(machine())
    false_alarms(30 if quick else 1000, 50 if quick else 1000, 200)
    delays(10 if quick else 200, (0, 50) if quick else (0, 1000, 10_000), 500)
    print(f"\n{time.perf_counter() - start:.0f} s")


def online(ranks: Ranks, new: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The p-values of the watch."""
    return ranks.p_values(new + 1j * random.random(new.shape), 1 - random.random(new.shape))


def fixed(seen: np.ndarray, new: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Smoothed p-values against the same rows all the time."""
    p = np.empty(new.shape)
    for j, (known, values) in enumerate(zip(np.sort(seen, axis=0).T, new.T, strict=True)):
        low, high = (np.searchsorted(known, values, side) for side in ("left", "right"))
        p[:, j] = (low + (1 - random.random(len(values))) * (high - low + 1)) / (len(known) + 1)
    return p


def false_alarms(n_runs: int, n_rows: int, n_seen: int) -> None:
    """Shares of streams without a change in which there is an alarm."""
    print(f"\n{n_runs} streams of {n_rows} rows after {n_seen} calibration rows, no change\n")
    draws = {
        "Gaussian": lambda random, size: random.normal(size=size),
        "Poisson": lambda random, size: random.poisson(1.0, size).astype(float),
    }
    lines = []
    for kind, draw in draws.items():
        random = np.random.default_rng(0)
        seen, new = draw(random, (n_seen, n_runs)), draw(random, (n_rows, n_runs))
        p = online(Ranks(seen + 1j * random.random(seen.shape)), new, random)
        logs = {name: method(n_runs).update(p) for name, method in METHODS.items()}
        logs["fixed"] = Martingales.start(n_runs).update(fixed(seen, new, random))
        for name, found in logs.items():
            rates = [float((found.max(0) >= -math.log10(alpha)).mean()) for alpha in ALPHAS]
            errors = [math.sqrt(a * (1 - a) / n_runs) for a in ALPHAS]
            cells = [f"{r:.3f}" for r in rates]
            lines.append([kind, name, *cells, f"{np.median(found[-1]):.2f}"])
    bounds = ", ".join(f"{a:g} ± {e:.3f}" for a, e in zip(ALPHAS, errors, strict=True))
    header = ["scores", "method", *(f"alarms at {a:g}" for a in ALPHAS), "log10 at the end"]
    print(markdown(header, lines))
    print(f"\nAt most, with the standard error of a rate of just that: {bounds}.")


def delays(n_runs: int, before: tuple[int, ...], n_seen: int) -> None:
    """Rows until an alarm after changes, at once or after many rows without one."""
    after = 1000 if n_runs > 10 else 100
    print(f"\n{n_runs} streams, {n_seen} calibration rows; rows until the alarm, of {after}\n")
    random, threshold = np.random.default_rng(1), -math.log10(ALPHAS[0])
    seen = random.normal(size=(n_seen, n_runs))
    ranks = Ranks(seen + 1j * random.random(seen.shape))
    methods = {name: method(n_runs) for name, method in METHODS.items()}
    loud, done, lines = {name: np.zeros(n_runs, dtype=bool) for name in methods}, 0, []
    for n_before in before:
        p = online(ranks, random.normal(size=(n_before - done, n_runs)), random)
        for name, method in methods.items():
            if len(p):
                loud[name] |= (method.update(p) >= threshold).any(0)
        done = n_before
        for change, make in CHANGES.items():
            size = after, n_runs
            new = make(random.normal(size=size), random.random(size))
            p = online(copy.deepcopy(ranks), new, random)
            cells = []
            for name, method in methods.items():
                hit = (copy.deepcopy(method).update(p) >= threshold)[:, ~loud[name]]
                first = np.where(hit.any(0), hit.argmax(0) + 1, np.inf)
                middle, share = np.median(first), float(hit.any(0).mean())
                shown = f"{middle:.0f}" if np.isfinite(middle) else f"> {after}"
                cells.append(shown if share == 1 else f"{shown} ({share:.0%})")
            lines.append([n_before, change, *cells])
    print(markdown(["rows before", "change", *methods], lines))


if __name__ == "__main__":
    main()
