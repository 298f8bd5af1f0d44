"""Ensembles: convex combinations whose weights depend on how much is known."""

import itertools
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
    draws,
    make_book,
    make_denoiser,
    make_schedule,
    random_marginals,
    random_mixture,
    random_oracle,
    random_rows,
    random_state,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    total_mass,
)

from discrete_itd.channel import CoordinateSchedule, Quadrature, State
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import EnsembleDenoiser, MarginalDenoiser
from discrete_itd.denoisers.ensemble import REPEATS, Evidence
from discrete_itd.likelihood import integral_log_prob, path_log_prob

WITHOUT_WORDS = [n for n in (*BOOKS, *WIDER_BOOKS) if n not in ("only words", "all kinds")]
KINDS = ["network", "stranger", "trees", "mixture", "marginals"]


def random_weights(n, m, rng, *, zeros=0.0):
    w = rng.dirichlet([0.7] * m, size=n)
    w[(rng.random(w.shape) < zeros) & (w < w.max(1, keepdims=True))] = 0
    return torch.tensor(w / w.sum(1, keepdims=True))


def random_ensemble(book, seed, n=3):
    """Of members of different kinds, with random weights, some of them zero."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(KINDS)[:n]
    members = [make_denoiser(kind, book, seed + i) for i, kind in enumerate(kinds)]
    return EnsembleDenoiser(
        members,
        logsnr=torch.tensor([-2.0, 0.0, 0.5, 2.0], device=book.device),
        noisy=random_weights(4, n, rng, zeros=0.2).to(book.device),
        known=random_weights(int(rng.integers(1, 5)), n, rng, zeros=0.2).to(book.device),
    )


def two_halves(device, n=400):
    """A table of two kinds of rows, a mixture that knows one and one that knows the other; rows of both."""
    book = make_book("mixed", device)
    members = [random_mixture(book, np.random.default_rng(seed), n_classes=2) for seed in (1, 2)]
    rows = [draws_of(m, n, seed) for seed, m in enumerate(members)]
    return book, members, torch.cat(rows)


def draws_of(denoiser, n, seed):
    """Rows of a denoiser of a small table, by its own probabilities."""
    rows = all_rows(denoiser.codebook)
    p = denoiser.log_prob(rows).double().exp().cpu().numpy()
    return rows[np.random.default_rng(seed).choice(len(rows), size=n, p=p / p.sum())]


QUADRATURE = Quadrature(torch.tensor([-4.0, 3.0]), torch.ones(1))


def fitted(members, rows, seed=0, **kwargs):
    generator = seeded_generator(seed, rows.device)
    quadrature = QUADRATURE.to(rows.device)
    return EnsembleDenoiser.fit(members, rows, quadrature, generator=generator, **kwargs)


# -- what a combination is -------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(WITHOUT_WORDS))
def test_weights_are_convex(device, name):
    book = make_book(name, device)
    ensemble = random_ensemble(book, 0)
    for known in (True, False):
        _, _, snr = random_state(book, np.random.default_rng(1), 60, max_snr=9.0, known=known)
        w = ensemble.weights(snr)
        assert w.shape == (60, 3)
        assert (w >= 0).all()
        torch.testing.assert_close(w.sum(1), torch.ones_like(w[:, 0]), atol=1e-6, rtol=0)


def test_weights_are_those_given_and_between_them_straight(device, dtype):
    book = make_book("simplex", device)
    ensemble = random_ensemble(book, 3, n=2)
    close = {"atol": rounding(dtype), "rtol": 0}
    noisy, known = ensemble.noisy, ensemble.known
    grid = torch.tensor([-9.0, -2.0, -1.0, 0.0, 0.25, 0.5, 2.0, 9.0]).to(book.known_snr)
    expected = [noisy[0], noisy[0], (noisy[0] + noisy[1]) / 2, noisy[1], (noisy[1] + noisy[2]) / 2]
    expected += [noisy[2], noisy[3], noisy[3]]
    snr = grid.exp()[:, None].expand(-1, 3)
    torch.testing.assert_close(ensemble.weights(snr), torch.stack(expected), **close)
    snr = torch.zeros(4, 3).to(book.known_snr)
    for i in range(4):
        snr[i, :i] = math.inf
    middles = (np.arange(len(known)) + 0.5) / len(known)  # beyond the first and the last, constant
    by_hand = torch.tensor(
        [[np.interp(i / 3, middles, known[:, k].cpu().numpy()) for k in range(2)] for i in range(4)]
    )
    torch.testing.assert_close(ensemble.weights(snr).cpu(), by_hand.to(dtype), **close)
    # one cell known, two noisy: by the share of the known
    snr = torch.tensor([[math.inf, math.exp(0.2), math.exp(0.3)]]).to(book.known_snr)
    by_hand = by_hand[1].to(noisy) / 3 + (noisy[1] + noisy[2]) / 2 * 2 / 3
    torch.testing.assert_close(ensemble.weights(snr)[0], by_hand, **close)


@FEW_EXAMPLES
@given(st.sampled_from(WITHOUT_WORDS), seeds)
def test_a_combination_believes_the_mean_of_its_members(device, dtype, name, seed):
    """Probabilities, densities and denoised points, whatever is known."""
    book = make_book(name, device)
    ensemble = random_ensemble(book, seed)
    rng = np.random.default_rng(seed)
    _, y, snr = random_state(book, rng, 6, max_snr=5.0)
    rows = random_rows(book, 6, rng).masked_fill(torch.isinf(snr), math.nan)
    w, q = ensemble.weights(snr), ensemble(y, snr)
    beliefs = [member(y, snr) for member in ensemble.members]
    mean = sum(w[:, [i]] * b.mean() for i, b in enumerate(beliefs))
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype, 10)}
    torch.testing.assert_close(q.mean(), mean, **close)
    prob = sum(w[:, [i]] * b.log_prob(rows).exp() for i, b in enumerate(beliefs))
    torch.testing.assert_close(q.log_prob(rows).exp(), prob, **close)


@pytest.mark.parametrize("name", WITHOUT_WORDS)
def test_one_member_is_that_member(device, name):
    book = make_book(name, device)
    member = make_denoiser("network", book, 1)
    ensemble = EnsembleDenoiser([member])
    _, y, snr = random_state(book, np.random.default_rng(0), 9)
    rows = random_rows(book, 9, np.random.default_rng(1), missing=0.2)
    ours, own = ensemble(y, snr), member(y, snr)
    assert torch.equal(ours.log_prob(rows), own.log_prob(rows))
    assert torch.equal(ours.mean(), own.mean())
    value = fitted([member], random_rows(book, 50, np.random.default_rng(2)))
    (value,) = value.marginal_value(
        random_rows(book, 50, np.random.default_rng(2)), generator=seeded_generator(0, device)
    )
    assert value.weight == 1
    assert math.isnan(value.gain)


@pytest.mark.parametrize("name", ["mixed", "reals and levels"])
def test_members_under_other_names_are_the_same_ensemble(device, dtype, name):
    book = make_book(name, device)
    ensemble = random_ensemble(book, 5)
    order = [2, 0, 1]
    other = EnsembleDenoiser(
        [ensemble.members[i] for i in order],
        logsnr=ensemble.logsnr,
        noisy=ensemble.noisy[:, order],
        known=ensemble.known[:, order],
    )
    _, y, snr = random_state(book, np.random.default_rng(0), 20)
    rows = random_rows(book, 20, np.random.default_rng(1)).masked_fill(torch.isinf(snr), math.nan)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(
        other(y, snr).log_prob(rows), ensemble(y, snr).log_prob(rows), **close
    )
    torch.testing.assert_close(other(y, snr).mean(), ensemble(y, snr).mean(), **close)
    # fitted too: which of them comes first is of no matter
    rows = random_rows(book, 150, np.random.default_rng(2))
    a, b = (fitted(list(e.members), rows, n_knots=3) for e in (ensemble, other))
    tol = {"atol": 1e-3, "rtol": 0}  # where two are nearly alike, weights are loose
    torch.testing.assert_close(a.known[:, order], b.known, **tol)
    torch.testing.assert_close(a.noisy[:, order], b.noisy, **tol)


def test_equal_members_are_one(device, dtype):
    book = make_book("mixed", device)
    member = make_denoiser("trees", book, 0)
    _, y, snr = random_state(book, np.random.default_rng(0), 9)
    rows = random_rows(book, 9, np.random.default_rng(1)).masked_fill(torch.isinf(snr), math.nan)
    got = EnsembleDenoiser([member, member])(y, snr).log_prob(rows)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(got, member(y, snr).log_prob(rows), **close)


# -- the laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(BOOKS))
def test_the_integral_of_an_ensemble_is_never_optimistic_in_total(device, name, seed):
    book = make_book(name, device)
    high = math.log(60 * float(book.known_snr.max()) / 2000)
    got = integral_log_prob(
        random_ensemble(book, seed),
        all_rows(book),
        Quadrature(torch.tensor([-7.0, high]), torch.ones(1)).to(device),
        n_points=1024,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    mass, stderr = total_mass(got)
    assert mass <= 1 + 4 * stderr


@pytest.mark.parametrize("schedule", ["isotropic", "block", "partly known"])
@pytest.mark.parametrize("name", ["open", pytest.param("mixed", marks=pytest.mark.slow)])
def test_path_masses_of_an_ensemble_add_up_to_one(device, dtype, name, schedule):
    book = make_book(name, device)
    got = path_log_prob(
        random_ensemble(book, 2),
        all_rows(book),
        make_schedule(schedule, book.n_columns, "stranger"),
        n_paths=1200,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    mass, stderr = total_mass(got)
    assert mass == pytest.approx(1, abs=4 * stderr + rounding(dtype))
    assert stderr < 0.05


@FEW_EXAMPLES
@given(st.sampled_from(sorted(BOOKS)), seeds)
def test_autoregression_of_an_ensemble_is_normalised_to_rounding(device, dtype, name, seed):
    book = make_book(name, device)
    got = path_log_prob(
        random_ensemble(book, seed),
        all_rows(book),
        CoordinateSchedule(book.n_columns, tuple(range(book.n_columns))),
        generator=seeded_generator(seed, device),
    )
    assert got.log_prob.exp().sum().item() == pytest.approx(1, abs=rounding(dtype, 3))


# -- fitting ---------------------------------------------------------------------------------------


def states(members, rows, seed, n_knots):
    """The states in which the weights were fitted, drawn again with an equal generator."""
    generator = seeded_generator(seed, rows.device)
    low, high = math.log(QUADRATURE.low), math.log(QUADRATURE.high)
    noisy = [
        Evidence.noisy(members, rows, ends, generator)
        for ends in itertools.pairwise(np.linspace(low, high, n_knots + 1))
    ]
    Evidence.random(members, rows, generator)  # from whose weights those of the shares start
    return noisy, at_shares(members, rows, n_knots, generator)


def at_shares(members, rows, n, generator):
    return [
        Evidence.masked(members, rows, ends, generator)
        for ends in itertools.pairwise(np.linspace(0, 1, n + 1))
    ]


@pytest.mark.parametrize("name", ["mixed", "open", "reals and levels", "only reals"])
def test_no_member_is_better_where_weights_were_fitted(device, dtype, name):
    """On the rows that fitted them, at every SNR and share: error, or cross-entropy."""
    book = make_book(name, device)
    kinds = ["network", "marginals", "mixture"] + ["oracle"] * (name == "mixed")
    members = [make_denoiser(kind, book, i) for i, kind in enumerate(kinds)]
    rows = random_rows(book, 300, np.random.default_rng(0), missing=0.1)
    rows = rows[~rows.isnan().all(1)]
    ensemble = fitted(members, rows, 4, n_knots=4)
    noisy, known = states(members, rows, 4, 4)
    rng, mixed_errors = np.random.default_rng(1), 0
    for e, w in zip(noisy, ensemble.noisy.double(), strict=True):
        if len(book.reals):
            _never_worse(e, w, dtype)
            continue
        error = w @ e.grams.sum(0) @ w
        assert error <= e.grams.sum(0).diagonal().min() * (1 + rounding(dtype, 10))
        mixed_errors += int(error < e.grams.sum(0).diagonal().min() * (1 - 1e-4))
        for _ in range(20):  # nor any other combination by much
            other = torch.tensor(rng.dirichlet([1.0] * len(w))).to(w)
            assert error <= other @ e.grams.sum(0) @ other * 1.001
    for e, w in zip(known, ensemble.known.double(), strict=True):
        _never_worse(e, w, dtype)
    assert mixed_errors or len(book.reals)  # a combination is better somewhere


def _never_worse(evidence, w, dtype):
    ours = (w.log()[:, None] + evidence.log_prob).logsumexp(0).mean()
    assert ours >= evidence.log_prob.mean(1).max() - rounding(dtype, 10)


def test_evidence_is_what_members_say(device, dtype):
    """By hand, from their posteriors."""
    book = make_book("mixed", device)
    members = [make_denoiser("network", book, 0), make_denoiser("trees", book, 1)]
    rows = random_rows(book, 40, np.random.default_rng(0), missing=0.2)
    rows = rows[~rows.isnan().all(1)]
    missing = rows.isnan()
    told = Evidence.masked(members, rows, (0.2, 0.9), seeded_generator(3, device))
    generator = seeded_generator(3, device)
    share = 0.2 + 0.7 * torch.rand(len(rows), 1, generator=generator, device=device)
    draw = torch.rand(rows.shape, generator=generator, device=device).masked_fill(missing, -1)
    known = (draw < share) & (draw < draw.amax(1, keepdim=True)) & ~missing
    state = State.start(book, book.embed(rows), known)
    asked = ~known & ~missing
    assert asked.any(1).all()
    assert torch.equal(told.row, asked.nonzero()[:, 0])
    torch.testing.assert_close(told.share, known.double().mean(1))
    torch.testing.assert_close(told.size, (~missing).sum(1).double() / asked.sum(1))
    for own, member in zip(told.log_prob, members, strict=True):
        cells = member(*state).log_prob(rows)
        torch.testing.assert_close(own, cells[asked].double())
    w = torch.tensor([[0.3, 0.7]], dtype=torch.float64, device=device).expand(len(rows), -1)
    nats = told.row_nats(w)
    p = (
        0.3 * members[0](*state).log_prob(rows).exp()
        + 0.7 * members[1](*state).log_prob(rows).exp()
    )
    by_hand = -p.log().double().masked_fill(~asked, 0.0).sum(1) * told.size
    torch.testing.assert_close(nats, by_hand, atol=rounding(dtype, 10), rtol=rounding(dtype, 10))
    errors = [(book.embed(rows) - m(*state).mean()) * book.per_coord(asked) for m in members]
    gram = torch.stack([torch.stack([(a * b).sum() for b in errors]) for a in errors])
    torch.testing.assert_close(
        told.grams.sum(0), gram.double(), atol=rounding(dtype, 100), rtol=1e-4
    )


@pytest.mark.parametrize("name", ["simplex", "mixed"])
def test_errors_over_all_noise_are_code_lengths(device, name):
    r"""(3) over logsnr: ½ ∫ E|x - x̂|² γ d log γ is the entropy of rows of an exact denoiser, and more for another."""
    book = make_book(name, device)
    exact, other = random_oracle(book, np.random.default_rng(0)), make_denoiser("stranger", book, 1)
    p = exact.log_probs.double().exp()
    pick = torch.multinomial(p, 6000, replacement=True, generator=seeded_generator(0, device))
    rows = exact.support[pick]
    low, high = -7.0, math.log(60 * float(book.known_snr.max()) / 2000)
    told = Evidence.noisy([exact, other], rows, (low, high), seeded_generator(1, device))
    entropy = -(p * p.log()).sum().item()
    nats = {}
    for i, weights in enumerate(torch.eye(2).to(told.grams)):
        half = (high - low) / 2 * told.row_errors(weights)
        nats[i] = half.mean().item(), half.std().item() / math.sqrt(len(rows))
    mean, error = nats[0]
    assert mean == pytest.approx(entropy, abs=4 * error + 0.01)
    assert error < 0.05 * entropy
    assert nats[1][0] > entropy + 4 * nats[1][1]


def test_random_patterns_ask_for_every_number_of_cells(device):
    book = make_book("mixed", device)
    rows = random_rows(book, 900, np.random.default_rng(0))
    told = Evidence.random([make_denoiser("marginals", book)], rows, seeded_generator(0, device))
    n_known = (told.share * 3).round()
    counts = torch.stack([(n_known == n).sum() for n in range(4)])
    assert (counts[:3] - 300).abs().max() <= 1  # none, one, two
    assert counts[3] == 0
    # so surprisal, scaled up, is that of an autoregression averaged over orders
    ours = told.row_nats(torch.ones(900, 1, dtype=torch.float64, device=device)).mean()
    exact = -make_denoiser("marginals", book).log_prob(rows).double().mean()
    assert ours.item() == pytest.approx(exact.item(), rel=0.05)


def test_two_kinds_of_rows_need_both_members(device):
    _, members, rows = two_halves(device)
    ensemble = fitted(members, rows)
    assert (ensemble.known[:, 0] - 0.5).abs().max() < 0.2
    both = EnsembleDenoiser(members)
    ours, equal, *own = (
        path_log_prob(
            d, rows, CoordinateSchedule(3), n_paths=3, generator=seeded_generator(0, device)
        ).log_prob.mean()
        for d in (ensemble, both, *members)
    )
    assert ours > max(own) + 0.02
    assert ours > equal - 0.02


def test_the_fit_is_that_of_an_equal_generator(device):
    _, members, rows = two_halves(device, n=50)
    a, b, c = (fitted(members, rows, seed) for seed in (0, 0, 1))
    assert torch.equal(a.known, b.known)
    assert torch.equal(a.noisy, b.noisy)
    assert not torch.equal(a.known, c.known)


# -- the value of members --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixed", "reals and levels"])
def test_weights_are_the_best_of_all(device, name):
    """Two members have one weight to choose: try them all."""
    book = make_book(name, device)
    members = [make_denoiser(k, book, i) for i, k in enumerate(["network", "mixture", "marginals"])]
    rows = random_rows(book, 200, np.random.default_rng(0))
    told = Evidence.masked(members, rows, (0.0, 0.7), seeded_generator(0, device))
    grid = np.linspace(0, 1, 401)[:, None]
    for a, b in itertools.combinations(range(3), 2):
        p, q = told.log_prob[[a, b]].exp().cpu().numpy()
        code = np.log(grid * p + (1 - grid) * q).mean(1)
        w = told.most_probable([a, b]).cpu().numpy()
        assert w[3 - a - b] == 0
        assert np.log(w[a] * p + w[b] * q).mean() >= code.max() - 1e-5
        assert w[a] == pytest.approx(grid[code.argmax(), 0], abs=0.01)
        # a few steps from other weights are steps towards them, and never worse than a member
        start = torch.full((3,), 1 / 3).to(told.log_prob)
        few = told.most_probable([a, b], start=start).cpu().numpy()
        reached = np.log(few[a] * p + few[b] * q).mean()
        assert reached >= max(np.log((p + q) / 2).mean(), code[0], code[-1]) - 1e-9


@pytest.mark.parametrize("name", ["mixed", "reals and levels"])
def test_the_value_of_a_member_is_what_the_others_lose(device, dtype, name):
    """Against an ensemble of the others, made by hand in the same states."""
    book = make_book(name, device)
    members = [make_denoiser(k, book, i) for i, k in enumerate(["network", "mixture", "marginals"])]
    rows = random_rows(book, 200, np.random.default_rng(0))
    ensemble = fitted(members, rows, n_knots=3)
    got = ensemble.marginal_value(rows, generator=seeded_generator(8, device))
    generator = seeded_generator(8, device)
    evidence = at_shares(members, rows, 3, generator)
    told = [Evidence.random(members, rows, generator) for _ in range(REPEATS)]

    def nats(known):
        """(N,) by weights (3, M) in the middles of thirds, interpolated by hand."""
        total, middles = 0.0, [1 / 6, 1 / 2, 5 / 6]
        for e in told:
            share = e.share.cpu().numpy()
            w = torch.tensor(np.stack([np.interp(share, middles, known[:, i]) for i in range(3)]))
            p = (w.to(e.log_prob)[:, e.row] * e.log_prob.exp()).sum(0)
            total = total - torch.zeros_like(e.size).index_add_(0, e.row, p.log()) * e.size
        return total.cpu().numpy() / REPEATS

    ours = nats(ensemble.known.double().cpu().numpy())
    close = {"abs": rounding(dtype, 100), "rel": 1e-4}
    for i, value in enumerate(got):
        alone = np.zeros((3, 3))
        alone[:, i] = 1
        assert value.alone == pytest.approx(nats(alone).mean(), **close)
        assert value.weight == pytest.approx(float(ensemble.known[:, i].mean()), **close)
        others = [j for j in range(3) if j != i]
        start = told[0].most_probable(others)
        without = [e.most_probable(others, start=start).cpu().numpy() for e in evidence]
        gain = nats(np.stack(without)) - ours
        assert value.gain == pytest.approx(gain.mean(), **close)
        assert value.stderr == pytest.approx(gain.std(ddof=1) / 200**0.5, **close)


def test_a_member_that_knows_is_worth_more_than_its_copy(device):
    _, members, rows = two_halves(device)
    fits = fitted([*members, members[1]], rows)
    first, second, copy = fits.marginal_value(rows, generator=seeded_generator(0, device))
    assert first.gain > 5 * first.stderr
    assert abs(second.gain) < 1e-3  # its copy does as well
    assert abs(copy.gain) < 1e-3
    assert second.alone == pytest.approx(copy.alone)


# -- refusals --------------------------------------------------------------------------------------


def test_members_that_do_not_go_together_are_refused():
    book, other = make_book("mixed", "cpu"), make_book("simplex", "cpu")
    words = make_book("only words", "cpu")
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="an ensemble needs at least one member"):
        EnsembleDenoiser([])
    with pytest.raises(ValueError, match="the members of an ensemble must be of one table"):
        EnsembleDenoiser([random_marginals(book, rng), random_marginals(other, rng)])
    with pytest.raises(ValueError, match="takes no high-cardinality column"):
        EnsembleDenoiser([random_marginals(words, rng)])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"known": [[1.0, -0.1]]}, "known must hold non-negative weights of 2 members"),
        ({"known": [[1.0]]}, "known must hold non-negative weights of 2 members"),
        ({"known": [[math.nan, 1.0]]}, "known must hold non-negative weights"),
        ({"known": [[0.0, 0.0]]}, "known has a row of zeros"),
        ({"noisy": [[0.0, 0.0]]}, "noisy has a row of zeros"),
        ({"noisy": [[0.5, 0.5]] * 2}, "noisy must hold non-negative weights"),
        ({"logsnr": [0.0, 0.0]}, "logsnr must increase"),
        ({"logsnr": [1.0, 0.0]}, "logsnr must increase"),
        ({"logsnr": [0.0, math.nan]}, "logsnr must increase"),
    ],
    ids=str,
)
def test_wrong_weights_are_refused(weights, words):
    book = make_book("mixed", "cpu")
    members = [random_marginals(book, np.random.default_rng(i)) for i in range(2)]
    with pytest.raises(ValueError, match=words):
        EnsembleDenoiser(members, **{k: torch.tensor(v) for k, v in weights.items()})


def test_weights_are_normalised():
    book = make_book("mixed", "cpu")
    members = [random_marginals(book, np.random.default_rng(i)) for i in range(2)]
    ensemble = EnsembleDenoiser(members, known=torch.tensor([[2.0, 6.0]]))
    assert ensemble.known.tolist() == [[0.25, 0.75]]
    assert ensemble.noisy.tolist() == [[0.5, 0.5]]
    snr = torch.full((2, 3), 1.5)
    assert ensemble.weights(snr).tolist() == [[0.5, 0.5]] * 2
    rows = draws(ensemble, 5, seeded_generator(0, "cpu"))
    assert rows.shape == (5, 3)


def test_many_wide_rows(device):
    """Of which not all are looked at."""
    book = Codebook([simplex(2)] * 600).to(device)
    rows = torch.zeros(500, 600, dtype=torch.float64, device=device)
    member = MarginalDenoiser(book, torch.ones(1200, device=device))
    for told in (
        Evidence.noisy([member], rows, (0.0, 1.0), seeded_generator(0, device)),
        Evidence.random([member], rows, seeded_generator(0, device)),
    ):
        assert len(told.grams) == len(told.share) < 500
