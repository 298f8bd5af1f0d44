"""Decoder mixtures: the network's product against a loop, the refinement against sums, and what a fit leaves."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    FEW_EXAMPLES,
    all_rows,
    line,
    make_book,
    mixture_draws,
    random_marginals,
    random_mixture,
    random_rows,
    real,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    wide_tables,
)
from scipy import stats

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser, MixtureDenoiser
from discrete_itd.denoisers import mixture as classes
from discrete_itd.denoisers.base import held_out_nats
from discrete_itd.denoisers.marginal import WIDE_SD
from discrete_itd.denoisers.mixture import (
    LEAST_ROUND_GAIN,
    expected_sums,
    part,
    refine,
    updated,
    weighty,
)
from discrete_itd.models import decoder_mixture as fits
from discrete_itd.models.decoder_mixture import (
    N_WAVES,
    Columns,
    Layout,
    Mixture,
    MixtureFit,
    latent_points,
    log_prob,
    normal,
    shifted,
)
from discrete_itd.models.fitting import FitPlan
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.progress import Deadline
from discrete_itd.training import TrainingPlan
from discrete_itd.training.loop import TRIAL_STEPS, Run

QUICK = Mixture(n_latent=2, n_points=64, n_components=64, max_steps=40)
MANY = N_WAVES + 3


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(fits, "WIDTH", 16)


def fit_of(marginals, x, x_valid, generator, recipe=QUICK, **how):
    plan = FitPlan(TrainingPlan(), 0, **how)
    return MixtureFit(recipe, TrainingRows(marginals, x, x_valid, generator), plan)


def fit_mixture(*args, recipe=QUICK, **how):
    """A mixture, and the report of its training."""
    fit = fit_of(*args, recipe, **how)
    return fit.run(), fit.report


def fitted(book, rng, recipe=QUICK, *, n=200, missing=0.0, seed=0):
    """A fit to rows of a random mixture, with the rows and held-out rows."""
    x, x_valid = (random_rows(book, n, rng, missing=missing) for _ in range(2))
    oracle = random_mixture(book, rng)
    for rows in (x, x_valid):
        drawn = mixture_draws(oracle, n, rng)
        rows[:] = torch.where(rows.isnan(), rows, drawn)
        for j, c in enumerate(book.columns):  # training rows have no unseen category
            rows[:, j] = rows[:, j].masked_fill(c.open & (rows[:, j] == c.n_levels), 0.0)
    marginals = MarginalDenoiser.fit(book, x)
    generator = seeded_generator(seed, book.device)
    model, _ = fit_mixture(marginals, x, x_valid, generator, recipe=recipe)
    return model, marginals, x, x_valid


# -- the product ---------------------------------------------------------------------------------------


def random_columns(layout, book, rng, n):
    like = book.known_snr
    shape = (n, len(book.reals))
    parts = (
        rng.normal(size=(n, layout.n_values)),
        rng.normal(size=shape),
        rng.uniform(0.1, 1, shape),
    )
    columns = Columns(*(torch.tensor(part).to(like) for part in parts))
    (i, j), slopes = layout.pairs, like.new_zeros(*shape, shape[1])
    slopes[:, i, j] = torch.tensor(rng.normal(0, 0.5, (n, len(i)))).to(like)
    return columns._replace(slopes=slopes) if len(i) else columns


def mixture_of(layout, columns):
    """Classes of equal weights, of dense matrices."""
    probs = layout.log_probs(columns.values).exp()
    ones, sd = probs.new_ones(len(probs)), columns.var.sqrt()
    if columns.slopes is None:
        reals = (columns.mean, columns.var) if sd.shape[1] else (None, None)
        return MixtureDenoiser(layout.book, ones, probs, *reals)
    unit = torch.eye(sd.shape[1]).to(sd)
    chol = (
        torch.linalg.inv(unit - columns.slopes) * sd[:, None]
    )  # of x = mean + slopes (x - mean) + sd e
    return MixtureDenoiser(layout.book, ones, probs, columns.mean, chol=chol)


def without_gaps_in_numbers(book, rows, rng):
    """Where numbers may depend on one another, none is missing in training."""
    if len(book.reals) > 1:
        rows[:, book.reals] = random_rows(book, len(rows), rng)[:, book.reals]
    return rows


def everywhere(book):
    """Any column may have gaps, and no value is far."""
    wide = torch.full((len(book.reals),), 100.0, device=book.device).double()
    return torch.ones(book.n_columns, dtype=torch.bool, device=book.device), -wide, wide


@FEW_EXAMPLES
@given(wide_tables, seeds)
def test_rows_and_points_multiply_to_log_probabilities(device, dtype, columns, seed):
    book = Codebook([*columns, line(*np.linspace(-1, 1, MANY), is_open=seed % 2 == 0)]).to(device)
    rng = np.random.default_rng(seed)
    marginals = random_marginals(book, rng)
    layout = Layout(marginals, *everywhere(book))
    points = random_columns(layout, book, rng, 5)
    rows = without_gaps_in_numbers(book, random_rows(book, 7, rng, missing=0.3), rng)
    got = log_prob(layout.of_rows(rows), layout.of_points(points))
    slow = mixture_of(layout, points)
    close = {"atol": rounding(dtype, 100), "rtol": rounding(dtype, 100)}
    torch.testing.assert_close(got, slow.log_prob(rows), **close)


@FEW_EXAMPLES
@given(wide_tables, seeds)
def test_levels_add_up_and_unseen_ones_keep_their_probability(device, dtype, columns, seed):
    book = Codebook([*columns, line(*np.linspace(-1, 1, MANY), is_open=True)]).to(device)
    rng = np.random.default_rng(seed)
    marginals = random_marginals(book, rng)
    layout = Layout(marginals, *everywhere(book))
    log_probs = layout.log_probs(random_columns(layout, book, rng, 4).values)
    ones = torch.ones(4, book.levels.n_columns, device=device).to(log_probs)
    torch.testing.assert_close(book.levels.sum(log_probs.exp()), ones)
    unseen = book.levels.level_unseen
    assert (log_probs[:, unseen] == marginals.log_probs[unseen]).all()
    zeros = layout.log_probs(log_probs.new_zeros(1, layout.n_values))[0]
    torch.testing.assert_close(zeros, marginals.log_probs, atol=rounding(dtype), rtol=0)


@pytest.mark.parametrize("together", [1, 16])
def test_smooth_functions_are_cosines_of_the_share_of_rows_below(
    device, dtype, together, monkeypatch
):
    monkeypatch.setattr("discrete_itd.models.decoder_mixture.TOGETHER", together)
    values = np.linspace(-1, 1, MANY)
    book = Codebook([simplex(3), line(*values, is_open=True), line(*values)]).to(device)
    marginals = random_marginals(book, np.random.default_rng(0))
    layout, levels = Layout(marginals, *everywhere(book)), book.levels
    assert layout.n_values == 2 + 2 * N_WAVES
    for j in (1, 2):
        codes = torch.zeros(MANY, 3, dtype=torch.int64, device=device)
        codes[:, j] = torch.arange(MANY)
        where = levels.index_of(codes)[:, j]
        probs = marginals.log_probs[where].double().exp().cpu().numpy()
        probs = probs / probs.sum()
        place = [probs[:k].sum() + probs[k] / 2 for k in range(MANY)]
        for i in range(N_WAVES):
            got = torch.block_diag(*layout.bases)[(j - 1) * N_WAVES + i]
            got = got[torch.isin(layout.wave, where)].cpu().numpy()
            order = layout.wave[torch.isin(layout.wave, where)].cpu().numpy()
            want = {
                w.item(): math.cos(math.pi * (i + 1) * f) for w, f in zip(where, place, strict=True)
            }
            np.testing.assert_allclose(got, [want[w] for w in order], atol=rounding(dtype, 10))


def test_smooth_functions_of_many_columns_grow_with_their_number(device, monkeypatch):
    """And what is made with them is what one matrix gives."""
    monkeypatch.setattr("discrete_itd.models.decoder_mixture.TOGETHER", 2)
    lines = [line(*np.linspace(-1, 1, MANY + j % 3), is_open=j % 2 == 0) for j in range(9)]
    book = Codebook([*lines[:4], simplex(3), *lines[4:]]).to(device)
    rng = np.random.default_rng(0)
    layout = Layout(random_marginals(book, rng), *everywhere(book))
    assert sum(basis.numel() for basis in layout.bases) <= 2 * N_WAVES * len(layout.wave)
    columns, rows = random_columns(layout, book, rng, 5), random_rows(book, 7, rng)
    found = layout.logits(columns.values), layout.of_rows(rows)[0]
    layout.bases = [torch.block_diag(*layout.bases)]
    whole = layout.logits(columns.values), layout.of_rows(rows)[0]
    torch.testing.assert_close(found, whole)


def test_columns_without_gaps_share_a_constant(device):
    book = make_book("all kinds", device)
    rng = np.random.default_rng(0)
    marginals, wide = random_marginals(book, rng), everywhere(book)[1:]
    rows = random_rows(book, 9, rng)
    rows[:, [0, 2]] = 0  # seen
    rows[::2, 4] = math.nan
    gaps = torch.arange(book.n_columns, device=device) == 4
    results = []
    for where in (gaps, torch.ones_like(gaps)):
        layout = Layout(marginals, where, *wide)
        points = layout.of_points(random_columns(layout, book, np.random.default_rng(1), 5))
        results.append((points.shape[1], log_prob(layout.of_rows(rows), points)))
    assert results[1][0] - results[0][0] == 4
    torch.testing.assert_close(results[0][1], results[1][1])


def test_far_cells_are_clamped(device):
    book = Codebook([real(), real()]).to(device)
    near = torch.ones(2, device=device).double()
    layout = Layout(random_marginals(book, np.random.default_rng(0)), near > 1, -near, near)
    a, b = (layout.of_rows(torch.tensor([[v, 0.5]], device=device).double())[0] for v in (1.0, 1e9))
    assert torch.equal(a, b)


def test_latent_points_are_even_and_stay_so(generator):
    points = latent_points(512, 3, generator)
    moved = shifted(points, generator)
    assert not torch.equal(points, moved)
    for u in (points, moved):
        assert stats.kstest(u.cpu().numpy()[:, 1], "uniform").statistic < 0.01
        z = normal(u, u)
        torch.testing.assert_close(z.cpu(), torch.tensor(stats.norm.ppf(u.cpu().numpy())))


# -- refinement ------------------------------------------------------------------------------------


def test_a_round_is_the_sum_over_rows(device):
    """One class after another, one row after another; a class keeps five rows, its former ones among them."""
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    model = random_mixture(book, rng, n_classes=4)
    x = random_rows(book, 12, rng, missing=0.3)
    new = updated(model, expected_sums(model, x), 2.0, 1)
    r = torch.softmax(model.log_joint(x), 1).double().cpu().numpy()
    weights = r.sum(0) + 1 / 4
    close = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(
        new.log_weights.exp().cpu().numpy(), weights / weights.sum(), **close
    )
    rows, levels = x.cpu().numpy(), book.levels
    for z in range(4):
        for i, j in enumerate(book.finite.tolist()):
            codes = torch.zeros(book.columns[j].n_points, levels.n_columns, dtype=torch.int64)
            codes[:, i] = torch.arange(len(codes))
            where = levels.index_of(codes.to(device))[:, i]
            prior = model.log_probs[z, where].exp().double().cpu().numpy()
            there = ~np.isnan(rows[:, j])
            count = (2 + max(0, 5 - r[there, z].sum())) * prior
            np.add.at(count, rows[there, j].astype(int), r[there, z])
            if book.columns[j].open:  # the unseen keep what they had
                count[:-1] *= (1 - prior[-1]) / count[:-1].sum()
                count[-1] = prior[-1]
            want = count / count.sum() if z < 3 else prior
            got = new.log_probs[z, where].exp().cpu().numpy()
            np.testing.assert_allclose(got, want, **close)
        for i, j in enumerate(book.reals.tolist()):
            old, var = model.means[z, i].item(), model.var[z, i].item()
            there = ~np.isnan(rows[:, j])
            share, cells = r[there, z], rows[there, j]
            own = 2 + max(0, 5 - share.sum())
            n = share.sum() + own
            mean = ((share * cells).sum() + own * old) / n
            spread = (share * (cells - mean) ** 2).sum() + own * (var + (old - mean) ** 2)
            want = (mean, spread / n) if z < 3 else (old, var)
            got = new.means[z, i].item(), new.var[z, i].item()
            np.testing.assert_allclose(got, want, **close)


@FEW_EXAMPLES
@given(seeds)
def test_refinement_is_never_worse_on_held_out_rows(device, seed):
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(seed)
    truth, model = (random_mixture(book, rng, n_classes=n) for n in (3, 20))
    x, x_valid = (mixture_draws(truth, 150, rng) for _ in range(2))
    better = refine(model, x, x_valid)
    assert held_out_nats(better, x_valid) < held_out_nats(model, x_valid)
    # rows of another table: the result is as it was, or better
    x_valid = random_rows(book, 50, rng)
    assert held_out_nats(refine(model, x[:3], x_valid), x_valid) <= held_out_nats(model, x_valid)


def test_rounds_choose_the_prior_rows_once_and_go_on_from_the_best(device, monkeypatch):
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    truth, model = (random_mixture(book, rng, n_classes=n) for n in (3, 20))
    x, x_valid = (mixture_draws(truth, 150, rng) for _ in range(2))
    rounds, tried = [], []

    def sums(of, rows):
        rounds.append(of)
        return expected_sums(of, rows)

    def made(prior, of, prior_rows, n_fixed):
        # the classes that are left, as they were before the first round
        assert prior.n_components == rounds[-1].n_components
        assert bool(torch.isin(prior.means, model.means).all())
        tried.append(prior_rows)
        return updated(prior, of, prior_rows, n_fixed)

    monkeypatch.setattr(classes, "expected_sums", sums)
    monkeypatch.setattr(classes, "updated", made)
    refine(model, x, x_valid)
    n = len(classes.CLASS_PRIORS)
    assert len(rounds) > 3
    assert len(tried) == n + len(rounds) - 1
    assert len(set(tried[n:])) == 1
    nats = [held_out_nats(m, x_valid) for m in rounds]
    # but for the classes that are left out
    assert all(a - b >= LEAST_ROUND_GAIN / 2 for a, b in itertools.pairwise(nats))


def test_refinement_without_time_does_nothing(device):
    book = make_book("mixed", device)
    rng = np.random.default_rng(0)
    model, x = random_mixture(book, rng), random_rows(book, 30, rng)
    clock = itertools.count().__next__
    assert refine(model, x, x, left=lambda: 5.0, clock=clock) is model
    assert refine(model, x, x, left=lambda: 7.0, clock=clock) is not model


def test_negligible_classes_are_left_out(device):
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    full = random_mixture(book, rng, n_classes=4)
    weights = full.log_weights.exp() * torch.tensor([1, 1e-6, 1, 1], device=device).to(full.means)
    model = MixtureDenoiser(book, weights, full.log_probs.exp(), full.means, full.var)
    assert weighty(model, 2).tolist() == [True, False, True, True]
    assert bool(weighty(model, 3).all())
    few, x = part(model, weighty(model, 0)), random_rows(book, 20, rng)
    assert few.n_components == 3
    torch.testing.assert_close(few.log_prob(x), model.log_prob(x), atol=1e-2, rtol=0)
    assert bool(weighty(full, 0).all())


# -- a fit -----------------------------------------------------------------------------------------


@FEW_EXAMPLES
@given(wide_tables, seeds)
def test_a_fit_is_never_worse_than_the_marginals(device, dtype, columns, seed):
    """Of columns that are independent, with gaps, a few rows of every kind of column."""
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    x, x_valid = (random_rows(book, n, rng, missing=0.3) for n in (8, 9))
    marginals = MarginalDenoiser.fit(book, x)
    recipe = Mixture(max_steps=6)
    model, _ = fit_mixture(marginals, x, x_valid, seeded_generator(0, device), recipe=recipe)
    worst = -marginals.log_prob(x_valid).double().mean().item()
    assert held_out_nats(model, x_valid) <= worst + rounding(dtype, 10)
    assert model.log_prob(x).isfinite().all()


def test_hopeless_rows_can_be_fitted(device):
    """One row, a column without cells, constants, absurd outliers."""
    book = Codebook([real(), simplex(2, is_open=True), real(), simplex(3), line(-0.5, 0.5)]).to(
        device
    )
    x = torch.tensor([[1e6, 0, math.nan, 1, 0], [0, 0, math.nan, 2, math.nan]], device=device)
    for rows in (x[:1], x, x.repeat(20, 1)):
        marginals = MarginalDenoiser.fit(book, rows.double())
        fit, _ = fit_mixture(marginals, rows.double(), x.double(), seeded_generator(0, device))
        assert fit.log_prob(x.double()).isfinite().all()


def test_rows_are_scored_in_training_as_at_the_end(device, dtype):
    """With gaps and unseen categories in either part of the rows."""
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    x, x_valid = (random_rows(book, 40, rng) for _ in range(2))
    x[:, 1] = x[:, 1].clamp(max=1)
    x_valid[:, 3] = x_valid[:, 3].masked_fill(x_valid[:, 3] == 1, math.nan)
    x[::2, 0] = math.nan
    marginals = MarginalDenoiser.fit(book, x)
    generator = seeded_generator(0, device)
    fit = fit_of(marginals, x, x_valid, generator)
    network = fit.network
    columns = network.columns(normal(network.points, network.layout.base))
    slow = mixture_of(network.layout, columns)
    torch.testing.assert_close(fit.made(columns).chol[:-1], slow.chol)
    for rows, completed in ((fit.x, x), (fit.judged, x_valid)):
        assert torch.equal(rows[~completed.isnan()], completed[~completed.isnan()])
        assert not rows[:, book.reals].isnan().any()
        got = network.log_prob(rows, *network.constants(rows))
        close = {"atol": rounding(dtype, 100), "rtol": rounding(dtype, 100)}
        torch.testing.assert_close(got, slow.log_prob(rows), **close)


def test_one_class_is_wide_for_outliers(device):
    """It is not refined, and not left out where no training row is an outlier."""
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(1)
    model, marginals, x, _ = fitted(book, rng)
    torch.testing.assert_close(model.var[-1], torch.full_like(model.var[-1], WIDE_SD**2))
    torch.testing.assert_close(model.log_probs[-1], marginals.log_probs)
    assert not model.means[-1].any()
    assert (model.var[:-1] < WIDE_SD**2 / 4).all()
    far = x[:1].clone()
    far[:, book.reals] = 8.0
    assert model.log_prob(far).item() > -60


def test_no_class_excludes_a_category(device, generator):
    book = make_book("reals and levels", device)
    x = random_rows(book, 64, np.random.default_rng(0))
    fit = fit_of(MarginalDenoiser.fit(book, x), x, x, generator)
    columns = random_columns(fit.network.layout, book, np.random.default_rng(0), 5)
    made = fit.made(columns._replace(values=60 * columns.values))
    least = fit.marginals.log_probs + math.log(fits.MARGINAL_SHARE)
    assert (made.log_probs > least - 1e-3).all()
    # beside five classes of equal weight, one for outliers has that of one row among 64
    weights = torch.tensor([64 / 65 / 5] * 5 + [1 / 65]).to(made.log_weights)
    torch.testing.assert_close(made.log_weights.exp(), weights)


def test_rows_beyond_the_bounds_are_not_read(device, monkeypatch):
    """Of held-out rows the first ones, of the rows to which the classes are refined a random part."""
    book = make_book("reals and levels", device)
    rng, sizes = np.random.default_rng(0), []
    x, x_valid = (random_rows(book, 50, rng) for _ in range(2))
    marginals = MarginalDenoiser.fit(book, x)

    def sums(model, rows):
        sizes.append(len(rows.unique(dim=0)))
        return expected_sums(model, rows)

    monkeypatch.setattr(classes, "expected_sums", sums)
    monkeypatch.setattr(fits, "JUDGED_ROWS", 20)
    monkeypatch.setattr(fits, "REFINED_ROWS", 30)
    a, b = (
        fit_mixture(marginals, x, held_out, seeded_generator(0, device))[0]
        for held_out in (x_valid, x_valid[:20])
    )
    assert torch.equal(a.log_prob(x), b.log_prob(x))
    assert set(sizes) == {30}


def test_where_there_is_nothing_to_learn_nothing_is_trained(device, generator, monkeypatch):
    book = Codebook([simplex(1), simplex(1, is_open=True)]).to(device)
    x = random_rows(book, 20, np.random.default_rng(0))
    marginals = MarginalDenoiser.fit(book, x)
    monkeypatch.setattr(Run, "make_step", None)
    model = QUICK.fit(TrainingRows(marginals, x, x, generator), FitPlan(TrainingPlan(), 0))
    torch.testing.assert_close(model.log_prob(x), marginals.log_prob(x))


@pytest.fixture
def seconds(monkeypatch):
    """The clock of a fit, of which each step takes a second."""
    now, steps, step = [0.0], [], Run.make_step

    def slow(self, share):
        step(self, share)
        now[0] += 1.0
        steps.append(share)

    monkeypatch.setattr(Run, "make_step", slow)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(fits, "TRAINING", replace(fits.TRAINING, patience=99))
    return steps


def test_time_ends_a_fit(device, monkeypatch, seconds):
    """Each step takes a second: seven tenths of the time are for steps."""
    book = make_book("mixed", device)
    rng = np.random.default_rng(0)
    x = random_rows(book, 300, rng)
    marginals, steps, rounds = MarginalDenoiser.fit(book, x), seconds, []

    def sums(model, rows):
        rounds.append(model)
        return expected_sums(model, rows)

    monkeypatch.setattr(classes, "expected_sums", sums)
    recipe = Mixture(n_points=64, max_steps=150)
    ends = {1e-3: 0, 12.0: 0, 100.0: 70, math.inf: 150}
    for max_time, end in ends.items():
        steps.clear()
        rounds.clear()
        how = {"recipe": recipe, "deadline": Deadline(max_time)}
        _, report = fit_mixture(marginals, x, x, seeded_generator(0, device), **how)
        assert report.history[-1].step == end
        assert report.stopped == ("max_steps" if end == 150 else "max_time")
        assert len(steps) == (end or min(TRIAL_STEPS, len(steps)))  # of which it is known
        assert bool(rounds) == bool(end)
        assert steps == sorted(steps)


def test_property_gaps_are_filled_in_a_quarter_of_the_time(device, monkeypatch):
    """By rounds of which each takes ten seconds; with time enough as without a bound."""
    book, rng = make_book("only reals", device), np.random.default_rng(0)
    x = random_rows(book, 300, rng, missing=0.2)
    marginals, now, filled = MarginalDenoiser.fit(book, x), [0.0], {}

    def sums(model, rows):
        now[0] += 10 * len(rows) / len(x)
        return expected_sums(model, rows)

    monkeypatch.setattr(fits, "expected_sums", sums)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    for max_time in (1.0, 160.0, 1e4, math.inf):
        now[0] = 0.0
        fit = fit_of(marginals, x, x, seeded_generator(0, device), deadline=Deadline(max_time))
        assert not fit.x.isnan().any()
        assert now[0] <= max(10.0, max_time / 4)  # one round is measured
        filled[max_time] = fit.x
    assert torch.equal(filled[1e4], filled[math.inf])
    assert not torch.equal(filled[160.0], filled[math.inf])


def test_training_ends_where_held_out_rows_are_predicted_worse(device):
    """Held-out rows of another table."""
    book = make_book("simplex", device)
    rng = np.random.default_rng(0)
    x = all_rows(book)[[0, 5, 0, 5, 0, 5, 0, 5]].repeat(10, 1)
    x_valid = all_rows(book)[1:5]
    marginals = MarginalDenoiser.fit(book, random_rows(book, 50, rng))
    recipe = Mixture(n_points=64, max_steps=200)
    generator = seeded_generator(0, device)
    fit, report = fit_mixture(marginals, x, x_valid, generator, recipe=recipe)
    assert report.stopped == "no improvement"
    assert report.history[-1].step < 200
    assert held_out_nats(fit, x_valid) <= -marginals.log_prob(x_valid).mean().item() + 1e-6


@pytest.mark.parametrize("name", ["simplex", "mixed", "only reals"])
def test_a_mixture_without_a_voice_is_not_finished(device, name):
    """In the best case it was to be as good as it comes to be; as it is, it is no worse than independent columns."""
    book, rng, asked = make_book(name, device), np.random.default_rng(1), []
    oracle = random_mixture(book, rng)
    x, x_valid = (mixture_draws(oracle, n, rng) for n in (300, 200))
    parts = MarginalDenoiser.fit(book, x), x, x_valid
    silent = {"has_voice": lambda *best: bool(asked.append(best))}
    few, report = fit_mixture(*parts, seeded_generator(0, device), **silent)
    every, _ = fit_mixture(*parts, seeded_generator(0, device))
    assert report.stopped == "hopeless"
    assert QUICK.max_steps / 3 <= report.history[-1].step < QUICK.max_steps
    ((_, hoped),) = asked
    least, most = held_out_nats(every, x_valid), held_out_nats(parts[0], x_valid)
    assert hoped < least + 0.1  # of a training of 40 steps
    assert held_out_nats(few, x_valid) <= most + 1e-6


def run_of(book, generator, n=60):
    """A fit under way, to rows whose columns depend on one another as much as they can; and its training."""
    x = all_rows(book)[[0, -1]].repeat(n // 2, 1)
    fit = fit_of(MarginalDenoiser.fit(book, x), x, x[:10], generator)
    how = fit.network, fit.x, fit.judged, fit.training, fit.generator
    run = Run(*how, loss_at=fits.LatentLoss)
    return fit, run


def test_the_trained_network_makes_the_classes(device):
    """Without a round of refinement they are those of its code lengths, but for the points."""
    book = make_book("simplex", device)
    fit, run = run_of(book, seeded_generator(0, device))
    for _ in range(40):
        run.make_step(0.5)
    left = held_out_nats(fit.mixture(lambda: 0.0), fit.x_valid)
    own = -fit.network.log_prob(fit.x_valid, *fit.network.constants(fit.x_valid)).mean()
    assert left == pytest.approx(own.item(), abs=0.05)
    assert left < held_out_nats(fit.marginals, fit.x_valid) - 0.1


def test_property_latent_points_are_fresh_in_every_step(device, monkeypatch):
    """All moved by one random shift, on the torus, so that they stay as even as they are."""
    (fit, run), seen = run_of(make_book("simplex", device), seeded_generator(0, device)), []

    def watched(u, like):
        seen.append(u)
        return normal(u, like)

    monkeypatch.setattr(fits, "normal", watched)
    for share in (0.0, 0.3, 0.9, 0.9):
        run.make_step(share)
    assert [len(u) for u in seen] == sorted(len(u) for u in seen)
    shifts = []
    for u in seen:
        shift = (u - fit.network.points[: len(u)]) % 1
        assert ((shift - shift[0] + 0.5) % 1 - 0.5).abs().max() < 1e-5
        shifts.append(shift[0])
    for i, one in enumerate(shifts):
        assert all((one - other).abs().max() > 1e-3 for other in shifts[:i])


def test_gaps_are_filled_whatever_the_categories(device, dtype):
    """By the numbers alone: a category that is hardly ever seen stays possible, however many rounds there are."""
    book, rng = Codebook([simplex(3), real(), real()]).to(device), np.random.default_rng(0)
    x = random_rows(book, 300, rng)
    x[:, 0] = x[:, 0] % 2
    x[::3, 1], x[1::3, 2] = math.nan, math.nan
    rare = 1e6 * torch.finfo(dtype).tiny
    probs = torch.tensor([0.5, 0.5, rare], device=device, dtype=dtype)
    marginals = MarginalDenoiser(book, probs, MarginalDenoiser.fit(book, x).mixture)
    generator = seeded_generator(0, device)
    recipe = replace(QUICK, max_steps=2)
    model, _ = fit_mixture(marginals, x, x[:40], generator, recipe=recipe)
    assert bool((model.log_probs.exp() > 0).all())


def test_gaps_of_a_row_are_drawn_together(device):
    """Two missing numbers that follow from one another, given a third that carries no information about them."""
    book, rng = Codebook([real(), real(), real()]).to(device), np.random.default_rng(0)
    a, free = rng.normal(0, 0.5, (2, 600))
    rows = torch.tensor(np.stack([a, 0.9 * a, free], 1), device=device)
    rows[::4, :2] = math.nan
    marginals = MarginalDenoiser.fit(book, rows)
    run = fit_of(marginals, rows, rows, seeded_generator(0, device))
    filled = run.x[::4]
    assert (filled[:, 1] - 0.9 * filled[:, 0]).abs().max() < 0.05
    assert filled[:, 0].std().item() == pytest.approx(0.5, rel=0.2)
