"""Tables, recipes and short fits for the tests of this folder."""

import functools
import signal

import numpy as np
import pandas as pd
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.encoders import TableEncoder
from discrete_itd.models.decoder_mixture import DecoderNetwork
from discrete_itd.models.fitting import FITTING_SHARE, FitPlan
from discrete_itd.models.held_out import TrainingRows, hold_out, in_order_of_content
from discrete_itd.progress import Deadline
from discrete_itd.recipes import Network
from discrete_itd.training.loop import Run, TrainingPlan

TINY = Network(width=8, depth=1)
QUICK = {"max_steps": 3, "n_evaluations": 8, "random_state": 0}


def chain(n=120, seed=0, flip=0.1):
    """Four columns, each equal to the one before but for a few rows; and an independent one."""
    rng = np.random.default_rng(seed)
    columns = {"a": rng.integers(0, 3, n)}
    for before, name in ("ab", "bc", "cd"):
        other = rng.integers(0, 3, n)
        columns[name] = np.where(rng.random(n) < flip, other, columns[before])
    frame = pd.DataFrame(columns).map("xyz".__getitem__)
    return frame.assign(alone=rng.choice(["u", "v"], n))


def noise(n=120, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: rng.choice(list("xyz"), n) for name in "abcd"})


def mixed(n=120, seed=0):
    """Continuous columns beside categorical ones, with missing cells."""
    rng = np.random.default_rng(seed)
    frame = chain(n, seed)[["a", "b"]].assign(size=rng.normal(size=n), day=rng.normal(size=n))
    frame["size"] += frame["a"].map({"x": -3.0, "y": 0.0, "z": 3.0})
    return frame.mask(rng.random(frame.shape) < 0.15).assign(c=rng.choice(["u", "v"], n))


def numbers(n=120, seed=0):
    x = np.random.default_rng(seed).normal(size=n)
    return pd.DataFrame({"x": x, "y": x + 0.3 * np.random.default_rng(seed + 1).normal(size=n)})


def fit(rows, denoiser, **changes):
    return DiffusionDensity(**{**QUICK, "denoiser": denoiser, **changes}).fit(rows)


def split(model, rows):
    """The encoded training rows of a fit, and its held-out rows."""
    x = model.rows(rows).x
    order, _ = in_order_of_content(x.numpy(), model.encoder_.schema)
    held, rest = hold_out(len(x), None, round(model.validation_fraction * len(x)))
    return x[order[rest]], x[order[held]]


def nats(denoiser, x):
    return -denoiser.log_prob(x).double().mean().item()


def training_rows(rows, *, n_valid=40):
    """TrainingRows of a table, in the floating type of the test."""
    encoder = TableEncoder.fit(rows)
    x = torch.from_numpy(encoder.transform(rows).x)
    marginals = MarginalDenoiser.fit(encoder.codebook(), x[n_valid:])
    return TrainingRows(marginals, x[n_valid:], x[:n_valid], torch.Generator().manual_seed(0))


def plan(max_steps=30, max_time=None, **options):
    if max_time is not None:
        options |= {"deadline": Deadline(FITTING_SHARE * max_time)}
    return FitPlan(TrainingPlan(max_steps=max_steps, max_time=max_time), 0, **options)


def watch(monkeypatch, describe, modules, answer=lambda _denoiser, report: report):
    """Let trainings in these modules go on, and collect what ``describe(denoiser, training plan)`` says of each."""
    from discrete_itd.training.loop import train

    seen = []

    def watched(denoiser, x, x_valid, training, **options):
        seen.append(describe(denoiser, training))
        return answer(denoiser, train(denoiser, x, x_valid, training, **options))

    for module in modules:
        monkeypatch.setattr(module, "train", watched)
    return seen


def interrupt_at(monkeypatch, n):
    """Ctrl-C at the n-th step of a network, mixtures excepted, from now on; later ones are taken."""
    steps, make_step = [], Run.make_step

    @functools.wraps(make_step)
    def interrupted(run, share):
        if not isinstance(run.denoiser, DecoderNetwork):
            steps.append(run)
            if len(steps) == n:
                signal.raise_signal(signal.SIGINT)
        make_step(run, share)

    monkeypatch.setattr(Run, "make_step", interrupted)
    return steps
