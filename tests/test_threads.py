"""Threads of a fit: as many as pay."""

import pytest
import torch

from discrete_itd import threads


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({8: 8.0, 4: 4.0, 2: 2.0, 1: 1.0}, 8),  # nothing else runs
        ({8: 0.5, 4: 3.9, 2: 2.0, 1: 1.0}, 4),  # another program takes some of the cores
        ({2: 0.1, 1: 1.0}, 1),
        ({2: 1.2, 1: 1.0}, 1),  # a second thread that hardly helps
        ({3: 3.0, 1: 1.0}, 3),
    ],
)
def test_threads_are_halved_while_it_does_not_slow_down(speeds, chosen):
    assert threads.fewest_that_pay(max(speeds), speeds.__getitem__) == chosen


def test_the_number_of_threads_is_restored(monkeypatch):
    before, speeds, probed = torch.get_num_threads(), {2: 1.0, 1: 2.0}, []
    monkeypatch.setattr(threads, "_probes", {})
    monkeypatch.setattr(threads, "speed", lambda n: probed.append(n) or speeds[n])
    torch.set_num_threads(2)
    try:
        for now, n_probed in ((0.0, 2), (1.0, 2), (60.0, 4)):  # valid for some seconds
            monkeypatch.setattr(threads.time, "monotonic", lambda now=now: now)
            with threads.threads_that_pay(torch.device("cpu")):
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 2
            assert len(probed) == n_probed
    finally:
        torch.set_num_threads(before)


def test_a_probe_measures():
    before = torch.get_num_threads()
    assert threads.speed(1) > 0
    torch.set_num_threads(before)


def test_few_rows_take_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for n_rows, within in ((1, 1), (threads.FEW_ROWS, 1), (threads.FEW_ROWS + 1, 2)):
            with threads.threads_for(n_rows):
                assert torch.get_num_threads() == within
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
