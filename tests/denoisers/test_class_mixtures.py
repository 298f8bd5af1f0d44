"""Mixtures of products: two ways to the posterior, and the fit against slow rounds of expectation maximisation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from laws import (
    BOOKS,
    FEW_EXAMPLES,
    WIDER_BOOKS,
    all_rows,
    code,
    make_book,
    mixture_draws,
    random_marginals,
    random_mixture,
    random_rows,
    real,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    states_of_every_kind,
    tables,
)
from scipy import stats

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import MarginalDenoiser, MixtureDenoiser, mixture

WIDER = sorted(WIDER_BOOKS)
FEW = 1e-9  # pseudo-counts that leave the counts as they are


def random_classes(book, rng, *, n_classes=3):
    """A mixture of products, beside which the large vocabularies are independent."""
    rest = random_marginals(book, rng) if book.vocabularies else None
    return random_mixture(book, rng, n_classes=n_classes, fallback=rest)


def by_column(book, probs):
    """(Z, T) as one numpy array (Z, K_j) for every column of few categories."""
    spread = book.levels.spread(probs, 0.0).double().cpu().numpy()
    return [spread[:, i, :k] for i, k in enumerate(book.levels.cardinalities)]


# -- exact, whatever is known ----------------------------------------------------------------------


@FEW_EXAMPLES
@given(tables(max_columns=4), seeds)
def test_log_prob_is_a_sum_over_classes(device, dtype, columns, seed):
    book = Codebook(columns).to(device)
    rng = np.random.default_rng(seed)
    denoiser = random_classes(book, rng)
    rows = all_rows(book)
    weights = denoiser.log_weights.double().exp().cpu().numpy()
    p = weights[:, None] * np.ones(len(rows))
    for j, probs in enumerate(by_column(book, denoiser.log_probs.exp())):
        p = p * probs[:, rows[:, j].long().cpu().numpy()]
    p = p.sum(0)
    got = denoiser.log_prob(rows).double().exp().cpu().numpy()
    np.testing.assert_allclose(got, p, atol=rounding(dtype))
    assert got.sum() == pytest.approx(1, abs=rounding(dtype))


@pytest.mark.parametrize("name", sorted(BOOKS | WIDER_BOOKS))
def test_known_or_unknown_cells_have_a_shorter_way(device, dtype, name):
    """To the same classes and the same levels, whatever is known of the continuous columns."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    denoiser = random_classes(book, rng, n_classes=5)
    rows = random_rows(book, 30, rng)
    snr = torch.tensor(rng.choice([0.0, math.inf], size=rows.shape), device=device)
    snr = snr.to(book.known_snr)
    snr[:2] = torch.tensor([[0.0], [math.inf]], device=device)
    y = book.embed(rows).masked_fill(book.per_coord(snr) == 0, 0.0)
    at = snr[:, book.finite]
    evidence = book.levels.evidence(y[:, : book.levels.n_coords], at)
    start = torch.tensor(rng.normal(size=(30, 5)), device=device).to(y)
    short = denoiser._known_or_not(start, evidence, at)
    long = denoiser._noisy(start, evidence, at)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype)}
    torch.testing.assert_close(short[0].softmax(1), long[0].softmax(1), **close)
    levels = [book.levels.log_softmax(logits) for _, logits in (short, long)]
    torch.testing.assert_close(levels[0].exp(), levels[1].exp(), **close)
    unknown = book.levels.per_level(at) == 0
    torch.testing.assert_close(levels[0][unknown], levels[1][unknown], **close)


@pytest.mark.parametrize("name", ["mixed", "reals and levels", "all kinds"])
def test_each_row_goes_the_way_that_it_can(device, dtype, monkeypatch, name):
    book = make_book(name, device)
    denoiser = random_classes(book, np.random.default_rng(0))
    y, snr = states_of_every_kind(book, np.random.default_rng(0))
    rows = random_rows(book, len(y), np.random.default_rng(1))
    alone = [denoiser(y[[i]], snr[[i]]).log_prob(rows[[i]]) for i in range(len(y))]
    at = snr[:, book.finite]
    hard = ((at == 0) | at.isinf()).all(1)
    asked = {}

    def watch(name):
        way = getattr(MixtureDenoiser, name)

        def spy(self, start, evidence, at=None):
            asked.setdefault(name, []).append(at)
            return way(self, start, evidence, at)

        monkeypatch.setattr(MixtureDenoiser, name, spy)

    watch("_known_or_not")
    watch("_noisy")
    together = denoiser(y, snr).log_prob(rows)
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype)}
    torch.testing.assert_close(together, torch.cat(alone), **close)
    assert 0 < hard.sum() < len(hard)
    for way, these in (("_known_or_not", at[hard]), ("_noisy", at[~hard])):
        assert torch.equal(asked[way][0][: len(these)], these)  # and copies that fill a block
    denoiser(y[hard], snr[hard])
    assert len(asked["_noisy"]) == 1


