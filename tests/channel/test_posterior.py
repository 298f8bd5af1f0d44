"""The posterior of a row: categories, mixtures of Gaussians, and the families side by side."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    BOOKS,
    LAW,
    WIDER_BOOKS,
    WITH_REALS,
    Stranger,
    empty_state,
    make_book,
    make_denoiser,
    random_rows,
    random_state,
    rounding,
    seeds,
)
from scipy import stats

from discrete_itd.channel.gaussian import log_between, truncated_quantile
from discrete_itd.channel.posterior import GaussianPosterior

# -- categories ------------------------------------------------------------------------------------


# -- mixtures of Gaussians -------------------------------------------------------------------------


def random_gaussians(rng, n, like, *, n_columns=2, n_components=3):
    shape = (n, n_columns, n_components)
    parts = rng.normal(size=shape), rng.normal(0, 0.7, shape), rng.uniform(0.1, 0.8, shape) ** 2
    return GaussianPosterior(*(torch.tensor(p).to(like) for p in parts))


def random_evidence(rng, n, like, *, max_snr=30.0):
    """Evidence about nobody's values: any y is possible; here and there none at all."""
    snr = rng.uniform(0, max_snr, (n, 2)) * (rng.random((n, 2)) < 0.8)
    y = snr * rng.normal(0, 0.8, (n, 2)) + np.sqrt(snr) * rng.normal(size=(n, 2))
    return torch.tensor(y).to(like), torch.tensor(snr).to(like)


def numpy_density(q, i, j, v):
    """The density of row i's column j at values v, by its definition."""
    w = q.log_weight[i, j].double().exp().cpu().numpy()
    mean, sd = q.means[i, j].double().cpu().numpy(), q.var[i, j].double().sqrt().cpu().numpy()
    return (w * stats.norm.pdf(v[:, None], mean, sd)).sum(1)


@LAW
@given(seeds, st.integers(1, 4))
def test_the_update_of_gaussians_is_bayes_rule_on_a_grid(device, seed, n_components):
    """Prior times exp(y v - γ v²/2), normalised numerically: density and mean."""
    rng, like = np.random.default_rng(seed), torch.zeros(1, device=device)
    q = random_gaussians(rng, 3, like, n_components=n_components)
    y, snr = random_evidence(rng, 3, like)
    after = q.update(y, snr)
    v = np.linspace(-9, 9, 6001)
    for i in range(3):
        for j in range(2):
            gamma, own = float(snr[i, j]), float(y[i, j])
            log_likelihood = own * v - gamma * v**2 / 2
            naive = numpy_density(q, i, j, v) * np.exp(log_likelihood - log_likelihood.max())
            naive = naive / np.trapezoid(naive, v)
            np.testing.assert_allclose(numpy_density(after, i, j, v), naive, atol=2e-3)
            assert float(after.mean()[i, j]) == pytest.approx(np.trapezoid(v * naive, v), abs=1e-4)


def test_shares_of_components_are_bayes_rule(device):
    rng, like = np.random.default_rng(0), torch.zeros(1, device=device)
    q = random_gaussians(rng, 3, like)
    values = torch.tensor(rng.normal(size=(3, 2))).to(like)
    shares = q.shares(values).cpu().numpy()
    for i, j in np.ndindex(3, 2):
        parts = [
            numpy_density(GaussianPosterior(*one, normalised=True), 0, 0, values[i, j, None].cpu())
            for k in range(3)
            for one in [[t[i, j, k].view(1, 1, 1) for t in (q.log_weight, q.means, q.var)]]
        ]
        naive = np.concatenate(parts) / np.sum(parts)
        np.testing.assert_allclose(shares[i, j], naive, rtol=1e-4)


