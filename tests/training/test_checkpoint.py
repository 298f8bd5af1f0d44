"""A training that is ended and goes on ends as if it had not been; what is no checkpoint of it is refused."""

import functools
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import correlated_rows, seeded_generator
from test_training import make_network, short_plan, weights

from discrete_itd.storage.files import read_state, write_state
from discrete_itd.storage.stored import flatten
from discrete_itd.training import TrainingLoss
from discrete_itd.training import checkpoint as module
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import Rollback
from discrete_itd.training.loop import CHECK_STEPS, Run, train

STEPS = 150


def run(device, path=None, *, interval=0.0, n=700, n_valid=200, progress=None, width=24, **kwargs):
    """Train a small network: its weights, the report, and the next random numbers."""
    rows, held_out = correlated_rows(n, 0, device), correlated_rows(n_valid, 1, device)
    net, generator = make_network(rows, dropout=0.2, width=width), seeded_generator(0, device)
    checkpoint = None if path is None else Checkpoint(path, interval=interval)
    plan = short_plan(**{"max_steps": STEPS, "n_validations": 7} | kwargs)
    options = {"generator": generator, "progress": progress, "checkpoint": checkpoint}
    report = train(net, rows, held_out, plan, **options)
    after = torch.rand(3, generator=generator, device=device)
    return weights(net), report, after


@functools.cache
def _uninterrupted(device, _dtype):
    return run(device)


def uninterrupted(device):
    """The run to compare with, made once."""
    return _uninterrupted(device, torch.get_default_dtype())


def timeless(report):
    """The history but for the seconds; the NaN of the first line compares."""
    return [tuple(map(repr, (line.step, *line[2:]))) for line in report.history]


def same(one, other):
    assert torch.equal(one[0], other[0])
    assert timeless(one[1]) == timeless(other[1])
    assert one[1].stopped == other[1].stopped
    assert one[1].rollbacks == other[1].rollbacks
    assert torch.equal(one[2], other[2])


def interrupted(monkeypatch, steps, error=KeyboardInterrupt):
    """Raise at the given step of each run in turn, in the midst of it, and never after."""
    honest, left = TrainingLoss.nats, list(steps)

    def loss(self, denoiser, x, generator):
        out = honest(self, denoiser, x, generator)
        if torch.is_grad_enabled() and left:
            left[0] -= 1
            if left[0] <= 0:
                left.pop(0)
                raise error
        return out

    monkeypatch.setattr(TrainingLoss, "nats", loss)


@pytest.fixture
def cpu(device):
    """The promise of equal bits is for the CPU."""
    if device.type != "cpu":
        pytest.skip("bits are promised on the CPU")
    return device


@pytest.fixture(scope="module")
def path(request, tmp_path_factory):
    """A checkpoint of half a run."""
    path = tmp_path_factory.mktemp("half") / "c"
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.config.getoption("--dtype") or "float64"))
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, [90])
        run(torch.device("cpu"), path)
    torch.set_default_dtype(before)
    return path


# -- going on --------------------------------------------------------------------------------------


def test_a_checkpoint_changes_nothing(cpu, tmp_path):
    same(uninterrupted(cpu), run(cpu, tmp_path / "c"))


@pytest.mark.parametrize(
    "plan",
    [{}, {"n_validations": 50, "patience": 4, "learning_rate": 1.0}],
    ids=["few validations", "many validations and plateaus"],
)
def test_interruptions_anywhere_leave_no_trace(cpu, tmp_path, monkeypatch, plan):
    expected = run(cpu, **plan) if plan else uninterrupted(cpu)
    assert expected[1].stopped == ("no improvement" if plan else "max_steps")
    random, total = np.random.default_rng(0), 0
    between_validations = [100, 20]  # on from step 96, with the losses since step 86
    for trial, steps in enumerate(
        [between_validations, *random.integers(1, 25, size=(1, 5)).tolist()]
    ):
        ended = []
        with monkeypatch.context() as patch:
            interrupted(patch, steps)
            while not ended or ended[-1] == "interrupted":
                result = run(cpu, tmp_path / str(trial), **plan)
                ended.append(result[1].stopped)
        total += len(ended) - 1
        same(result, expected)
        written = [line.step for line in result[1].history]
        assert written == sorted(set(written))
    assert total >= 2


def test_what_is_kept_stays_as_it_was(device):
    rows = correlated_rows(300, 0, device)
    net, generator = make_network(rows), seeded_generator(0, device)
    taken = Run(net, rows, rows, short_plan(), generator)
    taken.begin()
    taken.make_step(0.1)
    taken.keep()
    kept = {name: tensor.clone() for name, tensor in flatten(taken.kept)[1].items()}
    for again in range(2):
        taken.make_step(0.1)
        taken.evaluate()
        taken.roll_back(Rollback(2 + again, 1, "no reason"))
    taken.make_step(0.1)
    for name, tensor in flatten(taken.kept)[1].items():
        assert torch.equal(tensor, kept[name])


