"""Networks that correct an exact base."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    FEW_EXAMPLES,
    WIDER_BOOKS,
    all_rows,
    fixed_order,
    make_book,
    random_network,
    random_rows,
    random_state,
    random_trees,
    rounding,
    seeded_generator,
    seeds,
    tables,
)

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import NeuralDenoiser
from discrete_itd.likelihood import path_log_prob

N_COLUMNS = 4


@FEW_EXAMPLES
@given(tables(sizes=(1, 2, 3), max_columns=3), seeds)
def test_a_tree_is_corrected_too(device, dtype, columns, seed):
    """Any exact base: untrained it is the base, trained it is still a normalised mass."""
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    base = random_trees(book, rng, n_trees=2)
    net = NeuralDenoiser(base, width=8, depth=1).to(device).eval()
    _, y, snr = random_state(book, rng, 5)
    rows = random_rows(book, 5, rng)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype, 3)}
    torch.testing.assert_close(net(y, snr).log_prob(rows), base(y, snr).log_prob(rows), **close)
    with torch.no_grad():
        for p in net.network.parameters():
            p.normal_(0, 0.6, generator=seeded_generator(seed, device))
    got = path_log_prob(
        net,
        all_rows(book),
        fixed_order(book.n_columns),
        generator=seeded_generator(seed, device),
    )
    assert got.log_prob.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))


@pytest.mark.parametrize("name", sorted(WIDER_BOOKS))
def test_the_gradient_reaches_every_weight_of_a_denoiser(device, name):
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.1)
    net = net.train().requires_grad_(True)
    net.base.requires_grad_(False)
    rows, y, snr = random_state(book, np.random.default_rng(0), 30)
    q = net(y, snr)
    asked = rows.masked_fill(torch.isinf(snr), math.nan)
    loss = (book.embed(rows) - q.mean()).square().sum() - q.log_prob(asked).sum()
    loss.backward()
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert p.grad.isfinite().all()
            assert p.grad.any(), name
