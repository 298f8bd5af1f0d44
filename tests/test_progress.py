"""What people see of a long fit or stream: on a terminal and in a notebook."""

import io
import math
import signal
import sys
import types

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, progress
from discrete_itd.models import held_out
from tests.examples import Terminal

pytestmark = pytest.mark.single_precision


def table(n=200):
    random = np.random.default_rng(0)
    return pd.DataFrame(random.choice(["a", "b"], (n, 4)), columns=list("pqrs"))


def latest(screen):
    return screen.getvalue().rpartition("\r")[2]


def test_a_fit_says_what_it_does_before_it_trains(monkeypatch):
    """At once: before the table is read, and before every candidate."""
    screen, seen = Terminal(), []
    monkeypatch.setattr(sys, "stderr", screen)
    real = held_out.in_memory
    monkeypatch.setattr(
        held_out, "in_memory", lambda *X: seen.append(screen.getvalue()) or real(*X)
    )
    DiffusionDensity(max_steps=0, random_state=0).fit(table())
    assert "reading the table" in seen[0]
    shown = screen.getvalue()
    assert shown.rindex("fitting independent columns") < shown.index("fitting tree")
    assert screen.getvalue().endswith("\r")  # it is wiped out


def test_without_a_terminal_python_is_silent(capsys):
    DiffusionDensity(denoiser="tree").fit(table())
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_bars_though_it_is_no_terminal(monkeypatch):
    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    ipython = types.SimpleNamespace(get_ipython=lambda: kernel)
    assert progress.progress_bar(9, "score").disable
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = progress.progress_bar(9, "score")
    assert not bar.disable
    bar.close()


def test_one_bar_is_of_the_whole_fit(monkeypatch):
    """A fit within another one has the same; where there is a time, its end is that of the time."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    evaluation = types.SimpleNamespace(valid_nats=1.25)
    with progress.fit_progress(None, 0.5) as outer, progress.fit_progress() as inner:
        assert inner is outer
        with progress.stage("training"):
            progress.show_training(0.4, evaluation)
            assert latest(screen).strip() == "fit 00:00, training 40%, 1.250 nats held out"
        assert "left" not in screen.getvalue()  # it is not known without max_time
    with progress.fit_progress(50.0):
        now[0] += 20.0
        progress.show_training(0.1, evaluation)
        assert latest(screen).startswith("fit  40%")
        assert "at most 30 s left" in latest(screen)
        now[0] += 60.0
        progress.show_training(0.1, evaluation)
        assert latest(screen).startswith("fit  99%")  # the end is said by the end
    progress.show_training(0.1, evaluation)  # nobody watches


def test_a_bar_controls_no_more_than_its_own_line(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.fit_progress(), progress.stage("fitting \x1b[2J\u202e"):
        pass
    assert r"fitting \x1b[2J\u202e" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_a_stage_has_its_name_from_its_beginning_to_its_end(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    seen = []
    with progress.fit_progress(), progress.stage("outside"):
        with progress.stage("inside"):
            seen.append(latest(screen))
        seen.append(latest(screen))
        with pytest.raises(KeyError), progress.stage("a failure"):
            raise KeyError
        seen.append(latest(screen))
    assert [line.rpartition(", ")[2].strip() for line in seen] == ["inside", "outside", "outside"]


def test_the_first_interruption_ends_all_deadlines_and_the_second_raises(ctrl_c):
    before = progress.Deadline()
    with progress.deferred_interrupts() as event, progress.deferred_interrupts() as inner:
        whole = progress.Deadline()
        parts = [whole, whole.within(1e9), progress.Deadline(1e9).part(0.5)]
        assert all(d.left > 1e8 for d in parts)
        ctrl_c()
        assert event is inner
        assert event.is_set()
        assert [d.left for d in [*parts, progress.Deadline()]] == [0.0] * 4
        assert before.left == math.inf
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    assert not progress.Deadline().interrupted


def test_a_job_that_ignores_ctrl_c_is_terminated(ctrl_c):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with progress.terminated_as_interrupted():
            with progress.deferred_interrupts() as event:
                ctrl_c()
                assert not event.is_set()
                signal.raise_signal(signal.SIGTERM)
                assert event.is_set()
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
