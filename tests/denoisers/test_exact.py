"""Every exact denoiser against sums over all rows, and both estimators against its closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    BOOKS,
    FEW_EXAMPLES,
    all_rows,
    cases,
    make_book,
    make_denoiser,
    random_rows,
    rounding,
    seeded_generator,
    seeds,
    tables,
    total_mass,
)

from discrete_itd.channel import CoordinateSchedule, Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.likelihood import integral_log_prob, path_log_prob
from discrete_itd.testing import check_denoiser

KINDS = ["mixture", "tree", "trees", "bayes_net", "joined", "forest"]


@pytest.mark.parametrize("kind", KINDS)
@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_exact_denoisers_have_every_property(device, kind, columns, seed):
    """Above all that missing cells are summed over, and that the posterior is a sum over all rows."""
    denoiser = make_denoiser(kind, Codebook(columns).to(device), seed)
    checked = check_denoiser(denoiser, random_state=seed)
    assert {"missing_cells_are_summed_over", "posterior_is_enumerated"} <= set(checked)


@pytest.mark.parametrize(("name", "kind"), cases([*KINDS, "oracle", "marginals"], sorted(BOOKS)))
def test_what_evidence_says_is_a_sum_over_all_rows(device, dtype, name, kind):
    """Its log-probability and its posterior, whatever it is, and whatever is added to a column's."""
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    rng = np.random.default_rng(0)
    rows, levels = all_rows(book), book.levels
    evidence = torch.tensor(rng.normal(size=(9, levels.n_points)) * 2, device=device)
    evidence = evidence.to(book.known_snr)
    log_mass, logits = denoiser.infer(evidence)
    own = levels.index_of(rows.long())
    joint = denoiser.log_prob(rows) + evidence[:, own].sum(2)  # (9, R)
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
    torch.testing.assert_close(log_mass, joint.logsumexp(1), **close)
    ones = torch.zeros(len(rows), levels.n_points, device=device).to(joint).scatter_(1, own, 1.0)
    expected = joint.softmax(1) @ ones
    torch.testing.assert_close(levels.log_softmax(logits).exp(), expected, **close)
    shift = torch.tensor(rng.normal(size=(9, levels.n_columns)), device=device).to(evidence)
    moved = denoiser.infer(evidence + levels.per_level(shift))
    torch.testing.assert_close(moved[0], log_mass + shift.sum(1), **close)
    torch.testing.assert_close(levels.log_softmax(moved[1]).exp(), expected, **close)
    nothing = denoiser.infer(evidence[:0])
    assert [len(part) for part in nothing] == [0, 0]


@pytest.mark.parametrize(("name", "kind"), cases(KINDS))
def test_coordinate_path_is_log_p_in_any_order(device, dtype, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    rows = random_rows(book, 20, np.random.default_rng(1), missing=0.1)
    # a known value is one known to a hundred thousandth
    loose = {"atol": rounding(dtype, 3) + 1e-7, "rtol": rounding(dtype) + 1e-7}
    for order in (None, tuple(range(book.n_columns))[::-1]):
        plan = CoordinateSchedule(book.n_columns, order)
        got = path_log_prob(denoiser, rows, plan, n_paths=3, generator=seeded_generator(0, device))
        torch.testing.assert_close(got.log_prob, denoiser.log_prob(rows).double(), **loose)
        assert got.stderr.max() < rounding(dtype, 10) + 1e-6


@pytest.mark.parametrize(("name", "kind"), cases(KINDS, ["mixed", "open"]))
def test_integral_is_log_p(device, name, kind):
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    high = 60 * float(book.known_snr.max()) / 2000
    got = integral_log_prob(
        denoiser,
        all_rows(book),
        Quadrature(torch.tensor([math.log(1e-3), math.log(high)]), torch.ones(1)).to(device),
        n_points=1 << 12,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    error = (got.log_prob - denoiser.log_prob(all_rows(book))).abs()
    assert (error < 4.5 * got.stderr + 2e-4).all(), (error / got.stderr).max()
    assert got.stderr.max() < 0.3
    mass, stderr = total_mass(got)
    assert mass == pytest.approx(1, abs=4 * stderr)
