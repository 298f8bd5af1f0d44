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
from discrete_itd.detection.kernel import COARSE, kernel_nats, outlyingness

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


def naive_shares(model, x):
    """The definition, cell by cell, for rows without far values."""
    kernels, n = model.kernels, len(model.centres)
    log_k = []  # by column: (B, n)
    for j in range(x.shape[1]):
        alone = torch.full_like(x, NAN)
        alone[:, j] = x[:, j]
        log_k.append(kernels.log_kernels(alone).double())
    w = torch.softmax(sum(log_k), 1)
    there = (~x.isnan()).double()
    few = (w * (n * w).log()).sum(1, keepdim=True)
    far = -torch.stack([(w * k).sum(1) for k in log_k], 1)
    return far * there + few * there / there.sum(1, keepdim=True)


def test_shares_are_the_distance_from_the_centres_and_their_scarcity():
    model, x = density(rows()), rows(30, seed=1)
    torch.testing.assert_close(kernel_nats(model, x), naive_shares(model, x), atol=1e-4, rtol=1e-4)


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


def test_batches_change_nothing(monkeypatch):
    model, x = density(rows()), rows(30, seed=1)
    done = []
    whole = kernel_nats(model, x, done.append)
    assert sum(done) == 30
    monkeypatch.setattr("discrete_itd.denoisers.kernel.BATCH_PAIRS", 80)
    torch.testing.assert_close(kernel_nats(model, x), whole)


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
