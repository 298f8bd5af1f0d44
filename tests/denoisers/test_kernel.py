"""Kernel densities: the laws of an exact denoiser, a slow sum over centres beside each fast path, and their fit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    FEW_EXAMPLES,
    all_rows,
    empty_state,
    make_book,
    numpy_evidence,
    random_marginals,
    random_rows,
    random_state,
    rounding,
    seeded_generator,
    seeds,
    tables,
    total_mass,
    wide_tables,
)
from scipy import stats

from discrete_itd.channel import CoordinateSchedule, Quadrature
from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import KernelDenoiser, MarginalDenoiser, SupportDenoiser
from discrete_itd.denoisers.kernel_products import STRAY, Widths, log_sum
from discrete_itd.likelihood import integral_log_prob, path_attribution, path_log_prob
from discrete_itd.storage.configs import denoiser_from_config, to_config

BOOKS = ["mixed", "open", "only words", "all kinds", "reals and levels"]
WIDTHS = Widths(0.3, 0.4, 0.3)


def random_kernel(book, seed=0, n=7, widths=WIDTHS):
    rng = np.random.default_rng(seed)
    return KernelDenoiser(
        random_marginals(book, rng), random_rows(book, n, rng, missing=0.2), widths
    )


def normal(value, mean, sd):
    return np.exp(-(((value - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def naive_kernel(points, alone, value, centre, widths):
    """One factor; ``alone`` is a function of a number, or a list of log-probabilities."""
    if points.kind == "real":
        if math.isnan(centre):
            return np.exp(alone(value))
        return normal(value, centre, widths.real)
    pi = [math.exp(v) for v in alone]
    value = int(value)
    if math.isnan(centre):
        return pi[value]
    centre = int(centre)
    if points.kind != "line":
        return (1 - widths.other) * (value == centre) + widths.other * pi[value]
    n = points.n_levels
    if centre == n:  # unseen
        return pi[value]
    if value == n:
        return STRAY * pi[value]
    at = np.array(points.levels)
    p = np.array(pi[:n]) / sum(pi[:n])
    sd = max(math.sqrt(max(p @ (at - p @ at) ** 2, 0.0)), 1e-6)
    near = normal(at, at[centre], 2 * sd * widths.line)
    return (1 - STRAY) * near[value] / near.sum() + STRAY * pi[value]


def marginals_of(model):
    """Log-probabilities of the levels of each column of categories; a function for a continuous one."""
    book, q, place = model.codebook, model.base.marginals(), model.codebook.reals.tolist()

    def density(r):
        parts = (q.gaussian.log_weight, q.gaussian.means, q.gaussian.var)
        weight, mean, var = (t[0, r].double().cpu().numpy() for t in parts)
        return lambda v: np.log(
            sum(np.exp(w) * normal(v, m, s**0.5) for w, m, s in zip(weight, mean, var, strict=True))
        )

    return [
        density(place.index(j)) if c.kind == "real" else q.column(j)[0].tolist()
        for j, c in enumerate(book.columns)
    ]


def naive_log_prob(model, x):
    """The sum over centres of the product over columns."""
    alone, columns = marginals_of(model), model.codebook.columns
    out = []
    for row in x.tolist():
        total = 0.0
        for centre in model.centres.tolist():
            there = [j for j, value in enumerate(row) if not math.isnan(value)]
            factors = [
                naive_kernel(columns[j], alone[j], row[j], centre[j], model.widths) for j in there
            ]
            total += math.prod(factors) / len(model.centres)
        out.append(math.log(total))
    return torch.tensor(out, device=x.device).to(model.codebook.known_snr)


# -- as a distribution ----------------------------------------------------------------------------


@FEW_EXAMPLES
@given(wide_tables, seeds)
def test_log_prob_is_the_slow_sum(device, dtype, columns, seed):
    """Also of rows with unseen values, and with centres that have them."""
    book = Codebook(columns).to(device)
    model = random_kernel(book, seed)
    x = random_rows(book, 6, np.random.default_rng(seed), missing=0.3)
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
    torch.testing.assert_close(model.log_prob(x), naive_log_prob(model, x), **close)
    alone = torch.cat([model.log_prob(row[None]) for row in x])
    torch.testing.assert_close(alone, model.log_prob(x), **close)
    assert model.log_prob(x[:0]).shape == (0,)


@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_mass_is_one_and_missing_cells_are_summed_over(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    model, every = random_kernel(book, seed), all_rows(book)
    rows = random_rows(book, 5, np.random.default_rng(seed), missing=0.4)
    log_p = model.log_prob(every)
    assert log_p.double().exp().sum().item() == pytest.approx(1, abs=rounding(dtype))
    fits = ((every == rows[:, None]) | rows[:, None].isnan()).all(2)
    expected = log_p.expand(len(rows), -1).masked_fill(~fits, -torch.inf).logsumexp(1)
    torch.testing.assert_close(model.log_prob(rows), expected, atol=rounding(dtype), rtol=0)


def test_density_integrates_to_one(device):
    book = make_book("reals and levels", device)
    model = random_kernel(book)
    grid = torch.linspace(-8, 8, 161).tolist()
    mass = model.log_prob(all_rows(book, grid)).double().exp().sum() * 0.1**2
    assert mass.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", BOOKS)
def test_factors_are_differences_of_log_prob(device, dtype, name):
    book = make_book(name, device)
    model = random_kernel(book)
    x = random_rows(book, 9, np.random.default_rng(1), missing=0.2)
    seen, before = torch.full_like(x, math.nan), 0.0
    found = model.log_factors(x)
    assert (found[x.isnan()] == 0).all()
    for j in range(book.n_columns):
        seen[:, j] = x[:, j]
        after = naive_log_prob(model, seen)
        close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
        torch.testing.assert_close(found[:, j], after - before, **close)
        before = after
    assert model.log_factors(x[:0]).shape == (0, book.n_columns)


def test_factors_of_leading_columns_come_first(device):
    columns = [ColumnPoints("simplex", 2), ColumnPoints("simplex", 3)]
    model = random_kernel(Codebook(columns, leading=[1]).to(device))
    x = torch.tensor([[0.0, 2.0]], dtype=torch.float64, device=device)
    first = x.clone()
    first[:, 0] = math.nan
    torch.testing.assert_close(model.log_factors(x)[:, 1], model.log_prob(first))


def test_batches_change_nothing(device, monkeypatch):
    book = make_book("all kinds", device)
    model, x = random_kernel(book), random_rows(book, 30, np.random.default_rng(1))
    whole = model.log_prob(x), model.log_factors(x)
    monkeypatch.setattr("discrete_itd.denoisers.kernel.BATCH_PAIRS", 30)
    torch.testing.assert_close((model.log_prob(x), model.log_factors(x)), whole)


# -- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixed", "open", "only words"])
def test_draws_follow_the_distribution(device, name):
    """Given that no cell is unseen."""
    book = make_book(name, device)
    model = random_kernel(book, n=4)
    drawn = model.draw(20_000, seeded_generator(0, device))
    every = all_rows(book)
    seen = [(every[:, j] < c.n_levels) for j, c in enumerate(book.columns)]
    every = every[torch.stack(seen).all(0)]
    p = model.log_prob(every).double().softmax(0).cpu().numpy()
    counts = (drawn[:, None] == every).all(2).sum(0).cpu().numpy()
    assert counts.sum() == len(drawn)
    assert stats.chisquare(counts, p * len(drawn)).pvalue > 1e-3


def test_drawn_numbers_follow_the_distribution(device):
    """Numbers by their share below some values, in all and beside a category."""
    book = make_book("reals and levels", device)
    model = random_kernel(book)
    x = model.draw(20_000, seeded_generator(0, device)).cpu()
    own = model.draw(1, seeded_generator(0, device))
    assert own.dtype == torch.float64
    grid = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    for level in (0.0, 1.0):
        rows = torch.full((len(grid), 4), math.nan, dtype=torch.float64)
        rows[:, 0], rows[:, 3] = grid, level
        mass = model.log_prob(rows.to(device)).double().exp().cpu() * (grid[1] - grid[0])
        seen_share = torch.tensor([[math.nan, 2.0, math.nan, math.nan]], dtype=torch.float64)
        rows[:, 1] = 2.0  # the unseen category, which is never drawn
        mass -= model.log_prob(rows.to(device)).double().exp().cpu() * (grid[1] - grid[0])
        mass /= 1 - model.log_prob(seen_share.to(device)).double().exp().cpu()
        for at in (-0.5, 0.0, 0.7):
            expected = float(mass[grid < at].sum())
            found = ((x[:, 0] < at) & (x[:, 3] == level)).double().mean().item()
            assert found == pytest.approx(expected, abs=4.5 * math.sqrt(0.25 / len(x)))


# -- as a denoiser --------------------------------------------------------------------------------


@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_posterior_is_a_sum_over_all_rows(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    model, rows = random_kernel(book, seed), all_rows(Codebook(columns).to(device))
    oracle = SupportDenoiser(book, rows, model.log_prob(rows).exp())
    _, y, snr = random_state(book, np.random.default_rng(seed), 6)
    got, expected = model(y, snr).categorical.probs, oracle(y, snr).categorical.probs
    torch.testing.assert_close(got, expected, atol=rounding(dtype, 10), rtol=0)
    evidence = torch.randn(6, book.levels.n_points, generator=seeded_generator(1, device))
    for mine, theirs in zip(model.infer(evidence.to(y)), oracle.infer(evidence.to(y)), strict=True):
        if mine.ndim == 2:
            mine, theirs = book.levels.log_softmax(mine), book.levels.log_softmax(theirs)
        torch.testing.assert_close(mine, theirs, atol=rounding(dtype, 100), rtol=0)


@pytest.mark.parametrize("name", ["only words", "all kinds", "reals and levels"])
def test_posterior_is_bayes_rule_over_centres(device, dtype, name):
    """Each centre weighs as much as the mass of its kernels under the evidence: by sums and by quadrature."""
    book = make_book(name, device)
    model = random_kernel(book, n=5)
    _, y, snr = random_state(book, np.random.default_rng(3), 4, max_snr=6.0)
    q, alone = model(y, snr), marginals_of(model)
    grid = np.linspace(-8, 8, 4001)
    place = book.coord_column.cpu().numpy()
    for b in range(len(y)):
        yb, sb = y[b].double().cpu().numpy(), snr[b].double().cpu().numpy()
        joint = []  # of each column: mass by centre and value
        for j, points in enumerate(book.columns):
            if points.kind == "real":
                own, gamma = yb[place == j][0], sb[j]
                at = np.array([own]) if np.isinf(gamma) else grid
                like = np.ones(1) if np.isinf(gamma) else np.exp(own * grid - gamma * grid**2 / 2)
            else:
                at, like = np.arange(points.n_points), np.exp(numpy_evidence(book, yb, sb, j))
            centres, values = model.centres[:, j].tolist(), [at] if points.kind == "real" else at
            kernels = [
                np.hstack([naive_kernel(points, alone[j], v, c, model.widths) for v in values])
                for c in centres
            ]
            joint.append((at, np.array(kernels) * like))
        weight = np.prod([m.sum(1) for _, m in joint], 0)
        for j, (at, m) in enumerate(joint):
            p = (weight / m.sum(1)) @ m
            p /= p.sum()
            if book.columns[j].kind == "real":
                r = book.reals.tolist().index(j)
                mean = float(q.gaussian.mean()[b, r])
                assert mean == pytest.approx(p @ at, abs=1e-4 + rounding(dtype))
            else:
                got = q.column(j)[b].exp().double().cpu().numpy()
                np.testing.assert_allclose(got, p, atol=rounding(dtype, 100) + 1e-6)


@pytest.mark.parametrize(("name", "seed"), [(name, 0) for name in BOOKS])
def test_coordinate_path_is_log_p_in_any_order(device, dtype, name, seed):
    book = make_book(name, device)
    model = random_kernel(book, seed)
    rows = random_rows(book, 12, np.random.default_rng(1), missing=0.1)
    loose = {"atol": rounding(dtype, 10) + 1e-6, "rtol": rounding(dtype) + 1e-6}
    for order in (None, tuple(range(book.n_columns))[::-1]):
        plan = CoordinateSchedule(book.n_columns, order)
        got = path_log_prob(model, rows, plan, n_paths=2, generator=seeded_generator(0, device))
        torch.testing.assert_close(got.log_prob, model.log_prob(rows).double(), **loose)
    plan = CoordinateSchedule(book.n_columns, tuple(range(book.n_columns)))
    split = path_attribution(model, rows, plan, n_paths=1, generator=seeded_generator(0, device))
    torch.testing.assert_close(-split.surprisal, model.log_factors(rows).double(), **loose)


@pytest.mark.parametrize("name", ["mixed", "open"])
def test_integral_is_log_p(device, name):
    book = make_book(name, device)
    model = random_kernel(book)
    high = 60 * float(book.known_snr.max()) / 2000
    got = integral_log_prob(
        model,
        all_rows(book),
        Quadrature(torch.tensor([math.log(1e-3), math.log(high)]), torch.ones(1)).to(device),
        n_points=1 << 11,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    error = (got.log_prob - model.log_prob(all_rows(book))).abs()
    assert (error < 4.5 * got.stderr + 2e-4).all()
    mass, stderr = total_mass(got)
    assert mass == pytest.approx(1, abs=4 * stderr)


@pytest.mark.parametrize("name", ["only words", "all kinds"])
def test_codes_update_as_if_seen_before(device, dtype, name):
    """The Bayes update of a posterior by a column's own evidence is the posterior of both."""
    book = make_book(name, device)
    model = random_kernel(book)
    rows, y, snr = random_state(book, np.random.default_rng(0), 6, known=False)
    column = book.vocabularies[0].column
    own = torch.tensor([j == column for j in range(book.n_columns)], device=device)
    before = y * ~book.per_coord(own[None]), snr * ~own
    more = y * book.per_coord(own[None]), snr * own
    updated, at_once = model(*before).update(*more), model(y, snr)
    close = {"atol": rounding(dtype, 100), "rtol": 0}
    got, expected = (q.words[0].log_probs_of_all().exp() for q in (updated, at_once))
    torch.testing.assert_close(got, expected, **close)
    torch.testing.assert_close(updated.words[0].mean(), at_once.words[0].mean(), **close)
    some = at_once.rows(slice(2, 4)).words[0]
    torch.testing.assert_close(some.log_probs_of_all().exp(), expected[2:4], **close)
    torch.testing.assert_close(
        some.log_prob(rows[2:4, column]),
        expected[[2, 3], rows[2:4, column].long()].log(),
        atol=rounding(dtype, 1000),
        rtol=0,
    )


