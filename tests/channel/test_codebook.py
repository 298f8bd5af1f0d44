"""Rows to points: which coordinates belong to which column, for all families at once."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    BOOKS,
    LAW,
    WIDER_BOOKS,
    line,
    make_book,
    numpy_point,
    random_rows,
    real,
    rounding,
    seeds,
    simplex,
    wide_tables,
)

from discrete_itd.channel.codebook import Codebook


@LAW
@given(wide_tables, seeds)
def test_rows_have_the_points_of_their_columns(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rows = random_rows(book, 5, np.random.default_rng(seed))
    x = book.embed(rows)
    assert x.dtype == dtype
    assert x.shape == (5, book.n_coords)
    place = book.coord_column.cpu().numpy()
    for j, points in enumerate(columns):
        cells = rows[:, j].cpu().numpy()
        is_real = points.kind == "real"
        expected = np.stack([[k] if is_real else numpy_point(points, int(k)) for k in cells])
        mine = x[:, place == j].cpu().double().numpy()
        np.testing.assert_allclose(mine, expected, atol=rounding(dtype))
    wide = torch.stack([rows[:, j] for j in place], 1)
    assert torch.equal(book.per_coord(rows), wide)


@LAW
@given(wide_tables, seeds)
def test_missing_cells_have_some_finite_point_and_disturb_no_other(device, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    rows = random_rows(book, 5, rng)
    missing = torch.tensor(rng.random(rows.shape) < 0.5, device=device)
    x = book.embed(rows.masked_fill(missing, math.nan))
    assert x.isfinite().all()
    there = book.per_coord(~missing)
    assert torch.equal(x[there], book.embed(rows)[there])


def test_missingness_indicators_come_first(device):
    """On paths before all columns, in other orders directly before their own."""
    columns = [simplex(2), real(), simplex(2), simplex(3)]
    book = Codebook(columns, leading=[2, 0], indicator={1: 2, 3: 0}).to(device)
    assert book.leading.tolist() == [True, False, True, False]
    assert book.has_leading
    assert book.in_order(range(4)) == [2, 1, 0, 3]
    assert book.in_order([3, 2, 0]) == [0, 3, 2]
    x = torch.tensor([[0.0, math.nan, 1.0, 2.0], [1.0, 0.5, 0.0, math.nan]], device=device)
    absent = [[False, True, False, False], [False, False, False, True]]
    assert book.is_absent(x).tolist() == absent
    none = Codebook(columns)
    assert not none.has_leading
    assert not none.leading.any()
    assert none.in_order(range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_kinds_share_out_columns_and_coordinates(device, name):
    book = make_book(name, device)
    assert sorted([*book.finite.tolist(), *book.reals.tolist()]) == [*range(book.n_columns)]
    assert book.real_coords == slice(book.levels.n_coords, book.n_coords)
    n_points = sum(c.n_points for c in book.columns)
    assert book.work == n_points + 8 * len(book.reals)
    assert book.device.type == torch.device(device).type


def test_known_snrs_are_those_of_the_columns(device):
    columns = (line(0.0, 0.5), real(), simplex(3), simplex(7))
    book = Codebook(columns).to(device)
    assert book.known_snr.tolist() == pytest.approx([c.known_snr for c in columns])


def test_a_table_without_columns_is_refused():
    with pytest.raises(ValueError, match="at least one column"):
        Codebook([])
