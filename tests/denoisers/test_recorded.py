"""Numbers that were recorded on a lattice: masses of cells add up to one, and every estimator agrees on them (20)."""

import itertools
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from laws import (
    empty_state,
    line,
    logistic,
    make_denoiser,
    random_correlated,
    random_rows,
    real,
    rounding,
    seeded_generator,
    simplex,
)
from scipy import integrate, stats

from discrete_itd.channel import ColumnPoints, CoordinateSchedule, State
from discrete_itd.channel.codebook import Codebook
from discrete_itd.channel.gaussian import GaussianPosterior, log_between, log_mass, log_mass_of_wide
from discrete_itd.channel.rounded_numbers import Intervals, NumberLine, NumberLines
from discrete_itd.denoisers import MixtureDenoiser, RowMixtureDenoiser, gaussian, mixture
from discrete_itd.denoisers.gaussian import log_masses_in_classes
from discrete_itd.denoisers.mixture import expected_sums
from discrete_itd.likelihood import integral_log_prob, path_log_prob

# whole numbers of a skewed column, and dozens: cells that are about as wide as a component of the models here; the
# lines are opened at numbers that would be shared by many rows
LINES = (
    NumberLine(
        scale=4.0, power=0.5, spread=1.5, step=1.0, opened=((0.0, 0.3), (1.0, 0.2), (3.0, 0.1))
    ),
    NumberLine(20.0, 20.0, 1.4, 0.5, 1.5, step=12.0, origin=3.0, opened=((27.0, 0.25),)),
)
PRODUCTS = ("marginals", "mixture", "forest", "exact mixture")
KINDS = (*PRODUCTS, "correlated")


def recorded(*lines):
    return [ColumnPoints("real", line=own) for own in lines]


@pytest.fixture
def book(device):
    return Codebook([recorded(LINES[0])[0], simplex(2), *recorded(LINES[1])]).to(device)


def lattice(book, r, far=9.0):
    """The numbers of the r-th continuous column, encoded: (n,), float64."""
    line, lines = book.columns[book.reals[r]].line, NumberLines([book.columns[book.reals[r]].line])
    ends = torch.tensor([[-far], [far]], dtype=torch.float64)
    low, high = ((lines.decoded(ends)[:, 0] + line.center - line.origin) / line.step).tolist()
    places = torch.arange(math.floor(low), math.ceil(high) + 1, dtype=torch.float64)
    distance = line.origin + places * line.step - line.center
    return lines.encoded(distance[:, None])[0][:, 0].to(book.device)


def every_row(book, gaps=()):
    """All rows of numbers of the lattices and categories; NaN in the columns ``gaps``."""
    nan = torch.tensor([math.nan], dtype=torch.float64)
    values = []
    for j, c in enumerate(book.columns):
        own = torch.arange(c.n_points).double()
        if c.kind == "real":
            own = lattice(book, int((book.reals == j).nonzero())).cpu()
        values.append(nan if j in gaps else own)
    return torch.cartesian_prod(*values).to(book.device)


def members_of_rows(book):
    """A forest and dense classes."""
    members = [make_denoiser(kind, book) for kind in ("forest", "correlated")]
    return RowMixtureDenoiser(book, members, [2, 1])