def test_samples_of_gaussians_follow_their_density(device, generator):
    rng, like = np.random.default_rng(0), torch.zeros(1, device=device)
    q = random_gaussians(rng, 1, like)
    parts = (t.expand(20000, -1, -1) for t in (q.log_weight, q.means, q.var))
    values = GaussianPosterior(*parts).sample(generator).double().cpu().numpy()
    for j in range(2):
        w, m = q.log_weight[0, j].double().exp().cpu().numpy(), q.means[0, j].cpu().numpy()
        sd = q.var[0, j].sqrt().cpu().numpy()
        cdf = lambda v, w=w, m=m, sd=sd: (w * stats.norm.cdf(v[:, None], m, sd)).sum(1)  # noqa: E731
        assert stats.kstest(values[:, j], cdf).pvalue > 1e-4
    assert abs(stats.spearmanr(values[:, 0], values[:, 1]).statistic) < 5 / math.sqrt(20000)


@pytest.mark.parametrize("sd", [5e-4, 0.3, 2.0])
def test_a_known_value_makes_certain(device, sd):
    value = torch.tensor([[0.3, -1.7], [0.3004, 1e6]], device=device)
    q = GaussianPosterior(
        torch.zeros(2, 2, 2, device=device),
        torch.tensor([0.3, 0.0], device=device).expand(2, 2, 2),
        torch.tensor([sd**2, 4.0], device=device).expand(2, 2, 2),
    ).update(value, torch.full_like(value, math.inf))
    torch.testing.assert_close(q.mean(), value, rtol=1e-6, atol=1e-6)
    assert (q.var < 1e-9).all()
    assert (q.var > 0).all()
    near = value + 1e-6
    assert q.log_prob(value).isfinite().all()
    assert (q.log_prob(near)[:1] > 8).all()


@pytest.mark.parametrize("snr", [0.0, 1e-6, 1.0, 1e4, 1e8, 1e12, math.inf])
def test_gaussians_keep_their_digits_in_float32(device, snr):
    """Values from ordinary to absurd, components from one to a millionth: against float64."""
    results = []
    value = [0.0, 0.31, -4.0, 1e3, -1e6, 1e9]
    xi = np.random.default_rng(0).normal(size=6)
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(value, device=device).float().to(dtype)
        gamma = torch.full_like(x, snr)
        noise = torch.tensor(xi, device=device).float().to(dtype)
        y = x if math.isinf(snr) else gamma * x + gamma.sqrt() * noise
        y = y.float().to(dtype)
        parts = [0.5, 0.45, 0.05], [0.3, 0.0, 0.0], [2.5e-7, 0.2, 4.0]
        log_weight, mean, var = (torch.tensor(p, device=device).float() for p in parts)
        prior = (log_weight.log(), mean, var)
        prior = GaussianPosterior(*(t.to(dtype).expand(6, 1, 3) for t in prior))
        q = prior.update(y[:, None], gamma[:, None])
        assert all(t.isfinite().all() for t in (q.log_weight, q.means, q.var))
        results.append((q.mean().double()[:, 0], q.log_prob(x[:, None]).double()[:, 0]))
    (mean, log_prob), (true_mean, true_log_prob) = results
    torch.testing.assert_close(mean[:4], true_mean[:4], rtol=1e-4, atol=1e-5)
    # in float32 y, a sum of γ x, does not hold x to better than its seventh digit
    size = torch.tensor(value, device=device).abs()
    resolved = size * 6e-8 < 0.001 / math.sqrt(min(snr, 1e10) + 1)
    close = {"rtol": 1e-4, "atol": 2e-3}
    torch.testing.assert_close(log_prob[resolved], true_log_prob[resolved], **close)


# -- truncated Gaussians ---------------------------------------------------------------------------

# mean, standard deviation, low, high: without bounds, with one, inside, far in a tail, narrow, and all of it
TRUNCATED = [
    (0.2, 0.5, -np.inf, np.inf),
    (0.2, 0.5, -np.inf, 0.1),
    (-0.3, 0.2, -0.1, np.inf),
    (0.0, 1.0, -0.7, 0.4),
    (0.0, 0.05, 1.5, np.inf),
    (0.0, 0.05, 1.5, 1.8),
    (2.0, 0.02, -np.inf, 0.0),
    (0.1, 3.0, 0.299, 0.3),
    (0.0, 0.01, 4.0, 4.001),
]