def test_a_run_that_went_wrong_goes_on_alike(cpu, tmp_path, monkeypatch):
    make_step = Run.make_step

    def step(self, share):
        make_step(self, share)
        if self.step == 75:
            with torch.no_grad():
                next(iter(self.parameters.values())).fill_(math.nan)

    monkeypatch.setattr(Run, "make_step", step)
    with pytest.warns(UserWarning, match="diverged at step 7"):
        expected = run(cpu)
    interrupted(monkeypatch, [72, 50])
    run(cpu, tmp_path / "c")
    for _ in range(2):
        with pytest.warns(UserWarning, match="diverged at step 7"):
            result = run(cpu, tmp_path / "c")
    same(result, expected)


KILLED = """
import sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/..", sys.argv[2]]
import torch
import tests.conftest  # its validations take as many draws as ours
torch.set_default_dtype(getattr(torch, sys.argv[4]))
from test_checkpoint import run
run(torch.device("cpu"), sys.argv[3], progress=lambda *_: time.sleep(0.1))
"""


def test_a_killed_run_ends_as_if_it_had_not_been(cpu, dtype, tmp_path):
    path, tests = tmp_path / "c", Path(__file__).parent
    arguments = [str(tests), str(tests.parents[1]), str(path), str(dtype).removeprefix("torch.")]
    child = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    try:
        deadline = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < deadline:
            if path.exists() and read_state(path, kind="checkpoint")[0]["state"]["step"] >= 64:
                break
            time.sleep(0.01)
    finally:
        child.kill()  # SIGKILL: no code of the child's runs any more
        child.wait()
    assert child.returncode < 0
    header, _ = read_state(path, kind="checkpoint")
    assert 64 <= header["state"]["step"] < STEPS
    same(run(cpu, path), uninterrupted(cpu))


def test_the_clock_goes_on(cpu, tmp_path, monkeypatch):
    path = tmp_path / "c"
    interrupted(monkeypatch, [70])
    plan = {"max_steps": 10**6, "max_time": 1e4}
    run(cpu, path, **plan)
    header, tensors = read_state(path, kind="checkpoint")
    assert header["state"]["seconds"] >= header["state"]["history"][-1][1] > 0
    header["state"]["seconds"] = 0.9999999e4
    write_state(path, (header, tensors), kind="checkpoint")
    _, report, _ = run(cpu, path, **plan)
    assert report.stopped == "max_time"
    assert report.history[-1].step < 1000


def test_what_is_done_is_not_done_again(cpu, tmp_path, monkeypatch):
    """A crash between the end of the training and the removal of the file loses nothing."""
    path = tmp_path / "c"
    first = run(cpu, path, interval=1e9)

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(TrainingLoss, "nats", fail)
    again = run(cpu, path)
    same(first, again)
    (tmp_path / ".c.partial-1").write_text("left by a kill")
    checkpoint = Checkpoint(path)
    checkpoint.remove()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_another_error_leaves_what_was_written(cpu, tmp_path, monkeypatch):
    path = tmp_path / "c"
    interrupted(monkeypatch, [90], RuntimeError)
    with pytest.raises(RuntimeError):
        run(cpu, path)
    assert (
        read_state(path, kind="checkpoint")[0]["state"]["step"] == 86
    )  # the second validation of seven
    same(run(cpu, path), uninterrupted(cpu))


def test_it_is_written_as_often_as_asked(cpu, tmp_path, monkeypatch):
    steps = []

    def write(self, _, state):
        steps.append(state[0]["step"])
        self._written = time.monotonic()

    monkeypatch.setattr(Checkpoint, "write", write)
    run(cpu, tmp_path / "c", interval=1e9)
    assert steps == [0, STEPS]
    steps.clear()
    run(cpu, tmp_path / "c")
    assert {0, CHECK_STEPS, 2 * CHECK_STEPS, 4 * CHECK_STEPS, STEPS} < set(steps)


def test_a_disk_that_fails(cpu, tmp_path, monkeypatch):
    """At the start an error; later a warning, for the training is worth more than its checkpoint."""
    with pytest.raises(FileNotFoundError):
        run(cpu, tmp_path / "none" / "c")
    calls = []

    def write(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise OSError("disk full")
        write_state(*args, **kwargs)

    monkeypatch.setattr(module, "write_state", write)
    with pytest.warns(UserWarning, match="not up to date: disk full"):
        result = run(cpu, tmp_path / "c")
    same(result, uninterrupted(cpu))


def test_a_note_is_there_before_the_training(tmp_path, device):
    checkpoint = Checkpoint(tmp_path / "c")
    assert checkpoint.note == {}
    checkpoint.note["seed"] = 7
    rows = correlated_rows(50, 0, device)
    plan = short_plan(max_steps=1)
    net, generator = make_network(rows), seeded_generator(0, device)
    train(net, rows, rows, plan, generator=generator, checkpoint=checkpoint)
    assert Checkpoint(tmp_path / "c").note == {"seed": 7}


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 701}, r"training rows: shape was \[700, 3\], not \[701, 3\]"),
        ({"n_valid": 201}, r"validation rows: shape was \[200, 3\], not \[201, 3\]"),
        ({"max_steps": STEPS + 1}, "plan: max_steps was 150, not 151"),
        ({"ema": 0.8}, r"plan: ema was 0\.9, not 0\.8"),
        ({"width": 25}, r"weights: network\.enter\.weight was .*24, .* not .*25, "),
    ],
)
def test_another_run_is_refused(cpu, path, change, message):
    content = path.read_bytes()
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: .*another run: .*{message}"):
        run(cpu, path, **change)
    assert path.read_bytes() == content