@pytest.mark.parametrize("kind", ["mixture", "correlated", "mixture of rows"])
@pytest.mark.parametrize("gaps", [(0,), (1, 2), (0, 1, 2)])
def test_completed_rows_are_drawn_as_they_are_scored(book, kind, gaps):
    """Scores add up to that of the known cells, are those of whole rows, and are the frequencies of draws."""
    start = random_rows(book, 1, np.random.default_rng(0))
    denoiser = members_of_rows(book) if "rows" in kind else make_denoiser(kind, book)
    start[:, list(gaps)] = math.nan
    every = every_row(book, [j for j in range(3) if j not in gaps])
    every = torch.where(start.isnan(), every, start)
    completing = denoiser.completing(start, {}, 1)
    found, known = completing.log_joint(every[None])[0], denoiser.log_prob(start).double()
    tol = rounding(book.dtype, 10)
    torch.testing.assert_close(completing.log_prob, known, rtol=tol, atol=tol)
    torch.testing.assert_close(found.logsumexp(0), known[0], rtol=0, atol=max(tol, 1e-6))
    whole = denoiser.log_prob(every).double()
    apart = (found.exp() - whole.exp()).abs().sum() / known.exp()
    assert apart < (1e-5 if kind == "mixture" else 0.1)  # there in another order of the chain
    n = 20000
    drawn, at, size = completing.draw(n, 3)[0], torch.zeros(n, dtype=torch.int64), 1
    for j in reversed(range(3)):  # rows are sorted
        values = every[:, j].unique()
        distance, place = (drawn[:, j, None] - values).abs().min(1)
        assert distance.max() < 1e-6
        at, size = at + size * place.cpu(), size * len(values)
    counts = torch.bincount(at, minlength=len(every)).numpy()
    expected = (found - known).exp().cpu().numpy() * n
    some = expected > 5
    observed = np.append(counts[some], n - counts[some].sum())
    wanted = np.append(expected[some], n - expected[some].sum())
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["mixture", "correlated"])
def test_few_classes_stand_for_all(book, kind, monkeypatch):
    """The mean of their scores is that of all classes, and their sum is always the same."""
    denoiser, start = make_denoiser(kind, book), random_rows(book, 1, np.random.default_rng(0))
    start[:, 1:] = math.nan
    every = torch.where(start.isnan(), every_row(book, [0]), start)
    exact = denoiser.completing(start, {}, 1).log_joint(every[None])[0]
    monkeypatch.setattr(mixture, "SOME_CLASSES", denoiser.n_components - 1)
    each = [denoiser.completing(start, {}, salt).log_joint(every[None])[0] for salt in range(200)]
    each = torch.stack(each).exp()
    torch.testing.assert_close(each.sum(1), exact.exp().sum().expand(200), rtol=1e-5, atol=0)
    error = (each.mean(0) - exact.exp()).abs()
    assert each.std(0).max() > 0
    assert (error <= 5 * each.std(0) / 200**0.5 + 1e-6 * exact.exp().max()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_masses_add_up_to_one_whatever_is_missing(book, kind):
    denoiser = make_denoiser(kind, book)
    for n in range(3):
        for gaps in itertools.combinations(range(3), n):
            log_p = denoiser.log_prob(every_row(book, gaps)).double()
            assert log_p.max() <= 1e-6
            assert log_p.exp().sum().item() == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_masses(book, kind):
    """Of dense classes too, where cells are wider than what the columns before them leave open."""
    denoiser, rows, n = make_denoiser(kind, book, 1), every_row(book), 3000
    p = denoiser.log_prob(rows).double().exp()
    rows, p = rows[p > 1e-3], p[p > 1e-3]
    drawn = denoiser.draw(n, seeded_generator(0, book.device))
    counts = torch.isclose(drawn[:, None], rows, rtol=0, atol=1e-9).all(2).sum(0)
    counts, expected = counts.cpu().numpy(), n * p.cpu().numpy()
    both = [[*t, n - t.sum()] for t in (counts, expected)]  # all other rows are one class
    assert stats.chisquare(*both).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_factors_add_up_to_the_mass_beside_gaps(kind, device):
    """Of dense classes too, whose masses of wide cells beside a gap are not those of the chain."""
    book = Codebook([*recorded(*LINES, LINES[0]), simplex(2)]).to(device)
    denoiser = make_denoiser(kind, book)
    rows = denoiser.draw(40, seeded_generator(0, device)).double()
    rows[torch.arange(40), torch.arange(40) % 4] = math.nan
    expected = denoiser.log_prob(rows).double()
    found = denoiser.log_factors(rows).double().sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_narrow_cells_have_the_density_times_their_width(kind, device):
    """As of numbers without a step."""
    step = 1e-9
    narrow = Codebook([*recorded(NumberLine(step=step)), line(-0.5, 0.5), *recorded(NumberLine())])
    points = Codebook([real(), line(-0.5, 0.5), real()]).to(device)
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:7, 2] = x[:, 1] > 0, math.nan
    x = x.to(device)
    found = make_denoiser(kind, narrow.to(device)).log_prob(x)
    expected = make_denoiser(kind, points).log_prob(x) + math.log(step)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k not in PRODUCTS[:2])) for k in PRODUCTS],
)
def test_estimators_agree_on_recorded_numbers(book, kind, generator):
    """The path to rounding, and the integral, whose last states are noisier than no cell is wide, to its error."""
    denoiser = make_denoiser(kind, book)
    rows = every_row(book)
    rows = rows[denoiser.log_prob(rows).topk(40)[1]][::4]
    closed = denoiser.log_prob(rows).double()
    path = path_log_prob(denoiser, rows, CoordinateSchedule(3), generator=generator)
    torch.testing.assert_close(path.log_prob, closed, rtol=1e-6, atol=1e-6)
    quadrature = logistic(1.0, 2.0, low=-9.0, high=9.0)
    found = integral_log_prob(denoiser, rows, quadrature, n_points=128, generator=generator)
    z = (found.log_prob - closed) / found.stderr
    assert z.abs().mean() < 1.5
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("line", [*LINES, replace(LINES[0], step=1e-4, origin=math.nan)])
def test_draws_of_an_opened_number_are_it(line):
    """Whatever lies in its cell is rounded to its middle, and cells of all other numbers begin at its ends."""
    lines = NumberLines([line])
    for number, gap in line.opened:
        x = torch.tensor([[number]], dtype=torch.float64) + line.step * torch.tensor(
            [[-1.0], [0], [1]]
        )
        z, cells = lines.encoded(x - line.center)[0], lines.cells(lines.encoded(x - line.center)[0])
        ends = cells.middle - cells.width / 2, cells.middle + cells.width / 2
        assert cells.width[1] > gap
        torch.testing.assert_close(ends[1][:2], ends[0][1:], rtol=0, atol=1e-9)
        inside = ends[0][1] + cells.width[1] * torch.linspace(1e-6, 1 - 1e-6, 9)[:, None]
        torch.testing.assert_close(lines.rounded(inside), z[1].expand(9, 1), rtol=0, atol=1e-12)
        edges = lines.edges(inside)
        assert edges.unique().tolist() == pytest.approx([ends[0][1].item(), ends[1][1].item()])
        torch.testing.assert_close(lines.decoded(z), x - line.center, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["mixture", "forest"])