@pytest.mark.parametrize("name", ["mixed", "all kinds"])
def test_memory_is_bounded_and_changes_nothing(device, dtype, monkeypatch, name):
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    denoiser = random_classes(book, rng)
    y, snr = states_of_every_kind(book, rng)
    rows = random_rows(book, 9, rng, missing=0.3)

    def everything():
        sums = mixture.expected_sums(denoiser, rows)
        return denoiser(y, snr).log_prob(rows).nan_to_num(0.0), denoiser.log_prob(rows), *sums

    before = everything()
    monkeypatch.setattr(mixture, "CELLS", 1)
    monkeypatch.setattr(mixture, "CELLS", 1)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(everything(), before, **close)


@pytest.mark.parametrize("name", WIDER)
def test_what_the_classes_do_not_tell_comes_from_the_rest(device, dtype, name):
    """Large vocabularies always; continuous columns where the classes have no Gaussians."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    rest = random_marginals(book, rng)
    full = random_mixture(book, rng, fallback=rest)
    plain = MixtureDenoiser(book, full.log_weights.exp(), full.log_probs.exp(), fallback=rest)
    y, snr = states_of_every_kind(book, rng)
    rows = random_rows(book, len(y), rng, missing=0.2)
    words = [v.column for v in book.vocabularies]
    close = {"atol": rounding(dtype, 3), "rtol": rounding(dtype)}
    for denoiser, untold in ((full, words), (plain, words + book.reals.tolist())):
        apart = torch.zeros(book.n_columns, dtype=torch.bool, device=device)
        apart[untold] = True
        got, others = denoiser(y, snr).log_prob(rows), rest(y, snr).log_prob(rows)
        assert torch.equal(got[:, apart].nan_to_num(0.0), others[:, apart].nan_to_num(0.0))
        own = torch.logsumexp(denoiser.log_joint(rows), 1)
        expected = own + rest.log_prob(rows.masked_fill(~apart, math.nan))
        torch.testing.assert_close(denoiser.log_prob(rows), expected, **close)


def test_narrow_gaussians_far_from_zero_keep_their_digits(device):
    """In float32, where the squares of a value and a mean differ in the last digits only."""
    torch.set_default_dtype(torch.float32)
    book = Codebook([real(), simplex(2)]).to(device)
    mean, sd = torch.tensor([[1.5], [1.502], [-3.0]]), torch.tensor([[0.002], [0.003], [0.5]])
    weights = torch.tensor([0.3, 0.3, 0.4])
    denoiser = MixtureDenoiser(book, weights, torch.ones(3, 2), mean, sd**2)
    x = torch.tensor([[1.5, 0], [1.503, 1], [1.49, 0], [-3.0, 1], [1.4, 0]], device=device)
    log_pdf = stats.norm.logpdf(x[:, :1].cpu().numpy(), mean[:, 0].numpy(), sd[:, 0].numpy())
    joint = np.log([0.3, 0.3, 0.4]) + log_pdf + math.log(0.5)
    np.testing.assert_allclose(denoiser.log_joint(x).cpu().numpy(), joint, atol=2e-3, rtol=1e-5)


# -- fitted classes --------------------------------------------------------------------------------


def fit(book, x, n, seed=0, **kwargs):
    marginals = MarginalDenoiser.fit(book, x)
    generator = seeded_generator(seed, x.device)
    return MixtureDenoiser.fit(marginals, x, n_components=n, generator=generator, **kwargs)


def parts_of(denoiser):
    """Weights (Z,), probabilities (Z, K_j) by column, means and variances (Z, R): numpy."""
    book = denoiser.codebook
    tensors = denoiser.log_weights.exp(), denoiser.means, denoiser.var
    weights, mean, var = (t.double().cpu().numpy() for t in tensors)
    return weights, by_column(book, denoiser.log_probs.exp()), mean, var


def naive_round(parts, marginals, cells, reals, pseudo_count):
    """One round of expectation maximisation, row by row; cells are those of few categories."""
    weights, probs, mean, var = parts
    prior = [p[0] for p in by_column(marginals.codebook, marginals.log_probs.exp()[None])]
    counts = [np.zeros((len(weights), len(p))) for p in prior]
    mass, r_of = np.full(len(weights), 0.5), []
    for row, values in zip(cells, reals, strict=True):
        joint = np.log(weights)
        for j, k in enumerate(row):
            joint = joint + (0 if np.isnan(k) else np.log(probs[j][:, int(k)]))
        joint = joint + np.nansum(stats.norm.logpdf(values, mean, np.sqrt(var)), 1)
        r = np.exp(joint - np.logaddexp.reduce(joint))
        r_of.append(r)
        mass += r
        for j, k in enumerate(row):
            if not np.isnan(k):
                counts[j][:, int(k)] += r
    for count, p in zip(counts, prior, strict=True):
        count += (pseudo_count + np.maximum(0, 5 - count.sum(1, keepdims=True))) * p
    r = np.array(r_of)[:, :, None] * ~np.isnan(reals)[:, None]  # (N, Z, R)
    few = np.maximum(0, 5 - r.sum(0))
    filled, middle = np.nan_to_num(reals)[:, None], np.nanmean(reals, 0)
    mean = ((r * filled).sum(0) + (0.5 + few) * middle) / (r.sum(0) + 0.5 + few)
    prior_var = np.nanvar(reals, 0) / len(weights)
    var = ((r * (filled - mean) ** 2).sum(0) + (2.0 + few) * prior_var) / (r.sum(0) + 2.0 + few)
    return mass / mass.sum(), [c / c.sum(1, keepdims=True) for c in counts], mean, var


@pytest.mark.parametrize("n_rounds", [1, 5])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("name", ["mixed", "reals and levels", "one real"])
def test_rounds_equal_slow_ones(device, dtype, name, missing, n_rounds):
    """With gaps, of which each class counts the cells that are there; classes of less than five rows among them."""
    book = make_book(name, device)
    rng = np.random.default_rng(0)
    x = mixture_draws(random_mixture(book, rng), 60, rng)
    x[torch.tensor(rng.random(x.shape) < missing, device=device)] = math.nan
    marginals = MarginalDenoiser.fit(book, x)
    expected = parts_of(fit(book, x, 12, n_rounds=0, pseudo_count=0.7))
    cells, reals = (x[:, at].cpu().numpy() for at in (book.finite, book.reals))
    for _ in range(n_rounds):
        expected = naive_round(expected, marginals, cells, reals, 0.7)
    got = parts_of(fit(book, x, 12, n_rounds=n_rounds, pseudo_count=0.7))
    close = {"atol": rounding(dtype, 10), "rtol": rounding(dtype, 10)}
    for a, b in zip(
        (got[0], *got[1], *got[2:]), (expected[0], *expected[1], *expected[2:]), strict=True
    ):
        np.testing.assert_allclose(a, b, **close)


@pytest.mark.parametrize("pseudo_count", [FEW, 1.0])
@pytest.mark.parametrize("missing", [0.3, pytest.param(0.0, marks=pytest.mark.slow)])
def test_no_round_lowers_the_likelihood(device, dtype, missing, pseudo_count):
    """That of the rows, the pseudo-counts, and half a row by which every class's weight is smoothed."""
    book = Codebook([simplex(3), simplex(2), simplex(4), simplex(3), simplex(2)]).to(device)
    rng = np.random.default_rng(1)
    x = mixture_draws(random_mixture(book, rng), 200, rng)
    x[torch.tensor(rng.random(x.shape) < missing, device=device)] = math.nan
    prior = MarginalDenoiser.fit(book, x).log_probs.exp()
    nats = []
    for n_rounds in range(0, 25, 3):
        fitted = fit(book, x, 4, n_rounds=n_rounds, pseudo_count=pseudo_count)
        added = 0.5 * fitted.log_weights.sum() + pseudo_count * (fitted.log_probs @ prior).sum()
        nats.append(fitted.log_prob(x).double().sum().item() + added.item())
    assert (np.diff(nats) > -rounding(dtype, 100)).all()
    assert nats[-1] > nats[0] + 10