def test_smoothing_widens_the_gaussians(device):
    """The density of a value plus noise is the mean of the density over the noise."""
    book = Codebook([ColumnPoints("real"), ColumnPoints("simplex", 2)]).to(device)
    model = random_kernel(book)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x = torch.tensor([[0.4, 1.0]], dtype=torch.float64, device=device)
    moved = x.repeat(60, 1)
    moved[:, 0] += torch.tensor(0.25 * nodes).to(x)
    p = model.log_prob(moved).double().exp().cpu().numpy()
    expected = math.log(weights @ p / weights.sum())
    assert model.smoothed(0.25).log_prob(x).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", BOOKS)
def test_saved_and_read_it_is_the_same_to_the_last_bit(device, name):
    book = make_book(name, device)
    model = random_kernel(book)
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    read = denoiser_from_config(to_config(model), make_book(name, device), tensors)
    x = random_rows(book, 9, np.random.default_rng(1), missing=0.2)
    assert isinstance(read, KernelDenoiser)
    assert torch.equal(read.log_prob(x), model.log_prob(x))
    y, snr = empty_state(book, 1)
    assert torch.equal(read(y, snr).categorical.logits, model(y, snr).categorical.logits)


@pytest.mark.parametrize(
    ("centres", "widths", "message"),
    [
        ([[0.0]], WIDTHS, "shape"),
        ([[0.0, 2.0]], WIDTHS, "no categories"),
        ([[0.0, 0.5]], WIDTHS, "no categories"),
        ([[0.0, 1.0]], (0.1, 0.2, 1.0), "widths"),
        ([[0.0, 1.0]], (0.0, 0.2, 0.5), "widths"),
        ([[0.0, 1.0]], (0.2, 0.5), "widths"),
    ],
)
def test_what_is_no_kernel_density_is_refused(centres, widths, message):
    book = Codebook([ColumnPoints("real"), ColumnPoints("simplex", 2)])
    base = random_marginals(book, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        KernelDenoiser(base, torch.tensor(centres), widths)


# -- the fit --------------------------------------------------------------------------------------


def naive_left_out(model, x):
    """Mean nats of each centre given the others; outliers are bounded by a tenth of their marginal probability."""
    total = 0.0
    for row in x:
        others = [
            k for k in range(len(x)) if not torch.equal(x[k].nan_to_num(9), row.nan_to_num(9))
        ]
        fewer = KernelDenoiser(model.base, x[others], model.widths)
        outlier = math.log(0.1) + float(model.base.log_prob(row[None]))
        total -= np.logaddexp(math.log(0.9) + float(fewer.log_prob(row[None])), outlier)
    return total / len(x)


@pytest.mark.parametrize("name", ["all kinds", "mixed"])
def test_widths_are_those_of_the_fewest_nats_left_out(device, name):
    """No change of one width is better, by the slow sum; copies are left out together."""
    book = make_book(name, device)
    x = random_rows(book, 8, np.random.default_rng(5), missing=0.1)
    x = torch.cat([x, x[:2]])
    base = MarginalDenoiser.fit(book, x)
    records = torch.cat([torch.arange(8), torch.arange(2)])
    model = KernelDenoiser.fit(base, x, torch.Generator().manual_seed(0), records)
    grid = {"real": (0.15, 0.3, 0.4), "line": (0.1, 0.4, 0.8), "other": (0.3, 0.9)}
    found = naive_left_out(model, x)
    for width, values in grid.items():
        for value in values:
            changed = KernelDenoiser(base, x, model.widths._replace(**{width: value}))
            assert found <= naive_left_out(changed, x) + 0.02, (width, value)


def test_widths_follow_the_data():
    random = np.random.default_rng(0)

    def fitted(sd):
        middle = random.choice([-0.6, 0.0, 0.6], 600)
        x = torch.from_numpy((middle + sd * random.normal(size=600))[:, None])
        base = MarginalDenoiser.fit(Codebook([ColumnPoints("real")]), x)
        return KernelDenoiser.fit(base, x, torch.Generator().manual_seed(0)).widths.real

    assert fitted(0.02) < fitted(0.3)


@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_are_enough(device, n):
    book = make_book("all kinds", device)
    x = random_rows(book, n, np.random.default_rng(0))
    base = MarginalDenoiser.fit(book, x)
    model = KernelDenoiser.fit(base, x, torch.Generator().manual_seed(0))
    assert model.log_prob(x).isfinite().all()


def test_terms_too_small_to_count_change_nothing(dtype):
    values = torch.tensor([[0.0, -1.0, -95.0], [3.0, -math.inf, -900.0], [-1e4, -1e4 - 1, -2e4]])
    torch.testing.assert_close(log_sum(values.to(dtype)), values.to(dtype).logsumexp(1))