def go_on(path, net, rows, held_out):
    """Train by the checkpoint of half a run."""
    train(
        net,
        rows,
        held_out,
        short_plan(max_steps=STEPS, n_validations=7),
        generator=seeded_generator(0, rows.device),
        checkpoint=Checkpoint(path),
    )


def test_other_rows_or_fixed_weights_of_the_same_shape_are_refused(cpu, path):
    rows, held_out = correlated_rows(700, 0, cpu), correlated_rows(200, 1, cpu)
    net = make_network(rows)
    start = weights(net)
    other = rows.clone()
    other[[0, -1]] = other[[-1, 0]]
    assert not torch.equal(rows, other)
    with pytest.raises(ValueError, match="training rows: digest was"):
        go_on(path, net, other, held_out)
    with pytest.raises(ValueError, match="validation rows: digest was"):
        go_on(path, net, rows, held_out.flip(0))
    net.base.log_probs[0] += 0.1
    with pytest.raises(ValueError, match="weights that are not trained: digest was"):
        go_on(path, net, rows, held_out)
    assert torch.equal(weights(net), start)


def test_models_and_checkpoints_are_told_apart(path, tmp_path):
    with pytest.raises(ValueError, match="holds the checkpoint of a training, not a model"):
        read_state(path)
    write_state(tmp_path / "m", ({}, {}))
    with pytest.raises(ValueError, match="holds a model, not the checkpoint of a training"):
        Checkpoint(tmp_path / "m")
    with pytest.raises(OSError, match="director"):
        Checkpoint(tmp_path)


def test_a_checkpoint_of_another_release_is_refused(path, tmp_path):
    header, tensors = read_state(path, kind="checkpoint")
    del header["layout"]
    write_state(tmp_path / "old", (header, tensors), kind="checkpoint")
    with pytest.raises(ValueError, match="written by another release of discrete_itd"):
        Checkpoint(tmp_path / "old")


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_damaged_file_is_refused(data, path, tmp_path_factory):
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    else:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{damaged}: ")):
        Checkpoint(damaged)


def places(value, at=()):
    """The path of every value in nested JSON; of the first two only, in a list."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(2, len(value))):
            yield from places(value[key], (*at, key))


def changed(header, at, *new):
    """A header with another value at a place, or none."""
    out = inner = json.loads(json.dumps(header))
    for key in at[:-1]:
        inner = inner[key]
    if new:
        inner[at[-1]] = new[0]
    else:
        del inner[at[-1]]
    return out


VALUES = [None, True, -1, 10**30, math.nan, "max_steps", {}]


@pytest.mark.slow  # storage refuses damaged files by default
def test_forged_states_are_refused_or_lead_to_an_end(cpu, path, tmp_path, monkeypatch):
    """With a digest that is right; one value of the header or one tensor at a time is another."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    header, tensors = read_state(path, kind="checkpoint")
    net = make_network(correlated_rows(700, 0, cpu))
    rows, held_out = correlated_rows(700, 0, cpu), correlated_rows(200, 1, cpu)
    plan = short_plan(max_steps=STEPS, n_validations=7)

    def attempt(header, tensors):
        forged = tmp_path / "forged"
        write_state(forged, (header, tensors), kind="checkpoint")
        try:
            taken = Run(
                net,
                rows,
                held_out,
                plan,
                seeded_generator(0, cpu),
                checkpoint=Checkpoint(forged),
            )
            taken.resume()
            if not taken.report.stopped and taken.step < STEPS:
                taken.make_step(0.9)
        except ValueError as error:
            assert str(forged) in str(error)  # noqa: PT017
            return False
        return True

    assert attempt(header, tensors)
    for at in places(header):
        for value in VALUES if at[0] == "state" and len(at) == 2 else VALUES[:2]:
            forged = changed(header, at, value)
            assert not attempt(forged, tensors) or at[0] == "state" or forged == header
        lost = attempt(changed(header, at), tensors)
        assert not lost or at[:2] == ("state", "history")  # a line less is a history too
    for name in [k for k in tensors if not k.endswith("losses")][::4]:
        assert not attempt(header, {k: v for k, v in tensors.items() if k != name})
        other = torch.zeros(tensors[name].numel() + 1, dtype=tensors[name].dtype)
        assert not attempt(header, {**tensors, name: other}), name
        if tensors[name].is_floating_point():
            assert not attempt(header, {**tensors, name: tensors[name] * math.nan})
