"""Do the promises hold that a score makes: alone as in a batch, held out, sampled, covered, normalised?

    python -m tests.benchmarks.promises [batch weights orders ties coverage mass ...]

Each part prints one table. Nothing here depends on what the promises' implementation is called, so the same script, run
within an older version, measures that one.

* batch: alarms of rows scored in one batch and one by one, in single precision; 20 columns, 97 % of the rows equal.
* weights: test nats of 300 rows fitted as they are, with weights of 10, and repeated ten times, beside the nats of the
  rows held out in the fit.
* orders: total variation between the mass of scores and the frequencies of samples where a path takes fixed orders, and
  the standard error beside the spread over seeds.
* ties: rate and interval of a threshold on scores with ties, against the true rate.
* coverage: how often log_prob ± 1.96 stderr, or 1.96 plain standard errors, covers the model's own log-probability
  (the log-mean-exp of many paths), for 2 to 256 calls, held-out rows and anomalies (half of the cells from other
  rows); adult also with gaps as values.
* mass: the sum of exp(log_prob) over all rows of a small table.
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

PARTS = ("batch", "weights", "orders", "ties", "coverage", "mass")


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


# -- a score is a function of the row ------------------------------------------------------------


def batch(quick: bool) -> str:
    """Alarms and p-values of rows in one batch and alone."""
    lines = []
    for share, seed in ((0.97, 0), (0.97, 4), (0.47, 0)):
        random = np.random.default_rng(seed)
        n = 600
        frame = pd.DataFrame({f"c{j}": random.choice(list("abc"), n) for j in range(20)})
        same = random.random(n) < share
        frame.loc[same] = frame.iloc[:1].to_numpy().repeat(same.sum(), 0)
        density = DiffusionDensity(max_steps=60, n_evaluations=64, random_state=seed)
        detector = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=seed)
        detector.fit(frame[: n // 2])
        new = frame[n // 2 :]
        few = new[:20] if quick else new[:60]
        alone = [few.iloc[[i]] for i in range(len(few))]
        together, singly = detector.predict(new), [detector.predict(row)[0] for row in alone]
        p, p_alone = detector.p_values(new)[: len(few)], [detector.p_values(r)[0] for r in alone]
        scores = detector.score_samples(new)[: len(few)]
        differ = np.abs(scores - [detector.score_samples(row)[0] for row in alone])
        lines.append(
            [
                f"{share:.0%} equal, seed {seed}",
                f"{(together == -1).mean():.1%}",
                f"{(np.array(singly) == -1).mean():.1%}",
                f"{np.abs(p - p_alone).max():.3f}",
                f"{differ.max():.1e}",
            ]
        )
    header = ["rows", "alarms in a batch", "alarms one by one", "p-values differ by", "scores by"]
    return markdown(header, lines)


# -- held-out rows -------------------------------------------------------------------------------


def weights(quick: bool) -> str:
    """Test nats of rows with copies."""
    network = load_bayesian_network("child")
    train, test = network.sample(300, random_state=0), network.sample(2000, random_state=1)
    truth = -float(network.log_prob(test).mean())
    copies = train.loc[train.index.repeat(10)].reset_index(drop=True)
    lines = []
    for name, denoiser in (("Bayesian network", "bayes_net"), ("network", Network())):
        for what, rows, said in (
            ("as they are", train, {}),
            ("ten copies, `groups`", copies, {"groups": np.arange(len(copies)) // 10}),
            ("ten copies, nothing said", copies, {}),
        ):
            start = time.perf_counter()
            model = DiffusionDensity(
                denoiser=denoiser, max_steps=20 if quick else 2000, n_evaluations=32, random_state=0
            ).fit(rows, **said)
            seconds = time.perf_counter() - start
            held = float(model.history_["valid_nats"].min())
            lines.append([name, what, held, -model.score(test), seconds])
    header = ["model", "300 rows", "nats held out", "nats of 2000 test rows", "fit seconds"]
    return f"Child, whose true entropy is {truth:.2f}.\n\n{markdown(header, lines)}"


def inconsistent(share: float) -> tuple[DiffusionDensity, pd.DataFrame]:
    """A network whose conditionals are far from agreeing, and its rows: b is a but for a share of them, c follows a."""
    random = np.random.default_rng(0)
    a = random.integers(0, 3, 2000)
    frame = pd.DataFrame({"a": a, "b": (a + (random.random(2000) < share)) % 3, "c": (a * 2) % 3})
    frame = frame.astype(str)
    small = Network(width=16, depth=1, base="independent")
    model = DiffusionDensity(denoiser=small, max_steps=30, n_evaluations=8, random_state=0).fit(
        frame
    )
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for p in model.denoiser_.network.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator)
    return model, frame


# -- samples -------------------------------------------------------------------------------------


def orders(quick: bool) -> str:
    """Scores beside samples, of a network that is far from consistent, on paths of fixed orders."""
    model, frame = inconsistent(0.4)
    grid = pd.MultiIndex.from_product([sorted(frame[c].unique()) for c in frame]).to_frame(False)
    grid.columns = frame.columns
    taken = ((2, 0, 1), (0, 1, 2), (1, 2, 0), (0, 2, 1))
    lines, n_seeds = [], 10 if quick else 200
    for name, few, n_evaluations in (
        ("four orders, four paths", taken, 12),
        ("four, two", taken, 6),
    ):
        model.model_ = dataclasses.replace(model.model_, schedule=CoordinateSchedule(3, few))
        model.n_evaluations = n_evaluations
        estimates = []
        for seed in range(n_seeds):
            model.model_ = dataclasses.replace(model.model_, seed=seed)
            estimates.append(model.log_prob(grid))
        p = np.mean([np.exp(e.log_prob) for e in estimates], 0)
        spread = np.std([e.log_prob for e in estimates], 0, ddof=1)
        n = 20_000 if quick else 400_000
        drawn = model.sample(n, random_state=1).value_counts(normalize=True)
        frequency = drawn.reindex(pd.MultiIndex.from_frame(grid)).fillna(0.0).to_numpy()
        # of the frequencies, and of the mean score
        variance = p * (1 - p) / n + np.var([np.exp(e.log_prob) for e in estimates], 0) / n_seeds
        noise = float(np.sqrt(2 * variance / np.pi).sum() / 2)
        stated = float(np.mean([e.stderr for e in estimates]))
        lines.append(
            [name, p.sum(), np.abs(p - frequency).sum() / 2, noise, stated, float(spread.mean())]
        )
    header = ["orders", "mass", "total variation", "of which noise", "stderr", "spread over seeds"]
    return markdown(header, lines)


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


# -- mass ----------------------------------------------------------------------------------------


def mass(quick: bool) -> str:
    """Σ exp(log_prob) over all rows of three columns, of a network that is far from consistent."""
    model, _ = inconsistent(0.2)
    book = model.denoiser_.codebook
    levels = [torch.arange(c.n_points, dtype=torch.float64) for c in book.columns]
    grid = torch.cartesian_prod(*levels)
    lines = []
    for name, schedule, n_evaluations in (
        ("coordinate", CoordinateSchedule(3), 12),
        ("isotropic", IsotropicSchedule((0.5, 2.0, 8.0)), 24),
    ):
        here = dataclasses.replace(model.model_, schedule=schedule)
        seeded = (dataclasses.replace(here, seed=s) for s in range(50 if quick else 1000))
        sums = [float(m.log_prob(grid, n_evaluations).log_prob.exp().sum()) for m in seeded]
        error = np.std(sums, ddof=1) / np.sqrt(len(sums))
        lines.append([name, float(np.mean(sums)), float(error)])
    return markdown(["path", "mass", "standard error"], lines)


if __name__ == "__main__":
    main()
