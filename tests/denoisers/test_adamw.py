"""The optimiser is torch's own, computed without its class."""

import sys

import pytest
import torch
from torch import nn

from discrete_itd.denoisers.adamw import AdamW


def weights(dtype):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(n, 3, generator=generator, dtype=dtype)) for n in (4, 1, 1, 2)]


def run(own, step):
    """Three steps on a loss that one weight has no part in."""
    for rate in (0.1, 0.01, 0.2):
        loss = sum((p.sin() * rate).sum() for i, p in enumerate(own) if i != 2)
        loss.backward()
        step(rate)
    return [p.detach() for p in own]


def test_steps_are_those_of_torch(dtype):
    own, theirs = weights(dtype), weights(dtype)
    optimizer = AdamW(own, weight_decay=0.3)
    reference = torch.optim.AdamW(theirs, weight_decay=0.3, fused=True)

    def step(rate):
        optimizer.step(rate)
        optimizer.zero_grad()

    def reference_step(rate):
        reference.param_groups[0]["lr"] = rate
        reference.step()
        reference.zero_grad()

    for p, q in zip(run(own, step), run(theirs, reference_step), strict=True):
        assert torch.equal(p, q)
    assert all(p.grad is None for p in own)
    for p, q in zip(own, theirs, strict=True):
        for name, tensor in reference.state[q].items():
            assert torch.equal(optimizer.state[p][name], tensor)


def test_it_loads_no_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    own = weights(torch.float64)
    optimizer = AdamW(own, weight_decay=0.1)
    sum(p.sum() for p in own).backward()
    optimizer.step(0.1)
    monkeypatch.delattr(torch.optim.Optimizer.add_param_group, "__dynamo_disable", raising=False)
    with pytest.raises(ImportError):  # as the class of torch does at its first use
        torch.optim.AdamW(own).step()