def clusters(n, rng, *, missing=0.0):
    """Rows of a vocabulary and, given three classes, three numbers and a category."""
    centre = np.array([[-0.6, 0.5, 0.0], [0.1, -0.5, 0.4], [0.7, 0.4, -0.6]])
    sd = np.array([[0.1, 0.05, 0.2], [0.05, 0.1, 0.1], [0.15, 0.1, 0.05]])
    z = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    category = np.where(rng.random(n) < 0.9, z, rng.integers(3, size=n))
    x = np.column_stack([rng.integers(5, size=n), category, rng.normal(centre[z], sd[z])])
    x[rng.random(x.shape) < missing] = np.nan
    return torch.tensor(x), centre, sd


CLUSTERED = [code(5), simplex(3), real(), real(), real()]


@pytest.mark.parametrize("missing", [0.2, pytest.param(0.0, marks=pytest.mark.slow)])
def test_continuous_columns_get_a_gaussian_of_every_class(device, missing):
    """And large vocabularies the marginals."""
    book = Codebook(CLUSTERED).to(device)
    x, centre, sd = clusters(2000, np.random.default_rng(0), missing=missing)
    fitted = max(
        (fit(book, x.to(device), 3, s) for s in range(2)), key=lambda m: m.log_prob(x).sum()
    )
    weights, probs, mean, var = parts_of(fitted)
    order = mean[:, 0].argsort()
    np.testing.assert_allclose(weights[order], [0.5, 0.3, 0.2], atol=0.03)
    np.testing.assert_allclose(mean[order], centre, atol=0.03)
    np.testing.assert_allclose(np.sqrt(var)[order], sd, atol=0.03)
    expected = 0.9 * np.eye(3) + 0.1 / 3
    np.testing.assert_allclose(probs[0][order], expected, atol=0.04)
    assert fitted.fallback is not None
    plain = fit(book, x.to(device), 3, with_reals=False)
    assert not plain.own_reals
    assert plain.log_prob(x).mean() < fitted.log_prob(x).mean() - 1


