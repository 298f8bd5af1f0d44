"""Networks: attention over columns, by itself and in a denoiser."""

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
    all_rows,
    fixed_order,
    last_weights,
    make_book,
    random_marginals,
    random_network,
    random_rows,
    random_state,
    random_trees,
    rounding,
    seeded_generator,
    seeds,
    tables,
    total_mass,
    wide_tables,
)

from discrete_itd.channel import Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import NeuralDenoiser
from discrete_itd.denoisers.networks import HEAD, ColumnTransformer
from discrete_itd.likelihood import integral_log_prob, path_log_prob

N_COLUMNS = 4
RAGGED = st.lists(st.integers(0, N_COLUMNS - 1), max_size=12)  # the column of each number


def transformer(comes, goes, *, n_columns=N_COLUMNS, width=8, depth=2, dropout=0.0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ColumnTransformer(
            comes, goes, n_columns, width=width, depth=depth, dropout=dropout
        ).eval()


def with_a_say(network, seed=0):
    """The same with random last weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in last_weights(network):
            p.copy_(torch.randn(p.shape, generator=generator))
    return network


def naive(network, features, comes, goes):
    """The outputs of a network without dropout, one column and one head at a time: numpy."""
    own = {name: p.detach().numpy() for name, p in network.named_parameters()}

    def norm(h, name):
        h = h - h.mean(-1, keepdims=True)
        h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5)
        return h * own[f"{name}.weight"] + own[f"{name}.bias"]

    def linear(h, name):
        return h @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    n, width = own["column"].shape
    out = []
    for row in features.numpy():
        h = own["column"].copy()
        place = [0] * n
        for value, j in zip(row, comes, strict=True):
            h[j] += value * own["enter"][j, place[j]]
            place[j] += 1
        for i in range(len(network.blocks)):
            block = f"blocks.{i}"
            asked = linear(norm(h, f"{block}.first"), f"{block}.ask")
            heard = []
            n_heads = network.blocks[i].n_heads
            size = width // n_heads
            assert size * n_heads == width
            assert size < 2 * HEAD or n_heads == 1
            for k in range(n_heads):
                q, key, v = (asked[:, m * width + k * size :][:, :size] for m in range(3))
                score = np.exp(q @ key.T / math.sqrt(size))
                heard.append(score / score.sum(1, keepdims=True) @ v)
            h = h + linear(np.concatenate(heard, 1), f"{block}.answer")
            t = linear(norm(h, f"{block}.second"), f"{block}.think.0")
            h = h + linear(t / (1 + np.exp(-t)), f"{block}.think.3")
        h = norm(h, "norm")
        place, numbers = [0] * n, []
        for j in goes:
            numbers.append(h[j] @ own["leave"][j, :, place[j]] + own["bias"][j, place[j]])
            place[j] += 1
        out.append(numbers)
    return np.array(out).reshape(len(features), len(goes))


# -- the network -----------------------------------------------------------------------------------


@FEW_EXAMPLES
@given(
    RAGGED, RAGGED, st.integers(0, 3), st.sampled_from([(1, 1), (8, 0), (33, 1), (32, 2)]), seeds
)
def test_a_transformer_is_its_definition(dtype, comes, goes, n_rows, size, seed):
    """Whatever the numbers of columns that come and go, in any order: shapes, and values by loops."""
    network = with_a_say(transformer(comes, goes, width=size[0], depth=size[1]), seed)
    features = torch.randn(n_rows, len(comes), generator=torch.Generator().manual_seed(seed))
    out = network(features).detach()
    assert out.shape == (n_rows, len(goes))
    expected = naive(network, features, comes, goes)
    np.testing.assert_allclose(out, expected, atol=rounding(dtype, 100))


@FEW_EXAMPLES
@given(RAGGED, RAGGED, seeds)
def test_a_transformer_starts_at_zero(comes, goes, seed):
    network = transformer(comes, goes, seed=seed)
    assert not network(torch.randn(3, len(comes))).any()


@FEW_EXAMPLES
@given(RAGGED, RAGGED, st.permutations(range(N_COLUMNS)), seeds)
def test_other_names_of_columns_change_nothing(dtype, comes, goes, order, seed):
    """Column j called order[j], with all that is its own: the same numbers go out."""
    network = with_a_say(transformer(comes, goes, seed=seed))
    other = transformer([order[j] for j in comes], [order[j] for j in goes])
    state = network.state_dict()
    for name in ("enter", "column", "leave", "bias"):
        moved = torch.empty_like(state[name])
        moved[list(order)] = state[name]
        state[name] = moved
    other.load_state_dict(state)
    features = torch.randn(3, len(comes), generator=torch.Generator().manual_seed(seed))
    tol = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(other(features), network(features), **tol)


def test_every_column_hears_every_other():
    comes, goes = [0, 1, 1, 2, 3], [0, 0, 1, 2, 3]
    network = with_a_say(transformer(comes, goes, depth=1))
    features = torch.randn(2, 5, requires_grad=True)
    for k in range(len(goes)):
        (gradient,) = torch.autograd.grad(network(features)[0, k], features)
        assert (gradient[0] != 0).all()
        assert not gradient[1].any()  # a row is by itself


@FEW_EXAMPLES
@given(RAGGED.filter(len), RAGGED.filter(len), seeds)
def test_the_gradient_reaches_every_weight(comes, goes, seed):
    """Of the weights of numbers that are there."""
    network = with_a_say(transformer(comes, goes, seed=seed)).train()
    features = torch.randn(5, len(comes), generator=torch.Generator().manual_seed(seed)) + 1
    network(features).square().sum().backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all()
        there = torch.ones(N_COLUMNS, dtype=torch.bool)
        if name in ("enter", "leave", "bias"):
            columns = comes if name == "enter" else goes
            for j in range(N_COLUMNS):
                n, used = columns.count(j), p.grad[j]
                used = used.T if name == "leave" else used  # numbers first
                assert not used[n:].any()
                there[j] = (
                    not n or (used[:n].flatten(1).any(1) if used.ndim > 1 else used[:n]).all()
                )
        assert there.all(), name
        assert p.grad.any(), name


def test_dropout_is_of_training_only():
    network = with_a_say(transformer([0, 1, 2], [0, 1, 2], dropout=0.5))
    features = torch.randn(4, 3)
    assert torch.equal(network(features), network(features))
    network.train()
    assert not torch.equal(network(features), network(features))


# -- in a denoiser ---------------------------------------------------------------------------------


def test_an_unknown_architecture_is_refused():
    base = random_marginals(make_book("mixed", "cpu"), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"architecture must be one of .*transformer.*, got 'cnn'"):
        NeuralDenoiser(base, architecture="cnn")


@FEW_EXAMPLES
@given(wide_tables, seeds)
def test_an_untrained_transformer_is_its_base(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    net = random_network(book, seed, strength=0.0, architecture="transformer")
    _, y, snr = random_state(book, rng, 5)
    rows = random_rows(book, 5, rng, missing=0.2)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype, 3)}
    got, base = net(y, snr), net.base(y, snr)
    torch.testing.assert_close(got.log_prob(rows), base.log_prob(rows), **close)
    torch.testing.assert_close(got.mean(), base.mean(), **close)


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_a_transformer_has_a_say_in_every_column_and_keeps_what_is_known(device, name):
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    net = random_network(book, 0, architecture="transformer")
    rows, y, snr = random_state(book, rng, 40)
    known = torch.isinf(snr)
    q, at = net(y, snr), book.per_coord(known)
    torch.testing.assert_close(q.mean()[at], book.embed(rows)[at], atol=1e-6, rtol=1e-6)
    assert (q.log_prob(rows)[known] > -1e-6).all()
    _, y, snr = random_state(book, rng, 40, known=False)
    moved = (net(y, snr).mean() - net.base(y, snr).mean()).abs()
    for j in range(book.n_columns):
        assert moved[:, book.coord_column == j].max() > 1e-3


@FEW_EXAMPLES
@given(tables(sizes=(1, 2, 3), max_columns=3), seeds)
def test_a_tree_is_corrected_too(device, dtype, columns, seed):
    """Any exact base: untrained it is the base, trained it is still a normalised mass."""
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    base = random_trees(book, rng, n_trees=2)
    net = NeuralDenoiser(base, architecture="transformer", width=8, depth=1).to(device).eval()
    _, y, snr = random_state(book, rng, 5)
    rows = random_rows(book, 5, rng)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype, 3)}
    torch.testing.assert_close(net(y, snr).log_prob(rows), base(y, snr).log_prob(rows), **close)
    with_a_say(net.network, seed)
    got = path_log_prob(
        net,
        all_rows(book),
        fixed_order(book.n_columns),
        generator=seeded_generator(seed, device),
    )
    assert got.log_prob.exp().sum().item() == pytest.approx(1, abs=rounding(dtype))


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_the_integral_of_a_transformer_is_never_optimistic_in_total(device, name):
    book = make_book(name, device)
    high = math.log(60 * float(book.known_snr.max()) / 2000)
    got = integral_log_prob(
        random_network(book, 3, architecture="transformer"),
        all_rows(book),
        Quadrature.logistic(0.5, 1.5, low=-9, high=high).to(device),
        n_points=1024,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    mass, stderr = total_mass(got)
    assert mass <= 1 + 4 * stderr


@pytest.mark.parametrize("name", sorted(WIDER_BOOKS))
def test_the_gradient_reaches_every_weight_of_a_denoiser(device, name):
    book = make_book(name, device)
    net = random_network(book, 0, strength=0.1, architecture="transformer")
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
