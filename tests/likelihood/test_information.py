"""Pointwise information: its mean is the mutual information, where everything can be listed."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from laws import (
    BOOKS,
    all_rows,
    make_book,
    make_denoiser,
    mse_curve,
    random_oracle,
    rounding,
    seeded_generator,
    simplex,
)

from discrete_itd import DiffusionDensity
from discrete_itd.channel import Quadrature
from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import Denoiser, SupportDenoiser
from discrete_itd.likelihood import integral_log_prob
from discrete_itd.likelihood.information import pointwise_information

WIDE = Quadrature.logistic(1.0, 2.0, low=-9.0, high=7.0)


def information_of(denoiser, rows, informing, quadrature, seed=0, **options):
    generator = seeded_generator(seed, rows.device)
    return pointwise_information(
        denoiser, rows, informing, quadrature, generator=generator, **options
    )


def mask(n, *columns):
    return torch.tensor([j in columns for j in range(n)])


def entropy(log_p, keys):
    """Of the columns by whose values rows are told apart."""
    p: dict[tuple, float] = {}
    for key, log in zip(keys.tolist(), log_p.tolist(), strict=True):
        p[tuple(key)] = p.get(tuple(key), 0.0) + math.exp(log)
    return -sum(v * math.log(v) for v in p.values())


@pytest.mark.parametrize("given", [(), (2,)])
def test_the_mean_is_mutual_information(device, given):
    """Over the rows of the truth itself: I(x; y), or I(x; y | given)."""
    book = Codebook([simplex(2), simplex(3), simplex(2)]).to(device)
    oracle = random_oracle(book, np.random.default_rng(1))
    x, log_p = oracle.support, oracle.log_probs.double()
    told = information_of(
        oracle,
        x,
        mask(3, 0).to(device),
        WIDE,
        given=mask(3, *given).to(device) if given else None,
        n_points=2000,
        batch_size=1 << 15,
    )
    p = log_p.exp()
    mean = float((p * told.nats.sum(1)).sum())
    error = float((p * told.stderr).square().sum().sqrt())
    known = [2] if given else []
    others = [1] if given else [1, 2]

    def h(columns):
        return entropy(log_p, x[:, columns]) if columns else 0.0

    expected = h([0, *known]) + h(others + known) - h([0, 1, 2]) - h(known)
    assert mean == pytest.approx(expected, abs=5 * error + 2e-3)
    gap, error = float((p * told.gap).sum()), float((p * told.gap_stderr).square().sum().sqrt())
    assert gap == pytest.approx(expected, abs=5 * error + 2e-3)
    assert expected > 0.01  # there is something to be found
    assert (told.nats >= 0).all()
    assert (told.nats[:, [0, *known]] == 0).all()


def test_the_gap_is_the_difference_of_two_code_lengths(device):
    """(17) is (3) without the informing column less (3) given it, also of a network that is not exact."""
    book = make_book("mixed", device)
    network, rows, one = make_denoiser("network", book, 3), all_rows(book), mask(3, 0).to(device)
    options = {"n_points": 4000, "batch_size": 1 << 15}
    found = information_of(network, rows, one, WIDE, **options)
    without, given = (
        integral_log_prob(
            network, x, WIDE, given=g, generator=seeded_generator(1, device), **options
        )
        for x, g in ((rows.masked_fill(one, math.nan), None), (rows, one))
    )
    errors = torch.stack([found.gap_stderr, without.stderr, given.stderr]).norm(dim=0)
    assert ((found.gap - (given.log_prob - without.log_prob)).abs() < 4 * errors + 2e-3).all()
    assert found.gap.abs().max() > 0.02
    assert (found.gap < 0).any()
    informed = information_of(network, rows, one, WIDE, informed=mask(3, 1).to(device), **options)
    alone = information_of(
        network, rows.masked_fill(mask(3, 2).to(device), math.nan), one, WIDE, **options
    )
    torch.testing.assert_close(informed.gap, alone.gap)
    assert not informed.nats[:, 2].any()


@pytest.mark.parametrize("kind", ["marginals", "network", "mixture"])
@pytest.mark.parametrize("name", BOOKS)
def test_is_never_negative_and_zero_where_columns_are_independent(device, kind, name):
    book = make_book(name, device)
    if book.n_columns < 2 or (kind == "mixture" and book.vocabularies):
        pytest.skip("there is nobody to inform, or no such denoiser")
    denoiser = make_denoiser(kind, book, 0)
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(
        np.stack([rng.integers(max(1, c.n_levels), size=6) for c in book.columns], 1)
    ).double()
    rows[0, 0], rows[1, 1] = math.nan, math.nan
    informing = mask(book.n_columns, 0).to(device)
    told = information_of(denoiser, rows.to(device), informing, WIDE, n_points=16)
    assert (told.nats >= 0).all()
    assert told.stderr.isfinite().all()
    assert told.nats[0].sum() == 0  # its informing cell is missing
    assert told.nats[1, 1] == 0
    if kind == "marginals":
        assert told.nats.abs().max() == 0


class Deaf(Denoiser):
    """A denoiser that hears what is known, but nothing through noise."""

    def __init__(self, inner):
        super().__init__(inner.codebook)
        self.inner = inner

    def forward(self, y, snr):
        known = torch.isinf(snr)
        heard = self.codebook.per_coord(known)
        return self.inner(y.masked_fill(~heard, 0.0), snr.masked_fill(~known, 0.0))


@pytest.mark.parametrize(("low", "given"), [(0.01, ()), (0.5, (2,)), (3.5, ())])
def test_all_noise_counts_wherever_the_quadrature_begins(device, dtype, low, given):
    """Two guesses that noise does not change differ by the same at every SNR: half the difference times the highest."""
    book = make_book("mixed", device)
    deaf = Deaf(random_oracle(book, np.random.default_rng(3)))
    rows, high = all_rows(book), 4.0
    told = information_of(
        deaf,
        rows,
        mask(3, 0).to(device),
        Quadrature(torch.tensor([low, high]).log(), torch.ones(1)).to(device),
        given=mask(3, *given).to(device),
        n_points=2000,
    )
    guesses = []
    for columns in (given, (0, *given)):
        known = mask(3, *columns).to(device).expand(len(rows), -1)
        snr = torch.zeros(len(rows), 3).to(book.known_snr).masked_fill(known, math.inf)
        y = book.embed(rows).masked_fill(~book.per_coord(known), 0.0)
        guesses.append(deaf(y, snr).mean())
    square = (guesses[0] - guesses[1]).double().square()
    for j in range(3):
        if j in (0, *given):
            assert not told.nats[:, j].any()
            continue
        expected = high / 2 * square[:, book.coord_column == j].sum(1)
        assert expected.max() > 0.01
        slack = rounding(dtype) + (4 * told.stderr / expected).max().item()
        torch.testing.assert_close(told.nats[:, j], expected, atol=rounding(dtype), rtol=slack)
        assert slack < 0.05


def test_a_row_alone_and_among_others(device):
    book = make_book("mixed", device)
    denoiser = make_denoiser("network", book, 0)
    rows = torch.tensor([[0.0] * book.n_columns, [1.0] * book.n_columns], dtype=torch.float64)
    rows = rows.to(device)
    options = {"n_points": 8}
    informing = mask(book.n_columns, 1).to(device)
    both = information_of(denoiser, rows, informing, WIDE, seed=3, **options)
    alone = information_of(denoiser, rows[1:], informing, WIDE, batch_size=4, seed=3, **options)
    torch.testing.assert_close(both.nats[1:], alone.nats)


@pytest.mark.parametrize("n_points", [4, 5])
def test_few_points_do_and_progress_is_in_rows(device, n_points):
    book = make_book("mixed", device)
    denoiser, done = make_denoiser("network", book, 0), []
    rows = torch.zeros(5, book.n_columns, dtype=torch.float64, device=device)
    told = information_of(
        denoiser,
        rows,
        mask(book.n_columns, 1).to(device),
        WIDE,
        n_points=n_points,
        batch_size=12,
        progress=done.append,
    )
    assert told.stderr.isfinite().all()
    assert sum(done) == 5
    assert len(done) > 1


def test_difference_of_two_curves(device):
    """At each SNR the error falls by the information's integrand, if the denoiser is exact."""
    book = Codebook([simplex(2), simplex(2)]).to(device)
    probs = torch.tensor([0.45, 0.05, 0.05, 0.45], device=device)
    oracle = SupportDenoiser(book, all_rows(book), probs)
    rows = oracle.support[torch.multinomial(probs, 4000, replacement=True)]
    snr = torch.tensor([1.0, 4.0])
    options = {"generator": seeded_generator(0, device), "given": mask(2, 0).to(device)}
    knowing, error = mse_curve(oracle, rows, snr, **options)
    asked = rows.clone()
    asked[:, 0] = math.nan
    without, _ = mse_curve(oracle, asked, snr, generator=seeded_generator(0, device))
    assert (without - knowing > 3 * error).all()  # knowing helps


