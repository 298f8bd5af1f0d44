"""Exact denoisers against sums over the support; the network against its base."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    BOOKS,
    FEW_EXAMPLES,
    WIDER_BOOKS,
    empty_state,
    line,
    make_book,
    random_marginals,
    random_network,
    random_rows,
    random_state,
    rounding,
    seeds,
    simplex,
    wide_tables,
)

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser, NeuralDenoiser
from discrete_itd.denoisers.base import log_sum_exp

# -- the oracle ------------------------------------------------------------------------------------


def test_sums_of_exponentials_are_those_of_torch(device, dtype):
    x = torch.randn(6, 50, device=device, dtype=dtype) * torch.tensor(
        [[0.1], [1.0], [30.0], [300.0], [1e4], [1.0]], device=device, dtype=dtype
    )
    x[5] = -math.inf  # impossible in every class
    x[0, :9] = -math.inf
    torch.testing.assert_close(log_sum_exp(x, 1), torch.logsumexp(x, 1))
    torch.testing.assert_close(log_sum_exp(x.T, 0), torch.logsumexp(x, 1))


# -- the marginals ---------------------------------------------------------------------------------


@FEW_EXAMPLES
@given(wide_tables, seeds, st.booleans())
def test_smoothed_marginals_are_counts(device, dtype, columns, seed, own_unseen):
    """Of the cells that are there; what was never seen gets its own count, or the pseudo-count."""
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    x = random_rows(book, 9, rng, missing=0.3)
    for j, points in enumerate(columns):
        if points.open:
            x[:, j] = x[:, j].clamp_max(points.n_levels - 1)
    unseen = rng.uniform(0.1, 3.0, len(columns)).tolist() if own_unseen else None
    fitted = MarginalDenoiser.fit(book, x, pseudo_count=0.5, unseen_counts=unseen)
    q = fitted(*empty_state(book))
    for j, points in enumerate(columns):
        if points.kind == "real":
            continue
        cells = x[:, j].cpu().numpy()
        counts = np.array([(cells == k).sum() + 0.5 for k in range(points.n_points)])
        if points.open and unseen is not None:
            counts[-1] = unseen[j]
        np.testing.assert_allclose(
            q.column(j)[0].cpu().numpy(), np.log(counts / counts.sum()), atol=rounding(dtype, 3)
        )
    rows = random_rows(book, 5, rng, missing=0.3)
    by_cell = q.expand(5).log_prob(rows).sum(1)
    torch.testing.assert_close(fitted.log_prob(rows), by_cell)


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_marginals_of_no_rows_and_of_missing_columns(device, name):
    book = make_book(name, device)
    for n in (0, 3):
        x = torch.full((n, book.n_columns), math.nan, dtype=torch.float64, device=device)
        fitted = MarginalDenoiser.fit(book, x)
        rows = random_rows(book, 4, np.random.default_rng(0))
        assert fitted.log_prob(rows).isfinite().all()


@pytest.mark.parametrize("probs", [[1.0] * 6, [1.0] * 6 + [0.0], [1.0] * 6 + [math.nan]])
def test_wrong_marginals_are_refused(probs):
    with pytest.raises(ValueError, match="probs must be positive"):
        MarginalDenoiser(make_book("mixed", "cpu"), torch.tensor(probs))


# -- the network -----------------------------------------------------------------------------------


@FEW_EXAMPLES
@given(wide_tables, seeds)
def test_untrained_network_is_its_base(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    net = random_network(book, seed, strength=0.0)
    _, y, snr = random_state(book, rng, 5)
    rows = random_rows(book, 5, rng, missing=0.2)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype, 3)}
    got, base = net(y, snr), net.base(y, snr)
    torch.testing.assert_close(got.categorical.logits, base.categorical.logits, **close)
    torch.testing.assert_close(got.log_prob(rows), base.log_prob(rows), **close)
    torch.testing.assert_close(got.mean(), base.mean(), **close)


@pytest.mark.parametrize("name", sorted(WIDER_BOOKS))
def test_random_network_keeps_what_is_known_in_all_families(device, name):
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    net = random_network(book, 0)
    rows, y, snr = random_state(book, rng, 40)
    known = torch.isinf(snr)
    q = net(y, snr)
    at = book.per_coord(known)
    torch.testing.assert_close(q.mean()[at], book.embed(rows)[at], atol=1e-6, rtol=1e-6)
    certain = q.log_prob(rows)[known]
    assert (certain > -1e-6).all()  # the density of a known value is large, its probability one
    _, y, snr = random_state(book, rng, 40, known=False)
    moved = (net(y, snr).mean() - net.base(y, snr).mean()).abs()
    for j in range(book.n_columns):
        assert moved[:, book.coord_column == j].max() > 1e-3  # in every column


@pytest.mark.parametrize("name", ["open", "all kinds"])
def test_an_unseen_category_looks_missing(device, dtype, name):
    book = make_book(name, device)
    net = random_network(book, 3)
    rng = np.random.default_rng(0)
    rows, y, snr = random_state(book, rng, 20, known=False)
    j = next(j for j, c in enumerate(book.columns) if c.open)
    rows[:, j] = book.columns[j].n_levels
    mine = book.coord_column == j
    at = torch.arange(book.n_columns, device=device) == j
    told = net(torch.where(mine, book.embed(rows), y), snr.masked_fill(at, math.inf))
    untold = net(y.masked_fill(mine, 0.0), snr.masked_fill(at, 0.0))
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype, 10)}
    others = told.log_prob(rows)[:, ~at], untold.log_prob(rows)[:, ~at]
    torch.testing.assert_close(*others, **close)
    # and costs what the base says, whatever is known of it
    got, base = net(y, snr).log_prob(rows)[:, j], net.base(y, snr).log_prob(rows)[:, j]
    torch.testing.assert_close(got, base, **close)


@pytest.mark.parametrize("name", ["one real", "all kinds"])
def test_an_absurd_value_looks_missing_and_stays_finite(device, dtype, name):
    """A millionfold outlier belongs to the wide component, which the network does not touch.

    The weights are so small that no other component becomes wider.
    """
    book = make_book(name, device)
    net = random_network(book, 3, strength=0.3)
    rng = np.random.default_rng(0)
    _, y, snr = random_state(book, rng, 20, known=False)
    j = 1
    mine = book.coord_column == j
    for value in (1e6, -1e6):
        rows = random_rows(book, 20, rng)
        rows[:, j] = value
        told, told_snr = torch.where(mine, book.embed(rows), y), snr.clone()
        told_snr[:, j] = math.inf
        untold, untold_snr = torch.where(mine, 0.0, y), snr.clone()
        untold_snr[:, j] = 0.0
        a, b = net(told, told_snr), net(untold, untold_snr)
        others = [k for k in range(book.n_columns) if k != j]
        torch.testing.assert_close(
            a.log_prob(rows)[:, others],
            b.log_prob(rows)[:, others],
            atol=rounding(dtype, 10),
            rtol=rounding(dtype, 10),
        )
        own, base = b.log_prob(rows)[:, j], net.base(untold, untold_snr).log_prob(rows)[:, j]
        torch.testing.assert_close(own, base, atol=rounding(dtype), rtol=rounding(dtype))
        assert own.isfinite().all()
        assert a.mean().isfinite().all()


def test_base_gets_no_gradient_and_does_not_train(device):
    book = make_book("mixed", device)
    inner = random_network(book, 0)
    net = NeuralDenoiser(inner.requires_grad_(True), width=8, depth=1).to(device)
    assert {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad} == {"network"}


@pytest.mark.parametrize("name", ["one real"])
def test_the_base_of_wider_tables_is_that_of_independent_columns(name):
    inner = random_network(make_book(name, "cpu"), 0)
    with pytest.raises(ValueError, match="must be those of a MarginalDenoiser"):
        NeuralDenoiser(inner, width=8, depth=1)


@pytest.mark.parametrize("name", sorted(WIDER_BOOKS))
def test_every_weight_gets_a_finite_gradient(device, name):
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.1).train().requires_grad_(True)
    net.base.requires_grad_(False)
    rows, y, snr = random_state(book, np.random.default_rng(0), 30)
    snr[:3], y[:3] = 0.0, 0.0
    q = net(y, snr)
    asked = rows.masked_fill(torch.isinf(snr), math.nan)
    loss = (book.embed(rows) - q.mean()).square().sum() - q.log_prob(asked).sum()
    loss.backward()
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert p.grad.isfinite().all()
            assert p.grad.any(), name


def test_a_table_of_constants_needs_no_network(device):
    book = Codebook([simplex(1), line(0.5)]).to(device)
    net = NeuralDenoiser(random_marginals(book, np.random.default_rng(0)), width=8, depth=1)
    net = net.to(device)
    rows, y, snr = random_state(book, np.random.default_rng(0), 3)
    assert len(list(net.parameters())) > 0
    assert net(y, snr).log_prob(rows).abs().max() == 0


# -- networks that correct any exact base ----------------------------------------------------------
