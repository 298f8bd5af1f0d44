"""Mixtures of products: the closed form, and the mixtures of single columns."""

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
    cases,
    column_points,
    make_book,
    random_mixture,
    random_rows,
    real,
    rounding,
    seeds,
    simplex,
    states_of_every_kind,
)
from scipy import stats
from sklearn.mixture import GaussianMixture

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser, MixtureDenoiser, marginal, mixture
from discrete_itd.denoisers.marginal import fit_mixtures

mixed_tables = st.lists(
    st.one_of(column_points(sizes=(1, 2, 3)), st.just(real())), min_size=1, max_size=4
)


def random_classes(book, rng, *, n_classes=3):
    return random_mixture(book, rng, n_classes=n_classes)


def by_column(book, probs):
    """(Z, T) as one numpy array (Z, K_j) for every column of few categories."""
    spread = book.levels.spread(probs, 0.0).double().cpu().numpy()
    return [spread[:, i, :k] for i, k in enumerate(book.levels.cardinalities)]


def parts_of(denoiser):
    """Weights (Z,), probabilities (Z, K_j) by column, means and variances (Z, R): numpy."""
    book = denoiser.codebook
    tensors = denoiser.log_weights.exp(), denoiser.means, denoiser.var
    weights, mean, var = (t.double().cpu().numpy() for t in tensors)
    return weights, by_column(book, denoiser.log_probs.exp()), mean, var


# -- a mixture of products -------------------------------------------------------------------------


def naive_log_prob(oracle, row):
    """Sum over the hidden classes of products over the observed cells."""
    weights, probs, mean, var = parts_of(oracle)
    sd = np.sqrt(var)
    book, total = oracle.codebook, np.log(weights)
    for i, j in enumerate(book.finite.tolist()):
        if not math.isnan(row[j]):
            total = total + np.log(probs[i][:, int(row[j])])
    for i, j in enumerate(book.reals.tolist()):
        if not math.isnan(row[j]):
            total = total + stats.norm.logpdf(row[j], mean[:, i], sd[:, i])
    return np.logaddexp.reduce(total)