@pytest.mark.parametrize("gamma", [40.0, 400.0])
def test_noisy_numbers_have_bayes_posterior_over_the_lattice(device, kind, gamma):
    """Where the noise is narrower than the cells, and nearly where it is hardly wider, against enumeration."""
    book = Codebook(recorded(*LINES)).to(device)
    denoiser = make_denoiser(kind, book)
    rows = every_row(book)
    log_p = denoiser.log_prob(rows).double()
    truth = rows[log_p.topk(9)[1]]
    snr = torch.full_like(truth, gamma)
    xi = torch.linspace(-1.5, 1.5, 9, dtype=torch.float64, device=device)[:, None]
    y = snr * truth + snr.sqrt() * xi
    evidence = (-0.5 * snr[:, None] * (rows - (y / snr)[:, None]) ** 2).sum(2)  # (9, N)
    joint = log_p + evidence
    state = State(y.to(book.dtype), snr.to(book.dtype))
    expected = torch.softmax(joint, 1) @ rows
    torch.testing.assert_close(denoiser(*state).mean().double(), expected, rtol=0, atol=2e-3)
    found = denoiser.infer(*state)[0].double()
    torch.testing.assert_close(found, joint.logsumexp(1), rtol=0, atol=2e-3)


def test_an_opened_number_is_one_component_however_many_leaves_have_it(book):
    forest = make_denoiser("forest", book)
    x = every_row(book)[:3]
    for q in (forest(*empty_state(book, 3)), forest.leave_one_out(x, ~x.isnan())):
        (row,) = q.gaussian.log_weight[:1]
        assert row.isfinite().sum(1).max() <= 2 * forest.splits.n_leaves + len(LINES[0].opened)


