"""Do stated intervals cover: those of a threshold's rate, and standard errors of scores along paths?

    python -m tests.benchmarks.promises [ties small coverage]

Each part prints one table.

* ties: rate and interval of a threshold on scores with ties, against the true rate.
* small: how often p-values of new rows are at most 1, 2 or 3 calibration rows' share, of detectors that were fitted to
  small tables, division and all; with tables in which ranks tell little, or one column's tell all.
* coverage: how often log_prob ± 1.96 stderr, or 1.96 plain standard errors, covers the model's own log-probability
  (the log-mean-exp of many paths), for 2 to 256 calls, held-out rows and anomalies (half of the cells from other
  rows); adult also with gaps as values.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.datasets import load_adult, load_mushroom
from discrete_itd.detection import thresholds
from discrete_itd.likelihood import Attribution, attribute, path
from discrete_itd.recipes import Network
from tests.benchmarks.tables import machine, markdown
from tests.networks import load_bayesian_network

PARTS = ("ties", "small", "coverage")


def main() -> None:
    """Print one table for each part that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="part", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="smaller, to try the script")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        start = time.perf_counter()
        print(f"\n## {part}\n\n{globals()[part](options.quick)}")
        print(f"\n({time.perf_counter() - start:.0f} s)")


# -- thresholds ----------------------------------------------------------------------------------


def ties(quick: bool) -> str:
    """Rates and intervals of thresholds where scores have ties."""
    random = np.random.default_rng(0)
    n_repeats = 200 if quick else 2000
    lines = []
    for name, sizes in (
        ("12 values, halving", 0.5 ** np.arange(12)),
        ("30 values", np.random.default_rng(1).dirichlet(np.ones(30))),
        ("300 values", np.random.default_rng(1).dirichlet(np.full(300, 0.3))),
        ("no ties", np.full(100_000, 1e-5)),
    ):
        share = np.sort(sizes / sizes.sum())
        below = np.concatenate([[0.0], share.cumsum()])
        for n, rate in ((100, 0.05), (1000, 0.05), (1000, 0.01)):
            true, stated, covered = [], [], []
            for _ in range(n_repeats):
                scores = random.choice(len(share), size=n, p=share).astype(float)
                found = thresholds.at_rate(scores, rate)
                rate_there = below[int(found.offset)]
                true.append(rate_there)
                stated.append(found.false_alarm_rate)
                covered.append(found.low - 1e-12 <= rate_there <= found.high + 1e-12)
            lines.append(
                [name, n, f"{rate:.0%}", *(f"{np.mean(v):.2%}" for v in (true, stated, covered))]
            )
    header = ["scores", "calibration rows", "asked for", "true rate", "stated rate", "95 % covers"]
    return markdown(header, lines)


# -- standard errors -----------------------------------------------------------------------------


SMALL = {
    "one column": lambda r, n: {"x": r.normal(size=n)},
    "one, Cauchy": lambda r, n: {"x": r.standard_cauchy(n)},
    "x and exp(x)": lambda r, n: {"x": (x := r.normal(size=n)), "y": np.exp(x)},
    "x and -x³": lambda r, n: {"x": (x := r.normal(size=n)), "y": -(x**3)},
    "a number and its sign": lambda r, n: {
        "x": (x := r.normal(size=n)) + r.normal(size=n),
        "k": x > 0,
    },
    "four levels": lambda r, n: {"k": r.integers(0, 4, n).astype(str)},
    "levels and few numbers": lambda r, n: {
        "k": r.integers(0, 3, n).astype(str),
        "l": r.integers(0, 5, n) * 1.0,
    },
}


def small(quick: bool) -> str:
    """Shares of p-values of new rows that are at most as large as promised, over whole fits."""
    lines = []
    for name, make in SMALL.items():
        for n in (41, 73):
            shares = []
            for seed in range(20 if quick else 300):
                random = np.random.default_rng(seed)
                table, new = (pd.DataFrame(make(random, size)) for size in (n, 400))
                fitted = DiffusionOutlierDetector(
                    denoiser="tree", false_alarm_rate=0.2, random_state=0
                ).fit(table)
                promised = np.arange(1, 4) / (1 + len(fitted.calibration_scores_))
                shares.append((fitted.p_values(new)[:, None] <= promised + 1e-9).mean(0))
            mean, error = np.mean(shares, 0), np.std(shares, 0) / len(shares) ** 0.5
            measured = [f"{m:.1%} ± {e:.1%}" for m, e in zip(mean, error, strict=True)]
            pairs = zip((f"{p:.1%}" for p in promised), measured, strict=True)
            lines.append([name, n, *(cell for pair in pairs for cell in pair)])
    return markdown(["table", "rows", *["promised", "measured"] * 3], lines)