def test_the_spread_of_a_class_keeps_its_digits(device):
    """Sums of squares far from zero, in float32."""
    rng = np.random.default_rng(0)
    value = np.where(rng.random(4000) < 0.5, -2.0, 2.0)
    x = np.column_stack([value + 0.004 * rng.normal(size=4000), value > 0])
    spread = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        book = Codebook([real(), simplex(2)]).to(device)
        fitted = fit(book, torch.tensor(x, device=device), 2, n_rounds=6)
        spread.append(fitted.var.double().sqrt())
    torch.testing.assert_close(spread[0], spread[1], rtol=1e-5, atol=0)


def test_a_class_of_one_value_has_a_finite_density(device):
    book = make_book("reals and levels", device)
    x = random_rows(book, 50, np.random.default_rng(0))
    x[:, 0], x[:, 2] = 0.3, math.nan
    fitted = fit(book, x, 8)
    for value in fitted.state_dict().values():
        assert value.isfinite().all()
    assert (fitted.var >= mixture.FINEST_SD**2 * (1 - 1e-6)).all()
    assert fitted.log_prob(x).isfinite().all()


def test_held_out_rows_end_the_fit_and_choose_the_round(device, monkeypatch):
    book = Codebook([simplex(4), simplex(3), simplex(4), simplex(3)]).to(device)
    rng = np.random.default_rng(1)
    oracle = random_mixture(book, rng)
    x, valid = mixture_draws(oracle, 150, rng), mixture_draws(oracle, 400, rng)
    seen, log_prob, expected = [], MixtureDenoiser.log_prob, mixture.expected_sums
    rounds = []

    def look(self, rows):
        seen.append((self, log_prob(self, rows)))
        return seen[-1][1]

    def count(self, rows):
        rounds.append(len(rows))
        return expected(self, rows)

    monkeypatch.setattr(MixtureDenoiser, "log_prob", look)
    monkeypatch.setattr(mixture, "expected_sums", count)
    monkeypatch.setattr(mixture, "LOOK_ROUNDS", 1)
    fitted = fit(book, x, 12, x_valid=valid, pseudo_count=0.05)
    nats = [lp.mean().item() for _, lp in seen]
    assert all(len(lp) == len(valid) for _, lp in seen)
    assert len(rounds) < 60
    best = int(np.argmax(nats))
    assert fitted is seen[best][0]
    assert max(nats[0], nats[-1]) < nats[best] - 0.05
    # while the rows themselves are predicted ever better
    longer = fit(book, x, 12, pseudo_count=0.05)
    assert len(rounds) > 100
    assert log_prob(longer, x).mean() > log_prob(fitted, x).mean() + 0.02


