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
    code,
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
from discrete_itd.channel.points import CODE_LENGTH, KNOWN_NATS, VERTEX


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
    columns = [simplex(2), real(), simplex(2), code(3)]
    book = Codebook(columns, leading=[2, 0]).to(device)
    assert book.leading.tolist() == [True, False, True, False]
    assert book.leading_columns == (0, 2)
    assert book.leading_first == (0, 2, 1, 3)
    assert book.has_leading
    none = Codebook(columns)
    assert not none.has_leading
    assert not none.leading.any()
    assert none.leading_first == (0, 1, 2, 3)


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_memory_and_time_are_of_levels_numbers_and_words(device, name):
    book = make_book(name, device)
    kinds = [c.kind for c in book.columns]
    n_points = [c.n_points for c in book.columns]
    finite = sum(n for n, k in zip(n_points, kinds, strict=True) if k in ("simplex", "line"))
    words = sum(n for n, k in zip(n_points, kinds, strict=True) if k == "code")
    assert book.size == finite + 8 * kinds.count("real") + 64 * kinds.count("code")
    assert book.work == book.size + words


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_families_share_out_columns_and_coordinates(device, name):
    book = make_book(name, device)
    words = [v.column for v in book.vocabularies]
    assert sorted([*book.finite.tolist(), *book.reals.tolist(), *words]) == list(
        range(book.n_columns)
    )
    ends = [0, book.levels.n_coords, book.real_coords.start, book.real_coords.stop]
    assert ends[1] == ends[2]
    for v in book.vocabularies:
        ends += [v.coords.start, v.coords.stop]
        assert v.codes.shape == (v.n_points, CODE_LENGTH)
    assert ends == sorted(ends)
    assert ends[-1] == book.n_coords
    assert book.size > 0
    assert book.device.type == torch.device(device).type


def test_codes_of_a_large_vocabulary_lie_apart(device):
    """Far enough for the finite SNR that stands for a known word, and always alike."""
    n = 5000
    vocabulary = Codebook([code(n, is_open=True)]).to(device).vocabularies[0]
    codes = vocabulary.codes.double()
    torch.testing.assert_close(
        codes[:n].norm(dim=1), codes.new_full((n,), VERTEX), rtol=1e-6, atol=0
    )
    assert not codes[n].any()  # what was never seen lies in the middle
    most = -1.0
    for numbers in torch.arange(n, device=device).split(1000):
        products = vocabulary.codes[numbers].float() @ vocabulary.codes[:n].float().T
        most = max(most, float(products.scatter(1, numbers[:, None], -1.0).max()))
    assert 2 * (VERTEX**2 - most) > 0.4**2  # squared distance; most are one apart
    assert KNOWN_NATS <= 2e5 * 0.1**2 / 2  # the promise of the code's own scale
    again = Codebook([simplex(2), code(30)]).to(device).vocabularies[0].codes
    assert torch.equal(again, vocabulary.codes[:30])
    assert abs(codes[:n].mean(0)).max() < 5 * VERTEX / math.sqrt(CODE_LENGTH * n)
    spread = np.linalg.eigvalsh((codes[:n].T @ codes[:n] / n).cpu().numpy())
    np.testing.assert_allclose(
        spread, VERTEX**2 / CODE_LENGTH, rtol=0.2
    )  # no direction is preferred


def test_known_snrs_are_those_of_the_columns(device):
    columns = (line(0.0, 0.5), real(), simplex(3), code(7))
    book = Codebook(columns).to(device)
    assert book.known_snr.tolist() == pytest.approx([c.known_snr for c in columns])


def test_a_table_without_columns_is_refused():
    with pytest.raises(ValueError, match="at least one column"):
        Codebook([])
