"""Laws of what a kernel density says of cells: shares add up, and strange cells and rows have the most."""

import math

import numpy as np
import pytest
import torch

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import KernelDenoiser, MarginalDenoiser
from discrete_itd.denoisers.kernel_products import Widths
from discrete_itd.detection import kernel as detection_kernel
from discrete_itd.detection.classes import ClassConditionals, KernelClasses
from discrete_itd.detection.kernel import (
    COARSE,
    WRONG,
    kernel_nats,
    log_probs_alone,
    outlyingness,
)

COLUMNS = [
    ColumnPoints("simplex", 3, open=True),
    ColumnPoints("line", 4, levels=(-1.0, 0.0, 0.5, 2.0)),
    ColumnPoints("real"),
    ColumnPoints("simplex", 2),
    ColumnPoints("code", 5),
]
NAN = math.nan


def rows(n=40, seed=0, gaps=0.2):
    random = np.random.default_rng(seed)
    x = np.column_stack(
        [
            random.integers(0, 3, n),
            random.integers(0, 4, n),
            random.normal(0, 0.5, n),
            random.integers(0, 2, n),
            random.integers(0, 5, n),
        ]
    ).astype(float)
    x[random.random(x.shape) < gaps] = NAN
    return torch.from_numpy(x)


def density(x, columns=COLUMNS):
    base = MarginalDenoiser.fit(Codebook(columns), x)
    return KernelDenoiser(base, x, Widths(0.3, 0.4, 0.3))


def naive_shares(model, x, given=()):
    """The definition, cell by cell, for rows without far values: distances, and all."""
    log_k = []  # by column: (B, n)
    for j in range(x.shape[1]):
        alone = torch.full_like(x, NAN)
        alone[:, j] = x[:, j]
        log_k.append(model.kernels.log_kernels(alone).double())
    wrong = log_probs_alone(model.base.marginals(), x)[1] + math.log(WRONG)
    wrong[:, list(given)] = -math.inf
    either = [torch.logaddexp(k, c[:, None]) for k, c in zip(log_k, wrong.T, strict=True)]
    w = torch.softmax(torch.stack(either).sum(0), 1)
    known = x.new_zeros(5).index_fill(0, torch.tensor(given, dtype=torch.long), 1.0) > 0
    there = (~x.isnan() & ~known).double()
    distance = -torch.stack([(w * k).sum(1) for k in either], 1) * there
    right = [(w * (k - e).exp()).sum(1) for k, e in zip(log_k, either, strict=True)]
    doubt = -torch.stack(right, 1).log() * there
    nats = (model.log_prob(x.masked_fill(~known, NAN)) - model.log_prob(x)).double()
    rest = (nats - distance.sum(1))[:, None] / doubt.sum(1, keepdim=True).clamp_min(1e-9)
    return distance, distance + rest * doubt


@pytest.mark.parametrize("given", [(), (0,), (1, 4)])
def test_shares_are_distances_and_the_rest_by_doubt(given):
    model, x = density(rows()), rows(30, seed=1)
    distance, shares = naive_shares(model, x, given)
    found = kernel_nats(model, x, given=torch.tensor([j in given for j in range(5)]))
    torch.testing.assert_close(found, shares, atol=1e-4, rtol=1e-4)
    assert (found > distance - 1e-4).all()


def test_the_division_of_earlier_files_is_distances_and_equal_parts():
    model, x = density(rows()), rows(30, seed=1)
    given = torch.tensor([True, False, False, False, False])
    each = [x.masked_fill(torch.arange(5) != j, NAN) for j in range(5)]
    log_k = torch.stack([model.kernels.log_kernels(cell).double() for cell in each])
    w = torch.softmax(log_k.sum(0), 1)
    there = (~x.isnan() & ~given).double()
    distance = -(w * log_k).sum(2).T * there
    nats = (model.log_prob(x.masked_fill(~given, NAN)) - model.log_prob(x)).double()
    equal = (nats - distance.sum(1)) / there.sum(1).clamp_min(1)
    found = kernel_nats(model, x, given=given, by_doubt=False)
    torch.testing.assert_close(found, distance + equal[:, None] * there, atol=1e-4, rtol=1e-4)