@pytest.mark.parametrize("missing", [0.2, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_large_table_is_learned_by_parts(device, monkeypatch, missing):
    """About as well: held-out rows tell."""
    book = Codebook(CLUSTERED).to(device)
    rng = np.random.default_rng(0)
    x, test = (clusters(n, rng, missing=missing)[0].to(device) for n in (2000, 600))
    whole = fit(book, x, 6, n_rounds=20).log_prob(test).mean().item()
    rows, expected = [], mixture.expected_sums

    def spy(self, x):
        rows.append(x)
        return expected(self, x)

    monkeypatch.setattr(mixture, "EM_ROWS", 300)
    monkeypatch.setattr(mixture, "expected_sums", spy)
    parts = fit(book, x, 6, n_rounds=20).log_prob(test).mean().item()
    assert {len(r) for r in rows} == {300}
    assert not torch.equal(rows[0].nan_to_num(), rows[1].nan_to_num())
    one = fit(book, x, 1).log_prob(test).mean().item()
    assert parts > whole - 0.1
    assert whole > one + 1


@pytest.mark.parametrize("name", ["mixed", "all kinds", "only reals", "only high-cardinality"])
def test_the_generator_alone_decides(device, monkeypatch, name):
    """Whatever else is in the table, and without a look at the global random state."""
    book = make_book(name, device)
    x = random_rows(book, 80, np.random.default_rng(0), missing=0.1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for rows in (mixture.EM_ROWS, 30):
        monkeypatch.setattr(mixture, "EM_ROWS", rows)
        fitted, again, other = (fit(book, x, 4, seed, n_rounds=9) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()
        for key, value in fitted.state_dict().items():
            assert torch.equal(value, again.state_dict()[key])
        new = random_rows(book, 9, np.random.default_rng(1), missing=0.2)
        assert torch.equal(fitted.log_prob(new), again.log_prob(new))
        if len(book.finite):
            assert not torch.equal(fitted.log_probs, other.log_probs)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0, 0.0]}, "weights must be positive numbers, one for each class"),
        ({"weights": [1.0, math.nan]}, "weights must be positive"),
        ({"weights": [[1.0, 1.0]]}, "weights must be positive"),
        ({"probs": np.ones((2, 4))}, r"of shape \(2, 5\), got \(2, 4\)"),
        ({"probs": np.ones((3, 5))}, r"of shape \(2, 5\), got \(3, 5\)"),
        ({"probs": -np.ones((2, 5))}, "probs must be positive"),
        ({"probs": np.full((2, 5), math.nan)}, "probs must be positive"),
        ({"mean": np.zeros((2, 2))}, r"both have shape \(2, 1\)"),
        ({"mean": np.zeros(2)}, r"both have shape \(2, 1\)"),
        ({"var": np.ones((1, 1))}, r"both have shape \(2, 1\)"),
        ({"var": None}, r"both have shape \(2, 1\)"),
        ({"mean": None}, "needs a fallback"),
        ({"mean": None, "var": None}, "needs a fallback"),
        ({"var": np.zeros((2, 1))}, "variances of the classes must be positive"),
    ],
)
def test_wrong_classes_are_refused(change, message):
    book = make_book("one real", "cpu")
    good = {
        "weights": [1.0, 1.0],
        "probs": np.ones((2, book.levels.n_points + 1)),
        "mean": np.zeros((2, 1)),
        "var": np.ones((2, 1)),
    }
    book = Codebook([*book.columns[:2], simplex(3)])
    MixtureDenoiser(book, *(torch.tensor(v) for v in good.values()))
    call = {k: None if v is None else torch.tensor(v) for k, v in (good | change).items()}
    with pytest.raises(ValueError, match=message):
        MixtureDenoiser(book, **call)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_components": 0}, "n_components and pseudo_count must be positive, got 0"),
        ({"pseudo_count": 0.0}, "must be positive, got 2, 0.0"),
        ({"x": torch.zeros(0, 3)}, "at least one row"),
    ],
)
def test_wrong_fits_are_refused(change, message):
    book = make_book("mixed", "cpu")
    x = torch.zeros(4, 3).double()
    call = {"x": x, "n_components": 2, "generator": seeded_generator(0, "cpu")} | change
    with pytest.raises(ValueError, match=message):
        MixtureDenoiser.fit(MarginalDenoiser.fit(book, x), **call)


def test_a_mixture_that_is_moved_or_of_another_type_scores_as_a_new_one(device):
    """What it has made of its parameters is made anew."""
    book = make_book("reals and levels", device)
    rng = np.random.default_rng(0)
    model, x = random_mixture(book, rng).double(), random_rows(book, 9, rng)
    model.log_prob(x)
    moved = model.float()
    own = (moved.means, moved.var)
    new = MixtureDenoiser(moved.codebook, moved.log_weights.exp(), moved.log_probs.exp(), *own)
    assert torch.equal(moved.log_prob(x), new.log_prob(x))