def truncated(like, *, weights=None, shape=(1, 1, -1)):
    """Components in one column, or as ``shape`` says."""
    mean, sd, low, high = (
        t.view(shape) for t in torch.tensor(TRUNCATED, dtype=like.dtype).T.to(like)
    )
    weights = torch.zeros_like(mean) if weights is None else weights
    return GaussianPosterior(weights, mean, sd**2, low, high)


def on_a_grid(mean, sd, low, high):
    """Points that resolve a truncated Gaussian, and its log-density there, normalised by quadrature."""
    near = min(
        max(mean, low), high
    )  # from there it falls off, as an exponential if that is not the mean
    scale = min(sd, sd**2 / max(abs(near - mean), sd / 50))
    v = np.linspace(max(low, near - 40 * scale), min(high, near + 40 * scale), 40001)
    log_p = -0.5 * ((v - mean) / sd) ** 2
    log_p -= log_p.max()
    return v, log_p - np.log(np.trapezoid(np.exp(log_p), v))


def test_truncated_gaussians_are_what_quadrature_says(device, dtype):
    """Density, mean and distribution function of each component, weighed by nothing else."""
    q = truncated(torch.zeros(1, device=device), shape=(-1, 1, 1))
    mean = q.mean().double().cpu()
    for i, component in enumerate(TRUNCATED):
        v, log_p = on_a_grid(*component)
        at = torch.tensor(v).to(q.means)[:, None]
        one = q.pick(lambda t, i=i, at=at: t[i : i + 1].expand(len(at), -1, -1))
        place, got = at[:, 0].double().cpu().numpy(), one.log_prob(at)[:, 0].double().cpu().numpy()
        inside = np.isfinite(got)
        assert inside.mean() > 0.99
        naive = np.interp(place, v, log_p)
        close = {"atol": rounding(dtype, 200) + 1e-4, "rtol": rounding(dtype, 10) + 1e-5}
        np.testing.assert_allclose(got[inside], naive[inside], **close)
        expected = np.trapezoid(v * np.exp(log_p), v)
        sd = np.sqrt(np.trapezoid((v - expected) ** 2 * np.exp(log_p), v))
        assert float(mean[i, 0]) == pytest.approx(expected, abs=1e-4 * sd, rel=rounding(dtype))
        steps = np.diff(v) * (np.exp(log_p)[1:] + np.exp(log_p)[:-1]) / 2
        cdf = one.cdf(at)[:, 0].double().cpu().numpy()
        naive = np.interp(place, v, np.r_[0, steps.cumsum()])
        np.testing.assert_allclose(cdf, naive, atol=1e-3 + rounding(dtype, 10))
        low, high = component[2:]
        beyond = torch.tensor([[low], [np.nextafter(high, np.inf)]]).to(q.means)
        two = q.pick(lambda t, i=i: t[i : i + 1].expand(2, -1, -1))
        assert bool((two.log_prob(beyond)[np.isfinite([low, high])] == -math.inf).all())


