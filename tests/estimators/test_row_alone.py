"""A score is a function of the row alone, to the last bit, in the precision that users run."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from laws import (
    column_distribution,
    make_denoiser,
    make_schedule,
    random_marginals,
    random_rows,
    real,
    seeded_generator,
    simplex,
)

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import NeuralDenoiser, RowMixtureDenoiser
from discrete_itd.denoisers.base import BLOCK, added, filled, row_product, rows_at_once
from discrete_itd.encoders import TableEncoder
from discrete_itd.likelihood import path_log_prob
from discrete_itd.models.model import Model

EXACT = (
    "marginals", "mixture", "tree", "trees", "bayes_net", "forest",
)  # fmt: skip
KINDS = ("network", "exact mixture", "stranger", *EXACT)


pytestmark = pytest.mark.single_precision


def make(kind, device):
    """A denoiser of a table wide enough for the blocks of matrix products, with both kinds of columns."""
    columns = (*(simplex(3) for _ in range(9)), real(), simplex(2), real())
    book = Codebook(columns if kind != "joined" else columns[:6]).to(device)
    if kind == "network":
        base = random_marginals(book, np.random.default_rng(0))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = NeuralDenoiser(base, width=96)
            for p in net.network.parameters():
                torch.nn.init.normal_(p, std=0.1)
        return net.to(device).eval().requires_grad_(False)
    if kind == "row mixture":
        members = [make(k, device) for k in ("causal on bayes_net", "mixture", "tree")]
        return RowMixtureDenoiser(book, members, [0.5, 0.3, 0.2])
    return make_denoiser(kind, book)


def rows_of(denoiser, n=40):
    rng = np.random.default_rng(1)
    rows = random_rows(denoiser.codebook, n, rng)
    gaps = random_rows(denoiser.codebook, n, rng, missing=0.3)
    rows = torch.cat([rows, gaps])
    return rows[~rows.isnan().all(1)]


# jumps, and noise beside known cells
@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        *((kind, "block") for kind in (*KINDS[:3], "tree")),
        *((kind, "partly known") for kind in KINDS[:3]),
    ],
)
def test_a_path_gives_a_row_the_same_bits_in_any_batch(device, kind, schedule):
    denoiser = make(kind, device)
    rows = rows_of(denoiser)
    plan = make_schedule(schedule, rows.shape[1], kind)
    given = torch.arange(rows.shape[1], device=device) == 2

    def score(x, **options):
        generator = seeded_generator(5, device)
        return path_log_prob(denoiser, x, plan, n_paths=2, generator=generator, **options)

    whole = score(rows)
    for i in (0, 70):
        for got, expected in zip(score(rows[i : i + 1]), whole, strict=True):
            assert torch.equal(got, expected[i : i + 1])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).to(device)
    for got, expected in zip(score(rows[order]), whole, strict=True):
        assert torch.equal(got, expected[order])
    assert torch.equal(score(rows, batch_size=64).log_prob, whole.log_prob)
    conditional = score(rows, given=given).log_prob
    assert torch.equal(score(rows[9:10], given=given).log_prob, conditional[9:10])


@pytest.mark.parametrize("kind", [*EXACT, "causal on bayes_net", "row mixture"])
def test_a_closed_form_gives_a_row_the_same_bits_in_any_batch(device, kind):
    denoiser = make(kind, device)
    rows = rows_of(denoiser)
    model = Model(TableEncoder([]), denoiser, None, None, 0, pd.DataFrame(), "exact")  # type: ignore
    whole = model.log_prob(rows, 8).log_prob
    for i in (0, 3, 70):
        assert torch.equal(model.log_prob(rows[i : i + 1], 8).log_prob, whole[i : i + 1])
    assert torch.equal(model.log_prob(rows.flip(0), 8).log_prob, whole.flip(0))
    shares = model.attribution(rows, 8).surprisal
    assert torch.equal(model.attribution(rows[3:4], 8).surprisal, shares[3:4])


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_distribution_has_the_same_bits_in_any_batch(device, kind):
    denoiser = make(kind, device)
    rows = rows_of(denoiser)
    whole = column_distribution(denoiser, rows, 1)
    assert torch.equal(column_distribution(denoiser, rows[5:6], 1), whole[5:6])


def test_products_and_sums_of_a_block_have_the_same_bits_as_those_of_many():
    generator = torch.Generator().manual_seed(0)
    for k, n, batch in itertools.product((1, 2, 3, 7, 40), (1, 2, 3, 17, 60), ((), (4,))):
        x = torch.randn(*batch, 12 * BLOCK, k, generator=generator)
        w = torch.randn(*batch, k, n, generator=generator)
        terms = torch.randn(9, 12 * BLOCK, n, generator=generator)
        whole, total = row_product(x, w), added(terms)
        for stop in (BLOCK, 3 * BLOCK, 5 * BLOCK):
            assert torch.equal(row_product(x[..., :stop, :], w), whole[..., :stop, :])
            assert torch.equal(added(terms[:, :stop]), total[:stop])


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129])
def test_blocks_are_filled_with_copies_of_the_last_row(n):
    x = torch.arange(2.0 * n).reshape(n, 2)
    whole = filled(x)
    assert len(whole) % BLOCK == 0
    assert len(whole) < n + BLOCK
    assert torch.equal(whole[:n], x)
    assert torch.equal(whole[n:], x[-1:].expand(len(whole) - n, 2))
    assert not len(filled(x[:0]))
    step = rows_at_once(n)
    assert step <= n < 2 * step
    assert BLOCK % step == 0 or step % BLOCK == 0
