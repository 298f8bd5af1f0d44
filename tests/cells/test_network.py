"""What networks that have not seen a row say of its cells."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from discrete_itd.cells.network import FOLDS, CellNetwork, ColumnCells, folds

pytestmark = pytest.mark.single_precision


def majority(n=900):
    """Three coins, and what most of them show."""
    codes = np.random.default_rng(0).integers(0, 2, (4, n))
    codes[3] = codes[:3].sum(0) > 1
    return codes, np.arange(n) % FOLDS


def fitted(codes, fold):
    """The network of columns that are numbered from 3."""
    alone = np.full(codes.shape[1], 0.5)
    cells = {j + 3: ColumnCells(c, alone, alone / len(c)) for j, c in enumerate(codes)}
    return CellNetwork(cells, fold)


def test_a_cell_that_follows_from_three_others_and_from_two_where_these_agree():
    codes, fold = majority()
    network, rows = fitted(codes, fold), np.arange(0, 900, 7)
    network.ask(rows)
    p, best = network.cells(6)
    assert p.min() > 0.9
    assert (best == (codes[3] if best[0] == codes[3, 0] else 1 - codes[3])).all()
    assert_allclose(network.given(6, rows, -1), p[rows])
    agree = (codes[1] == codes[2])[rows]
    assert network.given(6, rows, 3)[agree].min() > 0.9
    assert_allclose(network.given(6, rows, 3)[~agree], 0.5, atol=0.15)


def test_a_cell_has_no_say_in_its_own_probability():
    codes, fold = majority()
    p, _ = fitted(codes, fold).cells(6)
    codes[3, 7] ^= 1
    changed, _ = fitted(codes, fold).cells(6)
    assert_allclose(changed[7] + p[7], 1, atol=1e-2)
    alike = (fold == fold[7]) & (np.arange(900) != 7)
    assert_allclose(changed[alike], p[alike], atol=1e-6)


def test_folds_are_of_units_and_follow_their_content():
    random = np.random.default_rng(0)
    unit, keys = np.repeat(np.arange(30), 3), random.integers(0, 2**60, 90).astype(np.uint64)
    fold, order = folds(keys, unit), random.permutation(90)
    assert all(len(set(fold[unit == u])) == 1 for u in range(30))
    assert_array_equal(np.bincount(fold), [30] * FOLDS)
    assert_array_equal(folds(keys[order], unit[order]), fold[order])
    assert_array_equal(folds(keys, 29 - unit), fold)
