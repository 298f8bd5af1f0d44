"""Every exact denoiser against sums over all rows, and both estimators against its closed form."""

import math

import numpy as np
import pytest
import torch
from laws import (
    BOOKS,
    WIDER_BOOKS,
    all_rows,
    cases,
    make_book,
    make_denoiser,
    random_rows,
    random_state,
    rounding,
    seeded_generator,
)

from discrete_itd.channel import CoordinateSchedule, Quadrature, State
from discrete_itd.likelihood import integral_log_prob, path_log_prob

KINDS = [
    "mixture", "tree", "trees", "bayes_net", "forest", "exact mixture",
]  # fmt: skip
DEPENDENT = [*KINDS, "correlated"]  # with continuous columns


@pytest.mark.parametrize(
    ("name", "kind"), cases(["tree", "bayes_net", "oracle", "marginals"], sorted(BOOKS))
)
def test_what_evidence_says_is_a_sum_over_all_rows(device, dtype, name, kind):
    """Its log-probability and its posterior, of noisy, known and unknown cells."""
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    rng = np.random.default_rng(0)
    rows, levels = all_rows(book), book.levels
    _, *state = random_state(book, rng, 9)
    evidence = denoiser.evidence(*state)
    log_mass, q = denoiser.infer(*state)
    own = levels.index_of(rows.long())
    joint = denoiser.log_prob(rows) + evidence[:, own].sum(2)  # (9, R)
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
    torch.testing.assert_close(log_mass, joint.logsumexp(1), **close)
    ones = torch.zeros(len(rows), levels.n_points, device=device).to(joint).scatter_(1, own, 1.0)
    expected = joint.softmax(1) @ ones
    torch.testing.assert_close(q.categorical.probs, expected, **close)
    log_mass, q = denoiser.infer(*(t[:0] for t in state))
    assert [len(log_mass), len(q.mean())] == [0, 0]


@pytest.mark.parametrize(("name", "kind"), cases([*DEPENDENT, "marginals"], [*WIDER_BOOKS]))
def test_what_other_columns_say_is_an_integral(device, dtype, name, kind):
    """The probability of noisy evidence, by quadrature over numbers and sums over categories.

    One noisy column besides known and unknown cells: (1) for which the constant is that of the definition.
    """
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 0)
    rng, n = np.random.default_rng(2), 6
    for j in range(book.n_columns):
        rows, y, snr = random_state(book, rng, n)
        rows = rows.masked_fill(snr != math.inf, math.nan)
        noisy = torch.tensor(rng.uniform(0.1, 5, n)).to(snr)
        snr = snr.masked_fill((snr != math.inf), 0.0)
        snr[:, j], rows[:, j] = noisy, math.nan
        at = torch.nonzero(book.coord_column == j).flatten()
        y = torch.where(book.per_coord(snr == 0), 0.0, y)
        y[:, at] = torch.tensor(rng.normal(size=(n, len(at)))).to(y)
        points = book.columns[j].n_points or 4001
        cells = torch.arange(points, device=device).double()
        if book.columns[j].kind == "real":
            cells = torch.linspace(-9, 9, points, device=device).double()
        every = rows.repeat_interleave(points, 0)
        every[:, j] = cells.repeat(n)
        e = book.embed(every)[:, at].double().unflatten(0, (n, points))
        own = y[:, None, at].double()
        evidence = (own * e).sum(2) - noisy[:, None].double() * e.square().sum(2) / 2
        if book.columns[j].kind == "real":
            evidence = (
                evidence - (own**2).sum(2) / noisy[:, None].double() / 2 + math.log(18 / 4000)
            )
        joint = denoiser.log_prob(every).double().unflatten(0, (n, points))
        got = denoiser.infer(y, snr)[0].double() - (joint + evidence).logsumexp(1)
        if (
            book.columns[j].kind == "real"
        ):  # else a constant of the state, the same for all denoisers
            jumps = 0.02 if kind == "forest" else 3e-4  # of a density in boxes
            torch.testing.assert_close(got, torch.zeros_like(got), atol=jumps, rtol=0)
            continue
        other = make_denoiser("marginals", book, 3)
        joint = other.log_prob(every).double().unflatten(0, (n, points))
        constant = other.infer(y, snr)[0].double() - (joint + evidence).logsumexp(1)
        close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype)}
        torch.testing.assert_close(got, constant, **close)


@pytest.mark.parametrize(("name", "kind"), cases(DEPENDENT))
def test_conditionals_are_differences_of_log_probabilities(device, dtype, name, kind):
    """log P(a | b) = log P(a, b) - log P(b): of the posterior where b is known, and of paths from there."""
    book = make_book(name, device)
    denoiser = make_denoiser(kind, book, 1)
    rng = np.random.default_rng(3)
    rows = random_rows(book, 12, rng, missing=0.1)
    given = torch.arange(book.n_columns, device=device) % 2 == 0
    known = rows.masked_fill(~given, math.nan)
    loose = {"atol": rounding(dtype, 3) + 1e-7, "rtol": rounding(dtype) + 1e-7}
    expected = (denoiser.log_prob(rows) - denoiser.log_prob(known)).double()
    got = path_log_prob(
        denoiser, rows, CoordinateSchedule(book.n_columns), given=given, n_paths=2,
        generator=seeded_generator(0, device),
    )  # fmt: skip
    torch.testing.assert_close(got.log_prob, expected, **loose)
    q = denoiser(*State.start(book, book.embed(known), ~known.isnan())).log_prob(rows).double()
    for j in torch.nonzero(~given).flatten().tolist():
        one = known.clone()
        one[:, j] = rows[:, j]
        expected = (denoiser.log_prob(one) - denoiser.log_prob(known)).double()
        torch.testing.assert_close(q[:, j], expected.masked_fill(rows[:, j].isnan(), 0.0), **loose)


@pytest.mark.parametrize(("name", "kind"), cases(DEPENDENT, ["reals and levels", "mixed"]))
def test_integral_is_log_p_of_numbers_and_with_gaps(device, name, kind):
    """(4), against independent columns."""
    book = make_book(name, device)
    denoiser, baseline = make_denoiser(kind, book, 0), make_denoiser("marginals", book, 4)
    n = 4 if kind == "forest" else 12  # leaves and noisy numbers take time
    rows = random_rows(book, n, np.random.default_rng(5), missing=0.3)
    got = integral_log_prob(
        denoiser,
        rows,
        Quadrature(torch.tensor([math.log(1e-3), math.log(3e3)]), torch.ones(1)).to(device),
        baseline=baseline,
        n_points=1 << 9,
        generator=seeded_generator(0, device),
        batch_size=1 << 15,
    )
    error = (got.log_prob - denoiser.log_prob(rows)).abs()
    assert (error < 4.5 * got.stderr + 1e-3).all(), (error / got.stderr).max()
    assert got.stderr.max() < 1
