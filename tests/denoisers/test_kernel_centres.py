"""Centres that are averages of rows: groups of near rows, averages cell by cell, and no row of the table."""

import numpy as np
import pandas as pd
import pytest
import torch
from laws import make_book, random_marginals, random_rows, rounding, seeded_generator
from safetensors.torch import load_file

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.denoisers import KernelDenoiser
from discrete_itd.denoisers.kernel_centres import averages, neighbours
from discrete_itd.denoisers.kernel_products import Centres, Kernels, Widths
from discrete_itd.detection.scoring import Scorer

BOOKS = ["mixed", "open", "only words", "all kinds", "reals and levels"]


def kernels_of(name, n, device, seed=0):
    book, rng = make_book(name, device), np.random.default_rng(seed)
    rows = random_rows(book, n, rng, missing=0.2).to(device)
    return Kernels(random_marginals(book, rng), Centres(book, rows), Widths())


def naive(cells, kind):
    """The average of one column of a group, NaN for none."""
    there = cells[~np.isnan(cells)]
    if 2 * len(there) <= len(cells):
        return np.nan
    if kind == "real":
        return there.mean()
    if kind == "line":
        return np.sort(there)[(len(there) - 1) // 2]
    values, counts = np.unique(there, return_counts=True)
    return values[counts.argmax()] if 2 * counts.max() > len(there) else np.nan


@pytest.mark.parametrize("name", BOOKS)
@pytest.mark.parametrize(("n", "size"), [(6, 3), (200, 3), (301, 2), (160, 7)])
def test_records_are_in_one_group_at_most_and_averaged_cell_by_cell(name, n, size, device):
    kernels, records = kernels_of(name, n, device), torch.arange(n) // 2
    alone, groups = (neighbours(kernels, size, r) for r in (torch.arange(n), records))
    assert alone.shape == (n // size, size)
    for found in (alone, groups):
        assert len(found.unique()) == found.numel()
    assert all(len(records[group].unique()) == size for group in groups)
    assert len(np.unique(records.numpy()[np.setdiff1d(range(n), groups)])) < size  # what is left
    cells, columns = kernels.centres.cells.cpu().numpy(), kernels.base.codebook.columns
    got = averages(kernels, size).cpu().numpy()
    for group, average in zip(alone.numpy(), got, strict=True):
        own = cells[group]
        expected = [naive(own[:, j], c.kind) for j, c in enumerate(columns)]
        kept = ~np.isnan(average)  # others may be suppressed
        assert np.allclose(average[kept], np.array(expected)[kept])


@pytest.mark.parametrize("name", BOOKS)
def test_a_centre_is_equal_to_no_row_or_to_those_of_many_records(name, device):
    kernels, records = kernels_of(name, 240, device), torch.arange(240) // 2
    cells, centres = (
        kernels.centres.cells.cpu().numpy(),
        averages(kernels, 3, records).cpu().numpy(),
    )
    assert (~np.isnan(centres)).any()
    for centre in centres:
        has = ~np.isnan(centre)
        equal = (cells[:, has] == centre[has]).all(1)
        assert not 0 < len(np.unique(records.numpy()[equal])) < 3
    assert averages(kernels_of(name, 2, device), 3).isnan().all()


def test_rows_are_grouped_with_those_near_them(device):
    book, rng = make_book("reals and levels", device), np.random.default_rng(0)
    apart = random_rows(book, 40, rng)
    apart[:, book.reals] = 5 * torch.arange(40.0).to(apart)[:, None]  # a width is 0.1
    rows = apart.repeat(3, 1)[torch.from_numpy(rng.permutation(120))]
    kernels = Kernels(random_marginals(book, rng), Centres(book, rows), Widths())
    assert torch.equal(averages(kernels, 3).unique(dim=0), apart.unique(dim=0))


def test_equal_rows_have_themselves_as_their_average_and_keep_their_density(device):
    book, rng = make_book("all kinds", device), np.random.default_rng(1)
    base, one = random_marginals(book, rng), random_rows(book, 1, rng)
    rows = one.repeat(30, 1)
    plain, averaged = (
        KernelDenoiser.fit(base, rows, seeded_generator(0, device), None, n) for n in (1, 3)
    )
    new = random_rows(book, 50, rng)
    assert len(averaged.centres) == 10
    assert averaged.widths == plain.widths
    assert torch.allclose(averaged.log_prob(new), plain.log_prob(new), atol=rounding(book.dtype))


def mixed_table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n)
    return pd.DataFrame(
        {
            "kind": np.array(["a", "b", "c"])[kind],
            "count": rng.poisson(3 + kind),
            "length": rng.normal(kind, 0.3),
            "weight": rng.gamma(2 + kind),
        }
    )


def few_numbers(n=600, seed=0):
    """Nearly all of a row are categories: few combinations occur twice."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(8, size=(n, 6)).astype(str), columns=list("abcdef"))
    return table.assign(claims=np.where(rng.random(n) < 0.95, 0.0, rng.gamma(2.0, 100.0, n)))


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("make", [mixed_table, few_numbers])
def test_no_centre_is_a_record_of_the_table(make, weight):
    table = make()
    detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.05, random_state=0)
    detector.fit(table, sample_weight=np.full(len(table), weight))
    rows = detector.rows(table).x
    centres = detector._scorer.kernel.centres.double()
    near = torch.isclose(rows[:, None], centres[None], atol=1e-6) | centres.isnan()
    assert not (near.all(2).sum(0) == 1).any()


@pytest.mark.parametrize("keep_rows", [False, True])
def test_a_file_holds_training_rows_only_if_they_are_to_be_kept(keep_rows, tmp_path):
    table = mixed_table()
    detector = DiffusionOutlierDetector(
        denoiser="tree", keep_rows=keep_rows, false_alarm_rate=0.05, random_state=0
    )
    detector.fit(table).save(tmp_path / "detector")
    rows = detector.rows(table).x
    # numbers of one column in its order in any tensor of the file, in its width of double or less
    found = set()
    for name, tensor in load_file(tmp_path / "detector").items():
        if tensor.ndim == 2 and tensor.shape[1] == rows.shape[1] and tensor.is_floating_point():
            near = (rows.float()[:, None] - tensor.float()[None]).abs().amax(2) < 1e-6
            found |= {name} if near.any() else set()
    assert found == ({"kernel.centres"} if keep_rows else set())
    other = DiffusionOutlierDetector.load(tmp_path / "detector")
    assert np.array_equal(other.score_samples(table), detector.score_samples(table))
    assert other._scorer.kernel.n_averaged == (1 if keep_rows else 3)
    assert ("training rows as they are" in other.model_card()) == keep_rows
    tensors = detector._scorer.to_tensors()
    for wrong in (0, -1, 10**18, [1, 1]):
        tensors["kernel.n_averaged"] = torch.tensor(wrong).reshape(-1)
        with pytest.raises(ValueError, match="averaged"):
            Scorer.from_tensors(detector.density_, tensors)
