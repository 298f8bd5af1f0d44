"""Exact denoisers against sums over the support; the network against its base."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    BOOKS,
    LAW,
    all_rows,
    line,
    make_book,
    numpy_evidence,
    numpy_point,
    random_marginals,
    random_network,
    random_oracle,
    random_rows,
    random_state,
    rounding,
    seeds,
    simplex,
    tables,
)

from discrete_itd.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser, NeuralDenoiser, SupportDenoiser


def state_of_possible_rows(book, oracle, rng, n):
    """States whose known cells occur together in the support."""
    rows = oracle.support[torch.tensor(rng.integers(len(oracle.support), size=n))]
    x = book.embed(rows)
    _, _, snr = random_state(book, rng, n)
    wide = book.per_coord(snr)
    finite = wide.masked_fill(wide.isinf(), 0.0)
    y = finite * x + finite.sqrt() * torch.tensor(rng.normal(size=x.shape)).to(x)
    return torch.where(wide.isinf(), x, y), snr


# -- the oracle ------------------------------------------------------------------------------------


@LAW
@given(tables(max_columns=3), seeds)
def test_oracle_mean_is_a_sum_over_the_support(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    oracle = random_oracle(book, rng, share=0.7)
    y, snr = state_of_possible_rows(book, oracle, rng, 4)
    mean, q = oracle(y, snr).mean().cpu().numpy(), oracle(y, snr)
    support, p = oracle.support.cpu().numpy(), oracle.log_probs.exp().cpu().numpy()
    place = book.coord_column.cpu().numpy()
    slots = book.slot_of(oracle.support).cpu().numpy()
    for i in range(4):
        yi, si = y[i].double().cpu().numpy(), snr[i].double().cpu().numpy()
        w = np.log(p)
        x = np.zeros((len(support), book.n_coords))
        for j, points in enumerate(columns):
            w = w + numpy_evidence(book, yi, si, j)[support[:, j]]
            x[:, place == j] = np.stack([numpy_point(points, k) for k in support[:, j]])
        w = np.exp(w - np.logaddexp.reduce(w))
        np.testing.assert_allclose(mean[i], w @ x, atol=rounding(dtype, 3))
        marginal = np.zeros(book.n_slots)
        for j in range(book.n_columns):
            np.add.at(marginal, slots[:, j].copy(), w)
        np.testing.assert_allclose(q.probs[i].cpu().numpy(), marginal, atol=rounding(dtype, 3))


@LAW
@given(tables(max_columns=3), seeds)
def test_oracle_of_a_product_is_the_marginal_denoiser(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    marginal = random_marginals(book, rng)
    rows = all_rows(book)
    log_prob = marginal.log_prob(rows)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))
    oracle = SupportDenoiser(book, rows, log_prob.exp())
    torch.testing.assert_close(oracle.log_prob(rows), log_prob)
    _, y, snr = random_state(book, rng, 6)
    torch.testing.assert_close(
        oracle(y, snr).probs, marginal(y, snr).probs, atol=rounding(dtype, 3), rtol=0
    )


def test_oracle_adds_repeated_rows_and_bounds_impossible_ones(device):
    book = make_book("mixed", device)
    rows = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 0, 0]], device=device)
    oracle = SupportDenoiser(book, rows, torch.tensor([1.0, 1.0, 2.0], device=device))
    other = torch.tensor([[0, 0, 1]], device=device)
    log_prob = oracle.log_prob(torch.cat([rows[:2], other]))
    torch.testing.assert_close(
        log_prob.exp(), torch.tensor([0.75, 0.25, 0.0], device=device).to(log_prob)
    )
    snr = torch.full((1, 3), math.inf, device=device)
    q = oracle(book.embed(other), snr)  # a state that cannot be
    assert q.logits.isfinite().all()


@LAW
@given(seeds)
def test_oracle_follows_relabelled_categories_and_permuted_columns(device, dtype, seed):
    rng = np.random.default_rng(seed)
    columns = [simplex(3), line(-1.0, 0.2, 1.0), simplex(2), simplex(3)]
    book = Codebook(columns).to(device)
    oracle = random_oracle(book, rng, share=0.5)
    y, snr = state_of_possible_rows(book, oracle, rng, 4)
    order = rng.permutation(4)
    new_book = Codebook([columns[j] for j in order]).to(device)
    labels = [rng.permutation(c.n_slots) if c.kind == "simplex" else np.arange(3) for c in columns]
    maps = [torch.tensor(labels[j], device=device) for j in order]

    def move(rows):
        return torch.stack([m[rows[:, j]] for m, j in zip(maps, order, strict=True)], 1)

    new = SupportDenoiser(new_book, move(oracle.support), oracle.log_probs.exp())
    new_snr = snr[:, order]
    new_y = torch.zeros_like(y)
    for at, j in enumerate(order):
        old_place = torch.nonzero(book.coord_column == j).flatten()
        new_place = torch.nonzero(new_book.coord_column == at).flatten()
        if columns[j].kind == "simplex":
            new_place = new_place[maps[at]]
        new_y[:, new_place] = y[:, old_place]
    rows = random_rows(book, 4, rng)
    log_prob = oracle(y, snr).log_prob(rows)[:, order]
    torch.testing.assert_close(
        new(new_y, new_snr).log_prob(move(rows)).exp(),
        log_prob.exp(),
        atol=rounding(dtype, 3),
        rtol=0,
    )


@pytest.mark.parametrize(
    ("support", "probs", "message"),
    [
        ([[0, 0]], [1.0], "support must have 3 columns"),
        ([[0, 0, 0]], [1.0, 1.0], "1 positive numbers"),
        ([[0, 0, 0]], [0.0], "1 positive numbers"),
    ],
)
def test_wrong_supports_are_refused(support, probs, message):
    with pytest.raises(ValueError, match=message):
        SupportDenoiser(make_book("mixed", "cpu"), torch.tensor(support), torch.tensor(probs))


# -- the marginals ---------------------------------------------------------------------------------


@LAW
@given(tables(), seeds)
def test_smoothed_marginals_are_counts(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(c.n_levels, size=9) for c in columns], 1)
    fitted = MarginalDenoiser.from_counts(
        book, torch.tensor(codes, device=device), pseudo_count=0.5
    )
    rows = random_rows(book, 5, rng)
    expected = np.zeros(5)
    for j, points in enumerate(columns):
        count = (codes[:, j] == rows[:, j].cpu().numpy()[:, None]).sum(1)
        expected += np.log((count + 0.5) / (9 + 0.5 * points.n_slots))
    np.testing.assert_allclose(
        fitted.log_prob(rows).cpu().numpy(), expected, atol=rounding(dtype, 3)
    )


@pytest.mark.parametrize("probs", [[1.0] * 6, [1.0] * 6 + [0.0], [1.0] * 6 + [math.nan]])
def test_wrong_marginals_are_refused(probs):
    with pytest.raises(ValueError, match="7 positive numbers"):
        MarginalDenoiser(make_book("mixed", "cpu"), torch.tensor(probs))


# -- the network -----------------------------------------------------------------------------------


@LAW
@given(tables(sizes=(2, 3, 33)), seeds)
def test_untrained_network_is_its_base(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    net = random_network(book, seed, strength=0.0)
    _, y, snr = random_state(book, rng, 5)
    got, base = net(y, snr).logits, net.base(y, snr).logits
    torch.testing.assert_close(got, base, atol=rounding(dtype, 3), rtol=rounding(dtype))


@LAW
@given(tables(sizes=(2, 3, 33)), seeds)
def test_random_network_gives_posteriors_that_keep_what_is_known(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    net = random_network(book, seed)
    rows, y, snr = random_state(book, rng, 5)
    q = net(y, snr)
    torch.testing.assert_close(
        book.sum(q.probs), torch.ones_like(snr), atol=rounding(dtype), rtol=0
    )
    assert not q.log_prob(rows)[torch.isinf(snr)].abs().gt(1e-6).any()
    _, y, snr = random_state(book, rng, 5, known=False)
    moved = (net(y, snr).probs - net.base(y, snr).probs).abs().max()
    assert moved > 1e-3  # the network has a say


def test_unseen_cells_cost_what_the_base_says_and_look_missing(device, dtype):
    book = make_book("open", device)
    net = random_network(book, 3)
    rng = np.random.default_rng(0)
    rows, y, snr = random_state(book, rng, 50, known=False)
    unseen = torch.full_like(rows, 2)
    torch.testing.assert_close(
        net(y, snr).log_prob(unseen),
        net.base(y, snr).log_prob(unseen),
        atol=rounding(dtype),
        rtol=rounding(dtype),
    )
    rows[:, 0] = 2
    x = book.embed(rows)
    first = book.coord_column == 0
    told = net(torch.where(first, x, y), torch.cat([snr[:, :1] * 0 + math.inf, snr[:, 1:]], 1))
    untold = net(torch.where(first, 0.0, y), torch.cat([snr[:, :1] * 0, snr[:, 1:]], 1))
    here = torch.nonzero(book.slot_column == 1).flatten()
    torch.testing.assert_close(
        told.logits[:, here], untold.logits[:, here], atol=rounding(dtype, 10), rtol=1e-4
    )


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_a_row_is_denoised_alone(device, dtype, name):
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    for net in (random_network(book, 1), random_oracle(book, rng), random_marginals(book, rng)):
        _, y, snr = random_state(book, rng, 9, known=False)
        one_by_one = torch.cat([net(y[i : i + 1], snr[i : i + 1]).logits for i in range(9)])
        torch.testing.assert_close(
            net(y, snr).logits, one_by_one, atol=rounding(dtype), rtol=rounding(dtype)
        )


def test_base_gets_no_gradient_and_does_not_train(device):
    book = make_book("mixed", device)
    inner = random_network(book, 0)
    net = NeuralDenoiser(inner.requires_grad_(True), width=8, depth=1).to(device)
    assert {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad} == {"network"}


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_wide_ragged_table_forward_and_backward(device, known):
    rng = np.random.default_rng(0)
    kinds = [simplex(2), simplex(5, is_open=True), line(-1.0, 0.0, 2.0), simplex(40), simplex(1)]
    book = Codebook([kinds[i] for i in rng.integers(5, size=2000)]).to(device)
    net = random_network(book, 0, strength=0.1).train().requires_grad_(True)
    net.base.requires_grad_(False)
    rows = random_rows(book, 2, rng)
    x = book.embed(rows)
    snr = torch.tensor(10 ** rng.uniform(-6, 6, rows.shape), device=device).to(x)
    snr = snr.masked_fill(torch.tensor(rng.random(rows.shape) < known, device=device), math.inf)
    wide = book.per_coord(snr)
    y = torch.where(wide.isinf(), x, wide.clamp_max(1e9) * x)
    q = net(y, snr)
    loss = (x - q.mean()).square().sum() - q.log_prob(rows).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in net.network.parameters())


def test_a_table_of_constants_needs_no_network(device):
    book = Codebook([simplex(1), line(0.5)]).to(device)
    net = NeuralDenoiser(random_marginals(book, np.random.default_rng(0)), width=8, depth=1)
    net = net.to(device)
    rows, y, snr = random_state(book, np.random.default_rng(0), 3)
    assert net(y, snr).log_prob(rows).abs().max() == 0