@pytest.mark.parametrize("snr", [1e-3, 1.0, 300.0, math.inf])
def test_the_update_of_truncated_gaussians_is_bayes_rule_on_a_grid(device, dtype, snr):
    """Each component's probability of the evidence, and mean, weights and density afterwards."""
    like = torch.zeros(1, device=device)
    centres = [-0.4, 0.05, 0.2995, 1.6, 4.0005]
    weights = torch.linspace(-2, 1, len(TRUNCATED), device=device).to(like)
    prior = truncated(like, weights=weights[None, None])
    prior = prior.pick(lambda t: t.expand(len(centres), -1, -1))
    gamma = torch.full((len(centres), 1), snr, device=device).to(like)
    y = torch.tensor(centres, device=device).to(like)[:, None] * (1 if math.isinf(snr) else gamma)
    got = prior.log_evidence(y, gamma)[:, 0].double().cpu().numpy()
    after, log_w = prior.update(y, gamma), prior.log_weight[0, 0].double().cpu().numpy()
    w = after.log_weight.exp()[:, 0].double().cpu().numpy()
    for i, c in enumerate(centres):
        naive, means = np.zeros((2, len(TRUNCATED)))
        for k, component in enumerate(TRUNCATED):
            v, log_p = on_a_grid(*component)
            if math.isinf(snr):  # the density there
                inside = component[2] < c <= component[3]
                own = prior.pick(lambda t, i=i, k=k: t[i : i + 1, :, k : k + 1])
                naive[k] = float(own.log_prob(y[i : i + 1])) - float(own.log_weight)
                naive[k], means[k] = (naive[k], c) if inside else (-np.inf, 0.0)
                continue
            raw = lambda v, m=component[0], sd=component[1]: -0.5 * ((v - m) / sd) ** 2  # noqa: E731
            norm, shrink = (log_p - raw(v))[0], 1 + snr * component[1] ** 2
            middle = (component[0] + component[1] ** 2 * snr * c) / shrink
            v, _ = on_a_grid(middle, component[1] / shrink**0.5, *component[2:])
            log_p = raw(v) + norm
            log_joint = log_p - snr * (v - c) ** 2 / 2
            top = log_joint.max()
            mass = np.trapezoid(np.exp(log_joint - top), v)
            naive[k] = top + np.log(mass)
            means[k] = np.trapezoid(v * np.exp(log_joint - top), v) / mass
        close = {"atol": 2e-4 + rounding(dtype, 100), "rtol": 1e-5 + rounding(dtype, 10)}
        np.testing.assert_allclose(got[i], naive, **close)
        post = np.exp(log_w + naive - np.logaddexp.reduce(log_w + naive))
        np.testing.assert_allclose(w[i], post, atol=1e-3)
        assert float(after.mean()[i, 0]) == pytest.approx((post * means).sum(), abs=1e-3)


@LAW
@given(seeds)
def test_updates_of_truncated_gaussians_compose(device, dtype, seed):
    rng, like = np.random.default_rng(seed), torch.zeros(1, device=device)
    q = random_gaussians(rng, 4, like)
    ends = torch.tensor(np.sort(rng.normal(0, 1, (2, 1, 2, 3)), 0)).to(like)
    low, high = ends[0].masked_fill(ends[0] < -1, -math.inf), ends[1] + 0.1
    q = GaussianPosterior(q.log_weight, q.means, q.var, low, high)
    (y, snr), (y_2, snr_2) = (random_evidence(rng, 4, like) for _ in range(2))
    once, twice = q.update(y + y_2, snr + snr_2), q.update(y, snr).update(y_2, snr_2)
    for a, b in ((once.log_weight, twice.log_weight), (once.mean(), twice.mean())):
        torch.testing.assert_close(a, b, atol=rounding(dtype, 100), rtol=rounding(dtype, 100))
    nothing = q.update(torch.zeros_like(y), torch.zeros_like(snr))
    torch.testing.assert_close(nothing.log_weight, q.log_weight)
    torch.testing.assert_close(nothing.mean(), q.mean())
    unbounded = GaussianPosterior(q.log_weight, q.means, q.var)
    wide = GaussianPosterior(q.log_weight, q.means, q.var, high=torch.tensor(math.inf))
    for f in ("log_prob", "shares", "cdf"):
        close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype, 10)}
        torch.testing.assert_close(getattr(wide, f)(y), getattr(unbounded, f)(y), **close)


def test_samples_of_truncated_gaussians_follow_their_density(device, generator):
    one = truncated(torch.zeros(1, device=device), shape=(-1, 1, 1))
    values = one.pick(lambda t: t.permute(1, 0, 2).expand(4000, -1, -1))
    drawn = values.sample(generator)
    assert bool(((drawn > values.bounds[0][:, :, 0]) & (drawn <= values.bounds[1][:, :, 0])).all())
    places = values.cdf(drawn).double().cpu().numpy()
    for j, (_, _, low, high) in enumerate(TRUNCATED):
        if high - low > 0.01:  # in single precision, the others have few values
            assert stats.kstest(places[:, j], "uniform").pvalue > 1e-4
    assert bool(drawn.isfinite().all())


