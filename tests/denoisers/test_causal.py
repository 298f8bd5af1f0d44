"""The laws of causal denoisers (8): one call is the path, later columns are not heard, probabilities sum to one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given

from discrete_itd.channel import Codebook, CoordinateSchedule, State, codebook
from discrete_itd.denoisers import CausalDenoiser, MarginalDenoiser, neural
from discrete_itd.denoisers.causal import (
    MaskedMLP,
    share_of_second,
    start_from_regressions,
)
from discrete_itd.denoisers.neural import Dropout, drawing
from discrete_itd.likelihood import path_log_prob
from discrete_itd.likelihood.sampling import sample
from discrete_itd.testing import check_denoiser
from tests.laws import (
    BOOKS,
    FEW_EXAMPLES,
    WIDER_BOOKS,
    all_rows,
    line,
    make_book,
    make_denoiser,
    random_causal,
    random_rows,
    real,
    rounding,
    seeded_generator,
    seeds,
    simplex,
    wide_tables,
)

KINDS = ["causal on marginals", "causal on bayes_net"]


@pytest.mark.parametrize("kind", KINDS)
@FEW_EXAMPLES
@given(columns=wide_tables, seed=seeds)
def test_one_call_is_the_path_of_as_many_calls_as_columns(device, kind, columns, seed):
    book = Codebook(columns).to(device)
    denoiser = make_denoiser(kind, book, seed)
    x = random_rows(book, 8, np.random.default_rng(seed), missing=0.2)
    schedule = CoordinateSchedule(book.n_columns, denoiser.own_order)
    path = path_log_prob(denoiser, x, schedule, n_paths=1, generator=seeded_generator(0, "cpu"))
    close = {"atol": rounding(book.dtype, 100), "rtol": rounding(book.dtype, 10)}
    torch.testing.assert_close(denoiser.log_prob(x).double(), path.log_prob, **close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WIDER_BOOKS)
def test_rows_are_scored_from_their_constants_alike(device, dtype, kind, name):
    book = make_book(name, device)
    denoiser, rng = make_denoiser(kind, book, 1), np.random.default_rng(1)
    x = random_rows(book, 40, rng, missing=0.2)
    some = torch.arange(3, 35, device=device)
    own = [t[some] for t in denoiser.constants(x)]
    close = {"atol": rounding(dtype, 100), "rtol": rounding(dtype, 10)}
    torch.testing.assert_close(
        denoiser.log_prob(x[some], *own), denoiser.log_prob(x)[some], **close
    )


@pytest.mark.parametrize("kind", KINDS)
@FEW_EXAMPLES
@given(columns=wide_tables, seed=seeds)
def test_what_is_looked_up_of_known_cells_is_what_their_features_give(device, kind, columns, seed):
    """Also once the weights have changed; and, to the last bit, without a say of later columns."""
    book, rng = Codebook(columns).to(device), np.random.default_rng(seed)
    denoiser = make_denoiser(kind, book, seed)
    x = random_rows(book, 8, rng, missing=0.2)
    close = {"atol": rounding(book.dtype, 100), "rtol": rounding(book.dtype, 10)}
    for _ in range(2):
        with torch.no_grad():
            found = denoiser.log_factors(x)
        torch.testing.assert_close(found, denoiser.log_factors(x).detach(), **close)
        with torch.no_grad():
            denoiser.network.enter.weight.mul_(1.5)
            denoiser.network.leave.weight.mul_(-1)
    later = denoiser.order[1 + rng.integers(book.n_columns) :]
    other = x.clone()
    other[:, later] = random_rows(book, 8, rng, missing=0.2)[:, later]
    earlier = [j for j in range(book.n_columns) if j not in later]
    for by_features in (False, True):
        with torch.set_grad_enabled(by_features):
            a, b = denoiser.log_factors(x), denoiser.log_factors(other)
        assert torch.equal(a[:, earlier], b[:, earlier])


@pytest.fixture
def short(monkeypatch):
    """Columns of more than two levels are long: networks read and write them by three numbers."""
    monkeypatch.setattr(codebook, "CATEGORY_MAJOR_UP_TO", 0)  # as those of many levels are stored
    monkeypatch.setattr(neural, "LONG", 1)
    monkeypatch.setattr(neural, "RANK", 3)


@pytest.mark.parametrize("kind", ["network", *KINDS])
@pytest.mark.usefixtures("short")
def test_long_columns_have_every_property(device, dtype, kind):
    """Looked up as computed, drawn as scored; and an untrained network is its base."""
    columns = [simplex(4), simplex(2), simplex(3, is_open=True), line(-0.6, 0.7, 0.9)]
    book = Codebook(columns).to(device)
    denoiser = make_denoiser(kind, book, 1)
    assert denoiser.long.columns == [0, 2, 3]
    assert "posterior_sums_to_one" in check_denoiser(denoiser)
    book = Codebook([*columns, real()]).to(device)
    denoiser, x = make_denoiser(kind, book, 1), random_rows(book, 30, np.random.default_rng(0))
    answers = torch.randn(5, len(denoiser.long.answer_column), device=device)
    apart = {j: answers[:, denoiser.long.answer_column == j] for j in range(5)}
    each = [denoiser.long.write_column(j, apart[j]) for j in range(5)]
    features = denoiser.features.describe_cells(x)
    of_column = [denoiser.features.feature_column == j for j in range(5)]
    whole, read = denoiser.long.write(answers), denoiser.long.read(features)
    for j in range(5):
        torch.testing.assert_close(whole[:, denoiser.features.answer_column == j], each[j])
        own = denoiser.long.read_column(j, features[:, of_column[j]])
        torch.testing.assert_close(read[:, denoiser.long.feature_column == j], own)
    if kind != "network":
        with torch.no_grad():
            looked_up = denoiser.log_factors(x)
        slow = denoiser._prior(denoiser._answers(features), x).log_prob(x)
        close = {"atol": rounding(dtype, 100), "rtol": rounding(dtype, 10)}
        torch.testing.assert_close(looked_up, slow, **close)


@pytest.mark.parametrize("seed", range(3))
def test_a_density_integrates_to_one(device, seed):
    book = Codebook([simplex(2), real()]).to(device)
    denoiser = random_causal(book, seed)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64).tolist()
    total = denoiser.log_prob(all_rows(book, grid)).double().exp().sum() * (grid[1] - grid[0])
    assert float(total) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*BOOKS, *WIDER_BOOKS])
def test_an_untrained_network_is_its_base(device, name, kind):
    book = make_book(name, device)
    denoiser = random_causal(book, 1, base=kind.removeprefix("causal on "), strength=0.0)
    x = random_rows(book, 16, np.random.default_rng(0), missing=0.1)
    prior = denoiser.base.preceding(x, denoiser.order).log_prob(x)
    close = {"atol": rounding(book.dtype), "rtol": rounding(book.dtype)}
    torch.testing.assert_close(denoiser.log_factors(x), prior, **close)


@pytest.mark.parametrize("name", ["all kinds", "reals and levels", "open"])
def test_draws_are_those_along_the_path(device, name):
    """Surprisal of every column, on average over rows drawn at once and over rows drawn by a call for each column."""
    book = make_book(name, device)
    denoiser = random_causal(book, 4)
    drawn = denoiser.draw(4000, seeded_generator(1, device))
    nothing = torch.full_like(drawn, math.nan)
    schedule = CoordinateSchedule(book.n_columns, denoiser.own_order)
    slowly = sample(denoiser, nothing, schedule, generator=seeded_generator(2, device))
    for j, c in enumerate(book.columns):
        assert c.kind == "real" or bool((drawn[:, j] < c.n_levels).all())
    nats = [-denoiser.log_factors(rows).double() for rows in (drawn, slowly)]
    error = sum(n.var(0) / len(n) for n in nats).sqrt()
    assert bool(((nats[0].mean(0) - nats[1].mean(0)).abs() < 4 * error + 1e-9).all())


def test_orders_are_checked(device):
    book = Codebook([simplex(2), simplex(2)], leading=[1], indicator={0: 1}).to(device)
    base = make_denoiser("marginals", book)
    with pytest.raises(ValueError, match="name each of 2 columns once"):
        CausalDenoiser(base, [0, 0])
    with pytest.raises(ValueError, match="column 0 comes before its indicator 1"):
        CausalDenoiser(base, [0, 1])
    CausalDenoiser(base, [1, 0])


@FEW_EXAMPLES
@given(columns=wide_tables, seed=seeds)
def test_known_cells_are_described_as_their_posterior_is(device, columns, seed):
    book = Codebook(columns).to(device)
    denoiser = random_causal(book, seed)
    x = random_rows(book, 8, np.random.default_rng(seed), missing=0.2)
    state = State.start(book, book.embed(x), ~x.isnan())
    slowly = denoiser.features.describe(denoiser.base(*state), state.snr)
    loose = {"atol": rounding(book.dtype, 100), "rtol": rounding(book.dtype, 10)}
    torch.testing.assert_close(denoiser.features.describe_cells(x), slowly, **loose)


@pytest.mark.parametrize("n_levels", [2, 5, 60])
def test_what_is_heard_of_a_column_varies_about_as_much_however_many_categories_it_has(n_levels):
    book = Codebook([simplex(n_levels)])
    x = torch.arange(n_levels, dtype=torch.float64).repeat(50)[:, None]
    features = CausalDenoiser(MarginalDenoiser.fit(book, x), [0], width=8).features
    heard = features.describe_cells(x)[:, : n_levels - 1]  # beside the reliability
    assert 0.5 < float(heard.square().sum(1).mean()) <= 1.01


def test_what_is_masked_has_no_say_in_training_and_is_not_loaded():
    ranks = torch.tensor([0, 1, 2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MaskedMLP(ranks, ranks, 3, parallel=range(3), width=8, depth=1, dropout=0.0)
        for p in network.parameters():
            torch.nn.init.normal_(p)
    state, features = network.state_dict(), torch.randn(4, 3)
    network.train()(features)[:, 0].sum().backward()  # what hears nothing
    assert all(
        not p.grad.any()
        for n, p in network.named_parameters()
        if n != "leave.bias" and n != "skip.bias"
    )
    trained = network(features)
    whole = {name: values.clone() for name, values in state.items()}
    torch.testing.assert_close(network.eval()(features), trained)
    network.load_state_dict(whole)
    torch.testing.assert_close(network(features), trained)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_dropped_numbers_keep_the_mean_and_their_gradients(share, device):
    def dropped(x, share, seed):
        with drawing(seeded_generator(seed, device)):
            return Dropout(share)(x)

    x = torch.ones(999, 33, device=device, requires_grad=True)
    out = dropped(x, share, 0)
    gone = out == 0
    n = x.numel()
    least = math.sqrt(share * (1 - share) / n)
    assert abs(float(gone.float().mean()) - share) < 5 * least + 1 / 512
    assert float(out.mean().detach()) == pytest.approx(1.0, abs=5 * least + 1e-6)
    assert torch.allclose(out[~gone], out[~gone].detach()[:1])
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    # each row and column anew
    assert torch.equal(dropped(x, share, 0), out)
    assert torch.equal(Dropout(share).eval()(x), x)
    assert bool((dropped(x.detach(), 0.9999, 0) > 0).any())  # the largest share is 255/256
    if share:
        assert not torch.equal(dropped(x, share, 1), out)
        rate = gone.float()
        assert abs(float((rate[:, :-1] * rate[:, 1:]).mean()) - share**2) < 0.01


def test_scores_follow_weights_that_any_optimiser_moves(device):
    """A fused one writes to them without a trace."""
    book = make_book("simplex", device)
    model = make_denoiser("causal on marginals", book).requires_grad_(True)
    x = all_rows(book)
    optimizer = torch.optim.AdamW(model.network.parameters(), 0.1, fused=True)
    scores = []
    for _ in range(2):
        scores.append(model.log_prob(x))
        optimizer.zero_grad()
        (-scores[-1].mean()).backward()
        optimizer.step()
    assert not torch.equal(*scores)
    assert not torch.equal(scores[-1], model.requires_grad_(False).log_prob(x))


@pytest.mark.parametrize("parallel", [range(4), range(2, 3), range(0)])
def test_answers_are_the_same_one_by_one(parallel):
    """With the map beside the units to some answers or without it; none hears its own column or a later one."""
    rank = torch.tensor([0, 0, 1, 2])
    torch.manual_seed(0)
    network = MaskedMLP(rank, rank, 3, parallel=parallel, width=8, depth=1, dropout=0.0)
    assert (network.skip is None) == (not parallel)
    for layer in filter(None, (network.leave, network.skip)):
        layer.weight.detach().normal_().mul_(layer.mask)
    network.eval()
    features = torch.randn(5, 4)
    steps = torch.cat(list(network.steps(features)), 1)
    torch.testing.assert_close(steps, network(features))
    features[:, 2:] += 1.0
    torch.testing.assert_close(network(features)[:, :3], steps[:, :3])


@pytest.mark.parametrize("maps_levels", [False, True])
def test_the_map_beside_the_units_is_for_numbers_and_levels_of_short_columns_if_asked(maps_levels):
    book = Codebook([simplex(neural.LONG + 2), real(), simplex(3), real()])
    x = torch.rand(50, 4, dtype=torch.float64) * 2 // 1
    sizes = {"width": 8, "maps_levels": maps_levels}
    denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), range(4), **sizes)
    answered = denoiser.long.answer_column.tolist()
    beside = [i in denoiser.network.parallel for i in range(len(answered))]
    assert beside == [j in (1, 3) or (maps_levels and j == 2) for j in answered]
    assert denoiser.network.skip.mask.shape[0] == sum(beside) > 0


# -- the regressions from which the network starts -------------------------------------------------


def table(n=2000, seed=0, missing=0.0):
    """A category, a number and a third column: 0.3 of the number, a constant for each category and noise."""
    random = np.random.default_rng(seed)
    code, number = random.integers(0, 3, n), 0.5 * random.normal(size=n)
    noise = 0.01 * random.normal(size=n)
    x = np.column_stack([code, number, 0.3 * number + np.array([-0.5, 0.1, 0.4])[code] + noise])
    x[random.random(x.shape) < missing] = np.nan
    return torch.from_numpy(x)


def started(order, x):
    book = Codebook([simplex(3), real(), real()])
    denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), order, width=8, depth=1)
    denoiser.eval().requires_grad_(False)
    before = denoiser.log_factors(x[:50]).double()
    start_from_regressions(denoiser, x)
    return denoiser, before


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_a_sum_of_the_columns_before_starts_as_precise_as_least_squares(missing):
    x, new = table(missing=missing), table(500, seed=1)
    denoiser, _ = started([0, 1, 2], x)
    told = denoiser.log_factors(new)[:, 2].detach().double().mean()
    best = -math.log(0.01 * math.sqrt(2 * math.pi * math.e))  # of the noise
    assert best - (0.1 if missing == 0 else 0.8) < float(told) < best + 0.1


def test_what_comes_before_nothing_starts_as_the_base_and_density_stays_one():
    x = table()
    denoiser, before = started([2, 0, 1], x)
    after = denoiser.log_factors(x[:50]).double()
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])  # category, and the first of the order
    assert not torch.equal(after[:, 1], before[:, 1])
    grid = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    rows = x[:1].repeat(len(grid), 1)
    rows[:, 1] = grid
    total = denoiser.log_factors(rows)[:, 1].double().exp().sum() * (grid[1] - grid[0])
    assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_no_column_hears_what_comes_after_it():
    denoiser, _ = started([1, 2, 0], table())
    skip = denoiser.network.skip
    assert bool((skip.weight[skip.mask == 0] == 0).all())
    assert bool((skip.weight != 0).any())


@pytest.mark.parametrize("x", [table(20), table()[:, :1]], ids=["few rows", "no numbers"])
def test_where_there_is_nothing_to_fit_the_network_starts_as_its_base(x):
    book = Codebook([simplex(3), real(), real()][: x.shape[1]])
    denoiser = CausalDenoiser(MarginalDenoiser.fit(book, x), range(x.shape[1]), width=8).eval()
    before = denoiser.log_prob(x)
    start_from_regressions(denoiser, x)
    assert torch.equal(denoiser.log_prob(x), before)


def test_the_share_is_that_of_maximum_likelihood():
    random = np.random.default_rng(0)
    first, second = torch.from_numpy(random.normal(size=(2, 400, 1)))
    nats = [
        float(torch.logaddexp(first + math.log(1 - w), second + math.log(w)).mean())
        for w in np.linspace(0.001, 0.999, 999)
    ]
    assert float(share_of_second(first, second)) == pytest.approx(
        0.001 * (1 + int(np.argmax(nats))), abs=0.02
    )


def test_features_too_large_for_float64_change_nothing(monkeypatch):
    x = table()
    denoiser, before = started([1, 2, 0], x[:20])
    n = len(denoiser.features.feature_column)
    with monkeypatch.context() as patched:
        patched.setattr(denoiser.features, "describe_cells", lambda x, *_: 1e12 * x[:, [1] * n])
        start_from_regressions(denoiser, x)
    assert torch.equal(denoiser.log_factors(x[:20]).double(), before)