def test_bad_questions(device):
    book = Codebook([simplex(2), simplex(2)]).to(device)
    denoiser = make_denoiser("marginals", book)
    x = torch.zeros(1, 2, dtype=torch.float64, device=device)
    both, none, one = mask(2, 0, 1).to(device), mask(2).to(device), mask(2, 0).to(device)
    generator = seeded_generator(0, device)
    for informing in (both, none):
        with pytest.raises(ValueError, match="some columns must inform"):
            pointwise_information(denoiser, x, informing, WIDE, generator=generator)
    wide = make_denoiser("marginals", Codebook([simplex(2)] * 3).to(device))
    first = mask(3, 0).to(device)
    with pytest.raises(ValueError, match="both inform and be given"):
        pointwise_information(wide, x[:, [0, 1, 1]], first, WIDE, given=first, generator=generator)
    with pytest.raises(ValueError, match="informed by itself"):
        pointwise_information(denoiser, x, one, WIDE, informed=one, generator=generator)
    with pytest.raises(ValueError, match="at least 4, got 3"):
        pointwise_information(denoiser, x, one, WIDE, n_points=3, generator=generator)


def test_a_table_asks_which_columns_inform_which():
    rng = np.random.default_rng(0)
    a = rng.integers(2, size=600)
    frame = pd.DataFrame({"a": a, "copy": a, "other": rng.integers(3, size=600)}).astype(str)
    frame.index += 5
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    told = model.information(frame[:40], "a", n_points=2000)
    assert list(told.columns) == ["a", "copy", "other"]
    assert (told.index == frame.index[:40]).all()
    assert told["copy"].mean() == pytest.approx(math.log(2), abs=0.1)
    assert told["other"].mean() < 0.05
    assert (told["a"] == 0).all()
    pd.testing.assert_frame_equal(told, model.information(frame[:40], ["a"], n_points=2000))
    with pytest.raises(ValueError, match="'nobody': named in about="):
        model.information(frame, "nobody")
    with pytest.raises(ValueError, match="none is left"):
        model.information(frame, ["a", "copy", "other"])
    with pytest.raises(ValueError, match="names no column"):
        model.information(frame, [])
    with pytest.raises(ValueError, match="n_points"):
        model.information(frame, "a", n_points=1)