def test_quantiles_of_truncated_gaussians_invert_their_distribution_function():
    mean, sd, low, high = torch.tensor(TRUNCATED, dtype=torch.float64).T[:, None]
    low, high = (low - mean) / sd, (high - mean) / sd
    u = torch.tensor([1e-9, 0.03, 0.5, 0.8, 1 - 1e-6], dtype=torch.float64)[:, None]
    below = log_between(low, truncated_quantile(u, low, high))
    again = (below - log_between(low, high)).exp()
    torch.testing.assert_close(again, u.expand_as(again), rtol=1e-6, atol=1e-11)


def test_a_known_value_that_no_component_reaches_keeps_the_weights(device):
    zero = torch.zeros(1, 1, 2, device=device)
    q = GaussianPosterior(zero, zero, zero + 1, zero - 1, zero + 1)
    far = torch.full((1, 1), 7.0, device=device)
    after = q.update(far, torch.full_like(far, math.inf))
    torch.testing.assert_close(after.log_weight, q.log_weight)
    assert after.mean().item() == pytest.approx(1, abs=1e-3)


def test_joined_posteriors_are_mixtures(device):
    rng, like = np.random.default_rng(0), torch.zeros(1, device=device)
    parts = random_gaussians(rng, 1, like), random_gaussians(rng, 1, like, n_components=2)
    first = GaussianPosterior(parts[0].log_weight, parts[0].means, parts[0].var, high=like)
    log_w = torch.tensor([[[0.3], [0.7]]], device=device).to(like).log()
    x = torch.tensor([[-0.4, 0.6]], device=device).to(like)
    for q in (parts, (first, parts[1])):
        naive = 0.3 * q[0].log_prob(x).exp() + 0.7 * q[1].log_prob(x).exp()
        torch.testing.assert_close(GaussianPosterior.joined(q, log_w).log_prob(x).exp(), naive)


# -- families side by side -------------------------------------------------------------------------

ALL_BOOKS = sorted(BOOKS | WIDER_BOOKS)


def stranger_case(name, device, n=6, *, missing=0.0):
    book = make_book(name, device)
    rng = np.random.default_rng(3)
    _, y, snr = random_state(book, rng, n)
    return book, Stranger(book, 1)(y, snr), random_rows(book, n, rng, missing=missing)


@pytest.mark.parametrize("name", ALL_BOOKS)
def test_each_family_speaks_for_its_columns(device, name):
    book, q, rows = stranger_case(name, device)
    whole, mean = q.log_prob(rows), q.mean()
    assert whole.shape == rows.shape
    assert mean.shape == (6, book.n_coords)
    own = q.categorical.log_prob(rows[:, book.finite].long())
    assert torch.equal(whole[:, book.finite], own)
    assert torch.equal(mean[:, : book.levels.n_coords], q.categorical.mean())
    if q.gaussian is not None:
        values = rows[:, book.reals].to(mean)
        assert torch.equal(whole[:, book.reals], q.gaussian.log_prob(values))
        assert torch.equal(mean[:, book.real_coords], q.gaussian.mean())


@pytest.mark.parametrize("name", ALL_BOOKS)
def test_missing_cells_say_nothing_and_disturb_no_other(device, dtype, name):
    _, q, rows = stranger_case(name, device)
    missing = torch.tensor(np.random.default_rng(0).random(rows.shape) < 0.5, device=device)
    got = q.log_prob(rows.masked_fill(missing, math.nan))
    assert not got[missing].any()
    torch.testing.assert_close(
        got[~missing], q.log_prob(rows)[~missing], rtol=rounding(dtype), atol=0
    )