def test_cells_that_are_beyond_doubt_share_equally():
    x = torch.tensor([[0.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    base = MarginalDenoiser.fit(Codebook([ColumnPoints("real")] * 2), x)
    model = KernelDenoiser(base, x, Widths(real=1e-20))
    each = -model.log_prob(x[:1]).double() / 2
    torch.testing.assert_close(kernel_nats(model, x[:1])[0], each.expand(2), atol=1e-4, rtol=0)


def test_missing_cells_have_no_nats():
    model = density(rows())
    x = rows(20, seed=2, gaps=0.5)
    nats = kernel_nats(model, x)
    assert (nats[x.isnan()] == 0).all()
    assert (kernel_nats(model, torch.full((1, 5), NAN, dtype=torch.float64)) == 0).all()


def test_the_strange_cell_has_the_largest_share():
    x = torch.tensor([[0.0, 0.1], [1.0, -0.1]] * 20, dtype=torch.float64)
    columns = [ColumnPoints("simplex", 2), ColumnPoints("real")]
    (shares,) = kernel_nats(density(x, columns), torch.tensor([[0.0, 3.0]], dtype=torch.float64))
    assert shares[1] > 10 * shares[0]


def test_cells_add_up_to_the_log_probability():
    model = density(rows())
    x = rows(30, seed=1)
    x[:5, 2] = 40.0  # far from all centres
    x[5, 2] = -1e6
    x[6, 0] = 3.0  # never seen
    torch.testing.assert_close(kernel_nats(model, x).sum(1), -model.log_prob(x).double())


def test_a_far_number_finds_no_fault_with_the_others():
    """The centre nearest to it may differ elsewhere, but that is no reason to doubt the other cells."""
    random = np.random.default_rng(0)
    side = random.integers(0, 2, 200)
    x = torch.from_numpy(np.column_stack([side, 2.0 * side + random.normal(0, 0.3, 200)]))
    columns = [ColumnPoints("simplex", 2), ColumnPoints("real")]
    both = torch.tensor([[0.0, 50.0], [0.0, 0.0]], dtype=torch.float64)
    far, near = kernel_nats(density(x, columns), both)
    assert far[0] < near[0] + 0.5
    assert far[1] > 100


def test_of_two_far_numbers_the_farther_has_more():
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (50, 2)))
    base = MarginalDenoiser.fit(Codebook([ColumnPoints("real")] * 2), x)
    row = torch.tensor([[30.0, 60.0]], dtype=torch.float64)
    (nats,) = kernel_nats(KernelDenoiser(base, x, Widths()), row)
    assert 3.5 < nats[1] / nats[0] < 4.5  # as the squares


def test_far_numbers_are_never_typical():
    """Their distances are those from centres near the other cells: together more than the row's nats."""
    random = np.random.default_rng(0)
    kind = random.integers(3, size=300)
    numbers = np.stack([random.normal(kind, 0.3), random.gamma(2.0 + kind)], 1)
    x = torch.from_numpy(np.column_stack([numbers / numbers.std(0) / 2, kind]))
    book = Codebook([ColumnPoints("real"), ColumnPoints("real"), ColumnPoints("simplex", 3)])
    model = KernelDenoiser(MarginalDenoiser.fit(book, x), x, Widths())
    nats = kernel_nats(model, torch.tensor([[500.0, 6.0, z] for z in range(3)]).double())
    assert (nats[:, :2] > 0).all()


def test_properties_the_others_have_what_they_have_without_a_far_number():
    model, x = density(rows()), rows(30, seed=1)
    x[:, 2], missing = 40.0, x.index_fill(1, torch.tensor([2]), NAN)
    others = [0, 1, 3, 4]
    torch.testing.assert_close(
        kernel_nats(model, x)[:, others], kernel_nats(model, missing)[:, others]
    )


SIX = [*[ColumnPoints("simplex", 3)] * 3, ColumnPoints("line", 3, levels=(0.0, 1.0, 2.0))]
SIX += [ColumnPoints("real"), ColumnPoints("code", 3)]


def six(n, *, alike):
    """Rows of six columns that are independent, or nearly the same but for noise."""
    random = np.random.default_rng(0)
    same = random.integers(0, 3, n)

    def column():
        own = random.choice(3, n, p=(0.49, 0.5, 0.01))
        return np.where(random.random(n) < 0.02, own, same) if alike else own

    number = random.normal(0, 0.15, n) + (same - 1 if alike else 0)
    return np.column_stack([column(), column(), column(), column(), number, column()])


@pytest.mark.parametrize("wrong", range(6))
@pytest.mark.parametrize("alike", [False, True])
def test_one_wrong_cell_leaves_the_nats_of_the_others(alike, wrong):
    """Not of every row: a wrong cell of columns that are alike may seem to be right, and the others wrong."""
    x = six(1000, alike=alike)
    usual = x[:, [0, 1, 2, 3, 5]]
    kept = (usual == usual[:, :1]).all(1) if alike else (usual < 2).all(1)
    before = torch.from_numpy(x[kept][:100])
    after = before.clone()
    if wrong != 4:
        after[:, wrong] = (before[:, wrong] + 1) % 3 if alike else 2.0
    else:
        after[:, wrong] = 1 - before[:, wrong].round() if alike else 0.55
    model = KernelDenoiser(
        MarginalDenoiser.fit(Codebook(SIX), torch.from_numpy(x)),
        torch.from_numpy(x),
        Widths(0.1, 0.2, 0.1),
    )
    change = (kernel_nats(model, after) - kernel_nats(model, before)).mean(0)
    others = [j for j in range(6) if j != wrong]
    assert change[wrong] > 2.5
    assert change[others].max() < 0.2


@pytest.mark.parametrize("most_kept", [1, 16])
def test_batches_change_nothing(monkeypatch, most_kept):
    model, x = density(rows()), rows(30, seed=1)
    done = []
    whole = kernel_nats(model, x, done.append)
    assert sum(done) == 30
    monkeypatch.setattr("discrete_itd.denoisers.kernel.BATCH_PAIRS", 160)
    monkeypatch.setattr(detection_kernel, "MOST_KEPT", most_kept)
    done.clear()
    found = kernel_nats(model, x, done.append)
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=1e-5)
    assert max(done) == {1: 2, 16: 4}[most_kept]  # 2 columns are kept


