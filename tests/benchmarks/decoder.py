"""Decoder mixtures (9) beside mixtures of products fitted class by class: nats of test rows, seconds, rows a second.

    python -m tests.benchmarks.decoder plants jester mushroom adult pendigits --max-time 30
    python -m tests.benchmarks.decoder jester --teacher 4      # and with rows drawn from a Bayesian network

Both are fitted to the same training rows and chosen on the same held-out rows: the mixtures by expectation maximisation
with the numbers of classes of the recipe ``Mixture``. Test rows are read once, at the end. Tables of numbers have
continuous columns, and nats are then those of standardised values. ``--teacher N`` adds N drawn rows for each training
row to the training of the network (the classes are refined to the training rows alone).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from discrete_itd.datasets import load_adult, load_car, load_mushroom
from discrete_itd.denoisers import BayesNetDenoiser, Denoiser, MarginalDenoiser
from discrete_itd.denoisers.decoder import DecoderPlan, Run, fit_decoder
from discrete_itd.encoders.table import TableEncoder
from discrete_itd.models.contract import TrainingRows
from discrete_itd.recipes import Mixture
from tests.benchmarks.data import has_density, load_density, load_numeric, numeric_names
from tests.benchmarks.tables import machine, markdown, mean_and_error, timed

LOADERS = {"mushroom": load_mushroom, "adult": load_adult, "car": load_car}
SCORED = 2000  # test rows on which the speed is measured


class Parts(NamedTuple):
    """Training rows with held-out ones, and test rows (N, C)."""

    rows: TrainingRows
    test: Tensor


def main() -> None:
    """Print a row for each table and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--max-time", type=float, default=30.0, help="seconds of a decoder's fit")
    parser.add_argument("--max-steps", type=int, default=4000)
    parser.add_argument("--components", type=int, nargs="+", default=[8192])
    parser.add_argument("--latent", type=int, nargs="+", default=[8])
    parser.add_argument("--teacher", type=int, default=0, help="drawn rows for each training row")
    parser.add_argument("--rows", type=int, help="of a table without published parts, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-decoder", action="store_true", help="without the mixtures by EM")
    options = parser.parse_args()
    print(machine())
    print("\nNats per row, lower is better.\n")
    header = ["table", "method", "classes", "held out", "test", "s.e.", "s to fit", "rows/s"]
    print("\n".join(markdown(header, []).splitlines()), flush=True)
    for name in options.tables:
        parts = load(name, options)
        if parts is None:
            continue
        for method, fit in methods(parts.rows, options):
            model, seconds = timed(fit)
            print(markdown(header, [[name, method, *line(parts, model, seconds)]]).splitlines()[2])


def line(parts: Parts, model: Denoiser, seconds: float) -> list[object]:
    """What a table says of a fitted model."""
    some = parts.test[:SCORED]
    _, took = timed(model.log_prob, some)
    nats = mean_and_error(-model.log_prob(parts.test).double().cpu().numpy())
    classes = getattr(model, "n_components", "")
    held_out = parts.rows.held_out_nats(model)
    return [classes, held_out, *nats, f"{seconds:.1f}", f"{len(some) / took:.0f}"]


def methods(
    rows: TrainingRows, options: argparse.Namespace
) -> list[tuple[str, Callable[[], Denoiser]]]:
    """Names of methods with their fits."""

    def decoder(n_latent: int, n_components: int) -> Denoiser:
        plan = DecoderPlan(
            n_latent=n_latent,
            n_components=n_components,
            max_time=options.max_time,
            max_steps=options.max_steps,
        )
        generator = torch.Generator().manual_seed(options.seed)
        return fit_decoder(rows.marginals, rows.x, rows.x_valid, plan, generator=generator)

    out: list[tuple[str, Callable[[], Denoiser]]] = []
    if not options.only_decoder:
        out.append(("by EM", lambda: min(Mixture().candidates(rows), key=rows.held_out_nats)))
    for n_latent in options.latent:
        for k in options.components:
            out.append((f"decoder of {n_latent}", lambda d=n_latent, k=k: decoder(d, k)))
    if options.teacher:
        out.append(("decoder with a teacher", lambda: taught(rows, options)))
    return out


def taught(rows: TrainingRows, options: argparse.Namespace) -> Denoiser:
    """A decoder whose network is also trained on rows drawn from a Bayesian network of the training rows."""
    start = time.perf_counter()
    teacher = BayesNetDenoiser.fit(rows.marginals, rows.x, x_valid=rows.x_valid, most_table=1024)
    generator = torch.Generator().manual_seed(options.seed)
    drawn = teacher.draw(options.teacher * len(rows.x), generator)
    print(f"* teacher and its rows: {time.perf_counter() - start:.0f} s", flush=True)
    plan = DecoderPlan(max_time=options.max_time, max_steps=options.max_steps)
    mixed = torch.cat([rows.x, drawn])
    run = Run(rows.marginals, mixed, rows.x_valid, plan, generator, time.perf_counter)
    run.train(None)
    run.x = rows.x
    return run.mixture()


def load(name: str, options: argparse.Namespace) -> Parts | None:
    """A table in its published parts, or 70, 10 and 20 % of its rows in random order."""
    kind = None
    if has_density(name):
        data = load_density(name)
        frames = [pd.DataFrame(part.astype(int).astype(str)) for part in data[:3]]
    elif name in LOADERS or name in numeric_names():
        frame = LOADERS[name]() if name in LOADERS else pd.DataFrame(load_numeric(name)[0])
        kind = None if name in LOADERS else "continuous"
        frame.columns = frame.columns.astype(str)
        frame = frame.sample(frac=1, random_state=0).reset_index(drop=True)[: options.rows]
        ends = np.round(np.array([0.7, 0.8]) * len(frame)).astype(int)
        cuts = (0, *ends.tolist(), len(frame))
        frames = [frame[a:b] for a, b in itertools.pairwise(cuts)]
    else:
        print(f"skipped {name}: its file is not here (see tests/benchmarks/data.py)")
        return None
    encoder = TableEncoder.fit(pd.concat(frames[:2]), kind)
    x, x_valid, test = (
        torch.from_numpy(encoder.transform(f.reset_index(drop=True)).x) for f in frames
    )
    marginals = MarginalDenoiser.fit(encoder.codebook(), x, unseen_counts=encoder.unseen_counts)
    rows = TrainingRows(marginals, x, x_valid, torch.Generator().manual_seed(options.seed))
    return Parts(rows, test)


if __name__ == "__main__":
    main()
