"""Large vocabularies: lazy softmax over codes against the plain one over the whole vocabulary."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW, code, random_network, rounding, seeded_generator, seeds, simplex

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule, posterior
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.points import CODE_LENGTH, VERTEX
from discrete_itd.channel.posterior import VocabularyPosterior
from discrete_itd.denoisers import MarginalDenoiser, SupportDenoiser
from discrete_itd.likelihood import path_log_prob

sizes = st.integers(1, 60)


def random_case(n_words, is_open, device, seed, *, network=True, n=7):
    """A posterior of states unknown, blurred and known, and the rows' own words."""
    rng = np.random.default_rng(seed)
    v = Codebook([code(n_words, is_open=is_open)]).to(device).vocabularies[0]
    like = v.codes

    def tensor(a):
        return torch.tensor(a).to(like)

    log_probs = torch.log_softmax(tensor(rng.normal(0, 2, v.n_points)), 0)
    words = torch.tensor(rng.integers(v.n_points, size=n), device=device)
    snr = tensor(rng.uniform(0, 30, n))
    kind = torch.tensor(rng.permutation(np.arange(n) % 3), device=device)
    snr = snr.masked_fill(kind == 0, 0.0).masked_fill(kind == 2, math.inf)
    finite = snr.masked_fill(torch.isinf(snr), 0.0)[:, None]
    y = finite * v.codes[words] + finite.sqrt() * tensor(rng.normal(size=(n, CODE_LENGTH)))
    y = torch.where(torch.isinf(snr)[:, None], v.codes[words], y)
    h = tensor(rng.normal(size=(n, 5))) if network else None
    u = tensor(rng.normal(0, 0.5, (n_words, 5))) if network else None
    return VocabularyPosterior(v, log_probs, y, snr, h, u), words.double()


def naive_log_probs(q):
    """Prior, evidence (2) and the network's say, one word at a time; the unseen keeps the base's share."""
    n, rows = q.vocabulary.n_levels, []
    codes, prior, y, snr = (
        t.double().cpu().numpy() for t in (q.vocabulary.codes, q.log_probs, q.y, q.snr)
    )
    for i in range(len(y)):
        base = prior.copy()
        for k, e in enumerate(codes):
            if np.isinf(snr[i]):
                base[k] = 0.0 if np.allclose(e, y[i], atol=1e-6) else -np.inf
            else:
                base[k] += y[i] @ e - snr[i] * (e @ e) / 2
        base -= np.logaddexp.reduce(base)
        if q.h is not None:
            f = q.u.double().cpu().numpy() @ q.h[i].double().cpu().numpy()
            if np.isfinite(base[:n]).any():
                seen = np.logaddexp.reduce(base[:n])
                moved = base[:n] + f
                base[:n] = moved - np.logaddexp.reduce(moved) + seen
        rows.append(base)
    return np.stack(rows)


@LAW
@given(sizes, st.booleans(), st.booleans(), seeds)
def test_posterior_is_the_naive_softmax(device, dtype, n_words, is_open, network, seed):
    q, words = random_case(n_words, is_open, device, seed, network=network)
    naive = naive_log_probs(q)
    got = q.log_probs_of_all().cpu().numpy()
    possible = np.isfinite(naive)
    np.testing.assert_allclose(got[possible], naive[possible], atol=rounding(dtype, 10), rtol=1e-4)
    assert (got[~possible] < -700).all()
    own = q.log_prob(words).cpu().numpy()
    np.testing.assert_array_equal(own, got[np.arange(7), words.long().cpu().numpy()])
    codes = q.vocabulary.codes.double().cpu().numpy()
    np.testing.assert_allclose(
        q.mean().cpu().numpy(), np.exp(naive) @ codes, atol=rounding(dtype, 10)
    )
    everything = torch.ones(7, dtype=torch.bool, device=device)
    best = naive[:, :n_words].argmax(1)
    seen = np.isfinite(naive[:, :n_words]).any(1)
    np.testing.assert_array_equal(q.mode(everything).cpu().numpy()[seen], best[seen])


@pytest.mark.parametrize("network", [False, True])
def test_only_what_is_asked_for_is_worked_out(device, monkeypatch, network):
    """A NaN asks nothing; the mean needs no softmax where the cell is known, or nothing of it."""
    q, words = random_case(20, True, device, 0, network=network, n=9)
    asked, plain = [], VocabularyPosterior._logits

    def spy(self, rows):
        asked.extend(rows.tolist())
        return plain(self, rows)

    monkeypatch.setattr(VocabularyPosterior, "_logits", spy)
    cells = words.clone()
    cells[[1, 4, 7]] = math.nan
    got = q.log_prob(cells)
    assert asked == [0, 2, 3, 5, 6, 8]
    assert not got[[1, 4, 7]].any()
    asked.clear()
    assert q.log_prob(torch.full_like(cells, math.nan)).tolist() == [0.0] * 9
    assert asked == []
    q.mean()
    blurred = ~torch.isinf(q.snr) & (True if network else q.snr > 0)
    assert asked == torch.nonzero(blurred).flatten().tolist()
    for method in (q.mode, lambda w: q.sample(seeded_generator(0, device), w, allow_unseen=True)):
        asked.clear()
        assert not method(~cells.isnan())[[1, 4, 7]].any()
        assert asked == [0, 2, 3, 5, 6, 8]


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("network", [False, True])
def test_a_shared_row_is_worked_out_once(device, dtype, monkeypatch, network, kind):
    """Whether nothing is known of it, something, or all."""
    q, words = random_case(20, True, device, 0, network=network)
    i = next(i for i in range(7) if (float(q.snr[i]) > 0) + math.isinf(q.snr[i]) == kind)
    shared = q.pick(lambda t: t[i : i + 1].expand(7, *t.shape[1:]))
    plain = q.pick(lambda t: t[[i] * 7])
    words[2] = math.nan
    log_prob, mean = plain.log_prob(words), plain.mean()
    asked, logits = [], VocabularyPosterior._logits

    def spy(self, rows):
        asked.extend(rows.tolist())
        return logits(self, rows)

    monkeypatch.setattr(VocabularyPosterior, "_logits", spy)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(shared.log_prob(words), log_prob, **close)
    torch.testing.assert_close(shared.mean(), mean, **close)
    assert len(asked) <= 2