def test_log_masses_keep_their_digits():
    """Against quadrature of the density relative to its largest value in the cell."""
    middle, width, expected = [], [], []
    for m, w in itertools.product((0.0, 0.3, -4.0, 9.0, -35.0), (1e-12, 1e-5, 1e-3, 0.1, 1.0, 6.0)):
        near = min(max(0.0, m - w / 2), m + w / 2)
        inside = integrate.quad(
            lambda t, near=near, m=m, w=w: np.exp((near**2 - (m + t * w) ** 2) / 2),
            -0.5, 0.5, epsabs=0, epsrel=1e-11, points=[np.clip((near - m) / w, -0.5, 0.5)],
        )[0]  # fmt: skip
        middle.append(m)
        width.append(w)
        expected.append(stats.norm.logpdf(near) + np.log(w * inside))
    cells = Intervals(*(torch.tensor(t, dtype=torch.float64) for t in (middle, width)))
    zero = torch.zeros((), dtype=torch.float64)
    found = log_mass(cells, zero, zero + 1)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-8)


def test_gradients_of_masses_are_those_of_differences():
    middle = torch.tensor([0.1, -2.0, 5.0, 1.0], dtype=torch.float64)
    width = torch.tensor([1e-5, 0.5, 2.0, 0.0], dtype=torch.float64)
    mean, var = (torch.full((1, 4, 1), v, dtype=torch.float64) for v in (0.2, 0.7))
    weight = torch.zeros(1, 4, 1, dtype=torch.float64)

    def log_prob(mean, var):
        return GaussianPosterior(weight, mean, var).log_prob(middle[None], width[None])

    inputs = [t.requires_grad_() for t in (mean, var)]
    assert torch.autograd.gradcheck(log_prob, inputs, atol=1e-5)


def test_a_number_that_follows_from_others_has_all_of_its_mass(device):
    """A sum of whole numbers: dense classes condition on what was recorded."""
    line = NumberLine(spread=40.0, step=1.0)
    book = Codebook(recorded(line, line, line)).to(device)
    a = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1e-3]], dtype=torch.float64) * 0.5
    model = MixtureDenoiser(book, torch.ones(1), torch.ones(1, 0), torch.zeros(1, 3), chol=a[None])
    numbers = torch.tensor([[3.0, 5.0, 8.0], [3.0, 5.0, 9.0]], dtype=torch.float64).to(device) / 40
    whole = model.log_prob(numbers)
    pair = model.log_prob(numbers.index_fill(1, torch.tensor([2], device=device), math.nan))
    assert (whole - pair)[0].item() == pytest.approx(0, abs=1e-6)
    assert (whole - pair)[1] < -100


@pytest.mark.parametrize("step", [None, 0.01])
def test_rows_with_few_gaps_are_those_of_the_slow_reference(device, monkeypatch, step):
    """Filtered column after column, or by a factorisation for each pattern of gaps: masses, means and variances."""
    rng, column = np.random.default_rng(0), real()
    if step is not None:
        column = recorded(NumberLine(step=step))[0]
    model = random_correlated(Codebook([column] * 5).to(device), rng, n_classes=4)
    book = model.codebook
    x = random_rows(book, 40, rng, missing=0.4)
    state = book.reals_of(*State.start(book, book.embed(x), ~x.isnan()))

    def answers():
        return [model.log_prob(x), *model.dense.evidence(*state)]

    fast = answers()
    alone = torch.cat([model.log_prob(row) for row in x.split(1)])
    torch.testing.assert_close(alone, fast[0], rtol=0, atol=1e-12)
    monkeypatch.setattr(gaussian, "FEW_GAPS", 0)
    for found, expected in zip(fast, answers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("step", "error"), [(0.02, 1e-3), (2.0, 0.3)])