def coverage(quick: bool) -> str:
    """How often intervals cover."""
    n_rows, repeats, many = (20, 2, 500) if quick else (50, 4, 2000)
    budgets = (2, 8, 128) if quick else (2, 4, 8, 16, 32, 64, 128, 256)
    mushroom = load_mushroom()
    label = mushroom.pop("class")
    adult = load_adult().sample(4000, random_state=0)
    gaps = adult.mask(np.random.default_rng(0).random(adult.shape) < 0.1)
    insurance = load_bayesian_network("insurance").sample(4000, random_state=0)
    tables: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
        "mushroom": (mushroom[label == "edible"].sample(frac=1, random_state=0), {}),
        "insurance": (insurance, {}),
        "adult": (adult, {}),
        "adult, gaps as values": (gaps, {"missing": "category"}),
    }
    lines = []
    for name, (frame, how) in tables.items():
        cut = 1500 if len(frame) > 2000 else len(frame) // 2
        model = DiffusionDensity(
            denoiser=Network(base="independent"), max_steps=30 if quick else 600, random_state=0,
            **how,
        ).fit(frame[:cut])  # fmt: skip
        held = frame[cut : cut + n_rows]
        odd = held.copy()  # half of each row from another one
        random = np.random.default_rng(1)
        for column in odd.columns[random.permutation(odd.shape[1])[: odd.shape[1] // 2]]:
            odd[column] = held[column].to_numpy()[random.permutation(len(held))]
        for kind, schedule_of in (
            ("coordinate", lambda n: CoordinateSchedule(n)),
            ("isotropic", lambda n: IsotropicSchedule(tuple(np.geomspace(0.3, 40, n)))),
        ):
            for n_evaluations in budgets:
                n_steps = max(1, min(n_evaluations // 2, len(model.encoder_.owner)))
                if kind == "isotropic":
                    n_steps = max(1, min(n_evaluations // 4, 32))
                here = dataclasses.replace(model.model_, schedule=schedule_of(n_steps))
                line: list[Any] = [name, f"{kind}, {n_steps} steps", n_evaluations]
                for rows in (held, odd):
                    x = model.rows(rows).x
                    runs = [
                        dataclasses.replace(here, seed=seed).log_prob(x, n_evaluations)
                        for seed in range(repeats)
                    ]
                    # the truth: the log-mean-exp of a thousand paths, or of hundreds where a path has many steps
                    truth = dataclasses.replace(here, seed=99).log_prob(x, many).log_prob
                    with mock.patch.object(path, "attribute", plain):
                        bare = [
                            dataclasses.replace(here, seed=seed).log_prob(x, n_evaluations)
                            for seed in range(repeats)
                        ]
                    for found in (bare, runs):
                        hits = [(r.log_prob - truth).abs() <= 1.96 * r.stderr + 1e-9 for r in found]
                        line.append(f"{float(torch.stack(hits).double().mean()):.1%}")
                    line.append(float(torch.stack([r.stderr for r in runs]).median()))
                lines.append(line)
    header = ["table", "path", "calls"]
    for rows in ("held-out rows", "anomalies"):
        header += [f"{rows}: plain error covers", "stderr covers", "median stderr"]
    return markdown(header, lines)


def plain(log_w: torch.Tensor) -> Attribution:
    """With the larger of the delta method's error and the log-weights' standard deviation over the root of M."""
    found, total = attribute(log_w), log_w.sum(2)
    delta = (total - found.log_prob[:, None]).exp().var(1)
    stderr = (torch.maximum(delta, total.var(1)) / total.shape[1]).sqrt()
    return found._replace(stderr=stderr)


if __name__ == "__main__":
    main()
