"""Every operation on the flat layout against a loop over columns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import (
    LAW,
    line,
    numpy_evidence,
    numpy_point,
    random_rows,
    random_state,
    rounding,
    seeds,
    tables,
)

from discrete_itd.channel.codebook import KNOWN_NATS, Codebook, ColumnPoints, Levels

RAGGED = tables(sizes=(1, 2, 5, 31, 32, 33, 40), max_columns=6)  # both sides of the threshold


def make_levels(columns, device):
    return Levels(columns).to(device)


def split(book, values):
    """(B, T) as one numpy array (B, K_j) per column."""
    column, level = book.level_column.cpu(), book.level_code.cpu()
    out = []
    for j in range(book.n_columns):
        levels = torch.nonzero(column == j).flatten()
        levels = levels[level[levels].argsort()]
        assert level[levels].tolist() == list(range(book.columns[j].n_points))
        out.append(values.cpu()[:, levels].double().numpy())
    return out


@LAW
@given(RAGGED, seeds)
def test_reductions_equal_a_loop_over_columns(device, dtype, columns, seed):
    book = make_levels(columns, device)
    rng = np.random.default_rng(seed)
    values = torch.tensor(rng.normal(0, 3, (4, book.n_points)), device=device).to(dtype)
    tol = rounding(dtype)
    sums, lses, best, soft = (
        book.sum(values).cpu().numpy(),
        book.logsumexp(values).cpu().numpy(),
        book.argmax(values).cpu().numpy(),
        split(book, book.log_softmax(values)),
    )
    for j, v in enumerate(split(book, values)):
        total = np.log(np.exp(v).sum(1))
        np.testing.assert_allclose(sums[:, j], v.sum(1), atol=10 * tol)
        np.testing.assert_allclose(lses[:, j], total, atol=tol)
        np.testing.assert_array_equal(best[:, j], v.argmax(1))
        np.testing.assert_allclose(soft[j], v - total[:, None], atol=tol)


@LAW
@given(st.one_of(st.just([]), RAGGED), seeds)
def test_slots_spread_by_column_and_are_gathered_again(device, dtype, columns, seed):
    book = make_levels(columns, device)
    values = torch.tensor(np.random.default_rng(seed).normal(size=(4, book.n_points))).to(dtype)
    values = values.to(device)
    for rows in (values, values[:0]):
        spread = book.spread(rows, -7.0)
        assert spread.shape == (len(rows), len(columns), book.widest)
        for j, v in enumerate(split(book, rows)):
            np.testing.assert_array_equal(spread[:, j, : v.shape[1]].cpu().numpy(), v)
            assert (spread[:, j, v.shape[1] :] == -7.0).all()
        assert torch.equal(book.gather(spread), rows)


@LAW
@given(RAGGED, seeds)
def test_points_equal_their_definition(device, dtype, columns, seed):
    book = make_levels(columns, device)
    rng = np.random.default_rng(seed)
    rows = random_rows(book, 5, rng).long()
    probs = book.log_softmax(torch.tensor(rng.normal(size=(5, book.n_points))).to(book.level_value))
    x, mean = book.embed(rows).cpu().numpy(), book.mean(probs.exp()).cpu().numpy()
    values = split(book, probs)
    at = book.at(probs, rows).cpu().numpy()
    level = book.index_of(rows)
    assert torch.equal(book.level_code[level], rows)
    assert (book.level_column[level] == torch.arange(book.n_columns, device=device)).all()
    for j, points in enumerate(columns):
        mine = book.coord_column.cpu().numpy() == j
        e = np.stack([numpy_point(points, k) for k in range(points.n_points)])
        code = rows[:, j].cpu().numpy()
        np.testing.assert_allclose(x[:, mine], e[code], atol=rounding(dtype))
        np.testing.assert_allclose(mean[:, mine], np.exp(values[j]) @ e, atol=rounding(dtype))
        np.testing.assert_array_equal(at[:, j], values[j][np.arange(5), code].astype(at.dtype))
    assert x.shape[1] == sum(len(numpy_point(c, 0)) for c in columns)
    wide = torch.stack([rows[:, j] for j in book.level_column], 1)
    assert torch.equal(book.per_level(rows), wide)


@LAW
@given(tables(sizes=(1, 2, 4, 33)), seeds)
def test_evidence_is_formula_2_up_to_a_constant_per_column(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    _, y, snr = random_state(book, rng, 6)
    levels = book.levels
    ell = levels.evidence(y, snr)
    assert ell.isfinite().all()
    got = split(levels, levels.log_softmax(ell))
    y, snr = y.double().cpu().numpy(), snr.double().cpu().numpy()
    for j in range(book.n_columns):
        for row in range(6):
            naive = numpy_evidence(book, y[row], snr[row], j)
            naive = naive - np.logaddexp.reduce(naive)
            if np.isinf(snr[row, j]):
                assert got[j][row].max() == 0
                assert (got[j][row][naive < 0] <= -0.99 * KNOWN_NATS).all()
                assert got[j][row].argmax() == naive.argmax()
            else:
                np.testing.assert_allclose(
                    got[j][row], naive, atol=rounding(dtype, 3), rtol=rounding(dtype, 0.02)
                )


@pytest.mark.parametrize("snr", [0.0, 1e-6, 1.0, 1e4, 1e6, 1e8, math.inf])
@pytest.mark.parametrize("is_open", [False, True])
def test_line_keeps_its_digits_in_float32(device, snr, is_open):
    torch.set_default_dtype(torch.float32)
    book = make_levels([line(*(k / 255 for k in range(256)), is_open=is_open)], device)
    rows = torch.tensor([[0], [17], [128], [255]], device=device)
    x = book.embed(rows)
    gamma = torch.full((4, 1), snr, device=device)
    xi = torch.tensor(np.random.default_rng(0).normal(size=x.shape)).to(x)
    y = x if math.isinf(snr) else gamma * x + gamma.sqrt() * xi
    ell = book.log_softmax(book.evidence(y, gamma))
    assert ell.isfinite().all()
    if math.isinf(snr):
        assert torch.equal(book.argmax(ell), rows)
        assert ell.exp().sum().item() == 4
        return
    e = np.zeros((256 + is_open, x.shape[1]))
    e[:256, 0] = book.level_value.cpu().double().numpy()[:256]  # the levels as float32 has them
    e[256:, -1] = book.level_value[-1].item()
    naive = y.cpu().double().numpy() @ e.T - snr * (e**2).sum(1) / 2
    naive = naive - np.logaddexp.reduce(naive, axis=1, keepdims=True)
    close = naive > -20
    # the plain formula y e - γ e²/2 is off by 6 nats at 1e8
    assert abs(ell.cpu().double().numpy() - naive)[close].max() < (0.1 if snr > 1e6 else 2e-3)


@LAW
@given(tables())
def test_known_snr_tells_neighbours_apart_by_the_promised_nats(columns):
    for points in columns:
        e = np.stack([numpy_point(points, k) for k in range(points.n_points)])
        distance = np.linalg.norm(e[:, None] - e, axis=2) + 1e9 * np.eye(len(e))
        if len(e) > 1:
            nats = points.known_snr * distance.min() ** 2 / 2
            assert nats >= KNOWN_NATS * (1 - 1e-9)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_no_columns_have_no_levels(device, n):
    levels = make_levels([], device)
    empty = torch.zeros(n, 0, device=device)
    codes = torch.zeros(n, 0, dtype=torch.int64, device=device)
    assert (levels.n_columns, levels.n_points, levels.n_coords) == (0, 0, 0)
    for result in (
        levels.embed(codes), levels.at(empty, codes), levels.log_softmax(empty), levels.sum(empty),
        levels.logsumexp(empty), levels.argmax(empty), levels.mean(empty), levels.evidence(empty, empty),
    ):  # fmt: skip
        assert result.shape == (n, 0)
    assert levels.argmax(empty).dtype == torch.int64


@pytest.mark.parametrize(
    ("kind", "n", "levels", "message"),
    [
        ("simplex", 0, (), "at least one category"),
        ("line", 2, (0.0,), "2 levels announced, 1 given"),
        ("line", 2, (1.0, 1.0), "increasing"),
        ("line", 3, (0.0, 2.0, 1.0), "increasing"),
        ("line", 2, (0.0, math.nan), "increasing"),
    ],
)
def test_wrong_columns_are_refused(kind, n, levels, message):
    with pytest.raises(ValueError, match=message):
        ColumnPoints(kind, n, levels=levels)


@pytest.mark.parametrize("kwargs", [{"n_levels": 2}, {"open": True}, {"levels": (1.0,)}])
def test_a_real_column_has_no_categories(kwargs):
    assert ColumnPoints("real").n_points == 0
    with pytest.raises(ValueError, match="no categories"):
        ColumnPoints("real", **kwargs)
