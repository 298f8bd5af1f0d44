"""Threads of torch: one, more for large products, never more than CPUs, and those of the caller afterwards."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import WAITING, DiffusionDensity, DiffusionOutlierDetector, devices
from discrete_itd.models.model import Model


@pytest.fixture(autouse=True)
def _three(monkeypatch):
    """Torch has three threads, and waits are short."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(devices, "cpu_count", lambda: 64)
    yield
    torch.set_num_threads(before)


def in_new_thread():
    """The number of threads in a new thread of Python."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


# -- how many ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "n"), [(0, 1), (1.9, 1), (2, 2), (2.9, 2), (3, 3), (1e9, 3)])
@pytest.mark.parametrize("within", [False, True])
def test_each_thread_has_work(share, n, within):
    def inner():
        with devices.threads_for(share * devices.LEAST_WORK):
            return torch.get_num_threads()

    assert (devices.one_thread(inner) if within else inner)() == n
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("n_cpus", [1, 2, 3, 4])
def test_never_more_threads_than_cpus(n_cpus, monkeypatch):
    monkeypatch.setattr(devices, "cpu_count", lambda: n_cpus)
    with devices.in_one_thread(), devices.threads_for(1e15):
        assert torch.get_num_threads() == min(n_cpus, 3)


def test_one_thread_where_waits_are_long(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    with devices.in_one_thread(), devices.threads_for(1e15):
        assert torch.get_num_threads() == 1


def test_what_the_user_allows_is_kept():
    torch.set_num_threads(1)
    with devices.in_one_thread(), devices.threads_for(1e15):
        assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    with devices.in_one_thread(), devices.threads_for(1e15):
        assert torch.get_num_threads() == 2


# -- what is left behind ----------------------------------------------------------------------------


def test_calls_at_the_same_time_restore_their_own_number():
    ready, seen = threading.Barrier(4), {}

    def call(n):
        torch.get_num_threads()  # only then does a new thread keep what is set
        torch.set_num_threads(n)
        ready.wait()
        with devices.in_one_thread():
            ready.wait()
            within = torch.get_num_threads()
            ready.wait()
        ready.wait()
        seen[n] = within, torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, (1, 2, 3, 4)))
    assert seen == {n: (1, n) for n in (1, 2, 3, 4)}


def test_public_methods_of_a_class_and_its_mixins_are_limited():
    class Mixin:
        def over(self):
            return "mixin"

        def fails(self):
            raise ValueError(torch.get_num_threads())

    Mixin.__module__ = "discrete_itd.mixin"

    class Own(Mixin):
        def over(self):
            return super().over(), torch.get_num_threads()

        @classmethod
        def make(cls):
            return cls, torch.get_num_threads()

        def _private(self):
            return torch.get_num_threads()

    Own.__module__ = "discrete_itd.own"
    own = devices.methods_in_one_thread(Own)()
    assert own.over() == ("mixin", 1)
    assert Own.make() == (Own, 1)
    assert own._private() == 3
    with pytest.raises(ValueError, match="1"):
        own.fails()
    assert (torch.get_num_threads(), in_new_thread()) == (3, 3)


@pytest.fixture(scope="module")
def fitted():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.choice(["x", "y"], 60), "b": random.normal(size=60)})
    density = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    detector = DiffusionOutlierDetector(density, false_alarm_rate=0.2, random_state=0).fit(frame)
    return SimpleNamespace(frame=frame, density=density, detector=detector)


ASKED = {
    "score_samples": lambda m, t: m.density.score_samples(t),
    "score": lambda m, t: m.density.score(t),
    "log_prob": lambda m, t: m.density.log_prob(t),
    "explain": lambda m, t: m.density.explain(t),
    "impute": lambda m, t: m.density.impute(t),
    "predict_proba": lambda m, t: m.density.predict_proba(t, "a"),
    "predict_quantiles": lambda m, t: m.density.predict_quantiles(t, "b"),
    "predict_log_density": lambda m, t: m.density.predict_log_density(t, "b", [0.0]),
    "mse_curve": lambda m, t: m.density.mse_curve(t, n_points=3),
    "detector.score_samples": lambda m, t: m.detector.score_samples(t),
    "detector.predict": lambda m, t: m.detector.predict(t),
    "detector.p_values": lambda m, t: m.detector.p_values(t),
    "detector.reasons": lambda m, t: m.detector.reasons(t),
    "detector.expected": lambda m, t: m.detector.expected(t),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_runs_in_one_thread_and_leaves_three(name, fitted, monkeypatch):
    frame, density = fitted.frame, fitted.density
    seen = set()
    read = type(density).rows.__wrapped__
    monkeypatch.setattr(
        type(density), "rows", lambda *a, **k: seen.add(torch.get_num_threads()) or read(*a, **k)
    )
    ASKED[name](fitted, frame[:8])
    assert seen == {1}
    assert torch.get_num_threads() == 3
    with pytest.raises((ValueError, TypeError)):  # the table lacks a column
        ASKED[name](fitted, frame[["a"]])
    assert (torch.get_num_threads(), in_new_thread()) == (3, 3)


def test_a_fit_runs_in_one_thread_and_leaves_three(fitted, monkeypatch):
    seen = set()

    def fail(*_, **__):
        seen.add(torch.get_num_threads())
        raise ZeroDivisionError

    monkeypatch.setattr(Model, "log_prob", fail)
    for fitted_anew in (DiffusionDensity, DiffusionOutlierDetector):
        with pytest.raises(ZeroDivisionError):
            fitted_anew(denoiser="tree").fit(fitted.frame)
    assert seen == {1}
    assert (torch.get_num_threads(), in_new_thread()) == (3, 3)


def test_large_blocks_of_scores_take_more(fitted, monkeypatch):
    frame, density = fitted.frame, fitted.density
    denoiser, seen = density.denoiser_, []
    call = denoiser.log_prob
    monkeypatch.setattr(
        denoiser, "log_prob", lambda x: seen.append(torch.get_num_threads()) or call(x)
    )
    work = len(frame) * denoiser.score_work
    for n in (1, 2, 3):
        monkeypatch.setattr(devices, "LEAST_WORK", work / n)
        density.log_prob(frame.drop_duplicates())
    assert seen == [1, 2, 3]


# -- the environment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "given", "found"),
    [
        ("", {}, ["PASSIVE", "1000", None]),
        ("sys.modules['torch'] = None; ", {}, [None, None, None]),
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None, None]),
        ("", {"GOMP_SPINCOUNT": "7"}, [None, "7", None]),
    ],
)
def test_waits_are_short_unless_the_user_or_torch_was_first(before, given, found):
    environment = {k: v for k, v in os.environ.items() if k not in WAITING}
    code = f"import os, sys; {before}import discrete_itd; print([os.environ.get(n) for n in {WAITING}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(found)