def test_em_divides_rows_among_classes_nearly_as_their_masses_do(device, step, error):
    """By densities of blurred classes, beside gaps too; those of classes that are not blurred are off by .45."""
    rng = np.random.default_rng(0)
    book = Codebook(recorded(*[NumberLine(step=step, origin=0.0)] * 4)).to(device)
    model = random_correlated(book, rng, n_classes=30)
    x = model.draw(200, seeded_generator(0, device))
    x[:15, :2], x[15:30, 3] = math.nan, math.nan
    for rows in (x[:30], x[30:]):
        expected = model.log_joint(rows).softmax(1).sum(0)
        off = (expected_sums(model, rows).mass - expected).abs().sum() / 2
        assert off / len(rows) < error


@pytest.mark.parametrize("missing", [(), (1,)])
def test_cells_given_wide_ones_are_those_of_the_slow_reference(device, generator, missing):
    """Dense classes, two coarse records of finer numbers: the masses of rows, normalised over the values of one."""
    lines = [NumberLine(step=step, origin=0.0) for step in (0.04, 0.04, 0.5, 0.5)]
    book = Codebook(recorded(*lines)).to(device)
    error = 0.5 / math.sqrt(12)  # of rounding
    a = [[0.8, 0, 0, 0], [0.3, 0.6, 0, 0], [0.8, 0, error, 0], [1.1, 0.6, 0, error]]
    chol = torch.tensor([a, a]) * torch.tensor([1.0, 1.3])[:, None, None]
    means = torch.tensor([[0.0, 0, 0, 0], [1, -1, 1, 0]])
    model = MixtureDenoiser(book, torch.ones(2), torch.ones(2, 0), means, chol=chol)
    x = model.draw(60, generator).double()
    x[:, list(missing)] = math.nan
    found = model.leave_one_out(x, ~x.isnan()).log_prob(x)
    for j in {0, 1} - set(missing):
        values = lattice(book, j)
        rows = x.repeat_interleave(len(values), 0)
        rows[:, j] = values.repeat(len(x))
        total = model.log_prob(rows).view(len(x), -1).logsumexp(1)
        assert (found[:, j] - (model.log_prob(x) - total)).abs().mean() < 0.1
        rows = x.index_fill(1, torch.tensor([j], device=device), math.nan)
        assert (model.log_prob(rows) - total).abs().mean() < 0.02


def test_fast_masses_of_wide_cells_are_those_of_the_slow_reference():
    middle = torch.linspace(-60, 60, 1201, dtype=torch.float64)[:, None].expand(-1, 5)
    width = torch.tensor([0.1, 0.3, 1.0, 3.0, 20.0], dtype=torch.float64).expand_as(middle)
    exact = log_between(middle - width / 2, middle + width / 2)
    off = (log_mass_of_wide(middle, width) - exact).abs()
    assert off[middle.abs() < 36].max() < 1e-8
    assert off.max() < 1e-4


def test_masses_in_classes_are_those_of_the_slow_reference():
    """Of cells of any width, within and across the widths at which the way of computing changes, and far out too."""
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)[:, None].repeat(1, 40)
    sd = torch.logspace(-2, 1, 40, dtype=torch.float64)[None]
    for width in (0.0, 1e-6, 0.1, 1.0):
        own = torch.full((601, 1), width, dtype=torch.float64)
        found = log_masses_in_classes(z, own, sd, torch.float64)
        expected = log_mass(Intervals(z * sd, own.expand_as(z)), torch.zeros_like(sd), sd)
        near = slice(270, 331)  # within three standard deviations
        torch.testing.assert_close(found[near], expected[near], rtol=0, atol=1e-4)
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-3)


def test_masses_in_classes_need_no_sympy(monkeypatch):
    """Its import takes longer than the score of a small file: torch asks for it to check numbers of places."""
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    z = torch.zeros(2, 3, 4, dtype=torch.float64)
    sd = torch.logspace(-2, 1, 4, dtype=torch.float64).expand(1, 1, 4)
    log_masses_in_classes(z, torch.ones_like(z[..., :1]), sd, torch.float64)