@pytest.mark.parametrize("cells", [1, 21, 50, 1 << 24])
def test_chunks_change_nothing(device, dtype, monkeypatch, cells):
    for network in (False, True):
        q, words = random_case(20, True, device, 0, network=network, n=9)
        words[3] = math.nan
        where = ~words.isnan()

        def everything(q=q, words=words, where=where):
            noise = seeded_generator(0, device)
            yield q.log_prob(words)
            yield q.mean()
            yield q.mode(where)
            yield q.log_probs_of_all()
            yield q.sample(noise, where, allow_unseen=False)

        monkeypatch.setattr(posterior, "CHUNK_CELLS", 1 << 24)
        whole = list(everything())
        monkeypatch.setattr(posterior, "CHUNK_CELLS", cells)
        for a, b in zip(everything(), whole, strict=True):
            torch.testing.assert_close(a, b, atol=rounding(dtype), rtol=rounding(dtype))


@pytest.mark.parametrize("snr", [0.0, 1.0, 100.0, 2000.0, math.inf])
def test_codes_keep_their_digits_in_float32(device, snr):
    results = []
    xi = np.random.default_rng(0).normal(size=(6, CODE_LENGTH))
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        v = Codebook([code(5000, is_open=True)]).to(device).vocabularies[0]
        words = torch.tensor([0, 17, 2000, 4999, 5000, 3], device=device)
        x = v.codes[words]
        gamma = torch.full((6,), snr, device=device)
        noise = torch.tensor(xi).to(x)
        y = x if math.isinf(snr) else gamma[:, None] * x + gamma.sqrt()[:, None] * noise
        q = VocabularyPosterior(v, x.new_full((5001,), -math.log(5001)), y, gamma)
        results.append((q.log_prob(words.double()).double(), q.mean().double()))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
    if math.isinf(snr):
        assert not results[0][0].any()


def test_impossible_words_are_never_drawn(device):
    """Not even by a random number of exactly zero."""
    v = Codebook([code(4)]).to(device).vocabularies[0]
    n = 1 << 12
    q = VocabularyPosterior(
        v, v.codes.new_zeros(4), v.codes[[2]].expand(n, -1), v.codes.new_full((n,), math.inf)
    )

    where = torch.ones(n, dtype=torch.bool, device=device)
    assert (q.sample(seeded_generator(0, device), where, allow_unseen=False) == 2).all()
    zeros = torch.zeros(n, 1, dtype=torch.float64, device=device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: zeros)
        assert (q.sample(seeded_generator(0, device), where, allow_unseen=False) == 2).all()


# -- denoisers of large vocabularies ---------------------------------------------------------------


def words_like_levels(device, seed):
    """The same table of two columns, as codes and as simplices, with the same marginals."""
    rng = np.random.default_rng(seed)
    sizes = (7, 5)
    probs = [torch.tensor(rng.dirichlet([1.0] * n)).to(torch.get_default_dtype()) for n in sizes]
    book = Codebook([code(n) for n in sizes]).to(device)
    plain = Codebook([simplex(n) for n in sizes]).to(device)
    by_level = torch.zeros(12)
    for j, p in enumerate(probs):
        codes = torch.zeros(len(p), 2, dtype=torch.int64)
        codes[:, j] = torch.arange(len(p))
        by_level[plain.levels.index_of(codes.to(device))[:, j].cpu()] = p
    words = MarginalDenoiser(book, torch.ones(0), high_cardinality=[p.to(device) for p in probs])
    return words.to(device), MarginalDenoiser(plain, by_level.to(device))


def test_marginals_do_not_depend_on_where_categories_lie(device, dtype):
    words, levels = words_like_levels(device, 0)
    rows = torch.cartesian_prod(torch.arange(7), torch.arange(5)).double().to(device)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(words.log_prob(rows), levels.log_prob(rows), **close)
    oracle = SupportDenoiser(levels.codebook, rows, levels.log_prob(rows).exp())
    torch.testing.assert_close(words.log_prob(rows), oracle.log_prob(rows), **close)
    for plan in (CoordinateSchedule(2), IsotropicSchedule((1.0, 5.0))):
        got = path_log_prob(words, rows, plan, generator=seeded_generator(0, device))
        torch.testing.assert_close(got.log_prob, words.log_prob(rows).double(), **close)
        assert got.stderr.max() < rounding(dtype)


def test_learned_words_start_as_codes_and_are_their_own(device):
    book = Codebook([code(9, is_open=True)]).to(device)
    net = random_network(book, 0)
    codes = book.vocabularies[0].codes
    torch.testing.assert_close(net.vectors[0].detach(), codes[:9] / VERTEX)
    net.vectors[0].add_(1.0)
    assert codes[:9].norm(dim=1).max() < 1  # the channel's codes stay
    assert net.vectors[0].shape == (9, CODE_LENGTH)
