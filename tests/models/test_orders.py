"""In which order a causal network hears the columns."""

import numpy as np
import pandas as pd
import pytest
import torch
from fits import chain, mixed, plan, training_rows

from discrete_itd.models import networks
from discrete_itd.models.fitting import FitPlan, fit_recipe
from discrete_itd.models.networks import ORDERS, explained_variance, order_of
from discrete_itd.recipes import Causal, RowMixture

SMALL = Causal(width=16, depth=1)


def formula(n=400, seed=0):
    """An instalment that follows from an amount and a number of months, which depends on nothing."""
    rng = np.random.default_rng(seed)
    months = rng.choice([1.0, 2.0, 4.0, 8.0], n)
    amount = np.exp(rng.normal(size=n))
    frame = pd.DataFrame(
        {"instalment": amount / months, "amount": amount, "noise": rng.choice(["u", "v"], n)}
    )
    return frame.assign(months=pd.Series(months).map("m{:.0f}".format))


@pytest.fixture
def compared(monkeypatch):
    """Orders are compared on small tables, too."""
    monkeypatch.setattr(networks, "FEWEST_COMPARED", 0)


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("table", [chain, mixed, formula])
def test_an_order_names_every_column_once_an_indicator_before_its_column(kind, table):
    rows = training_rows(table(200))
    natural = rows.marginals.natural_order(torch.Generator().manual_seed(3))
    order = order_of(kind, natural, rows)
    assert sorted(order) == sorted(natural)
    indicator = rows.codebook.indicator
    assert all(order.index(i) + 1 == order.index(j) for j, i in indicator.items())
    if not len(rows.codebook.reals) and not indicator:
        assert order == natural


def test_explained_variance_is_that_of_group_means():
    rows = training_rows(mixed(300))
    book, got = rows.codebook, explained_variance(rows)
    for i, r in enumerate(book.reals.tolist()):
        for k, j in enumerate(book.finite.tolist()):
            both = rows.x[~(rows.x[:, r].isnan() | rows.x[:, j].isnan())][:, [r, j]].numpy()
            groups = pd.Series(both[:, 0]).groupby(both[:, 1])
            inside = groups.apply(lambda y: ((y - y.mean()) ** 2).sum()).sum()
            naive = 1 - inside / (len(both) - groups.ngroups) / both[:, 0].var(ddof=1)
            assert float(got[i, k]) == pytest.approx(max(0.0, naive), abs=1e-9)


def test_what_explains_a_number_comes_before_it_and_what_follows_from_others_last():
    rows = training_rows(formula(2000))
    order = order_of("explained first", [0, 2, 1, 3], rows)
    assert order == [3, 1, 0, 2]  # months, amount, instalment, noise


def watched(monkeypatch):
    """The order and steps of every training, and every comparison, from now on."""
    seen, compared, train, compare = [], [], FitPlan.train, Causal.kind_of_order

    def train_and_note(self, denoiser, *args):
        report = train(self, denoiser, *args)
        seen.append((denoiser.order, report.history[-1].step))
        return report

    def compare_and_note(self, *args):
        compared.append(compare(self, *args))
        return compared[-1]

    monkeypatch.setattr(FitPlan, "train", train_and_note)
    monkeypatch.setattr(Causal, "kind_of_order", compare_and_note)
    return seen, compared


def compared_nats(rows, how, recipe=SMALL):
    """Held-out code lengths of untrained networks, by the kind of their order."""
    natural = rows.marginals.natural_order(torch.Generator().manual_seed(how.network_seed))
    nats = {}
    for kind in ORDERS:
        order = order_of(kind, natural, rows)
        network = recipe.untrained(rows.marginals, order, rows, how.network_seed).eval()
        nats[kind] = -network.log_prob(rows.x_valid).detach().double()
    return nats


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("seed", range(3))
def test_the_order_with_the_best_regressions_is_taken_if_it_is_clearly_better(seed):
    rows, how = training_rows(formula(seed=seed)), plan(12)
    how.seed = seed
    nats = compared_nats(rows, how)
    got = SMALL.kind_of_order(rows.marginals, rows, how)
    best = min(nats, key=lambda kind: float(nats[kind].mean()))
    gap = nats["natural"] - nats[best]
    is_clear = float(gap.mean()) > float(gap.std()) / len(gap) ** 0.5
    assert got == (best if is_clear else "natural")


@pytest.mark.usefixtures("compared")
def test_networks_of_a_fit_compare_once(monkeypatch):
    (seen, compared), recipe = watched(monkeypatch), RowMixture((SMALL, SMALL))
    fits = [fit_recipe(recipe, training_rows(mixed(120)), plan(6)).denoiser for _ in range(2)]
    assert [n for _, n in seen] == [6] * 4
    assert len(compared) == 2
    x = training_rows(mixed(200)).x_valid
    assert torch.equal(*(fitted.log_prob(x) for fitted in fits))


@pytest.mark.usefixtures("compared")
def test_without_time_for_a_comparison_the_order_is_the_natural_one():
    rows, how = training_rows(mixed(200)), plan(12, 1e-3)
    assert SMALL.kind_of_order(rows.marginals, rows, how) == "natural"
    assert not how.cut
    assert not how.left_out


def test_a_network_maps_levels_linearly_if_the_cells_for_each_weight_are_many():
    n_levels, n_columns = 4 * 2 + 1, 5  # of chain, but the first level of each column
    n_weights = n_levels * (n_levels + n_columns)
    enough = -(-networks.CELLS_OF_WEIGHT * n_weights // n_columns)
    for n, expected in ((enough - 1, False), (enough, True)):
        rows = training_rows(chain(n + 40))
        network = SMALL.untrained(rows.marginals, list(range(n_columns)), rows, 0)
        assert network.maps_levels == expected
        assert (network.network.skip is not None) == expected
        if expected:
            assert network.network.skip.weight.numel() == n_weights
