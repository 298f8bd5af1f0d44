"""Mixtures with dependent numbers: closed forms against dense Gaussians and grids, and the expected sums of a fit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    FEW_EXAMPLES,
    all_rows,
    line,
    make_book,
    random_correlated,
    random_rows,
    real,
    rounding,
    seeds,
    simplex,
)
from scipy import stats

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MixtureDenoiser
from discrete_itd.denoisers.base import held_out_nats
from discrete_itd.denoisers.mixture import (
    expected_sums,
    part,
    refine,
    updated,
)

with_numbers = st.permutations([real(), real(), simplex(2), real(), line(-0.5, 0.5, 0.9)]).map(
    lambda columns: [c for c in columns[:4] if c.kind != "real"] + [real(), real()]
)


def numpy_parts(model):
    """Weights (Z,), means (Z, R) and covariances (Z, R, R)."""
    weights, mean, chol = (
        t.double().cpu().numpy() for t in (model.log_weights.exp(), model.means, model.chol)
    )
    return weights, mean, chol @ chol.transpose(0, 2, 1)


def naive_log_joint(model, row):
    """Of one row with each class: numpy (Z,)."""
    book, (weights, mean, covariance) = model.codebook, numpy_parts(model)
    probs, total = model.log_probs.double().cpu().numpy(), np.log(weights)
    codes = row[None, book.finite].nan_to_num(0.0).long()
    for i, level in enumerate(book.levels.index_of(codes)[0].tolist()):
        if not row[book.finite[i]].isnan():
            total = total + probs[:, level]
    cells = row[book.reals].cpu().numpy()
    there = ~np.isnan(cells)
    for z in range(len(total)):
        if there.any():
            own = covariance[z][np.ix_(there, there)]
            total[z] += stats.multivariate_normal.logpdf(cells[there], mean[z][there], own)
    return total


@FEW_EXAMPLES
@given(with_numbers, seeds)
def test_log_prob_is_a_sum_over_classes_of_dense_gaussians(device, dtype, columns, seed):
    book, rng = Codebook(columns).to(device), np.random.default_rng(seed)
    model = random_correlated(book, rng)
    rows = random_rows(book, 6, rng, missing=0.3)
    expected = [np.logaddexp.reduce(naive_log_joint(model, row)) for row in rows]
    got = model.log_prob(rows).double().cpu().numpy()
    np.testing.assert_allclose(got, expected, atol=rounding(dtype), rtol=rounding(dtype))


GRID = np.arange(-4, 4, 0.05)


@FEW_EXAMPLES
@given(seeds)
def test_the_posterior_under_noise_is_a_sum_over_a_grid(device, seed):
    """Of two numbers and a category, one number noisy, the other noisy, unknown or known to a point of the grid."""
    book, rng = Codebook([simplex(2), real(), real()]).to(device), np.random.default_rng(seed)
    model = random_correlated(book, rng, n_classes=2)
    rows = all_rows(book, GRID)
    log_p = model.log_prob(rows).double()
    assert log_p.exp().sum().item() * 0.05**2 == pytest.approx(1, abs=1e-4)
    for kind in ("noisy", "unknown", "known"):
        snr = torch.tensor([[1.3, 2.0, 0.0]], device=device).to(book.known_snr)
        truth = rows[rng.integers(len(rows))][None]
        snr[:, 2] = {"noisy": 4.0, "unknown": 0.0, "known": math.inf}[kind]
        y = book.per_coord(snr) * book.embed(truth)
        y += book.per_coord(snr).sqrt() * torch.tensor(rng.normal(size=y.shape)).to(y)
        y = torch.where(torch.isinf(book.per_coord(snr)), book.embed(truth), y)
        points, at = book.embed(rows).double(), book.per_coord(snr).double()
        noisy = ~torch.isinf(at[0])
        ell = (y.double() * points - at * points.square() / 2)[:, noisy].sum(1)
        fits = (rows[:, 2] == truth[0, 2]) | (snr[0, 2] != math.inf)
        p = torch.softmax(torch.where(fits, log_p + ell, -math.inf), 0)
        q = model(y, snr)
        expected = (p[:, None] * points).sum(0)
        torch.testing.assert_close(q.mean()[0].double(), expected, atol=2e-4, rtol=0)
        second = (p * rows[:, 1].square()).sum()
        g = q.gaussian
        got = (g.log_weight.exp() * (g.var + g.means.square())).sum(2)[0, 0].double()
        torch.testing.assert_close(got, second, atol=2e-4, rtol=0)


# -- fits ------------------------------------------------------------------------------------------


@FEW_EXAMPLES
@given(seeds)
def test_updates_are_those_of_expected_values_of_missing_cells(device, seed):
    """A class has the moments of the rows, missing cells completed by their conditional Gaussian, and of its prior."""
    book, rng = make_book("reals and levels", device), np.random.default_rng(seed)
    model = random_correlated(book, rng)
    rows = random_rows(book, 12, rng, missing=0.4)
    new = updated(model, expected_sums(model, rows), 2.0, 1)
    joint = np.stack([naive_log_joint(model, row) for row in rows])
    shares = np.exp(joint - np.logaddexp.reduce(joint, 1)[:, None])
    _, mean, covariance = numpy_parts(model)
    _, got_mean, got_covariance = numpy_parts(new)
    for z in range(2):
        prior = 2 + max(0.0, 5 - shares[:, z].sum())  # rows
        n, first, second = shares[:, z].sum() + prior, prior * mean[z], 0.0
        filled = []
        for row, share in zip(rows[:, book.reals].cpu().numpy(), shares[:, z], strict=True):
            gaps, own = np.isnan(row), covariance[z]
            slopes = own[np.ix_(gaps, ~gaps)] @ np.linalg.inv(own[np.ix_(~gaps, ~gaps)])
            row = row.copy()
            row[gaps] = mean[z][gaps] + slopes @ (row[~gaps] - mean[z][~gaps])
            rest = np.zeros_like(own)
            rest[np.ix_(gaps, gaps)] = own[np.ix_(gaps, gaps)] - slopes @ own[np.ix_(~gaps, gaps)]
            filled.append((share, row, rest))
            first = first + share * row
        centre = first / n
        for share, row, rest in filled:
            second = second + share * (np.outer(row - centre, row - centre) + rest)
        away = mean[z] - centre
        second = second + prior * (covariance[z] + np.outer(away, away))
        np.testing.assert_allclose(got_mean[z], centre, atol=1e-4)
        np.testing.assert_allclose(got_covariance[z], second / n, atol=1e-4)
    np.testing.assert_allclose(got_covariance[2], covariance[2], atol=1e-5)
    np.testing.assert_allclose(part(new, torch.tensor([True, False, True])).chol, new.chol[::2])


def test_a_refined_class_follows_a_line(device):
    """Of numbers of which one follows from the other, with gaps, one class says nearly all."""
    book, rng = Codebook([real(), real(), simplex(2)]).to(device), np.random.default_rng(0)
    a = rng.normal(0, 0.5, 600)
    rows = np.stack([a, -0.8 * a + rng.normal(0, 0.01, 600), rng.integers(2, size=600)], 1)
    rows[rng.random(rows.shape) < 0.1] = math.nan
    x, x_valid = torch.tensor(rows[:400], device=device), torch.tensor(rows[400:], device=device)
    like = book.known_snr
    parts = like.new_ones(1), like.new_ones(1, 2), like.new_zeros(1, 2)
    start = MixtureDenoiser(book, *parts, chol=torch.eye(2)[None] / 2)
    better = refine(start, x, x_valid)
    assert held_out_nats(better, x_valid) < held_out_nats(start, x_valid) - 1.5
    slope = better.chol[0, 1, 0] / better.chol[0, 0, 0]
    assert slope.item() == pytest.approx(-0.8, abs=0.02)


def test_absurd_numbers_leave_a_mixture(device):
    book = Codebook([real(), real()]).to(device)
    model = random_correlated(book, np.random.default_rng(0))
    x = torch.tensor([[1e9, -1e9], [0.0, 0.1], [math.nan, 1e9]], device=device).double()
    new = updated(model, expected_sums(model, x), 1.0, 0)
    assert new.log_prob(x).isfinite().all()
    assert (
        new(*(t.repeat(3, 1) for t in (book.embed(x[:1]), torch.full((1, 2), math.inf))))
        .mean()
        .isfinite()
        .all()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda chol: chol[:, :1], "chol must be finite numbers of shape"),
        (lambda chol: -chol, "the diagonal of chol must be positive"),
        (lambda chol: chol * math.nan, "chol must be finite"),
    ],
)
def test_wrong_factors_are_refused(change, message):
    book = Codebook([real(), real()])
    parts = torch.ones(1), torch.ones(1, 0), torch.zeros(1, 2)
    with pytest.raises(ValueError, match=message):
        MixtureDenoiser(book, *parts, chol=change(torch.eye(2)[None]))


def test_columns_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="with R > 0 continuous columns"):
        MixtureDenoiser(
            Codebook([simplex(2)]), torch.ones(1), torch.ones(1, 2), chol=torch.ones(1, 0, 0)
        )
    book, rng = Codebook([real(), simplex(5), real()]), np.random.default_rng(0)
    rows = random_rows(book, 5, rng)
    model = random_correlated(book, rng)
    torch.testing.assert_close(model.log_factors(rows).sum(1), model.log_prob(rows).double())


def test_completions_have_the_conditional_moments(device):
    """Numbers that are missing together are drawn together; a row's draws do not depend on the rows beside it."""
    book, rng = Codebook([real(), simplex(2), real(), real()]).to(device), np.random.default_rng(3)
    model = random_correlated(book, rng, n_classes=2)
    x = random_rows(book, 3, rng)
    x[0, [0, 3]] = x[1, [0, 1, 2]] = x[2] = math.nan
    drawn = model.complete(x, 6000, 1)
    assert torch.equal(drawn[1:2], model.complete(x[1:2], 6000, 1))
    assert torch.equal(drawn[:, 0][~x.isnan()], x[~x.isnan()])
    _, mean, covariance = numpy_parts(model)
    for row, cells in zip(x, drawn[:, :, book.reals].cpu().numpy(), strict=True):
        shares = np.exp(naive_log_joint(model, row))
        known = row[book.reals].cpu().numpy()
        there = ~np.isnan(known)
        means, seconds = [], []
        for m, own in zip(mean, covariance, strict=True):
            slopes = own[:, there] @ np.linalg.inv(own[np.ix_(there, there)])
            means.append(m + slopes @ (known - m)[there])
            seconds.append(own - slopes @ own[there] + np.outer(means[-1], means[-1]))
        shares = shares / shares.sum()
        whole = np.einsum("z,zi->i", shares, means)
        second = np.einsum("z,zij->ij", shares, seconds)
        np.testing.assert_allclose(cells.mean(0), whole, atol=0.03)
        got = cells.T @ cells / len(cells)
        np.testing.assert_allclose(got, second, atol=0.03)
