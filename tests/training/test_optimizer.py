"""The optimiser is torch's own, computed without its class."""

import sys

import pytest
import torch
from torch import nn

from discrete_itd.training.state import Optimizer


def weights(dtype):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(n, 3, generator=generator, dtype=dtype)) for n in (4, 1, 1, 2)]


def named(own):
    return {str(i): p for i, p in enumerate(own)}


def run(own, step):
    """Three steps on a loss that one weight has no part in."""
    for rate in (0.1, 0.01, 0.2):
        step(sum((p.sin() * rate).sum() for i, p in enumerate(own) if i != 2), rate)
    return [p.detach() for p in own]


def test_steps_are_those_of_torch(dtype):
    own, theirs = weights(dtype), weights(dtype)
    optimizer = Optimizer(named(own), 0.3, 0.1)
    reference, norms = torch.optim.AdamW(theirs, weight_decay=0.3, fused=True), []

    def reference_step(loss, rate):
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(theirs, 0.1))
        reference.step()

    for p, q in zip(run(own, optimizer.step), run(theirs, reference_step), strict=True):
        assert torch.equal(p, q)
    assert max(norms) > 0.1
    for i, q in enumerate(theirs):
        for name, tensor in reference.state[q].items():
            assert torch.equal(optimizer.moments[str(i)][name], tensor)


def test_it_loads_no_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    own = weights(torch.float64)
    Optimizer(named(own), 0.1, 1.0).step(sum(p.sum() for p in own), 0.1)
    monkeypatch.delattr(torch.optim.Optimizer.add_param_group, "__dynamo_disable", raising=False)
    with pytest.raises(ImportError):  # as the class of torch does at its first use
        torch.optim.AdamW(own).step()