@FEW_EXAMPLES
@given(mixed_tables, seeds)
def test_log_prob_is_a_sum_over_classes(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    oracle = random_mixture(book, rng)
    rows = random_rows(book, 6, rng, missing=0.3)
    expected = [naive_log_prob(oracle, row) for row in rows.tolist()]
    np.testing.assert_allclose(
        oracle.log_prob(rows).cpu().numpy(), expected, atol=rounding(dtype), rtol=rounding(dtype)
    )


def test_numbers_need_gaussians(device):
    book = Codebook([real()]).to(device)
    with pytest.raises(ValueError, match="mean must be finite numbers of shape"):
        MixtureDenoiser(book, torch.ones(1), torch.ones(1, 0))


@pytest.mark.parametrize(("name", "kind"), cases(["mixture"]))
def test_known_cells_of_absurd_values_leave_a_posterior(device, name, kind):
    book = make_book(name, device)
    oracle = random_mixture(book, np.random.default_rng(0))
    rows = random_rows(book, 4, np.random.default_rng(0))
    rows[:, book.reals] = torch.tensor([1e6, -1e6, 1e3, 0.0], device=device).double()[:, None]
    snr = torch.full(rows.shape, math.inf, device=device)
    q = oracle(book.embed(rows), snr)
    assert q.log_prob(rows).isfinite().all()
    assert q.mean().isfinite().all()
    assert oracle.log_prob(rows).isfinite().all(), kind


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_known_or_unknown_cells_have_a_shorter_way(device, dtype, name):
    """To the same classes and the same levels, whatever is known of the continuous columns."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    denoiser = random_classes(book, rng, n_classes=5)
    rows = random_rows(book, 30, rng)
    snr = torch.tensor(rng.choice([0.0, math.inf], size=rows.shape), device=device)
    snr = snr.to(book.known_snr)
    snr[:2] = torch.tensor([[0.0], [math.inf]], device=device)
    y = book.embed(rows).masked_fill(book.per_coord(snr) == 0, 0.0)
    at = snr[:, book.finite]
    evidence = denoiser.evidence(y, snr)
    start = torch.tensor(rng.normal(size=(30, 5)), device=device).to(y)
    short = denoiser._known_or_not(start, evidence, at)
    long = denoiser._noisy(start, evidence, at)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype)}
    torch.testing.assert_close(short[0], long[0], **close)
    levels = [book.levels.log_softmax(logits) for _, logits in (short, long)]
    torch.testing.assert_close(levels[0].exp(), levels[1].exp(), **close)
    unknown = book.levels.per_level(at) == 0
    torch.testing.assert_close(levels[0][unknown], levels[1][unknown], **close)


@pytest.mark.parametrize("name", ["mixed", "all kinds"])
def test_memory_is_bounded_and_changes_nothing(device, dtype, monkeypatch, name):
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    denoiser = random_classes(book, rng)
    y, snr = states_of_every_kind(book, rng)
    rows = random_rows(book, 9, rng, missing=0.3)

    def everything():
        sums = mixture.expected_sums(denoiser, rows)
        return denoiser(y, snr).log_prob(rows).nan_to_num(0.0), denoiser.log_prob(rows), *sums

    before = everything()
    monkeypatch.setattr(mixture, "CACHED", 1)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(everything(), before, **close)


def test_narrow_gaussians_far_from_zero_keep_their_digits(device):
    """In float32, where the squares of a value and a mean differ in the last digits only."""
    torch.set_default_dtype(torch.float32)
    book = Codebook([real(), simplex(2)]).to(device)
    mean, sd = torch.tensor([[1.5], [1.502], [-3.0]]), torch.tensor([[0.002], [0.003], [0.5]])
    weights = torch.tensor([0.3, 0.3, 0.4])
    denoiser = MixtureDenoiser(book, weights, torch.ones(3, 2), mean, sd**2)
    x = torch.tensor([[1.5, 0], [1.503, 1], [1.49, 0], [-3.0, 1], [1.4, 0]], device=device)
    log_pdf = stats.norm.logpdf(x[:, :1].cpu().numpy(), mean[:, 0].numpy(), sd[:, 0].numpy())
    joint = np.log([0.3, 0.3, 0.4]) + log_pdf + math.log(0.5)
    np.testing.assert_allclose(denoiser.log_joint(x).cpu().numpy(), joint, atol=2e-3, rtol=1e-5)


# -- what is refused -------------------------------------------------------------------------------


def test_wrong_classes_are_refused():
    book = make_book("one real", "cpu")
    good = {
        "weights": [1.0, 1.0],
        "probs": np.ones((2, book.levels.n_points + 1)),
        "mean": np.zeros((2, 1)),
        "var": np.ones((2, 1)),
    }
    book = Codebook([*book.columns[:2], simplex(3)])
    MixtureDenoiser(book, *(torch.tensor(v) for v in good.values()))
    for change, message in [
        ({"weights": [1.0, 0.0]}, "weights must be positive"),
        ({"weights": [1.0, math.nan]}, "weights must be positive"),
        ({"weights": [[1.0, 1.0]]}, "weights must be positive"),
        ({"probs": np.ones((2, 4))}, r"of shape \(2, 5\), got \(2, 4\)"),
        ({"probs": np.ones((3, 5))}, r"of shape \(2, 5\), got \(3, 5\)"),
        ({"probs": -np.ones((2, 5))}, "probs must be positive"),
        ({"probs": np.full((2, 5), math.nan)}, "probs must be positive"),
        ({"mean": np.zeros((2, 2))}, r"shape \(2, 1\), got"),
        ({"mean": np.zeros(2)}, r"shape \(2, 1\), got"),
        ({"var": np.ones((1, 1))}, r"shape \(2, 1\), got"),
        ({"var": None}, r"shape \(2, 1\), got"),
        ({"mean": None}, "mean must"),
        ({"mean": None, "var": None}, "mean must"),
        ({"var": np.zeros((2, 1))}, "var must be positive"),
    ]:
        call = {k: None if v is None else torch.tensor(v) for k, v in (good | change).items()}
        with pytest.raises(ValueError, match=message):
            MixtureDenoiser(book, **call)


def test_a_mixture_that_is_moved_or_of_another_type_scores_as_a_new_one(device):
    """What it has made of its parameters is made anew."""
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    model, x = random_mixture(book, rng).double(), random_rows(book, 9, rng)
    model.log_prob(x)
    moved = model.float()
    own = (moved.means, moved.var)
    new = MixtureDenoiser(moved.codebook, moved.log_weights.exp(), moved.log_probs.exp(), *own)
    assert torch.equal(moved.log_prob(x), new.log_prob(x))


# -- mixtures fitted to continuous columns ---------------------------------------------------------


def some_columns(n, rng):
    """Standardised to half a unit, as encoders leave them."""
    normal = rng.normal(size=n)
    two = np.where(rng.random(n) < 0.3, rng.normal(-3, 0.3, n), rng.normal(1, 0.8, n))
    skewed = rng.gamma(2.0, size=n)
    stepped = rng.integers(3, size=n) + 0.1 * rng.normal(size=n)
    columns = np.stack([normal, two, skewed, stepped], 1)
    return 0.5 * (columns - columns.mean(0)) / columns.std(0)


def column_nats(mixture, values):
    """Mean log-density of each column's observed values, (R,), numpy."""
    log_weight, mean, var = (t.cpu().numpy()[None] for t in mixture)
    v = values[:, :, None]
    log_pdf = log_weight - 0.5 * ((v - mean) ** 2 / var + np.log(2 * np.pi * var))
    return np.nanmean(np.logaddexp.reduce(log_pdf, 2), 0)


@pytest.mark.parametrize("n", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_fit_is_not_worse_than_that_of_another_library(n):
    """Held-out nats against sklearn's mixture of as many components, itself from several starts."""
    values = some_columns(2 * n, np.random.default_rng(0))
    train, test = values[:n], values[n:]
    mixture = fit_mixtures(torch.tensor(train))
    k = mixture.shape[2] - 1
    got = column_nats(mixture, test)
    for j in range(values.shape[1]):
        other = GaussianMixture(
            k, n_init=3, random_state=0, max_iter=2000, tol=1e-5, reg_covar=4e-6
        )
        reference = other.fit(train[:, [j]]).score(test[:, [j]])
        assert got[j] > reference - 0.02, j
    assert got.min() > -0.8  # a normal of deviation one half has 0.73 nats


def test_each_round_of_expectation_maximisation_helps(monkeypatch):
    values = some_columns(2000, np.random.default_rng(1))
    nats = []
    for rounds in (1, 3, 10, 60):
        monkeypatch.setattr(marginal, "EM_ROUNDS", rounds)
        nats.append(column_nats(fit_mixtures(torch.tensor(values)), values))
    assert (np.diff(nats, axis=0) > -1e-3).all()
    assert (nats[-1] > nats[0] + 0.005)[1:3].all()  # the others are fitted at once


def test_groups_of_neighbours_are_fitted_as_their_rows(monkeypatch):
    """Within a few thousandths of a nat, whatever the column: bell, modes, tail, steps, ties, scales, gaps."""
    rng, n = np.random.default_rng(2), 6000
    scales = np.where(rng.random(n) < 0.5, 1.0, 1e-3) * rng.normal(size=n)
    counts = rng.poisson(2.0, n).astype(float)
    heavy = rng.standard_t(2, n)
    more = np.stack([scales, counts, heavy, rng.lognormal(size=n)], 1)
    values = np.concatenate([some_columns(n, rng), 0.5 * (more - more.mean(0)) / more.std(0)], 1)
    values[:2000, 1] = np.nan
    groups = fit_mixtures(torch.tensor(values))
    monkeypatch.setattr(marginal, "EM_GROUPS", n)
    rows = fit_mixtures(torch.tensor(values))
    assert not torch.equal(groups, rows)
    gap = column_nats(groups, values[2000:]) - column_nats(rows, values[2000:])
    assert (abs(gap) < 5e-3).all(), gap


def test_order_and_missing_cells_change_nothing():
    rng = np.random.default_rng(0)
    values = some_columns(500, rng)
    whole = fit_mixtures(torch.tensor(values))
    shuffled = fit_mixtures(torch.tensor(values[rng.permutation(500)]))
    torch.testing.assert_close(shuffled, whole, atol=1e-7, rtol=1e-7)
    # 400 rows with a value and some without: as the 400 alone, but for the number of components
    gaps = np.full((500, 4), np.nan)
    gaps[rng.permutation(500)[:400]] = values[:400]
    with_gaps, without = fit_mixtures(torch.tensor(gaps)), fit_mixtures(torch.tensor(values[:400]))
    assert with_gaps.shape == without.shape
    torch.testing.assert_close(with_gaps, without, atol=1e-7, rtol=1e-7)


def test_columns_are_fitted_alone_in_chunks_of_any_size(monkeypatch):
    values = torch.tensor(some_columns(300, np.random.default_rng(0)))
    whole = fit_mixtures(values)
    for j in range(4):
        torch.testing.assert_close(fit_mixtures(values[:, j : j + 1])[:, 0], whole[:, j])
    monkeypatch.setattr(marginal, "LARGE", 1)
    torch.testing.assert_close(fit_mixtures(values), whole)


@pytest.mark.parametrize("n", [0, 1, 2, 15, 40, 700])
def test_hopeless_columns_have_a_finite_density(n):
    """Missing, constant, all but constant, with absurd outliers."""
    rng = np.random.default_rng(0)
    values = np.zeros((n, 5))
    values[:, 0] = np.nan
    values[:, 1] = 0.7
    values[:, 2] = np.where(np.arange(n) == 0, 0.0, np.nan)
    values[:, 3] = np.where(np.arange(n) % 20 == 3, 1e6, 0.1 * rng.normal(size=n))
    values[:, 4] = 1e-9 * rng.normal(size=n)
    mixture = fit_mixtures(torch.tensor(values))
    assert mixture.isfinite().all()
    assert (mixture[2] > 0).all()
    torch.testing.assert_close(mixture[0].exp().sum(1), torch.ones(5).double(), atol=1e-6, rtol=0)
    book = Codebook([real()] * 5)
    rows = torch.tensor(values) if n else torch.zeros(1, 5).double()
    assert MarginalDenoiser.fit(book, torch.tensor(values)).log_prob(rows).isfinite().all()


def test_the_wide_component_weighs_one_row_of_those_observed():
    values = torch.tensor(some_columns(1000, np.random.default_rng(0)))
    values[:600, 1] = math.nan
    log_weight, mean, var = fit_mixtures(values)
    torch.testing.assert_close(log_weight[0, -1].exp().item(), 1 / 1002)
    torch.testing.assert_close(log_weight[1, -1].exp().item(), 1 / 402)
    assert (mean[:, -1] == 0).all()
    assert (var[:, -1] == 4.0).all()


def test_a_long_table_is_thinned(monkeypatch):
    values = torch.tensor(some_columns(3000, np.random.default_rng(0)))
    whole = fit_mixtures(values)
    monkeypatch.setattr(marginal, "EM_ROWS", 1000)
    thin = fit_mixtures(values)
    assert not torch.equal(thin[1], whole[1])
    torch.testing.assert_close(thin[0, :, -1], whole[0, :, -1])  # the wide one counts all rows
    nats = column_nats(thin, values.numpy()), column_nats(whole, values.numpy())
    assert (nats[0] > nats[1] - 0.03).all()


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (torch.zeros(3, 1, 2), "mixture must have shape"),
        (torch.ones(2, 2, 2), "mixture must have shape"),
        (None, "mixture must have shape"),
        (torch.zeros(3, 2, 2), "variances of a mixture must be positive"),
    ],
)
def test_wrong_mixtures_are_refused(mixture, message):
    with pytest.raises(ValueError, match=message):
        MarginalDenoiser(make_book("only reals", "cpu"), torch.ones(0), mixture)