@pytest.mark.parametrize("at_once", [1 << 17, 100])
def test_densities_on_a_grid_are_ratios_of_probabilities(monkeypatch, at_once):
    monkeypatch.setattr("discrete_itd.detection.classes.NUMBERS_AT_ONCE", at_once)
    monkeypatch.setattr("discrete_itd.detection.classes.NUMBERS_KEPT", at_once - 100)
    model, known = density(rows()), rows(6, seed=1)
    known[:, 2] = NAN
    grid = torch.linspace(-2, 2, 17, dtype=torch.float64)
    found = ClassConditionals(KernelClasses(model), known).log_density(2, grid)
    assert found.shape == (6, 17)
    for k, value in enumerate(grid.tolist()):
        whole = known.clone()
        whole[:, 2] = value
        ratio = (model.log_prob(whole) - model.log_prob(known)).double()
        torch.testing.assert_close(found[:, k], ratio, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("most", [5000, 12])
def test_outlyingness_is_the_surprisal_given_the_other_centres(monkeypatch, most):
    """Of rows that are centres, and of rows beyond the largest number of centres."""
    monkeypatch.setattr(detection_kernel, "COARSE_CENTRES", most)
    x = rows(20)
    base = MarginalDenoiser.fit(Codebook(COLUMNS), x)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:most].tolist()
    found = outlyingness(base, x, torch.Generator().manual_seed(0))
    for i in range(20):
        others = x[[k for k in order if k != i]]
        fewer = KernelDenoiser(base, others, COARSE)
        assert found[i].item() == pytest.approx(-fewer.log_prob(x[i : i + 1]).item(), rel=1e-5)


def test_strange_rows_are_seen_among_many(monkeypatch):
    """Also those among them that are like one another, and also where not all rows are centres."""
    random = np.random.default_rng(0)
    x = torch.from_numpy(np.concatenate([random.normal(0, 0.5, 500), random.normal(4, 0.1, 25)]))
    base = MarginalDenoiser.fit(Codebook([ColumnPoints("real")]), x[:, None])
    for most in (5000, 200):
        monkeypatch.setattr(detection_kernel, "COARSE_CENTRES", most)
        generator = torch.Generator().manual_seed(0)
        strange = outlyingness(base, x[:, None], generator)
        assert strange.shape == (525,)
        assert (strange.argsort()[-25:] >= 500).float().mean() > 0.9