@pytest.mark.parametrize("name", ALL_BOOKS)
def test_rows_and_copies_of_a_posterior(device, name):
    """Slices, repetitions of one row, and what an update makes of both."""
    book, q, rows = stranger_case(name, device)
    _, y, snr = random_state(book, np.random.default_rng(1), 6)
    one = q.rows(slice(2, 3))
    for part, whole, where in (
        (q.rows(slice(1, 4)), q, slice(1, 4)),
        (q.rows(torch.tensor([3, 0, 3], device=device)), q, [3, 0, 3]),
        (one.expand(6), q, [2] * 6),
        (one.expand(6).update(y, snr), None, None),
    ):
        cells = rows if where is None else rows[where]
        if whole is None:
            each = [one.update(y[i : i + 1], snr[i : i + 1]) for i in range(6)]
            log_prob = torch.cat([e.log_prob(rows[i : i + 1]) for i, e in enumerate(each)])
            mean = torch.cat([e.mean() for e in each])
        else:
            log_prob = whole.log_prob(rows[2:3].expand(6, -1) if where == [2] * 6 else rows)
            log_prob = log_prob[where]
            mean = whole.mean()[where]
        torch.testing.assert_close(part.log_prob(cells), log_prob)
        torch.testing.assert_close(part.mean(), mean)


@pytest.mark.parametrize("name", ALL_BOOKS)
def test_updates_of_all_families_compose_and_believe_known_cells(device, dtype, name):
    book, q, _ = stranger_case(name, device)
    rng = np.random.default_rng(5)
    rows, y, snr = random_state(book, rng, 6, known=False)
    _, y_2, snr_2 = random_state(book, rng, 6, known=False)
    once, twice = q.update(y + y_2, snr + snr_2), q.update(y, snr).update(y_2, snr_2)
    loose = rounding(dtype, 10)
    torch.testing.assert_close(once.log_prob(rows), twice.log_prob(rows), atol=loose, rtol=loose)
    torch.testing.assert_close(once.mean(), twice.mean(), atol=loose, rtol=loose)
    x = book.embed(rows)
    known = twice.update(x, torch.full_like(snr, math.inf))
    torch.testing.assert_close(known.mean(), x, atol=1e-6, rtol=1e-6)
    log_prob = known.log_prob(rows)
    log_prob[:, book.reals] = log_prob[:, book.reals].clamp_max(
        0
    )  # a density, of which more is better
    assert log_prob.abs().max() == 0


@pytest.mark.parametrize("name", ALL_BOOKS)
def test_columns_are_their_cells(device, dtype, name):
    book, q, rows = stranger_case(name, device)
    for j, points in enumerate(book.columns):
        if points.kind == "real":
            with pytest.raises(ValueError, match=f"column {j} has no categories"):
                q.column(j)
            continue
        log_probs = q.column(j)
        assert log_probs.shape == (6, points.n_points)
        total = log_probs.exp().sum(1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=rounding(dtype), rtol=0)
        for k in range(points.n_points):
            cells = rows.clone()
            cells[:, j] = k
            torch.testing.assert_close(log_probs[:, k], q.log_prob(cells)[:, j])


@pytest.mark.parametrize("name", ALL_BOOKS)
def test_posteriors_of_no_rows(device, generator, name):
    book = make_book(name, device)
    for kind in ("stranger", "network"):
        q = make_denoiser(kind, book)(*empty_state(book, 0))
        none = torch.zeros(0, book.n_columns, dtype=torch.float64, device=device)
        assert q.log_prob(none).shape == (0, book.n_columns)
        assert q.mean().shape == (0, book.n_coords)
        assert q.update(*empty_state(book, 0)).log_prob(none).shape == none.shape
        assert q.sample(generator).shape == none.shape
        assert q.expand(0).log_prob(none).shape == none.shape
        for j, points in enumerate(book.columns):
            if points.kind != "real":
                assert q.column(j).shape == (0, points.n_points)


@pytest.mark.parametrize("name", WITH_REALS)
def test_gradients_pass_around_missing_cells(device, name):
    book, _, rows = stranger_case(name, device, missing=0.4)
    denoiser = Stranger(book, 1)
    denoiser.d.requires_grad_(True)
    q = denoiser(*random_state(book, np.random.default_rng(0), 6)[1:])
    q.log_prob(rows).sum().backward()
    assert denoiser.d.grad.isfinite().all()
    assert denoiser.d.grad.any()
